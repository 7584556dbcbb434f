//! A record of the log as an event: attributes, and data decoded by its type.
//!
//! Must never fail on what a foreign writer put into a topic: what cannot be understood becomes
//! an [`Undecodable`] with its place, and never quotes the bytes.

use std::fmt;

use ryggrad_schemas::avro::{self, AvroEvent, DecodeError};
use ryggrad_schemas::cloudevents::{Attributes, NotACloudEvent};
use ryggrad_schemas::document::ToDocument;
use ryggrad_schemas::virksomhet::VirksomhetEndret;
use ryggrad_schemas::{Catalogue, LogRecord};
use serde_json::{Value, json};

/// Where a record stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Topic name.
    pub topic: String,
    /// Partition number.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} offset {}", self.topic, self.partition, self.offset)
    }
}

/// What an event carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Payload {
    /// No value: the key is gone and compaction may forget it.
    Tombstone,
    /// A change of an enhet or underenhet. Boxed, since it is large and the others are not.
    Virksomhet(Box<VirksomhetEndret>),
    /// Data of a type that has no Rust type here.
    Json(Value),
}

/// One event.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Where it stands.
    pub place: Place,
    /// Log append time, milliseconds since 1970.
    pub timestamp_ms: i64,
    /// The record's key.
    pub key: Option<String>,
    /// CloudEvents attributes; absent in Ryggrad's own topics and in bare tombstones.
    pub attributes: Option<Attributes>,
    /// Its data.
    pub payload: Payload,
}

/// A record that is no event that this program understands.
#[derive(Debug, thiserror::Error)]
#[error("the record at {place} cannot be decoded")]
pub struct Undecodable {
    /// Where it stands.
    pub place: Place,
    /// Why.
    #[source]
    pub cause: Cause,
}

