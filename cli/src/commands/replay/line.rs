//! A record as one line of JSON. Pure.
//!
//! Everything that a record holds is in its line, in the same members for every record. Must
//! never lose a byte: what is no text or cannot be decoded stands there as base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ryggrad_schemas::{avro, json_text, json_write};

use crate::client::rfc3339;

/// A record, lent.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Partition number.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
    /// Milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key.
    pub key: Option<&'a [u8]>,
    /// Value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Headers, in order.
    pub headers: &'a [(&'a str, Option<&'a [u8]>)],
}

/// Writes the lines of a topic. Remembers what neighbours have in common.
#[derive(Debug, Default)]
pub struct Lines {
    /// How the lines of a partition begin.
    head: (i32, Vec<u8>),
    /// A batch of records shares one time of appending.
    time: Option<(i64, String)>,
}

impl Lines {
    /// Appends the record and a line feed; whether its value could be decoded.
    pub fn write(&mut self, record: &View<'_>, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(self.head(record.topic, record.partition));
        // Writing to memory can't fail.
        let _ = serde_json::to_writer(&mut *out, &record.offset);
        out.extend_from_slice(b",\"timestamp\":\"");
        out.extend_from_slice(self.time(record.timestamp_ms).as_bytes());
        out.extend_from_slice(b"\",\"key\":");
        bytes(record.key, out);
        out.extend_from_slice(b",\"headers\":");
        headers(record.headers, out);
        out.extend_from_slice(b",\"value\":");
        let is_decoded = value(record.value, out);
        out.extend_from_slice(b"}\n");
        is_decoded
    }

    fn head(&mut self, topic: &str, partition: i32) -> &[u8] {
        if self.head.1.is_empty() || self.head.0 != partition {
            let mut head = b"{\"topic\":".to_vec();
            text(topic, &mut head);
            head.extend_from_slice(format!(",\"partition\":{partition},\"offset\":").as_bytes());
            self.head = (partition, head);
        }
        &self.head.1
    }

    fn time(&mut self, at_ms: i64) -> &str {
        match &mut self.time {
            Some((known_ms, _)) if *known_ms == at_ms => {}
            time => *time = Some((at_ms, rfc3339(at_ms))),
        }
        self.time.as_ref().map_or("", |(_, text)| text)
    }
}

/// The value, and behind it the member `error` if it could not be decoded.
fn value(value: Option<&[u8]>, out: &mut Vec<u8>) -> bool {
    let Some(value) = value else {
        out.extend_from_slice(b"null");
        return true;
    };
    let before = out.len();
    let Err(reason) = decoded(value, out) else { return true };
    out.truncate(before);
    base64(value, out);
    out.extend_from_slice(b",\"error\":");
    text(&reason, out);
    false
}

/// Framed Avro as JSON; JSON as it is, on one line.
fn decoded(value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    if value.first() == Some(&0) {
        return avro::write_json(value, out).map_err(|error| chain(&error));
    }
    let neither = "the value is neither framed Avro nor JSON";
    let json = std::str::from_utf8(value).map_err(|_| neither)?;
    if json_text::check(json).is_err() {
        return Err(neither.to_owned());
    }
    if json.bytes().any(|byte| matches!(byte, b'\n' | b'\r')) {
        // Between values only: within a text they would be no JSON.
        out.extend(json.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    } else {
        out.extend_from_slice(value);
    }
    Ok(())
}

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

/// An object. Of a name that stands there several times, an array of its values.
fn headers(headers: &[(&str, Option<&[u8]>)], out: &mut Vec<u8>) {
    out.push(b'{');
    let mut is_first = true;
    let has_twins = headers.iter().enumerate().any(|(index, (name, _))| headers[..index].iter().any(|(other, _)| other == name));
    for (index, (name, value)) in headers.iter().enumerate() {
        let same = |other: &&(&str, Option<&[u8]>)| other.0 == *name;
        if has_twins && headers[..index].iter().any(|other| same(&other)) {
            continue;
        }
        if !std::mem::replace(&mut is_first, false) {
            out.push(b',');
        }
        text(name, out);
        out.push(b':');
        let rest = &headers[index + 1..];
        if !has_twins || !rest.iter().any(|other| same(&other)) {
            bytes(*value, out);
            continue;
        }
        out.push(b'[');
        bytes(*value, out);
        for (_, value) in rest.iter().filter(same) {
            out.push(b',');
            bytes(*value, out);
        }
        out.push(b']');
    }
    out.push(b'}');
}

fn bytes(bytes: Option<&[u8]>, out: &mut Vec<u8>) {
    let Some(bytes) = bytes else { return out.extend_from_slice(b"null") };
    if json_write::text(bytes, out).is_none() {
        base64(bytes, out);
    }
}

fn base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"base64\":\"");
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    out.extend_from_slice(b"\"}");
}

fn text(text: &str, out: &mut Vec<u8>) {
    // A text is one, and so is written.
    let _ = json_write::text(text.as_bytes(), out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn line(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> (Value, bool) {
        let view = View { topic: "t", partition: 2, offset: 17, timestamp_ms: 1_500, key, value, headers };
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        let is_decoded = lines.write(&view, &mut out);
        assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
        let written: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&written["topic"], &written["partition"], &written["offset"]), (&json!("t"), &json!(2), &json!(17)));
        assert_eq!(written["timestamp"], "1970-01-01T00:00:01.500Z");
        (written, is_decoded)
    }

    #[test]
    fn keys_and_headers_are_texts_or_base64() {
        let (written, _) = line(Some("å\"\n".as_bytes()), None, &[("a", Some(b"1")), ("b", None), ("c", Some(b"\xff")), ("a", Some(b"2"))]);
        assert_eq!(written["key"], "å\"\n");
        assert_eq!(written["headers"], json!({"a": ["1", "2"], "b": null, "c": {"base64": "/w=="}}));
        assert_eq!((&line(None, None, &[]).0["key"], &line(Some(b"\xff"), None, &[]).0["key"]), (&Value::Null, &json!({"base64": "/w=="})));
    }

    #[test]
    fn values_are_json_or_kept_as_they_are() {
        for (value, expected, is_decoded) in [
            (None, Value::Null, true),
            (Some(&b"{\"a\":\n[1,\r\n2]}"[..]), json!({"a": [1, 2]}), true),
            (Some(b"\x00\xff\xff\xff\xffx"), json!({"base64": "AP////94"}), false),
            (Some(b"plain"), json!({"base64": "cGxhaW4="}), false),
            (Some(b""), json!({"base64": ""}), false),
        ] {
            let (written, found) = line(None, value, &[]);
            assert_eq!((&written["value"], found, written.get("error").is_none()), (&expected, is_decoded, is_decoded), "{value:?}");
        }
    }

    #[test]
    fn neighbours_do_not_share_a_time_that_they_do_not_have() {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for timestamp_ms in [0, 0, 1] {
            let view = View { topic: "t", partition: 0, offset: 0, timestamp_ms, key: None, value: None, headers: &[] };
            lines.write(&view, &mut out);
        }
        let text = String::from_utf8(out).unwrap();
        assert_eq!((text.matches("00.000Z").count(), text.matches("00.001Z").count()), (2, 1));
    }
}
