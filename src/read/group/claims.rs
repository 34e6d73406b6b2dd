//! Taking entries off the pending entries list, one by one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value};

use super::{Group, Kind, Mode, PAGE, Phase, after_id, is_refusal};
use crate::command::Consumer;
use crate::decode::{Decoder, Shape};
use crate::entry_id::{EntryId, IdRange};
use crate::error::{Error, Result};
use crate::read::expect;
use crate::read::link::Link;
use crate::read::note::{About, Level, Note};
use crate::read::source::{Ask, Pulled, Request};

/// How often stale entries are looked for, at the most and at the least.
const MIN_SWEEP_PAUSE: Duration = Duration::from_millis(100);
const MAX_SWEEP_PAUSE: Duration = Duration::from_secs(30);
/// A sweep takes this part of the server's time at the most.
const SWEEP_SHARE: u32 = 100;

/// An entry of the pending entries list.
#[derive(Debug, Clone)]
pub(super) struct Pending {
    pub id: EntryId,
    pub consumer: Vec<u8>,
    pub idle: Duration,
    pub deliveries: i64,
    pub origin: Origin,
}

/// Why an entry is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It is this consumer's.
    Own,
    /// It is this consumer's, delivered in a reply that never came.
    Unseen,
    /// Nobody has acknowledged it for so long.
    Stale(Duration),
}

impl Origin {
    /// How long an entry must have been idle to be taken.
    fn min_idle(self) -> Duration {
        match self {
            Self::Own | Self::Unseen => Duration::ZERO,
            Self::Stale(idle) => idle,
        }
    }
}

/// An entry as `XPENDING` lists it.
type Row = (Vec<u8>, Vec<u8>, u64, i64);

impl Pending {
    fn from_row((id, consumer, idle, deliveries): Row) -> Option<Self> {
        Some(Self {
            id: EntryId::from_reply(&id)?,
            consumer,
            idle: Duration::from_millis(idle),
            deliveries,
            origin: Origin::Own,
        })
    }

    /// How often it has been handed over.
    pub fn delivered(&self) -> i64 {
        match self.origin {
            Origin::Unseen => self.deliveries - 1,
            Origin::Own | Origin::Stale(_) => self.deliveries,
        }
    }

    /// Whether one command can take both.
    fn goes_with(&self, other: &Self) -> bool {
        self.origin == other.origin
            && (self.origin != Origin::Unseen || self.deliveries == other.deliveries)
    }
}

/// Entries that may be this consumer's though it never saw them.
#[derive(Debug)]
pub(super) enum Suspects {
    These(Vec<Pending>),
    /// Whatever was delivered since then.
    Since(Instant),
}

/// How long after a sweep, which took so long, the next one is due.
pub(super) fn pause_after_sweep(idle: Duration, took: Duration) -> Duration {
    let pause = (idle / 4).clamp(MIN_SWEEP_PAUSE, MAX_SWEEP_PAUSE);
    pause.max(took * SWEEP_SHARE)
}

impl Group {
    /// Whether an entry is another consumer's.
    pub(super) fn is_others(&self, pending: &Pending) -> bool {
        pending.consumer != self.query.consumer.name.as_bytes()
    }

    /// Looks for entries that other consumers have not acknowledged for too
    /// long, by `XPENDING`.
    ///
    /// `XAUTOCLAIM` would take over this consumer's own too, those that are
    /// being processed right now, and does not tell one from the other.
    pub(super) async fn sweep(&mut self, link: &mut Link, from: EntryId) -> Result<Pulled> {
        let (Some(idle), Some(range)) = (self.query.claim_idle, IdRange::new(from, EntryId::MAX))
        else {
            self.phase = Phase::New;
            return Ok(Pulled::Some);
        };
        let begun = Instant::now();
        let cmd = self.query.consumer.pending_idle(idle, range, PAGE);
        let found = match self.pending(link, &cmd).await {
            Err(Error::Response { reply, .. }) if is_refusal(&reply) => {
                self.never_sweep(link, &reply);
                return Ok(Pulled::Some);
            }
            result => result?,
        };
        let next = self.found_stale(found, idle);
        self.phase = next.map_or(Phase::New, Phase::Sweep);
        if next.is_none() && self.query.mode == Mode::Consume {
            self.next_sweep = Some(Instant::now() + pause_after_sweep(idle, begun.elapsed()));
        } else if next.is_none() {
            self.next_sweep = None;
        }
        Ok(Pulled::Some)
    }

