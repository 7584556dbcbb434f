//! `/v1/watch-lists`: made, described, filled, deleted. Keys come in bodies and never go out.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::metrics::gauge::Gauge;
use ryggrad_bridge_core::access::Sight;
use ryggrad_bridge_core::role::Role;
use ryggrad_bridge_core::watch_list::keys::{Form, parse_change, parse_set};
use ryggrad_bridge_core::watch_list::{WatchList, parse_new, parse_patch};
use serde_json::{Value, json};

use super::caller::Caller;
use super::idempotency::DerivedId;
use super::page::{Page, cursor_of, read_cursor};
use super::sent::Sent;
use super::subscriptions::may_act;
use super::{Id, Ready, Shared};
use crate::contract::{Contract, Operation, Rule};
use crate::problem::{Code, Problem};
use crate::watch_lists::WatchListError;

impl From<WatchListError> for Problem {
    fn from(error: WatchListError) -> Self {
        let (said, cause) = (error.to_string(), std::error::Error::source(&error).map(ToString::to_string));
        let problem = match error {
            WatchListError::NotFound => missing(),
            WatchListError::Limit(detail) => Self::limit(detail),
            WatchListError::Damaged | WatchListError::Log(_) | WatchListError::Seal(_) | WatchListError::Stopped => {
                Self::unavailable(&*said)
            }
        };
        problem.noted("a watch list was not changed", &said, cause)
    }
}

/// Makes a list without keys.
pub async fn create(State(shared): State<Arc<Shared>>, caller: Caller, DerivedId(id): DerivedId, body: Sent) -> Result<Response, Problem> {
    let maker = caller.subscriber()?;
    let ready = shared.ready()?;
    may_act(ready, maker)?;
    let new = parse_new(&body.json()?).map_err(Problem::invalid)?;
    let list = ready.watch_lists.create(maker, new, id).await?;
    let location = format!("/v1/watch-lists/{}", list.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(list.public())).into_response())
}

/// The caller's lists, by their ids.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let (ready, sight) = (shared.ready()?, caller.sight()?);
    let page = Page::read(raw.as_deref(), read_cursor)?;
    let mut all = ready.watch_lists.list(sight);
    all.sort_by_key(|list| list.id);
    let (found, next) = page.cut(all, |list| list.id);
    Ok(Json(json!({"watch_lists": found.iter().map(WatchList::public).collect::<Vec<_>>(), "next": next.map(cursor_of)})))
}

/// One list.
pub async fn show(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Json<Value>, Problem> {
    Ok(Json(seen(shared.ready()?, &caller, id)?.public()))
}

/// Changes the description by a JSON merge patch.
pub async fn patch(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, body: Sent) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let list = seen(ready, &caller, id)?;
    caller.runs(list.caller())?;
    may_act(ready, list.caller())?;
    let change = parse_patch(&body.json()?).map_err(Problem::invalid)?;
    let list = match change {
        Some(description) => ready.watch_lists.describe(list.id, description).await?,
        None => list,
    };
    Ok(Json(list.public()))
}

/// Deletes a list that no subscription uses.
pub async fn delete(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<StatusCode, Problem> {
    let ready = shared.ready()?;
    let list = seen(ready, &caller, id)?;
    if ready.subscriptions.delete_watch_list(list.id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(Problem::in_use("a subscription uses this watch list: give that one another, or none (watch_list), or delete it first"))
    }
}

/// Adds keys and takes out others; in force when it is answered.
pub async fn change_keys(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, body: Sent) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let list = own(ready, &caller, id)?;
    let change = parse_change(&body.bytes()?, list.domain).map_err(Problem::invalid)?;
    Ok(Json(ready.watch_lists.change(list.id, change).await?.public()))
}

