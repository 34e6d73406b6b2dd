//! Reads many streams, batch after batch: by key, then by entry ID.
//!
//! Each server that has some of them is read over a connection of its own, all at the
//! same time; what they give is put together in the order of the keys.

mod asks;
pub(super) mod keys;
mod shard;

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::try_join_all;

use super::condition::Condition;
use super::note::{Note, Notes};
use super::source::Rows;
use crate::connection::{Route, Slot};
use crate::decode::{Chunk, Meter, Names, Plan, Table};
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::{End, IdRange, Start};
use crate::error::{Error, Result};
pub use keys::find_keys;
use shard::Shard;

/// Rows that are read ahead of a server at the least, where another one is waited for.
const MIN_AHEAD: usize = 1000;

/// Which streams to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those whose keys match a glob pattern.
    Matching(String),
    /// Those with these keys.
    Keys(Vec<Arc<str>>),
}

/// What to read of each stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entries {
    pub start: Start,
    pub end: End,
    /// The most entries of each stream.
    pub count: Option<usize>,
    /// What else is known of the entries that are wanted. With a `count` the first
    /// entries count that lie between start and end, wanted or not.
    pub condition: Condition,
    pub read_from: ReadFrom,
}

/// What to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsQuery {
    pub which: Which,
    pub entries: Entries,
    /// The most rows of all streams together.
    pub limit: Option<usize>,
}

impl Entries {
    /// The IDs to ask for; none, if there cannot be any.
    fn range(&self) -> Option<IdRange> {
        let (Start::At(start), End::At(end)) = (self.start, self.end) else {
            return None;
        };
        let range = IdRange::new(start, end).filter(|_| self.count != Some(0))?;
        self.condition.narrow(range, self.count, None)
    }
}

/// Reads many streams at once, by key, then by entry ID.
///
/// # Errors
/// As [`Streams::next`].
pub async fn read_streams(
    deployment: &Arc<Deployment>,
    query: StreamsQuery,
    plan: Plan,
    notes: &Notes,
) -> Result<Table> {
    let mut streams = Streams::new(deployment.clone(), query, Arc::new(plan));
    let table = streams.read_all().await;
    notes.add(streams.close());
    table
}

/// Reads many streams, batch after batch.
///
/// Which streams there are is found out when the first batch is asked for. One that
/// is gone when it is read has no entries; of one that is long, those count that are
/// there when that shows. A connection that breaks is made again for up to ten
/// seconds, and the read goes on after the last entry decoded.
#[derive(Debug)]
pub struct Streams {
    deployment: Arc<Deployment>,
    query: StreamsQuery,
    plan: Arc<Plan>,
    phase: Phase,
    /// Rows that are here and were not handed over.
    rows: Rows,
    /// Rows that may still be handed over.
    left: Option<usize>,
    meter: Arc<Meter>,
    notes: VecDeque<Note>,
}

#[derive(Debug)]
enum Phase {
    Begin,
    Reading(Merge),
}

impl Streams {
    /// A reader that has done nothing yet.
    pub fn new(deployment: Arc<Deployment>, query: StreamsQuery, plan: Arc<Plan>) -> Self {
        Self {
            deployment,
            plan,
            phase: Phase::Begin,
            rows: Rows::default(),
            left: query.limit,
            meter: Arc::default(),
            notes: VecDeque::new(),
            query,
        }
    }

