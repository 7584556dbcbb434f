//! `…/replays`: a part of the log once more beside what is live; where each is, and how it ended.
//!
//! Must never change anything in a preview.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ryggrad_bridge_core::replay::{Replay, ReplayRequest, ReplayState};
use ryggrad_bridge_core::rewind::Partition;
use ryggrad_bridge_core::subscription::Subscription;
use serde_json::{Value, json};
use uuid::Uuid;

use super::caller::Caller;
use super::idempotency::DerivedId;
use super::page::{Page, cursor_of, read_cursor};
use super::rewind::shown;
use super::sent::Sent;
use super::subscriptions::{not_held, own_posted, run_posted};
use super::{Id, Ready, Shared};
use crate::contract::{Contract, Operation};
use crate::counting::Selection;
use crate::problem::{Code, Problem};
use crate::runtime::{ReplayProgress, topic_name};

/// Begins a replay, or says what it would bring.
pub async fn begin(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    DerivedId(derived): DerivedId,
    body: Sent,
) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    let subscription = run_posted(ready, caller, id).await?;
    not_held(ready, &subscription)?;
    let request = ReplayRequest::parse(&body.json()?).map_err(Problem::invalid)?;
    // Looked for first: where it ends was fixed when it began.
    if let Some(derived) = derived
        && let Some(begun) = ready.subscriptions.replay_begun(subscription.id, derived).await
    {
        let progress = ready.subscriptions.replay_progress(begun.id).await;
        return Ok(created(&subscription, &begun, progress));
    }
    let stretches = ready.subscriptions.plan_replay(&subscription, &request).await?;
    if request.preview {
        let mut preview = json!({"preview": true, "partitions": shown(&stretches, None)});
        if request.count {
            let selection = Selection::of(&subscription, request.narrowing());
            let counted = ready.subscriptions.count(&stretches, selection).await?;
            preview["partitions"] = json!(shown(&stretches, Some(&counted)));
            preview["counted_to_the_end"] = json!(counted.is_whole);
        }
        return Ok(Json(preview).into_response());
    }
    let replay = ready.subscriptions.begin_replay(&subscription, derived, request, &stretches).await?;
    Ok(created(&subscription, &replay, None))
}

fn created(subscription: &Subscription, replay: &Replay, progress: Option<ReplayProgress>) -> Response {
    let location = format!("/v1/subscriptions/{}/replays/{}", subscription.id, replay.id);
    let body = Json(standing(subscription, replay, progress));
    (StatusCode::CREATED, [(header::LOCATION, location)], body).into_response()
}

/// The replays that are remembered, newest first: those that begin meanwhile stand on no later page.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own_posted(ready, caller, id).await?;
    let page = Page::read(raw.as_deref(), |text| read_cursor(text).map(|place| Reverse(place.as_u128())))?;
    let (found, next) = page.cut(ready.subscriptions.replays(subscription.id).await, |replay| Reverse(replay.age()));
    let mut shown = Vec::new();
    for replay in found {
        shown.push(standing(&subscription, &replay, ready.subscriptions.replay_progress(replay.id).await));
    }
    Ok(Json(json!({"replays": shown, "next": next.map(|Reverse(age)| cursor_of(Uuid::from_u128(age)))})))
}

/// How one stands.
pub async fn show(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    path: Result<Path<HashMap<String, String>>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let (subscription, replay) = own_replay(ready, caller, id, path).await?;
    let progress = ready.subscriptions.replay_progress(replay.id).await;
    Ok(Json(standing(&subscription, &replay, progress)))
}

/// Ends one for good; nothing of it leaves after the answer.
pub async fn cancel(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    path: Result<Path<HashMap<String, String>>, PathRejection>,
) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let (subscription, replay) = own_replay(ready, caller.clone(), id, path).await?;
    caller.runs(subscription.caller())?;
    let ended = ready.subscriptions.cancel_replay(replay.id).await?.ok_or_else(|| Problem::not_found("replay"))?;
    Ok(Json(standing(&subscription, &ended, None)))
}

