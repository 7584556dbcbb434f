//! What is remembered of runs over a dump, as records of `ryggrad.source-positions`.
//!
//! A run's number stands before the run begins, since event ids follow from it: no two runs may
//! have the same. The number moves like a feed's position, under a track of its own; what a run
//! found stands beside it once it is complete.

use ryggrad_schemas::catalogue::{Source, topics};
use ryggrad_schemas::{EncodedRecord, Headers, LogRecord};
use serde_json::{Value, json};

/// The track of a feed's runs: position = the run's number, count = its transactions so far.
pub fn track(feed: &str) -> String {
    format!("{feed}/snapshot")
}

/// The last run that was complete.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Completed {
    /// The run's number.
    pub run: u64,
    /// When it ended, milliseconds since 1970.
    pub at_ms: i64,
    /// Rows that it read.
    pub rows: u64,
    /// Events that it published.
    pub events: u64,
}

impl Completed {
    /// The record that remembers it.
    pub fn to_record(self, source: &Source, feed: &str) -> EncodedRecord {
        let value = json!({"run": self.run, "at_ms": self.at_ms, "rows": self.rows, "events": self.events});
        EncodedRecord {
            topic: topics::SOURCE_POSITIONS.to_owned(),
            partition: Some(source.positions_partition),
            key: key(source, feed),
            value: Some(value.to_string().into_bytes()),
            headers: Headers::default(),
        }
    }

    /// The latest of a feed, from its partition's records in log order. One that can't be read
    /// counts for none: the dump is then read once more, which is harmless.
    pub fn from_records(source: &Source, feed: &str, records: &[LogRecord]) -> Option<Self> {
        let key = key(source, feed);
        let latest = records.iter().rev().find(|record| record.key.as_deref() == Some(&key))?;
        let value: Value = serde_json::from_slice(latest.value.as_deref()?).ok()?;
        let number = |name: &str| value.get(name)?.as_u64();
        Some(Self { run: number("run")?, at_ms: value.get("at_ms")?.as_i64()?, rows: number("rows")?, events: number("events")? })
    }
}

fn key(source: &Source, feed: &str) -> String {
    format!("{}/{feed}/snapshot-completed", source.name)
}

/// What to do about a feed's dump now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// It has never been read to its end: everything else waits for it.
    Bootstrap,
    /// It is time to compare again.
    Now,
    /// Not before so many milliseconds.
    In(u64),
}

/// When the dump is to be read next. An interval of 0 means never again.
pub fn due(completed: Option<Completed>, now_ms: i64, interval_ms: u64) -> Option<Due> {
    let Some(completed) = completed else { return Some(Due::Bootstrap) };
    if interval_ms == 0 {
        return None;
    }
    let age_ms = u64::try_from(now_ms.saturating_sub(completed.at_ms)).unwrap_or(0);
    Some(match interval_ms.checked_sub(age_ms) {
        Some(left_ms) if left_ms > 0 => Due::In(left_ms),
        _ => Due::Now,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use ryggrad_schemas::Catalogue;

    use super::*;

    #[test]
    fn a_completed_run_is_read_back_and_the_latest_counts() {
        let source = Catalogue::built_in().source("enhetsregisteret").unwrap();
        let completed = Completed { run: 7, at_ms: 1_790_000_000_000, rows: 3, events: 2 };
        let record = completed.to_record(source, "enheter");
        let read = |value: Option<&[u8]>, offset| LogRecord {
            topic: record.topic.clone(),
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Some(record.key.clone()),
            value: value.map(<[u8]>::to_vec),
            headers: ryggrad_schemas::Headers::default(),
        };
        let (good, bad, none) = (read(record.value.as_deref(), 0), read(Some(b"{}"), 1), read(None, 2));
        assert_eq!(Completed::from_records(source, "enheter", std::slice::from_ref(&good)), Some(completed));
        assert_eq!(Completed::from_records(source, "underenheter", std::slice::from_ref(&good)), None);
        assert_eq!(Completed::from_records(source, "enheter", &[good.clone(), bad]), None);
        assert_eq!(Completed::from_records(source, "enheter", &[good, none]), None);
    }

    #[test]
    fn a_dump_is_due_first_of_all_and_then_every_interval() {
        let at = |at_ms| Some(Completed { at_ms, ..Completed::default() });
        for (completed, now_ms, interval_ms, expected) in [
            (None, 0, 0, Some(Due::Bootstrap)),
            (at(1_000), 5_000, 0, None),
            (at(1_000), 1_400, 1_000, Some(Due::In(600))),
            (at(1_000), 2_000, 1_000, Some(Due::Now)),
            (at(9_000), 2_000, 1_000, Some(Due::In(1_000))),
        ] {
            assert_eq!(due(completed, now_ms, interval_ms), expected);
        }
    }
}
