//! What all requests share: the registry, the faults on order, chance, and whether time runs.
//!
//! Chance here spoils answers only. The registry has random numbers of its own, so that asking
//! more or less often never changes what happens in it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::{api::BASE_PATH, faults::Faults, world::World};

/// How often answers are to go wrong by chance, as shares of 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    pub(super) duplicates: f64,
    pub(super) too_many_requests: f64,
}

pub(super) struct Service {
    world: World,
    faults: Mutex<Faults>,
    chance: Mutex<StdRng>,
    shares: Shares,
    running: AtomicBool,
    origin: String,
    base: String,
    identity: u64,
    stop: CancellationToken,
}

impl Service {
    pub(super) fn new(world: World, origin: String, seed: u64, shares: Shares, stop: CancellationToken) -> Self {
        let mut hasher = DefaultHasher::new();
        (seed, world.started_at()).hash(&mut hasher);
        Self {
            faults: Mutex::default(),
            chance: Mutex::new(StdRng::seed_from_u64(!seed)),
            shares,
            running: AtomicBool::new(true),
            base: format!("{origin}{BASE_PATH}"),
            origin,
            identity: hasher.finish(),
            world,
            stop,
        }
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn happens(&self, share: f64) -> bool {
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        share > 0.0 && chance.random::<f64>() < share
    }

    pub(super) fn too_many_requests(&self) -> bool {
        self.happens(self.shares.too_many_requests)
    }

    pub(super) fn duplicates(&self) -> bool {
        self.happens(self.shares.duplicates)
    }

    pub(super) fn coin(&self) -> bool {
        self.happens(0.5)
    }

    /// A number for what chance decides once in an answer.
    pub(super) fn dice(&self) -> u64 {
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).random()
    }

    pub(super) fn running(&self) -> bool {
        self.running.load(Ordering::Relaxed)
    }

    pub(super) fn set_running(&self, running: bool) {
        self.running.store(running, Ordering::Relaxed);
    }

    /// Scheme, host and port.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// What a client is given as the API's base URL.
    pub(super) fn base(&self) -> &str {
        &self.base
    }

    /// Tells this registry's answers from those of one with another seed or start.
    pub(super) fn identity(&self) -> u64 {
        self.identity
    }

    pub(super) fn stopping(&self) -> WaitForCancellationFuture<'_> {
        self.stop.cancelled()
    }

    pub(super) fn status(&self) -> Value {
        let mut status = self.world.status();
        status["running"] = self.running().into();
        status["started_at"] = self.world.started_at().into();
        status["base_url"] = self.base.as_str().into();
        status["faults_waiting"] = self.faults().waiting().len().into();
        status
    }
}
