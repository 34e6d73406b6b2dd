//! The way to the server that has a key.
//!
//! A server is simply connected to, and asked once a process for its cluster's map of
//! slots, which it has if it is of one. The map is kept for the process, and mended by
//! what servers say of keys that they do not have (`MOVED`). Sentinels are asked who
//! the master is, each time that a connection is made.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use redis::{FromRedisValue, Value};

use super::asking::{ask, ask_any};
use super::slots::{Redirect, RedirectKind, Shard, Slot, SlotMap};
use super::{Connection, kept, sentinels, slots};
use crate::address::{Address, Endpoint};
use crate::deployment::{Deployment, Entrance, ReadFrom};
use crate::error::{Error, Result};
use crate::per_process::PerProcess;

/// Deployments of which something is remembered.
const MAX_KNOWN: usize = 64;

/// What was found out about a deployment.
#[derive(Debug, Clone)]
enum Known {
    /// It is a cluster.
    Cluster(Arc<SlotMap>),
    /// It is none, or does not say so.
    Alone,
    /// This server was the master when the sentinels were last asked.
    Master(Endpoint),
}

static KNOWN: PerProcess<Mutex<HashMap<Arc<Deployment>, Known>>> = PerProcess::new();

fn known() -> MutexGuard<'static, HashMap<Arc<Deployment>, Known>> {
    let known = KNOWN.get(|_| ()).lock();
    known.unwrap_or_else(PoisonError::into_inner)
}

fn remember(deployment: &Arc<Deployment>, found: Known) {
    let mut known = known();
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    known.insert(deployment.clone(), found);
}

fn map_of(deployment: &Arc<Deployment>) -> Option<Arc<SlotMap>> {
    match known().get(deployment) {
        Some(Known::Cluster(map)) => Some(map.clone()),
        _ => None,
    }
}

fn cluster_slots() -> redis::Cmd {
    let mut cmd = redis::cmd("CLUSTER");
    cmd.arg("SLOTS");
    cmd
}

/// Where connections to a key's server come from.
#[derive(Debug)]
pub struct Route {
    deployment: Arc<Deployment>,
    slot: Slot,
    read_from: ReadFrom,
    /// Where the server that was asked last sends us.
    redirect: Option<Redirect>,
    /// Something to tell of the connection that was made last.
    told: Option<String>,
    /// Whether somebody of the deployment has told where the key is.
    has_entered: bool,
    /// When the sentinels were last asked who the master is.
    asked: Instant,
}

/// How often they are asked whether it still is.
const LOOK: Duration = Duration::from_secs(1);

impl Route {
    /// The way to the server that has `slot`, or to one that follows it.
    pub fn new(deployment: Arc<Deployment>, slot: Slot, read_from: ReadFrom) -> Self {
        Self {
            deployment,
            slot,
            read_from,
            redirect: None,
            told: None,
            has_entered: false,
            asked: Instant::now(),
        }
    }

    /// The deployment that it leads into.
    pub fn deployment(&self) -> &Arc<Deployment> {
        &self.deployment
    }

    /// Whether somebody of the deployment was there: sentinels, or others of a
    /// cluster, though the server that they named may not be, in the middle of a
    /// failover.
    pub fn has_entered(&self) -> bool {
        self.has_entered
    }

    /// Leads to the server that has another slot from now on; whether it may be
    /// another server.
    pub fn turn_to(&mut self, slot: Slot) -> bool {
        let is_another = slot != self.slot;
        self.slot = slot;
        is_another && self.is_in_cluster()
    }

    /// Whether the deployment is known to be a cluster.
    pub fn is_in_cluster(&self) -> bool {
        map_of(&self.deployment).is_some()
    }

    /// Something to tell of the connection that was made last.
    pub fn take_told(&mut self) -> Option<String> {
        self.told.take()
    }

    /// A connection: one kept from earlier, or a new one.
    ///
    /// # Errors
    /// As [`Connection::connect`]; with sentinels, also what they answer.
    pub async fn open(&mut self) -> Result<Connection> {
        let remembered = known().get(&self.deployment).cloned();
        let is_remembered = matches!(remembered, Some(Known::Cluster(_) | Known::Master(_)));
        match self.connection(Haste::TakesKept).await {
            // What is remembered may be long past.
            Err(error) if is_remembered && error.is_unreachable() => self.reopen().await,
            result => result,
        }
    }

