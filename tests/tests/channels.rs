//! The channel conformance suite: one table of behaviours, run against every way in.
//!
//! A channel that is added is a [`Way`] more; a promise to subscribers is a line more in the table.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::sync::Arc;

use futures_util::FutureExt;
use reqwest::Method;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::channels::{Arrival, Client, Mood, Way};
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::process::Process;
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::wait;
use serde_json::{Value, json};
use tokio::sync::{Barrier, Mutex};

/// A window that the behaviours reach.
const PENDING_MAX: u64 = 64;
const SETTINGS: &str = "[bridge]\npending_max = 64\npending_per_key_max = 16\nretry_first_ms = 20\nretry_max_ms = 200\nprobe_ms = 200\n\
    breaker_first_ms = 50\nbreaker_max_ms = 200\n";
const KEYS: u32 = 10;

/// What a behaviour is shown with.
struct Stage {
    /// Before the scenario, so that its log is still there to be shown.
    bridge: Mutex<Option<Process>>,
    scenario: Scenario,
    caller: Caller,
    stranger: Caller,
    events: Mutex<Events>,
    /// All ways meet here before and after what concerns all of them.
    together: Barrier,
}

type Shown<'s> = Pin<Box<dyn Future<Output = ()> + Send + 's>>;
type Behaviour = for<'s> fn(&'s Stage, Way, u32) -> Shown<'s>;

const TABLE: [(&str, Behaviour); 11] = [
    ("everything comes once, whole, in the order of its key, numbered without gaps", |stage, way, own| everything(stage, way, own).boxed()),
    ("an end is one event, and its tombstone none", |stage, way, own| an_end(stage, way, own).boxed()),
    ("what begins now has no past", |stage, way, own| now(stage, way, own).boxed()),
    ("what is not taken comes again, under the same number", |stage, way, own| lost(stage, way, own).boxed()),
    ("who is away fills its window and no more, and nobody waits for it", |stage, way, own| away(stage, way, own).boxed()),
    ("a pause holds back what is posted, and loses nothing", |stage, way, own| pause(stage, way, own).boxed()),
    ("other filters count from the answer on", |stage, way, own| filters(stage, way, own).boxed()),
    ("what was removed does not leave, and its number is closed", |stage, way, own| removed(stage, way, own).boxed()),
    ("a stranger finds nothing", |stage, way, own| stranger(stage, way, own).boxed()),
    ("what is deleted has ended", |stage, way, own| deleted(stage, way, own).boxed()),
    ("a killed bridge loses nothing and renumbers nothing", |stage, way, own| killed(stage, way, own).boxed()),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_channel_behaves_alike() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
    let bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let (caller, stranger) = (scenario.subscriber(ORGANISATION).await, scenario.subscriber(OTHER_ORGANISATION).await);
    let events = Mutex::new(Events::start(&scenario.connection()).await);
    let together = Barrier::new(Way::ALL.len());
    let stage = Arc::new(Stage { scenario, caller, stranger, bridge: Mutex::new(Some(bridge)), events, together });
    let mut failed = 0;
    for (own, (behaviour, show)) in (1..).zip(TABLE) {
        let mut shows = Vec::new();
        for way in Way::ALL {
            let stage = Arc::clone(&stage);
            shows.push(tokio::spawn(async move { show(&stage, way, own).await }));
        }
        let mut line = String::new();
        for (way, show) in Way::ALL.into_iter().zip(shows) {
            let good = show.await.is_ok();
            failed += usize::from(!good);
            line.push_str(&format!(" {way:?}:{}", if good { "ok" } else { "FAILED" }));
        }
        println!("{behaviour}\n   {line}");
    }
    assert_eq!(failed, 0, "the table above says which");
    let stopped = stage.bridge.lock().await.take().unwrap().stop().await;
    assert_eq!(stopped, Some(0));
}

