//! A subscription's durable cursor in one partition, and its stored form.
//!
//! Invariant: every offset in `from..scanned_to` is settled unless it is in `pending`, or lies
//! after a collapsed lane's mark and has that lane's key. A subscription that goes with the tail
//! (`attached`) has been shown everything below the shared `live_to`, which is stored in the same
//! batch as the pending sets that it implies. Nothing else about a delivery is ever stored, so a
//! subscriber that is away for a week costs one cursor.

use std::collections::BTreeMap;

/// A partition of a topic, by the topic's number in the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Topic number.
    pub topic: u16,
    /// Partition number.
    pub partition: i32,
}

/// Which lane of a partition: a hash of the record key. Two keys with one hash share a lane,
/// which costs concurrency and never order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LaneKey(pub u64);

impl LaneKey {
    /// The lane of a record key. Stable across versions: it is stored (FNV-1a, 64 bits).
    pub fn of(key: &str) -> Self {
        Self(key.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }
}

/// A matched record that is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Its number among the subscription's deliveries, from 1.
    pub number: u64,
    /// The event itself does not go out any more: the number is closed by a void notice.
    pub void: bool,
}

/// A lane that waits with more than it may hold in the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Collapsed {
    /// The last offset that it holds or held. Later records of the lane are unsettled, and are
    /// read again when it moves.
    pub mark: i64,
    /// Set aside until somebody redrives it; until then it is not read again.
    pub parked: bool,
}

/// How far a subscription has come in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The first offset that the subscription is to get.
    pub from: i64,
    /// Everything below has been looked at.
    pub scanned_to: i64,
    /// The subscription goes with the tail: it has looked at everything below the shared
    /// `live_to` too, if that is higher than `scanned_to`.
    pub attached: bool,
    /// Matched and not settled.
    pub pending: BTreeMap<i64, Pending>,
    /// Lanes whose queue is the log itself.
    pub collapsed: BTreeMap<LaneKey, Collapsed>,
    /// Where the owner has gone back to, ascending: what names a delivery from there on is new.
    pub rewinds: Vec<Rewind>,
}

/// The owner wanted everything from an offset on once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewind {
    /// The first offset that is delivered again.
    pub at: i64,
    /// How often the owner has gone back in this partition.
    pub generation: u32,
}

/// Rewinds that are remembered. Of older ones only what was pending below them since before could
/// tell, and it would come once more under its first name.
const REWINDS_MAX: usize = 16;

/// Stands in `pending` for a number that is to be closed and has no offset any more: its record is
/// read again, and gets another number.
pub fn without_offset(number: u64) -> i64 {
    -1 - (number & i64::MAX as u64).cast_signed()
}

/// Why a stored cursor can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored cursor has an unknown form")]
pub struct UnknownForm;

const FORM: u8 = 2;
/// The same, with rewinds.
const FORM_REWOUND: u8 = 3;

impl Cursor {
    /// A new cursor that starts at an offset.
    pub fn starting_at(from: i64) -> Self {
        Self { from, scanned_to: from, attached: false, pending: BTreeMap::new(), collapsed: BTreeMap::new(), rewinds: Vec::new() }
    }

    /// The lowest offset that has to be read (again) to go on. A void notice needs no record, and
    /// a parked lane is left alone.
    pub fn resume_at(&self) -> i64 {
        let collapsed = self.collapsed.values().filter(|lane| !lane.parked).map(|lane| lane.mark.saturating_add(1)).min();
        let pending = self.pending.iter().find(|(_, pending)| !pending.void).map(|(offset, _)| *offset);
        [pending, collapsed].into_iter().flatten().fold(self.scanned_to, i64::min)
    }

    /// The same cursor, gone back: everything from `to` on is looked at again, whatever became of it.
    /// Numbers given to it stay to be closed. What is left below `to` stays as it is.
    pub fn rewound(&self, to: i64) -> Self {
        let generation = self.rewinds.last().map_or(0, |rewind| rewind.generation).saturating_add(1);
        let before = self.rewinds.iter().filter(|rewind| rewind.at < to).copied();
        let mut rewinds: Vec<Rewind> = before.chain([Rewind { at: to, generation }]).collect();
        rewinds.drain(..rewinds.len().saturating_sub(REWINDS_MAX));
        let pending = self.pending.iter().map(|(offset, pending)| {
            if *offset < to { (*offset, *pending) } else { (without_offset(pending.number), Pending { void: true, ..*pending }) }
        });
        Self {
            from: self.from.min(to),
            scanned_to: to,
            attached: false,
            pending: pending.collect(),
            collapsed: self
                .collapsed
                .iter()
                .filter(|(_, lane)| lane.mark.saturating_add(1) < to)
                .map(|(key, lane)| (*key, *lane))
                .collect(),
            rewinds,
        }
    }

