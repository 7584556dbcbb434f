//! How a subscription stands, for its owner's eyes.

use std::collections::BTreeMap;
use std::sync::Arc;

use ryggrad_bridge_core::access::Reason;
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::delivery::MessageId;
use ryggrad_bridge_core::endpoint::{Endpoint, State};
use ryggrad_bridge_core::hub::Member;
use ryggrad_bridge_core::outcome::{Answer, Outcome};
use ryggrad_schemas::Catalogue;
use serde_json::{Value, json};
use smallvec::SmallVec;

use crate::channel::webhook::Attempt;

/// An attempt that has ended.
#[derive(Debug, Clone)]
pub struct LoggedAttempt {
    /// When it ended.
    pub at: jiff::Timestamp,
    /// `webhook-id`.
    pub webhook_id: MessageId,
    /// Its events' ids; void notices have none.
    pub event_ids: SmallVec<[Arc<str>; 1]>,
    /// Which attempt it was for the first of them.
    pub attempts: u32,
    /// What it meant.
    pub outcome: Outcome,
    /// How it went.
    pub attempt: Attempt,
}

/// Now, and a moment later than the attempt before: pages of attempts go on at a time.
pub fn moment_after(latest: Option<&LoggedAttempt>) -> jiff::Timestamp {
    let now = jiff::Timestamp::now();
    let earliest = latest.and_then(|latest| latest.at.checked_add(jiff::SignedDuration::from_nanos(1)).ok());
    earliest.map_or(now, |earliest| earliest.max(now))
}

/// One word for an outcome, in the API and in metrics.
pub const fn word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Delivered => "delivered",
        Outcome::Gone => "gone",
        Outcome::Hopeless => "hopeless",
        Outcome::Throttled { .. } => "throttled",
        Outcome::Failed => "failed",
        Outcome::Withheld => "withheld",
        Outcome::Unsent => "unsent",
    }
}

/// The name of a topic by its number.
pub fn topic_name(catalogue: &Catalogue, id: u16) -> &str {
    catalogue.topics.iter().find(|topic| topic.id == id).map_or("", |topic| topic.name.as_str())
}

/// Counts, cursors and waiting lanes. `stored` is how far each cursor is on disk. Where a topic is not for everyone, no
/// offsets, which would tell of events that there are and that are not shown; and no keys, which name whom an event is about
/// that has not left.
pub fn of_member(member: &Member, stored: &BTreeMap<Place, i64>, catalogue: &Catalogue) -> Value {
    const WAITING_SHOWN_MAX: usize = 20;
    let machine = member.machine();
    let partitions: Vec<Value> = machine
        .cursors()
        .map(|(place, cursor)| {
            let topic = topic_name(catalogue, place.topic);
            json!({
                "topic": topic, "partition": place.partition, "scanned_to": stored.get(&place).filter(|_| !catalogue.is_protected(topic)),
                "pending": cursor.pending.len(), "collapsed_keys": cursor.collapsed.len(),
            })
        })
        .collect();
    let waiting: Vec<Value> = machine
        .waiting()
        .take(WAITING_SHOWN_MAX)
        .map(|lane| {
            let topic = topic_name(catalogue, lane.place.topic);
            let shown = !catalogue.is_protected(topic);
            let key = member.kept(lane.place, lane.offset).and_then(|record| record.log.key.clone()).filter(|_| shown);
            let offset = Some(lane.offset).filter(|_| shown);
            json!({
                "key": key, "topic": topic, "partition": lane.place.partition, "offset": offset,
                "attempts": lane.attempts, "next_attempt_at": time(lane.due_ms), "last_error": word(lane.outcome),
            })
        })
        .collect();
    let numbering = machine.numbering();
    json!({
        "pending": machine.pending(), "in_flight": machine.in_flight(), "delivered": machine.delivered(),
        "failed_attempts": machine.failed_attempts(), "withheld": machine.withheld(), "voided": machine.voided(),
        "filter_errors": member.filter_errors(),
        "epoch": numbering.epoch, "next_number": numbering.next, "partitions": partitions, "waiting": waiting,
    })
}

/// An attempt, for show.
pub fn of_attempt(logged: &LoggedAttempt) -> Value {
    let http_status = match logged.attempt.answer {
        Answer::Status { code, .. } => Some(code),
        Answer::NoAnswer => None,
    };
    let event_ids: Vec<&str> = logged.event_ids.iter().map(|id| &**id).collect();
    json!({
        "at": logged.at.to_string(), "webhook_id": logged.webhook_id.as_str(), "event_ids": event_ids, "attempt": logged.attempts,
        "outcome": word(logged.outcome), "http_status": http_status, "latency_ms": logged.attempt.latency_ms, "error": logged.attempt.error,
    })
}

/// What withholds everything where one of a subscription's types is shut in this installation.
pub const TYPE_SHUT: &str = "type-shut";

/// What withholds everything, for the organisation's own eyes and the operator's.
pub fn withheld_by(reason: Reason) -> Value {
    json!({"reason": reason.name(), "detail": reason.in_plain_words()})
}

/// An endpoint's circuit breaker, for show.
pub fn of_endpoint(endpoint: &Endpoint) -> Value {
    match endpoint.state() {
        State::Closed => json!({"breaker": "closed"}),
        State::Probing => json!({"breaker": "half-open"}),
        State::Open { until_ms } => json!({"breaker": "open", "until": time(until_ms)}),
    }
}

fn time(at_ms: u64) -> Option<String> {
    jiff::Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok().map(|time| time.to_string())
}
