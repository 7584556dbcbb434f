//! `ryggrad replay` on a real broker: ranges and selections against an oracle, refusals, and
//! SIGKILL at random moments, after which nothing is lost and nothing doubled.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rand::Rng;
use ryggrad_log::{Connection, groups, read_to_end, topics};
use ryggrad_schemas::catalogue::{Cleanup, Topic};
use ryggrad_schemas::{Catalogue, LogRecord, avro};
use ryggrad_tests::events::{CE_TYPE, Events, key};
use ryggrad_tests::process::{Process, command};
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::{full, random, wait};
use serde_json::{Value, json};

const OTHER_TYPE: &str = "no.ryggrad.test.annet.v1";

type Spot = (i32, i64);

fn spot(record: &LogRecord) -> Spot {
    (record.partition, record.offset)
}

struct Stage {
    scenario: Scenario,
    events: Events,
}

impl Stage {
    async fn set() -> Self {
        let scenario = Scenario::start().await;
        let events = Events::start(&scenario.connection()).await;
        Self { scenario, events }
    }

    fn connection(&self) -> Connection {
        self.scenario.connection()
    }

    fn folder(&self) -> &Path {
        self.scenario.folder.path()
    }

    fn replay(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let kafka = self.scenario.broker.address();
        command(self.folder(), &[&["replay", VIRKSOMHET, "--kafka", &kafka], arguments].concat())
    }

    /// What a replay to stdout prints, by place.
    fn lines(&self, arguments: &[&str]) -> BTreeMap<Spot, Value> {
        let (code, said, errors) = self.replay(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        by_spot(&said)
    }

    async fn create(&self, name: &str, partitions: i32, cleanup: Cleanup) {
        let catalogue = Catalogue::built_in().topic(VIRKSOMHET).unwrap().clone();
        let topic = Topic { name: name.to_owned(), partitions, cleanup, ..catalogue };
        topics::ensure(&self.connection(), &[topic], 1).await.unwrap();
    }

    async fn read(&self, topic: &str, partitions: i32) -> Vec<LogRecord> {
        let mut records = Vec::new();
        for partition in 0..partitions {
            records.extend(read_to_end(&self.connection(), topic, partition, 1_000_000, 60_000).await.unwrap());
        }
        records
    }
}

/// Lines by place; each place once, and in order per partition.
fn by_spot(text: &str) -> BTreeMap<Spot, Value> {
    let mut found = BTreeMap::new();
    let mut latest: BTreeMap<i64, i64> = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).expect("a line is JSON");
        let (partition, offset) = (line["partition"].as_i64().unwrap(), line["offset"].as_i64().unwrap());
        if let Some(before) = latest.insert(partition, offset) {
            assert!(before < offset, "partition {partition}: {offset} behind {before}");
        }
        found.insert((i32::try_from(partition).unwrap(), offset), line);
    }
    found
}

fn chosen(records: &[LogRecord], takes: impl Fn(&LogRecord) -> bool) -> BTreeSet<Spot> {
    records.iter().filter(|record| takes(record)).map(spot).collect()
}

