//! `ryggrad consume`: reads a topic from Kafka itself and prints its events.
//!
//! Reading disturbs nobody: no group is joined and nothing is committed. What cannot be decoded
//! is told and never ends the reading.

use std::collections::BTreeSet;

use clap::Args as ClapArgs;
use ryggrad_bridge_core::access::kafka_access::Outlet;
use ryggrad_consumers::{Event, Filter, Item, Payload, Place, Point, Reader, Request, Undecodable, Until};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::Latch;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use ryggrad_schemas::virksomhet::Endringstype;
use serde_json::{Value, json};

use crate::client::{Interrupts, KafkaAndOperatorOptions, now_ms, rfc3339};
use crate::exit::{Code, Stop};
use crate::output::{self, Format, FormatOption, Output, note, printable};

/// More broken records than this are counted, not named.
const UNDECODABLE_NAMED_MAX: usize = 20;
const SUMMARY_CHARS_MAX: usize = 100;

const EXAMPLES: &str = "\
EXAMPLES
  Everything there is:
    ryggrad consume

  What happens from now on:
    ryggrad consume --follow

  New units of the last two hours, as JSON:
    ryggrad consume --from 2h --endringstype NY -o ndjson | jq .data.virksomhet.navn

  The story of one unit:
    ryggrad consume --key 312345676

  Events of a patient at a controller, which only show what they hold to who says why; it is recorded:
    ryggrad consume proeve.maaling.v1 --key pasient-1 --reveal 'feil i kurve, sak 4711' --controller 312345676

  How far each source has been read:
    ryggrad consume ryggrad.source-positions

TIMES
  --from and --to take beginning, end, an offset (1200), a time of appending (2026-01-31T12:00:00Z)
  or how long ago (30s, 15m, 2h, 1d). One key's events come in order; keys are interleaved.

EXIT CODES
  0 done   1 failed, interrupted, or some records could not be decoded   2 wrong command line
  3 no such topic   4 Kafka not reached";

/// Reads events from a topic and prints them.
#[derive(Debug, ClapArgs)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The topic [default: the one that carries --type, else grunndata.virksomhet.v1].
    topic: Option<String>,
    /// Only these event types, exact or a prefix ending in `.*`; may be repeated.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// Only these keys, e.g. an organisasjonsnummer; may be repeated.
    #[arg(long = "key", value_name = "KEY", value_delimiter = ',')]
    keys: Vec<String>,
    /// Only these kinds of change, e.g. NY or SLETTET; may be repeated.
    #[arg(long = "endringstype", value_name = "KIND", value_delimiter = ',', value_parser = endringstype)]
    endringstyper: Vec<Endringstype>,
    /// Only these partitions; may be repeated.
    #[arg(long = "partition", value_name = "NUMBER", value_delimiter = ',')]
    partitions: Vec<i32>,
    /// Where to begin [default: beginning; with --follow: end].
    #[arg(long, value_name = "POINT")]
    from: Option<Point>,
    /// Where to end, at the latest where the topic ends now.
    #[arg(long, value_name = "POINT", default_value = "end", conflicts_with = "follow")]
    to: Point,
    /// Print this many events, then end.
    #[arg(long, value_name = "EVENTS")]
    limit: Option<u64>,
    /// Wait for new events until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Show what events of --controller hold that are not for everyone: why you look. The bridge records it first.
    #[arg(long, value_name = "PURPOSE", requires = "controller")]
    reveal: Option<String>,
    /// Whose events --reveal shows.
    #[arg(long, value_name = "NUMBER", requires = "reveal")]
    controller: Option<Organisasjonsnummer>,
    #[command(flatten)]
    format: FormatOption,
    #[command(flatten)]
    options: KafkaAndOperatorOptions,
}

fn endringstype(text: &str) -> Result<Endringstype, String> {
    serde_json::from_value(Value::from(text.to_uppercase()))
        .map_err(|_| "use NY, ENDRET, OPPHOERT, SLETTET, FJERNET, KORRIGERT, ANNULLERT or UKJENT".to_owned())
}

