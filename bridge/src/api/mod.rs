//! The HTTP API: routes, who calls, and what everyone may see (health, metrics, schemas).

mod access;
mod attempts;
mod caller;
mod dead_letters;
mod disclosures;
mod idempotency;
mod members;
pub mod page;
mod pull;
mod query;
mod replays;
mod request_quota;
mod rewind;
mod secrets;
mod sent;
mod socket;
mod subscriptions;
mod tokens;
mod verification;
mod watch_lists;
mod well_known;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use ryggrad_bridge_core::asymmetric::PublicKey;
use ryggrad_schemas::Catalogue;
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use uuid::Uuid;

use self::access::{Blocks, Delegations, Grants, Relations};
use crate::access::Access;
use crate::answers::Answers;
use crate::config::BridgeConfig;
use crate::contract::{self, Contract, Operation};
use crate::disclosures::Disclosures;
use crate::problem::Problem;
use crate::schema_registry;
use crate::sockets::Sockets;
use crate::subscriptions::Subscriptions;
use crate::telemetry::Telemetry;
use crate::tokens::Tokens;
use crate::trust::Trust;
use crate::watch_lists::WatchLists;
pub use request_quota::RequestQuota;

/// What is there once the bridge has found Kafka and its facts.
pub struct Ready {
    /// Subscriptions.
    pub subscriptions: Arc<Subscriptions>,
    /// Tokens.
    pub tokens: Tokens,
    /// What was disclosed.
    pub disclosures: Arc<Disclosures>,
    /// Members, delegations, grants, relations and blocks.
    pub access: Arc<Access>,
    /// Watch lists.
    pub watch_lists: Arc<WatchLists>,
    /// Answers to requests that may be repeated.
    pub answers: Arc<Answers>,
}

/// What every request sees.
pub struct Shared {
    /// Settings.
    pub config: BridgeConfig,
    /// The operator's token.
    pub operator_tokens: Vec<SecretString>,
    /// All metrics.
    pub registry: Registry,
    /// Those that the API itself counts.
    pub telemetry: Telemetry,
    /// Event types and topics, as far as they are open here.
    pub catalogue: &'static Catalogue,
    /// Whose tokens count, if not the bridge's own.
    pub trust: Option<Arc<Trust>>,
    /// How much each organisation may ask.
    pub quota: RequestQuota,
    /// What receivers verify asymmetric signatures with.
    pub webhook_keys: Vec<PublicKey>,
    /// Set once; before that the API answers 503.
    pub ready: OnceLock<Ready>,
    /// Uploads of watch lists: no more at the same time than this lets through.
    pub watch_list_uploads: Semaphore,
    /// Open WebSocket connections.
    pub sockets: Arc<Sockets>,
    /// What keeps the bridge from working, if anything does.
    pub obstacle: watch::Sender<Option<String>>,
}

impl Shared {
    fn ready(&self) -> Result<&Ready, Problem> {
        self.ready.get().ok_or_else(|| Problem::unavailable(self.obstacle.borrow().clone().unwrap_or_else(|| "starting".to_owned())))
    }
}

/// The id in an address; `None` where it can be nobody's.
pub struct Id(pub Option<Uuid>);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let found = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        Ok(Self(found.ok().and_then(|Path(named)| named.get("id")?.parse().ok())))
    }
}

