//! How many attempts a minute: a token bucket with integers only.
//!
//! Must never let more than one second's worth through at once, and always one.

/// What an attempt costs; a millisecond brings as many as attempts are allowed a minute.
const COST: u64 = 60_000;

/// One bucket.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    per_minute: Option<u64>,
    tokens: u64,
    filled_ms: u64,
}

impl Rate {
    pub(super) fn new(attempts_per_minute_max: Option<u32>) -> Self {
        let per_minute = attempts_per_minute_max.map(|attempts| u64::from(attempts.max(1)));
        let mut rate = Self { per_minute, tokens: 0, filled_ms: 0 };
        rate.tokens = rate.burst();
        rate
    }

    /// Another rate from now on. What was used up stays used up.
    pub(super) fn set(&mut self, now_ms: u64, attempts_per_minute_max: Option<u32>) {
        self.fill(now_ms);
        let was = self.per_minute;
        self.per_minute = attempts_per_minute_max.map(|attempts| u64::from(attempts.max(1)));
        self.tokens = if was.is_none() { self.burst() } else { self.tokens.min(self.burst()) };
        self.filled_ms = now_ms;
    }

    /// Takes one attempt, if one is left.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        if self.per_minute.is_none() {
            return true;
        }
        self.fill(now_ms);
        let left = self.tokens >= COST;
        if left {
            self.tokens -= COST;
        }
        left
    }

    /// An attempt that was taken has not been made.
    pub(super) fn give_back(&mut self) {
        self.tokens = (self.tokens + COST).min(self.burst());
    }

    /// When the next attempt may be made.
    pub(super) fn next_ms(&self) -> u64 {
        let Some(per_minute) = self.per_minute else { return 0 };
        self.filled_ms.saturating_add(COST.saturating_sub(self.tokens).div_ceil(per_minute))
    }

    fn burst(&self) -> u64 {
        self.per_minute.map_or(0, |per_minute| (per_minute * 1_000).max(COST))
    }

    fn fill(&mut self, now_ms: u64) {
        let Some(per_minute) = self.per_minute else { return };
        let brought = now_ms.saturating_sub(self.filled_ms).saturating_mul(per_minute);
        self.tokens = self.tokens.saturating_add(brought).min(self.burst());
        self.filled_ms = self.filled_ms.max(now_ms);
    }
}

/// The buckets that an attempt takes from: the machine's own, and for a replay that of its subscription.
#[derive(Debug)]
pub(super) struct Rates {
    pub(super) own: Rate,
    /// Lent for one step at a time.
    pub(super) lent: Option<Rate>,
}

impl Rates {
    /// Takes one attempt, if one is left in each.
    pub(super) fn take(&mut self, now_ms: u64) -> bool {
        if !self.own.take(now_ms) {
            return false;
        }
        let left = self.lent.as_mut().is_none_or(|lent| lent.take(now_ms));
        if !left {
            self.own.give_back();
        }
        left
    }

    /// An attempt that was taken has not been made.
    pub(super) fn give_back(&mut self) {
        self.own.give_back();
        if let Some(lent) = &mut self.lent {
            lent.give_back();
        }
    }

    /// When the next attempt may be made, as far as is known.
    pub(super) fn next_ms(&self) -> u64 {
        self.own.next_ms().max(self.lent.as_ref().map_or(0, Rate::next_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_at_once_and_the_rate_in_the_long_run() {
        for (per_minute, at_once, in_a_minute) in [(1, 1, 1), (30, 1, 30), (60, 1, 60), (600, 10, 609), (6_000, 100, 6_099)] {
            let mut rate = Rate::new(Some(per_minute));
            assert_eq!((0..1_000).filter(|_| rate.take(5)).count(), at_once, "{per_minute}");
            let mut made = at_once;
            let mut now_ms = 5;
            while now_ms < 60_005 {
                assert!(rate.next_ms() > now_ms, "{per_minute}");
                now_ms = rate.next_ms();
                if now_ms < 60_005 {
                    assert!(rate.take(now_ms), "{per_minute}: the announced time holds");
                    made += 1;
                    while rate.take(now_ms) {
                        made += 1;
                    }
                }
            }
            assert!(made.abs_diff(in_a_minute) <= 1, "{per_minute}: {made}");
        }
        let mut free = Rate::new(None);
        assert!((0..1_000).all(|_| free.take(0)) && free.next_ms() == 0);
        free.set(10, Some(60));
        assert!(free.take(10) && !free.take(10));
        free.give_back();
        assert!(free.take(10));
    }
}
