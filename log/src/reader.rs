//! Reading: a follower per caller, on an OS thread of its own.
//!
//! Threads, because librdkafka's stream consumer can sleep through a wake-up for minutes, and
//! because dropping a consumer blocks. The bounded channel is the back-pressure. Must never
//! skip: an offset that the log does not have ends the follower with an error.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use ryggrad_schemas::LogRecord;

use tokio::sync::mpsc;

use crate::connection::Listener;
use crate::{Connection, Error, Remedy};

/// Where to start in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record that is still there.
    Beginning,
    /// After the newest.
    End,
    /// This offset. Not beyond the end, or the reader fails.
    Offset(i64),
}

/// Limits of a reader.
#[derive(Debug, Clone)]
pub struct ReaderLimits {
    /// Records in one hand-over.
    pub batch_records_max: usize,
    /// Hand-overs that may wait for the caller.
    pub batches_waiting_max: usize,
    /// Bytes that librdkafka may fetch ahead.
    pub prefetch_bytes_max: usize,
}

impl Default for ReaderLimits {
    fn default() -> Self {
        Self { batch_records_max: 500, batches_waiting_max: 4, prefetch_bytes_max: 8 * 1024 * 1024 }
    }
}

/// What a follower hands over, in order per partition.
#[derive(Debug)]
pub enum Read {
    /// Committed records.
    Records(Vec<LogRecord>),
    /// The reader is at the end of this partition for now.
    AtEnd {
        /// Partition number.
        partition: i32,
    },
    /// The broker cannot be reached; reading goes on when it can.
    Away {
        /// What the client library says.
        reason: String,
    },
    /// The follower has ended and cannot go on.
    Failed(Error),
}

/// A running reader. Dropping it stops the thread.
pub struct Follower {
    receiver: mpsc::Receiver<Read>,
}

impl Follower {
    /// The next hand-over. `None` after a failure.
    pub async fn next(&mut self) -> Option<Read> {
        self.receiver.recv().await
    }

    /// The next hand-over, for those who wait for several followers at once.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Read>> {
        self.receiver.poll_recv(context)
    }
}

const POLL: Duration = Duration::from_millis(100);
/// How long a reader waits for a broker before it starts without having met one.
const FIRST_CONTACT: Duration = Duration::from_secs(1);

/// Follows partitions of a topic from where each shall start, for as long as the follower lives.
pub fn follow(connection: &Connection, topic: &str, starts: &[(i32, Start)], limits: ReaderLimits) -> Result<Follower, Error> {
    let consumer = create(connection, topic, &limits)?;
    let list = start_list(topic, starts)?;
    let (sender, receiver) = mpsc::channel(limits.batches_waiting_max);
    std::thread::Builder::new()
        .name("log-reader".to_owned())
        .spawn(move || match assign(&consumer, &list) {
            Ok(()) => run(&consumer, &sender, limits.batch_records_max),
            // Nobody waits for it any more: then it does not matter either.
            Err(error) => drop(sender.blocking_send(Read::Failed(error))),
        })
        .map_err(|error| Error::other("start a reading thread", Remedy::Retry, error))?;
    Ok(Follower { receiver })
}

fn run(consumer: &BaseConsumer<Listener>, sender: &mpsc::Sender<Read>, batch_records_max: usize) {
    let mut batch = Vec::new();
    while !sender.is_closed() {
        // Wait for the first, then take what is there.
        let mut next = consumer.poll(POLL);
        let mut notice = None;
        while let Some(polled) = next {
            match polled {
                Ok(message) => batch.push(to_record(&message)),
                Err(error) => {
                    notice = Some(to_notice(error));
                    break;
                }
            }
            if batch.len() >= batch_records_max {
                break;
            }
            next = consumer.poll(Duration::ZERO);
        }
        if !batch.is_empty() && sender.blocking_send(Read::Records(std::mem::take(&mut batch))).is_err() {
            return;
        }
        if let Some(notice) = notice {
            let last = matches!(notice, Read::Failed(_));
            if sender.blocking_send(notice).is_err() || last {
                return;
            }
        }
    }
}

