//! The task of one subscription: takes what is on its shelf, writes it to its topic, says that it was taken; and withdraws
//! what its receiver has not read and may not have any more.
//!
//! One step after the other, so that nothing is under way to a topic that is being read back. A fault begins anew, with
//! reading back, which decides what stands. Must never write while something is withdrawn.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ryggrad_bridge_core::access::kafka_access;
use ryggrad_bridge_core::outlet::{self, Position};
use ryggrad_bridge_core::subscription::{State, Subscription};
use ryggrad_schemas::EncodedRecord;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::review::{Look, look};
use super::{Desk, Shown, Trouble};
use crate::access::{Hold, Turn};
use crate::hexadecimal;
use crate::subscriptions::{Fetched, Given, Subscriptions};

/// What its owner is told while it cannot go on.
const TROUBLE: &str = "Kafka does not take what is to be written to the topic; nothing is lost, and it is tried again";
/// What records of disclosures call it.
const CHANNEL: &str = "kafka";
/// Events that are taken at a time, and bytes of them that go into one transaction.
const PORTION_EVENTS: usize = 500;
const PORTION_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long it waits after a fault, at first and at most.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// How long it waits for what is put off.
const PUT_OFF: Duration = Duration::from_millis(500);
/// Between two looks at what nobody has read: many facts may change one after the other.
const LOOKS_APART: Duration = Duration::from_millis(150);
/// When rights are set again that could not be, and how long a withdrawal waits for them.
const RIGHTS_AGAIN: Duration = Duration::from_secs(5);
const RIGHTS_FIRST: Duration = Duration::from_millis(300);

/// One outlet.
pub(super) struct Outlet {
    desk: Arc<Desk>,
    subscriptions: Arc<Subscriptions>,
    named: kafka_access::Outlet,
    topic: String,
    partitions: i32,
    wishes: watch::Receiver<Subscription>,
    shown: Arc<Mutex<Shown>>,
    hold: Arc<Hold>,
    turns: broadcast::Receiver<Turn>,
    holds: watch::Receiver<u64>,
    removals: watch::Receiver<u64>,
    /// The highest number that was written, with its run.
    newest: Option<(u32, u64)>,
    /// Of an earlier run of numbers: what was written last.
    deliveries: HashSet<String>,
    /// Whether it was held at the last look.
    was_held: bool,
    /// When to look, if something may have changed.
    look_at: Option<Instant>,
    looked_at: Instant,
    rights_at: Option<Instant>,
    failures: u32,
}

impl Outlet {
    pub(super) fn new(
        desk: Arc<Desk>,
        subscriptions: Arc<Subscriptions>,
        named: kafka_access::Outlet,
        wishes: watch::Receiver<Subscription>,
        shown: Arc<Mutex<Shown>>,
    ) -> Self {
        let hold = subscriptions.hold(&wishes.borrow());
        let (turns, holds, removals) = (desk.access.turns(), desk.context.holds.subscribe(), desk.context.removals.subscribe());
        Self {
            topic: named.topic(),
            partitions: 1,
            newest: None,
            deliveries: HashSet::new(),
            was_held: false,
            look_at: None,
            looked_at: Instant::now(),
            rights_at: None,
            failures: 0,
            desk,
            subscriptions,
            named,
            wishes,
            shown,
            hold,
            turns,
            holds,
            removals,
        }
    }

