//! `ryggrad offsets`: how far consumer groups and subscriptions have read, and setting that, as Kafka's own
//! `kafka-consumer-groups` does it.
//!
//! A reset is a dry run until `--execute`. Must never move a group in which somebody reads.

mod subscription;
mod target;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::Context;
use clap::{ArgGroup, Args as ClapArgs, Subcommand};
use ryggrad_consumers::{duration_ms, watermarks_of};
use ryggrad_log::groups::{self, Committed, Group, Member};
use ryggrad_log::{Connection, Moment, Watermarks, offsets_of, topics};
use serde_json::{Value, json};

use crate::client::{KafkaAndBridgeOptions, now_ms};
use crate::commands::frame::Frame;
use crate::exit::{Code, Stop};
use crate::output::{Format, Output, note};
use target::{Known, Place, Set, Target};

const ASK_TIMEOUT_MS: u64 = 10_000;

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  How far is a group, and who reads in it?
    ryggrad offsets show --group journal
    ryggrad offsets show --group journal --topic grunndata.virksomhet.v1 -o json

  Let a group read again from yesterday on: first what that means, then for real:
    ryggrad offsets reset --group journal --topic grunndata.virksomhet.v1 --by-duration P1D
    ryggrad offsets reset --group journal --topic grunndata.virksomhet.v1 --by-duration P1D --execute

  Keep where a group is, and put it back later:
    ryggrad offsets reset --group journal --all-topics --to-current --export > journal.csv
    ryggrad offsets reset --group journal --from-file journal.csv --execute

  The same of a subscription, which only goes back; it may run meanwhile:
    ryggrad offsets show --subscription ID
    ryggrad offsets reset --subscription ID --all-topics --by-duration P1D --execute

  Options and CSV (topic,partition,offset) are those of kafka-consumer-groups.sh --reset-offsets.

EXIT CODES
  0 done, or a dry run   1 failed   2 wrong command line
  3 no such group or topic, or somebody reads in it   4 Kafka not reached";

/// Its command line.
pub type Args = Frame<Command, KafkaAndBridgeOptions>;

/// What can be done with offsets.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows what a group has committed, how much is left, and who reads.
    Show(ShowArgs),
    /// Sets what a group has committed. A dry run unless --execute is given.
    Reset(Box<ResetArgs>),
}

/// Which group.
#[derive(Debug, ClapArgs)]
pub struct GroupOption {
    /// The consumer group.
    #[arg(long, value_name = "NAME", required_unless_present = "subscription", conflicts_with = "subscription")]
    group: Option<String>,
    /// The subscription; the bridge is asked, not Kafka.
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
}

/// Options of `show`.
#[derive(Debug, ClapArgs)]
pub struct ShowArgs {
    #[command(flatten)]
    group: GroupOption,
    /// Only this topic; may be repeated.
    #[arg(long = "topic", value_name = "TOPIC")]
    topics: Vec<String>,
}

/// Options of `reset`.
#[derive(Debug, ClapArgs)]
#[command(group = ArgGroup::new("target").required(true).multiple(false))]
#[command(group = ArgGroup::new("scope").required(true).multiple(false))]
pub struct ResetArgs {
    #[command(flatten)]
    group: GroupOption,
    /// This topic, or some of its partitions (TOPIC:0,1); may be repeated.
    #[arg(long = "topic", value_name = "TOPIC", group = "scope", value_parser = target::scope)]
    topics: Vec<(String, Option<Vec<i32>>)>,
    /// Every topic in which the group has committed something.
    #[arg(long, group = "scope")]
    all_topics: bool,
    /// To the oldest record that is still there.
    #[arg(long, group = "target")]
    to_earliest: bool,
    /// After the newest record.
    #[arg(long, group = "target")]
    to_latest: bool,
    /// To where it is, for --export.
    #[arg(long, group = "target")]
    to_current: bool,
    /// To this offset.
    #[arg(long, group = "target", value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// To the first record appended at this time or later, e.g. 2026-01-31T12:00:00.000 (UTC).
    #[arg(long, group = "target", value_name = "TIME", value_parser = target::datetime_ms)]
    to_datetime: Option<i64>,
    /// To the first record appended this long ago or later, e.g. P1DT2H or 26h.
    #[arg(long, group = "target", value_name = "DURATION", value_parser = duration)]
    by_duration: Option<i64>,
    /// So many offsets on, or back if negative.
    #[arg(long, group = "target", value_name = "NUMBER", allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// To what a file says: lines of topic,partition,offset.
    #[arg(long, groups = ["target", "scope"], value_name = "FILE")]
    from_file: Option<PathBuf>,
    /// Set them for real.
    #[arg(long, conflicts_with = "dry_run")]
    execute: bool,
    /// Only show what would be set, which is what happens anyway.
    #[arg(long)]
    dry_run: bool,
    /// Print the new offsets as topic,partition,offset.
    #[arg(long)]
    export: bool,
}

