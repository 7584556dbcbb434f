//! `ryggrad filter eval`: what an expression, or a whole filter, says of events, before it is used.
//!
//! Needs no bridge: what the bridge would compile is compiled here. Must never send anything
//! anywhere.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{ArgGroup, Args, Subcommand};
use ryggrad_bridge_core::cesql::{Expression, JsonAttributes, ParseError};
use ryggrad_bridge_core::filter::Filters;
use serde_json::{Map, Value, json};

use crate::exit::{Code, Stop};
use crate::output::{Output, note, printable};

/// Most bytes of events that are read.
const EVENTS_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// What can be done with filters.
#[derive(Debug, Clone, Subcommand)]
pub enum FilterCommand {
    Eval(EvalArgs),
}

/// Says what an expression, or a list of filters, makes of events
#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("filter").required(true).args(["expression", "filters"]))]
#[command(after_help = "\
EXAMPLES
  ryggrad filter eval --expression \"type LIKE 'no.ryggrad.%' AND EXISTS subject\" --event event.json
  ryggrad filter eval --filters filters.json --event events.ndjson
  curl -sS \"$BRIDGE/v1/subscriptions/$ID/events\" -H \"authorization: Bearer $TOKEN\" |
    ryggrad filter eval --expression \"endringstype = 'NY'\" --event -

OUTPUT
  One JSON object for each event: {\"value\":true,\"type\":\"Boolean\",\"errors\":[]}. An event
  passes if the value is the Boolean true and there is no error. In JSON, numbers and true or
  false have their types; in a subscription all attributes are Strings, which are cast where
  something else is wanted.")]
pub struct EvalArgs {
    /// An expression in CloudEvents SQL
    #[arg(long, value_name = "EXPRESSION", allow_hyphen_values = true)]
    expression: Option<String>,
    /// A file with a list of filters, as a subscription's member `filters`
    #[arg(long, value_name = "FILE")]
    filters: Option<PathBuf>,
    /// A file with one event in JSON, an array of events, or one event a line; - for standard input
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
}

enum Subject {
    Expression(Expression),
    Filters(Filters),
}

/// Evaluates and prints.
pub fn run(command: FilterCommand) -> anyhow::Result<Code> {
    let FilterCommand::Eval(args) = command;
    let subject = match (&args.expression, &args.filters) {
        (Some(text), _) => Subject::Expression(compile(text)?),
        (None, Some(file)) => Subject::Filters(read_filters(file)?),
        (None, None) => return Err(Stop::usage("there is no filter", "give --expression or --filters").into()),
    };
    warn(&subject);
    let mut output = Output::stdout();
    for event in events(&read(&args.event)?)? {
        let judged = judged(&subject, &event);
        // In this order people read it.
        output.line(&format!(r#"{{"value":{},"type":{},"errors":{}}}"#, judged["value"], judged["type"], judged["errors"]))?;
    }
    output.flush()?;
    Ok(Code::Ok)
}

fn compile(text: &str) -> anyhow::Result<Expression> {
    Expression::parse(text).map_err(|why| {
        note(pointed_at(text, &why));
        Stop::usage(format!("the expression cannot be read: {why}"), "docs/API.md tells what CloudEvents SQL knows").into()
    })
}

/// The line at fault with a caret under the place.
fn pointed_at(text: &str, why: &ParseError) -> String {
    const SHOWN_CHARS_MAX: usize = 100;
    let line = text.split('\n').nth(why.place.line - 1).unwrap_or_default();
    // A long line is shown from a little before the place on.
    let skipped = (why.place.column - 1).saturating_sub(SHOWN_CHARS_MAX / 2);
    let shown: String = line.chars().skip(skipped).take(SHOWN_CHARS_MAX).collect();
    format!("  {}\n  {}^", printable(&shown).trim_end(), " ".repeat(why.place.column - 1 - skipped))
}

fn read_filters(file: &Path) -> anyhow::Result<Filters> {
    let value: Value = serde_json::from_str(&read(file)?)
        .map_err(|why| Stop::usage(format!("{} is no JSON: {why}", file.display()), "give a list like [{\"sql\": \"…\"}]"))?;
    let mut faults = Vec::new();
    let filters = Filters::parse(&value, "", &mut faults);
    if faults.is_empty() {
        return filters.ok_or_else(|| Stop::usage("the list of filters is empty", "every event passes without filters").into());
    }
    let told: Vec<String> = faults.iter().map(|fault| format!("{} {}", fault.pointer, fault.detail).trim().to_owned()).collect();
    Err(Stop::usage(format!("{}: {}", file.display(), told.join("; ")), "docs/API.md tells what filters there are").into())
}

fn warn(subject: &Subject) {
    let warnings: Vec<String> = match subject {
        Subject::Expression(expression) => expression.warnings().iter().map(ToString::to_string).collect(),
        Subject::Filters(filters) => filters.warnings(),
    };
    warnings.iter().for_each(|warning| note(format!("warning: {warning}")));
}

fn read(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let reading = if file == Path::new("-") {
        std::io::stdin().lock().take(EVENTS_BYTES_MAX).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(EVENTS_BYTES_MAX).read_to_string(&mut text))
    };
    reading.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text)
}

/// One event, an array of events, or any number of either one after the other.
fn events(text: &str) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut events = Vec::new();
    for value in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
        let value = value.map_err(|why| Stop::usage(format!("the events are no JSON: {why}"), "give one event a line"))?;
        let found = if let Value::Array(items) = value { items } else { vec![value] };
        for event in found {
            let Value::Object(event) = event else {
                return Err(Stop::usage("an event is not an object", "give CloudEvents in structured JSON").into());
            };
            events.push(event);
        }
    }
    Ok(events)
}

