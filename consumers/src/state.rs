//! A keyed copy of a topic that is made, kept up to date and found again after a crash.
//!
//! Reads every partition by itself and joins no group: a copy needs the whole topic, and what a
//! rebalance would take away it must not lose. The group's offsets say to others how far it is.
//! Must never commit an offset before the store has what stands below it, and never go on behind
//! a gap: then the copy is asked to be made anew.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ryggrad_log::groups::{Committed, Keeper};
use ryggrad_log::{Connection, Ends, Follower, Read, ReaderLimits, Remedy, Start, Watermarks};
use ryggrad_schemas::{Catalogue, LogRecord};
use tokio::time::Instant;

use crate::change::{Change, Gone, change_of};
use crate::position::{Gap, Position, Positions, gap};
use crate::removed::Removed;
use crate::request::partitions_of;
use crate::{Request, Store, read, watermarks_of};

/// How often offsets of the group are committed at most. A store that keeps its positions loses
/// nothing by it; any other repeats as much after a crash.
pub const COMMIT_EVERY_MS: u64 = 1_000;

/// For clocks that differ, and for what waits in queues.
const MARGIN_MS: u64 = 24 * 60 * 60 * 1_000;

/// How a copy is to be kept.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Topic name, as in the catalogue.
    pub topic: String,
    /// Whose offsets tell how far the copy is: one group for each copy. None: they are not kept.
    pub group: Option<String>,
    /// Makes the copy anew whatever it says.
    pub is_anew: bool,
    /// How long the broker keeps tombstones, as the catalogue says, less a day: a copy that was behind for
    /// longer may have missed one.
    pub tombstones_kept_ms: u64,
    /// How long to wait for an answer to one question.
    pub ask_timeout_ms: u64,
}

impl Plan {
    /// A copy of this topic, that goes on where it was.
    pub fn of(topic: impl Into<String>) -> Self {
        let topic = topic.into();
        let known = Catalogue::built_in().topic(&topic);
        // A tombstone's time begins when it is first compacted, which is never earlier than that.
        let kept = |topic: &ryggrad_schemas::catalogue::Topic| Some(topic.min_compaction_lag_ms.unwrap_or(0) + topic.delete_retention_ms?);
        let tombstones_kept_ms = known.and_then(kept).map_or(u64::MAX, |kept_ms| kept_ms.saturating_sub(MARGIN_MS));
        Self { topic, group: None, is_anew: false, tombstones_kept_ms, ask_timeout_ms: 5_000 }
    }
}

/// What happened to the copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// So many changes were applied; they are durable unless the copy is being made anew.
    Applied {
        /// How many.
        changes: usize,
    },
    /// The copy has all that stood in the topic when it was opened. Told once.
    CaughtUp,
    /// Kafka is away, or did not take the group's offsets; this is tried again by itself.
    Away {
        /// What the client library says.
        reason: String,
    },
}

