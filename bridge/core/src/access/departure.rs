//! Units that leave Enhetsregisteret: what their events say, and what becomes of a member.
//!
//! Headers are enough. Must never bring a member back: that a unit is there again does not make its
//! organisation one that is trusted again, which is the operator's to say.

use ryggrad_schemas::LogRecord;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_schemas::virksomhet::Endringstype;

use super::facts::{Member, Standing};

/// What a unit's event says when the unit is gone.
const GONE: [&str; 2] = [Endringstype::Slettet.symbol(), Endringstype::Fjernet.symbol()];

/// The unit that is gone by this record, and the id of its event. The tombstone behind an event says the same.
pub fn departed(record: &LogRecord) -> Option<(Organisasjonsnummer, &str)> {
    let change = record.header("ce_endringstype")?;
    let unit = record.key.as_deref()?.parse().ok()?;
    GONE.contains(&change).then_some((unit, record.header("ce_id")?))
}

/// A member as it is once its unit is gone; none if it gets nothing as it is.
pub fn without_unit(member: &Member) -> Option<Member> {
    let gets = matches!(member.standing, Standing::Candidate | Standing::Active);
    gets.then(|| Member { standing: Standing::Suspended, ..member.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ryggrad_schemas::Headers;

    fn record(key: &str, headers: &[(&str, &str)]) -> LogRecord {
        LogRecord {
            topic: "grunndata.virksomhet.v1".to_owned(),
            partition: 0,
            offset: 7,
            timestamp_ms: 0,
            key: Some(key.to_owned()),
            value: None,
            headers: headers.iter().map(|(name, value)| (*name, *value)).collect::<Headers>(),
        }
    }

    #[test]
    fn a_unit_is_gone_by_its_last_events_alone() {
        for (key, change, expected) in [
            ("312345676", "SLETTET", true),
            ("312345676", "FJERNET", true),
            ("312345676", "ENDRET", false),
            ("312345676", "NY", false),
            ("ryggrad.roll", "SLETTET", false),
        ] {
            let record = record(key, &[("ce_id", "e1"), ("ce_endringstype", change)]);
            let found = departed(&record).map(|(unit, event)| (unit.to_string(), event.to_owned()));
            assert_eq!(found, expected.then(|| (key.to_owned(), "e1".to_owned())), "{change}");
        }
        assert_eq!(departed(&record("312345676", &[])), None);
    }

    #[test]
    fn whoever_gets_something_is_suspended_and_nothing_else_changes() {
        let member = |standing| Member {
            organisation: "312345676".parse().unwrap(),
            standing,
            agreement: None,
            is_controller: true,
            bases: Vec::new(),
            normen: None,
            contact_points: vec!["a".to_owned()],
        };
        for standing in [Standing::Candidate, Standing::Active] {
            assert_eq!(without_unit(&member(standing)), Some(member(Standing::Suspended)));
        }
        for standing in [Standing::Suspended, Standing::Expelled] {
            assert_eq!(without_unit(&member(standing)), None);
        }
    }
}
