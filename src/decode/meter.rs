//! How far a read has come, for whoever looks on from outside.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts the entries of a read while it goes on. Nobody waits for it: it is looked
/// at from time to time.
#[derive(Debug)]
pub struct Meter {
    entries: AtomicU64,
    expected: AtomicU64,
    /// Those of reads that are parts of this one.
    parts: Mutex<Vec<Arc<Meter>>>,
}

/// Stands for a number that is not known.
const UNKNOWN: u64 = u64::MAX;

impl Default for Meter {
    fn default() -> Self {
        Self {
            entries: AtomicU64::new(0),
            expected: AtomicU64::new(UNKNOWN),
            parts: Mutex::default(),
        }
    }
}

impl Meter {
    /// Entries that have been decoded.
    pub fn entries(&self) -> u64 {
        let parts: u64 = self.parts().iter().map(|part| part.entries()).sum();
        self.own() + parts
    }

    /// About how many there will be in all, if that is known.
    pub fn expected(&self) -> Option<u64> {
        let parts = self.parts();
        let own = match self.expected.load(Relaxed) {
            // It may be made of its parts alone.
            UNKNOWN if self.own() > 0 || parts.is_empty() => return None,
            UNKNOWN => 0,
            expected => expected,
        };
        let parts: Option<u64> = parts.iter().map(|part| part.expected()).sum();
        Some(own.saturating_add(parts?))
    }

    /// About so many there will be.
    pub fn expect(&self, entries: u64) {
        self.expected.store(entries, Relaxed);
    }

    /// There will be about as many in each stream as in the first `read` of `streams`
    /// streams.
    pub fn expect_as_in(&self, read: usize, streams: usize) {
        if read > 0 {
            let each = self.own() as f64 / read as f64;
            self.expect((each * streams as f64).round() as u64);
        }
    }

    /// Another read is a part of this one.
    pub fn add_part(&self, part: &Arc<Self>) {
        self.parts().push(part.clone());
    }

    /// So many more have been decoded.
    pub(super) fn add(&self, entries: usize) {
        self.entries.fetch_add(entries as u64, Relaxed);
    }

    fn own(&self) -> u64 {
        self.entries.load(Relaxed)
    }

    fn parts(&self) -> MutexGuard<'_, Vec<Arc<Self>>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_the_sum_of_what_the_parts_expect() {
        let whole = Meter::default();
        assert_eq!((whole.entries(), whole.expected()), (0, None));
        let parts = [Arc::new(Meter::default()), Arc::new(Meter::default())];
        parts.iter().for_each(|part| whole.add_part(part));
        parts[0].add(30);
        parts[0].expect_as_in(3, 10);
        assert_eq!((whole.entries(), whole.expected()), (30, None));
        parts[1].expect(7);
        assert_eq!((whole.entries(), whole.expected()), (30, Some(107)));
    }
}
