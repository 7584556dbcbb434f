//! Transactional publishing: all records of a batch become visible together, or none does.
//!
//! Promise: when `publish` answers Ok, the batch is committed; when it answers an error, the
//! caller must read its position back before it goes on, unless the remedy is `Abort`, where
//! nothing of the batch is or will be visible. Two publishers of one transactional id: the
//! newer fences the older.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use ryggrad_schemas::EncodedRecord;

use crate::connection::Listener;
use crate::{Connection, Error, Remedy};

/// Limits of a publisher.
#[derive(Debug, Clone)]
pub struct PublisherOptions {
    /// After how long the broker aborts a transaction that its producer left open. Short, since
    /// an open one stalls every reader of committed records.
    pub transaction_timeout_ms: u32,
    /// How long one call may wait for the broker before it is given up.
    pub operation_timeout_ms: u32,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self { transaction_timeout_ms: 10_000, operation_timeout_ms: 30_000 }
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    // A record that fails makes the commit fail, which tells.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// How long a new publisher waits for a broker before it goes on without having met one.
const FIRST_CONTACT: Duration = Duration::from_secs(1);
/// Pause between two looks for delivery reports.
const LOOK_EVERY: Duration = Duration::from_micros(300);

/// A transactional producer.
pub struct Publisher {
    producer: Arc<BaseProducer<Listener>>,
    transactional_id: String,
    operation_timeout: Duration,
}

impl Publisher {
    /// Connects, fences older publishers of the same id and ends what they left open. Waits for
    /// the broker as long as the operation timeout.
    pub async fn start(connection: &Connection, transactional_id: &str, options: &PublisherOptions) -> Result<Self, Error> {
        let mut config = connection.bulk_producer();
        config
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", options.transaction_timeout_ms.to_string())
            .set("message.timeout.ms", (options.transaction_timeout_ms * 9 / 10).to_string());
        let operation_timeout = Duration::from_millis(options.operation_timeout_ms.into());
        let id = transactional_id.to_owned();
        blocking(move || {
            let producer: BaseProducer<Listener> =
                config.create_with_context(Listener).map_err(|error| Error::new("create a producer", error))?;
            // With a broker met, the coordinator is found at once; otherwise librdkafka's first
            // try fails and the next comes half a second later.
            let _ = producer.client().fetch_metadata(None, FIRST_CONTACT);
            producer.init_transactions(operation_timeout).map_err(|error| Error::new(format!("start transactions as {id}"), error))?;
            Ok(Self { producer: Arc::new(producer), transactional_id: id, operation_timeout })
        })
        .await
    }

    /// Publishes a batch in one transaction.
    pub async fn publish(&self, records: Vec<EncodedRecord>) -> Result<(), Error> {
        let (producer, id, timeout) = (Arc::clone(&self.producer), self.transactional_id.clone(), self.operation_timeout);
        blocking(move || {
            let attempt = transaction(&producer, &records, timeout);
            attempt.map_err(|error| {
                let mut error = Error::new(format!("publish {} records as {id}", records.len()), error);
                if error.remedy != Remedy::Die {
                    // Whatever went wrong, nothing of this batch may stay behind. A commit whose
                    // outcome is unknown can't be aborted: then only a new publisher knows.
                    error.remedy = match producer.abort_transaction(timeout) {
                        Ok(()) => Remedy::Abort,
                        Err(_) => Remedy::Die,
                    };
                }
                error
            })
        })
        .await
    }
}

fn transaction(producer: &BaseProducer<Listener>, records: &[EncodedRecord], timeout: Duration) -> Result<(), KafkaError> {
    producer.begin_transaction()?;
    for record in records {
        enqueue(producer, record, timeout)?;
    }
    let deadline = Instant::now() + timeout;
    // The client's own flush looks every 100 ms, which would hold each transaction open that
    // long. Here it is looked as often as the broker answers.
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        take_reports(producer);
    }
    loop {
        match producer.commit_transaction(timeout) {
            // Committing again is safe and the only way to learn the outcome.
            Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {}
            outcome => return outcome,
        }
    }
}

/// Takes delivery reports in, then leaves the processor to the threads that make them: the
/// client's own poll would spin until its time is over.
#[expect(clippy::disallowed_methods, reason = "runs on a thread for blocking work")]
fn take_reports(producer: &BaseProducer<Listener>) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(LOOK_EVERY);
}

fn enqueue(producer: &BaseProducer<Listener>, record: &EncodedRecord, timeout: Duration) -> Result<(), KafkaError> {
    let deadline = Instant::now() + timeout;
    let mut outgoing = to_base_record(record);
    loop {
        match producer.send(outgoing) {
            Ok(()) => return Ok(()),
            // The queue is the back-pressure: take reports in until there is room.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) if Instant::now() < deadline => {
                outgoing = returned;
                take_reports(producer);
            }
            Err((error, _)) => return Err(error),
        }
    }
}

pub(crate) fn to_base_record(record: &EncodedRecord) -> BaseRecord<'_, str, [u8]> {
    let headers = record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value.as_str()) })
    });
    let mut outgoing = BaseRecord::to(&record.topic).key(record.key.as_str()).headers(headers);
    if let Some(value) = &record.value {
        outgoing = outgoing.payload(value.as_slice());
    }
    if let Some(partition) = record.partition {
        outgoing = outgoing.partition(partition);
    }
    outgoing
}

/// Runs what blocks on a thread where blocking is allowed.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(join) => Err(Error::other("finish a call to Kafka", Remedy::Die, join)),
    }
}
