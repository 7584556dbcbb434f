//! A subscription: what its owner asks for, and what the bridge keeps of it.
//!
//! Cast: [`request`] checks what an owner asks for, [`secrets`] are the signing secrets over time,
//! [`tag`] names a version of it, [`verification`] is whether the endpoint has agreed. Must never hold a signing secret or the
//! value of a header in the clear: the stored form carries them sealed.

mod request;
mod secrets;
mod tag;
mod verification;

use std::collections::BTreeMap;

use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::access::Caller;
use crate::access::kafka_access::Outlet;
use crate::filter::Filters;
use crate::settings::{Channel, Settings};

pub use request::{DESCRIPTION_CHARS_MAX, NewSubscription, SINK_BYTES_MAX, TYPES_MAX, parse};
pub(crate) use request::{parse_description, parse_secret, parse_sink, parse_types, parse_verify, parse_watch_list, webhook_only};
pub use secrets::{OVERLAP_S, PREVIOUS_SECRETS_MAX, PreviousSecret, Rotation, Secrets};
pub use tag::{Precondition, entity_tag};
pub use verification::{Verification, VerificationMethod, VerificationState, Verify};

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
    /// Who has made it for that organisation, and runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplier: Option<Organisasjonsnummer>,
    /// How events get to the receiver.
    #[serde(default)]
    pub channel: Channel,
    /// Event types, each exact or ending in `.*`.
    pub types: Vec<String>,
    /// Which events of these types; `None` for all.
    #[serde(default)]
    pub filters: Option<Filters>,
    /// Of these, only events whose key this watch list holds.
    #[serde(default)]
    pub watch_list: Option<Uuid>,
    /// Where events are posted; `None` where the receiver fetches.
    pub sink: Option<String>,
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
    /// How it is delivered.
    #[serde(default)]
    pub delivery: Settings,
    /// Names of the owner's own headers.
    #[serde(default)]
    pub headers: Vec<String>,
    /// These headers with their values, sealed, in hexadecimal.
    #[serde(default)]
    pub sealed_headers: Option<String>,
    /// Whether the endpoint is asked for its agreement.
    #[serde(default)]
    pub verify: Verify,
    /// Whether the endpoint has agreed.
    #[serde(default)]
    pub verification: Verification,
    /// Topic -> first offset of each partition: where a rebuilt cursor begins.
    pub from: BTreeMap<String, Vec<i64>>,
    /// The signing secret, sealed, in hexadecimal.
    pub sealed_secret: String,
    /// Secrets that it replaced, newest first.
    #[serde(default)]
    pub previous: Vec<PreviousSecret>,
}

impl Subscription {
    /// Whom it is for.
    pub fn caller(&self) -> Caller {
        Caller::new(self.organisation, self.supplier)
    }

    /// The topic that its events are written to, if they are.
    pub fn outlet(&self) -> Option<Outlet> {
        let (receiver, supplier, subscription) = (self.organisation, self.supplier, self.id);
        (self.channel == Channel::Kafka).then_some(Outlet { receiver, supplier, subscription })
    }

    /// Headers that tell a receiver which subscription of whom events come by: one endpoint may serve many.
    pub fn named(&self) -> Vec<(&'static str, String)> {
        let own = [("ryggrad-subscription", self.id.to_string()), ("ryggrad-organisation", self.organisation.to_string())];
        own.into_iter().chain(self.supplier.map(|supplier| ("ryggrad-supplier", supplier.to_string()))).collect()
    }

    /// What its owner may see.
    pub fn public(&self) -> Map<String, Value> {
        let mut shown = members(self);
        for name in ["sealed_secret", "sealed_headers", "previous", "from", "delivery"] {
            shown.remove(name);
        }
        match self.channel {
            Channel::Webhook => {
                shown.append(&mut members(&self.delivery));
                let until_ms = self.previous.iter().map(|previous| previous.until_ms).max();
                let until = until_ms.and_then(|until_ms| jiff::Timestamp::from_millisecond(until_ms).ok());
                shown.insert("previous_secret_until".to_owned(), json!(until.map(|until| until.to_string())));
            }
            Channel::Pull | Channel::WebSocket | Channel::Kafka => {
                shown.remove("headers");
                shown.remove("verify");
            }
        }
        if let Some(outlet) = self.outlet() {
            shown.insert("topic".to_owned(), json!(outlet.topic()));
        }
        shown.retain(|_, value| !value.is_null());
        shown
    }

    /// Whether deliveries may be made as far as the endpoint's agreement goes. In development an
    /// endpoint need not agree; elsewhere nothing leaves for one that has not.
    pub fn may_deliver(&self, development: bool) -> bool {
        match self.verification.state {
            VerificationState::Verified => true,
            VerificationState::NotRequired => self.verify == Verify::Auto || development,
            VerificationState::Pending | VerificationState::Unverified => development,
        }
    }

    /// Attempts a minute: the owner's limit or the one that the endpoint granted, whichever is less.
    pub fn attempts_per_minute_max(&self) -> Option<u32> {
        self.delivery.attempts_per_minute_max.into_iter().chain(self.verification.rate_per_minute).min()
    }
}

