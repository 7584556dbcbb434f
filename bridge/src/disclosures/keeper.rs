//! One controller's records: the book, and the topic that it is written to.
//!
//! One task writes, in rounds: what has come since the round before goes out together, and the next round begins when
//! Kafka has acknowledged that. So the topic has the book's order, and whoever waits in a round waits for everything
//! before it too. Opened by reading back the newest records: where the chain stands, and which intents are open. Where
//! it stood at its last checkpoint is kept in the store too, so that records that are gone from the topic are missed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ryggrad_bridge_core::asymmetric::SigningKey;
use ryggrad_bridge_core::disclosure::{Book, Chain, Head, How, Intent, Memory, Reading, Verifier, Written};
use ryggrad_log::{Acknowledgement, Appended, Start, scan_from, topics, watermarks};
use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::topics::DISCLOSURES_OF;
use ryggrad_schemas::catalogue::{Cleanup, Timestamp as Clock, Topic};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_store::{Change, KeptHead};
use tokio::sync::{Notify, OwnedSemaphorePermit, oneshot, watch};
use uuid::Uuid;

use super::{Desk, Looked, NotRecorded};

/// Records that are read back when a controller's are opened, of up to 200 intents or outcomes each. An intent further
/// back that is still open is written once more.
const READ_BACK_MAX: i64 = 20_000;
/// How long nothing may have come before what was sent by an earlier life is known to have arrived.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// Records after which a checkpoint is due, and how long after the first that none vouches for.
const CHECKPOINT_RECORDS_MAX: u64 = 1_000;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
const CHECKPOINT_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// Faults that are reported of what is read back.
const FAULTS_MAX: usize = 10;
/// Pause before records that cannot be opened are tried again.
const OPENED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Keeps one controller's records.
pub(super) struct Keeper {
    desk: Arc<Desk>,
    controller: Organisasjonsnummer,
    topic: String,
    state: Mutex<State>,
    /// There is something to write.
    is_waiting: Notify,
}

struct State {
    book: Book,
    signed_at: Instant,
    intents: Vec<Waiting>,
    readings: Vec<(Reading, oneshot::Sender<Looked>)>,
    closing: Vec<oneshot::Sender<()>>,
}

/// Who waits until everything that is in the book by now is acknowledged.
struct Waiting {
    told: oneshot::Sender<()>,
    _room: OwnedSemaphorePermit,
}

/// What goes out together, and who waits for it.
struct Round {
    records: Vec<Written>,
    intents: Vec<Waiting>,
    /// With the place of the look among the records, and where the chain stood behind it.
    readings: Vec<(usize, Head, oneshot::Sender<Looked>)>,
    /// Where the chain stands, if that was signed.
    signed: Option<Head>,
    closing: Vec<oneshot::Sender<()>>,
}

/// The topic of a controller's records.
pub(super) fn topic_of(controller: Organisasjonsnummer) -> String {
    format!("{DISCLOSURES_OF}{controller}")
}

impl Keeper {
    /// Opens a controller's records, however long it takes, and keeps them for as long as somebody may ask.
    pub(super) async fn keep(desk: Arc<Desk>, controller: Organisasjonsnummer, opened: watch::Sender<Option<Arc<Self>>>) {
        let keeper = loop {
            match Self::open(Arc::clone(&desk), controller).await {
                Ok(keeper) => break Arc::new(keeper),
                Err(error) => {
                    tracing::error!(%controller, %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "records of disclosures cannot be opened; trying again")
                }
            }
            tokio::select! {
                () = tokio::time::sleep(OPENED_AGAIN_AFTER) => {}
                () = opened.closed() => return,
            }
        };
        opened.send_replace(Some(Arc::clone(&keeper)));
        let mut ticks = tokio::time::interval(CHECKPOINT_LOOKED_AT_EVERY);
        loop {
            tokio::select! {
                () = keeper.is_waiting.notified() => {}
                _ = ticks.tick() => {}
                () = opened.closed() => return,
            }
            if let Err(error) = keeper.write().await {
                tracing::error!(%controller, %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "a record of a disclosure was refused; the bridge stops");
                keeper.desk.fail();
                // Nobody is told, and nobody waits any more.
                keeper.state().dismiss();
                return;
            }
        }
    }

    async fn open(desk: Arc<Desk>, controller: Organisasjonsnummer) -> Result<Self, NotRecorded> {
        let (topic, timeout_ms) = (topic_of(controller), desk.config.kafka_timeout_ms);
        let known = desk.store.head(controller)?;
        let is_new = !topics::list(&desk.connection).await?.contains_key(&topic);
        // One that is there keeps the retention that it was made with.
        if is_new {
            topics::ensure(&desk.connection, &[declared(&topic, desk.config.disclosures_retention_ms)], desk.config.replication).await?;
        }
        let mut marks = watermarks(&desk.connection, &topic, 0, timeout_ms).await?;
        let mut may_grow = !is_new;
        while may_grow {
            tokio::time::sleep(SETTLED_AFTER).await;
            let now = watermarks(&desk.connection, &topic, 0, timeout_ms).await?;
            may_grow = now.high != marks.high;
            marks = now;
        }
        // Records that have all expired are not missed.
        let retention_ms = desk.retention_ms(controller).await?;
        let all_expired = known.as_ref().is_some_and(|known| marks.high == marks.low && known.at_ms < now_ms() - retention_ms);
        let (missed, known) = (known.clone().filter(|_| !all_expired).map(|known| known.head), known.map(|known| known.head));
        let verifier = Verifier::new(controller, desk.signing_keys.verifying(), Timestamp::MAX, FAULTS_MAX).past(missed);
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
        let book = Book::behind(Chain::behind(controller, &report, known.as_ref()), read.1);
        let (intents, readings, closing) = (Vec::new(), Vec::new(), Vec::new());
        let state = State { book, signed_at: Instant::now(), intents, readings, closing };
        Ok(Self { desk, controller, topic, state: Mutex::new(state), is_waiting: Notify::new() })
    }

