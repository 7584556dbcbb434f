//! What a table tells better than the simulation: one behaviour each, step by step.

use std::collections::BTreeMap;

use super::*;
use crate::cursor::{Collapsed, Pending};
use crate::outcome::Outcome;
use crate::retry::RetryPolicy;
use crate::settings::OnExhausted;

const PLACE: Place = Place { topic: 1, partition: 0 };
const RETRY: RetryPolicy = RetryPolicy { first_ms: 100, max_ms: 1_000, probe_ms: 5_000, horizon_ms: 10_000 };
const POLICY: Policy = Policy { retry: RETRY, on_exhausted: OnExhausted::Block, disable_after_ms: 1_000_000, dead_letters_max: 10 };
const LIMITS: Limits =
    Limits { pending_max: 64, pending_per_key_max: 8, in_flight_max: 4, batch_events_max: 1, attempts_per_minute_max: None };

/// A machine with a shell that persists at once, and the attempts that are under way.
struct Shell {
    machine: Machine,
    now_ms: u64,
    attempts: BTreeMap<u64, Vec<Delivery>>,
    letters: Vec<DeadLetter>,
    others: Vec<Action>,
}

impl Shell {
    fn new(limits: Limits, policy: Policy, cursor: Cursor) -> Self {
        let numbering = Numbering { epoch: 1, next: cursor.pending.values().map(|pending| pending.number + 1).max().unwrap_or(1) };
        let machine = Machine::new(limits, policy, Mode::Running, numbering, [(PLACE, cursor)]);
        Self { machine, now_ms: 0, attempts: BTreeMap::new(), letters: Vec::new(), others: Vec::new() }
    }

    fn fresh(limits: Limits, policy: Policy) -> Self {
        Self::new(limits, policy, Cursor::starting_at(0))
    }

    fn step(&mut self, input: Input) {
        let mut actions = Vec::new();
        self.machine.step(self.now_ms, input, &mut actions);
        for action in actions {
            match action {
                Action::Attempt { attempt, deliveries } => drop(self.attempts.insert(attempt, deliveries)),
                Action::Keep { .. } | Action::Forget { .. } => {}
                other => self.others.push(other),
            }
        }
    }

    fn persist(&mut self) {
        while let Some(commit) = self.machine.take_commit() {
            self.letters.extend(commit.dead_letters);
            self.step(Input::Persisted);
        }
    }

    fn read(&mut self, offset: i64, key: &str) {
        self.step(Input::Record { place: PLACE, offset, lane: LaneKey::of(key), verdict: Verdict::Wanted });
        self.persist();
    }

    fn end(&mut self, attempt: u64, outcome: Outcome) {
        self.attempts.remove(&attempt).unwrap();
        self.step(Input::Attempted { attempt, outcome, entropy: 99 });
        self.persist();
    }

    fn wait(&mut self, ms: u64) {
        self.now_ms += ms;
        self.step(Input::Tick);
        self.persist();
    }

    /// Offsets of what is under way, void ones negative, by attempt.
    fn under_way(&self) -> Vec<(u64, Vec<i64>)> {
        let offsets = |deliveries: &Vec<Delivery>| deliveries.iter().map(|one| if one.void { -one.offset } else { one.offset }).collect();
        self.attempts.iter().map(|(attempt, deliveries)| (*attempt, offsets(deliveries))).collect()
    }

    fn flat(&self) -> Vec<i64> {
        self.under_way().into_iter().flat_map(|(_, offsets)| offsets).collect()
    }

    fn last(&self) -> u64 {
        *self.attempts.last_key_value().unwrap().0
    }

    fn cursor(&self) -> Cursor {
        self.machine.cursors().next().unwrap().1.clone()
    }
}

fn lane(key: &str) -> LaneKey {
    LaneKey::of(key)
}

