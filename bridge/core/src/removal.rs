//! Which records may not leave any more, because their key was removed for legal reasons.
//!
//! Fed from the topic `ryggrad.removed`; asked when a record is read and again right before every
//! attempt. Must never let an older state of a removed key through in doubt: where a removal does
//! not say at which offset it stands, time decides, on the side of withholding.

use std::collections::HashMap;

use ryggrad_schemas::LogRecord;
use serde::Deserialize;

use crate::cursor::Place;

/// How far the clocks of two brokers may be apart, where a removal has to be judged by time.
pub const CLOCK_SKEW_MS_MAX: i64 = 10_000;

/// A removal as the topic holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Partition and offset of the removal's own event; older producers did not write them.
    at: Option<(i32, i64)>,
    /// When the removal was appended, milliseconds since 1970.
    appended_ms: i64,
    /// The id of the removal's own event, kept only where time decides.
    id: Option<Box<str>>,
}

/// Knows its event's id, which is looked for only where it decides.
pub trait Identified {
    /// Its `ce_id`.
    fn event_id(&self) -> &str;
}

impl Identified for LogRecord {
    fn event_id(&self) -> &str {
        self.header("ce_id").unwrap_or_default()
    }
}

/// A record that is about to leave.
#[derive(Clone, Copy)]
pub struct Leaving<'a> {
    /// Its topic and partition.
    pub place: Place,
    /// Its offset.
    pub offset: i64,
    /// When it was appended, milliseconds since 1970.
    pub appended_ms: i64,
    /// Its key.
    pub key: &'a str,
    /// Its event.
    pub event: &'a dyn Identified,
}

/// What a record of the topic did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It names a removal and where that stands.
    Exact,
    /// It names a removal; where it stands is not said, so that time decides.
    ByTime,
    /// It takes a removal back.
    Lifted,
    /// It names nothing that anyone could be sent.
    Nothing,
}

/// The table of removed keys: one entry per topic and key.
#[derive(Debug, Default)]
pub struct Removals {
    /// By topic number, then key.
    known: HashMap<u16, HashMap<Box<str>, Removal>>,
}

/// The value of a record; all else is in its key.
#[derive(Deserialize, Default)]
struct Value {
    partition: Option<i32>,
    offset: Option<i64>,
    id: Option<String>,
}

impl Removals {
    /// Takes in a record of the topic, in its order. `topic_of` knows the number of a topic.
    pub fn take(&mut self, record: &LogRecord, topic_of: impl Fn(&str) -> Option<u16>) -> Taken {
        let named = record.key.as_deref().and_then(|key| key.split_once('/'));
        let Some((topic, key)) = named.and_then(|(topic, key)| Some((topic_of(topic)?, key))) else { return Taken::Nothing };
        let keys = self.known.entry(topic).or_default();
        let Some(value) = &record.value else {
            keys.remove(key);
            return Taken::Lifted;
        };
        // What can't be read still names its key.
        let value: Value = serde_json::from_slice(value).unwrap_or_default();
        let at = value.partition.zip(value.offset);
        let id = if at.is_none() { value.id.map(String::into_boxed_str) } else { None };
        keys.insert(key.into(), Removal { at, appended_ms: record.timestamp_ms, id });
        if at.is_some() { Taken::Exact } else { Taken::ByTime }
    }

    /// Whether this record is an older state of a removed key.
    pub fn withholds(&self, leaving: Leaving<'_>) -> bool {
        let Some(removal) = self.known.get(&leaving.place.topic).and_then(|keys| keys.get(leaving.key)) else { return false };
        match removal.at {
            Some((partition, offset)) if partition == leaving.place.partition => leaving.offset < offset,
            _ => removal.id.as_deref() != Some(leaving.event.event_id()) && leaving.appended_ms <= removal.appended_ms + CLOCK_SKEW_MS_MAX,
        }
    }

    /// The removed keys of a topic, with the partition and offset of the removal's event where they are known.
    pub fn of_topic(&self, topic: u16) -> impl Iterator<Item = (&str, Option<(i32, i64)>)> {
        self.known.get(&topic).into_iter().flatten().map(|(key, removal)| (key.as_ref(), removal.at))
    }

