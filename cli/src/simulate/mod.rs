//! `ryggrad simulate enhetsregisteret`: a stand-in for Enhetsregisteret's API on this machine.
//!
//! It speaks the real API, so that producers need no mode of their own for tests and demos. It
//! listens on the loopback only, and must never serve anything about a real organisation unless a
//! folder of recorded answers is given.

use std::{
    io::Write,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use clap::Args;
use tokio::{net::TcpListener, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use self::{
    recorded::Recording,
    registry::RegistryOptions,
    service::{Service, Shares},
    state::State,
    world::{NoChange, Pace, Source, World},
};

pub use self::dump_file::{DumpArgs, write_dump_file, write_file};

mod act;
mod api;
mod change;
mod control;
mod download;
mod dump;
mod dump_file;
mod faults;
mod feed;
mod lag;
mod number;
mod population;
mod query;
mod recorded;
mod registry;
mod service;
mod state;
mod stream;
mod tables;
mod unit;
mod world;

/// Open connections get this long to finish when the simulator stops.
const DRAIN: Duration = Duration::from_secs(5);

const EXAMPLES: &str = "\
Examples:
  Two hundred invented units, two changes a second:
    ryggrad simulate enhetsregisteret

  The same registry again after a restart, a busy one:
    ryggrad simulate enhetsregisteret --units 20000 --changes-per-second 500 --state sim.json

  An upstream that repeats itself and is often too busy:
    ryggrad simulate enhetsregisteret --duplicates 0.2 --too-many-requests 0.1

  Recorded answers instead of invented ones:
    ryggrad simulate enhetsregisteret --recorded ./recorded

  While it runs:
    curl http://127.0.0.1:8480/enhetsregisteret/api/oppdateringer/enheter?size=5
    curl http://127.0.0.1:8480/_simulator/status
    curl -X POST http://127.0.0.1:8480/_simulator/pause
    curl -X POST http://127.0.0.1:8480/_simulator/changes?count=100
    curl -X POST 'http://127.0.0.1:8480/_simulator/changes?count=5&kind=deletion&silent=true'
    curl -X POST http://127.0.0.1:8480/_simulator/units/312345676/remove
    curl -X POST http://127.0.0.1:8480/_simulator/new-field?name=nyttFelt
    curl -X POST http://127.0.0.1:8480/_simulator/feed-lag?ms=2000
    curl http://127.0.0.1:8480/enhetsregisteret/api/enheter/lastned | gunzip | head
    curl -X POST http://127.0.0.1:8480/_simulator/dumps/freeze   (and dumps/thaw)
    curl -d '{\"on\":\"feed\",\"kind\":\"status\",\"status\":503,\"count\":3}' \\
      http://127.0.0.1:8480/_simulator/faults
    curl -d '{\"on\":\"dump\",\"list\":\"enheter\",\"kind\":\"truncate\",\"ending\":\"length\"}' \\
      http://127.0.0.1:8480/_simulator/faults

  Faults on a feed: html, status, hang, truncate, empty, empty-middle, backwards, overlap,
  malformed, unknown-type; on a lookup: html, status, hang, truncate, empty, malformed; on a
  dump: html, status, hang, truncate (at_byte; ending clean, length or abrupt), torn-json, empty,
  shrunken (share, or one organisasjonsnummer), malformed (shape no-object, no-number,
  number-type or wrong-types).";

/// Simulate Enhetsregisteret: its update feeds and look-ups, with units that keep changing.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct EnhetsregisteretArgs {
    /// Port to listen on, on 127.0.0.1 only. 0 takes any free port and prints it.
    #[arg(long, default_value_t = 8480)]
    pub port: u16,

    /// Number everything random follows from: the same seed gives the same registry.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Units in the registry when it opens. About a third are underenheter.
    #[arg(long, default_value_t = 200, value_name = "COUNT",
          value_parser = clap::value_parser!(u32)
              .range(1..=RegistryOptions::UNITS_AT_MOST as i64))]
    pub units: u32,

    /// Changes made each second, fractions allowed. 0 makes none but those asked for.
    #[arg(long, default_value_t = 2.0, value_name = "RATE")]
    pub changes_per_second: f64,

    /// Share of the changes that delete a unit, from 0 to 1.
    #[arg(long, default_value_t = 0.02, value_name = "SHARE", value_parser = share)]
    pub deletions: f64,

    /// Share of the changes that remove a unit for legal reasons (410), from 0 to 1.
    #[arg(long, default_value_t = 0.005, value_name = "SHARE", value_parser = share)]
    pub removals: f64,

    /// Share of feed pages that repeat an item or begin before the asked id, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = share)]
    pub duplicates: f64,

    /// Share of requests answered 429 with `Retry-After: 1`, from 0 to 1.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = share)]
    pub too_many_requests: f64,

    /// Bulk downloads show the registry as it is at the start, as a dump made last night would.
    #[arg(long)]
    pub nightly_dumps: bool,

    /// The feeds show a change only so many milliseconds after look-ups and dumps show it.
    #[arg(long, default_value_t = 0, value_name = "MS")]
    pub feed_lag_ms: u32,

    /// File to remember the registry in. A restart with it continues the same registry, with the
    /// options of its first start.
    #[arg(long, value_name = "FILE", conflicts_with = "recorded")]
    pub state: Option<PathBuf>,

    /// Serve the recorded answers (*.json) below this folder instead of invented units.
    #[arg(long, value_name = "DIR")]
    pub recorded: Option<PathBuf>,
}

