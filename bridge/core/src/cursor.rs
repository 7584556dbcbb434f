//! A subscription's durable cursor in one partition, and its stored form.
//!
//! Invariant: every offset in `from..scanned_to` is settled unless it is in `pending`, or lies
//! after a collapsed lane's mark and has that lane's key. Nothing else about a delivery is ever
//! stored, so a subscriber that is away for a week costs one cursor.

use std::collections::{BTreeMap, BTreeSet};

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

/// How far a subscription has come in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The first offset that the subscription is to get.
    pub from: i64,
    /// Everything below has been looked at.
    pub scanned_to: i64,
    /// Matched and not settled.
    pub pending: BTreeSet<i64>,
    /// Lanes that wait with more than they may hold: lane -> the last offset that it holds or
    /// held. Later records of that lane are unsettled and are read again when it moves.
    pub collapsed: BTreeMap<LaneKey, i64>,
}

/// Why a stored cursor can't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stored cursor has an unknown form")]
pub struct UnknownForm;

const FORM: u8 = 1;

impl Cursor {
    /// A new cursor that starts at an offset.
    pub fn starting_at(from: i64) -> Self {
        Self { from, scanned_to: from, pending: BTreeSet::new(), collapsed: BTreeMap::new() }
    }

    /// The lowest offset that has to be read (again) to go on.
    pub fn resume_at(&self) -> i64 {
        let collapsed = self.collapsed.values().min().map(|mark| mark + 1);
        [self.pending.first().copied(), collapsed].into_iter().flatten().fold(self.scanned_to, i64::min)
    }

    /// The stored form: a form byte, then big-endian numbers.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(25 + 8 * self.pending.len() + 16 * self.collapsed.len());
        bytes.push(FORM);
        bytes.extend(self.from.to_be_bytes());
        bytes.extend(self.scanned_to.to_be_bytes());
        // At most a window of entries, so the count always fits.
        bytes.extend((self.pending.len() as u32).to_be_bytes());
        self.pending.iter().for_each(|offset| bytes.extend(offset.to_be_bytes()));
        for (lane, mark) in &self.collapsed {
            bytes.extend(lane.0.to_be_bytes());
            bytes.extend(mark.to_be_bytes());
        }
        bytes
    }

    /// Reads the stored form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, UnknownForm> {
        let (form, rest) = bytes.split_first().ok_or(UnknownForm)?;
        if *form != FORM {
            return Err(UnknownForm);
        }
        let (from, rest) = number(rest)?;
        let (scanned_to, rest) = number(rest)?;
        let (count, rest) = rest.split_first_chunk::<4>().ok_or(UnknownForm)?;
        let pending_bytes = 8 * u32::from_be_bytes(*count) as usize;
        let (pending, collapsed) = rest.split_at_checked(pending_bytes).ok_or(UnknownForm)?;
        if collapsed.len() % 16 != 0 {
            return Err(UnknownForm);
        }
        let pending = pending.chunks_exact(8).map(|chunk| number(chunk).map(|(offset, _)| offset)).collect::<Result<_, _>>()?;
        let collapsed = collapsed
            .chunks_exact(16)
            .map(|chunk| {
                let (lane, rest) = number(chunk)?;
                let (mark, _) = number(rest)?;
                Ok((LaneKey(lane.cast_unsigned()), mark))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { from, scanned_to, pending, collapsed })
    }
}

fn number(bytes: &[u8]) -> Result<(i64, &[u8]), UnknownForm> {
    let (head, rest) = bytes.split_first_chunk::<8>().ok_or(UnknownForm)?;
    Ok((i64::from_be_bytes(*head), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursor() -> Cursor {
        Cursor {
            from: 3,
            scanned_to: 1_000,
            pending: BTreeSet::from([17, 999]),
            collapsed: BTreeMap::from([(LaneKey::of("a"), 12), (LaneKey(u64::MAX), 900)]),
        }
    }

    #[test]
    fn the_stored_form_comes_back_whole_and_nothing_else_is_taken() {
        for cursor in [cursor(), Cursor::starting_at(0), Cursor::starting_at(i64::MAX)] {
            let bytes = cursor.to_bytes();
            assert_eq!(Cursor::from_bytes(&bytes), Ok(cursor));
            assert!(Cursor::from_bytes(&bytes[..bytes.len() - 1]).is_err());
            assert!(Cursor::from_bytes(&[&[9], &bytes[1..]].concat()).is_err());
        }
        assert!(Cursor::from_bytes(&[]).is_err());
    }

    #[test]
    fn resumes_at_the_lowest_unsettled_offset() {
        assert_eq!(cursor().resume_at(), 13);
        assert_eq!(Cursor { collapsed: BTreeMap::new(), ..cursor() }.resume_at(), 17);
        assert_eq!(Cursor::starting_at(5).resume_at(), 5);
    }
}
