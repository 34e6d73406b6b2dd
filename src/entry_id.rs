//! Entry IDs, and ranges of them.
//!
//! An [`EntryId`] is ordered as Redis orders it. The bounds that users write
//! (`"-"`, `"(1-5"`, `"$"`, …) become IDs here, so that no other module
//! handles an ID as text, and every command carries plain inclusive IDs, which
//! every server version understands.

use std::fmt;

use crate::error::shorten;

/// ID of a stream entry: milliseconds and a sequence number within them.
///
/// ```
/// use polars_redis::EntryId;
///
/// let id: EntryId = "1704067200000-3".parse()?;
/// assert_eq!(id, EntryId::new(1_704_067_200_000, 3));
/// assert!(id < EntryId::new(1_704_067_200_001, 0));
/// assert_eq!(id.to_string(), "1704067200000-3");
/// # Ok::<(), polars_redis::InvalidId>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// Milliseconds since the Unix epoch.
    pub ms: u64,
    /// Sequence number among the entries of one millisecond.
    pub seq: u64,
}

impl EntryId {
    /// The smallest ID there is, `0-0`.
    pub const MIN: Self = Self::new(0, 0);
    /// The greatest ID there is.
    pub const MAX: Self = Self::new(u64::MAX, u64::MAX);

    /// An ID from its two parts.
    pub const fn new(ms: u64, seq: u64) -> Self {
        Self { ms, seq }
    }

    /// The ID that follows this one; `None` after [`EntryId::MAX`].
    pub fn next(self) -> Option<Self> {
        self.as_u128().checked_add(1).map(Self::from_u128)
    }

    /// The ID before this one; `None` before [`EntryId::MIN`].
    pub fn previous(self) -> Option<Self> {
        self.as_u128().checked_sub(1).map(Self::from_u128)
    }

    /// Position of this ID among all IDs there can be.
    pub(crate) fn as_u128(self) -> u128 {
        (u128::from(self.ms) << 64) | u128::from(self.seq)
    }

    /// The ID at a position among all IDs.
    pub(crate) fn from_u128(position: u128) -> Self {
        // Both parts fit by construction: the halves of a u128.
        Self::new((position >> 64) as u64, position as u64)
    }

    /// Parses the `ms-seq` of a reply.
    #[inline]
    pub(crate) fn from_reply(text: &[u8]) -> Option<Self> {
        // Milliseconds have thirteen digits from 2001 to 2286.
        if let Some((ms, [b'-', seq @ ..])) = text.split_first_chunk::<13>() {
            return Some(Self::new(parse_13_digits(ms)?, parse_u64(seq)?));
        }
        let dash = memchr::memchr(b'-', text)?;
        Some(Self::new(
            parse_u64(&text[..dash])?,
            parse_u64(&text[dash + 1..])?,
        ))
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// A text that is no entry ID where one was due.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text} is not an entry ID: expected {expected}")]
pub struct InvalidId {
    /// Quoted, and shortened.
    text: String,
    expected: &'static str,
}

impl std::str::FromStr for EntryId {
    type Err = InvalidId;

    /// Parses a full `ms-seq` ID.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::from_reply(text.as_bytes()).ok_or_else(|| InvalidId {
            text: shorten(text.as_bytes()),
            expected: "\"ms-seq\"",
        })
    }
}

#[inline]
fn parse_13_digits(digits: &[u8; 13]) -> Option<u64> {
    let head = u64::from_le_bytes(*digits.first_chunk()?);
    // The last eight digits, of which the first three are counted already.
    let tail = u64::from_le_bytes(*digits.last_chunk()?);
    let tail = (tail & !0xff_ffff) | 0x30_3030;
    Some(parse_8_digits(head)? * 100_000 + parse_8_digits(tail)?)
}

