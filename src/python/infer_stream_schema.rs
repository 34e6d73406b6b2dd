//! `infer_stream_schema`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, text};
use super::dtypes::to_polars;
use super::progress::Progress;
use super::read_stream::read_table;
use crate::decode::{Fields, IdColumns, OnMisfit, Plan, guess_fields};
use crate::deployment::ReadFrom;
use crate::entry_id::{End, EntryId, Start};
use crate::read::{Condition, RangeQuery};

/// Names of a stream's fields, and a dtype that the first entries' texts fit.
#[pyfunction]
pub fn infer_stream_schema<'py>(
    py: Python<'py>,
    url: &Bound<'py, PyAny>,
    stream: &Bound<'py, PyAny>,
    arguments: Bound<'py, PyDict>,
) -> PyResult<Vec<(String, Bound<'py, PyAny>)>> {
    let deployment = deployment(url)?;
    let query = RangeQuery {
        stream: text("stream", stream)?,
        start: Start::At(EntryId::MIN),
        end: End::At(EntryId::MAX),
        count: Arguments(arguments).number("infer_schema_length", 1)?,
        condition: Condition::Anything,
        read_from: ReadFrom::Master,
    };
    // A field whose name is not UTF-8 is none that a schema could name.
    let plan = Plan::new(IdColumns::default(), Fields::Discover, OnMisfit::Null)?;
    let plan = plan.discovering_bytes();
    let table = read_table(py, &deployment, query, plan, &Progress::default())?;
    let fields = py.detach(|| guess_fields(&table));
    fields
        .into_iter()
        .map(|field| Ok((field.name, to_polars(py, &field.dtype)?)))
        .collect()
}
