//! `ryggrad disclosures`: what was disclosed of a controller's data, to whom, and whether the records are whole.
//!
//! Whom somebody asks about comes from a file or stdin. Must never take a pseudonym as an argument, nor print one in a note.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::{Period, print_all, print_one, put};
use crate::client::{Bridge, BridgeOptions};
use crate::commands::frame::Frame;
use crate::commands::input;
use crate::exit::Code;
use crate::output::{Format, Output, note};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  Are the records what was written, none changed, missing or moved?
    ryggrad disclosures verify

  Who was told what of a patient, whose pseudonym is in a file?
    ryggrad disclosures by-patient pseudonym.txt

  What was a receiver given this year?
    ryggrad disclosures by-organisation 923609016 --from 2026-01-01T00:00:00Z

  Everything as FHIR AuditEvents, one on each line:
    ryggrad disclosures export --format fhir-auditevent > disclosures.ndjson

For controllers with the role audit, each of its own data. Operators name the controller, and a purpose; every look is
recorded among what it looks at.

EXIT CODES
  0 done, and the records are whole   2 wrong command line   3 not found or refused   4 bridge not reached
  5 the records are not what was written";

/// The command line.
pub type Args = Frame<Command, BridgeOptions>;

/// What can be asked.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Checks that no record was changed, taken out, added or moved.
    Verify {
        #[command(flatten)]
        whose: Whose,
    },
    /// Shows what was disclosed about one person.
    ByPatient {
        /// A file with the person's pseudonym, as the keys of the controller's records have it; - for stdin.
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        period: Period,
    },
    /// Shows what was disclosed to one organisation, or by it for another.
    ByOrganisation {
        /// The organisation.
        organisation: String,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        period: Period,
    },
    /// Writes all of it, a disclosure on each line.
    Export {
        /// In which words.
        #[arg(long = "format", value_name = "FORMAT", value_enum, default_value_t = Words::FhirAuditevent)]
        words: Words,
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        period: Period,
    },
}

/// How disclosures are exported.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Words {
    /// FHIR R4 AuditEvent, after IHE Basic Audit Log Patterns.
    FhirAuditevent,
    /// As Ryggrad keeps them.
    Plain,
}

/// Whose records, and why.
#[derive(Debug, ClapArgs)]
pub struct Whose {
    /// Whose data it is [default: the token's organisation's].
    #[arg(long, value_name = "ORGANISATION")]
    controller: Option<String>,
    /// Why an operator looks; it is recorded.
    #[arg(long, value_name = "TEXT")]
    purpose: Option<String>,
}

impl Whose {
    fn body(&self) -> Value {
        let mut body = json!({});
        put(&mut body, "controller", self.controller.as_ref());
        put(&mut body, "purpose", self.purpose.as_ref());
        body
    }

    fn body_in(&self, period: &Period) -> Value {
        let mut body = self.body();
        period.put_into(&mut body);
        body
    }
}

/// Disclosures of one answer.
const PAGE: u32 = 10_000;
const SHOWN: [&str; 7] = ["number", "at", "receiver", "supplier", "type", "view", "outcome"];

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let (bridge, format) = (args.options.connect()?, args.format.format);
    let mut output = Output::stdout();
    let code = match args.command {
        Command::Verify { whose } => verify(&bridge, &mut output, format, &whose.body()).await?,
        Command::ByPatient { file, whose, period } => {
            let mut body = whose.body_in(&period);
            body["subject"] = json!(input::read(&file, "a text file with one pseudonym")?.trim());
            show(&bridge, &mut output, format, body).await?
        }
        Command::ByOrganisation { organisation, whose, period } => {
            let mut body = whose.body_in(&period);
            body["organisation"] = json!(organisation);
            show(&bridge, &mut output, format, body).await?
        }
        Command::Export { words, whose, period } => {
            let mut body = whose.body_in(&period);
            body["format"] = json!(words.to_possible_value().map(|value| value.get_name().to_owned()));
            let mut count = 0_u64;
            each_page(&bridge, body, |found| {
                count += found.len() as u64;
                Ok(found.iter().try_for_each(|one| output.object(one))?)
            })
            .await?;
            note(format!("{count} disclosures"));
            Code::Ok
        }
    };
    output.flush()?;
    Ok(code)
}

async fn verify(bridge: &Bridge, output: &mut Output, format: Format, body: &Value) -> anyhow::Result<Code> {
    let report = bridge.post(&["v1", "disclosures", "verify"], Some(body)).await?;
    print_one(output, format, &report, &["controller", "intact", "first", "last", "checkpoints", "unsigned", "hash"])?;
    let faults: Vec<&str> = report["faults"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    faults.iter().for_each(|fault| note(format!("fault: {fault}")));
    if report["intact"] == true {
        return Ok(Code::Ok);
    }
    note("These records are not what was written. Keep the topic as it is, and find out who could write to it.");
    Ok(Code::Differs)
}

async fn show(bridge: &Bridge, output: &mut Output, format: Format, body: Value) -> anyhow::Result<Code> {
    let mut all = Vec::new();
    each_page(bridge, body, |found| {
        all.extend(found);
        Ok(())
    })
    .await?;
    let rows: Vec<Value> = if format == Format::Ndjson { all } else { all.iter().map(in_short).collect() };
    print_all(output, format, &rows, &SHOWN, "Nothing was disclosed.")?;
    Ok(Code::Ok)
}

async fn each_page(bridge: &Bridge, mut body: Value, mut take: impl FnMut(Vec<Value>) -> anyhow::Result<()>) -> anyhow::Result<()> {
    body["limit"] = json!(PAGE);
    loop {
        let mut page = bridge.post(&["v1", "disclosures", "search"], Some(&body)).await?;
        if let Value::Array(found) = page["disclosures"].take() {
            take(found)?;
        }
        match page["next"].take() {
            Value::String(next) => body["after"] = json!(next),
            _ => return Ok(()),
        }
    }
}

/// A disclosure in a line.
fn in_short(found: &Value) -> Value {
    let intent = &found["intent"];
    json!({
        "number": found["number"], "at": found["at"], "receiver": intent["receiver"], "supplier": intent["supplier"],
        "type": intent["ce_type"], "view": intent["view"], "outcome": found["outcome"]["how"].as_str().unwrap_or("unknown"),
    })
}
