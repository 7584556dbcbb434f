//! How far a copy is, whether it has caught up, and whether the log still tells what it missed. Pure.
//!
//! Must never call a copy caught up that has not passed what stood there when it began, nor let it
//! go on where a tombstone may be gone that it has not seen.

use std::collections::BTreeMap;

use ryggrad_log::Watermarks;
use serde::{Deserialize, Serialize};

/// How far a copy is in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The next offset to read.
    pub next: i64,
    /// All that was appended before this time has been read; milliseconds since 1970.
    pub read_to_ms: i64,
}

/// How far a copy is, by partition.
pub type Positions = BTreeMap<i32, Position>;

/// Why a copy cannot go on and has to be made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gap {
    /// Tombstones may have been compacted away that the copy has not seen.
    #[error("it was behind for {behind_ms} ms, and tombstones are kept for {kept_ms} ms only")]
    HistoryCompacted {
        /// How long.
        behind_ms: u64,
        /// How long it may be.
        kept_ms: u64,
    },
    /// The log begins behind the position.
    #[error("records behind its position were deleted")]
    Deleted,
    /// The log ends before the position: it is another log.
    #[error("the log ends before its position")]
    BeyondEnd,
    /// The copy did not say how far it is here, or somebody else has moved its group.
    #[error("its position is unknown")]
    Unknown,
}

impl Position {
    /// What is missing between here and the log as it is.
    pub fn gap(self, marks: Watermarks, now_ms: i64, tombstones_kept_ms: u64) -> Option<Gap> {
        let behind_ms = u64::try_from(now_ms.saturating_sub(self.read_to_ms)).unwrap_or_default();
        match self.next {
            next if next < marks.low => Some(Gap::Deleted),
            next if next > marks.high => Some(Gap::BeyondEnd),
            next if next < marks.high && behind_ms > tombstones_kept_ms => {
                Some(Gap::HistoryCompacted { behind_ms, kept_ms: tombstones_kept_ms })
            }
            _ => None,
        }
    }
}

/// The first partition in which something is missing.
pub fn gap(positions: &Positions, marks: &[(i32, Watermarks)], now_ms: i64, tombstones_kept_ms: u64) -> Option<(i32, Gap)> {
    marks.iter().find_map(|(partition, marks)| match positions.get(partition) {
        None => Some((*partition, Gap::Unknown)),
        Some(position) => position.gap(*marks, now_ms, tombstones_kept_ms).map(|gap| (*partition, gap)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Watermarks = Watermarks { low: 10, high: 20 };

    fn at(next: i64, read_to_ms: i64) -> Position {
        Position { next, read_to_ms }
    }

    #[test]
    fn a_gap_is_found_where_something_may_be_missing_and_only_there() {
        let old = Gap::HistoryCompacted { behind_ms: 101, kept_ms: 100 };
        for (position, expected) in [
            (at(10, 900), None),
            (at(20, 900), None),
            (at(19, 899), Some(old)),
            (at(20, 0), None),
            (at(9, 1_000), Some(Gap::Deleted)),
            (at(21, 1_000), Some(Gap::BeyondEnd)),
            (at(15, 2_000), None),
        ] {
            assert_eq!(position.gap(LOG, 1_000, 100), expected, "{position:?}");
        }
        let positions = Positions::from([(0, at(15, 1_000))]);
        assert_eq!(gap(&positions, &[(0, LOG), (1, LOG)], 1_000, 100), Some((1, Gap::Unknown)));
        assert_eq!(gap(&positions, &[(0, LOG)], 1_000, 100), None);
    }
}
