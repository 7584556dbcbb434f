//! Delivery as receivers see it: order, patience, obedience, and that nobody's trouble is another's.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may be loud")]

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use rand::Rng;
use rand::rngs::StdRng;
use ryggrad_store::Store;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::process::Process;
use ryggrad_tests::receiver::{Answer, Received, Receiver};
use ryggrad_tests::rude::{Manners, Rude};
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::{random, wait};
use serde_json::{Value, json};

const SETTINGS: &str = "[bridge]\nretry_first_ms = 50\nretry_max_ms = 500\nprobe_ms = 500\nattempt_timeout_ms = 2000\n";
const IN_FLIGHT_MAX: usize = 16;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const GOOD: Answer = (204, Vec::new());

/// Broker, bridge, two organisations and a hand that publishes.
struct Stage {
    scenario: Scenario,
    bridge: Process,
    owner: Caller,
    other: Caller,
    events: Events,
}

impl Stage {
    async fn set() -> Self {
        let scenario = Scenario::start().await;
        std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
        let bridge = scenario.bridge(&["--config", "bridge.toml"]);
        let (owner, other) = (scenario.subscriber(ORGANISATION).await, scenario.subscriber(OTHER_ORGANISATION).await);
        let events = Events::start(&scenario.connection()).await;
        Self { scenario, bridge, owner, other, events }
    }
}

/// A subscription and what came of it.
struct Subscription {
    caller: Caller,
    id: String,
    receiver: Receiver,
}

impl Subscription {
    async fn start(caller: &Caller, receiver: &Receiver, start: &str) -> Self {
        receiver.trust(SECRET);
        Self { caller: caller.clone(), id: subscribe(caller, &receiver.sink(), start).await, receiver: receiver.clone() }
    }

    async fn show(&self) -> Value {
        self.caller.get(&format!("/v1/subscriptions/{}", self.id)).await.1
    }

    /// Pauses or resumes; the time when the answer was there.
    async fn tell(&self, what: &str) -> i64 {
        let (status, body) = self.caller.post(&format!("/v1/subscriptions/{}/{what}", self.id), json!(null)).await;
        assert_eq!(status, 200, "{what}: {body}");
        now_ms()
    }

    async fn delete(&self) -> i64 {
        assert_eq!(self.caller.delete(&format!("/v1/subscriptions/{}", self.id)).await.0, 204);
        now_ms()
    }

    /// Waits until all of these were taken.
    async fn takes(&self, what: &str, published: &[Published]) {
        wait::until(what, 30, || async { missing(&self.receiver.received(), published).is_empty().then_some(()) }).await;
    }

    /// Waits until the status says so.
    async fn status(&self, what: &str, look: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, 15, || async { Some(self.show().await).filter(|shown| look(shown)) }).await
    }
}

