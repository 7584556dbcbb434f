//! Brings one page of a feed into order: what is new, in which order, up to where.
//!
//! A feed numbers its items with ascending, sparse ids. A page is asked for "after N", which
//! upstream understands as "from N + 1". Promises: a position moves only over what is handed
//! out; what belongs to one position is never divided; nothing in a page is dropped but what
//! lies at or before N and what stands there twice.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::quarantine::{Quarantined, Reason};

/// One readable item.
#[derive(Debug, Clone, PartialEq)]
pub struct Item<C> {
    /// Its id in the feed.
    pub position: u64,
    /// The key of what changed.
    pub key: String,
    /// What the registry says about the change.
    pub change: C,
    /// What is odd about it but does not stop it, as names for metrics.
    pub oddities: Vec<&'static str>,
    /// The item as upstream sent it.
    pub raw: String,
}

/// One item that can't be used.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Its id, if at least that can be read.
    pub position: Option<u64>,
    /// What is wrong with it.
    pub reason: Reason,
    /// The item as upstream sent it.
    pub raw: String,
}

/// One entry of a page.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry<C> {
    /// Can be used.
    Item(Item<C>),
    /// Can't.
    Unreadable(Unreadable),
}

/// A page as upstream sent it, in its order.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<C> {
    /// The entries.
    pub entries: Vec<Entry<C>>,
    /// How many items upstream has from the asked id on, if it says so.
    pub total_items: Option<u64>,
}

/// All that one position of a feed brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Step<C> {
    /// The position.
    pub position: u64,
    /// Changes, one for each key.
    pub items: Vec<Item<C>>,
    /// What could not be read here, or just before without a position of its own.
    pub quarantined: Vec<Quarantined>,
}

impl<C> Step<C> {
    fn weight(&self) -> usize {
        self.items.len() + self.quarantined.len()
    }
}

/// A page in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Arranged<C> {
    /// What is new, by ascending position.
    pub steps: Vec<Step<C>>,
    /// Entries at or before the position that was asked after.
    pub overlap_items: u64,
    /// Entries that stand there twice.
    pub duplicate_items: u64,
    /// Entries without a position at the page's end. They are handed out once a later item shows
    /// where they belong; until then they are read again with every page.
    pub waiting_items: u64,
}

/// A page that can't be followed. The position stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PageFault {
    /// Everything lies before what was asked for.
    #[error("the feed went backwards: asked for {asked} and later, the greatest id in the answer is {greatest}")]
    WentBackwards {
        /// First id asked for.
        asked: u64,
        /// Greatest id in the page.
        greatest: u64,
    },
    /// A full page without one readable id: going on would skip it, so it must be looked at.
    #[error("not one of {items} items in a full page has a readable id; has upstream changed its format?")]
    NoPositions {
        /// Items in the page.
        items: usize,
    },
}

/// The greatest readable id in a page.
pub fn greatest_position<C>(page: &Page<C>) -> Option<u64> {
    page.entries.iter().filter_map(position_of).max()
}

/// Brings a page into order that was asked for "after `after`", with room for `items_max`.
pub fn arrange<C>(page: Page<C>, after: u64, items_max: usize) -> Result<Arranged<C>, PageFault> {
    let items = page.entries.len();
    let full = items >= items_max;
    match greatest_position(&page) {
        Some(greatest) if greatest <= after => return Err(PageFault::WentBackwards { asked: after.saturating_add(1), greatest }),
        None if full && items > 0 => return Err(PageFault::NoPositions { items }),
        _ => {}
    }
    let mut sorting = Sorting { after, steps: BTreeMap::new(), without_position: Vec::new(), overlap_items: 0, duplicate_items: 0 };
    let mut before = after;
    for entry in page.entries {
        before = position_of(&entry).unwrap_or(before);
        sorting.put(entry, before);
    }
    // The page may have been cut between two items of one id: what is cut off would be skipped.
    if full && sorting.steps.len() > 1 {
        sorting.steps.pop_last();
    }
    Ok(sorting.finish())
}

fn position_of<C>(entry: &Entry<C>) -> Option<u64> {
    match entry {
        Entry::Item(item) => Some(item.position),
        Entry::Unreadable(unreadable) => unreadable.position,
    }
}

struct Sorting<C> {
    after: u64,
    steps: BTreeMap<u64, Step<C>>,
    without_position: Vec<(u64, Unreadable)>,
    overlap_items: u64,
    duplicate_items: u64,
}

impl<C> Sorting<C> {
    /// `position` is the entry's own, or that of the neighbour before it.
    fn put(&mut self, entry: Entry<C>, position: u64) {
        if let Entry::Unreadable(unreadable) = entry {
            match unreadable.position {
                Some(own) if own <= self.after => self.overlap_items += 1,
                Some(own) => self.step(own).quarantined.push(quarantined(own, &unreadable)),
                None => self.without_position.push((position.max(self.after), unreadable)),
            }
        } else if let Entry::Item(item) = entry {
            if item.position <= self.after {
                self.overlap_items += 1;
            } else if self.step(position).items.iter().any(|found| found.key == item.key) {
                self.duplicate_items += 1;
            } else {
                self.step(position).items.push(item);
            }
        }
    }

    fn step(&mut self, position: u64) -> &mut Step<C> {
        self.steps.entry(position).or_insert_with(|| Step { position, items: Vec::new(), quarantined: Vec::new() })
    }

    fn finish(mut self) -> Arranged<C> {
        let mut waiting_items = 0;
        for (position, unreadable) in self.without_position {
            // It goes with the next position: once that is passed, it can't be met again.
            match self.steps.range_mut((Bound::Excluded(position), Bound::Unbounded)).next() {
                Some((_, step)) => step.quarantined.push(quarantined(position, &unreadable)),
                None => waiting_items += 1,
            }
        }
        let steps = self.steps.into_values().collect();
        Arranged { steps, overlap_items: self.overlap_items, duplicate_items: self.duplicate_items, waiting_items }
    }
}

fn quarantined(position: u64, unreadable: &Unreadable) -> Quarantined {
    Quarantined::new(position, unreadable.reason, unreadable.raw.clone().into_bytes())
}

/// Divides steps into chunks of at most `events_max` events, each for one transaction. A step
/// that is larger on its own is a chunk on its own.
pub fn chunks<C>(steps: Vec<Step<C>>, events_max: usize) -> Vec<Vec<Step<C>>> {
    let mut chunks: Vec<Vec<Step<C>>> = Vec::new();
    let mut room = 0;
    for step in steps {
        let weight = step.weight();
        match chunks.last_mut() {
            Some(chunk) if weight <= room => {
                room -= weight;
                chunk.push(step);
            }
            _ => {
                room = events_max.saturating_sub(weight);
                chunks.push(vec![step]);
            }
        }
    }
    chunks
}
