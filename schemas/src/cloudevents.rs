//! CloudEvents 1.0 attributes, in Kafka headers (binary mode) and in structured JSON.
//!
//! Must never put anything about a person into an attribute: everyone on the path may log them.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::headers::Headers;
use crate::record::LogRecord;

/// Media type of structured JSON.
pub const STRUCTURED_JSON: &str = "application/cloudevents+json";
/// Media type of framed Avro in Kafka.
pub const AVRO: &str = "application/avro";
/// Header with the state's fingerprint; not an attribute, since no receiver needs it.
pub const STATE_HASH_HEADER: &str = "ryggrad_statehash";

const PREFIX: &str = "ce_";

/// Room for most events' headers.
const HEADERS_BYTES_USUAL: usize = 512;

/// The attributes of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Deterministic id.
    pub id: String,
    /// Where the change was read.
    pub source: String,
    /// Event type, as in the catalogue.
    pub ce_type: String,
    /// The key of what changed.
    pub subject: Option<String>,
    /// When the registry says that it happened, RFC 3339.
    pub time: Option<String>,
    /// Extension attributes.
    pub extensions: BTreeMap<String, String>,
}

/// [`Attributes`] whose parts lie elsewhere, so that nothing is copied but into the headers.
#[derive(Debug, Clone, Copy)]
pub struct BorrowedAttributes<'a> {
    /// As in [`Attributes`], and so are all the others.
    pub id: &'a str,
    /// Where the change was read.
    pub source: &'a str,
    /// Event type.
    pub ce_type: &'a str,
    /// Key.
    pub subject: Option<&'a str>,
    /// When it happened.
    pub time: Option<&'a str>,
    /// Extension attributes, sorted by name.
    pub extensions: &'a [(&'a str, &'a str)],
}

impl BorrowedAttributes<'_> {
    /// The attributes as Kafka headers in binary mode.
    pub fn to_headers(&self, content_type: &str) -> Headers {
        // Room for the state's fingerprint as well.
        let mut headers = Headers::with_capacity(8 + self.extensions.len(), HEADERS_BYTES_USUAL);
        headers.push("ce_specversion", "1.0");
        headers.push("ce_id", self.id);
        headers.push("ce_source", self.source);
        headers.push("ce_type", self.ce_type);
        self.subject.into_iter().for_each(|subject| headers.push("ce_subject", subject));
        self.time.into_iter().for_each(|time| headers.push("ce_time", time));
        self.extensions.iter().for_each(|(name, value)| headers.push_prefixed(PREFIX, name, value));
        headers.push("content-type", content_type);
        headers
    }
}

/// Why a record is no CloudEvent in binary mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotACloudEvent {
    /// A required header is missing or empty.
    #[error("the header {PREFIX}{0} is missing")]
    Missing(&'static str),
    /// Another version of CloudEvents.
    #[error("the header ce_specversion is not 1.0")]
    Version,
}

impl Attributes {
    /// The attributes as Kafka headers in binary mode.
    pub fn to_headers(&self, content_type: &str) -> Headers {
        let Self { id, source, ce_type, subject, time, extensions } = self;
        let extensions: Vec<(&str, &str)> = extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let (subject, time) = (subject.as_deref(), time.as_deref());
        BorrowedAttributes { id, source, ce_type, subject, time, extensions: &extensions }.to_headers(content_type)
    }

    /// The attributes of a record.
    pub fn from_record(record: &LogRecord) -> Result<Self, NotACloudEvent> {
        let mut found: BTreeMap<&str, &str> =
            record.headers.iter().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value))).collect();
        if found.remove("specversion").ok_or(NotACloudEvent::Missing("specversion"))? != "1.0" {
            return Err(NotACloudEvent::Version);
        }
        let mut required = |name: &'static str| {
            found.remove(name).filter(|value| !value.is_empty()).map(str::to_owned).ok_or(NotACloudEvent::Missing(name))
        };
        let (id, source, ce_type) = (required("id")?, required("source")?, required("type")?);
        let mut optional = |name| found.remove(name).filter(|value| !value.is_empty()).map(str::to_owned);
        let (subject, time) = (optional("subject"), optional("time"));
        let extensions = found.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        Ok(Self { id, source, ce_type, subject, time, extensions })
    }

    /// The whole event in the JSON event format. `data` absent means an event without payload.
    pub fn to_structured(&self, data: Option<Value>) -> Value {
        let mut event = Map::new();
        let mut put = |name: &str, value: &str| event.insert(name.to_owned(), Value::from(value));
        put("specversion", "1.0");
        put("id", &self.id);
        put("source", &self.source);
        put("type", &self.ce_type);
        if let Some(subject) = &self.subject {
            put("subject", subject);
        }
        if let Some(time) = &self.time {
            put("time", time);
        }
        for (name, value) in &self.extensions {
            put(name, value);
        }
        if let Some(data) = data {
            put("datacontenttype", "application/json");
            event.insert("data".to_owned(), data);
        }
        Value::Object(event)
    }
}

