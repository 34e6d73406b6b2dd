//! Guesses dtypes from texts.
//!
//! A guess takes every text that it was made from, and loses nothing that a text
//! says, but for digits that a float has no room for, and those that other
//! moments of the field leave none for.

use std::collections::HashMap;

use polars_arrow::array::BinaryViewArray;

use super::chunk::Table;
use super::dtype::{Field, FieldType, TimeUnit};
use super::json::Json;
use super::temporal::{Moment, iso_date};
use super::text::{Float, Integer, is_utf8, parse_bool};

/// Lists and objects in one another that are still looked into.
const MAX_DEPTH: usize = 32;
/// Digits of a fraction that microseconds hold.
const MICROSECOND_DIGITS: usize = 6;

/// A dtype for each column of a table, whose columns are of Binary.
pub fn guess_fields(table: &Table) -> Vec<Field> {
    let columns = table.columns.iter();
    columns
        .map(|column| {
            let mut guess = Guess::new();
            let chunks = column.chunks.iter();
            for texts in chunks.filter_map(|chunk| chunk.as_any().downcast_ref::<BinaryViewArray>())
            {
                texts.iter().flatten().for_each(|text| guess.see(text));
            }
            Field {
                name: column.name.clone(),
                dtype: guess.dtype(),
            }
        })
        .collect()
}

/// What the texts of one field, seen so far, may be.
#[derive(Debug)]
struct Guess {
    is_empty: bool,
    are_utf8: bool,
    are_booleans: bool,
    are_dates: bool,
    numbers: Option<Numbers>,
    moments: Option<Moments>,
    json: Shape,
}

impl Guess {
    /// Nothing was seen.
    fn new() -> Self {
        Self {
            is_empty: true,
            are_utf8: true,
            are_booleans: true,
            are_dates: true,
            numbers: Some(Numbers::default()),
            moments: Some(Moments::default()),
            json: Shape::Null,
        }
    }

    /// Takes a text into account.
    fn see(&mut self, text: &[u8]) {
        self.is_empty = false;
        self.are_utf8 &= is_utf8(text);
        self.are_booleans &= text.len() > 1 && parse_bool(text).is_some();
        self.are_dates &= is_plain(text) && iso_date(text).is_some();
        self.numbers = self.numbers.take().and_then(|numbers| numbers.with(text));
        self.moments = self.moments.take().and_then(|moments| moments.with(text));
        if !matches!(self.json, Shape::Mixed) {
            let json = std::mem::replace(&mut self.json, Shape::Mixed);
            self.json = json.or(Shape::of_cell(text));
        }
    }

    /// The dtype that all texts seen fit.
    fn dtype(self) -> FieldType {
        if self.is_empty {
            return FieldType::String;
        }
        if !self.are_utf8 {
            return FieldType::Binary;
        }
        if self.are_booleans {
            return FieldType::Boolean;
        }
        if self.are_dates {
            return FieldType::Date;
        }
        let numbers = self.numbers.and_then(Numbers::dtype);
        let moments = || self.moments.and_then(Moments::dtype);
        let json = || Some(self.json).filter(Shape::has_value)?.dtype();
        numbers
            .or_else(moments)
            .or_else(json)
            .unwrap_or(FieldType::String)
    }
}

/// Whether a date has a year of four digits: those of others are no dates to
/// whoever writes them.
fn is_plain(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit)
}

/// What texts of numbers have been seen.
#[derive(Debug, Default, Clone, Copy)]
struct Numbers {
    integer: bool,
    /// An integer that no Int64 holds.
    big: bool,
    decimal: bool,
    /// Infinite, or none.
    word: bool,
}

impl Numbers {
    /// With one more, if it is one.
    fn with(mut self, text: &[u8]) -> Option<Self> {
        match NumberKind::of(text)? {
            NumberKind::Integer => self.integer = true,
            NumberKind::Big => self.big = true,
            NumberKind::Decimal => self.decimal = true,
            NumberKind::Word => self.word = true,
        }
        Some(self)
    }

    /// Integers that no Int64 holds may be anybody's keys, whose digits count;
    /// beside decimals they are measured.
    fn dtype(self) -> Option<FieldType> {
        match self {
            Self { decimal: true, .. } => Some(FieldType::Float64),
            Self { big: true, .. } | Self { integer: false, .. } => None,
            Self { word: true, .. } => Some(FieldType::Float64),
            _ => Some(FieldType::Int64),
        }
    }
}

enum NumberKind {
    Integer,
    Big,
    Decimal,
    Word,
}

