//! A replay beside its subscription: together they ask no more of a receiver than the subscription alone.

#![allow(clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::sync::Arc;

use ryggrad_bridge_core::access::Caller;
use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::endpoint;
use ryggrad_bridge_core::hub::gate::GateLimits;
use ryggrad_bridge_core::hub::{Action, Guard, Hub, HubLimits, Input, MemberId, Newcomer, Wish};
use ryggrad_bridge_core::machine::{Limits, Mode, Numbering, Policy};
use ryggrad_bridge_core::outcome::Outcome;
use ryggrad_bridge_core::record::Record;
use ryggrad_bridge_core::removal::Leaving;
use ryggrad_bridge_core::retry::RetryPolicy;
use ryggrad_bridge_core::settings::{OnExhausted, Order};
use ryggrad_schemas::LogRecord;

const PLACE: Place = Place { topic: 1, partition: 0 };
const RETRY: RetryPolicy = RetryPolicy { first_ms: 100, max_ms: 2_000, probe_ms: 1_000, horizon_ms: 100_000 };
const POLICY: Policy = Policy { retry: RETRY, on_exhausted: OnExhausted::Skip, disable_after_ms: 1_000_000, dead_letters_max: 1 };
const PER_MINUTE: u32 = 120;
/// What the rate lets through at once.
const BURST: usize = 2;
const LIVE: i64 = 100;
const REPLAYED: i64 = 200;

const HUB: HubLimits = HubLimits {
    ring_bytes_max: 1_000_000,
    readers_max: 1,
    reader_records_max: 10,
    gate: GateLimits {
        in_flight_total_max: 16,
        in_flight_suspect_max: 2,
        endpoint: endpoint::Limits { in_flight_max: 8, failures_to_open: 3, open_first_ms: 100, open_max_ms: 1_000 },
    },
    live_unstored_ms_max: 500,
    unstored_ms_max: 20,
};

struct NothingRemoved;

impl Guard for NothingRemoved {
    fn withholds(&self, _: Leaving<'_>) -> bool {
        false
    }

    fn denies(&self, _: Caller, _: &Record) -> bool {
        false
    }
}

fn record(offset: i64) -> Arc<Record> {
    let headers = [("ce_id", offset.to_string().as_str()), ("ce_type", "a.b")].into_iter().collect();
    let (key, value) = (Some(format!("k{offset}")), Some(vec![0]));
    Arc::new(Record::new(PLACE, LogRecord { topic: "t".to_owned(), partition: 0, offset, timestamp_ms: 0, key, value, headers }, false))
}

fn newcomer(from: i64, attempts_per_minute_max: u32, replay: Option<MemberId>) -> Newcomer {
    Newcomer {
        held: false,
        wish: Wish {
            caller: Caller::new("312345676".parse().unwrap_or_else(|why| panic!("{why}")), None),
            types: vec!["a.*".to_owned()],
            filters: None,
            watch_list: None,
            order: Order::None,
            address: Some("https://receiver.example/".into()),
            limits: Limits {
                pending_max: 1_024,
                pending_per_key_max: 64,
                in_flight_max: 8,
                batch_events_max: 1,
                attempts_per_minute_max: Some(attempts_per_minute_max),
            },
            policy: POLICY,
            mode: Mode::Running,
        },
        numbering: Numbering { epoch: 1, next: 1 },
        cursors: vec![(PLACE, Cursor::starting_at(from))],
        dead_letters: 0,
        until: replay.map(|_| BTreeMap::from([(PLACE, REPLAYED)])),
        owner: replay,
    }
}

/// A receiver that takes everything at once. When each attempt was made, and whose it was.
fn run(hub: &mut Hub, mut actions: Vec<Action>) -> Vec<(u64, MemberId)> {
    let (mut now_ms, mut made) = (0, Vec::new());
    loop {
        let mut next = Vec::new();
        for action in actions.drain(..) {
            if let Action::Attempt { member, address, attempt, .. } = action {
                made.push((now_ms, member));
                let input = Input::Attempted { member, address, attempt, outcome: Outcome::Delivered, answered: true, entropy: 0 };
                hub.step(now_ms, input, &mut next);
            }
        }
        if hub.take_commit(now_ms, true).is_some() {
            hub.step(now_ms, Input::Persisted, &mut next);
        } else if next.is_empty() {
            match hub.wake_at_ms() {
                Some(due_ms) if now_ms < 600_000 => now_ms = due_ms.max(now_ms),
                _ => return made,
            }
            hub.step(now_ms, Input::Tick, &mut next);
            // The tail's position is stored again and again: that alone would never end.
            if next.is_empty() {
                now_ms += 1;
            }
        }
        actions = next;
    }
}

#[test]
fn a_replay_counts_against_its_subscriptions_rate_and_goes_last() {
    // The replay's own rate is higher, equal, lower.
    for own_rate in [6_000, PER_MINUTE, 60] {
        let mut hub = Hub::new(HUB, Box::new(NothingRemoved), [(PLACE, 0)]);
        let mut actions = Vec::new();
        hub.step(0, Input::Tail((0..REPLAYED).map(record).collect()), &mut actions);
        let live = hub.add(0, newcomer(REPLAYED - LIVE, PER_MINUTE, None), &mut actions);
        let replay = hub.add(0, newcomer(0, own_rate, Some(live)), &mut actions);
        let made = run(&mut hub, actions);
        let count = |whose: MemberId| made.iter().filter(|(_, member)| *member == whose).count() as i64;
        assert_eq!((count(live), count(replay)), (LIVE, REPLAYED), "{own_rate}: all of it is delivered");
        for (first, (from_ms, _)) in made.iter().enumerate() {
            let within = made[first..].iter().take_while(|(at_ms, _)| *at_ms < from_ms + 60_000).count();
            assert!(within <= PER_MINUTE as usize + BURST, "{own_rate}: {within} attempts in the minute from {from_ms} ms on");
        }
        let last_live = made.iter().rposition(|(_, member)| *member == live).unwrap_or_default();
        let before = made[..last_live].iter().filter(|(_, member)| *member == replay).count();
        assert!(before <= BURST, "{own_rate}: {before} of the replay went before what is live");
        let least_ms =
            (REPLAYED as u64 * 60_000 / u64::from(own_rate.min(PER_MINUTE))).max((LIVE + REPLAYED) as u64 * 60_000 / u64::from(PER_MINUTE));
        let took_ms = made.last().map_or(0, |(at_ms, _)| *at_ms);
        assert!(took_ms <= least_ms + LIVE as u64 * 500 + 1_000, "{own_rate}: {took_ms} ms, which wastes what the rate allows");
    }
}
