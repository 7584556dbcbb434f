//! Which fields changed: upstream's `endringer`, met in two forms, as JSON pointers.
//!
//! RFC 6902 objects, and one flat array of their parts. Only the pointers are kept, never the
//! values: the state tells those. A form that is neither must never stop the event.

use std::borrow::Cow;

use ryggrad_schemas::json_text::{self, Kind};
use serde_json::Error;

/// The pointers, each once, in upstream's order; and whether everything could be read.
pub(super) fn pointers(endringer: &str) -> Result<(Vec<String>, bool), Error> {
    let mut found = Pointers::default();
    let readable = match json_text::kind(endringer) {
        Kind::Null => true,
        Kind::Array => {
            let mut parts = Vec::new();
            json_text::items(endringer, |_, part| {
                parts.push(part);
                Ok(())
            })?;
            match parts.first() {
                Some(first) if json_text::kind(first) == Kind::Text => {
                    let texts: Vec<_> = parts.into_iter().map(text).collect::<Result<_, _>>()?;
                    found.flat(&texts)
                }
                _ => found.objects(&parts)?,
            }
        }
        _ => false,
    };
    Ok((found.0, readable))
}

/// What a text says; `None` for all else.
type Text<'t> = Option<Cow<'t, str>>;

fn text(json: &str) -> Result<Text<'_>, Error> {
    if json_text::kind(json) == Kind::Text { json_text::text(json).map(Some) } else { Ok(None) }
}

#[derive(Default)]
struct Pointers(Vec<String>);

impl Pointers {
    fn add(&mut self, pointer: &str) {
        if !self.0.iter().any(|found| found == pointer) {
            self.0.push(pointer.to_owned());
        }
    }

    fn objects(&mut self, operations: &[&str]) -> Result<bool, Error> {
        let mut readable = true;
        for operation in operations {
            let (mut op, mut path, mut from) = (None, None, None);
            if json_text::kind(operation) == Kind::Object {
                json_text::members(operation, |name, json| {
                    match name {
                        "op" => op = text(json)?,
                        "path" => path = text(json)?,
                        "from" => from = text(json)?,
                        _ => {}
                    }
                    Ok(())
                })?;
            }
            match pointer(&path) {
                Some(path) => self.add(path),
                None => readable = false,
            }
            // A move changes both ends.
            if op.as_deref() == Some("move") {
                pointer(&from).into_iter().for_each(|from| self.add(from));
            }
        }
        Ok(readable)
    }

    /// `["replace", "/navn", "NYTT NAVN", "remove", "/mobil", …]`: a value may look like anything,
    /// so it is stepped over and never looked at.
    fn flat(&mut self, mut parts: &[Text<'_>]) -> bool {
        while let [operation, path, rest @ ..] = parts {
            let (Some(operation), Some(path)) = (operation.as_deref().filter(|word| is_operation(word)), pointer(path)) else {
                return false;
            };
            self.add(path);
            parts = match rest {
                // A removal has no value; an empty one was met in its place.
                [next, after, ..] if operation == "remove" && next.as_deref().is_some_and(is_operation) && pointer(after).is_some() => rest,
                [from, rest @ ..] => {
                    if operation == "move" {
                        pointer(from).into_iter().for_each(|from| self.add(from));
                    }
                    rest
                }
                [] => rest,
            };
        }
        parts.is_empty()
    }
}

fn pointer<'t>(text: &'t Text<'_>) -> Option<&'t str> {
    text.as_deref().filter(|text| text.is_empty() || text.starts_with('/'))
}

fn is_operation(word: &str) -> bool {
    matches!(word, "add" | "remove" | "replace" | "move" | "copy" | "test")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use serde_json::json;

    use super::*;

    #[test]
    fn both_forms_give_the_same_pointers() {
        let table = [
            (json!(null), vec![], true),
            (json!([]), vec![], true),
            (json!([{"op": "replace", "path": "/antallAnsatte", "value": 7}]), vec!["/antallAnsatte"], true),
            (json!(["replace", "/antallAnsatte", "21500"]), vec!["/antallAnsatte"], true),
            (
                json!([{"op": "add", "path": "/a", "value": {"path": "/x"}}, {"op": "remove", "path": "/b/0"}, {"op": "replace", "path": "/a"}]),
                vec!["/a", "/b/0"],
                true,
            ),
            (json!(["add", "/a", {"path": "/x"}, "remove", "/b/0", "replace", "/a", null]), vec!["/a", "/b/0"], true),
            (json!(["remove", "/a", null, "remove", "/b", "remove", "/c"]), vec!["/a", "/b", "/c"], true),
            (json!(["replace", "/navn", "remove", "replace", "/adresse", "/sti"]), vec!["/navn", "/adresse"], true),
            (json!(["move", "/a", "/b"]), vec!["/a", "/b"], true),
            (json!([{"op": "move", "path": "/a", "from": "/b"}]), vec!["/a", "/b"], true),
            (json!([{"op": "replace", "path": ""}]), vec![""], true),
        ];
        for (endringer, expected, readable) in table {
            assert_eq!(
                pointers(&endringer.to_string()).unwrap(),
                (expected.into_iter().map(str::to_owned).collect(), readable),
                "{endringer}"
            );
        }
    }

    #[test]
    fn what_is_neither_form_is_counted_and_what_could_be_read_is_kept() {
        for (endringer, expected) in [
            (json!("replace"), vec![]),
            (json!({"op": "replace", "path": "/a"}), vec![]),
            (json!([7]), vec![]),
            (json!([{"op": "replace", "path": "navn"}, {"op": "add", "path": "/b"}]), vec!["/b"]),
            (json!(["replace", "/a", 1, "erstatt", "/b", 2]), vec!["/a"]),
            (json!(["replace"]), vec![]),
        ] {
            assert_eq!(
                pointers(&endringer.to_string()).unwrap(),
                (expected.into_iter().map(str::to_owned).collect(), false),
                "{endringer}"
            );
        }
    }
}
