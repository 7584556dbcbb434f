//! Where a copy is kept: what its owner has to provide.

use std::collections::BTreeMap;
use std::convert::Infallible;

use crate::{Change, Event, Positions};

/// A keyed copy. Every method may block for a moment.
pub trait Store {
    /// What can go wrong.
    type Error: std::error::Error + Send + Sync + 'static;

    /// Where the copy stands, if it remembers that itself, in one transaction with what it holds.
    /// A store that does not is told by the group's offsets, and gets again what it had after a crash.
    fn positions(&mut self) -> Result<Option<Positions>, Self::Error> {
        Ok(None)
    }

    /// The copy is made anew: what it holds has to be gone after the next commit, and not before.
    fn begin_anew(&mut self) -> Result<(), Self::Error>;

    /// Takes changes, in order.
    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Self::Error>;

    /// Makes all that was applied durable and visible at once, together with the positions behind
    /// it. While a copy is made anew this is called first when it has caught up.
    fn commit(&mut self, positions: &Positions) -> Result<(), Self::Error>;
}

/// A copy in memory, made anew at every start.
#[derive(Debug, Default)]
pub struct Memory {
    next: BTreeMap<String, Event>,
    shown: BTreeMap<String, Event>,
    is_anew: bool,
}

impl Memory {
    /// The latest state of each key; empty until it has caught up.
    pub fn events(&self) -> &BTreeMap<String, Event> {
        &self.shown
    }
}

impl Store for Memory {
    type Error = Infallible;

    fn begin_anew(&mut self) -> Result<(), Infallible> {
        self.next.clear();
        self.is_anew = true;
        Ok(())
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Infallible> {
        let into = if self.is_anew { &mut self.next } else { &mut self.shown };
        for change in changes {
            match change {
                Change::Put { key, event } => drop(into.insert(key, *event)),
                Change::Remove { key, .. } => drop(into.remove(&key)),
                Change::Undecodable { .. } => {}
            }
        }
        Ok(())
    }

    fn commit(&mut self, _positions: &Positions) -> Result<(), Infallible> {
        if std::mem::take(&mut self.is_anew) {
            self.shown = std::mem::take(&mut self.next);
        }
        Ok(())
    }
}
