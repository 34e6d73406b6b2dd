//! The line on which the messages of a subscription come.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{io, mem};

use tokio::time::{Instant, timeout_at};

use super::super::link::Link;
use super::super::note::{Level, Note};
use super::silence::{Due, Silence};
use crate::command::{Naming, subscribe};
use crate::decode::{MessageBuilder, Notice, PushDecoder, PushFault};
use crate::deployment::{Deployment, ReadFrom};
use crate::error::{Error, Result};

/// How often what is on the line is taken off it before somebody gets some of it:
/// as often as it takes to empty a socket whose buffer is large.
const MAX_READS: usize = 64;

/// Which messages to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// At least one.
    pub channels: Vec<String>,
    pub naming: Naming,
}

/// Subscribes, again on each new connection, and takes what comes.
#[derive(Debug)]
pub struct Feed {
    link: Link,
    subscription: Subscription,
    decoder: PushDecoder,
    /// Whether the subscription was asked for on this connection, and of how many
    /// channels it was confirmed.
    is_asked: bool,
    confirmed: usize,
    silence: Silence,
    /// Whether it was subscribed on a connection that was lost.
    is_interrupted: bool,
    gaps: u64,
    bytes: u64,
}

impl Feed {
    /// A feed that is not connected. Once it was, it tries for `budget` to be so
    /// again.
    pub fn new(deployment: Arc<Deployment>, subscription: Subscription, budget: Duration) -> Self {
        // In a cluster, a message goes to all servers; but for a sharded channel,
        // to the one that has its slot.
        let first = subscription.channels.first().map_or("", String::as_str);
        Self {
            link: Link::new(deployment, first, ReadFrom::Master, budget),
            subscription,
            decoder: PushDecoder::new(),
            is_asked: false,
            confirmed: 0,
            silence: Silence::new(),
            is_interrupted: false,
            gaps: 0,
            bytes: 0,
        }
    }

    /// Whether messages of all channels come.
    pub fn is_subscribed(&self) -> bool {
        self.confirmed == self.subscription.channels.len()
    }

    /// Waits until bytes are there to [take](Self::take). Connects and subscribes,
    /// if that is not done. May be cancelled.
    pub async fn wait(&mut self) -> Result<()> {
        loop {
            self.link.look_round().await;
            if self.link.connection().is_none() {
                self.begin_anew();
            }
            let longest = self.link.longest_block();
            let connection = self.link.ready().await?;
            if !mem::replace(&mut self.is_asked, true) {
                // One by one, so that a refusal says which one is refused.
                for channel in &self.subscription.channels {
                    connection.queue(&subscribe(self.subscription.naming, channel));
                }
                self.silence = Silence::new();
            }
            connection.flush().await?;
            let patience = connection.address().access.socket_timeout;
            let due = match self.silence.due(patience) {
                Due::Wait(due) => due,
                // What came while nobody listened is no silence.
                _ if !connection.received_now()?.is_empty() => return Ok(()),
                Due::GiveUp => return Err(connection.silent(patience)),
                Due::Ask => {
                    connection.queue(&redis::cmd("PING"));
                    self.silence.asked();
                    continue;
                }
            };
            let look = longest.map(|longest| Instant::now() + longest);
            let until = look.map_or(due, |look| look.min(due));
            if let Ok(received) = timeout_at(until, connection.received_soon()).await {
                return received.map(|_| ());
            }
        }
    }

    /// Takes what is on the line off it, without waiting: messages, until there are
    /// `most` rows of them.
    ///
    /// # Errors
    /// [`Error::Message`] if a message does not fit, which has been taken. After any
    /// other, this has [failed](Self::failed).
    pub fn take(&mut self, rows: &mut MessageBuilder, most: usize) -> Result<()> {
        for _ in 0..MAX_READS {
            let Some(connection) = self.link.connection() else {
                return Ok(());
            };
            if !self.is_asked || rows.rows() >= most {
                return Ok(());
            }
            let received = connection.received_now()?;
            if received.is_empty() {
                return Ok(());
            }
            let mut input = received;
            let decoded = self.decoder.decode(&mut input, rows, most, now());
            let taken = received.len() - input.len();
            connection.consume(taken);
            self.bytes += taken as u64;
            self.heard(decoded)?;
            self.silence.broken();
        }
        Ok(())
    }

