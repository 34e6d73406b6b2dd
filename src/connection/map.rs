//! Asking the servers of a cluster who has what: `CLUSTER SLOTS`.

use std::sync::Arc;

use redis::{Cmd, Value};

use super::asking::ask_any;
use super::known::{Known, remember};
use super::slots::SlotMap;
use crate::address::{Address, Endpoint};
use crate::deployment::Deployment;
use crate::error::{Error, Result};

/// What asks a server for the map.
pub fn cluster_slots() -> Cmd {
    let mut cmd = redis::cmd("CLUSTER");
    cmd.arg("SLOTS");
    cmd
}

/// Reads what the server at `asked` replied, and remembers it: a map, or that it
/// knows of none.
pub fn told(deployment: &Arc<Deployment>, reply: &Value, asked: &Endpoint) -> Option<Arc<SlotMap>> {
    let map = SlotMap::from_reply(reply, asked).map(Arc::new);
    let found = map.clone().map_or(Known::Alone, Known::Cluster);
    remember(deployment, found);
    map
}

/// Asks several servers, of which the first answer counts; nothing, if it is no
/// cluster.
///
/// # Errors
/// As [`ask_any`]; [`Error::Protocol`] if the answer is not understood.
pub async fn fetch(
    deployment: &Arc<Deployment>,
    servers: &[Arc<Address>],
) -> Result<Option<Arc<SlotMap>>> {
    match ask_any(servers, &cluster_slots()).await {
        Ok((asked, reply)) => {
            let map = told(deployment, &reply, &asked.endpoint).ok_or_else(|| Error::Protocol {
                context: asked.peer(),
                reason: "no map of slots where that of CLUSTER SLOTS was due".into(),
            })?;
            Ok(Some(map))
        }
        Err(error) if is_no_cluster(&error) => {
            remember(deployment, Known::Alone);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The servers to ask: the entrance, and whatever others are known.
pub fn servers(
    deployment: &Deployment,
    entrance: &Endpoint,
    map: Option<&SlotMap>,
) -> Vec<Arc<Address>> {
    let others = map.into_iter().flat_map(SlotMap::servers);
    let others = others.filter(|server| *server != entrance);
    let endpoints = std::iter::once(entrance).chain(others).cloned();
    let addresses = endpoints.map(|endpoint| Arc::new(deployment.server(endpoint)));
    addresses.collect()
}

/// Whether a server says that it is of no cluster.
fn is_no_cluster(error: &Error) -> bool {
    matches!(error, Error::Response { reply, .. }
        if reply.contains("cluster support disabled") || reply.contains("unknown command"))
}
