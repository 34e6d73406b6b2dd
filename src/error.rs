//! What can go wrong, and what each error names.
//!
//! No message of any variant holds a password: server texts that may echo one
//! are redacted by the connection that received them.

use std::fmt;
use std::io;

use crate::address::Access;
use crate::entry_id::EntryId;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Any failure of this crate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An argument that is wrong whatever the server holds; nothing was sent.
    #[error("{0}")]
    Argument(String),

    /// Something that this version does not handle yet.
    #[error("{0}")]
    Unsupported(String),

    /// The server could not be reached, or the connection broke.
    #[error("{peer}: {reason}")]
    Connection {
        peer: String,
        reason: String,
        kind: io::ErrorKind,
    },

    /// The server was silent for longer than its deadline.
    #[error("{peer}: {reason}")]
    Timeout { peer: String, reason: String },

    /// The server refused the credentials, or wants some.
    #[error("{peer}: {reply}")]
    Authentication { peer: String, reply: String },

    /// The server's own error reply, in its own words.
    #[error("{context}: {reply}")]
    Response { context: String, reply: String },

    /// Bytes that are not the reply that the command has.
    #[error("{context}: {reason}")]
    Protocol { context: String, reason: String },

    /// A value that does not fit the dtype that was asked for.
    #[error("{0}")]
    Decode(Box<DecodeError>),

    /// A message that is not what was asked for.
    #[error("{0}")]
    Message(Box<MessageError>),
}

impl Error {
    /// The error that an error reply is, of a server that knows us by `access`.
    pub(crate) fn from_reply(context: String, reply: &str, access: &Access) -> Self {
        let shown = access.redact(reply);
        match reply.split(' ').next() {
            Some("NOAUTH" | "WRONGPASS" | "NOPASS") => Self::Authentication {
                peer: context,
                reply: shown,
            },
            _ => Self::Response {
                context,
                reply: shown,
            },
        }
    }

    /// Whether somebody was there, and ended the connection.
    pub(crate) fn is_cut(&self) -> bool {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        matches!(
            self,
            Self::Connection {
                kind: BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof,
                ..
            }
        )
    }

    /// Whether the same attempt may succeed in a moment: the connection broke,
    /// or the server is loading its data, busy, without its replicas or its
    /// disk, or no longer the one to ask.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Connection { .. } | Self::Timeout { .. } => true,
            Self::Response { reply, .. } => match reply.split(' ').next() {
                Some(
                    "LOADING" | "BUSY" | "READONLY" | "MASTERDOWN" | "NOREPLICAS" | "MISCONF"
                    | "TRYAGAIN" | "CLUSTERDOWN" | "MOVED" | "ASK",
                ) => true,
                // A failover, or somebody who wanted it so.
                Some("UNBLOCKED") => !self.is_no_group(),
                _ => false,
            },
            _ => false,
        }
    }

    /// Whether the server could not be reached, rather than refused something.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connection { .. } | Self::Timeout { .. })
    }

    /// Whether the consumer group, or its stream, is not there (any more).
    pub(crate) fn is_no_group(&self) -> bool {
        match self {
            Self::Response { reply, .. } => match reply.split(' ').next() {
                Some("NOGROUP") => true,
                Some("UNBLOCKED") => reply.contains("no longer exists"),
                _ => false,
            },
            _ => false,
        }
    }
}

/// A field of an entry that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Key of the stream.
    pub stream: String,
    /// Entry that holds the field.
    pub entry_id: EntryId,
    /// Field name, or the name of an id column.
    pub field: String,
    /// What was wrong, with what was expected.
    pub reason: Misfit,
}

/// Why a field did not fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Misfit {
    /// The text is not one of the dtype's; the text is shortened.
    Value { dtype: String, text: String },
    /// A discovered field has the name of an id column.
    NameClash,
    /// A discovered field's name is not UTF-8, so no column can carry it.
    NameNotUtf8,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "stream {:?}, entry {}, field {}: ",
            self.stream,
            self.entry_id,
            shorten(self.field.as_bytes())
        )?;
        match &self.reason {
            Misfit::Value { dtype, text } => write!(f, "expected {dtype}, got {text}"),
            Misfit::NameClash => write!(
                f,
                "the name is taken by an id column; rename the column (id_column, \
                 timestamp_column, sequence_column, key_column_name) or leave it out \
                 (include_id, include_timestamp, include_sequence, include_key)"
            ),
            Misfit::NameNotUtf8 => write!(
                f,
                "the field name is not UTF-8; give a schema of the fields wanted"
            ),
        }
    }
}

/// A message that is not what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageError {
    pub channel: String,
    /// The column that it does not fit; none if it is no object at all.
    pub field: Option<String>,
    /// What was expected.
    pub expected: String,
    /// What came in its place, shortened.
    pub got: String,
    /// The whole message, shortened, where that is more.
    pub message: Option<String>,
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "channel {:?}", self.channel)?;
        if let Some(field) = &self.field {
            write!(f, ", field {}", shorten(field.as_bytes()))?;
        }
        write!(f, ": expected {}, got {}", self.expected, self.got)?;
        match &self.message {
            Some(message) => write!(f, " in the message {message}"),
            None => Ok(()),
        }
    }
}

/// The text of a value as an error shows it: quoted, lossy, at most 40
/// characters, with the full length when it was cut.
pub(crate) fn shorten(value: &[u8]) -> String {
    const SHOWN: usize = 40;
    // Four bytes a character at the most: enough to show, whatever the length.
    let head = String::from_utf8_lossy(&value[..value.len().min(SHOWN * 4)]);
    if value.len() <= SHOWN * 4 && head.chars().count() <= SHOWN {
        return format!("{head:?}");
    }
    let cut: String = head.chars().take(SHOWN).collect();
    format!("{cut:?}… ({} bytes)", value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_shown_whole_and_a_long_one_is_cut() {
        assert_eq!(shorten(b"abc"), "\"abc\"");
        assert_eq!(shorten(&[b'x'; 40]), format!("{:?}", "x".repeat(40)));
        assert_eq!(
            shorten(&[b'x'; 1000]),
            format!("{:?}… (1000 bytes)", "x".repeat(40))
        );
    }

    #[test]
    fn a_text_that_is_not_utf8_is_shown_lossily() {
        assert_eq!(shorten(&[0xff, b'a']), "\"\u{fffd}a\"");
    }
}