    fn heard(&mut self, decoded: Result<Option<Notice>, PushFault>) -> Result<()> {
        match decoded {
            Ok(None) => Ok(()),
            Ok(Some(Notice::Pong)) => {
                self.silence.answered();
                Ok(())
            }
            Ok(Some(Notice::Subscribed)) => {
                self.confirm();
                Ok(())
            }
            Ok(Some(Notice::Refused(reply))) => self.refused(&reply),
            // The slot of a sharded channel has moved.
            Ok(Some(Notice::Unsubscribed(channel))) => Err(Error::Connection {
                peer: self.peer(),
                reason: format!("the server ended the subscription to channel {channel:?}"),
                kind: io::ErrorKind::ConnectionAborted,
            }),
            Err(PushFault::Message(error)) => Err(Error::Message(error)),
            Err(PushFault::Protocol(reason)) => Err(Error::Protocol {
                context: self.peer(),
                reason: self.link.deployment().redact(&reason),
            }),
        }
    }

    fn confirm(&mut self) {
        if self.is_subscribed() {
            return;
        }
        self.confirmed += 1;
        if !self.is_subscribed() {
            return;
        }
        self.link.succeeded();
        if mem::take(&mut self.is_interrupted) {
            let text = format!(
                "{}: subscribed again; messages that were published meanwhile were missed",
                self.peer()
            );
            self.link.note(Level::Warning, text);
        }
    }

    fn refused(&mut self, reply: &str) -> Result<()> {
        let channels = &self.subscription.channels;
        let Some(channel) = channels.get(self.confirmed) else {
            // Who may not ask whether anybody is there is told so, by somebody.
            if self.silence.is_answer_due() {
                self.silence.answered();
                return Ok(());
            }
            let peer = self.peer();
            let access = &self.link.deployment().access;
            return Err(Error::from_reply(peer, reply, access));
        };
        if self.confirmed > 0
            && reply.starts_with("MOVED ")
            && let Some(first) = channels.first()
        {
            return Err(Error::Unsupported(format!(
                "channels {first:?} and {channel:?} are on different servers of the cluster: \
                 sharded channels that are read together have to be on one, as those are \
                 whose names have the same {{tag}}"
            )));
        }
        let context = format!("channel {channel:?}");
        let access = &self.link.deployment().access;
        Err(Error::from_reply(context, reply, access))
    }

    fn peer(&mut self) -> String {
        let connection = self.link.connection();
        connection.map_or_else(String::new, |connection| connection.address().peer())
    }

    /// What is known of a connection that is no more.
    fn begin_anew(&mut self) {
        if self.is_subscribed() {
            self.is_interrupted = true;
            self.gaps += 1;
        }
        self.is_asked = false;
        self.confirmed = 0;
        self.decoder = PushDecoder::new();
    }

    /// Something failed: gives the connection up.
    ///
    /// # Errors
    /// The error itself, if it will not pass, or has not for too long.
    pub fn failed(&mut self, error: Error) -> Result<()> {
        self.begin_anew();
        self.link.failed(error)
    }

    /// Ends the subscription.
    pub fn disconnect(&mut self) {
        self.link.disconnect();
    }

    /// It is waited for no longer: what there is to tell if it is lost, and was not
    /// made again.
    pub fn given_up(&mut self) {
        if self.is_interrupted {
            let text = "the subscription was lost and not made again in time; messages that \
                        were published meanwhile were missed";
            self.link.note(Level::Warning, text.to_owned());
        }
    }

    /// Leaves the connection to the process it belongs to, which is another; here
    /// was never one.
    pub fn forget(&mut self) {
        self.link.forget();
        let gaps = self.gaps;
        self.begin_anew();
        // It was never subscribed here.
        self.is_interrupted = false;
        self.gaps = gaps;
    }

    /// Whether there is something to tell.
    pub fn has_note(&self) -> bool {
        self.link.has_note()
    }

    /// The next thing to tell.
    pub fn next_note(&mut self) -> Option<Note> {
        self.link.next_note()
    }

    /// Bytes received.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How often a connection was made again.
    pub fn reconnects(&self) -> u64 {
        self.link.reconnects()
    }

    /// How often it was not subscribed for a while.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }
}

/// Microseconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}
