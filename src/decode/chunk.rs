//! Columns of a run of consecutive entries.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use polars_arrow::array::{Array, ArrayRef, PrimitiveArray};
use polars_arrow::bitmap::MutableBitmap;
use polars_arrow::compute::concatenate::concatenate;
use polars_arrow::datatypes::ArrowDataType;

use super::column::Column;
use super::dtype::FieldType;
use super::names::Names;
use super::plan::{Fields, Plan};
use super::views::Views;
use crate::entry_id::EntryId;

/// Values that room is set aside for, of all columns together.
const MAX_ROOM: usize = 8 << 20;
/// Discovered columns that room is set aside for.
const MAX_ROOMY_COLUMNS: usize = 64;

/// Chunks that are few, whatever their size; rows of one that is small; and of one
/// that small ones are joined to.
const FEW_CHUNKS: usize = 4;
const SMALL_CHUNK: usize = 4096;
const JOINED_ROWS: usize = 65_536;

/// Rows under construction: what a [`Decoder`](super::Decoder) writes to.
///
/// A row is begun by its entry ID, given its values, and then committed; until
/// then it can be abandoned, and it is not counted.
#[derive(Debug)]
pub struct ChunkBuilder {
    rows: usize,
    /// Rows that there is room for from the start.
    room: usize,
    /// The rows' IDs, where they are kept beside the columns.
    entry_ids: Option<Vec<EntryId>>,
    keys: Keys,
    id: Option<Views>,
    timestamp: Option<Numbers>,
    sequence: Option<Numbers>,
    columns: Vec<Column>,
    /// The dtype of columns that are discovered.
    discovered: FieldType,
    appeared: Appeared,
}

/// Columns that have a value in a chunk, in the order in which they first had
/// one, each with the row that had it.
type Appeared = Vec<(usize, usize)>;

/// Part of an entry ID that a column of Int64 cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IdPart {
    Timestamp,
    Sequence,
}

impl ChunkBuilder {
    /// A builder without rows, with room for about `room` of them: memory that
    /// is set aside, and used only as rows come.
    pub fn with_room(plan: &Plan, room: usize) -> Self {
        let wide = match plan.fields() {
            Fields::Schema(fields) => fields.len(),
            Fields::Discover => MAX_ROOMY_COLUMNS,
        };
        let room = room.min(MAX_ROOM / wide.max(1));
        let columns = match plan.fields() {
            Fields::Schema(fields) => fields
                .iter()
                .map(|field| Column::with_room(&field.dtype, room))
                .collect(),
            Fields::Discover => Vec::new(),
        };
        let ids = plan.ids();
        Self {
            rows: 0,
            room,
            entry_ids: plan.keeps_entry_ids().then(|| Vec::with_capacity(room)),
            keys: Keys::default(),
            id: ids.id.as_ref().map(|_| Views::with_room(room)),
            timestamp: ids.timestamp.as_ref().map(|_| Numbers::with_room(room)),
            sequence: ids.sequence.as_ref().map(|_| Numbers::with_room(room)),
            columns,
            discovered: plan.discovered().clone(),
            appeared: Vec::new(),
        }
    }

    /// Makes room for long values too, as much as they took in another chunk.
    pub fn make_room_like(&mut self, other: &Self) {
        if let (Some(views), Some(other)) = (&mut self.id, &other.id) {
            views.make_room_like(other);
        }
        for (column, other) in self.columns.iter_mut().zip(&other.columns) {
            column.make_room_like(other);
        }
    }

    /// The rows' entry IDs, where the plan keeps them.
    pub fn entry_ids(&self) -> &[EntryId] {
        self.entry_ids.as_deref().unwrap_or_default()
    }

    /// Rows committed so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The rows that follow are of the stream with this key. No row may be begun.
    pub fn begin_stream(&mut self, key: &Arc<str>) {
        self.keys.begin(key, self.rows);
    }

    /// Begins a row. `text` is the ID as the server wrote it. A part of the ID
    /// that no Int64 holds is null, and reported.
    #[inline]
    pub(super) fn begin_row(&mut self, id: EntryId, text: &[u8]) -> Result<(), IdPart> {
        if let Some(views) = &mut self.id {
            views.push(text);
        }
        let mut result = Ok(());
        if let Some(numbers) = &mut self.timestamp
            && !numbers.push(id.ms)
        {
            result = Err(IdPart::Timestamp);
        }
        if let Some(numbers) = &mut self.sequence
            && !numbers.push(id.seq)
        {
            result = Err(IdPart::Sequence);
        }
        result
    }

