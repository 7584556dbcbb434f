//! What is delivered once more: rewinds, and what was set aside.
//!
//! What is set aside no more is forgotten in the very commit that holds the cursor that goes back.

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::hub::MemberId;
use ryggrad_bridge_core::machine::DeadLetter;
use ryggrad_store::Change;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::super::Letters;
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

    /// Takes up parked keys again.
    pub(super) fn redrive(&mut self, id: Uuid, letters: &Letters) -> usize {
        let now_ms = self.now_ms();
        let taken = self.take_letters(id, letters, true);
        if let Some(member) = self.members.get(&id).copied().filter(|_| !letters.preview) {
            taken.iter().for_each(|letter| self.hub.redrive(now_ms, member, *letter, &mut self.actions));
        }
        taken.len()
    }

    /// Forgets what was set aside alone. One with a parked key behind it is taken up again, never forgotten.
    pub(super) fn discard(&mut self, id: Uuid, letters: &Letters) -> usize {
        let taken = self.take_letters(id, letters, false);
        if let Some(member) = self.members.get(&id).copied().filter(|_| !letters.preview) {
            let left = self.clients.get(&member).map_or(0, |client| client.dead_letters.len());
            self.hub.set_dead_letters(member, left);
        }
        taken.len()
    }

    /// Takes them out of what is set aside, unless that is only a preview.
    fn take_letters(&mut self, id: Uuid, letters: &Letters, parked: bool) -> Vec<DeadLetter> {
        let Some(client) = self.members.get(&id).and_then(|member| self.clients.get_mut(member)) else { return Vec::new() };
        let meant = |(letter, at_ms): &(DeadLetter, u64)| letter.parked == parked && letters.take(letter, *at_ms);
        let found: Vec<DeadLetter> = client.dead_letters.iter().filter(|one| meant(one)).map(|(letter, _)| *letter).collect();
        if !letters.preview {
            client.dead_letters.retain(|one| !meant(one));
            let subscription = id.into_bytes();
            let forget = |letter: &DeadLetter| Change::ForgetDeadLetter { subscription, place: letter.place, offset: letter.offset };
            self.extra.extend(found.iter().map(forget));
        }
        found
    }
}
