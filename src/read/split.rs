//! Splits a range of a stream into parts with about as many entries each.
//!
//! Redis does not tell how many entries lie between two IDs. So the range is
//! probed: each probe shows a few entries from an ID on, which tells how close
//! they lie there. Where two neighbouring probes disagree, or a part is large,
//! the middle between them is probed too. What is short is counted instead.

use std::sync::Arc;

use super::extent::extent_along;
use super::link::Link;
use super::note::Notes;
use super::scan::{RETRY_BUDGET, RangeQuery};
use super::{Due, expect, receive};
use crate::command;
use crate::decode::{ChunkBuilder, Decoder, Fields, IdColumns, OnMisfit, Plan, Shape};
use crate::deployment::Deployment;
use crate::entry_id::{End, EntryId, IdRange};
use crate::error::Result;

/// Entries that a probe shows, and bytes that it should not exceed by much.
const PROBE_ENTRIES: usize = 32;
const PROBE_BYTES: u64 = 64 * 1024;
/// Probes of the first round, at the least.
const FIRST_PROBES: usize = 64;
/// Probes that are sent at once, and all of one split.
const ROUND_PROBES: usize = 64;
const MAX_PROBES: usize = 4096;
/// Entries that are counted one by one, rather than estimated.
const COUNTED: usize = 20_000;
const COUNTED_PAGE: usize = 1000;
/// An estimate may be wrong by this part of a split.
const TOLERANCE: f64 = 0.02;

/// Splits what is in a range now into `splits` ranges, in order, that together
/// hold every entry of it, each about as many; fewer ranges if there are fewer
/// entries. The same entries are always split in the same way.
///
/// # Errors
/// Any of [`Error`](crate::Error)'s but those of decoding.
pub async fn split_range(
    deployment: &Arc<Deployment>,
    query: &RangeQuery,
    splits: usize,
    notes: &Notes,
) -> Result<Vec<IdRange>> {
    let mut splitter = Splitter::new(deployment, query)?;
    let ranges = splitter.split(query, splits).await;
    notes.add(splitter.link.take_notes());
    ranges
}

struct Splitter {
    stream: String,
    link: Link,
    plan: Arc<Plan>,
    decoder: Decoder,
    /// Entries and bytes that were seen.
    seen: u64,
}

impl Splitter {
    fn new(deployment: &Arc<Deployment>, query: &RangeQuery) -> Result<Self> {
        let no_fields = Fields::Schema(Vec::new());
        let plan = Plan::new(IdColumns::default(), no_fields, OnMisfit::Null)?;
        let plan = Arc::new(plan.keeping_entry_ids());
        Ok(Self {
            stream: query.stream.clone(),
            link: Link::new(
                deployment.clone(),
                &query.stream,
                query.read_from,
                RETRY_BUDGET,
            ),
            decoder: Decoder::new(plan.clone()),
            plan,
            seen: 0,
        })
    }

    async fn split(&mut self, query: &RangeQuery, splits: usize) -> Result<Vec<IdRange>> {
        let ranges = match self.extent(query).await? {
            Some((range, length)) => self.map(range, length, splits).await?.cut(splits),
            None => Vec::new(),
        };
        self.link.keep();
        Ok(ranges)
    }

    /// The part of the range that may have entries, and how many it has, if that
    /// is known.
    async fn extent(&mut self, query: &RangeQuery) -> Result<Option<(IdRange, Option<usize>)>> {
        let extent = loop {
            match extent_along(&mut self.link, &query.stream).await {
                Ok(extent) => break extent,
                Err(error) => self.link.failed(error)?,
            }
        };
        let Some(range) = query.within(&extent) else {
            return Ok(None);
        };
        // Where an end is given, what comes behind it must not change the splits.
        let all = extent.within(EntryId::MIN, EntryId::MAX);
        let is_whole = query.end == End::At(EntryId::MAX) && all == Some(range);
        let length = extent.density.filter(|_| is_whole);
        Ok(Some((
            range,
            length.map(|ids| (range.span() / ids).round() as usize),
        )))
    }

    /// Finds out where in a range the entries lie.
    async fn map(&mut self, range: IdRange, length: Option<usize>, splits: usize) -> Result<Map> {
        let mut map = Map::new(range, length);
        self.count(&mut map).await?;
        let mut probes = 0;
        if map.is_open() {
            let first = map.evenly(FIRST_PROBES.max(4 * splits).min(MAX_PROBES / 2));
            probes += first.len();
            self.probe_all(&mut map, &first).await?;
        }
        while probes < MAX_PROBES {
            let next = map.doubtful(splits);
            if next.is_empty() {
                break;
            }
            probes += next.len();
            self.probe_all(&mut map, &next).await?;
        }
        Ok(map)
    }

