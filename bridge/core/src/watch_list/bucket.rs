//! How keys are stored: spread over buckets by their fingerprints, each a record of its own.
//!
//! A bucket's name says nothing of the keys in it, and a change rewrites its own bucket alone.

use uuid::Uuid;

/// Keys in a bucket, about, when a list is stored anew.
pub const BUCKET_KEYS_USUAL: usize = 512;
/// Keys in a bucket, on average, from which on the list is stored anew in more of them.
pub const BUCKET_KEYS_MAX: usize = 4 * BUCKET_KEYS_USUAL;
/// Bytes of a key in a bucket, for all domains.
pub const KEY_BYTES: usize = 5;

/// What the bytes of a bucket begin with.
const VERSION: u8 = 1;

/// Into how many buckets so many keys are spread: a power of two, or none.
pub fn buckets_for(keys_count: usize) -> u32 {
    if keys_count == 0 { 0 } else { u32::try_from(keys_count.div_ceil(BUCKET_KEYS_USUAL).next_power_of_two()).unwrap_or(1 << 31) }
}

/// Whether so many keys are too many for these buckets.
pub fn overflows(keys_count: usize, buckets: u32) -> bool {
    keys_count > BUCKET_KEYS_MAX * buckets as usize
}

/// Keys as a bucket's bytes, before they are sealed.
pub fn encode(keys: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + keys.len() * KEY_BYTES);
    bytes.push(VERSION);
    keys.iter().for_each(|key| bytes.extend_from_slice(&key.to_be_bytes()[8 - KEY_BYTES..]));
    bytes
}

/// The keys in a bucket's bytes, if they are such.
pub fn decode(bytes: &[u8]) -> Option<Vec<u64>> {
    let body = bytes.strip_prefix(&[VERSION])?;
    let key = |bytes: &[u8]| bytes.iter().fold(0_u64, |key, byte| key << 8 | u64::from(*byte));
    body.len().is_multiple_of(KEY_BYTES).then(|| body.chunks_exact(KEY_BYTES).map(key).collect())
}

/// What a record of the topic is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordKey {
    /// A list without its keys: the commit point.
    List(Uuid),
    /// A bucket of keys of one generation of a list.
    Bucket {
        /// Which list.
        list: Uuid,
        /// Which generation.
        generation: u64,
        /// Which bucket.
        bucket: u32,
    },
}

impl RecordKey {
    /// Reads a record's key.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((list, rest)) = text.split_once('/') else { return text.parse().ok().map(Self::List) };
        let (generation, bucket) = rest.split_once('/')?;
        Some(Self::Bucket { list: list.parse().ok()?, generation: generation.parse().ok()?, bucket: bucket.parse().ok()? })
    }
}

impl std::fmt::Display for RecordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::List(list) => write!(f, "{list}"),
            Self::Bucket { list, generation, bucket } => write!(f, "{list}/{generation}/{bucket}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_comes_back_and_nothing_else_is_read() {
        for keys in [vec![], vec![0], vec![7, 312_345_676, (1 << 40) - 1]] {
            assert_eq!(decode(&encode(&keys)), Some(keys));
        }
        for odd in [&[][..], &[2], &[1, 0, 0]] {
            assert_eq!(decode(odd), None);
        }
        let bucket = RecordKey::Bucket { list: Uuid::from_u128(7), generation: 3, bucket: 12 };
        for key in [RecordKey::List(Uuid::from_u128(7)), bucket] {
            assert_eq!(RecordKey::parse(&key.to_string()), Some(key));
        }
        for odd in ["", "x", "00000000-0000-0000-0000-000000000007/3", "00000000-0000-0000-0000-000000000007/3/x"] {
            assert_eq!(RecordKey::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn buckets_grow_with_the_list_and_not_with_each_key() {
        for (keys, buckets) in [(0, 0), (1, 1), (512, 1), (513, 2), (10_000, 32), (1_000_000, 2_048)] {
            assert_eq!(buckets_for(keys), buckets, "{keys}");
            assert!(!overflows(keys, buckets), "{keys}");
        }
        assert!(overflows(1, 0) && overflows(2_049, 1) && !overflows(2_048, 1));
    }
}
