//! What the server knows of a stream, of its groups, and of their consumers.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::{Cmd, FromRedisValue, Value};

use super::extent::entry_id;
use super::link::{Link, checked};
use super::note::Notes;
use super::scan::RETRY_BUDGET;
use super::streams::keys::{divide, find_keys, is_elsewhere, is_key, is_no_stream, topology};
use crate::command;
use crate::connection::error_text;
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::EntryId;
use crate::error::{Error, Result};

/// A stream, as `XINFO STREAM` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    pub key: Arc<str>,
    /// Entries that it has.
    pub length: i64,
    /// Entries that it ever had; Redis 7.0.
    pub entries_added: Option<i64>,
    pub first_id: Option<EntryId>,
    pub last_id: Option<EntryId>,
    /// The last ID ever given, be its entry there or not.
    pub last_generated_id: EntryId,
    /// The greatest ID of an entry that was deleted; Redis 7.0.
    pub max_deleted_id: Option<EntryId>,
    pub groups: Vec<GroupInfo>,
}

/// A group, as `XINFO GROUPS` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupInfo {
    /// Any bytes.
    pub name: Vec<u8>,
    /// Entries that were delivered and not acknowledged.
    pub pending: i64,
    /// Entries that were not delivered, where the server can tell; Redis 7.0.
    pub lag: Option<i64>,
    pub last_delivered_id: EntryId,
    /// Entries up to the last one delivered, where the server can tell; Redis 7.0.
    pub entries_read: Option<i64>,
    pub consumers: Vec<ConsumerInfo>,
}

impl GroupInfo {
    /// Milliseconds since any of the consumers last asked.
    pub fn idle_ms(&self) -> Option<i64> {
        let idle = self.consumers.iter().map(|consumer| consumer.idle_ms);
        idle.min()
    }
}

/// A consumer, as `XINFO CONSUMERS` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerInfo {
    /// Any bytes.
    pub name: Vec<u8>,
    /// Entries that it was given and has not acknowledged.
    pub pending: i64,
    /// Milliseconds since it last asked.
    pub idle_ms: i64,
    /// Milliseconds since it last was given something; Redis 7.2.
    pub inactive_ms: Option<i64>,
}

/// Streams of one server that are asked about at once.
const PIECE: usize = 100;

/// Asks for all that is known of a stream, or of all streams whose keys match a glob
/// pattern, by key; those that are there.
///
/// # Errors
/// Any of the connection's, and the server's own. A key that was named and is no
/// stream is one.
pub async fn stream_info(
    deployment: &Arc<Deployment>,
    pattern: &str,
    read_from: ReadFrom,
    notes: &Notes,
) -> Result<Vec<StreamInfo>> {
    if is_key(pattern) {
        let link = Link::new(deployment.clone(), pattern, read_from, RETRY_BUDGET);
        return ask_over(link, &[pattern.into()], Line::ToStream, notes).await;
    }
    let keys = find_keys(deployment, pattern, read_from, notes).await?;
    let topology = topology(deployment, read_from, notes).await?;
    let (parts, _) = divide(&topology, keys);
    let routes = topology.routes().into_iter().zip(&parts);
    let asked = routes.map(|(route, keys)| {
        let mut link = Link::along(route, RETRY_BUDGET);
        link.expect_server();
        ask_over(link, keys, Line::ToServer, notes)
    });
    let told = try_join_all(asked).await?.into_iter().flatten();
    let mut told: Vec<StreamInfo> = told.collect();
    told.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    Ok(told)
}

/// Where a link leads, and so what becomes of an error that is about one stream.
#[derive(Debug, Clone, Copy)]
enum Line {
    /// To the stream that was asked for: it is an error.
    ToStream,
    /// To a server that had the streams a moment ago: one that is none any more is
    /// passed over, and one that is elsewhere now is asked about there.
    ToServer,
}

/// Asks about streams, over one link.
async fn ask_over(
    mut link: Link,
    streams: &[Arc<str>],
    line: Line,
    notes: &Notes,
) -> Result<Vec<StreamInfo>> {
    let told = ask_all(&mut link, streams, line, notes).await;
    notes.add(link.take_notes());
    told
}

async fn ask_all(
    link: &mut Link,
    streams: &[Arc<str>],
    line: Line,
    notes: &Notes,
) -> Result<Vec<StreamInfo>> {
    let mut told = Vec::with_capacity(streams.len());
    let mut missing = Vec::new();
    for piece in streams.chunks(PIECE) {
        let mut described = loop {
            match describe(link, piece, line).await {
                Ok(described) => break described,
                Err(error) => link.failed(error)?,
            }
        };
        link.succeeded();
        told.append(&mut described.here);
        missing.append(&mut described.missing);
        for stream in described.elsewhere {
            let deployment = link.deployment().clone();
            // A replica may not have what has come.
            let own = Link::new(deployment, &stream, ReadFrom::Master, RETRY_BUDGET);
            let streams = [stream];
            let asked = ask_over(own, &streams, Line::ToStream, notes);
            told.append(&mut Box::pin(asked).await?);
        }
    }
    if !missing.is_empty() && link.turn_to_master() {
        let asked = ask_all(link, &missing, line, notes);
        told.append(&mut Box::pin(asked).await?);
    }
    link.keep();
    Ok(told)
}

/// What a server has shown of some streams.
#[derive(Default)]
struct Described {
    here: Vec<StreamInfo>,
    /// Keys that it does not have.
    missing: Vec<Arc<str>>,
    /// Keys of which it says that another server has them.
    elsewhere: Vec<Arc<str>>,
}

