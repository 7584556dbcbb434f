//! The index of all lists, as the hub asks it and the API changes it.
//!
//! The hub asks for each event: whoever changes something holds the lock for a handful of keys at a
//! time, and what is not joined yet is seen by nobody.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ryggrad_bridge_core::hub::Watch;
use ryggrad_bridge_core::record::Record;
use ryggrad_bridge_core::watch_list::{Fingerprint, Fingerprints, Index, Slot};
use uuid::Uuid;

/// Keys between which the hub may come in: a millisecond of work.
const KEYS_AT_A_TIME: usize = 512;

/// The index.
pub struct Watched {
    /// Makes its fingerprints.
    pub fingerprints: Fingerprints,
    index: RwLock<Index>,
}

impl Watched {
    /// Without any list.
    pub fn new(fingerprints: Fingerprints) -> Self {
        Self { index: RwLock::new(Index::new(fingerprints.clone())), fingerprints }
    }

    /// Forgets everything, so that all lists can be read again.
    pub fn reset(&self) {
        *self.write() = Index::new(self.fingerprints.clone());
    }

    /// A generation of a list, which nobody sees yet.
    pub fn fill(&self, fingerprints: &[Fingerprint]) -> Slot {
        let slot = self.write().open();
        for some in fingerprints.chunks(KEYS_AT_A_TIME) {
            self.write().insert(slot, some);
            std::thread::yield_now();
        }
        slot
    }

    /// From here on this generation is the list; the one before it is nobody's.
    pub fn join(&self, list: Uuid, slot: Slot) -> Option<Slot> {
        self.write().join(list, slot)
    }

    /// The list is no more; its generation is nobody's.
    pub fn part(&self, list: Uuid) -> Option<Slot> {
        self.write().part(list)
    }

    /// Forgets a generation that is nobody's.
    pub fn clear(&self, slot: Slot, fingerprints: &[Fingerprint]) {
        for some in fingerprints.chunks(KEYS_AT_A_TIME) {
            self.write().remove(slot, some);
            std::thread::yield_now();
        }
        self.write().close(slot);
    }

    /// Changes a list in one step.
    pub fn change(&self, list: Uuid, add: &[Fingerprint], remove: &[Fingerprint]) {
        let mut index = self.write();
        if let Some(slot) = index.slot(list) {
            index.insert(slot, add);
            index.remove(slot, remove);
        }
    }

    /// Whether a list holds a record's key, as of now.
    pub fn holds(&self, list: Uuid, record: &Record) -> bool {
        self.read().holds(list, record)
    }

    /// Memberships, and the bytes that they take.
    pub fn size(&self) -> (usize, usize) {
        let index = self.read();
        (index.memberships(), index.bytes())
    }

    fn read(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Index> {
        self.index.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The index, as the hub asks it.
pub struct HubWatch(pub Arc<Watched>);

impl Watch for HubWatch {
    fn holding(&self, record: &Record, found: &mut Vec<Uuid>) {
        self.0.read().holding(record, found);
    }

    fn holds(&self, list: Uuid, record: &Record) -> bool {
        self.0.holds(list, record)
    }
}
