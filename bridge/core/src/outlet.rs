//! An event as it stands in a receiver's own topic, and what is read back of it.
//!
//! As in the topic that it comes from, as far as its receiver may see it: attributes as headers, the value as it is. What
//! shows no data has no value, and says why in a header: so every stock client reads on. Must never say in the clear
//! where an event stood, which would tell of others that are withheld.

use ryggrad_schemas::{EncodedRecord, Headers, LogRecord};
use uuid::Uuid;

use crate::access::Extent;
use crate::cursor::Place;
use crate::delivery::{BRIDGE_SOURCE, MessageId, Numbered, VOID_TYPE, is_free, void_uuid};
use crate::subscription::Subscription;

/// Key of what closes a number that stands for nothing.
pub const VOID_KEY: &str = "ryggrad.void";

/// Which run of numbers.
pub const EPOCH: &str = "ryggrad_epoch";
/// The number in it.
pub const NUMBER: &str = "ryggrad_number";
/// The delivery's id: the same if it is ever written twice.
pub const DELIVERY: &str = "ryggrad_delivery";
/// The subscription.
pub const SUBSCRIPTION: &str = "ryggrad_subscription";
/// Whom it is for.
pub const ORGANISATION: &str = "ryggrad_organisation";
/// Who acts for that one.
pub const SUPPLIER: &str = "ryggrad_supplier";
/// How much of the event this is: `whole`, `notice` (its value is left out) or `void` (it stands for nothing).
pub const EXTENT: &str = "ryggrad_extent";
/// The view that was granted, of protected data.
pub const VIEW: &str = "ryggrad_view";
/// Where the event stood, sealed: for the bridge alone.
pub const SOURCE: &str = "ryggrad_source";

const ATTRIBUTE: &str = "ce_";
const CONTENT_TYPE: &str = "content-type";

/// Where an event stood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Topic and partition.
    pub place: Place,
    /// Offset.
    pub offset: i64,
    /// When it was appended, milliseconds since 1970.
    pub appended_ms: i64,
}

impl Position {
    /// Plain, to be sealed.
    pub fn to_bytes(self) -> Vec<u8> {
        let Place { topic, partition } = self.place;
        let parts = [&topic.to_be_bytes()[..], &partition.to_be_bytes(), &self.offset.to_be_bytes(), &self.appended_ms.to_be_bytes()];
        parts.concat()
    }

    /// From what was unsealed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (topic, rest) = bytes.split_first_chunk()?;
        let (partition, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let appended_ms = i64::from_be_bytes(rest.try_into().ok()?);
        let place = Place { topic: u16::from_be_bytes(*topic), partition: i32::from_be_bytes(*partition) };
        Some(Self { place, offset: i64::from_be_bytes(*offset), appended_ms })
    }
}

/// What a record shows of an event.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The event.
    pub log: &'a LogRecord,
    /// The delivery's id.
    pub delivery: MessageId,
    /// How much of it.
    pub extent: Extent,
    /// The view, of protected data.
    pub view: Option<&'a str>,
    /// Where it stood, sealed.
    pub sealed_source: &'a str,
}

/// The record of a delivery; of a void number if there is nothing to be shown.
pub fn encode(topic: &str, subscription: &Subscription, epoch: u32, number: u64, shown: Option<Shown<'_>>) -> EncodedRecord {
    let mut headers = Headers::with_capacity(20, 1024);
    let (mut key, mut value, mut extent) = (VOID_KEY.to_owned(), None, "void");
    match shown {
        Some(Shown { log, delivery, extent: shown, view, sealed_source }) => {
            let whole = log.value.clone().filter(|_| shown == Extent::Whole);
            let goes = |name: &str| match name.strip_prefix(ATTRIBUTE) {
                Some(attribute) => is_free(attribute),
                None => name == CONTENT_TYPE && whole.is_some(),
            };
            log.headers.iter().filter(|(name, _)| goes(name)).for_each(|(name, value)| headers.push(name, value));
            extent = if shown == Extent::Whole { "whole" } else { "notice" };
            headers.push(DELIVERY, delivery.as_str());
            headers.push(SOURCE, sealed_source);
            view.into_iter().for_each(|view| headers.push(VIEW, view));
            (key, value) = (log.key.clone().unwrap_or_default(), whole);
        }
        None => {
            let id = void_uuid(subscription.id, &Numbered { epoch: epoch.into(), number, replay: None });
            for (name, value) in [("specversion", "1.0"), ("id", &id.to_string()), ("source", BRIDGE_SOURCE), ("type", VOID_TYPE)] {
                headers.push_prefixed(ATTRIBUTE, name, value);
            }
            headers.push(DELIVERY, MessageId::of(id).as_str());
        }
    }
    headers.push(EXTENT, extent);
    headers.push(EPOCH, &epoch.to_string());
    headers.push(NUMBER, &number.to_string());
    headers.push(SUBSCRIPTION, &subscription.id.to_string());
    headers.push(ORGANISATION, &subscription.organisation.to_string());
    subscription.supplier.into_iter().for_each(|supplier| headers.push(SUPPLIER, &supplier.to_string()));
    EncodedRecord { topic: topic.to_owned(), partition: None, key, value, headers }
}

