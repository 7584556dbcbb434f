//! What a controller's records of disclosures say, as they stand in Kafka.

use std::collections::BTreeSet;

use ryggrad_bridge_core::disclosure::{How, Intent, Link, Outcome};
use ryggrad_log::{Connection, read_to_end};

/// One controller's records.
pub struct Disclosed {
    /// Each record.
    pub links: Vec<Link>,
    /// When the broker took each intent, its number, and what it says.
    pub intents: Vec<(i64, u64, Intent)>,
    /// In the order in which attempts ended.
    pub outcomes: Vec<Outcome>,
}

impl Disclosed {
    /// Reads them all.
    pub async fn read(connection: &Connection, controller: &str) -> Self {
        let records = read_to_end(connection, &format!("ryggrad.disclosures.{controller}"), 0, 1_000_000, 60_000).await.unwrap();
        let mut disclosed = Self { links: Vec::new(), intents: Vec::new(), outcomes: Vec::new() };
        for record in records {
            let link: Link = serde_json::from_slice(record.value.as_ref().unwrap()).unwrap();
            disclosed.intents.extend(link.intents().map(|(number, intent)| (record.timestamp_ms, number, intent.clone())));
            disclosed.outcomes.extend_from_slice(link.outcomes());
            disclosed.links.push(link);
        }
        disclosed
    }

    /// The intents whose receivers have taken what was intended.
    pub fn delivered(&self) -> BTreeSet<u64> {
        self.outcomes.iter().filter(|outcome| outcome.how == How::Delivered).map(|outcome| outcome.intent).collect()
    }
}
