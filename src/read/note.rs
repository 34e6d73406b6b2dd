//! What users should know of a read though it did not fail, or before it did.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::Error;

/// How much a [`Note`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warning,
}

/// What a [`Note`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    /// Something that happened.
    Event,
    /// That entries of other consumers are not claimed: told once, whichever leg of
    /// a reader finds it first.
    Claims,
}

/// Something that users should know though nothing failed: one line in a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub level: Level,
    pub(super) about: About,
    /// Holds no secret.
    pub text: String,
}

impl Note {
    /// Something happened.
    pub(super) fn new(level: Level, text: String) -> Self {
        Self {
            level,
            about: About::Event,
            text,
        }
    }

    /// Something failed, and is tried again after a pause.
    pub(super) fn of_retry(error: &Error, pause: Duration) -> Self {
        let text = format!("{error}; trying again in {} ms", pause.as_millis());
        Self::new(Level::Warning, text)
    }
}

/// Where what calls one another write notes, which are there however they end.
#[derive(Debug, Default)]
pub struct Notes(Mutex<Vec<Note>>);

impl Notes {
    /// Adds some.
    pub fn add(&self, notes: impl IntoIterator<Item = Note>) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.extend(notes);
    }

    /// Takes those that are there, oldest first.
    pub fn take(&self) -> Vec<Note> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut held)
    }
}
