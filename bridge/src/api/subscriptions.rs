//! `/v1/subscriptions`: made, shown, changed, paused, deleted.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ryggrad_bridge_core::patch::Patch;
use ryggrad_bridge_core::settings::Channel;
use ryggrad_bridge_core::subscription::{Fault, State as SubscriptionState, Subscription, parse};
use ryggrad_schemas::Catalogue;
use serde_json::{Value, json};

use super::caller::Caller;
use super::{Id, Ready, Shared};
use crate::problem::Problem;
use crate::subscriptions::ChangeError;

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        tracing::warn!(error = %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "a change was not made");
        match error {
            ChangeError::Limit(detail) => Self::limit(detail),
            ChangeError::Invalid(faults) => Self::invalid(faults),
            ChangeError::Log(_) | ChangeError::Store(_) | ChangeError::Seal(_) | ChangeError::Stopped => {
                Self::unavailable(error.to_string())
            }
        }
    }
}

/// Reads a body as JSON, with problems instead of plain texts.
pub fn json_body(body: Result<Bytes, BytesRejection>, limit_bytes: usize) -> Result<Value, Problem> {
    let body = body.map_err(|_| Problem::too_large(limit_bytes))?;
    serde_json::from_slice(&body).map_err(|error| {
        Problem::invalid(vec![Fault::new("", format!("the body is no JSON: line {}, column {}", error.line(), error.column()))])
    })
}

/// Makes a subscription.
pub async fn create(State(shared): State<Arc<Shared>>, caller: Caller, body: Result<Bytes, BytesRejection>) -> Result<Response, Problem> {
    let organisation = caller.subscriber()?;
    let ready = shared.ready()?;
    let body = json_body(body, shared.config.request_bytes_max)?;
    let policy = shared.config.egress_policy("");
    let new = parse(&body, Catalogue::built_in(), &policy).map_err(Problem::invalid)?;
    let (subscription, secret) = ready.subscriptions.create(organisation, new).await?;
    let mut shown = subscription.public();
    if subscription.channel == Channel::Webhook {
        shown.insert("secret".to_owned(), json!(secret.reveal()));
    }
    let location = format!("/v1/subscriptions/{}", subscription.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(Value::Object(shown))).into_response())
}

/// The caller's subscriptions.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller) -> Result<Json<Value>, Problem> {
    let found = shared.ready()?.subscriptions.list(caller.sight()?).await;
    Ok(Json(json!({"subscriptions": found.iter().map(Subscription::public).collect::<Vec<_>>()})))
}

/// One subscription with its status.
pub async fn show(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own(ready, caller, id).await?;
    let mut shown = subscription.public();
    shown.insert("status".to_owned(), json!(ready.subscriptions.status(subscription.id).await));
    Ok(Json(Value::Object(shown)))
}

/// Changes a subscription by a JSON merge patch; in force when it is answered, also for retries.
pub async fn patch(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own(ready, caller, id).await?;
    let body = json_body(body, shared.config.request_bytes_max)?;
    let policy = shared.config.egress_policy("");
    let patch = Patch::parse(&body, &subscription, Catalogue::built_in(), &policy).map_err(Problem::invalid)?;
    let changed = ready.subscriptions.patch(subscription.id, patch).await?;
    shown(changed)
}

/// Stops deliveries; the cursor stands.
pub async fn pause(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Json<Value>, Problem> {
    set_state(&shared, caller, id, SubscriptionState::Paused).await
}

/// Starts deliveries again, also after the bridge has disabled them.
pub async fn resume(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Json<Value>, Problem> {
    set_state(&shared, caller, id, SubscriptionState::Active).await
}

/// Deletes the subscription and its cursor.
pub async fn delete(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<StatusCode, Problem> {
    let ready = shared.ready()?;
    let subscription = own(ready, caller, id).await?;
    ready.subscriptions.delete(subscription.id).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_state(shared: &Shared, caller: Caller, id: Id, state: SubscriptionState) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own(ready, caller, id).await?;
    let changed = ready.subscriptions.set_state(subscription.id, state).await?;
    shown(changed)
}

/// A subscription as it is after a change, unless it was deleted in between.
pub(super) fn shown(changed: Option<Subscription>) -> Result<Json<Value>, Problem> {
    changed.map(|changed| Json(Value::Object(changed.public()))).ok_or_else(|| Problem::not_found("subscription"))
}

/// The subscription of an address, if the caller may see it and its receiver comes for its events.
pub(super) async fn own_fetched(ready: &Ready, caller: Caller, id: Id) -> Result<Subscription, Problem> {
    let subscription = own(ready, caller, id).await?;
    if subscription.channel.is_fetched() { Ok(subscription) } else { Err(Problem::other_channel(subscription.channel)) }
}

/// The same where events are posted.
pub(super) async fn own_posted(ready: &Ready, caller: Caller, id: Id) -> Result<Subscription, Problem> {
    let subscription = own(ready, caller, id).await?;
    if subscription.channel.is_fetched() { Err(Problem::other_channel(subscription.channel)) } else { Ok(subscription) }
}

/// The subscription of an address, if the caller may see it.
pub(super) async fn own(ready: &Ready, caller: Caller, Id(id): Id) -> Result<Subscription, Problem> {
    let sight = caller.sight()?;
    let id = id.ok_or_else(|| Problem::not_found("subscription"))?;
    ready.subscriptions.get(sight, id).await.ok_or_else(|| Problem::not_found("subscription"))
}
