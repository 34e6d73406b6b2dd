//! What becomes of entries that nobody can process.

use redis::{FromRedisValue, Value};

use super::Group;
use super::claims::{Origin, Pending, Suspects};
use crate::command;
use crate::entry_id::IdRange;
use crate::error::{Error, Result};
use crate::read::link::{Level, Link};

impl Group {
    /// Moves an entry to the dead letters: it is added there and acknowledged
    /// here in one transaction.
    pub(super) async fn bury(&mut self, link: &mut Link, dead: &Pending) -> Result<()> {
        let Some(to) = self.query.dead_letter.clone() else {
            return Ok(());
        };
        let consumer = self.query.consumer.clone();
        let stream = &consumer.stream;
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
        let kind = link.checked_all(replies, &to.stream)?.pop();
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
        let moved = link.checked_all(replies, stream)?.pop();
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

/// Names and values of the first entry of a reply, as they are.
fn fields_of(reply: Value) -> Option<Vec<Vec<u8>>> {
    let entries: Vec<(Vec<u8>, Vec<Vec<u8>>)> = FromRedisValue::from_redis_value(reply).ok()?;
    entries.into_iter().next().map(|(_, fields)| fields)
}
