//! From settings to a running bridge and back: bind, find Kafka, load, work, drain.
//!
//! Ports are bound first, so that health can be asked from the start. Kafka may be away at any
//! time: the bridge says so, waits, and goes on where it was.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::registry::Registry;
use ryggrad_bridge_core::egress::EgressPolicy;
use ryggrad_log::{Appender, Connection, Pulse, Remedy, Seal, cluster_id, topics};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::topics::{SUBSCRIPTIONS, TOKENS};
use ryggrad_store::{OpenError, Store, Writer};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::{Ready, Shared, router};
use crate::channel::webhook::{NoClient, Webhook};
use crate::config::BridgeConfig;
use crate::facts::Facts;
use crate::removals::{Removals, TooMany};
use crate::runtime::Context;
use crate::schema_import::{ImportError, Registry as SchemaRegistry};
use crate::subscriptions::{ChangeError, Subscriptions};
use crate::telemetry::Telemetry;
use crate::tokens::Tokens;

/// How often Kafka is asked whether it is there.
const PULSE: Duration = Duration::from_secs(1);

/// What must not stand in the settings file.
pub struct Secrets {
    /// The operator's token.
    pub operator_token: SecretString,
    /// Seals signing secrets.
    pub seal: Seal,
}

/// Why the bridge does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum BridgeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}; is another bridge running there?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The cursor store does not open.
    #[error("cannot use the cursor store")]
    Store(#[from] OpenError),
    /// A thread could not be started.
    #[error("cannot start the cursor store's writer")]
    Writer(#[source] std::io::Error),
    /// Kafka refuses for a reason that waiting does not cure.
    #[error("cannot work with Kafka")]
    Log(#[from] ryggrad_log::Error),
    /// No HTTP client.
    #[error("cannot make webhook calls")]
    Client(#[from] NoClient),
    /// A subscription could not be started.
    #[error("cannot start the subscriptions")]
    Subscriptions(#[from] ChangeError),
    /// Not every removed key can be held, so that nothing may be delivered.
    #[error("cannot hold the removed keys")]
    Removals(#[from] TooMany),
    /// Nobody reads any more which keys are removed.
    #[error("the reading of removed keys has ended; nothing is delivered without it, so the bridge has stopped")]
    RemovalsEnded,
    /// The schema registry beside the bridge contradicts the committed schemas.
    #[error("cannot start with this schema registry")]
    SchemaRegistry(#[from] ImportError),
    /// The cursor store failed while the bridge was running.
    #[error("the cursor store failed; nothing is settled that is not on disk, so the bridge has stopped")]
    StoreFailed,
}

/// A bridge with its port bound.
pub struct Bridge {
    listener: TcpListener,
    address: SocketAddr,
    config: BridgeConfig,
    connection: Connection,
    secrets: Secrets,
}

impl Bridge {
    /// Binds the port.
    pub async fn bind(config: BridgeConfig, connection: Connection, secrets: Secrets) -> Result<Self, BridgeError> {
        let failed = |source| BridgeError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, config, connection, secrets })
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BridgeError> {
        let mut registry = Registry::default();
        let telemetry = Telemetry::register(&mut registry);
        let shared = Arc::new(Shared {
            config: self.config.clone(),
            operator_token: self.secrets.operator_token.clone(),
            registry,
            ready: OnceLock::new(),
            obstacle: watch::Sender::new(Some("starting".to_owned())),
        });
        let server_stop = CancellationToken::new();
        let serving = axum::serve(self.listener, router(Arc::clone(&shared))).with_graceful_shutdown(server_stop.clone().cancelled_owned());
        let server = tokio::spawn(async move { serving.await });
        let worked = work(&shared, &self.connection, self.secrets.seal, telemetry, &stop).await;
        shared.obstacle.send_replace(Some("stopping".to_owned()));
        if let Some(ready) = shared.ready.get() {
            ready.subscriptions.drain().await;
        }
        server_stop.cancel();
        let _ = tokio::time::timeout(Duration::from_millis(self.config.drain_timeout_ms), server).await;
        worked
    }
}

async fn work(
    shared: &Arc<Shared>,
    connection: &Connection,
    seal: Seal,
    telemetry: Telemetry,
    stop: &CancellationToken,
) -> Result<(), BridgeError> {
    let config = &shared.config;
    // The store first: whether it is ours does not depend on Kafka.
    let store = Store::open(&config.data)?.store;
    let fatal = CancellationToken::new();
    let (gone, mut gone_inbox) = mpsc::channel(64);
    let context = Arc::new(Context {
        connection: connection.clone(),
        catalogue: Catalogue::built_in(),
        config: config.clone(),
        webhook: Webhook::new(EgressPolicy { development: config.development_egress }, config.attempt_timeout_ms, config.answer_bytes_max)?,
        writer: Writer::start(store.clone()).map_err(BridgeError::Writer)?,
        removals: Arc::new(Removals::new(config.removed_keys_max, telemetry.clone())),
        telemetry: telemetry.clone(),
        permits: Arc::new(Semaphore::new(config.in_flight_total_max)),
        gone,
        fatal: fatal.clone(),
    });
    if let Some(address) = &config.schema_registry {
        let registry = SchemaRegistry::at(address)?;
        tokio::select! {
            imported = registry.import(&shared.obstacle) => imported?,
            () = stop.cancelled() => return Ok(()),
        }
    }
    let loading = load(shared, &context, &store, seal);
    let ready = tokio::select! {
        ready = loading => ready?,
        () = stop.cancelled() => return Ok(()),
    };
    // Before the first worker: none may read an older state of a removed key as if it were good.
    let mut following = JoinSet::new();
    let (tell_loaded, loaded) = oneshot::channel();
    let (removals, followed) = (Arc::clone(&context), connection.clone());
    following.spawn(async move { removals.removals.follow(&followed, removals.catalogue, tell_loaded).await });
    shared.obstacle.send_replace(Some("reading which keys were removed".to_owned()));
    tokio::select! {
        Ok(()) = loaded => {}
        Some(ended) = following.join_next() => return Err(ended.map_or(BridgeError::RemovalsEnded, BridgeError::from)),
        () = stop.cancelled() => return Ok(()),
    }
    ready.subscriptions.start_all(store.cursors()?).await?;
    // Set once, here.
    let ready = shared.ready.get_or_init(|| ready);
    shared.obstacle.send_replace(None);
    tracing::info!("the bridge is ready");

    let pulse = Pulse::new(connection)?;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = fatal.cancelled() => return Err(BridgeError::StoreFailed),
            Some(ended) = following.join_next() => return Err(ended.map_or(BridgeError::RemovalsEnded, BridgeError::from)),
            Some((id, sink)) = gone_inbox.recv() => disable(&ready.subscriptions, id, &sink).await,
            () = tokio::time::sleep(PULSE) => feel(shared, &telemetry, &store, &pulse).await,
        }
    }
}

/// Waits for Kafka as long as it takes, makes the topics, reads the facts.
async fn load(shared: &Shared, context: &Arc<Context>, store: &Store, seal: Seal) -> Result<Ready, BridgeError> {
    loop {
        match try_load(context, store, seal.clone()).await {
            Err(BridgeError::Log(error)) if error.remedy == Remedy::Retry => {
                tracing::warn!(error = error.chain(), "waiting for Kafka");
                shared.obstacle.send_replace(Some(format!("waiting for Kafka at {}", context.connection.bootstrap)));
                tokio::time::sleep(PULSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn try_load(context: &Arc<Context>, store: &Store, seal: Seal) -> Result<Ready, BridgeError> {
    let (connection, timeout_ms) = (&context.connection, context.config.kafka_timeout_ms);
    store.bind_to_cluster(&cluster_id(connection, timeout_ms).await?)?;
    let created = topics::ensure(connection, &context.catalogue.topics, context.config.replication).await?;
    if !created.is_empty() {
        tracing::info!(topics = created.join(", "), "topics created");
    }
    let appender = Arc::new(Appender::new(connection, u32::try_from(timeout_ms).unwrap_or(u32::MAX))?);
    let tokens = Facts::new(TOKENS, Arc::clone(&appender));
    let tokens = Tokens::new(tokens.clone(), tokens.load(connection, timeout_ms).await?);
    let subscriptions = Facts::new(SUBSCRIPTIONS, appender);
    let loaded = subscriptions.load(connection, timeout_ms).await?;
    Ok(Ready { subscriptions: Subscriptions::new(subscriptions, seal, Arc::clone(context), loaded), tokens })
}

async fn disable(subscriptions: &Subscriptions, id: Uuid, sink: &str) {
    let reason = "the endpoint answered 410 Gone; resume when it is back".to_owned();
    if let Err(error) = subscriptions.disable(id, sink, reason).await {
        // After a restart the endpoint is asked again, and says so again.
        tracing::warn!(subscription = %id, %error, "a subscription whose endpoint is gone could not be marked as disabled");
    }
}

async fn feel(shared: &Shared, telemetry: &Telemetry, store: &Store, pulse: &Pulse) {
    let beats = pulse.beat(2_000).await;
    telemetry.kafka_up.set(beats.is_ok().into());
    if let Ok(bytes) = store.size_bytes() {
        telemetry.store_bytes.set(bytes as f64);
    }
    shared.obstacle.send_if_modified(|obstacle| {
        let now = beats.err().map(|_| "Kafka does not answer; deliveries go on when it does".to_owned());
        let changed = *obstacle != now;
        *obstacle = now;
        changed
    });
}
