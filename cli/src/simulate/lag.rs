//! A feed that lags: how far it may be shown while look-ups and dumps are ahead of it.
//!
//! What has once been shown stays shown, whatever lag is set later. It has no clock of its own.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The latest id of each feed.
pub(super) type Ids = [u64; 2];

#[derive(Debug, Default)]
pub(super) struct Lag {
    lag: Duration,
    /// Shown for certain.
    shown: Ids,
    /// When the feeds had grown how far, oldest first; not shown yet.
    marks: VecDeque<(Instant, Ids)>,
}

impl Lag {
    pub(super) fn milliseconds(&self) -> u64 {
        u64::try_from(self.lag.as_millis()).unwrap_or(u64::MAX)
    }

    /// Sets the lag of all items that are not shown yet.
    pub(super) fn set(&mut self, lag: Duration, now: Instant, latest: Ids) {
        self.shown = self.limit(now).unwrap_or(latest);
        self.lag = lag;
        if lag.is_zero() {
            self.marks.clear();
        }
    }

    /// Takes note that the feeds have grown.
    pub(super) fn grown(&mut self, now: Instant, latest: Ids) {
        // Finer than any test can tell, so that marks stay few.
        const GRAIN: Duration = Duration::from_millis(1);
        if self.lag.is_zero() {
            return;
        }
        match self.marks.back_mut() {
            Some((moment, ids)) if now.saturating_duration_since(*moment) < GRAIN => *ids = latest,
            _ => self.marks.push_back((now, latest)),
        }
    }

    /// The last ids to show; `None` shows all.
    pub(super) fn limit(&mut self, now: Instant) -> Option<Ids> {
        if self.lag.is_zero() {
            return None;
        }
        while let Some((moment, ids)) = self.marks.front() {
            if now.saturating_duration_since(*moment) < self.lag {
                break;
            }
            self.shown = *ids;
            self.marks.pop_front();
        }
        Some(self.shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_show_when_the_lag_is_over_and_stay() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut lag = Lag::default();
        assert_eq!(lag.limit(start), None);
        lag.set(Duration::from_millis(100), start, [5, 6]);
        lag.grown(at(10), [7, 6]);
        lag.grown(at(50), [9, 8]);
        assert_eq!(lag.limit(at(60)), Some([5, 6]));
        assert_eq!(lag.limit(at(110)), Some([7, 6]));
        // A longer lag takes nothing back, and holds back the rest.
        lag.set(Duration::from_millis(500), at(120), [9, 8]);
        assert_eq!(lag.limit(at(160)), Some([7, 6]));
        assert_eq!(lag.limit(at(550)), Some([9, 8]));
        lag.grown(at(560), [11, 8]);
        lag.set(Duration::ZERO, at(570), [11, 8]);
        assert_eq!(lag.limit(at(570)), None);
    }
}
