//! `ryggrad sources`: how registries are followed, what was set aside, and orders to the producer.
//!
//! Reads and writes Kafka only. An order is carried out by the running producer, once, and what
//! came of it is waited for. Content of the quarantine is shown only where it is asked for.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args as ClapArgs, Subcommand};
use ryggrad_detect::command::{Command as Order, Outcome, Task};
use ryggrad_detect::position::{FeedPosition, from_records};
use ryggrad_detect::quarantine::{Entry, open_entries};
use ryggrad_detect::snapshot::run::{Completed, track};
use ryggrad_log::{Appender, Moment, Read, ReaderLimits, Seal, Start, follow, offsets_of, read_to_end};
use ryggrad_schemas::catalogue::{Source, topics};
use ryggrad_schemas::{Catalogue, LogRecord};
use serde_json::{Value, json};

use crate::commands::frame::Frame;
use crate::exit::Code;
use crate::keys;
use crate::output::{Format, Output, cell, note, printable};
use crate::settings::{Settings, SettingsArgs};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  How far each feed is read, and when a dump was last compared:
    ryggrad sources list

  What could not be understood, and one entry with its content:
    ryggrad sources quarantine
    ryggrad sources quarantine --reveal 17

  Publish it after the cause was mended; name the key if it does not tell:
    ryggrad sources repair 17
    ryggrad sources repair 17 --key 312345676
    ryggrad sources repair --all

  Compare with the registry's dump now, and wait until that is done:
    ryggrad sources reconcile enhetsregisteret

  Read a feed again from an id on:
    ryggrad sources reset enhetsregisteret enheter --to 25000000

Orders are carried out by the running producer.

EXIT CODES
  0 done   1 failed   2 wrong command line   3 refused   4 Kafka or the producer does not answer";

const RECORDS_MAX: usize = 1_000_000;
const KAFKA_TIMEOUT_MS: u64 = 30_000;

/// Its command line.
pub type Args = Frame<Command, SourcesOptions>;

/// How to reach Kafka, and the producer through it.
#[derive(Debug, ClapArgs)]
pub struct SourcesOptions {
    #[command(flatten)]
    settings: SettingsArgs,
    /// How long to wait for the producer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60, global = true)]
    wait_s: u64,
}

/// What can be done with sources.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists feeds: position, events, last comparison, open quarantine.
    List,
    /// Shows one source in full.
    Show {
        /// The source.
        #[arg(default_value = "enhetsregisteret")]
        source: String,
    },
    /// Lists what could not be understood and is not dealt with.
    Quarantine {
        /// The source.
        #[arg(default_value = "enhetsregisteret")]
        source: String,
        /// Shows the content of the entry at this offset.
        #[arg(long, value_name = "OFFSET")]
        reveal: Option<i64>,
    },
    /// Publishes what was set aside, with the state that the registry has now.
    Repair {
        /// Its offset, as `quarantine` shows it.
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        offset: Option<i64>,
        /// The key that it is about, if it does not tell.
        #[arg(long, value_name = "KEY", conflicts_with = "all")]
        key: Option<String>,
        /// All entries, oldest first.
        #[arg(long)]
        all: bool,
        /// Counts as dealt with, without an event.
        #[arg(long, conflicts_with = "key")]
        dismiss: bool,
        /// The source.
        #[arg(long, default_value = "enhetsregisteret")]
        source: String,
    },
    /// Compares with the registry's dump now.
    Reconcile {
        /// The source.
        #[arg(default_value = "enhetsregisteret")]
        source: String,
        /// One feed; else all.
        feed: Option<String>,
        /// Do not wait until it is done.
        #[arg(long)]
        no_wait: bool,
    },
    /// Reads a feed on from an id. What was published before is published again, with the same ids.
    Reset {
        /// The source.
        source: String,
        /// The feed.
        feed: String,
        /// The first id to read.
        #[arg(long, value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
        to: u64,
    },
}

/// Runs one of the commands.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let settings = args.options.settings.load()?;
    let desk = Desk { settings, format: args.format.format, wait: Duration::from_secs(args.options.wait_s) };
    match args.command {
        Command::List => desk.list().await,
        Command::Show { source } => desk.show(source_of(&source)?).await,
        Command::Quarantine { source, reveal: None } => desk.quarantine(source_of(&source)?).await,
        Command::Quarantine { source, reveal: Some(offset) } => desk.reveal(source_of(&source)?, offset).await,
        Command::Repair { offset, key, all, dismiss, source } => {
            let source = source_of(&source)?;
            let offsets = match offset {
                Some(offset) => vec![offset],
                None if all => desk.open(source).await?.iter().map(|entry| entry.offset).collect(),
                None => Vec::new(),
            };
            let task = |offset| if dismiss { Task::Dismiss { offset } } else { Task::Repair { offset, key: key.clone() } };
            desk.order_all(source, offsets.into_iter().map(task).collect()).await
        }
        Command::Reconcile { source, feed, no_wait } => desk.reconcile(source_of(&source)?, feed, no_wait).await,
        Command::Reset { source, feed, to } => desk.order_all(source_of(&source)?, vec![Task::Reset { feed, position: to - 1 }]).await,
    }
}