/// Each behaviour has keys of its own: those of one way, of which nobody else is told.
fn own_key(way: Way, own: u32, number: u32) -> String {
    key(own * 1_000_000 + way as u32 * 10_000 + number)
}

fn wish(way: Way, own: u32, start: &str) -> Value {
    let prefix = &own_key(way, own, 0)[..5];
    json!({"types": ["no.ryggrad.*"], "start": start, "filters": [{"prefix": {"subject": prefix}}]})
}

impl Stage {
    async fn subscribe(&self, way: Way, own: u32, start: &str, mood: Mood) -> Client {
        Client::subscribe(&self.caller, way, &wish(way, own, start), mood).await
    }

    /// Waits for all other ways, and says whether this one goes first; fails where one of them has failed.
    async fn meet(&self) -> bool {
        let met = tokio::time::timeout(std::time::Duration::from_secs(90), self.together.wait()).await;
        met.expect("all ways get here").is_leader()
    }

    async fn publish(&self, way: Way, own: u32, count: u32) -> Vec<Published> {
        self.events.lock().await.publish((0..count).map(|index| own_key(way, own, index % KEYS))).await
    }
}

/// What came is what was published: each event, word for word, under one number of one run without
/// gaps; and none was taken before those of its key that precede it.
fn check(client: &Client, published: &[Published]) {
    let way = client.way;
    let arrivals = client.arrivals();
    assert_eq!(client.unsigned(), 0, "{way:?}: every request is signed");
    let known: BTreeMap<&str, &Published> = published.iter().map(|event| (event.event["id"].as_str().unwrap(), event)).collect();
    let mut of_number: BTreeMap<(u64, u64), &Arrival> = BTreeMap::new();
    let (mut taken, mut ids): (BTreeMap<&str, u64>, BTreeSet<&str>) = Default::default();
    for arrival in &arrivals {
        let before = of_number.entry(arrival.number).or_insert(arrival);
        assert_eq!(before.event, arrival.event, "{way:?}: {:?} is one event, whenever it comes", arrival.number);
        let event = known.get(arrival.id()).unwrap_or_else(|| panic!("{way:?}: nobody has published {:?}", arrival.event));
        assert_eq!(arrival.event, event.event, "{way:?}");
        // What was taken may be repeated after a crash, behind later ones.
        if arrival.taken && ids.insert(arrival.id()) {
            let latest = taken.entry(&event.key).or_default();
            assert!(*latest <= event.position, "{way:?}: {} came behind {latest}", event.position);
            *latest = event.position;
        }
    }
    let numbers: Vec<u64> = of_number.keys().map(|(_, number)| *number).collect();
    assert!(numbers.iter().copied().eq(1..=published.len() as u64), "{way:?}: {numbers:?} for {} events", published.len());
    assert_eq!(ids.len(), published.len(), "{way:?}: everything is taken");
}

async fn everything(stage: &Stage, way: Way, own: u32) {
    let mut published = stage.publish(way, own, 120).await;
    let client = stage.subscribe(way, own, "beginning", Mood::Takes).await;
    published.extend(stage.publish(way, own, 80).await);
    client.has_taken(200).await;
    client.settles().await;
    check(&client, &published);
    assert_eq!(client.arrivals().len(), 200, "{way:?}: each of them once");
}

async fn an_end(stage: &Stage, way: Way, own: u32) {
    let client = stage.subscribe(way, own, "now", Mood::Takes).await;
    let mut published = stage.publish(way, own, 3).await;
    published.push(stage.events.lock().await.end(&own_key(way, own, 1)).await);
    published.extend(stage.publish(way, own, 3).await);
    client.has_taken(7).await;
    client.settles().await;
    check(&client, &published);
}

async fn now(stage: &Stage, way: Way, own: u32) {
    stage.publish(way, own, 20).await;
    let client = stage.subscribe(way, own, "now", Mood::Takes).await;
    let published = stage.publish(way, own, 5).await;
    client.has_taken(5).await;
    client.settles().await;
    check(&client, &published);
}