#[test]
fn nothing_leaves_before_its_number_is_on_disk() {
    let mut shell = Shell::fresh(LIMITS, POLICY);
    let record = |offset, key| Input::Record { place: PLACE, offset, lane: lane(key), verdict: Verdict::Wanted };
    shell.step(record(1, "a"));
    let commit = shell.machine.take_commit().unwrap();
    assert_eq!(commit.numbering, Some(Numbering { epoch: 1, next: 2 }));
    assert_eq!(commit.cursors[0].1.pending, [(1, Pending { number: 1, void: false })].into());
    shell.step(record(2, "b"));
    assert!(shell.attempts.is_empty() && shell.machine.take_commit().is_none() && shell.machine.has_changes());
    shell.step(Input::Persisted);
    assert_eq!(shell.flat(), [1]);
    shell.persist();
    assert_eq!(shell.flat(), [1, 2]);
    assert!(!shell.machine.has_changes());
    // Settled, and its place is taken until that is on disk.
    let room = shell.machine.room();
    shell.step(Input::Attempted { attempt: 1, outcome: Outcome::Delivered, entropy: 0 });
    assert_eq!((shell.machine.pending(), shell.machine.room()), (1, room));
    shell.persist();
    assert_eq!(shell.machine.room(), room + 1);
    // What nobody knows of, or knows of no more, changes nothing.
    shell.step(Input::Attempted { attempt: 1, outcome: Outcome::Delivered, entropy: 0 });
    shell.step(Input::Attempted { attempt: 77, outcome: Outcome::Delivered, entropy: 0 });
    assert_eq!((shell.machine.delivered(), shell.machine.in_flight()), (1, 1));
}

/// A reading that starts at a tombstone takes it for an echo of the event before it.
#[test]
fn a_lane_left_to_the_log_at_a_tombstone_whose_event_is_gone_is_read_again_from_before_it() {
    for (verdict, mark) in [(Verdict::Wanted, 4), (Verdict::Orphan, 3)] {
        let mut shell = Shell::fresh(LIMITS, POLICY);
        shell.read(1, "a");
        shell.end(1, Outcome::Failed);
        shell.step(Input::Record { place: PLACE, offset: 5, lane: lane("a"), verdict });
        assert_eq!(shell.cursor().collapsed, [(lane("a"), Collapsed { mark, parked: false })].into(), "{verdict:?}");
    }
}

#[test]
fn a_lane_goes_in_order_and_a_failing_one_is_left_to_the_log() {
    let mut shell = Shell::fresh(LIMITS, POLICY);
    (1..=2).for_each(|offset| shell.read(offset, "a"));
    shell.read(3, "b");
    assert_eq!(shell.flat(), [1, 3]);
    shell.end(1, Outcome::Failed);
    assert!(shell.machine.accepts(PLACE, 4, lane("a"), 0));
    (4..=6).for_each(|offset| shell.read(offset, "a"));
    assert_eq!(shell.cursor().collapsed, [(lane("a"), Collapsed { mark: 3, parked: false })].into());
    assert_eq!((shell.machine.pending(), shell.machine.waiting().next().unwrap().offset), (3, 1));
    shell.wait(100);
    assert_eq!(shell.flat(), [3, 1]);
    shell.end(shell.last(), Outcome::Delivered);
    assert_eq!((shell.flat(), shell.others.len()), (vec![3, 2], 1), "down to a quarter: the rest is read again");
    assert_eq!(shell.machine.read_from(PLACE), 4);
    (4..=6).for_each(|offset| shell.read(offset, "a"));
    shell.step(Input::Passed { place: PLACE, to: 7 });
    assert!(shell.cursor().collapsed.is_empty() && !shell.machine.is_rescanning(PLACE));
    assert_eq!(
        shell.cursor().pending.iter().map(|(offset, pending)| (*offset, pending.number)).collect::<Vec<_>>(),
        [(2, 2), (3, 3), (4, 4), (5, 5), (6, 6)]
    );
}