/// Asks about some streams, in two round trips.
async fn describe(link: &mut Link, streams: &[Arc<str>], line: Line) -> Result<Described> {
    let mut described = Described::default();
    if streams.is_empty() {
        return Ok(described);
    }
    let cmds: Vec<Cmd> = streams
        .iter()
        .flat_map(|stream| [command::stream_info(stream), command::group_info(stream)])
        .collect();
    let mut replies = link.ready().await?.query_all(&cmds).await?.into_iter();
    for stream in streams {
        let (Some(about), Some(groups)) = (replies.next(), replies.next()) else {
            break;
        };
        let refused = [&about, &groups].into_iter().find_map(error_text);
        match (line, refused) {
            (Line::ToServer, Some(text)) if is_elsewhere(&text) => {
                described.elsewhere.push(stream.clone());
                continue;
            }
            (Line::ToServer, Some(text)) if is_no_stream(&text) => continue,
            _ => {}
        }
        let of = Subject { stream, link };
        match (of.told(about)?, of.told(groups)?) {
            (Some(about), Some(groups)) => described.here.push(of.stream(about, groups)?),
            _ => described.missing.push(stream.clone()),
        }
    }
    add_consumers(link, &mut described.here).await?;
    Ok(described)
}

/// Asks about the consumers of all groups; a group that is gone is left out.
async fn add_consumers(link: &mut Link, streams: &mut [StreamInfo]) -> Result<()> {
    let cmds: Vec<Cmd> = streams
        .iter()
        .flat_map(|stream| stream.groups.iter().map(|group| (&stream.key, &group.name)))
        .map(|(key, name)| command::consumer_info(key, name))
        .collect();
    if cmds.is_empty() {
        return Ok(());
    }
    let mut replies = link.ready().await?.query_all(&cmds).await?.into_iter();
    for stream in streams {
        let of = Subject {
            stream: &stream.key,
            link,
        };
        for mut group in std::mem::take(&mut stream.groups) {
            let consumers = of.told(replies.next().unwrap_or(Value::Nil))?;
            if let Some(consumers) = consumers {
                group.consumers = of.consumers(consumers)?;
                stream.groups.push(group);
            }
        }
    }
    Ok(())
}

/// Names in a reply, and what they stand for.
type Record = HashMap<String, Value>;

/// The stream that replies are about, and where they come from.
struct Subject<'a> {
    stream: &'a Arc<str>,
    link: &'a Link,
}

impl Subject<'_> {
    /// A reply, unless what it is about is not there.
    fn told(&self, reply: Value) -> Result<Option<Value>> {
        match error_text(&reply) {
            Some(text) if text.starts_with("ERR no such key") => Ok(None),
            Some(text) if text.starts_with("NOGROUP") => Ok(None),
            _ => checked(reply, self.link.deployment(), self.stream).map(Some),
        }
    }

    fn stream(&self, about: Value, groups: Value) -> Result<StreamInfo> {
        let about: Record = self.parsed(about)?;
        let groups: Vec<Record> = self.parsed(groups)?;
        let entry = |name| about.get(name).and_then(entry_id);
        Ok(StreamInfo {
            key: self.stream.clone(),
            length: self.due(&about, "length", number)?,
            entries_added: about.get("entries-added").and_then(number),
            first_id: entry("first-entry"),
            last_id: entry("last-entry"),
            last_generated_id: self.due(&about, "last-generated-id", id)?,
            // No entry has the least of all IDs.
            max_deleted_id: about
                .get("max-deleted-entry-id")
                .and_then(id)
                .filter(|&deleted| deleted > EntryId::MIN),
            groups: groups
                .iter()
                .map(|group| self.group(group))
                .collect::<Result<_>>()?,
        })
    }

    fn group(&self, group: &Record) -> Result<GroupInfo> {
        Ok(GroupInfo {
            name: self.due(group, "name", bytes)?,
            pending: self.due(group, "pending", number)?,
            lag: group.get("lag").and_then(number),
            last_delivered_id: self.due(group, "last-delivered-id", id)?,
            entries_read: group.get("entries-read").and_then(number),
            consumers: Vec::new(),
        })
    }

    fn consumers(&self, reply: Value) -> Result<Vec<ConsumerInfo>> {
        let consumers: Vec<Record> = self.parsed(reply)?;
        let consumer = |told: &Record| {
            Ok(ConsumerInfo {
                name: self.due(told, "name", bytes)?,
                pending: self.due(told, "pending", number)?,
                idle_ms: self.due(told, "idle", number)?,
                inactive_ms: told.get("inactive").and_then(number),
            })
        };
        consumers.iter().map(consumer).collect()
    }

    fn parsed<T: FromRedisValue>(&self, reply: Value) -> Result<T> {
        T::from_redis_value(reply).map_err(|_| self.nonsense("is no list of names and values"))
    }

    /// What is in every server's reply.
    fn due<T>(&self, record: &Record, name: &str, read: fn(&Value) -> Option<T>) -> Result<T> {
        let value = record.get(name).and_then(read);
        value.ok_or_else(|| self.nonsense(&format!("has no {name}")))
    }

    fn nonsense(&self, what: &str) -> Error {
        Error::Protocol {
            context: format!("stream {:?}", self.stream),
            reason: format!("the reply to XINFO {what}"),
        }
    }
}

fn number(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(*number),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        _ => None,
    }
}

fn id(value: &Value) -> Option<EntryId> {
    EntryId::from_reply(&bytes(value)?)
}
