//! The topic `ryggrad.watch-lists`: a record for each list, and sealed ones for buckets of keys.
//!
//! The list's own record names the generation that counts: whatever else is found there is
//! left over from a crash, and goes. Must never write a key in the clear, nor log one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use ryggrad_bridge_core::watch_list::WatchList;
use ryggrad_bridge_core::watch_list::bucket::RecordKey;
use ryggrad_log::{Appender, Connection, Error, Read, ReaderLimits, Remedy, Seal, Start, follow};
use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::topics::WATCH_LISTS;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use uuid::Uuid;

/// Records that wait for their acknowledgement together.
const RECORDS_AT_A_TIME: usize = 256;

/// A bucket's bytes, sealed.
pub type Sealed = Arc<[u8]>;

/// The topic.
pub struct Topic {
    appender: Arc<Appender>,
}

/// What the topic holds.
#[derive(Default)]
pub struct Loaded {
    /// Lists.
    pub lists: BTreeMap<Uuid, WatchList>,
    /// Lists whose own record cannot be read: what else there is of them is left alone.
    pub unreadable: BTreeSet<Uuid>,
    /// Buckets by list, generation and number.
    pub buckets: BTreeMap<Uuid, BTreeMap<u64, BTreeMap<u32, Sealed>>>,
}

/// Seals the keys of one owner; its key follows from the bridge's.
pub fn owner_seal(seal: &Seal, organisation: Organisasjonsnummer) -> Seal {
    Seal::new(&seal.derive(&format!("watch lists of {organisation}")))
}

impl Topic {
    /// The topic.
    pub fn new(appender: Arc<Appender>) -> Self {
        Self { appender }
    }

    /// Writes a list's own record: from its acknowledgement on its generation counts.
    pub async fn put_list(&self, list: &WatchList) -> Result<(), Error> {
        // Our own type, which has a JSON form.
        self.append(RecordKey::List(list.id), serde_json::to_vec(list).ok()).await
    }

    /// Writes buckets, and waits until all are acknowledged.
    pub async fn put_buckets(&self, list: Uuid, generation: u64, buckets: impl IntoIterator<Item = (u32, Sealed)>) -> Result<(), Error> {
        let records = buckets.into_iter().map(|(bucket, sealed)| (RecordKey::Bucket { list, generation, bucket }, Some(sealed.to_vec())));
        self.append_all(records).await
    }

    /// Writes tombstones, and waits until all are acknowledged.
    pub async fn remove(&self, keys: impl IntoIterator<Item = RecordKey>) -> Result<(), Error> {
        self.append_all(keys.into_iter().map(|key| (key, None))).await
    }

    async fn append_all(&self, records: impl Iterator<Item = (RecordKey, Option<Vec<u8>>)>) -> Result<(), Error> {
        let mut records = records.peekable();
        while records.peek().is_some() {
            try_join_all(records.by_ref().take(RECORDS_AT_A_TIME).map(|(key, value)| self.append(key, value))).await?;
        }
        Ok(())
    }

    async fn append(&self, key: RecordKey, value: Option<Vec<u8>>) -> Result<(), Error> {
        let content_type = match key {
            RecordKey::List(_) => "application/json",
            RecordKey::Bucket { .. } => "application/octet-stream",
        };
        let headers = [("content-type", content_type)].into_iter().collect();
        let record = EncodedRecord { topic: WATCH_LISTS.to_owned(), partition: Some(0), key: key.to_string(), value, headers };
        self.appender.append(&record).await.map(|_| ())
    }
}

impl Loaded {
    /// Reads the topic to its present end. `silent_ms_max` is how long it may have nothing to say.
    pub async fn read(connection: &Connection, silent_ms_max: u64) -> Result<Self, Error> {
        let doing = || format!("read {WATCH_LISTS} to its end");
        let mut follower = follow(connection, WATCH_LISTS, &[(0, Start::Beginning)], ReaderLimits::default())?;
        let mut loaded = Self::default();
        loop {
            let next = tokio::time::timeout(Duration::from_millis(silent_ms_max), follower.next()).await;
            match next {
                Ok(Some(Read::Records(records))) => {
                    records
                        .into_iter()
                        .for_each(|record| loaded.take(record.key.as_deref().unwrap_or_default(), record.offset, record.value));
                }
                Ok(Some(Read::AtEnd { .. })) => return Ok(loaded),
                Ok(Some(Read::Away { reason })) => tracing::debug!(reason, "watch lists wait for Kafka"),
                Ok(Some(Read::Failed(error))) => return Err(error),
                Ok(None) => return Err(Error { doing: doing(), remedy: Remedy::Retry, source: "the reader has ended".into() }),
                Err(silent) => return Err(Error { doing: doing(), remedy: Remedy::Retry, source: silent.into() }),
            }
        }
    }

    fn take(&mut self, key: &str, offset: i64, value: Option<Vec<u8>>) {
        match (RecordKey::parse(key), value) {
            (Some(RecordKey::List(id)), None) => {
                self.lists.remove(&id);
                self.unreadable.remove(&id);
            }
            (Some(RecordKey::List(id)), Some(value)) => match serde_json::from_slice(&value) {
                Ok(list) => {
                    self.lists.insert(id, list);
                    self.unreadable.remove(&id);
                }
                Err(error) => {
                    let (line, column) = (error.line(), error.column());
                    tracing::error!(topic = WATCH_LISTS, offset, line, column, "a watch list cannot be read");
                    self.lists.remove(&id);
                    self.unreadable.insert(id);
                }
            },
            (Some(RecordKey::Bucket { list, generation, bucket }), value) => {
                let generations = self.buckets.entry(list).or_default();
                let buckets = generations.entry(generation).or_default();
                match value {
                    Some(sealed) => drop(buckets.insert(bucket, sealed.into())),
                    None => drop(buckets.remove(&bucket)),
                }
                if buckets.is_empty() {
                    generations.remove(&generation);
                }
                if generations.is_empty() {
                    self.buckets.remove(&list);
                }
            }
            (None, _) => tracing::error!(topic = WATCH_LISTS, offset, "a record is neither a watch list nor of one"),
        }
    }

    /// The buckets of the generation that counts, in their order, as far as they are there. What is
    /// left afterwards is of no use.
    pub fn take_buckets(&mut self, list: &WatchList) -> Vec<Option<Sealed>> {
        let generations = self.buckets.get_mut(&list.id);
        let mut found = generations.and_then(|generations| generations.remove(&list.generation)).unwrap_or_default();
        (0..list.buckets).map(|bucket| found.remove(&bucket)).collect()
    }

    /// What was written for a generation that does not count (again), or for a list that is gone.
    pub fn left_over(&self) -> Vec<RecordKey> {
        let of_known = self.buckets.iter().filter(|(list, _)| !self.unreadable.contains(list));
        let all = of_known.flat_map(|(list, generations)| {
            generations.iter().flat_map(move |(generation, buckets)| {
                buckets.keys().map(move |bucket| RecordKey::Bucket { list: *list, generation: *generation, bucket: *bucket })
            })
        });
        all.collect()
    }

    /// The highest generation that anything was ever written for.
    pub fn generation_max(&self, list: Uuid) -> u64 {
        self.buckets.get(&list).and_then(|generations| generations.last_key_value()).map_or(0, |(generation, _)| *generation)
    }
}
