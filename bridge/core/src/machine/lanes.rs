//! Lanes: what is held of one key, and where it stands.
//!
//! Must never hold a record's key or content: a lane is a hash, an offset and a number.

use crate::cursor::{LaneKey, Place};
use crate::mixer::MixedMap;
use crate::outcome::Outcome;
use std::collections::VecDeque;

/// A lane among all partitions.
pub(super) type LaneId = (Place, LaneKey);

/// Lane keys are hashes already: mixing them is enough.
pub(super) type LaneMap = MixedMap<LaneId, Lane>;

/// All bits of the result depend on all bits of the number, and no two numbers share a result.
pub(super) fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The lane of a record that nothing is ordered against: a void notice, or any event of a
/// subscription without order.
pub fn lane_alone(offset: i64) -> LaneKey {
    LaneKey(mix(offset.cast_unsigned().wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

/// A pending record that is held in a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Held {
    pub(super) offset: i64,
    pub(super) number: u64,
    /// The commit that holds its present state; nothing leaves before that is on disk.
    pub(super) commit: u64,
    pub(super) attempts: u32,
    pub(super) void: bool,
    /// It must not leave again: it becomes void when the attempt under way ends without it.
    pub(super) stays: bool,
}

/// Where a lane stands.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum LaneState {
    /// Nowhere: just made, or its receiver fetches.
    #[default]
    Idle,
    /// Its head is not on disk yet.
    Committing,
    /// In line for an attempt.
    Ready,
    InFlight {
        began_ms: u64,
    },
    Waiting {
        due_ms: u64,
        outcome: Outcome,
    },
}

#[derive(Debug)]
pub(super) struct Lane {
    /// Ascending by offset; the first is the head.
    pub(super) queue: VecDeque<Held>,
    pub(super) state: LaneState,
    /// How many, from the head, the attempt under way holds.
    pub(super) under_way: usize,
    /// How many may go into one attempt, after failures.
    pub(super) bound: usize,
    /// When the head failed first.
    pub(super) failing_since_ms: Option<u64>,
}

impl Default for Lane {
    fn default() -> Self {
        Self { queue: VecDeque::new(), state: LaneState::Idle, under_way: 0, bound: usize::MAX, failing_since_ms: None }
    }
}

impl Lane {
    /// Where in the queue an offset stands.
    pub(super) fn position(&self, offset: i64) -> Option<usize> {
        self.queue.binary_search_by_key(&offset, |held| held.offset).ok()
    }

    /// Its head has gone: the next one starts afresh.
    pub(super) fn recover(&mut self) {
        self.under_way = 0;
        self.failing_since_ms = None;
    }
}
