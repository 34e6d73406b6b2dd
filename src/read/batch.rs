//! A batch that is on its way to the user, and which streams it is of.

use std::collections::HashMap;
use std::sync::Arc;

use crate::decode::Chunk;
use crate::entry_id::EntryId;

/// What a batch has of one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Key of the stream.
    pub stream: Arc<str>,
    /// The entry of its last row; `None` where it has none.
    pub last: Option<EntryId>,
    /// What acknowledging the batch acknowledges: its entries, and those that were
    /// found deleted.
    pub ids: Vec<EntryId>,
}

/// Rows to hand over.
#[derive(Debug, Clone)]
pub struct Batch {
    pub chunks: Vec<Chunk>,
    pub rows: usize,
    /// The entry of the last row.
    pub last: Option<EntryId>,
    /// One a stream, in the order of their first rows.
    pub parts: Vec<Part>,
}

impl Batch {
    /// A batch of chunks, of `stream` where they do not say which they are of; and
    /// of entries that were found deleted, by stream.
    pub fn new(
        chunks: Vec<Chunk>,
        stream: &Arc<str>,
        deleted: Vec<(Arc<str>, Vec<EntryId>)>,
    ) -> Self {
        let mut parts = Parts::default();
        for chunk in &chunks {
            let mut ids = chunk.entry_ids();
            for (key, rows) in chunk.streams() {
                let (of_stream, rest) = ids.split_at(rows.min(ids.len()));
                parts.of(key).add_rows(of_stream);
                ids = rest;
            }
            if !ids.is_empty() {
                parts.of(stream).add_rows(ids);
            }
        }
        for (key, ids) in deleted {
            parts.of(&key).ids.extend(ids);
        }
        let ids = chunks.iter().flat_map(|chunk| chunk.entry_ids());
        Self {
            rows: chunks.iter().map(Chunk::rows).sum(),
            last: ids.last().copied(),
            chunks,
            parts: parts.parts,
        }
    }
}

impl Part {
    fn add_rows(&mut self, ids: &[EntryId]) {
        self.ids.extend_from_slice(ids);
        self.last = ids.last().copied().or(self.last);
    }
}

#[derive(Default)]
struct Parts {
    parts: Vec<Part>,
    /// Where the part of a stream is.
    places: HashMap<Arc<str>, usize>,
}

impl Parts {
    fn of(&mut self, stream: &Arc<str>) -> &mut Part {
        let end = self.parts.len();
        let place = *self.places.entry(stream.clone()).or_insert(end);
        if place == end {
            self.parts.push(Part {
                stream: stream.clone(),
                last: None,
                ids: Vec::new(),
            });
        }
        &mut self.parts[place]
    }
}
