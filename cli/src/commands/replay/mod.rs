//! `ryggrad replay`: what stands in a topic, again: to a file, another topic, a subscription, or stdout.
//!
//! A replay ends at the end that the topic had when it began. Whatever changes what others see is
//! a dry run until `--execute`. Must never write into a topic that it would corrupt, and never let
//! out what was removed for legal reasons.

mod checkpoint;
mod files;
mod judge;
mod line;
mod pace;
mod pipeline;
mod plan;
mod progress;
mod range;
mod refusals;
mod render;
mod selection;
mod source;
mod subscription;
mod topic;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use ryggrad_bridge_core::cesql::Expression;
use ryggrad_log::{Connection, Copier, Stretch, groups, topics};
use tokio_util::sync::CancellationToken;

use crate::client::KafkaAndBridgeOptions;
use crate::exit::{Code, Stop};
use crate::output::{self, Output, note};
use checkpoint::{Asked, Checkpoint, Counts};
use files::{Files, Found};
use judge::Judge;
use pipeline::Job;
use progress::Progress;
use range::Bound;
use refusals::{Facts, Wish};
use render::{Format, Part};
use selection::Selection;
use topic::Begun;

pub use pipeline::reader_limits;

const ASK_TIMEOUT_MS: u64 = 10_000;
/// A run that was killed may have left its progress pending: Kafka says nothing of it before it has given the transaction
/// up, which takes its timeout of 10 s, looked at every 10 s.
const PROGRESS_TIMEOUT_MS: u64 = 30_000;

const EXAMPLES: &str = "\
EXAMPLES
  The last two hours, as JSON:
    ryggrad replay grunndata.virksomhet.v1 --from 2h | jq .value.virksomhet.navn

  All deletions of January, into a file; after a crash the same again with --resume:
    ryggrad replay grunndata.virksomhet.v1 --from 2026-01-01 --to 2026-02-01 \\
        --header ce_endringstype=SLETTET --to-file january.ndjson

  The whole topic as an Avro object container:
    ryggrad replay grunndata.virksomhet.v1 --to-file all.avro --format avro

  What a group has not read yet, of some keys, into a topic: first what it would be, then for real:
    ryggrad replay grunndata.virksomhet.v1 --from group:journal --key '3123*' --to-topic retry.v1
    ryggrad replay grunndata.virksomhet.v1 --from group:journal --key '3123*' --to-topic retry.v1 --execute

  To a subscription's endpoint once more, marked and beside what is live: first what it would be, then for real:
    ryggrad replay grunndata.virksomhet.v1 --from 1d --sql \"endringstype = 'NY'\" --to subscription:ID
    ryggrad replay grunndata.virksomhet.v1 --from 1d --sql \"endringstype = 'NY'\" --to subscription:ID --execute

RANGES
  --from and --to take beginning, end, an offset (1200), offsets by partition (0:1200,3:17: the other
  partitions are left out), a time (2026-01-31T12:00:00Z), a date (2026-01-31, UTC), how long ago
  (2h, -PT2H) or group:NAME, what that group has committed (the beginning where it has not). --to is
  where reading ends: the record there is not replayed. A replay never goes beyond the end that the
  topic had when it began. Records of one partition stay in order; partitions are interleaved.

