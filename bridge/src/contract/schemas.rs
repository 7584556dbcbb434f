//! The shapes that calls share, and the pieces that shapes are made of.

use ryggrad_bridge_core::role::Role;
use serde_json::{Map, Value, json};

use super::{access, replays, subscription, watch_lists};

/// A shape by its name.
pub fn reference(shape: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{shape}")})
}

/// Any text.
pub fn text() -> Value {
    json!({"type": "string"})
}

/// A time in UTC.
pub fn time() -> Value {
    json!({"type": "string", "format": "date-time"})
}

/// A count.
pub fn count() -> Value {
    json!({"type": "integer", "minimum": 0})
}

/// An id that the bridge has given.
pub fn id() -> Value {
    json!({"type": "string", "format": "uuid"})
}

/// An organisation number.
pub fn organisation() -> Value {
    json!({"type": "string", "format": "organisasjonsnummer", "pattern": "^[0-9]{9}$"})
}

/// The same, or null.
pub fn or_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get("type").filter(|kind| kind.is_string()).cloned() {
        schema["type"] = json!([kind, "null"]);
        if let Some(Value::Array(words)) = schema.get_mut("enum") {
            words.push(Value::Null);
        }
        return schema;
    }
    json!({"anyOf": [schema, {"type": "null"}]})
}

/// An object with these members and no others; `required` names those that are always there.
pub fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// The same where everything is always there.
pub fn whole(properties: Value) -> Value {
    let required: Vec<&str> = properties.as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
    json!({"type": "object", "required": required, "properties": properties, "additionalProperties": false})
}

/// A page of a list.
pub fn page(member: &str, shape: &str) -> Value {
    whole(json!({member: {"type": "array", "items": reference(shape)}, "next": {"type": ["string", "null"]}}))
}

/// Every shape by its name.
pub fn all(problem_types: Vec<String>) -> Value {
    let roles = json!({"type": "array", "minItems": 1, "items": {"enum": Role::ALL.map(Role::name)}});
    let event = json!({
        "type": "object", "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": {"const": "1.0"}, "id": text(), "source": text(), "type": text(), "subject": text(), "time": time(),
            "deliverynumber": {"type": "string", "pattern": "^[0-9]+$"}, "deliveryepoch": {"type": "string", "pattern": "^[0-9]+$"},
            "data": {"type": "object"},
        },
        "additionalProperties": true,
    });
    let attempt = whole(json!({
        "at": time(), "webhook_id": text(), "event_ids": {"type": "array", "items": text()}, "attempt": count(),
        "outcome": {"enum": ["delivered", "gone", "hopeless", "throttled", "failed", "withheld"]},
        "http_status": {"type": ["integer", "null"], "minimum": 100, "maximum": 599}, "latency_ms": count(), "error": {"type": ["string", "null"]},
    }));
    let maybe_count = json!({"type": ["integer", "null"], "minimum": 0});
    let dead_letter = whole(json!({
        "id": text(), "topic": text(), "partition": maybe_count, "offset": maybe_count, "number": count(), "reason": text(), "parked": {"type": "boolean"},
        "at": time(),
    }));
    let problem = object(
        &["type", "title", "status", "detail"],
        json!({
            "type": {"enum": problem_types}, "title": text(), "status": {"type": "integer", "minimum": 400, "maximum": 599}, "detail": text(),
            "errors": {"type": "array", "items": whole(json!({
                "pointer": {"type": "string", "description": "JSON pointer into the body, `?name` of a parameter, or the name of a header."},
                "detail": text(),
            }))},
            "missing_role": {"enum": Role::ALL.map(Role::name)},
        }),
    );
    let mut shapes = json!({
        "Problem": problem,
        "Subscriptions": page("subscriptions", "ListedSubscription"),
        "Rotation": subscription::rotation(),
        "RotatedSecret": object(&["id", "secret"], json!({"id": id(), "secret": subscription::secret(), "previous_secret_until": or_null(time())})),
        "TestResult": whole(json!({
            "event_id": id(), "webhook_id": text(), "delivered": {"type": "boolean"},
            "http_status": {"type": ["integer", "null"], "minimum": 100, "maximum": 599}, "latency_ms": count(), "error": {"type": ["string", "null"]},
        })),
        "Events": {"type": "array", "items": reference("Event")},
        "Event": event,
        "Acknowledgement": whole(json!({"cursor": {"type": "string", "format": "event-cursor"}})),
        "Attempts": page("attempts", "Attempt"),
        "Attempt": attempt,
        "DeadLetters": page("dead_letters", "DeadLetter"),
        "DeadLetter": dead_letter,
        "Redriven": object(&["redriven"], json!({"redriven": count(), "preview": {"const": true}})),
        "Discarded": object(&["discarded"], json!({"discarded": count(), "preview": {"const": true}})),
        "NewToken": crate::api::new_token_schema(),
        "IssuedToken": object(&["id", "organisation", "roles", "token", "expires_at"], json!({
            "id": id(), "organisation": organisation(), "supplier": organisation(), "roles": roles,
            "token": {"type": "string", "description": "Shown this once."}, "expires_at": time(),
        })),
        "Tokens": page("tokens", "Token"),
        "Token": object(&["id", "organisation", "roles", "description", "created_at", "expires_at", "revoked"], json!({
            "id": id(), "organisation": organisation(), "supplier": organisation(), "roles": roles, "description": {"type": ["string", "null"]}, "created_at": time(),
            "expires_at": time(), "revoked": {"type": "boolean"},
        })),
        "Readiness": whole(json!({"ready": {"type": "boolean"}, "obstacle": {"type": ["string", "null"]}, "trial": {"type": "boolean"}})),
        "ProtectedResource": object(
            &["resource", "authorization_servers", "scopes_supported", "bearer_methods_supported"],
            json!({
                "resource": text(), "authorization_servers": {"type": "array", "items": text()},
                "scopes_supported": {"type": "array", "items": text()}, "bearer_methods_supported": {"const": ["header"]},
                "dpop_signing_alg_values_supported": {"type": "array", "items": text()}, "dpop_bound_access_tokens_required": {"const": true},
            }),
        ),
        "WebhookKeys": whole(json!({"keys": {"type": "array", "items": whole(json!({"kid": text(), "public": text()}))}})),
    });
    let own = replays::shapes().into_iter().chain(watch_lists::shapes()).chain(access::shapes());
    for (name, shape) in own.chain(subscription::shapes()) {
        shapes[name] = shape;
    }
    for (name, shape) in crate::schema_registry::shapes() {
        shapes[name] = shape;
    }
    shapes
}
