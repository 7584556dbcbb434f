//! Stands before a registry and lets nobody in without a token of an issuer and a proof made for that very request.
//!
//! Verifying is the bridge's: it shares no code with what signs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ETAG, IF_NONE_MATCH, LAST_MODIFIED};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use reqwest::Client;
use ryggrad_bridge_core::trust::{AccessTokens, Call, Credentials, Fault, KeySet, ProofRules, PublicUrl, Replays, TokenRules, credentials};
use tokio::net::TcpListener;

use crate::helseid::AUDIENCE;
use crate::upstream;

const LEEWAY_MS: i64 = 5_000;
const PROOF_AGE_MS: i64 = 10_000;
const PROOFS_MAX: usize = 100_000;

/// The guard, with what it has seen.
pub struct Guard {
    address: String,
    before: String,
    client: Client,
    keys: KeySet,
    tokens: TokenRules,
    proofs: ProofRules,
    replays: Mutex<Replays>,
    to_refuse: AtomicUsize,
    let_in: AtomicUsize,
    refused: Mutex<Vec<String>>,
}

impl Guard {
    /// Stands before the address `before`, whose paths it takes, with the keys that the issuer has now.
    pub async fn start(before: &str, issuer: &str) -> Arc<Self> {
        let client = upstream::client();
        let keys = client.get(format!("{issuer}/.well-known/openid-configuration/jwks")).send().await.expect("keys");
        let keys = KeySet::read(&keys.bytes().await.expect("keys")).expect("keys");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = format!("http://{}", listener.local_addr().expect("it has an address"));
        let public_url = PublicUrl::read(&address, true).expect("an address");
        let (issuer, audience, tokens) = (issuer.to_owned(), AUDIENCE.to_owned(), AccessTokens::Dpop);
        let guard = Arc::new(Self {
            address,
            before: before.to_owned(),
            client,
            keys,
            tokens: TokenRules { issuer, audience, tokens, leeway_ms: LEEWAY_MS },
            proofs: ProofRules { public_url, age_ms: PROOF_AGE_MS, leeway_ms: LEEWAY_MS, nonces: None },
            replays: Mutex::new(Replays::new(PROOFS_MAX)),
            to_refuse: AtomicUsize::new(0),
            let_in: AtomicUsize::new(0),
            refused: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&guard));
        tokio::spawn(async move { axum::serve(listener, router).await });
        guard
    }

    /// Where it stands.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The next requests are refused, however good they are.
    pub fn refuse(&self, requests: usize) {
        self.to_refuse.store(requests, Ordering::SeqCst);
    }

    /// How many requests that are still to be refused.
    pub fn still_to_refuse(&self) -> usize {
        self.to_refuse.load(Ordering::SeqCst)
    }

    /// How many requests were let in.
    pub fn let_in(&self) -> usize {
        self.let_in.load(Ordering::SeqCst)
    }

    /// Why requests were refused that had no order to be.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().expect("no panic").clone()
    }

    fn judge(&self, method: &str, path: &str, headers: &HeaderMap) -> Result<(), Fault> {
        let values = |name: &str| headers.get_all(name).into_iter().map(|value| value.as_bytes());
        let Credentials { token, proof } = credentials(values("authorization"), values("dpop"), AccessTokens::Dpop)?;
        let now_ms = Timestamp::now().as_millisecond();
        let said = self.tokens.check(&self.tokens.read(token)?, &self.keys, now_ms)?;
        let call = Call { method, path, token, bound_to: said.bound_to.as_deref().ok_or(Fault::Unbound)? };
        let proof = self.proofs.check(proof.ok_or(Fault::NoProof)?, call, now_ms)?;
        self.replays.lock().expect("no panic").take(&proof, now_ms)
    }
}

async fn answer(State(guard): State<Arc<Guard>>, request: Request) -> Response {
    let refusal = (StatusCode::UNAUTHORIZED, [("www-authenticate", "DPoP error=\"invalid_token\"")]);
    let (path, query) = (request.uri().path(), request.uri().path_and_query().expect("a path").as_str());
    if let Err(fault) = guard.judge(request.method().as_str(), path, request.headers()) {
        guard.refused.lock().expect("no panic").push(format!("{path}: {fault:?}"));
        return refusal.into_response();
    }
    let ordered = guard.to_refuse.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
    if ordered.is_ok() {
        return refusal.into_response();
    }
    guard.let_in.fetch_add(1, Ordering::SeqCst);
    let asked = guard.client.get(format!("{}{query}", guard.before));
    let asked = request.headers().get(IF_NONE_MATCH).into_iter().fold(asked, |asked, etag| asked.header(IF_NONE_MATCH, etag));
    let Ok(answer) = asked.send().await else { return StatusCode::BAD_GATEWAY.into_response() };
    let response = Response::builder().status(answer.status());
    let kept = [ETAG, LAST_MODIFIED].into_iter().filter_map(|name| Some((answer.headers().get(&name)?.clone(), name)));
    let response = kept.fold(response, |response, (value, name)| response.header(name, value));
    response.body(Body::from_stream(answer.bytes_stream())).expect("a response")
}
