//! A place in a topic as people write it: `beginning`, `end`, an offset, a time, or how long ago.
//!
//! Pure: the present is an argument of [`Point::time_ms`].

use std::str::FromStr;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};

/// Where to begin or end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The oldest record that is still there.
    Beginning,
    /// After the newest.
    End,
    /// This offset, in each partition.
    Offset(i64),
    /// The first record appended at this moment or later, milliseconds since 1970.
    Time {
        /// The moment.
        at_ms: i64,
    },
    /// The first record appended this long ago or later.
    Ago {
        /// How long, in milliseconds.
        ms: i64,
    },
}

/// Why a text is no point.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use beginning, end, an offset (1200), a time (2026-01-31T12:00:00Z) or how long ago (15m, 2h, 1d)")]
pub struct InvalidPoint;

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("use a number and a unit: 30s, 15m, 2h, 1d, 2w")]
pub struct InvalidDuration;

impl Point {
    /// The moment that this means at `now_ms`, if it means one.
    pub fn time_ms(self, now_ms: i64) -> Option<i64> {
        match self {
            Self::Time { at_ms } => Some(at_ms),
            Self::Ago { ms } => Some(now_ms.saturating_sub(ms)),
            Self::Beginning | Self::End | Self::Offset(_) => None,
        }
    }
}

impl FromStr for Point {
    type Err = InvalidPoint;

    fn from_str(text: &str) -> Result<Self, InvalidPoint> {
        match text {
            "beginning" | "earliest" => return Ok(Self::Beginning),
            "end" | "latest" | "now" => return Ok(Self::End),
            _ => {}
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text.parse().map(Self::Offset).map_err(|_| InvalidPoint);
        }
        if let Ok(time) = text.parse::<Timestamp>() {
            return Ok(Self::Time { at_ms: time.as_millisecond() });
        }
        duration_ms(text).map(|ms| Self::Ago { ms }).map_err(|_| InvalidPoint)
    }
}

/// Reads a duration such as `15m`, `2h` or `1d 12h`; a day has 24 hours.
pub fn duration_ms(text: &str) -> Result<i64, InvalidDuration> {
    let span: Span = text.parse().map_err(|_| InvalidDuration)?;
    // Months and years have no fixed length and are refused here.
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| InvalidDuration)?;
    if duration < SignedDuration::ZERO {
        return Err(InvalidDuration);
    }
    i64::try_from(duration.as_millis()).map_err(|_| InvalidDuration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_read_as_people_write_them() {
        for (text, expected) in [
            ("beginning", Ok(Point::Beginning)),
            ("earliest", Ok(Point::Beginning)),
            ("end", Ok(Point::End)),
            ("now", Ok(Point::End)),
            ("0", Ok(Point::Offset(0))),
            ("1200", Ok(Point::Offset(1200))),
            ("99999999999999999999", Err(InvalidPoint)),
            ("1970-01-01T00:00:01Z", Ok(Point::Time { at_ms: 1_000 })),
            ("1970-01-01T01:00:01.5+01:00", Ok(Point::Time { at_ms: 1_500 })),
            ("2026-01-31T12:00:00", Err(InvalidPoint)),
            ("15m", Ok(Point::Ago { ms: 900_000 })),
            ("1d", Ok(Point::Ago { ms: 86_400_000 })),
            ("-15m", Err(InvalidPoint)),
            ("", Err(InvalidPoint)),
            ("yesterday", Err(InvalidPoint)),
        ] {
            assert_eq!(text.parse::<Point>(), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_have_fixed_units_only() {
        for (text, expected) in [
            ("30s", Ok(30_000)),
            ("2h", Ok(7_200_000)),
            ("1h30m", Ok(5_400_000)),
            ("1d 12h", Ok(129_600_000)),
            ("2w", Ok(1_209_600_000)),
            ("PT15M", Ok(900_000)),
            ("250ms", Ok(250)),
            ("1mo", Err(InvalidDuration)),
            ("1y", Err(InvalidDuration)),
            ("-1h", Err(InvalidDuration)),
            ("1h ago", Err(InvalidDuration)),
            ("15", Err(InvalidDuration)),
            ("m", Err(InvalidDuration)),
        ] {
            assert_eq!(duration_ms(text), expected, "{text:?}");
        }
    }

    #[test]
    fn only_times_mean_a_moment() {
        for (point, expected) in [
            (Point::Beginning, None),
            (Point::End, None),
            (Point::Offset(3), None),
            (Point::Time { at_ms: 5 }, Some(5)),
            (Point::Ago { ms: 400 }, Some(600)),
            (Point::Ago { ms: i64::MAX }, Some(1_000 - i64::MAX)),
        ] {
            assert_eq!(point.time_ms(1_000), expected, "{point:?}");
        }
    }
}
