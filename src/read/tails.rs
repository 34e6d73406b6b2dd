//! Follows several streams at once, by one command for all of them.

use std::collections::HashMap;
use std::sync::Arc;

use super::culprit::name_culprit;
use super::extent::{extents, extents_along};
use super::legs::grouped;
use super::link::Link;
use super::source::{Ask, Pulled, Request, Rows};
use super::turns::{Joint, Next, Turn, TurnWait, Turns};
use super::{AT_ONCE, expect_streams, receive, several};
use crate::command;
use crate::connection::Connection;
use crate::decode::{Asked, ChunkBuilder, Decoder, Plan};
use crate::deployment::ReadFrom;
use crate::entry_id::{End, EntryId, IdRange, Start};
use crate::error::Result;

/// Entries that one reply may hold, of all streams; of many streams, so many of
/// each.
const READ_AHEAD: usize = 1000;
const READ_AHEAD_OF_EACH: usize = 4;
/// Entries that one reply may hold before their size is known.
const FIRST_READ: usize = 100;
/// Bytes that a reply should have where entries are large.
const TARGET_BYTES: u64 = 1 << 20;

/// What to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TailsQuery {
    /// Keys of the streams, each with where it begins.
    pub streams: Vec<(Arc<str>, Start)>,
    pub end: End,
    pub read_from: ReadFrom,
}

/// Reads streams from a start on, each entry once, those of a stream in order.
#[derive(Debug)]
pub(super) struct Tails {
    streams: Vec<Position>,
    /// The last ID that is wanted; `None` where none is.
    end: Option<EntryId>,
    plan: Arc<Plan>,
    turns: Turns,
    request: Option<(Turn, Request)>,
    builder: ChunkBuilder,
    rows: Rows,
    /// Entries that are asked for at once.
    most: usize,
    /// Whether it is known where to begin.
    is_open: bool,
    /// Whether the end may have been passed by entries that are gone.
    looks_again: bool,
}

/// How far a stream was read.
#[derive(Debug, Clone)]
struct Position {
    key: Arc<str>,
    after: After,
    /// The ID as commands have it: of many streams, few change from one to the next.
    text: String,
}

impl Position {
    fn new(key: Arc<str>, after: After) -> Self {
        let text = after.id().to_string();
        Self { key, after, text }
    }

    fn go_on_after(&mut self, after: After) {
        self.after = after;
        self.text = after.id().to_string();
    }

    fn is_wanted(&self) -> bool {
        !matches!(self.after, After::Ended)
    }
}

#[derive(Debug, Clone, Copy)]
enum After {
    /// What was last when the read began, which is not known yet.
    Last,
    Id(EntryId),
    /// Nothing that can come is wanted.
    Ended,
}

impl After {
    fn start(start: Start) -> Self {
        match start {
            Start::At(id) => Self::Id(id.previous().unwrap_or(EntryId::MIN)),
            Start::AfterLast => Self::Last,
            Start::Never => Self::Ended,
        }
    }

    /// The same, where nothing after `end` is wanted.
    fn within(self, end: Option<EntryId>) -> Self {
        match self {
            Self::Id(after) if end.is_none_or(|end| after >= end) => Self::Ended,
            after => after,
        }
    }

    fn id(self) -> EntryId {
        match self {
            Self::Id(id) => id,
            Self::Last | Self::Ended => EntryId::MAX,
        }
    }
}

impl Tails {
    pub fn new(query: TailsQuery, plan: Arc<Plan>) -> Self {
        let end = match query.end {
            End::At(end) => Some(end),
            End::Never => None,
        };
        let position = |(key, start)| Position::new(key, After::start(start).within(end));
        Self::of(query.streams.into_iter().map(position).collect(), end, plan)
    }

    fn of(streams: Vec<Position>, end: Option<EntryId>, plan: Arc<Plan>) -> Self {
        let mut turns = Turns::new(streams.len());
        turns.retain(|number| streams[number].is_wanted());
        Self {
            end,
            turns,
            request: None,
            builder: ChunkBuilder::with_room(&plan, 0),
            rows: Rows::default(),
            most: FIRST_READ.max(streams.len()),
            is_open: false,
            looks_again: false,
            streams,
            plan,
        }
    }

    /// The same in parts, by what the keys of the streams have in common, each with
    /// the key of one of them; none where that is the same of all. No reply may be due.
    pub fn deal_out<K: Ord>(&mut self, by: impl Fn(&str) -> K) -> Vec<(Arc<str>, Self)> {
        let keys = self.streams.iter().map(|stream| &*stream.key);
        let parts = grouped(keys, by);
        if parts.is_empty() {
            return Vec::new();
        }
        let mut rows = std::mem::take(&mut self.rows);
        let parts = parts.into_iter().filter_map(|numbers| {
            let streams = numbers
                .into_iter()
                .map(|number| self.streams[number].clone());
            let mut part = Self::of(streams.collect(), self.end, self.plan.clone());
            part.rows = std::mem::take(&mut rows);
            Some((part.streams.first()?.key.clone(), part))
        });
        parts.collect()
    }