fn duration(text: &str) -> Result<i64, String> {
    duration_ms(text).map_err(|error| error.to_string())
}

fn refused(what: String, remedy: &str) -> Stop {
    Stop { code: Code::Refused, what, remedy: Some(remedy.to_owned()) }
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let mut output = Output::stdout();
    let of = match &args.command {
        Command::Show(show) => &show.group,
        Command::Reset(reset) => &reset.group,
    };
    if let Some(id) = of.subscription.clone() {
        let bridge = args.options.connect()?;
        match args.command {
            Command::Show(show) => subscription::show(&bridge, &id, &show.topics, &mut output, args.format.format).await?,
            Command::Reset(reset) => subscription::reset(&bridge, &id, &reset, &mut output, args.format.format).await?,
        }
        output.flush()?;
        return Ok(Code::Ok);
    }
    let connection = args.options.connection()?;
    match args.command {
        Command::Show(show) => self::show(&connection, &show, &mut output, args.format.format).await?,
        Command::Reset(reset) => self::reset(&connection, &reset, &mut output, args.format.format).await?,
    }
    output.flush()?;
    Ok(Code::Ok)
}

impl GroupOption {
    fn name(&self) -> Result<&str, Stop> {
        self.group.as_deref().filter(|name| !name.is_empty()).ok_or_else(|| Stop::usage("no group is named", "use --group"))
    }
}

/// Every partition of these topics; of all topics if none is named.
async fn partitions(connection: &Connection, wanted: &[String]) -> anyhow::Result<Vec<Place>> {
    let counts: HashMap<String, usize> = topics::list(connection).await?;
    if let Some(missing) = wanted.iter().find(|topic| !counts.contains_key(*topic)) {
        return Err(
            refused(format!("the topic {missing} does not exist at this broker"), "ryggrad topics list shows the catalogue's").into()
        );
    }
    let chosen = counts.iter().filter(|(name, _)| wanted.is_empty() || wanted.contains(name));
    let places =
        chosen.flat_map(|(name, count)| (0..i32::try_from(*count).unwrap_or(i32::MAX)).map(move |partition| (name.clone(), partition)));
    let mut places: Vec<Place> = places.collect();
    places.sort();
    Ok(places)
}

/// Where these partitions begin and end.
async fn marks_of(connection: &Connection, places: &[Place]) -> anyhow::Result<BTreeMap<Place, Watermarks>> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    places.iter().for_each(|(topic, partition)| by_topic.entry(topic).or_default().push(*partition));
    let mut marks = BTreeMap::new();
    for (topic, partitions) in by_topic {
        let found = watermarks_of(connection, topic, &partitions, ASK_TIMEOUT_MS).await?;
        marks.extend(found.into_iter().map(|(partition, found)| ((topic.to_owned(), partition), found)));
    }
    Ok(marks)
}

/// One line of `show`.
struct Row<'a> {
    place: Place,
    committed: Option<i64>,
    end: i64,
    member: Option<&'a Member>,
}

async fn show(connection: &Connection, args: &ShowArgs, output: &mut Output, format: Format) -> anyhow::Result<()> {
    let name = args.group.name()?;
    let group = groups::describe(connection, name, ASK_TIMEOUT_MS).await?;
    let places = partitions(connection, &args.topics).await?;
    let committed = groups::committed(connection, name, &places, ASK_TIMEOUT_MS).await?;
    if group.is_none() && committed.is_empty() {
        let remedy = "it may have committed nothing yet, or so long ago that Kafka has forgotten it";
        return Err(refused(format!("there is no group {name}"), remedy).into());
    }
    let reader = |place: &Place| group.iter().flat_map(|group| &group.members).find(|member| member.assignment.contains(place));
    let shown: Vec<Place> = places
        .into_iter()
        .filter(|place| reader(place).is_some() || committed.iter().any(|found| (&found.topic, found.partition) == (&place.0, place.1)))
        .collect();
    let marks = marks_of(connection, &shown).await?;
    let row = |place: &Place| Row {
        place: place.clone(),
        committed: committed_at(&committed, place),
        end: marks.get(place).map_or(0, |marks| marks.high),
        member: reader(place),
    };
    let rows: Vec<Row<'_>> = shown.iter().map(row).collect();
    let (state, members) = group.as_ref().map_or(("Empty", 0), |group: &Group| (group.state.as_str(), group.members.len()));
    match format {
        Format::Ndjson => rows.iter().try_for_each(|row| output.object(&row.to_json(name, state)))?,
        Format::Table => {
            let header = ["TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID", "HOST", "CLIENT-ID"];
            output.table(&header, rows.iter().map(Row::cells))?;
        }
    }
    note(format!("group {name}: {state}, members {members}"));
    Ok(())
}

