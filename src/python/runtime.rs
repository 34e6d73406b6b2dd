//! Runs a future to its end on the calling thread.
//!
//! The GIL is released meanwhile, except for a look at pending signals ten
//! times a second, so that Ctrl-C ends any wait. Each thread has a runtime of
//! its own, so that threads do not wait for one another, and no reply has to
//! wake another thread. A forked child does not use its parent's.

use std::cell::RefCell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// How often pending signals are looked at.
const SIGNAL_CHECK: Duration = Duration::from_millis(100);

/// Waits for `future`; fails with what a signal handler raised.
pub fn wait<F>(py: Python<'_>, future: F) -> PyResult<F::Output>
where
    F: Future + Send,
    F::Output: Send,
{
    let runtime = of_this_thread()?;
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
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build()?);
        let fresh = ThreadRuntime { process, runtime };
        Ok(slot.insert(fresh).runtime.clone())
    })
}
