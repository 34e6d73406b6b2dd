//! Reads as a consumer of a group: what this consumer left unacknowledged, what
//! others left, then what is new.
//!
//! Whatever the server assigns to this consumer is handed over, or stays
//! pending: a reply that was lost is asked for again, as pending entries.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value};

use super::extent::extent;
use super::link::{Level, Link};
use super::receive;
use super::source::{Ask, Pulled, Request, Rows};
use crate::command::{self, Consumer};
use crate::decode::{ChunkBuilder, Decoder, Plan, Shape};
use crate::entry_id::{EntryId, IdRange};
use crate::error::{Error, Result};

/// Entries of one command, where a batch has more.
const PAGE: usize = 1000;
/// How often stale entries are looked for, at the most and at the least.
const MIN_SWEEP_PAUSE: Duration = Duration::from_millis(100);
const MAX_SWEEP_PAUSE: Duration = Duration::from_secs(30);
/// A sweep takes this part of the server's time at the most.
const SWEEP_SHARE: u32 = 100;

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
    plan: Arc<Plan>,
    phase: Phase,
    /// Pending entries to take next, before anything else.
    claims: VecDeque<Pending>,
    /// The one that is being moved to the dead letters.
    burying: Option<EntryId>,
    /// What the server may have assigned in a reply that was lost.
    suspects: Option<Suspects>,
    request: Option<(Kind, Request)>,
    builder: ChunkBuilder,
    rows: Rows,
    /// The last new entry that this consumer was given.
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

/// An entry of the pending entries list.
#[derive(Debug, Clone)]
struct Pending {
    id: EntryId,
    consumer: Vec<u8>,
    idle: Duration,
    deliveries: i64,
    /// It is taken only if it has been idle for so long; own ones at once.
    min_idle: Duration,
}

