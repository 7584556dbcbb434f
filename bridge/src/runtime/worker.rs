//! One subscription at work: reads, asks the machine, makes attempts, persists.
//!
//! The shell around the machine: it decides nothing. Memory is bounded by the window and the
//! readers' limits; while the window is full, nothing is read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Place};
use ryggrad_bridge_core::delivery::{delivery_id, render};
use ryggrad_bridge_core::machine::{Action, Commit, Input, Limits, Machine, Mode};
use ryggrad_bridge_core::matching::{Matcher, lane_of};
use ryggrad_bridge_core::outcome::{Outcome, outcome};
use ryggrad_bridge_core::retry::RetryPolicy;
use ryggrad_bridge_core::signature::Secret;
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::Read;
use ryggrad_schemas::LogRecord;
use ryggrad_store::{Change, CommitError};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::reader::{TopicReader, next_of};
use super::status::{self, LastAttempt};
use super::{Command, Context};
use crate::channel::webhook::Attempt;
use crate::telemetry::OutcomeLabel;

/// What was read and not yet handed to the machine.
enum Incoming {
    Record { record: LogRecord, place: Place, wanted: bool },
    AtEnd(Place),
}

/// A record that will be attempted.
struct Kept {
    key: Option<String>,
    appended_ms: i64,
    webhook_id: String,
    body: Bytes,
}

/// An attempt that has ended.
struct Ended {
    place: Place,
    offset: i64,
    lane: LaneKey,
    attempt: Attempt,
}

/// The worker.
pub struct Worker {
    context: Arc<Context>,
    subscription: Subscription,
    secret: Secret,
    matcher: Matcher,
    machine: Machine,
    readers: Vec<TopicReader>,
    incoming: VecDeque<Incoming>,
    kept: HashMap<(Place, i64), Kept>,
    kept_bytes: usize,
    attempts: JoinSet<Ended>,
    commit: Option<JoinHandle<Result<(), CommitError>>>,
    /// How far each cursor is on disk, and will be after the commit under way. Only what is on
    /// disk is shown, so that nobody sees a cursor go back after a crash.
    stored: BTreeMap<Place, i64>,
    storing: Vec<(Place, i64)>,
    /// The machine's clock: wall time at start plus monotonic time since.
    started: (u64, Instant),
    last_attempt: Option<LastAttempt>,
    unreadable: u64,
    trouble: Option<String>,
}

impl Worker {
    /// A worker that goes on from cursors.
    pub fn new(context: Arc<Context>, subscription: Subscription, secret: Secret, mode: Mode, cursors: Vec<(Place, Cursor)>) -> Self {
        let config = &context.config;
        let limits = Limits {
            pending_max: config.pending_max,
            pending_per_key_max: config.pending_per_key_max,
            in_flight_max: config.in_flight_max,
        };
        let retry = RetryPolicy { first_ms: config.retry_first_ms, max_ms: config.retry_max_ms, probe_ms: config.probe_ms };
        let mut readers: Vec<TopicReader> = Vec::new();
        for (place, _) in &cursors {
            let topic = context.catalogue.topics.iter().find(|topic| topic.id == place.topic);
            if let Some(topic) = topic.filter(|topic| readers.iter().all(|reader| reader.topic.id != topic.id)) {
                readers.push(TopicReader::new(topic));
            }
        }
        let wall_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        Self {
            matcher: Matcher::new(subscription.types.clone()),
            stored: cursors.iter().map(|(place, cursor)| (*place, cursor.scanned_to)).collect(),
            machine: Machine::new(limits, retry, mode, cursors),
            context,
            subscription,
            secret,
            readers,
            incoming: VecDeque::new(),
            kept: HashMap::new(),
            kept_bytes: 0,
            attempts: JoinSet::new(),
            commit: None,
            storing: Vec::new(),
            started: (wall_ms, Instant::now()),
            last_attempt: None,
            unreadable: 0,
            trouble: None,
        }
    }

    /// Works until told to drain.
    pub async fn run(mut self, mut inbox: mpsc::Receiver<Command>, drain: CancellationToken) {
        loop {
            self.open_readers();
            self.take_in();
            self.start_commit();
            let wake_at = self.wake_at();
            tokio::select! {
                () = drain.cancelled() => break,
                command = inbox.recv() => match command {
                    Some(command) => self.obey(command),
                    None => return,
                },
                Some(ended) = self.attempts.join_next() => self.attempt_ended(ended),
                outcome = finished(&mut self.commit) => self.committed(outcome),
                (index, read) = next_of(&mut self.readers), if self.incoming.is_empty() => self.was_read(index, read),
                () = tokio::time::sleep_until(wake_at) => self.step(Input::Tick),
            }
        }
        self.finish().await;
    }

    fn now_ms(&self) -> u64 {
        self.started.0 + u64::try_from(self.started.1.elapsed().as_millis()).unwrap_or_default()
    }

