//! Subscriptions as a service: checked, written topic first, then put to work.
//!
//! Cast: [`strongbox`] seals and opens secrets, [`verification`] asks endpoints for their
//! agreement, [`trial`] sends test events, [`deliveries`] is what the engine tells.
//!
//! Order of a creation: starting offsets, topic (acknowledged), cursor store, worker, answer. A
//! crash in between leaves a subscription that starts from the offsets in the topic, or none.

mod deliveries;
mod pace;
mod replays;
mod rewind;
mod strongbox;
mod trial;
mod verification;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ryggrad_bridge_core::access::{Caller, Sight};
use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::idempotency::is_repeated;
use ryggrad_bridge_core::letter_name::WordKey;
use ryggrad_bridge_core::machine::Mode;
use ryggrad_bridge_core::patch::Patch;
use ryggrad_bridge_core::pull_cursor::CursorKey;
use ryggrad_bridge_core::signature::Secret;
use ryggrad_bridge_core::subscription::{Fault, NewSubscription, Precondition, Rotation, Start, State, Subscription, Verification};
use ryggrad_log::{Moment, Moments, Seal};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_store::{Change, Entry, Loaded, Stored};
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell, RwLock, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::access::{Access, Hold};
use crate::facts::Facts;
use crate::outlets::Outlets;
use crate::runtime::{Context, Engine, Running};
use crate::watch_lists::WatchLists;
pub use deliveries::{Fetched, Given, Selection, of_attempt};
use pace::Pace;
pub use replays::Replays;
use strongbox::Strongbox;
use verification::Verifications;

/// Stretches that are read at the same time to count what is in them.
const COUNTING_MAX: usize = 2;

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
    /// A secret could not be sealed, or opened.
    #[error("the subscription's secrets cannot be sealed or opened with this bridge's key")]
    Seal(#[from] ryggrad_log::SealError),
    /// It does not run, or not any more.
    #[error("the subscription does not run now")]
    Stopped,
    /// It is not what the request took it for.
    #[error("the subscription is not as the request demands")]
    Precondition,
    /// What was asked for does not go with what is there.
    #[error("the change does not fit")]
    Invalid(Vec<Fault>),
}

/// What subscriptions ask of others.
pub struct Others {
    /// Whose keys narrow them.
    pub watch_lists: Arc<WatchLists>,
    /// Who is stopped.
    pub access: Arc<Access>,
    /// What is written to topics of their receivers.
    pub outlets: Outlets,
}

/// All subscriptions.
pub struct Subscriptions {
    facts: Facts,
    replays: Replays,
    strongbox: Strongbox,
    cursor_key: CursorKey,
    word_key: WordKey,
    context: Arc<Context>,
    engine: Engine,
    watch_lists: Arc<WatchLists>,
    access: Arc<Access>,
    outlets: Outlets,
    moments: OnceCell<Moments>,
    verifications: Verifications,
    pace: Pace,
    counting: Semaphore,
    /// Cancelled when the bridge stops: nobody waits for events any longer.
    stopping: CancellationToken,
    known: RwLock<BTreeMap<Uuid, Subscription>>,
    /// One change at a time, so that topic, memory and workers agree on the order.
    changing: Mutex<()>,
}

impl Subscriptions {
    /// Subscriptions as loaded from their topic; `start_all` puts them to work.
    pub fn new(
        facts: Facts,
        replays: Replays,
        seal: Seal,
        context: Arc<Context>,
        engine: Engine,
        Others { watch_lists, access, outlets }: Others,
        loaded: BTreeMap<String, Subscription>,
    ) -> Self {
        let known = loaded.into_values().map(|subscription| (subscription.id, subscription)).collect();
        let stopping = CancellationToken::new();
        Self {
            facts,
            replays,
            cursor_key: CursorKey::new(&seal.derive("pull cursors")),
            word_key: WordKey::new(&seal.derive("names of dead letters")),
            strongbox: Strongbox::new(seal),
            engine,
            watch_lists,
            access,
            outlets,
            context,
            moments: OnceCell::new(),
            verifications: Verifications::new(stopping.clone()),
            pace: Pace::default(),
            counting: Semaphore::new(COUNTING_MAX),
            stopping,
            known: RwLock::new(known),
            changing: Mutex::default(),
        }
    }

