//! What the topic says about each key, packed: where its latest state stands and its fingerprint.
//!
//! About 36 bytes a key, so that millions fit. Marks say what a dump showed. Must never hold a
//! state, and never take two keys for one: keys are kept whole.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use hashbrown::HashTable;
use ryggrad_schemas::fingerprint::Fingerprint;

/// Where the latest state of a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// What a dump showed of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing yet.
    Missing,
    /// The state that the topic has.
    Same,
    /// Another state.
    Different,
    /// The topic does not have it.
    New,
}

/// What a row means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The topic does not have the key.
    New,
    /// The topic has this state.
    Same,
    /// The topic may have another state; it stands there.
    Different(Place),
    /// The dump has shown the key before.
    Twice,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    key_at: u32,
    key_bytes: u16,
    partition: u16,
    /// The mark in the two topmost bits, the offset below.
    marked_offset: u64,
    fingerprint: u64,
}

const MARK_SHIFT: u32 = 62;
const OFFSET_MASK: u64 = (1 << MARK_SHIFT) - 1;

impl Entry {
    fn mark(&self) -> Mark {
        match self.marked_offset >> MARK_SHIFT {
            0 => Mark::Missing,
            1 => Mark::Same,
            2 => Mark::Different,
            _ => Mark::New,
        }
    }

    fn set_mark(&mut self, mark: Mark) {
        let bits = match mark {
            Mark::Missing => 0,
            Mark::Same => 1,
            Mark::Different => 2,
            Mark::New => 3,
        };
        self.marked_offset = (self.marked_offset & OFFSET_MASK) | (bits << MARK_SHIFT);
    }

    fn place(&self) -> Place {
        Place { partition: i32::from(self.partition), offset: (self.marked_offset & OFFSET_MASK) as i64 }
    }
}

/// A key or a place that the index has no room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A key longer than is kept.
    #[error("a key has {bytes} bytes, {} are kept", u16::MAX)]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// All keys together are too long.
    #[error("the keys of the topic do not fit into {} bytes", u32::MAX)]
    Keys,
    /// A partition number that is not kept.
    #[error("partition {partition} is out of range")]
    Partition {
        /// The number.
        partition: i32,
    },
}

/// The index.
#[derive(Debug, Default)]
pub struct Index {
    table: HashTable<Entry>,
    keys: Vec<u8>,
    hasher: BuildHasherDefault<DefaultHasher>,
}

impl Index {
    /// With room for about so many keys.
    pub fn with_capacity(keys: usize) -> Self {
        // A tenth more, for what is new.
        Self { table: HashTable::with_capacity(keys + keys / 10), ..Self::default() }
    }

    /// Takes in that a key's latest state stands there. Without a fingerprint the state must be
    /// read to be compared.
    pub fn put(&mut self, key: &str, place: Place, fingerprint: Option<Fingerprint>) -> Result<(), Unfit> {
        let partition = u16::try_from(place.partition).map_err(|_| Unfit::Partition { partition: place.partition })?;
        let (marked_offset, fingerprint) = (place.offset.cast_unsigned() & OFFSET_MASK, fingerprint.map_or(0, |found| found.0));
        match self.entry_mut(key) {
            Some(entry) => *entry = Entry { partition, marked_offset, fingerprint, ..*entry },
            None => self.insert(key, partition, marked_offset, fingerprint)?,
        }
        Ok(())
    }

    /// Takes in that a key has ended.
    pub fn remove(&mut self, key: &str) {
        let (hash, keys) = (self.hasher.hash_one(key.as_bytes()), &self.keys);
        if let Ok(found) = self.table.find_entry(hash, |entry| key_of(keys, entry) == key.as_bytes()) {
            found.remove();
        }
    }

    /// Compares a row with the topic, and marks the key.
    pub fn see(&mut self, key: &str, fingerprint: Fingerprint) -> Result<Sight, Unfit> {
        let Some(entry) = self.entry_mut(key) else {
            self.insert(key, 0, 3 << MARK_SHIFT, fingerprint.0)?;
            return Ok(Sight::New);
        };
        if entry.mark() != Mark::Missing {
            return Ok(Sight::Twice);
        }
        let same = entry.fingerprint == fingerprint.0;
        entry.set_mark(if same { Mark::Same } else { Mark::Different });
        Ok(if same { Sight::Same } else { Sight::Different(entry.place()) })
    }

