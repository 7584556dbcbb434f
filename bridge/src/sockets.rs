//! Which WebSocket connections are open: one for each subscription, and so many in all.
//!
//! Must never keep two connections of one subscription: the newer takes over, once the older has said its last.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::{OwnedMutexGuard, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// All of them.
pub struct Sockets {
    max: usize,
    open: Mutex<HashMap<Uuid, Open>>,
    /// How many there are, those included that were told to close and have not yet.
    count: watch::Sender<usize>,
    gauge: Gauge,
}

/// The connections of one subscription: one that goes on, and those before it that have not ended yet.
struct Open {
    places: usize,
    /// Ends the newest.
    newest: CancellationToken,
    turn: Turn,
}

/// Whoever holds it talks with the receiver.
type Turn = Arc<tokio::sync::Mutex<()>>;

/// A place among them, until it is dropped.
pub struct Place {
    sockets: Arc<Sockets>,
    subscription: Uuid,
    replaced: CancellationToken,
    turn: Turn,
    held: Option<OwnedMutexGuard<()>>,
}

impl Sockets {
    /// None yet, and at most so many.
    pub fn new(max: usize, gauge: Gauge) -> Self {
        Self { max, open: Mutex::default(), count: watch::Sender::new(0), gauge }
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
        let mut all = self.lock();
        let first = || Open { places: 0, newest: CancellationToken::new(), turn: Turn::default() };
        let open = all.entry(subscription).or_insert_with(first);
        let replaced = CancellationToken::new();
        std::mem::replace(&mut open.newest, replaced.clone()).cancel();
        open.places += 1;
        let turn = Arc::clone(&open.turn);
        drop(all);
        Some(Place { sockets: Arc::clone(self), subscription, replaced, turn, held: None })
    }

    /// Waits until all have closed, for so long at most.
    pub async fn closed(&self, within: Duration) {
        let mut count = self.count.subscribe();
        // Whoever is left loses nothing: what was not acknowledged comes again.
        let _ = tokio::time::timeout(within, count.wait_for(|count| *count == 0)).await;
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Waits until the connections before it have ended, for so long at most: whether they have.
    pub async fn take_turn(&mut self, within: Duration) -> bool {
        self.held = tokio::time::timeout(within, Arc::clone(&self.turn).lock_owned()).await.ok();
        self.held.is_some()
    }

    /// Resolves when a newer connection has taken over.
    pub async fn replaced(&self) {
        self.replaced.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.sockets.lock();
        if let Some(open) = all.get_mut(&self.subscription) {
            open.places -= 1;
            if open.places == 0 {
                all.remove(&self.subscription);
            }
        }
        drop(all);
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
        let mut first = sockets.enter(one).unwrap();
        assert!(first.take_turn(Duration::MAX).await);
        let mut second = sockets.enter(one).unwrap();
        first.replaced().await;
        assert!(sockets.enter(other).is_none(), "the first has not closed yet");
        assert!(!second.take_turn(Duration::ZERO).await, "it is still the first one's turn");
        drop(first);
        assert!(sockets.lock().contains_key(&one) && !second.replaced.is_cancelled());
        assert!(second.take_turn(Duration::MAX).await);
        let third = sockets.enter(other).unwrap();
        assert_eq!(sockets.gauge.get(), 2);
        sockets.closed(Duration::ZERO).await;
        drop((second, third));
        sockets.closed(Duration::MAX).await;
        assert!(sockets.lock().is_empty() && sockets.gauge.get() == 0);
    }
}
