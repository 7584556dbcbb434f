//! Faults to order: what the next answers are to get wrong, and how.
//!
//! A fault strikes only an answer it can be seen in (an empty page has no item to spoil), and is
//! used up by each answer it struck. Nothing here touches the registry itself.

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    number::{Kind, Organisasjonsnummer},
    query::BadParameter,
};

/// Orders that may wait at the same time.
const WAITING_AT_MOST: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Target {
    Feed,
    Lookup,
    /// A bulk download.
    Dump,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum FaultKind {
    /// 200 with a firewall's HTML page.
    Html,
    /// Another status.
    Status,
    /// An empty page, an empty body for a look-up, an empty array for a dump.
    Empty,
    /// An empty page that still counts its items and links to the next one.
    EmptyMiddle,
    /// Items that lie before the asked id.
    Backwards,
    /// Items from before the asked id, and then the asked ones.
    Overlap,
    /// An item without a valid number; a document of another unit, or no object; a row of a dump
    /// in one of the shapes.
    Malformed,
    /// An endringstype never seen before.
    UnknownType,
    /// The right answer, half a minute late.
    Hang,
    /// A body cut in the middle.
    Truncate,
    /// A whole gzip file in which the JSON ends in the middle.
    TornJson,
    /// A share of the units, or one, is missing from an otherwise good dump.
    Shrunken,
}

/// How the body of a cut dump ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ending {
    /// As if it were complete: nothing says how long it should have been.
    #[default]
    Clean,
    /// With the `Content-Length` of the shorter body.
    Length,
    /// The connection breaks.
    Abrupt,
}

/// What a malformed row of a dump looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Shape {
    /// A number where an object should be.
    NoObject,
    /// No organisasjonsnummer.
    NoNumber,
    /// The organisasjonsnummer as a JSON number.
    NumberType,
    /// The right organisasjonsnummer, and other members of the wrong types.
    WrongTypes,
}

impl Shape {
    pub(super) const ALL: [Shape; 4] = [Shape::NoObject, Shape::NoNumber, Shape::NumberType, Shape::WrongTypes];

    /// The row in this shape.
    pub(super) fn spoiled(self, mut row: Value) -> Value {
        let number = row["organisasjonsnummer"].as_str().and_then(|number| number.parse::<u64>().ok());
        let Some(members) = row.as_object_mut() else { return Value::Null };
        match self {
            Shape::NoObject => return json!(42),
            Shape::NoNumber => {
                members.remove("organisasjonsnummer");
            }
            Shape::NumberType => {
                members.insert("organisasjonsnummer".into(), number.into());
            }
            Shape::WrongTypes => {
                for (member, value) in [
                    ("navn", json!(17)),
                    ("organisasjonsform", json!("AS")),
                    ("antallAnsatte", json!("mange")),
                    ("naeringskode1", json!([])),
                ] {
                    members.insert(member.into(), value);
                }
            }
        }
        row
    }
}

/// One fault that was ordered. What a kind has no use for may not be named.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    pub(super) on: Target,
    pub(super) kind: FaultKind,
    /// Only answers of this list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list: Option<Kind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) retry_after_s: Option<u32>,
    #[serde(default = "once")]
    pub(super) count: u32,
    /// Only answers about this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organisasjonsnummer: Option<String>,
    /// Where a dump is cut; else anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at_byte: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ending: Option<Ending>,
    /// Which share of the units is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    shape: Option<Shape>,
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

    pub(super) fn ending(&self) -> Ending {
        self.ending.unwrap_or_default()
    }

    pub(super) fn share(&self) -> f64 {
        self.share.unwrap_or(0.5)
    }

    /// The shape asked for, or each in its turn.
    pub(super) fn shape(&self) -> Shape {
        self.shape.unwrap_or(Shape::ALL[self.count as usize % Shape::ALL.len()])
    }

    /// Whether it is meant for answers of this kind about this list.
    pub(super) fn is_for(&self, on: Target, list: Kind) -> bool {
        self.on == on && self.list.is_none_or(|only| only == list)
    }

    fn check(&self) -> Result<(), BadParameter> {
        let can_have = match self.kind {
            FaultKind::Html | FaultKind::Status | FaultKind::Empty | FaultKind::Malformed | FaultKind::Hang | FaultKind::Truncate => true,
            FaultKind::Backwards | FaultKind::Overlap | FaultKind::UnknownType | FaultKind::EmptyMiddle => self.on == Target::Feed,
            FaultKind::TornJson | FaultKind::Shrunken => self.on == Target::Dump,
        };
        if !can_have {
            return Err(BadParameter::new("kind", "", "an answer of this kind cannot have this fault"));
        }
        let cut = self.on == Target::Dump && self.kind == FaultKind::Truncate;
        let spoiled = self.on == Target::Dump && self.kind == FaultKind::Malformed;
        for (parameter, named, used) in [
            ("at_byte", self.at_byte.is_some(), cut),
            ("ending", self.ending.is_some(), cut),
            ("shape", self.shape.is_some(), spoiled),
            ("share", self.share.is_some(), self.kind == FaultKind::Shrunken),
        ] {
            if named && !used {
                return Err(BadParameter::new(parameter, "", "this fault has no use for it"));
            }
        }
        if self.share.is_some_and(|share| !(0.0..=1.0).contains(&share)) {
            return Err(BadParameter::new("share", "", "a share is a number from 0 to 1"));
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
    fn a_fault_is_for_one_list_or_for_both() {
        let both = fault(r#"{"on":"dump","kind":"torn-json"}"#);
        let one = fault(r#"{"on":"dump","kind":"truncate","list":"underenheter","at_byte":10,"ending":"length"}"#);
        assert!(both.check().is_ok() && one.check().is_ok());
        assert_eq!(Kind::BOTH.map(|list| both.is_for(Target::Dump, list)), [true, true]);
        assert_eq!(Kind::BOTH.map(|list| one.is_for(Target::Dump, list)), [false, true]);
        assert!(!one.is_for(Target::Feed, Kind::Underenhet));
    }

    #[test]
    fn faults_that_cannot_happen_are_refused() {
        for bad in [
            r#"{"on":"lookup","kind":"backwards"}"#,
            r#"{"on":"dump","kind":"overlap"}"#,
            r#"{"on":"feed","kind":"shrunken"}"#,
            r#"{"on":"dump","kind":"shrunken","share":1.5}"#,
            r#"{"on":"feed","kind":"truncate","at_byte":7}"#,
            r#"{"on":"dump","kind":"html","ending":"clean"}"#,
            r#"{"on":"feed","kind":"status","status":99}"#,
            r#"{"on":"feed","kind":"html","count":0}"#,
            r#"{"on":"feed","kind":"html","organisasjonsnummer":"1"}"#,
        ] {
            assert!(Faults::default().order(fault(bad)).is_err(), "{bad}");
        }
    }
}
