//! Where a server is, and how to introduce oneself there: a parsed URL.
//!
//! Nothing printed from here holds a password.

use std::fmt;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::error::{Error, Result};

const DEFAULT_PORT: u16 = 6379;
/// How long a server may be silent while a reply is due.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);
/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
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
        tls: Option<TlsOptions>,
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

/// A server's address, and who we are there.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    pub(crate) endpoint: Endpoint,
    pub(crate) db: i64,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) client_name: Option<String>,
    pub(crate) socket_timeout: Duration,
    pub(crate) connect_timeout: Duration,
}

/// Without user and password.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.endpoint {
            Endpoint::Tcp { tls: None, .. } => write!(f, "redis://{}/{}", self.peer(), self.db),
            Endpoint::Tcp { tls: Some(_), .. } => write!(f, "rediss://{}/{}", self.peer(), self.db),
            Endpoint::Unix(path) => write!(f, "unix://{path}?db={}", self.db),
        }
    }
}

impl Address {
    /// Parses a URL: `redis://`, `rediss://` (TLS) or `unix://`, with redis-py's
    /// query parameters `db`, `username`, `password`, `client_name`,
    /// `socket_timeout` and `socket_connect_timeout` (both in seconds), and with TLS
    /// `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` and `ssl_cert_reqs`.
    ///
    /// ```
    /// let address = polars_redis::Address::parse("redis://:secret@example.org/2")?;
    /// assert_eq!(address.to_string(), "redis://example.org:6379/2");
    /// # Ok::<(), polars_redis::Error>(())
    /// ```
    pub fn parse(url: &str) -> Result<Self> {
        refuse_kinds_to_come(url)?;
        let url = parse_url(url)?;
        if url.fragment().is_some() {
            return Err(Error::Argument(
                "url: unexpected \"#\": in a password it is written %23".into(),
            ));
        }
        let mut from_query = FromQuery::default();
        let may_hold_secrets = url.as_str().contains('@') || url.as_str().contains("password");
        for (name, value) in url.query_pairs() {
            if !from_query.set(&name, &value)? {
                // Where a password was cut short by a "&" or "?" of its own, the
                // name is the rest of it.
                let name = match may_hold_secrets {
                    true => String::new(),
                    false => format!(" {name:?}"),
                };
                return Err(Error::Argument(format!(
                    "url: unknown parameter{name} (known: db, username, password, \
                     client_name, socket_timeout, socket_connect_timeout, ssl_ca_certs, \
                     ssl_certfile, ssl_keyfile, ssl_cert_reqs)"
                )));
            }
        }
        let tls = from_query.tls(url.scheme() == "rediss")?;
        let (username, password) = (url.username().to_owned(), url.password());
        let (username, password) = (decoded(&username)?, password.map(decoded).transpose()?);
        let (endpoint, db) = match url.scheme() {
            "unix" | "redis+unix" => (socket(&url)?, 0),
            _ => (host_and_port(&url, tls)?, db_of_path(url.path())?),
        };
        // As in redis-py: of user and password the ones before the host win,
        // of the databases the one in the query.
        let password = password.or(from_query.password);
        let password = password.filter(|password| !password.is_empty());
        let username = Some(username).filter(|username| !username.is_empty());
        Ok(Self {
            endpoint,
            db: match from_query.db.unwrap_or(db) {
                db if db >= 0 => db,
                _ => return Err(not_a_database()),
            },
            username: username.or(from_query.username),
            password: password.map(Secret),
            client_name: from_query.client_name,
            socket_timeout: from_query.socket_timeout.unwrap_or(SOCKET_TIMEOUT),
            connect_timeout: from_query.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        })
    }

    /// `host:port` or the path of a socket, as errors name the server.
    pub(crate) fn peer(&self) -> String {
        match &self.endpoint {
            Endpoint::Tcp { host, port, .. } if host.contains(':') => format!("[{host}]:{port}"),
            Endpoint::Tcp { host, port, .. } => format!("{host}:{port}"),
            Endpoint::Unix(path) => path.clone(),
        }
    }

