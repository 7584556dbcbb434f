//! One attempt: what goes over the wire, and how it went.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::Bytes;
use ryggrad_bridge_core::delivery::{
    BATCH_JSON, Numbered, Payload, Rendered, batch, batch_id, binary, delivery_id, structured, void_id, void_notice,
};
use ryggrad_bridge_core::hub::gate::Address;
use ryggrad_bridge_core::hub::{MemberId, Parcel};
use ryggrad_bridge_core::outcome::{Answer, Outcome};
use ryggrad_bridge_core::settings::Format;
use ryggrad_schemas::cloudevents::STRUCTURED_JSON;
use uuid::Uuid;

use super::Context;
use crate::access::Hold;
use crate::channel::fault;
use crate::channel::webhook::{Attempt, Message, Target};

/// What an attempt needs to know of its subscription.
pub(super) struct Job {
    pub(super) member: MemberId,
    pub(super) subscription: Uuid,
    /// That is the id of a replay.
    pub(super) is_replay: bool,
    pub(super) address: Address,
    pub(super) attempt: u64,
    pub(super) epoch: u32,
    pub(super) format: Format,
    /// Whether whoever it is for is stopped.
    pub(super) hold: Arc<Hold>,
    /// None if the endpoint is not open any more.
    pub(super) target: Option<Arc<Target>>,
    pub(super) parcels: Vec<Parcel>,
}

/// An attempt that has ended.
pub(super) struct Ended {
    pub(super) member: MemberId,
    pub(super) address: Address,
    pub(super) attempt: u64,
    /// Empty if nothing was sent.
    pub(super) webhook_id: String,
    pub(super) event_ids: Vec<String>,
    pub(super) attempts: u32,
    pub(super) outcome: Outcome,
    pub(super) went: Attempt,
    /// When the oldest of its events was appended, milliseconds since 1970.
    pub(super) appended_ms: Option<i64>,
}

impl Job {
    pub(super) async fn run(self, context: &Context) -> Ended {
        let leaving = self.parcels.iter().filter_map(|parcel| parcel.record.as_deref());
        if leaving.clone().any(|record| context.removals.withholds(record.leaving())) {
            // Removed this very moment: the hub looks again before it goes on.
            return self.unsent();
        }
        let Some(message) = self.message(context) else { return self.unsent() };
        let id = message.id.clone();
        let Some(target) = self.target.clone() else {
            let refused = Attempt { answer: Answer::NoAnswer, latency_ms: 0, error: Some(fault::EGRESS_REFUSED) };
            return self.ended(id, Outcome::Failed, refused);
        };
        if self.hold.is_set() {
            // Stopped this very moment: the hub hears of it too, and holds.
            return self.unsent();
        }
        context.telemetry.in_flight.inc();
        let went = context.webhook.attempt(&target, message).await;
        context.telemetry.in_flight.dec();
        let outcome = ryggrad_bridge_core::outcome::outcome(went.answer);
        self.ended(id, outcome, went)
    }

    fn ended(self, webhook_id: String, outcome: Outcome, went: Attempt) -> Ended {
        let records = || self.parcels.iter().filter_map(|parcel| parcel.record.as_deref());
        Ended {
            event_ids: records().map(|record| record.event_id().to_owned()).collect(),
            appended_ms: records().map(|record| record.log.timestamp_ms).min(),
            attempts: self.parcels.first().map_or(1, |parcel| parcel.delivery.attempts),
            member: self.member,
            address: self.address,
            attempt: self.attempt,
            webhook_id,
            outcome,
            went,
        }
    }

    fn unsent(self) -> Ended {
        self.ended(String::new(), Outcome::Unsent, Attempt { answer: Answer::NoAnswer, latency_ms: 0, error: None })
    }

    /// None if there is nothing to send, which the hub never asks for.
    fn message(&self, context: &Context) -> Option<Message> {
        if self.format == Format::Batch {
            let ids: Vec<String> = self.parcels.iter().map(|parcel| self.id_of(parcel)).collect();
            let events: Vec<_> = self.parcels.iter().map(|parcel| (self.event(context, parcel), self.numbered(parcel))).collect();
            let body = Bytes::from(batch(events.iter().map(|(event, number)| (event.as_ref(), *number))));
            return Some(Message { id: batch_id(ids.iter().map(String::as_str)), content_type: BATCH_JSON, headers: Vec::new(), body });
        }
        let parcel = self.parcels.first()?;
        let (id, number) = (self.id_of(parcel), self.numbered(parcel));
        let data = parcel.record.as_ref().filter(|_| self.format == Format::Binary).and_then(|record| record.rendered_binary().ok());
        if let Some(data) = data {
            let Payload { content_type, headers, body } = binary(data, &number);
            return Some(Message { id, content_type, headers, body });
        }
        let body = Bytes::from(structured(&self.event(context, parcel), &number));
        Some(Message { id, content_type: STRUCTURED_JSON, headers: Vec::new(), body })
    }

    /// The event, or the notice that takes its place: also of one that nobody can read.
    fn event<'p>(&self, context: &Context, parcel: &'p Parcel) -> Cow<'p, Rendered> {
        match parcel.record.as_ref().map(|record| record.rendered()) {
            Some(Ok(rendered)) => return Cow::Borrowed(rendered),
            Some(Err(error)) => {
                // No retry can cure it, and the log keeps it: told by position, never by content.
                let (place, offset) = (parcel.delivery.place, parcel.delivery.offset);
                tracing::error!(subscription = %self.subscription, topic = place.topic, partition = place.partition, offset, %error, "a record cannot be read and is passed over");
                context.telemetry.unreadable.inc();
            }
            None => {}
        }
        Cow::Owned(void_notice(self.subscription, &self.numbered(parcel)))
    }

    fn numbered(&self, parcel: &Parcel) -> Numbered {
        let replay = self.is_replay.then_some(self.subscription);
        Numbered { epoch: self.epoch.into(), number: parcel.delivery.number, replay }
    }

    fn id_of(&self, parcel: &Parcel) -> String {
        match &parcel.record {
            Some(record) => {
                delivery_id(self.subscription, &record.log.topic, record.place.partition, record.offset(), parcel.delivery.generation)
            }
            None => void_id(self.subscription, &self.numbered(parcel)),
        }
    }
}
