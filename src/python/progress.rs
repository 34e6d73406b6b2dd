//! Telling Python how far a read is.

use pyo3::prelude::*;

use crate::decode::Meter;

/// A callable that is told from time to time, if there is one: the entries so far,
/// and about how many there will be, or None where that is not known.
#[derive(Default)]
pub struct Progress<'py>(pub Option<Bound<'py, PyAny>>);

impl Progress<'_> {
    /// Tells it; fails with what it raised.
    pub fn tell(&self, meter: &Meter) -> PyResult<()> {
        if let Some(callable) = &self.0 {
            callable.call1((meter.entries(), meter.expected()))?;
        }
        Ok(())
    }
}
