//! The shapes of members, delegations, grants, relations and blocks, and of their history.

use ryggrad_bridge_core::access::request::{ITEMS_MAX, SUBJECT_BYTES_MAX, TEXT_CHARS_MAX};
use ryggrad_bridge_core::access::{Kind, Look};
use ryggrad_bridge_core::role::Role;
use serde_json::{Map, Value, json};

use super::schemas::{id, object, or_null, organisation, page, reference, text, time, whole};
use super::subscription;

fn words() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": TEXT_CHARS_MAX, "format": "few-digits"})
}

fn list(items: Value, items_min: usize) -> Value {
    json!({"type": "array", "minItems": items_min, "maxItems": ITEMS_MAX, "items": items})
}

fn types() -> Value {
    let mut shape = subscription::types();
    shape["maxItems"] = json!(ITEMS_MAX);
    shape
}

fn subject() -> Value {
    json!({
        "type": "string", "minLength": 1, "maxLength": SUBJECT_BYTES_MAX, "pattern": "^[!-~]+$", "format": "pseudonym",
        "description": "The person's pseudonym, as the key of the controller's records has it; never a national identity number.",
    })
}

/// What is asked for: everything but these may be left out, or be null.
fn asked(required: &[&str], properties: Value) -> Value {
    let properties: Map<String, Value> = match properties {
        Value::Object(properties) => properties.into_iter().map(|(name, shape)| optional(required, name, shape)).collect(),
        _ => Map::new(),
    };
    object(required, Value::Object(properties))
}

fn optional(required: &[&str], name: String, shape: Value) -> (String, Value) {
    let shape = if required.contains(&name.as_str()) { shape } else { or_null(shape) };
    (name, shape)
}

fn join(mut one: Value, other: Value) -> Value {
    if let (Value::Object(one), Value::Object(other)) = (&mut one, other) {
        one.extend(other);
    }
    one
}

/// The properties of each kind, and of these what must be given.
fn delegation() -> Value {
    json!({"organisation": organisation(), "supplier": organisation(), "types": types(), "from": time(), "until": time()})
}

fn grant() -> Value {
    let receiver = json!({"receiver": organisation(), "types": types(), "view": text(), "from": time(), "until": time()});
    join(json!({"controller": organisation()}), receiver)
}

fn relation() -> Value {
    json!({"subject": subject(), "receiver": organisation(), "from": time(), "until": time()})
}

fn block() -> Value {
    join(relation(), json!({"types": types()}))
}

fn member(ask: fn(&[&str], Value) -> Value) -> Value {
    let basis = ask(&["types", "law"], json!({"types": types(), "law": words(), "from": time(), "until": time()}));
    let normen = ask(&["version", "signer", "until"], json!({"version": words(), "signer": words(), "from": time(), "until": time()}));
    json!({
        "standing": {"type": "string", "enum": ["candidate", "active", "suspended", "expelled"]}, "is_controller": {"type": "boolean"},
        "agreement": ask(&["reference"], json!({"reference": words(), "from": time()})),
        "bases": list(basis, 0), "normen": normen, "contact_points": list(words(), 0),
    })
}

/// A fact as it is shown.
fn kept(required: &[&str], properties: Value) -> Value {
    let always = [required, &["changed_at"]].concat();
    object(&always, join(properties, json!({"changed_at": time()})))
}

/// The shapes by their names.
pub fn shapes() -> Vec<(&'static str, Value)> {
    let with_id = |required: &[&str], properties: Value| kept(&[required, &["id", "from"]].concat(), join(properties, json!({"id": id()})));
    let roles = json!({"type": "array", "items": {"enum": Role::ALL.map(Role::name)}});
    let by = json!({"organisation": organisation(), "supplier": organisation(), "roles": roles, "token": text(), "client": text(), "event": text()});
    let by = object(&[], by);
    let fact = json!({"type": ["object", "null"]});
    let change = whole(json!({
        "at": time(), "by": by, "kind": {"enum": Kind::ALL.map(Kind::name)}, "id": text(), "concerns": {"type": "array", "items": organisation()},
        "before": fact, "after": fact,
    }));
    let lack = whole(json!({"reason": text(), "detail": text()}));
    let lacks = json!({"organisation": organisation(), "supplier": or_null(organisation()), "type": text(), "lacks": {"type": "array", "items": lack}});
    let look = json!({
        "controller": organisation(), "purpose": words(), "subject": subject(), "organisation": organisation(), "from": time(), "until": time(),
        "after": text(), "limit": {"type": "integer", "minimum": 1, "maximum": Look::LIMIT_MAX}, "format": {"type": "string", "enum": Look::FORMATS},
    });
    let count = || json!({"type": "integer", "minimum": 0});
    let report = json!({
        "controller": organisation(), "intact": {"type": "boolean"}, "first": {"type": ["integer", "null"]}, "last": count(), "hash": text(),
        "checkpoints": count(), "unsigned": count(), "faults": {"type": "array", "items": text()},
    });
    let any_types = |mut properties: Value| {
        properties["types"] = list(text(), 0);
        properties
    };
    let controlled = |properties: Value| join(properties, json!({"controller": organisation()}));
    vec![
        ("NewMember", asked(&["standing"], member(asked))),
        (
            "Member",
            kept(
                &["organisation", "standing", "is_controller", "bases", "contact_points"],
                join(member(object), json!({"organisation": organisation()})),
            ),
        ),
        ("Members", page("members", "Member")),
        ("Lacks", whole(lacks)),
        ("NewDelegation", asked(&["supplier", "types"], delegation())),
        ("Delegation", with_id(&["organisation", "supplier", "types"], delegation())),
        ("Delegations", page("delegations", "Delegation")),
        ("NewGrant", asked(&["receiver", "types", "view"], grant())),
        ("Grant", with_id(&["receiver", "types", "view"], grant())),
        ("Grants", page("grants", "Grant")),
        ("NewRelation", asked(&["subject", "receiver"], relation())),
        ("Relation", with_id(&["controller", "subject", "receiver"], controlled(relation()))),
        ("Relations", page("relations", "Relation")),
        ("NewBlock", asked(&["subject"], block())),
        ("Block", with_id(&["controller", "subject", "types"], controlled(any_types(block())))),
        ("Blocks", page("blocks", "Block")),
        (
            "AccessHistory",
            whole(json!({"changes": {"type": "array", "items": reference("AccessChange")}, "next": {"type": ["string", "null"]}})),
        ),
        ("AccessChange", change),
        ("Look", asked(&[], look)),
        (
            "Disclosures",
            whole(json!({"disclosures": {"type": "array", "items": {"type": "object"}}, "next": {"type": ["string", "null"]}})),
        ),
        ("DisclosuresReport", whole(report)),
        ("Revealed", whole(json!({"controller": organisation(), "recorded": count()}))),
    ]
}
