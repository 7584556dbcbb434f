//! The machine where compaction took what was pending: nobody may miss that a key is gone.

use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Pending, Place};
use ryggrad_bridge_core::machine::{Action, Delivery, Input, Limits, Machine, Mode, Numbering, Policy, Verdict};
use ryggrad_bridge_core::outcome::Outcome;
use ryggrad_bridge_core::retry::RetryPolicy;
use ryggrad_bridge_core::settings::OnExhausted;

const PLACE: Place = Place { topic: 1, partition: 0 };
const RETRY: RetryPolicy = RetryPolicy { first_ms: 100, max_ms: 2_000, probe_ms: 1_000, horizon_ms: 100_000 };
const POLICY: Policy = Policy { retry: RETRY, on_exhausted: OnExhausted::Block, disable_after_ms: 1_000_000, dead_letters_max: 1 };
const LIMITS: Limits =
    Limits { pending_max: 1_024, pending_per_key_max: 64, in_flight_max: 16, batch_events_max: 1, attempts_per_minute_max: None };

fn machine(cursor: Cursor) -> Machine {
    Machine::new(LIMITS, POLICY, Mode::Running, Numbering { epoch: 1, next: 10 }, [(PLACE, cursor)])
}

/// Steps, persists all, and says what was attempted: offset, number, and whether as a notice.
fn step(machine: &mut Machine, inputs: &[Input]) -> Vec<(i64, u64, bool)> {
    let mut actions = Vec::new();
    for input in inputs {
        machine.step(0, *input, &mut actions);
    }
    while machine.take_commit().is_some() {
        machine.step(0, Input::Persisted, &mut actions);
    }
    let attempts =
        actions.into_iter().filter_map(|action| if let Action::Attempt { deliveries, .. } = action { Some(deliveries) } else { None });
    attempts.flatten().map(|Delivery { offset, number, void, .. }| (offset, number, void)).collect()
}

fn record(offset: i64, key: &str, verdict: Verdict) -> Input {
    Input::Record { place: PLACE, offset, lane: LaneKey::of(key), verdict }
}

/// A key's state at 1, its end at 3 with the echo at 4, another key's at 2 and 5; all but the first
/// key's were settled.
fn left() -> Cursor {
    let pending = |number| Pending { number, void: false };
    Cursor { scanned_to: 6, pending: [(1, pending(1)), (3, pending(3))].into(), ..Cursor::starting_at(0) }
}

#[test]
fn a_tombstone_takes_the_place_of_its_pending_event() {
    let mut machine = machine(left());
    let attempts = step(&mut machine, &[record(4, "a", Verdict::Orphan), record(5, "b", Verdict::Wanted)]);
    assert_eq!(attempts, [(3, 3, true), (4, 10, false)], "once, under a number of its own, and nobody else's");
    let attempts = step(&mut machine, &[Input::Passed { place: PLACE, to: 6 }]);
    assert_eq!(attempts, [(1, 1, true)], "the state is gone, and its number is closed");
    assert_eq!((machine.pending(), machine.compacted()), (3, 2));
    for attempt in 1..=3 {
        step(&mut machine, &[Input::Attempted { attempt, outcome: Outcome::Delivered, entropy: 0 }]);
    }
    assert_eq!((machine.pending(), machine.delivered(), machine.voided()), (0, 1, 2));
}

#[test]
fn it_stays_settled_where_its_event_was_or_is_still_held() {
    let mut settled = left();
    settled.pending.remove(&3);
    assert_eq!(step(&mut machine(settled), &[record(4, "a", Verdict::Orphan)]), [], "the event was delivered before");
    let mut held = machine(left());
    let records = [record(1, "a", Verdict::Wanted), record(3, "a", Verdict::Wanted), record(4, "a", Verdict::Orphan)];
    assert_eq!((step(&mut held, &records), held.pending()), (vec![(1, 1, false)], 2), "the event itself is delivered");
}