    /// Puts every subscription to work from what is stored of it, forgets what is stored of
    /// others, and lets the tail go.
    pub async fn start_all(self: &Arc<Self>, Loaded { mut subscriptions, live }: Loaded) -> Result<(), ChangeError> {
        let stored = &mut subscriptions;
        let known: Vec<Subscription> = self.known.read().await.values().cloned().collect();
        for subscription in known {
            let own = stored.remove(subscription.id.as_bytes()).unwrap_or_default();
            self.start(&subscription, own, &live).await?;
            if self.shut(&subscription).is_none() {
                self.outlets.open(self, &subscription);
            }
            self.verify_if_due(&subscription);
            if first_end(&subscription).is_some() {
                self.retire_secrets_in_time(&subscription);
            }
        }
        let ids: BTreeSet<Uuid> = self.known.read().await.keys().copied().collect();
        self.outlets.tidy(|id| ids.contains(&id)).await;
        self.start_replays(stored).await?;
        if !stored.is_empty() {
            let gone = subscriptions.into_keys().map(|subscription| Change::Forget { subscription }).collect();
            self.context.writer.commit(gone).await?;
        }
        self.engine.go().await;
        Ok(())
    }

    /// Makes a subscription; of this id, if its request has one. The secret is returned this once.
    pub async fn create(
        self: &Arc<Self>,
        caller: Caller,
        new: NewSubscription,
        id: Option<Uuid>,
    ) -> Result<(Subscription, Secret), ChangeError> {
        let _one = self.changing.lock().await;
        let there = match id {
            Some(id) => self.known.read().await.get(&id).cloned(),
            None => None,
        };
        let now = jiff::Timestamp::now();
        if let Some(there) = there.as_ref().filter(|there| is_repeated(there.created_at.parse().ok(), now)) {
            // The request was made before, and its answer was lost.
            let opened = self.strongbox.open(there).ok_or(ryggrad_log::SealError::Refused)?;
            return Ok((there.clone(), opened.secrets.newest().clone()));
        }
        self.check_limits(caller.organisation).await?;
        self.check_watch_list(caller, new.watch_list, &new.types)?;
        // What is older than any kept answer has nothing to do with this request.
        let id = id.filter(|_| there.is_none()).unwrap_or_else(Uuid::now_v7);
        // Also where the receiver fetches, so that no subscription is without.
        let secret = new.secret.map_or_else(Strongbox::draw, Ok)?;
        let subscription = Subscription {
            id,
            organisation: caller.organisation,
            supplier: caller.supplier,
            channel: new.channel,
            from: self.first_offsets(&new.topics, &new.start).await?,
            types: new.types,
            filters: new.filters,
            watch_list: new.watch_list,
            sink: new.sink,
            description: new.description,
            start: new.start,
            state: State::Active,
            reason: None,
            created_at: jiff::Timestamp::now().to_string(),
            delivery: new.delivery,
            headers: new.headers.names(),
            sealed_headers: self.strongbox.seal_headers(id, &new.headers)?,
            verify: new.verify,
            verification: Verification::first(new.channel, new.verify),
            sealed_secret: self.strongbox.seal_secret(id, &secret)?,
            previous: Vec::new(),
        };
        // A topic without its subscription is deleted at the next start.
        self.outlets.make(&subscription).await?;
        self.facts.put(id.to_string(), &subscription).await?;
        self.known.write().await.insert(id, subscription.clone());
        self.start(&subscription, Stored::default(), &BTreeMap::new()).await?;
        self.outlets.open(self, &subscription);
        self.verify_if_due(&subscription);
        Ok((subscription, secret))
    }

