//! The client side of the command line: how to reach the bridge and Kafka, the calls to the
//! bridge, and what a webhook receiver needs.
//!
//! Cast: [`Profile`] remembers addresses and tokens, the `…Options` are flattened into commands,
//! [`Bridge`] makes calls, [`Problem`] is a refusal, `arrivals` takes webhooks in, `receipts`
//! judges them.
//!
//! Must never print a token or a secret, except where a command exists to show it once.

pub mod arrivals;
mod bridge;
mod interrupt;
mod options;
mod problem;
mod profile;
pub mod receipts;

pub use bridge::{Bridge, CallError, is_not_found};
pub use interrupt::Interrupts;
pub use options::{BridgeOptions, KafkaAndBridgeOptions, KafkaAndOperatorOptions, KafkaOptions, KafkaTls, OperatorOptions};
pub use problem::Problem;
pub use profile::{Profile, TlsFiles, Token};

use ryggrad_consumers::Point;

/// The present, milliseconds since 1970.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

/// A moment as RFC 3339 in UTC, to the millisecond.
pub fn rfc3339(at_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(at_ms).map_or_else(|_| at_ms.to_string(), |time| format!("{time:.3}"))
}

/// Reads where a subscription starts, as an option, into the API's words.
pub fn subscription_start(text: &str) -> Result<String, String> {
    start_words(text, now_ms()).ok_or_else(|| "use now, beginning, a time (2026-01-31T12:00:00Z) or how long ago (15m, 2h, 1d)".to_owned())
}

fn start_words(text: &str, now_ms: i64) -> Option<String> {
    let point: Point = text.parse().ok()?;
    match (point, point.time_ms(now_ms)) {
        (Point::Beginning, _) => Some("beginning".to_owned()),
        (Point::End, _) => Some("now".to_owned()),
        (_, at_ms) => at_ms.map(rfc3339),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_starts_now_at_the_beginning_or_at_a_time() {
        for (text, expected) in [
            ("now", Some("now")),
            ("beginning", Some("beginning")),
            ("1970-01-01T01:00:01+01:00", Some("1970-01-01T00:00:01.000Z")),
            ("1s", Some("1970-01-01T00:00:09.000Z")),
            ("1200", None),
            ("soon", None),
        ] {
            assert_eq!(start_words(text, 10_000).as_deref(), expected, "{text}");
        }
    }
}
