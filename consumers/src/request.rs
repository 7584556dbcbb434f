//! What a reader is asked for: which topic, from where to where, and which records count.
//!
//! Pure. The catalogue is asked for topics and partitions, so a wrong name fails before any call.

use ryggrad_schemas::Catalogue;

use crate::read::Error;
use crate::{Filter, Point};

/// What to read.
#[derive(Debug, Clone)]
pub struct Request {
    /// Topic name, as in the catalogue.
    pub topic: String,
    /// Partitions; empty means all.
    pub partitions: Vec<i32>,
    /// Where to begin.
    pub from: Point,
    /// Where to end.
    pub until: Until,
    /// Which records count.
    pub filter: Filter,
    /// The most events to give.
    pub events_max: Option<u64>,
    /// How long to wait for an answer to one question before reading.
    pub ask_timeout_ms: u64,
    /// How long a bounded read waits for the next record before it gives up. Tunable so that
    /// tests need not wait it out.
    pub stall_timeout_ms: u64,
}

impl Request {
    /// Everything that the topic holds now.
    pub fn everything(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            partitions: Vec::new(),
            from: Point::Beginning,
            until: Until::Point(Point::End),
            filter: Filter::default(),
            events_max: None,
            ask_timeout_ms: 5_000,
            stall_timeout_ms: 30_000,
        }
    }
}

/// Where reading ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Before this point, and at the latest where the topic ended when reading started.
    Point(Point),
    /// Never: new records are waited for.
    Never,
}

/// The partitions to read, checked against the catalogue.
pub(crate) fn partitions_of(request: &Request) -> Result<Vec<i32>, Error> {
    let catalogue = Catalogue::built_in();
    let Some(topic) = catalogue.topic(&request.topic) else {
        let known = catalogue.topics.iter().map(|topic| topic.name.clone()).collect();
        return Err(Error::UnknownTopic { topic: request.topic.clone(), known });
    };
    if let Some(&partition) = request.partitions.iter().find(|partition| !(0..topic.partitions).contains(*partition)) {
        return Err(Error::UnknownPartition { topic: topic.name.clone(), partition, partitions: topic.partitions });
    }
    if request.partitions.is_empty() {
        return Ok((0..topic.partitions).collect());
    }
    let mut partitions = request.partitions.clone();
    partitions.sort_unstable();
    partitions.dedup();
    Ok(partitions)
}

/// The offset of a time is that of the first record at or after it; later records may still be
/// older where producers set the time, so the filter asks each record too.
pub(crate) fn timed(filter: Filter, from: Point, until: Until, now_ms: i64) -> Filter {
    let until_ms = if let Until::Point(point) = until { point.time_ms(now_ms) } else { None };
    Filter {
        appended_from_ms: filter.appended_from_ms.max(from.time_ms(now_ms)),
        appended_before_ms: [filter.appended_before_ms, until_ms].into_iter().flatten().min(),
        ..filter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_and_partitions_are_those_of_the_catalogue() {
        let topic = &Catalogue::built_in().topics[0];
        let ask = |name: &str, partitions: &[i32]| partitions_of(&Request { partitions: partitions.to_vec(), ..Request::everything(name) });
        assert_eq!(ask(&topic.name, &[]).unwrap(), (0..topic.partitions).collect::<Vec<_>>());
        assert_eq!(ask(&topic.name, &[2, 0, 2]).unwrap(), [0, 2]);
        assert!(matches!(ask(&topic.name, &[topic.partitions]), Err(Error::UnknownPartition { .. })));
        assert!(matches!(ask("x", &[]), Err(Error::UnknownTopic { .. })));
    }

    #[test]
    fn times_become_part_of_the_filter() {
        let both = Filter { appended_from_ms: Some(50), appended_before_ms: Some(90), ..Filter::default() };
        for (from, until, expected) in [
            (Point::Beginning, Until::Never, (Some(50), Some(90))),
            (Point::Time { at_ms: 60 }, Until::Point(Point::Time { at_ms: 80 }), (Some(60), Some(80))),
            (Point::Ago { ms: 60 }, Until::Point(Point::End), (Some(50), Some(90))),
        ] {
            let filter = timed(both.clone(), from, until, 100);
            assert_eq!((filter.appended_from_ms, filter.appended_before_ms), expected);
        }
    }
}
