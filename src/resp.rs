//! RESP tokens from bytes, as they come.
//!
//! Nothing here does I/O. Bytes are pushed in pieces of any size; a
//! [`Tokenizer`] takes them all and keeps what it needs of an unfinished token,
//! so that a reply may be cut anywhere and no payload is looked at twice.
//! Memory grows with the bytes that came, never with a length that a server
//! merely announced.
//!
//! [`Cursor`] is the fast way through tokens that are whole in the input: it
//! takes a token or leaves everything as it was, and the tokenizer then does
//! the rest.

use std::fmt;

/// The longest bulk string accepted: the most that an Arrow view can hold.
pub const MAX_BULK_LEN: usize = u32::MAX as usize - 1;

/// The longest line (header, status or error) accepted.
pub const MAX_LINE_LEN: usize = 64 * 1024;

/// One RESP token; an array's elements follow it as tokens of their own.
#[derive(Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// Header of an array (or of a set or push, which read alike) of this many elements.
    Array(usize),
    /// A bulk string; empty where the caller asked to skip it.
    Bulk(&'a [u8]),
    /// An integer.
    Integer(i64),
    /// A status line.
    Simple(&'a [u8]),
    /// An error line, without its `-`.
    Error(&'a [u8]),
    /// A null of any kind.
    Null,
}

/// Says what it is, shortened.
impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Array(len) => write!(f, "an array of {len}"),
            Self::Bulk(text) => write!(f, "the string {}", shown(text)),
            Self::Integer(value) => write!(f, "the integer {value}"),
            Self::Simple(text) => write!(f, "the status {}", shown(text)),
            Self::Error(text) => write!(f, "the error {}", shown(text)),
            Self::Null => f.write_str("a null"),
        }
    }
}

/// What to do with the payload of the next bulk string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// Hand it over.
    Keep,
    /// Pass over it without storing it.
    Skip,
}

/// Bytes that are not RESP.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a RESP reply: {0}")]
pub struct Malformed(pub String);

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two tokens.
    Start,
    /// Inside a line.
    Line,
    /// Inside a bulk string's payload, `left` bytes of it still to come.
    Payload { left: usize, payload: Payload },
    /// Inside the CRLF after a payload; whether the CR has come.
    PayloadEnd { cr: bool },
}

/// Splits bytes into tokens and keeps an unfinished one between pushes.
#[derive(Debug)]
pub struct Tokenizer {
    state: State,
    /// What came so far of a line that was cut.
    line: Vec<u8>,
    /// What came so far of a payload.
    payload: Vec<u8>,
}

impl Default for Tokenizer {
    fn default() -> Self {
        Self::new()
    }
}

impl Tokenizer {
    /// A tokenizer between two tokens.
    pub fn new() -> Self {
        Self {
            state: State::Start,
            line: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Whether the last token was finished, so that a [`Cursor`] may be used.
    pub fn is_between_tokens(&self) -> bool {
        matches!(self.state, State::Start)
    }

    /// Takes bytes off the front of `input` up to the end of the next token.
    ///
    /// `None` means that the token is not finished: all of `input` has been
    /// taken, and the next call goes on with the bytes that follow. A bulk
    /// string that is skipped comes out empty.
    pub fn next<'a, 'input: 'a>(
        &'a mut self,
        input: &mut &'input [u8],
        payload: Payload,
    ) -> Result<Option<Token<'a>>, Malformed> {
        if let State::Start = self.state {
            self.line.clear();
            self.payload.clear();
            // Gives back what one huge value took.
            self.payload.shrink_to(MAX_LINE_LEN);
            self.state = State::Line;
        }
        if let State::Line = self.state {
            let line_in_input = match take_line(&mut self.line, input)? {
                TakenLine::Unfinished => return Ok(None),
                TakenLine::InInput(line) => Some(line),
                TakenLine::Held => None,
            };
            match bulk_len(line_in_input.unwrap_or(&self.line))? {
                Some(left) => self.state = State::Payload { left, payload },
                None => {
                    self.state = State::Start;
                    return parse_line(line_in_input.unwrap_or(&self.line)).map(Some);
                }
            }
        }
        if !self.take_payload(input)? {
            return Ok(None);
        }
        Ok(Some(Token::Bulk(&self.payload)))
    }

    /// Takes the rest of a payload and its CRLF; whether that was all of it.
    fn take_payload(&mut self, input: &mut &[u8]) -> Result<bool, Malformed> {
        if let State::Payload { left, payload } = self.state {
            let here = left.min(input.len());
            if payload == Payload::Keep {
                self.payload.extend_from_slice(&input[..here]);
            }
            *input = &input[here..];
            let left = left - here;
            if left > 0 {
                self.state = State::Payload { left, payload };
                return Ok(false);
            }
            self.state = State::PayloadEnd { cr: false };
        }
        while let State::PayloadEnd { cr } = self.state {
            let Some((&byte, rest)) = input.split_first() else {
                return Ok(false);
            };
            *input = rest;
            self.state = match (cr, byte) {
                (false, b'\r') => State::PayloadEnd { cr: true },
                (true, b'\n') => State::Start,
                _ => return malformed("a bulk string that goes on after its length"),
            };
        }
        Ok(true)
    }
}

enum TakenLine<'a> {
    Unfinished,
    /// The whole line was in the input; nothing was copied.
    InInput(&'a [u8]),
    /// The line had been cut, and is now whole in what is held.
    Held,
}