    /// After how many rewinds a record is delivered: part of what names its delivery.
    pub fn generation(&self, offset: i64) -> u32 {
        self.rewinds.iter().rev().find(|rewind| rewind.at <= offset).map_or(0, |rewind| rewind.generation)
    }

    /// The stored form: a form byte, then numbers of seven bits a byte; offsets and delivery
    /// numbers as steps from the one before, since a window is written whole at every commit.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 5 * self.pending.len() + 16 * self.collapsed.len());
        bytes.push(if self.rewinds.is_empty() { FORM } else { FORM_REWOUND });
        bytes.push(u8::from(self.attached));
        push_signed(&mut bytes, self.from);
        push_signed(&mut bytes, self.scanned_to);
        if !self.rewinds.is_empty() {
            push(&mut bytes, self.rewinds.len() as u64);
            for rewind in &self.rewinds {
                push_signed(&mut bytes, rewind.at.wrapping_sub(self.from));
                push(&mut bytes, rewind.generation.into());
            }
        }
        push(&mut bytes, self.pending.len() as u64);
        let (mut offset, mut number) = (self.from, 0);
        for (at, pending) in &self.pending {
            push_signed(&mut bytes, at.wrapping_sub(offset));
            push_signed(&mut bytes, pending.number.wrapping_sub(number).cast_signed());
            bytes.push(u8::from(pending.void));
            (offset, number) = (*at, pending.number);
        }
        for (lane, collapsed) in &self.collapsed {
            bytes.extend(lane.0.to_be_bytes());
            bytes.push(u8::from(collapsed.parked));
            push_signed(&mut bytes, collapsed.mark.wrapping_sub(self.from));
        }
        bytes
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnknownForm> {
        let mut rest = bytes;
        let form = byte(&mut rest)?;
        if form != FORM && form != FORM_REWOUND {
            return Err(UnknownForm);
        }
        let attached = flag(&mut rest)?;
        let (from, scanned_to) = (signed(&mut rest)?, signed(&mut rest)?);
        let (mut pending, mut collapsed, mut rewinds) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        let rewound = if form == FORM_REWOUND { unsigned(&mut rest)? } else { 0 };
        for _ in 0..rewound {
            let at = from.wrapping_add(signed(&mut rest)?);
            let generation = u32::try_from(unsigned(&mut rest)?).map_err(|_| UnknownForm)?;
            rewinds.push(Rewind { at, generation });
        }
        let (mut offset, mut number) = (from, 0_u64);
        for _ in 0..unsigned(&mut rest)? {
            offset = offset.wrapping_add(signed(&mut rest)?);
            number = number.wrapping_add(signed(&mut rest)?.cast_unsigned());
            let void = flag(&mut rest)?;
            pending.insert(offset, Pending { number, void });
        }
        while !rest.is_empty() {
            let (lane, after) = rest.split_first_chunk::<8>().ok_or(UnknownForm)?;
            rest = after;
            let parked = flag(&mut rest)?;
            let mark = from.wrapping_add(signed(&mut rest)?);
            collapsed.insert(LaneKey(u64::from_be_bytes(*lane)), Collapsed { mark, parked });
        }
        Ok(Self { from, scanned_to, attached, pending, collapsed, rewinds })
    }
}

/// Small numbers of either sign become small numbers.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn push_signed(bytes: &mut Vec<u8>, number: i64) {
    push(bytes, zigzag(number));
}

fn push(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(0x80 | (number & 0x7f) as u8);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn byte(rest: &mut &[u8]) -> Result<u8, UnknownForm> {
    let (first, after) = rest.split_first().ok_or(UnknownForm)?;
    *rest = after;
    Ok(*first)
}

fn flag(rest: &mut &[u8]) -> Result<bool, UnknownForm> {
    match byte(rest)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(UnknownForm),
    }
}

