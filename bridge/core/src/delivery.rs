//! What goes over the wire: rendered events in three formats, and the ids of deliveries.
//!
//! A record is decoded and rendered once for each format and shared; what differs from subscription
//! to subscription (the delivery's number) is added at the end. Must never say more to one receiver
//! than to another about why a number is void.

use std::fmt::{self, Write as _};
use std::io;

use bytes::Bytes;
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::avro::{self, DecodeError};
use ryggrad_schemas::cloudevents::{self, NotACloudEvent, STRUCTURED_JSON};
use serde_json::Value;
use uuid::Uuid;

/// Media type of several events in one body.
pub const BATCH_JSON: &str = "application/cloudevents-batch+json";
/// Media type of the data in binary mode.
pub const DATA_JSON: &str = "application/json";
/// `source` of what the bridge itself has to say.
pub const BRIDGE_SOURCE: &str = "urn:ryggrad:bridge";
/// Type of the notice that a delivery's number stands for nothing.
pub const VOID_TYPE: &str = "no.ryggrad.void.v1";
/// Type of the event whose challenge an endpoint has to echo.
pub const CHALLENGE_TYPE: &str = "no.ryggrad.challenge.v1";

/// Attributes of the delivery. They are strings: CloudEvents integers have 32 bits.
const EPOCH: &str = "deliveryepoch";
const NUMBER: &str = "deliverynumber";
/// Which replay it belongs to; its numbers are that replay's own.
const REPLAY: &str = "replay";

/// Namespace of a batch's id. It is arbitrary and must never change.
const BATCH_NAMESPACE: Uuid = Uuid::from_u128(0x0b7c_52f4_3d51_5f5e_8a7e_bb20_6d1c_9e02);

/// Why a record can't be delivered to anyone. Never quotes the record.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// No CloudEvents attributes.
    #[error("it is no CloudEvent")]
    Attributes(#[source] NotACloudEvent),
    /// A value that does not decode.
    #[error("its value does not decode")]
    Value(#[source] DecodeError),
}

/// The number of a delivery within its subscription, without gaps in an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Numbered {
    /// Which run of numbers.
    pub epoch: u64,
    /// From 1.
    pub number: u64,
    /// The replay whose numbers these are, if it is one's.
    pub replay: Option<Uuid>,
}

/// `webhook-id` of a message. Of fixed length, so that one takes no memory of its own; it never holds
/// a full stop, which separates the signed parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MessageId([u8; MessageId::BYTES]);

impl MessageId {
    const PREFIX: &[u8] = b"msg_";
    const BYTES: usize = Self::PREFIX.len() + uuid::fmt::Simple::LENGTH;

    /// The id that belongs to a UUID.
    pub fn of(id: Uuid) -> Self {
        let mut text = [0; Self::BYTES];
        let (prefix, digits) = text.split_at_mut(Self::PREFIX.len());
        prefix.copy_from_slice(Self::PREFIX);
        id.simple().encode_lower(digits);
        Self(text)
    }

    /// As it goes over the wire.
    pub fn as_str(&self) -> &str {
        // It is ASCII throughout.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Of a delivery: the same over retries and crashes, other for every subscription and after every
/// rewind (`generation`).
pub fn delivery_id(subscription: Uuid, topic: &str, partition: i32, offset: i64, generation: u32) -> MessageId {
    let mut name = String::with_capacity(topic.len() + 48);
    // Writing to memory can't fail.
    let _ = write!(name, "{topic}/{partition}/{offset}");
    if generation > 0 {
        let _ = write!(name, "/{generation}");
    }
    MessageId::of(Uuid::new_v5(&subscription, name.as_bytes()))
}

/// Of a void notice.
pub fn void_id(subscription: Uuid, numbered: &Numbered) -> MessageId {
    MessageId::of(void_uuid(subscription, numbered))
}

/// Of a batch: the same members in the same order, the same id.
pub fn batch_id(members: impl IntoIterator<Item = MessageId>) -> MessageId {
    let mut name = String::new();
    for member in members {
        name.push_str(member.as_str());
        name.push('\u{1f}');
    }
    MessageId::of(Uuid::new_v5(&BATCH_NAMESPACE, name.as_bytes()))
}

pub(crate) fn void_uuid(subscription: Uuid, numbered: &Numbered) -> Uuid {
    Uuid::new_v5(&subscription, format!("void/{}/{}", numbered.epoch, numbered.number).as_bytes())
}

/// An event in structured JSON but for its closing brace, so that attributes can be added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered(Vec<u8>);

impl Rendered {
    /// Bytes that it holds.
    pub fn size_bytes(&self) -> usize {
        self.0.len()
    }

    /// The event as it is, of a delivery without a number.
    pub fn unnumbered(&self) -> Vec<u8> {
        [self.0.as_slice(), b"}"].concat()
    }
}

/// An event in binary mode. One without data is structured after all: a web hook has a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedBinary(Parts);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Parts {
    Binary { headers: Vec<(String, String)>, data: Bytes },
    Structured(Rendered),
}

impl RenderedBinary {
    /// Bytes that it holds.
    pub fn size_bytes(&self) -> usize {
        match &self.0 {
            Parts::Binary { headers, data } => data.len() + headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>(),
            Parts::Structured(rendered) => rendered.size_bytes(),
        }
    }
}

impl From<Rendered> for RenderedBinary {
    fn from(rendered: Rendered) -> Self {
        Self(Parts::Structured(rendered))
    }
}

/// A body with what has to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Headers that hold attributes; names in lower case, values percent-encoded.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
}

