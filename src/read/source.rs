//! What tails and groups have in common.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Due;
use super::batch::Part;
use super::group::{Group, Groups};
use super::link::Link;
use super::tail::Tail;
use super::tails::Tails;
use crate::decode::{Chunk, Decoder};
use crate::entry_id::EntryId;
use crate::error::Result;

/// Entries that a server on the same machine sends in a moment.
const SHORT: usize = 200;

/// What a reader asks of its source.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Rows that are missing of the next batch; at least 1.
    pub wanted: usize,
    /// Rows that will be wanted at all, if that is limited.
    pub limit: Option<usize>,
    /// How long to wait for a first one.
    pub wait: Duration,
}

impl Ask {
    /// How long the server should block, if at all.
    pub fn block(self) -> Option<Duration> {
        (self.wait > Duration::ZERO).then_some(self.wait)
    }
}

/// How a step ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulled {
    /// There may be more.
    Some,
    /// There is nothing now.
    Nothing,
    /// There will never be anything.
    Ended,
}

/// A command whose reply is due.
#[derive(Debug)]
pub struct Request {
    /// The most entries that the reply may have.
    pub count: usize,
    /// How long the server may block.
    pub block: Option<Duration>,
    /// When it was sent.
    pub sent: Instant,
}

impl Request {
    pub fn new(count: usize, block: Option<Duration>) -> Self {
        Self {
            count,
            block,
            sent: Instant::now(),
        }
    }

    /// When its reply may be due.
    pub fn due(&self) -> Due {
        match self.block {
            Some(block) => Due::AfterBlock(block),
            None if self.count <= SHORT => Due::Soon,
            None => Due::InTime,
        }
    }
}

/// Rows that are here and were not handed over, in order.
#[derive(Debug, Default)]
pub struct Rows {
    chunks: VecDeque<Chunk>,
    len: usize,
}

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The entries that they are of.
    pub fn entry_ids(&self) -> impl Iterator<Item = EntryId> {
        let ids = self.chunks.iter().flat_map(|chunk| chunk.entry_ids());
        ids.copied()
    }

    /// The streams that they are of, each with how many there are; one may come more
    /// than once.
    pub fn streams(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.chunks.iter().flat_map(Chunk::streams)
    }

    /// Adds rows behind those that are here.
    pub fn push(&mut self, chunk: Chunk) {
        self.len += chunk.rows();
        self.chunks.push_back(chunk);
    }

    /// Takes the first `rows` rows, or all if there are fewer.
    pub fn take(&mut self, rows: usize) -> Vec<Chunk> {
        let mut taken = Vec::new();
        let mut left = rows.min(self.len);
        self.len -= left;
        while left > 0 {
            let Some(mut chunk) = self.chunks.pop_front() else {
                break;
            };
            if chunk.rows() > left {
                taken.push(chunk.split_front(left));
                self.chunks.push_front(chunk);
                break;
            }
            left -= chunk.rows();
            taken.push(chunk);
        }
        taken
    }
}

/// Where a reader's entries come from.
#[derive(Debug)]
pub enum Source {
    Tail(Box<Tail>),
    Tails(Box<Tails>),
    Group(Box<Group>),
    Groups(Box<Groups>),
}

/// Calls the same method of whichever source it is.
macro_rules! delegate {
    ($on:expr, $source:ident => $call:expr) => {
        match $on {
            Source::Tail($source) => $call,
            Source::Tails($source) => $call,
            Source::Group($source) => $call,
            Source::Groups($source) => $call,
        }
    };
}

impl Source {
    /// Whether it is of several streams.
    pub fn is_of_several(&self) -> bool {
        matches!(self, Self::Tails(_) | Self::Groups(_))
    }

