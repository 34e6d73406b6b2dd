//! What sentinels know of the servers that they watch.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use futures_util::future::join_all;
use redis::{FromRedisValue, Value};

use super::asking::{ask, ask_any};
use crate::address::{Address, Endpoint};
use crate::error::{Error, Result};

/// The server that is the master now (`SENTINEL GET-MASTER-ADDR-BY-NAME`).
///
/// # Errors
/// If no sentinel answers, or none knows a master of this name.
pub async fn master(sentinels: &[Arc<Address>], name: &str) -> Result<Endpoint> {
    let cmd = who_is_master(name);
    let mut left = sentinels.to_vec();
    loop {
        let (asked, reply) = ask_any(&left, &cmd).await?;
        if let Some(master) = named(reply) {
            return Ok(master);
        }
        // One that was started anew may not know what the others do.
        left.retain(|sentinel| *sentinel != asked);
        if left.is_empty() {
            return Err(Error::Connection {
                peer: asked.peer(),
                reason: format!("no sentinel knows a master named {name:?}"),
                kind: io::ErrorKind::NotFound,
            });
        }
    }
}

fn who_is_master(name: &str) -> redis::Cmd {
    let mut cmd = redis::cmd("SENTINEL");
    cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    cmd
}

fn named(reply: Value) -> Option<Endpoint> {
    if reply == Value::Nil {
        return None;
    }
    let (host, port) = FromRedisValue::from_redis_value(reply).ok()?;
    Some(Endpoint::Tcp { host, port })
}

/// Whether most of the sentinels name another master than `known`: one alone may
/// not have heard yet.
pub async fn have_another(sentinels: &[Arc<Address>], name: &str, known: &Endpoint) -> bool {
    let cmd = who_is_master(name);
    let asked = sentinels.iter().map(|sentinel| ask(sentinel, &cmd));
    let replies = join_all(asked).await;
    let others = replies.into_iter().filter_map(|reply| named(reply.ok()?));
    others.filter(|master| master != known).count() * 2 > sentinels.len()
}

/// The servers that follow the master, and are up (`SENTINEL REPLICAS`).
pub async fn replicas(sentinels: &[Arc<Address>], name: &str) -> Result<Vec<Endpoint>> {
    let mut cmd = redis::cmd("SENTINEL");
    cmd.arg("REPLICAS").arg(name);
    let (_, reply) = ask_any(sentinels, &cmd).await?;
    let listed: Vec<HashMap<String, String>> =
        FromRedisValue::from_redis_value(reply).unwrap_or_default();
    Ok(listed.iter().filter_map(up).collect())
}

fn up(replica: &HashMap<String, String>) -> Option<Endpoint> {
    let flags = replica.get("flags")?;
    if flags.contains("down") || flags.contains("disconnected") {
        return None;
    }
    Some(Endpoint::Tcp {
        host: replica.get("ip")?.clone(),
        port: replica.get("port")?.parse().ok()?,
    })
}
