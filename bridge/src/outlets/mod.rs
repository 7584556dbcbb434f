//! Events written to topics of single receivers: the channel `kafka`.
//!
//! Cast: [`outlet`] is the task of one subscription, which takes from its shelf as a receiver that fetches would;
//! [`writer`] is the one publisher of all of them; [`review`] reads a topic back; [`rights`] lets those read it who may.
//! Order of a delivery: number on disk, intent (acknowledged), transaction, acknowledgement on disk, outcome. The topic
//! itself says what was written: whoever begins, or does not know how a transaction has ended, reads it back.
//!
//! Must never write what was not decided a moment ago, nor leave what is withdrawn to be read.

mod outlet;
mod review;
mod rights;
mod writer;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ryggrad_bridge_core::access::kafka_access;
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::{ReceiverTopics, Seal, topics};
use ryggrad_schemas::catalogue::{Cleanup, Timestamp, Topic};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::Access;
use crate::runtime::Context;
use crate::subscriptions::Subscriptions;
use outlet::Outlet;
use rights::Rights;
use writer::Writer;

/// Topics that are read back at the same time.
const REVIEWS_AT_ONCE_MAX: usize = 4;

/// Why an outlet cannot go on. It begins anew, with reading back.
#[derive(Debug, Clone, thiserror::Error)]
enum Trouble {
    /// Kafka does not do what it is asked.
    #[error("{0}")]
    Log(String),
    /// The subscription does not run, or not any more.
    #[error("the subscription does not run")]
    NotRunning,
}

impl Trouble {
    fn of(error: &ryggrad_log::Error) -> Self {
        Self::Log(error.chain())
    }
}

impl From<ryggrad_log::Error> for Trouble {
    fn from(error: ryggrad_log::Error) -> Self {
        Self::of(&error)
    }
}

/// What all of them share.
struct Desk {
    context: Arc<Context>,
    access: Arc<Access>,
    topics: ReceiverTopics,
    writer: Writer,
    rights: Rights,
    seal: Seal,
    reviewing: Semaphore,
}

impl Desk {
    /// Makes a topic where there is none; how many partitions it has.
    async fn make(&self, topic: &str) -> Result<i32, ryggrad_log::Error> {
        if let Some((_, partitions)) = self.topics.all().await?.into_iter().find(|(name, _)| name == topic) {
            return Ok(partitions);
        }
        let config = &self.context.config;
        let partitions = config.outlet_partitions;
        topics::ensure(&self.context.connection, &[declared(topic, partitions, config.outlet_retention_ms)], config.replication).await?;
        Ok(partitions)
    }
}

/// What is shown of one.
#[derive(Default)]
struct Shown {
    written: Option<u64>,
    trouble: Option<&'static str>,
}

/// A running one.
struct Running {
    wishes: watch::Sender<Subscription>,
    shown: Arc<Mutex<Shown>>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// All of them.
pub struct Outlets {
    desk: Arc<Desk>,
    running: Mutex<HashMap<Uuid, Running>>,
}

impl Outlets {
    /// None yet.
    pub fn new(context: Arc<Context>, access: Arc<Access>, seal: &Seal) -> Result<Self, ryggrad_log::Error> {
        let topics = ReceiverTopics::new(&context.connection, context.config.kafka_timeout_ms)?;
        let writer = Writer::start(context.connection.clone(), context.telemetry.clone());
        let (rights, seal) = (Rights::new(context.connection.clone()), Seal::new(&seal.derive("places in receivers' topics")));
        let reviewing = Semaphore::new(REVIEWS_AT_ONCE_MAX);
        Ok(Self { desk: Arc::new(Desk { context, access, topics, writer, rights, seal, reviewing }), running: Mutex::default() })
    }

    /// Makes the topic of a subscription that is about to be made, if it is to have one.
    pub async fn make(&self, subscription: &Subscription) -> Result<(), ryggrad_log::Error> {
        let Some(outlet) = subscription.outlet() else { return Ok(()) };
        self.desk.make(&outlet.topic()).await?;
        if let Err(error) = self.desk.rights.set(&self.desk.access, &outlet).await {
            tracing::warn!(subscription = %subscription.id, error = error.chain(), "who may read a receiver's topic was not set yet");
        }
        Ok(())
    }

