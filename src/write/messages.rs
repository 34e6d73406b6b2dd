//! `PUBLISH`: rows as messages, each an object of JSON.

use super::batch::Batch;
use super::json;
use super::statement::{Place, Statement, push_header, push_word};
use super::target::Target;
use crate::error::Result;

/// How far a message goes in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To whoever listens on any server.
    Everywhere,
    /// To whoever listens on the servers that have the channel's slot.
    Shard,
}

/// Rows as messages.
#[derive(Debug)]
pub struct Messages {
    channel: Target,
    reach: Reach,
    /// The columns of the messages' members, with their names.
    members: Vec<(usize, String)>,
}

impl Messages {
    /// Messages of these columns, by their number and name.
    pub fn new(channel: Target, reach: Reach, members: &[(usize, &str)]) -> Self {
        let members = members.iter().map(|&(at, name)| (at, name.to_owned()));
        Self {
            channel,
            reach,
            members: members.collect(),
        }
    }
}

impl Statement for Messages {
    fn place(&self) -> Place<'_> {
        match self.reach {
            // Any server will do.
            Reach::Everywhere => Place::One(b""),
            Reach::Shard => self.channel.place(),
        }
    }

    fn key<'a>(&'a self, batch: &'a Batch, row: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self.channel.of(batch, row, scratch)
    }

    fn encode(&self, batch: &Batch, row: usize, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        push_header(3, out);
        push_word(
            match self.reach {
                Reach::Everywhere => b"PUBLISH",
                Reach::Shard => b"SPUBLISH",
            },
            out,
        );
        push_word(self.key(batch, row, scratch), out);
        scratch.clear();
        json::write_object(&self.members, batch, row, scratch);
        push_word(scratch, out);
    }

    fn is_choosy(&self) -> bool {
        self.channel.place() == Place::ByRow
    }

    fn check(&self, batch: &Batch) -> Result<()> {
        let expected = "channel_column: expected a channel";
        self.channel.check(batch, expected)
    }

    fn commands(&self) -> usize {
        1
    }

    fn kind(&self) -> &'static str {
        "channel"
    }
}
