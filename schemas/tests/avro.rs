//! Documents through Avro and back, and bytes that are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use apache_avro::Schema;
use apache_avro::writer::datum::GenericDatumWriter;
use ryggrad_schemas::avro::{self, AvroEvent, DecodeError};
use ryggrad_schemas::document::{Decimal, ToDocument};
use ryggrad_schemas::manifest;
use ryggrad_schemas::proeve::ProeveMaaling;
use ryggrad_schemas::virksomhet::{BorrowedVirksomhetEndret, Endringstype, Kapital, Virksomhet, VirksomhetEndret, state_hash};
use serde_json::{Value, json};

fn event(document: &str) -> VirksomhetEndret {
    VirksomhetEndret {
        organisasjonsnummer: "312345676".to_owned(),
        endringstype: Endringstype::Endret,
        endringer: vec!["/navn".to_owned()],
        tidspunkt: Some("2025-11-13T04:01:39Z".to_owned()),
        kilde: "enhetsregisteret/enheter".to_owned(),
        virksomhet: Some(Virksomhet::from_json(document).unwrap().unwrap()),
        ..VirksomhetEndret::default()
    }
}

/// The datum as Avro's own library writes it.
fn as_the_library_writes<T: AvroEvent>(event: &T) -> Vec<u8> {
    let schema = Schema::parse_str(manifest::latest(T::SCHEMA).unwrap().text).unwrap();
    let writer = GenericDatumWriter::builder(&schema).human_readable(false).build().unwrap();
    writer.write_ser_to_vec(event).unwrap()
}

/// What is written straight from the bytes, read again.
fn written(framed: &[u8]) -> Result<Value, DecodeError> {
    let mut text = b"[".to_vec();
    avro::write_json(framed, &mut text)?;
    Ok(serde_json::from_slice(&text[1..]).expect("JSON"))
}

#[test]
fn what_foreign_writers_put_into_the_rest_is_written_the_same_both_ways() {
    for (pointer, text) in [
        ("/navn", "\"a second name\""),
        ("/x/y", "1"),
        ("/ny", "no JSON"),
        ("/kapital/belop", "{}"),
        ("/organisasjonsform/kode/x", "1"),
        ("no pointer", "1"),
        ("", "1"),
        ("/historiskeNavn/0/nytt", " [ 1 ] "),
        ("/historiskeNavn/7/nytt", "1"),
        ("/a~1b~0", "{\"x\":1}"),
    ] {
        let mut event = event(r#"{"navn":"A \"b\" \u0001\n\u2028","organisasjonsform":{"kode":"AS"},"historiskeNavn":[{},{"navn":"X"}]}"#);
        let state = event.virksomhet.as_mut().unwrap();
        state.kapital = Some(Kapital { belop: Some(Decimal("no number".to_owned())), ..Kapital::default() });
        state.ukjente_felter.insert(pointer.to_owned(), text.to_owned());
        let framed = avro::encode(&event).unwrap();
        assert_eq!(written(&framed).unwrap(), avro::decode_to_json(&framed).unwrap(), "{pointer}");
    }
    let nested = [("/x", "{}"), ("/x/y", "1")].map(|(pointer, text)| (pointer.to_owned(), text.to_owned()));
    let state = Virksomhet { ukjente_felter: nested.into(), ..Virksomhet::default() };
    let framed = avro::encode(&VirksomhetEndret { virksomhet: Some(state), ..VirksomhetEndret::default() }).unwrap();
    assert_eq!(written(&framed).unwrap(), avro::decode_to_json(&framed).unwrap());
    assert_eq!(written(&avro::encode(&VirksomhetEndret::default()).unwrap()).unwrap().get("virksomhet"), None);
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
        let framed = avro::encode(&event(document)).unwrap();
        assert_eq!(framed[5..], as_the_library_writes(&event(document)), "{document}");
        assert_eq!(avro::encode(&BorrowedVirksomhetEndret::from(&event(document))).unwrap(), framed);
        let decoded: VirksomhetEndret = avro::decode(&framed).unwrap();
        assert_eq!(decoded, event(document));
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(decoded.virksomhet.as_ref().unwrap().give(), document);
        let shown = avro::decode_to_json(&framed).unwrap();
        assert_eq!(shown["virksomhet"], document);
        assert_eq!(written(&framed).unwrap(), shown);
        assert_eq!((&shown["endringstype"], &shown["endringer"]), (&json!("ENDRET"), &json!(["/navn"])));
    }
    for no_object in ["[]", "null", "7", " \"{}\""] {
        assert_eq!(Virksomhet::from_json(no_object).unwrap(), None);
    }
    for no_json in ["", "{", "[", "[1}", "{}}", "nul", r#"{"navn":"\ud800"}"#, r#"{"x":"\ud800"}"#, r#"{"kapital":{"belop":01}}"#] {
        assert!(Virksomhet::from_json(no_json).is_err(), "{no_json}");
    }
}

