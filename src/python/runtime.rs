//! Where futures run.
//!
//! A call that waits runs its future on the calling thread, see [`wait`]: each
//! thread has a runtime of its own, so that threads do not wait for one another,
//! and no reply has to wake another thread. A blocking iterator brings its own,
//! as it may go from thread to thread. What asyncio awaits runs on the threads
//! of one runtime a process, [`Background`].
//!
//! A forked child uses none of its parent's.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{ContextExt, JoinError};
use tokio::runtime::{Builder, Runtime};
use tokio::task;
use tokio::time::timeout;

use crate::per_process::PerProcess;

/// How often pending signals are looked at, and progress is told.
const LOOK_ASIDE: Duration = Duration::from_millis(100);

/// Waits for `future` on a runtime of the calling thread; fails with what a
/// signal handler raised.
pub fn wait<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    wait_and(py, future, || Ok(()))
}

/// The same, with a call of `meanwhile` ten times a second; fails with what that
/// raised, too.
pub fn wait_and<F>(
    py: Python<'_>,
    future: F,
    meanwhile: impl Fn() -> PyResult<()>,
) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = RUNTIME.with_borrow_mut(LocalRuntime::get)?;
    wait_on_and(py, &runtime, future, meanwhile)
}

/// Waits for `future` on the calling thread.
///
/// The GIL is released meanwhile, except for a look at pending signals ten
/// times a second, so that Ctrl-C ends any wait.
pub fn wait_on<F>(py: Python<'_>, runtime: &Runtime, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    wait_on_and(py, runtime, future, || Ok(()))
}

fn wait_on_and<F>(
    py: Python<'_>,
    runtime: &Runtime,
    future: F,
    meanwhile: impl Fn() -> PyResult<()>,
) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let mut future = pin!(future);
    loop {
        // Signal handlers run outside of the runtime, so that they may read
        // from Redis themselves.
        let output =
            py.detach(|| runtime.block_on(async { timeout(LOOK_ASIDE, future.as_mut()).await }));
        match output {
            Ok(output) => return Ok(output),
            Err(_) => {
                py.check_signals()?;
                meanwhile()?;
            }
        }
    }
}

/// A runtime that runs on whichever thread waits, in the process that made it.
pub struct LocalRuntime {
    process: u32,
    runtime: Option<Arc<Runtime>>,
}

impl LocalRuntime {
    /// One that was not used yet.
    pub fn unused() -> Self {
        Self {
            process: std::process::id(),
            runtime: None,
        }
    }

    /// The runtime of this process: another one than the parent's.
    pub fn get(&mut self) -> PyResult<Arc<Runtime>> {
        if self.process != std::process::id() {
            *self = Self::unused();
        }
        if let Some(runtime) = &self.runtime {
            return Ok(runtime.clone());
        }
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build()?);
        Ok(self.runtime.insert(runtime).clone())
    }
}

impl Drop for LocalRuntime {
    fn drop(&mut self) {
        let runtime = self.runtime.take();
        if self.process != std::process::id() {
            // A parent's: to drop it would reach into what it shares with us,
            // and wait for threads that this process does not have.
            std::mem::forget(runtime);
        } else if let Some(runtime) = runtime.and_then(Arc::into_inner) {
            // Does not wait either, for a host name that is still looked up.
            runtime.shutdown_background();
        }
    }
}

thread_local! {
    static RUNTIME: RefCell<LocalRuntime> = RefCell::new(LocalRuntime::unused());
}

/// The runtime of a process for what asyncio awaits.
pub struct Background;

/// The runtime of this process; those of parents are left alone.
static BACKGROUND: PerProcess<OnceLock<Runtime>> = PerProcess::new();

