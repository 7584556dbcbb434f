//! The control interface beside the API, under `/_simulator`: for tests, no part of upstream.
//!
//! It shows the whole registry and lets a test hold time, make changes and order faults. Nothing
//! under the API's own path may ever depend on it being there.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tracing::error;
use url::form_urlencoded;

use super::{
    act::{Act, Refused},
    api::bad_request,
    faults::Fault,
    number::Organisasjonsnummer,
    query::BadParameter,
    service::Service,
    stream,
    world::NoChange,
};

type Shared = State<Arc<Service>>;

const CHANGES_AT_MOST: u64 = 1_000_000;
const FAULTS_PATH: &str = "/_simulator/faults";
const CHANGES_PATH: &str = "/_simulator/changes";
const NEW_FIELD_PATH: &str = "/_simulator/new-field";
const FEED_LAG_PATH: &str = "/_simulator/feed-lag";
const UNITS_PATH: &str = "/_simulator/units";
/// Units that an answer about changes names.
const CHANGED_AT_MOST: usize = 10_000;
const FEED_LAG_MS_AT_MOST: u64 = 86_400_000;
const FIELD_NAME_BYTES_AT_MOST: usize = 64;

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route(UNITS_PATH, get(units))
        .route(&format!("{UNITS_PATH}/{{number}}/delete"), post(delete))
        .route(&format!("{UNITS_PATH}/{{number}}/remove"), post(remove))
        .route("/_simulator/status", get(status))
        .route("/_simulator/pause", post(pause))
        .route("/_simulator/resume", post(resume))
        .route(CHANGES_PATH, post(changes))
        .route(NEW_FIELD_PATH, post(new_field))
        .route(FEED_LAG_PATH, post(feed_lag))
        .route("/_simulator/dumps/freeze", post(freeze))
        .route("/_simulator/dumps/thaw", post(thaw))
        .route(FAULTS_PATH, get(faults).post(order_fault).delete(clear_faults))
}

async fn status(State(service): Shared) -> Json<Value> {
    Json(service.status())
}

async fn pause(State(service): Shared) -> Json<Value> {
    service.set_running(false);
    Json(service.status())
}

async fn resume(State(service): Shared) -> Json<Value> {
    service.set_running(true);
    Json(service.status())
}

/// Every unit, one JSON object a line.
async fn units(State(service): Shared) -> Response {
    let body = stream::body(None, move |out| {
        let units = service.world().read().units();
        for unit in units {
            let line = json!({
                "organisasjonsnummer": unit.number,
                "kind": unit.kind.word(),
                "status": unit.status,
                "document": unit.document,
            });
            writeln!(out, "{line}")?;
        }
        Ok(())
    });
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// The value of a parameter, if it is there.
fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(parameter, _)| parameter == name).map(|(_, value)| value.into_owned())
}

fn is_silent(query: &str) -> Result<bool, BadParameter> {
    match parameter(query, "silent") {
        None => Ok(false),
        Some(value) => value.parse().map_err(|_| BadParameter::new("silent", &value, "silent is true or false")),
    }
}

async fn changes(State(service): Shared, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    match asked_changes(&query) {
        Ok((act, silent, count)) => carry_out(service, act, silent, count).await,
        Err(bad) => bad_request(&bad, CHANGES_PATH),
    }
}

fn asked_changes(query: &str) -> Result<(Act, bool, u64), BadParameter> {
    let count = parameter(query, "count").unwrap_or_else(|| "1".to_owned());
    let changes = count.parse().ok().filter(|it| *it <= CHANGES_AT_MOST);
    let changes = changes.ok_or_else(|| BadParameter::new("count", &count, "count is a whole number to 1000000"))?;
    let kind = parameter(query, "kind").unwrap_or_else(|| "any".to_owned());
    let reason = "kind is any, edit, creation, deletion or removal";
    let act = Act::of_kind(&kind).ok_or_else(|| BadParameter::new("kind", &kind, reason))?;
    Ok((act, is_silent(query)?, changes))
}

