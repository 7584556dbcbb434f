//! The delivery machine of one subscription: what to attempt, when, and how far the cursor is.
//!
//! Pure: `step(now, input, &mut actions)`. The shell reads the log, makes the attempts, and
//! persists what [`Machine::take_commit`] hands out. Promises: a lane (one key) never has two
//! attempts at once and never overtakes itself; a failing lane stops no other; an offset leaves
//! the cursor only after it was delivered or withheld; what a crash can repeat is bounded by the
//! window.

mod exchange;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::cursor::{Cursor, LaneKey, Place};
use crate::outcome::Outcome;
use crate::retry::RetryPolicy;

pub use exchange::{Action, Commit, Input, Limits, Mode, Verdict, WaitingLane};

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
    withheld: u64,
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
            withheld: 0,
        }
    }

    /// Takes in what happened and says what to do.
    pub fn step(&mut self, now_ms: u64, input: Input, actions: &mut Vec<Action>) {
        match input {
            Input::Record { place, offset, lane, verdict } => self.record(place, offset, lane, verdict, actions),
            Input::AtEnd { place } => self.end_rescan(place, actions),
            Input::Attempted { place, offset, lane, outcome, entropy } => {
                self.attempted(now_ms, (place, lane), offset, outcome, entropy, actions)
            }
            Input::Withhold { place, offset, lane } => self.withhold((place, lane), offset, actions),
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

    /// Wanted records that were withheld, since this machine started.
    pub fn withheld(&self) -> u64 {
        self.withheld
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

    fn record(&mut self, place: Place, offset: i64, key: LaneKey, verdict: Verdict, actions: &mut Vec<Action>) {
        let Some(part) = self.parts.get(&place) else { return };
        if offset < part.cursor.scanned_to {
            self.reread(place, offset, key, verdict, actions);
        } else {
            self.end_rescan(place, actions);
            self.scan(place, offset, key, verdict, actions);
        }
    }

    fn scan(&mut self, place: Place, offset: i64, key: LaneKey, verdict: Verdict, actions: &mut Vec<Action>) {
        let Some(part) = self.parts.get_mut(&place) else { return };
        part.cursor.scanned_to = offset + 1;
        part.dirty = true;
        if verdict == Verdict::Unwanted || part.cursor.collapsed.contains_key(&key) {
            return;
        }
        if verdict == Verdict::Withheld {
            self.withheld += 1;
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

    fn reread(&mut self, place: Place, offset: i64, key: LaneKey, verdict: Verdict, actions: &mut Vec<Action>) {
        let window_full = self.window_used() >= self.limits.pending_max;
        let Some(part) = self.parts.get_mut(&place) else { return };
        let lane = self.lanes.get(&(place, key));
        if part.cursor.pending.contains(&offset) {
            // Pending stays pending, whatever the filter says today.
            let held = lane.is_some_and(|lane| lane.queue.binary_search(&offset).is_ok());
            match (held, verdict) {
                (true, Verdict::Withheld) => self.withhold((place, key), offset, actions),
                (false, Verdict::Withheld) => {
                    self.withheld += 1;
                    self.settle(place, offset);
                }
                (true, _) => {}
                (false, _) => self.enqueue(place, offset, key, actions),
            }
            return;
        }
        let event_held = || lane.is_some_and(|lane| lane.queue.binary_search(&(offset - 1)).is_ok());
        if verdict == Verdict::Orphan && part.cursor.pending.contains(&(offset - 1)) && !event_held() {
            // Compaction took the event while it was pending; nobody would learn that the key is gone.
            part.cursor.pending.remove(&(offset - 1));
            part.cursor.pending.insert(offset);
            part.dirty = true;
            self.enqueue(place, offset, key, actions);
            return;
        }
        let Some(mark) = part.cursor.collapsed.get(&key).copied() else { return };
        if verdict == Verdict::Unwanted || offset <= mark {
            return;
        }
        let Some(Rescan { refused, .. }) = &mut part.rescan else { return };
        if verdict == Verdict::Withheld {
            if !refused.contains(&key) {
                part.cursor.collapsed.insert(key, offset);
                part.dirty = true;
                self.withheld += 1;
            }
            return;
        }
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
        match outcome {
            Outcome::Delivered => self.delivered += 1,
            Outcome::Withheld => self.withheld += 1,
            _ => {}
        }
        if matches!(outcome, Outcome::Delivered | Outcome::Withheld) {
            self.end_first(id, actions);
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
            Outcome::Delivered | Outcome::Withheld | Outcome::Gone | Outcome::Failed => backoff_ms,
        };
        let due_ms = now_ms.saturating_add(wait_ms);
        lane.state = LaneState::Waiting { due_ms, outcome };
        self.timers.insert((due_ms, id));
        if outcome == Outcome::Gone && self.mode == Mode::Running {
            self.mode = Mode::Stopped;
            actions.push(Action::Disable);
        }
    }

    fn settle(&mut self, place: Place, offset: i64) {
        if let Some(part) = self.parts.get_mut(&place) {
            part.cursor.pending.remove(&offset);
            part.dirty = true;
        }
        self.pending -= 1;
        self.settled += 1;
    }

    /// The first record of a lane is settled: the next is to be attempted.
    fn end_first(&mut self, id: LaneId, actions: &mut Vec<Action>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(offset) = lane.queue.pop_front() else { return };
        lane.attempts = 0;
        if lane.queue.is_empty() {
            self.lanes.remove(&id);
        } else if lane.state != LaneState::Ready {
            lane.state = LaneState::Ready;
            self.ready.push_back(id);
        }
        self.settle(id.0, offset);
        actions.push(Action::Forget { place: id.0, offset });
        self.rescan_if_drained(id.0, actions);
    }

    fn withhold(&mut self, id: LaneId, offset: i64, actions: &mut Vec<Action>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Ok(index) = lane.queue.binary_search(&offset) else { return };
        if index > 0 {
            lane.queue.remove(index);
            self.settle(id.0, offset);
            actions.push(Action::Forget { place: id.0, offset });
            self.rescan_if_drained(id.0, actions);
        } else if lane.state == LaneState::InFlight {
            // What is on its way can't be called back; its end tells.
            return;
        } else {
            if let LaneState::Waiting { due_ms, .. } = lane.state {
                self.timers.remove(&(due_ms, id));
            }
            self.end_first(id, actions);
        }
        self.withheld += 1;
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
            // A lane that was emptied and filled again while it was queued here stands in twice.
            if lane.state != LaneState::Ready {
                continue;
            }
            lane.state = LaneState::InFlight;
            self.in_flight += 1;
            actions.push(Action::Attempt { place: id.0, offset, lane: id.1, attempt: lane.attempts.saturating_add(1) });
        }
    }
}
