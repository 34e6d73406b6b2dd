//! `ack_entries` and its async twin.

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use pyo3_async_runtimes::generic::future_into_py;
use pyo3_polars::PySeries;

use super::arguments::{deployment, text, wrong_type};
use super::log::{log_all, wait_and_log};
use super::runtime::{Background, in_interpreter};
use crate::deployment::Deployment;
use crate::entry_id::EntryId;
use crate::read::{EntriesOf, FirstConnect, Notes, acknowledge};

/// Acknowledges entries of a consumer group; how many of them were pending.
#[pyfunction]
pub fn ack_entries(
    py: Python<'_>,
    url: &Bound<'_, PyAny>,
    stream: &Bound<'_, PyAny>,
    group: &Bound<'_, PyAny>,
    entry_ids: &Bound<'_, PyAny>,
) -> PyResult<u64> {
    let deployment = deployment(url)?;
    let (stream, group) = (text("stream", stream)?, text("group", group)?);
    let entries = [(stream.into(), to_entry_ids(entry_ids)?)];
    acknowledge_all(py, &deployment, &group, &entries, FirstConnect::FailsFast)
}

/// The awaitable twin of [`ack_entries`].
#[pyfunction]
pub fn ack_entries_async<'py>(
    py: Python<'py>,
    url: &Bound<'py, PyAny>,
    stream: &Bound<'py, PyAny>,
    group: &Bound<'py, PyAny>,
    entry_ids: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let deployment = deployment(url)?;
    let (stream, group) = (text("stream", stream)?, text("group", group)?);
    let entries = vec![(stream.into(), to_entry_ids(entry_ids)?)];
    acknowledge_later(py, deployment, group, entries, FirstConnect::FailsFast)
}

/// Acknowledges on the calling thread.
pub fn acknowledge_all(
    py: Python<'_>,
    deployment: &Arc<Deployment>,
    group: &str,
    entries: &[EntriesOf],
    first_connect: FirstConnect,
) -> PyResult<u64> {
    let notes = Notes::default();
    let done = acknowledge(deployment, group, entries, first_connect, &notes);
    wait_and_log(py, &notes, done)
}

/// Acknowledges in the background; what asyncio awaits.
pub fn acknowledge_later(
    py: Python<'_>,
    deployment: Arc<Deployment>,
    group: String,
    entries: Vec<EntriesOf>,
    first_connect: FirstConnect,
) -> PyResult<Bound<'_, PyAny>> {
    Background::start(py)?;
    future_into_py::<Background, _, _>(py, async move {
        let notes = Notes::default();
        let count = acknowledge(&deployment, &group, &entries, first_connect, &notes).await;
        let tell = || Python::attach(|py| log_all(py, &notes.take()));
        in_interpreter(tell).unwrap_or(Ok(()))?;
        Ok(count?)
    })
}

/// Entry IDs from a series or another iterable, checked.
pub fn to_entry_ids(values: &Bound<'_, PyAny>) -> PyResult<Vec<EntryId>> {
    let is_text = values.is_instance_of::<PyString>() || values.is_instance_of::<PyBytes>();
    let Some(each) = values.try_iter().ok().filter(|_| !is_text) else {
        let expected = "a list or a Series of entry IDs";
        return Err(wrong_type("entry_ids", expected, values)?);
    };
    if is_series(values)? {
        return from_series(values);
    }
    let mut ids = Vec::with_capacity(values.len().unwrap_or_default());
    for (at, value) in each.enumerate() {
        let value = value?;
        let Ok(text) = value.cast::<PyString>() else {
            let name = value.get_type().name()?;
            let text = format!("entry_ids: expected str at {at}, got {name}");
            return Err(PyTypeError::new_err(text));
        };
        ids.push(to_entry_id(at, &text.to_cow()?)?);
    }
    Ok(ids)
}

fn is_series(values: &Bound<'_, PyAny>) -> PyResult<bool> {
    let series = values.py().import("polars")?.getattr("Series")?;
    values.is_instance(&series)
}

fn from_series(values: &Bound<'_, PyAny>) -> PyResult<Vec<EntryId>> {
    let dtype = values.getattr("dtype")?.str()?.to_string();
    if dtype == "Null" && values.len()? == 0 {
        return Ok(Vec::new());
    }
    let not_text = || {
        PyTypeError::new_err(format!(
            "entry_ids: expected a Series of String, got {dtype}"
        ))
    };
    // The core does not have every dtype: others are not even handed over.
    if dtype != "String" {
        return Err(not_text());
    }
    let PySeries(series) = values.extract()?;
    let texts = series.str().map_err(|_| not_text())?;
    let mut ids = Vec::with_capacity(texts.len());
    for (at, text) in texts.iter().enumerate() {
        let Some(text) = text else {
            let text = format!("entry_ids: expected an entry ID at {at}, got null");
            return Err(PyValueError::new_err(text));
        };
        ids.push(to_entry_id(at, text)?);
    }
    Ok(ids)
}

fn to_entry_id(at: usize, text: &str) -> PyResult<EntryId> {
    text.parse()
        .map_err(|error| PyValueError::new_err(format!("entry_ids: at {at}: {error}")))
}
