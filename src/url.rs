//! URLs, as people write them for redis-py and others.
//!
//! No error from here holds a part of a URL that may be a password.

use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use url::{Host, Url};

use crate::address::{Access, Address, Endpoint, Secret, TlsOptions};
use crate::deployment::{Deployment, Entrance};
use crate::error::{Error, Result};

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;
/// How long a server may be silent while a reply is due.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(30);
/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads a URL; see [`Deployment::parse`].
pub fn parse(text: &str) -> Result<Deployment> {
    let Written { url, hosts } = parse_url(text)?;
    if url.fragment().is_some() {
        return Err(Error::Argument(
            "url: unexpected \"#\": in a password it is written %23".into(),
        ));
    }
    let mut query = query(&url)?;
    let kind = Kind::of(url.scheme());
    let tls = query.tls(matches!(url.scheme(), "rediss" | "rediss-sentinel"))?;
    let sentinel = query.sentinel(kind == Kind::Sentinels)?;
    let username = decoded(url.username())?;
    let password = url.password().map(decoded).transpose()?;
    let db = match kind {
        Kind::Socket => 0,
        Kind::Server | Kind::Sentinels => db_of_path(url.path())?,
    };
    // As in redis-py: of user and password the ones before the host win, of the
    // databases the one in the query.
    let password = password.or(query.password);
    let username = Some(username).filter(|username| !username.is_empty());
    let access = Access {
        db: match query.db.unwrap_or(db) {
            db if db >= 0 => db,
            _ => return Err(not_a_database()),
        },
        username: username.or(query.username),
        password: secret(password),
        client_name: query.client_name,
        socket_timeout: query.socket_timeout.unwrap_or(SOCKET_TIMEOUT),
        connect_timeout: query.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
        tls,
    };
    let entrance = match sentinel {
        None if kind == Kind::Socket => Entrance::Server(socket(&url)?),
        None => Entrance::Server(host_and_port(&url, DEFAULT_PORT)?),
        Some(Sentinel {
            master,
            username,
            password,
        }) => {
            let access = Access {
                db: 0,
                ..access.as_user(username, secret(password))
            };
            let sentinel = |endpoint| Arc::new(Address::new(endpoint, access.clone()));
            let endpoints = hosts.iter().map(|host| sentinel_at(host));
            let endpoints = endpoints.collect::<Result<Vec<_>>>()?;
            Entrance::Sentinels {
                master,
                sentinels: endpoints.into_iter().map(sentinel).collect(),
            }
        }
    };
    Ok(Deployment { access, entrance })
}

/// What kind of place a scheme is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Server,
    Socket,
    Sentinels,
}

impl Kind {
    fn of(scheme: &str) -> Self {
        match scheme {
            "unix" | "redis+unix" => Self::Socket,
            "redis-sentinel" | "rediss-sentinel" => Self::Sentinels,
            _ => Self::Server,
        }
    }
}

fn query(url: &Url) -> Result<FromQuery> {
    let mut query = FromQuery::default();
    let may_hold_secrets = url.as_str().contains('@') || url.as_str().contains("password");
    for (name, value) in url.query_pairs() {
        if !query.set(&name, &value)? {
            // Where a password was cut short by a "&" or "?" of its own, the name is
            // the rest of it.
            let name = match may_hold_secrets {
                true => String::new(),
                false => format!(" {name:?}"),
            };
            return Err(Error::Argument(format!(
                "url: unknown parameter{name} (known: db, username, password, client_name, \
                 socket_timeout, socket_connect_timeout, ssl_ca_certs, ssl_certfile, \
                 ssl_keyfile, ssl_cert_reqs, sentinelMasterId, sentinel_username, \
                 sentinel_password)"
            )));
        }
    }
    Ok(query)
}

/// A text that may be there and empty, which is none.
fn secret(text: Option<String>) -> Option<Secret> {
    text.filter(|text| !text.is_empty()).map(Secret::new)
}

