//! What `write_hashes` sends.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment};
use super::row_writer::RowWriter;
use crate::write::{Hashes, IfExists};

/// A writer of rows as hashes.
#[pyfunction]
pub fn hash_writer(
    url: &Bound<'_, PyAny>,
    names: Vec<String>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<RowWriter> {
    let deployment = deployment(url)?;
    let arguments = Arguments(arguments);
    let key = arguments.needed_column("key_column", &names)?;
    let fields = names.iter().map(String::as_str).enumerate();
    let fields: Vec<_> = fields.filter(|&(at, _)| at != key).collect();
    let prefix = arguments.needed_text("key_prefix")?;
    let milliseconds = arguments.number("ttl_ms", 1)?;
    let time_to_live = milliseconds.map(|ms| Duration::from_millis(ms as u64));
    let if_exists = arguments.choice(
        "if_exists",
        &[
            ("replace", IfExists::Replace),
            ("append", IfExists::Append),
            ("fail", IfExists::Keep),
        ],
    )?;
    let hashes = Hashes::new(key, prefix, &fields, time_to_live, if_exists);
    Ok(RowWriter::new(deployment, names, Box::new(hashes)))
}
