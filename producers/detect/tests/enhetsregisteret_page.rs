//! Reading Enhetsregisteret's update pages and look-ups, good and bad.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::error::Error;

use ryggrad_detect::enhetsregisteret::{Answer, Change, PageError, oddities, read_document, read_page, reasons};
use ryggrad_detect::feed::{Entry, Item, Unreadable};
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhetstype};
use serde_json::{Value, json};

fn page(items: Value) -> Vec<Entry<Change>> {
    let body = json!({"_embedded": {"oppdaterteEnheter": items}, "page": {"totalElements": 7}});
    let page = read_page(Virksomhetstype::Enhet, body.to_string().as_bytes()).unwrap();
    assert_eq!(page.total_items, Some(7));
    page.entries
}

fn only(item: Value) -> Item<Change> {
    match page(json!([item])).pop() {
        Some(Entry::Item(item)) => item,
        other => panic!("{other:?}"),
    }
}

fn fault(item: &Value) -> Unreadable {
    match page(json!([item])).pop() {
        Some(Entry::Unreadable(unreadable)) => unreadable,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_item_is_read_whole() {
    let raw = json!({
        "oppdateringsid": 22259617, "dato": "2025-11-13T04:01:39.613Z", "organisasjonsnummer": "312345676", "endringstype": "Endring",
        "endringer": [{"op": "replace", "path": "/navn", "value": "NYTT"}], "_links": {}
    });
    let expected = Item {
        position: 22_259_617,
        key: "312345676".to_owned(),
        change: Change {
            endringstype: Endringstype::Endret,
            endringer: vec!["/navn".to_owned()],
            dato: Some("2025-11-13T04:01:39.613Z".to_owned()),
        },
        oddities: Vec::new(),
        raw: raw.to_string(),
    };
    assert_eq!(only(raw), expected);
}

#[test]
fn a_text_that_is_none_sets_its_own_item_aside_and_no_other() {
    let good = r#"{"oppdateringsid":7,"organisasjonsnummer":"312345676","endringstype":"Ny"}"#;
    for (odd, position) in [
        (r#"{"oppdateringsid":6,"dato":"\ud800"}"#, Some(6)),
        (r#"{"dato":"\ud800","oppdateringsid":6}"#, Some(6)),
        (r#"{"oppdateringsid":6,"endringer":["add","/a\udc00"]}"#, Some(6)),
        (r#"{"\ud83dx":1,"oppdateringsid":6}"#, None),
    ] {
        let body = format!(r#"{{"_embedded":{{"oppdaterteEnheter":[{odd},{good}]}},"page":{{}}}}"#);
        let entries = read_page(Virksomhetstype::Enhet, body.as_bytes()).unwrap().entries;
        let unreadable = Unreadable { position, reason: reasons::NO_TEXT, raw: odd.to_owned() };
        assert_eq!(entries.first(), Some(&Entry::Unreadable(unreadable)), "{odd}");
        assert!(matches!(&entries[1..], [Entry::Item(item)] if item.position == 7), "{odd}");
    }
}

#[test]
fn words_for_changes_are_mapped_and_unknown_ones_pass_as_ukjent() {
    for (word, expected, odd) in [
        (json!("Ny"), Endringstype::Ny, false),
        (json!("Endring"), Endringstype::Endret, false),
        (json!("Sletting"), Endringstype::Slettet, false),
        (json!("Fjernet"), Endringstype::Fjernet, false),
        (json!("Ukjent"), Endringstype::Ukjent, false),
        (json!("Oppstaatt"), Endringstype::Ukjent, true),
        (json!(7), Endringstype::Ukjent, true),
        (json!(null), Endringstype::Ukjent, true),
    ] {
        let item = only(json!({"oppdateringsid": 1, "organisasjonsnummer": "312345676", "endringstype": word}));
        assert_eq!(item.change.endringstype, expected, "{word}");
        assert_eq!(item.oddities == [oddities::UNKNOWN_ENDRINGSTYPE], odd, "{word}");
    }
}

#[test]
fn a_wrong_check_digit_and_unreadable_endringer_are_counted_and_stop_nothing() {
    let item = only(json!({"oppdateringsid": "12", "organisasjonsnummer": "123456789", "endringstype": "Ny", "endringer": "x", "dato": 7}));
    assert_eq!((item.position, item.key.as_str()), (12, "123456789"));
    assert_eq!(item.oddities, [oddities::CHECK_DIGIT, oddities::ENDRINGER]);
    assert_eq!((item.change.endringer.len(), item.change.dato), (0, None));
}

#[test]
fn a_malformed_item_is_set_aside_with_its_position_and_content() {
    for (raw, position, reason) in [
        (json!(7), None, reasons::NO_OBJECT),
        (json!([]), None, reasons::NO_OBJECT),
        (json!({}), None, reasons::NO_POSITION),
        (json!({"oppdateringsid": null, "organisasjonsnummer": "312345676"}), None, reasons::NO_POSITION),
        (json!({"oppdateringsid": -1, "organisasjonsnummer": "312345676"}), None, reasons::NO_POSITION),
        (json!({"oppdateringsid": 1.5, "organisasjonsnummer": "312345676"}), None, reasons::NO_POSITION),
        (json!({"oppdateringsid": 9}), Some(9), reasons::NO_KEY),
        (json!({"oppdateringsid": 9, "organisasjonsnummer": "12345"}), Some(9), reasons::NO_KEY),
        (json!({"oppdateringsid": 9, "organisasjonsnummer": 312345676}), Some(9), reasons::NO_KEY),
        (json!({"oppdateringsid": 9, "organisasjonsnummer": "31234567a"}), Some(9), reasons::NO_KEY),
    ] {
        assert_eq!(fault(&raw), Unreadable { position, reason, raw: raw.to_string() });
    }
}

#[test]
fn one_bad_item_does_not_stop_the_others() {
    let good = |id: u64| json!({"oppdateringsid": id, "organisasjonsnummer": "312345676", "endringstype": "Ny"});
    let entries = page(json!([good(1), null, good(3)]));
    assert!(matches!(&entries[..], [Entry::Item(_), Entry::Unreadable(_), Entry::Item(_)]));
}

#[test]
fn an_empty_page_is_empty_however_it_is_written() {
    for body in [
        r#"{"page":{"totalElements":0}}"#,
        r#"{"_links":{},"page":{"totalElements":0}}"#,
        r#"{"_embedded":{},"page":{}}"#,
        r#"{"_embedded":null,"page":{}}"#,
        r#"{"_embedded":{"oppdaterteEnheter":[]}}"#,
        "\u{feff}{\"page\":{}}",
    ] {
        assert!(read_page(Virksomhetstype::Enhet, body.as_bytes()).unwrap().entries.is_empty(), "{body}");
    }
}

#[test]
fn what_is_no_page_is_an_error_that_says_so_and_quotes_nothing() {
    let table = [
        ("<html><body>hemmelig</body></html>", "HTML"),
        ("\u{feff}\n <!DOCTYPE html>hemmelig", "HTML"),
        ("", "not JSON"),
        ("hemmelig", "not JSON"),
        (r#"{"_embedded":{"oppdaterteEnheter":[{"navn":"hemmelig"#, "not JSON"),
        (r#"{"status":500,"feilmelding":"hemmelig"}"#, "no HAL page"),
        (r#"{"_embedded":{"oppdaterteUnderenheter":[]}}"#, "no HAL page"),
        (r#"{"_embedded":{"oppdaterteEnheter":{}}}"#, "no HAL page"),
        (r#"{"_embedded":["hemmelig"]}"#, "no HAL page"),
        (r#"["hemmelig"]"#, "no HAL page"),
        (r#""hemmelig""#, "no HAL page"),
        ("null", "no HAL page"),
    ];
    for (body, says) in table {
        let error = read_page(Virksomhetstype::Enhet, body.as_bytes()).unwrap_err();
        let text = format!("{error}: {:?}", error.source().map(ToString::to_string));
        assert!(text.contains(says) && !text.contains("hemmelig"), "{body}: {text}");
        assert_eq!(matches!(error, PageError::Html { .. }), says == "HTML", "{body}");
    }
}

#[test]
fn a_document_must_be_the_unit_that_was_asked_for() {
    let asked = "312345676";
    let good = read_document(asked, br#"{"organisasjonsnummer":"312345676","navn":"A"}"#).unwrap();
    let Answer::State(state) = good else { panic!("{good:?}") };
    assert_eq!(state.virksomhet.navn.as_deref(), Some("A"));
    for (body, reason) in [
        ("[]", reasons::DOCUMENT_NO_OBJECT),
        ("7", reasons::DOCUMENT_NO_OBJECT),
        ("null", reasons::DOCUMENT_NO_OBJECT),
        ("{}", reasons::DOCUMENT_OTHER_KEY),
        (r#"{"organisasjonsnummer":"212345679"}"#, reasons::DOCUMENT_OTHER_KEY),
        (r#"{"organisasjonsnummer":312345676}"#, reasons::DOCUMENT_OTHER_KEY),
    ] {
        let Answer::Unusable(unmapped) = read_document(asked, body.as_bytes()).unwrap() else { panic!("{body}") };
        assert_eq!((unmapped.reason, unmapped.raw.as_deref()), (reason, Some(body.as_bytes())), "{body}");
    }
}

#[test]
fn a_look_up_that_answers_no_json_is_an_error_and_not_a_document() {
    for body in ["", "<html>", r#"{"organisasjonsnummer":"31"#] {
        assert!(read_document("312345676", body.as_bytes()).is_err(), "{body}");
    }
}
