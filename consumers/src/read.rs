//! Reads all partitions of a topic between two points, or from one point for ever.
//!
//! The end is fixed when reading starts, so a bounded read ends even on a busy topic. Must never
//! take a missing topic for an empty one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ryggrad_log::{Connection, Follower, Read, ReaderLimits, Start, Watermarks, topics};
use ryggrad_schemas::record::ROLL_KEY;
use ryggrad_schemas::{Catalogue, LogRecord};
use tokio::time::Instant;

use crate::request::{partitions_of, timed};
use crate::{Event, Filter, Point, Request, Undecodable, Until, watermarks_of};

/// What a reader gives.
#[derive(Debug)]
pub enum Item {
    /// An event.
    Event(Box<Event>),
    /// A record that counts but cannot be decoded.
    Undecodable(Undecodable),
    /// Kafka is away; reading goes on when it is back.
    Away {
        /// What the client library says.
        reason: String,
    },
}

/// Why reading cannot start or go on; used as `read::Error`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The catalogue lacks the topic.
    #[error("the catalogue has no topic {topic}; it has {}", .known.join(", "))]
    UnknownTopic {
        /// What was asked for.
        topic: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The topic has no such partition.
    #[error("{topic} has {partitions} partitions, counted from 0; there is no {partition}")]
    UnknownPartition {
        /// Topic name.
        topic: String,
        /// What was asked for.
        partition: i32,
        /// How many there are.
        partitions: i32,
    },
    /// The broker lacks the topic.
    #[error("the topic {topic} does not exist at this broker")]
    MissingTopic {
        /// Topic name.
        topic: String,
    },
    /// Nothing more came although there must be more.
    #[error("nothing came from {topic} for {waited_ms} ms although its end is not reached")]
    Stalled {
        /// Topic name.
        topic: String,
        /// How long was waited.
        waited_ms: u64,
    },
    /// Kafka would not.
    #[error(transparent)]
    Log(#[from] ryggrad_log::Error),
}

/// The stretch of one partition that is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    /// The first offset that counts. May lie beyond the present end.
    from: i64,
    /// The first offset that does not count any more.
    end: Option<i64>,
}

impl Stretch {
    /// Whether records at `next` and later are of no interest.
    fn is_over(self, next: i64) -> bool {
        self.end.is_some_and(|end| next >= end)
    }
}

/// A running read.
pub struct Reader {
    topic: String,
    filter: Filter,
    /// What is still being read, by partition.
    open: BTreeMap<i32, Stretch>,
    follower: Option<Follower>,
    waiting: VecDeque<LogRecord>,
    events_left: Option<u64>,
    scanned_records: u64,
    stall_timeout_ms: u64,
    stalled_at: Option<Instant>,
}

impl Reader {
    /// Finds the ends of the request and starts to read. `now_ms` resolves "ago".
    pub async fn open(connection: &Connection, request: Request, now_ms: i64) -> Result<Self, Error> {
        let partitions = partitions_of(&request)?;
        let marks = match watermarks_of(connection, &request.topic, &partitions, request.ask_timeout_ms).await {
            Ok(marks) => marks,
            Err(error) => return Err(explain(connection, &request.topic, error).await),
        };
        let mut open = BTreeMap::new();
        let mut starts = Vec::new();
        for (partition, marks) in marks {
            let stretch = stretch(connection, &request, partition, marks, now_ms).await?;
            // Beyond the end a reader would fail; records before `from` are dropped below.
            let start = stretch.from.clamp(marks.low, marks.high);
            if !stretch.is_over(start) {
                open.insert(partition, stretch);
                starts.push((partition, if start == marks.low { Start::Beginning } else { Start::Offset(start) }));
            }
        }
        let follower =
            if starts.is_empty() { None } else { Some(ryggrad_log::follow(connection, &request.topic, &starts, ReaderLimits::default())?) };
        Ok(Self {
            filter: timed(request.filter, request.from, request.until, now_ms),
            topic: request.topic,
            open,
            follower,
            waiting: VecDeque::new(),
            events_left: request.events_max,
            scanned_records: 0,
            stall_timeout_ms: request.stall_timeout_ms,
            stalled_at: None,
        })
    }

