//! What sentinels know of the servers that they watch.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use redis::{FromRedisValue, Value};

use super::asking::ask_any;
use crate::address::{Address, Endpoint};
use crate::error::{Error, Result};

/// The server that is the master now (`SENTINEL GET-MASTER-ADDR-BY-NAME`).
///
/// # Errors
/// If no sentinel answers, or none knows a master of this name.
pub async fn master(sentinels: &[Arc<Address>], name: &str) -> Result<Endpoint> {
    let mut cmd = redis::cmd("SENTINEL");
    cmd.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
    let mut left = sentinels.to_vec();
    loop {
        let (asked, reply) = ask_any(&left, &cmd).await?;
        let found: Option<(String, u16)> = match reply {
            Value::Nil => None,
            reply => FromRedisValue::from_redis_value(reply).ok(),
        };
        if let Some((host, port)) = found {
            return Ok(Endpoint::Tcp { host, port });
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
