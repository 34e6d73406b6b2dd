//! `scan_stream`: what its frames ask for beside batches, and the IDs that a
//! predicate wants.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, text};
use super::log::wait_and_log;
use super::progress::Progress;
use super::read_stream::read_table;
use crate::decode::{Fields, IdColumns, OnMisfit, Plan, Table};
use crate::entry_id::IdRange;
use crate::read::{self, Condition, Notes};

/// Checks the arguments of a scan, and sends nothing; the URL without its secrets.
#[pyfunction]
pub fn check_scan(
    url: &Bound<'_, PyAny>,
    stream: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<String> {
    checked(url, &Arguments(arguments), |arguments| {
        arguments.range(text("stream", stream)?)
    })
}

/// Checks the arguments of any scan, with those that make its query; the URL without
/// its secrets.
pub fn checked<'py, Q>(
    url: &Bound<'py, PyAny>,
    arguments: &Arguments<'py>,
    query: impl FnOnce(&Arguments<'py>) -> PyResult<Q>,
) -> PyResult<String> {
    let deployment = deployment(url)?;
    query(arguments)?;
    arguments.frames(&arguments.plan()?)?;
    arguments.number("infer_schema_length", 1)?;
    Ok(deployment.to_string())
}

/// Names of the fields that the first entries of a range have.
#[pyfunction]
pub fn sample_fields(
    py: Python<'_>,
    url: &Bound<'_, PyAny>,
    stream: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<Vec<String>> {
    let deployment = deployment(url)?;
    let arguments = Arguments(arguments);
    let mut query = arguments.range(text("stream", stream)?)?;
    let sample = arguments.number("infer_schema_length", 1)?;
    query.count = query.count.into_iter().chain(sample).min();
    Ok(names(read_table(
        py,
        &deployment,
        query,
        plan_of_names()?,
        &Progress::default(),
    )?))
}

/// What finds the names of fields: no value matters, whatever it is.
pub fn plan_of_names() -> PyResult<Plan> {
    let plan = Plan::new(IdColumns::default(), Fields::Discover, OnMisfit::Null);
    Ok(plan?)
}

/// The names that were found.
pub fn names(table: Table) -> Vec<String> {
    let columns = table.columns.into_iter();
    columns.map(|column| column.name).collect()
}

/// Splits a range; the first and the last ID of each part.
#[pyfunction]
pub fn split_range(
    py: Python<'_>,
    url: &Bound<'_, PyAny>,
    stream: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<Vec<(String, String)>> {
    let deployment = deployment(url)?;
    let stream = text("stream", stream)?;
    let arguments = Arguments(arguments);
    let splits = arguments.needed("splits", 1)?;
    let query = arguments.range(stream)?;
    let notes = Notes::default();
    let split = read::split_range(&deployment, &query, splits, &notes);
    let ranges = wait_and_log(py, &notes, split)?;
    let ends = |range: IdRange| (range.start().to_string(), range.end().to_string());
    Ok(ranges.into_iter().map(ends).collect())
}

/// What is known of the IDs of the entries that are wanted.
#[pyclass(frozen, from_py_object, module = "polars_redis._core")]
#[derive(Clone)]
pub struct IdBounds(pub Condition);

#[pymethods]
impl IdBounds {
    #[staticmethod]
    #[pyo3(signature = (least, greatest, sound_to = u64::MAX))]
    fn timestamp(least: u64, greatest: u64, sound_to: u64) -> Self {
        Self(Condition::Timestamp {
            from: least,
            to: greatest,
            sound_to,
        })
    }

    #[staticmethod]
    fn sequence(least: u64, greatest: u64) -> Self {
        Self(Condition::Sequence {
            from: least,
            to: greatest,
        })
    }

    #[staticmethod]
    fn ids(ids: Vec<String>) -> Self {
        Self(Condition::listed(ids.iter().map(String::as_str)))
    }

    #[staticmethod]
    fn text_from(text: String) -> Self {
        Self(Condition::TextFrom(text))
    }

    #[staticmethod]
    fn text_to(text: String) -> Self {
        Self(Condition::TextTo(text))
    }

    #[staticmethod]
    fn nothing() -> Self {
        Self(Condition::Nothing)
    }

    fn __and__(&self, other: &Self) -> Self {
        Self(Condition::Both(
            Box::new(self.0.clone()),
            Box::new(other.0.clone()),
        ))
    }

    fn __or__(&self, other: &Self) -> Self {
        Self(Condition::Either(
            Box::new(self.0.clone()),
            Box::new(other.0.clone()),
        ))
    }

    /// What follows for a stream of which nothing is known.
    fn __repr__(&self) -> String {
        match self.0.range(None) {
            None => "IdBounds(nothing)".to_owned(),
            Some(IdRange::ALL) => "IdBounds(anything)".to_owned(),
            Some(range) => format!("IdBounds({} to {})", range.start(), range.end()),
        }
    }
}