    /// A server's text without the password, should the server have echoed it
    /// (as it does in "unknown command, with args beginning with: …"), whole or
    /// cut short.
    pub(crate) fn redact(&self, text: &str) -> String {
        match &self.password {
            Some(password) => without(password.reveal(), text),
            None => text.to_owned(),
        }
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

fn refuse_kinds_to_come(url: &str) -> Result<()> {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        "redis-sentinel" | "rediss-sentinel" => Err(Error::Unsupported(format!(
            "url: {scheme}:// is not supported yet, only redis://, rediss:// and unix://"
        ))),
        _ => Ok(()),
    }
}

fn parse_url(text: &str) -> Result<Url> {
    let expected = || {
        Error::Argument(
            "url: expected redis://[[user]:password@]host[:port][/db], rediss://… or \
             unix://[[user]:password@]/path[?db=db]"
                .into(),
        )
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
    let parsed = match scheme {
        "redis" | "rediss" => Url::parse(text),
        // A socket has no host, and a URL without one no user.
        "unix" | "redis+unix" => match rest.split_once('/') {
            Some((user, path)) if user.is_empty() || user.ends_with('@') => {
                Url::parse(&format!("{scheme}://{user}socket/{path}"))
            }
            _ => {
                return Err(Error::Argument(
                    "url: expected the path of a socket, as in unix:///run/redis.sock".into(),
                ));
            }
        },
        _ => return Err(expected()),
    };
    // The parser's message quotes nothing of the URL, but it may tell of a part
    // that is a password's.
    parsed.map_err(|_| expected())
}

/// What a part of a URL says.
fn decoded(part: &str) -> Result<String> {
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| Error::Argument("url: expected UTF-8 behind each %".into()))?;
    Ok(text.into_owned())
}

fn socket(url: &Url) -> Result<Endpoint> {
    match cfg!(unix) {
        true => Ok(Endpoint::Unix(decoded(url.path())?)),
        false => Err(Error::Unsupported(
            "url: this system has no Unix sockets".into(),
        )),
    }
}

fn host_and_port(url: &Url, tls: Option<TlsOptions>) -> Result<Endpoint> {
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => decoded(name)?,
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => return Err(Error::Argument("url: expected a host".into())),
    };
    let port = url.port().unwrap_or(DEFAULT_PORT);
    Ok(Endpoint::Tcp { host, port, tls })
}

fn db_of_path(path: &str) -> Result<i64> {
    match path.trim_matches('/') {
        "" => Ok(0),
        db => parse_db(db),
    }
}

#[derive(Default)]
struct FromQuery {
    db: Option<i64>,
    username: Option<String>,
    password: Option<String>,
    client_name: Option<String>,
    socket_timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    ca_certs: Option<String>,
    certfile: Option<String>,
    keyfile: Option<String>,
    cert_reqs: Option<String>,
}

