//! Rows of batch after batch, to whichever servers have their keys.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use super::batch::Batch;
use super::lane::{Lane, Redirected, Shared, Until, find};
use super::outcome::Outcome;
use super::statement::{Place, Statement};
use crate::connection::{RedirectKind, Route, Slot, Topology};
use crate::deployment::{Deployment, ReadFrom};
use crate::error::{Error, Result};

/// How long rows are sent after a slot that is on its way from server to server.
const REDIRECT_BUDGET: Duration = Duration::from_secs(10);
/// The pause before the next attempt, from the second one on.
const REDIRECT_PAUSE: Duration = Duration::from_millis(20);

/// What ended a write.
#[derive(Debug)]
pub struct Failure {
    /// The row that was refused first, if one was.
    pub refused: Option<u64>,
    pub error: Error,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            refused: None,
            error,
        }
    }
}

/// Writes rows of batch after batch.
///
/// After a failure, or a future that was dropped, it is of no more use but to tell
/// what became of the rows.
#[derive(Debug)]
pub struct Writer {
    deployment: Arc<Deployment>,
    shared: Shared,
    lanes: Vec<Lane>,
    /// Where the rows' keys are, if each row says its own.
    places: Option<Places>,
    /// Those with rows that are not done with.
    batches: VecDeque<Batch>,
    /// How many rows there are in all, as far as that is known.
    expected: u64,
}

/// Which lane has which key.
#[derive(Debug)]
struct Places {
    topology: Topology,
    by_slot: HashMap<Slot, usize>,
}

impl Writer {
    /// Writes rows as the statement says. Nothing is sent yet.
    pub fn new(deployment: Arc<Deployment>, statement: Box<dyn Statement>) -> Self {
        Self {
            deployment,
            shared: Shared::new(statement),
            lanes: Vec::new(),
            places: None,
            batches: VecDeque::new(),
            expected: 0,
        }
    }

    /// There are so many rows in all: those that were not given yet are not written.
    pub fn expect_rows(&mut self, rows: u64) {
        self.expected = rows;
    }

    /// Whether there are rows that cannot be sent.
    pub fn is_choosy(&self) -> bool {
        self.shared.statement.is_choosy()
    }

    /// Whether all rows of a batch can be sent at all; nothing is.
    ///
    /// # Errors
    /// [`Error::Argument`], naming the first row that cannot.
    pub fn check(&self, batch: &Batch) -> Result<()> {
        self.shared.statement.check(batch)
    }

    /// Sends the rows of a batch, which come after those of the one before. The
    /// replies to the last of them may be due when this ends.
    ///
    /// # Errors
    /// What a server has refused first, or what befell the way to one.
    pub async fn write(&mut self, batch: Batch) -> Result<(), Failure> {
        self.check(&batch)?;
        let rows = batch.first_row()..batch.end();
        self.shared.outcome().extend_to(batch.end());
        self.forget_answered();
        self.batches.push_back(batch);
        self.send(rows.collect(), Until::Queued).await
    }

