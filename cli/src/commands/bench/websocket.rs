//! `ryggrad bench websocket`: what open WebSockets cost in memory, idle and at work.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::json;

use super::child_bridge::ChildBridge;
use super::ground::Ground;
use super::numbered::NumberedEvents;
use super::quantile;
use super::receiver::NUMBER_HEADER;
use super::socket_receivers::{Protocol, SocketReceivers};
use crate::output::{Output, note};

/// Memory that an idle connection may take.
const IDLE_KIB_MAX: f64 = 40.0;
const VALUE_BYTES: usize = 300;
/// What active connections get, by the pattern alone; idle ones wait for the catalogue's own type, which nobody publishes.
const MEASURED_TYPE: &str = "no.ryggrad.grunndata.virksomhet.maalt.v1";
const ACTIVE_TYPES: &str = "no.ryggrad.grunndata.virksomhet.*";
/// Longer than two heartbeats: whoever was idle that long has been asked and has answered.
const IDLE_FOR: Duration = Duration::from_secs(35);
/// Events before those that are measured.
const WARM_UP_SECONDS: u32 = 2;
const ARRIVE_TIMEOUT: Duration = Duration::from_secs(60);

/// What open WebSockets cost in memory, idle and at work; idle at most 40 KiB each
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench websocket                                     5000 idle connections, then 1000 active ones
  ./ryggrad bench websocket --idle 10000 --active 100 --rate 100

WHAT IS MEASURED
  idle      a bridge in a process of its own with a subscription for each connection: how much its
            resident memory (VmRSS in /proc) has grown by connections that have been open and without
            an event for 35 s, two heartbeats each, divided by their number. What the kernel keeps for
            a connection is not in it.
  active    beside these, connections that all get every event and acknowledge each: the time from
            append (log append time) to the receiver, and what memory has grown by in the end.

  Every other connection speaks ryggrad.v1, the rest cloudevents.json. Every connection must be open
  to the last, and every active one must get every event once.

WHAT LIMITS IT
  Idle: a task, buffers of the WebSocket and of the HTTP connection that it was, 4 KiB to read into.
  Active: the processors; each event is looked up, written and acknowledged for each connection alone.")]
pub struct WebsocketArgs {
    /// Connections that get nothing
    #[arg(long, value_name = "COUNT", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    idle: u32,
    /// Connections that get every event
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    active: u32,
    /// Events a second, each of which goes to every active connection
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rate: u32,
    /// How long is measured
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

/// Measures and prints.
pub async fn run(args: WebsocketArgs) -> anyhow::Result<()> {
    let ground = Ground::open(None, args.jars.as_ref()).await?;
    let mut events = NumberedEvents::prepare(&ground, VALUE_BYTES).await?;
    let all = (args.idle + args.active).to_string();
    let settings = ["SUBSCRIPTIONS_PER_ORGANISATION_MAX", "SUBSCRIPTIONS_MAX", "SOCKETS_MAX"];
    let settings = settings.map(|name| (format!("RYGGRAD__BRIDGE__{name}"), all.clone()));
    let bridge = ChildBridge::start(&ground, &settings).await?;
    let wishes = |count: u32, ce_type: &str| vec![json!({"types": [ce_type], "channel": "websocket"}); count as usize];
    let idle = bridge.api().subscribe_all(wishes(args.idle, &events.ce_type)).await?;
    let active = bridge.api().subscribe_all(wishes(args.active, ACTIVE_TYPES)).await?;
    MEASURED_TYPE.clone_into(&mut events.ce_type);
    let receivers = SocketReceivers::start()?;
    let connect = |ids| receivers.connect(bridge.base(), bridge.api().token(), ids, alternating);
    let without = bridge.memory_at_rest().await?.resident;
    note(format!("· {all} subscriptions, no connection: {without:.1} MiB"));

    connect(idle.as_slice()).await?;
    note(format!("· {} connections open, idle for {} s now", args.idle, IDLE_FOR.as_secs()));
    tokio::time::sleep(IDLE_FOR).await;
    let with_idle = bridge.memory_at_rest().await?.resident;
    let idle_kib = (with_idle - without) * 1_024.0 / f64::from(args.idle);
    note(format!("· {} idle connections: {with_idle:.1} MiB, {idle_kib:.1} KiB each", args.idle));

    connect(active.as_slice()).await?;
    let (warm_up, measured) = (u64::from(args.rate * WARM_UP_SECONDS), u64::from(args.rate * args.seconds));
    events.publish_steadily(0, warm_up + measured, args.rate).await?;
    let expected = (warm_up + measured) as usize * args.active as usize;
    let deadline = Instant::now() + ARRIVE_TIMEOUT;
    while receivers.arrived() < expected {
        ensure!(Instant::now() < deadline, "only {} of {expected} events came in", receivers.arrived());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let with_active = bridge.memory_at_rest().await?.resident;
    let active_kib = (with_active - with_idle) * 1_024.0 / f64::from(args.active);
    let open = receivers.open();
    ensure!(open == idle.len() + active.len(), "only {open} connections are left of {all}");
    let mut arrivals = receivers.take_arrivals();
    arrivals.sort_by_key(|arrival| (arrival.endpoint, arrival.number));
    arrivals.dedup_by_key(|arrival| (arrival.endpoint, arrival.number));
    ensure!(arrivals.len() == expected, "{} of {expected} events came in once", arrivals.len());
    let appended = ground.appended_at(events.topic, NUMBER_HEADER).await?;
    let counted = arrivals.into_iter().filter(|arrival| arrival.number >= warm_up);
    let latency_ms = counted.filter_map(|arrival| Some(arrival.at_us as f64 / 1_000.0 - *appended.get(&arrival.number)? as f64));
    let mut latencies_ms: Vec<f64> = latency_ms.collect();
    let mut at = |share| quantile(&mut latencies_ms, share).context("nothing was measured");
    let (p50_ms, p99_ms) = (at(0.5)?, at(0.99)?);
    drop((receivers, bridge));
    ground.close().await?;

    let mut stdout = Output::stdout();
    stdout.line(&format!("figure websocket-idle-resident {idle_kib:.1} KiB"))?;
    stdout.line(&format!("figure websocket-active-resident {active_kib:.1} KiB"))?;
    stdout.line(&format!("figure websocket-active-rate {} events/s", args.rate * args.active))?;
    stdout.line(&format!("figure websocket-active-p50 {p50_ms:.1} ms"))?;
    stdout.line(&format!("figure websocket-active-p99 {p99_ms:.1} ms"))?;
    let met = if idle_kib <= IDLE_KIB_MAX { "met" } else { "missed" };
    stdout.line(&format!("target websocket-idle-resident at most {IDLE_KIB_MAX:.0} KiB: {met}"))?;
    stdout.line(&format!("ratio websocket {:.2}", idle_kib / IDLE_KIB_MAX))?;
    Ok(stdout.flush()?)
}

/// Both protocols in equal parts.
fn alternating(place: usize) -> Protocol {
    if place.is_multiple_of(2) { Protocol::Ryggrad } else { Protocol::CloudEvents }
}
