//! The stream commands, packed by redis-rs.

use std::time::Duration;

use redis::Cmd;

use crate::entry_id::{EntryId, IdRange};

/// `XRANGE`: the first `count` entries of a range.
pub fn xrange(stream: &str, range: IdRange, count: usize) -> Cmd {
    let mut cmd = redis::cmd("XRANGE");
    cmd.arg(stream)
        .arg(range.start().to_string())
        .arg(range.end().to_string())
        .arg("COUNT")
        .arg(count);
    cmd
}

/// `XREAD`: entries after an ID, waiting up to `block` for the first.
pub fn xread(stream: &str, after: EntryId, count: usize, block: Option<Duration>) -> Cmd {
    let mut cmd = redis::cmd("XREAD");
    cmd.arg("COUNT").arg(count);
    arg_block(&mut cmd, block);
    cmd.arg("STREAMS").arg(stream).arg(after.to_string());
    cmd
}

/// `XREAD` of several streams: up to `count` entries of each after an ID of its
/// own, waiting up to `block` for the first of any.
pub fn xread_all<'a>(
    streams: impl ExactSizeIterator<Item = (&'a str, &'a str)> + Clone,
    count: usize,
    block: Option<Duration>,
) -> Cmd {
    let mut cmd = roomy("XREAD", streams.len());
    cmd.arg("COUNT").arg(count);
    arg_block(&mut cmd, block);
    cmd.arg("STREAMS");
    for (stream, _) in streams.clone() {
        cmd.arg(stream);
    }
    for (_, after) in streams {
        cmd.arg(after);
    }
    cmd
}

/// A command with room for the keys of so many streams, and an ID of each.
fn roomy(name: &str, streams: usize) -> Cmd {
    const OTHERS: usize = 10;
    const BYTES: usize = 32;
    let arguments = OTHERS + 2 * streams;
    let mut cmd = Cmd::with_capacity(arguments, arguments * BYTES);
    cmd.arg(name);
    cmd
}

/// A consumer of a group of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Key of the stream.
    pub stream: String,
    /// Name of the group.
    pub group: String,
    /// Name of the consumer in the group.
    pub name: String,
}

impl Consumer {
    /// `XREADGROUP`: entries that no consumer of the group was given yet,
    /// waiting up to `block` for the first.
    pub fn read_new(&self, count: usize, block: Option<Duration>) -> Cmd {
        self.read(count, block, ">")
    }

    /// `XREADGROUP`: entries after an ID that this consumer was given and has
    /// not acknowledged.
    pub fn read_pending(&self, count: usize, after: EntryId) -> Cmd {
        self.read(count, None, &after.to_string())
    }

    fn read(&self, count: usize, block: Option<Duration>, after: &str) -> Cmd {
        let mut cmd = self.read_command(1, count, block);
        cmd.arg(&self.stream).arg(after);
        cmd
    }

    /// `XREADGROUP` of several streams of which it is a consumer, up to `count`
    /// entries of each: new ones, or its own pending ones after an ID.
    pub fn read_all<'a>(
        &self,
        streams: impl ExactSizeIterator<Item = (&'a str, Option<EntryId>)> + Clone,
        count: usize,
        block: Option<Duration>,
    ) -> Cmd {
        let mut cmd = self.read_command(streams.len(), count, block);
        for (stream, _) in streams.clone() {
            cmd.arg(stream);
        }
        for (_, after) in streams {
            match after {
                Some(after) => cmd.arg(after.to_string()),
                None => cmd.arg(">"),
            };
        }
        cmd
    }

    fn read_command(&self, streams: usize, count: usize, block: Option<Duration>) -> Cmd {
        let mut cmd = roomy("XREADGROUP", streams);
        cmd.arg("GROUP").arg(&self.group).arg(&self.name);
        cmd.arg("COUNT").arg(count);
        arg_block(&mut cmd, block);
        cmd.arg("STREAMS");
        cmd
    }

    /// `XGROUP CREATE`: the group, from the stream's first entry on; the stream
    /// too.
    pub fn create_group(&self) -> Cmd {
        let mut cmd = redis::cmd("XGROUP");
        cmd.arg("CREATE").arg(&self.stream).arg(&self.group);
        cmd.arg("0").arg("MKSTREAM");
        cmd
    }

    /// `XPENDING`: what this consumer was given and has not acknowledged.
    pub fn pending_own(&self, range: IdRange, count: usize) -> Cmd {
        let mut cmd = self.pending(None, range, count);
        cmd.arg(&self.name);
        cmd
    }

    /// `XPENDING`: what any consumer was given at least `idle` ago and has not
    /// acknowledged.
    pub fn pending_idle(&self, idle: Duration, range: IdRange, count: usize) -> Cmd {
        self.pending(Some(idle), range, count)
    }

    fn pending(&self, idle: Option<Duration>, range: IdRange, count: usize) -> Cmd {
        let mut cmd = redis::cmd("XPENDING");
        cmd.arg(&self.stream).arg(&self.group);
        if let Some(idle) = idle {
            cmd.arg("IDLE").arg(milliseconds(idle));
        }
        cmd.arg(range.start().to_string())
            .arg(range.end().to_string())
            .arg(count);
        cmd
    }

