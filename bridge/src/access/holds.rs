//! Who is stopped now, in a form that every attempt can afford to look at.
//!
//! One hold for each caller that has subscriptions, shared by everything that delivers for it. Whoever
//! is about to send looks with one load; whoever waits is woken. Set before the change behind it is
//! answered. Must never make a delivery wait for a lock, nor say "go on" to somebody new unasked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ryggrad_bridge_core::access::{Caller, Reason};
use tokio::sync::watch;

/// What stops one caller, if anything does.
pub struct Hold {
    /// Whose it is.
    pub caller: Caller,
    /// Its place among [`Reason::STOPPING`], from one on; zero is none.
    reason: AtomicU8,
    changed: watch::Sender<()>,
}

impl Hold {
    fn new(caller: Caller, reason: Option<Reason>) -> Self {
        Self { caller, reason: AtomicU8::new(place(reason)), changed: watch::Sender::new(()) }
    }

    /// What stops it now.
    pub fn reason(&self) -> Option<Reason> {
        let place = usize::from(self.reason.load(Ordering::Relaxed));
        Reason::STOPPING.get(place.checked_sub(1)?).copied()
    }

    /// Whether anything does.
    pub fn is_set(&self) -> bool {
        self.reason.load(Ordering::Relaxed) != 0
    }

    /// Resolves when something stops it.
    pub async fn set(&self) {
        // Never an error: the sender is this one's own.
        let _ = self.changed.subscribe().wait_for(|()| self.is_set()).await;
    }

    /// Says whether that is new.
    fn weigh(&self, reason: Option<Reason>) -> bool {
        let is_new = self.reason.swap(place(reason), Ordering::Relaxed) != place(reason);
        if is_new {
            self.changed.send_replace(());
        }
        is_new
    }
}

/// Five of them fit a byte.
fn place(reason: Option<Reason>) -> u8 {
    let places = (1..).zip(Reason::STOPPING);
    places.into_iter().find(|(_, one)| Some(*one) == reason).map_or(0, |(place, _)| place)
}

/// All of them: as many as there are callers with subscriptions.
pub struct Holds {
    known: Mutex<HashMap<Caller, Weak<Hold>>>,
    changed: watch::Sender<u64>,
}

impl Default for Holds {
    fn default() -> Self {
        Self { known: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Holds {
    /// Changes whenever somebody is stopped, or is so no longer.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A caller's; `judge` is asked where it is new, under the lock: no change can pass in between.
    pub fn of(&self, caller: Caller, judge: impl Fn(Caller) -> Option<Reason>) -> Arc<Hold> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hold) = known.get(&caller).and_then(Weak::upgrade) {
            return hold;
        }
        let hold = Arc::new(Hold::new(caller, judge(caller)));
        known.insert(caller, Arc::downgrade(&hold));
        hold
    }

    /// Judges everyone anew.
    pub fn weigh(&self, judge: impl Fn(Caller) -> Option<Reason>) {
        let mut changed = false;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|caller, hold| {
            let hold = hold.upgrade();
            changed |= hold.as_ref().is_some_and(|hold| hold.weigh(judge(*caller)));
            hold.is_some()
        });
        drop(known);
        if changed {
            self.changed.send_modify(|changes| *changes += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn every_reason_that_stops_is_told_and_wakes_who_waits() {
        let (holds, caller) = (Holds::default(), Caller { organisation: "312345676".parse().unwrap(), supplier: None });
        let hold = holds.of(caller, |_| None);
        let news = holds.subscribe();
        assert!(!hold.is_set() && hold.set().now_or_never().is_none());
        for reason in Reason::STOPPING {
            holds.weigh(|_| Some(reason));
            assert_eq!(hold.reason(), Some(reason));
            assert!(hold.set().now_or_never().is_some());
        }
        assert!(news.has_changed().unwrap());
        holds.weigh(|_| None);
        assert_eq!(hold.reason(), None);
        // What withholds single events alone stops nobody.
        assert_eq!(place(Some(Reason::Blocked)), 0);
    }

    #[test]
    fn a_caller_has_one_hold_and_none_once_nobody_needs_it() {
        let (holds, caller) = (Holds::default(), Caller { organisation: "312345676".parse().unwrap(), supplier: None });
        let (one, other) = (holds.of(caller, |_| None), holds.of(caller, |_| Some(Reason::Suspended)));
        assert!(Arc::ptr_eq(&one, &other));
        drop((one, other));
        holds.weigh(|_| None);
        assert!(holds.known.lock().unwrap().is_empty());
        assert!(holds.of(caller, |_| Some(Reason::Suspended)).is_set(), "whoever comes is judged");
    }
}
