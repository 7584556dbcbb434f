//! How a subscription stands, for its owner's eyes.

use std::collections::BTreeMap;

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::machine::{Machine, WaitingLane};
use ryggrad_bridge_core::outcome::{Answer, Outcome};
use ryggrad_schemas::Catalogue;
use serde_json::{Value, json};

use crate::channel::webhook::Attempt;

/// The latest attempt.
pub struct LastAttempt {
    /// When it ended.
    pub at: jiff::Timestamp,
    /// What it meant.
    pub outcome: Outcome,
    /// How it went.
    pub attempt: Attempt,
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
    }
}

/// The machine's view: counts, cursors and waiting lanes. `stored` is how far each cursor is on
/// disk; `key_of` names a kept record's key.
pub fn of_machine(
    machine: &Machine,
    stored: &BTreeMap<Place, i64>,
    catalogue: &Catalogue,
    key_of: impl Fn(&WaitingLane) -> Option<String>,
) -> Value {
    const WAITING_SHOWN_MAX: usize = 20;
    let topic = |id| catalogue.topics.iter().find(|topic| topic.id == id).map_or("", |topic| topic.name.as_str());
    let partitions: Vec<Value> = machine
        .cursors()
        .map(|(place, cursor)| {
            json!({
                "topic": topic(place.topic), "partition": place.partition, "scanned_to": stored.get(&place),
                "pending": cursor.pending.len(), "collapsed_keys": cursor.collapsed.len(),
            })
        })
        .collect();
    let waiting: Vec<Value> = machine
        .waiting()
        .take(WAITING_SHOWN_MAX)
        .map(|lane| {
            json!({
                "key": key_of(&lane), "topic": topic(lane.place.topic), "partition": lane.place.partition, "offset": lane.offset,
                "attempts": lane.attempts, "next_attempt_at": time(lane.due_ms), "last_error": word(lane.outcome),
            })
        })
        .collect();
    json!({
        "pending": machine.pending(), "in_flight": machine.in_flight(), "delivered": machine.delivered(),
        "failed_attempts": machine.failed_attempts(), "withheld": machine.withheld(), "partitions": partitions, "waiting": waiting,
    })
}

/// The latest attempt, for show.
pub fn of_attempt(last: &LastAttempt) -> Value {
    let http_status = match last.attempt.answer {
        Answer::Status { code, .. } => Some(code),
        Answer::NoAnswer => None,
    };
    json!({
        "at": last.at.to_string(), "outcome": word(last.outcome), "http_status": http_status,
        "latency_ms": last.attempt.latency_ms, "error": last.attempt.error,
    })
}

fn time(at_ms: u64) -> Option<String> {
    jiff::Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok().map(|time| time.to_string())
}
