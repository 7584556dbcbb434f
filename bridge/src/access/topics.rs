//! The topics of members, delegations, grants, relations and blocks, and of who changed them.
//!
//! Facts about persons lie sealed. Must never leave out what it cannot read: a block that is not
//! known would let something leave.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ryggrad_bridge_core::access::{Change, Kept, Kind};
use ryggrad_log::{Appender, Connection, Error, Moment, Read, ReaderLimits, Remedy, Seal, Start, follow, offsets_of};
use ryggrad_schemas::catalogue::topics::{ACCESS_HISTORY, BLOCKS, DELEGATIONS, GRANTS, MEMBERS, RELATIONS};
use ryggrad_schemas::{EncodedRecord, LogRecord};

use super::{AccessError, LoadError};

/// Where facts of a kind are kept.
pub const fn topic(kind: Kind) -> &'static str {
    match kind {
        Kind::Member => MEMBERS,
        Kind::Delegation => DELEGATIONS,
        Kind::Grant => GRANTS,
        Kind::Relation => RELATIONS,
        Kind::Block => BLOCKS,
    }
}

/// Writes and reads all of them.
pub struct Topics {
    appender: Arc<Appender>,
    seal: Seal,
}

impl Topics {
    /// The topics, sealed with the bridge's key.
    pub fn new(appender: Arc<Appender>, seal: Seal) -> Self {
        Self { appender, seal }
    }

    /// Writes a change into the history, and tells where it stands.
    pub async fn tell(&self, change: &Change) -> Result<i64, Error> {
        // Our own type, which has a JSON form.
        let value = serde_json::to_vec(change).unwrap_or_default();
        self.append(ACCESS_HISTORY, format!("{}/{}", change.kind.name(), change.id), Some(value), "application/json").await
    }

    /// Writes a fact, or that it is gone: from the acknowledgement on it counts.
    pub async fn put(&self, kind: Kind, id: &str, kept: Option<&Kept>) -> Result<(), AccessError> {
        let plain = kept.map(|kept| serde_json::to_vec(kept).unwrap_or_default());
        let (value, content_type) = match plain {
            Some(plain) if kind.is_about_persons() => {
                (Some(self.seal.seal(rand::random(), &context(kind, id), &plain)?), "application/octet-stream")
            }
            plain => (plain, "application/json"),
        };
        self.append(topic(kind), id.to_owned(), value, content_type).await?;
        Ok(())
    }

    /// All facts of a kind.
    pub async fn load(&self, connection: &Connection, kind: Kind, silent_ms_max: u64) -> Result<BTreeMap<String, Kept>, LoadError> {
        let (mut found, mut unreadable) = (BTreeMap::new(), BTreeSet::new());
        read(connection, topic(kind), Start::Beginning, silent_ms_max, |record| {
            let Some(id) = record.key else { return };
            match record.value.map(|value| self.open(kind, &id, value)) {
                None => {
                    unreadable.remove(&id);
                    found.remove(&id);
                }
                Some(Some(kept)) => {
                    unreadable.remove(&id);
                    found.insert(id, kept);
                }
                Some(None) => {
                    tracing::error!(topic = topic(kind), offset = record.offset, "a stored fact cannot be read");
                    unreadable.insert(id);
                }
            }
        })
        .await?;
        if unreadable.is_empty() { Ok(found) } else { Err(LoadError::Unreadable { topic: topic(kind), count: unreadable.len() }) }
    }

    /// The newest changes with where they stand, the oldest first.
    pub async fn history(&self, connection: &Connection, changes_max: usize, silent_ms_max: u64) -> Result<VecDeque<(i64, Change)>, Error> {
        let at = async |moment| {
            Ok::<i64, Error>(offsets_of(connection, ACCESS_HISTORY, 1, moment, silent_ms_max).await?.first().copied().unwrap_or(0))
        };
        let (first, end) = (at(Moment::Beginning).await?, at(Moment::End).await?);
        let start = first.max(end.saturating_sub(i64::try_from(changes_max).unwrap_or(i64::MAX)));
        let mut found = VecDeque::new();
        read(connection, ACCESS_HISTORY, Start::Offset(start), silent_ms_max, |record| {
            match record.value.as_deref().map(serde_json::from_slice) {
                Some(Ok(change)) => found.push_back((record.offset, change)),
                _ => tracing::error!(topic = ACCESS_HISTORY, offset = record.offset, "a change in the history cannot be read"),
            }
        })
        .await?;
        Ok(found)
    }

    fn open(&self, kind: Kind, id: &str, value: Vec<u8>) -> Option<Kept> {
        let plain = if kind.is_about_persons() { self.seal.open(&context(kind, id), &value).ok()? } else { value };
        serde_json::from_slice::<Kept>(&plain).ok().filter(|kept| kept.fact.kind() == kind)
    }

    async fn append(&self, topic: &str, key: String, value: Option<Vec<u8>>, content_type: &'static str) -> Result<i64, Error> {
        let headers = [("content-type", content_type)].into_iter().collect();
        let record = EncodedRecord { topic: topic.to_owned(), partition: Some(0), key, value, headers };
        Ok(self.appender.append(&record).await?.offset)
    }
}

/// What a sealed fact is bound to: its kind and its id.
fn context(kind: Kind, id: &str) -> String {
    format!("{}/{id}", kind.name())
}

/// Reads a topic of one partition to its present end.
async fn read(
    connection: &Connection,
    topic: &'static str,
    start: Start,
    silent_ms_max: u64,
    mut take: impl FnMut(LogRecord),
) -> Result<(), Error> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| Error {
        doing: format!("read {topic} to its end"),
        remedy: Remedy::Retry,
        source,
    };
    let mut follower = follow(connection, topic, &[(0, start)], ReaderLimits::default())?;
    loop {
        match tokio::time::timeout(Duration::from_millis(silent_ms_max), follower.next()).await {
            Ok(Some(Read::Records(records))) => records.into_iter().for_each(&mut take),
            Ok(Some(Read::AtEnd { .. })) => return Ok(()),
            Ok(Some(Read::Away { reason })) => tracing::debug!(reason, topic, "waiting for Kafka"),
            Ok(Some(Read::Failed(error))) => return Err(error),
            Ok(None) => return Err(failed("the reader has ended".into())),
            Err(silent) => return Err(failed(silent.into())),
        }
    }
}
