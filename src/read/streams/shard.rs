//! Reads the streams that one server has, in the order of their keys, over one
//! connection.
//!
//! The first entries of many streams are asked for at once, and their replies lie in
//! one chunk, one behind the other. A stream that has more leaves a [`Gap`] behind
//! them: its next entries are asked for among the first ones of other streams. One
//! that is long is then read on by a [`Scan`], which takes the connection over.
//!
//! Where a cluster's replica has shown nothing of a stream, the master is asked whether
//! that is so, of many streams at once, before rows behind it are handed over.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Entries;
use super::asks::{Ask, Asks, PAGE, Wanted};
use super::keys::{is_elsewhere, is_no_stream};
use redis::{Cmd, Value};

use crate::command;
use crate::connection::{Route, Slot, error_text};
use crate::decode::{Chunk, ChunkBuilder, Decoder, Fault, Meter, Plan, Shape};
use crate::deployment::ReadFrom;
use crate::entry_id::{End, IdRange, Start};
use crate::error::{DecodeError, Error, Result};
use crate::read::link::{Link, checked};
use crate::read::note::Note;
use crate::read::range::CHUNK_ROWS;
use crate::read::scan::{RETRY_BUDGET, RangeQuery, Scan};
use crate::read::source::Rows;
use crate::read::{Due, Failure, expect, receive};

/// Replies full of entries of a stream after which it is long.
const LONG: usize = 5;

/// Streams of which a replica has shown nothing that its master is asked about at once.
const DOUBTS: usize = 512;

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
    /// What a replica of a cluster has shown nothing of, though the master may know who
    /// has it. Until it was asked no rows are put where they belong.
    doubts: Vec<Wanted>,
    /// The way to the master.
    to_master: Option<Link>,
    /// What comes in now.
    open: Option<ChunkBuilder>,
    /// What follows the rows at hand, from the first gap on.
    pieces: VecDeque<Piece>,
    /// Rows at hand.
    rows: Rows,
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
    Gap(Gap),
}

