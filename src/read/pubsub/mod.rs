//! Messages of channels, batch after batch.
//!
//! What a server sends to a subscriber is gone: nobody can ask for it again. So a
//! [`Subscriber`] takes off the line what is there whenever it is asked for a batch,
//! more than the batch needs if need be, up to a bound; what it leaves there waits
//! in the buffers of the kernel and of the server, which ends the connection when
//! it has had to hold too much.

mod connecting;
mod feed;
mod feeds;
mod silence;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

pub use feeds::Subscription;

use super::{Note, Step};
use crate::decode::{MessageBuilder, MessagePlan, Messages, Table};
use crate::deployment::Deployment;
use crate::error::{Error, Result};
use feed::Tally;
use feeds::Feeds;

/// Rows after which columns are finished: what a frame holds on to, however few of
/// them are in it.
const CHUNK_ROWS: usize = 65_536;

/// Bytes of messages that are taken ahead of the batch that was asked for.
const MAX_AHEAD: usize = 64 << 20;

/// When to end though there may be more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never.
    Forever,
    /// When no message came for so long.
    SilentFor(Duration),
    /// So long after the subscription began.
    Passed(Duration),
}

/// How large batches are, and how long to wait for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// The most rows of a batch.
    pub batch_size: usize,
    /// How long after its first row a batch is handed over that is not full.
    pub batch_timeout: Duration,
    /// The most messages in all.
    pub count: Option<usize>,
    pub until: Until,
    /// The most messages that are held.
    pub buffer: usize,
    /// How long to try to connect again before giving up.
    pub reconnect: Duration,
    /// Whether the rows before an error are not handed over.
    pub all_or_nothing: bool,
}

/// What a subscriber has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MessageStats {
    /// Batches handed over.
    pub batches: u64,
    /// Messages handed over.
    pub messages: u64,
    /// Bytes received.
    pub bytes: u64,
    /// How often a lost connection was made again.
    pub reconnects: u64,
    /// How often the subscription, or a part of it, was interrupted, so that
    /// messages may have been missed.
    pub gaps: u64,
}

/// What waits to be handed over.
#[derive(Debug)]
enum Ready {
    Rows(Vec<Messages>),
    Failure(Error),
}

/// Reads messages, batch after batch.
///
/// A batch is there until it [was handed over](Self::handed_over). Any future of
/// this type may be dropped: nothing is lost by that.
#[derive(Debug)]
pub struct Subscriber {
    plan: Arc<MessagePlan>,
    feeds: Feeds,
    listening: Listening,
    /// Messages that may still be handed over.
    left: Option<usize>,
    /// Rows that were received and not handed over: finished ones, oldest first,
    /// and then those under construction.
    finished: VecDeque<Messages>,
    rows: MessageBuilder,
    /// Bytes of the finished ones, or more.
    finished_bytes: usize,
    /// When messages were last taken off a line.
    last_taken: Instant,
    /// When the first row of the next batch was here.
    first_row: Option<Instant>,
    /// Since when nobody said anything, though somebody waited for it.
    silent_since: Option<Instant>,
    /// When the subscription began.
    begun: Option<Instant>,
    /// An error that waits for the rows before it to be handed over.
    failure: Option<Error>,
    ready: Option<Ready>,
    /// Whether it has come to its end, which is for good.
    has_ended: bool,
    stats: MessageStats,
}

impl Subscriber {
    /// A subscriber that has done nothing yet.
    pub fn new(
        deployment: Arc<Deployment>,
        subscription: Subscription,
        plan: MessagePlan,
        listening: Listening,
    ) -> Self {
        Self {
            feeds: Feeds::new(deployment, subscription, listening.reconnect),
            rows: MessageBuilder::with_room(&plan, 0),
            plan: Arc::new(plan),
            left: listening.count,
            listening,
            finished: VecDeque::new(),
            finished_bytes: 0,
            last_taken: Instant::now(),
            first_row: None,
            silent_since: None,
            begun: None,
            failure: None,
            ready: None,
            has_ended: false,
            stats: MessageStats::default(),
        }
    }

    /// Connects, and subscribes. [`advance`](Self::advance) does so by itself.
    pub async fn open(&mut self) -> Result<()> {
        while !self.feeds.is_subscribed() && self.wants_more() {
            match self.feeds.wait().await {
                Ok(()) => self.take()?,
                Err(error) => self.failed(error)?,
            }
        }
        Ok(())
    }

    /// Goes on to the next batch, or to what else there is to know.
    pub async fn advance(&mut self) -> Result<Step> {
        if self.wants_more()
            && let Err(error) = self.feeds.tend().await
        {
            self.failed(error)?;
        }
        loop {
            if self.feeds.has_note() {
                return Ok(Step::Note);
            }
            if self.ready.is_some() {
                return Ok(Step::Batch);
            }
            self.take()?;
            if self.is_batch_due() {
                self.make_batch();
                continue;
            }
            if let Some(error) = self.failure.take() {
                self.ready = Some(Ready::Failure(error));
                continue;
            }
            if self.has_ended || self.left == Some(0) {
                self.has_ended = true;
                self.feeds.disconnect();
                return Ok(Step::End);
            }
            self.wait().await?;
        }
    }

    /// Waits until bytes are there, or until it has waited long enough.
    async fn wait(&mut self) -> Result<()> {
        let (batch, end) = (self.batch_due(), self.end_due());
        let waited = match batch.into_iter().chain(end).min() {
            None => Ok(self.feeds.wait().await),
            Some(due) => timeout_at(due, self.feeds.wait()).await,
        };
        match waited {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => self.failed(error),
            Err(_) => {
                self.has_ended = end.is_some_and(|end| end <= Instant::now());
                if self.has_ended {
                    self.feeds.given_up();
                }
                Ok(())
            }
        }
    }

