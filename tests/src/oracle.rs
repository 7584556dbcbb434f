//! The whole state at once: does what is published equal what upstream has?
//!
//! Upstream must be at rest and have no faults left. Everything is compared with what upstream
//! says of itself and nothing with the producer's own account, except for its stored positions.
//! Every violation is listed, not only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use ryggrad_log::{Connection, read_to_end};
use ryggrad_schemas::catalogue::topics;
use ryggrad_schemas::event_id::event_id;
use ryggrad_schemas::record::ROLL_KEY;
use ryggrad_schemas::virksomhet::{Endringstype, VirksomhetEndret, state_hash};
use ryggrad_schemas::{Catalogue, LogRecord, avro, cloudevents::Attributes, document::ToDocument};
use serde_json::{Value, json};

use crate::topic::{VIRKSOMHET, read_all};
use crate::upstream::Upstream;
use crate::wait;

/// The source that is compared.
pub const SOURCE: &str = "enhetsregisteret";
const FEEDS: [&str; 2] = ["enheter", "underenheter"];
const REST_TIMEOUT: Duration = Duration::from_secs(90);
const SHOWN_OF_A_KIND_MAX: usize = 10;

/// A place in a feed: the feed's name and the id.
pub type Place = (String, u64);

/// What the comparison found.
#[derive(Debug, Default)]
pub struct Report {
    /// Items of upstream's feeds.
    pub items: usize,
    /// Events in the topic.
    pub events: BTreeMap<Place, Endringstype>,
    /// Records in the quarantine, by what they say of themselves.
    pub quarantined: BTreeMap<Place, LogRecord>,
    /// Tombstones in the topic.
    pub tombstones: usize,
    /// Keys whose newest event was compared with upstream.
    pub states: usize,
    /// Keys whose newest change is in the quarantine, so that their newest event is older.
    pub stale: BTreeSet<String>,
    /// Events that tell of an unknown change where the feed knows it.
    pub unknown: BTreeSet<Place>,
    /// What is wrong, by the rule that it breaks.
    pub violations: BTreeMap<&'static str, Vec<String>>,
}

impl Report {
    fn wrong(&mut self, rule: &'static str, what: impl Into<String>) {
        self.violations.entry(rule).or_default().push(what.into());
    }

    fn hold(&mut self, rule: &'static str, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong(rule, what());
        }
    }

    /// Fails with every violation, and where nothing was there to compare.
    pub fn assert_good(&self) {
        assert!(self.unknown.is_empty(), "events tell of unknown changes: {:?}\n{self}", self.unknown);
        self.assert_good_but_unknown();
    }

    /// The same where upstream had told of changes in words that nobody knows.
    pub fn assert_good_but_unknown(&self) {
        assert!(self.violations.is_empty() && self.items > 0 && self.states > 0, "what is published is not what upstream has\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { items, tombstones, states, .. } = self;
        let (events, quarantined, stale) = (self.events.len(), self.quarantined.len(), self.stale.len());
        writeln!(
            f,
            "{items} items upstream: {events} events, {quarantined} quarantined; {tombstones} tombstones, {states} states ({stale} stale)"
        )?;
        for (rule, found) in &self.violations {
            writeln!(f, "violated {} times: {rule}", found.len())?;
            found.iter().take(SHOWN_OF_A_KIND_MAX).try_for_each(|what| writeln!(f, "    {what}"))?;
        }
        Ok(())
    }
}

/// Waits until the producer has read upstream to its end, then compares.
pub async fn published_equals_upstream(connection: &Connection, upstream: &Upstream) -> Report {
    let mut report = Report::default();
    let feeds = at_rest(connection, upstream, &mut report).await;
    let told: BTreeMap<Place, (String, String)> = feeds
        .into_iter()
        .flat_map(|(feed, items)| items.into_iter().map(move |(id, key, word)| ((feed.to_owned(), id), (key, word))))
        .collect();
    report.items = told.len();
    let (records, quarantine, removed, units) = tokio::join!(
        read_all(connection, VIRKSOMHET),
        read_all(connection, topics::QUARANTINE),
        read_all(connection, topics::REMOVED),
        upstream.units(),
    );
    let units: Units = units.into_iter().map(|unit| (unit_of(&unit), unit)).collect();
    account_quarantine(quarantine, &told, &mut report);
    let newest = walk(&records, &told, &units, &mut report);
    account_places(&told, &mut report);
    compare_states(&newest, &told, &units, &mut report);
    compare_removed(&removed, &records, &units, &mut report);
    compare_counts(connection, &told, &mut report).await;
    report
}

type Items = Vec<(u64, String, String)>;

