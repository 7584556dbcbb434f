//! What is delivered once more: rewinds, and what was set aside.
//!
//! What is set aside no more is forgotten in the very commit that holds the cursor that goes back.

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::hub::MemberId;
use ryggrad_bridge_core::machine::DeadLetter;
use ryggrad_store::Change;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::Runner;

impl Runner {
    /// Answers when it is on disk; false if nothing is further than these offsets.
    pub(super) fn rewind(&mut self, id: Uuid, targets: &[(Place, i64)], answer: oneshot::Sender<bool>) {
        let now_ms = self.now_ms();
        let Some(member) = self.members.get(&id).copied() else { return };
        if !self.hub.rewind(now_ms, member, targets, &mut self.actions) {
            // Whoever gave up knows less, and loses nothing.
            let _ = answer.send(false);
        } else if let Some(client) = self.clients.get_mut(&member) {
            client.rewinding.push(answer);
        }
    }

    /// It has gone back, which is on disk with the next commit.
    pub(super) fn rewound(&mut self, member: MemberId, place: Place, to: i64) {
        let Some(client) = self.clients.get_mut(&member) else { return };
        let again = |letter: &DeadLetter| letter.place == place && letter.offset >= to;
        let subscription = client.id.into_bytes();
        for (letter, _) in client.dead_letters.extract_if(.., |(letter, _)| again(letter)) {
            self.extra.push(Change::ForgetDeadLetter { subscription, place, offset: letter.offset });
        }
        let left = client.dead_letters.len();
        self.waiting.append(&mut client.rewinding);
        self.hub.set_dead_letters(member, left);
        self.context.telemetry.rewinds.inc();
    }

    pub(super) fn redrive(&mut self, id: Uuid, one: Option<(Place, i64)>) -> usize {
        let now_ms = self.now_ms();
        let Some(member) = self.members.get(&id).copied() else { return 0 };
        let Some(client) = self.clients.get_mut(&member) else { return 0 };
        let wanted =
            |letter: &DeadLetter| letter.parked && one.is_none_or(|(place, offset)| (letter.place, letter.offset) == (place, offset));
        let (taken, left): (Vec<_>, Vec<_>) = std::mem::take(&mut client.dead_letters).into_iter().partition(|(letter, _)| wanted(letter));
        client.dead_letters = left;
        for (letter, _) in &taken {
            self.extra.push(Change::ForgetDeadLetter { subscription: id.into_bytes(), place: letter.place, offset: letter.offset });
            self.hub.redrive(now_ms, member, *letter, &mut self.actions);
        }
        taken.len()
    }

    pub(super) fn drop_dead_letter(&mut self, id: Uuid, place: Place, offset: i64) -> bool {
        let Some(member) = self.members.get(&id).copied() else { return false };
        let Some(client) = self.clients.get_mut(&member) else { return false };
        let before = client.dead_letters.len();
        // One with a parked key behind it is taken up again, never forgotten.
        client.dead_letters.retain(|(letter, _)| letter.parked || (letter.place, letter.offset) != (place, offset));
        let found = client.dead_letters.len() < before;
        if found {
            let left = client.dead_letters.len();
            self.hub.set_dead_letters(member, left);
            self.extra.push(Change::ForgetDeadLetter { subscription: id.into_bytes(), place, offset });
        }
        found
    }
}
