//! Marks that let idle partitions roll, so that what was deleted there is compacted away too.
//!
//! Kafka never compacts the segment that is being written, and closes it only when something
//! more is written. A tombstone of a reserved key in every partition, once in a while, is that
//! something. Readers pass it over; it is no event.

use ryggrad_schemas::record::ROLL_KEY;
use ryggrad_schemas::{EncodedRecord, Headers};

use crate::batch::Batch;
use crate::position::FeedPosition;

/// The batch of a period's marks, if that period has none yet.
///
/// The position is the millisecond at which the period began, counted from 1970: another interval
/// goes on from there, where a period's number would mean another time.
pub fn due(stored: Option<FeedPosition>, now_ms: i64, interval_ms: u64, topic: &str, partitions: i32) -> Option<Batch> {
    let now_ms = u64::try_from(now_ms).unwrap_or_default();
    let began_ms = now_ms - now_ms % interval_ms.max(1);
    if stored.is_some_and(|stored| stored.position >= began_ms) {
        return None;
    }
    let mut batch = Batch::moving(stored, began_ms);
    batch.records.extend((0..partitions).map(|partition| EncodedRecord {
        topic: topic.to_owned(),
        partition: Some(partition),
        key: ROLL_KEY.to_owned(),
        value: None,
        headers: Headers::default(),
    }));
    Some(batch)
}

/// How long until the next period begins.
pub fn next_in_ms(now_ms: i64, interval_ms: u64) -> u64 {
    let interval_ms = interval_ms.max(1);
    interval_ms - u64::try_from(now_ms).unwrap_or_default() % interval_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_period_has_its_marks_once_in_every_partition() {
        let batch = due(None, 2_500, 1_000, "t", 3).expect("due");
        assert_eq!(batch.next.position, 2_000);
        assert_eq!(batch.records.iter().map(|record| record.partition).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
        assert!(batch.records.iter().all(|record| record.value.is_none() && record.topic == "t"));
        assert!(due(Some(batch.next), 2_999, 1_000, "t", 3).is_none());
        assert!(due(Some(batch.next), 3_000, 1_000, "t", 3).is_some());
        // A longer or a shorter interval goes on.
        assert!(due(Some(batch.next), 9_000, 5_000, "t", 3).is_some());
        assert!(due(Some(batch.next), 2_500, 200, "t", 3).is_some());
        assert_eq!([next_in_ms(2_500, 1_000), next_in_ms(3_000, 1_000)], [500, 1_000]);
    }
}
