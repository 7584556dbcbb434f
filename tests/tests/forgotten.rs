//! A unit that is removed for legal reasons is forgotten: by the bridge from that second on, and by
//! the broker's own files once the log is compacted, also where nothing else happens any more.
//!
//! Kafka's clock is shortened for the one topic: days become seconds. Parts that start compare
//! their topics with the catalogue, so it runs at its normal pace whenever one does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Instant;

use ryggrad_schemas::catalogue::topics::SOURCE_POSITIONS;
use ryggrad_schemas::record::ROLL_KEY;
use ryggrad_schemas::virksomhet::VirksomhetEndret;
use ryggrad_schemas::{Catalogue, LogRecord, avro};
use ryggrad_tests::broker::configure;
use ryggrad_tests::conformance::enhetsregisteret::Enhetsregisteret;
use ryggrad_tests::conformance::{Registry, conforms};
use ryggrad_tests::process::{Process, command};
use ryggrad_tests::receiver::{Received, Receiver};
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::topic::{Owed, VIRKSOMHET, read_all};
use ryggrad_tests::wait;
use serde_json::Value;

/// Segments that can be read as they are, a cleaner in a hurry, and no large empty index files.
const BROKER: [(&str, &str); 4] = [
    ("compression.type", "uncompressed"),
    ("log.cleaner.backoff.ms", "200"),
    ("log.segment.delete.delay.ms", "200"),
    ("log.index.size.max.bytes", "65536"),
];
/// The removal's tombstone stays long enough for late readers to be started meanwhile.
const SHORT: [(&str, &str); 4] =
    [("min.compaction.lag.ms", "0"), ("max.compaction.lag.ms", "1000"), ("delete.retention.ms", "30000"), ("segment.ms", "1000")];
const BRIDGE: &str = "[bridge]\nretry_first_ms = 50\nretry_max_ms = 200\n";
/// Longer than the test: nothing but the first marks.
const NO_MARKS_MS: u64 = 365 * 86_400_000;
/// What a request may take that was under way when the removal was published.
const ON_ITS_WAY_MS: i64 = 1_000;

/// A unit, and what only it can have put into the log.
struct Unit {
    number: String,
    partition: i32,
    /// Ids of its states' events.
    ids: BTreeSet<String>,
    names: BTreeSet<String>,
    values: Vec<Vec<u8>>,
}

impl Unit {
    fn needles(&self) -> impl Iterator<Item = &[u8]> {
        self.names.iter().map(String::as_bytes).chain(self.values.iter().map(Vec::as_slice))
    }

    /// Names of the files that hold any of it.
    fn found_in(&self, folder: &Path) -> Option<BTreeSet<String>> {
        let files = files_in(folder)?;
        let holding = files.iter().filter(|(_, bytes)| self.needles().any(|needle| contains(bytes, needle)));
        Some(holding.map(|(name, _)| name.clone()).collect())
    }
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Every file below a folder. Nothing if one was renamed or deleted meanwhile: it may then be
/// there under a name that was not looked at.
fn files_in(folder: &Path) -> Option<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).ok()? {
        let path = entry.ok()?.path();
        if path.is_dir() {
            files.extend(files_in(&path)?);
        } else {
            files.push((path.display().to_string(), std::fs::read(&path).ok()?));
        }
    }
    Some(files)
}

/// All units of the topic, in which nothing is removed yet.
fn units(records: &[LogRecord]) -> Vec<Unit> {
    let mut units: BTreeMap<&str, Unit> = BTreeMap::new();
    for record in records {
        let (Some(key), Some(value)) = (&record.key, &record.value) else { continue };
        let (number, partition) = (key.clone(), record.partition);
        let unit = units.entry(key).or_insert_with(|| Unit {
            number,
            partition,
            ids: BTreeSet::new(),
            names: BTreeSet::new(),
            values: Vec::new(),
        });
        unit.ids.insert(record.header("ce_id").unwrap().to_owned());
        unit.names.extend(avro::decode::<VirksomhetEndret>(value).unwrap().virksomhet.unwrap().navn);
        unit.values.push(value.clone());
    }
    let texts: Vec<(&str, &[u8])> = records.iter().filter_map(|record| Some((record.key.as_deref()?, record.value.as_deref()?))).collect();
    let own = |unit: &Unit| {
        !texts.iter().any(|(key, value)| *key != unit.number && unit.names.iter().any(|name| contains(value, name.as_bytes())))
    };
    units.into_values().filter(own).collect()
}

