//! One machine with its shell: reads the log, carries attempts, persists, crashes, and comes back.
//!
//! The only part of the simulation that knows the machine; the planted bugs live here.

use std::collections::{BTreeMap, BTreeSet};

use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Place};
use ryggrad_bridge_core::machine::{Action, Commit, DeadLetter, Delivery, Input, Machine, Mode, Numbering, Verdict};
use ryggrad_bridge_core::outcome::Outcome;

use super::coverage::{Coverage, Kind, State};
use super::log::{Entry, KEYS, Log, PARTITIONS, place};
use super::plan::{self, Bug, Choice, Fault, Plan};
use super::random::Random;
use super::receiver::{Receiver, UnderWay};

/// What survives a crash.
#[derive(Debug)]
pub struct Disk {
    pub cursors: BTreeMap<Place, Cursor>,
    pub numbering: Numbering,
    live_to: BTreeMap<i32, i64>,
    letters: Vec<DeadLetter>,
    /// Events that were set aside alone.
    pub skipped: BTreeSet<(Place, i64)>,
}

/// An attempt that turned out right before it that something in it must not leave.
struct Refused {
    attempt: u64,
    alone: bool,
    records: Vec<Delivery>,
}

pub struct Rig {
    pub plan: Plan,
    pub random: Random,
    pub log: Log,
    pub receiver: Receiver,
    pub disk: Disk,
    pub coverage: Coverage,
    machine: Machine,
    choice: Choice,
    /// The widest window and the most attempts so far.
    pending_max: usize,
    in_flight_max: usize,
    /// Per partition: where the reader stands, and whether it is the tail.
    reader: Vec<i64>,
    attached: Vec<bool>,
    kept: BTreeSet<(Place, i64)>,
    refused: Vec<Refused>,
    commit: Option<(Commit, BTreeMap<i32, i64>)>,
    now_ms: u64,
    step: u64,
    life: u32,
    /// Hands in what is not wanted too, or only says that it has passed.
    hands_all: bool,
    /// Prints what happens.
    tells: bool,
    /// Removals up to this step are unknown to the shell: a planted bug.
    forgot_until: u64,
    /// The next number to fetch, for a receiver that fetches.
    fetched: u64,
}

impl Rig {
    pub fn new(plan: Plan, tells: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let order = plan::order(&mut random);
        let log = Log::new(&mut random, plan.events, order);
        let choice = plan::choice(&mut random);
        let receiver = Receiver::new(&mut random, &plan);
        let cursors: BTreeMap<Place, Cursor> = (0..PARTITIONS).map(|at| (place(at), Cursor::starting_at(log.start(at)))).collect();
        let numbering = Numbering { epoch: 1, next: 1 };
        let disk = Disk { cursors, numbering, live_to: BTreeMap::new(), letters: Vec::new(), skipped: BTreeSet::new() };
        let machine = start(&choice, &disk);
        let hands_all = random.chance(30);
        let mut rig = Self {
            reader: Vec::new(),
            attached: Vec::new(),
            plan,
            random,
            log,
            receiver,
            disk,
            coverage: Coverage::default(),
            machine,
            choice,
            pending_max: choice.limits.pending_max,
            in_flight_max: choice.limits.in_flight_max,
            kept: BTreeSet::new(),
            refused: Vec::new(),
            commit: None,
            now_ms: 0,
            step: 0,
            life: 0,
            hands_all,
            tells,
            forgot_until: 0,
            fetched: 0,
        };
        rig.open();
        rig
    }

    fn open(&mut self) {
        self.attached =
            (0..PARTITIONS).map(|at| self.machine.cursors().any(|(there, cursor)| there == place(at) && cursor.attached)).collect();
        self.reader = (0..PARTITIONS).map(|at| self.machine.read_from(place(at))).collect();
        self.receiver.count_from(self.now_ms, self.machine.in_flight());
    }