/// The record as a CloudEvent in structured JSON. A tombstone has no `data`.
pub fn render(record: &LogRecord) -> Result<Rendered, Unreadable> {
    let value_bytes = record.value.as_ref().map_or(0, Vec::len);
    let (mut event, mut separator) = attributes(record, value_bytes)?;
    if let Some(framed) = &record.value {
        put(&mut event, &mut separator, "datacontenttype", DATA_JSON);
        event.extend_from_slice(b",\"data\":");
        avro::write_json(framed, &mut event).map_err(Unreadable::Value)?;
    }
    Ok(Rendered(event))
}

/// The record as a CloudEvent without its data: that something has happened, and to whom.
pub fn render_notice(record: &LogRecord) -> Result<Rendered, Unreadable> {
    attributes(record, 0).map(|(event, _)| Rendered(event))
}

/// The beginning of an event, and what comes before its next member.
fn attributes(record: &LogRecord, value_bytes: usize) -> Result<(Vec<u8>, u8), Unreadable> {
    // JSON names every field: some two and a half times the Avro.
    let (mut event, mut separator) = (Vec::with_capacity(512 + record.size_bytes() + value_bytes * 2), b'{');
    for (name, value) in cloudevents::attributes_of(record).map_err(Unreadable::Attributes)?.into_iter().filter(|(name, _)| is_free(name)) {
        put(&mut event, &mut separator, name, value);
    }
    Ok((event, separator))
}

/// The record as a CloudEvent in binary mode, with its data as JSON.
pub fn render_binary(record: &LogRecord) -> Result<RenderedBinary, Unreadable> {
    let Some(framed) = &record.value else { return render(record).map(RenderedBinary::from) };
    let attributes = cloudevents::attributes_of(record).map_err(Unreadable::Attributes)?;
    let named = attributes.into_iter().filter(|(name, _)| is_free(name) && is_attribute_name(name));
    let headers = named.map(|(name, value)| (["ce-", name].concat(), percent_encoded(value))).collect();
    let mut data = Vec::with_capacity(framed.len() * 3);
    avro::write_json(framed, &mut data).map_err(Unreadable::Value)?;
    Ok(RenderedBinary(Parts::Binary { headers, data: Bytes::from(data) }))
}

/// The notice that closes a number whose event is not delivered. The same whatever the reason.
pub fn void_notice(subscription: Uuid, numbered: &Numbered) -> Rendered {
    own_event(VOID_TYPE, &void_uuid(subscription, numbered).to_string(), None)
}

/// An event of the bridge's own.
pub fn own_event(ce_type: &str, id: &str, data: Option<&Value>) -> Rendered {
    let (mut event, mut separator) = (Vec::with_capacity(256), b'{');
    for (name, value) in [("specversion", "1.0"), ("id", id), ("source", BRIDGE_SOURCE), ("type", ce_type)] {
        put(&mut event, &mut separator, name, value);
    }
    if let Some(data) = data {
        put(&mut event, &mut separator, "datacontenttype", DATA_JSON);
        event.extend_from_slice(b",\"data\":");
        event.extend_from_slice(data.to_string().as_bytes());
    }
    Rendered(event)
}

/// Room for what tells one delivery of an event from another.
const NUMBERED_BYTES: usize = 160;

/// The whole event with its number.
pub fn structured(rendered: &Rendered, numbered: &Numbered) -> Vec<u8> {
    let mut event = Vec::new();
    append_structured(rendered, numbered, &mut event);
    event
}

/// The same, into memory that is there.
pub fn append_structured(rendered: &Rendered, Numbered { epoch, number, replay }: &Numbered, out: &mut Vec<u8>) {
    out.reserve(rendered.0.len() + NUMBERED_BYTES);
    out.extend_from_slice(&rendered.0);
    // Writing to memory can't fail.
    let _ = io::Write::write_fmt(out, format_args!(",\"{EPOCH}\":\"{epoch}\",\"{NUMBER}\":\"{number}\""));
    if let Some(replay) = replay {
        let _ = io::Write::write_fmt(out, format_args!(",\"{REPLAY}\":\"{replay}\""));
    }
    out.push(b'}');
}