    /// `XCLAIM`: makes entries this consumer's, if they are still pending and
    /// nobody took them within `idle`.
    pub fn claim(&self, idle: Duration, ids: &[EntryId]) -> Cmd {
        let mut cmd = redis::cmd("XCLAIM");
        cmd.arg(&self.stream).arg(&self.group).arg(&self.name);
        cmd.arg(milliseconds(idle));
        for id in ids {
            cmd.arg(id.to_string());
        }
        cmd
    }

    /// [`claim`](Self::claim) that neither counts as a delivery nor shows the
    /// entries.
    pub fn claim_silently(&self, idle: Duration, ids: &[EntryId]) -> Cmd {
        let mut cmd = self.claim(idle, ids);
        cmd.arg("JUSTID");
        cmd
    }

    /// A transaction that adds an entry to the stream of dead letters, with
    /// what it was, and acknowledges it. An entry whose fields are gone is only
    /// acknowledged.
    pub fn bury(
        &self,
        dead_letters: &str,
        id: EntryId,
        last_consumer: &[u8],
        deliveries: i64,
        fields: Option<Vec<Vec<u8>>>,
    ) -> Vec<Cmd> {
        let mut cmds = vec![redis::cmd("MULTI")];
        if let Some(fields) = fields {
            let mut xadd = redis::cmd("XADD");
            xadd.arg(dead_letters).arg("*");
            xadd.arg("_stream").arg(&self.stream);
            xadd.arg("_id").arg(id.to_string());
            xadd.arg("_group").arg(&self.group);
            xadd.arg("_consumer").arg(last_consumer);
            xadd.arg("_deliveries").arg(deliveries);
            xadd.arg(fields);
            cmds.push(xadd);
        }
        cmds.push(xack(&self.stream, &self.group, &[id]));
        cmds.push(redis::cmd("EXEC"));
        cmds
    }
}

/// `WATCH` and `TYPE` of a key: what is queued next happens only if it stays so.
pub fn watch_and_type(key: &str) -> [Cmd; 2] {
    let mut watch = redis::cmd("WATCH");
    watch.arg(key);
    [watch, kind_of(key)]
}

/// `TYPE`: what a key holds.
pub fn kind_of(key: &str) -> Cmd {
    let mut cmd = redis::cmd("TYPE");
    cmd.arg(key);
    cmd
}

/// `XACK`: entries are done with.
pub fn xack(stream: &str, group: &str, ids: &[EntryId]) -> Cmd {
    let mut cmd = redis::cmd("XACK");
    cmd.arg(stream).arg(group);
    for id in ids {
        cmd.arg(id.to_string());
    }
    cmd
}

fn arg_block(cmd: &mut Cmd, block: Option<Duration>) {
    if let Some(block) = block {
        // 0 would be for ever.
        cmd.arg("BLOCK").arg(milliseconds(block).max(1));
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// `XREVRANGE`: the last entry of a stream.
pub fn last_entry(stream: &str) -> Cmd {
    let mut cmd = redis::cmd("XREVRANGE");
    cmd.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
    cmd
}

/// `XRANGE`: whether there is an entry at `id` or after it.
pub fn entry_from(stream: &str, id: EntryId) -> Cmd {
    let mut cmd = redis::cmd("XRANGE");
    cmd.arg(stream)
        .arg(id.to_string())
        .arg("+")
        .arg("COUNT")
        .arg(1);
    cmd
}

/// `XINFO STREAM`: length, first and last entry, last ID ever given.
pub fn stream_info(stream: &str) -> Cmd {
    xinfo("STREAM", stream)
}

/// `XINFO GROUPS`: the groups of a stream, and how far each has come.
pub fn group_info(stream: &str) -> Cmd {
    xinfo("GROUPS", stream)
}

/// `XINFO CONSUMERS`: the consumers of a group, and what each has pending.
pub fn consumer_info(stream: &str, group: &[u8]) -> Cmd {
    let mut cmd = xinfo("CONSUMERS", stream);
    cmd.arg(group);
    cmd
}

fn xinfo(what: &str, stream: &str) -> Cmd {
    let mut cmd = redis::cmd("XINFO");
    cmd.arg(what).arg(stream);
    cmd
}

/// `SCAN`: some of the streams whose keys match a glob pattern, and the cursor from
/// which to go on.
pub fn scan_streams(pattern: &str, cursor: u64, count: usize) -> Cmd {
    let mut cmd = redis::cmd("SCAN");
    cmd.arg(cursor).arg("MATCH").arg(pattern);
    cmd.arg("COUNT").arg(count).arg("TYPE").arg("stream");
    cmd
}

/// How the channels that a subscriber wants are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Naming {
    /// By their names.
    Channels,
    /// By glob patterns.
    Patterns,
    /// By names that belong to the slots of a cluster, as keys do.
    Sharded,
}

/// `SUBSCRIBE`, `PSUBSCRIBE` or `SSUBSCRIBE`: messages of a channel, from now on.
pub fn subscribe(naming: Naming, channel: &str) -> Cmd {
    let mut cmd = redis::cmd(match naming {
        Naming::Channels => "SUBSCRIBE",
        Naming::Patterns => "PSUBSCRIBE",
        Naming::Sharded => "SSUBSCRIBE",
    });
    cmd.arg(channel);
    cmd
}
