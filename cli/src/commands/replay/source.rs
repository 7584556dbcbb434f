//! What the broker says about the topic that is replayed: extent, moments, groups, removals.

use std::collections::BTreeMap;

use ryggrad_bridge_core::removal::Removals;
use ryggrad_log::{Connection, Moment, Stretch, Watermarks, groups, offsets_of, read_to_end, topics};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::topics::REMOVED;

use super::checkpoint::Reached;
use super::range::{self, Answers, Bound};
use super::{ASK_TIMEOUT_MS, Code, Stop};
use crate::client::now_ms;

/// Removals that are kept in memory at most.
const REMOVALS_MAX: usize = 5_000_000;
const REMOVALS_TIMEOUT_MS: u64 = 120_000;

/// A topic as it is now.
pub struct Found {
    /// Kafka's id of the cluster.
    pub cluster: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// Of the partitions asked for.
    pub marks: Vec<(i32, Watermarks)>,
}

fn refused(what: String, remedy: &str) -> Stop {
    Stop { code: Code::Refused, what, remedy: Some(remedy.to_owned()) }
}

/// Looks at a topic; no partition named means all.
pub async fn find(connection: &Connection, topic: &str, asked: &[i32]) -> anyhow::Result<Found> {
    let Some(extent) = ryggrad_log::extent(connection, topic, ASK_TIMEOUT_MS).await? else {
        let what = format!("the topic {topic} does not exist at this broker");
        return Err(refused(what, "ryggrad topics list shows the catalogue's").into());
    };
    let partitions = i32::try_from(extent.marks.len())?;
    if let Some(unknown) = asked.iter().find(|asked| !(0..partitions).contains(*asked)) {
        let what = format!("{topic} has {partitions} partitions, counted from 0; there is no {unknown}");
        return Err(refused(what, "ryggrad topics list --partitions shows what there is").into());
    }
    let marks = (0..).zip(extent.marks).filter(|(partition, _)| asked.is_empty() || asked.contains(partition)).collect();
    Ok(Found { cluster: extent.cluster, partitions, marks })
}

/// What a range means in this topic.
pub async fn stretches(connection: &Connection, topic: &str, found: &Found, from: &Bound, to: &Bound) -> anyhow::Result<Vec<Stretch>> {
    let now_ms = now_ms();
    let (first, end) = (answers(connection, topic, found, from, now_ms).await?, answers(connection, topic, found, to, now_ms).await?);
    Ok(range::stretches(&found.marks, (from, &first), (to, &end)))
}

async fn answers(connection: &Connection, topic: &str, found: &Found, bound: &Bound, now_ms: i64) -> anyhow::Result<Answers> {
    match bound {
        Bound::Point(point) => {
            let Some(at_ms) = point.time_ms(now_ms) else { return Ok(Answers::default()) };
            let offsets = offsets_of(connection, topic, found.partitions, Moment::Time(at_ms), ASK_TIMEOUT_MS).await?;
            Ok(Answers { moment: (0..).zip(offsets).collect(), ..Answers::default() })
        }
        Bound::Offsets(offsets) => match offsets.keys().find(|partition| **partition >= found.partitions) {
            Some(unknown) => Err(refused(format!("{topic} has no partition {unknown}"), "partitions are counted from 0").into()),
            None => Ok(Answers::default()),
        },
        Bound::Group(group) => {
            let asked: Vec<_> = found.marks.iter().map(|(partition, _)| (topic.to_owned(), *partition)).collect();
            let committed = groups::committed(connection, group, &asked, ASK_TIMEOUT_MS).await?;
            if committed.is_empty() {
                let what = format!("the group {group} has committed nothing in {topic}");
                return Err(refused(what, "ryggrad offsets show --group shows where a group is").into());
            }
            let committed: BTreeMap<_, _> = committed.into_iter().map(|found| (found.partition, found.offset)).collect();
            Ok(Answers { committed, ..Answers::default() })
        }
    }
}

/// Refuses to go on where the log has been cut in the meantime.
pub fn still_there(found: &Found, reached: &[Reached]) -> Result<(), Stop> {
    for reached in reached.iter().filter(|reached| reached.next < reached.to) {
        let marks = found.marks.iter().find(|(partition, _)| *partition == reached.partition).map(|(_, marks)| *marks);
        let Some(Watermarks { low, high }) = marks else { continue };
        if reached.next < low || reached.to > high {
            let what = format!(
                "partition {} begins at {low} and ends at {high} now, but the replay goes from {} to {}",
                reached.partition, reached.next, reached.to
            );
            return Err(refused(what, "records were deleted since it began; begin anew"));
        }
    }
    Ok(())
}

/// The keys that were removed from a topic of the catalogue; none for other topics.
pub async fn removals(connection: &Connection, topic: &str) -> anyhow::Result<Option<(u16, Removals)>> {
    let catalogue = Catalogue::built_in();
    let Some(number) = catalogue.topic(topic).map(|topic| topic.id) else { return Ok(None) };
    if !topics::list(connection).await?.contains_key(REMOVED) {
        return Ok(None);
    }
    let mut removals = Removals::default();
    for record in read_to_end(connection, REMOVED, 0, REMOVALS_MAX, REMOVALS_TIMEOUT_MS).await? {
        removals.take(&record, |name| catalogue.topic(name).map(|topic| topic.id));
    }
    Ok((!removals.is_empty()).then_some((number, removals)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_that_was_cut_is_told() {
        let marks = vec![(0, Watermarks { low: 10, high: 20 })];
        let found = Found { cluster: String::new(), partitions: 1, marks };
        for (next, to, expected) in [(10, 20, true), (9, 20, false), (12, 21, false), (5, 5, true)] {
            assert_eq!(still_there(&found, &[Reached { partition: 0, next, to }]).is_ok(), expected, "{next} {to}");
        }
    }
}
