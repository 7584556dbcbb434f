//! What a schedule may do: its size, its faults, and the bug planted in the adapter.
//!
//! The same plan gives the same run, so that a failing one can be made smaller.

use ryggrad_bridge_core::machine::{Limits, Policy};
use ryggrad_bridge_core::retry::RetryPolicy;
use ryggrad_bridge_core::settings::{OnExhausted, Order};

use super::random::Random;

/// What can go wrong, or change, from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    Fail,
    Hang,
    /// The receiver takes it, and the answer is lost.
    Lie,
    Throttle,
    Hopeless,
    Gone,
    /// The gate is shut at the last moment.
    Unsent,
    Crash,
    Compact,
    Remove,
    Filter,
    Settings,
    Stop,
    Detach,
    Redrive,
}

/// Faults in the answer to an attempt.
pub const OF_ATTEMPTS: [Fault; 7] = [Fault::Fail, Fault::Hang, Fault::Lie, Fault::Throttle, Fault::Hopeless, Fault::Gone, Fault::Unsent];
/// Faults that meet every lane of a partition in whatever state it is.
pub const OF_LANES: [Fault; 7] = [Fault::Crash, Fault::Compact, Fault::Remove, Fault::Filter, Fault::Settings, Fault::Stop, Fault::Detach];
pub const ALL: [Fault; 15] = [
    Fault::Fail,
    Fault::Hang,
    Fault::Lie,
    Fault::Throttle,
    Fault::Hopeless,
    Fault::Gone,
    Fault::Unsent,
    Fault::Crash,
    Fault::Compact,
    Fault::Remove,
    Fault::Filter,
    Fault::Settings,
    Fault::Stop,
    Fault::Detach,
    Fault::Redrive,
];

/// What a planted bug does between machine and world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    None,
    SettleBeforeAnswer,
    DropOnFailure,
    OvertakeWithinKey,
    ForgetPendingOnRestart,
    DeliverAfterGone,
    AttemptRemoved,
    ForgetRemovalsOnRestart,
    WithholdTheRemovalItself,
    ReuseNumbers,
    IgnoreRescan,
    TailAheadOfPending,
    EventForNotice,
}

pub const BUGS: [Bug; 12] = [
    Bug::SettleBeforeAnswer,
    Bug::DropOnFailure,
    Bug::OvertakeWithinKey,
    Bug::ForgetPendingOnRestart,
    Bug::DeliverAfterGone,
    Bug::AttemptRemoved,
    Bug::ForgetRemovalsOnRestart,
    Bug::WithholdTheRemovalItself,
    Bug::ReuseNumbers,
    Bug::IgnoreRescan,
    Bug::TailAheadOfPending,
    Bug::EventForNotice,
];

/// One schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub seed: u64,
    /// Events in each of the two partitions.
    pub events: usize,
    pub steps: u64,
    pub faults: Vec<Fault>,
    pub bug: Bug,
}

impl Plan {
    pub fn whole(seed: u64, bug: Bug) -> Self {
        Self { seed, events: 110, steps: 1_500, faults: ALL.to_vec(), bug }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// What the owner chose.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    pub limits: Limits,
    pub policy: Policy,
}

pub fn order(random: &mut Random) -> Order {
    random.one_of(&[Order::Key, Order::Key, Order::Key, Order::Partition, Order::None])
}

pub fn choice(random: &mut Random) -> Choice {
    let pending_max = if random.chance(25) { 70 + random.below(60) } else { 12 + random.below(20) };
    let in_flight_max = if random.chance(10) { 0 } else { 1 + random.below(5) };
    let limits = Limits {
        pending_max: pending_max as usize,
        pending_per_key_max: if in_flight_max == 0 { pending_max as usize } else { 2 + random.below(6) as usize },
        in_flight_max: in_flight_max as usize,
        batch_events_max: random.one_of(&[1, 1, 2, 8]),
        attempts_per_minute_max: random.one_of(&[None, None, None, Some(120), Some(900)]),
    };
    let retry = RetryPolicy { first_ms: 100, max_ms: 2_000, probe_ms: 3_000, horizon_ms: random.one_of(&[1_000, 10_000, 100_000]) };
    let policy = Policy {
        retry,
        on_exhausted: random.one_of(&[OnExhausted::Block, OnExhausted::Park, OnExhausted::Park, OnExhausted::Skip]),
        disable_after_ms: random.one_of(&[20_000, 1_000_000]),
        dead_letters_max: random.one_of(&[2, 100]),
    };
    Choice { limits, policy }
}
