//! Copying into a topic: every record and how far the copying is, in one transaction.
//!
//! The progress is kept as the offsets of a consumer group whose name follows from what was asked,
//! so that a replay that was killed is found again by asking the same. Must never keep a
//! transaction open for long: it stalls every reader of committed records.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::Context;
use ryggrad_log::{Copier, Lent, Progress as Position, Seen, Stretch, read_stretches};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::checkpoint::{Asked, Counts, Reached};
use super::judge::{REPLAY_ID_HEADER, Verdict};
use super::pace::Pace;
use super::pipeline::{Job, reader_limits};
use super::progress::Progress;
use crate::client::rfc3339;
use crate::exit::{Code, Stop};

const TRANSACTION_RECORDS_MAX: u64 = 5_000;
const TRANSACTION_BYTES_MAX: usize = 8 * 1024 * 1024;
const TRANSACTION_OPEN_MAX: Duration = Duration::from_millis(300);
/// How often progress is kept though nothing is selected.
const KEEP_EVERY: Duration = Duration::from_secs(5);

const ORIGIN_HEADER: &str = "ryggrad_origin";
const ORIGIN_TIME_HEADER: &str = "ryggrad_origin_timestamp";

/// What stands beside a partition's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The first offset that is not copied any more.
    to: i64,
    /// Records copied from this partition.
    written: u64,
}

/// Where the records go.
pub struct Target<'a> {
    /// Topic name.
    pub topic: &'a str,
    /// Whether records keep the number of their partition.
    pub keeps_partitions: bool,
    /// Whether a record must have a key.
    pub is_compacted: bool,
}

/// The name of a replay: the same for the same wish.
pub fn id(asked: &Asked) -> anyhow::Result<Uuid> {
    Ok(Uuid::new_v5(&Uuid::NAMESPACE_URL, serde_json::to_string(asked)?.as_bytes()))
}

/// The group that its progress is kept as.
pub fn group(id: Uuid) -> String {
    format!("ryggrad-replay-{id}")
}

/// How the replay stands that this wish names.
pub enum Begun {
    /// Never begun.
    No,
    /// So far, with the records copied already.
    Yes(Vec<Reached>, u64),
}

/// Reads what is kept beside the positions.
pub fn begun(positions: &[(i32, i64, String)]) -> anyhow::Result<Begun> {
    if positions.is_empty() {
        return Ok(Begun::No);
    }
    let (mut reached, mut written) = (Vec::new(), 0);
    for (partition, next, note) in positions {
        let note: Note = serde_json::from_str(note).context("the progress of this replay cannot be read")?;
        reached.push(Reached { partition: *partition, next: *next, to: note.to });
        written += note.written;
    }
    Ok(Begun::Yes(reached, written))
}

/// One partition on its way.
struct Lane {
    partition: i32,
    next: i64,
    note: Note,
}

struct Copying<'a> {
    job: &'a Job,
    target: &'a Target<'a>,
    copier: &'a Copier,
    replay_id: String,
    lanes: Vec<Lane>,
    pace: Pace,
    left: Option<u64>,
    counts: Counts,
    /// Of the open transaction: records, bytes, since when.
    open: Option<(u64, usize, Instant)>,
    /// Whether lanes have moved since the last commit.
    is_ahead: bool,
    kept: Instant,
    progress: Progress,
}

/// Copies the stretches. `written` is what an earlier run has copied already. Blocks.
pub fn copy(job: &Job, id: Uuid, target: &Target<'_>, copier: &Copier, reached: &[Reached], written: u64) -> anyhow::Result<Counts> {
    let stretches: Vec<Stretch> = reached.iter().map(|reached| reached.stretch()).collect();
    let lane = |(index, reached): (usize, &Reached)| Lane {
        partition: reached.partition,
        next: reached.next,
        // What earlier runs wrote is known in sum only.
        note: Note { to: reached.to, written: if index == 0 { written } else { 0 } },
    };
    let mut copying = Copying {
        job,
        target,
        copier,
        replay_id: id.to_string(),
        lanes: reached.iter().enumerate().map(lane).collect(),
        pace: Pace::new(job.rate),
        left: job.limit.map(|limit| limit.saturating_sub(written)),
        counts: Counts::default(),
        open: None,
        is_ahead: true,
        kept: Instant::now(),
        progress: Progress::start(&stretches),
    };
    // From here on, the ends are fixed also for those who resume.
    copying.commit()?;
    if copying.left != Some(0) {
        let read = read_stretches(&job.connection, &job.topic, &stretches, &reader_limits(), |seen| copying.take(seen));
        if let Err(error) = read {
            // Whatever it was, the records behind the last commit must not stand; if aborting
            // fails too, the broker does it when the transaction's time is over.
            let _ = copier.abort();
            return Err(error);
        }
        copying.commit()?;
    }
    Ok(copying.counts)
}