FILES
  ndjson has topic, partition, offset, timestamp, key, headers and value of every record; a tombstone
  has the value null; what cannot be decoded is kept as {\"base64\": ...} beside an error. avro has
  values only, as they were written: a file for each schema that wrote them; tombstones are counted
  and left out, what is no Avro goes to FILE.undecodable.ndjson. FILE.checkpoint says how far the
  replay is. After a SIGKILL, --resume cuts off what lies behind it and goes on: each selected record
  stands in the file once.

TOPICS
  Copied are key, value and headers, byte for byte, with the headers ryggrad_replay_id, ryggrad_origin
  (topic/partition/offset) and ryggrad_origin_timestamp, in transactions that hold the progress too:
  each record is copied once, also over a SIGKILL and --resume (within offsets.retention.minutes, 7
  days by default). Refused: the source itself, the catalogue's topics, ryggrad.* and __*, a compacted
  topic that holds records, another number of partitions without --repartition. What a replay wrote
  before is left out unless --again is given.

WITHHELD
  Older states of a key that was removed for legal reasons (ryggrad.removed) are never replayed.

EXIT CODES
  0 done, or a dry run   1 failed or interrupted: --resume goes on   2 wrong command line
  3 no such topic, or refused   4 Kafka not reached";

/// Replays a part of a topic to a file, a topic, a subscription or stdout
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The topic that is read.
    topic: String,
    /// Only these partitions; may be repeated.
    #[arg(long = "partition", value_name = "NUMBER", value_delimiter = ',', value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Where to begin.
    #[arg(long, value_name = "POINT", default_value = "beginning", allow_hyphen_values = true)]
    from: String,
    /// Where to end: the first record that is not replayed.
    #[arg(long, value_name = "POINT", default_value = "end", allow_hyphen_values = true)]
    to: String,
    /// Only keys that fit, with * and ?; may be repeated.
    #[arg(long = "key", value_name = "PATTERN", help_heading = "Selection")]
    keys: Vec<String>,
    /// Only these event types, exact or a prefix ending in `.*`; may be repeated.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',', help_heading = "Selection")]
    types: Vec<String>,
    /// Only records with such a header; of one name, any of them; may be repeated.
    #[arg(long = "header", value_name = "NAME=PATTERN", value_parser = selection::header_pattern, help_heading = "Selection")]
    headers: Vec<(String, String)>,
    /// Only events of which this CloudEvents SQL expression is true.
    #[arg(long, value_name = "EXPRESSION", value_parser = expression, help_heading = "Selection")]
    sql: Option<Expression>,
    /// Write this many records, then end.
    #[arg(long, value_name = "RECORDS", help_heading = "Selection")]
    limit: Option<u64>,
    /// Write into this file, which must not exist.
    #[arg(long, value_name = "FILE", conflicts_with = "to_topic", help_heading = "Target")]
    to_file: Option<PathBuf>,
    /// Write into this topic. A dry run unless --execute is given.
    #[arg(long, value_name = "TOPIC", help_heading = "Target")]
    to_topic: Option<String>,
    /// Deliver to this subscription's endpoint once more, beside what is live; --to subscription:ID means the
    /// same. A dry run unless --execute is given.
    #[arg(long, value_name = "ID", conflicts_with_all = ["to_file", "to_topic"], help_heading = "Target")]
    to_subscription: Option<String>,
    /// How the file is written.
    #[arg(long, value_enum, default_value_t = Format::Ndjson, conflicts_with = "to_topic", help_heading = "Target")]
    format: Format,
    /// Let each key choose its partition anew, for a topic with another number of them.
    #[arg(long, requires = "to_topic", help_heading = "Target")]
    repartition: bool,
    /// Copy also what a replay has written before, and begin a replay anew that was begun before.
    #[arg(long, requires = "to_topic", conflicts_with = "resume", help_heading = "Target")]
    again: bool,
    /// Write into the topic, or deliver to the subscription, for real.
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
    /// Only count what would be written.
    #[arg(long)]
    dry_run: bool,
    /// Go on with the same replay where it was broken off.
    #[arg(long)]
    resume: bool,
    /// Records a second at most.
    #[arg(long, value_name = "RECORDS", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    #[command(flatten)]
    kafka: KafkaAndBridgeOptions,
}

