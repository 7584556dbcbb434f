//! Watch lists as a service: checked, written topic first, then joined in memory.
//!
//! Cast: [`topic`] is where they are kept, [`prepared`] seals and opens their keys, [`watched`] is
//! what the hub asks. Order of a change: buckets (acknowledged), the list's own record
//! (acknowledged), memory, answer. A whole set is a new generation, in force with the list's own
//! record. Additions and removals rewrite buckets of the generation that is there: what was not
//! answered may have been done in part, and is done by being asked for again.
//!
//! Must never show a key, and never grow beyond `watch_list_bytes_max`.

mod prepared;
mod topic;
mod watched;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};

use ryggrad_bridge_core::access::{Caller, Sight};
use ryggrad_bridge_core::idempotency::is_repeated;
use ryggrad_bridge_core::watch_list::bucket::{KEY_BYTES, RecordKey, overflows};
use ryggrad_bridge_core::watch_list::keys::Change;
use ryggrad_bridge_core::watch_list::{Index, NewWatchList, Slot, WatchList};
use ryggrad_log::{Appender, Connection, Seal, SealError};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::config::BridgeConfig;
use crate::telemetry::Telemetry;
use prepared::{Generation, Worker};
use topic::{Loaded, Sealed, Topic, owner_seal};
pub use watched::{HubWatch, Watched};

/// Bytes that a sealed bucket costs beside its keys: nonce, tag, allocation.
const BUCKET_BYTES: usize = 64;
/// Bytes that a key costs at most: in the index, and sealed.
const MEMBERSHIP_BYTES: usize = Index::MEMBERSHIP_BYTES + KEY_BYTES + 1;

/// Why a list was not changed.
#[derive(Debug, thiserror::Error)]
pub enum WatchListError {
    /// There is none of that name, or it is somebody else's.
    #[error("there is no such watch list")]
    NotFound,
    /// A limit is reached.
    #[error("{0}")]
    Limit(String),
    /// It does not open, so that nothing can be added to it.
    #[error("the watch list is damaged; upload the whole set")]
    Damaged,
    /// Kafka did not answer.
    #[error("Kafka does not answer; whether the watch list was changed is open: ask again for the same")]
    Log(#[from] ryggrad_log::Error),
    /// Keys could not be sealed, or opened.
    #[error("the watch list cannot be sealed or opened with this bridge's key")]
    Seal(#[from] SealError),
    /// The bridge stops.
    #[error("the bridge stops; whether the watch list was changed is open: ask again for the same")]
    Stopped,
}

/// Why the bridge cannot have its lists.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Kafka does not answer, or refuses.
    #[error(transparent)]
    Log(#[from] ryggrad_log::Error),
    /// They do not fit.
    #[error(
        "the watch lists need more than {0} bytes; without all of their keys nothing may be delivered: raise bridge.watch_list_bytes_max"
    )]
    TooLarge(usize),
}

/// A list with its keys as they are stored.
struct Kept {
    list: WatchList,
    buckets: Vec<Sealed>,
    /// No bucket is missing, and all of them open.
    whole: bool,
    /// The highest generation that something may have been written for.
    generation_max: u64,
}

/// All lists.
pub struct WatchLists {
    topic: Topic,
    seal: Seal,
    watched: Arc<Watched>,
    config: BridgeConfig,
    telemetry: Telemetry,
    known: RwLock<BTreeMap<Uuid, Kept>>,
    /// One change at a time, so that what is checked still holds when it is written.
    changing: Mutex<()>,
}

