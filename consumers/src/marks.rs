//! Questions to the log that concern several partitions at once.

use futures_util::future::try_join_all;
use ryggrad_log::{Connection, Error, Watermarks};

/// Where each of these partitions begins and ends, in the order asked.
pub async fn watermarks_of(
    connection: &Connection,
    topic: &str,
    partitions: &[i32],
    timeout_ms: u64,
) -> Result<Vec<(i32, Watermarks)>, Error> {
    // Side by side: each question opens a connection of its own.
    try_join_all(
        partitions.iter().map(async |&partition| Ok((partition, ryggrad_log::watermarks(connection, topic, partition, timeout_ms).await?))),
    )
    .await
}
