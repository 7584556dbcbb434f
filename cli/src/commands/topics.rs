//! `ryggrad topics`: the catalogue's topics at a broker, asked of Kafka itself.
//!
//! Must never change or delete a topic that exists: a difference is shown, and people decide.

use clap::Subcommand;
use ryggrad_consumers::watermarks_of;
use ryggrad_log::topics::{self, State};
use ryggrad_log::{Connection, Watermarks};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::{Latch, Topic};
use serde_json::{Value, json};

use crate::client::KafkaOptions;
use crate::commands::frame::Frame;
use crate::exit::Code;
use crate::output::{Format, Output, note};

const ASK_TIMEOUT_MS: u64 = 5_000;

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  What is there, and how much of it?
    ryggrad topics list
    ryggrad topics list --partitions

  Make what is missing on a cluster of three:
    ryggrad topics create --kafka broker1:9092,broker2:9092 --replication 3

  In a deployment's pipeline: stop if a topic is not as the catalogue says:
    ryggrad topics check || exit 1

EXIT CODES
  0 done   1 failed   2 wrong command line   4 Kafka not reached
  5 a topic is missing (check only) or differs from the catalogue";

/// Its command line.
pub type Args = Frame<Command, KafkaOptions>;

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Lists topics with their partitions, purpose and extent.
    List {
        /// A line for each partition, with its first offset and its end.
        #[arg(long)]
        partitions: bool,
    },
    /// Creates the topics that are missing. Never changes one that exists.
    Create {
        /// How many brokers hold each record.
        #[arg(long, value_name = "BROKERS", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
        replication: i32,
    },
    /// Compares the topics with the catalogue and shows each difference.
    Check,
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let connection = args.options.connection()?;
    let mut states = topics::check(&connection, &Catalogue::built_in().topics).await?;
    // What is shut in most installations is missing there for a reason: a bridge that opens it makes it.
    states.retain(|(name, state)| *state != State::Missing || everywhere().topic(name).is_some());
    let mut output = Output::stdout();
    let format = args.format.format;
    let code = match args.command {
        Command::List { partitions } => list(&connection, &states, &mut output, format, partitions).await?,
        Command::Create { replication } => create(&connection, states, &mut output, format, replication).await?,
        Command::Check => check(&states, &mut output, format)?,
    };
    output.flush()?;
    Ok(code)
}

/// The topics that every installation has.
fn everywhere() -> &'static Catalogue {
    Catalogue::opened(Latch::Shut)
}

type States = [(String, State)];

struct Extent<'a> {
    topic: &'a Topic,
    /// By partition; `None` if the topic is missing.
    marks: Option<Vec<(i32, Watermarks)>>,
}

async fn list(connection: &Connection, states: &States, output: &mut Output, format: Format, by_partition: bool) -> anyhow::Result<Code> {
    let mut extents = Vec::new();
    for (name, state) in states {
        let Some(topic) = Catalogue::built_in().topic(name) else { continue };
        let marks = match state {
            State::Missing => None,
            _ => {
                let partitions: Vec<i32> = (0..found_partitions(topic, state)).collect();
                Some(watermarks_of(connection, &topic.name, &partitions, ASK_TIMEOUT_MS).await?)
            }
        };
        extents.push(Extent { topic, marks });
    }
    match format {
        Format::Ndjson => extents.iter().try_for_each(|extent| output.object(&extent.to_json()))?,
        Format::Table if by_partition => {
            output.table(&["TOPIC", "PARTITION", "LOW", "HIGH", "RECORDS AT MOST"], extents.iter().flat_map(Extent::partition_rows))?
        }
        Format::Table => output.table(&["TOPIC", "PARTITIONS", "RECORDS AT MOST", "PURPOSE"], extents.iter().map(Extent::row))?,
    }
    if extents.iter().any(|extent| extent.marks.is_none()) {
        note("Some topics are missing; ryggrad topics create makes them.");
    }
    Ok(Code::Ok)
}

/// The broker's count, which may differ from the catalogue's.
fn found_partitions(topic: &Topic, state: &State) -> i32 {
    let State::Differs(differences) = state else { return topic.partitions };
    let found = differences.iter().find(|difference| difference.setting == "partitions");
    found.and_then(|difference| difference.found.parse().ok()).unwrap_or(topic.partitions)
}

/// Markers and compaction leave gaps, so this is an upper bound.
fn records_max(marks: &[(i32, Watermarks)]) -> i64 {
    marks.iter().map(|(_, marks)| marks.high.saturating_sub(marks.low)).sum()
}

impl Extent<'_> {
    fn row(&self) -> Vec<String> {
        let (partitions, records) = match &self.marks {
            Some(marks) => (marks.len().to_string(), records_max(marks).to_string()),
            None => ("missing".to_owned(), String::new()),
        };
        vec![self.topic.name.clone(), partitions, records, self.topic.purpose.clone()]
    }

    fn partition_rows(&self) -> Vec<Vec<String>> {
        let Some(marks) = &self.marks else { return vec![vec![self.topic.name.clone(), "missing".to_owned()]] };
        let row = |(partition, ends): &(i32, Watermarks)| {
            let records = ends.high.saturating_sub(ends.low);
            vec![self.topic.name.clone(), partition.to_string(), ends.low.to_string(), ends.high.to_string(), records.to_string()]
        };
        marks.iter().map(row).collect()
    }

    fn to_json(&self) -> Value {
        let partition = |(partition, marks): &(i32, Watermarks)| json!({ "partition": partition, "low": marks.low, "high": marks.high });
        json!({
            "topic": self.topic.name,
            "purpose": self.topic.purpose,
            "exists": self.marks.is_some(),
            "records_max": self.marks.as_deref().map(records_max),
            "partitions": self.marks.iter().flatten().map(partition).collect::<Vec<_>>(),
        })
    }
}

