//! The one reading of each topic that all subscriptions share.
//!
//! Goes on by itself after every failure, from the record after the last that it handed over.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::matching::Echoes;
use ryggrad_bridge_core::record::Record;
use ryggrad_log::{Connection, Read, ReaderLimits, Start, follow};
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::catalogue::Topic;
use tokio::sync::{mpsc, watch};

/// How long to wait before a reader that failed is opened again.
pub(super) const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// What keeps topics from being read, by topic number.
pub(super) type Troubles = BTreeMap<u16, String>;

/// Follows a topic for as long as somebody listens.
pub(super) async fn tail(
    connection: Connection,
    topic: &'static Topic,
    mut at: BTreeMap<i32, i64>,
    records: mpsc::Sender<Vec<Arc<Record>>>,
    troubles: watch::Sender<Troubles>,
) {
    while !records.is_closed() {
        if let Err(error) = read(&connection, topic, &mut at, &records, &troubles).await {
            tracing::warn!(topic = topic.name, error = error.chain(), "reading has stopped and will be taken up again");
            trouble(&troubles, topic, Some(error.chain()));
        }
        tokio::time::sleep(REOPEN_AFTER).await;
    }
}

async fn read(
    connection: &Connection,
    topic: &'static Topic,
    at: &mut BTreeMap<i32, i64>,
    records: &mpsc::Sender<Vec<Arc<Record>>>,
    troubles: &watch::Sender<Troubles>,
) -> Result<(), ryggrad_log::Error> {
    let starts: Vec<(i32, Start)> = at.iter().map(|(partition, offset)| (*partition, Start::Offset(*offset))).collect();
    let mut echoes = Echoes::starting_at(at.iter().map(|(partition, offset)| (*partition, *offset)));
    let mut follower = follow(connection, &topic.name, &starts, ReaderLimits::default())?;
    loop {
        let read = tokio::select! {
            read = follower.next() => read,
            () = records.closed() => return Ok(()),
        };
        match read {
            Some(Read::Records(read)) => {
                trouble(troubles, topic, None);
                for record in &read {
                    at.insert(record.partition, record.offset + 1);
                }
                if records.send(shared(topic.id, read, &mut echoes)).await.is_err() {
                    return Ok(());
                }
            }
            Some(Read::AtEnd { .. }) => trouble(troubles, topic, None),
            // The client library goes on by itself; readiness is told elsewhere.
            Some(Read::Away { reason }) => trouble(troubles, topic, Some(reason)),
            Some(Read::Failed(error)) => return Err(error),
            None => return Ok(()),
        }
    }
}

/// Records as all subscriptions share them.
pub(super) fn shared(topic: u16, read: Vec<LogRecord>, echoes: &mut Echoes) -> Vec<Arc<Record>> {
    let records = read.into_iter().map(|record| {
        let echo = echoes.is_echo(&record);
        Arc::new(Record::new(Place { topic, partition: record.partition }, record, echo))
    });
    records.collect()
}

fn trouble(troubles: &watch::Sender<Troubles>, topic: &Topic, now: Option<String>) {
    troubles.send_if_modified(|troubles| {
        let before = match &now {
            Some(reason) => troubles.insert(topic.id, reason.clone()),
            None => troubles.remove(&topic.id),
        };
        before != now
    });
}