/// Runs the command.
pub async fn run(args: Args) -> anyhow::Result<Code> {
    let connection = args.options.connection()?;
    let request = request(&args)?;
    if let (Some(purpose), Some(controller)) = (&args.reveal, args.controller) {
        let look = json!({"controller": controller, "purpose": purpose});
        args.options.connect()?.post(&["v1", "disclosures", "reveal"], Some(&look)).await?;
    }
    let hides = Hides {
        topic: Catalogue::built_in().is_protected(&request.topic) || Outlet::named(&request.topic).is_some(),
        shown: args.controller,
    };
    let mut interrupts = Interrupts::take()?;
    let mut reader = tokio::select! {
        reader = Reader::open(&connection, request, now_ms()) => reader?,
        () = interrupts.next() => return Ok(Code::Failure),
    };
    let mut printer = Printer::new(Output::stdout(), args.format.format, args.follow, hides)?;
    let interrupted = loop {
        let item = tokio::select! {
            item = reader.next() => item,
            () = interrupts.next() => break true,
        };
        let Some(item) = item else { break false };
        printer.take(item?)?;
    };
    printer.end(reader.scanned_records(), interrupted)
}

fn request(args: &Args) -> Result<Request, Stop> {
    let filter = Filter {
        types: args.types.clone(),
        keys: args.keys.iter().cloned().collect(),
        endringstyper: args.endringstyper.clone(),
        ..Filter::default()
    };
    Ok(Request {
        partitions: args.partitions.clone(),
        from: args.from.unwrap_or(if args.follow { Point::End } else { Point::Beginning }),
        until: if args.follow { Until::Never } else { Until::Point(args.to) },
        filter,
        events_max: args.limit,
        ..Request::everything(topic(args)?)
    })
}

fn topic(args: &Args) -> Result<String, Stop> {
    if let Some(topic) = &args.topic {
        return Ok(topic.clone());
    }
    let catalogue = Catalogue::built_in();
    if args.types.is_empty() {
        return catalogue
            .events
            .first()
            .map(|event| event.topic.clone())
            .ok_or_else(|| Stop::usage("the catalogue is empty", "name a topic"));
    }
    let carrying = |catalogue: &'static Catalogue| -> BTreeSet<&str> {
        args.types.iter().flat_map(|pattern| catalogue.matching(pattern)).map(|event| event.topic.as_str()).collect()
    };
    // What is not there in every installation is meant where nothing else is.
    let open = carrying(Catalogue::opened(Latch::Shut));
    let names: Vec<&str> = if open.is_empty() { carrying(catalogue) } else { open }.into_iter().collect();
    match names[..] {
        [topic] => Ok(topic.to_owned()),
        [] => {
            let known: Vec<&str> = catalogue.events.iter().map(|event| event.ce_type.as_str()).collect();
            Err(Stop {
                code: Code::Refused,
                what: format!("no event type fits {}", args.types.join(", ")),
                remedy: Some(format!("there is {}", known.join(", "))),
            })
        }
        _ => Err(Stop::usage("these types are carried by several topics", format!("name one of {}", names.join(", ")))),
    }
}

/// What stands where something is not shown: no event holds nothing.
const HIDDEN: Payload = Payload::Json(Value::Null);

/// Whose events show nothing but what is known of them anyway.
struct Hides {
    /// The topic is not for everyone.
    topic: bool,
    /// Whose events are shown all the same.
    shown: Option<Organisasjonsnummer>,
}

impl Hides {
    /// The event as it may be seen, and whether something is missing.
    fn of(&self, mut event: Event) -> (Event, bool) {
        let controller = event.attributes.as_ref().and_then(|attributes| attributes.extensions.get("controller")?.parse().ok());
        let hidden = self.topic && event.payload != Payload::Tombstone && (controller.is_none() || controller != self.shown);
        if hidden {
            event.payload = HIDDEN;
        }
        (event, hidden)
    }
}

struct Printer {
    hides: Hides,
    hidden: u64,
    output: Output,
    format: Format,
    follow: bool,
    events: u64,
    undecodable: u64,
    undecodable_named: Vec<String>,
    /// Whether the user knows that Kafka is away.
    told_away: bool,
}

impl Printer {
    fn new(mut output: Output, format: Format, follow: bool, hides: Hides) -> Result<Self, output::Error> {
        if format == Format::Table {
            output.line(&columns("APPENDED", "PLACE", "KEY", "ENDRINGSTYPE", "NAVN"))?;
            output.flush()?;
        }
        Ok(Self { hides, hidden: 0, output, format, follow, events: 0, undecodable: 0, undecodable_named: Vec::new(), told_away: false })
    }

