//! The machine under a seeded scheduler with virtual time: receivers that fail, throttle and
//! vanish, commits that lag, crashes at any step, a log with gaps, keys that are removed.
//!
//! The oracle sees only what left and what the log holds; it shares no code with the machine.
//! A failing seed is printed: `RYGGRAD_SEED=n cargo test -p ryggrad-bridge-core --test simulation`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Place};
use ryggrad_bridge_core::machine::{Action, Input, Limits, Machine, Mode, Verdict};
use ryggrad_bridge_core::outcome::Outcome;
use ryggrad_bridge_core::retry::RetryPolicy;

const SCHEDULES: u64 = 3_000;

/// A small generator of its own, so that a seed means the same for ever (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[derive(Clone, Copy)]
struct Entry {
    offset: i64,
    key: u64,
    matched: bool,
}

/// What a planted bug does to the actions between machine and world.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Bug {
    None,
    SettleBeforeAnswer,
    DropOnFailure,
    OvertakeWithinKey,
    ForgetPendingOnRestart,
    DeliverAfterGone,
    AttemptRemoved,
    ForgetRemovalsOnRestart,
    WithholdTheRemovalItself,
}

/// A key was removed: what lies below the offset must not leave in attempts begun later.
#[derive(Clone, Copy)]
struct Removed {
    below: i64,
    at_step: u64,
}

/// An attempt under way.
#[derive(Clone, Copy)]
struct UnderWay {
    place: Place,
    offset: i64,
    lane: LaneKey,
    began: u64,
    /// The look right before the attempt said that it must not be made.
    withheld: bool,
}

/// What the receiver took.
#[derive(Clone, Copy)]
struct Arrival {
    partition: i32,
    offset: i64,
    /// The step in which its attempt began.
    began: u64,
}

struct World {
    random: Random,
    log: BTreeMap<i32, Vec<Entry>>,
    disk: BTreeMap<Place, Cursor>,
    machine: Machine,
    limits: Limits,
    /// Per partition: where the reader stands.
    reader: BTreeMap<i32, i64>,
    kept: BTreeSet<(Place, i64)>,
    in_flight: Vec<UnderWay>,
    commit: Option<Vec<(Place, Cursor)>>,
    now_ms: u64,
    failing: BTreeSet<u64>,
    gone_until_resumed: bool,
    steps: u64,
    /// By partition and key.
    removed: BTreeMap<(i32, u64), Vec<Removed>>,
    /// Removals up to this step are unknown to the shell: a planted bug.
    forgot_until: u64,
    /// Every delivery that the receiver took, in order.
    received: Vec<Arrival>,
    coverage: BTreeMap<&'static str, u64>,
    bug: Bug,
}

const KEYS: u64 = 8;

fn place(partition: i32) -> Place {
    Place { topic: 1, partition }
}

impl World {
    fn new(seed: u64, bug: Bug) -> Self {
        let mut random = Random(seed);
        let log: BTreeMap<i32, Vec<Entry>> = (0..2)
            .map(|partition| {
                let mut offset = random.below(5) as i64;
                let entries = (0..120)
                    .map(|_| {
                        // Markers and compaction leave gaps.
                        offset += 1 + if random.chance(20) { random.below(4) as i64 } else { 0 };
                        // A hot key fills its lane.
                        let key = if random.chance(40) { 0 } else { random.below(KEYS) };
                        Entry { offset, key, matched: !random.chance(15) }
                    })
                    .collect();
                (partition, entries)
            })
            .collect();
        let limits = Limits {
            pending_max: 12 + random.below(20) as usize,
            pending_per_key_max: 2 + random.below(5) as usize,
            in_flight_max: 1 + random.below(5) as usize,
        };
        let disk: BTreeMap<Place, Cursor> =
            log.iter().map(|(partition, entries)| (place(*partition), Cursor::starting_at(entries[0].offset))).collect();
        let machine = machine(limits, &disk);
        let reader = log.keys().map(|partition| (*partition, machine.read_from(place(*partition)))).collect();
        let failing = (0..KEYS).filter(|_| random.chance(15)).collect();
        Self {
            random,
            log,
            disk,
            machine,
            limits,
            reader,
            kept: BTreeSet::new(),
            in_flight: Vec::new(),
            commit: None,
            now_ms: 0,
            failing,
            gone_until_resumed: false,
            steps: 0,
            removed: BTreeMap::new(),
            forgot_until: 0,
            received: Vec::new(),
            coverage: BTreeMap::new(),
            bug,
        }
    }