    pub fn rows(&mut self, decoder: &Decoder) -> &mut Rows {
        if self.request.is_none() && self.builder.rows() > 0 {
            let fresh = ChunkBuilder::with_room(&self.plan, 0);
            let mut chunk = std::mem::replace(&mut self.builder, fresh).finish();
            chunk.name_columns(decoder.names());
            self.rows.push(chunk);
        }
        &mut self.rows
    }

    pub fn row_count(&self) -> usize {
        self.rows.len() + self.builder.rows()
    }

    pub fn builds_nothing(&self) -> bool {
        self.builder.rows() == 0 && self.request.is_none()
    }

    pub fn is_in_reply(&self) -> bool {
        self.request.is_some()
    }

    /// Whether replies are due.
    pub fn is_waiting(&self) -> bool {
        self.request.is_some()
    }

    pub fn is_caught_up(&self) -> bool {
        self.turns.is_caught_up()
    }

    /// Connects, and finds out where to begin where that is not known.
    pub async fn open(&mut self, link: &mut Link) -> Result<()> {
        link.ready().await?;
        if self.is_open {
            return Ok(());
        }
        let unknown = |(number, stream): (usize, &Position)| {
            matches!(stream.after, After::Last).then_some(number)
        };
        let unknown: Vec<usize> = self
            .streams
            .iter()
            .enumerate()
            .filter_map(unknown)
            .collect();
        self.pass(link, &unknown).await?;
        self.is_open = true;
        Ok(())
    }

    /// Begins streams after what was last of them; or, where they have begun,
    /// notes those whose end has been passed.
    async fn pass(&mut self, link: &mut Link, numbers: &[usize]) -> Result<()> {
        for piece in numbers.chunks(AT_ONCE) {
            let keys: Vec<&str> = piece.iter().map(|&n| &*self.streams[n].key).collect();
            let found = extents_along(link, &keys).await?;
            for (&number, extent) in piece.iter().zip(found) {
                let stream = &mut self.streams[number];
                let passed = After::Id(extent.passed);
                stream.go_on_after(match (stream.after, passed.within(self.end)) {
                    (After::Last, passed) => passed,
                    (_, After::Ended) => After::Ended,
                    (after, _) => after,
                });
            }
        }
        let streams = &self.streams;
        self.turns.retain(|number| streams[number].is_wanted());
        Ok(())
    }
}

impl Tails {
    /// Takes one step towards the rows asked for.
    pub async fn pull(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        if self.request.is_none() {
            self.open(link).await?;
            self.look_again(link).await?;
            if ask.block().is_some() {
                // Who waits comes to everything, be it later.
                link.turn_back();
            }
            if !self.send(link.ready().await?, decoder, ask) {
                return Ok(Pulled::Ended);
            }
        }
        let connection = link.ready().await?;
        let Some((_, request)) = &self.request else {
            return Ok(Pulled::Some);
        };
        let was_waited = request.block.is_some();
        connection.flush().await?;
        let before = decoder.bytes();
        let received = receive(connection, request.due(), decoder, &mut self.builder).await;
        let entries = match received {
            Ok(entries) => entries,
            Err(failure) => {
                let keys = self.streams.iter().map(|stream| &*stream.key);
                let context = several(keys.clone());
                let error = failure.of_several(context, decoder.stream(), connection);
                let of_one = |key: &str| command::xread(key, EntryId::MAX, 1, None);
                return Err(name_culprit(connection, keys, of_one, error).await);
            }
        };
        link.succeeded();
        self.adapt(entries, decoder.bytes() - before);
        self.replied(decoder, entries);
        let has_nothing = self.turns.take_silence();
        self.looks_again = has_nothing && self.end < Some(EntryId::MAX);
        if !has_nothing {
            return Ok(Pulled::Some);
        }
        let is_doubtful = !was_waited && self.row_count() == 0 && link.is_at_replica();
        Ok(match is_doubtful && self.have_left(link).await? {
            true => Pulled::Some,
            false => Pulled::Nothing,
        })
    }

