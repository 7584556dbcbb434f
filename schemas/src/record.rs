//! The two shapes of a Kafka record: about to be written, and as read.
//!
//! They know nothing of a client library, so that pure crates can speak of records.

use crate::headers::Headers;

/// Key of the tombstones that let idle partitions roll: no event, to be passed over. No registry
/// has such a key.
pub const ROLL_KEY: &str = "ryggrad.roll";

/// A record ready to be produced. Headers keep their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRecord {
    /// Topic name.
    pub topic: String,
    /// A fixed partition, or `None` to hash the key (murmur2, as Java does).
    pub partition: Option<i32>,
    /// Plain string key. Never a national identity number.
    pub key: String,
    /// Framed Avro or JSON; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers.
    pub headers: Headers,
}

impl EncodedRecord {
    /// Bytes of key, value and headers: what a byte limit should count.
    pub fn size_bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + self.headers.size_bytes()
    }
}

/// A record as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Topic name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Offset. Offsets are never contiguous: markers and compaction leave gaps.
    pub offset: i64,
    /// Log append time, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// Key, if it is there and is UTF-8.
    pub key: Option<String>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers whose values are UTF-8.
    pub headers: Headers,
}

impl LogRecord {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// Bytes that this record occupies in memory, near enough for a byte limit.
    pub fn size_bytes(&self) -> usize {
        self.key.as_ref().map_or(0, String::len) + self.value.as_ref().map_or(0, Vec::len) + self.headers.size_bytes()
    }
}