impl Copying<'_> {
    fn take(&mut self, seen: Seen<'_>) -> anyhow::Result<ControlFlow<()>> {
        match seen {
            Seen::Record(record) => {
                match self.job.judge.judge(record) {
                    Verdict::Take => {
                        if self.pace.is_early() && self.is_due() {
                            self.commit()?;
                        }
                        self.pace.wait(&self.job.stop);
                        if self.job.stop.is_cancelled() {
                            return Ok(ControlFlow::Break(()));
                        }
                        self.copy(record)?;
                    }
                    Verdict::Pass => {}
                    Verdict::Withhold => self.counts.withheld += 1,
                    Verdict::ReplayedBefore => self.counts.replayed_before += 1,
                }
                self.counts.read += 1;
                self.reach(record.partition(), record.offset() + 1);
            }
            Seen::Over { partition } => {
                if let Some(to) = self.lanes.iter().find(|lane| lane.partition == partition).map(|lane| lane.note.to) {
                    self.reach(partition, to);
                }
            }
            Seen::Idle => {}
        }
        if self.is_due() || (self.open.is_none() && self.is_ahead && self.kept.elapsed() >= KEEP_EVERY) {
            self.commit()?;
        }
        let is_over = self.left == Some(0) || self.job.stop.is_cancelled();
        Ok(if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    fn copy(&mut self, record: &Lent<'_>) -> anyhow::Result<()> {
        let (partition, offset) = (record.partition(), record.offset());
        let origin = format!("{}/{partition}/{offset}", self.job.topic);
        if self.target.is_compacted && record.key_bytes().is_none() {
            let what = format!("{origin} has no key, and {} is compacted and takes nothing without", self.target.topic);
            let remedy = "copy into a topic whose cleanup.policy is delete; what was copied before stands";
            return Err(Stop { code: Code::Refused, what, remedy: Some(remedy.to_owned()) }.into());
        }
        let (records, bytes, since) = match self.open {
            Some(open) => open,
            None => {
                self.copier.begin()?;
                (0, 0, Instant::now())
            }
        };
        let time = rfc3339(record.timestamp_ms());
        let headers = [(REPLAY_ID_HEADER, self.replay_id.as_str()), (ORIGIN_HEADER, origin.as_str()), (ORIGIN_TIME_HEADER, time.as_str())];
        self.copier.copy(record, self.target.keeps_partitions.then_some(partition), &headers)?;
        let size = record.value().map_or(0, <[u8]>::len) + record.key_bytes().map_or(0, <[u8]>::len);
        self.open = Some((records + 1, bytes + size, since));
        self.counts.written += 1;
        self.left = self.left.map(|left| left.saturating_sub(1));
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.partition == partition) {
            lane.note.written += 1;
        }
        Ok(())
    }

    fn is_due(&self) -> bool {
        self.open.is_some_and(|(records, bytes, since)| {
            records >= TRANSACTION_RECORDS_MAX || bytes >= TRANSACTION_BYTES_MAX || since.elapsed() >= TRANSACTION_OPEN_MAX
        })
    }

    fn reach(&mut self, partition: i32, next: i64) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.partition == partition) {
            self.is_ahead |= lane.next != next;
            lane.next = next;
        }
        self.progress.reach(partition, next);
    }

    fn commit(&mut self) -> anyhow::Result<()> {
        if self.open.is_none() {
            if !self.is_ahead {
                return Ok(());
            }
            self.copier.begin()?;
        }
        let position = |lane: &Lane| -> anyhow::Result<Position> {
            Ok(Position { partition: lane.partition, next: lane.next, note: serde_json::to_string(&lane.note)? })
        };
        self.copier.commit(&self.lanes.iter().map(position).collect::<anyhow::Result<Vec<_>>>()?)?;
        (self.open, self.is_ahead, self.kept) = (None, false, Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::checkpoint::tests::asked;
    use super::*;

    #[test]
    fn the_same_wish_has_the_same_name() {
        let other = Asked { target: "topic b".to_owned(), ..asked() };
        assert_eq!(id(&asked()).unwrap(), id(&asked()).unwrap());
        assert_ne!(id(&asked()).unwrap(), id(&other).unwrap());
    }

    #[test]
    fn what_an_earlier_run_kept_is_found() {
        assert!(matches!(begun(&[]).unwrap(), Begun::No));
        let note = |to, written| serde_json::to_string(&Note { to, written }).unwrap();
        let Begun::Yes(reached, written) = begun(&[(0, 5, note(9, 3)), (2, 7, note(7, 4))]).unwrap() else { panic!("it was begun") };
        assert_eq!(reached, [Reached { partition: 0, next: 5, to: 9 }, Reached { partition: 2, next: 7, to: 7 }]);
        assert_eq!(written, 7);
        assert!(begun(&[(0, 5, String::new())]).is_err());
    }
}
