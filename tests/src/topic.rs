//! What a topic holds, read with `read_committed`.

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
