//! The arguments of a read as Python gives them, checked: nothing is sent before
//! they are.

mod messages;

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyInt, PyString};

use super::dtypes::{PySchema, to_field};
use super::frame::Frames;
use super::streams::Streams;
use crate::command::Consumer;
use crate::decode::{Fields, IdColumns, OnMisfit, Plan};
use crate::deployment::{Deployment, ReadFrom};
use crate::entry_id::{End, EntryId, Start};
use crate::read::{
    Condition, DeadLetter, Entries, GroupQuery, Mode, Pace, Query, RangeQuery, StreamsQuery,
    TailQuery, TailsQuery, Wait, Which,
};
use crate::write::Target;

/// How long a one-shot read tries to connect again.
const ONE_SHOT_RECONNECT: Duration = Duration::from_secs(10);

/// The keyword arguments of a read, by name. All are there.
pub struct Arguments<'py>(pub Bound<'py, PyDict>);

/// What a one-shot read is.
pub enum OneShot {
    /// A range, at once.
    Range(RangeQuery),
    /// As a consumer of a group, or waiting for entries.
    Reader(Query, Pace),
}

impl<'py> Arguments<'py> {
    /// The columns.
    pub fn plan(&self) -> PyResult<Plan> {
        self.plan_with_key(self.text("key_column_name")?)
    }

    /// The columns of an iterator: only where there may be several streams does one
    /// tell which it is.
    pub fn plan_of(&self, streams: &Streams) -> PyResult<Plan> {
        let key = self.text("key_column_name")?;
        self.plan_with_key(match streams {
            Streams::One(_) => None,
            Streams::Several(_) => key,
        })
    }

    fn plan_with_key(&self, key: Option<String>) -> PyResult<Plan> {
        let fields = match self.schema()? {
            None => Fields::Discover,
            Some(schema) => Fields::Schema(schema.iter().map(to_field).collect::<PyResult<_>>()?),
        };
        let on_misfit = match self.flag("strict")? {
            true => OnMisfit::Raise,
            false => OnMisfit::Null,
        };
        let ids = IdColumns {
            key,
            id: self.text("id_column")?,
            timestamp: self.text("timestamp_column")?,
            sequence: self.text("sequence_column")?,
            deliveries: self.text("delivery_count_column")?,
        };
        Ok(Plan::new(ids, fields, on_misfit)?)
    }

    /// What makes frames of what was read by this plan.
    pub fn frames(&self, plan: &Plan) -> PyResult<Frames> {
        match (plan.fields(), self.schema()?) {
            (Fields::Schema(fields), Some(schema)) => Frames::new(fields, &schema),
            _ => Ok(Frames::default()),
        }
    }

