//! Kafka as a channel: events are written to a topic of the receiver's own, each once, though the bridge is killed; with
//! the topic they come and go.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rand::Rng;
use reqwest::Method;
use ryggrad_log::{Appender, Connection, read_to_end, topics};
use ryggrad_schemas::LogRecord;
use ryggrad_tests::disclosed::Disclosed;
use ryggrad_tests::events::{CE_TYPE, Events, Published, key};
use ryggrad_tests::foreign::python;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::trial::{CONTROLLER, Measurement, PATIENTS, Parties, TYPE, make, patient};
use ryggrad_tests::{random, wait};
use serde_json::json;

const KILLS: usize = 8;
const KEYS: u32 = 40;

async fn written(connection: &Connection, topic: &str) -> Vec<LogRecord> {
    read_to_end(connection, topic, 0, 1_000_000, 60_000).await.unwrap()
}

fn header<'r>(record: &'r LogRecord, name: &str) -> &'r str {
    record.header(name).unwrap_or_else(|| panic!("no {name} in {record:?}"))
}

/// Numbers from one on without a gap, in their order, each event once.
fn once_and_whole(records: &[LogRecord]) {
    let numbers = records.iter().map(|record| header(record, "ryggrad_number").parse::<u64>().unwrap());
    assert!(numbers.eq(1..=records.len() as u64), "numbers have gaps, or repeat");
    let ids: BTreeSet<&str> = records.iter().map(|record| header(record, "ce_id")).collect();
    assert_eq!(ids.len(), records.len(), "an event stands there twice");
    let epochs: BTreeSet<&str> = records.iter().map(|record| header(record, "ryggrad_epoch")).collect();
    assert_eq!(epochs.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_written_once_though_the_bridge_is_killed() {
    let scenario = Scenario::start().await;
    let connection = scenario.connection();
    let mut bridge = scenario.bridge(&["--trial"]);
    let Parties { operator, receiver, .. } = Parties::meet(&scenario).await;
    let own = scenario.subscriber(ORGANISATION).await;
    let mut events = Events::start(&connection).await;
    let mut published: Vec<Published> = events.publish((0..KEYS).map(key)).await;
    let open = make(&own, "subscriptions", json!({"types": [CE_TYPE], "channel": "kafka", "start": "beginning"})).await;
    let protected = make(&receiver, "subscriptions", json!({"types": [TYPE], "channel": "kafka"})).await;
    let (open_topic, protected_topic) = (format!("ut.{ORGANISATION}.{open}"), format!("ut.{}.{protected}", ryggrad_tests::trial::RECEIVER));

    let appender = Appender::new(&connection, 10_000).unwrap();
    let (end, mut over) = tokio::sync::oneshot::channel();
    let publishing = tokio::spawn(async move {
        let (mut measured, mut after) = (BTreeSet::new(), BTreeSet::new());
        for round in 0_u32.. {
            // Enough is left to be written and recorded after the last kill.
            let last = over.try_recv().is_ok();
            published.extend(events.publish((0..KEYS).map(|index| key((index * 7 + round) % KEYS))).await);
            for number in 0..5_usize {
                let (id, patient) = (format!("m-{round}-{number}"), patient((round as usize + number) % PATIENTS));
                let event = Measurement { patient: &patient, id: &id, controller: CONTROLLER }.publish(&appender).await;
                measured.insert(event.clone());
                if last {
                    after.insert(event);
                }
            }
            if last {
                break;
            }
            // The pace is the point: a bridge that starts looks for the end of the topic.
            wait::random_moment(250).await;
        }
        (published, measured, after)
    });
    let mut random = random::seeded("outlets");
    for kill in 1..=KILLS {
        wait::random_moment(random.random_range(50..900)).await;
        bridge.kill();
        println!("kill {kill} with {} written", written(&connection, &open_topic).await.len());
        bridge = scenario.bridge(&["--trial"]);
        operator.ready().await;
    }
    end.send(()).unwrap();
    let (published, measured, after) = publishing.await.unwrap();
    for (topic, count) in [(&open_topic, published.len()), (&protected_topic, measured.len())] {
        wait::until("all of it is written", 60, || async { (written(&connection, topic).await.len() >= count).then_some(()) }).await;
    }
    for (caller, id) in [(&own, &open), (&receiver, &protected)] {
        wait::until("the bridge knows", 30, || async { (caller.status(id).await?["pending"] == 0).then_some(()) }).await;
    }
    assert_eq!(bridge.stop().await, Some(0));

    let records = written(&connection, &open_topic).await;
    once_and_whole(&records);
    let positions: HashMap<&str, u64> = published.iter().map(|one| (one.event["id"].as_str().unwrap(), one.position)).collect();
    let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
    for record in &records {
        let position = positions[header(record, "ce_id")];
        let before = latest.insert(record.key.as_deref().unwrap(), position);
        assert!(before.is_none_or(|before| before < position), "a key went back");
    }
    assert_eq!(records.len(), published.len());

    let records = written(&connection, &protected_topic).await;
    once_and_whole(&records);
    assert_eq!(records.iter().map(|record| header(record, "ce_id").to_owned()).collect::<BTreeSet<_>>(), measured);
    let disclosed = Disclosed::read(&connection, CONTROLLER).await;
    let mut intents: HashMap<&str, (i64, u64)> = HashMap::new();
    for (at_ms, number, intent) in &disclosed.intents {
        assert_eq!((intent.channel.as_str(), intent.subscription.to_string().as_str()), ("kafka", protected.as_str()));
        let before = intents.insert(&intent.delivery, (*at_ms, *number));
        assert!(before.is_none(), "two intents for one delivery");
    }
    let delivered = disclosed.delivered();
    for record in &records {
        let (at_ms, number) = intents.get(header(record, "ryggrad_delivery")).copied().expect("no record without its intent");
        assert!(at_ms <= record.timestamp_ms, "the intent comes first");
        // A kill may come between what was taken and the word of it.
        let is_late = after.contains(header(record, "ce_id"));
        assert!(delivered.contains(&number) || !is_late, "what was written was delivered");
        assert!(header(record, "ryggrad_view") == "full" && record.header("ryggrad_source").is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_comes_and_goes_with_its_subscription_and_a_stock_client_reads_it() {
    let scenario = Scenario::start().await;
    let connection = scenario.connection();
    let mut bridge = scenario.bridge(&[]);
    let own = scenario.subscriber(ORGANISATION).await;
    let mut events = Events::start(&connection).await;
    let (status, refused) =
        own.post("/v1/subscriptions", json!({"types": [CE_TYPE], "channel": "kafka", "sink": "https://a.example.org/"})).await;
    assert_eq!((status, &refused["errors"][0]["pointer"]), (422, &json!("/sink")), "{refused}");
    let id = make(&own, "subscriptions", json!({"types": [CE_TYPE], "channel": "kafka"})).await;
    let (path, topic) = (format!("/v1/subscriptions/{id}"), format!("ut.{ORGANISATION}.{id}"));
    let described = topics::describe(&connection, &topic).await.unwrap().expect("it is there with the answer");
    assert_eq!((described.partitions, described.cleanup_policy.as_str(), described.retention_ms), (1, "delete", Some(604_800_000)));
    assert_eq!(own.get(&path).await.1["topic"], topic);
    let (status, said) = own.get(&format!("{path}/events")).await;
    assert_eq!((status, &said["type"]), (409, &json!("urn:ryggrad:error:channel")), "{said}");

    let mut published = events.publish((0..30).map(key)).await;
    published.push(events.end(&key(3)).await);
    let count = |count: usize| {
        let (connection, topic) = (connection.clone(), topic.clone());
        async move {
            wait::until(&format!("{count} are written"), 30, || async { (written(&connection, &topic).await.len() == count).then_some(()) })
                .await
        }
    };
    count(31).await;
    once_and_whole(&written(&connection, &topic).await);

    // Every record as whoever reads the open topic gets it.
    let (broker, registry) = (scenario.broker.address(), format!("{}/schema-registry", scenario.bridge_url()));
    let theirs = python("read_topic.py", &["read", &broker, &registry, &topic], String::new()).await;
    let expected: BTreeMap<&str, &Published> = published.iter().map(|one| (one.event["id"].as_str().unwrap(), one)).collect();
    assert_eq!(theirs.len(), 31);
    for record in &theirs {
        let header = |name: &str| record["headers"].as_array().unwrap().iter().find(|pair| pair[0] == name).unwrap()[1].as_str().unwrap();
        let published = expected[header("ce_id")];
        assert_eq!(record["key"], published.key);
        assert_eq!(record["value"]["posisjon"], published.event["data"]["posisjon"]);
        assert_eq!(
            (header("ryggrad_subscription"), header("ryggrad_organisation"), header("ryggrad_extent")),
            (id.as_str(), ORGANISATION, "whole")
        );
    }

    assert_eq!(own.post(&format!("{path}/pause"), json!({})).await.0, 200);
    events.publish((0..5).map(key)).await;
    wait::until("it is pending", 20, || async { (own.status(&id).await?["pending"] == 5).then_some(()) }).await;
    assert_eq!(written(&connection, &topic).await.len(), 31, "nothing is written during a pause");
    assert_eq!(own.post(&format!("{path}/resume"), json!({})).await.0, 200);
    count(36).await;
    wait::until("nothing is pending", 20, || async { (own.status(&id).await?["pending"] == 0).then_some(()) }).await;
    let status = own.status(&id).await.unwrap();
    assert_eq!(status["kafka"], json!({"written_number": 36, "trouble": null}));

    // Once more, under numbers of its own.
    assert_eq!(own.post(&format!("{path}/rewind"), json!({"to": "beginning"})).await.0, 200);
    count(72).await;
    let numbers: Vec<u64> =
        written(&connection, &topic).await.iter().map(|record| header(record, "ryggrad_number").parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(1..=72), "{numbers:?}");

    // What a crash has left over goes at the next start.
    let left_over = format!("ut.{ORGANISATION}.018f0000-0000-7000-8000-000000000001");
    let like = ryggrad_schemas::Catalogue::built_in().topic("ryggrad.quarantine").unwrap().clone();
    topics::ensure(&connection, &[ryggrad_schemas::catalogue::Topic { name: left_over.clone(), ..like }], 1).await.unwrap();
    assert_eq!(bridge.stop().await, Some(0));
    let mut bridge = scenario.bridge(&[]);
    own.ready().await;
    let is_there = async |name: &str| topics::list(&connection).await.unwrap().contains_key(name);
    assert!(is_there(&topic).await && !is_there(&left_over).await);
    assert_eq!(own.call(Method::DELETE, &path, None).await.0, 204);
    assert!(!is_there(&topic).await);
    assert_eq!(bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_store_repeats_nothing_and_keys_keep_their_order_in_several_partitions() {
    const PARTITIONS: i32 = 3;
    let scenario = Scenario::start().await;
    let connection = scenario.connection();
    std::fs::write(scenario.folder.path().join("ryggrad.toml"), format!("[bridge]\noutlet_partitions = {PARTITIONS}\n")).unwrap();
    let mut bridge = scenario.bridge(&["--config", "ryggrad.toml"]);
    let own = scenario.subscriber(ORGANISATION).await;
    let mut events = Events::start(&connection).await;
    let id = make(&own, "subscriptions", json!({"types": [CE_TYPE], "channel": "kafka"})).await;
    let topic = format!("ut.{ORGANISATION}.{id}");
    let all = async || {
        let mut records = Vec::new();
        for partition in 0..PARTITIONS {
            records.push(read_to_end(&connection, &topic, partition, 1_000_000, 60_000).await.unwrap());
        }
        records
    };
    let has = async |count: usize| {
        let what = format!("{count} are written");
        wait::until(&what, 60, || async { Some(all().await).filter(|all| all.iter().map(Vec::len).sum::<usize>() >= count) }).await
    };
    let mut published = Vec::new();
    for lost in [false, true] {
        if lost {
            bridge.kill();
            std::fs::remove_dir_all(scenario.data().join("cursors")).unwrap();
            bridge = scenario.bridge(&["--config", "ryggrad.toml"]);
            own.ready().await;
        }
        for _ in 0..3 {
            published.extend(events.publish((0..KEYS).map(key)).await);
        }
        has(published.len()).await;
    }
    wait::until("nothing is pending", 20, || async { (own.status(&id).await?["pending"] == 0).then_some(()) }).await;
    let all = all().await;
    let ids: BTreeSet<&str> = all.iter().flatten().map(|record| header(record, "ce_id")).collect();
    assert_eq!((ids.len(), all.iter().map(Vec::len).sum::<usize>()), (published.len(), published.len()), "an event stands there twice");
    let positions: HashMap<&str, u64> = published.iter().map(|one| (one.event["id"].as_str().unwrap(), one.position)).collect();
    for records in &all {
        assert!(!records.is_empty(), "every partition is used");
        let runs: Vec<(u32, u64)> = records
            .iter()
            .map(|record| (header(record, "ryggrad_epoch").parse().unwrap(), header(record, "ryggrad_number").parse().unwrap()))
            .collect();
        assert!(runs.is_sorted(), "numbers went back");
        let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
        for record in records {
            let position = positions[header(record, "ce_id")];
            let before = latest.insert(record.key.as_deref().unwrap(), position);
            assert!(before.is_none_or(|before| before < position), "a key went back");
        }
    }
    assert_eq!(bridge.stop().await, Some(0));
}
