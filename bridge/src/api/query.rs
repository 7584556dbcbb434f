//! The parameters of an address: known ones only, each checked, all wrong ones named at once.

use std::ops::RangeInclusive;

use ryggrad_bridge_core::subscription::Fault;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use url::form_urlencoded;

use crate::problem::Problem;

/// Parameters that are being read.
pub struct Query {
    given: Vec<(String, String)>,
    faults: Vec<Fault>,
}

impl Query {
    /// Parameters of these names.
    pub fn read(raw: Option<&str>, known: &[&str]) -> Self {
        let given: Vec<(String, String)> = form_urlencoded::parse(raw.unwrap_or_default().as_bytes()).into_owned().collect();
        let mut query = Self { given, faults: Vec::new() };
        for index in 0..query.given.len() {
            let name = query.given[index].0.clone();
            if !known.contains(&name.as_str()) {
                query.wrong(&name, &format!("is unknown; known are {}", known.join(", ")));
            } else if query.given[..index].iter().any(|(before, _)| *before == name) {
                query.wrong(&name, "is there twice");
            }
        }
        query
    }

    /// A text, if it is given.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.given.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    /// A number within a range; the default if it is not given.
    pub fn number(&mut self, name: &str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let Some(text) = self.text(name) else { return default };
        text.parse().ok().filter(|number| range.contains(number)).unwrap_or_else(|| {
            self.wrong(name, &format!("is a whole number from {} to {}", range.start(), range.end()));
            default
        })
    }

    /// An organisation, if it is given.
    pub fn organisation(&mut self, name: &str) -> Option<Organisasjonsnummer> {
        let number = self.text(name)?.parse().ok();
        if number.is_none() {
            self.wrong(name, "is an organisasjonsnummer: nine digits with the right check digit");
        }
        number
    }

    /// Names a parameter that is wrong.
    pub fn wrong(&mut self, name: &str, detail: &str) {
        self.faults.push(Fault::new(format!("?{name}"), detail));
    }

    /// Whether everything was right.
    pub fn end(self) -> Result<(), Problem> {
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wrong_parameter_is_named_at_once() {
        let read = |raw: Option<&str>| {
            let mut query = Query::read(raw, &["after", "limit"]);
            let limit = query.number("limit", 1..=1_000, 100);
            let (after, faults) = (query.text("after").map(str::to_owned), query.faults);
            (after, limit, faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>())
        };
        let text = |text: &str| Some(text.to_owned());
        for (raw, after, limit, wrong) in [
            (None, None, 100, vec![]),
            (Some(""), None, 100, vec![]),
            (Some("limit=1000&after=a%2Fb"), text("a/b"), 1_000, vec![]),
            (Some("limit=1001"), None, 100, vec!["?limit"]),
            (Some("limit=&farge=1"), None, 100, vec!["?farge", "?limit"]),
            (Some("limit=-1&limit=2"), None, 100, vec!["?limit", "?limit"]),
            (Some("after=%ff"), text("\u{fffd}"), 100, vec![]),
        ] {
            assert_eq!(read(raw), (after, limit, wrong.into_iter().map(str::to_owned).collect()), "{raw:?}");
        }
    }
}
