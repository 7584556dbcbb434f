//! What benchmarks need of Kafka beside what Ryggrad does itself: the bare library, and a way to
//! clean up.
//!
//! The bare producer has the settings of `Publisher` but for the transaction, so that the two
//! can be compared. Must never be used to publish for real: without a transaction, events and
//! their position can part.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use ryggrad_schemas::EncodedRecord;

use crate::connection::Listener;
use crate::publisher::{blocking, to_base_record};
use crate::reader::{self, ReaderLimits, Start};
use crate::{Connection, Error, Remedy};

pub use crate::connection::{COMPRESSION, LINGER_MS};

const FILE_BUFFER_BYTES: usize = 512 * 1024;

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

/// A record that a bare consumer has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The value of the header that was asked for.
    pub header: String,
    /// Log append time, milliseconds since 1970.
    pub appended_ms: i64,
    /// When it was seen, microseconds since 1970.
    pub at_us: i64,
}

/// librdkafka reading committed records with nothing around it: a loop on a thread of its own that
/// notes when it sees what, with the settings of `follow`.
pub struct BareConsumer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Seen>, Error>>,
}

impl BareConsumer {
    /// Starts at the topic's end and notes records that have this header.
    pub fn start(connection: &Connection, topic: &str, partitions: i32, header: &'static str) -> Result<Self, Error> {
        let consumer = reader::create(connection, topic, &ReaderLimits::default())?;
        let starts: Vec<_> = (0..partitions).map(|partition| (partition, Start::End)).collect();
        let list = reader::start_list(topic, &starts)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name("bare-consumer".to_owned()).spawn(move || {
            reader::assign(&consumer, &list)?;
            Ok(watch(&consumer, header, &stopped))
        });
        let thread = thread.map_err(|error| Error::other("start a reading thread", Remedy::Retry, error))?;
        Ok(Self { stop, thread })
    }

    /// Ends it and gives what it has seen.
    pub async fn finish(self) -> Result<Vec<Seen>, Error> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread;
        blocking(move || thread.join().map_err(|_| Error::other("read as a bare consumer", Remedy::Die, "its thread has panicked"))?).await
    }
}

fn watch(consumer: &BaseConsumer<Listener>, name: &str, stop: &AtomicBool) -> Vec<Seen> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let at_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
        let found = message.headers().and_then(|headers| headers.iter().find(|header| header.key == name)).and_then(|header| header.value);
        if let Some(header) = found.and_then(|value| std::str::from_utf8(value).ok()) {
            seen.push(Seen { header: header.to_owned(), appended_ms: message.timestamp().to_millis().unwrap_or_default(), at_us });
        }
    }
    seen
}

/// librdkafka reading a whole topic into a file with nothing around it: polls, and writes key,
/// headers and value as they are, filled up so that in the end there are `record_bytes` for each
/// record. The file is synced. Records and bytes. Blocks.
pub fn read_to_file(
    connection: &Connection,
    topic: &str,
    partitions: i32,
    limits: &ReaderLimits,
    record_bytes: usize,
    file: std::fs::File,
) -> Result<(u64, u64), Error> {
    let doing = || format!("read {topic} into a file");
    let consumer = reader::create(connection, topic, limits)?;
    let starts: Vec<_> = (0..partitions).map(|partition| (partition, Start::Beginning)).collect();
    reader::assign(&consumer, &reader::start_list(topic, &starts)?)?;
    let mut writer = std::io::BufWriter::with_capacity(FILE_BUFFER_BYTES, file);
    let filler = vec![b' '; record_bytes];
    let (mut open, mut records, mut bytes, mut owed) = (partitions, 0_u64, 0_u64, 0_usize);
    let copied = |error: std::io::Error| Error::other(doing(), Remedy::Die, error);
    while open > 0 {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let mut parts = vec![message.key().unwrap_or_default()];
                for header in message.headers().into_iter().flat_map(Headers::iter) {
                    parts.extend([header.key.as_bytes(), header.value.unwrap_or_default()]);
                }
                parts.push(message.payload().unwrap_or_default());
                owed += record_bytes;
                let raw_bytes: usize = parts.iter().map(|part| part.len()).sum();
                let missing = owed.saturating_sub(raw_bytes).min(record_bytes);
                parts.push(filler.get(..missing).unwrap_or_default());
                parts.iter().try_for_each(|part| writer.write_all(part)).map_err(copied)?;
                let written = raw_bytes + missing;
                owed = owed.saturating_sub(written);
                records += 1;
                bytes += written as u64;
            }
            Some(Err(error)) => match reader::to_notice(error) {
                reader::Read::AtEnd { .. } => open -= 1,
                reader::Read::Failed(error) => return Err(error),
                _ => {}
            },
            None => {}
        }
    }
    writer.into_inner().map_err(|error| copied(error.into_error()))?.sync_all().map_err(copied)?;
    Ok((records, bytes))
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
