//! How far a stream reaches when a read begins.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value};

use crate::command;
use crate::connection::{Connection, error_text};
use crate::entry_id::{EntryId, IdRange};
use crate::error::{Error, Result};

/// What was found out about a stream.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// No entry has a smaller ID.
    pub first: EntryId,
    /// No entry has a greater ID.
    pub last: EntryId,
    /// How many IDs hold one entry on average, and about how many bytes an entry
    /// has; not always known.
    pub density: Option<(f64, f64)>,
    /// Time that a short command took.
    pub round_trip: Duration,
}

/// Finds out where a stream ends; `None` if it has no entries.
///
/// `XINFO` tells most. Where a user may not run it, `XREVRANGE` shows the last
/// entry, and where `XRANGE` is all that is allowed, halving finds it.
pub async fn extent(connection: &mut Connection, stream: &str) -> Result<Option<Extent>> {
    let begun = Instant::now();
    let reply = connection.query(&command::stream_info(stream)).await?;
    let round_trip = begun.elapsed();
    match error_text(&reply) {
        None => {
            if let Some(known) = from_info(reply, round_trip) {
                return Ok(known);
            }
        }
        Some(text) if text.contains("no such key") => return Ok(None),
        Some(text) if is_forbidden(&text) => {}
        Some(text) => return Err(failed(connection, stream, text)),
    }
    let reply = connection.query(&command::last_entry(stream)).await?;
    let last = match error_text(&reply) {
        None => first_id(connection, stream, &reply)?,
        Some(text) if is_forbidden(&text) => last_by_halving(connection, stream).await?,
        Some(text) => return Err(failed(connection, stream, text)),
    };
    Ok(last.map(|last| Extent {
        first: EntryId::MIN,
        last,
        density: None,
        round_trip,
    }))
}

/// Whether a user may not run a command, or the server does not know it.
fn is_forbidden(text: &str) -> bool {
    text.starts_with("NOPERM") || text.contains("unknown command")
}

fn failed(connection: &Connection, stream: &str, reply: String) -> Error {
    let reply = connection.address().redact(&reply);
    Error::from_reply(format!("stream {stream:?}"), reply)
}

/// What `XINFO` tells: of no entries, of an extent, or nothing that is understood.
fn from_info(reply: Value, round_trip: Duration) -> Option<Option<Extent>> {
    let info: HashMap<String, Value> = FromRedisValue::from_redis_value(reply).ok()?;
    let length = match info.get("length")? {
        Value::Int(0) => return Some(None),
        Value::Int(length) => *length as f64,
        _ => return None,
    };
    let (first_entry, last_entry) = (info.get("first-entry")?, info.get("last-entry")?);
    let (first, last) = (entry_id(first_entry)?, entry_id(last_entry)?);
    let span = IdRange::new(first, last)?.span();
    let bytes = size(first_entry).max(size(last_entry));
    Some(Some(Extent {
        first,
        last,
        density: Some((span / length, bytes as f64)),
        round_trip,
    }))
}

/// About how many bytes a value takes in a reply.
fn size(value: &Value) -> usize {
    match value {
        Value::BulkString(text) => text.len() + 8,
        Value::Array(parts) => 4 + parts.iter().map(size).sum::<usize>(),
        _ => 4,
    }
}

/// The ID of an entry.
fn entry_id(entry: &Value) -> Option<EntryId> {
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
        Some(None) => Err(Error::Protocol {
            context: format!("stream {stream:?} at {}", connection.address().peer()),
            reason: "a reply without entries where entries were due".into(),
        }),
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
            return Err(failed(connection, stream, text));
        }
        let found = first_id(connection, stream, &reply)?;
        match (found, least, from.previous()) {
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
