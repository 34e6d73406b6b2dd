//! What a predicate says of entry IDs, and the range of IDs that follows from it.
//!
//! A range may hold IDs that the predicate refuses, as it is applied to what was
//! read; it never leaves one out that the predicate takes.

use crate::entry_id::{EntryId, IdRange};

/// What is known of the IDs of the entries that are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    Anything,
    /// There are none.
    Nothing,
    /// Their milliseconds are `from` to `to`. Not so in a stream that goes on
    /// after the millisecond `sound_to`, where a calculation would overflow.
    Timestamp { from: u64, to: u64, sound_to: u64 },
    /// Their sequence numbers are `from` to `to`.
    Sequence { from: u64, to: u64 },
    /// They lie in a range.
    Within(IdRange),
    /// As text they are this one, or after it in the order of text.
    TextFrom(String),
    /// As text they are this one, or before it in the order of text.
    TextTo(String),
    /// Both hold.
    Both(Box<Self>, Box<Self>),
    /// One of them holds, or both.
    Either(Box<Self>, Box<Self>),
}

impl Condition {
    /// The IDs from the least to the greatest of those listed as text. What is
    /// not written as Redis writes an ID is none.
    pub fn listed<'a>(ids: impl IntoIterator<Item = &'a str>) -> Self {
        let ids = ids.into_iter().filter_map(|text| {
            let id = EntryId::from_reply(text.as_bytes())?;
            (id.to_string() == text).then_some(id)
        });
        let span = ids.fold(None, |span: Option<(EntryId, EntryId)>, id| {
            let (least, greatest) = span.unwrap_or((id, id));
            Some((least.min(id), greatest.max(id)))
        });
        let range = span.and_then(|(least, greatest)| IdRange::new(least, greatest));
        range.map_or(Self::Nothing, Self::Within)
    }

    /// The range that follows for a stream whose entries, the first and the last,
    /// may be known; `None` where no ID is left.
    pub fn range(&self, stream: Option<IdRange>) -> Option<IdRange> {
        self.bounds(stream)?.range()
    }

    /// What is left of a range, of a stream whose entries may be known. Where the
    /// first entries count, wanted or not, it begins where it did.
    pub fn narrow(
        &self,
        range: IdRange,
        first_ones: Option<usize>,
        stream: Option<IdRange>,
    ) -> Option<IdRange> {
        let wanted = self.range(stream)?;
        let start = match first_ones {
            None => range.start().max(wanted.start()),
            Some(_) => range.start(),
        };
        IdRange::new(start, range.end().min(wanted.end()))
    }

    fn bounds(&self, stream: Option<IdRange>) -> Option<Bounds> {
        match self {
            Self::Anything => Some(Bounds::ALL),
            Self::Nothing => None,
            Self::Timestamp { from, to, sound_to } => match stream {
                Some(stream) if stream.end().ms <= *sound_to => Bounds::ms(*from, *to),
                _ if *sound_to == u64::MAX => Bounds::ms(*from, *to),
                _ => Some(Bounds::ALL),
            },
            Self::Sequence { from, to } => (from <= to).then_some(Bounds {
                seq: (*from, *to),
                ..Bounds::ALL
            }),
            Self::Within(ids) => Some(Bounds {
                ids: *ids,
                ..Bounds::ALL
            }),
            Self::TextFrom(text) => match stream.and_then(digits) {
                Some(digits) => Bounds::ms(least_ms(text, digits)?, u64::MAX),
                None => Some(Bounds::ALL),
            },
            Self::TextTo(text) => match stream.and_then(digits) {
                Some(digits) => Bounds::ms(0, greatest_ms(text, digits)),
                None => Some(Bounds::ALL),
            },
            Self::Both(one, other) => one.bounds(stream)?.intersected(other.bounds(stream)?),
            Self::Either(one, other) => match (one.bounds(stream), other.bounds(stream)) {
                (Some(one), Some(other)) => Some(one.joined(other)),
                (one, other) => one.or(other),
            },
        }
    }
}

/// Bounds of an ID, of its milliseconds and of its sequence number, all
/// inclusive, none of them empty.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    ms: (u64, u64),
    seq: (u64, u64),
    ids: IdRange,
}