    /// These entries are stale; those of others are next. Where to look for more.
    pub(super) fn found_stale(&mut self, found: Vec<Pending>, idle: Duration) -> Option<EntryId> {
        let next = match found.last() {
            Some(last) if found.len() == PAGE => last.id.next(),
            _ => None,
        };
        let origin = Origin::Stale(idle);
        let stale = found
            .into_iter()
            .map(|pending| Pending { origin, ..pending });
        // Its own are being processed, unless it has just begun.
        let takes_own = self.query.mode == Mode::Once;
        self.claims = stale
            .filter(|pending| takes_own || self.is_others(pending))
            .collect();
        next
    }

    pub(super) fn never_sweep(&mut self, link: &mut Link, reply: &str) {
        let Consumer { stream, group, .. } = &self.query.consumer;
        link.tell(Note {
            level: Level::Warning,
            about: About::Claims,
            text: format!(
                "stream {stream:?}, group {group:?}: entries of other consumers are not \
                 claimed, which takes XPENDING with IDLE (Redis 6.2) and XCLAIM: {}",
                link.deployment().redact(reply)
            ),
        });
        self.query.claim_idle = None;
        self.next_sweep = None;
        self.claims.clear();
        self.phase = Phase::New;
    }

    /// Takes entries that are pending, by `XCLAIM`; those that were delivered
    /// too often go to the dead letters.
    pub(super) async fn take_claims(
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
            return Ok(Pulled::Some);
        }
        let connection = link.ready().await?;
        let taken = self.next_claims(ask.wanted.min(self.page));
        let ids: Vec<EntryId> = taken.iter().map(|pending| pending.id).collect();
        let origin = taken.first().map_or(Origin::Own, |first| first.origin);
        let mut cmd = self.query.consumer.claim(origin.min_idle(), &ids);
        if let (Origin::Unseen, Some(first)) = (origin, taken.first()) {
            // It counts as a delivery already.
            cmd.arg("RETRYCOUNT").arg(first.deliveries);
        }
        connection.queue(&cmd);
        expect(connection, decoder, Shape::Entries, IdRange::ALL, ids.len());
        self.request = Some((Kind::Claim(taken), Request::new(ids.len(), None)));
        self.receive(link, decoder).await
    }

    /// The next few that one command can take.
    fn next_claims(&mut self, most: usize) -> Vec<Pending> {
        let mut taken: Vec<Pending> = Vec::new();
        while taken.len() < most
            && let Some(next) = self.claims.front()
            && !self.is_dead(next)
            && taken.first().is_none_or(|first| first.goes_with(next))
        {
            taken.extend(self.claims.pop_front());
        }
        taken
    }

    /// Whether an entry has been delivered too often to be so again.
    fn is_dead(&self, pending: &Pending) -> bool {
        let dead_letter = self.query.dead_letter.as_ref();
        dead_letter.is_some_and(|dead| {
            u64::try_from(pending.delivered()).unwrap_or_default() >= dead.max_deliveries
        })
    }

    /// Looks up which of the suspects are this consumer's; they are taken next.
    pub(super) async fn find_suspects(&mut self, link: &mut Link) -> Result<()> {
        let range = match &self.suspects {
            Some((Suspects::These(ids), _)) => match (ids.first(), ids.last()) {
                (Some(first), Some(last)) => IdRange::new(first.id, last.id),
                _ => None,
            },
            Some((Suspects::Since(_), _)) => Some(IdRange::ALL),
            None => None,
        };
        let found = self.pending_own(link, range).await?;
        let Some((suspects, origin)) = self.suspects.take() else {
            return Ok(());
        };
        let own = |pending: Pending| Pending { origin, ..pending };
        let again: Vec<Pending> = match suspects {
            Suspects::These(suspects) => {
                let mut found: HashMap<_, _> = found.into_iter().map(|p| (p.id, p)).collect();
                let is_stale = |pending: &Pending| matches!(pending.origin, Origin::Stale(_));
                // What the command did not come to is still others'.
                let again = suspects.into_iter().filter_map(|suspect| {
                    let found = found.remove(&suspect.id).map(own);
                    found.or_else(|| Some(suspect).filter(is_stale))
                });
                again.collect()
            }
            Suspects::Since(sent) => {
                // Idle times are told in whole milliseconds.
                let since = sent.elapsed() + Duration::from_millis(1);
                let held: HashSet<EntryId> = self.rows.entry_ids().collect();
                let came = |pending: &Pending| {
                    pending.idle <= since && pending.id > self.newest && !held.contains(&pending.id)
                };
                found.into_iter().filter(came).map(own).collect()
            }
        };
        for pending in again.into_iter().rev() {
            self.claims.push_front(pending);
        }
        Ok(())
    }

    /// An entry did not fit: those after it that came in the same reply were not
    /// delivered, and should not count as if they were.
    pub(super) async fn uncount_after(&mut self, link: &mut Link, misfit: EntryId) {
        if let Err(error) = self.try_uncount_after(link, misfit).await {
            let Consumer { stream, group, .. } = &self.query.consumer;
            link.note(
                Level::Warning,
                format!(
                    "stream {stream:?}, group {group:?}: entries after {misfit} were not delivered, \
                     but count as if they were: {error}"
                ),
            );
        }
    }

    async fn try_uncount_after(&mut self, link: &mut Link, misfit: EntryId) -> Result<()> {
        let own = self.pending_own(link, after_id(misfit)).await?;
        let came = own.into_iter().filter(|pending| match &self.suspects {
            Some((Suspects::These(those), _)) => those.iter().any(|p| p.id == pending.id),
            Some((Suspects::Since(sent), _)) => pending.idle <= sent.elapsed(),
            None => true,
        });
        let mut by_count: BTreeMap<i64, Vec<EntryId>> = BTreeMap::new();
        for pending in came {
            let before = (pending.deliveries - 1).max(0);
            by_count.entry(before).or_default().push(pending.id);
        }
        for (count, ids) in by_count {
            let mut cmd = self.query.consumer.claim(Duration::ZERO, &ids);
            cmd.arg("RETRYCOUNT").arg(count).arg("JUSTID");
            link.query(&cmd, &self.query.consumer.stream).await?;
        }
        Ok(())
    }

    /// All that is pending for this consumer in a range, page by page.
    async fn pending_own(
        &self,
        link: &mut Link,
        mut range: Option<IdRange>,
    ) -> Result<Vec<Pending>> {
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
        Ok(found)
    }

    /// Runs `XPENDING`.
    pub(super) async fn pending(&self, link: &mut Link, cmd: &redis::Cmd) -> Result<Vec<Pending>> {
        let stream = &self.query.consumer.stream;
        pending_of(link.query(cmd, stream).await?, stream)
    }
}

/// The entries that `XPENDING` lists.
pub(super) fn pending_of(reply: Value, stream: &str) -> Result<Vec<Pending>> {
    let rows: Option<Vec<Row>> = FromRedisValue::from_redis_value(reply).ok();
    rows.and_then(|rows| rows.into_iter().map(Pending::from_row).collect())
        .ok_or_else(|| Error::Protocol {
            context: format!("stream {stream:?}"),
            reason: "something else where XPENDING's list was due".into(),
        })
}
