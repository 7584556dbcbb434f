//! What the producer makes of an upstream that answers badly, and everybody of a broker that goes.
//!
//! After each fault the whole state is compared with upstream, so that what went wrong has a name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use reqwest::Method;
use ryggrad_log::Seal;
use ryggrad_schemas::LogRecord;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::oracle::{Place, Report, SOURCE, published_equals_upstream};
use ryggrad_tests::process::{Process, free_port};
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::topic::{Owed, VIRKSOMHET, read_all};
use ryggrad_tests::upstream::Upstream;
use ryggrad_tests::wait;
use serde_json::{Value, json};

/// Quick to give up and to try again.
const SETTINGS: &str = "[producer]\nrequest_timeout_ms = 700\nconnect_timeout_ms = 700\nretry_delay_ms_first = 10\nretry_delay_ms_max = 50\n\
    request_attempts_max = 2\nlook_up_attempts_max = 3\nlook_up_failures_max = 3\nrequests_per_second_max = 500\n";

/// What must have become of the faults.
enum Outcome {
    /// They passed by.
    Nothing,
    /// Nothing was read for so long.
    Pause(Duration),
    /// So many items were quarantined, for a reason.
    ItemsSetAside(usize, &'static str),
    /// So many changes are told as unknown.
    Unknown(usize),
    /// The unit's newest change was quarantined with another unit's document.
    OtherDocument,
    /// The same, with this body.
    Body(&'static str),
    /// The same, with the item itself, since the look-up says nothing.
    Item(&'static str),
}

use Outcome::{Body, Item, ItemsSetAside, Nothing, OtherDocument, Pause, Unknown};

struct Case {
    name: &'static str,
    faults: Vec<Value>,
    /// Whether they strike the look-ups of one unit.
    aimed: bool,
    outcome: Outcome,
}

const NO_KEY: &str = "the item has no organisasjonsnummer of nine digits";
const NO_UNIT: &str = "the feed tells of a change, the look-up knows no such unit";
const OTHER_UNIT: &str = "the look-up's document has another organisasjonsnummer than was asked for, or none";
const NO_OBJECT: &str = "the look-up's document is no JSON object";
const FAILS: &str = "the look-up failed again and again, while others succeeded";

fn cases() -> Vec<Case> {
    let case = |name, faults: Vec<Value>, outcome| Case { name, faults, aimed: false, outcome };
    let aimed = |name, faults: Vec<Value>, outcome| Case { name, faults, aimed: true, outcome };
    let feed = |kind: &str, count: u32| json!({"on": "feed", "kind": kind, "count": count});
    let look_up = |kind: &str, count: u32| json!({"on": "lookup", "kind": kind, "count": count});
    let status = |on: &str, status: u16, count: u32| json!({"on": on, "kind": "status", "status": status, "count": count});
    let later = |on: &str, status: u16| json!({"on": on, "kind": "status", "status": status, "retry_after_s": 1});
    vec![
        case("HTML in place of a page", vec![feed("html", 5)], Nothing),
        case("HTML in place of a document", vec![look_up("html", 7)], Nothing),
        case("a page cut off", vec![feed("truncate", 5)], Nothing),
        case("a document cut off", vec![look_up("truncate", 7)], Nothing),
        case("an empty page", vec![feed("empty", 5)], Nothing),
        case("an empty document", vec![look_up("empty", 7)], Nothing),
        case("a page that jumps backwards", vec![feed("backwards", 5)], Nothing),
        case("500 to the feed", vec![status("feed", 500, 7)], Nothing),
        case("500 to look-ups", vec![status("lookup", 500, 7)], Nothing),
        case("503 with Retry-After", vec![later("feed", 503)], Pause(Duration::from_secs(1))),
        case("429 with Retry-After", vec![later("feed", 429)], Pause(Duration::from_secs(1))),
        case("429 with Retry-After to a look-up", vec![later("lookup", 429)], Pause(Duration::from_secs(1))),
        case("404 to the feed", vec![status("feed", 404, 3)], Nothing),
        case("silence", vec![feed("hang", 2), look_up("hang", 2)], Pause(Duration::from_millis(700))),
        case("items without a number", vec![feed("malformed", 2)], ItemsSetAside(2, NO_KEY)),
        case("endringstyper never seen", vec![feed("unknown-type", 3)], Unknown(3)),
        aimed("a document of another unit, twice", vec![look_up("malformed", 2)], Nothing),
        aimed("a document of another unit, to the end", vec![look_up("malformed", 3)], OtherDocument),
        aimed("no document, to the end", vec![status("lookup", 503, 1), look_up("malformed", 4)], Body("[]")),
        aimed("a unit that the feed names and nobody knows", vec![status("lookup", 404, 3)], Item(NO_UNIT)),
        aimed("a look-up that always fails", vec![status("lookup", 500, 6)], Item(FAILS)),
        aimed("a look-up that is always HTML", vec![look_up("html", 9)], Item(FAILS)),
    ]
}

struct Bench {
    scenario: Scenario,
    upstream: Upstream,
    seal: Seal,
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_upstream_answers_nothing_is_lost_and_the_rest_goes_on() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("producer.toml"), SETTINGS).unwrap();
    let upstream = scenario.upstream(&["--units", "25", "--changes-per-second", "0", "--deletions", "0.01", "--removals", "0.005"]).await;
    let mut producer = scenario.producer(&upstream, &["--config", "producer.toml"]);
    let mut before = published_equals_upstream(&scenario.connection(), &upstream).await;
    before.assert_good();
    let bench = Bench { seal: seal(&scenario), scenario, upstream };

    for case in cases() {
        let started = Instant::now();
        before = bench.run(&case, &before).await;
        println!("{}: {} ms, {}", case.name, started.elapsed().as_millis(), before.to_string().trim());
        assert!(producer.runs(), "{}: the producer ended", case.name);
    }

    // Units whose newest change is in the quarantine catch up with their next one.
    let report = wait::until("every living unit to change once more", 30, || async {
        bench.upstream.change(20).await;
        let report = published_equals_upstream(&bench.scenario.connection(), &bench.upstream).await;
        let units = bench.upstream.units().await;
        let is_stale = |unit: &Value| unit["status"] == "active" && report.stale.contains(unit["organisasjonsnummer"].as_str().unwrap());
        (!units.iter().any(is_stale)).then_some(report)
    })
    .await;
    report.assert_good_but_unknown();
    println!("at the end: {report}");
    assert!(producer.said().contains("went backwards"), "the log says that the feed went backwards");
    assert_eq!(producer.stop().await, Some(0));
}

fn seal(scenario: &Scenario) -> Seal {
    let text = std::fs::read_to_string(scenario.data().join("seal.key")).unwrap();
    let digits: Vec<u8> = text.trim().chars().map(|digit| digit.to_digit(16).unwrap() as u8).collect();
    let key: Vec<u8> = digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect();
    Seal::new(&key.try_into().expect("32 bytes"))
}

impl Bench {
    async fn run(&self, case: &Case, before: &Report) -> Report {
        let unit = if case.aimed { Some(self.living_unit(before).await) } else { None };
        for fault in &case.faults {
            let mut fault = fault.clone();
            if let Some(number) = &unit {
                fault["organisasjonsnummer"] = json!(number);
            }
            self.upstream.fault(fault).await;
        }
        let ordered = Instant::now();
        let place = match &unit {
            Some(number) => Some(self.change_unit(number).await),
            None => None,
        };
        wait::until(&format!("{}: all faults to strike", case.name), 30, || async {
            // A look-up is given up only while others succeed.
            let needs_others = matches!(case.outcome, Item(FAILS)) && self.upstream.faults_left().await > 1;
            if !case.aimed || needs_others {
                self.upstream.change(2).await;
            }
            // One of another kind than the last may be left over.
            let left = u64::from(matches!(case.outcome, Body(_)));
            (self.upstream.faults_left().await == left).then_some(())
        })
        .await;
        self.upstream.clear_faults().await;
        let report = published_equals_upstream(&self.scenario.connection(), &self.upstream).await;
        println!("{}", case.name);
        report.assert_good_but_unknown();
        self.check(case, unit.as_deref().zip(place.as_ref()), before, &report, ordered.elapsed()).await;
        report
    }

    async fn check(&self, case: &Case, struck: Option<(&str, &Place)>, before: &Report, report: &Report, elapsed: Duration) {
        let (name, unit) = (case.name, struck.map(|(unit, _)| unit));
        let fresh: BTreeMap<&Place, &LogRecord> =
            report.quarantined.iter().filter(|(place, _)| !before.quarantined.contains_key(*place)).collect();
        let unknown = report.unknown.len() - before.unknown.len();
        let (expected, expected_unknown) = match case.outcome {
            Nothing | Pause(_) => (0, 0),
            ItemsSetAside(count, _) => (count, 0),
            Unknown(count) => (0, count),
            // A unit that has changed twice is asked for once.
            OtherDocument | Body(_) | Item(_) => (fresh.len().max(1), 0),
        };
        assert_eq!((fresh.len(), unknown), (expected, expected_unknown), "{name}: newly quarantined {:?}, newly unknown", fresh.keys());
        if let Pause(pause) = case.outcome {
            assert!(elapsed >= pause, "{name}: went on after {elapsed:?}");
        }
        for (place, record) in fresh {
            let sent = self.open(name, place, record);
            let reason = record.header("reason").unwrap();
            let mut item = self.upstream.item(&place.0, place.1).await;
            assert!(unit.is_none_or(|unit| item["organisasjonsnummer"] == unit), "{name}: another unit than the faulty one: {item}");
            match case.outcome {
                ItemsSetAside(_, expected) => {
                    let mut sent: Value = serde_json::from_slice(&sent).expect("an item");
                    let number = sent.as_object_mut().unwrap().remove("organisasjonsnummer");
                    assert!(number.is_none() || number == Some(json!("12345")), "{name}: {number:?}");
                    item.as_object_mut().unwrap().remove("organisasjonsnummer");
                    assert_eq!((reason, sent), (expected, item), "{name}");
                }
                OtherDocument => {
                    let number = item["organisasjonsnummer"].as_str().unwrap();
                    let units = self.upstream.units().await;
                    let mut document = units.into_iter().find(|unit| unit["organisasjonsnummer"] == number).unwrap()["document"].clone();
                    let sent: Value = serde_json::from_slice(&sent).expect("a document");
                    assert_ne!(sent["organisasjonsnummer"], number, "{name}");
                    document["organisasjonsnummer"] = sent["organisasjonsnummer"].clone();
                    assert_eq!((reason, sent), (OTHER_UNIT, document), "{name}");
                }
                Body(body) => assert_eq!((reason, sent.as_slice()), (NO_OBJECT, body.as_bytes()), "{name}"),
                Item(expected) => assert_eq!((reason, serde_json::from_slice::<Value>(&sent).unwrap()), (expected, item), "{name}"),
                Nothing | Pause(_) | Unknown(_) => unreachable!("nothing is quarantined"),
            }
        }
        if let (Some((_, place)), OtherDocument | Body(_) | Item(_)) = (struck, &case.outcome) {
            assert!(report.quarantined.contains_key(place), "{name}: {place:?} is quarantined, of {:?}", report.quarantined.keys());
        }
    }

    /// What lies sealed in a quarantine record, which tells nothing else of upstream.
    fn open(&self, name: &str, place: &Place, record: &LogRecord) -> Vec<u8> {
        let (feed, position) = place;
        let names: Vec<&str> = record.headers.iter().map(|(name, _)| name).collect();
        // The unit that it is about stands there where that is known, and nothing else of upstream.
        assert_eq!(names[..4], ["source", "feed", "position", "reason"], "{name}");
        assert!(names.len() == 4 || names[4..] == ["subject"], "{name}: {names:?}");
        let is_number = |key: &str| key.len() == 9 && key.bytes().all(|byte| byte.is_ascii_digit());
        assert!(record.header("subject").is_none_or(is_number), "{name}");
        let values = ["source", "feed", "position"].map(|name| record.header(name).unwrap());
        assert_eq!(values, [SOURCE, feed, &position.to_string()], "{name}");
        let reason = record.header("reason").unwrap();
        assert!([NO_KEY, NO_UNIT, OTHER_UNIT, NO_OBJECT, FAILS].contains(&reason), "{name}: a reason of its own: {reason}");
        let sealed = record.value.as_ref().unwrap();
        let key = record.key.as_ref().unwrap();
        let sent = self.seal.open(key, sealed).expect("it opens with the key in its place");
        assert!(self.seal.open("enhetsregisteret/enheter/0", sealed).is_err(), "{name}: it opens only in its place");
        let lies_open = sent.len() > 2 && sealed.windows(sent.len()).any(|window| window == sent);
        assert!(!lies_open, "{name}: upstream's content lies open");
        sent
    }

    /// A unit that lives and whose last change is not quarantined.
    async fn living_unit(&self, before: &Report) -> String {
        let units = self.upstream.units().await;
        let number = |unit: &Value| unit["organisasjonsnummer"].as_str().unwrap().to_owned();
        let living = units.iter().filter(|unit| unit["status"] == "active" && unit["kind"] == "enhet").map(number);
        living.into_iter().find(|number| !before.stale.contains(number)).expect("a living unit")
    }

    /// Makes changes until a unit has changed; where in the feed.
    async fn change_unit(&self, number: &str) -> Place {
        let before = self.upstream.feed("enheter").await.len();
        wait::until(&format!("a change of {number}"), 30, || async {
            self.upstream.change(1).await;
            let feed = self.upstream.feed("enheter").await;
            let (id, _, _) = feed.get(before..)?.iter().find(|(_, key, _)| key == number)?;
            Some(("enheter".to_owned(), *id))
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_that_stays_behind_is_reported_and_never_read_again_from_there() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("producer.toml"), SETTINGS).unwrap();
    let upstream = scenario.upstream(&["--units", "25", "--changes-per-second", "0"]).await;
    let port = free_port();
    let mut producer = scenario.producer_at(&upstream, port, &["--config", "producer.toml"]);
    let before = published_equals_upstream(&scenario.connection(), &upstream).await;
    before.assert_good();

    let health = Caller::new(&format!("http://127.0.0.1:{port}"), None);
    for (what, fault, said) in [
        ("a feed that goes backwards", json!({"on": "feed", "kind": "backwards", "count": 1_000_000}), "went backwards"),
        ("a firewall", json!({"on": "feed", "kind": "html", "count": 1_000_000}), "HTML"),
    ] {
        upstream.fault(fault).await;
        upstream.change(10).await;
        let body = wait::until(&format!("{what} to be reported"), 10, || async {
            let answer = health.raw(Method::GET, "/readyz", &[], "").await;
            (answer.status == 503 && answer.text.matches(said).count() == 2).then_some(answer.text)
        })
        .await;
        println!("{what}: {body}");
        upstream.clear_faults().await;
        wait::until("the producer to be ready again", 10, || async {
            (health.raw(Method::GET, "/readyz", &[], "").await.status == 200).then_some(())
        })
        .await;
        // Positions that went back, or anything read twice, would show here.
        let after = published_equals_upstream(&scenario.connection(), &upstream).await;
        after.assert_good();
        assert_eq!(after.quarantined.len(), 0, "{what}");
        assert!(after.items >= before.items + 10, "{what}: {} items before, {} after", before.items, after.items);
    }
    assert_eq!(producer.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_and_comes_back_costs_nothing() {
    let mut scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("producer.toml"), format!("{SETTINGS}operation_timeout_ms = 3000\n")).unwrap();
    let upstream = scenario.upstream(&["--units", "60", "--changes-per-second", "40", "--deletions", "0.05"]).await;
    let port = free_port();
    let mut producer = scenario.producer_at(&upstream, port, &["--config", "producer.toml"]);
    let mut bridge = scenario.bridge(&[]);
    let subscriber = scenario.subscriber(ORGANISATION).await;
    let receiver = Receiver::start().await;
    let (_, secret) = subscriber.subscribe(&receiver.sink(), "beginning").await;
    receiver.trust(&secret);
    wait::until("deliveries", 30, || async { (receiver.count() > 50).then_some(()) }).await;

    let health = Caller::new(&format!("http://127.0.0.1:{port}"), None);
    scenario.broker.kill();
    let killed = Instant::now();
    upstream.change(100).await;
    ready(&subscriber, false).await;
    println!("the bridge says that it is not ready {} ms after the broker died", killed.elapsed().as_millis());
    ready(&health, false).await;
    println!("the producer says so {} ms after", killed.elapsed().as_millis());
    runs(&mut bridge, &mut producer);
    scenario.broker.restart().await.unwrap();
    let restarted = Instant::now();
    ready(&subscriber, true).await;
    ready(&health, true).await;
    println!("all are ready {} ms after the broker is back", restarted.elapsed().as_millis());
    let before = receiver.count();
    wait::until("deliveries after the restart", 30, || async { (receiver.count() > before).then_some(()) }).await;

    upstream.pause().await;
    let report = published_equals_upstream(&scenario.connection(), &upstream).await;
    report.assert_good();
    let records = read_all(&scenario.connection(), VIRKSOMHET).await;
    let taken = || async { Owed::compare(&records, &receiver.taken()).is_settled().then_some(()) };
    wait::until(&format!("all {} events to be delivered", report.events.len()), 30, taken).await;
    let mut places: Vec<Place> = Vec::new();
    for delivery in receiver.received() {
        assert!(delivery.verified, "{} is signed", delivery.id);
        if delivery.is_void() {
            // Its key was removed while it was pending: it stands for no place.
            continue;
        }
        assert!(delivery.event["data"].is_object(), "a tombstone that is an echo is no event: {}", delivery.event);
        let (source, position) = delivery.change();
        places.push((source.trim_start_matches("enhetsregisteret/").to_owned(), position));
    }
    let distinct: BTreeSet<&Place> = places.iter().collect();
    assert_eq!(places.len(), distinct.len(), "each place is delivered once");
    println!("{report}");
    runs(&mut bridge, &mut producer);
    assert_eq!((bridge.stop().await, producer.stop().await), (Some(0), Some(0)));
}

/// Waits until it says that it is ready, or not.
async fn ready(part: &Caller, expected: bool) {
    let status = if expected { 200 } else { 503 };
    wait::until(&format!("/readyz to answer {status}"), 30, || async {
        let answer = part.try_call(Method::GET, "/readyz", None).await.expect("it is there");
        (answer.0 == status).then_some(())
    })
    .await;
}

fn runs(bridge: &mut Process, producer: &mut Process) {
    assert!(bridge.runs() && producer.runs(), "both go on without a broker");
}
