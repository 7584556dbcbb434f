//! Which attempt goes next: endpoints take turns, within the limits of each and of all.
//!
//! An endpoint that hangs or fails gets few attempts, and all such endpoints together only a
//! share, so that they never keep the healthy ones waiting. Must never give an endpoint more than
//! it may have, nor pass over one for ever.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use super::MemberId;
use crate::endpoint::{Endpoint, Limits, State};
use crate::outcome::Outcome;

/// Names an endpoint: the whole address that is posted to.
pub type Address = Arc<str>;

#[derive(Debug)]
struct Entry {
    endpoint: Endpoint,
    queue: VecDeque<(MemberId, u64)>,
    /// What replays want, which goes when nobody else wants anything.
    replays: VecDeque<(MemberId, u64)>,
    replaying: BTreeSet<(MemberId, u64)>,
    in_turn: bool,
    wake_at_ms: Option<u64>,
    members: usize,
    /// Of its attempts under way, those that were begun as a suspect's.
    suspect_in_flight: usize,
    in_flight: usize,
}

impl Entry {
    /// Replays get at most half of what the endpoint takes, so that what is live finds room.
    fn may_replay(&self) -> bool {
        self.replaying.len() < (self.endpoint.concurrency() / 2).max(1)
    }

    fn wants_any(&self) -> bool {
        !self.queue.is_empty() || (!self.replays.is_empty() && self.may_replay())
    }

    /// What is live goes first.
    fn pop(&mut self) -> Option<(MemberId, u64)> {
        let live = self.queue.pop_front();
        if live.is_some() || !self.may_replay() {
            return live;
        }
        let replayed = self.replays.pop_front()?;
        self.replaying.insert(replayed);
        Some(replayed)
    }
}

/// Limits of all attempts together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateLimits {
    /// Attempts at the same time.
    pub in_flight_total_max: usize,
    /// Of these, to endpoints that hang or fail.
    pub in_flight_suspect_max: usize,
    /// Of each endpoint.
    pub endpoint: Limits,
}

/// The gate.
#[derive(Debug)]
pub struct Gate {
    limits: GateLimits,
    entries: HashMap<Address, Entry>,
    turn: VecDeque<Address>,
    /// Suspects that found their share used up.
    held: VecDeque<Address>,
    wakes: BTreeSet<(u64, Address)>,
    in_flight: usize,
    suspect_in_flight: usize,
}

impl Gate {
    /// A gate without endpoints.
    pub fn new(limits: GateLimits) -> Self {
        Self {
            limits,
            entries: HashMap::new(),
            turn: VecDeque::new(),
            held: VecDeque::new(),
            wakes: BTreeSet::new(),
            in_flight: 0,
            suspect_in_flight: 0,
        }
    }

    /// A subscription delivers here from now on. What the endpoint did before is forgiven.
    pub fn join(&mut self, address: &Address) {
        let limits = self.limits.endpoint;
        let entry = self.entries.entry(Arc::clone(address)).or_insert_with(|| Entry {
            endpoint: Endpoint::new(limits),
            queue: VecDeque::new(),
            replays: VecDeque::new(),
            replaying: BTreeSet::new(),
            in_turn: false,
            wake_at_ms: None,
            members: 0,
            suspect_in_flight: 0,
            in_flight: 0,
        });
        entry.members += 1;
        self.forgive(address);
    }

    /// A subscription delivers here no more: gives what it still wanted to attempt. Attempts
    /// under way are still to end.
    pub fn leave(&mut self, address: &Address, member: MemberId) -> Vec<u64> {
        let left = self.withdraw(address, member);
        if let Some(entry) = self.entries.get_mut(address) {
            entry.members -= 1;
            self.drop_if_unused(address);
        }
        left
    }

    /// Gives what a subscription still wants to attempt, which is not to be attempted any more.
    pub fn withdraw(&mut self, address: &Address, member: MemberId) -> Vec<u64> {
        let Some(entry) = self.entries.get_mut(address) else { return Vec::new() };
        let mut own = Vec::new();
        for queue in [&mut entry.queue, &mut entry.replays] {
            let (left, others) = std::mem::take(queue).into_iter().partition(|(queued, _)| *queued == member);
            *queue = others;
            own.extend(VecDeque::into_iter(left).map(|(_, attempt)| attempt));
        }
        own
    }

    /// The endpoint starts with a clean slate: its owner has mended something.
    pub fn forgive(&mut self, address: &Address) {
        if let Some(entry) = self.entries.get_mut(address) {
            entry.endpoint.reset();
        }
        self.consider(address);
    }

