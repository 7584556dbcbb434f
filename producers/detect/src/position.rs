//! How far a feed has been read, as a record of `ryggrad.source-positions` and back.
//!
//! The record stands in the same transaction as the events that it counts. Must never take an
//! unreadable position for none: that would read the feed from its start again.

use std::collections::BTreeMap;

use ryggrad_schemas::catalogue::{Source, topics};
use ryggrad_schemas::{EncodedRecord, Headers, LogRecord};
use serde_json::{Value, json};

use crate::snapshot::run;

/// How far one feed has been read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeedPosition {
    /// The last id that was handled.
    pub position: u64,
    /// Events published by this feed so far; dense, where ids are sparse.
    pub count: u64,
}

/// A stored position that can't be read back. Nothing may be published before people have looked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the stored position at offset {offset} of {}/{partition} cannot be read", topics::SOURCE_POSITIONS)]
pub struct UnreadablePosition {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

/// The record that remembers a position.
pub fn to_record(source: &Source, feed: &str, position: FeedPosition) -> EncodedRecord {
    let value = json!({"position": position.position, "count": position.count});
    EncodedRecord {
        topic: topics::SOURCE_POSITIONS.to_owned(),
        partition: Some(source.positions_partition),
        key: key(source, feed),
        value: Some(value.to_string().into_bytes()),
        headers: Headers::default(),
    }
}

/// All that a source keeps a position of: its feeds, and the runs over their dumps.
pub fn tracks(source: &Source) -> Vec<String> {
    let runs = source.feeds.iter().map(|feed| run::track(feed));
    source.feeds.iter().cloned().chain(runs).chain([ROLL_TRACK.to_owned(), COMMANDS_TRACK.to_owned()]).collect()
}

/// The track of the records that let idle partitions roll; its position counts periods.
pub const ROLL_TRACK: &str = "roll";
/// The track of the operators' commands; its position is the offset of the last one.
pub const COMMANDS_TRACK: &str = "commands";

/// The latest position of each of a source's tracks, from its partition's records in log order.
/// Records of tracks that the source does not have (any more) are passed over.
pub fn from_records(source: &Source, records: &[LogRecord]) -> Result<BTreeMap<String, FeedPosition>, UnreadablePosition> {
    let mut positions = BTreeMap::new();
    for track in tracks(source) {
        let key = key(source, &track);
        let Some(latest) = records.iter().rev().find(|record| record.key.as_deref() == Some(&key)) else { continue };
        // A tombstone is how people reset a feed on purpose.
        let Some(value) = &latest.value else { continue };
        let unreadable = UnreadablePosition { partition: latest.partition, offset: latest.offset };
        positions.insert(track, parse(value).ok_or(unreadable)?);
    }
    Ok(positions)
}

fn parse(value: &[u8]) -> Option<FeedPosition> {
    let value: Value = serde_json::from_slice(value).ok()?;
    Some(FeedPosition { position: value.get("position")?.as_u64()?, count: value.get("count")?.as_u64()? })
}

fn key(source: &Source, feed: &str) -> String {
    format!("{}/{feed}", source.name)
}

/// How a batch stands to the position that is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The stored position is the one that the batch builds on: publish it.
    Next,
    /// The stored position is the batch's own: it is committed already.
    Committed,
    /// Something else is stored: the batch is void, begin again from there.
    Void,
}

/// Compares a batch with what is stored.
pub fn standing(stored: Option<FeedPosition>, base: Option<FeedPosition>, next: FeedPosition) -> Standing {
    if stored == base {
        Standing::Next
    } else if stored == Some(next) {
        Standing::Committed
    } else {
        Standing::Void
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use ryggrad_schemas::Catalogue;

    use super::*;

    fn source() -> &'static Source {
        Catalogue::built_in().source("enhetsregisteret").unwrap()
    }

    fn log(records: &[(&str, Option<&str>)]) -> Vec<LogRecord> {
        let record = |(index, (key, value)): (usize, &(&str, Option<&str>))| LogRecord {
            topic: topics::SOURCE_POSITIONS.to_owned(),
            partition: 0,
            offset: index as i64,
            timestamp_ms: 0,
            key: Some((*key).to_owned()),
            value: value.map(|text| text.as_bytes().to_vec()),
            headers: ryggrad_schemas::Headers::default(),
        };
        records.iter().enumerate().map(record).collect()
    }

    #[test]
    fn a_position_is_read_back_as_it_was_written() {
        let position = FeedPosition { position: 22_259_617, count: 12 };
        let record = to_record(source(), "enheter", position);
        assert_eq!((record.topic.as_str(), record.partition), ("ryggrad.source-positions", Some(0)));
        assert_eq!(record.key, "enhetsregisteret/enheter");
        assert_eq!(record.value.as_deref(), Some(br#"{"count":12,"position":22259617}"#.as_slice()));
        let value = String::from_utf8(record.value.unwrap()).unwrap();
        let found = from_records(source(), &log(&[(&record.key, Some(&value))])).unwrap();
        assert_eq!(found, BTreeMap::from([("enheter".to_owned(), position)]));
    }

    #[test]
    fn the_latest_record_of_each_feed_counts() {
        let records = log(&[
            ("enhetsregisteret/enheter", Some("no JSON, but overwritten")),
            ("enhetsregisteret/underenheter", Some(r#"{"position":5,"count":1}"#)),
            ("enhetsregisteret/roller", Some("of no feed of ours")),
            ("enhetsregisteret/enheter", Some(r#"{"position":7,"count":2,"etag":"x"}"#)),
            ("enhetsregisteret/underenheter", None),
        ]);
        let found = from_records(source(), &records).unwrap();
        assert_eq!(found, BTreeMap::from([("enheter".to_owned(), FeedPosition { position: 7, count: 2 })]));
    }

    #[test]
    fn an_unreadable_position_is_an_error_and_never_a_fresh_start() {
        for value in ["", "{}", "7", r#"{"position":-1,"count":0}"#, r#"{"position":"7","count":0}"#, r#"{"position":7}"#] {
            let records = log(&[("enhetsregisteret/enheter", Some(value))]);
            assert_eq!(from_records(source(), &records), Err(UnreadablePosition { partition: 0, offset: 0 }), "{value}");
        }
    }

    #[test]
    fn a_batch_is_published_only_on_top_of_what_it_builds_on() {
        let at = |position| FeedPosition { position, count: 0 };
        for (stored, base, next, expected) in [
            (None, None, 5, Standing::Next),
            (Some(3), Some(3), 5, Standing::Next),
            (Some(5), Some(3), 5, Standing::Committed),
            (Some(5), None, 5, Standing::Committed),
            (Some(4), Some(3), 5, Standing::Void),
            (Some(9), Some(3), 5, Standing::Void),
            (None, Some(3), 5, Standing::Void),
        ] {
            assert_eq!(standing(stored.map(at), base.map(at), at(next)), expected, "{stored:?} {base:?} {next}");
        }
    }
}