    /// How many keys are removed.
    pub fn len(&self) -> usize {
        self.known.values().map(HashMap::len).sum()
    }

    /// Whether no key is removed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const KEY: &str = "312345676";

    fn record(key: &str, value: Option<&str>) -> LogRecord {
        LogRecord {
            topic: "ryggrad.removed".to_owned(),
            partition: 0,
            offset: 7,
            timestamp_ms: 1_000_000,
            key: Some(key.to_owned()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: ryggrad_schemas::Headers::default(),
        }
    }

    fn topic_of(name: &str) -> Option<u16> {
        (name == "t.v1").then_some(1)
    }

    impl Identified for &str {
        fn event_id(&self) -> &str {
            self
        }
    }

    fn leaving<'a>(partition: i32, offset: i64, appended_ms: i64, id: &'a &str) -> Leaving<'a> {
        Leaving { place: Place { topic: 1, partition }, offset, appended_ms, key: KEY, event: id }
    }

    #[test]
    fn older_states_of_a_removed_key_are_withheld_and_nothing_else() {
        let exact = json!({"topic": "t.v1", "key": KEY, "partition": 2, "offset": 50, "id": "r"}).to_string();
        let old = json!({"topic": "t.v1", "key": KEY, "position": 17, "id": "r"}).to_string();
        let late = 1_000_000 + CLOCK_SKEW_MS_MAX;
        for (what, value, leaving, expected) in [
            ("older", exact.as_str(), leaving(2, 49, late + 1, &"a"), true),
            ("the removal itself", exact.as_str(), leaving(2, 50, 0, &"r"), false),
            ("back again", exact.as_str(), leaving(2, 51, 0, &"b"), false),
            ("offsets of another partition say nothing", exact.as_str(), leaving(3, 99, 5, &"a"), true),
            ("another topic", exact.as_str(), Leaving { place: Place { topic: 2, partition: 2 }, ..leaving(2, 1, 0, &"a") }, false),
            ("another key", exact.as_str(), Leaving { key: "212345679", ..leaving(2, 1, 0, &"a") }, false),
            ("no offset: older by time", old.as_str(), leaving(2, 99, 5, &"a"), true),
            ("no offset: within the skew", old.as_str(), leaving(2, 99, late, &"a"), true),
            ("no offset: later by time", old.as_str(), leaving(2, 99, late + 1, &"a"), false),
            ("no offset: the removal itself", old.as_str(), leaving(2, 1, 5, &"r"), false),
            ("unreadable: by time, all of it", "?", leaving(2, 99, 5, &"r"), true),
        ] {
            let mut removals = Removals::default();
            assert_ne!(removals.take(&record(&format!("t.v1/{KEY}"), Some(value)), topic_of), Taken::Nothing, "{what}");
            assert_eq!(removals.withholds(leaving), expected, "{what}");
        }
    }

    #[test]
    fn the_latest_record_of_a_key_counts() {
        let mut removals = Removals::default();
        let key = format!("t.v1/{KEY}");
        let at = |offset: i64| json!({"partition": 0, "offset": offset}).to_string();
        assert_eq!(removals.take(&record(&key, Some(&at(5))), topic_of), Taken::Exact);
        assert_eq!(removals.take(&record(&key, Some(&at(9))), topic_of), Taken::Exact);
        assert!(removals.withholds(leaving(0, 8, 0, &"a")) && removals.len() == 1);
        assert_eq!(removals.of_topic(1).collect::<Vec<_>>(), [(KEY, Some((0, 9)))]);
        assert_eq!(removals.of_topic(2).count(), 0);
        assert_eq!(removals.take(&record("other.v1/1", Some(&at(9))), topic_of), Taken::Nothing);
        assert_eq!(removals.take(&record("no slash", Some(&at(9))), topic_of), Taken::Nothing);
        assert_eq!(removals.take(&record(&key, None), topic_of), Taken::Lifted);
        assert!(!removals.withholds(leaving(0, 8, 0, &"a")) && removals.is_empty());
    }
}
