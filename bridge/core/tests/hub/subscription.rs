//! One subscription as the world sees it: what its owner asked for over time, what is on disk, what
//! its receiver took, and what must hold whenever something leaves.
//!
//! Must never ask the hub anything.

use std::collections::{BTreeMap, BTreeSet};

use ryggrad_bridge_core::access::Caller;
use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::hub::gate::Address;
use ryggrad_bridge_core::hub::{MemberId, Newcomer, Parcel, Wish};
use ryggrad_bridge_core::machine::{DeadLetter, Delivery, Mode, Numbering};
use ryggrad_bridge_core::settings::{OnExhausted, Order};

use super::log::{Denied, FILTERS, KEYS, Log, ORGANISATIONS, list_id, organisation_number};
use super::plan::{Choice, Fault, Plan};
use super::random::Random;

/// What survives a crash.
#[derive(Debug)]
pub struct Disk {
    pub cursors: BTreeMap<Place, Cursor>,
    pub numbering: Numbering,
    pub letters: Vec<DeadLetter>,
    /// Events that were set aside alone.
    pub skipped: BTreeSet<(Place, i64)>,
}

/// What the receiver took.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub number: u64,
    pub place: Place,
    pub offset: i64,
    /// With the offset, what the receiver knows a delivery by.
    pub generation: u32,
    pub void: bool,
    /// The step in which its attempt began.
    pub began_step: u64,
    /// How often the bridge had crashed by then.
    pub life: u32,
    /// The bridge was told.
    pub answered: bool,
}

/// Everything from an offset on is owed once more, under new names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    pub place: Place,
    pub generation: u32,
    pub from: i64,
    /// The step in which it began.
    pub since: u64,
}

/// An attempt under way.
#[derive(Debug, Clone)]
pub struct UnderWay {
    /// Which of all subscriptions, the removed ones included.
    pub subscription: usize,
    pub member: MemberId,
    pub address: Address,
    pub attempt: u64,
    pub parcels: Vec<Parcel>,
    pub began_step: u64,
    /// It is not answered before.
    pub hangs_until_ms: u64,
    /// The hub was told already how it ended: a planted bug.
    pub told: bool,
}

pub struct Subscription {
    pub member: MemberId,
    pub order: Order,
    pub address: Address,
    /// It fetches, and nothing is posted to it.
    pub fetches: bool,
    pub choice: Choice,
    pub running: bool,
    /// Whoever it is for is stopped.
    pub held: bool,
    /// It was removed.
    pub removed: bool,
    /// It is a replay, which ends here.
    pub until: Option<BTreeMap<Place, i64>>,
    /// The hub has told that it came to its end.
    pub finished: bool,
    /// From which offset on it is to get what, at first and after each time it went back.
    pub rounds: Vec<Round>,
    /// The same, as far as the disk does not know of it.
    pub unstored_rounds: Vec<Round>,
    pub filter: usize,
    /// The watch list that it has, and the keys that are in it; all keys without one.
    pub list: Option<usize>,
    keys: u8,
    /// Which of all organisations it is for, and the keys that this one may not have.
    pub organisation: usize,
    denied: u8,
    /// Since which step which kinds, of which keys, were asked for.
    pub filters: Vec<(u64, u8, u8)>,
    pub disk: Disk,
    pub took: Vec<Arrival>,
    /// No attempt may begin before: its receiver asked for a pause.
    pub quiet_until_ms: u64,
    /// The highest number that a receiver that fetches has seen.
    pub fetched: u64,
    /// It has been told that there may be more, or has just come.
    pub has_news: bool,
    /// Keys that its receiver can't take, and events that it never will.
    failing: BTreeSet<u64>,
    poison_percent: u64,
    /// The widest limits so far: what waits at the gate was made under older ones.
    batch_max: usize,
    in_flight_max: usize,
    pub pending_max: usize,
}

