//! `XACK`: entries are done with.

use std::sync::Arc;

use redis::Value;

use super::legs::is_on_its_way;
use super::link::{Link, checked};
use super::note::Notes;
use super::scan::RETRY_BUDGET;
use crate::command;
use crate::connection::Slot;
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::EntryId;
use crate::error::{Error, Result};

/// IDs of one command: less than a millisecond of the server's time.
const PIECE: usize = 1000;
/// IDs in flight, so that the server need not wait for the next command, and
/// commands.
const IDS_IN_FLIGHT: usize = 4 * PIECE;
const COMMANDS_IN_FLIGHT: usize = 128;

/// What becomes of a server that cannot be reached at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FirstConnect {
    /// It is an error at once.
    FailsFast,
    /// It was there before, and is waited for.
    IsRetried,
}

/// EntriesOf of a stream.
pub type EntriesOf = (Arc<str>, Vec<EntryId>);

/// One command's part of them.
#[derive(Clone, Copy)]
struct Piece<'a> {
    stream: &'a str,
    ids: &'a [EntryId],
}

/// Acknowledges entries of a consumer group, of one stream or of several; how many
/// of them were pending.
///
/// Many IDs go as several commands. Those whose reply is lost are sent again,
/// for up to ten seconds: what they acknowledged the first time is not counted.
///
/// # Errors
/// Any of the connection's, and the server's own.
pub async fn acknowledge(
    deployment: &Arc<Deployment>,
    group: &str,
    entries: &[EntriesOf],
    first_connect: FirstConnect,
    notes: &Notes,
) -> Result<u64> {
    let pieces = entries.iter().flat_map(|(stream, ids)| {
        let pieces = ids.chunks(PIECE);
        pieces.map(move |ids| Piece { stream, ids })
    });
    let mut pieces: Vec<Piece<'_>> = pieces.collect();
    pieces.sort_by_key(Piece::slot);
    let along = |piece: Option<&Piece<'_>>| {
        let stream = piece.map_or("", |piece| piece.stream);
        let mut link = Link::new(deployment.clone(), stream, ReadFrom::Master, RETRY_BUDGET);
        if first_connect == FirstConnect::IsRetried {
            link.expect_server();
        }
        link
    };
    let mut sending = Sending::new(&pieces);
    let link = along(pieces.first());
    sending.finish(link, group, notes).await?;
    for piece in &sending.apart {
        // By itself it is sent on to where it is.
        let mut alone = Sending::new(std::slice::from_ref(piece));
        alone.finish(along(Some(piece)), group, notes).await?;
        sending.acknowledged += alone.acknowledged;
    }
    Ok(sending.acknowledged)
}

impl Piece<'_> {
    fn slot(&self) -> Slot {
        Slot::of(self.stream.as_bytes())
    }
}

/// Pieces on their way.
struct Sending<'a> {
    /// Those without a reply.
    left: &'a [Piece<'a>],
    /// Whether there is only one.
    is_alone: bool,
    /// Those that another server has while the slot that they are in is on its way
    /// there. What is said of one does not hold for the others.
    apart: Vec<Piece<'a>>,
    /// How many entries were pending.
    acknowledged: u64,
}

impl<'a> Sending<'a> {
    fn new(pieces: &'a [Piece<'a>]) -> Self {
        Self {
            left: pieces,
            is_alone: pieces.len() == 1,
            apart: Vec::new(),
            acknowledged: 0,
        }
    }

    /// Sends pieces until all have their reply, or were set apart.
    async fn finish(&mut self, mut link: Link, group: &str, notes: &Notes) -> Result<()> {
        let finished = self.finish_along(&mut link, group).await;
        notes.add(link.take_notes());
        finished
    }

    async fn finish_along(&mut self, link: &mut Link, group: &str) -> Result<()> {
        while let Some(piece) = self.left.first() {
            let before = self.left.len();
            link.turn_to(piece.slot());
            if let Err(error) = self.send(link, group).await {
                if self.left.len() < before {
                    link.succeeded();
                }
                link.failed(error)?;
            }
        }
        link.keep();
        Ok(())
    }

    /// Sends pieces and takes their replies, in a cluster those of the same slot.
    async fn send(&mut self, link: &mut Link, group: &str) -> Result<()> {
        let deployment = link.deployment().clone();
        let is_in_cluster = link.is_in_cluster();
        let connection = link.ready().await?;
        let (mut in_flight, mut ids_in_flight) = (0, 0);
        let slot = self.left.first().map(Piece::slot);
        let is_here = |piece: &Piece<'_>| !is_in_cluster || Some(piece.slot()) == slot;
        while let Some(&due) = self.left.first()
            && is_here(&due)
        {
            while let Some(piece) = self.left.get(in_flight)
                && is_here(piece)
                && in_flight < COMMANDS_IN_FLIGHT
                && ids_in_flight < IDS_IN_FLIGHT
            {
                connection.queue(&command::xack(piece.stream, group, piece.ids));
                in_flight += 1;
                ids_in_flight += piece.ids.len();
            }
            connection.flush().await?;
            let reply = connection.reply().await?;
            in_flight -= 1;
            ids_in_flight -= due.ids.len();
            match checked(reply, &deployment, due.stream) {
                Err(error) if is_on_its_way(&error) && !self.is_alone => self.apart.push(due),
                reply => self.acknowledged += count(reply?, due.stream)?,
            }
            self.left = &self.left[1..];
        }
        link.succeeded();
        Ok(())
    }
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