fn unsigned(rest: &mut &[u8]) -> Result<u64, UnknownForm> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let next = byte(rest)?;
        number |= u64::from(next & 0x7f) << shift;
        if next < 0x80 {
            return Ok(number);
        }
    }
    Err(UnknownForm)
}

fn signed(rest: &mut &[u8]) -> Result<i64, UnknownForm> {
    let number = unsigned(rest)?;
    Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        let pending = |number, void| Pending { number, void };
        let collapsed = |mark, parked| Collapsed { mark, parked };
        Cursor {
            from: 3,
            scanned_to: 1_000,
            attached: true,
            pending: BTreeMap::from([(17, pending(400, false)), (20, pending(4, true)), (999, pending(u64::MAX, false))]),
            collapsed: BTreeMap::from([(LaneKey::of("a"), collapsed(12, false)), (LaneKey(u64::MAX), collapsed(5, true))]),
            rewinds: Vec::new(),
        }
    }

    #[test]
    fn the_stored_form_comes_back_whole_and_nothing_else_is_taken() {
        for cursor in [cursor(), cursor().rewound(20).rewound(500), Cursor::starting_at(0), Cursor::starting_at(i64::MAX)] {
            let bytes = cursor.to_bytes();
            assert_eq!(Cursor::from_bytes(&bytes).as_ref(), Ok(&cursor));
            for cut in 0..bytes.len() {
                assert_ne!(Cursor::from_bytes(&bytes[..cut]).as_ref(), Ok(&cursor));
            }
            assert!(Cursor::from_bytes(&[&[9], &bytes[1..]].concat()).is_err());
        }
    }

    #[test]
    fn a_rewind_keeps_what_lies_below_and_closes_the_numbers_of_what_does_not() {
        let rewound = cursor().rewound(18);
        assert_eq!((rewound.from, rewound.scanned_to, rewound.attached), (3, 18, false));
        let pending = |number, void| Pending { number, void };
        let (four, last) = ((without_offset(4), pending(4, true)), (without_offset(u64::MAX), pending(u64::MAX, true)));
        assert_eq!(rewound.pending, BTreeMap::from([last, four, (17, pending(400, false))]));
        assert_eq!(rewound.collapsed, cursor().collapsed, "their records from the marks on are still to be read");
        assert_eq!(cursor().rewound(7).collapsed, BTreeMap::from([(LaneKey(u64::MAX), Collapsed { mark: 5, parked: true })]));
        assert_eq!((cursor().rewound(1).from, rewound.resume_at()), (1, 13));
    }

    #[test]
    fn every_rewind_gives_other_names_from_its_offset_on_and_no_name_comes_back() {
        let generations = |cursor: &Cursor| [5, 10, 50, 90].map(|offset| cursor.generation(offset));
        let mut cursor = Cursor::starting_at(0);
        for (to, expected) in
            [(10, [0, 1, 1, 1]), (50, [0, 1, 2, 2]), (90, [0, 1, 2, 3]), (40, [0, 1, 4, 4]), (0, [5; 4]), (90, [5, 5, 5, 6])]
        {
            cursor = cursor.rewound(to);
            assert_eq!(generations(&cursor), expected, "{to}");
        }
        (0..100).for_each(|to| cursor = cursor.rewound(to));
        assert_eq!((cursor.rewinds.len(), cursor.generation(99)), (REWINDS_MAX, 106));
    }

    #[test]
    fn a_full_window_takes_few_bytes() {
        let pending =
            (0..1_024_i64).map(|index| (1_000_000 + 3 * index, Pending { number: 70_000 + index.cast_unsigned(), void: false })).collect();
        let cursor = Cursor { pending, ..Cursor::starting_at(900_000) };
        assert!(cursor.to_bytes().len() < 4 * 1_024, "{}", cursor.to_bytes().len());
    }

    #[test]
    fn resumes_at_the_lowest_unsettled_offset() {
        assert_eq!(cursor().resume_at(), 13);
        let at_the_end = BTreeMap::from([(LaneKey(7), Collapsed { mark: i64::MAX, parked: false })]);
        assert_eq!(Cursor { collapsed: at_the_end, pending: BTreeMap::new(), ..cursor() }.resume_at(), 1_000);
        assert_eq!(Cursor { collapsed: BTreeMap::new(), ..cursor() }.resume_at(), 17);
        assert_eq!(Cursor::starting_at(5).resume_at(), 5);
    }
}