    /// Goes on until it is told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let trouble = match self.begin(&stop).await {
                Ok(()) => self.go_on(&stop).await,
                Err(trouble) => Err(trouble),
            };
            let Err(trouble) = trouble else { return };
            if stop.is_cancelled() {
                return;
            }
            tracing::warn!(subscription = %self.named.subscription, %trouble, "writing to a receiver's topic begins anew");
            // What others write, too, is in the log alone.
            self.show(|shown| shown.trouble = Some(TROUBLE));
            self.failures += 1;
            let wait = AGAIN_FIRST.saturating_mul(1 << self.failures.min(8)).min(AGAIN_MAX);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// What stands in the topic, and whether it may.
    async fn begin(&mut self, stop: &CancellationToken) -> Result<(), Trouble> {
        self.partitions = self.desk.make(&self.topic).await?;
        tokio::select! {
            ready = self.desk.writer.ready() => ready?,
            () = stop.cancelled() => return Ok(()),
        }
        self.rights_at = Some(Instant::now());
        let epoch = self.subscriptions.epoch(self.named.subscription).await.ok_or(Trouble::NotRunning)?;
        self.look_again(Some(epoch)).await
    }

    async fn go_on(&mut self, stop: &CancellationToken) -> Result<(), Trouble> {
        let id = self.named.subscription;
        let mut news = self.subscriptions.available(id).await.ok_or(Trouble::NotRunning)?;
        while !stop.is_cancelled() {
            self.notice();
            if self.look_at.is_some_and(|at| at <= Instant::now()) {
                self.look_again(None).await?;
                continue;
            }
            if self.rights_at.is_some_and(|at| at <= Instant::now()) {
                self.set_rights().await;
                continue;
            }
            let (may_write, mut put_off) = (self.may_write(), false);
            if may_write {
                // Before the look: what comes during it is news.
                news.borrow_and_update();
                let fetched = self.subscriptions.fetch_records(id, CHANNEL, PORTION_EVENTS).await.ok_or(Trouble::NotRunning)?;
                if !fetched.events.is_empty() {
                    self.write(fetched).await?;
                    continue;
                }
                put_off = fetched.put_off;
            }
            let due = [self.look_at, self.rights_at, put_off.then(|| Instant::now() + PUT_OFF)].into_iter().flatten().min();
            tokio::select! {
                changed = news.changed(), if may_write => changed.map_err(|_| Trouble::NotRunning)?,
                turn = self.turns.recv() => self.turned(turn.ok()),
                Ok(()) = self.holds.changed() => {}
                Ok(()) = self.removals.changed() => self.look_soon(),
                Ok(()) = self.wishes.changed() => {}
                () = async { tokio::time::sleep_until(due.unwrap_or_else(Instant::now)).await }, if due.is_some() => {}
                () = stop.cancelled() => {}
            }
        }
        Ok(())
    }

    /// Takes in what has changed meanwhile.
    fn notice(&mut self) {
        loop {
            match self.turns.try_recv() {
                Ok(turn) => self.turned(Some(turn)),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.turned(None),
                Err(_) => break,
            }
        }
        if self.removals.has_changed().unwrap_or_default() {
            self.removals.borrow_and_update();
            self.look_soon();
        }
        if self.hold.is_set() != self.was_held {
            self.was_held = self.hold.is_set();
            (self.look_at, self.rights_at) = (Some(Instant::now()), Some(Instant::now()));
        }
    }

    /// Somebody's events may be decided otherwise, or anyone's where it is not known whose.
    fn turned(&mut self, turn: Option<Turn>) {
        if let Some(Turn::Of(one)) = turn
            && self.named.parties().all(|party| party != one)
        {
            return;
        }
        self.rights_at = Some(Instant::now());
        self.look_soon();
    }

    fn look_soon(&mut self) {
        self.look_at.get_or_insert((self.looked_at + LOOKS_APART).max(Instant::now()));
    }

    fn may_write(&self) -> bool {
        self.wishes.borrow().state == State::Active && !self.hold.is_set()
    }

    async fn set_rights(&mut self) {
        let set = self.desk.rights.set(&self.desk.access, &self.named).await;
        self.rights_at = set.is_err().then(|| Instant::now() + RIGHTS_AGAIN);
        if let Err(error) = set {
            tracing::warn!(subscription = %self.named.subscription, error = error.chain(), "who may read a receiver's topic was not set; it is tried again");
        }
    }

    /// Looks at what nobody has read, and withdraws it if it may not be read.
    async fn look_again(&mut self, first_in: Option<u32>) -> Result<(), Trouble> {
        let began = Instant::now();
        (self.looked_at, self.look_at) = (began, None);
        self.was_held = self.hold.is_set();
        if self.rights_at.is_some() {
            // Before all else, if that is quick: from then on nobody reads.
            let _ = tokio::time::timeout(RIGHTS_FIRST, self.set_rights()).await;
        }
        let subscription = self.wishes.borrow().clone();
        let look = look(
            &self.desk,
            Look {
                subscription: subscription.id,
                caller: subscription.caller(),
                topic: &self.topic,
                partitions: self.partitions,
                groups: self.named.groups(),
                first_in,
                is_held: self.was_held,
            },
        );
        let seen = look.await?;
        if first_in.is_some() {
            tracing::debug!(subscription = %subscription.id, took_ms = began.elapsed().as_millis() as u64, "a receiver's topic was read back");
            (self.newest, self.deliveries) = (seen.newest, seen.deliveries);
            self.show(|shown| (shown.written, shown.trouble) = (seen.newest.map(|(_, number)| number), None));
        }
        if !(seen.is_denied || self.was_held && seen.holds_any) {
            return Ok(());
        }
        // First back, then gone: in between a crash repeats, and loses nothing.
        if !seen.back_to.is_empty() {
            self.subscriptions.go_back(&subscription, &seen.back_to).await.map_err(|error| Trouble::Log(error.to_string()))?;
        }
        self.desk.topics.empty(&self.topic, self.partitions).await?;
        self.deliveries.clear();
        let telemetry = &self.desk.context.telemetry;
        telemetry.outlet_withdrawals.inc();
        telemetry.outlet_withdrawal_seconds.observe(began.elapsed().as_secs_f64());
        tracing::info!(subscription = %self.named.subscription, took_ms = began.elapsed().as_millis() as u64, "what a receiver had not read was withdrawn");
        Ok(())
    }

    /// Writes what is not there yet, and says that all of it was taken.
    async fn write(&mut self, fetched: Fetched<Option<Given>>) -> Result<(), Trouble> {
        let subscription = self.wishes.borrow().clone();
        let (mut records, mut bytes, mut last) = (Vec::new(), 0, None);
        for (number, given) in fetched.events {
            if !self.is_written(fetched.epoch, number, given.as_ref()) {
                let record = self.record(&subscription, fetched.epoch, number, given.as_ref())?;
                bytes += record.size_bytes();
                if bytes > PORTION_BYTES_MAX && !records.is_empty() {
                    break;
                }
                records.push(record);
            }
            last = Some(number);
        }
        let Some(last) = last else { return Ok(()) };
        if !records.is_empty() {
            // Recording takes its time, and something may have been taken away meanwhile: then all is decided anew.
            self.notice();
            if self.look_at.is_some() || !self.may_write() {
                return Ok(());
            }
            self.desk.writer.write(records, self.failures > 0).await?;
            self.failures = 0;
            self.newest = Some((fetched.epoch, last));
            self.show(|shown| shown.written = Some(last));
        }
        if self.subscriptions.acknowledge(subscription.id, last).await { Ok(()) } else { Err(Trouble::NotRunning) }
    }

    /// What reading back has found is not written again. In another run of numbers than that of the topic's end, the
    /// deliveries' ids tell.
    fn is_written(&self, epoch: u32, number: u64, given: Option<&Given>) -> bool {
        match self.newest {
            Some((newest, written)) if newest == epoch => number <= written || self.knows(given),
            _ => self.knows(given),
        }
    }

    fn knows(&self, given: Option<&Given>) -> bool {
        !self.deliveries.is_empty() && given.is_some_and(|given| self.deliveries.contains(given.delivery.as_str()))
    }

    fn record(&self, subscription: &Subscription, epoch: u32, number: u64, given: Option<&Given>) -> Result<EncodedRecord, Trouble> {
        let Some(given) = given else { return Ok(outlet::encode(&self.topic, subscription, epoch, number, None)) };
        let (log, delivery) = (&given.record.log, given.delivery);
        let position = Position { place: given.record.place, offset: log.offset, appended_ms: log.timestamp_ms };
        let context = outlet::seal_context(subscription.id, delivery.as_str());
        let sealed = self.desk.seal.seal(rand::random(), &context, &position.to_bytes());
        let sealed_source = hexadecimal::encode(&sealed.map_err(|error| Trouble::Log(error.to_string()))?);
        let shown = outlet::Shown { log, delivery, extent: given.extent, view: given.view, sealed_source: &sealed_source };
        Ok(outlet::encode(&self.topic, subscription, epoch, number, Some(shown)))
    }

    fn show(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
