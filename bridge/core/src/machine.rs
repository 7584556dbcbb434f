//! The delivery machine of one subscription: what to attempt, when, and how far the cursor is.
//!
//! Pure: `step(now, input, &mut actions)`. The shell reads the log, makes the attempts, and
//! persists what [`Machine::take_commit`] hands out. Promises: a lane (one key) never has two
//! attempts at once and never overtakes itself; a failing lane stops no other; an offset leaves
//! the cursor only after it was delivered; what a crash can repeat is bounded by the window.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::cursor::{Cursor, LaneKey, Place};
use crate::outcome::Outcome;
use crate::retry::RetryPolicy;

/// Limits of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Matched and unsettled, or settled and not yet persisted: the window.
    pub pending_max: usize,
    /// Of these, in one lane.
    pub pending_per_key_max: usize,
    /// Attempts at the same time.
    pub in_flight_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pending_max: 1_024, pending_per_key_max: 64, in_flight_max: 16 }
    }
}

/// Whether attempts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Yes.
    Running,
    /// No: by the owner or because the endpoint is gone. Attempts under way are waited for.
    Stopped,
}

/// What happens to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A record was read, in the order of the partition.
    Record {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its lane.
        lane: LaneKey,
        /// Whether the subscription wants it.
        matched: bool,
    },
    /// The reader has reached the end of a partition.
    AtEnd {
        /// Which.
        place: Place,
    },
    /// An attempt has ended.
    Attempted {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its lane.
        lane: LaneKey,
        /// How.
        outcome: Outcome,
        /// Randomness for the jitter.
        entropy: u64,
    },
    /// The last commit handed out is on disk.
    Persisted,
    /// Attempts may be made, or not. Starting clears every wait.
    Mode(Mode),
    /// Time has passed.
    Tick,
}

/// What the shell must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep the record just read: it will be attempted.
    Keep {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
    },
    /// Attempt this kept record.
    Attempt {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its lane.
        lane: LaneKey,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Forget this kept record: it is settled.
    Forget {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
    },
    /// Read this partition again, from [`Machine::read_from`].
    Rescan {
        /// Where.
        place: Place,
    },
    /// The endpoint is gone: disable the subscription. Attempts have stopped.
    Disable,
}

/// A lane that waits after a failure, for people to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingLane {
    /// Where.
    pub place: Place,
    /// The record that fails.
    pub offset: i64,
    /// Failed attempts.
    pub attempts: u32,
    /// When it is tried again.
    pub due_ms: u64,
    /// How the last attempt ended.
    pub outcome: Outcome,
}

/// Cursors to persist together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Changed cursors.
    pub cursors: Vec<(Place, Cursor)>,
}

type LaneId = (Place, LaneKey);

