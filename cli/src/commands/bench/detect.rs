//! `ryggrad bench detect`: comparing a registry's dump with the topic, against only parsing it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use flate2::read::MultiGzDecoder;
use prometheus_client::registry::Registry;
use ryggrad_detect::snapshot::rows::Rows;
use ryggrad_log::Seal;
use ryggrad_producers::{ENHETSREGISTERET, Follow, ProducerConfig, SnapshotConfig, Telemetry, follow_with_snapshots};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::{EventType, Source, Topic};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::dump_source::DumpSource;
use super::ground::Ground;
use super::{Names, Rates};
use crate::output::note;
use crate::simulate::{DumpArgs, write_file};

/// The source that the benchmark publishes as. No registry has this name.
const SOURCE: &str = "ryggrad-bench-detect";
/// A partition of the positions that no source of the catalogue has.
const POSITIONS_PARTITION: i32 = 14;
const PIECE_BYTES: usize = 256 * 1024;
const PIECES_WAITING_MAX: usize = 4;
const ROW_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A registry's dump compared with the topic, against only parsing the dump
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench detect                             a million units, three rounds
  ./ryggrad bench detect --units 100000              quicker
  KAFKA_BOOTSTRAP=kafka1:9092 ./ryggrad bench detect a Kafka that is there; topics are deleted again

WHAT IS COMPARED
  Ryggrad   the product's own producer (ryggrad produce --snapshots --once) on a dump in which
            nothing has changed since it was published: start, read the whole topic into the index,
            unpack the dump, cut it into rows, fingerprint and compare each, commit that it is done.
  baseline  the same file unpacked and cut in the same way, each row parsed with serde_json into a
            Value, and nothing else. Unpacking has a thread of its own in both.

  Rounds take turns after the first publication; figures are medians. That nothing was published
  in between is checked at the broker.")]
pub struct DetectArgs {
    /// Units in the dump
    #[arg(long, value_name = "COUNT", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(100..=1_500_000))]
    units: u32,
    /// Measured rounds
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Kafka that is already there; no local broker is started
    #[arg(long, env = "KAFKA_BOOTSTRAP", value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

/// Measures and prints.
pub async fn run(args: DetectArgs) -> anyhow::Result<()> {
    let mut ground = Ground::open(args.kafka.as_deref(), args.jars.as_ref()).await?;
    let catalogue = Catalogue::built_in();
    let followed = catalogue.source(ENHETSREGISTERET).context("the catalogue lacks Enhetsregisteret")?;
    let event_type = catalogue.event(&followed.event).context("the catalogue lacks its event type")?;
    let topic = catalogue.topic(&event_type.topic).context("the catalogue lacks its topic")?;
    let topic = ground.create(Topic { name: format!("{SOURCE}.{:08x}", rand::random::<u32>()), ..topic.clone() }).await?;
    let event_type = EventType { topic: topic.name.clone(), ..event_type.clone() };
    let feeds = vec![followed.feeds[0].clone()];
    // A name of its own for each benchmark, so that no position of an earlier one is found.
    let source = Source { name: topic.name.clone(), positions_partition: POSITIONS_PARTITION, feeds, ..followed.clone() };

    let (file, started) = (ground.folder().join("dump.json.gz"), Instant::now());
    let asked = DumpArgs::plain(args.units, file.clone());
    let rows = tokio::task::spawn_blocking(move || write_file(&asked)).await??.rows;
    note(format!("· a dump of {rows} units ({:.1} s)", started.elapsed().as_secs_f64()));
    let took = compare(&ground, &source, &event_type, &file).await?;
    let published = ground.count(&topic).await?;
    ensure!(published == rows, "the dump has {rows} units, the topic {published} events");
    note(format!("· published in {:.1} s", took.as_secs_f64()));

    let mut rates = Rates::default();
    for round in 1..=args.runs {
        let mut measured = Rates::default();
        let path = file.clone();
        measured.baseline.push(rows as f64 / tokio::task::spawn_blocking(move || parse(&path, rows)).await??.as_secs_f64());
        measured.ours.push(rows as f64 / compare(&ground, &source, &event_type, &file).await?.as_secs_f64());
        note(format!("· round {round}: {}", measured.in_short()));
        rates.append(measured);
    }
    let found = ground.count(&topic).await?;
    ensure!(found == rows, "nothing had changed, but the topic has {found} events after {rows}");
    ground.close().await?;
    rates.print("detect", &Names { baseline: "parsing", check: "" })
}

async fn compare(ground: &Ground, source: &Source, event_type: &EventType, file: &Path) -> anyhow::Result<Duration> {
    let registry = Arc::new(DumpSource::new(source, event_type, file.to_owned())?);
    let snapshot = SnapshotConfig { confirm_deletions: false, ..SnapshotConfig::default() };
    let config = ProducerConfig { follow: Follow::Snapshots, once: true, snapshot, roll_interval_ms: 0, ..ProducerConfig::default() };
    let telemetry = Telemetry::register(&mut Registry::default());
    let (connection, seal) = (ground.connection().clone(), Seal::new(&rand::random()));
    let started = Instant::now();
    follow_with_snapshots(registry, &config, connection, seal, telemetry, CancellationToken::new()).await?;
    Ok(started.elapsed())
}

/// Parses each row, and how long that took.
fn parse(file: &Path, expected: u64) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let mut packed = MultiGzDecoder::new(std::io::BufReader::with_capacity(PIECE_BYTES, std::fs::File::open(file)?));
    let (sender, pieces) = sync_channel(PIECES_WAITING_MAX);
    let unpacking = std::thread::spawn(move || -> std::io::Result<()> {
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            (&mut packed).take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
            if piece.is_empty() || sender.send(piece).is_err() {
                return Ok(());
            }
        }
    });
    let (mut rows, mut parsed) = (Rows::new(ROW_BYTES_MAX), 0);
    for piece in pieces {
        rows.push(&piece, |row| parsed += u64::from(serde_json::from_slice::<Value>(row).is_ok_and(|row| row.is_object())))?;
    }
    unpacking.join().map_err(|_| anyhow::anyhow!("unpacking failed"))??;
    ensure!(parsed == expected, "{parsed} of {expected} rows could be parsed");
    Ok(started.elapsed())
}