    /// Sets a value of the row begun; whether the text fitted.
    #[inline]
    pub(super) fn set(&mut self, column: usize, text: &[u8]) -> bool {
        if column >= self.columns.len() {
            // What the first entry has, most have; what comes later may be rare.
            let is_common = self.rows == 0 && column < MAX_ROOMY_COLUMNS;
            let room = if is_common { self.room } else { 0 };
            self.columns
                .resize_with(column + 1, || Column::with_room(&self.discovered, room));
        }
        let values = &mut self.columns[column];
        if values.is_untouched() {
            self.appeared.push((column, self.rows));
        }
        values.set(self.rows, text)
    }

    /// Keeps the row begun.
    #[inline]
    pub(super) fn commit_row(&mut self, id: EntryId) {
        if let Some(ids) = &mut self.entry_ids {
            ids.push(id);
        }
        self.rows += 1;
    }

    /// Takes back what was written of the row begun.
    pub(super) fn abandon_row(&mut self) {
        let rows = self.rows;
        if let Some(views) = &mut self.id {
            views.truncate(rows);
        }
        for values in [&mut self.timestamp, &mut self.sequence]
            .into_iter()
            .flatten()
        {
            values.truncate(rows);
        }
        for column in &mut self.columns {
            column.truncate(rows);
        }
        let columns = &mut self.columns;
        self.appeared.retain(|&(column, row)| {
            if row >= rows {
                columns[column].truncate(0);
            }
            row < rows
        });
    }

    /// The finished columns.
    pub fn finish(self) -> Chunk {
        let rows = self.rows;
        let mut ids: Vec<ArrayRef> = Vec::new();
        if let Some(views) = self.id {
            // SAFETY: an ID was parsed as digits and a dash, so it is ASCII.
            ids.push(unsafe { views.finish::<str>(None) }.boxed());
        }
        for values in [self.timestamp, self.sequence].into_iter().flatten() {
            ids.push(values.finish());
        }
        Chunk {
            rows,
            entry_ids: self.entry_ids.unwrap_or_default(),
            keys: self.keys,
            deliveries: None,
            ids,
            fields: self.columns.into_iter().map(|c| c.finish(rows)).collect(),
            appeared: self.appeared,
            named: Vec::new(),
        }
    }
}

/// Which rows are of which stream.
#[derive(Debug, Clone, Default)]
struct Keys {
    /// Each stream's key, with its first row, in the order of the rows.
    begun: Vec<(Arc<str>, usize)>,
}

impl Keys {
    fn begin(&mut self, key: &Arc<str>, row: usize) {
        match self.begun.last_mut() {
            Some((last, _)) if last == key => {}
            // Of that one there is no row.
            Some((last, first)) if *first == row => *last = key.clone(),
            _ => self.begun.push((key.clone(), row)),
        }
    }

    fn runs(&self, rows: usize) -> impl Iterator<Item = (&Arc<str>, usize)> {
        let ends = self.begun.iter().skip(1).map(|(_, first)| *first);
        let ends = ends.chain(std::iter::once(rows));
        let runs = self.begun.iter().zip(ends);
        runs.map(|((key, first), end)| (key, end - first))
    }

    fn truncate(&mut self, rows: usize) {
        self.begun.retain(|&(_, first)| first < rows);
    }

    fn drop_front(&mut self, rows: usize) {
        let before = self.begun.partition_point(|&(_, first)| first <= rows);
        self.begun.drain(..before.saturating_sub(1));
        for (_, first) in &mut self.begun {
            *first = first.saturating_sub(rows);
        }
    }
}

/// Parts of IDs as Int64, one a row.
#[derive(Debug)]
struct Numbers {
    values: Vec<i64>,
    /// Rows whose number is too large: hardly ever any.
    null: Vec<usize>,
}

impl Numbers {
    fn with_room(rows: usize) -> Self {
        Self {
            values: Vec::with_capacity(rows),
            null: Vec::new(),
        }
    }

    /// Adds a number; whether it fitted.
    #[inline]
    fn push(&mut self, number: u64) -> bool {
        let value = i64::try_from(number);
        if value.is_err() {
            self.null.push(self.values.len());
        }
        self.values.push(value.unwrap_or_default());
        value.is_ok()
    }

    fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
        self.null.retain(|&row| row < len);
    }

    fn finish(self) -> ArrayRef {
        let validity = (!self.null.is_empty()).then(|| {
            let mut bits = MutableBitmap::from_len_set(self.values.len());
            for row in self.null {
                bits.set(row, false);
            }
            bits.into()
        });
        PrimitiveArray::new(ArrowDataType::Int64, self.values.into(), validity).boxed()
    }
}

/// The columns of a run of consecutive entries.
#[derive(Debug, Clone)]
pub struct Chunk {
    rows: usize,
    /// One a row, or none at all where the plan does not keep them.
    entry_ids: Vec<EntryId>,
    keys: Keys,
    deliveries: Option<ArrayRef>,
    ids: Vec<ArrayRef>,
    fields: Vec<ArrayRef>,
    appeared: Appeared,
    /// The discovered columns by name, in the order of `appeared`, once they
    /// were [named](Self::name_columns).
    named: Vec<(Arc<str>, usize)>,
}