#[test]
fn a_full_lane_is_waited_for_with_patience() {
    let mut shell = Shell::fresh(LIMITS, POLICY);
    (1..=8).for_each(|offset| shell.read(offset, "a"));
    for (now_ms, accepted) in [(0, false), (PATIENCE_MS, false), (PATIENCE_MS + 1, true)] {
        assert_eq!(shell.machine.accepts(PLACE, 9, lane("a"), now_ms), accepted, "{now_ms}");
        assert!(shell.machine.accepts(PLACE, 9, lane("b"), now_ms));
    }
    shell.read(9, "a");
    assert_eq!((shell.machine.pending(), shell.cursor().collapsed.len()), (8, 1));
    assert!(shell.machine.accepts(PLACE, 10, lane("a"), 0), "a collapsed lane takes nothing");
}

#[test]
fn what_is_exhausted_is_blocked_parked_or_skipped() {
    for (on_exhausted, dead_letters, next, letter) in [
        (OnExhausted::Block, 0, vec![], None),
        (OnExhausted::Park, 0, vec![-1, -2], Some(true)),
        (OnExhausted::Skip, 0, vec![2, -1], Some(false)),
        (OnExhausted::Skip, 10, vec![], None),
    ] {
        for outcome in [Outcome::Hopeless, Outcome::Failed] {
            let mut shell = Shell::fresh(LIMITS, Policy { on_exhausted, ..POLICY });
            shell.machine.set_dead_letters(dead_letters);
            (1..=2).for_each(|offset| shell.read(offset, "a"));
            if outcome == Outcome::Failed {
                for _ in 0..11 {
                    shell.end(shell.last(), outcome);
                    shell.wait(1_000);
                }
            } else {
                shell.end(1, outcome);
            }
            let offsets = shell.flat();
            if on_exhausted != OnExhausted::Block && dead_letters == 0 {
                let sorted = |offsets: &[i64]| std::collections::BTreeSet::from_iter(offsets.iter().copied());
                assert_eq!(sorted(&offsets), sorted(&next), "{on_exhausted:?} {outcome:?}");
            }
            assert_eq!(shell.letters.first().map(|letter| letter.parked), letter, "{on_exhausted:?} {outcome:?}");
            if letter.is_none() {
                assert_eq!(shell.machine.waiting().count() + shell.attempts.len(), 1, "probed");
            } else {
                assert_eq!((shell.letters[0].number, shell.letters[0].outcome), (1, outcome));
            }
        }
    }
}

#[test]
fn a_parked_lane_is_redriven_in_order_with_new_numbers() {
    let mut shell = Shell::fresh(LIMITS, Policy { on_exhausted: OnExhausted::Park, ..POLICY });
    (1..=2).for_each(|offset| shell.read(offset, "a"));
    shell.end(1, Outcome::Hopeless);
    shell.read(3, "a");
    assert_eq!(shell.machine.parked().collect::<Vec<_>>(), [(PLACE, lane("a"), 0)]);
    assert_eq!(shell.flat(), [-1, -2]);
    shell.step(Input::Redrive { place: PLACE, lane: lane("a") });
    assert_eq!(shell.machine.read_from(PLACE), 1);
    (1..=3).for_each(|offset| shell.read(offset, "a"));
    shell.step(Input::Passed { place: PLACE, to: 4 });
    assert_eq!(shell.machine.pending(), 2, "not before the notices are through");
    shell.end(2, Outcome::Delivered);
    assert_eq!(shell.machine.read_from(PLACE), 1, "looked at again");
    shell.end(3, Outcome::Delivered);
    for expected in [3_i64, 4, 5] {
        if shell.machine.is_rescanning(PLACE) {
            (shell.machine.read_from(PLACE)..=3).for_each(|offset| shell.read(offset, "a"));
            shell.step(Input::Passed { place: PLACE, to: 4 });
        }
        let delivery = shell.attempts[&shell.last()][0];
        assert_eq!((delivery.offset + 2, delivery.number, delivery.void), (expected, expected.cast_unsigned(), false));
        shell.end(shell.last(), Outcome::Delivered);
    }
    assert!(shell.cursor().collapsed.is_empty() && shell.cursor().pending.is_empty());
}

