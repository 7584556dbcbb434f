//! One event and the records that it becomes: itself and a tombstone, later a mark of removal.
//!
//! CloudEvents in Kafka's binary mode. The tombstone has the event's id, so that it is never
//! taken for an event of its own. Must never carry a state out of a removal.

use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::topics;
use ryggrad_schemas::cloudevents::{AVRO, Attributes, STATE_HASH_HEADER};
use ryggrad_schemas::fingerprint::Fingerprint;
use ryggrad_schemas::virksomhet::Endringstype;
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
    /// CloudEvents attributes.
    pub attributes: Attributes,
    /// Framed Avro.
    pub value: Vec<u8>,
    /// Fingerprint of the state, if it carries one.
    pub state_hash: Option<Fingerprint>,
    /// What follows.
    pub consequence: Consequence,
}

impl Event {
    /// The extension attribute `endringstype`, for metrics.
    pub fn endringstype(&self) -> &str {
        self.attributes.extensions.get("endringstype").map_or("", String::as_str)
    }

    /// The records, in the order in which they must be published.
    pub fn into_records(self) -> Vec<EncodedRecord> {
        let mut headers = self.attributes.into_headers(AVRO);
        headers.extend(self.state_hash.map(|hash| (STATE_HASH_HEADER.to_owned(), hash.to_string())));
        let event = EncodedRecord { topic: self.topic, partition: None, key: self.key, value: Some(self.value), headers };
        let tombstone = (self.consequence != Consequence::Lives).then(|| EncodedRecord {
            topic: event.topic.clone(),
            partition: None,
            key: event.key.clone(),
            value: None,
            headers: event.headers.clone(),
        });
        std::iter::once(event).chain(tombstone).collect()
    }
}

/// Whether a record is an event that says that its key must be forgotten.
pub fn is_removal(record: &EncodedRecord) -> bool {
    record.value.is_some() && header(record, ENDRINGSTYPE_HEADER) == Some(Endringstype::Fjernet.symbol())
}

/// The mark of a removal, once it is known where its event stands: all that came before it for
/// the same key is to be withheld at once.
pub fn removal_mark(record: &EncodedRecord, partition: i32, offset: i64) -> Option<EncodedRecord> {
    if !is_removal(record) {
        return None;
    }
    let EncodedRecord { topic, key, .. } = record;
    let value = json!({"topic": topic, "key": key, "partition": partition, "offset": offset, "id": header(record, "ce_id")});
    Some(EncodedRecord {
        topic: topics::REMOVED.to_owned(),
        partition: None,
        key: format!("{topic}/{key}"),
        value: Some(value.to_string().into_bytes()),
        headers: Vec::new(),
    })
}

fn header<'a>(record: &'a EncodedRecord, name: &str) -> Option<&'a str> {
    record.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
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
    use std::collections::BTreeMap;

    use super::*;

    fn event(consequence: Consequence) -> Event {
        let attributes = Attributes {
            id: "5b0e".to_owned(),
            source: "urn:ryggrad:test:feed".to_owned(),
            ce_type: "no.ryggrad.test.v1".to_owned(),
            subject: Some("312345676".to_owned()),
            time: None,
            extensions: BTreeMap::from([("endringstype".to_owned(), "NY".to_owned())]),
        };
        let (topic, key) = ("test.v1".to_owned(), "312345676".to_owned());
        Event { topic, key, attributes, value: vec![1], state_hash: Some(Fingerprint(0xabcd)), consequence }
    }

    #[test]
    fn an_event_becomes_one_record_with_its_attributes_and_fingerprint() {
        let event = event(Consequence::Lives);
        assert_eq!(event.endringstype(), "NY");
        let records = event.into_records();
        assert_eq!(records.len(), 1);
        for header in [("ce_id", "5b0e"), ("ce_endringstype", "NY"), ("content-type", AVRO), (STATE_HASH_HEADER, "000000000000abcd")] {
            assert!(records[0].headers.contains(&(header.0.to_owned(), header.1.to_owned())), "{header:?}");
        }
    }

    #[test]
    fn an_end_is_followed_by_a_tombstone_with_the_same_key_and_headers() {
        let records = event(Consequence::Ends).into_records();
        assert_eq!(records.len(), 2);
        assert_eq!(records[1], EncodedRecord { value: None, ..records[0].clone() });
    }

    #[test]
    fn a_removal_is_marked_once_it_is_known_where_it_stands() {
        let mut removed = event(Consequence::Removed);
        removed.attributes.extensions.insert("endringstype".to_owned(), "FJERNET".to_owned());
        let records = removed.into_records();
        assert_eq!((records.len(), &records[1].value), (2, &None));
        let marks: Vec<_> = records.iter().filter_map(|record| removal_mark(record, 3, 17)).collect();
        let [mark] = marks.as_slice() else { panic!("{marks:?}") };
        assert_eq!((mark.topic.as_str(), mark.key.as_str()), ("ryggrad.removed", "test.v1/312345676"));
        let expected = br#"{"id":"5b0e","key":"312345676","offset":17,"partition":3,"topic":"test.v1"}"#;
        assert_eq!(mark.value.as_deref(), Some(expected.as_slice()));
        for other in [Consequence::Lives, Consequence::Ends] {
            assert!(event(other).into_records().iter().all(|record| removal_mark(record, 3, 17).is_none()));
        }
    }
}
