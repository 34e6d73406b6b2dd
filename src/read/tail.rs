//! Follows a stream: what is there in large windows, then what comes.

use std::sync::Arc;

use super::extent::extent_along;
use super::link::Link;
use super::range::RangeReader;
use super::scan::windows_of;
use super::source::{Ask, Pulled, Request, Rows};
use super::{expect, receive};
use crate::command;
use crate::decode::{ChunkBuilder, Decoder, Plan, Shape};
use crate::deployment::ReadFrom;
use crate::entry_id::{End, EntryId, IdRange, Start};
use crate::error::{Error, Result};

/// Entries that one reply may hold, of those that come.
const READ_AHEAD: usize = 100;
/// Rows of a chunk, at the least and at the most.
const MIN_CHUNK_ROWS: usize = 1000;
const MAX_CHUNK_ROWS: usize = 65_536;

/// What to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailQuery {
    /// Key of the stream.
    pub stream: String,
    pub start: Start,
    pub end: End,
    pub read_from: ReadFrom,
}

/// Reads a stream from a start on, each entry once.
#[derive(Debug)]
pub(super) struct Tail {
    stream: String,
    /// The last ID that is wanted; `None` where none is.
    end: Option<EntryId>,
    plan: Arc<Plan>,
    phase: Phase,
    rows: Rows,
}

#[derive(Debug)]
enum Phase {
    /// It is not known yet what is there from here on.
    Begin(Start),
    /// What was there is being read; then, what follows this ID.
    Backlog(Box<RangeReader>, EntryId),
    /// What comes after this ID is waited for.
    Follow(Box<Follow>),
    /// Nothing can come any more.
    Ended,
}

#[derive(Debug)]
struct Follow {
    after: EntryId,
    request: Option<Request>,
    rows: ChunkBuilder,
    /// Whether the last reply held all that was there.
    is_caught_up: bool,
    /// Entries that are asked for at once: what is more is read as a backlog.
    most: usize,
}

impl Tail {
    pub fn new(query: TailQuery, plan: Arc<Plan>) -> Self {
        Self {
            stream: query.stream,
            end: match query.end {
                End::At(end) => Some(end),
                End::Never => None,
            },
            plan,
            phase: Phase::Begin(query.start),
            rows: Rows::default(),
        }
    }

    pub fn rows(&mut self, decoder: &Decoder) -> &mut Rows {
        if let Phase::Follow(follow) = &mut self.phase
            && follow.request.is_none()
            && follow.rows.rows() > 0
        {
            let fresh = ChunkBuilder::with_room(&self.plan, 0);
            let rows = std::mem::replace(&mut follow.rows, fresh);
            let mut chunk = rows.finish();
            chunk.name_columns(decoder.names());
            self.rows.push(chunk);
        }
        &mut self.rows
    }

    pub fn row_count(&self) -> usize {
        let following = match &self.phase {
            Phase::Follow(follow) => follow.rows.rows(),
            _ => 0,
        };
        self.rows.len() + following
    }

    pub fn builds_nothing(&self) -> bool {
        match &self.phase {
            Phase::Backlog(range, _) => range.is_empty(),
            Phase::Follow(follow) => follow.rows.rows() == 0 && follow.request.is_none(),
            Phase::Begin(_) | Phase::Ended => true,
        }
    }

    pub fn is_in_reply(&self) -> bool {
        match &self.phase {
            Phase::Follow(follow) => follow.request.is_some(),
            _ => false,
        }
    }

    pub fn is_caught_up(&self) -> bool {
        match &self.phase {
            Phase::Follow(follow) => follow.is_caught_up,
            _ => false,
        }
    }

    /// Whether replies are due.
    pub fn is_waiting(&self) -> bool {
        match &self.phase {
            Phase::Backlog(range, _) => range.is_waiting(),
            _ => self.is_in_reply(),
        }
    }

    /// Finds out where to begin, if that is not known.
    pub async fn open(&mut self, link: &mut Link) -> Result<()> {
        let Phase::Begin(start) = self.phase else {
            return Ok(());
        };
        let extent = extent_along(link, &self.stream).await?;
        let start = extent.first(start);
        let (Some(start), Some(end)) = (start, self.end) else {
            self.phase = Phase::Ended;
            return Ok(());
        };
        let after = start.previous().unwrap_or(EntryId::MIN).max(extent.passed);
        self.phase = match extent.within(start, end) {
            Some(range) => {
                let windows = windows_of(range, extent);
                let range = RangeReader::new(&self.stream, self.plan.clone(), windows);
                Phase::Backlog(Box::new(range), after)
            }
            None if start > end => Phase::Ended,
            None => self.follow(after),
        };
        Ok(())
    }

    fn follow(&self, after: EntryId) -> Phase {
        Phase::Follow(Box::new(Follow {
            after,
            request: None,
            rows: ChunkBuilder::with_room(&self.plan, 0),
            is_caught_up: true,
            most: READ_AHEAD,
        }))
    }