    /// Takes what is on the lines off them.
    fn take(&mut self) -> Result<()> {
        if !self.wants_more() {
            return Ok(());
        }
        let most = self.most().saturating_sub(self.finished_rows());
        let before = self.rows.rows();
        let taken = self.feeds.take(&mut self.rows, most);
        if self.rows.rows() > before {
            self.last_taken = Instant::now();
            self.silent_since = Some(self.last_taken);
            self.first_row.get_or_insert(self.last_taken);
        }
        if self.rows.rows() >= CHUNK_ROWS {
            self.finish_rows();
        }
        if self.begun.is_none() && self.feeds.is_subscribed() {
            self.begun = Some(Instant::now());
        }
        match taken {
            Ok(()) => Ok(()),
            Err(error) => self.failed(error),
        }
    }

    fn failed(&mut self, error: Error) -> Result<()> {
        if self.listening.all_or_nothing {
            return Err(error);
        }
        // Where the call that comes to it is cancelled, the next one tells of it.
        self.failure = Some(error);
        Ok(())
    }

    /// Rows of the next batch.
    fn wanted(&self) -> usize {
        let size = self.listening.batch_size;
        self.left.map_or(size, |left| left.min(size))
    }

    /// The most rows that are held.
    fn most(&self) -> usize {
        let most = self.listening.buffer.max(self.listening.batch_size);
        self.left.map_or(most, |left| left.min(most))
    }

    fn finished_rows(&self) -> usize {
        self.finished.iter().map(Messages::rows).sum()
    }

    fn held(&self) -> usize {
        self.finished_rows() + self.rows.rows()
    }

    /// Whether what is on the lines may be taken off them.
    fn wants_more(&self) -> bool {
        let held = self.held();
        let is_full = held >= self.most()
            || held >= self.wanted() && self.finished_bytes + self.rows.bytes() >= MAX_AHEAD;
        // What follows an error comes after it.
        !is_full && self.failure.is_none() && self.ready.is_none() && !self.has_ended
    }

    fn batch_due(&self) -> Option<Instant> {
        Some(self.first_row? + self.listening.batch_timeout)
    }

    /// When there is nothing more to wait for.
    fn end_due(&mut self) -> Option<Instant> {
        let begun = self.begun?;
        match self.listening.until {
            Until::Forever => None,
            Until::Passed(whole) => Some(begun + whole),
            Until::SilentFor(patience) => {
                let since = *self.silent_since.get_or_insert_with(Instant::now);
                Some(since + patience)
            }
        }
    }

    fn is_batch_due(&self) -> bool {
        let held = self.held();
        if held == 0 {
            return false;
        }
        held >= self.wanted()
            || self.failure.is_some()
            || self.has_ended
            || self.batch_due().is_some_and(|due| due <= Instant::now())
    }

    fn finish_rows(&mut self) {
        let room = self.rows.rows();
        let next = MessageBuilder::with_room(&self.plan, room);
        let rows = std::mem::replace(&mut self.rows, next);
        self.finished_bytes += rows.bytes();
        self.finished.push_back(rows.finish());
    }

    fn make_batch(&mut self) {
        let mut wanted = self.wanted();
        if self.finished_rows() < wanted && self.rows.rows() > 0 {
            self.finish_rows();
        }
        let mut batch = Vec::new();
        while wanted > 0
            && let Some(first) = self.finished.front_mut()
        {
            let part = first.split_front(wanted);
            wanted -= part.rows();
            batch.push(part);
            if first.rows() == 0 {
                self.finished.pop_front();
            }
        }
        if self.finished.is_empty() {
            self.finished_bytes = 0;
        }
        self.first_row = (self.held() > 0).then_some(self.last_taken);
        self.ready = Some(Ready::Rows(batch));
    }

    /// The next thing to tell.
    pub fn take_note(&mut self) -> Option<Note> {
        self.feeds.next_note()
    }

    /// The batch that is ready, or the error that is in its place. A batch stays
    /// so until it [was handed over](Self::handed_over).
    pub fn batch(&mut self) -> Option<Result<Table>> {
        match self.ready.take()? {
            Ready::Failure(error) => Some(Err(error)),
            Ready::Rows(rows) => {
                let table = Table::of_messages(&self.plan, rows.clone());
                self.ready = Some(Ready::Rows(rows));
                Some(Ok(table))
            }
        }
    }

    /// The batch that was ready is the user's now.
    pub fn handed_over(&mut self) {
        let Some(Ready::Rows(rows)) = self.ready.take() else {
            return;
        };
        let messages: usize = rows.iter().map(Messages::rows).sum();
        self.stats.batches += 1;
        self.stats.messages += messages as u64;
        self.left = self.left.map(|left| left.saturating_sub(messages));
        // Silence is what is heard by somebody who listens.
        self.silent_since = None;
    }

    /// A table without rows.
    pub fn empty(&self) -> Table {
        Table::of_messages(&self.plan, Vec::new())
    }

    /// This process is a forked child: the connections are its parent's, and are
    /// neither used nor closed here; so are the messages that are held.
    pub fn forget_connection(&mut self) {
        self.feeds.forget();
        self.finished.clear();
        self.finished_bytes = 0;
        self.rows = MessageBuilder::with_room(&self.plan, 0);
        self.first_row = None;
        self.failure = None;
        self.ready = None;
    }

    /// What was done so far.
    pub fn stats(&self) -> MessageStats {
        let Tally {
            bytes,
            reconnects,
            gaps,
        } = self.feeds.tally();
        MessageStats {
            bytes,
            reconnects,
            gaps,
            ..self.stats
        }
    }
}
