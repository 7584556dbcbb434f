//! Which records count. Looks at headers, key and time only, so that what nobody wants is never
//! decoded.

use std::collections::BTreeSet;

use ryggrad_schemas::LogRecord;
use ryggrad_schemas::catalogue::type_matches;
use ryggrad_schemas::virksomhet::Endringstype;

/// Every part must hold; an empty part always holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Event types, exact or a prefix ending in `.*`; one of them must fit.
    pub types: Vec<String>,
    /// Record keys; one of them must be the record's.
    pub keys: BTreeSet<String>,
    /// Kinds of change; one of them must be the event's.
    pub endringstyper: Vec<Endringstype>,
    /// Appended at this moment or later, milliseconds since 1970.
    pub appended_from_ms: Option<i64>,
    /// Appended before this moment, milliseconds since 1970.
    pub appended_before_ms: Option<i64>,
}

impl Filter {
    /// Whether a record counts. A record without the header that a part asks for does not.
    pub fn matches(&self, record: &LogRecord) -> bool {
        self.appended_from_ms.is_none_or(|from| record.timestamp_ms >= from)
            && self.appended_before_ms.is_none_or(|before| record.timestamp_ms < before)
            && (self.keys.is_empty() || record.key.as_ref().is_some_and(|key| self.keys.contains(key)))
            && (self.types.is_empty() || record.header("ce_type").is_some_and(|found| self.has_type(found)))
            && (self.endringstyper.is_empty() || record.header("ce_endringstype").is_some_and(|found| self.has_endringstype(found)))
    }

    fn has_type(&self, found: &str) -> bool {
        self.types.iter().any(|pattern| type_matches(pattern, found))
    }

    fn has_endringstype(&self, found: &str) -> bool {
        self.endringstyper.iter().any(|endringstype| endringstype.symbol() == found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::{attributes, record};

    #[test]
    fn every_part_must_hold_and_an_empty_part_always_does() {
        let all = Filter::default();
        let types = |pattern: &str| Filter { types: vec!["no.annet.v1".to_owned(), pattern.to_owned()], ..Filter::default() };
        let key = |key: &str| Filter { keys: [key.to_owned()].into(), ..Filter::default() };
        let kind = |kind| Filter { endringstyper: vec![kind], ..Filter::default() };
        let times = |from, before| Filter { appended_from_ms: from, appended_before_ms: before, ..Filter::default() };
        for (filter, expected) in [
            (all, true),
            (types("no.ryggrad.*"), true),
            (types("no.ryggrad.grunndata.virksomhet.endret.v1"), true),
            (types("no.ryggrad.grunndata.virksomhet.endret.v2"), false),
            (types("no.ryggrad*"), false),
            (key("312345676"), true),
            (key("212345679"), false),
            (kind(Endringstype::Ny), true),
            (kind(Endringstype::Slettet), false),
            (times(Some(1_000), Some(1_001)), true),
            (times(Some(1_001), None), false),
            (times(None, Some(1_000)), false),
            (Filter { keys: ["212345679".to_owned()].into(), ..kind(Endringstype::Ny) }, false),
        ] {
            assert_eq!(filter.matches(&record(attributes("NY").to_headers("application/avro"), None)), expected, "{filter:?}");
        }
    }

    #[test]
    fn a_record_without_the_header_that_is_asked_for_does_not_match() {
        let bare = record(Default::default(), None);
        assert!(Filter::default().matches(&bare));
        assert!(!Filter { types: vec!["*".to_owned()], ..Filter::default() }.matches(&bare));
        assert!(!Filter { endringstyper: vec![Endringstype::Ny], ..Filter::default() }.matches(&bare));
    }
}
