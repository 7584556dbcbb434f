//! From settings to a running bridge and back: bind, find Kafka, load, work, drain.
//!
//! Ports are bound first, so that health can be asked from the start. Kafka may be away at any
//! time: the bridge says so, waits, and goes on where it was.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::registry::Registry;
use ryggrad_bridge_core::asymmetric::{SigningKey, SigningKeys};
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::machine::DisableReason;
use ryggrad_bridge_core::watch_list::Fingerprints;
use ryggrad_log::{Appender, Connection, Moment, Pulse, Remedy, Seal, cluster_id, offsets_of, topics};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::topics::{CURSORS, REPLAYS, SUBSCRIPTIONS, TOKENS};
use ryggrad_store::{Bound, Loaded, OpenError, Store, SubscriptionId, Writer};
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::access::{self, Access, Decisions, Departures, Holds};
use crate::answers::Answers;
use crate::api::{Ready, RequestQuota, Shared, router};
use crate::channel::tls::InvalidTls;
use crate::channel::webhook::{NoClient, Webhook};
use crate::config::BridgeConfig;
use crate::disclosures::Disclosures;
use crate::facts::Facts;
use crate::listening::Listening;
use crate::outlets::Outlets;
use crate::removals::{Removals, TooMany};
use crate::runtime::{Context, Engine, Stopped, changelog};
use crate::schema_import::{ImportError, Registry as SchemaRegistry};
use crate::sockets::Sockets;
use crate::subscriptions::{ChangeError, Others, Replays, Subscriptions};
use crate::telemetry::Telemetry;
use crate::tokens::Tokens;
use crate::trust::{InvalidTrust, Metrics, Trust};
use crate::watch_lists::{LoadError, WatchLists, Watched};

/// How often Kafka is asked whether it is there.
const PULSE: Duration = Duration::from_secs(1);

