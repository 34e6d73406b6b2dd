//! `iter_stream`: an iterator that blocks.

use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::acknowledge::{acknowledge_all, to_entry_ids};
use super::arguments::{Arguments, deployment, text};
use super::frame::Frames;
use super::iteration::{Batches, Blocking};
use super::streams::Streams;
use crate::decode::Table;
use crate::deployment::Deployment;
use crate::entry_id::EntryId;
use crate::error::Result;
use crate::read::{EntriesOf, FirstConnect, Note, Reader, Stats, Step};

/// What a reader of streams has handed over, and done.
#[derive(Default)]
pub struct View {
    last_id: Option<EntryId>,
    /// Of each stream.
    last_ids: HashMap<Arc<str>, EntryId>,
    last_batch: Vec<EntriesOf>,
    stats: Stats,
}

impl Batches for Reader {
    type View = View;

    fn open(&mut self) -> impl Future<Output = Result<()>> + Send {
        Self::open(self)
    }

    fn advance(&mut self) -> impl Future<Output = Result<Step>> + Send {
        Self::advance(self)
    }

    fn batch(&mut self) -> Option<Result<Table>> {
        Self::batch(self).map(Ok)
    }

    fn handed_over(&mut self, view: &mut View) {
        Self::handed_over(self);
        self.show(view);
        view.last_id = self.last_id();
        view.last_batch.clear();
        for part in self.last_batch() {
            if let Some(last) = part.last {
                view.last_ids.insert(part.stream.clone(), last);
            }
            view.last_batch
                .push((part.stream.clone(), part.ids.clone()));
        }
    }

    fn show(&self, view: &mut View) {
        view.stats = self.stats();
    }

    fn take_note(&mut self) -> Option<Note> {
        Self::take_note(self)
    }

    fn forget_connection(&mut self) -> bool {
        Self::forget_connection(self)
    }

    fn close(self) {
        Self::close(self);
    }
}

impl View {
    pub fn last_id(&self) -> Option<String> {
        self.last_id.map(|id| id.to_string())
    }

    /// Batches, entries, bytes, reconnects, claimed.
    pub fn stats(&self) -> [u64; 5] {
        let stats = self.stats;
        [
            stats.batches,
            stats.entries,
            stats.bytes,
            stats.reconnects,
            stats.claimed,
        ]
    }
}

/// What both kinds of iterator know of what they read.
pub struct Origin {
    pub deployment: Arc<Deployment>,
    streams: Streams,
    group: Option<String>,
    columns: NamingColumns,
}

/// The columns of a frame that name its entries.
struct NamingColumns {
    key: Option<String>,
    id: Option<String>,
}

impl Origin {
    /// Checks the arguments; nothing is sent.
    pub fn new(
        url: &Bound<'_, PyAny>,
        stream: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<(Self, Reader, Frames)> {
        let deployment = deployment(url)?;
        let streams = Streams::of(stream)?;
        let arguments = Arguments(arguments);
        let plan = arguments.plan_of(&streams)?;
        let frames = arguments.frames(&plan)?;
        let columns = NamingColumns {
            key: plan.ids().key.clone(),
            id: plan.ids().id.clone(),
        };
        let (query, pace) = arguments.iterated(&streams)?;
        let group = query.group().map(str::to_owned);
        let reader = Reader::new(deployment.clone(), query, plan, pace);
        let origin = Self {
            deployment,
            streams,
            group,
            columns,
        };
        Ok((origin, reader, frames))
    }

    /// The group, and what is to be acknowledged of it: the entries of a frame, or
    /// the last batch.
    pub fn to_acknowledge(
        &self,
        view: MutexGuard<'_, View>,
        frame: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<(String, Vec<EntriesOf>)> {
        let Some(group) = self.group.clone() else {
            return Err(PyValueError::new_err(
                "ack: only for an iterator with a group",
            ));
        };
        let entries = match frame {
            None => view.last_batch.clone(),
            Some(frame) => {
                // What a frame runs in Python may look at the iterator.
                drop(view);
                self.entries_of(frame)?
            }
        };
        Ok((group, entries))
    }

    /// The entries of a frame, by stream.
    fn entries_of(&self, frame: &Bound<'_, PyAny>) -> PyResult<Vec<EntriesOf>> {
        let Some(id_column) = &self.columns.id else {
            return Err(PyValueError::new_err(
                "ack: a frame without a column of entry IDs (include_id=False) does not say \
                 what to acknowledge",
            ));
        };
        let (keys, key_column) = match (&self.streams, &self.columns.key) {
            (Streams::One(stream), _) => {
                let ids = to_entry_ids(&column_of(frame, id_column, "entry IDs")?)?;
                return Ok(vec![(stream.clone(), ids)]);
            }
            (Streams::Several(keys), Some(column)) => (keys, column),
            (Streams::Several(_), None) => {
                return Err(PyValueError::new_err(
                    "ack: a frame without a column of keys (include_key=False) does not say of \
                     which stream its entries are",
                ));
            }
        };
        let ids = to_entry_ids(&column_of(frame, id_column, "entry IDs")?)?;
        let rows = column_of(frame, key_column, "keys")?;
        let known = keys.iter().map(|key| (&**key, (key.clone(), Vec::new())));
        let mut by_key: HashMap<&str, EntriesOf> = known.collect();
        for (key, id) in rows.try_iter()?.zip(ids) {
            let key = text(key_column, &key?)?;
            let Some((_, ids)) = by_key.get_mut(&*key) else {
                let text = format!("ack: the stream {key:?} is none of the iterator's");
                return Err(PyValueError::new_err(text));
            };
            ids.push(id);
        }
        by_key.retain(|_, (_, ids)| !ids.is_empty());
        Ok(by_key.into_values().collect())
    }

    /// The last entry handed over of each stream that had any, in the order of the
    /// streams.
    pub fn last_ids<'py>(&self, py: Python<'py>, view: &View) -> PyResult<Bound<'py, PyDict>> {
        let ids = PyDict::new(py);
        for key in self.streams.keys() {
            if let Some(last) = view.last_ids.get(key) {
                ids.set_item(&**key, last.to_string())?;
            }
        }
        Ok(ids)
    }

