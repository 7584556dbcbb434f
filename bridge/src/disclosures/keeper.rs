//! One controller's records: the book, and the topic that it is written to.
//!
//! Whoever writes holds the lock from the book to the sending, so that the topic has the book's order. Opened by
//! reading back the newest records: where the chain stands, and which intents are open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ryggrad_bridge_core::disclosure::{Book, Chain, Head, How, Intended, Intent, Memory, Reading, Verifier, Written};
use ryggrad_log::{Start, scan_from, topics, watermarks};
use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::topics::DISCLOSURES_OF;
use ryggrad_schemas::catalogue::{Cleanup, Timestamp as Clock, Topic};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::{Desk, NotRecorded, OnItsWay, Room};

/// Records that are read back when a controller's are opened. An intent further back that is still open is
/// written once more.
const READ_BACK_MAX: i64 = 200_000;
/// How long nothing may have come before what was sent by an earlier life is known to have arrived.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// Records after which a checkpoint is due, and how long after the first that none vouches for.
const CHECKPOINT_RECORDS_MAX: u64 = 1_000;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
const CHECKPOINT_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// Faults that are reported of what is read back.
const FAULTS_MAX: usize = 10;

/// Keeps one controller's records.
pub(super) struct Keeper {
    desk: Arc<Desk>,
    controller: Organisasjonsnummer,
    topic: String,
    state: Mutex<State>,
}

struct State {
    book: Book,
    signed_at: Instant,
}

/// The topic of a controller's records.
pub(super) fn topic_of(controller: Organisasjonsnummer) -> String {
    format!("{DISCLOSURES_OF}{controller}")
}

impl Keeper {
    pub(super) async fn open(desk: Arc<Desk>, controller: Organisasjonsnummer) -> Result<Self, NotRecorded> {
        let (topic, timeout_ms) = (topic_of(controller), desk.config.kafka_timeout_ms);
        // One that is there keeps the retention that it was made with.
        if !topics::list(&desk.connection).await?.contains_key(&topic) {
            topics::ensure(&desk.connection, &[declared(&topic, desk.config.disclosures_retention_ms)], desk.config.replication).await?;
        }
        let mut marks = watermarks(&desk.connection, &topic, 0, timeout_ms).await?;
        while marks.high > marks.low {
            tokio::time::sleep(SETTLED_AFTER).await;
            let now = watermarks(&desk.connection, &topic, 0, timeout_ms).await?;
            if now.high == std::mem::replace(&mut marks, now).high {
                break;
            }
        }
        let verifier = Verifier::new(controller, vec![desk.signing_key.public()], Timestamp::MAX, FAULTS_MAX);
        let mut read = (verifier, Memory::default());
        if marks.high > marks.low {
            let from = Start::Offset((marks.high - READ_BACK_MAX).max(marks.low));
            read = scan_from(&desk.connection, &topic, from, read, |(verifier, memory), record| {
                if let Some(link) = verifier.take(record.offset(), record.value().unwrap_or_default()) {
                    memory.take(&link);
                }
                Ok(())
            })
            .await?;
        }
        let report = read.0.finish(None);
        for fault in &report.faults {
            tracing::error!(%controller, %fault, "the records of disclosures are not what was written");
            desk.telemetry.disclosure_faults.inc();
        }
        let book = Book::behind(Chain::behind(controller, &report), read.1);
        Ok(Self { desk, controller, topic, state: Mutex::new(State { book, signed_at: Instant::now() }) })
    }

    /// Signs in time, for as long as somebody keeps it.
    pub(super) async fn sign_in_time(keeper: Weak<Self>) {
        loop {
            tokio::time::sleep(CHECKPOINT_LOOKED_AT_EVERY).await;
            let Some(keeper) = keeper.upgrade() else { return };
            let mut state = keeper.state();
            if state.signed_at.elapsed() >= CHECKPOINT_EVERY && state.book.chain().unsigned() > 0 {
                keeper.sign(&mut state);
            }
        }
    }

    /// What resolves when the intent is acknowledged.
    pub(super) fn intend(&self, number: u64, intent: Intent, room: Room) -> Result<oneshot::Receiver<()>, NotRecorded> {
        let (tell, told) = oneshot::channel();
        let mut state = self.state();
        // The book may be ahead of the topic: what stands in it counts no more.
        if self.desk.failed.is_cancelled() {
            return Err(NotRecorded::Stopped);
        }
        match state.book.intend(Timestamp::now(), number, intent).map_err(|_| NotRecorded::Stopped)? {
            // Behind it in line: when that is reached, it stands.
            Intended::Standing(_) => drop(room.send(OnItsWay { acknowledgement: None, told: Some(tell) })),
            Intended::New(written) => self.send(&mut state, written, Some(tell), Some(room))?,
        }
        Ok(told)
    }