#[derive(Debug, Default)]
struct Lane {
    /// Kept offsets, ascending; the first is the one attempted.
    queue: VecDeque<i64>,
    state: LaneState,
    attempts: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum LaneState {
    #[default]
    Idle,
    Ready,
    InFlight,
    Waiting {
        due_ms: u64,
        outcome: Outcome,
    },
}

#[derive(Debug)]
struct Part {
    cursor: Cursor,
    dirty: bool,
    rescan: Option<Rescan>,
}

/// A second look at what lies below `scanned_to`.
#[derive(Debug)]
struct Rescan {
    from: i64,
    /// Lanes that had no room for a record.
    refused: HashSet<LaneKey>,
}

impl Rescan {
    fn from(from: i64) -> Option<Self> {
        Some(Self { from, refused: HashSet::new() })
    }
}

/// The machine.
#[derive(Debug)]
pub struct Machine {
    limits: Limits,
    retry: RetryPolicy,
    mode: Mode,
    parts: BTreeMap<Place, Part>,
    lanes: HashMap<LaneId, Lane>,
    ready: VecDeque<LaneId>,
    timers: BTreeSet<(u64, LaneId)>,
    in_flight: usize,
    pending: usize,
    /// Settled since the last commit was taken, and in the commit under way.
    settled: usize,
    settling: Option<usize>,
    throttled_until_ms: u64,
    delivered: u64,
    failed_attempts: u64,
    compacted: u64,
}

impl Machine {
    /// A machine that goes on from stored cursors. Each partition must be read from
    /// [`read_from`](Self::read_from).
    pub fn new(limits: Limits, retry: RetryPolicy, mode: Mode, cursors: impl IntoIterator<Item = (Place, Cursor)>) -> Self {
        let parts: BTreeMap<Place, Part> = cursors
            .into_iter()
            .map(|(place, cursor)| {
                let resume_at = cursor.resume_at();
                let rescan = if resume_at < cursor.scanned_to { Rescan::from(resume_at) } else { None };
                (place, Part { cursor, dirty: false, rescan })
            })
            .collect();
        let pending = parts.values().map(|part| part.cursor.pending.len()).sum();
        Self {
            limits,
            retry,
            mode,
            parts,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            in_flight: 0,
            pending,
            settled: 0,
            settling: None,
            throttled_until_ms: 0,
            delivered: 0,
            failed_attempts: 0,
            compacted: 0,
        }
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now_ms: u64, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Record { place, offset, lane, matched } => self.record(place, offset, lane, matched, actions),
            Input::AtEnd { place } => self.end_rescan(place, actions),
            Input::Attempted { place, offset, lane, outcome, entropy } => {
                self.attempted(now_ms, (place, lane), offset, outcome, entropy, actions)
            }
            Input::Persisted => self.settling = None,
            Input::Mode(mode) => self.set_mode(mode),
            Input::Tick => {}
        }
        self.dispatch(now_ms, actions);
    }

    /// Whether the record at this offset may be handed in now, or must wait for room.
    pub fn accepts(&self, place: Place, offset: i64) -> bool {
        // What is read again is counted already.
        self.window_used() < self.limits.pending_max || self.parts.get(&place).is_some_and(|part| offset < part.cursor.scanned_to)
    }

    /// Where a partition has to be read from, by a reader that starts now.
    pub fn read_from(&self, place: Place) -> i64 {
        self.parts.get(&place).map_or(0, |part| part.rescan.as_ref().map_or(part.cursor.scanned_to, |rescan| rescan.from))
    }

    /// Changed cursors, to be persisted together; at most one commit is out at a time.
    pub fn take_commit(&mut self) -> Option<Commit> {
        if self.settling.is_some() {
            return None;
        }
        let cursors: Vec<_> = self
            .parts
            .iter_mut()
            .filter_map(|(place, part)| std::mem::take(&mut part.dirty).then(|| (*place, part.cursor.clone())))
            .collect();
        if cursors.is_empty() {
            return None;
        }
        self.settling = Some(std::mem::take(&mut self.settled));
        Some(Commit { cursors })
    }

    /// When `Tick` is due, if at all.
    pub fn wake_at_ms(&self) -> Option<u64> {
        if self.mode == Mode::Stopped {
            return None;
        }
        let throttled = (!self.ready.is_empty() && self.in_flight < self.limits.in_flight_max).then_some(self.throttled_until_ms);
        let timer = self.timers.first().map(|(due_ms, _)| *due_ms);
        [throttled, timer].into_iter().flatten().min()
    }

