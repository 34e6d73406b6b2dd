//! Dates, times, moments and durations from their text: the extended forms of
//! ISO 8601, and counts in the column's unit. Nothing is allocated.
//!
//! Digits of a fraction beyond nine are passed over, and those beyond the unit
//! are cut: a moment becomes an earlier one, a duration a shorter one.

use super::dtype::TimeUnit;
use super::text::{Integer, split_sign};

const NANOSECONDS: i64 = 1_000_000_000;
const SECONDS_A_DAY: i64 = 86_400;
const NANOSECONDS_A_DAY: i64 = SECONDS_A_DAY * NANOSECONDS;

/// Days since 1970: `YYYY-MM-DD`, or their number.
#[inline]
pub fn parse_date(text: &[u8]) -> Option<i32> {
    iso_date(text).or_else(|| i32::parse(text))
}

/// Nanoseconds since midnight: `HH:MM[:SS[.f]]`, or their number.
#[inline]
pub fn parse_time(text: &[u8]) -> Option<i64> {
    let count = || i64::parse(text).filter(|count| (0..NANOSECONDS_A_DAY).contains(count));
    iso_time(text).or_else(count)
}

/// Units since 1970, in UTC: a date, a date and a time, with or without an
/// offset, or their number.
#[inline]
pub fn parse_datetime(text: &[u8], unit: TimeUnit) -> Option<i64> {
    match Moment::parse(text) {
        Some(moment) => moment.count(unit),
        None => i64::parse(text),
    }
}

/// Units: `[+-]P[nW][nD][T[nH][nM][nS]]`, or their number.
#[inline]
pub fn parse_duration(text: &[u8], unit: TimeUnit) -> Option<i64> {
    match iso_duration(text) {
        Some(nanoseconds) => i64::try_from(nanoseconds / i128::from(unit.nanoseconds())).ok(),
        None => i64::parse(text),
    }
}

/// Days since 1970 of `YYYY-MM-DD`.
pub fn iso_date(text: &[u8]) -> Option<i32> {
    let mut rest = Rest(text);
    let days = rest.date()?;
    if !rest.is_empty() {
        return None;
    }
    i32::try_from(days).ok()
}

fn iso_time(text: &[u8]) -> Option<i64> {
    let mut rest = Rest(text);
    let time = rest.time()?;
    rest.is_empty()
        .then_some(time.seconds * NANOSECONDS + time.nanoseconds)
}

/// A point in time, as a text gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since 1970, in UTC.
    seconds: i64,
    nanoseconds: i64,
    /// Digits of the fraction of a second.
    pub fraction_digits: usize,
    /// Whether the text says how far it is from UTC.
    pub has_offset: bool,
}

impl Moment {
    /// A date, or a date and a time, with or without an offset.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut rest = Rest(text);
        let midnight = rest.date()? * SECONDS_A_DAY;
        if rest.is_empty() {
            return Some(Self {
                seconds: midnight,
                nanoseconds: 0,
                fraction_digits: 0,
                has_offset: false,
            });
        }
        if !rest.take(b'T') && !rest.take(b' ') {
            return None;
        }
        let time = rest.time()?;
        let has_offset = !rest.is_empty();
        let offset = if has_offset { rest.offset()? } else { 0 };
        rest.is_empty().then_some(Self {
            seconds: midnight + time.seconds - offset,
            nanoseconds: time.nanoseconds,
            fraction_digits: time.fraction_digits,
            has_offset,
        })
    }

    /// Units since 1970, if 64 bits hold as many.
    pub fn count(self, unit: TimeUnit) -> Option<i64> {
        let per_second = i128::from(NANOSECONDS / unit.nanoseconds());
        let count = i128::from(self.seconds) * per_second
            + i128::from(self.nanoseconds / unit.nanoseconds());
        i64::try_from(count).ok()
    }
}

