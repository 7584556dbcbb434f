//! The receiver's side: attempts on their way to it, what it takes, and what it must never see.
//!
//! Knows nothing of the machine: it judges by what leaves, by what is on disk, and by the clock.

use std::collections::{BTreeMap, BTreeSet};

use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::machine::{Delivery, Limits};
use ryggrad_bridge_core::outcome::Outcome;
use ryggrad_bridge_core::settings::Order;

use super::log::{KEYS, Log};
use super::plan::{Fault, Plan};
use super::random::Random;

/// An attempt under way.
#[derive(Debug, Clone)]
pub struct UnderWay {
    pub attempt: u64,
    pub deliveries: Vec<Delivery>,
    pub began_step: u64,
    /// It is not answered before.
    pub hangs_until_ms: u64,
}

/// What the receiver took.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub number: u64,
    pub place: Place,
    pub offset: i64,
    pub void: bool,
    /// The step in which its attempt began.
    pub began_step: u64,
    /// How often the bridge had crashed by then.
    pub life: u32,
    /// The bridge was told.
    pub answered: bool,
}

#[derive(Debug)]
pub struct Receiver {
    pub under_way: Vec<UnderWay>,
    pub took: Vec<Arrival>,
    /// Keys that it can't take, and events that it never will.
    failing: BTreeSet<u64>,
    poison_percent: u64,
    /// No attempt may begin: it said 410, or the subscription stopped.
    pub shut: bool,
    /// No attempt may begin before: it asked for a pause.
    pub quiet_until_ms: u64,
    /// Attempts since, for the rate.
    counted: u64,
    counted_from_ms: u64,
    carried: u64,
    pub violation: Option<String>,
}

impl Receiver {
    pub fn new(random: &mut Random, plan: &Plan) -> Self {
        let failing = (0..KEYS).filter(|_| plan.has(Fault::Fail) && random.chance(15)).collect();
        let poison_percent = if plan.has(Fault::Hopeless) { random.one_of(&[0, 2, 10]) } else { 0 };
        Self {
            under_way: Vec::new(),
            took: Vec::new(),
            failing,
            poison_percent,
            shut: false,
            quiet_until_ms: 0,
            counted: 0,
            counted_from_ms: 0,
            carried: 0,
            violation: None,
        }
    }

    /// All is well from now on.
    pub fn mend(&mut self) {
        self.failing.clear();
        self.poison_percent = 0;
        self.under_way.iter_mut().for_each(|attempt| attempt.hangs_until_ms = 0);
    }

    pub fn violate(&mut self, why: String) {
        self.violation.get_or_insert(why);
    }

    /// Counts attempts anew. Those under way may turn out not to have been made, and be made again.
    pub fn count_from(&mut self, now_ms: u64, under_way: usize) {
        self.counted = 0;
        self.carried = under_way as u64;
        self.counted_from_ms = now_ms;
    }

    /// One of them was not made.
    pub fn count_less(&mut self) {
        self.counted = self.counted.saturating_sub(1);
    }

