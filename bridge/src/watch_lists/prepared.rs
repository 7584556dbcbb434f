//! Keys on their way into the topic and into memory: fingerprinted, spread over buckets, sealed.
//!
//! What takes long is here and runs on a thread of its own. Must never keep a key.

use std::collections::BTreeMap;

use ryggrad_bridge_core::watch_list::bucket::{RecordKey, buckets_for, decode, encode};
use ryggrad_bridge_core::watch_list::keys::Change;
use ryggrad_bridge_core::watch_list::{Fingerprint, Fingerprints, WatchList};
use ryggrad_log::{Seal, SealError};

use super::topic::Sealed;

/// A whole generation.
pub struct Generation {
    /// All keys.
    pub fingerprints: Vec<Fingerprint>,
    /// The same, to be stored.
    pub buckets: Vec<Sealed>,
}

/// What a change makes of some buckets.
#[derive(Default)]
pub struct Rewritten {
    /// Keys that were not there.
    pub added: Vec<Fingerprint>,
    /// Keys that were.
    pub removed: Vec<Fingerprint>,
    /// Buckets as they are to be.
    pub buckets: BTreeMap<u32, Sealed>,
}

/// Seals and opens the buckets of one list.
pub struct Worker {
    /// Of the list's owner.
    pub seal: Seal,
    /// Makes fingerprints.
    pub fingerprints: Fingerprints,
    /// The list; its generation is the one that is worked on.
    pub list: WatchList,
}

impl Worker {
    /// A generation of these keys, which are in ascending order, each once.
    pub fn generation(&self, keys: &[u64]) -> Result<Generation, SealError> {
        let fingerprints: Vec<Fingerprint> = keys.iter().map(|key| self.fingerprint(*key)).collect();
        let count = buckets_for(keys.len());
        let mut spread: Vec<Vec<u64>> = vec![Vec::new(); count as usize];
        for (key, fingerprint) in keys.iter().zip(&fingerprints) {
            if let Some(bucket) = spread.get_mut(fingerprint.choose(count) as usize) {
                bucket.push(*key);
            }
        }
        let buckets = (0..).zip(&spread).map(|(bucket, keys)| self.sealed(bucket, keys)).collect::<Result<_, _>>()?;
        Ok(Generation { fingerprints, buckets })
    }

    /// The keys in these buckets, in ascending order.
    pub fn keys(&self, buckets: &[Sealed]) -> Result<Vec<u64>, SealError> {
        let mut keys = Vec::new();
        for (bucket, sealed) in (0..).zip(buckets) {
            keys.extend(self.opened(bucket, sealed)?);
        }
        keys.sort_unstable();
        Ok(keys)
    }

    /// Their fingerprints.
    pub fn fingerprints(&self, buckets: &[Sealed]) -> Result<Vec<Fingerprint>, SealError> {
        Ok(self.keys(buckets)?.into_iter().map(|key| self.fingerprint(key)).collect())
    }

    /// What a change makes of these buckets.
    pub fn rewritten(&self, buckets: &[Sealed], change: &Change) -> Result<Rewritten, SealError> {
        let count = u32::try_from(buckets.len()).unwrap_or(u32::MAX);
        let mut touched: BTreeMap<u32, Vec<(u64, Fingerprint, bool)>> = BTreeMap::new();
        let asked = change.add.iter().map(|key| (*key, true)).chain(change.remove.iter().map(|key| (*key, false)));
        for (key, adds) in asked {
            let fingerprint = self.fingerprint(key);
            touched.entry(fingerprint.choose(count)).or_default().push((key, fingerprint, adds));
        }
        let mut rewritten = Rewritten::default();
        for (bucket, asked) in touched {
            let Some(sealed) = buckets.get(bucket as usize) else { continue };
            let mut keys = self.opened(bucket, sealed)?;
            let mut changed = false;
            for (key, fingerprint, adds) in asked {
                match (keys.binary_search(&key), adds) {
                    (Err(at), true) => {
                        keys.insert(at, key);
                        rewritten.added.push(fingerprint);
                    }
                    (Ok(at), false) => {
                        keys.remove(at);
                        rewritten.removed.push(fingerprint);
                    }
                    _ => continue,
                }
                changed = true;
            }
            if changed {
                rewritten.buckets.insert(bucket, self.sealed(bucket, &keys)?);
            }
        }
        Ok(rewritten)
    }

    fn fingerprint(&self, key: u64) -> Fingerprint {
        self.fingerprints.of(self.list.domain, key)
    }

    fn place(&self, bucket: u32) -> String {
        RecordKey::Bucket { list: self.list.id, generation: self.list.generation, bucket }.to_string()
    }

    fn sealed(&self, bucket: u32, keys: &[u64]) -> Result<Sealed, SealError> {
        self.seal.seal(rand::random(), &self.place(bucket), &encode(keys)).map(Into::into)
    }

    fn opened(&self, bucket: u32, sealed: &Sealed) -> Result<Vec<u64>, SealError> {
        decode(&self.seal.open(&self.place(bucket), sealed)?).ok_or(SealError::Shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ryggrad_schemas::identifiers::KeyDomain;
    use uuid::Uuid;

    fn worker(owner: u8, generation: u64) -> Worker {
        let list = WatchList {
            id: Uuid::nil(),
            organisation: "312345676".parse().unwrap(),
            supplier: None,
            domain: KeyDomain::Organisasjonsnummer,
            description: None,
            generation,
            buckets: 0,
            keys_count: 0,
            created_at: String::new(),
            updated_at: String::new(),
        };
        Worker { seal: Seal::new(&[owner; 32]), fingerprints: Fingerprints::new([9; 32]), list }
    }

    #[test]
    fn a_generation_is_read_back_by_its_owner_in_its_place_alone() {
        let (worker, other, keys) = (worker(1, 3), worker, (300_000_000..300_005_000).collect::<Vec<u64>>());
        let Generation { fingerprints, mut buckets } = worker.generation(&keys).unwrap();
        assert_eq!((fingerprints.len(), buckets.len()), (5_000, 16));
        assert_eq!(worker.keys(&buckets), Ok(keys));
        assert!(other(2, 3).keys(&buckets).is_err() && other(1, 4).keys(&buckets).is_err());
        buckets.swap(0, 1);
        assert!(worker.keys(&buckets).is_err());
    }

    #[test]
    fn a_change_rewrites_what_it_touches_and_done_again_changes_nothing() {
        let (worker, keys) = (worker(1, 1), (0..10_000).map(|key| key * 2).collect::<Vec<u64>>());
        let mut buckets = worker.generation(&keys).unwrap().buckets;
        let change = Change { add: vec![0, 1, 3], remove: vec![2, 5] };
        let rewritten = worker.rewritten(&buckets, &change).unwrap();
        assert_eq!((rewritten.added.len(), rewritten.removed.len()), (2, 1));
        assert!((1..=3).contains(&rewritten.buckets.len()));
        rewritten.buckets.into_iter().for_each(|(bucket, sealed)| buckets[bucket as usize] = sealed);
        assert_eq!(worker.keys(&buckets).unwrap()[..4], [0, 1, 3, 4]);
        assert!(worker.rewritten(&buckets, &change).unwrap().buckets.is_empty());
    }
}
