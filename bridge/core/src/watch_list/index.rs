//! Key -> the watch lists that hold it: matching turned round.
//!
//! Holds keyed fingerprints in place of keys, 20 bytes each beside little room to grow. A list is
//! filled in a *slot* that nobody sees, and joined in one step, so that a reader finds all of one
//! generation or all of another. Must never hold a key itself.

use std::collections::HashMap;

use ryggrad_schemas::Catalogue;
use ryggrad_schemas::identifiers::KeyDomain;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::record::Record;

/// By the first bits of the fingerprint, so that what an insertion moves is small.
const SHARD_BITS: u32 = 14;
/// Entries that a full shard gains room for, as a share of what it has.
const GROWTH_SHARE: usize = 8;
/// And at least.
const GROWTH_MIN: usize = 1;

/// A key as the index knows it: 128 bits, so that two keys never share one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fingerprint([u8; 16]);

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

impl Fingerprint {
    /// Which of so many (a power of two) it belongs to; independent of where it stands in the index.
    pub fn choose(self, of: u32) -> u32 {
        let [.., a, b, c, d] = self.0;
        u32::from_be_bytes([a, b, c, d]) & of.saturating_sub(1)
    }

    fn shard(self) -> usize {
        let [a, b, ..] = self.0;
        usize::from(u16::from_be_bytes([a, b]) >> (16 - SHARD_BITS))
    }
}

/// Makes fingerprints. Without its secret nobody can tell which key one stands for.
#[derive(Clone)]
pub struct Fingerprints {
    secret: [u8; 32],
}

impl std::fmt::Debug for Fingerprints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprints(…)")
    }
}

impl Fingerprints {
    /// With this secret.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// The fingerprint of a key.
    pub fn of(&self, domain: KeyDomain, number: u64) -> Fingerprint {
        // A hash of a secret and a text of fixed length, cut to half: one block, and nothing can be
        // put behind it.
        let domain = match domain {
            KeyDomain::Organisasjonsnummer => 1_u8,
        };
        let digest = Sha256::new().chain_update(self.secret).chain_update([domain]).chain_update(number.to_be_bytes()).finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Fingerprint(half)
    }

    fn of_record(&self, record: &Record) -> Option<Fingerprint> {
        record.fingerprint(|| {
            let domain = Catalogue::built_in().event(record.ce_type())?.key_domain()?;
            let number = domain.number(record.log.key.as_deref()?).ok()?;
            Some(self.of(domain, number))
        })
    }
}

/// One generation of a list in the index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u32);

/// A membership: this key, in this generation of a list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    fingerprint: Fingerprint,
    slot: Slot,
}

/// The index.
pub struct Index {
    fingerprints: Fingerprints,
    /// Each in ascending order. None before the first key.
    shards: Vec<Vec<Entry>>,
    /// The list that a slot is joined to.
    slots: Vec<Option<Uuid>>,
    free: Vec<Slot>,
    joined: HashMap<Uuid, Slot>,
    memberships: usize,
    bytes: usize,
}

impl Index {
    /// Bytes that a membership costs at most, in a list of some size: room to grow included.
    pub const MEMBERSHIP_BYTES: usize = size_of::<Entry>() + size_of::<Entry>() / GROWTH_SHARE + 1;

    /// An empty index.
    pub fn new(fingerprints: Fingerprints) -> Self {
        Self { fingerprints, shards: Vec::new(), slots: Vec::new(), free: Vec::new(), joined: HashMap::new(), memberships: 0, bytes: 0 }
    }

