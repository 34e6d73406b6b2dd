//! `iter_stream_async`: an iterator for asyncio.

use std::sync::Arc;

use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3_async_runtimes::generic::future_into_py;

use super::acknowledge::acknowledge_later;
use super::iter_stream::Shared;
use super::runtime::Background;
use crate::read::{FirstConnect, Step};

/// Yields frames of a stream to asyncio.
///
/// What is awaited never carries a batch, as it could be lost where the await is
/// cancelled: it tells that one is there, and `_take` hands it over.
#[pyclass(frozen, subclass, module = "polars_redis._core")]
pub struct AsyncStreamIterator {
    shared: Arc<Shared>,
}

impl AsyncStreamIterator {
    fn start(&self, py: Python<'_>) -> PyResult<Arc<Shared>> {
        Background::start(py)?;
        self.shared.leave_parent()?;
        Ok(self.shared.clone())
    }
}

#[pymethods]
impl AsyncStreamIterator {
    #[new]
    fn new(
        url: &Bound<'_, PyAny>,
        stream: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        Ok(Self {
            shared: Arc::new(Shared::new(url, stream, arguments)?),
        })
    }

    /// Waits until `_take` has something to hand over, or to tell.
    fn _advance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.start(py)?;
        future_into_py::<Background, _, _>(py, async move {
            let mut reader = shared.reader.lock().await;
            match shared.advance(&mut reader).await? {
                Step::Batch | Step::Note => Ok(()),
                Step::End => Err(PyStopAsyncIteration::new_err(())),
            }
        })
    }

    /// Hands over the batch that is ready; None if there is none (any more), or
    /// if there was something to tell.
    fn _take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        // Who holds it will hand the batch over.
        let Ok(mut reader) = self.shared.reader.try_lock() else {
            return Ok(None);
        };
        self.shared.tell(py, &mut reader)?;
        self.shared.take(py, &mut reader)
    }

    /// Connects.
    fn _open<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shared = self.start(py)?;
        future_into_py::<Background, _, _>(py, async move {
            let mut reader = shared.reader.lock().await;
            Ok(shared.open(&mut reader).await?)
        })
    }

    #[pyo3(signature = (frame = None))]
    fn _ack<'py>(
        &self,
        py: Python<'py>,
        frame: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (group, entries) = self.shared.to_acknowledge(frame)?;
        let deployment = self.shared.deployment.clone();
        acknowledge_later(py, deployment, group, entries, FirstConnect::IsRetried)
    }

    fn _close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.shared.closed.cancel();
        let shared = self.start(py)?;
        future_into_py::<Background, _, _>(py, async move {
            if let Some(reader) = shared.reader.lock().await.take() {
                reader.close();
            }
            Ok(())
        })
    }

    #[getter]
    fn last_id(&self) -> Option<String> {
        self.shared.last_id()
    }

    #[getter]
    fn last_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.shared.last_ids(py)
    }

    #[getter]
    fn _stats(&self) -> [u64; 5] {
        self.shared.stats()
    }

    fn __repr__(&self) -> String {
        self.shared.describe("AsyncStreamIterator")
    }
}
