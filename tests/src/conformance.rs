//! What every source must hold, whichever registry it reads: the rules, and what a registry must
//! offer so that they can be checked.
//!
//! The truth is what upstream says of itself. Must share no code with the producer but the
//! decoding of values. A new registry implements [`Registry`] and is added to the table in
//! `tests/conformance.rs`.

pub mod enhetsregisteret;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write};

use ryggrad_schemas::catalogue::topics;
use ryggrad_schemas::{LogRecord, avro};
use serde_json::Value;

use crate::process::Process;
use crate::scenario::Scenario;
use crate::topic::read_all;
use crate::wait;

/// How long a producer may take to come to rest.
const REST_TIMEOUT_S: u64 = 90;
const SHOWN_MAX: usize = 8;

/// What an upstream can get wrong. `count` answers are struck.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Trouble {
    /// 503 to feed and look-up.
    Unavailable,
    /// 429 with `Retry-After`.
    TooManyRequests,
    /// A firewall's page instead of an answer.
    Html,
    /// A page of the feed without items.
    EmptyPage,
    /// A page of the feed that begins before what was asked for.
    OverlappingPage,
    /// The body of a dump ends too soon, as if it were complete.
    TornDump,
    /// The packed file is whole, the JSON in it is not.
    TornJson,
    /// A good dump without some of the units.
    ShrunkenDump,
    /// An empty array as a dump.
    EmptyDump,
    /// 503, and a firewall's page, instead of a dump.
    NoDump,
    /// A row of a dump that is no object.
    MalformedRow,
}

/// A simulated registry, to be treated badly.
#[expect(async_fn_in_trait, reason = "for tests, on one runtime")]
pub trait Registry: Sized {
    /// The topic of its events.
    const TOPIC: &str;

    /// Opens one with about so many units, that changes so often a second.
    async fn open(scenario: &Scenario, units: u32, changes_per_second: u32) -> Self;

    /// Starts a producer with settings of `[producer]`.
    fn producer(&self, scenario: &Scenario, settings: &str, arguments: &[&str]) -> Process;

    /// Nothing changes by itself any more.
    async fn pause(&self);

    /// So many changes of any kind, told by the feed or not.
    async fn change(&self, count: u32, silent: bool);

    /// So many changes of one kind: edit, creation, deletion, removal.
    async fn change_of(&self, kind: &str, count: u32, silent: bool) -> Vec<String>;

    /// The feed tells of changes only after so long.
    async fn feed_lag_ms(&self, lag_ms: u64);

    /// Dumps show the registry as it is now, until they no longer do.
    async fn freeze_dumps(&self, frozen: bool);

    /// The next answers are wrong.
    async fn trouble(&self, trouble: Trouble, count: u32);

    /// Answers that are still to be wrong.
    async fn trouble_left(&self) -> u64;

    /// What it holds now: documents by key.
    async fn truth(&self) -> BTreeMap<String, Value>;

    /// Every item of every feed: feed, position, key.
    async fn told(&self) -> Vec<(String, String, String)>;

    /// The document in an event, without what a dump can't carry.
    fn document(event: &Value) -> Option<Value>;

    /// A document of the truth, reduced in the same way.
    fn reduced(document: &Value) -> Value;
}

/// One event of a topic.
#[derive(Debug, Clone)]
pub struct Event {
    /// Partition and offset.
    pub place: (i32, i64),
    /// Key.
    pub key: String,
    /// `ce_id`.
    pub id: String,
    /// What kind of change.
    pub endringstype: String,
    /// How it was found out.
    pub funnet: String,
    /// Feed, and position or run.
    pub cause: (String, String),
    /// The whole value.
    pub value: Value,
}

/// All events of a topic in log order, and the keys that live in it.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Events.
    pub events: Vec<Event>,
    /// The latest value of each key that has not ended.
    pub living: BTreeMap<String, Event>,
    /// What breaks a rule.
    pub violations: Vec<String>,
}

impl Ledger {
    /// Reads a topic.
    pub async fn read<R: Registry>(scenario: &Scenario) -> Self {
        let mut ledger = Self::default();
        for record in read_all(&scenario.connection(), R::TOPIC).await {
            ledger.take(&record);
        }
        ledger
    }

    fn take(&mut self, record: &LogRecord) {
        let Some(key) = record.key.clone() else { return self.violations.push("a record has no key".to_owned()) };
        let Some(value) = &record.value else {
            self.living.remove(&key);
            return;
        };
        let place = (record.partition, record.offset);
        let Ok(value) = avro::decode_to_json(value) else { return self.violations.push(format!("{key} at {place:?} can't be read")) };
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let event = Event {
            place,
            id: record.header("ce_id").unwrap_or_default().to_owned(),
            endringstype: text("endringstype"),
            funnet: text("funnet"),
            cause: (text("kilde"), text("posisjon")),
            key: key.clone(),
            value,
        };
        self.living.insert(key, event.clone());
        self.events.push(event);
    }

    /// How many events were found out in that way and tell of that kind of change.
    pub fn count(&self, funnet: &str, endringstype: &str) -> usize {
        self.events.iter().filter(|event| event.funnet == funnet && event.endringstype == endringstype).count()
    }

    /// Documents by key, as the topic has them.
    pub fn state<R: Registry>(&self) -> BTreeMap<String, Value> {
        self.living.iter().filter_map(|(key, event)| Some((key.clone(), R::document(&event.value)?))).collect()
    }

