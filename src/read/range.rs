//! Reads a bounded range of a stream, at the server's own speed.

use std::sync::Arc;
use std::time::Duration;

use super::extent::extent;
use super::runs::Runs;
use super::windows::{Reply, Windows};
use crate::address::Address;
use crate::command;
use crate::connection::{Backoff, Connection};
use crate::decode::{Chunk, Decoder, Fault, Plan, Progress, Table};
use crate::entry_id::{End, IdRange, Start};
use crate::error::{DecodeError, Error, Result};

/// Rows of a chunk of the result.
const CHUNK_ROWS: usize = 65_536;
/// Entries that are read without asking first how many there are.
const SHORT_READ: usize = 1000;
/// How long a read that has begun goes on trying against a server that fails.
const RETRY_BUDGET: Duration = Duration::from_secs(10);

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

/// Reads the entries of a range with `XRANGE`, oldest first.
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
) -> Result<Table> {
    let mut decoder = Decoder::new(plan.clone());
    let mut chunks = Vec::new();
    if query.count != Some(0) {
        // The first connection fails fast; what comes after is tried again.
        let connection = Connection::open(address).await?;
        let mut backoff = Backoff::new(RETRY_BUDGET);
        let (connection, windows) = begin(connection, query, &mut backoff).await?;
        if let Some(windows) = windows {
            let runs = Runs::new(CHUNK_ROWS);
            let mut reader = RangeReader {
                query,
                plan,
                connection,
                backoff,
                decoder,
                windows,
                runs,
                in_reply: false,
                is_short: query.is_short(),
            };
            reader.read().await?;
            chunks = reader.runs.finish().map(|rows| rows.finish()).collect();
            decoder = reader.decoder;
            if !reader.windows.is_waiting() {
                reader.connection.keep();
            }
        } else {
            connection.keep();
        }
    }
    if let Some(count) = query.count {
        keep_first(&mut chunks, count);
    }
    Ok(Table::new(plan, decoder.names(), chunks))
}

fn keep_first(chunks: &mut Vec<Chunk>, mut count: usize) {
    chunks.retain_mut(|chunk| {
        chunk.truncate(count);
        count -= chunk.rows();
        chunk.rows() > 0
    });
}

/// Finds out what there is to read; nothing, if the range has no IDs.
async fn begin(
    mut connection: Connection,
    query: &RangeQuery,
    backoff: &mut Backoff,
) -> Result<(Connection, Option<Windows>)> {
    loop {
        match plan_windows(&mut connection, query).await {
            Ok(windows) => return Ok((connection, windows)),
            Err(error) => connection = reconnect(&connection, error, backoff).await?,
        }
    }
}

async fn plan_windows(connection: &mut Connection, query: &RangeQuery) -> Result<Option<Windows>> {
    if let (true, Start::At(start), End::At(end)) = (query.is_short(), query.start, query.end) {
        let range = IdRange::new(start, end);
        return Ok(range.map(Windows::new));
    }
    let Some(extent) = extent(connection, &query.stream).await? else {
        return Ok(None);
    };
    let start = match query.start {
        Start::At(start) => Some(start),
        Start::AfterLast => extent.last.next(),
        Start::Never => None,
    };
    let (Some(start), End::At(end)) = (start, query.end) else {
        return Ok(None);
    };
    let range = IdRange::new(start.max(extent.first), end.min(extent.last));
    Ok(range.map(|range| {
        let windows = Windows::new(range).with_round_trip(extent.round_trip);
        match extent.density {
            Some((ids, bytes)) => windows.with_density(ids, bytes),
            None => windows,
        }
    }))
}

/// A new connection after an error that may pass; else the error.
async fn reconnect(
    broken: &Connection,
    mut error: Error,
    backoff: &mut Backoff,
) -> Result<Connection> {
    while error.is_transient() {
        let Some(pause) = backoff.failed() else { break };
        tokio::time::sleep(pause).await;
        match Connection::connect(broken.address()).await {
            Ok(connection) => return Ok(connection),
            Err(again) => error = again,
        }
    }
    Err(error)
}

