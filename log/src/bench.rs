//! What benchmarks need of Kafka beside what Ryggrad does itself: the bare library, and a way to
//! clean up.
//!
//! The bare producer has the settings of `Publisher` but for the transaction, so that the two
//! can be compared. Must never be used to publish for real: without a transaction, events and
//! their position can part.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use ryggrad_schemas::EncodedRecord;

use crate::connection::Listener;
use crate::publisher::{blocking, to_base_record};
use crate::{Connection, Error, Remedy};

pub use crate::connection::{COMPRESSION, LINGER_MS};

#[derive(Clone, Default)]
struct Failures(Arc<AtomicU64>);

impl ClientContext for Failures {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        Listener.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        Listener.error(error, reason);
    }
}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if delivery.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// librdkafka with nothing around it: idempotent, acknowledged by all, no transaction.
pub struct BareProducer {
    producer: Arc<ThreadedProducer<Failures>>,
    failures: Failures,
}

impl BareProducer {
    /// A producer. Asks nothing of the broker yet.
    pub fn new(connection: &Connection) -> Result<Self, Error> {
        let failures = Failures::default();
        let producer =
            connection.bulk_producer().create_with_context(failures.clone()).map_err(|error| Error::new("create a producer", error))?;
        Ok(Self { producer: Arc::new(producer), failures })
    }

    /// Sends all records, as many times over as asked, and waits once, until the broker has
    /// acknowledged every one. Gives the records back, so that making copies is no part of the time.
    pub async fn send_all(
        &self,
        records: Vec<EncodedRecord>,
        times: usize,
        timeout_ms: u64,
    ) -> Result<(Vec<EncodedRecord>, Duration), Error> {
        let (producer, failures) = (Arc::clone(&self.producer), self.failures.clone());
        blocking(move || {
            let doing = || format!("send {} records", records.len() * times);
            let started = Instant::now();
            let deadline = started + Duration::from_millis(timeout_ms);
            for record in (0..times).flat_map(|_| &records) {
                enqueue(&producer, record, deadline).map_err(|error| Error::new(doing(), error))?;
            }
            acknowledged(&producer, deadline).map_err(|error| Error::new(doing(), error))?;
            let took = started.elapsed();
            match failures.0.load(Ordering::Relaxed) {
                0 => Ok((records, took)),
                failed => Err(Error::other(doing(), Remedy::Die, format!("{failed} of them failed"))),
            }
        })
        .await
    }
}

/// Waits until nothing is under way. The client's own flush looks only every 100 ms, which would
/// make the baseline slower than it is.
#[expect(clippy::disallowed_methods, reason = "runs on a thread for blocking work")]
fn acknowledged(producer: &ThreadedProducer<Failures>, deadline: Instant) -> Result<(), KafkaError> {
    while producer.in_flight_count() > 0 {
        if Instant::now() > deadline {
            return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "runs on a thread for blocking work; the full queue is the back-pressure")]
fn enqueue(producer: &ThreadedProducer<Failures>, record: &EncodedRecord, deadline: Instant) -> Result<(), KafkaError> {
    let mut outgoing = to_base_record(record, ());
    loop {
        match producer.send(outgoing) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) if Instant::now() < deadline => {
                outgoing = returned;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error),
        }
    }
}

/// Deletes topics that a benchmark made.
pub async fn delete_topics(connection: &Connection, names: &[String]) -> Result<(), Error> {
    let doing = "delete a benchmark's topics";
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    if names.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<Listener> = connection.client().create_with_context(Listener).map_err(|error| Error::new(doing, error))?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(10)));
    let outcomes = admin.delete_topics(&names, &options).await.map_err(|error| Error::new(doing, error))?;
    match outcomes.into_iter().find_map(Result::err) {
        Some((_, code)) => Err(Error::new(doing, KafkaError::AdminOp(code))),
        None => Ok(()),
    }
}
