//! A change to a subscription, asked for as a JSON merge patch (RFC 7386).
//!
//! Refused with every wrong field at once, each with what to do instead. Must never change what
//! deliveries are recognised by: id, owner, channel and starting point stay for life.

use ryggrad_schemas::catalogue::Catalogue;
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::egress::EgressPolicy;
use crate::filter::Filters;
use crate::own_headers::HeadersChange;
use crate::settings::{Channel, Settings};
use crate::signature::Secret;
use crate::subscription::{
    Fault, State, Subscription, Verification, Verify, parse_description, parse_secret, parse_sink, parse_types, parse_verify,
    parse_watch_list, webhook_only,
};

/// What may change, besides the settings.
const MEMBERS: [&str; 9] = ["types", "filters", "watch_list", "sink", "description", "state", "secret", "headers", "verify"];

/// What stays for life, and what to do instead of changing it.
const FIXED: [(&str, &str); 10] = [
    ("id", "cannot be changed: it is the subscription's name"),
    ("organisation", "cannot be changed: let the other organisation make a subscription of its own"),
    ("supplier", "cannot be changed: let whoever is to run it make a subscription of its own"),
    ("channel", "cannot be changed: make a new subscription with that channel, and delete this one"),
    ("start", "cannot be changed: make a new subscription that starts there, and delete this one"),
    ("created_at", "cannot be changed: leave it out"),
    ("reason", "cannot be changed: it goes when state becomes active"),
    ("status", "cannot be changed: leave it out"),
    ("verification", "cannot be changed: let the endpoint agree, and ask it again with POST …/verify"),
    ("previous_secret_until", "cannot be changed: rotate the secret with POST …/rotate-secret"),
];

/// A patch that passed every check. `None` leaves a member as it is.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// Event type patterns; they count for what is read from now on.
    pub types: Option<Vec<String>>,
    /// Which events of these types, from the next on that is read; `Some(None)` takes them away.
    pub filters: Option<Option<Filters>>,
    /// Of these, only events whose key this watch list holds; `Some(None)` takes it away.
    pub watch_list: Option<Option<Uuid>>,
    /// Where events are posted, also those that are being retried.
    pub sink: Option<String>,
    /// The owner's own words; `Some(None)` takes them away.
    pub description: Option<Option<String>>,
    /// Active or paused.
    pub state: Option<State>,
    /// Signs what is sent from now on, alone.
    pub secret: Option<Secret>,
    /// The owner's own headers.
    pub headers: Option<HeadersChange>,
    /// Whether the endpoint is asked for its agreement.
    pub verify: Option<Verify>,
    /// The members that are settings: read again when they are applied, to what holds by then.
    settings: Map<String, Value>,
}

impl Patch {
    /// Checks a patch of `subscription`.
    pub fn parse(body: &Value, subscription: &Subscription, catalogue: &Catalogue, policy: &EgressPolicy) -> Result<Self, Vec<Fault>> {
        let known = [&MEMBERS[..], &Settings::MEMBERS].concat();
        let Value::Object(members) = body else {
            return Err(vec![Fault::new("", format!("the body is a JSON object with some of {}", known.join(", ")))]);
        };
        let mut faults = Vec::new();
        for name in members.keys().filter(|name| !known.contains(&name.as_str())) {
            faults.push(match FIXED.iter().find(|(fixed, _)| fixed == name) {
                Some((_, remedy)) => Fault::new(format!("/{name}"), *remedy),
                None => Fault::unknown(name, &known),
            });
        }
        let mut patch = Self {
            types: members.get("types").map(|value| checked_types(value, subscription, catalogue, &mut faults)),
            filters: members.get("filters").map(|value| Filters::parse(value, "/filters", &mut faults)),
            watch_list: members.contains_key("watch_list").then(|| parse_watch_list(members, &mut faults)),
            description: members.contains_key("description").then(|| parse_description(members, &mut faults)),
            state: members.get("state").and_then(|value| parse_state(value, &mut faults)),
            ..Self::default()
        };
        match subscription.channel {
            Channel::Pull | Channel::WebSocket | Channel::Kafka => webhook_only(members, &mut faults),
            Channel::Webhook => {
                patch.sink = members.get("sink").map(|value| parse_sink(Some(value), policy, &mut faults));
                patch.secret = parse_secret(members, &mut faults);
                if members.get("secret").is_some_and(Value::is_null) {
                    faults.push(Fault::new("/secret", "is a text; a subscription always has a secret, so that it cannot be taken away"));
                }
                patch.headers = members.get("headers").and_then(|value| HeadersChange::parse(value, &mut faults));
                patch.verify = parse_verify(members, policy, &mut faults);
                patch.settings = members.clone();
                patch.settings.retain(|name, _| Settings::MEMBERS.contains(&name.as_str()));
                let delivery = subscription.delivery.with(&patch.settings, &mut faults);
                if delivery.order != subscription.delivery.order {
                    faults.push(Fault::new(
                        "/order",
                        "cannot be changed: cursors know their lanes; make a new subscription, and delete this one",
                    ));
                }
            }
        }
        if faults.is_empty() { Ok(patch) } else { Err(faults) }
    }

    /// The subscription as it is to be; secret and headers are the caller's to seal.
    pub fn apply(self, before: Subscription) -> Subscription {
        let reason = if self.state.is_some() { None } else { before.reason };
        let verify = self.verify.unwrap_or(before.verify);
        let moved = self.sink.is_some() && self.sink != before.sink;
        let verification = if moved || verify != before.verify { Verification::first(before.channel, verify) } else { before.verification };
        Subscription {
            types: self.types.unwrap_or(before.types),
            filters: self.filters.unwrap_or(before.filters),
            watch_list: self.watch_list.unwrap_or(before.watch_list),
            sink: self.sink.or(before.sink),
            description: self.description.unwrap_or(before.description),
            state: self.state.unwrap_or(before.state),
            reason,
            // Checked when it was parsed; what another change has made impossible since stays as it is.
            delivery: before.delivery.with(&self.settings, &mut Vec::new()),
            verify,
            verification,
            ..before
        }
    }
}

