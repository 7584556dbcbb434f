//! What owners do, and what comes from outside: pauses, other wishes, removals of subscriptions and
//! of keys, compaction.
//!
//! Must never leave the world's books and the hub with different wishes.

use std::collections::BTreeMap;

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::hub::{Input, MemberId};
use ryggrad_bridge_core::machine::DeadLetter;
use ryggrad_bridge_core::outcome::Outcome;

use super::log::{FILTERS, KEYS, LISTS, PARTITIONS, Removed, place, places};
use super::plan::{self, Bug, Fault};
use super::rig::{Rig, address};
use super::subscription::Subscription;

impl Rig {
    fn one(&mut self) -> usize {
        let alive: Vec<usize> = (0..self.subscriptions.len()).filter(|index| !self.subscriptions[*index].removed).collect();
        self.random.one_of(&alive)
    }

    /// The hub hears of a subscription's wishes.
    fn change(&mut self, index: usize) {
        let own = &mut self.subscriptions[index];
        if own.running {
            // Whoever changes it has mended something: every wait ends.
            own.quiet_until_ms = 0;
        }
        let (member, wish) = (own.member, own.wish());
        self.tell(&("change", member, &wish));
        let mut actions = Vec::new();
        self.hub.change(self.now_ms, member, wish, &mut actions);
        self.act(actions);
    }

    /// A fault that an owner brings.
    fn brings(&mut self, fault: Fault) -> usize {
        self.step += 1;
        let index = self.one();
        places().for_each(|place| self.meets(fault, index, place));
        index
    }

    pub fn stop(&mut self) {
        let index = self.brings(Fault::Stop);
        self.subscriptions[index].running = false;
        self.change(index);
    }

    pub fn resume(&mut self, index: usize) {
        self.step += 1;
        self.coverage.saw("resumed");
        self.subscriptions[index].running = true;
        self.change(index);
    }

    /// Somebody who was stopped, or was disabled, goes on.
    pub fn resume_one(&mut self) {
        let stopped = |index: &usize| !self.subscriptions[*index].running && !self.subscriptions[*index].removed;
        let stopped: Vec<usize> = (0..self.subscriptions.len()).filter(stopped).collect();
        if !stopped.is_empty() {
            let index = self.random.one_of(&stopped);
            self.resume(index);
        }
    }

    /// Whoever a subscription is for is stopped.
    pub fn hold(&mut self) {
        let index = self.brings(Fault::Hold);
        self.subscriptions[index].held = true;
        if self.plan.bug != Bug::HoldUntold {
            self.tell_held(index);
        }
    }

    /// And is so no longer.
    pub fn release(&mut self, index: usize) {
        self.step += 1;
        self.coverage.saw("released");
        self.subscriptions[index].held = false;
        if self.plan.bug != Bug::ReleaseUntold {
            self.tell_held(index);
        }
    }

    pub fn release_one(&mut self) {
        let held = |index: &usize| self.subscriptions[*index].held && !self.subscriptions[*index].removed;
        let held: Vec<usize> = (0..self.subscriptions.len()).filter(held).collect();
        if !held.is_empty() {
            let index = self.random.one_of(&held);
            self.release(index);
        }
    }

    fn tell_held(&mut self, index: usize) {
        let (member, held) = (self.subscriptions[index].member, self.subscriptions[index].held);
        self.tell(&("held", member, held));
        let mut actions = Vec::new();
        self.hub.hold(self.now_ms, member, held, &mut actions);
        self.act(actions);
    }

    pub fn filter(&mut self) {
        let index = self.brings(Fault::Filter);
        let filter = self.random.below(FILTERS.len() as u64) as usize;
        let step = self.step;
        self.subscriptions[index].set_filter(filter, step);
        self.change(index);
    }

    /// A subscription gets another watch list, or none.
    pub fn narrow(&mut self) {
        let index = self.brings(Fault::Narrow);
        let list = self.random.one_of(&[None, Some(0), Some(1)]);
        let (keys, step) = (list.map_or(u8::MAX, |list| self.lists.keys(list)), self.step);
        self.subscriptions[index].set_keys(list, keys, step);
        self.change(index);
    }