fn spots(lines: &BTreeMap<Spot, Value>) -> BTreeSet<Spot> {
    lines.keys().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn stdout_has_exactly_what_was_asked_for() {
    let mut stage = Stage::set().await;
    stage.events.publish((0..120).map(key)).await;
    stage.events.end(&key(7)).await;
    let first = read_all(&stage.connection(), VIRKSOMHET).await;
    let last_ms = first.iter().map(|record| record.timestamp_ms).max().unwrap();
    // Log append time must have moved on before what counts as later.
    wait::until("the clock to go on", 10, || async { (jiff::Timestamp::now().as_millisecond() > last_ms).then_some(()) }).await;
    stage.events.choose_type(OTHER_TYPE);
    stage.events.publish((60..180).map(key)).await;
    let records = read_all(&stage.connection(), VIRKSOMHET).await;
    assert_eq!(records.len(), 242);
    let group: Vec<_> = (0..6).map(|partition| (VIRKSOMHET.to_owned(), partition, 5_i64)).collect();
    groups::set(&stage.connection(), "half", &group, 10_000).await.unwrap();

    // Everything, with all that a record holds.
    let lines = stage.lines(&[]);
    assert_eq!(lines.len(), records.len());
    for record in &records {
        let line = &lines[&spot(record)];
        let headers: serde_json::Map<String, Value> =
            record.headers.iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        let value = record.value.as_ref().map(|value| avro::decode_to_json(value).unwrap());
        let expected = json!({
            "topic": VIRKSOMHET, "partition": record.partition, "offset": record.offset,
            "timestamp": format!("{:.3}", jiff::Timestamp::from_millisecond(record.timestamp_ms).unwrap()),
            "key": record.key, "headers": headers, "value": value,
        });
        assert_eq!(line, &expected);
    }
    assert_eq!(lines.values().filter(|line| line["value"].is_null()).count(), 1, "the tombstone");

    // Ranges.
    let later_ms = last_ms + 1;
    let time = format!("{:.3}", jiff::Timestamp::from_millisecond(later_ms).unwrap());
    let all = |_: &LogRecord| true;
    let is_later = |record: &LogRecord| record.timestamp_ms >= later_ms;
    let is_between = |record: &LogRecord| (5..9).contains(&record.offset);
    for (arguments, expected) in [
        (&["--from", "beginning", "--to", "end"][..], chosen(&records, all)),
        (&["--from", "5", "--to", "9"][..], chosen(&records, is_between)),
        (
            &["--from", "0:5,3:1", "--to", "0:9,3:2,4:7"][..],
            chosen(&records, |record| match record.partition {
                0 => is_between(record),
                3 => record.offset == 1,
                _ => false,
            }),
        ),
        (&["--from", &time][..], chosen(&records, is_later)),
        (&["--to", &time][..], chosen(&records, |record| !is_later(record))),
        (&["--from", "1h"][..], chosen(&records, all)),
        (&["--from", "-PT1H", "--to", "-PT1H"][..], BTreeSet::new()),
        (&["--from", "group:half"][..], chosen(&records, |record| record.offset >= 5)),
        (
            &["--to", "group:half", "--partition", "1,2"][..],
            chosen(&records, |record| record.offset < 5 && matches!(record.partition, 1 | 2)),
        ),
        // Selections.
        (&["--key", &key(7)][..], chosen(&records, |record| record.key.as_deref() == Some(&key(7)))),
        (
            &["--key", "*1?", "--key", "*99"][..],
            chosen(&records, |record| {
                let key = record.key.as_deref().unwrap();
                key[..key.len() - 1].ends_with('1') || key.ends_with("99")
            }),
        ),
        (&["--type", "no.ryggrad.test.*"][..], chosen(&records, |record| record.header("ce_type") == Some(OTHER_TYPE))),
        (&["--type", CE_TYPE][..], chosen(&records, |record| record.header("ce_type") == Some(CE_TYPE))),
        (&["--header", "ce_endringstype=SLETTE?"][..], chosen(&records, |record| record.header("ce_endringstype") == Some("SLETTET"))),
        (&["--header", "ce_endringstype=X", "--type", "*"][..], BTreeSet::new()),
    ] {
        assert_eq!(spots(&stage.lines(arguments)), expected, "{arguments:?}");
    }
    assert_eq!(stage.lines(&["--limit", "17"]).len(), 17);
    let table = stage.replay(&["--dry-run", "--type", CE_TYPE]);
    let of_type = chosen(&records, |record| record.header("ce_type") == Some(CE_TYPE)).len();
    let sum: Vec<String> = table.1.lines().last().unwrap().split_whitespace().map(str::to_owned).collect();
    assert_eq!(sum[..3], ["all".to_owned(), records.len().to_string(), of_type.to_string()], "{}", table.1);

    // What was removed for legal reasons stays in the log, and is not replayed.
    let removal = stage.events.remove(&key(3), true).await;
    let lines = stage.lines(&["--key", &key(3)]);
    let ids: Vec<&Value> = lines.values().map(|line| &line["headers"]["ce_id"]).collect();
    assert_eq!(ids, [&removal.event["id"], &removal.event["id"]], "the removal and its tombstone");

    // Avro.
    let (code, _, errors) = stage.replay(&["--to-file", "all.avro", "--format", "avro"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("tombstones left out") && errors.contains("withheld"), "{errors}");
    assert!(std::fs::read(stage.folder().join("all.avro")).unwrap().starts_with(b"Obj\x01"));

    for (arguments, code, word) in [
        (&["--partition", "9"][..], 3, "there is no 9"),
        (&["--from", "yesterday"][..], 2, "no place in a topic"),
        (&["--from", "group:nobody"][..], 3, "has committed nothing"),
        (&["--to-subscription", "x", "--limit", "1"][..], 2, "--limit is not for"),
        (&["--to", "subscription:x", "--resume"][..], 2, "--resume is not for"),
        (&["--sql", "NOT"][..], 2, "--sql"),
        (&["--format", "avro"][..], 2, "needs a file"),
        (&["--resume"][..], 2, "cannot be resumed"),
        (&["--to-file", "all.avro", "--format", "avro"][..], 3, "was begun before"),
        (&["--to-file", "all.avro", "--resume"][..], 3, "another replay"),
    ] {
        let (found, _, errors) = stage.replay(arguments);
        assert!(found == Some(code) && errors.contains(word), "{arguments:?}: {found:?} {errors}");
    }
    let kafka = stage.scenario.broker.address();
    let (code, _, errors) = command(stage.folder(), &["replay", "no.such", "--kafka", &kafka]);
    assert!(code == Some(3) && errors.contains("does not exist"), "{errors}");
}

/// Publishes so many events and gives all that the topic holds.
async fn fill(stage: &mut Stage, events: u32) -> Vec<LogRecord> {
    for from in (0..events).step_by(4_000) {
        stage.events.publish((from..(from + 4_000).min(events)).map(|number| key(number % 5_000))).await;
    }
    read_all(&stage.connection(), VIRKSOMHET).await
}

/// Starts the command over and over, kills it at random moments, and lets it end in the end.
async fn with_kills(stage: &Stage, arguments: &[&str], kills: u32, rng: &mut impl Rng) {
    let kafka = stage.scenario.broker.address();
    let arguments = [&["replay", VIRKSOMHET, "--kafka", &kafka, "--resume"], arguments].concat();
    for number in 0..kills {
        let mut process = Process::start(stage.folder(), "replay", &arguments);
        wait::random_moment(rng.random_range(20..1_500)).await;
        if let Some(code) = process.ended() {
            assert_eq!(code, Some(0), "{}", process.said());
            println!("done after {number} kills");
            return;
        }
        process.kill();
    }
    let mut process = Process::start(stage.folder(), "replay", &arguments);
    assert_eq!(process.exit_code(120).await, Some(0), "{}", process.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_loses_and_doubles_nothing_over_sigkill() {
    let mut stage = Stage::set().await;
    let mut rng = random::seeded("a_file_loses_and_doubles_nothing_over_sigkill");
    let (events, kills) = if full() { (200_000, 40) } else { (30_000, 8) };
    let records = fill(&mut stage, events).await;
    let rate = (events / 6).to_string();
    for (name, more) in [("slow.ndjson", &["--rate", &rate][..]), ("fast.ndjson", &[])] {
        let arguments = [&["--to-file", name], more].concat();
        with_kills(&stage, &arguments, kills, &mut rng).await;
        let text = std::fs::read_to_string(stage.folder().join(name)).unwrap();
        assert_eq!(text.lines().count(), records.len(), "{name}");
        assert_eq!(spots(&by_spot(&text)), chosen(&records, |_| true), "{name}");
        let (code, _, errors) = stage.replay(&[&["--resume"], &arguments[..]].concat());
        assert!(code == Some(0) && errors.contains("is complete"), "{errors}");
    }
    // A limit counts over all runs, and a selection is kept.
    let arguments = ["--to-file", "some.ndjson", "--limit", "10000", "--key", "*5", "--rate", "3000"];
    with_kills(&stage, &arguments, kills, &mut rng).await;
    let text = std::fs::read_to_string(stage.folder().join("some.ndjson")).unwrap();
    let fitting = chosen(&records, |record| record.key.as_deref().unwrap().ends_with('5'));
    let found = spots(&by_spot(&text));
    assert_eq!((text.lines().count(), found.len()), (fitting.len().min(10_000), fitting.len().min(10_000)));
    assert!(found.is_subset(&fitting));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_gets_each_record_once_and_is_left_alone_where_it_would_be_corrupted() {
    let mut stage = Stage::set().await;
    let mut rng = random::seeded("a_topic_gets_each_record_once");
    let (events, kills) = if full() { (100_000, 30) } else { (20_000, 6) };
    fill(&mut stage, events).await;
    stage.events.end(&key(1)).await;
    let records = read_all(&stage.connection(), VIRKSOMHET).await;
    for (name, partitions, cleanup) in [
        ("copy.v1", 6, Cleanup::Delete),
        ("small.v1", 2, Cleanup::Delete),
        ("held.v1", 6, Cleanup::Compact),
        ("some.v1", 6, Cleanup::Delete),
    ] {
        stage.create(name, partitions, cleanup).await;
    }

    // A dry run changes nothing.
    let (code, said, errors) = stage.replay(&["--to-topic", "copy.v1", "--key", &key(1)]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("Nothing was written"), "{errors}");
    let ones = chosen(&records, |record| record.key.as_deref() == Some(&key(1))).len();
    let sum: Vec<&str> = said.lines().last().unwrap().split_whitespace().collect();
    assert_eq!(sum[..3], ["all", &records.len().to_string(), &ones.to_string()], "{said}");
    assert!(stage.read("copy.v1", 6).await.is_empty());

    for (target, word) in [
        (VIRKSOMHET, "into itself"),
        ("ryggrad.cursors", "keeps facts"),
        ("ryggrad.new", "keeps facts"),
        ("__consumer_offsets", "keeps facts"),
        ("no.such", "does not exist"),
        ("small.v1", "has 2 partitions"),
    ] {
        let (code, _, errors) = stage.replay(&["--to-topic", target, "--execute"]);
        assert!(code == Some(3) && errors.contains(word), "{target}: {code:?} {errors}");
    }

    // Each record once, byte for byte, over kills.
    let rate = (events / 5).to_string();
    with_kills(&stage, &["--to-topic", "copy.v1", "--execute", "--rate", &rate], kills, &mut rng).await;
    let copied = stage.read("copy.v1", 6).await;
    assert_eq!(copied.len(), records.len());
    let mut latest: BTreeMap<i32, i64> = BTreeMap::new();
    let by_origin: BTreeMap<String, &LogRecord> =
        records.iter().map(|record| (format!("{VIRKSOMHET}/{}/{}", record.partition, record.offset), record)).collect();
    let mut seen = BTreeSet::new();
    for copy in &copied {
        let origin = copy.header("ryggrad_origin").unwrap();
        assert!(seen.insert(origin), "{origin} stands there twice");
        let source = by_origin[origin];
        assert_eq!((&copy.key, &copy.value, copy.partition), (&source.key, &source.value, source.partition));
        let headers: Vec<_> = copy.headers.iter().filter(|(name, _)| !name.starts_with("ryggrad_")).collect();
        assert_eq!(headers, source.headers.iter().collect::<Vec<_>>());
        assert!(copy.header("ryggrad_replay_id").is_some() && copy.header("ryggrad_origin_timestamp").is_some());
        if let Some(before) = latest.insert(copy.partition, source.offset) {
            assert!(before < source.offset, "order is kept");
        }
    }

    // Once more needs a word; what a replay wrote is not replayed by another.
    let (code, _, errors) = stage.replay(&["--to-topic", "copy.v1", "--execute"]);
    assert!(code == Some(3) && errors.contains("--again"), "{errors}");
    let kafka = stage.scenario.broker.address();
    let back = |more: &[&str]| {
        let own = ["replay", "copy.v1", "--kafka", &kafka, "--to-topic", "some.v1", "--key", "*3", "--execute"];
        command(stage.folder(), &[&own[..], more].concat())
    };
    let (code, _, errors) = back(&[]);
    assert!(code == Some(0) && errors.contains("records written 0"), "{errors}");
    let (code, _, errors) = back(&["--again"]);
    let threes = chosen(&records, |record| record.key.as_deref().unwrap().ends_with('3')).len();
    assert!(code == Some(0) && errors.contains(&format!("records written {threes},")), "{errors}");

    // Keys choose anew; an empty compacted topic is filled once.
    let (code, _, errors) = stage.replay(&["--to-topic", "small.v1", "--repartition", "--limit", "500", "--execute"]);
    assert_eq!(code, Some(0), "{errors}");
    let small = stage.read("small.v1", 2).await;
    assert_eq!(small.len(), 500);
    let homes: BTreeSet<_> = small.iter().map(|record| (&record.key, record.partition)).collect();
    assert_eq!(homes.len(), small.iter().map(|record| &record.key).collect::<BTreeSet<_>>().len(), "a key has one partition");
    let (code, _, errors) = stage.replay(&["--to-topic", "held.v1", "--key", "*4", "--execute"]);
    assert_eq!(code, Some(0), "{errors}");
    let (code, _, errors) = stage.replay(&["--to-topic", "held.v1", "--key", "*5", "--execute"]);
    assert!(code == Some(3) && errors.contains("is compacted"), "{errors}");
}
