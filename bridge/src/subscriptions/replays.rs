//! Replays: defined in a topic of their own, run beside their subscription.
//!
//! Order: topic (acknowledged), engine, answer; at the end topic, engine, cursor store. A crash in
//! between goes on with the replay, or ends it once more. Must never outlive its subscription.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::idempotency::is_repeated;
use ryggrad_bridge_core::replay::{Bounds, Replay, ReplayRequest, ReplayState, stretches};
use ryggrad_bridge_core::rewind::{Partition, Point, Stretch};
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::Moment;
use ryggrad_store::{Change, Stored, SubscriptionId};
use tokio::sync::RwLock;
use uuid::Uuid;

use super::{ChangeError, Subscriptions};
use crate::facts::Facts;
use crate::runtime::{ReplayOf, ReplayProgress, Running};

/// Replays of one subscription that have ended and are still shown.
const ENDED_KEPT_MAX: usize = 20;

/// All replays, by id.
pub struct Replays {
    facts: Facts,
    known: RwLock<BTreeMap<Uuid, Replay>>,
}

impl Replays {
    /// Replays as loaded from their topic.
    pub fn new(facts: Facts, loaded: BTreeMap<String, Replay>) -> Self {
        Self { facts, known: RwLock::new(loaded.into_values().map(|replay| (replay.id, replay)).collect()) }
    }

    async fn put(&self, replay: Replay) -> Result<(), ryggrad_log::Error> {
        self.facts.put(replay.id.to_string(), &replay).await?;
        self.known.write().await.insert(replay.id, replay);
        Ok(())
    }

    async fn remove(&self, id: Uuid) -> Result<(), ryggrad_log::Error> {
        self.facts.remove(id.to_string()).await?;
        self.known.write().await.remove(&id);
        Ok(())
    }

    /// Those of a subscription, the newest first.
    async fn of(&self, subscription: Uuid) -> Vec<Replay> {
        let known = self.known.read().await;
        let mut own: Vec<Replay> = known.values().filter(|replay| replay.subscription == subscription).cloned().collect();
        own.sort_by_key(|replay| Reverse(replay.age()));
        own
    }
}

impl Subscriptions {
    /// What a replay would read, partition by partition.
    pub async fn plan_replay(&self, subscription: &Subscription, request: &ReplayRequest) -> Result<Vec<Stretch>, ChangeError> {
        let known = self.extents(subscription, &request.from).await?;
        let mut to = BTreeMap::new();
        if let Some(Point::Time(time)) = &request.to {
            for topic in subscription.from.keys() {
                let offsets = self.offsets_of(topic, Moment::Time(time.as_millisecond())).await?;
                to.extend((0..).zip(offsets).map(|(partition, offset)| (Partition { topic: topic.clone(), partition }, offset)));
            }
        }
        let mut stretches = stretches(request, &known, &to).map_err(ChangeError::Invalid)?;
        // Not beyond the tail: what comes there is live. And Kafka's end lies behind markers of
        // transactions, which nobody ever reads.
        let live = self.engine.live().await.ok_or(ChangeError::Stopped)?;
        for stretch in &mut stretches {
            let end = self.place(&stretch.partition).and_then(|place| live.get(&place).copied()).unwrap_or_default();
            stretch.to = stretch.to.min(end);
            stretch.from = stretch.from.min(stretch.to);
        }
        Ok(stretches)
    }

    /// What a request with this id has begun before its answer got lost.
    pub async fn replay_begun(&self, subscription: Uuid, id: Uuid) -> Option<Replay> {
        let found = self.replay(subscription, id).await;
        found.filter(|replay| is_repeated(replay.started_at.parse().ok(), jiff::Timestamp::now()))
    }

    /// Begins a replay; of this id, if its request has one.
    pub async fn begin_replay(
        &self,
        subscription: &Subscription,
        id: Option<Uuid>,
        request: ReplayRequest,
        stretches: &[Stretch],
    ) -> Result<Replay, ChangeError> {
        let _one = self.changing.lock().await;
        // It may have changed, or be gone.
        let known = self.known.read().await.get(&subscription.id).cloned();
        let subscription = known.ok_or(ChangeError::Stopped)?;
        let before = self.replays.of(subscription.id).await;
        let running = before.iter().filter(|replay| replay.state == ReplayState::Running).count();
        let running_max = self.context.config.replays_per_subscription_max;
        if running >= running_max {
            return Err(ChangeError::Limit(format!("a subscription has at most {running_max} running replays; cancel one or wait")));
        }
        let ended = before.iter().filter(|replay| replay.state != ReplayState::Running);
        for old in ended.skip(ENDED_KEPT_MAX - 1) {
            self.replays.remove(old.id).await?;
        }
        let bounds = |stretch: &Stretch| Bounds { partition: stretch.partition.clone(), from: stretch.from, to: stretch.to };
        let replay = Replay {
            // One of that id is older than any kept answer.
            id: id.filter(|id| before.iter().all(|replay| replay.id != *id)).unwrap_or_else(Uuid::now_v7),
            subscription: subscription.id,
            types: request.types,
            filters: request.filters,
            events_per_minute_max: request.events_per_minute_max,
            partitions: stretches.iter().map(bounds).collect(),
            state: ReplayState::Running,
            started_at: jiff::Timestamp::now().to_string(),
            ended_at: None,
            tally: None,
        };
        self.replays.put(replay.clone()).await?;
        self.run_replay(&subscription, &replay, Stored::default()).await;
        Ok(replay)
    }

