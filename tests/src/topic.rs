//! What a topic holds, read with `read_committed`.

use std::collections::{BTreeMap, BTreeSet};

use ryggrad_log::{Connection, read_to_end};
use ryggrad_schemas::{Catalogue, LogRecord};

/// The topic of virksomhet events.
pub const VIRKSOMHET: &str = "grunndata.virksomhet.v1";

/// Every committed record of a topic, partition by partition.
pub async fn read_all(connection: &Connection, topic: &str) -> Vec<LogRecord> {
    let partitions = Catalogue::built_in().topic(topic).expect("a topic of the catalogue").partitions;
    // At once: most of the time goes into waiting for the broker.
    let reading: Vec<_> = (0..partitions)
        .map(|partition| {
            let (connection, topic) = (connection.clone(), topic.to_owned());
            tokio::spawn(async move { read_to_end(&connection, &topic, partition, 1_000_000, 60_000).await })
        })
        .collect();
    let mut records = Vec::new();
    for partition in reading {
        records.extend(partition.await.expect("it is read").expect("the topic can be read"));
    }
    records
}

/// What came to a receiver that reads a topic from its beginning, against what the topic holds.
#[derive(Debug, Default)]
pub struct Owed {
    /// Ids of events that it must have got.
    pub missing: BTreeSet<String>,
    /// Ids that it got and that nobody published.
    pub strange: BTreeSet<String>,
}

impl Owed {
    /// Compares by `ce_id`. States older than the removal of their key may have come before the
    /// removal and must not come after it, so that they count neither way.
    pub fn compare(records: &[LogRecord], delivered: &BTreeSet<String>) -> Self {
        let events: Vec<&LogRecord> = records.iter().filter(|record| record.value.is_some()).collect();
        let id = |record: &LogRecord| record.header("ce_id").expect("an event").to_owned();
        let removed: BTreeMap<_, i64> = events
            .iter()
            .filter(|record| record.header("ce_endringstype") == Some("FJERNET"))
            .map(|record| (&record.key, record.offset))
            .collect();
        let is_owed = |record: &LogRecord| removed.get(&record.key).is_none_or(|removal| record.offset >= *removal);
        let published: BTreeSet<String> = events.iter().map(|record| id(record)).collect();
        let owed: BTreeSet<String> = events.iter().filter(|record| is_owed(record)).map(|record| id(record)).collect();
        Self { missing: owed.difference(delivered).cloned().collect(), strange: delivered.difference(&published).cloned().collect() }
    }

    /// Whether it is all there and nothing else.
    pub fn is_settled(&self) -> bool {
        self.missing.is_empty() && self.strange.is_empty()
    }
}
