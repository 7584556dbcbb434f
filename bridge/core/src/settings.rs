//! What an owner may choose about how a subscription is delivered.
//!
//! Plain values with their words in the API; what they mean is in the machine and the channels.

use std::ops::RangeInclusive;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::subscription::Fault;
use crate::whole_number::whole_number;

/// How events get to the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// The bridge posts them.
    #[default]
    Webhook,
    /// The receiver fetches them.
    Pull,
    /// The receiver holds a socket open. It may fetch as well: the cursor is the same.
    WebSocket,
    /// The bridge writes them to a topic of the receiver's own.
    Kafka,
}

impl Channel {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Pull => "pull",
            Self::WebSocket => "websocket",
            Self::Kafka => "kafka",
        }
    }

    /// Whether the receiver comes to the bridge for its events.
    pub fn is_fetched(self) -> bool {
        matches!(self, Self::Pull | Self::WebSocket)
    }

    /// Whether they are posted to an endpoint. What is not has a shelf of numbers, and somebody who takes from it.
    pub fn is_posted(self) -> bool {
        self == Self::Webhook
    }
}

/// What must not overtake what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Events of one key keep their order.
    #[default]
    Key,
    /// Events of one partition keep their order.
    Partition,
    /// Nothing keeps an order.
    None,
}

/// What happens to an event that waiting does not cure, or that has failed up to the horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExhausted {
    /// Its lane waits and is probed slowly.
    #[default]
    Block,
    /// Its key is set aside with everything that follows, until it is redriven.
    Park,
    /// It alone is set aside; the lane goes on.
    Skip,
}

/// How a webhook carries events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One CloudEvent in JSON.
    #[default]
    Structured,
    /// Attributes as headers, the data as the body.
    Binary,
    /// A JSON array of CloudEvents.
    Batch,
}

/// What an owner may choose about delivery, all of it for webhooks. Whatever is not chosen, or
/// was stored before there was a choice, has its default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// What must not overtake what.
    pub order: Order,
    /// How a webhook carries events.
    pub format: Format,
    /// Most events of one batch.
    pub batch_events_max: usize,
    /// What happens to an event that is given up.
    pub on_exhausted: OnExhausted,
    /// How long an event is tried before that.
    pub retry_horizon_ms: u64,
    /// Attempts a minute; `None` is as many as there are.
    pub attempts_per_minute_max: Option<u32>,
    /// Attempts at the same time; `None` is the bridge's own limit.
    pub in_flight_max: Option<usize>,
    /// The subscription is disabled when every attempt has failed for so long.
    pub disable_after_ms: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            order: Order::default(),
            format: Format::default(),
            batch_events_max: 100,
            on_exhausted: OnExhausted::default(),
            retry_horizon_ms: 3 * DAY_MS,
            attempts_per_minute_max: None,
            in_flight_max: None,
            disable_after_ms: 5 * DAY_MS,
        }
    }
}

const DAY_MS: u64 = 24 * 3_600_000;
/// From a minute to thirty days.
pub const PATIENCE_MS: RangeInclusive<u64> = 60_000..=30 * DAY_MS;
/// Events of one batch.
pub const BATCH_EVENTS: RangeInclusive<u64> = 1..=1_000;
/// Attempts a minute.
pub const ATTEMPTS_PER_MINUTE: RangeInclusive<u64> = 1..=600_000;
/// Attempts at the same time.
pub const IN_FLIGHT: RangeInclusive<u64> = 1..=64;

impl Settings {
    /// Their names in the API.
    pub const MEMBERS: [&str; 8] = [
        "order",
        "format",
        "batch_events_max",
        "on_exhausted",
        "retry_horizon_ms",
        "attempts_per_minute_max",
        "in_flight_max",
        "disable_after_ms",
    ];

    /// These settings with what a request says about them: what it leaves out stays as it is, and
    /// null brings the default back.
    pub fn with(self, members: &Map<String, Value>, faults: &mut Vec<Fault>) -> Self {
        let default = Self::default();
        let mut read = Reading { members, faults };
        let batch_events_max = read.number("batch_events_max", BATCH_EVENTS);
        let settings = Self {
            order: read.word("order", "key, partition or none").unwrap_or(self.order),
            format: read.word("format", "structured, binary or batch").unwrap_or(self.format),
            batch_events_max: batch_events_max.map_or(self.batch_events_max, |given| given.unwrap_or(default.batch_events_max)),
            on_exhausted: read.word("on_exhausted", "block, park or skip").unwrap_or(self.on_exhausted),
            retry_horizon_ms: read
                .number("retry_horizon_ms", PATIENCE_MS)
                .map_or(self.retry_horizon_ms, |given| given.unwrap_or(default.retry_horizon_ms)),
            attempts_per_minute_max: read.number("attempts_per_minute_max", ATTEMPTS_PER_MINUTE).unwrap_or(self.attempts_per_minute_max),
            in_flight_max: read.number("in_flight_max", IN_FLIGHT).unwrap_or(self.in_flight_max),
            disable_after_ms: read
                .number("disable_after_ms", PATIENCE_MS)
                .map_or(self.disable_after_ms, |given| given.unwrap_or(default.disable_after_ms)),
        };
        if settings.format != Format::Batch && matches!(batch_events_max, Some(Some(_))) {
            faults.push(Fault::new("/batch_events_max", "is only for format batch: leave it out, or choose that format"));
        }
        settings
    }
}

