//! The delivery machine of one subscription: what to attempt, when, and how far the cursor is.
//!
//! Pure: `step(now, input, &mut actions)`. The shell reads the log, makes the attempts, and
//! persists what [`Machine::take_commit`] hands out. Promises: a lane (one key) never has two
//! attempts at once and never overtakes itself; a failing lane stops no other; every wanted
//! record gets a number, on disk before anything leaves, and every number is closed by its event
//! or by a void notice; what a crash can repeat is bounded by the window.

mod attempts;
mod books;
mod exchange;
mod intake;
mod lanes;
mod pull;
mod rate;
mod rewind;
mod scan;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::cursor::{Cursor, LaneKey, Place};
use crate::mixer::MixedMap;

use attempts::UnderWay;
use books::Books;
use intake::Intake;
use lanes::{Held, LaneId, LaneMap, LaneState};
pub use rate::Rate;
use rate::Rates;

pub use exchange::{Action, Commit, DeadLetter, Delivery, DisableReason, Input, Limits, Mode, Numbering, Policy, Verdict, WaitingLane};
pub use lanes::lane_alone;
pub use scan::PATIENCE_MS;

/// The machine.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    policy: Policy,
    mode: Mode,
    /// Whoever it is for was stopped: nothing leaves, whatever the mode.
    held: bool,
    books: Books,
    intake: Intake,
    rates: Rates,
    lanes: LaneMap,
    ready: VecDeque<LaneId>,
    /// Lanes whose head is in the commit that is out, and in the next.
    committing: Vec<LaneId>,
    uncommitted: Vec<LaneId>,
    timers: BTreeSet<(u64, LaneId)>,
    attempts: MixedMap<u64, UnderWay>,
    next_attempt: u64,
    throttled_until_ms: u64,
    /// Partitions that are to go back, as soon as nothing is under way.
    rewinding: BTreeMap<Place, i64>,
    /// When the unbroken row of failures began.
    failing_since_ms: Option<u64>,
    /// Events set aside and still there.
    dead_letters: usize,
    counts: Counts,
}

/// What has happened since this machine started.
#[derive(Debug, Default)]
struct Counts {
    delivered: u64,
    failed_attempts: u64,
    compacted: u64,
    withheld: u64,
    dead_lettered: u64,
    voided: u64,
}

impl Counts {
    /// The receiver has taken it: the shell may forget an event. A void notice was never kept.
    fn taken(&mut self, place: Place, held: &Held, actions: &mut Vec<Action>) {
        if held.void {
            self.voided += 1;
        } else {
            self.delivered += 1;
            actions.push(Action::Forget { place, offset: held.offset });
        }
    }
}

