//! Reads the streams that one server has, in the order of their keys, over one
//! connection.
//!
//! The first entries of many streams are asked for at once, and their replies lie in
//! one chunk, one behind the other. A stream that has more is read on by a [`Scan`],
//! which takes the connection over: its chunks go between those around them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Entries;
use super::asks::{Ask, Asks, PAGE, Wanted};
use super::keys::{is_elsewhere, is_no_stream};
use crate::command;
use crate::connection::Route;
use crate::decode::{Chunk, ChunkBuilder, Decoder, Fault, Meter, Plan, Shape};
use crate::entry_id::{End, IdRange, Start};
use crate::error::{DecodeError, Error, Result};
use crate::read::link::{Link, Note};
use crate::read::range::CHUNK_ROWS;
use crate::read::scan::{RETRY_BUDGET, RangeQuery, Scan};
use crate::read::source::Rows;
use crate::read::{Due, Failure, expect, receive};

/// Reads the streams of one server.
///
/// It may be cancelled anywhere, and goes on where it was.
#[derive(Debug)]
pub struct Shard {
    link: Link,
    plan: Arc<Plan>,
    decoder: Decoder,
    /// In order.
    keys: Vec<Arc<str>>,
    entries: Entries,
    asks: Asks,
    in_reply: Option<Begun>,
    /// What comes in now.
    open: Option<ChunkBuilder>,
    pieces: VecDeque<Piece>,
    /// How many streams were handed over whole.
    given: usize,
    /// The first entry that does not fit. Nothing after it is read.
    misfit: Option<Box<DecodeError>>,
    notes: Vec<Note>,
}

/// Bytes and rows that had been decoded when the reply that is due began to be.
#[derive(Debug, Clone, Copy)]
struct Begun {
    bytes: u64,
    rows: usize,
}

/// A part of the result; they are in order.
#[derive(Debug)]
enum Piece {
    Rows(Chunk),
    /// The rest of a stream, not read yet.
    Rest(Box<Rest>),
}

#[derive(Debug)]
struct Rest {
    stream: usize,
    scan: Scan,
}

impl Shard {
    /// A reader of what `range` has of each of some streams, all of them of the
    /// server that a route leads to.
    pub fn new(
        route: Route,
        keys: Vec<Arc<str>>,
        range: IdRange,
        entries: Entries,
        plan: Arc<Plan>,
    ) -> Self {
        Self {
            link: Link::along(route, RETRY_BUDGET),
            decoder: Decoder::new(plan.clone()),
            asks: Asks::new(keys.len(), range, entries.count),
            plan,
            keys,
            entries,
            in_reply: None,
            open: None,
            pieces: VecDeque::new(),
            given: 0,
            misfit: None,
            notes: Vec::new(),
        }
    }

    /// The server was there before: that it cannot be reached now may pass.
    pub fn expect_server(&mut self) {
        self.link.expect_server();
    }

    /// How far it has come.
    pub fn meter(&self) -> &Arc<Meter> {
        self.decoder.meter()
    }

    /// Whether there is nothing more to read.
    pub fn is_finished(&self) -> bool {
        self.asks.is_finished() && self.rest().is_none()
    }

    /// Rows at hand, up to the first gap.
    pub fn rows(&self) -> usize {
        let rest = self.rest();
        let pieces = self.pieces.range(..rest.unwrap_or(self.pieces.len()));
        let open = self.open.as_ref().filter(|_| rest.is_none());
        pieces.map(Piece::rows).sum::<usize>() + open.map_or(0, ChunkBuilder::rows)
    }

    /// Hands over the rows at hand of the next `streams` streams, as far as they were
    /// read; how many streams that ends.
    pub fn give(&mut self, streams: usize, to: &mut Rows) -> usize {
        let end = self.given + streams;
        while let Some(Piece::Rows(chunk)) = self.pieces.front_mut() {
            let rows = match self.keys.get(end) {
                None => chunk.rows(),
                Some(next) => rows_before(chunk, next),
            };
            if rows < chunk.rows() {
                if rows > 0 {
                    to.push(chunk.split_front(rows));
                }
                break;
            }
            if let Some(Piece::Rows(chunk)) = self.pieces.pop_front() {
                to.push(chunk);
            }
        }
        let ended = end.min(self.first()).saturating_sub(self.given);
        self.given += ended;
        ended
    }

