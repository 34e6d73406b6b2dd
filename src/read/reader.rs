//! Batch after batch of a stream, for iterators and for reads that wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, Part};
use super::group::{Group, GroupQuery, Groups};
use super::legs::{Legs, Maker, Tally};
use super::note::{Level, Note};
use super::source::{Ask, Pulled, Source};
use super::tail::{Tail, TailQuery};
use super::tails::{Tails, TailsQuery};
use crate::decode::{Meter, Plan, Table};
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::EntryId;
use crate::error::{Error, Result};

/// The longest that a server is asked to block: a peer that is gone is noticed a
/// little after that, however long a reader waits.
const LONGEST_BLOCK: Duration = Duration::from_secs(10);

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// A stream's entries, in order.
    Tail(TailQuery),
    /// Several streams' entries, those of each in order.
    Tails(TailsQuery),
    /// As a consumer of a group.
    Group(GroupQuery),
    /// As a consumer of a group of each of several streams.
    Groups(Vec<GroupQuery>),
}

impl Query {
    /// The name of the group, if it is a group read.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Tail(_) | Self::Tails(_) => None,
            Self::Group(query) => Some(&query.consumer.group),
            Self::Groups(queries) => queries.first().map(|query| &*query.consumer.group),
        }
    }

    fn stream(&self) -> &str {
        match self {
            Self::Tail(query) => &query.stream,
            Self::Tails(query) => query.streams.first().map_or("", |(key, _)| key),
            Self::Group(query) => &query.consumer.stream,
            Self::Groups(queries) => queries.first().map_or("", |query| &query.consumer.stream),
        }
    }

    fn read_from(&self) -> ReadFrom {
        match self {
            Self::Tail(query) => query.read_from,
            Self::Tails(query) => query.read_from,
            // What is given to a consumer is written down.
            Self::Group(_) | Self::Groups(_) => ReadFrom::Master,
        }
    }
}

/// What to do when nothing is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// End.
    Never,
    /// Wait for so long, once, and end if nothing came.
    Once(Duration),
    /// Wait in rounds of this length, for ever.
    Rounds(Duration),
}

/// How large batches are, and how long to wait for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The most rows of a batch.
    pub batch_size: usize,
    /// The most entries in all.
    pub count: Option<usize>,
    pub wait: Wait,
    /// How much longer to wait for a fuller batch.
    pub linger: Duration,
    /// How long to try to connect again before giving up.
    pub reconnect: Duration,
    /// Whether the rows before an error are not handed over.
    pub all_or_nothing: bool,
}

/// What a reader has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A [`batch`](Reader::batch) is ready.
    Batch,
    /// There is a [`note`](Reader::take_note) to tell; it goes on.
    Note,
    /// There is nothing more.
    End,
}

/// What a reader has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Batches handed over.
    pub batches: u64,
    /// Entries handed over.
    pub entries: u64,
    /// Bytes of the replies that held entries.
    pub bytes: u64,
    /// How often a lost connection was made again.
    pub reconnects: u64,
    /// Entries taken over from other consumers.
    pub claimed: u64,
}

/// Reads a stream, batch after batch.
///
/// A batch is there until it [was handed over](Self::handed_over). Any future
/// of this type may be dropped: nothing is lost, and the next call goes on where
/// it was. After an error, too, the reader is where it was.
#[derive(Debug)]
pub struct Reader {
    plan: Arc<Plan>,
    legs: Legs,
    pace: Pace,
    /// Entries that may still be handed over.
    left: Option<usize>,
    /// When the first row of the next batch was here.
    first_row: Option<Instant>,
    /// Whether the next batch will not get fuller.
    is_settled: bool,
    /// When to stop waiting for a first one.
    deadline: Option<Instant>,
    /// An error that waits for the rows before it to be handed over.
    error: Option<Error>,
    /// The stream of rows that do not say themselves of which they are.
    stream: Arc<str>,
    acknowledging: Option<Batch>,
    ready: Option<Batch>,
    /// Whether it has come to its end, which is for good.
    has_ended: bool,
    last_id: Option<EntryId>,
    last_batch: Vec<Part>,
    stats: Stats,
}