async fn own_replay(
    ready: &Ready,
    caller: Caller,
    id: Id,
    path: Result<Path<HashMap<String, String>>, PathRejection>,
) -> Result<(Subscription, Replay), Problem> {
    let subscription = own_posted(ready, caller, id).await?;
    let replay = path.ok().and_then(|Path(named)| named.get("replay")?.parse().ok());
    let absent = || Problem::not_found("replay");
    let replay = ready.subscriptions.replay(subscription.id, replay.ok_or_else(absent)?).await.ok_or_else(absent)?;
    Ok((subscription, replay))
}

/// A replay for its owner's eyes.
fn standing(subscription: &Subscription, replay: &Replay, progress: Option<ReplayProgress>) -> Value {
    let catalogue = ryggrad_schemas::Catalogue::built_in();
    let tally = progress.as_ref().map(|progress| progress.tally).or(replay.tally).unwrap_or_default();
    let positions: BTreeMap<Partition, i64> = progress
        .into_iter()
        .flat_map(|progress| progress.positions)
        .map(|(place, at)| (Partition { topic: topic_name(catalogue, place.topic).to_owned(), partition: place.partition }, at))
        .collect();
    let (mut done, mut whole) = (0, 0);
    let mut partitions = Vec::new();
    for bounds in replay.partitions.iter().filter(|bounds| bounds.from < bounds.to) {
        let known = positions.get(&bounds.partition).copied();
        let position = known.unwrap_or(if replay.state == ReplayState::Finished { bounds.to } else { bounds.from }).min(bounds.to);
        let Partition { topic, partition } = &bounds.partition;
        // Where a topic is not for everyone, offsets would tell of events that there are and that are not shown.
        if !catalogue.is_protected(topic) {
            done += position - bounds.from;
            whole += bounds.to - bounds.from;
            partitions.push(json!({"topic": topic, "partition": partition, "from": bounds.from, "to": bounds.to, "position": position}));
        } else {
            partitions.push(json!({"topic": topic, "partition": partition}));
        }
    }
    let is_over = replay.state == ReplayState::Finished || partitions.is_empty();
    let share_done = if whole == 0 { f64::from(u8::from(is_over)) } else { done as f64 / whole as f64 };
    json!({
        "id": replay.id, "subscription": subscription.id, "state": replay.state, "types": replay.types,
        "filters": replay.filters.as_ref().map_or_else(|| json!([]), |filters| json!(filters)),
        "events_per_minute_max": replay.events_per_minute_max, "started_at": replay.started_at, "ended_at": replay.ended_at,
        "matched": tally.matched, "delivered": tally.delivered, "set_aside": tally.set_aside,
        "share_done": (share_done * 1_000.0).round() / 1_000.0, "partitions": partitions,
    })
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let operation = |method, path, id, summary| Operation::new(method, path, id, "deliveries", summary).refuses(&[Code::Channel]);
    let (all, one) = ("/v1/subscriptions/{id}/replays", "/v1/subscriptions/{id}/replays/{replay}");
    let part = |operation: Operation| operation.path_part("replay", json!({"type": "string", "format": "uuid"}), "Its id.");
    let begin = operation("post", all, "beginReplay", "Posts a part of the log once more, beside what is live")
        .takes("NewReplay")
        .answers(200, "What it would bring; nothing was changed.", "Rewound")
        .answers(201, "It has begun.", "Replay")
        .with("Location", json!({"type": "string", "format": "uri-reference"}), "The replay's address.")
        .refuses(&[Code::Limit, Code::Stopped]);
    contract.add(begin);
    let list = operation("get", all, "listReplays", "Lists what runs and the latest that have ended").pages();
    contract.add(list.answers(200, "A page of them, newest first.", "Replays"));
    contract.add(part(operation("get", one, "showReplay", "Shows how far a replay is")).answers(200, "The replay.", "Replay"));
    let cancel = operation("post", "/v1/subscriptions/{id}/replays/{replay}/cancel", "cancelReplay", "Ends a replay for good");
    contract.add(part(cancel).answers(200, "Nothing of it leaves any more.", "Replay"));
}