fn checked_types(value: &Value, subscription: &Subscription, catalogue: &Catalogue, faults: &mut Vec<Fault>) -> Vec<String> {
    let (types, topics) = parse_types(Some(value), catalogue, faults);
    for topic in topics.iter().filter(|topic| !subscription.from.contains_key(*topic)) {
        faults.push(Fault::new(
            "/types",
            format!("needs the topic {topic}, which this subscription does not read: make a second subscription for it"),
        ));
    }
    types
}

fn parse_state(value: &Value, faults: &mut Vec<Fault>) -> Option<State> {
    let found = match value.as_str() {
        Some("active") => Some(State::Active),
        Some("paused") => Some(State::Paused),
        _ => None,
    };
    if found.is_none() {
        faults.push(Fault::new("/state", "is active or paused; to end a subscription, delete it"));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::{Format, OnExhausted};
    use crate::subscription::VerificationState;
    use crate::subscription::tests::example;
    use serde_json::json;

    fn subscription() -> Subscription {
        let verification = Verification { state: VerificationState::Verified, ..Verification::default() };
        Subscription { state: State::Disabled, reason: Some("410".to_owned()), verification, ..example() }
    }

    fn patched(body: Value) -> Result<Subscription, Vec<String>> {
        Patch::parse(&body, &subscription(), Catalogue::built_in(), &EgressPolicy::default())
            .map(|patch| patch.apply(subscription()))
            .map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect())
    }

    #[test]
    fn what_is_given_changes_and_nothing_else() {
        assert_eq!(patched(json!({})), Ok(subscription()));
        let (sink, same) = (Some("https://ny.example.org/h".to_owned()), subscription().sink);
        let verification = Verification::first(Channel::Webhook, Verify::Auto);
        assert_eq!(patched(json!({"sink": sink})), Ok(Subscription { sink, verification, ..subscription() }), "it has to agree anew");
        assert_eq!(patched(json!({"sink": same})), Ok(subscription()));
        assert_eq!(patched(json!({"description": null})), Ok(Subscription { description: None, ..subscription() }));
        assert_eq!(patched(json!({"state": "active"})), Ok(Subscription { state: State::Active, reason: None, ..subscription() }));
        let types = vec!["no.ryggrad.grunndata.virksomhet.*".to_owned()];
        assert_eq!(patched(json!({"types": types})), Ok(Subscription { types, ..subscription() }));
        let given = json!([{"any": [{"exact": {"endringstype": "NY"}}, {"sql": "EXISTS subject"}]}]);
        let filters = serde_json::from_value(given.clone()).unwrap();
        assert_eq!(patched(json!({"filters": given})), Ok(Subscription { filters, ..subscription() }));
        for none in [json!(null), json!([])] {
            assert_eq!(patched(json!({"filters": none})), Ok(Subscription { filters: None, ..subscription() }));
        }
        let listed = Subscription { watch_list: Some(Uuid::nil()), ..subscription() };
        assert_eq!(patched(json!({"watch_list": Uuid::nil()})), Ok(listed.clone()));
        let unlisted = Patch::parse(&json!({"watch_list": null}), &listed, Catalogue::built_in(), &EgressPolicy::default());
        assert_eq!(unlisted.unwrap().apply(listed), subscription());
        let settings = Settings { on_exhausted: OnExhausted::Park, format: Format::Batch, batch_events_max: 3, ..Settings::default() };
        let body = json!({"on_exhausted": "park", "format": "batch", "batch_events_max": 3, "in_flight_max": null});
        assert_eq!(patched(body), Ok(Subscription { delivery: settings, ..subscription() }));
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        for (body, expected) in [
            (json!(null), vec![""]),
            (json!({"sink": null, "types": null, "state": null, "secret": null}), vec!["/types", "/sink", "/state", "/secret"]),
            (json!({"state": "disabled", "description": 7, "secret": "x"}), vec!["/description", "/state", "/secret"]),
            (json!({"id": "x", "start": "now", "farge": 1, "channel": "pull"}), vec!["/channel", "/farge", "/id", "/start"]),
            (json!({"types": ["no.finnes.ikke.v1"], "sink": "http://127.0.0.1/"}), vec!["/types/0", "/sink"]),
            (json!({"filters": [{"sql": "a ="}, {"not": []}]}), vec!["/filters/0/sql", "/filters/1/not"]),
            (json!({"order": "x", "headers": {"te": "x"}, "verify": "none"}), vec!["/order", "/headers/te", "/verify"]),
        ] {
            let mut found = patched(body.clone()).unwrap_err();
            found.sort();
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(found, expected, "{body}");
        }
        let elsewhere = Subscription { from: BTreeMap::new(), ..subscription() };
        let faults = Patch::parse(&json!({"types": ["no.ryggrad.*"]}), &elsewhere, Catalogue::built_in(), &EgressPolicy::default());
        assert!(faults.unwrap_err()[0].detail.contains("second subscription"));
        let pull = Subscription { channel: Channel::Pull, sink: None, ..subscription() };
        let faults = Patch::parse(&json!({"sink": "https://m.example.org/"}), &pull, Catalogue::built_in(), &EgressPolicy::default());
        assert!(faults.unwrap_err()[0].detail.contains("channel webhook"));
    }
}
