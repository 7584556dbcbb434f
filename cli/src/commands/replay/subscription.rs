//! To a subscription: the bridge reads, selects and delivers; this asks for it and looks on.
//!
//! Must never begin anything without `--execute`, nor end it because nobody looks on any more.

use std::time::Duration;

use ryggrad_consumers::Point;
use ryggrad_log::Stretch;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::range::Bound;
use super::{Args, bound};
use crate::client::{Bridge, now_ms, rfc3339};
use crate::commands::subscriptions::show_stretches;
use crate::exit::{Code, Stop};
use crate::output::{Format, Output, note};

/// How often the bridge is asked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What has no meaning here.
pub fn check_usage(args: &Args) -> Result<(), Stop> {
    let given = [
        (args.limit.is_some(), "--limit"),
        (args.resume, "--resume"),
        (!args.partitions.is_empty(), "--partition"),
        (args.again || args.repartition, "--again or --repartition"),
    ];
    match given.iter().find(|(is_given, _)| *is_given) {
        Some((_, name)) => {
            Err(Stop::usage(format!("{name} is not for replays to a subscription"), "leave it out; --from 0:1200,3:17 names partitions"))
        }
        None => Ok(()),
    }
}

/// Asks, and follows it to its end.
pub async fn run(bridge: &Bridge, args: &Args, id: &str, stop: CancellationToken) -> anyhow::Result<Code> {
    let path = ["v1", "subscriptions", id, "replays"];
    let mut body = request(args)?;
    if !args.execute {
        body["preview"] = json!(true);
        let mut output = Output::stdout();
        show_stretches(&mut output, Format::Table, &bridge.post(&path, Some(&body)).await?)?;
        output.flush()?;
        note("Nothing was delivered. --execute begins the replay.");
        return Ok(Code::Ok);
    }
    let begun = bridge.make(&path, &body).await?;
    let replay = begun["id"].as_str().unwrap_or_default().to_owned();
    note(format!("· replay {replay} to subscription {id}"));
    follow(bridge, id, &replay, &begun, &stop).await
}

async fn follow(bridge: &Bridge, id: &str, replay: &str, begun: &Value, stop: &CancellationToken) -> anyhow::Result<Code> {
    let number = |partition: &Value, name: &str| partition[name].as_i64().unwrap_or_default();
    // Partitions of several topics are counted by their place in the list.
    let parts = |answer: &Value| (0..).zip(answer["partitions"].as_array().cloned().unwrap_or_default()).collect::<Vec<(i32, Value)>>();
    let stretch = |(index, part): &(i32, Value)| Stretch { partition: *index, from: number(part, "from"), to: number(part, "to") };
    let mut progress = Progress::start(&parts(begun).iter().map(stretch).collect::<Vec<_>>());
    loop {
        let shown = bridge.get(&["v1", "subscriptions", id, "replays", replay]).await?;
        parts(&shown).iter().for_each(|(index, part)| progress.reach(*index, number(part, "position")));
        if shown["state"] != "running" {
            drop(progress);
            note(format!(
                "replay {}: matched {}, delivered {}, set aside {}",
                shown["state"].as_str().unwrap_or_default(),
                shown["matched"],
                shown["delivered"],
                shown["set_aside"]
            ));
            return Ok(if shown["state"] == "finished" { Code::Ok } else { Code::Failure });
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = stop.cancelled() => {
                drop(progress);
                note("It goes on without being looked at.");
                note(format!("To look again: ryggrad subscriptions replays {id}. To end it: ryggrad subscriptions cancel-replay {id} {replay}"));
                return Ok(Code::Ok);
            }
        }
    }
}

/// The request, as the bridge wants it.
fn request(args: &Args) -> Result<Value, Stop> {
    let mut body = json!({"from": point(&args.topic, &args.from)?});
    if !args.to.starts_with("subscription:") && args.to != "end" {
        body["to"] = point(&args.topic, &args.to)?;
    }
    if !args.types.is_empty() {
        body["types"] = json!(args.types);
    }
    if let Some(rate) = args.rate {
        body["events_per_minute_max"] = json!(u64::from(rate) * 60);
    }
    let mut filters = Vec::new();
    if !args.keys.is_empty() {
        filters.push(json!({"any": args.keys.iter().map(|pattern| fits("subject", pattern)).collect::<Vec<_>>()}));
    }
    for (name, pattern) in &args.headers {
        let Some(attribute) = name.strip_prefix("ce_") else {
            return Err(Stop::usage(
                format!("the header {name} is no attribute of the event"),
                "only ce_NAME can be selected for a subscription",
            ));
        };
        filters.push(fits(attribute, pattern));
    }
    filters.extend(args.sql.iter().map(|sql| json!({"sql": sql.text()})));
    if !filters.is_empty() {
        body["filters"] = json!(filters);
    }
    Ok(body)
}

/// A pattern with `*` and `?` as a filter.
fn fits(attribute: &str, pattern: &str) -> Value {
    if !pattern.contains(['*', '?']) {
        return json!({"exact": {attribute: pattern}});
    }
    let mut like = String::new();
    for character in pattern.chars() {
        match character {
            '*' => like.push('%'),
            '?' => like.push('_'),
            '%' | '_' | '\'' => like.extend(['\\', character]),
            other => like.push(other),
        }
    }
    json!({"sql": format!("EXISTS {attribute} AND {attribute} LIKE '{like}'")})
}

fn point(topic: &str, text: &str) -> Result<Value, Stop> {
    let usage = |what: String| Stop::usage(what, "use beginning, a time, how long ago, or offsets by partition (0:1200,3:17)");
    match bound(text)? {
        Bound::Point(Point::Beginning) => Ok(json!("beginning")),
        Bound::Point(point) => {
            let at_ms = point.time_ms(now_ms()).ok_or_else(|| usage(format!("{text:?} names no partitions")))?;
            Ok(json!(rfc3339(at_ms)))
        }
        Bound::Offsets(offsets) => {
            let one = |(partition, offset): (i32, i64)| json!({"topic": topic, "partition": partition, "offset": offset});
            Ok(offsets.into_iter().map(one).collect())
        }
        Bound::Group(_) => Err(usage("a group's offsets mean nothing to a subscription".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_and_places_become_what_the_bridge_knows() {
        assert_eq!(fits("subject", "312"), json!({"exact": {"subject": "312"}}));
        assert_eq!(fits("subject", "3*?_'"), json!({"sql": "EXISTS subject AND subject LIKE '3%_\\_\\''"}));
        assert_eq!(point("t", "beginning").unwrap(), json!("beginning"));
        assert_eq!(point("t", "0:5,3:7").unwrap()[1], json!({"topic": "t", "partition": 3, "offset": 7}));
        assert_eq!(point("t", "1970-01-02").unwrap(), json!("1970-01-02T00:00:00.000Z"));
        assert!(point("t", "17").is_err() && point("t", "group:g").is_err() && point("t", "end").is_err());
    }
}
