//! The hub with its shell: tail, readers, disk, crashes.
//!
//! With `receivers` and `owners` the only part of the simulation that knows the hub; the planted bugs
//! live there and here. Must never decide anything that a real shell does not.

use std::collections::BTreeMap;
use std::fmt::Debug;

use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::hub::gate::Address;
use ryggrad_bridge_core::hub::slots::{ReaderAction, ReaderId};
use ryggrad_bridge_core::hub::{Action, Commit, Hub, HubLimits, Input, MemberId};
use ryggrad_bridge_core::matching::Echoes;

use super::coverage::{Coverage, Reads, State};
use super::log::{Denied, Known, Lists, Log, places};
use super::plan::{self, Bug, Fault, Plan, SUBSCRIPTIONS};
use super::random::Random;
use super::subscription::{Subscription, UnderWay};

pub struct Rig {
    pub plan: Plan,
    pub random: Random,
    pub log: Log,
    pub coverage: Coverage,
    /// All that ever were; those that were removed stay, to be judged.
    pub subscriptions: Vec<Subscription>,
    pub violation: Option<String>,
    pub(super) hub: Hub,
    limits: HubLimits,
    pub(super) known: Known,
    pub(super) denied: Denied,
    pub(super) lists: Lists,
    tail: BTreeMap<Place, i64>,
    tail_echoes: Echoes,
    readers: BTreeMap<ReaderId, (Place, i64, Echoes)>,
    /// Readers from which something was asked for.
    asked: Vec<ReaderId>,
    pub(super) under_way: Vec<UnderWay>,
    /// Attempts that the hub is told of at once: a planted bug.
    pub(super) early: Vec<UnderWay>,
    /// Attempts of whose end the hub is not told: a planted bug.
    pub(super) disowned: Vec<(MemberId, u64)>,
    pub(super) commit: Option<Commit>,
    /// What is stored of the tail.
    live: BTreeMap<Place, i64>,
    pub(super) now_ms: u64,
    pub(super) step: u64,
    pub(super) life: u32,
    /// An address that never answers.
    pub mute: Option<Address>,
    /// The bridge is about to end.
    pub(super) closed: bool,
    /// Prints what happens.
    tells: bool,
}

pub fn address(name: usize) -> Address {
    format!("https://receiver-{name}.example/").as_str().into()
}

/// A reading that starts at these offsets.
fn reading(at: &BTreeMap<Place, i64>) -> Echoes {
    Echoes::starting_at(at.iter().map(|(place, at)| (place.partition, *at)))
}

fn start(limits: HubLimits, known: &Known, lists: &Lists, bug: Bug, live: &BTreeMap<Place, i64>) -> Hub {
    let guard = match bug {
        Bug::SendWithheld => known.without_removals(),
        Bug::SendDenied => known.without_denials(),
        Bug::DecideOnce => known.never_looking_again(),
        _ => known.clone(),
    };
    Hub::new(limits, Box::new(guard), live.iter().map(|(place, at)| (*place, *at))).watching(Box::new(lists.clone()))
}

impl Rig {
    pub fn new(plan: Plan, tells: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let log = Log::new(&mut random, plan.events);
        let limits = plan::hub_limits(&mut random);
        let live: BTreeMap<Place, i64> = places().map(|place| (place, log.start(place))).collect();
        // In every second plan one of them fetches.
        let fetches = random.below(2 * SUBSCRIPTIONS as u64) as usize;
        let denied = Denied::default();
        let subscriptions = (0..SUBSCRIPTIONS)
            .map(|index| Subscription::new(&mut random, &plan, &denied, index == fetches, address(index), live.clone(), 0))
            .collect();
        let known = Known::of(denied.clone());
        let lists = Lists::default();
        let hub = start(limits, &known, &lists, plan.bug, &live);
        let mut rig = Self {
            plan,
            random,
            log,
            coverage: Coverage::default(),
            subscriptions,
            violation: None,
            hub,
            limits,
            known,
            denied,
            lists,
            tail_echoes: reading(&live),
            tail: live.clone(),
            readers: BTreeMap::new(),
            asked: Vec::new(),
            under_way: Vec::new(),
            early: Vec::new(),
            disowned: Vec::new(),
            commit: None,
            live,
            now_ms: 0,
            step: 0,
            life: 0,
            mute: None,
            closed: false,
            tells,
        };
        (0..SUBSCRIPTIONS).for_each(|index| rig.join(index));
        rig
    }