#[test]
fn what_has_no_field_is_kept_as_plain_text_however_it_was_written() {
    let document = r#" { "ny" : { "b" : [ 1.50, "\u00e5" ], "a" : {} }, "navn" : null, "mobil" : "\u0037", "hjemmeside" : 1E+2,
        "aktivitet" : [ "a", 1 ], "organisasjonsform" : { "kode" : "AS", "x/~" : "\u00c5" } }"#;
    let taken = Virksomhet::from_json(document).unwrap().unwrap();
    let rest: Vec<_> = taken.ukjente_felter.iter().map(|(pointer, text)| (pointer.as_str(), text.as_str())).collect();
    let expected = [
        ("/aktivitet", r#"["a",1]"#),
        ("/hjemmeside", "1E+2"),
        ("/navn", "null"),
        ("/ny", r#"{"a":{},"b":[1.50,"å"]}"#),
        ("/organisasjonsform/x~1~0", "\"Å\""),
    ];
    assert_eq!((rest.as_slice(), taken.mobil.as_deref()), (expected.as_slice(), Some("7")));
}

#[test]
fn of_a_member_that_stands_twice_the_last_one_counts() {
    for (twice, once) in [
        (r#"{"navn":"A","navn":"B"}"#, r#"{"navn":"B"}"#),
        (r#"{"navn":"A","navn":1}"#, r#"{"navn":1}"#),
        (r#"{"navn":1,"navn":"B"}"#, r#"{"navn":"B"}"#),
        (r#"{"x":1,"x":2}"#, r#"{"x":2}"#),
        (r#"{"kapital":{"a":1,"type":"b"},"kapitalx":1,"kapital":{}}"#, r#"{"kapital":{},"kapitalx":1}"#),
        (r#"{"kapital":{"a":1},"kapital":7,"kapital":{"type":"c"}}"#, r#"{"kapital":{"type":"c"}}"#),
    ] {
        assert_eq!(Virksomhet::from_json(twice).unwrap(), Virksomhet::from_json(once).unwrap(), "{twice}");
    }
}

#[test]
fn the_state_hash_sees_content_and_nothing_that_bulk_files_lack() {
    let of = |document| state_hash(document).unwrap();
    let plain = r#"{"navn":"A","organisasjonsform":{"kode":"AS"}}"#;
    let linked = r#"{"_links":{},"links":[],"kapital":{"belop":1},"navn":"A","organisasjonsform":{"kode":"AS","_links":{"self":1}}}"#;
    assert_eq!(of(plain), of(linked));
    assert_ne!(of(plain), of(r#"{"navn":"B","organisasjonsform":{"kode":"AS"}}"#));
    assert_ne!(of(plain), of(r#"{"navn":"A","organisasjonsform":{"kode":"AS","kapital":1}}"#));
}

#[test]
fn a_measurement_comes_back_with_every_digit_of_its_value() {
    for (verdi, shown) in [(72.0, json!(72.0)), (-0.1, json!(-0.1)), (f64::MIN_POSITIVE, json!(f64::MIN_POSITIVE)), (1e300, json!(1e300))] {
        for kommentar in [None, Some("i ro \u{1}".to_owned())] {
            let maaling = ProeveMaaling { pasient: "p1".to_owned(), verdi, kommentar: kommentar.clone(), ..ProeveMaaling::default() };
            let framed = avro::encode(&maaling).unwrap();
            assert_eq!(framed[..5], [0, 0, 0, 0, 2]);
            assert_eq!(framed[5..], as_the_library_writes(&maaling));
            assert_eq!(avro::decode::<ProeveMaaling>(&framed).unwrap(), maaling);
            let document = avro::decode_to_json(&framed).unwrap();
            assert_eq!(
                (&document["pasient"], &document["verdi"], document.get("kommentar").cloned()),
                (&json!("p1"), &shown, kommentar.map(Value::from))
            );
            assert_eq!(written(&framed).unwrap(), document);
        }
    }
    for no_number in [f64::NAN, f64::INFINITY] {
        let framed = avro::encode(&ProeveMaaling { verdi: no_number, ..ProeveMaaling::default() }).unwrap();
        assert_eq!(written(&framed).unwrap(), avro::decode_to_json(&framed).unwrap());
        assert_eq!(written(&framed).unwrap()["verdi"], Value::Null);
    }
}

#[test]
fn bytes_that_are_no_event_are_refused_and_never_crash() {
    let good = avro::encode(&event(r#"{"navn":"A","aktivitet":["b"]}"#)).unwrap();
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
        assert_eq!(written(&bytes).ok(), avro::decode_to_json(&bytes).ok(), "{bytes:?}");
    }
}