    fn cover(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    fn arrive(&mut self, place: Place, offset: i64, began: u64) {
        self.received.push(Arrival { partition: place.partition, offset, began });
    }

    fn is_removed(&self, place: Place, offset: i64) -> bool {
        let key = self.log[&place.partition].iter().find(|entry| entry.offset == offset).unwrap().key;
        let known = self.removed.get(&(place.partition, key)).into_iter().flatten().filter(|removed| removed.at_step >= self.forgot_until);
        let reach = i64::from(self.bug == Bug::WithholdTheRemovalItself);
        known.into_iter().any(|removed| offset < removed.below + reach)
    }

    /// The end of a key is published somewhere ahead of, or among, what the subscription has read.
    fn remove(&mut self) {
        let partition = self.random.below(2) as i32;
        // Half of them hit a key that has something pending.
        let kept: Vec<i64> = self.kept.iter().filter(|(at, _)| at.partition == partition).map(|(_, offset)| *offset).collect();
        let entries = &self.log[&partition];
        let key = if self.random.chance(50) && !kept.is_empty() {
            let offset = kept[self.random.below(kept.len() as u64) as usize];
            entries.iter().find(|entry| entry.offset == offset).unwrap().key
        } else {
            self.random.below(KEYS)
        };
        let of_key: Vec<i64> = entries.iter().filter(|entry| entry.key == key).map(|entry| entry.offset).collect();
        let Some(below) = of_key.get(self.random.below(of_key.len().max(1) as u64) as usize).copied() else { return };
        self.removed.entry((partition, key)).or_default().push(Removed { below, at_step: self.steps });
        self.cover("removed");
    }

    /// The shell hears of removals some time after they are in force.
    fn hear_of_removals(&mut self) {
        let kept: Vec<(Place, i64)> = self.kept.iter().rev().copied().filter(|(place, offset)| self.is_removed(*place, *offset)).collect();
        for (place, offset) in kept {
            let waiting = self.machine.waiting().any(|lane| (lane.place, lane.offset) == (place, offset));
            if self.kept.contains(&(place, offset)) {
                let lane = self.lane_of(place, offset).unwrap();
                self.step(Input::Withhold { place, offset, lane });
            }
            if !self.kept.contains(&(place, offset)) {
                self.cover(if waiting { "withheld in retry" } else { "withheld while pending" });
            }
        }
    }

    fn step(&mut self, input: Input) {
        self.steps += 1;
        let mut actions = Vec::new();
        self.machine.step(self.now_ms, input, &mut actions);
        for action in actions {
            match action {
                Action::Keep { place, offset } => assert!(self.kept.insert((place, offset)), "kept twice"),
                Action::Forget { place, offset } => assert!(self.kept.remove(&(place, offset)), "forgot what was not kept"),
                Action::Attempt { place, offset, lane, .. } => {
                    assert!(self.kept.contains(&(place, offset)), "attempted what was not kept");
                    let withheld = self.bug != Bug::AttemptRemoved && self.is_removed(place, offset);
                    self.in_flight.push(UnderWay { place, offset, lane, began: self.steps, withheld });
                    if self.bug == Bug::OvertakeWithinKey {
                        self.overtake(place, offset, lane);
                    }
                }
                Action::Rescan { place } => {
                    self.reader.insert(place.partition, self.machine.read_from(place));
                    self.cover("rescan");
                }
                Action::Disable => self.gone_until_resumed = true,
            }
        }
        assert!(self.in_flight.len() <= self.limits.in_flight_max || self.bug != Bug::None, "too many attempts");
        assert!(self.kept.len() <= self.limits.pending_max, "the window is not bounded");
    }

    fn overtake(&mut self, at: Place, offset: i64, lane: LaneKey) {
        let next = self.kept.iter().find(|(kept_at, kept)| *kept_at == at && *kept > offset && self.lane_of(at, *kept) == Some(lane));
        if let Some((_, next)) = next {
            self.received.push(Arrival { partition: at.partition, offset: *next, began: self.steps });
        }
    }

    fn lane_of(&self, place: Place, offset: i64) -> Option<LaneKey> {
        self.log[&place.partition].iter().find(|entry| entry.offset == offset).map(|entry| lane(entry.key))
    }

    fn read(&mut self, partition: i32) {
        let at = self.reader[&partition];
        let entry = self.log[&partition].iter().find(|entry| entry.offset >= at).copied();
        let Some(entry) = entry else {
            self.step(Input::AtEnd { place: place(partition) });
            return;
        };
        if !self.machine.accepts(place(partition), entry.offset) {
            self.cover("window full");
            return;
        }
        self.reader.insert(partition, entry.offset + 1);
        let removed = self.is_removed(place(partition), entry.offset);
        let verdict = match (entry.matched, removed) {
            (false, _) => Verdict::Unwanted,
            (true, false) => Verdict::Wanted,
            (true, true) => Verdict::Withheld,
        };
        let withheld = self.machine.withheld();
        self.step(Input::Record { place: place(partition), offset: entry.offset, lane: lane(entry.key), verdict });
        if self.machine.withheld() > withheld {
            self.cover("withheld when read");
        }
    }

    fn answer(&mut self, calm: bool) {
        if self.in_flight.is_empty() {
            return;
        }
        let index = self.random.below(self.in_flight.len() as u64) as usize;
        let UnderWay { place, offset, lane, began, withheld } = self.in_flight.swap_remove(index);
        if withheld {
            self.cover("withheld at an attempt");
            self.step(Input::Attempted { place, offset, lane, outcome: Outcome::Withheld, entropy: 0 });
            return;
        }
        let key = self.log[&place.partition].iter().find(|entry| entry.offset == offset).unwrap().key;
        let roll = if calm { 100 } else { self.random.below(100) };
        let outcome = match roll {
            _ if !calm && self.failing.contains(&key) => Outcome::Failed,
            0..10 => Outcome::Failed,
            10..13 => Outcome::Throttled { retry_after_ms: 500 },
            13..15 => Outcome::Hopeless,
            15 => Outcome::Gone,
            // The receiver took it, but the answer was lost on the way.
            16..22 => {
                self.arrive(place, offset, began);
                self.cover("answer lost");
                Outcome::Failed
            }
            _ => Outcome::Delivered,
        };
        self.cover(match outcome {
            Outcome::Delivered => "delivered",
            Outcome::Failed => "failed",
            Outcome::Throttled { .. } => "throttled",
            Outcome::Hopeless => "hopeless",
            Outcome::Gone => "gone",
            Outcome::Withheld => "withheld",
        });
        if outcome == Outcome::Delivered {
            if self.gone_until_resumed && self.bug == Bug::None {
                self.cover("delivered while stopping");
            }
            self.arrive(place, offset, began);
        }
        let reported = match self.bug {
            Bug::DropOnFailure if outcome == Outcome::Failed => Outcome::Delivered,
            Bug::SettleBeforeAnswer if outcome != Outcome::Delivered && outcome != Outcome::Gone => Outcome::Delivered,
            _ => outcome,
        };
        let entropy = self.random.next();
        self.step(Input::Attempted { place, offset, lane, outcome: reported, entropy });
    }

    fn persist(&mut self) {
        if let Some(cursors) = self.commit.take() {
            for (place, cursor) in cursors {
                let before = &self.disk[&place];
                assert!(cursor.scanned_to >= before.scanned_to, "a cursor went back");
                self.disk.insert(place, Cursor::from_bytes(&cursor.to_bytes()).unwrap());
            }
            self.step(Input::Persisted);
        } else if let Some(commit) = self.machine.take_commit() {
            self.commit = Some(commit.cursors);
        }
    }

    fn crash(&mut self) {
        self.cover("crash");
        if self.bug == Bug::ForgetPendingOnRestart {
            for cursor in self.disk.values_mut() {
                cursor.pending.clear();
                cursor.collapsed.clear();
            }
        }
        self.machine = machine(self.limits, &self.disk);
        self.reader = self.log.keys().map(|partition| (*partition, self.machine.read_from(place(*partition)))).collect();
        self.kept.clear();
        self.in_flight.clear();
        self.commit = None;
        self.gone_until_resumed = false;
        if self.bug == Bug::ForgetRemovalsOnRestart {
            self.forgot_until = self.steps + 1;
        }
    }

    fn random_step(&mut self) {
        match self.random.below(100) {
            0..45 => {
                let partition = self.random.below(2) as i32;
                self.read(partition);
            }
            45..75 => self.answer(false),
            75..88 => self.persist(),
            88..94 => {
                self.now_ms += self.random.below(400);
                self.step(Input::Tick);
            }
            94..96 => self.crash(),
            96 if self.random.chance(25) => self.remove(),
            96 => self.hear_of_removals(),
            97 => {
                self.step(Input::Mode(Mode::Stopped));
                self.cover("stopped");
            }
            _ => {
                if self.bug == Bug::DeliverAfterGone || !self.gone_until_resumed || self.random.chance(50) {
                    self.gone_until_resumed = false;
                    self.step(Input::Mode(Mode::Running));
                }
            }
        }
    }

    /// All faults end: everything must come to rest.
    fn settle_down(&mut self) {
        self.gone_until_resumed = false;
        self.hear_of_removals();
        self.step(Input::Mode(Mode::Running));
        for _ in 0..200_000 {
            self.read(0);
            self.read(1);
            self.answer(true);
            self.persist();
            self.now_ms += 1_000;
            self.step(Input::Tick);
            let read = self.log.iter().all(|(partition, entries)| self.reader[partition] > entries[entries.len() - 1].offset);
            if read && self.machine.pending() == 0 && self.disk.values().all(|cursor| cursor.collapsed.is_empty()) {
                return;
            }
        }
        panic!("it never comes to rest: {:?}", self.machine);
    }
}

fn lane(key: u64) -> LaneKey {
    LaneKey::of(&key.to_string())
}

fn machine(limits: Limits, disk: &BTreeMap<Place, Cursor>) -> Machine {
    let retry = RetryPolicy { first_ms: 100, max_ms: 2_000, probe_ms: 1_000 };
    Machine::new(limits, retry, Mode::Running, disk.iter().map(|(place, cursor)| (*place, cursor.clone())))
}

/// Runs one schedule and judges it by what the receiver saw.
fn run(seed: u64, bug: Bug) -> Result<BTreeMap<&'static str, u64>, String> {
    let mut world = World::new(seed, bug);
    let mut delivered_after_gone = 0;
    for _ in 0..1_500 {
        let (before, gone) = (world.in_flight.len(), world.gone_until_resumed);
        world.random_step();
        if bug == Bug::DeliverAfterGone
            && gone
            && world.random.chance(30)
            && let Some((place, offset)) = world.kept.first().copied()
        {
            let began = world.steps;
            world.arrive(place, offset, began);
            delivered_after_gone += 1;
        }
        if gone && world.gone_until_resumed && world.in_flight.len() > before {
            return Err("an attempt was made after 410".to_owned());
        }
    }
    if delivered_after_gone > 0 {
        return Err("a delivery left after 410".to_owned());
    }
    world.settle_down();

