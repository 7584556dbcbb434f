//! What is counted of callers and of the issuer. Labels are rules, never callers.

use std::sync::atomic::AtomicI64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use ryggrad_bridge_core::trust::Fault;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// The metrics.
#[derive(Clone)]
pub struct Metrics {
    refusals: Family<ReasonLabel, Counter>,
    /// Proofs that are remembered; the limit is `proofs_max`.
    pub proofs: Gauge,
    /// Units that lie below others; the limit is `units_max`.
    pub units: Gauge,
    /// Times that the issuer's keys were fetched.
    pub key_fetches: Counter,
    /// Times that they could not be.
    pub key_failures: Counter,
    /// When they last were, in seconds since 1970.
    pub keys_fetched_seconds: Gauge<i64, AtomicI64>,
}

impl Metrics {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            refusals: Family::default(),
            proofs: Gauge::default(),
            units: Gauge::default(),
            key_fetches: Counter::default(),
            key_failures: Counter::default(),
            keys_fetched_seconds: Gauge::default(),
        };
        for fault in Fault::ALL {
            // There from the start, so that the first refusal shows as a rise.
            drop(metrics.refusals.get_or_create(&ReasonLabel { reason: fault.reason() }));
        }
        let bridge = registry.sub_registry_with_prefix("ryggrad_bridge");
        bridge.register("token_refusals", "Callers who were refused, by the rule that was broken", metrics.refusals.clone());
        bridge.register("proofs_remembered", "Proofs that are remembered, so that none is used twice", metrics.proofs.clone());
        bridge.register("units", "Units of the register that lie below others", metrics.units.clone());
        bridge.register("issuer_key_fetches", "Times that the issuer's keys were fetched", metrics.key_fetches.clone());
        bridge.register("issuer_key_failures", "Times that the issuer's keys could not be fetched", metrics.key_failures.clone());
        let fetched = metrics.keys_fetched_seconds.clone();
        bridge.register_with_unit("issuer_keys_fetched_timestamp", "When the issuer's keys were last fetched", Unit::Seconds, fetched);
        metrics
    }

    /// Counts a refusal.
    pub fn refused(&self, fault: Fault) {
        self.refusals.get_or_create(&ReasonLabel { reason: fault.reason() }).inc();
    }
}
