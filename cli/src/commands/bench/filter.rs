//! `ryggrad bench filter`: what filters of subscriptions cost for each event.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use ryggrad_bridge_core::cesql::{Expression, RecordAttributes};
use ryggrad_bridge_core::filter::Filters;
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::cloudevents::{AVRO, BorrowedAttributes};
use serde_json::json;

use super::{median, print_bounded};
use crate::output::{Output, note};

/// What an expression may cost.
const NS_MAX: f64 = 1_000.0;
/// Evaluations between two looks at the clock.
const AT_A_TIME: u32 = 1_000;

/// Expressions by name; all of them are held to the target.
const EXPRESSIONS: [(&str, &str); 6] = [
    ("typical", "type LIKE 'no.ryggrad.%' AND endringstype = 'NY' AND EXISTS kommunenummer"),
    ("equal", "endringstype = 'NY'"),
    ("in", "kommunenummer IN ('1103', '4601', '5001', '0301')"),
    ("like", "source LIKE '%enhets_egister%' AND subject LIKE '3%6'"),
    ("integer", "INT(feltantall) * 2 + 1 >= 9 OR feltantall % 2 = 1"),
    ("text", "UPPER(LEFT(endringstype, 1)) = 'N' AND LENGTH(CONCAT_WS('/', subject, kommunenummer)) > 5"),
];

/// Nanoseconds that filters take for each event; at most 1,000
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench filter
  ./ryggrad bench filter --runs 9 --expression \"type LIKE 'no.%' AND hop < 3\"

WHAT IS MEASURED
  One compiled expression after the other, asked about the same record as the hub asks: a typical event of
  twelve headers. Rounds take turns; figures are medians. No Kafka, no bridge.")]
pub struct FilterArgs {
    /// Measured rounds
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// How long each expression is asked in a round, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    round_ms: u64,
    /// Another expression, beside the usual ones
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    expression: Option<String>,
}

/// Measures and prints.
pub fn run(args: &FilterArgs) -> anyhow::Result<()> {
    let record = record();
    let attributes = RecordAttributes(&record);
    let own = args.expression.as_deref().map(|text| ("own", text));
    let mut compiled: Vec<(&str, Expression, Vec<f64>)> = Vec::new();
    for (name, text) in EXPRESSIONS.into_iter().chain(own) {
        compiled.push((name, Expression::parse(text)?, Vec::new()));
    }
    let filters =
        json!([{"prefix": {"type": "no.ryggrad."}}, {"any": [{"exact": {"endringstype": "SLETTET"}}, {"sql": EXPRESSIONS[0].1}]}]);
    let filters: Filters = serde_json::from_value(filters)?;
    let (round, mut of_filters) = (Duration::from_millis(args.round_ms), Vec::new());
    for number in 1..=args.runs {
        for (_, expression, took) in &mut compiled {
            took.push(nanoseconds(round, || black_box(&*expression).matches(black_box(&attributes))));
        }
        of_filters.push(nanoseconds(round, || black_box(&filters).judge(black_box(&attributes))));
        note(format!("· round {number} of {}", args.runs));
    }
    let mut stdout = Output::stdout();
    let mut slowest: f64 = 0.0;
    for (name, _, took) in &compiled {
        let took = median(took).context("nothing was measured")?;
        // One's own expression may cost what it likes.
        slowest = if *name == "own" { slowest } else { slowest.max(took) };
        stdout.line(&format!("figure filter-{name} {took:.0} ns"))?;
    }
    let took = median(&of_filters).context("nothing was measured")?;
    stdout.line(&format!("figure filter-dialects {took:.0} ns"))?;
    let slowest = slowest.max(took);
    stdout.line(&format!("figure filter-slowest {slowest:.0} ns of at most {NS_MAX:.0}"))?;
    print_bounded(&mut stdout, "filter", slowest / NS_MAX, 1.0)
}

/// How long one call takes, over about this time.
fn nanoseconds<T>(round: Duration, mut call: impl FnMut() -> T) -> f64 {
    let (started, mut calls) = (Instant::now(), 0.0);
    loop {
        for _ in 0..AT_A_TIME {
            let _ = black_box(call());
        }
        calls += f64::from(AT_A_TIME);
        let took = started.elapsed();
        if took >= round {
            return took.as_secs_f64() * 1e9 / calls;
        }
    }
}

/// An event as producers publish them.
fn record() -> LogRecord {
    let attributes = BorrowedAttributes {
        id: "0d5b4f0e-6f0a-5d3e-9f4c-8b6f3a1d2c7b",
        source: "urn:ryggrad:enhetsregisteret:enheter",
        ce_type: "no.ryggrad.grunndata.virksomhet.endret.v1",
        subject: Some("312345676"),
        time: Some("2026-01-31T08:00:00.000Z"),
        extensions: &[
            ("endringstype", "NY"),
            ("feltantall", "4"),
            ("kommunenummer", "0301"),
            ("organisasjonsform", "AS"),
            ("sekvens", "17"),
        ],
    };
    let (topic, key) = ("grunndata.virksomhet.v1".to_owned(), Some("312345676".to_owned()));
    LogRecord { topic, partition: 0, offset: 17, timestamp_ms: 0, key, value: Some(vec![0; 600]), headers: attributes.to_headers(AVRO) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_measured_is_evaluated_to_its_end() {
        let record = record();
        for (name, text) in EXPRESSIONS {
            assert_eq!(Expression::parse(text).unwrap().matches(&RecordAttributes(&record)), Ok(true), "{name}");
        }
    }
}
