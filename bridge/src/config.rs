//! Settings of the bridge. Unknown keys are errors; every limit has its unit in its name.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Settings of the bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Folder of the cursor store.
    pub data: PathBuf,
    /// Opens loopback and private addresses and plain http as endpoints. For development only.
    pub development_egress: bool,
    /// Replicas of topics that are created.
    pub replication: i32,
    /// A Confluent-compatible schema registry that the schemas are imported into, with their ids.
    pub schema_registry: Option<String>,
    /// Matched and unsettled records per subscription: what a crash can repeat at most.
    pub pending_max: usize,
    /// Of these, per key.
    pub pending_per_key_max: usize,
    /// Rendered bytes of these, per subscription.
    pub pending_bytes_max: usize,
    /// Attempts at the same time per subscription.
    pub in_flight_max: usize,
    /// Attempts at the same time in all.
    pub in_flight_total_max: usize,
    /// Upper end of the first wait after a failure.
    pub retry_first_ms: u64,
    /// Upper end of every wait.
    pub retry_max_ms: u64,
    /// How often an endpoint is probed whose answer says that waiting is no cure.
    pub probe_ms: u64,
    /// One attempt, from name look-up to the end of the answer.
    pub attempt_timeout_ms: u64,
    /// Bytes of an answer's body that are read.
    pub answer_bytes_max: usize,
    /// Subscriptions of one organisation.
    pub subscriptions_per_organisation_max: usize,
    /// Subscriptions in all. Each reads Kafka on its own thread.
    pub subscriptions_max: usize,
    /// Keys removed for legal reasons, all of which are held in memory (some 150 bytes each).
    pub removed_keys_max: usize,
    /// Bytes of a request to the API.
    pub request_bytes_max: usize,
    /// How long a call to Kafka may take before it is given up.
    pub kafka_timeout_ms: u64,
    /// How long attempts under way may take at shutdown.
    pub drain_timeout_ms: u64,
}

impl Default for BridgeConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8484)),
            data: PathBuf::from(".ryggrad/bridge"),
            development_egress: false,
            replication: 1,
            schema_registry: None,
            pending_max: 1_024,
            pending_per_key_max: 64,
            pending_bytes_max: 8 * 1024 * 1024,
            in_flight_max: 16,
            in_flight_total_max: 512,
            retry_first_ms: 1_000,
            retry_max_ms: 900_000,
            probe_ms: 300_000,
            attempt_timeout_ms: 15_000,
            answer_bytes_max: 64 * 1024,
            subscriptions_per_organisation_max: 100,
            subscriptions_max: 500,
            removed_keys_max: 1_000_000,
            request_bytes_max: 64 * 1024,
            kafka_timeout_ms: 10_000,
            drain_timeout_ms: 5_000,
        }
    }
}