/// The event in binary mode with its number.
pub fn binary(rendered: &RenderedBinary, numbered: &Numbered) -> Payload {
    match &rendered.0 {
        Parts::Structured(rendered) => {
            Payload { content_type: STRUCTURED_JSON, headers: Vec::new(), body: Bytes::from(structured(rendered, numbered)) }
        }
        Parts::Binary { headers, data } => {
            let replay = numbered.replay.map(|replay| (REPLAY, replay.to_string()));
            let number = [(EPOCH, numbered.epoch.to_string()), (NUMBER, numbered.number.to_string())];
            let number = number.into_iter().chain(replay).map(|(name, value)| (["ce-", name].concat(), value));
            Payload { content_type: DATA_JSON, headers: headers.iter().cloned().chain(number).collect(), body: data.clone() }
        }
    }
}

/// Events with their numbers in one body, in this order.
pub fn batch<'a>(events: impl IntoIterator<Item = (&'a Rendered, Numbered)>) -> Vec<u8> {
    let mut body = vec![b'['];
    for (rendered, numbered) in events {
        if body.len() > 1 {
            body.push(b',');
        }
        append_structured(rendered, &numbered, &mut body);
    }
    body.push(b']');
    body
}

fn put(event: &mut Vec<u8>, separator: &mut u8, name: &str, value: &str) {
    event.push(std::mem::replace(separator, b','));
    json_text(event, name);
    event.push(b':');
    json_text(event, value);
}

fn json_text(event: &mut Vec<u8>, text: &str) {
    // Writing to memory can't fail.
    let _ = serde_json::to_writer(event, text);
}

/// Whether a record may bring this attribute along: not what is the delivery's or the format's.
pub(crate) fn is_free(name: &str) -> bool {
    !matches!(name, EPOCH | NUMBER | REPLAY | "data" | "data_base64" | "datacontenttype")
}

