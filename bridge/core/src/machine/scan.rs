//! What was read: taking records in, giving lanes back to the log, and looking again.
//!
//! Must never let a lane overtake itself: once one of its records is left to the log, all later
//! ones are, until it is read again from there.

use crate::cursor::{LaneKey, Place};

use super::Machine;
use super::books::{Refused, Rescan};
use super::exchange::{Action, Verdict};
use super::lanes::{Held, LaneId, LaneState, lane_alone};

/// How long a lane's head may be under way before a full lane is left to the log. Up to then
/// the reader waits: reading again is dearer.
pub const PATIENCE_MS: u64 = 1_000;

/// Free places that are worth reading collapsed lanes again, while anything else moves.
const RESCAN_ROOM: usize = 16;

impl Machine {
    /// Whether this wanted record may be handed in now. If not, ask again after each step, and
    /// within [`PATIENCE_MS`].
    pub fn accepts(&self, place: Place, offset: i64, lane: LaneKey, now_ms: u64) -> bool {
        let Some(part) = self.books.parts.get(&place) else { return true };
        // What is read again is counted already, or refused in order; a collapsed or a failing lane
        // takes nothing in.
        if offset < part.cursor.scanned_to || part.cursor.collapsed.contains_key(&lane) {
            return true;
        }
        let lane = self.lanes.get(&(place, lane));
        if lane.is_some_and(|lane| lane.failing_since_ms.is_some()) {
            return true;
        }
        if self.room() == 0 {
            return false;
        }
        let Some(lane) = lane.filter(|lane| lane.queue.len() >= self.intake.per_lane(&self.limits)) else { return true };
        matches!(lane.state, LaneState::InFlight { began_ms } if now_ms.saturating_sub(began_ms) > PATIENCE_MS)
    }

    /// How many new records the window takes now.
    pub fn room(&self) -> usize {
        self.intake.bound().saturating_sub(self.books.used())
    }

    pub(super) fn record(&mut self, place: Place, offset: i64, key: LaneKey, verdict: Verdict, actions: &mut Vec<Action>) {
        let Some(part) = self.books.parts.get(&place) else { return };
        if offset < part.cursor.scanned_to {
            self.reread(place, offset, key, verdict, actions);
        } else {
            // While it is attached, only the tail speaks: it says nothing about a second look.
            if !part.cursor.attached {
                self.end_rescan(place);
            }
            self.scan(place, offset, key, verdict, actions);
        }
    }

    fn scan(&mut self, place: Place, offset: i64, key: LaneKey, verdict: Verdict, actions: &mut Vec<Action>) {
        self.books.scan_to(place, offset.saturating_add(1));
        let Some(part) = self.books.parts.get_mut(&place) else { return };
        if verdict == Verdict::Unwanted || part.cursor.collapsed.contains_key(&key) {
            return;
        }
        if verdict == Verdict::Withheld {
            self.counts.withheld += 1;
            return;
        }
        let per_lane = self.intake.per_lane(&self.limits);
        let lane = self.lanes.get(&(place, key));
        if self.room() == 0 || lane.is_some_and(|lane| lane.failing_since_ms.is_some() || lane.queue.len() >= per_lane) {
            // From here on the log itself is this lane's queue. None of its records lies between
            // what it holds and this one, so that the second look may begin here; for a tombstone without its
            // event one before it, since a reading that starts at a tombstone takes it for an echo.
            self.books.collapse(place, key, offset - 1 - i64::from(verdict == Verdict::Orphan), false);
            self.moved((place, key));
        } else {
            self.keep(place, offset, key, actions);
        }
    }

    fn reread(&mut self, place: Place, offset: i64, key: LaneKey, verdict: Verdict, actions: &mut Vec<Action>) {
        let Some(part) = self.books.parts.get_mut(&place) else { return };
        let collapsed = part.cursor.collapsed.get(&key).filter(|lane| offset > lane.mark).copied();
        if part.unread.remove(&offset) {
            if collapsed.is_none() {
                // Pending stays pending, whatever the filter says today.
                self.hold_again(place, offset, key, verdict, actions);
                return;
            }
            // Its lane was parked before it turned up: it waits with the lane, for another number.
            self.void_alone(place, offset);
        } else if verdict == Verdict::Orphan && part.unread.remove(&(offset - 1)) {
            // Compaction took the event while it was pending. Its number is closed, and its
            // tombstone gets one of its own, or nobody would learn that the key is gone.
            self.counts.compacted += 1;
            self.void_alone(place, offset - 1);
            if collapsed.is_none() {
                self.keep(place, offset, key, actions);
                return;
            }
        }
        let no_room = self.room() == 0;
        let Some(part) = self.books.parts.get_mut(&place) else { return };
        if verdict == Verdict::Unwanted || collapsed.is_none_or(|lane| lane.parked) || part.rescan.is_none() || part.is_refused(key) {
            return;
        }
        if part.cursor.pending.contains_key(&offset) {
            // Redriven while the void notice of its first number is under way.
            part.awaited.insert(offset);
            part.refuse(key, Refused::Void);
            return;
        }
        if verdict == Verdict::Withheld {
            self.counts.withheld += 1;
            self.books.collapse(place, key, offset, false);
            return;
        }
        let per_lane = self.intake.per_lane(&self.limits);
        let lane = self.lanes.get(&(place, key));
        if no_room || lane.is_some_and(|lane| lane.failing_since_ms.is_some() || lane.queue.len() >= per_lane) {
            part.refuse(key, Refused::Full);
            return;
        }
        self.books.collapse(place, key, offset, false);
        self.keep(place, offset, key, actions);
    }

