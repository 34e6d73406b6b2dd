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
    /// How many IDs hold one entry, on average; not always known.
    pub ids_per_entry: Option<f64>,
    /// Time that a short command took.
    pub round_trip: Duration,
}

/// Finds out where a stream ends; `None` if it has no entries.
///
/// `XINFO` tells most. A user who may not run it can see the last entry by
/// `XREVRANGE`, and one who may run nothing but `XRANGE` finds it by halving.
pub async fn extent(connection: &mut Connection, stream: &str) -> Result<Option<Extent>> {
    let begun = Instant::now();
    let reply = connection.query(&command::stream_info(stream)).await?;
    let round_trip = begun.elapsed();
    match error_text(&reply) {
        None => return Ok(from_info(reply, round_trip)),
        Some(text) if text.contains("no such key") => return Ok(None),
        Some(text) if !is_forbidden(&text) => return Err(failed(connection, stream, text)),
        Some(_) => {}
    }
    let reply = connection.query(&command::last_entry(stream)).await?;
    let last = match error_text(&reply) {
        None => first_id(&reply),
        Some(text) if is_forbidden(&text) => last_by_halving(connection, stream).await?,
        Some(text) => return Err(failed(connection, stream, text)),
    };
    Ok(last.map(|last| Extent {
        first: EntryId::MIN,
        last,
        ids_per_entry: None,
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

fn from_info(reply: Value, round_trip: Duration) -> Option<Extent> {
    let info: HashMap<String, Value> = FromRedisValue::from_redis_value(reply).ok()?;
    let length = match info.get("length") {
        Some(Value::Int(length)) if *length > 0 => *length as f64,
        _ => return None,
    };
    let first = info.get("first-entry").and_then(entry_id)?;
    let last = info.get("last-entry").and_then(entry_id)?;
    let span = IdRange::new(first, last)?.span();
    Some(Extent {
        first,
        last,
        ids_per_entry: Some(span / length),
        round_trip,
    })
}

/// The ID of an entry.
fn entry_id(entry: &Value) -> Option<EntryId> {
    match entry {
        Value::Array(parts) => match parts.first()? {
            Value::BulkString(id) => EntryId::from_reply(id),
            _ => None,
        },
        _ => None,
    }
}

/// The ID of the first entry of a reply.
fn first_id(entries: &Value) -> Option<EntryId> {
    match entries {
        Value::Array(entries) => entry_id(entries.first()?),
        _ => None,
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
        match (first_id(&reply), least, from.previous()) {
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
