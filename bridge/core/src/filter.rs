//! Filters of the CloudEvents Subscriptions API: which events of its types a subscription gets.
//!
//! Checked and compiled when they are asked for, with every fault named at its place. They narrow
//! a subscription: must never see what the receiver would not get, and an absent attribute must
//! never match.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value, json};

use crate::cesql::{Attributes, ErrorKind, Expression};
use crate::subscription::Fault;

/// Most filters in one list.
pub const FILTERS_MAX: usize = 32;
/// Deepest nesting of `all`, `any` and `not`.
pub const FILTERS_DEPTH_MAX: usize = 8;
/// Most bytes of all filters together, as compact JSON.
pub const FILTERS_BYTES_MAX: usize = 16_384;

/// What a filter can be.
const DIALECTS: &str = "exact, prefix, suffix, all, any, not and sql";

/// A subscription's filters, compiled. All of them must match.
#[derive(Debug, Clone)]
pub struct Filters(Arc<Compiled>);

#[derive(Debug)]
struct Compiled {
    given: Value,
    all: Vec<Filter>,
}

#[derive(Debug)]
enum Filter {
    Texts(Comparison, Vec<(String, String)>),
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Sql(Expression),
    /// Another list, as it was compiled.
    Nested(Filters),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Exact,
    Prefix,
    Suffix,
}

/// What filters say of an event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// Whether the event is wanted.
    pub matches: bool,
    /// The first error of each expression that met one; none of these matched.
    pub errors: Vec<ErrorKind>,
}

impl Filters {
    /// Checks the value of a member `filters` at this pointer. Nothing, and an empty list, are no
    /// filters.
    pub fn parse(value: &Value, pointer: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        let before = faults.len();
        let items = match value {
            Value::Null => return None,
            Value::Array(items) if items.is_empty() => return None,
            Value::Array(items) => items,
            _ => {
                faults.push(Fault::new(pointer, format!("is a list of filters, each an object with one of {DIALECTS}")));
                return None;
            }
        };
        // Bounds everything below, depth aside.
        if value.to_string().len() > FILTERS_BYTES_MAX {
            faults.push(Fault::new(pointer, format!("has more than {FILTERS_BYTES_MAX} bytes of JSON")));
            return None;
        }
        let all = filters(items, pointer, FILTERS_DEPTH_MAX, faults);
        (faults.len() == before).then(|| Self(Arc::new(Compiled { given: value.clone(), all })))
    }

    /// Both lists: what passes has to pass either.
    pub fn and(&self, other: &Self) -> Self {
        let given = json!([{"all": self.given()}, {"all": other.given()}]);
        Self(Arc::new(Compiled { given, all: vec![Filter::Nested(self.clone()), Filter::Nested(other.clone())] }))
    }

    /// As they were given.
    pub fn given(&self) -> &Value {
        &self.0.given
    }

    /// Whether an event is wanted.
    pub fn judge(&self, attributes: &dyn Attributes) -> Verdict {
        let mut errors = Vec::new();
        let matches = self.0.all.iter().all(|filter| filter.matches(attributes, &mut errors));
        Verdict { matches, errors }
    }

    /// What is allowed in the expressions and probably not meant.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        self.0.all.iter().for_each(|filter| filter.collect_warnings(&mut warnings));
        warnings
    }
}

impl PartialEq for Filters {
    fn eq(&self, other: &Self) -> bool {
        self.0.given == other.0.given
    }
}

impl Eq for Filters {}

impl Serialize for Filters {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.given.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        let mut faults = Vec::new();
        Self::parse(&given, "", &mut faults).ok_or_else(|| {
            let told: Vec<String> = faults.into_iter().map(|fault| format!("{} {}", fault.pointer, fault.detail)).collect();
            serde::de::Error::custom(format!("no filters: {}", told.join("; ")))
        })
    }
}

impl Filter {
    fn matches(&self, attributes: &dyn Attributes, errors: &mut Vec<ErrorKind>) -> bool {
        match self {
            Self::Texts(comparison, wanted) => wanted.iter().all(|(name, wanted)| {
                attributes.attribute(name).is_some_and(|value| {
                    let text = value.into_text();
                    match comparison {
                        Comparison::Exact => text == wanted.as_str(),
                        Comparison::Prefix => text.starts_with(wanted.as_str()),
                        Comparison::Suffix => text.ends_with(wanted.as_str()),
                    }
                })
            }),
            Self::All(inner) => inner.iter().all(|filter| filter.matches(attributes, errors)),
            Self::Any(inner) => inner.iter().any(|filter| filter.matches(attributes, errors)),
            Self::Not(inner) => !inner.matches(attributes, errors),
            Self::Sql(expression) => expression.matches(attributes).unwrap_or_else(|kind| {
                errors.push(kind);
                false
            }),
            Self::Nested(inner) => inner.0.all.iter().all(|filter| filter.matches(attributes, errors)),
        }
    }