async fn lost(stage: &Stage, way: Way, own: u32) {
    let client = stage.subscribe(way, own, "now", Mood::Loses).await;
    let published = stage.publish(way, own, 30).await;
    client.has_seen(KEYS as usize).await;
    assert_eq!(client.taken(), 0);
    client.be(Mood::Takes);
    client.has_taken(30).await;
    client.settles().await;
    check(&client, &published);
    assert!(client.arrivals().len() > 30, "{way:?}: what was lost came again");
}

async fn away(stage: &Stage, way: Way, own: u32) {
    let absent = stage.subscribe(way, own, "now", Mood::Away).await;
    let present = stage.subscribe(way, own, "now", Mood::Takes).await;
    let published = stage.publish(way, own, 200).await;
    present.has_taken(200).await;
    check(&present, &published);
    // Where Kafka keeps what its receiver has not read, nothing waits at the bridge.
    if way != Way::Kafka {
        let pending = absent.status().await["pending"].as_u64().unwrap();
        assert!((1..=PENDING_MAX).contains(&pending), "{way:?}: {pending} pending");
    }
    assert_eq!(absent.arrivals().len(), 0);
    absent.be(Mood::Takes);
    absent.has_taken(200).await;
    absent.settles().await;
    check(&absent, &published);
}

async fn pause(stage: &Stage, way: Way, own: u32) {
    let held = stage.subscribe(way, own, "now", Mood::Takes).await;
    let free = stage.subscribe(way, own, "now", Mood::Takes).await;
    let mut published = stage.publish(way, own, 10).await;
    held.has_taken(10).await;
    held.settles().await;
    assert_eq!(held.call(Method::POST, "/pause", None).await.0, 200, "{way:?}");
    published.extend(stage.publish(way, own, 10).await);
    free.has_taken(20).await;
    // Who fetches decides itself when.
    if way.is_posted() || way == Way::Kafka {
        assert_eq!(held.taken(), 10, "{way:?}: nothing is sent during a pause");
    }
    assert_eq!(held.call(Method::POST, "/resume", None).await.0, 200, "{way:?}");
    held.has_taken(20).await;
    check(&held, &published);
}

async fn filters(stage: &Stage, way: Way, own: u32) {
    let client = stage.subscribe(way, own, "now", Mood::Takes).await;
    let mut wanted = stage.publish(way, own, 10).await;
    client.has_taken(10).await;
    client.settles().await;
    client.patch(json!({"filters": [{"exact": {"subject": own_key(way, own, 3)}}]})).await;
    let later = stage.publish(way, own, 20).await;
    wanted.extend(later.into_iter().filter(|event| event.key == own_key(way, own, 3)));
    client.has_taken(12).await;
    client.patch(wish(way, own, "now")["filters"].as_array().map(|filters| json!({"filters": filters})).unwrap()).await;
    wanted.extend(stage.publish(way, own, 5).await);
    client.has_taken(17).await;
    client.settles().await;
    check(&client, &wanted);
}

