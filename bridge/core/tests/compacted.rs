//! The machine where compaction took what was pending: nobody may miss that a key is gone.

use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Place};
use ryggrad_bridge_core::machine::{Action, Input, Limits, Machine, Mode, Verdict};
use ryggrad_bridge_core::outcome::Outcome;
use ryggrad_bridge_core::retry::RetryPolicy;

const PLACE: Place = Place { topic: 1, partition: 0 };
const RETRY: RetryPolicy = RetryPolicy { first_ms: 100, max_ms: 2_000, probe_ms: 1_000 };

fn machine(cursor: Cursor) -> Machine {
    Machine::new(Limits::default(), RETRY, Mode::Running, [(PLACE, cursor)])
}

fn read(machine: &mut Machine, records: &[(i64, &str, Verdict)]) -> Vec<i64> {
    let mut actions = Vec::new();
    for (offset, key, verdict) in records {
        let lane = LaneKey::of(key);
        machine.step(0, Input::Record { place: PLACE, offset: *offset, lane, verdict: *verdict }, &mut actions);
    }
    actions.iter().filter_map(|action| if let Action::Attempt { offset, .. } = action { Some(*offset) } else { None }).collect()
}

/// A key's state at 1, its end at 3 with the echo at 4, another key's at 2 and 5; all but the first
/// key's were settled.
fn left() -> Cursor {
    let mut cursor = Cursor::starting_at(0);
    cursor.scanned_to = 6;
    cursor.pending = [1, 3].into();
    cursor
}

#[test]
fn a_tombstone_takes_the_place_of_its_pending_event() {
    let mut machine = machine(left());
    assert_eq!(read(&mut machine, &[(4, "a", Verdict::Orphan), (5, "b", Verdict::Wanted)]), [4], "once, and nobody else's");
    let mut actions = Vec::new();
    machine.step(0, Input::AtEnd { place: PLACE }, &mut actions);
    assert_eq!((machine.pending(), machine.compacted()), (1, 1), "the state is gone, its end is not");
    let lane = LaneKey::of("a");
    machine.step(0, Input::Attempted { place: PLACE, offset: 4, lane, outcome: Outcome::Delivered, entropy: 0 }, &mut actions);
    assert_eq!((machine.pending(), machine.delivered()), (0, 1));
}

#[test]
fn it_stays_settled_where_its_event_was_or_is_still_held() {
    let mut settled = left();
    settled.pending = [1].into();
    assert_eq!(read(&mut machine(settled), &[(4, "a", Verdict::Orphan)]), [0_i64; 0], "the event was delivered before");
    let mut held = machine(left());
    let attempts = read(&mut held, &[(1, "a", Verdict::Wanted), (3, "a", Verdict::Wanted), (4, "a", Verdict::Orphan)]);
    assert_eq!((attempts.as_slice(), held.pending()), (&[1][..], 2), "the event itself is delivered");
}
