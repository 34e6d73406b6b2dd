//! The groups of several streams, read by one command for all of them.
//!
//! Each stream has its [`Group`], which takes entries off its pending entries list
//! one by one where that has to be: stale ones, dead ones, those of a reply that was
//! lost where deliveries are counted. What is common goes together: own pending
//! entries and new ones by one `XREADGROUP`, the looks at pending entries lists by
//! commands that are sent at once.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Cmd, Value};

use super::claims::{Origin, pause_after_sweep, pending_of};
use super::{Group, GroupQuery, PAGE, Phase, Scope, after_id, is_refusal, without_group};
use crate::command;
use crate::decode::{Asked, ChunkBuilder, Decoder, Plan};
use crate::entry_id::{EntryId, IdRange};
use crate::error::{Error, Result};
use crate::read::batch::Part;
use crate::read::culprit::name_culprit;
use crate::read::legs::grouped;
use crate::read::link::{Link, checked};
use crate::read::source::{Ask, Pulled, Request, Rows};
use crate::read::turns::{Joint, Next, Turn, TurnWait, Turns};
use crate::read::{AT_ONCE, expect_streams, receive, several};

/// How long the server may wait for entries of some of the streams, where no more
/// are to be asked than there are entries wanted.
const BRIEFLY: Duration = Duration::from_millis(20);

/// A consumer at work on several streams.
///
/// Each stream that is left is in one of the queues, or in the turns.
#[derive(Debug)]
pub(in crate::read) struct Groups {
    groups: Vec<Group>,
    plan: Arc<Plan>,
    /// What is read together.
    turns: Turns,
    /// What has entries to take one by one.
    alone: VecDeque<usize>,
    alone_was_last: bool,
    /// The one of these that is in the middle of something.
    active: Option<usize>,
    /// Whose own pending entries are to be looked up, where deliveries are counted.
    unchecked: VecDeque<usize>,
    /// What is not read before stale entries were looked for.
    unswept: VecDeque<usize>,
    /// Of each stream, from where on stale entries are still to be looked for.
    sweep_from: Vec<Option<EntryId>>,
    /// What is looked through again meanwhile.
    resweep: VecDeque<usize>,
    sweep_begun: Option<Instant>,
    next_sweep: Option<Instant>,
    making: Option<Making>,
    request: Option<(Turn, Request)>,
    /// Entries that are asked for at once.
    page: usize,
    builder: ChunkBuilder,
    rows: Rows,
    deleted: Vec<(Arc<str>, Vec<EntryId>)>,
    unconfirmed: Vec<Part>,
    claimed: u64,
}

/// Groups are being made, as one or more are missing.
#[derive(Debug)]
struct Making {
    /// The first that was not tried.
    next: usize,
    /// What the server said of the one that it missed.
    reply: String,
}

impl Groups {
    pub fn new(queries: Vec<GroupQuery>, plan: Arc<Plan>) -> Self {
        let group = |query| {
            let mut group = Group::new(query, plan.clone());
            group.scope = Scope::OneByOne;
            group
        };
        let groups: Vec<Group> = queries.into_iter().map(group).collect();
        let sweep_from = |group: &Group| group.next_sweep.map(|_| EntryId::MIN);
        let sweep_from = groups.iter().map(sweep_from).collect();
        Self::of(groups, sweep_from, plan)
    }

    fn of(groups: Vec<Group>, sweep_from: Vec<Option<EntryId>>, plan: Arc<Plan>) -> Self {
        let mut made = Self {
            turns: Turns::new(0),
            alone: VecDeque::new(),
            alone_was_last: false,
            active: None,
            unchecked: VecDeque::new(),
            unswept: VecDeque::new(),
            sweep_from,
            resweep: VecDeque::new(),
            sweep_begun: None,
            next_sweep: None,
            making: None,
            request: None,
            page: PAGE,
            builder: ChunkBuilder::with_room(&plan, 0),
            rows: Rows::default(),
            deleted: Vec::new(),
            unconfirmed: Vec::new(),
            claimed: 0,
            groups,
            plan,
        };
        (0..made.groups.len()).for_each(|number| made.queue(number));
        made
    }

