//! What every source must hold: one table of cases, for every registry.
//!
//! Bootstrap while changes go on, kills at random moments, pages and dumps in every bad shape,
//! silent changes, quarantine. After each case the topic says what upstream says, nothing is
//! lost, nothing stands there twice, each key is in order, and nothing that lives was deleted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeSet;

use rand::Rng;
use ryggrad_tests::conformance::enhetsregisteret::Enhetsregisteret;
use ryggrad_tests::conformance::{Ledger, Registry, Trouble, conforms, conforms_to_feed};
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::{random, wait};

/// Follows from the beginning of the last two hours, compares often, and gives the feed a moment.
const FOLLOWS: &str = "start = \"snapshot\"\n[producer.snapshot]\ninterval_ms = 1000\nsilent_after_ms = 300\n";
/// The same without comparisons.
const FEED_ALONE: &str = "start = \"snapshot\"\n[producer.snapshot]\ninterval_ms = 0\n";
/// Follows no feed.
const DUMPS_ALONE: &str = "follow = \"snapshots\"\n[producer.snapshot]\ninterval_ms = 500\n";

macro_rules! conformance {
    ($registry:ident: $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                cases::$case::<$registry>().await;
            }
        )+
    };
}

conformance! {
    Enhetsregisteret:
    bootstrap_while_changes_go_on,
    kills_at_random_moments,
    bad_pages_and_rate_limits_move_no_position,
    torn_and_shrunken_dumps_delete_nothing,
    silent_changes_are_found,
    a_feed_that_lags_is_not_called_silent,
    an_old_dump_overwrites_and_deletes_nothing_newer,
    dumps_alone_publish_exactly_what_differs,
    a_bad_row_is_quarantined_and_stops_nothing,
}

mod cases {
    use super::*;

