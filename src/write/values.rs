//! The values of one column of a batch, and their text: what [`crate::decode`] reads
//! back as the same value.

use std::any::Any;

use polars_arrow::array::{
    Array, BinaryViewArray, BooleanArray, FixedSizeListArray, ListArray, PrimitiveArray,
    StructArray, Utf8ViewArray,
};
use polars_arrow::datatypes::{ArrowDataType, TimeUnit as ArrowTimeUnit};

use super::json;
use super::temporal::{Zone, write_date, write_datetime, write_time};
use crate::decode::TimeUnit;

/// A column of an Arrow dtype that has a text.
#[derive(Debug, Clone)]
pub enum Values {
    /// Nothing but nulls.
    Null,
    Boolean(BooleanArray),
    Int8(PrimitiveArray<i8>),
    Int16(PrimitiveArray<i16>),
    Int32(PrimitiveArray<i32>),
    Int64(PrimitiveArray<i64>),
    Int128(PrimitiveArray<i128>),
    UInt8(PrimitiveArray<u8>),
    UInt16(PrimitiveArray<u16>),
    UInt32(PrimitiveArray<u32>),
    UInt64(PrimitiveArray<u64>),
    UInt128(PrimitiveArray<u128>),
    Float32(PrimitiveArray<f32>),
    Float64(PrimitiveArray<f64>),
    String(Utf8ViewArray),
    Binary(BinaryViewArray),
    Date(PrimitiveArray<i32>),
    Time(PrimitiveArray<i64>),
    Datetime(PrimitiveArray<i64>, TimeUnit, Zone),
    /// Counts of any unit.
    Duration(PrimitiveArray<i64>),
    /// Counts of `10^-scale`.
    Decimal(PrimitiveArray<i128>, usize),
    List(ListArray<i64>, Box<Values>),
    Array(FixedSizeListArray, Box<Values>),
    Struct(StructArray, Vec<(String, Values)>),
}

impl Values {
    /// Takes an array; nothing, if its dtype has no text.
    pub fn of(array: &dyn Array) -> Option<Self> {
        use ArrowDataType as Arrow;
        Some(match array.dtype() {
            Arrow::Null => Self::Null,
            Arrow::Boolean => Self::Boolean(concrete(array)?),
            Arrow::Int8 => Self::Int8(concrete(array)?),
            Arrow::Int16 => Self::Int16(concrete(array)?),
            Arrow::Int32 => Self::Int32(concrete(array)?),
            Arrow::Int64 => Self::Int64(concrete(array)?),
            Arrow::Int128 => Self::Int128(concrete(array)?),
            Arrow::UInt8 => Self::UInt8(concrete(array)?),
            Arrow::UInt16 => Self::UInt16(concrete(array)?),
            Arrow::UInt32 => Self::UInt32(concrete(array)?),
            Arrow::UInt64 => Self::UInt64(concrete(array)?),
            Arrow::UInt128 => Self::UInt128(concrete(array)?),
            Arrow::Float32 => Self::Float32(concrete(array)?),
            Arrow::Float64 => Self::Float64(concrete(array)?),
            Arrow::Utf8View => Self::String(concrete(array)?),
            Arrow::BinaryView => Self::Binary(concrete(array)?),
            Arrow::Date32 => Self::Date(concrete(array)?),
            Arrow::Time64(ArrowTimeUnit::Nanosecond) => Self::Time(concrete(array)?),
            Arrow::Timestamp(unit, zone) => {
                let zone = match zone {
                    None => Zone::None,
                    Some(_) => Zone::Utc,
                };
                Self::Datetime(concrete(array)?, to_unit(*unit)?, zone)
            }
            Arrow::Duration(_) => Self::Duration(concrete(array)?),
            Arrow::Decimal(_, scale) => Self::Decimal(concrete(array)?, *scale),
            Arrow::LargeList(_) => {
                let lists: ListArray<i64> = concrete(array)?;
                let inner = Self::of(lists.values().as_ref())?;
                Self::List(lists, Box::new(inner))
            }
            Arrow::FixedSizeList(_, _) => {
                let arrays: FixedSizeListArray = concrete(array)?;
                let inner = Self::of(arrays.values().as_ref())?;
                Self::Array(arrays, Box::new(inner))
            }
            Arrow::Struct(fields) => {
                let structs: StructArray = concrete(array)?;
                let columns = fields.iter().zip(structs.values());
                let columns = columns
                    .map(|(field, values)| {
                        Some((field.name.to_string(), Self::of(values.as_ref())?))
                    })
                    .collect::<Option<_>>()?;
                Self::Struct(structs, columns)
            }
            _ => return None,
        })
    }

