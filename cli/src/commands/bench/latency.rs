//! `ryggrad bench latency`: from append to receiver at a steady rate, against a bare consumer.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use ryggrad_log::bench::BareConsumer;
use serde_json::json;

use super::ground::Ground;
use super::numbered::NumberedEvents;
use super::receiver::{NUMBER_HEADER, Receiver};
use super::running_bridge::RunningBridge;
use super::{median, print_bounded, quantile};
use crate::output::{Output, note};

/// How much slower than a bare consumer the slowest hundredth may be.
const RATIO_MAX: f64 = 3.0;
const VALUE_BYTES: usize = 300;
/// Events before each measured run: everybody is awake then.
const WARM_UP_SECONDS: u32 = 2;
const ARRIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// From append to receiver at a steady rate, against a bare consumer
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench latency                              five runs of ten seconds, 1000 events a second
  ./ryggrad bench latency --seconds 5 --runs 3         quicker, less certain

WHAT IS COMPARED
  Ryggrad   a real bridge with its default settings and one subscription: from the moment that the
            broker has appended an event (log append time) to the moment that the endpoint has its
            whole body. Between them: read Kafka, decode, number it, store the number on disk,
            render, sign, POST.
  baseline  librdkafka with nothing around it, reading committed records with the settings of the
            bridge's reader on a thread of its own: from append to the moment that it has them.

  Both read the same events in the same run. An idempotent producer sends those that are due every
  5 ms. Log append time has whole milliseconds, so that both look up to a millisecond slower than
  they are. Figures are medians of the runs' quantiles.

WHAT LIMITS IT
  A number is on disk before anything leaves, so that each delivery waits for one fsync, and for
  the end of the one under way. The rest is the attempt itself.")]
pub struct LatencyArgs {
    /// Events a second
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// How long each run is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Measured runs
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

/// Quantiles of one contestant, one entry a run, in milliseconds.
#[derive(Default)]
struct Quantiles {
    p50: Vec<f64>,
    p99: Vec<f64>,
}

impl Quantiles {
    fn push(&mut self, latencies_ms: &mut [f64]) -> anyhow::Result<()> {
        self.p50.push(quantile(latencies_ms, 0.5).context("nothing was measured")?);
        self.p99.push(quantile(latencies_ms, 0.99).context("nothing was measured")?);
        Ok(())
    }

    fn in_short(&self) -> String {
        let latest = |values: &[f64]| values.last().copied().unwrap_or_default();
        format!("p50 {:.1} ms, p99 {:.1} ms", latest(&self.p50), latest(&self.p99))
    }
}

/// Measures and prints.
pub async fn run(args: LatencyArgs) -> anyhow::Result<()> {
    let ground = Ground::open(None, args.jars.as_ref()).await?;
    let events = NumberedEvents::prepare(&ground, VALUE_BYTES).await?;
    let receiver = Receiver::start()?;
    receiver.note_arrivals();
    let bridge = RunningBridge::start(&ground, |_| {}).await?;
    let wish = json!({"types": [events.ce_type], "sink": receiver.sink(), "verify": "none"});
    bridge.api().subscribe(&wish).await?;
    let (mut ours, mut bare) = (Quantiles::default(), Quantiles::default());
    let (warm_up, measured) = (u64::from(args.rate * WARM_UP_SECONDS), u64::from(args.rate * args.seconds));
    let mut first = 0;
    for run in 1..=args.runs {
        let consumer = BareConsumer::start(ground.connection(), &events.topic.name, events.topic.partitions, NUMBER_HEADER)?;
        receiver.reset();
        events.publish_steadily(first, warm_up + measured, args.rate).await?;
        receiver.wait_for(warm_up + measured, ARRIVE_TIMEOUT).await?;
        let seen = consumer.finish().await?;
        let counted = first + warm_up..first + warm_up + measured;
        let appended = ground.appended_at(events.topic, NUMBER_HEADER).await?;
        let since = |number: u64, at_us: i64| Some(at_us as f64 / 1_000.0 - *appended.get(&number)? as f64);
        let arrived = receiver.take_arrivals().into_iter().filter(|arrival| counted.contains(&arrival.number));
        let mut arrived: Vec<f64> = arrived.filter_map(|arrival| since(arrival.number, arrival.at_us)).collect();
        let seen = seen.into_iter().filter_map(|seen| Some((seen.header.parse().ok()?, seen.at_us)));
        let mut seen: Vec<f64> = seen.filter(|(number, _)| counted.contains(number)).filter_map(|(number, at)| since(number, at)).collect();
        for (who, count) in [("the endpoint got", arrived.len()), ("the bare consumer saw", seen.len())] {
            ensure!(count as u64 == measured, "{who} {count} of {measured} events");
        }
        ours.push(&mut arrived)?;
        bare.push(&mut seen)?;
        note(format!("· run {run}: Ryggrad {}; bare consumer {}", ours.in_short(), bare.in_short()));
        first = counted.end;
    }
    bridge.stop().await?;
    ground.close().await?;
    let middle = |values: &[f64]| median(values).context("nothing was measured");
    let mut stdout = Output::stdout();
    for (who, quantiles) in [("latency", &ours), ("latency-baseline", &bare)] {
        stdout.line(&format!("figure {who}-p50 {:.2} ms", middle(&quantiles.p50)?))?;
        stdout.line(&format!("figure {who}-p99 {:.2} ms", middle(&quantiles.p99)?))?;
    }
    print_bounded(&mut stdout, "latency", middle(&ours.p99)? / middle(&bare.p99)?, RATIO_MAX)
}