#[test]
fn a_withheld_event_is_closed_by_a_notice_in_its_place() {
    let mut shell = Shell::fresh(LIMITS, POLICY);
    (1..=3).for_each(|offset| shell.read(offset, "a"));
    let withhold = |offset| Input::Withhold { place: PLACE, offset, lane: lane("a") };
    shell.step(withhold(1));
    assert_eq!(shell.machine.withheld(), 0, "it is on its way");
    shell.step(withhold(2));
    shell.step(withhold(2));
    shell.persist();
    assert_eq!(shell.machine.withheld(), 1);
    shell.end(1, Outcome::Withheld);
    assert_eq!(shell.flat(), [-1]);
    shell.end(2, Outcome::Hopeless);
    assert!(shell.machine.waiting().count() == 1 && shell.letters.is_empty(), "a notice is never set aside");
    shell.wait(5_000);
    for expected in [-1, -2, 3] {
        assert_eq!(shell.flat(), [expected]);
        shell.end(shell.last(), Outcome::Delivered);
    }
    assert_eq!((shell.machine.delivered(), shell.machine.voided(), shell.machine.withheld()), (1, 2, 2));
    shell.read(5, "b");
    shell.step(Input::Withhold { place: PLACE, offset: 5, lane: lane("b") });
    shell.end(shell.last(), Outcome::Unsent);
    assert_eq!(shell.flat(), [-5], "what was under way is remembered");
    shell.end(shell.last(), Outcome::Delivered);
    shell.read(6, "a");
    shell.end(shell.last(), Outcome::Failed);
    shell.step(withhold(6));
    shell.persist();
    assert_eq!(shell.flat(), [-6], "the notice does not wait for the event's next try");
}

#[test]
fn batches_hold_lanes_in_order_and_are_bisected() {
    let mut shell =
        Shell::fresh(Limits { batch_events_max: 8, in_flight_max: 1, ..LIMITS }, Policy { on_exhausted: OnExhausted::Skip, ..POLICY });
    shell.machine.step(0, Input::Mode(Mode::Stopped), &mut Vec::new());
    for (offset, key) in [(1, "a"), (2, "b"), (3, "a"), (4, "c"), (5, "b"), (6, "d")] {
        shell.read(offset, key);
    }
    shell.step(Input::Mode(Mode::Running));
    assert_eq!(shell.flat(), [1, 3, 2, 5, 4, 6]);
    // The culprit is 5.
    let mut taken = Vec::new();
    for _ in 0..20 {
        let Some((attempt, deliveries)) = shell.under_way().into_iter().next() else { break };
        if deliveries.contains(&5) {
            shell.end(attempt, Outcome::Hopeless);
        } else {
            taken.extend(deliveries);
            shell.end(attempt, Outcome::Delivered);
        }
    }
    let at = |offset| taken.iter().position(|taken| *taken == offset);
    assert!(at(1) < at(3) && at(2) < at(-5), "{taken:?}");
    assert_eq!(taken.len(), 6, "{taken:?}");
    assert_eq!(shell.letters.iter().map(|letter| letter.offset).collect::<Vec<_>>(), [5]);
}

#[test]
fn throttling_is_obeyed_in_full_and_only_the_owner_ends_it() {
    let mut shell = Shell::fresh(LIMITS, POLICY);
    shell.read(1, "a");
    shell.end(1, Outcome::Throttled { retry_after_ms: 60_000 });
    shell.read(2, "b");
    shell.step(Input::Settings(Limits { in_flight_max: 9, ..LIMITS }, POLICY));
    shell.wait(59_999);
    assert_eq!((shell.flat(), shell.machine.wake_at_ms()), (vec![], Some(60_000)));
    shell.wait(1);
    assert_eq!(shell.flat().len(), 2);
    shell.end(shell.last(), Outcome::Throttled { retry_after_ms: 60_000 });
    shell.step(Input::Mode(Mode::Running));
    assert_eq!(shell.flat().len(), 2);
}

