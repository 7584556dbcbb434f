//! `/v1/subscriptions`: made, shown, changed, paused, deleted.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use ryggrad_bridge_core::access;
use ryggrad_bridge_core::patch::Patch;
use ryggrad_bridge_core::role::Role;
use ryggrad_bridge_core::settings::Channel;
use ryggrad_bridge_core::subscription::{Precondition, State as SubscriptionState, Subscription, parse};
use serde_json::{Value, json};

use super::caller::Caller;
use super::idempotency::DerivedId;
use super::page::{Page, cursor_of, read_cursor};
use super::query::Query;
use super::sent::Sent;
use super::{Id, Ready, Shared};
use crate::contract::schemas::organisation;
use crate::contract::{Contract, Operation, Rule};
use crate::problem::{Code, Problem};
use crate::runtime::{TYPE_SHUT, withheld_by};
use crate::subscriptions::ChangeError;

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        let (said, cause) = (error.to_string(), std::error::Error::source(&error).map(ToString::to_string));
        let problem = match error {
            ChangeError::Limit(detail) => Self::limit(detail),
            ChangeError::Precondition => Self::precondition(),
            ChangeError::Invalid(faults) => Self::invalid(faults),
            ChangeError::Log(_) | ChangeError::Store(_) | ChangeError::Seal(_) | ChangeError::Stopped => Self::unavailable(&*said),
        };
        problem.noted("a change was not made", &said, cause)
    }
}

/// Makes a subscription.
pub async fn create(State(shared): State<Arc<Shared>>, caller: Caller, DerivedId(id): DerivedId, body: Sent) -> Result<Response, Problem> {
    let maker = caller.subscriber()?;
    let ready = shared.ready()?;
    may_act(ready, maker)?;
    let body = body.json()?;
    let policy = shared.config.egress_policy("");
    let new = parse(&body, shared.catalogue, &policy).map_err(Problem::invalid)?;
    covered(ready, maker, &new.types)?;
    let (subscription, secret) = ready.subscriptions.create(maker, new, id).await?;
    let mut shown = subscription.public();
    if subscription.channel == Channel::Webhook {
        shown.insert("secret".to_owned(), json!(secret.reveal()));
    }
    let location = format!("/v1/subscriptions/{}", subscription.id);
    let head = [(header::LOCATION, location), (header::ETAG, subscription.tag())];
    Ok((StatusCode::CREATED, head, Json(Value::Object(shown))).into_response())
}

/// The caller's subscriptions, by their ids.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let sight = caller.sight()?;
    let mut query = Query::read(raw.as_deref(), &["after", "limit", "supplier"]);
    let supplier = query.organisation("supplier");
    let page = Page::of(query, read_cursor)?;
    let mut all = ready.subscriptions.list(sight).await;
    all.retain(|subscription| supplier.is_none() || supplier == subscription.supplier);
    let (found, next) = page.cut(all, |subscription| subscription.id);
    let listed = |subscription: &Subscription| {
        let mut shown = subscription.public();
        shown.insert("withheld_by".to_owned(), withheld(ready, subscription));
        shown
    };
    let shown: Vec<_> = found.iter().map(listed).collect();
    Ok(Json(json!({"subscriptions": shown, "next": next.map(cursor_of)})))
}

/// One subscription with its status.
pub async fn show(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    let subscription = own(ready, caller, id).await?;
    let mut shown = subscription.public();
    shown.insert("status".to_owned(), json!(ready.subscriptions.status(subscription.id).await));
    shown.insert("withheld_by".to_owned(), withheld(ready, &subscription));
    Ok(([(header::ETAG, subscription.tag())], Json(Value::Object(shown))).into_response())
}

/// Changes a subscription by a JSON merge patch; in force when it is answered, also for retries.
pub async fn patch(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, headers: HeaderMap, body: Sent) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    let subscription = run(ready, caller, id).await?;
    may_act(ready, subscription.caller())?;
    let precondition = precondition(&headers);
    let body = body.json()?;
    let policy = shared.config.egress_policy("");
    let patch = Patch::parse(&body, &subscription, shared.catalogue, &policy).map_err(Problem::invalid)?;
    if let Some(types) = &patch.types {
        covered(ready, subscription.caller(), types)?;
    }
    let changed = ready.subscriptions.patch(subscription.id, &precondition, patch).await?;
    shown(changed)
}

