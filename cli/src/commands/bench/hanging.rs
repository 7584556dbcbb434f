//! `ryggrad bench hanging`: what endpoints that never answer cost those that do.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;

use super::ground::Ground;
use super::numbered::NumberedEvents;
use super::receiver::{Arrival, NUMBER_HEADER, Receiver};
use super::running_bridge::RunningBridge;
use super::{median, print_bounded, quantile};
use crate::output::{Output, note};

/// How much slower the slowest hundredth may become.
const RATIO_MAX: f64 = 1.3;
const VALUE_BYTES: usize = 300;
/// Events before each measured run: what hangs has begun to.
const WARM_UP_SECONDS: u32 = 3;
const ARRIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// What endpoints that never answer cost those that do
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench hanging                              three rounds of 20 s without and with
  ./ryggrad bench hanging --seconds 8 --runs 1         quicker, less certain

WHAT IS COMPARED
  with      a real bridge with its default settings and 100 subscriptions, each with an endpoint of
            its own. One in ten takes the request and never answers: it is given up after 15 s.
  without   the same subscriptions and endpoints, and all of them answer.

  Every event goes to every subscription. The figure is the 99th percentile of the time from append
  (log append time) to receiver, over the same endpoints in both: those that answer in both. An
  idempotent producer sends those that are due every 5 ms. Both take turns on the same bridge, with
  new subscriptions each time; figures are medians.

WHAT LIMITS IT
  Attempts that hang hold a place among all attempts at the same time. An endpoint that has hung is
  a suspect: all suspects together hold a quarter of the places at most, and its circuit breaker
  lets only single attempts through.")]
pub struct HangingArgs {
    /// Subscriptions, each with an endpoint of its own
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    endpoints: u32,
    /// Events a second, each of which goes to every subscription
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// How long each run is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 17, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Measured rounds, each without and with
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

struct Bench {
    args: HangingArgs,
    ground: Ground,
    events: NumberedEvents,
    receiver: Receiver,
    bridge: RunningBridge,
    /// The number of the next event.
    next: u64,
}

/// Measures and prints.
pub async fn run(args: HangingArgs) -> anyhow::Result<()> {
    let ground = Ground::open(None, args.jars.as_ref()).await?;
    let events = NumberedEvents::prepare(&ground, VALUE_BYTES).await?;
    let receiver = Receiver::start()?;
    receiver.note_arrivals();
    let bridge = RunningBridge::start(&ground, |_| {}).await?;
    let runs = args.runs;
    let mut bench = Bench { args, ground, events, receiver, bridge, next: 0 };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 0..=runs {
        let measured = (bench.p99_ms(false).await?, bench.p99_ms(true).await?);
        let warm_up = if round == 0 { " (warm-up)" } else { "" };
        note(format!("· round {round}{warm_up}: p99 {:.1} ms without, {:.1} ms with endpoints that hang", measured.0, measured.1));
        if round > 0 {
            without.push(measured.0);
            with.push(measured.1);
        }
    }
    bench.bridge.stop().await?;
    bench.ground.close().await?;
    let (without, with) = median(&without).zip(median(&with)).context("nothing was measured")?;
    let mut stdout = Output::stdout();
    stdout.line(&format!("figure hanging-p99 {with:.2} ms"))?;
    stdout.line(&format!("figure hanging-baseline-p99 {without:.2} ms"))?;
    print_bounded(&mut stdout, "hanging", with / without, RATIO_MAX)
}

impl Bench {
    /// The 99th percentile of latency at endpoints that answer.
    async fn p99_ms(&mut self, with: bool) -> anyhow::Result<f64> {
        let Self { args, ground, events, receiver, bridge, next } = self;
        let hangs = |endpoint: u32| with && is_one_of_ten(endpoint);
        let sink = |endpoint| if hangs(endpoint) { receiver.hanging_sink(endpoint) } else { receiver.numbered_sink(endpoint) };
        let wishes = (0..args.endpoints).map(|endpoint| json!({"types": [events.ce_type], "sink": sink(endpoint), "verify": "none"}));
        let subscriptions = bridge.api().subscribe_all(wishes).await?;
        receiver.reset();
        receiver.take_arrivals();
        let (warm_up, measured) = (u64::from(args.rate * WARM_UP_SECONDS), u64::from(args.rate * args.seconds));
        events.publish_steadily(*next, warm_up + measured, args.rate).await?;
        let answering = (0..args.endpoints).filter(|endpoint| !hangs(*endpoint)).count() as u64;
        receiver.wait_for((warm_up + measured) * answering, ARRIVE_TIMEOUT).await?;
        bridge.api().delete_all(&subscriptions).await?;
        let counted = *next + warm_up..*next + warm_up + measured;
        *next = counted.end;
        let appended = ground.appended_at(events.topic, NUMBER_HEADER).await?;
        let latency_ms = |Arrival { number, at_us, .. }: Arrival| Some(at_us as f64 / 1_000.0 - *appended.get(&number)? as f64);
        let arrived =
            receiver.take_arrivals().into_iter().filter(|arrival| !is_one_of_ten(arrival.endpoint) && counted.contains(&arrival.number));
        let mut latencies_ms: Vec<f64> = arrived.filter_map(latency_ms).collect();
        let expected = measured * (0..args.endpoints).filter(|endpoint| !is_one_of_ten(*endpoint)).count() as u64;
        ensure!(latencies_ms.len() as u64 == expected, "{} of {expected} deliveries came in", latencies_ms.len());
        quantile(&mut latencies_ms, 0.99).context("nothing was measured")
    }
}

/// Whether an endpoint is one of those that hang, where some do.
fn is_one_of_ten(endpoint: u32) -> bool {
    endpoint.is_multiple_of(10)
}
