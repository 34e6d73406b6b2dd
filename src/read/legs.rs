//! By how many ways a reader's entries come.
//!
//! One, nearly always: a link, and a source that asks along it. In a cluster the
//! streams of one command must have the same hash slot: where those of a reader do
//! not, they are dealt out to [`Shards`], a leg for each slot. While a slot is on its
//! way from one server to another each of its streams may be at either: then they
//! are dealt out one by one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::batch::Part;
use super::link::Link;
use super::note::{Level, Note};
use super::shards::Shards;
use super::source::{Ask, Pulled, Source};
use crate::connection::Slot;
use crate::decode::{Chunk, Decoder, Meter, Names, Plan};
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::EntryId;
use crate::error::{Error, Result};

/// A source, and the link along which it asks.
#[derive(Debug)]
pub struct Leg {
    pub link: Link,
    pub decoder: Decoder,
    pub source: Source,
}

impl Leg {
    /// Takes one step towards the rows asked for.
    pub async fn pull(&mut self, ask: Ask) -> Result<Pulled> {
        if self.source.builds_nothing() {
            self.decoder.forget_names();
        }
        if !self.source.is_waiting() {
            self.link.ask_anew();
            self.link.look_round().await;
        }
        self.source
            .pull(&mut self.link, &mut self.decoder, ask)
            .await
    }

    /// What was under way failed, or nobody waits for it any more.
    pub fn lost(&mut self) {
        self.source.lost(&mut self.link, &mut self.decoder);
    }

    /// What was done last failed: what becomes of what was under way.
    pub fn failed(&mut self, error: &Error) {
        match is_on_its_way(error) {
            true => self.source.refused(&mut self.link, &mut self.decoder),
            false => self.lost(),
        }
    }

    /// Its streams by what their keys have in common, each part with the key of one of
    /// them; none where that is the same of all. Nothing may be under way.
    pub fn deal_out<K: Ord>(&mut self, by: impl Fn(&str) -> K) -> Vec<(Arc<str>, Source)> {
        // Whole rows go along.
        self.source.rows(&self.decoder);
        self.source.deal_out(by)
    }
}

/// How legs are made.
#[derive(Debug, Clone)]
pub struct Maker {
    pub deployment: Arc<Deployment>,
    pub read_from: ReadFrom,
    /// How long a leg tries to connect again.
    pub budget: Duration,
    pub plan: Arc<Plan>,
}

impl Maker {
    pub fn leg(&self, stream: &str, source: Source) -> Leg {
        let deployment = self.deployment.clone();
        Leg {
            link: Link::new(deployment, stream, self.read_from, self.budget),
            decoder: Decoder::new(self.plan.clone()),
            source,
        }
    }
}

/// All legs of a reader.
#[derive(Debug)]
pub struct Legs {
    maker: Maker,
    way: Way,
    meter: Arc<Meter>,
}

#[derive(Debug)]
enum Way {
    One(Box<Leg>),
    Several(Box<Shards>),
}

impl Legs {
    pub fn new(maker: Maker, stream: &str, source: Source) -> Self {
        let leg = Box::new(maker.leg(stream, source));
        let meter = leg.decoder.meter().clone();
        let way = Way::One(leg);
        let mut legs = Self { maker, way, meter };
        if let Way::One(leg) = &legs.way
            && leg.source.is_of_several()
            && leg.link.is_in_cluster()
        {
            legs.deal_out(slot_of);
        }
        legs
    }

    /// Deals the streams out by what their keys have in common, if that is not the
    /// same of all; whether it is not.
    fn deal_out<K: Ord>(&mut self, by: impl Fn(&str) -> K) -> bool {
        let Way::One(leg) = &mut self.way else {
            return false;
        };
        let sources = leg.deal_out(by);
        if sources.is_empty() {
            return false;
        }
        let notes = leg.link.take_notes();
        let mut shards = Shards::new(&self.maker, sources, notes);
        shards.has_map = leg.link.is_in_cluster();
        self.way = Way::Several(Box::new(shards));
        true
    }

    /// Gives up what a dropped future left half done, where it cannot go on.
    pub fn resume(&mut self) {
        if let Way::One(leg) = &mut self.way
            && leg.link.drop_if_spoiled()
        {
            leg.lost();
        }
    }

