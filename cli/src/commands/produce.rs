//! `ryggrad produce`: follows a registry and publishes its changes, against any Kafka.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::get;
use clap::Args;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use ryggrad_log::{Remedy, Seal, topics};
use ryggrad_producers::{Follow, Start, StartAt, Telemetry};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::Latch;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::exit::Code;
use crate::keys;
use crate::settings::{Settings, SettingsArgs};

/// How long to wait before a Kafka that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Publishes a registry's changes, each exactly once
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ryggrad produce                                   Enhetsregisteret: its dump, then every change
  ryggrad produce --start now                       changes from now on, without the dump
  ryggrad produce --start 25000000                  from that oppdateringsid on
  ryggrad produce --base-url http://127.0.0.1:8480/enhetsregisteret/api --start beginning
  ryggrad produce --snapshots --once \\
      --dump enheter=enheter_alle.json.gz --dump underenheter=underenheter_alle.json.gz
                                                    publish what differs in two nightly dumps, and end

The position is kept in Kafka, in the same transaction as the events, and --start counts only
where there is none yet. A second producer of the same registry takes over from the first.
Health: /healthz, /readyz; metrics: /metrics, on --listen.")]
pub struct ProduceArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Which registry
    #[arg(value_parser = ["enhetsregisteret"], default_value = "enhetsregisteret")]
    source: String,
    /// Where its API is
    #[arg(long, value_name = "URL")]
    base_url: Option<String>,
    /// Where to start a feed that has no position yet: snapshot, beginning, now or an id
    #[arg(long, value_name = "WHERE", value_parser = start)]
    start: Option<StartAt>,
    /// Read nothing but dumps, now and at every snapshot.interval_ms
    #[arg(long)]
    snapshots: bool,
    /// Read each dump once and end; an error if one can't be read to its end
    #[arg(long)]
    once: bool,
    /// Where a feed's dump is, if not at the registry: a file or an address (repeatable)
    #[arg(long, value_name = "FEED=FILE|URL", value_parser = dump)]
    dump: Vec<(String, String)>,
    /// Pause between two questions once everything is read
    #[arg(long, value_name = "MS")]
    poll_interval_ms: Option<u64>,
    /// Where health and metrics listen
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8485")]
    listen: SocketAddr,
}

fn start(text: &str) -> Result<StartAt, String> {
    serde_json::from_value(text.into()).map_err(|_| "use snapshot, beginning, now or an id".to_owned())
}

fn dump(text: &str) -> Result<(String, String), String> {
    let (feed, place) = text.split_once('=').ok_or("use FEED=FILE or FEED=URL, for example enheter=enheter_alle.json.gz")?;
    if place.contains("://") {
        return Ok((feed.to_owned(), place.to_owned()));
    }
    let path = std::path::absolute(place).map_err(|error| error.to_string())?;
    let url = Url::from_file_path(path).map_err(|()| format!("{place} cannot be written as an address"))?;
    Ok((feed.to_owned(), url.to_string()))
}

/// Follows the registry until told to stop.
pub async fn run(args: ProduceArgs, stop: CancellationToken) -> anyhow::Result<Code> {
    let mut settings = args.settings.load()?;
    let producer = &mut settings.producer;
    if let Some(base_url) = args.base_url {
        producer.base_url = base_url;
    }
    producer.start = args.start.unwrap_or(producer.start);
    producer.once |= args.once;
    if args.snapshots {
        producer.follow = Follow::Snapshots;
    }
    producer.snapshot.addresses.extend(args.dump);
    producer.poll_interval_ms = args.poll_interval_ms.unwrap_or(producer.poll_interval_ms);
    let mut registry = Registry::default();
    let telemetry = Telemetry::register(&mut registry);
    serve_health(args.listen, registry, telemetry.clone(), stop.clone()).await?;
    follow(settings, telemetry, stop).await?;
    Ok(Code::Ok)
}

/// A start at the first change that the registry knows.
pub const BEGINNING: StartAt = StartAt(Start::Beginning);

/// Makes sure that topics are there, then follows.
pub async fn follow(settings: Settings, telemetry: Telemetry, stop: CancellationToken) -> anyhow::Result<()> {
    let seal = Seal::new(&keys::seal_key(&settings.key_file)?);
    if !ensure_topics(&settings, &stop).await? {
        return Ok(());
    }
    ryggrad_producers::run(settings.producer, settings.kafka, seal, telemetry, stop).await?;
    Ok(())
}

/// Waits for Kafka and makes missing topics. False if it was told to stop meanwhile.
async fn ensure_topics(settings: &Settings, stop: &CancellationToken) -> anyhow::Result<bool> {
    loop {
        let ensuring = topics::ensure(&settings.kafka, &Catalogue::opened(Latch::Shut).topics, settings.bridge.replication);
        let outcome = tokio::select! {
            outcome = ensuring => outcome,
            () = stop.cancelled() => return Ok(false),
        };
        match outcome {
            Ok(_) => return Ok(true),
            Err(error) if error.remedy == Remedy::Retry => {
                tracing::warn!(kafka = settings.kafka.bootstrap, error = error.chain(), "waiting for Kafka");
                tokio::select! {
                    () = tokio::time::sleep(ASK_AGAIN) => {}
                    () = stop.cancelled() => return Ok(false),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

async fn serve_health(listen: SocketAddr, registry: Registry, telemetry: Telemetry, stop: CancellationToken) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} for health and metrics; choose another address with --listen"))?;
    let registry = Arc::new(registry);
    let readiness = move || {
        let health = telemetry.status().current();
        let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        async move { (status, health.to_string()) }
    };
    let metrics = move || {
        let mut text = String::new();
        // Writing to a String can't fail.
        let _ = encode(&mut text, &registry);
        async move { text }
    };
    let router = Router::new().route("/healthz", get(async || "alive\n")).route("/readyz", get(readiness)).route("/metrics", get(metrics));
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await });
    Ok(())
}
