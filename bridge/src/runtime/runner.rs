//! The task that owns the hub: hears what has happened, and does what the hub says.
//!
//! It decides nothing. Everything that waits for it is bounded: the tail, the readers, the
//! commands, and the attempts by the gate.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::endpoint::Limits as EndpointLimits;
use ryggrad_bridge_core::hub::gate::GateLimits;
use ryggrad_bridge_core::hub::{Action, Commit, Hub, HubLimits, Input, MemberId};
use ryggrad_bridge_core::machine::DeadLetter;
use ryggrad_bridge_core::outcome::{Answer, Outcome};
use ryggrad_bridge_core::record::Record;
use ryggrad_bridge_core::settings::Format;
use ryggrad_store::{Change, CommitError, Entry, Stored, SubscriptionId};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use uuid::Uuid;

use super::attempt::{Ended, Job, Sent};
use super::commits::{changes, newcomer, wish};
use super::couriers::{CourierId, Couriers};
use super::readers::{Readers, Said};
use super::status::{self, LoggedAttempt};
use super::tail::{Troubles, tail};
use super::{Command, Context, HubGuard, Running, Stopped};
use crate::access::Hold;
use crate::channel::webhook::{Target, TargetOptions};
use crate::telemetry::OutcomeLabel;
use crate::watch_lists::HubWatch;

/// Hand-overs of the tail that may wait.
const TAIL_WAITING_MAX: usize = 4;
/// Ends of attempts that are taken in together.
const ENDED_TOGETHER: usize = 64;
/// How long a settled delivery may stay unstored while nothing waits for its place.
const UNSTORED_MS_MAX: u64 = 50;
/// How often gauges are brought up to date.
const GAUGES_EVERY: Duration = Duration::from_secs(1);

/// What the task keeps of a subscription beside the hub.
struct Client {
    id: Uuid,
    /// The subscription whose replay it is.
    replay_of: Option<Uuid>,
    format: Format,
    target: Option<Arc<Target>>,
    /// Whether whoever it is for is stopped.
    hold: Arc<Hold>,
    log: VecDeque<LoggedAttempt>,
    /// How far each cursor is on disk, and whether it goes with the tail there. Only what is on
    /// disk is shown, so that nobody sees a cursor go back after a crash.
    stored: BTreeMap<Place, (i64, bool)>,
    dead_letters: Vec<(DeadLetter, u64)>,
    /// Who waits until it has gone back.
    rewinding: Vec<oneshot::Sender<bool>>,
    available: watch::Sender<u64>,
    /// Of the member's counts, what the metrics know already.
    counted: (u64, u64, u64),
}

mod going_back;
mod holding;
mod views;

use views::structured_event;

type Records = Vec<Arc<Record>>;
type Committed = Result<(), CommitError>;

/// What is shown of a commit when it is on disk: not its pending sets, which are most of it.
#[derive(Default)]
struct Shown {
    /// When it was taken, milliseconds since 1970.
    at_ms: u64,
    live: Vec<(Place, i64)>,
    members: Vec<ShownMember>,
}

struct ShownMember {
    member: MemberId,
    /// As in [`Client::stored`].
    cursors: Vec<(Place, (i64, bool))>,
    dead_letters: Vec<DeadLetter>,
}

impl Shown {
    fn of(commit: &Commit, at_ms: u64) -> Self {
        let members = commit.members.iter().map(|(member, stored)| {
            let cursors = stored.cursors.iter().map(|(place, cursor)| (*place, (cursor.scanned_to, cursor.attached)));
            ShownMember { member: *member, cursors: cursors.collect(), dead_letters: stored.dead_letters.clone() }
        });
        Self { at_ms, live: commit.live.clone(), members: members.collect() }
    }
}

