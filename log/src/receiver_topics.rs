//! Topics of single receivers: they come and go with their subscriptions, and their records with what their receivers may have.
//!
//! Over clients that are kept: what is withdrawn must be gone within a second. Must never be used for a topic that is
//! the truth of anything but what was written to its receiver.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use tokio::task::JoinSet;

use crate::connection::Listener;
use crate::publisher::blocking;
use crate::{Connection, Error, Remedy, Watermarks, groups, offsets, topics};

/// Groups of one receiver whose offsets are asked for. Of a receiver with more of them, everything counts as unread.
const GROUPS_MAX: usize = 64;

/// All of them, on one cluster.
#[derive(Clone)]
pub struct ReceiverTopics {
    connection: Connection,
    admin: Arc<AdminClient<Listener>>,
    asker: Arc<BaseConsumer<Listener>>,
    timeout_ms: u64,
}

impl ReceiverTopics {
    /// Asks nothing yet.
    pub fn new(connection: &Connection, timeout_ms: u64) -> Result<Self, Error> {
        let (admin, asker) = (Arc::new(topics::admin(connection)?), Arc::new(offsets::asker(connection, "read_committed")?));
        Ok(Self { connection: connection.clone(), admin, asker, timeout_ms })
    }

    /// The names of all topics, with how many partitions each has.
    pub async fn all(&self) -> Result<Vec<(String, i32)>, Error> {
        let counts = topics::partition_counts(Arc::clone(&self.admin)).await?;
        Ok(counts.into_iter().map(|(name, count)| (name, i32::try_from(count).unwrap_or(i32::MAX))).collect())
    }

    /// Deletes a topic, if it is there.
    pub async fn delete(&self, topic: &str) -> Result<(), Error> {
        let doing = || format!("delete the topic {topic}");
        let results = self.admin.delete_topics(&[topic], &self.options()).await.map_err(|error| Error::new(doing(), error))?;
        match results.into_iter().next() {
            None | Some(Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) => Ok(()),
            Some(Err((_, code))) => Err(Error::new(doing(), KafkaError::AdminOp(code))),
        }
    }

    /// Where the committed part of each partition begins and ends, from partition 0 on.
    pub async fn marks(&self, topic: &str, partitions: i32) -> Result<Vec<Watermarks>, Error> {
        let (asker, topic, timeout_ms) = (Arc::clone(&self.asker), topic.to_owned(), self.timeout_ms);
        blocking(move || (0..partitions).map(|partition| offsets::fetch(&asker, &topic, partition, timeout_ms)).collect()).await
    }

    /// Deletes all records that are there now: nobody reads them any more when it returns.
    pub async fn empty(&self, topic: &str, partitions: i32) -> Result<(), Error> {
        let doing = || format!("delete the records of {topic}");
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::End).map_err(|error| Error::new(doing(), error))?;
        }
        let done = self.admin.delete_records(&list, &self.options()).await.map_err(|error| Error::new(doing(), error))?;
        done.elements().iter().try_for_each(|element| element.error().map_err(|error| Error::new(doing(), error)))
    }

    /// How far every group has read whose name begins so, which is what nobody will read again: the least of their
    /// committed offsets in each partition, from partition 0 on; none where none has committed any.
    pub async fn read_to(&self, topic: &str, partitions: i32, prefixes: Vec<String>) -> Result<Vec<Option<i64>>, Error> {
        let (asker, timeout_ms) = (Arc::clone(&self.asker), self.timeout_ms);
        let groups = blocking(move || groups::beginning_with(&asker, &prefixes, Duration::from_millis(timeout_ms))).await?;
        let mut least = vec![None; usize::try_from(partitions).unwrap_or_default()];
        if groups.len() > GROUPS_MAX {
            return Ok(least);
        }
        let asked: Vec<(String, i32)> = (0..partitions).map(|partition| (topic.to_owned(), partition)).collect();
        let mut asking = JoinSet::new();
        for group in groups {
            let (connection, asked) = (self.connection.clone(), asked.clone());
            asking.spawn(async move { groups::committed(&connection, &group, &asked, timeout_ms).await });
        }
        while let Some(answered) = asking.join_next().await {
            let committed = answered.map_err(|join| Error::other("ask how far groups have read", Remedy::Retry, join))??;
            for found in committed {
                let Some(place) = usize::try_from(found.partition).ok().and_then(|partition| least.get_mut(partition)) else { continue };
                *place = Some(place.map_or(found.offset, |before: i64| before.min(found.offset)));
            }
        }
        Ok(least)
    }

    fn options(&self) -> AdminOptions {
        let timeout = Some(Duration::from_millis(self.timeout_ms));
        AdminOptions::new().request_timeout(timeout).operation_timeout(timeout)
    }
}
