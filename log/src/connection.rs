//! How to reach a cluster, and the client settings that every client shares.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use serde::{Deserialize, Serialize};

/// Where Kafka is and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// `host:port`, several separated by commas.
    pub bootstrap: String,
    /// librdkafka settings passed through, for TLS and SASL, e.g. `security.protocol`.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
}

impl Connection {
    /// A plain connection.
    pub fn new(bootstrap: impl Into<String>) -> Self {
        Self { bootstrap: bootstrap.into(), settings: BTreeMap::new() }
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.bootstrap);
        config.set("client.id", "ryggrad");
        // A broker that restarts is found again within a second rather than ten.
        config.set("reconnect.backoff.max.ms", "1000");
        config.set("topic.metadata.refresh.interval.ms", "60000");
        for (name, value) in &self.settings {
            config.set(name, value);
        }
        config
    }
}

/// How long producers of many records let a batch grow.
pub const LINGER_MS: u32 = 2;
/// How producers of many records compress.
pub const COMPRESSION: &str = "lz4";

impl Connection {
    /// A producer of many records: the publisher's settings but for its transactions, and so
    /// those of the bare producer that it is measured against.
    pub(crate) fn bulk_producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("compression.type", COMPRESSION)
            .set("linger.ms", LINGER_MS.to_string())
            .set("partitioner", "murmur2_random")
            .set("queue.buffering.max.kbytes", "65536");
        config
    }
}

/// Takes what librdkafka says on the side. Errors that matter come back from the calls
/// themselves, so that here they are only of interest to those who look closely.
pub(crate) struct Listener;

impl ClientContext for Listener {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        match level {
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => tracing::error!(facility, message, "librdkafka"),
            _ => tracing::debug!(facility, message, "librdkafka"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        // The end of a partition is no error; it is asked for.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::PartitionEOF) {
            tracing::debug!(%error, reason, "librdkafka");
        }
    }
}

impl ConsumerContext for Listener {}
