//! Where two documents differ, as JSON pointers.

use serde_json::Value;

/// How many pointers one event tells; beyond it, the pointer of the whole document stands.
const POINTERS_MAX: usize = 256;

/// The pointers of what differs, sorted. A member counts only if `counts` says so, by its depth
/// (0 for members of the document itself) and name. An array of another length differs as one.
pub fn differences(old: &Value, new: &Value, counts: impl Fn(usize, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    walk(old, new, &mut Walk { pointer: String::new(), depth: 0, counts: &counts }, &mut found);
    if found.len() > POINTERS_MAX { vec![String::new()] } else { found }
}

struct Walk<'a, F> {
    pointer: String,
    depth: usize,
    counts: &'a F,
}

impl<F: Fn(usize, &str) -> bool> Walk<'_, F> {
    fn within(&mut self, step: &str, members: usize, work: impl FnOnce(&mut Self)) {
        let length = self.pointer.len();
        self.pointer.push('/');
        self.pointer.push_str(&step.replace('~', "~0").replace('/', "~1"));
        self.depth += members;
        work(self);
        self.depth -= members;
        self.pointer.truncate(length);
    }
}

fn walk<F: Fn(usize, &str) -> bool>(old: &Value, new: &Value, at: &mut Walk<'_, F>, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                if !(at.counts)(at.depth, name) {
                    continue;
                }
                at.within(name, 1, |at| match (old.get(name), new.get(name)) {
                    (Some(old), Some(new)) => walk(old, new, at, found),
                    _ => found.push(at.pointer.clone()),
                });
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                at.within(&index.to_string(), 0, |at| walk(old, new, at, found));
            }
        }
        (old, new) if old == new => {}
        _ => found.push(at.pointer.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_difference_is_named_once_and_what_does_not_count_never() {
        let counts = |depth: usize, name: &str| name != "links" && !(depth == 0 && name == "kapital");
        for (old, new, expected) in [
            (json!({"a": 1}), json!({"a": 1}), vec![]),
            (json!({"a": 1}), json!({"a": 2}), vec!["/a"]),
            (json!({"a": "1"}), json!({"a": 1}), vec!["/a"]),
            (json!({"a": null}), json!({}), vec!["/a"]),
            (json!({"b": {"x": 1, "y": 2}, "a": 1}), json!({"b": {"x": 1, "y": 3}, "c": []}), vec!["/a", "/b/y", "/c"]),
            (json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 3}]}), vec!["/a/1/b"]),
            (json!({"a": [1]}), json!({"a": [1, 2]}), vec!["/a"]),
            (json!({"a/b~": 1}), json!({}), vec!["/a~1b~0"]),
            (json!({"kapital": {"belop": 1}, "a": {"links": []}}), json!({"a": {}}), vec![]),
            (json!({"a": {"kapital": 1}}), json!({"a": {}}), vec!["/a/kapital"]),
            (json!([]), json!({}), vec![""]),
        ] {
            assert_eq!(differences(&old, &new, counts), expected, "{old} {new}");
        }
    }

    #[test]
    fn too_many_differences_are_told_as_one() {
        let many: serde_json::Map<_, _> = (0..1_000).map(|number| (number.to_string(), json!(number))).collect();
        assert_eq!(differences(&json!({}), &Value::Object(many), |_, _| true), [""]);
    }
}
