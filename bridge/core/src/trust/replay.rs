//! Which proofs were used, for as long as they could be used again.
//!
//! Bounded: when there is no more room, new proofs are refused. Must never forget a proof before its time is
//! out: it could come again.

use std::collections::{BTreeSet, HashSet};

use super::fault::Fault;
use super::proof::Proof;

/// The proofs that were used.
#[derive(Debug)]
pub struct Replays {
    used: HashSet<[u8; 16]>,
    /// The same by when they end.
    ends: BTreeSet<(i64, [u8; 16])>,
    entries_max: usize,
}

impl Replays {
    /// Room for so many.
    pub fn new(entries_max: usize) -> Self {
        Self { used: HashSet::new(), ends: BTreeSet::new(), entries_max }
    }

    /// Remembers a proof, or says that it was used before or that there is no room.
    pub fn take(&mut self, proof: &Proof, now_ms: i64) -> Result<(), Fault> {
        self.forget(now_ms);
        if self.used.contains(&proof.id) {
            return Err(Fault::Replayed);
        }
        if self.used.len() >= self.entries_max {
            return Err(Fault::ReplaysFull);
        }
        self.used.insert(proof.id);
        self.ends.insert((proof.ends_at_ms, proof.id));
        Ok(())
    }

    /// Forgets what can no longer come again.
    fn forget(&mut self, now_ms: i64) {
        while let Some((ends_at_ms, id)) = self.ends.first().copied() {
            if ends_at_ms >= now_ms {
                return;
            }
            self.ends.pop_first();
            self.used.remove(&id);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.used.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}
