//! What goes over the wire for one record: the delivery's id and the rendered event.

use ryggrad_schemas::LogRecord;
use ryggrad_schemas::avro::{self, DecodeError};
use ryggrad_schemas::cloudevents::{Attributes, NotACloudEvent};
use uuid::Uuid;

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

/// `webhook-id` of a delivery: the same over retries and crashes, other for every subscription.
/// It never holds a full stop, which separates the signed parts.
pub fn delivery_id(subscription: Uuid, topic: &str, partition: i32, offset: i64) -> String {
    format!("msg_{}", Uuid::new_v5(&subscription, format!("{topic}/{partition}/{offset}").as_bytes()).simple())
}

/// The record as a CloudEvent in structured JSON. A tombstone has no `data`.
pub fn render(record: &LogRecord) -> Result<Vec<u8>, Unreadable> {
    let attributes = Attributes::from_record(record).map_err(Unreadable::Attributes)?;
    let data = record.value.as_deref().map(avro::decode_to_json).transpose().map_err(Unreadable::Value)?;
    Ok(attributes.to_structured(data).to_string().into_bytes())
}
