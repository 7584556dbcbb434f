//! What is read of a feed and not yet published: the rest of a page, and the page behind it.
//!
//! The page behind is asked for before the present one is used up, so that a feed that is far
//! behind never waits for it. Must never hand out a step twice, or pass one over.

use std::collections::VecDeque;

use ryggrad_detect::feed::{self, Arranged, Page, PageFault, Step};
use tokio_util::task::AbortOnDropHandle;

use crate::follow::Turn;

/// The next page is asked for when the present one has no more than so many portions left.
const PORTIONS_LEFT_MAX: usize = 10;

/// The answer to the question for the page that follows; `None` if it is of no use.
pub(crate) type Ahead<C> = AbortOnDropHandle<Option<InOrder<C>>>;

/// What upstream has after what is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remaining {
    pub(crate) items: u64,
    pub(crate) waiting_items: u64,
}

/// A page in order.
pub(crate) struct InOrder<C> {
    pub(crate) steps: Vec<Step<C>>,
    pub(crate) overlap_items: u64,
    pub(crate) duplicate_items: u64,
    pub(crate) remaining: Remaining,
    /// There may be more behind it.
    is_full: bool,
}

impl<C> InOrder<C> {
    pub(crate) fn of(page: Page<C>, after: u64, items_max: usize) -> Result<Self, PageFault> {
        let (is_full, total_items) = (page.entries.len() >= items_max, page.total_items.unwrap_or_default());
        let Arranged { steps, overlap_items, duplicate_items, waiting_items } = feed::arrange(page, after, items_max)?;
        let remaining = Remaining { items: total_items.saturating_sub(overlap_items), waiting_items };
        Ok(Self { steps, overlap_items, duplicate_items, remaining, is_full })
    }
}

/// What is to be published in one turn.
pub(crate) struct Pages<C> {
    pub(crate) portions: VecDeque<Vec<Step<C>>>,
    /// The position of the last step.
    pub(crate) end: u64,
    pub(crate) next: Option<Ahead<C>>,
    /// Nothing more is read in this turn.
    pub(crate) is_cut_short: bool,
    pub(crate) remaining: Remaining,
    /// Prepared, and not yet committed.
    pub(crate) uncommitted_items: u64,
    is_full: bool,
}

impl<C> Pages<C> {
    pub(crate) fn new(read: InOrder<C>, portion_events_max: usize) -> Self {
        let InOrder { steps, remaining, is_full, .. } = read;
        let end = steps.last().map_or(0, |step| step.position);
        let portions = feed::chunks(steps, portion_events_max).into();
        Self { portions, end, next: None, is_cut_short: false, remaining, uncommitted_items: 0, is_full }
    }

    pub(crate) fn wants_next(&self) -> bool {
        self.is_full && !self.is_cut_short && self.next.is_none() && self.portions.len() <= PORTIONS_LEFT_MAX
    }

    /// Puts a page that is not empty behind what is there.
    pub(crate) fn go_on_with(&mut self, read: InOrder<C>, portion_events_max: usize) {
        self.end = read.steps.last().map_or(self.end, |step| step.position);
        (self.remaining, self.is_full) = (read.remaining, read.is_full);
        self.remaining.items += self.uncommitted_items;
        self.portions.extend(feed::chunks(read.steps, portion_events_max));
    }

    pub(crate) fn committed(&mut self, items: u64) {
        self.uncommitted_items = self.uncommitted_items.saturating_sub(items);
        self.remaining.items = self.remaining.items.saturating_sub(items);
    }

    /// What is left to do when all is published.
    pub(crate) fn turn(&self) -> Turn {
        if self.is_full { Turn::More } else { Turn::CaughtUp }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use ryggrad_detect::feed::{Entry, Item};

    use super::*;

    fn read(positions: std::ops::RangeInclusive<u64>, items_max: usize) -> InOrder<()> {
        let after = positions.start() - 1;
        let item =
            |position: u64| Entry::Item(Item { position, key: position.to_string(), change: (), oddities: Vec::new(), raw: String::new() });
        let page = Page { entries: positions.map(item).collect(), total_items: Some(100 - after) };
        InOrder::of(page, after, items_max).unwrap()
    }

    fn positions(pages: &mut Pages<()>) -> Vec<u64> {
        pages.portions.drain(..).flatten().map(|step| step.position).collect()
    }

    #[test]
    fn pages_follow_each_other_without_a_gap_until_one_is_not_full() {
        let mut pages = Pages::new(read(1..=30, 30), 2);
        // The last one of a full page may be incomplete, and is read again.
        assert_eq!((pages.end, pages.portions.len(), pages.wants_next()), (29, 15, false));
        assert_eq!(positions(&mut pages), (1..=29).collect::<Vec<_>>());
        assert!(pages.wants_next() && matches!(pages.turn(), Turn::More));
        pages.go_on_with(read(30..=40, 30), 2);
        assert_eq!((pages.end, pages.wants_next()), (40, false));
        assert!(matches!(pages.turn(), Turn::CaughtUp));
        assert_eq!(positions(&mut pages), (30..=40).collect::<Vec<_>>());
    }

    #[test]
    fn a_turn_that_is_cut_short_reads_no_further_and_is_taken_up_again() {
        let mut pages = Pages::new(read(1..=5, 5), 10);
        pages.is_cut_short = true;
        assert!(!pages.wants_next() && matches!(pages.turn(), Turn::More));
    }

    #[test]
    fn what_remains_upstream_counts_what_is_read_and_not_yet_committed() {
        let mut pages = Pages::new(read(1..=5, 5), 10);
        assert_eq!(pages.remaining.items, 100);
        pages.uncommitted_items += 4;
        pages.go_on_with(read(5..=9, 5), 10);
        assert_eq!(pages.remaining.items, 100);
        pages.committed(4);
        assert_eq!((pages.remaining.items, pages.uncommitted_items), (96, 0));
    }
}
