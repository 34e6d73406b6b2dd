//! What `write_stream` sends.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arguments::{Arguments, deployment, wrong};
use super::row_writer::RowWriter;
use crate::entry_id::Start;
use crate::write::{Entries, Nulls, Target, Trim};

/// Columns that are made of an entry's ID, or tell of how it was read.
const OF_READING: [&str; 5] = ["_id", "_ts", "_seq", "_deliveries", "_key"];

/// A writer of rows as entries of streams.
#[pyfunction]
pub fn entry_writer(
    url: &Bound<'_, PyAny>,
    names: Vec<String>,
    arguments: Bound<'_, PyDict>,
) -> PyResult<RowWriter> {
    let deployment = deployment(url)?;
    let arguments = Arguments(arguments);
    let entries = entries(&names, &arguments)?;
    Ok(RowWriter::new(deployment, names, Box::new(entries)))
}

/// The names of the columns that become fields.
#[pyfunction]
pub fn entry_fields(names: Vec<String>, arguments: Bound<'_, PyDict>) -> PyResult<Vec<String>> {
    let columns = Columns::new(&names, &Arguments(arguments))?;
    let fields = columns.fields.into_iter();
    Ok(fields.map(|(_, name)| name.to_owned()).collect())
}

/// What becomes of the columns of a frame.
struct Columns<'a> {
    target: Target,
    id: Option<usize>,
    fields: Vec<(usize, &'a str)>,
}

impl<'a> Columns<'a> {
    fn new(names: &'a [String], arguments: &Arguments<'_>) -> PyResult<Self> {
        let target = arguments.target("stream", names)?;
        let id = arguments.column("id_column", names)?;
        let is_of_reading = |name: &str| OF_READING.contains(&name);
        let mut fields = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let is_target = target == Target::Column(at);
            if Some(at) == id || is_target || (id.is_some() && is_of_reading(name)) {
                continue;
            }
            if is_of_reading(name) {
                return Err(wrong(
                    "df",
                    &format!(
                        "the column {name:?} has a name that readers give to what is no field: drop \
                     or rename it, or give id_column to write the entries with their IDs"
                    ),
                ));
            }
            fields.push((at, name.as_str()));
        }
        Ok(Self { target, id, fields })
    }
}

fn entries(names: &[String], arguments: &Arguments<'_>) -> PyResult<Entries> {
    let Columns { target, id, fields } = Columns::new(names, arguments)?;
    let nulls = arguments.choice(
        "null",
        &[
            ("skip", Nulls::Skip),
            ("empty", Nulls::Empty),
            // Whoever wants none has looked for them.
            ("raise", Nulls::Skip),
        ],
    )?;
    let entries = Entries::new(target, id, &fields, nulls);
    let approximate = arguments.flag("approximate")?;
    Ok(match trim(arguments)? {
        None => entries,
        Some(trim) => entries.trimmed(trim, approximate),
    })
}

fn trim(arguments: &Arguments<'_>) -> PyResult<Option<Trim>> {
    // The server counts with a sign.
    let maxlen = arguments
        .number("maxlen", 0)?
        .map(|most| most.min(i64::MAX as usize));
    let min_id = match arguments.is_given("minid")? {
        false => None,
        true => Some(arguments.start_of("minid")?),
    };
    match (maxlen, min_id) {
        (None, None) => Ok(None),
        (Some(len), None) => Ok(Some(Trim::MaxLen(len as u64))),
        (None, Some(Start::At(id))) => Ok(Some(Trim::MinId(id))),
        (None, Some(_)) => Err(wrong("minid", "expected an entry ID")),
        (Some(_), Some(_)) => Err(wrong("minid", "only where no maxlen is given")),
    }
}
