//! The newest records of each partition, shared by all subscriptions, within one limit of bytes.
//!
//! A ring holds every committed record from its start to its end: compaction's and transactions'
//! gaps are in the log as well. Must never hold a record twice or out of order.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::cursor::Place;
use crate::record::Record;

/// A stretch of one partition.
#[derive(Debug)]
pub struct Stretch {
    start: i64,
    end: i64,
    bytes: usize,
    records: VecDeque<Arc<Record>>,
}

impl Stretch {
    /// An empty stretch that begins, and ends, at an offset.
    pub fn at(offset: i64) -> Self {
        Self { start: offset, end: offset, bytes: 0, records: VecDeque::new() }
    }

    /// The first offset that it tells about.
    pub fn start(&self) -> i64 {
        self.start
    }

    /// The first offset that it does not tell about any more.
    pub fn end(&self) -> i64 {
        self.end
    }

    /// Whether it tells what stands at an offset.
    pub fn covers(&self, offset: i64) -> bool {
        (self.start..self.end).contains(&offset)
    }

    /// Appends the next record of the partition.
    pub fn push(&mut self, record: Arc<Record>) {
        self.end = record.offset() + 1;
        self.bytes += record.size_bytes();
        self.records.push_back(record);
    }

    /// The partition has nothing more below this offset.
    pub fn extend_to(&mut self, end: i64) {
        self.end = self.end.max(end);
    }

    /// Forgets the oldest record and gives its bytes.
    pub fn pop(&mut self) -> Option<usize> {
        let record = self.records.pop_front()?;
        self.start = record.offset() + 1;
        self.bytes -= record.size_bytes();
        Some(record.size_bytes())
    }

    /// How many records it holds.
    pub fn records(&self) -> usize {
        self.records.len()
    }

    /// Up to `count` records from an offset on.
    pub fn from(&self, offset: i64, count: usize) -> impl Iterator<Item = &Arc<Record>> {
        let first = self.records.partition_point(|record| record.offset() < offset);
        self.records.range(first..).take(count)
    }
}

/// All rings.
#[derive(Debug)]
pub struct Rings {
    rings: BTreeMap<Place, Stretch>,
    bytes: usize,
    bytes_max: usize,
}

impl Rings {
    /// Rings that begin where the tail begins to read.
    pub fn new(bytes_max: usize, starts: impl IntoIterator<Item = (Place, i64)>) -> Self {
        Self { rings: starts.into_iter().map(|(place, offset)| (place, Stretch::at(offset))).collect(), bytes: 0, bytes_max }
    }

    /// The ring of a partition.
    pub fn get(&self, place: Place) -> Option<&Stretch> {
        self.rings.get(&place)
    }

    /// Where the tail is in each partition.
    pub fn ends(&self) -> impl Iterator<Item = (Place, i64)> {
        self.rings.iter().map(|(place, ring)| (*place, ring.end()))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a record that the tail has read; false if it was there already or is nobody's.
    pub fn push(&mut self, record: &Arc<Record>) -> bool {
        let Some(ring) = self.rings.get_mut(&record.place) else { return false };
        if record.offset() < ring.end() {
            return false;
        }
        ring.push(Arc::clone(record));
        self.bytes += record.size_bytes();
        while self.bytes > self.bytes_max {
            let largest = self.rings.values_mut().max_by_key(|ring| ring.bytes);
            let Some(freed) = largest.and_then(Stretch::pop) else { break };
            self.bytes -= freed;
        }
        true
    }
}