fn is_attribute_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// As the HTTP binding wants header values: space, quote, percent sign and all that is no visible
/// ASCII as UTF-8 bytes in upper-case hexadecimal.
fn percent_encoded(value: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        if matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'%') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(DIGITS[usize::from(byte >> 4)]));
            encoded.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use ryggrad_schemas::cloudevents::Attributes;
    use ryggrad_schemas::virksomhet::{Virksomhet, VirksomhetEndret};
    use serde_json::json;

    const NUMBER_7: Numbered = Numbered { epoch: 3, number: 7, replay: None };

    fn record(with_value: bool) -> LogRecord {
        let attributes = Attributes {
            id: "5b0e".to_owned(),
            source: "urn:ryggrad:test:feed".to_owned(),
            ce_type: "no.ryggrad.test.v1".to_owned(),
            subject: Some("Pasient \"Åse\" 100%".to_owned()),
            time: None,
            extensions: [("navn", "A\nB"), ("deliverynumber", "0"), ("data", "x")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        };
        let state = Virksomhet::from_json(r#"{"navn":"ÆØÅ","x":1.50}"#).unwrap();
        let event = VirksomhetEndret { virksomhet: state, ..VirksomhetEndret::default() };
        let value = with_value.then(|| avro::encode(&event).unwrap());
        let headers = attributes.to_headers(cloudevents::AVRO);
        LogRecord { topic: "t".to_owned(), partition: 0, offset: 4, timestamp_ms: 0, key: None, value, headers }
    }

    fn parsed(body: &[u8]) -> Value {
        serde_json::from_slice(body).unwrap()
    }

    #[test]
    fn a_structured_event_has_its_attributes_its_data_and_its_number_once() {
        let record = record(true);
        let body = structured(&render(&record).unwrap(), &NUMBER_7);
        let mut expected = Attributes::from_record(&record).unwrap();
        expected.extensions.remove("data");
        expected.extensions.extend([("deliveryepoch".to_owned(), "3".to_owned()), ("deliverynumber".to_owned(), "7".to_owned())]);
        let data = avro::decode_to_json(record.value.as_deref().unwrap()).unwrap();
        assert_eq!(parsed(&body), expected.to_structured(Some(data)));
        let replayed = Numbered { replay: Some(Uuid::nil()), ..NUMBER_7 };
        assert_eq!(parsed(&structured(&render(&record).unwrap(), &replayed))["replay"], Uuid::nil().to_string());
        assert!(binary(&render_binary(&record).unwrap(), &replayed).headers.contains(&("ce-replay".to_owned(), Uuid::nil().to_string())));
        let text = String::from_utf8(body).unwrap();
        assert_eq!((text.matches("\"deliverynumber\"").count(), text.matches("\"data\"").count()), (1, 1), "{text}");
        assert_eq!(parsed(&render(&record).unwrap().unnumbered()).get("deliverynumber"), None);
    }

    #[test]
    fn in_binary_mode_attributes_are_encoded_headers_and_the_body_is_the_data() {
        let record = record(true);
        let Payload { content_type, headers, body } = binary(&render_binary(&record).unwrap(), &NUMBER_7);
        assert_eq!(content_type, "application/json");
        assert_eq!(parsed(&body), avro::decode_to_json(record.value.as_deref().unwrap()).unwrap());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            headers,
            [
                ("ce-specversion", "1.0"),
                ("ce-id", "5b0e"),
                ("ce-source", "urn:ryggrad:test:feed"),
                ("ce-type", "no.ryggrad.test.v1"),
                ("ce-subject", "Pasient%20%22%C3%85se%22%20100%25"),
                ("ce-navn", "A%0AB"),
                ("ce-deliveryepoch", "3"),
                ("ce-deliverynumber", "7"),
            ]
        );
    }

    #[test]
    fn an_event_without_data_is_structured_in_either_mode() {
        let record = self::record(false);
        let payload = binary(&render_binary(&record).unwrap(), &NUMBER_7);
        assert_eq!((payload.content_type, payload.headers.len()), (STRUCTURED_JSON, 0));
        assert_eq!(payload.body, structured(&render(&record).unwrap(), &NUMBER_7));
        assert_eq!(parsed(&payload.body).get("data"), None);
    }

    #[test]
    fn a_batch_is_an_array_of_what_would_have_come_alone() {
        let (first, void) = (render(&record(true)).unwrap(), void_notice(Uuid::nil(), &NUMBER_7));
        let other = Numbered { number: 8, ..NUMBER_7 };
        let body = batch([(&first, NUMBER_7), (&void, other)]);
        assert_eq!(parsed(&body), json!([parsed(&structured(&first, &NUMBER_7)), parsed(&structured(&void, &other))]));
        assert_eq!(batch([]), b"[]");
    }

    #[test]
    fn a_void_notice_says_its_number_and_nothing_else() {
        let subscription = Uuid::from_u128(5);
        let event = parsed(&structured(&void_notice(subscription, &NUMBER_7), &NUMBER_7));
        let id = event["id"].as_str().unwrap().to_owned();
        let expected = json!({
            "specversion": "1.0", "id": id, "source": "urn:ryggrad:bridge", "type": "no.ryggrad.void.v1", "deliveryepoch": "3", "deliverynumber": "7",
        });
        assert_eq!(event, expected);
        assert_eq!(parsed(&structured(&void_notice(subscription, &NUMBER_7), &NUMBER_7))["id"], id);
        for other in [void_notice(Uuid::nil(), &NUMBER_7), void_notice(subscription, &Numbered { epoch: 4, ..NUMBER_7 })] {
            assert_ne!(parsed(&other.unnumbered())["id"], id);
        }
    }

    #[test]
    fn ids_are_stable_and_hold_no_full_stop() {
        let [a, b] = [1, 2].map(|id| MessageId::of(Uuid::from_u128(id)));
        let ids = [
            delivery_id(Uuid::nil(), "a.b", 0, 1, 0),
            delivery_id(Uuid::nil(), "a.b", 0, 1, 1),
            delivery_id(Uuid::nil(), "a.b", 0, 2, 0),
            delivery_id(Uuid::max(), "a.b", 0, 1, 0),
            void_id(Uuid::nil(), &NUMBER_7),
            batch_id([a, b]),
            batch_id([b, a]),
            batch_id([a]),
        ];
        for (index, id) in ids.iter().enumerate() {
            let text = id.as_str();
            assert!(text.starts_with("msg_") && !text.contains('.') && text.len() == 36, "{id}");
            assert!(!ids[..index].contains(id), "{id}");
        }
        assert_eq!(ids[0].to_string(), format!("msg_{}", Uuid::new_v5(&Uuid::nil(), b"a.b/0/1").simple()));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let mut record = record(true);
        record.value = Some(b"no avro".to_vec());
        assert!(matches!(render(&record), Err(Unreadable::Value(_))) && matches!(render_binary(&record), Err(Unreadable::Value(_))));
        record.headers = record.headers.iter().filter(|(name, _)| *name != "ce_type").collect();
        assert!(
            matches!(render(&record), Err(Unreadable::Attributes(_))) && matches!(render_binary(&record), Err(Unreadable::Attributes(_)))
        );
    }
}
