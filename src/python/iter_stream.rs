//! `iter_stream`: an iterator that blocks.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard as StdGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::acknowledge::{acknowledge_all, to_entry_ids};
use super::arguments::{Arguments, deployment, text};
use super::frame::Frames;
use super::log::log;
use super::runtime::{LocalRuntime, wait_on};
use crate::deployment::Deployment;
use crate::entry_id::EntryId;
use crate::error::Result;
use crate::read::{FirstConnect, Query, Reader, Stats, Step};

/// What both kinds of iterator are made of: a reader that one caller at a time
/// advances, and what others may look at meanwhile.
pub struct Shared {
    pub reader: Mutex<Option<Reader>>,
    pub closed: CancellationToken,
    view: StdMutex<View>,
    pub deployment: Arc<Deployment>,
    stream: String,
    group: Option<String>,
    id_column: Option<String>,
    frames: Frames,
    process: AtomicU32,
    /// Whether a thread of the parent had the reader, and will never let it go.
    is_orphan: AtomicBool,
}

/// What the reader had come to when it was last let go.
#[derive(Default, Clone)]
struct View {
    last_id: Option<EntryId>,
    last_batch: Vec<EntryId>,
    stats: Stats,
}

impl Shared {
    /// Checks the arguments; nothing is sent.
    pub fn new(
        url: &Bound<'_, PyAny>,
        stream: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let deployment = deployment(url)?;
        let stream = text("stream", stream)?;
        let arguments = Arguments(arguments);
        let plan = arguments.plan()?;
        let frames = arguments.frames(&plan)?;
        let id_column = arguments.id_column()?;
        let (query, pace) = arguments.iterated(stream.clone())?;
        let group = match &query {
            Query::Group(query) => Some(query.consumer.group.clone()),
            Query::Tail(_) => None,
        };
        Ok(Self {
            reader: Mutex::new(Some(Reader::new(deployment.clone(), query, plan, pace))),
            closed: CancellationToken::new(),
            view: StdMutex::default(),
            deployment,
            stream,
            group,
            id_column,
            frames,
            process: AtomicU32::new(std::process::id()),
            is_orphan: AtomicBool::new(false),
        })
    }

    /// In a forked child, gives the parent's connection up.
    ///
    /// # Errors
    /// If another thread of the parent had the reader when it forked: it is in
    /// the middle of something that nobody here will finish.
    pub fn leave_parent(&self) -> PyResult<()> {
        let process = std::process::id();
        if self.process.swap(process, Ordering::AcqRel) == process {
            return self.check_usable();
        }
        match self.reader.try_lock() {
            Ok(mut reader) => reader.iter_mut().for_each(Reader::forget_connection),
            Err(_) => self.is_orphan.store(true, Ordering::Release),
        }
        self.check_usable()
    }

    fn check_usable(&self) -> PyResult<()> {
        if self.is_orphan.load(Ordering::Acquire) {
            return Err(PyRuntimeError::new_err(
                "another thread was advancing the iterator when this process was forked; make a \
                 new one here",
            ));
        }
        Ok(())
    }

    /// Advances the reader; to the end if the iterator is closed.
    pub async fn advance(&self, reader: &mut Option<Reader>) -> Result<Step> {
        let Some(reader) = reader else {
            return Ok(Step::End);
        };
        let step = self.closed.run_until_cancelled(reader.advance()).await;
        self.look().stats = reader.stats();
        step.unwrap_or(Ok(Step::End))
    }

    /// Connects.
    pub async fn open(&self, reader: &mut Option<Reader>) -> Result<()> {
        let Some(reader) = reader else {
            return Ok(());
        };
        let opened = self.closed.run_until_cancelled(reader.open()).await;
        opened.unwrap_or(Ok(()))
    }

    /// Hands the batch that is ready over; nothing if another caller has it.
    /// Whatever is raised meanwhile, the batch stays until it is the caller's.
    pub fn take<'py>(
        &self,
        py: Python<'py>,
        reader: &mut Option<Reader>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(reader) = reader else {
            return Ok(None);
        };
        let Some(table) = reader.batch() else {
            return Ok(None);
        };
        let frame = self.frames.to_frame(py, table)?;
        // A signal that came meanwhile is raised here, not when the frame is on
        // its way to whoever asked for it.
        py.check_signals()?;
        reader.handed_over();
        *self.look() = View {
            last_id: reader.last_id(),
            last_batch: reader.last_batch().to_vec(),
            stats: reader.stats(),
        };
        Ok(Some(frame))
    }

    /// Writes what there is to tell into the log.
    pub fn tell(&self, py: Python<'_>, reader: &mut Option<Reader>) -> PyResult<()> {
        let note = reader.as_mut().and_then(Reader::take_note);
        note.iter().try_for_each(|note| log(py, note))
    }

    /// Stream, group and IDs of what is to be acknowledged: a frame, or the last
    /// batch.
    pub fn to_acknowledge(
        &self,
        frame: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(String, String, Vec<EntryId>)> {
        let Some(group) = self.group.clone() else {
            return Err(PyValueError::new_err(
                "ack: only for an iterator with a group",
            ));
        };
        let ids = match (frame, &self.id_column) {
            (None, _) => self.look().last_batch.clone(),
            (Some(frame), Some(column)) => ids_of(frame, column)?,
            (Some(_), None) => {
                return Err(PyValueError::new_err(
                    "ack: a frame without a column of entry IDs (include_id=False) does not say \
                     what to acknowledge",
                ));
            }
        };
        Ok((self.stream.clone(), group, ids))
    }

    pub fn last_id(&self) -> Option<String> {
        self.look().last_id.map(|id| id.to_string())
    }

    /// Batches, entries, bytes, reconnects, claimed.
    pub fn stats(&self) -> [u64; 5] {
        let stats = self.look().stats;
        [
            stats.batches,
            stats.entries,
            stats.bytes,
            stats.reconnects,
            stats.claimed,
        ]
    }

    pub fn describe(&self, kind: &str) -> String {
        let group = self.group.as_ref();
        let group = group.map_or_else(String::new, |group| format!(", group={group:?}"));
        format!(
            "{kind}({:?}, {:?}{group})",
            self.deployment.to_string(),
            self.stream
        )
    }

    fn look(&self) -> StdGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry IDs of a frame.
fn ids_of(frame: &Bound<'_, PyAny>, column: &str) -> PyResult<Vec<EntryId>> {
    let kind = frame.py().import("polars")?.getattr("DataFrame")?;
    if !frame.is_instance(&kind)? {
        let name = frame.get_type().name()?;
        let text = format!("ack: expected a DataFrame, got {name}");
        return Err(PyTypeError::new_err(text));
    }
    if !frame.getattr("columns")?.contains(column)? {
        let text = format!("ack: the frame has no column {column:?} of entry IDs");
        return Err(PyValueError::new_err(text));
    }
    to_entry_ids(&frame.get_item(column)?)
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A child that only drops it must not reach into what is the parent's.
        if self.leave_parent().is_err() {
            std::mem::forget(self.reader.get_mut().take());
        }
    }
}

