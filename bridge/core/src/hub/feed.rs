//! Reading by oneself: from the ring where it reaches, else from a shared reader, until the tail
//! is met.

use std::sync::Arc;

use super::Hub;
use super::exchange::{Action, MemberId};
use super::member::again_from;
use super::slots::Wanted;
use crate::cursor::Place;
use crate::machine::{self, PATIENCE_MS, Verdict};
use crate::record::Record;

/// Records that a subscription is fed before the next one's turn.
const TURN_RECORDS: usize = 256;
/// Turns before other inputs are heard.
const TURNS: usize = 256;
/// How long to wait for the tail to come where a subscription was before.
const BEHIND_TAIL_MS: u64 = 50;
/// Records looked up together.
const BITE_RECORDS: usize = 32;

impl Hub {
    /// Feeds those who may have room, for a while.
    pub(super) fn feed_all(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        for _ in 0..TURNS {
            let Some(id) = self.hungry.pop_front() else { break };
            if let Some(member) = self.members.get_mut(&id) {
                member.hungry = false;
            }
            self.feed(now_ms, id, actions);
        }
        if self.hungry.is_empty() {
            let (rings, mut readers) = (&self.rings, Vec::new());
            self.slots.tidy(now_ms, |place| rings.get(place).map_or(0, super::ring::Stretch::end), &mut readers);
            actions.extend(readers.into_iter().map(Action::Reader));
        }
    }

