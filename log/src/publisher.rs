//! Transactional publishing: all records of a batch become visible together, or none does.
//!
//! Promise: when `publish` answers Ok, the batch is committed; when it answers an error, the
//! caller must read its position back before it goes on, unless the remedy is `Abort`, where
//! nothing of the batch is or will be visible. Two publishers of one transactional id: the
//! newer fences the older.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::util::IntoOpaque;
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

/// Records that tell where others of their own transaction came to stand.
pub trait Marks: Send + 'static {
    /// Whether a record's place must be known.
    fn wants(&self, record: &EncodedRecord) -> bool;
    /// What stands besides, in the same transaction, once the place is known.
    fn mark(&self, record: &EncodedRecord, partition: i32, offset: i64) -> Option<EncodedRecord>;
}

/// No marks.
impl Marks for () {
    fn wants(&self, _: &EncodedRecord) -> bool {
        false
    }
    fn mark(&self, _: &EncodedRecord, _: i32, _: i64) -> Option<EncodedRecord> {
        None
    }
}

/// Takes down the places that somebody wants to know.
#[derive(Default)]
pub(crate) struct Places {
    /// Ticket, partition, offset.
    found: Mutex<Vec<(usize, i32, i64)>>,
    /// So that a report of an earlier attempt that comes late is not taken for one of this.
    next_ticket: AtomicUsize,
}

impl Places {
    /// Tickets for that many records; 0 is nobody's.
    fn tickets(&self, records: usize) -> usize {
        self.found().clear();
        self.next_ticket.fetch_add(records, Ordering::Relaxed) + 1
    }

    fn found(&self) -> MutexGuard<'_, Vec<(usize, i32, i64)>> {
        // A list is whole after every single operation.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Places {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Listener.error(error, reason);
    }
}

impl ProducerContext for Places {
    type DeliveryOpaque = usize;

    // A record that fails makes the commit fail, which tells.
    fn delivery(&self, delivery: &DeliveryResult<'_>, ticket: usize) {
        if ticket != 0
            && let Ok(message) = delivery
        {
            self.found().push((ticket, message.partition(), message.offset()));
        }
    }
}

/// How long a new publisher waits for a broker before it goes on without having met one.
pub(crate) const FIRST_CONTACT: Duration = Duration::from_secs(1);
/// Pause between two looks for delivery reports.
const LOOK_EVERY: Duration = Duration::from_micros(300);

/// A transactional producer.
pub struct Publisher {
    producer: Arc<BaseProducer<Places>>,
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
            let producer: BaseProducer<Places> =
                config.create_with_context(Places::default()).map_err(|error| Error::new("create a producer", error))?;
            // With a broker met, the coordinator is found at once; otherwise librdkafka's first
            // try fails and the next comes half a second later.
            let _ = producer.client().fetch_metadata(None, FIRST_CONTACT);
            producer.init_transactions(operation_timeout).map_err(|error| Error::new(format!("start transactions as {id}"), error))?;
            Ok(Self { producer: Arc::new(producer), transactional_id: id, operation_timeout })
        })
        .await
    }

    /// Publishes a batch in one transaction, with the marks that its records' places make.
    pub async fn publish(&self, records: Arc<[EncodedRecord]>, marks: impl Marks) -> Result<(), Error> {
        let (producer, id, timeout) = (Arc::clone(&self.producer), self.transactional_id.clone(), self.operation_timeout);
        blocking(move || {
            let attempt = transaction(&producer, &records, &marks, timeout);
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

fn transaction(
    producer: &BaseProducer<Places>,
    records: &[EncodedRecord],
    marks: &impl Marks,
    timeout: Duration,
) -> Result<(), KafkaError> {
    producer.begin_transaction()?;
    let deadline = Instant::now() + timeout;
    let places = producer.context();
    let first_ticket = places.tickets(records.len());
    let mut wanted = 0;
    for (ticket, record) in (first_ticket..).zip(records) {
        let is_wanted = marks.wants(record);
        wanted += usize::from(is_wanted);
        enqueue(producer, record, if is_wanted { ticket } else { 0 }, deadline)?;
    }
    await_reports(producer, deadline);
    if wanted > 0 {
        let found: Vec<_> = places.found().iter().copied().filter(|(ticket, ..)| *ticket >= first_ticket).collect();
        if found.len() < wanted {
            // Without their marks, the records must not stand either.
            return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
        for (ticket, partition, offset) in found {
            let mark = records.get(ticket - first_ticket).and_then(|record| marks.mark(record, partition, offset));
            mark.iter().try_for_each(|mark| enqueue(producer, mark, 0, deadline))?;
        }
        await_reports(producer, deadline);
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
pub(crate) fn take_reports(producer: &BaseProducer<Places>) {
    producer.poll(Duration::ZERO);
    std::thread::sleep(LOOK_EVERY);
}

/// Waits for what is under way. The client's own flush looks every 100 ms, which would hold each
/// transaction open that long. Here it is looked as often as the broker answers.
pub(crate) fn await_reports(producer: &BaseProducer<Places>, deadline: Instant) {
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        take_reports(producer);
    }
}

fn enqueue(producer: &BaseProducer<Places>, record: &EncodedRecord, ticket: usize, deadline: Instant) -> Result<(), KafkaError> {
    let mut outgoing = to_base_record(record, ticket);
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

pub(crate) fn to_base_record<O: IntoOpaque>(record: &EncodedRecord, opaque: O) -> BaseRecord<'_, str, [u8], O> {
    let headers = record.headers.iter().fold(OwnedHeaders::new_with_capacity(record.headers.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    });
    let mut outgoing = BaseRecord::with_opaque_to(&record.topic, opaque).key(record.key.as_str()).headers(headers);
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
