//! The servers of a deployment, for whoever wants to talk to all of them.

use std::sync::Arc;

use futures_util::future::join_all;
use redis::{FromRedisValue, Value};

use super::asking::ask;
use super::known::map_of;
use super::slots::{Slot, SlotMap};
use super::{Connection, Route, map, slots};
use crate::address::{Address, Endpoint};
use crate::deployment::{Deployment, Entrance, ReadFrom};
use crate::error::{Error, Result};

/// The servers of a deployment that have streams: several, if it is a cluster.
#[derive(Debug, Clone)]
pub struct Topology {
    deployment: Arc<Deployment>,
    read_from: ReadFrom,
    map: Option<Arc<SlotMap>>,
    /// One slot of each server's, or any.
    slots: Vec<Slot>,
}

impl Topology {
    /// Asks a deployment whether it is a cluster, and which server of it has what.
    ///
    /// # Errors
    /// Any of the connection's; the server's own, if the user may not ask for the
    /// map of what is a cluster.
    pub async fn find(deployment: &Arc<Deployment>, read_from: ReadFrom) -> Result<Self> {
        let map = match &deployment.entrance {
            Entrance::Server(entrance) => map_found(deployment, entrance).await?,
            Entrance::Sentinels { .. } => None,
        };
        let slots = map.as_ref().map(|map| map.slot_of_each_shard());
        let slots = slots.filter(|slots| !slots.is_empty());
        Ok(Self {
            deployment: deployment.clone(),
            read_from,
            map,
            slots: slots.unwrap_or_else(|| vec![Slot::of(b"")]),
        })
    }

    /// Whether it is a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.map.is_some()
    }

    /// How many servers share the keys.
    pub fn shards(&self) -> usize {
        self.slots.len()
    }

    /// Which of them has a key, from 0 on.
    pub fn shard_of(&self, key: &[u8]) -> usize {
        let Some(map) = &self.map else { return 0 };
        let owner = map.shard_number(Slot::of(key));
        let mut slots = self.slots.iter();
        slots
            .position(|&slot| map.shard_number(slot) == owner)
            .unwrap_or(0)
    }

    /// What each master of a cluster says of its slots, as far as they tell. Where it
    /// is the same afterwards, and [says of none](Self::is_moving) that it is on its
    /// way, no key has gone from one to another meanwhile.
    pub async fn own_slots(&self) -> Vec<Option<String>> {
        let masters = self.map.iter().flat_map(|map| map.masters());
        let told = masters.map(|master| async move {
            let mut cmd = redis::cmd("CLUSTER");
            cmd.arg("NODES");
            let address = Arc::new(self.deployment.server(master.clone()));
            slots::own_slots(&ask(&address, &cmd).await.ok()?)
        });
        join_all(told).await
    }

    /// Whether a slot is on its way from one server to another.
    pub fn is_moving(own_slots: &[Option<String>]) -> bool {
        own_slots.iter().flatten().any(|slots| slots.contains('['))
    }

    /// The ways to them, in that order.
    pub fn routes(&self) -> Vec<Route> {
        let slots = self.slots.iter();
        slots
            .map(|&slot| Route::new(self.deployment.clone(), slot, self.read_from))
            .collect()
    }
}

/// The map of a cluster; nothing, if it is none. Where nobody gives it though there
/// is one, that is an error.
async fn map_found(
    deployment: &Arc<Deployment>,
    entrance: &Endpoint,
) -> Result<Option<Arc<SlotMap>>> {
    let known_map = map_of(deployment);
    let servers = map::servers(deployment, entrance, known_map.as_deref());
    let refusal = match map::fetch(deployment, &servers).await {
        // Servers that are no Redis refuse what they do not have in words of their own.
        Err(error @ (Error::Response { .. } | Error::Protocol { .. })) if !error.is_transient() => {
            error
        }
        result => return result,
    };
    let address = Arc::new(deployment.server(entrance.clone()));
    match is_of_cluster(&address).await? {
        false => Ok(None),
        true => Err(without_map(refusal)),
    }
}

fn without_map(refusal: Error) -> Error {
    match refusal {
        Error::Response { context, reply } => Error::Response {
            context,
            reply: format!("{reply} (it tells which servers of the cluster have which keys)"),
        },
        other => other,
    }
}

/// Keys in as many slots show whether a server has all of them.
const PROBES: usize = 16;

/// Whether a server is one of a cluster, by what any user may ask, or by what a user
/// who may read asks for. Whoever cannot have the map would see a part of a cluster,
/// and take it for all.
async fn is_of_cluster(address: &Arc<Address>) -> Result<bool> {
    let mut connection = Connection::open(address).await?;
    let probes = (0..PROBES).map(|number| {
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(format!("probe:{number}")).arg("-").arg("-");
        cmd
    });
    let asks: Vec<_> = std::iter::once(redis::cmd("HELLO")).chain(probes).collect();
    let replies = connection.query_all(&asks).await?;
    connection.keep();
    let is_elsewhere =
        |reply: &Value| matches!(reply, Value::ServerError(error) if error.code() == "MOVED");
    Ok(replies.first().is_some_and(says_cluster) || replies.iter().any(is_elsewhere))
}

/// Whether the reply to `HELLO` is that of a cluster's server.
fn says_cluster(reply: &Value) -> bool {
    let Ok(parts) = Vec::<Value>::from_redis_value(reply.clone()) else {
        return false;
    };
    let text = |part: &Value| String::from_redis_value(part.clone()).unwrap_or_default();
    let mut pairs = parts.chunks_exact(2);
    pairs.any(|pair| text(&pair[0]) == "mode" && text(&pair[1]) == "cluster")
}
