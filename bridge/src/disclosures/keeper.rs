//! One controller's records: the book, and the topic that it is written to.
//!
//! Whoever writes holds the lock from the book to the sending, so that the topic has the book's order. Opened by
//! reading back the newest records: where the chain stands, and which intents are open. Where it stood at its last
//! checkpoint is kept in the store too, so that records that are gone from the topic are missed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use ryggrad_bridge_core::disclosure::{Book, Chain, Head, How, Intended, Intent, Memory, Reading, Verifier, Written};
use ryggrad_log::{Acknowledgement, Start, scan_from, topics, watermarks};
use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::topics::DISCLOSURES_OF;
use ryggrad_schemas::catalogue::{Cleanup, Timestamp as Clock, Topic};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_store::{Change, KeptHead};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::{Desk, NotRecorded, UNACKNOWLEDGED_MAX};

/// Records that are read back when a controller's are opened. An intent further back that is still open is
/// written once more.
const READ_BACK_MAX: i64 = 200_000;
/// How long nothing may have come before what was sent by an earlier life is known to have arrived.
const SETTLED_AFTER: Duration = Duration::from_millis(300);
/// Records after which a checkpoint is due, and how long after the first that none vouches for.
const CHECKPOINT_RECORDS_MAX: u64 = 1_000;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(60);
const CHECKPOINT_LOOKED_AT_EVERY: Duration = Duration::from_secs(1);
/// Checkpoints that may wait for their acknowledgement beside other records.
const CHECKPOINTS_ON_THEIR_WAY_MAX: usize = 1_000;
/// Outcomes that are written at once when a receiver has taken events.
const TAKEN_TOGETHER_MAX: usize = 1_000;
/// Faults that are reported of what is read back.
const FAULTS_MAX: usize = 10;
/// Pause before records that cannot be opened are tried again.
const OPENED_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Keeps one controller's records.
pub(super) struct Keeper {
    desk: Arc<Desk>,
    controller: Organisasjonsnummer,
    topic: String,
    line: mpsc::Sender<OnItsWay>,
    state: Mutex<State>,
}

/// A record on its way; or a place in line behind those that are.
struct OnItsWay {
    acknowledgement: Option<Acknowledgement>,
    told: Option<oneshot::Sender<()>>,
    /// None for a checkpoint.
    _room: Option<Room>,
}

/// Room for one more record on its way, or for several.
type Room = OwnedSemaphorePermit;