    fn take(&mut self, item: Item) -> Result<(), output::Error> {
        match item {
            Item::Event(event) => self.event(*event),
            Item::Undecodable(undecodable) => {
                self.broken(&undecodable);
                Ok(())
            }
            Item::Away { reason } => {
                // The client library says so again and again.
                if !std::mem::replace(&mut self.told_away, true) {
                    note(format!("Kafka is away ({reason}); waiting."));
                }
                Ok(())
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<(), output::Error> {
        let (event, is_hidden) = self.hides.of(event);
        self.events += 1;
        self.hidden += u64::from(is_hidden);
        self.told_away = false;
        match self.format {
            Format::Table => self.output.line(&line(&event))?,
            Format::Ndjson => self.output.object(&to_json(&event))?,
        }
        // Somebody may be watching; a bounded read is quicker in large pieces.
        if self.follow { self.output.flush() } else { Ok(()) }
    }

    fn broken(&mut self, undecodable: &Undecodable) {
        self.undecodable += 1;
        if self.undecodable_named.len() >= UNDECODABLE_NAMED_MAX {
            return;
        }
        let text = describe(undecodable);
        if self.follow {
            note(&text);
        }
        self.undecodable_named.push(text);
    }

    fn end(mut self, scanned_records: u64, interrupted: bool) -> anyhow::Result<Code> {
        self.output.flush()?;
        let cut = interrupted && !self.follow;
        let interrupted = if cut { "; interrupted before the end" } else { "" };
        note(format!("events {}, records read {scanned_records}{interrupted}", self.events));
        if self.hidden > 0 {
            note(format!("{} of them are not for everyone, and show nothing of what they hold: see --reveal", self.hidden));
        }
        if self.undecodable > 0 {
            self.undecodable_named.iter().for_each(note);
            note(format!("records that could not be decoded {}", self.undecodable));
        }
        Ok(if cut || self.undecodable > 0 { Code::Failure } else { Code::Ok })
    }
}

fn describe(undecodable: &Undecodable) -> String {
    let mut text = undecodable.to_string();
    let mut cause = std::error::Error::source(undecodable);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    printable(&text)
}

fn columns(appended: &str, place: &str, key: &str, endringstype: &str, navn: &str) -> String {
    format!("{appended:<24}  {place:>10}  {key:<11}  {endringstype:<12}  {navn}")
}

fn line(event: &Event) -> String {
    let Place { partition, offset, .. } = &event.place;
    let (kind, text) = match &event.payload {
        payload if *payload == HIDDEN => (event.endringstype().unwrap_or_default(), "(not for everyone)".to_owned()),
        Payload::Tombstone => ("(tombstone)", event.endringstype().unwrap_or_default().to_owned()),
        Payload::Json(data) if event.navn().is_none() => {
            (event.endringstype().unwrap_or_default(), data.to_string().chars().take(SUMMARY_CHARS_MAX).collect())
        }
        _ => (event.endringstype().unwrap_or_default(), event.navn().unwrap_or_default().to_owned()),
    };
    let key = event.key.as_deref().unwrap_or_default();
    printable(&columns(&rfc3339(event.timestamp_ms), &format!("{partition}/{offset}"), key, kind, &text))
}

fn to_json(event: &Event) -> Value {
    let mut structured = event.to_structured();
    let Place { topic, partition, offset } = &event.place;
    let kafka = json!({
        "topic": topic, "partition": partition, "offset": offset, "timestamp_ms": event.timestamp_ms,
        "key": event.key, "tombstone": event.payload == Payload::Tombstone,
    });
    if let Value::Object(members) = &mut structured {
        if event.payload == HIDDEN {
            members.remove("data");
        }
        members.insert("_kafka".to_owned(), kafka);
    }
    structured
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::Page;
    use clap::Parser;
    use ryggrad_schemas::LogRecord;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn everything() -> Hides {
        Hides { topic: false, shown: None }
    }

    fn parsed(line: &str) -> Args {
        Cli::try_parse_from(line.split(' ')).unwrap().args
    }

    fn record(value: Option<&[u8]>) -> LogRecord {
        LogRecord {
            topic: "t".to_owned(),
            partition: 2,
            offset: 17,
            timestamp_ms: 0,
            key: Some("312345676".to_owned()),
            value: value.map(<[u8]>::to_vec),
            headers: ryggrad_schemas::Headers::default(),
        }
    }

    #[test]
    fn options_become_a_request() {
        let events = &Catalogue::built_in().events;
        for (line, from, until) in [
            ("x", Point::Beginning, Until::Point(Point::End)),
            ("x --follow", Point::End, Until::Never),
            ("x -f --from beginning", Point::Beginning, Until::Never),
            ("x --from 15m --to 1200", Point::Ago { ms: 900_000 }, Until::Point(Point::Offset(1200))),
        ] {
            let request = request(&parsed(line)).unwrap();
            assert_eq!((request.from, request.until, request.topic), (from, until, events[0].topic.clone()), "{line}");
        }
        let filtered =
            request(&parsed("x --key a,b --key c --endringstype ny,SLETTET --type no.ryggrad.* --partition 1 --limit 5")).unwrap();
        assert_eq!(filtered.filter.keys.len(), 3);
        assert_eq!(filtered.filter.endringstyper, [Endringstype::Ny, Endringstype::Slettet]);
        assert_eq!((filtered.partitions, filtered.events_max), (vec![1], Some(5)));
    }

    #[test]
    fn what_is_not_for_everyone_shows_what_is_known_of_it_and_no_more() {
        use ryggrad_schemas::cloudevents::AVRO;
        use ryggrad_schemas::proeve::ProeveMaaling;
        let measured =
            ProeveMaaling { pasient: "pasient-1".to_owned(), maalingstype: "puls".to_owned(), verdi: 72.0, ..ProeveMaaling::default() };
        let mut attributes = measured.attributes("312345676".parse().unwrap());
        attributes.time = Some("2026-01-31T08:00:00Z".to_owned());
        let value = ryggrad_schemas::avro::encode(&measured).unwrap();
        let event = || Event::decode(LogRecord { headers: attributes.to_headers(AVRO), ..record(Some(&value)) }).unwrap();
        let shown = |topic, shown: Option<&str>| {
            let hides = Hides { topic, shown: shown.map(|number| number.parse().unwrap()) };
            let (event, is_hidden) = hides.of(event());
            let (line, json) = (line(&event), to_json(&event));
            assert_eq!((json["data"]["verdi"] == 72.0, line.contains("72")), (!is_hidden, !is_hidden), "{line} {json}");
            assert_eq!((json["subject"].as_str(), json["controller"].as_str()), (Some("pasient-1"), Some("312345676")));
            !is_hidden
        };
        assert!(shown(false, None) && shown(true, Some("312345676")));
        assert!(!shown(true, None) && !shown(true, Some("310000019")));
    }

    #[test]
    fn wrong_options_are_usage_errors() {
        for line in [
            "x --reveal why",
            "x --controller 312345676",
            "x --follow --to end",
            "x --from yesterday",
            "x --endringstype BORTE",
            "x --limit some",
        ] {
            assert_eq!(Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn the_topic_follows_from_the_type() {
        assert_eq!(topic(&parsed("x some.topic --type no.*")).unwrap(), "some.topic");
        assert_eq!(topic(&parsed("x --type no.ryggrad.grunndata.virksomhet.*")).unwrap(), "grunndata.virksomhet.v1");
        assert_eq!(topic(&parsed("x --type no.such")).unwrap_err().code, Code::Refused);
    }

    #[test]
    fn tombstones_and_broken_records_are_visible() {
        let page = Page::default();
        let mut printer = Printer::new(Output::to(page.clone()), Format::Table, false, everything()).unwrap();
        printer.take(Item::Event(Box::new(Event::decode(record(None)).unwrap()))).unwrap();
        printer.take(Item::Undecodable(Event::decode(record(Some(b"x"))).unwrap_err())).unwrap();
        let named = printer.undecodable_named.clone();
        assert_eq!(printer.end(2, false).unwrap(), Code::Failure);
        assert!(page.text().contains("1970-01-01T00:00:00.000Z        2/17  312345676    (tombstone)"), "{}", page.text());
        assert!(named[0].starts_with("the record at t/2 offset 17 cannot be decoded: it is no CloudEvent"), "{named:?}");
    }

    #[test]
    fn a_bounded_read_that_is_interrupted_failed_and_an_endless_one_did_not() {
        let end = |follow, interrupted| {
            Printer::new(Output::to(Page::default()), Format::Ndjson, follow, everything()).unwrap().end(0, interrupted).unwrap()
        };
        assert_eq!([end(false, false), end(false, true), end(true, true)], [Code::Ok, Code::Failure, Code::Ok]);
    }

    #[test]
    fn json_tells_the_place() {
        let shown = to_json(&Event::decode(record(Some(b"{\"position\":1.50}"))).unwrap());
        let expected = r#"{"_kafka":{"key":"312345676","offset":17,"partition":2,"timestamp_ms":0,"tombstone":false,"topic":"t"},"data":{"position":1.50}}"#;
        assert_eq!(shown.to_string(), expected);
    }
}