    /// The keys of a watch list change; nobody tells the hub.
    pub fn edit_list(&mut self) {
        let index = self.brings(Fault::Keys);
        let list = self.subscriptions[index].list.unwrap_or_else(|| self.random.below(LISTS as u64) as usize);
        // Some keys come or go, or all are others.
        let (before, drawn) = (self.lists.keys(list), self.random.below(256) as u8);
        let keys = if self.random.chance(50) { before ^ 1 << (drawn % KEYS as u8) } else { drawn };
        let step = self.step;
        self.tell(&("edit list", list, keys));
        self.lists.set(list, keys);
        let own = self.subscriptions.iter_mut().filter(|own| own.list == Some(list));
        own.for_each(|own| own.set_keys(Some(list), keys, step));
    }

    /// Somebody may not have a key any more, or may again; nobody tells the hub.
    pub fn deny(&mut self) {
        let index = self.brings(Fault::Deny);
        let organisation = self.subscriptions[index].organisation;
        let before = self.denied.keys(organisation);
        // Some may have all again, others lose one more key or get one back.
        let keys = if self.random.chance(30) { 0 } else { before ^ 1 << self.random.below(KEYS) };
        self.set_denied(organisation, keys);
    }

    fn set_denied(&mut self, organisation: usize, keys: u8) {
        let step = self.step;
        self.tell(&("deny", organisation, keys));
        self.denied.set(organisation, keys);
        let own = self.subscriptions.iter_mut().filter(|own| own.organisation == organisation);
        own.for_each(|own| own.set_denied(keys, step));
    }

    pub fn settings(&mut self) {
        let index = self.brings(Fault::Settings);
        let fetches = self.subscriptions[index].fetches;
        let choice = plan::choice(&mut self.random, fetches);
        self.subscriptions[index].set_choice(choice);
        self.change(index);
    }

    /// To an address of its own, or to one that others have.
    pub fn move_receiver(&mut self) {
        let index = self.brings(Fault::Move);
        self.subscriptions[index].address = address(self.random.below(5) as usize);
        self.change(index);
    }

    /// A subscription ends, and another one begins somewhere in the log.
    pub fn replace(&mut self) {
        let index = self.brings(Fault::Replace);
        self.subscriptions[index].removed = true;
        if self.plan.bug != Bug::KeepRemoved {
            self.hub.remove(self.subscriptions[index].member);
        }
        let from = places().map(|place| {
            let (start, end) = (self.log.start(place), self.log.end(place));
            (place, self.random.one_of(&[start, end, (start + end) / 2]))
        });
        let from = from.collect();
        let (fetches, address) = (self.subscriptions[index].fetches, self.subscriptions[index].address.clone());
        let next = Subscription::new(&mut self.random, &self.plan, &self.denied, fetches, address, from, self.step);
        self.subscriptions.push(next);
        self.join(self.subscriptions.len() - 1);
    }

    /// Back to somewhere, more often than not a little; in one partition or in several.
    pub fn rewind(&mut self) {
        let index = self.brings(Fault::Rewind);
        if self.subscriptions[index].until.is_some() {
            return;
        }
        let member = self.subscriptions[index].member;
        let mut targets = Vec::new();
        for place in places() {
            let (start, at) = (self.log.start(place), self.hub.position(member, place).unwrap_or_default());
            let back = (at - start).min(if self.random.chance(60) { 20 } else { i64::MAX });
            if back > 0 && self.random.chance(70) {
                targets.push((place, at - 1 - self.random.below(back.cast_unsigned()).cast_signed()));
            }
        }
        self.tell(&("rewind", member, &targets));
        if self.plan.bug == Bug::RewindDisowns {
            let own = self.under_way.iter().filter(|attempt| attempt.subscription == index && !attempt.told).cloned();
            for attempt in own.collect::<Vec<_>>() {
                self.disowned.push((member, attempt.attempt));
                self.told(&attempt, Outcome::Unsent, false);
            }
        }
        let mut actions = Vec::new();
        self.hub.rewind(self.now_ms, member, &targets, &mut actions);
        self.act(actions);
    }

