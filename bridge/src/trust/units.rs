//! Follows the register's topic, to know which unit belongs to which organisation.
//!
//! Read from its beginning on; until its end was reached once, nothing is said about any unit. Must never hold
//! more of an event than what its unit lies below.

use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use ryggrad_bridge_core::trust::{Fault, TooManyUnits, Units};
use ryggrad_log::{Connection, Ends, Error, Follower, Moment, Read, ReaderLimits, Start, follow, offsets_of};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_schemas::virksomhet::{Endringstype, VirksomhetEndret};
use ryggrad_schemas::{Catalogue, LogRecord, avro};

use super::metrics::Metrics;

/// How long to wait before a reader that failed is opened again.
const REOPEN_AFTER: Duration = Duration::from_secs(1);
/// The topic, as the catalogue names it.
const TOPIC: &str = "grunndata.virksomhet.v1";

/// The units as they are known now.
pub struct KnownUnits {
    /// None until the topic was read to its end.
    known: RwLock<Option<Units>>,
    units_max: usize,
    metrics: Metrics,
}

impl KnownUnits {
    /// Nothing known yet.
    pub fn new(units_max: usize, metrics: Metrics) -> Self {
        Self { known: RwLock::new(None), units_max, metrics }
    }

    /// Whether a unit belongs to an organisation.
    pub fn belongs(&self, unit: Organisasjonsnummer, organisation: Organisasjonsnummer) -> Result<(), Fault> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref().ok_or(Fault::NoUnits)?.belongs(unit, organisation) { Ok(()) } else { Err(Fault::Child) }
    }

    /// Reads for as long as it is asked to. What is known stays until it is known anew.
    pub async fn follow(&self, connection: &Connection, timeout_ms: u64) {
        loop {
            if let Err(error) = self.read(connection, timeout_ms).await {
                tracing::error!(%error, "tokens that name a unit are refused");
                self.publish(None);
                return;
            }
            tokio::time::sleep(REOPEN_AFTER).await;
        }
    }

    async fn read(&self, connection: &Connection, timeout_ms: u64) -> Result<(), TooManyUnits> {
        let (mut follower, mut ends) = match open(connection, timeout_ms).await {
            Ok(opened) => opened,
            Err(error) => {
                tracing::warn!(error = error.chain(), "units cannot be read; this is tried again");
                return Ok(());
            }
        };
        let mut fresh = Some(Units::new(self.units_max));
        loop {
            if ends.are_reached() && fresh.is_some() {
                self.publish(fresh.take());
            }
            let Some(read) = follower.next().await else { return Ok(()) };
            match read {
                Read::Records(records) => match &mut fresh {
                    Some(fresh) => {
                        take(fresh, &records)?;
                        records.iter().for_each(|record| ends.reach(record.partition, record.offset + 1));
                    }
                    None => {
                        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
                        if let Some(known) = known.as_mut() {
                            take(known, &records)?;
                            self.metrics.units.set(i64::try_from(known.len()).unwrap_or(i64::MAX));
                        }
                    }
                },
                Read::AtEnd { partition } => ends.reach_end(partition),
                Read::Away { reason } => tracing::debug!(reason, "units wait for Kafka"),
                Read::Failed(error) => tracing::warn!(error = error.chain(), "units cannot be read; this is tried again"),
            }
        }
    }

    fn publish(&self, units: Option<Units>) {
        let count = units.as_ref().map_or(0, Units::len);
        self.metrics.units.set(i64::try_from(count).unwrap_or(i64::MAX));
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = units;
    }
}

/// A reader from the beginning, and where the topic ends now.
async fn open(connection: &Connection, timeout_ms: u64) -> Result<(Follower, Ends), Error> {
    let partitions = Catalogue::built_in().topic(TOPIC).map_or(0, |topic| topic.partitions);
    let low = offsets_of(connection, TOPIC, partitions, Moment::Beginning, timeout_ms).await?;
    let high = offsets_of(connection, TOPIC, partitions, Moment::End, timeout_ms).await?;
    let ends = Ends::new((0..).zip(low).zip(high).map(|((partition, low), high)| (partition, low, high)));
    let starts: Vec<(i32, Start)> = (0..partitions).map(|partition| (partition, Start::Beginning)).collect();
    Ok((follow(connection, TOPIC, &starts, ReaderLimits::default())?, ends))
}

fn take(units: &mut Units, records: &[LogRecord]) -> Result<(), TooManyUnits> {
    for record in records {
        // Marks and other keys that are no number are nobody's.
        let Some(unit) = record.key.as_deref().and_then(|key| key.parse().ok()) else { continue };
        let above = match record.value.as_deref().map(avro::decode::<VirksomhetEndret>) {
            None => None,
            Some(Ok(change)) if matches!(change.endringstype, Endringstype::Slettet | Endringstype::Fjernet) => None,
            Some(Ok(change)) => change.virksomhet.and_then(|virksomhet| virksomhet.overordnet_enhet).and_then(|above| above.parse().ok()),
            Some(Err(_)) => {
                tracing::warn!(topic = TOPIC, partition = record.partition, offset = record.offset, "a unit cannot be read");
                None
            }
        };
        units.set(unit, above)?;
    }
    Ok(())
}
