//! `read_stream`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, OneShot};
use super::frame::to_frame;
use super::log::log;
use super::runtime::wait;
use crate::address::Address;
use crate::decode::Table;
use crate::read::{Reader, Step, read_range};

/// Reads what is there of a stream, as a `polars.DataFrame`.
#[pyfunction]
pub fn read_stream<'py>(
    py: Python<'py>,
    url: &str,
    stream: String,
    arguments: Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let address = Arc::new(Address::parse(url)?);
    let arguments = Arguments(arguments);
    let plan = arguments.plan()?;
    let table = match arguments.one_shot(stream)? {
        OneShot::Range(query) => {
            let plan = Arc::new(plan);
            let (table, notes) = wait(py, read_range(&address, &query, &plan))??;
            notes.iter().try_for_each(|note| log(py, note))?;
            table
        }
        OneShot::Reader(query, pace) => first_batch(py, Reader::new(address, query, plan, pace))?,
    };
    to_frame(py, table)
}

/// The first batch of a reader, which may have no rows.
fn first_batch(py: Python<'_>, mut reader: Reader) -> PyResult<Table> {
    loop {
        match wait(py, reader.advance())?? {
            Step::Note => reader
                .take_note()
                .iter()
                .try_for_each(|note| log(py, note))?,
            Step::Batch | Step::End => break,
        }
    }
    let table = reader.batch().unwrap_or_else(|| reader.empty());
    reader.close();
    Ok(table)
}
