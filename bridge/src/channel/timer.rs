//! A time limit that is used again: setting one up for each attempt would cost more than the limit is worth.
//!
//! Must never let anything go on beyond its limit.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

/// The limit of one thing at a time.
pub struct Timer(Pin<Box<Sleep>>);

impl Default for Timer {
    fn default() -> Self {
        Self(Box::pin(sleep(Duration::ZERO)))
    }
}

impl Timer {
    /// Does something; `None` if it takes longer than this. What is ready at once costs no time limit.
    pub async fn within<T>(&mut self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        let (mut work, timer) = (pin!(work), &mut self.0);
        let mut is_set = false;
        poll_fn(|context| {
            if let Poll::Ready(done) = work.as_mut().poll(context) {
                return Poll::Ready(Some(done));
            }
            if !std::mem::replace(&mut is_set, true) {
                timer.as_mut().reset(Instant::now() + limit);
            }
            timer.as_mut().poll(context).map(|()| None)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    const SHORT: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn each_limit_counts_from_its_own_beginning_whatever_was_set_before() {
        let mut timer = Timer::default();
        for _ in 0..3 {
            assert_eq!(timer.within(SHORT, pending::<()>()).await, None);
            assert_eq!(timer.within(LONG, sleep(2 * SHORT)).await, Some(()), "a limit that has passed binds nobody");
            assert_eq!(timer.within(SHORT, ready(7)).await, Some(7));
        }
    }
}