    fn wake_at(&self) -> Instant {
        let tick = self.machine.wake_at_ms().map(|due_ms| self.started.1 + Duration::from_millis(due_ms.saturating_sub(self.started.0)));
        let open = self.readers.iter().filter_map(TopicReader::open_at).min();
        // With nothing due, an hour is as good as never.
        [tick, open].into_iter().flatten().fold(Instant::now() + Duration::from_secs(3_600), Instant::min)
    }

    fn open_readers(&mut self) {
        let now = Instant::now();
        for index in 0..self.readers.len() {
            if self.readers[index].wants_open(now) {
                self.open_reader(index);
            }
        }
    }

    fn open_reader(&mut self, index: usize) {
        let topic = self.readers[index].topic.id;
        self.incoming.retain(|incoming| match incoming {
            Incoming::Record { place, .. } | Incoming::AtEnd(place) => place.topic != topic,
        });
        if let Err(error) = self.readers[index].open(&self.context.connection, &self.machine) {
            self.reader_failed(index, &error);
        }
    }

    fn reader_failed(&mut self, index: usize, error: &ryggrad_log::Error) {
        tracing::warn!(subscription = %self.subscription.id, error = error.chain(), "reading has stopped and will be taken up again");
        self.trouble = Some(error.chain());
        self.readers[index].close();
    }

    fn was_read(&mut self, index: usize, read: Option<Read>) {
        let reader = &mut self.readers[index];
        match read {
            Some(Read::Records(records)) => {
                self.trouble = None;
                self.context.telemetry.scanned.inc_by(records.len() as u64);
                for record in records {
                    let echo = reader.echoes.is_echo(&record);
                    let wanted = !echo && self.matcher.wants(&record);
                    let place = Place { topic: reader.topic.id, partition: record.partition };
                    self.incoming.push_back(Incoming::Record { record, place, wanted });
                }
            }
            Some(Read::AtEnd { partition }) => {
                self.incoming.push_back(Incoming::AtEnd(Place { topic: reader.topic.id, partition }));
            }
            // The client library goes on by itself; readiness is told elsewhere.
            Some(Read::Away { reason }) => self.trouble = Some(reason),
            Some(Read::Failed(error)) => self.reader_failed(index, &error),
            None => reader.close(),
        }
    }

    /// Hands what was read to the machine, as far as it has room.
    fn take_in(&mut self) {
        while let Some(next) = self.incoming.front() {
            // What is kept makes room again by being delivered; one record always fits.
            if self.kept_bytes >= self.context.config.pending_bytes_max && !self.kept.is_empty() {
                return;
            }
            if let Incoming::Record { record, place, .. } = next
                && !self.machine.accepts(*place, record.offset)
            {
                return;
            }
            match self.incoming.pop_front() {
                Some(Incoming::Record { record, place, wanted }) => self.take_record(&record, place, wanted),
                Some(Incoming::AtEnd(place)) => self.step(Input::AtEnd { place }),
                None => return,
            }
        }
    }

    fn take_record(&mut self, record: &LogRecord, place: Place, wanted: bool) {
        let body = if wanted { self.render(record) } else { None };
        let input = Input::Record { place, offset: record.offset, lane: lane_of(record), matched: body.is_some() };
        let mut actions = Vec::new();
        self.machine.step(self.now_ms(), input, &mut actions);
        if let Some(body) = body
            && actions.contains(&Action::Keep { place, offset: record.offset })
        {
            let webhook_id = delivery_id(self.subscription.id, &record.topic, record.partition, record.offset);
            let kept = Kept { key: record.key.clone(), appended_ms: record.timestamp_ms, webhook_id, body };
            self.kept_bytes += kept.body.len();
            self.kept.insert((place, record.offset), kept);
            self.context.telemetry.pending.inc();
        }
        self.act(actions);
    }

    fn render(&mut self, record: &LogRecord) -> Option<Bytes> {
        match render(record) {
            Ok(body) => Some(Bytes::from(body)),
            Err(error) => {
                // No retry can cure it, and the log keeps it: told by position, never by content.
                tracing::error!(
                    subscription = %self.subscription.id, topic = record.topic, partition = record.partition, offset = record.offset,
                    %error, "a record cannot be read and is passed over"
                );
                self.unreadable += 1;
                self.context.telemetry.unreadable.inc();
                None
            }
        }
    }