impl Bounds {
    const ALL: Self = Self {
        ms: (0, u64::MAX),
        seq: (0, u64::MAX),
        ids: IdRange::ALL,
    };

    fn ms(from: u64, to: u64) -> Option<Self> {
        (from <= to).then_some(Self {
            ms: (from, to),
            ..Self::ALL
        })
    }

    /// Of the entries of the first millisecond, those before its first sequence
    /// number are not wanted, nor those after the last one of the last.
    fn range(self) -> Option<IdRange> {
        let start = EntryId::new(self.ms.0, self.seq.0);
        let end = EntryId::new(self.ms.1, self.seq.1);
        IdRange::new(self.ids.start().max(start), self.ids.end().min(end))
    }

    fn intersected(self, other: Self) -> Option<Self> {
        let both = |one: (u64, u64), other: (u64, u64)| {
            let (from, to) = (one.0.max(other.0), one.1.min(other.1));
            (from <= to).then_some((from, to))
        };
        let (start, end) = (self.ids.start(), self.ids.end());
        Some(Self {
            ms: both(self.ms, other.ms)?,
            seq: both(self.seq, other.seq)?,
            ids: IdRange::new(start.max(other.ids.start()), end.min(other.ids.end()))?,
        })
    }

    fn joined(self, other: Self) -> Self {
        let hull = |one: (u64, u64), other: (u64, u64)| (one.0.min(other.0), one.1.max(other.1));
        // What each of them leaves of all IDs says more than its parts.
        let ids = match (self.range(), other.range()) {
            (Some(one), Some(other)) => {
                let (start, end) = (one.start().min(other.start()), one.end().max(other.end()));
                IdRange::new(start, end).unwrap_or(IdRange::ALL)
            }
            (None, None) => IdRange::ALL,
            (Some(_), None) => return self,
            (None, Some(_)) => return other,
        };
        Self {
            ms: hull(self.ms, other.ms),
            seq: hull(self.seq, other.seq),
            ids,
        }
    }
}

/// How many digits the milliseconds of all IDs have, if all have as many: only
/// then is the order of texts the order of milliseconds.
fn digits(stream: IdRange) -> Option<u32> {
    let count = |ms: u64| ms.checked_ilog10().unwrap_or(0) + 1;
    let digits = count(stream.start().ms);
    (digits == count(stream.end().ms)).then_some(digits)
}

/// The digits that a text begins with, `digits` at the most, as the first number
/// of as many digits that has them; what it lacks; and the byte after them.
fn leading(text: &str, digits: u32) -> (u128, u32, Option<u8>) {
    let text = text.as_bytes();
    let most = text.len().min(digits as usize);
    let known = text[..most]
        .iter()
        .take_while(|b| b.is_ascii_digit())
        .count();
    let number = text[..known]
        .iter()
        .fold(0, |n, b| n * 10 + u128::from(b - b'0'));
    let lacking = digits - known as u32;
    (number, lacking, text[..most].get(known).copied())
}

/// The least milliseconds, of as many digits, of an ID at or after a text;
/// `None` where none are.
fn least_ms(text: &str, digits: u32) -> Option<u64> {
    let (number, lacking, next) = leading(text, digits);
    // Any digit is before a letter.
    let is_after = next.is_some_and(|byte| byte > b'9');
    let least = (number + u128::from(is_after)) * 10u128.pow(lacking);
    if least >= 10u128.pow(digits) {
        return None;
    }
    u64::try_from(least).ok()
}

