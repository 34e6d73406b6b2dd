//! The dtypes that a field can be decoded to, and how messages print them: as
//! Polars does, so that they can be pasted.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Categories that a message shows of an Enum.
const SHOWN_CATEGORIES: usize = 8;

/// A dtype of Polars, with its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FieldType {
    String,
    Binary,
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    Int128,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    UInt128,
    Float32,
    Float64,
    Date,
    Time,
    Datetime {
        unit: TimeUnit,
        zone: Option<String>,
    },
    Duration(TimeUnit),
    /// At most 38 digits, as many of them behind the point as the scale says.
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// Made as String; who has Polars casts it.
    Categorical,
    /// Made as String, of its categories only; who has Polars casts it.
    Enum(Arc<Categories>),
    List(Box<FieldType>),
    Array(Box<FieldType>, usize),
    Struct(Vec<Field>),
}

/// A field to decode, and the dtype to decode it to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    pub dtype: FieldType,
}

/// What a number of a Datetime or a Duration counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// The texts that an Enum takes.
#[derive(Debug, PartialEq, Eq)]
pub struct Categories {
    in_order: Vec<String>,
    all: HashSet<Box<[u8]>, RandomState>,
}

impl FieldType {
    /// The dtype without parameters that Polars gives this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "String" => Self::String,
            "Binary" => Self::Binary,
            "Boolean" => Self::Boolean,
            "Int8" => Self::Int8,
            "Int16" => Self::Int16,
            "Int32" => Self::Int32,
            "Int64" => Self::Int64,
            "Int128" => Self::Int128,
            "UInt8" => Self::UInt8,
            "UInt16" => Self::UInt16,
            "UInt32" => Self::UInt32,
            "UInt64" => Self::UInt64,
            "UInt128" => Self::UInt128,
            "Float32" => Self::Float32,
            "Float64" => Self::Float64,
            "Date" => Self::Date,
            "Time" => Self::Time,
            _ => return None,
        })
    }

    /// Whether columns of it are made of something that Polars has to cast, here or
    /// further in: of String, or of lists where an array holds no values.
    pub fn is_cast_by_polars(&self) -> bool {
        match self {
            Self::Categorical | Self::Enum(_) => true,
            Self::Array(_, 0) => true,
            Self::List(inner) | Self::Array(inner, _) => inner.is_cast_by_polars(),
            Self::Struct(fields) => fields.iter().any(|field| field.dtype.is_cast_by_polars()),
            _ => false,
        }
    }
}

impl TimeUnit {
    /// The unit that Polars gives this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "ms" => Some(Self::Milliseconds),
            "us" => Some(Self::Microseconds),
            "ns" => Some(Self::Nanoseconds),
            _ => None,
        }
    }

    /// The name that Polars gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Microseconds => "us",
            Self::Nanoseconds => "ns",
        }
    }

    /// How many nanoseconds one is.
    pub fn nanoseconds(self) -> i64 {
        match self {
            Self::Milliseconds => 1_000_000,
            Self::Microseconds => 1_000,
            Self::Nanoseconds => 1,
        }
    }
}

impl Categories {
    /// These texts, in this order.
    pub fn new(in_order: Vec<String>) -> Self {
        let all = in_order.iter().map(|text| text.as_bytes().into());
        Self {
            all: all.collect(),
            in_order,
        }
    }

    /// All of them, in their order.
    pub fn in_order(&self) -> &[String] {
        &self.in_order
    }

    /// Whether the text is one of them.
    pub fn contains(&self, text: &[u8]) -> bool {
        self.all.contains(text)
    }
}

