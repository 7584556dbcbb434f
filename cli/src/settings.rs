//! Settings: defaults, then one TOML file, then the environment, then flags.
//!
//! Environment variables read `RYGGRAD__PART__KEY`, e.g. `RYGGRAD__BRIDGE__LISTEN`. An unknown
//! key is an error, wherever it stands.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use ryggrad_bridge::BridgeConfig;
use ryggrad_log::Connection;
use ryggrad_producers::ProducerConfig;
use serde::{Deserialize, Serialize};

use crate::client::KafkaTls;

/// All settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// How to reach Kafka.
    pub kafka: Connection,
    /// File with the key that seals secrets and quarantined documents; made if it is missing.
    pub key_file: PathBuf,
    /// File with the operator's token; made if it is missing.
    pub operator_token_file: PathBuf,
    /// File with the key of asymmetric signatures; made if it is missing.
    pub signing_key_file: PathBuf,
    /// The bridge.
    pub bridge: BridgeConfig,
    /// The producer.
    pub producer: ProducerConfig,
}

/// Flags that every long-running command takes.
#[derive(Debug, Clone, Args)]
pub struct SettingsArgs {
    /// Settings file (TOML)
    #[arg(long, env = "RYGGRAD_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Kafka's address, host:port, several separated by commas
    #[arg(long, env = "KAFKA_BOOTSTRAP", value_name = "HOST:PORT")]
    kafka: Option<String>,
    #[command(flatten)]
    tls: KafkaTls,
    /// Folder for keys and the cursor store
    #[arg(long, env = "RYGGRAD_DATA", value_name = "FOLDER", default_value = ".ryggrad/local")]
    data: PathBuf,
}

impl SettingsArgs {
    /// Merges all that is set.
    pub fn load(&self) -> anyhow::Result<Settings> {
        let defaults = Settings::within(&self.data);
        let mut figment = Figment::from(Serialized::defaults(defaults));
        if let Some(path) = &self.config {
            // Figment takes a missing file for an empty one; a file that was named must be there.
            std::fs::metadata(path).with_context(|| format!("cannot read the settings file {}", path.display()))?;
            figment = figment.merge(Toml::file(path));
        }
        let mut settings: Settings = figment.merge(Env::prefixed("RYGGRAD__").split("__")).extract().context("the settings are wrong")?;
        if let Some(kafka) = &self.kafka {
            settings.kafka.bootstrap.clone_from(kafka);
        }
        self.tls.put_into(&mut settings.kafka)?;
        Ok(settings)
    }
}

impl Settings {
    /// The defaults, with everything durable in one folder.
    pub fn within(data: &Path) -> Self {
        Self {
            kafka: Connection::new("127.0.0.1:9092"),
            key_file: data.join("seal.key"),
            operator_token_file: data.join("operator.token"),
            signing_key_file: data.join("signing.key"),
            bridge: BridgeConfig { data: data.join("cursors"), ..BridgeConfig::default() },
            producer: ProducerConfig::default(),
        }
    }
}
