//! Replies from bytes, as they come, no further than a write wants to know.

use crate::resp::{Cursor, Malformed, Payload, Token, Tokenizer};

/// A reply that is whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A bulk string or a status line.
    Text(&'a [u8]),
    Integer(i64),
    Null,
    /// An error, alone or as the first of an array.
    Error(String),
    /// An array without an error in it.
    Array,
}

/// Splits bytes into replies and keeps what it needs of an unfinished one.
#[derive(Debug, Default)]
pub struct Replies {
    tokens: Tokenizer,
    /// Elements of an array that are still to come.
    left: usize,
    /// The first error among those that came.
    error: Option<String>,
}

impl Replies {
    /// Takes bytes off the front of `input` up to the end of the next reply, and
    /// hands it over. Whether there was one: if not, all of `input` has been taken.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        take: impl FnOnce(Reply<'_>),
    ) -> Result<bool, Malformed> {
        if self.left == 0 && self.tokens.is_between_tokens() {
            let mut cursor = Cursor::new(input);
            if let Some(text) = cursor.bulk() {
                *input = cursor.rest();
                take(Reply::Text(text));
                return Ok(true);
            }
        }
        loop {
            let is_in_array = self.left > 0;
            let payload = if is_in_array {
                Payload::Skip
            } else {
                Payload::Keep
            };
            let Some(token) = self.tokens.next(input, payload)? else {
                return Ok(false);
            };
            match (token, is_in_array) {
                (Token::Array(0), false) => take(Reply::Array),
                (Token::Array(len), false) => {
                    self.left = len;
                    continue;
                }
                (Token::Bulk(text) | Token::Simple(text), false) => take(Reply::Text(text)),
                (Token::Integer(value), false) => take(Reply::Integer(value)),
                (Token::Null, false) => take(Reply::Null),
                (Token::Error(text), false) => take(Reply::Error(lossy(text))),
                (token, true) => {
                    self.left -= 1;
                    match token {
                        Token::Array(len) => self.left = self.left.saturating_add(len),
                        Token::Error(text) => {
                            self.error.get_or_insert_with(|| lossy(text));
                        }
                        _ => {}
                    }
                    if self.left > 0 {
                        continue;
                    }
                    take(self.error.take().map_or(Reply::Array, Reply::Error));
                }
            }
            return Ok(true);
        }
    }
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_come_whole_however_they_are_cut() {
        let bytes =
            b"$3\r\n1-0\r\n:5\r\n+OK\r\n-ERR x\r\n*2\r\n:1\r\n*1\r\n-OOM y\r\n*0\r\n*-1\r\n\
                      *2\r\n:1\r\n$12\r\nabcdefghijkl\r\n";
        for size in 1..bytes.len() {
            let mut replies = Replies::default();
            let mut seen = Vec::new();
            for piece in bytes.chunks(size) {
                let mut input = piece;
                while replies
                    .next(&mut input, |reply| seen.push(format!("{reply:?}")))
                    .unwrap()
                {}
                assert!(input.is_empty());
            }
            let expected = [
                Reply::Text(b"1-0"),
                Reply::Integer(5),
                Reply::Text(b"OK"),
                Reply::Error("ERR x".into()),
                Reply::Error("OOM y".into()),
                Reply::Array,
                Reply::Null,
                Reply::Array,
            ];
            assert_eq!(seen, expected.map(|reply| format!("{reply:?}")), "{size}");
        }
    }
}
