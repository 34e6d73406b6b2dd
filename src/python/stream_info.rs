//! `stream_info`.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, text};
use super::log::wait_and_log;
use crate::entry_id::EntryId;
use crate::read::{self, ConsumerInfo, GroupInfo, Notes, StreamInfo};

/// Rows of the frame, as dicts: one a group, or one of a stream that has none.
#[pyfunction]
pub fn stream_info(
    py: Python<'_>,
    url: &Bound<'_, PyAny>,
    stream: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<Vec<Row>> {
    let deployment = deployment(url)?;
    let stream = text("stream", stream)?;
    let read_from = Arguments(arguments).read_from()?;
    let notes = Notes::default();
    let asked = read::stream_info(&deployment, &stream, read_from, &notes);
    let streams = wait_and_log(py, &notes, asked)?;
    Ok(streams.into_iter().flat_map(rows).collect())
}

/// A row by the names of its columns.
#[derive(IntoPyObject)]
pub struct Row {
    _key: String,
    length: i64,
    entries_added: Option<i64>,
    first_id: Option<String>,
    last_id: Option<String>,
    last_generated_id: String,
    max_deleted_id: Option<String>,
    group: Option<String>,
    consumers: Option<usize>,
    pending: Option<i64>,
    lag: Option<i64>,
    last_delivered_id: Option<String>,
    entries_read: Option<i64>,
    idle_ms: Option<i64>,
    consumer_details: Option<Vec<Consumer>>,
}

#[derive(IntoPyObject)]
struct Consumer {
    name: String,
    pending: i64,
    idle_ms: i64,
    inactive_ms: Option<i64>,
}

fn rows(mut stream: StreamInfo) -> Vec<Row> {
    let groups = std::mem::take(&mut stream.groups);
    if groups.is_empty() {
        return vec![row(&stream, None)];
    }
    let groups = groups.into_iter();
    groups.map(|group| row(&stream, Some(group))).collect()
}

fn row(stream: &StreamInfo, group: Option<GroupInfo>) -> Row {
    let about = group.as_ref();
    let text = |id: EntryId| id.to_string();
    Row {
        _key: stream.key.to_string(),
        length: stream.length,
        entries_added: stream.entries_added,
        first_id: stream.first_id.map(text),
        last_id: stream.last_id.map(text),
        last_generated_id: text(stream.last_generated_id),
        max_deleted_id: stream.max_deleted_id.map(text),
        group: about.map(|group| lossy(&group.name)),
        consumers: about.map(|group| group.consumers.len()),
        pending: about.map(|group| group.pending),
        lag: about.and_then(|group| group.lag),
        last_delivered_id: about.map(|group| text(group.last_delivered_id)),
        entries_read: about.and_then(|group| group.entries_read),
        idle_ms: about.and_then(GroupInfo::idle_ms),
        consumer_details: group.map(|group| group.consumers.into_iter().map(consumer).collect()),
    }
}

fn consumer(consumer: ConsumerInfo) -> Consumer {
    Consumer {
        name: lossy(&consumer.name),
        pending: consumer.pending,
        idle_ms: consumer.idle_ms,
        inactive_ms: consumer.inactive_ms,
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