    /// The name that all groups have.
    pub fn group_name(&self) -> Option<&str> {
        self.groups.first().map(Group::group_name)
    }

    /// The same in parts, by what the keys of the streams have in common, each with
    /// the key of one of them; none where that is the same of all. Nothing may be under
    /// way.
    pub fn deal_out<K: Ord>(&mut self, by: impl Fn(&str) -> K) -> Vec<(Arc<str>, Self)> {
        let numbers = grouped(self.groups.iter().map(|group| &*group.key), by);
        if numbers.is_empty() {
            return Vec::new();
        }
        // A look that is under way begins anew.
        let looks_again = self.sweep_begun.map(|_| Instant::now());
        let next_sweep = self.next_sweep.or(looks_again);
        let groups = std::mem::take(&mut self.groups);
        let mut groups: Vec<Option<Group>> = groups.into_iter().map(Some).collect();
        let mut parts = Vec::new();
        for numbers in numbers {
            let from = numbers
                .iter()
                .map(|&number| self.sweep_from[number])
                .collect();
            let of_part = numbers.iter().filter_map(|&number| groups[number].take());
            let mut part = Self::of(of_part.collect(), from, self.plan.clone());
            part.next_sweep = next_sweep;
            if let Some(first) = part.groups.first() {
                parts.push((first.key.clone(), part));
            }
        }
        if let Some((_, first)) = parts.first_mut() {
            first.rows = std::mem::take(&mut self.rows);
            first.deleted = std::mem::take(&mut self.deleted);
            first.unconfirmed = std::mem::take(&mut self.unconfirmed);
            first.claimed = self.claimed;
        }
        parts
    }

    pub fn take_unconfirmed(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.unconfirmed)
    }

    pub fn rows(&mut self, _: &Decoder) -> &mut Rows {
        &mut self.rows
    }

    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    pub fn builds_nothing(&self) -> bool {
        !self.is_in_reply()
    }

    pub fn is_in_reply(&self) -> bool {
        let of_active = self
            .active
            .is_some_and(|number| self.groups[number].is_in_reply());
        self.request.is_some() || of_active
    }

    pub fn is_waiting(&self) -> bool {
        self.is_in_reply()
    }

    pub fn is_caught_up(&self) -> bool {
        self.all_are_in_turns() && self.turns.is_caught_up()
    }

    fn all_are_in_turns(&self) -> bool {
        self.alone.is_empty() && self.unchecked.is_empty() && self.unswept.is_empty()
    }

    pub fn acknowledges(&self) -> bool {
        self.groups.first().is_some_and(Group::acknowledges)
    }

    pub fn take_deleted(&mut self) -> Vec<(Arc<str>, Vec<EntryId>)> {
        std::mem::take(&mut self.deleted)
    }

    pub fn claimed(&self) -> u64 {
        self.claimed
    }

    fn counts_deliveries(&self) -> bool {
        self.groups.first().is_some_and(Group::counts_deliveries)
    }

    /// Puts a stream that is in no queue where it belongs now.
    fn queue(&mut self, number: usize) {
        let group = &self.groups[number];
        if !group.claims.is_empty() || group.suspects.is_some() {
            self.alone.push_back(number);
            return;
        }
        match group.phase {
            Phase::Own(_) if self.counts_deliveries() => self.unchecked.push_back(number),
            Phase::Own(_) => self.turns.add(number),
            Phase::Ended => {}
            Phase::Sweep(_) | Phase::New if self.sweep_from[number].is_some() => {
                self.unswept.push_back(number);
            }
            Phase::Sweep(_) | Phase::New => self.turns.add(number),
        }
    }

    /// Connects; whether the groups are there shows when they are read.
    pub async fn open(&mut self, link: &mut Link) -> Result<()> {
        link.ready().await.map(|_| ())
    }
}

