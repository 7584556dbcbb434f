//! JSON taken apart without building values, and a registry's documents on their way into events and back.
//!
//! Laws: a text is JSON here exactly if it is to another parser; its normal form is one, and says the same; a document comes
//! back from its event without losing anything; the fast writer and the careful reader say the same.

use ryggrad_detect::enhetsregisteret::{Answer, read_document};
use ryggrad_schemas::avro;
use ryggrad_schemas::document::ToDocument;
use ryggrad_schemas::fingerprint::fingerprint;
use ryggrad_schemas::json_text::{self, DEPTH_MAX, Kind};
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhet, VirksomhetEndret, state_hash};
use serde_json::Value;

use crate::parts::{is_plain, tells_nothing_of, told};

const ASKED: &str = "312345676";

/// Whether a text is JSON, as our scanner sees it.
fn scans(whole: &str) -> Option<bool> {
    match json_text::kind(whole) {
        Kind::Object => Some(json_text::members(whole, |_, part| part_holds(part)).is_ok()),
        Kind::Array => Some(json_text::items(whole, |_, part| part_holds(part)).is_ok()),
        _ => None,
    }
}

fn part_holds(part: &str) -> Result<(), serde_json::Error> {
    assert!(json_text::check(part).is_ok(), "a part that is no JSON: {part:?}");
    assert_eq!(part.trim_matches([' ', '\t', '\n', '\r']), part);
    Ok(())
}

/// Whether a text has half of a pair of surrogates, which no text of ours can hold.
fn has_half(text: &str) -> bool {
    text.to_ascii_lowercase().contains("\\ud")
}

pub(crate) fn json(input: &[u8]) -> bool {
    let Ok(text) = json_text::from_utf8(input) else { return false };
    let expected = json_text::check(text).is_ok();
    let Ok(whole) = json_text::whole(text) else {
        assert!(!expected, "JSON is refused");
        return false;
    };
    if let Some(found) = scans(whole) {
        assert!(found == expected || (expected && has_half(text)), "found JSON: {found}, another parser: {expected}");
    }
    let Ok(normal) = json_text::normal(whole) else {
        assert!(!expected || has_half(text) || depth(whole) > DEPTH_MAX, "JSON has no normal form");
        return false;
    };
    if !expected {
        return false;
    }
    assert_eq!(json_text::normal(&normal).unwrap(), normal);
    let print = fingerprint(&normal, |_, _| false).unwrap();
    assert_eq!(fingerprint(&spaced(&normal), |_, _| false).unwrap(), print, "white space counts");
    if let Ok(value) = serde_json::from_str::<Value>(whole)
        && is_plain(text)
    {
        assert_eq!(serde_json::from_str::<Value>(&normal).unwrap(), value, "its normal form says something else");
    }
    true
}

/// The same with white space wherever there may be some.
fn spaced(json: &str) -> String {
    let (mut spaced, mut in_text, mut escaped) = (String::new(), false, false);
    for letter in json.chars() {
        let stands_alone = !in_text && "{}[],:".contains(letter);
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_text = !in_text,
            _ => {}
        }
        spaced.push(letter);
        if stands_alone {
            spaced.push_str(" \r\n\t");
        }
    }
    spaced
}

/// How deep brackets nest, texts aside.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => depth += 1,
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

pub(crate) fn json_seeds() -> Vec<Vec<u8>> {
    [
        r#"{ "navn" : "Blåbær & \"Ærlig\" AS" , "a":[ 1, -0.5e+10, {} ,[]], "b\u00e5" : {"c":null,"d":[true , false]} }"#,
        "[[[{\"a\":[1,{\"b\":\"\\u0041\\n\\/\"}]}]],\"0123456789 abcdef\", 0, -1, 10.25E-3]\n",
        r#"{"a":1,"a":{"b":2},"a":"\ud83d\ude00"}"#,
        "-0",
        " [ null ] ",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn document(input: &[u8]) -> bool {
    let state = match read_document(ASKED, input) {
        Ok(Answer::State(state)) => state,
        Ok(_) => return false,
        Err(error) => {
            tells_nothing_of(&told(&error), input);
            return false;
        }
    };
    let text = std::str::from_utf8(input.strip_prefix(b"\xef\xbb\xbf").unwrap_or(input)).unwrap();
    assert_eq!(state.virksomhet.organisasjonsnummer.as_deref(), Some(ASKED));
    assert_eq!(state_hash(text).unwrap(), state.state_hash);
    let given = state.virksomhet.give();
    if let Ok(value) = serde_json::from_str::<Value>(text)
        && is_plain(text)
    {
        assert_eq!(given, value, "the document comes back as another");
    }
    // The JSON library writes an exponent in its own way, so that texts may differ.
    let again = Virksomhet::from_json(&given.to_string()).unwrap().unwrap();
    assert_eq!(again.give(), given);
    let event = VirksomhetEndret {
        organisasjonsnummer: ASKED.to_owned(),
        endringstype: Endringstype::Endret,
        endringer: vec!["/navn".to_owned()],
        funnet: "feed".to_owned(),
        kilde: "k".to_owned(),
        posisjon: "1".to_owned(),
        tidspunkt: None,
        virksomhetstype: "enhet".to_owned(),
        virksomhet: Some(state.virksomhet),
    };
    let framed = avro::encode(&event).unwrap();
    assert_eq!(avro::decode::<VirksomhetEndret>(&framed).unwrap(), event);
    written_alike(&framed);
    true
}

/// The fast writer against the careful reader, whose word is taken. Whether they can read it.
pub(crate) fn written_alike(framed: &[u8]) -> bool {
    let mut fast = b"before".to_vec();
    match (avro::write_json(framed, &mut fast), avro::decode_to_json(framed)) {
        (Ok(()), Ok(careful)) => {
            let fast = fast.strip_prefix(b"before").expect("what was there is written over");
            let fast = std::str::from_utf8(fast).expect("no text");
            assert!(json_text::check(fast).is_ok(), "no JSON: {fast}");
            if let Ok(value) = serde_json::from_str::<Value>(fast)
                && is_plain(fast)
            {
                assert_eq!(value, careful, "the fast writer says something else");
            }
            true
        }
        (Err(fast), Err(careful)) => {
            assert_eq!(fast.to_string(), careful.to_string());
            tells_nothing_of(&told(&fast), framed);
            false
        }
        (fast, careful) => panic!("one of them can read it: {fast:?} {careful:?}"),
    }
}

pub(crate) fn document_seeds() -> Vec<Vec<u8>> {
    [
        r#"{"organisasjonsnummer":"312345676","navn":"BLÅBÆR AS","organisasjonsform":{"kode":"AS","beskrivelse":"Aksjeselskap","_links":{}},"antallAnsatte":7,"konkurs":false,"registreringsdatoEnhetsregisteret":"2020-01-01","kapital":{"belop":30000.00,"antallAksjer":30000,"type":"Aksjekapital"},"ukjent/felt~":{"b":[1,2.50],"a":null},"_links":{"self":{"href":"https://x"}}}"#,
        r#"{"organisasjonsnummer":"312345676","navn":null,"antallAnsatte":"7","forretningsadresse":{"adresse":["Gata 1",""],"kommunenummer":"0301","poststed":null,"ny":[{}]},"naeringskode1":{"kode":"01.110","rar":true},"historikk":[],"slettedato":"2021-02-03"}"#,
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
