//! Whether a dump may be believed about what it does not show, and where to follow from.
//!
//! A row says that a unit is there. That a row is missing says little: the dump may be torn,
//! shrunken or of another day. Must never let a doubtful dump delete.

/// How far a dump is trusted about deletions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trust {
    /// The greatest share of the known keys that one dump may miss.
    pub deletions_share_max: f64,
    /// So many may always be missing: in a small registry one is a large share.
    pub deletions_min: u64,
}

/// What a dump showed, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Showing {
    /// Length, check sums and the closing bracket were right.
    pub whole: bool,
    /// Rows in it.
    pub rows: u64,
    /// Rows whose key can't be read: they may be any of the missing ones.
    pub keyless: u64,
    /// Keys that the topic has.
    pub known: u64,
    /// Of those, the ones that the dump does not show.
    pub missing: u64,
}

/// Why nothing is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not whole.
    #[error("the dump is not whole")]
    Torn,
    /// Nothing in it.
    #[error("the dump is empty")]
    Empty,
    /// Rows without a key.
    #[error("{keyless} rows of the dump have no readable key and may be what is missing")]
    Keyless {
        /// How many.
        keyless: u64,
    },
    /// Too many.
    #[error("the dump lacks {missing} of {known} units, which is more than deletions_share_max allows")]
    TooMany {
        /// Missing.
        missing: u64,
        /// Known.
        known: u64,
    },
}

/// Whether missing rows may be taken for deletions at all. `asked` says that each will be asked
/// for upstream before it is believed.
pub fn deletions(showing: Showing, trust: Trust, asked: bool) -> Result<(), Refusal> {
    if !showing.whole {
        return Err(Refusal::Torn);
    }
    if showing.rows == 0 && showing.known > 0 {
        return Err(Refusal::Empty);
    }
    if showing.keyless > 0 && !asked {
        return Err(Refusal::Keyless { keyless: showing.keyless });
    }
    let allowed = (showing.known as f64 * trust.deletions_share_max) as u64;
    if showing.missing > allowed.max(trust.deletions_min) {
        return Err(Refusal::TooMany { missing: showing.missing, known: showing.known });
    }
    Ok(())
}

/// From which moment to follow the feed, so that nothing lies between it and the dump: the
/// dump's own time less a margin, or, where that is not known, as long ago as a dump may be old.
pub fn follow_from_ms(taken_at_ms: Option<i64>, now_ms: i64, margin_ms: u64, age_ms_max: u64) -> i64 {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    let taken_at_ms = taken_at_ms.unwrap_or_else(|| now_ms.saturating_sub(signed(age_ms_max)));
    taken_at_ms.min(now_ms).saturating_sub(signed(margin_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRUST: Trust = Trust { deletions_share_max: 0.02, deletions_min: 5 };
    const GOOD: Showing = Showing { whole: true, rows: 980, keyless: 0, known: 1_000, missing: 20 };

    #[test]
    fn only_a_whole_dump_that_lacks_little_may_delete() {
        for (showing, asked, expected) in [
            (GOOD, false, Ok(())),
            (Showing { whole: false, ..GOOD }, true, Err(Refusal::Torn)),
            (Showing { missing: 21, ..GOOD }, true, Err(Refusal::TooMany { missing: 21, known: 1_000 })),
            (Showing { known: 10, missing: 5, rows: 5, ..GOOD }, false, Ok(())),
            (Showing { known: 10, missing: 6, rows: 4, ..GOOD }, false, Err(Refusal::TooMany { missing: 6, known: 10 })),
            (Showing { known: 3, missing: 3, rows: 0, ..GOOD }, true, Err(Refusal::Empty)),
            (Showing { known: 0, missing: 0, rows: 0, ..GOOD }, false, Ok(())),
            (Showing { keyless: 1, ..GOOD }, false, Err(Refusal::Keyless { keyless: 1 })),
            (Showing { keyless: 1, ..GOOD }, true, Ok(())),
        ] {
            assert_eq!(deletions(showing, TRUST, asked), expected, "{showing:?} {asked}");
        }
    }

    #[test]
    fn the_feed_is_followed_from_before_the_dump() {
        for (taken_at_ms, expected) in [(Some(700), 690), (None, 890), (Some(5_000), 990)] {
            assert_eq!(follow_from_ms(taken_at_ms, 1_000, 10, 100), expected, "{taken_at_ms:?}");
        }
        assert_eq!(follow_from_ms(Some(i64::MIN), 0, u64::MAX, 0), i64::MIN);
    }
}