/// Nanoseconds of an ISO duration.
fn iso_duration(text: &[u8]) -> Option<i128> {
    let (is_negative, magnitude) = split_sign(text)?;
    let mut rest = Rest(magnitude);
    if !rest.take(b'P') {
        return None;
    }
    let mut total = Some(0);
    let mut is_fraction = false;
    let mut parts = 0;
    for (letter, seconds) in [(b'W', 7 * SECONDS_A_DAY), (b'D', SECONDS_A_DAY)] {
        parts += rest.part(letter, seconds, &mut total, &mut is_fraction)?;
    }
    if rest.take(b'T') {
        let before = parts;
        for (letter, seconds) in [(b'H', 3_600), (b'M', 60), (b'S', 1)] {
            parts += rest.part(letter, seconds, &mut total, &mut is_fraction)?;
        }
        if parts == before {
            return None;
        }
    }
    if parts == 0 || !rest.is_empty() {
        return None;
    }
    total.map(|total| if is_negative { -total } else { total })
}

struct TimeOfDay {
    seconds: i64,
    nanoseconds: i64,
    fraction_digits: usize,
}

/// What has not been read of a text.
#[derive(Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn digit(&mut self) -> Option<i64> {
        let (first, rest) = self.0.split_first()?;
        let digit = first.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        self.0 = rest;
        Some(i64::from(digit))
    }

    #[inline]
    fn two_digits(&mut self) -> Option<i64> {
        Some(self.digit()? * 10 + self.digit()?)
    }

    /// Days since 1970.
    #[inline]
    fn date(&mut self) -> Option<i64> {
        let year = self.year()?;
        if !self.take(b'-') {
            return None;
        }
        let month = self.two_digits()?;
        if !self.take(b'-') {
            return None;
        }
        let day = self.two_digits()?;
        let is_valid = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
        is_valid.then(|| days_since_epoch(year, month, day))
    }

    /// Four digits; with a plus more than four, with a minus four or more, and not
    /// zero.
    #[inline]
    fn year(&mut self) -> Option<i64> {
        if self.take(b'+') {
            let (year, digits) = self.long_year()?;
            return (digits > 4).then_some(year);
        }
        if self.take(b'-') {
            let (year, digits) = self.long_year()?;
            return (digits >= 4 && year != 0).then_some(-year);
        }
        Some(self.two_digits()? * 100 + self.two_digits()?)
    }

    /// A number of up to nine digits, and how many it has.
    fn long_year(&mut self) -> Option<(i64, usize)> {
        let (mut year, mut digits) = (0, 0);
        while let Some(digit) = self.digit() {
            year = year * 10 + digit;
            digits += 1;
            if digits > 9 {
                return None;
            }
        }
        Some((year, digits))
    }

    #[inline]
    fn time(&mut self) -> Option<TimeOfDay> {
        let hour = self.two_digits()?;
        if !self.take(b':') {
            return None;
        }
        let minute = self.two_digits()?;
        let (mut second, mut nanoseconds, mut fraction_digits) = (0, 0, 0);
        if self.take(b':') {
            second = self.two_digits()?;
            if self.take(b'.') {
                (nanoseconds, fraction_digits) = self.fraction()?;
            }
        }
        let is_valid = hour < 24 && minute < 60 && second < 60;
        is_valid.then_some(TimeOfDay {
            seconds: hour * 3_600 + minute * 60 + second,
            nanoseconds,
            fraction_digits,
        })
    }

    /// What stands behind a point, in billionths, and of how many digits.
    #[inline]
    fn fraction(&mut self) -> Option<(i64, usize)> {
        let (mut billionths, mut worth, mut digits) = (0, NANOSECONDS / 10, 0);
        while let Some(digit) = self.digit() {
            billionths += digit * worth;
            worth /= 10;
            digits += 1;
        }
        (digits > 0).then_some((billionths, digits))
    }

    /// Seconds east of UTC: `Z`, `±HH`, `±HH:MM`, `±HHMM`.
    #[inline]
    fn offset(&mut self) -> Option<i64> {
        if self.take(b'Z') {
            return Some(0);
        }
        let is_west = self.take(b'-');
        if !is_west && !self.take(b'+') {
            return None;
        }
        let hours = self.two_digits()?;
        let has_minutes = self.take(b':') || !self.is_empty();
        let minutes = if has_minutes { self.two_digits()? } else { 0 };
        if hours > 23 || minutes > 59 {
            return None;
        }
        let offset = hours * 3_600 + minutes * 60;
        Some(if is_west { -offset } else { offset })
    }

    /// A part of a duration, of so many seconds each, if it comes next: adds its
    /// nanoseconds, or nothing where there are too many. Only the last may have a
    /// fraction. `None` if the text is no duration.
    fn part(
        &mut self,
        letter: u8,
        seconds: i64,
        total: &mut Option<i128>,
        is_fraction: &mut bool,
    ) -> Option<u32> {
        let mut ahead = *self;
        let Some(number) = ahead.number() else {
            return Some(0);
        };
        let fraction = if ahead.take(b'.') {
            Some(ahead.fraction()?.0)
        } else {
            None
        };
        if !ahead.take(letter) {
            return Some(0);
        }
        // Nothing may follow a fraction.
        if *is_fraction {
            return None;
        }
        *is_fraction = fraction.is_some();
        let whole = number.and_then(|n| n.checked_mul(i128::from(seconds * NANOSECONDS)));
        let part = i128::from(fraction.unwrap_or(0) * seconds);
        *total = (*total).and_then(|total| total.checked_add(whole?)?.checked_add(part));
        *self = ahead;
        Some(1)
    }

    /// A number of one digit or more, if one comes next; its value, unless there
    /// are too many digits.
    fn number(&mut self) -> Option<Option<i128>> {
        let mut value = Some(i128::from(self.digit()?));
        while let Some(digit) = self.digit() {
            value = value.and_then(|value| value.checked_mul(10)?.checked_add(i128::from(digit)));
        }
        Some(value)
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar. Years are counted
/// from March, so that the leap day is a year's last, and in cycles of 400.
fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    const DAYS_A_CYCLE: i64 = 146_097;
    const FROM_YEAR_ZERO: i64 = 719_468;
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    cycle * DAYS_A_CYCLE + year * 365 + year / 4 - year / 100 + day_of_year - FROM_YEAR_ZERO
}

