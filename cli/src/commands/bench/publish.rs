//! `ryggrad bench publish`: from a registry's bytes to committed events, against bare librdkafka.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use prometheus_client::registry::Registry;
use ryggrad_log::bench::BareProducer;
use ryggrad_log::{Appender, Seal};
use ryggrad_producers::{ENHETSREGISTERET, ProducerConfig, Telemetry, follow_source};
use ryggrad_schemas::catalogue::{Cleanup, EventType, Source, Topic, topics};
use ryggrad_schemas::{Catalogue, EncodedRecord, Headers};
use tokio_util::sync::CancellationToken;

use super::ground::Ground;
use super::memory_source::MemorySource;
use super::performance_tool::PerformanceTool;
use super::population::{Population, Stages};
use super::{Names, Rates};
use crate::commands::produce;
use crate::output::note;

/// The source that the benchmark publishes as. No registry has this name.
const SOURCE: &str = "ryggrad-bench";
/// The last partition of the positions, which no source of the catalogue has.
const POSITIONS_PARTITION: i32 = 15;
const RUN_TIMEOUT_MS: u64 = 60_000;
/// Until then, the broker mostly compiles itself.
const WARM_UP_RUNS: u32 = 3;
/// librdkafka and the foreign tool send this many times the events: they are so quick that less
/// would be noise, and the tool's virtual machine needs to warm up.
const FACTOR: usize = 5;

/// From a registry's answers to committed events, against bare librdkafka
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench publish                                  a broker of its own, five rounds
  ./ryggrad bench publish --events 20000 --runs 3          quicker, less certain
  KAFKA_BOOTSTRAP=kafka1:9092 ./ryggrad bench publish      a Kafka that is there; topics are deleted again

WHAT IS COMPARED
  Ryggrad   the product's own producer (ryggrad produce), on a registry whose answers lie in
            memory as bytes: read pages, read documents, map, encode Avro, make records, publish
            up to 5000 events with their position in one transaction. Two feeds, each a task of
            its own. There is no HTTP in it.
  baseline  librdkafka sending the very same records, encoded beforehand: same keys, values,
            headers and topic settings, acks=all, idempotent, lz4, linger 2 ms; no transaction,
            one flush at the end. It sends them five times, since once is over too soon.
  check     Kafka's ProducerPerformance with payloads of the same bytes (value, key and headers
            in one, made printable) and the same settings: the baseline must reach 0.8 of it.

  Documents come from the simulator (ryggrad simulate enhetsregisteret). Rounds take turns after
  three to warm up; figures are medians. Every run is counted at the broker: the baseline by the
  topic's offsets, Ryggrad by reading what is committed.

WHAT LIMITS IT
  The processors. Reading, typing and encoding a document cost as much as librdkafka does with the
  record, and the broker shares the machine. Transactions cost it a fixed amount each, so few and
  large ones are quicker; they stay below 100 ms.")]
pub struct PublishArgs {
    /// Changes in each run
    #[arg(long, value_name = "COUNT", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    events: u32,
    /// Measured rounds, after three to warm up
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// Kafka that is already there; no local broker is started
    #[arg(long, env = "KAFKA_BOOTSTRAP", value_name = "HOST:PORT")]
    kafka: Option<String>,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

/// What all runs share.
struct Bench {
    ground: Ground,
    config: ProducerConfig,
    source: Source,
    event_type: EventType,
    topic: &'static Topic,
    population: Arc<Population>,
    events: usize,
    /// Makes topic names that no other benchmark has.
    run: String,
}

/// Measures and prints.
pub async fn run(args: PublishArgs) -> anyhow::Result<()> {
    let mut bench = Bench::prepare(&args).await?;
    let (mut records, stages) = bench.population.records(&bench.source, &bench.event_type, bench.config.transaction_events_max)?;
    tell(&records, stages, bench.events);
    let tool = args.jars.as_ref().map(|jars| PerformanceTool::prepare(jars, bench.ground.folder(), &records)).transpose()?;
    if tool.is_none() {
        note("warning: without Kafka's jars the baseline goes unchecked; start with ./ryggrad bench");
    }
    let mut rates = Rates::default();
    for round in 0..WARM_UP_RUNS + args.runs {
        let mut measured = Rates::default();
        measured.baseline.push(bench.baseline(&mut records, round).await?);
        measured.ours.push(bench.ours(&records, round).await?);
        if let Some(tool) = &tool {
            measured.check.push(bench.check(tool, round).await?);
        }
        note(format!("· round {round}{}: {}", if round < WARM_UP_RUNS { " (warm-up)" } else { "" }, measured.in_short()));
        if round >= WARM_UP_RUNS {
            rates.append(measured);
        }
    }
    bench.forget_positions().await?;
    bench.ground.close().await?;
    rates.print("publish", &Names { baseline: "bare librdkafka", check: "ProducerPerformance" })
}

impl Bench {
    async fn prepare(args: &PublishArgs) -> anyhow::Result<Self> {
        let catalogue = Catalogue::built_in();
        let followed = catalogue.source(ENHETSREGISTERET).context("the catalogue lacks Enhetsregisteret")?;
        let event_type = catalogue.event(&followed.event).context("the catalogue lacks its event type")?.clone();
        let topic = catalogue.topic(&event_type.topic).context("the catalogue lacks its topic")?;
        let source = Source { name: SOURCE.to_owned(), positions_partition: POSITIONS_PARTITION, ..followed.clone() };
        let config = ProducerConfig { start: produce::BEGINNING, poll_interval_ms: 1, roll_interval_ms: 0, ..ProducerConfig::default() };
        let ground = Ground::open(args.kafka.as_deref(), args.jars.as_ref()).await?;
        let started = Instant::now();
        let events = usize::try_from(args.events)?;
        let population = Arc::new(Population::fetch(&source, events, config.page_items_max).await?);
        note(format!("· {events} changes of {} units ({:.1} s)", population.documents.len(), started.elapsed().as_secs_f64()));
        let run = format!("ryggrad-bench.{:08x}", rand::random::<u32>());
        Ok(Self { ground, config, source, event_type, topic, population, events, run })
    }