impl Reader {
    /// A reader that has done nothing yet.
    pub fn new(deployment: Arc<Deployment>, query: Query, plan: Plan, pace: Pace) -> Self {
        let plan = Arc::new(plan.keeping_entry_ids());
        let maker = Maker {
            deployment,
            read_from: query.read_from(),
            budget: pace.reconnect,
            plan: plan.clone(),
        };
        let stream: Arc<str> = query.stream().into();
        Self {
            legs: Legs::new(maker, &stream, source_of(query, &plan)),
            stream,
            plan,
            left: pace.count,
            pace,
            first_row: None,
            is_settled: false,
            deadline: None,
            error: None,
            acknowledging: None,
            ready: None,
            has_ended: false,
            last_id: None,
            last_batch: Vec::new(),
            stats: Stats::default(),
        }
    }

    /// Connects, and finds out what `$` means now. [`advance`](Self::advance)
    /// does so by itself.
    pub async fn open(&mut self) -> Result<()> {
        self.legs.resume();
        while let Err(error) = self.legs.open().await {
            self.failed(error)?;
        }
        Ok(())
    }

    /// Goes on to the next batch, or to what else there is to know.
    pub async fn advance(&mut self) -> Result<Step> {
        self.legs.resume();
        loop {
            if self.legs.has_note() {
                return Ok(Step::Note);
            }
            if self.acknowledging.is_some() {
                self.acknowledge().await?;
                continue;
            }
            if self.ready.is_some() {
                return Ok(Step::Batch);
            }
            if self.has_ended || self.left == Some(0) {
                self.settle().await;
                if self.legs.has_note() {
                    continue;
                }
                return Ok(Step::End);
            }
            if self.is_batch_due() {
                self.make_batch();
                continue;
            }
            if let Some(error) = self.error.take() {
                return Err(error);
            }
            let (ask, held) = self.ask();
            match self.legs.pull(ask).await {
                Ok(Pulled::Some) => {}
                Ok(Pulled::Nothing) if held > 0 => self.is_settled = self.has_lingered(),
                Ok(Pulled::Nothing) if self.goes_on_waiting() => {}
                Ok(Pulled::Ended) if self.legs.row_count() > 0 => self.is_settled = true,
                Ok(Pulled::Nothing | Pulled::Ended) => self.has_ended = true,
                Err(error) => self.failed(error)?,
            }
        }
    }

    fn failed(&mut self, error: Error) -> Result<()> {
        match self.legs.failed(error) {
            Err(error) if self.legs.row_count() > 0 && !self.pace.all_or_nothing => {
                self.error = Some(error);
                Ok(())
            }
            result => result,
        }
    }

    /// Rows of the next batch.
    fn wanted(&self) -> usize {
        self.left
            .map_or(self.pace.batch_size, |left| left.min(self.pace.batch_size))
    }

    fn ask(&mut self) -> (Ask, usize) {
        let held = self.legs.row_count();
        let wait = match held {
            0 => self.patience(),
            _ => self.pace.linger.saturating_sub(self.lingered()),
        };
        let ask = Ask {
            wanted: self.wanted().saturating_sub(held).max(1),
            limit: self.left.map(|left| left.saturating_sub(held)),
            wait: wait.min(self.legs.longest_block().unwrap_or(LONGEST_BLOCK)),
        };
        (ask, held)
    }

    /// How long to wait for a first row.
    fn patience(&mut self) -> Duration {
        match self.pace.wait {
            Wait::Never => Duration::ZERO,
            Wait::Rounds(round) if round.is_zero() => LONGEST_BLOCK,
            Wait::Rounds(round) => round,
            Wait::Once(whole) => {
                let deadline = self.deadline.get_or_insert_with(|| Instant::now() + whole);
                left_until(*deadline)
            }
        }
    }

    fn goes_on_waiting(&mut self) -> bool {
        match self.pace.wait {
            Wait::Never => false,
            Wait::Rounds(_) => true,
            Wait::Once(_) => self.patience() > Duration::ZERO,
        }
    }

    /// How long the first row of the next batch has been here.
    fn lingered(&mut self) -> Duration {
        self.first_row.get_or_insert_with(Instant::now).elapsed()
    }

    fn has_lingered(&mut self) -> bool {
        self.lingered() >= self.pace.linger
    }

    fn is_batch_due(&mut self) -> bool {
        let held = self.legs.row_count();
        if held == 0 || self.legs.is_in_reply() {
            return false;
        }
        held >= self.wanted()
            || self.is_settled
            || self.error.is_some()
            || (self.legs.is_caught_up() && self.has_lingered())
    }

