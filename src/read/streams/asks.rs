//! What is asked of one server that has many streams, and when.
//!
//! The first entries of each stream are asked for, in the order of the keys, then the
//! next ones of those that have more, with as many requests in flight as keep the
//! server busy. What replies have shown tells how many that are.
//!
//! Nothing here does I/O; replies are reported, and requests come out.

use std::collections::VecDeque;

use crate::entry_id::{EntryId, IdRange};

/// Entries of a reply at the most: under a millisecond of the server's time.
pub const PAGE: usize = 1000;
/// The same before the size of an entry is known.
const FIRST_PAGE: usize = 100;
/// Bytes that a reply should not exceed by much.
const PAGE_BYTES: f64 = 192.0 * 1024.0;
/// Bytes of the replies in flight.
const BYTES_IN_FLIGHT: f64 = 1024.0 * 1024.0;
/// Requests in flight at the least and at the most.
const MIN_IN_FLIGHT: usize = 4;
const MAX_IN_FLIGHT: usize = 512;
/// So many times the replies that were seen may be in flight.
const GROWTH: usize = 8;
/// Replies and entries are taken for so many times larger after the connection was
/// lost: what was asked for may have been too much for the server.
const LOSS_FACTOR: f64 = 4.0;
/// How much of a change for the smaller is believed at once.
const CAUTION: f64 = 1.0 / 16.0;

/// Entries of one stream that are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which stream of the server's.
    pub stream: usize,
    pub range: IdRange,
    /// How many of them, if that is limited.
    pub count: Option<usize>,
    /// Replies that were full of the entries before these.
    pub pages: usize,
}

impl Wanted {
    /// What is left of it after its first entries, the last of which is `last`.
    fn after(self, entries: usize, last: EntryId) -> Option<Self> {
        let count = self.count.map(|count| count.saturating_sub(entries));
        Some(Self {
            range: self.range.after(last).filter(|_| count != Some(0))?,
            count,
            ..self
        })
    }
}

/// A request for the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub wanted: Wanted,
    /// Entries asked for at the most.
    pub limit: usize,
}

/// Requests in flight, and those to come.
#[derive(Debug)]
pub struct Asks {
    /// What is wanted of each stream.
    range: IdRange,
    count: Option<usize>,
    /// The first stream not asked for, and the one after the last to ask for.
    next: usize,
    end: usize,
    /// Entries of streams that were asked for before: more of them, or on a connection
    /// that was lost. In order.
    again: VecDeque<Wanted>,
    in_flight: VecDeque<Ask>,
    sizes: Sizes,
}

impl Asks {
    /// The same range of each of some streams.
    pub fn new(streams: usize, range: IdRange, count: Option<usize>) -> Self {
        Self {
            range,
            count,
            next: 0,
            end: streams,
            again: VecDeque::new(),
            in_flight: VecDeque::new(),
            sizes: Sizes::default(),
        }
    }

    /// Whether everything was asked for and answered.
    pub fn is_finished(&self) -> bool {
        self.in_flight.is_empty() && self.is_asked()
    }

    fn is_asked(&self) -> bool {
        self.again.is_empty() && self.next >= self.end
    }

    /// Whether a reply is due.
    pub fn is_waiting(&self) -> bool {
        !self.in_flight.is_empty()
    }

    /// The request whose reply comes next.
    pub fn due(&self) -> Option<Ask> {
        self.in_flight.front().copied()
    }

    /// The first stream whose first entries are not here.
    pub fn first(&self) -> usize {
        let in_flight = self.in_flight.front().map(|ask| ask.wanted.stream);
        let first = in_flight.or(self.again.front().map(|wanted| wanted.stream));
        first.unwrap_or(self.next)
    }

    /// Streams that have entries to ask for, as far as is known, or that are due.
    pub fn left(&self) -> usize {
        self.in_flight.len() + self.again.len() + (self.end - self.next)
    }

    /// About how many entries may still come, if each stream has as many as those
    /// seen.
    pub fn expected(&self) -> usize {
        let streams = self.left();
        // One more, as the mean is only that.
        let entries = self.sizes.entries.map_or(PAGE, |mean| mean as usize + 1);
        streams.saturating_mul(entries)
    }