/// Takes bytes up to the end of a line. A line ends with CRLF.
fn take_line<'a>(held: &mut Vec<u8>, input: &mut &'a [u8]) -> Result<TakenLine<'a>, Malformed> {
    let end = memchr::memchr(b'\n', input);
    let taken = end.map_or(input.len(), |at| at + 1);
    if held.len() + taken > MAX_LINE_LEN {
        return malformed("a line that does not end");
    }
    let (line, rest) = input.split_at(taken);
    *input = rest;
    if end.is_some() && held.is_empty() {
        return match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(TakenLine::InInput(line)),
            None => malformed("a line that ends without CRLF"),
        };
    }
    held.extend_from_slice(line);
    if end.is_none() {
        return Ok(TakenLine::Unfinished);
    }
    if !held.ends_with(b"\r\n") {
        return malformed("a line that ends without CRLF");
    }
    held.truncate(held.len() - 2);
    Ok(TakenLine::Held)
}

/// The length of the bulk string that this line is the header of, if it is one.
fn bulk_len(line: &[u8]) -> Result<Option<usize>, Malformed> {
    match line {
        [b'$', b'-', ..] => Ok(None),
        // RESP3's verbatim string starts with its format and a colon: never
        // sent to those who did not ask for RESP3, as we do not.
        [b'$', digits @ ..] => match parse_integer(digits) {
            Some(len) if len as u64 <= MAX_BULK_LEN as u64 => Ok(Some(len as usize)),
            _ => malformed(format!("a bulk string of length {}", shown(digits))),
        },
        _ => Ok(None),
    }
}

/// The token that a line makes by itself.
fn parse_line(line: &[u8]) -> Result<Token<'_>, Malformed> {
    match line {
        b"$-1" | b"*-1" | b"_" => Ok(Token::Null),
        [b'+', text @ ..] => Ok(Token::Simple(text)),
        [b'-', text @ ..] => Ok(Token::Error(text)),
        [b':', digits @ ..] => match parse_integer(digits) {
            Some(value) => Ok(Token::Integer(value)),
            None => malformed(format!("the integer {}", shown(digits))),
        },
        [b'*' | b'~' | b'>', digits @ ..] => match parse_integer(digits) {
            Some(len) if len >= 0 => Ok(Token::Array(len as usize)),
            _ => malformed(format!("an array of length {}", shown(digits))),
        },
        _ => malformed(format!("the line {}", shown(line))),
    }
}

fn parse_integer(digits: &[u8]) -> Option<i64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn shown(line: &[u8]) -> String {
    crate::error::shorten(line)
}

fn malformed<T>(what: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed(what.into()))
}

/// Takes whole tokens off the front of a slice, fast.
///
/// Every method takes its token or returns nothing and takes nothing, either
/// because the token goes on after the slice or because it is not of that
/// kind. The caller then asks a [`Tokenizer`], which knows all kinds and
/// reports what is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `input`.
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input }
    }

    /// What has not been taken.
    #[inline(always)]
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Takes exactly these bytes.
    #[inline(always)]
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        match self.rest.strip_prefix(bytes) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes this many bytes, which the caller has looked at.
    ///
    /// # Panics
    /// If there are fewer.
    #[inline(always)]
    pub fn advance(&mut self, len: usize) {
        self.rest = &self.rest[len..];
    }

    /// Takes an array's header; its length.
    #[inline(always)]
    pub fn array(&mut self) -> Option<usize> {
        let (len, header) = self.header(b'*')?;
        self.rest = &self.rest[header..];
        Some(len)
    }

    /// Takes a bulk string; its payload.
    #[inline(always)]
    pub fn bulk(&mut self) -> Option<&'a [u8]> {
        let (len, header) = self.header(b'$')?;
        let after = &self.rest[header..];
        let end = after.get(len..len + 2)?;
        if end != b"\r\n" {
            return None;
        }
        self.rest = &after[len + 2..];
        Some(&after[..len])
    }

    /// The number in a header of this kind, and the header's length.
    #[inline(always)]
    fn header(self, kind: u8) -> Option<(usize, usize)> {
        let window: &[u8; HEADER_WINDOW] = self.rest.first_chunk()?;
        let first = window[1].wrapping_sub(b'0');
        let second = window[2].wrapping_sub(b'0');
        // One digit or two, told apart without a branch: lengths about ten are
        // common, and a branch on them is guessed wrong as often.
        let is_short = window[2] == b'\r';
        let (len, end) = match is_short {
            true => (usize::from(first), 2),
            false => (usize::from(first) * 10 + usize::from(second), 3),
        };
        let is_number = first <= 9 && (is_short || second <= 9);
        let is_ended = window[end] == b'\r' && window[end + 1] == b'\n';
        if is_number & is_ended & (window[0] == kind) {
            return Some((len, end + 2));
        }
        long_header(window, kind)
    }
}

/// Room for a header of up to nine digits; the few longer ones go the long way.
const HEADER_WINDOW: usize = 12;

#[cold]
#[inline(never)]
fn long_header(window: &[u8; HEADER_WINDOW], kind: u8) -> Option<(usize, usize)> {
    let digits = window[1..10].iter().take_while(|b| b.is_ascii_digit());
    let (len, count) = digits.fold((0, 0), |(len, count), &digit| {
        (len * 10 + usize::from(digit - b'0'), count + 1)
    });
    let is_ended = window[count + 1] == b'\r' && window[count + 2] == b'\n';
    (window[0] == kind && count > 0 && is_ended).then_some((len, count + 3))
}