/// The whole API.
pub fn router(shared: Arc<Shared>) -> Router {
    let request_bytes_max = shared.config.request_bytes_max;
    Router::new()
        .route("/v1/subscriptions", post(subscriptions::create).get(subscriptions::list))
        .route("/v1/subscriptions/{id}", get(subscriptions::show).patch(subscriptions::patch).delete(subscriptions::delete))
        .route("/v1/subscriptions/{id}/pause", post(subscriptions::pause))
        .route("/v1/subscriptions/{id}/resume", post(subscriptions::resume))
        .route("/v1/subscriptions/{id}/rotate-secret", post(secrets::rotate))
        .route("/v1/subscriptions/{id}/verify", post(verification::verify))
        .route("/v1/subscriptions/{id}/test", post(verification::test))
        .route("/v1/subscriptions/{id}/events", get(pull::events))
        .route("/v1/subscriptions/{id}/socket", get(socket::open))
        .route("/v1/subscriptions/{id}/ack", post(pull::acknowledge))
        .route("/v1/subscriptions/{id}/attempts", get(attempts::list))
        .route("/v1/subscriptions/{id}/dead-letters", get(dead_letters::list))
        .route("/v1/subscriptions/{id}/dead-letters/redrive", post(dead_letters::redrive))
        .route("/v1/subscriptions/{id}/dead-letters/discard", post(dead_letters::discard))
        .route("/v1/subscriptions/{id}/dead-letters/{letter}", delete(dead_letters::remove))
        .route("/v1/subscriptions/{id}/rewind", post(rewind::rewind))
        .route("/v1/subscriptions/{id}/replays", post(replays::begin).get(replays::list))
        .route("/v1/subscriptions/{id}/replays/{replay}", get(replays::show))
        .route("/v1/subscriptions/{id}/replays/{replay}/cancel", post(replays::cancel))
        .route("/v1/watch-lists", post(watch_lists::create).get(watch_lists::list))
        .route("/v1/watch-lists/{id}", get(watch_lists::show).patch(watch_lists::patch).delete(watch_lists::delete))
        .route("/v1/watch-lists/{id}/keys", post(watch_lists::change_keys).put(watch_lists::replace_keys))
        .route("/v1/members", get(members::list))
        .route("/v1/members/{organisation}", get(members::show).put(members::put).delete(members::delete))
        .route("/v1/members/{organisation}/lacks", get(members::lacks))
        .route("/v1/access-history", get(members::history))
        .route("/v1/delegations", post(access::create::<Delegations>).get(access::list::<Delegations>))
        .route("/v1/delegations/{id}", get(access::show::<Delegations>).delete(access::delete::<Delegations>))
        .route("/v1/grants", post(access::create::<Grants>).get(access::list::<Grants>))
        .route("/v1/grants/{id}", get(access::show::<Grants>).delete(access::delete::<Grants>))
        .route("/v1/relations", post(access::create::<Relations>).get(access::list::<Relations>))
        .route("/v1/relations/{id}", get(access::show::<Relations>).delete(access::delete::<Relations>))
        .route("/v1/blocks", post(access::create::<Blocks>).get(access::list::<Blocks>))
        .route("/v1/blocks/{id}", get(access::show::<Blocks>).delete(access::delete::<Blocks>))
        .route("/v1/disclosures/search", post(disclosures::search))
        .route("/v1/disclosures/verify", post(disclosures::verify))
        .route("/v1/disclosures/reveal", post(disclosures::reveal))
        .route("/v1/tokens", post(tokens::issue).get(tokens::list))
        .route("/v1/tokens/{id}", delete(tokens::revoke))
        .route("/healthz", get(async || "alive\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(async || document(contract::openapi())))
        .route("/asyncapi.json", get(topics))
        .route("/.well-known/webhook-keys", get(well_known::webhook_keys))
        .route("/.well-known/oauth-protected-resource", get(well_known::protected_resource))
        .fallback(async || Problem::not_found("address"))
        .method_not_allowed_fallback(async || Problem::method())
        .nest("/schema-registry", schema_registry::routes())
        .layer(from_fn_with_state(Arc::clone(&shared), idempotency::layer))
        .layer(DefaultBodyLimit::max(request_bytes_max))
        .with_state(shared)
}

pub use tokens::new_token_schema;

/// What every route promises: each file tells of its own.
pub fn contract() -> Contract {
    let mut contract = Contract::default();
    subscriptions::describe(&mut contract);
    secrets::describe(&mut contract);
    verification::describe(&mut contract);
    attempts::describe(&mut contract);
    dead_letters::describe(&mut contract);
    rewind::describe(&mut contract);
    replays::describe(&mut contract);
    watch_lists::describe(&mut contract);
    members::describe(&mut contract);
    access::describe(&mut contract);
    pull::describe(&mut contract);
    socket::describe(&mut contract);
    disclosures::describe(&mut contract);
    tokens::describe(&mut contract);
    well_known::describe(&mut contract);
    describe(&mut contract);
    schema_registry::describe(&mut contract);
    contract
}

fn describe(contract: &mut Contract) {
    let operation = |path, id, summary| Operation::new("get", path, id, "operation", summary);
    let plain = || json!({"type": "string"});
    contract.add(operation("/healthz", "isAlive", "Says that the process lives").answers_as(200, "It does.", "text/plain", plain()));
    let readiness = operation("/readyz", "isReady", "Says whether the bridge works, and what is missing");
    contract.add(readiness.answers(200, "It works.", "Readiness").answers(503, "Something is missing.", "Readiness"));
    let metrics = operation("/metrics", "metrics", "The metrics, for Prometheus");
    contract.add(metrics.answers_as(200, "In the text format of OpenMetrics.", "application/openmetrics-text", plain()));
    let object = || json!({"type": "object"});
    let described = operation("/openapi.json", "openapi", "This document");
    contract.add(described.answers_as(200, "OpenAPI 3.1.", "application/json", object()));
    let described = operation("/asyncapi.json", "asyncapi", "The topics in Kafka, as AsyncAPI");
    contract.add(described.answers_as(200, "AsyncAPI 3.", "application/json", object()));
}

async fn topics(State(shared): State<Arc<Shared>>) -> Response {
    document(contract::asyncapi(shared.catalogue))
}

fn document(text: impl Into<Body>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}

async fn readiness(State(shared): State<Arc<Shared>>) -> Response {
    let obstacle = shared.obstacle.borrow().clone();
    let status = if obstacle.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = json!({"ready": obstacle.is_none(), "obstacle": obstacle, "trial": shared.config.trial});
    (status, [(header::CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = encode(&mut text, &shared.registry);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text).into_response()
}
