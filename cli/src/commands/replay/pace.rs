//! Keeps a replay to so many records a second.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

/// How long a wait may last before somebody looks whether it is still wanted.
const SLICE: Duration = Duration::from_millis(100);

/// A pace, or none.
#[derive(Debug)]
pub struct Pace {
    rate: Option<u32>,
    due: Instant,
}

impl Pace {
    /// Begins now.
    pub fn new(rate: Option<u32>) -> Self {
        Self { rate, due: Instant::now() }
    }

    /// Whether the next record would have to wait.
    pub fn is_early(&self) -> bool {
        self.rate.is_some() && self.due > Instant::now()
    }

    /// Waits for the next record's turn, or until it is told to stop.
    pub fn wait(&mut self, stop: &CancellationToken) {
        let Some(rate) = self.rate else { return };
        let now = Instant::now();
        // Time that was lost is not made up for by a burst.
        self.due = self.due.max(now - SLICE.min(Duration::from_secs(1) / rate)) + Duration::from_secs(1) / rate;
        while !stop.is_cancelled() {
            let left = self.due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            pause(left.min(SLICE));
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "runs on a thread of its own, which has nothing else to do")]
fn pause(time: Duration) {
    std::thread::sleep(time);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_kept_and_a_stop_ends_the_wait() {
        let stop = CancellationToken::new();
        let (mut pace, started) = (Pace::new(Some(1_000)), Instant::now());
        (0..50).for_each(|_| pace.wait(&stop));
        assert!(started.elapsed() >= Duration::from_millis(40), "{:?}", started.elapsed());
        Pace::new(None).wait(&stop);
        stop.cancel();
        let mut slow = Pace::new(Some(1));
        (0..1_000).for_each(|_| slow.wait(&stop));
    }
}
