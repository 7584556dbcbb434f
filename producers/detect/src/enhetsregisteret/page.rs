//! Reads a page of updates (HAL) into entries.
//!
//! One bad item never stops the others. A body that is no page at all (a firewall's HTML with
//! status 200, half a document) is an error that says so, and must never be taken for an empty
//! page.

use std::borrow::Cow;

use ryggrad_schemas::Organisasjonsnummer;
use ryggrad_schemas::identifiers::InvalidOrganisasjonsnummer;
use ryggrad_schemas::json_text::{self, Kind};
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhetstype};
use serde_json::{Error, Value, json};

use super::{endringer, list_name, oddities, reasons};
use crate::feed::{Entry, Item, Page, Unreadable};
use crate::quarantine::Reason;

/// What an item of the feed says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The kind of change.
    pub endringstype: Endringstype,
    /// JSON pointers to the fields that changed, as far as upstream tells.
    pub endringer: Vec<String>,
    /// When, as upstream writes it.
    pub dato: Option<String>,
}

/// A body that is no page of updates.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// HTML where JSON was expected.
    #[error("the answer is HTML and not JSON ({bytes} bytes); a firewall or proxy may have answered in upstream's place")]
    Html {
        /// Length of the body.
        bytes: usize,
    },
    /// No JSON, or only a part of it.
    #[error("the answer is not JSON, or cut off ({bytes} bytes)")]
    NotJson {
        /// Length of the body.
        bytes: usize,
        /// Where it breaks; tells positions, no content.
        #[source]
        source: serde_json::Error,
    },
    /// JSON, but no list of updates in HAL.
    #[error("the answer is JSON, but no HAL page of {list}")]
    NotHal {
        /// The list that was expected.
        list: &'static str,
    },
}

/// Reads a page of updates of one kind of unit.
pub fn read_page(virksomhetstype: Virksomhetstype, body: &[u8]) -> Result<Page<Change>, PageError> {
    let list = list_name(virksomhetstype);
    let text = text_of(body)?;
    match read_hal(list, text) {
        Ok(Some(page)) => Ok(page),
        Ok(None) => Err(PageError::NotHal { list }),
        Err(source) => Err(PageError::NotJson { bytes: body.len(), source }),
    }
}

/// The page; `None` if it is JSON of another kind.
fn read_hal(list: &str, text: &str) -> Result<Option<Page<Change>>, Error> {
    let whole = json_text::whole(text)?;
    if json_text::kind(whole) != Kind::Object {
        return json_text::check(whole).map(|()| None);
    }
    let (mut is_hal, mut embedded, mut page) = (false, "null", "null");
    json_text::members(whole, |name, json| {
        is_hal |= matches!(name, "_embedded" | "_links" | "page");
        match name {
            "_embedded" => embedded = json,
            "page" => page = json,
            _ => {}
        }
        Ok(())
    })?;
    let total_items = member(page, "totalElements")?.and_then(|total| total.parse().ok());
    let mut entries = Vec::new();
    match (json_text::kind(embedded), member(embedded, list)?) {
        _ if !is_hal => return Ok(None),
        (_, Some(items)) if json_text::kind(items) == Kind::Array => json_text::items(items, |_, item| {
            entries.push(entry(item));
            Ok(())
        })?,
        (Kind::Null, _) => {}
        // `{}`
        (Kind::Object, None) if is_empty(embedded)? => {}
        _ => return Ok(None),
    }
    Ok(Some(Page { entries, total_items }))
}

/// The JSON of an object's member; `None` also if it is no object.
fn member<'t>(object: &'t str, wanted: &str) -> Result<Option<&'t str>, Error> {
    let mut found = None;
    if json_text::kind(object) == Kind::Object {
        json_text::members(object, |name, json| {
            if name == wanted {
                found = Some(json);
            }
            Ok(())
        })?;
    }
    Ok(found)
}

fn is_empty(object: &str) -> Result<bool, Error> {
    let mut members = 0;
    json_text::members(object, |_, _| {
        members += 1;
        Ok(())
    })?;
    Ok(members == 0)
}

/// A body as text, with the same errors for pages and documents.
pub(super) fn text_of(body: &[u8]) -> Result<&str, PageError> {
    let bytes = body.len();
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if text.trim_ascii_start().starts_with(b"<") {
        return Err(PageError::Html { bytes });
    }
    json_text::from_utf8(text).map_err(|source| PageError::NotJson { bytes, source })
}

