//! Which part of an ID range to ask for next.
//!
//! A range is read as disjoint windows of IDs, several of them in flight, so
//! that the server works on the next reply while this one is decoded. How many
//! IDs hold how many entries is not known beforehand: a window that turns out
//! fuller than thought is answered up to its limit, and the rest of it is asked
//! for again; what each reply shows sizes the windows that follow.
//!
//! Nothing here does I/O; replies are reported, and requests come out.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::entry_id::{EntryId, IdRange};

/// Entries a window should hold: under a millisecond of the server's time.
const TARGET_ENTRIES: usize = 1000;
/// Entries a window should hold before the size of an entry is known.
const FIRST_TARGET_ENTRIES: usize = 100;
/// Bytes a reply should have where entries are large.
const TARGET_BYTES: f64 = 192.0 * 1024.0;
/// A reply may hold this many times the entries that its window should.
const LIMIT_FACTOR: usize = 2;
/// Entries are taken for so many times larger after the connection was lost.
const LOSS_FACTOR: f64 = 4.0;
const MAX_ASSUMED_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// A window may hold this many times the IDs of one that was almost empty.
const MAX_GROWTH: f64 = 8.0;

/// Requests in flight on a connection with no delay. They follow one another
/// as replies come in, so other clients are served in between.
const MIN_IN_FLIGHT: usize = 6;
/// Requests in flight at the most, however long the round trip is.
const MAX_IN_FLIGHT: usize = 256;
/// Requests in flight at first, however long the round trip is.
const MAX_FIRST_IN_FLIGHT: usize = 32;
/// About the server's time for one window.
const WINDOW_TIME: Duration = Duration::from_micros(500);

/// A part of the range that was asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// IDs asked for.
    pub range: IdRange,
    /// Entries asked for at the most.
    pub limit: usize,
    sent: Instant,
}

/// What a reply held.
#[derive(Debug, Clone, Copy)]
pub struct Reply {
    pub entries: usize,
    pub bytes: usize,
    /// IDs from its first entry to its last.
    pub ids: Option<IdRange>,
}

/// The plan of a range read: what is asked for, and what is still to ask.
#[derive(Debug)]
pub struct Windows {
    /// Disjoint parts not asked for; the earliest is the last.
    todo: Vec<IdRange>,
    /// Parts asked for, in the order of asking, which is that of the replies.
    in_flight: VecDeque<Window>,
    /// How many IDs hold one entry; not known at first.
    ids_per_entry: Option<f64>,
    bytes_per_entry: Option<f64>,
    /// Entries of a window before the size of an entry is known.
    first_target: usize,
    depth: usize,
    /// The shortest time from a request to its reply.
    round_trip: Duration,
}

impl Windows {
    /// A plan for `range`, of which nothing is known.
    pub fn new(range: IdRange) -> Self {
        Self {
            todo: vec![range],
            in_flight: VecDeque::new(),
            ids_per_entry: None,
            bytes_per_entry: None,
            first_target: FIRST_TARGET_ENTRIES,
            depth: MIN_IN_FLIGHT,
            round_trip: Duration::MAX,
        }
    }

    /// The same plan, knowing how many IDs there are to an entry.
    pub fn with_density(mut self, ids_per_entry: f64) -> Self {
        self.ids_per_entry = Some(ids_per_entry);
        self
    }

    /// The same plan, knowing how long a short command takes.
    pub fn with_round_trip(mut self, round_trip: Duration) -> Self {
        let windows = round_trip.as_secs_f64() / WINDOW_TIME.as_secs_f64();
        self.depth = (windows as usize).clamp(MIN_IN_FLIGHT, MAX_FIRST_IN_FLIGHT);
        self.round_trip = round_trip;
        self
    }

    /// The first ID that is still to be asked for.
    pub fn start(&self) -> Option<EntryId> {
        self.todo.last().map(|part| part.start())
    }

