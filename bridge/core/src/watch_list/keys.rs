//! Keys as owners send them, checked: every fault is named by its place.
//!
//! Must never repeat what was sent: a fault says where and why, not what.

use std::collections::BTreeMap;

use ryggrad_schemas::identifiers::KeyDomain;
use serde_json::value::RawValue;

use crate::subscription::Fault;

/// Faults that are told of one request.
pub const FAULTS_MAX: usize = 100;

/// How a whole set is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A JSON array of texts.
    Json,
    /// A key on each line.
    Lines,
}

/// Keys to add and to take out, each in ascending order and once.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Change {
    /// To add.
    pub add: Vec<u64>,
    /// To take out.
    pub remove: Vec<u64>,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Change({} added, {} removed)", self.add.len(), self.remove.len())
    }
}

/// Checks a whole set; keys in ascending order, each once.
pub fn parse_set(body: &[u8], form: Form, domain: KeyDomain) -> Result<Vec<u64>, Vec<Fault>> {
    let mut faults = Faults::default();
    let keys = match form {
        Form::Json => match serde_json::from_slice::<&RawValue>(body) {
            Ok(list) => array(list, "", domain, &mut faults),
            Err(error) => return Err(vec![no_json(&error)]),
        },
        Form::Lines => {
            let text = std::str::from_utf8(body).map_err(|_| vec![Fault::new("", "the body is no UTF-8")])?;
            let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty());
            lines.filter_map(|(index, line)| key(line, || format!("/{index}"), domain, &mut faults)).collect()
        }
    };
    faults.none()?;
    Ok(once(keys))
}

/// Checks a change: `{"add": […], "remove": […]}`.
pub fn parse_change(body: &[u8], domain: KeyDomain) -> Result<Change, Vec<Fault>> {
    let mut faults = Faults::default();
    let members: BTreeMap<String, &RawValue> = match serde_json::from_slice(body) {
        Ok(members) => members,
        Err(error) if error.is_data() => return Err(vec![Fault::new("", "the body is a JSON object of add, remove")]),
        Err(error) => return Err(vec![no_json(&error)]),
    };
    let mut change = Change::default();
    for (name, list) in members {
        let (keys, pointer) = match name.as_str() {
            "add" => (&mut change.add, "/add"),
            "remove" => (&mut change.remove, "/remove"),
            _ => {
                faults.push("", "has members that are unknown; known are add, remove");
                continue;
            }
        };
        *keys = once(array(list, pointer, domain, &mut faults));
    }
    if change.add.iter().any(|key| change.remove.binary_search(key).is_ok()) {
        faults.push("/remove", "has keys that add has too");
    }
    faults.none()?;
    Ok(change)
}

/// Faults up to a limit, and a word on the others.
#[derive(Default)]
struct Faults {
    told: Vec<Fault>,
    untold: usize,
}

impl Faults {
    fn push(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        if self.told.len() < FAULTS_MAX {
            self.told.push(Fault::new(pointer, detail));
        } else {
            self.untold += 1;
        }
    }

    fn none(mut self) -> Result<(), Vec<Fault>> {
        if self.untold > 0 {
            self.told.push(Fault::new("", format!("has {} more faults", self.untold)));
        }
        if self.told.is_empty() { Ok(()) } else { Err(self.told) }
    }
}

fn no_json(error: &serde_json::Error) -> Fault {
    Fault::new("", format!("the body is no JSON: line {}, column {}", error.line(), error.column()))
}

fn array(list: &RawValue, pointer: &str, domain: KeyDomain, faults: &mut Faults) -> Vec<u64> {
    let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(list.get()) else {
        faults.push(pointer, "is a list of keys");
        return Vec::new();
    };
    let keys = items.iter().enumerate().filter_map(|(index, item)| {
        let here = || format!("{pointer}/{index}");
        match serde_json::from_str::<String>(item.get()) {
            Ok(text) => key(&text, here, domain, faults),
            Err(_) => {
                faults.push(here(), "is a text");
                None
            }
        }
    });
    keys.collect()
}

fn key(text: &str, pointer: impl FnOnce() -> String, domain: KeyDomain, faults: &mut Faults) -> Option<u64> {
    domain.number(text).map_err(|why| faults.push(pointer(), why.to_string())).ok()
}

fn once(mut keys: Vec<u64>) -> Vec<u64> {
    keys.sort_unstable();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: KeyDomain = KeyDomain::Organisasjonsnummer;

    fn told<T>(checked: Result<T, Vec<Fault>>) -> Vec<(String, String)> {
        checked.err().into_iter().flatten().map(|fault| (fault.pointer, fault.detail)).collect()
    }

    fn pointers<T>(checked: Result<T, Vec<Fault>>) -> Vec<String> {
        told(checked).into_iter().map(|(pointer, _)| pointer).collect()
    }

    #[test]
    fn a_set_is_taken_in_both_forms_sorted_and_once() {
        let expected = Ok(vec![212_345_679, 312_345_676]);
        assert_eq!(parse_set(br#"["312345676", "212345679", "3\u00312345676"]"#, Form::Json, DOMAIN), expected);
        assert_eq!(parse_set(b"312345676\r\n\n 212345679\n312345676", Form::Lines, DOMAIN), expected);
        assert_eq!(parse_set(b"[]", Form::Json, DOMAIN), Ok(Vec::new()));
        assert_eq!(parse_set(b"", Form::Lines, DOMAIN), Ok(Vec::new()));
    }

    #[test]
    fn faults_say_where_and_never_what() {
        for (body, form, expected) in [
            (&br#"["312345677", "212345679", 312345676, null, "3123456"]"#[..], Form::Json, vec!["/0", "/2", "/3", "/4"]),
            (br#"{"312345676": 1}"#, Form::Json, vec![""]),
            (br#"["312345676""#, Form::Json, vec![""]),
            (b"312345676\n312345677\n\n,", Form::Lines, vec!["/1", "/3"]),
            (b"\xff", Form::Lines, vec![""]),
        ] {
            let found = told(parse_set(body, form, DOMAIN));
            assert_eq!(found.iter().map(|(pointer, _)| pointer.as_str()).collect::<Vec<_>>(), expected);
            assert!(found.iter().all(|(_, detail)| !detail.contains("3123456")), "{found:?}");
        }
        let many = format!("[{}]", vec!["\"1\""; 150].join(","));
        let found = told(parse_set(many.as_bytes(), Form::Json, DOMAIN));
        assert_eq!((found.len(), found[100].1.as_str()), (101, "has 50 more faults"));
    }

    #[test]
    fn a_change_adds_and_removes_and_not_the_same() {
        let change = parse_change(br#"{"add": ["312345676"], "remove": ["212345679"]}"#, DOMAIN);
        assert!(change == Ok(Change { add: vec![312_345_676], remove: vec![212_345_679] }));
        assert!(parse_change(b"{}", DOMAIN) == Ok(Change::default()));
        for (body, expected) in [
            (&br#"{"add": ["312345676"], "remove": ["312345676"]}"#[..], vec!["/remove"]),
            (br#"{"add": "312345676", "remove": [1], "312345676": []}"#, vec!["", "/add", "/remove/0"]),
            (b"[]", vec![""]),
            (b"{", vec![""]),
        ] {
            let mut found = pointers(parse_change(body, DOMAIN));
            found.sort();
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(body));
        }
    }
}