    /// Names and dtypes of the fields, as Python gives them.
    fn schema(&self) -> PyResult<Option<PySchema<'py>>> {
        self.get("schema")?.extract()
    }

    /// What to read at once.
    pub fn one_shot(&self, stream: String) -> PyResult<OneShot> {
        let group = self.group(&stream, &self.get("start_id")?, Mode::Once)?;
        let wait = match self.milliseconds("block_ms")? {
            None => Wait::Never,
            Some(Duration::ZERO) => Wait::Rounds(Duration::ZERO),
            Some(block) => Wait::Once(block),
        };
        let count = self.number("count", 0)?;
        if group.is_none() && wait == Wait::Never {
            return Ok(OneShot::Range(self.range(stream)?));
        }
        let pace = Pace {
            batch_size: usize::MAX,
            count,
            wait,
            linger: Duration::ZERO,
            reconnect: ONE_SHOT_RECONNECT,
            all_or_nothing: true,
        };
        let query = match group {
            Some(group) => Query::Group(group),
            None => Query::Tail(self.tail(stream)?),
        };
        Ok(OneShot::Reader(query, pace))
    }

    /// The range that the bounds and the count make.
    pub fn range(&self, stream: String) -> PyResult<RangeQuery> {
        Ok(RangeQuery {
            stream,
            start: self.start()?,
            end: self.end()?,
            count: self.number("count", 0)?,
            condition: Condition::Anything,
            read_from: self.read_from()?,
        })
    }

    /// What to read of many streams.
    pub fn streams(&self, which: Which) -> PyResult<StreamsQuery> {
        let start = self.start()?;
        if start == Start::AfterLast {
            return Err(wrong(
                "start_id",
                "\"$\" is not for many streams: after what is last now there is nothing",
            ));
        }
        let entries = Entries {
            start,
            end: self.end()?,
            count: self.number("count_per_stream", 0)?,
            condition: Condition::Anything,
            read_from: self.read_from()?,
        };
        Ok(StreamsQuery {
            which,
            entries,
            limit: None,
        })
    }

    /// What to read batch after batch.
    pub fn iterated(&self, streams: &Streams) -> PyResult<(Query, Pace)> {
        let query = match streams {
            Streams::One(stream) => self.iterated_one(stream)?,
            Streams::Several(keys) => self.iterated_several(keys)?,
        };
        let pace = Pace {
            batch_size: self.needed("batch_size", 1)?,
            count: self.number("count", 0)?,
            wait: self.block()?.map_or(Wait::Never, Wait::Rounds),
            linger: Duration::from_millis(self.needed("linger_ms", 0)? as u64),
            reconnect: Duration::from_millis(self.needed("reconnect_timeout_ms", 0)? as u64),
            all_or_nothing: false,
        };
        Ok((query, pace))
    }

    /// How long a round of waiting is: for asyncio it has another name, too.
    fn block(&self) -> PyResult<Option<Duration>> {
        const ALIAS: &str = "batch_timeout_ms";
        match self.0.contains(ALIAS)? {
            true => self.milliseconds(ALIAS),
            false => self.milliseconds("block_ms"),
        }
    }

    fn iterated_one(&self, stream: &str) -> PyResult<Query> {
        let start = self.get("start_id")?;
        Ok(match self.group(stream, &start, Mode::Consume)? {
            Some(group) => Query::Group(group),
            None => Query::Tail(self.tail(stream.to_owned())?),
        })
    }

    fn iterated_several(&self, keys: &[Arc<str>]) -> PyResult<Query> {
        let starts = self.starts(keys)?;
        let with_starts = || keys.iter().zip(&starts);
        let groups = with_starts().map(|(key, start)| self.group(key, start, Mode::Consume));
        let groups: Option<Vec<GroupQuery>> = groups.collect::<PyResult<_>>()?;
        if let Some(groups) = groups {
            return Ok(Query::Groups(groups));
        }
        let begun = |(key, value): (&Arc<str>, &Bound<'py, PyAny>)| {
            PyResult::Ok((key.clone(), start("start_id", value)?))
        };
        Ok(Query::Tails(TailsQuery {
            streams: with_starts().map(begun).collect::<PyResult<_>>()?,
            end: self.end()?,
            read_from: self.read_from()?,
        }))
    }

    /// Where each of several streams begins: a mapping says so of some of them.
    fn starts(&self, keys: &[Arc<str>]) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let given = self.get("start_id")?;
        let Ok(by_key) = given.cast::<PyDict>() else {
            return Ok(vec![given; keys.len()]);
        };
        let oldest = PyString::new(given.py(), "-").into_any();
        let mut starts = Vec::with_capacity(keys.len());
        let mut found = 0;
        for key in keys {
            let start = by_key.get_item(&**key)?;
            found += usize::from(start.is_some());
            starts.push(start.unwrap_or_else(|| oldest.clone()));
        }
        if found < by_key.len() {
            let is_listed =
                |key: &Bound<'_, PyAny>| keys.iter().any(|k| key.eq(&**k).unwrap_or(false));
            let other = by_key.keys().iter().find(|key| !is_listed(key));
            let other = other.map_or_else(
                || Ok(String::new()),
                |key| key.repr().map(|r| r.to_string()),
            )?;
            return Err(wrong(
                "start_id",
                &format!("{other} is not in the list of streams"),
            ));
        }
        Ok(starts)
    }

    fn tail(&self, stream: String) -> PyResult<TailQuery> {
        Ok(TailQuery {
            stream,
            start: self.start()?,
            end: self.end()?,
            read_from: self.read_from()?,
        })
    }

    /// The group read that was asked for, if one was; `mode` is that of one from
    /// the start.
    fn group(
        &self,
        stream: &str,
        start: &Bound<'py, PyAny>,
        mode: Mode,
    ) -> PyResult<Option<GroupQuery>> {
        let consumer = self.text("consumer")?;
        let auto_ack = self.flag("auto_ack")?;
        let dead_letter = self.dead_letter()?;
        if dead_letter
            .as_ref()
            .is_some_and(|dead| dead.stream == stream)
        {
            return Err(wrong("dead_letter", "cannot be the stream itself"));
        }
        let claim_idle = self.milliseconds("claim_idle_ms")?;
        let create_group = self.flag("create_group")?;
        let Some(group) = self.text("group")? else {
            for (parameter, is_given) in [
                ("consumer", consumer.is_some()),
                ("auto_ack", auto_ack),
                (
                    "include_delivery_count",
                    self.text("delivery_count_column")?.is_some(),
                ),
                ("max_deliveries", dead_letter.is_some()),
            ] {
                if is_given {
                    return Err(wrong(parameter, "only for a read with a group"));
                }
            }
            return Ok(None);
        };
        if self.read_from()? == ReadFrom::Replica {
            return Err(wrong(
                "read_from",
                "a group read goes to the master: what is given to a consumer is written down",
            ));
        }
        let Some(name) = consumer else {
            return Err(wrong("group", "a group read needs a consumer too"));
        };
        Ok(Some(GroupQuery {
            consumer: Consumer {
                stream: stream.to_owned(),
                group,
                name,
            },
            mode: self.group_mode(start, mode)?,
            create_group,
            claim_idle,
            auto_ack,
            dead_letter,
        }))
    }

    fn group_mode(&self, given: &Bound<'py, PyAny>, mode: Mode) -> PyResult<Mode> {
        let end = self.get("end_id")?;
        if !end.cast::<PyString>().is_ok_and(|end| end == "+") {
            return Err(wrong("end_id", "a group read has no end; use count"));
        }
        let text: Option<String> = given.cast::<PyString>().ok().map(|text| text.to_string());
        match text.as_deref() {
            Some("-" | ">") => return Ok(mode),
            Some("$" | "+") => {
                return Err(wrong(
                    "start_id",
                    "a group read takes \"-\" or \">\" (new entries), or an entry ID (own pending \
                     entries after it)",
                ));
            }
            _ => {}
        }
        let is_exclusive = text.is_some_and(|text| text.starts_with('('));
        Ok(Mode::Pending(match start("start_id", given)? {
            Start::At(id) if is_exclusive => id.previous().unwrap_or(id),
            Start::At(id) => id,
            Start::Never | Start::AfterLast => EntryId::MAX,
        }))
    }

    fn dead_letter(&self) -> PyResult<Option<DeadLetter>> {
        let max_deliveries = self.number("max_deliveries", 1)?;
        match (max_deliveries, self.text("dead_letter")?) {
            (None, None) => Ok(None),
            (Some(max), Some(stream)) => Ok(Some(DeadLetter {
                max_deliveries: max as u64,
                stream,
            })),
            (Some(_), None) => Err(wrong("max_deliveries", "needs dead_letter too")),
            (None, Some(_)) => Err(wrong("dead_letter", "needs max_deliveries too")),
        }
    }

    fn start(&self) -> PyResult<Start> {
        self.start_of("start_id")
    }

    /// Where a range begins.
    pub fn start_of(&self, parameter: &str) -> PyResult<Start> {
        start(parameter, &self.get(parameter)?)
    }

    fn end(&self) -> PyResult<End> {
        match bound("end_id", &self.get("end_id")?)? {
            Bounds::Text(text) => End::parse(&text).map_err(|e| invalid("end_id", &e)),
            Bounds::Milliseconds(ms) => Ok(End::At(EntryId::new(ms, u64::MAX))),
        }
    }

    /// Which servers to read from.
    pub fn read_from(&self) -> PyResult<ReadFrom> {
        self.choice(
            "read_from",
            &[("master", ReadFrom::Master), ("replica", ReadFrom::Replica)],
        )
    }

    fn get(&self, parameter: &str) -> PyResult<Bound<'py, PyAny>> {
        self.0
            .get_item(parameter)?
            .ok_or_else(|| PyTypeError::new_err(format!("{parameter}: missing")))
    }

    /// Whether it is anything but None.
    pub fn is_given(&self, parameter: &str) -> PyResult<bool> {
        Ok(!self.get(parameter)?.is_none())
    }

    /// The number of the column that is named, if one is.
    pub fn column(&self, parameter: &str, names: &[String]) -> PyResult<Option<usize>> {
        match self.is_given(parameter)? {
            true => self.needed_column(parameter, names).map(Some),
            false => Ok(None),
        }
    }

    /// The number of the column that is named, as one must be.
    pub fn needed_column(&self, parameter: &str, names: &[String]) -> PyResult<usize> {
        let name = self.needed_text(parameter)?;
        match names.iter().position(|there| *there == name) {
            Some(at) => Ok(at),
            None => Err(wrong(
                parameter,
                &format!("the frame has no column {name:?}"),
            )),
        }
    }

    /// What a parameter names for all rows, or the column that names it for each: one
    /// of the two is given.
    pub fn target(&self, parameter: &str, names: &[String]) -> PyResult<Target> {
        let for_each = format!("{parameter}_column");
        match (self.text(parameter)?, self.column(&for_each, names)?) {
            (Some(name), None) => Ok(Target::Named(name)),
            (None, Some(column)) => Ok(Target::Column(column)),
            (None, None) => Err(wrong(
                parameter,
                &format!("name a {parameter}, or give {for_each}"),
            )),
            (Some(_), Some(_)) => Err(wrong(
                &for_each,
                &format!("only where no {parameter} is given"),
            )),
        }
    }

    /// A text, if one is given.
    pub fn text(&self, parameter: &str) -> PyResult<Option<String>> {
        let value = self.get(parameter)?;
        if value.is_none() {
            return Ok(None);
        }
        text(parameter, &value).map(Some)
    }

    /// A text that must be there.
    pub fn needed_text(&self, parameter: &str) -> PyResult<String> {
        text(parameter, &self.get(parameter)?)
    }

    /// What the text that is given stands for, which must be one of these.
    pub fn choice<T: Copy>(&self, parameter: &str, choices: &[(&str, T)]) -> PyResult<T> {
        let given = self.needed_text(parameter)?;
        if let Some((_, chosen)) = choices.iter().find(|(name, _)| *name == given) {
            return Ok(*chosen);
        }
        let names: Vec<String> = choices
            .iter()
            .map(|(name, _)| format!("{name:?}"))
            .collect();
        Err(wrong(
            parameter,
            &format!("expected {}, got {given:?}", names.join(" or ")),
        ))
    }

    /// True or false.
    pub fn flag(&self, parameter: &str) -> PyResult<bool> {
        let value = self.get(parameter)?;
        match value.cast::<PyBool>() {
            Ok(flag) => Ok(flag.is_true()),
            Err(_) => Err(wrong_type(parameter, "bool", &value)?),
        }
    }

    fn milliseconds(&self, parameter: &str) -> PyResult<Option<Duration>> {
        let number = self.number(parameter, 0)?;
        // The server counts with a sign.
        Ok(number.map(|ms| Duration::from_millis((ms as u64).min(i64::MAX as u64))))
    }

    /// A number of at least `least` that must be there.
    pub fn needed(&self, parameter: &str, least: u64) -> PyResult<usize> {
        match self.number(parameter, least)? {
            Some(number) => Ok(number),
            None => Err(wrong_type(parameter, "int", &self.get(parameter)?)?),
        }
    }

    /// A number of at least `least`; nothing for None. One that no memory could
    /// hold is as large as any.
    pub fn number(&self, parameter: &str, least: u64) -> PyResult<Option<usize>> {
        let value = self.get(parameter)?;
        if value.is_none() {
            return Ok(None);
        }
        if !is_integer(&value) {
            return Err(wrong_type(parameter, "int", &value)?);
        }
        match unsigned(&value)? {
            Some(number) if number >= least => {
                Ok(Some(usize::try_from(number).unwrap_or(usize::MAX)))
            }
            None if value.gt(0)? => Ok(Some(usize::MAX)),
            _ => Err(wrong(
                parameter,
                &format!("expected at least {least}, got {value}"),
            )),
        }
    }
}

