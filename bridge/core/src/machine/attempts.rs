//! Attempts: which to make, and what their ends mean.
//!
//! Must never have two attempts of one lane under way, nor let out what is not on disk.

use crate::cursor::Place;
use crate::outcome::Outcome;
use crate::settings::OnExhausted;

use super::Machine;
use super::exchange::{Action, DeadLetter, DisableReason, Mode};
use super::lanes::{Held, LaneId, LaneState, lane_alone, mix};

/// What an attempt holds: from each lane as many as that lane says.
#[derive(Debug)]
pub(super) struct UnderWay {
    first: LaneId,
    /// Further lanes of a batch.
    others: Vec<LaneId>,
    deliveries: usize,
}

impl Machine {
    /// Finds the place in line for a lane that nothing is under way of.
    pub(super) fn line_up(&mut self, id: LaneId) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(head) = lane.queue.front() else {
            self.lanes.remove(&id);
            return;
        };
        if self.limits.in_flight_max == 0 {
            lane.state = LaneState::Idle;
        } else if self.books.holds(head) {
            lane.state = LaneState::Ready;
            self.ready.push_back(id);
        } else {
            lane.state = LaneState::Committing;
            let line = if self.books.is_bringing(head) { &mut self.committing } else { &mut self.uncommitted };
            line.push(id);
        }
    }

    /// The commit that was out is on disk: its lanes may go.
    pub(super) fn persisted(&mut self) {
        self.books.persisted();
        let mut lanes = std::mem::take(&mut self.committing);
        for id in lanes.drain(..) {
            if self.lanes.get(&id).is_some_and(|lane| lane.state == LaneState::Committing) {
                self.line_up(id);
            }
        }
        // With no commit out, what lined up meanwhile is in `uncommitted`: only the room is kept.
        self.committing = lanes;
    }

    pub(super) fn dispatch(&mut self, now_ms: u64, actions: &mut Vec<Action>) {
        while self.timers.first().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
            if let Some((_, id)) = self.timers.pop_first() {
                self.line_up(id);
            }
        }
        if !self.may_attempt(now_ms) {
            return;
        }
        while self.attempts.len() < self.limits.in_flight_max && !self.ready.is_empty() && self.rates.take(now_ms) {
            if !self.attempt(now_ms, actions) {
                self.rates.give_back();
            }
        }
    }

    /// Makes one attempt of what is first in line, if it still may go.
    fn attempt(&mut self, now_ms: u64, actions: &mut Vec<Action>) -> bool {
        let mut bound = self.limits.batch_events_max.max(1);
        let mut deliveries = Vec::with_capacity(bound.min(self.ready.len()));
        let mut first = None;
        let mut others = Vec::new();
        while deliveries.len() < bound {
            let Some(id) = self.ready.pop_front() else { break };
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            // A lane that was emptied and filled again while it was in line stands in it twice.
            if lane.state != LaneState::Ready {
                continue;
            }
            if !lane.queue.front().is_some_and(|head| self.books.holds(head)) {
                self.line_up(id);
                continue;
            }
            let together = bound.min(lane.bound.max(1));
            if deliveries.len() >= together {
                self.ready.push_front(id);
                break;
            }
            bound = together;
            let before = deliveries.len();
            for held in lane.queue.iter().take(bound - before).take_while(|held| self.books.holds(held)) {
                deliveries.push(self.books.delivery(id, held));
            }
            lane.under_way = deliveries.len() - before;
            lane.state = LaneState::InFlight { began_ms: now_ms };
            if first.is_none() {
                first = Some(id);
            } else {
                others.push(id);
            }
        }
        let Some(first) = first else { return false };
        let attempt = self.next_attempt;
        self.next_attempt += 1;
        self.attempts.insert(attempt, UnderWay { first, others, deliveries: deliveries.len() });
        actions.push(Action::Attempt { attempt, deliveries });
        true
    }

    pub(super) fn attempted(&mut self, now_ms: u64, attempt: u64, outcome: Outcome, entropy: u64, actions: &mut Vec<Action>) {
        let Some(under_way) = self.attempts.remove(&attempt) else { return };
        let lanes = std::iter::once(under_way.first).chain(under_way.others);
        match outcome {
            Outcome::Delivered => {
                self.succeeded(under_way.deliveries);
                lanes.for_each(|id| self.settle_first(id, actions));
            }
            Outcome::Withheld => lanes.for_each(|id| self.withheld_at_attempt(id, actions)),
            Outcome::Unsent => {
                self.rates.give_back();
                for id in lanes {
                    if self.withhold_stayed(id, actions) {
                        self.recovered(id);
                    }
                    self.line_up(id);
                }
            }
            Outcome::Failed | Outcome::Hopeless | Outcome::Throttled { .. } | Outcome::Gone => {
                self.counts.failed_attempts += 1;
                self.intake.failed(&self.limits);
                if let Outcome::Throttled { retry_after_ms } = outcome {
                    self.throttled_until_ms = self.throttled_until_ms.max(now_ms.saturating_add(retry_after_ms));
                }
                for (index, id) in lanes.enumerate() {
                    self.failed(now_ms, id, under_way.deliveries, outcome, mix(entropy.wrapping_add(index as u64)), actions);
                }
                self.disable_after(now_ms, outcome, actions);
            }
        }
    }

    /// Something has got through: the endpoint lives.
    pub(super) fn succeeded(&mut self, deliveries: usize) {
        self.failing_since_ms = None;
        self.intake.succeeded(deliveries, &self.limits);
    }

    fn settle_first(&mut self, id: LaneId, actions: &mut Vec<Action>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let taken = lane.under_way.min(lane.queue.len());
        lane.bound = lane.bound.saturating_mul(2);
        lane.recover();
        for held in lane.queue.drain(..taken) {
            self.books.settle(id.0, held.offset);
            self.counts.taken(id.0, &held, actions);
        }
        self.line_up(id);
        self.moved(id);
    }

    fn withheld_at_attempt(&mut self, id: LaneId, actions: &mut Vec<Action>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let under_way = lane.under_way;
        lane.recover();
        for held in lane.queue.iter_mut().take(under_way).filter(|held| !held.void) {
            self.books.void(id.0, held);
            self.counts.withheld += 1;
            actions.push(Action::Forget { place: id.0, offset: held.offset });
        }
        self.line_up(id);
        self.moved(id);
    }

    fn failed(&mut self, now_ms: u64, id: LaneId, deliveries: usize, outcome: Outcome, entropy: u64, actions: &mut Vec<Action>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        for held in lane.queue.iter_mut().take(lane.under_way) {
            held.attempts = held.attempts.saturating_add(1);
        }
        let alone = deliveries == 1;
        if matches!(outcome, Outcome::Failed | Outcome::Hopeless) {
            // Halves find the culprit, and it stays alone until it succeeds.
            lane.bound = (deliveries / 2).max(1);
        }
        if self.withhold_stayed(id, actions) {
            // It was the event that failed; the notice is another matter.
            self.recovered(id);
            self.line_up(id);
            return;
        }
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        if outcome == Outcome::Hopeless && !alone {
            // Waiting does not tell which.
            self.line_up(id);
            return;
        }
        let failing_since_ms = *lane.failing_since_ms.get_or_insert(now_ms);
        let Some(head) = lane.queue.front() else { return };
        let mut wait_ms = self.policy.retry.backoff_ms(head.attempts, entropy);
        let past_horizon = now_ms.saturating_sub(failing_since_ms) >= self.policy.retry.horizon_ms;
        if let Outcome::Throttled { retry_after_ms } = outcome {
            wait_ms = wait_ms.max(retry_after_ms);
        } else if alone && (outcome == Outcome::Hopeless || (outcome == Outcome::Failed && past_horizon)) {
            if !head.void && self.set_aside(id, outcome, actions) {
                return;
            }
            wait_ms = self.policy.retry.probe_ms;
        }
        let due_ms = now_ms.saturating_add(wait_ms);
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.state = LaneState::Waiting { due_ms, outcome };
            self.timers.insert((due_ms, id));
        }
    }

    /// Sets the head aside, if the policy says so and there is room for it.
    fn set_aside(&mut self, id: LaneId, outcome: Outcome, actions: &mut Vec<Action>) -> bool {
        let on_exhausted = if self.dead_letters < self.policy.dead_letters_max { self.policy.on_exhausted } else { OnExhausted::Block };
        let parked = match on_exhausted {
            OnExhausted::Block => return false,
            OnExhausted::Park => true,
            OnExhausted::Skip => false,
        };
        let Some(mut lane) = self.lanes.remove(&id) else { return false };
        let Some(head) = lane.queue.pop_front() else { return false };
        let (place, key) = id;
        self.dead_letters += 1;
        self.counts.dead_lettered += 1;
        self.books.set_aside(DeadLetter { place, offset: head.offset, lane: key, number: head.number, outcome, parked });
        if parked {
            // Everything from the head on is read again when somebody redrives it.
            self.books.collapse(place, key, head.offset - 1, true);
            for held in std::iter::once(head).chain(lane.queue) {
                self.close(place, held, actions);
            }
        } else {
            lane.recover();
            lane.state = LaneState::Idle;
            if let Some(next) = lane.queue.front_mut() {
                // Not before the disk knows, or a crash would send the skipped one after it.
                next.commit = self.books.next_commit();
            }
            self.lanes.insert(id, lane);
            self.line_up(id);
            self.close(place, head, actions);
            self.moved(id);
        }
        true
    }

    /// Closes a number by a void notice that no lane waits for.
    fn close(&mut self, place: Place, mut held: Held, actions: &mut Vec<Action>) {
        if !held.void {
            self.books.void(place, &mut held);
            actions.push(Action::Forget { place, offset: held.offset });
        }
        self.enqueue((place, lane_alone(held.offset)), held);
    }

    pub(super) fn withhold(&mut self, id: LaneId, offset: i64, actions: &mut Vec<Action>) {
        let Some(lane) = self.lanes.get_mut(&id) else { return };
        let Some(position) = lane.position(offset) else { return };
        let under_way = position < lane.under_way;
        let Some(held) = lane.queue.get_mut(position).filter(|held| !held.void) else { return };
        if under_way {
            // What is on its way can't be called back.
            held.stays = true;
            return;
        }
        self.books.void(id.0, held);
        self.counts.withheld += 1;
        actions.push(Action::Forget { place: id.0, offset });
        if position == 0
            && let LaneState::Waiting { due_ms, .. } = lane.state
        {
            // It was the event that failed; the notice is another matter.
            self.timers.remove(&(due_ms, id));
            self.recovered(id);
            self.line_up(id);
        }
    }

    /// An attempt has ended and what it held is still there: what was withheld meanwhile becomes
    /// void. Says whether the head did.
    fn withhold_stayed(&mut self, id: LaneId, actions: &mut Vec<Action>) -> bool {
        let Some(lane) = self.lanes.get_mut(&id) else { return false };
        let under_way = std::mem::take(&mut lane.under_way);
        let mut head = false;
        for (index, held) in lane.queue.iter_mut().take(under_way).enumerate().filter(|(_, held)| held.stays && !held.void) {
            self.books.void(id.0, held);
            self.counts.withheld += 1;
            actions.push(Action::Forget { place: id.0, offset: held.offset });
            head |= index == 0;
        }
        head
    }

    /// What failed in this lane does not go out any more.
    fn recovered(&mut self, id: LaneId) {
        if let Some(lane) = self.lanes.get_mut(&id) {
            lane.recover();
        }
        self.moved(id);
    }

    fn disable_after(&mut self, now_ms: u64, outcome: Outcome, actions: &mut Vec<Action>) {
        let since_ms = *self.failing_since_ms.get_or_insert(now_ms);
        if self.mode == Mode::Stopped {
            return;
        }
        let reason = if outcome == Outcome::Gone {
            DisableReason::Gone
        } else if now_ms.saturating_sub(since_ms) >= self.policy.disable_after_ms {
            DisableReason::Failing { since_ms }
        } else {
            return;
        };
        self.mode = Mode::Stopped;
        actions.push(Action::Disable { reason });
    }
}