    /// Counts the first entries.
    async fn count(&mut self, map: &mut Map) -> Result<()> {
        let mut from = Some(map.range.start());
        // What is known to be long is not worth to begin with.
        let most = match map.length {
            Some(length) if length > COUNTED => 1,
            _ => COUNTED as u64,
        };
        while self.seen < most {
            let Some(at) = from.filter(|_| map.is_open()) else {
                break;
            };
            let page = match self.seen {
                0 => 2,
                _ => self.probe_entries().max(2) * COUNTED_PAGE / PROBE_ENTRIES,
            };
            self.probe(map, &[at], page).await?;
            from = map.end_of(at);
        }
        Ok(())
    }

    /// How many entries to look at: few, where they are large.
    fn probe_entries(&self) -> usize {
        let bytes = self.decoder.bytes() / self.seen.max(1);
        (PROBE_BYTES / bytes.max(1)).clamp(2, PROBE_ENTRIES as u64) as usize
    }

    async fn probe_all(&mut self, map: &mut Map, at: &[EntryId]) -> Result<()> {
        for at in at.chunks(ROUND_PROBES) {
            let entries = self.probe_entries();
            self.probe(map, at, entries).await?;
        }
        Ok(())
    }

    /// Looks at the entries that follow each of some IDs.
    async fn probe(&mut self, map: &mut Map, at: &[EntryId], entries: usize) -> Result<()> {
        loop {
            match self.try_probe(map, at, entries).await {
                Ok(()) => return Ok(()),
                // What was found is found again.
                Err(error) => self.link.failed(error)?,
            }
        }
    }

    async fn try_probe(&mut self, map: &mut Map, at: &[EntryId], entries: usize) -> Result<()> {
        let end = map.range.end();
        let connection = self.link.ready().await?;
        let ranges: Vec<_> = at.iter().filter_map(|&at| IdRange::new(at, end)).collect();
        for &range in &ranges {
            connection.queue(&command::xrange(&self.stream, range, entries));
        }
        connection.flush().await?;
        for range in ranges {
            let mut rows = ChunkBuilder::with_room(&self.plan, entries);
            expect(
                connection,
                &mut self.decoder,
                Shape::Entries,
                range,
                entries,
            );
            receive(connection, Due::Soon, &mut self.decoder, &mut rows)
                .await
                .map_err(|failure| failure.of(&self.stream, connection))?;
            let found = rows.finish();
            self.seen += found.rows() as u64;
            map.learn(range.start(), found.entry_ids(), found.rows() == entries);
        }
        self.link.succeeded();
        Ok(())
    }
}

/// What is known of where entries lie.
struct Map {
    range: IdRange,
    length: Option<usize>,
    /// In order, disjoint. What lies between the last entry of one and the next
    /// is not known, unless it is closed.
    stretches: Vec<Stretch>,
    /// The greatest sequence number that was seen.
    greatest_seq: u64,
}

/// Entries without a gap.
struct Stretch {
    /// Nothing lies between this and the first entry.
    from: EntryId,
    entries: Vec<EntryId>,
    /// Whether nothing lies after the last one up to the next stretch.
    is_closed: bool,
    /// What the probe saw, of which the entries may be a part: the first and the
    /// last entry, and how many, if there were at least two.
    seen: Option<(IdRange, usize)>,
}

impl Stretch {
    /// First ID of which nothing is known; none at the end of all IDs.
    fn end(&self) -> Option<EntryId> {
        self.entries
            .last()
            .map_or(Some(self.from), |last| last.next())
    }
}

/// IDs of which nothing is known, and how many entries may be among them. IDs
/// are [places](Map::place) here.
struct Gap {
    from: u128,
    to: u128,
    least: f64,
    greatest: f64,
}

impl Gap {
    fn span(&self) -> f64 {
        (self.to - self.from) as f64
    }

    fn expected(&self) -> f64 {
        (self.least * self.greatest).sqrt()
    }

    /// Where to look next. What should be seen at one look is looked at from its
    /// beginning. Where there seem to be more entries than can be, they end long
    /// before the gap does.
    fn probe(&self, most: f64) -> u128 {
        let offset = if self.greatest <= PROBE_ENTRIES as f64 {
            0
        } else if self.greatest > most {
            let seen = self.span() / self.greatest * PROBE_ENTRIES as f64;
            (self.span() * seen).sqrt() as u128
        } else {
            (self.to - self.from) / 2
        };
        self.from + offset.min(self.to - self.from - 1)
    }
}

