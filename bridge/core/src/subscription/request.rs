//! What an owner asks for, checked: every wrong field is named at once, with what would be right.
//!
//! Must never put a secret or the value of a header into a fault.

use ryggrad_schemas::catalogue::Catalogue;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Fault, Start, Verify};
use crate::egress::{self, EgressPolicy};
use crate::filter::Filters;
use crate::own_headers::{HeadersChange, OwnHeaders};
use crate::settings::{Channel, Settings};
use crate::signature::Secret;

/// Most patterns in `types`.
pub const TYPES_MAX: usize = 32;
/// Longest `sink`, in bytes.
pub const SINK_BYTES_MAX: usize = 2_048;
/// Longest `description`, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 200;

/// A request that passed every check.
#[derive(Debug, Clone)]
pub struct NewSubscription {
    /// How events get to the receiver.
    pub channel: Channel,
    /// Event type patterns.
    pub types: Vec<String>,
    /// Which events of these types.
    pub filters: Option<Filters>,
    /// Of these, only events whose key this watch list holds.
    pub watch_list: Option<Uuid>,
    /// Topics that carry them.
    pub topics: Vec<String>,
    /// Where events are posted; `None` where the receiver fetches.
    pub sink: Option<String>,
    /// The owner's own words.
    pub description: Option<String>,
    /// Where to start.
    pub start: Start,
    /// A secret that the owner brings; else one is made.
    pub secret: Option<Secret>,
    /// How it is to be delivered.
    pub delivery: Settings,
    /// The owner's own headers.
    pub headers: OwnHeaders,
    /// Whether the endpoint is asked for its agreement.
    pub verify: Verify,
}

/// Members for every channel.
const MEMBERS: [&str; 6] = ["types", "filters", "watch_list", "description", "start", "channel"];
/// Members for webhooks, besides the settings.
const WEBHOOK_MEMBERS: [&str; 4] = ["sink", "secret", "headers", "verify"];

/// Checks a request.
pub fn parse(body: &Value, catalogue: &Catalogue, policy: &EgressPolicy) -> Result<NewSubscription, Vec<Fault>> {
    let Value::Object(members) = body else {
        return Err(vec![Fault::new("", "the body is a JSON object with at least types and sink, or types and channel pull")]);
    };
    let mut faults = Fault::unknown_in(members, &[&MEMBERS[..], &WEBHOOK_MEMBERS, &Settings::MEMBERS].concat());
    let channel = match members.get("channel").map(Value::as_str) {
        None | Some(Some("webhook")) => Channel::Webhook,
        Some(Some("pull")) => Channel::Pull,
        Some(Some("websocket")) => Channel::WebSocket,
        Some(Some("kafka")) => Channel::Kafka,
        Some(_) => {
            faults.push(Fault::new("/channel", "is webhook, pull, websocket or kafka"));
            Channel::Webhook
        }
    };
    let (types, topics) = parse_types(members.get("types"), catalogue, &mut faults);
    let filters = members.get("filters").and_then(|value| Filters::parse(value, "/filters", &mut faults));
    let watch_list = parse_watch_list(members, &mut faults);
    let sink = match channel {
        Channel::Webhook => Some(parse_sink(members.get("sink"), policy, &mut faults)),
        Channel::Pull | Channel::WebSocket | Channel::Kafka => {
            webhook_only(members, &mut faults);
            None
        }
    };
    let description = parse_description(members, &mut faults);
    let start = optional_text(members, "start", &mut faults).map_or(Start::Now, |text| {
        Start::try_from(text).unwrap_or_else(|why| {
            faults.push(Fault::new("/start", why));
            Start::Now
        })
    });
    let mut new = NewSubscription {
        channel,
        types,
        filters,
        watch_list,
        topics,
        sink,
        description,
        start,
        secret: None,
        delivery: Settings::default(),
        headers: OwnHeaders::default(),
        verify: Verify::default(),
    };
    if channel == Channel::Webhook {
        new.secret = parse_secret(members, &mut faults);
        new.delivery = new.delivery.with(members, &mut faults);
        new.verify = parse_verify(members, policy, &mut faults).unwrap_or_default();
        let change = members.get("headers").and_then(|value| HeadersChange::parse(value, &mut faults));
        if let Some(change) = change {
            new.headers = new.headers.changed(change).unwrap_or_else(|fault| {
                faults.push(fault);
                OwnHeaders::default()
            });
        }
    }
    if faults.is_empty() { Ok(new) } else { Err(faults) }
}

