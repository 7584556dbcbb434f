//! The body of a request.
//!
//! It is read before the call and judged within it: must never tell what is wrong with a body before it is known that
//! the caller may make the call.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequest, Request};
use ryggrad_bridge_core::subscription::Fault;
use serde_json::Value;

use super::Shared;
use crate::config::BridgeConfig;
use crate::problem::Problem;

/// What was sent, or why it could not be taken.
pub struct Sent(Result<Bytes, Problem>);

impl FromRequest<Arc<Shared>> for Sent {
    type Rejection = Infallible;

    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Infallible> {
        Ok(Self(read(&shared.config, request.into_body()).await))
    }
}

/// Reads a body, so many bytes in so much time.
pub(super) async fn read(config: &BridgeConfig, body: Body) -> Result<Bytes, Problem> {
    let (bytes_max, timeout_ms) = (config.request_bytes_max, config.request_body_timeout_ms);
    let read = tokio::time::timeout(Duration::from_millis(timeout_ms), to_bytes(body, bytes_max)).await;
    let read = read.map_err(|_| Problem::unavailable(format!("the request has not arrived within {timeout_ms} ms")))?;
    read.map_err(|_| Problem::too_large(bytes_max))
}

impl Sent {
    /// As it is.
    pub fn bytes(self) -> Result<Bytes, Problem> {
        self.0
    }

    /// As JSON, with problems instead of plain texts.
    pub fn json(self) -> Result<Value, Problem> {
        serde_json::from_slice(&self.0?).map_err(|error| {
            Problem::invalid(vec![Fault::new("", format!("the body is no JSON: line {}, column {}", error.line(), error.column()))])
        })
    }
}