impl Map {
    fn new(range: IdRange, length: Option<usize>) -> Self {
        Self {
            range,
            length,
            stretches: Vec::new(),
            greatest_seq: 0,
        }
    }

    /// How many IDs of a millisecond are told apart: few more than are used.
    /// Nearly all the IDs that there can be are never used.
    fn places_of_a_millisecond(&self) -> u128 {
        u128::from(self.greatest_seq) * 2 + 2
    }

    /// Where an ID is among those that are used.
    fn place(&self, id: EntryId) -> u128 {
        let places = self.places_of_a_millisecond();
        u128::from(id.ms) * places + u128::from(id.seq).min(places - 1)
    }

    /// The ID at a place, which is in the range.
    fn id_at(&self, place: u128) -> EntryId {
        let places = self.places_of_a_millisecond();
        let ms = u64::try_from(place / places).unwrap_or(u64::MAX);
        let seq = u64::try_from(place % places).unwrap_or(u64::MAX);
        EntryId::new(ms, seq).clamp(self.range.start(), self.range.end())
    }

    /// The place after the last one.
    fn end(&self) -> u128 {
        self.place(self.range.end()) + 1
    }

    fn is_open(&self) -> bool {
        self.stretches.is_empty() || self.gaps().next().is_some()
    }

    /// First ID of which nothing is known after the stretch that begins at `at`.
    fn end_of(&self, at: EntryId) -> Option<EntryId> {
        self.stretches
            .iter()
            .find(|stretch| stretch.from == at)?
            .end()
    }

    /// Takes in the entries that follow an ID; whether there may be more of them.
    fn learn(&mut self, at: EntryId, found: &[EntryId], may_go_on: bool) {
        let index = self.stretches.partition_point(|stretch| stretch.from < at);
        let known = self
            .stretches
            .get(index)
            .filter(|stretch| stretch.from == at);
        let replaces = known.is_some();
        let next = self.stretches.get(index + usize::from(replaces));
        let mut entries = found.to_vec();
        if let Some(next) = next {
            entries.retain(|&id| id < next.from);
        }
        if let Some(before) = index
            .checked_sub(1)
            .and_then(|at| self.stretches.get_mut(at))
        {
            let known = before.entries.partition_point(|&id| id < at);
            before.is_closed |= known < before.entries.len();
            before.entries.truncate(known);
        }
        let ends = found.first().zip(found.last());
        let seen = ends.and_then(|(first, last)| IdRange::new(*first, *last));
        let greatest = found.iter().map(|id| id.seq).max().unwrap_or(0);
        self.greatest_seq = self.greatest_seq.max(greatest);
        let stretch = Stretch {
            from: at,
            is_closed: !may_go_on || entries.len() < found.len(),
            entries,
            seen: seen
                .map(|range| (range, found.len()))
                .filter(|(_, len)| *len > 1),
        };
        match replaces {
            true => self.stretches[index] = stretch,
            false => self.stretches.insert(index, stretch),
        }
    }

    /// How many places hold one entry, where a stretch begins.
    fn density_before(&self, stretch: &Stretch) -> Option<f64> {
        let (range, entries) = stretch.seen?;
        let places = self.place(range.end()) - self.place(stretch.from.min(range.start()));
        // On average the first entry lies half a step from where the probe began.
        Some((places as f64 / (entries as f64 - 0.5)).max(1.0))
    }

    /// How many places hold one entry, where a stretch ends.
    fn density_after(&self, stretch: &Stretch) -> Option<f64> {
        let (range, entries) = stretch.seen?;
        let places = self.place(range.end()) - self.place(range.start());
        Some((places as f64 / (entries - 1) as f64).max(1.0))
    }

    fn gaps(&self) -> impl Iterator<Item = Gap> {
        (0..self.stretches.len()).filter_map(|at| self.gap(at))
    }

    /// The gap after a stretch.
    fn gap(&self, at: usize) -> Option<Gap> {
        let stretch = &self.stretches[at];
        let next = self.stretches.get(at + 1);
        let from = self.place(stretch.end()?);
        let to = next.map_or(self.end(), |next| self.place(next.from));
        if stretch.is_closed || from >= to {
            return None;
        }
        let entries = |density: f64| ((to - from) as f64 / density).max(1.0);
        let before = self.density_after(stretch).map(entries);
        let after = next.and_then(|next| self.density_before(next)).map(entries);
        let known = before.or(after).unwrap_or(1.0);
        let (one, other) = (before.unwrap_or(known), after.unwrap_or(known));
        Some(Gap {
            from,
            to,
            least: one.min(other),
            greatest: one.max(other),
        })
    }

