//! `…/rotate-secret`: another signing secret, beside which the present one signs for a while.
//!
//! Must never show a secret but the new one, this once.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use ryggrad_bridge_core::subscription::Rotation;
use serde_json::{Value, json};

use super::caller::Caller;
use super::sent::Sent;
use super::subscriptions::run_posted;
use super::{Id, Shared};
use crate::contract::{Contract, Operation};
use crate::problem::{Code, Problem};

/// Makes a new secret and shows it, this once.
pub async fn rotate(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, body: Sent) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = run_posted(ready, caller, id).await?;
    let rotation = Rotation::parse(&body.json()?).map_err(Problem::invalid)?;
    let rotated = ready.subscriptions.rotate_secret(subscription.id, rotation).await?;
    let (subscription, secret) = rotated.ok_or_else(|| Problem::not_found("subscription"))?;
    let shown = subscription.public();
    Ok(Json(json!({
        "id": subscription.id, "secret": secret.reveal(), "previous_secret_until": shown.get("previous_secret_until"),
    })))
}

/// What this call promises.
pub fn describe(contract: &mut Contract) {
    let path = "/v1/subscriptions/{id}/rotate-secret";
    let rotate = Operation::new("post", path, "rotateSecret", "subscriptions", "Makes another signing secret; both sign for a while");
    contract.add(rotate.takes("Rotation").answers(200, "The new secret, this once.", "RotatedSecret").refuses(&[Code::Channel]));
}