fn judged(subject: &Subject, event: &Map<String, Value>) -> Value {
    let attributes = JsonAttributes(event);
    match subject {
        Subject::Expression(expression) => {
            let evaluation = expression.evaluate(&attributes);
            let errors = evaluation.errors.iter().map(|error| {
                json!({
                    "error": error.kind.to_string(), "name": error.name, "line": error.place.line, "column": error.place.column,
                })
            });
            let errors: Vec<Value> = errors.collect();
            json!({"value": evaluation.value.to_json(), "type": evaluation.value.type_of().to_string(), "errors": errors})
        }
        Subject::Filters(filters) => {
            let verdict = filters.judge(&attributes);
            let errors: Vec<Value> = verdict.errors.iter().map(|kind| json!({"error": kind.to_string()})).collect();
            json!({"value": verdict.matches, "type": "Boolean", "errors": errors})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_one_by_one_in_lines_or_in_an_array() {
        for (text, count) in
            [("", 0), ("{\"id\":\"a\"}", 1), ("{}\n{}\n\n{}\n", 3), ("[{}, {}]", 2), ("[{}]\n{}", 2), ("{\n  \"id\": \"a\"\n}", 1)]
        {
            assert_eq!(events(text).unwrap().len(), count, "{text}");
        }
        for text in ["{", "7", "[[]]", "type = 'a'"] {
            assert!(events(text).unwrap_err().downcast_ref::<Stop>().is_some_and(|stop| stop.code == Code::Usage), "{text}");
        }
    }

    #[test]
    fn an_event_is_judged_with_value_type_and_errors() {
        let event = events(r#"{"id": "e1", "hop": "3", "data": {}}"#).unwrap().remove(0);
        for (text, expected) in [
            ("hop + 1 < 5", json!({"value": true, "type": "Boolean", "errors": []})),
            ("hop + 1", json!({"value": 4, "type": "Integer", "errors": []})),
            ("CONCAT(id, hop)", json!({"value": "e13", "type": "String", "errors": []})),
            (
                "id = 'e1' AND subject = ''",
                json!({"value": false, "type": "Boolean", "errors": [
                    {"error": "MissingAttributeError", "name": "subject", "line": 1, "column": 15},
                ]}),
            ),
        ] {
            assert_eq!(judged(&Subject::Expression(Expression::parse(text).unwrap()), &event), expected, "{text}");
        }
        let filters = serde_json::from_value(json!([{"exact": {"hop": "3"}}, {"not": {"sql": "subject = ''"}}])).unwrap();
        let expected = json!({"value": true, "type": "Boolean", "errors": [{"error": "MissingAttributeError"}]});
        assert_eq!(judged(&Subject::Filters(filters), &event), expected);
    }

    #[test]
    fn a_fault_is_pointed_at() {
        let text = "type = 'a' AND\n  LIKE";
        assert_eq!(pointed_at(text, &Expression::parse(text).unwrap_err()), "    LIKE\n    ^");
        let long = format!("{} !", "a OR ".repeat(100) + "a");
        let shown = pointed_at(&long, &Expression::parse(&long).unwrap_err());
        assert!(shown.ends_with(&format!(" a !\n{}^", " ".repeat(52))), "{shown}");
    }
}