    /// Entries that were seen, and those that are expected besides.
    fn expected(&self) -> (f64, f64) {
        let seen: usize = self
            .stretches
            .iter()
            .map(|stretch| stretch.entries.len())
            .sum();
        (seen as f64, self.gaps().map(|gap| gap.expected()).sum())
    }

    /// IDs at even distances in what is not known.
    fn evenly(&self, probes: usize) -> Vec<EntryId> {
        let known = self.stretches.last().and_then(Stretch::end);
        let from = self.place(known.unwrap_or(self.range.start()));
        let step = self.end().saturating_sub(from) / (probes as u128 + 1);
        let places = (1..=probes as u128).map(|at| from + at * step.max(1));
        let places = places.take_while(|&place| place < self.end());
        places.map(|place| self.id_at(place)).collect()
    }

    /// The IDs to probe next, so that the splits become even.
    fn doubtful(&self, splits: usize) -> Vec<EntryId> {
        let (seen, expected) = self.expected();
        let split = self.length.map_or(seen + expected, |length| length as f64) / splits as f64;
        // Where the sum is known and not met, something hides.
        let error = self
            .length
            .map_or(0.0, |length| (length as f64 - seen - expected).abs());
        let is_off = error > (split / 10.0).max((seen + expected) * TOLERANCE);
        let mut gaps: Vec<Gap> = self.gaps().collect();
        let is_doubtful = |gap: &Gap| {
            let is_unsure = gap.greatest - gap.least > split * TOLERANCE;
            let is_large = gap.greatest > (split / 8.0).max(PROBE_ENTRIES as f64);
            is_unsure || is_large
        };
        if gaps.iter().any(is_doubtful) {
            gaps.retain(is_doubtful);
            gaps.sort_by(|one, other| other.greatest.total_cmp(&one.greatest));
        } else if is_off {
            gaps.sort_by(|one, other| other.span().total_cmp(&one.span()));
        } else {
            gaps.clear();
        }
        gaps.truncate(ROUND_PROBES);
        gaps.iter()
            .map(|gap| self.id_at(gap.probe(split)))
            .collect()
    }

    /// Cuts the range where the splits end.
    fn cut(&self, splits: usize) -> Vec<IdRange> {
        let (seen, expected) = self.expected();
        if seen + expected == 0.0 {
            return Vec::new();
        }
        // What is known of the sum corrects the estimates.
        let correction = match self.length {
            Some(length) if expected > 0.0 => ((length as f64 - seen) / expected).max(0.0),
            _ => 1.0,
        };
        let total = seen + expected * correction;
        let splits = splits.min(total.round().max(1.0) as usize);
        let mut cuts = (1..splits)
            .map(|at| total * at as f64 / splits as f64)
            .peekable();
        let mut ends = Vec::new();
        let mut passed = 0.0;
        for (at, stretch) in self.stretches.iter().enumerate() {
            for &entry in &stretch.entries {
                passed += 1.0;
                while cuts.next_if(|&cut| cut <= passed).is_some() {
                    ends.push(entry);
                }
            }
            let Some(gap) = self.gap(at) else { continue };
            let entries = gap.expected() * correction;
            while let Some(cut) = cuts.next_if(|&cut| cut < passed + entries) {
                let part = ((cut - passed) / entries).clamp(0.0, 1.0);
                ends.push(self.id_at(gap.from + (gap.span() * part) as u128));
            }
            passed += entries;
        }
        self.ranges(ends)
    }