    /// Those that somebody may see.
    pub async fn list(&self, sight: Sight) -> Vec<Subscription> {
        let known = self.known.read().await;
        known.values().filter(|subscription| sight.covers(subscription.caller())).cloned().collect()
    }

    /// One, if somebody may see it.
    pub async fn get(&self, sight: Sight, id: Uuid) -> Option<Subscription> {
        self.known.read().await.get(&id).filter(|subscription| sight.covers(subscription.caller())).cloned()
    }

    /// How it stands.
    pub async fn status(&self, id: Uuid) -> Option<Value> {
        let mut shown = self.engine.status(id).await?;
        if let Some(outlet) = self.outlets.status(id) {
            shown["kafka"] = outlet;
        }
        Some(shown)
    }

    /// Pauses or resumes; in force when it returns. `None` if it is gone meanwhile.
    pub async fn set_state(&self, id: Uuid, state: State) -> Result<Option<Subscription>, ChangeError> {
        self.change(id, |before| Ok(Some(Subscription { state, reason: None, ..before }))).await
    }

    /// Disables a subscription whose endpoint is gone, unless it has another endpoint by now.
    pub async fn disable(&self, id: Uuid, sink: Option<&str>, reason: String) -> Result<(), ChangeError> {
        let disable = |before: Subscription| {
            let same = before.sink.as_deref() == sink;
            Ok(same.then_some(Subscription { state: State::Disabled, reason: Some(reason), ..before }))
        };
        self.change(id, disable).await.map(|_| ())
    }

    /// Changes what a checked patch asks for; in force when it returns, also for retries under
    /// way. `None` if it is gone meanwhile.
    pub async fn patch(
        self: &Arc<Self>,
        id: Uuid,
        precondition: &Precondition,
        mut patch: Patch,
    ) -> Result<Option<Subscription>, ChangeError> {
        let patched = |before: Subscription| {
            if !precondition.holds_for(&before) {
                return Err(ChangeError::Precondition);
            }
            let (secret, headers) = (patch.secret.take(), patch.headers.take());
            let mut after = patch.apply(before.clone());
            if (after.watch_list, &after.types) != (before.watch_list, &before.types) {
                self.check_watch_list(after.caller(), after.watch_list, &after.types)?;
            }
            if let Some(secret) = &secret {
                after.sealed_secret = self.strongbox.seal_secret(id, secret)?;
                // Whoever brings another secret may be rid of one that is known to others.
                after.previous.clear();
            }
            if let Some(change) = headers {
                let headers = self.strongbox.open_headers(&after).ok_or(ryggrad_log::SealError::Refused)?;
                let headers = headers.changed(change).map_err(|fault| ChangeError::Invalid(vec![fault]))?;
                after.headers = headers.names();
                after.sealed_headers = self.strongbox.seal_headers(id, &headers)?;
            }
            Ok(Some(after))
        };
        let changed = self.change(id, patched).await?;
        if let Some(subscription) = &changed {
            self.verify_if_due(subscription);
        }
        Ok(changed)
    }

    /// Gives it another secret, beside which the present one signs for a while. The new secret is
    /// returned this once. `None` if the subscription is gone meanwhile.
    pub async fn rotate_secret(self: &Arc<Self>, id: Uuid, rotation: Rotation) -> Result<Option<(Subscription, Secret)>, ChangeError> {
        let secret = rotation.secret.clone().map_or_else(Strongbox::draw, Ok)?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let rotated = |before: Subscription| {
            let previous = rotation.previous(before.sealed_secret.clone(), &before.previous, now_ms);
            Ok(Some(Subscription { sealed_secret: self.strongbox.seal_secret(id, &secret)?, previous, ..before }))
        };
        let rotated = self.change(id, rotated).await?;
        rotated.iter().for_each(|subscription| self.retire_secrets_in_time(subscription));
        Ok(rotated.map(|subscription| (subscription, secret)))
    }

