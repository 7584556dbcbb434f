//! The shapes of what comes once more: rewinds, replays, and what was set aside.

use ryggrad_bridge_core::filter::FILTERS_MAX;
use ryggrad_bridge_core::replay::{EVENTS_PER_MINUTE, EVENTS_PER_MINUTE_DEFAULT};
use ryggrad_bridge_core::rewind::PLACES_MAX;
use serde_json::{Value, json};

use super::schemas::{count, id, object, page, reference, text, time, whole};
use super::subscription::types;

fn place() -> Value {
    whole(json!({
        "topic": text(), "partition": {"type": "integer", "minimum": 0, "maximum": i32::MAX},
        "offset": {"type": "integer", "minimum": 0, "maximum": 9_007_199_254_740_991_i64},
    }))
}

/// A point in the log; a list names each partition once.
fn point() -> Value {
    let offsets = json!({"type": "array", "minItems": 1, "maxItems": PLACES_MAX, "items": place()});
    json!({"anyOf": [{"const": "beginning"}, time(), offsets]})
}

/// What a selection of what was set aside is made of: one place, or a key and times.
fn selection() -> Value {
    let id = json!({"type": "string", "pattern": "^[^:]+:[0-9]{1,9}:[0-9]{1,18}$|^[^:]+:[0-9a-f]{32}$"});
    let more = json!({"id": id, "key": text(), "from": time(), "to": time(), "preview": {"type": "boolean", "default": false}});
    let mut shape = place();
    if let (Some(Value::Object(properties)), Value::Object(more)) = (shape.get_mut("properties"), more) {
        properties.extend(more);
    }
    shape["required"] = json!([]);
    shape["not"] = json!({"required": ["id", "topic"]});
    let together = json!(["topic", "partition", "offset"]);
    shape["dependentRequired"] = json!({"topic": together, "partition": together, "offset": together});
    shape
}

/// The shapes by their names.
pub fn shapes() -> [(&'static str, Value); 6] {
    let flag = |default: bool| json!({"type": "boolean", "default": default});
    let rewind = json!({"to": point(), "preview": flag(false), "count": flag(true)});
    let stretch = json!({
        "topic": text(), "partition": count(), "from": count(), "to": count(), "position": count(), "log_start": count(),
        "log_end": count(), "records_max": count(), "matching": {"type": ["integer", "null"], "minimum": 0},
    });
    let stretch = object(&["topic", "partition"], stretch);
    let rewound = json!({
        "preview": {"type": "boolean"}, "partitions": {"type": "array", "items": stretch},
        "counted_to_the_end": {"type": "boolean", "description": "If not, there are at least so many as `matching` says."},
    });
    let rate = json!({"type": "integer", "minimum": EVENTS_PER_MINUTE.start(), "maximum": EVENTS_PER_MINUTE.end()});
    let mut chosen_rate = rate.clone();
    chosen_rate["default"] = json!(EVENTS_PER_MINUTE_DEFAULT);
    let to = json!({"anyOf": [{"const": "now"}, point()], "default": "now"});
    let new = json!({
        "from": point(), "to": to, "types": types(), "filters": {"type": "array", "maxItems": FILTERS_MAX, "items": reference("Filter")},
        "events_per_minute_max": chosen_rate, "preview": flag(false), "count": flag(true),
    });
    let partition = json!({"topic": text(), "partition": count(), "from": count(), "to": count(), "position": count()});
    let partition = object(&["topic", "partition"], partition);
    let replay = whole(json!({
        "id": id(), "subscription": id(), "state": {"enum": ["running", "finished", "cancelled"]},
        "types": {"type": "array", "items": text()}, "filters": {"type": "array", "items": reference("Filter")},
        "events_per_minute_max": rate, "started_at": time(), "ended_at": {"type": ["string", "null"], "format": "date-time"},
        "matched": count(), "delivered": count(), "set_aside": count(), "share_done": {"type": "number", "minimum": 0, "maximum": 1},
        "partitions": {"type": "array", "items": partition},
    }));
    [
        ("DeadLetterSelection", selection()),
        ("Rewind", object(&["to"], rewind)),
        ("Rewound", object(&["preview", "partitions"], rewound)),
        ("NewReplay", object(&["from"], new)),
        ("Replay", replay),
        ("Replays", page("replays", "Replay")),
    ]
}
