//! Judges what a webhook receiver gets: is it signed, is it new, does its subject move forward?
//!
//! Pure: the present is an argument. Verifies before it parses, and remembers a bounded number
//! of deliveries and subjects, so that a long run cannot fill the memory.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use ryggrad_bridge_core::signature::{self, Secret};
use serde_json::{Map, Value, json};

const TOLERANCE_S: i64 = 300;
const DELIVERIES_REMEMBERED_MAX: usize = 100_000;
const SUBJECTS_REMEMBERED_MAX: usize = 500_000;

/// One request as it came in. Header names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body's bytes, unparsed.
    pub body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, value)| found == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }
}

/// A delivery whose signature is good.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// `webhook-id`: the same over retries.
    pub id: String,
    /// The CloudEvent.
    pub event: Value,
    /// Whether this id was seen before.
    pub is_duplicate: bool,
    /// Set if its subject went backwards.
    pub setback: Option<Setback>,
    headers: Vec<(String, String)>,
}

/// A subject that went backwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    /// The highest position seen before.
    pub before: u128,
    /// The position now.
    pub now: u128,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Signed and understood.
    Good(Delivery),
    /// Not a webhook, or no event: 400.
    Bad(String),
    /// Not signed with our secret, or too old: 401.
    Unsigned(String),
}

/// How many of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events, each counted once.
    pub received: u64,
    /// Deliveries of an event that was received before.
    pub duplicates: u64,
    /// Events whose subject went backwards.
    pub setbacks: u64,
    /// Requests whose signature is wrong, missing or too old.
    pub bad_signatures: u64,
    /// Requests that are no webhook with an event.
    pub bad_requests: u64,
}

/// Remembers what was received.
pub struct Ledger {
    secret: Secret,
    deliveries: Recent<String>,
    positions: HashMap<Lane, u128>,
    /// How many of each so far.
    pub counts: Counts,
}

/// Positions grow within one feed only, and what reconciliation finds is numbered by its runs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Lane {
    subject: String,
    source: String,
    funnet: String,
}

impl Ledger {
    /// An empty ledger that verifies with this secret.
    pub fn new(secret: Secret) -> Self {
        Self { secret, deliveries: Recent::new(DELIVERIES_REMEMBERED_MAX), positions: HashMap::new(), counts: Counts::default() }
    }

    /// Judges one request and counts it.
    pub fn judge(&mut self, request: Request, now_s: i64) -> Verdict {
        let verdict = self.verdict(request, now_s);
        let count = match &verdict {
            Verdict::Good(delivery) if delivery.is_duplicate => &mut self.counts.duplicates,
            Verdict::Good(_) => &mut self.counts.received,
            Verdict::Bad(_) => &mut self.counts.bad_requests,
            Verdict::Unsigned(_) => &mut self.counts.bad_signatures,
        };
        *count += 1;
        if matches!(&verdict, Verdict::Good(Delivery { setback: Some(_), .. })) {
            self.counts.setbacks += 1;
        }
        verdict
    }

    fn verdict(&mut self, request: Request, now_s: i64) -> Verdict {
        let mut found =
            ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| (name, request.header(name).map(str::to_owned)));
        if let Some((name, _)) = found.iter().find(|(_, value)| value.is_none()) {
            return Verdict::Unsigned(format!("the header {name} is missing"));
        }
        let [id, timestamp, signature] = [0, 1, 2].map(|index| found[index].1.take().unwrap_or_default());
        if let Err(error) = signature::verify(&self.secret, now_s, TOLERANCE_S, &id, &timestamp, &signature, &request.body) {
            return Verdict::Unsigned(error.to_string());
        }
        let Ok(event @ Value::Object(_)) = serde_json::from_slice(&request.body) else {
            return Verdict::Bad("the body is no JSON object".to_owned());
        };
        if let Some(missing) = ["specversion", "id", "source", "type"].iter().find(|name| !event[**name].is_string()) {
            return Verdict::Bad(format!("the body is no CloudEvent: it lacks {missing}"));
        }
        let is_duplicate = !self.deliveries.insert(id.clone());
        let setback = if is_duplicate { None } else { self.setback(&event) };
        Verdict::Good(Delivery { id, event, is_duplicate, setback, headers: request.headers })
    }

    fn setback(&mut self, event: &Value) -> Option<Setback> {
        // A replay goes backwards on purpose.
        if event.get("replay").is_some() {
            return None;
        }
        let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let lane = Lane { subject: text("subject"), source: text("source"), funnet: text("funnet") };
        let now: u128 = event.get("data")?.get("posisjon")?.as_str()?.parse().ok()?;
        if self.positions.len() >= SUBJECTS_REMEMBERED_MAX && !self.positions.contains_key(&lane) {
            // Forgetting all of them misses a setback now and then, and never invents one.
            self.positions.clear();
        }
        let highest = self.positions.entry(lane).or_insert(now);
        let before = *highest;
        *highest = before.max(now);
        (now < before).then_some(Setback { before, now })
    }
}

impl Delivery {
    /// The whole event, with what is known of its delivery under `_webhook`.
    pub fn to_json(&self, received_at: &str) -> Value {
        let mut event = self.event.clone();
        let headers: Map<String, Value> = self.headers.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
        if let Value::Object(members) = &mut event {
            let delivery = json!({
                "id": self.id, "received_at": received_at, "duplicate": self.is_duplicate,
                "out_of_order": self.setback.is_some(), "headers": headers,
            });
            members.insert("_webhook".to_owned(), delivery);
        }
        event
    }

