//! Numbers have no gaps though events are set aside, taken up again or removed: what is not
//! delivered under its number is closed by a void notice, and order survives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};

use ryggrad_tests::bridge::Caller;
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::process::Process;
use ryggrad_tests::receiver::{Received, Receiver};
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::wait;
use serde_json::json;

const SETTINGS: &str = "[bridge]\nretry_first_ms = 50\nretry_max_ms = 200\nprobe_ms = 300\npending_per_key_max = 8\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const VOID: &str = "no.ryggrad.void.v1";

/// Keys that the receiver refuses.
type Refused = Arc<Mutex<HashSet<String>>>;

struct Ground {
    scenario: Scenario,
    bridge: Process,
    events: Events,
    caller: Caller,
    receiver: Receiver,
    refused: Refused,
    path: String,
}

impl Ground {
    /// One subscription, whose receiver answers so to keys that it refuses.
    async fn start(on_exhausted: &str, refusal: u16) -> Self {
        let scenario = Scenario::start().await;
        std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
        let bridge = scenario.bridge(&["--config", "bridge.toml"]);
        let caller = scenario.subscriber(ORGANISATION).await;
        let events = Events::start(&scenario.connection()).await;
        let refused = Refused::default();
        let asked = Arc::clone(&refused);
        let answer = move |delivery: &Received| if asked.lock().unwrap().contains(delivery.key()) { refusal } else { 204 };
        let receiver = Receiver::scripted(move |delivery| (answer(delivery), Vec::new())).await;
        receiver.trust(SECRET);
        let body = json!({"types": ["no.ryggrad.*"], "sink": receiver.sink(), "start": "beginning", "secret": SECRET,
            "on_exhausted": on_exhausted, "verify": "none"});
        let (status, body) = caller.post("/v1/subscriptions", body).await;
        assert_eq!(status, 201, "{body}");
        let path = format!("/v1/subscriptions/{}", body["id"].as_str().unwrap());
        Self { scenario, bridge, events, caller, receiver, refused, path }
    }

    async fn takes(&self, what: &str, published: &[Published]) {
        wait::until(what, 30, || async {
            let taken = self.receiver.taken();
            published.iter().all(|published| taken.contains(published.event["id"].as_str().unwrap())).then_some(())
        })
        .await;
    }

    /// Waits until every number was taken as an event or as a void notice, once; how many as the latter.
    async fn has_no_gaps(&self) -> usize {
        let voids = wait::until("numbers without a gap, and nothing pending", 30, || async {
            let status = self.caller.get(&self.path).await.1["status"].clone();
            let mut by_number: BTreeMap<u64, HashSet<String>> = BTreeMap::new();
            for delivery in self.receiver.received().iter().filter(|delivery| delivery.status == 204) {
                let id = delivery.event["id"].as_str().unwrap().to_owned();
                by_number.entry(delivery.number.unwrap().1).or_default().insert(id);
            }
            let is_whole = (1..).zip(by_number.keys()).all(|(due, number)| due == *number);
            (is_whole && status["pending"] == 0).then_some(by_number)
        })
        .await;
        assert!(voids.values().all(|ids| ids.len() == 1), "{voids:?}");
        let received = self.receiver.received();
        assert!(received.iter().all(|delivery| delivery.verified), "all are signed");
        let (closed, ids): (Vec<_>, HashSet<_>) = received
            .iter()
            .filter(|delivery| delivery.event["type"] == VOID)
            .map(|delivery| (delivery.number, delivery.id.clone()))
            .unzip();
        assert_eq!(closed.iter().collect::<HashSet<_>>().len(), ids.len(), "one notice for a number");
        ids.len()
    }

    /// Positions of a key as they were taken.
    fn taken_of(&self, key: &str) -> Vec<u64> {
        let received = self.receiver.received();
        received.iter().filter(|delivery| delivery.status == 204 && delivery.key() == key).map(|delivery| delivery.change().1).collect()
    }
}

