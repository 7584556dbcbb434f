//! Where the loop over a feed and the comparison with its dump meet.
//!
//! Both ask upstream for states and publish them. Whoever does so for a feed holds its turn from
//! the question until the answer is published, so that no older state is ever put over a newer
//! one. Besides, the comparison learns which keys the feed has published since it began, and
//! that the feed has been read to its end.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedMutexGuard, watch};

/// More keys than this that a feed publishes during one comparison end the comparison.
pub(crate) const TOUCHED_KEYS_MAX: usize = 2_000_000;

#[derive(Debug, Default)]
pub(crate) struct Crossing {
    turn: Arc<tokio::sync::Mutex<()>>,
    /// How many wait for the turn.
    waiting: AtomicUsize,
    /// How often the feed was read to its end.
    ends: watch::Sender<u64>,
    /// Keys published by the feed; `None` while nobody wants to know.
    touched: Mutex<Option<HashSet<String>>>,
    wanted: Notify,
}

impl Crossing {
    pub(crate) async fn turn(&self) -> OwnedMutexGuard<()> {
        let _waiting = Waiting::new(&self.waiting);
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Whether somebody waits for the turn: whoever has it should come to an end.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    pub(crate) fn read_to_end(&self) {
        self.ends.send_modify(|ends| *ends += 1);
    }

    /// Waits until a question that was asked after this call has found the feed's end.
    pub(crate) async fn next_end(&self) {
        // The question that is under way may be older.
        let enough = *self.ends.borrow() + 2;
        // The sender lives as long as this does.
        let _ = self.ends.subscribe().wait_for(|ends| *ends >= enough).await;
    }

    /// Asks for a comparison with the dump now.
    pub(crate) fn want_comparison(&self) {
        self.wanted.notify_one();
    }

    pub(crate) async fn comparison_wanted(&self) {
        self.wanted.notified().await;
    }

    /// Notes from now on what the feed publishes.
    pub(crate) fn watch(self: &Arc<Self>) -> Watch {
        *self.touched() = Some(HashSet::new());
        Watch(Arc::clone(self))
    }

    pub(crate) fn published<'k>(&self, keys: impl Iterator<Item = &'k str>) {
        if let Some(touched) = self.touched().as_mut() {
            touched.extend(keys.map(str::to_owned));
        }
    }

    fn touched(&self) -> MutexGuard<'_, Option<HashSet<String>>> {
        // A set is whole after every single operation.
        self.touched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts as one that waits for as long as it lives.
struct Waiting<'c>(&'c AtomicUsize);

impl<'c> Waiting<'c> {
    fn new(count: &'c AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Notes what a feed publishes for as long as it lives.
pub(crate) struct Watch(Arc<Crossing>);

impl Watch {
    pub(crate) fn is_touched(&self, key: &str) -> bool {
        self.0.touched().as_ref().is_some_and(|touched| touched.contains(key))
    }

    pub(crate) fn touch(&self, keys: Vec<String>) {
        if let Some(touched) = self.0.touched().as_mut() {
            touched.extend(keys);
        }
    }

    pub(crate) fn is_overrun(&self) -> bool {
        self.0.touched().as_ref().is_some_and(|touched| touched.len() > TOUCHED_KEYS_MAX)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.0.touched() = None;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn only_what_is_published_while_somebody_watches_is_noted() {
        let crossing = Arc::new(Crossing::default());
        crossing.published(["a"].into_iter());
        let watch = crossing.watch();
        crossing.published(["b"].into_iter());
        watch.touch(vec!["c".to_owned()]);
        assert_eq!(["a", "b", "c"].map(|key| watch.is_touched(key)), [false, true, true]);
        drop(watch);
        assert!(!crossing.watch().is_touched("b"));
    }

    #[tokio::test]
    async fn the_turn_is_wanted_while_somebody_waits_for_it() {
        let crossing = Crossing::default();
        let held = crossing.turn().await;
        assert!(!crossing.is_wanted());
        {
            let mut waiting = std::pin::pin!(crossing.turn());
            assert!((&mut waiting).now_or_never().is_none());
            assert!(crossing.is_wanted());
        }
        assert!(!crossing.is_wanted());
        drop(held);
    }

    #[tokio::test]
    async fn an_end_counts_only_if_its_question_came_later() {
        let crossing = Crossing::default();
        let mut waiting = std::pin::pin!(crossing.next_end());
        assert!((&mut waiting).now_or_never().is_none());
        crossing.read_to_end();
        assert!((&mut waiting).now_or_never().is_none());
        crossing.read_to_end();
        assert!((&mut waiting).now_or_never().is_some());
    }
}
