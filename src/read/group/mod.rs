//! Reads as a consumer of a group: what this consumer left unacknowledged, what
//! others left, then what is new.
//!
//! Whatever the server assigns to this consumer is handed over, or stays
//! pending: a reply that was lost is asked for again, as pending entries.
//!
//! - [`claims`]: taking entries off the pending entries list, one by one.
//! - [`dead_letters`]: what becomes of those that nobody can process.
//! - [`several`]: the groups of several streams, by one command for all of them.

mod claims;
mod dead_letters;
mod several;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use claims::{Origin, Pending, Suspects};
pub(super) use several::Groups;

use super::batch::Part;
use super::extent::extent;
use super::link::Link;
use super::note::Level;
use super::source::{Ask, Pulled, Request, Rows};
use super::{expect, receive};
use crate::command::{self, Consumer};
use crate::decode::{ChunkBuilder, Decoder, Plan, Shape};
use crate::entry_id::{EntryId, IdRange};
use crate::error::{Error, Result};

/// Entries of one command, where a batch has more.
const PAGE: usize = 1000;

/// What to read as which consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupQuery {
    pub consumer: Consumer,
    pub mode: Mode,
    /// Whether the group, and the stream, are made where they are missing.
    pub create_group: bool,
    /// Entries of other consumers that are idle for so long are taken over.
    pub claim_idle: Option<Duration>,
    /// Whether entries are acknowledged before they are handed over.
    pub auto_ack: bool,
    /// Where entries go that were delivered too often.
    pub dead_letter: Option<DeadLetter>,
}

/// Which entries a group read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// This consumer's own pending entries, then stale ones of others, then new
    /// ones, and so on for as long as one likes.
    Consume,
    /// Stale entries of any consumer, then the new ones that are there.
    Once,
    /// This consumer's own pending entries after an ID, and no others.
    Pending(EntryId),
}

/// What becomes of an entry that nobody can process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// How often an entry is delivered before it goes there.
    pub max_deliveries: u64,
    /// Key of the stream that it goes to.
    pub stream: String,
}

/// A consumer at work.
#[derive(Debug)]
pub(super) struct Group {
    query: GroupQuery,
    key: Arc<str>,
    scope: Scope,
    plan: Arc<Plan>,
    phase: Phase,
    /// Pending entries to take next, before anything else.
    claims: VecDeque<Pending>,
    /// The one that is being moved to the dead letters.
    burying: Option<EntryId>,
    /// What the server may have assigned in a reply that was lost.
    suspects: Option<(Suspects, Origin)>,
    /// Own pending entries after this one were assigned in such a reply.
    unseen_after: Option<EntryId>,
    request: Option<(Kind, Request)>,
    /// Entries that are asked for at once.
    page: usize,
    builder: ChunkBuilder,
    rows: Rows,
    /// The last entry that is known to have been delivered: what is new, and
    /// what a lost reply assigned, comes after it.
    newest: EntryId,
    /// The last entry there was when a one-shot read began.
    until: Option<EntryId>,
    next_sweep: Option<Instant>,
    is_caught_up: bool,
    /// Whether the group was there: if it is missing now, it has vanished.
    had_group: bool,
    deleted: Vec<EntryId>,
    unconfirmed: Vec<EntryId>,
    claimed: u64,
}

/// What a group is asked for by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// All its entries.
    Everything,
    /// Entries that are taken off the pending entries list one by one; the rest is
    /// read together with that of others.
    OneByOne,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    /// Own pending entries after this ID.
    Own(EntryId),
    /// Stale entries from this ID on.
    Sweep(EntryId),
    /// What is new.
    New,
    Ended,
}

#[derive(Debug)]
enum Kind {
    Own,
    Claim(Vec<Pending>),
    New,
}

