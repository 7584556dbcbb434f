//! What an owner says holds within a second, though others are delivered meanwhile; and who has
//! much to catch up with does so, whoever else hangs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use ryggrad_bridge_core::settings::Order;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::crowd::{Endpoint, Manners, Weather};
use ryggrad_tests::events::{CE_TYPE, Events, Published, key};
use ryggrad_tests::ledger::{Ledger, Promise, Truth};
use ryggrad_tests::receiver::{Received, Receiver};
use ryggrad_tests::rude::{self, Rude};
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::{random, wait};
use serde_json::{Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const EVERYTHING: &str = "no.ryggrad.*";
/// A type that the pattern above means, and that no catalogue knows.
const OTHER_TYPE: &str = "no.ryggrad.grunndata.virksomhet.annet.v1";
const SUBSCRIPTIONS: usize = 50;
const WITHIN_MS: i64 = 1_000;
const AT_A_TIME: usize = 10;
/// Events that are published while nothing must come.
const MEANWHILE: usize = 60;
const EVERY: Duration = Duration::from_millis(150);

const CATCHING_UP: usize = 30;
const BACKLOG: usize = 4_000;

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn subscribe(caller: &Caller, sink: &str, start: &str) -> String {
    let body = json!({"types": [EVERYTHING], "sink": sink, "start": start, "secret": SECRET, "verify": "none"});
    let (status, body) = caller.post("/v1/subscriptions", body).await;
    assert_eq!(status, 201, "{body}");
    format!("/v1/subscriptions/{}", body["id"].as_str().unwrap())
}

/// Publishes until it is told to stop, events of two types in turn.
async fn publish(mut events: Events, mut random: StdRng, all: Arc<Mutex<Vec<Published>>>, stop: Arc<AtomicBool>) {
    let mut pace = tokio::time::interval(EVERY);
    for ce_type in [CE_TYPE, OTHER_TYPE].into_iter().cycle() {
        if stop.load(Ordering::SeqCst) {
            return;
        }
        pace.tick().await;
        events.choose_type(ce_type);
        let keys: Vec<String> = (0..AT_A_TIME).map(|_| key(random.random_range(0..100))).collect();
        let published = events.publish(keys).await;
        all.lock().unwrap().extend(published);
    }
}

/// A subscription, and what it is measured by.
struct Subject<'a> {
    caller: &'a Caller,
    published: &'a Mutex<Vec<Published>>,
    /// Another subscription that gets everything.
    witness: &'a Receiver,
}

impl Subject<'_> {
    /// Makes a call: when it was made, and when it was answered.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (i64, i64) {
        let made = now_ms();
        let (status, answer) = self.caller.call(method, path, body).await;
        assert!((200..300).contains(&status), "{path}: {answer}");
        (made, now_ms())
    }

    /// The receiver gets such a thing after the call, and how long that took.
    async fn begins(&self, what: &str, receiver: &Receiver, since_ms: i64, such: impl Fn(&Received) -> bool) {
        let first = wait::until(what, 30, || async {
            receiver.received().iter().find(|delivery| delivery.at_ms >= since_ms && such(delivery)).map(|delivery| delivery.at_ms)
        })
        .await;
        println!("{what}: {} ms after the call", first - since_ms);
        assert!(first - since_ms <= WITHIN_MS, "{what} after {} ms", first - since_ms);
    }

    /// No such thing comes any more a second after the call, though many would have.
    async fn ends(&self, what: &str, receiver: &Receiver, (made_ms, answered_ms): (i64, i64), such: impl Fn(&Received) -> bool) {
        let until_ms = made_ms + WITHIN_MS;
        wait::until("a second has passed", 10, || async { (now_ms() > until_ms).then_some(()) }).await;
        let known = self.published.lock().unwrap().len();
        let last = wait::until("events go on", 30, || async {
            self.published.lock().unwrap().get(known + MEANWHILE).map(|published| published.position)
        })
        .await;
        wait::until("the witness has them", 30, || async {
            self.witness.received().iter().any(|delivery| delivery.change().1 >= last).then_some(())
        })
        .await;
        let late = receiver.received().iter().filter(|delivery| delivery.at_ms > until_ms && such(delivery)).count();
        println!("{what}: answered after {} ms; {late} later than a second", answered_ms - made_ms);
        assert_eq!(late, 0, "{what}");
    }
}

fn any(_: &Received) -> bool {
    true
}

