//! The records of disclosures, as they are written: an intent acknowledged before the first byte, how it went after.
//!
//! One topic and one chain for each controller; this bridge alone writes them. Order of a delivery: intent (acknowledged),
//! bytes, outcome (on its way). So nothing leaves without its intent, and an intent without an outcome may have been
//! received. A record that Kafka does not take at once waits for as long as that lasts, in its order; one that is refused
//! stops the bridge, which then goes on from what is in the topic.
//!
//! Must never hold a payload, nor let a delivery go on whose intent is not acknowledged.

mod keeper;
mod reading;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use ryggrad_bridge_core::asymmetric::SigningKey;
use ryggrad_bridge_core::delivery::MessageId;
use ryggrad_bridge_core::disclosure::{How, Intent, Persons};
use ryggrad_bridge_core::record::Record;
use ryggrad_log::{Acknowledgement, Appender, Connection, Seal};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::Disclosed;
use crate::config::BridgeConfig;
use crate::telemetry::Telemetry;
use keeper::Keeper;

/// Records that may wait for their acknowledgement, of all controllers together.
const UNACKNOWLEDGED_MAX: usize = 20_000;

/// How long a delivery is put off at least whose intent could not be recorded.
const PUT_OFF: Duration = Duration::from_millis(500);

/// Why nothing may leave.
#[derive(Debug, thiserror::Error)]
pub enum NotRecorded {
    /// Kafka has not acknowledged it in time; it may yet.
    #[error("the intent was not acknowledged in time")]
    Timeout,
    /// The records cannot be written or read.
    #[error("the records of disclosures cannot be used")]
    Log(#[from] ryggrad_log::Error),
    /// The bridge stops.
    #[error("the bridge stops")]
    Stopped,
}

/// What is about to leave, and to whom.
pub struct Draft<'d> {
    /// The record.
    pub record: &'d Record,
    /// What the decision says of it.
    pub disclosed: Box<Disclosed>,
    /// The delivery's id.
    pub delivery: MessageId,
    /// The delivery's number in its subscription.
    pub number: u64,
    /// Whose delivery it is.
    pub subscription: Uuid,
    /// How it goes.
    pub channel: &'static str,
    /// The host that it goes to, if it is posted.
    pub host: Option<&'d str>,
}

/// What may leave now, and whose outcome is to be told.
pub struct Ticket {
    keeper: Arc<Keeper>,
    subscription: Uuid,
    delivery: MessageId,
}

/// A record on its way; or a place in line behind those that are.
struct OnItsWay {
    acknowledgement: Option<Acknowledgement>,
    told: Option<oneshot::Sender<()>>,
}

/// What keepers share.
struct Desk {
    connection: Connection,
    appender: Appender,
    on_their_way: mpsc::Sender<OnItsWay>,
    signing_key: Arc<SigningKey>,
    config: BridgeConfig,
    telemetry: Telemetry,
    failed: CancellationToken,
}

/// Room for one more record on its way.
type Room = OwnedPermit<OnItsWay>;

impl Desk {
    async fn room(&self) -> Result<Room, NotRecorded> {
        self.on_their_way.clone().reserve_owned().await.map_err(|_| NotRecorded::Stopped)
    }
}

/// All controllers' records.
pub struct Disclosures {
    desk: Arc<Desk>,
    keepers: RwLock<HashMap<Organisasjonsnummer, Arc<Keeper>>>,
    opening: Mutex<()>,
    persons: Persons,
}

impl Disclosures {
    /// Opens nothing yet. `failed` is cancelled when a record is refused.
    pub fn start(
        connection: &Connection,
        seal: &Seal,
        signing_key: Arc<SigningKey>,
        config: &BridgeConfig,
        telemetry: Telemetry,
        failed: CancellationToken,
    ) -> Result<Self, ryggrad_log::Error> {
        let (on_their_way, arriving) = mpsc::channel(UNACKNOWLEDGED_MAX);
        let appender = Appender::patient(connection)?;
        let (connection, config) = (connection.clone(), config.clone());
        let desk = Arc::new(Desk { connection, appender, on_their_way, signing_key, config, telemetry, failed: failed.clone() });
        tokio::spawn(watch_arrivals(arriving, failed));
        let persons = Persons::new(&seal.derive("persons in disclosures"));
        Ok(Self { desk, keepers: RwLock::default(), opening: Mutex::default(), persons })
    }

