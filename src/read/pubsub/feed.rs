//! A line on which messages of a subscription come: all of them, or those of the
//! channels that one server of a cluster has.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{io, mem};

use tokio::time::{Instant, timeout_at};

use super::super::link::{Link, MAX_REDIRECTS};
use super::super::note::{Level, Note};
use super::connecting::Connecting;
use super::silence::{Due, Silence};
use crate::address::Endpoint;
use crate::command::{Naming, subscribe};
use crate::connection::{Connection, Redirect, RedirectKind, Slot};
use crate::decode::{MessageBuilder, Notice, PushDecoder, PushFault};
use crate::deployment::{Deployment, ReadFrom};
use crate::error::{Error, Result};

/// How lines are made.
#[derive(Debug, Clone)]
pub struct Maker {
    pub deployment: Arc<Deployment>,
    pub naming: Naming,
    /// How long a line that was lost is tried to be made again.
    pub budget: Duration,
}

impl Maker {
    /// A link to the server that has a channel.
    fn link(&self, channel: Option<&Channel>) -> Link {
        // In a cluster, a message goes to all servers; but for a sharded channel,
        // to the one that has its slot.
        let name = channel.map_or("", |channel| channel.name.as_str());
        Link::new(self.deployment.clone(), name, ReadFrom::Master, self.budget)
    }
}

/// A channel of which no messages come yet.
#[derive(Debug)]
pub struct Channel {
    name: String,
    /// Whether they did before.
    was_heard: bool,
    /// How often in a row servers have said that another one has it.
    redirects: usize,
}

impl Channel {
    pub fn new(name: String) -> Self {
        Self {
            name,
            was_heard: false,
            redirects: 0,
        }
    }
}

/// A channel that this line is not for any more.
#[derive(Debug)]
pub enum Leaving {
    /// Another server has it.
    Moved(Channel, Redirect),
    /// For the time being nobody has it.
    Homeless(Channel, Error),
}

/// What is answered in the order in which it was asked.
#[derive(Debug)]
enum Asked {
    Channel(Channel),
    Ping,
}

/// Subscribes, again on each new connection, and takes what comes.
#[derive(Debug)]
pub struct Feed {
    maker: Maker,
    /// Away while it is connecting.
    link: Option<Link>,
    connecting: Option<Connecting>,
    /// Where it leads, as far as that is known.
    endpoint: Option<Endpoint>,
    decoder: PushDecoder,
    /// Channels that were not asked for on this connection, what was asked and not
    /// answered, and the channels whose messages come.
    wanted: VecDeque<Channel>,
    asked: VecDeque<Asked>,
    heard: Vec<String>,
    leaving: Vec<Leaving>,
    silence: Silence,
    /// Whether messages of all channels have come at a time.
    has_begun: bool,
    /// Whether some come again that did not for a while.
    has_regained: bool,
    gaps: u64,
    bytes: u64,
    /// What was counted by links before this one.
    reconnects: u64,
}

impl Feed {
    /// A feed that is not connected. Once it was, it tries for some time to be so
    /// again.
    pub fn new(maker: Maker, channels: impl IntoIterator<Item = Channel>) -> Self {
        let wanted: VecDeque<_> = channels.into_iter().collect();
        Self {
            link: Some(maker.link(wanted.front())),
            connecting: None,
            endpoint: None,
            maker,
            decoder: PushDecoder::new(),
            wanted,
            asked: VecDeque::new(),
            heard: Vec::new(),
            leaving: Vec::new(),
            silence: Silence::new(),
            has_begun: false,
            has_regained: false,
            gaps: 0,
            bytes: 0,
            reconnects: 0,
        }
    }

    /// One to a server of a cluster that another one has told of: it is there.
    pub fn among_others(maker: Maker, channel: Channel) -> Self {
        let mut feed = Self::new(maker, [channel]);
        if let Some(link) = &mut feed.link {
            link.expect_server();
        }
        feed
    }

