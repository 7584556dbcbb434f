//! Reads a page of updates (HAL) into entries.
//!
//! One bad item never stops the others. A body that is no page at all (a firewall's HTML with
//! status 200, half a document) is an error that says so, and must never be taken for an empty
//! page.

use ryggrad_schemas::Organisasjonsnummer;
use ryggrad_schemas::identifiers::InvalidOrganisasjonsnummer;
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhetstype};
use serde_json::Value;

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
    let mut document = json(body)?;
    let list = list_name(virksomhetstype);
    let is_hal = ["_embedded", "_links", "page"].iter().any(|member| document.get(member).is_some());
    if !is_hal {
        return Err(PageError::NotHal { list });
    }
    let total_items = document.pointer("/page/totalElements").and_then(Value::as_u64);
    let items = match document.get_mut("_embedded").map(Value::take) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(members)) if members.is_empty() => Vec::new(),
        Some(Value::Object(mut members)) => match members.remove(list) {
            Some(Value::Array(items)) => items,
            _ => return Err(PageError::NotHal { list }),
        },
        Some(_) => return Err(PageError::NotHal { list }),
    };
    Ok(Page { entries: items.into_iter().map(entry).collect(), total_items })
}

/// A body as JSON, with the same errors for pages and documents.
pub(super) fn json(body: &[u8]) -> Result<Value, PageError> {
    let bytes = body.len();
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if text.trim_ascii_start().starts_with(b"<") {
        return Err(PageError::Html { bytes });
    }
    serde_json::from_slice(text).map_err(|source| PageError::NotJson { bytes, source })
}

fn entry(raw: Value) -> Entry<Change> {
    let unreadable = |position, reason: Reason, raw| Entry::Unreadable(Unreadable { position, reason, raw });
    if !raw.is_object() {
        return unreadable(None, reasons::NO_OBJECT, raw);
    }
    let Some(position) = raw.get("oppdateringsid").and_then(id) else { return unreadable(None, reasons::NO_POSITION, raw) };
    let Some((key, check_digit)) = raw.get("organisasjonsnummer").and_then(key) else {
        return unreadable(Some(position), reasons::NO_KEY, raw);
    };
    let (endringstype, known) = endringstype(raw.get("endringstype"));
    let (endringer, readable) = raw.get("endringer").map_or_else(|| (Vec::new(), true), endringer::pointers);
    let dato = raw.get("dato").and_then(Value::as_str).map(str::to_owned);
    let oddities = [
        (!known).then_some(oddities::UNKNOWN_ENDRINGSTYPE),
        (!check_digit).then_some(oddities::CHECK_DIGIT),
        (!readable).then_some(oddities::ENDRINGER),
    ];
    let (change, oddities) = (Change { endringstype, endringer, dato }, oddities.into_iter().flatten().collect());
    Entry::Item(Item { position, key, change, oddities, raw })
}

/// A whole number, also where it is written as a text.
fn id(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

/// Nine digits, and whether the check digit is right. A wrong one passes: recorded documents
/// have anonymised numbers, and upstream's number is upstream's to decide.
fn key(value: &Value) -> Option<(String, bool)> {
    let text = value.as_str()?;
    match text.parse::<Organisasjonsnummer>() {
        Ok(_) => Some((text.to_owned(), true)),
        Err(InvalidOrganisasjonsnummer::CheckDigit) => Some((text.to_owned(), false)),
        Err(InvalidOrganisasjonsnummer::Shape) => None,
    }
}

/// Our word for upstream's, and whether we know it. Upstream's own `Ukjent` is a known word.
fn endringstype(word: Option<&Value>) -> (Endringstype, bool) {
    match word.and_then(Value::as_str) {
        Some("Ny") => (Endringstype::Ny, true),
        Some("Endring") => (Endringstype::Endret, true),
        Some("Sletting") => (Endringstype::Slettet, true),
        Some("Fjernet") => (Endringstype::Fjernet, true),
        Some("Ukjent") => (Endringstype::Ukjent, true),
        _ => (Endringstype::Ukjent, false),
    }
}