#[test]
fn it_stops_when_the_endpoint_is_gone_or_fails_for_too_long() {
    let policy = Policy { disable_after_ms: 3_000, ..POLICY };
    let mut gone = Shell::fresh(LIMITS, policy);
    gone.read(1, "a");
    gone.end(1, Outcome::Gone);
    assert_eq!(gone.others, [Action::Disable { reason: DisableReason::Gone }]);
    gone.wait(10_000);
    assert!(gone.attempts.is_empty() && gone.machine.wake_at_ms().is_none());
    gone.step(Input::Mode(Mode::Running));
    assert_eq!(gone.flat(), [1]);

    let mut failing = Shell::fresh(LIMITS, policy);
    failing.wait(500);
    failing.read(1, "a");
    for _ in 0..4 {
        assert!(failing.others.is_empty());
        failing.end(failing.last(), Outcome::Failed);
        failing.wait(1_000);
    }
    assert_eq!(failing.others, [Action::Disable { reason: DisableReason::Failing { since_ms: 500 } }]);
}

#[test]
fn one_that_was_not_sent_counts_for_nothing() {
    let mut shell = Shell::fresh(LIMITS, POLICY);
    shell.read(1, "a");
    shell.end(1, Outcome::Unsent);
    assert_eq!((shell.flat(), shell.machine.failed_attempts(), shell.attempts[&2][0].attempts), (vec![1], 0, 1));
}

#[test]
fn after_a_restart_pending_is_read_again_and_what_is_gone_is_closed() {
    let pending = |number, void| Pending { number, void };
    let mut cursor = Cursor::starting_at(0);
    cursor.scanned_to = 10;
    cursor.pending = [(2, pending(4, true)), (3, pending(5, false)), (6, pending(7, false)), (8, pending(9, false))].into();
    let mut shell = Shell::new(LIMITS, POLICY, cursor);
    assert_eq!(shell.machine.read_from(PLACE), 3);
    shell.step(Input::Tick);
    assert_eq!(shell.flat(), [-2], "a notice needs no record");
    shell.step(Input::Record { place: PLACE, offset: 3, lane: lane("a"), verdict: Verdict::Withheld });
    shell.step(Input::Record { place: PLACE, offset: 8, lane: lane("a"), verdict: Verdict::Unwanted });
    shell.step(Input::Passed { place: PLACE, to: 9 });
    assert!(shell.machine.is_rescanning(PLACE));
    shell.step(Input::Passed { place: PLACE, to: 10 });
    assert!(!shell.machine.is_rescanning(PLACE));
    shell.persist();
    assert_eq!((shell.flat(), shell.machine.compacted(), shell.machine.withheld()), (vec![-2, -3, -6], 1, 1));
    shell.end(2, Outcome::Delivered);
    assert_eq!(shell.flat(), [-2, -6, 8], "pending stays pending, whatever the filter says");
}