    /// Lets replaced secrets go in the background, each when its time is over.
    fn retire_secrets_in_time(self: &Arc<Self>, subscription: &Subscription) {
        let (id, mut next) = (subscription.id, first_end(subscription));
        let subscriptions = Arc::clone(self);
        tokio::spawn(async move {
            while let Some(until_ms) = next {
                let left_ms = until_ms.saturating_sub(jiff::Timestamp::now().as_millisecond());
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(left_ms.try_into().unwrap_or_default())) => {}
                    () = subscriptions.stopping.cancelled() => return,
                }
                let now_ms = jiff::Timestamp::now().as_millisecond();
                let retired = |mut before: Subscription| {
                    let count = before.previous.len();
                    before.previous.retain(|previous| now_ms < previous.until_ms);
                    Ok((before.previous.len() < count).then_some(before))
                };
                next = match subscriptions.change(id, retired).await {
                    Ok(subscription) => subscription.as_ref().and_then(first_end),
                    // What has ended signs no more in any case.
                    Err(error) => {
                        tracing::warn!(subscription = %id, %error, "a replaced secret could not be removed; it is tried again");
                        Some(now_ms.saturating_add(60_000))
                    }
                };
            }
        });
    }

    /// Topic first, then memory and worker. Cursors stay as they are.
    async fn change(
        &self,
        id: Uuid,
        change: impl FnOnce(Subscription) -> Result<Option<Subscription>, ChangeError>,
    ) -> Result<Option<Subscription>, ChangeError> {
        let _one = self.changing.lock().await;
        let Some(before) = self.known.read().await.get(&id).cloned() else { return Ok(None) };
        let Some(after) = change(before.clone())? else { return Ok(Some(before)) };
        if after != before {
            self.facts.put(id.to_string(), &after).await?;
            self.known.write().await.insert(id, after.clone());
        }
        // A change is a sign that something was mended, and ends every wait; an endpoint's
        // agreement alone is none.
        let only_agreed = after != before && Subscription { verification: before.verification.clone(), ..after.clone() } == before;
        let same_pace = after.attempts_per_minute_max() == before.attempts_per_minute_max();
        if !(only_agreed && same_pace && self.mode(&before) == self.mode(&after))
            && let Some(running) = self.running(&after)
        {
            self.engine.change(running).await;
            self.change_replays(&after).await;
        }
        self.outlets.change(&after);
        Ok(Some(after))
    }

    /// Deletes it with its cursors; attempts under way are broken off.
    pub async fn delete(&self, id: Uuid, precondition: &Precondition) -> Result<(), ChangeError> {
        let _one = self.changing.lock().await;
        if self.known.read().await.get(&id).is_some_and(|before| !precondition.holds_for(before)) {
            return Err(ChangeError::Precondition);
        }
        self.facts.remove(id.to_string()).await?;
        let gone = self.known.write().await.remove(&id);
        self.verifications.forget(id);
        self.engine.remove(id).await;
        if let Some(gone) = gone {
            self.outlets.delete(&gone).await;
        }
        self.context.disclosures.forget(id);
        self.forget_replays(id).await?;
        // If this is lost in a crash, the next start forgets them.
        self.context.writer.commit(vec![Change::Forget { subscription: id.into_bytes() }]).await?;
        Ok(())
    }

    /// Ends all workers after what is under way.
    pub async fn drain(&self) {
        self.stopping.cancel();
        self.outlets.ended().await;
        self.engine.drain().await;
    }

    /// Resolves when the bridge stops.
    pub fn stopping(&self) -> CancellationToken {
        self.stopping.clone()
    }

    /// Writes and reads the cursors of receivers that fetch.
    pub fn cursor_key(&self) -> &CursorKey {
        &self.cursor_key
    }

    /// `live` is where the tail was when these cursors were stored.
    async fn start(&self, subscription: &Subscription, stored: Stored, live: &BTreeMap<Place, i64>) -> Result<(), ChangeError> {
        let id = subscription.id;
        if let Some(running) = self.running(subscription) {
            self.engine.add(running, stored).await;
            return Ok(());
        }
        match self.shut(subscription) {
            Some(why) => tracing::warn!(subscription = %id, why, "one of its types is shut here, so it waits"),
            None => tracing::error!(
                subscription = %id,
                "its secrets or its watch list do not open with this key, so it does not run; restore the key file that it was made under"
            ),
        }
        // The tail goes without it: no cursor of it may imply that it was there.
        let mut left_behind = Vec::new();
        for (place, mut cursor) in stored.cursors.into_iter().filter(|(_, cursor)| cursor.attached) {
            cursor.attached = false;
            cursor.scanned_to = cursor.scanned_to.max(live.get(&place).copied().unwrap_or_default());
            left_behind.push(Change::Put(Entry::Cursor { subscription: id.into_bytes(), place, cursor }));
        }
        if !left_behind.is_empty() {
            self.context.writer.commit(left_behind).await?;
            self.context.noted.committed([id.into_bytes()], live);
        }
        Ok(())
    }

    /// Why a subscription waits, if one of its types is shut here: whole, so that its numbers have no gap, and from
    /// where it was once that type is open again.
    pub fn shut(&self, subscription: &Subscription) -> Option<String> {
        let mut carried = Catalogue::built_in().events.iter().filter(|event| subscription.from.contains_key(&event.topic));
        carried.find_map(|event| Some(format!("{} {}", event.ce_type, self.context.catalogue.why_shut(&event.ce_type)?)))
    }

    /// How a subscription is to run; `None` if its secrets or its watch list do not open, or a type is shut.
    fn running(&self, subscription: &Subscription) -> Option<Running> {
        let target = self.target_options(subscription);
        let opens = (target.is_some() || !subscription.channel.is_posted()) && self.knows_keys_of(subscription);
        (opens && self.shut(subscription).is_none()).then(|| Running {
            subscription: subscription.clone(),
            target,
            mode: self.mode(subscription),
            hold: self.hold(subscription),
            replay: None,
        })
    }

    /// Whether whoever a subscription is for is stopped.
    pub fn hold(&self, subscription: &Subscription) -> Arc<Hold> {
        self.access.hold(subscription.caller())
    }

    fn mode(&self, subscription: &Subscription) -> Mode {
        let may_deliver = !subscription.channel.is_posted() || subscription.may_deliver(self.context.config.development_egress);
        match subscription.state {
            State::Active if may_deliver => Mode::Running,
            State::Active | State::Paused | State::Disabled => Mode::Stopped,
        }
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
            // Kafka knows no times before 1970, and no record is as old.
            Start::Time(time) if time.as_millisecond() < 0 => Moment::Beginning,
            Start::Time(time) => Moment::Time(time.as_millisecond()),
        };
        let mut from = BTreeMap::new();
        for topic in topics {
            from.insert(topic.clone(), self.offsets_of(topic, moment).await?);
        }
        Ok(from)
    }

    /// The offset of a moment in each partition of a topic.
    async fn offsets_of(&self, topic: &str, moment: Moment) -> Result<Vec<i64>, ryggrad_log::Error> {
        let moments = self.moments.get_or_try_init(|| async { Moments::new(&self.context.connection) }).await?;
        let partitions = self.context.catalogue.topic(topic).map_or(0, |topic| topic.partitions);
        moments.offsets_of(topic, partitions, moment, self.context.config.kafka_timeout_ms).await
    }
}

/// When the first of the replaced secrets stops to sign.
fn first_end(subscription: &Subscription) -> Option<i64> {
    subscription.previous.iter().map(|previous| previous.until_ms).min()
}
