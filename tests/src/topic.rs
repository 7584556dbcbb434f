//! What a topic holds, read with `read_committed`.

use ryggrad_log::{Connection, read_to_end};
use ryggrad_schemas::{Catalogue, LogRecord};

/// The topic of virksomhet events.
pub const VIRKSOMHET: &str = "grunndata.virksomhet.v1";

/// Every committed record of a topic, partition by partition.
pub async fn read_all(connection: &Connection, topic: &str) -> Vec<LogRecord> {
    let partitions = Catalogue::built_in().topic(topic).expect("a topic of the catalogue").partitions;
    let mut records = Vec::new();
    for partition in 0..partitions {
        records.extend(read_to_end(connection, topic, partition, 1_000_000, 60_000).await.expect("the topic can be read"));
    }
    records
}
