//! Attempts and fetches: how they begin, how they end, and what the hub is told of it.
//!
//! Must never tell the hub anything but what happened, a planted bug aside.

use ryggrad_bridge_core::hub::gate::Address;
use ryggrad_bridge_core::hub::{Input, MemberId, Parcel};
use ryggrad_bridge_core::machine::DisableReason;
use ryggrad_bridge_core::outcome::Outcome;

use super::plan::{Bug, Fault};
use super::rig::Rig;
use super::subscription::UnderWay;

impl Rig {
    pub(super) fn begin(&mut self, member: MemberId, address: Address, attempt: u64, parcels: Vec<Parcel>) {
        let Some(subscription) = self.index(member) else { return self.violate("an attempt is nobody's".to_owned()) };
        let hangs = self.mute.as_ref() == Some(&address) || (self.plan.has(Fault::Hang) && self.random.chance(4));
        let hangs_until_ms = if hangs { self.now_ms + 500 + self.random.below(4_000) } else { 0 };
        let mut attempt = UnderWay { subscription, member, address, attempt, parcels, began_step: self.step, hangs_until_ms, told: false };
        self.tell(&("attempt", member, attempt.attempt, attempt.parcels.iter().map(brief).collect::<Vec<_>>()));
        if hangs {
            self.meets(Fault::Hang, subscription, attempt.parcels[0].delivery.place);
        }
        match self.plan.bug {
            Bug::OvertakeWithinKey => self.overtake(&attempt),
            Bug::EventForNotice => self.unveil(&mut attempt),
            Bug::RewindUnderOldNames => attempt.parcels.iter_mut().for_each(|parcel| parcel.delivery.generation = 0),
            Bug::SettleBeforeAnswer => {
                attempt.told = true;
                self.early.push(attempt.clone());
            }
            _ => {}
        }
        self.begins(attempt);
    }

    fn begins(&mut self, attempt: UnderWay) {
        let own = &self.subscriptions[attempt.subscription];
        let looked = own.begins(&attempt, &self.under_way, &self.log, self.now_ms);
        let untold = || self.under_way.iter().filter(|other| !other.told);
        let here = untold().filter(|other| other.address == attempt.address).count();
        let (total_max, endpoint_max) = self.attempts_max();
        if untold().count() >= total_max || here >= endpoint_max {
            self.violate("too many attempts at once".to_owned());
        }
        looked.unwrap_or_else(|why| self.violate(why));
        if self.closed {
            self.violate("an attempt was made while the bridge was about to end".to_owned());
        }
        if attempt.parcels.iter().any(|parcel| parcel.record.is_none()) {
            self.coverage.saw("notice");
        }
        self.under_way.push(attempt);
    }

    /// Planted: what stands behind in the lane goes first.
    fn overtake(&mut self, attempt: &UnderWay) {
        let Some(head) = attempt.parcels.last().and_then(|parcel| parcel.record.as_ref()) else { return };
        let own = &self.subscriptions[attempt.subscription];
        let Some(member) = self.hub.member(own.member) else { return };
        let behind = member.all_kept().filter(|next| next.place == head.place && next.lane == head.lane && next.offset() > head.offset());
        let Some(next) = behind.min_by_key(|next| next.offset()) else { return };
        let stored = own.disk.cursors[&next.place].pending.get(&next.offset());
        let Some(number) = stored.map(|stored| stored.number) else { return };
        let mut delivery = attempt.parcels[0].delivery;
        (delivery.place, delivery.offset, delivery.number) = (next.place, next.offset(), number);
        let parcels = vec![Parcel { delivery, record: Some(next.clone()) }];
        self.subscriptions[attempt.subscription].takes(&UnderWay { parcels, ..attempt.clone() }, self.life, false);
    }

    /// Planted: the event goes where a notice should.
    fn unveil(&mut self, attempt: &mut UnderWay) {
        for parcel in attempt.parcels.iter_mut().filter(|parcel| parcel.record.is_none()) {
            parcel.record = self.log.record(parcel.delivery.place, parcel.delivery.offset);
        }
    }

    /// Something that is under way ends.
    pub fn answer(&mut self, calm: bool) {
        self.fetch(calm);
        let now_ms = self.now_ms;
        let ready: Vec<usize> = (0..self.under_way.len()).filter(|index| self.under_way[*index].hangs_until_ms <= now_ms).collect();
        if ready.is_empty() {
            return;
        }
        let index = self.random.one_of(&ready);
        let ended = self.under_way.swap_remove(index);
        let fault = match &self.mute {
            Some(mute) if *mute == ended.address => Some(Fault::Fail),
            _ if calm => None,
            _ => self.trouble(&ended),
        };
        let outcome = match fault {
            None => Outcome::Delivered,
            Some(Fault::Throttle) => Outcome::Throttled { retry_after_ms: self.random.one_of(&[0, 100, 800]) },
            Some(Fault::Hopeless) => Outcome::Hopeless,
            Some(Fault::Gone) => Outcome::Gone,
            Some(Fault::Unsent) => Outcome::Unsent,
            Some(_) => Outcome::Failed,
        };
        if let Some(fault) = fault {
            self.meets(fault, ended.subscription, ended.parcels[0].delivery.place);
        }
        if matches!(fault, None | Some(Fault::Lie)) {
            let wrong = self.plan.bug == Bug::WrongSubscription && self.random.chance(5);
            let taker = if wrong { (ended.subscription + 1) % self.subscriptions.len() } else { ended.subscription };
            self.subscriptions[taker].takes(&ended, self.life, fault.is_none());
        }
        let disowned = self.disowned.contains(&(ended.member, ended.attempt));
        if disowned || ended.told || (self.plan.bug == Bug::LoseAnswer && self.random.chance(1)) {
            return;
        }
        // It was asked for with the answer. What hung was not answered at all.
        let answered = fault != Some(Fault::Lie) && ended.hangs_until_ms == 0 && self.random.chance(50);
        let own = &mut self.subscriptions[ended.subscription];
        let outcome = if outcome != Outcome::Delivered && outcome != Outcome::Unsent && ended.address != own.address {
            // What the old address asks for does not bind the new one.
            Outcome::Failed
        } else {
            outcome
        };
        match outcome {
            Outcome::Throttled { retry_after_ms } => own.quiet_until_ms = own.quiet_until_ms.max(now_ms + retry_after_ms),
            // Whatever the hub makes of it.
            Outcome::Gone => own.running = false,
            _ => {}
        }
        let reported = match self.plan.bug {
            Bug::DropOnFailure if outcome == Outcome::Failed => Outcome::Delivered,
            Bug::IgnoreRetryAfter if matches!(outcome, Outcome::Throttled { .. }) => Outcome::Failed,
            _ => outcome,
        };
        self.told(&ended, reported, answered);
        if self.plan.bug == Bug::DeliverAfterGone && outcome == Outcome::Gone {
            self.begins(ended);
        }
    }

