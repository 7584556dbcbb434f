//! The Kafka that a benchmark runs on: one of its own in a temporary folder, or one that is there.
//!
//! Topics that it makes in a Kafka that was there are deleted again. Must never touch a topic
//! that it did not make, but for the marks of its own position.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use ryggrad_log::bench::delete_topics;
use ryggrad_log::{Connection, Lent, LocalBroker, LocalBrokerOptions, Moment, Read, ReaderLimits, Start, follow, offsets_of, scan, topics};
use ryggrad_schemas::catalogue::{Latch, Topic};
use ryggrad_schemas::{Catalogue, LogRecord};
use tempfile::TempDir;

use crate::output::note;

const KAFKA_TIMEOUT_MS: u64 = 10_000;

/// Kafka, ready for use.
pub struct Ground {
    connection: Connection,
    own: Option<LocalBroker>,
    folder: TempDir,
    created: Vec<String>,
}

impl Ground {
    /// Uses the Kafka named, or starts one, and makes the catalogue's topics where they are missing.
    pub async fn open(kafka: Option<&str>, jars: Option<&PathBuf>) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("ryggrad-bench-").context("cannot make a temporary folder")?;
        let started = Instant::now();
        let own = match kafka.filter(|kafka| !kafka.is_empty()) {
            Some(_) => None,
            None => {
                let jars = jars.context(
                    "Kafka's jars are not there; run ./ryggrad bench, which fetches them, or name a running Kafka with KAFKA_BOOTSTRAP",
                )?;
                let options = LocalBrokerOptions::new(std::path::absolute(jars)?, folder.path().join("kafka"));
                Some(LocalBroker::start(LocalBrokerOptions { compiles_fully: true, ..options }).await?)
            }
        };
        let connection = own.as_ref().map_or_else(|| Connection::new(kafka.unwrap_or_default()), LocalBroker::connection);
        let created = topics::ensure(&connection, &Catalogue::opened(Latch::Shut).topics, 1).await?;
        note(format!("· Kafka on {} ({:.1} s)", connection.bootstrap, started.elapsed().as_secs_f64()));
        Ok(Self { connection, own, folder, created })
    }

    /// How to reach it.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// A folder that goes away with this.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Makes a topic that no one else has.
    pub async fn create(&mut self, topic: Topic) -> anyhow::Result<Topic> {
        let created = topics::ensure(&self.connection, std::slice::from_ref(&topic), 1).await?;
        ensure!(!created.is_empty(), "the topic {} is there already; has another benchmark left it?", topic.name);
        self.created.extend(created);
        Ok(topic)
    }

    /// Records of a topic that no transaction has touched, by its offsets.
    pub async fn appended(&self, topic: &Topic) -> anyhow::Result<u64> {
        let mut records = 0;
        for (moment, sign) in [(Moment::End, 1), (Moment::Beginning, -1)] {
            records +=
                sign * offsets_of(&self.connection, &topic.name, topic.partitions, moment, KAFKA_TIMEOUT_MS).await?.iter().sum::<i64>();
        }
        Ok(u64::try_from(records)?)
    }

    /// Committed records of a topic that are no tombstones.
    pub async fn count(&self, topic: &Topic) -> anyhow::Result<u64> {
        let count = |count: &mut u64, record: &Lent<'_>| {
            *count += u64::from(record.value().is_some());
            Ok(())
        };
        Ok(scan(&self.connection, &topic.name, 0, count).await?)
    }

    /// When each event with a number in that header was appended, in milliseconds since 1970.
    pub async fn appended_at(&self, topic: &Topic, header: &'static str) -> anyhow::Result<HashMap<u64, i64>> {
        let note = move |found: &mut HashMap<u64, i64>, record: &Lent<'_>| {
            if let Some(number) = record.header(header).and_then(|number| number.parse().ok()) {
                found.insert(number, record.timestamp_ms());
            }
            Ok(())
        };
        Ok(scan(&self.connection, &topic.name, HashMap::new(), note).await?)
    }

    /// Hands every committed record of a topic to `each`, to its present end.
    pub async fn read(&self, topic: &Topic, mut each: impl FnMut(LogRecord)) -> anyhow::Result<()> {
        let starts: Vec<_> = (0..topic.partitions).map(|partition| (partition, Start::Beginning)).collect();
        let mut follower = follow(&self.connection, &topic.name, &starts, ReaderLimits::default())?;
        let mut open: std::collections::BTreeSet<i32> = (0..topic.partitions).collect();
        while !open.is_empty() {
            match follower.next().await {
                Some(Read::Records(records)) => records.into_iter().for_each(&mut each),
                Some(Read::AtEnd { partition }) => drop(open.remove(&partition)),
                Some(Read::Away { reason }) => bail!("Kafka cannot be reached: {reason}"),
                Some(Read::Failed(error)) => return Err(error.into()),
                None => bail!("the reader of {} has ended", topic.name),
            }
        }
        Ok(())
    }

    /// Deletes what was made and ends what was started.
    pub async fn close(self) -> anyhow::Result<()> {
        // A broker of our own goes away with its folder.
        if self.own.is_none() {
            delete_topics(&self.connection, &self.created).await?;
        }
        Ok(())
    }
}
