//! How to reach a cluster, and the client settings that every client shares.

use std::collections::BTreeMap;

use rdkafka::ClientConfig;
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
