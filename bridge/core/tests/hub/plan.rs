//! What a schedule may do: its size, its faults, what owners choose, and the bug planted in the adapter.
//!
//! The same plan must always give the same run, so that a failing one can be made smaller.

use ryggrad_bridge_core::endpoint;
use ryggrad_bridge_core::hub::HubLimits;
use ryggrad_bridge_core::hub::gate::GateLimits;
use ryggrad_bridge_core::machine::{Limits, Policy};
use ryggrad_bridge_core::retry::RetryPolicy;
use ryggrad_bridge_core::settings::{OnExhausted, Order};

use super::random::Random;

pub const SUBSCRIPTIONS: usize = 3;

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
    LoseReader,
    Compact,
    /// A key's older records must not leave any more.
    Withhold,
    Filter,
    /// An owner gives a subscription another watch list, or none.
    Narrow,
    /// The keys of a watch list change.
    Keys,
    Settings,
    Stop,
    /// The receiver moves to another address.
    Move,
    /// The subscription is removed, and another one takes its place.
    Replace,
    /// The bridge ends in good order, and starts again.
    Restart,
    /// The owner wants a part of the log once more.
    Rewind,
    /// The same beside what is live.
    Replay,
    /// Whoever a subscription is for is stopped: nothing may leave until that ends.
    Hold,
    /// Somebody may not have some keys any more, or may again.
    Deny,
}

pub const ALL: [Fault; 23] = [
    Fault::Fail,
    Fault::Hang,
    Fault::Lie,
    Fault::Throttle,
    Fault::Hopeless,
    Fault::Gone,
    Fault::Unsent,
    Fault::Crash,
    Fault::LoseReader,
    Fault::Compact,
    Fault::Withhold,
    Fault::Filter,
    Fault::Narrow,
    Fault::Keys,
    Fault::Settings,
    Fault::Stop,
    Fault::Move,
    Fault::Replace,
    Fault::Restart,
    Fault::Rewind,
    Fault::Replay,
    Fault::Hold,
    Fault::Deny,
];

/// What a planted bug does between hub and world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bug {
    None,
    SettleBeforeAnswer,
    DropOnFailure,
    OvertakeWithinKey,
    ForgetPendingOnRestart,
    DeliverAfterGone,
    IgnoreRetryAfter,
    SendWithheld,
    ForgetRemovalsOnRestart,
    NumberingLate,
    PersistedTooEarly,
    TailAheadOfPending,
    AttachWithoutTheGap,
    LoseChunk,
    LoseTailBatch,
    WrongSubscription,
    KeepRemoved,
    EventForNotice,
    AcknowledgeUnseen,
    EchoForEvent,
    LoseAnswer,
    LoseReaderUntold,
    RewindUnderOldNames,
    RewindForgetsNumbers,
    RewindDisowns,
    ReplayPastItsEnd,
    ReplayLostInACrash,
    HoldUntold,
    HoldForgottenInACrash,
    ReleaseUntold,
    SendDenied,
    DecideOnce,
}

pub const BUGS: [Bug; 31] = [
    Bug::SettleBeforeAnswer,
    Bug::DropOnFailure,
    Bug::OvertakeWithinKey,
    Bug::ForgetPendingOnRestart,
    Bug::DeliverAfterGone,
    Bug::IgnoreRetryAfter,
    Bug::SendWithheld,
    Bug::ForgetRemovalsOnRestart,
    Bug::NumberingLate,
    Bug::PersistedTooEarly,
    Bug::TailAheadOfPending,
    Bug::AttachWithoutTheGap,
    Bug::LoseChunk,
    Bug::LoseTailBatch,
    Bug::WrongSubscription,
    Bug::KeepRemoved,
    Bug::EventForNotice,
    Bug::AcknowledgeUnseen,
    Bug::EchoForEvent,
    Bug::LoseAnswer,
    Bug::LoseReaderUntold,
    Bug::RewindUnderOldNames,
    Bug::RewindForgetsNumbers,
    Bug::RewindDisowns,
    Bug::ReplayPastItsEnd,
    Bug::ReplayLostInACrash,
    Bug::HoldUntold,
    Bug::HoldForgottenInACrash,
    Bug::ReleaseUntold,
    Bug::SendDenied,
    Bug::DecideOnce,
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
        Self { seed, events: 120, steps: 1_500, faults: ALL.to_vec(), bug }
    }

    pub fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }
}

/// What an owner chose.
#[derive(Debug, Clone, Copy)]
pub struct Choice {
    pub limits: Limits,
    pub policy: Policy,
}

pub fn order(random: &mut Random) -> Order {
    random.one_of(&[Order::Key, Order::Key, Order::Key, Order::Partition, Order::None])
}

pub fn choice(random: &mut Random, fetches: bool) -> Choice {
    let pending_max = if random.chance(25) { 40 + random.below(60) } else { 6 + random.below(20) } as usize;
    let limits = Limits {
        pending_max,
        pending_per_key_max: if fetches { pending_max } else { 2 + random.below(4) as usize },
        in_flight_max: if fetches { 0 } else { 1 + random.below(4) as usize },
        batch_events_max: random.one_of(&[1, 1, 2, 6]),
        attempts_per_minute_max: None,
    };
    let policy = Policy {
        retry: RetryPolicy { first_ms: 20, max_ms: 300, probe_ms: 300, horizon_ms: random.one_of(&[1_000, 5_000, u64::MAX / 4]) },
        on_exhausted: random.one_of(&[OnExhausted::Block, OnExhausted::Block, OnExhausted::Park, OnExhausted::Skip]),
        disable_after_ms: random.one_of(&[3_000, u64::MAX / 4]),
        dead_letters_max: random.one_of(&[2, 100]),
    };
    Choice { limits, policy }
}

pub fn hub_limits(random: &mut Random) -> HubLimits {
    HubLimits {
        ring_bytes_max: 1_000 + random.below(30_000) as usize,
        readers_max: 1 + random.below(2) as usize,
        reader_records_max: 4 + random.below(20) as usize,
        gate: GateLimits {
            in_flight_total_max: 2 + random.below(6) as usize,
            in_flight_suspect_max: 1 + random.below(2) as usize,
            endpoint: endpoint::Limits { in_flight_max: 4, failures_to_open: 3, open_first_ms: 100, open_max_ms: 1_000 },
        },
        live_unstored_ms_max: 500,
        unstored_ms_max: 20,
    }
}
