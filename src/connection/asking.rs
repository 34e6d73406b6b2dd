//! Asking several servers the same thing: the first who knows is enough.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use redis::{Cmd, Value};

use super::{Connection, error_text};
use crate::address::Address;
use crate::error::{Error, Result};

/// Servers that are asked at the same time.
const AT_ONCE: usize = 4;

/// Runs a control command on one server.
///
/// # Errors
/// Besides those of the connection, the server's own error.
pub async fn ask(address: &Arc<Address>, cmd: &Cmd) -> Result<Value> {
    let mut connection = Connection::open(address).await?;
    let reply = match connection.query(cmd).await {
        // One that was kept may have been closed meanwhile.
        Err(error) if error.is_cut() => {
            connection = Connection::connect(address).await?;
            connection.query(cmd).await?
        }
        reply => reply?,
    };
    connection.keep();
    match error_text(&reply) {
        None => Ok(reply),
        Some(text) => Err(Error::from_reply(address.peer(), &text, &address.access)),
    }
}

/// Runs a control command on several servers; the first reply that is no error,
/// and whose it is.
///
/// # Errors
/// If all fail: an error reply, if a server gave one, or an error that tells of each
/// of them.
pub async fn ask_any(addresses: &[Arc<Address>], cmd: &Cmd) -> Result<(Arc<Address>, Value)> {
    let mut errors = Vec::new();
    let mut left = addresses.iter();
    let asked = |address: &Arc<Address>| {
        let address = address.clone();
        async move { (ask(&address, cmd).await, address) }
    };
    let mut asking: FuturesUnordered<_> = left.by_ref().take(AT_ONCE).map(asked).collect();
    while let Some((reply, address)) = asking.next().await {
        match reply {
            Ok(reply) => return Ok((address, reply)),
            Err(error) => errors.push(error),
        }
        asking.extend(left.next().map(asked));
    }
    Err(all_failed(errors))
}

fn all_failed(errors: Vec<Error>) -> Error {
    // What a server answers says more than that others are not there.
    if let Some(answer) = errors.iter().find(|error| !error.is_unreachable()) {
        return answer.clone();
    }
    let said: Vec<String> = errors.iter().map(Error::to_string).collect();
    match errors.into_iter().next() {
        Some(Error::Connection { peer, kind, reason }) if said.len() > 1 => Error::Connection {
            peer,
            reason: [reason, said[1..].join("; ")].join("; "),
            kind,
        },
        Some(Error::Timeout { peer, reason }) if said.len() > 1 => Error::Timeout {
            peer,
            reason: [reason, said[1..].join("; ")].join("; "),
        },
        Some(error) => error,
        None => Error::Argument("url: names no server".into()),
    }
}
