//! Who is stopped holds, and goes on when that ends: what the hub is told of it.
//!
//! Must never touch the mode, which is the owner's.

use super::Runner;

impl Runner {
    /// Tells the hub of everyone who is stopped by now, or is so no longer.
    pub(super) fn weigh_holds(&mut self) {
        let now_ms = self.now_ms();
        for (member, client) in &self.clients {
            let held = client.hold.is_set();
            if self.hub.member(*member).is_some_and(|known| known.machine().is_held() != held) {
                self.hub.hold(now_ms, *member, held, &mut self.actions);
            }
        }
        self.count_held();
    }

    /// Replays aside.
    pub(super) fn count_held(&self) {
        let held = self.clients.values().filter(|client| client.replay_of.is_none() && client.hold.is_set()).count();
        self.context.telemetry.subscriptions_held.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}
