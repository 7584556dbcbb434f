//! `ryggrad bench deliver`: from committed events to an endpoint, against a bare HTTP client.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use ryggrad_bridge::BridgeConfig;
use ryggrad_bridge_core::signature::Secret;
use ryggrad_log::{Publisher, PublisherOptions};
use ryggrad_producers::{ENHETSREGISTERET, ProducerConfig};
use ryggrad_schemas::{Catalogue, EncodedRecord, LogRecord};
use serde_json::json;
use uuid::Uuid;

use super::bare_client::{Load, Message, post_all, post_all_by_channel, post_all_by_socket};
use super::decided::{self, Wanted};
use super::ground::Ground;
use super::population::Population;
use super::receiver::{Received, Receiver};
use super::running_bridge::RunningBridge;
use super::wrk::Wrk;
use super::{Names, Rates};
use crate::client;
use crate::output::note;

const RUN_TIMEOUT: Duration = Duration::from_secs(60);
/// Until then the broker's virtual machine mostly compiles itself.
const WARM_UP_RUNS: u32 = 3;

/// From committed events to an endpoint, against a bare HTTP client
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench deliver                              10 subscriptions, five rounds of 20000 events
  ./ryggrad bench deliver --subscriptions 1            what is shared by nobody
  ./ryggrad bench deliver --events 5000 --runs 3       quicker, less certain
  ./ryggrad bench deliver --decided                    with and without decisions and their records

WHAT IS COMPARED
  Ryggrad   a real bridge with its default settings and new subscriptions from the beginning of a
            topic that holds the events already: read Kafka, decode Avro, match, render JSON, sign,
            POST, settle and store the cursors, in order for each key of each subscription.
  baseline  a bare HTTP client: hyper's, posting the very same requests, rendered and signed
            beforehand, over as many kept-alive connections as the bridge has at most.
  socket    for comparison, the same bytes written to as many sockets by no client at all.
  channel   for comparison, the bridge's webhook channel with nothing around it: it signs and posts
            the same bodies, rendered beforehand.
  check     wrk posting one body of middling size over as many connections: the baseline must
            reach 0.8 of it.

  All post to one receiver in this process, on a thread of its own, that reads bodies, counts
  them and answers 204. The rate is what the receiver counts from the first body to the last.
  Events come from the simulator: thousands of keys, some of them hot. Rounds take turns after
  three to warm up; figures are medians.

  It always starts a broker of its own: the bridge delivers the catalogue's topics only, and
  invented events must never enter a real one.

WHAT LIMITS IT
  CPU for each delivery: rendering, signing and the HTTP exchange. Broker and receiver share the
  machine.")]
pub struct DeliverArgs {
    /// Events in the topic
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    events: u32,
    /// Subscriptions, each of which gets all events
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    subscriptions: u32,
    /// Measured rounds, after three to warm up
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// What the decision and the records of disclosures cost, instead
    #[arg(long)]
    decided: bool,
    /// Folder with Kafka's jars
    #[arg(long, env = "RYGGRAD_KAFKA_JARS", value_name = "FOLDER", hide = true)]
    jars: Option<PathBuf>,
}

/// Measures and prints.
pub async fn run(args: DeliverArgs) -> anyhow::Result<()> {
    let ground = Ground::open(None, args.jars.as_ref()).await?;
    if args.decided {
        let (events, subscriptions) = (usize::try_from(args.events)?, usize::try_from(args.subscriptions)?);
        return decided::run(ground, Wanted { events, subscriptions, warm_up_runs: WARM_UP_RUNS, runs: args.runs }).await;
    }
    let secret = Secret::from_bytes(rand::random::<[u8; 32]>().to_vec())?;
    let messages = Arc::new(publish(&ground, usize::try_from(args.events)?, &secret).await?);
    let (bytes, times) = (messages.iter().map(|message| message.body.len() as u64).sum::<u64>(), usize::try_from(args.subscriptions)?);
    let middling = middling(&messages, bytes)?;
    note(format!("· {} events in the topic, bodies of {} bytes, {times} subscriptions", messages.len(), bytes / messages.len() as u64));
    let wrk = Wrk::prepare(ground.folder(), middling).await?;
    if wrk.is_none() {
        note("warning: wrk is missing, so the baseline goes unchecked; apt-get install wrk, or start with ./ryggrad bench");
    }
    let defaults = BridgeConfig::default();
    let connections = defaults.endpoint_in_flight_max.min(defaults.in_flight_max * times);
    let load = Load { messages: Arc::clone(&messages), times, connections };
    let owed = Owed { bodies: load.requests() as u64, bytes: bytes * times as u64 };
    let receiver = Receiver::start()?;
    let bridge = RunningBridge::start(&ground, |_| ()).await?;
    let mut rates = Rates::default();
    for round in 0..WARM_UP_RUNS + args.runs {
        let mut measured = Rates::default();
        receiver.reset();
        post_all(receiver.address(), &load).await?;
        measured.baseline.push(owed.complete(receiver.received())?.rate());
        receiver.reset();
        post_all_by_socket(receiver.address(), &load).await?;
        measured.besides.insert("socket", vec![owed.complete(receiver.received())?.rate()]);
        receiver.reset();
        post_all_by_channel(&receiver.sink(), &secret, &load).await?;
        measured.besides.insert("channel", vec![owed.complete(receiver.received())?.rate()]);
        measured.ours.push(deliver(&bridge, &receiver, times, &owed).await?.rate());
        if let Some(wrk) = &wrk {
            receiver.reset();
            wrk.run(&receiver.sink(), connections).await?;
            measured.check.push(receiver.received().rate());
            receiver.is_quiet().await;
        }
        note(format!("· round {round}{}: {}", if round < WARM_UP_RUNS { " (warm-up)" } else { "" }, measured.in_short()));
        if round >= WARM_UP_RUNS {
            rates.append(measured);
        }
    }
    bridge.stop().await?;
    ground.close().await?;
    rates.print("deliver", &Names { baseline: "bare client", check: "wrk" })
}

