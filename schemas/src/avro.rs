//! Avro values in Confluent's frame: `0x00`, the schema id as four big-endian bytes, the datum.
//!
//! Writes with the newest schema of a type; reads every published one. Must never trust a
//! length in the data: allocation is capped, and a decoded frame must be used up to its end.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::document::ToDocument;
use crate::manifest::{self, SchemaVersion};
use crate::virksomhet::VirksomhetEndret;

/// The most that decoding one value may allocate, in bytes.
pub const DECODE_ALLOCATION_BYTES_MAX: usize = 16 * 1024 * 1024;

const MAGIC: u8 = 0;
const FRAME_BYTES: usize = 5;

/// A type that is the top-level record of a schema folder.
pub trait AvroEvent: Serialize + DeserializeOwned {
    /// Folder under `schemas/avro`.
    const SCHEMA: &'static str;
}

/// Why a value cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No schema of that name is committed.
    #[error("no schema is committed for {schema}")]
    NoSchema {
        /// The folder.
        schema: &'static str,
    },
    /// The value does not fit its schema.
    #[error("the value does not fit the schema {schema}")]
    Unfit {
        /// The folder.
        schema: &'static str,
        /// What the Avro library says.
        #[source]
        source: Box<apache_avro::Error>,
    },
}

/// Why bytes cannot be read. Never quotes the bytes.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not Confluent's frame.
    #[error("the value is not in Confluent's wire format (0x00 and a four-byte schema id)")]
    NotFramed,
    /// A frame with an id that the manifest lacks.
    #[error("the schema id {id} is unknown here; is the writer newer than this reader?")]
    UnknownSchema {
        /// The id.
        id: u32,
    },
    /// A frame of another event type.
    #[error("the schema id {id} is of {found}, not of {expected}")]
    OtherType {
        /// The id.
        id: u32,
        /// What the id stands for.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
    /// The datum does not follow its schema.
    #[error("the datum does not follow the schema with id {id}")]
    Malformed {
        /// The id.
        id: u32,
        /// What the Avro library says.
        #[source]
        source: Box<apache_avro::Error>,
    },
    /// Bytes are left after the datum.
    #[error("{left_bytes} bytes are left after a datum of the schema with id {id}")]
    Trailing {
        /// The id.
        id: u32,
        /// How many.
        left_bytes: usize,
    },
}

struct Codec {
    version: &'static SchemaVersion,
    schema: &'static Schema,
    writer: GenericDatumWriter<'static>,
    reader: GenericDatumReader<'static>,
}

static CODECS: LazyLock<BTreeMap<u32, Codec>> = LazyLock::new(|| {
    apache_avro::util::max_allocation_bytes(DECODE_ALLOCATION_BYTES_MAX);
    manifest::all()
        .iter()
        .map(|version| {
            #[expect(clippy::expect_used, reason = "compiled in; a test builds every codec")]
            let codec = Codec::new(version).expect("committed schemas are valid Avro");
            (version.id, codec)
        })
        .collect()
});

impl Codec {
    fn new(version: &'static SchemaVersion) -> Result<Self, Box<apache_avro::Error>> {
        // Codecs live as long as the program; the writer and reader borrow the schema.
        let schema: &'static Schema = Box::leak(Box::new(Schema::parse_str(version.text)?));
        Ok(Self {
            version,
            schema,
            writer: GenericDatumWriter::builder(schema).human_readable(false).build()?,
            reader: GenericDatumReader::builder(schema).human_readable(false).build()?,
        })
    }
}

/// Writes a value with the newest schema of its type, framed.
pub fn encode<T: AvroEvent>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let schema = T::SCHEMA;
    let codec = manifest::latest(schema).and_then(|version| CODECS.get(&version.id)).ok_or(EncodeError::NoSchema { schema })?;
    let mut framed = Vec::with_capacity(1024);
    framed.push(MAGIC);
    framed.extend_from_slice(&codec.version.id.to_be_bytes());
    codec.writer.write_ser(&mut framed, value).map_err(|source| EncodeError::Unfit { schema, source: Box::new(source) })?;
    Ok(framed)
}

/// The schema id in a frame.
pub fn schema_id(framed: &[u8]) -> Result<u32, DecodeError> {
    match framed {
        [MAGIC, a, b, c, d, ..] => Ok(u32::from_be_bytes([*a, *b, *c, *d])),
        _ => Err(DecodeError::NotFramed),
    }
}

/// Reads a framed value of a type, whichever published version wrote it.
pub fn decode<T: AvroEvent>(framed: &[u8]) -> Result<T, DecodeError> {
    let id = schema_id(framed)?;
    let codec = CODECS.get(&id).ok_or(DecodeError::UnknownSchema { id })?;
    if codec.version.schema != T::SCHEMA {
        return Err(DecodeError::OtherType { id, found: codec.version.schema.clone(), expected: T::SCHEMA });
    }
    let malformed = |source| DecodeError::Malformed { id, source: Box::new(source) };
    let mut datum = &framed[FRAME_BYTES..];
    let newest = manifest::latest(T::SCHEMA).and_then(|version| CODECS.get(&version.id)).unwrap_or(codec);
    let value = if newest.version.id == id {
        codec.reader.read_deser(&mut datum).map_err(malformed)?
    } else {
        // apache-avro 0.22 panics in read_deser with a reader schema; the value path resolves.
        let reader = GenericDatumReader::builder(codec.schema).reader_schema(newest.schema).human_readable(false).build();
        let value = reader.and_then(|reader| reader.read_value(&mut datum)).map_err(malformed)?;
        apache_avro::from_value(&value).map_err(malformed)?
    };
    if datum.is_empty() { Ok(value) } else { Err(DecodeError::Trailing { id, left_bytes: datum.len() }) }
}

/// Reads a framed value of any catalogue type and gives it as JSON, as webhooks and the command
/// line show it.
pub fn decode_to_json(framed: &[u8]) -> Result<Value, DecodeError> {
    let id = schema_id(framed)?;
    let codec = CODECS.get(&id).ok_or(DecodeError::UnknownSchema { id })?;
    match codec.version.schema.as_str() {
        VirksomhetEndret::SCHEMA => Ok(decode::<VirksomhetEndret>(framed)?.give()),
        _ => Err(DecodeError::UnknownSchema { id }),
    }
}