impl FromQuery {
    /// What is said of TLS, where it is used.
    fn tls(&mut self, is_used: bool) -> Result<Option<TlsOptions>> {
        let files = [&self.ca_certs, &self.certfile, &self.keyfile];
        if !is_used {
            return match files.iter().any(|file| file.is_some()) || self.cert_reqs.is_some() {
                true => Err(Error::Argument(
                    "url: the parameters ssl_ca_certs, ssl_certfile, ssl_keyfile and \
                     ssl_cert_reqs are for rediss:// only"
                        .into(),
                )),
                false => Ok(None),
            };
        }
        let trusts_anyone = match self.cert_reqs.as_deref() {
            None | Some("required" | "optional") => false,
            Some("none") => true,
            Some(_) => {
                return Err(Error::Argument(
                    "url: the parameter ssl_cert_reqs is \"required\" or \"none\"".into(),
                ));
            }
        };
        let certificate = match (self.certfile.take(), self.keyfile.take()) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            // One file can hold both.
            (Some(both), None) => Some((both.clone(), both)),
            (None, None) => None,
            (None, Some(_)) => {
                return Err(Error::Argument(
                    "url: the parameter ssl_keyfile needs ssl_certfile too".into(),
                ));
            }
        };
        Ok(Some(TlsOptions {
            trusts_anyone,
            ca_certs: self.ca_certs.take(),
            certificate,
        }))
    }

    /// Takes a parameter; whether it is known.
    fn set(&mut self, name: &str, value: &str) -> Result<bool> {
        match name {
            "db" => self.db = Some(parse_db(value)?),
            "username" => self.username = Some(value.into()),
            "password" => self.password = Some(value.into()),
            "client_name" => self.client_name = Some(parse_client_name(value)?),
            "socket_timeout" => self.socket_timeout = Some(parse_seconds(name, value)?),
            "socket_connect_timeout" => self.connect_timeout = Some(parse_seconds(name, value)?),
            "ssl_ca_certs" => self.ca_certs = Some(value.into()),
            "ssl_certfile" => self.certfile = Some(value.into()),
            "ssl_keyfile" => self.keyfile = Some(value.into()),
            "ssl_cert_reqs" => self.cert_reqs = Some(value.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn parse_db(value: &str) -> Result<i64> {
    match value.parse() {
        Ok(db) if db >= 0 => Ok(db),
        _ => Err(not_a_database()),
    }
}

fn not_a_database() -> Error {
    Error::Argument("url: db is not a database number".into())
}

fn parse_client_name(value: &str) -> Result<String> {
    // The server's own rule.
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::Argument(
            "url: the parameter client_name takes printable ASCII without blanks".into(),
        ));
    }
    Ok(value.into())
}

fn parse_seconds(name: &str, value: &str) -> Result<Duration> {
    let seconds = value.parse().ok().filter(|&s: &f64| s > 0.0);
    seconds
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .ok_or_else(|| {
            Error::Argument(format!(
                "url: the parameter {name} takes a number of seconds greater than 0"
            ))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Address {
        Address::parse(url).unwrap()
    }

    #[test]
    fn every_part_of_a_url_is_heard() {
        let address = parse(
            "redis://u%40x:p%3Aw@h:7000/3?client_name=me&socket_timeout=2.5&socket_connect_timeout=1",
        );
        assert_eq!((address.peer().as_str(), address.db), ("h:7000", 3));
        assert_eq!(address.username.as_deref(), Some("u@x"));
        assert_eq!(address.password, Some(Secret("p:w".into())));
        assert_eq!(address.client_name.as_deref(), Some("me"));
        assert_eq!(address.socket_timeout, Duration::from_millis(2500));
        assert_eq!(address.connect_timeout, Duration::from_secs(1));
    }

    #[test]
    fn what_a_url_leaves_out_has_a_default() {
        let address = parse("redis://localhost");
        assert_eq!((address.peer().as_str(), address.db), ("localhost:6379", 0));
        assert_eq!((address.username, address.password), (None, None));
    }

    #[test]
    fn the_query_counts_as_in_redis_py() {
        let address = parse("redis://h/1?db=2&username=u&password=p");
        assert_eq!(address.db, 2);
        assert_eq!(address.username.as_deref(), Some("u"));
        assert_eq!(address.password, Some(Secret("p".into())));
        let address = parse("redis://a:b@h?username=u&password=p");
        assert_eq!(address.username.as_deref(), Some("a"));
        assert_eq!(address.password, Some(Secret("b".into())));
    }

    #[test]
    fn wrong_urls_are_refused_without_a_secret() {
        for url in [
            "",
            "localhost",
            "http://:hunter2@h",
            "redis://:hunter2@",
            "redis://:hunter2@h:x",
            "redis://:hunter2@h/x",
            "redis://:hunter2@h?passwort=hunter2",
            "redis://:hunter2@h?db=hunter2",
            "redis://:hunter2@h?db=-1",
            "redis://:hunter2@h?socket_timeout=0",
            "redis://:hunter2@h?socket_timeout=hunter2",
            "redis://:hunter2@h?socket_timeout=inf",
            "redis://:hunter2@h?client_name=hunter2%20x",
            "redis://:hunter2@h?ssl_cert_reqs=hunter2",
            "redis://h#hunter2",
            "redis://h?password=ab&hunter2",
            "redis://u:123?hunter2@h:1/0",
            "redis://:hunter2@h/-1",
        ] {
            let error = Address::parse(url).unwrap_err();
            assert!(matches!(error, Error::Argument(_)), "{url}: {error:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        let error = Address::parse("redis-sentinel://:hunter2@h").unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)));
    }

    #[test]
    fn an_address_prints_without_its_secrets() {
        let address = parse("redis://user:hunter2@h?client_name=me");
        assert!(!format!("{address} {address:?}").contains("hunter2"));
        assert_eq!(address.redact("bad args: 'hunter2'"), "bad args: '***'");
        assert_eq!(parse("redis://[::1]:7000").peer(), "[::1]:7000");
    }

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
