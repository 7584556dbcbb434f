//! How fast upstream may be asked: an even pace, and the pauses that it orders.
//!
//! A pause that upstream asks for (`Retry-After`) holds for every request of the client, and is
//! obeyed in full.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tokio::time::{Instant, sleep_until};

/// The longest pause that is believed; more would be a mistake in the header.
const PAUSE_MAX: Duration = Duration::from_secs(86_400);

/// Hands out turns at an even pace.
#[derive(Debug)]
pub(crate) struct Pace {
    gap: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: Option<Instant>,
    paused_until: Option<Instant>,
}

impl State {
    /// The moment of the next turn.
    fn reserve(&mut self, now: Instant, gap: Duration) -> Instant {
        let turn = [self.next, self.paused_until].into_iter().flatten().fold(now, Instant::max);
        self.next = Some(turn + gap);
        turn
    }

    fn pause(&mut self, until: Instant) {
        self.paused_until = Some(self.paused_until.map_or(until, |found| found.max(until)));
    }

    fn is_paused(&self, now: Instant) -> bool {
        self.paused_until.is_some_and(|until| until > now)
    }
}

impl Pace {
    pub(crate) fn new(requests_per_second_max: u32) -> Self {
        Self { gap: Duration::from_secs(1) / requests_per_second_max.max(1), state: Mutex::default() }
    }

    /// Waits for a turn.
    pub(crate) async fn turn(&self) {
        loop {
            let turn = self.state().reserve(Instant::now(), self.gap);
            sleep_until(turn).await;
            // A pause may have been ordered while we waited.
            if !self.state().is_paused(Instant::now()) {
                return;
            }
        }
    }

    /// Lets all turns wait.
    pub(crate) fn pause(&self, pause: Duration) {
        self.state().pause(Instant::now() + pause.min(PAUSE_MAX));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing is left half done under this lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pause in a `Retry-After` header: seconds, or a date.
pub(crate) fn retry_after(header: &str, now: Timestamp) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = date(header)?;
    Some(Duration::try_from(until.duration_since(now)).unwrap_or_default())
}

/// A date in a header.
pub(crate) fn date(header: &str) -> Option<Timestamp> {
    rfc2822::DateTimeParser::new().parse_timestamp(header.trim()).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn turns_keep_their_distance_and_wait_out_a_pause() {
        let (mut state, now, gap) = (State::default(), Instant::now(), Duration::from_millis(20));
        let turns: Vec<_> = (0..3).map(|_| state.reserve(now, gap) - now).collect();
        assert_eq!(turns, [Duration::ZERO, gap, gap * 2]);
        let long = Duration::from_secs(7);
        state.pause(now + long);
        state.pause(now + gap);
        assert!(state.is_paused(now) && !state.is_paused(now + long));
        assert_eq!([state.reserve(now, gap) - now, state.reserve(now, gap) - now], [long, long + gap]);
        assert_eq!(state.reserve(now + long * 2, gap) - now, long * 2);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = "1994-11-06T08:49:07Z".parse().unwrap();
        for (header, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(retry_after(header, now), expected.map(Duration::from_secs), "{header:?}");
        }
    }
}