    /// Keys in it, those that only the dump has included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Where keys with a mark stand, sorted by place; those of new keys mean nothing.
    pub fn places(&self, mark: Mark) -> Places {
        let mut found: Vec<Entry> = self.table.iter().filter(|entry| entry.mark() == mark).copied().collect();
        found.sort_unstable_by_key(|entry| (entry.partition, entry.marked_offset & OFFSET_MASK, entry.key_at));
        Places(found)
    }

    /// Bytes that it occupies.
    pub fn size_bytes(&self) -> usize {
        self.table.allocation_size() + self.keys.capacity()
    }

    fn insert(&mut self, key: &str, partition: u16, marked_offset: u64, fingerprint: u64) -> Result<(), Unfit> {
        let key_bytes = u16::try_from(key.len()).map_err(|_| Unfit::Key { bytes: key.len() })?;
        let key_at = u32::try_from(self.keys.len()).map_err(|_| Unfit::Keys)?;
        self.keys.extend_from_slice(key.as_bytes());
        let (keys, hasher) = (&self.keys, &self.hasher);
        let entry = Entry { key_at, key_bytes, partition, marked_offset, fingerprint };
        self.table.insert_unique(hasher.hash_one(key.as_bytes()), entry, |entry| hasher.hash_one(key_of(keys, entry)));
        Ok(())
    }

    fn entry_mut(&mut self, key: &str) -> Option<&mut Entry> {
        let (hash, keys) = (self.hasher.hash_one(key.as_bytes()), &self.keys);
        self.table.find_mut(hash, |entry| key_of(keys, entry) == key.as_bytes())
    }

    /// The key at a place that [`places`](Self::places) gave.
    pub fn key(&self, places: &Places, nth: usize) -> Option<&str> {
        std::str::from_utf8(key_of(&self.keys, places.0.get(nth)?)).ok()
    }
}

/// Entries with one mark, in the topic's order.
#[derive(Debug)]
pub struct Places(Vec<Entry>);

impl Places {
    /// How many.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the nth stands.
    pub fn place(&self, nth: usize) -> Option<Place> {
        self.0.get(nth).map(Entry::place)
    }
}

fn key_of<'k>(keys: &'k [u8], entry: &Entry) -> &'k [u8] {
    let from = entry.key_at as usize;
    keys.get(from..from + usize::from(entry.key_bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn place(offset: i64) -> Place {
        Place { partition: 3, offset }
    }

    #[test]
    fn a_row_is_new_the_same_different_or_there_twice() {
        let mut index = Index::default();
        for (key, offset, fingerprint) in
            [("a", 1, Some(1)), ("b", 2, Some(2)), ("c", 3, None), ("a", 9, Some(7)), ("d", 4, Some(4)), ("e", 5, Some(5))]
        {
            index.put(key, place(offset), fingerprint.map(Fingerprint)).unwrap();
        }
        index.remove("d");
        index.remove("nobody");
        for (key, fingerprint, expected) in [
            ("a", 7, Sight::Same),
            ("b", 7, Sight::Different(place(2))),
            ("c", 7, Sight::Different(place(3))),
            ("d", 4, Sight::New),
            ("a", 7, Sight::Twice),
            ("b", 2, Sight::Twice),
            ("d", 4, Sight::Twice),
        ] {
            assert_eq!(index.see(key, Fingerprint(fingerprint)), Ok(expected), "{key}");
        }
        let keys = |mark| {
            let places = index.places(mark);
            (0..places.len()).map(|nth| index.key(&places, nth).unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(
            (keys(Mark::Missing), keys(Mark::Same), keys(Mark::Different), keys(Mark::New)),
            (vec!["e".to_owned()], vec!["a".to_owned()], vec!["b".to_owned(), "c".to_owned()], vec!["d".to_owned()],)
        );
        assert_eq!(index.len(), 5);
    }

    #[test]
    fn a_million_keys_stay_apart_in_little_memory() {
        let mut index = Index::default();
        let keys = 1_000_000_u64;
        for number in 0..keys {
            index.put(&(800_000_000 + number).to_string(), place(number.cast_signed()), Some(Fingerprint(number))).unwrap();
        }
        for number in (0..keys).step_by(997) {
            let sight = index.see(&(800_000_000 + number).to_string(), Fingerprint(number + 1));
            assert_eq!(sight, Ok(Sight::Different(place(number.cast_signed()))));
        }
        assert_eq!(index.len(), 1_000_000);
        assert!(index.size_bytes() < 80_000_000, "{} bytes", index.size_bytes());
    }
}