    /// Begins to write for a subscription, if it has a topic.
    pub fn open(&self, subscriptions: &Arc<Subscriptions>, subscription: &Subscription) {
        let Some(named) = subscription.outlet() else { return };
        let (wishes, wished) = watch::channel(subscription.clone());
        let (shown, stop) = (Arc::<Mutex<Shown>>::default(), subscriptions.stopping().child_token());
        let outlet = Outlet::new(Arc::clone(&self.desk), Arc::clone(subscriptions), named, wished, Arc::clone(&shown));
        let task = tokio::spawn(outlet.run(stop.clone()));
        let before = self.running().insert(subscription.id, Running { wishes, shown, stop, task });
        if let Some(before) = before {
            before.stop.cancel();
        }
        self.desk.context.telemetry.outlets.set(self.count());
    }

    /// Tells what a subscription is by now.
    pub fn change(&self, subscription: &Subscription) {
        if let Some(running) = self.running().get(&subscription.id) {
            running.wishes.send_replace(subscription.clone());
        }
    }

    /// A subscription is gone, and its topic with it.
    pub async fn delete(&self, subscription: &Subscription) {
        let Some(outlet) = subscription.outlet() else { return };
        let running = self.running().remove(&subscription.id);
        self.desk.context.telemetry.outlets.set(self.count());
        if let Some(running) = running {
            self.end(running).await;
        }
        let deleted = self.desk.topics.delete(&outlet.topic()).await;
        let revoked = self.desk.rights.revoke(&outlet).await;
        if let Err(error) = deleted.and(revoked) {
            tracing::warn!(subscription = %subscription.id, error = error.chain(), "the topic of a subscription that is gone was not deleted; the next start does it");
        }
    }

    /// Deletes topics whose subscriptions are gone: what a crash has left over.
    pub async fn tidy(&self, is_known: impl Fn(Uuid) -> bool) {
        let all = match self.desk.topics.all().await {
            Ok(all) => all,
            Err(error) => return tracing::warn!(error = error.chain(), "receivers' topics cannot be listed; the next start tidies up"),
        };
        let outlets = all.iter().filter_map(|(name, _)| kafka_access::Outlet::named(name));
        for outlet in outlets.filter(|outlet| !is_known(outlet.subscription)) {
            match self.desk.topics.delete(&outlet.topic()).await {
                Ok(()) => tracing::info!(topic = outlet.topic(), "the topic of a subscription that is gone was deleted"),
                Err(error) => tracing::warn!(error = error.chain(), "the topic of a subscription that is gone was not deleted"),
            }
            if let Err(error) = self.desk.rights.revoke(&outlet).await {
                tracing::warn!(error = error.chain(), "rights to a topic that is gone were not taken away");
            }
        }
    }

    /// How one stands.
    pub fn status(&self, id: Uuid) -> Option<Value> {
        let running = self.running();
        let shown = running.get(&id)?.shown.lock().unwrap_or_else(PoisonError::into_inner);
        Some(json!({"written_number": shown.written, "trouble": shown.trouble}))
    }

    /// Lets what is under way end; they were told to stop.
    pub async fn ended(&self) {
        let all: Vec<Running> = self.running().drain().map(|(_, running)| running).collect();
        futures_util::future::join_all(all.into_iter().map(|running| self.end(running))).await;
    }

    async fn end(&self, mut running: Running) {
        running.stop.cancel();
        let limit = Duration::from_millis(self.desk.context.config.drain_timeout_ms);
        if tokio::time::timeout(limit, &mut running.task).await.is_err() {
            // What it was about to write is read back by whoever comes next.
            running.task.abort();
        }
    }

    fn count(&self) -> i64 {
        i64::try_from(self.running().len()).unwrap_or(i64::MAX)
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Uuid, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn declared(name: &str, partitions: i32, retention_ms: u64) -> Topic {
    Topic {
        // Nothing is stored under it.
        id: 0,
        name: name.to_owned(),
        purpose: "What one receiver may have.".to_owned(),
        partitions,
        cleanup: Cleanup::Delete,
        timestamp: Timestamp::LogAppend,
        min_compaction_lag_ms: None,
        max_compaction_lag_ms: None,
        delete_retention_ms: None,
        segment_ms: None,
        retention_ms: Some(retention_ms),
    }
}
