//! How far a stream reaches when a read begins.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value};

use super::link::Link;
use super::scan::RETRY_BUDGET;
use crate::command;
use crate::connection::{Connection, error_text};
use crate::deployment::ReadFrom;
use crate::entry_id::{EntryId, IdRange, Start};
use crate::error::{Error, Result};

/// What was found out about a stream.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// No entry is outside of it; `None` if there are no entries.
    range: Option<IdRange>,
    /// Whether the server shows nothing of it.
    pub is_missing: bool,
    /// No entry that comes will have an ID up to this one.
    pub passed: EntryId,
    /// How many IDs hold one entry on average; not always known.
    pub density: Option<f64>,
    /// Time that a short command took.
    pub round_trip: Duration,
}

impl Extent {
    /// The ID that a start stands for; `None` if there is none.
    pub fn first(&self, start: Start) -> Option<EntryId> {
        match start {
            Start::At(start) => Some(start),
            Start::AfterLast => self.passed.next(),
            Start::Never => None,
        }
    }

    /// About how many entries a part of it has, if that is known; exactly so for the
    /// whole.
    pub fn entries(&self, part: IdRange) -> Option<u64> {
        Some((part.span() / self.density?).round() as u64)
    }

    /// The part from `start` to `end` that may hold entries.
    pub fn within(&self, start: EntryId, end: EntryId) -> Option<IdRange> {
        let all = self.range?;
        IdRange::new(start.max(all.start()), end.min(all.end()))
    }
}

/// Finds out where a stream ends.
///
/// `XINFO` tells most. Where a user may not run it, `XREVRANGE` shows the last
/// entry, and where `XRANGE` is all that is allowed, halving finds it.
pub async fn extent(connection: &mut Connection, stream: &str) -> Result<Extent> {
    Ok(extents(connection, &[stream]).await?.remove(0))
}

/// The same of the server that a link leads to. What a cluster's replica does not have
/// is asked of its master, where the link leads from then on.
pub async fn extent_along(link: &mut Link, stream: &str) -> Result<Extent> {
    let found = extent(link.ready().await?, stream).await?;
    if !found.is_missing || !link.turn_to_master() {
        return Ok(found);
    }
    extent(link.ready().await?, stream).await
}

/// The same of several streams, of which each may be on its way to another server: it
/// is asked there. The link leads where it did.
pub async fn extents_along(link: &mut Link, streams: &[&str]) -> Result<Vec<Extent>> {
    let mut found = shown(link.ready().await?, streams).await?;
    let is_missing = |at: &usize| matches!(found.get(*at), Some(Shown::Here(e)) if e.is_missing);
    let missing: Vec<usize> = (0..streams.len()).filter(is_missing).collect();
    if !missing.is_empty() && link.turn_to_master() {
        let keys: Vec<&str> = missing.iter().map(|&at| streams[at]).collect();
        let by_master = shown(link.ready().await?, &keys).await?;
        missing
            .iter()
            .zip(by_master)
            .for_each(|(&at, by_master)| found[at] = by_master);
        link.turn_back();
    }
    let mut extents = Vec::with_capacity(streams.len());
    for (&stream, shown) in streams.iter().zip(found) {
        extents.push(match shown {
            Shown::Here(extent) => extent,
            Shown::OnItsWay(_) => extent_elsewhere(link, stream).await?,
        });
    }
    Ok(extents)
}

/// Finds it out wherever the stream is.
async fn extent_elsewhere(link: &Link, stream: &str) -> Result<Extent> {
    let deployment = link.deployment().clone();
    let mut own = Link::new(deployment, stream, ReadFrom::Master, RETRY_BUDGET);
    own.expect_server();
    loop {
        match extent_along(&mut own, stream).await {
            Ok(extent) => {
                own.keep();
                return Ok(extent);
            }
            Err(error) => own.failed(error)?,
        }
    }
}

/// The same for several streams, which are asked for at once.
pub async fn extents(connection: &mut Connection, streams: &[&str]) -> Result<Vec<Extent>> {
    let found = shown(connection, streams).await?.into_iter();
    let here = found.map(|shown| match shown {
        Shown::Here(extent) => Ok(extent),
        Shown::OnItsWay(error) => Err(error),
    });
    here.collect()
}

/// What a server shows of a stream.
enum Shown {
    Here(Extent),
    /// It says who has it, for now.
    OnItsWay(Error),
}