impl NumberKind {
    /// Of a number as machines write it: no plus, and no zeros in front, as those
    /// of a key or a telephone number may count.
    fn of(text: &[u8]) -> Option<Self> {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        if !digits.iter().any(u8::is_ascii_digit) {
            return f64::parse(text).map(|_| Self::Word);
        }
        if !is_digit(digits.first()) && digits.first() != Some(&b'.') {
            return None;
        }
        if digits.first() == Some(&b'0') && is_digit(digits.get(1)) {
            return None;
        }
        if digits.iter().all(u8::is_ascii_digit) && text != b"-0" {
            return Some(match i64::parse(text) {
                Some(_) => Self::Integer,
                None => Self::Big,
            });
        }
        // What becomes infinite was no number.
        let value = f64::parse(text)?;
        value.is_finite().then_some(Self::Decimal)
    }
}

/// What texts of moments have been seen.
#[derive(Debug, Default, Clone, Copy)]
struct Moments {
    has_offset: Option<bool>,
    fraction_digits: usize,
    are_beyond_nanoseconds: bool,
}

impl Moments {
    /// With one more, if it is one as the others are.
    fn with(mut self, text: &[u8]) -> Option<Self> {
        let moment = Moment::parse(text).filter(|_| is_plain(text))?;
        if *self.has_offset.get_or_insert(moment.has_offset) != moment.has_offset {
            return None;
        }
        self.fraction_digits = self.fraction_digits.max(moment.fraction_digits);
        self.are_beyond_nanoseconds |= moment.count(TimeUnit::Nanoseconds).is_none();
        Some(self)
    }

    fn dtype(self) -> Option<FieldType> {
        let is_fine = self.fraction_digits > MICROSECOND_DIGITS && !self.are_beyond_nanoseconds;
        Some(FieldType::Datetime {
            unit: match is_fine {
                true => TimeUnit::Nanoseconds,
                false => TimeUnit::Microseconds,
            },
            zone: self.has_offset?.then(|| "UTC".to_owned()),
        })
    }
}

/// What values of JSON have in common.
#[derive(Debug)]
enum Shape {
    /// Any: there was nothing but null.
    Null,
    Boolean,
    Integer,
    /// Integers, one of which no Int64 holds.
    Big,
    Float,
    String,
    List(Box<Shape>),
    Object(Members),
    /// Nothing that one dtype holds.
    Mixed,
}

impl Shape {
    /// The text of a cell, if it is a list, an object, or null.
    fn of_cell(text: &[u8]) -> Self {
        match Json::parse(text) {
            Some(json) if json.is_list() || json.is_object() || json.is_null() => Self::of(json, 0),
            _ => Self::Mixed,
        }
    }

    fn of(json: Json<'_>, depth: usize) -> Self {
        if depth > MAX_DEPTH {
            return Self::Mixed;
        }
        if json.is_null() {
            Self::Null
        } else if json.boolean().is_some() {
            Self::Boolean
        } else if let Some(number) = json.number() {
            Self::of_number(number.as_bytes())
        } else if json.is_list() {
            Self::of_list(json, depth)
        } else if json.is_object() {
            Members::of(json, depth).map_or(Self::Mixed, Self::Object)
        } else {
            json.string().map_or(Self::Mixed, |_| Self::String)
        }
    }

    fn of_number(number: &[u8]) -> Self {
        match NumberKind::of(number) {
            Some(NumberKind::Integer) => Self::Integer,
            Some(NumberKind::Big) => Self::Big,
            Some(NumberKind::Decimal) => Self::Float,
            Some(NumberKind::Word) | None => Self::Mixed,
        }
    }

    fn of_list(json: Json<'_>, depth: usize) -> Self {
        let mut inner = Self::Null;
        let all = json.elements(|element| {
            let before = std::mem::replace(&mut inner, Self::Null);
            inner = before.or(Self::of(element, depth + 1));
            !matches!(inner, Self::Mixed)
        });
        match all {
            true => Self::List(Box::new(inner)),
            false => Self::Mixed,
        }
    }

    /// What holds values of either.
    fn or(self, other: Self) -> Self {
        use Shape::{Big, Boolean, Float, Integer, List, Mixed, Null, Object, String};
        match (self, other) {
            (Null, shape) | (shape, Null) => shape,
            (Boolean, Boolean) => Boolean,
            (String, String) => String,
            (Integer, Integer) => Integer,
            (Integer | Big, Integer | Big) => Big,
            (Integer | Big | Float, Integer | Big | Float) => Float,
            (List(one), List(other)) => match one.or(*other) {
                Mixed => Mixed,
                inner => List(Box::new(inner)),
            },
            (Object(one), Object(other)) => one.or(other).map_or(Mixed, Object),
            _ => Mixed,
        }
    }