    async fn new_topic(&mut self, who: &str, round: u32) -> anyhow::Result<Topic> {
        self.ground.create(Topic { name: format!("{}.{who}.{round}", self.run), ..self.topic.clone() }).await
    }

    fn rate(&self, took: Duration) -> f64 {
        self.events as f64 / took.as_secs_f64()
    }

    async fn baseline(&mut self, records: &mut Vec<EncodedRecord>, round: u32) -> anyhow::Result<f64> {
        let topic = self.new_topic("baseline", round).await?;
        for record in records.iter_mut().filter(|record| record.topic != topics::SOURCE_POSITIONS) {
            record.topic.clone_from(&topic.name);
        }
        // As with the publisher, connecting is no part of the time.
        let producer = BareProducer::new(self.ground.connection())?;
        producer.send_all(vec![self.position_mark(&self.source.feeds[0])], 1, RUN_TIMEOUT_MS).await?;
        let (returned, took) = producer.send_all(std::mem::take(records), FACTOR, RUN_TIMEOUT_MS).await?;
        *records = returned;
        let (sent, found) = (events_of(records) * FACTOR as u64, self.ground.appended(&topic).await?);
        ensure!(sent == found, "librdkafka sent {sent} records, the broker has {found}");
        Ok(self.rate(took / FACTOR as u32))
    }

    async fn ours(&mut self, records: &[EncodedRecord], round: u32) -> anyhow::Result<f64> {
        let topic = self.new_topic("ryggrad", round).await?;
        self.forget_positions().await?;
        let event_type = EventType { topic: topic.name.clone(), ..self.event_type.clone() };
        let upstream = Arc::new(MemorySource::new(&self.source, event_type, &self.population, self.config.page_items_max)?);
        let stop = CancellationToken::new();
        let telemetry = Telemetry::register(&mut Registry::default());
        let connection = self.ground.connection().clone();
        let following = follow_source(Arc::clone(&upstream), &self.config, connection, Seal::new(&rand::random()), telemetry, stop.clone());
        let watching = async {
            let took = tokio::time::timeout(Duration::from_millis(RUN_TIMEOUT_MS), upstream.published()).await;
            stop.cancel();
            took
        };
        let (followed, took) = tokio::join!(following, watching);
        followed?;
        let took = took.context("Ryggrad did not publish everything in time")?;
        let (expected, mut found) = (events_of(records), 0);
        self.ground.read(&topic, |_| found += 1).await?;
        ensure!(expected == found, "Ryggrad should have committed {expected} records, the broker has {found}");
        Ok(self.rate(took))
    }

    async fn check(&mut self, tool: &PerformanceTool, round: u32) -> anyhow::Result<f64> {
        // The tool sends no keys, and a compacted topic takes nothing without.
        let (cleanup, min_compaction_lag_ms, max_compaction_lag_ms, delete_retention_ms) = (Cleanup::Delete, None, None, None);
        let name = format!("{}.check.{round}", self.run);
        let plain = Topic { name, cleanup, min_compaction_lag_ms, max_compaction_lag_ms, delete_retention_ms, ..self.topic.clone() };
        let topic = self.ground.create(plain).await?;
        let records = self.events * FACTOR;
        let rate = tool.run(&self.ground.connection().bootstrap, &topic.name, records).await?;
        let found = self.ground.appended(&topic).await?;
        ensure!(found == records as u64, "ProducerPerformance sent {records} records, the broker has {found}");
        Ok(rate)
    }

    /// Lets the next run start from the beginning, and leaves no position behind.
    async fn forget_positions(&self) -> anyhow::Result<()> {
        let appender = Appender::new(self.ground.connection(), 10_000)?;
        for feed in &self.source.feeds {
            appender.append(&self.position_mark(feed)).await?;
        }
        Ok(())
    }

    fn position_mark(&self, feed: &str) -> EncodedRecord {
        EncodedRecord {
            topic: topics::SOURCE_POSITIONS.to_owned(),
            partition: Some(self.source.positions_partition),
            key: format!("{}/{feed}", self.source.name),
            value: None,
            headers: Headers::default(),
        }
    }
}

fn events_of(records: &[EncodedRecord]) -> u64 {
    records.iter().filter(|record| record.topic != topics::SOURCE_POSITIONS).count() as u64
}

fn tell(records: &[EncodedRecord], stages: Stages, events: usize) {
    let values = records.iter().filter_map(|record| record.value.as_ref()).map(Vec::len);
    let (value_bytes, all_bytes): (usize, usize) = (values.sum(), records.iter().map(EncodedRecord::size_bytes).sum());
    let each_us = |stage: Duration| stage.as_secs_f64() * 1e6 / events as f64;
    note(format!(
        "· {} records, {} bytes each with key and headers, of which {} bytes value\n\
         · one thread without Kafka, for each event: pages {:.1} µs, documents {:.1} µs, events and Avro {:.1} µs",
        records.len(),
        all_bytes / records.len().max(1),
        value_bytes / records.len().max(1),
        each_us(stages.pages),
        each_us(stages.documents),
        each_us(stages.events),
    ));
}
