//! A fingerprint of a JSON document's content, for telling whether two states differ.
//!
//! It is stored with every event, so this must never change:
//! - The fingerprint is the sum, modulo 2^64, of the hashes of the document's leaves. So it does
//!   not depend on the order of members, white space, or how a text is escaped.
//! - Every hash is XXH3 with 64 bits and a seed.
//! - A place has a number. That of the document is 0; that of a member is the hash of its
//!   (unescaped) name, seeded with the object's number; that of item *i* of an array is the hash
//!   of *i* as eight little-endian bytes, seeded with the array's number with all bits flipped.
//! - Leaves are texts (1), numbers (2), booleans (3), nulls (4), objects (5) and arrays (6)
//!   without anything in them. A leaf's hash is that of its text, seeded with its place's number
//!   plus the number of its kind: texts unescaped, numbers with the digits that are written,
//!   `true`, `false`, `null`, and nothing for 5 and 6.
//! - Members that are left out count as if they were not there.
//!
//! No safeguard against those who want two documents to look alike.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde_json::Error;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::json_text::{self, DEPTH_MAX, Kind};

/// Sixty-four bits that two different contents hardly ever share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub u64);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is sixteen hexadecimal digits")]
pub struct NoFingerprint;

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        if text.len() != 16 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(NoFingerprint);
        }
        u64::from_str_radix(text, 16).map(Self).map_err(|_| NoFingerprint)
    }
}

/// The fingerprint of a document. `ignored` says which members are left out, by depth (0 for the
/// document's own) and name.
pub fn fingerprint(document: &str, ignored: impl Fn(usize, &str) -> bool) -> Result<Fingerprint, Error> {
    let mut leaves = Leaves { ignored, sum: 0 };
    leaves.add(json_text::whole(document)?, 0, 0)?;
    Ok(Fingerprint(leaves.sum))
}

struct Leaves<F> {
    ignored: F,
    sum: u64,
}

impl<F: Fn(usize, &str) -> bool> Leaves<F> {
    fn add(&mut self, json: &str, place: u64, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::custom("the document is nested too deeply"));
        }
        let mut is_empty = true;
        match json_text::kind(json) {
            Kind::Object => {
                json_text::members(json, |name, value| {
                    if (self.ignored)(depth, name) {
                        return Ok(());
                    }
                    is_empty = false;
                    self.add(value, xxh3_64_with_seed(name.as_bytes(), place), depth + 1)
                })?;
                if is_empty {
                    self.leaf("", place, 5);
                }
            }
            Kind::Array => {
                json_text::items(json, |index, value| {
                    is_empty = false;
                    self.add(value, xxh3_64_with_seed(&(index as u64).to_le_bytes(), !place), depth + 1)
                })?;
                if is_empty {
                    self.leaf("", place, 6);
                }
            }
            Kind::Text => self.leaf(&json_text::text(json)?, place, 1),
            Kind::Number => self.leaf(json, place, 2),
            Kind::Bool => self.leaf(json, place, 3),
            Kind::Null => self.leaf(json, place, 4),
        }
        Ok(())
    }

    fn leaf(&mut self, text: &str, place: u64, kind: u64) {
        self.sum = self.sum.wrapping_add(xxh3_64_with_seed(text.as_bytes(), place.wrapping_add(kind)));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn of(document: &str) -> Fingerprint {
        fingerprint(document, |_, _| false).unwrap()
    }

    #[test]
    fn the_algorithm_is_the_one_that_is_in_the_log() {
        let document = r#"{"navn":"Å","a":[1.0,true,{}],"b":{"c":null,"d":[]}}"#;
        assert_eq!(of(document).to_string(), "32aebf494c52e46a");
    }

    #[test]
    fn how_a_document_is_written_does_not_count() {
        let plain = of(r#"{"navn":"Å/B","adresse":{"linjer":["a","b"],"land":"Norge"}}"#);
        for same in [
            " {\n\t\"navn\" : \"Å/B\" , \"adresse\" : { \"linjer\" : [ \"a\" , \"b\" ] , \"land\" : \"Norge\" } }\r\n",
            r#"{"adresse":{"land":"Norge","linjer":["a","b"]},"navn":"Å/B"}"#,
            r#"{"n\u0061vn":"\u00c5\/B","adresse":{"linjer":["\u0061","b"],"land":"Norge"}}"#,
        ] {
            assert_eq!(of(same), plain, "{same}");
        }
    }

    #[test]
    fn what_a_document_says_does() {
        let documents = [
            r#"{}"#,
            r#"[]"#,
            r#"null"#,
            r#""""#,
            r#"{"a":1}"#,
            r#"{"a":1.0}"#,
            r#"{"a":"1"}"#,
            r#"{"a":true}"#,
            r#"{"a":"true"}"#,
            r#"{"a":null}"#,
            r#"{"a":"null"}"#,
            r#"{"a":[]}"#,
            r#"{"a":{}}"#,
            r#"{"a":""}"#,
            r#"{"a":[1]}"#,
            r#"{"a":["1"]}"#,
            r#"{"a":[[1]]}"#,
            r#"{"a":[1,1]}"#,
            r#"{"a":{"0":1}}"#,
            r#"{"a":{"":1}}"#,
            r#"{"b":1}"#,
            r#"{"a":1,"b":2}"#,
            r#"{"a":2,"b":1}"#,
            r#"{"a":[1,2]}"#,
            r#"{"a":[2,1]}"#,
            r#"{"a":{"b":1},"c":2}"#,
            r#"{"c":{"b":1},"a":2}"#,
            r#"{"a":{"b":1,"c":2}}"#,
            r#"{"a/b":1}"#,
        ];
        let mut seen = BTreeMap::new();
        for document in documents {
            assert_eq!(seen.insert(of(document), document), None, "{document}");
        }
    }

    #[test]
    fn what_is_left_out_counts_as_absent() {
        let without = |document| fingerprint(document, |depth, name| name == "x" || (depth == 0 && name == "top")).unwrap();
        let plain = r#"{"a":{"b":1},"c":[{"d":2}],"e":{}}"#;
        assert_eq!(without(plain), of(plain));
        assert_eq!(without(r#"{"x":1,"top":[1],"a":{"x":{"y":1},"b":1},"c":[{"d":2,"x":null}],"e":{"x":0}}"#), of(plain));
        assert_eq!(without(r#"{"a":{"top":1}}"#), of(r#"{"a":{"top":1}}"#));
    }

    #[test]
    fn what_is_no_json_has_no_fingerprint() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for bad in ["", "{", "x", "{\"a\":1}}", "{\"a\":\"\\ud800\"}", "{\"a\":01}", &deep] {
            assert!(fingerprint(bad, |_, _| false).is_err());
        }
    }

    #[test]
    fn a_fingerprint_is_read_back_from_its_text() {
        for fingerprint in [Fingerprint(0), Fingerprint(0xab), Fingerprint(u64::MAX)] {
            assert_eq!(fingerprint.to_string().parse(), Ok(fingerprint));
        }
        for bad in ["", "ab", "+000000000000000", "00000000000000000", "000000000000000g"] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(NoFingerprint), "{bad}");
        }
    }
}
