//! How many requests each organisation may make: none takes the bridge from the others.
//!
//! Counted for whoever acts, a supplier for all that it acts for. Operators are not counted: they mend what others break.

use std::num::NonZeroU32;

use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ryggrad_bridge_core::access::Caller;
use ryggrad_schemas::identifiers::Organisasjonsnummer;

/// What everyone has left. As many entries as there are organisations that have called.
pub struct RequestQuota(DefaultKeyedRateLimiter<Organisasjonsnummer>);

impl RequestQuota {
    /// So many requests a second, and so many at once.
    pub fn new(per_second: NonZeroU32, at_once: NonZeroU32) -> Self {
        Self(RateLimiter::hashmap(Quota::per_second(per_second).allow_burst(at_once)))
    }

    /// Takes one request; if none is left, tells after how many seconds there is one.
    pub fn take(&self, caller: Caller) -> Result<(), u16> {
        let acting = caller.supplier.unwrap_or(caller.organisation);
        self.0.check_key(&acting).map_err(|not_before| {
            let wait_s = not_before.wait_time_from(DefaultClock::default().now()).as_secs_f64().ceil();
            // The wait for one request is a second at most.
            (wait_s as u16).max(1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_used_it_up_waits_and_nobody_else_does() {
        let one = NonZeroU32::MIN;
        let quota = RequestQuota::new(one, one.saturating_add(2));
        let caller = |organisation: &str, supplier: Option<&str>| Caller {
            organisation: organisation.parse().unwrap(),
            supplier: supplier.map(|supplier| supplier.parse().unwrap()),
        };
        let (own, acted_for) = (caller("312345676", None), caller("312345676", Some("923609016")));
        assert_eq!([(); 4].map(|()| quota.take(own)), [Ok(()), Ok(()), Ok(()), Err(1)]);
        // A supplier has its own, whomever it acts for.
        assert_eq!(quota.take(acted_for), Ok(()));
        assert_eq!(quota.take(caller("310000019", Some("923609016"))), Ok(()));
        assert_eq!(quota.take(caller("923609016", None)), Ok(()));
        assert_eq!(quota.take(acted_for), Err(1));
    }
}