fn start(parameter: &str, given: &Bound<'_, PyAny>) -> PyResult<Start> {
    match bound(parameter, given)? {
        Bounds::Text(text) => Start::parse(&text).map_err(|e| invalid(parameter, &e)),
        Bounds::Milliseconds(ms) => Ok(Start::At(EntryId::new(ms, 0))),
    }
}

/// A text that must be there.
pub fn text(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    let Ok(text) = value.cast::<PyString>() else {
        return Err(wrong_type(parameter, "str", value)?);
    };
    let text = text.to_str().map_err(|_| not_unicode(parameter))?;
    Ok(text.to_owned())
}

/// What a URL names.
pub fn deployment(url: &Bound<'_, PyAny>) -> PyResult<Arc<Deployment>> {
    Ok(Arc::new(Deployment::parse(&text("url", url)?)?))
}

/// An argument is wrong.
pub fn wrong(parameter: &str, what: &str) -> PyErr {
    PyValueError::new_err(format!("{parameter}: {what}"))
}

fn not_unicode(parameter: &str) -> PyErr {
    wrong(parameter, "has surrogates, which are no text")
}

/// An argument is none of the kind that is expected.
pub fn wrong_type(parameter: &str, expected: &str, value: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    let name = value.get_type().name()?;
    let text = format!("{parameter}: expected {expected}, got {name}");
    Ok(PyTypeError::new_err(text))
}

