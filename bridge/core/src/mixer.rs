//! A cheap hasher for keys that nobody outside chooses: offsets, attempts, lanes.
//!
//! Must never hash what a stranger wrote, who could make all keys meet.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map with such keys.
pub(crate) type MixedMap<K, V> = HashMap<K, V, BuildHasherDefault<Mixer>>;

/// One multiplication a word.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u16(&mut self, number: u16) {
        self.write_u64(u64::from(number));
    }

    fn write_i32(&mut self, number: i32) {
        self.write_u64(u64::from(number.cast_unsigned()));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn finish(&self) -> u64 {
        // The map takes its buckets from the low bits, which a multiplication mixes least.
        self.0 ^ (self.0 >> 32)
    }
}
