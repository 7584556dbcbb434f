//! Avro object containers from framed values: the datum is taken over byte for byte, behind the
//! schema that wrote it.
//!
//! Nothing is encoded anew, so that nothing can change. Must never take a datum over that does not
//! follow its schema: a container with one is unreadable from there on.

use crate::avro::{self, DecodeError, FRAME_BYTES, write_long};
use crate::manifest;

/// What stands between blocks: 16 bytes that hardly occur in data.
pub type Marker = [u8; 16];

const MAGIC: &[u8] = b"Obj\x01";

/// The datum of a framed value and its schema's id, once it is certain that it can be read.
/// `scratch` is written over.
pub fn datum<'f>(framed: &'f [u8], scratch: &mut Vec<u8>) -> Result<(u32, &'f [u8]), DecodeError> {
    let id = avro::schema_id(framed)?;
    scratch.clear();
    avro::write_json(framed, scratch)?;
    Ok((id, framed.get(FRAME_BYTES..).unwrap_or_default()))
}

/// Appends what a container of that schema begins with.
pub fn write_head(schema_id: u32, marker: &Marker, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let version = manifest::by_id(schema_id).ok_or(DecodeError::UnknownSchema { id: schema_id })?;
    out.extend_from_slice(MAGIC);
    write_long(2, out);
    for (name, value) in [("avro.schema", version.text), ("avro.codec", "null")] {
        for text in [name, value] {
            write_long(text.len() as i64, out);
            out.extend_from_slice(text.as_bytes());
        }
    }
    write_long(0, out);
    out.extend_from_slice(marker);
    Ok(())
}

/// Appends a block of that many datums.
pub fn write_block(datums: u64, bytes: &[u8], marker: &Marker, out: &mut Vec<u8>) {
    if datums == 0 {
        return;
    }
    write_long(datums.cast_signed(), out);
    write_long(bytes.len() as i64, out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(marker);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::virksomhet::VirksomhetEndret;

    fn event(number: u32) -> VirksomhetEndret {
        VirksomhetEndret {
            organisasjonsnummer: format!("3{number:08}"),
            endringstype: crate::virksomhet::Endringstype::Ny,
            endringer: vec!["/navn".to_owned()],
            funnet: "feed".to_owned(),
            kilde: "test/enheter".to_owned(),
            posisjon: number.to_string(),
            tidspunkt: None,
            virksomhetstype: "enhet".to_owned(),
            virksomhet: None,
        }
    }

    #[test]
    fn the_avro_library_reads_what_was_taken_over() {
        let marker = [7; 16];
        let (mut scratch, mut container) = (Vec::new(), Vec::new());
        write_head(manifest::latest("virksomhet").unwrap().id, &marker, &mut container).unwrap();
        for block in 0..2 {
            let mut datums = Vec::new();
            for number in 0..3 {
                let framed = avro::encode(&event(block * 3 + number)).unwrap();
                datums.extend_from_slice(datum(&framed, &mut scratch).unwrap().1);
            }
            write_block(3, &datums, &marker, &mut container);
        }
        write_block(0, &[], &marker, &mut container);
        let reader = apache_avro::Reader::new(&container[..]).unwrap();
        let found: Vec<VirksomhetEndret> = reader.map(|value| apache_avro::from_value(&value.unwrap()).unwrap()).collect();
        assert_eq!(found, (0..6).map(event).collect::<Vec<_>>());
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_over() {
        let mut scratch = Vec::new();
        let whole = avro::encode(&event(1)).unwrap();
        let longer = [&whole[..], b"x"].concat();
        for framed in [&b"x"[..], b"\x00\xff\xff\xff\xff", &whole[..whole.len() - 1], &longer] {
            assert!(datum(framed, &mut scratch).is_err());
        }
        assert!(write_head(u32::MAX, &[0; 16], &mut scratch).is_err());
    }
}
