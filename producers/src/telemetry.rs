//! What a producer counts, for Prometheus, and its status.
//!
//! Labels are names of ours or codes of ours; upstream's words must never become labels.

use std::sync::atomic::AtomicU64;

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Metric, Registry};
use ryggrad_detect::batch::Batch;

use crate::status::Status;

/// A feed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedLabels {
    source: String,
    feed: String,
}

/// Events of a feed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    source: String,
    feed: String,
    endringstype: String,
}

/// A feed and a code for what is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    source: String,
    feed: String,
    kind: String,
}

/// A source and a code for what is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SourceLabels {
    source: String,
    kind: String,
}

/// All metrics of all producers in this process, and their status. Clones are one and the same.
#[derive(Debug, Clone)]
pub struct Telemetry {
    status: Status,
    events: Family<EventLabels, Counter>,
    quarantined: Family<KindLabels, Counter>,
    oddities: Family<KindLabels, Counter>,
    dropped: Family<KindLabels, Counter>,
    look_ups: Family<KindLabels, Counter>,
    position: Family<FeedLabels, Gauge>,
    remaining_items: Family<FeedLabels, Gauge>,
    waiting_items: Family<FeedLabels, Gauge>,
    last_success_seconds: Family<FeedLabels, Gauge<f64, AtomicU64>>,
    transactions: Family<SourceLabels, Counter>,
    retries: Family<SourceLabels, Counter>,
    snapshot_rows: Family<FeedLabels, Gauge>,
    snapshot_duplicates: Family<FeedLabels, Counter>,
    snapshot_completed_seconds: Family<FeedLabels, Gauge<f64, AtomicU64>>,
    silent_changes: Family<FeedLabels, Counter>,
    deletions_refused: Family<FeedLabels, Gauge>,
    index_keys: Family<FeedLabels, Gauge>,
    index_bytes: Family<FeedLabels, Gauge>,
}