/// What must not stand in the settings file.
pub struct Secrets {
    /// The operator's tokens: while one takes over from another, both.
    pub operator_tokens: Vec<SecretString>,
    /// Seals signing secrets.
    pub seal: Seal,
    /// Make asymmetric signatures.
    pub signing_keys: Arc<SigningKeys>,
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
    /// No certificate to be served with.
    #[error("cannot serve the API over TLS")]
    Tls(#[from] InvalidTls),
    /// No HTTP client.
    #[error("cannot make webhook calls")]
    Client(#[from] NoClient),
    /// A subscription could not be started.
    #[error("cannot start the subscriptions")]
    Subscriptions(#[from] ChangeError),
    /// Not every removed key can be held, so that nothing may be delivered.
    #[error("cannot hold the removed keys")]
    Removals(#[from] TooMany),
    /// Not every watch list can be held, so that nothing may be delivered.
    #[error("cannot hold the watch lists")]
    WatchLists(#[source] LoadError),
    /// Not all is known of who may get what, so that nothing may be delivered.
    #[error("cannot hold members, delegations, grants, relations and blocks")]
    Access(#[source] access::LoadError),
    /// Nobody reads any more which keys are removed.
    #[error("the reading of removed keys has ended; nothing is delivered without it, so the bridge has stopped")]
    RemovalsEnded,
    /// The settings of the issuer cannot be.
    #[error("cannot trust the issuer")]
    Trust(#[from] InvalidTrust),
    /// The schema registry beside the bridge contradicts the committed schemas.
    #[error("cannot start with this schema registry")]
    SchemaRegistry(#[from] ImportError),
    /// The cursor store failed while the bridge was running.
    #[error("the cursor store failed; nothing is settled that is not on disk, so the bridge has stopped")]
    StoreFailed,
    /// Kafka has refused a record of a disclosure.
    #[error("Kafka refused a record of a disclosure; nothing is disclosed that is not recorded, so the bridge has stopped")]
    DisclosuresFailed,
}

/// A bridge with its port bound.
pub struct Bridge {
    listener: TcpListener,
    address: SocketAddr,
    config: BridgeConfig,
    connection: Connection,
    secrets: Secrets,
    catalogue: &'static Catalogue,
}

impl Bridge {
    /// Binds the port.
    pub async fn bind(config: BridgeConfig, connection: Connection, secrets: Secrets) -> Result<Self, BridgeError> {
        let failed = |source| BridgeError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let catalogue = Catalogue::opened(config.latch());
        Ok(Self { listener, address, config, connection, secrets, catalogue })
    }

    /// With event types of somebody's own.
    pub fn with_catalogue(self, catalogue: &'static Catalogue) -> Self {
        Self { catalogue, ..self }
    }

    /// Where the API listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Works until told to stop.
    pub async fn run(self, stop: CancellationToken) -> Result<(), BridgeError> {
        let mut registry = Registry::default();
        let telemetry = Telemetry::register(&mut registry);
        let trust_metrics = Metrics::register(&mut registry);
        let nonce_key = self.secrets.seal.derive("DPoP nonces");
        let trust = self.config.trust.as_ref().map(|trust| Trust::new(trust, self.config.development_egress, &nonce_key, trust_metrics));
        let trust = trust.transpose()?.map(Arc::new);
        let shared = Arc::new(Shared {
            config: self.config.clone(),
            operator_tokens: self.secrets.operator_tokens.clone(),
            registry,
            telemetry: telemetry.clone(),
            trust,
            catalogue: self.catalogue,
            quota: RequestQuota::new(self.config.organisation_requests_per_s_max, self.config.organisation_requests_at_once_max),
            webhook_keys: self.secrets.signing_keys.signing().map(SigningKey::public).collect(),
            ready: OnceLock::new(),
            watch_list_uploads: Semaphore::new(self.config.watch_list_uploads_max),
            sockets: Arc::new(Sockets::new(self.config.sockets_max, telemetry.sockets.clone())),
            obstacle: watch::Sender::new(Some("starting".to_owned())),
        });
        let server_stop = CancellationToken::new();
        let listening = Listening::new(self.listener, &self.config, telemetry.clone())?;
        let server = tokio::spawn(listening.serve(router(Arc::clone(&shared)), server_stop.clone()));
        let worked = work(&shared, &self.connection, self.secrets, telemetry, &stop).await;
        shared.obstacle.send_replace(Some("stopping".to_owned()));
        if let Some(ready) = shared.ready.get() {
            ready.subscriptions.drain().await;
            let drain_timeout = Duration::from_millis(self.config.drain_timeout_ms);
            shared.sockets.closed(drain_timeout).await;
            // One that is not vouched for at the end is at the next checkpoint.
            let _ = tokio::time::timeout(drain_timeout, ready.disclosures.close()).await;
        }
        server_stop.cancel();
        let _ = tokio::time::timeout(Duration::from_millis(self.config.drain_timeout_ms), server).await;
        worked
    }
}

async fn work(
    shared: &Arc<Shared>,
    connection: &Connection,
    secrets: Secrets,
    telemetry: Telemetry,
    stop: &CancellationToken,
) -> Result<(), BridgeError> {
    let config = &shared.config;
    // The store first: whether it is ours does not depend on Kafka.
    let store = Store::open(&config.data)?.store;
    let fatal = CancellationToken::new();
    let unrecorded = CancellationToken::new();
    let writer = Writer::start(store.clone()).map_err(BridgeError::Writer)?;
    let (kept, signing_keys) = ((store.clone(), writer.clone()), Arc::clone(&secrets.signing_keys));
    let disclosures = Disclosures::start(connection, kept, &secrets.seal, signing_keys, config, telemetry.clone(), unrecorded.clone())?;
    let (stopped, mut stopped_inbox) = mpsc::channel(64);
    let (finished, mut finished_inbox) = mpsc::channel(64);
    let context = Arc::new(Context {
        connection: connection.clone(),
        catalogue: shared.catalogue,
        config: config.clone(),
        webhook: Webhook::new(
            config.webhook_options(config.egress_policy(&connection.bootstrap), Some(Arc::clone(&secrets.signing_keys))),
        )?,
        writer,
        noted: Arc::default(),
        removals: Arc::new(Removals::new(config.removed_keys_max, telemetry.clone())),
        decisions: Arc::new(Decisions::new(shared.catalogue)),
        holds: Arc::new(Holds::default()),
        disclosures: Arc::new(disclosures),
        watched: Arc::new(Watched::new(Fingerprints::new(secrets.seal.derive("watch list fingerprints")))),
        telemetry: telemetry.clone(),
        stopped,
        finished,
        fatal: fatal.clone(),
    });
    // The issuer's keys do not depend on Kafka either.
    let webhook = context.webhook.clone();
    let _trusting = shared
        .trust
        .clone()
        .map(|trust| AbortOnDropHandle::new(tokio::spawn(trust.follow(webhook, connection.clone(), config.kafka_timeout_ms))));
    if let Some(address) = &config.schema_registry {
        let registry = SchemaRegistry::at(address)?;
        tokio::select! {
            imported = registry.import(&shared.obstacle) => imported?,
            () = stop.cancelled() => return Ok(()),
        }
    }
    let loading = load(shared, &context, &store, secrets.seal);
    let Found { ready, stored, cursors, departures } = tokio::select! {
        found = loading => found?,
        () = stop.cancelled() => return Ok(()),
    };
    // Before the first worker: none may read an older state of a removed key as if it were good.
    let mut following = JoinSet::new();
    let (tell_loaded, loaded) = oneshot::channel();
    let (removals, followed) = (Arc::clone(&context), connection.clone());
    // Also those of topics that are shut for now.
    following.spawn(async move { removals.removals.follow(&followed, Catalogue::built_in(), tell_loaded).await });
    shared.obstacle.send_replace(Some("reading which keys were removed".to_owned()));
    tokio::select! {
        Ok(()) = loaded => {}
        Some(ended) = following.join_next() => return Err(ended.map_or(BridgeError::RemovalsEnded, BridgeError::from)),
        () = stop.cancelled() => return Ok(()),
    }
    // Nor anyone whose unit has gone while the bridge was away.
    let (tell_loaded, loaded) = oneshot::channel();
    let _departing = AbortOnDropHandle::new(tokio::spawn(departures.follow(tell_loaded)));
    shared.obstacle.send_replace(Some("reading which units are gone".to_owned()));
    tokio::select! {
        _ = loaded => {}
        () = stop.cancelled() => return Ok(()),
    }
    ready.subscriptions.start_all(stored).await?;
    let _weighing = AbortOnDropHandle::new(tokio::spawn(Arc::clone(&ready.access).keep_time()));
    let copying = changelog::copy(cursors, store.clone(), Arc::clone(&context.noted), telemetry.clone());
    let _copying = AbortOnDropHandle::new(tokio::spawn(copying));
    // Set once, here.
    let ready = shared.ready.get_or_init(|| ready);
    shared.obstacle.send_replace(None);
    tracing::info!(trial = config.trial, "the bridge is ready");

    let pulse = Pulse::new(connection)?;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = fatal.cancelled() => return Err(BridgeError::StoreFailed),
            () = unrecorded.cancelled() => return Err(BridgeError::DisclosuresFailed),
            Some(ended) = following.join_next() => return Err(ended.map_or(BridgeError::RemovalsEnded, BridgeError::from)),
            Some(told) = stopped_inbox.recv() => disable(&ready.subscriptions, told).await,
            Some(replay) = finished_inbox.recv() => {
                if let Err(error) = ready.subscriptions.replay_finished(replay).await {
                    // After a restart it is found finished again.
                    tracing::warn!(%replay, %error, "a replay that has come to its end could not be marked so");
                }
            }
            () = tokio::time::sleep(PULSE) => {
                feel(shared, &telemetry, &store, &pulse).await;
                ready.answers.expire(jiff::Timestamp::now().as_millisecond()).await;
            }
        }
    }
}

/// What Kafka and the store have.
struct Found {
    ready: Ready,
    stored: Loaded,
    cursors: Facts,
    departures: Departures,
}

/// Waits for Kafka as long as it takes, makes the topics, reads the facts.
async fn load(shared: &Shared, context: &Arc<Context>, store: &Store, seal: Seal) -> Result<Found, BridgeError> {
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

async fn try_load(context: &Arc<Context>, store: &Store, seal: Seal) -> Result<Found, BridgeError> {
    let (connection, timeout_ms) = (&context.connection, context.config.kafka_timeout_ms);
    let bound = store.bind_to_cluster(&cluster_id(connection, timeout_ms).await?)?;
    if let Bound::Instead(aside) = &bound {
        tracing::error!(aside = %aside.display(), "the cursor store belongs to another Kafka cluster; it was set aside and a fresh one is used");
    }
    let created = topics::ensure(connection, &context.catalogue.topics, context.config.replication).await?;
    if !created.is_empty() {
        tracing::info!(topics = created.join(", "), "topics created");
    }
    let appender = Arc::new(Appender::new(connection, u32::try_from(timeout_ms).unwrap_or(u32::MAX))?);
    let answers = Answers::load(&context.config, store.clone(), context.writer.clone(), seal.clone(), context.telemetry.clone())?;
    let tokens = Facts::new(TOKENS, Arc::clone(&appender));
    let tokens = Tokens::new(tokens.clone(), tokens.load(connection, timeout_ms).await?);
    let cursors = Facts::new(CURSORS, Arc::clone(&appender));
    let replays = Facts::new(REPLAYS, Arc::clone(&appender));
    let replays = Replays::new(replays.clone(), replays.load(connection, timeout_ms).await?);
    let subscriptions = Facts::new(SUBSCRIPTIONS, Arc::clone(&appender));
    let loaded = subscriptions.load(connection, timeout_ms).await?;
    let (decisions, holds) = (Arc::clone(&context.decisions), Arc::clone(&context.holds));
    let (for_access, telemetry) = (Arc::clone(&appender), context.telemetry.clone());
    let access = Access::load(connection, for_access, &seal, &context.config, telemetry, decisions, holds).await;
    let access = Arc::new(access.map_err(|error| match error {
        access::LoadError::Log(error) => BridgeError::Log(error),
        unreadable => BridgeError::Access(unreadable),
    })?);
    let departures = Departures::load(Arc::clone(&access), connection, Arc::clone(&appender), timeout_ms).await?;
    let (watched, telemetry) = (Arc::clone(&context.watched), context.telemetry.clone());
    let watch_lists = WatchLists::load(connection, appender, seal.clone(), watched, &context.config, telemetry).await;
    let watch_lists = Arc::new(watch_lists.map_err(|error| match error {
        LoadError::Log(error) => BridgeError::Log(error),
        too_large => BridgeError::WatchLists(too_large),
    })?);
    let stored = recover(context, store, &cursors, bound != Bound::Before).await?;
    let engine = Engine::start(Arc::clone(context), tail_offsets(context, &stored.live).await?);
    let outlets = Outlets::new(Arc::clone(context), Arc::clone(&access), &seal)?;
    let others = Others { watch_lists: Arc::clone(&watch_lists), access: Arc::clone(&access), outlets };
    let subscriptions = Subscriptions::new(subscriptions, replays, seal, Arc::clone(context), engine, others, loaded);
    let ready = Ready {
        subscriptions: Arc::new(subscriptions),
        tokens,
        disclosures: Arc::clone(&context.disclosures),
        access,
        watch_lists,
        answers: Arc::new(answers),
    };
    Ok(Found { ready, stored, cursors, departures })
}

/// What is stored. A store that is new, or has lost something, is filled up from the changelog.
async fn recover(context: &Context, store: &Store, cursors: &Facts, new: bool) -> Result<Loaded, BridgeError> {
    let mut loaded = store.load()?;
    let lost: BTreeSet<SubscriptionId> = loaded.subscriptions.iter().filter(|(_, stored)| stored.damaged).map(|(id, _)| *id).collect();
    if !new && lost.is_empty() {
        return Ok(loaded);
    }
    let mut rebuilt = changelog::rebuild(cursors, &context.connection, context.config.kafka_timeout_ms).await?;
    rebuilt.subscriptions.retain(|id, _| new || lost.contains(id));
    if !rebuilt.subscriptions.is_empty() {
        tracing::warn!(
            subscriptions = rebuilt.subscriptions.len(),
            "cursors were lost and are rebuilt from Kafka; deliveries of the last second may be repeated, and numbers begin anew"
        );
    }
    loaded.subscriptions.extend(rebuilt.subscriptions);
    if new {
        loaded.live = rebuilt.live;
    }
    Ok(loaded)
}

/// Where the tail goes on in each partition of each topic that anyone can subscribe to: where it
/// was, or at the end.
async fn tail_offsets(context: &Context, stored: &BTreeMap<Place, i64>) -> Result<BTreeMap<Place, i64>, BridgeError> {
    let mut offsets = BTreeMap::new();
    for topic in context.catalogue.topics.iter().filter(|topic| context.catalogue.events.iter().any(|event| event.topic == topic.name)) {
        let ends = offsets_of(&context.connection, &topic.name, topic.partitions, Moment::End, context.config.kafka_timeout_ms).await?;
        for (partition, end) in (0..).zip(ends) {
            let place = Place { topic: topic.id, partition };
            offsets.insert(place, stored.get(&place).copied().unwrap_or(end));
        }
    }
    Ok(offsets)
}

async fn disable(subscriptions: &Subscriptions, Stopped { subscription, reason, sink }: Stopped) {
    let reason = match reason {
        DisableReason::Gone => "the endpoint answered 410 Gone; resume when it is back".to_owned(),
        DisableReason::Failing { since_ms } => {
            let since = i64::try_from(since_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            let since = since.map(|time| format!(" since {time:.0}")).unwrap_or_default();
            format!("every attempt has failed{since}; resume when the endpoint is mended: nothing is lost")
        }
    };
    if let Err(error) = subscriptions.disable(subscription, sink.as_deref(), reason).await {
        // After a restart the endpoint is asked again, and says so again.
        tracing::warn!(%subscription, %error, "a subscription that was stopped could not be marked as disabled");
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