impl Subscription {
    pub fn new(
        random: &mut Random,
        plan: &Plan,
        denied: &Denied,
        fetches: bool,
        address: Address,
        from: BTreeMap<Place, i64>,
        step: u64,
    ) -> Self {
        let organisation = random.below(ORGANISATIONS.len() as u64) as usize;
        let denied = denied.keys(organisation);
        let choice = super::plan::choice(random, fetches);
        let filter = random.one_of(&[0, 0, 1, 2, 3, 4, 5]);
        let failing = (0..KEYS).filter(|_| plan.has(Fault::Fail) && random.chance(8)).collect();
        Self {
            member: MemberId(u32::MAX),
            order: super::plan::order(random),
            address,
            fetches,
            choice,
            running: true,
            held: false,
            removed: false,
            disk: Disk {
                cursors: from.iter().map(|(place, from)| (*place, Cursor::starting_at(*from))).collect(),
                numbering: Numbering { epoch: 1, next: 1 },
                letters: Vec::new(),
                skipped: BTreeSet::new(),
            },
            rounds: from.iter().map(|(place, from)| Round { place: *place, generation: 0, from: *from, since: step }).collect(),
            unstored_rounds: Vec::new(),
            until: None,
            finished: false,
            filter,
            list: None,
            keys: u8::MAX,
            organisation,
            denied,
            filters: vec![(step, FILTERS[filter].2, !denied)],
            took: Vec::new(),
            quiet_until_ms: 0,
            fetched: 0,
            has_news: true,
            failing,
            poison_percent: if plan.has(Fault::Hopeless) { random.one_of(&[0, 0, 3]) } else { 0 },
            batch_max: choice.limits.batch_events_max,
            in_flight_max: choice.limits.in_flight_max,
            pending_max: choice.limits.pending_max,
        }
    }

    pub fn wish(&self) -> Wish {
        Wish {
            caller: Caller::new(organisation_number(self.organisation), None),
            types: FILTERS[self.filter].0.iter().map(ToString::to_string).collect(),
            filters: FILTERS[self.filter].1.map(|expression| {
                let given = serde_json::json!([{"sql": expression}]);
                serde_json::from_value(given).unwrap_or_else(|why| panic!("{expression}: {why}"))
            }),
            watch_list: self.list.map(list_id),
            order: self.order,
            address: (!self.fetches).then(|| self.address.clone()),
            limits: self.choice.limits,
            policy: self.choice.policy,
            mode: if self.running { Mode::Running } else { Mode::Stopped },
        }
    }

    pub fn newcomer(&self) -> Newcomer {
        Newcomer {
            wish: self.wish(),
            held: self.held,
            numbering: self.disk.numbering,
            cursors: self.disk.cursors.iter().map(|(place, cursor)| (*place, cursor.clone())).collect(),
            dead_letters: self.disk.letters.len(),
            until: self.until.clone(),
            owner: None,
        }
    }

    pub fn set_filter(&mut self, filter: usize, step: u64) {
        self.filter = filter;
        self.asks(step);
    }

    /// It has this list, which holds these keys; or none, and gets all.
    pub fn set_keys(&mut self, list: Option<usize>, keys: u8, step: u64) {
        (self.list, self.keys) = (list, keys);
        self.asks(step);
    }

    /// It may not have these keys any more, and all others again.
    pub fn set_denied(&mut self, keys: u8, step: u64) {
        self.denied = keys;
        self.asks(step);
    }

    fn asks(&mut self, step: u64) {
        self.filters.push((step, FILTERS[self.filter].2, self.keys & !self.denied));
    }

    pub fn set_choice(&mut self, choice: Choice) {
        self.batch_max = self.batch_max.max(choice.limits.batch_events_max);
        self.in_flight_max = self.in_flight_max.max(choice.limits.in_flight_max);
        self.pending_max = self.pending_max.max(choice.limits.pending_max);
        self.choice = choice;
        if self.until.is_some() {
            self.choice.policy.on_exhausted = OnExhausted::Skip;
        }
    }

    /// A replay of a part of the log.
    pub fn replay(mut self, until: BTreeMap<Place, i64>) -> Self {
        // One that blocks or parks would never end.
        self.choice.policy.on_exhausted = OnExhausted::Skip;
        Self { until: Some(until), ..self }
    }

    /// The hub has gone back.
    pub fn rewound(&mut self, place: Place, from: i64, since: u64) {
        let before = self.rounds.iter().chain(&self.unstored_rounds).filter(|round| round.place == place);
        let generation = before.map(|round| round.generation).max().unwrap_or_default() + 1;
        self.unstored_rounds.push(Round { place, generation, from, since });
    }

    /// The disk knows of it: what was set aside comes again.
    pub fn rewind_stored(&mut self, place: Place, generation: u32) {
        let Self { unstored_rounds, rounds, disk, .. } = self;
        for round in unstored_rounds.extract_if(.., |round| round.place == place && round.generation <= generation) {
            disk.letters.retain(|letter| letter.place != place || letter.offset < round.from);
            disk.skipped.retain(|(there, offset)| *there != place || *offset < round.from);
            rounds.push(round);
        }
    }

