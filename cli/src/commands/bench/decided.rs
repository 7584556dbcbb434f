//! `ryggrad bench deliver --decided`: what the decision and the records of disclosures cost.
//!
//! One bridge, one Kafka, one kind of event, which the bridge of this benchmark has twice: once for everyone, once as health
//! data. Must never measure a bridge that could be let to skip a decision: there is none.

use std::time::Duration;

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use ryggrad_log::{Publisher, PublisherOptions};
use ryggrad_schemas::catalogue::{DataClass, EventType, Latch, Topic};
use ryggrad_schemas::cloudevents::AVRO;
use ryggrad_schemas::proeve::{self, ProeveMaaling};
use ryggrad_schemas::{Catalogue, EncodedRecord, avro};
use serde_json::{Value, json};

use super::ground::Ground;
use super::median;
use super::receiver::Receiver;
use super::running_bridge::{Api, ORGANISATION, RunningBridge};
use crate::output::{Output, note};

/// Synthetic numbers.
const CONTROLLER: &str = "923609016";
const SUPPLIER: &str = "310000000";
/// The same kind of event, for everyone.
const TWIN: &str = "no.ryggrad.benk.maaling.v1";
const TWIN_TOPIC: &str = "benk.maaling.v1";
/// Patients that the receiver follows, and keys of the events.
const PATIENTS: usize = 500;
const TRANSACTION_EVENTS: usize = 1_000;
const CALLS_MAX: usize = 16;
const ROUND_TIMEOUT: Duration = Duration::from_secs(120);
/// What must be left of the rate.
const OPEN_MIN: f64 = 0.9;
const PROTECTED_MIN: f64 = 0.6;

/// How much is delivered, how often.
pub struct Wanted {
    pub events: usize,
    pub subscriptions: usize,
    pub warm_up_runs: u32,
    pub runs: u32,
}

/// Measures and prints.
pub async fn run(ground: Ground, wanted: Wanted) -> anyhow::Result<()> {
    let Wanted { events, subscriptions, warm_up_runs, runs } = wanted;
    let catalogue = with_twin()?;
    let bridge = RunningBridge::start_with(&ground, Some(catalogue), |config| config.trial = true).await?;
    let (own, supplier) = (bridge.api(), agree(bridge.api()).await?);
    publish(&ground, events).await?;
    note(format!("· {events} measurements of {PATIENTS} patients in each of two topics, {subscriptions} subscriptions"));
    let (receiver, owed) = (Receiver::start()?, (events * subscriptions) as u64);
    let mut rates: [Vec<f64>; 3] = Default::default();
    for round in 0..warm_up_runs + runs {
        let is_warm = round >= warm_up_runs;
        let mut told = Vec::new();
        let ways = [("nothing to decide", own, TWIN), ("open, decided", &supplier, TWIN), ("protected, recorded", own, proeve::TYPE)];
        for (way, (name, api, ce_type)) in ways.into_iter().enumerate() {
            receiver.reset();
            let wish = json!({"types": [ce_type], "sink": receiver.sink(), "start": "beginning", "verify": "none"});
            let made = api.subscribe_all(std::iter::repeat_n(wish, subscriptions)).await?;
            let rate = receiver.wait_for(owed, ROUND_TIMEOUT).await?.rate();
            api.delete_all(&made).await?;
            let came = receiver.received().bodies;
            ensure!(came == owed, "{owed} messages were to be delivered, {came} came in");
            told.push(format!("{name} {rate:.0}"));
            if is_warm {
                rates[way].push(rate);
            }
        }
        note(format!("· round {round}{}: {} a second", if is_warm { "" } else { " (warm-up)" }, told.join(", ")));
    }
    bridge.stop().await?;
    ground.close().await?;
    print(&rates)
}

fn print(rates: &[Vec<f64>; 3]) -> anyhow::Result<()> {
    let [without, open, protected] = rates.each_ref().map(|rates| median(rates).context("nothing was measured"));
    let (without, open, protected) = (without?, open?, protected?);
    let mut stdout = Output::stdout();
    for (name, rate) in [("undecided", without), ("open", open), ("protected", protected)] {
        stdout.line(&format!("figure deliver-{name} {rate:.0} events/s"))?;
    }
    for (name, rate, at_least) in [("open", open, OPEN_MIN), ("protected", protected, PROTECTED_MIN)] {
        let ratio = rate / without;
        stdout.line(&format!("target deliver-{name} at least {at_least:.2}: {}", if ratio >= at_least { "met" } else { "missed" }))?;
        stdout.line(&format!("ratio deliver-{name} {ratio:.2}"))?;
    }
    Ok(stdout.flush()?)
}