/// Both feeds, once they stand still and are stored as read to their ends.
async fn at_rest(connection: &Connection, upstream: &Upstream, report: &mut Report) -> Vec<(&'static str, Items)> {
    let started = Instant::now();
    let (is_read, stored, feeds) = wait::until("upstream to be at rest and read to its end", REST_TIMEOUT.as_secs() + 30, || async {
        let (enheter, underenheter) = (upstream.feed(FEEDS[0]).await, upstream.feed(FEEDS[1]).await);
        let ends = [&enheter, &underenheter].map(|items| items.last().map_or(0, |(id, _, _)| *id));
        let stored = positions(connection).await;
        let is_read = FEEDS.iter().zip(ends).all(|(feed, end)| newest_of(&stored, feed).0 == end);
        (is_read || started.elapsed() > REST_TIMEOUT)
            .then(|| (is_read, FEEDS.map(|feed| newest_of(&stored, feed)), vec![(FEEDS[0], enheter), (FEEDS[1], underenheter)]))
    })
    .await;
    report.hold("the stored positions are upstream's last ids", is_read, || {
        format!("after {REST_TIMEOUT:?} the feeds' (position, count) are {stored:?}")
    });
    feeds
}

/// Every position that was ever stored: feed, position, count; oldest first.
async fn positions(connection: &Connection) -> Vec<(String, u64, u64)> {
    let partition = Catalogue::built_in().source(SOURCE).expect("a source of the catalogue").positions_partition;
    let records = read_to_end(connection, topics::SOURCE_POSITIONS, partition, 1_000_000, 30_000).await.unwrap_or_default();
    let stored = records.into_iter().filter_map(|record| {
        let feed = record.key?.strip_prefix(&format!("{SOURCE}/"))?.to_owned();
        let value: Value = serde_json::from_slice(&record.value?).ok()?;
        Some((feed, value["position"].as_u64()?, value["count"].as_u64()?))
    });
    stored.collect()
}

fn newest_of(stored: &[(String, u64, u64)], feed: &str) -> (u64, u64) {
    stored.iter().rev().find(|(found, _, _)| found == feed).map_or((0, 0), |(_, position, count)| (*position, *count))
}

async fn compare_counts(connection: &Connection, told: &BTreeMap<Place, (String, String)>, report: &mut Report) {
    let stored = positions(connection).await;
    for feed in FEEDS {
        let events = report.events.keys().filter(|(found, _)| found == feed).count() as u64;
        let end = told.keys().filter(|(found, _)| found == feed).map(|(_, id)| *id).max().unwrap_or(0);
        let expected = (end, events);
        let found = newest_of(&stored, feed);
        report.hold("the stored position is the last id and counts every event", found == expected, || {
            format!("{feed}: stored (position, count) is {found:?}, should be {expected:?}")
        });
        let own: Vec<u64> = stored.iter().filter(|(found, _, _)| found == feed).map(|(_, position, _)| *position).collect();
        for pair in own.windows(2).filter(|pair| pair[0] >= pair[1]) {
            report.wrong("a stored position only moves forward", format!("{feed}: {} came after {}", pair[1], pair[0]));
        }
    }
}

fn account_quarantine(records: Vec<LogRecord>, told: &BTreeMap<Place, (String, String)>, report: &mut Report) {
    for record in records {
        let place = record.header("feed").zip(record.header("position").and_then(|text| text.parse().ok()));
        let Some((feed, id)) = place else {
            report.wrong("a quarantine record names feed and position", format!("{:?}", record.key));
            continue;
        };
        let place = (feed.to_owned(), id);
        let key = format!("{SOURCE}/{feed}/{id}");
        report
            .hold("a quarantine record's key is its place", record.key.as_deref() == Some(&key), || format!("{:?}, not {key}", record.key));
        report.hold("what is quarantined stands in upstream's feed", told.contains_key(&place), || format!("{place:?}"));
        if report.quarantined.insert(place.clone(), record).is_some() {
            report.wrong("a place is quarantined once", format!("{place:?}"));
        }
    }
}

/// A unit: the feed that tells of it, and its number. Recorded documents are of one number twice.
type Unit = (String, String);
type Units = BTreeMap<Unit, Value>;

fn unit_of(unit: &Value) -> Unit {
    let feed = if unit["kind"] == "enhet" { FEEDS[0] } else { FEEDS[1] };
    (feed.to_owned(), text(&unit["organisasjonsnummer"]).to_owned())
}

/// The newest event of each unit, and the partition that it stands in.
type Newest = BTreeMap<Unit, (i32, u64, VirksomhetEndret)>;

