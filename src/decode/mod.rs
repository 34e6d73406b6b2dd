//! Entries to columns.
//!
//! A [`Decoder`] takes the bytes of a reply that holds entries, in pieces of any
//! size, and writes each entry straight into the Arrow columns of a
//! [`ChunkBuilder`]. It does no I/O, keeps its state between pushes, and looks at
//! no payload twice.

mod chunk;
mod column;
mod decimal;
mod dtype;
mod infer;
mod json;
mod messages;
mod meter;
mod names;
mod nested;
mod plan;
mod pushes;
mod temporal;
mod text;
mod views;

use std::sync::Arc;

pub use chunk::{Chunk, ChunkBuilder, Table, TableColumn};
pub use decimal::MAX_PRECISION;
pub use dtype::{Categories, Field, FieldType, TimeUnit};
pub use infer::guess_fields;
pub use messages::{Content, MessageBuilder, MessagePlan, Messages};
pub use meter::Meter;
pub use names::Names;
pub use plan::{Fields, IdColumns, OnMisfit, Plan};
pub use pushes::{Notice, PushDecoder, PushFault};
pub(crate) use views::Views;
#[cfg(test)]
pub(crate) use {
    decimal::parse_decimal,
    temporal::{parse_date, parse_datetime, parse_time},
};

use crate::entry_id::{EntryId, IdRange};
use crate::error::{Misfit, shorten};
use crate::resp::{Cursor, Malformed, Payload, Token, Tokenizer};
use chunk::IdPart;
use names::{Prediction, Target};

/// Which commands' replies are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// An array of entries: `XRANGE`, `XCLAIM`.
    Entries,
    /// One stream's key and its array of entries, or nothing: `XREAD` and
    /// `XREADGROUP` of one stream. Those of several have
    /// [their own beginning](Decoder::begin_streams).
    OneStream,
}

/// One of several streams that a command asks for.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its key.
    pub key: Arc<str>,
    /// The IDs that may come.
    pub range: IdRange,
    /// The last ID that gets a row.
    pub end: EntryId,
}

/// What came of one of several streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    /// Which of those that were asked for it is.
    pub at: usize,
    /// Entries that the reply has of it, be they decoded or not.
    pub entries: usize,
    /// The last entry that was decoded whole.
    pub last: Option<EntryId>,
    /// Entries that are pending, and were deleted from the stream.
    pub deleted: Vec<EntryId>,
}

/// How far a push came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// All input was taken; the reply goes on.
    NeedMore,
    /// The reply has ended; what follows it was not touched.
    Done {
        /// Entries in the reply, those without a row included.
        entries: usize,
    },
}

/// Why a reply was not decoded to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The bytes are not the reply that was due.
    Protocol(String),
    /// The server answered with an error, in these words.
    Server(String),
    /// A field of an entry did not fit. The rows before it are in the chunk.
    Value {
        id: EntryId,
        field: String,
        reason: Misfit,
    },
}

impl From<Malformed> for Fault {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.to_string())
    }
}

/// Decodes replies that hold entries, one after another.
///
/// ```
/// use std::sync::Arc;
/// use polars_redis::decode::{
///     ChunkBuilder, Decoder, Field, FieldType, Fields, IdColumns, OnMisfit, Plan, Progress, Shape,
/// };
/// use polars_redis::IdRange;
///
/// let schema = vec![Field { name: "n".into(), dtype: FieldType::Int64 }];
/// let plan = Arc::new(Plan::new(IdColumns::default(), Fields::Schema(schema), OnMisfit::Raise)?);
/// let mut decoder = Decoder::new(plan.clone());
/// let mut chunk = ChunkBuilder::with_room(&plan, 1);
///
/// decoder.begin_reply(Shape::Entries, IdRange::ALL, 10);
/// let mut input: &[u8] = b"*1\r\n*2\r\n$3\r\n1-0\r\n*2\r\n$1\r\nn\r\n$2\r\n4";
/// assert_eq!(decoder.decode(&mut input, &mut chunk), Ok(Progress::NeedMore));
/// let mut input: &[u8] = b"2\r\n";
/// assert_eq!(decoder.decode(&mut input, &mut chunk), Ok(Progress::Done { entries: 1 }));
/// assert_eq!(chunk.rows(), 1);
/// # Ok::<(), polars_redis::Error>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    tokens: Tokenizer,
    entries: Entries,
    bytes: u64,
    meter: Arc<Meter>,
    is_line_due: bool,
}

impl Decoder {
    /// A decoder between two replies.
    pub fn new(plan: Arc<Plan>) -> Self {
        Self {
            tokens: Tokenizer::new(),
            entries: Entries::new(plan),
            bytes: 0,
            meter: Arc::default(),
            is_line_due: false,
        }
    }