/// Prints the dtype as Polars does; of many categories the first few.
impl fmt::Display for FieldType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Datetime { unit, zone } => {
                let zone = zone.as_deref().map_or("None".to_owned(), quote);
                let unit = unit.name();
                write!(f, "Datetime(time_unit='{unit}', time_zone={zone})")
            }
            Self::Duration(unit) => write!(f, "Duration(time_unit='{}')", unit.name()),
            Self::Decimal { precision, scale } => {
                write!(f, "Decimal(precision={precision}, scale={scale})")
            }
            Self::Enum(categories) => write!(f, "Enum(categories=[{categories}])"),
            Self::List(inner) => write!(f, "List({inner})"),
            Self::Array(_, _) => self.fmt_array(f),
            Self::Struct(fields) => {
                f.write_str("Struct({")?;
                for (at, field) in fields.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{}: {}", quote(&field.name), field.dtype)?;
                }
                f.write_str("})")
            }
            // A variant without parameters is printed by its name.
            plain => write!(f, "{plain:?}"),
        }
    }
}

impl FieldType {
    /// An array of arrays is one of more dimensions.
    fn fmt_array(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shape = Vec::new();
        let mut dtype = self;
        while let Self::Array(inner, width) = dtype {
            shape.push(width.to_string());
            dtype = inner;
        }
        let comma = if shape.len() == 1 { "," } else { "" };
        write!(f, "Array({dtype}, shape=({}{comma}))", shape.join(", "))
    }
}

impl fmt::Display for Categories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.in_order.iter().take(SHOWN_CATEGORIES);
        let shown: Vec<String> = shown.map(|text| quote(text)).collect();
        f.write_str(&shown.join(", "))?;
        if self.in_order.len() > shown.len() {
            write!(f, ", … ({} in all)", self.in_order.len())?;
        }
        Ok(())
    }
}

/// A text as Python prints it, near enough.
fn quote(text: &str) -> String {
    let mark = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    let mut quoted = String::from(mark);
    for c in text.chars() {
        match c {
            '"' if mark != '"' => quoted.push(c),
            '\'' if mark != '\'' => quoted.push(c),
            c => quoted.extend(c.escape_debug()),
        }
    }
    quoted.push(mark);
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dtypes_are_printed_as_polars_prints_them() {
        let zoned = |zone: Option<&str>| FieldType::Datetime {
            unit: TimeUnit::Microseconds,
            zone: zone.map(str::to_owned),
        };
        let array = |inner, width| FieldType::Array(Box::new(inner), width);
        let field = |name: &str, dtype| Field {
            name: name.to_owned(),
            dtype,
        };
        let decimal = FieldType::Decimal {
            precision: 10,
            scale: 2,
        };
        let categories = vec!["a".to_owned(), "it's".to_owned()];
        let cases = [
            (FieldType::Int64, "Int64"),
            (FieldType::Categorical, "Categorical"),
            (zoned(None), "Datetime(time_unit='us', time_zone=None)"),
            (
                zoned(Some("Europe/Paris")),
                "Datetime(time_unit='us', time_zone='Europe/Paris')",
            ),
            (
                FieldType::Duration(TimeUnit::Nanoseconds),
                "Duration(time_unit='ns')",
            ),
            (decimal, "Decimal(precision=10, scale=2)"),
            (
                FieldType::Enum(Arc::new(Categories::new(categories))),
                "Enum(categories=['a', \"it's\"])",
            ),
            (
                FieldType::List(Box::new(FieldType::List(Box::new(FieldType::Int64)))),
                "List(List(Int64))",
            ),
            (array(FieldType::Int64, 3), "Array(Int64, shape=(3,))"),
            (
                array(array(FieldType::Int64, 3), 2),
                "Array(Int64, shape=(2, 3))",
            ),
            (
                FieldType::Struct(vec![
                    field("a", FieldType::Int64),
                    field("b'\"\n", FieldType::Date),
                ]),
                "Struct({'a': Int64, 'b\\'\"\\n': Date})",
            ),
        ];
        for (dtype, text) in cases {
            assert_eq!(dtype.to_string(), text);
        }
    }

    #[test]
    fn of_many_categories_the_first_are_shown() {
        let many = Categories::new((0..1000).map(|n| n.to_string()).collect());
        assert!(many.to_string().ends_with("'7', … (1000 in all)"));
        assert!(many.contains(b"999") && !many.contains(b"1000"));
    }
}
