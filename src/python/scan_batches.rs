//! Batches of a lazy scan for Polars' engines, of one stream or of many.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, text};
use super::frame::Frames;
use super::log::{log, log_all};
use super::read_streams::which;
use super::runtime::{LocalRuntime, wait_on};
use super::scan_stream::IdBounds;
use crate::decode::{Plan, Table};
use crate::error::Result;
use crate::read::{Note, Scan, Streams};

/// Rows of the first batch. An engine that stops early has then asked for little;
/// each batch is larger than the one before.
const FIRST_BATCH: usize = 1000;
const GROWTH: usize = 4;
/// Rows of a batch at the most, where the engine does not say.
const LARGEST_BATCH: usize = 65_536;

/// What is scanned.
enum Source {
    One(Box<Scan>),
    Many(Box<Streams>),
}

/// Calls the same method of whichever it is.
macro_rules! delegate {
    ($on:expr, $source:ident => $call:expr) => {
        match $on {
            Source::One($source) => $call,
            Source::Many($source) => $call,
        }
    };
}

impl Source {
    async fn next(&mut self, rows: usize) -> Result<Option<Table>> {
        delegate!(self, source => source.next(rows).await)
    }

    fn take_note(&mut self) -> Option<Note> {
        delegate!(self, source => source.take_note())
    }

    fn forget_connection(&mut self) {
        delegate!(self, source => source.forget_connection());
    }

    fn close(self) -> Vec<Note> {
        delegate!(self, source => source.close())
    }
}

/// The batches of a scan: an iterator of frames.
#[pyclass(frozen, module = "polars_redis._core")]
pub struct ScanBatches {
    state: Mutex<State>,
    process: u32,
}

struct State {
    source: Option<Source>,
    frames: Frames,
    /// Its own, as an engine may ask on one thread after another.
    runtime: LocalRuntime,
    /// Rows of the next batch.
    rows: usize,
    largest: usize,
}

#[pymethods]
impl ScanBatches {
    /// The entries of one stream. Connects when it is first advanced. `n_rows` limits
    /// the rows beside the count that is among the arguments. Without `casts` the
    /// columns stay what they are before Polars casts them.
    #[staticmethod]
    #[pyo3(signature = (url, stream, arguments, bounds = None, n_rows = None, batch_size = None, casts = true))]
    fn of_stream(
        url: &Bound<'_, PyAny>,
        stream: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
        bounds: Option<IdBounds>,
        n_rows: Option<usize>,
        batch_size: Option<usize>,
        casts: bool,
    ) -> PyResult<Self> {
        let deployment = deployment(url)?;
        let arguments = Arguments(arguments);
        let (plan, frames) = planned(&arguments, casts)?;
        let mut query = arguments.range(text("stream", stream)?)?;
        query.count = query.count.into_iter().chain(n_rows).min();
        if let Some(IdBounds(condition)) = bounds {
            query.condition = condition;
        }
        let scan = Scan::new(deployment, query, Arc::new(plan));
        Ok(Self::new(Source::One(Box::new(scan)), frames, batch_size))
    }

    /// The same for the streams whose keys match a pattern, or have one of `keys`.
    #[staticmethod]
    #[pyo3(signature = (url, pattern, arguments, keys = None, bounds = None, n_rows = None, batch_size = None, casts = true))]
    #[expect(clippy::too_many_arguments, reason = "Python names them")]
    fn of_streams(
        url: &Bound<'_, PyAny>,
        pattern: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
        keys: Option<Vec<String>>,
        bounds: Option<IdBounds>,
        n_rows: Option<usize>,
        batch_size: Option<usize>,
        casts: bool,
    ) -> PyResult<Self> {
        let deployment = deployment(url)?;
        let arguments = Arguments(arguments);
        let (plan, frames) = planned(&arguments, casts)?;
        let mut query = arguments.streams(which(pattern, keys)?)?;
        query.limit = n_rows;
        if let Some(IdBounds(condition)) = bounds {
            query.entries.condition = condition;
        }
        let streams = Streams::new(deployment, query, Arc::new(plan));
        Ok(Self::new(
            Source::Many(Box::new(streams)),
            frames,
            batch_size,
        ))
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    /// The next frame, which has rows.
    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.process != std::process::id() {
            return Err(PyRuntimeError::new_err(
                "the scan was begun by the process that this one was forked from",
            ));
        }
        // Nobody waits for it while it is in use: each scan has its own.
        let Ok(mut state) = self.state.try_lock() else {
            return Err(PyRuntimeError::new_err(
                "the scan is being advanced already",
            ));
        };
        state.next(py)
    }
}

impl ScanBatches {
    fn new(source: Source, frames: Frames, batch_size: Option<usize>) -> Self {
        let largest = batch_size.unwrap_or(LARGEST_BATCH).max(1);
        Self {
            state: Mutex::new(State {
                source: Some(source),
                frames,
                runtime: LocalRuntime::unused(),
                rows: FIRST_BATCH.min(largest),
                largest,
            }),
            process: std::process::id(),
        }
    }
}

/// The columns to read, and what makes frames of them.
fn planned(arguments: &Arguments<'_>, casts: bool) -> PyResult<(Plan, Frames)> {
    let plan = arguments.plan()?;
    let frames = match casts {
        true => arguments.frames(&plan)?,
        false => Frames::default(),
    };
    Ok((plan, frames))
}

impl State {
    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(mut source) = self.source.take() else {
            return Ok(None);
        };
        let runtime = self.runtime.get()?;
        // Whatever fails, the source is dropped.
        let table = wait_on(py, &runtime, source.next(self.rows))?;
        while let Some(note) = source.take_note() {
            log(py, &note)?;
        }
        let Ok(Some(table)) = table else {
            // What was tried is told also where it was in vain.
            log_all(py, &source.close())?;
            return Ok(table.map(|_| None)?);
        };
        self.rows = (self.rows * GROWTH).min(self.largest);
        self.source = Some(source);
        self.frames.to_frame(py, table).map(Some)
    }
}

impl Drop for ScanBatches {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(mut source) = state.source.take() else {
            return;
        };
        if self.process != std::process::id() {
            source.forget_connection();
            return;
        }
        source.close();
    }
}