    /// A text in the event: an attribute.
    pub fn attribute(&self, name: &str) -> &str {
        self.event.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The name of what changed, if the event tells it.
    pub fn navn(&self) -> &str {
        let data = &self.event["data"];
        data["virksomhet"]["navn"].as_str().or_else(|| data["navn"].as_str()).unwrap_or_default()
    }
}

/// The last so many values.
struct Recent<T> {
    known: HashSet<T>,
    order: VecDeque<T>,
    max: usize,
}

impl<T: Clone + Eq + Hash> Recent<T> {
    fn new(max: usize) -> Self {
        Self { known: HashSet::new(), order: VecDeque::new(), max }
    }

    /// Whether the value is new.
    fn insert(&mut self, value: T) -> bool {
        if !self.known.insert(value.clone()) {
            return false;
        }
        self.order.push_back(value);
        if self.order.len() > self.max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_S: i64 = 1_700_000_000;

    fn secret() -> Secret {
        Secret::from_bytes(vec![7; 32]).unwrap()
    }

    fn event(subject: &str, funnet: &str, position: &str) -> Value {
        json!({
            "specversion": "1.0", "id": "e", "source": "urn:s", "type": "t", "subject": subject, "funnet": funnet,
            "endringstype": "NY", "data": {"posisjon": position, "virksomhet": {"navn": "Åse AS"}}
        })
    }

    fn signed(id: &str, at_s: i64, body: &[u8]) -> Request {
        let headers = [
            ("webhook-id", id.to_owned()),
            ("webhook-timestamp", at_s.to_string()),
            ("webhook-signature", signature::sign(&secret(), id, at_s, body)),
        ];
        Request { headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(), body: body.to_vec() }
    }

    fn delivered(ledger: &mut Ledger, id: &str, event: &Value) -> Delivery {
        match ledger.judge(signed(id, NOW_S, event.to_string().as_bytes()), NOW_S) {
            Verdict::Good(delivery) => delivery,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_signed_with_the_secret_in_time_is_good() {
        let body = event("1", "feed", "5").to_string();
        let good = || signed("msg_1", NOW_S, body.as_bytes());
        let without = |name: &str| Request { headers: good().headers.into_iter().filter(|(found, _)| found != name).collect(), ..good() };
        let altered = Request { body: body.replace('5', "6").into_bytes(), ..good() };
        for (request, expected) in [
            (good(), "good"),
            (without("webhook-id"), "unsigned"),
            (without("webhook-timestamp"), "unsigned"),
            (without("webhook-signature"), "unsigned"),
            (altered, "unsigned"),
            (signed("msg_1", NOW_S - 301, body.as_bytes()), "unsigned"),
            (signed("msg_1", NOW_S + 301, body.as_bytes()), "unsigned"),
            (signed("msg_1", NOW_S, b"[1]"), "bad"),
            (signed("msg_1", NOW_S, b"{\"id\":\"1\"}"), "bad"),
            (signed("msg_1", NOW_S, b"x"), "bad"),
        ] {
            let verdict = match Ledger::new(secret()).judge(request.clone(), NOW_S) {
                Verdict::Good(_) => "good",
                Verdict::Bad(_) => "bad",
                Verdict::Unsigned(_) => "unsigned",
            };
            assert_eq!(verdict, expected, "{request:?}");
        }
    }

    #[test]
    fn a_repeated_id_is_a_duplicate_and_never_a_setback() {
        let mut ledger = Ledger::new(secret());
        assert!(!delivered(&mut ledger, "a", &event("1", "feed", "5")).is_duplicate);
        delivered(&mut ledger, "b", &event("1", "feed", "6"));
        let again = delivered(&mut ledger, "a", &event("1", "feed", "5"));
        assert!(again.is_duplicate && again.setback.is_none());
        assert_eq!(ledger.counts, Counts { received: 2, duplicates: 1, ..Counts::default() });
    }

    #[test]
    fn a_setback_is_a_lower_position_of_the_same_subject_in_the_same_feed() {
        let replayed = || {
            let mut event = event("1", "feed", "1");
            event["replay"] = json!("r1");
            event
        };
        let mut ledger = Ledger::new(secret());
        for (index, (event, expected)) in [
            (event("1", "feed", "9"), None),
            (event("1", "feed", "9"), None),
            (event("2", "feed", "3"), None),
            (event("1", "avstemming", "1"), None),
            (replayed(), None),
            (event("1", "feed", "10"), None),
            (event("1", "feed", "9"), Some(Setback { before: 10, now: 9 })),
            (event("1", "feed", "9"), Some(Setback { before: 10, now: 9 })),
            (event("1", "feed", "not a number"), None),
        ]
        .into_iter()
        .enumerate()
        {
            assert_eq!(delivered(&mut ledger, &format!("id{index}"), &event).setback, expected, "{index}");
        }
        assert_eq!(ledger.counts.setbacks, 2);
    }

    #[test]
    fn old_ids_are_forgotten_first() {
        let mut recent = Recent::new(2);
        assert_eq!([1, 2, 1, 3, 2, 1].map(|value| recent.insert(value)), [true, true, false, true, false, true]);
    }

    #[test]
    fn a_delivery_shows_the_whole_event_and_its_headers() {
        let delivery = delivered(&mut Ledger::new(secret()), "a", &event("1", "feed", "5"));
        let shown = delivery.to_json("2026-01-02T03:04:05.000Z");
        assert_eq!(
            (&shown["subject"], &shown["_webhook"]["id"], &shown["_webhook"]["duplicate"]),
            (&json!("1"), &json!("a"), &json!(false))
        );
        assert_eq!(shown["_webhook"]["headers"]["webhook-timestamp"], NOW_S.to_string());
        assert_eq!((delivery.navn(), delivery.attribute("endringstype"), delivery.attribute("time")), ("Åse AS", "NY", ""));
    }
}
