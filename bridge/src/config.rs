//! Settings of the bridge. Unknown keys are errors; every limit has its unit in its name.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;

use ryggrad_bridge_core::asymmetric::SigningKeys;
use ryggrad_bridge_core::egress::{Allowance, Cidr, EgressPolicy};
use ryggrad_schemas::catalogue::Latch;
use serde::{Deserialize, Serialize};

use crate::channel::webhook::WebhookOptions;
use crate::trust::TrustConfig;

/// Settings of the bridge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BridgeConfig {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// The certificate with its chain (PEM) that the API is served with; plain HTTP if none.
    pub tls_certificate_file: Option<PathBuf>,
    /// Its private key (PEM). Both files are read again when they change.
    pub tls_key_file: Option<PathBuf>,
    /// Connections of callers at the same time, open WebSockets aside.
    pub connections_max: usize,
    /// How long a caller may take for the handshake of TLS, and for the head of each request: also how long a
    /// connection is kept that asks nothing.
    pub request_head_timeout_ms: u64,
    /// How long the body of a request may take to arrive.
    pub request_body_timeout_ms: u64,
    /// Folder of the cursor store.
    pub data: PathBuf,
    /// Opens loopback and private addresses and plain http as endpoints, and delivers to endpoints
    /// that have not agreed to be called. For development only.
    pub development_egress: bool,
    /// Endpoints beyond public addresses and port 443 that an operator has approved.
    pub egress_allow: Vec<Allowance>,
    /// Networks that no endpoint may lie in, whatever is allowed: the cluster's own.
    pub egress_deny: Vec<Cidr>,
    /// The bridge's own certificate with its chain (PEM), for endpoints that ask for one.
    pub client_certificate_file: Option<PathBuf>,
    /// The private key of that certificate (PEM).
    pub client_key_file: Option<PathBuf>,
    /// Signs every delivery with the bridge's own key too (`v1a`). Costs more than all the rest of an attempt.
    pub asymmetric_signatures: bool,
    /// The DNS name that endpoints are asked to allow (`WebHook-Request-Origin`): the system that
    /// calls, as receivers know it, not a host.
    pub webhook_origin: String,
    /// The issuer whose tokens open the API, instead of tokens of the bridge's own.
    pub trust: Option<TrustConfig>,
    /// Makes this an installation for trials: opens protected types, those for trials among them. What it carries is synthetic.
    pub trial: bool,
    /// How long a token of the bridge's own lives unless its request says otherwise.
    pub token_life_default_s: u32,
    /// Longest life of such a token.
    pub token_life_max_s: u32,
    /// Replicas of topics that are created.
    pub replication: i32,
    /// A Confluent-compatible schema registry that the schemas are imported into, with their ids.
    pub schema_registry: Option<String>,
    /// Matched and unsettled records per subscription: what a crash can repeat at most.
    pub pending_max: usize,
    /// Of these, per key.
    pub pending_per_key_max: usize,
    /// Bytes of the newest records, shared by all subscriptions.
    pub ring_bytes_max: usize,
    /// Readers for subscriptions that are behind these.
    pub catch_up_readers_max: usize,
    /// Records that each of them keeps.
    pub catch_up_records_max: usize,
    /// Attempts at the same time per subscription.
    pub in_flight_max: usize,
    /// Attempts at the same time in all.
    pub in_flight_total_max: usize,
    /// Attempts at the same time per endpoint.
    pub endpoint_in_flight_max: usize,
    /// Failures in a row that cut an endpoint off for a while.
    pub breaker_failures: u32,
    /// For how long at first, at most.
    pub breaker_first_ms: u64,
    /// For how long in the end, at most.
    pub breaker_max_ms: u64,
    /// Events that a subscription may have set aside.
    pub dead_letters_max: usize,
    /// Latest attempts that are kept for show, per subscription.
    pub attempts_logged_max: usize,
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
    /// Subscriptions in all.
    pub subscriptions_max: usize,
    /// Running replays of one subscription.
    pub replays_per_subscription_max: usize,
    /// WebSocket connections.
    pub sockets_max: usize,
    /// Watch lists of one organisation.
    pub watch_lists_per_organisation_max: usize,
    /// Watch lists in all.
    pub watch_lists_max: usize,
    /// Keys of one watch list.
    pub watch_list_keys_max: usize,
    /// Bytes of all watch lists in memory; ten million keys fit, in lists of a thousand and more.
    pub watch_list_bytes_max: usize,
    /// Bytes of an upload of a whole set.
    pub watch_list_upload_bytes_max: usize,
    /// Such uploads at the same time.
    pub watch_list_uploads_max: usize,
    /// How long the body of such an upload may take to arrive.
    pub watch_list_upload_timeout_ms: u64,
    /// Members, and delegations, grants, relations and blocks, of each kind; all are held in memory (some 500 bytes each).
    pub access_facts_max: usize,
    /// Of each kind, those that one organisation makes.
    pub access_facts_per_organisation_max: usize,
    /// Changes of these that the API shows, the newest; the topic keeps all for five years.
    pub access_history_shown_max: usize,
    /// How long an intent may wait for Kafka's acknowledgement before its delivery is put off.
    pub disclosure_timeout_ms: u64,
    /// How long records of disclosures are kept; said of each controller's topic when that is made.
    pub disclosures_retention_ms: u64,
    /// Partitions of a receiver's own topic (channel `kafka`); said of each when it is made.
    pub outlet_partitions: i32,
    /// How long records of such a topic are kept, read or not; said of each when it is made.
    pub outlet_retention_ms: u64,
    /// Keys removed for legal reasons, all of which are held in memory (some 150 bytes each).
    pub removed_keys_max: usize,
    /// Idempotency keys of one organisation in a day.
    pub idempotency_keys_per_organisation_max: usize,
    /// Idempotency keys in all.
    pub idempotency_keys_max: usize,
    /// Requests a second of one organisation, or of a supplier for all that it acts for.
    pub organisation_requests_per_s_max: NonZeroU32,
    /// Of these, how many may come at once after a rest.
    pub organisation_requests_at_once_max: NonZeroU32,
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
            tls_certificate_file: None,
            tls_key_file: None,
            connections_max: 10_000,
            request_head_timeout_ms: 60_000,
            request_body_timeout_ms: 10_000,
            data: PathBuf::from(".ryggrad/bridge"),
            development_egress: false,
            egress_allow: Vec::new(),
            egress_deny: Vec::new(),
            client_certificate_file: None,
            client_key_file: None,
            asymmetric_signatures: false,
            webhook_origin: "ryggrad.local".to_owned(),
            trust: None,
            trial: false,
            token_life_default_s: 7 * 24 * 3_600,
            token_life_max_s: 90 * 24 * 3_600,
            replication: 1,
            schema_registry: None,
            pending_max: 1_024,
            pending_per_key_max: 64,
            ring_bytes_max: 64 * 1024 * 1024,
            catch_up_readers_max: 8,
            catch_up_records_max: 2_000,
            in_flight_max: 16,
            in_flight_total_max: 512,
            endpoint_in_flight_max: 128,
            breaker_failures: 5,
            breaker_first_ms: 1_000,
            breaker_max_ms: 30_000,
            dead_letters_max: 1_000,
            attempts_logged_max: 20,
            retry_first_ms: 1_000,
            retry_max_ms: 900_000,
            probe_ms: 300_000,
            attempt_timeout_ms: 15_000,
            answer_bytes_max: 64 * 1024,
            subscriptions_per_organisation_max: 1_000,
            subscriptions_max: 10_000,
            replays_per_subscription_max: 2,
            sockets_max: 10_000,
            watch_lists_per_organisation_max: 1_000,
            watch_lists_max: 10_000,
            watch_list_keys_max: 1_000_000,
            watch_list_bytes_max: 320 * 1024 * 1024,
            watch_list_upload_bytes_max: 16 * 1024 * 1024,
            watch_list_uploads_max: 2,
            watch_list_upload_timeout_ms: 60_000,
            access_facts_max: 500_000,
            access_facts_per_organisation_max: 100_000,
            access_history_shown_max: 10_000,
            disclosure_timeout_ms: 10_000,
            // Ten years.
            disclosures_retention_ms: 315_576_000_000,
            outlet_partitions: 1,
            // A week.
            outlet_retention_ms: 604_800_000,
            removed_keys_max: 1_000_000,
            idempotency_keys_per_organisation_max: 10_000,
            idempotency_keys_max: 100_000,
            organisation_requests_per_s_max: NonZeroU32::MIN.saturating_add(999),
            organisation_requests_at_once_max: NonZeroU32::MIN.saturating_add(4_999),
            request_bytes_max: 64 * 1024,
            kafka_timeout_ms: 10_000,
            drain_timeout_ms: 5_000,
        }
    }
}