impl Chunk {
    /// How many entries it holds.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Keeps the first `rows` rows only.
    pub fn truncate(&mut self, rows: usize) {
        if rows < self.rows {
            self.rows = rows;
            self.entry_ids.truncate(rows);
            self.keys.truncate(rows);
            self.appeared.retain(|&(_, row)| row < rows);
            for array in self.arrays_mut() {
                array.slice(0, rows);
            }
            self.keep_names();
        }
    }

    /// After `appeared` changed: the names of what is still there.
    fn keep_names(&mut self) {
        if !self.named.is_empty() {
            let names = std::mem::take(&mut self.named).into_iter();
            let names: HashMap<_, _> = names.map(|(name, column)| (column, name)).collect();
            let appeared = self.appeared.iter();
            self.named = appeared
                .filter_map(|&(column, _)| Some((names.get(&column)?.clone(), column)))
                .collect();
        }
    }

    /// Takes the first `rows` rows off, or all if there are fewer. Nothing is
    /// copied: both parts share their buffers.
    pub fn split_front(&mut self, rows: usize) -> Self {
        let mut front = self.clone();
        if rows >= self.rows {
            self.truncate(0);
            return front;
        }
        front.truncate(rows);
        self.rows -= rows;
        self.entry_ids.drain(..rows.min(self.entry_ids.len()));
        self.keys.drop_front(rows);
        let left = self.rows;
        for array in self.arrays_mut() {
            array.slice(rows, left);
        }
        // Which columns have values in what is left. They stay in the order in
        // which they first appeared, where that cannot be told from the rows.
        let fields = &self.fields;
        self.appeared = std::mem::take(&mut self.appeared)
            .into_iter()
            .filter_map(|(column, _)| Some((column, first_value(&*fields[column])?)))
            .collect();
        self.appeared.sort_by_key(|&(_, row)| row);
        self.keep_names();
        front
    }

    /// The rows' entry IDs, where the plan keeps them.
    pub fn entry_ids(&self) -> &[EntryId] {
        &self.entry_ids
    }

    /// The streams that the rows are of, each with how many there are, in the order
    /// of the rows; nothing where the builder was not told.
    pub fn streams(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.keys.runs(self.rows)
    }

    /// All rows are of the stream with this key.
    pub fn set_stream(&mut self, key: &Arc<str>) {
        self.keys = Keys::default();
        self.keys.begin(key, 0);
    }

    /// The column of keys.
    fn keys(&self) -> ArrayRef {
        let mut views = Views::with_room(self.rows);
        for (key, rows) in self.streams() {
            views.push_times(key.as_bytes(), rows);
        }
        // SAFETY: a key is a `str`.
        unsafe { views.finish::<str>(None) }.boxed()
    }

    /// Says how often each entry has been delivered, by its ID.
    pub fn set_deliveries(&mut self, deliveries: impl Fn(EntryId) -> i64) {
        let values: Vec<i64> = self.entry_ids.iter().map(|&id| deliveries(id)).collect();
        self.deliveries =
            Some(PrimitiveArray::new(ArrowDataType::Int64, values.into(), None).boxed());
    }

    fn arrays_mut(&mut self) -> impl Iterator<Item = &mut ArrayRef> {
        let ids = self.ids.iter_mut().chain(&mut self.deliveries);
        ids.chain(&mut self.fields)
    }

    /// The column of delivery counts: of what nobody counted, this is the first.
    fn deliveries(&self) -> ArrayRef {
        self.deliveries.clone().unwrap_or_else(|| {
            PrimitiveArray::new(ArrowDataType::Int64, vec![1i64; self.rows].into(), None).boxed()
        })
    }

    /// Gives the discovered columns that have values their names, for good.
    pub fn name_columns(&mut self, names: &Names) {
        if self.named.is_empty() {
            let appeared = self.appeared.iter();
            self.named = appeared
                .map(|&(column, _)| (names.name(column).clone(), column))
                .collect();
        }
    }

    /// A discovered column, all null if no entry here has the field.
    fn field_or_null(&self, at: Option<usize>, dtype: &FieldType) -> ArrayRef {
        match at {
            Some(at) => self.fields[at].clone(),
            None => Column::with_room(dtype, 0).finish(self.rows),
        }
    }
}

/// A frame's columns: a name, a dtype, and an array a chunk.
#[derive(Debug, Clone)]
pub struct Table {
    /// Rows of all chunks together.
    pub rows: usize,
    /// Columns in the order of the contract: ids, then fields.
    pub columns: Vec<TableColumn>,
}