    /// Connects, and finds out where to begin.
    pub async fn open(&mut self) -> Result<()> {
        match &mut self.way {
            Way::One(leg) => leg.source.open(&mut leg.link).await,
            Way::Several(shards) => shards.open().await,
        }
    }

    /// Takes one step towards the rows asked for. May be cancelled, and goes on
    /// there when it is called again.
    pub async fn pull(&mut self, ask: Ask) -> Result<Pulled> {
        match &mut self.way {
            Way::One(leg) => leg.pull(ask).await,
            Way::Several(shards) => shards.pull(ask).await,
        }
    }

    /// What was done last failed.
    ///
    /// # Errors
    /// The error itself, if it will not pass, or has not for too long.
    pub fn failed(&mut self, error: Error) -> Result<()> {
        match &mut self.way {
            Way::One(leg) => {
                leg.failed(&error);
                if is_on_its_way(&error) && self.deal_out(str::to_owned) {
                    return Ok(());
                }
                self.failed_as_one(error)
            }
            Way::Several(shards) => shards.failed(error),
        }
    }

    fn failed_as_one(&mut self, error: Error) -> Result<()> {
        let Way::One(leg) = &mut self.way else {
            return Err(error);
        };
        let failed = leg.link.failed(error.clone());
        match is_of_cluster(&error) && self.deal_out(slot_of) {
            true => Ok(()),
            false => failed,
        }
    }

    /// An acknowledgement failed.
    ///
    /// # Errors
    /// As [`failed`](Self::failed).
    pub fn failed_to_acknowledge(&mut self, error: Error) -> Result<()> {
        if is_on_its_way(&error) && self.deal_out(str::to_owned) {
            return Ok(());
        }
        match &mut self.way {
            Way::One(leg) => leg.link.failed(error),
            // It was tried for long.
            Way::Several(_) => Err(error),
        }
    }

    /// The longest that a server is asked to block, if that is limited.
    pub fn longest_block(&self) -> Option<Duration> {
        match &self.way {
            Way::One(leg) => leg.link.longest_block(),
            Way::Several(_) => None,
        }
    }

    /// How far the first leg has come: the whole of it, unless the streams are dealt
    /// out.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Something went well: the next failure counts as the first.
    pub fn succeeded(&mut self) {
        if let Way::One(leg) = &mut self.way {
            leg.link.succeeded();
        }
    }

    pub fn has_note(&self) -> bool {
        match &self.way {
            Way::One(leg) => leg.link.has_note(),
            Way::Several(shards) => !shards.notes.is_empty(),
        }
    }

    pub fn next_note(&mut self) -> Option<Note> {
        match &mut self.way {
            Way::One(leg) => leg.link.next_note(),
            Way::Several(shards) => shards.notes.pop_front(),
        }
    }

    pub fn note(&mut self, level: Level, text: String) {
        match &mut self.way {
            Way::One(leg) => leg.link.note(level, text),
            Way::Several(shards) => shards.notes.push_back(Note::new(level, text)),
        }
    }

    /// Takes the first rows that are here. No reply may have come in part.
    pub fn take_rows(&mut self, rows: usize) -> Vec<Chunk> {
        match &mut self.way {
            Way::One(leg) => leg.source.rows(&leg.decoder).take(rows),
            Way::Several(shards) => shards.rows.take(rows),
        }
    }

    /// How many rows are here.
    pub fn row_count(&self) -> usize {
        match &self.way {
            Way::One(leg) => leg.source.row_count(),
            Way::Several(shards) => shards.rows.len(),
        }
    }

    /// Whether a reply has come in part to where the rows are.
    pub fn is_in_reply(&self) -> bool {
        match &self.way {
            Way::One(leg) => leg.source.is_in_reply(),
            Way::Several(_) => false,
        }
    }

    /// Whether all that was there has been read, as far as one can know.
    pub fn is_caught_up(&self) -> bool {
        match &self.way {
            Way::One(leg) => leg.source.is_caught_up(),
            Way::Several(shards) => shards.is_caught_up(),
        }
    }

    /// Whether batches are acknowledged before they are handed over.
    pub fn acknowledges(&self) -> bool {
        match &self.way {
            Way::One(leg) => leg.source.acknowledges(),
            Way::Several(shards) => shards.acknowledges(),
        }
    }

    /// Acknowledges the entries of a batch.
    pub async fn acknowledge(&mut self, parts: &[Part]) -> Result<()> {
        match &mut self.way {
            Way::One(leg) => leg.source.acknowledge(&mut leg.link, parts).await,
            Way::Several(shards) => shards.acknowledge(parts).await,
        }
    }

