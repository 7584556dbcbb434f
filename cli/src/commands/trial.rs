//! `ryggrad trial`: made-up measurements of made-up patients, for installations that are trials.
//!
//! A pseudonym may stand on this command line, and be printed, since nobody is behind it. Must never publish where no
//! bridge has opened the trial's topic, nor take an identity number, be it synthetic.

use std::time::Duration;

use clap::{Args as ClapArgs, Subcommand};
use jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use ryggrad_bridge_core::access::is_pseudonym;
use ryggrad_log::{Connection, Publisher, PublisherOptions, topics};
use ryggrad_schemas::cloudevents::{AVRO, Attributes};
use ryggrad_schemas::event_id::event_id;
use ryggrad_schemas::proeve::{self, ProeveMaaling, SOURCE};
use ryggrad_schemas::{EncodedRecord, Organisasjonsnummer, avro};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::client::KafkaOptions;
use crate::commands::frame::Frame;
use crate::exit::{Code, Stop};
use crate::output::{Format, Output, note};

/// What to type for what.
pub const EXAMPLES: &str = "\
EXAMPLES
  Ten measurements of a patient of yours:
    ryggrad trial publish --controller 312345676 --patient pasient-1 --count 10

  One a second, of two kinds, until Ctrl-C; the same values every time:
    ryggrad trial publish --controller 312345676 --patient pasient-1 --count 1000000 --every-ms 1000 --type puls --type temperatur --seed 7

  Let Kafka forget the patient:
    ryggrad trial remove --controller 312345676 --patient pasient-1

The topic is made by a bridge that runs as a trial: ryggrad up --trial, or ryggrad bridge --trial.

EXIT CODES
  0 done   1 failed   2 wrong command line   3 no trial here   4 Kafka not reached";

/// Its command line.
pub type Args = Frame<Command, KafkaOptions>;

/// What is measured: name, unit, and between what.
const KINDS: [(&str, &str, f64, f64); 4] =
    [("puls", "/min", 50.0, 110.0), ("temperatur", "Cel", 36.0, 39.0), ("oksygenmetning", "%", 90.0, 100.0), ("vekt", "kg", 55.0, 95.0)];

/// Measurements in one transaction where nobody asks for a pause.
const BATCH_EVENTS_MAX: u64 = 100;

/// What can be done in a trial.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Publishes measurements.
    Publish(PublishArgs),
    /// Writes a tombstone: what was published of a patient goes as Kafka compacts the topic.
    Remove(PatientArgs),
}

/// Of whom.
#[derive(Debug, ClapArgs)]
pub struct PatientArgs {
    /// Whose data it is: the organisation number of the controller.
    #[arg(long, value_name = "NUMBER")]
    controller: Organisasjonsnummer,
    /// The patient's pseudonym. Never an identity number.
    #[arg(long, value_name = "PSEUDONYM")]
    patient: String,
}

/// What `publish` is given.
#[derive(Debug, ClapArgs)]
pub struct PublishArgs {
    #[command(flatten)]
    of: PatientArgs,
    /// How many measurements.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// How long to wait between two of them.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    every_ms: u64,
    /// What is measured, in turn [default: puls].
    #[arg(long = "type", value_name = "TYPE", value_parser = KINDS.map(|(name, ..)| name))]
    types: Vec<String>,
    /// Makes the same ids and values again.
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
}

impl PatientArgs {
    /// Not when the command line is read: what is wrong there is repeated, and this may be a number of a person.
    fn check(&self) -> Result<(), Stop> {
        let remedy = "a pseudonym has at most 128 visible ASCII characters, and is never an identity number";
        if is_pseudonym(&self.patient) { Ok(()) } else { Err(Stop::usage("--patient is no pseudonym", remedy)) }
    }
}

/// Runs the command.
pub async fn run(args: Args, stop: CancellationToken) -> anyhow::Result<Code> {
    let (Command::Publish(PublishArgs { of, .. }) | Command::Remove(of)) = &args.command;
    of.check()?;
    let connection = args.options.connection()?;
    let mut output = Output::stdout();
    match args.command {
        Command::Publish(asked) => publish(&connection, &asked, args.format.format, &mut output, &stop).await?,
        Command::Remove(of) => remove(&connection, &of, args.format.format, &mut output).await?,
    }
    output.flush()?;
    Ok(Code::Ok)
}

async fn publish(
    connection: &Connection,
    asked: &PublishArgs,
    format: Format,
    output: &mut Output,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let seed = asked.seed.unwrap_or_else(rand::random);
    let (mut rng, controller) = (StdRng::seed_from_u64(seed), asked.of.controller);
    let publisher = publisher(connection, controller).await?;
    let (batch_max, mut done) = (if asked.every_ms > 0 { 1 } else { BATCH_EVENTS_MAX }, 0);
    while done < asked.count && !stop.is_cancelled() {
        let (first, end) = (done, asked.count.min(done + batch_max));
        let batch: Vec<ProeveMaaling> = (first..end).map(|index| measurement(asked, seed, index, &mut rng)).collect();
        let records = batch.iter().map(|maaling| Ok(record(&maaling.attributes(controller), Some(avro::encode(maaling)?))));
        publisher.publish(records.collect::<anyhow::Result<Vec<_>>>()?.into(), ()).await?;
        for maaling in &batch {
            let id = maaling.attributes(controller).id;
            match format {
                Format::Ndjson => output.object(&json!({
                    "id": id, "type": maaling.maalingstype, "value": maaling.verdi, "unit": maaling.enhet, "time": maaling.tidspunkt,
                }))?,
                Format::Table => {
                    output.line(&format!("{id}  {}  {} {} {}", maaling.tidspunkt, maaling.maalingstype, maaling.verdi, maaling.enhet))?
                }
            }
        }
        output.flush()?;
        done = end;
        if asked.count > batch_max {
            note(format!("· {done} of {} published", asked.count));
        }
        if done < asked.count {
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(asked.every_ms)) => {}
                () = stop.cancelled() => {}
            }
        }
    }
    Ok(())
}

