//! What could not be understood, on its way to `ryggrad.quarantine`.
//!
//! The content is sealed by the shell before it becomes a record. A reason is one of a fixed
//! set of texts and must never quote the content.

use std::collections::BTreeSet;

use ryggrad_schemas::catalogue::{Source, topics};
use ryggrad_schemas::{EncodedRecord, LogRecord};

use crate::event::RECORD_BYTES_MAX;

/// Why something was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reason {
    /// Short name, for metrics.
    pub code: &'static str,
    /// For people.
    pub text: &'static str,
}

/// The content had to be left out, since Kafka takes no record of that size.
pub const TOO_LARGE_TO_KEEP: Reason =
    Reason { code: "too-large-to-keep", text: "it could not be used, and is too large to be kept; ask upstream for the position" };

/// One thing set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Where in the feed it stood; where it has no readable position, the one before it.
    pub position: u64,
    /// The key of what it is about, if that is known. Never a national identity number.
    pub subject: Option<String>,
    /// Why.
    pub reason: Reason,
    /// What upstream sent, not yet sealed.
    pub raw: Vec<u8>,
}

impl Quarantined {
    /// Sets content aside. Too much of it is left out rather than let it stop the feed.
    pub fn new(position: u64, reason: Reason, raw: Vec<u8>) -> Self {
        if raw.len() > RECORD_BYTES_MAX {
            return Self { position, subject: None, reason: TOO_LARGE_TO_KEEP, raw: Vec::new() };
        }
        Self { position, subject: None, reason, raw }
    }

    /// The same, about a key.
    pub fn about(self, key: &str) -> Self {
        Self { subject: Some(key.to_owned()), ..self }
    }

    /// The record's key, which is also the context that its content is sealed to.
    pub fn key(&self, source: &Source, feed: &str) -> String {
        format!("{}/{feed}/{}", source.name, self.position)
    }

    /// The record, around the sealed content.
    pub fn to_record(&self, source: &Source, feed: &str, sealed: Vec<u8>) -> EncodedRecord {
        let position = self.position.to_string();
        let headers = [("source", source.name.as_str()), ("feed", feed), ("position", &position), ("reason", self.reason.text)];
        EncodedRecord {
            topic: topics::QUARANTINE.to_owned(),
            partition: None,
            key: self.key(source, feed),
            value: Some(sealed),
            headers: headers.into_iter().chain(self.subject.as_deref().map(|key| ("subject", key))).collect(),
        }
    }
}

/// Where a record of the quarantine stood, and how it is marked as dealt with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Offset in the quarantine.
    pub offset: i64,
    /// Record key, which is also what its content is sealed to.
    pub key: String,
    /// The feed, or the track of its dump.
    pub feed: String,
    /// Where in it.
    pub position: u64,
    /// What it is about, if that was known.
    pub subject: Option<String>,
    /// Why it was set aside.
    pub reason: String,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

const SETTLED_HEADER: &str = "settles";

impl Entry {
    /// Reads a record of the quarantine; `None` for one of another source, or a mark.
    pub fn read(source: &Source, record: &LogRecord) -> Option<Self> {
        let is_of_source = record.header("source") == Some(&source.name);
        record.value.as_ref().filter(|_| is_of_source)?;
        Some(Self {
            offset: record.offset,
            key: record.key.clone()?,
            feed: record.header("feed")?.to_owned(),
            position: record.header("position")?.parse().ok()?,
            subject: record.header("subject").map(str::to_owned),
            reason: record.header("reason").unwrap_or_default().to_owned(),
            at_ms: record.timestamp_ms,
        })
    }

    /// The mark that says that it was dealt with.
    pub fn settled(&self, source: &Source) -> EncodedRecord {
        let headers = [("source", source.name.clone()), (SETTLED_HEADER, self.offset.to_string())];
        EncodedRecord {
            topic: topics::QUARANTINE.to_owned(),
            partition: None,
            key: self.key.clone(),
            value: None,
            headers: headers.into_iter().collect(),
        }
    }
}

/// What in a quarantine is still to be dealt with, oldest first.
pub fn open_entries(source: &Source, records: &[LogRecord]) -> Vec<Entry> {
    let settled = |record: &LogRecord| record.header(SETTLED_HEADER)?.parse::<i64>().ok();
    let settled: BTreeSet<i64> =
        records.iter().filter(|record| record.header("source") == Some(&source.name)).filter_map(settled).collect();
    records.iter().filter_map(|record| Entry::read(source, record)).filter(|entry| !settled.contains(&entry.offset)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use ryggrad_schemas::Catalogue;

    use super::*;

    const REASON: Reason = Reason { code: "test", text: "a test" };

    #[test]
    fn a_quarantine_record_says_where_and_why_and_holds_only_what_was_sealed() {
        let source = Catalogue::built_in().source("enhetsregisteret").unwrap();
        let quarantined = Quarantined::new(17, REASON, b"secret".to_vec());
        let record = quarantined.to_record(source, "enheter", b"sealed".to_vec());
        assert_eq!((record.topic.as_str(), record.key.as_str()), ("ryggrad.quarantine", "enhetsregisteret/enheter/17"));
        assert_eq!(record.value.as_deref(), Some(b"sealed".as_slice()));
        let expected = [("source", "enhetsregisteret"), ("feed", "enheter"), ("position", "17"), ("reason", "a test")];
        assert_eq!(record.headers, expected.into_iter().collect());
    }

    #[test]
    fn content_that_no_record_can_hold_is_left_out() {
        let quarantined = Quarantined::new(1, REASON, vec![0; RECORD_BYTES_MAX + 1]);
        assert_eq!((quarantined.reason, quarantined.raw.len()), (TOO_LARGE_TO_KEEP, 0));
    }
}
