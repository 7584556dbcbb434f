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
}

/// Why a stored cursor can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored cursor has an unknown form")]
pub struct UnknownForm;

const FORM: u8 = 2;

impl Cursor {
    /// A new cursor that starts at an offset.
    pub fn starting_at(from: i64) -> Self {
        Self { from, scanned_to: from, attached: false, pending: BTreeMap::new(), collapsed: BTreeMap::new() }
    }

    /// The lowest offset that has to be read (again) to go on. A void notice needs no record, and
    /// a parked lane is left alone.
    pub fn resume_at(&self) -> i64 {
        let collapsed = self.collapsed.values().filter(|lane| !lane.parked).map(|lane| lane.mark + 1).min();
        let pending = self.pending.iter().find(|(_, pending)| !pending.void).map(|(offset, _)| *offset);
        [pending, collapsed].into_iter().flatten().fold(self.scanned_to, i64::min)
    }

    /// The stored form: a form byte, then numbers of seven bits a byte; offsets and delivery
    /// numbers as steps from the one before, since a window is written whole at every commit.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 5 * self.pending.len() + 16 * self.collapsed.len());
        bytes.push(FORM);
        bytes.push(u8::from(self.attached));
        push_signed(&mut bytes, self.from);
        push_signed(&mut bytes, self.scanned_to);
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
        if byte(&mut rest)? != FORM {
            return Err(UnknownForm);
        }
        let attached = flag(&mut rest)?;
        let (from, scanned_to) = (signed(&mut rest)?, signed(&mut rest)?);
        let (mut pending, mut collapsed) = (BTreeMap::new(), BTreeMap::new());
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
        Ok(Self { from, scanned_to, attached, pending, collapsed })
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
        }
    }

    #[test]
    fn the_stored_form_comes_back_whole_and_nothing_else_is_taken() {
        for cursor in [cursor(), Cursor::starting_at(0), Cursor::starting_at(i64::MAX)] {
            let bytes = cursor.to_bytes();
            assert_eq!(Cursor::from_bytes(&bytes).as_ref(), Ok(&cursor));
            for cut in 0..bytes.len() {
                assert_ne!(Cursor::from_bytes(&bytes[..cut]).as_ref(), Ok(&cursor));
            }
            assert!(Cursor::from_bytes(&[&[9], &bytes[1..]].concat()).is_err());
        }
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
        assert_eq!(Cursor { collapsed: BTreeMap::new(), ..cursor() }.resume_at(), 17);
        assert_eq!(Cursor::starting_at(5).resume_at(), 5);
    }
}
