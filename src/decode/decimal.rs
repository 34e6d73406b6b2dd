//! Decimals from their text, exactly: no digit is lost, or the text does not fit.

use super::text::split_sign;

/// Digits that a Decimal has at the most.
pub const MAX_PRECISION: u8 = 38;

/// The value as a count of `10^-scale`: an optional sign, digits with an optional
/// point, an optional exponent. `None` if it is not the text of a decimal, has
/// digits beyond the scale that are not zero, or more than `precision` digits.
pub fn parse_decimal(text: &[u8], precision: u8, scale: u8) -> Option<i128> {
    let (is_negative, magnitude) = split_sign(text)?;
    let number = Number::parse(magnitude)?;
    let value = number.count(precision, scale)?;
    Some(if is_negative { -value } else { value })
}

/// `mantissa × 10^exponent`; the mantissa's last digit is not zero.
#[derive(Debug, Default)]
struct Number {
    mantissa: i128,
    digits: u64,
    exponent: i64,
}

impl Number {
    fn parse(text: &[u8]) -> Option<Self> {
        let mut number = Self::default();
        // Zeros since the last digit that is not one: they count once another
        // digit comes.
        let mut zeros = 0u64;
        let (mut is_number, mut is_behind_point) = (false, false);
        let mut exponent = 0;
        for (at, &byte) in text.iter().enumerate() {
            match byte {
                b'0'..=b'9' => {
                    is_number = true;
                    number.exponent -= i64::from(is_behind_point);
                    if byte == b'0' {
                        zeros += 1;
                    } else {
                        number.append(zeros, byte - b'0')?;
                        zeros = 0;
                    }
                }
                b'.' if !is_behind_point => is_behind_point = true,
                b'e' | b'E' => {
                    exponent = parse_exponent(&text[at + 1..])?;
                    break;
                }
                _ => return None,
            }
        }
        if !is_number {
            return None;
        }
        number.exponent += zeros as i64 + exponent;
        Some(number)
    }

    /// Adds a digit behind so many zeros; `None` if there are too many for any
    /// Decimal.
    fn append(&mut self, zeros: u64, digit: u8) -> Option<()> {
        if self.digits > 0 {
            self.digits += zeros;
        }
        self.digits += 1;
        if self.digits > u64::from(MAX_PRECISION) {
            return None;
        }
        if self.mantissa > 0 {
            self.mantissa *= 10i128.pow(zeros as u32 + 1);
        }
        self.mantissa += i128::from(digit);
        Some(())
    }

    fn count(&self, precision: u8, scale: u8) -> Option<i128> {
        if self.mantissa == 0 {
            return Some(0);
        }
        let shift = u64::try_from(self.exponent + i64::from(scale)).ok()?;
        if self.digits + shift > u64::from(precision) {
            return None;
        }
        Some(self.mantissa * 10i128.pow(shift as u32))
    }
}

/// An optional sign and digits. What is far from any Decimal stays there.
fn parse_exponent(text: &[u8]) -> Option<i64> {
    const FAR: i64 = 1 << 50;
    let (is_negative, digits) = split_sign(text)?;
    if digits.is_empty() {
        return None;
    }
    let mut value = 0i64;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = (value * 10 + i64::from(byte - b'0')).min(FAR);
    }
    Some(if is_negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_keeps_every_digit() {
        let cases = [
            ("0", 0),
            ("-0", 0),
            ("1", 100),
            ("+1.5", 150),
            ("-1.25", -125),
            ("1.2500000", 125),
            ("001.25", 125),
            (".5", 50),
            ("5.", 500),
            ("1e3", 100_000),
            ("1E+3", 100_000),
            ("125e-2", 125),
            ("12500e-4", 125),
            ("0.00000125e6", 125),
            ("99999999.99", 9_999_999_999),
            ("-99999999.99", -9_999_999_999),
            ("0e99999999999999999999", 0),
            ("0.000000000", 0),
            ("10000000", 1_000_000_000),
        ];
        for (text, value) in cases {
            assert_eq!(parse_decimal(text.as_bytes(), 10, 2), Some(value), "{text}");
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for text in [
            "",
            "+",
            "-",
            ".",
            "e3",
            "1e",
            "1e+",
            "1e1.5",
            "1.2.3",
            " 1",
            "1 ",
            "1,5",
            "1_0",
            "0x1",
            "inf",
            "nan",
            "--1",
            "1.255",
            "0.001",
            "100000000",
            "1e8",
            "99999999.999",
            "1e99999999999999999999",
            "1e-99999999999999999999",
            "1e-3",
            "0e",
            "0x",
        ] {
            assert_eq!(parse_decimal(text.as_bytes(), 10, 2), None, "{text}");
        }
    }

    #[test]
    fn the_widest_decimals() {
        let nines = "9".repeat(38);
        let most = nines.parse().ok();
        assert_eq!(parse_decimal(nines.as_bytes(), 38, 0), most);
        assert_eq!(parse_decimal(format!("0.{nines}").as_bytes(), 38, 38), most);
        assert_eq!(
            parse_decimal(format!("{nines}e-38").as_bytes(), 38, 38),
            most
        );
        assert_eq!(parse_decimal(format!("{nines}0").as_bytes(), 38, 0), None);
        assert_eq!(parse_decimal(b"1", 38, 38), None);
        let one = format!("{}1", "0".repeat(1000));
        assert_eq!(parse_decimal(one.as_bytes(), 1, 0), Some(1));
        let zeros = format!("1{}e-1000", "0".repeat(1000));
        assert_eq!(parse_decimal(zeros.as_bytes(), 1, 0), Some(1));
    }
}