impl Group {
    pub fn new(query: GroupQuery, plan: Arc<Plan>) -> Self {
        let sweeps = query.claim_idle.is_some() && !matches!(query.mode, Mode::Pending(_));
        let key: Arc<str> = query.consumer.stream.as_str().into();
        let mut builder = ChunkBuilder::with_room(&plan, 0);
        builder.begin_stream(&key);
        Self {
            key,
            scope: Scope::Everything,
            phase: match query.mode {
                Mode::Consume => Phase::Own(EntryId::MIN),
                Mode::Once => Phase::New,
                Mode::Pending(after) => Phase::Own(after),
            },
            claims: VecDeque::new(),
            burying: None,
            suspects: None,
            unseen_after: None,
            request: None,
            page: PAGE,
            builder,
            rows: Rows::default(),
            newest: EntryId::MIN,
            until: None,
            next_sweep: sweeps.then(Instant::now),
            is_caught_up: false,
            had_group: false,
            deleted: Vec::new(),
            unconfirmed: Vec::new(),
            claimed: 0,
            query,
            plan,
        }
    }

    /// The group's name.
    pub fn group_name(&self) -> &str {
        &self.query.consumer.group
    }

    pub fn rows(&mut self, _: &Decoder) -> &mut Rows {
        &mut self.rows
    }

    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    pub fn builds_nothing(&self) -> bool {
        self.request.is_none()
    }

    pub fn is_in_reply(&self) -> bool {
        self.request.is_some()
    }

    pub fn is_waiting(&self) -> bool {
        self.request.is_some()
    }

    pub fn is_caught_up(&self) -> bool {
        self.is_caught_up
    }

    pub fn acknowledges(&self) -> bool {
        self.query.auto_ack
    }

    pub fn acknowledge_later(&mut self, parts: &[Part]) {
        for part in parts {
            self.unconfirmed.extend_from_slice(&part.ids);
        }
    }

    /// Entries that were found deleted since this was last asked, if there are any.
    pub fn take_deleted(&mut self) -> Option<(Arc<str>, Vec<EntryId>)> {
        let deleted = std::mem::take(&mut self.deleted);
        (!deleted.is_empty()).then(|| (self.key.clone(), deleted))
    }

    pub fn claimed(&self) -> u64 {
        self.claimed
    }

    /// Connects; whether the group is there shows when it is read.
    pub async fn open(&mut self, link: &mut Link) -> Result<()> {
        link.ready().await.map(|_| ())
    }

    /// `XACK`. An answer that does not come is an error; to ask again does no
    /// harm.
    async fn acknowledge(&mut self, link: &mut Link, ids: &[EntryId]) -> Result<()> {
        let Consumer { stream, group, .. } = &self.query.consumer;
        for piece in ids.chunks(PAGE) {
            link.query(&command::xack(stream, group, piece), stream)
                .await?;
        }
        Ok(())
    }

    /// `XACK` of a batch.
    pub async fn acknowledge_batch(&mut self, link: &mut Link, parts: &[Part]) -> Result<()> {
        for part in parts {
            self.acknowledge(link, &part.ids).await?;
        }
        Ok(())
    }

    pub fn owes_acknowledgement(&self) -> bool {
        !self.unconfirmed.is_empty()
    }

    pub fn forget_acknowledgement(&mut self) {
        self.unconfirmed.clear();
    }

    /// Acknowledges what could not be before.
    pub async fn pay_acknowledgement(&mut self, link: &mut Link) -> Result<()> {
        if self.owes_acknowledgement() {
            let ids = self.unconfirmed.clone();
            self.acknowledge(link, &ids).await?;
            self.unconfirmed.clear();
        }
        Ok(())
    }

    /// Takes one step.
    pub async fn pull(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        match self.step(link, decoder, ask).await {
            Err(error) if error.is_no_group() => {
                self.lost(link, decoder);
                self.make_group(link, error).await?;
                Ok(Pulled::Some)
            }
            Err(Error::Decode(misfit)) if self.counts_deliveries() => {
                // What came with it was not delivered because of it.
                self.lost_as(Origin::Own, link, decoder);
                link.disconnect();
                self.uncount_after(link, misfit.entry_id).await;
                Err(Error::Decode(misfit))
            }
            result => result,
        }
    }