/// Why a record cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The attributes are incomplete.
    #[error("it is no CloudEvent in binary mode")]
    Attributes(#[from] NotACloudEvent),
    /// The Avro value is broken, or newer than this program.
    #[error("its value cannot be read as Avro")]
    Avro(#[from] DecodeError),
    /// The JSON value is broken.
    #[error("its value is no JSON")]
    Json(#[from] serde_json::Error),
}

impl Event {
    /// Decodes a record.
    pub fn decode(record: LogRecord) -> Result<Self, Undecodable> {
        let place = Place { topic: record.topic.clone(), partition: record.partition, offset: record.offset };
        match parts(&record) {
            Ok((attributes, payload)) => Ok(Self { place, timestamp_ms: record.timestamp_ms, key: record.key, attributes, payload }),
            Err(cause) => Err(Undecodable { place, cause }),
        }
    }

    /// The kind of change, where the event tells one.
    pub fn endringstype(&self) -> Option<&str> {
        match &self.payload {
            Payload::Virksomhet(change) => Some(change.endringstype.symbol()),
            _ => self.attributes.as_ref()?.extensions.get("endringstype").map(String::as_str),
        }
    }

    /// The name of what changed, where the event tells one.
    pub fn navn(&self) -> Option<&str> {
        match &self.payload {
            Payload::Virksomhet(change) => change.virksomhet.as_ref()?.navn.as_deref(),
            Payload::Json(data) => data.get("navn")?.as_str(),
            Payload::Tombstone => None,
        }
    }

    /// The data as JSON; `None` for a tombstone.
    pub fn data(&self) -> Option<Value> {
        match &self.payload {
            Payload::Tombstone => None,
            Payload::Virksomhet(change) => Some(change.give()),
            Payload::Json(data) => Some(data.clone()),
        }
    }

    /// The event in CloudEvents' JSON format. Without attributes it is an object with at most
    /// the member `data`.
    pub fn to_structured(&self) -> Value {
        match (&self.attributes, self.data()) {
            (Some(attributes), data) => attributes.to_structured(data),
            (None, Some(data)) => json!({ "data": data }),
            (None, None) => json!({}),
        }
    }
}

type Parts = (Option<Attributes>, Payload);

fn parts(record: &LogRecord) -> Result<Parts, Cause> {
    let attributes = Attributes::from_record(record);
    let Some(value) = &record.value else { return Ok((attributes.ok(), Payload::Tombstone)) };
    match attributes {
        Ok(attributes) => {
            let payload = payload(&attributes, record.header("content-type"), value)?;
            Ok((Some(attributes), payload))
        }
        // Ryggrad's own topics hold plain JSON. Their reader wants to see it; in any other
        // record the missing attributes are the fault to be told.
        Err(not_an_event) if record.header("ce_specversion").is_none() => {
            let data = serde_json::from_slice(value).map_err(|_| not_an_event)?;
            Ok((None, Payload::Json(data)))
        }
        Err(not_an_event) => Err(not_an_event.into()),
    }
}

fn payload(attributes: &Attributes, content_type: Option<&str>, value: &[u8]) -> Result<Payload, Cause> {
    if content_type.is_some_and(is_json) {
        return Ok(Payload::Json(serde_json::from_slice(value)?));
    }
    match Catalogue::built_in().event(&attributes.ce_type) {
        Some(event) if event.schema == VirksomhetEndret::SCHEMA => Ok(Payload::Virksomhet(Box::new(avro::decode(value)?))),
        _ => Ok(Payload::Json(avro::decode_to_json(value)?)),
    }
}

fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with("/json") || essence.ends_with("+json")
}

#[cfg(test)]
pub(crate) mod tests {
    use ryggrad_schemas::Headers;

    use super::*;
    use ryggrad_schemas::cloudevents::AVRO;
    use ryggrad_schemas::virksomhet::{Endringstype, Virksomhet};

    pub(crate) fn attributes(endringstype: &str) -> Attributes {
        Attributes {
            id: "5b0e".to_owned(),
            source: "urn:ryggrad:test:feed".to_owned(),
            ce_type: Catalogue::built_in().events[0].ce_type.clone(),
            subject: Some("312345676".to_owned()),
            time: Some("2026-01-02T03:04:05Z".to_owned()),
            extensions: [("endringstype".to_owned(), endringstype.to_owned())].into(),
        }
    }

    pub(crate) fn record(headers: Headers, value: Option<Vec<u8>>) -> LogRecord {
        LogRecord {
            topic: "grunndata.virksomhet.v1".to_owned(),
            partition: 3,
            offset: 17,
            timestamp_ms: 1_000,
            key: Some("312345676".to_owned()),
            value,
            headers,
        }
    }

    pub(crate) fn framed() -> Vec<u8> {
        avro::encode(&VirksomhetEndret {
            organisasjonsnummer: "312345676".to_owned(),
            endringstype: Endringstype::Ny,
            virksomhet: Some(Virksomhet { navn: Some("Åse AS".to_owned()), ..Virksomhet::default() }),
            ..VirksomhetEndret::default()
        })
        .unwrap()
    }

    #[test]
    fn an_avro_record_becomes_a_typed_event() {
        let event = Event::decode(record(attributes("NY").to_headers(AVRO), Some(framed()))).unwrap();
        assert_eq!((event.endringstype(), event.navn()), (Some("NY"), Some("Åse AS")));
        let structured = event.to_structured();
        assert_eq!(structured["data"]["virksomhet"]["navn"], "Åse AS");
        assert_eq!(structured["subject"], "312345676");
    }

    #[test]
    fn tombstones_are_events_with_or_without_attributes() {
        let with = Event::decode(record(attributes("SLETTET").to_headers(AVRO), None)).unwrap();
        assert_eq!((with.payload.clone(), with.endringstype()), (Payload::Tombstone, Some("SLETTET")));
        assert!(with.to_structured().get("data").is_none());
        let bare = Event::decode(record(Headers::default(), None)).unwrap();
        assert_eq!((bare.attributes.clone(), bare.to_structured()), (None, json!({})));
    }

    #[test]
    fn plain_json_is_shown_as_it_is() {
        let event = Event::decode(record(Headers::default(), Some(br#"{"position": 7}"#.to_vec()))).unwrap();
        assert_eq!(event.to_structured(), json!({"data": {"position": 7}}));
        let json_event =
            Event::decode(record(attributes("NY").to_headers("application/json; charset=utf-8"), Some(b"[1]".to_vec()))).unwrap();
        assert_eq!(json_event.payload, Payload::Json(json!([1])));
    }

    #[test]
    fn what_cannot_be_decoded_tells_its_place_and_why_but_not_its_bytes() {
        let headers = attributes("NY").to_headers(AVRO);
        let without_id = headers.iter().filter(|(name, _)| *name != "ce_id").collect();
        let cut = framed()[..20].to_vec();
        for (headers, value, expected) in [
            (headers.clone(), b"hemmelig".to_vec(), "Avro"),
            (headers.clone(), cut, "Avro"),
            (headers, vec![0, 0, 0, 0, 250, 1], "Avro"),
            (without_id, framed(), "CloudEvent"),
            (Headers::default(), b"hemmelig".to_vec(), "CloudEvent"),
            (attributes("NY").to_headers("application/json"), b"hemmelig".to_vec(), "JSON"),
        ] {
            let undecodable = Event::decode(record(headers, Some(value))).unwrap_err();
            assert_eq!(undecodable.to_string(), "the record at grunndata.virksomhet.v1/3 offset 17 cannot be decoded");
            let cause = format!("{} {:?}", undecodable.cause, undecodable.cause);
            assert!(cause.contains(expected), "{cause}");
            assert!(!cause.contains("hemmelig"), "{cause}");
        }
    }
}
