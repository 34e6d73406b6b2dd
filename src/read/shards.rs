//! Several legs at once: one for the streams of each hash slot of a cluster, or one
//! for each stream of a slot that was on its way from one server to another.
//!
//! Each leg that is asked runs by itself, and comes back with its answer. One that
//! is under way goes on whenever anybody waits for any of them: who stops waiting
//! stops nothing.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::acknowledge::{EntriesOf, FirstConnect, acknowledge};
use super::batch::Part;
use super::legs::{Leg, Maker, Tally, is_on_its_way};
use super::note::{About, Note, Notes};
use super::source::{Ask, Pulled, Rows, Source};
use crate::connection::Topology;
use crate::decode::Names;
use crate::entry_id::EntryId;
use crate::error::{Error, Result};

/// How long a batch is kept back for legs that may have more.
const GRACE: Duration = Duration::from_millis(20);

/// A leg that comes back.
struct Returned {
    number: usize,
    leg: Box<Leg>,
    result: Result<Pulled>,
}

type Running = Pin<Box<dyn Future<Output = Returned> + Send>>;

/// What a leg is asked for.
#[derive(Clone, Copy)]
enum Errand {
    Open,
    Pull(Ask),
}

/// The legs of a reader.
#[derive(Debug)]
pub struct Shards {
    maker: Maker,
    legs: Vec<Place>,
    running: FuturesUnordered<Running>,
    /// The leg that is asked next.
    next: usize,
    /// The one whose error was told last.
    failed: Option<usize>,
    /// Whether it was found out which server has what.
    pub has_map: bool,
    /// What was done by legs whose streams have parted.
    parted: Tally,
    group: Option<String>,
    /// Whether it was told that entries of other consumers are not claimed.
    has_told_of_claims: bool,
    pub rows: Rows,
    pub notes: VecDeque<Note>,
    pub names: Names,
    pub unconfirmed: Vec<Part>,
    pub deleted: Vec<(Arc<str>, Vec<EntryId>)>,
}

/// Where a leg is, and what it was when it was last here.
#[derive(Debug)]
struct Place {
    /// `None` while it is under way.
    leg: Option<Box<Leg>>,
    is_open: bool,
    has_ended: bool,
    is_caught_up: bool,
    /// Whether it had nothing.
    is_silent: bool,
    /// Whether what failed before counts no longer.
    begins_anew: bool,
    /// EntriesOf that it was asked for.
    asked: usize,
    tally: Tally,
}

impl Shards {
    /// A leg for each source.
    pub fn new(maker: &Maker, sources: Vec<(Arc<str>, Source)>, notes: Vec<Note>) -> Self {
        let group = sources.first().and_then(|(_, source)| source.group());
        let mut shards = Self {
            group: group.map(str::to_owned),
            maker: maker.clone(),
            legs: Vec::new(),
            running: FuturesUnordered::new(),
            next: 0,
            failed: None,
            has_map: false,
            parted: Tally::default(),
            has_told_of_claims: false,
            rows: Rows::default(),
            notes: notes.into(),
            names: Names::new(&maker.plan),
            unconfirmed: Vec::new(),
            deleted: Vec::new(),
        };
        for (stream, source) in sources {
            let place = shards.place(&stream, source);
            shards.legs.push(place);
        }
        shards
    }

    /// A place with a new leg.
    fn place(&mut self, stream: &str, source: Source) -> Place {
        let mut leg = Box::new(self.maker.leg(stream, source));
        leg.link.share_the_thread();
        self.unconfirmed.extend(leg.source.take_unconfirmed());
        self.take_in(&mut leg);
        Place {
            leg: Some(leg),
            is_open: false,
            has_ended: false,
            is_caught_up: false,
            is_silent: false,
            begins_anew: false,
            asked: 0,
            tally: Tally::default(),
        }
    }

    pub fn is_caught_up(&self) -> bool {
        let mut left = self.legs.iter().filter(|place| !place.has_ended);
        left.all(|place| place.is_caught_up)
    }

    pub fn acknowledges(&self) -> bool {
        let here = self.legs.iter().find_map(|place| place.leg.as_ref());
        here.is_some_and(|leg| leg.source.acknowledges())
    }