/// Acknowledging.
impl Groups {
    /// `XACK` of a batch. An answer that does not come is an error; to ask again
    /// does no harm.
    pub async fn acknowledge_batch(&mut self, link: &mut Link, parts: &[Part]) -> Result<()> {
        let Some(group) = self.groups.first() else {
            return Ok(());
        };
        let group = &group.query.consumer.group;
        let mut cmds: Vec<(&str, Cmd)> = Vec::new();
        for part in parts {
            let pieces = part.ids.chunks(PAGE);
            cmds.extend(pieces.map(|ids| (&*part.stream, command::xack(&part.stream, group, ids))));
        }
        for piece in cmds.chunks(AT_ONCE) {
            for reply in all(link, piece).await? {
                reply?;
            }
        }
        Ok(())
    }

    pub fn acknowledge_later(&mut self, parts: &[Part]) {
        self.unconfirmed.extend_from_slice(parts);
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
            let parts = self.unconfirmed.clone();
            self.acknowledge_batch(link, &parts).await?;
            self.unconfirmed.clear();
        }
        Ok(())
    }
}

/// Reading.
impl Groups {
    /// Takes one step.
    pub async fn pull(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        match self.step(link, decoder, ask).await {
            Err(error) if self.active.is_none() && error.is_no_group() => self.begin_making(error),
            Err(Error::Decode(misfit)) if self.request.is_some() && self.counts_deliveries() => {
                // What came with it was not delivered because of it.
                let unseen = self.lost_together(Origin::Own, link, decoder);
                link.disconnect();
                for (number, after) in unseen {
                    let after = match *self.groups[number].key == *misfit.stream {
                        true => misfit.entry_id,
                        false => after,
                    };
                    self.groups[number].uncount_after(link, after).await;
                }
                Err(Error::Decode(misfit))
            }
            result => result,
        }
    }

    async fn step(&mut self, link: &mut Link, decoder: &mut Decoder, ask: Ask) -> Result<Pulled> {
        if self.active.is_some() {
            return self.step_alone(link, decoder, ask).await;
        }
        if self.request.is_some() {
            return self.receive(link, decoder).await;
        }
        self.pay_acknowledgement(link).await?;
        if self.making.is_some() {
            return self.make_groups(link).await;
        }
        // So that not too much is known of what is pending.
        if self.alone.len() < AT_ONCE {
            if !self.unchecked.is_empty() {
                return self.look_up_own(link, ask).await;
            }
            self.begin_sweep();
            if !self.unswept.is_empty() || !self.resweep.is_empty() {
                return self.sweep(link).await;
            }
        }
        let is_alones_turn = self.turns.is_empty() || !self.alone_was_last;
        self.alone_was_last = is_alones_turn && !self.alone.is_empty();
        if self.alone_was_last {
            self.active = self.alone.pop_front();
            return self.step_alone(link, decoder, ask).await;
        }
        match self.send(link, decoder, ask).await? {
            true => self.receive(link, decoder).await,
            false if self.all_are_in_turns() => Ok(Pulled::Ended),
            false => Ok(Pulled::Some),
        }
    }

    /// One group takes entries off its pending entries list.
    async fn step_alone(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        if let Some(number) = self.active {
            self.groups[number].pull(link, decoder, ask).await?;
            self.end_alone();
        }
        Ok(Pulled::Some)
    }

    /// The group that is in the middle of something is so no more.
    fn end_alone(&mut self) {
        let Some(number) = self.active.take() else {
            return;
        };
        let group = &mut self.groups[number];
        let held = group.rows.len();
        for chunk in group.rows.take(held) {
            self.rows.push(chunk);
        }
        self.deleted.extend(group.take_deleted());
        self.claimed += std::mem::take(&mut group.claimed);
        if group.query.claim_idle.is_none() {
            self.never_sweep();
        }
        self.queue(number);
    }

