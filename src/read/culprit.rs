//! Which of several keys a command may not be run on.
//!
//! A command of several streams is refused as a whole where one of their keys holds
//! something else, or may not be read, and the server does not say which.

use redis::{Cmd, Value};

use crate::command::kind_of;
use crate::connection::{Connection, error_text};
use crate::error::Error;

/// The error of a command of `keys`, naming the key that it is about if the server
/// tells: by `TYPE`, or by the same command `of_one` of them, which is to show no
/// entries. No reply may be due.
pub async fn name_culprit<'a>(
    connection: &mut Connection,
    keys: impl Iterator<Item = &'a str> + Clone,
    of_one: impl Fn(&str) -> Cmd,
    error: Error,
) -> Error {
    let Error::Response { reply, .. } = &error else {
        return error;
    };
    let asks: Vec<Cmd> = match reply.split(' ').next() {
        Some("WRONGTYPE") => keys.clone().map(kind_of).collect(),
        Some("NOPERM") => keys.clone().map(of_one).collect(),
        _ => return error,
    };
    // What is known without it is an error enough.
    let Ok(replies) = connection.query_all(&asks).await else {
        return error;
    };
    let is_forbidden = |told: &Value| error_text(told).is_some_and(|t| t.starts_with("NOPERM"));
    // What is forbidden of all of them is the command.
    if replies.iter().all(is_forbidden) {
        return error;
    }
    let named = keys.zip(&replies).find_map(|(key, told)| match told {
        Value::SimpleString(kind) if kind != "stream" && kind != "none" => {
            Some((key, format!("{reply} (a {kind})")))
        }
        told if is_forbidden(told) => Some((key, reply.clone())),
        _ => None,
    });
    match named {
        Some((key, reply)) => Error::Response {
            context: format!("stream {key:?}"),
            reply,
        },
        None => error,
    }
}
