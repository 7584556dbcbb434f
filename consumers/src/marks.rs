//! Questions to the log that concern several partitions at once, or what an error means.

use futures_util::future::try_join_all;
use ryggrad_log::{Connection, Error, Remedy, Watermarks};

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

/// Whether an error means that no broker answers, rather than that one refuses.
pub fn is_unreachable(error: &Error) -> bool {
    // The log keeps librdkafka's types to itself, so its codes can only be known by name.
    const AWAY: [&str; 5] = ["BrokerTransportFailure", "AllBrokersDown", "OperationTimedOut", "Resolve", "RequestTimedOut"];
    let said = error.source.to_string();
    error.remedy == Remedy::Retry && AWAY.iter().any(|code| said.contains(code))
}
