//! Connections kept between calls, so that a short read need not connect.
//!
//! A kept connection is a plain socket that belongs to no runtime. A forked
//! child finds none: it neither reads from its parent's sockets nor waits for a
//! lock that another thread of the parent held.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::transport::Idle;
use super::{Connection, Inbox};
use crate::address::Address;
use crate::per_process::PerProcess;

/// Connections kept for one address, and for all.
const MAX_KEPT: usize = 4;
const MAX_KEPT_IN_ALL: usize = 32;
/// A connection that nobody wanted for so long is closed when the next one is
/// taken or given.
const MAX_IDLE: Duration = Duration::from_secs(60);

struct Kept {
    address: Arc<Address>,
    since: Instant,
    socket: Idle,
    inbox: Inbox,
}

/// The oldest first.
static KEPT: PerProcess<Mutex<Vec<Kept>>> = PerProcess::new();

fn kept() -> MutexGuard<'static, Vec<Kept>> {
    let kept = KEPT.get(close_copies).lock();
    let mut kept = kept.unwrap_or_else(PoisonError::into_inner);
    kept.retain(|kept| kept.since.elapsed() < MAX_IDLE);
    kept
}

/// Closes this process's copies of its parent's sockets, so that they do not
/// keep the parent's connections open. The parent's own are not touched.
fn close_copies(parents: &Mutex<Vec<Kept>>) {
    // A lock that was held when the process forked is never released here.
    if let Ok(mut parents) = parents.try_lock() {
        parents.clear();
    }
}

/// A connection to `address` that is still open, if one is kept.
pub(super) fn take(address: &Arc<Address>) -> Option<Connection> {
    loop {
        let found = {
            let mut kept = kept();
            let at = kept.iter().rposition(|kept| kept.address == *address)?;
            kept.remove(at)
        };
        if !found.socket.is_quiet() {
            continue;
        }
        if let Ok(transport) = found.socket.into_transport() {
            return Some(Connection {
                transport,
                address: address.clone(),
                inbox: found.inbox,
                outbox: Vec::new(),
                sent: 0,
                in_query: false,
                is_asking: false,
                looks_out: true,
            });
        }
    }
}

/// Keeps a connection, unless enough are kept.
pub(super) fn give(connection: Connection) {
    let Ok(socket) = connection.transport.into_idle() else {
        return;
    };
    let address = connection.address;
    let mut kept = kept();
    if kept.iter().filter(|kept| kept.address == address).count() >= MAX_KEPT {
        return;
    }
    if kept.len() >= MAX_KEPT_IN_ALL {
        kept.remove(0);
    }
    kept.push(Kept {
        address,
        since: Instant::now(),
        socket,
        inbox: connection.inbox,
    });
}
