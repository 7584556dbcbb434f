//! One subscription at work: reads, asks the machine, makes attempts, persists.
//!
//! The shell around the machine: it decides nothing. Memory is bounded by the window and the
//! readers' limits; while the window is full, nothing is read.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::body::Bytes;
use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Place};
use ryggrad_bridge_core::delivery::{delivery_id, render};
use ryggrad_bridge_core::machine::{Action, Commit, Input, Limits, Machine, Mode, Verdict};
use ryggrad_bridge_core::matching::{Matcher, lane_of};
use ryggrad_bridge_core::outcome::{Outcome, outcome};
use ryggrad_bridge_core::removal::Leaving;
use ryggrad_bridge_core::retry::RetryPolicy;
use ryggrad_bridge_core::signature::Secret;
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::Read;
use ryggrad_schemas::LogRecord;
use ryggrad_store::{Change, CommitError};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
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
    Record { record: LogRecord, place: Place, echo: bool },
    AtEnd(Place),
}

/// A record that will be attempted.
#[derive(Clone)]
struct Kept {
    key: Option<String>,
    lane: LaneKey,
    appended_ms: i64,
    event_id: String,
    webhook_id: String,
    body: Bytes,
}

impl Kept {
    fn leaving(&self, place: Place, offset: i64) -> Leaving<'_> {
        Leaving { place, offset, appended_ms: self.appended_ms, key: self.key.as_deref().unwrap_or_default(), id: &self.event_id }
    }
}

/// Where deliveries go. Read after an attempt got its permit, so that a change counts at once.
struct Target {
    sink: String,
    secret: Secret,
}

/// An attempt that has ended.
struct Ended {
    place: Place,
    offset: i64,
    lane: LaneKey,
    target: Arc<Target>,
    /// None if the look right before it said that the record may not leave.
    attempt: Option<Attempt>,
}