    /// An attempt begins: everything that must hold then is looked at.
    pub fn begin(
        &mut self,
        now_ms: u64,
        attempt: UnderWay,
        log: &Log,
        limits: &Limits,
        in_flight_max: usize,
        disk: &BTreeMap<Place, Cursor>,
    ) {
        if self.shut {
            self.violate("an attempt was made after 410 or a stop".to_owned());
        }
        if now_ms < self.quiet_until_ms {
            self.violate(format!("an attempt was made {} ms before Retry-After", self.quiet_until_ms - now_ms));
        }
        if self.under_way.len() >= in_flight_max {
            self.violate("too many attempts at once".to_owned());
        }
        if attempt.deliveries.is_empty() || attempt.deliveries.len() > limits.batch_events_max.max(1) {
            self.violate(format!("a batch of {}", attempt.deliveries.len()));
        }
        self.counted += 1;
        if let Some(per_minute) = limits.attempts_per_minute_max {
            let allowed = u64::from(per_minute) * (now_ms - self.counted_from_ms + 1_000) / 60_000 + 1 + self.carried;
            if self.counted > allowed {
                self.violate(format!("{} attempts where {allowed} are allowed", self.counted));
            }
        }
        for (index, delivery) in attempt.deliveries.iter().enumerate() {
            self.look_at(delivery, disk);
            let before = &attempt.deliveries[..index];
            if before
                .iter()
                .any(|before| (before.place, before.lane) == (delivery.place, delivery.lane) && before.offset >= delivery.offset)
            {
                self.violate(format!("offset {} stands behind a later one in its batch", delivery.offset));
            }
        }
        let lanes =
            |deliveries: &[Delivery]| -> Vec<_> { deliveries.iter().filter_map(|one| Some((one.place, lane(log, one)?))).collect() };
        let lanes_now = lanes(&attempt.deliveries);
        if self.under_way.iter().any(|other| lanes(&other.deliveries).iter().any(|lane| lanes_now.contains(lane))) {
            self.violate("a lane has two attempts at once".to_owned());
        }
        self.under_way.push(attempt);
    }

    /// What leaves must be on disk: its number, and that it is void.
    pub fn look_at(&mut self, delivery: &Delivery, disk: &BTreeMap<Place, Cursor>) {
        let Delivery { place, offset, number, void, .. } = *delivery;
        let stored = disk.get(&place).and_then(|cursor| cursor.pending.get(&offset));
        if stored.is_none_or(|stored| stored.number != number || stored.void != void) {
            self.violate(format!("number {number} (offset {offset}, void {void}) left, and the disk says {stored:?}"));
        }
    }

    pub fn take(&mut self, attempt: &UnderWay, life: u32, answered: bool) {
        for delivery in &attempt.deliveries {
            let Delivery { place, offset, number, void, .. } = *delivery;
            self.took.push(Arrival { number, place, offset, void, began_step: attempt.began_step, life, answered });
        }
    }

    /// How an attempt ends, and which fault that is.
    pub fn answer(&self, random: &mut Random, plan: &Plan, log: &Log, attempt: &UnderWay) -> (Outcome, Option<Fault>) {
        let mut events = attempt.deliveries.iter().filter(|delivery| !delivery.void);
        if events.clone().any(|one| log.entry(one.place, one.offset).is_some_and(|entry| self.failing.contains(&entry.key))) {
            return (Outcome::Failed, Some(Fault::Fail));
        }
        if events.any(|one| one.offset.unsigned_abs().wrapping_mul(0x9e37_79b9) % 101 < self.poison_percent) {
            return (Outcome::Hopeless, Some(Fault::Hopeless));
        }
        let fault = match random.below(100) {
            0..8 => Fault::Fail,
            8..11 => Fault::Throttle,
            11..14 => Fault::Hopeless,
            14 => Fault::Gone,
            15..20 => Fault::Lie,
            20..22 => Fault::Unsent,
            _ => return (Outcome::Delivered, None),
        };
        if !plan.has(fault) {
            return (Outcome::Delivered, None);
        }
        let outcome = match fault {
            Fault::Throttle => Outcome::Throttled { retry_after_ms: random.one_of(&[0, 500, 3_000]) },
            Fault::Hopeless => Outcome::Hopeless,
            Fault::Gone => Outcome::Gone,
            Fault::Unsent => Outcome::Unsent,
            _ => Outcome::Failed,
        };
        (outcome, Some(fault))
    }
}

/// Which lane a delivery is in, as the receiver sees it: notices are in none.
fn lane(log: &Log, delivery: &Delivery) -> Option<u64> {
    if delivery.void {
        return None;
    }
    let key = log.entry(delivery.place, delivery.offset)?.key;
    match log.order {
        Order::Key => Some(key),
        Order::Partition => Some(0),
        Order::None => None,
    }
}