/// The id of each key's newest event.
fn newest(records: &[LogRecord]) -> BTreeMap<String, String> {
    let events = records.iter().filter(|record| record.value.is_some());
    events.map(|record| (record.key.clone().unwrap(), record.header("ce_id").unwrap().to_owned())).collect()
}

fn is_mark(record: &LogRecord) -> bool {
    record.key.as_deref() == Some(ROLL_KEY)
}

fn of<'a>(received: &'a [Received], number: &str) -> Vec<&'a Received> {
    received.iter().filter(|delivery| delivery.key() == number).collect()
}

struct Stage {
    scenario: Scenario,
    registry: Enhetsregisteret,
    producer: Process,
    bridge: Process,
}

impl Stage {
    async fn set() -> Self {
        let scenario = Scenario::with(&BROKER).await;
        std::fs::write(scenario.folder.path().join("bridge.toml"), BRIDGE).unwrap();
        let registry = Enhetsregisteret::open(&scenario, 40, 0).await;
        let producer = produce(&registry, &scenario, NO_MARKS_MS);
        let bridge = scenario.bridge(&["--config", "bridge.toml"]);
        Self { scenario, registry, producer, bridge }
    }

    async fn records(&self) -> Vec<LogRecord> {
        read_all(&self.scenario.connection(), VIRKSOMHET).await
    }

    fn shorten(&self) {
        configure(&self.scenario.broker, VIRKSOMHET, &SHORT.map(|(name, value)| (name, value.to_owned())));
    }

    /// As the catalogue has it, which parts ask for when they start.
    fn lengthen(&self) {
        configure(&self.scenario.broker, VIRKSOMHET, &Catalogue::built_in().topic(VIRKSOMHET).unwrap().kafka_config());
    }

    fn segments(&self) -> std::path::PathBuf {
        self.scenario.folder.path().join("log")
    }

    /// When each period was marked, by the producer's own positions.
    async fn periods(&self) -> Vec<u64> {
        let positions = read_all(&self.scenario.connection(), SOURCE_POSITIONS).await;
        let marked = positions.iter().filter(|record| record.key.as_deref() == Some("enhetsregisteret/roll"));
        let position = |record: &LogRecord| serde_json::from_slice::<Value>(record.value.as_ref().unwrap()).unwrap()["position"].as_u64();
        marked.map(|record| position(record).unwrap()).collect()
    }

    /// `ryggrad consume` shows all records but marks.
    fn consume_shows(&self, records: &[LogRecord]) {
        let arguments = ["consume", "--kafka", &self.scenario.broker.address(), "--from", "beginning", "-o", "ndjson"];
        let (code, out, said) = command(self.scenario.folder.path(), &arguments);
        assert_eq!(code, Some(0), "{said}");
        assert!(!out.contains(ROLL_KEY), "a mark is no event");
        assert_eq!(out.lines().count(), records.iter().filter(|record| !is_mark(record)).count(), "{said}");
    }
}

fn produce(registry: &Enhetsregisteret, scenario: &Scenario, roll_interval_ms: u64) -> Process {
    let settings = format!("start = \"snapshot\"\nroll_interval_ms = {roll_interval_ms}\n[producer.snapshot]\ninterval_ms = 0");
    registry.producer(scenario, &settings, &[])
}

