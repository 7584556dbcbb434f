//! `ryggrad bench fanout`: what subscriptions that want nothing of an event cost it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

use super::ground::Ground;
use super::numbered::NumberedEvents;
use super::receiver::Receiver;
use super::running_bridge::RunningBridge;
use super::{median, print_bounded};
use crate::output::{Output, note};

/// How much dearer a delivery may become.
const RATIO_MAX: f64 = 1.3;
const VALUE_BYTES: usize = 300;
/// Subscriptions that want the events.
const MATCHING: u32 = 10;
/// Matches every event type of the register, also those that are not in the catalogue.
const PATTERN: &str = "no.ryggrad.grunndata.*";
/// Not in the catalogue: only the pattern matches it.
const CE_TYPE: &str = "no.ryggrad.grunndata.virksomhet.maalt.v1";
const RUN_TIMEOUT: Duration = Duration::from_secs(120);
/// What has just been set up comes to rest.
const REST: Duration = Duration::from_secs(3);
/// Clock ticks a second in /proc, on every Linux that there is.
const TICKS_PER_SECOND: f64 = 100.0;

/// What subscriptions that want nothing of an event cost it
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench fanout                                          10 of 10 and 10 of 10000 subscriptions
  ./ryggrad bench fanout --subscriptions 1000 --runs 2            quicker, less telling

WHAT IS COMPARED
  many      a real bridge with its default settings and 10000 active subscriptions, 10 of which
            want the events and the others another type.
  few       the same bridge before the others were made: 10 of 10.

  Events are published at once and delivered to the 10. The figure is the processor time of this
  process for each delivery (bridge, receiver and producer, the latter two the same in both), and
  the ratio is of that; the wall time is printed too. Each is measured several times after a
  warm-up, first with few, then with many; figures are medians.

WHAT LIMITS IT
  Matching is an index from event type to subscriptions: what does not match is not looked at.
  Each second all subscriptions are looked at once, for the metrics.")]
pub struct FanoutArgs {
    /// Subscriptions in all
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(11..=100_000))]
    subscriptions: u32,
    /// Events in each run
    #[arg(long, value_name = "COUNT", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    events: u32,
    /// Measured runs of each, after one to warm up
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

/// Cost of a delivery in microseconds, one entry a run.
#[derive(Default)]
struct Costs {
    cpu: Vec<f64>,
    wall: Vec<f64>,
}

/// Measures and prints.
pub async fn run(args: FanoutArgs) -> anyhow::Result<()> {
    let ground = Ground::open(None, args.jars.as_ref()).await?;
    let events = NumberedEvents::prepare(&ground, VALUE_BYTES).await?;
    let receiver = Receiver::start()?;
    let bridge = RunningBridge::start(&ground, |config| {
        let all = args.subscriptions as usize;
        config.subscriptions_per_organisation_max = all;
        config.subscriptions_max = config.subscriptions_max.max(all);
    })
    .await?;
    let wish = |endpoint: u32, types: &str| json!({"types": [types], "sink": receiver.numbered_sink(endpoint), "verify": "none"});
    bridge.api().subscribe_all((0..MATCHING).map(|endpoint| wish(endpoint, PATTERN))).await?;
    let few = measure(&args, &events, &receiver, "10 of 10").await?;
    let started = Instant::now();
    let others: Vec<Value> = (MATCHING..args.subscriptions).map(|endpoint| wish(endpoint, &events.ce_type)).collect();
    bridge.api().subscribe_all(others).await?;
    note(format!("· {} subscriptions more ({:.0} s)", args.subscriptions - MATCHING, started.elapsed().as_secs_f64()));
    let many = measure(&args, &events, &receiver, &format!("10 of {}", args.subscriptions)).await?;
    bridge.stop().await?;
    ground.close().await?;
    let middle = |values: &[f64]| median(values).context("nothing was measured");
    let mut stdout = Output::stdout();
    for (who, costs) in [("fanout", &many), ("fanout-baseline", &few)] {
        stdout.line(&format!("figure {who}-cpu {:.2} µs/delivery", middle(&costs.cpu)?))?;
        stdout.line(&format!("figure {who}-wall {:.2} µs/delivery", middle(&costs.wall)?))?;
    }
    stdout.line(&format!("ratio fanout-wall {:.2}", middle(&many.wall)? / middle(&few.wall)?))?;
    print_bounded(&mut stdout, "fanout", middle(&many.cpu)? / middle(&few.cpu)?, RATIO_MAX)
}

async fn measure(args: &FanoutArgs, events: &NumberedEvents, receiver: &Receiver, who: &str) -> anyhow::Result<Costs> {
    tokio::time::sleep(REST).await;
    let mut costs = Costs::default();
    let deliveries = u64::from(args.events * MATCHING);
    for run in 0..=args.runs {
        let records = (0..args.events).map(|number| events.record(CE_TYPE, number.into())).collect();
        receiver.reset();
        let (cpu_s, started) = (own_cpu_s()?, Instant::now());
        events.publish(records, 1).await?;
        receiver.wait_for(deliveries, RUN_TIMEOUT).await?;
        let per_delivery_us = |seconds: f64| seconds * 1e6 / deliveries as f64;
        let (cpu, wall) = (per_delivery_us(own_cpu_s()? - cpu_s), per_delivery_us(started.elapsed().as_secs_f64()));
        let warm_up = if run == 0 { " (warm-up)" } else { "" };
        note(format!("· {who}, run {run}{warm_up}: {cpu:.1} µs of processor time, {wall:.1} µs a delivery"));
        if run > 0 {
            costs.cpu.push(cpu);
            costs.wall.push(wall);
        }
    }
    Ok(costs)
}

/// Processor time that this process has used, in user and kernel mode, all threads together.
fn own_cpu_s() -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("cannot read the processor time")?;
    // The name before, in brackets, may hold anything; user and kernel time are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = fields.get(11..13).context("the processor time is not there")?;
    let ticks = ticks.iter().map(|ticks| ticks.parse::<f64>()).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_SECOND)
}