    /// Asks for more, if it is time for that; the new requests. `enough` entries are
    /// wanted now; `most` is how many will be wanted at all, if that is limited.
    ///
    /// Requests are made many at a time, so that they are sent at once.
    pub fn refill(
        &mut self,
        enough: usize,
        most: Option<usize>,
    ) -> impl Iterator<Item = Ask> + use<'_> {
        let begun = self.in_flight.len();
        let target = self.sizes.target(enough);
        if begun <= target / 2 {
            let limit = self.sizes.page().min(most.unwrap_or(usize::MAX));
            while self.in_flight.len() < target {
                let Some(wanted) = self.next_wanted() else {
                    break;
                };
                let limit = limit.min(wanted.count.unwrap_or(usize::MAX));
                self.in_flight.push_back(Ask { wanted, limit });
            }
        }
        self.in_flight.range(begun..).copied()
    }

    fn next_wanted(&mut self) -> Option<Wanted> {
        if let Some(wanted) = self.again.pop_front() {
            return Some(wanted);
        }
        let stream = self.next;
        if stream >= self.end {
            return None;
        }
        self.next += 1;
        Some(Wanted {
            stream,
            range: self.range,
            count: self.count,
            pages: 0,
        })
    }

    /// Asks for more of a stream, before those that were not asked for at all.
    pub fn ask_again(&mut self, wanted: Wanted) {
        let at = self.again.partition_point(|w| w.stream < wanted.stream);
        self.again.insert(at, wanted);
    }

    /// Reports the reply that was due: its entries, the last of them, and its bytes.
    /// What is left of the stream, if there may be more than was asked for.
    pub fn replied(&mut self, entries: usize, last: Option<EntryId>, bytes: u64) -> Option<Wanted> {
        let ask = self.in_flight.pop_front()?;
        self.sizes.learn(entries, bytes);
        let rest = ask
            .wanted
            .after(entries, last.filter(|_| entries >= ask.limit)?)?;
        let pages = rest.pages + 1;
        Some(Wanted { pages, ..rest })
    }

    /// The reply that was due was an error.
    pub fn refused(&mut self) {
        self.in_flight.pop_front();
    }

    /// The connection was lost. Of the reply that was due so many entries are here,
    /// the last of which is `last`.
    pub fn lost(&mut self, entries: usize, last: Option<EntryId>) {
        self.sizes.distrust();
        if let Some(last) = last
            && let Some(first) = self.in_flight.pop_front()
            && let Some(rest) = first.wanted.after(entries, last)
        {
            self.ask_again(rest);
        }
        self.put_back();
    }

    fn put_back(&mut self) {
        for ask in std::mem::take(&mut self.in_flight) {
            self.ask_again(ask.wanted);
        }
    }

    /// Nothing is wanted of `stream` or those after it any more, and what is in flight
    /// was given up.
    pub fn stop_at(&mut self, stream: usize) {
        self.put_back();
        self.again.retain(|wanted| wanted.stream < stream);
        self.next = stream;
        self.end = stream;
    }
}

/// What the replies seen were like.
#[derive(Debug, Default)]
struct Sizes {
    seen: usize,
    /// Of a reply.
    bytes: Option<f64>,
    entries: Option<f64>,
    bytes_of_entry: Option<f64>,
}

impl Sizes {
    /// Requests that should be in flight where `enough` entries are wanted.
    fn target(&self, enough: usize) -> usize {
        let (Some(bytes), Some(entries)) = (self.bytes, self.entries) else {
            return 1;
        };
        let by_bytes = (BYTES_IN_FLIGHT / bytes) as usize;
        let by_bytes = by_bytes.clamp(MIN_IN_FLIGHT, MAX_IN_FLIGHT);
        // A float that is too large saturates.
        let by_entries = (enough as f64 / entries.max(1.0)).ceil() as usize;
        by_bytes.min(self.seen * GROWTH).min(by_entries).max(1)
    }

    /// Entries that a reply may have.
    fn page(&self) -> usize {
        match self.bytes_of_entry {
            None => FIRST_PAGE,
            Some(bytes) => ((PAGE_BYTES / bytes) as usize).clamp(1, PAGE),
        }
    }

    fn learn(&mut self, entries: usize, bytes: u64) {
        let bytes = bytes as f64;
        self.seen += 1;
        learn(&mut self.bytes, bytes);
        learn(&mut self.entries, entries as f64);
        if entries > 0 {
            learn(&mut self.bytes_of_entry, bytes / entries as f64);
        }
    }

    fn distrust(&mut self) {
        for bytes in [&mut self.bytes, &mut self.bytes_of_entry] {
            *bytes = bytes.map(|bytes| bytes * LOSS_FACTOR);
        }
    }
}