fn committed_at(committed: &[Committed], place: &Place) -> Option<i64> {
    committed.iter().find(|found| (&found.topic, found.partition) == (&place.0, place.1)).map(|found| found.offset)
}

impl Row<'_> {
    fn lag(&self) -> Option<i64> {
        self.committed.map(|committed| self.end.saturating_sub(committed).max(0))
    }

    fn cells(&self) -> Vec<String> {
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let of = |text: fn(&Member) -> &str| self.member.map_or("-", text).to_owned();
        let (topic, partition) = &self.place;
        let numbers = [number(self.committed), self.end.to_string(), number(self.lag())];
        let member = [of(|member| &member.id), of(|member| &member.host), of(|member| &member.client_id)];
        [topic.clone(), partition.to_string()].into_iter().chain(numbers).chain(member).collect()
    }

    fn to_json(&self, group: &str, state: &str) -> Value {
        json!({
            "group": group, "state": state, "topic": self.place.0, "partition": self.place.1,
            "current_offset": self.committed, "log_end_offset": self.end, "lag": self.lag(),
            "consumer_id": self.member.map(|member| &member.id),
            "host": self.member.map(|member| &member.host),
            "client_id": self.member.map(|member| &member.client_id),
        })
    }
}

async fn reset(connection: &Connection, args: &ResetArgs, output: &mut Output, format: Format) -> anyhow::Result<()> {
    let name = args.group.name()?;
    let target = target(args)?;
    if let Some(group) = groups::describe(connection, name, ASK_TIMEOUT_MS).await?.filter(Group::is_active) {
        let what = format!("the group {name} is active ({}, members {})", group.state, group.members.len());
        return Err(refused(what, "stop its consumers first; their offsets would be overwritten by the next commit").into());
    }
    let places = scope(connection, args, name, &target).await?;
    let committed = groups::committed(connection, name, &places, ASK_TIMEOUT_MS).await?;
    let marks = marks_of(connection, &places).await?;
    let moments = moments(connection, &target, &places).await?;
    let mut changes: Vec<(Place, Set)> = Vec::with_capacity(places.len());
    for place in places {
        let Some(marks) = marks.get(&place).copied() else { continue };
        let known = Known { marks, committed: committed_at(&committed, &place), at_moment: moments.get(&place).copied() };
        let set = target::new_offset(&target, &place, known).map_err(|what| refused(what, "name partitions, or use another target"))?;
        if let Some(meant) = set.meant {
            note(format!("{}/{}: {meant} lies outside the log; {} is the nearest", place.0, place.1, set.offset));
        }
        changes.push((place, set));
    }
    print(&changes, name, args.export, format, output)?;
    if !args.execute {
        note("Nothing was set. --execute sets these offsets.");
        return Ok(());
    }
    let positions: Vec<_> = changes.into_iter().map(|((topic, partition), set)| (topic, partition, set.offset)).collect();
    groups::set(connection, name, &positions, ASK_TIMEOUT_MS).await?;
    note(format!("group {name}: partitions set {}", positions.len()));
    Ok(())
}

fn target(args: &ResetArgs) -> anyhow::Result<Target> {
    if let Some(path) = &args.from_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let listed =
            target::read_csv(&text).map_err(|what| Stop::usage(format!("{}: {what}", path.display()), "use what --export prints"))?;
        return Ok(Target::Listed(listed));
    }
    let flags = [(args.to_earliest, Target::Earliest), (args.to_latest, Target::Latest), (args.to_current, Target::Current)];
    let flag = flags.into_iter().find_map(|(is_given, target)| is_given.then_some(target));
    let found = flag
        .or(args.to_offset.map(Target::Offset))
        .or(args.to_datetime.map(Target::Time))
        .or(args.by_duration.map(|ago_ms| Target::Time(now_ms().saturating_sub(ago_ms))))
        .or(args.shift_by.map(Target::Shift));
    Ok(found.ok_or_else(|| Stop::usage("no target is named", "use --to-earliest, --to-datetime or another of them"))?)
}