    /// Asks those whose turn it is; whether there are any.
    async fn send(&mut self, link: &mut Link, decoder: &mut Decoder, ask: Ask) -> Result<bool> {
        let connection = link.ready().await?;
        let wait = match self.next_sweep {
            // Stale entries are looked for in time.
            Some(due) => ask.wait.min(due.saturating_duration_since(Instant::now())),
            None => ask.wait,
        };
        let may_wait = self.all_are_in_turns() && wait > Duration::ZERO;
        let joint = match ask.limit {
            _ if !may_wait => Joint::KeepsTo,
            Some(limit) if limit < self.turns.len() => Joint::KeepsTo,
            _ => Joint::MayExceed,
        };
        let budget = ask.wanted.min(self.page);
        let Some(turn) = self.turns.next(budget, joint) else {
            return Ok(false);
        };
        let wait = match turn.wait {
            TurnWait::Fully if may_wait => wait,
            TurnWait::Briefly if may_wait => wait.min(BRIEFLY),
            _ => Duration::ZERO,
        };
        let block = Ask { wait, ..ask }.block();
        let of_turn = turn.streams.iter().map(|&number| &self.groups[number]);
        let streams = of_turn
            .clone()
            .map(|group| (&*group.key, group.own_after()));
        if let Some(group) = of_turn.clone().next() {
            connection.queue(&group.query.consumer.read_all(streams, turn.count, block));
        }
        let asked = of_turn.map(|group| Asked {
            key: group.key.clone(),
            range: group.own_after().and_then(after_id).unwrap_or(IdRange::ALL),
            end: EntryId::MAX,
        });
        expect_streams(connection, decoder, asked.collect(), turn.count);
        let request = Request::new(turn.count.saturating_mul(turn.streams.len()), block);
        self.request = Some((turn, request));
        Ok(true)
    }

    /// Takes the reply that is due.
    async fn receive(&mut self, link: &mut Link, decoder: &mut Decoder) -> Result<Pulled> {
        let connection = link.ready().await?;
        let Some((turn, request)) = &self.request else {
            return Ok(Pulled::Some);
        };
        connection.flush().await?;
        let received = receive(connection, request.due(), decoder, &mut self.builder).await;
        let entries = match received {
            Ok(entries) => entries,
            Err(failure) => {
                let keys = turn.streams.iter().map(|&number| &*self.groups[number].key);
                let context = several(keys.clone());
                let error = failure.of_several(context, decoder.stream(), connection);
                let of_group = turn.streams.first().map(|&number| &self.groups[number]);
                let Some(consumer) = of_group.map(|group| &group.query.consumer) else {
                    return Err(error);
                };
                // Of its own entries, those after the last that there can be.
                let of_one =
                    |key: &str| consumer.read_all([(key, Some(EntryId::MAX))].into_iter(), 1, None);
                return Err(name_culprit(connection, keys, of_one, error).await);
            }
        };
        link.succeeded();
        self.page = (self.page * 2).min(PAGE);
        self.replied(decoder, entries);
        Ok(match self.all_are_in_turns() && self.turns.take_silence() {
            true => Pulled::Nothing,
            false => Pulled::Some,
        })
    }