/// Runs the command.
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<Code> {
    check_usage(&args)?;
    if let Some(id) = subscription_of(&args) {
        let bridge = args.kafka.connect()?;
        return subscription::run(&bridge, &args, id, stop).await;
    }
    let connection = args.kafka.connection()?;
    refusals::for_everyone(&args.topic)?;
    let found = source::find(&connection, &args.topic, &args.partitions).await?;
    let asked = asked(&args, found.cluster.clone());
    let selection = Selection { keys: args.keys.clone(), types: args.types.clone(), headers: args.headers.clone() };
    let job = Job {
        connection: connection.clone(),
        topic: args.topic.clone(),
        judge: Judge {
            selection,
            sql: args.sql.clone(),
            removals: source::removals(&connection, &args.topic).await?,
            guards_loops: args.to_topic.is_some() && !args.again,
        },
        format: args.format,
        limit: args.limit,
        rate: args.rate,
        stop,
    };
    let stretches = source::stretches(&connection, &args.topic, &found, &bound(&args.from)?, &bound(&args.to)?).await?;
    match (&args.to_topic, &args.to_file) {
        (Some(target), _) => to_topic(&args, job, &found, asked, target.clone(), stretches).await,
        _ if args.dry_run => {
            dry_run(job, stretches).await?;
            Ok(Code::Ok)
        }
        (None, Some(path)) => to_file(job, &found, asked, path.clone(), stretches, args.resume).await,
        (None, None) => to_stdout(job, stretches).await,
    }
}

fn check_usage(args: &Args) -> Result<(), Stop> {
    bound(&args.from)?;
    if subscription_of(args).is_some() {
        return subscription::check_usage(args);
    }
    bound(&args.to)?;
    if args.execute && args.to_topic.is_none() {
        return Err(Stop::usage("--execute is for --to-topic and --to-subscription", "leave it out"));
    }
    if args.resume && args.to_file.is_none() && args.to_topic.is_none() {
        return Err(Stop::usage("what went to stdout cannot be resumed", "use --to-file"));
    }
    if args.format == Format::Avro && args.to_file.is_none() {
        return Err(Stop::usage("an Avro object container needs a file", "use --to-file"));
    }
    Ok(())
}

/// The subscription that is replayed to.
fn subscription_of(args: &Args) -> Option<&str> {
    args.to_subscription.as_deref().or_else(|| args.to.strip_prefix("subscription:"))
}

fn expression(text: &str) -> Result<Expression, String> {
    Expression::parse(text).map_err(|error| error.to_string())
}

fn bound(text: &str) -> Result<Bound, Stop> {
    text.parse().map_err(|error: range::InvalidBound| Stop::usage(format!("{text:?} is no place in a topic"), error.to_string()))
}

fn asked(args: &Args, cluster: String) -> Asked {
    let target = match (&args.to_topic, args.format) {
        (Some(topic), _) => format!("topic {topic}"),
        (None, Format::Ndjson) => "ndjson".to_owned(),
        (None, Format::Avro) => "avro".to_owned(),
    };
    let (keys, types, headers) = (args.keys.clone(), args.types.clone(), args.headers.clone());
    let (from, to) = (args.from.clone(), args.to.clone());
    let partitions = args.partitions.clone();
    let sql = args.sql.as_ref().map(|sql| sql.text().to_owned());
    Asked { cluster, topic: args.topic.clone(), partitions, from, to, keys, types, headers, sql, limit: args.limit, target }
}

/// Runs what blocks, and waits for it also when it is told to stop: it ends by itself.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

async fn dry_run(job: Job, stretches: Vec<Stretch>) -> anyhow::Result<()> {
    let limit = job.limit;
    let counted = blocking(move || plan::count(&job, &stretches)).await?;
    let mut output = Output::stdout();
    plan::print(&counted, limit, &mut output)?;
    Ok(output.flush()?)
}

async fn to_stdout(job: Job, stretches: Vec<Stretch>) -> anyhow::Result<Code> {
    let stop = job.stop.clone();
    let counts = blocking(move || {
        let (mut counts, mut progress) = (Counts::default(), Progress::start(&stretches));
        pipeline::run(&job, &stretches, |piece| {
            let mut stdout = std::io::stdout().lock();
            for (_, bytes, _) in piece.parts.iter().filter(|(part, ..)| *part == Part::Lines) {
                stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(output::Error::from)?;
            }
            counts.add(piece.counts);
            piece.next.iter().for_each(|(partition, next)| progress.reach(*partition, *next));
            Ok(())
        })?;
        Ok(counts)
    })
    .await?;
    Ok(tell(counts, stop.is_cancelled(), false))
}

