//! Waiting for a state. The only place in the tests that pauses, and only between two looks.

use std::time::{Duration, Instant};

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Looks until there is something to return, or panics after `timeout_s` with what was awaited.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, timeout_s: u64, mut look: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(timeout_s);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {timeout_s} s in vain for: {what}");
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The same for what may never come: `None` after `timeout_s`.
pub async fn held<T, F: Future<Output = Option<T>>>(what: &str, timeout_s: u64, mut look: impl FnMut() -> F) -> Option<T> {
    let deadline = Instant::now() + Duration::from_secs(timeout_s);
    while Instant::now() < deadline {
        if let Some(found) = look().await {
            return Some(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    println!("waited {timeout_s} s in vain for: {what}");
    None
}

/// Lets a random moment pass, for kills at random moments: here the pause is the point.
pub async fn random_moment(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}