impl Background {
    /// Starts it, if it was not.
    ///
    /// # Errors
    /// If the system does not give it its threads.
    pub fn start(py: Python<'_>) -> PyResult<()> {
        let slot = Self::slot();
        if slot.get().is_some() {
            return Ok(());
        }
        let at_exit = wrap_pyfunction!(leave_interpreter, py)?;
        py.import("atexit")?.call_method1("register", (at_exit,))?;
        let runtime = Builder::new_multi_thread()
            // One is enough, as each needs it only while bytes come, and no two
            // wake one another.
            .worker_threads(1)
            .thread_name("polars-redis")
            .on_thread_start(keep_thread_state)
            .enable_all()
            .build()?;
        if let Err(other) = slot.set(runtime) {
            other.shutdown_background();
        }
        Ok(())
    }

    fn slot() -> &'static OnceLock<Runtime> {
        BACKGROUND.get(|_| ())
    }
}

/// How many threads are in the interpreter, and whether it is about to end.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Runs what needs the interpreter on a thread of [`Background`]; not at all if
/// the interpreter is about to end, as the thread would be torn out of it.
pub fn in_interpreter<T>(function: impl FnOnce() -> T) -> Option<T> {
    INSIDE.fetch_add(1, Ordering::SeqCst);
    let result = (!IS_ENDING.load(Ordering::SeqCst)).then(function);
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    result
}

/// Makes Python's state of this thread, which otherwise would be made and
/// dropped again each time that the thread enters the interpreter.
fn keep_thread_state() {
    in_interpreter(|| {
        // SAFETY: the interpreter is there, and not about to end. The thread lets
        // it go at once, and never gives the state back: it lives as long as the
        // thread, which ends with the process.
        unsafe {
            pyo3::ffi::PyGILState_Ensure();
            pyo3::ffi::PyEval_SaveThread();
        }
    });
}

/// Called when the interpreter is about to end: waits until no thread of
/// [`Background`] is in it, and lets none in again.
#[pyfunction]
fn leave_interpreter(py: Python<'_>) {
    IS_ENDING.store(true, Ordering::SeqCst);
    py.detach(|| {
        while INSIDE.load(Ordering::SeqCst) > 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    });
}

/// How a task of [`Background`] ended that did not end well.
pub struct TaskError(Option<task::JoinError>);

impl JoinError for TaskError {
    fn is_panic(&self) -> bool {
        self.0.as_ref().is_some_and(task::JoinError::is_panic)
    }

    fn into_panic(self) -> Box<dyn std::any::Any + Send + 'static> {
        match self.0 {
            Some(error) => error.into_panic(),
            None => Box::new("the runtime was never started"),
        }
    }
}

/// A task of [`Background`], to wait for.
pub enum Task {
    Running(task::JoinHandle<()>),
    Done,
    /// There is no runtime.
    Impossible,
}

impl Future for Task {
    type Output = Result<(), TaskError>;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        match &mut *self {
            Self::Running(handle) => Pin::new(handle)
                .poll(context)
                .map_err(|error| TaskError(Some(error))),
            Self::Done => std::task::Poll::Ready(Ok(())),
            Self::Impossible => std::task::Poll::Ready(Err(TaskError(None))),
        }
    }
}

impl pyo3_async_runtimes::generic::Runtime for Background {
    type JoinError = TaskError;
    type JoinHandle = Task;

    fn spawn<F>(future: F) -> Task
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match Self::slot().get() {
            Some(runtime) => Task::Running(runtime.spawn(future)),
            None => Task::Impossible,
        }
    }

    /// Runs `function` on the spot. It is only ever the hand-over of a result,
    /// for which to wake yet another thread would take longer than it itself.
    fn spawn_blocking<F>(function: F) -> Task
    where
        F: FnOnce() + Send + 'static,
    {
        in_interpreter(function);
        Task::Done
    }
}

tokio::task_local! {
    static LOCALS: TaskLocals;
}

impl ContextExt for Background {
    fn scope<F, R>(locals: TaskLocals, future: F) -> Pin<Box<dyn Future<Output = R> + Send>>
    where
        F: Future<Output = R> + Send + 'static,
    {
        Box::pin(LOCALS.scope(locals, future))
    }

    fn get_task_locals() -> Option<TaskLocals> {
        LOCALS.try_with(TaskLocals::clone).ok()
    }
}
