//! Which server of a cluster has which keys: hash slots, the map of them, and what
//! a server says of one that it does not have.

use redis::{FromRedisValue, Value};

use crate::address::Endpoint;

/// Hash slots of a cluster.
const SLOTS: u16 = 16_384;
/// No shard is known to have a slot.
const UNKNOWN: u16 = u16::MAX;

/// The hash slot of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(u16);

impl Slot {
    /// The slot that `key` is in: what is between the first braces counts, or all
    /// of it.
    pub fn of(key: &[u8]) -> Self {
        Self(crc16::State::<crc16::XMODEM>::calculate(tag(key)) % SLOTS)
    }
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else {
        return key;
    };
    let inside = &key[open + 1..];
    match inside.iter().position(|&byte| byte == b'}') {
        Some(close) if close > 0 => &inside[..close],
        _ => key,
    }
}

/// Servers that have the same slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    pub master: Endpoint,
    pub replicas: Vec<Endpoint>,
}

/// Which shard has which slot, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotMap {
    shards: Vec<Shard>,
    /// Of each slot, the number of its shard.
    owners: Vec<u16>,
}

impl SlotMap {
    /// A map in which nothing is known.
    pub fn unknown() -> Self {
        Self {
            shards: Vec::new(),
            owners: vec![UNKNOWN; usize::from(SLOTS)],
        }
    }

    /// Reads the reply to `CLUSTER SLOTS` of the server `asked`; nothing, if it is
    /// not understood.
    pub fn from_reply(reply: &Value, asked: &Endpoint) -> Option<Self> {
        let Value::Array(ranges) = reply else {
            return None;
        };
        let mut map = Self::unknown();
        for range in ranges {
            let Value::Array(parts) = range else {
                return None;
            };
            let [Value::Int(first), Value::Int(last), servers @ ..] = parts.as_slice() else {
                return None;
            };
            let mut servers = servers.iter().filter_map(|server| endpoint(server, asked));
            let Some(master) = servers.next() else {
                continue;
            };
            let replicas = servers.collect();
            let shard = map.shard_with(Shard { master, replicas });
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            map.owners.get_mut(first..=last)?.fill(shard);
        }
        Some(map)
    }

    fn shard_with(&mut self, shard: Shard) -> u16 {
        let known = self.shards.iter().position(|s| s.master == shard.master);
        let at = known.unwrap_or_else(|| {
            self.shards.push(shard);
            self.shards.len() - 1
        });
        u16::try_from(at).unwrap_or(UNKNOWN)
    }

    /// A slot is at a server now.
    pub fn learn(&mut self, slot: Slot, master: Endpoint) {
        let replicas = Vec::new();
        let shard = self.shard_with(Shard { master, replicas });
        if let Some(owner) = self.owners.get_mut(usize::from(slot.0)) {
            *owner = shard;
        }
    }

    /// Nobody is known to have a slot any more.
    pub fn forget(&mut self, slot: Slot) {
        if let Some(owner) = self.owners.get_mut(usize::from(slot.0)) {
            *owner = UNKNOWN;
        }
    }

    /// Who has a slot.
    pub fn shard(&self, slot: Slot) -> Option<&Shard> {
        self.shards.get(self.shard_number(slot)?)
    }

    /// The number of the shard that has a slot.
    pub fn shard_number(&self, slot: Slot) -> Option<usize> {
        let owner = *self.owners.get(usize::from(slot.0))?;
        (owner != UNKNOWN).then_some(usize::from(owner))
    }

    /// One slot of each shard that has any.
    pub fn slot_of_each_shard(&self) -> Vec<Slot> {
        let mut found: Vec<Option<Slot>> = vec![None; self.shards.len()];
        for (slot, &owner) in (0..SLOTS).zip(&self.owners) {
            if let Some(first) = found.get_mut(usize::from(owner)) {
                first.get_or_insert(Slot(slot));
            }
        }
        found.into_iter().flatten().collect()
    }

    /// The master of each shard.
    pub fn masters(&self) -> impl Iterator<Item = &Endpoint> {
        self.shards.iter().map(|shard| &shard.master)
    }

    /// All servers, masters first.
    pub fn servers(&self) -> impl Iterator<Item = &Endpoint> {
        let replicas = self.shards.iter().flat_map(|shard| &shard.replicas);
        self.masters().chain(replicas)
    }
}

/// The slots that a server says it has, in the reply to `CLUSTER NODES`, also those
/// on their way from it or to it; nothing, if the reply is not understood.
pub fn own_slots(reply: &Value) -> Option<String> {
    let text: String = FromRedisValue::from_redis_value(reply.clone()).ok()?;
    // Before the slots: ID, address, flags, master, ping, pong, epoch, state.
    let own = text.lines().map(|line| line.splitn(9, ' '));
    let mut own = own.filter_map(|mut line| {
        let flags = line.nth(2)?;
        let is_own = flags.split(',').any(|flag| flag == "myself");
        is_own.then(|| line.nth(5).unwrap_or_default().to_owned())
    });
    own.next()
}

