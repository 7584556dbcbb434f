//! The copy of the cursors in Kafka, at most a second old, and what is made of it when the store
//! is lost.
//!
//! Key: a subscription's id, or `live` for the tail. What is copied is read from the store, so
//! that it is on disk already. A subscription's record goes before the tail's position that it
//! belongs to: a rebuilt cursor may repeat deliveries, and never leaves any out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ryggrad_bridge_core::cursor::{Cursor, LaneKey, Place};
use ryggrad_bridge_core::machine::{DeadLetter, Numbering};
use ryggrad_bridge_core::outcome::Outcome;
use ryggrad_store::{Store, Stored, SubscriptionId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::facts::Facts;
use crate::hexadecimal;
use crate::telemetry::Telemetry;

/// How often changes are copied.
const COPY_EVERY: Duration = Duration::from_millis(500);
/// Key of the tail's record.
const LIVE: &str = "live";

/// What has changed on disk and is not copied yet.
#[derive(Debug, Default)]
pub struct Changes {
    subscriptions: BTreeSet<SubscriptionId>,
    forgotten: BTreeSet<SubscriptionId>,
    live: BTreeMap<Place, i64>,
}

/// Where changes are noted.
#[derive(Debug, Default)]
pub struct Noted(Mutex<Changes>);

impl Noted {
    /// A commit is on disk, and the tail's position with it.
    pub fn committed(&self, subscriptions: impl IntoIterator<Item = SubscriptionId>, live: &BTreeMap<Place, i64>) {
        let mut changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changes.subscriptions.extend(subscriptions);
        changes.live.clone_from(live);
    }

    /// A subscription is gone.
    pub fn forgotten(&self, subscription: SubscriptionId) {
        let mut changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changes.subscriptions.remove(&subscription);
        changes.forgotten.insert(subscription);
    }

    fn take(&self) -> Changes {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What could not be copied is still to be.
    fn put_back(&self, taken: Changes) {
        let mut changes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if changes.live.is_empty() {
            changes.live = taken.live;
        }
        let still = taken.subscriptions.into_iter().filter(|id| !changes.forgotten.contains(id)).collect::<Vec<_>>();
        changes.subscriptions.extend(still);
        changes.forgotten.extend(taken.forgotten);
    }
}

/// A record of the topic.
#[derive(Debug, Serialize, Deserialize, Default)]
#[serde(default)]
struct Copy {
    epoch: u32,
    next: u64,
    /// `topic number/partition` -> the cursor's stored form in hexadecimal.
    cursors: BTreeMap<String, String>,
    dead_letters: Vec<CopiedLetter>,
    /// `topic number/partition` -> the next offset of the tail.
    live: BTreeMap<String, i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct CopiedLetter {
    place: String,
    offset: i64,
    lane: u64,
    number: u64,
    hopeless: bool,
    parked: bool,
    at_ms: u64,
}

/// Copies changes for as long as the bridge runs.
pub async fn copy(facts: Facts, store: Store, noted: Arc<Noted>, telemetry: Telemetry) {
    loop {
        tokio::time::sleep(COPY_EVERY).await;
        let changes = noted.take();
        if let Err(error) = copy_once(&facts, &store, &changes).await {
            tracing::warn!(error, "cursors could not be copied to Kafka; this is tried again");
            telemetry.changelog_failures.inc();
            noted.put_back(changes);
        }
    }
}

async fn copy_once(facts: &Facts, store: &Store, changes: &Changes) -> Result<(), String> {
    let told = |error: ryggrad_log::Error| error.chain();
    let mut records = Vec::new();
    for id in &changes.subscriptions {
        let stored = store.read(*id).map_err(|error| error.to_string())?;
        if let Some(numbering) = stored.numbering {
            records.push((Uuid::from_bytes(*id).to_string(), Copy::of(&stored, numbering)));
        }
    }
    facts.put_all(records).await.map_err(told)?;
    for id in &changes.forgotten {
        facts.remove(Uuid::from_bytes(*id).to_string()).await.map_err(told)?;
    }
    if !changes.live.is_empty() {
        let live = changes.live.iter().map(|(place, to)| (name_of(*place), *to)).collect();
        facts.put(LIVE.to_owned(), &Copy { live, ..Copy::default() }).await.map_err(told)?;
    }
    Ok(())
}

/// What can be rebuilt.
#[derive(Debug, Default)]
pub struct Rebuilt {
    /// Where the tail was.
    pub live: BTreeMap<Place, i64>,
    /// By subscription, as `damaged`: it may be a little old.
    pub subscriptions: BTreeMap<SubscriptionId, Stored>,
}

/// Reads the copy.
pub async fn rebuild(facts: &Facts, connection: &ryggrad_log::Connection, timeout_ms: u64) -> Result<Rebuilt, ryggrad_log::Error> {
    let mut copies: BTreeMap<String, Copy> = facts.load(connection, timeout_ms).await?;
    let live = copies.remove(LIVE).unwrap_or_default().live;
    let live: BTreeMap<Place, i64> = live.iter().filter_map(|(name, to)| Some((place_of(name)?, *to))).collect();
    let mut rebuilt = Rebuilt { live, ..Rebuilt::default() };
    for (key, copy) in copies {
        if let Ok(id) = key.parse::<Uuid>() {
            rebuilt.subscriptions.insert(id.into_bytes(), copy.stored(&rebuilt.live));
        }
    }
    Ok(rebuilt)
}

impl Copy {
    fn of(stored: &Stored, numbering: Numbering) -> Self {
        Self {
            epoch: numbering.epoch,
            next: numbering.next,
            cursors: stored.cursors.iter().map(|(place, cursor)| (name_of(*place), hexadecimal::encode(&cursor.to_bytes()))).collect(),
            dead_letters: stored.dead_letters.iter().map(|(letter, at_ms)| CopiedLetter::of(letter, *at_ms)).collect(),
            live: BTreeMap::new(),
        }
    }

    fn stored(self, live: &BTreeMap<Place, i64>) -> Stored {
        let cursors = self.cursors.iter().filter_map(|(name, bytes)| {
            let place = place_of(name)?;
            let mut cursor = Cursor::from_bytes(&hexadecimal::decode(bytes)?).ok()?;
            if std::mem::take(&mut cursor.attached) {
                cursor.scanned_to = cursor.scanned_to.max(live.get(&place).copied().unwrap_or_default());
            }
            Some((place, cursor))
        });
        Stored {
            cursors: cursors.collect(),
            numbering: Some(Numbering { epoch: self.epoch, next: self.next }),
            dead_letters: self.dead_letters.iter().filter_map(CopiedLetter::letter).collect(),
            damaged: true,
        }
    }
}

impl CopiedLetter {
    fn of(letter: &DeadLetter, at_ms: u64) -> Self {
        Self {
            place: name_of(letter.place),
            offset: letter.offset,
            lane: letter.lane.0,
            number: letter.number,
            hopeless: letter.outcome == Outcome::Hopeless,
            parked: letter.parked,
            at_ms,
        }
    }

    fn letter(&self) -> Option<(DeadLetter, u64)> {
        let outcome = if self.hopeless { Outcome::Hopeless } else { Outcome::Failed };
        let place = place_of(&self.place)?;
        let letter = DeadLetter { place, offset: self.offset, lane: LaneKey(self.lane), number: self.number, outcome, parked: self.parked };
        Some((letter, self.at_ms))
    }
}

fn name_of(place: Place) -> String {
    format!("{}/{}", place.topic, place.partition)
}

fn place_of(name: &str) -> Option<Place> {
    let (topic, partition) = name.split_once('/')?;
    Some(Place { topic: topic.parse().ok()?, partition: partition.parse().ok()? })
}
