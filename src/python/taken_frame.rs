//! A frame taken from Polars, chunk by chunk, without a copy, over Arrow's C stream
//! interface.

use polars_arrow::array::StructArray;
use polars_arrow::ffi::{ArrowArrayStream, ArrowArrayStreamReader};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::write::Batch;

/// What the interface calls its capsules.
const NAME: &std::ffi::CStr = c"arrow_array_stream";

/// The rows of a frame whose columns have these names, the first of them row
/// `first_row` of all that there are.
pub fn batches(frame: &Bound<'_, PyAny>, names: &[String], first_row: u64) -> PyResult<Vec<Batch>> {
    let capsule = frame.call_method0("__arrow_c_stream__")?;
    let capsule = capsule.cast_into::<PyCapsule>()?;
    let stream = capsule
        .pointer_checked(Some(NAME))?
        .cast::<ArrowArrayStream>();
    // SAFETY: a capsule of this name holds such a stream. It is moved out, and an
    // empty one, which nobody has to release, is left in its place.
    let stream = unsafe { stream.replace(ArrowArrayStream::empty()) };
    // SAFETY: it is Polars' own, which keeps to the interface.
    let mut chunks = unsafe { ArrowArrayStreamReader::try_new(Box::new(stream)) }
        .map_err(|error| PyValueError::new_err(error.to_string()))?;
    let mut batches = Vec::new();
    let mut next_row = first_row;
    // SAFETY: the same.
    while let Some(chunk) = unsafe { chunks.next() } {
        let chunk = chunk.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let rows: &StructArray = chunk
            .as_any()
            .downcast_ref()
            .ok_or_else(|| PyTypeError::new_err("expected a polars.DataFrame"))?;
        let batch = Batch::new(next_row, rows, names)?;
        next_row = batch.end();
        batches.push(batch);
    }
    Ok(batches)
}