impl Telemetry {
    /// Registers the metrics.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("ryggrad_producer");
        Self {
            status: Status::default(),
            events: put(registry, "events", "Events published, by endringstype"),
            quarantined: put(registry, "quarantined", "Items set aside, by reason"),
            oddities: put(
                registry,
                "oddities",
                "Oddities in published items that stopped nothing: unknown change types, wrong check digits",
            ),
            dropped: put(registry, "dropped_items", "Items that a page told again: overlap with the position, duplicates"),
            look_ups: put(registry, "look_ups", "Look-ups, by outcome"),
            position: put(registry, "position", "The last feed id that was handled"),
            remaining_items: put(registry, "upstream_remaining_items", "Items that upstream has after the position, as far as it tells"),
            waiting_items: put(registry, "waiting_items", "Items without a readable id at the feed's end, waiting for a later one"),
            last_success_seconds: put(
                registry,
                "last_success_time_seconds",
                "When the feed was last read with success, seconds since 1970",
            ),
            transactions: put(registry, "transactions", "Transactions, by outcome"),
            retries: put(registry, "retries", "Repeated attempts, by reason"),
            snapshot_rows: put(registry, "snapshot_rows", "Rows of the dump that were read in the present or last run"),
            snapshot_duplicates: put(registry, "snapshot_duplicate_rows", "Rows whose key the same dump had shown before"),
            snapshot_completed_seconds: put(
                registry,
                "snapshot_completed_time_seconds",
                "When a dump was last read to its end, seconds since 1970",
            ),
            silent_changes: put(registry, "silent_changes", "Changes that the feed never told of, found by comparing with the dump"),
            deletions_refused: put(
                registry,
                "snapshot_deletions_refused",
                "Units that the last dump lacked and that were not deleted, since the dump is doubtful",
            ),
            index_keys: put(registry, "index_keys", "Keys of the topic in memory during the last comparison"),
            index_bytes: put(registry, "index_bytes", "Memory that they took"),
        }
    }

    /// How the feeds stand.
    pub fn status(&self) -> &Status {
        &self.status
    }

    pub(crate) fn committed(&self, source: &str, feed: &str, batch: &Batch) {
        for (endringstype, count) in &batch.tally.events {
            let labels = EventLabels { source: source.to_owned(), feed: feed.to_owned(), endringstype: endringstype.clone() };
            self.events.get_or_create(&labels).inc_by(*count);
        }
        for (reason, count) in &batch.tally.quarantined {
            self.quarantined.get_or_create(&kind(source, feed, reason)).inc_by(*count);
        }
        for (oddity, count) in &batch.tally.oddities {
            self.oddities.get_or_create(&kind(source, feed, oddity)).inc_by(*count);
        }
        self.position(source, feed, batch.next.position);
        self.transaction(source, "committed");
    }

    pub(crate) fn position(&self, source: &str, feed: &str, position: u64) {
        self.position.get_or_create(&labels(source, feed)).set(to_gauge(position));
    }

    pub(crate) fn dropped(&self, source: &str, feed: &str, overlap_items: u64, duplicate_items: u64) {
        self.dropped.get_or_create(&kind(source, feed, "overlap")).inc_by(overlap_items);
        self.dropped.get_or_create(&kind(source, feed, "duplicate")).inc_by(duplicate_items);
    }

    pub(crate) fn looked_up(&self, source: &str, feed: &str, answered: u64, failed: u64) {
        self.look_ups.get_or_create(&kind(source, feed, "answered")).inc_by(answered);
        self.look_ups.get_or_create(&kind(source, feed, "failed")).inc_by(failed);
    }

    pub(crate) fn remaining(&self, source: &str, feed: &str, remaining_items: u64, waiting_items: u64) {
        self.remaining_items.get_or_create(&labels(source, feed)).set(to_gauge(remaining_items));
        self.waiting_items.get_or_create(&labels(source, feed)).set(to_gauge(waiting_items));
    }

    pub(crate) fn succeeded(&self, source: &str, feed: &str) {
        let seconds = Timestamp::now().as_millisecond() as f64 / 1_000.0;
        self.last_success_seconds.get_or_create(&labels(source, feed)).set(seconds);
    }

    pub(crate) fn transaction(&self, source: &str, outcome: &str) {
        self.transactions.get_or_create(&SourceLabels { source: source.to_owned(), kind: outcome.to_owned() }).inc();
    }

    pub(crate) fn retried(&self, source: &str, reason: &str) {
        self.retries.get_or_create(&SourceLabels { source: source.to_owned(), kind: reason.to_owned() }).inc();
    }
}

impl Telemetry {
    pub(crate) fn snapshot_rows(&self, source: &str, feed: &str, rows: u64) {
        self.snapshot_rows.get_or_create(&labels(source, feed)).set(to_gauge(rows));
    }

    pub(crate) fn snapshot_completed(&self, source: &str, feed: &str, at_ms: i64, duplicates: u64) {
        self.snapshot_completed_seconds.get_or_create(&labels(source, feed)).set(at_ms as f64 / 1_000.0);
        self.snapshot_duplicates.get_or_create(&labels(source, feed)).inc_by(duplicates);
    }

    pub(crate) fn silent(&self, source: &str, feed: &str, changes: u64) {
        self.silent_changes.get_or_create(&labels(source, feed)).inc_by(changes);
    }

    pub(crate) fn deletions_refused(&self, source: &str, feed: &str, units: u64) {
        self.deletions_refused.get_or_create(&labels(source, feed)).set(to_gauge(units));
    }

    pub(crate) fn indexed(&self, source: &str, feed: &str, keys: usize, bytes: usize) {
        self.index_keys.get_or_create(&labels(source, feed)).set(to_gauge(keys as u64));
        self.index_bytes.get_or_create(&labels(source, feed)).set(to_gauge(bytes as u64));
    }
}

fn put<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn labels(source: &str, feed: &str) -> FeedLabels {
    FeedLabels { source: source.to_owned(), feed: feed.to_owned() }
}

fn kind(source: &str, feed: &str, kind: &str) -> KindLabels {
    KindLabels { source: source.to_owned(), feed: feed.to_owned(), kind: kind.to_owned() }
}

fn to_gauge(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
