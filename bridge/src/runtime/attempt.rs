//! One attempt: what goes over the wire, and how it went.

use std::borrow::Cow;
use std::sync::Arc;

use ryggrad_bridge_core::access::Extent;
use ryggrad_bridge_core::delivery::{
    BATCH_JSON, MessageId, Numbered, Payload, Rendered, append_structured, batch, batch_id, binary, delivery_id, void_id, void_notice,
};
use ryggrad_bridge_core::disclosure::How;
use ryggrad_bridge_core::hub::gate::Address;
use ryggrad_bridge_core::hub::{MemberId, Parcel};
use ryggrad_bridge_core::outcome::{Answer, Outcome};
use ryggrad_bridge_core::settings::Format;
use ryggrad_schemas::cloudevents::STRUCTURED_JSON;
use smallvec::SmallVec;
use uuid::Uuid;

use super::Context;
use crate::access::{Hold, Leave};
use crate::channel::fault;
use crate::channel::webhook::{Attempt, Desk, Message, Target};
use crate::disclosures::{Draft, NotRecorded, Ticket};

/// Largest body whose memory is kept for the next one.
const BODY_KEPT_BYTES_MAX: usize = 64 * 1024;

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
    /// What was sent, or would have been.
    pub(super) parcels: Vec<Parcel>,
    pub(super) outcome: Outcome,
    /// Nothing if nothing was sent.
    pub(super) sent: Option<Sent>,
}

/// What went over the wire, or would have if the endpoint were open.
pub(super) struct Sent {
    pub(super) webhook_id: MessageId,
    pub(super) went: Attempt,
    /// Whether its events may be named to whoever looks at attempts: not what was to be recorded first, and was not.
    pub(super) is_told: bool,
}

/// What is said about a body.
struct Label {
    id: MessageId,
    content_type: &'static str,
    headers: Vec<(String, String)>,
}

/// What attempts are made with, one after the other.
#[derive(Default)]
pub(super) struct Tools {
    body: Vec<u8>,
    desk: Desk,
}

impl Job {
    pub(super) async fn run(self, context: &Context, tools: &mut Tools) -> Ended {
        // Removed or stopped this very moment: the hub hears of it too, and looks again.
        let Some(leaves) = self.leaves(context) else { return self.ended(Outcome::Unsent, None) };
        if tools.body.capacity() > BODY_KEPT_BYTES_MAX {
            tools.body = Vec::new();
        }
        tools.body.clear();
        let Some(Label { id, content_type, headers }) = self.write(context, &leaves, &mut tools.body) else {
            return self.ended(Outcome::Unsent, None);
        };
        let Some(target) = &self.target else {
            let refused = Attempt { answer: Answer::NoAnswer, latency_ms: 0, error: Some(fault::EGRESS_REFUSED) };
            let is_told = leaves.iter().all(|leave| *leave == Leave::Freely);
            return self.ended(Outcome::Failed, Some(Sent { webhook_id: id, went: refused, is_told }));
        };
        let Ok(tickets) = self.disclose(context, target.host(), &leaves).await else {
            return self.ended(Outcome::Unsent, None);
        };
        // Where it is recorded, time has passed; and it leaves as it was recorded, or not.
        let may_leave = || self.leaves(context).as_ref() == Some(&leaves);
        if !tickets.is_empty() && !may_leave() {
            tell(context, &tickets, How::Unsent, None);
            return self.ended(Outcome::Unsent, None);
        }
        let message = Message { id: id.as_str(), content_type, headers: &headers, body: &tools.body };
        let went = context.webhook.attempt_while(&mut tools.desk, target, message, &may_leave).await;
        if went.error == Some(fault::WITHDRAWN) {
            tell(context, &tickets, How::Unsent, None);
            return self.ended(Outcome::Unsent, None);
        }
        let (how, status) = match went.answer {
            Answer::Status { code, .. } if (200..300).contains(&code) => (How::Delivered, Some(code)),
            Answer::Status { code, .. } => (How::Failed, Some(code)),
            Answer::NoAnswer => (How::Failed, None),
        };
        tell(context, &tickets, how, status);
        self.ended(ryggrad_bridge_core::outcome::outcome(went.answer), Some(Sent { webhook_id: id, went, is_told: true }))
    }