async fn to_file(
    mut job: Job,
    found: &source::Found,
    asked: Asked,
    path: PathBuf,
    stretches: Vec<Stretch>,
    resume: bool,
) -> anyhow::Result<Code> {
    let begun = files::look(&path, &asked, resume)?;
    let checkpoint = match begun {
        Found::Nothing => Checkpoint::new(asked, &stretches),
        Found::Begun(checkpoint) if checkpoint.is_complete => {
            note(format!("{} is complete: records {}", path.display(), checkpoint.counts.written));
            return Ok(Code::Ok);
        }
        Found::Begun(checkpoint) => *checkpoint,
    };
    source::still_there(found, &checkpoint.reached)?;
    job.limit = job.limit.map(|limit| limit.saturating_sub(checkpoint.counts.written));
    let stop = job.stop.clone();
    let checkpoint = write(job, &path, checkpoint).await?;
    for file in &checkpoint.files {
        note(format!("{}: {} bytes ({})", file.name, file.bytes, file.part));
    }
    Ok(tell(checkpoint.counts, stop.is_cancelled(), true))
}

/// Goes on where the checkpoint is, to the end or until it is told to stop.
async fn write(job: Job, path: &Path, checkpoint: Checkpoint) -> anyhow::Result<Checkpoint> {
    let path = path.to_owned();
    blocking(move || {
        let stretches: Vec<Stretch> = checkpoint.reached.iter().map(|reached| reached.stretch()).collect();
        let (mut files, mut progress) = (Files::open(&path, checkpoint)?, Progress::start(&stretches));
        pipeline::run(&job, &stretches, |piece| {
            files.take(&piece)?;
            piece.next.iter().for_each(|(partition, next)| progress.reach(*partition, *next));
            Ok(())
        })?;
        files.finish(!job.stop.is_cancelled())
    })
    .await
}

async fn to_topic(
    args: &Args,
    mut job: Job,
    found: &source::Found,
    mut asked: Asked,
    target: String,
    stretches: Vec<Stretch>,
) -> anyhow::Result<Code> {
    if args.repartition {
        asked.target.push_str(" repartitioned");
    }
    let id = topic::id(&asked)?;
    let facts = facts(&job.connection, &target).await?;
    let begun = earlier(&job.connection, id, &args.topic, found).await?;
    let (reached, written) = match begun {
        Begun::Yes(reached, written) if args.resume => (reached, written),
        Begun::Yes(..) if args.execute && !args.again => {
            let what = format!("this replay into {target} was begun before");
            let remedy = "--resume goes on with it, or ends at once if it is done; --again does all of it once more";
            return Err(Stop { code: Code::Refused, what, remedy: Some(remedy.to_owned()) }.into());
        }
        _ => (Checkpoint::new(asked, &stretches).reached, 0),
    };
    let wish = Wish {
        source: &args.topic,
        source_partitions: found.partitions,
        target: &target,
        repartition: args.repartition,
        is_begun: args.resume,
    };
    let keeps_partitions = refusals::keeps_partitions(&wish, facts.as_ref())?;
    source::still_there(found, &reached)?;
    if !args.execute {
        job.limit = job.limit.map(|limit| limit.saturating_sub(written));
        dry_run(job, reached.iter().map(|reached| reached.stretch()).collect()).await?;
        note(format!("Nothing was written. --execute writes the selected records into {target}."));
        return Ok(Code::Ok);
    }
    note(format!("· replay {id} into {target}"));
    let stop = job.stop.clone();
    let is_compacted = facts.is_some_and(|facts| facts.is_compacted);
    let resume = args.resume;
    let counts = blocking(move || {
        let copier = Copier::start(&job.connection, &topic::group(id), &job.topic, &target)?;
        // An earlier run may have gone on until it was fenced just now.
        let partitions: Vec<i32> = reached.iter().map(|reached| reached.partition).collect();
        let positions = if resume { copier.progress(&partitions)? } else { Vec::new() };
        let settled: Vec<_> = positions.into_iter().map(|found| (found.partition, found.next, found.note)).collect();
        let (reached, written) = match topic::begun(&settled)? {
            Begun::Yes(reached, written) => (reached, written),
            Begun::No => (reached, written),
        };
        let target = topic::Target { topic: &target, keeps_partitions, is_compacted };
        topic::copy(&job, id, &target, &copier, &reached, written)
    })
    .await?;
    Ok(tell(counts, stop.is_cancelled(), true))
}