    pub fn violate(&mut self, why: String) {
        self.violation.get_or_insert(why);
    }

    pub fn tell(&self, what: &dyn Debug) {
        if self.tells {
            println!("{} ms, step {}: {what:?}", self.now_ms, self.step);
        }
    }

    /// A subscription begins, or goes on from the disk.
    pub(super) fn join(&mut self, index: usize) {
        self.step += 1;
        let mut actions = Vec::new();
        let mut newcomer = self.subscriptions[index].newcomer();
        if self.plan.bug == Bug::HoldForgottenInACrash {
            newcomer.held = false;
        }
        if self.plan.bug == Bug::ReplayPastItsEnd {
            newcomer.until.iter_mut().flat_map(BTreeMap::values_mut).for_each(|until| *until += 3);
        }
        let member = self.hub.add(self.now_ms, newcomer, &mut actions);
        self.subscriptions[index].member = member;
        self.act(actions);
    }

    pub(super) fn drive(&mut self, input: Input) {
        self.step += 1;
        if self.tells {
            match &input {
                Input::Tail(records) => {
                    self.tell(&("tail", records.iter().map(|record| (record.place, record.offset())).collect::<Vec<_>>()))
                }
                Input::Chunk { reader, records, at_end } => {
                    self.tell(&(reader, records.iter().map(|record| (record.place, record.offset())).collect::<Vec<_>>(), at_end));
                }
                input => self.tell(input),
            }
        }
        let mut actions = Vec::new();
        self.hub.step(self.now_ms, input, &mut actions);
        self.act(actions);
    }

    pub(super) fn index(&self, member: MemberId) -> Option<usize> {
        self.subscriptions.iter().position(|subscription| subscription.member == member)
    }