    /// The first stream that was not read to its end.
    fn first(&self) -> usize {
        let rest = self.pieces.iter().find_map(|piece| match piece {
            Piece::Rows(_) => None,
            Piece::Rest(rest) => Some(rest.stream),
        });
        rest.unwrap_or_else(|| self.asks.first())
    }

    /// Where the first rest is among the pieces.
    fn rest(&self) -> Option<usize> {
        let is_rest = |piece: &Piece| matches!(piece, Piece::Rest(_));
        self.pieces.iter().position(is_rest)
    }

    /// The entry that does not fit, if nothing is left to read before it.
    pub fn misfit(&self) -> Option<&DecodeError> {
        self.misfit.as_deref().filter(|_| self.is_finished())
    }

    /// Reads until so many rows are at hand, or there are no more; `most` is how many
    /// will be wanted at all, if that is limited.
    ///
    /// # Errors
    /// Any but those of decoding, which end it.
    pub async fn read(&mut self, enough: usize, most: Option<usize>) -> Result<()> {
        loop {
            let missing = enough.saturating_sub(self.rows());
            if missing == 0 || self.is_finished() {
                self.close_chunk();
                return Ok(());
            }
            match self.rest() {
                Some(at) if !self.asks.is_waiting() => self.read_rest(at, missing).await?,
                _ => {
                    let most = most.map(|most| most.saturating_sub(self.rows()));
                    let step = self.exchange(missing, most).await;
                    if let Err(error) = step {
                        self.lost();
                        self.link.failed(error)?;
                    }
                }
            }
        }
    }

    /// Sends what it is time to ask for, and takes one reply.
    async fn exchange(&mut self, missing: usize, most: Option<usize>) -> Result<()> {
        let has_rest = self.rest().is_some();
        let connection = self.link.ready().await?;
        // What has come late would wait for a rest that lies before it.
        if !has_rest {
            for Ask { wanted, limit } in self.asks.refill(missing, most) {
                let key = &self.keys[wanted.stream];
                connection.queue(&command::xrange(key, wanted.range, limit));
            }
        }
        connection.flush().await?;
        let Some(Ask { wanted, limit }) = self.asks.due() else {
            return Ok(());
        };
        let key = &self.keys[wanted.stream];
        let open = self.open.get_or_insert_with(|| {
            let room = self.asks.expected().min(CHUNK_ROWS + PAGE);
            ChunkBuilder::with_room(&self.plan, room)
        });
        if self.in_reply.is_none() {
            expect(
                connection,
                &mut self.decoder,
                Shape::Entries,
                wanted.range,
                limit,
            );
            open.begin_stream(key);
        }
        let begun = *self.in_reply.get_or_insert(Begun {
            bytes: self.decoder.bytes(),
            rows: open.rows(),
        });
        let received = receive(connection, Due::InTime, &mut self.decoder, open).await;
        match received {
            Ok(entries) => {
                let last = self.decoder.ids().map(IdRange::end);
                let bytes = self.decoder.bytes() - begun.bytes;
                let rest = self.asks.replied(entries, last, bytes);
                self.replied(rest);
            }
            Err(Failure::Reply(Fault::Server(reply))) if is_no_stream(&reply) => {
                self.asks.refused();
                self.replied(None);
            }
            // By itself it is read wherever it is.
            Err(Failure::Reply(Fault::Server(reply))) if is_elsewhere(&reply) => {
                let wanted = self.asks.refused();
                self.replied(wanted);
            }
            Err(failure) => match failure.of(key, connection) {
                Error::Decode(misfit) => {
                    self.decoder.abandon(open);
                    self.in_reply = None;
                    self.stop_at(wanted.stream, misfit);
                }
                error => return Err(error),
            },
        }
        Ok(())
    }

    /// A reply is here, and may have shown that there is more of the stream.
    fn replied(&mut self, rest: Option<Wanted>) {
        self.in_reply = None;
        self.link.succeeded();
        self.meter()
            .expect_as_in(self.asks.first(), self.keys.len());
        let is_full = self.open.as_ref().is_some_and(|o| o.rows() >= CHUNK_ROWS);
        if is_full || rest.is_some() {
            self.close_chunk();
        }
        if let Some(wanted) = rest {
            let stream = wanted.stream;
            let scan = self.scan(wanted);
            // As many again, until that is known.
            scan.meter().expect(PAGE as u64);
            self.meter().add_part(scan.meter());
            self.pieces
                .push_back(Piece::Rest(Box::new(Rest { stream, scan })));
        }
    }

