//! What was found out about deployments, for the process: so that not every connection
//! has to find it out again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::slots::SlotMap;
use crate::address::Endpoint;
use crate::deployment::Deployment;
use crate::per_process::PerProcess;

/// Deployments of which something is remembered.
const MAX_KNOWN: usize = 64;

/// What was found out about a deployment.
#[derive(Debug, Clone)]
pub enum Known {
    /// It is a cluster.
    Cluster(Arc<SlotMap>),
    /// It is none, or does not say so.
    Alone,
    /// This server was the master when the sentinels were last asked.
    Master(Endpoint),
}

static KNOWN: PerProcess<Mutex<HashMap<Arc<Deployment>, Known>>> = PerProcess::new();

fn all() -> MutexGuard<'static, HashMap<Arc<Deployment>, Known>> {
    let known = KNOWN.get(|_| ()).lock();
    known.unwrap_or_else(PoisonError::into_inner)
}

/// What is known of a deployment.
pub fn known_of(deployment: &Arc<Deployment>) -> Option<Known> {
    all().get(deployment).cloned()
}

/// The map of a cluster, if it is known.
pub fn map_of(deployment: &Arc<Deployment>) -> Option<Arc<SlotMap>> {
    match known_of(deployment) {
        Some(Known::Cluster(map)) => Some(map),
        _ => None,
    }
}

/// Keeps what was found out, in the place of what was known before.
pub fn remember(deployment: &Arc<Deployment>, found: Known) {
    let mut known = all();
    if known.len() >= MAX_KNOWN {
        known.clear();
    }
    known.insert(deployment.clone(), found);
}
