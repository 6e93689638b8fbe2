//! `{"key":…,"value":…}`, where each is a string or, if it is not UTF-8, `{"base64":"…"}`; and of what expires
//! also `"expires_at_ms":…`, milliseconds since 1970.
//!
//! An object rather than a marked string, so that no string means anything but itself.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::Decoded;

pub(super) fn encode(key: &[u8], value: &[u8], expires_at_ms: Option<u64>, line: &mut Vec<u8>) {
    let record = JsonLine { key: JsonText(key), value: JsonText(value), expires_at_ms };
    serde_json::to_writer(line, &record).expect("a Vec takes every write");
}

pub(super) fn encode_key(key: &[u8], line: &mut Vec<u8>) {
    let record = KeyOnly { key: JsonText(key) };
    serde_json::to_writer(line, &record).expect("a Vec takes every write");
}

pub(super) fn decode(line: &[u8]) -> Result<Decoded, String> {
    let record: DecodedRecord = serde_json::from_slice(line).map_err(|error| describe(&error))?;
    let DecodedRecord { key, value, expires_at_ms } = record;
    Ok(Decoded { key: key.0, value: value.0, expires_at_ms })
}

#[derive(serde::Serialize)]
pub(in crate::cli) struct JsonRecord<'a, V> {
    pub(in crate::cli) key: JsonText<'a>,
    pub(in crate::cli) value: V,
}

#[derive(serde::Serialize)]
struct JsonLine<'a> {
    key: JsonText<'a>,
    value: JsonText<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<u64>,
}

#[derive(serde::Serialize)]
struct KeyOnly<'a> {
    key: JsonText<'a>,
}

/// Bytes on their way out.
pub(in crate::cli) struct JsonText<'a>(pub(in crate::cli) &'a [u8]);

impl Serialize for JsonText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &STANDARD.encode(self.0))?;
        map.end()
    }
}

/// A field that is not known is refused rather than lost.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct DecodedRecord {
    key: DecodedText,
    value: DecodedText,
    #[serde(default)]
    expires_at_ms: Option<u64>,
}

struct DecodedText(Vec<u8>);

impl<'de> Deserialize<'de> for DecodedText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DecodedText, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = DecodedText;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or {\"base64\":\"…\"}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<DecodedText, E> {
        Ok(DecodedText(text.as_bytes().to_vec()))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<DecodedText, E> {
        Ok(DecodedText(text.into_bytes()))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<DecodedText, A::Error> {
        let Some((name, encoded)) = map.next_entry::<Cow<'_, str>, Cow<'_, str>>()? else {
            return Err(de::Error::custom("the object has no field base64"));
        };
        if name != "base64" {
            return Err(de::Error::unknown_field(&name, &["base64"]));
        }
        if map.next_key::<Cow<'_, str>>()?.is_some() {
            return Err(de::Error::custom("the object has more fields than base64"));
        }
        STANDARD.decode(encoded.as_bytes()).map(DecodedText).map_err(de::Error::custom)
    }
}

/// The parser saw one line and calls it line 1; which one it was, the caller knows.
fn describe(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line 1 column").next().unwrap_or(&text);
    format!("no JSON record at column {}: {what}", error.column())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> String {
        let mut line = Vec::new();
        encode(key, value, expires_at_ms, &mut line);
        let decoded = Decoded { key: key.to_vec(), value: value.to_vec(), expires_at_ms };
        assert_eq!(decode(&line), Ok(decoded));
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn text_is_a_string_and_other_bytes_are_base64() {
        assert_eq!(round_trip(b"a\n\"", "ä".as_bytes(), None), r#"{"key":"a\n\"","value":"ä"}"#);
        assert_eq!(round_trip(b"k", b"\xff\0", None), r#"{"key":"k","value":{"base64":"/wA="}}"#);
        let line = r#"{"key":"k","value":"v","expires_at_ms":1700000000000}"#;
        assert_eq!(round_trip(b"k", b"v", Some(1_700_000_000_000)), line);
        round_trip(&(0..=255).collect::<Vec<u8>>(), &(0..128).collect::<Vec<u8>>(), Some(u64::MAX));
    }

    #[test]
    fn a_line_that_is_no_record_is_refused() {
        for line in [
            "",
            "{}",
            r#"{"key":"a"}"#,
            r#"{"key":"a","value":1}"#,
            r#"{"key":"a","value":"b","ttl":3}"#,
            r#"{"key":"a","value":"b","expires_at_ms":-1}"#,
            r#"{"key":"a","value":"b","expires_at_ms":1.5}"#,
            r#"{"key":"a","value":{}}"#,
            r#"{"key":"a","value":{"base65":"AA=="}}"#,
            r#"{"key":"a","value":{"base64":"A"}}"#,
            r#"{"key":"a","value":{"base64":"AA==","more":""}}"#,
            r#"{"key":"a","value":"b"} {}"#,
        ] {
            assert!(decode(line.as_bytes()).is_err(), "{line}");
        }
    }
}
