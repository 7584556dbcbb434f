//! The mapping of items and look-ups to events, and the batches made of them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use ryggrad_detect::batch::{Batch, before_blocked};
use ryggrad_detect::enhetsregisteret::{Answer, Change, Feed, gone, oddities, read_document, read_page, reasons, unknown};
use ryggrad_detect::event::{Consequence, Event};
use ryggrad_detect::feed::{self, Item, Step};
use ryggrad_detect::position::FeedPosition;
use ryggrad_schemas::avro::decode;
use ryggrad_schemas::cloudevents::{Attributes, STATE_HASH_HEADER};
use ryggrad_schemas::event_id::event_id;
use ryggrad_schemas::virksomhet::{VirksomhetEndret, Virksomhetstype};
use ryggrad_schemas::{Catalogue, LogRecord};
use serde_json::json;

const KEY: &str = "312345676";

fn registry(name: &'static str) -> Feed<'static> {
    let catalogue = Catalogue::built_in();
    let source = catalogue.source("enhetsregisteret").unwrap();
    Feed::new(source, catalogue.event(&source.event).unwrap(), name).unwrap()
}

fn steps(items: &[(u64, &str, &str)]) -> Vec<Step<Change>> {
    let item = |(id, key, word): &(u64, &str, &str)| {
        json!({"oppdateringsid": id, "organisasjonsnummer": key, "endringstype": word, "dato": "2025-11-13T04:01:39.613Z",
               "endringer": ["replace", "/navn", "A"]})
    };
    let items: Vec<_> = items.iter().map(item).collect();
    let body = json!({"_embedded": {"oppdaterteEnheter": items}});
    let page = read_page(Virksomhetstype::Enhet, body.to_string().as_bytes()).unwrap();
    feed::arrange(page, 0, 1000).unwrap().steps
}

fn item(word: &str) -> Item<Change> {
    steps(&[(17, KEY, word)]).remove(0).items.remove(0)
}

fn document() -> Answer {
    let body = json!({"organisasjonsnummer": KEY, "navn": "A", "organisasjonsform": {"kode": "AS"}, "naeringskode1": {"kode": "86.101"},
                      "forretningsadresse": {"kommunenummer": "5001"}});
    read_document(KEY, body.to_string().as_bytes()).unwrap()
}

fn attributes(event: &Event) -> Attributes {
    let (topic, headers) = (event.topic.clone(), event.headers.clone());
    let record = LogRecord { topic, partition: 0, offset: 0, timestamp_ms: 0, key: Some(event.key.clone()), value: None, headers };
    Attributes::from_record(&record).unwrap()
}

fn value(event: &Event) -> VirksomhetEndret {
    decode(&event.value).unwrap()
}

#[test]
fn every_word_and_every_answer_has_its_event_or_its_reason() {
    let unusable = read_document(KEY, b"[]").unwrap();
    let with_state = |symbol: &'static str| Ok((symbol, true));
    let without = |symbol: &'static str| Ok((symbol, false));
    let (lost, bad, failed) = (Err(reasons::UNKNOWN), Err(reasons::DOCUMENT_NO_OBJECT), Err(reasons::LOOK_UP_FAILED));
    let removed = without("FJERNET");
    let answers = [Some(document()), Some(gone()), Some(unknown()), Some(unusable), None];
    let table = [
        // word, 200, 410, 404, unusable, failed
        ("Ny", [with_state("NY"), removed, lost, bad, failed]),
        ("Endring", [with_state("ENDRET"), removed, lost, bad, failed]),
        ("Sletting", [with_state("SLETTET"), removed, without("SLETTET"), bad, failed]),
        ("Fjernet", [removed; 5]),
        ("Ukjent", [with_state("UKJENT"), removed, lost, bad, failed]),
        ("Oppstaatt", [with_state("UKJENT"), removed, lost, bad, failed]),
    ];
    for (word, expected) in table {
        for (answer, expected) in answers.iter().zip(expected) {
            let found = registry("enheter").event(&item(word), answer.as_ref());
            let shown = found
                .as_ref()
                .map(|event| (event.endringstype(), event.headers.get(STATE_HASH_HEADER).is_some()))
                .map_err(|unmapped| unmapped.reason);
            assert_eq!(shown, expected, "{word} {answer:?}");
            let Ok(event) = found else { continue };
            let value = value(&event);
            assert_eq!((value.endringstype.symbol(), value.virksomhet.is_some()), expected.unwrap(), "{word} {answer:?}");
            let consequence = match event.endringstype() {
                "FJERNET" => Consequence::Removed,
                "SLETTET" => Consequence::Ends,
                _ => Consequence::Lives,
            };
            assert_eq!(event.consequence, consequence, "{word} {answer:?}");
        }
    }
}

#[test]
fn a_removal_needs_no_look_up_and_everything_else_does() {
    for (word, expected) in [("Fjernet", false), ("Ny", true), ("Endring", true), ("Sletting", true), ("Oppstaatt", true)] {
        assert_eq!(Feed::needs_look_up(&item(word)), expected, "{word}");
    }
}

#[test]
fn an_event_tells_who_what_when_where_and_how() {
    for (name, kind) in [("enheter", "enhet"), ("underenheter", "underenhet")] {
        let event = registry(name).event(&item("Endring"), Some(&document())).unwrap();
        let value = value(&event);
        assert_eq!((event.topic.as_str(), event.key.as_str()), ("grunndata.virksomhet.v1", KEY));
        assert_eq!((value.organisasjonsnummer.as_str(), value.virksomhetstype.as_str()), (KEY, kind));
        assert_eq!((value.funnet.as_str(), value.posisjon.as_str()), ("feed", "17"));
        assert_eq!((value.kilde, value.endringer), (format!("enhetsregisteret/{name}"), vec!["/navn".to_owned()]));
        assert_eq!(value.tidspunkt.as_deref(), Some("2025-11-13T04:01:39.613Z"));
        let attributes = attributes(&event);
        assert_eq!(attributes.source, format!("urn:ryggrad:enhetsregisteret:{name}"));
        assert_eq!(attributes.id, event_id(&attributes.source, "17", KEY, "").to_string());
        assert_eq!(attributes.subject.as_deref(), Some(KEY));
        assert_eq!(attributes.time.as_deref(), Some("2025-11-13T04:01:39.613Z"));
        let extensions: Vec<_> = attributes.extensions.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("endringstype", "ENDRET"),
            ("funnet", "feed"),
            ("kommunenummer", "5001"),
            ("naeringskode", "86.101"),
            ("organisasjonsform", "AS"),
            ("virksomhetstype", kind),
        ];
        assert_eq!(extensions, expected);
    }
}

