//! One event and the records that it becomes: itself, a tombstone, a mark of removal.
//!
//! CloudEvents in Kafka's binary mode. The tombstone has the event's id, so that it is never
//! taken for an event of its own. Must never carry a state out of a removal.

use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::topics;
use ryggrad_schemas::cloudevents::{AVRO, Attributes, STATE_HASH_HEADER};
use serde_json::json;

use crate::quarantine::Reason;

/// The most that one record may hold. Kafka's own limit is a megabyte; above it, publishing
/// would fail for ever.
pub const RECORD_BYTES_MAX: usize = 900_000;

/// What an event means for its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// The key lives on with this state.
    Lives,
    /// The key is gone: a tombstone follows.
    Ends,
    /// The key must be forgotten for legal reasons: a tombstone and a mark of removal follow.
    Removed {
        /// The feed position that says so.
        position: u64,
    },
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
    pub state_hash: Option<String>,
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
        let mut headers = self.attributes.to_headers(AVRO);
        headers.extend(self.state_hash.map(|hash| (STATE_HASH_HEADER.to_owned(), hash)));
        let removal = match self.consequence {
            Consequence::Removed { position } => Some(removal(&self.topic, &self.key, position, &self.attributes.id)),
            _ => None,
        };
        let event = EncodedRecord { topic: self.topic, partition: None, key: self.key, value: Some(self.value), headers };
        let tombstone = (self.consequence != Consequence::Lives).then(|| EncodedRecord { value: None, ..event.clone() });
        [Some(event), tombstone, removal].into_iter().flatten().collect()
    }
}

fn removal(topic: &str, key: &str, position: u64, id: &str) -> EncodedRecord {
    let value = json!({"topic": topic, "key": key, "position": position, "id": id});
    EncodedRecord {
        topic: topics::REMOVED.to_owned(),
        partition: None,
        key: format!("{topic}/{key}"),
        value: Some(value.to_string().into_bytes()),
        headers: Vec::new(),
    }
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
        Event { topic, key, attributes, value: vec![1], state_hash: Some("abcd".to_owned()), consequence }
    }

    #[test]
    fn an_event_becomes_one_record_with_its_attributes_and_fingerprint() {
        let event = event(Consequence::Lives);
        assert_eq!(event.endringstype(), "NY");
        let records = event.into_records();
        assert_eq!(records.len(), 1);
        for header in [("ce_id", "5b0e"), ("ce_endringstype", "NY"), ("content-type", AVRO), (STATE_HASH_HEADER, "abcd")] {
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
    fn a_removal_is_marked_besides() {
        let records = event(Consequence::Removed { position: 17 }).into_records();
        assert_eq!(records.len(), 3);
        assert_eq!(records[1].value, None);
        assert_eq!((records[2].topic.as_str(), records[2].key.as_str()), ("ryggrad.removed", "test.v1/312345676"));
        let expected = br#"{"id":"5b0e","key":"312345676","position":17,"topic":"test.v1"}"#;
        assert_eq!(records[2].value.as_deref(), Some(expected.as_slice()));
    }
}
