//! The line to the server of one reader: made when it is needed, made again
//! when it breaks.
//!
//! A [`Link`] decides what becomes of an error: whether the reader tries again,
//! after which pause, and when it gives up. What users should know of that is
//! told as [`Note`]s.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value};
use tokio::time::{Instant, sleep_until};

use super::note::{Level, Note};
use crate::connection::{Backoff, Connection, Redirect, Route, Slot, error_text};
use crate::deployment::{Deployment, ReadFrom};
use crate::error::{Error, Result};

/// How often in a row the servers of a cluster may send us elsewhere before that
/// counts as a failure.
pub const MAX_REDIRECTS: usize = 8;

/// The connection of a reader, and what to do when it breaks.
#[derive(Debug)]
pub struct Link {
    route: Route,
    connection: Option<Connection>,
    backoff: Backoff,
    /// When the next attempt to connect is due, after one that failed.
    pause_until: Option<Instant>,
    /// Whether there ever was a connection: the first one fails fast.
    was_connected: bool,
    /// Whether the last connection was lost, rather than given up.
    was_lost: bool,
    /// How often the servers of a cluster have sent us elsewhere in a row.
    redirects: usize,
    reconnects: u64,
    shares_the_thread: bool,
    notes: VecDeque<Note>,
}

impl Link {
    /// A link to the server that has a stream, or to one that follows it, which is
    /// not connected. Once it was, it tries for `budget` to be so again.
    pub fn new(
        deployment: Arc<Deployment>,
        stream: &str,
        read_from: ReadFrom,
        budget: Duration,
    ) -> Self {
        let slot = Slot::of(stream.as_bytes());
        Self::along(Route::new(deployment, slot, read_from), budget)
    }

    /// The same along a route that is known.
    pub fn along(route: Route, budget: Duration) -> Self {
        Self {
            route,
            connection: None,
            backoff: Backoff::new(budget),
            pause_until: None,
            was_connected: false,
            was_lost: false,
            redirects: 0,
            reconnects: 0,
            shares_the_thread: false,
            notes: VecDeque::new(),
        }
    }

    /// It is one of several on a thread: none is to keep the others waiting while
    /// it looks out for a reply.
    pub fn share_the_thread(&mut self) {
        self.shares_the_thread = true;
        if let Some(connection) = &mut self.connection {
            connection.share_the_thread();
        }
    }

    /// The next connection goes where a server has said that the key is.
    pub fn lead_to(&mut self, redirect: Redirect) {
        self.route.redirect(redirect);
    }

    /// Leads to the server that has another slot from now on, where that may be
    /// another server. No reply may be due.
    pub fn turn_to(&mut self, slot: Slot) {
        if self.route.turn_to(slot) {
            self.keep();
        }
    }

    /// Whether the server is a replica of a cluster, which does not know of slots that
    /// are on their way: what has gone ahead to another server it just does not have.
    pub fn is_at_replica(&self) -> bool {
        let connection = self.connection.as_ref();
        connection.is_some_and(|connection| connection.address().is_replica)
    }

    /// Leads to the master of such a replica from now on; whether it was at one. No
    /// reply may be due.
    pub fn turn_to_master(&mut self) -> bool {
        let is_at_replica = self.is_at_replica();
        if is_at_replica {
            self.keep();
            self.route.pass_replicas(true);
        }
        is_at_replica
    }

    /// Leads to replicas again, if they are to be read from. No reply may be due.
    pub fn turn_back(&mut self) {
        if self.route.pass_replicas(false) {
            self.keep();
        }
    }

    /// The server was there before: that it cannot be reached now may pass.
    pub fn expect_server(&mut self) {
        self.was_connected = true;
    }

    /// The deployment that it leads into.
    pub fn deployment(&self) -> &Arc<Deployment> {
        self.route.deployment()
    }

    /// Whether the deployment is known to be a cluster.
    pub fn is_in_cluster(&self) -> bool {
        self.route.is_in_cluster()
    }

    /// How often a connection was made again.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }

    /// Whether there is something to tell.
    pub fn has_note(&self) -> bool {
        !self.notes.is_empty()
    }

