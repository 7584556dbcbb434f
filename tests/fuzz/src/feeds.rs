//! A registry's feed, page by page, and its dump, piece by piece.
//!
//! Laws: nothing of a page is dropped, whatever stands beside it; positions only move forwards; an error repeats nothing;
//! a dump in pieces is the same dump, and is whole exactly if another parser finds an array in it.

use ryggrad_detect::enhetsregisteret::{Change, Feed, read_page, repaired};
use ryggrad_detect::feed::{self, Entry, Page};
use ryggrad_detect::snapshot::Format;
use ryggrad_detect::snapshot::rows::Rows;
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::json_text;
use ryggrad_schemas::virksomhet::Virksomhetstype;

use crate::documents::document_seeds;
use crate::parts::{choose, seed, tells_nothing_of, told};

const AFTER: u64 = 17;
const ROW_BYTES_MAX: usize = 4_096;
const GOOD: &str = r#"{"oppdateringsid":18,"organisasjonsnummer":"312345676","endringstype":"Ny","dato":"2026-01-01T00:00:00Z"}"#;
const LATER: &str = r#"{"oppdateringsid":4000000000,"organisasjonsnummer":"923609016","endringstype":"Endring","endringer":["replace","/navn","A","remove","/mobil"]}"#;

pub(crate) fn page(input: &[u8]) -> bool {
    match choose(input, 3) {
        Some((0, body)) => match read_page(Virksomhetstype::Enhet, body) {
            Ok(page) => {
                holds(page);
                true
            }
            Err(error) => {
                tells_nothing_of(&told(&error), body);
                false
            }
        },
        // One item among good ones, whatever it is.
        Some((1, item)) => {
            let Some(item) = std::str::from_utf8(item).ok().filter(|item| json_text::check(item).is_ok()) else { return false };
            let body = format!(r#"{{"_embedded":{{"oppdaterteEnheter":[{GOOD},{item},{LATER}]}},"page":{{"totalElements":3}}}}"#);
            let page = read_page(Virksomhetstype::Enhet, body.as_bytes()).expect("one item stops the others");
            assert_eq!(page.entries.len(), 3);
            let good = |entry: &Entry<Change>, raw: &str| matches!(entry, Entry::Item(item) if item.raw == raw && item.oddities.is_empty());
            assert!(good(&page.entries[0], GOOD) && good(&page.entries[2], LATER));
            let taken = matches!(page.entries[1], Entry::Item(_));
            holds(page);
            taken
        }
        // What was set aside, once more.
        Some((_, raw)) => {
            let named = repaired(AFTER, raw, Some("923609016"));
            assert!(named.as_ref().is_none_or(|item| item.position == AFTER && item.key == "923609016"));
            assert!(repaired(AFTER, raw, None).is_none_or(|item| item.position == AFTER));
            named.is_some()
        }
        None => false,
    }
}

fn holds(page: Page<Change>) {
    for entry in &page.entries {
        if let Entry::Item(item) = entry {
            assert!(item.key.len() == 9 && item.key.bytes().all(|byte| byte.is_ascii_digit()));
            assert!(item.change.endringer.iter().all(|pointer| pointer.is_empty() || pointer.starts_with('/')));
        }
    }
    for items_max in [1, page.entries.len(), page.entries.len() + 1] {
        let total = page.entries.len() as u64;
        let Ok(arranged) = feed::arrange(page.clone(), AFTER, items_max) else { continue };
        let positions: Vec<u64> = arranged.steps.iter().map(|step| step.position).collect();
        assert!(positions.iter().all(|position| *position > AFTER) && positions.windows(2).all(|two| two[0] < two[1]));
        let handed: usize = arranged.steps.iter().map(|step| step.items.len() + step.quarantined.len()).sum();
        let told = handed as u64 + arranged.overlap_items + arranged.duplicate_items + arranged.waiting_items;
        assert!(told <= total && (items_max <= page.entries.len() || told == total), "{told} of {total}");
        let chunks = feed::chunks(arranged.steps.clone(), 3);
        assert_eq!(chunks.concat(), arranged.steps);
    }
}

pub(crate) fn page_seeds() -> Vec<Vec<u8>> {
    let operations = r#"{"oppdateringsid":"19","organisasjonsnummer":"312345677","endringstype":"Rar","endringer":[{"op":"move","path":"/a","from":"/b"},{"op":"add"}]}"#;
    let body =
        format!(r#"{{"_links":{{}},"_embedded":{{"oppdaterteEnheter":[{GOOD},{operations},7,{LATER}]}},"page":{{"totalElements":4}}}}"#);
    vec![
        seed(0, body),
        seed(0, "\u{feff}{\"page\":{},\"_embedded\":null}"),
        seed(1, operations),
        seed(1, GOOD),
        seed(2, GOOD),
        seed(2, "<html>"),
    ]
}

/// The end of a dump, and its rows.
type Cut = (Result<u64, String>, Vec<Vec<u8>>);

fn cut(body: &[u8], piece_bytes: usize) -> Cut {
    let (mut rows, mut cutter) = (Vec::new(), Rows::new(ROW_BYTES_MAX));
    for piece in body.chunks(piece_bytes) {
        if let Err(torn) = cutter.push(piece, |row| rows.push(row.to_vec())) {
            return (Err(torn.to_string()), rows);
        }
    }
    (cutter.finish().map_err(|torn| torn.to_string()), rows)
}

pub(crate) fn dump(input: &[u8]) -> bool {
    let Some((size, body)) = input.split_first() else { return false };
    let (whole, pieces) = (cut(body, body.len().max(1)), cut(body, usize::from(*size).max(1)));
    // How far a row too long got before it was noticed depends on the pieces.
    assert_eq!(whole, pieces, "in pieces of {size} bytes it is another dump");
    let (end, rows) = whole;
    assert!(rows.iter().all(|row| row.len() <= ROW_BYTES_MAX));
    let source = &Catalogue::built_in().sources[0];
    let feed = Feed::new(source, Catalogue::built_in().event(&source.event).unwrap(), "enheter").unwrap();
    let mut all_are_json = true;
    for row in &rows {
        let text = std::str::from_utf8(row).unwrap_or_default();
        all_are_json &= json_text::check(text).is_ok();
        if let Ok(found) = feed.row(text) {
            assert!(found.key.len() == 9 && json_text::check(text).is_ok());
            if let Ok(event) = feed.created(1, text) {
                assert_eq!(event.key, found.key);
                assert!(feed.changed(2, text, &event.value).is_ok_and(|changed| changed.is_none()), "nothing has changed");
            }
        }
    }
    let array =
        std::str::from_utf8(body).ok().map(|text| text.trim_start_matches('\u{feff}')).filter(|text| text.trim_start().starts_with('['));
    let is_array = array.is_some_and(|text| json_text::check(text).is_ok());
    let fits = rows.iter().all(|row| row.len() < ROW_BYTES_MAX) && end.as_ref().is_ok_and(|count| *count == rows.len() as u64);
    if is_array && !rows.iter().any(|row| row.len() == ROW_BYTES_MAX) && body.len() <= ROW_BYTES_MAX {
        assert!(fits, "an array is no dump: {end:?}");
        let mut items = 0;
        json_text::items(array.unwrap(), |index, item| {
            assert_eq!(std::str::from_utf8(&rows[index]).unwrap().trim_end(), item);
            items += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(items, rows.len());
    }
    if end.is_ok() && all_are_json && array.is_some() {
        assert!(is_array, "a dump is whole that is no array");
    }
    end.is_ok()
}

pub(crate) fn dump_seeds() -> Vec<Vec<u8>> {
    let rows = document_seeds().iter().map(|row| String::from_utf8(row.clone()).unwrap()).collect::<Vec<_>>().join(" ,\n");
    vec![seed(7, format!("\u{feff} [{rows}]\n")), seed(1, r#"[{"a":"]}\\\"["},[[]],"x",-1 ,null]"#), seed(3, "[]")]
}