    /// What goes wrong with an attempt that ends.
    fn trouble(&mut self, ended: &UnderWay) -> Option<Fault> {
        if ended.hangs_until_ms > 0 {
            // It was taken in the end, or never.
            let taken = self.plan.has(Fault::Lie) && self.random.chance(30);
            return Some(if taken { Fault::Lie } else { Fault::Fail });
        }
        if let Some(fault) = self.subscriptions[ended.subscription].refuses(&self.log, &ended.parcels) {
            return Some(fault);
        }
        let fault = match self.random.below(100) {
            0..8 => Fault::Fail,
            8..11 => Fault::Throttle,
            11..14 => Fault::Hopeless,
            14..16 => Fault::Gone,
            16..21 => Fault::Lie,
            21..24 => Fault::Unsent,
            _ => return None,
        };
        self.plan.has(fault).then_some(fault)
    }

    pub(super) fn told(&mut self, ended: &UnderWay, outcome: Outcome, answered: bool) {
        let UnderWay { member, address, attempt, .. } = ended.clone();
        let entropy = self.random.next();
        self.drive(Input::Attempted { member, address, attempt, outcome, answered, entropy });
    }

    /// The hub has stopped a subscription; that is stored as its owner's state.
    pub(super) fn disabled(&mut self, member: MemberId, reason: DisableReason) {
        self.tell(&("disabled", member, reason));
        let Some(index) = self.index(member) else { return self.violate("nobody was disabled".to_owned()) };
        self.coverage.saw(if reason == DisableReason::Gone { "disabled as gone" } else { "disabled as failing" });
        self.subscriptions[index].running = false;
    }

    /// A receiver that has been told of events fetches some, and acknowledges them or not.
    fn fetch(&mut self, calm: bool) {
        let fetches = |index: &usize| self.subscriptions[*index].fetches && !self.subscriptions[*index].removed;
        let Some(index) = (0..self.subscriptions.len()).find(fetches) else { return };
        let (member, fetched) = (self.subscriptions[index].member, self.subscriptions[index].fetched);
        if !self.subscriptions[index].has_news {
            if calm {
                // It has seen all, and may not have said so.
                self.drive(Input::Acknowledged { member, number: fetched });
            }
            return;
        }
        let count = 1 + self.random.below(6) as usize;
        let after = if self.random.chance(50) { 0 } else { fetched };
        let mut actions = Vec::new();
        let parcels = self.hub.fetch(self.now_ms, member, after, count, &mut actions);
        self.act(actions);
        // Whoever has seen the end waits until it is told of more.
        self.subscriptions[index].has_news = parcels.len() == count;
        if parcels.len() < count {
            self.drive(Input::Emptied(member));
        }
        if parcels.is_empty() {
            return;
        }
        if self.subscriptions[index].held {
            return self.violate("events were shown while it was held".to_owned());
        }
        self.step += 1;
        self.coverage.saw("fetched");
        self.tell(&("fetched", member, parcels.iter().map(brief).collect::<Vec<_>>()));
        let mut before = after;
        for parcel in &parcels {
            let number = parcel.delivery.number;
            if after == fetched && number != before + 1 {
                self.violate(format!("number {number} was shown behind {before}"));
            }
            before = number;
            if let Err(why) = self.subscriptions[index].leaves(parcel, &self.log) {
                self.violate(why);
            }
        }
        let fetch = UnderWay {
            subscription: index,
            member,
            address: self.subscriptions[index].address.clone(),
            attempt: 0,
            parcels,
            began_step: self.step,
            hangs_until_ms: 0,
            told: true,
        };
        let subscription = &mut self.subscriptions[index];
        subscription.takes(&fetch, self.life, false);
        subscription.fetched = subscription.fetched.max(before);
        let mut number = subscription.fetched;
        if self.plan.bug == Bug::AcknowledgeUnseen {
            number += 2;
        }
        if calm || self.random.chance(60) {
            self.coverage.saw("acknowledged");
            self.drive(Input::Acknowledged { member, number });
        }
    }
}

fn brief(parcel: &Parcel) -> (i32, i64, u64, bool) {
    (parcel.delivery.place.partition, parcel.delivery.offset, parcel.delivery.number, parcel.record.is_some())
}
