//! Reads and renders on several threads, writes on one.
//!
//! A partition belongs to one thread, so that its records stay in order; pieces of several
//! partitions come as they come. Every queue is bounded: a slow writer slows the readers. Must
//! never hand a piece on whose bytes and positions do not belong together.

use std::ops::ControlFlow;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use ryggrad_log::{Connection, ReaderLimits, Seen, Stretch, read_stretches};
use tokio_util::sync::CancellationToken;

use super::judge::{Judge, Verdict};
use super::pace::Pace;
use super::render::{Format, Piece, Renderer};

/// Threads that read, and the memory that each fetches ahead into.
const READERS_MAX: usize = 4;
const PIECES_WAITING_MAX: usize = 8;
/// So that a slow replay shows what it has.
const HAND_ON_AFTER: Duration = Duration::from_millis(200);
/// Between two looks at the clock.
const LOOK_EVERY_RECORDS: u64 = 256;

/// What readers may fetch ahead, each of them.
pub fn reader_limits() -> ReaderLimits {
    ReaderLimits { prefetch_bytes_max: 32 * 1024 * 1024, ..ReaderLimits::default() }
}

/// What is to be read, and how.
pub struct Job {
    /// Where.
    pub connection: Connection,
    /// What.
    pub topic: String,
    /// Which records.
    pub judge: Judge,
    /// As what.
    pub format: Format,
    /// Records written at most.
    pub limit: Option<u64>,
    /// Records a second at most.
    pub rate: Option<u32>,
    /// Ends it early.
    pub stop: CancellationToken,
}

/// Runs the job; `take` gets every piece. Blocks.
pub fn run(job: &Job, stretches: &[Stretch], mut take: impl FnMut(Piece) -> anyhow::Result<()>) -> anyhow::Result<()> {
    if job.limit == Some(0) {
        return Ok(());
    }
    let shares = shares(stretches, if job.limit.is_some() || job.rate.is_some() { 1 } else { readers() });
    let (sender, pieces) = sync_channel(PIECES_WAITING_MAX);
    std::thread::scope(|scope| {
        let reading: Vec<_> = shares
            .iter()
            .map(|share| {
                let sender = sender.clone();
                scope.spawn(move || read(job, share, &sender))
            })
            .collect();
        drop(sender);
        let mut taken = Ok(());
        for piece in pieces {
            taken = take(piece);
            if taken.is_err() {
                // The readers notice that nobody takes anything any more.
                break;
            }
        }
        let read = reading.into_iter().map(|reading| reading.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a reader has panicked"))));
        let read = read.collect::<Vec<_>>().into_iter().collect();
        taken.and(read)
    })
}

/// One more than there are processors: while one waits for the broker, another renders, and the last
/// shares end at about the same time. Still more get in each other's way.
fn readers() -> usize {
    (std::thread::available_parallelism().map_or(1, usize::from) + 1).min(READERS_MAX)
}

/// Shares partitions out so that the shares are about as large.
fn shares(stretches: &[Stretch], readers: usize) -> Vec<Vec<Stretch>> {
    let mut sorted = stretches.to_vec();
    sorted.sort_by_key(|stretch| (stretch.from - stretch.to, stretch.partition));
    let mut shares = vec![Vec::new(); readers.clamp(1, sorted.len().max(1))];
    for stretch in sorted {
        let size = |share: &Vec<Stretch>| share.iter().map(|stretch: &Stretch| stretch.to - stretch.from).sum::<i64>();
        if let Some(smallest) = shares.iter_mut().min_by_key(|share| (size(share), share.len())) {
            smallest.push(stretch);
        }
    }
    shares
}

fn read(job: &Job, stretches: &[Stretch], sender: &SyncSender<Piece>) -> anyhow::Result<()> {
    let mut renderer = Renderer::new(&job.topic, &job.judge, job.format);
    let (mut pace, mut left) = (Pace::new(job.rate), job.limit);
    let (mut piece, mut handed_on, mut records) = (Piece::default(), Instant::now(), 0_u64);
    let hand_on = |piece: &mut Piece| {
        let full = std::mem::take(piece);
        // Nobody takes it any more: then nothing else is needed either.
        if full.is_empty() || sender.send(full).is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    read_stretches(&job.connection, &job.topic, stretches, &reader_limits(), |seen| -> anyhow::Result<ControlFlow<()>> {
        let mut is_time_to_look = true;
        match seen {
            Seen::Record(record) => {
                if renderer.judge(record, &mut piece) == Verdict::Take {
                    if pace.is_early() && handed_on.elapsed() >= HAND_ON_AFTER {
                        // This record is not in the piece yet, and not reached either.
                        piece.counts.read -= 1;
                        handed_on = Instant::now();
                        if hand_on(&mut piece).is_break() {
                            return Ok(ControlFlow::Break(()));
                        }
                        piece.counts.read += 1;
                    }
                    if job.rate.is_some() {
                        pace.wait(&job.stop);
                        if job.stop.is_cancelled() {
                            piece.counts.read -= 1;
                            return Ok(ControlFlow::Break(()));
                        }
                    }
                    let before = piece.counts.written;
                    renderer.render(record, &mut piece);
                    left = left.map(|left| left - (piece.counts.written - before));
                }
                piece.reach(record.partition(), record.offset() + 1);
                records += 1;
                is_time_to_look = job.rate.is_some() || records.is_multiple_of(LOOK_EVERY_RECORDS);
            }
            Seen::Over { partition } => {
                if let Some(stretch) = stretches.iter().find(|stretch| stretch.partition == partition) {
                    piece.reach(partition, stretch.to);
                }
            }
            Seen::Idle => {}
        }
        if left == Some(0) || (is_time_to_look && job.stop.is_cancelled()) {
            return Ok(ControlFlow::Break(()));
        }
        if piece.is_full() || (is_time_to_look && handed_on.elapsed() >= HAND_ON_AFTER) {
            handed_on = Instant::now();
            return Ok(hand_on(&mut piece));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let _ = hand_on(&mut piece);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_in_one_share_and_shares_are_about_as_large() {
        let stretch = |partition: i32, size: i64| Stretch { partition, from: 10, to: 10 + size };
        let stretches = [stretch(0, 5), stretch(1, 100), stretch(2, 60), stretch(3, 50), stretch(4, 0)];
        let sums = |readers| -> Vec<i64> {
            shares(&stretches, readers).iter().map(|share| share.iter().map(|stretch| stretch.to - stretch.from).sum()).collect()
        };
        assert_eq!((sums(1), sums(2)), (vec![215], vec![105, 110]));
        assert_eq!(shares(&stretches, 9).len(), 5);
        assert_eq!(shares(&[], 2).len(), 1);
        assert_eq!(shares(&stretches, 2).iter().map(Vec::len).sum::<usize>(), 5);
    }
}
