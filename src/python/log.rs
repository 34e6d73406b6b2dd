//! Notes of readers as lines of Python's `logging`.

use pyo3::prelude::*;

use super::runtime::wait_and;
use crate::error::Result;
use crate::read::{Level, Note, Notes};

/// The logger that everything goes to.
const LOGGER: &str = "polars_redis";

/// Writes one line; fails with what a handler raised.
pub fn log(py: Python<'_>, note: &Note) -> PyResult<()> {
    let level = match note.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warning",
    };
    py.import("logging")?
        .call_method1("getLogger", (LOGGER,))?
        .call_method1(level, ("%s", &note.text))?;
    Ok(())
}

/// Waits for what writes notes while it goes on, and writes them into the log,
/// however it ends.
pub fn wait_and_log<T: Send>(
    py: Python<'_>,
    notes: &Notes,
    future: impl Future<Output = Result<T>> + Send,
) -> PyResult<T> {
    let result = wait_and(py, future, || log_all(py, &notes.take()))?;
    log_all(py, &notes.take())?;
    Ok(result?)
}

/// Writes all lines of a read that has ended.
pub fn log_all(py: Python<'_>, notes: &[Note]) -> PyResult<()> {
    notes.iter().try_for_each(|note| log(py, note))
}
