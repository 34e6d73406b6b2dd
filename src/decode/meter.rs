//! How far a read has come, for whoever looks on from outside.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts the entries of a read while it goes on. Nobody waits for it: it is read
/// from time to time.
#[derive(Debug)]
pub struct Meter {
    entries: AtomicU64,
    expected: AtomicU64,
}

/// Stands for a number that is not known.
const UNKNOWN: u64 = u64::MAX;

impl Default for Meter {
    fn default() -> Self {
        Self {
            entries: AtomicU64::new(0),
            expected: AtomicU64::new(UNKNOWN),
        }
    }
}

impl Meter {
    /// Entries that have been decoded.
    pub fn entries(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    /// About how many there will be in all, if that is known.
    pub fn expected(&self) -> Option<u64> {
        Some(self.expected.load(Relaxed)).filter(|&expected| expected != UNKNOWN)
    }

    /// About so many there will be.
    pub fn expect(&self, entries: u64) {
        self.expected.store(entries, Relaxed);
    }

    /// So many more have been decoded.
    pub(super) fn add(&self, entries: usize) {
        self.entries.fetch_add(entries as u64, Relaxed);
    }
}
