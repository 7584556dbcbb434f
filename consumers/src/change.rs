//! What a record does to a keyed copy. Pure.
//!
//! Must never bring an older state of a removed key into a copy, and never take a mark for a
//! tombstone of somebody's key.

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::removal::{Leaving, Removals};
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::record::ROLL_KEY;
use ryggrad_schemas::virksomhet::Endringstype;

use crate::{Event, Undecodable};

/// What has to be done to a copy. Doing it twice changes nothing.
#[derive(Debug)]
pub enum Change {
    /// The key's whole state, new or again.
    Put {
        /// The record's key.
        key: String,
        /// The state, and what is known about the change.
        event: Box<Event>,
    },
    /// The key is gone.
    Remove {
        /// The record's key.
        key: String,
        /// Why.
        why: Gone,
    },
    /// The key has a new state that this program cannot read: what the copy holds is outdated.
    Undecodable {
        /// The record's key.
        key: String,
        /// Where the record stands, and what is wrong with it.
        record: Undecodable,
    },
}

/// Why a key is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Deleted in the registry: `SLETTET`, or its tombstone where the event was compacted away.
    Deleted,
    /// Removed for legal reasons (`FJERNET`): what was derived from it has to go too.
    Removed,
}

/// What a record of the topic with this number does; nothing for marks, and for what has no key.
pub fn change_of(record: LogRecord, topic: u16, removals: &Removals) -> Option<Change> {
    let key = record.key.clone()?;
    if record.value.is_none() {
        return (key != ROLL_KEY).then_some(Change::Remove { key, why: Gone::Deleted });
    }
    let kind = record.header("ce_endringstype");
    let leaving = Leaving {
        place: Place { topic, partition: record.partition },
        offset: record.offset,
        appended_ms: record.timestamp_ms,
        key: &key,
        event: &record,
    };
    if removals.withholds(leaving) || kind == Some(Endringstype::Fjernet.symbol()) {
        return Some(Change::Remove { key, why: Gone::Removed });
    }
    if kind == Some(Endringstype::Slettet.symbol()) {
        return Some(Change::Remove { key, why: Gone::Deleted });
    }
    Some(match Event::decode(record) {
        Ok(event) => Change::Put { key, event: Box::new(event) },
        Err(record) => Change::Undecodable { key, record },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{attributes, framed, record};
    use ryggrad_schemas::Headers;
    use ryggrad_schemas::cloudevents::AVRO;

    /// The key of the test's records.
    const KEY: &str = "312345676";

    fn removed_at(offset: i64) -> Removals {
        let mut removals = Removals::default();
        let value = format!(r#"{{"partition": 3, "offset": {offset}}}"#).into_bytes();
        let told = LogRecord { key: Some(format!("t/{KEY}")), ..record(Headers::default(), Some(value)) };
        removals.take(&told, |_| Some(1));
        removals
    }

    fn seen(change: Option<Change>) -> String {
        match change {
            None => "nothing".to_owned(),
            Some(Change::Put { key, event }) => format!("put {key} {}", event.navn().unwrap_or_default()),
            Some(Change::Remove { key, why }) => format!("{why:?} {key}"),
            Some(Change::Undecodable { key, .. }) => format!("undecodable {key}"),
        }
    }

    #[test]
    fn every_kind_of_record_does_what_it_should() {
        let of = |kind: &str, value: Option<Vec<u8>>| record(attributes(kind).to_headers(AVRO), value);
        let bare = |key: Option<&str>| LogRecord { key: key.map(str::to_owned), ..record(Headers::default(), None) };
        let none = Removals::default();
        // The record stands at offset 17.
        for (what, record, removals, expected) in [
            ("a state", of("NY", Some(framed())), &none, "put 312345676 Åse AS"),
            ("SLETTET", of("SLETTET", Some(framed())), &none, "Deleted 312345676"),
            ("FJERNET", of("FJERNET", Some(framed())), &none, "Removed 312345676"),
            ("its echo", of("SLETTET", None), &none, "Deleted 312345676"),
            ("a bare tombstone", bare(Some(KEY)), &none, "Deleted 312345676"),
            ("a mark", bare(Some(ROLL_KEY)), &none, "nothing"),
            ("no key", bare(None), &none, "nothing"),
            ("no Avro", of("NY", Some(b"hemmelig".to_vec())), &none, "undecodable 312345676"),
            ("SLETTET that cannot be read", of("SLETTET", Some(b"?".to_vec())), &none, "Deleted 312345676"),
            ("older than its removal", of("NY", Some(framed())), &removed_at(18), "Removed 312345676"),
            ("back after its removal", of("NY", Some(framed())), &removed_at(16), "put 312345676 Åse AS"),
        ] {
            assert_eq!(seen(change_of(record, 1, removals)), expected, "{what}");
        }
    }
}