/// One column of a [`Table`].
#[derive(Debug, Clone)]
pub struct TableColumn {
    pub name: String,
    pub dtype: FieldType,
    /// At least one array, so that an empty column has its dtype.
    pub chunks: Vec<ArrayRef>,
}

impl Table {
    /// Puts chunks, given in the order of their entries, one below the other.
    pub fn new(plan: &Arc<Plan>, names: &Names, mut chunks: Vec<Chunk>) -> Self {
        if chunks.is_empty() {
            chunks.push(ChunkBuilder::with_room(plan, 0).finish());
        }
        let rows = chunks.iter().map(Chunk::rows).sum();
        let ids = plan.ids();
        let id_columns = [
            (&ids.id, FieldType::String),
            (&ids.timestamp, FieldType::Int64),
            (&ids.sequence, FieldType::Int64),
        ];
        let mut columns = Vec::new();
        if let Some(name) = &ids.key {
            columns.push(TableColumn {
                name: name.clone(),
                dtype: FieldType::String,
                chunks: chunks.iter().map(Chunk::keys).collect(),
            });
        }
        let mut at = 0;
        for (name, dtype) in id_columns {
            let Some(name) = name else { continue };
            columns.push(TableColumn {
                name: name.clone(),
                dtype,
                chunks: chunks.iter_mut().map(|c| c.ids[at].clone()).collect(),
            });
            at += 1;
        }
        if let Some(name) = &ids.deliveries {
            columns.push(TableColumn {
                name: name.clone(),
                dtype: FieldType::Int64,
                chunks: chunks.iter().map(Chunk::deliveries).collect(),
            });
        }
        match plan.fields() {
            Fields::Schema(fields) => {
                columns.extend(fields.iter().enumerate().map(|(at, field)| TableColumn {
                    name: field.name.clone(),
                    dtype: field.dtype.clone(),
                    chunks: chunks.iter().map(|c| c.fields[at].clone()).collect(),
                }));
            }
            Fields::Discover => {
                chunks
                    .iter_mut()
                    .for_each(|chunk| chunk.name_columns(names));
                columns.extend(discovered(&chunks, plan.discovered()));
            }
        }
        Self { rows, columns }
    }

    /// The same with fewer chunks, where they are so small that whoever works with the
    /// frame would spend more on them than on their rows.
    pub fn joined(mut self) -> Self {
        let chunks = self.columns.first().map_or(0, |column| column.chunks.len());
        if chunks <= FEW_CHUNKS || self.rows / chunks >= SMALL_CHUNK {
            return self;
        }
        for column in &mut self.columns {
            column.join();
        }
        self
    }
}

impl TableColumn {
    /// Joins consecutive chunks to some of so many rows that are not small. Where they
    /// begin and end depends on the number of rows alone.
    fn join(&mut self) {
        let mut joined = Vec::new();
        let mut part: Vec<ArrayRef> = Vec::new();
        let mut rows = 0;
        for chunk in self.chunks.drain(..) {
            rows += chunk.len();
            part.push(chunk);
            if rows >= JOINED_ROWS {
                joined.append(&mut concatenated(std::mem::take(&mut part)));
                rows = 0;
            }
        }
        joined.append(&mut concatenated(part));
        self.chunks = joined;
    }
}

/// Arrays of one dtype as one.
fn concatenated(arrays: Vec<ArrayRef>) -> Vec<ArrayRef> {
    let parts: Vec<&dyn Array> = arrays.iter().map(|array| &**array).collect();
    match concatenate(&parts) {
        Ok(joined) => vec![joined],
        // There is none, or they would be too large together.
        Err(_) => arrays,
    }
}

/// The first row that has a value.
fn first_value(array: &dyn Array) -> Option<usize> {
    match array.validity() {
        None => (!array.is_empty()).then_some(0),
        Some(valid) => Some(valid.leading_zeros()).filter(|&row| row < array.len()),
    }
}

/// The discovered columns of chunks, in order of first appearance.
fn discovered(chunks: &[Chunk], dtype: &FieldType) -> Vec<TableColumn> {
    let mut order: Vec<&Arc<str>> = Vec::new();
    let mut seen = HashSet::new();
    for (name, _) in chunks.iter().flat_map(|chunk| &chunk.named) {
        if seen.insert(name) {
            order.push(name);
        }
    }
    let by_name: Vec<HashMap<_, _>> = chunks
        .iter()
        .map(|chunk| chunk.named.iter().map(|(name, at)| (name, *at)).collect())
        .collect();
    let column = |name: &Arc<str>| TableColumn {
        name: name.to_string(),
        dtype: dtype.clone(),
        chunks: chunks
            .iter()
            .zip(&by_name)
            .map(|(chunk, named)| chunk.field_or_null(named.get(name).copied(), dtype))
            .collect(),
    };
    order.into_iter().map(column).collect()
}
