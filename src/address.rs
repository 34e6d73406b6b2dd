//! Where a server is, and how to introduce oneself there.
//!
//! Nothing printed from here holds a password.

use std::fmt;
use std::time::Duration;

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// A text to keep.
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the server alone.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Endpoint {
    Tcp {
        host: String,
        port: u16,
    },
    /// The path of a socket.
    Unix(String),
}

/// Who is trusted, and how this side shows who it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsOptions {
    /// Whether the server's certificate is not looked at.
    pub trusts_anyone: bool,
    /// A file of certificates to trust instead of the system's.
    pub ca_certs: Option<String>,
    /// Files of this side's own certificate and its key.
    pub certificate: Option<(String, String)>,
}

/// Who we are to a server, and how we treat it: the same for all servers of a
/// deployment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Access {
    pub db: i64,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub client_name: Option<String>,
    /// How long a server may be silent while a reply is due.
    pub socket_timeout: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// For hosts; a socket has none.
    pub tls: Option<TlsOptions>,
}

impl Access {
    /// The same, as somebody else.
    pub fn as_user(&self, username: Option<String>, password: Option<Secret>) -> Self {
        Self {
            username,
            password,
            ..self.clone()
        }
    }

    /// A server's text without the password, should the server have echoed it
    /// (as it does in "unknown command, with args beginning with: …"), whole or
    /// cut short.
    pub fn redact(&self, text: &str) -> String {
        match &self.password {
            Some(password) => without(password.reveal(), text),
            None => text.to_owned(),
        }
    }
}

/// A server's address, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub(crate) endpoint: Endpoint,
    pub(crate) access: Access,
    /// Whether the server is asked as a replica, which a cluster's must be told.
    pub(crate) is_replica: bool,
}

/// Without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let db = self.access.db;
        let scheme = match &self.access.tls {
            None => "redis",
            Some(_) => "rediss",
        };
        match &self.endpoint {
            Endpoint::Tcp { .. } => write!(f, "{scheme}://{}/{db}", self.peer()),
            Endpoint::Unix(path) => write!(f, "unix://{path}?db={db}"),
        }
    }
}

impl Address {
    /// A server at an endpoint.
    pub(crate) fn new(endpoint: Endpoint, access: Access) -> Self {
        Self {
            endpoint,
            access,
            is_replica: false,
        }
    }

    /// The same server, asked as a replica.
    pub(crate) fn asked_as_replica(mut self) -> Self {
        self.is_replica = true;
        self
    }

    /// `host:port` or the path of a socket, as errors name the server.
    pub(crate) fn peer(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port, .. } => format!("{host}:{port}"),
            Endpoint::Unix(path) => path.clone(),
        }
    }

    /// [`Access::redact`].
    pub(crate) fn redact(&self, text: &str) -> String {
        self.access.redact(text)
    }
}

/// So much of a password that it is worth hiding by itself.
const TELLING: usize = 8;

/// `text` with "***" for each place where `secret` stands, or its beginning. A
/// short secret counts only where it is a word: it would be found all over.
fn without(secret: &str, text: &str) -> String {
    let head: String = secret.chars().take(TELLING).collect();
    let is_short = secret.chars().count() < TELLING;
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = (!head.is_empty()).then(|| rest.find(&head)).flatten() {
        let (before, found) = rest.split_at(at);
        let same = found.chars().zip(secret.chars());
        let len: usize = same
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        let after = &found[len..];
        shown.push_str(before);
        let is_word =
            !shown.ends_with(char::is_alphanumeric) && !after.starts_with(char::is_alphanumeric);
        match is_short && !is_word {
            true => shown.push_str(&found[..len]),
            false => shown.push_str("***"),
        }
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_also_where_it_is_cut_short() {
        let long = "hunter2".repeat(20);
        let cut = format!("'user' '{}", &long[..100]);
        assert_eq!(without(&long, &cut), "'user' '***");
        assert_eq!(without("hunter2", "x hunter2 hunter2"), "x *** ***");
        assert_eq!(without("N", "WRONGPASS for 'N'"), "WRONGPASS for '***'");
        assert_eq!(without("é", "né 'é'"), "né '***'");
        assert_eq!(without("", "text"), "text");
    }
}