    /// Leads where a server has said that the channel is.
    pub fn lead_to(&mut self, redirect: Redirect) {
        let peer = self.maker.deployment.server(redirect.to.clone()).peer();
        if let Some(first) = self.wanted.front() {
            let text = format!("channel {:?}: its messages come from {peer}", first.name);
            self.note(Level::Debug, text);
        }
        self.endpoint = Some(redirect.to.clone());
        if let Some(link) = &mut self.link {
            link.lead_to(redirect);
        }
    }

    /// It is one of several: none is to keep the others waiting.
    pub fn share_the_thread(&mut self) {
        if let Some(link) = &mut self.link {
            link.share_the_thread();
        }
    }

    /// Whether messages of all channels come.
    pub fn is_subscribed(&self) -> bool {
        let is_channel = |asked: &Asked| matches!(asked, Asked::Channel(_));
        self.wanted.is_empty() && !self.asked.iter().any(is_channel)
    }

    /// Whether there is a channel that it is for.
    pub fn has_channels(&self) -> bool {
        !self.heard.is_empty() || !self.is_subscribed()
    }

    /// Whether it leads to this server.
    pub fn leads_to(&self, endpoint: &Endpoint) -> bool {
        self.endpoint.as_ref() == Some(endpoint)
    }

    /// It is for this channel, too, from now on.
    pub fn add(&mut self, channel: Channel) {
        self.wanted.push_back(channel);
    }

    /// The channels that it is not for any more.
    pub fn take_leaving(&mut self) -> Vec<Leaving> {
        let leaving = mem::take(&mut self.leaving);
        if !leaving.is_empty() {
            self.settle();
        }
        leaving
    }

    fn connection(&mut self) -> Option<&mut Connection> {
        self.link.as_mut()?.connection()
    }

