//! Whole numbers in JSON: `12`, and also `12.0` and `1.2e1`, which JSON Schema calls integers as well.

use serde_json::Value;

/// Numbers up to here are told apart by every reader of JSON.
const EXACT_MAX: f64 = 9_007_199_254_740_991.0;

/// The number that a value is, if it is a whole one.
pub fn whole_number(value: &Value) -> Option<i64> {
    let written_otherwise = || {
        let number = value.as_f64()?;
        // Whole, and within what an i64 holds.
        (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
    };
    value.as_i64().or_else(written_otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for (text, expected) in [
            ("12", Some(12)),
            ("12.0", Some(12)),
            ("1.2e1", Some(12)),
            ("-0.0", Some(0)),
            ("-7", Some(-7)),
            ("9223372036854775807", Some(i64::MAX)),
            ("9223372036854775808", None),
            ("1e300", None),
            ("12.5", None),
            ("\"12\"", None),
            ("null", None),
            ("true", None),
        ] {
            assert_eq!(whole_number(&serde_json::from_str(text).unwrap()), expected, "{text}");
        }
    }
}
