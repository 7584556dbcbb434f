//! JSON text taken apart member by member, without building values.
//!
//! Documents come by the million and are mostly looked through once. Every part that is handed
//! out is itself JSON without white space around it. Must never hand out a part of what is no
//! JSON without saying so in the end.

use std::borrow::Cow;

use serde::de::{Error as _, IgnoredAny};
use serde_json::Error;

use crate::json_scan::Scan;

/// How deep a document may be nested: what is taken apart by recursion must not exhaust the stack.
pub const DEPTH_MAX: usize = 127;

const WHITE_SPACE: [char; 4] = [' ', '\t', '\n', '\r'];

/// What kind of value a JSON text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    Text,
    /// A digit or a minus.
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

/// The kind of a text that is known to be JSON.
pub fn kind(json: &str) -> Kind {
    match json.as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::Text,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// Bytes as text, with the error that they would have as JSON.
pub fn from_utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(Error::custom)
}

/// Whether a text is JSON at all.
pub fn check(text: &str) -> Result<(), Error> {
    serde_json::from_str::<IgnoredAny>(text).map(|_| ())
}

/// A whole text without the white space around it. What is neither object nor array is checked
/// here; those are checked when they are taken apart.
pub fn whole(text: &str) -> Result<&str, Error> {
    let json = text.trim_matches(WHITE_SPACE);
    if !json.starts_with(['{', '[']) {
        check(json)?;
    }
    Ok(json)
}

/// Hands out the members of an object, in their order: name and JSON.
pub fn members<'t>(object: &'t str, mut each: impl FnMut(&str, &'t str) -> Result<(), Error>) -> Result<(), Error> {
    let mut scan = Scan::new(object);
    let mut is_more = scan.open(b'{', b'}').ok_or_else(|| fault(object))?;
    while is_more {
        let (name, has_escapes) = scan.name().ok_or_else(|| fault(object))?;
        let value = scan.value().ok_or_else(|| fault(object))?;
        match name.get(1..name.len() - 1) {
            Some(plain) if !has_escapes => each(plain, value)?,
            _ => each(&text(name)?, value)?,
        }
        is_more = scan.next(b'}').ok_or_else(|| fault(object))?;
    }
    if scan.is_at_end() { Ok(()) } else { Err(fault(object)) }
}

/// Hands out the items of an array, in their order: index and JSON.
pub fn items<'t>(array: &'t str, mut each: impl FnMut(usize, &'t str) -> Result<(), Error>) -> Result<(), Error> {
    let mut scan = Scan::new(array);
    let mut is_more = scan.open(b'[', b']').ok_or_else(|| fault(array))?;
    let mut index = 0;
    while is_more {
        each(index, scan.value().ok_or_else(|| fault(array))?)?;
        index += 1;
        is_more = scan.next(b']').ok_or_else(|| fault(array))?;
    }
    if scan.is_at_end() { Ok(()) } else { Err(fault(array)) }
}

/// What is wrong with a text.
#[cold]
fn fault(text: &str) -> Error {
    check(text).err().unwrap_or_else(|| Error::custom("JSON of another kind than expected"))
}

/// What a JSON string says.
pub fn text(string: &str) -> Result<Cow<'_, str>, Error> {
    match string.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(plain) if !plain.as_bytes().contains(&b'\\') => Ok(Cow::Borrowed(plain)),
        _ => serde_json::from_str(string).map(Cow::Owned),
    }
}

/// JSON without white space, with sorted members and the fewest escapes: the same text for the
/// same content. Numbers keep their digits.
pub fn normal(json: &str) -> Result<String, Error> {
    let mut out = String::with_capacity(json.len());
    write_normal(json, &mut out, 0)?;
    Ok(out)
}