fn source_of(name: &str) -> anyhow::Result<&'static Source> {
    let catalogue = Catalogue::built_in();
    let names = || catalogue.sources.iter().map(|source| source.name.as_str()).collect::<Vec<_>>().join(", ");
    catalogue.source(name).with_context(|| format!("there is no source {name}; there are: {}", names()))
}

struct Desk {
    settings: Settings,
    format: Format,
    wait: Duration,
}

impl Desk {
    async fn positions(&self, source: &Source) -> anyhow::Result<Vec<LogRecord>> {
        let partition = source.positions_partition;
        Ok(read_to_end(&self.settings.kafka, topics::SOURCE_POSITIONS, partition, RECORDS_MAX, KAFKA_TIMEOUT_MS).await?)
    }

    async fn set_aside(&self) -> anyhow::Result<Vec<LogRecord>> {
        Ok(read_to_end(&self.settings.kafka, topics::QUARANTINE, 0, RECORDS_MAX, KAFKA_TIMEOUT_MS).await?)
    }

    async fn open(&self, source: &Source) -> anyhow::Result<Vec<Entry>> {
        Ok(open_entries(source, &self.set_aside().await?))
    }

    async fn feeds(&self, source: &Source) -> anyhow::Result<Vec<Value>> {
        let (records, open) = (self.positions(source).await?, self.open(source).await?);
        let positions = from_records(source, &records)?;
        let row = |feed: &String| {
            let position = positions.get(feed);
            let run = positions.get(&track(feed)).map(|run: &FeedPosition| run.position);
            let completed = Completed::from_records(source, feed, &records);
            let is_its = |entry: &&Entry| entry.feed == *feed || entry.feed == track(feed);
            json!({
                "source": source.name,
                "feed": feed,
                "position": position.map(|found| found.position),
                "events": position.map(|found| found.count),
                "snapshot_run": run,
                "snapshot_completed": completed.map(|completed| json!({
                    "run": completed.run, "at_ms": completed.at_ms, "rows": completed.rows, "events": completed.events,
                })),
                "quarantined": open.iter().filter(is_its).count(),
            })
        };
        Ok(source.feeds.iter().map(row).collect())
    }

    async fn list(&self) -> anyhow::Result<Code> {
        let mut rows = Vec::new();
        for source in &Catalogue::built_in().sources {
            rows.extend(self.feeds(source).await?);
        }
        let columns = ["SOURCE", "FEED", "POSITION", "EVENTS", "LAST DUMP", "ROWS", "QUARANTINED"];
        self.print(&columns, rows, |row| {
            let completed = &row["snapshot_completed"];
            let before = ["source", "feed", "position", "events"].map(|name| cell(row, name));
            let after = [moment(completed["at_ms"].as_i64()), cell(completed, "rows"), cell(row, "quarantined")];
            before.into_iter().chain(after).collect()
        })
    }

    async fn show(&self, source: &Source) -> anyhow::Result<Code> {
        let shown = json!({
            "source": source.name,
            "event": source.event,
            "positions": format!("{}/{}", topics::SOURCE_POSITIONS, source.positions_partition),
            "feeds": self.feeds(source).await?,
        });
        let mut output = Output::stdout();
        match self.format {
            Format::Ndjson => output.object(&shown)?,
            Format::Table => output.line(&serde_json::to_string_pretty(&shown)?)?,
        }
        output.flush()?;
        Ok(Code::Ok)
    }

    async fn quarantine(&self, source: &Source) -> anyhow::Result<Code> {
        let row = |entry: &Entry| {
            json!({
                "offset": entry.offset, "feed": entry.feed, "position": entry.position, "subject": entry.subject,
                "at_ms": entry.at_ms, "reason": entry.reason,
            })
        };
        let rows: Vec<Value> = self.open(source).await?.iter().map(row).collect();
        if rows.is_empty() {
            note("nothing is set aside");
        }
        self.print(&["OFFSET", "FEED", "POSITION", "KEY", "SINCE", "REASON"], rows, |row| {
            let text = ["offset", "feed", "position", "subject"].map(|name| cell(row, name));
            text.into_iter().chain([moment(row["at_ms"].as_i64()), cell(row, "reason")]).collect()
        })
    }

