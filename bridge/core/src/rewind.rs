//! Going back, as an owner asks for it: to where, checked against the log and the cursor.
//!
//! Must never mean an offset outside the log, nor skip anything: back is the only way.

use std::collections::BTreeMap;

use jiff::Timestamp;
use ryggrad_schemas::Catalogue;
use serde_json::{Map, Value};

use crate::subscription::Fault;
use crate::whole_number::whole_number;

/// Partitions that a request may name, at most.
pub const PLACES_MAX: usize = 1_024;

/// Members of an offset in a partition.
pub const PLACE: [&str; 3] = ["topic", "partition", "offset"];

const MEMBERS: [&str; 3] = ["to", "preview", "count"];
pub(crate) const POINTS: &str = "\"beginning\", a time like 2026-01-31T08:00:00Z, or a list of {topic, partition, offset}";

/// A point in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Point {
    /// The oldest record that is still there.
    Beginning,
    /// The first record appended at this time or later.
    Time(Timestamp),
    /// These offsets, in these partitions alone.
    Offsets(BTreeMap<Partition, i64>),
}

/// A partition by its topic's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Partition {
    /// The topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
}

/// A request to go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RewindRequest {
    /// To where.
    pub to: Point,
    /// Only say what it would mean.
    pub preview: bool,
    /// And read the log to count the events.
    pub count: bool,
}

impl RewindRequest {
    /// Checks a request.
    pub fn parse(body: &Value) -> Result<Self, Vec<Fault>> {
        let Value::Object(members) = body else {
            return Err(vec![Fault::new("", "the body is a JSON object with to")]);
        };
        let mut faults = Fault::unknown_in(members, &MEMBERS);
        let to = match members.get("to") {
            Some(value) => Point::parse(value, "/to", &mut faults),
            None => {
                faults.push(Fault::new("/to", format!("is missing: {POINTS}")));
                None
            }
        };
        let (preview, count) = (parse_flag(members, "preview", false, &mut faults), parse_flag(members, "count", true, &mut faults));
        match to {
            Some(to) if faults.is_empty() => Ok(Self { to, preview, count }),
            _ => Err(faults),
        }
    }
}

pub(crate) fn parse_flag(members: &Map<String, Value>, name: &str, default: bool, faults: &mut Vec<Fault>) -> bool {
    let flag = members.get(name).map_or(Some(default), Value::as_bool);
    if flag.is_none() {
        faults.push(Fault::new(format!("/{name}"), "is true or false"));
    }
    flag.unwrap_or(default)
}

impl Point {
    /// Reads a point; what is wrong with it becomes faults.
    pub(crate) fn parse(value: &Value, pointer: &str, faults: &mut Vec<Fault>) -> Option<Self> {
        match value {
            Value::String(text) if text == "beginning" => return Some(Self::Beginning),
            Value::String(text) => {
                if let Ok(time) = text.parse() {
                    return Some(Self::Time(time));
                }
            }
            Value::Array(items) if (1..=PLACES_MAX).contains(&items.len()) => return offsets(items, pointer, faults),
            _ => {}
        }
        faults.push(Fault::new(pointer, format!("is {POINTS}")));
        None
    }
}

fn offsets(items: &[Value], pointer: &str, faults: &mut Vec<Fault>) -> Option<Point> {
    let before = faults.len();
    let mut offsets = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let pointer = format!("{pointer}/{index}");
        let Some(members) = item.as_object().filter(|members| members.keys().all(|name| PLACE.contains(&name.as_str()))) else {
            faults.push(Fault::new(pointer, "is an object with topic, partition and offset"));
            continue;
        };
        let Some((partition, offset)) = parse_place(members, &pointer, faults) else { continue };
        if Catalogue::built_in().is_protected(&partition.topic) {
            // Which offsets there are would tell of events that are not shown.
            faults.push(Fault::new(format!("{pointer}/topic"), "is not for everyone: go to a time there, or to the beginning"));
        }
        if offsets.insert(partition, offset).is_some() {
            faults.push(Fault::new(pointer, "names a partition for the second time"));
        }
    }
    (faults.len() == before).then_some(Point::Offsets(offsets))
}

/// Reads an offset in a partition; what is wrong with it becomes faults.
pub fn parse_place(members: &Map<String, Value>, pointer: &str, faults: &mut Vec<Fault>) -> Option<(Partition, i64)> {
    let whole = |name| members.get(name).and_then(whole_number).filter(|number| *number >= 0);
    let topic = members.get("topic").and_then(Value::as_str).map(str::to_owned);
    let (partition, offset) = (whole("partition").and_then(|number| i32::try_from(number).ok()), whole("offset"));
    for (name, detail, is_there) in [
        ("topic", "is the name of a topic", topic.is_some()),
        ("partition", "is the number of a partition", partition.is_some()),
        ("offset", "is an offset in that partition", offset.is_some()),
    ] {
        if !is_there {
            faults.push(Fault::new(format!("{pointer}/{name}"), detail));
        }
    }
    Some((Partition { topic: topic?, partition: partition? }, offset?))
}

/// What is known of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The oldest record that is still there.
    pub low: i64,
    /// The end of what is committed.
    pub high: i64,
    /// Where the subscription is: everything below was looked at.
    pub position: i64,
    /// What the point means here, where it is no offset.
    pub at_point: i64,
}

