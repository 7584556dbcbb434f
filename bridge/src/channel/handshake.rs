//! Asking an endpoint whether it wants deliveries: the CloudEvents OPTIONS handshake, or a signed
//! challenge that it has to echo.
//!
//! Source of the rules: CloudEvents, "HTTP 1.1 Web Hooks for Event Delivery", version 1.0. A grant is in the
//! headers of the answer; a status alone is never consent. Must never show what the endpoint answered to
//! anyone but its owner, and shows no more of it than what was looked for.

use ryggrad_bridge_core::delivery::{CHALLENGE_TYPE, MessageId, own_event};
use ryggrad_bridge_core::egress::{Refusal, check_url};
use ryggrad_schemas::cloudevents::STRUCTURED_JSON;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::client::Request;
use super::timer::Timer;
use super::webhook::{Desk, Message, Target, Webhook, put, request_head};

/// Bytes of an answer to a handshake that are read.
const ANSWER_BYTES_MAX: usize = 4 * 1024;

/// What an endpoint has granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// Deliveries a minute; none is without limit.
    pub rate_per_minute: Option<u32>,
}

/// Why an endpoint has not agreed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAgreed {
    /// The bridge may not call it.
    #[error("the endpoint is refused: {0}")]
    Refused(Refusal),
    /// No answer; in one of the words of [`fault`](super::fault).
    #[error("the endpoint did not answer ({0})")]
    NoAnswer(&'static str),
    /// Another answer than 2xx.
    #[error("the endpoint answered {0}; 2xx was expected")]
    Status(u16),
    /// 2xx, which alone is no consent.
    #[error("the endpoint answered without WebHook-Allowed-Origin, and so has granted nothing")]
    NoGrant,
    /// It allows others.
    #[error("the endpoint's WebHook-Allowed-Origin is neither the origin that was asked for nor *")]
    OtherOrigin,
    /// A rate that is none.
    #[error("the endpoint's WebHook-Allowed-Rate is neither a positive number nor *")]
    Rate,
    /// An answer without the challenge.
    #[error("the endpoint's answer does not hold the challenge, neither as text nor as {{\"challenge\": …}}")]
    NoEcho,
}

impl Webhook {
    /// Asks an endpoint whether `origin` may deliver there, at so many deliveries a minute.
    pub async fn options(&self, sink: &str, origin: &str, rate_per_minute: impl Into<Option<u32>>) -> Result<Grant, NotAgreed> {
        let url = check_url(sink, self.client.policy()).map_err(NotAgreed::Refused)?;
        let asked = rate_per_minute.into();
        let mut head = request_head("OPTIONS", &url);
        put(&mut head, "webhook-request-origin", origin);
        if let Some(rate) = asked {
            put(&mut head, "webhook-request-rate", &rate.to_string());
        }
        head.extend_from_slice(b"\r\n");
        let endpoint = self.client.endpoint(&url);
        let request = Request { head: &head, body: &[], answer_bytes_max: ANSWER_BYTES_MAX, keep_body: false, may_leave: &|| true };
        let head = self.client.exchange(&mut Timer::default(), &endpoint, request).await.map_err(NotAgreed::NoAnswer)?.head;
        if !(200..300).contains(&head.code) {
            return Err(NotAgreed::Status(head.code));
        }
        match head.allowed_origin.as_deref() {
            None | Some("") => return Err(NotAgreed::NoGrant),
            Some(allowed) if allowed == "*" || allowed.eq_ignore_ascii_case(origin) => {}
            Some(_) => return Err(NotAgreed::OtherOrigin),
        }
        let rate_per_minute = match head.allowed_rate.as_deref() {
            // Whoever says nothing about the rate has granted the one that was asked for.
            None => asked,
            Some("*") => None,
            Some(rate) => Some(rate.parse::<u32>().ok().filter(|rate| *rate > 0).ok_or(NotAgreed::Rate)?),
        };
        Ok(Grant { rate_per_minute })
    }

    /// Posts a challenge, signed as deliveries are, which the endpoint has to send back.
    pub async fn challenge(&self, target: &Target, challenge: &str) -> Result<(), NotAgreed> {
        let id = Uuid::new_v4();
        let event = own_event(CHALLENGE_TYPE, &id.to_string(), Some(&json!({"challenge": challenge})));
        let (message_id, body) = (MessageId::of(id), event.unnumbered());
        let message = Message { id: message_id.as_str(), content_type: STRUCTURED_JSON, headers: &[], body: &body };
        let reply =
            self.post(&mut Desk::default(), target, message, ANSWER_BYTES_MAX, true, &|| true).await.map_err(NotAgreed::NoAnswer)?;
        if !(200..300).contains(&reply.head.code) {
            return Err(NotAgreed::Status(reply.head.code));
        }
        let echo = match serde_json::from_slice::<Value>(&reply.body) {
            Ok(Value::Object(members)) => members.get("challenge").and_then(Value::as_str).unwrap_or_default().to_owned(),
            Ok(Value::String(text)) => text,
            _ => String::from_utf8_lossy(&reply.body).trim().to_owned(),
        };
        if bool::from(echo.as_bytes().ct_eq(challenge.as_bytes())) { Ok(()) } else { Err(NotAgreed::NoEcho) }
    }
}