/// Names what has no meaning where nothing is posted.
pub(crate) fn webhook_only(members: &Map<String, Value>, faults: &mut Vec<Fault>) {
    for name in WEBHOOK_MEMBERS.iter().chain(&Settings::MEMBERS).filter(|name| members.contains_key(**name)) {
        faults.push(Fault::new(
            format!("/{name}"),
            "is for the channel webhook, and nothing is posted here: leave it out, or make a subscription with channel webhook",
        ));
    }
}

pub(crate) fn parse_verify(members: &Map<String, Value>, policy: &EgressPolicy, faults: &mut Vec<Fault>) -> Option<Verify> {
    match members.get("verify")? {
        Value::Null => Some(Verify::Auto),
        value => match value.as_str() {
            Some("auto") => Some(Verify::Auto),
            Some("none") if policy.development => Some(Verify::None),
            Some("none") => {
                faults.push(Fault::new("/verify", "is none in development only: leave it out, and let the endpoint agree"));
                None
            }
            _ => {
                faults.push(Fault::new("/verify", "is auto, or in development none"));
                None
            }
        },
    }
}

/// A secret that the owner brings. Its text never goes into a fault.
pub(crate) fn parse_secret(members: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<Secret> {
    let text = optional_text(members, "secret", faults)?;
    text.parse().map_err(|why: crate::signature::InvalidSecret| faults.push(Fault::new("/secret", why.to_string()))).ok()
}

pub(crate) fn parse_types(value: Option<&Value>, catalogue: &Catalogue, faults: &mut Vec<Fault>) -> (Vec<String>, Vec<String>) {
    let items = match value {
        Some(Value::Array(items)) if (1..=TYPES_MAX).contains(&items.len()) => items.as_slice(),
        _ => {
            faults.push(Fault::new("/types", format!("is a list of 1 to {TYPES_MAX} event types, each exact or ending in .*")));
            &[]
        }
    };
    let (mut types, mut topics) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let pointer = format!("/types/{index}");
        let Some(pattern) = item.as_str() else {
            faults.push(Fault::new(pointer, "is not a text"));
            continue;
        };
        let mut known = false;
        for event in catalogue.matching(pattern) {
            known = true;
            if !topics.contains(&event.topic) {
                topics.push(event.topic.clone());
            }
        }
        if !known {
            let all: Vec<&str> = catalogue.events.iter().map(|event| event.ce_type.as_str()).collect();
            let why =
                catalogue.why_shut(pattern).map_or_else(|| format!("matches no event type; there are: {}", all.join(", ")), str::to_owned);
            faults.push(Fault::new(pointer, why));
        }
        types.push(pattern.to_owned());
    }
    (types, topics)
}

