//! What an attempt's answer means: one contract for all response codes.
//!
//! Source of the rules: DESIGN's failure policy, Standard Webhooks, the CloudEvents web hook
//! specification (429 must be obeyed, redirects must not be followed), RFC 9110 10.2.3.

/// What happened in one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// An HTTP answer.
    Status {
        /// Status code.
        code: u16,
        /// `Retry-After`, already as milliseconds from now.
        retry_after_ms: Option<u64>,
    },
    /// No answer: refused, reset, timed out, TLS or name failure.
    NoAnswer,
}

/// What it means for the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Taken: settled.
    Delivered,
    /// The endpoint is gone for good: disable the subscription, keep the cursor.
    Gone,
    /// Waiting can't cure it: the event is exhausted at once.
    Hopeless,
    /// The endpoint asks for a pause: all lanes wait.
    Throttled {
        /// Milliseconds from now.
        retry_after_ms: u64,
    },
    /// Try again on the schedule.
    Failed,
    /// Nothing was sent: right before the attempt it turned out that the record may not leave.
    Withheld,
    /// Nothing was sent, and nothing was said about the record or the endpoint: the gate was
    /// closed, or the subscription stopped meanwhile. Tried again as soon as attempts may be made.
    Unsent,
}

/// The meaning of an answer.
pub fn outcome(answer: Answer) -> Outcome {
    let Answer::Status { code, retry_after_ms } = answer else { return Outcome::Failed };
    match (code, retry_after_ms) {
        (200..=299, _) => Outcome::Delivered,
        (410, _) => Outcome::Gone,
        (400 | 413 | 415 | 422, _) => Outcome::Hopeless,
        (429 | 503, Some(retry_after_ms)) => Outcome::Throttled { retry_after_ms },
        _ => Outcome::Failed,
    }
}

/// Reads `Retry-After`: delay in seconds, or an HTTP date against the given clock. `None` if it
/// is neither: such a header counts as absent.
pub fn retry_after_ms(value: &str, now_ms: i64) -> Option<u64> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit mean "very long", not "absent".
        return Some(value.parse::<u64>().unwrap_or(u64::MAX / 1_000).saturating_mul(1_000));
    }
    let at = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(value).ok()?;
    Some(u64::try_from(at.as_millisecond() - now_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_has_one_meaning() {
        let status = |code, retry_after_ms| Answer::Status { code, retry_after_ms };
        for (answer, expected) in [
            (status(200, None), Outcome::Delivered),
            (status(202, None), Outcome::Delivered),
            (status(204, Some(5)), Outcome::Delivered),
            (status(301, None), Outcome::Failed),
            (status(400, None), Outcome::Hopeless),
            (status(401, None), Outcome::Failed),
            (status(404, None), Outcome::Failed),
            (status(410, None), Outcome::Gone),
            (status(413, None), Outcome::Hopeless),
            (status(415, None), Outcome::Hopeless),
            (status(422, None), Outcome::Hopeless),
            (status(429, Some(2_000)), Outcome::Throttled { retry_after_ms: 2_000 }),
            (status(429, None), Outcome::Failed),
            (status(500, None), Outcome::Failed),
            (status(503, Some(0)), Outcome::Throttled { retry_after_ms: 0 }),
            (status(503, None), Outcome::Failed),
            (Answer::NoAnswer, Outcome::Failed),
        ] {
            assert_eq!(outcome(answer), expected, "{answer:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_or_absent() {
        let now_ms = 784_111_777_000; // Sun, 06 Nov 1994 08:49:37 GMT
        for (value, expected) in [
            ("120", Some(120_000)),
            (" 0 ", Some(0)),
            ("99999999999999999999999", Some(u64::MAX / 1_000 * 1_000)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60_000)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("1.5", None),
            ("", None),
        ] {
            assert_eq!(retry_after_ms(value, now_ms), expected, "{value:?}");
        }
    }
}
