//! `ryggrad sources` as an operator uses it: what was set aside is seen, repaired and published in
//! order; feeds are reset; comparisons are asked for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeSet;

use ryggrad_tests::conformance::enhetsregisteret::Enhetsregisteret;
use ryggrad_tests::conformance::{Ledger, Registry, conforms};
use ryggrad_tests::process::{Process, command};
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::wait;
use serde_json::{Value, json};

const QUIET: &str = "start = \"snapshot\"\nlook_up_attempts_max = 1\n[producer.snapshot]\ninterval_ms = 0\nsilent_after_ms = 100\n";

struct Stage {
    scenario: Scenario,
    registry: Enhetsregisteret,
    producer: Process,
}

impl Stage {
    async fn set() -> Self {
        let scenario = Scenario::start().await;
        let registry = Enhetsregisteret::open(&scenario, 60, 0).await;
        let producer = registry.producer(&scenario, QUIET, &[]);
        let stage = Self { scenario, registry, producer };
        conforms(&stage.scenario, &stage.registry).await;
        stage
    }

    fn sources(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let kafka = self.scenario.broker.address();
        let own = ["sources", "--kafka", &kafka, "--data", "data", "-o", "ndjson"];
        command(self.scenario.folder.path(), &[&own[..], arguments].concat())
    }

    fn rows(&self, arguments: &[&str]) -> Vec<Value> {
        let (code, said, errors) = self.sources(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    async fn ledger(&self) -> Ledger {
        Ledger::read::<Enhetsregisteret>(&self.scenario).await
    }

    async fn set_aside(&self, count: usize) -> Vec<Value> {
        wait::until("entries in the quarantine", 60, || async {
            let rows = self.rows(&["quarantine"]);
            (rows.len() >= count).then_some(rows)
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_set_aside_is_shown_repaired_and_published_in_order() {
    let stage = Stage::set().await;
    // Documents of another unit, and items without a usable number.
    stage.registry.0.fault(json!({"on": "lookup", "kind": "malformed", "count": 2})).await;
    stage.registry.change_of("edit", 2, false).await;
    stage.set_aside(2).await;
    stage.registry.0.fault(json!({"on": "feed", "kind": "malformed", "count": 1})).await;
    stage.registry.change_of("edit", 2, false).await;
    let set_aside = stage.set_aside(3).await;
    let before = stage.ledger().await;
    let (code, _, _) = stage.sources(&["quarantine", "--reveal", &set_aside[0]["offset"].to_string()]);
    assert_eq!(code, Some(0));
    let listed = stage.rows(&["list"]);
    assert_eq!(listed.iter().filter_map(|row| row["quarantined"].as_u64()).sum::<u64>(), set_aside.len() as u64, "{listed:?}");

    let mut repaired = BTreeSet::new();
    for entry in &set_aside {
        let offset = entry["offset"].to_string();
        if entry["subject"].is_string() {
            let (code, _, errors) = stage.sources(&["repair", &offset]);
            assert_eq!(code, Some(0), "{errors}");
        } else {
            let (code, _, errors) = stage.sources(&["repair", &offset]);
            assert_eq!(code, Some(3), "without a key it is refused");
            assert!(errors.contains("--key"), "{errors}");
            // Whose change it was is known upstream: the unit that still differs.
            let truth = stage.registry.truth().await;
            let found = stage.ledger().await.state::<Enhetsregisteret>();
            let differing = truth.iter().find(|(key, document)| found.get(*key) != Some(&Enhetsregisteret::reduced(document)));
            let key = differing.expect("the unit that was set aside differs").0.clone();
            let (code, _, errors) = stage.sources(&["repair", &offset, "--key", &key]);
            assert_eq!(code, Some(0), "{errors}");
        }
        repaired.insert(entry["position"].to_string());
        let (code, _, errors) = stage.sources(&["repair", &offset]);
        assert_eq!(code, Some(3), "it is repaired once: {errors}");
    }
    assert!(stage.rows(&["quarantine"]).is_empty());
    let after = conforms(&stage.scenario, &stage.registry).await;
    let new: BTreeSet<String> = after.events[..].iter().map(|event| event.cause.1.clone()).collect();
    let old: BTreeSet<String> = before.events.iter().map(|event| event.cause.1.clone()).collect();
    assert_eq!(&new - &old, repaired, "each is published at its own position");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_was_set_aside_is_dismissed_after_a_comparison() {
    let scenario = Scenario::start().await;
    let registry = Enhetsregisteret::open(&scenario, 60, 0).await;
    registry.0.fault(json!({"on": "dump", "kind": "malformed", "shape": "no-number", "list": "enheter"})).await;
    let producer = registry.producer(&scenario, QUIET, &[]);
    let stage = Stage { scenario, registry, producer };
    let entry = stage.set_aside(1).await.remove(0);
    let offset = entry["offset"].to_string();
    let (code, _, errors) = stage.sources(&["repair", &offset]);
    assert_eq!(code, Some(3));
    assert!(errors.contains("reconcile"), "{errors}");
    let (code, _, errors) = stage.sources(&["reconcile"]);
    assert_eq!(code, Some(0), "{errors}");
    conforms(&stage.scenario, &stage.registry).await;
    let (code, _, errors) = stage.sources(&["repair", "--dismiss", &offset]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(stage.rows(&["quarantine"]).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_feed_is_read_again_from_where_it_is_reset_to_though_the_producer_was_down() {
    let mut stage = Stage::set().await;
    stage.registry.change_of("edit", 6, false).await;
    conforms(&stage.scenario, &stage.registry).await;
    let told = stage.registry.told().await;
    let (feed, position, _) = told.iter().rev().find(|(feed, _, _)| feed.ends_with("/enheter")).unwrap();
    let again = |ledger: &Ledger| ledger.events.iter().filter(|event| event.cause == (feed.clone(), position.clone())).count();
    assert_eq!(again(&stage.ledger().await), 1);
    stage.producer.kill();
    let (code, _, errors) = stage.sources(&["reset", "enhetsregisteret", "enheter", "--to", position, "--wait-s", "1"]);
    assert!(code == Some(1) && errors.contains("ryggrad produce"), "{code:?}: {errors}");
    stage.producer = stage.registry.producer(&stage.scenario, QUIET, &[]);
    wait::until("the item to be published again", 30, || async { (again(&stage.ledger().await) == 2).then_some(()) }).await;
    let (code, _, errors) = stage.sources(&["reset", "enhetsregisteret", "nothing", "--to", "1"]);
    assert!(code == Some(3) && errors.contains("there are enheter, underenheter"), "{code:?}: {errors}");
    let shown = stage.rows(&["show"]).remove(0);
    assert_eq!(shown["feeds"][0]["feed"], "enheter", "{shown}");
}
