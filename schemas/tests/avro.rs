//! Documents through Avro and back, and bytes that are none.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use ryggrad_schemas::avro::{self, DecodeError};
use ryggrad_schemas::document::ToDocument;
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhet, VirksomhetEndret, state_hash};
use serde_json::{Value, json};

fn event(document: Value) -> VirksomhetEndret {
    VirksomhetEndret {
        organisasjonsnummer: "312345676".to_owned(),
        endringstype: Endringstype::Endret,
        endringer: vec!["/navn".to_owned()],
        virksomhet: Some(Virksomhet::from_document(document).unwrap()),
        ..VirksomhetEndret::default()
    }
}

#[test]
fn whatever_a_document_holds_comes_back() {
    // Numbers must keep their digits, so the documents are texts.
    for document in [
        r#"{}"#,
        r#"{"navn":"ÆØÅ 🏥","antallAnsatte":12249,"konkurs":false}"#,
        r#"{"antallAnsatte":-1,"kapital":{"belop":30000.00,"antallAksjer":1E+2,"type":"Aksjekapital"}}"#,
        r#"{"antallAnsatte":12.0,"konkurs":"nei","navn":null,"hjemmeside":17}"#,
        r#"{"paategninger":[],"aktivitet":["a","b"],"historiskeNavn":[{"navn":"X","nytt":1},{"navn":null}]}"#,
        r#"{"aktivitet":["a",1],"historiskeNavn":[1],"kapital":[],"forretningsadresse":"Storgata 1"}"#,
        r#"{"_links":{"self":{"href":"x"}},"organisasjonsform":{"kode":"AS","_links":{"self":{"href":"y"}}}}"#,
        r#"{"et/skråstrek":1,"en~tilde":2,"":3,"dyp":{"a":{"b":[null,true,0.10]}},"ukjenteFelter":{"/navn":"lure"}}"#,
        r#"{"antallAnsatte":123456789012345678901234567890,"kapital":{"belop":0.1000000000000000055511151231257827}}"#,
    ] {
        let document: Value = serde_json::from_str(document).unwrap();
        let framed = avro::encode(&event(document.clone())).unwrap();
        let decoded: VirksomhetEndret = avro::decode(&framed).unwrap();
        assert_eq!(decoded, event(document.clone()));
        assert_eq!(decoded.virksomhet.as_ref().unwrap().give(), document);
        let shown = avro::decode_to_json(&framed).unwrap();
        assert_eq!(shown["virksomhet"], document);
        assert_eq!((&shown["endringstype"], &shown["endringer"]), (&json!("ENDRET"), &json!(["/navn"])));
    }
    assert_eq!(Virksomhet::from_document(json!([])), None);
}

#[test]
fn the_state_hash_sees_content_and_no_links() {
    let plain = json!({"navn": "A", "organisasjonsform": {"kode": "AS"}});
    let linked = json!({"_links": {}, "links": [], "navn": "A", "organisasjonsform": {"kode": "AS", "_links": {"self": 1}}});
    assert_eq!(state_hash(&plain), state_hash(&linked));
    assert_ne!(state_hash(&plain), state_hash(&json!({"navn": "B", "organisasjonsform": {"kode": "AS"}})));
}

#[test]
fn bytes_that_are_no_event_are_refused_and_never_crash() {
    let good = avro::encode(&event(json!({"navn": "A", "aktivitet": ["b"]}))).unwrap();
    assert!(matches!(avro::decode_to_json(b""), Err(DecodeError::NotFramed)));
    assert!(matches!(avro::decode_to_json(b"{\"navn\":1}"), Err(DecodeError::NotFramed)));
    assert!(matches!(avro::decode_to_json(&[0, 0, 0, 9, 9, 1]), Err(DecodeError::UnknownSchema { id: 2313 })));
    assert!(matches!(avro::decode_to_json(&[&good[..], &[0]].concat()), Err(DecodeError::Trailing { left_bytes: 1, .. })));
    for length in 5..good.len() {
        assert!(avro::decode_to_json(&good[..length]).is_err(), "cut at {length}");
    }
    // A length that claims more than there is must not be believed.
    assert!(avro::decode_to_json(&[0, 0, 0, 0, 1, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]).is_err());
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    for _ in 0..20_000 {
        let mut bytes = good.clone();
        for _ in 0..3 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let index = 5 + (noise as usize) % (bytes.len() - 5);
            bytes[index] ^= (noise >> 32) as u8 | 1;
        }
        // Either reading is fine; a panic or a giant allocation is not.
        let _ = avro::decode_to_json(&bytes);
    }
}
