//! Identifiers with their check rules. National identity numbers have no type here yet: they
//! occur only inside Avro values, and must never be printed by an error of this module.

use std::fmt;
use std::str::FromStr;

/// An organisation number: nine digits, the last a modulus 11 check digit.
///
/// Rule: weights 3, 2, 7, 6, 5, 4, 3, 2; check = 0 if the sum is divisible by 11, else
/// 11 − remainder; a check of 10 does not exist (Brønnøysundregistrene).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Organisasjonsnummer(u32);

/// Why a text is no organisation number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrganisasjonsnummer {
    /// Not nine digits.
    #[error("an organisasjonsnummer has nine digits")]
    Shape,
    /// The last digit does not follow from the others.
    #[error("the organisasjonsnummer's check digit is wrong")]
    CheckDigit,
}

impl FromStr for Organisasjonsnummer {
    type Err = InvalidOrganisasjonsnummer;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() != 9 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidOrganisasjonsnummer::Shape);
        }
        let digit = |index: usize| u32::from(text.as_bytes()[index] - b'0');
        let sum: u32 = [3, 2, 7, 6, 5, 4, 3, 2].iter().enumerate().map(|(i, weight)| weight * digit(i)).sum();
        // 11 - 1 = 10 can equal no digit, so such numbers are refused without a case of their own.
        let check = (11 - sum % 11) % 11;
        if check != digit(8) {
            return Err(InvalidOrganisasjonsnummer::CheckDigit);
        }
        text.parse().map(Self).map_err(|_| InvalidOrganisasjonsnummer::Shape)
    }
}

impl Organisasjonsnummer {
    /// Its nine digits as a number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Organisasjonsnummer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:09}", self.0)
    }
}

impl serde::Serialize for Organisasjonsnummer {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Organisasjonsnummer {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// What kind of identifier the keys of an event type are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyDomain {
    /// Organisation numbers.
    Organisasjonsnummer,
}

impl KeyDomain {
    /// All of them.
    pub const ALL: [Self; 1] = [Self::Organisasjonsnummer];

    /// The domain of that name, as the catalogue names keys.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|domain| domain.name() == name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Organisasjonsnummer => "organisasjonsnummer",
        }
    }

    /// The number that a key of this domain is, below 2^40; or what is wrong with the text, which
    /// the error never repeats.
    pub fn number(self, key: &str) -> Result<u64, InvalidOrganisasjonsnummer> {
        match self {
            Self::Organisasjonsnummer => key.parse::<Organisasjonsnummer>().map(|number| number.number().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_goes_by_the_name_that_the_catalogue_uses() {
        for domain in KeyDomain::ALL {
            assert_eq!(KeyDomain::named(domain.name()), Some(domain));
            assert_eq!(serde_json::to_value(domain).unwrap(), domain.name());
        }
        assert_eq!(KeyDomain::named("fødselsnummer"), None);
        assert_eq!(KeyDomain::Organisasjonsnummer.number("312345676"), Ok(312_345_676));
        assert!(KeyDomain::Organisasjonsnummer.number("312345677").is_err());
    }

    #[test]
    fn organisasjonsnummer_follows_the_check_rule() {
        for good in ["212345679", "312345676"] {
            assert_eq!(good.parse::<Organisasjonsnummer>().map(|number| number.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", InvalidOrganisasjonsnummer::Shape),
            ("31234567", InvalidOrganisasjonsnummer::Shape),
            ("3123456760", InvalidOrganisasjonsnummer::Shape),
            ("31234567 ", InvalidOrganisasjonsnummer::Shape),
            ("3123456７6", InvalidOrganisasjonsnummer::Shape),
            ("312345677", InvalidOrganisasjonsnummer::CheckDigit),
            ("213345679", InvalidOrganisasjonsnummer::CheckDigit),
        ] {
            assert_eq!(bad.parse::<Organisasjonsnummer>(), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn of_ten_numbers_with_the_same_start_at_most_one_is_valid() {
        for start in (20_000_000..20_001_000).chain(31_000_000..31_001_000) {
            let valid = (0..10).filter(|check| format!("{start}{check}").parse::<Organisasjonsnummer>().is_ok()).count();
            assert!(valid <= 1, "{start}");
        }
    }
}
