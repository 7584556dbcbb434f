//! The shape of a subscription: asked for, changed, shown. The limits are those that requests are checked against.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use ryggrad_bridge_core::access::Reason;
use ryggrad_bridge_core::cesql::EXPRESSION_BYTES_MAX;
use ryggrad_bridge_core::filter::{FILTERS_BYTES_MAX, FILTERS_DEPTH_MAX, FILTERS_MAX};
use ryggrad_bridge_core::headers::{HEADERS_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use ryggrad_bridge_core::settings::{ATTEMPTS_PER_MINUTE, BATCH_EVENTS, IN_FLIGHT, PATIENCE_MS, Settings};
use ryggrad_bridge_core::subscription::{DESCRIPTION_CHARS_MAX, OVERLAP_S, SINK_BYTES_MAX, TYPES_MAX};
use ryggrad_schemas::Catalogue;
use serde_json::{Map, Value, json};

use super::schemas::{count, id, object, or_null, organisation, reference, text, time, whole};
use crate::runtime::TYPE_SHUT;

/// A signing secret: 24 to 64 bytes in base64.
pub fn secret() -> Value {
    json!({"type": "string", "format": "webhook-secret", "pattern": "^whsec_[A-Za-z0-9+/]{32,86}={0,2}$"})
}

/// A request for another secret.
pub fn rotation() -> Value {
    object(&[], json!({"overlap_s": or_null(number(&OVERLAP_S)), "secret": or_null(secret())}))
}

/// The shapes by their names.
pub fn shapes() -> [(&'static str, Value); 9] {
    [
        ("NewSubscription", json!({"oneOf": [reference("NewWebhook"), reference("NewFeed")]})),
        ("NewWebhook", new_webhook()),
        ("NewFeed", new_feed()),
        ("SubscriptionPatch", patch()),
        ("Subscription", shown(&[])),
        ("CreatedSubscription", shown(&[("secret", secret())])),
        ("SubscriptionWithStatus", shown(&[("status", or_null(status())), ("withheld_by", withheld_by())])),
        ("ListedSubscription", shown(&[("withheld_by", withheld_by())])),
        ("Filter", filter()),
    ]
}

fn number(range: &RangeInclusive<u64>) -> Value {
    json!({"type": "integer", "minimum": range.start(), "maximum": range.end()})
}

/// Every pattern that means an event type: types themselves, and their fronts up to a dot.
pub fn types() -> Value {
    let known = Catalogue::built_in().events.iter().flat_map(|event| {
        let fronts = event.ce_type.match_indices('.').map(|(dot, _)| format!("{}*", &event.ce_type[..=dot]));
        fronts.chain([event.ce_type.clone(), "*".to_owned()]).collect::<Vec<_>>()
    });
    let known: BTreeSet<String> = known.collect();
    json!({"type": "array", "minItems": 1, "maxItems": TYPES_MAX, "items": {"type": "string", "enum": known}})
}

fn filters() -> Value {
    json!({"type": ["array", "null"], "maxItems": FILTERS_MAX, "items": reference("Filter")})
}

fn filter() -> Value {
    let texts = json!({
        "type": "object", "minProperties": 1, "propertyNames": {"pattern": "^[a-z0-9]+$"},
        "additionalProperties": {"type": "string", "minLength": 1},
    });
    let several = json!({"type": "array", "minItems": 1, "maxItems": FILTERS_MAX, "items": reference("Filter")});
    let sql = json!({"type": "string", "format": "cloudevents-sql", "minLength": 1, "maxLength": EXPRESSION_BYTES_MAX});
    let dialects = json!({
        "exact": texts, "prefix": texts, "suffix": texts, "all": several, "any": several, "not": reference("Filter"), "sql": sql,
    });
    json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "properties": dialects, "additionalProperties": false,
        "description": format!("At most {FILTERS_DEPTH_MAX} levels of all, any and not, and {FILTERS_BYTES_MAX} bytes of all filters together."),
    })
}

fn sink() -> Value {
    json!({
        "type": "string", "format": "webhook-address", "maxLength": SINK_BYTES_MAX, "pattern": "^https?://[^\\s\\\\]+$",
        "description": "https; a public address unless the operator has allowed it.",
    })
}

fn description() -> Value {
    json!({"type": ["string", "null"], "maxLength": DESCRIPTION_CHARS_MAX})
}

fn headers() -> Value {
    let value = json!({"type": ["string", "null"], "minLength": 1, "maxLength": VALUE_BYTES_MAX, "pattern": "^[!-~]([ -~]*[!-~])?$"});
    json!({
        "type": ["object", "null"], "maxProperties": HEADERS_MAX, "additionalProperties": value,
        "propertyNames": {"format": "own-header", "pattern": format!("^[A-Za-z0-9_-]{{1,{NAME_BYTES_MAX}}}$")},
    })
}

fn verify() -> Value {
    json!({"type": "string", "enum": ["auto", "none"]})
}

/// What an owner may choose about delivery, as it is shown.
fn settings() -> Value {
    json!({
        "order": {"type": "string", "enum": ["key", "partition", "none"]},
        "format": {"type": "string", "enum": ["structured", "binary", "batch"]},
        "batch_events_max": number(&BATCH_EVENTS),
        "on_exhausted": {"type": "string", "enum": ["block", "park", "skip"]},
        "retry_horizon_ms": number(&PATIENCE_MS),
        "attempts_per_minute_max": number(&ATTEMPTS_PER_MINUTE),
        "in_flight_max": number(&IN_FLIGHT),
        "disable_after_ms": number(&PATIENCE_MS),
    })
}

