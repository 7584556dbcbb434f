//! The running half: one worker per subscription, each around a pure machine.

mod reader;
mod status;
mod worker;

use std::collections::HashMap;
use std::sync::Arc;

use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::machine::Mode;
use ryggrad_bridge_core::signature::Secret;
use ryggrad_bridge_core::subscription::Subscription;
use ryggrad_log::Connection;
use ryggrad_schemas::Catalogue;
use ryggrad_store::Writer;
use serde_json::Value;
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::channel::webhook::Webhook;
use crate::config::BridgeConfig;
use crate::removals::Removals;
use crate::telemetry::Telemetry;
use worker::Worker;

/// What all workers share.
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
    /// Keys removed for legal reasons.
    pub removals: Arc<Removals>,
    /// Metrics.
    pub telemetry: Telemetry,
    /// One permit per attempt at the same time, over all subscriptions.
    pub permits: Arc<Semaphore>,
    /// Where workers tell that an endpoint is gone: the subscription, and the address.
    pub gone: mpsc::Sender<(Uuid, String)>,
    /// Cancelled when the store fails: nothing can be promised any more, so the process ends.
    pub fatal: CancellationToken,
}

/// What a worker is told.
enum Command {
    /// Go on as this subscription, with this secret if it is another. Answered when it is in force.
    Change(Box<(Subscription, Option<Secret>)>, Mode, oneshot::Sender<()>),
    /// How are you?
    Status(oneshot::Sender<Value>),
}

struct Handle {
    commands: mpsc::Sender<Command>,
    /// Finish what is under way, then end.
    drain: CancellationToken,
    /// End now.
    abandon: CancellationToken,
    task: JoinHandle<()>,
}

/// All workers.
pub struct Engine {
    context: Arc<Context>,
    running: Mutex<HashMap<Uuid, Handle>>,
}

impl Engine {
    /// An engine without workers.
    pub fn new(context: Arc<Context>) -> Self {
        Self { context, running: Mutex::default() }
    }

    /// Starts the worker of a subscription from its cursors.
    pub async fn start(&self, subscription: &Subscription, secret: Secret, mode: Mode, cursors: Vec<(Place, Cursor)>) {
        let (commands, inbox) = mpsc::channel(16);
        let (drain, abandon) = (CancellationToken::new(), CancellationToken::new());
        let worker = Worker::new(Arc::clone(&self.context), subscription.clone(), secret, mode, cursors);
        let (drained, abandoned) = (drain.clone(), abandon.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                () = abandoned.cancelled() => {}
                () = worker.run(inbox, drained) => {}
            }
        });
        self.context.telemetry.subscriptions.inc();
        self.running.lock().await.insert(subscription.id, Handle { commands, drain, abandon, task });
    }

    /// Makes a worker go on as the subscription is now; in force when it returns.
    pub async fn change(&self, subscription: Subscription, secret: Option<Secret>, mode: Mode) {
        let Some(commands) = self.commands(subscription.id).await else { return };
        let (told, in_force) = oneshot::channel();
        if commands.send(Command::Change(Box::new((subscription, secret)), mode, told)).await.is_ok() {
            let _ = in_force.await;
        }
    }

    /// How a subscription stands.
    pub async fn status(&self, id: Uuid) -> Option<Value> {
        let commands = self.commands(id).await?;
        let (answer, status) = oneshot::channel();
        commands.send(Command::Status(answer)).await.ok()?;
        status.await.ok()
    }

    /// Ends a worker at once; attempts under way are broken off.
    pub async fn abandon(&self, id: Uuid) {
        let handle = self.running.lock().await.remove(&id);
        if let Some(handle) = handle {
            handle.abandon.cancel();
            let _ = handle.task.await;
            self.context.telemetry.subscriptions.dec();
        }
    }

    /// Ends all workers after what is under way.
    pub async fn drain(&self) {
        let handles: Vec<Handle> = self.running.lock().await.drain().map(|(_, handle)| handle).collect();
        handles.iter().for_each(|handle| handle.drain.cancel());
        for handle in handles {
            let _ = handle.task.await;
        }
    }

    async fn commands(&self, id: Uuid) -> Option<mpsc::Sender<Command>> {
        self.running.lock().await.get(&id).map(|handle| handle.commands.clone())
    }
}