    /// Its receiver is well from now on.
    pub fn mend(&mut self) {
        self.failing.clear();
        self.poison_percent = 0;
    }

    /// Its receiver can't take this, now or ever.
    pub fn refuses(&self, log: &Log, parcels: &[Parcel]) -> Option<Fault> {
        let events = || parcels.iter().filter(|parcel| parcel.record.is_some()).map(|parcel| parcel.delivery);
        if events().any(|one| log.entry(one.place, one.offset).is_some_and(|entry| self.failing.contains(&entry.key))) {
            return Some(Fault::Fail);
        }
        let poisoned = |offset: i64| offset.unsigned_abs().wrapping_mul(0x9e37_79b9) % 101 < self.poison_percent;
        events().any(|one| poisoned(one.offset)).then_some(Fault::Hopeless)
    }

    /// An attempt begins: everything that must hold then is looked at.
    pub fn begins(&self, attempt: &UnderWay, others: &[UnderWay], log: &Log, now_ms: u64) -> Result<(), String> {
        let own = || others.iter().filter(|other| other.subscription == attempt.subscription && !other.told);
        let (count, deliveries) = (attempt.parcels.len(), || attempt.parcels.iter().map(|parcel| parcel.delivery));
        if self.removed {
            return Err("an attempt was made for a subscription that was removed".to_owned());
        }
        if !self.running {
            return Err("an attempt was made after 410 or a stop".to_owned());
        }
        if self.held {
            return Err("an attempt was made while it was held".to_owned());
        }
        if now_ms < self.quiet_until_ms {
            return Err(format!("an attempt was made {} ms before Retry-After", self.quiet_until_ms - now_ms));
        }
        if self.fetches || attempt.address != self.address {
            return Err(format!("an attempt was made to {}", attempt.address));
        }
        if count == 0 || count > self.batch_max || own().count() >= self.in_flight_max {
            return Err(format!("an attempt with {count} parcels beside {} others", own().count()));
        }
        for (index, delivery) in deliveries().enumerate() {
            let lane = self.lane(log, &delivery);
            let overtaken = deliveries().take(index).any(|before| self.lane(log, &before) == lane && before.offset >= delivery.offset);
            if lane.is_some() && overtaken {
                return Err(format!("offset {} stands behind a later one in its batch", delivery.offset));
            }
            let twice = own().flat_map(|other| &other.parcels).any(|other| self.lane(log, &other.delivery) == lane);
            if lane.is_some() && twice {
                return Err(format!("the lane of offset {} has two attempts at once", delivery.offset));
            }
        }
        attempt.parcels.iter().try_for_each(|parcel| self.leaves(parcel, log))
    }

    /// What leaves must be on disk: its number, and that it is void.
    pub fn leaves(&self, parcel: &Parcel, log: &Log) -> Result<(), String> {
        let Delivery { place, offset, number, void, .. } = parcel.delivery;
        let stored = self.disk.cursors.get(&place).and_then(|cursor| cursor.pending.get(&offset));
        if stored.is_none_or(|stored| stored.number != number || stored.void != void) || number >= self.disk.numbering.next {
            return Err(format!("number {number} (offset {offset}, void {void}) left, and the disk says {stored:?}"));
        }
        let is_denied = log.entry(place, offset).is_some_and(|entry| self.denied >> entry.key & 1 == 1);
        match &parcel.record {
            Some(_) if is_denied => Err(format!("offset {offset} left for one who may not have it")),
            Some(record) if (record.place, record.offset()) != (place, offset) => {
                Err(format!("offset {} left under the name of offset {offset}", record.offset()))
            }
            None if !void => Err(format!("the record at offset {offset} is lost")),
            _ => Ok(()),
        }
    }

    /// The receiver takes it.
    pub fn takes(&mut self, attempt: &UnderWay, life: u32, answered: bool) {
        for Parcel { delivery, record } in &attempt.parcels {
            let Delivery { place, offset, number, generation, .. } = *delivery;
            self.took.push(Arrival {
                number,
                place,
                offset,
                generation,
                void: record.is_none(),
                began_step: attempt.began_step,
                life,
                answered,
            });
        }
    }

    /// Which lane a delivery is in, as the receiver sees it: notices are in none.
    fn lane(&self, log: &Log, delivery: &Delivery) -> Option<(Place, u64)> {
        if delivery.void {
            return None;
        }
        match self.order {
            Order::Key => Some((delivery.place, log.entry(delivery.place, delivery.offset)?.key)),
            Order::Partition => Some((delivery.place, 0)),
            Order::None => None,
        }
    }
}