    /// The name of the group that is read, if one is.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Tail(_) | Self::Tails(_) => None,
            Self::Group(group) => Some(group.group_name()),
            Self::Groups(groups) => groups.group_name(),
        }
    }

    /// The same source in parts, by what the keys of its streams have in common, each
    /// with the key of one of its streams; none where that is the same of all. Nothing
    /// may be under way.
    pub fn deal_out<K: Ord>(&mut self, by: impl Fn(&str) -> K) -> Vec<(Arc<str>, Self)> {
        match self {
            Self::Tail(_) | Self::Group(_) => Vec::new(),
            Self::Tails(tails) => {
                let parts = tails.deal_out(by).into_iter();
                parts
                    .map(|(key, part)| (key, Self::Tails(Box::new(part))))
                    .collect()
            }
            Self::Groups(groups) => {
                let parts = groups.deal_out(by).into_iter();
                parts
                    .map(|(key, part)| (key, Self::Groups(Box::new(part))))
                    .collect()
            }
        }
    }

    /// What is still to be acknowledged, which others do then.
    pub fn take_unconfirmed(&mut self) -> Vec<Part> {
        match self {
            Self::Tail(_) | Self::Tails(_) | Self::Group(_) => Vec::new(),
            Self::Groups(groups) => groups.take_unconfirmed(),
        }
    }

    /// Connects, and finds out where to begin.
    pub async fn open(&mut self, link: &mut Link) -> Result<()> {
        delegate!(self, source => source.open(link).await)
    }

    /// Takes one step towards the rows asked for. May be cancelled, and goes on
    /// there when it is called again.
    pub async fn pull(
        &mut self,
        link: &mut Link,
        decoder: &mut Decoder,
        ask: Ask,
    ) -> Result<Pulled> {
        delegate!(self, source => source.pull(link, decoder, ask).await)
    }

    /// What was under way failed, or nobody waits for it any more.
    pub fn lost(&mut self, link: &mut Link, decoder: &mut Decoder) {
        delegate!(self, source => source.lost(link, decoder));
    }

    /// The server has not done what was asked, as the stream is elsewhere for now.
    pub fn refused(&mut self, link: &mut Link, decoder: &mut Decoder) {
        delegate!(self, source => source.refused(link, decoder));
    }

    /// The rows that are here. No reply may have come in part.
    pub fn rows(&mut self, decoder: &Decoder) -> &mut Rows {
        delegate!(self, source => source.rows(decoder))
    }

    /// How many rows are here.
    pub fn row_count(&self) -> usize {
        delegate!(self, source => source.row_count())
    }

    /// Whether no rows are under construction.
    pub fn builds_nothing(&self) -> bool {
        delegate!(self, source => source.builds_nothing())
    }

    /// Whether a reply has come in part, or may have.
    pub fn is_in_reply(&self) -> bool {
        delegate!(self, source => source.is_in_reply())
    }

    /// Whether all that was there has been read, as far as one can know.
    pub fn is_caught_up(&self) -> bool {
        delegate!(self, source => source.is_caught_up())
    }

    /// Whether replies are due.
    pub fn is_waiting(&self) -> bool {
        delegate!(self, source => source.is_waiting())
    }

    /// Whether batches are acknowledged before they are handed over.
    pub fn acknowledges(&self) -> bool {
        match self {
            Self::Tail(_) | Self::Tails(_) => false,
            Self::Group(group) => group.acknowledges(),
            Self::Groups(groups) => groups.acknowledges(),
        }
    }

    /// Acknowledges the entries of a batch.
    pub async fn acknowledge(&mut self, link: &mut Link, parts: &[Part]) -> Result<()> {
        match self {
            Self::Tail(_) | Self::Tails(_) => Ok(()),
            Self::Group(group) => group.acknowledge_batch(link, parts).await,
            Self::Groups(groups) => groups.acknowledge_batch(link, parts).await,
        }
    }

    /// Acknowledges them some time later, as it could not be done now.
    pub fn acknowledge_later(&mut self, parts: &[Part]) {
        match self {
            Self::Tail(_) | Self::Tails(_) => {}
            Self::Group(group) => group.acknowledge_later(parts),
            Self::Groups(groups) => groups.acknowledge_later(parts),
        }
    }

    /// Whether entries are still to be acknowledged that could not be before.
    pub fn owes_acknowledgement(&self) -> bool {
        match self {
            Self::Tail(_) | Self::Tails(_) => false,
            Self::Group(group) => group.owes_acknowledgement(),
            Self::Groups(groups) => groups.owes_acknowledgement(),
        }
    }

    /// Acknowledges them.
    pub async fn pay_acknowledgement(&mut self, link: &mut Link) -> Result<()> {
        match self {
            Self::Tail(_) | Self::Tails(_) => Ok(()),
            Self::Group(group) => group.pay_acknowledgement(link).await,
            Self::Groups(groups) => groups.pay_acknowledgement(link).await,
        }
    }

    /// Does not.
    pub fn forget_acknowledgement(&mut self) {
        match self {
            Self::Tail(_) | Self::Tails(_) => {}
            Self::Group(group) => group.forget_acknowledgement(),
            Self::Groups(groups) => groups.forget_acknowledgement(),
        }
    }

    /// Entries that were found deleted since this was last asked, by stream.
    pub fn take_deleted(&mut self) -> Vec<(Arc<str>, Vec<EntryId>)> {
        match self {
            Self::Tail(_) | Self::Tails(_) => Vec::new(),
            Self::Group(group) => group.take_deleted().into_iter().collect(),
            Self::Groups(groups) => groups.take_deleted(),
        }
    }

    /// How many entries were taken over from other consumers.
    pub fn claimed(&self) -> u64 {
        match self {
            Self::Tail(_) | Self::Tails(_) => 0,
            Self::Group(group) => group.claimed(),
            Self::Groups(groups) => groups.claimed(),
        }
    }
}