fn entry(raw: &str) -> Entry<Change> {
    let unreadable = |position, reason: Reason| Entry::Unreadable(Unreadable { position, reason, raw: raw.to_owned() });
    if json_text::kind(raw) != Kind::Object {
        return unreadable(None, reasons::NO_OBJECT);
    }
    let (mut position, mut number, mut word, mut dato) = (None, None, None, None);
    let mut endringer = (Vec::new(), true);
    let mut take = |name: &str, json| {
        match name {
            "oppdateringsid" => position = id(json)?,
            "organisasjonsnummer" => number = text(json)?,
            "endringstype" => word = text(json)?,
            "dato" => dato = text(json)?,
            "endringer" => endringer = endringer::pointers(json)?,
            _ => {}
        }
        Ok::<(), Error>(())
    };
    let mut is_text = true;
    let read = json_text::members(raw, |name, json| {
        is_text &= take(name, json).is_ok();
        Ok(())
    });
    // That it is JSON was seen before: what can be wrong is a text in it.
    if read.is_err() || !is_text {
        return unreadable(position, reasons::NO_TEXT);
    }
    let Some(position) = position else { return unreadable(None, reasons::NO_POSITION) };
    let Some((key, check_digit)) = number.as_deref().and_then(key) else { return unreadable(Some(position), reasons::NO_KEY) };
    let (endringstype, known) = endringstype(word.as_deref());
    let (endringer, readable) = endringer;
    let oddities = [
        (!known).then_some(oddities::UNKNOWN_ENDRINGSTYPE),
        (!check_digit).then_some(oddities::CHECK_DIGIT),
        (!readable).then_some(oddities::ENDRINGER),
    ];
    let change = Change { endringstype, endringer, dato: dato.map(Cow::into_owned) };
    Entry::Item(Item { position, key, change, oddities: oddities.into_iter().flatten().collect(), raw: raw.to_owned() })
}

fn text(json: &str) -> Result<Option<Cow<'_, str>>, Error> {
    if json_text::kind(json) == Kind::Text { json_text::text(json).map(Some) } else { Ok(None) }
}

/// What was set aside, as an item again: its bytes may be an item, a document, or neither. A key
/// that someone names wins.
pub fn repaired(position: u64, raw: &[u8], named: Option<&str>) -> Option<Item<Change>> {
    let told = serde_json::from_slice::<Value>(raw).ok().filter(|raw| raw.get("oppdateringsid").is_some());
    let mut told = told.unwrap_or_else(|| json!({}));
    if let (Some(members), Some(named)) = (told.as_object_mut(), named) {
        members.insert("organisasjonsnummer".to_owned(), named.into());
    }
    told["oppdateringsid"] = position.into();
    match entry(&told.to_string()) {
        Entry::Item(item) => Some(item),
        Entry::Unreadable(_) => None,
    }
}

/// A whole number, also where it is written as a text.
fn id(json: &str) -> Result<Option<u64>, Error> {
    Ok(match json_text::kind(json) {
        Kind::Number => json.parse().ok(),
        _ => text(json)?.and_then(|text| text.parse().ok()),
    })
}

/// Nine digits, and whether the check digit is right. A wrong one passes: recorded documents
/// have anonymised numbers, and upstream's number is upstream's to decide.
fn key(text: &str) -> Option<(String, bool)> {
    match text.parse::<Organisasjonsnummer>() {
        Ok(_) => Some((text.to_owned(), true)),
        Err(InvalidOrganisasjonsnummer::CheckDigit) => Some((text.to_owned(), false)),
        Err(InvalidOrganisasjonsnummer::Shape) => None,
    }
}

/// Our word for upstream's, and whether we know it. Upstream's own `Ukjent` is a known word.
fn endringstype(word: Option<&str>) -> (Endringstype, bool) {
    match word {
        Some("Ny") => (Endringstype::Ny, true),
        Some("Endring") => (Endringstype::Endret, true),
        Some("Sletting") => (Endringstype::Slettet, true),
        Some("Fjernet") => (Endringstype::Fjernet, true),
        Some("Ukjent") => (Endringstype::Ukjent, true),
        _ => (Endringstype::Ukjent, false),
    }
}
