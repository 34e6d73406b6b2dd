//! `XACK`: entries are done with.

use std::sync::Arc;

use redis::Value;

use super::link::{Link, Note, checked};
use super::scan::RETRY_BUDGET;
use crate::command;
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::EntryId;
use crate::error::{Error, Result};

/// IDs of one command: less than a millisecond of the server's time.
const PIECE: usize = 1000;
/// Commands in flight, so that the server need not wait for the next one.
const IN_FLIGHT: usize = 4;

/// What becomes of a server that cannot be reached at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstConnect {
    /// It is an error at once.
    FailsFast,
    /// It was there before, and is waited for.
    IsRetried,
}

/// Acknowledges entries of a consumer group; how many of them were pending, and
/// what there is to tell.
///
/// Many IDs go as several commands. Those whose reply is lost are sent again,
/// for up to ten seconds: what they acknowledged the first time is not counted.
///
/// # Errors
/// Any of the connection's, and the server's own.
pub async fn acknowledge(
    deployment: &Arc<Deployment>,
    stream: &str,
    group: &str,
    ids: &[EntryId],
    first_connect: FirstConnect,
) -> Result<(u64, Vec<Note>)> {
    let mut link = Link::new(deployment.clone(), stream, ReadFrom::Master, RETRY_BUDGET);
    if first_connect == FirstConnect::IsRetried {
        link.expect_server();
    }
    let mut acknowledged = 0;
    let mut left = ids;
    while !left.is_empty() {
        let before = left.len();
        if let Err(error) = send(&mut link, stream, group, &mut left, &mut acknowledged).await {
            if left.len() < before {
                link.succeeded();
            }
            link.failed(error)?;
        }
    }
    link.keep();
    Ok((acknowledged, link.take_notes()))
}

/// Sends pieces and takes their replies; `left` are the IDs without a reply.
async fn send(
    link: &mut Link,
    stream: &str,
    group: &str,
    left: &mut &[EntryId],
    acknowledged: &mut u64,
) -> Result<()> {
    let deployment = link.deployment().clone();
    let connection = link.ready().await?;
    let mut pieces = left.chunks(PIECE);
    let mut in_flight = 0;
    while !left.is_empty() {
        for piece in pieces.by_ref().take(IN_FLIGHT - in_flight) {
            connection.queue(&command::xack(stream, group, piece));
            in_flight += 1;
        }
        connection.flush().await?;
        let reply = connection.reply().await?;
        in_flight -= 1;
        *acknowledged += count(checked(reply, &deployment, stream)?, stream)?;
        *left = &left[PIECE.min(left.len())..];
    }
    link.succeeded();
    Ok(())
}

fn count(reply: Value, stream: &str) -> Result<u64> {
    match reply {
        Value::Int(count) => Ok(u64::try_from(count).unwrap_or_default()),
        _ => Err(Error::Protocol {
            context: format!("stream {stream:?}"),
            reason: "no number where XACK's was due".into(),
        }),
    }
}
