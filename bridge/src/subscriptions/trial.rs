//! Calls that are no delivery: the test event, and what an endpoint is asked.
//!
//! Must never number, retry or settle anything.

use ryggrad_bridge_core::delivery::{MessageId, own_event};
use ryggrad_bridge_core::egress::Refusal;
use ryggrad_bridge_core::outcome::Answer;
use ryggrad_bridge_core::subscription::{Subscription, VerificationMethod};
use ryggrad_schemas::cloudevents::STRUCTURED_JSON;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Subscriptions;
use super::verification::Endpoint;
use crate::channel::handshake::Grant;
use crate::channel::webhook::{Desk, Message, Target, TargetOptions, Webhook};

const TEST_TYPE: &str = "no.ryggrad.test.v1";

/// An endpoint as the webhook channel reaches it.
pub struct Reached {
    webhook: Webhook,
    sink: String,
    origin: String,
    /// What the owner would like, at most.
    rate_per_minute: Option<u32>,
    target: Result<Target, Refusal>,
}

impl Endpoint for Reached {
    async fn options(&self) -> Result<Grant, String> {
        self.webhook.options(&self.sink, &self.origin, self.rate_per_minute).await.map_err(|why| why.to_string())
    }

    async fn challenge(&self, challenge: &str) -> Result<(), String> {
        let target = self.target.as_ref().map_err(ToString::to_string)?;
        self.webhook.challenge(target, challenge).await.map_err(|why| why.to_string())
    }
}

impl Subscriptions {
    /// Where deliveries of a subscription go, and how they are signed at this time. `None` if it
    /// has no endpoint, or if its secrets do not open.
    pub fn target_options(&self, subscription: &Subscription) -> Option<TargetOptions> {
        let opened = self.strongbox.open(subscription)?;
        let granted = subscription.verification.method == Some(VerificationMethod::Options);
        Some(TargetOptions {
            sink: subscription.sink.clone()?,
            named: subscription.named(),
            secrets: opened.secrets.at(jiff::Timestamp::now().as_millisecond()),
            headers: opened.headers.reveal().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            format: subscription.delivery.format,
            origin: granted.then(|| self.context.config.webhook_origin.clone()),
        })
    }

    /// The endpoint of a subscription, to be asked.
    pub(super) fn endpoint(&self, subscription: &Subscription) -> Option<Reached> {
        let (options, config) = (self.target_options(subscription)?, &self.context.config);
        let (webhook, sink) = (self.context.webhook.clone(), options.sink.clone());
        let rate_per_minute = subscription.delivery.attempts_per_minute_max;
        Some(Reached { target: webhook.target(options), webhook, sink, origin: config.webhook_origin.clone(), rate_per_minute })
    }

    /// Sends one signed test event now, and says how it went. `None` if there is no endpoint.
    pub async fn send_test(&self, subscription: &Subscription) -> Option<Value> {
        let target = self.context.webhook.target(self.target_options(subscription)?);
        let event_id = Uuid::now_v7();
        let webhook_id = MessageId::of(event_id);
        let event = own_event(TEST_TYPE, &event_id.to_string(), Some(&json!({"subscription": subscription.id})));
        let body = event.unnumbered();
        let message = Message { id: webhook_id.as_str(), content_type: STRUCTURED_JSON, headers: &[], body: &body };
        let (answer, latency_ms, error) = match target {
            Ok(target) => {
                let attempt = self.context.webhook.attempt(&mut Desk::default(), &target, message).await;
                (attempt.answer, attempt.latency_ms, attempt.error.map(str::to_owned))
            }
            Err(refusal) => (Answer::NoAnswer, 0, Some(refusal.to_string())),
        };
        let http_status = match answer {
            Answer::Status { code, .. } => Some(code),
            Answer::NoAnswer => None,
        };
        let delivered = http_status.is_some_and(|code| (200..300).contains(&code));
        Some(json!({
            "event_id": event_id, "webhook_id": webhook_id.as_str(), "delivered": delivered, "http_status": http_status,
            "latency_ms": latency_ms, "error": error,
        }))
    }
}
