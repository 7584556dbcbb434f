//! One event and the records that it becomes: itself and a tombstone, later a mark of removal.
//!
//! CloudEvents in Kafka's binary mode. The tombstone has the event's id, so that it is never
//! taken for an event of its own. Must never carry a state out of a removal.

use ryggrad_schemas::catalogue::topics;
use ryggrad_schemas::cloudevents::{AVRO, BorrowedAttributes, STATE_HASH_HEADER};
use ryggrad_schemas::fingerprint::Fingerprint;
use ryggrad_schemas::virksomhet::Endringstype;
use ryggrad_schemas::{EncodedRecord, Headers};
use serde_json::json;

use crate::quarantine::Reason;

/// The most that one record may hold. Kafka's own limit is a megabyte; above it, publishing
/// would fail for ever.
pub const RECORD_BYTES_MAX: usize = 900_000;

const ENDRINGSTYPE_HEADER: &str = "ce_endringstype";

/// What an event means for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// The key lives on with this state.
    Lives,
    /// The key is gone: a tombstone follows.
    Ends,
    /// The key must be forgotten for legal reasons: a tombstone follows, and a mark of removal
    /// once it is known where the event stands.
    Removed,
}

/// An event, encoded, with what follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Topic.
    pub topic: String,
    /// Record key.
    pub key: String,
    /// CloudEvents attributes and the state's fingerprint, as headers.
    pub headers: Headers,
    /// Framed Avro.
    pub value: Vec<u8>,
    /// What follows.
    pub consequence: Consequence,
}

impl Event {
    /// The extension attribute `endringstype`, for metrics.
    pub fn endringstype(&self) -> &str {
        self.headers.get(ENDRINGSTYPE_HEADER).unwrap_or_default()
    }

    /// The headers of an event with these attributes that carries a state with this fingerprint.
    pub fn headers(attributes: &BorrowedAttributes<'_>, state_hash: Option<Fingerprint>) -> Headers {
        let mut headers = attributes.to_headers(AVRO);
        state_hash.into_iter().for_each(|hash| headers.push(STATE_HASH_HEADER, &hash.to_string()));
        headers
    }

    /// The records, in the order in which they must be published.
    pub fn into_records(self) -> impl Iterator<Item = EncodedRecord> {
        let Self { topic, key, headers, value, .. } = self;
        let event = EncodedRecord { topic, partition: None, key, value: Some(value), headers };
        let tombstone = (self.consequence != Consequence::Lives).then(|| EncodedRecord {
            topic: event.topic.clone(),
            partition: None,
            key: event.key.clone(),
            value: None,
            headers: event.headers.clone(),
        });
        std::iter::once(event).chain(tombstone)
    }
}

/// Whether a record is an event that says that its key must be forgotten.
pub fn is_removal(record: &EncodedRecord) -> bool {
    record.value.is_some() && record.headers.get(ENDRINGSTYPE_HEADER) == Some(Endringstype::Fjernet.symbol())
}

/// The mark of a removal, once it is known where its event stands: all that came before it for
/// the same key is to be withheld at once.
pub fn removal_mark(record: &EncodedRecord, partition: i32, offset: i64) -> Option<EncodedRecord> {
    if !is_removal(record) {
        return None;
    }
    let EncodedRecord { topic, key, .. } = record;
    let value = json!({"topic": topic, "key": key, "partition": partition, "offset": offset, "id": record.headers.get("ce_id")});
    Some(EncodedRecord {
        topic: topics::REMOVED.to_owned(),
        partition: None,
        key: format!("{topic}/{key}"),
        value: Some(value.to_string().into_bytes()),
        headers: Headers::default(),
    })
}

/// An item that became no event, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmapped {
    /// Why.
    pub reason: Reason,
    /// The answer that could not be used; `None` where it is the item itself that says most.
    pub raw: Option<Vec<u8>>,
}

impl Unmapped {
    /// For a reason, with nothing to show but the item.
    pub fn new(reason: Reason) -> Self {
        Self { reason, raw: None }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]
    use super::*;

    fn event(endringstype: &str, consequence: Consequence) -> Event {
        let attributes = BorrowedAttributes {
            id: "5b0e",
            source: "urn:ryggrad:test:feed",
            ce_type: "no.ryggrad.test.v1",
            subject: Some("312345676"),
            time: None,
            extensions: &[("endringstype", endringstype)],
        };
        let (topic, key, headers) = ("test.v1".to_owned(), "312345676".to_owned(), Event::headers(&attributes, Some(Fingerprint(0xabcd))));
        Event { topic, key, headers, value: vec![1], consequence }
    }

    #[test]
    fn an_event_becomes_one_record_with_its_attributes_and_fingerprint() {
        let event = event("NY", Consequence::Lives);
        assert_eq!(event.endringstype(), "NY");
        let records: Vec<_> = event.into_records().collect();
        assert_eq!(records.len(), 1);
        for header in [("ce_id", "5b0e"), ("ce_endringstype", "NY"), ("content-type", AVRO), (STATE_HASH_HEADER, "000000000000abcd")] {
            assert_eq!(records[0].headers.get(header.0), Some(header.1));
        }
    }

    #[test]
    fn an_end_is_followed_by_a_tombstone_with_the_same_key_and_headers() {
        let records: Vec<_> = event("SLETTET", Consequence::Ends).into_records().collect();
        assert_eq!(records.len(), 2);
        assert_eq!(records[1], EncodedRecord { value: None, ..records[0].clone() });
    }

    #[test]
    fn a_removal_is_marked_once_it_is_known_where_it_stands() {
        let records: Vec<_> = event("FJERNET", Consequence::Removed).into_records().collect();
        assert_eq!((records.len(), &records[1].value), (2, &None));
        let marks: Vec<_> = records.iter().filter_map(|record| removal_mark(record, 3, 17)).collect();
        let [mark] = marks.as_slice() else { panic!("{marks:?}") };
        assert_eq!((mark.topic.as_str(), mark.key.as_str()), ("ryggrad.removed", "test.v1/312345676"));
        let expected = br#"{"id":"5b0e","key":"312345676","offset":17,"partition":3,"topic":"test.v1"}"#;
        assert_eq!(mark.value.as_deref(), Some(expected.as_slice()));
        for other in [Consequence::Lives, Consequence::Ends] {
            assert!(event("NY", other).into_records().all(|record| removal_mark(&record, 3, 17).is_none()));
        }
    }
}
