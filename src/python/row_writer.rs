//! Rows of frames on their way to the servers, for whichever verb.

use std::sync::Arc;

use polars_arrow::array::ArrayRef;
use pyo3::prelude::*;
use pyo3_async_runtimes::generic::future_into_py;
use tokio::sync::{Mutex, MutexGuard};

use super::errors::exception;
use super::frame::to_series;
use super::runtime::{Background, wait};
use super::taken_frame::batches;
use crate::decode::{FieldType, TableColumn};
use crate::deployment::Deployment;
use crate::error::Error;
use crate::write::{Batch, Failure, Outcome, RowFate, Statement, Writer};

/// Name of the column of entry IDs.
const ID_COLUMN: &str = "_id";

/// Writes frame after frame.
#[pyclass(frozen, module = "polars_redis._core")]
pub struct RowWriter {
    /// Names of the frames' columns.
    names: Vec<String>,
    writer: Arc<Mutex<Writer>>,
}

impl RowWriter {
    /// A writer of frames with these columns. Nothing is sent yet.
    pub fn new(
        deployment: Arc<Deployment>,
        names: Vec<String>,
        statement: Box<dyn Statement>,
    ) -> Self {
        Self {
            names,
            writer: Arc::new(Mutex::new(Writer::new(deployment, statement))),
        }
    }

    /// The writer, when nobody has it any more: a cancelled future lets it go in a
    /// moment.
    fn lock(&self, py: Python<'_>) -> MutexGuard<'_, Writer> {
        py.detach(|| self.writer.blocking_lock())
    }
}

#[pymethods]
impl RowWriter {
    /// There are so many rows in all. Whether they are to be checked first.
    fn expect(&self, py: Python<'_>, rows: u64) -> bool {
        let mut writer = self.lock(py);
        writer.expect_rows(rows);
        writer.is_choosy()
    }

    /// Whether all rows of a frame can be sent at all; nothing is.
    fn check(&self, py: Python<'_>, frame: &Bound<'_, PyAny>, first_row: u64) -> PyResult<()> {
        let batches = batches(frame, &self.names, first_row)?;
        let writer = self.lock(py);
        Ok(batches.iter().try_for_each(|batch| writer.check(batch))?)
    }

    /// Sends the rows of a frame. The replies to the last of them may be due.
    fn write(&self, py: Python<'_>, frame: &Bound<'_, PyAny>, first_row: u64) -> PyResult<()> {
        let batches = batches(frame, &self.names, first_row)?;
        let mut writer = self.lock(py);
        let written = wait(py, write_all(&mut writer, batches))?;
        written.map_err(|failure| to_error(failure, &mut writer))
    }

    /// Waits for the replies to all rows.
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let mut writer = self.lock(py);
        let finished = wait(py, writer.finish())?;
        finished.map_err(|failure| to_error(failure, &mut writer))
    }

    fn write_async<'py>(
        &self,
        py: Python<'py>,
        frame: &Bound<'py, PyAny>,
        first_row: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let batches = batches(frame, &self.names, first_row)?;
        Background::start(py)?;
        let writer = self.writer.clone();
        future_into_py::<Background, _, _>(py, async move {
            let mut writer = writer.lock().await;
            let written = write_all(&mut writer, batches).await;
            written.map_err(|failure| to_error(failure, &mut writer))
        })
    }

    fn finish_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Background::start(py)?;
        let writer = self.writer.clone();
        future_into_py::<Background, _, _>(py, async move {
            let mut writer = writer.lock().await;
            let finished = writer.finish().await;
            finished.map_err(|failure| to_error(failure, &mut writer))
        })
    }

    /// How many rows were written so far.
    fn written(&self, py: Python<'_>) -> u64 {
        self.lock(py).outcome().written()
    }

    /// How many rows were not, as their keys were there.
    fn kept(&self, py: Python<'_>) -> u64 {
        self.lock(py).outcome().kept()
    }

    /// The IDs of the entries that the rows became.
    fn ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        ids(py, self.lock(py).outcome())
    }

    /// Puts what became of the rows on an exception; the same in words.
    fn report(&self, py: Python<'_>, exception: &Bound<'_, PyAny>) -> PyResult<String> {
        let mut writer = self.lock(py);
        let outcome = writer.outcome();
        describe(exception, outcome)?;
        Ok(summary(outcome))
    }
}

async fn write_all(writer: &mut Writer, batches: Vec<Batch>) -> Result<(), Failure> {
    for batch in batches {
        writer.write(batch).await?;
    }
    Ok(())
}

/// The exception that a failure is, which says what was refused, and how many rows were
/// written.
fn to_error(failure: Failure, writer: &mut Writer) -> PyErr {
    if let Error::Argument(_) = failure.error {
        return failure.error.into();
    }
    let outcome = writer.outcome();
    let refused = failure.refused.map_or(String::new(), |row| {
        format!("; row {row} was the first to be refused")
    });
    let message = format!("{}{refused}; {}", failure.error, summary(outcome));
    exception(failure.error, message)
}

fn summary(outcome: &Outcome) -> String {
    let kept = match outcome.kept() {
        0 => String::new(),
        kept => format!(", {kept} were left out, as their keys are there"),
    };
    format!(
        "of {} rows {} were written, {} were not, {} may have been{kept}",
        outcome.rows(),
        outcome.written(),
        outcome.failed(),
        outcome.unsure()
    )
}

fn describe(exception: &Bound<'_, PyAny>, outcome: &mut Outcome) -> PyResult<()> {
    let py = exception.py();
    for (name, fate) in [
        ("written", RowFate::Written),
        ("failed", RowFate::Failed),
        ("unsure", RowFate::Unsure),
        ("kept", RowFate::Kept),
    ] {
        let rows = column(name, FieldType::UInt64, vec![outcome.rows_of(fate)]);
        exception.setattr(name, to_series(py, rows)?)?;
    }
    exception.setattr("entry_ids", ids(py, outcome)?)
}

fn ids<'py>(py: Python<'py>, outcome: &mut Outcome) -> PyResult<Bound<'py, PyAny>> {
    to_series(py, column(ID_COLUMN, FieldType::String, outcome.take_ids()))
}

fn column(name: &str, dtype: FieldType, chunks: Vec<ArrayRef>) -> TableColumn {
    TableColumn {
        name: name.to_owned(),
        dtype,
        chunks,
    }
}
