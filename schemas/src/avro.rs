//! Avro values in Confluent's frame: `0x00`, the schema id as four big-endian bytes, the datum.
//!
//! Writes with the newest schema of a type; reads every published one. Must never trust a
//! length in the data: allocation is capped, and a decoded frame must be used up to its end.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::avro_json::Plan;
use crate::document::{Decimal, ToDocument};
use crate::manifest::{self, SchemaVersion};
use crate::proeve::ProeveMaaling;
use crate::virksomhet::VirksomhetEndret;

/// The most that decoding one value may allocate, in bytes.
pub const DECODE_ALLOCATION_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Room for most values.
const VALUE_BYTES_USUAL: usize = 1024;

const MAGIC: u8 = 0;
pub(crate) const FRAME_BYTES: usize = 5;

/// Writes itself as the newest schema says. Made together with the types: a generic writer looks
/// every field up by its name, which is most of what an event costs.
pub trait WriteAvro {
    /// Appends the datum.
    fn write(&self, datum: &mut Vec<u8>);
}

/// A type that is the top-level record of a schema folder.
pub trait AvroEvent: WriteAvro + Serialize + DeserializeOwned {
    /// Folder under `schemas/avro`.
    const SCHEMA: &'static str;
}

/// An [`AvroEvent`] whose parts lie elsewhere, so that nothing is copied in order to be written.
pub trait BorrowedEvent: WriteAvro {
    /// What it is written as.
    type Event: AvroEvent;
}

impl<T: AvroEvent> BorrowedEvent for T {
    type Event = T;
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
    reader: GenericDatumReader<'static>,
    /// How it is written as JSON without detours, if it is the newest of its kind.
    plan: Option<Plan>,
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
        let newest = manifest::latest(&version.schema).is_some_and(|newest| newest.id == version.id);
        let plan = if newest { Plan::of(version.text) } else { None };
        Ok(Self { version, schema, reader: GenericDatumReader::builder(schema).human_readable(false).build()?, plan })
    }
}

/// Writes a value with the newest schema of its type, framed.
pub fn encode<T: BorrowedEvent>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let schema = T::Event::SCHEMA;
    let codec = manifest::latest(schema).and_then(|version| CODECS.get(&version.id)).ok_or(EncodeError::NoSchema { schema })?;
    let mut framed = Vec::with_capacity(VALUE_BYTES_USUAL);
    framed.push(MAGIC);
    framed.extend_from_slice(&codec.version.id.to_be_bytes());
    value.write(&mut framed);
    Ok(framed)
}

/// Zigzag, seven bits a byte, the lowest first.
pub(crate) fn write_long(value: i64, datum: &mut Vec<u8>) {
    let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while left >= 0x80 {
        datum.push((left as u8) | 0x80);
        left >>= 7;
    }
    datum.push(left as u8);
}

impl WriteAvro for str {
    fn write(&self, datum: &mut Vec<u8>) {
        write_long(self.len() as i64, datum);
        datum.extend_from_slice(self.as_bytes());
    }
}

impl<T: WriteAvro + ?Sized> WriteAvro for &T {
    fn write(&self, datum: &mut Vec<u8>) {
        (**self).write(datum);
    }
}

impl WriteAvro for String {
    fn write(&self, datum: &mut Vec<u8>) {
        self.as_str().write(datum);
    }
}

impl WriteAvro for Decimal {
    fn write(&self, datum: &mut Vec<u8>) {
        self.0.write(datum);
    }
}

impl WriteAvro for bool {
    fn write(&self, datum: &mut Vec<u8>) {
        datum.push(u8::from(*self));
    }
}

impl WriteAvro for i64 {
    fn write(&self, datum: &mut Vec<u8>) {
        write_long(*self, datum);
    }
}

impl WriteAvro for f64 {
    fn write(&self, datum: &mut Vec<u8>) {
        datum.extend_from_slice(&self.to_le_bytes());
    }
}

// Unions are always of null, which comes first, and one type.
impl<T: WriteAvro> WriteAvro for Option<T> {
    fn write(&self, datum: &mut Vec<u8>) {
        write_long(i64::from(self.is_some()), datum);
        if let Some(value) = self {
            value.write(datum);
        }
    }
}

// One block of all items, and the end.
impl<T: WriteAvro> WriteAvro for Vec<T> {
    fn write(&self, datum: &mut Vec<u8>) {
        self.as_slice().write(datum);
    }
}

impl<T: WriteAvro> WriteAvro for [T] {
    fn write(&self, datum: &mut Vec<u8>) {
        if !self.is_empty() {
            write_long(self.len() as i64, datum);
            self.iter().for_each(|item| item.write(datum));
        }
        datum.push(0);
    }
}

impl WriteAvro for BTreeMap<String, String> {
    fn write(&self, datum: &mut Vec<u8>) {
        if !self.is_empty() {
            write_long(self.len() as i64, datum);
            for (key, value) in self {
                key.write(datum);
                value.write(datum);
            }
        }
        datum.push(0);
    }
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
        ProeveMaaling::SCHEMA => Ok(decode::<ProeveMaaling>(framed)?.give()),
        _ => Err(DecodeError::UnknownSchema { id }),
    }
}

/// Appends a framed value of any catalogue type as JSON text: the same as [`decode_to_json`] says,
/// for a fraction of the cost.
pub fn write_json(framed: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let id = schema_id(framed)?;
    let before = out.len();
    let plan = CODECS.get(&id).and_then(|codec| codec.plan.as_ref());
    if plan.is_some_and(|plan| plan.write(&framed[FRAME_BYTES..], out).is_some()) {
        return Ok(());
    }
    out.truncate(before);
    let value = decode_to_json(framed)?;
    // Writing a value to memory can't fail.
    let _ = serde_json::to_writer(out, &value);
    Ok(())
}