impl WatchLists {
    /// Reads all lists and joins them; what a crash has left over goes.
    pub async fn load(
        connection: &Connection,
        appender: Arc<Appender>,
        seal: Seal,
        watched: Arc<Watched>,
        config: &BridgeConfig,
        telemetry: Telemetry,
    ) -> Result<Self, LoadError> {
        let mut loaded = Loaded::read(connection, config.kafka_timeout_ms).await?;
        let topic = Topic::new(appender);
        watched.reset();
        let all = Self { topic, seal, watched, config: config.clone(), telemetry, known: RwLock::default(), changing: Mutex::default() };
        for (id, list) in std::mem::take(&mut loaded.lists) {
            let generation_max = loaded.generation_max(id).max(list.generation);
            let buckets = loaded.take_buckets(&list);
            all.check_room(list.keys_count).map_err(|_| LoadError::TooLarge(all.config.watch_list_bytes_max))?;
            let missing = buckets.iter().filter(|bucket| bucket.is_none()).count();
            let buckets: Vec<Sealed> = buckets.into_iter().flatten().collect();
            let worker = all.worker(&list);
            let opened = match missing {
                0 => blocking(move || Ok((worker.fingerprints(&buckets)?, buckets))).await,
                _ => Err(WatchListError::Damaged),
            };
            let mut kept = Kept { list, buckets: Vec::new(), whole: opened.is_ok(), generation_max };
            match opened {
                Ok((fingerprints, buckets)) => {
                    let slot = all.watched.fill(&fingerprints);
                    all.watched.join(id, slot);
                    // An addition that was not answered may be in its bucket and in no count.
                    (kept.list.keys_count, kept.buckets) = (fingerprints.len(), buckets);
                }
                Err(error) => {
                    tracing::error!(
                        watch_list = %id, missing, %error,
                        "a watch list is damaged, and subscriptions with it do not run; \
                         restore the key file, or upload the whole set and start the bridge again"
                    );
                }
            }
            all.write().insert(id, kept);
            all.tell();
        }
        if all.bytes() > all.config.watch_list_bytes_max {
            return Err(LoadError::TooLarge(all.config.watch_list_bytes_max));
        }
        all.topic.remove(loaded.left_over()).await?;
        Ok(all)
    }

    /// Makes a list without keys; of this id, if its request has one. Made before, and its answer lost, it is as it is.
    pub async fn create(self: &Arc<Self>, caller: Caller, new: NewWatchList, id: Option<Uuid>) -> Result<WatchList, WatchListError> {
        let lists = Arc::clone(self);
        detached(async move {
            let _one = lists.changing.lock().await;
            let now = jiff::Timestamp::now();
            let there = id.and_then(|id| lists.get(Sight::All, id));
            if let Some(there) = there.as_ref().filter(|there| is_repeated(there.created_at.parse().ok(), now)) {
                return Ok(there.clone());
            }
            lists.check_count(caller.organisation)?;
            let now = now.to_string();
            let list = WatchList {
                id: id.filter(|_| there.is_none()).unwrap_or_else(Uuid::now_v7),
                organisation: caller.organisation,
                supplier: caller.supplier,
                domain: new.domain,
                description: new.description,
                generation: 0,
                buckets: 0,
                keys_count: 0,
                created_at: now.clone(),
                updated_at: now,
            };
            lists.topic.put_list(&list).await?;
            let slot = lists.watched.fill(&[]);
            lists.watched.join(list.id, slot);
            lists.write().insert(list.id, Kept { list: list.clone(), buckets: Vec::new(), whole: true, generation_max: 0 });
            lists.tell();
            Ok(list)
        })
        .await
    }

    /// Those that somebody may see.
    pub fn list(&self, sight: Sight) -> Vec<WatchList> {
        let known = self.read();
        known.values().filter(|kept| sight.covers(kept.list.caller())).map(|kept| kept.list.clone()).collect()
    }

    /// One, if somebody may see it.
    pub fn get(&self, sight: Sight, id: Uuid) -> Option<WatchList> {
        self.read().get(&id).map(|kept| kept.list.clone()).filter(|list| sight.covers(list.caller()))
    }

    /// Whether all of its keys are there.
    pub fn is_whole(&self, id: Uuid) -> bool {
        self.read().get(&id).is_some_and(|kept| kept.whole)
    }

    /// Gives it other words.
    pub async fn describe(self: &Arc<Self>, id: Uuid, description: Option<String>) -> Result<WatchList, WatchListError> {
        let lists = Arc::clone(self);
        detached(async move {
            let _one = lists.changing.lock().await;
            let before = lists.get(Sight::All, id).ok_or(WatchListError::NotFound)?;
            let after = WatchList { description, updated_at: jiff::Timestamp::now().to_string(), ..before };
            lists.topic.put_list(&after).await?;
            lists.keep(&after, |_| {});
            Ok(after)
        })
        .await
    }