    /// Writes what waits; acknowledged when it returns, and everyone told who waited for it. Must not be cancelled: the
    /// round after it counts on it.
    async fn write(&self) -> Result<(), NotRecorded> {
        let Round { records, intents, readings, signed, closing } = self.state().next_round(self.desk.signing_keys.current())?;
        let sent: Vec<Acknowledgement> = records.into_iter().map(|written| self.send(written)).collect::<Result<_, _>>()?;
        let mut arrived: Vec<Appended> = Vec::with_capacity(sent.len());
        for record in sent {
            arrived.push(record.wait().await?);
        }
        self.desk.telemetry.disclosures_waiting.dec_by(gauged(intents.len()));
        // Whoever gave up is told by nobody; the record stands all the same.
        for Waiting { told, _room } in intents {
            let _ = told.send(());
        }
        for (place, head, told) in readings {
            let _ = told.send(Looked { head, offset: arrived[place].offset });
        }
        if let Some(head) = signed {
            // Never ahead of the topic: what is kept is missed where it is not found.
            let kept = KeptHead { controller: self.controller, head, at_ms: now_ms() };
            if let Err(error) = self.desk.writer.commit(vec![Change::KeepHead(kept)]).await {
                tracing::warn!(%error, "where the records of disclosures stand was not kept; the next checkpoint tries again");
            }
        }
        for told in closing {
            let _ = told.send(());
        }
        Ok(())
    }

    fn send(&self, (number, value): Written) -> Result<Acknowledgement, NotRecorded> {
        let headers = [("content-type", "application/json")].into_iter().collect();
        let record = EncodedRecord { topic: self.topic.clone(), partition: Some(0), key: number.to_string(), value: Some(value), headers };
        let sent = self.desk.appender.enqueue(&record)?;
        self.desk.telemetry.disclosure_records.inc();
        Ok(sent)
    }

    /// What resolves when the intent is acknowledged.
    pub(super) async fn intend(&self, number: u64, intent: Intent) -> Result<oneshot::Receiver<()>, NotRecorded> {
        let ((told, acknowledged), _room) = (oneshot::channel(), self.desk.room().await?);
        self.add(|state| {
            state.book.intend(number, intent);
            state.intents.push(Waiting { told, _room });
            self.desk.telemetry.disclosures_waiting.inc();
            true
        })?;
        Ok(acknowledged)
    }

    pub(super) fn ended(&self, subscription: Uuid, delivery: &str, how: How, status: Option<u16>) {
        // What a bridge that has failed is told is lost with it.
        let _ = self.add(|state| state.book.ended(subscription, delivery, how, status));
    }

    pub(super) fn taken(&self, subscription: Uuid, number: u64) {
        let _ = self.add(|state| state.book.taken(subscription, number));
    }

    pub(super) fn forget(&self, subscription: Uuid) {
        self.state().book.forget(subscription);
    }

    /// Somebody looks: recorded and acknowledged when it returns, behind all that ended before.
    pub(super) async fn read(&self, reading: Reading) -> Result<Looked, NotRecorded> {
        let ((told, acknowledged), _room) = (oneshot::channel(), self.desk.room().await?);
        self.add(|state| {
            state.readings.push((reading, told));
            true
        })?;
        acknowledged.await.map_err(|_| NotRecorded::Stopped)
    }

    /// Vouches for everything so far; kept when it returns.
    pub(super) async fn close(&self) {
        let (told, closed) = oneshot::channel();
        let is_closing = self.add(|state| {
            state.closing.push(told);
            true
        });
        if is_closing.is_ok() {
            let _ = closed.await;
        }
    }

    /// Adds what tells whether there is something to write then.
    fn add(&self, what: impl FnOnce(&mut State) -> bool) -> Result<(), NotRecorded> {
        let mut state = self.state();
        // The book may be ahead of its topic: what stands in it counts no more.
        if self.desk.failed.is_cancelled() {
            return Err(NotRecorded::Stopped);
        }
        let is_waiting = what(&mut state);
        drop(state);
        if is_waiting {
            self.is_waiting.notify_one();
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Everything that waits. It counts as written from here on.
    fn next_round(&mut self, key: &SigningKey) -> Result<Round, NotRecorded> {
        let (at, written) = (Timestamp::now(), |_: serde_json::Error| NotRecorded::Stopped);
        let mut records = self.book.write(at).map_err(written)?;
        let mut readings = Vec::new();
        for (reading, told) in self.readings.drain(..) {
            records.extend(self.book.read(at, reading).map_err(written)?);
            readings.push((records.len() - 1, self.book.chain().head().clone(), told));
        }
        let unsigned = self.book.chain().unsigned();
        let in_time = self.signed_at.elapsed() >= CHECKPOINT_EVERY || !self.closing.is_empty();
        let is_due = unsigned >= CHECKPOINT_RECORDS_MAX || (unsigned > 0 && in_time);
        let mut signed = None;
        if is_due {
            records.extend(self.book.checkpoint(at, key).map_err(written)?);
            (self.signed_at, signed) = (Instant::now(), Some(self.book.chain().head().clone()));
        }
        let (intents, closing) = (std::mem::take(&mut self.intents), std::mem::take(&mut self.closing));
        Ok(Round { records, intents, readings, signed, closing })
    }

    fn dismiss(&mut self) {
        self.intents.clear();
        self.readings.clear();
        self.closing.clear();
    }
}

fn gauged(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
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