    /// A new connection, after one was lost: who has the key is asked anew.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn reopen(&mut self) -> Result<Connection> {
        self.connection(Haste::AsksAnew).await
    }

    /// Whether the server at `connected` is of no more use though it answers:
    /// sentinels may have chosen another master, and tell the old one only after
    /// some time. They are asked once a second at the most.
    pub(crate) async fn is_superseded(&mut self, connected: &Endpoint) -> bool {
        let Entrance::Sentinels { master, sentinels } = &self.deployment.entrance else {
            return false;
        };
        if self.read_from == ReadFrom::Replica || self.asked.elapsed() < LOOK {
            return false;
        }
        self.asked = Instant::now();
        sentinels::have_another(sentinels, master, connected).await
    }

    /// The longest that a server is asked to block, if that is limited: whoever
    /// blocks does not see that there is another master.
    pub fn longest_block(&self) -> Option<Duration> {
        matches!(self.deployment.entrance, Entrance::Sentinels { .. }).then_some(LOOK)
    }

    /// What an error reply of the server at `told_by` says of where the key is;
    /// the next connection goes there. Nothing, if it says nothing of that.
    pub(crate) fn follow(&mut self, reply: &str, told_by: &Endpoint) -> Option<String> {
        let redirect = Redirect::from_reply(reply, told_by)?;
        let to = self.deployment.server(redirect.to.clone()).peer();
        self.redirect(redirect);
        Some(to)
    }

    /// The next connection goes where a server has said that the key is.
    pub(crate) fn redirect(&mut self, redirect: Redirect) {
        self.redirect = Some(redirect);
    }

    async fn connection(&mut self, haste: Haste) -> Result<Connection> {
        if let Some(redirect) = self.redirect.take() {
            match redirect.kind {
                RedirectKind::Moved => self.learn(redirect).await,
                RedirectKind::Ask => {
                    let mut connection = haste.connect(&self.server(redirect.to)).await?;
                    connection.ask();
                    return Ok(connection);
                }
            }
        }
        let deployment = self.deployment.clone();
        match &deployment.entrance {
            Entrance::Server(endpoint) => self.beyond(endpoint, haste).await,
            Entrance::Sentinels { master, sentinels } => {
                self.elected(master, sentinels, haste).await
            }
        }
    }

    fn server(&self, endpoint: Endpoint) -> Arc<Address> {
        Arc::new(self.deployment.server(endpoint))
    }

    /// Notes that a slot is elsewhere now, with what else its new server knows.
    async fn learn(&self, redirect: Redirect) {
        let Redirect { slot, to, .. } = redirect;
        let mut map = map_of(&self.deployment);
        let is_known = |map: &Arc<SlotMap>| map.shard(slot).is_some_and(|s| s.master == to);
        if map.as_ref().is_some_and(is_known) {
            return;
        }
        // A user who may not ask for the map learns slot by slot.
        if let Ok(reply) = ask(&self.server(to.clone()), &cluster_slots()).await {
            map = SlotMap::from_reply(&reply, &to).map(Arc::new).or(map);
        }
        let mut map = map.map_or_else(SlotMap::unknown, Arc::unwrap_or_clone);
        map.learn(slot, to);
        remember(&self.deployment, Known::Cluster(Arc::new(map)));
    }

    /// Connects to a server, or to whoever of its cluster has the key.
    async fn beyond(&mut self, entrance: &Endpoint, haste: Haste) -> Result<Connection> {
        let map = match map_of(&self.deployment) {
            Some(map) if haste == Haste::AsksAnew => self.asked_anew(entrance, map).await,
            map => map,
        };
        let map = match (map, self.read_from) {
            (None, ReadFrom::Replica) => {
                // It has to be known whether it is of a cluster.
                self.at(entrance, haste).await?.keep();
                map_of(&self.deployment)
            }
            (map, _) => map,
        };
        let Some(map) = map else {
            return match self.read_from {
                ReadFrom::Master => self.at(entrance, haste).await,
                ReadFrom::Replica => {
                    let shard = self.shard_of(entrance).await?;
                    self.of_shard(&shard, haste).await
                }
            };
        };
        match map.shard(self.slot) {
            Some(shard) => self.of_shard(shard, haste).await,
            // Any server tells where the key is.
            None => self.any(entrance, &map, haste).await,
        }
    }

    /// Connects to a server of which it is not known whether it is one of a cluster:
    /// once a process it is asked. Later it may be too late, as only it knows of the
    /// others.
    async fn at(&mut self, entrance: &Endpoint, haste: Haste) -> Result<Connection> {
        let mut connection = haste.connect(&self.server(entrance.clone())).await?;
        if known().contains_key(&self.deployment) {
            return Ok(connection);
        }
        // It is there: that the line is cut now may pass.
        self.has_entered = true;
        let reply = connection.query(&cluster_slots()).await?;
        let map = SlotMap::from_reply(&reply, entrance).map(Arc::new);
        remember(&self.deployment, map.map_or(Known::Alone, Known::Cluster));
        Ok(connection)
    }

    /// Asks for the map again, whoever of the cluster is there.
    async fn asked_anew(&mut self, entrance: &Endpoint, map: Arc<SlotMap>) -> Option<Arc<SlotMap>> {
        match fetched_map(&self.deployment, entrance, Some(&map)).await {
            Ok(found) => {
                self.has_entered = true;
                found
            }
            // Nobody may tell: any server will say where the key is.
            Err(Error::Response { .. }) => {
                let mut map = Arc::unwrap_or_clone(map);
                map.forget(self.slot);
                Some(Arc::new(map))
            }
            // Nobody is there, as whoever connects will be told.
            Err(_) => Some(map),
        }
    }

    async fn any(
        &mut self,
        entrance: &Endpoint,
        map: &SlotMap,
        haste: Haste,
    ) -> Result<Connection> {
        let mut result = haste.connect(&self.server(entrance.clone())).await;
        for endpoint in map.servers() {
            if result.is_ok() {
                break;
            }
            result = haste.connect(&self.server(endpoint.clone())).await;
        }
        result
    }

    /// Connects to the master of a shard, or to one of its replicas.
    async fn of_shard(&mut self, shard: &Shard, haste: Haste) -> Result<Connection> {
        let replicas = match self.read_from {
            ReadFrom::Master => &[],
            ReadFrom::Replica => shard.replicas.as_slice(),
        };
        let is_in_cluster = self.is_in_cluster();
        let mut reason = None;
        let first = RandomState::new().hash_one(0u8) as usize % replicas.len().max(1);
        for at in 0..replicas.len() {
            let endpoint = replicas[(first + at) % replicas.len()].clone();
            let address = self.deployment.server(endpoint);
            let address = Arc::new(match is_in_cluster {
                true => address.asked_as_replica(),
                false => address,
            });
            match haste.connect(&address).await {
                Ok(connection) => return Ok(connection),
                // Another one may do.
                Err(error) => reason = Some(error),
            }
        }
        let master = self.server(shard.master.clone());
        if self.read_from == ReadFrom::Replica {
            let peer = master.peer();
            let reason = reason.map_or_else(String::new, |error| format!(" ({error})"));
            self.told = Some(format!(
                "{peer}: no replica of it can be read from{reason}; reads go to it itself"
            ));
        }
        haste.connect(&master).await
    }

    /// A server, and the replicas that it has.
    async fn shard_of(&self, master: &Endpoint) -> Result<Shard> {
        let role = ask(&self.server(master.clone()), &redis::cmd("ROLE")).await?;
        let parts: Vec<Value> = FromRedisValue::from_redis_value(role).unwrap_or_default();
        let replicas = match parts.as_slice() {
            [Value::BulkString(role), _, Value::Array(replicas)] if role == b"master" => {
                replicas.iter().filter_map(replica).collect()
            }
            // It is one itself.
            _ => vec![master.clone()],
        };
        Ok(Shard {
            master: master.clone(),
            replicas,
        })
    }

    /// Connects to the server that the sentinels say is the master, or to one that
    /// follows it.
    async fn elected(
        &mut self,
        name: &str,
        watching: &[Arc<Address>],
        haste: Haste,
    ) -> Result<Connection> {
        if self.read_from == ReadFrom::Replica {
            let shard = Shard {
                master: sentinels::master(watching, name).await?,
                replicas: sentinels::replicas(watching, name).await?,
            };
            return self.of_shard(&shard, haste).await;
        }
        if haste == Haste::TakesKept
            && let Some(Known::Master(endpoint)) = known().get(&self.deployment).cloned()
            && let Some(connection) = kept::take(&self.server(endpoint))
        {
            return Ok(connection);
        }
        let endpoint = sentinels::master(watching, name).await?;
        self.has_entered = true;
        self.asked = Instant::now();
        let mut connection = Connection::connect(&self.server(endpoint.clone())).await?;
        check_is_master(&mut connection).await?;
        remember(&self.deployment, Known::Master(endpoint));
        Ok(connection)
    }
}

