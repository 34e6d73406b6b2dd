//! What a URL names: a server, the cluster that it is one of, or whichever server
//! the sentinels say is the master.
//!
//! Nothing printed from here holds a password.

use std::fmt;
use std::sync::Arc;

use crate::address::{Access, Address, Endpoint};
use crate::error::Result;
use crate::url;

/// Which servers hold the streams, and who we are to them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Deployment {
    pub(crate) access: Access,
    pub(crate) entrance: Entrance,
}

/// Who is asked first.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Entrance {
    /// The server itself; or any of a cluster's, which tells of the others.
    Server(Endpoint),
    /// Sentinels, which tell who the master of this name is.
    Sentinels {
        master: String,
        sentinels: Vec<Arc<Address>>,
    },
}

/// Which of the servers that have a stream it is read from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum ReadFrom {
    /// The one that is written to.
    #[default]
    Master,
    /// One that follows it, if one can be reached.
    Replica,
}

impl Deployment {
    /// Parses a URL: `redis://`, `rediss://` (TLS), `unix://`, `redis-sentinel://` or
    /// `rediss-sentinel://`, with redis-py's query parameters `db`, `username`,
    /// `password`, `client_name`, `socket_timeout` and `socket_connect_timeout` (both
    /// in seconds); with TLS `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and
    /// `ssl_cert_reqs`; with sentinels `sentinelMasterId`, `sentinel_username` and
    /// `sentinel_password`.
    ///
    /// ```
    /// let deployment = polars_redis::Deployment::parse("redis://:secret@example.org/2")?;
    /// assert_eq!(deployment.to_string(), "redis://example.org:6379/2");
    /// # Ok::<(), polars_redis::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        url::parse(text)
    }

    /// The server at an endpoint.
    pub(crate) fn server(&self, endpoint: Endpoint) -> Address {
        Address::new(endpoint, self.access.clone())
    }

    /// A server's text without any password.
    pub(crate) fn redact(&self, text: &str) -> String {
        let text = self.access.redact(text);
        match &self.entrance {
            Entrance::Sentinels { sentinels, .. } => sentinels
                .first()
                .map_or_else(|| text.clone(), |sentinel| sentinel.redact(&text)),
            Entrance::Server(_) => text,
        }
    }
}

/// Without users and passwords.
impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (master, sentinels) = match &self.entrance {
            Entrance::Server(endpoint) => return self.server(endpoint.clone()).fmt(f),
            Entrance::Sentinels { master, sentinels } => (master, sentinels),
        };
        let scheme = match self.access.tls {
            None => "redis-sentinel",
            Some(_) => "rediss-sentinel",
        };
        let peers: Vec<String> = sentinels.iter().map(|sentinel| sentinel.peer()).collect();
        let (peers, db) = (peers.join(","), self.access.db);
        write!(f, "{scheme}://{peers}/{db}?sentinelMasterId={master}")
    }
}
