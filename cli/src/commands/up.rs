//! `ryggrad up`: a whole Ryggrad on this machine: broker, bridge, producer, and what to try next.
//!
//! Everything durable lies in one data folder and is found again at the next start. Logs go to a
//! file there; the terminal shows progress and results only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use prometheus_client::registry::Registry;
use ryggrad_bridge_core::access::kafka_access;
use ryggrad_log::{Connection, LocalAuthority, LocalBroker, LocalBrokerOptions, Security};
use ryggrad_producers::{FeedState, Health, Telemetry};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{access, bridge, produce};
use crate::client;
use crate::exit::Code;
use crate::keys;
use crate::output::note;
use crate::settings::Settings;
use crate::simulate::{EnhetsregisteretArgs, Simulator};

/// The organisation that the printed token speaks for. A synthetic number.
const ORGANISATION: &str = "312345676";

/// Runs a broker, the bridge and the producer on this machine
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad up --demo                          everything, with a simulated registry
  ./ryggrad up --demo --secure                 the same, with certificates and ACLs on Kafka
  ./ryggrad up                                 the real Enhetsregisteret, changes from now on
  KAFKA_BOOTSTRAP=kafka1:9092 ./ryggrad up     no local broker

Data is kept in .ryggrad/demo or .ryggrad/local: the next start goes on where this one ended.
Ctrl-C stops everything cleanly.")]
pub struct UpArgs {
    /// Simulated registries and a data folder of their own: synthetic units never enter a real topic
    #[arg(long)]
    demo: bool,
    /// The local broker asks everybody for a certificate, and lets each do no more than it may
    #[arg(long, conflicts_with = "kafka")]
    secure: bool,
    /// Kafka that is already there; no local broker is started
    #[arg(long, env = "KAFKA_BOOTSTRAP", value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Folder that data folders are kept in
    #[arg(long, env = "RYGGRAD_HOME", value_name = "FOLDER", default_value = ".ryggrad")]
    home: PathBuf,
    /// Port of the local broker
    #[arg(long, value_name = "PORT", default_value_t = 9092)]
    kafka_port: u16,
    /// Port of the bridge's API
    #[arg(long, value_name = "PORT", default_value_t = 8484)]
    bridge_port: u16,
    /// Port of the simulated registry (with --demo)
    #[arg(long, value_name = "PORT", default_value_t = 8480)]
    simulator_port: u16,
    /// Changes a second in the simulated registry (with --demo)
    #[arg(long, value_name = "RATE", default_value_t = 2.0)]
    changes_per_second: f64,
    /// Where the registry's API is (without --demo)
    #[arg(long, value_name = "URL", conflicts_with = "demo")]
    base_url: Option<String>,
    /// Import the schemas, with their ids, into this Confluent-compatible registry too
    #[arg(long, value_name = "URL", env = "RYGGRAD_SCHEMA_REGISTRY", hide_env_values = true)]
    schema_registry: Option<String>,
    #[command(flatten)]
    trial: bridge::TrialFlag,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

impl UpArgs {
    /// The folder of this run's data.
    pub fn data(&self) -> PathBuf {
        self.home.join(if self.demo { "demo" } else { "local" })
    }

