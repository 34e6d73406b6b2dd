//! Reads a bounded range of a stream, at the server's own speed.

use std::sync::Arc;
use std::time::Duration;

use super::extent::{Extent, extent};
use super::link::{Link, Note};
use super::runs::Runs;
use super::windows::{Reply, Windows};
use super::{Due, receive};
use crate::address::Address;
use crate::command;
use crate::connection::Connection;
use crate::decode::{Chunk, Decoder, Plan, Shape, Table};
use crate::entry_id::{End, EntryId, IdRange, Start};
use crate::error::{DecodeError, Error, Result};

/// Rows of a chunk of the result.
const CHUNK_ROWS: usize = 65_536;
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
}

impl RangeQuery {
    fn is_short(&self) -> bool {
        self.count.is_some_and(|count| count <= SHORT_READ)
    }
}

/// Reads the entries of a range with `XRANGE`, oldest first; and what there is
/// to tell of it.
///
/// Without `count` the range ends at what is the last entry when the read
/// begins, so that it ends while producers keep writing. A missing stream has
/// no entries. A connection that breaks, once there was one, is made again for
/// up to ten seconds, and the read goes on after the last entry decoded.
///
/// # Errors
/// Any of [`Error`]'s; where values do not fit their dtypes, the error of the
/// first such entry.
pub async fn read_range(
    address: &Arc<Address>,
    query: &RangeQuery,
    plan: &Arc<Plan>,
) -> Result<(Table, Vec<Note>)> {
    let mut decoder = Decoder::new(plan.clone());
    let mut link = Link::new(address.clone(), RETRY_BUDGET);
    let mut chunks = Vec::new();
    if query.count != Some(0) {
        let windows = loop {
            match plan_windows(&mut link, query).await {
                Ok(windows) => break windows,
                Err(error) => link.failed(error)?,
            }
        };
        if let Some(windows) = windows {
            let mut reader = RangeReader::new(&query.stream, plan.clone(), windows);
            reader.is_short = query.is_short();
            reader
                .read_all(&mut link, &mut decoder, query.count)
                .await?;
            if !reader.windows.is_waiting() {
                link.keep();
            }
            chunks = reader.runs.finish().collect();
        } else {
            link.keep();
        }
    }
    if let Some(count) = query.count {
        keep_first(&mut chunks, count);
    }
    let notes = link.take_notes();
    Ok((Table::new(plan, decoder.names(), chunks), notes))
}

fn keep_first(chunks: &mut Vec<Chunk>, mut count: usize) {
    chunks.retain_mut(|chunk| {
        chunk.truncate(count);
        count -= chunk.rows();
        chunk.rows() > 0
    });
}

/// Finds out what there is to read; nothing, if the range has no IDs.
async fn plan_windows(link: &mut Link, query: &RangeQuery) -> Result<Option<Windows>> {
    let connection = link.ready().await?;
    if let (true, Start::At(start), End::At(end)) = (query.is_short(), query.start, query.end) {
        let range = IdRange::new(start, end);
        return Ok(range.map(Windows::new));
    }
    let extent = extent(connection, &query.stream).await?;
    let start = match query.start {
        Start::At(start) => Some(start),
        Start::AfterLast => extent.passed.next(),
        Start::Never => None,
    };
    let (Some(start), End::At(end)) = (start, query.end) else {
        return Ok(None);
    };
    let range = extent.within(start, end);
    Ok(range.map(|range| windows_of(range, extent)))
}

/// A plan for a range of a stream of which the extent is known.
pub fn windows_of(range: IdRange, extent: Extent) -> Windows {
    let windows = Windows::new(range).with_round_trip(extent.round_trip);
    match extent.density {
        Some(ids) => windows.with_density(ids),
        None => windows,
    }
}

/// Reads one range, window after window, and keeps what came in order.
///
/// It may be cancelled anywhere, and goes on where it was.
#[derive(Debug)]
pub struct RangeReader {
    stream: String,
    plan: Arc<Plan>,
    windows: Windows,
    runs: Runs,
    /// Bytes that had been decoded when the reply that is due began to be.
    in_reply: Option<u64>,
    /// The first entry that does not fit. Nothing after it is read.
    misfit: Option<Box<DecodeError>>,
    /// Whether few entries are wanted, so that they are here in a moment.
    is_short: bool,
}

impl RangeReader {
    /// A reader of what `windows` plans.
    pub fn new(stream: &str, plan: Arc<Plan>, windows: Windows) -> Self {
        Self {
            stream: stream.to_owned(),
            plan,
            runs: Runs::new(windows.start(), CHUNK_ROWS),
            windows,
            in_reply: None,
            misfit: None,
            is_short: false,
        }
    }