    /// How many records were looked at so far.
    pub fn scanned_records(&self) -> u64 {
        self.scanned_records
    }

    /// The next item; `None` at the end. May be dropped and called again without loss.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        loop {
            if self.events_left == Some(0) {
                return None;
            }
            while let Some(record) = self.waiting.pop_front() {
                if let Some(item) = self.look_at(record) {
                    return Some(Ok(item));
                }
            }
            if self.open.is_empty() {
                return None;
            }
            match self.fetch().await {
                Ok(Some(Read::Records(records))) => self.waiting.extend(records),
                Ok(Some(Read::AtEnd { partition })) => self.reached_end(partition),
                Ok(Some(Read::Away { reason })) => return Some(Ok(Item::Away { reason })),
                Ok(Some(Read::Failed(error))) => return Some(Err(self.ended_with(error.into()))),
                Ok(None) => return None,
                Err(stalled) => return Some(Err(self.ended_with(stalled))),
            }
        }
    }

    fn look_at(&mut self, record: LogRecord) -> Option<Item> {
        let stretch = *self.open.get(&record.partition)?;
        if stretch.is_over(record.offset.saturating_add(1)) {
            self.open.remove(&record.partition);
        }
        if record.offset < stretch.from || stretch.is_over(record.offset) {
            return None;
        }
        self.scanned_records += 1;
        // A mark that lets idle partitions roll is nobody's event.
        let is_mark = record.value.is_none() && record.key.as_deref() == Some(ROLL_KEY);
        if is_mark || !self.filter.matches(&record) {
            return None;
        }
        match Event::decode(record) {
            Ok(event) => {
                self.events_left = self.events_left.map(|left| left.saturating_sub(1));
                Some(Item::Event(Box::new(event)))
            }
            Err(undecodable) => Some(Item::Undecodable(undecodable)),
        }
    }

    /// The fixed end lies at or before the present end, which is reached: what is missing are
    /// transaction markers and compacted records.
    fn reached_end(&mut self, partition: i32) {
        if self.open.get(&partition).is_some_and(|stretch| stretch.end.is_some()) {
            self.open.remove(&partition);
        }
    }

    async fn fetch(&mut self) -> Result<Option<Read>, Error> {
        let Some(follower) = &mut self.follower else { return Ok(None) };
        let bounded = self.open.values().any(|stretch| stretch.end.is_some());
        if !bounded {
            return Ok(follower.next().await);
        }
        let waited_ms = self.stall_timeout_ms;
        let deadline = *self.stalled_at.get_or_insert_with(|| Instant::now() + Duration::from_millis(waited_ms));
        let read = tokio::time::timeout_at(deadline, follower.next()).await;
        let read = read.map_err(|_| Error::Stalled { topic: self.topic.clone(), waited_ms })?;
        if !matches!(read, Some(Read::Away { .. })) {
            self.stalled_at = None;
        }
        Ok(read)
    }

    fn ended_with(&mut self, error: Error) -> Error {
        self.open.clear();
        self.follower = None;
        error
    }
}

/// Only now, so that a reader needs no right to describe the topic as long as all is well.
async fn explain(connection: &Connection, topic: &str, error: ryggrad_log::Error) -> Error {
    if error.is_unreachable() {
        return error.into();
    }
    let asked: Vec<_> = Catalogue::built_in().topic(topic).cloned().into_iter().collect();
    match topics::check(connection, &asked).await {
        Ok(states) if states.iter().any(|(_, state)| *state == topics::State::Missing) => Error::MissingTopic { topic: topic.to_owned() },
        _ => error.into(),
    }
}

