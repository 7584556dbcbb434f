//! `ryggrad subscriptions rewind`: everything from a point on once more, in order.
//!
//! Must never move a cursor without `--execute`.

use clap::Args as ClapArgs;
use ryggrad_consumers::Point;
use serde_json::{Value, json};

use super::{rows, table};
use crate::client::{Bridge, now_ms, rfc3339};
use crate::exit::Stop;
use crate::output::{Format, Output, note};

/// What `rewind` is given.
#[derive(Debug, ClapArgs)]
pub struct RewindArgs {
    /// The subscription's id, as `list` shows it.
    id: String,
    /// To where: beginning, a time, or how long ago (2h, 1d).
    #[arg(long, value_name = "POINT", required_unless_present = "offsets")]
    to: Option<String>,
    /// To this offset in this partition alone; may be repeated.
    #[arg(long = "offset", value_name = "TOPIC:PARTITION:OFFSET", value_parser = super::letter, conflicts_with = "to")]
    offsets: Vec<Value>,
    /// Do it.
    #[arg(long)]
    execute: bool,
}

impl RewindArgs {
    /// Where to, as the bridge wants it.
    fn point(&self) -> Result<Value, Stop> {
        let Some(text) = &self.to else { return Ok(json!(self.offsets)) };
        let usage = || Stop::usage(format!("{text:?} is no place to go back to"), "use beginning, a time or how long ago; or --offset");
        let point: Point = text.parse().map_err(|_| usage())?;
        match point {
            Point::Beginning => Ok(json!("beginning")),
            point => point.time_ms(now_ms()).map(|at_ms| json!(rfc3339(at_ms))).ok_or_else(usage),
        }
    }
}

/// Runs it.
pub async fn run(bridge: &Bridge, output: &mut Output, format: Format, args: RewindArgs) -> anyhow::Result<()> {
    let path = ["v1", "subscriptions", &args.id, "rewind"];
    let body = json!({"to": args.point()?, "preview": !args.execute});
    let answer = bridge.post(&path, Some(&body)).await?;
    show_stretches(output, format, &answer)?;
    note(if args.execute {
        "The subscription has gone back; what is delivered again has new webhook-ids."
    } else {
        "Nothing was changed. --execute goes back."
    });
    Ok(())
}

/// Partitions of a preview or an answer, with a sum where events were counted.
pub fn show_stretches(output: &mut Output, format: Format, answer: &Value) -> anyhow::Result<()> {
    const MEMBERS: [&str; 6] = ["topic", "partition", "from", "to", "records_max", "matching"];
    if format == Format::Ndjson {
        return rows(output, format, &answer["partitions"], &MEMBERS, "");
    }
    let partitions = answer["partitions"].as_array().map(Vec::as_slice).unwrap_or_default();
    table(output, partitions, &MEMBERS[..if answer["preview"] == true { 6 } else { 5 }])?;
    if answer["preview"] == true {
        let matching: u64 = partitions.iter().filter_map(|partition| partition["matching"].as_u64()).sum();
        let at_least = if answer["counted_to_the_end"] == true { "" } else { "at least " };
        note(format!("Events that would be delivered: {at_least}{matching}"));
    }
    Ok(())
}