    /// Takes the rows of a reply, and gives out the next turns.
    fn replied(&mut self, decoder: &mut Decoder, entries: usize) {
        let Some((turn, _)) = self.request.take() else {
            return;
        };
        let came = self.collect(&turn, decoder);
        let mut next = HashMap::new();
        let mut elsewhere = Vec::new();
        for &number in &turn.streams {
            let entries = came.get(&number).copied().unwrap_or_default();
            let was_own = self.groups[number].own_after().is_some();
            if was_own && entries == 0 {
                self.groups[number].end_own();
            }
            self.groups[number].had_group = true;
            let is_in_turns = match self.groups[number].phase {
                Phase::Own(_) => true,
                Phase::New | Phase::Sweep(_) => self.sweep_from[number].is_none(),
                Phase::Ended => false,
            };
            let is_busy = was_own || entries >= turn.count;
            next.insert(
                number,
                match is_in_turns {
                    true if is_busy => Next::Busy,
                    true => Next::Quiet,
                    false => Next::Gone,
                },
            );
            if !is_in_turns {
                elsewhere.push(number);
            }
        }
        let next = |number| next.get(&number).copied().unwrap_or(Next::Gone);
        self.turns.replied(&turn, entries, next);
        elsewhere.into_iter().for_each(|number| self.queue(number));
    }

    /// Makes rows of what was decoded of a reply, and notes how far each stream
    /// came; how many entries came of each.
    fn collect(&mut self, turn: &Turn, decoder: &mut Decoder) -> HashMap<usize, usize> {
        let mut entries = HashMap::new();
        for came in decoder.came() {
            let Some(&number) = turn.streams.get(came.at) else {
                continue;
            };
            let group = &mut self.groups[number];
            entries.insert(number, came.entries);
            if !came.deleted.is_empty() {
                self.deleted.push((group.key.clone(), came.deleted.clone()));
            }
            match (came.last, group.phase) {
                (Some(last), Phase::Own(_)) => group.passed_own(last),
                (Some(last), _) => group.newest = last,
                (None, _) => {}
            }
        }
        if self.builder.rows() > 0 {
            let mut fresh = ChunkBuilder::with_room(&self.plan, self.builder.rows());
            fresh.make_room_like(&self.builder);
            let mut chunk = std::mem::replace(&mut self.builder, fresh).finish();
            chunk.name_columns(decoder.names());
            self.rows.push(chunk);
        }
        entries
    }

    /// The server has not done what was asked: it will be asked for again.
    pub fn refused(&mut self, link: &mut Link, decoder: &mut Decoder) {
        if let Some(number) = self.active {
            self.groups[number].refused(link, decoder);
            self.end_alone();
        }
        if let Some((turn, _)) = self.request.take() {
            decoder.abandon(&mut self.builder);
            self.turns.put_back(turn);
        }
    }

    /// What was under way failed, or nobody waits for it any more. The server may
    /// have assigned entries that never came.
    pub fn lost(&mut self, link: &mut Link, decoder: &mut Decoder) {
        if let Some(number) = self.active {
            self.groups[number].lost(link, decoder);
            self.end_alone();
        }
        self.lost_together(Origin::Unseen, link, decoder);
    }

    /// Gives up the reply that is due; what it assigned is of this origin then.
    /// The streams of which something may have been assigned, each with the last
    /// entry that came.
    fn lost_together(
        &mut self,
        origin: Origin,
        link: &mut Link,
        decoder: &mut Decoder,
    ) -> Vec<(usize, EntryId)> {
        let Some((turn, request)) = self.request.take() else {
            return Vec::new();
        };
        decoder.abandon(&mut self.builder);
        match decoder.came().iter().any(|came| came.last.is_some()) {
            true => link.succeeded(),
            // It may have been too much for the server.
            false => self.page = (self.page.min(request.count) / 4).max(1),
        }
        // Of those before it everything came, as they come in this order.
        let broke_at = decoder.came().last().map(|came| came.at);
        self.collect(&turn, decoder);
        let mut unseen = Vec::new();
        for &number in turn.streams.iter().skip(broke_at.unwrap_or_default()) {
            let group = &mut self.groups[number];
            unseen.push((number, group.newest));
            if matches!(group.phase, Phase::New | Phase::Sweep(_)) {
                // What is new comes after what this consumer ever had.
                group.phase = Phase::Own(group.newest);
                group.unseen_after = (origin == Origin::Unseen).then_some(group.newest);
            }
        }
        let mut order: Vec<usize> = turn.streams;
        if let Some(at) = broke_at
            && at < order.len()
        {
            // The others go first, should it break there again.
            order.rotate_left(at + 1);
        }
        order.into_iter().for_each(|number| self.queue(number));
        unseen
    }
}