    fn collect_warnings(&self, warnings: &mut Vec<String>) {
        match self {
            Self::Texts(..) => {}
            Self::All(inner) | Self::Any(inner) => inner.iter().for_each(|filter| filter.collect_warnings(warnings)),
            Self::Not(inner) => inner.collect_warnings(warnings),
            Self::Nested(inner) => inner.0.all.iter().for_each(|filter| filter.collect_warnings(warnings)),
            Self::Sql(expression) => warnings.extend(expression.warnings().iter().map(ToString::to_string)),
        }
    }
}

fn filters(items: &[Value], pointer: &str, depth_left: usize, faults: &mut Vec<Fault>) -> Vec<Filter> {
    if items.len() > FILTERS_MAX {
        faults.push(Fault::new(pointer, format!("has more than {FILTERS_MAX} filters")));
        return Vec::new();
    }
    let filters = (0..).zip(items).filter_map(|(index, item)| filter(item, &format!("{pointer}/{index}"), depth_left, faults));
    filters.collect()
}

fn filter(item: &Value, pointer: &str, depth_left: usize, faults: &mut Vec<Fault>) -> Option<Filter> {
    let members = item.as_object().filter(|members| members.len() == 1);
    let Some((dialect, value)) = members.and_then(|members| members.iter().next()) else {
        faults.push(Fault::new(pointer, format!("is an object with exactly one of {DIALECTS}")));
        return None;
    };
    let here = format!("{pointer}/{dialect}");
    if depth_left == 0 && matches!(dialect.as_str(), "all" | "any" | "not") {
        faults.push(Fault::new(here, format!("nests deeper than {FILTERS_DEPTH_MAX} levels")));
        return None;
    }
    match dialect.as_str() {
        "exact" => texts(Comparison::Exact, value, &here, faults),
        "prefix" => texts(Comparison::Prefix, value, &here, faults),
        "suffix" => texts(Comparison::Suffix, value, &here, faults),
        "all" => several(value, &here, depth_left, faults).map(Filter::All),
        "any" => several(value, &here, depth_left, faults).map(Filter::Any),
        "not" => filter(value, &here, depth_left - 1, faults).map(|inner| Filter::Not(Box::new(inner))),
        "sql" => sql(value, here, faults),
        unknown => {
            faults.push(Fault::at(pointer, unknown, format!("is no dialect that is known here; there are {DIALECTS}")));
            None
        }
    }
}

fn several(value: &Value, pointer: &str, depth_left: usize, faults: &mut Vec<Fault>) -> Option<Vec<Filter>> {
    match value.as_array().filter(|items| !items.is_empty()) {
        Some(items) => Some(filters(items, pointer, depth_left - 1, faults)),
        None => {
            faults.push(Fault::new(pointer, "is a list of at least one filter"));
            None
        }
    }
}

fn texts(comparison: Comparison, value: &Value, pointer: &str, faults: &mut Vec<Fault>) -> Option<Filter> {
    let Some(members) = value.as_object().filter(|members| !members.is_empty()) else {
        faults.push(Fault::new(pointer, "is an object of at least one attribute and its text"));
        return None;
    };
    let wanted = pairs(members, pointer, faults);
    Some(Filter::Texts(comparison, wanted))
}

fn pairs(members: &Map<String, Value>, pointer: &str, faults: &mut Vec<Fault>) -> Vec<(String, String)> {
    let mut wanted = Vec::with_capacity(members.len());
    for (name, value) in members {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            faults.push(Fault::at(pointer, name, "is no name of an attribute: these have lower-case letters and digits"));
        }
        match value.as_str().filter(|text| !text.is_empty()) {
            Some(text) => wanted.push((name.clone(), text.to_owned())),
            None => faults.push(Fault::at(pointer, name, "is a text that is not empty")),
        }
    }
    wanted
}