async fn facts(connection: &Connection, target: &str) -> anyhow::Result<Option<Facts>> {
    let Some(described) = topics::describe(connection, target).await? else { return Ok(None) };
    let ends = ryggrad_log::offsets_of(connection, target, described.partitions, ryggrad_log::Moment::End, ASK_TIMEOUT_MS).await?;
    let is_empty = ends.iter().all(|end| *end == 0);
    Ok(Some(Facts { partitions: described.partitions, is_compacted: described.is_compacted(), is_empty }))
}

async fn earlier(connection: &Connection, id: uuid::Uuid, source: &str, found: &source::Found) -> anyhow::Result<Begun> {
    let partitions: Vec<_> = (0..found.partitions).map(|partition| (source.to_owned(), partition)).collect();
    let committed = groups::committed(connection, &topic::group(id), &partitions, PROGRESS_TIMEOUT_MS).await?;
    topic::begun(&committed.into_iter().map(|found| (found.partition, found.offset, found.metadata)).collect::<Vec<_>>())
}

/// What a benchmark measures: a whole topic into a new file, with all that the command does for
/// it. Gives the records written and the bytes.
pub async fn whole_topic_to_file(connection: &Connection, topic: &str, path: PathBuf) -> anyhow::Result<(u64, u64)> {
    let found = source::find(connection, topic, &[]).await?;
    let (from, to) = ("beginning".to_owned(), "end".to_owned());
    let stretches = source::stretches(connection, topic, &found, &bound(&from)?, &bound(&to)?).await?;
    let asked = Asked {
        cluster: found.cluster.clone(),
        topic: topic.to_owned(),
        partitions: Vec::new(),
        from,
        to,
        keys: Vec::new(),
        types: Vec::new(),
        headers: Vec::new(),
        sql: None,
        limit: None,
        target: "ndjson".to_owned(),
    };
    let judge = Judge { removals: source::removals(connection, topic).await?, ..Judge::default() };
    let (connection, topic) = (connection.clone(), topic.to_owned());
    let job = Job { connection, topic, judge, format: Format::Ndjson, limit: None, rate: None, stop: CancellationToken::new() };
    let checkpoint = write(job, &path, Checkpoint::new(asked, &stretches)).await?;
    Ok((checkpoint.counts.written, checkpoint.files.iter().map(|file| file.bytes).sum()))
}

/// Says what became of the records.
fn tell(counts: Counts, is_interrupted: bool, is_resumable: bool) -> Code {
    let interrupted = match (is_interrupted, is_resumable) {
        (false, _) => "",
        (true, true) => "; interrupted: --resume goes on",
        (true, false) => "; interrupted",
    };
    note(format!("records written {}, read {}{interrupted}", counts.written, counts.read));
    for (what, count) in [
        ("of these kept as base64, since they could not be decoded", counts.undecodable),
        ("withheld, since their keys were removed for legal reasons", counts.withheld),
        ("tombstones left out, for which Avro containers have no place", counts.tombstones_left_out),
        ("left out, since an earlier replay had written them (--again copies them)", counts.replayed_before),
    ] {
        if count > 0 {
            note(format!("{what}: {count}"));
        }
    }
    if is_interrupted { Code::Failure } else { Code::Ok }
}
