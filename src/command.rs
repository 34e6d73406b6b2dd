//! The stream commands, packed by redis-rs.

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
    let mut cmd = redis::cmd("XINFO");
    cmd.arg("STREAM").arg(stream);
    cmd
}