    async fn step(&mut self, link: &mut Link, decoder: &mut Decoder, ask: Ask) -> Result<Pulled> {
        if self.request.is_some() {
            return self.receive(link, decoder).await;
        }
        self.pay_acknowledgement(link).await?;
        if self.suspects.is_some() {
            match self.find_suspects(link).await {
                Err(Error::Response { reply, .. }) if is_refusal(&reply) => {
                    // Who may not look them up reads all that is its own.
                    self.suspects = None;
                    self.phase = Phase::Own(self.newest);
                }
                result => result?,
            }
        }
        if !self.claims.is_empty() {
            return self.take_claims(link, decoder, ask).await;
        }
        if self.scope == Scope::OneByOne {
            return Ok(Pulled::Some);
        }
        match self.phase {
            Phase::Own(after) => self.read_own(link, decoder, ask, after).await,
            Phase::Sweep(from) => self.sweep(link, from).await,
            Phase::New => self.read_new(link, decoder, ask).await,
            Phase::Ended => Ok(Pulled::Ended),
        }
    }

    /// Own pending entries, by `XREADGROUP`; where it matters how often they
    /// were delivered, by `XPENDING` and `XCLAIM`.
    async fn read_own(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
        after: EntryId,
    ) -> Result<Pulled> {
        let Some(range) = after_id(after) else {
            self.end_own();
            return Ok(Pulled::Some);
        };
        let count = ask.wanted.min(self.page);
        if !self.counts_deliveries() {
            let cmd = self.query.consumer.read_pending(count, after);
            let connection = link.ready().await?;
            connection.queue(&cmd);
            expect(connection, decoder, Shape::OneStream, range, count);
            self.request = Some((Kind::Own, Request::new(count, None)));
            return self.receive(link, decoder).await;
        }
        let cmd = self.query.consumer.pending_own(range, count);
        let found = self.pending(link, &cmd).await?;
        self.found_own(found);
        Ok(Pulled::Some)
    }

    /// These own pending entries are next, or there are none.
    fn found_own(&mut self, mut found: Vec<Pending>) {
        if let Some(after) = self.unseen_after {
            let unseen = found.iter_mut().filter(|pending| pending.id > after);
            unseen.for_each(|pending| pending.origin = Origin::Unseen);
        }
        match found.last().map(|pending| pending.id) {
            Some(last) => self.passed_own(last),
            None => self.end_own(),
        }
        self.claims = found.into();
    }

    /// Own pending entries have been read up to this one.
    fn passed_own(&mut self, last: EntryId) {
        self.phase = Phase::Own(last);
        self.newest = self.newest.max(last);
    }

    /// There are no more of them.
    fn end_own(&mut self) {
        self.unseen_after = None;
        self.phase = match self.query.mode {
            Mode::Pending(_) => Phase::Ended,
            Mode::Consume | Mode::Once => Phase::New,
        };
    }

    fn counts_deliveries(&self) -> bool {
        self.query.dead_letter.is_some() || self.plan.ids().deliveries.is_some()
    }

    /// New entries, by `XREADGROUP`.
    async fn read_new(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        let now = Instant::now();
        if self.next_sweep.is_some_and(|due| due <= now) {
            self.phase = Phase::Sweep(EntryId::MIN);
            return Ok(Pulled::Some);
        }
        if self.query.mode == Mode::Once && ask.limit.is_none() {
            if self.until.is_none() {
                let stream = &self.query.consumer.stream;
                let extent = extent(link.ready().await?, stream).await;
                // Who may not know it reads until there is nothing.
                let last = known(extent)?.map(|extent| extent.passed);
                // Where there never was an entry, any is welcome.
                self.until = last
                    .filter(|&last| last > EntryId::MIN)
                    .or(Some(EntryId::MAX));
            }
            if self.until.is_some_and(|until| self.newest >= until) {
                return Ok(Pulled::Ended);
            }
        }
        let count = ask.wanted.min(self.page);
        // Stale entries are looked for in time.
        let wait = self
            .next_sweep
            .map_or(ask.wait, |due| ask.wait.min(due - now));
        let block = Ask { wait, ..ask }.block();
        let cmd = self.query.consumer.read_new(count, block);
        let connection = link.ready().await?;
        connection.queue(&cmd);
        expect(connection, decoder, Shape::OneStream, IdRange::ALL, count);
        self.request = Some((Kind::New, Request::new(count, block)));
        self.receive(link, decoder).await
    }

