//! Which command comes next.
//!
//! - [`read_range`]: what is in a range, at once; [`Scan`]: batch after batch.
//! - [`Reader`]: batch after batch, of a stream's entries in order or as a
//!   consumer of a group, for as long as one likes.
//! - [`Subscriber`]: the messages of channels, batch after batch.
//! - [`acknowledge`]: entries are done with.
//!
//! Every reader may be cancelled anywhere (its future dropped), and goes on
//! where it was: what lies between two steps is in the reader, not the future.

mod acknowledge;
mod condition;
mod extent;
mod group;
mod link;
mod pubsub;
mod range;
mod reader;
mod runs;
mod scan;
mod source;
mod split;
mod tail;
mod windows;

use std::time::Duration;

pub use acknowledge::{FirstConnect, acknowledge};
pub use condition::Condition;
pub use group::{DeadLetter, GroupQuery, Mode};
pub use link::{Level, Note};
pub use pubsub::{Listening, MessageStats, Subscriber, Subscription, Until};
pub use reader::{Pace, Query, Reader, Stats, Step, Wait};
pub use scan::{RangeQuery, Scan, read_range};
pub use split::split_range;
pub use tail::TailQuery;

use crate::connection::Connection;
use crate::decode::{ChunkBuilder, Decoder, Fault, Progress, Shape};
use crate::entry_id::IdRange;
use crate::error::{DecodeError, Error};

/// When a reply may be due.
#[derive(Debug, Clone, Copy)]
enum Due {
    /// In a moment.
    Soon,
    /// As soon as the server can.
    InTime,
    /// After the command has blocked for as long as this.
    AfterBlock(Duration),
}

/// Why a reply was not received.
enum Failure {
    Line(Error),
    Reply(Fault),
}

impl Failure {
    /// The error that it is, of a stream that was read over `connection`.
    fn of(self, stream: &str, connection: &Connection) -> Error {
        let context = format!("stream {stream:?}");
        match self {
            Self::Line(error) => error,
            Self::Reply(Fault::Server(reply)) => {
                Error::from_reply(context, &reply, &connection.address().access)
            }
            Self::Reply(Fault::Protocol(reason)) => Error::Protocol {
                context,
                reason: connection.address().redact(&reason),
            },
            Self::Reply(Fault::Value { id, field, reason }) => {
                Error::Decode(Box::new(DecodeError {
                    stream: stream.to_owned(),
                    entry_id: id,
                    field,
                    reason,
                }))
            }
        }
    }
}

/// Gets `decoder` ready for a reply of at most `most` entries in `range`, the next
/// that comes over `connection`.
fn expect(
    connection: &Connection,
    decoder: &mut Decoder,
    shape: Shape,
    range: IdRange,
    most: usize,
) {
    decoder.begin_reply(shape, range, most);
    if connection.is_asking() {
        decoder.expect_line();
    }
}

/// Takes the rest of a reply that `decoder` has begun; how many entries it had.
async fn receive(
    connection: &mut Connection,
    due: Due,
    decoder: &mut Decoder,
    rows: &mut ChunkBuilder,
) -> Result<usize, Failure> {
    loop {
        let received = match due {
            Due::Soon => connection.received_soon().await,
            Due::InTime => connection.received().await,
            Due::AfterBlock(block) => connection.received_after_block(block).await,
        };
        let received = received.map_err(Failure::Line)?;
        let mut input = received;
        let progress = decoder.decode(&mut input, rows);
        let taken = received.len() - input.len();
        connection.consume(taken);
        if let Progress::Done { entries } = progress.map_err(Failure::Reply)? {
            return Ok(entries);
        }
    }
}
