//! The one way from a source's feeds to the log: one publisher, one batch at a time; and whose
//! turn it is to write about a feed's keys.
//!
//! Promises: a batch is published only on top of the stored position that it was made for; a
//! transaction is never open while anything else is waited for; with the broker away it is
//! tried again for ever; two producers of one source never fight for ever.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ryggrad_detect::batch::Batch;
use ryggrad_detect::decide::{AfterFailure, AfterFence, Backoff, FENCES_WINDOW_MS, Failure, after_failure, after_fence, watch_ms};
use ryggrad_detect::event::{is_removal, removal_mark};
use ryggrad_detect::position::{self, FeedPosition, Standing, standing};
use ryggrad_detect::snapshot::run::Completed;
use ryggrad_log::{Connection, Error, Marks, Publisher, PublisherOptions, Remedy, Seal, read_to_end};
use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::{Source, topics};
use tokio::sync::OwnedMutexGuard;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::crossing::Crossing;
use crate::error::{End, chain};
use crate::{ProducerConfig, ProducerError, Telemetry};

/// Position records that one source's partition may hold between two compactions.
const POSITION_RECORDS_MAX: usize = 1_000_000;
const POSITIONS_TIMEOUT_MS: u64 = 60_000;
/// A transaction that takes longer shows as trouble.
const SLOW: Duration = Duration::from_secs(3);

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Published {
    /// It is in the log.
    Committed,
    /// The stored position is another one than it was made for: read on from there.
    Void,
}

pub(crate) struct Lane {
    connection: Connection,
    seal: Seal,
    source: Source,
    options: PublisherOptions,
    backoff: Backoff,
    stop_grace: Duration,
    watch: Duration,
    telemetry: Telemetry,
    stop: CancellationToken,
    positions: Mutex<BTreeMap<String, FeedPosition>>,
    completed: Mutex<BTreeMap<String, Completed>>,
    crossings: BTreeMap<String, Arc<Crossing>>,
    writer: tokio::sync::Mutex<Writer>,
}

/// What the log remembers of a source.
struct Found {
    positions: BTreeMap<String, FeedPosition>,
    completed: BTreeMap<String, Completed>,
}

/// What must be forgotten is marked beside the events that say so.
struct Removals;

impl Marks for Removals {
    fn wants(&self, record: &EncodedRecord) -> bool {
        is_removal(record)
    }
    fn mark(&self, record: &EncodedRecord, partition: i32, offset: i64) -> Option<EncodedRecord> {
        removal_mark(record, partition, offset)
    }
}

#[derive(Default)]
struct Writer {
    publisher: Option<Publisher>,
    has_started: bool,
    fences: Vec<Instant>,
}

impl Lane {
    pub(crate) fn new(
        connection: Connection,
        seal: Seal,
        source: &Source,
        config: &ProducerConfig,
        telemetry: Telemetry,
        stop: CancellationToken,
    ) -> Self {
        Self {
            connection,
            seal,
            source: source.clone(),
            options: PublisherOptions {
                transaction_timeout_ms: config.transaction_timeout_ms,
                operation_timeout_ms: config.operation_timeout_ms,
            },
            backoff: config.backoff(),
            stop_grace: Duration::from_millis(config.stop_grace_ms),
            watch: Duration::from_millis(watch_ms(config.poll_interval_ms)),
            telemetry,
            stop,
            positions: Mutex::default(),
            completed: Mutex::default(),
            crossings: source.feeds.iter().map(|feed| (feed.clone(), Arc::default())).collect(),
            writer: tokio::sync::Mutex::default(),
        }
    }

    /// Fences older producers of this source, then reads the positions.
    pub(crate) async fn open(&self) -> Result<(), End> {
        let mut writer = self.writer.lock().await;
        self.start(&mut writer).await
    }

    /// The stored position of a feed.
    pub(crate) fn position(&self, feed: &str) -> Option<FeedPosition> {
        self.positions().get(feed).copied()
    }

    /// The last run over a feed's dump that was complete.
    pub(crate) fn completed(&self, feed: &str) -> Option<Completed> {
        lock(&self.completed).get(feed).copied()
    }

    pub(crate) fn set_completed(&self, feed: &str, completed: Completed) {
        lock(&self.completed).insert(feed.to_owned(), completed);
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Where a feed's loop and the comparison with its dump meet.
    pub(crate) fn crossing(&self, feed: &str) -> Arc<Crossing> {
        self.crossings.get(feed).cloned().unwrap_or_default()
    }

    fn positions(&self) -> MutexGuard<'_, BTreeMap<String, FeedPosition>> {
        lock(&self.positions)
    }