    pub async fn bootstrap_while_changes_go_on<R: Registry>() {
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 800, 100).await;
        let _producer = registry.producer(&scenario, FEED_ALONE, &[]);
        bootstrapped::<R>(&scenario, 1_000).await;
        registry.pause().await;
        let ledger = conforms_to_feed(&scenario, &registry).await;
        assert!(ledger.count("avstemming", "NY") >= 500, "the dump was published");
        assert!(ledger.count("feed", "ENDRET") > 0, "the feed was followed");
    }

    pub async fn kills_at_random_moments<R: Registry>() {
        let mut random = random::seeded("kills_at_random_moments");
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 600, 60).await;
        for kill in 1..=12 {
            let mut producer = registry.producer(&scenario, FOLLOWS, &[]);
            let alive_ms = random.random_range(50..1_800);
            registry.change(3, true).await;
            wait::random_moment(alive_ms).await;
            producer.kill();
            println!("kill {kill} after {alive_ms} ms");
        }
        registry.pause().await;
        let _producer = registry.producer(&scenario, FOLLOWS, &[]);
        conforms_to_feed(&scenario, &registry).await;
    }

    pub async fn bad_pages_and_rate_limits_move_no_position<R: Registry>() {
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 100, 0).await;
        // Small pages, so that there are pages behind pages.
        let _producer = registry.producer(&scenario, &format!("page_items_max = 10\n{FEED_ALONE}"), &[]);
        bootstrapped::<R>(&scenario, 50).await;
        for trouble in [Trouble::OverlappingPage, Trouble::EmptyPage, Trouble::Html, Trouble::TooManyRequests, Trouble::Unavailable] {
            registry.change(20, false).await;
            registry.trouble(trouble, 2).await;
            // A fault strikes only where it can be seen.
            wait::until("the trouble to have struck", 60, || async {
                registry.change(30, false).await;
                (registry.trouble_left().await == 0).then_some(())
            })
            .await;
            conforms_to_feed(&scenario, &registry).await;
            println!("{trouble:?} was survived");
        }
    }

    pub async fn torn_and_shrunken_dumps_delete_nothing<R: Registry>() {
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 400, 0).await;
        let mut producer = registry.producer(&scenario, FOLLOWS, &[]);
        bootstrapped::<R>(&scenario, 300).await;
        for trouble in [Trouble::TornDump, Trouble::TornJson, Trouble::ShrunkenDump, Trouble::EmptyDump, Trouble::NoDump] {
            registry.trouble(trouble, 3).await;
            has_struck(&registry).await;
            assert!(producer.runs());
            let ledger = conforms(&scenario, &registry).await;
            assert_eq!(ledger.count("avstemming", "SLETTET"), 0, "{trouble:?} deleted");
        }
        producer.kill();
        // The same where only dumps are known and nobody is asked.
        let alone = format!("{DUMPS_ALONE}confirm_deletions = false\n");
        registry.trouble(Trouble::TornDump, 6).await;
        registry.trouble(Trouble::TornJson, 2).await;
        let _producer = registry.producer(&scenario, &alone, &[]);
        has_struck(&registry).await;
        assert_eq!(conforms(&scenario, &registry).await.count("avstemming", "SLETTET"), 0);
    }

    pub async fn silent_changes_are_found<R: Registry>() {
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 300, 20).await;
        let _producer = registry.producer(&scenario, FOLLOWS, &[]);
        bootstrapped::<R>(&scenario, 200).await;
        registry.pause().await;
        conforms_to_feed(&scenario, &registry).await;
        for (kind, endringstype) in [("edit", "ENDRET"), ("creation", "NY"), ("deletion", "SLETTET"), ("removal", "FJERNET")] {
            let before = Ledger::read::<R>(&scenario).await.count("avstemming", endringstype);
            // The same unit may be struck twice.
            let changed: BTreeSet<String> = registry.change_of(kind, 3, true).await.into_iter().collect();
            let ledger = conforms(&scenario, &registry).await;
            assert_eq!(ledger.count("avstemming", endringstype) - before, changed.len(), "{kind} of {changed:?}");
        }
    }

    pub async fn a_feed_that_lags_is_not_called_silent<R: Registry>() {
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 200, 0).await;
        let patient = FOLLOWS.replace("silent_after_ms = 300", "silent_after_ms = 4000");
        let _producer = registry.producer(&scenario, &patient, &[]);
        bootstrapped::<R>(&scenario, 150).await;
        registry.feed_lag_ms(2_000).await;
        for _ in 0..5 {
            registry.change(10, false).await;
            wait::random_moment(700).await;
        }
        let ledger = conforms_to_feed(&scenario, &registry).await;
        let called_silent = ledger.events.iter().filter(|event| event.funnet == "avstemming" && event.endringstype != "NY").count();
        assert_eq!(called_silent, 0, "the feed told all of it, only late");
    }

    pub async fn an_old_dump_overwrites_and_deletes_nothing_newer<R: Registry>() {
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 300, 0).await;
        registry.freeze_dumps(true).await;
        registry.change(120, false).await;
        let mut producer = registry.producer(&scenario, FEED_ALONE, &[]);
        bootstrapped::<R>(&scenario, 200).await;
        registry.change(60, false).await;
        conforms_to_feed(&scenario, &registry).await;
        producer.kill();
        // The old dump again, compared with a topic that knows better.
        let _producer = registry.producer(&scenario, FOLLOWS, &[]);
        registry.change(30, false).await;
        conforms_to_feed(&scenario, &registry).await;
    }

    pub async fn dumps_alone_publish_exactly_what_differs<R: Registry>() {
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 400, 0).await;
        let once = |settings: &str| registry.producer(&scenario, settings, &["--once"]);
        assert_eq!(once(DUMPS_ALONE).exit_code(60).await, Some(0));
        let first = conforms(&scenario, &registry).await;
        assert_eq!(once(DUMPS_ALONE).exit_code(60).await, Some(0));
        assert_eq!(Ledger::read::<R>(&scenario).await.events.len(), first.events.len(), "an unchanged dump publishes nothing");
        let before = registry.truth().await;
        for kind in ["edit", "creation", "deletion"] {
            registry.change_of(kind, 4, true).await;
        }
        let after = registry.truth().await;
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        let changed = keys.into_iter().filter(|key| before.get(*key) != after.get(*key)).count();
        assert_eq!(once(DUMPS_ALONE).exit_code(60).await, Some(0));
        let second = conforms(&scenario, &registry).await;
        assert_eq!(second.events.len() - first.events.len(), changed, "exactly what changed is published");
        registry.trouble(Trouble::TornDump, 8).await;
        assert_eq!(once(DUMPS_ALONE).exit_code(60).await, Some(1), "a torn dump is told");
    }

    pub async fn a_bad_row_is_quarantined_and_stops_nothing<R: Registry>() {
        let scenario = Scenario::start().await;
        let registry = R::open(&scenario, 200, 0).await;
        registry.trouble(Trouble::MalformedRow, 2).await;
        let _producer = registry.producer(&scenario, FOLLOWS, &[]);
        let ledger = conforms(&scenario, &registry).await;
        assert_eq!(ledger.count("avstemming", "SLETTET"), 0);
    }

    async fn has_struck<R: Registry>(registry: &R) {
        wait::until("the trouble to have struck", 60, || async { (registry.trouble_left().await == 0).then_some(()) }).await;
    }

    async fn bootstrapped<R: Registry>(scenario: &Scenario, events_min: usize) {
        wait::until("the first events", 60, || async { (Ledger::read::<R>(scenario).await.events.len() >= events_min).then_some(()) })
            .await;
    }
}
