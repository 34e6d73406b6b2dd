//! What became of each row.

use polars_arrow::array::{ArrayRef, PrimitiveArray};
use polars_arrow::bitmap::{Bitmap, MutableBitmap};
use polars_arrow::datatypes::ArrowDataType;

use crate::decode::Views;

/// Entry IDs of one chunk of the column of them.
const CHUNK: usize = 1 << 16;

/// What is known of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowFate {
    /// The server has said that it was written.
    Written,
    /// It was not written: the server refused it, or it was not sent.
    Failed,
    /// It was sent, and no reply came.
    Unsure,
    /// It was not to be written, as its key was there.
    Kept,
}

/// What became of the rows so far.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How many rows there are, as far as that is known.
    rows: u64,
    /// How many of them were written.
    count: u64,
    written: MutableBitmap,
    /// Rows that were sent, and whose reply did not come. In no order.
    unsure: Vec<u64>,
    /// Rows that were not to be written, as their keys were there. In no order.
    kept: Vec<u64>,
    ids: Option<Ids>,
}

impl Outcome {
    /// Of no rows yet; whether each of them will have an entry's ID.
    pub fn new(gives_ids: bool) -> Self {
        Self {
            ids: gives_ids.then(Ids::default),
            ..Self::default()
        }
    }

    /// There are rows up to this one, which is not one of them.
    pub fn extend_to(&mut self, rows: u64) {
        let more = usize::try_from(rows.saturating_sub(self.rows)).unwrap_or(usize::MAX);
        self.written.extend_constant(more, false);
        self.rows = self.rows.max(rows);
        if let Some(ids) = &mut self.ids {
            ids.extend_to(self.written.len());
        }
    }

    /// A row was written, and what the server calls it.
    #[inline]
    pub fn is_written(&mut self, row: u64, id: &[u8]) {
        let at = row as usize;
        if at >= self.written.len() {
            return;
        }
        self.written.set(at, true);
        self.count += 1;
        if let Some(ids) = &mut self.ids {
            ids.set(at, id);
        }
    }

    /// A row was sent, and its reply will not come.
    pub fn is_unsure(&mut self, row: u64) {
        self.unsure.push(row);
    }

    /// These rows are not to be written, as their keys are there.
    pub fn are_kept(&mut self, rows: impl IntoIterator<Item = u64>) {
        self.kept.extend(rows);
    }

    /// How many were not to be written, as their keys were there.
    pub fn kept(&self) -> u64 {
        self.kept.len() as u64
    }

    /// How many rows there are, as far as that is known.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many were written.
    pub fn written(&self) -> u64 {
        self.count
    }

    /// How many were sent, with no reply.
    pub fn unsure(&self) -> u64 {
        self.unsure.len() as u64
    }

    /// How many were not written.
    pub fn failed(&self) -> u64 {
        let others = self.written() + self.unsure() + self.kept();
        self.rows.saturating_sub(others)
    }

    /// The numbers of the rows of a fate, in order.
    pub fn rows_of(&self, fate: RowFate) -> ArrayRef {
        let rows: Vec<u64> = match fate {
            RowFate::Unsure => in_order(&self.unsure),
            RowFate::Kept => in_order(&self.kept),
            RowFate::Written => (0..)
                .zip(self.written.iter())
                .filter_map(|(row, is_written)| is_written.then_some(row))
                .collect(),
            RowFate::Failed => {
                let others = in_order(&[&self.unsure[..], &self.kept].concat());
                (0..)
                    .zip(self.written.iter())
                    .filter_map(|(row, is_written)| (!is_written).then_some(row))
                    .filter(|row| others.binary_search(row).is_err())
                    .collect()
            }
        };
        PrimitiveArray::new(ArrowDataType::UInt64, rows.into(), None).boxed()
    }

    /// The IDs of all rows, null where one was not written; they are handed over
    /// once.
    pub fn take_ids(&mut self) -> Vec<ArrayRef> {
        let written: Bitmap = self.written.clone().into();
        let ids = self.ids.as_mut().map(std::mem::take).unwrap_or_default();
        ids.finish(&written)
    }
}

fn in_order(rows: &[u64]) -> Vec<u64> {
    let mut rows = rows.to_vec();
    rows.sort_unstable();
    rows
}

/// A column of entry IDs that are set in any order.
#[derive(Debug, Default)]
struct Ids {
    rows: usize,
    /// Each of [`CHUNK`] rows, but for the last.
    chunks: Vec<Views>,
}

impl Ids {
    fn extend_to(&mut self, rows: usize) {
        while self.rows < rows {
            if self.rows == self.chunks.len() * CHUNK {
                self.chunks.push(Views::default());
            }
            let end = rows.min(self.chunks.len() * CHUNK);
            if let Some(last) = self.chunks.last_mut() {
                last.extend_empty(end - self.rows);
            }
            self.rows = end;
        }
    }

    #[inline]
    fn set(&mut self, row: usize, id: &[u8]) {
        if let Some(chunk) = self.chunks.get_mut(row / CHUNK) {
            chunk.replace(row % CHUNK, id);
        }
    }

    fn finish(mut self, written: &Bitmap) -> Vec<ArrayRef> {
        if self.chunks.is_empty() {
            self.chunks.push(Views::default());
        }
        let mut begin = 0;
        let finish = |views: Views| {
            let validity = written.clone().sliced(begin, views.len());
            begin += views.len();
            let validity = (validity.unset_bits() > 0).then_some(validity);
            // SAFETY: IDs were looked at when they came: they are ASCII.
            unsafe { views.finish::<str>(validity) }.boxed()
        };
        self.chunks.into_iter().map(finish).collect()
    }
}

#[cfg(test)]
mod tests {
    use polars_arrow::array::Utf8ViewArray;

    use super::*;

    #[test]
    fn fates_and_ids_are_by_row_in_whatever_order_they_come() {
        let mut outcome = Outcome::new(true);
        outcome.extend_to(3);
        outcome.extend_to(CHUNK as u64 + 5);
        outcome.is_written(CHUNK as u64, b"1704067200000-1");
        outcome.is_written(0, b"1704067200000-0");
        outcome.is_unsure(2);
        outcome.is_unsure(1);
        outcome.are_kept([4, 3]);
        assert_eq!((outcome.written(), outcome.unsure()), (2, 2));
        assert_eq!((outcome.kept(), outcome.failed()), (2, CHUNK as u64 - 1));
        let rows = |fate| format!("{:?}", outcome.rows_of(fate));
        assert_eq!(rows(RowFate::Unsure), "UInt64[1, 2]");
        assert_eq!(rows(RowFate::Kept), "UInt64[3, 4]");
        assert_eq!(rows(RowFate::Written), "UInt64[0, 65536]");
        assert_eq!(outcome.rows_of(RowFate::Failed).len(), CHUNK - 1);
        let chunks = outcome.take_ids();
        assert_eq!(chunks.len(), 2);
        let first: &Utf8ViewArray = chunks[0].as_any().downcast_ref().unwrap();
        let second: &Utf8ViewArray = chunks[1].as_any().downcast_ref().unwrap();
        assert_eq!((first.len(), second.len()), (CHUNK, 5));
        assert_eq!(first.get(0), Some("1704067200000-0"));
        assert_eq!((first.get(1), second.get(1)), (None, None));
        assert_eq!(second.get(0), Some("1704067200000-1"));
    }
}
