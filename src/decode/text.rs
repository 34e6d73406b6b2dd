//! Values from their text: which texts a dtype takes, and nothing else.

/// Whether `text` is UTF-8. Most values are short and ASCII, so that is asked first.
#[inline]
pub fn is_utf8(text: &[u8]) -> bool {
    if text.len() <= 16 && load_short(text) & HIGH_BITS == 0 {
        return true;
    }
    text.is_ascii() || simdutf8::basic::from_utf8(text).is_ok()
}

const HIGH_BITS: u128 = 0x8080_8080_8080_8080_8080_8080_8080_8080;

/// Up to 16 bytes as a little-endian number, without a call to `memcpy`.
///
/// # Panics
/// If `text` is longer than 16 bytes.
#[inline(always)]
pub fn load_short(text: &[u8]) -> u128 {
    let len = text.len();
    assert!(len <= 16);
    // Two loads that overlap where the length is not a power of two; the bytes
    // they share are the same, so OR puts them together.
    if let (Some(head), Some(tail)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        let (head, tail) = (u64::from_le_bytes(*head), u64::from_le_bytes(*tail));
        return u128::from(head) | u128::from(tail) << ((len - 8) * 8);
    }
    if let (Some(head), Some(tail)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        let (head, tail) = (u32::from_le_bytes(*head), u32::from_le_bytes(*tail));
        return u128::from(head) | u128::from(tail) << ((len - 4) * 8);
    }
    let mut value = 0;
    for (at, &byte) in text.iter().enumerate() {
        value |= u128::from(byte) << (at * 8);
    }
    value
}

/// An integer dtype.
pub trait Integer: Sized {
    /// Parses decimal digits with an optional sign; `None` if the text is
    /// anything else, or out of range.
    fn parse(text: &[u8]) -> Option<Self>;
}

macro_rules! narrow_integer {
    ($($t:ty),*) => {$(
        impl Integer for $t {
            #[inline]
            fn parse(text: &[u8]) -> Option<Self> {
                let (negative, digits) = split_sign(text)?;
                let magnitude = i128::from(parse_u64(digits)?);
                Self::try_from(if negative { -magnitude } else { magnitude }).ok()
            }
        }
    )*};
}

narrow_integer!(i8, i16, i32, i64, u8, u16, u32, u64);

impl Integer for i128 {
    fn parse(text: &[u8]) -> Option<Self> {
        let (negative, digits) = split_sign(text)?;
        let magnitude = parse_u128(digits)?;
        if negative {
            return 0i128.checked_sub_unsigned(magnitude);
        }
        Self::try_from(magnitude).ok()
    }
}

impl Integer for u128 {
    fn parse(text: &[u8]) -> Option<Self> {
        let (negative, digits) = split_sign(text)?;
        let magnitude = parse_u128(digits)?;
        (!negative || magnitude == 0).then_some(magnitude)
    }
}

/// Whether it is digits with an optional sign, as many as there may be.
pub fn is_integer(text: &[u8]) -> bool {
    split_sign(text).is_some_and(|(_, digits)| digits.iter().all(u8::is_ascii_digit))
}

/// Whether there is a minus, and what follows the sign; nothing of nothing.
#[inline]
pub fn split_sign(text: &[u8]) -> Option<(bool, &[u8])> {
    match text {
        [] => None,
        [b'-', digits @ ..] => Some((true, digits)),
        [b'+', digits @ ..] => Some((false, digits)),
        digits => Some((false, digits)),
    }
}

#[inline]
fn parse_u64(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        // Too long to be sure that nothing overflows.
        return u64::try_from(parse_u128(digits)?).ok();
    }
    let mut value = 0u64;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

fn parse_u128(digits: &[u8]) -> Option<u128> {
    if digits.is_empty() {
        return None;
    }
    let mut value = 0u128;
    for &byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u128::from(digit))?;
    }
    Some(value)
}

/// A float dtype.
pub trait Float: Sized {
    /// Parses decimal or exponent notation, `inf`, `infinity` or `nan` (any
    /// case, optional sign). What is too large becomes infinite.
    fn parse(text: &[u8]) -> Option<Self>;
}

impl Float for f32 {
    #[inline]
    fn parse(text: &[u8]) -> Option<Self> {
        fast_float2::parse(text).ok()
    }
}

impl Float for f64 {
    #[inline]
    fn parse(text: &[u8]) -> Option<Self> {
        fast_float2::parse(text).ok()
    }
}