    async fn reveal(&self, source: &Source, offset: i64) -> anyhow::Result<Code> {
        let records = self.set_aside().await?;
        let record = records.iter().find(|record| record.offset == offset);
        let entry = record.and_then(|record| Entry::read(source, record));
        let Some((record, entry)) = record.zip(entry) else { bail!("offset {offset} is not in the quarantine of {}", source.name) };
        let seal = Seal::new(&keys::seal_key(&self.settings.key_file)?);
        let content = seal.open(&entry.key, record.value.as_deref().unwrap_or_default());
        let content = content.context("its content cannot be opened; is --data the folder of the producer that sealed it?")?;
        let mut output = Output::stdout();
        for line in String::from_utf8_lossy(&content).lines() {
            output.line(&printable(line))?;
        }
        output.flush()?;
        Ok(Code::Ok)
    }

    async fn reconcile(&self, source: &Source, feed: Option<String>, no_wait: bool) -> anyhow::Result<Code> {
        let before = self.positions(source).await?;
        let code = self.order_all(source, vec![Task::Reconcile { feed: feed.clone() }]).await?;
        if no_wait || code != Code::Ok {
            return Ok(code);
        }
        let run_of = |records: &[LogRecord], feed: &str| Completed::from_records(source, feed, records).map(|completed| completed.run);
        let feeds: Vec<&String> = source.feeds.iter().filter(|found| feed.as_ref().is_none_or(|feed| feed == *found)).collect();
        let deadline = tokio::time::Instant::now() + self.wait;
        loop {
            let now = self.positions(source).await?;
            if feeds.iter().all(|feed| run_of(&now, feed) > run_of(&before, feed)) {
                for feed in &feeds {
                    let completed = Completed::from_records(source, feed, &now).unwrap_or_default();
                    note(format!("✓ {feed}: {} rows compared, {} differences published", completed.rows, completed.events));
                }
                return Ok(Code::Ok);
            }
            if tokio::time::Instant::now() > deadline {
                bail!(
                    "the comparison is not done after {} s; it goes on: see ryggrad sources list, or wait longer with --wait-s",
                    self.wait.as_secs()
                );
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Gives orders one after the other, and tells what came of each.
    async fn order_all(&self, source: &Source, tasks: Vec<Task>) -> anyhow::Result<Code> {
        if tasks.is_empty() {
            note("nothing to do");
        }
        let mut code = Code::Ok;
        for task in tasks {
            let outcome = self.order(source, task).await?;
            note(format!("{} {}", if outcome.done { "✓" } else { "✗" }, outcome.text));
            if !outcome.done {
                code = Code::Refused;
            }
        }
        Ok(code)
    }

    async fn order(&self, source: &Source, task: Task) -> anyhow::Result<Outcome> {
        let kafka = &self.settings.kafka;
        let partition = source.positions_partition;
        // Listens before it speaks: no answer can be missed.
        let partitions = Catalogue::built_in().topic(topics::SOURCE_POSITIONS).map_or(0, |topic| topic.partitions);
        let ends = offsets_of(kafka, topics::SOURCE_POSITIONS, partitions, Moment::End, KAFKA_TIMEOUT_MS).await?;
        let end = usize::try_from(partition).ok().and_then(|partition| ends.get(partition).copied()).unwrap_or_default();
        let mut answers = follow(kafka, topics::SOURCE_POSITIONS, &[(partition, Start::Offset(end))], ReaderLimits::default())?;
        let order = Order { id: uuid::Uuid::new_v4().to_string(), task };
        let appender = Appender::new(kafka, u32::try_from(KAFKA_TIMEOUT_MS)?)?;
        appender.append(&order.to_record(source)?).await?;
        let listening = async {
            while let Some(read) = answers.next().await {
                let Read::Records(records) = read else { continue };
                let outcomes = records.iter().filter_map(|record| Outcome::parse(source, record.key.as_deref(), record.value.as_deref()));
                if let Some(outcome) = outcomes.into_iter().find(|outcome| outcome.id == order.id) {
                    return Some(outcome);
                }
            }
            None
        };
        let answer = tokio::time::timeout(self.wait, listening).await.ok().flatten();
        answer.with_context(|| {
            format!(
                "the producer of {} has not answered within {} s; the order stands and is carried out when it runs: ryggrad produce",
                source.name,
                self.wait.as_secs()
            )
        })
    }

    fn print(&self, columns: &[&str], rows: Vec<Value>, cells: impl Fn(&Value) -> Vec<String>) -> anyhow::Result<Code> {
        let mut output = Output::stdout();
        match self.format {
            Format::Ndjson => rows.iter().try_for_each(|row| output.object(row))?,
            Format::Table => output.table(columns, rows.iter().map(cells))?,
        }
        output.flush()?;
        Ok(Code::Ok)
    }
}

fn moment(at_ms: Option<i64>) -> String {
    at_ms
        .and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok())
        .map_or_else(|| "–".to_owned(), |at| at.strftime("%F %TZ").to_string())
}
