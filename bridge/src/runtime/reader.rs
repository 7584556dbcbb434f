//! A worker's readers: one follower per topic, opened where the machine says.

use std::future::poll_fn;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::machine::Machine;
use ryggrad_bridge_core::matching::Echoes;
use ryggrad_log::{Connection, Follower, Read, ReaderLimits, Start, follow};
use ryggrad_schemas::catalogue::Topic;
use tokio::time::Instant;

/// How long to wait before a reader that failed is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// The reader of one topic.
pub struct TopicReader {
    /// The topic.
    pub topic: &'static Topic,
    /// Tells tombstones that are echoes.
    pub echoes: Echoes,
    follower: Option<Follower>,
    reopen_at: Instant,
}

impl TopicReader {
    /// A reader that is opened at the first use.
    pub fn new(topic: &'static Topic) -> Self {
        Self { topic, echoes: Echoes::default(), follower: None, reopen_at: Instant::now() }
    }

    /// Opens the reader (again) where the machine needs it.
    pub fn open(&mut self, connection: &Connection, machine: &Machine) -> Result<(), ryggrad_log::Error> {
        let starts: Vec<(i32, i64)> =
            (0..self.topic.partitions).map(|partition| (partition, machine.read_from(Place { topic: self.topic.id, partition }))).collect();
        // The old one first, so that never two read at once.
        self.follower = None;
        self.echoes = Echoes::starting_at(starts.iter().copied());
        let starts: Vec<(i32, Start)> = starts.into_iter().map(|(partition, offset)| (partition, Start::Offset(offset))).collect();
        // Small hand-overs: a worker keeps a window, not a backlog.
        let limits = ReaderLimits { batch_records_max: 200, batches_waiting_max: 2, prefetch_bytes_max: 2 * 1024 * 1024 };
        self.follower = Some(follow(connection, &self.topic.name, &starts, limits)?);
        Ok(())
    }

    /// Closes the reader for a while.
    pub fn close(&mut self) {
        self.follower = None;
        self.reopen_at = Instant::now() + REOPEN_AFTER;
    }

    /// Whether it is closed and due to be opened.
    pub fn wants_open(&self, now: Instant) -> bool {
        self.follower.is_none() && now >= self.reopen_at
    }

    /// When it wants to be opened, if it is closed.
    pub fn open_at(&self) -> Option<Instant> {
        self.follower.is_none().then_some(self.reopen_at)
    }

    fn poll(&mut self, context: &mut TaskContext<'_>) -> Poll<Option<Read>> {
        match &mut self.follower {
            Some(follower) => follower.poll_next(context),
            None => Poll::Pending,
        }
    }
}

/// The next hand-over of any of the readers, with the reader's index. `None` is a follower that
/// has ended.
pub async fn next_of(readers: &mut [TopicReader]) -> (usize, Option<Read>) {
    poll_fn(|context| {
        for (index, reader) in readers.iter_mut().enumerate() {
            if let Poll::Ready(read) = reader.poll(context) {
                return Poll::Ready((index, read));
            }
        }
        Poll::Pending
    })
    .await
}
