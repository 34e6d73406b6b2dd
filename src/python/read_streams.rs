//! `read_streams`, and what the frames of `scan_streams` ask for beside batches.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, text};
use super::log::{log_all, wait_and_log};
use super::progress::Progress;
use super::runtime::wait_and;
use super::scan_stream::{checked, names, plan_of_names};
use crate::decode::{Plan, Table};
use crate::deployment::Deployment;
use crate::read::{self, Notes, Streams, StreamsQuery, Which};

/// Reads what is there of many streams, as a `polars.DataFrame`.
#[pyfunction]
#[pyo3(signature = (url, pattern, arguments, progress = None))]
pub fn read_streams<'py>(
    py: Python<'py>,
    url: &Bound<'py, PyAny>,
    pattern: &Bound<'py, PyAny>,
    arguments: Bound<'py, PyDict>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let progress = Progress(progress);
    let deployment = deployment(url)?;
    let which = which(pattern, None)?;
    let arguments = Arguments(arguments);
    let plan = arguments.plan()?;
    let frames = arguments.frames(&plan)?;
    let table = read_tables(py, &deployment, arguments.streams(which)?, plan, &progress)?;
    frames.to_frame(py, table)
}

/// Checks the arguments of a scan, and sends nothing; the URL without its secrets.
#[pyfunction]
pub fn check_streams(
    url: &Bound<'_, PyAny>,
    pattern: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<String> {
    checked(url, &Arguments(arguments), |arguments| {
        arguments.streams(which(pattern, None)?)
    })
}

/// Names of the fields that the first entries have.
#[pyfunction]
pub fn sample_streams(
    py: Python<'_>,
    url: &Bound<'_, PyAny>,
    pattern: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<Vec<String>> {
    let deployment = deployment(url)?;
    let arguments = Arguments(arguments);
    let mut query = arguments.streams(which(pattern, None)?)?;
    query.limit = arguments.number("infer_schema_length", 1)?;
    Ok(names(read_tables(
        py,
        &deployment,
        query,
        plan_of_names()?,
        &Progress::default(),
    )?))
}

/// The keys of the streams that match a pattern, in order.
#[pyfunction]
pub fn find_keys(
    py: Python<'_>,
    url: &Bound<'_, PyAny>,
    pattern: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<Vec<String>> {
    let deployment = deployment(url)?;
    let pattern = text("pattern", pattern)?;
    let read_from = Arguments(arguments).read_from()?;
    let notes = Notes::default();
    let found = read::find_keys(&deployment, &pattern, read_from, &notes);
    let keys = wait_and_log(py, &notes, found)?;
    Ok(keys.iter().map(|key| key.to_string()).collect())
}

/// Which streams to read: those of some keys, or all that match a pattern.
pub fn which(pattern: &Bound<'_, PyAny>, keys: Option<Vec<String>>) -> PyResult<Which> {
    let pattern = text("pattern", pattern)?;
    Ok(match keys {
        None => Which::Matching(pattern),
        Some(keys) => Which::Keys(keys.into_iter().map(Arc::from).collect()),
    })
}

/// Reads at once, and writes what there is to tell into the log.
fn read_tables(
    py: Python<'_>,
    deployment: &Arc<Deployment>,
    query: StreamsQuery,
    plan: Plan,
    progress: &Progress<'_>,
) -> PyResult<Table> {
    let mut streams = Streams::new(deployment.clone(), query, Arc::new(plan));
    let meter = streams.meter().clone();
    let table = wait_and(py, streams.read_all(), || progress.tell(&meter))?;
    // What was tried is told also where it was in vain.
    log_all(py, &streams.close())?;
    progress.tell(&meter)?;
    Ok(table?)
}