/// The task.
pub(super) struct Runner {
    context: Arc<Context>,
    hub: Hub,
    clients: HashMap<MemberId, Client>,
    members: HashMap<Uuid, MemberId>,
    ids: BTreeMap<MemberId, SubscriptionId>,
    actions: Vec<Action>,
    readers: Readers,
    said: mpsc::Receiver<Said>,
    tailed: (mpsc::Sender<Records>, mpsc::Receiver<Records>),
    tails: JoinSet<()>,
    troubles: watch::Sender<Troubles>,
    /// The counter of attempts that delivered, which is looked up once.
    delivered: Counter,
    couriers: Couriers,
    ended: mpsc::Receiver<(CourierId, Ended)>,
    commit: Option<JoinHandle<Committed>>,
    /// What the commit under way will have stored.
    committing: Shown,
    /// Who waits until what they said is on disk: for the next commit, and for the one under way.
    waiting: Vec<oneshot::Sender<bool>>,
    answering: Vec<oneshot::Sender<bool>>,
    live_stored: BTreeMap<Place, i64>,
    /// What belongs into the next commit beside the hub's changes.
    extra: Vec<Change>,
    /// The hub's clock: wall time at start plus monotonic time since.
    started: (u64, Instant),
    gauges_at: Instant,
}

impl Runner {
    pub(super) fn new(context: Arc<Context>, tail_from: BTreeMap<Place, i64>) -> Self {
        let config = &context.config;
        let endpoint = EndpointLimits {
            in_flight_max: config.endpoint_in_flight_max,
            failures_to_open: config.breaker_failures,
            open_first_ms: config.breaker_first_ms,
            open_max_ms: config.breaker_max_ms,
        };
        let limits = HubLimits {
            ring_bytes_max: config.ring_bytes_max,
            readers_max: config.catch_up_readers_max,
            reader_records_max: config.catch_up_records_max,
            gate: GateLimits {
                in_flight_total_max: config.in_flight_total_max,
                in_flight_suspect_max: (config.in_flight_total_max / 4).max(1),
                endpoint,
            },
            live_unstored_ms_max: 1_000,
            unstored_ms_max: UNSTORED_MS_MAX,
        };
        let guard = HubGuard { removals: Arc::clone(&context.removals), decisions: Arc::clone(&context.decisions) };
        let hub = Hub::new(limits, Box::new(guard), tail_from.iter().map(|(place, at)| (*place, *at)))
            .watching(Box::new(HubWatch(Arc::clone(&context.watched))));
        let (say, said) = mpsc::channel(config.catch_up_readers_max.max(1));
        let (records, tailed) = mpsc::channel(TAIL_WAITING_MAX);
        let delivered = OutcomeLabel { outcome: status::word(Outcome::Delivered) };
        let delivered = context.telemetry.attempts.get_or_create(&delivered).clone();
        let (come_back, ended) = mpsc::channel(config.in_flight_total_max.max(1));
        let wall_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
        Self {
            hub,
            clients: HashMap::new(),
            members: HashMap::new(),
            ids: BTreeMap::new(),
            actions: Vec::new(),
            readers: Readers::new(context.connection.clone(), context.catalogue, say),
            said,
            tailed: (records, tailed),
            tails: JoinSet::new(),
            troubles: watch::Sender::new(Troubles::new()),
            delivered,
            couriers: Couriers::new(Arc::clone(&context), come_back),
            ended,
            commit: None,
            committing: Shown::default(),
            waiting: Vec::new(),
            answering: Vec::new(),
            live_stored: tail_from,
            extra: Vec::new(),
            started: (wall_ms, Instant::now()),
            gauges_at: Instant::now(),
            context,
        }
    }

