//! What is sent for each row of a frame.

use std::fmt::Debug;

use super::batch::Batch;
use super::hashes::Hashes;
use crate::error::Result;

/// Which key the command of a row is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// The same for all rows.
    One(&'a [u8]),
    /// Each row says it.
    ByRow,
}

/// What is sent for each row of a frame.
pub trait Statement: Debug + Send + Sync {
    /// Which key the commands are about.
    fn place(&self) -> Place<'_>;

    /// The key that a row's commands are about: as it lies in the batch, or in
    /// `scratch`.
    fn key<'a>(&'a self, batch: &'a Batch, row: usize, scratch: &'a mut Vec<u8>) -> &'a [u8];

    /// Adds a row's commands to `out`.
    fn encode(&self, batch: &Batch, row: usize, out: &mut Vec<u8>, scratch: &mut Vec<u8>);

    /// Whether there are rows that cannot be sent.
    fn is_choosy(&self) -> bool;

    /// Whether all rows of a batch can be sent at all.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument), naming the first row that cannot.
    fn check(&self, batch: &Batch) -> Result<()>;

    /// How many commands a row has. If more than one, they are a transaction.
    fn commands(&self) -> usize;

    /// What the rows' keys are called, as in `stream`.
    fn kind(&self) -> &'static str;

    /// The hashes that are written only if their keys are what they should be, if the
    /// rows are that.
    fn guarded(&self) -> Option<&Hashes> {
        None
    }

    /// Whether the reply to a row's command is an entry's ID.
    fn gives_ids(&self) -> bool {
        false
    }
}

/// Adds the header of a command of so many words.
pub fn push_header(words: usize, out: &mut Vec<u8>) {
    push_number(b'*', words, out);
}

/// Adds a word of a command.
#[inline]
pub fn push_word(word: &[u8], out: &mut Vec<u8>) {
    push_number(b'$', word.len(), out);
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

#[inline]
fn push_number(kind: u8, number: usize, out: &mut Vec<u8>) {
    out.push(kind);
    if number < 10 {
        out.push(b'0' + number as u8);
    } else {
        out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// A field's name, ready to send, and where its values are.
#[derive(Debug, Clone)]
pub struct FieldName {
    pub column: usize,
    word: Vec<u8>,
}

impl FieldName {
    /// The field of a column.
    pub fn new(column: usize, name: &str) -> Self {
        let mut word = Vec::new();
        push_word(name.as_bytes(), &mut word);
        Self { column, word }
    }

    /// The fields of columns, by their number and name.
    pub fn all(fields: &[(usize, &str)]) -> Vec<Self> {
        let fields = fields.iter();
        fields
            .map(|&(column, name)| Self::new(column, name))
            .collect()
    }

    /// A field with no column's name: an underscore, or as many as it takes.
    pub fn placeholder(fields: &[(usize, &str)]) -> Self {
        let mut name = String::from("_");
        while fields.iter().any(|(_, taken)| *taken == name) {
            name.push('_');
        }
        Self::new(0, &name)
    }

    /// Adds the name and the value of a row that is not null.
    #[inline]
    pub fn push(&self, batch: &Batch, row: usize, out: &mut Vec<u8>, scratch: &mut Vec<u8>) {
        out.extend_from_slice(&self.word);
        push_word(batch.column(self.column).text(row, scratch), out);
    }

    /// Adds the name and an empty value.
    pub fn push_empty(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.word);
        push_word(b"", out);
    }
}