async fn stretch(connection: &Connection, request: &Request, partition: i32, marks: Watermarks, now_ms: i64) -> Result<Stretch, Error> {
    let offset = async |point: Point| match (point, point.time_ms(now_ms)) {
        (_, Some(at_ms)) => ryggrad_log::offset_at_time(connection, &request.topic, partition, at_ms, request.ask_timeout_ms).await,
        (Point::Offset(offset), _) => Ok(offset),
        (Point::Beginning, _) => Ok(marks.low),
        _ => Ok(marks.high),
    };
    let end = match request.until {
        Until::Never => None,
        Until::Point(point) => Some(offset(point).await?.min(marks.high)),
    };
    Ok(Stretch { from: offset(request.from).await?, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::record;

    fn reader(open: &[(i32, i64, Option<i64>)], events_left: Option<u64>) -> Reader {
        Reader {
            topic: "t".to_owned(),
            filter: Filter::default(),
            open: open.iter().map(|(partition, from, end)| (*partition, Stretch { from: *from, end: *end })).collect(),
            follower: None,
            waiting: VecDeque::new(),
            events_left,
            scanned_records: 0,
            stall_timeout_ms: 1,
            stalled_at: None,
        }
    }

    fn at(partition: i32, offset: i64) -> LogRecord {
        LogRecord { partition, offset, ..record(Default::default(), None) }
    }

    async fn offsets(mut reader: Reader, records: Vec<LogRecord>) -> Vec<(i32, i64)> {
        reader.waiting.extend(records);
        let mut seen = Vec::new();
        while let Some(Ok(Item::Event(event))) = reader.next().await {
            seen.push((event.place.partition, event.place.offset));
        }
        seen
    }

    #[tokio::test]
    async fn a_stretch_begins_and_ends_where_it_should_across_gaps() {
        let records = || vec![at(0, 4), at(0, 5), at(1, 1), at(0, 9), at(0, 12), at(1, 2)];
        for (open, expected) in [
            (vec![(0, 0, Some(99)), (1, 0, Some(99))], vec![(0, 4), (0, 5), (1, 1), (0, 9), (0, 12), (1, 2)]),
            (vec![(0, 5, Some(12)), (1, 2, Some(3))], vec![(0, 5), (0, 9), (1, 2)]),
            (vec![(0, 6, None)], vec![(0, 9), (0, 12)]),
            (vec![(1, 50, None)], vec![]),
        ] {
            assert_eq!(offsets(reader(&open, None), records()).await, expected, "{open:?}");
        }
    }

    #[tokio::test]
    async fn the_limit_counts_events_and_not_what_cannot_be_decoded() {
        let mut reader = reader(&[(0, 0, None)], Some(2));
        let broken = LogRecord { value: Some(b"x".to_vec()), ..at(0, 1) };
        reader.waiting.extend([at(0, 0), broken, at(0, 2), at(0, 3)]);
        let mut kinds = Vec::new();
        while let Some(Ok(item)) = reader.next().await {
            kinds.push(matches!(item, Item::Event(_)));
        }
        assert_eq!(kinds, [true, false, true]);
        assert_eq!(reader.scanned_records(), 3);
    }

    #[tokio::test]
    async fn a_mark_is_read_and_is_no_event() {
        let mut reader = reader(&[(0, 0, Some(3))], None);
        let mark = LogRecord { key: Some(ROLL_KEY.to_owned()), ..at(0, 1) };
        reader.waiting.extend([at(0, 0), mark, at(0, 2)]);
        let mut events = 0;
        while let Some(Ok(Item::Event(_))) = reader.next().await {
            events += 1;
        }
        assert_eq!((events, reader.scanned_records()), (2, 3));
    }

    #[test]
    fn the_end_of_a_partition_ends_bounded_reads_only() {
        let mut bounded = reader(&[(0, 0, Some(10)), (1, 0, None)], None);
        bounded.reached_end(0);
        bounded.reached_end(1);
        assert_eq!(bounded.open.keys().copied().collect::<Vec<_>>(), [1]);
    }
}