    pub fn tally(&self) -> Tally {
        let tallies = self.legs.iter().map(|place| place.tally);
        tallies.fold(self.parted, |sum, tally| Tally {
            bytes: sum.bytes + tally.bytes,
            reconnects: sum.reconnects + tally.reconnects,
            claimed: sum.claimed + tally.claimed,
        })
    }

    /// Asks once which server has what, rather than once a leg.
    async fn learn_map(&mut self) -> Result<()> {
        if !self.has_map {
            match Topology::find(&self.maker.deployment, self.maker.read_from).await {
                // Who may not ask learns it slot by slot.
                Ok(_) | Err(Error::Response { .. }) => self.has_map = true,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Connects all legs, and finds out where to begin.
    pub async fn open(&mut self) -> Result<()> {
        self.learn_map().await?;
        loop {
            for number in 0..self.legs.len() {
                if !self.legs[number].is_open {
                    self.start(number, Errand::Open);
                }
            }
            let Some(returned) = self.running.next().await else {
                return Ok(());
            };
            self.take_back(returned)?;
        }
    }

    /// Asks the legs that are here, and waits for one to come back.
    pub async fn pull(&mut self, ask: Ask) -> Result<Pulled> {
        self.learn_map().await?;
        self.pay_acknowledgement().await?;
        if self.legs.iter().all(|place| place.has_ended) {
            return Ok(Pulled::Ended);
        }
        self.ask_all(ask);
        let patience = match self.rows.len() {
            0 => None,
            _ if self.is_caught_up() => Some(ask.wait),
            _ => Some(ask.wait.max(GRACE)),
        };
        let returned = match patience {
            None => self.running.next().await,
            Some(patience) => match timeout(patience, self.running.next()).await {
                Ok(returned) => returned,
                Err(_) => return Ok(Pulled::Nothing),
            },
        };
        if let Some(returned) = returned {
            self.take_back(returned)?;
        }
        let mut left = self.legs.iter().filter(|place| !place.has_ended);
        let has_nothing = left.all(|place| place.is_silent);
        if !has_nothing {
            return Ok(Pulled::Some);
        }
        self.legs
            .iter_mut()
            .for_each(|place| place.is_silent = false);
        match self.legs.iter().all(|place| place.has_ended) {
            true => Ok(Pulled::Some),
            false => Ok(Pulled::Nothing),
        }
    }

    /// Asks the legs that are here. With a group they are not asked for more than is
    /// wanted, all together, except for an entry of each.
    fn ask_all(&mut self, ask: Ask) {
        let left = self.legs.iter().filter(|place| !place.has_ended).count();
        let share = (ask.wanted / left.max(1)).max(1);
        let is_under_way = |place: &&Place| place.leg.is_none();
        let under_way: usize = self.legs.iter().filter(is_under_way).map(|p| p.asked).sum();
        let limit = ask.limit.filter(|_| self.group.is_some());
        let mut room = limit.map_or(usize::MAX, |limit| limit.saturating_sub(under_way));
        let wait = match limit {
            // All have their turn.
            Some(limit) if limit < left => ask.wait.min(GRACE),
            _ => ask.wait,
        };
        for _ in 0..self.legs.len() {
            let number = self.next % self.legs.len();
            let place = &self.legs[number];
            if room == 0 {
                break;
            }
            self.next = number + 1;
            if place.leg.is_none() || place.has_ended || (place.is_silent && wait.is_zero()) {
                continue;
            }
            let wanted = share.min(room);
            room = room.saturating_sub(wanted);
            let limit = match limit {
                Some(_) => Some(wanted),
                None => ask.limit,
            };
            self.legs[number].asked = wanted;
            let ask = Ask {
                wanted,
                limit,
                wait,
            };
            self.start(number, Errand::Pull(ask));
        }
    }

    /// Sends a leg on its way, if it is here.
    fn start(&mut self, number: usize, errand: Errand) {
        if let Some(leg) = self.legs[number].leg.take() {
            self.running.push(Box::pin(run(number, leg, errand)));
        }
    }

    /// Takes a leg back that has come.
    fn take_back(&mut self, returned: Returned) -> Result<()> {
        let Returned {
            number,
            mut leg,
            result,
        } = returned;
        self.take_in(&mut leg);
        let place = &mut self.legs[number];
        place.tally = Tally::of(&leg);
        place.is_caught_up = leg.source.is_caught_up();
        place.asked = 0;
        place.leg = Some(leg);
        match result {
            Ok(pulled) => {
                place.is_open = true;
                place.is_silent = pulled == Pulled::Nothing;
                place.has_ended = pulled == Pulled::Ended;
                place.begins_anew = false;
                Ok(())
            }
            Err(error) => {
                place.is_silent = false;
                self.failed = Some(number);
                Err(error)
            }
        }
    }

    /// Takes what a leg has brought.
    fn take_in(&mut self, leg: &mut Leg) {
        for note in leg.link.take_notes() {
            let is_told = note.about == About::Claims
                && std::mem::replace(&mut self.has_told_of_claims, true);
            if !is_told {
                self.notes.push_back(note);
            }
        }
        self.deleted.extend(leg.source.take_deleted());
        if !leg.source.is_in_reply() {
            let rows = leg.source.rows(&leg.decoder);
            for chunk in rows.take(rows.len()) {
                self.rows.push(chunk);
            }
        }
    }

    /// The leg whose error was told last tries again, or does not. Once one does not,
    /// whoever asks again begins anew with all of them.
    pub fn failed(&mut self, error: Error) -> Result<()> {
        let Some(number) = self.failed.take() else {
            return Err(error);
        };
        let Some(mut leg) = self.legs[number].leg.take() else {
            return Err(error);
        };
        leg.failed(&error);
        if is_on_its_way(&error) {
            let sources = leg.deal_out(str::to_owned);
            if !sources.is_empty() {
                self.part(number, &mut leg, sources);
                return Ok(());
            }
        }
        if std::mem::take(&mut self.legs[number].begins_anew) {
            leg.link.succeeded();
        }
        let result = leg.link.failed(error);
        self.take_in(&mut leg);
        self.legs[number].leg = Some(leg);
        if result.is_err() {
            let all = self.legs.iter_mut();
            all.for_each(|place| place.begins_anew = true);
        }
        result
    }

    /// Has each stream of a leg go its own way from now on.
    fn part(&mut self, number: usize, leg: &mut Leg, sources: Vec<(Arc<str>, Source)>) {
        self.take_in(leg);
        // What was claimed goes along.
        self.parted.bytes += leg.decoder.bytes();
        self.parted.reconnects += leg.link.reconnects();
        for (at, (stream, source)) in sources.into_iter().enumerate() {
            let mut place = self.place(&stream, source);
            if let Some(leg) = &mut place.leg {
                // Another one of the cluster told of it.
                leg.link.expect_server();
            }
            match at {
                0 => self.legs[number] = place,
                _ => self.legs.push(place),
            }
        }
    }

    /// Acknowledges entries, on connections that are not waiting for any.
    pub async fn acknowledge(&mut self, parts: &[Part]) -> Result<()> {
        let Some(group) = &self.group else {
            return Ok(());
        };
        let entries = parts
            .iter()
            .map(|part| (part.stream.clone(), part.ids.clone()));
        let entries: Vec<EntriesOf> = entries.collect();
        let deployment = &self.maker.deployment;
        let (first, notes) = (FirstConnect::IsRetried, Notes::default());
        let done = acknowledge(deployment, group, &entries, first, &notes).await;
        self.notes.extend(notes.take());
        done.map(|_| ())
    }

    /// Acknowledges what could not be before.
    pub async fn pay_acknowledgement(&mut self) -> Result<()> {
        if !self.unconfirmed.is_empty() {
            let parts = self.unconfirmed.clone();
            self.acknowledge(&parts).await?;
            self.unconfirmed.clear();
        }
        Ok(())
    }

    /// Leaves the connections to the parent of this process; whether all legs are
    /// here, as those that are not are in the middle of something of the parent's.
    pub fn forget_connections(&mut self) -> bool {
        let all_are_here = self.running.is_empty();
        std::mem::forget(std::mem::take(&mut self.running));
        let here = self.legs.iter_mut().filter_map(|place| place.leg.as_mut());
        for leg in here {
            leg.link.forget();
            leg.lost();
        }
        all_are_here
    }
}

async fn run(number: usize, mut leg: Box<Leg>, errand: Errand) -> Returned {
    let result = match errand {
        Errand::Open => leg.source.open(&mut leg.link).await.map(|()| Pulled::Some),
        Errand::Pull(ask) => leg.pull(ask).await,
    };
    Returned {
        number,
        leg,
        result,
    }
}