    fn check(&mut self, truth: &BTreeMap<String, Value>) {
        let (mut ids, mut causes, mut last) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::<_, u64>::new());
        for event in &self.events {
            let Event { place, key, id, cause, endringstype, .. } = event;
            let mut hold = |holds: bool, rule: &str| {
                if !holds {
                    self.violations.push(format!("{rule}: {endringstype} of {key} at {place:?} because of {cause:?}"));
                }
            };
            hold(ids.insert(id.clone()), "two events have one id");
            hold(causes.insert((cause.clone(), key.clone())), "one cause made two events of a key");
            if let Ok(position) = cause.1.parse::<u64>() {
                let before = last.insert((cause.0.clone(), key.clone()), position);
                hold(before.is_none_or(|before| before < position), "a key's events are not in the feed's order");
            }
            let has_ended = endringstype == "SLETTET" || endringstype == "FJERNET";
            hold(!(has_ended && truth.contains_key(key)), "a unit that lives upstream was told to have ended");
        }
    }
}

/// Waits until the topic says what upstream says, and checks every rule.
pub async fn conforms<R: Registry>(scenario: &Scenario, registry: &R) -> Ledger {
    let truth: BTreeMap<_, _> = registry.truth().await.iter().map(|(key, document)| (key.clone(), R::reduced(document))).collect();
    let equal = wait::held("the topic to say what upstream says", REST_TIMEOUT_S, || async {
        let ledger = Ledger::read::<R>(scenario).await;
        (ledger.state::<R>() == truth).then_some(ledger)
    })
    .await;
    let mut ledger = match equal {
        Some(ledger) => ledger,
        None => {
            let mut ledger = Ledger::read::<R>(scenario).await;
            let differences = differences(&truth, &ledger.state::<R>());
            ledger.violations.extend(differences);
            ledger
        }
    };
    ledger.check(&truth);
    assert!(!ledger.events.is_empty() && ledger.violations.is_empty(), "{}", shown(&ledger.violations));
    ledger
}

/// The same, where a feed is followed from its position `from` on: nothing it told is lost.
pub async fn conforms_to_feed<R: Registry>(scenario: &Scenario, registry: &R) -> Ledger {
    let told = registry.told().await;
    let found = wait::held("everything told to be published", REST_TIMEOUT_S, || async {
        unpublished::<R>(scenario, &told).await.is_empty().then_some(())
    })
    .await;
    if found.is_none() {
        panic!("the feed told what is neither published nor quarantined: {}", shown(&unpublished::<R>(scenario, &told).await));
    }
    conforms(scenario, registry).await
}

/// What the feed told after the position where it began, and the topic does not have.
async fn unpublished<R: Registry>(scenario: &Scenario, told: &[(String, String, String)]) -> Vec<String> {
    let starts = starts(scenario).await;
    let mut causes: BTreeSet<_> = Ledger::read::<R>(scenario).await.events.into_iter().map(|event| event.cause).collect();
    causes.extend(quarantined(scenario).await);
    let is_after = |(feed, position, _): &&(String, String, String)| {
        starts.get(feed).is_none_or(|start| position.parse::<u64>().unwrap_or_default() > *start)
    };
    let lost = told.iter().filter(is_after).filter(|(feed, position, _)| !causes.contains(&(feed.clone(), position.clone())));
    lost.map(|(feed, position, key)| format!("{feed} {position}: {key}")).collect()
}

/// The first position that was stored of each feed.
async fn starts(scenario: &Scenario) -> BTreeMap<String, u64> {
    let records = read_all(&scenario.connection(), topics::SOURCE_POSITIONS).await;
    let mut starts = BTreeMap::new();
    for record in records {
        let position = record.value.and_then(|value| serde_json::from_slice::<Value>(&value).ok()?["position"].as_u64());
        if let Some((key, position)) = record.key.zip(position) {
            starts.entry(key).or_insert(position);
        }
    }
    starts
}

async fn quarantined(scenario: &Scenario) -> Vec<(String, String)> {
    let records = read_all(&scenario.connection(), topics::QUARANTINE).await;
    let cause = |record: LogRecord| {
        let feed = format!("{}/{}", record.header("source")?, record.header("feed")?);
        Some((feed, record.header("position")?.to_owned()))
    };
    records.into_iter().filter_map(cause).collect()
}

fn differences(truth: &BTreeMap<String, Value>, found: &BTreeMap<String, Value>) -> Vec<String> {
    let keys: BTreeSet<&String> = truth.keys().chain(found.keys()).collect();
    let differing = keys.into_iter().filter(|key| truth.get(*key) != found.get(*key));
    let tell = |key: &String| match (truth.get(key), found.get(key)) {
        (Some(expected), Some(found)) => format!("{key} differs: {}", crate::oracle::difference(expected, found, "")),
        (Some(_), None) => format!("{key} lives upstream and is not in the topic"),
        _ => format!("{key} is in the topic and does not live upstream"),
    };
    differing.map(tell).collect()
}

fn shown(violations: &[impl Display]) -> String {
    let mut text = format!("{} violations", violations.len());
    for violation in violations.iter().take(SHOWN_MAX) {
        let _ = write!(text, "\n  {violation}");
    }
    text
}
