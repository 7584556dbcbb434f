//! Follows `ryggrad.removed`, so that nobody is sent an older state of a removed key.
//!
//! Read to its end before any subscription starts, then live. The table is shared by all workers;
//! which record it withholds is decided in `ryggrad-bridge-core`. Must never grow beyond
//! `removed_keys_max`, and never forget a key to stay below it: then the bridge stops instead.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ryggrad_bridge_core::removal::{Leaving, Removals as Table, Taken};
use ryggrad_log::{Connection, Read, ReaderLimits, Start, follow};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::topics::REMOVED;
use tokio::sync::{oneshot, watch};

use crate::telemetry::Telemetry;

/// How long to wait before a reader that failed is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// More keys were removed than the bridge may hold.
#[derive(Debug, thiserror::Error)]
#[error("more than {0} keys are removed; without all of them nothing may be delivered: raise bridge.removed_keys_max")]
pub struct TooMany(usize);

/// The removed keys as they are known now.
pub struct Removals {
    table: RwLock<Table>,
    keys_max: usize,
    changed: watch::Sender<u64>,
    telemetry: Telemetry,
}

impl Removals {
    /// An empty table.
    pub fn new(keys_max: usize, telemetry: Telemetry) -> Self {
        Self { table: RwLock::default(), keys_max, changed: watch::Sender::new(0), telemetry }
    }

    /// Whether this record is an older state of a removed key.
    pub fn withholds(&self, leaving: Leaving<'_>) -> bool {
        self.table.read().unwrap_or_else(PoisonError::into_inner).withholds(leaving)
    }

    /// Changes whenever there are new removals.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Reads for as long as the bridge runs, and tells when the present end was reached first.
    pub async fn follow(&self, connection: &Connection, catalogue: &Catalogue, loaded: oneshot::Sender<()>) -> TooMany {
        let mut loaded = Some(loaded);
        loop {
            if let Err(error) = self.read(connection, catalogue, &mut loaded).await {
                return error;
            }
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }

    /// Reads from the beginning until reading fails: taking a removal in again changes nothing.
    async fn read(&self, connection: &Connection, catalogue: &Catalogue, loaded: &mut Option<oneshot::Sender<()>>) -> Result<(), TooMany> {
        let mut follower = match follow(connection, REMOVED, &[(0, Start::Beginning)], ReaderLimits::default()) {
            Ok(follower) => follower,
            Err(error) => {
                tracing::warn!(error = error.chain(), "removals cannot be read; this is tried again");
                return Ok(());
            }
        };
        while let Some(read) = follower.next().await {
            match read {
                Read::Records(records) => self.take(&records, catalogue)?,
                Read::AtEnd { .. } => {
                    if let Some(loaded) = loaded.take() {
                        // Nobody waits any more where the bridge is about to stop.
                        let _ = loaded.send(());
                    }
                }
                Read::Away { reason } => tracing::debug!(reason, "removals wait for Kafka"),
                Read::Failed(error) => tracing::warn!(error = error.chain(), "removals cannot be read; this is tried again"),
            }
        }
        Ok(())
    }

    fn take(&self, records: &[ryggrad_schemas::LogRecord], catalogue: &Catalogue) -> Result<(), TooMany> {
        let keys = {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            for record in records {
                // A key is never logged; the offset finds it.
                match table.take(record, |name| catalogue.topic(name).map(|topic| topic.id)) {
                    Taken::Exact | Taken::Lifted => {}
                    Taken::ByTime => tracing::warn!(
                        topic = REMOVED,
                        offset = record.offset,
                        "a removal does not say where its event stands; everything of its key that was appended up to then is withheld"
                    ),
                    Taken::Nothing => {
                        tracing::warn!(topic = REMOVED, offset = record.offset, "a removal names no topic that is known here")
                    }
                }
            }
            table.len()
        };
        self.telemetry.removed_keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
        self.changed.send_modify(|generation| *generation += 1);
        if keys > self.keys_max { Err(TooMany(self.keys_max)) } else { Ok(()) }
    }
}