/// The same as it is chosen: null is the default.
fn chosen() -> Map<String, Value> {
    let settings = settings();
    let mut defaults = serde_json::to_value(Settings::default()).unwrap_or_default();
    let members = settings.as_object().into_iter().flatten().map(|(name, schema)| {
        let mut schema = or_null(schema.clone());
        schema["default"] = defaults[name].take();
        (name.clone(), schema)
    });
    members.collect()
}

fn merged(parts: [Value; 2], more: Map<String, Value>) -> Value {
    let mut all = more;
    for part in parts {
        if let Value::Object(mut members) = part {
            all.append(&mut members);
        }
    }
    Value::Object(all)
}

fn start() -> Value {
    json!({"anyOf": [{"enum": ["now", "beginning"]}, time(), {"type": "null"}], "default": "now"})
}

fn new_webhook() -> Value {
    let own = json!({
        "types": types(), "filters": filters(), "watch_list": or_null(id()), "description": description(), "start": start(),
        "channel": {"type": "string", "enum": ["webhook"], "default": "webhook"},
    });
    let webhook = json!({"sink": sink(), "secret": or_null(secret()), "headers": headers(), "verify": or_null(verify())});
    let mut shape = object(&["types", "sink"], merged([own, webhook], chosen()));
    // A size of batches goes with batches.
    shape["if"] = json!({"required": ["batch_events_max"], "properties": {"batch_events_max": {"type": "integer"}}});
    shape["then"] = json!({"required": ["format"], "properties": {"format": {"const": "batch"}}});
    shape
}

fn new_feed() -> Value {
    let channel = json!({"type": "string", "enum": ["pull", "websocket", "kafka"]});
    object(
        &["types", "channel"],
        json!({
            "types": types(), "filters": filters(), "watch_list": or_null(id()), "description": description(), "start": start(),
            "channel": channel,
        }),
    )
}

fn patch() -> Value {
    let own = json!({
        "types": types(), "filters": filters(), "watch_list": or_null(id()), "description": description(), "state": {"type": "string", "enum": ["active", "paused"]},
    });
    let webhook = json!({"sink": sink(), "secret": secret(), "headers": headers(), "verify": or_null(verify())});
    object(&[], merged([own, webhook], chosen()))
}

fn shown(more: &[(&str, Value)]) -> Value {
    let verification = object(
        &["state"],
        json!({
            "state": {"enum": ["verified", "pending", "unverified", "not-required"]}, "method": {"enum": ["options", "challenge"]}, "at": time(),
            "rate_per_minute": count(), "error": text(),
        }),
    );
    let own = json!({
        "id": id(), "organisation": organisation(), "supplier": organisation(), "channel": {"enum": ["webhook", "pull", "websocket", "kafka"]},
        "types": {"type": "array", "items": text()}, "filters": {"type": "array", "items": reference("Filter")}, "watch_list": id(), "sink": text(),
        "description": text(), "start": {"anyOf": [{"enum": ["now", "beginning"]}, time()]},
        "state": {"enum": ["active", "paused", "disabled"]}, "reason": text(), "created_at": time(),
        "headers": {"type": "array", "items": text(), "description": "Names; values are shown to nobody."},
        "verify": verify(), "verification": verification, "previous_secret_until": time(), "topic": text(),
    });
    let more = more.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let mut shape = object(
        &["id", "organisation", "channel", "types", "start", "state", "created_at", "verification"],
        merged([own, settings()], more),
    );
    // A subscription that is shown says so alone in this answer.
    if shape["properties"].get("status").is_some()
        && let Value::Array(required) = &mut shape["required"]
    {
        required.push(json!("status"));
    }
    shape
}

/// What withholds everything.
fn withheld_by() -> Value {
    let reasons: Vec<&str> = Reason::STOPPING.map(Reason::name).into_iter().chain([TYPE_SHUT]).collect();
    or_null(whole(json!({"reason": {"enum": reasons}, "detail": text()})))
}

fn status() -> Value {
    let partition = whole(json!({
        "topic": text(), "partition": count(), "scanned_to": {"type": ["integer", "null"]}, "pending": count(), "collapsed_keys": count(),
    }));
    let waiting = whole(json!({
        "key": {"type": ["string", "null"]}, "topic": text(), "partition": count(), "offset": {"type": ["integer", "null"]}, "attempts": count(),
        "next_attempt_at": or_null(time()), "last_error": text(),
    }));
    let mut counts: Map<String, Value> =
        ["pending", "in_flight", "delivered", "failed_attempts", "withheld", "voided", "filter_errors", "epoch", "next_number"]
            .into_iter()
            .map(|name| (name.to_owned(), count()))
            .collect();
    counts.insert("partitions".to_owned(), json!({"type": "array", "items": partition}));
    counts.insert("waiting".to_owned(), json!({"type": "array", "items": waiting}));
    let endpoint = object(&["breaker"], json!({"breaker": {"enum": ["closed", "half-open", "open"]}, "until": or_null(time())}));
    counts.insert("endpoint".to_owned(), or_null(endpoint));
    counts.insert("oldest_pending_age_ms".to_owned(), json!({"type": ["integer", "null"]}));
    counts.insert("last_attempt".to_owned(), or_null(reference("Attempt")));
    counts.insert("dead_letters".to_owned(), count());
    counts.insert("withheld_by".to_owned(), withheld_by());
    counts.insert("trouble".to_owned(), or_null(text()));
    let required: Vec<String> = counts.keys().cloned().collect();
    // With that channel alone.
    let kafka = json!({"written_number": {"type": ["integer", "null"]}, "trouble": or_null(text())});
    counts.insert("kafka".to_owned(), whole(kafka));
    json!({"type": "object", "required": required, "properties": counts, "additionalProperties": false})
}
