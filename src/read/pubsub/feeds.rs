//! The lines of a subscription.
//!
//! One, nearly always. In a cluster, sharded channels are each with the server that
//! has their slot: whichever channel the server of a line says another one has goes
//! over to the line to that one, which is made if there is none. So it is when they
//! are first asked for, and so it is when a slot moves later.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::select_all;
use tokio::task::yield_now;

use super::super::note::{Level, Note};
use super::feed::{Channel, Feed, Leaving, Maker, Tally};
use crate::command::Naming;
use crate::decode::MessageBuilder;
use crate::deployment::Deployment;
use crate::error::{Error, Result};

/// How often what is on a line is taken off it before somebody gets some of it:
/// as often as it takes to empty a socket whose buffer is large.
const MAX_READS: usize = 64;

/// Which messages to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// At least one.
    pub channels: Vec<String>,
    pub naming: Naming,
}

/// All lines, each of which lives by itself: one that is lost is made again while
/// the others go on.
#[derive(Debug)]
pub struct Feeds {
    maker: Maker,
    /// At least one.
    lines: Vec<Feed>,
    /// The line that is looked at next.
    next: usize,
    /// What is left of lines that are no more.
    gone: Tally,
    notes: VecDeque<Note>,
}

impl Feeds {
    /// Lines that are not connected. Once they were, each is tried for `budget` to
    /// be made again.
    pub fn new(deployment: Arc<Deployment>, subscription: Subscription, budget: Duration) -> Self {
        let maker = Maker {
            deployment,
            naming: subscription.naming,
            budget,
        };
        let channels = subscription.channels.into_iter().map(Channel::new);
        Self {
            lines: vec![Feed::new(maker.clone(), channels)],
            maker,
            next: 0,
            gone: Tally::default(),
            notes: VecDeque::new(),
        }
    }

    /// Whether messages of all channels come.
    pub fn is_subscribed(&self) -> bool {
        self.lines.iter().all(Feed::is_subscribed)
    }

    /// Waits until bytes are there to [take](Self::take). Connects and subscribes,
    /// if that is not done. May be cancelled, and goes on where it was.
    ///
    /// # Errors
    /// What will not pass, or has not for too long.
    pub async fn wait(&mut self) -> Result<()> {
        let (number, waited) = match self.lines.as_mut_slice() {
            [only] => (0, only.wait().await),
            lines => {
                let waits = lines.iter_mut().map(|line| Box::pin(line.wait()));
                let (waited, number, _) = select_all(waits).await;
                (number, waited)
            }
        };
        match waited {
            Ok(()) => Ok(()),
            Err(error) => self.failed(number, error),
        }
    }

    /// Lets each of several lines do what it has to besides bringing messages, such
    /// as to connect: others may bring so many that nobody waits.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn tend(&mut self) -> Result<()> {
        if self.lines.len() == 1 {
            return Ok(());
        }
        // What came in the meantime is noticed when nothing else is to be done.
        yield_now().await;
        for number in 0..self.lines.len() {
            if let Some(Err(error)) = self.lines[number].wait().now_or_never() {
                self.failed(number, error)?;
            }
        }
        Ok(())
    }

    /// Takes what is on the lines off them, without waiting: messages, until there
    /// are `most` rows of them. Lines take turns.
    ///
    /// # Errors
    /// [`Error::Message`] if a message does not fit, which has been taken; else what
    /// will not pass, or has not for too long.
    pub fn take(&mut self, rows: &mut MessageBuilder, most: usize) -> Result<()> {
        for _ in 0..MAX_READS {
            let taken = self.take_round(rows, most);
            let regrouped = self.regroup();
            let is_more = taken?;
            regrouped?;
            if !is_more {
                break;
            }
        }
        Ok(())
    }

    /// Looks at each line once; whether there is more to look at.
    fn take_round(&mut self, rows: &mut MessageBuilder, most: usize) -> Result<bool> {
        let mut is_more = false;
        for _ in 0..self.lines.len() {
            if rows.rows() >= most {
                return Ok(false);
            }
            let number = self.next % self.lines.len();
            self.next = number + 1;
            match self.lines[number].take(rows, most) {
                Ok(was_some) => is_more |= was_some,
                Err(error) => self.failed(number, error)?,
            }
        }
        Ok(is_more)
    }

    /// A line has failed; the others have not.
    fn failed(&mut self, number: usize, error: Error) -> Result<()> {
        match error {
            Error::Message(_) => Err(error),
            error => self.lines[number].failed(error),
        }
    }

    /// Brings channels to the lines that are for them now; a line without one ends.
    fn regroup(&mut self) -> Result<()> {
        let leaving: Vec<_> = self.lines.iter_mut().flat_map(Feed::take_leaving).collect();
        if leaving.is_empty() {
            return Ok(());
        }
        let mut result = Ok(());
        for leaving in leaving {
            let brought = self.bring(leaving);
            result = result.and(brought);
        }
        if self.lines.len() > 1 {
            self.lines.iter_mut().for_each(Feed::share_the_thread);
        }
        let (used, unused) = self.lines.drain(..).partition(Feed::has_channels);
        self.lines = used;
        for mut line in unused {
            self.gone += line.tally();
            self.notes.extend(std::iter::from_fn(|| line.next_note()));
        }
        result
    }

    fn bring(&mut self, leaving: Leaving) -> Result<()> {
        match leaving {
            Leaving::Moved(channel, redirect) => {
                let mut lines = self.lines.iter_mut();
                if let Some(line) = lines.find(|line| line.leads_to(&redirect.to)) {
                    line.add(channel);
                    return Ok(());
                }
                let mut line = Feed::among_others(self.maker.clone(), channel);
                line.lead_to(redirect);
                self.lines.push(line);
                Ok(())
            }
            // It is asked for again after a pause, and on a line of its own, so that
            // no other channel has to wait for it.
            Leaving::Homeless(channel, error) => {
                let mut line = Feed::among_others(self.maker.clone(), channel);
                let failed = line.failed(error);
                self.lines.push(line);
                failed
            }
        }
    }

    /// Ends the subscription.
    pub fn disconnect(&mut self) {
        self.lines.iter_mut().for_each(Feed::disconnect);
    }

    /// It is waited for no longer: what there is to tell if a line is lost, and was
    /// not made again.
    pub fn given_up(&mut self) {
        if self.lines.iter().any(Feed::is_interrupted) {
            let text = "the subscription was lost and not made again in time; messages that \
                        were published meanwhile were missed";
            self.notes
                .push_back(Note::new(Level::Warning, text.to_owned()));
        }
    }

    /// Leaves the connections to the process they belong to, which is another; here
    /// was never one.
    pub fn forget(&mut self) {
        self.lines.iter_mut().for_each(Feed::forget);
    }

    /// Whether there is something to tell.
    pub fn has_note(&self) -> bool {
        !self.notes.is_empty() || self.lines.iter().any(Feed::has_note)
    }

    /// The next thing to tell.
    pub fn next_note(&mut self) -> Option<Note> {
        let of_lines = || self.lines.iter_mut().find_map(Feed::next_note);
        self.notes.pop_front().or_else(of_lines)
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        let mut sum = self.gone;
        self.lines.iter().for_each(|line| sum += line.tally());
        sum
    }
}