/// What has to come in.
struct Owed {
    bodies: u64,
    bytes: u64,
}

impl Owed {
    /// What came in, if it is every message as often as it is owed.
    fn complete(&self, received: Received) -> anyhow::Result<Received> {
        ensure!(received.bodies == self.bodies, "{} messages were to be delivered, {} came in", self.bodies, received.bodies);
        ensure!(received.bytes == self.bytes, "{} bytes were to be delivered, {} came in", self.bytes, received.bytes);
        Ok(received)
    }
}

/// Publishes a registry's changes and gives the messages that they become.
async fn publish(ground: &Ground, events: usize, secret: &Secret) -> anyhow::Result<Vec<Message>> {
    let catalogue = Catalogue::built_in();
    let source = catalogue.source(ENHETSREGISTERET).context("the catalogue lacks Enhetsregisteret")?;
    let event_type = catalogue.event(&source.event).context("the catalogue lacks its event type")?;
    let topic = catalogue.topic(&event_type.topic).context("the catalogue lacks its topic")?;
    let config = ProducerConfig::default();
    let population = Population::fetch(source, events, config.page_items_max).await?;
    let (records, _) = population.records(source, event_type, config.transaction_events_max)?;
    let publisher = Publisher::start(ground.connection(), &source.name, &PublisherOptions::default()).await?;
    let mut rest = records.as_slice();
    while !rest.is_empty() {
        let mut count = config.transaction_events_max.min(rest.len());
        // A tombstone goes with its event, or it is an event of its own.
        count += rest[count..].iter().take_while(|record| record.value.is_none()).count();
        let (transaction, after) = rest.split_at(count);
        publisher.publish(transaction.into(), ()).await?;
        rest = after;
    }
    let subscription = Uuid::new_v4();
    let timestamp_s = client::now_ms() / 1_000;
    let mut messages = Vec::with_capacity(events);
    ground
        .read(topic, |record: LogRecord| {
            // A tombstone is the echo of the event before it, and no delivery of its own.
            if record.value.is_some() {
                let number = messages.len() as u64 + 1;
                messages.push(Message::of(&record, subscription, secret, timestamp_s, number));
            }
        })
        .await?;
    let messages = messages.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let published = records.iter().filter(|record: &&EncodedRecord| record.topic == topic.name && record.value.is_some()).count();
    ensure!(messages.len() == published, "{published} events were published, the broker has {}", messages.len());
    Ok(messages)
}

/// The message whose size comes nearest to the mean.
fn middling(messages: &[Message], bytes: u64) -> anyhow::Result<&Message> {
    let mean = bytes / (messages.len() as u64).max(1);
    messages.iter().min_by_key(|message| mean.abs_diff(message.body.len() as u64)).context("there are no events")
}

/// New subscriptions from the beginning to the end of the topic.
async fn deliver(bridge: &RunningBridge, receiver: &Receiver, subscriptions: usize, owed: &Owed) -> anyhow::Result<Received> {
    receiver.reset();
    let wish = json!({"types": ["no.ryggrad.*"], "sink": receiver.sink(), "start": "beginning", "verify": "none"});
    let made = bridge.api().subscribe_all(std::iter::repeat_n(wish, subscriptions)).await?;
    let received = receiver.wait_for(owed.bodies, RUN_TIMEOUT).await?;
    bridge.api().delete_all(&made).await?;
    // Nothing may have come twice meanwhile.
    owed.complete(receiver.received())?;
    Ok(received)
}
