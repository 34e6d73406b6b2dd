//! A line on which nothing comes: whether anybody is there.

use std::time::Duration;

use tokio::time::Instant;

/// Since when nothing came, and whether the peer was asked if it is there.
#[derive(Debug)]
pub struct Silence {
    since: Instant,
    /// When the peer was asked, if nothing came since.
    asked: Option<Instant>,
    answers_due: usize,
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
            answers_due: 0,
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
        self.answers_due += 1;
    }

    /// It answered.
    pub fn answered(&mut self) {
        self.answers_due = self.answers_due.saturating_sub(1);
    }

    /// Whether it has to answer still.
    pub fn is_answer_due(&self) -> bool {
        self.answers_due > 0
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
