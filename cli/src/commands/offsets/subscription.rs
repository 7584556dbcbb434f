//! The same for subscriptions: their offsets are the bridge's, which is asked, and a reset is a rewind.
//!
//! Must never skip: where a target lies ahead of the cursor, that is refused.

use ryggrad_log::Watermarks;
use serde_json::{Value, json};

use super::target::{self, Known, Place, Set, Target};
use super::{ResetArgs, print, refused};
use crate::client::{Bridge, rfc3339};
use crate::exit::Stop;
use crate::output::{Format, Output, note};

/// A partition as the bridge tells of it.
struct Row {
    place: Place,
    position: i64,
    marks: Watermarks,
    /// Where going back to the target's moment would begin.
    at_moment: i64,
}

/// Every partition of a subscription, and what a point in the log means there.
async fn rows(bridge: &Bridge, id: &str, point: &Value) -> anyhow::Result<Vec<Row>> {
    let body = json!({"to": point, "preview": true, "count": false});
    let answer = bridge.post(&["v1", "subscriptions", id, "rewind"], Some(&body)).await?;
    let number = |partition: &Value, name: &str| partition[name].as_i64().unwrap_or_default();
    let row = |partition: &Value| Row {
        place: (
            partition["topic"].as_str().unwrap_or_default().to_owned(),
            i32::try_from(number(partition, "partition")).unwrap_or_default(),
        ),
        position: number(partition, "position"),
        marks: Watermarks { low: number(partition, "log_start"), high: number(partition, "log_end") },
        at_moment: number(partition, "from"),
    };
    Ok(answer["partitions"].as_array().into_iter().flatten().map(row).collect())
}

/// Where a subscription is.
pub async fn show(bridge: &Bridge, id: &str, topics: &[String], output: &mut Output, format: Format) -> anyhow::Result<()> {
    let rows = rows(bridge, id, &json!("beginning")).await?;
    let mut shown = rows.iter().filter(|row| topics.is_empty() || topics.contains(&row.place.0));
    let lag = |row: &Row| row.marks.high.saturating_sub(row.position).max(0);
    match format {
        Format::Ndjson => shown.try_for_each(|row| {
            output.object(&json!({
                "subscription": id, "topic": row.place.0, "partition": row.place.1, "current_offset": row.position,
                "log_end_offset": row.marks.high, "lag": lag(row),
            }))
        })?,
        Format::Table => {
            let cells = |row: &Row| {
                let numbers = [row.position, row.marks.high, lag(row)].map(|number| number.to_string());
                [row.place.0.clone(), row.place.1.to_string()].into_iter().chain(numbers).collect()
            };
            output.table(&["TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG"], shown.map(cells))?;
        }
    }
    Ok(())
}

/// Takes a subscription back.
pub async fn reset(bridge: &Bridge, id: &str, args: &ResetArgs, output: &mut Output, format: Format) -> anyhow::Result<()> {
    let target = super::target(args)?;
    let point = if let Target::Time(at_ms) = target { json!(rfc3339(at_ms)) } else { json!("beginning") };
    let mut changes: Vec<(Place, Set)> = Vec::new();
    for row in rows(bridge, id, &point).await?.into_iter().filter(|row| is_meant(args, &target, &row.place)) {
        let known = Known { marks: row.marks, committed: Some(row.position), at_moment: Some(row.at_moment) };
        let set = target::new_offset(&target, &row.place, known).map_err(|what| refused(what, "name partitions, or use another target"))?;
        let (topic, partition) = &row.place;
        if set.offset > row.position {
            let what = format!("{topic}/{partition}: {} lies ahead of the subscription, which is at {}", set.offset, row.position);
            return Err(refused(what, "a subscription only goes back; to skip, make another one that starts where you want").into());
        }
        if let Some(meant) = set.meant {
            note(format!("{topic}/{partition}: {meant} lies outside the log; {} is the nearest", set.offset));
        }
        changes.push((row.place, set));
    }
    if changes.is_empty() {
        return Err(
            Stop::usage("the subscription reads none of these partitions", "ryggrad offsets show --subscription tells which").into()
        );
    }
    print(&changes, id, args.export, format, output)?;
    if !args.execute {
        note("Nothing was set. --execute sets these offsets.");
        return Ok(());
    }
    let offsets = changes.iter().map(|((topic, partition), set)| json!({"topic": topic, "partition": partition, "offset": set.offset}));
    bridge.post(&["v1", "subscriptions", id, "rewind"], Some(&json!({"to": offsets.collect::<Vec<_>>()}))).await?;
    note(format!("subscription {id}: partitions set {}", changes.len()));
    Ok(())
}

fn is_meant(args: &ResetArgs, target: &Target, place: &Place) -> bool {
    if let Target::Listed(listed) = target {
        return listed.contains_key(place);
    }
    // Of a topic that is named twice, the last word counts.
    let named = args.topics.iter().rfind(|(topic, _)| *topic == place.0);
    args.all_topics || named.is_some_and(|(_, some)| some.as_ref().is_none_or(|some| some.contains(&place.1)))
}