/// Looks at every record of the topic in order.
fn walk(records: &[LogRecord], told: &BTreeMap<Place, (String, String)>, units: &Units, report: &mut Report) -> Newest {
    let mut newest = Newest::new();
    let mut ids = BTreeSet::new();
    // The record that must come next in this partition, if any.
    let mut owed: Option<&LogRecord> = None;
    // Marks for idle partitions are no events.
    for record in records.iter().filter(|record| record.key.as_deref() != Some(ROLL_KEY)) {
        if let Some(event) = owed.take() {
            let is_its = record.value.is_none() && record.partition == event.partition && record.key == event.key;
            report.hold("a tombstone directly follows an end", is_its, || format!("nothing directly behind {}", name(event)));
            if is_its {
                report.tombstones += 1;
                report.hold("a tombstone has its event's headers", record.headers == event.headers, || name(record));
                continue;
            }
        }
        let Some(value) = &record.value else {
            report.wrong("a tombstone directly follows an end", format!("{} ends nothing", name(record)));
            continue;
        };
        match avro::decode::<VirksomhetEndret>(value) {
            Ok(event) => {
                owed = matches!(event.endringstype, Endringstype::Slettet | Endringstype::Fjernet).then_some(record);
                check_event(record, &event, told, units, &mut ids, report);
                let (feed, position) = place(&event);
                let unit = (feed, event.organisasjonsnummer.clone());
                let before = newest.get(&unit).map(|(partition, position, _)| (*partition, *position));
                report.hold(
                    "a key's events come in order in one partition",
                    before.is_none_or(|before| before.0 == record.partition && before.1 < position),
                    || format!("{} at {position} comes after (partition, position) {before:?}", name(record)),
                );
                newest.insert(unit, (record.partition, position, event));
            }
            Err(error) => report.wrong("every value can be read", format!("{}: {error}", name(record))),
        }
    }
    report.hold("a tombstone directly follows an end", owed.is_none(), || format!("nothing directly behind {owed:?}"));
    newest
}

fn check_event(
    record: &LogRecord,
    event: &VirksomhetEndret,
    told: &BTreeMap<Place, (String, String)>,
    units: &Units,
    ids: &mut BTreeSet<String>,
    report: &mut Report,
) {
    let place = place(event);
    let key = &event.organisasjonsnummer;
    if report.events.insert(place.clone(), event.endringstype).is_some() {
        report.wrong("each place has exactly one event", format!("{place:?} has another one: {}", name(record)));
    }
    report.hold("a record's key is its unit", record.key.as_ref() == Some(key), || name(record));
    if let Some((expected_key, word)) = told.get(&place) {
        let told_type = endringstype(word);
        let is_removed = units.get(&(place.0.clone(), key.clone())).is_some_and(|unit| unit["status"] == "removed");
        let is_unknown = event.endringstype == Endringstype::Ukjent && told_type != Endringstype::Ukjent;
        if is_unknown {
            report.unknown.insert(place.clone());
        }
        let is_told = event.endringstype == told_type || is_unknown || (event.endringstype == Endringstype::Fjernet && is_removed);
        report.hold("an event tells what the feed tells", is_told && key == expected_key, || {
            format!("{place:?} is {word} of {expected_key} upstream, {} of {key} in the topic", event.endringstype.symbol())
        });
    }
    let is_state_carried = event.virksomhet.is_some() || matches!(event.endringstype, Endringstype::Slettet | Endringstype::Fjernet);
    report.hold("an event carries a state unless the unit is gone", is_state_carried, || name(record));
    let is_state_forgotten = event.endringstype != Endringstype::Fjernet || event.virksomhet.is_none();
    report.hold("a removal carries no state", is_state_forgotten, || name(record));
    match Attributes::from_record(record) {
        Ok(attributes) => {
            let source = format!("urn:ryggrad:{SOURCE}:{}", place.0);
            let id = event_id(&source, &place.1.to_string(), key, "").to_string();
            let is_named = attributes.id == id && attributes.source == source && attributes.subject.as_ref() == Some(key);
            report.hold("an event's attributes follow from its place", is_named, || format!("{}: {attributes:?}", name(record)));
            report.hold("an event's id is its own", ids.insert(attributes.id), || name(record));
        }
        Err(error) => report.wrong("every record is a CloudEvent", format!("{}: {error}", name(record))),
    }
    let hash = event.virksomhet.as_ref().map(|state| state_hash(&state.give().to_string()).expect("JSON").to_string());
    report.hold("a state's fingerprint is its own", record.header("ryggrad_statehash") == hash.as_deref(), || name(record));
}

fn account_places(told: &BTreeMap<Place, (String, String)>, report: &mut Report) {
    for (place, (key, word)) in told {
        match (report.events.contains_key(place), report.quarantined.contains_key(place)) {
            (false, false) => report
                .wrong("nothing of upstream's feed is lost", format!("{place:?} ({word} of {key}) is neither an event nor quarantined")),
            (true, true) => report.wrong("what is quarantined is no event as well", format!("{place:?}")),
            _ => {}
        }
    }
    let strays: Vec<_> = report.events.keys().filter(|place| !told.contains_key(*place)).cloned().collect();
    strays.into_iter().for_each(|place| report.wrong("every event stands in upstream's feed", format!("{place:?}")));
}