    pub fn describe(&self, kind: &str) -> String {
        let group = self.group.as_ref();
        let group = group.map_or_else(String::new, |group| format!(", group={group:?}"));
        let url = self.deployment.to_string();
        format!("{kind}({url:?}, {}{group})", self.streams)
    }
}

/// A column of a frame that is to say `what`.
fn column_of<'py>(
    frame: &Bound<'py, PyAny>,
    column: &str,
    what: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = frame.py().import("polars")?.getattr("DataFrame")?;
    if !frame.is_instance(&kind)? {
        let name = frame.get_type().name()?;
        let text = format!("ack: expected a DataFrame, got {name}");
        return Err(PyTypeError::new_err(text));
    }
    if !frame.getattr("columns")?.contains(column)? {
        let text = format!("ack: the frame has no column {column:?} of {what}");
        return Err(PyValueError::new_err(text));
    }
    frame.get_item(column)
}

/// Yields frames of a stream.
#[pyclass(frozen, subclass, module = "polars_redis._core")]
pub struct StreamIterator {
    iteration: Blocking<Reader>,
    origin: Origin,
}

#[pymethods]
impl StreamIterator {
    #[new]
    fn new(
        url: &Bound<'_, PyAny>,
        stream: &Bound<'_, PyAny>,
        arguments: Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let (origin, reader, frames) = Origin::new(url, stream, arguments)?;
        Ok(Self {
            iteration: Blocking::new(reader, frames),
            origin,
        })
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.iteration.next(py)
    }

    fn __enter__(slf: Bound<'_, Self>) -> PyResult<Bound<'_, Self>> {
        slf.get().iteration.open(slf.py())?;
        Ok(slf)
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, _exception: Bound<'_, PyTuple>) -> PyResult<()> {
        self.iteration.close()
    }

    #[pyo3(signature = (frame = None))]
    fn ack(&self, py: Python<'_>, frame: Option<&Bound<'_, PyAny>>) -> PyResult<u64> {
        let (group, entries) = self.origin.to_acknowledge(self.iteration.view(), frame)?;
        let deployment = &self.origin.deployment;
        acknowledge_all(py, deployment, &group, &entries, FirstConnect::IsRetried)
    }

    fn close(&self) -> PyResult<()> {
        self.iteration.close()
    }

    #[getter]
    fn last_id(&self) -> Option<String> {
        self.iteration.view().last_id()
    }

    #[getter]
    fn last_ids<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.origin.last_ids(py, &self.iteration.view())
    }

    #[getter]
    fn _stats(&self) -> [u64; 5] {
        self.iteration.view().stats()
    }

    fn __repr__(&self) -> String {
        self.origin.describe("StreamIterator")
    }
}