/// Where a server says that another one is, in the reply to `CLUSTER SLOTS`.
fn endpoint(server: &Value, asked: &Endpoint) -> Option<Endpoint> {
    let Value::Array(parts) = server else {
        return None;
    };
    let [host, Value::Int(port), ..] = parts.as_slice() else {
        return None;
    };
    let host = match host {
        Value::BulkString(host) => std::str::from_utf8(host).ok()?,
        Value::Nil => "",
        _ => return None,
    };
    located(host, u16::try_from(*port).ok()?, asked)
}

/// A server at a host and port; one without a host is where the one is that told
/// of it.
fn located(host: &str, port: u16, told_by: &Endpoint) -> Option<Endpoint> {
    let host = match (host, told_by) {
        ("?", _) => return None,
        ("", Endpoint::Tcp { host, .. }) => host.clone(),
        ("", Endpoint::Unix(_)) => "localhost".to_owned(),
        (host, _) => host.to_owned(),
    };
    Some(Endpoint::Tcp { host, port })
}

/// Where a server of a cluster says that a key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    pub slot: Slot,
    pub to: Endpoint,
    pub kind: RedirectKind,
}

/// How long it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectKind {
    /// For good.
    Moved,
    /// While the slot is on its way there.
    Ask,
}

impl Redirect {
    /// Reads an error reply of the server at `told_by`.
    pub fn from_reply(reply: &str, told_by: &Endpoint) -> Option<Self> {
        let mut words = reply.split(' ');
        let kind = match words.next()? {
            "MOVED" => RedirectKind::Moved,
            "ASK" => RedirectKind::Ask,
            _ => return None,
        };
        let slot = words.next()?.parse().ok().filter(|&slot| slot < SLOTS)?;
        let (host, port) = words.next()?.rsplit_once(':')?;
        let to = located(host, port.parse().ok()?, told_by)?;
        let slot = Slot(slot);
        Some(Self { slot, to, kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Endpoint {
        let host = host.to_owned();
        Endpoint::Tcp { host, port }
    }

    #[test]
    fn the_slot_is_that_of_the_tag() {
        // As CLUSTER KEYSLOT tells.
        assert_eq!(Slot::of(b"foo"), Slot(12182));
        assert_eq!(Slot::of(b"{foo}.bar"), Slot(12182));
        assert_eq!(Slot::of(b"a{foo}{bar}"), Slot(12182));
        assert_ne!(Slot::of(b"{}foo"), Slot::of(b"{}bar"));
        assert_ne!(Slot::of(b"{foo"), Slot(12182));
    }

    #[test]
    fn a_map_is_read_and_mended() {
        let text = |text: &str| Value::BulkString(text.into());
        let server = |host, port| Value::Array(vec![text(host), Value::Int(port), text("id")]);
        let range = |first, last, servers: Vec<Value>| {
            let mut parts = vec![Value::Int(first), Value::Int(last)];
            parts.extend(servers);
            Value::Array(parts)
        };
        let reply = Value::Array(vec![
            range(0, 8000, vec![server("", 1), server("b", 2)]),
            range(8001, 16_383, vec![server("c", 3)]),
        ]);
        let mut map = SlotMap::from_reply(&reply, &at("a", 9)).unwrap();
        assert_eq!(map.shard(Slot(8000)).unwrap().master, at("a", 1));
        assert_eq!(map.shard(Slot(8000)).unwrap().replicas, [at("b", 2)]);
        assert_eq!(map.shard(Slot(8001)).unwrap().master, at("c", 3));
        assert_eq!(map.slot_of_each_shard(), [Slot(0), Slot(8001)]);
        map.learn(Slot(0), at("c", 3));
        assert_eq!(map.shard_number(Slot(0)), Some(1));
        map.learn(Slot(1), at("d", 4));
        assert_eq!(map.servers().count(), 4);
        let beyond = Value::Array(vec![range(0, 16_384, vec![server("a", 1)])]);
        assert_eq!(SlotMap::from_reply(&beyond, &at("a", 9)), None);
    }

    #[test]
    fn a_server_tells_its_own_slots_and_those_on_their_way() {
        let text = "a1 127.0.0.1:1@2,h master - 0 1 1 connected 0-99\n\
                    b2 127.0.0.1:2@3 myself,master - 0 1 2 connected 100-199 [200-<-a1]\n";
        let reply = Value::BulkString(text.into());
        assert_eq!(own_slots(&reply).as_deref(), Some("100-199 [200-<-a1]"));
        let bare = Value::BulkString("b2 :2 myself,slave a1 0 1 2 connected\n".into());
        assert_eq!(own_slots(&bare).as_deref(), Some(""));
        assert_eq!(own_slots(&Value::Nil), None);
    }

    #[test]
    fn a_redirect_is_told_from_other_errors() {
        let read = |text| Redirect::from_reply(text, &at("a", 9));
        let redirect = read("MOVED 5 ::1:6381").unwrap();
        assert_eq!((redirect.to, redirect.slot), (at("::1", 6381), Slot(5)));
        let redirect = read("ASK 5 :6381").unwrap();
        assert_eq!(
            (redirect.to, redirect.kind),
            (at("a", 6381), RedirectKind::Ask)
        );
        for text in [
            "ERR x",
            "MOVED",
            "MOVED 99999 a:1",
            "MOVED 1 a",
            "ASK 1 ?:1",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
