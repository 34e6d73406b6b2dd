//! Dates, times and moments as text: what [`crate::decode`] reads back as the same
//! value. Years are written with four digits; what is in others is written as the
//! count that it is.

use std::io::Write;

use crate::decode::TimeUnit;

const NANOSECONDS: i64 = 1_000_000_000;
const SECONDS_A_DAY: i64 = 86_400;
const NANOSECONDS_A_DAY: i64 = SECONDS_A_DAY * NANOSECONDS;

/// The days from 0000-01-01 to 9999-12-31, counted from 1970.
const DAYS: std::ops::RangeInclusive<i64> = -719_528..=2_932_896;

/// What stands behind a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// Nothing: the column has no time zone.
    None,
    /// A `Z`: the column has one, and holds UTC.
    Utc,
}

/// Writes a day since 1970; whether it has a text, rather than only a count.
pub fn write_date(days: i32, out: &mut Vec<u8>) -> bool {
    let days = i64::from(days);
    let is_text = DAYS.contains(&days);
    if is_text {
        push_date(days, out);
    } else {
        push_count(days, out);
    }
    is_text
}

/// Writes nanoseconds since midnight; whether they have a text.
pub fn write_time(nanoseconds: i64, out: &mut Vec<u8>) -> bool {
    let is_text = (0..NANOSECONDS_A_DAY).contains(&nanoseconds);
    if is_text {
        push_time(
            nanoseconds / NANOSECONDS,
            nanoseconds % NANOSECONDS,
            TimeUnit::Nanoseconds,
            out,
        );
    } else {
        push_count(nanoseconds, out);
    }
    is_text
}

/// Writes units since 1970; whether they have a text.
pub fn write_datetime(count: i64, unit: TimeUnit, zone: Zone, out: &mut Vec<u8>) -> bool {
    let a_second = NANOSECONDS / unit.nanoseconds();
    let (seconds, fraction) = (count.div_euclid(a_second), count.rem_euclid(a_second));
    let days = seconds.div_euclid(SECONDS_A_DAY);
    if !DAYS.contains(&days) {
        push_count(count, out);
        return false;
    }
    push_date(days, out);
    out.push(b'T');
    push_time(
        seconds.rem_euclid(SECONDS_A_DAY),
        fraction * unit.nanoseconds(),
        unit,
        out,
    );
    if zone == Zone::Utc {
        out.push(b'Z');
    }
    true
}

fn push_count(count: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(count).as_bytes());
}

fn push_date(days: i64, out: &mut Vec<u8>) {
    let (year, month, day) = date_of(days);
    push_two_digits(year / 100, out);
    push_two_digits(year % 100, out);
    out.push(b'-');
    push_two_digits(month, out);
    out.push(b'-');
    push_two_digits(day, out);
}

/// A time of day, with a fraction of as many digits as the unit has, if there is one.
fn push_time(seconds: i64, nanoseconds: i64, unit: TimeUnit, out: &mut Vec<u8>) {
    push_two_digits(seconds / 3_600, out);
    out.push(b':');
    push_two_digits(seconds / 60 % 60, out);
    out.push(b':');
    push_two_digits(seconds % 60, out);
    if nanoseconds == 0 {
        return;
    }
    let count = nanoseconds / unit.nanoseconds();
    let written = match unit {
        TimeUnit::Milliseconds => write!(out, ".{count:03}"),
        TimeUnit::Microseconds => write!(out, ".{count:06}"),
        TimeUnit::Nanoseconds => write!(out, ".{count:09}"),
    };
    debug_assert!(written.is_ok(), "memory takes all that is written");
}

fn push_two_digits(number: i64, out: &mut Vec<u8>) {
    out.push(b'0' + (number / 10 % 10) as u8);
    out.push(b'0' + (number % 10) as u8);
}

/// Year, month and day of the Gregorian calendar. Years are counted from March, so
/// that the leap day is a year's last, and in cycles of 400.
fn date_of(days: i64) -> (i64, i64, i64) {
    const DAYS_A_CYCLE: i64 = 146_097;
    const FROM_YEAR_ZERO: i64 = 719_468;
    let days = days + FROM_YEAR_ZERO;
    let (cycle, of_cycle) = (days.div_euclid(DAYS_A_CYCLE), days.rem_euclid(DAYS_A_CYCLE));
    let of_cycle_year =
        (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let day_of_year = of_cycle - (365 * of_cycle_year + of_cycle_year / 4 - of_cycle_year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = cycle * 400 + of_cycle_year + i64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::{parse_date, parse_datetime, parse_time};

    const UNITS: [TimeUnit; 3] = [
        TimeUnit::Milliseconds,
        TimeUnit::Microseconds,
        TimeUnit::Nanoseconds,
    ];

    #[test]
    fn every_day_of_four_digit_years_reads_back() {
        let mut text = Vec::new();
        let days = (*DAYS.start() as i32 - 2)..=(*DAYS.end() as i32 + 2);
        for day in days.chain([i32::MIN, i32::MAX]) {
            text.clear();
            let is_text = write_date(day, &mut text);
            assert_eq!(parse_date(&text), Some(day));
            assert_eq!(is_text, text.len() == 10 && text[4] == b'-', "{day}");
        }
    }

    #[test]
    fn moments_read_back_in_every_unit() {
        let mut text = Vec::new();
        for unit in UNITS {
            for base in [
                0,
                1,
                999,
                1_711_843_200_123,
                i64::MAX,
                i64::MAX / 3,
                253_402_300_799_999,
            ] {
                for count in [base, -base, base.saturating_sub(1), i64::MIN] {
                    for zone in [Zone::None, Zone::Utc] {
                        text.clear();
                        write_datetime(count, unit, zone, &mut text);
                        assert_eq!(parse_datetime(&text, unit), Some(count));
                    }
                }
            }
        }
    }

    #[test]
    fn moments_are_written_as_iso() {
        let written = |count, unit, zone| {
            let mut text = Vec::new();
            write_datetime(count, unit, zone, &mut text);
            String::from_utf8(text).unwrap()
        };
        let ms = TimeUnit::Milliseconds;
        assert_eq!(written(0, ms, Zone::None), "1970-01-01T00:00:00");
        assert_eq!(written(-1, ms, Zone::Utc), "1969-12-31T23:59:59.999Z");
        assert_eq!(
            written(1_000_001, TimeUnit::Nanoseconds, Zone::None),
            "1970-01-01T00:00:00.001000001"
        );
        assert_eq!(written(i64::MAX, ms, Zone::Utc), i64::MAX.to_string());
    }

    #[test]
    fn times_read_back() {
        let mut text = Vec::new();
        for time in [0, 1, 999_999_999, NANOSECONDS, NANOSECONDS_A_DAY - 1] {
            text.clear();
            assert!(write_time(time, &mut text));
            assert_eq!(parse_time(&text), Some(time));
        }
        assert!(!write_time(NANOSECONDS_A_DAY, &mut text));
    }
}
