//! The records of disclosures, as they are written: an intent acknowledged before the first byte, how it went after.
//!
//! One topic and one chain for each controller; this bridge alone writes them. Order of a delivery: intent (acknowledged),
//! bytes, outcome (on its way). So nothing leaves without its intent, and an intent without an outcome may have been
//! received. A record that Kafka does not take at once waits for as long as that lasts, and all others with it; one that is refused
//! stops the bridge, which then goes on from what is in the topic.
//!
//! Must never hold a payload, nor let a delivery go on whose intent is not acknowledged.

mod keeper;
mod reading;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ryggrad_bridge_core::asymmetric::SigningKeys;
use ryggrad_bridge_core::delivery::MessageId;
use ryggrad_bridge_core::disclosure::{Head, How, Intent, Persons, Reading};
use ryggrad_bridge_core::record::Record;
use ryggrad_log::{Appender, Connection, Seal, topics};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_store::{OpenError, Store, Writer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::Disclosed;
use crate::config::BridgeConfig;
use crate::telemetry::Telemetry;
use keeper::Keeper;

/// Intents and looks that may wait for their acknowledgement, of all controllers together.
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
    /// The store does not say where they stood.
    #[error("where the records of disclosures stood cannot be read")]
    Store(#[from] OpenError),
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

/// A look that was recorded.
pub struct Looked {
    /// Where the chain stood behind it.
    pub head: Head,
    /// Where its record stands in the topic.
    pub offset: i64,
}

/// What keepers share.
struct Desk {
    connection: Connection,
    appender: Appender,
    rooms: Arc<Semaphore>,
    store: Store,
    writer: Writer,
    signing_keys: Arc<SigningKeys>,
    config: BridgeConfig,
    telemetry: Telemetry,
    failed: CancellationToken,
}

impl Desk {
    /// Room for one more to wait.
    async fn room(&self) -> Result<OwnedSemaphorePermit, NotRecorded> {
        Arc::clone(&self.rooms).acquire_owned().await.map_err(|_| NotRecorded::Stopped)
    }

    /// A book is ahead of its topic: nothing is recorded any more, and whoever waits for room is told so.
    fn fail(&self) {
        self.failed.cancel();
        self.rooms.close();
    }

    /// How long the records of a controller are kept, by their topic's own word.
    async fn retention_ms(&self, controller: Organisasjonsnummer) -> Result<i64, ryggrad_log::Error> {
        let described = topics::describe(&self.connection, &keeper::topic_of(controller)).await?;
        Ok(described.and_then(|topic| topic.retention_ms).unwrap_or(i64::MAX))
    }
}

/// All controllers' records.
pub struct Disclosures {
    desk: Arc<Desk>,
    keepers: Mutex<HashMap<Organisasjonsnummer, Opening>>,
    persons: Persons,
}

/// A keeper, once it has opened.
type Opening = watch::Receiver<Option<Arc<Keeper>>>;

impl Disclosures {
    /// Opens nothing yet. `failed` is cancelled when a record is refused.
    pub fn start(
        connection: &Connection,
        (store, writer): (Store, Writer),
        seal: &Seal,
        signing_keys: Arc<SigningKeys>,
        config: &BridgeConfig,
        telemetry: Telemetry,
        failed: CancellationToken,
    ) -> Result<Self, ryggrad_log::Error> {
        let (appender, rooms) = (Appender::patient(connection)?, Arc::new(Semaphore::new(UNACKNOWLEDGED_MAX)));
        let (connection, config) = (connection.clone(), config.clone());
        let desk = Arc::new(Desk { connection, appender, rooms, store, writer, signing_keys, config, telemetry, failed });
        let persons = Persons::new(&seal.derive("persons in disclosures"));
        Ok(Self { desk, keepers: Mutex::default(), persons })
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
            let (subscription, delivery, number) = (draft.subscription, draft.delivery, draft.number);
            awaited.push(keeper.intend(number, self.intent(draft)).await?);
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
            person: record.matter().subject.as_ref().map(|person| self.persons.of(disclosed.controller, person)),
            receiver: disclosed.caller.organisation,
            supplier: disclosed.caller.supplier,
            client: None,
            subscription,
            channel: channel.to_owned(),
            host: host.map(str::to_owned),
            view: disclosed.view.to_owned(),
            with_addresses: disclosed.with_addresses,
            basis: disclosed.law,
            purpose: None,
        }
    }

    /// Tells how an attempt went.
    pub fn ended(&self, ticket: &Ticket, how: How, status: Option<u16>) {
        ticket.keeper.ended(ticket.subscription, ticket.delivery.as_str(), how, status);
    }

    /// A receiver that fetches has taken everything up to a number.
    pub fn taken(&self, subscription: Uuid, number: u64) {
        self.opened().iter().for_each(|keeper| keeper.taken(subscription, number));
    }

    /// A subscription is gone.
    pub fn forget(&self, subscription: Uuid) {
        self.opened().iter().for_each(|keeper| keeper.forget(subscription));
    }

    /// Nothing is recorded any more: vouches for all of it.
    pub async fn close(&self) {
        let keepers = self.opened();
        futures_util::future::join_all(keepers.iter().map(|keeper| keeper.close())).await;
    }

    fn opened(&self) -> Vec<Arc<Keeper>> {
        let keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.values().filter_map(|opening| opening.borrow().clone()).collect()
    }

    /// The keeper of a controller's records; the first who asks has them opened, in a task that goes on if nobody waits.
    async fn keeper(&self, controller: Organisasjonsnummer) -> Result<Arc<Keeper>, NotRecorded> {
        let mut opening = {
            let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
            let open = || {
                let (opened, opening) = watch::channel(None);
                tokio::spawn(Keeper::keep(Arc::clone(&self.desk), controller, opened));
                opening
            };
            keepers.entry(controller).or_insert_with(open).clone()
        };
        let opened = opening.wait_for(Option::is_some).await.map_err(|_| NotRecorded::Stopped)?;
        opened.clone().ok_or(NotRecorded::Stopped)
    }

    /// Records a look; acknowledged when it returns, with where the chain stands then.
    pub async fn look(&self, controller: Organisasjonsnummer, reading: Reading) -> Result<Looked, NotRecorded> {
        let timeout = Duration::from_millis(self.desk.config.disclosure_timeout_ms);
        let looked = async { self.keeper(controller).await?.read(reading).await };
        tokio::time::timeout(timeout, looked).await.unwrap_or(Err(NotRecorded::Timeout))
    }
}