    let mut first_seen: HashMap<(i32, i64), usize> = HashMap::new();
    for (index, arrival) in world.received.iter().enumerate() {
        first_seen.entry((arrival.partition, arrival.offset)).or_insert(index);
    }
    for arrival in &world.received {
        let key = world.log[&arrival.partition].iter().find(|entry| entry.offset == arrival.offset).unwrap().key;
        let mut removed = world.removed.get(&(arrival.partition, key)).into_iter().flatten();
        if removed.any(|removed| arrival.offset < removed.below && arrival.began > removed.at_step) {
            return Err(format!("offset {} of partition {} left after its key was removed", arrival.offset, arrival.partition));
        }
    }
    let removed = |partition, entry: &Entry| {
        let mut removed = world.removed.get(&(partition, entry.key)).into_iter().flatten();
        removed.any(|removed| entry.offset < removed.below)
    };
    for (partition, entries) in &world.log {
        let mut latest_of_key: HashMap<u64, usize> = HashMap::new();
        for entry in entries {
            match (entry.matched, first_seen.get(&(*partition, entry.offset))) {
                (true, None) if removed(*partition, entry) => {}
                (true, None) => return Err(format!("offset {} of partition {partition} is missing", entry.offset)),
                (false, Some(_)) => return Err(format!("offset {} of partition {partition} was not subscribed to", entry.offset)),
                (false, None) => {}
                (true, Some(index)) => {
                    let before = latest_of_key.insert(entry.key, *index);
                    if before.is_some_and(|before| before > *index) {
                        return Err(format!("offset {} of partition {partition} overtook its key", entry.offset));
                    }
                }
            }
        }
    }
    Ok(world.coverage)
}

