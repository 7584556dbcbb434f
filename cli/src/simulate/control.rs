//! The control interface beside the API, under `/_simulator`: for tests, no part of upstream.
//!
//! It shows the whole registry and lets a test hold time, make changes and order faults. Nothing
//! under the API's own path may ever depend on it being there.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use tracing::error;
use url::form_urlencoded;

use super::{api::bad_request, faults::Fault, query::BadParameter, service::Service, world::NoChange};

type Shared = State<Arc<Service>>;

const CHANGES_AT_MOST: u64 = 1_000_000;
const FAULTS_PATH: &str = "/_simulator/faults";
const CHANGES_PATH: &str = "/_simulator/changes";

pub(super) fn routes() -> Router<Arc<Service>> {
    Router::new()
        .route("/_simulator/units", get(units))
        .route("/_simulator/status", get(status))
        .route("/_simulator/pause", post(pause))
        .route("/_simulator/resume", post(resume))
        .route(CHANGES_PATH, post(changes))
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
    let rendered = tokio::task::spawn_blocking(move || {
        let mut lines = String::new();
        for unit in service.world().read().units() {
            let line = json!({
                "organisasjonsnummer": unit.number,
                "kind": unit.kind.word(),
                "status": unit.status,
                "document": unit.document,
            });
            lines.push_str(&line.to_string());
            lines.push('\n');
        }
        lines
    });
    match rendered.await {
        Ok(lines) => ([(header::CONTENT_TYPE, "application/x-ndjson")], lines).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn changes(State(service): Shared, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let count = form_urlencoded::parse(query.as_bytes()).find(|(parameter, _)| parameter == "count").map_or("1".into(), |(_, count)| count);
    let Some(changes) = count.parse().ok().filter(|it| *it <= CHANGES_AT_MOST) else {
        let bad = BadParameter::new("count", &count, "count is a whole number to 1000000");
        return bad_request(&bad, CHANGES_PATH);
    };
    let maker = Arc::clone(&service);
    match tokio::task::spawn_blocking(move || maker.world().make_changes(changes)).await {
        Ok(Ok(())) => Json(service.status()).into_response(),
        Ok(Err(NoChange::Recorded)) => {
            let body = json!({"error": "recorded answers stand still: no changes can be made"});
            (StatusCode::CONFLICT, Json(body)).into_response()
        }
        Ok(Err(NoChange::Disk(reason))) => {
            error!(error = format!("{reason:#}"), "changes not made");
            let body = json!({"error": format!("{reason:#}")});
            (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
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
