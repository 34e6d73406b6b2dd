//! Which of several keys is no stream.
//!
//! A command of several streams is refused as a whole where one of their keys holds
//! something else, and the server does not say which.

use redis::Value;

use crate::command::kind_of;
use crate::connection::Connection;
use crate::error::Error;

/// The error of a command of `keys`, naming the key that it is about if the server
/// tells (`TYPE`). No reply may be due.
pub async fn name_culprit<'a>(
    connection: &mut Connection,
    keys: impl Iterator<Item = &'a str> + Clone,
    error: Error,
) -> Error {
    let reply = match &error {
        Error::Response { reply, .. } if reply.starts_with("WRONGTYPE") => reply.clone(),
        _ => return error,
    };
    let asks: Vec<_> = keys.clone().map(kind_of).collect();
    // What is known without it is an error enough.
    let Ok(types) = connection.query_all(&asks).await else {
        return error;
    };
    let mut found = keys.zip(&types).filter_map(|(key, kind)| match kind {
        Value::SimpleString(kind) if kind != "stream" && kind != "none" => Some((key, kind)),
        _ => None,
    });
    match found.next() {
        Some((key, kind)) => Error::Response {
            context: format!("stream {key:?}"),
            reply: format!("{reply} (a {kind})"),
        },
        None => error,
    }
}