    /// Takes the reply that is due.
    async fn receive(&mut self, link: &mut Link, decoder: &mut Decoder) -> Result<Pulled> {
        let connection = link.ready().await?;
        let Some((kind, request)) = &mut self.request else {
            return Ok(Pulled::Some);
        };
        connection.flush().await?;
        let stream = &self.query.consumer.stream;
        let received = receive(connection, request.due(), decoder, &mut self.builder)
            .await
            .map_err(|failure| failure.of(stream, connection));
        let entries = match received {
            // What one may not claim stays with others.
            Err(Error::Response { reply, .. })
                if is_refusal(&reply) && matches!(kind, Kind::Claim(_)) =>
            {
                self.request = None;
                self.never_sweep(link, &reply);
                return Ok(Pulled::Some);
            }
            result => result?,
        };
        link.succeeded();
        self.page = (self.page * 2).min(PAGE);
        self.had_group = true;
        let Some((kind, request)) = self.request.take() else {
            return Ok(Pulled::Some);
        };
        self.is_caught_up = matches!(kind, Kind::New) && entries < request.count;
        let is_nothing = matches!(kind, Kind::New) && entries == 0;
        if entries == 0 && matches!(kind, Kind::Own) {
            self.end_own();
        }
        if let Kind::Claim(taken) = &kind {
            self.note_deleted(taken, decoder.nulls());
        }
        self.collect(kind, decoder);
        Ok(match is_nothing {
            true => Pulled::Nothing,
            false => Pulled::Some,
        })
    }

    /// Before Redis 7, `XCLAIM` takes entries over that were deleted, and shows a
    /// null for each. If all that are missing are, it is known which.
    fn note_deleted(&mut self, taken: &[Pending], nulls: usize) {
        let came: HashSet<EntryId> = self.builder.entry_ids().iter().copied().collect();
        let ids = taken.iter().map(|pending| pending.id);
        let missing: Vec<EntryId> = ids.filter(|id| !came.contains(id)).collect();
        if nulls > 0 && missing.len() == nulls {
            self.deleted.extend(missing);
        }
    }

    /// Makes rows of what was decoded of a reply; what was claimed and is not
    /// among it.
    fn collect(&mut self, kind: Kind, decoder: &mut Decoder) -> Vec<Pending> {
        self.deleted.extend_from_slice(decoder.deleted());
        let last = decoder.ids().map(IdRange::end);
        // The next reply will be about as large, most likely.
        let mut fresh = ChunkBuilder::with_room(&self.plan, self.builder.rows());
        fresh.make_room_like(&self.builder);
        fresh.begin_stream(&self.key);
        let mut chunk = std::mem::replace(&mut self.builder, fresh).finish();
        let mut missing = Vec::new();
        match kind {
            Kind::Own => last.into_iter().for_each(|last| self.passed_own(last)),
            Kind::New => self.newest = last.unwrap_or(self.newest),
            Kind::Claim(taken) => {
                // What is new comes after whatever was delivered to anybody.
                self.newest = last.map_or(self.newest, |last| self.newest.max(last));
                if taken.first().is_some_and(|first| self.is_others(first)) {
                    self.claimed += chunk.rows() as u64;
                }
                if self.plan.ids().deliveries.is_some() {
                    let delivered = taken.iter().map(|p| (p.id, p.delivered()));
                    let delivered: HashMap<_, _> = delivered.collect();
                    chunk.set_deliveries(|id| delivered.get(&id).map_or(1, |before| before + 1));
                }
                missing = taken;
                missing.retain(|pending| last.is_none_or(|last| pending.id > last));
            }
        }
        if chunk.rows() > 0 {
            chunk.name_columns(decoder.names());
            self.rows.push(chunk);
        }
        missing
    }