    /// Records what is about to leave. When it returns, each intent is acknowledged.
    pub async fn intend(&self, drafts: Vec<Draft<'_>>) -> Result<Vec<Ticket>, NotRecorded> {
        let timeout = Duration::from_millis(self.desk.config.disclosure_timeout_ms);
        let began = tokio::time::Instant::now();
        let recorded = tokio::time::timeout(timeout, self.record(drafts)).await.unwrap_or(Err(NotRecorded::Timeout));
        self.desk.telemetry.disclosure_seconds.observe(began.elapsed().as_secs_f64());
        if let Err(error) = &recorded {
            self.desk.telemetry.disclosure_failures.inc();
            tracing::warn!(%error, "protected events wait: what would be disclosed could not be recorded");
            tokio::time::sleep(PUT_OFF).await;
        }
        recorded
    }

    async fn record(&self, drafts: Vec<Draft<'_>>) -> Result<Vec<Ticket>, NotRecorded> {
        let (mut tickets, mut awaited) = (Vec::with_capacity(drafts.len()), Vec::with_capacity(drafts.len()));
        for draft in drafts {
            let keeper = self.keeper(draft.disclosed.controller).await?;
            let room = self.desk.room().await?;
            let (subscription, delivery, number) = (draft.subscription, draft.delivery, draft.number);
            awaited.push(keeper.intend(number, self.intent(draft), room)?);
            tickets.push(Ticket { keeper, subscription, delivery });
        }
        for acknowledged in awaited {
            acknowledged.await.map_err(|_| NotRecorded::Stopped)?;
        }
        Ok(tickets)
    }

    fn intent(&self, draft: Draft<'_>) -> Intent {
        let Draft { record, disclosed, delivery, subscription, channel, host, .. } = draft;
        Intent {
            delivery: delivery.as_str().to_owned(),
            event: record.event_id().to_owned(),
            ce_type: record.ce_type().to_owned(),
            topic: record.log.topic.clone(),
            partition: record.log.partition,
            offset: record.offset(),
            person: disclosed.person.as_ref().map(|person| self.persons.of(disclosed.controller, person)),
            receiver: disclosed.caller.organisation,
            supplier: disclosed.caller.supplier,
            client: None,
            subscription,
            channel: channel.to_owned(),
            host: host.map(str::to_owned),
            view: disclosed.view,
            with_addresses: disclosed.with_addresses,
            basis: disclosed.law,
            purpose: None,
        }
    }

    /// Tells how an attempt went.
    pub async fn ended(&self, ticket: Ticket, how: How, status: Option<u16>) {
        // There is none only when the bridge has failed.
        let Ok(room) = self.desk.room().await else { return };
        ticket.keeper.ended(ticket.subscription, ticket.delivery.as_str(), how, status, room);
    }

    /// A receiver that fetches has taken everything up to a number.
    pub fn taken(&self, subscription: Uuid, number: u64) {
        let keepers: Vec<_> = self.keepers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        keepers.iter().for_each(|keeper| keeper.taken(subscription, number));
    }

    /// A subscription is gone.
    pub fn forget(&self, subscription: Uuid) {
        let keepers = self.keepers.read().unwrap_or_else(PoisonError::into_inner);
        keepers.values().for_each(|keeper| keeper.forget(subscription));
    }

    fn open_keeper(&self, controller: Organisasjonsnummer) -> Option<Arc<Keeper>> {
        self.keepers.read().unwrap_or_else(PoisonError::into_inner).get(&controller).cloned()
    }

    /// The keeper of a controller's records; the first who asks opens them.
    async fn keeper(&self, controller: Organisasjonsnummer) -> Result<Arc<Keeper>, NotRecorded> {
        if let Some(keeper) = self.open_keeper(controller) {
            return Ok(keeper);
        }
        let _one = self.opening.lock().await;
        if let Some(keeper) = self.open_keeper(controller) {
            return Ok(keeper);
        }
        let keeper = Arc::new(Keeper::open(Arc::clone(&self.desk), controller).await?);
        tokio::spawn(Keeper::sign_in_time(Arc::downgrade(&keeper)));
        self.keepers.write().unwrap_or_else(PoisonError::into_inner).insert(controller, Arc::clone(&keeper));
        Ok(keeper)
    }
}

/// Tells whoever waits, in the order in which records were sent. One that is refused stops everything.
async fn watch_arrivals(mut arriving: mpsc::Receiver<OnItsWay>, failed: CancellationToken) {
    while let Some(OnItsWay { acknowledgement, told, .. }) = arriving.recv().await {
        if let Some(acknowledgement) = acknowledgement
            && let Err(error) = acknowledgement.wait().await
        {
            tracing::error!(error = error.chain(), "a record of a disclosure was refused; the bridge stops");
            failed.cancel();
            return;
        }
        // Whoever gave up is told by nobody; the record stands all the same.
        let _ = told.map(|told| told.send(()));
    }
}