    /// Replaces its keys by these, which are in ascending order, each once: a new generation.
    pub async fn replace(self: &Arc<Self>, id: Uuid, keys: Vec<u64>) -> Result<WatchList, WatchListError> {
        let lists = Arc::clone(self);
        detached(async move {
            let _one = lists.changing.lock().await;
            lists.replace_all(id, keys).await
        })
        .await
    }

    /// Adds keys and takes out others. Done again it changes nothing.
    pub async fn change(self: &Arc<Self>, id: Uuid, change: Change) -> Result<WatchList, WatchListError> {
        let lists = Arc::clone(self);
        detached(async move {
            let _one = lists.changing.lock().await;
            lists.change_some(id, change).await
        })
        .await
    }

    /// Deletes it with its keys. The caller makes sure that nobody uses it.
    pub async fn delete(self: &Arc<Self>, id: Uuid) -> Result<(), WatchListError> {
        let lists = Arc::clone(self);
        detached(async move {
            let _one = lists.changing.lock().await;
            let list = lists.get(Sight::All, id).ok_or(WatchListError::NotFound)?;
            lists.topic.remove([RecordKey::List(id)]).await?;
            let kept = lists.write().remove(&id);
            let slot = lists.watched.part(id);
            if let Some(Kept { buckets, whole: true, .. }) = kept {
                lists.forget(list, buckets, slot).await?;
            }
            lists.tell();
            Ok(())
        })
        .await
    }

    async fn replace_all(&self, id: Uuid, keys: Vec<u64>) -> Result<WatchList, WatchListError> {
        let before = self.get(Sight::All, id).ok_or(WatchListError::NotFound)?;
        self.check_keys(keys.len())?;
        // Both generations are in memory for a moment.
        self.check_room(keys.len())?;
        // Never one for which something may have been written: then its buckets would be a mixture.
        let generation = self.next_generation(id);
        let keys_count = keys.len();
        let list = WatchList { generation, keys_count, updated_at: jiff::Timestamp::now().to_string(), ..before.clone() };
        let worker = self.worker(&list);
        let Generation { fingerprints, buckets } = blocking(move || Ok(worker.generation(&keys)?)).await?;
        self.topic.put_buckets(id, generation, (0..).zip(buckets.iter().cloned())).await?;
        let after = WatchList { buckets: u32::try_from(buckets.len()).unwrap_or(u32::MAX), ..list };
        self.topic.put_list(&after).await?;
        let watched = Arc::clone(&self.watched);
        let old_slot = blocking(move || {
            let slot = watched.fill(&fingerprints);
            Ok(watched.join(id, slot))
        })
        .await?;
        let (mut old_buckets, mut was_whole) = (Vec::new(), false);
        self.keep(&after, |kept| {
            old_buckets = std::mem::replace(&mut kept.buckets, buckets);
            was_whole = std::mem::replace(&mut kept.whole, true);
        });
        if was_whole && let Err(error) = self.forget(before, old_buckets, old_slot).await {
            // The next start does it.
            tracing::warn!(watch_list = %id, %error, "an old generation of a watch list is still in the topic");
        }
        self.tell();
        Ok(after)
    }

    async fn change_some(&self, id: Uuid, change: Change) -> Result<WatchList, WatchListError> {
        let (before, buckets) = {
            let known = self.read();
            let kept = known.get(&id).ok_or(WatchListError::NotFound)?;
            if !kept.whole {
                return Err(WatchListError::Damaged);
            }
            (kept.list.clone(), kept.buckets.clone())
        };
        let worker = self.worker(&before);
        if overflows(before.keys_count + change.add.len(), before.buckets) {
            let mut keys = blocking(move || Ok(worker.keys(&buckets)?)).await?;
            let count = keys.len();
            keys.retain(|key| change.remove.binary_search(key).is_err());
            let removed = count - keys.len();
            keys.extend(&change.add);
            keys.sort_unstable();
            keys.dedup();
            if removed == 0 && keys.len() == count {
                return Ok(before);
            }
            return self.replace_all(id, keys).await;
        }
        let rewritten = blocking(move || Ok(worker.rewritten(&buckets, &change)?)).await?;
        if rewritten.buckets.is_empty() {
            return Ok(before);
        }
        let keys_count = before.keys_count + rewritten.added.len() - rewritten.removed.len();
        self.check_keys(keys_count)?;
        self.check_room(rewritten.added.len().saturating_sub(rewritten.removed.len()))?;
        self.topic.put_buckets(id, before.generation, rewritten.buckets.clone()).await?;
        let after = WatchList { keys_count, updated_at: jiff::Timestamp::now().to_string(), ..before };
        self.topic.put_list(&after).await?;
        self.watched.change(id, &rewritten.added, &rewritten.removed);
        self.keep(&after, |kept| {
            for (bucket, sealed) in rewritten.buckets {
                if let Some(place) = kept.buckets.get_mut(bucket as usize) {
                    *place = sealed;
                }
            }
        });
        self.tell();
        Ok(after)
    }