#[test]
fn a_moment_in_the_registrys_own_form_stays_in_the_value_and_out_of_the_attributes() {
    let mut item = item("Ny");
    item.change.dato = Some("2025-11-13T04:01:39.613+0000".to_owned());
    let event = registry("enheter").event(&item, Some(&document())).unwrap();
    assert_eq!(value(&event).tidspunkt, item.change.dato);
    assert_eq!(attributes(&event).time, None);
}

#[test]
fn a_state_that_kafka_would_not_take_is_set_aside() {
    let body = json!({"organisasjonsnummer": KEY, "navn": "A".repeat(900_000)}).to_string();
    let answer = read_document(KEY, body.as_bytes()).unwrap();
    let unmapped = registry("enheter").event(&item("Ny"), Some(&answer)).unwrap_err();
    assert_eq!((unmapped.reason, unmapped.raw), (reasons::TOO_LARGE, None));
}

#[test]
fn only_the_registrys_own_feeds_are_known() {
    let catalogue = Catalogue::built_in();
    let source = catalogue.source("enhetsregisteret").unwrap();
    let event_type = catalogue.event(&source.event).unwrap();
    assert!(source.feeds.iter().all(|feed| Feed::new(source, event_type, feed).is_ok()));
    assert!(Feed::new(source, event_type, "roller").is_err());
}

