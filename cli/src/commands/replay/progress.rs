//! How far a replay is, on stderr: a bar on a terminal, else a line every few seconds.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use ryggrad_log::Stretch;

use crate::output::note;

const TELL_EVERY: Duration = Duration::from_secs(5);

/// Offsets passed, of all that are to be.
pub struct Progress {
    bar: Option<ProgressBar>,
    /// The next offset of each partition.
    next: Vec<(i32, i64)>,
    total: u64,
    passed: u64,
    started: Instant,
    told: Instant,
}

impl Progress {
    /// Begins now.
    pub fn start(stretches: &[Stretch]) -> Self {
        let total = stretches.iter().map(|stretch| u64::try_from(stretch.to - stretch.from).unwrap_or_default()).sum();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let style = "{wide_bar} {percent:>3} %  {human_pos} of {human_len} offsets, {per_sec}, {eta} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        let next = stretches.iter().map(|stretch| (stretch.partition, stretch.from)).collect();
        Self { bar, next, total, passed: 0, started: Instant::now(), told: Instant::now() }
    }

    /// A partition is read up to here.
    pub fn reach(&mut self, partition: i32, next: i64) {
        let Some((_, known)) = self.next.iter_mut().find(|(known, _)| *known == partition) else { return };
        self.passed += u64::try_from(next - std::mem::replace(known, next)).unwrap_or_default();
        if let Some(bar) = &self.bar {
            bar.set_position(self.passed);
        } else if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            note(line(self.passed, self.total, self.started.elapsed()));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(passed: u64, total: u64, took: Duration) -> String {
    let rate = passed as f64 / took.as_secs_f64().max(0.001);
    let left_s = if rate > 0.0 { total.saturating_sub(passed) as f64 / rate } else { f64::INFINITY };
    let percent = if total == 0 { 100.0 } else { passed as f64 * 100.0 / total as f64 };
    format!("· {passed} of {total} offsets, {percent:.0} %, {rate:.0} a second, {left_s:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_rate_and_time_left() {
        assert_eq!(line(250, 1_000, Duration::from_secs(5)), "· 250 of 1000 offsets, 25 %, 50 a second, 15 s left");
        assert_eq!(line(0, 0, Duration::from_secs(1)), "· 0 of 0 offsets, 100 %, 0 a second, inf s left");
    }

    #[test]
    fn partitions_add_up() {
        let mut progress = Progress::start(&[Stretch { partition: 0, from: 5, to: 10 }, Stretch { partition: 3, from: 0, to: 4 }]);
        for (partition, next) in [(0, 7), (3, 4), (0, 10), (9, 9)] {
            progress.reach(partition, next);
        }
        assert_eq!((progress.passed, progress.total), (9, 9));
    }
}