    fn drive(&mut self, input: Input) {
        self.step += 1;
        let mut actions = Vec::new();
        self.machine.step(self.now_ms, input, &mut actions);
        if self.tells {
            println!("{} ms, step {}: {input:?} -> {actions:?}", self.now_ms, self.step);
        }
        for action in actions {
            match action {
                Action::Keep { place, offset, .. } => {
                    if !self.kept.insert((place, offset)) {
                        self.receiver.violate(format!("offset {offset} was kept twice"));
                    }
                }
                Action::Forget { place, offset } => {
                    if !self.kept.remove(&(place, offset)) {
                        self.receiver.violate(format!("offset {offset} was forgotten and not kept"));
                    }
                }
                Action::Attempt { attempt, deliveries } => self.begin(attempt, deliveries),
                Action::Rescan { place } => self.look_again(place),
                // Nobody goes back here: that is in `hub`.
                Action::Rewound { .. } => {}
                Action::Disable { .. } => self.receiver.shut = true,
            }
        }
        if self.kept.len() > self.pending_max {
            self.receiver.violate(format!("{} records are kept", self.kept.len()));
        }
    }

    fn look_again(&mut self, place: Place) {
        if self.plan.bug == Bug::IgnoreRescan {
            let to = self.reader[place.partition as usize];
            return self.drive(Input::Passed { place, to });
        }
        self.detach(place.partition);
        self.reader[place.partition as usize] = self.machine.read_from(place);
    }

    fn detach(&mut self, partition: i32) {
        let at = partition as usize;
        if std::mem::take(&mut self.attached[at]) {
            self.drive(Input::Passed { place: place(partition), to: self.reader[at] });
            self.drive(Input::Attached { place: place(partition), attached: false });
        }
    }

    fn begin(&mut self, attempt: u64, mut deliveries: Vec<Delivery>) {
        for delivery in deliveries.iter().filter(|delivery| !delivery.void) {
            if !self.kept.contains(&(delivery.place, delivery.offset)) {
                self.receiver.violate(format!("offset {} was attempted and not kept", delivery.offset));
            }
        }
        let must_stay = |one: &&Delivery| !one.void && self.plan.bug != Bug::AttemptRemoved && self.is_removed(one.place, one.offset);
        let records: Vec<Delivery> = deliveries.iter().filter(must_stay).copied().collect();
        if !records.is_empty() {
            self.refused.push(Refused { attempt, alone: deliveries.len() == 1, records });
            return;
        }
        if self.plan.bug == Bug::EventForNotice && self.random.chance(50) {
            deliveries.iter_mut().for_each(|delivery| delivery.void = false);
        }
        let hangs = self.plan.has(Fault::Hang) && self.random.chance(4);
        let hangs_until_ms = if hangs { self.now_ms + 1_500 + self.random.below(20_000) } else { 0 };
        if hangs {
            self.coverage.attempt(kind(&deliveries), Fault::Hang);
        }
        let under_way = UnderWay { attempt, deliveries, began_step: self.step, hangs_until_ms };
        if self.plan.bug == Bug::OvertakeWithinKey {
            self.overtake(&under_way);
        }
        self.receiver.begin(self.now_ms, under_way, &self.log, &self.choice.limits, self.in_flight_max, &self.disk.cursors);
    }

    /// Planted: what stands behind in the lane goes first.
    fn overtake(&mut self, attempt: &UnderWay) {
        let Some(head) = attempt.deliveries.last().filter(|head| !head.void) else { return };
        let next = self
            .kept
            .range((head.place, head.offset + 1)..)
            .find(|(at, offset)| *at == head.place && self.log.entry(*at, *offset).is_some_and(|entry| self.log.lane(&entry) == head.lane));
        if let Some((_, offset)) = next {
            let stored = self.disk.cursors[&head.place].pending.get(offset);
            let Some(number) = stored.map(|stored| stored.number) else { return };
            let deliveries = vec![Delivery { offset: *offset, number, ..*head }];
            self.receiver.take(&UnderWay { deliveries, ..attempt.clone() }, self.life, true);
        }
    }

    fn is_removed(&self, place: Place, offset: i64) -> bool {
        let reach = i64::from(self.plan.bug == Bug::WithholdTheRemovalItself);
        let mut known = self.log.removals(place, offset).filter(|removed| removed.at_step >= self.forgot_until);
        known.any(|removed| offset < removed.below + reach)
    }