async fn has_all(what: &str, receiver: &Receiver, ids: &BTreeSet<String>) {
    wait::until(what, 30, || async { receiver.taken().is_superset(ids).then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_unit_reaches_nobody_and_leaves_the_brokers_files() {
    let started = Instant::now();
    let told = |what: &str| println!("{:>6.1} s  {what}", started.elapsed().as_secs_f64());
    let mut stage = Stage::set().await;
    let (owner, segments) = (stage.scenario.subscriber(ORGANISATION).await, stage.segments());
    let refusing = || Receiver::scripted(|_| (500, Vec::new()));
    let (good, down, out) = (Receiver::start().await, refusing().await, refusing().await);
    for receiver in [&good, &down, &out] {
        owner.subscribe(&receiver.sink(), "beginning").await;
    }

    // A named underenhet with several states, and another unit in its partition.
    let (removed, other) = {
        let mut found = None;
        while found.is_none() {
            stage.registry.0.change_as("edit", 30, false).await;
            conforms(&stage.scenario, &stage.registry).await;
            let underenheter = stage.registry.0.dump("underenheter").await;
            let is_underenhet = |unit: &Unit| underenheter.iter().any(|row| row["organisasjonsnummer"] == unit.number.as_str());
            let mut units = units(&stage.records().await);
            // One that a receiver that takes nothing has been tried with: it is asked to take little.
            let tried: BTreeSet<String> = down.received().iter().map(|delivery| delivery.key().to_owned()).collect();
            let is_wanted = |unit: &Unit| unit.ids.len() >= 3 && !unit.names.is_empty() && tried.contains(&unit.number);
            let place = units.iter().position(|unit| is_wanted(unit) && is_underenhet(unit));
            found = place.and_then(|place| {
                let removed = units.swap_remove(place);
                let other = units.into_iter().find(|unit| unit.partition == removed.partition)?;
                Some((removed, other))
            });
        }
        found.unwrap()
    };
    println!("to be removed: {} in partition {}, {:?}", removed.number, removed.partition, removed.names);
    for unit in [&removed, &other] {
        let files = files_in(&segments).expect("nothing is compacted yet");
        assert!(unit.needles().all(|needle| files.iter().any(|(_, bytes)| contains(bytes, needle))), "all of it stands in the log");
    }
    let being_tried = || async { (!of(&down.received(), &removed.number).is_empty()).then_some(()) };
    wait::until("its states to be in retry", 30, being_tried).await;
    told("all is published");

    // The removal, and what each receiver gets from then on.
    assert!(stage.registry.0.remove(&removed.number, false).await, "it is removed upstream");
    let removal = wait::until("the removal to be published", 30, || async {
        stage.records().await.into_iter().find(|record| record.header("ce_endringstype") == Some("FJERNET") && record.value.is_some())
    })
    .await;
    assert_eq!(removal.key.as_deref(), Some(removed.number.as_str()));
    stage.scenario.knows_removed(1).await;
    down.answer_with(|_| (204, Vec::new()));
    let late = Receiver::start().await;
    owner.subscribe(&late.sink(), "beginning").await;
    let records = stage.records().await;
    for (name, receiver) in [("good", &good), ("was down", &down), ("late", &late)] {
        let owed = || async { Owed::compare(&records, &receiver.taken()).is_settled().then_some(()) };
        wait::until(&format!("all that is owed to the receiver that is {name}"), 30, owed).await;
    }
    assert!(down.taken().is_disjoint(&removed.ids) && late.taken().is_disjoint(&removed.ids), "no older state was taken");
    told("everybody has the removal and all of the others");

    // Readers pass the marks over; there is one in every partition, and no more.
    let partitions = Catalogue::built_in().topic(VIRKSOMHET).unwrap().partitions;
    let marked: Vec<i32> = records.iter().filter(|record| is_mark(record)).map(|record| record.partition).collect();
    assert_eq!(marked, (0..partitions).collect::<Vec<_>>(), "one mark in every partition");
    assert_eq!(stage.periods().await.len(), 1);
    stage.consume_shows(&records);

    // Without marks it all stays in the segment that is being written, where no cleaner looks.
    stage.shorten();
    let gone = || async { removed.found_in(&segments)?.is_empty().then_some(()) };
    assert!(wait::held("the bytes to go without marks", 6, gone).await.is_none(), "nothing rolls an idle partition");
    println!("without marks they stay: {:?}", removed.found_in(&segments));
    stage.lengthen();
    assert_eq!(stage.producer.stop().await, Some(0));
    stage.producer = produce(&stage.registry, &stage.scenario, 1_000);
    let marks = || async { (stage.periods().await.len() > 2).then_some(()) };
    wait::until("the marks of two periods", 30, marks).await;
    told("partitions are marked every second");
    stage.shorten();
    let shortened = Instant::now();
    wait::until("the bytes to be gone", 90, gone).await;
    told(&format!("gone from the broker's files {:.1} s after the clock was shortened", shortened.elapsed().as_secs_f64()));
    // In one file, or in two while the cleaner puts one in another's place.
    assert!(!wait::until("a look at all files", 10, || async { other.found_in(&segments) }).await.is_empty(), "another unit's stay");

    // Who comes now, and who still was owed the removal, gets its tombstone.
    let newest = newest(&records);
    let ids: BTreeSet<String> = newest.values().cloned().collect();
    let later = Receiver::start().await;
    owner.subscribe(&later.sink(), "beginning").await;
    has_all("the newest of each unit to be at the later one", &later, &ids).await;
    stage.lengthen();
    stage.bridge.kill();
    stage.bridge = stage.scenario.bridge(&["--config", "bridge.toml"]);
    owner.ready().await;
    out.answer_with(|_| (204, Vec::new()));
    has_all("the newest of each unit to be at the one that was out all the time", &out, &ids).await;
    for receiver in [&later, &out] {
        let received = receiver.received();
        let taken: Vec<&Received> = of(&received, &removed.number).into_iter().filter(|delivery| delivery.status == 204).collect();
        // The bridge that told of the removal may still know its event, which holds no state; the
        // one that was started since knows the tombstone alone.
        let state = taken.first().and_then(|delivery| delivery.event["data"].get("virksomhet"));
        assert!(taken.len() == 1 && state.is_none(), "its removal and nothing else: {taken:?}");
        assert!(!std::ptr::eq(receiver, &out) || taken[0].event.get("data").is_none(), "its tombstone: {taken:?}");
    }
    told("late ones have the tombstone");
    stage.shorten();

    // The tombstone goes too. Everything else stays.
    let left = wait::until("the tombstone to be gone", 90, || async {
        let records = stage.records().await;
        (!records.iter().any(|record| record.key.as_ref() == Some(&removed.number))).then_some(records)
    })
    .await;
    told("the tombstone is gone");
    let others: BTreeMap<String, String> = newest.into_iter().filter(|(key, _)| *key != removed.number).collect();
    assert_eq!(self::newest(&left), others, "the newest state of each other unit is still there");
    for record in left.iter().filter(|record| record.value.is_some()) {
        let id = record.header("ce_id");
        let before = records.iter().find(|before| before.header("ce_id") == id && before.value.is_some()).unwrap();
        assert_eq!(before.value, record.value, "unchanged");
    }
    let last = Receiver::start().await;
    owner.subscribe(&last.sink(), "beginning").await;
    has_all("the newest of each other unit to be at the last one", &last, &others.into_values().collect()).await;

    for (name, receiver) in [("good", good), ("down", down), ("out", out), ("late", late), ("later", later), ("last", last)] {
        let received = receiver.received();
        let older = received.iter().filter(|delivery| removed.ids.contains(delivery.event["id"].as_str().unwrap()));
        let after = older.map(|delivery| delivery.at_ms - removal.timestamp_ms).max();
        println!("{name}: {} deliveries, the last older state {after:?} ms after the removal", received.len());
        assert!(after.is_none_or(|after| after < ON_ITS_WAY_MS), "{name} was sent an older state {after:?} ms after the removal");
        assert!(of(&received, ROLL_KEY).is_empty(), "{name}: a mark is no event");
    }
    let periods = stage.periods().await;
    assert!(periods.windows(2).all(|pair| pair[0] < pair[1]), "each period is marked once: {periods:?}");
    assert_eq!(removed.found_in(&stage.scenario.data()), Some(BTreeSet::new()), "producer and bridge keep nothing of it");
    assert_eq!((stage.bridge.stop().await, stage.producer.stop().await), (Some(0), Some(0)));
    told("end");
}