    /// Waits for a feed's turn. First come, first served.
    pub(crate) async fn turn(&self, feed: &str) -> Result<OwnedMutexGuard<()>, End> {
        self.until_stopped(self.crossing(feed).turn()).await
    }

    /// Publishes a batch, however long it takes.
    pub(crate) async fn publish(&self, feed: &str, mut batch: Batch) -> Result<Published, End> {
        let sealed = self.sealed(feed, &batch)?;
        let records: Arc<[EncodedRecord]> = batch.take_records(&self.source, feed, sealed).into();
        let batch = &batch;
        let mut writer = self.until_stopped(self.writer.lock()).await?;
        let mut failures = 0;
        loop {
            if writer.publisher.is_none() {
                self.start(&mut writer).await?;
            }
            match standing(self.position(feed), batch.base, batch.next) {
                Standing::Next => {}
                Standing::Committed => return Ok(self.committed(feed, batch, &records)),
                Standing::Void => {
                    self.telemetry.transaction(&self.source.name, "void");
                    // Nobody but this lane may move a position.
                    self.note_rival(&mut writer, false)?;
                    return Ok(Published::Void);
                }
            }
            let Some(publisher) = &writer.publisher else { continue };
            match self.attempt(publisher, feed, batch, Arc::clone(&records)).await? {
                Ok(()) => return Ok(self.committed(feed, batch, &records)),
                Err(error) => {
                    failures += 1;
                    self.recover(&mut writer, &error, failures).await?;
                }
            }
        }
    }

    async fn attempt(
        &self,
        publisher: &Publisher,
        feed: &str,
        batch: &Batch,
        records: Arc<[EncodedRecord]>,
    ) -> Result<Result<(), Error>, End> {
        let (base, next) = (batch.base.unwrap_or_default().position, batch.next.position);
        debug!(source = %self.source.name, feed, base, next, records = records.len(), "transaction_begin");
        let outcome = tokio::select! {
            outcome = publisher.publish(records, Removals) => outcome,
            // What is left open then is ended by the next start; its outcome is read back there.
            () = self.grace_is_over() => return Err(End::Stopped),
            never = self.tell_if_slow() => match never {},
        };
        if outcome.is_ok() {
            debug!(source = %self.source.name, feed, base, next, "transaction_commit");
        }
        Ok(outcome)
    }

    /// Tells early that the log is slow: the publisher itself gives up only after its timeouts.
    async fn tell_if_slow(&self) -> Infallible {
        tokio::time::sleep(SLOW).await;
        let reason = format!("no transaction was acknowledged for {} s", SLOW.as_secs());
        self.telemetry.status().log_trouble(&self.source.name, Some(reason));
        std::future::pending().await
    }

    async fn grace_is_over(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(self.stop_grace).await;
    }

    fn committed(&self, feed: &str, batch: &Batch, records: &[EncodedRecord]) -> Published {
        self.positions().insert(feed.to_owned(), batch.next);
        self.positions().extend(batch.also.iter().cloned());
        if let Some(crossing) = self.crossings.get(feed) {
            crossing.published(records.iter().map(|record| record.key.as_str()));
        }
        self.telemetry.committed(&self.source.name, feed, batch);
        self.telemetry.status().log_trouble(&self.source.name, None);
        Published::Committed
    }

    /// Quarantine records with fresh nonces.
    fn sealed(&self, feed: &str, batch: &Batch) -> Result<Vec<EncodedRecord>, End> {
        let seal = |found: &ryggrad_detect::quarantine::Quarantined| {
            let sealed = self.seal.seal(rand::random(), &found.key(&self.source, feed), &found.raw).map_err(ProducerError::Seal)?;
            Ok(found.to_record(&self.source, feed, sealed))
        };
        Ok(batch.quarantined.iter().map(seal).collect::<Result<_, ProducerError>>()?)
    }

    async fn recover(&self, writer: &mut Writer, error: &Error, failures: u32) -> Result<(), End> {
        let failure = failure_of(error);
        let (outcome, reason) = match failure {
            Failure::Aborted => ("aborted", "publish-aborted"),
            Failure::Unknown => ("unknown", "publish-unknown"),
            Failure::Fenced => ("fenced", "publish-fenced"),
        };
        self.telemetry.transaction(&self.source.name, outcome);
        self.telemetry.retried(&self.source.name, reason);
        self.trouble(error);
        match after_failure(failure) {
            AfterFailure::PublishAgain => {}
            AfterFailure::StartAnew => writer.publisher = None,
            AfterFailure::Watch => {
                writer.publisher = None;
                return self.watch(writer).await;
            }
        }
        self.pause(failures).await
    }

