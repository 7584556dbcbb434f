//! Going back: a subscription reads again from an earlier offset on, by itself, until it meets the
//! tail.
//!
//! Must never leave an attempt at the gate that was made before.

use super::exchange::{Action, MemberId};
use super::member::again_from;
use super::{Hub, ring};
use crate::cursor::Place;
use crate::machine;
use crate::outcome::Outcome;

impl Hub {
    /// Where a subscription is: everything below has been looked at.
    pub fn position(&self, id: MemberId, place: Place) -> Option<i64> {
        let member = self.members.get(&id)?;
        let scanned_to = member.machine.cursors().find(|(there, _)| *there == place).map(|(_, cursor)| cursor.scanned_to)?;
        let live = self.rings.get(place).map(ring::Stretch::end).filter(|_| member.is_attached(place));
        Some(live.map_or(scanned_to, |live| live.max(scanned_to)))
    }

    /// A subscription goes back to these offsets, as soon as what is under way has ended;
    /// `Action::Rewound` tells. False if it is in none of them further than that.
    pub fn rewind(&mut self, now_ms: u64, id: MemberId, targets: &[(Place, i64)], actions: &mut Vec<Action>) -> bool {
        let back = targets.iter().filter(|(place, to)| self.position(id, *place).is_some_and(|at| *to < at));
        let back: Vec<(Place, i64)> = back.copied().collect();
        if back.is_empty() {
            return false;
        }
        for (place, to) in &back {
            self.drive(now_ms, id, machine::Input::Rewind { place: *place, to: *to }, actions);
        }
        self.withdraw(now_ms, id, actions);
        self.settle_down(now_ms, actions);
        true
    }

    /// Takes back what waits at the gate.
    fn withdraw(&mut self, now_ms: u64, id: MemberId, actions: &mut Vec<Action>) {
        let Some(address) = self.members.get(&id).and_then(|member| member.wish.address.clone()) else { return };
        for attempt in self.gate.withdraw(&address, id) {
            if let Some(member) = self.members.get_mut(&id) {
                member.attempts.remove(&attempt);
            }
            self.drive(now_ms, id, machine::Input::Attempted { attempt, outcome: Outcome::Unsent, entropy: 0 }, actions);
        }
    }

    /// The machine has gone back.
    pub(super) fn go_back(&mut self, id: MemberId, place: Place, to: i64, actions: &mut Vec<Action>) {
        let Some(member) = self.members.get_mut(&id) else { return };
        member.kept.retain(|(there, _), _| *there != place);
        member.rescans.retain(|there| *there != place);
        let at = again_from(&member.machine, place);
        member.detached.insert(place, at);
        self.slots.leave(id, place);
        self.make_hungry(id);
        actions.push(Action::Rewound { member: id, place, to });
    }
}
