//! Metrics of the bridge. Labels are bounded: no key, no address, no organisation.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

const OUTCOMES: [&str; 5] = ["delivered", "failed", "throttled", "hopeless", "gone"];

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OutcomeLabel {
    /// One of `OUTCOMES`.
    pub outcome: &'static str,
}

/// What kind of fact is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct KindLabel {
    /// One of `ryggrad_bridge_core::access::Kind`.
    pub kind: &'static str,
}

/// The bridge's metrics.
#[derive(Clone)]
pub struct Telemetry {
    /// Attempts by how they ended.
    pub attempts: Family<OutcomeLabel, Counter>,
    /// How long attempts take.
    pub attempt_seconds: Histogram,
    /// How long after its append an event is delivered.
    pub delivery_lag_seconds: Histogram,
    /// Records looked at, over all subscriptions.
    pub scanned: Counter,
    /// Records that no subscriber can be given.
    pub unreadable: Counter,
    /// Pending records that compaction took.
    pub compacted: Counter,
    /// Records that a subscription wanted and did not get, because their key was removed.
    pub withheld: Counter,
    /// Expressions of filters that met an error, over all subscriptions.
    pub filter_errors: Counter,
    /// Running replays.
    pub replays: Gauge,
    /// Partitions in which a subscription went back.
    pub rewinds: Counter,
    /// Records read for previews.
    pub preview_records: Counter,
    /// How long counting for a preview takes, waiting included.
    pub preview_seconds: Histogram,
    /// Previews that reached a limit (`counting::RECORDS_MAX`, `TIME_MAX`) before their end.
    pub previews_cut_short: Counter,
    /// Keys removed for legal reasons; the limit is `removed_keys_max`.
    pub removed_keys: Gauge,
    /// Members, delegations, grants, relations, blocks; the limit of each is `access_facts_max`.
    pub access_facts: Family<KindLabel, Gauge>,
    /// Changes of these.
    pub access_changes: Counter,
    /// Records of disclosures.
    pub disclosure_records: Counter,
    /// Intents that wait for their acknowledgement.
    pub disclosures_waiting: Gauge,
    /// How long intents wait for their acknowledgement; at most `disclosure_timeout_ms`.
    pub disclosure_seconds: Histogram,
    /// Deliveries put off because their intent was not acknowledged.
    pub disclosure_failures: Counter,
    /// Faults found in records of disclosures when they were read back.
    pub disclosure_faults: Counter,
    /// Subscriptions that are written to topics of their receivers.
    pub outlets: Gauge,
    /// Records written to them.
    pub outlet_records: Counter,
    /// How long their transactions take.
    pub outlet_transaction_seconds: Histogram,
    /// Transactions that failed; what was in them is read back and tried again.
    pub outlet_failures: Counter,
    /// How often what was not read was withdrawn.
    pub outlet_withdrawals: Counter,
    /// How long that takes, from the look to the records' end.
    pub outlet_withdrawal_seconds: Histogram,
    /// Members suspended by the event that their unit is gone.
    pub members_suspended: Counter,
    /// Watch lists; the limit is `watch_lists_max`.
    pub watch_lists: Gauge,
    /// Keys in them, each as often as it is listed.
    pub watch_list_keys: Gauge,
    /// Bytes of watch lists in memory; the limit is `watch_list_bytes_max`.
    pub watch_list_bytes: Gauge,
    /// Uploads of whole sets under way; the limit is `watch_list_uploads_max`.
    pub watch_list_uploads: Gauge,
    /// Matched and unsettled records, over all subscriptions.
    pub pending: Gauge,
    /// Bytes of the newest records; the limit is `ring_bytes_max`.
    pub ring_bytes: Gauge,
    /// Readers behind these; the limit is `catch_up_readers_max`.
    pub catch_up_readers: Gauge,
    /// Partitions of subscriptions that wait for such a reader.
    pub catch_up_queued: Gauge,
    /// Endpoints that are delivered to.
    pub endpoints: Gauge,
    /// Of these, those that are cut off for a while.
    pub endpoints_open: Gauge,
    /// Running subscriptions.
    pub subscriptions: Gauge,
    /// Of these, those of whoever is stopped.
    pub subscriptions_held: Gauge,
    /// Open connections of callers, WebSockets aside; the limit is `connections_max`.
    pub connections: Gauge,
    /// Connections that found no place.
    pub connections_refused: Counter,
    /// Requests of organisations that had made too many; the limit is `organisation_requests_per_s_max`.
    pub requests_refused: Counter,
    /// Connections that did not come to an understanding about TLS in time.
    pub handshakes_failed: Counter,
    /// Certificates that were replaced on disk and taken up.
    pub certificates_taken_up: Counter,
    /// Certificates that were replaced on disk by something that cannot be used, each look counted.
    pub certificates_refused: Counter,
    /// Open WebSocket connections; the limit is `sockets_max`.
    pub sockets: Gauge,
    /// Connections that began before the end of the one that they took over from.
    pub socket_takeovers_late: Counter,
    /// Idempotency keys that count; the limit is `idempotency_keys_max`.
    pub idempotency_keys: Gauge,
    /// Requests that got the first answer again.
    pub idempotency_replays: Counter,
    /// Attempts under way; the limit is `in_flight_total_max`.
    pub in_flight: Gauge,
    /// How long a commit to the cursor store takes, waiting included.
    pub commit_seconds: Histogram,
    /// Copies of cursors to Kafka that failed.
    pub changelog_failures: Counter,
    /// 1 if Kafka answers.
    pub kafka_up: Gauge,
    /// Bytes of the cursor store on disk.
    pub store_bytes: Gauge<f64, AtomicU64>,
}

