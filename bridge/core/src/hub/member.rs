//! One subscription in the hub: its machine, what it keeps, and where it reads by itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::exchange::{Guard, MemberId, Newcomer, Parcel, Watch, Wish};
use super::types::wants;
use crate::cesql::RecordAttributes;
use crate::cursor::Place;
use crate::machine::{Delivery, Machine};
use crate::mixer::MixedMap;
use crate::record::Record;

/// Where a partition is read from: one before the first record that is wanted. That one may be a tombstone
/// whose event is gone, and a reading that starts at a tombstone takes it for an echo.
pub(super) fn again_from(machine: &Machine, place: Place) -> i64 {
    let at = machine.read_from(place);
    let from = machine.cursors().find(|(there, _)| *there == place).map(|(_, cursor)| cursor.from);
    from.map_or(at, |from| (at - 1).max(from))
}

/// A subscription.
pub struct Member {
    pub(super) wish: Wish,
    pub(super) machine: Machine,
    /// Records that its window holds.
    pub(super) kept: MixedMap<(Place, i64), Arc<Record>>,
    /// Attempts that wait at the gate.
    pub(super) attempts: MixedMap<u64, Vec<Delivery>>,
    /// Partitions that it reads by itself, and the next offset in each. It goes with the tail in
    /// all others.
    pub(super) detached: BTreeMap<Place, i64>,
    /// Where a replay ends in each partition.
    pub(super) until: Option<BTreeMap<Place, i64>>,
    /// Whose replay it is.
    pub(super) owner: Option<MemberId>,
    /// It was told that this replay has come to its end.
    pub(super) is_finished: bool,
    /// Partitions that its machine wants read again.
    pub(super) rescans: Vec<Place>,
    filter_errors: u64,
    /// It is in line to be fed.
    pub(super) hungry: bool,
    /// When it is to be fed again although nothing has happened.
    pub(super) retry_at_ms: Option<u64>,
    /// When it is to be woken, as the hub has noted it.
    pub(super) wake_at_ms: Option<u64>,
}

impl Member {
    /// `live` is where the tail was when the cursors were stored: stored ones come before the tail
    /// goes, and new ones are attached nowhere.
    pub(super) fn new(newcomer: Newcomer, live: impl Fn(Place) -> Option<i64>) -> Self {
        let Newcomer { wish, held, numbering, mut cursors, dead_letters, until, owner } = newcomer;
        for (place, cursor) in &mut cursors {
            if let Some(live) = live(*place).filter(|_| cursor.attached) {
                cursor.scanned_to = cursor.scanned_to.max(live);
            }
        }
        let goes_along = until.is_none();
        let attached: Vec<(Place, bool)> = cursors
            .iter()
            .map(|(place, cursor)| (*place, goes_along && cursor.attached && cursor.resume_at() == cursor.scanned_to))
            .collect();
        let mut machine = Machine::new(wish.limits, wish.policy, wish.mode, numbering, cursors);
        machine.set_dead_letters(dead_letters);
        if held {
            machine.hold();
        }
        let detached = attached.iter().filter(|(_, attached)| !attached);
        let detached = detached.map(|(place, _)| (*place, again_from(&machine, *place))).collect();
        Self {
            wish,
            machine,
            kept: MixedMap::default(),
            attempts: MixedMap::default(),
            detached,
            until,
            owner,
            is_finished: false,
            rescans: Vec::new(),
            filter_errors: 0,
            hungry: false,
            retry_at_ms: None,
            wake_at_ms: None,
        }
    }

    /// What it asks for.
    pub fn wish(&self) -> &Wish {
        &self.wish
    }

    /// Its machine.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// A record that its window holds.
    pub fn kept(&self, place: Place, offset: i64) -> Option<&Arc<Record>> {
        self.kept.get(&(place, offset))
    }

    /// All records that its window holds.
    pub fn all_kept(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.kept.values()
    }

    /// Partitions that it reads by itself, and the next offset in each.
    pub fn detached(&self) -> impl Iterator<Item = (Place, i64)> {
        self.detached.iter().map(|(place, at)| (*place, *at))
    }

    pub(super) fn is_attached(&self, place: Place) -> bool {
        !self.detached.contains_key(&place)
    }

    /// It is a replay: bounded, and after everyone else.
    pub(super) fn is_replay(&self) -> bool {
        self.until.is_some()
    }

    /// Where it ends in a partition, if it does.
    pub(super) fn until(&self, place: Place) -> Option<i64> {
        self.until.as_ref().map(|until| until.get(&place).copied().unwrap_or_default())
    }

    /// A replay that has come to its end, all of it on disk.
    pub(super) fn is_done(&self) -> bool {
        let reached = |(place, until): (&Place, &i64)| self.machine.scanned_to(*place) >= *until && !self.machine.is_rescanning(*place);
        self.until.as_ref().is_some_and(|until| until.iter().all(reached)) && self.rescans.is_empty() && self.machine.is_at_rest()
    }

    /// Whether it wants a record, echoes aside.
    pub(super) fn wants(&mut self, record: &Record, guard: &dyn Guard, watch: &dyn Watch) -> bool {
        let listed = |list| watch.holds(list, record);
        wants(&self.wish.types, record.ce_type()) && self.wish.watch_list.is_none_or(listed) && self.passes(record, guard)
    }

    /// Whether it may have a record of its types and keys, and its filters let it through. In this order: no
    /// filter can probe what it may not have.
    pub(super) fn passes(&mut self, record: &Record, guard: &dyn Guard) -> bool {
        if guard.denies(self.wish.caller, record) {
            return false;
        }
        let Some(filters) = &self.wish.filters else { return true };
        let verdict = filters.judge(&RecordAttributes(&record.log));
        self.filter_errors += verdict.errors.len() as u64;
        verdict.matches
    }

    /// Expressions of its filters that met an error, over all records looked at.
    pub fn filter_errors(&self) -> u64 {
        self.filter_errors
    }

    /// Whether feeding it is worth the trouble.
    pub(super) fn has_room(&self) -> bool {
        self.machine.room() >= (self.wish.limits.pending_max / 8).clamp(1, 32)
    }

    pub(super) fn parcel(&self, delivery: Delivery) -> Parcel {
        let record = if delivery.void { None } else { self.kept.get(&(delivery.place, delivery.offset)).map(Arc::clone) };
        Parcel { delivery, record }
    }
}
