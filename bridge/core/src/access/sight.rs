//! Whose things a caller may see, and which of these it runs.
//!
//! An organisation sees what its suppliers made for it; a supplier sees what it made itself, for that organisation.
//! Must never show anyone what another organisation, or another supplier, has made.

use ryggrad_schemas::identifiers::Organisasjonsnummer;

use super::decision::Caller;

/// What a caller may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Everyone's: the operator's.
    All,
    /// What concerns this organisation, or what this supplier has made for it.
    Of(Caller),
}

impl Sight {
    /// Whether it takes in what somebody has made.
    pub fn covers(self, maker: Caller) -> bool {
        match self {
            Self::All => true,
            Self::Of(own) => own.organisation == maker.organisation && (own.supplier.is_none() || own.supplier == maker.supplier),
        }
    }

    /// Whether it is whoever runs what somebody has made: the maker itself, or an operator.
    pub fn runs(self, maker: Caller) -> bool {
        match self {
            Self::All => true,
            Self::Of(own) => own == maker,
        }
    }

    /// Whether it takes in what concerns these. A supplier sees what concerns both it and the organisation.
    pub fn concerned(self, by: &[Organisasjonsnummer]) -> bool {
        match self {
            Self::All => true,
            Self::Of(own) => by.contains(&own.organisation) && own.supplier.is_none_or(|supplier| by.contains(&supplier)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_sees_what_is_theirs_and_runs_what_they_made() {
        let number = |text: &str| text.parse::<Organisasjonsnummer>().unwrap();
        let (a, b, s, t) = (number("312345676"), number("310000000"), number("310000019"), number("310000027"));
        let by = |organisation, supplier| Caller { organisation, supplier };
        let made = [by(a, None), by(a, Some(s)), by(a, Some(t)), by(b, None), by(b, Some(s))];
        let concerned = [vec![a], vec![a, s], vec![a, t], vec![b], vec![s, b]];
        // What is seen of these, what is run, and what of the second list is seen.
        for (sight, sees, runs, concerns) in [
            (Sight::All, [true; 5], [true; 5], [true; 5]),
            (Sight::Of(made[0]), [true, true, true, false, false], [true, false, false, false, false], [true, true, true, false, false]),
            (
                Sight::Of(made[1]),
                [false, true, false, false, false],
                [false, true, false, false, false],
                [false, true, false, false, false],
            ),
            (
                Sight::Of(made[4]),
                [false, false, false, false, true],
                [false, false, false, false, true],
                [false, false, false, false, true],
            ),
        ] {
            assert_eq!(made.map(|maker| sight.covers(maker)), sees, "{sight:?}");
            assert_eq!(made.map(|maker| sight.runs(maker)), runs, "{sight:?}");
            assert_eq!(concerned.each_ref().map(|by| sight.concerned(by)), concerns, "{sight:?}");
        }
    }
}
