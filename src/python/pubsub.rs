//! `collect_pubsub`, `iter_pubsub` and its async twin.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::arguments::{Arguments, deployment};
use super::frame::Frames;
use super::iteration::{Awaited, Batches, Blocking};
use super::log::log;
use super::runtime::wait;
use crate::decode::Table;
use crate::error::Result;
use crate::read::{Listening, MessageStats, Note, Step, Subscriber};

impl Batches for Subscriber {
    type View = MessageStats;

    fn open(&mut self) -> impl Future<Output = Result<()>> + Send {
        Self::open(self)
    }

    fn advance(&mut self) -> impl Future<Output = Result<Step>> + Send {
        Self::advance(self)
    }

    fn batch(&mut self) -> Option<Result<Table>> {
        Self::batch(self)
    }

    fn handed_over(&mut self, view: &mut MessageStats) {
        Self::handed_over(self);
        self.show(view);
    }

    fn show(&self, view: &mut MessageStats) {
        *view = self.stats();
    }

    fn take_note(&mut self) -> Option<Note> {
        Self::take_note(self)
    }

    fn forget_connection(&mut self) -> bool {
        Self::forget_connection(self);
        true
    }

    /// A connection that is subscribed is of no use to others.
    fn close(self) {}
}

/// Checks the arguments; nothing is sent.
fn subscriber(
    url: &Bound<'_, PyAny>,
    channels: &Bound<'_, PyList>,
    arguments: &Arguments<'_>,
    listening: Listening,
) -> PyResult<(Subscriber, Frames)> {
    let deployment = deployment(url)?;
    let subscription = arguments.subscription(channels)?;
    let plan = arguments.message_plan()?;
    let frames = arguments.message_frames(&plan)?;
    let subscriber = Subscriber::new(deployment, subscription, plan, listening);
    Ok((subscriber, frames))
}

/// The same for an iterator of this kind, and what it is when printed.
fn listener(
    kind: &str,
    url: &Bound<'_, PyAny>,
    channels: &Bound<'_, PyList>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<(Subscriber, Frames, String)> {
    let arguments = Arguments(arguments);
    let listening = arguments.listened()?;
    let (subscriber, frames) = subscriber(url, channels, &arguments, listening)?;
    Ok((subscriber, frames, describe(kind, url, channels)?))
}

/// Collects messages until there are enough, or time is up.
#[pyfunction]
pub fn collect_pubsub<'py>(
    py: Python<'py>,
    url: &Bound<'py, PyAny>,
    channels: &Bound<'py, PyList>,
    arguments: Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    let arguments = Arguments(arguments);
    let listening = arguments.collected()?;
    let (mut subscriber, frames) = subscriber(url, channels, &arguments, listening)?;
    while let Step::Note = wait(py, subscriber.advance())?? {
        let note = subscriber.take_note();
        note.iter().try_for_each(|note| log(py, note))?;
    }
    let table = match subscriber.batch() {
        Some(batch) => batch?,
        None => subscriber.empty(),
    };
    frames.to_frame(py, table)
}

/// Yields frames of messages.
#[pyclass(frozen, subclass, module = "polars_redis._core")]
pub struct PubSubIterator {
    iteration: Blocking<Subscriber>,
    described: String,
}

#[pymethods]
impl PubSubIterator {
    #[new]
    fn new(
        url: &Bound<'_, PyAny>,
        channels: &Bound<'_, PyList>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let (subscriber, frames, described) = listener("PubSubIterator", url, channels, arguments)?;
        Ok(Self {
            described,
            iteration: Blocking::new(subscriber, frames),
        })
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.iteration.next(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().iteration.open(slf.py())?;
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: Bound<'_, PyTuple>) -> PyResult<()> {
        self.iteration.close()
    }

    fn close(&self) -> PyResult<()> {
        self.iteration.close()
    }

    #[getter]
    fn _stats(&self) -> [u64; 5] {
        in_order(*self.iteration.view())
    }

    fn __repr__(&self) -> &str {
        &self.described
    }
}

/// Yields frames of messages to asyncio.
#[pyclass(frozen, subclass, module = "polars_redis._core")]
pub struct AsyncPubSubIterator {
    iteration: Awaited<Subscriber>,
    described: String,
}

#[pymethods]
impl AsyncPubSubIterator {
    #[new]
    fn new(
        url: &Bound<'_, PyAny>,
        channels: &Bound<'_, PyList>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let (subscriber, frames, described) =
            listener("AsyncPubSubIterator", url, channels, arguments)?;
        Ok(Self {
            described,
            iteration: Awaited::new(subscriber, frames),
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

    fn _close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.iteration.close(py)
    }

    #[getter]
    fn _stats(&self) -> [u64; 5] {
        in_order(*self.iteration.view())
    }

    fn __repr__(&self) -> &str {
        &self.described
    }
}

/// Batches, messages, bytes, reconnects, gaps.
fn in_order(stats: MessageStats) -> [u64; 5] {
    [
        stats.batches,
        stats.messages,
        stats.bytes,
        stats.reconnects,
        stats.gaps,
    ]
}

fn describe(kind: &str, url: &Bound<'_, PyAny>, channels: &Bound<'_, PyList>) -> PyResult<String> {
    let url = deployment(url)?.to_string();
    Ok(format!("{kind}({url:?}, {})", channels.repr()?))
}
