//! Messages to columns: the channel, when it came, and what the message says.

use std::collections::HashSet;

use polars_arrow::array::{ArrayRef, PrimitiveArray};
use polars_arrow::datatypes::{ArrowDataType, TimeUnit as ArrowTimeUnit};

use super::chunk::{Table, TableColumn};
use super::column::Column;
use super::dtype::{Field, FieldType, TimeUnit};
use super::nested::{Structs, Unfit};
use super::plan::OnMisfit;
use crate::error::{Error, MessageError, Result, shorten};

/// What a message is read as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The whole of it as a value of a column.
    Whole(Field),
    /// A JSON object, each of these members a column; others are passed over.
    Members(Vec<Field>),
}

impl Content {
    /// The columns that it makes.
    pub fn fields(&self) -> &[Field] {
        match self {
            Self::Whole(field) => std::slice::from_ref(field),
            Self::Members(fields) => fields,
        }
    }
}

/// The columns made of messages, checked: no two have the same name.
#[derive(Debug, Clone)]
pub struct MessagePlan {
    channel: Option<String>,
    received: Option<String>,
    content: Content,
    on_misfit: OnMisfit,
}

impl MessagePlan {
    /// Checks that there is a column, and that no name is given twice.
    pub fn new(
        channel: Option<String>,
        received: Option<String>,
        content: Content,
        on_misfit: OnMisfit,
    ) -> Result<Self> {
        let mut seen = HashSet::new();
        let of_message = content.fields().iter().map(|field| &field.name);
        let names = channel.iter().chain(&received).chain(of_message);
        if let Some(twice) = names.into_iter().find(|&name| !seen.insert(name)) {
            return Err(Error::Argument(format!(
                "two columns are named {twice:?}: give them different names by channel_column, \
                 timestamp_column, message_column, or leave one out (include_channel, \
                 include_timestamp)"
            )));
        }
        if seen.is_empty() {
            return Err(Error::Argument("schema: names no field".into()));
        }
        Ok(Self {
            channel,
            received,
            content,
            on_misfit,
        })
    }

    /// What a message is read as.
    pub fn content(&self) -> &Content {
        &self.content
    }
}

/// Rows under construction, one a message.
#[derive(Debug)]
pub struct MessageBuilder {
    rows: usize,
    bytes: usize,
    channel: Option<(String, Column)>,
    received: Option<Vec<i64>>,
    values: Values,
    on_misfit: OnMisfit,
}

#[derive(Debug)]
enum Values {
    Whole(Field, Column),
    Members(Structs),
}

impl MessageBuilder {
    /// A builder without rows, with room for about `room` of them.
    pub fn with_room(plan: &MessagePlan, room: usize) -> Self {
        let channels = || Column::with_room(&FieldType::String, room);
        Self {
            rows: 0,
            bytes: 0,
            channel: plan.channel.clone().map(|name| (name, channels())),
            received: plan.received.as_ref().map(|_| Vec::with_capacity(room)),
            values: match &plan.content {
                Content::Whole(field) => {
                    Values::Whole(field.clone(), Column::with_room(&field.dtype, room))
                }
                Content::Members(fields) => Values::Members(Structs::new(fields, room)),
            },
            on_misfit: plan.on_misfit,
        }
    }

    /// Messages so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of these messages, as they came.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a message that was received at this time, in microseconds since the
    /// epoch; nothing, if it does not fit and that is an error.
    pub fn push(
        &mut self,
        channel: &[u8],
        message: &[u8],
        received: i64,
    ) -> Result<(), Box<MessageError>> {
        let result = self.set(channel, message);
        if result.is_err() && self.on_misfit == OnMisfit::Raise {
            self.take_back();
            return result;
        }
        if let Some(times) = &mut self.received {
            times.push(received);
        }
        self.rows += 1;
        self.bytes += channel.len() + message.len();
        Ok(())
    }

