//! Connections kept between calls, so that a short read need not connect.
//!
//! A kept connection is a plain socket that belongs to no runtime. A forked
//! child finds none: it begins with a store of its own, and neither reads from
//! its parent's sockets nor waits for a lock that another thread of the parent
//! held.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::{Connection, Inbox};
use crate::address::Address;

/// Connections kept for one address.
const MAX_KEPT: usize = 4;

struct Kept {
    socket: TcpStream,
    inbox: Inbox,
}

struct Store {
    process: u32,
    idle: Mutex<HashMap<Arc<Address>, Vec<Kept>>>,
}

/// The store of this process; the stores of parents are left alone.
static STORE: AtomicPtr<Store> = AtomicPtr::new(std::ptr::null_mut());

fn store() -> &'static Store {
    let process = std::process::id();
    let current = STORE.load(Ordering::Acquire);
    // SAFETY: a pointer that was ever stored came from a leaked box.
    if let Some(store) = unsafe { current.as_ref() }
        && store.process == process
    {
        return store;
    }
    let fresh = Box::into_raw(Box::new(Store {
        process,
        idle: Mutex::default(),
    }));
    let won = STORE.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire);
    let store = match won {
        Ok(_) => {
            // SAFETY: as above; `current` is a parent's store, if anything.
            forget_parents(unsafe { current.as_ref() });
            fresh
        }
        Err(other) => {
            // SAFETY: nobody else has seen it.
            drop(unsafe { Box::from_raw(fresh) });
            other
        }
    };
    // SAFETY: leaked above, here or by the thread that was faster.
    unsafe { &*store }
}

/// Closes this process's copies of its parent's sockets, so that they do not
/// keep the parent's connections open. The parent's own are not touched.
fn forget_parents(store: Option<&Store>) {
    // A lock that was held when the process forked is never released here.
    if let Some(Ok(mut idle)) = store.map(|store| store.idle.try_lock()) {
        idle.clear();
    }
}

/// A connection to `address` that is still open, if one is kept.
pub(super) fn take(address: &Arc<Address>) -> Option<Connection> {
    loop {
        let kept = {
            let mut idle = store().idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.get_mut(address)?.pop()?
        };
        if !is_quiet(&kept.socket) {
            continue;
        }
        if let Ok(socket) = tokio::net::TcpStream::from_std(kept.socket) {
            return Some(Connection {
                socket,
                address: address.clone(),
                inbox: kept.inbox,
                outbox: Vec::new(),
                sent: 0,
                in_query: false,
            });
        }
    }
}

/// Keeps a connection, unless enough are kept.
pub(super) fn give(connection: Connection) {
    let Ok(socket) = connection.socket.into_std() else {
        return;
    };
    let mut idle = store().idle.lock().unwrap_or_else(PoisonError::into_inner);
    let kept = idle.entry(connection.address).or_default();
    if kept.len() < MAX_KEPT {
        let inbox = connection.inbox;
        kept.push(Kept { socket, inbox });
    }
}

/// Whether the peer has neither closed the connection nor sent what nobody
/// asked for.
fn is_quiet(socket: &TcpStream) -> bool {
    match socket.peek(&mut [0]) {
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
    }
}