/// The attributes of a record by their names, without copying them: the required ones are there,
/// none stands twice (the last one counts), and none that may not be empty is.
pub fn attributes_of(record: &LogRecord) -> Result<Vec<(&str, &str)>, NotACloudEvent> {
    let mut attributes: Vec<(&str, &str)> = Vec::with_capacity(record.headers.len());
    for (name, value) in record.headers.iter().filter_map(|(header, value)| Some((header.strip_prefix(PREFIX)?, value))) {
        match attributes.iter_mut().find(|(found, _)| *found == name) {
            Some(before) => before.1 = value,
            None => attributes.push((name, value)),
        }
    }
    let get = |name: &str| attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
    if get("specversion").ok_or(NotACloudEvent::Missing("specversion"))? != "1.0" {
        return Err(NotACloudEvent::Version);
    }
    for required in ["id", "source", "type"] {
        get(required).filter(|value| !value.is_empty()).ok_or(NotACloudEvent::Missing(required))?;
    }
    attributes.retain(|(name, value)| !(value.is_empty() && matches!(*name, "subject" | "time")));
    Ok(attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes() -> Attributes {
        Attributes {
            id: "5b0e".to_owned(),
            source: "urn:ryggrad:test:feed".to_owned(),
            ce_type: "no.ryggrad.test.v1".to_owned(),
            subject: Some("312345676".to_owned()),
            time: Some("2026-01-02T03:04:05Z".to_owned()),
            extensions: BTreeMap::from([("endringstype".to_owned(), "NY".to_owned())]),
        }
    }

    fn record(headers: Headers) -> LogRecord {
        LogRecord { topic: "t".to_owned(), partition: 0, offset: 0, timestamp_ms: 0, key: None, value: None, headers }
    }

    #[test]
    fn headers_and_attributes_are_each_others_inverse() {
        for attributes in [attributes(), Attributes { subject: None, time: None, extensions: BTreeMap::new(), ..attributes() }] {
            let headers = attributes.to_headers(AVRO);
            assert_eq!(headers.get("content-type"), Some(AVRO));
            assert_eq!(Attributes::from_record(&record(headers)), Ok(attributes));
        }
    }

    #[test]
    fn a_record_without_a_required_attribute_is_no_event() {
        let headers = attributes().to_headers(AVRO);
        for (name, expected) in [
            ("ce_specversion", NotACloudEvent::Missing("specversion")),
            ("ce_id", NotACloudEvent::Missing("id")),
            ("ce_source", NotACloudEvent::Missing("source")),
            ("ce_type", NotACloudEvent::Missing("type")),
        ] {
            let without = record(headers.iter().filter(|(found, _)| *found != name).collect());
            assert_eq!(attributes_of(&without).map(|_| ()), Err(expected.clone()));
            assert_eq!(Attributes::from_record(&without), Err(expected));
        }
    }

    #[test]
    fn attributes_are_the_same_copied_or_not() {
        let mut headers = attributes().to_headers(AVRO);
        [("ce_id", "the last one"), ("ce_time", ""), ("ce_tom", "")].iter().for_each(|(name, value)| headers.push(name, value));
        let record = record(headers);
        let copied = Attributes::from_record(&record).unwrap().to_headers(AVRO);
        let mut copied: Vec<_> = copied.iter().filter_map(|(name, value)| Some((name.strip_prefix("ce_")?, value))).collect();
        let mut borrowed: Vec<_> = attributes_of(&record).unwrap();
        copied.sort_unstable();
        borrowed.sort_unstable();
        assert_eq!(borrowed, copied);
        let other = self::record([("ce_specversion", "2.0")].into_iter().collect());
        assert_eq!(attributes_of(&other).map(|_| ()), Err(NotACloudEvent::Version));
    }

    #[test]
    fn structured_json_has_every_attribute_at_the_top() {
        let event = attributes().to_structured(Some(serde_json::json!({"navn": "Å"})));
        assert_eq!(
            event,
            serde_json::json!({
                "specversion": "1.0", "id": "5b0e", "source": "urn:ryggrad:test:feed", "type": "no.ryggrad.test.v1",
                "subject": "312345676", "time": "2026-01-02T03:04:05Z", "endringstype": "NY",
                "datacontenttype": "application/json", "data": {"navn": "Å"}
            })
        );
        assert!(attributes().to_structured(None).get("data").is_none());
    }
}
