//! `HSET`: rows as hashes.

use std::time::Duration;

use super::batch::Batch;
use super::statement::{FieldName, Place, Statement, push_header, push_word};
use crate::error::Result;

/// What becomes of a key that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// The row takes its place.
    Replace,
    /// It gets the row's fields too.
    Append,
    /// It stays as it is.
    Keep,
}

/// Rows as hashes.
#[derive(Debug)]
pub struct Hashes {
    /// The column of the keys.
    key: usize,
    prefix: String,
    fields: Vec<FieldName>,
    /// What a row without a value is written as, since no hash is without fields.
    placeholder: FieldName,
    /// The name and the last word of the command that lets a key expire.
    expiry: Option<(&'static str, String)>,
    if_exists: IfExists,
}

impl Hashes {
    /// Hashes whose fields are these columns, by their number and name, and whose key
    /// is in another one.
    pub fn new(
        key: usize,
        prefix: String,
        fields: &[(usize, &str)],
        time_to_live: Option<Duration>,
        if_exists: IfExists,
    ) -> Self {
        Self {
            key,
            prefix,
            fields: FieldName::all(fields),
            placeholder: FieldName::placeholder(fields),
            expiry: time_to_live.map(|time| match time.subsec_millis() {
                0 => ("EXPIRE", time.as_secs().to_string()),
                _ => ("PEXPIRE", time.as_millis().to_string()),
            }),
            if_exists,
        }
    }

    /// Whether keys have to be looked at first. Of a transaction only what fails is not
    /// done, so that a key that is no hash would be given a time to live.
    fn is_guarded(&self) -> bool {
        match self.if_exists {
            IfExists::Replace => false,
            IfExists::Append => self.expiry.is_some(),
            IfExists::Keep => true,
        }
    }

    /// Whether a key that is there stays as it is.
    pub(super) fn keeps_what_is_there(&self) -> bool {
        self.if_exists == IfExists::Keep
    }

    /// The key of a row.
    pub(super) fn key_of(&self, batch: &Batch, row: usize) -> Vec<u8> {
        let mut scratch = Vec::new();
        self.key(batch, row, &mut scratch).to_vec()
    }

    /// How many commands a row has, without those around a transaction.
    pub(super) fn changes(&self) -> usize {
        let deletes = self.if_exists == IfExists::Replace;
        1 + usize::from(deletes) + usize::from(self.expiry.is_some())
    }

    /// Adds a row's commands, without those around a transaction.
    pub(super) fn push_changes(&self, key: &[u8], batch: &Batch, row: usize, out: &mut Vec<u8>) {
        if self.if_exists == IfExists::Replace {
            push_command(&[b"DEL", key], out);
        }
        self.push_fields(key, batch, row, out);
        if let Some((command, time)) = &self.expiry {
            push_command(&[command.as_bytes(), key, time.as_bytes()], out);
        }
    }

    fn push_fields(&self, key: &[u8], batch: &Batch, row: usize, out: &mut Vec<u8>) {
        let has_value = |field: &&FieldName| !batch.column(field.column).is_null(row);
        let fields = self.fields.iter().filter(has_value).count();
        push_header(2 + 2 * fields.max(1), out);
        push_word(b"HSET", out);
        push_word(key, out);
        let mut scratch = Vec::new();
        for field in self.fields.iter().filter(has_value) {
            field.push(batch, row, out, &mut scratch);
        }
        if fields == 0 {
            self.placeholder.push_empty(out);
        }
    }
}

fn push_command(words: &[&[u8]], out: &mut Vec<u8>) {
    push_header(words.len(), out);
    words.iter().for_each(|word| push_word(word, out));
}

impl Statement for Hashes {
    fn place(&self) -> Place<'_> {
        Place::ByRow
    }

    fn key<'a>(&'a self, batch: &'a Batch, row: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        if self.prefix.is_empty() {
            return batch.column(self.key).text(row, scratch);
        }
        scratch.clear();
        scratch.extend_from_slice(self.prefix.as_bytes());
        let mut text = Vec::new();
        scratch.extend_from_slice(batch.column(self.key).text(row, &mut text));
        scratch
    }

    fn encode(&self, batch: &Batch, row: usize, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        let key = self.key(batch, row, scratch);
        let is_transaction = self.changes() > 1;
        if is_transaction {
            push_command(&[b"MULTI"], out);
        }
        self.push_changes(key, batch, row, out);
        if is_transaction {
            push_command(&[b"EXEC"], out);
        }
    }

    fn is_choosy(&self) -> bool {
        true
    }

    fn check(&self, batch: &Batch) -> Result<()> {
        batch.check_texts(self.key, "key_column: expected a key", |_| true)
    }

    fn commands(&self) -> usize {
        match self.changes() {
            1 if !self.is_guarded() => 1,
            changes => changes + 2,
        }
    }

    fn guarded(&self) -> Option<&Hashes> {
        self.is_guarded().then_some(self)
    }

    fn kind(&self) -> &'static str {
        "key"
    }
}
