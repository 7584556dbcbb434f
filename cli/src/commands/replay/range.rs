//! From where to where a replay reads, and what that means in each partition. Pure.
//!
//! Must never let a range leave the log: it is cut to what is there when the replay begins, so
//! that a replay always ends.

use std::collections::BTreeMap;
use std::str::FromStr;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use ryggrad_consumers::{Point, duration_ms};
use ryggrad_log::{Stretch, Watermarks};

/// One end of a range as people write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bound {
    /// In every partition alike.
    Point(Point),
    /// An offset for each partition named; the others are left out.
    Offsets(BTreeMap<i32, i64>),
    /// What a consumer group has committed.
    Group(String),
}

/// Why a text is no bound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "use beginning, end, an offset (1200), offsets by partition (0:1200,3:17), a time (2026-01-31T12:00:00Z), a date (2026-01-31), how \
     long ago (2h, -PT2H) or group:NAME"
)]
pub struct InvalidBound;

impl FromStr for Bound {
    type Err = InvalidBound;

    fn from_str(text: &str) -> Result<Self, InvalidBound> {
        if let Some(group) = text.strip_prefix("group:") {
            return if group.is_empty() { Err(InvalidBound) } else { Ok(Self::Group(group.to_owned())) };
        }
        if let Ok(point) = text.parse::<Point>() {
            return Ok(Self::Point(point));
        }
        if let Some(ago) = text.strip_prefix('-') {
            return duration_ms(ago).map(|ms| Self::Point(Point::Ago { ms })).map_err(|_| InvalidBound);
        }
        if let Ok(date) = text.parse::<Date>() {
            let midnight = date.to_zoned(TimeZone::UTC).map_err(|_| InvalidBound)?;
            return Ok(Self::Point(Point::Time { at_ms: midnight.timestamp().as_millisecond() }));
        }
        let mut offsets = BTreeMap::new();
        for part in text.split(',') {
            let (partition, offset) = part.split_once(':').ok_or(InvalidBound)?;
            let partition: u16 = partition.trim().parse().map_err(|_| InvalidBound)?;
            let offset: u64 = offset.trim().parse().map_err(|_| InvalidBound)?;
            let offset = i64::try_from(offset).map_err(|_| InvalidBound)?;
            if offsets.insert(i32::from(partition), offset).is_some() {
                return Err(InvalidBound);
            }
        }
        Ok(Self::Offsets(offsets))
    }
}

/// What the broker says about a bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    /// Offsets of its moment, by partition.
    pub moment: BTreeMap<i32, i64>,
    /// What its group has committed, by partition.
    pub committed: BTreeMap<i32, i64>,
}

impl Bound {
    /// The offset that it means in a partition; none if the partition is left out.
    fn offset(&self, partition: i32, marks: Watermarks, answers: &Answers) -> Option<i64> {
        match self {
            Self::Point(Point::Beginning) => Some(marks.low),
            Self::Point(Point::End) => Some(marks.high),
            Self::Point(Point::Offset(offset)) => Some(*offset),
            Self::Point(Point::Time { .. } | Point::Ago { .. }) => answers.moment.get(&partition).copied(),
            Self::Offsets(offsets) => offsets.get(&partition).copied(),
            // Where the group has committed nothing it has read nothing.
            Self::Group(_) => Some(answers.committed.get(&partition).copied().unwrap_or(marks.low)),
        }
    }
}

/// The stretches that a range means, cut to what is there.
pub fn stretches(marks: &[(i32, Watermarks)], from: (&Bound, &Answers), to: (&Bound, &Answers)) -> Vec<Stretch> {
    marks
        .iter()
        .filter_map(|&(partition, marks)| {
            let within = |offset: i64| offset.clamp(marks.low, marks.high.max(marks.low));
            let first = within(from.0.offset(partition, marks, from.1)?);
            let end = within(to.0.offset(partition, marks, to.1)?);
            Some(Stretch { partition, from: first, to: end.max(first) })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_as_people_write_them() {
        let point = |point| Ok(Bound::Point(point));
        for (text, expected) in [
            ("beginning", point(Point::Beginning)),
            ("end", point(Point::End)),
            ("1200", point(Point::Offset(1200))),
            ("0:5,3:17", Ok(Bound::Offsets(BTreeMap::from([(0, 5), (3, 17)])))),
            ("1970-01-01T00:00:01Z", point(Point::Time { at_ms: 1_000 })),
            ("1970-01-02", point(Point::Time { at_ms: 86_400_000 })),
            ("2h", point(Point::Ago { ms: 7_200_000 })),
            ("-PT2H", point(Point::Ago { ms: 7_200_000 })),
            ("-2h", point(Point::Ago { ms: 7_200_000 })),
            ("group:journal", Ok(Bound::Group("journal".to_owned()))),
            ("group:", Err(InvalidBound)),
            ("0:5,0:6", Err(InvalidBound)),
            ("0:x", Err(InvalidBound)),
            ("-5", Err(InvalidBound)),
            ("yesterday", Err(InvalidBound)),
            ("", Err(InvalidBound)),
        ] {
            assert_eq!(text.parse::<Bound>(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_range_is_cut_to_what_is_there() {
        let marks = [(0, Watermarks { low: 10, high: 100 }), (1, Watermarks { low: 0, high: 0 })];
        let answers = Answers { moment: BTreeMap::from([(0, 40), (1, 0)]), committed: BTreeMap::from([(0, 70)]) };
        for (from, to, expected) in [
            ("beginning", "end", vec![(0, 10, 100), (1, 0, 0)]),
            ("5", "500", vec![(0, 10, 100), (1, 0, 0)]),
            ("50", "60", vec![(0, 50, 60), (1, 0, 0)]),
            ("60", "50", vec![(0, 60, 60), (1, 0, 0)]),
            ("0:20", "end", vec![(0, 20, 100)]),
            ("beginning", "0:20", vec![(0, 10, 20)]),
            ("2h", "group:g", vec![(0, 40, 70), (1, 0, 0)]),
            ("group:g", "end", vec![(0, 70, 100), (1, 0, 0)]),
        ] {
            let (from, to): (Bound, Bound) = (from.parse().unwrap(), to.parse().unwrap());
            let found: Vec<_> = stretches(&marks, (&from, &answers), (&to, &answers))
                .into_iter()
                .map(|stretch| (stretch.partition, stretch.from, stretch.to))
                .collect();
            assert_eq!(found, expected, "{from:?} {to:?}");
        }
    }
}
