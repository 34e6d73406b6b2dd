//! `read_stream`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, OneShot, deployment, text};
use super::log::{log, log_all};
use super::runtime::wait;
use crate::decode::{Plan, Table};
use crate::deployment::Deployment;
use crate::read::{RangeQuery, Reader, Step, read_range};

/// Reads what is there of a stream, as a `polars.DataFrame`.
#[pyfunction]
pub fn read_stream<'py>(
    py: Python<'py>,
    url: &Bound<'py, PyAny>,
    stream: &Bound<'py, PyAny>,
    arguments: Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let deployment = deployment(url)?;
    let stream = text("stream", stream)?;
    let arguments = Arguments(arguments);
    let plan = arguments.plan()?;
    let frames = arguments.frames(&plan)?;
    let table = match arguments.one_shot(stream)? {
        OneShot::Range(query) => read_table(py, &deployment, &query, plan)?,
        OneShot::Reader(query, pace) => {
            first_batch(py, Reader::new(deployment, query, plan, pace))?
        }
    };
    frames.to_frame(py, table)
}

/// Reads a range at once, and writes what there is to tell into the log.
pub fn read_table(
    py: Python<'_>,
    deployment: &Arc<Deployment>,
    query: &RangeQuery,
    plan: Plan,
) -> PyResult<Table> {
    let (table, notes) = wait(py, read_range(deployment, query, &Arc::new(plan)))??;
    log_all(py, &notes)?;
    Ok(table)
}

/// The first batch of a reader, which may have no rows.
fn first_batch(py: Python<'_>, mut reader: Reader) -> PyResult<Table> {
    while let Step::Note = wait(py, reader.advance())?? {
        let note = reader.take_note();
        note.iter().try_for_each(|note| log(py, note))?;
    }
    let table = reader.batch().unwrap_or_else(|| reader.empty());
    reader.close();
    Ok(table)
}
