//! `read_stream`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, OneShot, deployment, text};
use super::log::{log, log_all};
use super::progress::Progress;
use super::runtime::wait_and;
use crate::decode::{Plan, Table};
use crate::deployment::Deployment;
use crate::read::{RangeQuery, Reader, Scan, Step};

/// Reads what is there of a stream, as a `polars.DataFrame`.
#[pyfunction]
#[pyo3(signature = (url, stream, arguments, progress = None))]
pub fn read_stream<'py>(
    py: Python<'py>,
    url: &Bound<'py, PyAny>,
    stream: &Bound<'py, PyAny>,
    arguments: Bound<'py, PyDict>,
    progress: Option<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let progress = Progress(progress);
    let deployment = deployment(url)?;
    let stream = text("stream", stream)?;
    let arguments = Arguments(arguments);
    let plan = arguments.plan()?;
    let frames = arguments.frames(&plan)?;
    let table = match arguments.one_shot(stream)? {
        OneShot::Range(query) => read_table(py, &deployment, query, plan, &progress)?,
        OneShot::Reader(query, pace) => {
            first_batch(py, Reader::new(deployment, query, plan, pace), &progress)?
        }
    };
    frames.to_frame(py, table)
}

/// Reads a range at once, and writes what there is to tell into the log.
pub fn read_table(
    py: Python<'_>,
    deployment: &Arc<Deployment>,
    query: RangeQuery,
    plan: Plan,
    progress: &Progress<'_>,
) -> PyResult<Table> {
    let mut scan = Scan::new(deployment.clone(), query, Arc::new(plan));
    let meter = scan.meter().clone();
    let table = wait_and(py, scan.read_all(), || progress.tell(&meter))?;
    // What was tried is told also where it was in vain.
    log_all(py, &scan.close())?;
    progress.tell(&meter)?;
    Ok(table?)
}

/// The first batch of a reader, which may have no rows.
fn first_batch(py: Python<'_>, mut reader: Reader, progress: &Progress<'_>) -> PyResult<Table> {
    let meter = reader.meter().clone();
    while let Step::Note = wait_and(py, reader.advance(), || progress.tell(&meter))?? {
        let note = reader.take_note();
        note.iter().try_for_each(|note| log(py, note))?;
    }
    progress.tell(&meter)?;
    let table = reader.batch().unwrap_or_else(|| reader.empty());
    reader.close();
    Ok(table)
}