pub(crate) fn parse_watch_list(members: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<Uuid> {
    let text = optional_text(members, "watch_list", faults)?;
    text.parse().map_err(|_| faults.push(Fault::new("/watch_list", "is the id of a watch list"))).ok()
}

pub(crate) fn parse_sink(value: Option<&Value>, policy: &EgressPolicy, faults: &mut Vec<Fault>) -> String {
    let Some(sink) = value.and_then(Value::as_str) else {
        faults.push(Fault::new("/sink", "is missing: the https address that events are posted to"));
        return String::new();
    };
    if sink.len() > SINK_BYTES_MAX {
        faults.push(Fault::new("/sink", format!("is longer than {SINK_BYTES_MAX} bytes")));
    } else if let Err(why) = egress::check_url(sink, policy) {
        faults.push(Fault::new("/sink", format!("is refused: {why}")));
    }
    sink.to_owned()
}

pub(crate) fn parse_description(members: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<String> {
    let description = optional_text(members, "description", faults);
    if description.as_ref().is_some_and(|text| text.chars().count() > DESCRIPTION_CHARS_MAX) {
        faults.push(Fault::new("/description", format!("is longer than {DESCRIPTION_CHARS_MAX} characters")));
    }
    description
}

fn optional_text(members: &Map<String, Value>, name: &str, faults: &mut Vec<Fault>) -> Option<String> {
    match members.get(name) {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.clone()),
        Some(_) => {
            faults.push(Fault::new(format!("/{name}"), "is not a text"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Format;
    use serde_json::json;

    fn faults(body: Value) -> Vec<String> {
        match parse(&body, Catalogue::built_in(), &EgressPolicy::default()) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| fault.pointer).collect(),
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let good = json!({"types": ["no.ryggrad.grunndata.*"], "sink": "https://mottak.example.org/h"});
        assert_eq!(faults(good.clone()), Vec::<String>::new());
        assert_eq!(faults(json!({"types": ["*"], "channel": "pull"})), Vec::<String>::new());
        for (body, expected) in [
            (json!([]), vec![""]),
            (json!({}), vec!["/types", "/sink"]),
            (json!({"types": [], "sink": 7}), vec!["/types", "/sink"]),
            (json!({"types": ["no.finnes.ikke.v1", 3], "sink": "http://x"}), vec!["/types/0", "/types/1", "/sink"]),
            (
                json!({"types": ["*"], "sink": "https://127.0.0.1/", "start": "i morgen", "secret": "whsec_x", "description": 1, "farge": "blå"}),
                vec!["/farge", "/sink", "/description", "/start", "/secret"],
            ),
            (
                json!({"types": ["*"], "channel": "pull", "sink": "https://m.example.org/", "secret": "x", "order": "key", "verify": "auto", "headers": {}}),
                vec!["/sink", "/secret", "/headers", "/verify", "/order"],
            ),
            (
                json!({"types": ["*"], "sink": "https://m.example.org/", "order": 1, "in_flight_max": 0, "verify": "none", "headers": {"host": "x"}}),
                vec!["/order", "/in_flight_max", "/verify", "/headers/host"],
            ),
            (json!({"types": ["*"], "channel": "fax"}), vec!["/channel", "/sink"]),
            (json!({"types": ["*"], "channel": "pull", "watch_list": "312345676"}), vec!["/watch_list"]),
            (
                json!({"types": ["*"], "channel": "pull", "filters": [{"sql": "type LIKE"}, {"exact": {"type": ""}}, {"regex": {}}]}),
                vec!["/filters/0/sql", "/filters/1/exact/type", "/filters/2/regex"],
            ),
        ] {
            assert_eq!(faults(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn a_type_that_is_shut_is_refused_with_what_it_needs_and_a_wildcard_means_the_others() {
        use ryggrad_schemas::catalogue::Latch;
        let asked = |latch, types: &str| {
            let body = json!({"types": [types], "channel": "pull"});
            parse(&body, Catalogue::opened(latch), &EgressPolicy::default()).map(|new| new.topics)
        };
        let trial = "proeve.maaling.v1".to_owned();
        for types in ["no.ryggrad.proeve.maaling.v1", "no.ryggrad.proeve.*"] {
            for latch in [Latch::Shut, Latch::Trusting] {
                assert!(asked(latch, types).unwrap_err()[0].detail.contains("trial = true"), "{latch:?} {types}");
            }
            assert_eq!(asked(Latch::Trial, types).unwrap(), std::slice::from_ref(&trial));
        }
        assert!(!asked(Latch::Shut, "no.ryggrad.*").unwrap().contains(&trial));
        assert!(asked(Latch::Trial, "no.ryggrad.*").unwrap().contains(&trial));
    }

    #[test]
    fn what_is_chosen_is_kept_and_the_rest_has_defaults() {
        let body = json!({
            "types": ["*"], "sink": "http://127.0.0.1:1/", "format": "batch", "batch_events_max": 7, "verify": "none",
            "headers": {"X-Key": "k"}, "filters": [{"suffix": {"type": ".v1"}}],
        });
        let new = parse(&body, Catalogue::built_in(), &EgressPolicy { development: true, ..EgressPolicy::default() }).unwrap();
        assert_eq!(new.filters.map(|filters| filters.given().clone()), Some(json!([{"suffix": {"type": ".v1"}}])));
        assert_eq!(new.delivery, Settings { format: Format::Batch, batch_events_max: 7, ..Settings::default() });
        assert_eq!((new.verify, new.headers.names()), (Verify::None, vec!["x-key".to_owned()]));
    }
}
