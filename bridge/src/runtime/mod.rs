//! The running half: one task that owns the hub, and everything that it sets in motion.

mod attempt;
pub mod changelog;
mod commits;
mod couriers;
mod readers;
mod runner;
mod status;
mod tail;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use axum::body::Bytes;
use ryggrad_bridge_core::access::{Caller, Extent};
use ryggrad_bridge_core::cursor::{LaneKey, Place};
use ryggrad_bridge_core::delivery::MessageId;
use ryggrad_bridge_core::hub::Guard;
use ryggrad_bridge_core::machine::{DeadLetter, DisableReason, Mode};
use ryggrad_bridge_core::record::Record;
use ryggrad_bridge_core::removal::Leaving;
use ryggrad_bridge_core::replay::Tally;
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::Connection;
use ryggrad_schemas::Catalogue;
use ryggrad_store::{Stored, Writer};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::{Decisions, Disclosed, Hold, Holds};
use crate::channel::webhook::{TargetOptions, Webhook};
use crate::config::BridgeConfig;
use crate::disclosures::Disclosures;
use crate::removals::Removals;
use crate::telemetry::Telemetry;
use crate::watch_lists::Watched;
use runner::Runner;
pub use status::{LoggedAttempt, TYPE_SHUT, of_attempt, topic_name, withheld_by, word};

/// Commands that may wait for the hub's task.
const COMMANDS_MAX: usize = 256;

/// What the running half needs.
pub struct Context {
    /// How to reach Kafka.
    pub connection: Connection,
    /// Event types and topics, as far as they are open here.
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
    /// Who may get what.
    pub decisions: Arc<Decisions>,
    /// Who is stopped.
    pub holds: Arc<Holds>,
    /// What was disclosed.
    pub disclosures: Arc<Disclosures>,
    /// Which watch lists hold which keys.
    pub watched: Arc<Watched>,
    /// Metrics.
    pub telemetry: Telemetry,
    /// Where it is told that the bridge has stopped a subscription.
    pub stopped: mpsc::Sender<Stopped>,
    /// Where it is told that a replay has come to its end.
    pub finished: mpsc::Sender<Uuid>,
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

/// What a receiver that fetches is given; each event in the form that its channel has.
pub struct Fetched<T = Bytes> {
    /// Which run of numbers.
    pub epoch: u32,
    /// Everything up to this number is taken.
    pub acknowledged: u64,
    /// Deliveries in ascending order of their numbers.
    pub events: Vec<(u64, T)>,
    /// Those of them that are disclosures, which have to be recorded before anybody is given them.
    pub owed: Vec<Owed>,
    /// Whether some were left out that could not be recorded now, or are decided anew.
    pub put_off: bool,
}

/// What a delivery shows.
pub struct Given {
    /// The delivery's id.
    pub delivery: MessageId,
    /// The record.
    pub record: Arc<Record>,
    /// How much of it.
    pub extent: Extent,
    /// In which view, of protected data.
    pub view: Option<&'static str>,
}

/// A disclosure that is not recorded yet.
pub struct Owed {
    /// The delivery's number.
    pub number: u64,
    /// Its id.
    pub delivery: MessageId,
    /// The record.
    pub record: Arc<Record>,
    /// What the decision says of it.
    pub disclosed: Box<Disclosed>,
}

/// Which of the events that were set aside: those that every part takes.
#[derive(Debug, Clone)]
pub struct Letters {
    /// Only this one.
    pub one: Option<(Place, i64)>,
    /// Only of this lane.
    pub lane: Option<LaneKey>,
    /// Only those set aside within these moments, milliseconds since 1970.
    pub at_ms: Range<u64>,
    /// Only count them.
    pub preview: bool,
}

impl Letters {
    fn take(&self, letter: &DeadLetter, at_ms: u64) -> bool {
        self.one.is_none_or(|one| one == (letter.place, letter.offset))
            && self.lane.is_none_or(|lane| lane == letter.lane)
            && self.at_ms.contains(&at_ms)
    }
}

/// How a subscription is to run.
pub struct Running {
    /// What its owner asks for.
    pub subscription: Subscription,
    /// Where deliveries go, if they are posted.
    pub target: Option<TargetOptions>,
    /// Whether attempts may be made.
    pub mode: Mode,
    /// Whether whoever it is for is stopped.
    pub hold: Arc<Hold>,
    /// Set if it is a replay of another one.
    pub replay: Option<ReplayOf>,
}

/// What makes a replay.
pub struct ReplayOf {
    /// Whose events it brings once more.
    pub subscription: Uuid,
    /// Where it ends in each partition.
    pub until: BTreeMap<Place, i64>,
}

/// How far a replay is.
pub struct ReplayProgress {
    /// Where it is in each partition.
    pub positions: BTreeMap<Place, i64>,
    /// What became of its events.
    pub tally: Tally,
}

enum Command {
    Add(Box<Running>, Box<Stored>, oneshot::Sender<()>),
    Change(Box<Running>, oneshot::Sender<()>),
    Remove(Uuid, oneshot::Sender<()>),
    Status(Uuid, oneshot::Sender<Option<Value>>),
    Attempts(Uuid, oneshot::Sender<Vec<LoggedAttempt>>),
    DeadLetters(Uuid, oneshot::Sender<Vec<(DeadLetter, u64)>>),
    Discard(Uuid, Letters, oneshot::Sender<usize>),
    Redrive(Uuid, Letters, oneshot::Sender<usize>),
    Rewind(Uuid, Vec<(Place, i64)>, oneshot::Sender<bool>),
    Progress(Uuid, oneshot::Sender<Option<ReplayProgress>>),
    Live(oneshot::Sender<BTreeMap<Place, i64>>),
    Positions(Uuid, oneshot::Sender<Option<BTreeMap<Place, i64>>>),
    Epoch(Uuid, oneshot::Sender<Option<u32>>),
    Fetch(Uuid, Option<u64>, usize, oneshot::Sender<Option<Fetched>>),
    FetchRecords(Uuid, usize, oneshot::Sender<Option<Fetched<Option<Given>>>>),
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

