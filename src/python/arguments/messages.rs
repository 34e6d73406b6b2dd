//! The arguments of what listens to channels.

use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::super::dtypes::to_field;
use super::super::frame::Frames;
use super::{Arguments, ONE_SHOT_RECONNECT, text, wrong};
use crate::command::Naming;
use crate::decode::{Content, Field, MessagePlan, OnMisfit};
use crate::read::{Listening, Subscription, Until};

/// Longer than anybody waits, and short enough to be added to any time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

impl Arguments<'_> {
    /// The columns made of messages.
    pub fn message_plan(&self) -> PyResult<MessagePlan> {
        let schema = self.schema()?.unwrap_or_default();
        let mut fields: Vec<Field> = schema.iter().map(to_field).collect::<PyResult<_>>()?;
        let content = match (self.flag("is_whole")?, fields.len()) {
            (true, 1) => Content::Whole(fields.remove(0)),
            _ => Content::Members(fields),
        };
        let on_misfit = match self.flag("strict")? {
            true => OnMisfit::Raise,
            false => OnMisfit::Null,
        };
        let channel = self.text("channel_column")?;
        let received = self.text("timestamp_column")?;
        Ok(MessagePlan::new(channel, received, content, on_misfit)?)
    }

    /// What makes frames of messages that were read by this plan.
    pub fn message_frames(&self, plan: &MessagePlan) -> PyResult<Frames> {
        let schema = self.schema()?.unwrap_or_default();
        Frames::new(plan.content().fields(), &schema)
    }

    /// Which messages to read.
    pub fn subscription(&self, channels: &Bound<'_, PyList>) -> PyResult<Subscription> {
        let naming = match (self.flag("pattern")?, self.flag("sharded")?) {
            (false, false) => Naming::Channels,
            (true, false) => Naming::Patterns,
            (false, true) => Naming::Sharded,
            (true, true) => {
                return Err(wrong(
                    "sharded",
                    "there are no patterns of sharded channels",
                ));
            }
        };
        let channels = channels.iter();
        let mut channels: Vec<String> = channels
            .map(|channel| text("channels", &channel))
            .collect::<PyResult<_>>()?;
        if channels.is_empty() {
            return Err(wrong("channels", "expected at least one"));
        }
        let mut seen = std::collections::HashSet::new();
        channels.retain(|channel| seen.insert(channel.clone()));
        Ok(Subscription { channels, naming })
    }

    /// How to collect messages.
    pub fn collected(&self) -> PyResult<Listening> {
        let count = self.number("count", 0)?;
        let until = match self.milliseconds("timeout_ms")? {
            Some(whole) => Until::Passed(whole.min(LONGEST)),
            None if count.is_some() => Until::Forever,
            None => {
                return Err(wrong(
                    "count",
                    "count or timeout_ms has to be given, as messages never end",
                ));
            }
        };
        Ok(Listening {
            batch_size: usize::MAX,
            batch_timeout: LONGEST,
            count,
            until,
            buffer: usize::MAX,
            reconnect: ONE_SHOT_RECONNECT,
            all_or_nothing: true,
        })
    }

    /// How to iterate over messages.
    pub fn listened(&self) -> PyResult<Listening> {
        let milliseconds = |parameter| -> PyResult<Duration> {
            let ms = self.needed(parameter, 0)? as u64;
            Ok(Duration::from_millis(ms).min(LONGEST))
        };
        Ok(Listening {
            batch_size: self.needed("batch_size", 1)?,
            batch_timeout: milliseconds("batch_timeout_ms")?,
            count: self.number("count", 0)?,
            until: match self.milliseconds("timeout_ms")? {
                Some(patience) => Until::SilentFor(patience.min(LONGEST)),
                None => Until::Forever,
            },
            buffer: self.needed("buffer_size", 1)?,
            reconnect: milliseconds("reconnect_timeout_ms")?,
            all_or_nothing: false,
        })
    }
}
