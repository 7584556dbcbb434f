//! An owner's own headers as they are kept and changed; which ones are free is in [`crate::headers`].
//!
//! Values may be credentials: they never print, never stand in a fault, and are shown to nobody.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::headers::{HEADERS_MAX, HeaderFault, check_header};
use crate::subscription::Fault;

/// Most bytes of all names and values.
pub const HEADERS_BYTES_MAX: usize = 4_096;

/// The headers of one subscription: names in lower case, and what they say.
#[derive(Clone, Default)]
pub struct OwnHeaders(BTreeMap<String, SecretString>);

impl OwnHeaders {
    /// Their names.
    pub fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    /// Names and values, to be sent. Handle with care.
    pub fn reveal(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.expose_secret()))
    }

    /// As text, to be sealed. Handle with care.
    pub fn to_text(&self) -> String {
        Value::Object(self.reveal().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()).to_string()
    }

    /// From that text.
    pub fn from_text(text: &str) -> Option<Self> {
        let pairs: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
        Some(Self(pairs.into_iter().map(|(name, value)| (name, value.into())).collect()))
    }

    /// These headers after a change, if they are not too many then.
    pub fn changed(mut self, change: HeadersChange) -> Result<Self, Fault> {
        match change {
            HeadersChange::Clear => return Ok(Self::default()),
            HeadersChange::Merge(changes) => {
                for (name, value) in changes {
                    match value {
                        Some(value) => self.0.insert(name, value),
                        None => self.0.remove(&name),
                    };
                }
            }
        }
        let bytes: usize = self.reveal().map(|(name, value)| name.len() + value.len()).sum();
        if self.0.len() > HEADERS_MAX {
            return Err(Fault::new("/headers", format!("would be more than {HEADERS_MAX}: take some away with null")));
        }
        if bytes > HEADERS_BYTES_MAX {
            return Err(Fault::new("/headers", format!("would be more than {HEADERS_BYTES_MAX} bytes in all")));
        }
        Ok(self)
    }
}

impl fmt::Debug for OwnHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// What a request says about headers, by the rules of a merge patch.
#[derive(Debug, Clone)]
pub enum HeadersChange {
    /// None any more.
    Clear,
    /// These are set, or taken away.
    Merge(BTreeMap<String, Option<SecretString>>),
}

impl HeadersChange {
    /// Reads the member. A fault never quotes a value.
    pub fn parse(value: &Value, faults: &mut Vec<Fault>) -> Option<Self> {
        let members = match value {
            Value::Null => return Some(Self::Clear),
            Value::Object(members) => members,
            _ => {
                faults.push(Fault::new("/headers", "is an object of header names and their values"));
                return None;
            }
        };
        let mut changes = BTreeMap::new();
        for (given, value) in members {
            // Nothing is wrong with the value of a header that is taken away.
            let text = if value.is_null() { Some("-") } else { value.as_str() };
            let checked = text.map_or(Err(HeaderFault::Value), |text| check_header(given, text));
            let value = value.as_str().map(SecretString::from);
            let twice = changes.insert(given.to_ascii_lowercase(), value).is_some();
            let wrong = checked.err().or(twice.then_some(HeaderFault::Twice));
            faults.extend(wrong.map(|wrong| Fault::at("/headers", given, wrong.to_string())));
        }
        Some(Self::Merge(changes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn change(body: Value) -> Result<HeadersChange, Vec<String>> {
        let mut faults = Vec::new();
        let change = HeadersChange::parse(&body, &mut faults);
        match change {
            Some(change) if faults.is_empty() => Ok(change),
            _ => Err(faults.into_iter().map(|fault| fault.pointer).collect()),
        }
    }

    fn headers(body: Value) -> OwnHeaders {
        OwnHeaders::default().changed(change(body).unwrap()).unwrap()
    }

    #[test]
    fn headers_merge_and_never_print() {
        let before = headers(json!({"Authorization": "Bearer hemmelig", "x-b": "2"}));
        assert_eq!(before.names(), ["authorization", "x-b"]);
        assert!(!format!("{before:?}").contains("hemmelig"), "{before:?}");
        assert_eq!(OwnHeaders::from_text(&before.to_text()).unwrap().to_text(), before.to_text());
        let after = before.clone().changed(change(json!({"X-B": null, "x-c": "3 4"})).unwrap()).unwrap();
        assert_eq!(after.reveal().collect::<Vec<_>>(), [("authorization", "Bearer hemmelig"), ("x-c", "3 4")]);
        assert!(after.changed(change(json!(null)).unwrap()).unwrap().names().is_empty());
    }

    #[test]
    fn every_wrong_header_is_named_at_once_without_its_value() {
        for (body, expected) in [
            (json!("x: y"), vec!["/headers"]),
            (json!({"": "a", "a b": "a", "ok": "a", "Host": "a"}), vec!["/headers/", "/headers/Host", "/headers/a b"]),
            (
                json!({"a": "b\r\nwebhook-id: x", "b": " x", "c": "", "d": 7, "e": "å"}),
                vec!["/headers/a", "/headers/b", "/headers/c", "/headers/d", "/headers/e"],
            ),
            (json!({"a/b": "x", "A": "1", "a": "2"}), vec!["/headers/a", "/headers/a~1b"]),
        ] {
            let mut found = change(body.clone()).unwrap_err();
            found.sort();
            assert_eq!(found, expected, "{body}");
        }
        let many = |count: usize, bytes: usize| {
            Value::Object((0..count).map(|index| (format!("x-{index}"), Value::from("v".repeat(bytes)))).collect())
        };
        assert_eq!(headers(many(16, 1)).names().len(), 16);
        for body in [many(17, 1), many(2, 2_048)] {
            assert_eq!(OwnHeaders::default().changed(change(body).unwrap()).unwrap_err().pointer, "/headers");
        }
    }
}