    /// Forgets a generation, in memory and in the topic.
    async fn forget(&self, list: WatchList, buckets: Vec<Sealed>, slot: Option<Slot>) -> Result<(), WatchListError> {
        let (id, generation, count) = (list.id, list.generation, list.buckets);
        let (worker, watched) = (self.worker(&list), Arc::clone(&self.watched));
        blocking(move || {
            let fingerprints = worker.fingerprints(&buckets)?;
            slot.into_iter().for_each(|slot| watched.clear(slot, &fingerprints));
            Ok(())
        })
        .await?;
        Ok(self.topic.remove((0..count).map(|bucket| RecordKey::Bucket { list: id, generation, bucket })).await?)
    }

    fn worker(&self, list: &WatchList) -> Worker {
        Worker { seal: owner_seal(&self.seal, list.organisation), fingerprints: self.watched.fingerprints.clone(), list: list.clone() }
    }

    fn keep(&self, list: &WatchList, change: impl FnOnce(&mut Kept)) {
        if let Some(kept) = self.write().get_mut(&list.id) {
            kept.list = list.clone();
            change(kept);
        }
    }

    fn next_generation(&self, id: Uuid) -> u64 {
        self.write().get_mut(&id).map_or(1, |kept| {
            kept.generation_max += 1;
            kept.generation_max
        })
    }

    fn check_count(&self, organisation: Organisasjonsnummer) -> Result<(), WatchListError> {
        let (config, known) = (&self.config, self.read());
        let own = known.values().filter(|kept| kept.list.organisation == organisation).count();
        if own >= config.watch_lists_per_organisation_max {
            let max = config.watch_lists_per_organisation_max;
            return Err(WatchListError::Limit(format!("an organisation has at most {max} watch lists")));
        }
        if known.len() >= config.watch_lists_max {
            return Err(WatchListError::Limit(format!("this bridge holds at most {} watch lists", config.watch_lists_max)));
        }
        Ok(())
    }

    fn check_keys(&self, count: usize) -> Result<(), WatchListError> {
        let max = self.config.watch_list_keys_max;
        if count <= max { Ok(()) } else { Err(WatchListError::Limit(format!("a watch list has at most {max} keys"))) }
    }

    fn check_room(&self, added: usize) -> Result<(), WatchListError> {
        if self.bytes() + added * MEMBERSHIP_BYTES <= self.config.watch_list_bytes_max {
            return Ok(());
        }
        Err(WatchListError::Limit(
            "the bridge has no more memory for watch lists (an upload needs room beside the keys that it replaces); \
             let the operator raise bridge.watch_list_bytes_max"
                .to_owned(),
        ))
    }

    /// Bytes that all lists occupy.
    fn bytes(&self) -> usize {
        let known = self.read();
        let sealed: usize = known.values().flat_map(|kept| &kept.buckets).map(|bucket| bucket.len() + BUCKET_BYTES).sum();
        sealed + self.watched.size().1
    }

    fn tell(&self) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.telemetry.watch_lists.set(number(self.read().len()));
        self.telemetry.watch_list_keys.set(number(self.watched.size().0));
        self.telemetry.watch_list_bytes.set(number(self.bytes()));
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Uuid, Kept>> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, BTreeMap<Uuid, Kept>> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Goes on to its end also if the caller has hung up: topic and memory must agree.
async fn detached<T: Send + 'static>(work: impl Future<Output = Result<T, WatchListError>> + Send + 'static) -> Result<T, WatchListError> {
    tokio::spawn(work).await.unwrap_or(Err(WatchListError::Stopped))
}

/// What takes a processor for a while.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, WatchListError> + Send + 'static) -> Result<T, WatchListError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(WatchListError::Stopped))
}
