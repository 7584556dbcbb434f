//! Documents recorded from Enhetsregisteret go through whole.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::path::{Path, PathBuf};

use ryggrad_detect::enhetsregisteret::{Answer, Feed, gone, oddities, read_document, read_page, unknown};
use ryggrad_detect::feed::{self, Entry};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::avro::{decode, encode};
use ryggrad_schemas::document::ToDocument;
use ryggrad_schemas::virksomhet::{Virksomhet, VirksomhetEndret, Virksomhetstype};
use serde_json::Value;

/// The recordings lie beside the clone; without them there is nothing to test here.
fn recordings() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/enhetsregisteret");
    if !folder.is_dir() {
        eprintln!("not tested: there are no recordings in {}", folder.display());
        return None;
    }
    Some(folder)
}

fn json_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            json_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            found.push(path);
        }
    }
}

/// Every unit in a file: the document itself, or those in its lists.
fn units(value: Value, found: &mut Vec<Value>) {
    match value {
        Value::Object(members) if members.contains_key("organisasjonsform") && members.contains_key("organisasjonsnummer") => {
            found.push(Value::Object(members));
        }
        Value::Object(members) => members.into_iter().for_each(|(_, value)| units(value, found)),
        Value::Array(items) => items.into_iter().for_each(|value| units(value, found)),
        _ => {}
    }
}

fn all_units(folder: &Path) -> Vec<Value> {
    let (mut files, mut found) = (Vec::new(), Vec::new());
    json_files(folder, &mut files);
    for file in files {
        units(serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap(), &mut found);
    }
    assert!(found.len() >= 20, "only {} units", found.len());
    found
}

#[test]
fn every_recorded_unit_comes_back_from_avro_as_it_was() {
    let Some(folder) = recordings() else { return };
    for document in all_units(&folder) {
        let virksomhet = Virksomhet::from_json(&document.to_string()).unwrap().unwrap();
        let event = VirksomhetEndret { virksomhet: Some(virksomhet), ..VirksomhetEndret::default() };
        let decoded: VirksomhetEndret = decode(&encode(&event).unwrap()).unwrap();
        assert_eq!(decoded.virksomhet.unwrap().give(), document);
    }
}

#[test]
fn every_recorded_unit_is_a_usable_answer_and_an_event_that_gives_it_back() {
    let Some(folder) = recordings() else { return };
    let catalogue = Catalogue::built_in();
    let source = catalogue.source("enhetsregisteret").unwrap();
    let registry = Feed::new(source, catalogue.event(&source.event).unwrap(), "enheter").unwrap();
    for document in all_units(&folder) {
        let key = document["organisasjonsnummer"].as_str().unwrap().to_owned();
        let answer = read_document(&key, document.to_string().as_bytes()).unwrap();
        assert!(matches!(answer, Answer::State(_)), "{answer:?}");
        let item = serde_json::json!({"oppdateringsid": 1, "organisasjonsnummer": key, "endringstype": "Endring"});
        let page = serde_json::json!({"_embedded": {"oppdaterteEnheter": [item]}}).to_string();
        let page = read_page(Virksomhetstype::Enhet, page.as_bytes()).unwrap();
        let Some(Entry::Item(item)) = page.entries.first() else { panic!("{page:?}") };
        let event = registry.event(item, Some(&answer)).unwrap();
        let value: VirksomhetEndret = decode(&event.value).unwrap();
        assert_eq!(value.virksomhet.unwrap().give(), document);
    }
}

#[test]
fn the_recorded_page_becomes_its_events_with_anonymised_numbers_and_all() {
    let Some(folder) = recordings() else { return };
    let body = std::fs::read(folder.join("navikt-pia_oppdatering-underenhet-response.json")).unwrap();
    let page = read_page(Virksomhetstype::Underenhet, &body).unwrap();
    assert_eq!((page.entries.len(), page.total_items), (10, Some(10)));
    let arranged = feed::arrange(page, 14_757_179, 1000).unwrap();
    assert_eq!((arranged.overlap_items, arranged.duplicate_items, arranged.waiting_items), (0, 0, 0));
    let catalogue = Catalogue::built_in();
    let source = catalogue.source("enhetsregisteret").unwrap();
    let registry = Feed::new(source, catalogue.event(&source.event).unwrap(), "underenheter").unwrap();
    let items: Vec<_> = arranged.steps.iter().flat_map(|step| &step.items).collect();
    let symbols: Vec<_> = items
        .iter()
        .map(|item| {
            let answer = if item.position == 14_757_185 { gone() } else { unknown() };
            registry.event(item, Some(&answer)).map_or("-", |event| match event.endringstype() {
                "FJERNET" => "F",
                "SLETTET" => "S",
                _ => "?",
            })
        })
        .collect();
    assert_eq!(symbols.concat(), "FSFSS-S--S");
    let wrong = items.iter().filter(|item| item.oddities == [oddities::CHECK_DIGIT]).count();
    assert_eq!((wrong, arranged.steps.last().unwrap().position), (1, 14_757_205));
}
