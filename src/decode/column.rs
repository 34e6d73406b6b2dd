//! One column under construction.

use std::sync::Arc;

use polars_arrow::array::{ArrayRef, BooleanArray, PrimitiveArray};
use polars_arrow::bitmap::{Bitmap, MutableBitmap};
use polars_arrow::datatypes::{ArrowDataType, TimeUnit as ArrowTimeUnit};
use polars_arrow::types::NativeType;

use super::decimal::parse_decimal;
use super::dtype::{Categories, FieldType, TimeUnit};
use super::json::Json;
use super::nested::Nested;
use super::temporal::{parse_date, parse_datetime, parse_duration, parse_time};
use super::text::{self, Float, Integer};
use super::views::Views;

/// Values of one field, one a row.
///
/// A row that lacks the field costs nothing when it goes by: nulls are filled
/// in when the next value comes, or at the end.
#[derive(Debug)]
pub struct Column {
    /// Rows filled so far.
    len: usize,
    values: Values,
    /// Made when the first null comes.
    validity: Option<MutableBitmap>,
}

#[derive(Debug)]
enum Values {
    String(Views),
    Binary(Views),
    Boolean(MutableBitmap),
    Int8(Vec<i8>),
    Int16(Vec<i16>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int128(Vec<i128>),
    UInt8(Vec<u8>),
    UInt16(Vec<u16>),
    UInt32(Vec<u32>),
    UInt64(Vec<u64>),
    UInt128(Vec<u128>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Date(Vec<i32>),
    Time(Vec<i64>),
    Datetime(Vec<i64>, TimeUnit, Option<String>),
    Duration(Vec<i64>, TimeUnit),
    Decimal(Vec<i128>, u8, u8),
    Enum(Views, Arc<Categories>),
    Nested(Box<Nested>),
}

/// Runs `$body` with `$values` bound to whichever vector the column has.
macro_rules! for_each_kind {
    ($on:expr, views $views:pat => $view_body:expr, bits $bits:pat => $bit_body:expr, numbers $values:pat => $body:expr, nested $nested:pat => $nested_body:expr) => {
        match $on {
            Values::String($views) | Values::Binary($views) | Values::Enum($views, _) => $view_body,
            Values::Boolean($bits) => $bit_body,
            Values::Int8($values) => $body,
            Values::Int16($values) => $body,
            Values::Int32($values) => $body,
            Values::Int64($values) => $body,
            Values::Int128($values) => $body,
            Values::UInt8($values) => $body,
            Values::UInt16($values) => $body,
            Values::UInt32($values) => $body,
            Values::UInt64($values) => $body,
            Values::UInt128($values) => $body,
            Values::Float32($values) => $body,
            Values::Float64($values) => $body,
            Values::Date($values) => $body,
            Values::Time($values)
            | Values::Datetime($values, _, _)
            | Values::Duration($values, _) => $body,
            Values::Decimal($values, _, _) => $body,
            Values::Nested($nested) => $nested_body,
        }
    };
}

impl Values {
    fn with_room(dtype: &FieldType, rows: usize) -> Self {
        match dtype {
            FieldType::String | FieldType::Categorical => Self::String(Views::with_room(rows)),
            FieldType::Binary => Self::Binary(Views::with_room(rows)),
            FieldType::Boolean => Self::Boolean(MutableBitmap::with_capacity(rows)),
            FieldType::Int8 => Self::Int8(Vec::with_capacity(rows)),
            FieldType::Int16 => Self::Int16(Vec::with_capacity(rows)),
            FieldType::Int32 => Self::Int32(Vec::with_capacity(rows)),
            FieldType::Int64 => Self::Int64(Vec::with_capacity(rows)),
            FieldType::Int128 => Self::Int128(Vec::with_capacity(rows)),
            FieldType::UInt8 => Self::UInt8(Vec::with_capacity(rows)),
            FieldType::UInt16 => Self::UInt16(Vec::with_capacity(rows)),
            FieldType::UInt32 => Self::UInt32(Vec::with_capacity(rows)),
            FieldType::UInt64 => Self::UInt64(Vec::with_capacity(rows)),
            FieldType::UInt128 => Self::UInt128(Vec::with_capacity(rows)),
            FieldType::Float32 => Self::Float32(Vec::with_capacity(rows)),
            FieldType::Float64 => Self::Float64(Vec::with_capacity(rows)),
            FieldType::Date => Self::Date(Vec::with_capacity(rows)),
            FieldType::Time => Self::Time(Vec::with_capacity(rows)),
            FieldType::Datetime { unit, zone } => {
                Self::Datetime(Vec::with_capacity(rows), *unit, zone.clone())
            }
            FieldType::Duration(unit) => Self::Duration(Vec::with_capacity(rows), *unit),
            FieldType::Decimal { precision, scale } => {
                Self::Decimal(Vec::with_capacity(rows), *precision, *scale)
            }
            FieldType::Enum(categories) => Self::Enum(Views::with_room(rows), categories.clone()),
            FieldType::List(inner) => Self::Nested(Box::new(Nested::list(inner))),
            FieldType::Array(inner, width) => Self::Nested(Box::new(Nested::array(inner, *width))),
            FieldType::Struct(fields) => Self::Nested(Box::new(Nested::structs(fields))),
        }
    }

    /// Adds the value of a text, or nothing if the text does not fit.
    #[inline]
    fn push(&mut self, text: &[u8]) -> bool {
        match self {
            Self::String(views) => {
                let fits = text::is_utf8(text);
                if fits {
                    views.push(text);
                }
                fits
            }
            Self::Binary(views) => {
                views.push(text);
                true
            }
            Self::Boolean(bits) => {
                let value = text::parse_bool(text);
                if let Some(value) = value {
                    bits.push(value);
                }
                value.is_some()
            }
            Self::Int8(values) => push_some(values, Integer::parse(text)),
            Self::Int16(values) => push_some(values, Integer::parse(text)),
            Self::Int32(values) => push_some(values, Integer::parse(text)),
            Self::Int64(values) => push_some(values, Integer::parse(text)),
            Self::Int128(values) => push_some(values, Integer::parse(text)),
            Self::UInt8(values) => push_some(values, Integer::parse(text)),
            Self::UInt16(values) => push_some(values, Integer::parse(text)),
            Self::UInt32(values) => push_some(values, Integer::parse(text)),
            Self::UInt64(values) => push_some(values, Integer::parse(text)),
            Self::UInt128(values) => push_some(values, Integer::parse(text)),
            Self::Float32(values) => push_some(values, Float::parse(text)),
            Self::Float64(values) => push_some(values, Float::parse(text)),
            _ => self.push_other(text),
        }
    }

    /// The same, of the dtypes that are apart, so that the way of the others stays
    /// short.
    #[inline(never)]
    fn push_other(&mut self, text: &[u8]) -> bool {
        match self {
            Self::Date(values) => push_some(values, parse_date(text)),
            Self::Time(values) => push_some(values, parse_time(text)),
            Self::Datetime(values, unit, _) => push_some(values, parse_datetime(text, *unit)),
            Self::Duration(values, unit) => push_some(values, parse_duration(text, *unit)),
            Self::Decimal(values, precision, scale) => {
                push_some(values, parse_decimal(text, *precision, *scale))
            }
            Self::Enum(views, categories) => {
                let fits = categories.contains(text);
                if fits {
                    views.push(text);
                }
                fits
            }
            Self::Nested(nested) => Json::parse(text).is_some_and(|json| nested.push(json)),
            _ => false,
        }
    }

    /// Adds a value of JSON that is not null, or nothing if it does not fit. What
    /// kinds of JSON a dtype takes is said here; then its text is as any other.
    fn push_json(&mut self, json: Json<'_>) -> bool {
        match self {
            Self::Binary(views) if json.is_list() => {
                let bytes = json.bytes();
                bytes.iter().for_each(|bytes| views.push(bytes));
                bytes.is_some()
            }
            Self::String(_) | Self::Binary(_) | Self::Enum(_, _) => {
                json.string().is_some_and(|text| self.push(text.as_bytes()))
            }
            Self::Boolean(_) => json
                .boolean()
                .is_some_and(|text| self.push(text.as_bytes())),
            Self::Float32(_) | Self::Float64(_) => {
                let is_word = |text: &str| !text.contains(|c: char| c.is_ascii_digit());
                match json.number() {
                    Some(text) => self.push(text.as_bytes()),
                    None => json
                        .string()
                        .is_some_and(|text| is_word(&text) && self.push(text.as_bytes())),
                }
            }
            Self::Date(_) | Self::Time(_) | Self::Datetime(_, _, _) | Self::Duration(_, _) => {
                match json.number() {
                    Some(text) => self.push(text.as_bytes()),
                    None => json.string().is_some_and(|text| {
                        !text::is_integer(text.as_bytes()) && self.push(text.as_bytes())
                    }),
                }
            }
            Self::Decimal(_, _, _) => match json.number() {
                Some(text) => self.push(text.as_bytes()),
                None => json.string().is_some_and(|text| self.push(text.as_bytes())),
            },
            Self::Nested(nested) => nested.push(json),
            _ => json.number().is_some_and(|text| self.push(text.as_bytes())),
        }
    }

    /// Whether a text that adds no value stands for null.
    #[cold]
    fn takes_as_null(&self, text: &[u8]) -> bool {
        matches!(self, Self::Nested(_)) && Json::parse(text).is_some_and(Json::is_null)
    }

    fn extend_default(&mut self, additional: usize) {
        for_each_kind!(self,
            views views => views.extend_empty(additional),
            bits bits => bits.extend_constant(additional, false),
            numbers values => values.resize(values.len() + additional, Default::default()),
            nested nested => nested.extend_null(additional)
        )
    }

    fn truncate(&mut self, len: usize) {
        for_each_kind!(self,
            views views => views.truncate(len),
            bits bits => truncate_bits(bits, len),
            numbers values => values.truncate(len),
            nested nested => nested.truncate(len)
        )
    }

    fn finish(self, validity: Option<MutableBitmap>) -> ArrayRef {
        let validity = validity.map(Into::into);
        match self {
            // SAFETY: `push` takes UTF-8 only, and categories are UTF-8.
            Self::String(views) | Self::Enum(views, _) => {
                unsafe { views.finish::<str>(validity) }.boxed()
            }
            // SAFETY: any bytes are valid in a binary array.
            Self::Binary(views) => unsafe { views.finish::<[u8]>(validity) }.boxed(),
            Self::Boolean(bits) => {
                BooleanArray::new(ArrowDataType::Boolean, bits.into(), validity).boxed()
            }
            Self::Int8(values) => primitive(values, validity),
            Self::Int16(values) => primitive(values, validity),
            Self::Int32(values) => primitive(values, validity),
            Self::Int64(values) => primitive(values, validity),
            Self::Int128(values) => primitive(values, validity),
            Self::UInt8(values) => primitive(values, validity),
            Self::UInt16(values) => primitive(values, validity),
            Self::UInt32(values) => primitive(values, validity),
            Self::UInt64(values) => primitive(values, validity),
            Self::UInt128(values) => primitive(values, validity),
            Self::Float32(values) => primitive(values, validity),
            Self::Float64(values) => primitive(values, validity),
            Self::Date(values) => logical(ArrowDataType::Date32, values, validity),
            Self::Time(values) => {
                let dtype = ArrowDataType::Time64(ArrowTimeUnit::Nanosecond);
                logical(dtype, values, validity)
            }
            Self::Datetime(values, unit, zone) => {
                let dtype = ArrowDataType::Timestamp(unit.into(), zone.map(Into::into));
                logical(dtype, values, validity)
            }
            Self::Duration(values, unit) => {
                logical(ArrowDataType::Duration(unit.into()), values, validity)
            }
            Self::Decimal(values, precision, scale) => {
                let dtype = ArrowDataType::Decimal(precision.into(), scale.into());
                logical(dtype, values, validity)
            }
            Self::Nested(nested) => nested.finish(validity),
        }
    }
}

impl From<TimeUnit> for ArrowTimeUnit {
    fn from(unit: TimeUnit) -> Self {
        match unit {
            TimeUnit::Milliseconds => Self::Millisecond,
            TimeUnit::Microseconds => Self::Microsecond,
            TimeUnit::Nanoseconds => Self::Nanosecond,
        }
    }
}

#[inline(always)]
fn push_some<T>(values: &mut Vec<T>, value: Option<T>) -> bool {
    match value {
        Some(value) => {
            values.push(value);
            true
        }
        None => false,
    }
}

fn primitive<T: NativeType>(values: Vec<T>, validity: Option<Bitmap>) -> ArrayRef {
    logical(T::PRIMITIVE.into(), values, validity)
}

fn logical<T: NativeType>(
    dtype: ArrowDataType,
    values: Vec<T>,
    validity: Option<Bitmap>,
) -> ArrayRef {
    PrimitiveArray::new(dtype, values.into(), validity).boxed()
}

fn truncate_bits(bits: &mut MutableBitmap, len: usize) {
    while bits.len() > len {
        bits.pop();
    }
}

impl Column {
    /// An empty column of a dtype, with room for `rows` rows.
    pub fn with_room(dtype: &FieldType, rows: usize) -> Self {
        Self {
            len: 0,
            values: Values::with_room(dtype, rows),
            validity: None,
        }
    }

    /// Makes room for the data that `rows` rows of another column's kind take:
    /// the bytes of long values, which no number of rows tells.
    pub fn make_room_like(&mut self, other: &Self) {
        if let (
            Values::String(views) | Values::Binary(views),
            Values::String(other) | Values::Binary(other),
        ) = (&mut self.values, &other.values)
        {
            views.make_room_like(other);
        }
    }

    /// Whether a value was ever given.
    pub fn is_untouched(&self) -> bool {
        self.len == 0
    }

    /// Sets the value of a row, and whether the text fitted; if not, the row is
    /// null. Rows that were left out before it are null; a value that the row
    /// had is replaced.
    #[inline]
    pub fn set(&mut self, row: usize, text: &[u8]) -> bool {
        if self.len != row {
            self.align(row);
        }
        let fits = self.values.push(text);
        if !fits {
            self.extend_null(1);
            return self.values.takes_as_null(text);
        }
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
        self.len += 1;
        true
    }

    /// Rows filled so far.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The same with a value of JSON, but if it does not fit, nothing is set.
    pub(super) fn set_json(&mut self, row: usize, json: Json<'_>) -> bool {
        if self.len != row {
            self.align(row);
        }
        self.push_json(json)
    }

    /// Adds a value of JSON, or nothing if it does not fit.
    pub(super) fn push_json(&mut self, json: Json<'_>) -> bool {
        if json.is_null() {
            self.extend_null(1);
            return true;
        }
        let fits = self.values.push_json(json);
        if fits {
            if let Some(validity) = &mut self.validity {
                validity.push(true);
            }
            self.len += 1;
        }
        fits
    }

    /// Fills up to so many rows with nulls.
    pub(super) fn fill_up(&mut self, rows: usize) {
        if self.len < rows {
            self.extend_null(rows - self.len);
        }
    }

    #[cold]
    #[inline(never)]
    fn align(&mut self, row: usize) {
        if self.len < row {
            self.extend_null(row - self.len);
        } else {
            self.truncate(row);
        }
    }

    #[cold]
    fn extend_null(&mut self, additional: usize) {
        let validity = self.validity.get_or_insert_with(|| {
            let mut bits = MutableBitmap::new();
            bits.extend_constant(self.len, true);
            bits
        });
        validity.extend_constant(additional, false);
        self.values.extend_default(additional);
        self.len += additional;
    }

    /// Drops the values from row `len` on.
    pub fn truncate(&mut self, len: usize) {
        if self.len <= len {
            return;
        }
        self.values.truncate(len);
        if let Some(validity) = &mut self.validity {
            truncate_bits(validity, len);
        }
        self.len = len;
    }

    /// The finished array of `rows` rows.
    pub fn finish(mut self, rows: usize) -> ArrayRef {
        self.align(rows);
        self.values.finish(self.validity)
    }
}
