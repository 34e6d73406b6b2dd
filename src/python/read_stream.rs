//! `read_stream`.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3_polars::PySeries;

use super::frame::to_structs;
use super::runtime::wait;
use super::schema::{self, PySchema};
use crate::address::Address;
use crate::decode::IdColumns;
use crate::read::{RangeQuery, read_range};

/// Reads a range of a stream: its frame as structs.
#[pyfunction]
#[pyo3(signature = (url, stream, schema, start_id, end_id, count, *, id_column, timestamp_column, sequence_column, strict))]
#[expect(
    clippy::too_many_arguments,
    reason = "the arguments of the Python function"
)]
pub fn read_stream(
    py: Python<'_>,
    url: &str,
    stream: String,
    schema: Option<PySchema<'_>>,
    start_id: &Bound<'_, PyAny>,
    end_id: &Bound<'_, PyAny>,
    count: Option<&Bound<'_, PyAny>>,
    id_column: Option<String>,
    timestamp_column: Option<String>,
    sequence_column: Option<String>,
    strict: bool,
) -> PyResult<Option<PySeries>> {
    let address = Arc::new(Address::parse(url)?);
    let ids = IdColumns {
        id: id_column,
        timestamp: timestamp_column,
        sequence: sequence_column,
    };
    let plan = Arc::new(schema::plan(schema, ids, strict)?);
    let query = RangeQuery {
        stream,
        start: schema::start(start_id)?,
        end: schema::end(end_id)?,
        count: schema::count(count)?,
    };
    let table = wait(py, read_range(&address, &query, &plan))??;
    to_structs(table)
}