struct State {
    book: Book,
    signed_at: Instant,
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
                _ = ticks.tick() => keeper.sign_in_time(),
                () = opened.closed() => return,
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
        let (line, arriving) = mpsc::channel(UNACKNOWLEDGED_MAX + CHECKPOINTS_ON_THEIR_WAY_MAX);
        tokio::spawn(watch_arrivals(arriving, Arc::clone(&desk)));
        Ok(Self { desk, controller, topic, line, state: Mutex::new(State { book, signed_at: Instant::now() }) })
    }

    /// Vouches for everything so far; kept when it returns.
    pub(super) async fn close(&self) {
        let signed = {
            let mut state = self.state();
            if state.book.chain().unsigned() > 0 { self.sign(&mut state) } else { None }
        };
        if let Some(signed) = signed {
            // What it could not keep it has said.
            let _ = signed.await;
        }
    }

    fn sign_in_time(&self) {
        let mut state = self.state();
        if state.signed_at.elapsed() >= CHECKPOINT_EVERY && state.book.chain().unsigned() > 0 {
            self.sign(&mut state);
        }
    }

    /// What resolves when the intent is acknowledged.
    pub(super) async fn intend(&self, number: u64, intent: Intent) -> Result<oneshot::Receiver<()>, NotRecorded> {
        let ((tell, told), room) = (oneshot::channel(), self.desk.room(1).await?);
        let mut state = self.state();
        // What stands in a book that is ahead of its topic counts no more.
        if self.desk.failed.is_cancelled() {
            return Err(NotRecorded::Stopped);
        }
        match state.book.intend(Timestamp::now(), number, intent).map_err(|_| NotRecorded::Stopped)? {
            // Behind it in line: when that is reached, it stands.
            Intended::Standing(_) => self.line_up(OnItsWay { acknowledgement: None, told: Some(tell), _room: Some(room) }),
            Intended::New(written) => self.send(&mut state, written, Some(tell), Some(room))?,
        }
        Ok(told)
    }

    pub(super) async fn ended(&self, subscription: Uuid, delivery: &str, how: How, status: Option<u16>) {
        // There is none only when the bridge has failed.
        let Ok(room) = self.desk.room(1).await else { return };
        let mut state = self.state();
        if let Ok(Some(written)) = state.book.ended(Timestamp::now(), subscription, delivery, how, status) {
            // What is refused stops the bridge.
            let _ = self.send(&mut state, written, None, Some(room));
        }
    }

    pub(super) async fn taken(&self, subscription: Uuid, number: u64) {
        loop {
            let count = self.state().book.to_be_taken(subscription, number).min(TAKEN_TOGETHER_MAX);
            let Some(places) = u32::try_from(count).ok().filter(|count| *count > 0) else { return };
            let Ok(mut room) = self.desk.room(places).await else { return };
            let mut state = self.state();
            let taken = state.book.taken(Timestamp::now(), subscription, number, count).unwrap_or_default();
            // All of them before a checkpoint, which is one more in the book.
            if taken.into_iter().try_for_each(|written| self.enqueue(written, None, room.split(1))).is_err() {
                return;
            }
            self.sign_if_due(&mut state);
        }
    }

    pub(super) fn forget(&self, subscription: Uuid) {
        self.state().book.forget(subscription);
    }

    /// Somebody looks: recorded and acknowledged when it returns, with where the chain stands then.
    pub(super) async fn read(&self, reading: Reading) -> Result<Head, NotRecorded> {
        let ((tell, told), room) = (oneshot::channel(), self.desk.room(1).await?);
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

    /// What it tells of ends when it is kept where the chain stands.
    fn sign(&self, state: &mut State) -> Option<JoinHandle<()>> {
        state.signed_at = Instant::now();
        let written = state.book.checkpoint(Timestamp::now(), self.desk.signing_keys.current()).ok()?;
        let (tell, told) = oneshot::channel();
        self.enqueue(written, Some(tell), None).ok()?;
        let kept = KeptHead { controller: self.controller, head: state.book.chain().head().clone(), at_ms: now_ms() };
        let desk = Arc::clone(&self.desk);
        // Never ahead of the topic: what is kept is missed where it is not found.
        Some(tokio::spawn(async move {
            if told.await.is_ok()
                && let Err(error) = desk.writer.commit(vec![Change::KeepHead(kept)]).await
            {
                tracing::warn!(%error, "where the records of disclosures stand was not kept; the next checkpoint tries again");
            }
        }))
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
        // The book may be ahead of the topic: what stands in it counts no more.
        if self.desk.failed.is_cancelled() {
            return Err(NotRecorded::Stopped);
        }
        let headers = [("content-type", "application/json")].into_iter().collect();
        let record = EncodedRecord { topic: self.topic.clone(), partition: Some(0), key: number.to_string(), value: Some(value), headers };
        match self.desk.appender.enqueue(&record) {
            Ok(acknowledgement) => {
                self.desk.telemetry.disclosure_records.inc();
                self.line_up(OnItsWay { acknowledgement: Some(acknowledgement), told, _room: room });
                Ok(())
            }
            Err(error) => {
                tracing::error!(error = error.chain(), controller = %self.controller, "a record of a disclosure was refused; the bridge stops");
                self.desk.fail();
                Err(NotRecorded::Log(error))
            }
        }
    }

    fn line_up(&self, on_its_way: OnItsWay) {
        // There is a place in line for each room. One that finds none is not watched, and whoever waits for it is told of
        // nothing; Kafka refuses none without refusing all behind it.
        drop(self.line.try_send(on_its_way));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells whoever waits, in the order in which records were sent. One that is refused stops everything.
async fn watch_arrivals(mut arriving: mpsc::Receiver<OnItsWay>, desk: Arc<Desk>) {
    while let Some(OnItsWay { acknowledgement, told, _room }) = arriving.recv().await {
        if let Some(acknowledgement) = acknowledgement
            && let Err(error) = acknowledgement.wait().await
        {
            tracing::error!(error = error.chain(), "a record of a disclosure was refused; the bridge stops");
            desk.fail();
        }
        if desk.failed.is_cancelled() {
            return;
        }
        // Whoever gave up is told by nobody; the record stands all the same.
        let _ = told.map(|told| told.send(()));
    }
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
