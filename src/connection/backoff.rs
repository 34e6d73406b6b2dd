//! Pauses between attempts: growing, jittered, and bounded in sum.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// Short enough that a reader is back within a second after a failover.
const LONGEST_PAUSE: Duration = Duration::from_millis(600);

/// Decides how long to wait before the next attempt, and when to give up.
#[derive(Debug)]
pub struct Backoff {
    budget: Duration,
    failing_since: Option<Instant>,
    pause: Duration,
}

impl Backoff {
    /// Gives up when attempts have failed for `budget`.
    pub fn new(budget: Duration) -> Self {
        Self {
            budget,
            failing_since: None,
            pause: FIRST_PAUSE,
        }
    }

    /// Something succeeded: the next failure counts as the first.
    pub fn succeeded(&mut self) {
        self.failing_since = None;
        self.pause = FIRST_PAUSE;
    }

    /// Something failed: how long to wait before the next attempt, or `None`
    /// to give up.
    pub fn failed(&mut self) -> Option<Duration> {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        let left = self.budget.checked_sub(since.elapsed())?;
        let pause = self.pause.mul_f64(jitter()).min(left);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        Some(pause)
    }
}

/// Between a half and one and a half, so that clients that failed together do
/// not come back together.
fn jitter() -> f64 {
    let random = RandomState::new().hash_one(0u8);
    0.5 + random as f64 / u64::MAX as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_until_the_budget_is_spent() {
        let mut backoff = Backoff::new(Duration::from_secs(3600));
        let pauses: Vec<_> = (0..12).map_while(|_| backoff.failed()).collect();
        assert_eq!(pauses.len(), 12);
        assert!(pauses[0] <= FIRST_PAUSE * 2);
        assert!(pauses[11] >= LONGEST_PAUSE / 2);
        backoff.succeeded();
        assert!(backoff.failed() <= Some(FIRST_PAUSE * 2));

        let mut spent = Backoff::new(Duration::ZERO);
        while spent.failed().is_some() {}
    }
}
