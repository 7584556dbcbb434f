//! SIGKILL at random moments, for real: the producer inside and outside of open transactions,
//! the bridge in the middle of deliveries. Seeds and moments are printed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use rand::Rng;
use ryggrad_log::TransactionWatch;
use ryggrad_schemas::catalogue::topics::SOURCE_POSITIONS;
use ryggrad_tests::oracle::published_equals_upstream;
use ryggrad_tests::receiver::{Received, Receiver};
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::topic::{Owed, VIRKSOMHET, read_all};
use ryggrad_tests::{random, wait};

const PRODUCER_KILLS: usize = 30;
const INSIDE_TRANSACTIONS: usize = 10;
/// Aimed kills miss now and then: the transaction ends while the signal is on its way.
const ATTEMPTS_MAX: usize = 150;

#[tokio::test(flavor = "multi_thread")]
async fn the_producer_publishes_exactly_once_though_it_is_killed() {
    let mut random = random::seeded("the_producer_publishes_exactly_once_though_it_is_killed");
    let scenario = Scenario::start().await;
    let upstream = scenario.upstream(&["--units", "300", "--changes-per-second", "150", "--deletions", "0.05", "--removals", "0.02"]).await;
    quick_look_ups(&scenario);
    let watch = TransactionWatch::new(&scenario.connection()).unwrap();
    let mut producer = scenario.producer(&upstream, &["--config", "producer.toml"]);
    wait::until("the first transaction", 30, || async { position_is_written(&scenario).await.then_some(()) }).await;

    let (mut kills, mut inside) = (0, 0);
    while kills < PRODUCER_KILLS || inside < INSIDE_TRANSACTIONS {
        assert!(kills < ATTEMPTS_MAX, "only {inside} of {kills} kills came inside an open transaction");
        let started = Instant::now();
        // Half are aimed at a transaction of this very producer: the one that its predecessor left
        // open must have been ended first. The others come when they come, also during recovery.
        let aimed = random.random_bool(0.5);
        if aimed {
            wait::until("the end of the predecessor's transaction", 30, || async { (!is_open(&watch).await).then_some(()) }).await;
            while !is_open(&watch).await {
                assert!(started.elapsed() < Duration::from_secs(30), "no transaction within 30 s; the producer said: {}", producer.said());
            }
        } else {
            wait::random_moment(random.random_range(0..1_500)).await;
        }
        producer.kill();
        let open = aimed && is_open(&watch).await;
        kills += 1;
        inside += usize::from(open);
        let moment = if open { "inside an open transaction" } else { "at random" };
        println!("kill {kills} after {} ms, {moment}{}", started.elapsed().as_millis(), if aimed { ", aimed" } else { "" });
        producer = scenario.producer(&upstream, &["--config", "producer.toml"]);
    }
    println!("{kills} kills, {inside} of them inside an open transaction");

    upstream.pause().await;
    let report = published_equals_upstream(&scenario.connection(), &upstream).await;
    println!("{report}");
    report.assert_good();
    assert!(producer.runs());
    assert_eq!(producer.stop().await, Some(0));
}

/// The manners that spare the real registry would only make the test long. Pages are small, so
/// that most are full and the next one is read ahead.
fn quick_look_ups(scenario: &Scenario) {
    let settings = "[producer]\nrequests_per_second_max = 5000\npage_items_max = 20\n";
    std::fs::write(scenario.folder.path().join("producer.toml"), settings).unwrap();
}

async fn is_open(watch: &TransactionWatch) -> bool {
    watch.is_open(SOURCE_POSITIONS, 0, 5_000).await.expect("the broker answers")
}

async fn position_is_written(scenario: &Scenario) -> bool {
    ryggrad_log::read_to_end(&scenario.connection(), SOURCE_POSITIONS, 0, 1_000_000, 5_000).await.is_ok_and(|records| !records.is_empty())
}