impl Telemetry {
    /// Creates the metrics and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let seconds = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let metrics = Self {
            attempts: Family::default(),
            attempt_seconds: seconds(),
            delivery_lag_seconds: seconds(),
            scanned: Counter::default(),
            unreadable: Counter::default(),
            compacted: Counter::default(),
            withheld: Counter::default(),
            filter_errors: Counter::default(),
            replays: Gauge::default(),
            rewinds: Counter::default(),
            preview_records: Counter::default(),
            preview_seconds: seconds(),
            previews_cut_short: Counter::default(),
            removed_keys: Gauge::default(),
            access_facts: Family::default(),
            access_changes: Counter::default(),
            disclosure_records: Counter::default(),
            disclosures_waiting: Gauge::default(),
            disclosure_seconds: seconds(),
            disclosure_failures: Counter::default(),
            disclosure_faults: Counter::default(),
            outlets: Gauge::default(),
            outlet_records: Counter::default(),
            outlet_transaction_seconds: seconds(),
            outlet_failures: Counter::default(),
            outlet_withdrawals: Counter::default(),
            outlet_withdrawal_seconds: seconds(),
            members_suspended: Counter::default(),
            watch_lists: Gauge::default(),
            watch_list_keys: Gauge::default(),
            watch_list_bytes: Gauge::default(),
            watch_list_uploads: Gauge::default(),
            pending: Gauge::default(),
            ring_bytes: Gauge::default(),
            catch_up_readers: Gauge::default(),
            catch_up_queued: Gauge::default(),
            endpoints: Gauge::default(),
            endpoints_open: Gauge::default(),
            subscriptions: Gauge::default(),
            subscriptions_held: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            requests_refused: Counter::default(),
            handshakes_failed: Counter::default(),
            certificates_taken_up: Counter::default(),
            certificates_refused: Counter::default(),
            sockets: Gauge::default(),
            socket_takeovers_late: Counter::default(),
            idempotency_keys: Gauge::default(),
            idempotency_replays: Counter::default(),
            in_flight: Gauge::default(),
            commit_seconds: seconds(),
            changelog_failures: Counter::default(),
            kafka_up: Gauge::default(),
            store_bytes: Gauge::default(),
        };
        for outcome in OUTCOMES {
            // There from the start, so that the first failure shows as a rise and not as a birth.
            drop(metrics.attempts.get_or_create(&OutcomeLabel { outcome }));
        }
        let bridge = registry.sub_registry_with_prefix("ryggrad_bridge");
        bridge.register("attempts", "Delivery attempts by how they ended", metrics.attempts.clone());
        bridge.register_with_unit("attempt", "Duration of an attempt", Unit::Seconds, metrics.attempt_seconds.clone());
        bridge.register_with_unit("delivery_lag", "From append to delivery", Unit::Seconds, metrics.delivery_lag_seconds.clone());
        bridge.register("records_scanned", "Records looked at, over all subscriptions", metrics.scanned.clone());
        bridge.register("records_unreadable", "Records that no subscriber can be given", metrics.unreadable.clone());
        bridge.register("records_compacted", "Pending records that compaction took", metrics.compacted.clone());
        bridge.register("records_withheld", "Wanted records of keys that were removed", metrics.withheld.clone());
        bridge.register("filter_errors", "Filter expressions that met an error; none of them matched", metrics.filter_errors.clone());
        bridge.register("replays_running", "Running replays", metrics.replays.clone());
        bridge.register("rewinds", "Partitions in which a subscription went back", metrics.rewinds.clone());
        bridge.register("preview_records", "Records read for previews", metrics.preview_records.clone());
        bridge.register_with_unit("preview", "Duration of counting for a preview", Unit::Seconds, metrics.preview_seconds.clone());
        bridge.register("previews_cut_short", "Previews that reached a limit before their end", metrics.previews_cut_short.clone());
        bridge.register("removed_keys", "Keys removed for legal reasons", metrics.removed_keys.clone());
        bridge.register("access_facts", "Members, delegations, grants, relations and blocks", metrics.access_facts.clone());
        bridge.register("access_changes", "Changes of these", metrics.access_changes.clone());
        bridge.register("disclosure_records", "Records of disclosures written", metrics.disclosure_records.clone());
        let waiting = metrics.disclosures_waiting.clone();
        bridge.register("disclosures_waiting", "Intents that wait for their acknowledgement", waiting);
        let waited = metrics.disclosure_seconds.clone();
        bridge.register_with_unit("disclosure", "Waiting for an intent's acknowledgement", Unit::Seconds, waited);
        bridge.register("disclosure_failures", "Deliveries put off, their intent not acknowledged", metrics.disclosure_failures.clone());
        bridge.register("disclosure_faults", "Faults in records of disclosures read back", metrics.disclosure_faults.clone());
        bridge.register("outlets", "Subscriptions that are written to topics of their receivers", metrics.outlets.clone());
        bridge.register("outlet_records", "Records written to topics of receivers", metrics.outlet_records.clone());
        let transactions = metrics.outlet_transaction_seconds.clone();
        bridge.register_with_unit("outlet_transaction", "Duration of a transaction to topics of receivers", Unit::Seconds, transactions);
        bridge.register("outlet_failures", "Transactions to topics of receivers that failed", metrics.outlet_failures.clone());
        bridge.register("outlet_withdrawals", "How often what a receiver had not read was withdrawn", metrics.outlet_withdrawals.clone());
        let withdrawals = metrics.outlet_withdrawal_seconds.clone();
        bridge.register_with_unit("outlet_withdrawal", "Duration of a withdrawal", Unit::Seconds, withdrawals);
        bridge.register("members_suspended", "Members suspended because their unit is gone", metrics.members_suspended.clone());
        bridge.register("watch_lists", "Watch lists", metrics.watch_lists.clone());
        bridge.register("watch_list_keys", "Keys in all watch lists", metrics.watch_list_keys.clone());
        bridge.register_with_unit("watch_list", "Watch lists in memory", Unit::Bytes, metrics.watch_list_bytes.clone());
        bridge.register("watch_list_uploads", "Uploads of whole sets under way", metrics.watch_list_uploads.clone());
        bridge.register("pending", "Matched and unsettled records", metrics.pending.clone());
        bridge.register_with_unit("ring", "Newest records in memory", Unit::Bytes, metrics.ring_bytes.clone());
        bridge.register("catch_up_readers", "Readers for subscriptions behind the ring", metrics.catch_up_readers.clone());
        bridge.register("catch_up_queued", "Partitions of subscriptions that wait for such a reader", metrics.catch_up_queued.clone());
        bridge.register("endpoints", "Endpoints that are delivered to", metrics.endpoints.clone());
        bridge.register("endpoints_cut_off", "Endpoints whose circuit breaker is open", metrics.endpoints_open.clone());
        bridge.register("subscriptions_running", "Running subscriptions", metrics.subscriptions.clone());
        bridge.register("subscriptions_held", "Subscriptions of whoever is stopped", metrics.subscriptions_held.clone());
        bridge.register("connections", "Open connections of callers", metrics.connections.clone());
        bridge.register("requests_refused", "Requests of organisations that had made too many", metrics.requests_refused.clone());
        bridge.register("connections_refused", "Connections that found no place", metrics.connections_refused.clone());
        bridge.register("handshakes_failed", "TLS handshakes that failed", metrics.handshakes_failed.clone());
        bridge.register("certificates_taken_up", "Replaced certificates that were taken up", metrics.certificates_taken_up.clone());
        bridge.register("certificates_refused", "Looks at replaced certificates that cannot be used", metrics.certificates_refused.clone());
        bridge.register("sockets", "Open WebSocket connections", metrics.sockets.clone());
        let late = "Connections that began before the end of the one that they took over from";
        bridge.register("socket_takeovers_late", late, metrics.socket_takeovers_late.clone());
        bridge.register("idempotency_keys", "Idempotency keys that count", metrics.idempotency_keys.clone());
        bridge.register("idempotency_replays", "Requests that got the first answer again", metrics.idempotency_replays.clone());
        bridge.register("in_flight", "Attempts under way", metrics.in_flight.clone());
        bridge.register_with_unit("commit", "Duration of a commit to the cursor store", Unit::Seconds, metrics.commit_seconds.clone());
        bridge.register("changelog_failures", "Copies of cursors to Kafka that failed", metrics.changelog_failures.clone());
        bridge.register("kafka_up", "1 if Kafka answers", metrics.kafka_up.clone());
        bridge.register_with_unit("store", "Size of the cursor store on disk", Unit::Bytes, metrics.store_bytes.clone());
        metrics
    }
}
