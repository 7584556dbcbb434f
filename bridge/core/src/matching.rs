//! Which records are echoes, and which lane a record is of.
//!
//! A tombstone that stands right behind its own event, with the same id, is that event's echo
//! for compaction and is nobody's event. It is delivered only where the event itself has been
//! compacted away, so that a late reader still learns that the key is gone.

use std::collections::HashMap;

use ryggrad_schemas::LogRecord;

use crate::cursor::LaneKey;

/// Recognises echoes along a reading of partitions.
#[derive(Debug, Default)]
pub struct Echoes {
    /// Partition -> where this reading started, and the record before.
    seen: HashMap<i32, (i64, Option<(i64, String)>)>,
}

impl Echoes {
    /// A reading that starts at these offsets.
    pub fn starting_at(starts: impl IntoIterator<Item = (i32, i64)>) -> Self {
        Self { seen: starts.into_iter().map(|(partition, offset)| (partition, (offset, None))).collect() }
    }

    /// Whether the next record of the reading is an echo. Call it for every record, in order.
    pub fn is_echo(&mut self, record: &LogRecord) -> bool {
        let id = record.header("ce_id").unwrap_or_default();
        let (start, before) = self.seen.entry(record.partition).or_insert((record.offset, None));
        // At the very start nothing was seen, but then the event itself was looked at earlier.
        let at_start = *start == record.offset;
        let follows_its_event = before.as_ref().is_some_and(|(offset, before)| *offset == record.offset - 1 && before == id);
        *before = record.value.as_ref().map(|_| (record.offset, id.to_owned()));
        record.value.is_none() && (at_start || follows_its_event)
    }
}

/// The lane of a record: its key's, or one for all that have no key.
pub fn lane_of(record: &LogRecord) -> LaneKey {
    LaneKey::of(record.key.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, id: &str, value: Option<&str>) -> LogRecord {
        LogRecord {
            topic: "t".to_owned(),
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Some("k".to_owned()),
            value: value.map(|value| value.as_bytes().to_vec()),
            headers: [("ce_id", id), ("ce_type", "no.a.b.v1")].into_iter().collect(),
        }
    }

    #[test]
    fn a_tombstone_is_an_echo_only_right_behind_its_own_event() {
        for (what, start, records, expected) in [
            ("event and echo", 0, vec![record(0, "a", Some("x")), record(1, "a", None)], vec![false, true]),
            ("event compacted away", 0, vec![record(1, "a", None)], vec![false]),
            ("event compacted away, another before", 0, vec![record(0, "b", Some("x")), record(1, "a", None)], vec![false, false]),
            ("reading starts at the echo", 1, vec![record(1, "a", None)], vec![true]),
            (
                "two echoes in a row",
                0,
                vec![record(0, "a", Some("x")), record(1, "a", None), record(2, "a", None)],
                vec![false, true, false],
            ),
        ] {
            let mut echoes = Echoes::starting_at([(0, start)]);
            let found: Vec<bool> = records.iter().map(|record| echoes.is_echo(record)).collect();
            assert_eq!(found, expected, "{what}");
        }
    }
}
