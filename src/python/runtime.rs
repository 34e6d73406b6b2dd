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
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3_async_runtimes::TaskLocals;
use pyo3_async_runtimes::generic::{ContextExt, JoinError};
use tokio::runtime::{Builder, Runtime};
use tokio::task;
use tokio::time::timeout;

/// How often pending signals are looked at.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);
/// Threads that serve asyncio: a reader needs one only while bytes come.
const BACKGROUND_THREADS: usize = 2;

/// Waits for `future` on a runtime of the calling thread; fails with what a
/// signal handler raised.
pub fn wait<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    wait_on(py, &*of_this_thread()?, future)
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
    let mut future = pin!(future);
    loop {
        // Signal handlers run outside of the runtime, so that they may read
        // from Redis themselves.
        let output =
            py.detach(|| runtime.block_on(async { timeout(SIGNAL_CHECK, future.as_mut()).await }));
        match output {
            Ok(output) => return Ok(output),
            Err(_) => py.check_signals()?,
        }
    }
}

/// A runtime that runs on whichever thread waits.
pub fn for_one_reader() -> PyResult<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}

struct ThreadRuntime {
    process: u32,
    runtime: Arc<Runtime>,
}

thread_local! {
    static RUNTIME: RefCell<Option<ThreadRuntime>> = const { RefCell::new(None) };
}

fn of_this_thread() -> PyResult<Arc<Runtime>> {
    let process = std::process::id();
    RUNTIME.with_borrow_mut(|slot| {
        match slot.take() {
            Some(found) if found.process == process => {
                return Ok(slot.insert(found).runtime.clone());
            }
            // A parent's: to drop it would reach into what it shares with us.
            Some(parents) => std::mem::forget(parents),
            None => {}
        }
        let runtime = Arc::new(for_one_reader()?);
        let fresh = ThreadRuntime { process, runtime };
        Ok(slot.insert(fresh).runtime.clone())
    })
}

/// The runtime of a process for what asyncio awaits.
pub struct Background;

struct ProcessRuntime {
    process: u32,
    runtime: OnceLock<Runtime>,
}

/// The runtime of this process; those of parents are left alone.
static BACKGROUND: AtomicPtr<ProcessRuntime> = AtomicPtr::new(std::ptr::null_mut());

impl Background {
    /// Starts it, if it was not.
    ///
    /// # Errors
    /// If the system does not give it its threads.
    pub fn start() -> PyResult<()> {
        let slot = Self::slot();
        if slot.runtime.get().is_some() {
            return Ok(());
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(BACKGROUND_THREADS)
            .thread_name("polars-redis")
            .enable_all()
            .build()?;
        if let Err(other) = slot.runtime.set(runtime) {
            other.shutdown_background();
        }
        Ok(())
    }

    fn slot() -> &'static ProcessRuntime {
        let process = std::process::id();
        let current = BACKGROUND.load(Ordering::Acquire);
        // SAFETY: a pointer that was ever stored came from a leaked box.
        if let Some(slot) = unsafe { current.as_ref() }
            && slot.process == process
        {
            return slot;
        }
        let fresh = Box::into_raw(Box::new(ProcessRuntime {
            process,
            runtime: OnceLock::new(),
        }));
        let won = BACKGROUND.compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire);
        let slot = match won {
            Ok(_) => fresh,
            Err(other) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                other
            }
        };
        // SAFETY: leaked above, here or by the thread that was faster.
        unsafe { &*slot }
    }
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
pub struct Task(Option<task::JoinHandle<()>>);

impl Future for Task {
    type Output = Result<(), TaskError>;

    fn poll(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        match &mut self.0 {
            Some(handle) => Pin::new(handle)
                .poll(context)
                .map_err(|error| TaskError(Some(error))),
            None => std::task::Poll::Ready(Err(TaskError(None))),
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
        Task(
            Self::slot()
                .runtime
                .get()
                .map(|runtime| runtime.spawn(future)),
        )
    }

    /// Runs `function` on the spot. It is only ever the hand-over of a result,
    /// for which to wake yet another thread would take longer than it itself.
    fn spawn_blocking<F>(function: F) -> Task
    where
        F: FnOnce() + Send + 'static,
    {
        function();
        Self::spawn(async {})
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
