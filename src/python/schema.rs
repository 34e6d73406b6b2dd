//! Arguments that become a plan: schema, id columns, bounds.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt, PyString};

use crate::decode::{Field, FieldType, Fields, IdColumns, OnMisfit, Plan};
use crate::entry_id::{End, EntryId, Start};

/// Names and dtypes as Python has them.
pub type PySchema<'py> = Vec<(String, Bound<'py, PyAny>)>;

/// The plan of a read.
pub fn plan(schema: Option<PySchema<'_>>, ids: IdColumns, strict: bool) -> PyResult<Plan> {
    let fields = match schema {
        None => Fields::Discover,
        Some(schema) => Fields::Schema(schema.into_iter().map(field).collect::<PyResult<_>>()?),
    };
    let on_misfit = match strict {
        true => OnMisfit::Raise,
        false => OnMisfit::Null,
    };
    Ok(Plan::new(ids, fields, on_misfit)?)
}

fn field((name, dtype): (String, Bound<'_, PyAny>)) -> PyResult<Field> {
    let text = dtype.str()?.to_string();
    match FieldType::from_name(&text) {
        Some(dtype) => Ok(Field { name, dtype }),
        None => Err(PyValueError::new_err(format!(
            "schema: field {name:?}: the dtype {text} is not supported yet (supported: {})",
            FieldType::ALL.map(FieldType::name).join(", "),
        ))),
    }
}

/// `start_id`.
pub fn start(value: &Bound<'_, PyAny>) -> PyResult<Start> {
    match bound("start_id", value)? {
        Bounds::Text(text) => Start::parse(&text).map_err(|e| invalid("start_id", &e)),
        Bounds::Milliseconds(ms) => Ok(Start::At(EntryId::new(ms, 0))),
    }
}

/// `end_id`.
pub fn end(value: &Bound<'_, PyAny>) -> PyResult<End> {
    match bound("end_id", value)? {
        Bounds::Text(text) => End::parse(&text).map_err(|e| invalid("end_id", &e)),
        Bounds::Milliseconds(ms) => Ok(End::At(EntryId::new(ms, u64::MAX))),
    }
}

enum Bounds {
    Text(String),
    Milliseconds(u64),
}

fn bound(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<Bounds> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Bounds::Text(text.extract()?));
    }
    match unsigned(value)? {
        Some(ms) => Ok(Bounds::Milliseconds(ms)),
        None if is_integer(value) => Err(PyValueError::new_err(format!(
            "{parameter}: {value} is not a number of milliseconds since the epoch that an \
             entry ID can have"
        ))),
        None => Err(PyTypeError::new_err(format!(
            "{parameter}: expected an entry ID as str, milliseconds as int, or a datetime, got {}",
            value.get_type().name()?
        ))),
    }
}

fn invalid(parameter: &str, error: &crate::entry_id::InvalidId) -> PyErr {
    PyValueError::new_err(format!("{parameter}: {error}"))
}

/// `count`.
pub fn count(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<usize>> {
    let Some(value) = value else {
        return Ok(None);
    };
    match unsigned(value)? {
        // A count that no memory could hold is no limit.
        Some(count) => Ok(Some(usize::try_from(count).unwrap_or(usize::MAX))),
        None if is_integer(value) => Err(PyValueError::new_err(format!(
            "count: expected a number of entries, at least 0, got {value}"
        ))),
        None => Err(PyTypeError::new_err(format!(
            "count: expected int or None, got {}",
            value.get_type().name()?
        ))),
    }
}

fn is_integer(value: &Bound<'_, PyAny>) -> bool {
    !value.is_instance_of::<PyBool>()
        && (value.is_instance_of::<PyInt>() || value.hasattr("__index__").unwrap_or(false))
}

/// An integer of 64 bits without sign, or nothing if it is none.
fn unsigned(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    if !is_integer(value) {
        return Ok(None);
    }
    Ok(value.extract().ok())
}