    /// Whether there is more than nulls and empty lists.
    fn has_value(&self) -> bool {
        match self {
            Self::Null => false,
            Self::List(inner) => inner.has_value(),
            Self::Object(members) => members.shapes.iter().any(|(_, shape)| shape.has_value()),
            _ => true,
        }
    }

    /// The dtype, if there is one.
    fn dtype(self) -> Option<FieldType> {
        match self {
            Self::Null | Self::String => Some(FieldType::String),
            Self::Boolean => Some(FieldType::Boolean),
            Self::Integer => Some(FieldType::Int64),
            Self::Float => Some(FieldType::Float64),
            Self::List(inner) => Some(FieldType::List(Box::new(inner.dtype()?))),
            Self::Object(members) => members.dtype(),
            Self::Big | Self::Mixed => None,
        }
    }
}

/// The keys of objects, in order of first appearance.
#[derive(Debug, Default)]
struct Members {
    shapes: Vec<(String, Shape)>,
    places: HashMap<String, usize>,
}

impl Members {
    fn of(json: Json<'_>, depth: usize) -> Option<Self> {
        let mut members = Self::default();
        let all = json.members(|key, value| {
            // Of a key that is repeated, the last value counts; what comes before
            // may be anything.
            *members.at(&key) = Shape::of(value, depth + 1);
            !key.contains('\0')
        });
        let are_shapes = |members: &Self| {
            let mut shapes = members.shapes.iter();
            shapes.all(|(_, shape)| !matches!(shape, Shape::Mixed))
        };
        Some(members).filter(|members| all && are_shapes(members))
    }

    fn at(&mut self, key: &str) -> &mut Shape {
        let place = match self.places.get(key) {
            Some(&place) => place,
            None => {
                self.places.insert(key.to_owned(), self.shapes.len());
                self.shapes.push((key.to_owned(), Shape::Null));
                self.shapes.len() - 1
            }
        };
        &mut self.shapes[place].1
    }

    fn or(mut self, other: Self) -> Option<Self> {
        for (key, shape) in other.shapes {
            let place = self.at(&key);
            let before = std::mem::replace(place, Shape::Null);
            *place = before.or(shape);
            if matches!(place, Shape::Mixed) {
                return None;
            }
        }
        Some(self)
    }

