//! The signing secrets of a subscription over time: the newest, and those that it replaced and
//! that sign beside it for a while.
//!
//! Must never hold a secret beyond its end without saying when that is.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Fault, parse_secret};
use crate::signature::Secret;
use crate::whole_number::whole_number;

/// How long both secrets sign, unless the request says otherwise.
const OVERLAP_S_DEFAULT: u64 = 24 * 3_600;
/// How long both secrets may sign.
pub const OVERLAP_S: RangeInclusive<u64> = 0..=7 * 24 * 3_600;
/// Secrets that sign beside the newest; a rotation beyond that ends the oldest at once.
pub const PREVIOUS_SECRETS_MAX: usize = 3;

const MEMBERS: [&str; 2] = ["overlap_s", "secret"];

/// A replaced secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousSecret {
    /// Sealed, in hexadecimal.
    pub sealed_secret: String,
    /// When it stops to sign, milliseconds since 1970.
    pub until_ms: i64,
}

/// Opened secrets.
#[derive(Debug, Clone)]
pub struct Secrets {
    newest: Secret,
    previous: Vec<(Secret, i64)>,
}

impl Secrets {
    /// A secret, and those that it replaced, newest first, each with its end.
    pub fn new(newest: Secret, previous: Vec<(Secret, i64)>) -> Self {
        Self { newest, previous }
    }

    /// The newest one, which signs until it is replaced.
    pub fn newest(&self) -> &Secret {
        &self.newest
    }

    /// Those that sign at a time, newest first.
    pub fn at(&self, now_ms: i64) -> Vec<Secret> {
        let previous = self.previous.iter().filter(|(_, until_ms)| now_ms < *until_ms).map(|(secret, _)| secret);
        std::iter::once(&self.newest).chain(previous).cloned().collect()
    }
}

/// A request for another secret.
#[derive(Debug, Clone)]
pub struct Rotation {
    /// How long the present one goes on to sign.
    pub overlap_s: u64,
    /// A secret that the owner brings; else one is made.
    pub secret: Option<Secret>,
}

impl Rotation {
    /// Checks a request.
    pub fn parse(body: &Value) -> Result<Self, Vec<Fault>> {
        let Value::Object(members) = body else {
            return Err(vec![Fault::new("", "the body is a JSON object, {} at least")]);
        };
        let mut faults = Fault::unknown_in(members, &MEMBERS);
        let overlap_s = match members.get("overlap_s") {
            None | Some(Value::Null) => OVERLAP_S_DEFAULT,
            Some(value) => whole_number(value)
                .and_then(|number| number.try_into().ok())
                .filter(|overlap_s| OVERLAP_S.contains(overlap_s))
                .unwrap_or_else(|| {
                    faults.push(Fault::new("/overlap_s", format!("is a number of seconds from 0 to {}", OVERLAP_S.end())));
                    OVERLAP_S_DEFAULT
                }),
        };
        let secret = parse_secret(members, &mut faults);
        if faults.is_empty() { Ok(Self { overlap_s, secret }) } else { Err(faults) }
    }

    /// What is kept of the secrets so far.
    pub fn previous(&self, replaced: String, before: &[PreviousSecret], now_ms: i64) -> Vec<PreviousSecret> {
        // The range of the overlap keeps this far from any end of time.
        let until_ms = now_ms.saturating_add(self.overlap_s.saturating_mul(1_000).cast_signed());
        let replaced = PreviousSecret { sealed_secret: replaced, until_ms };
        let kept = std::iter::once(&replaced).chain(before).filter(|previous| previous.until_ms > now_ms);
        kept.take(PREVIOUS_SECRETS_MAX).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(byte: u8) -> Secret {
        Secret::from_bytes(vec![byte; 32]).unwrap()
    }

    #[test]
    fn both_sign_until_the_overlap_ends() {
        let secrets = Secrets::new(secret(3), vec![(secret(2), 200), (secret(1), 100)]);
        let at = |now_ms| secrets.at(now_ms).iter().map(Secret::reveal).collect::<Vec<_>>();
        let shown = |bytes: &[u8]| bytes.iter().map(|byte| secret(*byte).reveal()).collect::<Vec<_>>();
        for (now_ms, expected) in [(0, vec![3, 2, 1]), (99, vec![3, 2, 1]), (100, vec![3, 2]), (200, vec![3])] {
            assert_eq!(at(now_ms), shown(&expected), "{now_ms}");
        }
        assert_eq!(secrets.newest().reveal(), secret(3).reveal());
    }

    #[test]
    fn a_rotation_keeps_what_has_not_ended() {
        let previous = |name: &str, until_ms| PreviousSecret { sealed_secret: name.to_owned(), until_ms };
        let before = [previous("a", 5_000), previous("b", 9_000), previous("c", 9_500)];
        for (overlap_s, expected) in [
            (2, vec![previous("d", 9_000), previous("b", 9_000), previous("c", 9_500)]),
            (0, vec![previous("b", 9_000), previous("c", 9_500)]),
        ] {
            let rotation = Rotation { overlap_s, secret: None };
            assert_eq!(rotation.previous("d".to_owned(), &before, 7_000), expected);
        }
    }

    #[test]
    fn every_wrong_field_is_named_at_once() {
        assert_eq!(Rotation::parse(&json!({})).unwrap().overlap_s, OVERLAP_S_DEFAULT);
        assert_eq!(Rotation::parse(&json!({"overlap_s": 0})).unwrap().overlap_s, 0);
        assert_eq!(Rotation::parse(&json!({"overlap_s": 604_800})).unwrap().overlap_s, 604_800);
        for (body, expected) in [
            (json!([]), vec![""]),
            (json!({"overlap_s": -1, "secret": "x", "farge": 1}), vec!["/farge", "/overlap_s", "/secret"]),
            (json!({"overlap_s": 604_801}), vec!["/overlap_s"]),
        ] {
            let found: Vec<String> = Rotation::parse(&body).unwrap_err().into_iter().map(|fault| fault.pointer).collect();
            assert_eq!(found, expected, "{body}");
        }
    }
}