#[test]
fn nothing_is_lost_or_reordered_whatever_happens() {
    let seeds = match std::env::var("RYGGRAD_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 0..SCHEDULES,
    };
    let mut coverage: BTreeMap<&'static str, u64> = BTreeMap::new();
    let schedules = seeds.end - seeds.start;
    for seed in seeds {
        match run(seed, Bug::None) {
            Ok(covered) => covered.into_iter().for_each(|(what, times)| *coverage.entry(what).or_default() += times),
            Err(why) => panic!("seed {seed}: {why}"),
        }
    }
    println!("{schedules} schedules; covered: {coverage:?}");
    if schedules > 1 {
        for what in [
            "answer lost",
            "crash",
            "delivered",
            "failed",
            "gone",
            "hopeless",
            "removed",
            "rescan",
            "stopped",
            "throttled",
            "window full",
            "withheld at an attempt",
            "withheld in retry",
            "withheld when read",
            "withheld while pending",
        ] {
            assert!(coverage.get(what).is_some_and(|times| *times >= 100), "{what} hardly happened: {coverage:?}");
        }
    }
}

#[test]
fn planted_bugs_are_found() {
    for bug in [
        Bug::SettleBeforeAnswer,
        Bug::DropOnFailure,
        Bug::OvertakeWithinKey,
        Bug::ForgetPendingOnRestart,
        Bug::DeliverAfterGone,
        Bug::AttemptRemoved,
        Bug::ForgetRemovalsOnRestart,
        Bug::WithholdTheRemovalItself,
    ] {
        let found = (0..200).find_map(|seed| run(seed, bug).err().map(|why| (seed, why)));
        let Some((seed, why)) = found else { panic!("{bug:?} was not found in 200 schedules") };
        println!("{bug:?}: found at seed {seed}: {why}");
    }
}