    /// No dtype holds objects without keys.
    fn dtype(self) -> Option<FieldType> {
        if self.shapes.is_empty() {
            return None;
        }
        let fields = self.shapes.into_iter().map(|(name, shape)| {
            let dtype = shape.dtype()?;
            Some(Field { name, dtype })
        });
        Some(FieldType::Struct(fields.collect::<Option<_>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::super::column::Column;
    use super::*;

    fn guess(texts: &[&str]) -> String {
        let mut guess = Guess::new();
        texts.iter().for_each(|text| guess.see(text.as_bytes()));
        let dtype = guess.dtype();
        let mut column = Column::with_room(&dtype, 0);
        for (row, text) in texts.iter().enumerate() {
            assert!(column.set(row, text.as_bytes()), "{texts:?}: {dtype}");
        }
        dtype.to_string()
    }

    #[test]
    fn numbers() {
        let cases: [(&[&str], &str); 29] = [
            (&["1", "-2", "0"], "Int64"),
            (&["9223372036854775807", "-9223372036854775808"], "Int64"),
            (&["9223372036854775808"], "String"),
            (&["1", "9223372036854775808"], "String"),
            (&["1.5", "9223372036854775808"], "Float64"),
            (&["+1"], "String"),
            (&["007"], "String"),
            (&["007.5"], "String"),
            (&["1", "007"], "String"),
            (&["-0"], "Float64"),
            (&["1", "2.5"], "Float64"),
            (&["-0.5", ".5", "5.", "-.5"], "Float64"),
            (&["1e3", "1E-3", "1.5e+3"], "Float64"),
            (&["1e999"], "String"),
            (&["inf"], "String"),
            (&["nan", "nan"], "String"),
            (&["1.5", "nan", "-inf", "Infinity"], "Float64"),
            (&["1", "NaN"], "Float64"),
            (&["nan", "9223372036854775808"], "String"),
            (&["1", ""], "String"),
            (&["1 "], "String"),
            (&["1", "one"], "String"),
            (&["-"], "String"),
            (&["."], "String"),
            (&["0x1"], "String"),
            (&["1_000"], "String"),
            (&["--1"], "String"),
            (&["1", "true"], "String"),
            (&[], "String"),
        ];
        for (texts, dtype) in cases {
            assert_eq!(guess(texts), dtype, "{texts:?}");
        }
    }

    #[test]
    fn booleans_dates_and_moments() {
        let naive = "Datetime(time_unit='us', time_zone=None)";
        let utc = "Datetime(time_unit='us', time_zone='UTC')";
        let fine = "Datetime(time_unit='ns', time_zone=None)";
        let cases: [(&[&str], &str); 20] = [
            (&["true", "FALSE", "True"], "Boolean"),
            (&["1", "0"], "Int64"),
            (&["true", "1"], "String"),
            (&["2024-01-01", "1999-12-31"], "Date"),
            (&["2024-01-01", "2024-02-30"], "String"),
            (&["+12024-01-01"], "String"),
            (&["2024-01-01", "20000"], "String"),
            (&["2024-01-01T12:00", "2024-01-01 12:00:00.123456"], naive),
            (&["2024-01-01", "2024-01-01T12:00"], naive),
            (&["2024-01-01T12:00:00.1234567"], fine),
            (&["2024-01-01T12:00:00.1234567", "2300-01-01T00:00"], naive),
            (&["2024-01-01T12:00Z", "2024-01-01T12:00:00+02:00"], utc),
            (&["2024-01-01T12:00Z", "2024-01-01T12:00"], "String"),
            (&["2024-01-01T12:00Z", "2024-01-01"], "String"),
            (
                &["2024-01-01T12:00:00.123456789Z"],
                "Datetime(time_unit='ns', time_zone='UTC')",
            ),
            (&["-0044-03-15T12:00"], "String"),
            (&["12:00"], "String"),
            (&["PT1S"], "String"),
            (&["2024-01-01T12:00", "1704110400000"], "String"),
            (&["2024-01-01T24:00"], "String"),
        ];
        for (texts, dtype) in cases {
            assert_eq!(guess(texts), dtype, "{texts:?}");
        }
    }

    #[test]
    fn json() {
        let cases: [(&[&str], &str); 32] = [
            (&["[1, 2]", "[]", "null"], "List(Int64)"),
            (&["[1]", "[1.5]"], "List(Float64)"),
            (&["[1, null]"], "List(Int64)"),
            (&["[true]", "[null]"], "List(Boolean)"),
            (&["[\"a\"]"], "List(String)"),
            (&["[1, \"a\"]"], "String"),
            (&["[1]", "{\"a\": 1}"], "String"),
            (&["[1]", "1"], "String"),
            (&["[1"], "String"),
            (&["null"], "String"),
            (&["[]"], "String"),
            (&["[]", "[null]", "[[]]"], "String"),
            (&["[[]]", "[[1]]"], "List(List(Int64))"),
            (&["[[], 1]"], "String"),
            (
                &["{\"a\": 1}", "{\"b\": \"x\"}"],
                "Struct({'a': Int64, 'b': String})",
            ),
            (
                &["{\"b\": 1, \"a\": 2}", "{\"c\": 3, \"a\": 4.5}"],
                "Struct({'b': Int64, 'a': Float64, 'c': Int64})",
            ),
            (&["{\"a\": 1}", "{\"a\": \"x\"}"], "String"),
            (
                &["{\"a\": 1, \"b\": null}"],
                "Struct({'a': Int64, 'b': String})",
            ),
            (
                &["{\"a\": 1, \"b\": []}"],
                "Struct({'a': Int64, 'b': List(String)})",
            ),
            (&["{}"], "String"),
            (&["{}", "{\"a\": 1}", "null"], "Struct({'a': Int64})"),
            (&["{\"a\": 1, \"b\": {}}"], "String"),
            (&["{\"a\": null}"], "String"),
            (
                &["[{\"a\": [1]}, null, {}]"],
                "List(Struct({'a': List(Int64)}))",
            ),
            (&["{\"a\": [], \"a\": 1}"], "Struct({'a': Int64})"),
            (&["{\"a\": [1, \"x\"], \"a\": 1}"], "Struct({'a': Int64})"),
            (&["[9223372036854775808]"], "String"),
            (&["[9223372036854775808, 1.5]"], "List(Float64)"),
            (&["[1e999]"], "String"),
            (&["{\"a\\u0000\": 1}"], "String"),
            (&["[\"\\ud800\"]"], "String"),
            (&["\"a\""], "String"),
        ];
        for (texts, dtype) in cases {
            assert_eq!(guess(texts), dtype, "{texts:?}");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_text() {
        let nest = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert!(guess(&[&nest(MAX_DEPTH)]).starts_with("List(List("));
        assert_eq!(guess(&[&nest(MAX_DEPTH + 1)]), "String");
        assert_eq!(guess(&[&nest(100_000)]), "String");
    }

    #[test]
    fn what_is_not_utf8_is_binary() {
        let mut guess = Guess::new();
        guess.see(b"1");
        guess.see(b"\xff");
        assert_eq!(guess.dtype(), FieldType::Binary);
    }
}