/// Parses `true`, `false` (any case), `1` or `0`.
#[inline]
pub fn parse_bool(text: &[u8]) -> Option<bool> {
    match text {
        b"1" => Some(true),
        b"0" => Some(false),
        _ if text.eq_ignore_ascii_case(b"true") => Some(true),
        _ if text.eq_ignore_ascii_case(b"false") => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_load_as_their_bytes() {
        let bytes: Vec<u8> = (1..=16).collect();
        for len in 0..=16 {
            let mut padded = [0; 16];
            padded[..len].copy_from_slice(&bytes[..len]);
            assert_eq!(
                load_short(&bytes[..len]),
                u128::from_le_bytes(padded),
                "{len}"
            );
        }
    }

    #[test]
    fn utf8_is_told_from_other_bytes_at_every_length() {
        for len in 0..100 {
            let mut text = vec![b'a'; len];
            assert!(is_utf8(&text));
            for at in 0..len {
                text[at] = 0xff;
                assert!(!is_utf8(&text), "{len} {at}");
                text[at] = b'a';
            }
            text.extend_from_slice("é€🦀".as_bytes());
            assert!(is_utf8(&text));
            text.pop();
            assert!(!is_utf8(&text));
        }
    }

    #[test]
    fn integers_take_their_range_and_no_more() {
        assert_eq!(i8::parse(b"127"), Some(127));
        assert_eq!(i8::parse(b"128"), None);
        assert_eq!(i8::parse(b"-128"), Some(-128));
        assert_eq!(i8::parse(b"-129"), None);
        assert_eq!(u8::parse(b"255"), Some(255));
        assert_eq!(u8::parse(b"256"), None);
        assert_eq!(u8::parse(b"-0"), Some(0));
        assert_eq!(u8::parse(b"-1"), None);
        assert_eq!(i64::parse(b"9223372036854775807"), Some(i64::MAX));
        assert_eq!(i64::parse(b"9223372036854775808"), None);
        assert_eq!(i64::parse(b"-9223372036854775808"), Some(i64::MIN));
        assert_eq!(i64::parse(b"-9223372036854775809"), None);
        assert_eq!(u64::parse(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(u64::parse(b"18446744073709551616"), None);
        assert_eq!(
            i128::parse(i128::MIN.to_string().as_bytes()),
            Some(i128::MIN)
        );
        assert_eq!(
            i128::parse(i128::MAX.to_string().as_bytes()),
            Some(i128::MAX)
        );
        assert_eq!(
            i128::parse(b"170141183460469231731687303715884105728"),
            None
        );
        assert_eq!(
            i128::parse(b"-170141183460469231731687303715884105729"),
            None
        );
        assert_eq!(
            u128::parse(u128::MAX.to_string().as_bytes()),
            Some(u128::MAX)
        );
        assert_eq!(
            u128::parse(b"340282366920938463463374607431768211456"),
            None
        );
        assert_eq!(u128::parse(b"-1"), None);
    }

    #[test]
    fn integers_take_a_sign_and_leading_zeros_and_nothing_else() {
        assert_eq!(i32::parse(b"+5"), Some(5));
        assert_eq!(i32::parse(b"000000000000000000000000000005"), Some(5));
        for text in [
            "", "+", "-", " 1", "1 ", "1.0", "1e3", "0x1", "1_000", "--1", "+-1", "١",
        ] {
            assert_eq!(i32::parse(text.as_bytes()), None, "{text:?}");
            assert_eq!(i128::parse(text.as_bytes()), None, "{text:?}");
            assert_eq!(u128::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn floats_take_decimals_exponents_infinities_and_nan() {
        let cases = [
            ("1", 1.0),
            ("-1.5", -1.5),
            ("+2.5", 2.5),
            (".5", 0.5),
            ("5.", 5.0),
            ("1e3", 1000.0),
            ("1E-3", 0.001),
            ("inf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("1e999", f64::INFINITY),
            ("1e-999", 0.0),
        ];
        for (text, value) in cases {
            assert_eq!(f64::parse(text.as_bytes()), Some(value), "{text:?}");
            assert_eq!(f32::parse(text.as_bytes()), Some(value as f32), "{text:?}");
        }
        assert!(f64::parse(b"NaN").is_some_and(f64::is_nan));
        assert_eq!(f32::parse(b"1e39"), Some(f32::INFINITY));
        for text in ["", " 1", "1 ", "1,5", "e5", "0x1p3", "1_0", "infinit", "."] {
            assert_eq!(f64::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn booleans_take_two_words_and_two_digits() {
        for text in ["true", "TRUE", "True", "tRuE", "1"] {
            assert_eq!(parse_bool(text.as_bytes()), Some(true), "{text:?}");
        }
        for text in ["false", "FALSE", "False", "0"] {
            assert_eq!(parse_bool(text.as_bytes()), Some(false), "{text:?}");
        }
        for text in ["", "yes", "no", "t", "2", "01", "true "] {
            assert_eq!(parse_bool(text.as_bytes()), None, "{text:?}");
        }
    }
}
