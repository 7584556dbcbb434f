//! How often an owner may have an endpoint called by hand: once a second per subscription.
//!
//! Must never grow with the number of subscriptions: what is older than that second is forgotten.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

const PAUSE: Duration = Duration::from_secs(1);

/// Remembers the latest calls.
#[derive(Default)]
pub struct Pace(Mutex<HashMap<Uuid, Instant>>);

impl Pace {
    /// Whether a call may be made now; if so, it counts as made.
    pub fn allows(&self, subscription: Uuid) -> bool {
        self.allows_at(subscription, Instant::now())
    }

    fn allows_at(&self, subscription: Uuid, now: Instant) -> bool {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.retain(|_, at| now.duration_since(*at) < PAUSE);
        let free = !latest.contains_key(&subscription);
        if free {
            latest.insert(subscription, now);
        }
        free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_called_once_a_second_and_no_other_waits_for_it() {
        let (pace, start) = (Pace::default(), Instant::now());
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        for (subscription, after_ms, expected) in
            [(one, 0, true), (one, 999, false), (other, 999, true), (one, 1_000, true), (one, 1_500, false), (other, 2_000, true)]
        {
            assert_eq!(pace.allows_at(subscription, start + Duration::from_millis(after_ms)), expected, "{subscription} {after_ms}");
        }
        assert_eq!(pace.0.lock().unwrap().len(), 1, "what is a second old is forgotten");
    }
}
