//! `iter_stream_async`: an iterator for asyncio.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::acknowledge::acknowledge_later;
use super::iter_stream::Origin;
use super::iteration::Awaited;
use crate::read::{FirstConnect, Reader};

/// Yields frames of a stream to asyncio.
#[pyclass(frozen, subclass, module = "polars_redis._core")]
pub struct AsyncStreamIterator {
    iteration: Awaited<Reader>,
    origin: Origin,
}

#[pymethods]
impl AsyncStreamIterator {
    #[new]
    fn new(
        url: &Bound<'_, PyAny>,
        stream: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let (origin, reader, frames) = Origin::new(url, stream, arguments)?;
        Ok(Self {
            iteration: Awaited::new(reader, frames),
            origin,
        })
    }

    fn _advance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.iteration.advance(py)
    }

    fn _take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.iteration.take(py)
    }

    fn _open<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.iteration.open(py)
    }

    #[pyo3(signature = (frame = None))]
    fn _ack<'py>(
        &self,
        py: Python<'py>,
        frame: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (group, entries) = self.origin.to_acknowledge(self.iteration.view(), frame)?;
        let deployment = self.origin.deployment.clone();
        acknowledge_later(py, deployment, group, entries, FirstConnect::IsRetried)
    }

    fn _close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.iteration.close(py)
    }

    #[getter]
    fn last_id(&self) -> Option<String> {
        self.iteration.view().last_id()
    }

    #[getter]
    fn last_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.origin.last_ids(py, &self.iteration.view())
    }

    #[getter]
    fn _stats(&self) -> [u64; 5] {
        self.iteration.view().stats()
    }

    fn __repr__(&self) -> String {
        self.origin.describe("AsyncStreamIterator")
    }
}
