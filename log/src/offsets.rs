//! Questions about a log: where it begins and ends, which offset a moment has, which cluster.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::publisher::blocking;
use crate::{Connection, Error, Remedy};

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that is still there.
    pub low: i64,
    /// The offset that the next committed record will not be below.
    pub high: i64,
}

/// First offset and end of the committed part of a partition.
pub async fn watermarks(connection: &Connection, topic: &str, partition: i32, timeout_ms: u64) -> Result<Watermarks, Error> {
    let (consumer, topic) = (asker(connection, "read_committed")?, topic.to_owned());
    blocking(move || fetch(&consumer, &topic, partition, timeout_ms)).await
}

/// Whether a transaction is open on a partition: its committed part ends before its end.
pub async fn open_transaction(connection: &Connection, topic: &str, partition: i32, timeout_ms: u64) -> Result<bool, Error> {
    let (committed, all) = (asker(connection, "read_committed")?, asker(connection, "read_uncommitted")?);
    let topic = topic.to_owned();
    blocking(move || {
        let end = fetch(&all, &topic, partition, timeout_ms)?.high;
        Ok(fetch(&committed, &topic, partition, timeout_ms)?.high < end)
    })
    .await
}

/// The first offset whose record was appended at `time_ms` or later; the end if there is none.
pub async fn offset_at_time(connection: &Connection, topic: &str, partition: i32, time_ms: i64, timeout_ms: u64) -> Result<i64, Error> {
    let (consumer, topic) = (asker(connection, "read_committed")?, topic.to_owned());
    blocking(move || {
        let doing = || format!("find the offset of a time in {topic}/{partition}");
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, partition, Offset::Offset(time_ms)).map_err(|error| Error::new(doing(), error))?;
        let found = consumer.offsets_for_times(list, Duration::from_millis(timeout_ms)).map_err(|error| Error::new(doing(), error))?;
        match found.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => Ok(offset),
            _ => Ok(fetch(&consumer, &topic, partition, timeout_ms)?.high),
        }
    })
    .await
}

/// The cluster's id: tells one cluster from another that has the same address.
pub async fn cluster_id(connection: &Connection, timeout_ms: u64) -> Result<String, Error> {
    let consumer = asker(connection, "read_committed")?;
    blocking(move || {
        let doing = "reach Kafka";
        // The id comes with the metadata, which is asked for first so that a broker that is
        // away is told from one without an id.
        consumer.fetch_metadata(None, Duration::from_millis(timeout_ms)).map_err(|error| Error::new(doing, error))?;
        consumer
            .client()
            .fetch_cluster_id(Duration::from_millis(timeout_ms))
            .ok_or_else(|| Error::other(doing, Remedy::Retry, "the broker does not tell its cluster id"))
    })
    .await
}

fn fetch(consumer: &BaseConsumer, topic: &str, partition: i32, timeout_ms: u64) -> Result<Watermarks, Error> {
    consumer
        .fetch_watermarks(topic, partition, Duration::from_millis(timeout_ms))
        .map(|(low, high)| Watermarks { low, high })
        .map_err(|error| Error::new(format!("ask for the ends of {topic}/{partition}"), error))
}

fn asker(connection: &Connection, isolation: &str) -> Result<BaseConsumer, Error> {
    connection
        .client()
        .set("group.id", "ryggrad-reader")
        .set("isolation.level", isolation)
        .create()
        .map_err(|error| Error::new("create a consumer", error))
}