    fn step(&mut self, input: Input) {
        let mut actions = Vec::new();
        let compacted = self.machine.compacted();
        self.machine.step(self.now_ms(), input, &mut actions);
        self.context.telemetry.compacted.inc_by(self.machine.compacted() - compacted);
        self.act(actions);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Keep { .. } => {}
                Action::Attempt { place, offset, lane, .. } => self.attempt(place, offset, lane),
                Action::Forget { place, offset } => {
                    if let Some(kept) = self.kept.remove(&(place, offset)) {
                        self.kept_bytes -= kept.body.len();
                        self.context.telemetry.pending.dec();
                    }
                }
                Action::Rescan { place } => {
                    if let Some(index) = self.readers.iter().position(|reader| reader.topic.id == place.topic) {
                        self.open_reader(index);
                    }
                }
                Action::Disable => {
                    let (gone, id) = (self.context.gone.clone(), self.subscription.id);
                    // Not awaited here: the service that is told may be asking this worker.
                    tokio::spawn(async move { gone.send(id).await });
                }
            }
        }
    }

    fn attempt(&mut self, place: Place, offset: i64, lane: LaneKey) {
        let Some(kept) = self.kept.get(&(place, offset)) else { return };
        let (context, secret) = (Arc::clone(&self.context), self.secret.clone());
        let (sink, id, body) = (self.subscription.sink.clone(), kept.webhook_id.clone(), kept.body.clone());
        self.attempts.spawn(async move {
            // The semaphore is never closed; without a permit the attempt would only be unbounded.
            let _permit = context.permits.acquire().await;
            context.telemetry.in_flight.inc();
            let attempt = context.webhook.attempt(&sink, &secret, &id, body).await;
            context.telemetry.in_flight.dec();
            Ended { place, offset, lane, attempt }
        });
    }

    fn attempt_ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ok(Ended { place, offset, lane, attempt }) = ended else { return };
        let outcome = outcome(attempt.answer);
        let telemetry = &self.context.telemetry;
        telemetry.attempts.get_or_create(&OutcomeLabel { outcome: status::word(outcome) }).inc();
        telemetry.attempt_seconds.observe(attempt.latency_ms as f64 / 1_000.0);
        let at = jiff::Timestamp::now();
        if let Some(kept) = self.kept.get(&(place, offset)) {
            if outcome == Outcome::Delivered {
                telemetry.delivery_lag_seconds.observe((at.as_millisecond() - kept.appended_ms) as f64 / 1_000.0);
            } else {
                tracing::debug!(subscription = %self.subscription.id, delivery = kept.webhook_id, outcome = status::word(outcome), "an attempt failed");
            }
        }
        self.last_attempt = Some(LastAttempt { at, outcome, attempt });
        self.step(Input::Attempted { place, offset, lane, outcome, entropy: rand::random() });
    }

    fn start_commit(&mut self) {
        if self.commit.is_some() {
            return;
        }
        if let Some(commit) = self.machine.take_commit() {
            self.storing = commit.cursors.iter().map(|(place, cursor)| (*place, cursor.scanned_to)).collect();
            let (context, changes) = (Arc::clone(&self.context), self.changes(commit));
            self.commit = Some(tokio::spawn(async move {
                let started = Instant::now();
                let outcome = context.writer.commit(changes).await;
                context.telemetry.commit_seconds.observe(started.elapsed().as_secs_f64());
                outcome
            }));
        }
    }

    fn changes(&self, commit: Commit) -> Vec<Change> {
        let subscription = self.subscription.id.into_bytes();
        commit.cursors.into_iter().map(|(place, cursor)| Change::Put { subscription, place, cursor }).collect()
    }

    fn committed(&mut self, outcome: Result<Result<(), CommitError>, tokio::task::JoinError>) {
        self.commit = None;
        if let Ok(Ok(())) = outcome {
            self.stored.extend(self.storing.drain(..));
            self.step(Input::Persisted);
        } else {
            tracing::error!(?outcome, "the cursor store cannot be written; the bridge stops");
            self.context.fatal.cancel();
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Mode(mode, in_force) => {
                self.step(Input::Mode(mode));
                let _ = in_force.send(());
            }
            Command::Status(answer) => {
                let _ = answer.send(self.status());
            }
        }
    }

    fn status(&self) -> Value {
        let mut shown = status::of_machine(&self.machine, &self.stored, self.context.catalogue, |lane| {
            self.kept.get(&(lane.place, lane.offset))?.key.clone()
        });
        let now_ms = jiff::Timestamp::now().as_millisecond();
        shown["oldest_pending_age_ms"] = json!(self.kept.values().map(|kept| now_ms - kept.appended_ms).max());
        shown["last_attempt"] = json!(self.last_attempt.as_ref().map(status::of_attempt));
        shown["unreadable"] = json!(self.unreadable);
        shown["trouble"] = json!(self.trouble);
        shown
    }

    /// Lets attempts under way end, within the limit, and stores how far it came.
    async fn finish(mut self) {
        self.step(Input::Mode(Mode::Stopped));
        let deadline = Instant::now() + Duration::from_millis(self.context.config.drain_timeout_ms);
        while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.attempts.join_next()).await {
            self.attempt_ended(ended);
        }
        if let Some(commit) = self.commit.take() {
            let _ = commit.await;
            self.step(Input::Persisted);
        }
        if let Some(commit) = self.machine.take_commit() {
            // A failure here costs repeated deliveries, no more.
            let _ = self.context.writer.commit(self.changes(commit)).await;
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.context.telemetry.pending.dec_by(i64::try_from(self.kept.len()).unwrap_or_default());
    }
}

/// The end of a task, if there is one; else never.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