/// Why a copy cannot be kept; used as `state::Error`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The copy has missed what the log no longer tells. Open it with `is_anew`.
    #[error("the copy of {topic} cannot go on in partition {partition} and has to be made anew")]
    Gap {
        /// Topic name.
        topic: String,
        /// Partition number.
        partition: i32,
        /// What is missing.
        #[source]
        gap: Gap,
    },
    /// No such topic.
    #[error(transparent)]
    Read(#[from] read::Error),
    /// Kafka would not.
    #[error(transparent)]
    Log(#[from] ryggrad_log::Error),
    /// The store would not; nothing is committed.
    #[error("the copy cannot be stored")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Nothing came although there must be an end.
    #[error("the end of {topic} was not reached within {waited_ms} ms")]
    Stalled {
        /// Topic name.
        topic: String,
        /// How long was waited.
        waited_ms: u64,
    },
    /// Reading has failed before.
    #[error("{topic} is not read any more")]
    Ended {
        /// Topic name.
        topic: String,
    },
    /// More keys were removed than fit into memory.
    #[error("more than {keys_max} keys are removed")]
    TooManyRemoved {
        /// How many fit.
        keys_max: usize,
    },
}

/// A copy that is kept up to date for as long as [`State::next`] is called.
pub struct State<S> {
    store: S,
    topic: String,
    number: u16,
    /// None after an error.
    follower: Option<Follower>,
    removed: Removed,
    positions: Positions,
    ends: Ends,
    /// Nothing is committed until it has caught up.
    is_anew: bool,
    has_told: bool,
    keeper: Option<Keeper>,
    /// What the store has made durable and the group has not been told of yet.
    untold: Option<Positions>,
    told_at: Instant,
}

impl<S: Store> State<S> {
    /// Finds out how far the copy is, and goes on from there; begins anew if it is nowhere yet.
    pub async fn open(connection: &Connection, plan: Plan, mut store: S) -> Result<Self, Error> {
        let partitions = partitions_of(&Request::everything(&plan.topic))?;
        let number = Catalogue::built_in().topic(&plan.topic).map_or(0, |topic| topic.id);
        let keeper = plan.group.as_deref().map(|group| Keeper::new(connection, group)).transpose()?;
        let known = if plan.is_anew { None } else { known(&mut store, keeper.as_ref(), &plan, &partitions).await? };
        // Asked before the removed keys: what is removed later comes as an event behind these ends.
        let marks = watermarks_of(connection, &plan.topic, &partitions, plan.ask_timeout_ms).await?;
        let removed = Removed::load(connection).await?;
        if let Some(positions) = &known
            && let Some((partition, gap)) = gap(positions, &marks, now_ms(), plan.tombstones_kept_ms)
        {
            return Err(Error::Gap { topic: plan.topic, partition, gap });
        }
        let is_anew = known.is_none();
        if is_anew {
            store.begin_anew().map_err(stored)?;
        }
        let positions = known.unwrap_or_else(|| marks.iter().map(begin).collect());
        let starts: Vec<_> = positions.iter().map(|(partition, position)| (*partition, Start::Offset(position.next))).collect();
        let follower = Some(ryggrad_log::follow(connection, &plan.topic, &starts, ReaderLimits::default())?);
        let next = |partition: &i32, marks: &Watermarks| positions.get(partition).map_or(marks.low, |position| position.next);
        let ends = Ends::new(marks.iter().map(|(partition, marks)| (*partition, next(partition, marks), marks.high)));
        let (topic, has_told, untold, told_at) = (plan.topic, false, None, Instant::now());
        let mut state = Self { store, topic, number, follower, removed, positions, ends, is_anew, has_told, keeper, untold, told_at };
        if !is_anew {
            state.forget_removed()?;
        }
        Ok(state)
    }

    /// Goes on until something has happened. May be dropped and called again without loss. After an
    /// error nothing is read or committed any more: open it again.
    pub async fn next(&mut self) -> Result<Step, Error> {
        let step = self.advance().await;
        if step.is_err() {
            self.follower = None;
        }
        step
    }

    async fn advance(&mut self) -> Result<Step, Error> {
        loop {
            let Some(follower) = &mut self.follower else { return Err(Error::Ended { topic: self.topic.clone() }) };
            if self.ends.are_reached() && !self.has_told {
                self.is_anew = false;
                self.commit()?;
                self.has_told = true;
                return Ok(Step::CaughtUp);
            }
            let due = self.told_at + Duration::from_millis(COMMIT_EVERY_MS);
            let read = tokio::select! {
                biased;
                () = tokio::time::sleep_until(due), if self.untold.is_some() => {
                    // What the group says is for others; the copy goes on without.
                    self.told_at = Instant::now();
                    match self.tell().await {
                        Err(error) if error.remedy == Remedy::Retry => return Ok(Step::Away { reason: error.chain() }),
                        told => told?,
                    }
                    continue;
                }
                read = follower.next() => read.ok_or_else(|| Error::Ended { topic: self.topic.clone() })?,
            };
            match read {
                Read::Records(records) => {
                    let changes = self.take(records)?;
                    if changes > 0 {
                        return Ok(Step::Applied { changes });
                    }
                }
                Read::AtEnd { partition } => {
                    self.ends.reach_end(partition);
                    if let Some(position) = self.positions.get_mut(&partition) {
                        position.read_to_ms = position.read_to_ms.max(now_ms());
                    }
                }
                Read::Away { reason } => return Ok(Step::Away { reason }),
                Read::Failed(error) => return Err(error.into()),
            }
        }
    }

    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// How far the copy is.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Tells the group how far the copy is, and gives the store back.
    pub async fn close(mut self) -> Result<S, Error> {
        if self.has_told && self.follower.is_some() {
            // Also what was read without a change: it says how old the copy is.
            self.commit()?;
        }
        self.tell().await?;
        Ok(self.store)
    }

    fn take(&mut self, records: Vec<LogRecord>) -> Result<usize, Error> {
        // First, so that no state leaves whose removal is known.
        self.removed.catch_up()?;
        let mut changes = Vec::with_capacity(records.len());
        for record in records {
            let (partition, next, appended_ms) = (record.partition, record.offset + 1, record.timestamp_ms);
            changes.extend(change_of(record, self.number, self.removed.table()));
            if let Some(position) = self.positions.get_mut(&partition) {
                *position = Position { next, read_to_ms: position.read_to_ms.max(appended_ms) };
            }
            self.ends.reach(partition, next);
        }
        let count = changes.len();
        self.apply(changes)?;
        Ok(count)
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        self.store.apply(changes).map_err(stored)?;
        if self.is_anew { Ok(()) } else { self.commit() }
    }

    fn commit(&mut self) -> Result<(), Error> {
        self.store.commit(&self.positions).map_err(stored)?;
        self.untold = Some(self.positions.clone());
        Ok(())
    }

    /// A copy that comes back may hold keys whose removal it has not read yet: they go at once.
    fn forget_removed(&mut self) -> Result<(), Error> {
        let is_ahead = |(partition, offset)| self.positions.get(&partition).is_some_and(|position| offset >= position.next);
        let ahead = self.removed.table().of_topic(self.number).filter(|(_, at)| at.is_some_and(is_ahead));
        let changes: Vec<_> = ahead.map(|(key, _)| Change::Remove { key: key.to_owned(), why: Gone::Removed }).collect();
        if changes.is_empty() { Ok(()) } else { self.apply(changes) }
    }

    async fn tell(&mut self) -> Result<(), ryggrad_log::Error> {
        if let Some((keeper, positions)) = self.keeper.as_ref().zip(self.untold.as_ref()) {
            keeper.commit(positions.iter().map(|(partition, position)| committed(&self.topic, *partition, *position)).collect()).await?;
        }
        self.untold = None;
        Ok(())
    }
}

fn stored(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Store(Box::new(error))
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn begin((partition, marks): &(i32, Watermarks)) -> (i32, Position) {
    (*partition, Position { next: marks.low, read_to_ms: 0 })
}

/// What the store says, or the group.
async fn known<S: Store>(store: &mut S, keeper: Option<&Keeper>, plan: &Plan, partitions: &[i32]) -> Result<Option<Positions>, Error> {
    if let Some(positions) = store.positions().map_err(stored)? {
        return Ok(Some(positions));
    }
    let Some(keeper) = keeper else { return Ok(None) };
    let asked: Vec<_> = partitions.iter().map(|partition| (plan.topic.clone(), *partition)).collect();
    let found = keeper.committed(&asked, plan.ask_timeout_ms).await?;
    // A commit that is not ours does not say how old it is, so that it counts as none, which is a gap.
    let positions = found.iter().filter_map(|found| Some((found.partition, position(found)?))).collect();
    Ok((!found.is_empty()).then_some(positions))
}

fn committed(topic: &str, partition: i32, position: Position) -> Committed {
    Committed { topic: topic.to_owned(), partition, offset: position.next, metadata: format!("read_to_ms={}", position.read_to_ms) }
}

fn position(committed: &Committed) -> Option<Position> {
    let read_to_ms = committed.metadata.strip_prefix("read_to_ms=")?.parse().ok()?;
    Some(Position { next: committed.offset, read_to_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_comes_back_from_its_commit_and_a_foreign_one_is_none() {
        let at = Position { next: 17, read_to_ms: 99 };
        let ours = committed("t", 3, at);
        assert_eq!((position(&ours), ours.partition), (Some(at), 3));
        for foreign in ["", "99", "read_to_ms=soon"] {
            assert_eq!(position(&Committed { metadata: foreign.to_owned(), ..ours.clone() }), None);
        }
    }

    #[test]
    fn tombstones_are_kept_as_long_as_the_catalogue_says() {
        let topic = &Catalogue::built_in().topics[0];
        let kept = topic.min_compaction_lag_ms.unwrap() + topic.delete_retention_ms.unwrap();
        assert_eq!(Plan::of(&topic.name).tombstones_kept_ms, kept - MARGIN_MS);
        assert!(MARGIN_MS < kept);
    }
}
