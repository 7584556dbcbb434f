//! A change to a subscription, asked for as a JSON merge patch (RFC 7386).
//!
//! Refused with every wrong field at once, each with what to do instead. Must never change what
//! deliveries are recognised by: id, owner and starting point stay for life.

use ryggrad_schemas::catalogue::Catalogue;
use serde_json::{Map, Value};

use crate::egress::EgressPolicy;
use crate::signature::Secret;
use crate::subscription::{Fault, State, Subscription, parse_description, parse_sink, parse_types};

const MEMBERS: [&str; 5] = ["types", "sink", "description", "state", "secret"];

/// What stays for life, and what to do instead of changing it.
const FIXED: [(&str, &str); 6] = [
    ("id", "cannot be changed: it is the subscription's name"),
    ("organisation", "cannot be changed: let the other organisation make a subscription of its own"),
    ("start", "cannot be changed: make a new subscription that starts there, and delete this one"),
    ("created_at", "cannot be changed: leave it out"),
    ("reason", "cannot be changed: it goes when state becomes active"),
    ("status", "cannot be changed: leave it out"),
];

/// A patch that passed every check. `None` leaves a member as it is.
#[derive(Debug, Clone, Default)]
pub struct Patch {
    /// Event type patterns; they count for what is read from now on.
    pub types: Option<Vec<String>>,
    /// Where events are posted, also those that are being retried.
    pub sink: Option<String>,
    /// The owner's own words; `Some(None)` takes them away.
    pub description: Option<Option<String>>,
    /// Active or paused.
    pub state: Option<State>,
    /// Signs what is sent from now on.
    pub secret: Option<Secret>,
}

impl Patch {
    /// Checks a patch of `subscription`.
    pub fn parse(body: &Value, subscription: &Subscription, catalogue: &Catalogue, policy: EgressPolicy) -> Result<Self, Vec<Fault>> {
        let Value::Object(members) = body else {
            return Err(vec![Fault::new("", format!("the body is a JSON object with some of {}", MEMBERS.join(", ")))]);
        };
        let mut faults = Vec::new();
        for name in members.keys().filter(|name| !MEMBERS.contains(&name.as_str())) {
            faults.push(match FIXED.iter().find(|(fixed, _)| fixed == name) {
                Some((_, remedy)) => Fault::new(format!("/{name}"), *remedy),
                None => Fault::unknown(name, &MEMBERS),
            });
        }
        let types = members.get("types").map(|value| {
            let (types, topics) = parse_types(Some(value), catalogue, &mut faults);
            for topic in topics.iter().filter(|topic| !subscription.from.contains_key(*topic)) {
                faults.push(Fault::new(
                    "/types",
                    format!("needs the topic {topic}, which this subscription does not read: make a second subscription for it"),
                ));
            }
            types
        });
        let sink = members.get("sink").map(|value| parse_sink(Some(value), policy, &mut faults));
        let description = members.contains_key("description").then(|| parse_description(members, &mut faults));
        let state = members.get("state").and_then(|value| {
            let found = match value.as_str() {
                Some("active") => Some(State::Active),
                Some("paused") => Some(State::Paused),
                _ => None,
            };
            if found.is_none() {
                faults.push(Fault::new("/state", "is active or paused; to end a subscription, delete it"));
            }
            found
        });
        let secret = parse_secret(members, &mut faults);
        if faults.is_empty() { Ok(Self { types, sink, description, state, secret }) } else { Err(faults) }
    }

    /// The subscription as it is to be; the secret is the caller's to seal.
    pub fn apply(self, before: Subscription) -> Subscription {
        let reason = if self.state.is_some() { None } else { before.reason };
        Subscription {
            types: self.types.unwrap_or(before.types),
            sink: self.sink.unwrap_or(before.sink),
            description: self.description.unwrap_or(before.description),
            state: self.state.unwrap_or(before.state),
            reason,
            ..before
        }
    }
}

fn parse_secret(members: &Map<String, Value>, faults: &mut Vec<Fault>) -> Option<Secret> {
    let value = members.get("secret")?;
    let parsed = value.as_str().map(str::parse::<Secret>);
    match parsed {
        Some(Ok(secret)) => return Some(secret),
        // The text itself never goes into the fault.
        Some(Err(why)) => faults.push(Fault::new("/secret", why.to_string())),
        None => faults.push(Fault::new("/secret", "is a text; a subscription always has a secret, so that it cannot be taken away")),
    }
    None
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::subscription::Start;
    use serde_json::json;
    use uuid::Uuid;

    fn subscription() -> Subscription {
        Subscription {
            id: Uuid::nil(),
            organisation: "312345676".parse().unwrap(),
            types: vec!["no.ryggrad.*".to_owned()],
            sink: "https://mottak.example.org/".to_owned(),
            description: Some("før".to_owned()),
            start: Start::Now,
            state: State::Disabled,
            reason: Some("410".to_owned()),
            created_at: "2026-01-01T00:00:00Z".to_owned(),
            from: BTreeMap::from([("grunndata.virksomhet.v1".to_owned(), vec![0; 6])]),
            sealed_secret: String::new(),
        }
    }

    fn patched(body: Value) -> Result<Subscription, Vec<String>> {
        Patch::parse(&body, &subscription(), Catalogue::built_in(), EgressPolicy::default())
            .map(|patch| patch.apply(subscription()))
            .map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect())
    }

    #[test]
    fn what_is_given_changes_and_nothing_else() {
        assert_eq!(patched(json!({})), Ok(subscription()));
        let sink = "https://ny.example.org/h".to_owned();
        assert_eq!(patched(json!({"sink": sink})), Ok(Subscription { sink, ..subscription() }));
        assert_eq!(patched(json!({"description": null})), Ok(Subscription { description: None, ..subscription() }));
        assert_eq!(patched(json!({"state": "active"})), Ok(Subscription { state: State::Active, reason: None, ..subscription() }));
        let types = vec!["no.ryggrad.grunndata.virksomhet.*".to_owned()];
        assert_eq!(patched(json!({"types": types})), Ok(Subscription { types, ..subscription() }));
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        for (body, expected) in [
            (json!(null), vec![""]),
            (json!({"sink": null, "types": null, "state": null, "secret": null}), vec!["/types", "/sink", "/state", "/secret"]),
            (json!({"state": "disabled", "description": 7, "secret": "x"}), vec!["/description", "/state", "/secret"]),
            (json!({"id": "x", "start": "now", "farge": 1}), vec!["/farge", "/id", "/start"]),
            (json!({"types": ["no.finnes.ikke.v1"], "sink": "http://127.0.0.1/"}), vec!["/types/0", "/sink"]),
        ] {
            let mut found = patched(body.clone()).unwrap_err();
            found.sort();
            let mut expected = expected;
            expected.sort_unstable();
            assert_eq!(found, expected, "{body}");
        }
        let elsewhere = Subscription { from: BTreeMap::new(), ..subscription() };
        let faults = Patch::parse(&json!({"types": ["no.ryggrad.*"]}), &elsewhere, Catalogue::built_in(), EgressPolicy::default());
        assert!(faults.unwrap_err()[0].detail.contains("second subscription"));
    }
}
