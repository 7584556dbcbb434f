//! What goes into the machine and what comes out: the words that it shares with its shell.
//!
//! Must never hold behaviour: that is the machine's.

use crate::cursor::{Cursor, LaneKey, Place};
use crate::outcome::Outcome;

/// Limits of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Matched and unsettled, or settled and not yet persisted: the window.
    pub pending_max: usize,
    /// Of these, in one lane.
    pub pending_per_key_max: usize,
    /// Attempts at the same time.
    pub in_flight_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { pending_max: 1_024, pending_per_key_max: 64, in_flight_max: 16 }
    }
}

/// Whether attempts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Yes.
    Running,
    /// No: by the owner or because the endpoint is gone. Attempts under way are waited for.
    Stopped,
}

/// What is to become of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The subscription wants it.
    Wanted,
    /// The same of a tombstone whose event does not stand before it any more, and which tells the
    /// end of its key in the event's place.
    Orphan,
    /// The subscription does not want it.
    Unwanted,
    /// The subscription wants it, and it may not leave.
    Withheld,
}

/// What happens to the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A record was read, in the order of the partition.
    Record {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its lane.
        lane: LaneKey,
        /// What is to become of it.
        verdict: Verdict,
    },
    /// The reader has reached the end of a partition.
    AtEnd {
        /// Which.
        place: Place,
    },
    /// An attempt has ended.
    Attempted {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its lane.
        lane: LaneKey,
        /// How.
        outcome: Outcome,
        /// Randomness for the jitter.
        entropy: u64,
    },
    /// A kept record may not leave any more: settles it, unless an attempt of it is under way.
    Withhold {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its lane.
        lane: LaneKey,
    },
    /// The last commit handed out is on disk.
    Persisted,
    /// Attempts may be made, or not. Starting clears every wait.
    Mode(Mode),
    /// Time has passed.
    Tick,
}

/// What the shell must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Keep the record just read: it will be attempted.
    Keep {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
    },
    /// Attempt this kept record.
    Attempt {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its lane.
        lane: LaneKey,
        /// Which attempt, from 1.
        attempt: u32,
    },
    /// Forget this kept record: it is settled.
    Forget {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
    },
    /// Read this partition again, from [`Machine::read_from`](super::Machine::read_from).
    Rescan {
        /// Where.
        place: Place,
    },
    /// The endpoint is gone: disable the subscription. Attempts have stopped.
    Disable,
}

/// A lane that waits after a failure, for people to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingLane {
    /// Where.
    pub place: Place,
    /// The record that fails.
    pub offset: i64,
    /// Failed attempts.
    pub attempts: u32,
    /// When it is tried again.
    pub due_ms: u64,
    /// How the last attempt ended.
    pub outcome: Outcome,
}

/// Cursors to persist together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Changed cursors.
    pub cursors: Vec<(Place, Cursor)>,
}
