//! Two worlds that differ in withheld events alone: a receiver that looks at everything that it is shown cannot tell
//! in which it lives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Method;
use ryggrad_log::Appender;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::channels::{Client, Mood, Socket, Way, now_ms};
use ryggrad_tests::process::Process;
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::trial::{CONTROLLER, Measurement, Parties, STRANGER, TYPE, make, patient};
use ryggrad_tests::wait;
use serde_json::{Value, json};
use tokio::time::Instant;

/// What the receiver may have, in both worlds.
const SHOWN: usize = 60;
/// What it may not have, for each of these, in the second.
const WITHHELD_EACH: usize = 2;
const EVERY: Duration = Duration::from_millis(40);
/// What comes later than this by the side of the other world would show.
const RESOLUTION_MS: i64 = 100;
/// All attempts are kept: which are the latest is a matter of the time that passes before a retry.
const SETTINGS: &str = "[bridge]\ntrial = true\nattempts_logged_max = 200\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

struct World {
    /// Its broker.
    _scenario: Scenario,
    bridge: Process,
    receiver: Caller,
    clients: Vec<Client>,
    /// It refuses what is about one patient once.
    moody: Receiver,
    posted: String,
    socket: Socket,
    appender: Appender,
}

impl World {
    async fn begin() -> Self {
        let scenario = Scenario::start().await;
        std::fs::write(scenario.folder.path().join("ryggrad.toml"), SETTINGS).unwrap();
        let bridge = scenario.bridge(&["--config", "ryggrad.toml"]);
        let parties = Parties::meet(&scenario).await;
        // A patient that is followed and has said no, and one that is followed from now on alone.
        let block = json!({"subject": patient("blocked"), "receiver": ryggrad_tests::trial::RECEIVER});
        for (name, from) in [("blocked", "2026-01-01T00:00:00Z"), ("late", "2026-03-01T00:00:00Z")] {
            make(
                &parties.controller,
                "relations",
                json!({"subject": patient(name), "receiver": ryggrad_tests::trial::RECEIVER, "from": from}),
            )
            .await;
        }
        make(&parties.controller, "blocks", block).await;
        let receiver = parties.receiver;
        let mut clients = Vec::new();
        for way in Way::ALL {
            clients.push(Client::subscribe(&receiver, way, &json!({"types": [TYPE]}), Mood::Takes).await);
        }
        let moody = Receiver::start().await;
        moody.trust(SECRET);
        let mut refused = false;
        moody.answer_with(move |delivery| {
            let refuses = delivery.key() == patient("1") && !std::mem::replace(&mut refused, true);
            (if refuses { 500 } else { 204 }, Vec::new())
        });
        let wish = json!({"types": ["no.ryggrad.*"], "sink": moody.sink(), "secret": SECRET, "verify": "none"});
        let posted = make(&receiver, "subscriptions", wish).await;
        let watched = make(&receiver, "subscriptions", json!({"types": [TYPE], "channel": "websocket"})).await;
        let mut socket = Socket::open(&receiver, &watched, "ryggrad.v1", "").await.ok().unwrap();
        socket.say(json!({"type": "credit", "events": 2 * SHOWN})).await;
        let appender = Appender::new(&scenario.connection(), 10_000).unwrap();
        Self { _scenario: scenario, bridge, receiver, clients, moody, posted, socket, appender }
    }

    /// The same in both, but for what stays in the second. When each was published.
    async fn live(&self, withholds: bool) -> Vec<i64> {
        let mut published = Vec::new();
        let mut due = Instant::now();
        for number in 0..SHOWN {
            due += EVERY;
            tokio::time::sleep_until(due).await;
            if withholds {
                for (index, (subject, controller)) in
                    [("unrelated", CONTROLLER), ("blocked", CONTROLLER), ("late", CONTROLLER), ("1", STRANGER)].into_iter().enumerate()
                {
                    for each in 0..WITHHELD_EACH {
                        let id = format!("withheld-{number}-{index}-{each}");
                        Measurement { patient: &patient(subject), id: &id, controller }.publish(&self.appender).await;
                    }
                }
            }
            let (subject, id) = (patient(number % 4), format!("shown-{number}"));
            Measurement { patient: &subject, id: &id, controller: CONTROLLER }.publish(&self.appender).await;
            published.push(now_ms());
        }
        published
    }