async fn shown(connection: &mut Connection, streams: &[&str]) -> Result<Vec<Shown>> {
    let begun = Instant::now();
    let infos: Vec<_> = streams.iter().map(|s| command::stream_info(s)).collect();
    let replies = connection.query_all(&infos).await?;
    let round_trip = begun.elapsed();
    let mut found = Vec::with_capacity(streams.len());
    for (&stream, reply) in streams.iter().zip(replies) {
        let mut extent = Extent {
            range: None,
            is_missing: false,
            passed: EntryId::MIN,
            density: None,
            round_trip,
        };
        let is_known = match error_text(&reply) {
            None => extent.learn(reply).is_some(),
            Some(text) if text.starts_with("ERR no such key") => {
                extent.is_missing = true;
                true
            }
            Some(text) if is_forbidden(&text) => false,
            Some(text) if text.starts_with("ASK ") => {
                found.push(Shown::OnItsWay(failed(connection, stream, &text)));
                continue;
            }
            Some(text) => return Err(failed(connection, stream, &text)),
        };
        if !is_known {
            extent.look(connection, stream).await?;
        }
        found.push(Shown::Here(extent));
    }
    Ok(found)
}

/// Whether a user may not run a command, or the server does not know it.
fn is_forbidden(text: &str) -> bool {
    text.starts_with("NOPERM") || text.contains("unknown command")
}

fn failed(connection: &Connection, stream: &str, reply: &str) -> Error {
    Error::from_reply(
        format!("stream {stream:?}"),
        reply,
        &connection.address().access,
    )
}

impl Extent {
    /// Learns what `XINFO` tells; `None` if that is not understood.
    fn learn(&mut self, reply: Value) -> Option<()> {
        let info: HashMap<String, Value> = FromRedisValue::from_redis_value(reply).ok()?;
        let Value::BulkString(last_given) = info.get("last-generated-id")? else {
            return None;
        };
        let last_given = EntryId::from_reply(last_given)?;
        match info.get("length")? {
            Value::Int(0) => {}
            Value::Int(length) => {
                let first = entry_id(info.get("first-entry")?)?;
                let last = entry_id(info.get("last-entry")?)?;
                let range = IdRange::new(first, last)?;
                self.density = Some(range.span() / *length as f64);
                self.range = Some(range);
            }
            _ => return None,
        }
        self.passed = last_given;
        Some(())
    }

    /// Looks for the last entry, where `XINFO` does not tell of it.
    async fn look(&mut self, connection: &mut Connection, stream: &str) -> Result<()> {
        let reply = connection.query(&command::last_entry(stream)).await?;
        let last = match error_text(&reply) {
            None => first_id(connection, stream, &reply)?,
            Some(text) if is_forbidden(&text) => last_by_halving(connection, stream).await?,
            Some(text) => return Err(failed(connection, stream, &text)),
        };
        self.is_missing = last.is_none();
        self.range = last.and_then(|last| IdRange::new(EntryId::MIN, last));
        self.passed = last.unwrap_or(EntryId::MIN);
        Ok(())
    }
}

/// The ID of an entry.
pub fn entry_id(entry: &Value) -> Option<EntryId> {
    let Value::Array(parts) = entry else {
        return None;
    };
    let Value::BulkString(id) = parts.first()? else {
        return None;
    };
    EntryId::from_reply(id)
}

/// The ID of the first entry of a reply, if it has one.
fn first_id(connection: &Connection, stream: &str, reply: &Value) -> Result<Option<EntryId>> {
    let first = match reply {
        Value::Array(entries) => entries.first(),
        Value::Nil => None,
        other => Some(other),
    };
    match first.map(entry_id) {
        None => Ok(None),
        Some(Some(id)) => Ok(Some(id)),
        Some(None) => Err(nonsense(connection, stream)),
    }
}

fn nonsense(connection: &Connection, stream: &str) -> Error {
    Error::Protocol {
        context: format!("stream {stream:?} at {}", connection.address().peer()),
        reason: "a reply without the entries that were due".into(),
    }
}

/// Finds the last ID by `XRANGE` alone: halves the IDs that may be the last,
/// 128 short commands at the most.
async fn last_by_halving(connection: &mut Connection, stream: &str) -> Result<Option<EntryId>> {
    let mut least = None;
    let mut most = EntryId::MAX;
    loop {
        let from = match least {
            None => EntryId::MIN,
            Some(least) if least == most => return Ok(Some(most)),
            Some(least) => upper_middle(least, most),
        };
        let reply = connection.query(&command::entry_from(stream, from)).await?;
        if let Some(text) = error_text(&reply) {
            return Err(failed(connection, stream, &text));
        }
        let found = first_id(connection, stream, &reply)?;
        match (found, least, from.previous()) {
            (Some(id), ..) if id < from => return Err(nonsense(connection, stream)),
            (Some(id), ..) => least = Some(id),
            (None, Some(_), Some(before)) => most = before,
            (None, ..) => return Ok(None),
        }
    }
}

/// An ID between the two, greater than `least`. First the milliseconds are
/// halved, then the sequence numbers of one.
fn upper_middle(least: EntryId, most: EntryId) -> EntryId {
    let (least, most) = (least.as_u128(), most.as_u128());
    EntryId::from_u128(least + (most - least).div_ceil(2))
}