fn positions(published: &[Published]) -> Vec<u64> {
    published.iter().map(|published| published.position).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_key_waits_as_a_whole_and_comes_back_in_order() {
    let mut ground = Ground::start("park", 400).await;
    let (bad, letters) = (key(1), format!("{}/dead-letters", ground.path));
    ground.refused.lock().unwrap().insert(bad.clone());
    let mut of_bad = ground.events.publish(vec![bad.clone(); 5]).await;
    let mut others = ground.events.publish((10..40).map(key)).await;
    ground.takes("all but the refused key", &others).await;
    let listed = wait::until("the key is parked", 30, || async {
        let (_, listed) = ground.caller.get(&letters).await;
        (listed["dead_letters"].as_array().unwrap().len() == 1).then(|| listed["dead_letters"][0].clone())
    })
    .await;
    assert_eq!((&listed["parked"], &listed["reason"]), (&json!(true), &json!("hopeless")), "{listed}");
    // More than a lane holds comes meanwhile, and the bridge dies.
    of_bad.extend(ground.events.publish(vec![bad.clone(); 20]).await);
    others.extend(ground.events.publish((10..40).map(key)).await);
    ground.takes("all but the parked key", &others).await;
    let closed = ground.has_no_gaps().await;
    assert!(closed > 0 && ground.taken_of(&bad).is_empty());
    ground.bridge.kill();
    ground.bridge = ground.scenario.bridge(&["--config", "bridge.toml"]);
    ground.caller.ready().await;
    assert_eq!(ground.caller.get(&letters).await.1["dead_letters"][0]["id"], listed["id"]);
    let letter = format!("{letters}/{}", listed["id"].as_str().unwrap());
    assert_eq!(ground.caller.delete(&letter).await.0, 404, "one with a key behind it is not forgotten");

    ground.refused.lock().unwrap().clear();
    assert_eq!(ground.caller.post(&format!("{letters}/redrive"), json!({"key": bad, "preview": true})).await.1["redriven"], 1);
    assert_eq!(ground.caller.post(&format!("{letters}/redrive"), json!({"key": key(2)})).await.1["redriven"], 0);
    let redriven = ground.caller.post(&format!("{letters}/redrive"), json!({"key": bad})).await;
    assert_eq!(redriven, (200, json!({"redriven": 1})));
    ground.takes("the parked key too", &of_bad).await;
    assert_eq!(ground.taken_of(&bad), positions(&of_bad), "each once, in order");
    println!("{} events, {} numbers void", of_bad.len() + others.len(), ground.has_no_gaps().await);
    assert_eq!(ground.caller.get(&letters).await.1["dead_letters"], json!([]));
    assert_eq!(ground.bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_skipped_or_removed_leaves_a_void_notice() {
    let mut ground = Ground::start("skip", 400).await;
    let (bad, letters) = (key(1), format!("{}/dead-letters", ground.path));
    ground.refused.lock().unwrap().insert(bad.clone());
    let skipped = ground.events.publish(vec![bad.clone(); 3]).await;
    let others = ground.events.publish((10..20).map(key)).await;
    ground.takes("all but the refused key", &others).await;
    let listed = wait::until("all of them are skipped", 30, || async {
        let (_, listed) = ground.caller.get(&letters).await;
        (listed["dead_letters"].as_array().unwrap().len() == skipped.len()).then(|| listed["dead_letters"].clone())
    })
    .await;
    assert_eq!(ground.has_no_gaps().await, skipped.len());
    let discard = async |body: serde_json::Value| ground.caller.post(&format!("{letters}/discard"), body).await.1["discarded"].clone();
    assert_eq!(discard(json!({"preview": true})).await, skipped.len());
    assert_eq!(discard(json!({"key": key(2)})).await, 0);
    for letter in &listed.as_array().unwrap()[..1] {
        assert_eq!(letter["parked"], false, "{letter}");
        assert_eq!(ground.caller.delete(&format!("{letters}/{}", letter["id"].as_str().unwrap())).await.0, 204);
    }
    assert_eq!(discard(json!({})).await, skipped.len() - 1);
    assert_eq!(ground.caller.get(&letters).await.1["dead_letters"], json!([]));
    assert_eq!(ground.bridge.stop().await, Some(0));

    let mut ground = Ground::start("block", 500).await;
    ground.refused.lock().unwrap().insert(bad.clone());
    let old = ground.events.publish(vec![bad.clone(); 4]).await;
    let others = ground.events.publish((10..20).map(key)).await;
    ground.takes("all but the failing key", &others).await;
    let removed = ground.events.remove(&bad, true).await;
    ground.scenario.knows_removed(1).await;
    ground.refused.lock().unwrap().clear();
    ground.takes("the removal", std::slice::from_ref(&removed)).await;
    let closed = ground.has_no_gaps().await;
    let taken = ground.taken_of(&bad);
    // One attempt may have been under way, which can't be called back.
    assert!(
        closed >= old.len() - 1 && taken.last() == Some(&removed.position) && taken.len() + closed == old.len() + 1,
        "{closed}: {taken:?}"
    );
    assert_eq!(ground.bridge.stop().await, Some(0));
}