    /// Whether a row is null.
    #[inline]
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Boolean(values) => values.is_null(row),
            Self::Int8(values) => values.is_null(row),
            Self::Int16(values) => values.is_null(row),
            Self::Int32(values) => values.is_null(row),
            Self::Int64(values) => values.is_null(row),
            Self::Int128(values) => values.is_null(row),
            Self::UInt8(values) => values.is_null(row),
            Self::UInt16(values) => values.is_null(row),
            Self::UInt32(values) => values.is_null(row),
            Self::UInt64(values) => values.is_null(row),
            Self::UInt128(values) => values.is_null(row),
            Self::Float32(values) => values.is_null(row),
            Self::Float64(values) => values.is_null(row),
            Self::String(values) => values.is_null(row),
            Self::Binary(values) => values.is_null(row),
            Self::Date(values) => values.is_null(row),
            Self::Time(values) | Self::Datetime(values, _, _) | Self::Duration(values) => {
                values.is_null(row)
            }
            Self::Decimal(values, _) => values.is_null(row),
            Self::List(values, _) => values.is_null(row),
            Self::Array(values, _) => values.is_null(row),
            Self::Struct(values, _) => values.is_null(row),
        }
    }

    /// The text of a row that is not null: where it lies, or in `scratch`.
    #[inline]
    pub fn text<'a>(&'a self, row: usize, scratch: &'a mut Vec<u8>) -> &'a [u8] {
        match self {
            Self::String(values) => values.value(row).as_bytes(),
            Self::Binary(values) => values.value(row),
            _ => {
                scratch.clear();
                self.write_text(row, scratch);
                scratch
            }
        }
    }

    fn write_text(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Null => {}
            Self::Boolean(values) => out.extend_from_slice(match values.value(row) {
                true => b"true",
                false => b"false",
            }),
            Self::Int8(values) => push_integer(values.value(row), out),
            Self::Int16(values) => push_integer(values.value(row), out),
            Self::Int32(values) => push_integer(values.value(row), out),
            Self::Int64(values) => push_integer(values.value(row), out),
            Self::Int128(values) => push_integer(values.value(row), out),
            Self::UInt8(values) => push_integer(values.value(row), out),
            Self::UInt16(values) => push_integer(values.value(row), out),
            Self::UInt32(values) => push_integer(values.value(row), out),
            Self::UInt64(values) => push_integer(values.value(row), out),
            Self::UInt128(values) => push_integer(values.value(row), out),
            Self::Float32(values) => push_float(values.value(row), out),
            Self::Float64(values) => push_float(values.value(row), out),
            Self::String(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Self::Binary(values) => out.extend_from_slice(values.value(row)),
            Self::Date(values) => {
                write_date(values.value(row), out);
            }
            Self::Time(values) => {
                write_time(values.value(row), out);
            }
            Self::Datetime(values, unit, zone) => {
                write_datetime(values.value(row), *unit, *zone, out);
            }
            Self::Duration(values) => push_integer(values.value(row), out),
            Self::Decimal(values, scale) => push_decimal(values.value(row), *scale, out),
            Self::List(_, _) | Self::Array(_, _) | Self::Struct(_, _) => {
                json::write(self, row, out);
            }
        }
    }
}

fn concrete<A: Any + Clone>(array: &dyn Array) -> Option<A> {
    array.as_any().downcast_ref::<A>().cloned()
}

fn to_unit(unit: ArrowTimeUnit) -> Option<TimeUnit> {
    match unit {
        ArrowTimeUnit::Second => None,
        ArrowTimeUnit::Millisecond => Some(TimeUnit::Milliseconds),
        ArrowTimeUnit::Microsecond => Some(TimeUnit::Microseconds),
        ArrowTimeUnit::Nanosecond => Some(TimeUnit::Nanoseconds),
    }
}

fn push_integer(value: impl itoa::Integer, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// The shortest text that reads back as the same number.
fn push_float(value: impl zmij::Float, out: &mut Vec<u8>) {
    let mut buffer = zmij::Buffer::new();
    let text = buffer.format(value);
    out.extend_from_slice(if text == "NaN" {
        b"nan"
    } else {
        text.as_bytes()
    });
}

/// All digits, as many of them behind the point as the scale says.
pub fn push_decimal(value: i128, scale: usize, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(value.unsigned_abs()).as_bytes();
    let whole = digits.len().saturating_sub(scale);
    out.extend_from_slice(if whole == 0 { b"0" } else { &digits[..whole] });
    if scale == 0 {
        return;
    }
    out.push(b'.');
    out.resize(out.len() + scale.saturating_sub(digits.len()), b'0');
    out.extend_from_slice(&digits[whole..]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::parse_decimal;

    #[test]
    fn decimals_keep_their_scale_and_read_back() {
        let cases = [
            (0, 0, "0"),
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (1990, 2, "19.90"),
            (-123, 0, "-123"),
            (7, 38, "0.00000000000000000000000000000000000007"),
        ];
        for (value, scale, text) in cases {
            let mut out = Vec::new();
            push_decimal(value, scale, &mut out);
            assert_eq!(out, text.as_bytes());
            assert_eq!(parse_decimal(&out, 38, scale as u8), Some(value));
        }
    }

    #[test]
    fn floats_are_short_and_read_back() {
        let cases = [
            (0.1, "0.1"),
            (-0.0, "-0.0"),
            (1e300, "1e+300"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ];
        for (value, text) in cases {
            let mut out = Vec::new();
            push_float(value, &mut out);
            assert_eq!(out, text.as_bytes());
        }
    }
}
