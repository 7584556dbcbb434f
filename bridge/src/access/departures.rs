//! Follows the register's topic: a member whose unit is gone is suspended by that very event.
//!
//! Order: the suspension (history and fact acknowledged), then how far the topic is read, in a topic of
//! its own. A crash in between reads the event again, which changes nothing any more. Read to its present
//! end before the first subscription runs, then live. Begins at the end of the topic when it runs for the
//! first time: a member made since is its operator's word.
//!
//! Must never go on past an event whose suspension was not acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ryggrad_bridge_core::access::{Fact, Kind, Who, departed, without_unit};
use ryggrad_log::{Connection, Ends, Error, Moment, Read, ReaderLimits, Start, follow, offsets_of};
use ryggrad_schemas::catalogue::topics::FOLLOWED;
use ryggrad_schemas::{Catalogue, LogRecord};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Access;
use crate::facts::Facts;

/// How long to wait before a reader that failed is opened again, or a suspension is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long the position may stay unwritten while nobody is suspended.
const UNWRITTEN_MAX: Duration = Duration::from_secs(10);
/// It reads the largest topic beside the tail, and needs a few headers of each record only.
const LIMITS: ReaderLimits = ReaderLimits { batch_records_max: 500, batches_waiting_max: 2, prefetch_bytes_max: 1024 * 1024 };
/// The topic, as the catalogue names it.
const TOPIC: &str = "grunndata.virksomhet.v1";

/// The next offset of each partition.
type Position = BTreeMap<i32, i64>;

/// Follows for as long as the bridge runs.
pub struct Departures {
    access: Arc<Access>,
    connection: Connection,
    positions: Facts,
    at: Position,
    timeout_ms: u64,
}

impl Departures {
    /// Where reading stands: as stored, else at the end, which is stored at once.
    pub async fn load(
        access: Arc<Access>,
        connection: &Connection,
        appender: Arc<ryggrad_log::Appender>,
        timeout_ms: u64,
    ) -> Result<Self, Error> {
        let positions = Facts::new(FOLLOWED, appender);
        let stored = positions.load::<Position>(connection, timeout_ms).await?.remove(TOPIC);
        let mut this = Self { access, connection: connection.clone(), positions, at: stored.clone().unwrap_or_default(), timeout_ms };
        if stored.is_none() {
            this.at = this.offsets(Moment::End).await?;
            this.positions.put(TOPIC.to_owned(), &this.at).await?;
        }
        Ok(this)
    }

    /// Reads, and tells when the present end was reached first.
    pub async fn follow(mut self, loaded: oneshot::Sender<()>) {
        let mut loaded = Some(loaded);
        loop {
            if let Err(error) = self.read(&mut loaded).await {
                tracing::warn!(error = error.chain(), "units that are gone cannot be read; this is tried again");
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn read(&mut self, loaded: &mut Option<oneshot::Sender<()>>) -> Result<(), Error> {
        let (low, high) = (self.offsets(Moment::Beginning).await?, self.offsets(Moment::End).await?);
        let start = |(partition, low): (&i32, &i64)| {
            // What lies outside the log is of another one: from its beginning, which suspends rather too often.
            let within = |at: &i64| (*low..=high.get(partition).copied().unwrap_or(*low)).contains(at);
            (*partition, self.at.get(partition).copied().filter(within).unwrap_or(*low))
        };
        let starts: Position = low.iter().map(start).collect();
        let mut ends = Ends::new(starts.iter().map(|(partition, next)| (*partition, *next, high.get(partition).copied().unwrap_or(*next))));
        let starts: Vec<(i32, Start)> = starts.into_iter().map(|(partition, next)| (partition, Start::Offset(next))).collect();
        let mut follower = follow(&self.connection, TOPIC, &starts, LIMITS)?;
        let mut written = Instant::now();
        loop {
            if let Some(loaded) = loaded.take_if(|_| ends.are_reached()) {
                // Nobody waits any more where the bridge is about to stop.
                let _ = loaded.send(());
            }
            let Some(read) = follower.next().await else { return Ok(()) };
            match read {
                Read::Records(records) => {
                    let mut urgent = false;
                    for record in &records {
                        urgent |= self.take(record).await;
                        self.at.insert(record.partition, record.offset + 1);
                        ends.reach(record.partition, record.offset + 1);
                    }
                    if urgent || written.elapsed() >= UNWRITTEN_MAX {
                        self.positions.put(TOPIC.to_owned(), &self.at).await?;
                        written = Instant::now();
                    }
                }
                Read::AtEnd { partition } => ends.reach_end(partition),
                Read::Away { reason } => tracing::debug!(reason, "units that are gone wait for Kafka"),
                Read::Failed(error) => return Err(error),
            }
        }
    }

    /// Whether it is a member's unit that is gone; when it returns, the suspension is acknowledged. Then the position is due,
    /// also if this was read before: whom the operator brings back is not to be suspended by it once more.
    async fn take(&self, record: &LogRecord) -> bool {
        let Some((unit, event)) = departed(record) else { return false };
        let id = unit.to_string();
        while let Some(Fact::Member(member)) = self.access.get(Kind::Member, &id).map(|kept| kept.fact) {
            if without_unit(&member).is_none() {
                return true;
            }
            let by = Who { event: Some(event.to_owned()), ..Who::default() };
            let judge = |before: Option<&Fact>| {
                let gone = before.and_then(|fact| if let Fact::Member(member) = fact { without_unit(member) } else { None });
                Ok(gone.map(Fact::Member).or_else(|| before.cloned()))
            };
            match self.access.change(by, Kind::Member, id.clone(), judge).await {
                Ok(_) => {
                    tracing::info!(organisation = id, event, "a member's unit is gone from the register; the member is suspended");
                    self.access.telemetry.members_suspended.inc();
                    return true;
                }
                Err(error) => {
                    tracing::warn!(organisation = id, %error, "a member whose unit is gone could not be suspended; this is tried again");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
        false
    }

    async fn offsets(&self, moment: Moment) -> Result<Position, Error> {
        let partitions = Catalogue::built_in().topic(TOPIC).map_or(0, |topic| topic.partitions);
        Ok((0..).zip(offsets_of(&self.connection, TOPIC, partitions, moment, self.timeout_ms).await?).collect())
    }
}
