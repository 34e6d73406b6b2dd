//! `iter_stream`: an iterator that blocks.

use std::collections::HashMap;
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
use super::streams::Streams;
use crate::deployment::Deployment;
use crate::entry_id::EntryId;
use crate::error::Result;
use crate::read::{EntriesOf, FirstConnect, Reader, Stats, Step};

/// What both kinds of iterator are made of: a reader that one caller at a time
/// advances, and what others may look at meanwhile.
pub struct Shared {
    pub reader: Mutex<Option<Reader>>,
    pub closed: CancellationToken,
    view: StdMutex<View>,
    pub deployment: Arc<Deployment>,
    streams: Streams,
    group: Option<String>,
    columns: NamingColumns,
    frames: Frames,
    process: AtomicU32,
    /// Whether a thread of the parent had the reader, and will never let it go.
    is_orphan: AtomicBool,
}

/// What the reader had come to when it was last let go.
#[derive(Default)]
struct View {
    last_id: Option<EntryId>,
    /// Of each stream.
    last_ids: HashMap<Arc<str>, EntryId>,
    last_batch: Vec<EntriesOf>,
    stats: Stats,
}

/// The columns of a frame that name its entries.
struct NamingColumns {
    key: Option<String>,
    id: Option<String>,
}

impl Shared {
    /// Checks the arguments; nothing is sent.
    pub fn new(
        url: &Bound<'_, PyAny>,
        stream: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let deployment = deployment(url)?;
        let streams = Streams::of(stream)?;
        let arguments = Arguments(arguments);
        let plan = arguments.plan_of(&streams)?;
        let frames = arguments.frames(&plan)?;
        let columns = NamingColumns {
            key: plan.ids().key.clone(),
            id: plan.ids().id.clone(),
        };
        let (query, pace) = arguments.iterated(&streams)?;
        let group = query.group().map(str::to_owned);
        Ok(Self {
            reader: Mutex::new(Some(Reader::new(deployment.clone(), query, plan, pace))),
            closed: CancellationToken::new(),
            view: StdMutex::default(),
            deployment,
            streams,
            group,
            columns,
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
        let is_usable = match self.reader.try_lock() {
            Ok(mut reader) => reader.iter_mut().all(Reader::forget_connection),
            Err(_) => false,
        };
        if !is_usable {
            self.is_orphan.store(true, Ordering::Release);
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
        let mut view = self.look();
        view.last_id = reader.last_id();
        view.stats = reader.stats();
        view.last_batch.clear();
        for part in reader.last_batch() {
            if let Some(last) = part.last {
                view.last_ids.insert(part.stream.clone(), last);
            }
            view.last_batch
                .push((part.stream.clone(), part.ids.clone()));
        }
        drop(view);
        Ok(Some(frame))
    }

    /// Writes what there is to tell into the log.
    pub fn tell(&self, py: Python<'_>, reader: &mut Option<Reader>) -> PyResult<()> {
        let note = reader.as_mut().and_then(Reader::take_note);
        note.iter().try_for_each(|note| log(py, note))
    }

    /// The group, and what is to be acknowledged of it: the entries of a frame, or
    /// the last batch.
    pub fn to_acknowledge(
        &self,
        frame: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(String, Vec<EntriesOf>)> {
        let Some(group) = self.group.clone() else {
            return Err(PyValueError::new_err(
                "ack: only for an iterator with a group",
            ));
        };
        let entries = match frame {
            None => self.look().last_batch.clone(),
            Some(frame) => self.entries_of(frame)?,
        };
        Ok((group, entries))
    }

    /// The entries of a frame, by stream.
    fn entries_of(&self, frame: &Bound<'_, PyAny>) -> PyResult<Vec<EntriesOf>> {
        let Some(id_column) = &self.columns.id else {
            return Err(PyValueError::new_err(
                "ack: a frame without a column of entry IDs (include_id=False) does not say \
                 what to acknowledge",
            ));
        };
        let (keys, key_column) = match (&self.streams, &self.columns.key) {
            (Streams::One(stream), _) => {
                let ids = to_entry_ids(&column_of(frame, id_column, "entry IDs")?)?;
                return Ok(vec![(stream.clone(), ids)]);
            }
            (Streams::Several(keys), Some(column)) => (keys, column),
            (Streams::Several(_), None) => {
                return Err(PyValueError::new_err(
                    "ack: a frame without a column of keys (include_key=False) does not say of \
                     which stream its entries are",
                ));
            }
        };
        let ids = to_entry_ids(&column_of(frame, id_column, "entry IDs")?)?;
        let rows = column_of(frame, key_column, "keys")?;
        let known = keys.iter().map(|key| (&**key, (key.clone(), Vec::new())));
        let mut by_key: HashMap<&str, EntriesOf> = known.collect();
        for (key, id) in rows.try_iter()?.zip(ids) {
            let key = text(key_column, &key?)?;
            let Some((_, ids)) = by_key.get_mut(&*key) else {
                let text = format!("ack: the stream {key:?} is none of the iterator's");
                return Err(PyValueError::new_err(text));
            };
            ids.push(id);
        }
        by_key.retain(|_, (_, ids)| !ids.is_empty());
        Ok(by_key.into_values().collect())
    }

    pub fn last_id(&self) -> Option<String> {
        self.look().last_id.map(|id| id.to_string())
    }

    /// The last entry handed over of each stream that had any, in the order of the
    /// streams.
    pub fn last_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let ids = PyDict::new(py);
        let view = self.look();
        for key in self.streams.keys() {
            if let Some(last) = view.last_ids.get(key) {
                ids.set_item(&**key, last.to_string())?;
            }
        }
        Ok(ids)
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
        let url = self.deployment.to_string();
        format!("{kind}({url:?}, {}{group})", self.streams)
    }

    fn look(&self) -> StdGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A column of a frame that is to say `what`.
fn column_of<'py>(
    frame: &Bound<'py, PyAny>,
    column: &str,
    what: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = frame.py().import("polars")?.getattr("DataFrame")?;
    if !frame.is_instance(&kind)? {
        let name = frame.get_type().name()?;
        let text = format!("ack: expected a DataFrame, got {name}");
        return Err(PyTypeError::new_err(text));
    }
    if !frame.getattr("columns")?.contains(column)? {
        let text = format!("ack: the frame has no column {column:?} of {what}");
        return Err(PyValueError::new_err(text));
    }
    frame.get_item(column)
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
        let (group, entries) = self.shared.to_acknowledge(frame)?;
        let deployment = &self.shared.deployment;
        acknowledge_all(py, deployment, &group, &entries, FirstConnect::IsRetried)
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
    fn last_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.shared.last_ids(py)
    }

    #[getter]
    fn _stats(&self) -> [u64; 5] {
        self.shared.stats()
    }

    fn __repr__(&self) -> String {
        self.shared.describe("StreamIterator")
    }
}