fn other(delivery: &Received) -> bool {
    delivery.event["type"] == OTHER_TYPE
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_says_holds_within_a_second() {
    let mut random = random::seeded("what_an_owner_says_holds_within_a_second");
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let caller = scenario.subscriber(ORGANISATION).await;
    let events = Events::start(&scenario.connection()).await;
    let weather = Arc::<Weather>::default();
    let witness = Receiver::start().await;
    subscribe(&caller, &witness.sink(), "beginning").await;
    let mut crowd = Vec::new();
    for _ in 1..SUBSCRIPTIONS {
        let ledger = Arc::<Mutex<Ledger>>::default();
        let endpoint = Endpoint::start(Manners::Good, SECRET, StdRng::from_rng(&mut random), &ledger, &weather).await;
        subscribe(&caller, endpoint.sink(), "beginning").await;
        crowd.push(ledger);
    }
    let (published, calm) = (Arc::<Mutex<Vec<Published>>>::default(), Arc::<AtomicBool>::default());
    let publisher = tokio::spawn(publish(events, StdRng::from_rng(&mut random), Arc::clone(&published), Arc::clone(&calm)));
    let enough = || crowd.iter().all(|ledger| ledger.lock().unwrap().taken() > 50);
    wait::until("all are under load", 60, || async { enough().then_some(()) }).await;

    let subject = Subject { caller: &caller, published: &published, witness: &witness };
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let made = now_ms();
    let path = subscribe(&caller, &first.sink(), "now").await;
    subject.begins("a new subscription gets events", &first, made, any).await;
    let paused = subject.call(Method::POST, &format!("{path}/pause"), None).await;
    subject.ends("a paused one gets none", &first, paused, any).await;
    let (resumed, _) = subject.call(Method::POST, &format!("{path}/resume"), None).await;
    subject.begins("a resumed one gets events", &first, resumed, any).await;
    let moved = subject.call(Method::PATCH, &path, Some(json!({"sink": second.sink()}))).await;
    subject.begins("the new endpoint gets events", &second, moved.0, any).await;
    subject.ends("the old endpoint gets none", &first, moved, any).await;
    let narrowed = subject.call(Method::PATCH, &path, Some(json!({"types": [CE_TYPE]}))).await;
    subject.ends("types that are not wanted do not come", &second, narrowed, other).await;
    let (widened, _) = subject.call(Method::PATCH, &path, Some(json!({"types": [EVERYTHING]}))).await;
    subject.begins("types that are wanted come", &second, widened, other).await;
    let deleted = subject.call(Method::DELETE, &path, None).await;
    subject.ends("a deleted one gets none", &second, deleted, any).await;

    calm.store(true, Ordering::SeqCst);
    publisher.await.unwrap();
    let published = published.lock().unwrap().clone();
    let truth = Truth::of(&published, &read_all(&scenario.connection(), VIRKSOMHET).await);
    settled(&crowd, &truth).await;
    println!("{} events to {SUBSCRIPTIONS} subscriptions meanwhile", truth.len());
    assert_eq!(bridge.stop().await, Some(0));
}

/// All have everything, in order.
async fn settled(crowd: &[Arc<Mutex<Ledger>>], truth: &Truth) {
    wait::until("all have everything", 60, || async {
        crowd.iter().all(|ledger| ledger.lock().unwrap().taken() >= truth.len()).then_some(())
    })
    .await;
    let promise = Promise { order: Some(Order::Key), repeated_max: 0, is_rewound: false };
    for ledger in crowd {
        assert_eq!(ledger.lock().unwrap().check(truth, promise).1, Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_much_to_catch_up_with_is_served_whoever_else_hangs() {
    let mut random = random::seeded("who_has_much_to_catch_up_with_is_served_whoever_else_hangs");
    let scenario = Scenario::start().await;
    // A ring that holds next to nothing: all of it is read by two readers, from six partitions.
    let settings = "[bridge]\ncatch_up_readers_max = 2\nring_bytes_max = 50000\npending_max = 128\n";
    std::fs::write(scenario.folder.path().join("bridge.toml"), settings).unwrap();
    let mut events = Events::start(&scenario.connection()).await;
    let mut published = Vec::new();
    while published.len() < BACKLOG {
        let keys: Vec<String> = (0..500).map(|_| key(random.random_range(0..200))).collect();
        published.extend(events.publish(keys).await);
    }
    let truth = Truth::of(&published, &read_all(&scenario.connection(), VIRKSOMHET).await);
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let caller = scenario.subscriber(ORGANISATION).await;
    let hanging = Rude::start(rude::Manners::Hangs).await;
    subscribe(&caller, hanging.sink(), "beginning").await;
    wait::until("it hangs", 30, || async { (hanging.requests() > 0).then_some(()) }).await;
    let (weather, began, mut crowd) = (Arc::<Weather>::default(), now_ms(), Vec::new());
    for _ in 1..CATCHING_UP {
        let ledger = Arc::<Mutex<Ledger>>::default();
        let endpoint = Endpoint::start(Manners::Good, SECRET, StdRng::from_rng(&mut random), &ledger, &weather).await;
        subscribe(&caller, endpoint.sink(), "beginning").await;
        crowd.push(ledger);
    }
    settled(&crowd, &truth).await;
    println!("{} subscriptions caught up with {} events in {} ms", crowd.len(), truth.len(), now_ms() - began);
    assert_eq!(bridge.stop().await, Some(0));
}