/// What a sealed position is bound to.
pub fn seal_context(subscription: Uuid, delivery: &str) -> String {
    format!("{subscription}/{delivery}")
}

/// Of what was written: the run of numbers and the number.
pub fn number(record: &LogRecord) -> Option<(u32, u64)> {
    let read = |name| record.header(name);
    Option::zip(read(EPOCH)?.parse().ok(), read(NUMBER)?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::delivery_id;
    use crate::settings::Channel;
    use crate::subscription::tests::example;

    fn source(value: Option<&[u8]>) -> LogRecord {
        let headers = [
            ("ce_specversion", "1.0"),
            ("ce_id", "5b0e"),
            ("ce_deliverynumber", "0"),
            ("ryggrad_number", "99"),
            ("ryggrad_statehash", "ab"),
            ("content-type", "application/avro"),
        ];
        LogRecord {
            topic: "t".to_owned(),
            partition: 3,
            offset: 4_711,
            timestamp_ms: 5,
            key: Some("k".to_owned()),
            value: value.map(<[u8]>::to_vec),
            headers: headers.into_iter().collect(),
        }
    }

    #[test]
    fn a_record_shows_what_its_receiver_may_see_and_not_where_it_stood() {
        let subscription = Subscription { channel: Channel::Kafka, sink: None, ..example() };
        let topic = subscription.outlet().unwrap().topic();
        let delivery = delivery_id(subscription.id, "t", 3, 4_711, 0);
        for (value, extent, shown, has_type) in [
            (Some(&b"avro"[..]), Extent::Whole, Some(b"avro".to_vec()), true),
            (Some(b"avro"), Extent::Notice, None, false),
            (None, Extent::Whole, None, false),
        ] {
            let log = source(value);
            let event = Shown { log: &log, delivery, extent, view: Some("full"), sealed_source: "00" };
            let record = encode(&topic, &subscription, 7, 2, Some(event));
            assert_eq!((record.topic.as_str(), record.key.as_str(), &record.value), (topic.as_str(), "k", &shown));
            let header = |name| record.headers.get(name);
            assert_eq!((header("ce_id"), header(NUMBER), header(EPOCH), header(VIEW)), (Some("5b0e"), Some("2"), Some("7"), Some("full")));
            assert_eq!(
                (header("content-type").is_some(), header("ce_deliverynumber"), header("ryggrad_statehash")),
                (has_type, None, None)
            );
            assert_eq!(header(EXTENT), Some(if extent == Extent::Whole { "whole" } else { "notice" }));
            assert!(record.headers.iter().all(|(_, value)| !value.contains("4711")), "{record:?}");
        }
        let void = encode(&topic, &subscription, 7, 3, None);
        assert_eq!((void.key.as_str(), void.headers.get("ce_type"), void.headers.get(EXTENT)), (VOID_KEY, Some(VOID_TYPE), Some("void")));
        assert!(void.value.is_none() && void.headers.get(SOURCE).is_none());
        let read = LogRecord { key: Some(void.key), headers: void.headers, ..source(None) };
        assert_eq!(number(&read), Some((7, 3)));
    }

    #[test]
    fn a_position_comes_back_from_its_bytes_and_from_nothing_else() {
        let position = Position { place: Place { topic: 9, partition: 2 }, offset: i64::MAX - 1, appended_ms: 1 };
        let bytes = position.to_bytes();
        assert_eq!(Position::from_bytes(&bytes), Some(position));
        assert_eq!((Position::from_bytes(&bytes[1..]), Position::from_bytes(&[bytes.as_slice(), b"x"].concat())), (None, None));
    }
}
