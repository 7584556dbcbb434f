//! Copying records into another topic, byte for byte, together with how far the copying is.
//!
//! Promise: what was copied and the position behind it are one transaction, so that a copier
//! that was killed and is started again under its id loses and doubles nothing. A newer copier of
//! an id fences the older. Blocks: for threads made for it.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::connection::Listener;
use crate::groups::{self, Committed};
use crate::publisher::{FIRST_CONTACT, Places, PublisherOptions, await_reports, take_reports};
use crate::scan::Lent;
use crate::{Connection, Error, Remedy};

/// How far copying is in a partition of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Partition number.
    pub partition: i32,
    /// The next offset to copy.
    pub next: i64,
    /// What the caller wants to find again beside it.
    pub note: String,
}

/// Copies within transactions.
pub struct Copier {
    producer: BaseProducer<Places>,
    /// Reads nothing; speaks for the group that the progress is kept as.
    consumer: BaseConsumer<Listener>,
    id: String,
    source: String,
    target: String,
    timeout: Duration,
}

impl Copier {
    /// Connects, fences an older copier of the same id and ends what it left open. The id is also
    /// the name of the consumer group that the progress is kept as.
    pub fn start(connection: &Connection, id: &str, source: &str, target: &str) -> Result<Self, Error> {
        let options = PublisherOptions::default();
        let timeout = Duration::from_millis(options.operation_timeout_ms.into());
        let mut config = connection.bulk_producer();
        config
            .set("transactional.id", id)
            .set("transaction.timeout.ms", options.transaction_timeout_ms.to_string())
            .set("message.timeout.ms", (options.transaction_timeout_ms * 9 / 10).to_string());
        let producer: BaseProducer<Places> =
            config.create_with_context(Places::default()).map_err(|error| Error::new("create a producer", error))?;
        // As in the publisher: with a broker met, the coordinator is found at once.
        let _ = producer.client().fetch_metadata(None, FIRST_CONTACT);
        producer.init_transactions(timeout).map_err(|error| Error::new(format!("start transactions as {id}"), error))?;
        let consumer = groups::asker(connection, id)?;
        Ok(Self { producer, consumer, id: id.to_owned(), source: source.to_owned(), target: target.to_owned(), timeout })
    }

    /// How far earlier copiers of this id came in these partitions of the source.
    pub fn progress(&self, partitions: &[i32]) -> Result<Vec<Progress>, Error> {
        let asked: Vec<_> = partitions.iter().map(|partition| (self.source.clone(), *partition)).collect();
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let doing = format!("ask how far {} has come", self.id);
        let found = groups::ask_committed(&self.consumer, &asked, timeout_ms, &doing)?;
        Ok(found
            .into_iter()
            .map(|Committed { partition, offset, metadata, .. }| Progress { partition, next: offset, note: metadata })
            .collect())
    }

    /// Opens a transaction.
    pub fn begin(&self) -> Result<(), Error> {
        self.producer.begin_transaction().map_err(|error| self.fault(error))
    }

    /// Puts a record into the open transaction, with further headers behind its own. Without a
    /// partition, its key decides.
    pub fn copy(&self, record: &Lent<'_>, partition: Option<i32>, headers: &[(&str, &str)]) -> Result<(), Error> {
        let mut all = OwnedHeaders::new_with_capacity(headers.len() + 16);
        for (key, value) in record.headers() {
            all = all.insert(Header { key, value });
        }
        for (key, value) in headers {
            all = all.insert(Header { key, value: Some(value.as_bytes()) });
        }
        let mut outgoing = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&self.target, 0).headers(all);
        if let Some(key) = record.key_bytes() {
            outgoing = outgoing.key(key);
        }
        if let Some(value) = record.value() {
            outgoing = outgoing.payload(value);
        }
        if let Some(partition) = partition {
            outgoing = outgoing.partition(partition);
        }
        let deadline = Instant::now() + self.timeout;
        loop {
            match self.producer.send(outgoing) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) if Instant::now() < deadline => {
                    outgoing = returned;
                    take_reports(&self.producer);
                }
                Err((error, _)) => return Err(self.fault(error)),
            }
        }
    }

    /// Ends the open transaction with the progress behind what it holds.
    pub fn commit(&self, progress: &[Progress]) -> Result<(), Error> {
        let deadline = Instant::now() + self.timeout;
        await_reports(&self.producer, deadline);
        let mut list = TopicPartitionList::with_capacity(progress.len());
        for Progress { partition, next, note } in progress {
            let mut element = list.add_partition(&self.source, *partition);
            element.set_offset(Offset::Offset(*next)).map_err(|error| self.fault(error))?;
            element.set_metadata(note);
        }
        let group = self.consumer.group_metadata();
        let group = group.ok_or_else(|| Error::other(self.doing(), Remedy::Die, "the client has no group"))?;
        loop {
            match self.producer.send_offsets_to_transaction(&list, &group, self.timeout) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                outcome => break outcome.map_err(|error| self.fault(error))?,
            }
        }
        loop {
            match self.producer.commit_transaction(self.timeout) {
                // Committing again is safe and the only way to learn the outcome.
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
                outcome => return outcome.map_err(|error| self.fault(error)),
            }
        }
    }

    /// Throws the open transaction away.
    pub fn abort(&self) -> Result<(), Error> {
        self.producer.abort_transaction(self.timeout).map_err(|error| self.fault(error))
    }

    fn doing(&self) -> String {
        format!("copy {} to {} as {}", self.source, self.target, self.id)
    }

    fn fault(&self, error: KafkaError) -> Error {
        Error::new(self.doing(), error)
    }
}