#[cfg(test)]
mod tests {
    use super::*;
    use TimeUnit::{Microseconds, Milliseconds, Nanoseconds};

    #[test]
    fn every_day_of_many_years_follows_the_one_before() {
        let mut expected = iso_date(b"-0400-01-01").unwrap();
        for year in -400..=2800_i64 {
            for month in 1..=12 {
                for day in 1..=days_in_month(year, month) {
                    let sign = if year < 0 { "-" } else { "" };
                    let text = format!("{sign}{:04}-{month:02}-{day:02}", year.abs());
                    assert_eq!(iso_date(text.as_bytes()), Some(expected), "{text}");
                    expected += 1;
                }
            }
        }
        assert_eq!(iso_date(b"1970-01-01"), Some(0));
    }

    #[test]
    fn dates_take_iso_and_counts() {
        let cases = [
            ("2024-02-29", 19_782),
            ("2000-02-29", 11_016),
            ("0000-01-01", -719_528),
            ("0001-01-01", -719_162),
            ("-0001-12-31", -719_529),
            ("+10000-01-01", 2_932_897),
            ("+5881580-07-11", i32::MAX),
            ("-5877641-06-23", i32::MIN),
            ("19782", 19_782),
            ("-1", -1),
            ("+1", 1),
            ("2147483647", i32::MAX),
            ("2024", 2024),
        ];
        for (text, days) in cases {
            assert_eq!(parse_date(text.as_bytes()), Some(days), "{text}");
        }
        for text in [
            "",
            "2023-02-29",
            "1900-02-29",
            "2024-02-30",
            "2024-04-31",
            "2024-00-01",
            "2024-13-01",
            "2024-01-00",
            "2024-01-32",
            "2024-1-1",
            "2024-01",
            "24-01-01",
            "10000-01-01",
            "+2024-01-01",
            "-0000-01-01",
            "-001-01-01",
            "+5881580-07-12",
            "-5877641-06-22",
            "+1000000000-01-01",
            "2147483648",
            " 2024-01-01",
            "2024-01-01 ",
            "2024-01-01T00:00",
            "2024/01/01",
            "1.0",
            "2024-01-0１",
        ] {
            assert_eq!(parse_date(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn times_take_iso_and_counts() {
        let last = NANOSECONDS_A_DAY - 1;
        let cases = [
            ("00:00", 0),
            ("01:02", 3_720 * NANOSECONDS),
            ("01:02:03", 3_723 * NANOSECONDS),
            ("01:02:03.5", 3_723_500_000_000),
            ("23:59:59.999999999", last),
            ("23:59:59.99999999999999999999", last),
            ("00:00:00.0000000009", 0),
            ("0", 0),
            ("86399999999999", last),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_time(text.as_bytes()), Some(nanoseconds), "{text}");
        }
        for text in [
            "",
            "24:00",
            "24:00:00",
            "23:60",
            "23:59:60",
            "1:02",
            "01:2",
            "01:02:",
            "01:02:03.",
            "01:02:03,5",
            "T01:02",
            "01:02Z",
            "01:02+00",
            "0102",
            " 01:02",
            "01:02 ",
            "-1",
            "86400000000000",
            "1.0",
        ] {
            // A run of digits is a count.
            if text == "0102" {
                assert_eq!(parse_time(text.as_bytes()), Some(102));
                continue;
            }
            assert_eq!(parse_time(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn moments_take_offsets_and_keep_the_instant() {
        let noon = 1_704_110_400_000;
        for text in [
            "2024-01-01T12:00",
            "2024-01-01 12:00",
            "2024-01-01T12:00:00",
            "2024-01-01T12:00:00.000",
            "2024-01-01T12:00Z",
            "2024-01-01T12:00:00Z",
            "2024-01-01T12:00:00+00:00",
            "2024-01-01T12:00:00-00:00",
            "2024-01-01T14:30:00+02:30",
            "2024-01-01T14:30:00+0230",
            "2024-01-01T07:00:00-05",
            "2024-01-02T11:59+23:59",
            "1704110400000",
        ] {
            assert_eq!(
                parse_datetime(text.as_bytes(), Milliseconds),
                Some(noon),
                "{text}"
            );
        }
        assert_eq!(
            parse_datetime(b"2024-01-01", Milliseconds),
            Some(noon - 43_200_000)
        );
    }

    #[test]
    fn moments_refuse_what_is_none() {
        for text in [
            "",
            "2024-01-01T",
            "2024-01-01 ",
            "2024-01-01  12:00",
            "2024-01-01t12:00",
            "2024-01-01T12:00z",
            "2024-01-01T12",
            "2024-01-01T1200",
            "20240101T120000",
            "2024-01-01T24:00",
            "2024-01-01T23:59:60",
            "2024-02-30T00:00",
            "2024-01-01Z",
            "2024-01-01+02:00",
            "2024-01-01T12:00+2",
            "2024-01-01T12:00+02:",
            "2024-01-01T12:00+02:0",
            "2024-01-01T12:00+24:00",
            "2024-01-01T12:00+02:60",
            "2024-01-01T12:00 +02:00",
            "2024-01-01T12:00 UTC",
            "2024-01-01T12:00ZZ",
            "2024-01-01T12:00Z ",
            "9223372036854775808",
            "1e3",
        ] {
            assert_eq!(
                parse_datetime(text.as_bytes(), Milliseconds),
                None,
                "{text}"
            );
        }
    }

    #[test]
    fn moments_reach_as_far_as_their_unit() {
        let cases = [
            ("1677-09-21T00:12:43.145224192", Nanoseconds, Some(i64::MIN)),
            ("1677-09-21T00:12:43.145224191", Nanoseconds, None),
            ("2262-04-11T23:47:16.854775807", Nanoseconds, Some(i64::MAX)),
            ("2262-04-11T23:47:16.854775808", Nanoseconds, None),
            ("2300-01-01", Nanoseconds, None),
            (
                "+294247-01-10T04:00:54.775807",
                Microseconds,
                Some(i64::MAX),
            ),
            ("+294247-01-10T04:00:54.775808", Microseconds, None),
            (
                "-290308-12-21T19:59:05.224192",
                Microseconds,
                Some(i64::MIN),
            ),
            (
                "+292278994-08-17T07:12:55.807",
                Milliseconds,
                Some(i64::MAX),
            ),
            ("+292278994-08-17T07:12:55.808", Milliseconds, None),
            ("-999999999-01-01", Milliseconds, None),
        ];
        for (text, unit, expected) in cases {
            assert_eq!(parse_datetime(text.as_bytes(), unit), expected, "{text}");
        }
    }

    #[test]
    fn digits_beyond_the_unit_are_cut_toward_the_past() {
        let at = |text: &str, unit| parse_datetime(text.as_bytes(), unit);
        assert_eq!(at("1970-01-01T00:00:00.0019999", Milliseconds), Some(1));
        assert_eq!(at("1969-12-31T23:59:59.9999", Milliseconds), Some(-1));
        assert_eq!(at("1969-12-31T23:59:59.9999999", Microseconds), Some(-1));
        assert_eq!(
            at("1970-01-01T00:00:00.1234567899999", Nanoseconds),
            Some(123_456_789)
        );
    }

    #[test]
    fn durations_take_iso_and_counts() {
        let cases = [
            ("P1W", 604_800_000),
            ("P1D", 86_400_000),
            ("P1W1D", 691_200_000),
            ("P2DT3H4M5.678S", 183_845_678),
            ("PT0S", 0),
            ("-PT0S", 0),
            ("PT1.5S", 1_500),
            ("-PT1.5S", -1_500),
            ("+PT1M", 60_000),
            ("-P1DT1H1M1.001S", -90_061_001),
            ("PT0.0019S", 1),
            ("-PT0.0019S", -1),
            ("PT36H", 129_600_000),
            ("PT0.5H", 1_800_000),
            ("P0.5D", 43_200_000),
            ("P1.5W", 907_200_000),
            ("1500", 1_500),
            ("-1", -1),
            ("PT9223372036854775.807S", i64::MAX),
            ("-PT9223372036854775.808S", i64::MIN),
        ];
        for (text, milliseconds) in cases {
            assert_eq!(
                parse_duration(text.as_bytes(), Milliseconds),
                Some(milliseconds),
                "{text}"
            );
        }
        for text in [
            "",
            "P",
            "PT",
            "-P",
            "P1",
            "P1DT",
            "P1Y",
            "P1M",
            "P1Y2M3D",
            "PT1D",
            "P1H",
            "PT1M1H",
            "P1D1W",
            "P1.5DT1H",
            "PT1.5M1S",
            "PT1,5S",
            "PT.5S",
            "PT1.S",
            "P-1D",
            "PT-1S",
            "p1d",
            "P1D ",
            " P1D",
            "--P1D",
            "PT9223372036854775.808S",
            "1.5",
            "P1DT1H1H",
            "1:00:00",
            "P99999999999999999999999999999999999999999999999999W",
        ] {
            assert_eq!(
                parse_duration(text.as_bytes(), Milliseconds),
                None,
                "{text}"
            );
        }
        assert_eq!(
            parse_duration(b"PT9223372036.854775807S", Nanoseconds),
            Some(i64::MAX)
        );
        assert_eq!(
            parse_duration(b"PT9223372036.854775808S", Nanoseconds),
            None
        );
    }
}