/// Yields frames of a stream.
#[pyclass(frozen, subclass, module = "polars_redis._core")]
pub struct StreamIterator {
    shared: Shared,
    /// Its own, as it may be advanced by one thread after another.
    runtime: StdMutex<LocalRuntime>,
    /// The thread that advances it: one of its signal handlers must not.
    owner: AtomicUsize,
}

impl StreamIterator {
    /// The runtime of this process. In a forked child the parent's connection is
    /// given up.
    fn runtime(&self) -> PyResult<Arc<Runtime>> {
        self.shared.leave_parent()?;
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        runtime.get()
    }

    fn lock<'a>(
        &'a self,
        py: Python<'_>,
        runtime: &Runtime,
    ) -> PyResult<MutexGuard<'a, Option<Reader>>> {
        if self.owner.load(Ordering::Acquire) == this_thread() {
            return Err(PyRuntimeError::new_err(
                "the iterator is being advanced by this thread already",
            ));
        }
        wait_on(py, runtime, self.shared.reader.lock())
    }

    fn next<'py>(
        &self,
        py: Python<'py>,
        runtime: &Runtime,
        reader: &mut Option<Reader>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let _owner = Owner::new(&self.owner);
        loop {
            match wait_on(py, runtime, self.shared.advance(reader))?? {
                Step::Note => self.shared.tell(py, reader)?,
                Step::Batch => return self.shared.take(py, reader),
                Step::End => return Ok(None),
            }
        }
    }
}

/// Says, as long as it lives, that this thread has the reader.
pub(super) struct Owner<'a>(&'a AtomicUsize);

impl<'a> Owner<'a> {
    pub(super) fn new(owner: &'a AtomicUsize) -> Self {
        owner.store(this_thread(), Ordering::Release);
        Self(owner)
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Release);
    }
}

/// A number that no other thread has at this time, and that is not 0.
pub(super) fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

#[pymethods]
impl StreamIterator {
    #[new]
    fn new(
        url: &Bound<'_, PyAny>,
        stream: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        Ok(Self {
            shared: Shared::new(url, stream, arguments)?,
            runtime: StdMutex::new(LocalRuntime::unused()),
            owner: AtomicUsize::new(0),
        })
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let runtime = self.runtime()?;
        let mut reader = self.lock(py, &runtime)?;
        let result = self.next(py, &runtime, &mut reader);
        // Whoever closed it meanwhile did not wait for this.
        if self.shared.closed.is_cancelled()
            && let Some(reader) = reader.take()
        {
            reader.close();
        }
        result
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        let (py, this) = (slf.py(), slf.get());
        let runtime = this.runtime()?;
        let mut reader = this.lock(py, &runtime)?;
        wait_on(py, &runtime, this.shared.open(&mut reader))??;
        drop(reader);
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: Bound<'_, pyo3::types::PyTuple>) -> PyResult<()> {
        self.close()
    }

    #[pyo3(signature = (frame = None))]
    fn ack(&self, py: Python<'_>, frame: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        let (stream, group, ids) = self.shared.to_acknowledge(frame)?;
        let deployment = &self.shared.deployment;
        acknowledge_all(
            py,
            deployment,
            &stream,
            &group,
            &ids,
            FirstConnect::IsRetried,
        )
    }

    fn close(&self) -> PyResult<()> {
        self.shared.leave_parent()?;
        self.shared.closed.cancel();
        // A `next` that has the reader closes it: to wait for that would be for
        // ever where a signal handler closes what its own thread waits for.
        if let Ok(mut reader) = self.shared.reader.try_lock()
            && let Some(reader) = reader.take()
        {
            reader.close();
        }
        // Its descriptors, too, unless a `next` is still at it.
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        *runtime = LocalRuntime::unused();
        Ok(())
    }

    #[getter]
    fn last_id(&self) -> Option<String> {
        self.shared.last_id()
    }

    #[getter]
    fn _stats(&self) -> [u64; 5] {
        self.shared.stats()
    }

    fn __repr__(&self) -> String {
        self.shared.describe("StreamIterator")
    }
}
