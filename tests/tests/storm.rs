//! The bridge is killed again and again while two hundred subscriptions of every kind are
//! delivered, a third of the endpoints misbehave and events are published all the while. In the
//! end every receiver has every event, in order, numbered without gaps.
//!
//! Asserted is what holds whatever the moments were; how much was repeated or refused is printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use reqwest::Method;
use ryggrad_bridge_core::settings::Order;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::crowd::{Endpoint, Fetcher, ILL, Manners, Saying, Weather};
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::ledger::{Ledger, Promise, Tally, Truth};
use ryggrad_tests::process::Process;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::{full, random, wait};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const WEBHOOKS: usize = 120;
const FETCHERS: usize = 80;
/// Further webhooks, that operators take back in the log, replay to, pause and resume meanwhile.
const MOVED: usize = 8;
/// Further ones with a watch list, which is edited meanwhile.
const LISTED: usize = 4;
const WINDOW: usize = 64;
/// Small enough that who falls behind leaves the ring and its lanes, and has to come back.
const SETTINGS: &str = "[bridge]\npending_max = 64\npending_per_key_max = 8\nring_bytes_max = 200000\ncatch_up_readers_max = 3\n\
    in_flight_max = 4\nretry_first_ms = 50\nretry_max_ms = 500\nprobe_ms = 300\nattempt_timeout_ms = 2000\n\
    breaker_first_ms = 100\nbreaker_max_ms = 1000\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const KEYS: u32 = 100;
const HOT_KEYS: u32 = 3;
/// Events before the storm, in one transaction; then so many at a time.
const BEFORE: usize = 300;
const AT_A_TIME: usize = 20;
const EVERY: Duration = Duration::from_millis(150);
const KILLS_MIN: usize = 5;

/// A subscription with what came to its receiver.
struct Subscriber {
    id: String,
    /// Words of the report: of which kind it is.
    kind: String,
    order: Option<Order>,
    part: Part,
    ledger: Arc<Mutex<Ledger>>,
}

/// What is done with a subscription, and so what it is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// Its events are posted.
    Posted,
    /// Its receiver comes for them.
    Fetched,
    /// Operators move it about.
    Moved,
    /// It has a watch list.
    Listed,
}

fn a_key(random: &mut StdRng) -> String {
    key(if random.random_bool(0.3) { random.random_range(0..HOT_KEYS) } else { random.random_range(0..KEYS) })
}

/// Endpoints: every third one ill, and among both every format and order.
fn choices(index: usize) -> (Manners, Order, &'static str) {
    let manners = if index.is_multiple_of(3) { ILL[index / 3 % ILL.len()] } else { Manners::Good };
    let order = match index / 2 % 8 {
        5 => Order::Partition,
        6 => Order::None,
        _ => Order::Key,
    };
    (manners, order, ["structured", "batch", "structured", "binary", "structured"][index % 5])
}