/// The worker.
pub struct Worker {
    context: Arc<Context>,
    subscription: Subscription,
    target: Arc<RwLock<Arc<Target>>>,
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
    removals: watch::Receiver<u64>,
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
            removals: context.removals.subscribe(),
            target: Arc::new(RwLock::new(Arc::new(Target { sink: subscription.sink.clone(), secret }))),
            context,
            subscription,
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
                Ok(()) = self.removals.changed() => self.withhold_removed(),
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
                    let place = Place { topic: reader.topic.id, partition: record.partition };
                    self.incoming.push_back(Incoming::Record { record, place, echo });
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
                Some(Incoming::Record { record, place, echo }) => self.take_record(&record, place, echo),
                Some(Incoming::AtEnd(place)) => self.step(Input::AtEnd { place }),
                None => return,
            }
        }
    }

    fn take_record(&mut self, record: &LogRecord, place: Place, echo: bool) {
        let event_id = record.header("ce_id").unwrap_or_default();
        let key = record.key.as_deref().unwrap_or_default();
        let leaving = Leaving { place, offset: record.offset, appended_ms: record.timestamp_ms, key, id: event_id };
        let (verdict, body) = if echo || !self.matcher.wants(record) {
            (Verdict::Unwanted, None)
        } else if self.context.removals.withholds(leaving) {
            (Verdict::Withheld, None)
        } else {
            let body = self.render(record);
            let verdict = if record.value.is_none() { Verdict::Orphan } else { Verdict::Wanted };
            (if body.is_some() { verdict } else { Verdict::Unwanted }, body)
        };
        let lane = lane_of(record);
        let actions = self.advance(Input::Record { place, offset: record.offset, lane, verdict });
        // What is pending stays pending, also where the types have changed meanwhile.
        if actions.contains(&Action::Keep { place, offset: record.offset })
            && let Some(body) = body.or_else(|| self.render(record))
        {
            let webhook_id = delivery_id(self.subscription.id, &record.topic, record.partition, record.offset);
            let (key, event_id, appended_ms) = (record.key.clone(), event_id.to_owned(), record.timestamp_ms);
            let kept = Kept { key, lane, appended_ms, event_id, webhook_id, body };
            self.kept_bytes += kept.body.len();
            self.kept.insert((place, record.offset), kept);
            self.context.telemetry.pending.inc();
        }
        self.act(actions);
    }

    /// Settles what is kept of keys that were removed meanwhile.
    fn withhold_removed(&mut self) {
        let (removals, mut found) = (&self.context.removals, Vec::new());
        for ((place, offset), kept) in &self.kept {
            if removals.withholds(kept.leaving(*place, *offset)) {
                found.push((*place, *offset, kept.lane));
            }
        }
        // From behind, so that none of them is attempted because the one before it was settled.
        found.sort_unstable_by_key(|(_, offset, _)| std::cmp::Reverse(*offset));
        for (place, offset, lane) in found {
            self.step(Input::Withhold { place, offset, lane });
        }
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
        let actions = self.advance(input);
        self.act(actions);
    }

    fn advance(&mut self, input: Input) -> Vec<Action> {
        let mut actions = Vec::new();
        let (compacted, withheld) = (self.machine.compacted(), self.machine.withheld());
        self.machine.step(self.now_ms(), input, &mut actions);
        self.context.telemetry.compacted.inc_by(self.machine.compacted() - compacted);
        self.context.telemetry.withheld.inc_by(self.machine.withheld() - withheld);
        actions
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
                    let (gone, id, sink) = (self.context.gone.clone(), self.subscription.id, self.subscription.sink.clone());
                    // Not awaited here: the service that is told may be asking this worker.
                    tokio::spawn(async move { gone.send((id, sink)).await });
                }
            }
        }
    }

    fn attempt(&mut self, place: Place, offset: i64, lane: LaneKey) {
        let Some(kept) = self.kept.get(&(place, offset)).cloned() else {
            // It was pending and can't be read any more: there is nothing to send.
            return self.step(Input::Attempted { place, offset, lane, outcome: Outcome::Withheld, entropy: 0 });
        };
        let (context, target) = (Arc::clone(&self.context), Arc::clone(&self.target));
        self.attempts.spawn(async move {
            // The semaphore is never closed; without a permit the attempt would only be unbounded.
            let _permit = context.permits.acquire().await;
            // Both as late as can be: waiting for a permit may have taken long.
            let target = Arc::clone(&target.read().unwrap_or_else(PoisonError::into_inner));
            if context.removals.withholds(kept.leaving(place, offset)) {
                return Ended { place, offset, lane, target, attempt: None };
            }
            context.telemetry.in_flight.inc();
            let attempt = context.webhook.attempt(&target.sink, &target.secret, &kept.webhook_id, kept.body).await;
            context.telemetry.in_flight.dec();
            Ended { place, offset, lane, target, attempt: Some(attempt) }
        });
    }

    fn attempt_ended(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let Ok(Ended { place, offset, lane, target, attempt }) = ended else { return };
        let Some(attempt) = attempt else {
            self.step(Input::Attempted { place, offset, lane, outcome: Outcome::Withheld, entropy: 0 });
            return;
        };
        let mut outcome = outcome(attempt.answer);
        if outcome != Outcome::Delivered && target.sink != self.subscription.sink {
            // What the old address asks for (a pause, no more calls) does not bind the new one.
            outcome = Outcome::Failed;
        }
        let telemetry = &self.context.telemetry;
        telemetry.attempts.get_or_create(&OutcomeLabel { outcome: status::word(outcome) }).inc();
        telemetry.attempt_seconds.observe(attempt.latency_ms as f64 / 1_000.0);
        let at = jiff::Timestamp::now();
        let mut removed = false;
        if let Some(kept) = self.kept.get(&(place, offset)) {
            if outcome == Outcome::Delivered {
                telemetry.delivery_lag_seconds.observe((at.as_millisecond() - kept.appended_ms) as f64 / 1_000.0);
            } else {
                tracing::debug!(subscription = %self.subscription.id, delivery = kept.webhook_id, outcome = status::word(outcome), "an attempt failed");
                removed = self.context.removals.withholds(kept.leaving(place, offset));
            }
        }
        self.last_attempt = Some(LastAttempt { at, outcome, attempt });
        self.step(Input::Attempted { place, offset, lane, outcome, entropy: rand::random() });
        if removed {
            // It was under way when its key was removed, and does not get another try.
            self.step(Input::Withhold { place, offset, lane });
        }
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
            Command::Change(changed, mode, in_force) => {
                let (subscription, secret) = *changed;
                let mut target = self.target.write().unwrap_or_else(PoisonError::into_inner);
                let secret = secret.unwrap_or_else(|| target.secret.clone());
                *target = Arc::new(Target { sink: subscription.sink.clone(), secret });
                drop(target);
                self.matcher = Matcher::new(subscription.types.clone());
                self.subscription = subscription;
                // Running ends every wait: whoever changes something has mended something.
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
