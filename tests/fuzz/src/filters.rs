//! Filters of every dialect, and CloudEvents SQL by itself.
//!
//! Laws: what is compiled says what was written, is bounded, and judges every event; its negation and conjunctions follow
//! from it; an expression passes exactly if its whole evaluation does; records and their JSON are judged alike.

use ryggrad_bridge_core::cesql::{EXPRESSION_BYTES_MAX, Expression, JsonAttributes, RecordAttributes};
use ryggrad_bridge_core::filter::{FILTERS_BYTES_MAX, Filters};
use ryggrad_schemas::{Headers, LogRecord};
use serde_json::{Value, json};

use crate::parts::json;

fn records() -> [LogRecord; 3] {
    let with = |pairs: &[(&str, &str)]| LogRecord {
        topic: "t".to_owned(),
        partition: 0,
        offset: 0,
        timestamp_ms: 0,
        key: None,
        value: None,
        headers: pairs.iter().map(|(name, value)| (format!("ce_{name}"), *value)).collect::<Headers>(),
    };
    let usual = [("specversion", "1.0"), ("id", "1"), ("source", "urn:a"), ("type", "no.ryggrad.a.v1")];
    [
        with(&[]),
        with(&usual),
        with(&[usual.as_slice(), &[("subject", "312345676"), ("hop", "-7"), ("flag", "TRUE"), ("text", "%_å")]].concat()),
    ]
}

/// A record's attributes as structured JSON has them: all are texts.
fn as_json(record: &LogRecord) -> serde_json::Map<String, Value> {
    record.headers.iter().map(|(name, value)| (name[3..].to_owned(), value.into())).collect()
}

pub(crate) fn filters(input: &[u8]) -> bool {
    let Some(given) = json(input) else { return false };
    let mut faults = Vec::new();
    let Some(filters) = Filters::parse(&given, "/filters", &mut faults) else {
        assert!(!faults.is_empty() || given.is_null() || given == json!([]), "refused without a word");
        assert!(faults.iter().all(|fault| fault.pointer.starts_with("/filters")));
        return false;
    };
    assert!(faults.is_empty() && given.to_string().len() <= FILTERS_BYTES_MAX);
    assert_eq!(filters.given(), &given);
    let again: Filters = serde_json::from_str(&serde_json::to_string(&filters).unwrap()).unwrap();
    drop(filters.warnings());
    // Unless it becomes too deep by that.
    let not = Filters::parse(&json!([{"not": {"all": given}}]), "", &mut faults);
    for record in &records() {
        let attributes = RecordAttributes(record);
        let verdict = filters.judge(&attributes);
        assert!(!verdict.matches || filters.and(&again).judge(&attributes).matches);
        assert_eq!(again.judge(&attributes), verdict);
        assert_eq!(filters.judge(&JsonAttributes(&as_json(record))), verdict, "a record and its JSON are judged differently");
        if let Some(not) = &not {
            assert_eq!(not.judge(&attributes).matches, !verdict.matches);
            assert!(!filters.and(not).judge(&attributes).matches);
        }
    }
    true
}

pub(crate) fn filter_seeds() -> Vec<Vec<u8>> {
    let all = json!([
        {"exact": {"type": "no.ryggrad.a.v1", "subject": "312345676"}}, {"prefix": {"source": "urn:"}}, {"suffix": {"type": ".v1"}},
        {"any": [{"not": {"exact": {"id": "2"}}}, {"all": [{"sql": "hop < 5 AND EXISTS text"}]}]},
    ]);
    [all, json!([{"sql": "NOT (subject LIKE '3123%') OR type IN ('a', \"b\")"}])].map(|filters| filters.to_string().into_bytes()).to_vec()
}

pub(crate) fn cesql(input: &[u8]) -> bool {
    let text = String::from_utf8_lossy(input);
    match Expression::parse(&text) {
        Err(error) => {
            assert!(error.place.offset <= text.len() && error.place.line >= 1 && error.place.column >= 1);
            assert!(error.to_string().len() <= 2 * EXPRESSION_BYTES_MAX, "an error longer than the text");
            false
        }
        Ok(expression) => {
            assert!(text.len() <= EXPRESSION_BYTES_MAX && expression.text() == text);
            assert!(expression.warnings().iter().all(|warning| warning.place.offset <= text.len()));
            for record in &records() {
                let (attributes, object) = (RecordAttributes(record), as_json(record));
                let whole = expression.evaluate(&attributes);
                assert_eq!(expression.matches(&attributes).unwrap_or(false), whole.passes(), "it passes, and does not");
                assert_eq!(expression.matches(&attributes).is_err(), !whole.errors.is_empty());
                assert!(whole.errors.iter().all(|error| error.place.offset <= text.len()));
                let others = JsonAttributes(&object);
                assert_eq!(expression.evaluate(&others).value.to_json(), whole.value.to_json());
            }
            true
        }
    }
}

pub(crate) fn cesql_seeds() -> Vec<Vec<u8>> {
    [
        "NOT (subject LIKE '3123%\\_') AND type IN ('a', \"no.ryggrad.a.v1\") XOR EXISTS hop",
        "hop + 7 * -2 / (1 % 3) - ABS(hop) >= 2147483647 OR flag = TRUE",
        "CONCAT_WS('-', LOWER(text), UPPER(id), TRIM(' a '), LEFT(id, 1), RIGHT(id, 1), SUBSTRING(id, 1, 2)) != LENGTH(type)",
        "INT('7') <> BOOL('false') AND STRING(hop) < IS_INT(id) AND IS_BOOL(flag)",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}