async fn subscribe(caller: &Caller, sink: &str, start: &str) -> String {
    let body = json!({"types": ["no.ryggrad.*"], "sink": sink, "start": start, "secret": SECRET});
    let (status, body) = caller.post("/v1/subscriptions", body).await;
    assert_eq!(status, 201, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn taken(delivery: &Received) -> bool {
    (200..300).contains(&delivery.status)
}

fn missing(received: &[Received], published: &[Published]) -> BTreeSet<u64> {
    let taken: HashSet<u64> = received.iter().filter(|delivery| taken(delivery)).map(|delivery| delivery.change().1).collect();
    published.iter().map(|published| published.position).filter(|position| !taken.contains(position)).collect()
}

fn of_key(received: &[Received], key: &str) -> Vec<u64> {
    received.iter().filter(|delivery| delivery.key() == key).map(|delivery| delivery.change().1).collect()
}

/// What came is exactly what was published: every key's events in their order, each until it was
/// taken and before the next was tried, word for word, signed, under one id each.
fn check(received: &[Received], published: &[Published]) {
    let by_position: HashMap<u64, &Published> = published.iter().map(|published| (published.position, published)).collect();
    let mut ids: BTreeMap<u64, &str> = BTreeMap::new();
    let mut numbers: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for delivery in received {
        let position = delivery.change().1;
        let published = by_position.get(&position).unwrap_or_else(|| panic!("nothing like this was published: {delivery:?}"));
        assert_eq!(delivery.event, published.event);
        assert!(delivery.verified, "{delivery:?}");
        assert_eq!(delivery.headers["content-type"], "application/cloudevents+json");
        let number = delivery.number.expect("a number");
        assert_eq!(*numbers.entry(position).or_insert(number), number, "position {position} came under two numbers");
        assert_eq!(*ids.entry(position).or_insert(&delivery.id), delivery.id, "position {position} came under two ids");
    }
    assert_eq!(ids.values().collect::<HashSet<_>>().len(), ids.len(), "two events came under one id");
    let given: BTreeSet<(u64, u64)> = numbers.values().copied().collect();
    assert_eq!(given.len(), numbers.len(), "two events came under one number");
    let epoch = given.first().map_or(0, |(epoch, _)| *epoch);
    assert!(given.iter().zip(1..).all(|(number, expected)| *number == (epoch, expected)), "numbers are missing: {given:?}");
    let keys: BTreeSet<&str> = published.iter().map(|published| published.key.as_str()).collect();
    for key in keys {
        let expected: Vec<u64> = published.iter().filter(|published| published.key == key).map(|published| published.position).collect();
        let mut tried = of_key(received, key);
        tried.dedup();
        assert_eq!(tried, expected, "the events of {key}");
    }
    let refused: Vec<u64> = missing(received, published).into_iter().collect();
    assert!(refused.is_empty(), "never taken: {refused:?}");
}

/// Bad manners: one in four answers fails, some are slow, two are slower than the bridge waits.
fn manners(mut random: StdRng) -> (impl FnMut(&Received) -> Answer, impl FnMut(&Received) -> u64) {
    let mut slowness = random.clone();
    let (mut throttles, mut too_slow) = (2, 2);
    let answer = move |_: &Received| match random.random_range(0..100) {
        0..=11 => (500, Vec::new()),
        12..=17 => (503, Vec::new()),
        18..=21 => (429, Vec::new()),
        22 if throttles > 0 => {
            throttles -= 1;
            (429, vec![("retry-after", "1".to_owned())])
        }
        _ => GOOD,
    };
    let delay = move |_: &Received| match slowness.random_range(0..100) {
        0..=4 => slowness.random_range(20..200),
        5 if too_slow > 0 => {
            too_slow -= 1;
            2_500
        }
        _ => 0,
    };
    (answer, delay)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_keeps_its_order_and_stops_nobody_else() {
    let mut random = random::seeded("a_lane_keeps_its_order_and_stops_nobody_else");
    let mut stage = Stage::set().await;
    let (answer, delay) = manners(random.clone());
    let (troubled, healthy) = (Receiver::scripted(answer).await, Receiver::start().await);
    troubled.delay_with(delay);
    let troubled = Subscription::start(&stage.owner, &troubled, "beginning").await;
    let healthy = Subscription::start(&stage.other, &healthy, "beginning").await;

    // Many keys and random failures.
    let keys: Vec<String> = (0..40).map(|_| key(random.random_range(0..40))).collect();
    let draw = |random: &mut StdRng, count| (0..count).map(|_| keys[random.random_range(0..keys.len())].clone()).collect::<Vec<_>>();
    let mut published = Vec::new();
    for _ in 0..6 {
        published.extend(stage.events.publish(draw(&mut random, 100)).await);
    }
    healthy.takes("the healthy receiver has everything", &published).await;
    troubled.takes("the troubled receiver has everything", &published).await;
    check(&troubled.receiver.received(), &published);
    let (tries, failures) = (troubled.receiver.count(), troubled.receiver.received().iter().filter(|delivery| !taken(delivery)).count());
    println!("{} events, {tries} attempts, {failures} refused", published.len());
    assert!(failures > published.len() / 10, "the failures must have been there");
    let ids =
        |subscription: &Subscription| subscription.receiver.received().iter().map(|delivery| delivery.id.clone()).collect::<HashSet<_>>();
    assert!(ids(&troubled).is_disjoint(&ids(&healthy)), "two subscriptions share an id");

    // A key that always fails stops its own lane only.
    let (bad, hot) = (key(901), key(902));
    let refused: Arc<Mutex<HashSet<String>>> = Arc::new(Mutex::new(HashSet::from([bad.clone(), hot.clone()])));
    let asked = Arc::clone(&refused);
    troubled.receiver.delay_with(|_| 0);
    troubled.receiver.answer_with(move |delivery| if asked.lock().unwrap().contains(delivery.key()) { (500, Vec::new()) } else { GOOD });
    let mut batch = draw(&mut random, 200);
    (0..20).for_each(|_| batch.insert(random.random_range(0..batch.len()), bad.clone()));
    let batch = stage.events.publish(batch).await;
    published.extend(batch.clone());
    let (of_bad, of_others): (Vec<Published>, Vec<Published>) = batch.into_iter().partition(|published| published.key == bad);
    troubled.takes("everything but the failing key", &of_others).await;
    assert_eq!(
        BTreeSet::from_iter(of_key(&troubled.receiver.received(), &bad)),
        BTreeSet::from([of_bad[0].position]),
        "only the first is tried"
    );
    let shown = troubled.status("it shows who waits", |shown| shown["status"]["waiting"][0]["attempts"].as_u64() > Some(2)).await;
    let waiting = &shown["status"]["waiting"];
    assert_eq!(
        (waiting.as_array().unwrap().len(), &waiting[0]["key"], &waiting[0]["last_error"]),
        (1, &json!(bad), &json!("failed")),
        "{shown}"
    );
    assert_eq!(shown["status"]["pending"], json!(of_bad.len()), "{shown}");

    // A hot key that fails holds more than a lane may; others go on.
    let (mut of_hot, mut of_others) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        of_hot.extend(stage.events.publish(vec![hot.clone(); 100]).await);
        of_others.extend(stage.events.publish(draw(&mut random, 20)).await);
    }
    troubled.takes("everything but the failing keys", &of_others).await;
    let shown = troubled.status("the hot lane is collapsed", |shown| shown["status"]["pending"] == json!(20 + 64)).await;
    let collapsed: u64 =
        shown["status"]["partitions"].as_array().unwrap().iter().map(|part| part["collapsed_keys"].as_u64().unwrap()).sum();
    assert_eq!(collapsed, 1, "{shown}");
    published.extend(of_hot.into_iter().chain(of_others));

    // An end and its tombstone are one event; life may go on after it.
    published.push(stage.events.end(&key(7)).await);
    published.extend(stage.events.publish([key(7)]).await);
    published.push(stage.events.end(&key(8)).await);

    refused.lock().unwrap().clear();
    published.sort_by_key(|published| published.position);
    troubled.takes("everything, once it is mended", &published).await;
    check(&troubled.receiver.received(), &published);
    healthy.takes("the healthy receiver has everything", &published).await;
    check(&healthy.receiver.received(), &published);
    assert_eq!(healthy.receiver.count(), published.len(), "no attempt more than needed");
    let late = Subscription::start(&stage.other, &Receiver::start().await, "beginning").await;
    late.takes("a late subscription gets everything too", &published).await;
    check(&late.receiver.received(), &published);
    let records = read_all(&stage.scenario.connection(), VIRKSOMHET).await;
    assert_eq!(records.iter().filter(|record| record.value.is_none()).count(), 2, "there were tombstones to pass over");
    for subscription in [&troubled, &healthy, &late] {
        subscription.status("the cursor settles", |shown| shown["status"]["pending"] == 0 && shown["status"]["in_flight"] == 0).await;
    }
    assert_eq!(stage.bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_obeyed() {
    let mut stage = Stage::set().await;
    let witness = Subscription::start(&stage.other, &Receiver::start().await, "beginning").await;
    gone(&mut stage, &witness).await;
    let in_seconds = |_: Timestamp| "2".to_owned();
    let as_date = |now: Timestamp| {
        let at = Timestamp::from_second(now.as_second() + 3).unwrap();
        DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
    };
    throttled(&mut stage, 429, 2_000, in_seconds).await;
    // The present second is cut off, so the pause is more than two seconds.
    throttled(&mut stage, 503, 2_000, as_date).await;
    resumed_at_once(&mut stage).await;
    hopeless(&mut stage).await;
    redirected(&mut stage).await;
    assert_eq!(stage.bridge.stop().await, Some(0));
}

/// 410: disabled, visibly; no further call; the cursor stands; resume goes on without loss.
async fn gone(stage: &mut Stage, witness: &Subscription) {
    let receiver = Receiver::scripted(|_| (410, Vec::new())).await;
    let subscription = Subscription::start(&stage.owner, &receiver, "now").await;
    let mut published = stage.events.publish([key(1)]).await;
    let shown = subscription.status("410 disables", |shown| shown["state"] == "disabled").await;
    assert!(shown["reason"].as_str().unwrap().contains("410"), "{shown}");
    assert_eq!(shown["status"]["last_attempt"]["http_status"], 410, "{shown}");
    assert_eq!((&shown["status"]["pending"], receiver.count()), (&json!(1), 1), "{shown}");
    for _ in 0..3 {
        published.extend(stage.events.publish([key(1), key(2), key(3)]).await);
    }
    witness.takes("the witness has everything", &published).await;
    assert_eq!(receiver.count(), 1, "no call after 410");

    receiver.answer_with(|_| GOOD);
    subscription.tell("resume").await;
    subscription.takes("everything after the resumption", &published).await;
    check(&receiver.received(), &published);
    let shown = subscription.show().await;
    assert_eq!((&shown["state"], &shown["reason"]), (&json!("active"), &json!(null)), "{shown}");
    subscription.delete().await;
}

/// `Retry-After`: no request to that endpoint meanwhile, whatever the key; soon afterwards all.
async fn throttled(stage: &mut Stage, status: u16, pause_ms: i64, retry_after: impl Fn(Timestamp) -> String + Send + 'static) {
    let receiver = Receiver::start().await;
    let mut first = true;
    receiver.answer_with(
        move |_| {
            if std::mem::take(&mut first) { (status, vec![("retry-after", retry_after(Timestamp::now()))]) } else { GOOD }
        },
    );
    let subscription = Subscription::start(&stage.owner, &receiver, "now").await;
    let mut published = stage.events.publish([key(1)]).await;
    wait::until("the first attempt", 10, || async { (receiver.count() == 1).then_some(()) }).await;
    published.extend(stage.events.publish((1..=20).map(key)).await);
    subscription.takes("everything after the pause", &published).await;
    let received = receiver.received();
    check(&received, &published);
    let pause = received[1].at_ms - received[0].at_ms;
    println!("{status}: {pause} ms between the refusal and the next request");
    assert!((pause_ms..pause_ms + 2_500).contains(&pause), "the next request came after {pause} ms");
    subscription.delete().await;
}

/// Whoever resumes has mended something: nothing waits any longer, however long the pause.
async fn resumed_at_once(stage: &mut Stage) {
    let receiver = Receiver::scripted(|_| (503, vec![("retry-after", "3600".to_owned())])).await;
    let subscription = Subscription::start(&stage.owner, &receiver, "now").await;
    let published = stage.events.publish((1..=5).map(key)).await;
    let shown = subscription.status("it waits", |shown| shown["status"]["waiting"][0]["last_error"] == "throttled").await;
    let due: Timestamp = shown["status"]["waiting"][0]["next_attempt_at"].as_str().unwrap().parse().unwrap();
    assert!(due.as_millisecond() > now_ms() + 3_500_000, "{shown}");
    receiver.answer_with(|_| GOOD);
    let resumed_ms = subscription.tell("resume").await;
    subscription.takes("everything at once", &published).await;
    check(&receiver.received(), &published);
    let last_ms = receiver.received().last().unwrap().at_ms;
    assert!(last_ms < resumed_ms + 1_000, "{} ms after the resumption", last_ms - resumed_ms);
    subscription.delete().await;
}

/// 400 and its kind: waiting is no cure, so the lane is only probed, visibly; others go on.
async fn hopeless(stage: &mut Stage) {
    for status in [400, 413, 415, 422] {
        let bad = key(1);
        let refused = bad.clone();
        let receiver = Receiver::scripted(move |delivery| if delivery.key() == refused { (status, Vec::new()) } else { GOOD }).await;
        let subscription = Subscription::start(&stage.owner, &receiver, "now").await;
        let published = stage.events.publish((0..30).map(|number| key(number % 5))).await;
        let (of_bad, of_others): (Vec<Published>, Vec<Published>) = published.iter().cloned().partition(|published| published.key == bad);
        subscription.takes("everything of other keys", &of_others).await;
        let shown =
            subscription.status("it shows what is hopeless", |shown| shown["status"]["waiting"][0]["attempts"].as_u64() > Some(1)).await;
        let waiting = &shown["status"]["waiting"][0];
        assert_eq!((&waiting["key"], &waiting["last_error"]), (&json!(bad), &json!("hopeless")), "{status}: {shown}");
        let tries: Vec<i64> = receiver.received().iter().filter(|delivery| delivery.key() == bad).map(|delivery| delivery.at_ms).collect();
        assert!(tries.windows(2).all(|pair| pair[1] - pair[0] >= 500), "{status}: probed slowly, not at {tries:?}");
        receiver.answer_with(|_| GOOD);
        subscription.takes("the mended key", &of_bad).await;
        check(&receiver.received(), &published);
        subscription.delete().await;
    }
}

/// Redirects are failures; nobody else gets the event.
async fn redirected(stage: &mut Stage) {
    let elsewhere = Receiver::start().await;
    let (receiver, target) = (Receiver::start().await, elsewhere.sink());
    let mut statuses = [301, 302, 303, 307, 308].into_iter().cycle();
    receiver.answer_with(move |_| (statuses.next().unwrap(), vec![("location", target.clone())]));
    let subscription = Subscription::start(&stage.owner, &receiver, "now").await;
    let published = stage.events.publish([key(1)]).await;
    wait::until("a round of redirects", 15, || async { (receiver.count() > 5).then_some(()) }).await;
    receiver.answer_with(|_| GOOD);
    subscription.takes("the event in the end", &published).await;
    check(&receiver.received(), &published);
    assert_eq!(elsewhere.count(), 0, "a redirect was followed");
    subscription.delete().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_endpoints_hurt_nobody() {
    const ROUNDS: u32 = 12;
    // Socket buffers and the bridge's own cap, and not a window's worth more.
    const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;
    let mut stage = Stage::set().await;
    let mut endpoints = Vec::new();
    for (manners, delivered, error) in [
        (Manners::Hangs, false, Some("timeout")),
        (Manners::Endless, true, None),
        (Manners::Trickles, true, None),
        (Manners::Huge, true, None),
        (Manners::CutsOff, true, None),
        (Manners::EndlessHead, false, Some("transport")),
        (Manners::Nonsense, false, Some("transport")),
    ] {
        let rude = Rude::start(manners).await;
        let id = subscribe(&stage.owner, rude.sink(), "beginning").await;
        endpoints.push((manners, delivered, error, rude, id));
    }
    let healthy = Subscription::start(&stage.other, &Receiver::start().await, "beginning").await;
    let mut published = Vec::new();
    for round in 0..ROUNDS {
        let batch = stage.events.publish((3 * round..3 * round + 3).map(key)).await;
        healthy.takes("the healthy receiver has the batch", &batch).await;
        published.extend(batch);
    }
    check(&healthy.receiver.received(), &published);

    let records = read_all(&stage.scenario.connection(), VIRKSOMHET).await;
    let appended: HashMap<&str, i64> = records.iter().map(|record| (record.header("ce_id").unwrap(), record.timestamp_ms)).collect();
    let received = healthy.receiver.received();
    let latencies = received.iter().map(|delivery| delivery.at_ms - appended[delivery.event["id"].as_str().unwrap()]);
    let slowest = latencies.max().unwrap();
    println!("the healthy receiver's slowest delivery took {slowest} ms");
    assert!(slowest < 1_000, "{slowest} ms");

    for (manners, delivered, error, rude, id) in &endpoints {
        let status = wait::until(&format!("{manners:?} to be over"), 45, || async {
            let status = stage.owner.status(id).await?;
            let over =
                if *delivered { status["delivered"] == json!(published.len()) } else { status["failed_attempts"].as_u64() > Some(2) };
            over.then_some(status)
        })
        .await;
        println!("{manners:?}: {} requests, {} bytes of answers taken", rude.requests(), rude.written());
        assert_eq!(status["last_attempt"]["error"], json!(error), "{manners:?}: {status}");
        assert_eq!(status["pending"], if *delivered { json!(0) } else { json!(published.len()) }, "{manners:?}: {status}");
        assert_eq!(status["delivered"] == json!(0), !delivered, "{manners:?}: {status}");
        assert!(rude.written() / rude.requests() < ANSWER_BYTES_MAX, "{manners:?}: {} bytes", rude.written());
    }
    assert_eq!(stage.bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_is_in_control() {
    let mut stage = Stage::set().await;
    let slow = Receiver::start().await;
    slow.delay_with(|_| 50);
    let owned = Subscription::start(&stage.owner, &slow, "beginning").await;
    let witness = Subscription::start(&stage.other, &Receiver::start().await, "beginning").await;
    let flood = || (0..400).map(|number| key(number % 40));

    // Pause in the middle of a flood: what is under way ends, nothing else comes.
    let mut published = stage.events.publish(flood()).await;
    wait::until("the flood", 15, || async { (slow.count() > 50).then_some(()) }).await;
    let paused_ms = owned.tell("pause").await;
    let shown = owned.status("nothing is under way", |shown| shown["status"]["in_flight"] == 0).await;
    assert_eq!(shown["state"], "paused", "{shown}");
    let more = stage.events.publish(flood()).await;
    published.extend(more);
    witness.takes("the witness has everything", &published).await;
    stays_silent(&slow, paused_ms, "pause");
    assert!(slow.count() < 400, "the pause came in the middle");
    owned.tell("resume").await;
    owned.takes("everything after the pause", &published).await;
    check(&slow.received(), &published);

    // Where a subscription starts decides what it gets, to the event.
    let third = read_all(&stage.scenario.connection(), VIRKSOMHET).await.iter().map(|record| record.timestamp_ms).max().unwrap();
    let later = stage.events.publish((0..60).map(key)).await;
    let appended = read_all(&stage.scenario.connection(), VIRKSOMHET).await;
    let boundary = appended.iter().map(|record| record.timestamp_ms).filter(|at_ms| *at_ms > third).min().unwrap();
    published.extend(later.iter().cloned());
    let time = Timestamp::from_millisecond(boundary).unwrap().to_string();
    let starts = [("beginning", published.clone()), ("now", Vec::new()), (time.as_str(), later), ("2999-01-01T00:00:00Z", Vec::new())];
    let mut subscriptions = Vec::new();
    for (start, before) in starts {
        subscriptions.push((start, before, Subscription::start(&stage.owner, &Receiver::start().await, start).await));
    }
    let now = stage.events.publish((0..60).map(key)).await;
    published.extend(now.iter().cloned());
    for (start, before, subscription) in &subscriptions {
        let expected: Vec<Published> = before.iter().chain(&now).cloned().collect();
        subscription.takes(&format!("everything from {start}"), &expected).await;
        check(&subscription.receiver.received(), &expected);
    }

    // Delete in the middle of a flood: silence, and no trace of the cursor.
    let before = slow.count();
    published.extend(stage.events.publish(flood()).await);
    wait::until("the flood", 15, || async { (slow.count() > before + 50).then_some(()) }).await;
    let deleted_ms = owned.delete().await;
    assert_eq!(owned.caller.get(&format!("/v1/subscriptions/{}", owned.id)).await.0, 404);
    published.extend(stage.events.publish(flood()).await);
    witness.takes("the witness has everything", &published).await;
    check(&witness.receiver.received(), &published);
    stays_silent(&slow, deleted_ms, "deletion");
    assert!(slow.count() < before + 400, "the deletion came in the middle");

    assert_eq!(stage.bridge.stop().await, Some(0));
    let store = Store::open(&stage.scenario.data().join("cursors")).unwrap().store;
    let holders: HashSet<String> = store.load().unwrap().subscriptions.keys().map(|id| uuid::Uuid::from_bytes(*id).to_string()).collect();
    assert!(holders.contains(&witness.id) && !holders.contains(&owned.id), "{holders:?}");
}

/// After this moment, only what was under way has come, and that within a second.
fn stays_silent(receiver: &Receiver, from_ms: i64, what: &str) {
    let late: Vec<i64> = receiver.received().iter().map(|delivery| delivery.at_ms - from_ms).filter(|after_ms| *after_ms > 0).collect();
    println!("after the {what}: {late:?} ms");
    assert!(late.len() <= IN_FLIGHT_MAX, "{} calls came after the {what}", late.len());
    assert!(
        late.iter().all(|after_ms| Duration::from_millis(after_ms.unsigned_abs()) < Duration::from_secs(1)),
        "{late:?} ms after the {what}"
    );
}