/// How a connection is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Haste {
    /// One that was kept will do, and what is remembered is taken for true.
    TakesKept,
    /// It is made, and who is where is asked anew.
    AsksAnew,
}

impl Haste {
    async fn connect(self, address: &Arc<Address>) -> Result<Connection> {
        match self {
            Self::TakesKept => Connection::open(address).await,
            Self::AsksAnew => Connection::connect(address).await,
        }
    }
}

/// Whether a server says that it is of no cluster.
fn is_no_cluster(error: &Error) -> bool {
    matches!(error, Error::Response { reply, .. }
        if reply.contains("cluster support disabled") || reply.contains("unknown command"))
}

/// A replica as its master lists it.
fn replica(listed: &Value) -> Option<Endpoint> {
    let (host, port, _): (String, u16, Value) =
        FromRedisValue::from_redis_value(listed.clone()).ok()?;
    Some(Endpoint::Tcp { host, port })
}

/// Sentinels may tell of a master that is none any more. A user who may not ask
/// takes their word.
async fn check_is_master(connection: &mut Connection) -> Result<()> {
    let role = connection.query(&redis::cmd("ROLE")).await?;
    match &role {
        Value::Array(parts) => match parts.first() {
            Some(Value::BulkString(role)) if role != b"master" => Err(Error::Connection {
                peer: connection.address().peer(),
                reason: "it is not the master any more, and the sentinels do not know yet".into(),
                kind: io::ErrorKind::NotConnected,
            }),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

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

/// Asks for the map of a cluster, at the entrance and at whatever other servers are
/// known; nothing, if it is no cluster.
async fn fetched_map(
    deployment: &Arc<Deployment>,
    entrance: &Endpoint,
    known_map: Option<&SlotMap>,
) -> Result<Option<Arc<SlotMap>>> {
    let others = known_map.into_iter().flat_map(SlotMap::servers);
    let others = others.filter(|server| *server != entrance);
    let servers = std::iter::once(entrance).chain(others).cloned();
    let servers: Vec<_> = servers
        .map(|endpoint| Arc::new(deployment.server(endpoint)))
        .collect();
    match ask_any(&servers, &cluster_slots()).await {
        Ok((asked, reply)) => {
            let map = SlotMap::from_reply(&reply, &asked.endpoint).ok_or(Error::Protocol {
                context: asked.peer(),
                reason: "no map of slots where that of CLUSTER SLOTS was due".into(),
            })?;
            let map = Arc::new(map);
            remember(deployment, Known::Cluster(map.clone()));
            Ok(Some(map))
        }
        Err(error) if is_no_cluster(&error) => {
            remember(deployment, Known::Alone);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The map of a cluster; nothing, if it is none. A user who may not ask is told so,
/// if there is one.
async fn map_found(
    deployment: &Arc<Deployment>,
    entrance: &Endpoint,
) -> Result<Option<Arc<SlotMap>>> {
    let known_map = map_of(deployment);
    match fetched_map(deployment, entrance, known_map.as_deref()).await {
        Err(Error::Response { reply, .. }) if reply.starts_with("NOPERM") => {
            let address = Arc::new(deployment.server(entrance.clone()));
            refuse_parts(&address, &reply).await.map(|()| None)
        }
        result => result,
    }
}

/// Keys in as many slots show whether a server has all of them.
const PROBES: usize = 16;

/// A user who may not ask for the map of a cluster would see a part of it and take
/// it for all: that is an error. `XRANGE` shows whether it is a cluster.
async fn refuse_parts(address: &Arc<Address>, refusal: &str) -> Result<()> {
    let mut connection = Connection::open(address).await?;
    let probes: Vec<_> = (0..PROBES)
        .map(|number| {
            let mut cmd = redis::cmd("XRANGE");
            cmd.arg(format!("probe:{number}")).arg("-").arg("-");
            cmd
        })
        .collect();
    let replies = connection.query_all(&probes).await?;
    connection.keep();
    let is_elsewhere = replies
        .iter()
        .any(|reply| matches!(reply, Value::ServerError(error) if error.code() == "MOVED"));
    match is_elsewhere {
        false => Ok(()),
        true => Err(Error::Response {
            context: address.peer(),
            reply: format!("{refusal} (it tells which servers of the cluster have which keys)"),
        }),
    }
}
