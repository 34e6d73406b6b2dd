//! Something that each process has one of: a forked child begins with another
//! than its parent's.

use std::sync::atomic::{AtomicPtr, Ordering};

/// A value of this process, made when it is first asked for.
///
/// A parent's value stays where it is: its locks may be held by threads that a
/// child does not have, and what it refers to is the parent's.
pub struct PerProcess<T> {
    current: AtomicPtr<Owned<T>>,
}

struct Owned<T> {
    process: u32,
    value: T,
}

impl<T: Default + Sync> PerProcess<T> {
    /// No process has one yet.
    pub const fn new() -> Self {
        Self {
            current: AtomicPtr::new(std::ptr::null_mut()),
        }
    }

    /// This process's value. `leave` is shown the parent's, once, if there is
    /// one.
    pub fn get(&self, leave: impl FnOnce(&T)) -> &T {
        let process = std::process::id();
        let current = self.current.load(Ordering::Acquire);
        // SAFETY: a pointer that was ever stored came from a leaked box.
        let known = unsafe { current.as_ref() };
        if let Some(owned) = known
            && owned.process == process
        {
            return &owned.value;
        }
        let fresh = Box::into_raw(Box::new(Owned {
            process,
            value: T::default(),
        }));
        let won =
            self.current
                .compare_exchange(current, fresh, Ordering::AcqRel, Ordering::Acquire);
        let owned = match won {
            Ok(_) => {
                if let Some(parents) = known {
                    leave(&parents.value);
                }
                fresh
            }
            Err(other) => {
                // SAFETY: nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                other
            }
        };
        // SAFETY: leaked above, here or by the thread that was faster.
        unsafe { &(*owned).value }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_one() {
        static VALUES: PerProcess<std::sync::Mutex<u32>> = PerProcess::new();
        let set = |value| *VALUES.get(|_| ()).lock().unwrap() = value;
        set(3);
        assert_eq!(*VALUES.get(|_| panic!("no parent")).lock().unwrap(), 3);
    }
}