/// Where the rest of a stream goes.
#[derive(Debug)]
struct Gap {
    stream: usize,
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    /// It comes in as other streams do.
    Pages(Box<ChunkBuilder>),
    /// It is read by itself.
    Scan(Box<Scan>),
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
            doubts: Vec::new(),
            to_master: None,
            open: None,
            pieces: VecDeque::new(),
            rows: Rows::default(),
            given: 0,
            misfit: None,
            notes: Vec::new(),
        }
    }

    /// How far it has come.
    pub fn meter(&self) -> &Arc<Meter> {
        self.decoder.meter()
    }

    /// The server was there before: that it cannot be reached now may pass.
    pub fn expect_server(&mut self) {
        self.link.expect_server();
    }

    /// Whether there is nothing more to read.
    pub fn is_finished(&self) -> bool {
        self.asks.is_finished() && self.pieces.is_empty() && self.doubts.is_empty()
    }

    /// Rows at hand, up to the first gap.
    fn rows(&self) -> usize {
        let chunks = self.pieces.iter().map_while(Piece::chunk);
        let is_whole = self.pieces.iter().all(|piece| piece.gap().is_none());
        let open = self.open.as_ref().filter(|_| is_whole);
        let chunks: usize = chunks.map(Chunk::rows).sum();
        self.rows.len() + chunks + open.map_or(0, ChunkBuilder::rows)
    }

    /// Hands over the rows at hand of the next `streams` streams, as far as they were
    /// read; how many streams that ends.
    pub fn give(&mut self, streams: usize, to: &mut Rows) -> usize {
        let end = self.given + streams;
        let rows = match self.keys.get(end) {
            None => self.rows.len(),
            Some(next) => {
                let before = self.rows.streams().take_while(|(key, _)| *key < next);
                before.map(|(_, rows)| rows).sum()
            }
        };
        for chunk in self.rows.take(rows) {
            to.push(chunk);
        }
        let ended = end.min(self.first()).saturating_sub(self.given);
        self.given += ended;
        ended
    }

    /// The first stream that was not read to its end.
    fn first(&self) -> usize {
        let gap = self.pieces.front().and_then(Piece::gap);
        let first = gap.map_or_else(|| self.asks.first(), |gap| gap.stream);
        let doubtful = self.doubts.iter().map(|wanted| wanted.stream).min();
        doubtful.map_or(first, |doubtful| doubtful.min(first))
    }

    /// Adds to the rows at hand what has no gap before it any more.
    fn settle(&mut self) {
        if !self.doubts.is_empty() {
            return;
        }
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Rows(chunk) => self.rows.push(chunk),
                Piece::Gap(_) => {
                    self.pieces.push_front(piece);
                    return;
                }
            }
        }
    }

    /// Whether nothing but a scan fills the first gap.
    fn is_scan_due(&self) -> bool {
        let gap = self.pieces.front().and_then(Piece::gap);
        gap.is_some_and(|gap| matches!(gap.rest, Rest::Scan(_)))
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
            self.settle();
            let missing = enough.saturating_sub(self.rows());
            if self.is_doubt_due(missing) {
                if let Err(error) = self.ask_master().await
                    && let Some(to_master) = &mut self.to_master
                {
                    to_master.failed(error)?;
                }
                continue;
            }
            if missing == 0 || self.is_finished() {
                self.close_chunk();
                self.settle();
                return Ok(());
            }
            if self.is_scan_due() && !self.asks.is_waiting() {
                self.scan_on(missing).await?;
                continue;
            }
            let most = most.map(|most| most.saturating_sub(self.rows()));
            if let Err(error) = self.exchange(missing, most).await {
                self.lost();
                self.link.failed(error)?;
            }
        }
    }

    /// Sends what it is time to ask for, and takes one reply.
    async fn exchange(&mut self, missing: usize, most: Option<usize>) -> Result<()> {
        let is_scan_due = self.is_scan_due();
        let connection = self.link.ready().await?;
        // The scan waits for the connection.
        if !is_scan_due {
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
        let rows = rows_of_gap(&mut self.pieces, wanted).unwrap_or_else(|| {
            self.open.get_or_insert_with(|| {
                let room = self.asks.expected().min(CHUNK_ROWS + PAGE);
                ChunkBuilder::with_room(&self.plan, room)
            })
        });
        if self.in_reply.is_none() {
            expect(
                connection,
                &mut self.decoder,
                Shape::Entries,
                wanted.range,
                limit,
            );
            rows.begin_stream(key);
        }
        let begun = *self.in_reply.get_or_insert(Begun {
            bytes: self.decoder.bytes(),
            rows: rows.rows(),
        });
        let received = receive(connection, Due::InTime, &mut self.decoder, rows).await;
        let rest = match received {
            Ok(entries) => {
                let last = self.decoder.ids().map(IdRange::end);
                let bytes = self.decoder.bytes() - begun.bytes;
                let rest = self.asks.replied(entries, last, bytes);
                if entries == 0 && connection.address().is_replica {
                    self.in_reply = None;
                    self.doubts.push(wanted);
                    self.link.succeeded();
                    return Ok(());
                }
                rest
            }
            Err(Failure::Reply(Fault::Server(reply))) if is_no_stream(&reply) => {
                self.asks.refused();
                None
            }
            // A scan finds it wherever it is.
            Err(Failure::Reply(Fault::Server(reply))) if is_elsewhere(&reply) => {
                self.asks.refused();
                let pages = LONG.max(wanted.pages);
                Some(Wanted { pages, ..wanted })
            }
            Err(failure) => match failure.of(key, connection) {
                Error::Decode(misfit) => {
                    self.decoder.abandon(rows);
                    self.in_reply = None;
                    self.stop_at(wanted, misfit);
                    return Ok(());
                }
                error => return Err(error),
            },
        };
        self.replied(wanted, rest);
        Ok(())
    }

    /// A reply is here, and may have shown that there is more of the stream.
    fn replied(&mut self, wanted: Wanted, rest: Option<Wanted>) {
        self.in_reply = None;
        self.link.succeeded();
        let streams = self.keys.len();
        let read = streams.saturating_sub(self.asks.left());
        self.meter().expect_as_in(read, streams);
        let is_full = self.open.as_ref().is_some_and(|o| o.rows() >= CHUNK_ROWS);
        let is_first = wanted.pages == 0;
        if is_first && (is_full || rest.is_some()) {
            self.close_chunk();
        }
        let Some(rest) = rest else {
            if !is_first {
                self.close_gap(wanted.stream);
            }
            return;
        };
        if rest.pages < LONG {
            if is_first {
                let rows = ChunkBuilder::with_room(&self.plan, PAGE);
                self.open_gap(rest.stream, Rest::Pages(Box::new(rows)));
            }
            self.asks.ask_again(rest);
            return;
        }
        if !is_first {
            self.close_gap(wanted.stream);
        }
        self.scan_rest(rest, self.entries.read_from);
    }

    /// What is left of a stream is read by itself.
    fn scan_rest(&mut self, rest: Wanted, read_from: ReadFrom) {
        let scan = self.scan(rest, read_from);
        // As many again, until that is known.
        scan.meter().expect(rest.pages as u64 * PAGE as u64);
        self.meter().add_part(scan.meter());
        self.open_gap(rest.stream, Rest::Scan(Box::new(scan)));
    }

    /// Whether it is time to ask the master for what a replica has shown nothing of.
    fn is_doubt_due(&self, missing: usize) -> bool {
        let cannot_go_on = missing == 0 || self.asks.is_finished() || self.is_scan_due();
        !self.doubts.is_empty() && (cannot_go_on || self.doubts.len() >= DOUBTS)
    }

    /// Asks the master whether there is indeed nothing.
    async fn ask_master(&mut self) -> Result<()> {
        let asked = self.doubts.iter();
        let asks: Vec<Cmd> = asked
            .map(|wanted| command::xrange(&self.keys[wanted.stream], wanted.range, 1))
            .collect();
        let Some(first) = self.doubts.first() else {
            return Ok(());
        };
        let to_master = self.to_master.get_or_insert_with(|| {
            let slot = Slot::of(self.keys[first.stream].as_bytes());
            let deployment = self.link.deployment().clone();
            let route = Route::new(deployment, slot, ReadFrom::Master);
            let mut link = Link::along(route, RETRY_BUDGET);
            link.expect_server();
            link
        });
        to_master.drop_if_spoiled();
        let replies = to_master.ready().await?.query_all(&asks).await?;
        let mut are_there = Vec::with_capacity(replies.len());
        for (wanted, reply) in self.doubts.iter().zip(replies) {
            are_there.push(match error_text(&reply) {
                Some(text) if is_no_stream(&text) => false,
                Some(text) if is_elsewhere(&text) => true,
                _ => {
                    let key = &self.keys[wanted.stream];
                    checked(reply, to_master.deployment(), key)? != Value::Array(Vec::new())
                }
            });
        }
        to_master.succeeded();
        for (wanted, is_there) in std::mem::take(&mut self.doubts).into_iter().zip(are_there) {
            if wanted.pages > 0 {
                self.close_gap(wanted.stream);
            }
            if is_there {
                self.close_chunk();
                self.split_at(wanted.stream);
                self.scan_rest(wanted, ReadFrom::Master);
            }
        }
        Ok(())
    }

    /// Leaves a place for the rest of a stream, behind what is here of it.
    fn open_gap(&mut self, stream: usize, rest: Rest) {
        // Rows of streams behind it may be here already.
        let behind = self.pieces.iter().rev().take_while(|piece| match piece {
            Piece::Rows(chunk) => is_behind(chunk, &self.keys[stream]),
            Piece::Gap(gap) => gap.stream > stream,
        });
        let at = self.pieces.len() - behind.count();
        self.pieces.insert(at, Piece::Gap(Gap { stream, rest }));
    }

    /// Splits the chunk in which the rows of a stream would be, or go on.
    fn split_at(&mut self, stream: usize) {
        let key = &self.keys[stream];
        for at in 0..self.pieces.len() {
            if let Some(Piece::Rows(chunk)) = self.pieces.get_mut(at) {
                let before = chunk.streams().take_while(|(other, _)| *other <= key);
                let rows = before.map(|(_, rows)| rows).sum();
                if rows > 0 && rows < chunk.rows() {
                    let front = chunk.split_front(rows);
                    self.pieces.insert(at, Piece::Rows(front));
                    return;
                }
            }
        }
    }

    fn gap_of(&self, stream: usize) -> Option<usize> {
        let is_it = |piece: &Piece| piece.gap().is_some_and(|gap| gap.stream == stream);
        self.pieces.iter().rposition(is_it)
    }

    /// Puts what came in where the gap was.
    fn close_gap(&mut self, stream: usize) {
        let Some(at) = self.gap_of(stream) else {
            return;
        };
        if let Some(Piece::Gap(gap)) = self.pieces.remove(at)
            && let Rest::Pages(rows) = gap.rest
            && rows.rows() > 0
        {
            let mut chunk = rows.finish();
            chunk.name_columns(self.decoder.names());
            self.pieces.insert(at, Piece::Rows(chunk));
        }
    }

    /// What reads one stream by itself.
    fn scan(&self, wanted: Wanted, read_from: ReadFrom) -> Scan {
        let query = RangeQuery {
            stream: self.keys[wanted.stream].to_string(),
            start: Start::At(wanted.range.start()),
            end: End::At(wanted.range.end()),
            count: wanted.count,
            condition: self.entries.condition.clone(),
            read_from,
        };
        Scan::continued(self.link.deployment().clone(), query, self.plan.clone())
    }

    /// Reads on in the stream of the first gap.
    async fn scan_on(&mut self, missing: usize) -> Result<()> {
        // It takes the connection over.
        self.link.keep();
        let Some(Piece::Gap(gap)) = self.pieces.front_mut() else {
            return Ok(());
        };
        let Rest::Scan(scan) = &mut gap.rest else {
            return Ok(());
        };
        let stream = gap.stream;
        let (chunks, misfit) = match scan.next_chunks(missing).await {
            Ok(chunks) => (chunks, None),
            // Rows before it may be all that is wanted.
            Err(Error::Decode(misfit)) => (scan.next_chunks(usize::MAX).await?, Some(misfit)),
            Err(Error::Response { reply, .. }) if is_no_stream(&reply) => (Vec::new(), None),
            Err(error) => return Err(error),
        };
        let rows: usize = chunks.iter().map(Chunk::rows).sum();
        for mut chunk in chunks {
            chunk.set_stream(&self.keys[stream]);
            self.rows.push(chunk);
        }
        if let Some(misfit) = misfit {
            self.pieces.clear();
            self.open = None;
            self.end_at(stream, misfit);
            return Ok(());
        }
        let ended = (rows < missing).then(|| self.pieces.pop_front()).flatten();
        if let Some(scan) = ended.and_then(Piece::into_scan) {
            self.notes.extend(scan.close());
        }
        Ok(())
    }

    /// An entry does not fit: nothing after it is read.
    fn stop_at(&mut self, wanted: Wanted, misfit: Box<DecodeError>) {
        self.link.disconnect();
        let stream = wanted.stream;
        if wanted.pages > 0 {
            if let Some(at) = self.gap_of(stream) {
                self.pieces.truncate(at + 1);
            }
            self.close_gap(stream);
            self.open = None;
        }
        self.end_at(stream, misfit);
    }

    fn end_at(&mut self, stream: usize, misfit: Box<DecodeError>) {
        self.asks.stop_at(stream);
        self.doubts.retain(|wanted| wanted.stream < stream);
        self.misfit = Some(misfit);
    }

    /// The connection was lost: entries that were decoded whole stay.
    fn lost(&mut self) {
        let begun = self.in_reply.take();
        let due = self.asks.due().map(|ask| ask.wanted);
        let gap = due.and_then(|wanted| rows_of_gap(&mut self.pieces, wanted));
        let rows = gap.or(self.open.as_mut());
        let (Some(begun), Some(rows)) = (begun, rows) else {
            self.asks.lost(0, None);
            return;
        };
        self.decoder.abandon(rows);
        let entries = rows.rows() - begun.rows;
        if entries > 0 {
            self.link.succeeded();
        }
        let last = self.decoder.ids().map(IdRange::end);
        self.asks.lost(entries, last);
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
        for scan in self.pieces.iter_mut().filter_map(Piece::scan) {
            notes.extend(std::iter::from_fn(|| scan.take_note()));
        }
        let links = [Some(&mut self.link), self.to_master.as_mut()];
        notes.extend(links.into_iter().flatten().flat_map(Link::take_notes));
        notes
    }

    /// This process is a forked child: the connections are its parent's, and are
    /// neither used nor closed here.
    pub fn forget_connection(&mut self) {
        self.link.forget();
        self.to_master.iter_mut().for_each(Link::forget);
        let scans = self.pieces.iter_mut().filter_map(Piece::scan);
        scans.for_each(Scan::forget_connection);
    }

    /// Ends it; a connection on which nothing is due is kept for others. Gives what
    /// there is left to tell.
    pub fn close(mut self) -> Vec<Note> {
        let mut notes = self.take_notes();
        if !self.asks.is_waiting() && !self.link.drop_if_spoiled() {
            self.link.keep();
        }
        if let Some(to_master) = &mut self.to_master
            && !to_master.drop_if_spoiled()
        {
            to_master.keep();
        }
        let scans = self.pieces.into_iter().filter_map(Piece::into_scan);
        notes.extend(scans.flat_map(Scan::close));
        notes
    }
}