    fn verdict(&self, place: Place, entry: &Entry) -> Verdict {
        match (self.log.wants(entry), self.is_removed(place, entry.offset)) {
            (false, _) => Verdict::Unwanted,
            (true, false) => Verdict::Wanted,
            (true, true) => Verdict::Withheld,
        }
    }

    /// Reads one record, or finds the end.
    pub fn read(&mut self, partition: i32) {
        let (place, at) = (place(partition), partition as usize);
        let Some(entry) = self.log.next(partition, self.reader[at]) else { return self.at_end(partition) };
        let verdict = self.verdict(place, &entry);
        let pending = self.machine.is_pending(place, entry.offset);
        if verdict == Verdict::Unwanted && !pending {
            self.reader[at] = entry.offset + 1;
            if !self.attached[at] && (self.hands_all || self.random.chance(10)) {
                let lane = self.log.lane(&entry);
                self.drive(Input::Record { place, offset: entry.offset, lane, verdict });
            } else if !self.attached[at] && self.random.chance(10) {
                self.drive(Input::Passed { place, to: entry.offset + 1 });
            }
            return;
        }
        let lane = self.log.lane(&entry);
        if !self.machine.accepts(place, entry.offset, lane, self.now_ms) {
            self.coverage.saw("no room");
            // Up to here it has been read all the same, which may end a second look.
            self.reader[at] = entry.offset;
            self.drive(Input::Passed { place, to: entry.offset });
            return self.detach(partition);
        }
        self.reader[at] = entry.offset + 1;
        let withheld = self.machine.withheld();
        self.drive(Input::Record { place, offset: entry.offset, lane, verdict });
        if self.machine.withheld() > withheld {
            self.coverage.saw("withheld when read");
        }
    }

    fn at_end(&mut self, partition: i32) {
        let (place, at, end) = (place(partition), partition as usize, self.log.end(partition));
        if self.attached[at] {
            self.reader[at] = self.reader[at].max(end);
            if self.random.chance(20) {
                self.drive(Input::Passed { place, to: self.reader[at] });
            }
            return;
        }
        self.reader[at] = self.reader[at].max(end);
        self.drive(Input::Passed { place, to: self.reader[at] });
        if !self.machine.is_rescanning(place) && self.reader[at] >= end && self.random.chance(50) {
            self.attached[at] = true;
            self.drive(Input::Attached { place, attached: true });
            self.coverage.saw("attached");
        }
    }

    /// Something that is under way ends.
    pub fn answer(&mut self, calm: bool) {
        if self.choice.limits.in_flight_max == 0 && self.random.chance(50) {
            self.fetch(calm);
        }
        if let Some(refused) = self.refused.pop() {
            return self.refuse(&refused);
        }
        let ready: Vec<usize> =
            (0..self.receiver.under_way.len()).filter(|index| self.receiver.under_way[*index].hangs_until_ms <= self.now_ms).collect();
        if ready.is_empty() {
            return;
        }
        let index = self.random.one_of(&ready);
        let ended = self.receiver.under_way.swap_remove(index);
        let (outcome, fault) =
            if calm { (Outcome::Delivered, None) } else { self.receiver.answer(&mut self.random, &self.plan, &self.log, &ended) };
        if let Some(fault) = fault {
            self.coverage.attempt(kind(&ended.deliveries), fault);
        }
        if fault == Some(Fault::Lie) || outcome == Outcome::Delivered {
            self.receiver.take(&ended, self.life, outcome == Outcome::Delivered);
        }
        let reported = match self.plan.bug {
            Bug::DropOnFailure if outcome == Outcome::Failed => Outcome::Delivered,
            Bug::SettleBeforeAnswer if matches!(outcome, Outcome::Failed | Outcome::Throttled { .. }) => Outcome::Delivered,
            _ => outcome,
        };
        match outcome {
            Outcome::Throttled { retry_after_ms } => {
                self.receiver.quiet_until_ms = self.receiver.quiet_until_ms.max(self.now_ms + retry_after_ms);
            }
            Outcome::Gone => self.receiver.shut = true,
            // It was not made: another may be made in its place.
            Outcome::Unsent => self.receiver.count_less(),
            _ => {}
        }
        let entropy = self.random.next();
        self.drive(Input::Attempted { attempt: ended.attempt, outcome: reported, entropy });
        if self.plan.bug == Bug::DeliverAfterGone && outcome == Outcome::Gone {
            let limits = self.choice.limits;
            self.receiver.begin(self.now_ms, ended, &self.log, &limits, self.in_flight_max, &self.disk.cursors);
        }
    }

