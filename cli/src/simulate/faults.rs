//! Faults to order: what the next answers are to get wrong, and how.
//!
//! A fault strikes only an answer it can be seen in (an empty page has no item to spoil), and is
//! used up by each answer it struck. Nothing here touches the registry itself.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{number::Organisasjonsnummer, query::BadParameter};

/// Orders that may wait at the same time.
const WAITING_AT_MOST: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Target {
    Feed,
    Lookup,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultKind {
    /// 200 with a firewall's HTML page.
    Html,
    /// Another status.
    Status,
    /// An empty page; an empty body for a look-up.
    Empty,
    /// Items that lie before the asked id.
    Backwards,
    /// An item without a valid number; a document of another unit, or no object.
    Malformed,
    /// An endringstype never seen before.
    UnknownType,
    /// The right answer, half a minute late.
    Hang,
    /// A body cut in the middle.
    Truncate,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub(super) on: Target,
    pub(super) kind: FaultKind,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_s: Option<u32>,
    #[serde(default = "once")]
    pub(super) count: u32,
    /// Only answers about this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organisasjonsnummer: Option<String>,
}

fn once() -> u32 {
    1
}

impl Fault {
    pub(super) fn unit(&self) -> Option<Organisasjonsnummer> {
        let number = self.organisasjonsnummer.as_deref();
        number.and_then(Organisasjonsnummer::parse)
    }

    pub(super) fn status(&self) -> StatusCode {
        let status = self.status.unwrap_or(503);
        StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
    }

    fn check(&self) -> Result<(), BadParameter> {
        let only_feed = matches!(self.kind, FaultKind::Backwards | FaultKind::UnknownType);
        if only_feed && self.on == Target::Lookup {
            return Err(BadParameter::new("kind", "", "only a feed can have this fault"));
        }
        let status = self.status.unwrap_or(503);
        if !(200..=599).contains(&status) {
            let reason = "a status is 200 to 599";
            return Err(BadParameter::new("status", &status.to_string(), reason));
        }
        if self.count == 0 {
            return Err(BadParameter::new("count", "0", "a fault happens at least once"));
        }
        match &self.organisasjonsnummer {
            Some(number) if self.unit().is_none() => {
                let reason = "an organisasjonsnummer is nine digits";
                Err(BadParameter::new("organisasjonsnummer", number, reason))
            }
            _ => Ok(()),
        }
    }
}

/// The orders still to be carried out, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults {
    waiting: Vec<Fault>,
}

impl Faults {
    pub(super) fn order(&mut self, fault: Fault) -> Result<(), BadParameter> {
        fault.check()?;
        if self.waiting.len() == WAITING_AT_MOST {
            return Err(BadParameter::new("kind", "", "too many faults are waiting"));
        }
        self.waiting.push(fault);
        Ok(())
    }

    pub(super) fn clear(&mut self) {
        self.waiting.clear();
    }

    pub(super) fn waiting(&self) -> &[Fault] {
        &self.waiting
    }

    /// Uses up one count of the oldest fault that fits the answer.
    pub(super) fn take(&mut self, fits: impl Fn(&Fault) -> bool) -> Option<Fault> {
        let place = self.waiting.iter().position(fits)?;
        let fault = self.waiting.get_mut(place)?;
        let taken = fault.clone();
        fault.count -= 1;
        if fault.count == 0 {
            self.waiting.remove(place);
        }
        Some(taken)
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn fault(json: &str) -> Fault {
        serde_json::from_str(json).expect("a fault")
    }

    #[test]
    fn faults_are_used_up_in_the_order_they_came() {
        let mut faults = Faults::default();
        for order in [r#"{"on":"feed","kind":"html","count":2}"#, r#"{"on":"lookup","kind":"status","status":500}"#] {
            assert!(faults.order(fault(order)).is_ok());
        }
        let feed = |fault: &Fault| fault.on == Target::Feed;
        assert_eq!(faults.take(feed).map(|fault| fault.count), Some(2));
        assert_eq!(faults.take(feed).map(|fault| fault.count), Some(1));
        assert_eq!(faults.take(feed), None);
        assert_eq!(faults.waiting().len(), 1);
    }

    #[test]
    fn faults_that_cannot_happen_are_refused() {
        for bad in [
            r#"{"on":"lookup","kind":"backwards"}"#,
            r#"{"on":"feed","kind":"status","status":99}"#,
            r#"{"on":"feed","kind":"html","count":0}"#,
            r#"{"on":"feed","kind":"html","organisasjonsnummer":"1"}"#,
        ] {
            assert!(Faults::default().order(fault(bad)).is_err(), "{bad}");
        }
    }
}
