//! Which WebSocket connections are open: one for each subscription, and so many in all.
//!
//! Must never keep two connections of one subscription: the newer takes over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// All of them.
pub struct Sockets {
    max: usize,
    open: Mutex<HashMap<Uuid, (u64, CancellationToken)>>,
    /// How many there are, those included that were told to close and have not yet.
    count: watch::Sender<usize>,
    gauge: Gauge,
    next: Mutex<u64>,
}

/// A place among them, until it is dropped.
pub struct Place {
    sockets: Arc<Sockets>,
    subscription: Uuid,
    number: u64,
    replaced: CancellationToken,
}

impl Sockets {
    /// None yet, and at most so many.
    pub fn new(max: usize, gauge: Gauge) -> Self {
        Self { max, open: Mutex::default(), count: watch::Sender::new(0), gauge, next: Mutex::new(0) }
    }

    /// A place for a new connection, which takes over from the one before. `None` if there are too many.
    pub fn enter(self: &Arc<Self>, subscription: Uuid) -> Option<Place> {
        let mut entered = false;
        self.count.send_if_modified(|count| {
            entered = *count < self.max;
            *count += usize::from(entered);
            entered
        });
        if !entered {
            return None;
        }
        self.gauge.inc();
        let number = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let replaced = CancellationToken::new();
        if let Some((_, before)) = self.lock().insert(subscription, (number, replaced.clone())) {
            before.cancel();
        }
        Some(Place { sockets: Arc::clone(self), subscription, number, replaced })
    }

    /// Waits until all have closed, for so long at most.
    pub async fn closed(&self, within: Duration) {
        let mut count = self.count.subscribe();
        // Whoever is left loses nothing: what was not acknowledged comes again.
        let _ = tokio::time::timeout(within, count.wait_for(|count| *count == 0)).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, (u64, CancellationToken)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Resolves when a newer connection has taken over.
    pub async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.sockets.lock();
        if open.get(&self.subscription).is_some_and(|(number, _)| *number == self.number) {
            open.remove(&self.subscription);
        }
        drop(open);
        self.sockets.gauge.dec();
        self.sockets.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newer_takes_over_and_the_number_is_bounded() {
        let sockets = Arc::new(Sockets::new(2, Gauge::default()));
        let (one, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let first = sockets.enter(one).unwrap();
        let second = sockets.enter(one).unwrap();
        first.replaced().await;
        assert!(sockets.enter(other).is_none(), "the first has not closed yet");
        drop(first);
        assert!(sockets.lock().contains_key(&one) && !second.replaced.is_cancelled());
        let third = sockets.enter(other).unwrap();
        assert_eq!(sockets.gauge.get(), 2);
        sockets.closed(Duration::ZERO).await;
        drop((second, third));
        sockets.closed(Duration::MAX).await;
        assert!(sockets.lock().is_empty() && sockets.gauge.get() == 0);
    }
}