    fn refuse(&mut self, refused: &Refused) {
        self.coverage.saw("withheld at an attempt");
        let outcome = if refused.alone { Outcome::Withheld } else { Outcome::Unsent };
        for Delivery { place, offset, lane, .. } in refused.records.iter().filter(|_| !refused.alone) {
            self.drive(Input::Withhold { place: *place, offset: *offset, lane: *lane });
        }
        self.drive(Input::Attempted { attempt: refused.attempt, outcome, entropy: 0 });
    }

    /// The receiver fetches some, and acknowledges them or not.
    fn fetch(&mut self, calm: bool) {
        let count = 1 + self.random.below(6) as usize;
        let after = if self.random.chance(50) { 0 } else { self.fetched };
        let mut deliveries = Vec::new();
        let available: Vec<Delivery> = self.machine.available(after).take(count).collect();
        for delivery in available {
            if !delivery.void && self.plan.bug != Bug::AttemptRemoved && self.is_removed(delivery.place, delivery.offset) {
                let Delivery { place, offset, lane, .. } = delivery;
                self.drive(Input::Withhold { place, offset, lane });
                break;
            }
            self.receiver.look_at(&delivery, &self.disk.cursors);
            deliveries.push(delivery);
        }
        let Some(last) = deliveries.last().map(|last| last.number) else { return };
        self.coverage.saw("fetched");
        let acknowledges = calm || self.random.chance(60);
        let fetch = UnderWay { attempt: 0, deliveries, began_step: self.step, hangs_until_ms: 0 };
        self.receiver.take(&fetch, self.life, false);
        self.fetched = last;
        if acknowledges && (after == 0 || calm) {
            self.drive(Input::Acknowledged { number: last });
        }
    }

    /// Takes a commit, or ends the one that is out.
    pub fn persist(&mut self) {
        if let Some((commit, live_to)) = self.commit.take() {
            self.write(&commit, &live_to);
            self.drive(Input::Persisted);
        } else if let Some(commit) = self.machine.take_commit() {
            let live_to = self.live_to();
            if self.plan.bug == Bug::TailAheadOfPending {
                self.disk.live_to = live_to.clone();
            }
            self.commit = Some((commit, live_to));
        } else {
            self.disk.live_to = self.live_to();
        }
    }

    /// How far the shared tail has come; what it implies is in the commit taken at the same time.
    fn live_to(&self) -> BTreeMap<i32, i64> {
        (0..PARTITIONS).map(|at| (at, if self.attached[at as usize] { self.reader[at as usize] } else { self.log.end(at) })).collect()
    }

    fn write(&mut self, commit: &Commit, live_to: &BTreeMap<i32, i64>) {
        for (place, cursor) in &commit.cursors {
            if cursor.scanned_to < self.disk.cursors[place].scanned_to {
                self.receiver.violate("a cursor went back".to_owned());
            }
            match Cursor::from_bytes(&cursor.to_bytes()) {
                Ok(cursor) => drop(self.disk.cursors.insert(*place, cursor)),
                Err(error) => self.receiver.violate(error.to_string()),
            }
        }
        if let Some(numbering) = commit.numbering {
            if numbering.next < self.disk.numbering.next {
                self.receiver.violate("numbers went back".to_owned());
            }
            self.disk.numbering = numbering;
        }
        for letter in &commit.dead_letters {
            self.coverage.saw(if letter.parked { "parked" } else { "skipped" });
            self.disk.letters.push(*letter);
            if !letter.parked {
                self.disk.skipped.insert((letter.place, letter.offset));
            }
        }
        for (partition, to) in live_to {
            let before = self.disk.live_to.entry(*partition).or_default();
            *before = (*before).max(*to);
        }
    }

