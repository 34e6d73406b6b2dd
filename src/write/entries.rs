//! `XADD`: rows as entries of streams.

use super::batch::Batch;
use super::statement::{FieldName, Place, Statement, push_header, push_word};
use super::target::Target;
use crate::entry_id::EntryId;
use crate::error::Result;

/// What becomes of a null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nulls {
    /// The entry lacks the field.
    Skip,
    /// The field is an empty text.
    Empty,
}

/// Which entries go when others come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trim {
    /// All but the newest so many.
    MaxLen(u64),
    /// Those before an ID.
    MinId(EntryId),
}

/// Rows as entries of streams.
#[derive(Debug)]
pub struct Entries {
    target: Target,
    /// The column of the entries' IDs; without one the server makes them.
    id: Option<usize>,
    fields: Vec<FieldName>,
    nulls: Nulls,
    /// What a row without a value is written as, since no entry is without fields.
    placeholder: FieldName,
    /// The words of `XADD` between the key and the ID, and how many they are.
    options: (usize, Vec<u8>),
}

impl Entries {
    /// Entries whose fields are these columns, by their number and name.
    pub fn new(target: Target, id: Option<usize>, fields: &[(usize, &str)], nulls: Nulls) -> Self {
        Self {
            target,
            id,
            fields: FieldName::all(fields),
            nulls,
            placeholder: FieldName::placeholder(fields),
            options: (0, Vec::new()),
        }
    }

    /// Trims the streams too: to the letter, or as far as costs nothing.
    #[must_use]
    pub fn trimmed(mut self, trim: Trim, is_approximate: bool) -> Self {
        let (word, threshold) = match trim {
            Trim::MaxLen(len) => ("MAXLEN", len.to_string()),
            Trim::MinId(id) => ("MINID", id.to_string()),
        };
        let sign = if is_approximate { "~" } else { "=" };
        let mut words = Vec::new();
        for word in [word, sign, threshold.as_str()] {
            push_word(word.as_bytes(), &mut words);
        }
        self.options = (3, words);
        self
    }

    fn has_field(&self, field: &FieldName, batch: &Batch, row: usize) -> bool {
        self.nulls == Nulls::Empty || !batch.column(field.column).is_null(row)
    }
}

impl Statement for Entries {
    fn place(&self) -> Place<'_> {
        self.target.place()
    }

    fn key<'a>(&'a self, batch: &'a Batch, row: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        self.target.of(batch, row, scratch)
    }

    fn encode(&self, batch: &Batch, row: usize, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        let has_field = |field: &&FieldName| self.has_field(field, batch, row);
        let fields = self.fields.iter().filter(has_field).count();
        let (options, words) = &self.options;
        push_header(3 + options + 2 * fields.max(1), out);
        push_word(b"XADD", out);
        push_word(self.key(batch, row, scratch), out);
        out.extend_from_slice(words);
        match self.id {
            None => push_word(b"*", out),
            Some(column) => push_word(batch.column(column).text(row, scratch), out),
        }
        for field in &self.fields {
            if !batch.column(field.column).is_null(row) {
                field.push(batch, row, out, scratch);
            } else if self.nulls == Nulls::Empty {
                field.push_empty(out);
            }
        }
        if fields == 0 {
            self.placeholder.push_empty(out);
        }
    }

    fn is_choosy(&self) -> bool {
        self.id.is_some() || self.place() == Place::ByRow
    }

    fn check(&self, batch: &Batch) -> Result<()> {
        let expected = "stream_column: expected the key of a stream";
        self.target.check(batch, expected)?;
        match self.id {
            None => Ok(()),
            Some(column) => batch.check_texts(column, "id_column: expected an entry ID", |text| {
                EntryId::from_reply(text).is_some_and(|id| id > EntryId::MIN)
            }),
        }
    }

    fn commands(&self) -> usize {
        1
    }

    fn kind(&self) -> &'static str {
        "stream"
    }

    fn gives_ids(&self) -> bool {
        true
    }
}
