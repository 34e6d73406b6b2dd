//! Where a row goes: to the stream or channel that is the same for all, or to the one
//! that it names.

use super::batch::Batch;
use super::statement::Place;
use crate::error::Result;

/// Which stream or channel a row goes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Named(String),
    /// The one that this column names.
    Column(usize),
}

impl Target {
    /// Which key this makes the commands be about.
    pub fn place(&self) -> Place<'_> {
        match self {
            Self::Named(name) => Place::One(name.as_bytes()),
            Self::Column(_) => Place::ByRow,
        }
    }

    /// What it is for a row: as it lies in the batch, or in `scratch`.
    pub fn of<'a>(&'a self, batch: &'a Batch, row: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::Named(name) => name.as_bytes(),
            Self::Column(column) => batch.column(*column).text(row, scratch),
        }
    }

    /// Whether each row of a batch has one; `expected` is what an error says.
    pub fn check(&self, batch: &Batch, expected: &str) -> Result<()> {
        match self {
            Self::Named(_) => Ok(()),
            Self::Column(column) => batch.check_texts(*column, expected, |_| true),
        }
    }
}
