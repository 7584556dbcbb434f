//! One endpoint's circuit breaker and how many attempts it gets at once.
//!
//! Pure: time and entropy are arguments. Must never count what an event or a throttled
//! subscription did against the endpoint: only what the endpoint itself fails to answer.

use crate::outcome::Outcome;

/// How many attempts an endpoint gets at once before it has shown how it answers.
const IN_FLIGHT_FIRST: usize = 4;

/// An endpoint that has something under way and has said nothing for so long is suspect.
const QUIET_MS: u64 = 1_000;

/// Limits of one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Attempts at the same time, at most.
    pub in_flight_max: usize,
    /// Failures in a row after which the breaker opens.
    pub failures_to_open: u32,
    /// Upper end of how long it stays open at first.
    pub open_first_ms: u64,
    /// Upper end of how long it ever stays open.
    pub open_max_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight_max: 64, failures_to_open: 5, open_first_ms: 1_000, open_max_ms: 30_000 }
    }
}

/// What the breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything, up to the concurrency.
    Closed,
    /// Nothing yet.
    Open {
        /// Until then.
        until_ms: u64,
    },
    /// One attempt, whose end decides.
    Probing,
}

/// The breaker and the concurrency of one endpoint.
#[derive(Debug, Clone)]
pub struct Endpoint {
    limits: Limits,
    state: State,
    concurrency: usize,
    in_flight: usize,
    /// Endpoint-wide failures since the last success.
    failures: u32,
    /// How often it has opened since the last success.
    openings: u32,
    /// Something has got through, or nothing has been tried: no reason for doubt.
    trusted: bool,
    /// Since when something is under way and nothing has been answered.
    quiet_since_ms: Option<u64>,
}

impl Endpoint {
    /// An endpoint that nothing is known of.
    pub fn new(limits: Limits) -> Self {
        let concurrency = IN_FLIGHT_FIRST.min(limits.in_flight_max).max(1);
        Self { limits, state: State::Closed, concurrency, in_flight: 0, failures: 0, openings: 0, trusted: false, quiet_since_ms: None }
    }

    /// Whether an attempt may start now.
    pub fn admits(&self, now_ms: u64) -> bool {
        match self.state {
            State::Closed => self.in_flight < self.concurrency,
            State::Open { until_ms } => now_ms >= until_ms && self.in_flight == 0,
            State::Probing => false,
        }
    }

    /// An attempt has started.
    pub fn started(&mut self, now_ms: u64) {
        self.in_flight += 1;
        self.quiet_since_ms.get_or_insert(now_ms);
        if let State::Open { until_ms } = self.state
            && now_ms >= until_ms
        {
            self.state = State::Probing;
        }
    }

