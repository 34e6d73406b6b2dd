//! What iterators are made of, whatever they read: one caller at a time advances a
//! reader, on its own thread or for asyncio, and others may close it meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex, MutexGuard as StdGuard, PoisonError};

use pyo3::exceptions::{PyRuntimeError, PyStopAsyncIteration, PyValueError};
use pyo3::prelude::*;
use pyo3_async_runtimes::generic::future_into_py;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex, MutexGuard};
use tokio_util::sync::CancellationToken;

use super::frame::Frames;
use super::log::log;
use super::runtime::{Background, LocalRuntime, wait_on};
use crate::decode::Table;
use crate::error::Result;
use crate::read::{Note, Step};

/// A reader, batch after batch.
///
/// A batch stays until it was handed over. Any future may be dropped, and the next
/// call goes on where it was.
pub trait Batches: Sized + Send + 'static {
    /// What others may look at: what was handed over, and what was done so far.
    type View: Default + Send;

    fn open(&mut self) -> impl Future<Output = Result<()>> + Send;
    fn advance(&mut self) -> impl Future<Output = Result<Step>> + Send;
    /// The batch that is ready, or the error that is in its place.
    fn batch(&mut self) -> Option<Result<Table>>;
    /// The batch that was ready is the user's now.
    fn handed_over(&mut self, view: &mut Self::View);
    /// Shows what advancing changes.
    fn show(&self, view: &mut Self::View);
    fn take_note(&mut self) -> Option<Note>;
    /// This process is a forked child: the connection is its parent's. Whether the
    /// reader can be used here.
    fn forget_connection(&mut self) -> bool;
    /// Ends it.
    fn close(self);
}

/// A reader that one caller at a time advances, and what others may look at
/// meanwhile.
struct Shared<R: Batches> {
    reader: Mutex<Option<R>>,
    closed: CancellationToken,
    /// What the reader had come to when it was last let go.
    view: StdMutex<R::View>,
    frames: Frames,
    process: AtomicU32,
    /// Whether a thread of the parent had the reader, and will never let it go.
    is_orphan: AtomicBool,
}

impl<R: Batches> Shared<R> {
    fn new(reader: R, frames: Frames) -> Self {
        Self {
            reader: Mutex::new(Some(reader)),
            closed: CancellationToken::new(),
            view: StdMutex::default(),
            frames,
            process: AtomicU32::new(std::process::id()),
            is_orphan: AtomicBool::new(false),
        }
    }

    /// In a forked child, gives the parent's connection up.
    ///
    /// # Errors
    /// If another thread of the parent had the reader when it forked: it is in
    /// the middle of something that nobody here will finish.
    fn leave_parent(&self) -> PyResult<()> {
        let process = std::process::id();
        if self.process.swap(process, Ordering::AcqRel) != process {
            let is_usable = match self.reader.try_lock() {
                Ok(mut reader) => reader.iter_mut().all(R::forget_connection),
                Err(_) => false,
            };
            // Its own children cannot use it either.
            self.is_orphan.fetch_or(!is_usable, Ordering::AcqRel);
        }
        if self.is_orphan.load(Ordering::Acquire) {
            return Err(PyRuntimeError::new_err(
                "another thread was advancing the iterator when this process was forked; make a \
                 new one here",
            ));
        }
        Ok(())
    }

    /// Whether it can be entered.
    ///
    /// # Errors
    /// If it is closed: as with a file, whoever enters it takes it for another one.
    fn check_open(&self) -> PyResult<()> {
        match self.closed.is_cancelled() {
            true => Err(PyValueError::new_err("the iterator is closed")),
            false => Ok(()),
        }
    }

    /// Advances the reader; to the end if the iterator is closed.
    async fn advance(&self, reader: &mut Option<R>) -> Result<Step> {
        let Some(reader) = reader else {
            return Ok(Step::End);
        };
        let step = self.closed.run_until_cancelled(reader.advance()).await;
        reader.show(&mut self.view());
        step.unwrap_or(Ok(Step::End))
    }

    /// Connects.
    async fn open(&self, reader: &mut Option<R>) -> Result<()> {
        let Some(reader) = reader else {
            return Ok(());
        };
        let opened = self.closed.run_until_cancelled(reader.open()).await;
        opened.unwrap_or(Ok(()))
    }

    /// Hands the batch that is ready over; nothing if another caller has it.
    /// Whatever is raised meanwhile, the batch stays until it is the caller's.
    fn take<'py>(
        &self,
        py: Python<'py>,
        reader: &mut Option<R>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(reader) = reader else {
            return Ok(None);
        };
        let Some(batch) = reader.batch() else {
            return Ok(None);
        };
        let frame = self.frames.to_frame(py, batch?)?;
        // A signal that came meanwhile is raised here, not when the frame is on
        // its way to whoever asked for it.
        py.check_signals()?;
        reader.handed_over(&mut self.view());
        Ok(Some(frame))
    }

    /// Writes what there is to tell into the log.
    fn tell(&self, py: Python<'_>, reader: &mut Option<R>) -> PyResult<()> {
        let note = reader.as_mut().and_then(R::take_note);
        note.iter().try_for_each(|note| log(py, note))
    }

    fn view(&self) -> StdGuard<'_, R::View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn close<R: Batches>(reader: &mut Option<R>) {
    if let Some(reader) = reader.take() {
        reader.close();
    }
}

