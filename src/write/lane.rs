//! One connection of a write: rows go out a bounded number of bytes ahead of their
//! replies, and both sides move at the same time.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::batch::Batch;
use super::outcome::Outcome;
use super::replies::{Replies, Reply};
use super::statement::Statement;
use super::writer::Failure;
use crate::address::Address;
use crate::connection::{Connection, Redirect, Route, error_text};
use crate::deployment::Entrance;
use crate::entry_id::EntryId;
use crate::error::{Error, Result};

/// Bytes that are encoded at a time: few enough to stay in a cache, many enough for
/// one call of the system.
const PIECE: usize = 64 * 1024;
/// Bytes that may be on their way or waiting for their replies: enough for a line
/// with a long round trip. The server reads no more than 16 KB of them at a time, and
/// serves others in between.
const WINDOW: u64 = 2 * 1024 * 1024;

/// What the lanes of a write have in common.
#[derive(Debug)]
pub struct Shared {
    pub statement: Box<dyn Statement>,
    pub outcome: Mutex<Outcome>,
    /// Whether nothing more is to be sent.
    stop: AtomicBool,
    failure: Mutex<Option<Failure>>,
}

impl Shared {
    pub fn new(statement: Box<dyn Statement>) -> Self {
        let outcome = Outcome::new(statement.gives_ids());
        Self {
            statement,
            outcome: Mutex::new(outcome),
            stop: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    pub fn outcome(&self) -> MutexGuard<'_, Outcome> {
        locked(&self.outcome)
    }

    /// The first failure, if there was one.
    pub fn take_failure(&self) -> Option<Failure> {
        locked(&self.failure).take()
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Lets no lane send anything more.
    fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Lets them send again.
    pub fn go_on(&self) {
        self.stop.store(false, Ordering::Relaxed);
    }

    /// Something went wrong: that the first row was refused counts, or else what came
    /// first.
    pub fn fail(&self, failure: Failure) {
        self.stop();
        let mut first = locked(&self.failure);
        let is_before = |first: &Failure| match (failure.refused, first.refused) {
            (Some(row), Some(first)) => row < first,
            (row, None) => row.is_some(),
            (None, Some(_)) => false,
        };
        if first.as_ref().is_none_or(is_before) {
            *first = Some(failure);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How far a lane goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Until all its rows are on their way.
    Queued,
    /// Until all replies have come.
    Answered,
}

/// A row whose reply is due.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    pub row: u64,
    /// How many bytes were queued on the connection up to the row's end.
    end: u64,
}

impl Due {
    /// A row that is on its way, for all that is known.
    pub fn sent(row: u64) -> Self {
        Self { row, end: 0 }
    }
}

/// What a row is told whose transaction was given up by the server.
const NOT_DONE: &str = "ERR the server has not run the transaction";

/// A row that another server of the cluster has to be asked for.
#[derive(Debug)]
pub struct Redirected {
    pub row: u64,
    pub redirect: Redirect,
    /// The server's words.
    pub reply: String,
}

/// A connection, the rows that go over it, and the replies that are due.
#[derive(Debug)]
pub struct Lane {
    route: Route,
    /// Whether what is in one transaction has to be in one hash slot.
    pub(super) in_cluster: bool,
    pub(super) connection: Option<Connection>,
    /// Rows that have not been queued, in order.
    pub(super) todo: VecDeque<u64>,
    /// Rows whose replies are due, the oldest first.
    pub(super) due: VecDeque<Due>,
    /// Bytes that were queued so far.
    queued: u64,
    replies: Replies,
    /// Replies to the oldest row's commands that have come.
    came: usize,
    /// The first error among them.
    refused: Option<String>,
    redirected: Vec<Redirected>,
    scratch: Vec<u8>,
}

impl Lane {
    /// Along a route that leads to one server of several, or to the only one.
    pub fn new(route: Route, in_cluster: bool) -> Self {
        Self {
            route,
            in_cluster,
            connection: None,
            todo: VecDeque::new(),
            due: VecDeque::new(),
            queued: 0,
            replies: Replies::default(),
            came: 0,
            refused: None,
            redirected: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// A row is to be written, after those that were given before.
    pub fn push(&mut self, row: u64) {
        self.todo.push_back(row);
    }

    /// The oldest row that is not done with.
    pub fn oldest(&self) -> Option<u64> {
        let due = self.due.front().map(|due| due.row);
        due.into_iter().chain(self.todo.front().copied()).min()
    }

    /// Rows that were not sent, and are not to be any more.
    pub fn take_todo(&mut self) -> VecDeque<u64> {
        std::mem::take(&mut self.todo)
    }

    /// Rows that another server has to be asked for.
    pub fn take_redirected(&mut self) -> Vec<Redirected> {
        std::mem::take(&mut self.redirected)
    }

    /// Keeps the connection for others, if no reply is due.
    pub fn keep(&mut self) {
        let connection = self.connection.take();
        if self.due.is_empty()
            && let Some(connection) = connection
        {
            connection.keep();
        }
    }

    /// Gives the connection up; rows whose replies are due may or may not be written.
    pub fn give_up(&mut self, outcome: &mut Outcome) {
        let unsent = self.connection.as_ref().map_or(0, Connection::unsent) as u64;
        let sent = self.queued.saturating_sub(unsent);
        for due in self.due.drain(..) {
            // A command that did not go out whole is not executed.
            if due.end <= sent {
                outcome.is_unsure(due.row);
            }
        }
        self.connection = None;
    }

    /// Sends rows and takes replies. What goes wrong is told to `shared`, and ends
    /// the sending of all lanes.
    pub async fn run(&mut self, shared: &Shared, batches: &VecDeque<Batch>, until: Until) {
        let ran = match shared.statement.guarded() {
            Some(hashes) => self.run_guarded(hashes, shared, batches).await,
            None => self.advance(shared, batches, until).await,
        };
        if let Err(error) = ran {
            self.give_up(&mut shared.outcome());
            shared.fail(error.into());
        }
    }

    async fn advance(
        &mut self,
        shared: &Shared,
        batches: &VecDeque<Batch>,
        until: Until,
    ) -> Result<()> {
        loop {
            if shared.is_stopped() {
                self.take_back();
            } else {
                self.fill(shared, batches).await?;
            }
            let is_done = match until {
                Until::Queued => self.todo.is_empty() || shared.is_stopped(),
                Until::Answered => self.due.is_empty(),
            };
            let Some(connection) = &mut self.connection else {
                return Ok(());
            };
            if is_done {
                // The server may begin with what the socket takes now.
                return connection.flush_at_once();
            }
            connection.exchange().await?;
            self.take_replies(shared, batches)?;
        }
    }

    /// Makes the connection, if there is none.
    pub(super) async fn connect(&mut self, shared: &Shared) -> Result<()> {
        if self.connection.is_none() {
            let mut connection = fresh(&mut self.route).await?;
            if shared.statement.commands() > 1 {
                check_transactions(&mut connection).await?;
            }
            self.queued = 0;
            self.connection = Some(connection);
        }
        Ok(())
    }

    /// Queues rows, as many as may be on their way.
    async fn fill(&mut self, shared: &Shared, batches: &VecDeque<Batch>) -> Result<()> {
        while let Some(&row) = self.todo.front() {
            let answered = self.due.front().map_or(self.queued, |due| due.end);
            if self.queued - answered >= WINDOW {
                return Ok(());
            }
            self.connect(shared).await?;
            let Some(connection) = &mut self.connection else {
                return Ok(());
            };
            if connection.unsent() >= PIECE {
                return Ok(());
            }
            self.todo.pop_front();
            let Some((batch, at)) = find(batches, row) else {
                continue;
            };
            let is_asking = connection.is_asking();
            let outbox = connection.outbox();
            let before = outbox.len();
            if is_asking {
                outbox.extend_from_slice(b"*1\r\n$6\r\nASKING\r\n");
            }
            shared
                .statement
                .encode(batch, at, outbox, &mut self.scratch);
            self.queued += (outbox.len() - before) as u64;
            let end = self.queued;
            self.due.push_back(Due { row, end });
        }
        Ok(())
    }

    /// Takes rows back that have not begun to be sent.
    fn take_back(&mut self) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let sent = self.queued - connection.unsent() as u64;
        while let Some(&Due { row, end }) = self.due.back() {
            let begin = match self.due.len() {
                // Where it begins is not known, if those before it are done with.
                1 => return,
                len => self.due[len - 2].end,
            };
            if begin < sent {
                return;
            }
            connection.take_back((end - begin) as usize);
            self.queued = begin;
            self.due.pop_back();
            self.todo.push_front(row);
        }
    }

    /// Takes the replies that have come.
    fn take_replies(&mut self, shared: &Shared, batches: &VecDeque<Batch>) -> Result<()> {
        let Some(mut connection) = self.connection.take() else {
            return Ok(());
        };
        let taken = self.take_from(&connection, shared, batches);
        let taken = taken.map(|bytes| connection.consume(bytes));
        self.connection = Some(connection);
        taken
    }

    fn take_from(
        &mut self,
        connection: &Connection,
        shared: &Shared,
        batches: &VecDeque<Batch>,
    ) -> Result<usize> {
        let waiting = connection.waiting();
        let mut input = waiting;
        let mut outcome = shared.outcome();
        let commands = shared.statement.commands() + usize::from(connection.is_asking());
        while !input.is_empty() {
            let mut is_id = true;
            let (came, refused) = (self.came + 1, &mut self.refused);
            let oldest = self.due.front().copied();
            let is_whole = self
                .replies
                .next(&mut input, |reply| match (reply, oldest) {
                    (Reply::Error(text), _) => {
                        refused.get_or_insert(text);
                    }
                    (Reply::Text(text), Some(due)) if came == commands && refused.is_none() => {
                        is_id = EntryId::from_reply(text).is_some();
                        outcome.is_written(due.row, text);
                    }
                    // Nothing is watched here: whatever it was, nothing was done.
                    (Reply::Null, _) if came == commands => {
                        refused.get_or_insert_with(|| NOT_DONE.to_owned());
                    }
                    (_, Some(due)) if came == commands && refused.is_none() => {
                        outcome.is_written(due.row, b"");
                    }
                    _ => {}
                });
            if !is_whole.map_err(|error| connection.malformed(&error.to_string()))? {
                break;
            }
            if shared.statement.gives_ids() && !is_id {
                return Err(connection.malformed("no entry ID where XADD's was due"));
            }
            if oldest.is_none() {
                return Err(connection.malformed("a reply that nothing was asked for"));
            }
            self.came = came % commands;
            if self.came == 0 {
                let due = self.due.pop_front();
                if let (Some(due), Some(reply)) = (due, self.refused.take()) {
                    self.refused_row(due.row, reply, connection.address(), shared, batches);
                }
            }
        }
        Ok(waiting.len() - input.len())
    }

    /// A server has refused a row.
    #[cold]
    pub(super) fn refused_row(
        &mut self,
        row: u64,
        reply: String,
        server: &Address,
        shared: &Shared,
        batches: &VecDeque<Batch>,
    ) {
        if let Some(redirect) = Redirect::from_reply(&reply, &server.endpoint) {
            shared.stop();
            self.redirected.push(Redirected {
                row,
                redirect,
                reply,
            });
            return;
        }
        let kind = shared.statement.kind();
        let context = match find(batches, row) {
            Some((batch, at)) => {
                let key = shared.statement.key(batch, at, &mut self.scratch);
                format!("{kind} {:?}", String::from_utf8_lossy(key))
            }
            None => kind.to_owned(),
        };
        let error = Error::from_reply(context, &reply, &server.access);
        shared.fail(Failure {
            refused: Some(row),
            error,
        });
    }
}

/// The batch that has a row, and where.
pub fn find(batches: &VecDeque<Batch>, row: u64) -> Option<(&Batch, usize)> {
    let at = batches.partition_point(|batch| batch.end() <= row);
    let batch = batches.get(at)?;
    let within = usize::try_from(row.checked_sub(batch.first_row())?).ok()?;
    Some((batch, within))
}

/// Where `MULTI` is refused, the commands behind it would be run one by one.
///
/// # Errors
/// The server's own, if it refuses.
async fn check_transactions(connection: &mut Connection) -> Result<()> {
    let cmds = ["MULTI", "EXEC"].map(redis::cmd);
    let replies = connection.query_all(&cmds).await?;
    match replies.first().and_then(error_text) {
        None => Ok(()),
        Some(refusal) => {
            let address = connection.address();
            Err(Error::from_reply(address.peer(), &refusal, &address.access))
        }
    }
}

/// A connection that is known to be open, as what is written to one that is not may
/// or may not have arrived. With sentinels it leads to who is the master now.
async fn fresh(route: &mut Route) -> Result<Connection> {
    if matches!(route.deployment().entrance, Entrance::Sentinels { .. }) {
        return route.reopen().await;
    }
    let mut connection = route.open().await?;
    match connection.query(&redis::cmd("PING")).await {
        // A user who may not ask is answered too.
        Ok(_) => Ok(connection),
        Err(error) if error.is_cut() => route.reopen().await,
        Err(error) => Err(error),
    }
}