/// Looking at pending entries lists.
impl Groups {
    /// Looks up own pending entries, of several streams at once.
    async fn look_up_own(&mut self, link: &mut Link, ask: Ask) -> Result<Pulled> {
        let piece: Vec<usize> = self.unchecked.iter().take(AT_ONCE).copied().collect();
        let count = ask.wanted.min(self.page);
        let cmd = |&number: &usize| {
            let group = &self.groups[number];
            let range = group.own_after().and_then(after_id).unwrap_or(IdRange::ALL);
            (&*group.key, group.query.consumer.pending_own(range, count))
        };
        let cmds: Vec<(&str, Cmd)> = piece.iter().map(cmd).collect();
        let mut found = Vec::with_capacity(piece.len());
        for (reply, (stream, _)) in all(link, &cmds).await?.into_iter().zip(&cmds) {
            found.push(pending_of(reply?, stream)?);
        }
        self.unchecked.drain(..piece.len());
        for (number, found) in piece.into_iter().zip(found) {
            self.groups[number].found_own(found);
            self.groups[number].had_group = true;
            self.queue(number);
        }
        Ok(Pulled::Some)
    }

    /// Begins to look through all again, if it is time.
    fn begin_sweep(&mut self) {
        if self.next_sweep.is_some_and(|due| due <= Instant::now()) {
            self.next_sweep = None;
            self.resweep = self.turns.streams().collect();
        }
    }

    /// Looks for entries that other consumers have not acknowledged for too long,
    /// of several streams at once.
    async fn sweep(&mut self, link: &mut Link) -> Result<Pulled> {
        self.sweep_begun.get_or_insert_with(Instant::now);
        let queue = match self.unswept.is_empty() {
            true => &self.resweep,
            false => &self.unswept,
        };
        let piece: Vec<usize> = queue.iter().take(AT_ONCE).copied().collect();
        let Some(idle) = piece.first().and_then(|&n| self.groups[n].query.claim_idle) else {
            self.never_sweep();
            return Ok(Pulled::Some);
        };
        let cmd = |&number: &usize| {
            let from = self.sweep_from[number].unwrap_or(EntryId::MIN);
            let range = IdRange::new(from, EntryId::MAX).unwrap_or(IdRange::ALL);
            let group = &self.groups[number];
            let cmd = group.query.consumer.pending_idle(idle, range, PAGE);
            (&*group.key, cmd)
        };
        let cmds: Vec<(&str, Cmd)> = piece.iter().map(cmd).collect();
        let mut found = Vec::with_capacity(piece.len());
        for (reply, (stream, _)) in all(link, &cmds).await?.into_iter().zip(&cmds) {
            match reply {
                Err(Error::Response { reply, .. }) if is_refusal(&reply) => {
                    if let Some(&first) = piece.first() {
                        self.groups[first].never_sweep(link, &reply);
                    }
                    self.never_sweep();
                    return Ok(Pulled::Some);
                }
                reply => found.push(pending_of(reply?, stream)?),
            }
        }
        let is_first = !self.unswept.is_empty();
        let queue = match is_first {
            true => &mut self.unswept,
            false => &mut self.resweep,
        };
        queue.drain(..piece.len());
        for (number, found) in piece.into_iter().zip(found) {
            // What is busy with its own is looked through next time.
            if !is_first && (found.is_empty() || !self.turns.remove(number)) {
                continue;
            }
            self.sweep_from[number] = self.groups[number].found_stale(found, idle);
            self.queue(number);
        }
        self.end_sweep(idle);
        Ok(Pulled::Some)
    }

