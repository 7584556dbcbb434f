//! Where a group's offsets are set to, in the words of Kafka's own tools. Pure.
//!
//! Must never set an offset outside the log: it is moved to the nearest end, and that is told.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use ryggrad_log::Watermarks;

/// A place that is known without asking how the log lies.
pub type Place = (String, i32);

/// Where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The oldest record that is still there.
    Earliest,
    /// After the newest.
    Latest,
    /// Where it is.
    Current,
    /// This offset.
    Offset(i64),
    /// So many records on, or back.
    Shift(i64),
    /// The first record appended at this moment or later, milliseconds since 1970.
    Time(i64),
    /// One for each place.
    Listed(BTreeMap<Place, i64>),
}

/// What is known of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Where its log begins and ends.
    pub marks: Watermarks,
    /// What the group has committed.
    pub committed: Option<i64>,
    /// The offset of the target's moment.
    pub at_moment: Option<i64>,
}

/// A new offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// The offset.
    pub offset: i64,
    /// What was meant, if that lies outside the log.
    pub meant: Option<i64>,
}

/// The new offset of a partition; a sentence if there is none.
pub fn new_offset(target: &Target, place: &Place, known: Known) -> Result<Set, String> {
    let Known { marks, committed, at_moment } = known;
    let meant = match target {
        Target::Earliest => marks.low,
        Target::Latest => marks.high,
        // As Kafka's tool has it: where nothing is committed, the end is current.
        Target::Current => committed.unwrap_or(marks.high),
        Target::Offset(offset) => *offset,
        Target::Shift(by) => match committed {
            Some(committed) => committed.saturating_add(*by),
            None => return Err(format!("{}/{} has no offset of this group that could be shifted", place.0, place.1)),
        },
        Target::Time(_) => at_moment.unwrap_or(marks.high),
        Target::Listed(listed) => match listed.get(place) {
            Some(offset) => *offset,
            None => return Err(format!("the list has no line for {}/{}", place.0, place.1)),
        },
    };
    let offset = meant.clamp(marks.low, marks.high.max(marks.low));
    Ok(Set { offset, meant: (offset != meant).then_some(meant) })
}

/// Reads `TOPIC` or `TOPIC:0,1`.
pub fn scope(text: &str) -> Result<(String, Option<Vec<i32>>), String> {
    let usage = || "use TOPIC or TOPIC:0,1".to_owned();
    let (topic, partitions) = match text.split_once(':') {
        None => (text, None),
        Some((topic, list)) => {
            let parsed = list.split(',').map(|one| one.trim().parse::<u16>().map(i32::from)).collect::<Result<Vec<_>, _>>();
            (topic, Some(parsed.map_err(|_| usage())?))
        }
    };
    if topic.is_empty() { Err(usage()) } else { Ok((topic.to_owned(), partitions)) }
}

/// Reads a time as Kafka's tool does (`2026-01-31T12:00:00.000`, in UTC unless it says otherwise),
/// and a date.
pub fn datetime_ms(text: &str) -> Result<i64, String> {
    let civil = || {
        let at = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(|date| date.at(0, 0, 0, 0))).ok()?;
        at.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    };
    let found = text.parse::<Timestamp>().ok().or_else(civil);
    found.map(Timestamp::as_millisecond).ok_or_else(|| "use 2026-01-31T12:00:00.000, with Z or an offset if it is not UTC".to_owned())
}

/// Reads lines of `topic,partition,offset`, as `--export` prints them.
pub fn read_csv(text: &str) -> Result<BTreeMap<Place, i64>, String> {
    let mut listed = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(|field| field.trim().trim_matches('"')).collect();
        let parsed = match fields[..] {
            [topic, partition, offset] if !topic.is_empty() => partition
                .parse::<u16>()
                .ok()
                .zip(offset.parse::<u64>().ok().and_then(|offset| i64::try_from(offset).ok()))
                .map(|(partition, offset)| ((topic.to_owned(), i32::from(partition)), offset)),
            _ => None,
        };
        let (place, offset) = parsed.ok_or_else(|| format!("line {number} is not topic,partition,offset"))?;
        if listed.insert(place, offset).is_some() {
            return Err(format!("line {number} names a partition for the second time"));
        }
    }
    if listed.is_empty() { Err("it has no lines".to_owned()) } else { Ok(listed) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_mean_what_kafkas_tool_means() {
        let place = ("t".to_owned(), 1);
        let listed = Target::Listed(BTreeMap::from([(place.clone(), 25)]));
        let known = |committed| Known { marks: Watermarks { low: 10, high: 100 }, committed, at_moment: Some(60) };
        for (target, committed, expected) in [
            (Target::Earliest, None, Ok((10, None))),
            (Target::Latest, None, Ok((100, None))),
            (Target::Current, Some(42), Ok((42, None))),
            (Target::Current, None, Ok((100, None))),
            (Target::Offset(5), None, Ok((10, Some(5)))),
            (Target::Offset(500), None, Ok((100, Some(500)))),
            (Target::Shift(-5), Some(42), Ok((37, None))),
            (Target::Shift(-50), Some(42), Ok((10, Some(-8)))),
            (Target::Shift(i64::MAX), Some(42), Ok((100, Some(i64::MAX)))),
            (Target::Shift(1), None, Err(())),
            (Target::Time(7), None, Ok((60, None))),
            (listed, None, Ok((25, None))),
            (Target::Listed(BTreeMap::new()), None, Err(())),
        ] {
            let found = new_offset(&target, &place, known(committed));
            assert_eq!(found.map(|set| (set.offset, set.meant)).map_err(drop), expected, "{target:?}");
        }
    }

    #[test]
    fn scopes_times_and_lists_are_read() {
        assert_eq!(scope("t").unwrap(), ("t".to_owned(), None));
        assert_eq!(scope("t:0,2").unwrap(), ("t".to_owned(), Some(vec![0, 2])));
        assert!(scope("t:").is_err() && scope(":1").is_err() && scope("t:-1").is_err());
        for (text, expected) in [
            ("1970-01-01T00:00:01.500", Some(1_500)),
            ("1970-01-01T00:00:01Z", Some(1_000)),
            ("1970-01-01T01:00:00+01:00", Some(0)),
            ("1970-01-02", Some(86_400_000)),
            ("today", None),
        ] {
            assert_eq!(datetime_ms(text).ok(), expected, "{text}");
        }
        let listed = read_csv("t,0,5\n\n\"u\", 3 ,7\n").unwrap();
        assert_eq!(listed, BTreeMap::from([(("t".to_owned(), 0), 5), (("u".to_owned(), 3), 7)]));
        for bad in ["", "t,0", "t,x,1", "t,0,-1", "t,0,1\nt,0,2", "g,t,0,1"] {
            assert!(read_csv(bad).is_err(), "{bad}");
        }
    }
}