    pub(super) fn make_hungry(&mut self, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id)
            && !std::mem::replace(&mut member.hungry, true)
        {
            self.hungry.push_back(id);
        }
    }

    /// A subscription reads by itself from here on: what comes next has no room.
    pub(super) fn detach(&mut self, now_ms: u64, id: MemberId, place: Place, at: i64, actions: &mut Vec<Action>) {
        self.drive(now_ms, id, machine::Input::Passed { place, to: at }, actions);
        self.drive(now_ms, id, machine::Input::Attached { place, attached: false }, actions);
        if let Some(member) = self.members.get_mut(&id) {
            member.detached.insert(place, at);
        }
        self.refused(now_ms, id);
    }

    fn feed(&mut self, now_ms: u64, id: MemberId, actions: &mut Vec<Action>) {
        self.take_rescans(now_ms, id, actions);
        let places: Vec<Place> = self.members.get(&id).map(|member| member.detached.keys().copied().collect()).unwrap_or_default();
        for place in places {
            self.feed_place(now_ms, id, place, actions);
        }
    }

    /// Goes back to where the machine wants to read again.
    fn take_rescans(&mut self, now_ms: u64, id: MemberId, actions: &mut Vec<Action>) {
        let rescans = self.members.get_mut(&id).map(|member| std::mem::take(&mut member.rescans)).unwrap_or_default();
        for place in rescans {
            if self.members.get(&id).is_some_and(|member| member.is_attached(place)) {
                let end = self.rings.get(place).map_or(0, super::ring::Stretch::end);
                // The tail has shown it everything so far.
                self.drive(now_ms, id, machine::Input::Passed { place, to: end }, actions);
                self.drive(now_ms, id, machine::Input::Attached { place, attached: false }, actions);
            }
            if let Some(member) = self.members.get_mut(&id) {
                let at = again_from(&member.machine, place);
                member.detached.insert(place, at);
            }
            self.slots.leave(id, place);
        }
    }

    fn feed_place(&mut self, now_ms: u64, id: MemberId, place: Place, actions: &mut Vec<Action>) {
        let mut left = TURN_RECORDS;
        loop {
            if self.members.get(&id).is_some_and(|member| !member.rescans.is_empty()) {
                // Before anything is said about where a second look stands.
                self.take_rescans(now_ms, id, actions);
            }
            let Some(at) = self.members.get(&id).and_then(|member| member.detached.get(&place).copied()) else { return };
            let Some(ring) = self.rings.get(place) else { return };
            let (ring_start, live) = (ring.start(), ring.end());
            let until = self.members.get(&id).and_then(|member| member.until(place));
            if until.is_some_and(|until| at >= until.min(live)) {
                return self.stop(now_ms, id, place, at, actions);
            }
            if at >= live {
                return self.attach(now_ms, id, place, at, actions);
            }
            if self.members.get(&id).is_some_and(|member| member.machine.room() == 0 && at >= member.machine.scanned_to(place)) {
                // Nothing new has room, and nothing old is to be read here.
                self.pass(now_ms, id, place, at, actions);
                return if at >= ring_start { self.slots.leave(id, place) } else { self.slots.stalled(id, place, at) };
            }
            if left == 0 {
                self.pass(now_ms, id, place, at, actions);
                return self.make_hungry(id);
            }
            let stretch = if at >= ring.start() { Some(ring) } else { self.slots.covering(place, at) };
            let Some(stretch) = stretch else {
                self.pass(now_ms, id, place, at, actions);
                let mut readers = Vec::new();
                let again = self.members.get(&id).is_some_and(|member| at < member.machine.scanned_to(place));
                self.slots.ask(now_ms, id, place, Wanted { at, again }, live, &mut readers);
                actions.extend(readers.into_iter().map(Action::Reader));
                return;
            };
            let until = until.unwrap_or(i64::MAX);
            let end = stretch.end().min(until);
            let bite = stretch.from(at, BITE_RECORDS.min(left)).take_while(|record| record.offset() < until);
            let bite: Vec<Arc<Record>> = bite.map(Arc::clone).collect();
            if bite.is_empty() {
                self.go_to(id, place, end);
                continue;
            }
            left -= bite.len();
            for record in bite {
                let offset = record.offset();
                if !self.consider(now_ms, id, &record, actions) {
                    let at = record.stop_at();
                    self.go_to(id, place, at);
                    // A second look that has come this far ends all the same: it may be what makes room.
                    let scanned_to = self.members.get(&id).map_or(at, |member| member.machine.scanned_to(place));
                    self.pass(now_ms, id, place, at.max(scanned_to.min(offset)), actions);
                    self.slots.stalled(id, place, at);
                    return self.refused(now_ms, id);
                }
                self.go_to(id, place, offset + 1);
                if self.members.get(&id).is_some_and(|member| !member.rescans.is_empty()) {
                    break;
                }
            }
        }
    }

    /// A replay has come to its end here, or to where the tail has not come yet. It stays detached.
    fn stop(&mut self, now_ms: u64, id: MemberId, place: Place, at: i64, actions: &mut Vec<Action>) {
        self.pass(now_ms, id, place, at, actions);
        self.slots.leave(id, place);
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.rescans.contains(&place) {
            return self.make_hungry(id);
        }
        if member.until(place).is_some_and(|until| at < until) {
            member.retry_at_ms = Some(now_ms + BEHIND_TAIL_MS);
            self.note(id);
        }
    }

    /// It has met the tail.
    fn attach(&mut self, now_ms: u64, id: MemberId, place: Place, at: i64, actions: &mut Vec<Action>) {
        self.pass(now_ms, id, place, at, actions);
        self.slots.leave(id, place);
        let Some(member) = self.members.get_mut(&id) else { return };
        if member.rescans.contains(&place) {
            // Somebody has room again at the very end.
            return self.make_hungry(id);
        }
        if member.machine.is_rescanning(place) {
            // A reader had been ahead of the tail: the second look ends where the tail has not come yet.
            member.retry_at_ms = Some(now_ms + BEHIND_TAIL_MS);
            return self.note(id);
        }
        member.detached.remove(&place);
        self.drive(now_ms, id, machine::Input::Attached { place, attached: true }, actions);
    }

    /// Shows a record to a subscription; false if there is no room for it.
    fn consider(&mut self, now_ms: u64, id: MemberId, record: &Arc<Record>, actions: &mut Vec<Action>) -> bool {
        let Some(member) = self.members.get_mut(&id) else { return true };
        let pending = member.machine.is_pending(record.place, record.offset());
        // What is pending is settled whatever the filters say by now.
        let wanted = pending || (!record.echo && member.wants(record, self.guard.as_ref(), self.watch.as_ref()));
        if wanted { self.offer(now_ms, id, record, actions) } else { true }
    }

    /// Hands a wanted record to the machine; false if there is no room for it.
    pub(super) fn offer(&mut self, now_ms: u64, id: MemberId, record: &Arc<Record>, actions: &mut Vec<Action>) -> bool {
        let Some(member) = self.members.get(&id) else { return true };
        let (place, offset, lane) = (record.place, record.offset(), record.lane_in(member.wish.order));
        if !member.machine.accepts(place, offset, lane, now_ms) {
            return false;
        }
        let verdict = if self.guard.stops(member.wish.caller, record) {
            Verdict::Withheld
        } else if record.is_orphan() {
            Verdict::Orphan
        } else {
            Verdict::Wanted
        };
        self.drive_with(now_ms, id, machine::Input::Record { place, offset, lane, verdict }, Some(record), actions);
        true
    }

    fn pass(&mut self, now_ms: u64, id: MemberId, place: Place, to: i64, actions: &mut Vec<Action>) {
        self.drive(now_ms, id, machine::Input::Passed { place, to }, actions);
    }

    fn go_to(&mut self, id: MemberId, place: Place, offset: i64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.detached.insert(place, offset);
        }
    }

    /// It has no room now, or a lane has none: an answer makes room, or patience ends.
    fn refused(&mut self, now_ms: u64, id: MemberId) {
        if let Some(member) = self.members.get_mut(&id)
            && member.machine.room() > 0
        {
            member.retry_at_ms = Some(now_ms + PATIENCE_MS);
        }
        self.note(id);
    }
}
