//! `ryggrad bench backlog`: what undelivered records cost in memory.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use ryggrad_bridge::BridgeConfig;
use ryggrad_schemas::EncodedRecord;
use serde_json::json;

use super::child_bridge::{ChildBridge, Memory};
use super::ground::Ground;
use super::numbered::NumberedEvents;
use super::print_bounded;
use crate::output::{Output, note};

/// How much more memory the bridge may take.
const RATIO_MAX: f64 = 1.2;
const RESIDENT_MIB_MAX: f64 = 256.0;
/// As the target has it; the simulator's smallest documents are larger, which makes it no easier.
const VALUE_BYTES: usize = 300;
/// Different records that a backlog is made of; they are published many times over.
const BLOCK_RECORDS: u64 = 50_000;
/// Matched by no subscription: fills the ring and is nobody's backlog.
const FILLING_TYPE: &str = "no.ryggrad.grunndata.virksomhet.maalt.v1";
/// The least that a record counts for in the ring.
const RING_RECORD_BYTES_MIN: usize = 1_024;
/// Fewer records a second are retries, no longer the tail.
const REST_RECORDS_PER_SECOND: f64 = 2_000.0;
const REST_TIMEOUT: Duration = Duration::from_secs(180);

/// What undelivered records cost in memory
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench backlog                                             5000000 records, 1000 subscriptions
  ./ryggrad bench backlog --records 500000 --subscriptions 200        quicker, less telling

WHAT IS COMPARED
  with      a bridge in a process of its own with its default settings and 1000 subscriptions, whose
            endpoints all refuse connections, and 5000000 records of at least 300 bytes that every
            one of them wants and has not got.
  without   the same bridge before, none undelivered.

  In both, the bridge has just read more records that nobody wants than its ring of newest records
  holds. The figure is the process's resident memory (VmRSS in /proc), the median of several looks
  when it has come to rest; the most that it ever had (VmHWM) is printed too. What with grew out of
  without in the same process counts against with.

WHAT LIMITS IT
  The ring, then librdkafka and what it fetches ahead. A subscription whose endpoint refuses holds
  64 records at most, all others stay in Kafka; readers behind the ring are few, and bounded too.")]
pub struct BacklogArgs {
    /// Records that nobody gets
    #[arg(long, value_name = "COUNT", default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(50_000..=50_000_000))]
    records: u64,
    /// Subscriptions that want them
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    subscriptions: u32,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

/// Measures and prints.
pub async fn run(args: BacklogArgs) -> anyhow::Result<()> {
    let ground = Ground::open(None, args.jars.as_ref()).await?;
    let events = NumberedEvents::prepare(&ground, VALUE_BYTES).await?;
    let (bytes, value_bytes) = events.size_bytes();
    note(format!("· records of {bytes} bytes, {value_bytes} of them the value"));
    let bridge = ChildBridge::start(&ground, &[]).await?;
    let wish = |endpoint: u32| {
        // Nobody listens on port 1.
        let sink = format!("http://{}:1/{endpoint}", Ipv4Addr::LOCALHOST);
        json!({"types": [events.ce_type], "sink": sink, "verify": "none"})
    };
    bridge.api().subscribe_all((0..args.subscriptions).map(wish)).await?;
    note(format!("· {} subscriptions", args.subscriptions));
    let without = memory_with_full_ring(&bridge, &events, 0).await?;
    note(format!("· none undelivered: {:.0} MiB resident, {:.0} at most", without.resident, without.peak));
    let started = Instant::now();
    let block: Vec<EncodedRecord> = (0..BLOCK_RECORDS).map(|number| events.record(&events.ce_type, number)).collect();
    let times = usize::try_from(args.records.div_ceil(BLOCK_RECORDS))?;
    let records = BLOCK_RECORDS * times as u64;
    events.publish(block, times).await?;
    note(format!("· {records} records published ({:.0} s)", started.elapsed().as_secs_f64()));
    let with = memory_with_full_ring(&bridge, &events, records).await?;
    note(format!("· {records} undelivered: {:.0} MiB resident, {:.0} at most", with.resident, with.peak));
    drop(bridge);
    ground.close().await?;
    let mut stdout = Output::stdout();
    for (who, memory) in [("backlog", with), ("backlog-baseline", without)] {
        stdout.line(&format!("figure {who}-resident {:.1} MiB", memory.resident))?;
        stdout.line(&format!("figure {who}-peak {:.1} MiB", memory.peak))?;
    }
    let met = if with.resident <= RESIDENT_MIB_MAX { "met" } else { "missed" };
    stdout.line(&format!("target backlog-resident at most {RESIDENT_MIB_MAX:.0} MiB: {met}"))?;
    print_bounded(&mut stdout, "backlog", with.resident / without.resident, RATIO_MAX)
}

/// Fills the ring with what nobody wants, waits until the bridge has read it and rests, and
/// looks at its memory. `before` is what was published and not waited for.
async fn memory_with_full_ring(bridge: &ChildBridge, events: &NumberedEvents, before: u64) -> anyhow::Result<Memory> {
    let filling = BridgeConfig::default().ring_bytes_max / RING_RECORD_BYTES_MIN;
    let scanned = || bridge.metric("ryggrad_bridge_records_scanned_total");
    let first = scanned().await?;
    let records = (0..filling as u64).map(|number| events.record(FILLING_TYPE, number)).collect();
    events.publish(records, 1).await?;
    let deadline = Instant::now() + REST_TIMEOUT;
    let (mut last, mut rests) = (first, false);
    // What it had read of `before` while that was published is in `first` already.
    while !rests {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = scanned().await?;
        rests = now - last < REST_RECORDS_PER_SECOND && now - first >= filling as f64;
        last = now;
        ensure!(Instant::now() < deadline, "the bridge still reads, {now} records so far; {before} were to be undelivered");
    }
    bridge.memory_at_rest().await
}