    /// Bytes taken so far, of all replies.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the entries of all replies are counted.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Entries after `end` get no row, and what is in them does not matter.
    pub fn stop_after(&mut self, end: EntryId) {
        self.entries.end = end;
    }

    /// Gets ready for a reply of at most `most` entries, which must lie in
    /// `range`, in order.
    pub fn begin_reply(&mut self, shape: Shape, range: IdRange, most: usize) {
        self.entries.at = match shape {
            Shape::Entries => At::Entries,
            Shape::OneStream => At::Streams,
        };
        self.entries.allowed = range;
        self.entries.asked.clear();
        self.begin(most);
    }

    /// Gets ready for the reply to `XREAD` or `XREADGROUP` of several streams, of
    /// at most `most` entries each. Each stream's must lie in its range, in order.
    /// The chunk is told which stream its rows are of.
    pub fn begin_streams(&mut self, asked: Vec<Asked>, most: usize) {
        self.entries.at = At::Streams;
        self.entries.asked = asked;
        self.begin(most);
    }

    fn begin(&mut self, most: usize) {
        self.tokens = Tokenizer::new();
        self.is_line_due = false;
        self.entries.most = most;
        self.entries.streams_left = 0;
        self.entries.came.clear();
        self.entries.deleted.clear();
        self.entries.nulls = 0;
        self.entries.first = None;
        self.entries.last = None;
        self.entries.entries_left = 0;
        self.entries.in_reply = 0;
    }

    /// A line that says OK precedes the reply that was begun.
    pub fn expect_line(&mut self) {
        self.is_line_due = true;
    }

    /// Takes bytes off the front of `input` and adds the entries that they
    /// finish to `chunk`, up to the end of the reply.
    ///
    /// After an error the decoder is only good for
    /// [`abandon`](Self::abandon) and [`begin_reply`](Self::begin_reply).
    pub fn decode(
        &mut self,
        input: &mut &[u8],
        chunk: &mut ChunkBuilder,
    ) -> Result<Progress, Fault> {
        let before = input.len();
        let result = self.take(input, chunk);
        self.bytes += (before - input.len()) as u64;
        if let Ok(Progress::Done { entries }) = result {
            self.meter.add(entries);
        }
        result
    }

    fn take(&mut self, input: &mut &[u8], chunk: &mut ChunkBuilder) -> Result<Progress, Fault> {
        if self.is_line_due && !self.take_line(input)? {
            return Ok(Progress::NeedMore);
        }
        loop {
            if self.entries.at == At::Entry && self.tokens.is_between_tokens() {
                let mut cursor = Cursor::new(input);
                let result = self.entries.take_whole_tokens(&mut cursor, chunk);
                *input = cursor.rest();
                result?;
                if self.entries.is_done() {
                    let entries = self.entries.in_reply;
                    return Ok(Progress::Done { entries });
                }
                self.entries.go_on_to_stream();
            }
            let payload = self.entries.wanted_payload();
            match self.tokens.next(input, payload)? {
                Some(token) => self.entries.accept(token, chunk)?,
                None => return Ok(Progress::NeedMore),
            }
        }
    }

    /// Takes the line before the reply; whether it is there.
    fn take_line(&mut self, input: &mut &[u8]) -> Result<bool, Fault> {
        match self.tokens.next(input, Payload::Skip)? {
            None => Ok(false),
            Some(Token::Simple(_)) => {
                self.is_line_due = false;
                Ok(true)
            }
            Some(Token::Error(text)) => {
                Err(Fault::Server(String::from_utf8_lossy(text).into_owned()))
            }
            Some(token) => Err(unexpected(At::Entries, &token)),
        }
    }

    /// Takes back what was written of an entry that will not be finished.
    pub fn abandon(&mut self, chunk: &mut ChunkBuilder) {
        chunk.abandon_row();
    }

    /// The IDs of the entries of the reply that were decoded whole, from the
    /// first to the last; those without a row count too.
    pub fn ids(&self) -> Option<IdRange> {
        IdRange::new(self.entries.first?, self.entries.last?)
    }

    /// What came of the streams that were asked for, in the order of the reply;
    /// the last of them may have come in part. Nothing of those that it does not
    /// name.
    pub fn came(&mut self) -> &[Came] {
        self.entries.note_came();
        &self.entries.came
    }

    /// The key of the stream, of several, whose entries came in last.
    pub fn stream(&self) -> &str {
        let last = self.entries.came.last();
        let stream = last.and_then(|came| self.entries.asked.get(came.at));
        stream.map_or("", |stream| &stream.key)
    }

