//! The streams that an iterator is over: one, or a list.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::arguments::text;

/// Keys as Python gives them.
pub enum Streams {
    /// A str.
    One(Arc<str>),
    /// A list, be it of one: not empty, and no key twice.
    Several(Vec<Arc<str>>),
}

impl Streams {
    /// Checks what was given.
    pub fn of(value: &Bound<'_, PyAny>) -> PyResult<Self> {
        let is_text = value.is_instance_of::<PyString>() || value.is_instance_of::<PyBytes>();
        let listed = match is_text {
            true => None,
            false => value.try_iter().ok(),
        };
        let Some(listed) = listed else {
            return match text("stream", value) {
                Ok(key) => Ok(Self::One(key.into())),
                Err(error) if error.is_instance_of::<PyTypeError>(value.py()) => {
                    let name = value.get_type().name()?;
                    let text = format!("stream: expected str or a list of str, got {name}");
                    Err(PyTypeError::new_err(text))
                }
                Err(error) => Err(error),
            };
        };
        let mut keys: Vec<Arc<str>> = Vec::new();
        let mut seen = HashSet::new();
        for (at, key) in listed.enumerate() {
            let key: Arc<str> = text(&format!("stream: at {at}"), &key?)?.into();
            if !seen.insert(key.clone()) {
                let text = format!("stream: {key:?} is in the list twice");
                return Err(PyValueError::new_err(text));
            }
            keys.push(key);
        }
        if keys.is_empty() {
            return Err(PyValueError::new_err("stream: the list has no streams"));
        }
        Ok(Self::Several(keys))
    }

    /// The keys, in the order in which they were given.
    pub fn keys(&self) -> &[Arc<str>] {
        match self {
            Self::One(key) => std::slice::from_ref(key),
            Self::Several(keys) => keys,
        }
    }
}

/// As Python would write it; of many streams only the first few.
impl fmt::Display for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        match self {
            Self::One(key) => write!(f, "{key:?}"),
            Self::Several(keys) if keys.len() <= SHOWN => write!(f, "{keys:?}"),
            Self::Several(keys) => {
                let shown: Vec<String> =
                    keys.iter().take(SHOWN).map(|k| format!("{k:?}")).collect();
                let more = keys.len() - SHOWN;
                write!(f, "[{}, ... {more} more]", shown.join(", "))
            }
        }
    }
}
