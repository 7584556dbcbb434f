//! What an event is: the Avro schemas (the truth), the catalogue, the Rust types made from
//! them, the Confluent frame, CloudEvents attributes, identifiers and deterministic ids.
//!
//! Pure: no clock, randomness, files or network. Everything that ships in the binary (schemas,
//! catalogue, manifest) is compiled in, so two parts of Ryggrad can never disagree about it.

pub mod asyncapi;
pub mod avro;
pub mod avro_container;
mod avro_json;
pub mod catalogue;
pub mod cloudevents;
pub mod document;
pub mod equivalence;
pub mod event_id;
pub mod fingerprint;
mod generated;
pub mod headers;
pub mod identifiers;
mod json_scan;
pub mod json_text;
pub mod json_write;
pub mod manifest;
pub mod proeve;
pub mod record;
pub mod virksomhet;

pub use catalogue::Catalogue;
pub use headers::Headers;
pub use identifiers::Organisasjonsnummer;
pub use record::{EncodedRecord, LogRecord};
