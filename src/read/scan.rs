//! Reads a range of a stream, batch after batch or at once.

use std::sync::Arc;
use std::time::Duration;

use super::condition::Condition;
use super::extent::{Extent, extent_along};
use super::legs::is_on_its_way;
use super::link::Link;
use super::note::{Level, Note, Notes};
use super::range::{CHUNK_ROWS, RangeReader};
use super::source::Rows;
use super::windows::Windows;
use crate::decode::{Chunk, Decoder, Meter, Plan, Table};
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::{End, EntryId, IdRange, Start};
use crate::error::{Error, Result};

/// Entries that are read without asking first how many there are.
const SHORT_READ: usize = 1000;
/// How long a one-shot read that has begun goes on trying against a server that
/// fails.
pub const RETRY_BUDGET: Duration = Duration::from_secs(10);

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeQuery {
    /// Key of the stream.
    pub stream: String,
    pub start: Start,
    pub end: End,
    /// The most entries to read.
    pub count: Option<usize>,
    /// What else is known of the entries that are wanted. With a `count` the
    /// first entries count that lie between start and end, wanted or not.
    pub condition: Condition,
    pub read_from: ReadFrom,
}

impl RangeQuery {
    fn is_short(&self) -> bool {
        self.count.is_some_and(|count| count <= SHORT_READ)
    }

    /// The part of it that may have entries now.
    pub fn within(&self, extent: &Extent) -> Option<IdRange> {
        match self.end {
            End::At(end) => extent.within(extent.first(self.start)?, end),
            End::Never => None,
        }
    }

    /// What the condition leaves of a range, of a stream whose extent may be known.
    fn narrowed(&self, range: IdRange, stream: Option<IdRange>) -> Option<IdRange> {
        self.condition.narrow(range, self.count, stream)
    }
}

/// Reads the entries of a range with `XRANGE`, oldest first.
///
/// # Errors
/// As [`Scan::next`].
pub async fn read_range(
    deployment: &Arc<Deployment>,
    query: &RangeQuery,
    plan: &Arc<Plan>,
    notes: &Notes,
) -> Result<Table> {
    let mut scan = Scan::new(deployment.clone(), query.clone(), plan.clone());
    let table = scan.read_all().await;
    notes.add(scan.close());
    table
}

/// Reads the entries of a range with `XRANGE`, oldest first, batch after batch.
///
/// Without `count` the range ends at what is the last entry when the first batch
/// is asked for, so that it ends while producers keep writing. A missing stream
/// has no entries. A connection that breaks, once there was one, is made again
/// for up to ten seconds, and the read goes on after the last entry decoded.
#[derive(Debug)]
pub struct Scan {
    query: RangeQuery,
    plan: Arc<Plan>,
    decoder: Decoder,
    link: Link,
    phase: Phase,
    /// Rows that were read and not handed over.
    rows: Rows,
    /// Rows that may still be handed over.
    left: Option<usize>,
}

#[derive(Debug)]
enum Phase {
    Begin,
    Reading(Box<RangeReader>),
    Ended,
}

impl Scan {
    /// A scan that has done nothing yet.
    pub fn new(deployment: Arc<Deployment>, query: RangeQuery, plan: Arc<Plan>) -> Self {
        Self {
            decoder: Decoder::new(plan.clone()),
            link: Link::new(deployment, &query.stream, query.read_from, RETRY_BUDGET),
            phase: match query.count {
                Some(0) => Phase::Ended,
                _ => Phase::Begin,
            },
            rows: Rows::default(),
            left: query.count,
            plan,
            query,
        }
    }

    /// The same, where the server was there before: that it cannot be reached now
    /// may pass.
    pub(super) fn continued(
        deployment: Arc<Deployment>,
        query: RangeQuery,
        plan: Arc<Plan>,
    ) -> Self {
        let mut scan = Self::new(deployment, query, plan);
        scan.link.expect_server();
        scan
    }

