//! When to try again: exponential backoff with full jitter, and a slow probe for what waiting
//! does not cure. Randomness is an argument.

/// The schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Upper end of the first wait.
    pub first_ms: u64,
    /// Upper end of every wait.
    pub max_ms: u64,
    /// How often a lane is probed whose head is exhausted.
    pub probe_ms: u64,
    /// How long an event is tried before it counts as exhausted.
    pub horizon_ms: u64,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { first_ms: 1_000, max_ms: 900_000, probe_ms: 300_000, horizon_ms: 3 * 24 * 60 * 60 * 1_000 }
    }
}

impl RetryPolicy {
    /// The wait after `attempts` failures: anything from nothing to the doubled step, so that
    /// receivers that come back are not met by a crowd.
    pub fn backoff_ms(&self, attempts: u32, entropy: u64) -> u64 {
        let doublings = attempts.saturating_sub(1).min(32);
        let ceiling_ms = self.first_ms.saturating_mul(1 << doublings).min(self.max_ms);
        entropy % (ceiling_ms + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_fills_its_range_and_doubles_to_the_cap() {
        let policy = RetryPolicy { first_ms: 1_000, max_ms: 10_000, probe_ms: 0, horizon_ms: 0 };
        for (attempts, ceiling_ms) in [(1, 1_000), (2, 2_000), (3, 4_000), (4, 8_000), (5, 10_000), (60, 10_000), (u32::MAX, 10_000)] {
            assert_eq!(policy.backoff_ms(attempts, 0), 0);
            assert_eq!(policy.backoff_ms(attempts, ceiling_ms), ceiling_ms);
            assert_eq!(policy.backoff_ms(attempts, ceiling_ms + 1), 0);
        }
    }
}