    async fn read_all(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        count: Option<usize>,
    ) -> Result<()> {
        loop {
            let wanted = count.map(|count| count.saturating_sub(self.runs.rows_from_first()));
            if wanted == Some(0) {
                return Ok(());
            }
            if self.is_finished() {
                return self
                    .misfit
                    .take()
                    .map_or(Ok(()), |misfit| Err(Error::Decode(misfit)));
            }
            match self.exchange(link, decoder, wanted).await {
                Ok(()) => {}
                Err(Error::Decode(misfit)) => self.stop_before(link, decoder, misfit),
                Err(error) => {
                    self.lost(link, decoder);
                    // Where there is no more to be had, the misfit is what is known.
                    let known = |error| self.misfit.take().map_or(error, Error::Decode);
                    link.failed(error).map_err(known)?;
                }
            }
        }
    }

    /// Whether there is nothing more to ask for.
    pub fn is_finished(&self) -> bool {
        self.windows.is_finished()
    }

    /// Whether a reply is due, or has come in part.
    pub fn is_waiting(&self) -> bool {
        self.windows.is_waiting()
    }

    /// Whether no entry is at hand, not even a part of one.
    pub fn is_empty(&self) -> bool {
        self.in_reply.is_none() && self.runs.is_empty()
    }

    /// Rows at hand, from the first on.
    pub fn rows(&self) -> usize {
        self.runs.rows_from_first()
    }

    /// About how many rows are taken at a time.
    pub fn set_chunk_rows(&mut self, rows: usize) {
        self.runs.set_full(rows);
    }

    /// Takes the rows at hand. No reply may have come in part.
    pub fn take_rows(&mut self) -> Vec<Chunk> {
        self.runs.take_from_first()
    }

    /// The error that ended the read, and where it would go on.
    pub fn take_misfit(&mut self) -> Option<Box<DecodeError>> {
        self.misfit.take()
    }

    /// Sends what it is time to ask for, and takes one reply.
    /// `wanted` is how many entries are wanted beyond those at hand.
    pub async fn exchange(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        wanted: Option<usize>,
    ) -> Result<()> {
        let connection = link.ready().await?;
        while let Some(window) = self.windows.next(wanted) {
            let cmd = command::xrange(&self.stream, window.range, window.limit);
            connection.queue(&cmd);
        }
        connection.flush().await?;
        self.receive(connection, decoder, wanted).await?;
        link.succeeded();
        Ok(())
    }

    async fn receive(
        &mut self,
        connection: &mut Connection,
        decoder: &mut Decoder,
        wanted: Option<usize>,
    ) -> Result<()> {
        let Some(window) = self.windows.due() else {
            return Ok(());
        };
        let expected = self.windows.expected().min(wanted.unwrap_or(usize::MAX));
        if self.in_reply.is_none() {
            decoder.begin_reply(Shape::Entries, window.range, window.limit);
        }
        let begun = *self.in_reply.get_or_insert(decoder.bytes());
        let rows = self.runs.at(window.range.start(), &self.plan, expected);
        let due = match self.is_short {
            true => Due::Soon,
            false => Due::InTime,
        };
        let entries = receive(connection, due, decoder, rows)
            .await
            .map_err(|failure| failure.of(&self.stream, connection))?;
        self.in_reply = None;
        let reply = Reply {
            entries,
            bytes: (decoder.bytes() - begun) as usize,
            ids: decoder.ids(),
        };
        if let Some(covered) = self.windows.replied(reply) {
            self.runs.cover(covered);
        }
        Ok(())
    }

    /// An entry does not fit: the read ends before it, once all before it is
    /// read.
    pub fn stop_before(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        misfit: Box<DecodeError>,
    ) {
        // There is nothing between it and the entry before it.
        self.put_back(link, decoder, misfit.entry_id.previous());
        // In another window an entry before it may not fit either: that one is
        // the first, then.
        self.windows.stop_before(misfit.entry_id);
        self.misfit = Some(misfit);
        link.disconnect();
    }

    /// Puts back what was in flight; entries that were decoded whole stay.
    pub fn lost(&mut self, link: &mut Link, decoder: &mut Decoder) {
        let decoded = decoder.ids().map(IdRange::end);
        self.put_back(link, decoder, decoded);
    }

    /// Puts back what was in flight, but for what the reply that came in part
    /// has shown, up to the ID `decoded`.
    fn put_back(&mut self, link: &mut Link, decoder: &mut Decoder, mut decoded: Option<EntryId>) {
        if let (Some(_), Some(window)) = (self.in_reply.take(), self.windows.due()) {
            let rows = self.runs.at(window.range.start(), &self.plan, 0);
            decoder.abandon(rows);
            if let Some(covered) = decoded.and_then(|id| IdRange::new(window.range.start(), id)) {
                self.runs.cover(covered);
                link.succeeded();
            }
        } else {
            decoded = None;
        }
        self.windows.lost(decoded);
    }
}
