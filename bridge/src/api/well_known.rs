//! What anyone may ask the bridge for at an address that everyone knows: the public halves of its
//! signing keys, and how to get in.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Shared;
use crate::contract::{Contract, Operation};
use crate::problem::{Code, Problem};

/// How long a receiver may keep the list. A key is shown here before it is first used.
const MAX_AGE: &str = "max-age=300";

/// The public keys of asymmetric webhook signatures (`v1a`), the one in use first.
pub async fn webhook_keys(State(shared): State<Arc<Shared>>) -> Response {
    let keys: Vec<Value> = shared.webhook_keys.iter().map(|key| json!({"kid": key.id(), "public": key.to_string()})).collect();
    ([(header::CACHE_CONTROL, MAX_AGE)], Json(json!({"keys": keys}))).into_response()
}

/// The API as clients of the issuer have to know it (RFC 9728).
pub async fn protected_resource(State(shared): State<Arc<Shared>>) -> Result<Response, Problem> {
    let trust = shared.trust.as_ref().ok_or_else(|| Problem::not_found("issuer"))?;
    Ok(([(header::CACHE_CONTROL, MAX_AGE)], Json(trust.metadata())).into_response())
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let keys =
        Operation::new("get", "/.well-known/webhook-keys", "webhookKeys", "operation", "The public keys of webhook signatures (v1a)");
    let max_age = serde_json::json!({"const": MAX_AGE});
    let kept = "How long they may be kept.";
    contract.add(keys.answers(200, "The one in use first.", "WebhookKeys").with("Cache-Control", max_age.clone(), kept));
    let path = "/.well-known/oauth-protected-resource";
    let resource = Operation::new("get", path, "protectedResource", "operation", "How to get in: issuer, scopes, proofs (RFC 9728)")
        .about("There is none where the bridge issues tokens of its own.");
    contract.add(
        resource
            .answers(200, "The API as a protected resource.", "ProtectedResource")
            .with("Cache-Control", max_age, "How long it may be kept.")
            .refuses(&[Code::NotFound]),
    );
}