/// Replaces all keys by those of an upload, in one step.
pub async fn replace_keys(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let list = own(ready, &caller, id)?;
    let busy = || Problem::unavailable("other watch lists are being uploaded; try again");
    let _one = shared.watch_list_uploads.try_acquire().map_err(|_| busy())?;
    let _counted = Counted::one_more(&shared.telemetry.watch_list_uploads);
    let (bytes_max, timeout_ms) = (shared.config.watch_list_upload_bytes_max, shared.config.watch_list_upload_timeout_ms);
    let body = tokio::time::timeout(Duration::from_millis(timeout_ms), to_bytes(body, bytes_max)).await;
    let body = body.map_err(|_| Problem::unavailable(format!("the upload has not arrived within {timeout_ms} ms")))?;
    let body = body.map_err(|_| Problem::too_large(bytes_max))?;
    let text = headers.get(header::CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    let form = if text { Form::Lines } else { Form::Json };
    let keys = tokio::task::spawn_blocking(move || parse_set(&body, form, list.domain)).await;
    let keys = keys.map_err(|_| WatchListError::Stopped)?.map_err(Problem::invalid)?;
    Ok(Json(ready.watch_lists.replace(list.id, keys).await?.public()))
}

/// Counts an upload for as long as it lasts, also if its sender hangs up.
struct Counted<'g>(&'g Gauge);

impl<'g> Counted<'g> {
    fn one_more(gauge: &'g Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn missing() -> Problem {
    Problem::not_found("watch list")
}

/// The list of an address, if the caller may see it.
fn seen(ready: &Ready, caller: &Caller, Id(id): Id) -> Result<WatchList, Problem> {
    let sight = caller.sight()?;
    id.and_then(|id| ready.watch_lists.get(sight, id)).ok_or_else(missing)
}

/// The same if the caller has made it: operators see that a list is there, and keep out of its keys.
fn own(ready: &Ready, caller: &Caller, Id(id): Id) -> Result<WatchList, Problem> {
    let maker = caller.subscriber()?;
    let list = id.and_then(|id| ready.watch_lists.get(Sight::Of(maker), id)).ok_or_else(missing)?;
    may_act(ready, maker)?;
    if list.caller() == maker { Ok(list) } else { Err(Problem::run_by_supplier()) }
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let operation = |method, path, id, summary| Operation::new(method, path, id, "watch lists", summary);
    let (one, keys) = ("/v1/watch-lists/{id}", "/v1/watch-lists/{id}/keys");
    let create = operation("post", "/v1/watch-lists", "createWatchList", "Makes a watch list without keys")
        .rule(Rule::Needs(Role::Subscribe))
        .refuses(&[Code::Stopped])
        .about("The operator's own token speaks for no organisation, and is refused.")
        .takes("NewWatchList")
        .answers(201, "Made.", "WatchList")
        .with("Location", json!({"type": "string", "format": "uri-reference"}), "The list's address.");
    contract.add(create);
    let list = operation("get", "/v1/watch-lists", "listWatchLists", "Lists watch lists, without their keys").pages();
    contract.add(list.answers(200, "A page of them, by their ids.", "WatchLists"));
    let show = operation("get", one, "showWatchList", "Shows a watch list, without its keys");
    contract.add(show.answers(200, "The list.", "WatchList"));
    let patch = operation("patch", one, "describeWatchList", "Changes the description by a JSON merge patch (RFC 7386)");
    let patch = patch.refuses(&[Code::Stopped]);
    contract.add(patch.takes_as("application/merge-patch+json", "WatchListPatch").answers(200, "As it is now.", "WatchList"));
    let delete = operation("delete", one, "deleteWatchList", "Deletes a watch list that no subscription uses").refuses(&[Code::InUse]);
    contract.add(delete.answers_nothing(204, "It is gone."));
    let owner = |operation: Operation| operation.rule(Rule::Needs(Role::Subscribe)).refuses(&[Code::Limit, Code::Stopped]);
    let change = owner(operation("post", keys, "changeWatchListKeys", "Adds keys and takes out others"));
    contract.add(change.takes("WatchListChange").answers(200, "In force.", "WatchList"));
    let replace = owner(operation("put", keys, "replaceWatchListKeys", "Replaces all keys in one step"));
    let replace = replace.about("As a JSON array, or as text/plain with a key on each line.").takes("WatchListKeys");
    contract.add(replace.answers(200, "In force.", "WatchList"));
}