    fn make_batch(&mut self) {
        let wanted = self.wanted();
        let chunks = self.legs.take_rows(wanted);
        self.first_row = None;
        self.is_settled = false;
        let deleted = self.legs.take_deleted();
        let batch = Batch::new(chunks, &self.stream, deleted);
        match self.legs.acknowledges() {
            true => self.acknowledging = Some(batch),
            false => self.ready = Some(batch),
        }
    }

    /// Acknowledges the batch that is ready otherwise. It is handed over even if
    /// nobody knows whether it is acknowledged: then that is done again later.
    async fn acknowledge(&mut self) -> Result<()> {
        let parts = match &self.acknowledging {
            Some(batch) => batch.parts.clone(),
            None => return Ok(()),
        };
        let result = self.legs.acknowledge(&parts).await;
        match result {
            Ok(()) => self.legs.succeeded(),
            Err(error) if error.is_unreachable() => match self.legs.failed_to_acknowledge(error) {
                // Nobody comes back to it later.
                Ok(()) if self.pace.all_or_nothing => return Ok(()),
                Err(_) if self.pace.all_or_nothing => {}
                result => {
                    self.legs.acknowledge_later(&parts);
                    self.error = result.err();
                }
            },
            Err(error) => return self.legs.failed_to_acknowledge(error),
        }
        self.ready = self.acknowledging.take();
        Ok(())
    }

    /// The next thing to tell.
    pub fn take_note(&mut self) -> Option<Note> {
        self.legs.next_note()
    }

    /// Acknowledges at the end what could not be acknowledged before, unless the
    /// server stays away: then it remains pending, and the log says so.
    async fn settle(&mut self) {
        while self.legs.owes_acknowledgement() {
            let paid = self.legs.pay_acknowledgement().await;
            let Err(error) = paid else { break };
            if let Err(error) = self.legs.failed_to_acknowledge(error) {
                let text = format!("entries that were handed over stay pending: {error}");
                self.legs.note(Level::Warning, text);
                self.legs.forget_acknowledgement();
            }
        }
    }

    /// The batch that is ready. It stays so until it
    /// [was handed over](Self::handed_over).
    pub fn batch(&self) -> Option<Table> {
        let batch = self.ready.as_ref()?;
        let chunks = batch.chunks.clone();
        Some(Table::new(&self.plan, self.legs.names(), chunks))
    }

    /// The batch that was ready is the user's now.
    pub fn handed_over(&mut self) {
        let Some(batch) = self.ready.take() else {
            return;
        };
        self.stats.batches += 1;
        self.stats.entries += batch.rows as u64;
        self.left = self.left.map(|left| left.saturating_sub(batch.rows));
        self.last_id = batch.last.or(self.last_id);
        self.last_batch = batch.parts;
    }

    /// The last entry handed over.
    pub fn last_id(&self) -> Option<EntryId> {
        self.last_id
    }

    /// What the last batch handed over was made of, by stream.
    pub fn last_batch(&self) -> &[Part] {
        &self.last_batch
    }

    /// A table without rows.
    pub fn empty(&self) -> Table {
        Table::new(&self.plan, self.legs.names(), Vec::new())
    }

    /// This process is a forked child: the connection is its parent's, and is
    /// neither used nor closed here. Whether the reader can be used here.
    pub fn forget_connection(&mut self) -> bool {
        self.legs.forget_connections()
    }

    /// How far it has come.
    pub fn meter(&self) -> &Arc<Meter> {
        self.legs.meter()
    }

    /// What was done so far.
    pub fn stats(&self) -> Stats {
        let Tally {
            bytes,
            reconnects,
            claimed,
        } = self.legs.tally();
        Stats {
            bytes,
            reconnects,
            claimed,
            ..self.stats
        }
    }

    /// Ends it; a connection on which nothing is due is kept for others.
    pub fn close(self) {
        self.legs.close();
    }
}

/// Where the entries of a query come from.
fn source_of(query: Query, plan: &Arc<Plan>) -> Source {
    let plan = plan.clone();
    match query {
        Query::Tail(query) => Source::Tail(Box::new(Tail::new(query, plan))),
        Query::Tails(query) => Source::Tails(Box::new(Tails::new(query, plan))),
        Query::Group(query) => Source::Group(Box::new(Group::new(query, plan))),
        Query::Groups(queries) => Source::Groups(Box::new(Groups::new(queries, plan))),
    }
}

fn left_until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