enum Bounds {
    Text(String),
    Milliseconds(u64),
}

fn bound(parameter: &str, value: &Bound<'_, PyAny>) -> PyResult<Bounds> {
    if value.is_instance_of::<PyString>() {
        return Ok(Bounds::Text(text(parameter, value)?));
    }
    match unsigned(value)? {
        Some(ms) => Ok(Bounds::Milliseconds(ms)),
        None if is_integer(value) => Err(PyValueError::new_err(format!(
            "{parameter}: {value} is not a number of milliseconds since the epoch that an \
             entry ID can have"
        ))),
        None => Err(PyTypeError::new_err(format!(
            "{parameter}: expected an entry ID as str, milliseconds as int, or a datetime, got {}",
            value.get_type().name()?
        ))),
    }
}

fn invalid(parameter: &str, error: &crate::entry_id::InvalidId) -> PyErr {
    PyValueError::new_err(format!("{parameter}: {error}"))
}

fn is_integer(value: &Bound<'_, PyAny>) -> bool {
    !value.is_instance_of::<PyBool>()
        && (value.is_instance_of::<PyInt>() || value.hasattr("__index__").unwrap_or(false))
}

/// An integer of 64 bits without sign, or nothing if it is none.
fn unsigned(value: &Bound<'_, PyAny>) -> PyResult<Option<u64>> {
    if !is_integer(value) {
        return Ok(None);
    }
    Ok(value.extract().ok())
}