/// What a trial's bridge has, and its events once more as something for everyone.
fn with_twin() -> anyhow::Result<&'static Catalogue> {
    let mut catalogue = Catalogue::opened(Latch::Trial).clone();
    let event = catalogue.event(proeve::TYPE).context("the catalogue lacks the trial's type")?.clone();
    let topic = catalogue.topic(&event.topic).context("the catalogue lacks the trial's topic")?.clone();
    let id = catalogue.topics.iter().map(|topic| topic.id).max().unwrap_or_default() + 1;
    let (ce_type, name) = (TWIN.to_owned(), TWIN_TOPIC.to_owned());
    catalogue.events.push(EventType { ce_type, topic: name.clone(), class: DataClass::Open, views: vec!["full".to_owned()], ..event });
    catalogue.topics.push(Topic { id, name, ..topic });
    Ok(Box::leak(Box::new(catalogue)))
}

/// Everything that lets the organisation have the events, and a supplier fetch them for it.
async fn agree(own: &Api) -> anyhow::Result<Api> {
    let operator = own.operator();
    for organisation in [ORGANISATION, CONTROLLER, SUPPLIER] {
        let member = json!({
            "standing": "active", "is_controller": organisation == CONTROLLER, "agreement": {"reference": "A-1"},
            "bases": [{"types": [proeve::TYPE], "law": "pasientjournalloven § 19"}],
            "normen": {"version": "6.0", "signer": "Kari Nordmann", "until": "2099-01-01T00:00:00Z"},
        });
        operator.put(&["v1", "members", organisation], &member, None).await?;
    }
    let controller = own.acting(json!({"organisation": CONTROLLER})).await?;
    let grant = json!({"receiver": ORGANISATION, "types": [proeve::TYPE], "view": "full"});
    controller.make("grants", &grant).await?;
    let relation = |number| json!({"subject": patient(number), "receiver": ORGANISATION, "from": "2026-01-01T00:00:00Z"});
    let relations: Vec<Value> = (0..PATIENTS).map(relation).collect();
    stream::iter(&relations).map(Ok).try_for_each_concurrent(CALLS_MAX, |relation| controller.make("relations", relation)).await?;
    own.make("delegations", &json!({"supplier": SUPPLIER, "types": ["no.ryggrad.*"]})).await?;
    own.acting(json!({"organisation": ORGANISATION, "supplier": SUPPLIER})).await
}

async fn publish(ground: &Ground, events: usize) -> anyhow::Result<()> {
    let protected = proeve::event_type().context("the catalogue lacks the trial's type")?;
    let publisher = Publisher::start(ground.connection(), "ryggrad-bench", &PublisherOptions::default()).await?;
    for (ce_type, topic) in [(TWIN, TWIN_TOPIC), (proeve::TYPE, &protected.topic)] {
        let records: Vec<EncodedRecord> = (0..events).map(|number| record(number, ce_type, topic)).collect::<anyhow::Result<_>>()?;
        for transaction in records.chunks(TRANSACTION_EVENTS) {
            publisher.publish(transaction.into(), ()).await?;
        }
    }
    Ok(())
}

fn record(number: usize, ce_type: &str, topic: &str) -> anyhow::Result<EncodedRecord> {
    let measured = ProeveMaaling {
        pasient: patient(number % PATIENTS),
        maaling_id: format!("maaling-{number}"),
        tidspunkt: "2026-02-01T08:00:00Z".to_owned(),
        maalingstype: "puls".to_owned(),
        verdi: 72.0,
        enhet: "/min".to_owned(),
        kommentar: None,
    };
    let mut attributes = measured.attributes(CONTROLLER.parse()?);
    attributes.ce_type = ce_type.to_owned();
    let (topic, key, value) = (topic.to_owned(), measured.pasient.clone(), Some(avro::encode(&measured)?));
    Ok(EncodedRecord { topic, partition: None, key, value, headers: attributes.to_headers(AVRO) })
}

fn patient(number: usize) -> String {
    format!("pasient-{number}")
}