    /// Whether streams that a replica of a cluster does not have are elsewhere: its
    /// master is asked from now on, then.
    async fn have_left(&mut self, link: &mut Link) -> Result<bool> {
        let left: Vec<usize> = self.turns.streams().collect();
        let mut missing: Vec<&str> = Vec::new();
        for piece in left.chunks(AT_ONCE) {
            let keys: Vec<&str> = piece.iter().map(|&n| &*self.streams[n].key).collect();
            let found = extents(link.ready().await?, &keys).await?;
            let here = keys.into_iter().zip(found);
            missing.extend(here.filter(|(_, e)| e.is_missing).map(|(key, _)| key));
        }
        if missing.is_empty() || !link.turn_to_master() {
            return Ok(false);
        }
        for piece in missing.chunks(AT_ONCE) {
            let found = extents(link.ready().await?, piece).await?;
            if found.iter().any(|extent| !extent.is_missing) {
                return Ok(true);
            }
        }
        link.turn_back();
        Ok(false)
    }

    /// Asks those whose turn it is; whether there are any.
    fn send(&mut self, connection: &mut Connection, decoder: &mut Decoder, ask: Ask) -> bool {
        let budget = ask.limit.map_or(self.most, |limit| limit.min(self.most));
        let Some(turn) = self.turns.next(budget, Joint::MayExceed) else {
            return false;
        };
        let block = ask.block().filter(|_| turn.wait == TurnWait::Fully);
        let end = self.end.unwrap_or(EntryId::MIN);
        let of_turn = turn.streams.iter().map(|&number| &self.streams[number]);
        let asked = of_turn.clone().map(|stream| (&*stream.key, &*stream.text));
        connection.queue(&command::xread_all(asked, turn.count, block));
        let expected = of_turn.map(|stream| {
            let next = stream.after.id().next().unwrap_or(EntryId::MAX);
            Asked {
                key: stream.key.clone(),
                range: IdRange::new(next, EntryId::MAX).unwrap_or(IdRange::ALL),
                end,
            }
        });
        expect_streams(connection, decoder, expected.collect(), turn.count);
        let request = Request::new(turn.count.saturating_mul(turn.streams.len()), block);
        self.request = Some((turn, request));
        true
    }

    /// Notes how far the streams were read, and gives out the next turns.
    fn replied(&mut self, decoder: &mut Decoder, entries: usize) {
        let Some((turn, _)) = self.request.take() else {
            return;
        };
        let came = self.pass_decoded(&turn, decoder);
        let streams = &self.streams;
        self.turns.replied(&turn, entries, |number| {
            let entries = came.get(&number).copied().unwrap_or_default();
            match streams[number].is_wanted() {
                false => Next::Gone,
                true if entries >= turn.count => Next::Busy,
                true => Next::Quiet,
            }
        });
    }

    /// Notes how far the streams of a turn were read; how many entries came of
    /// each.
    fn pass_decoded(&mut self, turn: &Turn, decoder: &mut Decoder) -> HashMap<usize, usize> {
        let mut entries = HashMap::new();
        for came in decoder.came() {
            let Some(&number) = turn.streams.get(came.at) else {
                continue;
            };
            entries.insert(number, came.entries);
            if let Some(last) = came.last {
                self.streams[number].go_on_after(After::Id(last).within(self.end));
            }
        }
        entries
    }

    /// More or fewer entries at once, by how large they are.
    fn adapt(&mut self, entries: usize, bytes: u64) {
        if entries == 0 {
            return;
        }
        let most = READ_AHEAD.max(READ_AHEAD_OF_EACH * self.streams.len());
        let fitting = TARGET_BYTES * entries as u64 / bytes.max(1);
        let fitting = usize::try_from(fitting).unwrap_or(usize::MAX);
        self.most = (self.most * 2).min(fitting).clamp(1, most);
    }

    /// Leaves out streams whose end has been passed by entries that are gone.
    async fn look_again(&mut self, link: &mut Link) -> Result<()> {
        if self.looks_again {
            let left: Vec<usize> = self.turns.streams().collect();
            self.pass(link, &left).await?;
            self.looks_again = false;
        }
        Ok(())
    }

    /// The server has not done what was asked: it will be asked for again.
    pub fn refused(&mut self, _: &mut Link, decoder: &mut Decoder) {
        if let Some((turn, _)) = self.request.take() {
            decoder.abandon(&mut self.builder);
            self.turns.put_back(turn);
        }
    }

    /// What was under way failed, or nobody waits for it any more: it will be
    /// asked for again, without what was decoded whole.
    pub fn lost(&mut self, link: &mut Link, decoder: &mut Decoder) {
        let Some((turn, _)) = self.request.take() else {
            return;
        };
        decoder.abandon(&mut self.builder);
        let broke_at = decoder.came().last().map(|came| came.at);
        let broke_at = broke_at.and_then(|at| turn.streams.get(at).copied());
        self.pass_decoded(&turn, decoder);
        match decoder.came().iter().any(|came| came.last.is_some()) {
            true => link.succeeded(),
            // It may have been too much for the server.
            false => self.most = (self.most / 4).max(1),
        }
        self.turns.lost(turn, broke_at);
    }
}
