//! The names of things: which of the two lists a unit belongs to, its organisasjonsnummer, its days.
//!
//! It must never make a number that could belong to a real organisation: generated numbers start
//! with 2 or 3, real ones with 8 or 9.

use std::fmt;

use clap::ValueEnum;
use jiff::{Span, civil::Date};
use rand::Rng;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const WEIGHTS: [u32; 8] = [3, 2, 7, 6, 5, 4, 3, 2];

/// Which of the registry's two lists a unit is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
pub(super) enum Kind {
    /// Legal units.
    #[serde(rename = "enheter")]
    #[value(name = "enheter")]
    Enhet,
    /// Their local units.
    #[serde(rename = "underenheter")]
    #[value(name = "underenheter")]
    Underenhet,
}

impl Kind {
    pub(super) const BOTH: [Kind; 2] = [Kind::Enhet, Kind::Underenhet];

    pub(super) fn index(self) -> usize {
        match self {
            Kind::Enhet => 0,
            Kind::Underenhet => 1,
        }
    }

    /// The word in singular: also the name of a feed item's link.
    pub(super) fn word(self) -> &'static str {
        match self {
            Kind::Enhet => "enhet",
            Kind::Underenhet => "underenhet",
        }
    }

    /// The path segment of look-ups and of the feed.
    pub(super) fn path(self) -> &'static str {
        match self {
            Kind::Enhet => "enheter",
            Kind::Underenhet => "underenheter",
        }
    }

    /// Where a feed page keeps its items.
    pub(super) fn feed_key(self) -> &'static str {
        match self {
            Kind::Enhet => "oppdaterteEnheter",
            Kind::Underenhet => "oppdaterteUnderenheter",
        }
    }

    pub(super) fn respons_klasse(self) -> &'static str {
        match self {
            Kind::Enhet => "Enhet",
            Kind::Underenhet => "Underenhet",
        }
    }

    pub(super) fn slettet_klasse(self) -> &'static str {
        match self {
            Kind::Enhet => "SlettetEnhet",
            Kind::Underenhet => "SlettetUnderenhet",
        }
    }
}

/// Nine digits. The check digit is not demanded: recorded test material often lacks a valid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Organisasjonsnummer(u32);

impl Organisasjonsnummer {
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() != 9 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        text.parse().ok().map(Self)
    }

    /// A synthetic number with a valid check digit.
    pub(super) fn synthetic(rng: &mut impl Rng) -> Self {
        loop {
            let head = rng.random_range(20_000_000..40_000_000_u32);
            if let Some(check) = check_digit(head) {
                return Self(head * 10 + check);
            }
        }
    }

    /// The first valid number whose eight leading digits are `head` or more.
    pub(super) fn from_head(mut head: u32) -> Self {
        loop {
            match check_digit(head) {
                Some(check) => return Self(head * 10 + check),
                None => head += 1,
            }
        }
    }

    /// Another valid number, for answers that are to name the wrong unit.
    pub(super) fn neighbour(self) -> Self {
        let mut head = 20_000_000 + (self.0 / 10 + 1) % 20_000_000;
        loop {
            match check_digit(head) {
                Some(check) if head * 10 + check != self.0 => return Self(head * 10 + check),
                _ => head = 20_000_000 + (head + 1) % 20_000_000,
            }
        }
    }
}

/// `None` when the remainder would ask for the digit 10: no such number is ever given out.
fn check_digit(head: u32) -> Option<u32> {
    let mut rest = head;
    let mut sum = 0;
    for weight in WEIGHTS.iter().rev() {
        sum += weight * (rest % 10);
        rest /= 10;
    }
    match sum % 11 {
        0 => Some(0),
        1 => None,
        remainder => Some(11 - remainder),
    }
}

impl fmt::Display for Organisasjonsnummer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:09}", self.0)
    }
}

impl<'de> Deserialize<'de> for Organisasjonsnummer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("an organisasjonsnummer is nine digits"))
    }
}

impl Serialize for Organisasjonsnummer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A calendar day in a document, written as `2025-01-31`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Day(Date);

impl Day {
    /// The day the simulated registry opens. Fixed, so that documents follow from the seed alone.
    const OPENING: Date = jiff::civil::date(2025, 1, 1);
    const CHANGES_PER_DAY: u64 = 500;
    const DAYS_AT_MOST: u64 = 3650;

    /// The day, in the registry's own calendar, on which change number `changes_made` happens.
    pub(super) fn of_change(changes_made: u64) -> Self {
        let days = (changes_made / Self::CHANGES_PER_DAY).min(Self::DAYS_AT_MOST) as i64;
        Self(Self::OPENING.saturating_add(Span::new().days(days)))
    }

    /// Some day in the years before the registry opened.
    pub(super) fn before_opening(rng: &mut impl Rng, first_year: i16) -> Self {
        let days = rng.random_range(1..=(2025 - i64::from(first_year)).max(1) * 365);
        Self(Self::OPENING.saturating_add(Span::new().days(-days)))
    }

    pub(super) fn later(self, days: i64) -> Self {
        Self(self.0.saturating_add(Span::new().days(days.clamp(0, 10_000))))
    }

    pub(super) fn year(self) -> i16 {
        self.0.year()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn check_digits_follow_the_published_examples() {
        assert_eq!(check_digit(21234567), Some(9));
        assert_eq!(check_digit(31234567), Some(6));
    }

    #[test]
    fn synthetic_numbers_are_valid_and_start_with_2_or_3() {
        let mut rng = StdRng::seed_from_u64(7);
        for _ in 0..2000 {
            for number in [Organisasjonsnummer::synthetic(&mut rng), Organisasjonsnummer::synthetic(&mut rng).neighbour()] {
                assert_eq!(check_digit(number.0 / 10), Some(number.0 % 10));
                assert!(matches!(number.0 / 100_000_000, 2 | 3));
            }
        }
    }

    #[test]
    fn only_nine_digits_are_a_number() {
        assert!(Organisasjonsnummer::parse("012345678").is_some());
        for malformed in ["", "12345678", "1234567890", "12345678x", "+12345678"] {
            assert!(Organisasjonsnummer::parse(malformed).is_none());
        }
    }

    #[test]
    fn days_of_changes_never_run_backwards() {
        assert_eq!(Day::of_change(0).to_string(), "2025-01-01");
        assert!(Day::of_change(1_000_000) > Day::of_change(1000));
        assert_eq!(Day::of_change(u64::MAX), Day::of_change(u64::MAX - 1));
    }
}
