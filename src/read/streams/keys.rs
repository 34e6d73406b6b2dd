//! Which streams there are: the keys that match a pattern, of all servers that have
//! any, by `SCAN`.

use std::sync::Arc;

use futures_util::future::try_join_all;
use redis::FromRedisValue;
use tokio::time::sleep;

use crate::command;
use crate::connection::{Backoff, Route, Topology};
use crate::deployment::{Deployment, ReadFrom};
use crate::error::{Error, Result, shorten};
use crate::read::link::{Link, checked_of};
use crate::read::note::{Note, Notes};
use crate::read::scan::RETRY_BUDGET;

/// Keys that the server looks at for one reply: under a millisecond of its time.
const LOOKED_AT: usize = 1000;

/// The keys of the streams that match a glob pattern, in the order of their bytes.
///
/// A pattern that is a key is taken for the key of a stream: nothing is asked.
///
/// # Errors
/// Any of the connection's, the server's own, and [`Error::Protocol`] for a key that
/// is not UTF-8.
pub async fn find_keys(
    deployment: &Arc<Deployment>,
    pattern: &str,
    read_from: ReadFrom,
    notes: &Notes,
) -> Result<Vec<Arc<str>>> {
    if is_key(pattern) {
        return Ok(vec![pattern.into()]);
    }
    let before = topology(deployment, read_from, notes).await?;
    let slots = before.own_slots().await;
    let mut keys = scan_all(&before, pattern, notes).await?;
    // A key that went from one server to another may have been seen at neither.
    if Topology::is_moving(&slots) || before.own_slots().await != slots {
        // A replica may not have what has come.
        let after = topology(deployment, ReadFrom::Master, notes).await?;
        keys.extend(scan_all(&after, pattern, notes).await?);
    }
    keys.sort_unstable();
    // SCAN may show a key twice, and a key on its way is at two servers.
    keys.dedup();
    Ok(keys)
}

/// The keys that all servers have, at the same time.
async fn scan_all(topology: &Topology, pattern: &str, notes: &Notes) -> Result<Vec<Arc<str>>> {
    let scans = topology.routes().into_iter();
    let found = try_join_all(scans.map(|route| scan(route, pattern, notes))).await?;
    Ok(found.concat())
}

/// The keys that each of the servers has, and of each key, which server that is.
pub fn divide(topology: &Topology, keys: Vec<Arc<str>>) -> (Vec<Vec<Arc<str>>>, Vec<usize>) {
    let mut parts = vec![Vec::new(); topology.shards()];
    let mut owners = Vec::with_capacity(keys.len());
    for key in keys {
        let owner = topology.shard_of(key.as_bytes());
        parts[owner].push(key);
        owners.push(owner);
    }
    (parts, owners)
}

/// Whether a pattern matches itself and nothing else.
pub fn is_key(pattern: &str) -> bool {
    !pattern.contains(['*', '?', '[', '\\'])
}

/// The servers that share the keys. One that is there and busy is asked again.
///
/// # Errors
/// As [`Topology::find`].
pub async fn topology(
    deployment: &Arc<Deployment>,
    read_from: ReadFrom,
    notes: &Notes,
) -> Result<Topology> {
    let mut backoff = Backoff::new(RETRY_BUDGET);
    loop {
        match Topology::find(deployment, read_from).await {
            Err(error) if error.is_transient() && !error.is_unreachable() => {
                let Some(pause) = backoff.failed() else {
                    return Err(error);
                };
                notes.add([Note::of_retry(&error, pause)]);
                sleep(pause).await;
            }
            result => return result,
        }
    }
}

/// The keys that one server has.
async fn scan(route: Route, pattern: &str, notes: &Notes) -> Result<Vec<Arc<str>>> {
    let mut link = Link::along(route, RETRY_BUDGET);
    let keys = scan_over(&mut link, pattern).await;
    notes.add(link.take_notes());
    keys
}

async fn scan_over(link: &mut Link, pattern: &str) -> Result<Vec<Arc<str>>> {
    let mut keys = Vec::new();
    let mut cursor = 0;
    loop {
        match scan_on(link, pattern, cursor, &mut keys).await {
            Ok(0) => break,
            Ok(next) => cursor = next,
            Err(error) => {
                link.failed(error)?;
                // Another server may be there now, which knows nothing of the cursor.
                cursor = 0;
            }
        }
    }
    link.keep();
    Ok(keys)
}

/// Takes one step; the cursor of the next, which is 0 after the last.
async fn scan_on(
    link: &mut Link,
    pattern: &str,
    cursor: u64,
    keys: &mut Vec<Arc<str>>,
) -> Result<u64> {
    let context = || format!("pattern {pattern:?}");
    let cmd = command::scan_streams(pattern, cursor, LOOKED_AT);
    let reply = link.ready().await?.query(&cmd).await?;
    let reply = checked_of(reply, link.deployment(), context)?;
    let (next, found): (u64, Vec<Vec<u8>>) =
        FromRedisValue::from_redis_value(reply).map_err(|_| Error::Protocol {
            context: context(),
            reason: "no keys where SCAN's were due".into(),
        })?;
    for key in found {
        let key = String::from_utf8(key).map_err(|error| Error::Protocol {
            context: context(),
            reason: format!(
                "the key {} is not UTF-8; a narrower pattern leaves it out",
                shorten(error.as_bytes())
            ),
        })?;
        keys.push(key.into());
    }
    link.succeeded();
    Ok(next)
}

/// Whether a key has become something else than a stream.
pub fn is_no_stream(reply: &str) -> bool {
    reply.starts_with("WRONGTYPE")
}

/// Whether a key is at another server of the cluster, or on its way there.
pub fn is_elsewhere(reply: &str) -> bool {
    reply.starts_with("MOVED ") || reply.starts_with("ASK ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_special_characters_is_a_key() {
        assert!(is_key("orders:{eu}:1"));
        for pattern in ["*", "orders:?", "orders:[ab]", r"a\*b"] {
            assert!(!is_key(pattern), "{pattern}");
        }
    }
}