    /// A subscription as its owner sees it.
    async fn shown(&self, id: &str) -> Value {
        let mut shown = self.receiver.get(&format!("/v1/subscriptions/{id}")).await.1;
        // Which of those that were on their way together ended last is the network's matter.
        if let Some(events) = shown.pointer_mut("/status/last_attempt/event_ids") {
            *events = json!(events.as_array().map(Vec::len));
        }
        anonymous(shown)
    }

    /// Everything that the receiver is shown, but for what is drawn at random or read off a clock.
    async fn observed(&mut self) -> Vec<(String, Value)> {
        for client in &self.clients {
            client.has_taken(SHOWN).await;
            client.settles().await;
        }
        wait::until("the moody one has all", 30, || async { (self.moody.taken().len() >= SHOWN).then_some(()) }).await;
        // An attempt is told of when its answer is in, and that is after the receiver has taken it.
        wait::until("the moody one's deliveries are settled", 30, || async {
            let status = self.receiver.status(&self.posted).await?;
            (status["pending"] == 0 && status["in_flight"] == 0).then_some(())
        })
        .await;
        let mut seen = Vec::new();
        for client in &self.clients {
            // Keys may come in any order among each other.
            let mut events: Vec<Value> = client.arrivals().into_iter().map(|arrival| arrival.event).collect();
            events.sort_by_key(|event| event["id"].to_string());
            let mut numbers: Vec<u64> = client.arrivals().iter().map(|arrival| arrival.number.1).collect();
            numbers.sort_unstable();
            seen.push((format!("{:?}: numbers", client.way), json!(numbers)));
            seen.push((format!("{:?}: events", client.way), json!(events)));
            // There half a minute decides what is taken, and with it how the subscription stands.
            if client.way != Way::Plain {
                seen.push((format!("{:?}: shown", client.way), self.shown(&client.id).await));
            }
        }
        let mut requests: Vec<Value> = self
            .moody
            .received()
            .iter()
            .map(|request| {
                let names: Vec<&String> = request.headers.keys().collect();
                json!({"length": request.body.len(), "headers": names, "event": request.event, "status": request.status, "id bytes": request.id.len()})
            })
            .collect();
        requests.sort_by_key(|request| format!("{}{}", request["event"]["id"], request["status"]));
        seen.push(("webhook: requests".to_owned(), json!(requests)));
        seen.push(("webhook".to_owned(), self.shown(&self.posted).await));
        for below in ["/attempts?limit=200", "/dead-letters"] {
            let (status, answer) = self.receiver.get(&format!("/v1/subscriptions/{}{below}", self.posted)).await;
            seen.push((format!("webhook{below}"), json!([status, sorted(anonymous(answer))])));
        }
        let (status, preview) = self
            .receiver
            .call(Method::POST, &format!("/v1/subscriptions/{}/replays", self.posted), Some(json!({"from": "beginning", "preview": true})))
            .await;
        seen.push(("preview".to_owned(), json!([status, anonymous(preview)])));
        // The socket's frames as they are: hello, events with cursors, a heartbeat.
        let (mut frames, mut events) = (Vec::new(), Vec::new());
        while events.len() < SHOWN || !frames.iter().any(is_heartbeat) {
            let mut frame = with_open_cursor(self.socket.next().await.unwrap());
            if let Some(mut event) = frame.as_object_mut().and_then(|frame| frame.remove("event")) {
                event.as_object_mut().unwrap().remove("deliverynumber");
                events.push(event);
            }
            frames.push(frame);
        }
        events.sort_by_key(|event| event["id"].to_string());
        frames.sort_by_key(|frame| (frame["type"].to_string(), frame["number"].as_u64()));
        // How many of these there are is the clock's matter.
        frames.dedup_by(|one, other| is_heartbeat(one) && is_heartbeat(other));
        seen.push(("socket: frames".to_owned(), anonymous(json!(frames))));
        let epochs = events
            .iter_mut()
            .map(|event| event.as_object_mut().unwrap().remove("deliveryepoch").map(|epoch| epoch.as_str().unwrap().len()));
        seen.push(("socket: epochs".to_owned(), json!(epochs.collect::<Vec<_>>())));
        seen.push(("socket: events".to_owned(), json!(events)));
        seen
    }
}

