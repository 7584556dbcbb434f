//! The shelf of a receiver that fetches: every pending entry by number.
//!
//! Must never show a number while a lower one is missing: an acknowledgement closes all below it.

use std::collections::BTreeMap;

use crate::cursor::{LaneKey, Place};

use super::Machine;
use super::exchange::{Action, Delivery};
use super::lanes::Held;

#[derive(Debug, Default)]
pub(super) struct Shelf(BTreeMap<u64, Shelved>);

#[derive(Debug, Clone, Copy)]
struct Shelved {
    place: Place,
    offset: i64,
    /// `None` until the record is held.
    lane: Option<LaneKey>,
}

impl Shelf {
    pub(super) fn add(&mut self, number: u64, place: Place, offset: i64) {
        self.0.insert(number, Shelved { place, offset, lane: None });
    }

    pub(super) fn hold(&mut self, number: u64, lane: LaneKey) {
        if let Some(shelved) = self.0.get_mut(&number) {
            shelved.lane = Some(lane);
        }
    }

    pub(super) fn remove(&mut self, number: u64) {
        self.0.remove(&number);
    }
}

impl Machine {
    /// What a receiver that fetches may have after this number, ascending by number.
    pub fn available(&self, after_number: u64) -> impl Iterator<Item = Delivery> {
        let shelved = self.books.shelf.iter().flat_map(move |shelf| shelf.0.range(after_number.saturating_add(1)..));
        shelved.map_while(|(_, shelved)| {
            let (lane, held) = self.on_shelf(*shelved)?;
            Some(self.books.delivery((shelved.place, lane), &held))
        })
    }

    /// The held entry, if it may be shown.
    fn on_shelf(&self, shelved: Shelved) -> Option<(LaneKey, Held)> {
        let key = shelved.lane?;
        let lane = self.lanes.get(&(shelved.place, key))?;
        let held = *lane.queue.get(lane.position(shelved.offset)?)?;
        (self.books.holds(&held) && lane.under_way == 0).then_some((key, held))
    }

    pub(super) fn acknowledged(&mut self, number: u64, actions: &mut Vec<Action>) {
        let mut taken = 0;
        while let Some((_, shelved)) =
            self.books.shelf.as_ref().and_then(|shelf| shelf.0.first_key_value().filter(|(first, _)| **first <= number))
        {
            let shelved = *shelved;
            let Some((key, held)) = self.on_shelf(shelved) else {
                if self.settle_unread(shelved) {
                    taken += 1;
                    continue;
                }
                break;
            };
            let id = (shelved.place, key);
            if let Some(lane) = self.lanes.get_mut(&id) {
                if let Some(position) = lane.position(held.offset) {
                    lane.queue.remove(position);
                }
                lane.recover();
                if lane.queue.is_empty() {
                    self.lanes.remove(&id);
                }
            }
            self.books.settle(id.0, held.offset);
            self.counts.taken(id.0, &held, actions);
            self.moved(id);
            taken += 1;
        }
        if taken > 0 {
            self.succeeded(taken);
        }
    }

    /// What an earlier life has shown may be taken before it is read again.
    fn settle_unread(&mut self, shelved: Shelved) -> bool {
        let Some(part) = self.books.parts.get_mut(&shelved.place) else { return false };
        let unread = part.unread.remove(&shelved.offset);
        if unread {
            self.books.settle(shelved.place, shelved.offset);
            self.counts.delivered += 1;
        }
        unread
    }

    /// Keeps the shelf only where the receiver fetches.
    pub(super) fn set_shelf(&mut self) {
        if self.limits.in_flight_max > 0 {
            self.books.shelf = None;
            return;
        }
        let mut shelf = Shelf::default();
        for (place, part) in &self.books.parts {
            for (offset, pending) in &part.cursor.pending {
                shelf.add(pending.number, *place, *offset);
            }
        }
        for ((_, key), lane) in &self.lanes {
            for held in &lane.queue {
                shelf.hold(held.number, *key);
            }
        }
        self.books.shelf = Some(shelf);
    }
}