    /// The file that this run logs to.
    pub fn log_file(&self) -> anyhow::Result<Mutex<File>> {
        let data = self.data();
        let path = data.join("ryggrad.log");
        let made = std::fs::create_dir_all(&data).and_then(|()| File::options().create(true).append(true).open(&path));
        made.map(Mutex::new).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Starts everything, tells about it, and runs until told to stop.
pub async fn run(args: UpArgs, stop: CancellationToken) -> anyhow::Result<Code> {
    let started = Instant::now();
    let data = args.data();
    let mut broker = start_broker(&args, &data, &stop).await?;
    let mut settings = settings(&args, &data, broker.as_ref().map(LocalBroker::connection));
    let mut parts = JoinSet::new();
    let mut producing = settings.kafka.clone();
    if args.secure {
        // Each with an identity of its own, and with what that needs.
        let authority = LocalAuthority::open(&authority(&data)?)?;
        let identity = |name: &str| authority.issue(name, authority.folder());
        producing = producing.with_identity(&identity(&format!("{}enhetsregisteret", kafka_access::PRODUCER))?);
        access::kafka::set_up_services(&settings.kafka).await?;
        settings.kafka = settings.kafka.with_identity(&identity(kafka_access::BRIDGE)?);
    }

    if args.demo {
        let address = start_simulator(&args, &data, &stop, &mut parts).await?;
        settings.producer.base_url = format!("http://{address}/enhetsregisteret/api");
        settings.producer.start = produce::BEGINNING;
        settings.producer.poll_interval_ms = 500;
        settings.producer.requests_per_second_max = 500;
    }
    let bridge = bridge::bind(&settings).await?;
    let base = format!("http://{}", bridge.address());
    let bridge_stop = stop.clone();
    parts.spawn(async move { bridge.run(bridge_stop).await.map_err(anyhow::Error::from) });
    let ready = async {
        tokio::select! {
            ready = wait_until_ready(&base, &stop) => ready,
            // One that refuses to start is not waited for.
            Some(ended) = parts.join_next() => {
                ended.context("a part of Ryggrad failed")?.context("a part of Ryggrad ended before the bridge was ready")?;
                anyhow::bail!("stopped before the bridge was ready")
            }
        }
    };
    step("bridge", ready, |()| base.clone()).await?;

    let (producing, producer_stop) = (Settings { kafka: producing, ..settings.clone() }, stop.clone());
    let telemetry = Telemetry::register(&mut Registry::default());
    let health = telemetry.status().subscribe();
    parts.spawn(async move { produce::follow(producing, telemetry, producer_stop).await });
    tokio::spawn(tell_trouble(health));
    settled("producer", &settings.producer.base_url);

    let token = organisation_token(&base, &settings, &data).await?;
    write_profile(&args, &settings, broker.as_ref(), &base, &token)?;
    greet(&args, &settings, &base, &token, &data, started);
    let outcome = run_until_stopped(&mut parts, broker.as_mut(), &stop).await;
    shut_down(parts, broker, &stop).await;
    outcome.map(|()| Code::Ok)
}

fn settings(args: &UpArgs, data: &Path, local: Option<Connection>) -> Settings {
    let mut settings = Settings::within(data);
    settings.kafka = local.unwrap_or_else(|| Connection::new(args.kafka.clone().unwrap_or_default()));
    settings.bridge.listen.set_port(args.bridge_port);
    settings.bridge.development_egress = args.demo;
    settings.bridge.trial = args.trial.trial;
    settings.bridge.schema_registry = args.schema_registry.clone().filter(|registry| !registry.is_empty());
    if let Some(base_url) = &args.base_url {
        settings.producer.base_url.clone_from(base_url);
    }
    settings
}

async fn start_broker(args: &UpArgs, data: &Path, stop: &CancellationToken) -> anyhow::Result<Option<LocalBroker>> {
    if let Some(kafka) = args.kafka.as_ref().filter(|kafka| !kafka.is_empty()) {
        settled("Kafka", kafka);
        return Ok(None);
    }
    let jars =
        args.jars.clone().context("Kafka's jars are not there; start with ./ryggrad up, or name a running Kafka with KAFKA_BOOTSTRAP")?;
    let mut options = LocalBrokerOptions::new(jars, std::path::absolute(data.join("kafka"))?);
    options.port = args.kafka_port;
    options.authority = args.secure.then(|| authority(data)).transpose()?;
    let starting = async {
        tokio::select! {
            broker = LocalBroker::start(options) => Ok(broker?),
            () = stop.cancelled() => anyhow::bail!("stopped"),
        }
    };
    Ok(Some(step("Kafka", starting, LocalBroker::address).await?))
}

async fn start_simulator(
    args: &UpArgs,
    data: &Path,
    stop: &CancellationToken,
    parts: &mut JoinSet<anyhow::Result<()>>,
) -> anyhow::Result<std::net::SocketAddr> {
    let simulator =
        Simulator::bind(EnhetsregisteretArgs::for_demo(args.simulator_port, args.changes_per_second, data.join("simulator.json"))).await?;
    let address = simulator.address();
    let stop = stop.clone();
    parts.spawn(async move { simulator.serve(stop).await });
    settled("simulated Enhetsregisteret", &format!("http://{address}/enhetsregisteret/api"));
    Ok(address)
}

async fn wait_until_ready(base: &str, stop: &CancellationToken) -> anyhow::Result<()> {
    let asking = client::Bridge::new(base, client::Token::default())?;
    loop {
        if asking.get(&["readyz"]).await.is_ok() {
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
            () = stop.cancelled() => anyhow::bail!("stopped before the bridge was ready"),
        }
    }
}

/// The token of the last run if it is still good, else a new one.
async fn organisation_token(base: &str, settings: &Settings, data: &Path) -> anyhow::Result<String> {
    let path = data.join("organisation.token");
    if let Ok(token) = std::fs::read_to_string(&path) {
        let kept = client::Bridge::new(base, token.parse()?)?;
        if kept.get(&["v1", "subscriptions"]).await.is_ok() {
            return Ok(token);
        }
    }
    let operator = keys::token(&settings.operator_token_file)?;
    let body = json!({"organisation": ORGANISATION, "description": "issued by ryggrad up"});
    let answer = client::Bridge::new(base, operator.parse()?)?.make(&["v1", "tokens"], &body).await?;
    let token = answer.get("token").and_then(Value::as_str).context("the bridge issued no token")?.to_owned();
    keys::write_private(&path, &token)?;
    Ok(token)
}

/// Where the local broker's certificates lie.
fn authority(data: &Path) -> anyhow::Result<PathBuf> {
    Ok(std::path::absolute(data.join("authority"))?)
}

fn write_profile(args: &UpArgs, settings: &Settings, broker: Option<&LocalBroker>, base: &str, token: &str) -> anyhow::Result<()> {
    let operator_token = keys::token(&settings.operator_token_file)?;
    let kafka = &settings.kafka.bootstrap;
    // Addresses and tokens hold nothing that TOML would need escaped.
    let mut profile = format!(
        "# Written by `ryggrad up`; the other commands find their way with it.\n\
         bridge = \"{base}\"\nkafka = \"{kafka}\"\ntoken = \"{token}\"\noperator_token = \"{operator_token}\"\n"
    );
    if let Some(Connection { ca_file, certificate_file, key_file, security: Security::Tls, .. }) = broker.map(LocalBroker::connection) {
        profile += "\n[kafka_tls]\n";
        profile += &toml::to_string(&client::TlsFiles { ca_file, certificate_file, key_file })?;
    }
    keys::write_private(&args.home.join("client.toml"), &profile)
}

fn greet(args: &UpArgs, settings: &Settings, base: &str, token: &str, data: &Path, started: Instant) {
    let topic = "grunndata.virksomhet.v1";
    note(format!(
        "
Ryggrad is up after {seconds:.1} s.{trial}

  API        {base}   (health: /readyz, metrics: /metrics)
  Kafka      {kafka}   (events: {topic})
  schemas    {base}/schema-registry
  registry   {registry}
  data, log  {data}
  token      {token}
             speaks for {ORGANISATION}; the commands below find it by themselves

Three things to try, each in a terminal of its own:

  ./ryggrad listen --start beginning     receive signed events and see them verified
  ./ryggrad consume --from beginning     read the topic itself
  ./ryggrad subscriptions list           see who gets what, and how far they are

Ctrl-C stops everything; the next ./ryggrad up{demo} goes on from here.",
        trial =
            if args.trial.trial { " It is a trial installation: protected types are open, and what they carry is synthetic." } else { "" },
        seconds = started.elapsed().as_secs_f64(),
        kafka = settings.kafka.bootstrap,
        registry = settings.producer.base_url,
        data = data.display(),
        demo = if args.demo { " --demo" } else { "" },
    ));
}

/// Rows of a dump between two notes about it.
const ROWS_BETWEEN_NOTES: u64 = 100_000;

/// Says on the terminal how far a dump is read, when a feed can't be followed, and when it can again.
async fn tell_trouble(mut health: watch::Receiver<Health>) {
    let (mut troubled, mut told) = (BTreeSet::new(), BTreeMap::new());
    while health.changed().await.is_ok() {
        let feeds = health.borrow_and_update().feeds.clone();
        for (feed, state) in feeds {
            match state {
                FeedState::UpstreamTrouble(_) | FeedState::UpstreamBehind { .. } => {
                    if troubled.insert(feed.clone()) {
                        note(format!("! {feed} cannot be followed at the moment and is tried again: {state}"));
                    }
                }
                FeedState::ReadingSnapshot { rows, events } => {
                    if rows >= told.get(&feed).copied().unwrap_or_default() + ROWS_BETWEEN_NOTES {
                        told.insert(feed.clone(), rows);
                        note(format!("· {feed}: {rows} rows of the registry's dump read, {events} events published"));
                    }
                }
                FeedState::CatchingUp | FeedState::Following => {
                    if troubled.remove(&feed) {
                        note(format!("✓ {feed} is followed again"));
                    }
                }
                FeedState::Starting => {}
            }
        }
    }
}

/// Runs until told to stop, or until a part ends by itself. A broker that dies is started again.
async fn run_until_stopped(
    parts: &mut JoinSet<anyhow::Result<()>>,
    mut broker: Option<&mut LocalBroker>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(ended) = parts.join_next() => {
                return ended.context("a part of Ryggrad failed")?.context("a part of Ryggrad ended; its log tells more");
            }
            () = tokio::time::sleep(Duration::from_secs(1)) => {
                if let Some(broker) = &mut broker
                    && broker.has_ended()
                {
                    note("Kafka has ended; starting it again");
                    broker.restart().await.context("Kafka cannot be started again")?;
                }
            }
        }
    }
}

async fn shut_down(mut parts: JoinSet<anyhow::Result<()>>, broker: Option<LocalBroker>, stop: &CancellationToken) {
    note("\nstopping …");
    stop.cancel();
    while let Some(ended) = parts.join_next().await {
        if let Ok(Err(error)) = ended {
            tracing::error!(error = format!("{error:#}"), "a part did not end cleanly");
        }
    }
    if let Some(mut broker) = broker {
        broker.stop(15_000).await;
    }
    note("stopped");
}

/// Shows a step while it lasts, and what came of it.
async fn step<T>(name: &'static str, work: impl Future<Output = anyhow::Result<T>>, told: impl FnOnce(&T) -> String) -> anyhow::Result<T> {
    let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner()).with_message(format!("starting {name}"));
    bar.enable_steady_tick(Duration::from_millis(100));
    let started = Instant::now();
    let outcome = work.await;
    bar.finish_and_clear();
    if let Ok(made) = &outcome {
        note(format!("✓ {name} on {} ({:.1} s)", told(made), started.elapsed().as_secs_f64()));
    }
    outcome
}

fn settled(name: &str, told: &str) {
    note(format!("✓ {name} on {told}"));
}
