//! A link on its way to a connection: whoever waits for it may stop and come back,
//! and it goes on where it was. So it gets there however often others of a thread
//! have something to say meanwhile.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::super::link::Link;
use crate::error::Result;

/// What comes of it: the link, connected or not.
type Outcome = (Link, Result<()>);

/// The way of a link to a connection.
pub struct Connecting {
    way: Pin<Box<dyn Future<Output = Outcome> + Send>>,
    /// What the link had counted.
    reconnects: u64,
}

impl Connecting {
    /// Sets out.
    pub fn new(mut link: Link) -> Self {
        let reconnects = link.reconnects();
        let way = async move {
            let made = link.ready().await.map(|_| ());
            (link, made)
        };
        Self {
            way: Box::pin(way),
            reconnects,
        }
    }

    /// How often the link had made a connection again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }
}

impl Future for Connecting {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        self.way.as_mut().poll(context)
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connecting")
    }
}
