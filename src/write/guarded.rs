//! Rows that are written only if their keys are what they should be: some keys are
//! watched and looked at, and what may be written is, in one transaction, which does
//! not happen if one of them has changed meanwhile. Then it is tried anew.

use std::collections::{HashSet, VecDeque};

use redis::Value;

use super::batch::Batch;
use super::hashes::Hashes;
use super::lane::{Due, Lane, Shared, find};
use crate::connection::{Connection, Slot, error_text};
use crate::error::Result;

/// Keys that are watched at a time: about a millisecond of the server's time.
const PIECE: usize = 256;

/// Rows that are looked at together.
#[derive(Default)]
struct Piece {
    rows: Vec<u64>,
    keys: Vec<Vec<u8>>,
    /// Rows that are not to be written, as their keys are there.
    kept: Vec<u64>,
    /// Those whose keys will be there, as a row before has the same.
    repeated: Vec<u64>,
}

/// What became of a piece.
enum Ended {
    /// Each row has found its end.
    Done,
    /// A key has changed meanwhile: nothing was written.
    Changed,
    /// Some keys have gone to another server already, and some have not: nothing was
    /// written.
    Apart,
    /// The server has refused it, from this row of the piece on.
    Refused { at: usize, reply: String },
}

impl Lane {
    /// Writes all rows, piece by piece.
    pub(super) async fn run_guarded(
        &mut self,
        hashes: &Hashes,
        shared: &Shared,
        batches: &VecDeque<Batch>,
    ) -> Result<()> {
        let mut most = PIECE;
        while !self.todo.is_empty() && !shared.is_stopped() {
            let mut piece = self.next_piece(hashes, batches, most);
            self.connect(shared).await?;
            let Some(mut connection) = self.connection.take() else {
                return Ok(());
            };
            let ended = self.write_piece(&mut piece, hashes, shared, batches, &mut connection);
            let ended = ended.await;
            let address = connection.address().clone();
            if matches!(ended, Ok(Ended::Done | Ended::Changed)) {
                // After anything else keys may be watched still.
                self.connection = Some(connection);
            }
            match ended {
                Err(error) => {
                    shared.outcome().are_kept(piece.kept);
                    return Err(error);
                }
                Ok(Ended::Done) => {
                    most = (most * 2).min(PIECE);
                    let mut outcome = shared.outcome();
                    outcome.are_kept(piece.kept);
                    outcome.are_kept(piece.repeated);
                }
                Ok(Ended::Changed) => {
                    // The fewer keys there are, the sooner they stay as they are.
                    most = (most / 2).max(1);
                    self.put_back(&piece);
                }
                Ok(Ended::Apart) => {
                    most = 1;
                    self.put_back(&piece);
                }
                Ok(Ended::Refused { at, reply }) => {
                    self.due.clear();
                    let is_redirect = reply.starts_with("MOVED ") || reply.starts_with("ASK ");
                    let rows = if is_redirect {
                        &piece.rows[..]
                    } else {
                        shared.outcome().are_kept(piece.kept);
                        &piece.rows[at..=at]
                    };
                    for &row in rows {
                        self.refused_row(row, reply.clone(), &address, shared, batches);
                    }
                }
            }
        }
        Ok(())
    }

    /// Nothing was written: its rows come again.
    fn put_back(&mut self, piece: &Piece) {
        self.due.clear();
        let rows = piece.rows.iter().rev();
        rows.for_each(|&row| self.todo.push_front(row));
    }

    /// Takes the next rows that may be in one transaction.
    fn next_piece(&mut self, hashes: &Hashes, batches: &VecDeque<Batch>, most: usize) -> Piece {
        let mut piece = Piece::default();
        while piece.rows.len() < most
            && let Some(&row) = self.todo.front()
        {
            let key = find(batches, row).map(|(batch, at)| hashes.key_of(batch, at));
            let key = key.unwrap_or_default();
            let is_elsewhere = |first: &Vec<u8>| Slot::of(first) != Slot::of(&key);
            if self.in_cluster && piece.keys.first().is_some_and(is_elsewhere) {
                break;
            }
            self.todo.pop_front();
            piece.rows.push(row);
            piece.keys.push(key);
        }
        piece
    }