/// Takes a value into a running mean: what is large is believed sooner.
fn learn(mean: &mut Option<f64>, seen: f64) {
    *mean = Some(match *mean {
        None => seen,
        Some(mean) if seen > mean => (mean + seen) / 2.0,
        Some(mean) => mean + (seen - mean) * CAUTION,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const EACH: u64 = 130;

    fn asks(streams: usize) -> Asks {
        Asks::new(streams, IdRange::ALL, None)
    }

    fn id(ms: u64) -> EntryId {
        EntryId::new(ms, 0)
    }

    /// Reads streams of as many entries each; how many requests there were, and how
    /// often some were sent.
    fn drain(asks: &mut Asks, entries: usize) -> (usize, usize) {
        let (mut requests, mut writes) = (0, 0);
        while !asks.is_finished() {
            let sent = asks.refill(usize::MAX, None).count();
            requests += sent;
            writes += usize::from(sent > 0);
            let limit = asks.due().unwrap().limit;
            let found = entries.min(limit);
            asks.replied(found, Some(id(found as u64)), found as u64 * EACH);
        }
        (requests, writes)
    }

    #[test]
    fn each_stream_is_asked_for_once_and_many_of_them_at_once() {
        let (requests, writes) = drain(&mut asks(10_000), 100);
        assert_eq!(requests, 10_000);
        assert!(writes < 10_000 / 20, "{writes}");
        let (_, writes) = drain(&mut asks(10_000), 0);
        assert!(writes < 10_000 / 100, "{writes}");
    }

    #[test]
    fn what_is_large_is_asked_for_in_small_pieces_and_one_by_one_at_first() {
        let mut asks = asks(100);
        assert_eq!(asks.refill(usize::MAX, None).count(), 1);
        assert_eq!(asks.due().unwrap().limit, FIRST_PAGE);
        asks.replied(FIRST_PAGE, Some(id(5)), 100_000 * FIRST_PAGE as u64);
        assert_eq!(asks.refill(usize::MAX, None).count(), MIN_IN_FLIGHT);
        assert_eq!(asks.due().unwrap().limit, 1);
    }

    #[test]
    fn few_entries_take_few_requests() {
        let mut asks = asks(100);
        let first: Vec<_> = asks.refill(10, Some(10)).collect();
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].limit, 10);
        asks.replied(2, Some(id(2)), 2 * EACH);
        assert_eq!(asks.refill(8, Some(8)).count(), 4);
    }

    #[test]
    fn a_full_reply_leaves_the_rest_unless_no_more_is_wanted() {
        let mut asks = Asks::new(3, IdRange::ALL, Some(150));
        asks.refill(usize::MAX, None).count();
        let rest = asks.replied(FIRST_PAGE, Some(id(7)), 1000).unwrap();
        assert_eq!((rest.count, rest.pages), (Some(50), 1));
        assert_eq!(Some(rest.range.start()), id(7).next());
        asks.refill(usize::MAX, None).count();
        assert_eq!(asks.due().unwrap().limit, 150);
        assert_eq!(asks.replied(150, Some(id(9)), 1000), None);
        assert_eq!(asks.replied(3, Some(id(9)), 100), None);
        assert!(asks.is_finished());
    }

    #[test]
    fn what_was_lost_is_asked_for_again_in_order() {
        let mut asks = asks(20);
        drain_one(&mut asks);
        asks.refill(usize::MAX, None).count();
        let first = asks.due().unwrap().wanted;
        asks.lost(2, Some(id(4)));
        assert_eq!(asks.first(), first.stream);
        asks.refill(usize::MAX, None).count();
        let again = asks.due().unwrap().wanted;
        assert_eq!(again.stream, first.stream);
        assert_eq!(Some(again.range.start()), id(4).next());
        let streams: Vec<_> = asks.in_flight.iter().map(|ask| ask.wanted.stream).collect();
        assert!(streams.is_sorted());
        asks.lost(0, None);
        asks.stop_at(first.stream);
        assert!(asks.is_finished());
        assert_eq!(asks.first(), first.stream);
    }

    #[test]
    fn more_of_a_stream_is_asked_for_before_others_and_read_on_to_before_a_stop() {
        let mut asks = asks(20);
        drain_one(&mut asks);
        asks.refill(usize::MAX, None).count();
        let page = asks.due().unwrap().limit;
        let rest = asks.replied(page, Some(id(9)), 1000).unwrap();
        asks.ask_again(rest);
        while asks.replied(1, Some(id(9)), EACH).is_none() && asks.is_waiting() {}
        let next = asks.refill(usize::MAX, None).next().unwrap();
        assert_eq!(next.wanted, rest);
        asks.stop_at(rest.stream + 1);
        assert_eq!(asks.first(), rest.stream);
        assert_eq!(asks.refill(usize::MAX, None).count(), 1);
    }

    fn drain_one(asks: &mut Asks) {
        asks.refill(usize::MAX, None).count();
        asks.replied(3, Some(id(3)), 3 * EACH);
    }
}