    /// Works until it is drained, or nobody holds the handle any more.
    pub(super) async fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        let (mut removals, mut holds) = (self.context.removals.subscribe(), self.context.holds.subscribe());
        let mut ended = Vec::new();
        loop {
            self.perform();
            self.start_commit(false);
            let wake_at = self.wake_at();
            // Ends of attempts come in flocks: what is ready to run runs first, and they are taken in together.
            tokio::task::yield_now().await;
            tokio::select! {
                command = inbox.recv() => match command {
                    Some(Command::Drain(done)) => {
                        self.finish().await;
                        let _ = done.send(());
                        return;
                    }
                    Some(command) => self.obey(command),
                    None => return,
                },
                _ = self.ended.recv_many(&mut ended, ENDED_TOGETHER) => ended.drain(..).for_each(|ended| self.attempt_ended(ended)),
                outcome = finished(&mut self.commit) => self.committed(outcome),
                Some(records) = self.tailed.1.recv() => {
                    self.context.telemetry.scanned.inc_by(records.len() as u64);
                    self.step(Input::Tail(records));
                }
                Some(said) = self.said.recv() => self.hear(said),
                Ok(()) = holds.changed() => self.weigh_holds(),
                Ok(()) = removals.changed() => self.step(Input::GuardChanged),
                () = tokio::time::sleep_until(wake_at) => self.step(Input::Tick),
            }
            if self.gauges_at.elapsed() >= GAUGES_EVERY {
                self.gauges();
            }
        }
    }

    fn now_ms(&self) -> u64 {
        self.started.0 + u64::try_from(self.started.1.elapsed().as_millis()).unwrap_or_default()
    }

    fn wake_at(&self) -> Instant {
        let due = self.hub.wake_at_ms().map(|due_ms| self.started.1 + Duration::from_millis(due_ms.saturating_sub(self.started.0)));
        // The tail's position and the gauges are looked after every second.
        let soon = Instant::now() + GAUGES_EVERY;
        due.map_or(soon, |due| due.min(soon))
    }

    fn step(&mut self, input: Input) {
        self.hub.step(self.now_ms(), input, &mut self.actions);
    }

    fn hear(&mut self, said: Said) {
        match said {
            Said::Chunk(reader, records, at_end) => {
                self.context.telemetry.scanned.inc_by(records.len() as u64);
                self.step(Input::Chunk { reader, records, at_end });
            }
            Said::Lost(reader) => {
                self.readers.ended(reader);
                self.step(Input::ReaderLost(reader));
            }
        }
    }

    fn perform(&mut self) {
        let mut actions = std::mem::take(&mut self.actions);
        for action in actions.drain(..) {
            match action {
                Action::Reader(action) => self.readers.obey(action),
                Action::Attempt { member, address, attempt, parcels } => {
                    let (Some(client), Some(epoch)) =
                        (self.clients.get(&member), self.hub.member(member).map(|member| member.machine().numbering().epoch))
                    else {
                        continue;
                    };
                    let (subscription, format, target) = (client.id, client.format, client.target.clone());
                    let hold = Arc::clone(&client.hold);
                    let is_replay = client.replay_of.is_some();
                    self.couriers.send(Job { member, subscription, is_replay, address, attempt, epoch, format, hold, target, parcels });
                }
                Action::Available(member) => {
                    if let Some(client) = self.clients.get(&member) {
                        client.available.send_modify(|changes| *changes += 1);
                    }
                }
                Action::Finished(member) => {
                    let Some(client) = self.clients.get(&member) else { continue };
                    let (finished, id) = (self.context.finished.clone(), client.id);
                    tokio::spawn(async move { finished.send(id).await });
                }
                Action::Rewound { member, place, to } => self.rewound(member, place, to),
                Action::Disable { member, reason, address } => {
                    let Some(client) = self.clients.get(&member) else { continue };
                    let subscription = client.replay_of.unwrap_or(client.id);
                    let told = Stopped { subscription, reason, sink: address.map(|address| address.to_string()) };
                    let stopped = self.context.stopped.clone();
                    // Not awaited here: the service that is told may be asking this task.
                    tokio::spawn(async move { stopped.send(told).await });
                }
            }
        }
        self.actions = actions;
    }

    fn attempt_ended(&mut self, (courier, ended): (CourierId, Ended)) {
        self.couriers.is_back(courier);
        let Ended { member, address, attempt, parcels, mut outcome, sent } = ended;
        // What a gateway answers is said for an endpoint that is not there.
        let says = |sent: &Sent| matches!(sent.went.answer, Answer::Status { code, .. } if !matches!(code, 502..=504));
        let answered = sent.as_ref().is_some_and(says);
        if let Some(client) = self.clients.get_mut(&member)
            && let Some(Sent { webhook_id, went, is_told }) = sent
        {
            if outcome != Outcome::Delivered
                && self.hub.member(member).is_none_or(|member| member.wish().address.as_ref() != Some(&address))
            {
                // What the old address asks for (a pause, no more calls) does not bind the new one.
                outcome = Outcome::Failed;
            }
            let telemetry = &self.context.telemetry;
            match outcome {
                Outcome::Delivered => self.delivered.inc(),
                _ => telemetry.attempts.get_or_create(&OutcomeLabel { outcome: status::word(outcome) }).inc(),
            };
            telemetry.attempt_seconds.observe(went.latency_ms as f64 / 1_000.0);
            let at = status::moment_after(client.log.back());
            let records = || parcels.iter().filter_map(|parcel| parcel.record.as_deref());
            // Lag counts from the oldest of them.
            match records().map(|record| record.log.timestamp_ms).min().filter(|_| outcome == Outcome::Delivered) {
                Some(appended_ms) => telemetry.delivery_lag_seconds.observe((at.as_millisecond() - appended_ms) as f64 / 1_000.0),
                None => {
                    tracing::debug!(subscription = %client.id, delivery = %webhook_id, outcome = status::word(outcome), "an attempt failed")
                }
            }
            if client.log.len() >= self.context.config.attempts_logged_max {
                client.log.pop_front();
            }
            let named = records().filter(|_| is_told);
            let event_ids = named.map(|record| Arc::clone(record.shared_event_id())).collect();
            let attempts = parcels.first().map_or(1, |parcel| parcel.delivery.attempts);
            client.log.push_back(LoggedAttempt { at, webhook_id, event_ids, attempts, outcome, attempt: went });
        }
        self.step(Input::Attempted { member, address, attempt, outcome, answered, entropy: rand::random() });
    }

    fn start_commit(&mut self, at_once: bool) {
        if self.commit.is_some() {
            return;
        }
        let now_ms = self.now_ms();
        let commit = self.hub.take_commit(now_ms, at_once || !self.waiting.is_empty() || !self.extra.is_empty());
        let waiting = std::mem::take(&mut self.waiting);
        if commit.is_none() && self.extra.is_empty() {
            tell(waiting);
            return;
        }
        self.answering = waiting;
        let commit = commit.unwrap_or_default();
        self.committing = Shown::of(&commit, now_ms);
        // First of all how a newcomer began: what the hub has made of it since is later.
        let mut all = std::mem::take(&mut self.extra);
        all.extend(changes(commit, &self.ids, now_ms));
        let context = Arc::clone(&self.context);
        self.commit = Some(tokio::spawn(async move {
            let started = Instant::now();
            let outcome = context.writer.commit(all).await;
            context.telemetry.commit_seconds.observe(started.elapsed().as_secs_f64());
            outcome
        }));
    }

    fn committed(&mut self, outcome: Result<Committed, tokio::task::JoinError>) {
        self.commit = None;
        let Ok(Ok(())) = outcome else {
            tracing::error!(?outcome, "the cursor store cannot be written; the bridge stops");
            self.context.fatal.cancel();
            return;
        };
        let shown = std::mem::take(&mut self.committing);
        self.live_stored.extend(shown.live);
        let changed = shown.members.iter().filter_map(|shown| self.ids.get(&shown.member).copied());
        self.context.noted.committed(changed, &self.live_stored);
        for ShownMember { member, cursors, dead_letters } in shown.members {
            let Some(client) = self.clients.get_mut(&member) else { continue };
            client.stored.extend(cursors);
            client.dead_letters.extend(dead_letters.into_iter().map(|letter| (letter, shown.at_ms)));
        }
        tell(std::mem::take(&mut self.answering));
        self.step(Input::Persisted);
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add(running, stored, done) => {
                self.add(*running, *stored);
                self.perform();
                let _ = done.send(());
            }
            Command::Change(running, done) => {
                self.change(*running);
                self.perform();
                let _ = done.send(());
            }
            Command::Remove(id, done) => {
                self.remove(id);
                let _ = done.send(());
            }
            Command::Status(id, answer) => drop(answer.send(self.status(id))),
            Command::Attempts(id, answer) => {
                let found = self.client(id).map(|client| client.log.iter().rev().cloned().collect());
                let _ = answer.send(found.unwrap_or_default());
            }
            Command::DeadLetters(id, answer) => {
                let _ = answer.send(self.client(id).map(|client| client.dead_letters.clone()).unwrap_or_default());
            }
            Command::Discard(id, letters, answer) => drop(answer.send(self.discard(id, &letters))),
            Command::Redrive(id, letters, answer) => drop(answer.send(self.redrive(id, &letters))),
            Command::Rewind(id, targets, answer) => self.rewind(id, &targets, answer),
            Command::Progress(id, answer) => drop(answer.send(self.progress(id))),
            Command::Live(answer) => drop(answer.send(self.hub.rings().ends().collect())),
            Command::Positions(id, answer) => drop(answer.send(self.positions(id))),
            Command::Epoch(id, answer) => {
                let epoch =
                    self.members.get(&id).and_then(|member| self.hub.member(*member)).map(|member| member.machine().numbering().epoch);
                let _ = answer.send(epoch);
            }
            Command::Fetch(id, after, limit, answer) => drop(answer.send(self.fetch(id, after, limit, structured_event))),
            Command::FetchRecords(id, limit, answer) => drop(answer.send(self.fetch(id, None, limit, |given, _| given))),
            Command::Acknowledge(id, number, answer) => match self.members.get(&id).copied() {
                Some(member) => {
                    self.step(Input::Acknowledged { member, number });
                    self.waiting.push(answer);
                }
                None => drop(answer.send(false)),
            },
            Command::Available(id, answer) => drop(answer.send(self.client(id).map(|client| client.available.subscribe()))),
            Command::Go(done) => {
                self.go();
                let _ = done.send(());
            }
            // Ends the loop, which has answered it.
            Command::Drain(_) => {}
        }
    }

    fn go(&mut self) {
        for topic in &self.context.catalogue.topics {
            let own = self.live_stored.iter().filter(|(place, _)| place.topic == topic.id);
            let at: BTreeMap<i32, i64> = own.map(|(place, at)| (place.partition, *at)).collect();
            if !at.is_empty() {
                self.tails.spawn(tail(self.context.connection.clone(), topic, at, self.tailed.0.clone(), self.troubles.clone()));
            }
        }
    }

    fn client(&self, id: Uuid) -> Option<&Client> {
        self.clients.get(self.members.get(&id)?)
    }

    fn add(&mut self, running: Running, stored: Stored) {
        let Running { subscription, target, mode, hold, replay } = running;
        let now_ms = self.now_ms();
        let wish = wish(&subscription, mode, &self.context.config);
        let replay_of = replay.as_ref().map(|replay| replay.subscription);
        let replay = replay.map(|replay| (replay.until, self.members.get(&replay.subscription).copied()));
        let newcomer = newcomer(&subscription, &stored, wish, hold.is_set(), replay, self.context.catalogue, now_ms);
        let id = subscription.id;
        if stored.numbering != Some(newcomer.numbering) {
            // On disk before anybody can be told of it.
            let (subscription, numbering) = (id.into_bytes(), newcomer.numbering);
            self.extra.push(Change::Put(Entry::Numbering { subscription, numbering }));
            let cursors = newcomer.cursors.iter().cloned();
            self.extra.extend(cursors.map(|(place, cursor)| Change::Put(Entry::Cursor { subscription, place, cursor })));
        }
        let client = Client {
            id,
            replay_of,
            format: subscription.delivery.format,
            target: target.and_then(|options| self.target(id, options)),
            hold,
            log: VecDeque::new(),
            stored: newcomer.cursors.iter().map(|(place, cursor)| (*place, (cursor.scanned_to, cursor.attached))).collect(),
            dead_letters: stored.dead_letters,
            rewinding: Vec::new(),
            available: watch::Sender::new(0),
            counted: (0, 0, 0),
        };
        let member = self.hub.add(now_ms, newcomer, &mut self.actions);
        self.members.insert(id, member);
        self.ids.insert(member, id.into_bytes());
        self.clients.insert(member, client);
        let telemetry = &self.context.telemetry;
        if replay_of.is_some() { &telemetry.replays } else { &telemetry.subscriptions }.inc();
    }

    fn change(&mut self, running: Running) {
        let Running { subscription, target, mode, .. } = running;
        let Some(member) = self.members.get(&subscription.id).copied() else { return };
        let target = target.and_then(|options| self.target(subscription.id, options));
        if let Some(client) = self.clients.get_mut(&member) {
            (client.target, client.format) = (target, subscription.delivery.format);
        }
        self.hub.change(self.now_ms(), member, wish(&subscription, mode, &self.context.config), &mut self.actions);
    }

    /// `None` if the present rules do not open the endpoint; a subscription then waits as for one
    /// that does not answer.
    fn target(&self, id: Uuid, options: TargetOptions) -> Option<Arc<Target>> {
        let target = self.context.webhook.target(options);
        target
            .map(Arc::new)
            .map_err(|refusal| tracing::error!(subscription = %id, %refusal, "the endpoint is refused under the present egress rules"))
            .ok()
    }

    fn remove(&mut self, id: Uuid) {
        let Some(member) = self.members.remove(&id) else { return };
        self.hub.remove(member);
        self.ids.remove(&member);
        let telemetry = &self.context.telemetry;
        if let Some(client) = self.clients.remove(&member) {
            if client.replay_of.is_some() { &telemetry.replays } else { &telemetry.subscriptions }.dec();
        }
        self.context.noted.forgotten(id.into_bytes());
    }

    fn gauges(&mut self) {
        self.gauges_at = Instant::now();
        let telemetry = &self.context.telemetry;
        let mut pending = 0;
        for (id, client) in &mut self.clients {
            let Some(member) = self.hub.member(*id) else { continue };
            let machine = member.machine();
            pending += machine.pending();
            let counts = (machine.compacted(), machine.withheld(), member.filter_errors());
            telemetry.compacted.inc_by(counts.0 - client.counted.0);
            telemetry.withheld.inc_by(counts.1 - client.counted.1);
            telemetry.filter_errors.inc_by(counts.2 - client.counted.2);
            client.counted = counts;
        }
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        telemetry.pending.set(number(pending));
        telemetry.in_flight.set(number(self.hub.gate().in_flight()));
        telemetry.ring_bytes.set(number(self.hub.rings().bytes()));
        telemetry.catch_up_readers.set(number(self.hub.slots().readers()));
        telemetry.catch_up_queued.set(number(self.hub.slots().queued()));
        self.count_held();
        let (endpoints, open) = self.hub.gate().endpoints();
        telemetry.endpoints.set(number(endpoints));
        telemetry.endpoints_open.set(number(open));
    }

    /// Lets attempts under way end, within the limit, and stores how far it came.
    async fn finish(mut self) {
        self.hub.close();
        self.tails.abort_all();
        self.waiting.clear();
        let deadline = Instant::now() + Duration::from_millis(self.context.config.drain_timeout_ms);
        while self.hub.gate().in_flight() > 0 {
            let Ok(Some(ended)) = tokio::time::timeout_at(deadline, self.ended.recv()).await else { break };
            self.attempt_ended(ended);
            self.perform();
        }
        if let Some(commit) = self.commit.take() {
            let outcome = commit.await;
            self.committed(outcome);
        }
        self.start_commit(true);
        if let Some(commit) = self.commit.take() {
            // A failure here costs repeated deliveries, no more.
            let _ = commit.await;
        }
    }
}

/// What they said is on disk.
fn tell(waiting: Vec<oneshot::Sender<bool>>) {
    for answer in waiting {
        // Whoever gave up knows less, and loses nothing.
        let _ = answer.send(true);
    }
}

/// The end of a task, if there is one; else never.
async fn finished<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, tokio::task::JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
