//! `scan_stream`: batches for Polars' engines, and the IDs that a predicate wants.

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, text};
use super::frame::Frames;
use super::log::{log, log_all};
use super::progress::Progress;
use super::read_stream::read_table;
use super::runtime::{LocalRuntime, wait, wait_on};
use crate::decode::{Fields, IdColumns, OnMisfit, Plan};
use crate::entry_id::IdRange;
use crate::read::{self, Condition, Scan};

/// Rows of the first batch. An engine that stops early has then asked for little;
/// each batch is larger than the one before.
const FIRST_BATCH: usize = 1000;
const GROWTH: usize = 4;
/// Rows of a batch at the most, where the engine does not say.
const LARGEST_BATCH: usize = 65_536;

/// Checks the arguments of a scan, and sends nothing; the URL without its secrets.
#[pyfunction]
pub fn check_scan(
    url: &Bound<'_, PyAny>,
    stream: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<String> {
    let deployment = deployment(url)?;
    let stream = text("stream", stream)?;
    let arguments = Arguments(arguments);
    arguments.frames(&arguments.plan()?)?;
    arguments.range(stream)?;
    arguments.number("infer_schema_length", 1)?;
    Ok(deployment.to_string())
}

/// Names of the fields that the first entries of a range have.
#[pyfunction]
pub fn sample_fields(
    py: Python<'_>,
    url: &Bound<'_, PyAny>,
    stream: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<Vec<String>> {
    let deployment = deployment(url)?;
    let arguments = Arguments(arguments);
    let mut query = arguments.range(text("stream", stream)?)?;
    let sample = arguments.number("infer_schema_length", 1)?;
    query.count = query.count.into_iter().chain(sample).min();
    // No value matters, whatever it is.
    let plan = Plan::new(IdColumns::default(), Fields::Discover, OnMisfit::Null)?;
    let table = read_table(py, &deployment, query, plan, &Progress::default())?;
    Ok(table
        .columns
        .into_iter()
        .map(|column| column.name)
        .collect())
}

/// Splits a range; the first and the last ID of each part.
#[pyfunction]
pub fn split_range(
    py: Python<'_>,
    url: &Bound<'_, PyAny>,
    stream: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<Vec<(String, String)>> {
    let deployment = deployment(url)?;
    let stream = text("stream", stream)?;
    let arguments = Arguments(arguments);
    let splits = arguments.needed("splits", 1)?;
    let query = arguments.range(stream)?;
    let (ranges, notes) = wait(py, read::split_range(&deployment, &query, splits))??;
    log_all(py, &notes)?;
    let ends = |range: IdRange| (range.start().to_string(), range.end().to_string());
    Ok(ranges.into_iter().map(ends).collect())
}

/// What is known of the IDs of the entries that are wanted.
#[pyclass(frozen, from_py_object, module = "polars_redis._core")]
#[derive(Clone)]
pub struct IdBounds(Condition);

#[pymethods]
impl IdBounds {
    #[staticmethod]
    #[pyo3(signature = (least, greatest, sound_to = u64::MAX))]
    fn timestamp(least: u64, greatest: u64, sound_to: u64) -> Self {
        Self(Condition::Timestamp {
            from: least,
            to: greatest,
            sound_to,
        })
    }

    #[staticmethod]
    fn sequence(least: u64, greatest: u64) -> Self {
        Self(Condition::Sequence {
            from: least,
            to: greatest,
        })
    }

    #[staticmethod]
    fn ids(ids: Vec<String>) -> Self {
        Self(Condition::listed(ids.iter().map(String::as_str)))
    }

    #[staticmethod]
    fn text_from(text: String) -> Self {
        Self(Condition::TextFrom(text))
    }

    #[staticmethod]
    fn text_to(text: String) -> Self {
        Self(Condition::TextTo(text))
    }

    #[staticmethod]
    fn nothing() -> Self {
        Self(Condition::Nothing)
    }

    fn __and__(&self, other: &Self) -> Self {
        Self(Condition::Both(
            Box::new(self.0.clone()),
            Box::new(other.0.clone()),
        ))
    }

    fn __or__(&self, other: &Self) -> Self {
        Self(Condition::Either(
            Box::new(self.0.clone()),
            Box::new(other.0.clone()),
        ))
    }

    /// What follows for a stream of which nothing is known.
    fn __repr__(&self) -> String {
        match self.0.range(None) {
            None => "IdBounds(nothing)".to_owned(),
            Some(IdRange::ALL) => "IdBounds(anything)".to_owned(),
            Some(range) => format!("IdBounds({} to {})", range.start(), range.end()),
        }
    }
}

/// The batches of a scan: an iterator of frames.
#[pyclass(frozen, module = "polars_redis._core")]
pub struct ScanBatches {
    state: Mutex<State>,
    process: u32,
}

struct State {
    scan: Option<Scan>,
    frames: Frames,
    /// Its own, as an engine may ask on one thread after another.
    runtime: LocalRuntime,
    /// Rows of the next batch.
    rows: usize,
    largest: usize,
}

#[pymethods]
impl ScanBatches {
    /// Connects when it is first advanced. `n_rows` limits the rows beside the
    /// count that is among the arguments. Without `casts` the columns stay what
    /// they are before Polars casts them.
    #[new]
    #[pyo3(signature = (url, stream, arguments, bounds = None, n_rows = None, batch_size = None, casts = true))]
    fn new(
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
        let plan = arguments.plan()?;
        let frames = match casts {
            true => arguments.frames(&plan)?,
            false => Frames::default(),
        };
        let mut query = arguments.range(text("stream", stream)?)?;
        query.count = query.count.into_iter().chain(n_rows).min();
        if let Some(IdBounds(condition)) = bounds {
            query.condition = condition;
        }
        let largest = batch_size.unwrap_or(LARGEST_BATCH).max(1);
        Ok(Self {
            state: Mutex::new(State {
                scan: Some(Scan::new(deployment, query, Arc::new(plan))),
                frames,
                runtime: LocalRuntime::unused(),
                rows: FIRST_BATCH.min(largest),
                largest,
            }),
            process: std::process::id(),
        })
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

impl State {
    fn next<'py>(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(mut scan) = self.scan.take() else {
            return Ok(None);
        };
        let runtime = self.runtime.get()?;
        // Whatever fails, the scan is dropped.
        let table = wait_on(py, &runtime, scan.next(self.rows))??;
        while let Some(note) = scan.take_note() {
            log(py, &note)?;
        }
        let Some(table) = table else {
            let notes = scan.close();
            log_all(py, &notes)?;
            return Ok(None);
        };
        self.rows = (self.rows * GROWTH).min(self.largest);
        self.scan = Some(scan);
        self.frames.to_frame(py, table).map(Some)
    }
}

impl Drop for ScanBatches {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(mut scan) = state.scan.take() else {
            return;
        };
        if self.process != std::process::id() {
            scan.forget_connection();
            return;
        }
        scan.close();
    }
}
