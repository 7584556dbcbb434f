//! `ryggrad bridge`: the bridge alone, against any Kafka.

use std::net::SocketAddr;

use clap::Args;
use ryggrad_bridge::{Bridge, Secrets};
use ryggrad_log::Seal;
use tokio_util::sync::CancellationToken;

use crate::exit::Code;
use crate::keys;
use crate::settings::{Settings, SettingsArgs};

/// Delivers events to subscribed organisations
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ryggrad bridge --kafka kafka1:9092,kafka2:9092 --data /var/lib/ryggrad
  ryggrad bridge --config /etc/ryggrad.toml
  RYGGRAD__BRIDGE__RETRY_MAX_MS=60000 ryggrad bridge

The API listens on 127.0.0.1:8484. Health: /healthz, /readyz; metrics: /metrics.
Logs go to stderr, as JSON with --log json; RUST_LOG sets what is logged.")]
pub struct BridgeArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Where the API listens
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Import the schemas, with their ids, into this Confluent-compatible registry before starting
    #[arg(long, value_name = "URL", env = "RYGGRAD_SCHEMA_REGISTRY", hide_env_values = true)]
    schema_registry: Option<String>,
    /// Allow endpoints on loopback and private addresses, and plain http. For development only
    #[arg(long)]
    development_egress: bool,
    #[command(flatten)]
    trial: TrialFlag,
}

/// Whether the installation is for trials.
#[derive(Debug, Clone, Args)]
pub struct TrialFlag {
    /// Make this a trial installation: opens protected event types, of which it carries synthetic events alone
    #[arg(long, env = "RYGGRAD_TRIAL", value_parser = clap::builder::FalseyValueParser::new())]
    pub trial: bool,
}

/// Runs the bridge until told to stop.
pub async fn run(args: BridgeArgs, stop: CancellationToken) -> anyhow::Result<Code> {
    let mut settings = args.settings.load()?;
    if let Some(listen) = args.listen {
        settings.bridge.listen = listen;
    }
    // An empty variable in the environment means none.
    if let Some(registry) = args.schema_registry.filter(|registry| !registry.is_empty()) {
        settings.bridge.schema_registry = Some(registry);
    }
    settings.bridge.development_egress |= args.development_egress;
    settings.bridge.trial |= args.trial.trial;
    let bridge = bind(&settings).await?;
    let kafka = &settings.kafka.bootstrap;
    tracing::info!(address = %bridge.address(), kafka, trial = settings.bridge.trial, "the bridge listens");
    bridge.run(stop).await?;
    Ok(Code::Ok)
}

/// A bridge from settings, with its port bound.
pub async fn bind(settings: &Settings) -> anyhow::Result<Bridge> {
    let secrets = Secrets {
        operator_tokens: keys::tokens(&settings.operator_token_file)?.into_iter().map(Into::into).collect(),
        seal: Seal::new(&keys::seal_key(&settings.key_file)?),
        signing_keys: keys::signing_keys(&settings.signing_key_file)?.into(),
    };
    Ok(Bridge::bind(settings.bridge.clone(), settings.kafka.clone(), secrets).await?)
}