/// Entries that may be this consumer's though it never saw them.
#[derive(Debug)]
enum Suspects {
    These(Vec<EntryId>),
    /// Whatever was delivered since then.
    Since(Instant),
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
        Self {
            phase: match query.mode {
                Mode::Consume => Phase::Own(EntryId::MIN),
                Mode::Once => Phase::New,
                Mode::Pending(after) => Phase::Own(after),
            },
            claims: VecDeque::new(),
            burying: None,
            suspects: None,
            request: None,
            builder: ChunkBuilder::with_room(&plan, 0),
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

    pub fn rows(&mut self) -> &mut Rows {
        &mut self.rows
    }

    pub fn row_count(&self) -> usize {
        self.rows.len()
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

    pub fn acknowledge_later(&mut self, ids: &[EntryId]) {
        self.unconfirmed.extend_from_slice(ids);
    }

    pub fn take_deleted(&mut self) -> Vec<EntryId> {
        std::mem::take(&mut self.deleted)
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
    pub async fn acknowledge(&mut self, link: &mut Link, ids: &[EntryId]) -> Result<()> {
        let Consumer { stream, group, .. } = &self.query.consumer;
        for piece in ids.chunks(PAGE) {
            link.query(&command::xack(stream, group, piece), stream)
                .await?;
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
                self.lost(decoder);
                self.make_group(link, error).await?;
                Ok(Pulled::Some(0))
            }
            result => result,
        }
    }

    async fn step(&mut self, link: &mut Link, decoder: &mut Decoder, ask: Ask) -> Result<Pulled> {
        if self.request.is_some() {
            return self.receive(link, decoder).await;
        }
        if !self.unconfirmed.is_empty() {
            let ids = self.unconfirmed.clone();
            self.acknowledge(link, &ids).await?;
            self.unconfirmed.clear();
        }
        if self.suspects.is_some() {
            self.find_suspects(link).await?;
        }
        if !self.claims.is_empty() {
            return self.take_claims(link, decoder, ask).await;
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
            self.phase = self.after_own();
            return Ok(Pulled::Some(0));
        };
        let count = ask.wanted.min(PAGE);
        if !self.counts_deliveries() {
            let cmd = self.query.consumer.read_pending(count, after);
            let connection = link.ready().await?;
            connection.queue(&cmd);
            decoder.begin_reply(Shape::OneStream, range);
            self.request = Some((Kind::Own, Request::new(count, None)));
            return self.receive(link, decoder).await;
        }
        let cmd = self.query.consumer.pending_own(range, count);
        let found = self.pending(link, &cmd).await?;
        match found.last().map(|pending| pending.id) {
            Some(last) => self.passed_own(last),
            None => self.phase = self.after_own(),
        }
        self.claims = found.into();
        Ok(Pulled::Some(0))
    }

    /// Own pending entries have been read up to this one.
    fn passed_own(&mut self, last: EntryId) {
        self.phase = Phase::Own(last);
        self.newest = self.newest.max(last);
    }

    fn after_own(&self) -> Phase {
        match self.query.mode {
            Mode::Pending(_) => Phase::Ended,
            Mode::Consume | Mode::Once => Phase::New,
        }
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
            return Ok(Pulled::Some(0));
        }
        if self.query.mode == Mode::Once && ask.limit.is_none() {
            if self.until.is_none() {
                let stream = &self.query.consumer.stream;
                let extent = extent(link.ready().await?, stream).await;
                // Who may not know it reads until there is nothing.
                let last = known(extent)?.flatten().map(|extent| extent.last);
                self.until = Some(last.unwrap_or(EntryId::MAX));
            }
            if self.until.is_some_and(|until| self.newest >= until) {
                return Ok(Pulled::Ended);
            }
        }
        let count = ask.wanted.min(PAGE);
        // Stale entries are looked for in time.
        let wait = self
            .next_sweep
            .map_or(ask.wait, |due| ask.wait.min(due - now));
        let block = Ask { wait, ..ask }.block();
        let cmd = self.query.consumer.read_new(count, block);
        let connection = link.ready().await?;
        connection.queue(&cmd);
        decoder.begin_reply(Shape::OneStream, IdRange::ALL);
        self.request = Some((Kind::New, Request::new(count, block)));
        self.receive(link, decoder).await
    }

    /// Looks for entries that other consumers have not acknowledged for too
    /// long, by `XPENDING`.
    ///
    /// `XAUTOCLAIM` would take over this consumer's own too, those that are
    /// being processed right now, and does not tell one from the other.
    async fn sweep(&mut self, link: &mut Link, from: EntryId) -> Result<Pulled> {
        let (Some(idle), Some(range)) = (self.query.claim_idle, IdRange::new(from, EntryId::MAX))
        else {
            self.phase = Phase::New;
            return Ok(Pulled::Some(0));
        };
        let begun = Instant::now();
        let cmd = self.query.consumer.pending_idle(idle, range, PAGE);
        let found = match self.pending(link, &cmd).await {
            Err(Error::Response { reply, .. }) if is_refusal(&reply) => {
                self.never_sweep(link, &reply);
                return Ok(Pulled::Some(0));
            }
            result => result?,
        };
        let next = match found.last() {
            Some(last) if found.len() == PAGE => last.id.next(),
            _ => None,
        };
        self.phase = next.map_or(Phase::New, Phase::Sweep);
        if next.is_none() {
            self.next_sweep = self.pause_after_sweep(idle, begun.elapsed());
        }
        let is_own = |pending: &Pending| pending.consumer == self.query.consumer.name.as_bytes();
        let takes_own = self.query.mode == Mode::Once;
        let stale = found.into_iter();
        let stale = stale.filter(|pending| takes_own || !is_own(pending));
        let min_idle = idle;
        self.claims = stale.map(|p| Pending { min_idle, ..p }).collect();
        Ok(Pulled::Some(0))
    }

    fn pause_after_sweep(&self, idle: Duration, took: Duration) -> Option<Instant> {
        match self.query.mode {
            Mode::Consume => {
                let pause = (idle / 4).clamp(MIN_SWEEP_PAUSE, MAX_SWEEP_PAUSE);
                Some(Instant::now() + pause.max(took * SWEEP_SHARE))
            }
            Mode::Once | Mode::Pending(_) => None,
        }
    }

    fn never_sweep(&mut self, link: &mut Link, reply: &str) {
        let Consumer { stream, group, .. } = &self.query.consumer;
        link.note(
            Level::Warning,
            format!(
                "stream {stream:?}, group {group:?}: entries of other consumers are not \
                 claimed, which takes XPENDING with IDLE (Redis 6.2) and XCLAIM: {}",
                link.address().redact(reply)
            ),
        );
        self.next_sweep = None;
        self.claims.clear();
        self.phase = Phase::New;
    }

    /// Takes entries that are pending, by `XCLAIM`; those that were delivered
    /// too often go to the dead letters.
    async fn take_claims(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        if let Some(first) = self.claims.front()
            && self.is_dead(first)
        {
            let dead = first.clone();
            self.bury(link, &dead).await?;
            self.claims.pop_front();
            return Ok(Pulled::Some(0));
        }
        let connection = link.ready().await?;
        let taken = self.next_claims(ask.wanted.min(PAGE));
        let ids: Vec<EntryId> = taken.iter().map(|pending| pending.id).collect();
        let min_idle = taken.first().map_or(Duration::ZERO, |first| first.min_idle);
        connection.queue(&self.query.consumer.claim(min_idle, &ids));
        decoder.begin_reply(Shape::Entries, IdRange::ALL);
        self.request = Some((Kind::Claim(taken), Request::new(ids.len(), None)));
        self.receive(link, decoder).await
    }

    /// The next few that one command can take.
    fn next_claims(&mut self, most: usize) -> Vec<Pending> {
        let mut taken: Vec<Pending> = Vec::new();
        while taken.len() < most
            && let Some(next) = self.claims.front()
            && !self.is_dead(next)
            && taken
                .first()
                .is_none_or(|first| first.min_idle == next.min_idle)
        {
            taken.extend(self.claims.pop_front());
        }
        taken
    }

    /// Whether an entry has been delivered too often to be so again.
    fn is_dead(&self, pending: &Pending) -> bool {
        let max = self
            .query
            .dead_letter
            .as_ref()
            .map(|dead| dead.max_deliveries);
        max.is_some_and(|max| u64::try_from(pending.deliveries).unwrap_or(0) >= max)
    }

    /// Takes the reply that is due.
    async fn receive(&mut self, link: &mut Link, decoder: &mut Decoder) -> Result<Pulled> {
        let connection = link.ready().await?;
        let Some((kind, request)) = &mut self.request else {
            return Ok(Pulled::Some(0));
        };
        connection.flush().await?;
        let stream = &self.query.consumer.stream;
        let received = receive(
            connection,
            request.due(),
            decoder,
            &mut self.builder,
            &mut request.bytes,
        )
        .await
        .map_err(|failure| failure.of(stream, connection));
        let entries = match received {
            // What one may not claim stays with others.
            Err(Error::Response { reply, .. })
                if is_refusal(&reply) && matches!(kind, Kind::Claim(_)) =>
            {
                self.request = None;
                self.never_sweep(link, &reply);
                return Ok(Pulled::Some(0));
            }
            result => result?,
        };
        link.succeeded();
        self.had_group = true;
        let Some((kind, request)) = self.request.take() else {
            return Ok(Pulled::Some(0));
        };
        self.is_caught_up = matches!(kind, Kind::New) && entries < request.count;
        let is_nothing = matches!(kind, Kind::New) && entries == 0;
        if entries == 0 && matches!(kind, Kind::Own) {
            self.phase = self.after_own();
        }
        self.collect(kind, decoder);
        Ok(match is_nothing {
            true => Pulled::Nothing,
            false => Pulled::Some(request.bytes),
        })
    }

    /// Makes rows of what was decoded of a reply; what was claimed and is not
    /// among it.
    fn collect(&mut self, kind: Kind, decoder: &mut Decoder) -> Vec<EntryId> {
        self.deleted.extend_from_slice(decoder.deleted());
        let last = decoder.ids().map(IdRange::end);
        let fresh = ChunkBuilder::with_room(&self.plan, 0);
        let mut chunk = std::mem::replace(&mut self.builder, fresh).finish();
        let mut missing = Vec::new();
        match kind {
            Kind::Own => last.into_iter().for_each(|last| self.passed_own(last)),
            Kind::New => self.newest = last.unwrap_or(self.newest),
            Kind::Claim(taken) => {
                if taken
                    .first()
                    .is_some_and(|first| first.min_idle > Duration::ZERO)
                {
                    self.claimed += chunk.rows() as u64;
                }
                let beyond = taken.iter().filter(|p| last.is_none_or(|last| p.id > last));
                missing = beyond.map(|pending| pending.id).collect();
                if self.plan.ids().deliveries.is_some() {
                    let before: HashMap<_, _> =
                        taken.iter().map(|p| (p.id, p.deliveries)).collect();
                    chunk.set_deliveries(|id| before.get(&id).map_or(1, |before| before + 1));
                }
            }
        }
        if chunk.rows() > 0 {
            self.rows.push(chunk);
        }
        missing
    }

    /// What was under way failed, or nobody waits for it any more. The server
    /// may have assigned entries that never came.
    pub fn lost(&mut self, decoder: &mut Decoder) {
        if let Some(id) = self.burying.take() {
            self.claims.pop_front();
            self.suspects = Some(Suspects::These(vec![id]));
        }
        let Some((kind, request)) = self.request.take() else {
            return;
        };
        decoder.abandon(&mut self.builder);
        let is_new = matches!(kind, Kind::New);
        let is_claim = matches!(kind, Kind::Claim(_));
        let missing = self.collect(kind, decoder);
        self.is_caught_up = false;
        if is_claim {
            self.suspects = Some(Suspects::These(missing));
        }
        if is_new {
            match self.query.mode {
                // What is new comes after what this consumer ever had.
                Mode::Consume => self.phase = Phase::Own(self.newest),
                Mode::Once | Mode::Pending(_) => {
                    self.suspects = Some(Suspects::Since(request.sent));
                }
            }
        }
    }

    /// Looks up which of the suspects are this consumer's; they are taken next.
    async fn find_suspects(&mut self, link: &mut Link) -> Result<()> {
        let mut range = match &self.suspects {
            Some(Suspects::These(ids)) => match (ids.iter().min(), ids.iter().max()) {
                (Some(&first), Some(&last)) => IdRange::new(first, last),
                _ => None,
            },
            Some(Suspects::Since(_)) => Some(IdRange::ALL),
            None => None,
        };
        let mut found = Vec::new();
        while let Some(part) = range {
            let cmd = self.query.consumer.pending_own(part, PAGE);
            let page = self.pending(link, &cmd).await?;
            range = match page.last() {
                Some(last) if page.len() == PAGE => part.after(last.id),
                _ => None,
            };
            found.extend(page);
        }
        match self.suspects.take() {
            Some(Suspects::These(ids)) => found.retain(|pending| ids.contains(&pending.id)),
            Some(Suspects::Since(sent)) => {
                // Idle times are told in whole milliseconds.
                let since = sent.elapsed() + Duration::from_millis(1);
                found.retain(|pending| pending.idle <= since);
            }
            None => {}
        }
        for pending in found.into_iter().rev() {
            self.claims.push_front(pending);
        }
        Ok(())
    }

    /// Moves an entry to the dead letters: it is added there and acknowledged
    /// here in one transaction.
    async fn bury(&mut self, link: &mut Link, dead: &Pending) -> Result<()> {
        let Some(to) = self.query.dead_letter.clone() else {
            return Ok(());
        };
        let consumer = self.query.consumer.clone();
        let stream = &consumer.stream;
        self.burying = Some(dead.id);
        if dead.min_idle > Duration::ZERO {
            let cmd = consumer.claim_silently(dead.min_idle, &[dead.id]);
            let claimed = link.query(&cmd, stream).await?;
            // Somebody else was faster.
            if matches!(&claimed, Value::Array(ids) if ids.is_empty()) {
                self.burying = None;
                return Ok(());
            }
        }
        let fields = match IdRange::new(dead.id, dead.id) {
            Some(range) => {
                link.query(&command::xrange(stream, range, 1), stream)
                    .await?
            }
            None => Value::Nil,
        };
        let checks = command::watch_and_type(&to.stream);
        let replies = link.ready().await?.query_all(&checks).await?;
        let kind = link.checked_all(replies, &to.stream)?.pop();
        let kind: String = kind
            .and_then(|kind| FromRedisValue::from_redis_value(kind).ok())
            .unwrap_or_default();
        if kind != "stream" && kind != "none" {
            return Err(Error::Response {
                context: format!("dead_letter {:?}", to.stream),
                reply: format!("WRONGTYPE the key holds a {kind}, not a stream"),
            });
        }
        let cmds = consumer.bury(
            &to.stream,
            dead.id,
            &dead.consumer,
            dead.deliveries,
            fields_of(fields),
        );
        let replies = link.ready().await?.query_all(&cmds).await?;
        let moved = link.checked_all(replies, stream)?.pop();
        self.burying = None;
        if matches!(moved, Some(Value::Nil)) {
            // The dead letters changed meanwhile: the next look moves it.
            self.suspects = Some(Suspects::These(vec![dead.id]));
            return Ok(());
        }
        link.note(
            Level::Warning,
            format!(
                "stream {stream:?}, group {:?}: entry {} was delivered {} times, and moved to {:?}",
                consumer.group, dead.id, dead.deliveries, to.stream
            ),
        );
        Ok(())
    }

    /// Runs `XPENDING`.
    async fn pending(&self, link: &mut Link, cmd: &redis::Cmd) -> Result<Vec<Pending>> {
        let stream = &self.query.consumer.stream;
        let reply = link.query(cmd, stream).await?;
        let rows: Option<Vec<(Vec<u8>, Vec<u8>, u64, i64)>> =
            FromRedisValue::from_redis_value(reply).ok();
        let pending = |(id, consumer, idle, deliveries): (Vec<u8>, Vec<u8>, u64, i64)| {
            Some(Pending {
                id: EntryId::from_reply(&id)?,
                consumer,
                idle: Duration::from_millis(idle),
                deliveries,
                min_idle: Duration::ZERO,
            })
        };
        rows.and_then(|rows| rows.into_iter().map(pending).collect())
            .ok_or_else(|| Error::Protocol {
                context: format!("stream {stream:?}"),
                reason: "something else where XPENDING's list was due".into(),
            })
    }

    /// Makes the group where it is missing; `error` says that it is.
    async fn make_group(&mut self, link: &mut Link, error: Error) -> Result<()> {
        let Consumer { stream, group, .. } = &self.query.consumer;
        if !self.query.create_group {
            return Err(without_group(error));
        }
        let made = link
            .query(&self.query.consumer.create_group(), stream)
            .await;
        let is_made = match made {
            Err(Error::Response { reply, .. }) if reply.starts_with("BUSYGROUP") => false,
            result => result.map(|_| true)?,
        };
        if self.had_group {
            link.note(
                Level::Warning,
                format!(
                    "stream {stream:?}: the group {group:?} had vanished, and was made again from                      the stream's first entry on"
                ),
            );
        }
        self.had_group = true;
        self.claims.clear();
        self.suspects = None;
        self.newest = EntryId::MIN;
        self.phase = match self.query.mode {
            Mode::Pending(_) => Phase::Ended,
            Mode::Consume if !is_made => Phase::Own(EntryId::MIN),
            Mode::Consume | Mode::Once => Phase::New,
        };
        Ok(())
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

/// Names and values of the first entry of a reply, as they are.
fn fields_of(reply: Value) -> Option<Vec<Vec<u8>>> {
    let entries: Vec<(Vec<u8>, Vec<Vec<u8>>)> = FromRedisValue::from_redis_value(reply).ok()?;
    entries.into_iter().next().map(|(_, fields)| fields)
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
