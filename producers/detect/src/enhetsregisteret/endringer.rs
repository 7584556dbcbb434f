//! Which fields changed: upstream's `endringer`, met in two forms, as JSON pointers.
//!
//! RFC 6902 objects, and one flat array of their parts. Only the pointers are kept, never the
//! values: the state tells those. A form that is neither must never stop the event.

use serde_json::Value;

/// The pointers, each once, in upstream's order; and whether everything could be read.
pub(super) fn pointers(endringer: &Value) -> (Vec<String>, bool) {
    let mut found = Pointers::default();
    let readable = match endringer {
        Value::Null => true,
        Value::Array(parts) if parts.first().is_some_and(Value::is_string) => found.flat(parts),
        Value::Array(operations) => found.objects(operations),
        _ => false,
    };
    (found.0, readable)
}

#[derive(Default)]
struct Pointers(Vec<String>);

impl Pointers {
    fn add(&mut self, pointer: &str) {
        if !self.0.iter().any(|found| found == pointer) {
            self.0.push(pointer.to_owned());
        }
    }

    fn objects(&mut self, operations: &[Value]) -> bool {
        let mut readable = true;
        for operation in operations {
            match operation.get("path").and_then(pointer) {
                Some(path) => self.add(path),
                None => readable = false,
            }
            // A move changes both ends.
            if operation.get("op").and_then(Value::as_str) == Some("move") {
                operation.get("from").and_then(pointer).into_iter().for_each(|from| self.add(from));
            }
        }
        readable
    }

    /// `["replace", "/navn", "NYTT NAVN", "remove", "/mobil", …]`: a value may look like anything,
    /// so it is stepped over and never looked at.
    fn flat(&mut self, mut parts: &[Value]) -> bool {
        while let [operation, path, rest @ ..] = parts {
            let (Some(operation), Some(path)) = (operation.as_str().filter(|word| is_operation(word)), pointer(path)) else { return false };
            self.add(path);
            parts = match rest {
                // A removal has no value; an empty one was met in its place.
                [next, after, ..] if operation == "remove" && next.as_str().is_some_and(is_operation) && pointer(after).is_some() => rest,
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

fn pointer(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| text.is_empty() || text.starts_with('/'))
}

fn is_operation(word: &str) -> bool {
    matches!(word, "add" | "remove" | "replace" | "move" | "copy" | "test")
}

#[cfg(test)]
mod tests {
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
            assert_eq!(pointers(&endringer), (expected.into_iter().map(str::to_owned).collect(), readable), "{endringer}");
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
            assert_eq!(pointers(&endringer), (expected.into_iter().map(str::to_owned).collect(), false), "{endringer}");
        }
    }
}