    /// An attempt wants to be made.
    pub fn queue(&mut self, address: &Address, member: MemberId, attempt: u64, is_replay: bool) {
        if let Some(entry) = self.entries.get_mut(address) {
            let queue = if is_replay { &mut entry.replays } else { &mut entry.queue };
            queue.push_back((member, attempt));
            self.consider(address);
        }
    }

    /// An attempt has ended.
    pub fn ended(&mut self, now_ms: u64, address: &Address, attempt: (MemberId, u64), outcome: Outcome, entropy: u64) {
        self.in_flight -= 1;
        let Some(entry) = self.entries.get_mut(address) else { return };
        entry.in_flight -= 1;
        entry.replaying.remove(&attempt);
        if entry.suspect_in_flight > entry.in_flight {
            entry.suspect_in_flight -= 1;
            self.suspect_in_flight -= 1;
        }
        entry.endpoint.ended(now_ms, &outcome, entropy);
        if !entry.endpoint.is_suspect(now_ms) {
            self.suspect_in_flight -= std::mem::take(&mut entry.suspect_in_flight);
        }
        self.consider(address);
        while let Some(held) = self.held.pop_front() {
            self.consider(&held);
        }
        self.drop_if_unused(address);
    }

    /// The next attempt to be made, if there is one.
    pub fn next(&mut self, now_ms: u64) -> Option<(Address, MemberId, u64)> {
        while let Some((due_ms, _)) = self.wakes.first()
            && *due_ms <= now_ms
        {
            if let Some((_, address)) = self.wakes.pop_first() {
                if let Some(entry) = self.entries.get_mut(&address) {
                    entry.wake_at_ms = None;
                }
                self.consider(&address);
            }
        }
        while self.in_flight < self.limits.in_flight_total_max {
            let address = self.turn.pop_front()?;
            let Some(entry) = self.entries.get_mut(&address) else { continue };
            entry.in_turn = false;
            if !entry.wants_any() {
                continue;
            }
            if !entry.endpoint.admits(now_ms) {
                // Where time is not what is missing, the end of an attempt under way wakes it.
                if let Some(due_ms) = entry.endpoint.wake_at_ms().filter(|due_ms| *due_ms > now_ms) {
                    if let Some(before_ms) = entry.wake_at_ms.replace(due_ms) {
                        self.wakes.remove(&(before_ms, Arc::clone(&address)));
                    }
                    self.wakes.insert((due_ms, address));
                }
                continue;
            }
            let suspect = entry.endpoint.is_suspect(now_ms);
            if suspect && self.suspect_in_flight >= self.limits.in_flight_suspect_max {
                self.held.push_back(address);
                continue;
            }
            let Some((member, attempt)) = entry.pop() else { continue };
            entry.endpoint.started(now_ms);
            entry.in_flight += 1;
            self.in_flight += 1;
            if suspect {
                entry.suspect_in_flight += 1;
                self.suspect_in_flight += 1;
            }
            self.consider(&address);
            return Some((address, member, attempt));
        }
        None
    }

    /// Lets nothing through any more.
    pub fn close(&mut self) {
        self.limits.in_flight_total_max = 0;
    }

    /// When `next` may have something that it has not now.
    pub fn wake_at_ms(&self) -> Option<u64> {
        self.wakes.first().map(|(due_ms, _)| *due_ms)
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// How an endpoint stands.
    pub fn endpoint(&self, address: &Address) -> Option<&Endpoint> {
        self.entries.get(address).map(|entry| &entry.endpoint)
    }

    /// How many endpoints there are, and how many of them are cut off.
    pub fn endpoints(&self) -> (usize, usize) {
        (self.entries.len(), self.entries.values().filter(|entry| entry.endpoint.state() != State::Closed).count())
    }

    fn consider(&mut self, address: &Address) {
        if let Some(entry) = self.entries.get_mut(address)
            && !entry.in_turn
            && entry.wants_any()
        {
            entry.in_turn = true;
            self.turn.push_back(Arc::clone(address));
        }
    }

    fn drop_if_unused(&mut self, address: &Address) {
        if let Some(entry) = self.entries.get(address)
            && entry.members == 0
            && entry.in_flight == 0
        {
            if let Some(due_ms) = entry.wake_at_ms {
                self.wakes.remove(&(due_ms, Arc::clone(address)));
            }
            self.entries.remove(address);
        }
    }
}
