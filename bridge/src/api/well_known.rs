//! What anyone may ask the bridge for at an address that everyone knows: the public halves of its
//! signing keys.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use crate::contract::{Contract, Operation};

/// How long a receiver may keep the list. A key is shown here before it is first used.
const MAX_AGE: &str = "max-age=300";

/// The public keys of asymmetric webhook signatures (`v1a`), the one in use first.
pub async fn webhook_keys(State(shared): State<Arc<Shared>>) -> Response {
    let keys: Vec<Value> = shared.webhook_keys.iter().map(|key| json!({"kid": key.id(), "public": key.to_string()})).collect();
    ([(header::CACHE_CONTROL, MAX_AGE)], Json(json!({"keys": keys}))).into_response()
}

/// What this call promises.
pub fn describe(contract: &mut Contract) {
    let keys =
        Operation::new("get", "/.well-known/webhook-keys", "webhookKeys", "operation", "The public keys of webhook signatures (v1a)");
    let max_age = serde_json::json!({"const": MAX_AGE});
    contract.add(keys.answers(200, "The one in use first.", "WebhookKeys").with("Cache-Control", max_age, "How long they may be kept."));
}