async fn subscribe(caller: &Caller, mut body: Value) -> String {
    body["types"] = json!(["no.ryggrad.*"]);
    body["start"] = json!("beginning");
    let (status, body) = caller.post("/v1/subscriptions", body).await;
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn webhook(caller: Caller, index: usize, random: StdRng, weather: Arc<Weather>) -> Subscriber {
    let (manners, order, format) = choices(index);
    let ledger = Arc::default();
    let endpoint = Endpoint::start(manners, SECRET, random, &ledger, &weather).await;
    let mut body = json!({"sink": endpoint.sink(), "secret": SECRET, "order": order, "format": format, "verify": "none"});
    if format == "batch" {
        body["batch_events_max"] = json!(10);
    }
    let kind = format!("{manners:?}, {format}").to_lowercase();
    Subscriber { id: subscribe(&caller, body).await, kind, order: Some(order), part: Part::Posted, ledger }
}

/// One that operators move about, or one with a watch list.
async fn attended(caller: Caller, list: Option<String>, random: StdRng, weather: Arc<Weather>) -> Subscriber {
    let ledger = Arc::default();
    let endpoint = Endpoint::start(Manners::Good, SECRET, random, &ledger, &weather).await;
    let mut body = json!({"sink": endpoint.sink(), "secret": SECRET, "verify": "none"});
    let part = if list.is_some() { Part::Listed } else { Part::Moved };
    if let Some(list) = list {
        body["watch_list"] = json!(list);
    }
    let id = subscribe(&caller, body).await;
    let kind = format!("{part:?}").to_lowercase();
    Subscriber { id, kind, order: Some(Order::Key), part, ledger }
}

/// Whether a watch list can hold the key: most of the tests' keys have no good check digit.
fn can_be_listed(key: &str) -> bool {
    key.parse::<Organisasjonsnummer>().is_ok()
}

/// Makes a watch list with all keys of the test that can be on one.
async fn watch_list(caller: &Caller) -> String {
    let (status, made) = caller.post("/v1/watch-lists", json!({"domain": "organisasjonsnummer"})).await;
    assert_eq!(status, 201, "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    let keys: Vec<String> = (0..KEYS).map(key).filter(|key| can_be_listed(key)).collect();
    assert!(!keys.is_empty());
    let (status, said) = caller.post(&format!("/v1/watch-lists/{id}/keys"), json!({"add": keys})).await;
    assert_eq!(status, 200, "{said}");
    id
}

/// What operators do all the while: rewinds, replays, pauses, and edits of the watch list, none of which may cost anybody
/// an event. How often each of them was done.
async fn operate(caller: Caller, moved: Vec<String>, list: String, mut random: StdRng, stop: Arc<AtomicBool>) -> BTreeMap<String, usize> {
    let mut done = BTreeMap::new();
    let mut pace = tokio::time::interval(Duration::from_millis(200));
    let own: Vec<String> = (0..KEYS).map(key).filter(|key| can_be_listed(key)).collect();
    // Nobody's keys: they come and go.
    let others: Vec<String> = (KEYS..KEYS * 20).map(key).filter(|key| can_be_listed(key)).collect();
    while !stop.load(Ordering::SeqCst) {
        pace.tick().await;
        let subscription = format!("/v1/subscriptions/{}", moved[random.random_range(0..moved.len())]);
        let some = &others[..random.random_range(1..others.len())];
        let (what, method, path, body) = match random.random_range(0..6) {
            0 => ("rewind", Method::POST, format!("{subscription}/rewind"), json!({"to": "beginning"})),
            1 => ("replay", Method::POST, format!("{subscription}/replays"), json!({"from": "beginning", "events_per_minute_max": 60_000})),
            2 => ("pause", Method::POST, format!("{subscription}/pause"), json!({})),
            3 => ("resume", Method::POST, format!("{subscription}/resume"), json!({})),
            4 => ("add", Method::POST, format!("/v1/watch-lists/{list}/keys"), json!({"add": some})),
            _ => ("replace", Method::PUT, format!("/v1/watch-lists/{list}/keys"), json!([own.as_slice(), some].concat())),
        };
        // The bridge may be gone, or about to come back; of replays there is a limit.
        match caller.try_call(method, &path, Some(body)).await {
            Some((200..=204, _)) => *done.entry(what.to_owned()).or_default() += 1,
            Some((409 | 503, _)) | None => {}
            Some(refused) => panic!("{what} is refused: {refused:?}"),
        }
    }
    for id in &moved {
        wait::until("everybody goes on", 60, || async {
            caller.ready().await;
            let (status, _) = caller.try_call(Method::POST, &format!("/v1/subscriptions/{id}/resume"), None).await?;
            (status == 200).then_some(())
        })
        .await;
    }
    done
}

async fn fetcher(caller: Caller, index: usize, random: StdRng, weather: Arc<Weather>) -> Subscriber {
    let saying = [Saying::Ack, Saying::After, Saying::Socket][index % 3];
    let id = subscribe(&caller, json!({"channel": "pull"})).await;
    let ledger = Arc::default();
    let fetcher = Fetcher { caller, id: id.clone(), saying, random, ledger: Arc::clone(&ledger), weather };
    tokio::spawn(fetcher.run());
    Subscriber { id, kind: format!("fetches, {saying:?}").to_lowercase(), order: None, part: Part::Fetched, ledger }
}

/// Publishes until it is told to stop.
async fn publish(mut events: Events, mut random: StdRng, stop: Arc<AtomicBool>) -> Vec<Published> {
    let mut published = Vec::new();
    let mut pace = tokio::time::interval(EVERY);
    while !stop.load(Ordering::SeqCst) {
        pace.tick().await;
        let keys: Vec<String> = (0..AT_A_TIME).map(|_| a_key(&mut random)).collect();
        published.extend(events.publish(keys).await);
    }
    published
}

/// Kills the bridge for as long as the storm lasts; how often.
async fn rage(scenario: &Scenario, caller: &Caller, bridge: &mut Process, random: &mut StdRng, subscribers: &[Subscriber]) -> usize {
    let lasts = Duration::from_secs(if full() { 120 } else { 20 });
    let taken = || subscribers.iter().map(|subscriber| subscriber.ledger.lock().unwrap().taken()).sum::<usize>();
    let (began, mut kills) = (Instant::now(), 0);
    while began.elapsed() < lasts || kills < KILLS_MIN {
        let started = Instant::now();
        // Most bridges get to work before they are killed, some not even to their API.
        if kills == 0 || random.random_bool(0.8) {
            caller.ready().await;
            let before = taken();
            wait::until("progress after the start", 30, || async { (taken() > before).then_some(()) }).await;
            wait::random_moment(random.random_range(500..3_500)).await;
        } else {
            wait::random_moment(random.random_range(0..1_500)).await;
        }
        bridge.kill();
        kills += 1;
        println!("kill {kills} after {} ms, {} taken so far", started.elapsed().as_millis(), taken());
        *bridge = scenario.bridge(&["--config", "bridge.toml"]);
    }
    kills
}

#[tokio::test(flavor = "multi_thread")]
async fn every_subscription_gets_everything_in_order_and_without_gaps() {
    let mut random = random::seeded("every_subscription_gets_everything_in_order_and_without_gaps");
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let caller = scenario.subscriber(ORGANISATION).await;
    let mut events = Events::start(&scenario.connection()).await;
    let mut published = events.publish((0..BEFORE).map(|_| a_key(&mut random))).await;

    let weather = Arc::<Weather>::default();
    let mut joining = JoinSet::new();
    for index in 0..WEBHOOKS {
        joining.spawn(webhook(caller.clone(), index, StdRng::from_rng(&mut random), Arc::clone(&weather)));
    }
    for index in 0..FETCHERS {
        joining.spawn(fetcher(caller.clone(), index, StdRng::from_rng(&mut random), Arc::clone(&weather)));
    }
    let list = watch_list(&caller).await;
    for index in 0..MOVED + LISTED {
        let own = (index >= MOVED).then(|| list.clone());
        joining.spawn(attended(caller.clone(), own, StdRng::from_rng(&mut random), Arc::clone(&weather)));
    }
    let began = Instant::now();
    let subscribers = joining.join_all().await;
    println!("{} subscriptions after {} ms", subscribers.len(), began.elapsed().as_millis());

    let calm = Arc::<AtomicBool>::default();
    let publisher = tokio::spawn(publish(events, StdRng::from_rng(&mut random), Arc::clone(&calm)));
    let moved = subscribers.iter().filter(|subscriber| subscriber.part == Part::Moved).map(|subscriber| subscriber.id.clone()).collect();
    let operators = tokio::spawn(operate(caller.clone(), moved, list, StdRng::from_rng(&mut random), Arc::clone(&calm)));
    let kills = rage(&scenario, &caller, &mut bridge, &mut random, &subscribers).await;
    calm.store(true, Ordering::SeqCst);
    published.extend(publisher.await.unwrap());
    let operated = operators.await.unwrap();
    println!("operators meanwhile: {operated:?}");
    assert_eq!(operated.len(), 6, "each of their words was heard at least once");
    weather.clear();

    let truth = Truth::of(&published, &read_all(&scenario.connection(), VIRKSOMHET).await);
    let began = Instant::now();
    let listed = truth.only(can_be_listed);
    let owed = |subscriber: &Subscriber| if subscriber.part == Part::Listed { listed.len() } else { truth.len() };
    let unfinished = || subscribers.iter().filter(|subscriber| subscriber.ledger.lock().unwrap().taken() < owed(subscriber)).count();
    // What is missing then is told below, by rule.
    let drained = wait::held("everything is taken", if full() { 600 } else { 120 }, || async { (unfinished() == 0).then_some(()) }).await;
    println!("drained in {} ms; {} are not", began.elapsed().as_millis(), unfinished());
    if drained.is_some() {
        caller.ready().await;
        for Subscriber { id, kind, .. } in &subscribers {
            wait::until(&format!("the cursor of {id} ({kind}) settles"), 30, || async {
                caller.status(id).await.filter(|status| status["pending"] == 0 && status["in_flight"] == 0)
            })
            .await;
        }
    }
    weather.end();
    report(&subscribers, &truth, &listed, kills);
    assert_eq!(bridge.stop().await, Some(0));
}

/// Prints the figures and fails with everything that is wrong.
fn report(subscribers: &[Subscriber], truth: &Truth, listed: &Truth, kills: usize) {
    let (mut kinds, mut all, mut wrong): (BTreeMap<&str, Tally>, _, Vec<String>) = (BTreeMap::new(), Tally::default(), Vec::new());
    for Subscriber { id, kind, order, part, ledger } in subscribers {
        // Who fetches says itself what it took: that never comes again.
        let repeated_max = if *part == Part::Fetched { 0 } else { kills * WINDOW };
        let promise = Promise { order: *order, repeated_max, is_rewound: *part == Part::Moved };
        let (tally, faults) = ledger.lock().unwrap().check(if *part == Part::Listed { listed } else { truth }, promise);
        kinds.entry(kind).or_default().add(tally);
        all.add(tally);
        wrong.extend(faults.into_iter().map(|fault| format!("{id} ({kind}, {order:?}): {fault}")));
    }
    println!("{kills} kills, {} events, {} subscriptions, {} owed", truth.len(), subscribers.len(), truth.len() * subscribers.len());
    println!(
        "{:<24}{:>10}{:>10}{:>12}{:>10}{:>10}{:>14}",
        "kind", "receivers", "requests", "events", "not taken", "repeated", "most at one"
    );
    for (kind, tally) in kinds.into_iter().chain([("all", all)]) {
        let Tally { receivers, requests, events, refused, repeated, repeated_max } = tally;
        println!("{kind:<24}{receivers:>10}{requests:>10}{events:>12}{refused:>10}{repeated:>10}{repeated_max:>14}");
    }
    assert!(all.refused > 0, "the receivers must have been ill");
    assert!(wrong.is_empty(), "{} violations\n{}", wrong.len(), wrong.join("\n"));
}
