//! Whether two texts are the same Avro schema, whoever wrote them down.
//!
//! Registries store schemas in their own hand: members in another order, names spelt out, docs
//! left out. Everything that a reader or writer acts on counts, also what Avro's own canonical
//! form leaves out: defaults, aliases and logical types. Must never take two different schemas
//! for one.

use serde_json::{Map, Value};

/// Whether both are JSON and the same schema, docs aside.
pub fn is_equivalent(one: &str, other: &str) -> bool {
    let spelt_out = |text: &str| serde_json::from_str::<Value>(text).ok().map(|schema| spell_out(&schema, ""));
    spelt_out(one).is_some_and(|one| Some(one) == spelt_out(other))
}

/// A schema with every name in full, and without docs and what goes without saying.
fn spell_out(schema: &Value, namespace: &str) -> Value {
    match schema {
        Value::String(name) => Value::from(if is_primitive(name) { name.clone() } else { full_name(name, namespace) }),
        Value::Array(branches) => branches.iter().map(|branch| spell_out(branch, namespace)).collect(),
        Value::Object(members) => spell_out_object(members, namespace),
        other => other.clone(),
    }
}

fn spell_out_object(members: &Map<String, Value>, namespace: &str) -> Value {
    let mut members = members.clone();
    members.remove("doc");
    let mut inner = namespace.to_owned();
    if let Some(Value::String(name)) = members.get("name").cloned() {
        let own = members.remove("namespace").and_then(|own| own.as_str().map(str::to_owned)).unwrap_or_else(|| namespace.to_owned());
        let name = full_name(&name, &own);
        inner = name.rsplit_once('.').map_or(String::new(), |(namespace, _)| namespace.to_owned());
        members.insert("name".to_owned(), Value::from(name));
        if let Some(Value::Array(aliases)) = members.get_mut("aliases") {
            aliases.iter_mut().for_each(|alias| *alias = alias.as_str().map_or(Value::Null, |alias| Value::from(full_name(alias, &inner))));
        }
    }
    for name in ["items", "values"] {
        if let Some(part) = members.get_mut(name) {
            *part = spell_out(part, &inner);
        }
    }
    if let Some(Value::Array(fields)) = members.get_mut("fields") {
        fields.iter_mut().for_each(|field| spell_out_field(field, &inner));
    }
    match members.get("type").cloned() {
        // {"type": "string"} is "string".
        Some(Value::String(name)) if members.len() == 1 => return spell_out(&Value::from(name), &inner),
        Some(kind @ (Value::Object(_) | Value::Array(_))) if members.len() == 1 => return spell_out(&kind, &inner),
        Some(kind) => {
            members.insert("type".to_owned(), if is_complex(&kind) { kind } else { spell_out(&kind, &inner) });
        }
        None => {}
    }
    Value::Object(members)
}

fn spell_out_field(field: &mut Value, namespace: &str) {
    let Value::Object(members) = field else { return };
    members.remove("doc");
    if members.get("order").and_then(Value::as_str) == Some("ascending") {
        members.remove("order");
    }
    if let Some(kind) = members.get_mut("type") {
        *kind = spell_out(kind, namespace);
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn is_primitive(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

fn is_complex(kind: &Value) -> bool {
    matches!(kind.as_str(), Some("record" | "error" | "enum" | "fixed" | "array" | "map"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "record", "name": "R", "namespace": "no.a", "doc": "d",
            "fields": [
                {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["X", "Y"], "default": "X"}, "default": "X", "doc": "d"},
                {"name": "again", "type": ["null", "E"], "default": null, "order": "ascending"},
                {"name": "list", "type": {"type": "array", "items": {"type": "string"}}, "default": []},
                {"name": "day", "type": {"type": "int", "logicalType": "date"}},
                {"name": "map", "type": {"type": "map", "values": "long"}},
            ]
        })
    }

    fn is_same(change: impl FnOnce(&mut Value)) -> bool {
        let mut other = schema();
        change(&mut other);
        is_equivalent(&schema().to_string(), &other.to_string())
    }

    #[test]
    fn another_hand_is_the_same_schema() {
        assert!(is_same(|_| {}));
        assert!(is_same(|schema| {
            *schema = json!({
                "name": "no.a.R", "type": "record",
                "fields": [
                    {"type": {"symbols": ["X", "Y"], "default": "X", "name": "E", "type": "enum"}, "default": "X", "name": "e"},
                    {"name": "again", "type": ["null", "no.a.E"], "default": null},
                    {"name": "list", "type": {"type": "array", "items": "string"}, "default": []},
                    {"name": "day", "type": {"type": "int", "logicalType": "date"}},
                    {"name": "map", "type": {"type": "map", "values": {"type": "long"}}},
                ]
            });
        }));
        let published = manifest::all()[0].text;
        let short: Value = serde_json::from_str(published).unwrap();
        assert!(is_equivalent(published, &short.to_string()));
    }

    #[test]
    fn whatever_a_reader_acts_on_makes_a_difference() {
        assert!(!is_same(|schema| schema["name"] = json!("S")));
        assert!(!is_same(|schema| schema["namespace"] = json!("no.b")));
        assert!(!is_same(|schema| schema["fields"][0]["default"] = json!("Y")));
        assert!(!is_same(|schema| schema["fields"][0]["type"]["symbols"] = json!(["Y", "X"])));
        assert!(!is_same(|schema| schema["fields"][1]["type"] = json!(["E", "null"])));
        assert!(!is_same(|schema| schema["fields"][1]["aliases"] = json!(["b"])));
        assert!(!is_same(|schema| schema["fields"][2]["type"]["items"] = json!("bytes")));
        assert!(!is_same(|schema| schema["fields"][3]["type"] = json!("int")));
        assert!(!is_same(|schema| schema["fields"][4]["type"]["values"] = json!("int")));
        assert!(!is_same(|schema| schema["fields"].as_array_mut().unwrap().swap(0, 1)));
        assert!(!is_equivalent("{", "{"));
    }
}