    /// Fenced: looks on for a while, and gives way to a producer that writes.
    async fn watch(&self, writer: &mut Writer) -> Result<(), End> {
        self.until_stopped(tokio::time::sleep(self.watch)).await?;
        let mut failures = 0;
        let found = loop {
            match self.until_stopped(self.read_positions()).await? {
                Ok(found) => break found?,
                Err(error) => {
                    failures += 1;
                    self.trouble(&error);
                    self.pause(failures).await?;
                }
            }
        };
        let moved = found.positions != *self.positions();
        self.note_rival(writer, moved)
    }

    fn note_rival(&self, writer: &mut Writer, moved: bool) -> Result<(), End> {
        let window = Duration::from_millis(FENCES_WINDOW_MS);
        writer.fences.retain(|fence| fence.elapsed() < window);
        let earlier = writer.fences.len();
        writer.fences.push(Instant::now());
        match after_fence(moved, earlier) {
            AfterFence::StartAnew => Ok(()),
            AfterFence::Stop => Err(ProducerError::TakenOver { source_name: self.source.name.clone() }.into()),
        }
    }

    /// Starts a publisher and reads the positions behind it, until both succeed.
    async fn start(&self, writer: &mut Writer) -> Result<(), End> {
        let mut failures = 0;
        loop {
            let error = match self.until_stopped(self.start_once()).await? {
                Ok(publisher) => {
                    writer.publisher = Some(publisher?);
                    writer.has_started = true;
                    self.telemetry.status().log_trouble(&self.source.name, None);
                    return Ok(());
                }
                Err(error) => error,
            };
            // Before it ever worked, a refusal is a mistake in the settings and not bad luck.
            if !writer.has_started && error.remedy == Remedy::Die {
                return Err(ProducerError::Log(error).into());
            }
            failures += 1;
            self.trouble(&error);
            self.pause(failures).await?;
        }
    }

    async fn start_once(&self) -> Result<Result<Publisher, ProducerError>, Error> {
        let publisher = Publisher::start(&self.connection, &self.source.name, &self.options).await?;
        // Only now is the end of the partition final: older producers are fenced, and what they
        // left open has been ended.
        let found = match self.read_positions().await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        for (feed, stored) in &found.positions {
            self.telemetry.position(&self.source.name, feed, stored.position);
        }
        debug!(source = %self.source.name, positions = ?found.positions, "positions_read");
        *self.positions() = found.positions;
        *lock(&self.completed) = found.completed;
        Ok(Ok(publisher))
    }

    async fn read_positions(&self) -> Result<Result<Found, ProducerError>, Error> {
        let partition = self.source.positions_partition;
        let records =
            read_to_end(&self.connection, topics::SOURCE_POSITIONS, partition, POSITION_RECORDS_MAX, POSITIONS_TIMEOUT_MS).await?;
        let positions = match position::from_records(&self.source, &records) {
            Ok(positions) => positions,
            Err(unreadable) => return Ok(Err(ProducerError::Position(unreadable))),
        };
        let completed = |feed: &String| Some((feed.clone(), Completed::from_records(&self.source, feed, &records)?));
        Ok(Ok(Found { positions, completed: self.source.feeds.iter().filter_map(completed).collect() }))
    }

    fn trouble(&self, error: &Error) {
        let reason = chain(error);
        warn!(source = %self.source.name, %reason, remedy = ?error.remedy, "log_trouble");
        self.telemetry.status().log_trouble(&self.source.name, Some(reason));
    }

    /// Tells of trouble with the log, and lets a moment pass.
    pub(crate) async fn wait_out(&self, error: &Error) -> Result<(), End> {
        self.trouble(error);
        self.pause(1).await
    }

    async fn pause(&self, failures: u32) -> Result<(), End> {
        let delay_ms = self.backoff.delay_ms(failures, rand::random());
        self.until_stopped(tokio::time::sleep(Duration::from_millis(delay_ms))).await
    }

    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        self.stop.run_until_cancelled(work).await.ok_or(End::Stopped)
    }
}

fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    // A map is whole after every single operation.
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

fn failure_of(error: &Error) -> Failure {
    match error.remedy {
        Remedy::Abort => Failure::Aborted,
        Remedy::Die if error.is_fenced() => Failure::Fenced,
        Remedy::Retry | Remedy::Die => Failure::Unknown,
    }
}