    /// How each parcel leaves; nothing if one of them stays.
    fn leaves(&self, context: &Context) -> Option<SmallVec<[Leave; 1]>> {
        let leave = |parcel: &Parcel| match &parcel.record {
            None => Some(Leave::Freely),
            Some(record) if context.removals.withholds(record.leaving()) => None,
            Some(record) => Some(context.decisions.leave(self.hold.caller, record)).filter(|leave| *leave != Leave::Not),
        };
        if self.hold.is_set() { None } else { self.parcels.iter().map(leave).collect() }
    }

    /// Records what is a disclosure. Acknowledged when it returns.
    async fn disclose(&self, context: &Context, host: &str, leaves: &[Leave]) -> Result<Vec<Ticket>, NotRecorded> {
        let owed = self.parcels.iter().zip(leaves).filter_map(|(parcel, leave)| match (&parcel.record, leave) {
            (Some(record), Leave::Disclosed(disclosed)) => Some(Draft {
                record,
                disclosed: disclosed.clone(),
                delivery: self.id_of(parcel),
                number: parcel.delivery.number,
                subscription: self.subscription,
                channel: "webhook",
                host: Some(host),
            }),
            _ => None,
        });
        let drafts: Vec<Draft<'_>> = owed.collect();
        if drafts.is_empty() { Ok(Vec::new()) } else { context.disclosures.intend(drafts).await }
    }

    fn ended(self, outcome: Outcome, sent: Option<Sent>) -> Ended {
        let Self { member, address, attempt, parcels, .. } = self;
        Ended { member, address, attempt, parcels, outcome, sent }
    }

    /// Writes the body. None if there is nothing to send, which the hub never asks for.
    fn write(&self, context: &Context, leaves: &[Leave], body: &mut Vec<u8>) -> Option<Label> {
        if self.format == Format::Batch {
            let id = batch_id(self.parcels.iter().map(|parcel| self.id_of(parcel)));
            let events = self.parcels.iter().zip(leaves).map(|(parcel, leave)| (self.event(context, parcel, leave), self.numbered(parcel)));
            let events: Vec<_> = events.collect();
            *body = batch(events.iter().map(|(event, number)| (event.as_ref(), *number)));
            return Some(Label { id, content_type: BATCH_JSON, headers: Vec::new() });
        }
        let (parcel, leave) = (self.parcels.first()?, leaves.first()?);
        let (id, number) = (self.id_of(parcel), self.numbered(parcel));
        let is_binary = self.format == Format::Binary && leave.extent() == Extent::Whole;
        let data = parcel.record.as_ref().filter(|_| is_binary).and_then(|record| record.rendered_binary().ok());
        if let Some(data) = data {
            let Payload { content_type, headers, body: data } = binary(data, &number);
            body.extend_from_slice(&data);
            return Some(Label { id, content_type, headers });
        }
        append_structured(&self.event(context, parcel, leave), &number, body);
        Some(Label { id, content_type: STRUCTURED_JSON, headers: Vec::new() })
    }

    /// The event, or the notice that takes its place: also of one that nobody can read.
    fn event<'p>(&self, context: &Context, parcel: &'p Parcel, leave: &Leave) -> Cow<'p, Rendered> {
        match parcel.record.as_ref().map(|record| record.rendered_in(leave.extent())) {
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

    fn id_of(&self, parcel: &Parcel) -> MessageId {
        match &parcel.record {
            Some(record) => {
                delivery_id(self.subscription, &record.log.topic, record.place.partition, record.offset(), parcel.delivery.generation)
            }
            None => void_id(self.subscription, &self.numbered(parcel)),
        }
    }
}

/// Tells how what was recorded went.
fn tell(context: &Context, tickets: &[Ticket], how: How, status: Option<u16>) {
    tickets.iter().for_each(|ticket| context.disclosures.ended(ticket, how, status));
}
