//! What the server knows of a stream, of its groups, and of their consumers.

use std::collections::HashMap;
use std::sync::Arc;

use redis::{Cmd, FromRedisValue, Value};

use super::extent::entry_id;
use super::link::{Link, Note, checked};
use super::scan::RETRY_BUDGET;
use crate::command;
use crate::connection::error_text;
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::EntryId;
use crate::error::{Error, Result};

/// A stream, as `XINFO STREAM` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    pub key: String,
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

/// Asks for all that is known of a stream; nothing, if there is none. And what there
/// is to tell.
///
/// # Errors
/// Any of the connection's, and the server's own: a key that is no stream is one.
pub async fn stream_info(
    deployment: &Arc<Deployment>,
    stream: &str,
    read_from: ReadFrom,
) -> Result<(Vec<StreamInfo>, Vec<Note>)> {
    let mut link = Link::new(deployment.clone(), stream, read_from, RETRY_BUDGET);
    let streams = [stream.to_owned()];
    loop {
        match describe(&mut link, &streams).await {
            Ok(told) => {
                link.keep();
                return Ok((told, link.take_notes()));
            }
            Err(error) => link.failed(error)?,
        }
    }
}

/// Asks about streams of one server, in two round trips; those that are there.
async fn describe(link: &mut Link, streams: &[String]) -> Result<Vec<StreamInfo>> {
    let cmds: Vec<Cmd> = streams
        .iter()
        .flat_map(|stream| [command::stream_info(stream), command::group_info(stream)])
        .collect();
    let mut replies = link.ready().await?.query_all(&cmds).await?.into_iter();
    let mut told = Vec::with_capacity(streams.len());
    for stream in streams {
        let (Some(about), Some(groups)) = (replies.next(), replies.next()) else {
            break;
        };
        let of = Subject { stream, link };
        if let (Some(about), Some(groups)) = (of.told(about)?, of.told(groups)?) {
            told.push(of.stream(about, groups)?);
        }
    }
    add_consumers(link, &mut told).await?;
    Ok(told)
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
    stream: &'a str,
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
            key: self.stream.to_owned(),
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
