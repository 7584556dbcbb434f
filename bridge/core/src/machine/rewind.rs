//! Going back: the cursor is set to an earlier offset, and the partition begins as after a restart.
//!
//! Must never go back while an attempt is under way (a key would have two at once) or while a
//! commit is (what was set aside in it would come to light afterwards).

use crate::cursor::Place;

use super::Machine;
use super::exchange::Action;
use super::lanes::lane_alone;

impl Machine {
    /// Goes back where that was asked for, if it may happen now.
    pub(super) fn rewind(&mut self, actions: &mut Vec<Action>) {
        if self.rewinding.is_empty() || !self.attempts.is_empty() || self.books.is_committing() {
            return;
        }
        for (place, to) in std::mem::take(&mut self.rewinding) {
            // Lanes that stand in a line or have a timer are gone when their turn comes.
            self.lanes.retain(|(there, _), _| *there != place);
            self.timers.retain(|(_, (there, _))| *there != place);
            self.books.rewind(place, to);
            self.hold_notices(place);
            actions.push(Action::Rewound { place, to });
        }
        self.set_shelf();
    }

    /// Void notices need no record, so that they are held at once.
    pub(super) fn hold_notices(&mut self, place: Place) {
        let Some(part) = self.books.parts.get(&place) else { return };
        let void: Vec<i64> = part.cursor.pending.iter().filter(|(_, pending)| pending.void).map(|(offset, _)| *offset).collect();
        for offset in void {
            if let Some(held) = self.books.again(place, offset) {
                self.enqueue((place, lane_alone(offset)), held);
            }
        }
    }
}
