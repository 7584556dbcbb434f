//! Questions about a log: where it begins and ends, which offset a moment has, which cluster.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use crate::connection::Listener;
use crate::publisher::blocking;
use crate::{Connection, Error, Remedy};

const NO_CLUSTER_ID: &str = "the broker does not tell its cluster id";

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that is still there.
    pub low: i64,
    /// The offset that the next committed record will not be below.
    pub high: i64,
}

/// A topic as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Kafka's id of the cluster.
    pub cluster: String,
    /// Where each partition begins and ends, from partition 0 on.
    pub marks: Vec<Watermarks>,
}

/// How far a topic extends, asked over one connection; none if there is none of that name. Never
/// creates one.
pub async fn extent(connection: &Connection, topic: &str, timeout_ms: u64) -> Result<Option<Extent>, Error> {
    let (consumer, topic) = (asker(connection, "read_committed")?, topic.to_owned());
    blocking(move || {
        let doing = || format!("look at the topic {topic}");
        let timeout = Duration::from_millis(timeout_ms);
        // Of all topics, since asking for one by name could create it.
        let metadata = consumer.fetch_metadata(None, timeout).map_err(|error| Error::new(doing(), error))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
        let partitions = i32::try_from(found.partitions().len()).unwrap_or(i32::MAX);
        let marks = (0..partitions).map(|partition| fetch(&consumer, &topic, partition, timeout_ms)).collect::<Result<_, _>>()?;
        let cluster = consumer.client().fetch_cluster_id(timeout);
        let cluster = cluster.ok_or_else(|| Error::other(doing(), Remedy::Retry, NO_CLUSTER_ID))?;
        // Its threads take a tenth of a second to end, which nobody has to wait for.
        std::thread::spawn(move || drop(consumer));
        Ok(Some(Extent { cluster, marks }))
    })
    .await
}

/// First offset and end of the committed part of a partition.
pub async fn watermarks(connection: &Connection, topic: &str, partition: i32, timeout_ms: u64) -> Result<Watermarks, Error> {
    let (consumer, topic) = (asker(connection, "read_committed")?, topic.to_owned());
    blocking(move || fetch(&consumer, &topic, partition, timeout_ms)).await
}

/// Looks whether a transaction is open: the committed part of a partition ends before its end.
#[derive(Clone)]
pub struct TransactionWatch {
    committed: Arc<BaseConsumer<Listener>>,
    all: Arc<BaseConsumer<Listener>>,
}

impl TransactionWatch {
    /// A watch on a connection.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        Ok(Self { committed: Arc::new(asker(connection, "read_committed")?), all: Arc::new(asker(connection, "read_uncommitted")?) })
    }

    /// Whether a transaction is open on a partition.
    pub async fn is_open(&self, topic: &str, partition: i32, timeout_ms: u64) -> Result<bool, Error> {
        let (watch, topic) = (self.clone(), topic.to_owned());
        blocking(move || {
            let end = fetch(&watch.all, &topic, partition, timeout_ms)?.high;
            Ok(fetch(&watch.committed, &topic, partition, timeout_ms)?.high < end)
        })
        .await
    }
}

/// The first offset whose record was appended at `time_ms` or later; the end if there is none.
pub async fn offset_at_time(connection: &Connection, topic: &str, partition: i32, time_ms: i64, timeout_ms: u64) -> Result<i64, Error> {
    let (consumer, topic) = (asker(connection, "read_committed")?, topic.to_owned());
    blocking(move || offset_of(&consumer, &topic, partition, Moment::Time(time_ms), timeout_ms)).await
}

/// A moment in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The oldest record that is still there.
    Beginning,
    /// After the newest committed record.
    End,
    /// The first record appended at this time (milliseconds since 1970) or later.
    Time(i64),
}

/// Finds the offsets of moments, again and again: a connection that is there answers in a tenth of
/// the time that a new one takes.
#[derive(Clone)]
pub struct Moments(Arc<BaseConsumer<Listener>>);

impl Moments {
    /// For one cluster. Asks nothing yet.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        asker(connection, "read_committed").map(|consumer| Self(Arc::new(consumer)))
    }

    /// The offset of a moment in each partition of a topic, from partition 0 on.
    pub async fn offsets_of(&self, topic: &str, partitions: i32, moment: Moment, timeout_ms: u64) -> Result<Vec<i64>, Error> {
        let (consumer, topic) = (Arc::clone(&self.0), topic.to_owned());
        blocking(move || (0..partitions).map(|partition| offset_of(&consumer, &topic, partition, moment, timeout_ms)).collect()).await
    }
}

/// The offset of a moment in each partition of a topic, asked once.
pub async fn offsets_of(connection: &Connection, topic: &str, partitions: i32, moment: Moment, timeout_ms: u64) -> Result<Vec<i64>, Error> {
    Moments::new(connection)?.offsets_of(topic, partitions, moment, timeout_ms).await
}

fn offset_of(consumer: &BaseConsumer<Listener>, topic: &str, partition: i32, moment: Moment, timeout_ms: u64) -> Result<i64, Error> {
    let time_ms = match moment {
        // No record is older than 1970; to Kafka, such times are commands.
        Moment::Time(time_ms) if time_ms > 0 => time_ms,
        Moment::Beginning | Moment::Time(_) => return Ok(fetch(consumer, topic, partition, timeout_ms)?.low),
        Moment::End => return Ok(fetch(consumer, topic, partition, timeout_ms)?.high),
    };
    let doing = || format!("find the offset of a time in {topic}/{partition}");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(time_ms)).map_err(|error| Error::new(doing(), error))?;
    let found = consumer.offsets_for_times(list, Duration::from_millis(timeout_ms)).map_err(|error| Error::new(doing(), error))?;
    match found.elements().first().map(|element| element.offset()) {
        Some(Offset::Offset(offset)) => Ok(offset),
        // Past the last record.
        _ => Ok(fetch(consumer, topic, partition, timeout_ms)?.high),
    }
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
            .ok_or_else(|| Error::other(doing, Remedy::Retry, NO_CLUSTER_ID))
    })
    .await
}

/// Asks, again and again, whether the brokers answer.
pub struct Pulse(Arc<BaseConsumer<Listener>>);

impl Pulse {
    /// A pulse on a connection.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        asker(connection, "read_committed").map(|consumer| Self(Arc::new(consumer)))
    }

    /// Ok if a broker answers within the time.
    pub async fn beat(&self, timeout_ms: u64) -> Result<(), Error> {
        let consumer = Arc::clone(&self.0);
        blocking(move || {
            let metadata = consumer.fetch_metadata(Some("ryggrad.subscriptions"), Duration::from_millis(timeout_ms));
            metadata.map(|_| ()).map_err(|error| Error::new("reach Kafka", error))
        })
        .await
    }
}

pub(crate) fn fetch(consumer: &BaseConsumer<Listener>, topic: &str, partition: i32, timeout_ms: u64) -> Result<Watermarks, Error> {
    consumer
        .fetch_watermarks(topic, partition, Duration::from_millis(timeout_ms))
        .map(|(low, high)| Watermarks { low, high })
        .map_err(|error| Error::new(format!("ask for the ends of {topic}/{partition}"), error))
}

pub(crate) fn asker(connection: &Connection, isolation: &str) -> Result<BaseConsumer<Listener>, Error> {
    connection
        .client()
        .set("group.id", "ryggrad-reader")
        .set("isolation.level", isolation)
        .create_with_context(Listener)
        .map_err(|error| Error::new("create a consumer", error))
}