/// Stops deliveries; the cursor stands.
pub async fn pause(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Response, Problem> {
    set_state(&shared, caller, id, SubscriptionState::Paused).await
}

/// Starts deliveries again, also after the bridge has disabled them.
pub async fn resume(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Response, Problem> {
    set_state(&shared, caller, id, SubscriptionState::Active).await
}

/// Deletes the subscription and its cursor.
pub async fn delete(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, headers: HeaderMap) -> Result<StatusCode, Problem> {
    let ready = shared.ready()?;
    let subscription = own(ready, caller, id).await?;
    ready.subscriptions.delete(subscription.id, &precondition(&headers)).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn set_state(shared: &Shared, caller: Caller, id: Id, state: SubscriptionState) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    let subscription = own(ready, caller, id).await?;
    let changed = ready.subscriptions.set_state(subscription.id, state).await?;
    shown(changed)
}

/// A subscription as it is after a change, unless it was deleted in between.
pub(super) fn shown(changed: Option<Subscription>) -> Result<Response, Problem> {
    let changed = changed.ok_or_else(|| Problem::not_found("subscription"))?;
    Ok(([(header::ETAG, changed.tag())], Json(Value::Object(changed.public()))).into_response())
}

/// What a request demands of the subscription that it is about to change.
pub(super) fn precondition(headers: &HeaderMap) -> Precondition {
    // A value that is no text is a tag that nothing has.
    Precondition::if_match(headers.get_all(header::IF_MATCH).iter().map(|value| value.to_str().unwrap_or_default()))
}

/// The subscription of an address, if the caller runs it and its receiver comes for its events.
pub(super) async fn run_fetched(ready: &Ready, caller: Caller, id: Id) -> Result<Subscription, Problem> {
    let subscription = run(ready, caller, id).await?;
    if subscription.channel.is_fetched() { Ok(subscription) } else { Err(Problem::other_channel(subscription.channel)) }
}

/// The same where events are posted.
pub(super) async fn run_posted(ready: &Ready, caller: Caller, id: Id) -> Result<Subscription, Problem> {
    posted(run(ready, caller, id).await?)
}

/// The same, if the caller merely sees it.
pub(super) async fn own_posted(ready: &Ready, caller: Caller, id: Id) -> Result<Subscription, Problem> {
    posted(own(ready, caller, id).await?)
}

fn posted(subscription: Subscription) -> Result<Subscription, Problem> {
    if subscription.channel.is_posted() { Ok(subscription) } else { Err(Problem::other_channel(subscription.channel)) }
}

/// What withholds all that a subscription would get: what stops whoever it is for, or a type that is shut here.
fn withheld(ready: &Ready, subscription: &Subscription) -> Value {
    let stopped = ready.subscriptions.hold(subscription).reason().map(withheld_by);
    json!(stopped.or_else(|| Some(json!({"reason": TYPE_SHUT, "detail": ready.subscriptions.shut(subscription)?}))))
}

/// Refuses what would bring events while whoever a subscription is for is stopped, whoever calls, or a type is shut.
pub(super) fn not_held(ready: &Ready, subscription: &Subscription) -> Result<(), Problem> {
    if let Some(why) = ready.subscriptions.shut(subscription) {
        return Err(Problem::unavailable(why));
    }
    ready.subscriptions.hold(subscription).reason().map_or(Ok(()), |reason| Err(Problem::stopped(reason)))
}

/// Refuses a supplier that may not act now. Whoever acts for itself may ask for what it does not get now.
pub(super) fn may_act(ready: &Ready, maker: access::Caller) -> Result<(), Problem> {
    let reason = maker.supplier.and_then(|_| ready.access.stopped(maker));
    reason.map_or(Ok(()), |reason| Err(Problem::stopped(reason)))
}

/// Refuses a supplier types that were not delegated to it, or not for now.
fn covered(ready: &Ready, maker: access::Caller, types: &[String]) -> Result<(), Problem> {
    let lacks = ready.access.uncovered(maker, types);
    if lacks.is_empty() { Ok(()) } else { Err(Problem::not_delegated(&lacks)) }
}

/// The subscription of an address, if the caller runs it, and does not merely see it.
pub(super) async fn run(ready: &Ready, caller: Caller, id: Id) -> Result<Subscription, Problem> {
    let subscription = own(ready, caller.clone(), id).await?;
    caller.runs(subscription.caller())?;
    Ok(subscription)
}

/// The subscription of an address, if the caller may see it.
pub(super) async fn own(ready: &Ready, caller: Caller, Id(id): Id) -> Result<Subscription, Problem> {
    let sight = caller.sight()?;
    let id = id.ok_or_else(|| Problem::not_found("subscription"))?;
    ready.subscriptions.get(sight, id).await.ok_or_else(|| Problem::not_found("subscription"))
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let operation = |method, path, id, summary| Operation::new(method, path, id, "subscriptions", summary);
    let one = "/v1/subscriptions/{id}";
    let create = operation("post", "/v1/subscriptions", "createSubscription", "Makes a subscription")
        .rule(Rule::Needs(Role::Subscribe))
        .about("The operator's own token speaks for no organisation, and is refused.")
        .takes("NewSubscription")
        .answers(201, "Made; for a webhook with its signing secret, this once.", "CreatedSubscription")
        .with("Location", json!({"type": "string", "format": "uri-reference"}), "The subscription's address.")
        .with_tag()
        .refuses(&[Code::Limit, Code::Stopped]);
    contract.add(create);
    let list = operation("get", "/v1/subscriptions", "listSubscriptions", "Lists subscriptions")
        .about("An organisation sees what its suppliers have made for it, a supplier what it has made itself.")
        .query("supplier", organisation(), "Those alone that this supplier has made.")
        .pages();
    contract.add(list.answers(200, "A page of them, by their ids.", "Subscriptions"));
    let show = operation("get", one, "showSubscription", "Shows a subscription and how it stands");
    contract.add(show.answers(200, "The subscription.", "SubscriptionWithStatus").with_tag());
    let patch = operation("patch", one, "changeSubscription", "Changes a subscription by a JSON merge patch (RFC 7386)")
        .about("In force when it is answered. What only webhooks have is refused for other channels, and batch_events_max without batches.")
        .takes_as("application/merge-patch+json", "SubscriptionPatch")
        .guarded()
        .refuses(&[Code::Stopped])
        .answers(200, "As it is now.", "Subscription")
        .with_tag();
    contract.add(patch);
    let delete = operation("delete", one, "deleteSubscription", "Deletes a subscription with its cursor").guarded();
    contract.add(delete.answers_nothing(204, "It is gone."));
    let pause = operation("post", "/v1/subscriptions/{id}/pause", "pauseSubscription", "Stops deliveries; the cursor stands");
    contract.add(pause.answers(200, "As it is now.", "Subscription").with_tag());
    let resume = operation("post", "/v1/subscriptions/{id}/resume", "resumeSubscription", "Goes on with deliveries where they stopped");
    contract.add(resume.answers(200, "As it is now.", "Subscription").with_tag());
}
