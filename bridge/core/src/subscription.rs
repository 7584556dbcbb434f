//! A subscription: what its owner asks for, and what the bridge keeps of it.
//!
//! A request is refused with every wrong field at once. Must never hold the signing secret in
//! the clear: the stored form carries it sealed.

use std::collections::BTreeMap;

use ryggrad_schemas::catalogue::{Catalogue, DataClass};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::egress::{self, EgressPolicy};
use crate::signature::Secret;

/// Most patterns in `types`.
pub const TYPES_MAX: usize = 32;
/// Longest `sink`, in bytes.
pub const SINK_BYTES_MAX: usize = 2_048;
/// Longest `description`, in characters.
pub const DESCRIPTION_CHARS_MAX: usize = 200;

/// Where a new subscription starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Start {
    /// With what is published from now on.
    Now,
    /// With the oldest event that is still there.
    Beginning,
    /// With what was published at this time or later.
    Time(jiff::Timestamp),
}

impl From<Start> for String {
    fn from(start: Start) -> Self {
        match start {
            Start::Now => "now".to_owned(),
            Start::Beginning => "beginning".to_owned(),
            Start::Time(time) => time.to_string(),
        }
    }
}

impl TryFrom<String> for Start {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.as_str() {
            "now" => Ok(Self::Now),
            "beginning" => Ok(Self::Beginning),
            time => time.parse().map(Self::Time).map_err(|_| "it is \"now\", \"beginning\" or a time like 2026-01-31T08:00:00Z"),
        }
    }
}

/// Whether events are delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Yes.
    Active,
    /// No, by its owner.
    Paused,
    /// No, by the bridge, for the reason given.
    Disabled,
}

/// A subscription as the bridge keeps it. Serialised into `ryggrad.subscriptions`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// Assigned by the bridge.
    pub id: Uuid,
    /// Whose it is.
    pub organisation: Organisasjonsnummer,
    /// Event types, each exact or ending in `.*`.
    pub types: Vec<String>,
    /// Where events are posted.
    pub sink: String,
    /// The owner's own words.
    pub description: Option<String>,
    /// Where it started.
    pub start: Start,
    /// Whether events are delivered.
    pub state: State,
    /// Why not, if not.
    pub reason: Option<String>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Topic -> first offset of each partition: where a rebuilt cursor begins.
    pub from: BTreeMap<String, Vec<i64>>,
    /// The signing secret, sealed, in base64.
    pub sealed_secret: String,
}

impl Subscription {
    /// What its owner may see.
    pub fn public(&self) -> Map<String, Value> {
        let mut shown = match serde_json::to_value(self) {
            Ok(Value::Object(members)) => members,
            _ => Map::new(),
        };
        shown.remove("sealed_secret");
        shown.remove("from");
        shown.retain(|_, value| !value.is_null());
        shown
    }
}

/// A request that passed every check.
#[derive(Debug, Clone)]
pub struct NewSubscription {
    /// Event type patterns.
    pub types: Vec<String>,
    /// Topics that carry them.
    pub topics: Vec<String>,
    /// Where events are posted.
    pub sink: String,
    /// The owner's own words.
    pub description: Option<String>,
    /// Where to start.
    pub start: Start,
    /// A secret that the owner brings; else one is made.
    pub secret: Option<Secret>,
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// JSON pointer to it.
    pub pointer: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl Fault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }

    /// A member that nobody knows.
    pub fn unknown(name: &str, known: &[&str]) -> Self {
        Self::new(format!("/{}", name.replace('~', "~0").replace('/', "~1")), format!("is unknown; known are {}", known.join(", ")))
    }
}

const MEMBERS: [&str; 5] = ["types", "sink", "description", "start", "secret"];

/// Checks a request.
pub fn parse(body: &Value, catalogue: &Catalogue, policy: EgressPolicy) -> Result<NewSubscription, Vec<Fault>> {
    let Value::Object(members) = body else {
        return Err(vec![Fault::new("", "the body is a JSON object with at least types and sink")]);
    };
    let mut faults = Vec::new();
    for name in members.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
        faults.push(Fault::unknown(name, &MEMBERS));
    }
    let (types, topics) = parse_types(members.get("types"), catalogue, &mut faults);
    let sink = parse_sink(members.get("sink"), policy, &mut faults);
    let description = parse_description(members, &mut faults);
    let start = optional_text(members, "start", &mut faults).map_or(Start::Now, |text| {
        Start::try_from(text).unwrap_or_else(|why| {
            faults.push(Fault::new("/start", why));
            Start::Now
        })
    });
    let secret = optional_text(members, "secret", &mut faults).and_then(|text| {
        // The text itself never goes into the fault.
        text.parse::<Secret>().map_err(|why| faults.push(Fault::new("/secret", why.to_string()))).ok()
    });
    if faults.is_empty() { Ok(NewSubscription { types, topics, sink, description, start, secret }) } else { Err(faults) }
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
            if event.class != DataClass::Open {
                faults.push(Fault::new(pointer.clone(), format!("means {}, which needs a grant", event.ce_type)));
            }
            if !topics.contains(&event.topic) {
                topics.push(event.topic.clone());
            }
        }
        if !known {
            let all: Vec<&str> = catalogue.events.iter().map(|event| event.ce_type.as_str()).collect();
            faults.push(Fault::new(pointer, format!("matches no event type; there are: {}", all.join(", "))));
        }
        types.push(pattern.to_owned());
    }
    (types, topics)
}

pub(crate) fn parse_sink(value: Option<&Value>, policy: EgressPolicy, faults: &mut Vec<Fault>) -> String {
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
    use serde_json::json;

    fn faults(body: Value) -> Vec<String> {
        match parse(&body, Catalogue::built_in(), EgressPolicy::default()) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| fault.pointer).collect(),
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        let good = json!({"types": ["no.ryggrad.grunndata.*"], "sink": "https://mottak.example.org/h"});
        assert_eq!(faults(good.clone()), Vec::<String>::new());
        for (body, expected) in [
            (json!([]), vec![""]),
            (json!({}), vec!["/types", "/sink"]),
            (json!({"types": [], "sink": 7}), vec!["/types", "/sink"]),
            (json!({"types": ["no.finnes.ikke.v1", 3], "sink": "http://x"}), vec!["/types/0", "/types/1", "/sink"]),
            (
                json!({"types": ["*"], "sink": "https://127.0.0.1/", "start": "i morgen", "secret": "whsec_x", "description": 1, "farge": "blå"}),
                vec!["/farge", "/sink", "/description", "/start", "/secret"],
            ),
        ] {
            assert_eq!(faults(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn the_public_form_has_no_secret() {
        let subscription = Subscription {
            id: Uuid::nil(),
            organisation: "312345676".parse().unwrap(),
            types: vec!["*".to_owned()],
            sink: "https://mottak.example.org/".to_owned(),
            description: None,
            start: Start::Now,
            state: State::Active,
            reason: None,
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            from: BTreeMap::new(),
            sealed_secret: "c2VjcmV0".to_owned(),
        };
        let shown = Value::Object(subscription.public()).to_string();
        assert!(!shown.contains("c2VjcmV0") && shown.contains("\"start\":\"now\""), "{shown}");
        let stored = serde_json::to_string(&subscription).unwrap();
        assert_eq!(serde_json::from_str::<Subscription>(&stored).unwrap(), subscription);
    }
}