    /// The ranges between ends.
    fn ranges(&self, ends: Vec<EntryId>) -> Vec<IdRange> {
        let mut ranges = Vec::new();
        let mut rest = Some(self.range);
        for end in ends {
            let Some(range) = rest else { break };
            if end < range.start() || end >= range.end() {
                continue;
            }
            ranges.extend(IdRange::new(range.start(), end));
            rest = range.after(end);
        }
        ranges.extend(rest);
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits sorted IDs as a server that holds them would have it; the entries
    /// of each part, and the probes that it took.
    fn split(ids: &[EntryId], splits: usize, is_length_known: bool) -> (Vec<usize>, usize) {
        let range = IdRange::new(ids[0], ids[ids.len() - 1]).unwrap();
        let length = is_length_known.then_some(ids.len());
        let mut map = Map::new(range, length);
        let look = |map: &mut Map, at: &[EntryId]| {
            for &at in at {
                let first = ids.partition_point(|&id| id < at);
                let found = &ids[first..ids.len().min(first + PROBE_ENTRIES)];
                map.learn(at, found, found.len() == PROBE_ENTRIES);
            }
        };
        look(&mut map, &[ids[0]]);
        let first = map.evenly(FIRST_PROBES.max(4 * splits));
        look(&mut map, &first);
        let mut looks = 0;
        while looks < MAX_PROBES {
            let next = map.doubtful(splits);
            if next.is_empty() {
                break;
            }
            looks += next.len();
            look(&mut map, &next);
        }
        let ranges = map.cut(splits);
        assert_eq!(ranges[0].start(), range.start());
        assert_eq!(ranges[ranges.len() - 1].end(), range.end());
        for pair in ranges.windows(2) {
            assert_eq!(pair[0].end().next(), Some(pair[1].start()));
        }
        let count = |range: &IdRange| {
            let from = ids.partition_point(|&id| id < range.start());
            ids.partition_point(|&id| id <= range.end()) - from
        };
        (ranges.iter().map(count).collect(), looks)
    }

    #[track_caller]
    fn expect_even(ids: &[EntryId], splits: usize, is_length_known: bool) {
        let (counts, probes) = split(ids, splits, is_length_known);
        assert_eq!(counts.iter().sum::<usize>(), ids.len());
        assert_eq!(counts.len(), splits);
        let even = ids.len() as f64 / splits as f64;
        for &count in &counts {
            let off = (count as f64 - even).abs() / even;
            assert!(off < 0.15, "{counts:?} after {probes} probes");
        }
    }

    #[track_caller]
    fn expect_even_in_any_case(ids: &[EntryId], splits: usize) {
        expect_even(ids, splits, true);
        expect_even(ids, splits, false);
    }

    fn id(ms: u64, seq: u64) -> EntryId {
        EntryId::new(ms, seq)
    }

    #[test]
    fn an_even_stream_is_split_evenly() {
        let ids: Vec<_> = (0..100_000)
            .map(|n| id(1_700_000_000_000 + n / 3, n % 3))
            .collect();
        expect_even_in_any_case(&ids, 8);
    }

    #[test]
    fn entries_of_one_millisecond_are_split_by_their_sequence() {
        let ids: Vec<_> = (0..100_000).map(|n| id(5, n)).collect();
        expect_even_in_any_case(&ids, 7);
    }

    #[test]
    fn half_of_the_entries_in_one_second_of_a_year() {
        let year = 365 * 24 * 3600 * 1000;
        let mut ids: Vec<_> = (0..50_000).map(|n| id(n * (year / 50_000), 0)).collect();
        ids.extend((0..50_000).map(|n| id(year / 3 + n / 50, 1 + n % 50)));
        ids.sort();
        ids.dedup();
        // Where the length is not known, nothing tells that something hides.
        expect_even(&ids, 8, true);
    }

    #[test]
    fn bursts_with_silence_between_them() {
        let mut ids = Vec::new();
        for burst in 0..20 {
            ids.extend((0..5_000).map(|n| id(1_000_000 + burst * 10_000_000, n)));
        }
        expect_even_in_any_case(&ids, 8);
    }

    #[test]
    fn a_stream_that_gets_ever_denser() {
        let mut ms = 0.0;
        let ids: Vec<_> = (0..100_000)
            .map(|n| {
                ms += 1.0 + 100_000.0 * (-f64::from(n) / 10_000.0).exp();
                id(ms as u64, 0)
            })
            .collect();
        expect_even_in_any_case(&ids, 16);
    }

    #[test]
    fn probes_that_show_the_same_entries_count_them_once() {
        let ids: Vec<_> = (1..1000).map(|n| id(n * n, 0)).collect();
        expect_even_in_any_case(&ids, 3);
    }

    #[test]
    fn a_stream_that_gets_ever_sparser() {
        let ids: Vec<_> = (1..30_000).map(|n| id(n * n, n % 5)).collect();
        expect_even_in_any_case(&ids, 3);
        expect_even_in_any_case(&ids, 16);
    }

    #[test]
    fn fewer_entries_than_splits_are_split_one_by_one() {
        let ids: Vec<_> = (1..4).map(|n| id(n * 10, 0)).collect();
        assert_eq!(split(&ids, 10, true).0, [1, 1, 1]);
    }
}
