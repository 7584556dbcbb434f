//! How much of the window is open: little until deliveries succeed.
//!
//! Must never open so far for an endpoint that does not answer that a thousand of them fill the
//! memory.

use super::exchange::Limits;

/// What a machine takes in before anything has succeeded.
const INTAKE_FIRST: usize = 64;

/// Failures in a row after which it takes in no more than that again.
const FAILURES_OF_LATE: u32 = 16;

/// The share of the intake that one lane may fill while the window is not fully open.
const LANE_SHARE: usize = 8;

#[derive(Debug)]
pub(super) struct Intake {
    bound: usize,
    succeeded: usize,
    failures: u32,
}

impl Intake {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { bound: INTAKE_FIRST.min(limits.pending_max), succeeded: 0, failures: 0 }
    }

    pub(super) fn set(&mut self, limits: &Limits) {
        self.bound = self.bound.max(INTAKE_FIRST).min(limits.pending_max);
    }

    pub(super) fn bound(&self) -> usize {
        self.bound
    }

    /// Records that one lane may hold.
    pub(super) fn per_lane(&self, limits: &Limits) -> usize {
        if limits.in_flight_max == 0 {
            // Whoever fetches goes by numbers, and no lane waits for an answer.
            return self.bound;
        }
        let share = if self.bound < limits.pending_max { self.bound / LANE_SHARE } else { limits.pending_per_key_max };
        share.min(limits.pending_per_key_max).max(1)
    }

    pub(super) fn succeeded(&mut self, deliveries: usize, limits: &Limits) {
        self.failures = 0;
        if self.bound >= limits.pending_max {
            return;
        }
        self.succeeded += deliveries;
        if self.succeeded >= self.bound {
            self.succeeded = 0;
            self.bound = self.bound.saturating_mul(2).min(limits.pending_max);
        }
    }

    /// Somebody is there who takes more than this.
    pub(super) fn widen(&mut self, limits: &Limits) {
        self.bound = self.bound.saturating_mul(2).min(limits.pending_max);
    }

    pub(super) fn failed(&mut self, limits: &Limits) {
        self.failures = self.failures.saturating_add(1);
        if self.failures == FAILURES_OF_LATE {
            *self = Self { failures: self.failures, ..Self::new(limits) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_with_success_and_falls_back_when_nothing_succeeds() {
        let limits =
            Limits { pending_max: 1_000, pending_per_key_max: 64, in_flight_max: 1, batch_events_max: 1, attempts_per_minute_max: None };
        let mut intake = Intake::new(&limits);
        for (successes, failures, bound, per_lane) in
            [(63, 0, 64, 8), (1, 0, 128, 16), (127, 15, 128, 16), (1, 0, 256, 32), (768, 0, 1_000, 64), (0, 15, 1_000, 64), (0, 1, 64, 8)]
        {
            (0..successes).for_each(|_| intake.succeeded(1, &limits));
            (0..failures).for_each(|_| intake.failed(&limits));
            assert_eq!((intake.bound(), intake.per_lane(&limits)), (bound, per_lane), "{successes} {failures}");
        }
        intake.widen(&limits);
        assert_eq!(intake.bound(), 128);
        assert_eq!(intake.per_lane(&Limits { in_flight_max: 0, ..limits }), 128, "whoever fetches has no lanes");
        intake.set(&Limits { pending_max: 10, ..limits });
        assert_eq!(intake.bound(), 10);
    }
}