async fn removed(stage: &Stage, way: Way, own: u32) {
    let client = stage.subscribe(way, own, "now", Mood::Away).await;
    let key = own_key(way, own, 2);
    let published = stage.publish(way, own, 20).await;
    let is_there = |status: Value| if way == Way::Kafka { status["kafka"]["written_number"] == 20 } else { status["pending"] == 20 };
    wait::until("all of it is pending, or written", 30, || async { is_there(client.status().await).then_some(()) }).await;
    let removal = stage.events.lock().await.remove(&key, true).await;
    stage.meet().await;
    stage.scenario.knows_removed(Way::ALL.len()).await;
    if way == Way::Kafka {
        // What was not read is withdrawn, and what of it may be read is written anew: all but two, and the removal.
        let again = |status: Value| status["kafka"]["written_number"].as_u64().is_some_and(|number| number >= 20 + 19);
        wait::until("it is written anew", 30, || async { again(client.status().await).then_some(()) }).await;
    }
    client.be(Mood::Takes);
    client.has_taken(if way == Way::Kafka { 19 } else { 21 }).await;
    client.settles().await;
    let arrivals = client.arrivals();
    let older: Vec<&str> = published.iter().filter(|event| event.key == key).map(|event| event.event["id"].as_str().unwrap()).collect();
    assert_eq!(older.len(), 2);
    for arrival in &arrivals {
        assert!(!older.contains(&arrival.id()), "{way:?}: an older state of a removed key has left");
    }
    if way != Way::Kafka {
        let numbers: BTreeSet<u64> = arrivals.iter().map(|arrival| arrival.number.1).collect();
        assert!(numbers.into_iter().eq(1..=21), "{way:?}: no gaps");
        assert_eq!(arrivals.iter().filter(|arrival| arrival.is_void()).count(), older.len(), "{way:?}");
    }
    assert!(arrivals.iter().any(|arrival| arrival.event == removal.event), "{way:?}: the removal itself is told");
}

async fn stranger(stage: &Stage, way: Way, own: u32) {
    let client = stage.subscribe(way, own, "now", Mood::Takes).await;
    let below = [(Method::GET, ""), (Method::GET, "/events"), (Method::GET, "/socket"), (Method::POST, "/ack"), (Method::POST, "/pause")];
    let further = [(Method::POST, "/resume"), (Method::GET, "/attempts"), (Method::GET, "/dead-letters"), (Method::DELETE, "")];
    for (method, below) in below.into_iter().chain(further) {
        let path = format!("/v1/subscriptions/{}{below}", client.id);
        let body = (below == "/ack").then(|| json!({"cursor": "AAAA"}));
        let (status, said) = stage.stranger.call(method.clone(), &path, body).await;
        assert_eq!((status, &said["type"]), (404, &json!("urn:ryggrad:error:not-found")), "{way:?}: {method} {below}: {said}");
    }
    let published = stage.publish(way, own, 3).await;
    client.has_taken(3).await;
    check(&client, &published);
}

async fn deleted(stage: &Stage, way: Way, own: u32) {
    let (client, other) = (stage.subscribe(way, own, "now", Mood::Takes).await, stage.subscribe(way, own, "now", Mood::Takes).await);
    stage.publish(way, own, 5).await;
    client.has_taken(5).await;
    client.settles().await;
    assert_eq!(client.call(Method::DELETE, "", None).await.0, 204);
    stage.publish(way, own, 5).await;
    other.has_taken(10).await;
    assert_eq!(client.arrivals().len(), 5, "{way:?}: nothing comes after the end");
    if !way.is_posted() {
        let said = client.over().await;
        assert!(matches!(said, 404 | 4404), "{way:?}: {said}");
    }
    assert_eq!(client.call(Method::GET, "", None).await.0, 404, "{way:?}");
}

async fn killed(stage: &Stage, way: Way, own: u32) {
    let client = stage.subscribe(way, own, "now", Mood::Takes).await;
    let mut published = Vec::new();
    for round in 1..=3 {
        published.extend(stage.publish(way, own, 60).await);
        client.has_taken(published.len() - 40).await;
        if stage.meet().await {
            let mut bridge = stage.bridge.lock().await;
            if let Some(mut killed) = bridge.take() {
                killed.kill();
            }
            *bridge = Some(stage.scenario.bridge(&["--config", "bridge.toml"]));
            println!("kill {round}");
        }
        stage.meet().await;
        stage.caller.ready().await;
    }
    client.has_taken(published.len()).await;
    client.settles().await;
    check(&client, &published);
    let repeated = client.arrivals().iter().filter(|arrival| arrival.taken).count() - published.len();
    // Who says itself what it has taken need not take it again; a socket's last words may be lost.
    assert!(repeated <= 3 * PENDING_MAX as usize, "{way:?}: {repeated} came twice");
}