async fn create(
    connection: &Connection,
    states: Vec<(String, State)>,
    output: &mut Output,
    format: Format,
    replication: i32,
) -> anyhow::Result<Code> {
    let differs = |(_, state): &(String, State)| matches!(state, State::Differs(_));
    if states.iter().any(differs) {
        check(&states, output, format)?;
        note("Nothing was created: topics that differ must be put right first.");
        return Ok(Code::Differs);
    }
    let created = topics::ensure(connection, &everywhere().topics, replication).await?;
    let outcome = |name: &String| if created.contains(name) { "created" } else { "was there" };
    match format {
        Format::Ndjson => states.iter().try_for_each(|(name, _)| output.object(&json!({ "topic": name, "outcome": outcome(name) })))?,
        Format::Table => {
            output.table(&["TOPIC", "OUTCOME"], states.iter().map(|(name, _)| vec![name.clone(), outcome(name).to_owned()]))?
        }
    }
    Ok(Code::Ok)
}

fn check(states: &States, output: &mut Output, format: Format) -> anyhow::Result<Code> {
    match format {
        Format::Ndjson => states.iter().try_for_each(|(name, state)| output.object(&state_json(name, state)))?,
        Format::Table => output.table(&["TOPIC", "STATE", "SETTING", "CATALOGUE", "BROKER"], states.iter().flat_map(state_rows))?,
    }
    let as_expected = states.iter().all(|(_, state)| *state == State::AsExpected);
    Ok(if as_expected { Code::Ok } else { Code::Differs })
}

fn state_rows((name, state): &(String, State)) -> Vec<Vec<String>> {
    let row = |state: &str, rest: [&str; 3]| [name, state].into_iter().chain(rest).map(str::to_owned).collect::<Vec<_>>();
    match state {
        State::Missing => vec![row("missing", [""; 3])],
        State::AsExpected => vec![row("as expected", [""; 3])],
        State::Differs(differences) => {
            let difference = |one: &topics::Difference| row("differs", [&one.setting, &one.expected, &one.found]);
            differences.iter().map(difference).collect()
        }
    }
}

fn state_json(name: &str, state: &State) -> Value {
    let (word, differences): (&str, &[topics::Difference]) = match state {
        State::Missing => ("missing", &[]),
        State::AsExpected => ("as-expected", &[]),
        State::Differs(differences) => ("differs", differences),
    };
    let difference = |one: &topics::Difference| json!({ "setting": one.setting, "catalogue": one.expected, "broker": one.found });
    json!({ "topic": name, "state": word, "differences": differences.iter().map(difference).collect::<Vec<_>>() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::Page;

    fn states() -> Vec<(String, State)> {
        let difference = |setting: &str| topics::Difference {
            topic: "b".to_owned(),
            setting: setting.to_owned(),
            expected: "6".to_owned(),
            found: "3".to_owned(),
        };
        vec![
            ("a".to_owned(), State::AsExpected),
            ("b".to_owned(), State::Differs(vec![difference("partitions"), difference("segment.ms")])),
            ("c".to_owned(), State::Missing),
        ]
    }

    #[test]
    fn a_check_shows_each_difference_and_says_so_with_its_code() {
        let page = Page::default();
        assert_eq!(check(&states(), &mut Output::to(page.clone()), Format::Table).unwrap(), Code::Differs);
        let expected = "\
TOPIC  STATE        SETTING     CATALOGUE  BROKER
a      as expected
b      differs      partitions  6          3
b      differs      segment.ms  6          3
c      missing
";
        assert_eq!(page.text(), expected);
        assert_eq!(check(&states()[..1], &mut Output::to(Page::default()), Format::Ndjson).unwrap(), Code::Ok);
        assert_eq!(check(&states()[2..], &mut Output::to(Page::default()), Format::Ndjson).unwrap(), Code::Differs);
    }

    #[test]
    fn the_brokers_partitions_count() {
        let topic = &Catalogue::built_in().topics[0];
        for (state, expected) in [(State::AsExpected, topic.partitions), (states()[1].1.clone(), 3)] {
            assert_eq!(found_partitions(topic, &state), expected);
        }
    }

    #[test]
    fn an_extent_is_an_upper_bound_over_all_partitions() {
        let mark = |low, high| Watermarks { low, high };
        let extent = Extent { topic: &Catalogue::built_in().topics[0], marks: Some(vec![(0, mark(5, 9)), (1, mark(0, 3))]) };
        assert_eq!(extent.row()[1..3], ["2".to_owned(), "7".to_owned()]);
        assert_eq!(extent.partition_rows()[0][1..], ["0", "5", "9", "4"].map(str::to_owned));
        assert_eq!(extent.to_json()["records_max"], 7);
        assert_eq!(Extent { marks: None, ..extent }.row()[1], "missing");
    }
}