    /// All rows.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn read_all(&mut self) -> Result<Table> {
        let table = self.next(usize::MAX).await?;
        Ok(table.unwrap_or_else(|| self.empty()))
    }

    /// How far it has come.
    pub fn meter(&self) -> &Arc<Meter> {
        self.decoder.meter()
    }

    /// The next rows, as many as are wanted unless there are no more; `None`
    /// after the last.
    ///
    /// No more is asked of the server than this batch and one more like it: who
    /// stops here has not made it send everything.
    ///
    /// # Errors
    /// Any of [`Error`]'s; where values do not fit their dtypes, the error of the
    /// first such entry. The scan is of no more use then.
    pub async fn next(&mut self, wanted: usize) -> Result<Option<Table>> {
        let chunks = self.next_chunks(wanted).await?;
        Ok((!chunks.is_empty()).then(|| Table::new(&self.plan, self.decoder.names(), chunks)))
    }

    /// [`next`](Self::next) as chunks, whose columns have their names; none after
    /// the last. After an entry that does not fit, the rows before it that are left.
    pub(super) async fn next_chunks(&mut self, wanted: usize) -> Result<Vec<Chunk>> {
        let wanted = self.left.map_or(wanted, |left| left.min(wanted));
        while self.rows.len() < wanted {
            match &mut self.phase {
                Phase::Begin => self.begin().await?,
                Phase::Reading(_) => self.advance(wanted).await?,
                Phase::Ended => break,
            }
        }
        let chunks = self.rows.take(wanted);
        let rows: usize = chunks.iter().map(Chunk::rows).sum();
        self.left = self.left.map(|left| left - rows);
        Ok(chunks)
    }

    async fn begin(&mut self) -> Result<()> {
        match self.plan_windows().await {
            Ok(Some(windows)) => {
                let mut range = RangeReader::new(&self.query.stream, self.plan.clone(), windows);
                range.is_short = self.query.is_short();
                self.phase = Phase::Reading(Box::new(range));
                Ok(())
            }
            Ok(None) => {
                self.phase = Phase::Ended;
                Ok(())
            }
            Err(error) => self.link.failed(error),
        }
    }

    /// Takes one step towards the rows that are wanted.
    async fn advance(&mut self, wanted: usize) -> Result<()> {
        let Phase::Reading(range) = &mut self.phase else {
            return Ok(());
        };
        let missing = wanted - self.rows.len();
        if range.is_finished() || range.rows() >= missing {
            for mut chunk in range.take_rows() {
                chunk.name_columns(self.decoder.names());
                self.rows.push(chunk);
            }
            if range.is_finished() {
                let misfit = range.take_misfit();
                self.phase = Phase::Ended;
                return misfit.map_or(Ok(()), |misfit| Err(Error::Decode(misfit)));
            }
            return Ok(());
        }
        range.set_chunk_rows(missing.min(CHUNK_ROWS));
        let ahead = missing.saturating_add(wanted).saturating_sub(range.rows());
        let ahead = match self.left {
            Some(left) => (left - self.rows.len())
                .saturating_sub(range.rows())
                .min(ahead),
            None => ahead,
        };
        match range
            .exchange(&mut self.link, &mut self.decoder, Some(ahead))
            .await
        {
            Ok(()) => Ok(()),
            Err(Error::Decode(misfit)) => {
                range.stop_before(&mut self.link, &mut self.decoder, misfit);
                Ok(())
            }
            Err(error) => {
                match is_on_its_way(&error) {
                    true => range.refused(&mut self.link, &mut self.decoder),
                    false => range.lost(&mut self.link, &mut self.decoder),
                }
                // Where there is no more to be had, the misfit is what is known.
                let known = |error| range.take_misfit().map_or(error, Error::Decode);
                self.link.failed(error).map_err(known)
            }
        }
    }

    /// Finds out what there is to read; nothing, if the range has no IDs.
    async fn plan_windows(&mut self) -> Result<Option<Windows>> {
        let query = &self.query;
        if let (true, Start::At(start), End::At(end)) = (query.is_short(), query.start, query.end) {
            let range = IdRange::new(start, end).and_then(|range| query.narrowed(range, None));
            // There may be fewer: it is not worth asking.
            let most = query.count.filter(|_| range.is_some());
            self.meter().expect(most.unwrap_or(0) as u64);
            self.tell_bounds(range);
            return Ok(range.map(Windows::new));
        }
        let extent = extent_along(&mut self.link, &query.stream).await?;
        let stream = extent.within(EntryId::MIN, EntryId::MAX);
        let range = query
            .within(&extent)
            .and_then(|range| query.narrowed(range, stream));
        if let Some(entries) = range.map_or(Some(0), |range| extent.entries(range)) {
            let most = query.count.map_or(u64::MAX, |count| count as u64);
            self.meter().expect(entries.min(most));
        }
        self.tell_bounds(range);
        Ok(range.map(|range| windows_of(range, extent)))
    }

    /// Tells which IDs are read where a predicate had a say in it.
    fn tell_bounds(&mut self, range: Option<IdRange>) {
        if self.query.condition == Condition::Anything {
            return;
        }
        let left = range.map_or("nothing".to_owned(), |range| {
            format!("{} to {}", range.start(), range.end())
        });
        let stream = &self.query.stream;
        let text = format!("stream {stream:?}: the predicate leaves {left} to read");
        self.link.note(Level::Debug, text);
    }

    /// The next thing to tell.
    pub fn take_note(&mut self) -> Option<Note> {
        self.link.next_note()
    }

    /// A table without rows.
    pub fn empty(&self) -> Table {
        Table::new(&self.plan, self.decoder.names(), Vec::new())
    }

    /// This process is a forked child: the connection is its parent's, and is
    /// neither used nor closed here.
    pub fn forget_connection(&mut self) {
        self.link.forget();
    }

    /// Ends it; a connection on which nothing is due is kept for others. Gives
    /// what there is left to tell.
    pub fn close(mut self) -> Vec<Note> {
        let is_waiting = match &self.phase {
            Phase::Reading(range) => range.is_waiting(),
            Phase::Begin | Phase::Ended => false,
        };
        if !is_waiting && !self.link.drop_if_spoiled() {
            self.link.keep();
        }
        self.link.take_notes()
    }
}

/// A plan for a range of a stream of which the extent is known.
pub fn windows_of(range: IdRange, extent: Extent) -> Windows {
    let windows = Windows::new(range).with_round_trip(extent.round_trip);
    match extent.density {
        Some(ids) => windows.with_density(ids),
        None => windows,
    }
}
