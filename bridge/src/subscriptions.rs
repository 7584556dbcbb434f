//! Subscriptions as a service: checked, written topic first, then put to work.
//!
//! Order of a creation: starting offsets, topic (acknowledged), cursor store, worker, answer. A
//! crash in between leaves a subscription that starts from the offsets in the topic, or none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::machine::Mode;
use ryggrad_bridge_core::patch::Patch;
use ryggrad_bridge_core::signature::Secret;
use ryggrad_bridge_core::subscription::{NewSubscription, Start, State, Subscription};
use ryggrad_log::{Moment, Seal, offsets_of};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_store::{Change, StoredCursor};
use serde_json::Value;
use tokio::sync::{Mutex, RwLock};
use uuid::Uuid;

use crate::facts::Facts;
use crate::hexadecimal;
use crate::runtime::{Context, Engine};

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// A limit is reached.
    #[error("{0}")]
    Limit(String),
    /// Kafka did not take it.
    #[error("Kafka does not answer; nothing was changed")]
    Log(#[from] ryggrad_log::Error),
    /// The cursor store did not take it.
    #[error("the cursor store cannot be written")]
    Store(#[from] ryggrad_store::CommitError),
    /// The secret could not be sealed.
    #[error("the secret cannot be sealed")]
    Seal(#[from] ryggrad_log::SealError),
}

/// All subscriptions.
pub struct Subscriptions {
    facts: Facts,
    seal: Seal,
    context: Arc<Context>,
    engine: Engine,
    known: RwLock<BTreeMap<Uuid, Subscription>>,
    /// One change at a time, so that topic, memory and workers agree on the order.
    changing: Mutex<()>,
}

impl Subscriptions {
    /// Subscriptions as loaded from their topic; `start_all` puts them to work.
    pub fn new(facts: Facts, seal: Seal, context: Arc<Context>, loaded: BTreeMap<String, Subscription>) -> Self {
        let known = loaded.into_values().map(|subscription| (subscription.id, subscription)).collect();
        Self { facts, seal, engine: Engine::new(Arc::clone(&context)), context, known: RwLock::new(known), changing: Mutex::default() }
    }

    /// Starts a worker for each subscription from its stored cursors, and forgets cursors whose
    /// subscription is gone.
    pub async fn start_all(&self, stored: Vec<StoredCursor>) -> Result<(), ChangeError> {
        let mut cursors: HashMap<(Uuid, Place), Cursor> = HashMap::new();
        let mut gone = Vec::new();
        let known = self.known.read().await;
        for found in stored {
            let id = Uuid::from_bytes(found.subscription);
            match found.cursor {
                _ if !known.contains_key(&id) => gone.push(Change::Forget { subscription: found.subscription }),
                Some(cursor) => {
                    cursors.insert((id, found.place), cursor);
                }
                None => tracing::error!(subscription = %id, "a stored cursor is damaged; the subscription starts over in that partition"),
            }
        }
        if !gone.is_empty() {
            self.context.writer.commit(gone).await?;
        }
        for subscription in known.values() {
            let own = self.first_cursors(subscription).into_iter();
            let own = own.map(|(place, first)| (place, cursors.remove(&(subscription.id, place)).unwrap_or(first))).collect();
            self.start(subscription, own).await;
        }
        Ok(())
    }

    /// Makes a subscription. The secret is returned this once.
    pub async fn create(&self, organisation: Organisasjonsnummer, new: NewSubscription) -> Result<(Subscription, Secret), ChangeError> {
        let _one = self.changing.lock().await;
        self.check_limits(organisation).await?;
        let id = Uuid::now_v7();
        let secret = match new.secret {
            Some(secret) => secret,
            // 32 bytes are always a secret's length.
            None => Secret::from_bytes(rand::random::<[u8; 32]>().to_vec()).map_err(|_| ryggrad_log::SealError::Shape)?,
        };
        let subscription = Subscription {
            id,
            organisation,
            from: self.first_offsets(&new.topics, &new.start).await?,
            types: new.types,
            sink: new.sink,
            description: new.description,
            start: new.start,
            state: State::Active,
            reason: None,
            created_at: jiff::Timestamp::now().to_string(),
            sealed_secret: self.sealed(id, &secret)?,
        };
        self.facts.put(id.to_string(), &subscription).await?;
        let cursors = self.first_cursors(&subscription);
        let changes =
            cursors.iter().map(|(place, cursor)| Change::Put { subscription: id.into_bytes(), place: *place, cursor: cursor.clone() });
        self.context.writer.commit(changes.collect()).await?;
        self.known.write().await.insert(id, subscription.clone());
        self.engine.start(&subscription, secret.clone(), Mode::Running, cursors).await;
        Ok((subscription, secret))
    }

    /// Those that an organisation may see, or all.
    pub async fn list(&self, organisation: Option<Organisasjonsnummer>) -> Vec<Subscription> {
        let known = self.known.read().await;
        known.values().filter(|subscription| organisation.is_none_or(|own| own == subscription.organisation)).cloned().collect()
    }

    /// One that an organisation may see, or any.
    pub async fn get(&self, organisation: Option<Organisasjonsnummer>, id: Uuid) -> Option<Subscription> {
        let known = self.known.read().await;
        known.get(&id).filter(|subscription| organisation.is_none_or(|own| own == subscription.organisation)).cloned()
    }

    /// How it stands.
    pub async fn status(&self, id: Uuid) -> Option<Value> {
        self.engine.status(id).await
    }

    /// Pauses or resumes; in force when it returns. `None` if it is gone meanwhile.
    pub async fn set_state(&self, id: Uuid, state: State) -> Result<Option<Subscription>, ChangeError> {
        self.change(id, |before| Ok(Some((Subscription { state, reason: None, ..before }, None)))).await
    }

    /// Disables a subscription whose endpoint is gone, unless it has another endpoint by now.
    pub async fn disable(&self, id: Uuid, sink: &str, reason: String) -> Result<(), ChangeError> {
        let disable = |before: Subscription| {
            Ok((before.sink == sink).then(|| (Subscription { state: State::Disabled, reason: Some(reason), ..before }, None)))
        };
        self.change(id, disable).await.map(|_| ())
    }

    /// Changes what a checked patch asks for; in force when it returns, also for retries under
    /// way. `None` if it is gone meanwhile.
    pub async fn patch(&self, id: Uuid, patch: Patch) -> Result<Option<Subscription>, ChangeError> {
        let patched = |before: Subscription| {
            let secret = patch.secret.clone();
            let mut after = patch.apply(before);
            if let Some(secret) = &secret {
                after.sealed_secret = self.sealed(id, secret)?;
            }
            Ok(Some((after, secret)))
        };
        self.change(id, patched).await
    }

    /// Topic first, then memory and worker. Cursors stay as they are.
    async fn change(
        &self,
        id: Uuid,
        change: impl FnOnce(Subscription) -> Result<Option<(Subscription, Option<Secret>)>, ChangeError>,
    ) -> Result<Option<Subscription>, ChangeError> {
        let _one = self.changing.lock().await;
        let Some(before) = self.known.read().await.get(&id).cloned() else { return Ok(None) };
        let Some((after, secret)) = change(before.clone())? else { return Ok(Some(before)) };
        if after != before {
            self.facts.put(id.to_string(), &after).await?;
            self.known.write().await.insert(id, after.clone());
        }
        self.engine.change(after.clone(), secret, mode(after.state)).await;
        Ok(Some(after))
    }

    /// Deletes it with its cursors; attempts under way are broken off.
    pub async fn delete(&self, id: Uuid) -> Result<(), ChangeError> {
        let _one = self.changing.lock().await;
        self.facts.remove(id.to_string()).await?;
        self.known.write().await.remove(&id);
        self.engine.abandon(id).await;
        // If this is lost in a crash, the next start forgets them.
        self.context.writer.commit(vec![Change::Forget { subscription: id.into_bytes() }]).await?;
        Ok(())
    }

    /// Ends all workers after what is under way.
    pub async fn drain(&self) {
        self.engine.drain().await;
    }

    async fn start(&self, subscription: &Subscription, cursors: Vec<(Place, Cursor)>) {
        match self.open_secret(subscription) {
            Some(secret) => self.engine.start(subscription, secret, mode(subscription.state), cursors).await,
            None => tracing::error!(
                subscription = %subscription.id,
                "its secret does not open with this key, so it does not run; restore the key file that it was made under"
            ),
        }
    }

    fn sealed(&self, id: Uuid, secret: &Secret) -> Result<String, ChangeError> {
        let sealed = self.seal.seal(rand::random(), &id.to_string(), secret.reveal().as_bytes())?;
        Ok(hexadecimal::encode(&sealed))
    }

    fn open_secret(&self, subscription: &Subscription) -> Option<Secret> {
        let sealed = hexadecimal::decode(&subscription.sealed_secret)?;
        let opened = self.seal.open(&subscription.id.to_string(), &sealed).ok()?;
        String::from_utf8(opened).ok()?.parse().ok()
    }

    async fn check_limits(&self, organisation: Organisasjonsnummer) -> Result<(), ChangeError> {
        let (config, known) = (&self.context.config, self.known.read().await);
        let own = known.values().filter(|subscription| subscription.organisation == organisation).count();
        if own >= config.subscriptions_per_organisation_max {
            return Err(ChangeError::Limit(format!(
                "an organisation has at most {} subscriptions",
                config.subscriptions_per_organisation_max
            )));
        }
        if known.len() >= config.subscriptions_max {
            return Err(ChangeError::Limit(format!("this bridge carries at most {} subscriptions", config.subscriptions_max)));
        }
        Ok(())
    }

    async fn first_offsets(&self, topics: &[String], start: &Start) -> Result<BTreeMap<String, Vec<i64>>, ryggrad_log::Error> {
        let moment = match start {
            Start::Now => Moment::End,
            Start::Beginning => Moment::Beginning,
            Start::Time(time) => Moment::Time(time.as_millisecond()),
        };
        let mut from = BTreeMap::new();
        for topic in topics {
            let partitions = self.context.catalogue.topic(topic).map_or(0, |topic| topic.partitions);
            let timeout_ms = self.context.config.kafka_timeout_ms;
            from.insert(topic.clone(), offsets_of(&self.context.connection, topic, partitions, moment, timeout_ms).await?);
        }
        Ok(from)
    }

    fn first_cursors(&self, subscription: &Subscription) -> Vec<(Place, Cursor)> {
        let topics = subscription.from.iter().filter_map(|(name, offsets)| Some((self.context.catalogue.topic(name)?.id, offsets)));
        topics
            .flat_map(|(topic, offsets)| {
                (0..).zip(offsets).map(move |(partition, offset)| (Place { topic, partition }, Cursor::starting_at(*offset)))
            })
            .collect()
    }
}

fn mode(state: State) -> Mode {
    match state {
        State::Active => Mode::Running,
        State::Paused | State::Disabled => Mode::Stopped,
    }
}