#[test]
fn a_batch_holds_every_item_once_and_its_position_last() {
    let base = Some(FeedPosition { position: 10, count: 100 });
    let steps =
        steps(&[(11, KEY, "Ny"), (12, "212345679", "Endring"), (15, KEY, "Sletting"), (19, KEY, "Fjernet"), (20, "123456789", "Ny")]);
    let mut batch = Batch::assemble(base, &steps, |item| {
        let answer = if item.key == KEY { document() } else { unknown() };
        registry("enheter").event(item, Some(&answer))
    });
    assert_eq!((batch.base, batch.next), (base, FeedPosition { position: 20, count: 103 }));
    let events = batch.tally.events.iter().map(|(name, count)| (name.as_str(), *count)).collect::<Vec<_>>();
    assert_eq!(events, [("FJERNET", 1), ("NY", 1), ("SLETTET", 1)]);
    assert_eq!(batch.tally.quarantined.iter().collect::<Vec<_>>(), [(&reasons::UNKNOWN.code, &2)]);
    assert_eq!(batch.tally.oddities.iter().collect::<Vec<_>>(), [(&oddities::CHECK_DIGIT, &1)]);
    assert_eq!(batch.doubtful.iter().collect::<Vec<_>>(), ["123456789", "212345679"]);
    assert_eq!(batch.quarantined.iter().map(|found| found.position).collect::<Vec<_>>(), [12, 20]);

    let source = Catalogue::built_in().source("enhetsregisteret").unwrap();
    let sealed = batch.quarantined.iter().map(|found| found.to_record(source, "enheter", vec![0])).collect();
    let topics: Vec<_> =
        batch.take_records(source, "enheter", sealed).into_iter().map(|record| (record.topic, record.value.is_some())).collect();
    let (virksomhet, quarantine) = ("grunndata.virksomhet.v1", "ryggrad.quarantine");
    let expected = [
        (virksomhet, true),
        (virksomhet, true),
        (virksomhet, false),
        (virksomhet, true),
        (virksomhet, false),
        (quarantine, true),
        (quarantine, true),
        ("ryggrad.source-positions", true),
    ];
    assert_eq!(topics, expected.map(|(topic, value)| (topic.to_owned(), value)));
}

#[test]
fn two_batches_in_one_transaction_are_what_one_would_have_been() {
    let base = Some(FeedPosition { position: 10, count: 100 });
    let all = [(11, KEY, "Ny"), (12, "212345679", "Endring"), (15, KEY, "Sletting"), (20, "123456789", "Ny"), (21, KEY, "Ny")];
    let made = |base, items: &[_]| {
        Batch::assemble(base, &steps(items), |item| {
            let answer = if item.key == KEY { document() } else { unknown() };
            registry("enheter").event(item, Some(&answer))
        })
    };
    for at in 0..=all.len() {
        let mut batch = made(base, &all[..at]);
        let later = made(Some(batch.next), &all[at..]);
        batch.append(later);
        assert_eq!(batch, made(base, &all), "{at}");
    }
}

#[test]
fn a_batch_that_only_moves_keeps_the_count() {
    let stored = FeedPosition { position: 10, count: 100 };
    let base = Some(stored);
    assert_eq!(Batch::moving(base, 12).next, FeedPosition { position: 12, count: 100 });
    assert_eq!(Batch::moving(None, 12).next, FeedPosition { position: 12, count: 0 });
    assert_eq!(Batch::assemble::<()>(base, &[], |_| unreachable!()).next, stored);
}

#[test]
fn what_lies_before_a_blocked_item_goes_on() {
    let all = [(11, KEY, "Ny"), (12, "212345679", "Ny"), (13, KEY, "Ny")];
    for (blocked, expected) in [("212345679", vec![11]), (KEY, vec![]), ("", vec![11, 12, 13])] {
        let free = before_blocked(steps(&all), |item| item.key == blocked);
        assert_eq!(free.iter().map(|step| step.position).collect::<Vec<_>>(), expected, "{blocked}");
    }
}