    /// Waits until bytes are there to [take](Self::take). Connects and subscribes,
    /// if that is not done. May be cancelled, and goes on where it was.
    pub async fn wait(&mut self) -> Result<()> {
        loop {
            self.connect().await?;
            self.ask();
            let longest = self.link.as_ref().and_then(Link::longest_block);
            let Some(connection) = self.link.as_mut().and_then(Link::connection) else {
                continue;
            };
            connection.flush().await?;
            let patience = connection.address().access.socket_timeout;
            let due = match self.silence.due(patience) {
                Due::Wait(due) => due,
                // What came while nobody listened is no silence.
                _ if !connection.received_now()?.is_empty() => return Ok(()),
                Due::GiveUp => return Err(connection.silent(patience)),
                Due::Ask => {
                    connection.queue(&redis::cmd("PING"));
                    self.asked.push_back(Asked::Ping);
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

    /// Connects, unless that is done.
    async fn connect(&mut self) -> Result<()> {
        if let Some(link) = &mut self.link {
            link.look_round().await;
            if link.connection().is_some() {
                return Ok(());
            }
            self.begin_anew();
        }
        if let Some(mut link) = self.link.take() {
            if let Some(first) = self.wanted.front() {
                // The one that it was made for may have left.
                link.turn_to(Slot::of(first.name.as_bytes()));
            }
            self.connecting = Some(Connecting::new(link));
        }
        let Some(connecting) = &mut self.connecting else {
            return Ok(());
        };
        let (link, made) = connecting.await;
        self.connecting = None;
        let link = self.link.insert(link);
        if let Some(connection) = link.connection() {
            self.endpoint = Some(connection.address().endpoint.clone());
        }
        self.silence = Silence::new();
        made
    }

    /// Has the connection ask for the channels that were not asked for on it.
    fn ask(&mut self) {
        let Some(connection) = self.link.as_mut().and_then(Link::connection) else {
            return;
        };
        // One by one, so that a refusal says which one is refused.
        for channel in self.wanted.drain(..) {
            connection.queue(&subscribe(self.maker.naming, &channel.name));
            self.asked.push_back(Asked::Channel(channel));
        }
    }

    /// Takes what one look finds on the line off it, without waiting: messages,
    /// until there are `most` rows of them. Whether there was something.
    ///
    /// # Errors
    /// [`Error::Message`] if a message does not fit, which has been taken. After any
    /// other, this has [failed](Self::failed).
    pub fn take(&mut self, rows: &mut MessageBuilder, most: usize) -> Result<bool> {
        let Some(connection) = self.link.as_mut().and_then(Link::connection) else {
            return Ok(false);
        };
        let received = connection.received_now()?;
        if received.is_empty() {
            return Ok(false);
        }
        let mut input = received;
        let decoded = self.decoder.decode(&mut input, rows, most, now());
        let taken = received.len() - input.len();
        connection.consume(taken);
        self.bytes += taken as u64;
        self.hear(decoded)?;
        self.silence.broken();
        Ok(true)
    }

    fn hear(&mut self, decoded: Result<Option<Notice>, PushFault>) -> Result<()> {
        match decoded {
            Ok(None) => Ok(()),
            Ok(Some(Notice::Pong)) => {
                // The line that ASKING is answered by looks like one, too.
                if let Some(Asked::Ping) = self.asked.front() {
                    self.asked.pop_front();
                }
                Ok(())
            }
            Ok(Some(Notice::Subscribed)) => {
                self.confirm();
                Ok(())
            }
            Ok(Some(Notice::Refused(reply))) => self.refused(&reply),
            Ok(Some(Notice::Unsubscribed(channel))) => self.unsubscribed(channel),
            Err(PushFault::Message(error)) => Err(Error::Message(error)),
            Err(PushFault::Protocol(reason)) => Err(Error::Protocol {
                context: self.peer(),
                reason: self.maker.deployment.redact(&reason),
            }),
        }
    }

    fn confirm(&mut self) {
        if let Some(Asked::Channel(channel)) = self.asked.pop_front() {
            self.has_regained |= channel.was_heard;
            self.heard.push(channel.name);
            self.settle();
        }
    }

    /// Notes that messages of all channels come, if they do.
    fn settle(&mut self) {
        if self.heard.is_empty() || !self.is_subscribed() {
            return;
        }
        self.has_begun = true;
        if let Some(link) = &mut self.link {
            link.succeeded();
        }
        if mem::take(&mut self.has_regained) {
            let text = format!(
                "{}: subscribed again; messages that were published meanwhile were missed",
                self.peer()
            );
            self.note(Level::Warning, text);
        }
    }

    fn refused(&mut self, reply: &str) -> Result<()> {
        let deployment = self.maker.deployment.clone();
        let access = &deployment.access;
        let mut channel = match self.asked.pop_front() {
            Some(Asked::Channel(channel)) => channel,
            // Who may not ask whether anybody is there is told so, by somebody.
            Some(Asked::Ping) => return Ok(()),
            None => return Err(Error::from_reply(self.peer(), reply, access)),
        };
        if let Some(redirect) = self.moved(reply)
            && channel.redirects < MAX_REDIRECTS
        {
            channel.redirects += 1;
            self.leaving.push(Leaving::Moved(channel, redirect));
            return Ok(());
        }
        let error = Error::from_reply(format!("channel {:?}", channel.name), reply, access);
        let is_sharded = self.maker.naming == Naming::Sharded;
        if is_sharded && error.is_transient() && !self.heard.is_empty() {
            // The others are not to miss anything by that.
            self.leaving.push(Leaving::Homeless(channel, error));
            return Ok(());
        }
        self.asked.push_front(Asked::Channel(channel));
        Err(error)
    }

    /// Where the server says that a channel is for good, if it is not itself.
    fn moved(&mut self, reply: &str) -> Option<Redirect> {
        let here = self.connection()?.address().clone();
        let redirect = Redirect::from_reply(reply, &here.endpoint)?;
        let is_elsewhere = redirect.kind == RedirectKind::Moved && redirect.to != here.endpoint;
        is_elsewhere.then_some(redirect)
    }

    /// The server has ended the subscription to a channel: one that is sharded has
    /// moved with its slot.
    fn unsubscribed(&mut self, channel: String) -> Result<()> {
        if self.maker.naming != Naming::Sharded {
            return Err(Error::Connection {
                peer: self.peer(),
                reason: format!("the server ended the subscription to channel {channel:?}"),
                kind: io::ErrorKind::ConnectionAborted,
            });
        }
        let Some(at) = self.heard.iter().position(|heard| *heard == channel) else {
            return Ok(());
        };
        self.count_gap();
        let name = self.heard.swap_remove(at);
        let lost = self.lost(name);
        self.wanted.push_back(lost);
        // The server tells who has it now.
        self.ask();
        match self.connection() {
            Some(connection) => connection.flush_at_once(),
            None => Ok(()),
        }
    }

    fn peer(&mut self) -> String {
        let connection = self.connection();
        connection.map_or_else(String::new, |connection| connection.address().peer())
    }

    /// Whether messages of some channel came and do not now.
    pub fn is_interrupted(&self) -> bool {
        let asked = self.asked.iter().filter_map(|asked| match asked {
            Asked::Channel(channel) => Some(channel),
            Asked::Ping => None,
        });
        let was_heard = |channel: &Channel| channel.was_heard;
        self.has_regained || self.wanted.iter().chain(asked).any(was_heard)
    }

    /// An interruption begins, unless one goes on.
    fn count_gap(&mut self) {
        if self.has_begun && !self.is_interrupted() {
            self.gaps += 1;
        }
    }

    /// A channel whose messages come no longer.
    fn lost(&self, name: String) -> Channel {
        Channel {
            was_heard: self.has_begun || self.has_regained,
            ..Channel::new(name)
        }
    }

    /// What is known of a connection that is no more.
    fn begin_anew(&mut self) {
        if !self.heard.is_empty() {
            self.count_gap();
        }
        let heard = mem::take(&mut self.heard).into_iter();
        let mut all: VecDeque<_> = heard.map(|name| self.lost(name)).collect();
        all.extend(self.asked.drain(..).filter_map(|asked| match asked {
            Asked::Channel(channel) => Some(channel),
            Asked::Ping => None,
        }));
        all.append(&mut self.wanted);
        self.wanted = all;
        self.has_regained = false;
        self.decoder = PushDecoder::new();
    }

    /// Something failed: gives the connection up.
    ///
    /// # Errors
    /// The error itself, if it will not pass, or has not for too long.
    pub fn failed(&mut self, error: Error) -> Result<()> {
        self.begin_anew();
        match &mut self.link {
            Some(link) => link.failed(error),
            None => Err(error),
        }
    }

    /// Ends the subscription.
    pub fn disconnect(&mut self) {
        if let Some(link) = &mut self.link {
            link.disconnect();
        }
        drop(self.stop_connecting());
    }

    /// Has another link set out instead, if one has.
    fn stop_connecting(&mut self) -> Option<Connecting> {
        let connecting = self.connecting.take()?;
        self.reconnects += connecting.reconnects();
        self.link = Some(self.maker.link(self.wanted.front()));
        Some(connecting)
    }

    /// Something to tell.
    fn note(&mut self, level: Level, text: String) {
        if let Some(link) = &mut self.link {
            link.note(level, text);
        }
    }

    /// Leaves the connection to the process it belongs to, which is another; here
    /// was never one.
    pub fn forget(&mut self) {
        let gaps = self.gaps;
        self.begin_anew();
        self.gaps = gaps;
        // It was never subscribed here.
        self.has_begun = false;
        self.wanted
            .iter_mut()
            .for_each(|channel| channel.was_heard = false);
        if let Some(link) = &mut self.link {
            link.forget();
        }
        mem::forget(self.stop_connecting());
    }

    /// Whether there is something to tell.
    pub fn has_note(&self) -> bool {
        self.link.as_ref().is_some_and(Link::has_note)
    }

    /// The next thing to tell.
    pub fn next_note(&mut self) -> Option<Note> {
        self.link.as_mut()?.next_note()
    }

    /// What it has done so far.
    pub fn tally(&self) -> Tally {
        let link = self.link.as_ref().map(Link::reconnects);
        let connecting = self.connecting.as_ref().map(Connecting::reconnects);
        Tally {
            bytes: self.bytes,
            reconnects: self.reconnects + link.or(connecting).unwrap_or(0),
            gaps: self.gaps,
        }
    }
}

/// What lines have done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Bytes received.
    pub bytes: u64,
    /// How often a connection was made again.
    pub reconnects: u64,
    /// How often channels were not subscribed for a while.
    pub gaps: u64,
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.reconnects += other.reconnects;
        self.gaps += other.gaps;
    }
}

/// Microseconds since the epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}