    /// A part of the log once more, beside what is live.
    pub fn replay(&mut self) {
        let index = self.brings(Fault::Replay);
        let (mut from, mut until) = (BTreeMap::new(), BTreeMap::new());
        for place in places() {
            let mut point = || {
                self.log.start(place) + self.random.below((self.log.end(place) - self.log.start(place) + 1).cast_unsigned()).cast_signed()
            };
            let (one, other) = (point(), point());
            from.insert(place, one.min(other));
            until.insert(place, one.max(other));
        }
        let address = self.subscriptions[index].address.clone();
        let replay = Subscription::new(&mut self.random, &self.plan, &self.denied, false, address, from, self.step).replay(until);
        self.subscriptions.push(replay);
        self.join(self.subscriptions.len() - 1);
    }

    /// A replay has come to its end.
    pub(super) fn finished(&mut self, member: MemberId) {
        // It may have ended as soon as it began, before its name is known here.
        let index = self.index(member).unwrap_or(self.subscriptions.len() - 1);
        self.coverage.saw("replayed to the end");
        if self.subscriptions[index].until.is_none() {
            return self.violate("what is no replay has come to an end".to_owned());
        }
        self.subscriptions[index].finished = true;
    }

    /// The hub has gone back: what was set aside from there on is no more.
    pub(super) fn rewound(&mut self, member: MemberId, place: Place, to: i64) {
        self.tell(&("rewound", member, place, to));
        self.coverage.saw("rewound");
        let Some(index) = self.index(member) else { return self.violate("nobody has gone back".to_owned()) };
        let own = &mut self.subscriptions[index];
        own.rewound(place, to, self.step);
        let unstored =
            |letter: &&DeadLetter| !own.unstored_rounds.iter().any(|round| round.place == letter.place && letter.offset >= round.from);
        let left = own.disk.letters.iter().filter(unstored).count();
        self.hub.set_dead_letters(member, left);
    }

    pub fn compact(&mut self) {
        let place = place(self.random.below(PARTITIONS as u64) as i32);
        self.meet(Fault::Compact, place);
        self.log.compact(&mut self.random, place);
    }

    /// A key's records up to somewhere must not leave any more. The guard knows at once, the hub is
    /// told some time later.
    pub fn withhold(&mut self) {
        self.step += 1;
        let place = place(self.random.below(PARTITIONS as u64) as i32);
        let index = self.one();
        // Half of them hit a key that has something pending.
        let pending = self.subscriptions[index].disk.cursors[&place].pending.keys().copied().collect::<Vec<_>>();
        let hit = if self.random.chance(50) && !pending.is_empty() { Some(self.random.one_of(&pending)) } else { None };
        let key = hit.and_then(|offset| self.log.entry(place, offset)).map(|entry| entry.key);
        let key = key.unwrap_or_else(|| self.random.below(KEYS));
        let of_key: Vec<i64> = self.log.entries(place).iter().filter(|entry| entry.key == key).map(|entry| entry.offset).collect();
        if of_key.is_empty() {
            return;
        }
        let below = self.random.one_of(&of_key);
        self.meet(Fault::Withhold, place);
        self.tell(&("withhold", place, key, below));
        self.log.remove(place, key, Removed { below, at_step: self.step });
        self.known.learn(place, key, below);
    }

    pub fn hear_of_removals(&mut self) {
        self.coverage.saw("guard changed");
        self.drive(Input::GuardChanged);
    }

    /// A parked lane of each is taken up again.
    pub fn redrive(&mut self) {
        for index in 0..self.subscriptions.len() {
            let own = &self.subscriptions[index];
            let parked = self.hub.member(own.member).filter(|_| !own.removed).and_then(|member| member.machine().parked().next());
            let Some((place, lane, mark)) = parked else { continue };
            let member = own.member;
            self.subscriptions[index].disk.letters.retain(|letter| (letter.parked, letter.place, letter.lane) != (true, place, lane));
            self.coverage.saw("redriven");
            self.step += 1;
            let letter = DeadLetter { place, offset: mark + 1, lane, number: 0, outcome: Outcome::Failed, parked: true };
            let mut actions = Vec::new();
            self.hub.redrive(self.now_ms, member, letter, &mut actions);
            self.act(actions);
        }
    }
}