/// Eight ASCII digits, the first in the lowest byte, all at once.
#[inline]
fn parse_8_digits(text: u64) -> Option<u64> {
    let digits = text.wrapping_sub(0x3030_3030_3030_3030);
    // A byte above nine carries into its high bit here, or had it before.
    let above = digits.wrapping_add(0x7676_7676_7676_7676) | digits;
    if above & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    // Neighbours are joined: to pairs, to fours, to eight.
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// Decimal digits only, in range; Redis takes neither signs nor blanks here.
#[inline]
fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    // 19 digits cannot overflow, so the common case needs no checks.
    let checked_from = digits.len().min(19);
    let mut value = 0u64;
    for &b in &digits[..checked_from] {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    for &b in &digits[checked_from..] {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// Where a read begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At this ID, inclusive.
    At(EntryId),
    /// After what is the last entry when the read begins: `$`.
    AfterLast,
    /// After the greatest ID: at nothing, ever.
    Never,
}

impl Start {
    /// Parses a `start_id`: `-`, `+`, `$`, `ms`, `ms-seq`, or `(` and an ID.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match text {
            "-" => Ok(Self::At(EntryId::MIN)),
            "+" => Ok(Self::At(EntryId::MAX)),
            "$" => Ok(Self::AfterLast),
            _ => {
                let (id, exclusive) = parse_bound(text, 0).ok_or_else(|| InvalidId {
                    text: shorten(text.as_bytes()),
                    expected: "\"-\", \"+\", \"$\", \"ms\", \"ms-seq\", or \"(\" and an ID",
                })?;
                if !exclusive {
                    return Ok(Self::At(id));
                }
                Ok(id.next().map_or(Self::Never, Self::At))
            }
        }
    }
}

/// Where a read ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At this ID, inclusive.
    At(EntryId),
    /// Before the smallest ID: at nothing.
    Never,
}

impl End {
    /// Parses an `end_id`: `-`, `+`, `ms`, `ms-seq`, or `(` and an ID.
    pub fn parse(text: &str) -> Result<Self, InvalidId> {
        match text {
            "-" => Ok(Self::At(EntryId::MIN)),
            "+" => Ok(Self::At(EntryId::MAX)),
            _ => {
                let (id, exclusive) = parse_bound(text, u64::MAX).ok_or_else(|| InvalidId {
                    text: shorten(text.as_bytes()),
                    expected: "\"-\", \"+\", \"ms\", \"ms-seq\", or \"(\" and an ID",
                })?;
                if !exclusive {
                    return Ok(Self::At(id));
                }
                Ok(id.previous().map_or(Self::Never, Self::At))
            }
        }
    }
}

/// `ms` or `ms-seq`, and whether a `(` stood before it. Redis completes a bare
/// `ms` with the least sequence for a start and the greatest for an end.
fn parse_bound(text: &str, missing_seq: u64) -> Option<(EntryId, bool)> {
    let (text, exclusive) = match text.strip_prefix('(') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let id = match text.split_once('-') {
        Some((ms, seq)) => EntryId::new(parse_u64(ms.as_bytes())?, parse_u64(seq.as_bytes())?),
        None => EntryId::new(parse_u64(text.as_bytes())?, missing_seq),
    };
    Some((id, exclusive))
}

/// A range of IDs, both ends inclusive, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    start: EntryId,
    end: EntryId,
}

impl IdRange {
    /// All IDs there can be.
    pub const ALL: Self = Self {
        start: EntryId::MIN,
        end: EntryId::MAX,
    };

    /// The range from `start` to `end`; `None` if that holds no ID.
    pub fn new(start: EntryId, end: EntryId) -> Option<Self> {
        (start <= end).then_some(Self { start, end })
    }

    /// First ID of the range.
    pub fn start(self) -> EntryId {
        self.start
    }

    /// Last ID of the range.
    pub fn end(self) -> EntryId {
        self.end
    }

    /// What is left of the range after `id`; `None` if nothing is.
    pub fn after(self, id: EntryId) -> Option<Self> {
        Self::new(id.next()?.max(self.start), self.end)
    }

    /// How many IDs the range spans, as a float: for estimates only.
    pub(crate) fn span(self) -> f64 {
        (self.end.as_u128() - self.start.as_u128()) as f64 + 1.0
    }

