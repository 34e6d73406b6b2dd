//! The dtypes of Polars, as Python has them, turned into this crate's.
//!
//! What cannot be read from text is refused here, before anything is sent.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyType;

use std::collections::HashSet;
use std::sync::Arc;

use crate::decode::{Categories, Field, FieldType, MAX_PRECISION, TimeUnit};

/// Names and dtypes of fields, as Python gives them.
pub type PySchema<'py> = Vec<(String, Bound<'py, PyAny>)>;

/// Dtypes in dtypes: JSON that is deeper is not read either.
const MAX_DEPTH: usize = 128;
/// Values of an Array; more have no place in an index.
const MAX_WIDTH: usize = i32::MAX as usize;

/// A field of a schema.
pub fn to_field((name, dtype): &(String, Bound<'_, PyAny>)) -> PyResult<Field> {
    match Dtype(dtype.clone()).parse(0) {
        Ok(parsed) => Ok(Field {
            name: name.clone(),
            dtype: parsed,
        }),
        Err(Refusal::Raised(error)) => Err(error),
        Err(Refusal::Refused(reason)) => {
            let dtype = dtype.str()?;
            Err(PyValueError::new_err(format!(
                "schema: field {name:?}: cannot make a column of {dtype}: {reason}"
            )))
        }
    }
}

/// The dtype of Polars that a cast to it needs: that of the schema where only
/// Polars knows what it is, and with all its parameters elsewhere.
pub fn to_cast<'py>(given: &Bound<'py, PyAny>, dtype: &FieldType) -> PyResult<Bound<'py, PyAny>> {
    let py = given.py();
    let polars = py.import("polars")?;
    match dtype {
        FieldType::Categorical | FieldType::Enum(_) => Ok(given.clone()),
        FieldType::List(inner) => {
            let inner = to_cast(&given.getattr("inner")?, inner)?;
            polars.getattr("List")?.call1((inner,))
        }
        FieldType::Array(inner, width) => {
            let inner = to_cast(&given.getattr("inner")?, inner)?;
            polars.getattr("Array")?.call1((inner, *width))
        }
        FieldType::Struct(fields) => {
            let given = given.getattr("fields")?.try_iter()?;
            let fields = fields.iter().zip(given).map(|(field, given)| {
                let dtype = to_cast(&given?.getattr("dtype")?, &field.dtype)?;
                polars.getattr("Field")?.call1((&field.name, dtype))
            });
            let fields: Vec<_> = fields.collect::<PyResult<_>>()?;
            polars.getattr("Struct")?.call1((fields,))
        }
        plain => to_polars(py, plain),
    }
}

/// A dtype as Polars has it.
pub fn to_polars<'py>(py: Python<'py>, dtype: &FieldType) -> PyResult<Bound<'py, PyAny>> {
    let polars = py.import("polars")?;
    let class = |name: &str| polars.getattr(name);
    match dtype {
        FieldType::Datetime { unit, zone } => class("Datetime")?.call1((unit.name(), zone)),
        FieldType::Duration(unit) => class("Duration")?.call1((unit.name(),)),
        FieldType::Decimal { precision, scale } => class("Decimal")?.call1((*precision, *scale)),
        FieldType::Enum(categories) => class("Enum")?.call1((categories.in_order(),)),
        FieldType::List(inner) => class("List")?.call1((to_polars(py, inner)?,)),
        FieldType::Array(inner, width) => class("Array")?.call1((to_polars(py, inner)?, *width)),
        FieldType::Struct(fields) => {
            let fields = fields
                .iter()
                .map(|field| class("Field")?.call1((&field.name, to_polars(py, &field.dtype)?)));
            class("Struct")?.call1((fields.collect::<PyResult<Vec<_>>>()?,))
        }
        // Those without parameters are printed by their name.
        plain => class(&plain.to_string())?.call0(),
    }
}

/// Why a dtype is not taken.
enum Refusal {
    Raised(PyErr),
    Refused(String),
}

impl From<PyErr> for Refusal {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Refused(reason.into()))
}

/// A dtype of Polars: an instance, or its class.
struct Dtype<'py>(Bound<'py, PyAny>);