    /// Takes one step towards the rows asked for.
    pub async fn pull(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        match &mut self.phase {
            Phase::Begin(_) => {
                self.open(link).await?;
                Ok(Pulled::Some)
            }
            Phase::Backlog(range, _) => {
                range.set_chunk_rows(ask.wanted.clamp(MIN_CHUNK_ROWS, MAX_CHUNK_ROWS));
                let limit = ask.limit.map(|limit| limit.saturating_sub(range.rows()));
                if !range.is_finished() {
                    match range.exchange(link, decoder, limit).await {
                        Err(Error::Decode(misfit)) => range.stop_before(link, decoder, misfit),
                        result => result?,
                    }
                }
                self.settle(decoder, ask)?;
                Ok(Pulled::Some)
            }
            Phase::Follow(_) => self.pull_new(link, decoder, ask).await,
            Phase::Ended => Ok(Pulled::Ended),
        }
    }

    /// Makes rows of what has come of the backlog, once there are enough.
    fn settle(&mut self, decoder: &Decoder, ask: Ask) -> Result<()> {
        let Phase::Backlog(range, after) = &mut self.phase else {
            return Ok(());
        };
        if range.is_finished() || range.rows() >= ask.wanted {
            for mut chunk in range.take_rows() {
                chunk.name_columns(decoder.names());
                self.rows.push(chunk);
            }
        }
        if !range.is_finished() {
            return Ok(());
        }
        let (misfit, after) = (range.take_misfit(), *after);
        self.phase = match &misfit {
            Some(misfit) => Phase::Begin(Start::At(misfit.entry_id)),
            None => self.follow(after),
        };
        misfit.map_or(Ok(()), |misfit| Err(Error::Decode(misfit)))
    }
}

impl Tail {
    async fn pull_new(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        let Phase::Follow(follow) = &mut self.phase else {
            return Ok(Pulled::Ended);
        };
        let Some(end) = self.end.filter(|&end| follow.after < end) else {
            self.rows(decoder);
            self.phase = Phase::Ended;
            return Ok(Pulled::Ended);
        };
        if follow.request.is_none() && ask.block().is_some() {
            // Who waits comes to everything, be it later.
            link.turn_back();
        }
        let connection = link.ready().await?;
        let request = match &mut follow.request {
            Some(request) => request,
            none => {
                let count = ask
                    .limit
                    .map_or(follow.most, |limit| limit.min(follow.most));
                let block = ask.block();
                let next = follow.after.next().unwrap_or(EntryId::MAX);
                let range = IdRange::new(next, EntryId::MAX).unwrap_or(IdRange::ALL);
                // Who does not wait needs no right but that to XRANGE.
                let (cmd, shape) = match block {
                    None => (command::xrange(&self.stream, range, count), Shape::Entries),
                    Some(_) => (
                        command::xread(&self.stream, follow.after, count, block),
                        Shape::OneStream,
                    ),
                };
                connection.queue(&cmd);
                expect(connection, decoder, shape, range, count);
                decoder.stop_after(end);
                none.insert(Request::new(count, block))
            }
        };
        connection.flush().await?;
        let entries = receive(connection, request.due(), decoder, &mut follow.rows)
            .await
            .map_err(|failure| failure.of(&self.stream, connection))?;
        link.succeeded();
        follow.is_caught_up = entries < request.count;
        follow.most = (follow.most * 2).min(READ_AHEAD);
        let was_waited = request.block.is_some();
        follow.request = None;
        if let Some(ids) = decoder.ids() {
            follow.after = ids.end();
        }
        if entries == 0 {
            // The stream may have gone ahead to where a replica does not look.
            let is_doubtful = !was_waited && self.row_count() == 0 && link.is_at_replica();
            if is_doubtful || end < EntryId::MAX {
                // The end may have been passed by an entry that is gone.
                self.look_again(decoder);
            }
            if is_doubtful {
                self.open(link).await?;
            }
            return Ok(match self.phase {
                Phase::Backlog(..) => Pulled::Some,
                _ => Pulled::Nothing,
            });
        }
        if !follow.is_caught_up && ask.limit.is_none() {
            // More is there: that is read ahead in large windows.
            self.look_again(decoder);
        }
        Ok(Pulled::Some)
    }

    /// Finds out anew what is there after what was read.
    fn look_again(&mut self, decoder: &Decoder) {
        if let Phase::Follow(follow) = &self.phase {
            let next = follow.after.next();
            self.rows(decoder);
            self.phase = next.map_or(Phase::Ended, |next| Phase::Begin(Start::At(next)));
        }
    }

    /// The server has not done what was asked: it will be asked for again.
    pub fn refused(&mut self, link: &mut Link, decoder: &mut Decoder) {
        match &mut self.phase {
            Phase::Backlog(range, _) => range.refused(link, decoder),
            Phase::Follow(follow) => {
                if follow.request.take().is_some() {
                    decoder.abandon(&mut follow.rows);
                }
            }
            Phase::Begin(_) | Phase::Ended => {}
        }
    }

    /// What was under way failed, or nobody waits for it any more: it will be
    /// asked for again, without what was decoded whole.
    pub fn lost(&mut self, link: &mut Link, decoder: &mut Decoder) {
        match &mut self.phase {
            Phase::Backlog(range, _) => range.lost(link, decoder),
            Phase::Follow(follow) => {
                if follow.request.take().is_some() {
                    decoder.abandon(&mut follow.rows);
                    if let Some(ids) = decoder.ids() {
                        follow.after = ids.end();
                        link.succeeded();
                    } else {
                        // It may have been too much for the server.
                        follow.most = (follow.most / 4).max(1);
                    }
                    follow.is_caught_up = false;
                }
            }
            Phase::Begin(_) | Phase::Ended => {}
        }
    }
}
