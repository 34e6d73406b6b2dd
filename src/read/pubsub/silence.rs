//! A line on which nothing comes: whether anybody is there.

use std::time::Duration;

use tokio::time::Instant;

/// Since when nothing came, and whether the peer was asked if it is there.
#[derive(Debug)]
pub struct Silence {
    since: Instant,
    /// When the peer was asked, if nothing came since.
    asked: Option<Instant>,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Wait until then.
    Wait(Instant),
    /// Ask the peer whether it is there.
    Ask,
    /// It is not.
    GiveUp,
}

impl Silence {
    /// One that begins now.
    pub fn new() -> Self {
        Self {
            since: Instant::now(),
            asked: None,
        }
    }

    /// Something came.
    pub fn broken(&mut self) {
        self.since = Instant::now();
        self.asked = None;
    }

    /// The peer was asked.
    pub fn asked(&mut self) {
        self.asked = Some(Instant::now());
    }

    /// What to do, where the peer may be silent for as long as `patience`: it is
    /// asked at half-time.
    pub fn due(&self, patience: Duration) -> Due {
        let due = self.asked.unwrap_or(self.since) + patience / 2;
        match self.asked {
            _ if due > Instant::now() => Due::Wait(due),
            None => Due::Ask,
            Some(_) => Due::GiveUp,
        }
    }
}