    /// Forgets the field names that were discovered, if there are too many to
    /// keep a column of each. Chunks know their own; no builder may have rows.
    pub fn forget_names(&mut self) {
        if self.entries.names.len() > MAX_NAMES {
            self.entries.names = Names::new(&self.entries.plan);
            self.entries.predictions.clear();
        }
    }

    /// Entries of the reply that are pending, and were deleted from the stream.
    pub fn deleted(&self) -> &[EntryId] {
        &self.entries.deleted
    }

    /// Entries of the reply that are nothing but a null.
    pub fn nulls(&self) -> usize {
        self.entries.nulls
    }

    /// The field names seen so far.
    pub fn names(&self) -> &Names {
        &self.entries.names
    }
}

/// Which token of the reply comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Streams,
    Stream,
    Key,
    Entries,
    Entry,
    Id,
    Fields,
    Name,
    Value,
}

/// Where in a reply we are, and what to do with its tokens.
#[derive(Debug)]
struct Entries {
    plan: Arc<Plan>,
    names: Names,
    /// By position in the entry.
    predictions: Vec<Prediction>,
    at: At,
    /// Where several streams are asked for, which.
    asked: Vec<Asked>,
    /// Streams of the reply that have not begun.
    streams_left: usize,
    /// What came of those that have.
    came: Vec<Came>,
    /// Entries of the reply, or of the stream, that have not begun.
    entries_left: usize,
    in_reply: usize,
    /// Fields of the entry that have not begun, and how many it has.
    fields_left: usize,
    fields: usize,
    /// Where the value of the current field goes.
    target: Target,
    id: EntryId,
    /// The first and the last entry of the reply, or of the stream, that were
    /// decoded whole.
    first: Option<EntryId>,
    last: Option<EntryId>,
    /// IDs that may come, and how many.
    allowed: IdRange,
    most: usize,
    /// The last ID that gets a row.
    end: EntryId,
    deleted: Vec<EntryId>,
    nulls: usize,
    /// Values of the current entry that do not fit, by column. Where the entry
    /// names a field again, the later value counts and this one is forgotten.
    misfits: Vec<(usize, Misfit)>,
}

/// Field names that are remembered from one batch to the next.
const MAX_NAMES: usize = 256;
/// Fields of an entry whose names are predicted. More are looked up.
const MAX_PREDICTIONS: usize = 256;

impl Entries {
    fn new(plan: Arc<Plan>) -> Self {
        Self {
            names: Names::new(&plan),
            plan,
            predictions: Vec::new(),
            at: At::Entries,
            asked: Vec::new(),
            streams_left: 0,
            came: Vec::new(),
            entries_left: 0,
            in_reply: 0,
            fields_left: 0,
            fields: 0,
            target: Target::Skip,
            id: EntryId::MIN,
            first: None,
            last: None,
            allowed: IdRange::ALL,
            most: usize::MAX,
            end: EntryId::MAX,
            deleted: Vec::new(),
            nulls: 0,
            misfits: Vec::new(),
        }
    }

    fn is_done(&self) -> bool {
        self.at == At::Entry && self.entries_left == 0 && self.streams_left == 0
    }

    /// After the last entry of a stream, another stream is due.
    fn go_on_to_stream(&mut self) {
        if self.at == At::Entry && self.entries_left == 0 {
            self.at = At::Stream;
        }
    }

    /// The entries that follow are of the stream with this key, if it is one of
    /// several.
    fn begin_stream(&mut self, key: &[u8], chunk: &mut ChunkBuilder) -> Result<(), Fault> {
        if self.asked.is_empty() {
            return Ok(());
        }
        self.note_came();
        // Streams come in the order in which they were asked for.
        let next = self.came.last().map_or(0, |came| came.at + 1);
        let mut rest = self.asked.iter().enumerate().skip(next);
        let found = rest.find(|(_, stream)| stream.key.as_bytes() == key);
        let Some((at, stream)) = found else {
            return Err(Fault::Protocol(format!(
                "{} where the key of a stream that was asked for was due",
                shorten(key)
            )));
        };
        chunk.begin_stream(&stream.key);
        self.allowed = stream.range;
        self.end = stream.end;
        self.first = None;
        self.last = None;
        self.came.push(Came {
            at,
            entries: 0,
            last: None,
            deleted: Vec::new(),
        });
        Ok(())
    }

    /// Notes what has come of the current stream so far.
    fn note_came(&mut self) {
        if let Some(came) = self.came.last_mut() {
            came.last = self.last;
            came.deleted.append(&mut self.deleted);
        }
    }