fn write_normal(json: &str, out: &mut String, depth: usize) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::custom("nested too deeply"));
    }
    match kind(json) {
        Kind::Object => {
            let mut found: Vec<(String, &str)> = Vec::new();
            members(json, |name, value| {
                found.push((name.to_owned(), value));
                Ok(())
            })?;
            // Stable: of a member that stands twice, the last one counts.
            found.sort_by(|one, other| one.0.cmp(&other.0));
            let lasts = found.iter().enumerate().filter(|(index, (name, _))| found.get(index + 1).is_none_or(|(next, _)| next != name));
            out.push('{');
            for (count, (_, (name, value))) in lasts.enumerate() {
                if count > 0 {
                    out.push(',');
                }
                write_text(name, out)?;
                out.push(':');
                write_normal(value, out, depth + 1)?;
            }
            out.push('}');
        }
        Kind::Array => {
            out.push('[');
            items(json, |index, value| {
                if index > 0 {
                    out.push(',');
                }
                write_normal(value, out, depth + 1)
            })?;
            out.push(']');
        }
        Kind::Text if json.contains('\\') => write_text(&text(json)?, out)?,
        _ => out.push_str(json),
    }
    Ok(())
}

fn write_text(text: &str, out: &mut String) -> Result<(), Error> {
    if text.bytes().any(|byte| byte < 0x20 || matches!(byte, b'"' | b'\\')) {
        out.push_str(&serde_json::to_string(text)?);
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_items_come_in_order_as_they_are_written() {
        let mut found = Vec::new();
        let object = r#"{ "a" : 1.0 ,"b\u0041":[ 1, {} ],"a":null}"#;
        members(object, |name, value| {
            found.push((name.to_owned(), value));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [("a".to_owned(), "1.0"), ("bA".to_owned(), "[ 1, {} ]"), ("a".to_owned(), "null")]);
        let mut found = Vec::new();
        items(r#"[ "x", [2 ] ]"#, |index, value| {
            found.push((index, value));
            Ok(())
        })
        .unwrap();
        assert_eq!(found, [(0, "\"x\""), (1, "[2 ]")]);
    }

    #[test]
    fn what_is_no_json_is_told() {
        for bad in [r#"{"a":1"#, r#"{"a":1}x"#, r#"{"a":01}"#, "[]", r#"{"a":"\x"}"#, "{\"a\":\"\u{1}\"}", ""] {
            assert!(members(bad, |_, _| Ok(())).is_err(), "{bad}");
        }
        for bad in ["[1", "[1]]", "[1,]", "{}"] {
            assert!(items(bad, |_, _| Ok(())).is_err(), "{bad}");
        }
        for bad in ["", "x", "01", "\"", "1 2"] {
            assert!(whole(bad).is_err(), "{bad}");
        }
        assert!(from_utf8(b"\"\xff\"").is_err() && text(r#""\ud800""#).is_err());
    }

    #[test]
    fn the_normal_text_is_that_of_the_parsed_value() {
        for json in [
            "{}",
            "[ ]",
            " 1.50e+7".trim(),
            r#""a\u0022\\\n\u00e5\/é""#,
            r#"{ "b" : [ 1, {"z":null , "a\"":"x\ty"} ], "a" : {}, "b" : true, "å\u0001":"\u0001" }"#,
        ] {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            assert_eq!(normal(json).unwrap(), value.to_string(), "{json}");
        }
        let deep = format!("{}{}", "[".repeat(1_000), "]".repeat(1_000));
        assert!(normal(&deep).is_err() && normal(r#"["\ud800"]"#).is_err() && normal("[1").is_err());
    }

    #[test]
    fn texts_are_unescaped_and_kinds_are_known() {
        assert_eq!(text(r#""a\"\u00e5\\""#).unwrap(), "a\"å\\");
        assert!(matches!(text(r#""plain å""#), Ok(Cow::Borrowed("plain å"))));
        let kinds = ["{}", "[]", "\"\"", "-1", "7", "true", "false", "null"].map(kind);
        assert_eq!(kinds, [Kind::Object, Kind::Array, Kind::Text, Kind::Number, Kind::Number, Kind::Bool, Kind::Bool, Kind::Null]);
        assert_eq!(whole(" \n{\"a\": 1}\t").unwrap(), "{\"a\": 1}");
    }
}