fn sql(value: &Value, pointer: String, faults: &mut Vec<Fault>) -> Option<Filter> {
    let Some(text) = value.as_str() else {
        faults.push(Fault::new(pointer, "is a text: an expression in CloudEvents SQL"));
        return None;
    };
    let compiled = Expression::parse(text).map_err(|why| faults.push(Fault::new(pointer, format!("is no CloudEvents SQL: {why}"))));
    compiled.ok().map(Filter::Sql)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cesql::JsonAttributes;
    use serde_json::json;

    fn event() -> Map<String, Value> {
        let event = json!({
            "specversion": "1.0", "id": "e1", "source": "/klinikk/7", "type": "no.ryggrad.a.v1", "endringstype": "NY",
            "hop": 3, "urgent": true, "data": "x",
        });
        event.as_object().unwrap().clone()
    }

    fn judged(filters: Value) -> Verdict {
        let mut faults = Vec::new();
        let parsed = Filters::parse(&filters, "/filters", &mut faults);
        assert_eq!(faults, Vec::new(), "{filters}");
        parsed.unwrap().judge(&JsonAttributes(&event()))
    }

    #[test]
    fn each_dialect_says_what_it_says() {
        for (filters, expected) in [
            (json!([{"exact": {"type": "no.ryggrad.a.v1", "endringstype": "NY"}}]), true),
            (json!([{"exact": {"type": "no.ryggrad.a.v1", "endringstype": "ny"}}]), false),
            (json!([{"exact": {"hop": "3", "urgent": "true"}}]), true),
            (json!([{"exact": {"kommune": "x"}}]), false),
            (json!([{"not": {"exact": {"kommune": "x"}}}]), true),
            (json!([{"exact": {"data": "x"}}]), false),
            (json!([{"prefix": {"type": "no.ryggrad.", "source": "/"}}]), true),
            (json!([{"prefix": {"type": "ryggrad"}}]), false),
            (json!([{"suffix": {"type": ".v1"}}]), true),
            (json!([{"suffix": {"type": ".v2"}}]), false),
            (json!([{"all": [{"exact": {"id": "e1"}}, {"suffix": {"type": ".v1"}}]}]), true),
            (json!([{"all": [{"exact": {"id": "e1"}}, {"suffix": {"type": ".v2"}}]}]), false),
            (json!([{"any": [{"exact": {"id": "e2"}}, {"suffix": {"type": ".v1"}}]}]), true),
            (json!([{"any": [{"exact": {"id": "e2"}}, {"suffix": {"type": ".v2"}}]}]), false),
            (json!([{"exact": {"id": "e1"}}, {"exact": {"id": "e2"}}]), false),
            (json!([{"sql": "type LIKE 'no.%' AND hop < 4"}]), true),
            (json!([{"sql": "hop"}]), false),
        ] {
            assert_eq!(judged(filters.clone()), Verdict { matches: expected, errors: Vec::new() }, "{filters}");
        }
    }

    #[test]
    fn an_expression_with_an_error_does_not_match_and_is_counted() {
        let failing = json!({"sql": "kommune = 'x' OR urgent"});
        assert_eq!(judged(json!([failing])), Verdict { matches: false, errors: vec![ErrorKind::MissingAttribute] });
        assert_eq!(
            judged(json!([{"any": [failing, {"sql": "1 / 0 = 0"}, {"exact": {"id": "e1"}}]}])),
            Verdict { matches: true, errors: vec![ErrorKind::MissingAttribute, ErrorKind::Math] }
        );
        assert_eq!(
            judged(json!([{"not": failing}])),
            Verdict { matches: true, errors: vec![ErrorKind::MissingAttribute] },
            "as the dialect `not` has it"
        );
    }

    #[test]
    fn every_fault_is_named_at_its_place() {
        let deep = (0..=FILTERS_DEPTH_MAX).fold(json!({"exact": {"id": "x"}}), |inner, _| json!({"not": inner}));
        let deep_pointer = format!("/filters/0{}", "/not".repeat(FILTERS_DEPTH_MAX + 1));
        let long = "x".repeat(FILTERS_BYTES_MAX);
        for (filters, expected) in [
            (json!({}), vec!["/filters"]),
            (json!("type = 'x'"), vec!["/filters"]),
            (json!([1, {}, {"exact": {"a": "b"}, "prefix": {"a": "b"}}]), vec!["/filters/0", "/filters/1", "/filters/2"]),
            (json!([{"a/b": {}}]), vec!["/filters/0/a~1b"]),
            (
                json!([{"exact": {"": "x", "Type": "x", "a": "", "b": 1}}]),
                vec!["/filters/0/exact/", "/filters/0/exact/Type", "/filters/0/exact/a", "/filters/0/exact/b"],
            ),
            (json!([{"exact": {}}, {"suffix": []}]), vec!["/filters/0/exact", "/filters/1/suffix"]),
            (json!([{"all": []}, {"any": {}}, {"not": []}]), vec!["/filters/0/all", "/filters/1/any", "/filters/2/not"]),
            (json!([{"any": [{"exact": {"a": "b"}}, {"sql": "a ="}]}]), vec!["/filters/0/any/1/sql"]),
            (json!([{"sql": 1}]), vec!["/filters/0/sql"]),
            (json!([deep]), vec![deep_pointer.as_str()]),
            (json!([{"exact": {"a": long}}]), vec!["/filters"]),
            (json!(vec![json!({"exact": {"a": "b"}}); FILTERS_MAX + 1]), vec!["/filters"]),
        ] {
            let mut faults = Vec::new();
            assert_eq!(Filters::parse(&filters, "/filters", &mut faults), None, "{filters}");
            let mut found: Vec<&str> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
            found.sort_unstable();
            assert_eq!(found, expected, "{filters}");
        }
        let mut faults = Vec::new();
        Filters::parse(&json!([{"sql": "type = 'a' AND\n  LIKE"}]), "/filters", &mut faults);
        assert!(faults[0].detail.contains("line 2, column 3: expected"), "{faults:?}");
    }

    #[test]
    fn they_are_kept_as_they_were_given() {
        let given = json!([{"sql": "a   = 'b'"}, {"not": {"prefix": {"type": "no."}}}]);
        let filters: Filters = serde_json::from_value(given.clone()).unwrap();
        assert_eq!(serde_json::to_value(&filters).unwrap(), given);
        assert!(serde_json::from_value::<Filters>(json!([{"sql": "a ="}])).unwrap_err().to_string().contains("/0/sql"));
        for none in [json!(null), json!([])] {
            assert_eq!(Filters::parse(&none, "/filters", &mut Vec::new()), None);
        }
    }
}
