//! Dumps at full scale: memory, exactness, and torn files. A million units with
//! `./ryggrad test --full`, some thousands otherwise.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Instant;

use rand::Rng;
use ryggrad_log::scan;
use ryggrad_tests::process::{Process, command, free_port};
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::topic::VIRKSOMHET;
use ryggrad_tests::{full, random, wait};
use serde_json::Value;

const MEMORY_MIB_MAX: u64 = 300;
const TRUNCATIONS: usize = 20;

/// What the topic holds: records by endringstype; a tombstone counts for nothing.
type Counts = BTreeMap<String, u64>;

#[tokio::test(flavor = "multi_thread")]
async fn dumps_of_any_size_are_published_exactly_in_bounded_memory() {
    let mut random = random::seeded("dumps_of_any_size_are_published_exactly_in_bounded_memory");
    let units = if full() { 1_000_000 } else { 20_000 };
    let scenario = Scenario::start().await;
    let stage = Stage { scenario: &scenario };

    let first = stage.dump("first", units, &[]);
    stage.read_once("first", Some(0)).await;
    let published = stage.counts().await;
    assert_eq!(published, Counts::from([("NY".to_owned(), first["rows"].as_u64().unwrap())]));

    stage.read_once("first", Some(0)).await;
    assert_eq!(stage.counts().await, published, "an unchanged dump publishes nothing");

    let changed = stage.dump("changed", units, &["--changed", "0.01"]);
    stage.read_once("changed", Some(0)).await;
    let after_change = stage.counts().await;
    for (endringstype, what) in [("NY", "created"), ("ENDRET", "edited"), ("SLETTET", "deleted")] {
        let more = of(&after_change, endringstype) - of(&published, endringstype);
        assert_eq!(Some(more), changed[what].as_u64(), "{endringstype} of {changed}");
    }

    for truncation in 1..=TRUNCATIONS {
        let whole = fs::read(stage.path("changed")).unwrap();
        let bytes = random.random_range(1..whole.len());
        fs::write(stage.path("torn"), &whole[..bytes]).unwrap();
        stage.read_once("torn", Some(1)).await;
        println!("truncation {truncation} at byte {bytes} of {}", whole.len());
    }
    assert_eq!(stage.counts().await, after_change, "a torn dump deletes nothing, and had nothing new");

    // The same units as in the changed dump, and each has one field more.
    let wider = stage.dump("wider", units, &["--changed", "0.01", "--new-field", "nyttFelt"]);
    stage.read_once("wider", Some(0)).await;
    let more = of(&stage.counts().await, "ENDRET") - of(&after_change, "ENDRET");
    assert_eq!(Some(more), wider["rows"].as_u64(), "each unit has changed");
}

fn of(counts: &Counts, endringstype: &str) -> u64 {
    counts.get(endringstype).copied().unwrap_or_default()
}

struct Stage<'a> {
    scenario: &'a Scenario,
}

impl Stage<'_> {
    fn folder(&self) -> &Path {
        self.scenario.folder.path()
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder().join(format!("{name}.json.gz"))
    }

    /// Makes a dump; what is in it.
    fn dump(&self, name: &str, units: u32, arguments: &[&str]) -> Value {
        let (units, file) = (units.to_string(), format!("{name}.json.gz"));
        let own = ["simulate", "dump", "--kind", "enheter", "--units", &units, "--seed", "7", "--out", &file, "--json"];
        let (code, said, errors) = command(self.folder(), &[&own[..], arguments].concat());
        assert_eq!(code, Some(0), "{errors}");
        println!("{name}: {}", said.trim());
        serde_json::from_str(&said).unwrap()
    }

    /// Reads a dump once; how it must end, and in how much memory.
    async fn read_once(&self, name: &str, expected: Option<i32>) {
        fs::write(self.path("none"), "[]").unwrap();
        fs::write(self.folder().join("producer.toml"), "[producer.snapshot]\nconfirm_deletions = false\n").unwrap();
        let (kafka, listen) = (self.scenario.broker.address(), format!("127.0.0.1:{}", free_port()));
        let dump = format!("enheter={name}.json.gz");
        let arguments = [
            "produce",
            "--config",
            "producer.toml",
            "--kafka",
            &kafka,
            "--data",
            "data",
            "--listen",
            &listen,
            "--snapshots",
            "--once",
            "--dump",
            &dump,
            "--dump",
            "underenheter=none.json.gz",
        ];
        let started = Instant::now();
        let mut producer = Process::start(self.folder(), "producer", &arguments);
        let mut peak_mib = 0;
        let code = wait::until("the end of the producer", 900, || {
            peak_mib = producer.peak_memory_mib().unwrap_or(peak_mib).max(peak_mib);
            let ended = producer.ended();
            async move { ended }
        })
        .await;
        println!("{name} was read in {:.1} s with {peak_mib} MiB at most", started.elapsed().as_secs_f64());
        assert_eq!(code, expected, "{}", producer.said());
        assert!(peak_mib <= MEMORY_MIB_MAX, "{peak_mib} MiB");
    }

    async fn counts(&self) -> Counts {
        scan(&self.scenario.connection(), VIRKSOMHET, Counts::new(), |counts, record| {
            if record.value().is_some() {
                *counts.entry(record.header("ce_endringstype").unwrap_or_default().to_owned()).or_default() += 1;
            }
            Ok(())
        })
        .await
        .unwrap()
    }
}
