//! What is stored, as keys and values of one tree, so that one batch holds everything together.
//!
//! Keys begin with a kind; numbers in them are big-endian. Values begin with a checksum.

use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Place};
use ryggrad_bridge_core::machine::{DeadLetter, Numbering};
use ryggrad_bridge_core::outcome::Outcome;

use crate::checksum::{checked, with_checksum};

/// A subscription's id.
pub type SubscriptionId = [u8; ID_BYTES];

const ID_BYTES: usize = 16;

const LIVE: u8 = 1;
const CURSOR: u8 = 2;
const NUMBERING: u8 = 3;
const DEAD_LETTER: u8 = 4;
/// Kinds whose keys go on with a subscription's id.
pub(crate) const OF_SUBSCRIPTIONS: [u8; 3] = [CURSOR, NUMBERING, DEAD_LETTER];

/// One stored thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Where the tail is: what attached cursors imply.
    Live {
        /// Topic and partition.
        place: Place,
        /// The next offset.
        to: i64,
    },
    /// A cursor.
    Cursor {
        /// Whose.
        subscription: SubscriptionId,
        /// Topic and partition.
        place: Place,
        /// The cursor.
        cursor: Cursor,
    },
    /// Numbers given so far.
    Numbering {
        /// Whose.
        subscription: SubscriptionId,
        /// The numbers.
        numbering: Numbering,
    },
    /// An event that was set aside.
    DeadLetter {
        /// Whose.
        subscription: SubscriptionId,
        /// Which event.
        letter: DeadLetter,
        /// When, milliseconds since 1970.
        at_ms: u64,
    },
}

impl Entry {
    /// Whose it is.
    pub(crate) fn subscription(&self) -> Option<SubscriptionId> {
        match self {
            Self::Live { .. } => None,
            Self::Cursor { subscription, .. } | Self::Numbering { subscription, .. } | Self::DeadLetter { subscription, .. } => {
                Some(*subscription)
            }
        }
    }
}

/// Names an entry.
pub fn key(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Live { place, .. } => [&[LIVE][..], &place_bytes(*place)].concat(),
        Entry::Cursor { subscription, place, .. } => [&[CURSOR][..], subscription, &place_bytes(*place)].concat(),
        Entry::Numbering { subscription, .. } => [&[NUMBERING][..], subscription].concat(),
        Entry::DeadLetter { subscription, letter, .. } => dead_letter_key(*subscription, letter.place, letter.offset),
    }
}

pub(crate) fn dead_letter_key(subscription: SubscriptionId, place: Place, offset: i64) -> Vec<u8> {
    [&[DEAD_LETTER][..], &subscription, &place_bytes(place), &offset.to_be_bytes()].concat()
}

/// An entry as it is stored under that name.
pub fn value(entry: &Entry) -> Vec<u8> {
    let body = match entry {
        Entry::Live { to, .. } => to.to_be_bytes().to_vec(),
        Entry::Cursor { cursor, .. } => cursor.to_bytes(),
        Entry::Numbering { numbering, .. } => [&numbering.epoch.to_be_bytes()[..], &numbering.next.to_be_bytes()].concat(),
        Entry::DeadLetter { letter, at_ms, .. } => {
            let flags = [reason(letter.outcome), u8::from(letter.parked)];
            [&letter.lane.0.to_be_bytes()[..], &letter.number.to_be_bytes(), &at_ms.to_be_bytes(), &flags].concat()
        }
    };
    with_checksum(&body)
}

/// Reads an entry; `Err` with its subscription, if it has one, where it is damaged.
pub fn parse(key: &[u8], value: &[u8]) -> Result<Entry, Option<SubscriptionId>> {
    let owner = key.split_first().filter(|(kind, _)| OF_SUBSCRIPTIONS.contains(kind));
    let owner = owner.and_then(|(_, rest)| rest.first_chunk::<ID_BYTES>().copied());
    parse_whole(key, value).ok_or(owner)
}

fn parse_whole(key: &[u8], value: &[u8]) -> Option<Entry> {
    let body = checked(value)?;
    let (kind, rest) = key.split_first()?;
    if *kind == LIVE {
        return Some(Entry::Live { place: place(rest)?.0, to: i64::from_be_bytes(body.try_into().ok()?) });
    }
    let (subscription, rest) = rest.split_first_chunk::<ID_BYTES>()?;
    let subscription = *subscription;
    match *kind {
        CURSOR => Some(Entry::Cursor { subscription, place: place(rest)?.0, cursor: Cursor::from_bytes(body).ok()? }),
        NUMBERING => {
            let (epoch, next) = body.split_first_chunk::<4>()?;
            let numbering = Numbering { epoch: u32::from_be_bytes(*epoch), next: u64::from_be_bytes(next.try_into().ok()?) };
            Some(Entry::Numbering { subscription, numbering })
        }
        DEAD_LETTER => {
            let (place, offset) = place(rest)?;
            let (lane, body) = number(body)?;
            let (number, body) = self::number(body)?;
            let (at_ms, flags) = self::number(body)?;
            let [reason, parked] = flags.try_into().ok()?;
            let letter = DeadLetter {
                place,
                offset: i64::from_be_bytes(offset.try_into().ok()?),
                lane: LaneKey(lane),
                number,
                outcome: outcome(reason),
                parked: parked == 1,
            };
            Some(Entry::DeadLetter { subscription, letter, at_ms })
        }
        _ => None,
    }
}

fn reason(outcome: Outcome) -> u8 {
    if outcome == Outcome::Hopeless { 1 } else { 0 }
}

fn outcome(reason: u8) -> Outcome {
    if reason == 1 { Outcome::Hopeless } else { Outcome::Failed }
}

fn place_bytes(place: Place) -> [u8; 6] {
    let mut bytes = [0; 6];
    bytes[..2].copy_from_slice(&place.topic.to_be_bytes());
    bytes[2..].copy_from_slice(&place.partition.to_be_bytes());
    bytes
}

fn place(bytes: &[u8]) -> Option<(Place, &[u8])> {
    let (topic, rest) = bytes.split_first_chunk::<2>()?;
    let (partition, rest) = rest.split_first_chunk::<4>()?;
    Some((Place { topic: u16::from_be_bytes(*topic), partition: i32::from_be_bytes(*partition) }, rest))
}

fn number(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*head), rest))
}