    pub(super) fn ended(&self, subscription: Uuid, delivery: &str, how: How, status: Option<u16>, room: Room) {
        let mut state = self.state();
        if let Ok(Some(written)) = state.book.ended(Timestamp::now(), subscription, delivery, how, status) {
            // What is refused stops the bridge.
            let _ = self.send(&mut state, written, None, Some(room));
        }
    }

    pub(super) fn taken(&self, subscription: Uuid, number: u64) {
        let mut state = self.state();
        let taken = state.book.taken(Timestamp::now(), subscription, number).unwrap_or_default();
        // All of them before a checkpoint, which is one more in the book.
        if taken.into_iter().try_for_each(|written| self.enqueue(written, None, None)).is_ok() {
            self.sign_if_due(&mut state);
        }
    }

    pub(super) fn forget(&self, subscription: Uuid) {
        self.state().book.forget(subscription);
    }

    /// Somebody looks: recorded and acknowledged when it returns, with where the chain stands then.
    pub(super) async fn read(&self, reading: Reading) -> Result<Head, NotRecorded> {
        let ((tell, told), room) = (oneshot::channel(), self.desk.room().await?);
        let head = {
            let mut state = self.state();
            let written = state.book.read(Timestamp::now(), reading).map_err(|_| NotRecorded::Stopped)?;
            // Before a checkpoint that nobody waits for.
            let head = state.book.chain().head().clone();
            self.send(&mut state, written, Some(tell), Some(room))?;
            head
        };
        told.await.map_err(|_| NotRecorded::Stopped)?;
        Ok(head)
    }

    fn sign(&self, state: &mut State) {
        state.signed_at = Instant::now();
        if let Ok(written) = state.book.checkpoint(Timestamp::now(), &self.desk.signing_key) {
            let _ = self.enqueue(written, None, None);
        }
    }

    fn send(&self, state: &mut State, written: Written, told: Option<oneshot::Sender<()>>, room: Option<Room>) -> Result<(), NotRecorded> {
        self.enqueue(written, told, room)?;
        self.sign_if_due(state);
        Ok(())
    }

    fn sign_if_due(&self, state: &mut State) {
        if state.book.chain().unsigned() >= CHECKPOINT_RECORDS_MAX {
            self.sign(state);
        }
    }

    fn enqueue(&self, (number, value): Written, told: Option<oneshot::Sender<()>>, room: Option<Room>) -> Result<(), NotRecorded> {
        let headers = [("content-type", "application/json")].into_iter().collect();
        let record = EncodedRecord { topic: self.topic.clone(), partition: Some(0), key: number.to_string(), value: Some(value), headers };
        match self.desk.appender.enqueue(&record) {
            Ok(acknowledgement) => {
                self.desk.telemetry.disclosure_records.inc();
                self.line_up(OnItsWay { acknowledgement: Some(acknowledgement), told }, room);
                Ok(())
            }
            Err(error) => {
                tracing::error!(error = error.chain(), controller = %self.controller, "a record of a disclosure was refused; the bridge stops");
                // The book is ahead of the topic now.
                self.desk.failed.cancel();
                Err(NotRecorded::Log(error))
            }
        }
    }

    fn line_up(&self, on_its_way: OnItsWay, room: Option<Room>) {
        match room {
            Some(room) => drop(room.send(on_its_way)),
            // One that finds no room is not watched: Kafka refuses none without refusing all behind it.
            None => drop(self.desk.on_their_way.try_send(on_its_way)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn declared(name: &str, retention_ms: u64) -> Topic {
    Topic {
        // Nothing is stored under it.
        id: 0,
        name: name.to_owned(),
        purpose: "What was disclosed of one controller's data.".to_owned(),
        partitions: 1,
        cleanup: Cleanup::Delete,
        timestamp: Clock::LogAppend,
        min_compaction_lag_ms: None,
        max_compaction_lag_ms: None,
        delete_retention_ms: None,
        segment_ms: None,
        retention_ms: Some(retention_ms),
    }
}
