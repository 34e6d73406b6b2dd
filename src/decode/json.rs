//! Values of JSON, read no further than a dtype asks for.
//!
//! A [`Json`] is the text of one value that is known to be well-formed. What is in
//! it is looked at only when asked for, so numbers keep their digits, and a deep
//! nest goes no deeper than the dtype.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The text of one value, without blanks around it.
#[derive(Debug, Clone, Copy)]
pub struct Json<'a>(&'a str);

impl<'a> Json<'a> {
    /// The one value that a text holds, blanks around it allowed.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let raw: &RawValue = serde_json::from_slice(text).ok()?;
        Some(Self(raw.get()))
    }

    /// All of it.
    pub fn text(self) -> &'a str {
        self.0
    }

    pub fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// `true` or `false`, if it is one.
    pub fn boolean(self) -> Option<&'a str> {
        matches!(self.0, "true" | "false").then_some(self.0)
    }

    /// The digits of a number.
    pub fn number(self) -> Option<&'a str> {
        self.0
            .starts_with(|first: char| first == '-' || first.is_ascii_digit())
            .then_some(self.0)
    }

    /// What a string says.
    pub fn string(self) -> Option<Cow<'a, str>> {
        let inner = self.0.strip_prefix('"')?.strip_suffix('"')?;
        if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
            return Some(Cow::Borrowed(inner));
        }
        // Half of a surrogate pair may stand there.
        serde_json::from_str(self.0).ok().map(Cow::Owned)
    }

    /// The bytes that a list of their numbers is.
    pub fn bytes(self) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let is_bytes = self.elements(|element| {
            let byte: Option<u8> = element.number().and_then(|number| number.parse().ok());
            bytes.extend(byte);
            byte.is_some()
        });
        is_bytes.then_some(bytes)
    }

    pub fn is_list(self) -> bool {
        self.0.starts_with('[')
    }

    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    /// Gives each element of a list, as long as they are taken. Whether it is a
    /// list, and all were.
    pub fn elements(self, take: impl FnMut(Json<'a>) -> bool) -> bool {
        let mut json = serde_json::Deserializer::from_str(self.0);
        self.is_list() && json.deserialize_seq(Elements(take)).is_ok()
    }

    /// Gives each key with its value of the object that is the one value of a text,
    /// as long as they are taken. Whether there is one, and all were. What was given
    /// before it turns out that there is none counts for nothing.
    pub fn members_of(text: &'a [u8], take: impl FnMut(Cow<'a, str>, Json<'a>) -> bool) -> bool {
        let mut json = serde_json::Deserializer::from_slice(text);
        json.deserialize_map(Members(take)).is_ok() && json.end().is_ok()
    }

    /// Gives each key of an object with its value, as long as they are taken.
    /// Whether it is an object, and all were.
    pub fn members(self, take: impl FnMut(Cow<'a, str>, Json<'a>) -> bool) -> bool {
        let mut json = serde_json::Deserializer::from_str(self.0);
        self.is_object() && json.deserialize_map(Members(take)).is_ok()
    }
}

struct Elements<F>(F);

impl<'de, F: FnMut(Json<'de>) -> bool> Visitor<'de> for Elements<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element::<&RawValue>()? {
            if !(self.0)(Json(element.get())) {
                return Err(A::Error::custom("not taken"));
            }
        }
        Ok(())
    }
}

struct Members<F>(F);

impl<'de, F: FnMut(Cow<'de, str>, Json<'de>) -> bool> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<(), A::Error> {
        while let Some((Key(key), value)) = object.next_entry::<Key<'de>, &RawValue>()? {
            if !(self.0)(key, Json(value.get())) {
                return Err(A::Error::custom("not taken"));
            }
        }
        Ok(())
    }
}

/// A key, copied only where it is written with escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(key: D) -> Result<Self, D::Error> {
        key.deserialize_str(KeyVisitor).map(Self)
    }
}

struct KeyVisitor;

impl<'de> Visitor<'de> for KeyVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_value_is_taken() {
        for text in [
            "1",
            " [1, 2]\n",
            "{\"a\": {}}",
            "null",
            "\"\"",
            "-0.5e+3",
            "\ttrue",
        ] {
            assert!(Json::parse(text.as_bytes()).is_some(), "{text:?}");
        }
        for text in [
            "",
            " ",
            "1 2",
            "[1,]",
            "[1",
            "]",
            "{'a': 1}",
            "{a: 1}",
            "{\"a\"}",
            "01",
            "+1",
            "1.",
            ".5",
            "NaN",
            "Infinity",
            "nul",
            "True",
            "\"a",
            "\"\n\"",
            "\"\\x\"",
            "[1]x",
            "[] []",
            "\u{feff}[]",
            "// \n1",
        ] {
            assert!(Json::parse(text.as_bytes()).is_none(), "{text:?}");
        }
        assert!(Json::parse(b"\"\xff\"").is_none());
    }

    #[test]
    fn strings_are_unescaped() {
        let said = |text: &'static str| Json::parse(text.as_bytes()).and_then(Json::string);
        assert_eq!(said(r#""plain""#).as_deref(), Some("plain"));
        assert_eq!(said(r#""""#).as_deref(), Some(""));
        assert_eq!(said(r#""\ud83e\udd80\n\"""#).as_deref(), Some("🦀\n\""));
        assert_eq!(said(r#""\ud83e""#), None);
        assert_eq!(said("1"), None);
    }

    #[test]
    fn bytes_are_lists_of_numbers() {
        let bytes = |text: &'static str| Json::parse(text.as_bytes()).and_then(Json::bytes);
        assert_eq!(bytes("[]"), Some(vec![]));
        assert_eq!(bytes("[0, 255]"), Some(vec![0, 255]));
        for text in ["[256]", "[-1]", "[1.0]", "[null]", "[\"1\"]", "1", "{}"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn a_deep_nest_does_no_harm() {
        let deep = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        let json = Json::parse(deep.as_bytes()).unwrap();
        assert!(json.elements(|inner| inner.is_list()));
    }

    #[test]
    fn members_come_in_order_and_as_often_as_they_stand_there() {
        let json = Json::parse(br#"{"b": 1, "\u0061": [2], "b": null}"#).unwrap();
        let mut members = Vec::new();
        assert!(json.members(|key, value| {
            members.push(format!("{key}={}", value.0));
            true
        }));
        assert_eq!(members, ["b=1", "a=[2]", "b=null"]);
        assert!(!json.members(|_, _| false));
        for (text, is_object) in [
            ("{\"a\": 1} ", true),
            ("{\"a\": 1} 2", false),
            ("[]", false),
        ] {
            assert_eq!(Json::members_of(text.as_bytes(), |_, _| true), is_object);
        }
        assert!(!json.elements(|_| true));
    }
}
