//! A schema registry beside the bridge, as a double: Confluent's routes for importing with fixed
//! ids, in their own words, and what such a registry may do wrong.
//!
//! Knows nothing of Ryggrad's schemas; keeps what it is given, and every call in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What it has and what it does.
#[derive(Debug, Default)]
pub struct Inner {
    /// Subject, version -> id, schema.
    pub versions: BTreeMap<(String, u64), (u64, String)>,
    /// Subjects with a mode of their own.
    pub modes: BTreeMap<String, String>,
    /// Method and path of every call.
    pub calls: Vec<String>,
    /// Answers 503 to this many calls.
    pub unwell: usize,
    /// Has no modes, ignores the ids it is given and counts from here, as some registries do.
    pub counts_from: Option<u64>,
}

type Shared = Arc<Mutex<Inner>>;
type Refusal = (StatusCode, Json<Value>);

/// The double.
#[derive(Clone)]
pub struct SchemaRegistry {
    /// What it has; a test looks and changes as it likes.
    pub inner: Shared,
    port: u16,
}

impl SchemaRegistry {
    /// One that is not there yet, with the port that it will have.
    pub fn absent() -> Self {
        Self { inner: Shared::default(), port: crate::process::free_port() }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/registry/", self.port)
    }

    /// Answers from now on.
    pub async fn start(&self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("the port is free");
        let routes = Router::new()
            .route("/subjects/{subject}/versions", post(register))
            .route("/subjects/{subject}/versions/{version}", get(version))
            .route("/schemas/ids/{id}", get(by_id))
            .route("/mode/{subject}", get(mode).put(set_mode))
            .layer(middleware::from_fn_with_state(Arc::clone(&self.inner), note))
            .with_state(Arc::clone(&self.inner));
        let router = Router::new().nest("/registry", routes);
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// Calls that would change something.
    pub fn writes(&self) -> Vec<String> {
        self.inner.lock().unwrap().calls.iter().filter(|call| !call.starts_with("GET")).cloned().collect()
    }
}

async fn note(State(inner): State<Shared>, request: Request, next: Next) -> Response {
    let call = format!("{} {}", request.method(), request.uri().path_and_query().map_or("", |path| path.as_str()));
    let unwell = {
        let mut inner = inner.lock().unwrap();
        inner.calls.push(call);
        let unwell = inner.unwell > 0;
        inner.unwell -= usize::from(unwell);
        unwell
    };
    if unwell { StatusCode::SERVICE_UNAVAILABLE.into_response() } else { next.run(request).await }
}

fn refusal(status: u16, code: u32, message: &str) -> Refusal {
    (StatusCode::from_u16(status).expect("a status"), Json(json!({"error_code": code, "message": message})))
}

async fn version(State(inner): State<Shared>, Path((subject, version)): Path<(String, u64)>) -> Result<Json<Value>, Refusal> {
    let inner = inner.lock().unwrap();
    if !inner.versions.keys().any(|(known, _)| *known == subject) {
        return Err(refusal(404, 40401, "Subject not found."));
    }
    let (id, schema) = inner.versions.get(&(subject.clone(), version)).ok_or(refusal(404, 40402, "Version not found."))?;
    Ok(Json(json!({"subject": subject, "version": version, "id": id, "schema": schema})))
}

async fn by_id(State(inner): State<Shared>, Path(id): Path<u64>) -> Result<Json<Value>, Refusal> {
    let inner = inner.lock().unwrap();
    let (_, schema) = inner.versions.values().find(|(known, _)| *known == id).ok_or(refusal(404, 40403, "Schema not found."))?;
    Ok(Json(json!({"schema": schema})))
}

async fn mode(State(inner): State<Shared>, Path(subject): Path<String>) -> Result<Json<Value>, Refusal> {
    let inner = inner.lock().unwrap();
    let mode = inner.modes.get(&subject).ok_or(refusal(404, 40409, "Subject does not have subject-level mode configured"))?;
    Ok(Json(json!({"mode": mode})))
}

async fn set_mode(State(inner): State<Shared>, Path(subject): Path<String>, body: String) -> Result<Json<Value>, Refusal> {
    let mut inner = inner.lock().unwrap();
    if inner.counts_from.is_some() {
        return Err(refusal(405, 405, "Method Not Allowed"));
    }
    let body: Value = serde_json::from_str(&body).expect("JSON");
    inner.modes.insert(subject, body["mode"].as_str().expect("a mode").to_owned());
    Ok(Json(body))
}

async fn register(State(inner): State<Shared>, Path(subject): Path<String>, body: String) -> Result<Json<Value>, Refusal> {
    let mut inner = inner.lock().unwrap();
    let body: Value = serde_json::from_str(&body).expect("JSON");
    let schema = body["schema"].as_str().expect("a schema").to_owned();
    let counted = inner.versions.keys().filter(|(known, _)| *known == subject).count() as u64 + 1;
    let (id, version) = if let Some(first) = inner.counts_from {
        (first + inner.versions.len() as u64, counted)
    } else if inner.modes.get(&subject).is_some_and(|mode| mode == "IMPORT") {
        (body["id"].as_u64().expect("an id"), body["version"].as_u64().expect("a version"))
    } else {
        return Err(refusal(422, 42205, "Subject is not in import mode"));
    };
    if inner.versions.values().any(|(known, other)| *known == id && *other != schema) {
        return Err(refusal(422, 42207, "Schema already registered with another id"));
    }
    inner.versions.insert((subject, version), (id, schema));
    Ok(Json(json!({"id": id})))
}
