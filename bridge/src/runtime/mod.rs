//! The running half: one task that owns the hub, and everything that it sets in motion.

mod attempt;
pub mod changelog;
mod commits;
mod readers;
mod runner;
mod status;
mod tail;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Bytes;
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::hub::Guard;
use ryggrad_bridge_core::machine::{DeadLetter, DisableReason, Mode};
use ryggrad_bridge_core::removal::Leaving;
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::Connection;
use ryggrad_schemas::Catalogue;
use ryggrad_store::{Stored, Writer};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::channel::webhook::{TargetOptions, Webhook};
use crate::config::BridgeConfig;
use crate::removals::Removals;
use crate::telemetry::Telemetry;
use runner::Runner;
pub use status::{LoggedAttempt, of_attempt, topic_name, word};

/// Commands that may wait for the hub's task.
const COMMANDS_MAX: usize = 256;

/// What the running half needs.
pub struct Context {
    /// How to reach Kafka.
    pub connection: Connection,
    /// Event types and topics.
    pub catalogue: &'static Catalogue,
    /// Settings.
    pub config: BridgeConfig,
    /// The webhook channel.
    pub webhook: Webhook,
    /// The cursor store's writer.
    pub writer: Writer,
    /// What is to be copied to the changelog.
    pub noted: Arc<changelog::Noted>,
    /// Keys removed for legal reasons.
    pub removals: Arc<Removals>,
    /// Metrics.
    pub telemetry: Telemetry,
    /// Where it is told that the bridge has stopped a subscription.
    pub stopped: mpsc::Sender<Stopped>,
    /// Cancelled when the store fails: nothing can be promised any more, so the process ends.
    pub fatal: CancellationToken,
}

/// The bridge has stopped a subscription.
pub struct Stopped {
    /// Which.
    pub subscription: Uuid,
    /// Why.
    pub reason: DisableReason,
    /// The endpoint that it stopped for.
    pub sink: Option<String>,
}

/// What a receiver that fetches is given.
pub struct Fetched {
    /// Which run of numbers.
    pub epoch: u32,
    /// Everything up to this number is taken.
    pub acknowledged: u64,
    /// Deliveries in ascending order of their numbers: the whole event in structured JSON.
    pub events: Vec<(u64, Bytes)>,
}

/// How a subscription is to run.
pub struct Running {
    /// What its owner asks for.
    pub subscription: Subscription,
    /// Where deliveries go, if they are posted.
    pub target: Option<TargetOptions>,
    /// Whether attempts may be made.
    pub mode: Mode,
}

enum Command {
    Add(Box<Running>, Box<Stored>, oneshot::Sender<()>),
    Change(Box<Running>, oneshot::Sender<()>),
    Remove(Uuid, oneshot::Sender<()>),
    Status(Uuid, oneshot::Sender<Option<Value>>),
    Attempts(Uuid, oneshot::Sender<Vec<LoggedAttempt>>),
    DeadLetters(Uuid, oneshot::Sender<Vec<(DeadLetter, u64)>>),
    DropDeadLetter(Uuid, Place, i64, oneshot::Sender<bool>),
    Redrive(Uuid, Option<(Place, i64)>, oneshot::Sender<usize>),
    Epoch(Uuid, oneshot::Sender<Option<u32>>),
    Fetch(Uuid, Option<u64>, usize, oneshot::Sender<Option<Fetched>>),
    Acknowledge(Uuid, u64, oneshot::Sender<bool>),
    Available(Uuid, oneshot::Sender<Option<watch::Receiver<u64>>>),
    Go(oneshot::Sender<()>),
    Drain(oneshot::Sender<()>),
}

/// A handle to the hub's task.
pub struct Engine {
    commands: mpsc::Sender<Command>,
    task: JoinHandle<()>,
}

impl Engine {
    /// Starts the task; the tail will begin at these offsets, when it is told to go.
    pub fn start(context: Arc<Context>, tail: BTreeMap<Place, i64>) -> Self {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let task = tokio::spawn(Runner::new(context, tail).run(inbox));
        Self { commands, task }
    }

    /// Starts the tail. Not before every stored subscription is there: what is stored of the
    /// tail's way counts for all of them.
    pub async fn go(&self) {
        self.ask(Command::Go).await;
    }

    /// Puts a subscription to work.
    pub async fn add(&self, running: Running, stored: Stored) {
        self.ask(|answer| Command::Add(Box::new(running), Box::new(stored), answer)).await;
    }

    /// Lets a subscription go on with other wishes; in force when it returns.
    pub async fn change(&self, running: Running) {
        self.ask(|answer| Command::Change(Box::new(running), answer)).await;
    }

    /// Ends a subscription at once; what comes of attempts under way is nobody's.
    pub async fn remove(&self, id: Uuid) {
        self.ask(|answer| Command::Remove(id, answer)).await;
    }

    /// How a subscription stands.
    pub async fn status(&self, id: Uuid) -> Option<Value> {
        self.ask(|answer| Command::Status(id, answer)).await?
    }

    /// Its latest attempts, the newest first.
    pub async fn attempts(&self, id: Uuid) -> Vec<LoggedAttempt> {
        self.ask(|answer| Command::Attempts(id, answer)).await.unwrap_or_default()
    }

    /// Its events that were set aside, and when (milliseconds since 1970).
    pub async fn dead_letters(&self, id: Uuid) -> Vec<(DeadLetter, u64)> {
        self.ask(|answer| Command::DeadLetters(id, answer)).await.unwrap_or_default()
    }

    /// Forgets an event that was set aside alone; whether there was one.
    pub async fn drop_dead_letter(&self, id: Uuid, place: Place, offset: i64) -> bool {
        self.ask(|answer| Command::DropDeadLetter(id, place, offset, answer)).await.unwrap_or_default()
    }

    /// Takes up parked keys again: one, or all. How many there were.
    pub async fn redrive(&self, id: Uuid, one: Option<(Place, i64)>) -> usize {
        self.ask(|answer| Command::Redrive(id, one, answer)).await.unwrap_or_default()
    }

    /// Which run of numbers it is in.
    pub async fn epoch(&self, id: Uuid) -> Option<u32> {
        self.ask(|answer| Command::Epoch(id, answer)).await?
    }

    /// What a receiver that fetches has not taken, after a number.
    pub async fn fetch(&self, id: Uuid, after: Option<u64>, limit: usize) -> Option<Fetched> {
        self.ask(|answer| Command::Fetch(id, after, limit, answer)).await?
    }

    /// A receiver that fetches has taken everything up to a number; on disk when it returns.
    pub async fn acknowledge(&self, id: Uuid, number: u64) -> bool {
        self.ask(|answer| Command::Acknowledge(id, number, answer)).await.unwrap_or_default()
    }

    /// Changes whenever there may be more to fetch.
    pub async fn available(&self, id: Uuid) -> Option<watch::Receiver<u64>> {
        self.ask(|answer| Command::Available(id, answer)).await?
    }

    /// Ends everything after what is under way.
    pub async fn drain(&self) {
        self.ask(Command::Drain).await;
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The removed keys, as the hub asks for them.
struct RemovalGuard(Arc<Removals>);

impl Guard for RemovalGuard {
    fn withholds(&self, leaving: Leaving<'_>) -> bool {
        self.0.withholds(leaving)
    }
}