impl<R: Batches> Drop for Shared<R> {
    fn drop(&mut self) {
        // A child that only drops it must not reach into what is the parent's.
        if self.leave_parent().is_err() {
            std::mem::forget(self.reader.get_mut().take());
        }
    }
}

/// Advances a reader on the thread that asks.
pub struct Blocking<R: Batches> {
    shared: Shared<R>,
    /// Its own, as it may be advanced by one thread after another.
    runtime: StdMutex<LocalRuntime>,
    /// The thread that advances it: one of its signal handlers must not.
    owner: AtomicUsize,
}

impl<R: Batches> Blocking<R> {
    pub fn new(reader: R, frames: Frames) -> Self {
        Self {
            shared: Shared::new(reader, frames),
            runtime: StdMutex::new(LocalRuntime::unused()),
            owner: AtomicUsize::new(0),
        }
    }

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
    ) -> PyResult<MutexGuard<'a, Option<R>>> {
        if self.owner.load(Ordering::Acquire) == this_thread() {
            return Err(PyRuntimeError::new_err(
                "the iterator is being advanced by this thread already",
            ));
        }
        wait_on(py, runtime, self.shared.reader.lock())
    }

    /// The next frame; none at the end.
    pub fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let runtime = self.runtime()?;
        let mut reader = self.lock(py, &runtime)?;
        let result = self.advance(py, &runtime, &mut reader);
        // Whoever closed it meanwhile did not wait for this.
        if self.shared.closed.is_cancelled() {
            close(&mut reader);
        }
        result
    }

    fn advance<'py>(
        &self,
        py: Python<'py>,
        runtime: &Runtime,
        reader: &mut Option<R>,
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

    pub fn open(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.check_open()?;
        let runtime = self.runtime()?;
        let mut reader = self.lock(py, &runtime)?;
        let _owner = Owner::new(&self.owner);
        wait_on(py, &runtime, self.shared.open(&mut reader))??;
        Ok(())
    }

    pub fn close(&self) -> PyResult<()> {
        self.shared.leave_parent()?;
        self.shared.closed.cancel();
        // A `next` that has the reader closes it: to wait for that would be for
        // ever where a signal handler closes what its own thread waits for.
        if let Ok(mut reader) = self.shared.reader.try_lock() {
            close(&mut reader);
        }
        // Its descriptors, too, unless a `next` is still at it.
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        *runtime = LocalRuntime::unused();
        Ok(())
    }

    pub fn view(&self) -> StdGuard<'_, R::View> {
        self.shared.view()
    }
}

/// Says, as long as it lives, that this thread has the reader.
struct Owner<'a>(&'a AtomicUsize);

impl<'a> Owner<'a> {
    fn new(owner: &'a AtomicUsize) -> Self {
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
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}

/// Advances a reader for asyncio.
///
/// What is awaited never carries a batch, as it could be lost where the await is
/// cancelled: it tells that one is there, and `take` hands it over.
pub struct Awaited<R: Batches> {
    shared: Arc<Shared<R>>,
}

impl<R: Batches> Awaited<R> {
    pub fn new(reader: R, frames: Frames) -> Self {
        Self {
            shared: Arc::new(Shared::new(reader, frames)),
        }
    }

    fn start(&self, py: Python<'_>) -> PyResult<Arc<Shared<R>>> {
        Background::start(py)?;
        self.shared.leave_parent()?;
        Ok(self.shared.clone())
    }

    /// Waits until `take` has something to hand over, or to tell.
    pub fn advance<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
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
    pub fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        // Who holds it will hand the batch over.
        let Ok(mut reader) = self.shared.reader.try_lock() else {
            return Ok(None);
        };
        self.shared.tell(py, &mut reader)?;
        self.shared.take(py, &mut reader)
    }

    pub fn open<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.shared.check_open()?;
        let shared = self.start(py)?;
        future_into_py::<Background, _, _>(py, async move {
            let mut reader = shared.reader.lock().await;
            Ok(shared.open(&mut reader).await?)
        })
    }

    pub fn close<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.shared.closed.cancel();
        let shared = self.start(py)?;
        future_into_py::<Background, _, _>(py, async move {
            close(&mut *shared.reader.lock().await);
            Ok(())
        })
    }

    pub fn view(&self) -> StdGuard<'_, R::View> {
        self.shared.view()
    }
}