    /// Acknowledges them some time later, as it could not be done now.
    pub fn acknowledge_later(&mut self, parts: &[Part]) {
        match &mut self.way {
            Way::One(leg) => leg.source.acknowledge_later(parts),
            Way::Several(shards) => shards.unconfirmed.extend_from_slice(parts),
        }
    }

    /// Whether entries are still to be acknowledged that could not be before.
    pub fn owes_acknowledgement(&self) -> bool {
        match &self.way {
            Way::One(leg) => leg.source.owes_acknowledgement(),
            Way::Several(shards) => !shards.unconfirmed.is_empty(),
        }
    }

    /// Acknowledges them.
    pub async fn pay_acknowledgement(&mut self) -> Result<()> {
        match &mut self.way {
            Way::One(leg) => {
                leg.link.ask_anew();
                leg.source.pay_acknowledgement(&mut leg.link).await
            }
            Way::Several(shards) => shards.pay_acknowledgement().await,
        }
    }

    /// Does not.
    pub fn forget_acknowledgement(&mut self) {
        match &mut self.way {
            Way::One(leg) => leg.source.forget_acknowledgement(),
            Way::Several(shards) => shards.unconfirmed.clear(),
        }
    }

    /// Entries that were found deleted since this was last asked, by stream.
    pub fn take_deleted(&mut self) -> Vec<(Arc<str>, Vec<EntryId>)> {
        match &mut self.way {
            Way::One(leg) => leg.source.take_deleted(),
            Way::Several(shards) => std::mem::take(&mut shards.deleted),
        }
    }

    /// The field names seen so far, for rows that do not know their own.
    pub fn names(&self) -> &Names {
        match &self.way {
            Way::One(leg) => leg.decoder.names(),
            Way::Several(shards) => &shards.names,
        }
    }

    /// Bytes of replies with entries, connections made again, entries claimed.
    pub fn tally(&self) -> Tally {
        match &self.way {
            Way::One(leg) => Tally::of(leg),
            Way::Several(shards) => shards.tally(),
        }
    }

    /// This process is a forked child: the connections are its parent's, and are
    /// neither used nor closed here. Whether the legs can be used here.
    pub fn forget_connections(&mut self) -> bool {
        match &mut self.way {
            Way::One(leg) => {
                leg.link.forget();
                leg.lost();
                true
            }
            Way::Several(shards) => shards.forget_connections(),
        }
    }

    /// Ends it; a connection on which nothing is due is kept for others.
    pub fn close(self) {
        if let Way::One(mut leg) = self.way
            && !leg.link.drop_if_spoiled()
            && !leg.source.is_waiting()
        {
            leg.link.keep();
        }
    }
}

/// What a leg has done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    pub bytes: u64,
    pub reconnects: u64,
    pub claimed: u64,
}

impl Tally {
    pub fn of(leg: &Leg) -> Self {
        Self {
            bytes: leg.decoder.bytes(),
            reconnects: leg.link.reconnects(),
            claimed: leg.source.claimed(),
        }
    }
}

/// Whether an error says that not all keys are in one place.
fn is_of_cluster(error: &Error) -> bool {
    let Error::Response { reply, .. } = error else {
        return false;
    };
    matches!(reply.split(' ').next(), Some("CROSSSLOT" | "MOVED"))
}

/// Whether an error says that a hash slot is on its way from one server to another:
/// each of its keys is at either.
pub fn is_on_its_way(error: &Error) -> bool {
    let Error::Response { reply, .. } = error else {
        return false;
    };
    matches!(reply.split(' ').next(), Some("ASK" | "TRYAGAIN"))
}

fn slot_of(key: &str) -> Slot {
    Slot::of(key.as_bytes())
}

/// The numbers of streams by what their keys have in common; nothing if that is the
/// same of all.
pub fn grouped<'a, K: Ord>(
    keys: impl Iterator<Item = &'a str>,
    by: impl Fn(&str) -> K,
) -> Vec<Vec<usize>> {
    let mut grouped: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (number, key) in keys.enumerate() {
        grouped.entry(by(key)).or_default().push(number);
    }
    match grouped.len() {
        1 => Vec::new(),
        _ => grouped.into_values().collect(),
    }
}