/// Reads members one by one. An outer `None` means that the member is not given or is wrong.
struct Reading<'a> {
    members: &'a Map<String, Value>,
    faults: &'a mut Vec<Fault>,
}

impl Reading<'_> {
    fn word<T: DeserializeOwned + Default>(&mut self, name: &str, words: &str) -> Option<T> {
        match self.members.get(name)? {
            Value::Null => Some(T::default()),
            value => {
                let found = T::deserialize(value).ok();
                if found.is_none() {
                    self.faults.push(Fault::new(format!("/{name}"), format!("is {words}")));
                }
                found
            }
        }
    }

    /// A number within a range, or `Some(None)` for null.
    fn number<T: TryFrom<u64>>(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<Option<T>> {
        let value = self.members.get(name)?;
        if value.is_null() {
            return Some(None);
        }
        let number = whole_number(value).and_then(|number| u64::try_from(number).ok());
        let found = number.filter(|number| range.contains(number)).and_then(|number| T::try_from(number).ok());
        if found.is_none() {
            self.faults.push(Fault::new(format!("/{name}"), format!("is a whole number from {} to {}", range.start(), range.end())));
        }
        found.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(before: Settings, body: Value) -> Result<Settings, Vec<String>> {
        let mut faults = Vec::new();
        let settings = before.with(body.as_object().unwrap(), &mut faults);
        if faults.is_empty() { Ok(settings) } else { Err(faults.into_iter().map(|fault| fault.pointer).collect()) }
    }

    #[test]
    fn what_is_left_out_stays_and_null_is_the_default() {
        let default = Settings::default();
        assert_eq!(read(default, json!({})), Ok(default));
        let chosen = Settings {
            order: Order::None,
            format: Format::Batch,
            batch_events_max: 1_000,
            on_exhausted: OnExhausted::Park,
            retry_horizon_ms: 60_000,
            attempts_per_minute_max: Some(600_000),
            in_flight_max: Some(64),
            disable_after_ms: 30 * DAY_MS,
        };
        let all = serde_json::to_value(chosen).unwrap();
        assert_eq!(all.as_object().unwrap().keys().map(String::as_str).collect::<Vec<_>>().len(), Settings::MEMBERS.len());
        assert!(Settings::MEMBERS.iter().all(|name| all.get(*name).is_some()), "{all}");
        assert_eq!(read(default, all), Ok(chosen));
        assert_eq!(read(chosen, json!({})), Ok(chosen));
        assert_eq!(read(chosen, json!({"order": "partition"})), Ok(Settings { order: Order::Partition, ..chosen }));
        let nulls = Settings::MEMBERS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        assert_eq!(read(chosen, Value::Object(nulls)), Ok(default));
    }

    #[test]
    fn every_wrong_member_is_named_at_once() {
        for (body, expected) in [
            (
                json!({
                    "order": "tilfeldig", "format": 1, "batch_events_max": 0, "on_exhausted": "Block", "retry_horizon_ms": 59_999,
                    "attempts_per_minute_max": 600_001, "in_flight_max": 65, "disable_after_ms": "P5D",
                }),
                Settings::MEMBERS.to_vec(),
            ),
            (json!({"batch_events_max": 7}), vec!["batch_events_max"]),
            (json!({"batch_events_max": 7, "format": "binary"}), vec!["batch_events_max"]),
            (json!({"batch_events_max": 1_001, "format": "batch"}), vec!["batch_events_max"]),
            (json!({"in_flight_max": 1.5}), vec!["in_flight_max"]),
            (json!({"in_flight_max": -1}), vec!["in_flight_max"]),
        ] {
            let mut expected: Vec<String> = expected.into_iter().map(|name| format!("/{name}")).collect();
            let mut found = read(Settings::default(), body.clone()).unwrap_err();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{body}");
        }
    }
}