    /// Forgets events that were set aside alone. How many there were.
    pub async fn discard(&self, id: Uuid, letters: Letters) -> usize {
        self.ask(|answer| Command::Discard(id, letters, answer)).await.unwrap_or_default()
    }

    /// Takes up parked keys again. How many there were.
    pub async fn redrive(&self, id: Uuid, letters: Letters) -> usize {
        self.ask(|answer| Command::Redrive(id, letters, answer)).await.unwrap_or_default()
    }

    /// Goes back to these offsets, when what is under way has ended; on disk when it returns. False
    /// if it is in none of them further than that, nothing if it does not run.
    pub async fn rewind(&self, id: Uuid, targets: Vec<(Place, i64)>) -> Option<bool> {
        self.ask(|answer| Command::Rewind(id, targets, answer)).await
    }

    /// Where the tail is in each partition.
    pub async fn live(&self) -> Option<BTreeMap<Place, i64>> {
        self.ask(Command::Live).await
    }

    /// How far a replay is; nothing if it does not run.
    pub async fn progress(&self, id: Uuid) -> Option<ReplayProgress> {
        self.ask(|answer| Command::Progress(id, answer)).await?
    }

    /// Where it is in each partition.
    pub async fn positions(&self, id: Uuid) -> Option<BTreeMap<Place, i64>> {
        self.ask(|answer| Command::Positions(id, answer)).await?
    }

    /// Which run of numbers it is in.
    pub async fn epoch(&self, id: Uuid) -> Option<u32> {
        self.ask(|answer| Command::Epoch(id, answer)).await?
    }

    /// What a receiver that fetches has not taken, after a number.
    pub async fn fetch(&self, id: Uuid, after: Option<u64>, limit: usize) -> Option<Fetched> {
        self.ask(|answer| Command::Fetch(id, after, limit, answer)).await?
    }

    /// What follows the last number that was taken, as records; nothing in the place of a void notice.
    pub async fn fetch_records(&self, id: Uuid, limit: usize) -> Option<Fetched<Option<Given>>> {
        self.ask(|answer| Command::FetchRecords(id, limit, answer)).await?
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

/// What must not leave, as the hub asks for it.
struct HubGuard {
    removals: Arc<Removals>,
    decisions: Arc<Decisions>,
}

impl Guard for HubGuard {
    fn withholds(&self, leaving: Leaving<'_>) -> bool {
        self.removals.withholds(leaving)
    }

    fn denies(&self, caller: Caller, record: &Record) -> bool {
        self.decisions.denies(caller, record)
    }
}