    /// An attempt has ended. Entropy spreads the openings.
    pub fn ended(&mut self, now_ms: u64, outcome: &Outcome, entropy: u64) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let answered = !matches!(outcome, Outcome::Failed | Outcome::Unsent | Outcome::Withheld);
        if self.in_flight == 0 {
            self.quiet_since_ms = None;
        } else if answered {
            self.quiet_since_ms = Some(now_ms);
        }
        match outcome {
            // It answers, whatever it says about the event.
            Outcome::Delivered | Outcome::Hopeless | Outcome::Throttled { .. } | Outcome::Gone => {
                if *outcome == Outcome::Delivered {
                    self.concurrency = (self.concurrency + 1).min(self.limits.in_flight_max.max(1));
                    self.trusted = true;
                    (self.failures, self.openings) = (0, 0);
                }
                if *outcome == Outcome::Delivered || self.state == State::Probing {
                    self.state = State::Closed;
                }
            }
            Outcome::Failed => {
                self.concurrency = (self.concurrency / 2).max(1);
                self.failures = self.failures.saturating_add(1);
                let opens = match self.state {
                    State::Probing => true,
                    State::Closed => self.failures >= self.limits.failures_to_open,
                    // One that started before it opened says nothing new.
                    State::Open { .. } => false,
                };
                if opens {
                    self.open(now_ms, entropy);
                }
            }
            // Nothing was sent: a probe is still owed.
            Outcome::Unsent | Outcome::Withheld => {
                if self.state == State::Probing {
                    self.state = State::Open { until_ms: now_ms };
                }
            }
        }
    }

    /// When an attempt may start that may not start now, if only time is missing.
    pub fn wake_at_ms(&self) -> Option<u64> {
        match self.state {
            State::Open { until_ms } => Some(until_ms),
            State::Closed | State::Probing => None,
        }
    }

    /// Somebody has mended it: forget what was held against it. What is under way stays counted.
    pub fn reset(&mut self) {
        *self = Self { in_flight: self.in_flight, quiet_since_ms: self.quiet_since_ms, ..Self::new(self.limits) };
    }

    /// What the breaker lets through.
    pub fn state(&self) -> State {
        self.state
    }

    /// How many attempts it gets at once now.
    pub fn concurrency(&self) -> usize {
        self.concurrency
    }

    /// Attempts under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether it may well not answer: the breaker is not closed, the last failure is newer than
    /// the last success, or something is under way and nothing has got through, ever or of late.
    pub fn is_suspect(&self, now_ms: u64) -> bool {
        let quiet = self.quiet_since_ms.is_some_and(|since_ms| now_ms.saturating_sub(since_ms) > QUIET_MS);
        self.state != State::Closed || self.failures > 0 || quiet || (!self.trusted && self.in_flight > 0)
    }

    fn open(&mut self, now_ms: u64, entropy: u64) {
        let ceiling_ms = self.limits.open_first_ms.saturating_mul(1 << self.openings.min(32)).min(self.limits.open_max_ms);
        // Between half and all of it: a breaker that hardly opens protects nobody.
        let open_ms = ceiling_ms / 2 + entropy % (ceiling_ms / 2 + 1);
        self.openings = self.openings.saturating_add(1);
        self.state = State::Open { until_ms: now_ms.saturating_add(open_ms) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { in_flight_max: 8, failures_to_open: 5, open_first_ms: 1_000, open_max_ms: 30_000 };
    /// Takes the whole of every opening.
    const LONGEST: u64 = u64::MAX;

    fn attempt(endpoint: &mut Endpoint, now_ms: u64, outcome: Outcome) {
        endpoint.started(now_ms);
        let ceiling_ms = 1_000_u64.saturating_mul(1 << endpoint.openings.min(20)).min(30_000);
        endpoint.ended(now_ms, &outcome, if outcome == Outcome::Failed { ceiling_ms / 2 } else { LONGEST });
    }

    #[test]
    fn it_opens_after_a_row_of_failures_and_ever_longer() {
        let mut endpoint = Endpoint::new(LIMITS);
        for _ in 0..4 {
            attempt(&mut endpoint, 0, Outcome::Failed);
            assert!(endpoint.admits(0));
        }
        attempt(&mut endpoint, 0, Outcome::Failed);
        let mut now_ms = 0;
        for open_ms in [1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000] {
            assert_eq!(endpoint.wake_at_ms(), Some(now_ms + open_ms));
            assert!(!endpoint.admits(now_ms + open_ms - 1) && endpoint.admits(now_ms + open_ms) && endpoint.is_suspect(now_ms));
            now_ms += open_ms;
            endpoint.started(now_ms);
            assert!(!endpoint.admits(now_ms) && endpoint.state() == State::Probing, "one probe");
            endpoint.ended(now_ms, &Outcome::Unsent, 0);
            assert!(endpoint.admits(now_ms), "a probe that was not sent is owed");
            attempt(&mut endpoint, now_ms, Outcome::Failed);
        }
        now_ms += 30_000;
        attempt(&mut endpoint, now_ms, Outcome::Delivered);
        assert!(endpoint.state() == State::Closed && endpoint.admits(now_ms) && !endpoint.is_suspect(now_ms));
        (0..5).for_each(|_| attempt(&mut endpoint, now_ms, Outcome::Failed));
        assert_eq!(endpoint.wake_at_ms(), Some(now_ms + 1_000), "from the beginning");
        endpoint.reset();
        assert!(endpoint.admits(now_ms) && !endpoint.is_suspect(now_ms));
    }

    #[test]
    fn only_what_the_endpoint_fails_to_answer_counts() {
        for outcome in [Outcome::Hopeless, Outcome::Throttled { retry_after_ms: 9 }, Outcome::Unsent, Outcome::Withheld, Outcome::Gone] {
            let mut endpoint = Endpoint::new(LIMITS);
            (0..50).for_each(|_| attempt(&mut endpoint, 0, outcome));
            assert_eq!((endpoint.state(), endpoint.concurrency(), endpoint.is_suspect(0)), (State::Closed, 4, false), "{outcome:?}");
        }
        let mut endpoint = Endpoint::new(LIMITS);
        for _ in 0..50 {
            (0..4).for_each(|_| attempt(&mut endpoint, 0, Outcome::Failed));
            attempt(&mut endpoint, 0, Outcome::Delivered);
        }
        assert_eq!(endpoint.state(), State::Closed, "a success ends the row");
    }

    #[test]
    fn concurrency_grows_by_one_and_halves() {
        let mut endpoint = Endpoint::new(LIMITS);
        for (outcome, concurrency) in [
            (Outcome::Delivered, 5),
            (Outcome::Delivered, 6),
            (Outcome::Failed, 3),
            (Outcome::Failed, 1),
            (Outcome::Failed, 1),
            (Outcome::Delivered, 2),
        ] {
            attempt(&mut endpoint, 0, outcome);
            assert_eq!(endpoint.concurrency(), concurrency);
        }
        (0..20).for_each(|_| attempt(&mut endpoint, 0, Outcome::Delivered));
        assert_eq!(endpoint.concurrency(), 8);
        (0..8).for_each(|_| endpoint.started(0));
        assert!(!endpoint.admits(0) && endpoint.in_flight() == 8);
        let mut hanging = Endpoint::new(LIMITS);
        hanging.started(0);
        assert!(hanging.is_suspect(0), "nothing has ever got through");
        hanging.ended(0, &Outcome::Delivered, 0);
        hanging.started(5_000);
        assert!(!hanging.is_suspect(6_000) && hanging.is_suspect(6_001), "it has gone quiet");
    }
}