/// A stretch that would be delivered again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Where.
    pub partition: Partition,
    /// The partition as it is.
    pub extent: Extent,
    /// The first offset of the stretch.
    pub from: i64,
    /// The first offset behind it.
    pub to: i64,
}

/// What going back to a point means, partition by partition. A moment outside the log is its
/// nearest end, as for Kafka's own tools; an offset outside, or one that would skip, is a fault.
pub fn stretches(to: &Point, known: &BTreeMap<Partition, Extent>) -> Result<Vec<Stretch>, Vec<Fault>> {
    let Point::Offsets(offsets) = to else {
        let stretch = |(partition, extent): (&Partition, &Extent)| {
            let from = extent.at_point.max(extent.low).min(extent.position);
            Stretch { partition: partition.clone(), extent: *extent, from, to: extent.position }
        };
        return Ok(known.iter().map(stretch).collect());
    };
    let (mut stretches, mut faults) = (Vec::new(), Vec::new());
    for (index, (partition, offset)) in offsets.iter().enumerate() {
        let pointer = format!("/to/{index}");
        let Some(extent) = known.get(partition).copied() else {
            let all: Vec<&str> = known.keys().filter(|known| known.partition == 0).map(|known| known.topic.as_str()).collect();
            faults.push(Fault::new(pointer, format!("is no partition of {}", all.join(", "))));
            continue;
        };
        if *offset < extent.low {
            faults.push(Fault::new(format!("{pointer}/offset"), format!("is before the log, which begins at {}", extent.low)));
        } else if *offset > extent.position {
            let why = format!("is after the subscription's position, {}: a rewind only goes back", extent.position);
            faults.push(Fault::new(format!("{pointer}/offset"), why));
        } else {
            stretches.push(Stretch { partition: partition.clone(), extent, from: *offset, to: extent.position });
        }
    }
    if faults.is_empty() { Ok(stretches) } else { Err(faults) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn partition(partition: i32) -> Partition {
        Partition { topic: "t".to_owned(), partition }
    }

    fn pointers(faults: Vec<Fault>) -> Vec<String> {
        faults.into_iter().map(|fault| fault.pointer).collect()
    }

    #[test]
    fn a_request_names_a_point_and_every_fault_is_told() {
        let one = |offset: Value| json!([{"topic": "t", "partition": 1.0, "offset": offset}]);
        let time = "2026-01-31T08:00:00Z";
        for (body, expected) in [
            (json!({"to": "beginning"}), Ok((Point::Beginning, false))),
            (json!({"to": time, "preview": true}), Ok((Point::Time(time.parse().unwrap()), true))),
            (json!({"to": one(json!(5))}), Ok((Point::Offsets([(partition(1), 5)].into()), false))),
            (json!({"to": one(json!(5.0))}), Ok((Point::Offsets([(partition(1), 5)].into()), false))),
            (json!([]), Err(vec![""])),
            (json!({}), Err(vec!["/to"])),
            (json!({"to": "now", "preview": 1, "x": 1}), Err(vec!["/x", "/to", "/preview"])),
            (json!({"to": []}), Err(vec!["/to"])),
            (json!({"to": one(json!(-1))}), Err(vec!["/to/0/offset"])),
            (json!({"to": [{"topic": 1, "partition": 1.5}]}), Err(vec!["/to/0/topic", "/to/0/partition", "/to/0/offset"])),
            (json!({"to": [{"topic": "t", "partition": 1, "offset": 1, "x": 1}]}), Err(vec!["/to/0"])),
            (json!({"to": [one(json!(1))[0], one(json!(2))[0], 3]}), Err(vec!["/to/1", "/to/2"])),
        ] {
            let found = RewindRequest::parse(&body).map(|request| (request.to, request.preview)).map_err(pointers);
            assert_eq!(found, expected.map_err(|names: Vec<&str>| names.into_iter().map(str::to_owned).collect()), "{body}");
        }
    }

    #[test]
    fn a_point_means_a_stretch_up_to_the_cursor_and_never_skips() {
        let extent = |position, at_point| Extent { low: 10, high: 100, position, at_point };
        let known = BTreeMap::from([(partition(0), extent(50, 5)), (partition(1), extent(60, 40)), (partition(2), extent(70, 90))]);
        let found = |to: &Point| {
            stretches(to, &known).map(|found| found.iter().map(|one| (one.partition.partition, one.from, one.to)).collect::<Vec<_>>())
        };
        assert_eq!(found(&Point::Beginning), Ok(vec![(0, 10, 50), (1, 40, 60), (2, 70, 70)]));
        let offsets =
            |offsets: &[(i32, i64)]| Point::Offsets(offsets.iter().map(|(number, offset)| (partition(*number), *offset)).collect());
        assert_eq!(found(&offsets(&[(0, 10), (2, 70)])), Ok(vec![(0, 10, 50), (2, 70, 70)]));
        let wrong = offsets(&[(0, 9), (1, 61), (3, 1)]);
        assert_eq!(found(&wrong).map_err(pointers), Err(vec!["/to/0/offset".to_owned(), "/to/1/offset".to_owned(), "/to/2".to_owned()]));
    }
}