/// A URL, and its hosts where it may have several: the library knows of one.
struct Written {
    url: Url,
    hosts: Vec<String>,
}

fn parse_url(text: &str) -> Result<Written> {
    let expected = || {
        Error::Argument(
            "url: expected redis://[[user]:password@]host[:port][/db], rediss://…, \
             unix://[[user]:password@]/path[?db=db] or \
             redis-sentinel://[[user]:password@]host[:port][,host[:port]…][/db]?sentinelMasterId=…"
                .into(),
        )
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
    let mut hosts = Vec::new();
    let parsed = match scheme {
        "redis" | "rediss" => Url::parse(text),
        "redis-sentinel" | "rediss-sentinel" => {
            let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            let at = authority.rfind('@').map_or(0, |at| at + 1);
            let (user, listed) = authority.split_at(at);
            hosts.extend(listed.split(',').map(str::to_owned));
            Url::parse(&format!("{scheme}://{user}sentinels{rest}"))
        }
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
    let url = parsed.map_err(|_| expected())?;
    Ok(Written { url, hosts })
}

fn sentinel_at(host: &str) -> Result<Endpoint> {
    let url = Url::parse(&format!("redis://{host}"));
    let url = url.map_err(|_| Error::Argument("url: expected host[:port] of sentinels".into()))?;
    host_and_port(&url, DEFAULT_SENTINEL_PORT)
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

fn host_and_port(url: &Url, default: u16) -> Result<Endpoint> {
    let host = match url.host() {
        Some(Host::Domain(name)) if !name.is_empty() => decoded(name)?,
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => return Err(Error::Argument("url: expected a host".into())),
    };
    let port = url.port().unwrap_or(default);
    Ok(Endpoint::Tcp { host, port })
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
    master: Option<String>,
    sentinel_username: Option<String>,
    sentinel_password: Option<String>,
}

/// What is said of sentinels.
struct Sentinel {
    master: String,
    username: Option<String>,
    password: Option<String>,
}

impl FromQuery {
    /// What is said of sentinels, where they are asked.
    fn sentinel(&mut self, is_asked: bool) -> Result<Option<Sentinel>> {
        let (master, username) = (self.master.take(), self.sentinel_username.take());
        let password = self.sentinel_password.take();
        if !is_asked {
            return match master.is_some() || username.is_some() || password.is_some() {
                true => Err(Error::Argument(
                    "url: the parameters sentinelMasterId, sentinel_username and \
                     sentinel_password are for redis-sentinel:// only"
                        .into(),
                )),
                false => Ok(None),
            };
        }
        match master.filter(|master| !master.is_empty()) {
            Some(master) => Ok(Some(Sentinel {
                master,
                username,
                password,
            })),
            None => Err(Error::Argument(
                "url: redis-sentinel:// needs the parameter sentinelMasterId, the name under \
                 which the sentinels know the master"
                    .into(),
            )),
        }
    }

    /// What is said of TLS, where it is used.
    fn tls(&mut self, is_used: bool) -> Result<Option<TlsOptions>> {
        let files = [&self.ca_certs, &self.certfile, &self.keyfile];
        if !is_used {
            return match files.iter().any(|file| file.is_some()) || self.cert_reqs.is_some() {
                true => Err(Error::Argument(
                    "url: the parameters ssl_ca_certs, ssl_certfile, ssl_keyfile and \
                     ssl_cert_reqs are for rediss:// and rediss-sentinel:// only"
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
            "sentinelMasterId" => self.master = Some(value.into()),
            "sentinel_username" => self.sentinel_username = Some(value.into()),
            "sentinel_password" => self.sentinel_password = Some(value.into()),
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
        let deployment = super::parse(url).unwrap();
        match &deployment.entrance {
            Entrance::Server(endpoint) => deployment.server(endpoint.clone()),
            Entrance::Sentinels { .. } => panic!("sentinels"),
        }
    }

    #[test]
    fn every_part_of_a_url_is_heard() {
        let address = parse(
            "redis://u%40x:p%3Aw@h:7000/3?client_name=me&socket_timeout=2.5&socket_connect_timeout=1",
        );
        assert_eq!((address.peer().as_str(), address.access.db), ("h:7000", 3));
        assert_eq!(address.access.username.as_deref(), Some("u@x"));
        assert_eq!(address.access.password, Some(Secret::new("p:w".into())));
        assert_eq!(address.access.client_name.as_deref(), Some("me"));
        assert_eq!(address.access.socket_timeout, Duration::from_millis(2500));
        assert_eq!(address.access.connect_timeout, Duration::from_secs(1));
    }

    #[test]
    fn what_a_url_leaves_out_has_a_default() {
        let address = parse("redis://localhost");
        assert_eq!(
            (address.peer().as_str(), address.access.db),
            ("localhost:6379", 0)
        );
        assert_eq!(
            (address.access.username, address.access.password),
            (None, None)
        );
    }

    #[test]
    fn the_query_counts_as_in_redis_py() {
        let address = parse("redis://h/1?db=2&username=u&password=p");
        assert_eq!(address.access.db, 2);
        assert_eq!(address.access.username.as_deref(), Some("u"));
        assert_eq!(address.access.password, Some(Secret::new("p".into())));
        let address = parse("redis://a:b@h?username=u&password=p");
        assert_eq!(address.access.username.as_deref(), Some("a"));
        assert_eq!(address.access.password, Some(Secret::new("b".into())));
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
            "redis-sentinel://:hunter2@h",
            "redis-sentinel://:hunter2@h?sentinelMasterId=",
            "redis-sentinel://:hunter2@?sentinelMasterId=m",
            "redis-sentinel://:hunter2@h:x?sentinelMasterId=m",
            "redis-sentinel://:hunter2@h,?sentinelMasterId=m",
            "redis-sentinel://:hunter2@h/x?sentinelMasterId=m",
            "redis://:hunter2@h?sentinelMasterId=m",
            "redis://h?sentinel_password=hunter2",
        ] {
            let error = super::parse(url).unwrap_err();
            assert!(matches!(error, Error::Argument(_)), "{url}: {error:?}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn an_address_prints_without_its_secrets() {
        let address = parse("redis://user:hunter2@h?client_name=me");
        assert!(!format!("{address} {address:?}").contains("hunter2"));
        assert_eq!(address.redact("bad args: 'hunter2'"), "bad args: '***'");
        assert_eq!(parse("redis://[::1]:7000").peer(), "[::1]:7000");
    }

    #[test]
    fn sentinels_are_listed_before_the_path() {
        let text = "redis-sentinel://u:hunter2@one,two:1,[::1]:2/3?sentinelMasterId=m\
                    &sentinel_username=s&sentinel_password=hunter3";
        let deployment = super::parse(text).unwrap();
        let Entrance::Sentinels { master, sentinels } = &deployment.entrance else {
            panic!("{deployment}");
        };
        let peers: Vec<String> = sentinels.iter().map(|s| s.peer()).collect();
        assert_eq!(peers, ["one:26379", "two:1", "[::1]:2"]);
        assert_eq!((master.as_str(), deployment.access.db), ("m", 3));
        assert_eq!(deployment.access.username.as_deref(), Some("u"));
        let access = &sentinels[0].access;
        assert_eq!((access.db, access.username.as_deref()), (0, Some("s")));
        assert_eq!(access.password, Some(Secret::new("hunter3".into())));
        let shown = format!("{deployment} {deployment:?}");
        assert!(!shown.contains("hunter"), "{shown}");
        assert_eq!(
            deployment.to_string(),
            "redis-sentinel://one:26379,two:1,[::1]:2/3?sentinelMasterId=m"
        );
        assert_eq!(deployment.redact("'hunter2' 'hunter3'"), "'***' '***'");
    }
}