impl<'py> Dtype<'py> {
    fn parse(&self, depth: usize) -> Result<FieldType, Refusal> {
        if depth > MAX_DEPTH {
            return refuse(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        let Some(name) = self.name()? else {
            return refuse(format!("text cannot become {}", self.0.str()?));
        };
        if let Some(dtype) = FieldType::from_name(&name) {
            return Ok(dtype);
        }
        match name.as_str() {
            "Categorical" => Ok(FieldType::Categorical),
            "Datetime" => self.filled_in()?.datetime(),
            "Duration" => Ok(FieldType::Duration(self.filled_in()?.unit()?)),
            "Decimal" => self.filled_in()?.decimal(),
            "Enum" if self.is_class() => refuse("an Enum needs its categories"),
            "Enum" => self.categories(),
            "List" | "Array" | "Struct" if self.is_class() => refuse(format!(
                "{name} needs an inner dtype, as in {}",
                match name.as_str() {
                    "List" => "List(Int64)",
                    "Array" => "Array(Int64, 2)",
                    _ => "Struct({'a': Int64})",
                }
            )),
            "List" => Ok(FieldType::List(Box::new(self.inner(depth)?))),
            "Array" => self.array(depth),
            "Struct" => self.fields(depth),
            _ => refuse(format!("text cannot become {name}")),
        }
    }

    /// The name of the dtype's class, if it is one of Polars itself.
    fn name(&self) -> PyResult<Option<String>> {
        let Ok(class) = self.0.call_method0("base_type") else {
            return Ok(None);
        };
        let name: String = class.getattr("__name__")?.extract()?;
        let own = self.0.py().import("polars")?.getattr_opt(name.as_str())?;
        Ok(own.is_some_and(|own| own.is(&class)).then_some(name))
    }

    fn is_class(&self) -> bool {
        self.0.is_instance_of::<PyType>()
    }

    /// The dtype with the parameters that its class has by default.
    fn filled_in(&self) -> PyResult<Self> {
        Ok(Self(match self.is_class() {
            true => self.0.call0()?,
            false => self.0.clone(),
        }))
    }

    fn unit(&self) -> Result<TimeUnit, Refusal> {
        let name: String = self.0.getattr("time_unit")?.extract()?;
        match TimeUnit::from_name(&name) {
            Some(unit) => Ok(unit),
            None => refuse(format!("{name:?} is no time unit")),
        }
    }

    fn datetime(&self) -> Result<FieldType, Refusal> {
        Ok(FieldType::Datetime {
            unit: self.unit()?,
            zone: self.zone()?,
        })
    }

    /// The time zone, as Polars calls it.
    fn zone(&self) -> Result<Option<String>, Refusal> {
        if self.0.getattr("time_zone")?.is_none() {
            return Ok(None);
        }
        let py = self.0.py();
        let series = py.import("polars")?.getattr("Series")?;
        let column = match series.call1(("", Vec::<i64>::new(), &self.0)) {
            Ok(column) => column,
            Err(error) => {
                let text = error.value(py).to_string();
                return refuse(text.split(". ").next().unwrap_or_default());
            }
        };
        match column.getattr("dtype")?.getattr("time_zone")?.extract()? {
            Some(zone) if zone == "*" => refuse("'*' stands for any time zone"),
            zone => Ok(zone),
        }
    }

    fn decimal(&self) -> Result<FieldType, Refusal> {
        let precision: Option<i64> = self.0.getattr("precision")?.extract()?;
        let precision = precision.unwrap_or(i64::from(MAX_PRECISION));
        let scale: i64 = self.0.getattr("scale")?.extract()?;
        match (u8::try_from(precision), u8::try_from(scale)) {
            (Ok(precision @ 1..=MAX_PRECISION), Ok(scale)) if scale <= precision => {
                Ok(FieldType::Decimal { precision, scale })
            }
            _ => refuse(format!(
                "a precision is 1 to {MAX_PRECISION}, and a scale no larger than it"
            )),
        }
    }

    fn categories(&self) -> Result<FieldType, Refusal> {
        let categories = self.0.getattr("categories")?.call_method0("to_list")?;
        let categories = Categories::new(categories.extract()?);
        Ok(FieldType::Enum(Arc::new(categories)))
    }

    fn inner(&self, depth: usize) -> Result<FieldType, Refusal> {
        Dtype(self.0.getattr("inner")?).parse(depth + 1)
    }

    fn array(&self, depth: usize) -> Result<FieldType, Refusal> {
        let width: usize = self.0.getattr("size")?.extract()?;
        if width > MAX_WIDTH {
            return refuse(format!("an Array has at most {MAX_WIDTH} values"));
        }
        Ok(FieldType::Array(Box::new(self.inner(depth)?), width))
    }

    fn fields(&self, depth: usize) -> Result<FieldType, Refusal> {
        let mut fields = Vec::new();
        let mut seen = HashSet::new();
        for field in self.0.getattr("fields")?.try_iter()? {
            let field = field?;
            let name: String = field.getattr("name")?.extract()?;
            if !seen.insert(name.clone()) {
                return refuse(format!("it has two fields {name:?}"));
            }
            if name.contains('\0') {
                return refuse(format!("the name {name:?} has a zero byte"));
            }
            let dtype = Dtype(field.getattr("dtype")?).parse(depth + 1)?;
            fields.push(Field { name, dtype });
        }
        Ok(FieldType::Struct(fields))
    }
}