    fn end_sweep(&mut self, idle: Duration) {
        if self.unswept.is_empty()
            && self.resweep.is_empty()
            && let Some(begun) = self.sweep_begun.take()
        {
            let pause = pause_after_sweep(idle, begun.elapsed());
            self.next_sweep = Some(Instant::now() + pause);
        }
    }

    /// The user may not: what was to be looked through first is read now.
    fn never_sweep(&mut self) {
        for group in &mut self.groups {
            group.query.claim_idle = None;
        }
        self.next_sweep = None;
        self.resweep.clear();
        self.sweep_from.fill(None);
        let unswept = std::mem::take(&mut self.unswept);
        unswept.into_iter().for_each(|number| self.queue(number));
    }
}

/// Making groups.
impl Groups {
    /// Groups are to be made; `error` says that one is missing.
    fn begin_making(&mut self, error: Error) -> Result<Pulled> {
        if let Some((turn, _)) = self.request.take() {
            self.turns.lost(turn, None);
        }
        let creates = self
            .groups
            .first()
            .is_some_and(|group| group.query.create_group);
        let Error::Response { reply, .. } = &error else {
            return Err(error);
        };
        if !creates {
            return Err(without_group(error));
        }
        self.making = Some(Making {
            next: 0,
            reply: reply.clone(),
        });
        Ok(Pulled::Some)
    }

    /// Makes the next few groups, where they are missing.
    async fn make_groups(&mut self, link: &mut Link) -> Result<Pulled> {
        let Some(Making { next, reply }) = &self.making else {
            return Ok(Pulled::Some);
        };
        let end = self.groups.len().min(next + AT_ONCE);
        let piece = *next..end;
        let missed: Vec<bool> = self.groups[piece.clone()]
            .iter()
            .map(|group| reply.contains(&format!("'{}'", group.key)))
            .collect();
        let cmds = self.groups[piece.clone()].iter().map(|group| {
            let cmd = group.query.consumer.create_group();
            (&*group.key, cmd)
        });
        let cmds: Vec<(&str, Cmd)> = cmds.collect();
        let mut is_made = Vec::with_capacity(cmds.len());
        for reply in all(link, &cmds).await? {
            is_made.push(match reply {
                Err(Error::Response { reply, .. }) if reply.starts_with("BUSYGROUP") => false,
                reply => reply.map(|_| true)?,
            });
        }
        for ((number, is_made), missed) in piece.zip(is_made).zip(missed) {
            // Most may have been there all the time.
            if is_made || missed {
                self.remove(number);
                self.groups[number].made(link, is_made);
                self.queue(number);
            }
        }
        match &mut self.making {
            Some(making) if end < self.groups.len() => making.next = end,
            making => *making = None,
        }
        Ok(Pulled::Some)
    }

    /// Takes a stream out of the queue that it is in.
    fn remove(&mut self, number: usize) {
        self.turns.remove(number);
        for queue in [&mut self.alone, &mut self.unchecked, &mut self.unswept] {
            queue.retain(|&other| other != number);
        }
    }
}

impl Group {
    /// The entry after which own pending entries are next, if they are.
    fn own_after(&self) -> Option<EntryId> {
        match self.phase {
            Phase::Own(after) => Some(after),
            Phase::Sweep(_) | Phase::New | Phase::Ended => None,
        }
    }
}

/// Runs commands at once, each on a stream; of each its reply, or the server's error.
async fn all(link: &mut Link, cmds: &[(&str, Cmd)]) -> Result<Vec<Result<Value>>> {
    let deployment = link.deployment().clone();
    let sent: Vec<Cmd> = cmds.iter().map(|(_, cmd)| cmd.clone()).collect();
    let replies = link.ready().await?.query_all(&sent).await?;
    let replies = replies.into_iter().zip(cmds);
    let checked = replies.map(|(reply, (stream, _))| checked(reply, &deployment, stream));
    Ok(checked.collect())
}