    /// Matched and unsettled records that the window holds.
    pub fn pending(&self) -> usize {
        self.pending
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Deliveries since this machine started.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Failed attempts since this machine started.
    pub fn failed_attempts(&self) -> u64 {
        self.failed_attempts
    }

    /// Pending records that compaction has taken, since this machine started.
    pub fn compacted(&self) -> u64 {
        self.compacted
    }

    /// The cursors as they are now.
    pub fn cursors(&self) -> impl Iterator<Item = (Place, &Cursor)> {
        self.parts.iter().map(|(place, part)| (*place, &part.cursor))
    }

    /// Lanes that wait after a failure, the soonest first.
    pub fn waiting(&self) -> impl Iterator<Item = WaitingLane> {
        self.timers.iter().filter_map(|(due_ms, id)| {
            let lane = self.lanes.get(id)?;
            let LaneState::Waiting { outcome, .. } = lane.state else { return None };
            Some(WaitingLane { place: id.0, offset: *lane.queue.front()?, attempts: lane.attempts, due_ms: *due_ms, outcome })
        })
    }

    fn window_used(&self) -> usize {
        self.pending + self.settled + self.settling.unwrap_or(0)
    }

    fn record(&mut self, place: Place, offset: i64, key: LaneKey, matched: bool, actions: &mut Vec<Action>) {
        let Some(part) = self.parts.get(&place) else { return };
        if offset < part.cursor.scanned_to {
            self.reread(place, offset, key, matched, actions);
        } else {
            self.end_rescan(place, actions);
            self.scan(place, offset, key, matched, actions);
        }
    }

    fn scan(&mut self, place: Place, offset: i64, key: LaneKey, matched: bool, actions: &mut Vec<Action>) {
        let Some(part) = self.parts.get_mut(&place) else { return };
        part.cursor.scanned_to = offset + 1;
        part.dirty = true;
        if !matched || part.cursor.collapsed.contains_key(&key) {
            return;
        }
        let held = self.lanes.get(&(place, key)).map_or(0, |lane| lane.queue.len());
        if held >= self.limits.pending_per_key_max {
            // From here on the log itself is this lane's queue.
            part.cursor.collapsed.insert(key, offset - 1);
        } else {
            self.keep(place, offset, key, actions);
        }
    }

    fn reread(&mut self, place: Place, offset: i64, key: LaneKey, matched: bool, actions: &mut Vec<Action>) {
        let window_full = self.window_used() >= self.limits.pending_max;
        let Some(part) = self.parts.get_mut(&place) else { return };
        let lane = self.lanes.get(&(place, key));
        if part.cursor.pending.contains(&offset) {
            // Pending stays pending, whatever the filter says today.
            let held = lane.is_some_and(|lane| lane.queue.binary_search(&offset).is_ok());
            if !held {
                self.enqueue(place, offset, key, actions);
            }
            return;
        }
        let Some(mark) = part.cursor.collapsed.get(&key).copied() else { return };
        if !matched || offset <= mark {
            return;
        }
        let Some(Rescan { refused, .. }) = &mut part.rescan else { return };
        let full = window_full || lane.is_some_and(|lane| lane.queue.len() >= self.limits.pending_per_key_max);
        if full || refused.contains(&key) {
            // Once refused, all later ones too, or the lane would overtake itself.
            refused.insert(key);
            return;
        }
        part.cursor.collapsed.insert(key, offset);
        part.dirty = true;
        self.keep(place, offset, key, actions);
    }

    fn keep(&mut self, place: Place, offset: i64, key: LaneKey, actions: &mut Vec<Action>) {
        if let Some(part) = self.parts.get_mut(&place) {
            part.cursor.pending.insert(offset);
            self.pending += 1;
        }
        self.enqueue(place, offset, key, actions);
    }

    fn enqueue(&mut self, place: Place, offset: i64, key: LaneKey, actions: &mut Vec<Action>) {
        let id = (place, key);
        let lane = self.lanes.entry(id).or_default();
        lane.queue.push_back(offset);
        if lane.state == LaneState::Idle {
            lane.state = LaneState::Ready;
            self.ready.push_back(id);
        }
        actions.push(Action::Keep { place, offset });
    }

    /// All that was to be read again has been: lanes that had room for everything are whole
    /// again, and pending records that did not turn up have been compacted away.
    fn end_rescan(&mut self, place: Place, actions: &mut Vec<Action>) {
        let Some(part) = self.parts.get_mut(&place) else { return };
        let Some(Rescan { refused, .. }) = part.rescan.take() else { return };
        part.cursor.collapsed.retain(|key, _| refused.contains(key));
        let held: HashSet<i64> =
            self.lanes.iter().filter(|((at, _), _)| *at == place).flat_map(|(_, lane)| lane.queue.iter().copied()).collect();
        let before = part.cursor.pending.len();
        part.cursor.pending.retain(|offset| held.contains(offset));
        let gone = before - part.cursor.pending.len();
        self.pending -= gone;
        self.compacted += gone as u64;
        part.dirty = true;
        self.rescan_if_drained(place, actions);
    }

    fn attempted(&mut self, now_ms: u64, id: LaneId, offset: i64, outcome: Outcome, entropy: u64, actions: &mut Vec<Action>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if lane.state != LaneState::InFlight || lane.queue.front() != Some(&offset) {
            return;
        }
        self.in_flight -= 1;
        if outcome == Outcome::Delivered {
            self.settle(id, offset, actions);
            return;
        }
        self.failed_attempts += 1;
        lane.attempts = lane.attempts.saturating_add(1);
        let backoff_ms = self.retry.backoff_ms(lane.attempts, entropy);
        let wait_ms = match outcome {
            Outcome::Hopeless => self.retry.probe_ms,
            Outcome::Throttled { retry_after_ms } => {
                self.throttled_until_ms = self.throttled_until_ms.max(now_ms.saturating_add(retry_after_ms));
                backoff_ms.max(retry_after_ms)
            }
            Outcome::Delivered | Outcome::Gone | Outcome::Failed => backoff_ms,
        };
        let due_ms = now_ms.saturating_add(wait_ms);
        lane.state = LaneState::Waiting { due_ms, outcome };
        self.timers.insert((due_ms, id));
        if outcome == Outcome::Gone && self.mode == Mode::Running {
            self.mode = Mode::Stopped;
            actions.push(Action::Disable);
        }
    }

    fn settle(&mut self, id: LaneId, offset: i64, actions: &mut Vec<Action>) {
        let (place, _) = id;
        if let Some(part) = self.parts.get_mut(&place) {
            part.cursor.pending.remove(&offset);
            part.dirty = true;
        }
        self.pending -= 1;
        self.settled += 1;
        self.delivered += 1;
        actions.push(Action::Forget { place, offset });
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.queue.pop_front();
            lane.attempts = 0;
            if lane.queue.is_empty() {
                self.lanes.remove(&id);
            } else {
                lane.state = LaneState::Ready;
                self.ready.push_back(id);
            }
        }
        self.rescan_if_drained(place, actions);
    }