const BRIDGE_KILLS: usize = 15;
const WINDOW: usize = 48;

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_loses_nothing_though_it_is_killed() {
    let mut random = random::seeded("the_bridge_loses_nothing_though_it_is_killed");
    let scenario = Scenario::start().await;
    let settings =
        format!("[bridge]\npending_max = {WINDOW}\npending_per_key_max = 8\nretry_first_ms = 20\nretry_max_ms = 200\nprobe_ms = 200\n");
    std::fs::write(scenario.folder.path().join("bridge.toml"), settings).unwrap();
    quick_look_ups(&scenario);
    let upstream = scenario.upstream(&["--units", "150", "--changes-per-second", "60", "--deletions", "0.05"]).await;
    let _producer = scenario.producer(&upstream, &["--config", "producer.toml"]);
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let subscriber = scenario.subscriber(ORGANISATION).await;

    let mut manners = rand::rngs::StdRng::clone(&random);
    let receiver = Receiver::scripted(move |_| if manners.random_bool(0.15) { (500, Vec::new()) } else { (204, Vec::new()) }).await;
    let (id, secret) = subscriber.subscribe(&receiver.sink(), "beginning").await;
    receiver.trust(&secret);

    let mut cursors: HashMap<(String, i64), i64> = HashMap::new();
    let mut seen_at_kill = Vec::new();
    for kill in 1..=BRIDGE_KILLS {
        let started = Instant::now();
        let alive_ms = random.random_range(0..1_200);
        subscriber.ready().await;
        // Progress between kills, or nothing would be tested.
        let before = receiver.count();
        wait::until("a delivery after the start", 30, || async { (receiver.count() > before).then_some(()) }).await;
        wait::random_moment(alive_ms).await;
        if let Some(status) = subscriber.status(&id).await {
            check_forward(&mut cursors, &status["partitions"]);
        }
        bridge.kill();
        println!("kill {kill} after {} ms, {} deliveries so far", started.elapsed().as_millis(), receiver.count());
        seen_at_kill.push(receiver.count());
        bridge = scenario.bridge(&["--config", "bridge.toml"]);
    }
    upstream.pause().await;
    published_equals_upstream(&scenario.connection(), &upstream).await.assert_good();
    receiver.answer_with(|_| (204, Vec::new()));

    // Every record of the topic that is an event, by the change that it tells of.
    let records = read_all(&scenario.connection(), VIRKSOMHET).await;
    let events = records.iter().filter(|record| record.value.is_some()).count();
    subscriber.ready().await;
    wait::until("everything to be delivered", 60, || async { Owed::compare(&records, &receiver.taken()).is_settled().then_some(()) }).await;
    let status = wait::until("the cursor to settle", 30, || async {
        subscriber.status(&id).await.filter(|status| status["pending"] == 0 && status["in_flight"] == 0)
    })
    .await;
    check_forward(&mut cursors, &status["partitions"]);

    let mut received = receiver.received();
    assert!(received.iter().all(|delivery| delivery.verified), "every delivery is signed");
    // Of keys that were removed while they were pending.
    received.retain(|delivery| !delivery.is_void());
    check_order(&received);
    check_duplicates(&received);
    println!("{events} events, {} deliveries, {BRIDGE_KILLS} kills", received.len());
    assert_eq!(bridge.stop().await, Some(0));
}

/// Per key, the first time that each change is taken comes in the order of upstream.
fn check_order(received: &[Received]) {
    let mut latest: HashMap<&str, u64> = HashMap::new();
    let mut taken: HashSet<(String, u64)> = HashSet::new();
    for delivery in received.iter().filter(|delivery| delivery.status == 204) {
        if !taken.insert(delivery.change()) {
            continue;
        }
        let (_, position) = delivery.change();
        let before = latest.insert(delivery.key(), position);
        assert!(before.is_none_or(|before| before < position), "{} went back from {before:?} to {position}", delivery.key());
    }
}

/// What was taken twice has the same id, and a crash repeats at most a window.
fn check_duplicates(received: &[Received]) {
    let mut ids: BTreeMap<(String, u64), HashSet<&str>> = BTreeMap::new();
    let mut taken: HashMap<(String, u64), usize> = HashMap::new();
    for delivery in received {
        ids.entry(delivery.change()).or_default().insert(&delivery.id);
        if delivery.status == 204 {
            *taken.entry(delivery.change()).or_default() += 1;
        }
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "a change came under two ids");
    let distinct: HashSet<&str> = ids.values().flatten().copied().collect();
    assert_eq!(distinct.len(), ids.len(), "two changes came under one id");
    let repeated: usize = taken.values().map(|times| times - 1).sum();
    println!("{repeated} repeated after {BRIDGE_KILLS} kills, window {WINDOW}");
    assert!(repeated <= BRIDGE_KILLS * WINDOW, "{repeated} repeated deliveries are more than the window allows");
}

/// A cursor never goes back.
fn check_forward(cursors: &mut HashMap<(String, i64), i64>, partitions: &serde_json::Value) {
    for partition in partitions.as_array().expect("partitions") {
        let place = (partition["topic"].as_str().unwrap().to_owned(), partition["partition"].as_i64().unwrap());
        let scanned_to = partition["scanned_to"].as_i64().unwrap();
        let before = cursors.insert(place.clone(), scanned_to);
        assert!(before.is_none_or(|before| before <= scanned_to), "the cursor of {place:?} went back from {before:?} to {scanned_to}");
    }
}