fn is_heartbeat(frame: &Value) -> bool {
    frame["type"] == "heartbeat"
}

/// A cursor is opaque, not secret: what lies in it counts as shown.
fn with_open_cursor(mut frame: Value) -> Value {
    if let Some(cursor) = frame.get("cursor").and_then(Value::as_str).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()) {
        // Version, epoch, number; then the tag.
        frame["cursor"] = json!([cursor.len(), cursor[0], cursor[5..13]]);
    }
    frame
}

/// Without what is drawn at random or read off a clock in either world.
fn anonymous(value: Value) -> Value {
    const OTHERWISE: [&str; 14] = [
        "id",
        "sink",
        "epoch",
        "deliveryepoch",
        "created_at",
        "changed_at",
        "at",
        "webhook_id",
        "latency_ms",
        "oldest_pending_age_ms",
        "next_attempt_at",
        "subscription",
        "next",
        "verified_at",
    ];
    match value {
        Value::Object(members) => {
            let keep = |(name, value): (String, Value)| {
                let kept = if OTHERWISE.contains(&name.as_str()) { json!("…") } else { anonymous(value) };
                (name, kept)
            };
            Value::Object(members.into_iter().map(keep).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(anonymous).collect()),
        // Named after the subscription.
        Value::String(text) if text.starts_with("ut.") => json!("…"),
        other => other,
    }
}

/// What came in the order of time, in an order of its own.
fn sorted(mut value: Value) -> Value {
    if let Some(attempts) = value.get_mut("attempts").and_then(Value::as_array_mut) {
        attempts.sort_by_key(ToString::to_string);
    }
    value
}

/// How long each event took to come, the median.
fn median_ms(world: &World, published: &[i64]) -> i64 {
    let mut took: Vec<i64> = world.clients[0].arrivals().iter().map(|arrival| arrival.at_ms).collect();
    took.sort_unstable();
    let mut took: Vec<i64> = took.iter().zip(published).map(|(arrived, published)| arrived - published).collect();
    took.sort_unstable();
    took[took.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_event_is_as_if_there_were_none() {
    let (mut with, mut without) = tokio::join!(World::begin(), World::begin());
    let (published, published_without) = tokio::join!(with.live(true), without.live(false));
    let (seen, seen_without) = tokio::join!(with.observed(), without.observed());
    assert_eq!(seen.len(), seen_without.len());
    for ((what, found), (_, expected)) in seen.iter().zip(&seen_without) {
        assert_eq!(found, expected, "{what}");
    }
    let (took, took_without) = (median_ms(&with, &published), median_ms(&without, &published_without));
    println!("{} observations; median latency {took} ms with withheld events, {took_without} ms without", seen.len());
    assert!((took - took_without).abs() < RESOLUTION_MS, "{took} ms with withheld events, {took_without} ms without");
    // The test could have told: an event more is seen.
    Measurement { patient: &patient("2"), id: "one-more", controller: CONTROLLER }.publish(&with.appender).await;
    with.clients[0].has_taken(SHOWN + 1).await;
    with.clients[0].settles().await;
    assert_ne!(with.shown(&with.clients[0].id).await, without.shown(&without.clients[0].id).await);
    for world in [&mut with, &mut without] {
        world.bridge.stop().await;
    }
}