    /// The server has not done what was asked: it will be asked for again.
    pub fn refused(&mut self, link: &mut Link, decoder: &mut Decoder) {
        if self.burying.is_some() {
            // That was more than one command.
            return self.lost(link, decoder);
        }
        let Some((kind, _)) = self.request.take() else {
            return;
        };
        decoder.abandon(&mut self.builder);
        if let Kind::Claim(taken) = kind {
            let taken = taken.into_iter().rev();
            taken.for_each(|pending| self.claims.push_front(pending));
        }
    }

    /// What was under way failed, or nobody waits for it any more. The server
    /// may have assigned entries that never came.
    pub fn lost(&mut self, link: &mut Link, decoder: &mut Decoder) {
        if let Some(id) = self.burying.take() {
            let dead = self.claims.pop_front().filter(|dead| dead.id == id);
            self.suspects = Some((Suspects::These(dead.into_iter().collect()), Origin::Own));
        }
        self.lost_as(Origin::Unseen, link, decoder);
    }

    /// Gives up the reply that is due; what it assigned is of this origin then.
    fn lost_as(&mut self, origin: Origin, link: &mut Link, decoder: &mut Decoder) {
        let Some((kind, request)) = self.request.take() else {
            return;
        };
        decoder.abandon(&mut self.builder);
        match decoder.ids() {
            Some(_) => link.succeeded(),
            // It may have been too much for the server.
            None => self.page = (self.page.min(request.count) / 4).max(1),
        }
        let is_new = matches!(kind, Kind::New);
        let is_claim = matches!(kind, Kind::Claim(_));
        let missing = self.collect(kind, decoder);
        self.is_caught_up = false;
        if is_claim {
            self.suspects = Some((Suspects::These(missing), origin));
        }
        if is_new {
            match self.query.mode {
                // What is new comes after what this consumer ever had.
                Mode::Consume => {
                    self.phase = Phase::Own(self.newest);
                    self.unseen_after = (origin == Origin::Unseen).then_some(self.newest);
                }
                Mode::Once | Mode::Pending(_) => {
                    self.suspects = Some((Suspects::Since(request.sent), origin));
                }
            }
        }
    }

    /// Makes the group where it is missing; `error` says that it is.
    async fn make_group(&mut self, link: &mut Link, error: Error) -> Result<()> {
        if !self.query.create_group {
            return Err(without_group(error));
        }
        let consumer = &self.query.consumer;
        let made = link.query(&consumer.create_group(), &consumer.stream).await;
        let is_made = match made {
            Err(Error::Response { reply, .. }) if reply.starts_with("BUSYGROUP") => false,
            result => result.map(|_| true)?,
        };
        self.made(link, is_made);
        Ok(())
    }

    /// The group is there now; whether it was made, or somebody had made it.
    fn made(&mut self, link: &mut Link, is_made: bool) {
        let Consumer { stream, group, .. } = &self.query.consumer;
        if self.had_group && is_made {
            link.note(
                Level::Warning,
                format!(
                    "stream {stream:?}: the group {group:?} had vanished, and was made again from the \
                     stream's first entry on"
                ),
            );
        }
        self.had_group = true;
        self.claims.clear();
        self.suspects = None;
        self.unseen_after = None;
        self.newest = EntryId::MIN;
        self.phase = match self.query.mode {
            Mode::Pending(_) => Phase::Ended,
            Mode::Consume if !is_made => Phase::Own(EntryId::MIN),
            Mode::Consume | Mode::Once => Phase::New,
        };
    }
}

/// Whether the server will never do what was asked.
fn is_refusal(reply: &str) -> bool {
    matches!(reply.split(' ').next(), Some("NOPERM" | "ERR"))
}

/// What was found out, or nothing if the server refused to tell.
fn known<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Err(Error::Response { reply, .. }) if is_refusal(&reply) => Ok(None),
        found => found.map(Some),
    }
}

/// All IDs after this one.
fn after_id(id: EntryId) -> Option<IdRange> {
    IdRange::new(id.next()?, EntryId::MAX)
}

fn without_group(error: Error) -> Error {
    match error {
        Error::Response { context, reply } => Error::Response {
            context,
            reply: format!("{reply} (create_group=True makes a missing group)"),
        },
        error => error,
    }
}
