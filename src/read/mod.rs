//! Which command comes next.
//!
//! - [`read_range`]: what is in a range, at once; [`Scan`]: batch after batch.
//! - [`Streams`]: the same of many streams, batch after batch.
//! - [`Reader`]: batch after batch, of a stream's entries in order or as a
//!   consumer of a group, for as long as one likes.
//! - [`Subscriber`]: the messages of channels, batch after batch.
//! - [`acknowledge`]: entries are done with.
//! - [`stream_info`]: what is known of a stream and its groups.
//!
//! Every reader may be cancelled anywhere (its future dropped), and goes on
//! where it was: what lies between two steps is in the reader, not the future.

mod acknowledge;
mod batch;
mod condition;
mod culprit;
mod extent;
mod group;
mod info;
mod legs;
mod link;
mod note;
mod pubsub;
mod range;
mod reader;
mod runs;
mod scan;
mod shards;
mod source;
mod split;
mod streams;
mod tail;
mod tails;
mod turns;
mod windows;

use std::time::Duration;

pub use acknowledge::{EntriesOf, FirstConnect, acknowledge};
pub use batch::Part;
pub use condition::Condition;
pub use group::{DeadLetter, GroupQuery, Mode};
pub use info::{ConsumerInfo, GroupInfo, StreamInfo, stream_info};
pub use note::{Level, Note, Notes};
pub use pubsub::{Listening, MessageStats, Subscriber, Subscription, Until};
pub use reader::{Pace, Query, Reader, Stats, Step, Wait};
pub use scan::{RangeQuery, Scan, read_range};
pub use split::split_range;
pub use streams::{Entries, Streams, StreamsQuery, Which, find_keys, read_streams};
pub use tail::TailQuery;
pub use tails::TailsQuery;

use crate::connection::Connection;
use crate::decode::{Asked, ChunkBuilder, Decoder, Fault, Progress, Shape};
use crate::entry_id::IdRange;
use crate::error::{DecodeError, Error};

/// Control commands that are sent at once, for as many streams. They take about a
/// millisecond, and are begun anew where they are cancelled.
const AT_ONCE: usize = 64;

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
        self.of_several(format!("stream {stream:?}"), stream, connection)
    }

    /// The error that it is, of streams that `context` names; `stream` is the one
    /// whose entries came in last.
    fn of_several(self, context: String, stream: &str, connection: &Connection) -> Error {
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

/// [`expect`] for the reply of several streams, each with at most `most` entries.
fn expect_streams(connection: &Connection, decoder: &mut Decoder, asked: Vec<Asked>, most: usize) {
    decoder.begin_streams(asked, most);
    if connection.is_asking() {
        decoder.expect_line();
    }
}

/// Several streams as an error names them.
fn several<'a>(keys: impl ExactSizeIterator<Item = &'a str>) -> String {
    const SHOWN: usize = 3;
    let count = keys.len();
    let shown: Vec<String> = keys.take(SHOWN).map(|key| format!("{key:?}")).collect();
    let shown = shown.join(", ");
    match count {
        1 => format!("stream {shown}"),
        ..=SHOWN => format!("streams {shown}"),
        _ => format!("streams {shown} and {} more", count - SHOWN),
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
