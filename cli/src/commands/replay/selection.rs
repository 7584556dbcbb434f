//! Which records a replay takes. Pure.
//!
//! By key, type and header; expressions are the judge's. Must never decode a value in
//! order to refuse a record: key and headers are there without.

use ryggrad_schemas::catalogue::type_matches;

/// The header that says of which type an event is.
const TYPE_HEADER: &str = "ce_type";

/// Every part must hold; of a part's patterns one; an empty part always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Patterns of keys, with `*` and `?`.
    pub keys: Vec<String>,
    /// Event types, exact or a prefix ending in `.*`.
    pub types: Vec<String>,
    /// Names of headers and patterns of their values. Those of one name are alternatives.
    pub headers: Vec<(String, String)>,
}

impl Selection {
    /// Whether everything is selected.
    pub fn is_all(&self) -> bool {
        self.keys.is_empty() && self.types.is_empty() && self.headers.is_empty()
    }

    /// Whether a record with this key is selected; `header` finds the first header of a name.
    pub fn takes<'r>(&self, key: Option<&[u8]>, header: impl Fn(&str) -> Option<&'r str>) -> bool {
        (self.keys.is_empty() || key.is_some_and(|key| self.keys.iter().any(|pattern| fits(pattern.as_bytes(), key))))
            && (self.types.is_empty()
                || header(TYPE_HEADER).is_some_and(|found| self.types.iter().any(|pattern| type_matches(pattern, found))))
            && self.headers.iter().all(|(name, _)| header(name).is_some_and(|found| self.takes_header(name, found)))
    }

    fn takes_header(&self, name: &str, found: &str) -> bool {
        self.headers.iter().any(|(asked, pattern)| asked == name && fits(pattern.as_bytes(), found.as_bytes()))
    }
}

/// Reads `NAME=PATTERN`.
pub fn header_pattern(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, pattern)) if !name.is_empty() => Ok((name.to_owned(), pattern.to_owned())),
        _ => Err("use NAME=PATTERN, e.g. ce_endringstype=NY".to_owned()),
    }
}

/// Whether a text fits a pattern in which `*` stands for anything and `?` for one byte.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    let (mut in_pattern, mut in_text) = (0, 0);
    // Where to go on if what follows the latest star does not fit: the star eats one more.
    let mut star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match pattern.get(in_pattern) {
            Some(b'*') => {
                star = Some((in_pattern + 1, in_text));
                in_pattern += 1;
            }
            Some(byte) if *byte == b'?' || Some(byte) == text.get(in_text) => {
                in_pattern += 1;
                in_text += 1;
            }
            _ => {
                let Some((after, eaten)) = star else { return false };
                star = Some((after, eaten + 1));
                (in_pattern, in_text) = (after, eaten + 1);
            }
        }
    }
    pattern.iter().skip(in_pattern).all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks_stand_for_others() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abcbc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("3*", "123", false),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
            ("abc", "abcd", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn every_part_must_hold_and_an_empty_part_always_does() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let header = |name: &str| match name {
            "ce_type" => Some("no.x.endret.v1"),
            "kind" => Some("NY"),
            _ => None,
        };
        let pair = |text: &str| header_pattern(text).unwrap();
        for (keys, types, headers, expected) in [
            (vec![], vec![], vec![], true),
            (texts(&["4*", "3*"]), vec![], vec![], true),
            (texts(&["4*"]), vec![], vec![], false),
            (vec![], texts(&["no.x.*"]), vec![], true),
            (vec![], texts(&["no.y.*"]), vec![], false),
            (vec![], vec![], vec![pair("kind=ENDRET"), pair("kind=N?")], true),
            (vec![], vec![], vec![pair("kind=NY"), pair("other=*")], false),
            (texts(&["3*"]), texts(&["no.*"]), vec![pair("kind=X")], false),
        ] {
            let selection = Selection { keys, types, headers };
            assert_eq!(selection.takes(Some(b"312"), header), expected, "{selection:?}");
        }
        let keyed = Selection { keys: texts(&["*"]), ..Selection::default() };
        assert!(!keyed.takes(None, header) && Selection::default().is_all() && !keyed.is_all());
        assert!(header_pattern("=x").is_err() && header_pattern("x").is_err() && pair("a=b=c").1 == "b=c");
    }
}