    /// Whether everything was asked for and answered.
    pub fn is_finished(&self) -> bool {
        self.todo.is_empty() && self.in_flight.is_empty()
    }

    /// Whether a reply is due.
    pub fn is_waiting(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The window whose reply comes next.
    pub fn due(&self) -> Option<Window> {
        self.in_flight.front().copied()
    }

    /// About how many entries may still come, those in flight included.
    pub fn expected(&self) -> usize {
        let in_flight = self.in_flight.iter().map(|window| window.limit).sum();
        let Some(ids) = self.ids_per_entry else {
            return in_flight;
        };
        let span: f64 = self.todo.iter().map(|part| part.span()).sum();
        // A float that is too large saturates.
        in_flight.saturating_add((span / ids) as usize)
    }

    /// The next window to ask for, if it is time for one. `wanted` is how many
    /// entries are wanted beyond those decoded, if that is limited.
    pub fn next(&mut self, wanted: Option<usize>) -> Option<Window> {
        let target = self.target();
        let expected = self.in_flight.len() * target;
        let wanted = wanted.unwrap_or(usize::MAX);
        // How large entries are is found out by one window: several of them
        // could be more than the server can hold.
        let depth = self.bytes_per_entry.map_or(1, |_| self.depth);
        if self.in_flight.len() >= depth || expected >= wanted {
            return None;
        }
        let part = self.todo.pop()?;
        let (range, rest) = match self.ids_per_entry {
            Some(ids) => part.cut(ids * target as f64),
            None => (part, None),
        };
        self.todo.extend(rest);
        let window = Window {
            range,
            limit: self.limit(target).min(wanted),
            sent: Instant::now(),
        };
        self.in_flight.push_back(window);
        Some(window)
    }

    /// Reports the reply to the window that was due; what it covered, which is
    /// less than the window if there were more entries than its limit.
    pub fn replied(&mut self, reply: Reply) -> Option<IdRange> {
        let window = self.in_flight.pop_front()?;
        self.adapt_depth(window.sent.elapsed());
        let Some(found) = reply.ids.filter(|_| reply.entries >= window.limit) else {
            self.adapt_size(window.range, reply);
            return Some(window.range);
        };
        let rest = window.range.after(found.end());
        rest.into_iter().for_each(|rest| self.ask_again(rest));
        // What lies before the first entry says nothing of what comes after
        // the last.
        self.adapt_size(found, reply);
        IdRange::new(window.range.start(), found.end())
    }

    /// The connection was lost: what is in flight will be asked for again,
    /// except for what had been decoded, up to the entry `decoded`.
    ///
    /// What was asked for may have been too much for the server: less is asked
    /// for then.
    pub fn lost(&mut self, decoded: Option<EntryId>) {
        match &mut self.bytes_per_entry {
            Some(bytes) => *bytes = (*bytes * LOSS_FACTOR).min(MAX_ASSUMED_BYTES),
            None => self.first_target = (self.first_target / LOSS_FACTOR as usize).max(1),
        }
        self.give_up(decoded);
    }

    /// The server has not done what was asked: what is in flight will be asked for
    /// again, as it was.
    pub fn refused(&mut self) {
        self.give_up(None);
    }

    fn give_up(&mut self, decoded: Option<EntryId>) {
        let mut lost = std::mem::take(&mut self.in_flight).into_iter();
        if let Some(first) = lost.next() {
            let rest = match decoded {
                Some(last) => first.range.after(last),
                None => Some(first.range),
            };
            rest.into_iter().for_each(|rest| self.ask_again(rest));
        }
        for window in lost {
            self.ask_again(window.range);
        }
    }

    /// Nothing at `id` or after it is wanted any more.
    pub fn stop_before(&mut self, id: EntryId) {
        let end = id.previous();
        let cut = |part: IdRange| IdRange::new(part.start(), part.end().min(end?));
        self.todo = self.todo.drain(..).filter_map(cut).collect();
    }

    /// A part was answered, and is asked for again.
    pub fn ask_again(&mut self, part: IdRange) {
        let at = self.todo.partition_point(|p| p.start() > part.start());
        self.todo.insert(at, part);
    }

    /// Entries that a reply may hold.
    fn limit(&self, target: usize) -> usize {
        match self.bytes_per_entry {
            Some(_) => target * LIMIT_FACTOR,
            None => target,
        }
    }

    /// Entries that a window should hold.
    fn target(&self) -> usize {
        match self.bytes_per_entry {
            None => self.first_target,
            Some(bytes) => ((TARGET_BYTES / bytes) as usize).clamp(1, TARGET_ENTRIES),
        }
    }

    /// Learns from a reply with the entries of a stretch of IDs.
    fn adapt_size(&mut self, stretch: IdRange, reply: Reply) {
        let target = self.target() as f64;
        let most = stretch.span() * MAX_GROWTH / target;
        if reply.entries == 0 {
            self.ids_per_entry = Some(self.ids_per_entry.map_or(most, |ids| ids.max(most)));
            return;
        }
        let entries = reply.entries as f64;
        let seen = (stretch.span() / entries).min(most);
        // The middle of what was thought and what was seen, on the scale of
        // factors: one odd window does not turn the plan over.
        self.ids_per_entry = Some(match self.ids_per_entry {
            Some(ids) if (0.5..2.0).contains(&(seen / ids)) => (ids * seen).sqrt(),
            _ => seen,
        });
        let bytes = reply.bytes as f64 / entries;
        self.bytes_per_entry = Some(match self.bytes_per_entry {
            Some(before) if bytes < before => (before + bytes) / 2.0,
            _ => bytes,
        });
    }

    /// More requests in flight as long as they do not queue: when a reply
    /// comes about a round trip after its request, the server was waiting.
    fn adapt_depth(&mut self, latency: Duration) {
        self.round_trip = self.round_trip.min(latency);
        if latency < self.round_trip.mul_f64(1.5) {
            self.depth = (self.depth + 1).min(MAX_IN_FLIGHT);
        } else if latency > self.round_trip * 3 {
            self.depth = (self.depth - 1).max(MIN_IN_FLIGHT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> EntryId {
        EntryId::new(ms, seq)
    }

    /// Reads a sorted list of IDs by the plan; the number of requests it took.
    fn drain(ids: &[EntryId], ids_per_entry: Option<f64>) -> usize {
        let range = IdRange::new(ids[0], ids[ids.len() - 1]).unwrap();
        let mut windows = Windows::new(range);
        if let Some(ids) = ids_per_entry {
            windows = windows.with_density(ids);
        }
        let mut found = Vec::new();
        let mut requests = 0;
        while !windows.is_finished() {
            // How many are in flight depends on how long replies take: not here.
            windows.depth = MIN_IN_FLIGHT;
            while windows.next(None).is_some() {
                requests += 1;
            }
            let window = windows.due().unwrap();
            let from = ids.partition_point(|&i| i < window.range.start());
            let to = ids.partition_point(|&i| i <= window.range.end());
            let entries = &ids[from..to.min(from + window.limit)];
            found.extend_from_slice(entries);
            windows.replied(Reply {
                entries: entries.len(),
                bytes: entries.len() * 100,
                ids: entries
                    .first()
                    .and_then(|first| IdRange::new(*first, *entries.last()?)),
            });
        }
        found.sort();
        assert_eq!(found, ids, "every entry once");
        requests
    }

    fn density(ids: &[EntryId]) -> Option<f64> {
        let range = IdRange::new(ids[0], ids[ids.len() - 1]).unwrap();
        Some(range.span() / ids.len() as f64)
    }

    #[test]
    fn an_even_stream_takes_a_request_a_window() {
        let ids: Vec<_> = (0..100_000).map(|n| id(1_700_000_000_000 + n, 0)).collect();
        assert!(drain(&ids, density(&ids)) < 120);
        assert!(drain(&ids, None) < 120);
    }

    #[test]
    fn entries_of_one_millisecond_are_told_apart_by_sequence() {
        let ids: Vec<_> = (0..100_000).map(|n| id(5, n)).collect();
        assert!(drain(&ids, density(&ids)) < 120);
    }

    #[test]
    fn entries_years_apart_take_no_more() {
        let year = 365 * 24 * 3600 * 1000;
        let ids: Vec<_> = (0..10_000).map(|n| id(n * year, 0)).collect();
        assert!(drain(&ids, density(&ids)) < 30);
    }

    #[test]
    fn a_few_old_entries_before_a_dense_stream_cost_little() {
        let mut ids: Vec<_> = (1..10).map(|n| id(0, n)).collect();
        ids.extend((0..100_000).map(|n| id(1_700_000_000_000 + n / 7, n % 7)));
        assert!(drain(&ids, density(&ids)) < 200);
        assert!(drain(&ids, None) < 200);
    }

    #[test]
    fn bursts_with_silence_between_them_cost_little() {
        let mut ids = Vec::new();
        for burst in 0..20 {
            ids.extend((0..5_000).map(|n| id(burst * 10_000_000, n)));
        }
        assert!(drain(&ids, density(&ids)) < 2_000);
    }

    #[test]
    fn a_limited_read_asks_for_little_more_than_it_wants() {
        let range = IdRange::new(EntryId::MIN, id(1_000_000, 0)).unwrap();
        let mut windows = Windows::new(range).with_density(range.span() / 1e6);
        let window = windows.next(Some(100)).unwrap();
        assert_eq!(window.limit, 100);
        assert_eq!(windows.next(Some(100)), None);
    }

    #[test]
    fn large_entries_make_small_windows() {
        let range = IdRange::new(EntryId::MIN, id(1_000, 0)).unwrap();
        let limit = |bytes| {
            let mut windows = Windows::new(range).with_density(1.0);
            let first = windows.next(None).unwrap();
            assert_eq!(first.limit, FIRST_TARGET_ENTRIES);
            assert_eq!(windows.next(None), None, "one, until its size is known");
            windows.replied(Reply {
                entries: FIRST_TARGET_ENTRIES,
                bytes: FIRST_TARGET_ENTRIES * bytes,
                ids: Some(first.range),
            });
            windows.next(None).unwrap().limit
        };
        assert_eq!(limit(100), TARGET_ENTRIES * LIMIT_FACTOR);
        assert!((10..50).contains(&limit(10_000)));
        assert_eq!(limit(1_000_000), LIMIT_FACTOR);
    }

    #[test]
    fn what_was_refused_is_asked_for_again_as_it_was() {
        let range = IdRange::new(id(0, 0), id(9_999, u64::MAX)).unwrap();
        let mut windows = Windows::new(range).with_density(range.span() / 10_000.0);
        let first = windows.next(None).unwrap();
        for _ in 0..10 {
            windows.refused();
            let again = windows.next(None).unwrap();
            assert_eq!((again.range, again.limit), (first.range, first.limit));
        }
    }

    #[test]
    fn what_was_lost_is_asked_for_again_in_order() {
        let range = IdRange::new(id(0, 0), id(9_999, u64::MAX)).unwrap();
        let mut windows = Windows::new(range).with_density(range.span() / 10_000.0);
        let known = windows.next(None).unwrap();
        windows.replied(Reply {
            entries: known.limit,
            bytes: known.limit * 10,
            ids: Some(known.range),
        });
        let first = windows.next(None).unwrap();
        let second = windows.next(None).unwrap();
        windows.lost(Some(first.range.start()));
        let again = windows.next(None).unwrap();
        assert_eq!(Some(again.range.start()), first.range.start().next());
        assert_eq!(again.range.end(), first.range.end());
        assert_eq!(windows.next(None).unwrap().range, second.range);
        windows.lost(None);
        windows.stop_before(second.range.start());
        assert!(windows.next(None).is_some());
        assert_eq!(windows.next(None), None);
    }
}