    /// The next thing to tell.
    pub fn next_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// All that there is to tell.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes).into()
    }

    /// Something to tell.
    pub fn note(&mut self, level: Level, text: String) {
        self.tell(Note::new(level, text));
    }

    /// The same, of a kind of its own.
    pub fn tell(&mut self, note: Note) {
        self.notes.push_back(note);
    }

    /// The connection, made if there is none. May be cancelled.
    pub async fn ready(&mut self) -> Result<&mut Connection> {
        if let Some(due) = self.pause_until {
            sleep_until(due).await;
            self.pause_until = None;
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            // One that was kept may be the next to break, so only the first is.
            None if self.was_lost => {
                let connection = self.route.reopen().await?;
                self.tell_connected(&connection);
                connection
            }
            None => self.route.open().await?,
        };
        if let Some(told) = self.route.take_told() {
            self.note(Level::Info, told);
        }
        self.was_connected = true;
        if self.shares_the_thread {
            connection.share_the_thread();
        }
        Ok(self.connection.insert(connection))
    }

    /// The connection, if there is one.
    pub fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_mut()
    }

    fn tell_connected(&mut self, connection: &Connection) {
        if std::mem::take(&mut self.was_lost) {
            self.reconnects += 1;
            let text = format!("{}: connected again", connection.address().peer());
            self.note(Level::Info, text);
        }
    }

    /// Begins again where the slot belongs, if the last exchange was with the server
    /// that it is on its way to: what was said of that held for then. By now the slot
    /// may be on its way back, and that server would take a key that it has not for
    /// one that is not there. No reply may be due.
    pub fn ask_anew(&mut self) {
        if let Some(mut connection) = self.connection.take_if(|made| made.is_asking()) {
            connection.ask_no_more();
            connection.keep();
        }
    }

    /// Gives the connection up if another server is the master now, though this one
    /// answers. No reply may be due. May be cancelled.
    pub async fn look_round(&mut self) {
        let Some(connection) = &self.connection else {
            return;
        };
        let address = connection.address().clone();
        if self.route.is_superseded(&address.endpoint).await {
            self.note(
                Level::Info,
                format!("{}: the sentinels have another master now", address.peer()),
            );
            self.was_lost = true;
            self.disconnect();
        }
    }

    /// The longest that a server is asked to block, if that is limited.
    pub fn longest_block(&self) -> Option<Duration> {
        self.route.longest_block()
    }

    /// Whether the connection may be in the middle of something that nobody
    /// waits for any more; if so it is given up, with all replies that are due.
    pub fn drop_if_spoiled(&mut self) -> bool {
        let is_spoiled = self.connection.as_ref().is_some_and(Connection::is_spoiled);
        if is_spoiled {
            self.disconnect();
        }
        is_spoiled
    }

    /// Gives the connection up: replies are due that nobody wants.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Leaves the connection to the process it belongs to, which is another.
    pub fn forget(&mut self) {
        // To drop it would take it out of what the parent waits for.
        std::mem::forget(self.connection.take());
    }

    /// Keeps the connection for others. No reply may be due.
    pub fn keep(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.keep();
        }
    }

    /// Something went well: the next failure counts as the first.
    pub fn succeeded(&mut self) {
        self.redirects = 0;
        self.backoff.succeeded();
    }

    /// Something failed: gives the connection up, and sets the pause before the
    /// next attempt.
    ///
    /// # Errors
    /// The error itself, if it will not pass, or has not for too long.
    pub fn failed(&mut self, error: Error) -> Result<()> {
        // Whatever it was, replies may be due that nobody wants.
        let connection = self.connection.take();
        if self.redirects < MAX_REDIRECTS
            && let (Error::Response { context, reply }, Some(connection)) = (&error, connection)
            && let Some(to) = self.route.follow(reply, &connection.address().endpoint)
        {
            self.redirects += 1;
            let peer = connection.address().peer();
            self.note(
                Level::Debug,
                format!("{context}: not at {peer} but at {to}"),
            );
            return Ok(());
        }
        if !error.is_transient() {
            return Err(error);
        }
        self.was_lost = self.was_connected;
        let was_there = self.was_connected || self.route.has_entered();
        if !was_there && error.is_unreachable() {
            return Err(error);
        }
        let Some(pause) = self.backoff.failed() else {
            // Whoever asks again begins anew.
            self.backoff.succeeded();
            return Err(in_words(error));
        };
        self.notes.push_back(Note::of_retry(&error, pause));
        self.pause_until = Some(Instant::now() + pause);
        Ok(())
    }

    /// Runs a control command on a stream. After a cancellation the connection
    /// [is spoiled](Self::drop_if_spoiled).
    ///
    /// # Errors
    /// Besides those of the connection, the server's own error.
    pub async fn query(&mut self, cmd: &Cmd, stream: &str) -> Result<Value> {
        let reply = self.ready().await?.query(cmd).await?;
        checked(reply, self.deployment(), stream)
    }

    /// [`checked`] for several replies.
    pub fn checked_all(&self, replies: Vec<Value>, stream: &str) -> Result<Vec<Value>> {
        let check = |reply| checked(reply, self.deployment(), stream);
        replies.into_iter().map(check).collect()
    }
}

/// What a server says to who asks it for a key that it does not have, in words for
/// whoever did not know that there are several.
fn in_words(error: Error) -> Error {
    let Error::Response { context, reply } = error else {
        return error;
    };
    let meaning = match reply.split(' ').next() {
        Some("ASK") => " (its hash slot is on its way to another server)",
        Some("MOVED") => " (the servers of the cluster do not agree on who has it)",
        _ => "",
    };
    let reply = reply + meaning;
    Error::Response { context, reply }
}

/// Turns an error reply into the error that it is.
pub fn checked(reply: Value, deployment: &Deployment, stream: &str) -> Result<Value> {
    checked_of(reply, deployment, || format!("stream {stream:?}"))
}

/// The same for a command that is not about one stream.
pub fn checked_of(
    reply: Value,
    deployment: &Deployment,
    context: impl FnOnce() -> String,
) -> Result<Value> {
    match error_text(&reply) {
        None => Ok(reply),
        Some(text) => Err(Error::from_reply(context(), &text, &deployment.access)),
    }
}