    async fn write_piece(
        &mut self,
        piece: &mut Piece,
        hashes: &Hashes,
        shared: &Shared,
        batches: &VecDeque<Batch>,
        connection: &mut Connection,
    ) -> Result<Ended> {
        let kinds = connection.query_all(&looks(&piece.keys)).await?;
        if let Some((at, reply)) = first_error(&kinds) {
            if reply.starts_with("TRYAGAIN ") && piece.rows.len() > 1 {
                return Ok(Ended::Apart);
            }
            // The first reply is that to WATCH.
            return Ok(Ended::Refused {
                at: at.saturating_sub(1),
                reply,
            });
        }
        let mut seen = HashSet::new();
        let mut to_write = Vec::new();
        for (at, kind) in kinds[1..].iter().enumerate() {
            let is_first = seen.insert(&piece.keys[at]);
            match (kind, hashes.keeps_what_is_there()) {
                (Value::SimpleString(kind), true) if kind != "none" => {
                    piece.kept.push(piece.rows[at]);
                }
                (Value::SimpleString(_), true) if !is_first => piece.repeated.push(piece.rows[at]),
                (Value::SimpleString(kind), false) if kind != "none" && kind != "hash" => {
                    connection.query(&redis::cmd("UNWATCH")).await?;
                    let reply = format!("WRONGTYPE the key holds a {kind}, not a hash");
                    return Ok(Ended::Refused { at, reply });
                }
                _ => to_write.push(at),
            }
        }
        if to_write.is_empty() {
            connection.query(&redis::cmd("UNWATCH")).await?;
            return Ok(Ended::Done);
        }
        self.due
            .extend(to_write.iter().map(|&at| Due::sent(piece.rows[at])));
        let replies = self
            .transact(piece, &to_write, hashes, batches, connection)
            .await?;
        if let Some((at, reply)) = first_error(&replies) {
            let a_row = hashes.changes();
            // The first reply is that to MULTI.
            let at = to_write.get(at.saturating_sub(1) / a_row);
            return Ok(Ended::Refused {
                at: at.copied().unwrap_or(to_write[0]),
                reply,
            });
        }
        if matches!(replies.last(), Some(Value::Nil)) {
            return Ok(Ended::Changed);
        }
        let mut outcome = shared.outcome();
        self.due
            .drain(..)
            .for_each(|due| outcome.is_written(due.row, b""));
        Ok(Ended::Done)
    }

    /// Sends a transaction, and takes all replies to it.
    async fn transact(
        &mut self,
        piece: &Piece,
        to_write: &[usize],
        hashes: &Hashes,
        batches: &VecDeque<Batch>,
        connection: &mut Connection,
    ) -> Result<Vec<Value>> {
        connection.queue(&redis::cmd("MULTI"));
        let mut commands = 2;
        for &at in to_write {
            if let Some((batch, row)) = find(batches, piece.rows[at]) {
                hashes.push_changes(&piece.keys[at], batch, row, connection.outbox());
                commands += hashes.changes();
            }
        }
        connection.queue(&redis::cmd("EXEC"));
        connection.flush().await?;
        let mut replies = Vec::with_capacity(commands);
        for _ in 0..commands {
            replies.push(connection.reply().await?);
        }
        Ok(replies)
    }
}

/// Watches keys, and asks what they hold.
fn looks(keys: &[Vec<u8>]) -> Vec<redis::Cmd> {
    let mut watch = redis::cmd("WATCH");
    watch.arg(keys);
    let mut looks = vec![watch];
    looks.extend(keys.iter().map(|key| {
        let mut kind = redis::cmd("TYPE");
        kind.arg(key);
        kind
    }));
    looks
}

/// The first error among replies, or in the last of them, and where it is.
fn first_error(replies: &[Value]) -> Option<(usize, String)> {
    let find = |replies: &[Value]| {
        let errors = replies.iter().enumerate();
        errors
            .filter_map(|(at, reply)| Some((at, error_text(reply)?)))
            .next()
    };
    find(replies).or_else(|| match replies.last() {
        Some(Value::Array(of_each)) => find(of_each).map(|(at, text)| (at + 1, text)),
        _ => None,
    })
}