impl BridgeConfig {
    /// What opens protected types here. Asked once, when the bridge starts.
    pub fn latch(&self) -> Latch {
        match (self.trial, &self.trust) {
            (true, _) => Latch::Trial,
            (false, Some(_)) => Latch::Trusting,
            (false, None) => Latch::Shut,
        }
    }

    /// What endpoints may be called. `kafka` is refused like the bridge itself, where it is given by address.
    pub fn egress_policy(&self, kafka: &str) -> EgressPolicy {
        let brokers = kafka.split(',').filter_map(|broker| broker.trim().parse().ok());
        EgressPolicy {
            development: self.development_egress,
            allow: self.egress_allow.clone(),
            deny: self.egress_deny.clone(),
            own: brokers.chain([self.listen]).collect(),
        }
    }

    /// What the webhook channel is made of.
    pub fn webhook_options(&self, policy: EgressPolicy, signing_keys: Option<Arc<SigningKeys>>) -> WebhookOptions {
        WebhookOptions {
            policy,
            attempt_timeout_ms: self.attempt_timeout_ms,
            answer_bytes_max: self.answer_bytes_max,
            client_certificate_file: self.client_certificate_file.clone(),
            client_key_file: self.client_key_file.clone(),
            signing_keys,
            asymmetric_signatures: self.asymmetric_signatures,
            resolver: None,
        }
    }
}