fn share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is a number from 0 to 1".to_owned()),
    }
}

impl EnhetsregisteretArgs {
    /// What `ryggrad up --demo` plays: a small registry that is remembered between runs.
    pub fn for_demo(port: u16, changes_per_second: f64, state: PathBuf) -> Self {
        Self {
            port,
            seed: 1,
            units: 200,
            changes_per_second,
            deletions: 0.02,
            removals: 0.005,
            duplicates: 0.0,
            too_many_requests: 0.0,
            nightly_dumps: false,
            feed_lag_ms: 0,
            state: Some(state),
            recorded: None,
        }
    }

    fn registry(&self) -> RegistryOptions {
        RegistryOptions {
            seed: self.seed,
            units: self.units,
            changes_per_second: self.changes_per_second,
            deletions: self.deletions,
            removals: self.removals,
        }
    }
}

/// Simulates until `stop`; prints the base URL on stdout once it listens.
pub async fn run(args: EnhetsregisteretArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let simulator = Simulator::bind(args).await?;
    let base = format!("http://{}{}", simulator.address(), api::BASE_PATH);
    let mut stdout = std::io::stdout();
    writeln!(stdout, "simulated Enhetsregisteret on {base}").and_then(|()| stdout.flush()).context("print the address")?;
    simulator.serve(stop).await
}

/// A simulator that has its port, and its registry, but answers nobody yet.
pub struct Simulator {
    listener: TcpListener,
    address: SocketAddr,
    world: World,
    changes_per_second: f64,
    args: EnhetsregisteretArgs,
}

impl Simulator {
    /// Builds the registry (replaying what a state file remembers) and takes the port.
    pub async fn bind(args: EnhetsregisteretArgs) -> anyhow::Result<Self> {
        args.registry().check()?;
        let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, args.port));
        let listener = TcpListener::bind(wanted).await.with_context(|| format!("listen on {wanted}"))?;
        let address = listener.local_addr().context("learn the port taken")?;
        let options = args.clone();
        let (world, changes_per_second) =
            tokio::task::spawn_blocking(move || open_world(&options)).await.context("build the registry")??;
        world.set_lag(Duration::from_millis(args.feed_lag_ms.into()));
        Ok(Self { listener, address, world, changes_per_second, args })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers, and makes changes, until `stop`.
    pub async fn serve(self, stop: CancellationToken) -> anyhow::Result<()> {
        let done = stop.child_token();
        let shares = Shares { duplicates: self.args.duplicates, too_many_requests: self.args.too_many_requests };
        let origin = format!("http://{}", self.address);
        let service = Service::new(self.world, origin, self.args.seed, shares, done.clone());
        let service = Arc::new(service);
        let changes = tokio::spawn(keep_changing(Arc::clone(&service), Pace::new(self.changes_per_second), done.clone()));
        let router = api::routes().merge(download::routes()).merge(control::routes()).with_state(service);
        let server = axum::serve(self.listener, router).with_graceful_shutdown(done.clone().cancelled_owned());
        let too_late = async {
            done.cancelled().await;
            tokio::time::sleep(DRAIN).await;
        };
        let served = tokio::select! {
            served = server => served.context("serve the simulated API"),
            () = too_late => Ok(()),
        };
        done.cancel();
        changes.await.context("make changes")?;
        served
    }
}

fn open_world(args: &EnhetsregisteretArgs) -> anyhow::Result<(World, f64)> {
    let (world, changes_per_second) = open_or_replay(args)?;
    if args.nightly_dumps && !world.is_frozen() {
        match world.freeze() {
            Ok(()) => {}
            Err(NoChange::Disk(reason)) => return Err(reason),
            Err(reason) => anyhow::bail!("cannot freeze the dumps: {reason:?}"),
        }
    }
    Ok((world, changes_per_second))
}

fn open_or_replay(args: &EnhetsregisteretArgs) -> anyhow::Result<(World, f64)> {
    if let Some(folder) = &args.recorded {
        let state = State::fresh(args.registry());
        let recording = Recording::load(folder, args.seed, state.started_at_unix_ms)?;
        return Ok((World::new(Source::Recorded(Box::new(recording)), state, None), 0.0));
    }
    let state = match &args.state {
        Some(file) => state::load_or_fresh(file, args.registry())?,
        None => State::fresh(args.registry()),
    };
    let changes_per_second = state.options.changes_per_second;
    let world = World::replayed(state, args.state.clone())?;
    Ok((world, changes_per_second))
}

async fn keep_changing(service: Arc<Service>, mut pace: Pace, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(Pace::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let now = tokio::select! {
            now = ticks.tick() => now,
            () = stop.cancelled() => return,
        };
        let count = pace.due(now, service.running());
        if count == 0 {
            continue;
        }
        let maker = Arc::clone(&service);
        match tokio::task::spawn_blocking(move || maker.world().make_changes(count)).await {
            Ok(Ok(())) => pace.made(count),
            Ok(Err(NoChange::Recorded | NoChange::Refused(_) | NoChange::TooManyOrders)) => return,
            Ok(Err(NoChange::Disk(reason))) => {
                // They stay due and are tried again with the next tick.
                warn!(error = format!("{reason:#}"), "changes wait: state not written");
            }
            Err(reason) => return error!(%reason, "changes have stopped"),
        }
    }
}
