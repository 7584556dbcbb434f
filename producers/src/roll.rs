//! Lets idle partitions roll: a mark in each of them, once in every period.

use std::time::Duration;

use jiff::Timestamp;
use ryggrad_detect::position::ROLL_TRACK;
use ryggrad_detect::roll::{due, next_in_ms};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::Source;
use tracing::debug;

use crate::error::End;
use crate::lane::Lane;

/// Writes marks until the lane ends.
pub(crate) async fn run(lane: &Lane, source: &Source, interval_ms: u64) -> End {
    let catalogue = Catalogue::built_in();
    let topic = catalogue.event(&source.event).and_then(|event_type| catalogue.topic(&event_type.topic));
    let Some(topic) = topic.filter(|_| interval_ms > 0) else { return std::future::pending().await };
    loop {
        let now_ms = Timestamp::now().as_millisecond();
        if let Some(batch) = due(lane.position(ROLL_TRACK), now_ms, interval_ms, &topic.name, topic.partitions) {
            // If another producer was quicker, the next look finds its mark.
            if let Err(end) = lane.publish(ROLL_TRACK, batch).await {
                return end;
            }
            debug!(source = %source.name, topic = %topic.name, "idle_partitions_marked");
        }
        tokio::time::sleep(Duration::from_millis(next_in_ms(now_ms, interval_ms))).await;
    }
}