    /// All rows.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn read_all(&mut self) -> Result<Table> {
        let table = self.next(usize::MAX).await?;
        Ok(table.unwrap_or_else(|| self.empty()))
    }

    /// How far it has come.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// The next rows, as many as are wanted unless there are no more; `None` after
    /// the last.
    ///
    /// # Errors
    /// Any of [`Error`]'s; where values do not fit their dtypes, the error of the
    /// first such entry. The reader is of no more use then.
    pub async fn next(&mut self, wanted: usize) -> Result<Option<Table>> {
        let wanted = self.left.map_or(wanted, |left| left.min(wanted));
        while self.rows.len() < wanted {
            let Phase::Reading(merge) = &mut self.phase else {
                self.phase = Phase::Reading(self.begin().await?);
                continue;
            };
            let taken = merge.take(&mut self.rows);
            let missing = wanted.saturating_sub(self.rows.len());
            if missing == 0 || merge.is_finished() {
                break;
            }
            taken?;
            let most = self.left.map(|left| left.saturating_sub(self.rows.len()));
            let read = merge.read(missing, most).await;
            self.notes.extend(merge.take_notes());
            read?;
        }
        let chunks = self.rows.take(wanted);
        if chunks.is_empty() {
            return Ok(None);
        }
        let table = self.table(chunks);
        self.left = self.left.map(|left| left - table.rows);
        Ok(Some(table))
    }

    /// Finds out which streams there are, and who has them.
    async fn begin(&mut self) -> Result<Merge> {
        let Some(range) = self.query.entries.range() else {
            return Ok(Merge::default());
        };
        let read_from = self.query.entries.read_from;
        let keys = match &self.query.which {
            Which::Keys(keys) => keys.clone(),
            Which::Matching(pattern) => {
                let notes = Notes::default();
                let keys = find_keys(&self.deployment, pattern, read_from, &notes).await;
                self.notes.extend(notes.take());
                keys?
            }
        };
        let shard = |route, keys| {
            let entries = self.query.entries.clone();
            let shard = Shard::new(route, keys, range, entries, self.plan.clone());
            self.meter.add_part(shard.meter());
            shard
        };
        if let [key] = keys.as_slice() {
            let slot = Slot::of(key.as_bytes());
            let route = Route::new(self.deployment.clone(), slot, read_from);
            return Ok(Merge::of(vec![shard(route, keys)], vec![0]));
        }
        let notes = Notes::default();
        let topology = keys::topology(&self.deployment, read_from, &notes).await;
        self.notes.extend(notes.take());
        let topology = topology?;
        let (parts, owners) = keys::divide(&topology, keys);
        let routes = topology.routes().into_iter().zip(parts);
        let mut shards: Vec<_> = routes.map(|(route, keys)| shard(route, keys)).collect();
        shards.iter_mut().for_each(Shard::expect_server);
        Ok(Merge::of(shards, owners))
    }

    fn table(&self, chunks: Vec<Chunk>) -> Table {
        // Chunks know the names of the columns that were discovered.
        Table::new(&self.plan, &Names::new(&self.plan), chunks).joined()
    }

    /// A table without rows.
    pub fn empty(&self) -> Table {
        self.table(Vec::new())
    }

    /// The next thing to tell.
    pub fn take_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// This process is a forked child: the connections are its parent's, and are
    /// neither used nor closed here.
    pub fn forget_connection(&mut self) {
        if let Phase::Reading(merge) = &mut self.phase {
            merge.shards.iter_mut().for_each(Shard::forget_connection);
        }
    }

    /// Ends it; connections on which nothing is due are kept for others. Gives what
    /// there is left to tell.
    pub fn close(self) -> Vec<Note> {
        let mut notes: Vec<_> = self.notes.into();
        if let Phase::Reading(merge) = self.phase {
            notes.extend(merge.shards.into_iter().flat_map(Shard::close));
        }
        notes
    }
}

/// What several servers give, in the order of the keys.
#[derive(Debug, Default)]
struct Merge {
    shards: Vec<Shard>,
    /// Of each stream, in order, which shard has it.
    owners: Vec<usize>,
    /// How many streams were handed over whole.
    given: usize,
}

impl Merge {
    fn of(shards: Vec<Shard>, owners: Vec<usize>) -> Self {
        Self {
            shards,
            owners,
            given: 0,
        }
    }

    fn is_finished(&self) -> bool {
        self.given == self.owners.len()
    }

    /// Takes the rows at hand, up to the first that is not there.
    ///
    /// # Errors
    /// That of the first entry that does not fit, where it is the next.
    fn take(&mut self, rows: &mut Rows) -> Result<()> {
        while let Some(&owner) = self.owners.get(self.given) {
            let left = self.owners[self.given..].iter();
            let streams = left.take_while(|&&other| other == owner).count();
            let shard = &mut self.shards[owner];
            let given = shard.give(streams, rows);
            self.given += given;
            if given < streams {
                let misfit = shard.misfit().cloned();
                return misfit.map_or(Ok(()), |misfit| Err(Error::Decode(Box::new(misfit))));
            }
        }
        Ok(())
    }

    /// Reads on where too little is at hand.
    async fn read(&mut self, missing: usize, most: Option<usize>) -> Result<()> {
        let reading = self.shards.len().max(1);
        let enough = (missing / reading).max(MIN_AHEAD.min(missing));
        try_join_all(self.shards.iter_mut().map(|shard| shard.read(enough, most))).await?;
        Ok(())
    }

    fn take_notes(&mut self) -> impl Iterator<Item = Note> {
        self.shards.iter_mut().flat_map(Shard::take_notes)
    }
}