fn measurement(asked: &PublishArgs, seed: u64, index: u64, rng: &mut StdRng) -> ProeveMaaling {
    let wanted = |kind: &&(&str, &str, f64, f64)| asked.types.iter().any(|name| name == kind.0);
    let mut kinds: Vec<_> = KINDS.iter().filter(wanted).collect();
    if kinds.is_empty() {
        kinds.push(&KINDS[0]);
    }
    let (maalingstype, enhet, least, most) = *kinds[usize::try_from(index).unwrap_or_default() % kinds.len()];
    ProeveMaaling {
        pasient: asked.of.patient.clone(),
        maaling_id: event_id(SOURCE, &format!("{seed}/{index}"), &asked.of.patient, "maaling").to_string(),
        tidspunkt: Timestamp::now().to_string(),
        maalingstype: maalingstype.to_owned(),
        // One decimal is what such instruments show.
        verdi: (rng.random_range(least..most) * 10.0).round() / 10.0,
        enhet: enhet.to_owned(),
        kommentar: None,
    }
}

async fn remove(connection: &Connection, of: &PatientArgs, format: Format, output: &mut Output) -> anyhow::Result<()> {
    let now = Timestamp::now().to_string();
    let attributes = proeve::attributes(&of.patient, of.controller, &format!("fjernet/{now}"), &now);
    publisher(connection, of.controller).await?.publish([record(&attributes, None)].into(), ()).await?;
    match format {
        Format::Ndjson => output.object(&json!({"id": attributes.id, "time": now}))?,
        Format::Table => output.line(&format!("{}  {now}  removed", attributes.id))?,
    }
    Ok(())
}

fn record(attributes: &Attributes, value: Option<Vec<u8>>) -> EncodedRecord {
    let topic = proeve::event_type().map(|event| event.topic.clone()).unwrap_or_default();
    let key = attributes.subject.clone().unwrap_or_default();
    EncodedRecord { topic, partition: None, key, value, headers: attributes.to_headers(AVRO) }
}

/// One for each controller: whoever publishes for the same one takes over.
async fn publisher(connection: &Connection, controller: Organisasjonsnummer) -> anyhow::Result<Publisher> {
    let topic = proeve::event_type().map(|event| event.topic.as_str()).unwrap_or_default();
    if !topics::list(connection).await?.contains_key(topic) {
        return Err(Stop {
            code: Code::Refused,
            what: format!("there is no topic {topic}: no bridge at this Kafka is a trial"),
            remedy: Some("start one with ryggrad up --trial or ryggrad bridge --trial, which makes the topic".to_owned()),
        }
        .into());
    }
    Ok(Publisher::start(connection, &format!("ryggrad-trial.{controller}"), &PublisherOptions::default()).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        asked: PublishArgs,
    }

    fn parsed(patient: &str, more: &[&str]) -> Result<PublishArgs, String> {
        let line = [&["trial", "--controller", "312345676", "--patient", patient], more].concat();
        Line::try_parse_from(line).map(|line| line.asked).map_err(|error| error.to_string())
    }

    #[test]
    fn the_same_seed_makes_the_same_measurements_and_types_take_turns() {
        let asked = parsed("p1", &["--type", "vekt", "--type", "puls", "--seed", "7"]).unwrap();
        let made = |asked: &PublishArgs| {
            let mut rng = StdRng::seed_from_u64(7);
            (0..4).map(|index| measurement(asked, 7, index, &mut rng)).collect::<Vec<_>>()
        };
        let (one, other) = (made(&asked), made(&asked));
        let told = |all: &[ProeveMaaling]| all.iter().map(|m| (m.maaling_id.clone(), m.verdi, m.enhet.clone())).collect::<Vec<_>>();
        assert_eq!(told(&one), told(&other));
        assert_eq!(one.iter().map(|m| m.maalingstype.as_str()).collect::<Vec<_>>(), ["puls", "vekt", "puls", "vekt"]);
        let ids = |asked: &PublishArgs| made(asked).iter().map(|m| m.attributes(asked.of.controller).id).collect::<Vec<_>>();
        assert_ne!(ids(&asked), ids(&parsed("p2", &[]).unwrap()));
    }

    #[test]
    fn an_identity_number_is_no_pseudonym() {
        let number = "1".repeat(11);
        for (patient, taken) in [("pasient-1", true), ("1234567890", true), (number.as_str(), false), ("to ord", false), ("", false)] {
            let checked = parsed(patient, &[]).unwrap().of.check();
            assert_eq!(checked.is_ok(), taken, "{patient}");
            assert!(!format!("{checked:?}").contains(&number));
        }
        assert!(parsed("p1", &["--type", "humør"]).is_err());
    }
}