    /// Replays of a subscription, the newest first.
    pub async fn replays(&self, subscription: Uuid) -> Vec<Replay> {
        self.replays.of(subscription).await
    }

    /// One of them.
    pub async fn replay(&self, subscription: Uuid, id: Uuid) -> Option<Replay> {
        self.replays.known.read().await.get(&id).filter(|replay| replay.subscription == subscription).cloned()
    }

    /// How far a running one is.
    pub async fn replay_progress(&self, id: Uuid) -> Option<ReplayProgress> {
        self.engine.progress(id).await
    }

    /// Ends one for good; one that has ended stays as it is.
    pub async fn cancel_replay(&self, id: Uuid) -> Result<Option<Replay>, ChangeError> {
        let _one = self.changing.lock().await;
        self.end_replay(id, ReplayState::Cancelled).await
    }

    /// The engine says that one has come to its end.
    pub async fn replay_finished(&self, id: Uuid) -> Result<(), ChangeError> {
        let _one = self.changing.lock().await;
        self.end_replay(id, ReplayState::Finished).await.map(|_| ())
    }

    async fn end_replay(&self, id: Uuid, state: ReplayState) -> Result<Option<Replay>, ChangeError> {
        let Some(mut replay) = self.replays.known.read().await.get(&id).cloned() else { return Ok(None) };
        if replay.state != ReplayState::Running {
            return Ok(Some(replay));
        }
        replay.state = state;
        replay.ended_at = Some(jiff::Timestamp::now().to_string());
        replay.tally = self.engine.progress(id).await.map(|progress| progress.tally);
        self.replays.put(replay.clone()).await?;
        self.forget_running(id).await?;
        Ok(Some(replay))
    }

    /// A subscription is gone, and its replays with it.
    pub(super) async fn forget_replays(&self, subscription: Uuid) -> Result<(), ChangeError> {
        for replay in self.replays.of(subscription).await {
            self.replays.remove(replay.id).await?;
            if replay.state == ReplayState::Running {
                self.forget_running(replay.id).await?;
            }
        }
        Ok(())
    }

    async fn forget_running(&self, id: Uuid) -> Result<(), ChangeError> {
        self.engine.remove(id).await;
        // If this is lost in a crash, the next start forgets them.
        self.context.writer.commit(vec![Change::Forget { subscription: id.into_bytes() }]).await?;
        Ok(())
    }

    /// Its subscription has changed: other filters, another endpoint, a pause.
    pub(super) async fn change_replays(&self, subscription: &Subscription) {
        for replay in self.replays.of(subscription.id).await.iter().filter(|replay| replay.state == ReplayState::Running) {
            if let Some(running) = self.running_replay(subscription, replay) {
                self.engine.change(running).await;
            }
        }
    }

    /// Goes on with all that had not ended.
    pub(super) async fn start_replays(&self, stored: &mut BTreeMap<SubscriptionId, Stored>) -> Result<(), ChangeError> {
        let known: Vec<Replay> = self.replays.known.read().await.values().cloned().collect();
        for replay in known {
            let subscription = self.known.read().await.get(&replay.subscription).cloned();
            match subscription {
                Some(subscription) if replay.state == ReplayState::Running => {
                    let own = stored.remove(replay.id.as_bytes()).unwrap_or_default();
                    self.run_replay(&subscription, &replay, own).await;
                }
                Some(_) => {}
                None => self.replays.remove(replay.id).await?,
            }
        }
        Ok(())
    }

    async fn run_replay(&self, subscription: &Subscription, replay: &Replay, stored: Stored) {
        match self.running_replay(subscription, replay) {
            Some(running) => self.engine.add(running, stored).await,
            None => tracing::error!(replay = %replay.id, "its subscription does not run, so neither does it"),
        }
    }

    fn running_replay(&self, subscription: &Subscription, replay: &Replay) -> Option<Running> {
        let running = self.running(subscription)?;
        let bounds = replay.partitions.iter().filter_map(|bounds| Some((self.place(&bounds.partition)?, bounds.to)));
        let until: BTreeMap<Place, i64> = bounds.collect();
        let of = ReplayOf { subscription: subscription.id, until };
        Some(Running { subscription: replay.runs_as(subscription), replay: Some(of), ..running })
    }
}