    fn wanted_payload(&self) -> Payload {
        match (self.at, self.target) {
            (At::Value, Target::Skip) => Payload::Skip,
            _ => Payload::Keep,
        }
    }

    /// The fast way: entry after entry, as long as their tokens are whole in
    /// the input and of the usual kinds. Where one is not, `at` says which
    /// token is due, and [`accept`](Self::accept) goes on from there.
    fn take_whole_tokens(
        &mut self,
        cursor: &mut Cursor<'_>,
        chunk: &mut ChunkBuilder,
    ) -> Result<(), Fault> {
        while self.entries_left > 0 {
            if !cursor.take(b"*2\r\n") {
                return Ok(());
            }
            self.entries_left -= 1;
            let Some(id) = cursor.bulk() else {
                self.at = At::Id;
                return Ok(());
            };
            self.begin_entry(id, chunk)?;
            let Some(elements) = cursor.array() else {
                self.at = At::Fields;
                return Ok(());
            };
            self.begin_fields(elements)?;
            while self.fields_left > 0 {
                let position = self.fields - self.fields_left;
                match self.predicted(position, cursor) {
                    Some(target) => self.target = target,
                    None => {
                        let Some(name) = cursor.bulk() else {
                            self.at = At::Name;
                            return Ok(());
                        };
                        self.begin_field(name)?;
                    }
                }
                let Some(value) = cursor.bulk() else {
                    self.at = At::Value;
                    return Ok(());
                };
                self.take_value(value, chunk);
            }
            self.end_entry(chunk)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn predicted(&self, position: usize, cursor: &mut Cursor<'_>) -> Option<Target> {
        let prediction = self.predictions.get(position)?;
        let (target, len) = prediction.check(cursor.rest())?;
        cursor.advance(len);
        Some(target)
    }

    /// The slow way: one token of any kind.
    fn accept(&mut self, token: Token<'_>, chunk: &mut ChunkBuilder) -> Result<(), Fault> {
        match (self.at, token) {
            (At::Streams | At::Entries, Token::Error(text)) => {
                return Err(Fault::Server(String::from_utf8_lossy(text).into_owned()));
            }
            (At::Streams, Token::Array(streams @ 1..)) if streams <= self.asked.len().max(1) => {
                self.streams_left = streams;
                self.at = At::Stream;
            }
            (At::Stream, Token::Array(2)) => {
                self.streams_left -= 1;
                self.at = At::Key;
            }
            (At::Key, Token::Bulk(key)) => {
                self.begin_stream(key, chunk)?;
                self.at = At::Entries;
            }
            (At::Entries, Token::Array(entries)) if entries <= self.most => {
                if let Some(came) = self.came.last_mut() {
                    came.entries = entries;
                }
                self.entries_left = entries;
                self.in_reply += entries;
                self.at = At::Entry;
            }
            (At::Streams, Token::Array(0)) | (At::Streams | At::Entries, Token::Null) => {
                self.at = At::Entry;
            }
            (At::Entry, Token::Array(2)) => {
                self.entries_left -= 1;
                self.at = At::Id;
            }
            // Before Redis 7, XCLAIM shows an entry that was deleted as a null.
            (At::Entry, Token::Null) => {
                self.entries_left -= 1;
                self.nulls += 1;
            }
            (At::Id, Token::Bulk(id)) => {
                self.begin_entry(id, chunk)?;
                self.at = At::Fields;
            }
            (At::Fields, Token::Array(elements)) => {
                self.begin_fields(elements)?;
                self.at = At::Name;
                self.end_entry_if_complete(chunk)?;
            }
            // XREADGROUP shows a pending entry that was deleted without fields.
            (At::Fields, Token::Null) => {
                self.deleted.push(self.id);
                chunk.abandon_row();
                self.passed();
            }
            (At::Name, Token::Bulk(name)) => {
                self.begin_field(name)?;
                self.at = At::Value;
            }
            (At::Value, Token::Bulk(value)) => {
                self.take_value(value, chunk);
                self.at = At::Name;
                self.end_entry_if_complete(chunk)?;
            }
            (at, token) => return Err(unexpected(at, &token)),
        }
        Ok(())
    }

    #[inline(always)]
    fn begin_entry(&mut self, text: &[u8], chunk: &mut ChunkBuilder) -> Result<(), Fault> {
        let Some(id) = EntryId::from_reply(text) else {
            return Err(Fault::Protocol(format!(
                "{} where an entry ID was due",
                shorten(text)
            )));
        };
        let is_next = self.last.is_none_or(|last| last < id);
        if !is_next || id < self.allowed.start() || id > self.allowed.end() {
            return Err(Fault::Protocol(format!(
                "entry {id} is out of order, or out of the range asked for"
            )));
        }
        self.id = id;
        self.misfits.clear();
        match chunk.begin_row(id, text) {
            Err(part) if self.plan.on_misfit() == OnMisfit::Raise && !self.is_beyond() => {
                Err(self.id_does_not_fit(part))
            }
            _ => Ok(()),
        }
    }

    #[cold]
    fn id_does_not_fit(&self, part: IdPart) -> Fault {
        let ids = self.plan.ids();
        let (column, value) = match part {
            IdPart::Timestamp => (&ids.timestamp, self.id.ms),
            IdPart::Sequence => (&ids.sequence, self.id.seq),
        };
        Fault::Value {
            id: self.id,
            field: column.clone().unwrap_or_default(),
            reason: Misfit::Value {
                dtype: FieldType::Int64.to_string(),
                text: shorten(value.to_string().as_bytes()),
            },
        }
    }

    #[inline(always)]
    fn begin_fields(&mut self, elements: usize) -> Result<(), Fault> {
        if elements % 2 == 1 {
            return Err(Fault::Protocol(format!(
                "entry {} has {elements} elements, an odd number, where names and values were due",
                self.id
            )));
        }
        self.fields = elements / 2;
        self.fields_left = self.fields;
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn begin_field(&mut self, name: &[u8]) -> Result<(), Fault> {
        self.target = match self.names.target(name, &self.plan) {
            Ok(target) => target,
            Err(_) if self.is_beyond() => Target::Skip,
            Err(Misfit::NameNotUtf8) if self.plan.on_misfit() == OnMisfit::Null => Target::Skip,
            Err(reason) => {
                return Err(Fault::Value {
                    id: self.id,
                    field: String::from_utf8_lossy(name).into_owned(),
                    reason,
                });
            }
        };
        let position = self.fields - self.fields_left;
        if position < MAX_PREDICTIONS {
            if position >= self.predictions.len() {
                self.predictions.resize(position + 1, Prediction::NONE);
            }
            self.predictions[position] = Prediction::new(name, self.target);
        }
        Ok(())
    }

    #[inline(always)]
    fn take_value(&mut self, value: &[u8], chunk: &mut ChunkBuilder) {
        self.fields_left -= 1;
        if let Target::Column(column) = self.target {
            if !self.misfits.is_empty() {
                self.misfits.retain(|(misfit, _)| *misfit != column);
            }
            if !chunk.set(column, value) {
                self.note_misfit(column, value);
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn note_misfit(&mut self, column: usize, value: &[u8]) {
        if self.plan.on_misfit() == OnMisfit::Null {
            return;
        }
        let dtype = match self.plan.fields() {
            Fields::Schema(fields) => fields[column].dtype.to_string(),
            Fields::Discover => self.plan.discovered().to_string(),
        };
        let text = shorten(value);
        self.misfits.push((column, Misfit::Value { dtype, text }));
    }

    fn end_entry_if_complete(&mut self, chunk: &mut ChunkBuilder) -> Result<(), Fault> {
        if self.fields_left == 0 {
            self.end_entry(chunk)?;
        }
        Ok(())
    }

    #[inline(always)]
    fn end_entry(&mut self, chunk: &mut ChunkBuilder) -> Result<(), Fault> {
        if self.is_beyond() {
            chunk.abandon_row();
            self.passed();
            return Ok(());
        }
        if let Some((column, reason)) = self.misfits.first() {
            return Err(Fault::Value {
                id: self.id,
                field: self.names.name(*column).to_string(),
                reason: reason.clone(),
            });
        }
        chunk.commit_row(self.id);
        self.passed();
        Ok(())
    }

    /// Whether the current entry lies after what gets a row.
    #[inline(always)]
    fn is_beyond(&self) -> bool {
        self.id > self.end
    }

    #[inline(always)]
    fn passed(&mut self) {
        self.first = self.first.or(Some(self.id));
        self.last = Some(self.id);
        self.at = At::Entry;
    }
}

#[cold]
fn unexpected(at: At, token: &Token<'_>) -> Fault {
    let due = match at {
        At::Streams => "an array of streams",
        At::Stream => "a stream's key and entries",
        At::Key => "a stream's key",
        At::Entries => "an array of entries",
        At::Entry => "an entry",
        At::Id => "an entry ID",
        At::Fields => "an entry's fields",
        At::Name => "a field name",
        At::Value => "a field's value",
    };
    Fault::Protocol(format!("{token} where {due} was due"))
}

#[cfg(test)]
mod tests;
