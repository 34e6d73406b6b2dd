//! What `publish` sends.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, wrong};
use super::row_writer::RowWriter;
use crate::write::{Channel, Messages, Reach};

/// A writer of rows as messages.
#[pyfunction]
pub fn message_writer(
    url: &Bound<'_, PyAny>,
    names: Vec<String>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<RowWriter> {
    let deployment = deployment(url)?;
    let arguments = Arguments(arguments);
    let channel_column = arguments.column("channel_column", &names)?;
    let channel = match (arguments.text("channel")?, channel_column) {
        (Some(channel), None) => Channel::Named(channel),
        (None, Some(column)) => Channel::Column(column),
        (None, None) => return Err(wrong("channel", "name a channel, or give channel_column")),
        (Some(_), Some(_)) => {
            return Err(wrong("channel_column", "only where no channel is given"));
        }
    };
    let reach = match arguments.flag("sharded")? {
        true => Reach::Shard,
        false => Reach::Everywhere,
    };
    let members = names.iter().map(String::as_str).enumerate();
    let members: Vec<_> = members
        .filter(|&(at, _)| Some(at) != channel_column)
        .collect();
    let messages = Messages::new(channel, reach, &members);
    Ok(RowWriter::new(deployment, names, Box::new(messages)))
}