fn members(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    }
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
        Self::at("", name, format!("is unknown; known are {}", known.join(", ")))
    }

    /// Every member that nobody knows.
    pub fn unknown_in(members: &Map<String, Value>, known: &[&str]) -> Vec<Self> {
        members.keys().filter(|name| !known.contains(&name.as_str())).map(|name| Self::unknown(name, known)).collect()
    }

    /// A fault of a member whose name came from outside.
    pub fn at(parent: &str, name: &str, detail: impl Into<String>) -> Self {
        Self::new(format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1")), detail)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::settings::{Format, OnExhausted};

    /// A subscription to a webhook as it is stored.
    pub(crate) fn example() -> Subscription {
        Subscription {
            id: Uuid::nil(),
            organisation: "312345676".parse().unwrap(),
            supplier: None,
            channel: Channel::Webhook,
            types: vec!["no.ryggrad.*".to_owned()],
            filters: serde_json::from_value(json!([{"sql": "EXISTS subject"}])).unwrap(),
            watch_list: None,
            sink: Some("https://mottak.example.org/".to_owned()),
            description: Some("før".to_owned()),
            start: Start::Now,
            state: State::Active,
            reason: None,
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            delivery: Settings::default(),
            headers: vec!["authorization".to_owned()],
            sealed_headers: Some("aabbcc".to_owned()),
            verify: Verify::Auto,
            verification: Verification::first(Channel::Webhook, Verify::Auto),
            from: BTreeMap::from([("grunndata.virksomhet.v1".to_owned(), vec![0; 6])]),
            sealed_secret: "c2VjcmV0".to_owned(),
            previous: vec![PreviousSecret { sealed_secret: "gammel".to_owned(), until_ms: 0 }],
        }
    }

    #[test]
    fn the_public_form_has_names_and_no_secrets() {
        let subscription = example();
        let shown = Value::Object(subscription.public());
        let text = shown.to_string();
        assert!(["c2VjcmV0", "aabbcc", "gammel", "sealed", "from", "delivery"].iter().all(|hidden| !text.contains(hidden)), "{text}");
        assert_eq!((&shown["start"], &shown["order"], &shown["headers"][0]), (&json!("now"), &json!("key"), &json!("authorization")));
        assert_eq!(shown["previous_secret_until"], "1970-01-01T00:00:00Z");
        assert_eq!(shown["verification"], json!({"state": "pending"}));
        assert_eq!(shown["filters"], json!([{"sql": "EXISTS subject"}]));
        let stored = serde_json::to_string(&subscription).unwrap();
        assert_eq!(serde_json::from_str::<Subscription>(&stored).unwrap(), subscription);
        let pull = Subscription { channel: Channel::Pull, sink: None, ..example() }.public();
        assert!(["sink", "order", "headers", "verify"].iter().all(|name| !pull.contains_key(*name)), "{pull:?}");
    }

    #[test]
    fn what_was_stored_before_there_were_choices_is_read_and_goes_on() {
        let old = json!({
            "id": Uuid::nil(), "organisation": "312345676", "types": ["*"], "sink": "https://mottak.example.org/",
            "description": null, "start": "now", "state": "active", "reason": null, "created_at": "2026-01-01T00:00:00Z",
            "from": {}, "sealed_secret": "00",
        });
        let read: Subscription = serde_json::from_value(old).unwrap();
        assert_eq!(
            (read.channel, read.delivery, read.verification.state),
            (Channel::Webhook, Settings::default(), VerificationState::NotRequired)
        );
        assert_eq!((read.delivery.on_exhausted, read.delivery.format), (OnExhausted::Block, Format::Structured));
        assert!(read.may_deliver(false) && read.filters.is_none() && read.supplier.is_none());
    }

    #[test]
    fn nothing_leaves_for_an_endpoint_that_has_not_agreed() {
        use VerificationState::{NotRequired, Pending, Unverified, Verified};
        for (state, verify, strict) in [
            (Verified, Verify::Auto, true),
            (Pending, Verify::Auto, false),
            (Unverified, Verify::Auto, false),
            (NotRequired, Verify::Auto, true),
            (NotRequired, Verify::None, false),
        ] {
            let subscription = Subscription { verify, verification: Verification { state, ..Verification::default() }, ..example() };
            assert_eq!(subscription.may_deliver(false), strict, "{state:?} {verify:?}");
            assert!(subscription.may_deliver(true), "{state:?} {verify:?}");
        }
    }

    #[test]
    fn the_lower_rate_counts() {
        for (own, granted, expected) in [
            (None, None, None),
            (Some(7), None, Some(7)),
            (None, Some(9), Some(9)),
            (Some(7), Some(9), Some(7)),
            (Some(9), Some(7), Some(7)),
        ] {
            let mut subscription = example();
            subscription.delivery.attempts_per_minute_max = own;
            subscription.verification.rate_per_minute = granted;
            assert_eq!(subscription.attempts_per_minute_max(), expected);
        }
    }
}