pub(crate) fn to_notice(error: KafkaError) -> Read {
    use RDKafkaErrorCode as Code;
    match error {
        KafkaError::PartitionEOF(partition) => Read::AtEnd { partition },
        KafkaError::MessageConsumption(
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Resolve
            | Code::NotLeaderForPartition
            | Code::LeaderNotAvailable,
        ) => Read::Away { reason: error.to_string() },
        error => Read::Failed(Error::other("go on reading", Remedy::Die, error)),
    }
}

/// Reads one partition of a (small, compacted) topic from its beginning to its present end.
/// Fails if it holds more than `records_max` or takes longer than `timeout_ms`.
pub async fn read_to_end(
    connection: &Connection,
    topic: &str,
    partition: i32,
    records_max: usize,
    timeout_ms: u64,
) -> Result<Vec<LogRecord>, Error> {
    let doing = format!("read {topic} to its end");
    let consumer = create(connection, topic, &ReaderLimits::default())?;
    let list = start_list(topic, &[(partition, Start::Beginning)])?;
    crate::publisher::blocking(move || {
        assign(&consumer, &list)?;
        let deadline = Instant::now() + Duration::from_millis(timeout_ms);
        let mut records = Vec::new();
        loop {
            match consumer.poll(POLL) {
                Some(Ok(message)) => records.push(to_record(&message)),
                Some(Err(error)) => match to_notice(error) {
                    Read::AtEnd { .. } => return Ok(records),
                    Read::Failed(error) => return Err(error),
                    _ => {}
                },
                None => {}
            }
            if records.len() > records_max {
                return Err(Error::other(doing, Remedy::Die, format!("it holds more than {records_max} records")));
            }
            if Instant::now() > deadline {
                return Err(Error::other(doing, Remedy::Retry, format!("no answer within {timeout_ms} ms")));
            }
        }
    })
    .await
}

pub(crate) fn create(connection: &Connection, topic: &str, limits: &ReaderLimits) -> Result<BaseConsumer<Listener>, Error> {
    connection
        .client()
        // librdkafka wants a name even where no group is joined and nothing is committed.
        .set("group.id", "ryggrad-reader")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.queue.backoff.ms", "20")
        // Of each partition, and compressed: what is fetched unpacks to several times that.
        .set("fetch.message.max.bytes", (limits.prefetch_bytes_max / 8).clamp(1, 1024 * 1024).to_string())
        .set("queued.max.messages.kbytes", (limits.prefetch_bytes_max / 1024).max(1).to_string())
        .set("max.poll.interval.ms", "86400000")
        .create_with_context(Listener)
        .map_err(|error| Error::new(format!("read {topic}"), error))
}

pub(crate) fn start_list(topic: &str, starts: &[(i32, Start)]) -> Result<TopicPartitionList, Error> {
    let mut list = TopicPartitionList::new();
    for (partition, start) in starts {
        let offset = match start {
            Start::Beginning => Offset::Beginning,
            Start::End => Offset::End,
            Start::Offset(offset) => Offset::Offset(*offset),
        };
        list.add_partition_offset(topic, *partition, offset).map_err(|error| Error::new(format!("read {topic}"), error))?;
    }
    Ok(list)
}

pub(crate) fn assign(consumer: &BaseConsumer<Listener>, list: &TopicPartitionList) -> Result<(), Error> {
    // With the leaders known, reading starts at once; otherwise librdkafka's first try fails and
    // the next comes half a second later. If no broker answers, reading waits as ever.
    let topic = list.elements().first().map(|element| element.topic().to_owned());
    let _ = consumer.fetch_metadata(topic.as_deref(), FIRST_CONTACT);
    consumer.assign(list).map_err(|error| Error::new("start reading", error))
}

fn to_record(message: &BorrowedMessage<'_>) -> LogRecord {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    LogRecord {
        topic: message.topic().to_owned(),
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
        key: message.key().and_then(text),
        value: message.payload().map(<[u8]>::to_vec),
        headers: message.headers().map_or_else(ryggrad_schemas::Headers::default, |headers| {
            headers.iter().filter_map(|header| Some((header.key, std::str::from_utf8(header.value?).ok()?))).collect()
        }),
    }
}
