//! The way to the server that has a key.
//!
//! A server is simply connected to, and asked once a process for its cluster's map of
//! slots, which it has if it is of one. The map is kept for the process, and mended by
//! what servers say of keys that they do not have (`MOVED`). Sentinels are asked who
//! the master is, each time that a connection is made.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value};

use super::asking::ask;
use super::known::{Known, known_of, map_of, remember};
use super::slots::{Redirect, RedirectKind, Shard, Slot, SlotMap};
use super::{Connection, error_text, kept, map, sentinels};
use crate::address::{Address, Endpoint};
use crate::deployment::{Deployment, Entrance, ReadFrom};
use crate::error::{Error, Result};

/// Where connections to a key's server come from.
#[derive(Debug)]
pub struct Route {
    deployment: Arc<Deployment>,
    slot: Slot,
    read_from: ReadFrom,
    /// Whether replicas are passed over, though they are to be read from.
    passes_replicas: bool,
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
            passes_replicas: false,
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

    /// Passes replicas over from now on, or does not; whether that is a change.
    pub(crate) fn pass_replicas(&mut self, passes: bool) -> bool {
        std::mem::replace(&mut self.passes_replicas, passes) != passes
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
        let remembered = known_of(&self.deployment);
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
        let known_map = map_of(&self.deployment);
        let is_known = |map: &Arc<SlotMap>| map.shard(slot).is_some_and(|s| s.master == to);
        if known_map.as_ref().is_some_and(is_known) {
            return;
        }
        // A user who may not ask for the map learns slot by slot.
        let fetched = map::fetch(&self.deployment, &[self.server(to.clone())]).await;
        let map = fetched.ok().flatten().or(known_map);
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
        if known_of(&self.deployment).is_some() {
            return Ok(connection);
        }
        // It is there: that the line is cut now may pass.
        self.has_entered = true;
        let reply = connection.query(&map::cluster_slots()).await?;
        let access = &self.deployment.access;
        let refusal =
            error_text(&reply).map(|text| Error::from_reply(String::new(), &text, access));
        // One that is loading its data will know later.
        if !refusal.is_some_and(|refusal| refusal.is_transient()) {
            map::told(&self.deployment, &reply, entrance);
        }
        Ok(connection)
    }

    /// Asks for the map again, whoever of the cluster is there.
    async fn asked_anew(&mut self, entrance: &Endpoint, map: Arc<SlotMap>) -> Option<Arc<SlotMap>> {
        let servers = map::servers(&self.deployment, entrance, Some(&map));
        match map::fetch(&self.deployment, &servers).await {
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
        let wants_replica = self.read_from == ReadFrom::Replica && !self.passes_replicas;
        let replicas = match wants_replica {
            false => &[],
            true => shard.replicas.as_slice(),
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
        if wants_replica {
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
        if self.read_from == ReadFrom::Master
            && haste == Haste::TakesKept
            && let Some(Known::Master(endpoint)) = known_of(&self.deployment)
            && let Some(connection) = kept::take(&self.server(endpoint))
        {
            return Ok(connection);
        }
        let endpoint = sentinels::master(watching, name).await?;
        self.has_entered = true;
        self.asked = Instant::now();
        if self.read_from == ReadFrom::Replica {
            let shard = Shard {
                replicas: sentinels::replicas(watching, name).await?,
                master: endpoint,
            };
            return self.of_shard(&shard, haste).await;
        }
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
