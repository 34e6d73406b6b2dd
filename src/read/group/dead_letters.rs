//! What becomes of entries that nobody can process.

use redis::{FromRedisValue, Value};

use super::Group;
use super::claims::{Origin, Pending, Suspects};
use crate::command;
use crate::connection::Slot;
use crate::entry_id::IdRange;
use crate::error::{Error, Result};
use crate::read::link::Link;
use crate::read::note::Level;

impl Group {
    /// Moves an entry to the dead letters: it is added there and acknowledged
    /// here in one transaction.
    pub(super) async fn bury(&mut self, link: &mut Link, dead: &Pending) -> Result<()> {
        let Some(to) = self.query.dead_letter.clone() else {
            return Ok(());
        };
        let consumer = self.query.consumer.clone();
        let stream = &consumer.stream;
        let connection = link.ready().await?;
        if connection.is_asking() {
            return Err(slot_on_its_way(stream));
        }
        let in_one_place = |error| in_one_slot(error, stream, &to.stream);
        self.burying = Some(dead.id);
        if let (Origin::Stale(idle), true) = (dead.origin, self.is_others(dead)) {
            let cmd = consumer.claim_silently(idle, &[dead.id]);
            let claimed = link.query(&cmd, stream).await?;
            // Somebody else was faster.
            if matches!(&claimed, Value::Array(ids) if ids.is_empty()) {
                self.burying = None;
                return Ok(());
            }
        }
        let fields = match IdRange::new(dead.id, dead.id) {
            Some(range) => {
                link.query(&command::xrange(stream, range, 1), stream)
                    .await?
            }
            None => Value::Nil,
        };
        let checks = command::watch_and_type(&to.stream);
        let replies = link.ready().await?.query_all(&checks).await?;
        let kind = link.checked_all(replies, &to.stream);
        let kind = kind.map_err(in_one_place)?.pop();
        let kind: String = kind
            .and_then(|kind| FromRedisValue::from_redis_value(kind).ok())
            .unwrap_or_default();
        if kind != "stream" && kind != "none" {
            return Err(Error::Response {
                context: format!("dead_letter {:?}", to.stream),
                reply: format!("WRONGTYPE the key holds a {kind}, not a stream"),
            });
        }
        let cmds = consumer.bury(
            &to.stream,
            dead.id,
            &dead.consumer,
            dead.delivered(),
            fields_of(fields),
        );
        let replies = link.ready().await?.query_all(&cmds).await?;
        let moved = link.checked_all(replies, stream);
        let moved = moved.map_err(in_one_place)?.pop();
        self.burying = None;
        if matches!(moved, Some(Value::Nil)) {
            // The dead letters changed meanwhile: the next look moves it.
            self.suspects = Some((Suspects::These(vec![dead.clone()]), Origin::Own));
            return Ok(());
        }
        link.note(
            Level::Warning,
            format!(
                "stream {stream:?}, group {:?}: entry {} was delivered {} times, and moved to {:?}",
                consumer.group,
                dead.id,
                dead.delivered(),
                to.stream
            ),
        );
        Ok(())
    }
}

/// A transaction has to be in one place: the slot will soon have arrived.
fn slot_on_its_way(stream: &str) -> Error {
    Error::Response {
        context: format!("stream {stream:?}"),
        reply: "TRYAGAIN its hash slot is on its way to another server".into(),
    }
}

/// In a cluster a transaction has to do with one hash slot only, and with one server.
fn in_one_slot(error: Error, stream: &str, dead_letters: &str) -> Error {
    let is_elsewhere = |reply: &str| {
        let code = reply.split(' ').next();
        matches!(code, Some("MOVED" | "ASK" | "CROSSSLOT" | "EXECABORT"))
    };
    match error {
        Error::Response { reply, .. }
            if is_elsewhere(&reply)
                && Slot::of(stream.as_bytes()) != Slot::of(dead_letters.as_bytes()) =>
        {
            Error::Response {
                context: format!("dead_letter {dead_letters:?}"),
                reply: format!(
                    "CROSSSLOT in a cluster it must have the hash slot of the stream \
                     {stream:?}: put the same text in braces into both names, as in \
                     \"{{orders}}\" and \"{{orders}}:dead\""
                ),
            }
        }
        // The dead letters have gone ahead: the stream itself is here.
        Error::Response { reply, .. } if reply.starts_with("ASK ") => slot_on_its_way(stream),
        error => error,
    }
}

/// Names and values of the first entry of a reply, as they are.
fn fields_of(reply: Value) -> Option<Vec<Vec<u8>>> {
    let entries: Vec<(Vec<u8>, Vec<Vec<u8>>)> = FromRedisValue::from_redis_value(reply).ok()?;
    entries.into_iter().next().map(|(_, fields)| fields)
}