    fn set(&mut self, channel: &[u8], message: &[u8]) -> Result<(), Box<MessageError>> {
        let misfit = |field: Option<&str>, expected: String, got: &[u8]| {
            Box::new(MessageError {
                channel: String::from_utf8_lossy(channel).into_owned(),
                field: field.map(str::to_owned),
                expected,
                got: shorten(got),
                message: (got != message && got != channel).then(|| shorten(message)),
            })
        };
        let mut result = Ok(());
        if let Some((name, column)) = &mut self.channel
            && !column.set(self.rows, channel)
        {
            result = Err(misfit(Some(name), FieldType::String.to_string(), channel));
        }
        match &mut self.values {
            Values::Whole(field, column) => {
                if !column.set(self.rows, message) {
                    return Err(misfit(Some(&field.name), field.dtype.to_string(), message));
                }
            }
            Values::Members(structs) => match structs.push_what_fits(message) {
                Ok(()) => {}
                Err(Unfit::Whole) => {
                    return Err(misfit(None, "a JSON object".into(), message));
                }
                Err(Unfit::Member { field, got }) => {
                    let dtype = field.dtype.to_string();
                    return Err(misfit(Some(&field.name), dtype, got.text().as_bytes()));
                }
            },
        }
        result
    }

    fn take_back(&mut self) {
        if let Some((_, column)) = &mut self.channel {
            column.truncate(self.rows);
        }
        match &mut self.values {
            Values::Whole(_, column) => column.truncate(self.rows),
            Values::Members(structs) => structs.truncate(self.rows),
        }
    }

    /// The finished columns.
    pub fn finish(self) -> Messages {
        let rows = self.rows;
        let mut columns = Vec::new();
        if let Some((_, channel)) = self.channel {
            columns.push(channel.finish(rows));
        }
        if let Some(times) = self.received {
            let dtype = ArrowDataType::Timestamp(ArrowTimeUnit::Microsecond, Some("UTC".into()));
            columns.push(PrimitiveArray::new(dtype, times.into(), None).boxed());
        }
        match self.values {
            Values::Whole(_, column) => columns.push(column.finish(rows)),
            Values::Members(structs) => columns.extend(structs.finish_columns()),
        }
        Messages { rows, columns }
    }
}

/// Columns of consecutive messages.
#[derive(Debug, Clone)]
pub struct Messages {
    rows: usize,
    columns: Vec<ArrayRef>,
}

impl Messages {
    /// How many there are.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes the first `rows` off, or all if there are fewer. Nothing is copied:
    /// both parts share their buffers.
    pub fn split_front(&mut self, rows: usize) -> Self {
        let rows = rows.min(self.rows);
        let mut front = self.clone();
        front.slice(0, rows);
        self.slice(rows, self.rows - rows);
        front
    }

    fn slice(&mut self, from: usize, rows: usize) {
        for column in &mut self.columns {
            column.slice(from, rows);
        }
        self.rows = rows;
    }
}

impl Table {
    /// Puts messages, given in the order in which they came, one below the other.
    pub fn of_messages(plan: &MessagePlan, mut parts: Vec<Messages>) -> Self {
        if parts.is_empty() {
            parts.push(MessageBuilder::with_room(plan, 0).finish());
        }
        let utc = FieldType::Datetime {
            unit: TimeUnit::Microseconds,
            zone: Some("UTC".into()),
        };
        let channel = plan.channel.iter().map(|name| (name, FieldType::String));
        let received = plan.received.iter().map(|name| (name, utc.clone()));
        let fields = plan.content.fields().iter();
        let fields = fields.map(|field| (&field.name, field.dtype.clone()));
        let columns = channel.chain(received).chain(fields).enumerate();
        let columns = columns.map(|(at, (name, dtype))| TableColumn {
            name: name.clone(),
            dtype,
            chunks: parts.iter().map(|part| part.columns[at].clone()).collect(),
        });
        Self {
            columns: columns.collect(),
            rows: parts.iter().map(Messages::rows).sum(),
        }
    }
}
