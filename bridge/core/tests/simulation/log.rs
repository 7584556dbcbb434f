//! The world's log: what was published, what compaction took, which keys were removed, and what
//! the subscription asked for over time.

use std::collections::BTreeMap;

use ryggrad_bridge_core::cursor::{LaneKey, Place};
use ryggrad_bridge_core::machine::lane_alone;
use ryggrad_bridge_core::settings::Order;

use super::random::Random;

pub const KEYS: u64 = 8;
pub const PARTITIONS: i32 = 2;
const KINDS: u64 = 5;

#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub offset: i64,
    pub key: u64,
    /// Which of the kinds that a filter tells apart.
    pub kind: u8,
    /// Compaction has taken it.
    pub gone: bool,
}

/// A key was removed: what lies below the offset must not leave in attempts begun later.
#[derive(Debug, Clone, Copy)]
pub struct Removed {
    pub below: i64,
    pub at_step: u64,
}

#[derive(Debug)]
pub struct Log {
    partitions: Vec<Vec<Entry>>,
    /// How many of them are published.
    published: Vec<usize>,
    pub order: Order,
    /// Wanted kinds now, ever, and all the time, as bits.
    wanted: u8,
    ever: u8,
    always: u8,
    removed: BTreeMap<(i32, u64), Vec<Removed>>,
}

pub fn place(partition: i32) -> Place {
    Place { topic: 1, partition }
}

impl Log {
    pub fn new(random: &mut Random, events: usize, order: Order) -> Self {
        let partitions: Vec<Vec<Entry>> = (0..PARTITIONS)
            .map(|_| {
                let mut offset = random.below(5) as i64;
                (0..events)
                    .map(|_| {
                        // Transaction markers leave gaps.
                        offset += 1 + if random.chance(20) { random.below(4) as i64 } else { 0 };
                        // A hot key fills its lane.
                        let key = if random.chance(40) { 0 } else { random.below(KEYS) };
                        Entry { offset, key, kind: random.below(KINDS) as u8, gone: false }
                    })
                    .collect()
            })
            .collect();
        let published = partitions.iter().map(|entries| entries.len() / 4).collect();
        let wanted = 0b0_1111;
        Self { partitions, published, order, wanted, ever: wanted, always: wanted, removed: BTreeMap::new() }
    }

    pub fn start(&self, partition: i32) -> i64 {
        self.entries(partition).first().map_or(0, |entry| entry.offset)
    }

    pub fn entries(&self, partition: i32) -> &[Entry] {
        &self.partitions[partition as usize]
    }

    fn published(&self, partition: i32) -> &[Entry] {
        &self.partitions[partition as usize][..self.published[partition as usize]]
    }

    /// The next offset that the partition gives, markers aside.
    pub fn end(&self, partition: i32) -> i64 {
        self.published(partition).last().map_or(self.start(partition), |entry| entry.offset + 1)
    }

    pub fn publish(&mut self, partition: i32, events: usize) {
        let published = &mut self.published[partition as usize];
        *published = (*published + events).min(self.partitions[partition as usize].len());
    }

    /// The first readable record from an offset on.
    pub fn next(&self, partition: i32, from: i64) -> Option<Entry> {
        let entries = self.published(partition);
        let first = entries.partition_point(|entry| entry.offset < from);
        entries[first..].iter().find(|entry| !entry.gone).copied()
    }

    pub fn entry(&self, place: Place, offset: i64) -> Option<Entry> {
        let entries = self.entries(place.partition);
        entries.binary_search_by_key(&offset, |entry| entry.offset).ok().map(|index| entries[index])
    }

    pub fn lane(&self, entry: &Entry) -> LaneKey {
        match self.order {
            Order::Key => Self::lane_of_key(entry.key),
            Order::Partition => LaneKey(0),
            Order::None => lane_alone(entry.offset),
        }
    }

    pub fn lane_of_key(key: u64) -> LaneKey {
        LaneKey::of(&key.to_string())
    }

    pub fn wants(&self, entry: &Entry) -> bool {
        self.wanted & (1 << entry.kind) != 0
    }

    pub fn ever_wanted(&self, entry: &Entry) -> bool {
        self.ever & (1 << entry.kind) != 0
    }

    pub fn always_wanted(&self, entry: &Entry) -> bool {
        self.always & (1 << entry.kind) != 0
    }

    /// The owner asks for other kinds.
    pub fn filter(&mut self, random: &mut Random) {
        self.wanted = random.one_of(&[0b0_1111, 0b1_1111, 0b0_0111, 0b1_1101]);
        self.ever |= self.wanted;
        self.always &= self.wanted;
    }

    /// Keeps the newest of each key, and some others.
    pub fn compact(&mut self, random: &mut Random, partition: i32) {
        let published = self.published[partition as usize];
        let entries = &mut self.partitions[partition as usize][..published];
        let mut newest = BTreeMap::new();
        for (index, entry) in entries.iter().enumerate() {
            newest.insert(entry.key, index);
        }
        for (index, entry) in entries.iter_mut().enumerate() {
            entry.gone |= newest[&entry.key] != index && random.chance(15);
        }
    }

    pub fn remove(&mut self, partition: i32, key: u64, below: i64, at_step: u64) {
        self.removed.entry((partition, key)).or_default().push(Removed { below, at_step });
    }

    /// Removals of this record's key that came at or after a step.
    pub fn removals(&self, place: Place, offset: i64) -> impl Iterator<Item = Removed> {
        let entry = self.entry(place, offset);
        entry.into_iter().flat_map(move |entry| self.removed.get(&(place.partition, entry.key)).into_iter().flatten().copied())
    }

    pub fn is_removed(&self, place: Place, offset: i64) -> bool {
        self.removals(place, offset).any(|removed| offset < removed.below)
    }
}
