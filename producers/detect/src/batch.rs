//! What one transaction holds: events, what was set aside, and the position after them.
//!
//! Promise: every item of the steps is in the batch exactly once, as an event or quarantined, in
//! the feed's order, and the position is that of the last step.

use std::collections::{BTreeMap, BTreeSet};

use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::Source;

use crate::event::{Event, Unmapped};
use crate::feed::{Item, Step};
use crate::position::{self, FeedPosition};
use crate::quarantine::Quarantined;

/// What a batch counts when it is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events by endringstype.
    pub events: BTreeMap<String, u64>,
    /// Things set aside, by the reason's code.
    pub quarantined: BTreeMap<&'static str, u64>,
    /// Oddities that stopped nothing, by name.
    pub oddities: BTreeMap<&'static str, u64>,
}

/// One transaction's worth of one feed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The stored position that it builds on.
    pub base: Option<FeedPosition>,
    /// The position that it stores.
    pub next: FeedPosition,
    /// Records of the events, in order.
    pub records: Vec<EncodedRecord>,
    /// Set aside, not yet sealed.
    pub quarantined: Vec<Quarantined>,
    /// Keys whose items became no event: worth asking upstream once more before this is published.
    pub doubtful: BTreeSet<String>,
    /// Positions of other tracks that move with it.
    pub also: Vec<(String, FeedPosition)>,
    /// Counts.
    pub tally: Tally,
}

impl Batch {
    /// Makes a batch of steps. `to_event` maps one item.
    pub fn assemble<C>(
        base: Option<FeedPosition>,
        steps: &[Step<C>],
        mut to_event: impl FnMut(&Item<C>) -> Result<Event, Unmapped>,
    ) -> Self {
        let mut batch = Self::moving(base, base.unwrap_or_default().position);
        for step in steps {
            for quarantined in &step.quarantined {
                batch.set_aside(quarantined.clone());
            }
            for item in &step.items {
                batch.put(item, to_event(item));
            }
            batch.next.position = step.position;
        }
        batch
    }

    /// A batch that only stores a position.
    pub fn moving(base: Option<FeedPosition>, position: u64) -> Self {
        let next = FeedPosition { position, ..base.unwrap_or_default() };
        let (records, quarantined, doubtful) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { base, next, records, quarantined, doubtful, also: Vec::new(), tally: Tally::default() }
    }

    /// Puts a batch behind this one, on top of which it was made: one transaction for both.
    pub fn append(&mut self, later: Self) {
        let Self { base: _, next, mut records, quarantined, doubtful, also, tally } = later;
        self.next = next;
        self.records.append(&mut records);
        self.quarantined.extend(quarantined);
        self.doubtful.extend(doubtful);
        self.also.extend(also);
        tally.events.iter().for_each(|(name, count)| add(&mut self.tally.events, name, *count));
        for (sums, counts) in [(&mut self.tally.quarantined, tally.quarantined), (&mut self.tally.oddities, tally.oddities)] {
            counts.into_iter().for_each(|(name, count)| *sums.entry(name).or_default() += count);
        }
    }

    fn put<C>(&mut self, item: &Item<C>, mapped: Result<Event, Unmapped>) {
        for oddity in &item.oddities {
            *self.tally.oddities.entry(oddity).or_default() += 1;
        }
        match mapped {
            Ok(event) => {
                self.next.count += 1;
                self.add(event);
            }
            Err(unmapped) => {
                self.doubtful.insert(item.key.clone());
                let raw = unmapped.raw.unwrap_or_else(|| item.raw.clone().into_bytes());
                self.set_aside(Quarantined::new(item.position, unmapped.reason, raw).about(&item.key));
            }
        }
    }

    /// Adds an event that is counted by its caller.
    pub fn add(&mut self, event: Event) {
        add(&mut self.tally.events, event.endringstype(), 1);
        self.records.extend(event.into_records());
    }

    /// Adds something that could not be used.
    pub fn set_aside(&mut self, quarantined: Quarantined) {
        *self.tally.quarantined.entry(quarantined.reason.code).or_default() += 1;
        self.quarantined.push(quarantined);
    }

    /// Takes out all records of the transaction, the position last. `sealed` are the quarantine
    /// records.
    pub fn take_records(&mut self, source: &Source, feed: &str, sealed: Vec<EncodedRecord>) -> Vec<EncodedRecord> {
        let mut records = std::mem::take(&mut self.records);
        records.extend(sealed);
        records.extend(self.also.iter().map(|(track, position)| position::to_record(source, track, *position)));
        records.push(position::to_record(source, feed, self.next));
        records
    }
}

fn add(sums: &mut BTreeMap<String, u64>, name: &str, count: u64) {
    match sums.get_mut(name) {
        Some(sum) => *sum += count,
        None => drop(sums.insert(name.to_owned(), count)),
    }
}

/// The steps before the first one that `blocked` holds up: they can be published meanwhile.
pub fn before_blocked<C>(mut steps: Vec<Step<C>>, blocked: impl Fn(&Item<C>) -> bool) -> Vec<Step<C>> {
    let free = steps.iter().position(|step| step.items.iter().any(&blocked)).unwrap_or(steps.len());
    steps.truncate(free);
    steps
}
