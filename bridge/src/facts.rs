//! Facts whose truth is a compacted topic: key -> JSON.
//!
//! Written topic first: a change counts when Kafka has acknowledged it. Read whole at start.

use std::collections::BTreeMap;
use std::sync::Arc;

use ryggrad_log::{Appender, Connection, read_to_end};
use ryggrad_schemas::EncodedRecord;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Most facts of one topic, old versions included.
const RECORDS_MAX: usize = 1_000_000;

/// A topic of facts.
#[derive(Clone)]
pub struct Facts {
    topic: &'static str,
    appender: Arc<Appender>,
}

impl Facts {
    /// Facts in a topic.
    pub fn new(topic: &'static str, appender: Arc<Appender>) -> Self {
        Self { topic, appender }
    }

    /// The latest of every key. What can't be read is reported by position and left out.
    pub async fn load<T: DeserializeOwned>(
        &self,
        connection: &Connection,
        timeout_ms: u64,
    ) -> Result<BTreeMap<String, T>, ryggrad_log::Error> {
        let mut facts = BTreeMap::new();
        for record in read_to_end(connection, self.topic, 0, RECORDS_MAX, timeout_ms).await? {
            let Some(key) = record.key else { continue };
            match record.value.as_deref().map(serde_json::from_slice::<T>) {
                None => {
                    facts.remove(&key);
                }
                Some(Ok(fact)) => {
                    facts.insert(key, fact);
                }
                Some(Err(error)) => {
                    tracing::error!(
                        topic = self.topic,
                        offset = record.offset,
                        line = error.line(),
                        column = error.column(),
                        "a stored fact cannot be read"
                    );
                }
            }
        }
        Ok(facts)
    }

    /// Writes a fact and waits for the acknowledgement.
    pub async fn put<T: Serialize>(&self, key: String, fact: &T) -> Result<(), ryggrad_log::Error> {
        // Our own types, all of which have a JSON form.
        let value = serde_json::to_vec(fact).unwrap_or_default();
        self.append(key, Some(value)).await
    }

    /// Writes facts and waits until all are acknowledged.
    pub async fn put_all<T: Serialize>(&self, facts: Vec<(String, T)>) -> Result<(), ryggrad_log::Error> {
        let put = |(key, fact): (String, T)| async move { self.put(key, &fact).await };
        futures_util::future::try_join_all(facts.into_iter().map(put)).await.map(|_| ())
    }

    /// Removes a fact and waits for the acknowledgement.
    pub async fn remove(&self, key: String) -> Result<(), ryggrad_log::Error> {
        self.append(key, None).await
    }

    async fn append(&self, key: String, value: Option<Vec<u8>>) -> Result<(), ryggrad_log::Error> {
        let headers = [("content-type", "application/json")].into_iter().collect();
        let record = EncodedRecord { topic: self.topic.to_owned(), partition: Some(0), key, value, headers };
        self.appender.append(&record).await.map(|_| ())
    }
}