/// The partitions that are set.
async fn scope(connection: &Connection, args: &ResetArgs, group: &str, target: &Target) -> anyhow::Result<Vec<Place>> {
    if let Target::Listed(listed) = target {
        let mut wanted: Vec<String> = listed.keys().map(|(topic, _)| topic.clone()).collect();
        wanted.dedup();
        let there = partitions(connection, &wanted).await?;
        return all_there(listed.keys().cloned().collect(), &there);
    }
    if args.all_topics {
        let all = partitions(connection, &[]).await?;
        let committed = groups::committed(connection, group, &all, ASK_TIMEOUT_MS).await?;
        anyhow::ensure!(!committed.is_empty(), refused(format!("the group {group} has committed nothing"), "name topics with --topic"));
        let mut touched: Vec<String> = committed.into_iter().map(|found| found.topic).collect();
        touched.sort();
        touched.dedup();
        return partitions(connection, &touched).await;
    }
    let wanted: Vec<String> = args.topics.iter().map(|(topic, _)| topic.clone()).collect();
    let there = partitions(connection, &wanted).await?;
    let mut chosen = Vec::new();
    for (topic, named) in &args.topics {
        match named {
            Some(named) => chosen.extend(named.iter().map(|partition| (topic.clone(), *partition))),
            None => chosen.extend(there.iter().filter(|(found, _)| found == topic).cloned()),
        }
    }
    chosen.sort();
    chosen.dedup();
    all_there(chosen, &there)
}

fn all_there(wanted: Vec<Place>, there: &[Place]) -> anyhow::Result<Vec<Place>> {
    match wanted.iter().find(|place| !there.contains(place)) {
        Some((topic, partition)) => Err(refused(format!("{topic} has no partition {partition}"), "partitions are counted from 0").into()),
        None => Ok(wanted),
    }
}

async fn moments(connection: &Connection, target: &Target, places: &[Place]) -> anyhow::Result<BTreeMap<Place, i64>> {
    let Target::Time(at_ms) = target else { return Ok(BTreeMap::new()) };
    let mut counts: BTreeMap<&str, i32> = BTreeMap::new();
    for (topic, partition) in places {
        let count = counts.entry(topic).or_default();
        *count = (*count).max(partition + 1);
    }
    let mut found = BTreeMap::new();
    for (topic, count) in counts {
        let offsets = offsets_of(connection, topic, count, Moment::Time(*at_ms), ASK_TIMEOUT_MS).await?;
        found.extend((0..).zip(offsets).map(|(partition, offset)| ((topic.to_owned(), partition), offset)));
    }
    Ok(found)
}

fn print(changes: &[(Place, Set)], group: &str, export: bool, format: Format, output: &mut Output) -> anyhow::Result<()> {
    if export {
        for ((topic, partition), set) in changes {
            output.line(&format!("{topic},{partition},{}", set.offset))?;
        }
        return Ok(());
    }
    match format {
        Format::Ndjson => changes.iter().try_for_each(|((topic, partition), set)| {
            output.object(&json!({ "group": group, "topic": topic, "partition": partition, "new_offset": set.offset }))
        })?,
        Format::Table => {
            let row = |((topic, partition), set): &(Place, Set)| {
                vec![group.to_owned(), topic.clone(), partition.to_string(), set.offset.to_string()]
            };
            output.table(&["GROUP", "TOPIC", "PARTITION", "NEW-OFFSET"], changes.iter().map(row))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::Page;

    #[test]
    fn rows_show_lag_and_reader() {
        let member = Member { id: "m-1".to_owned(), client_id: "c".to_owned(), host: "/10.0.0.1".to_owned(), assignment: Vec::new() };
        let row = |committed, member| Row { place: ("t".to_owned(), 2), committed, end: 100, member };
        assert_eq!(row(Some(60), Some(&member)).cells(), ["t", "2", "60", "100", "40", "m-1", "/10.0.0.1", "c"]);
        assert_eq!(row(None, None).cells(), ["t", "2", "-", "100", "-", "-", "-", "-"]);
        let shown = row(Some(60), None).to_json("g", "Empty");
        assert_eq!((&shown["lag"], &shown["state"], &shown["consumer_id"]), (&json!(40), &json!("Empty"), &Value::Null));
    }

    #[test]
    fn what_is_exported_can_be_read_back() {
        let changes = [(("t".to_owned(), 0), Set { offset: 5, meant: None }), (("u".to_owned(), 3), Set { offset: 7, meant: Some(9) })];
        let page = Page::default();
        print(&changes, "g", true, Format::Table, &mut Output::to(page.clone())).unwrap();
        assert_eq!(page.text(), "t,0,5\nu,3,7\n");
        assert_eq!(target::read_csv(&page.text()).unwrap().len(), 2);
        let page = Page::default();
        print(&changes[..1], "g", false, Format::Table, &mut Output::to(page.clone())).unwrap();
        assert_eq!(page.text(), "GROUP  TOPIC  PARTITION  NEW-OFFSET\ng      t      0          5\n");
    }
}