    /// Splits off the first `span` IDs (at least one): that piece, and what is
    /// left, if anything.
    pub(crate) fn cut(self, span: f64) -> (Self, Option<Self>) {
        // A float that is too large saturates, which is the whole range.
        let more = (span.max(1.0) - 1.0) as u128;
        let end = self.start.as_u128().saturating_add(more);
        if end >= self.end.as_u128() {
            return (self, None);
        }
        let piece = Self {
            start: self.start,
            end: EntryId::from_u128(end),
        };
        (piece, self.after(piece.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> EntryId {
        EntryId::new(ms, seq)
    }

    #[test]
    fn starts_are_completed_with_the_least_sequence() {
        assert_eq!(Start::parse("-"), Ok(Start::At(EntryId::MIN)));
        assert_eq!(Start::parse("+"), Ok(Start::At(EntryId::MAX)));
        assert_eq!(Start::parse("$"), Ok(Start::AfterLast));
        assert_eq!(Start::parse("5"), Ok(Start::At(id(5, 0))));
        assert_eq!(Start::parse("5-7"), Ok(Start::At(id(5, 7))));
        assert_eq!(Start::parse("(5-7"), Ok(Start::At(id(5, 8))));
        assert_eq!(Start::parse("(5"), Ok(Start::At(id(5, 1))));
    }

    #[test]
    fn ends_are_completed_with_the_greatest_sequence() {
        assert_eq!(End::parse("5"), Ok(End::At(id(5, u64::MAX))));
        assert_eq!(End::parse("5-7"), Ok(End::At(id(5, 7))));
        assert_eq!(End::parse("(5-0"), Ok(End::At(id(4, u64::MAX))));
        assert_eq!(End::parse("(5"), Ok(End::At(id(5, u64::MAX - 1))));
        assert_eq!(End::parse("(0-0"), Ok(End::Never));
        assert_eq!(
            Start::parse("(18446744073709551615-18446744073709551615"),
            Ok(Start::Never)
        );
    }

    #[test]
    fn what_redis_refuses_is_refused() {
        for text in [
            "",
            "(",
            "x",
            "-1",
            "1-",
            "1-2-3",
            "(-",
            "(+",
            "($",
            "1 ",
            "+1",
            ">",
            "1-*",
            "18446744073709551616",
            "1-18446744073709551616",
            "١",
        ] {
            assert!(Start::parse(text).is_err(), "start {text:?}");
            assert!(End::parse(text).is_err(), "end {text:?}");
        }
        assert!(End::parse("$").is_err());
    }

    #[test]
    fn ids_of_replies_are_digits_and_a_dash() {
        for (text, expected) in [
            ("1704067200000-3", Some(id(1_704_067_200_000, 3))),
            (
                "9999999999999-18446744073709551615",
                Some(id(9_999_999_999_999, u64::MAX)),
            ),
            ("0000000000000-0", Some(EntryId::MIN)),
            ("18446744073709551615-0", Some(id(u64::MAX, 0))),
            ("5-7", Some(id(5, 7))),
            ("1704067200000-", None),
            ("1704067200000", None),
            ("-3", None),
        ] {
            assert_eq!(EntryId::from_reply(text.as_bytes()), expected, "{text}");
        }
        for at in 0..13 {
            for byte in (0..=255u8).filter(|b| !b.is_ascii_digit()) {
                let mut text = *b"1704067200000-3";
                text[at] = byte;
                assert_eq!(EntryId::from_reply(&text), None, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn ids_carry_over_between_milliseconds() {
        assert_eq!(id(5, u64::MAX).next(), Some(id(6, 0)));
        assert_eq!(id(6, 0).previous(), Some(id(5, u64::MAX)));
        assert_eq!(EntryId::MAX.next(), None);
        assert_eq!(EntryId::MIN.previous(), None);
    }

    #[test]
    fn cutting_a_range_gives_disjoint_pieces_that_are_the_whole() {
        let range = IdRange::new(id(1, 0), id(1, 9)).unwrap();
        assert_eq!(range.span(), 10.0);
        let (piece, rest) = range.cut(4.0);
        assert_eq!((piece.start(), piece.end()), (id(1, 0), id(1, 3)));
        assert_eq!(rest, IdRange::new(id(1, 4), id(1, 9)));
        assert_eq!(range.cut(10.0), (range, None));
        assert_eq!(range.cut(f64::INFINITY), (range, None));
        assert_eq!(range.cut(0.0).0.span(), 1.0);
        let all = IdRange::new(EntryId::MIN, EntryId::MAX).unwrap();
        assert_eq!(all.cut(1e300), (all, None));
    }
}