/// Carries it out; the answer is the status, and in `changed` the units that it struck.
async fn carry_out(service: Arc<Service>, act: Act, silent: bool, count: u64) -> Response {
    let maker = Arc::clone(&service);
    match tokio::task::spawn_blocking(move || maker.world().carry_out(&act, silent, count, CHANGED_AT_MOST)).await {
        Ok(Ok(struck)) => {
            let mut status = service.status();
            status["changed"] = json!(struck);
            Json(status).into_response()
        }
        Ok(Err(reason)) => not_changed(reason),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn not_changed(reason: NoChange) -> Response {
    let (status, text) = match reason {
        NoChange::Recorded => (StatusCode::CONFLICT, "recorded answers stand still: no changes can be made".to_owned()),
        NoChange::Refused(Refused::Unknown) => (StatusCode::NOT_FOUND, Refused::Unknown.reason().to_owned()),
        NoChange::Refused(refused) => (StatusCode::CONFLICT, refused.reason().to_owned()),
        NoChange::TooManyOrders => (StatusCode::CONFLICT, "the state file cannot hold more orders".to_owned()),
        NoChange::Disk(reason) => {
            error!(error = format!("{reason:#}"), "changes not made");
            (StatusCode::INTERNAL_SERVER_ERROR, format!("{reason:#}"))
        }
    };
    (status, Json(json!({"error": text}))).into_response()
}

async fn delete(State(service): Shared, Path(number): Path<String>, RawQuery(query): RawQuery) -> Response {
    end(service, &number, query, |organisasjonsnummer| Act::Delete { organisasjonsnummer }).await
}

async fn remove(State(service): Shared, Path(number): Path<String>, RawQuery(query): RawQuery) -> Response {
    end(service, &number, query, |organisasjonsnummer| Act::Remove { organisasjonsnummer }).await
}

async fn end(service: Arc<Service>, number: &str, query: Option<String>, act: fn(Organisasjonsnummer) -> Act) -> Response {
    let Some(organisasjonsnummer) = Organisasjonsnummer::parse(number) else {
        let bad = BadParameter::new("organisasjonsnummer", number, "an organisasjonsnummer is nine digits");
        return bad_request(&bad, UNITS_PATH);
    };
    match is_silent(&query.unwrap_or_default()) {
        Ok(silent) => carry_out(service, act(organisasjonsnummer), silent, 1).await,
        Err(bad) => bad_request(&bad, UNITS_PATH),
    }
}

async fn new_field(State(service): Shared, RawQuery(query): RawQuery) -> Response {
    let name = parameter(&query.unwrap_or_default(), "name").unwrap_or_default();
    let is_name = !name.is_empty() && name.len() <= FIELD_NAME_BYTES_AT_MOST && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_name {
        let bad = BadParameter::new("name", &name, "name is 1 to 64 letters and digits");
        return bad_request(&bad, NEW_FIELD_PATH);
    }
    carry_out(service, Act::NewField { name }, true, 1).await
}

async fn feed_lag(State(service): Shared, RawQuery(query): RawQuery) -> Response {
    let text = parameter(&query.unwrap_or_default(), "ms").unwrap_or_default();
    let Some(ms) = text.parse().ok().filter(|ms| *ms <= FEED_LAG_MS_AT_MOST) else {
        let bad = BadParameter::new("ms", &text, "ms is a whole number to 86400000");
        return bad_request(&bad, FEED_LAG_PATH);
    };
    service.world().set_lag(Duration::from_millis(ms));
    Json(service.status()).into_response()
}

async fn freeze(State(service): Shared) -> Response {
    let maker = Arc::clone(&service);
    let frozen = tokio::task::spawn_blocking(move || maker.world().freeze()).await;
    dumps_set(&service, frozen.ok())
}

async fn thaw(State(service): Shared) -> Response {
    let maker = Arc::clone(&service);
    let thawed = tokio::task::spawn_blocking(move || maker.world().thaw()).await;
    dumps_set(&service, thawed.ok())
}

fn dumps_set(service: &Service, outcome: Option<Result<(), NoChange>>) -> Response {
    match outcome {
        Some(Ok(())) => Json(service.status()).into_response(),
        Some(Err(reason)) => not_changed(reason),
        None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn faults(State(service): Shared) -> Json<Value> {
    Json(json!(service.faults().waiting()))
}

async fn clear_faults(State(service): Shared) -> Json<Value> {
    service.faults().clear();
    Json(json!([]))
}

async fn order_fault(State(service): Shared, body: Bytes) -> Response {
    let fault: Fault = match serde_json::from_slice(&body) {
        Ok(fault) => fault,
        Err(error) => {
            let bad = BadParameter::new("body", &error.to_string(), "no fault to order");
            return bad_request(&bad, FAULTS_PATH);
        }
    };
    if let Err(bad) = service.faults().order(fault) {
        return bad_request(&bad, FAULTS_PATH);
    }
    Json(json!(service.faults().waiting())).into_response()
}
