//! Reading much and keeping little: a whole topic once, or single records by their places.
//!
//! Records are lent to the visitor and never copied. Only committed ones are shown. Must never
//! take an offset that is no longer there for an error: compaction may have been quicker.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{BorrowedMessage, Headers, Message};
use ryggrad_schemas::LogRecord;

use crate::connection::Listener;
use crate::publisher::blocking;
use crate::reader::{self, Read, ReaderLimits, Start};
use crate::{Connection, Error, Remedy};

/// A record, lent for a look.
pub struct Lent<'a>(&'a BorrowedMessage<'a>);

impl<'a> Lent<'a> {
    pub(crate) fn of(message: &'a BorrowedMessage<'a>) -> Self {
        Self(message)
    }
}

impl Lent<'_> {
    /// Partition.
    pub fn partition(&self) -> i32 {
        self.0.partition()
    }

    /// Offset.
    pub fn offset(&self) -> i64 {
        self.0.offset()
    }

    /// Log append time, milliseconds since 1970.
    pub fn timestamp_ms(&self) -> i64 {
        self.0.timestamp().to_millis().unwrap_or_default()
    }

    /// Key, if it is there and is UTF-8.
    pub fn key(&self) -> Option<&str> {
        std::str::from_utf8(self.0.key()?).ok()
    }

    /// Key as it is.
    pub fn key_bytes(&self) -> Option<&[u8]> {
        self.0.key()
    }

    /// Every header as it is, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&str, Option<&[u8]>)> {
        self.0.headers().into_iter().flat_map(Headers::iter).map(|header| (header.key, header.value))
    }

    /// Value; `None` is a tombstone.
    pub fn value(&self) -> Option<&[u8]> {
        self.0.payload()
    }

    /// All of it but its value, of which it only tells whether there is one: what filters see.
    pub fn head(&self, topic: &str) -> LogRecord {
        let text = |value: Option<&[u8]>| value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = self.headers().map(|(name, value)| (name.to_owned(), text(value))).collect();
        LogRecord {
            topic: topic.to_owned(),
            partition: self.partition(),
            offset: self.offset(),
            timestamp_ms: self.timestamp_ms(),
            key: self.key().map(str::to_owned),
            value: self.value().map(|_| Vec::new()),
            headers: headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect(),
        }
    }

    /// The first header of that name, if it is UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.0.headers()?.iter().find(|header| header.key == name)?;
        std::str::from_utf8(found.value?).ok()
    }
}

/// A scan is as fast with little fetched ahead, and stands beside a table of everything that it finds.
const LIMITS: ReaderLimits = ReaderLimits { batch_records_max: 500, batches_waiting_max: 1, prefetch_bytes_max: 2 * 1024 * 1024 };
/// How long the broker may be silent before a scan is given up.
pub(crate) const SILENCE_MAX: Duration = Duration::from_secs(60);
const METADATA_TIMEOUT: Duration = Duration::from_secs(10);
pub(crate) const POLL: Duration = Duration::from_millis(100);
/// Records between two wanted ones that are read through rather than jumped over: a jump throws
/// away what was fetched ahead and costs a round trip.
const READ_THROUGH: i64 = 2_000;

/// Shows every committed record of a topic once, in order per partition, up to its present end.
/// `state` is what the visitor builds; a reason from the visitor ends the scan.
pub async fn scan<T: Send + 'static>(
    connection: &Connection,
    topic: &str,
    state: T,
    visit: impl Fn(&mut T, &Lent<'_>) -> Result<(), String> + Send + 'static,
) -> Result<T, Error> {
    scan_from(connection, topic, Start::Beginning, state, visit).await
}

/// The same, from where each partition shall start.
pub async fn scan_from<T: Send + 'static>(
    connection: &Connection,
    topic: &str,
    start: Start,
    state: T,
    visit: impl Fn(&mut T, &Lent<'_>) -> Result<(), String> + Send + 'static,
) -> Result<T, Error> {
    let consumer = reader::create(connection, topic, &LIMITS)?;
    let (doing, topic) = (format!("scan {topic}"), topic.to_owned());
    blocking(move || {
        let metadata = consumer.fetch_metadata(Some(&topic), METADATA_TIMEOUT).map_err(|error| Error::new(doing.clone(), error))?;
        let partitions = metadata.topics().first().map_or(&[][..], |topic| topic.partitions());
        let starts: Vec<_> = partitions.iter().map(|partition| (partition.id(), start)).collect();
        show(&consumer, &topic, &doing, &starts, state, visit)
    })
    .await
}

/// The same, from an offset of its own in each of these partitions. None of them beyond the end.
pub async fn scan_partitions<T: Send + 'static>(
    connection: &Connection,
    topic: &str,
    starts: Vec<(i32, Start)>,
    state: T,
    visit: impl Fn(&mut T, &Lent<'_>) -> Result<(), String> + Send + 'static,
) -> Result<T, Error> {
    let consumer = reader::create(connection, topic, &LIMITS)?;
    let (doing, topic) = (format!("scan {topic}"), topic.to_owned());
    blocking(move || {
        let shown = show(&consumer, &topic, &doing, &starts, state, visit);
        // Its threads take a tenth of a second to end, which nobody has to wait for.
        std::thread::spawn(move || drop(consumer));
        shown
    })
    .await
}