    /// A pending record of an earlier life has turned up.
    fn hold_again(&mut self, place: Place, offset: i64, key: LaneKey, verdict: Verdict, actions: &mut Vec<Action>) {
        let Some(mut held) = self.books.again(place, offset) else { return };
        if verdict == Verdict::Withheld {
            self.counts.withheld += 1;
            self.books.void(place, &mut held);
        } else {
            actions.push(Action::Keep { place, offset, number: held.number });
        }
        self.enqueue((place, key), held);
    }

    fn keep(&mut self, place: Place, offset: i64, key: LaneKey, actions: &mut Vec<Action>) {
        let held = self.books.give(place, offset);
        actions.push(Action::Keep { place, offset, number: held.number });
        self.enqueue((place, key), held);
    }

    /// A pending record that was never held again: its number is closed apart from any lane.
    fn void_alone(&mut self, place: Place, offset: i64) {
        let Some(mut held) = self.books.again(place, offset) else { return };
        self.books.void(place, &mut held);
        self.enqueue((place, lane_alone(offset)), held);
    }

    pub(super) fn enqueue(&mut self, id: LaneId, held: Held) {
        if let Some(shelf) = &mut self.books.shelf {
            shelf.hold(held.number, id.1);
        }
        let lane = self.lanes.entry(id).or_default();
        lane.queue.push_back(held);
        if lane.state == LaneState::Idle {
            self.line_up(id);
        }
    }

    pub(super) fn passed(&mut self, place: Place, to: i64) {
        let Some(part) = self.books.parts.get(&place) else { return };
        let ends = part.rescan.is_some() && !part.cursor.attached && to >= part.cursor.scanned_to;
        self.books.scan_to(place, to);
        if ends {
            self.end_rescan(place);
        }
    }

    pub(super) fn attached(&mut self, place: Place, attached: bool) {
        let Some(part) = self.books.parts.get_mut(&place) else { return };
        if part.cursor.attached != attached {
            part.cursor.attached = attached;
            self.books.touch(place);
        }
    }

    /// All that was to be read again has been: lanes that had room for everything are whole
    /// again, and pending records that did not turn up have been compacted away.
    fn end_rescan(&mut self, place: Place) {
        let Some(part) = self.books.parts.get_mut(&place) else { return };
        let Some(Rescan { refused, .. }) = part.rescan.take() else { return };
        part.cursor.collapsed.retain(|key, lane| lane.parked || refused.contains_key(key));
        let gone = std::mem::take(&mut part.unread);
        self.books.touch(place);
        for offset in gone {
            self.counts.compacted += 1;
            self.void_alone(place, offset);
        }
        for (key, why) in refused {
            if why == Refused::Full {
                self.moved((place, key));
            }
        }
    }

    /// A lane holds less than before, or has recovered: if the log has more of it, it is to be
    /// read when it is down to a quarter.
    pub(super) fn moved(&mut self, id: LaneId) {
        let Some(part) = self.books.parts.get_mut(&id.0) else { return };
        if part.hungry || part.cursor.collapsed.get(&id.1).is_none_or(|lane| lane.parked) {
            return;
        }
        let low = self.intake.per_lane(&self.limits) / 4;
        part.hungry = self.lanes.get(&id).is_none_or(|lane| lane.failing_since_ms.is_none() && lane.queue.len() <= low);
        self.books.hungry |= part.hungry;
    }

    /// Begins the second looks that are due and would bring something.
    pub(super) fn look_again(&mut self, actions: &mut Vec<Action>) {
        if !self.books.hungry {
            return;
        }
        let room = self.room();
        let rests = self.attempts.is_empty() && self.ready.is_empty() && self.books.is_clear();
        if room == 0 || (room < RESCAN_ROOM.min(self.intake.bound() / 4) && !rests) {
            return;
        }
        self.books.hungry = false;
        for (place, part) in &mut self.books.parts {
            if !part.hungry {
                continue;
            }
            if part.rescan.is_some() {
                self.books.hungry = true;
                continue;
            }
            part.hungry = false;
            if let Some(mark) = part.cursor.collapsed.values().filter(|lane| !lane.parked).map(|lane| lane.mark).min() {
                part.rescan = Some(Rescan { from: mark + 1, ..Rescan::default() });
                actions.push(Action::Rescan { place: *place });
            }
        }
    }

    pub(super) fn redrive(&mut self, place: Place, key: LaneKey) {
        let Some(part) = self.books.parts.get_mut(&place) else { return };
        let Some(lane) = part.cursor.collapsed.get_mut(&key).filter(|lane| lane.parked) else { return };
        lane.parked = false;
        part.hungry = true;
        self.books.hungry = true;
        // The look under way may have passed its records.
        part.refuse(key, Refused::Full);
        self.dead_letters = self.dead_letters.saturating_sub(1);
        self.books.touch(place);
    }
}