    pub fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        self.drive(Input::Tick);
    }

    /// The owner starts it, stops it, or lets a parked lane go.
    pub fn run(&mut self) {
        self.receiver.shut = false;
        self.receiver.quiet_until_ms = 0;
        self.drive(Input::Mode(Mode::Running));
    }

    pub fn stop(&mut self) {
        self.meet(Fault::Stop, None);
        self.drive(Input::Mode(Mode::Stopped));
        self.receiver.shut = true;
    }

    pub fn redrive(&mut self) {
        let parked: Vec<(Place, LaneKey, i64)> = self.machine.parked().collect();
        if parked.is_empty() {
            return;
        }
        let (place, lane, _) = self.random.one_of(&parked);
        self.disk.letters.retain(|letter| !(letter.parked && (letter.place, letter.lane) == (place, lane)));
        self.coverage.saw("redriven");
        self.drive(Input::Redrive { place, lane });
        self.machine.set_dead_letters(self.disk.letters.len());
    }

    pub fn settings(&mut self) {
        self.meet(Fault::Settings, None);
        let was_fetched = self.choice.limits.in_flight_max == 0;
        self.choice = plan::choice(&mut self.random);
        self.pending_max = self.pending_max.max(self.choice.limits.pending_max);
        self.in_flight_max = self.in_flight_max.max(self.choice.limits.in_flight_max);
        self.receiver.count_from(self.now_ms, self.machine.in_flight());
        if was_fetched {
            self.fetched = 0;
        }
        self.drive(Input::Settings(self.choice.limits, self.choice.policy));
    }

    pub fn leave_tail(&mut self) {
        let partition = self.random.below(PARTITIONS as u64) as i32;
        if self.attached[partition as usize] {
            self.meet(Fault::Detach, Some(partition));
            self.detach(partition);
        }
    }

    /// The end of a key is published somewhere ahead of, or among, what was read.
    pub fn remove(&mut self) {
        let partition = self.random.below(PARTITIONS as u64) as i32;
        // Half of them hit a key that has something pending.
        let kept: Vec<i64> = self.kept.iter().filter(|(at, _)| at.partition == partition).map(|(_, offset)| *offset).collect();
        let hit = if self.random.chance(50) && !kept.is_empty() { Some(self.random.one_of(&kept)) } else { None };
        let key = hit.and_then(|offset| self.log.entry(place(partition), offset)).map_or(self.random.below(KEYS), |entry| entry.key);
        let of_key: Vec<i64> = self.log.entries(partition).iter().filter(|entry| entry.key == key).map(|entry| entry.offset).collect();
        if of_key.is_empty() {
            return;
        }
        let below = self.random.one_of(&of_key);
        self.meet(Fault::Remove, Some(partition));
        self.log.remove(partition, key, below, self.step);
    }

    /// The shell hears of removals some time after they are in force.
    pub fn hear_of_removals(&mut self) {
        let kept: Vec<(Place, i64)> = self.kept.iter().rev().copied().filter(|(place, offset)| self.is_removed(*place, *offset)).collect();
        for (place, offset) in kept {
            let waiting = self.machine.waiting().any(|lane| (lane.place, lane.offset) == (place, offset));
            if let Some(entry) = self.log.entry(place, offset) {
                let lane = self.log.lane(&entry);
                self.drive(Input::Withhold { place, offset, lane });
            }
            if !self.kept.contains(&(place, offset)) {
                self.coverage.saw(if waiting { "withheld in retry" } else { "withheld while pending" });
            }
        }
    }

    pub fn crash(&mut self) {
        self.meet(Fault::Crash, None);
        if self.tells {
            println!("{} ms, step {}: crash", self.now_ms, self.step);
        }
        // Some of what was on its way still arrives, and some commits get to the disk.
        for attempt in std::mem::take(&mut self.receiver.under_way) {
            if self.random.chance(30) {
                self.receiver.take(&attempt, self.life, false);
            }
        }
        if let Some((commit, live_to)) = self.commit.take()
            && self.random.chance(50)
        {
            self.write(&commit, &live_to);
        }
        match self.plan.bug {
            Bug::ForgetPendingOnRestart => self.disk.cursors.values_mut().for_each(|cursor| {
                cursor.pending.clear();
                cursor.collapsed.clear();
            }),
            Bug::ReuseNumbers => self.disk.numbering.next = self.disk.numbering.next.saturating_sub(3).max(1),
            Bug::ForgetRemovalsOnRestart => self.forgot_until = self.step + 1,
            _ => {}
        }
        self.life += 1;
        self.machine = start(&self.choice, &self.disk);
        self.kept.clear();
        self.refused.clear();
        self.fetched = 0;
        // A restart knows of no pause that the receiver asked for, and starts what it stopped.
        self.receiver.quiet_until_ms = 0;
        self.receiver.shut = false;
        self.open();
    }

    /// A fault meets every lane of a partition, or of all, as it stands.
    pub fn meet(&mut self, fault: Fault, partition: Option<i32>) {
        for at in (0..PARTITIONS).filter(|at| partition.is_none_or(|partition| partition == *at)) {
            let place = place(at);
            let Some((_, cursor)) = self.machine.cursors().find(|(there, _)| *there == place) else { continue };
            let waiting: BTreeSet<i64> = self.machine.waiting().filter(|lane| lane.place == place).map(|lane| lane.offset).collect();
            let under_way: BTreeSet<u64> =
                self.receiver.under_way.iter().flat_map(|one| one.deliveries.iter().map(|one| one.number)).collect();
            for key in 0..KEYS {
                let lane = Log::lane_of_key(key);
                let pending = || {
                    let of_key = |offset: &i64| self.log.entry(place, *offset).is_some_and(|entry| entry.key == key);
                    cursor.pending.iter().filter(move |(offset, _)| of_key(offset))
                };
                let state = match cursor.collapsed.get(&lane) {
                    Some(collapsed) if collapsed.parked => State::Parked,
                    Some(_) => State::Collapsed,
                    None if pending().any(|(offset, _)| waiting.contains(offset)) => State::Waiting,
                    None if pending().any(|(_, pending)| under_way.contains(&pending.number)) => State::InFlight,
                    None if pending().next().is_some() => State::Queued,
                    None => State::Empty,
                };
                self.coverage.lane(state, fault);
            }
        }
    }

    /// Whether there is nothing left to do.
    pub fn rests(&self) -> bool {
        let read = (0..PARTITIONS).all(|at| self.reader[at as usize] >= self.log.end(at) && !self.machine.is_rescanning(place(at)));
        read && self.machine.pending() == 0
            && !self.machine.has_changes()
            && self.commit.is_none()
            && self.disk.cursors.values().all(|cursor| cursor.collapsed.is_empty())
    }

    pub fn describe(&self) -> String {
        format!("{:?} reader {:?} attached {:?} disk {:?}", self.machine, self.reader, self.attached, self.disk)
    }
}

fn start(choice: &Choice, disk: &Disk) -> Machine {
    let cursors = disk.cursors.iter().map(|(place, cursor)| {
        let mut cursor = cursor.clone();
        if let Some(live_to) = disk.live_to.get(&place.partition).filter(|_| cursor.attached) {
            cursor.scanned_to = cursor.scanned_to.max(*live_to);
        }
        (*place, cursor)
    });
    let mut machine = Machine::new(choice.limits, choice.policy, Mode::Running, disk.numbering, cursors);
    machine.set_dead_letters(disk.letters.len());
    machine
}

fn kind(deliveries: &[Delivery]) -> Kind {
    match deliveries {
        [one] if one.void => Kind::Notice,
        [one] if one.attempts > 1 => Kind::Retry,
        [_] => Kind::First,
        _ => Kind::Batch,
    }
}
