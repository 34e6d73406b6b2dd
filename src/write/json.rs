//! Values as JSON, as lists, arrays and structs are written: what [`crate::decode`]
//! reads back as the same values.

use polars_arrow::array::{FixedSizeListArray, ListArray};
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::value::RawValue;

use super::batch::Batch;
use super::temporal::{write_date, write_datetime, write_time};
use super::values::{Values, push_decimal};

/// Writes a row of a column.
pub fn write(values: &Values, row: usize, out: &mut Vec<u8>) {
    let written = serde_json::to_writer(out, &Cell(values, row));
    debug_assert!(written.is_ok(), "memory takes all that is written");
}

/// Writes a row of a batch as an object of these columns, by their number and name.
pub fn write_object(members: &[(usize, String)], batch: &Batch, row: usize, out: &mut Vec<u8>) {
    let members = members.iter();
    let cells = members.map(|(at, name)| (name, Cell(batch.column(*at), row)));
    let written = serde_json::Serializer::new(out).collect_map(cells);
    debug_assert!(written.is_ok(), "memory takes all that is written");
}

/// A row of a column.
struct Cell<'a>(&'a Values, usize);

impl Serialize for Cell<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(values, row) = *self;
        if values.is_null(row) {
            return to.serialize_unit();
        }
        match values {
            Values::Null => to.serialize_unit(),
            Values::Boolean(values) => to.serialize_bool(values.value(row)),
            Values::Int8(values) => to.serialize_i8(values.value(row)),
            Values::Int16(values) => to.serialize_i16(values.value(row)),
            Values::Int32(values) => to.serialize_i32(values.value(row)),
            Values::Int64(values) => to.serialize_i64(values.value(row)),
            Values::Int128(values) => to.serialize_i128(values.value(row)),
            Values::UInt8(values) => to.serialize_u8(values.value(row)),
            Values::UInt16(values) => to.serialize_u16(values.value(row)),
            Values::UInt32(values) => to.serialize_u32(values.value(row)),
            Values::UInt64(values) => to.serialize_u64(values.value(row)),
            Values::UInt128(values) => to.serialize_u128(values.value(row)),
            // JSON has no number for what is not finite.
            Values::Float32(numbers) if !numbers.value(row).is_finite() => text(values, row, to),
            Values::Float64(numbers) if !numbers.value(row).is_finite() => text(values, row, to),
            Values::Float32(values) => to.serialize_f32(values.value(row)),
            Values::Float64(values) => to.serialize_f64(values.value(row)),
            Values::String(values) => to.serialize_str(values.value(row)),
            // What is no text is a list of its bytes.
            Values::Binary(values) => match std::str::from_utf8(values.value(row)) {
                Ok(text) => to.serialize_str(text),
                Err(_) => to.serialize_bytes(values.value(row)),
            },
            Values::Date(values) => moment(to, |out| write_date(values.value(row), out)),
            Values::Time(values) => moment(to, |out| write_time(values.value(row), out)),
            Values::Datetime(values, unit, zone) => moment(to, |out| {
                write_datetime(values.value(row), *unit, *zone, out)
            }),
            Values::Duration(values) => to.serialize_i64(values.value(row)),
            Values::Decimal(values, scale) => {
                let mut digits = Vec::new();
                push_decimal(values.value(row), *scale, &mut digits);
                raw(digits, to)
            }
            Values::List(lists, inner) => elements(range_of_list(lists, row), inner, to),
            Values::Array(arrays, inner) => elements(range_of_array(arrays, row), inner, to),
            Values::Struct(_, fields) => {
                let mut object = to.serialize_map(Some(fields.len()))?;
                for (name, values) in fields {
                    object.serialize_entry(name, &Cell(values, row))?;
                }
                object.end()
            }
        }
    }
}

fn range_of_list(lists: &ListArray<i64>, row: usize) -> std::ops::Range<usize> {
    let (begin, end) = lists.offsets().start_end(row);
    begin..end
}

fn range_of_array(arrays: &FixedSizeListArray, row: usize) -> std::ops::Range<usize> {
    row * arrays.size()..(row + 1) * arrays.size()
}

fn elements<S: Serializer>(
    rows: std::ops::Range<usize>,
    inner: &Values,
    to: S,
) -> Result<S::Ok, S::Error> {
    let mut list = to.serialize_seq(Some(rows.len()))?;
    for row in rows {
        list.serialize_element(&Cell(inner, row))?;
    }
    list.end()
}

/// A string of a column's text.
fn text<S: Serializer>(values: &Values, row: usize, to: S) -> Result<S::Ok, S::Error> {
    let mut scratch = Vec::new();
    to.serialize_str(&String::from_utf8_lossy(values.text(row, &mut scratch)))
}

/// A string of what is written if it has a text, and the number that it is if not.
fn moment<S: Serializer>(
    to: S,
    write: impl FnOnce(&mut Vec<u8>) -> bool,
) -> Result<S::Ok, S::Error> {
    let mut out = Vec::new();
    match write(&mut out) {
        true => to.serialize_str(&String::from_utf8_lossy(&out)),
        false => raw(out, to),
    }
}

/// Digits as they are, however many.
fn raw<S: Serializer>(digits: Vec<u8>, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::Error;
    let digits = String::from_utf8(digits).map_err(S::Error::custom)?;
    RawValue::from_string(digits)
        .map_err(S::Error::custom)?
        .serialize(to)
}