    /// What reads one stream by itself.
    fn scan(&self, wanted: Wanted) -> Scan {
        let query = RangeQuery {
            stream: self.keys[wanted.stream].to_string(),
            start: Start::At(wanted.range.start()),
            end: End::At(wanted.range.end()),
            count: wanted.count,
            condition: self.entries.condition.clone(),
            read_from: self.entries.read_from,
        };
        Scan::continued(self.link.deployment().clone(), query, self.plan.clone())
    }

    /// Reads on in the stream whose rest is the piece `at`.
    async fn read_rest(&mut self, at: usize, missing: usize) -> Result<()> {
        // It takes the connection over.
        self.link.keep();
        let Some(Piece::Rest(rest)) = self.pieces.get_mut(at) else {
            return Ok(());
        };
        let stream = rest.stream;
        let chunks = match rest.scan.next_chunks(missing).await {
            Ok(chunks) => chunks,
            Err(Error::Decode(misfit)) => {
                self.open = None;
                self.pieces.truncate(at);
                self.stop_at(stream, misfit);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let rows: usize = chunks.iter().map(Chunk::rows).sum();
        let ended = (rows < missing).then(|| self.pieces.remove(at)).flatten();
        if let Some(Piece::Rest(rest)) = ended {
            self.notes.extend(rest.scan.close());
        }
        for (after, mut chunk) in chunks.into_iter().enumerate() {
            chunk.set_stream(&self.keys[stream]);
            self.pieces.insert(at + after, Piece::Rows(chunk));
        }
        Ok(())
    }

    /// An entry of a stream does not fit: nothing after it is read.
    fn stop_at(&mut self, stream: usize, misfit: Box<DecodeError>) {
        if self.asks.is_waiting() {
            self.link.disconnect();
        }
        self.asks.stop_at(stream);
        self.misfit = Some(misfit);
    }

    /// The connection was lost: entries that were decoded whole stay.
    fn lost(&mut self) {
        let begun = self.in_reply.take();
        if let (Some(begun), Some(open)) = (begun, &mut self.open) {
            self.decoder.abandon(open);
            let entries = open.rows() - begun.rows;
            if entries > 0 {
                self.link.succeeded();
            }
            let last = self.decoder.ids().map(IdRange::end);
            self.asks.lost(entries, last);
        } else {
            self.asks.lost(0, None);
        }
    }

    /// Ends the chunk that rows came into, if there are any.
    fn close_chunk(&mut self) {
        let Some(open) = self.open.take_if(|open| open.rows() > 0) else {
            return;
        };
        let expected = self.asks.expected();
        if expected > 0 {
            let room = expected.min(CHUNK_ROWS + PAGE);
            let mut next = ChunkBuilder::with_room(&self.plan, room);
            next.make_room_like(&open);
            self.open = Some(next);
        }
        let mut chunk = open.finish();
        chunk.name_columns(self.decoder.names());
        self.pieces.push_back(Piece::Rows(chunk));
    }

    /// The next thing to tell.
    pub fn take_notes(&mut self) -> Vec<Note> {
        let mut notes = std::mem::take(&mut self.notes);
        for piece in &mut self.pieces {
            if let Piece::Rest(rest) = piece {
                notes.extend(std::iter::from_fn(|| rest.scan.take_note()));
            }
        }
        notes.extend(self.link.take_notes());
        notes
    }

    /// This process is a forked child: the connections are its parent's, and are
    /// neither used nor closed here.
    pub fn forget_connection(&mut self) {
        self.link.forget();
        for piece in &mut self.pieces {
            if let Piece::Rest(rest) = piece {
                rest.scan.forget_connection();
            }
        }
    }

    /// Ends it; a connection on which nothing is due is kept for others. Gives what
    /// there is left to tell.
    pub fn close(mut self) -> Vec<Note> {
        let mut notes = self.take_notes();
        if !self.asks.is_waiting() && !self.link.drop_if_spoiled() {
            self.link.keep();
        }
        for piece in self.pieces {
            if let Piece::Rest(rest) = piece {
                notes.extend(rest.scan.close());
            }
        }
        notes
    }
}

impl Piece {
    fn rows(&self) -> usize {
        match self {
            Self::Rows(chunk) => chunk.rows(),
            Self::Rest(_) => 0,
        }
    }
}

/// Rows of the streams before the one with this key.
fn rows_before(chunk: &Chunk, key: &str) -> usize {
    let streams = chunk.streams().take_while(|(stream, _)| &***stream < key);
    streams.map(|(_, rows)| rows).sum()
}