struct RangeReader<'a> {
    query: &'a RangeQuery,
    plan: &'a Plan,
    connection: Connection,
    backoff: Backoff,
    decoder: Decoder,
    windows: Windows,
    runs: Runs,
    /// Whether the reply that is due has begun to be decoded.
    in_reply: bool,
    /// Whether few entries are wanted, so that they are here in a moment.
    is_short: bool,
}

impl RangeReader<'_> {
    async fn read(&mut self) -> Result<()> {
        let mut first_misfit = None;
        while !self.is_finished() {
            match self.exchange().await {
                Ok(()) => self.backoff.succeeded(),
                Err(Error::Decode(misfit)) => {
                    // An entry before it may not fit either: that one is the
                    // first, then. Its window is rarely still open.
                    self.lost();
                    self.windows.stop_before(misfit.entry_id);
                    first_misfit = Some(misfit);
                    if !self.is_finished() {
                        self.connection = Connection::connect(self.connection.address()).await?;
                    }
                }
                Err(error) => {
                    self.lost();
                    self.connection = reconnect(&self.connection, error, &mut self.backoff).await?;
                }
            }
        }
        first_misfit.map_or(Ok(()), |misfit| Err(Error::Decode(misfit)))
    }

    fn is_finished(&self) -> bool {
        self.windows.is_finished() || self.wanted() == Some(0)
    }

    /// How many entries are wanted beyond those at hand.
    fn wanted(&self) -> Option<usize> {
        let count = self.query.count?;
        Some(count.saturating_sub(self.runs.rows_from_first()))
    }

    /// Sends what it is time to ask for, and takes one reply.
    async fn exchange(&mut self) -> Result<()> {
        let wanted = self.wanted();
        while let Some(window) = self.windows.next(wanted) {
            let cmd = command::xrange(&self.query.stream, window.range, window.limit);
            self.connection.queue(&cmd);
        }
        self.connection.flush().await?;
        let Some(window) = self.windows.due() else {
            return Ok(());
        };
        let expected = self.windows.expected();
        let rows = self.runs.at(window.range.start(), self.plan, expected);
        self.decoder.begin_reply(window.range);
        self.in_reply = true;
        let mut bytes = 0;
        loop {
            let received = match self.is_short {
                true => self.connection.received_soon().await?,
                false => self.connection.received().await?,
            };
            let mut input = received;
            let progress = self.decoder.decode(&mut input, rows);
            let taken = received.len() - input.len();
            self.connection.consume(taken);
            bytes += taken;
            match progress {
                Ok(Progress::NeedMore) => {}
                Ok(Progress::Done { entries }) => {
                    self.in_reply = false;
                    let reply = Reply {
                        entries,
                        bytes,
                        ids: self.decoder.ids(),
                    };
                    if let Some(covered) = self.windows.replied(reply) {
                        self.runs.cover(covered);
                    }
                    return Ok(());
                }
                Err(fault) => return Err(self.error(fault)),
            }
        }
    }

    /// Puts back what was in flight; entries that were decoded whole stay.
    fn lost(&mut self) {
        let mut decoded = None;
        if let (true, Some(window)) = (self.in_reply, self.windows.due()) {
            let rows = self.runs.at(window.range.start(), self.plan, 0);
            self.decoder.abandon(rows);
            decoded = self.decoder.ids().map(IdRange::end);
            if let Some(covered) = decoded.and_then(|id| IdRange::new(window.range.start(), id)) {
                self.runs.cover(covered);
                self.backoff.succeeded();
            }
        }
        self.in_reply = false;
        self.windows.lost(decoded);
    }

    fn error(&self, fault: Fault) -> Error {
        let stream = &self.query.stream;
        let context = format!("stream {stream:?}");
        match fault {
            Fault::Server(reply) => {
                Error::from_reply(context, self.connection.address().redact(&reply))
            }
            Fault::Protocol(reason) => Error::Protocol { context, reason },
            Fault::Value { id, field, reason } => Error::Decode(Box::new(DecodeError {
                stream: stream.clone(),
                entry_id: id,
                field,
                reason,
            })),
        }
    }
}
