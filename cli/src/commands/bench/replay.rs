//! `ryggrad bench replay`: a topic into a file, against a bare consumer that writes as many bytes.

use std::fs::File;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use ryggrad_log::bench::{BareProducer, read_to_file};
use ryggrad_producers::{ENHETSREGISTERET, ProducerConfig};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::{Topic, topics};

use super::ground::Ground;
use super::population::Population;
use super::{Rates, median};
use crate::commands::replay;
use crate::output::{Output, note};

/// Changes that are made; the topic gets them several times over.
const EVENTS: usize = 50_000;
const SEND_TIMEOUT_MS: u64 = 300_000;
const WARM_UP_RUNS: u32 = 1;
/// What the ratio must reach.
const RATIO_MIN: f64 = 0.8;

/// A topic into a file, against a bare consumer that writes as many bytes
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench replay                             half a million records, five rounds
  ./ryggrad bench replay --records 100000 --runs 3   quicker, less certain

WHAT IS COMPARED
  Ryggrad   ryggrad replay TOPIC --to-file FILE, all of it: ask for the topic's extent and the
            removed keys, read, decode Avro, write a line of JSON with place, time, key, headers and
            value, checkpoints, and the file synced in the end.
  baseline  librdkafka with nothing around it, with the same settings, on one thread: poll, write
            key, headers and value as they are through a large buffer, fill up with blanks to as
            many bytes as Ryggrad writes, and sync the file in the end. It decodes nothing.

  Both read the same topic of six partitions, whose records come from the simulator, into a new file
  on the same disk. Rounds take turns after one to warm up; figures are medians.

WHAT LIMITS IT
  See docs/BENCHMARKS.md.")]
pub struct ReplayArgs {
    /// Records in the topic, rounded up to a multiple of 50,000
    #[arg(long, value_name = "COUNT", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..=20_000_000))]
    records: u32,
    /// Measured rounds, after one to warm up
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Kafka that is already there; no local broker is started
    #[arg(long, env = "KAFKA_BOOTSTRAP", value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

/// Measures and prints.
pub async fn run(args: ReplayArgs) -> anyhow::Result<()> {
    let mut ground = Ground::open(args.kafka.as_deref(), args.jars.as_ref()).await?;
    let topic = fill(&mut ground, args.records).await?;
    let records = ground.appended(&topic).await?;
    let mut rates = Rates::default();
    // What Ryggrad writes is the measure for the other: so it begins, and the first round is
    // thrown away.
    let mut record_bytes = 0;
    for round in 0..WARM_UP_RUNS + args.runs {
        let mut measured = Rates::default();
        let path = ground.folder().join("replay.ndjson");
        let started = Instant::now();
        let (written, bytes) = replay::whole_topic_to_file(ground.connection(), &topic.name, path.clone()).await?;
        measured.ours.push(records as f64 / started.elapsed().as_secs_f64());
        ensure!(written == records, "Ryggrad wrote {written} of {records} records");
        record_bytes = usize::try_from(bytes / records.max(1))?;
        remove(&ground)?;
        let (took, copied) = bare(&ground, &topic, record_bytes).await?;
        measured.baseline.push(records as f64 / took);
        ensure!(copied.0 == records, "the bare consumer saw {} of {records} records", copied.0);
        ensure!(copied.1.abs_diff(bytes) <= bytes / 50, "the bare consumer wrote {} bytes, Ryggrad {bytes}", copied.1);
        remove(&ground)?;
        note(format!("· round {round}{}: {}", if round < WARM_UP_RUNS { " (warm-up)" } else { "" }, measured.in_short()));
        if round >= WARM_UP_RUNS {
            rates.append(measured);
        }
    }
    note(format!("· {records} records, {record_bytes} bytes each in the file"));
    ground.close().await?;
    let (ours, baseline) = median(&rates.ours).zip(median(&rates.baseline)).context("nothing was measured")?;
    let mut stdout = Output::stdout();
    stdout.line(&format!("figure replay-records {ours:.0} records/s"))?;
    stdout.line(&format!("figure replay-baseline {baseline:.0} records/s"))?;
    let met = if ours / baseline >= RATIO_MIN { "met" } else { "missed" };
    stdout.line(&format!("target replay at least {RATIO_MIN:.2}: {met}"))?;
    stdout.line(&format!("ratio replay {:.2}", ours / baseline))?;
    Ok(stdout.flush()?)
}

/// A topic with so many records, as the producer would make them.
async fn fill(ground: &mut Ground, records: u32) -> anyhow::Result<Topic> {
    let catalogue = Catalogue::built_in();
    let source = catalogue.source(ENHETSREGISTERET).context("the catalogue lacks Enhetsregisteret")?.clone();
    let event_type = catalogue.event(&source.event).context("the catalogue lacks its event type")?.clone();
    let plain = catalogue.topic(&event_type.topic).context("the catalogue lacks its topic")?.clone();
    let started = Instant::now();
    let config = ProducerConfig::default();
    let population = Population::fetch(&source, EVENTS, config.page_items_max).await?;
    let (made, _) = population.records(&source, &event_type, config.transaction_events_max)?;
    let mut made: Vec<_> = made.into_iter().filter(|record| record.topic != topics::SOURCE_POSITIONS).collect();
    let topic = ground.create(Topic { name: format!("ryggrad-bench.{:08x}.replay", rand::random::<u32>()), ..plain }).await?;
    made.iter_mut().for_each(|record| record.topic.clone_from(&topic.name));
    let times = usize::try_from(records)?.div_ceil(EVENTS);
    let (made, _) = BareProducer::new(ground.connection())?.send_all(made, times, SEND_TIMEOUT_MS).await?;
    note(format!("· {} records in the topic ({:.1} s)", made.len() * times, started.elapsed().as_secs_f64()));
    Ok(topic)
}

/// Seconds, records and bytes.
async fn bare(ground: &Ground, topic: &Topic, record_bytes: usize) -> anyhow::Result<(f64, (u64, u64))> {
    let (connection, topic, path) = (ground.connection().clone(), topic.clone(), ground.folder().join("bare"));
    let started = Instant::now();
    let copied = tokio::task::spawn_blocking(move || -> anyhow::Result<(u64, u64)> {
        Ok(read_to_file(&connection, &topic.name, topic.partitions, &replay::reader_limits(), record_bytes, File::create(path)?)?)
    })
    .await??;
    Ok((started.elapsed().as_secs_f64(), copied))
}

/// Takes the files away, so that each round makes new ones.
fn remove(ground: &Ground) -> anyhow::Result<()> {
    for name in ["replay.ndjson", "replay.ndjson.checkpoint", "bare"] {
        let path = ground.folder().join(name);
        if path.exists() {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
