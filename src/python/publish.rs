//! What `publish` sends.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment};
use super::row_writer::RowWriter;
use crate::write::{Messages, Reach, Target};

/// A writer of rows as messages.
#[pyfunction]
pub fn message_writer(
    url: &Bound<'_, PyAny>,
    names: Vec<String>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<RowWriter> {
    let deployment = deployment(url)?;
    let arguments = Arguments(arguments);
    let channel = arguments.target("channel", &names)?;
    let reach = match arguments.flag("sharded")? {
        true => Reach::Shard,
        false => Reach::Everywhere,
    };
    let members = names.iter().map(String::as_str).enumerate();
    let members: Vec<_> = members
        .filter(|&(at, _)| channel != Target::Column(at))
        .collect();
    let messages = Messages::new(channel, reach, &members);
    Ok(RowWriter::new(deployment, names, Box::new(messages)))
}
