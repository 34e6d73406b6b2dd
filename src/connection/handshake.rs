//! The introduction on a new connection: user, database, name, in one round trip.

use std::io;

use redis::Cmd;

use super::Connection;
use crate::address::Address;
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Authenticate,
    Select,
    Name,
    ReadOnly,
    Greet,
}

/// Sends all steps at once and checks their replies.
pub(super) async fn introduce(connection: &mut Connection) -> Result<()> {
    let steps = steps(connection);
    for (_, cmd) in &steps {
        connection.queue(cmd);
    }
    connection.flush().await?;
    for (step, _) in steps {
        let line = connection.line().await?;
        let due = if step == Step::Greet { "PONG" } else { "OK" };
        match line.split_at_checked(1) {
            Some(("+", text)) if text == due => {}
            Some(("-", text)) => refused(step, text, &connection.address)?,
            _ => return Err(connection.not_redis()),
        }
    }
    Ok(())
}

fn steps(connection: &Connection) -> Vec<(Step, Cmd)> {
    let address = &connection.address;
    let mut steps = Vec::new();
    if address.access.username.is_some() || address.access.password.is_some() {
        let mut auth = redis::cmd("AUTH");
        if let Some(username) = &address.access.username {
            auth.arg(username);
        }
        auth.arg(address.access.password.as_ref().map_or("", |p| p.reveal()));
        steps.push((Step::Authenticate, auth));
    }
    if address.access.db != 0 {
        let mut select = redis::cmd("SELECT");
        select.arg(address.access.db);
        steps.push((Step::Select, select));
    }
    if let Some(name) = &address.access.client_name {
        let mut setname = redis::cmd("CLIENT");
        setname.arg("SETNAME").arg(name);
        steps.push((Step::Name, setname));
    }
    if address.is_replica {
        steps.push((Step::ReadOnly, redis::cmd("READONLY")));
    }
    if steps.is_empty() {
        // Whoever does not answer this is no server, or has no place for us:
        // better known now than in the middle of a read.
        steps.push((Step::Greet, redis::cmd("PING")));
    }
    steps
}

fn refused(step: Step, reply: &str, address: &Address) -> Result<()> {
    let peer = address.peer();
    if reply.starts_with("ERR max number of clients") {
        return Err(Error::Connection {
            peer,
            reason: reply.to_owned(),
            kind: io::ErrorKind::ConnectionRefused,
        });
    }
    let error = Error::from_reply(peer.clone(), reply, &address.access);
    match step {
        _ if error.is_transient() => Err(error),
        Step::Authenticate => Err(Error::Authentication {
            peer,
            reply: address.redact(&without_arguments(reply)),
        }),
        Step::Select => Err(error),
        Step::Name | Step::ReadOnly | Step::Greet if reply.starts_with("NOAUTH") => Err(error),
        // Without it a replica of a cluster sends everybody to its master.
        Step::ReadOnly if reply.starts_with("NOPERM") => Err(error),
        // A name is a courtesy: a user who may not give one can still read. Nor
        // need one be allowed to ask whether anybody is there. A replica that is
        // of no cluster is read without further ado.
        Step::Name | Step::ReadOnly | Step::Greet => Ok(()),
    }
}

/// The text of an error but for the arguments that it quotes: the password is
/// one of them.
fn without_arguments(reply: &str) -> String {
    const QUOTES: &str = "with args beginning with:";
    match reply.split_once(QUOTES) {
        Some((before, _)) => format!("{before}{QUOTES} ***"),
        None => reply.to_owned(),
    }
}