/// The greatest milliseconds, of as many digits, of an ID at or before a text.
fn greatest_ms(text: &str, digits: u32) -> u64 {
    let (number, lacking, _) = leading(text, digits);
    u64::try_from((number + 1) * 10u128.pow(lacking) - 1).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64, seq: u64) -> EntryId {
        EntryId::new(ms, seq)
    }

    fn between(start: EntryId, end: EntryId) -> Option<IdRange> {
        IdRange::new(start, end)
    }

    fn ms(from: u64, to: u64) -> Condition {
        Condition::Timestamp {
            from,
            to,
            sound_to: u64::MAX,
        }
    }

    fn seq(from: u64, to: u64) -> Condition {
        Condition::Sequence { from, to }
    }

    fn both(one: Condition, other: Condition) -> Condition {
        Condition::Both(Box::new(one), Box::new(other))
    }

    fn either(one: Condition, other: Condition) -> Condition {
        Condition::Either(Box::new(one), Box::new(other))
    }

    #[test]
    fn milliseconds_bound_ids_and_a_sequence_number_those_of_one_millisecond() {
        assert_eq!(ms(5, 9).range(None), between(id(5, 0), id(9, u64::MAX)));
        assert_eq!(ms(9, 5).range(None), None);
        assert_eq!(
            both(ms(5, 5), seq(3, 4)).range(None),
            between(id(5, 3), id(5, 4))
        );
        assert_eq!(
            both(ms(5, 6), seq(3, 4)).range(None),
            between(id(5, 3), id(6, 4))
        );
        assert_eq!(both(ms(5, 6), ms(7, 8)).range(None), None);
        assert_eq!(seq(3, 3).range(None), between(id(0, 3), id(u64::MAX, 3)));
    }

    #[test]
    fn one_or_the_other_spans_both() {
        let one = both(ms(5, 5), seq(3, 3));
        let range = between(id(5, 3), id(7, u64::MAX));
        assert_eq!(either(one.clone(), ms(7, 7)).range(None), range);
        assert_eq!(either(ms(7, 7), one.clone()).range(None), range);
        assert_eq!(
            either(Condition::Nothing, one.clone()).range(None),
            one.range(None)
        );
        assert_eq!(
            either(Condition::Anything, one).range(None),
            Some(IdRange::ALL)
        );
    }

    #[test]
    fn a_list_spans_its_ids_and_takes_them_only_as_redis_writes_them() {
        let list = Condition::listed(["5-1", "07-0", "3-0", "9", "x"]);
        assert_eq!(list.range(None), between(id(3, 0), id(5, 1)));
        assert_eq!(Condition::listed(["5", "05-1"]), Condition::Nothing);
    }

    #[test]
    fn what_may_overflow_bounds_nothing() {
        let condition = Condition::Timestamp {
            from: 5,
            to: 9,
            sound_to: 100,
        };
        let range = between(id(5, 0), id(9, u64::MAX));
        let stream = |last| between(id(1, 0), id(last, 0));
        assert_eq!(condition.range(stream(100)), range);
        assert_eq!(condition.range(stream(101)), Some(IdRange::ALL));
        assert_eq!(condition.range(None), Some(IdRange::ALL));
    }

    /// Whatever the text, no ID that is wanted is left out.
    #[test]
    fn bounds_of_texts_hold_every_id_that_the_texts_order_allows() {
        let stream = between(id(100, 0), id(999, 12));
        let ids: Vec<_> = (100..1000)
            .flat_map(|ms| [id(ms, 0), id(ms, 9), id(ms, 12)])
            .collect();
        for text in [
            "", "-", "1", "15", "15-", "150", "150-", "150-5", "1500", "15a", "a", "9", "99",
            "999", "999-9", "9995", "0", "é", "1é", "99a", "999a", "5 0", "/", ":",
        ] {
            for condition in [
                Condition::TextFrom(text.into()),
                Condition::TextTo(text.into()),
            ] {
                let is_wanted = |id: &EntryId| match condition {
                    Condition::TextFrom(_) => id.to_string().as_str() >= text,
                    _ => id.to_string().as_str() <= text,
                };
                let range = condition.range(stream);
                for id in ids.iter().filter(|id| is_wanted(id)) {
                    let holds = range.is_some_and(|r| r.start() <= *id && *id <= r.end());
                    assert!(holds, "{condition:?} leaves out {id}");
                }
            }
        }
    }

    #[test]
    fn bounds_of_texts_are_close_where_all_milliseconds_have_as_many_digits() {
        let stream = between(id(1_700_000_000_000, 0), id(1_800_000_000_000, 0));
        let from = Condition::TextFrom("1704067200000-5".into());
        assert_eq!(
            from.range(stream),
            between(id(1_704_067_200_000, 0), EntryId::MAX)
        );
        let to = Condition::TextTo("1704067200000-5".into());
        assert_eq!(
            to.range(stream),
            between(EntryId::MIN, id(1_704_067_200_000, u64::MAX))
        );
        assert_eq!(from.range(between(id(5, 0), id(10, 0))), Some(IdRange::ALL));
        assert_eq!(from.range(None), Some(IdRange::ALL));
    }
}
