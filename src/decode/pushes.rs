//! What a server tells a subscriber, as it comes: messages go into columns, and
//! all else is handed over.
//!
//! No I/O: bytes are pushed in, cut anywhere.

use super::messages::MessageBuilder;
use crate::error::{MessageError, shorten};
use crate::resp::{Cursor, Malformed, Payload, Token, Tokenizer};

/// The most elements that there are in what a server tells a subscriber.
const MAX_ELEMENTS: usize = 4;

/// What a subscriber is told besides messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A subscription has begun.
    Subscribed,
    /// The subscription to this channel has ended.
    Unsubscribed(String),
    /// The server is there.
    Pong,
    /// The server refused something, in these words.
    Refused(String),
}

/// Why no more was decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PushFault {
    /// The bytes are not what a subscriber is told.
    Protocol(String),
    /// A message did not fit. It has been taken, and what follows it has not.
    Message(Box<MessageError>),
}

impl From<Malformed> for PushFault {
    fn from(malformed: Malformed) -> Self {
        Self::Protocol(malformed.to_string())
    }
}

impl From<Box<MessageError>> for PushFault {
    fn from(error: Box<MessageError>) -> Self {
        Self::Message(error)
    }
}

/// Decodes what a server tells a subscriber.
#[derive(Debug)]
pub struct PushDecoder {
    tokens: Tokenizer,
    /// Elements still to come of what has begun; those that came are held.
    left: usize,
    held: Vec<Element>,
}

#[derive(Debug)]
enum Element {
    Text(Vec<u8>),
    Other,
}

impl Default for PushDecoder {
    fn default() -> Self {
        Self::new()
    }
}

impl PushDecoder {
    /// A decoder at the start of a connection.
    pub fn new() -> Self {
        Self {
            tokens: Tokenizer::new(),
            left: 0,
            held: Vec::new(),
        }
    }

    /// Takes bytes off the front of `input`, and adds the messages that they finish
    /// to `rows`, until it has `most` rows, or something else was told. Otherwise
    /// all input is taken. All messages are said to be received at this time, in
    /// microseconds since the epoch.
    pub fn decode(
        &mut self,
        input: &mut &[u8],
        rows: &mut MessageBuilder,
        most: usize,
        received: i64,
    ) -> Result<Option<Notice>, PushFault> {
        while rows.rows() < most {
            if self.is_between() {
                let mut cursor = Cursor::new(input);
                if let Some((channel, message)) = whole_message(&mut cursor) {
                    *input = cursor.rest();
                    rows.push(channel, message, received)?;
                    continue;
                }
            }
            if !self.take_token(input)? {
                return Ok(None);
            }
            let told = match &self.held[..] {
                _ if self.left > 0 => continue,
                elements => interpret(elements)?,
            };
            let notice = match told {
                Told::Message(channel, message) => {
                    let pushed = rows.push(channel, message, received);
                    self.held.clear();
                    pushed?;
                    continue;
                }
                Told::Notice(notice) => notice,
            };
            self.held.clear();
            return Ok(Some(notice));
        }
        Ok(None)
    }

    fn is_between(&self) -> bool {
        self.left == 0 && self.tokens.is_between_tokens()
    }

    /// Takes the next token; whether it is there.
    fn take_token(&mut self, input: &mut &[u8]) -> Result<bool, PushFault> {
        let is_first = self.left == 0;
        let Some(token) = self.tokens.next(input, Payload::Keep)? else {
            return Ok(false);
        };
        match (is_first, token) {
            (true, Token::Array(elements)) if (2..=MAX_ELEMENTS).contains(&elements) => {
                self.left = elements;
            }
            // A line by itself is held as what it would be as an array.
            (true, Token::Simple(_)) => self.held = vec![text(b"pong"), Element::Other],
            (true, Token::Error(said)) => self.held = vec![text(b"-"), text(said)],
            (false, Token::Bulk(payload)) => {
                self.held.push(text(payload));
                self.left -= 1;
            }
            (false, Token::Integer(_) | Token::Null) => {
                self.held.push(Element::Other);
                self.left -= 1;
            }
            (_, token) => {
                return Err(PushFault::Protocol(format!(
                    "{token} where something for a subscriber was due"
                )));
            }
        }
        Ok(true)
    }
}

fn text(bytes: &[u8]) -> Element {
    Element::Text(bytes.to_vec())
}

/// The fast way: a message that is whole in the input.
#[inline]
fn whole_message<'a>(cursor: &mut Cursor<'a>) -> Option<(&'a [u8], &'a [u8])> {
    if cursor.take(b"*4\r\n$8\r\npmessage\r\n") {
        cursor.bulk()?;
    } else if !cursor.take(b"*3\r\n$7\r\nmessage\r\n") && !cursor.take(b"*3\r\n$8\r\nsmessage\r\n")
    {
        return None;
    }
    Some((cursor.bulk()?, cursor.bulk()?))
}

enum Told<'a> {
    Message(&'a [u8], &'a [u8]),
    Notice(Notice),
}

fn interpret(elements: &[Element]) -> Result<Told<'_>, PushFault> {
    use Element::{Other, Text};
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let [Text(kind), rest @ ..] = elements else {
        return Err(PushFault::Protocol(
            "what a subscriber is told has no kind".into(),
        ));
    };
    let notice = match (kind.as_slice(), rest) {
        (b"message" | b"smessage", [Text(channel), Text(message)])
        | (b"pmessage", [_, Text(channel), Text(message)]) => {
            return Ok(Told::Message(channel, message));
        }
        (b"subscribe" | b"psubscribe" | b"ssubscribe", [_, Other]) => Notice::Subscribed,
        (b"unsubscribe" | b"punsubscribe" | b"sunsubscribe", [Text(channel), Other]) => {
            Notice::Unsubscribed(lossy(channel))
        }
        (b"pong", [_]) => Notice::Pong,
        (b"-", [Text(said)]) => Notice::Refused(lossy(said)),
        _ => {
            return Err(PushFault::Protocol(format!(
                "{} of {} elements is nothing that a subscriber is told",
                shorten(kind),
                elements.len()
            )));
        }
    };
    Ok(Told::Notice(notice))
}