fn show<T>(
    consumer: &BaseConsumer<Listener>,
    topic: &str,
    doing: &str,
    starts: &[(i32, Start)],
    mut state: T,
    visit: impl Fn(&mut T, &Lent<'_>) -> Result<(), String>,
) -> Result<T, Error> {
    let mut open = starts.len();
    reader::assign(consumer, &reader::start_list(topic, starts)?)?;
    poll(consumer, doing, |event| {
        match event {
            Event::Record(record) => visit(&mut state, &record)?,
            // Once for each partition: after the last nothing more is asked for.
            Event::AtEnd => open = open.saturating_sub(1),
        }
        Ok(if open == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(state)
}

/// Reads single records of a topic by their places.
#[derive(Clone)]
pub struct Fetcher {
    consumer: Arc<BaseConsumer<Listener>>,
    topic: String,
}

impl Fetcher {
    /// For one topic; connects when it is first used.
    pub fn new(connection: &Connection, topic: &str) -> Result<Self, Error> {
        let consumer = reader::create(connection, topic, &LIMITS)?;
        Ok(Self { consumer: Arc::new(consumer), topic: topic.to_owned() })
    }

    /// Shows the records at these places, in their order; one that is no longer there is left
    /// out. `state` is what the visitor builds. Not for two callers at once.
    pub async fn fetch<T: Send + 'static>(
        &self,
        mut places: Vec<(i32, i64)>,
        mut state: T,
        visit: impl Fn(&mut T, &Lent<'_>) + Send + 'static,
    ) -> Result<T, Error> {
        places.sort_unstable();
        places.dedup();
        let fetcher = self.clone();
        blocking(move || {
            let mut rest = places.as_slice();
            while !rest.is_empty() {
                let (run, after) = rest.split_at(run_length(rest));
                fetcher.fetch_run(run, &mut |record| visit(&mut state, record))?;
                rest = after;
            }
            // What was fetched ahead is of no use any more.
            fetcher.consumer.unassign().map_err(|error| Error::new("end reading", error))?;
            Ok(state)
        })
        .await
    }

    /// Shows places of one partition that lie close to each other.
    fn fetch_run(&self, run: &[(i32, i64)], visitor: &mut impl FnMut(&Lent<'_>)) -> Result<(), Error> {
        let Some((partition, first)) = run.first().copied() else { return Ok(()) };
        let doing = format!("read single records of {}", self.topic);
        let list = reader::start_list(&self.topic, &[(partition, reader::Start::Offset(first))])?;
        self.consumer.assign(&list).map_err(|error| Error::new(doing.clone(), error))?;
        let mut wanted = run.iter().map(|(_, offset)| *offset).peekable();
        poll(&self.consumer, &doing, |event| {
            let Event::Record(record) = event else { return Ok(ControlFlow::Break(())) };
            while wanted.next_if(|offset| *offset < record.offset()).is_some() {}
            if wanted.next_if_eq(&record.offset()).is_some() {
                visitor(&record);
            }
            Ok(if wanted.peek().is_none() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })
    }
}

/// How many of the first places, in order, lie close enough to be read through.
fn run_length(places: &[(i32, i64)]) -> usize {
    let close = |pair: &[(i32, i64)]| pair[0].0 == pair[1].0 && pair[1].1 - pair[0].1 <= READ_THROUGH;
    1 + places.windows(2).take_while(|pair| close(pair)).count()
}

enum Event<'a> {
    Record(Lent<'a>),
    AtEnd,
}

fn poll(
    consumer: &BaseConsumer<Listener>,
    doing: &str,
    mut take: impl FnMut(Event<'_>) -> Result<ControlFlow<()>, String>,
) -> Result<(), Error> {
    let mut heard = Instant::now();
    loop {
        let flow = match consumer.poll(POLL) {
            Some(Ok(message)) => {
                heard = Instant::now();
                take(Event::Record(Lent(&message)))
            }
            Some(Err(error)) => match reader::to_notice(error) {
                Read::AtEnd { .. } => take(Event::AtEnd),
                Read::Failed(error) => return Err(error),
                _ => Ok(ControlFlow::Continue(())),
            },
            None if heard.elapsed() > SILENCE_MAX => {
                return Err(Error::other(doing, Remedy::Retry, format!("no answer for {} s", SILENCE_MAX.as_secs())));
            }
            None => Ok(ControlFlow::Continue(())),
        };
        match flow {
            Ok(ControlFlow::Continue(())) => {}
            Ok(ControlFlow::Break(())) => return Ok(()),
            Err(reason) => return Err(Error::other(doing, Remedy::Die, reason)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_close_to_each_other_are_read_in_one_go() {
        for (places, expected) in [
            (vec![(0, 5)], 1),
            (vec![(0, 5), (0, 5 + READ_THROUGH), (0, 6 + READ_THROUGH)], 3),
            (vec![(0, 5), (0, 6 + READ_THROUGH)], 1),
            (vec![(0, 5), (1, 6)], 1),
        ] {
            assert_eq!(run_length(&places), expected, "{places:?}");
        }
    }
}