impl Machine {
    /// A machine that goes on from stored cursors. Each partition must be read from
    /// [`read_from`](Self::read_from). An attached partition's `scanned_to` has been raised to the
    /// shared `live_to`; it is detached if it [has to be read again](Self::is_rescanning).
    pub fn new(
        limits: Limits,
        policy: Policy,
        mode: Mode,
        numbering: Numbering,
        cursors: impl IntoIterator<Item = (Place, Cursor)>,
    ) -> Self {
        let mut machine = Self {
            limits,
            policy,
            mode,
            held: false,
            books: Books::new(numbering, cursors),
            intake: Intake::new(&limits),
            rates: Rates { own: Rate::new(limits.attempts_per_minute_max), lent: None },
            lanes: LaneMap::default(),
            ready: VecDeque::new(),
            committing: Vec::new(),
            uncommitted: Vec::new(),
            timers: BTreeSet::new(),
            attempts: MixedMap::default(),
            next_attempt: 1,
            throttled_until_ms: 0,
            rewinding: BTreeMap::new(),
            failing_since_ms: None,
            dead_letters: 0,
            counts: Counts::default(),
        };
        machine.set_shelf();
        for place in machine.books.parts.keys().copied().collect::<Vec<_>>() {
            machine.hold_notices(place);
        }
        machine
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now_ms: u64, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Record { place, offset, lane, verdict } => self.record(place, offset, lane, verdict, actions),
            Input::Passed { place, to } => self.passed(place, to),
            Input::Attached { place, attached } => self.attached(place, attached),
            Input::Attempted { attempt, outcome, entropy } => self.attempted(now_ms, attempt, outcome, entropy, actions),
            Input::Withhold { place, offset, lane } => self.withhold((place, lane), offset, actions),
            Input::Acknowledged { number } => self.acknowledged(number, actions),
            Input::Emptied if self.books.used() >= self.intake.bound() / 2 => self.intake.widen(&self.limits),
            Input::Emptied => {}
            Input::Redrive { place, lane } => self.redrive(place, lane),
            Input::Rewind { place, to } => drop(self.rewinding.insert(place, to)),
            Input::Persisted => self.persisted(),
            Input::Mode(mode) => self.set_mode(now_ms, mode),
            Input::Held(held) => self.set_held(now_ms, held),
            Input::Settings(limits, policy) => self.set(now_ms, limits, policy),
            Input::Tick => {}
        }
        self.rewind(actions);
        self.dispatch(now_ms, actions);
        self.look_again(actions);
    }

    /// What is left of its attempts a minute.
    pub fn rate(&self) -> Rate {
        self.rates.own
    }

    /// The same after another machine has drawn from it.
    pub fn set_rate(&mut self, rate: Rate) {
        self.rates.own = rate;
    }

    /// The next step's attempts draw from this rate as well.
    pub fn lend(&mut self, rate: Option<Rate>) {
        self.rates.lent = rate;
    }

    /// What is left of the rate that was lent.
    pub fn lent(&self) -> Option<Rate> {
        self.rates.lent
    }

    /// Where a partition has to be read from, by a reader that starts now.
    pub fn read_from(&self, place: Place) -> i64 {
        self.books.parts.get(&place).map_or(0, |part| part.rescan.as_ref().map_or(part.cursor.scanned_to, |rescan| rescan.from))
    }

    /// Whether a second look at what lies below `scanned_to` is due or under way.
    pub fn is_rescanning(&self, place: Place) -> bool {
        self.books.parts.get(&place).is_some_and(|part| part.rescan.is_some())
    }

    /// Everything below has been looked at.
    pub fn scanned_to(&self, place: Place) -> i64 {
        self.books.parts.get(&place).map_or(0, |part| part.cursor.scanned_to)
    }

    /// Whether this record is matched and not settled, so that a second look must hand it in
    /// whatever the filter says today.
    pub fn is_pending(&self, place: Place, offset: i64) -> bool {
        self.books.parts.get(&place).and_then(|part| part.cursor.pending.get(&offset)).is_some_and(|pending| !pending.void)
    }

    /// What has changed, to be persisted together; at most one commit is out at a time.
    pub fn take_commit(&mut self) -> Option<Commit> {
        let commit = self.books.take_commit()?;
        // Nothing is in `committing` while no commit is out.
        std::mem::swap(&mut self.committing, &mut self.uncommitted);
        Some(commit)
    }

    /// Whether there is anything to persist that no commit holds yet.
    pub fn has_changes(&self) -> bool {
        self.books.has_changes()
    }

    /// Whether something waits for what has changed to be on disk: attempts, of which few are left
    /// to be made without it, room for what comes next, or somebody who fetches.
    pub fn waits_for_commit(&self) -> bool {
        if !self.books.has_changes() || self.limits.in_flight_max == 0 {
            return self.books.has_changes();
        }
        let line_is_short = self.attempts.len() + self.ready.len() < self.limits.in_flight_max;
        line_is_short && (!self.uncommitted.is_empty() || self.room() <= self.books.settled())
    }

    /// When `Tick` is due, if at all.
    pub fn wake_at_ms(&self) -> Option<u64> {
        if self.mode == Mode::Stopped || self.held {
            return None;
        }
        let line_moves = !self.ready.is_empty() && self.attempts.len() < self.limits.in_flight_max && self.rewinding.is_empty();
        let line = line_moves.then(|| self.throttled_until_ms.max(self.rates.next_ms()));
        let timer = self.timers.first().map(|(due_ms, _)| *due_ms);
        [line, timer].into_iter().flatten().min()
    }

    /// How deliveries are numbered, up to now.
    pub fn numbering(&self) -> Numbering {
        self.books.numbering
    }

    /// Whether attempts are made.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// It begins held.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Whether it is held.
    pub fn is_held(&self) -> bool {
        self.held
    }

    /// Whether an attempt may begin now: not while it is stopped, held or about to go back, nor before
    /// `Retry-After`.
    pub fn may_attempt(&self, now_ms: u64) -> bool {
        self.mode == Mode::Running && !self.held && now_ms >= self.throttled_until_ms && self.rewinding.is_empty()
    }

    /// Matched and unsettled records that the window holds.
    pub fn pending(&self) -> usize {
        self.books.pending
    }

    /// Nothing is left to be delivered of what was looked at, nor to be stored.
    pub fn is_at_rest(&self) -> bool {
        let whole = || self.books.parts.values().all(|part| part.cursor.collapsed.is_empty());
        self.books.pending == 0 && self.books.is_clear() && !self.books.has_changes() && whole()
    }

    /// The oldest unsettled record of each partition.
    pub fn oldest_pending(&self) -> impl Iterator<Item = (Place, i64)> {
        self.books.parts.iter().filter_map(|(place, part)| Some((*place, *part.cursor.pending.first_key_value()?.0)))
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.attempts.len()
    }

    /// Events delivered since this machine started.
    pub fn delivered(&self) -> u64 {
        self.counts.delivered
    }

    /// Failed attempts since this machine started.
    pub fn failed_attempts(&self) -> u64 {
        self.counts.failed_attempts
    }

    /// Pending records that compaction has taken, since this machine started.
    pub fn compacted(&self) -> u64 {
        self.counts.compacted
    }

    /// Wanted records that were withheld, since this machine started.
    pub fn withheld(&self) -> u64 {
        self.counts.withheld
    }

    /// Events set aside since this machine started.
    pub fn dead_lettered(&self) -> u64 {
        self.counts.dead_lettered
    }

    /// Void notices delivered since this machine started.
    pub fn voided(&self) -> u64 {
        self.counts.voided
    }

    /// How many events are set aside of which the shell knows: it keeps them, and says so at the start
    /// and whenever it lets some go.
    pub fn set_dead_letters(&mut self, dead_letters: usize) {
        self.dead_letters = dead_letters + self.books.unstored_letters();
    }

    /// The cursors as they are now.
    pub fn cursors(&self) -> impl Iterator<Item = (Place, &Cursor)> {
        self.books.parts.iter().map(|(place, part)| (*place, &part.cursor))
    }

    /// Lanes that wait after a failure, the soonest first.
    pub fn waiting(&self) -> impl Iterator<Item = WaitingLane> {
        self.timers.iter().filter_map(|(due_ms, id)| {
            let lane = self.lanes.get(id)?;
            let LaneState::Waiting { outcome, .. } = lane.state else { return None };
            let head = lane.queue.front()?;
            Some(WaitingLane { place: id.0, offset: head.offset, attempts: head.attempts, due_ms: *due_ms, outcome })
        })
    }

    /// Lanes set aside: where, which, and the offset before the first record that waits.
    pub fn parked(&self) -> impl Iterator<Item = (Place, LaneKey, i64)> {
        self.books.parts.iter().flat_map(|(place, part)| {
            let parked = part.cursor.collapsed.iter().filter(|(_, lane)| lane.parked);
            parked.map(|(key, lane)| (*place, *key, lane.mark))
        })
    }

    fn set_mode(&mut self, now_ms: u64, mode: Mode) {
        self.mode = mode;
        if mode == Mode::Running {
            // Whoever starts it again has mended something.
            self.throttled_until_ms = 0;
            self.try_at_once(now_ms);
        }
    }

    /// What the receiver asked for (`Retry-After`) outlasts it.
    fn set_held(&mut self, now_ms: u64, held: bool) {
        if std::mem::replace(&mut self.held, held) && !held {
            self.try_at_once(now_ms);
        }
    }

    /// Ends the waits after failures, whose time is counted anew.
    fn try_at_once(&mut self, now_ms: u64) {
        self.failing_since_ms = None;
        for lane in self.lanes.values_mut() {
            lane.failing_since_ms = lane.failing_since_ms.map(|_| now_ms);
        }
        for (_, id) in std::mem::take(&mut self.timers) {
            self.line_up(id);
        }
    }

    fn set(&mut self, now_ms: u64, limits: Limits, policy: Policy) {
        let fetched = self.limits.in_flight_max == 0;
        let fetches = limits.in_flight_max == 0;
        self.limits = limits;
        self.policy = policy;
        self.intake.set(&limits);
        self.rates.own.set(now_ms, limits.attempts_per_minute_max);
        if fetched == fetches {
            return;
        }
        // Everything that is not under way lines up again, or stands on the shelf.
        self.set_shelf();
        self.timers.clear();
        self.ready.clear();
        self.committing.clear();
        self.uncommitted.clear();
        let mut lanes: Vec<LaneId> = self.lanes.iter().filter(|(_, lane)| lane.under_way == 0).map(|(id, _)| *id).collect();
        lanes.sort_unstable();
        for id in lanes {
            self.line_up(id);
        }
    }
}

#[cfg(test)]
mod tests;