#[cfg(test)]
mod tests {
    use super::super::{Content, Field, FieldType, MessagePlan, OnMisfit, Table};
    use super::*;

    fn plan(on_misfit: OnMisfit) -> MessagePlan {
        let field = |name: &str, dtype| Field {
            name: name.to_owned(),
            dtype,
        };
        let members = vec![
            field("n", FieldType::Int64),
            field("what", FieldType::String),
        ];
        let (channel, received) = (Some("_channel".into()), Some("_received_at".into()));
        MessagePlan::new(channel, received, Content::Members(members), on_misfit).unwrap()
    }

    fn push(elements: &[&str]) -> String {
        let bulk = |text: &&str| match text.strip_prefix(':') {
            Some(_) => format!("{text}\r\n"),
            None => format!("${}\r\n{text}\r\n", text.len()),
        };
        let bulks: String = elements.iter().map(bulk).collect();
        format!("*{}\r\n{bulks}", elements.len())
    }

    /// Decodes pieces; what was told, and the rows.
    fn decode(
        plan: &MessagePlan,
        pieces: &[&[u8]],
        most: usize,
    ) -> (Vec<Result<Notice, PushFault>>, String) {
        let mut decoder = PushDecoder::new();
        let mut rows = MessageBuilder::with_room(plan, 0);
        let mut told = Vec::new();
        for mut piece in pieces.iter().copied() {
            while !piece.is_empty() && rows.rows() < most {
                match decoder.decode(&mut piece, &mut rows, most, 7) {
                    Ok(notice) => told.extend(notice.map(Ok)),
                    Err(fault) => {
                        let is_fatal = matches!(fault, PushFault::Protocol(_));
                        told.push(Err(fault));
                        if is_fatal {
                            break;
                        }
                    }
                }
            }
        }
        let table = Table::of_messages(plan, vec![rows.finish()]);
        (told, format!("{} {:?}", table.rows, table.columns))
    }

    fn everything() -> Vec<u8> {
        let parts = [
            push(&["subscribe", "c", ":1"]),
            push(&["message", "c", "{\"n\": 1, \"what\": \"a\"}"]),
            push(&[
                "pmessage",
                "c*",
                "cc",
                "{\"n\": 2, \"what\": \"longer than inline\"}",
            ]),
            push(&["smessage", "c", "{}"]),
            push(&["message", "c", "[]"]),
            "*2\r\n$4\r\npong\r\n$0\r\n\r\n+PONG\r\n-NOPERM no\r\n".to_owned(),
            push(&["message", "c", "{\"n\": 1, \"what\": 2}"]),
            push(&["message", "c", "{\"n\": 3, \"what\": \"b\"}"]),
            push(&["sunsubscribe", "c", ":0"]),
        ];
        parts.concat().into_bytes()
    }

    #[test]
    fn cut_anywhere_it_says_the_same() {
        let bytes = everything();
        for on_misfit in [OnMisfit::Raise, OnMisfit::Null] {
            let plan = plan(on_misfit);
            let whole = decode(&plan, &[&bytes], usize::MAX);
            let misfits = whole.0.iter().filter(|told| told.is_err()).count();
            assert_eq!(misfits, if on_misfit == OnMisfit::Raise { 2 } else { 0 });
            assert_eq!(whole.0.len(), misfits + 5);
            for at in 0..bytes.len() {
                let (one, other) = bytes.split_at(at);
                assert_eq!(decode(&plan, &[one, other], usize::MAX), whole, "at {at}");
            }
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            assert_eq!(decode(&plan, &single, usize::MAX), whole);
        }
    }

    #[test]
    fn no_more_rows_are_made_than_asked_for() {
        let plan = plan(OnMisfit::Null);
        for most in 1..4 {
            let (_, rows) = decode(&plan, &[&everything()], most);
            assert!(rows.starts_with(&format!("{most} ")), "{rows}");
        }
    }

    #[test]
    fn a_misfit_names_channel_and_field() {
        let (told, _) = decode(&plan(OnMisfit::Raise), &[&everything()], usize::MAX);
        let said: Vec<String> = told
            .iter()
            .filter_map(|told| match told {
                Err(PushFault::Message(error)) => Some(error.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(
            said,
            [
                "channel \"c\": expected a JSON object, got \"[]\"",
                "channel \"c\", field \"what\": expected String, got \"2\" in the message \
                 \"{\\\"n\\\": 1, \\\"what\\\": 2}\"",
            ]
        );
    }

    #[test]
    fn what_is_no_push_is_refused() {
        let plan = plan(OnMisfit::Raise);
        for text in [
            "*1\r\n$4\r\npong\r\n",
            "*5\r\n",
            "*2\r\n*2\r\n",
            "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n:1\r\n",
            "*3\r\n:1\r\n:1\r\n:1\r\n",
            "$4\r\npong\r\n",
            ":1\r\n",
            "what\r\n",
        ] {
            let (told, _) = decode(&plan, &[text.as_bytes()], usize::MAX);
            assert!(
                matches!(told.as_slice(), [Err(PushFault::Protocol(_))]),
                "{text:?}: {told:?}"
            );
        }
    }
}