    /// Waits for the replies to all rows, and lets the connections go.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    pub async fn finish(&mut self) -> Result<(), Failure> {
        self.send(Vec::new(), Until::Answered).await?;
        self.lanes.iter_mut().for_each(Lane::keep);
        Ok(())
    }

    /// What became of the rows. Those whose replies are due are unsure from now on.
    pub fn outcome(&mut self) -> &mut Outcome {
        let outcome = self.shared.outcome.get_mut();
        let outcome = outcome.unwrap_or_else(std::sync::PoisonError::into_inner);
        for lane in &mut self.lanes {
            lane.give_up(outcome);
        }
        outcome.extend_to(self.expected);
        outcome
    }

    fn forget_answered(&mut self) {
        let oldest = self.lanes.iter().filter_map(Lane::oldest).min();
        while let Some(batch) = self.batches.front()
            && oldest.is_none_or(|oldest| batch.end() <= oldest)
        {
            self.batches.pop_front();
        }
    }

    async fn send(&mut self, rows: Vec<u64>, until: Until) -> Result<(), Failure> {
        let mut rows = rows;
        let mut attempts = Attempts::default();
        loop {
            self.assign(&rows).await?;
            self.run(until).await;
            if !self.shared.is_stopped() {
                return Ok(());
            }
            self.run(Until::Answered).await;
            if let Some(failure) = self.shared.take_failure() {
                return Err(failure);
            }
            rows = self.after_redirects(&mut attempts).await?;
        }
    }

    /// Lets all lanes run at the same time.
    async fn run(&mut self, until: Until) {
        let (shared, batches) = (&self.shared, &self.batches);
        join_all(
            self.lanes
                .iter_mut()
                .map(|lane| lane.run(shared, batches, until)),
        )
        .await;
    }

    /// Gives each row to the lane that leads to its key.
    async fn assign(&mut self, rows: &[u64]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        if self.lanes.is_empty() {
            self.open_lanes().await?;
        }
        let Some(places) = &mut self.places else {
            let lane = self.lanes.first_mut();
            lane.into_iter()
                .for_each(|lane| rows.iter().for_each(|&row| lane.push(row)));
            return Ok(());
        };
        let mut scratch = Vec::new();
        for &row in rows {
            let Some((batch, at)) = find(&self.batches, row) else {
                continue;
            };
            let key = self.shared.statement.key(batch, at, &mut scratch);
            let lane = places.lane_of(key);
            if let Some(lane) = self.lanes.get_mut(lane) {
                lane.push(row);
            }
        }
        Ok(())
    }

    async fn open_lanes(&mut self) -> Result<()> {
        if let Place::One(key) = self.shared.statement.place() {
            let route = Route::new(self.deployment.clone(), Slot::of(key), ReadFrom::Master);
            self.lanes = vec![Lane::new(route, false)];
            return Ok(());
        }
        let topology = Topology::find(&self.deployment, ReadFrom::Master).await?;
        let in_cluster = topology.is_cluster();
        let routes = topology.routes().into_iter();
        self.lanes = routes.map(|route| Lane::new(route, in_cluster)).collect();
        self.places = Some(Places {
            topology,
            by_slot: HashMap::new(),
        });
        Ok(())
    }

    /// Writes the rows that servers of a cluster have sent elsewhere, in their order;
    /// nothing else is under way meanwhile. Gives the rows that are still to be sent.
    async fn after_redirects(&mut self, attempts: &mut Attempts) -> Result<Vec<u64>, Failure> {
        let mut redirected = Vec::new();
        let mut todo = Vec::new();
        for lane in &mut self.lanes {
            redirected.extend(lane.take_redirected());
            todo.extend(lane.take_todo());
            lane.keep();
        }
        attempts.next(&redirected, &self.shared).await?;
        self.shared.go_on();
        // The map of the slots is another one now.
        self.lanes.clear();
        self.places = None;
        let is_transaction = self.shared.statement.commands() > 1;
        for (_, of_slot) in by_slot(redirected) {
            let Some(first) = of_slot.first() else {
                continue;
            };
            if is_transaction && first.redirect.kind == RedirectKind::Ask {
                // It has to be in one place: the slot will soon have arrived.
                todo.extend(of_slot.iter().map(|redirected| redirected.row));
                continue;
            }
            todo.extend(self.follow(&of_slot).await?);
        }
        todo.sort_unstable();
        Ok(todo)
    }

    /// Writes rows of one slot where a server has said that it is; gives those that
    /// were sent elsewhere again.
    async fn follow(&mut self, rows: &[Redirected]) -> Result<Vec<u64>, Failure> {
        let Some(first) = rows.first() else {
            return Ok(Vec::new());
        };
        let slot = first.redirect.slot;
        let mut route = Route::new(self.deployment.clone(), slot, ReadFrom::Master);
        route.redirect(first.redirect.clone());
        let mut lane = Lane::new(route, true);
        rows.iter().for_each(|redirected| lane.push(redirected.row));
        self.lanes.push(lane);
        self.run(Until::Answered).await;
        if let Some(failure) = self.shared.take_failure() {
            return Err(failure);
        }
        self.shared.go_on();
        let mut again = Vec::new();
        if let Some(mut lane) = self.lanes.pop() {
            again.extend(
                lane.take_redirected()
                    .iter()
                    .map(|redirected| redirected.row),
            );
            again.extend(lane.take_todo());
            lane.keep();
        }
        Ok(again)
    }
}

impl Places {
    fn lane_of(&mut self, key: &[u8]) -> usize {
        let slot = Slot::of(key);
        let topology = &self.topology;
        *self
            .by_slot
            .entry(slot)
            .or_insert_with(|| topology.shard_of(key))
    }
}

fn by_slot(redirected: Vec<Redirected>) -> BTreeMap<Slot, Vec<Redirected>> {
    let mut by_slot = BTreeMap::<Slot, Vec<Redirected>>::new();
    for one in redirected {
        by_slot.entry(one.redirect.slot).or_default().push(one);
    }
    by_slot
        .values_mut()
        .for_each(|rows| rows.sort_unstable_by_key(|one| one.row));
    by_slot
}

/// Attempts to find rows' servers, and for how long there were some.
#[derive(Debug, Default)]
struct Attempts {
    begun: Option<Instant>,
}

impl Attempts {
    /// Pauses before the next one, but for the first.
    ///
    /// # Errors
    /// If it has been tried for too long: what the server said last.
    async fn next(&mut self, redirected: &[Redirected], shared: &Shared) -> Result<(), Failure> {
        let Some(begun) = self.begun else {
            self.begun = Some(Instant::now());
            return Ok(());
        };
        let first = redirected.iter().min_by_key(|one| one.row);
        if let Some(first) = first
            && begun.elapsed() > REDIRECT_BUDGET
        {
            let context = shared.statement.kind().to_owned();
            let reply = first.reply.clone();
            return Err(Failure {
                refused: Some(first.row),
                error: Error::Response { context, reply },
            });
        }
        sleep(REDIRECT_PAUSE).await;
        Ok(())
    }
}
