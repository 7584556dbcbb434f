//! Keys removed for legal reasons: `ryggrad.removed`, read to its end and then followed.
//!
//! Must never let a copy go on without knowing them: what cannot be read is an error.

use std::time::Duration;

use futures_util::FutureExt as _;
use ryggrad_bridge_core::removal::Removals;
use ryggrad_log::{Connection, Follower, Read, ReaderLimits, Start};
use ryggrad_schemas::catalogue::topics::REMOVED;
use ryggrad_schemas::{Catalogue, LogRecord};

use crate::state::Error;

/// Removed keys that are kept in memory at most.
pub const REMOVED_KEYS_MAX: usize = 5_000_000;
/// How long reading them may take at the start.
pub const REMOVED_TIMEOUT_MS: u64 = 120_000;

/// The removed keys as they are known now.
pub struct Removed {
    table: Removals,
    follower: Follower,
}

impl Removed {
    /// Reads them all.
    pub async fn load(connection: &Connection) -> Result<Self, Error> {
        let follower = ryggrad_log::follow(connection, REMOVED, &[(0, Start::Beginning)], ReaderLimits::default())?;
        let mut removed = Self { table: Removals::default(), follower };
        let reading = async {
            while let Some(read) = removed.follower.next().await {
                if removed.take(read)? {
                    return Ok(());
                }
            }
            Err(Error::Ended { topic: REMOVED.to_owned() })
        };
        let waited_ms = REMOVED_TIMEOUT_MS;
        let read = tokio::time::timeout(Duration::from_millis(waited_ms), reading).await;
        read.map_err(|_| Error::Stalled { topic: REMOVED.to_owned(), waited_ms })??;
        Ok(removed)
    }

    /// Takes in what has come since, without waiting.
    pub fn catch_up(&mut self) -> Result<(), Error> {
        while let Some(read) = self.follower.next().now_or_never() {
            self.take(read.ok_or_else(|| Error::Ended { topic: REMOVED.to_owned() })?)?;
        }
        Ok(())
    }

    /// What is known.
    pub fn table(&self) -> &Removals {
        &self.table
    }

    /// Whether this was the end, for now.
    fn take(&mut self, read: Read) -> Result<bool, Error> {
        match read {
            Read::Records(records) => self.note(&records)?,
            Read::AtEnd { .. } => return Ok(true),
            Read::Away { .. } => {}
            Read::Failed(error) => return Err(error.into()),
        }
        Ok(false)
    }

    fn note(&mut self, records: &[LogRecord]) -> Result<(), Error> {
        let number = |name: &str| Catalogue::built_in().topic(name).map(|topic| topic.id);
        for record in records {
            self.table.take(record, number);
        }
        if self.table.len() > REMOVED_KEYS_MAX {
            return Err(Error::TooManyRemoved { keys_max: REMOVED_KEYS_MAX });
        }
        Ok(())
    }
}