/// The newest event of each key against upstream's document.
fn compare_states(newest: &Newest, told: &BTreeMap<Place, (String, String)>, units: &Units, report: &mut Report) {
    let mut last: BTreeMap<Unit, &Place> = BTreeMap::new();
    for (place, (key, _)) in told {
        last.insert((place.0.clone(), key.clone()), place);
    }
    for (unit, place) in last {
        let key = &unit.1;
        if report.quarantined.contains_key(place) {
            report.stale.insert(key.clone());
            continue;
        }
        let Some((_, _, event)) = newest.get(&unit) else {
            report.wrong("every key of the feed has an event", format!("{unit:?}"));
            continue;
        };
        report.states += 1;
        // What upstream does not know at all can only have been deleted.
        let (status, document) = units.get(&unit).map_or(("deleted", None), |unit| (text(&unit["status"]), Some(&unit["document"])));
        let expected = document.filter(|_| status != "removed");
        let found = event.virksomhet.as_ref().map(ToDocument::give);
        report.hold("the newest state of a key is upstream's document", found.as_ref() == expected, || {
            format!("{key} ({status}): {}", difference(expected.unwrap_or(&Value::Null), found.as_ref().unwrap_or(&Value::Null), ""))
        });
        let is_fitting = match event.endringstype {
            Endringstype::Fjernet => status == "removed",
            Endringstype::Slettet => status == "deleted",
            Endringstype::Ukjent => status != "removed",
            _ => status == "active" || told.get(place).is_some_and(|(_, word)| !["Sletting", "Fjernet"].contains(&word.as_str())),
        };
        report.hold("the newest event of a key fits its status upstream", is_fitting, || {
            format!("{key} is {status}: {}", event.endringstype.symbol())
        });
    }
}

/// Keys that must be forgotten, in all three places that tell of them.
fn compare_removed(marks: &[LogRecord], records: &[LogRecord], units: &Units, report: &mut Report) {
    // What a mark says: topic, key, partition, offset, id.
    let is_removal = |record: &&LogRecord| record.value.is_some() && record.header("ce_endringstype") == Some("FJERNET");
    let told: BTreeSet<String> = records
        .iter()
        .filter(is_removal)
        .map(|record| {
            json!({"topic": record.topic, "key": record.key, "partition": record.partition, "offset": record.offset,
                   "id": record.header("ce_id")})
            .to_string()
        })
        .collect();
    let (mut said, mut marked) = (BTreeSet::new(), BTreeSet::new());
    for record in marks {
        let value: Value = record.value.as_deref().and_then(|value| serde_json::from_slice(value).ok()).unwrap_or_default();
        let key = text(&value["key"]).to_owned();
        report.hold("a mark of removal has topic and key for a key", record.key == Some(format!("{VIRKSOMHET}/{key}")), || {
            format!("{:?}: {value}", record.key)
        });
        report.hold("a removal is marked once", said.insert(value.to_string()), || value.to_string());
        marked.insert(key);
    }
    report.hold("every removal in the topic is marked with its place, and nothing else", said == told, || {
        format!(
            "only marked: {:?}; only told: {:?}",
            said.difference(&told).collect::<Vec<_>>(),
            told.difference(&said).collect::<Vec<_>>()
        )
    });
    for ((_, key), unit) in units.iter().filter(|(_, unit)| unit["status"] == "removed") {
        report.hold("what upstream removed is marked", marked.contains(key) || report.stale.contains(key), || format!("{key}: {unit}"));
    }
}

/// The first few places where two documents differ.
pub fn difference(expected: &Value, found: &Value, at: &str) -> String {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
            let null = Value::Null;
            let differing = names.into_iter().filter(|name| expected.get(*name) != found.get(*name));
            let lines = differing
                .map(|name| difference(expected.get(name).unwrap_or(&null), found.get(name).unwrap_or(&null), &format!("{at}/{name}")));
            lines.take(5).collect::<Vec<_>>().join(", ")
        }
        (expected, found) => format!("{at} should be {expected}, is {found}"),
    }
}

fn endringstype(word: &str) -> Endringstype {
    match word {
        "Ny" => Endringstype::Ny,
        "Endring" => Endringstype::Endret,
        "Sletting" => Endringstype::Slettet,
        "Fjernet" => Endringstype::Fjernet,
        _ => Endringstype::Ukjent,
    }
}

fn place(event: &VirksomhetEndret) -> Place {
    let feed = event.kilde.strip_prefix(SOURCE).and_then(|rest| rest.strip_prefix('/')).unwrap_or(&event.kilde);
    (feed.to_owned(), event.posisjon.parse().unwrap_or_default())
}

fn name(record: &LogRecord) -> String {
    format!("{}/{}@{} (key {:?})", record.topic, record.partition, record.offset, record.key)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
