//! The header `Idempotency-Key` of a POST: its repetitions get the first answer again.
//!
//! Kept are answers that say that something was done (2xx): a refusal did nothing, and leaves the key free. A request
//! with a key goes on to its end when its sender hangs up, so that there is an answer to ask for.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use ryggrad_bridge_core::idempotency::{Asked, Decision, is_key};
use ryggrad_bridge_core::subscription::Fault;
use uuid::Uuid;

use super::Shared;
use super::caller::caller_of;
use super::sent::read;
use crate::answers::{ANSWER_BYTES_MAX, Answer, Answers, UnderWay};
use crate::problem::Problem;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Headers that are part of an answer.
const KEPT: [HeaderName; 3] = [header::CONTENT_TYPE, header::LOCATION, header::ETAG];

/// The id of what a request makes, if it has a key: whoever makes something takes this id.
#[derive(Debug, Clone, Copy)]
pub struct DerivedId(pub Option<Uuid>);

impl<S: Send + Sync> FromRequestParts<S> for DerivedId {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or(Self(None)))
    }
}

/// Stands before every call.
pub async fn layer(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let asks = request.method() == Method::POST && request.uri().path().starts_with("/v1/") && request.headers().contains_key(KEY);
    if asks { once(&shared, request, next).await.unwrap_or_else(IntoResponse::into_response) } else { next.run(request).await }
}

async fn once(shared: &Shared, request: Request, next: Next) -> Result<Response, Problem> {
    let Some(ready) = shared.ready.get() else {
        // The call itself says why.
        return Ok(next.run(request).await);
    };
    let (mut parts, body) = request.into_parts();
    let caller = caller_of(shared, &parts.method, parts.uri.path(), &parts.headers, &mut parts.extensions).await?;
    let key = key(&parts.headers)?.to_owned();
    let body = read(&shared.config, body).await?;
    let target = parts.uri.path_and_query().map_or_else(|| parts.uri.path(), |target| target.as_str());
    let asked = Asked::new(&caller.owner(), &caller.rights(), &key, parts.method.as_str(), target, &body);
    let (decision, under_way) = ready.answers.begin(asked);
    match (decision, under_way) {
        (Decision::Proceed, Some(under_way)) => {
            parts.extensions.insert(DerivedId(Some(asked.new_id())));
            let request = Request::from_parts(parts, Body::from(body));
            let done = tokio::spawn(async move { keep(next.run(request).await, under_way).await });
            done.await.unwrap_or_else(|_| Err(Problem::unavailable("the request broke off; repeat it with the same key")))
        }
        (Decision::Replay, _) => replay(&ready.answers, &asked),
        (Decision::Reused, _) => Err(Problem::key_reused()),
        (Decision::OwnerFull, _) => {
            let most = shared.config.idempotency_keys_per_organisation_max;
            Err(Problem::limit(format!("an organisation has at most {most} idempotency keys a day; send the request without one")))
        }
        (Decision::Full, _) => {
            Err(Problem::limit("this bridge holds no more idempotency keys today; send the request without one".to_owned()))
        }
        (Decision::UnderWay | Decision::Proceed, _) => Err(Problem::under_way()),
    }
}

fn key(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut values = headers.get_all(KEY).iter();
    let one = values.next().filter(|value| values.next().is_none() && is_key(value.as_bytes()));
    one.and_then(|value| value.to_str().ok())
        .ok_or_else(|| Problem::invalid(vec![Fault::new("Idempotency-Key", "stands once, and has 1 to 255 visible ASCII characters")]))
}

/// Keeps an answer before it goes out, if it is one to be kept.
async fn keep(response: Response, under_way: UnderWay) -> Result<Response, Problem> {
    let small = response.body().size_hint().exact().is_some_and(|bytes| bytes <= ANSWER_BYTES_MAX as u64);
    if !response.status().is_success() || !small {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let unread = |_| Problem::unavailable("the answer broke off; repeat the request with the same key");
    let body = to_bytes(body, ANSWER_BYTES_MAX).await.map_err(unread)?;
    let headers = KEPT.iter().filter_map(|name| Some((name.to_string(), parts.headers.get(name)?.to_str().ok()?.to_owned())));
    let answer = Answer { status: parts.status.as_u16(), headers: headers.collect(), body: String::from_utf8_lossy(&body).into_owned() };
    under_way.answered(&answer, jiff::Timestamp::now().as_millisecond()).await.map_err(|error| {
        tracing::warn!(%error, "an answer was not kept");
        Problem::unavailable("it is done, but the answer could not be kept; repeat the request with the same key")
    })?;
    Ok(Response::from_parts(parts, Body::from(body)))
}

fn replay(answers: &Answers, asked: &Asked) -> Result<Response, Problem> {
    let lost =
        || Problem::unavailable("the first answer cannot be read any more; look at what is there, and send the request with another key");
    let Answer { status, headers, body } = answers.first(asked.key).ok_or_else(lost)?;
    let mut response = (StatusCode::from_u16(status).unwrap_or(StatusCode::OK), body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}