#[test]
fn a_receiver_that_fetches_sees_numbers_without_a_gap() {
    let limits = Limits { in_flight_max: 0, ..LIMITS };
    let mut shell = Shell::fresh(limits, POLICY);
    (1..=3).for_each(|offset| shell.read(offset, "a"));
    shell.step(Input::Record { place: PLACE, offset: 4, lane: lane("b"), verdict: Verdict::Wanted });
    let numbers = |shell: &Shell, after| shell.machine.available(after).map(|one| (one.number, one.void)).collect::<Vec<_>>();
    assert_eq!(numbers(&shell, 0), [(1, false), (2, false), (3, false)], "4 is not on disk");
    shell.persist();
    shell.step(Input::Withhold { place: PLACE, offset: 2, lane: lane("a") });
    assert_eq!(numbers(&shell, 0), [(1, false)], "nor is the notice");
    shell.persist();
    assert_eq!(numbers(&shell, 1), [(2, true), (3, false), (4, false)]);
    shell.step(Input::Acknowledged { number: 3 });
    assert_eq!((numbers(&shell, 0), shell.machine.delivered(), shell.machine.voided()), (vec![(4, false)], 2, 1));
    assert!(shell.attempts.is_empty());
    shell.persist();
    // After a restart, what was not read again yet hides what comes after it.
    let mut cursor = shell.cursor();
    cursor.pending.insert(9, Pending { number: 5, void: true });
    cursor.scanned_to = 10;
    let mut again = Shell::new(limits, POLICY, cursor.clone());
    assert_eq!(numbers(&again, 0), []);
    again.read(4, "b");
    assert_eq!(numbers(&again, 0), [(4, false), (5, true)]);
    // It may have been shown in the earlier life, so that it may be taken before it is read again.
    let mut early = Shell::new(limits, POLICY, cursor);
    early.step(Input::Acknowledged { number: 4 });
    assert_eq!(numbers(&early, 0), [(5, true)]);
    // From now on the bridge posts.
    again.step(Input::Settings(LIMITS, POLICY));
    assert_eq!((numbers(&again, 0), again.flat().len()), (vec![], 2));
}

#[test]
fn a_thousand_dead_endpoints_hold_little() {
    let limits = Limits { pending_max: 1_024, pending_per_key_max: 64, ..LIMITS };
    let mut shell = Shell::fresh(limits, POLICY);
    assert_eq!(shell.machine.room(), 64);
    let mut offset = 0;
    for _ in 0..63 {
        offset += 1;
        shell.read(offset, &offset.to_string());
        shell.end(shell.last(), Outcome::Delivered);
    }
    assert_eq!(shell.machine.room(), 64);
    shell.read(100, "a");
    shell.end(shell.last(), Outcome::Delivered);
    assert_eq!(shell.machine.room(), 128);
    for offset in 200..216 {
        shell.read(offset, &offset.to_string());
        shell.end(shell.last(), Outcome::Failed);
    }
    assert_eq!(shell.machine.room(), 48);
}

#[test]
fn the_tail_does_not_end_a_second_look() {
    let mut shell = Shell::fresh(LIMITS, POLICY);
    shell.step(Input::Attached { place: PLACE, attached: true });
    shell.read(1, "a");
    shell.end(1, Outcome::Failed);
    shell.read(2, "a");
    shell.wait(100);
    shell.end(2, Outcome::Delivered);
    assert_eq!(shell.others, [Action::Rescan { place: PLACE }]);
    shell.read(3, "b");
    shell.step(Input::Passed { place: PLACE, to: 5 });
    shell.step(Input::Attached { place: PLACE, attached: false });
    assert_eq!((shell.machine.read_from(PLACE), shell.machine.scanned_to(PLACE)), (2, 5));
    shell.read(2, "a");
    shell.step(Input::Passed { place: PLACE, to: 5 });
    assert!(!shell.machine.is_rescanning(PLACE) && shell.cursor().collapsed.is_empty() && shell.flat() == [3, 2]);
}

#[test]
fn a_lane_with_nothing_behind_its_mark_is_whole_after_a_restart() {
    let mut cursor = Cursor::starting_at(0);
    cursor.scanned_to = 5;
    cursor.collapsed.insert(lane("a"), Collapsed { mark: 4, parked: false });
    cursor.collapsed.insert(lane("b"), Collapsed { mark: 2, parked: true });
    let mut shell = Shell::new(LIMITS, POLICY, cursor);
    assert!(!shell.machine.is_rescanning(PLACE) && shell.machine.has_changes());
    shell.read(5, "a");
    shell.read(6, "b");
    assert_eq!((shell.flat(), shell.cursor().collapsed.len()), (vec![5], 1));
}