impl Piece {
    fn gap(&self) -> Option<&Gap> {
        match self {
            Self::Rows(_) => None,
            Self::Gap(gap) => Some(gap),
        }
    }

    fn chunk(&self) -> Option<&Chunk> {
        match self {
            Self::Rows(chunk) => Some(chunk),
            Self::Gap(_) => None,
        }
    }

    fn scan(&mut self) -> Option<&mut Scan> {
        match self {
            Self::Gap(gap) => match &mut gap.rest {
                Rest::Scan(scan) => Some(scan),
                Rest::Pages(_) => None,
            },
            Self::Rows(_) => None,
        }
    }

    fn into_scan(self) -> Option<Scan> {
        match self {
            Self::Gap(gap) => match gap.rest {
                Rest::Scan(scan) => Some(*scan),
                Rest::Pages(_) => None,
            },
            Self::Rows(_) => None,
        }
    }
}

/// What comes in of the rest of a stream, if that is what is wanted.
fn rows_of_gap(pieces: &mut VecDeque<Piece>, wanted: Wanted) -> Option<&mut ChunkBuilder> {
    // Of most streams there is no rest. Those that are asked for now are the last.
    let mut gaps = pieces.iter_mut().rev().filter(|_| wanted.pages > 0);
    gaps.find_map(|piece| match piece {
        Piece::Gap(gap) if gap.stream == wanted.stream => match &mut gap.rest {
            Rest::Pages(rows) => Some(&mut **rows),
            Rest::Scan(_) => None,
        },
        _ => None,
    })
}

/// Whether all rows are of streams behind the one with this key.
fn is_behind(chunk: &Chunk, key: &str) -> bool {
    let first = chunk.streams().next();
    first.is_some_and(|(stream, _)| &**stream > key)
}
