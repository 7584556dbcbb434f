//! The shapes of watch lists. Keys come in, and no shape shows them.

use ryggrad_bridge_core::subscription::DESCRIPTION_CHARS_MAX;
use serde_json::{Value, json};

use super::schemas::{count, id, object, or_null, organisation, page, text, time};

fn domain() -> Value {
    json!({"type": "string", "enum": ["organisasjonsnummer"]})
}

fn description() -> Value {
    or_null(json!({"type": "string", "maxLength": DESCRIPTION_CHARS_MAX}))
}

fn keys() -> Value {
    json!({"type": "array", "items": organisation()})
}

/// The shapes by their names.
pub fn shapes() -> [(&'static str, Value); 6] {
    let shown = json!({
        "id": id(), "organisation": organisation(), "supplier": organisation(), "domain": domain(), "description": text(), "keys_count": count(),
        "generation": count(), "created_at": time(), "updated_at": time(),
    });
    [
        ("NewWatchList", object(&["domain"], json!({"domain": domain(), "description": description()}))),
        ("WatchListPatch", object(&[], json!({"description": description()}))),
        ("WatchListChange", object(&[], json!({"add": keys(), "remove": keys()}))),
        ("WatchListKeys", keys()),
        ("WatchList", object(&["id", "organisation", "domain", "keys_count", "generation", "created_at", "updated_at"], shown)),
        ("WatchLists", page("watch_lists", "WatchList")),
    ]
}
