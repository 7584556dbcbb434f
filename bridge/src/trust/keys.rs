//! The issuer's keys: found by its description, fetched again and again, kept for a while when it is away.
//!
//! One task fetches; whoever meets a key that is not known asks it, and waits a little. Must never ask the
//! issuer more often than `jwks_refresh_min_ms`, whatever tokens come, nor use keys beyond their time.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ryggrad_bridge_core::trust::{Discovery, InvalidDiscovery, InvalidKeySet, KeySet};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::metrics::Metrics;
use super::settings::TrustConfig;
use crate::channel::document::NoDocument;
use crate::channel::webhook::Webhook;

/// How long a caller whose key is not known waits for the issuer.
const WAIT: Duration = Duration::from_secs(5);

/// Why there are no fresh keys.
#[derive(Debug, thiserror::Error)]
enum NoFreshKeys {
    #[error("the issuer's description cannot be fetched")]
    Description(#[source] NoDocument),
    #[error("the issuer's keys cannot be fetched")]
    Keys(#[source] NoDocument),
    #[error(transparent)]
    Discovery(#[from] InvalidDiscovery),
    #[error(transparent)]
    KeySet(#[from] InvalidKeySet),
    #[error("the issuer took longer than bridge.trust.document_timeout_ms")]
    Timeout,
}

/// What is held now.
#[derive(Clone, Default)]
struct Held {
    keys: Option<(Arc<KeySet>, Instant)>,
    /// When the last attempt ended; none while one is under way.
    tried: Option<Instant>,
}

/// The keys, and whoever fetches them.
pub struct Keys {
    issuer: String,
    cache: Duration,
    outage: Duration,
    refresh_min: Duration,
    document_timeout: Duration,
    document_bytes_max: usize,
    held: watch::Sender<Held>,
    wanted: Notify,
    metrics: Metrics,
}

impl Keys {
    /// None yet.
    pub fn new(config: &TrustConfig, metrics: Metrics) -> Self {
        Self {
            issuer: config.issuer.clone(),
            cache: Duration::from_millis(config.jwks_cache_ms),
            outage: Duration::from_millis(config.jwks_outage_ms),
            refresh_min: Duration::from_millis(config.jwks_refresh_min_ms),
            document_timeout: Duration::from_millis(config.document_timeout_ms),
            document_bytes_max: config.document_bytes_max,
            held: watch::Sender::default(),
            wanted: Notify::new(),
            metrics,
        }
    }

    /// The keys, the one of this name among them if the issuer has it; none where they are not known or too old.
    pub async fn with(&self, kid: &str) -> Option<Arc<KeySet>> {
        if let Some(keys) = self.current().filter(|keys| keys.find(kid).is_ok()) {
            return Some(keys);
        }
        let mut held = self.held.subscribe();
        let fetched_soon = held.borrow_and_update().tried.is_none_or(|tried| tried.elapsed() >= self.refresh_min);
        if fetched_soon {
            self.wanted.notify_one();
            // When it takes longer, what there is has to do.
            let _ = timeout(WAIT, held.wait_for(|held| held.tried.is_some_and(|tried| tried.elapsed() < self.refresh_min))).await;
        }
        self.current()
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        let held = self.held.borrow();
        held.keys.as_ref().filter(|(_, fetched)| fetched.elapsed() < self.cache + self.outage).map(|(keys, _)| Arc::clone(keys))
    }

    /// Fetches for as long as it is asked to.
    pub async fn follow(&self, webhook: &Webhook) {
        loop {
            self.held.send_modify(|held| held.tried = None);
            let fetched = timeout(self.document_timeout, self.fetch(webhook)).await.unwrap_or(Err(NoFreshKeys::Timeout));
            let now = Instant::now();
            let next = match &fetched {
                Ok(_) => {
                    self.metrics.key_fetches.inc();
                    self.metrics.keys_fetched_seconds.set(Timestamp::now().as_second());
                    now + self.cache.max(self.refresh_min)
                }
                Err(error) => {
                    self.metrics.key_failures.inc();
                    let error: &(dyn std::error::Error + 'static) = error;
                    tracing::warn!(error, "the issuer's keys are not fresh; this is tried again");
                    now + self.refresh_min
                }
            };
            self.held.send_modify(|held| {
                held.tried = Some(now);
                if let Ok(keys) = fetched {
                    held.keys = Some((Arc::new(keys), now));
                }
            });
            self.wait(now, next).await;
        }
    }

    /// Until the next attempt is due, or wanted and allowed.
    async fn wait(&self, tried: Instant, next: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(next) => return,
                () = self.wanted.notified() => {
                    // Whoever asked while the last attempt was under way has its answer.
                    if tried.elapsed() >= self.refresh_min {
                        return;
                    }
                }
            }
        }
    }

    async fn fetch(&self, webhook: &Webhook) -> Result<KeySet, NoFreshKeys> {
        let bytes_max = self.document_bytes_max;
        let description = webhook.document(&Discovery::address(&self.issuer), bytes_max).await.map_err(NoFreshKeys::Description)?;
        let jwks_uri = Discovery::read(&description, &self.issuer)?.jwks_uri;
        let keys = webhook.document(&jwks_uri, bytes_max).await.map_err(NoFreshKeys::Keys)?;
        Ok(KeySet::read(&keys)?)
    }
}