    pub(super) fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Reader(action) => self.obey(action),
                Action::Attempt { member, address, attempt, parcels } => self.begin(member, address, attempt, parcels),
                Action::Available(member) => {
                    if let Some(index) = self.index(member) {
                        self.subscriptions[index].has_news = true;
                    }
                }
                Action::Finished(member) => self.finished(member),
                Action::Rewound { member, place, to } => self.rewound(member, place, to),
                Action::Disable { member, reason, .. } => self.disabled(member, reason),
            }
        }
        while let Some(attempt) = self.early.pop() {
            self.told(&attempt, ryggrad_bridge_core::outcome::Outcome::Delivered, true);
        }
    }

    fn obey(&mut self, action: ReaderAction) {
        self.tell(&action);
        match action {
            ReaderAction::Open(id, place, at) => {
                self.coverage.saw("reader opened");
                self.readers.insert(id, (place, at, Echoes::starting_at([(place.partition, at)])));
                self.asked.push(id);
                if self.readers.len() > self.limits.readers_max {
                    self.violate(format!("{} readers are open", self.readers.len()));
                }
            }
            ReaderAction::More(id) => self.asked.push(id),
            ReaderAction::Close(id) => {
                self.coverage.saw("reader closed");
                self.readers.remove(&id);
                self.asked.retain(|asked| *asked != id);
            }
        }
    }

    pub fn publish(&mut self, place: Place, events: usize) {
        self.step += 1;
        self.log.publish(place, events, self.step);
    }

    /// The tail hands over what it has read.
    pub fn tail(&mut self, place: Place) {
        let count = 1 + self.random.below(8) as usize;
        let mut records = self.log.read(place, self.tail[&place], count, &mut self.tail_echoes);
        let Some(last) = records.last() else { return };
        self.tail.insert(place, last.offset() + 1);
        if self.plan.bug == Bug::LoseTailBatch && self.random.chance(3) {
            records.clear();
        }
        self.drive(Input::Tail(records));
    }

    /// A reader hands over what it was asked for, or is lost.
    pub fn serve(&mut self, calm: bool) {
        if self.asked.is_empty() {
            return;
        }
        let index = self.random.below(self.asked.len() as u64) as usize;
        let reader = self.asked.swap_remove(index);
        let Some((place, at, mut echoes)) = self.readers.remove(&reader) else { return };
        if !calm && self.plan.has(Fault::LoseReader) && self.random.chance(5) {
            self.meet(Fault::LoseReader, place);
            if self.plan.bug != Bug::LoseReaderUntold {
                self.drive(Input::ReaderLost(reader));
            }
            return;
        }
        // In the end a turn reaches over everything that counts as near, as it does with real hand-overs.
        let count = 1 + self.random.below(if calm { 40 } else { 7 }) as usize;
        if self.plan.bug == Bug::EchoForEvent {
            echoes = Echoes::default();
        }
        let mut records = self.log.read(place, at, count, &mut echoes);
        let at_end = records.is_empty() || (records.len() < count && self.random.chance(50));
        self.readers.insert(reader, (place, records.last().map_or(at, |last| last.offset() + 1), echoes));
        self.coverage.saw(if at_end { "reader at the end" } else { "chunk" });
        if self.plan.bug == Bug::LoseChunk && self.random.chance(5) {
            // The reader goes on behind it.
            records.drain(..records.len().saturating_sub(1));
        }
        self.drive(Input::Chunk { reader, records, at_end });
    }

    /// Takes a commit, or ends the one that is out.
    pub fn persist(&mut self) {
        if let Some(commit) = self.commit.take() {
            self.write(commit);
            if self.plan.bug != Bug::PersistedTooEarly {
                self.drive(Input::Persisted);
            }
        } else if let Some(commit) = self.hub.take_commit(self.now_ms, self.closed) {
            self.weigh();
            if self.plan.bug == Bug::TailAheadOfPending {
                self.live.extend(commit.live.iter().copied());
            }
            self.commit = Some(commit);
            if self.plan.bug == Bug::PersistedTooEarly {
                self.drive(Input::Persisted);
            }
        }
    }

    /// Memory is bounded by the ring and the windows.
    fn weigh(&mut self) {
        if self.hub.rings().bytes() > self.limits.ring_bytes_max {
            self.violate(format!("the rings hold {} bytes", self.hub.rings().bytes()));
        }
        let over = |subscription: &&Subscription| {
            self.hub.member(subscription.member).is_some_and(|member| member.all_kept().count() > subscription.pending_max)
        };
        if let Some(over) = self.subscriptions.iter().find(over) {
            self.violate(format!("more than {} records are kept", over.pending_max));
        }
    }

    fn write(&mut self, commit: Commit) {
        for (place, to) in commit.live {
            if self.live.insert(place, to).is_some_and(|before| before > to) {
                self.violate("the tail's position went back".to_owned());
            }
        }
        for (member, stored) in commit.members {
            // Gone meanwhile, and forgotten.
            let Some(index) = self.index(member).filter(|index| !self.subscriptions[*index].removed) else { continue };
            for (place, cursor) in stored.cursors {
                self.write_cursor(index, place, &cursor);
            }
            let disk = &mut self.subscriptions[index].disk;
            if let Some(numbering) = stored.numbering {
                let before = std::mem::replace(&mut disk.numbering, numbering);
                if self.plan.bug == Bug::NumberingLate {
                    disk.numbering = before;
                }
                if before.next > numbering.next {
                    self.violate("numbers went back".to_owned());
                }
            }
            for letter in stored.dead_letters {
                self.coverage.saw(if letter.parked { "parked" } else { "skipped" });
                let disk = &mut self.subscriptions[index].disk;
                disk.letters.push(letter);
                if !letter.parked {
                    disk.skipped.insert((letter.place, letter.offset));
                }
            }
        }
    }

    fn write_cursor(&mut self, index: usize, place: Place, cursor: &Cursor) {
        let Ok(mut cursor) = Cursor::from_bytes(&cursor.to_bytes()) else {
            return self.violate("a cursor can't be stored".to_owned());
        };
        if self.plan.bug == Bug::AttachWithoutTheGap && self.random.chance(10) {
            cursor.attached = true;
        }
        let generation = |cursor: &Cursor| cursor.rewinds.last().map_or(0, |rewind| rewind.generation);
        let (attached, scanned_to, gone_back) = (cursor.attached, cursor.scanned_to, generation(&cursor));
        let went_back = self.subscriptions[index].disk.cursors.get(&place).is_some_and(|before| generation(before) < gone_back);
        if went_back {
            self.subscriptions[index].rewind_stored(place, gone_back);
            if self.plan.bug == Bug::RewindForgetsNumbers {
                cursor.pending.retain(|offset, _| *offset >= 0);
            }
        }
        let before = self.subscriptions[index].disk.cursors.insert(place, cursor);
        if !went_back && before.as_ref().is_some_and(|before| before.scanned_to > scanned_to) {
            self.violate("a cursor went back".to_owned());
        }
        if attached && before.is_some_and(|before| !before.attached) {
            self.coverage.saw("attached");
        }
    }

    pub fn tick(&mut self, ms: u64) {
        self.now_ms += ms;
        self.drive(Input::Tick);
    }

    /// The bridge ends in good order: what is under way ends, and is stored.
    pub fn restart(&mut self) {
        places().for_each(|place| self.meet(Fault::Restart, place));
        self.tell(&"restart");
        self.hub.close();
        self.closed = true;
        // Some hang for longer than it waits.
        for _ in 0..20 {
            self.answer(false);
        }
        for _ in 0..4 {
            self.persist();
        }
        for attempt in std::mem::take(&mut self.under_way) {
            if self.random.chance(30) {
                self.subscriptions[attempt.subscription].takes(&attempt, self.life, false);
            }
        }
        self.commit = None;
        self.life += 1;
        self.start_again();
    }

    /// Time passes, and the hub is woken when it has asked for it, and not otherwise.
    pub fn pass_time(&mut self) {
        self.now_ms += 20;
        if self.hub.wake_at_ms().is_some_and(|due_ms| due_ms <= self.now_ms) {
            self.drive(Input::Tick);
            if self.commit.is_none() {
                self.persist();
            }
            // What can't be done now must not keep the shell busy.
            if let Some(due_ms) = self.hub.wake_at_ms().filter(|due_ms| (1..=self.now_ms).contains(due_ms)) {
                self.violate(format!("woken at {} ms, it asks to be woken at {due_ms} ms", self.now_ms));
            }
        }
    }

    pub fn crash(&mut self) {
        places().for_each(|place| self.meet(Fault::Crash, place));
        self.tell(&"crash");
        // Some of what was on its way still arrives, and some commits get to the disk.
        for attempt in std::mem::take(&mut self.under_way) {
            if self.random.chance(30) {
                self.subscriptions[attempt.subscription].takes(&attempt, self.life, false);
            }
        }
        if let Some(commit) = self.commit.take()
            && self.random.chance(50)
        {
            self.write(commit);
        }
        self.life += 1;
        self.start_again();
    }

    /// All that was not on disk is lost.
    fn start_again(&mut self) {
        self.closed = false;
        self.under_way.clear();
        self.disowned.clear();
        self.readers.clear();
        self.asked.clear();
        self.tail = self.live.clone();
        self.tail_echoes = reading(&self.live);
        if self.plan.bug == Bug::ForgetRemovalsOnRestart {
            self.known.forget();
        }
        if self.random.chance(50) {
            self.limits = plan::hub_limits(&mut self.random);
        }
        self.hub = start(self.limits, &self.known, &self.lists, self.plan.bug, &self.live);
        for index in 0..self.subscriptions.len() {
            let is_replay = self.subscriptions[index].until.is_some();
            if is_replay && self.plan.bug == Bug::ReplayLostInACrash {
                // Ids begin anew.
                self.subscriptions[index].member = MemberId(u32::MAX);
                continue;
            }
            let subscription = &mut self.subscriptions[index];
            // Told again, or not yet.
            subscription.finished = false;
            // Whoever fetches comes anew, and looks once.
            subscription.has_news = true;
            if subscription.removed {
                // Ids begin anew.
                subscription.member = MemberId(u32::MAX);
                continue;
            }
            if self.plan.bug == Bug::ForgetPendingOnRestart {
                subscription.disk.cursors.values_mut().for_each(|cursor| cursor.pending.clear());
            }
            if !subscription.unstored_rounds.is_empty() {
                subscription.unstored_rounds.clear();
                self.coverage.saw("rewound and lost");
            }
            // A restart knows of no pause that the receiver asked for.
            subscription.quiet_until_ms = 0;
            self.join(index);
        }
    }

    /// A fault meets every subscription in a partition, as it stands.
    pub(super) fn meet(&mut self, fault: Fault, place: Place) {
        for index in 0..self.subscriptions.len() {
            self.meets(fault, index, place);
        }
    }

    /// A fault meets one subscription in a partition, as it stands.
    pub(super) fn meets(&mut self, fault: Fault, index: usize, place: Place) {
        let subscription = &self.subscriptions[index];
        let Some(member) = self.hub.member(subscription.member).filter(|_| !subscription.removed) else { return };
        let own = member.detached().find(|(at, _)| *at == place).map(|(_, offset)| offset);
        let ring = self.hub.rings().get(place).map_or(0, ryggrad_bridge_core::hub::ring::Stretch::start);
        let reads = match own {
            _ if member.machine().is_rescanning(place) => Reads::Again,
            None => Reads::Tail,
            Some(offset) if offset >= ring => Reads::Ring,
            Some(_) => Reads::Reader,
        };
        let attempts = self.under_way.iter().any(|attempt| attempt.subscription == index);
        self.coverage.met(State { reads, attempts, commit: self.commit.is_some() }, fault);
    }

    /// How many attempts there may be, and how many of them at one address.
    pub(super) fn attempts_max(&self) -> (usize, usize) {
        (self.limits.gate.in_flight_total_max, self.limits.gate.endpoint.in_flight_max)
    }

    /// Whether there is nothing left to do.
    pub fn rests(&self) -> bool {
        let idle = |subscription: &Subscription| {
            if subscription.finished {
                return true;
            }
            if self.mute.as_ref() == Some(&subscription.address) && !subscription.fetches {
                return true;
            }
            let Some(member) = self.hub.member(subscription.member) else { return false };
            let whole = subscription.disk.cursors.values().all(|cursor| cursor.collapsed.is_empty());
            member.machine().pending() == 0 && !member.machine().has_changes() && member.detached().next().is_none() && whole
        };
        places().all(|place| self.tail[&place] >= self.log.end(place))
            && (self.commit.is_none() || self.mute.is_some())
            && self.subscriptions.iter().filter(|subscription| !subscription.removed).all(idle)
    }

    pub fn describe(&self) -> String {
        let members = self.subscriptions.iter().filter_map(|subscription| {
            let member = self.hub.member(subscription.member)?;
            let detached: Vec<_> = member.detached().collect();
            Some(format!("detached {detached:?}, {:?}, disk {:?}", member.machine(), subscription.disk))
        });
        let members: Vec<String> = members.collect();
        let ring: Vec<_> = self.hub.rings().ends().collect();
        let Self { tail, readers, asked, .. } = self;
        format!("tail {tail:?}, rings {ring:?}, readers {readers:?} asked {asked:?}, {} queued, {members:#?}", self.hub.slots().queued())
    }
}