    /// Reads collapsed lanes again when one of them has come down to a quarter.
    fn rescan_if_drained(&mut self, place: Place, actions: &mut Vec<Action>) {
        let Some(part) = self.parts.get_mut(&place) else { return };
        if part.rescan.is_some() {
            return;
        }
        let low = self.limits.pending_per_key_max / 4;
        let held = |key: &LaneKey| self.lanes.get(&(place, *key)).map_or(0, |lane| lane.queue.len());
        if !part.cursor.collapsed.keys().any(|key| held(key) <= low) {
            return;
        }
        if let Some(mark) = part.cursor.collapsed.values().min() {
            part.rescan = Rescan::from(mark + 1);
            actions.push(Action::Rescan { place });
        }
    }

    fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
        if mode == Mode::Running {
            // Whoever starts it again has mended something: try at once.
            self.throttled_until_ms = 0;
            let waiting = std::mem::take(&mut self.timers);
            for (_, id) in waiting {
                self.make_ready(id);
            }
        }
    }

    fn make_ready(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.state = LaneState::Ready;
            self.ready.push_back(id);
        }
    }

    fn dispatch(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        while self.timers.first().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
            if let Some((_, id)) = self.timers.pop_first() {
                self.make_ready(id);
            }
        }
        if self.mode == Mode::Stopped || now_ms < self.throttled_until_ms {
            return;
        }
        while self.in_flight < self.limits.in_flight_max {
            let Some(id) = self.ready.pop_front() else { return };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let Some(offset) = lane.queue.front().copied() else { continue };
            lane.state = LaneState::InFlight;
            self.in_flight += 1;
            actions.push(Action::Attempt { place: id.0, offset, lane: id.1, attempt: lane.attempts.saturating_add(1) });
        }
    }
}
