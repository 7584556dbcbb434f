//! Single records, each acknowledged: for facts whose truth is a topic (subscriptions, tokens).
//!
//! Promise: Ok means that every in-sync replica has the record.

use std::sync::Mutex;
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use ryggrad_schemas::EncodedRecord;
use tokio::sync::oneshot;

use crate::connection::Listener;
use crate::publisher::to_base_record;
use crate::{Connection, Error, Remedy};

/// Where a record came to stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Partition.
    pub partition: i32,
    /// Offset.
    pub offset: i64,
}

type Answer = oneshot::Sender<Result<Appended, KafkaError>>;

/// The acknowledgement of a record that is on its way. Dropping it leaves the record on its way.
pub struct Acknowledgement {
    outcome: oneshot::Receiver<Result<Appended, KafkaError>>,
    topic: String,
}

impl Acknowledgement {
    /// Waits for it.
    pub async fn wait(self) -> Result<Appended, Error> {
        let doing = || format!("append to {}", self.topic);
        match self.outcome.await {
            Ok(outcome) => outcome.map_err(|error| Error::new(doing(), error)),
            Err(gone) => Err(Error::other(doing(), Remedy::Die, gone)),
        }
    }
}

struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Listener.error(error, reason);
    }
}

impl ProducerContext for Context {
    // A mutex because the trait wants the opaque shared; it is taken once.
    type DeliveryOpaque = Box<Mutex<Option<Answer>>>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, opaque: Self::DeliveryOpaque) {
        let Some(answer) = opaque.lock().ok().and_then(|mut answer| answer.take()) else { return };
        let outcome = match delivery {
            Ok(message) => Ok(Appended { partition: message.partition(), offset: message.offset() }),
            Err((error, _)) => Err(error.clone()),
        };
        // Nobody waits any more: the caller gave up, the record stands all the same.
        let _ = answer.send(outcome);
    }
}

/// An idempotent producer of single records.
pub struct Appender {
    producer: ThreadedProducer<Context>,
}

impl Appender {
    /// One whose records wait for the broker as long as it takes: in their order, or the whole bridge would
    /// have to begin again.
    pub fn patient(connection: &Connection) -> Result<Self, Error> {
        Self::new(connection, 0)
    }

    /// Creates the producer; does not wait for the broker. A timeout of 0 is none.
    pub fn new(connection: &Connection, append_timeout_ms: u32) -> Result<Self, Error> {
        let mut config = connection.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Somebody waits for each.
            .set("linger.ms", "0")
            .set("message.timeout.ms", append_timeout_ms.to_string())
            .set("partitioner", "murmur2_random");
        if append_timeout_ms == 0 {
            // One that is refused takes all behind it along.
            config.set("enable.gapless.guarantee", "true");
        }
        let producer = config.create_with_context(Context).map_err(|error| Error::new("create a producer", error))?;
        Ok(Self { producer })
    }

    /// Appends a record and waits for the acknowledgement.
    pub async fn append(&self, record: &EncodedRecord) -> Result<Appended, Error> {
        self.enqueue(record)?.wait().await
    }

    /// Sends a record on its way: behind all that were before it, in its partition.
    pub fn enqueue(&self, record: &EncodedRecord) -> Result<Acknowledgement, Error> {
        let (answer, outcome) = oneshot::channel();
        let outgoing = to_base_record(record, Box::new(Mutex::new(Some(answer))));
        self.producer.send(outgoing).map_err(|(error, _)| Error::new(format!("append to {}", record.topic), error))?;
        Ok(Acknowledgement { outcome, topic: record.topic.clone() })
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        // What was accepted is sent if the broker answers; a bound so that shutdown ends.
        let _ = self.producer.flush(Duration::from_secs(2));
    }
}
