//! What goes into the machine and what comes out of it.

use crate::cursor::{Cursor, LaneKey, Place};
use crate::outcome::Outcome;
use crate::retry::RetryPolicy;
use crate::settings::OnExhausted;

/// Limits of one subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Matched and unsettled records at the same time.
    pub pending_max: usize,
    /// Of these, per lane. What a lane has beyond that stays in the log.
    pub pending_per_key_max: usize,
    /// Attempts at the same time. None at all for a channel whose receiver fetches.
    pub in_flight_max: usize,
    /// Deliveries in one attempt.
    pub batch_events_max: usize,
    /// Attempts a minute; `None` is without limit.
    pub attempts_per_minute_max: Option<u32>,
}

/// What happens after failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When to try again, and for how long.
    pub retry: RetryPolicy,
    /// What then.
    pub on_exhausted: OnExhausted,
    /// The subscription is disabled when every attempt has failed for so long.
    pub disable_after_ms: u64,
    /// Events set aside at the same time; beyond that, lanes block.
    pub dead_letters_max: usize,
}

/// How the subscription numbers its deliveries: without gaps within an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Numbering {
    /// Which run of numbers. Another one begins when cursors were lost.
    pub epoch: u32,
    /// The next number to be given.
    pub next: u64,
}

/// Whether attempts may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Yes.
    Running,
    /// No: paused or disabled. Cursors stand.
    Stopped,
}

/// What is to become of a record that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The subscription gets it.
    Wanted,
    /// It does not concern the subscription.
    Unwanted,
    /// It concerns the subscription, and must not leave.
    Withheld,
    /// A tombstone whose event is not right before it: wanted, and it stands in for the event
    /// where that was pending and is gone.
    Orphan,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A record was read, in the order of its partition. Not for an attached partition's records
    /// that the subscription does not want.
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
    /// Everything below has been read; what was not handed in is nobody's. Ends a second look
    /// that has come that far, unless the partition is attached: a second look is made detached,
    /// and what the tail has passed says nothing about it.
    Passed {
        /// Where.
        place: Place,
        /// The next offset that anyone may read.
        to: i64,
    },
    /// The partition goes with the tail from now on, or no longer. Hand in `Passed` first.
    Attached {
        /// Where.
        place: Place,
        /// Whether it does.
        attached: bool,
    },
    /// An attempt has ended.
    Attempted {
        /// Its number, as the action had it.
        attempt: u64,
        /// How.
        outcome: Outcome,
        /// Fresh randomness, for the wait.
        entropy: u64,
    },
    /// A kept record must not leave any more: its number is closed by a void notice. If it is
    /// under way, that happens when the attempt ends without having delivered it. Where part of
    /// a batch turns out right before the attempt to have to stay, withhold that part, then end
    /// the attempt as unsent.
    Withhold {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its lane.
        lane: LaneKey,
    },
    /// A receiver that fetches has taken every delivery up to this number.
    Acknowledged {
        /// The number.
        number: u64,
    },
    /// A receiver that fetches has been shown everything there is, and asks for more.
    Emptied,
    /// A parked lane is taken up again, in order.
    Redrive {
        /// Where.
        place: Place,
        /// The lane.
        lane: LaneKey,
    },
    /// The owner wants everything from this offset on once more. No attempt begins from now on;
    /// it happens when none is under way and no commit is out, for all partitions that were named
    /// by then together.
    Rewind {
        /// Where.
        place: Place,
        /// The first offset; below what was looked at.
        to: i64,
    },
    /// The last commit handed out is on disk.
    Persisted,
    /// Attempts may be made, or not. Starting clears every wait.
    Mode(Mode),
    /// Nothing leaves any more, or it may again: whoever it is for was stopped, or is so no longer.
    Held(bool),
    /// Other limits and another policy from now on. What is kept stays kept.
    Settings(Limits, Policy),
    /// Time has passed.
    Tick,
}

/// One record in an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Delivery {
    /// Where.
    pub place: Place,
    /// Its offset.
    pub offset: i64,
    /// Its lane.
    pub lane: LaneKey,
    /// Its number.
    pub number: u64,
    /// After how many rewinds it is delivered: the same over retries and restarts.
    pub generation: u32,
    /// Send a void notice in place of the event.
    pub void: bool,
    /// How often it has been tried, this time included.
    pub attempts: u32,
}

/// Why the bridge stops a subscription by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisableReason {
    /// The endpoint said that it is gone.
    Gone,
    /// Every attempt failed for too long.
    Failing {
        /// Since when.
        since_ms: u64,
    },
}

/// What the shell must do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keep the record just read: it will be attempted.
    Keep {
        /// Where.
        place: Place,
        /// Its offset.
        offset: i64,
        /// Its number.
        number: u64,
    },
    /// Attempt these kept records together: all are delivered, or none.
    Attempt {
        /// Identifies the attempt in this machine's life.
        attempt: u64,
        /// In the order in which they are to be sent; at least one.
        deliveries: Vec<Delivery>,
    },
    /// Forget this kept record: it is settled or set aside.
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
    /// The cursor has gone back: forget all that is kept of this partition, and read it again, from
    /// [`Machine::read_from`](super::Machine::read_from). Events set aside from `to` on are so no more.
    Rewound {
        /// Where.
        place: Place,
        /// The first offset that comes again.
        to: i64,
    },
    /// Disable the subscription. Attempts have stopped.
    Disable {
        /// Why.
        reason: DisableReason,
    },
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

/// An event that was set aside: a reference, never a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where.
    pub place: Place,
    /// Its offset.
    pub offset: i64,
    /// Its lane.
    pub lane: LaneKey,
    /// The number it had, closed by a void notice.
    pub number: u64,
    /// How the last attempt ended.
    pub outcome: Outcome,
    /// The whole lane waits behind it, unattempted.
    pub parked: bool,
}

/// What to persist together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Changed cursors.
    pub cursors: Vec<(Place, Cursor)>,
    /// Numbers given so far, if more were given since the last commit.
    pub numbering: Option<Numbering>,
    /// Events newly set aside.
    pub dead_letters: Vec<DeadLetter>,
}
