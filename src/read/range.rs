//! Reads one range of IDs at the server's own speed: several windows in flight.

use std::sync::Arc;

use super::link::Link;
use super::runs::Runs;
use super::windows::{Reply, Windows};
use super::{Due, expect, receive};
use crate::command;
use crate::connection::Connection;
use crate::decode::{Chunk, Decoder, Plan, Shape};
use crate::entry_id::{EntryId, IdRange};
use crate::error::{DecodeError, Result};

/// Rows of a chunk of the result.
pub const CHUNK_ROWS: usize = 65_536;
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
    /// Windows in which a replica of a cluster has shown nothing since it last showed
    /// an entry: the stream may have gone ahead to another server, with a slot that is
    /// on its way, of which only the master knows.
    doubtful: Vec<IdRange>,
    /// The first entry that does not fit. Nothing after it is read.
    misfit: Option<Box<DecodeError>>,
    /// Whether few entries are wanted, so that they are here in a moment.
    pub is_short: bool,
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
            doubtful: Vec::new(),
            misfit: None,
            is_short: false,
        }
    }

    /// Whether there is nothing more to ask for.
    pub fn is_finished(&self) -> bool {
        self.windows.is_finished() && self.doubtful.is_empty()
    }

    /// Whether a reply is due, or has come in part.
    pub fn is_waiting(&self) -> bool {
        self.windows.is_waiting()
    }

    /// Whether no entry is at hand, not even a part of one.
    pub fn is_empty(&self) -> bool {
        self.in_reply.is_none() && self.runs.is_empty()
    }

    /// Rows at hand, from the first on; none, as long as there is a doubt about what
    /// lies between them.
    pub fn rows(&self) -> usize {
        match self.doubtful.is_empty() {
            true => self.runs.rows_from_first(),
            false => 0,
        }
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
        if !self.is_waiting() {
            link.ask_anew();
        }
        if self.windows.is_finished() && !self.doubtful.is_empty() {
            link.turn_to_master();
            self.ask_again();
        }
        let connection = link.ready().await?;
        // One at a time, so that each is asked for where the slot belongs first.
        while !(connection.is_asking() && self.windows.is_waiting())
            && let Some(window) = self.windows.next(wanted)
        {
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
            expect(
                connection,
                decoder,
                Shape::Entries,
                window.range,
                window.limit,
            );
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
        if entries > 0 {
            // It was there all the time.
            self.doubtful.clear();
        }
        if let Some(covered) = self.windows.replied(reply) {
            self.runs.cover(covered);
            if entries == 0 && connection.address().is_replica {
                self.doubtful.push(covered);
            }
        }
        Ok(())
    }

    /// What there is a doubt about is asked for again.
    fn ask_again(&mut self) {
        for range in std::mem::take(&mut self.doubtful) {
            self.runs.uncover(range);
            self.windows.ask_again(range);
        }
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
        let before = self.put_back(link, decoder, misfit.entry_id.previous());
        self.windows.lost(before);
        // In another window an entry before it may not fit either: that one is
        // the first, then.
        self.windows.stop_before(misfit.entry_id);
        self.misfit = Some(misfit);
        link.disconnect();
    }

    /// Puts back what was in flight; entries that were decoded whole stay.
    pub fn lost(&mut self, link: &mut Link, decoder: &mut Decoder) {
        let decoded = decoder.ids().map(IdRange::end);
        let decoded = self.put_back(link, decoder, decoded);
        self.windows.lost(decoded);
    }

    /// The server has not done what was asked: it will be asked for again.
    pub fn refused(&mut self, link: &mut Link, decoder: &mut Decoder) {
        self.put_back(link, decoder, None);
        self.windows.refused();
    }

    /// Gives up what was in flight, but for what the reply that came in part has
    /// shown, up to the ID `decoded`; up to which that is.
    fn put_back(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        mut decoded: Option<EntryId>,
    ) -> Option<EntryId> {
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
        match decoded {
            Some(_) => self.doubtful.clear(),
            // It may be another server that answers next.
            None => self.ask_again(),
        }
        decoded
    }
}
