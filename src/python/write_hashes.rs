//! What `write_hashes` sends.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, wrong};
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
    let Some(key) = arguments.column("key_column", &names)? else {
        return Err(wrong("key_column", "name the column of the keys"));
    };
    let fields = names.iter().map(String::as_str).enumerate();
    let fields: Vec<_> = fields.filter(|&(at, _)| at != key).collect();
    let prefix = arguments.text("key_prefix")?.unwrap_or_default();
    let milliseconds = arguments.number("ttl_ms", 1)?;
    let time_to_live = milliseconds.map(|ms| Duration::from_millis(ms as u64));
    let if_exists = match arguments.text("if_exists")?.as_deref() {
        Some("replace") => IfExists::Replace,
        Some("append") => IfExists::Append,
        Some("fail") => IfExists::Keep,
        _ => {
            let expected = "expected \"replace\", \"append\" or \"fail\"";
            return Err(wrong("if_exists", expected));
        }
    };
    let hashes = Hashes::new(key, prefix, &fields, time_to_live, if_exists);
    Ok(RowWriter::new(deployment, names, Box::new(hashes)))
}