    /// A slot that nobody sees yet.
    pub fn open(&mut self) -> Slot {
        if self.shards.is_empty() {
            self.shards.resize_with(1 << SHARD_BITS, Vec::new);
            self.bytes += self.shards.capacity() * size_of::<Vec<Entry>>();
        }
        self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            Slot(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
        })
    }

    /// Puts keys into a slot; those that are there already stay.
    pub fn insert(&mut self, slot: Slot, fingerprints: &[Fingerprint]) {
        for fingerprint in fingerprints {
            let Some(shard) = self.shards.get_mut(fingerprint.shard()) else { return };
            let entry = Entry { fingerprint: *fingerprint, slot };
            let Err(at) = shard.binary_search(&entry) else { continue };
            if shard.len() == shard.capacity() {
                let before = shard.capacity();
                shard.reserve_exact((before / GROWTH_SHARE).max(GROWTH_MIN));
                self.bytes += (shard.capacity() - before) * size_of::<Entry>();
            }
            shard.insert(at, entry);
            self.memberships += 1;
        }
    }

    /// Takes keys out of a slot.
    pub fn remove(&mut self, slot: Slot, fingerprints: &[Fingerprint]) {
        for fingerprint in fingerprints {
            let Some(shard) = self.shards.get_mut(fingerprint.shard()) else { return };
            let Ok(at) = shard.binary_search(&Entry { fingerprint: *fingerprint, slot }) else { continue };
            shard.remove(at);
            self.memberships -= 1;
            let (before, room) = (shard.capacity(), shard.len() + (shard.len() / GROWTH_SHARE).max(GROWTH_MIN));
            if before > 2 * room {
                shard.shrink_to(room);
                self.bytes -= (before - shard.capacity()) * size_of::<Entry>();
            }
        }
    }

    /// From here on this slot is the list's. The one that was is nobody's.
    pub fn join(&mut self, list: Uuid, slot: Slot) -> Option<Slot> {
        let before = self.part(list);
        self.joined.insert(list, slot);
        self.set(slot, Some(list));
        before
    }

    /// The list is no more; its slot is nobody's.
    pub fn part(&mut self, list: Uuid) -> Option<Slot> {
        let slot = self.joined.remove(&list)?;
        self.set(slot, None);
        Some(slot)
    }

    /// A slot that is nobody's, and that everything was taken out of, may be used again.
    pub fn close(&mut self, slot: Slot) {
        self.free.push(slot);
    }

    /// The slot of a list.
    pub fn slot(&self, list: Uuid) -> Option<Slot> {
        self.joined.get(&list).copied()
    }

    /// All lists that hold a record's key.
    pub fn holding(&self, record: &Record, found: &mut Vec<Uuid>) {
        let Some(fingerprint) = self.fingerprints.of_record(record) else { return };
        let Some(shard) = self.shards.get(fingerprint.shard()) else { return };
        let first = shard.partition_point(|entry| entry.fingerprint < fingerprint);
        let own = shard[first..].iter().take_while(|entry| entry.fingerprint == fingerprint);
        found.extend(own.filter_map(|entry| *self.slots.get(entry.slot.0 as usize)?));
    }

    /// Whether a list holds a record's key.
    pub fn holds(&self, list: Uuid, record: &Record) -> bool {
        let fingerprint = || self.fingerprints.of_record(record);
        let entry = self.slot(list).and_then(|slot| Some(Entry { fingerprint: fingerprint()?, slot }));
        entry.is_some_and(|entry| self.shards.get(entry.fingerprint.shard()).is_some_and(|shard| shard.binary_search(&entry).is_ok()))
    }

    /// Keys in all lists, each as often as it is listed.
    pub fn memberships(&self) -> usize {
        self.memberships
    }

    /// Bytes that it occupies.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn set(&mut self, Slot(slot): Slot, list: Option<Uuid>) {
        if let Some(joined) = self.slots.get_mut(slot as usize) {
            *joined = list;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::cursor::Place;
    use ryggrad_schemas::LogRecord;

    const DOMAIN: KeyDomain = KeyDomain::Organisasjonsnummer;
    const TYPE: &str = "no.ryggrad.grunndata.virksomhet.endret.v1";

    fn record(ce_type: &str, key: Option<&str>) -> Record {
        let headers = [("ce_type", ce_type)].into_iter().collect();
        let (topic, key) = ("t".to_owned(), key.map(str::to_owned));
        let log = LogRecord { topic, partition: 0, offset: 0, timestamp_ms: 0, key, value: None, headers };
        Record::new(Place { topic: 1, partition: 0 }, log, false)
    }

    /// Keys that are valid, in ascending order.
    fn keys(count: usize) -> Vec<(String, u64)> {
        let all = (310_000_000_u64..).map(|number| (number.to_string(), number));
        all.filter(|(text, _)| DOMAIN.number(text).is_ok()).take(count).collect()
    }

    fn fresh() -> (Fingerprints, Index) {
        let fingerprints = Fingerprints::new([7; 32]);
        (fingerprints.clone(), Index::new(fingerprints))
    }

    #[test]
    fn it_knows_what_a_set_of_each_list_knows() {
        let (fingerprints, mut index) = fresh();
        let (all, lists) = (keys(60), [1, 2, 3].map(Uuid::from_u128));
        let mut model: BTreeMap<Uuid, BTreeSet<u64>> = BTreeMap::new();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for step in 0..4_000 {
            let mut below = |bound: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) % bound
            };
            let list = lists[below(3) as usize];
            let some: Vec<u64> = (0..below(12)).map(|_| all[below(60) as usize].1).collect();
            let prints: Vec<Fingerprint> = some.iter().map(|number| fingerprints.of(DOMAIN, *number)).collect();
            match (below(10), index.slot(list)) {
                (0, _) => {
                    let slot = index.open();
                    index.insert(slot, &prints);
                    if let Some(old) = index.join(list, slot) {
                        let left: Vec<Fingerprint> = model[&list].iter().map(|number| fingerprints.of(DOMAIN, *number)).collect();
                        index.remove(old, &left);
                        index.close(old);
                    }
                    model.insert(list, some.into_iter().collect());
                }
                (1, Some(_)) => {
                    let slot = index.part(list).unwrap();
                    let left = model.remove(&list).unwrap();
                    index.remove(slot, &left.iter().map(|number| fingerprints.of(DOMAIN, *number)).collect::<Vec<_>>());
                    index.close(slot);
                }
                (2..6, Some(slot)) => {
                    index.insert(slot, &prints);
                    model.get_mut(&list).unwrap().extend(some);
                }
                (_, Some(slot)) => {
                    index.remove(slot, &prints);
                    model.get_mut(&list).unwrap().retain(|number| !some.contains(number));
                }
                (_, None) => {}
            }
            assert_eq!(index.memberships(), model.values().map(BTreeSet::len).sum::<usize>(), "step {step}");
            let (text, number) = &all[below(60) as usize];
            let (record, mut found) = (record(TYPE, Some(text)), Vec::new());
            index.holding(&record, &mut found);
            found.sort_unstable();
            let expected: Vec<Uuid> = model.iter().filter(|(_, keys)| keys.contains(number)).map(|(list, _)| *list).collect();
            assert_eq!(found, expected, "step {step}");
            assert!(lists.iter().all(|list| index.holds(*list, &record) == expected.contains(list)), "step {step}");
        }
        assert!(index.slots.len() <= 4, "slots are used again");
    }

    #[test]
    fn only_keys_of_the_types_own_domain_are_held() {
        let (fingerprints, mut index) = fresh();
        let (slot, list, (key, number)) = (index.open(), Uuid::from_u128(1), keys(1).remove(0));
        index.insert(slot, &[fingerprints.of(DOMAIN, number)]);
        assert!(!index.holds(list, &record(TYPE, Some(&key))), "it is not joined yet");
        index.join(list, slot);
        assert!(index.holds(list, &record(TYPE, Some(&key))));
        for (ce_type, key) in [("no.ukjent.v1", Some(key.as_str())), (TYPE, None), (TYPE, Some("31000000")), (TYPE, Some(""))] {
            let mut found = Vec::new();
            index.holding(&record(ce_type, key), &mut found);
            assert!(found.is_empty() && !index.holds(list, &record(ce_type, key)), "{ce_type}");
        }
        assert_ne!(fingerprints.of(DOMAIN, number), Fingerprints::new([8; 32]).of(DOMAIN, number));
        assert!(!format!("{fingerprints:?} {:?}", fingerprints.of(DOMAIN, number)).contains('7'));
    }

    #[test]
    fn a_membership_costs_what_is_promised() {
        let (fingerprints, mut index) = fresh();
        let slot = index.open();
        let prints: Vec<Fingerprint> = (0..2_000_000).map(|number| fingerprints.of(DOMAIN, number)).collect();
        index.insert(slot, &prints);
        assert_eq!(index.memberships(), prints.len());
        let each = index.bytes() as f64 / prints.len() as f64;
        assert!(each <= Index::MEMBERSHIP_BYTES as f64, "{each}");
        index.remove(slot, &prints);
        assert_eq!(index.memberships(), 0);
        assert!(index.bytes() < 4_000_000, "{} bytes for nothing", index.bytes());
    }
}
