//! What goes into the hub and what comes out of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::gate::Address;
use super::slots::{ReaderAction, ReaderId};
use crate::access::Caller;
use crate::cursor::{Cursor, Place};
use crate::filter::Filters;
use crate::machine::{DeadLetter, Delivery, DisableReason, Limits, Mode, Numbering, Policy};
use crate::outcome::Outcome;
use crate::record::Record;
use crate::removal::Leaving;
use crate::settings::Order;
use uuid::Uuid;

/// Names a subscription within the hub. Never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId(pub u32);

/// Says which records must not leave.
pub trait Guard {
    /// Whether this record is to be withheld, as of now.
    fn withholds(&self, leaving: Leaving<'_>) -> bool;

    /// Whether this one may not have it, as of now; what stops all that is delivered for it aside. It must
    /// never learn of it: for it, there is no such event.
    fn denies(&self, caller: Caller, record: &Record) -> bool;

    /// Whether it must not leave for this one now.
    fn stops(&self, caller: Caller, record: &Record) -> bool {
        self.withholds(record.leaving()) || self.denies(caller, record)
    }
}

/// Says which watch lists hold a record's key, as of now.
pub trait Watch {
    /// All lists that do.
    fn holding(&self, record: &Record, found: &mut Vec<Uuid>);
    /// Whether this one does.
    fn holds(&self, list: Uuid, record: &Record) -> bool;
}

/// There are no watch lists.
pub(super) struct NoLists;

impl Watch for NoLists {
    fn holding(&self, _: &Record, _: &mut Vec<Uuid>) {}

    fn holds(&self, _: Uuid, _: &Record) -> bool {
        false
    }
}

/// What a subscription asks for, as far as the hub is concerned.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Whom it is for.
    pub caller: Caller,
    /// Event types, each exact or ending in `.*`.
    pub types: Vec<String>,
    /// Which events of these types; `None` for all.
    pub filters: Option<Filters>,
    /// Of these, only events whose key this list holds.
    pub watch_list: Option<Uuid>,
    /// What must not overtake what. For life: cursors hold lanes.
    pub order: Order,
    /// Where attempts go; `None` for a receiver that fetches.
    pub address: Option<Address>,
    /// Limits.
    pub limits: Limits,
    /// What happens after failures.
    pub policy: Policy,
    /// Whether attempts may be made.
    pub mode: Mode,
}

/// A subscription as it begins or goes on.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// What it asks for.
    pub wish: Wish,
    /// Whoever it is for is stopped: nothing leaves for it now.
    pub held: bool,
    /// Its numbers so far.
    pub numbering: Numbering,
    /// Its cursor in each partition.
    pub cursors: Vec<(Place, Cursor)>,
    /// Events set aside so far.
    pub dead_letters: usize,
    /// For a replay: where it ends in each partition. It never goes with the tail.
    pub until: Option<BTreeMap<Place, i64>>,
    /// And whose attempts a minute it draws from.
    pub owner: Option<MemberId>,
}

/// What happened.
#[derive(Debug)]
pub enum Input {
    /// The tail has read these, in order per partition.
    Tail(Vec<Arc<Record>>),
    /// A reader hands over what it was asked for; `at_end` if the log has no more for now.
    Chunk {
        /// Which reader.
        reader: ReaderId,
        /// What it has read, in order.
        records: Vec<Arc<Record>>,
        /// Whether that was all.
        at_end: bool,
    },
    /// A reader cannot go on.
    ReaderLost(ReaderId),
    /// An attempt has ended.
    Attempted {
        /// Whose.
        member: MemberId,
        /// Where it went.
        address: Address,
        /// Its number.
        attempt: u64,
        /// How.
        outcome: Outcome,
        /// The endpoint has said something about the event: it is there, whatever it said.
        answered: bool,
        /// Fresh randomness.
        entropy: u64,
    },
    /// A receiver that fetches has taken everything up to this number.
    Acknowledged {
        /// Whose.
        member: MemberId,
        /// The number.
        number: u64,
    },
    /// A receiver that fetches has been shown everything there is, and asks for more.
    Emptied(MemberId),
    /// Other keys are to be withheld now: what is kept is looked at again.
    GuardChanged,
    /// The last commit is on disk.
    Persisted,
    /// Time has passed.
    Tick,
}

/// One record of an attempt, with what is to be sent.
#[derive(Debug, Clone)]
pub struct Parcel {
    /// Which delivery.
    pub delivery: Delivery,
    /// The record; none for a void notice.
    pub record: Option<Arc<Record>>,
}

/// What the shell must do.
#[derive(Debug)]
pub enum Action {
    /// Work of the catch-up readers.
    Reader(ReaderAction),
    /// Make this attempt, and tell how it ended.
    Attempt {
        /// Whose.
        member: MemberId,
        /// Where to.
        address: Address,
        /// Its number.
        attempt: u64,
        /// What to send, in order; at least one.
        parcels: Vec<Parcel>,
    },
    /// There may be more to fetch.
    Available(MemberId),
    /// A replay has come to its end, and all of it is on disk. Told at least once.
    Finished(MemberId),
    /// The subscription has gone back here, which is on disk with the next commit. Its events set
    /// aside from `to` on are so no more: forget them in that commit too.
    Rewound {
        /// Whose.
        member: MemberId,
        /// Where.
        place: Place,
        /// The first offset that comes again.
        to: i64,
    },
    /// The subscription was stopped by its deliveries.
    Disable {
        /// Whose.
        member: MemberId,
        /// Why.
        reason: DisableReason,
        /// Where it delivered.
        address: Option<Address>,
    },
}

/// What to persist, all or nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commit {
    /// Where the tail is: what attached cursors imply.
    pub live: Vec<(Place, i64)>,
    /// Changed subscriptions.
    pub members: Vec<(MemberId, MemberCommit)>,
}

/// What to persist of one subscription.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberCommit {
    /// Changed cursors.
    pub cursors: Vec<(Place, Cursor)>,
    /// Numbers given so far.
    pub numbering: Option<Numbering>,
    /// Events newly set aside.
    pub dead_letters: Vec<DeadLetter>,
}
