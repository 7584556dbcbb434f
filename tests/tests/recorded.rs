//! Real recorded documents, from Enhetsregisteret's answers to a webhook, field for field.
//!
//! The folder is scanned here once more, with nothing of the simulator's own reader: what is
//! expected is what lies in the files.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use ryggrad_tests::oracle::{Place, difference, published_equals_upstream};
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::topic::{Owed, VIRKSOMHET, read_all};
use ryggrad_tests::wait;
use serde_json::Value;
use tempfile::TempDir;

/// The feed that tells of a unit, and its number: one anonymised number stands for two units.
type Unit = (String, String);

/// What a folder holds.
#[derive(Default)]
struct Recorded {
    /// The last recorded document of each unit.
    documents: BTreeMap<Unit, Value>,
    /// How many documents there are, older versions included.
    sightings: usize,
    /// Recorded items of the feeds.
    items: BTreeMap<Place, Value>,
}

fn scan(folder: &Path) -> Recorded {
    let mut files = Vec::new();
    list(folder, &mut files);
    // Versions follow each other in the order of names, folder by folder.
    files.sort_by(|one, other| one.components().cmp(other.components()));
    let mut recorded = Recorded::default();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        recorded.take(&serde_json::from_str(text.trim_start_matches('\u{feff}')).unwrap());
    }
    recorded
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            list(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
}

fn unit(place: &Place, item: &Value) -> Unit {
    (place.0.clone(), item["organisasjonsnummer"].as_str().unwrap().to_owned())
}

impl Recorded {
    /// Units whose newest item says that they are removed.
    fn removed(&self) -> BTreeSet<Unit> {
        let newest: BTreeMap<Unit, &Value> = self.items.iter().map(|(place, item)| (unit(place, item), item)).collect();
        newest.into_iter().filter(|(_, item)| item["endringstype"] == "Fjernet").map(|(unit, _)| unit).collect()
    }

    /// Items that say nothing without a document: it is neither there nor needed.
    fn without_document(&self) -> BTreeSet<Place> {
        // A unit that is removed at last is gone (410) whatever was asked about.
        let removed = self.removed();
        let is_told = |place: &Place, item: &Value| {
            let unit = unit(place, item);
            item["endringstype"] == "Sletting" || removed.contains(&unit) || self.documents.contains_key(&unit)
        };
        self.items.iter().filter(|(place, item)| !is_told(place, item)).map(|(place, _)| place.clone()).collect()
    }

    fn take(&mut self, file: &Value) {
        let no_items = Vec::new();
        let embedded = |name: &str| file["_embedded"][name].as_array().unwrap_or(&no_items);
        for (feed, name) in [("enheter", "oppdaterteEnheter"), ("underenheter", "oppdaterteUnderenheter")] {
            for item in embedded(name) {
                self.items.insert((feed.to_owned(), item["oppdateringsid"].as_u64().unwrap()), item.clone());
            }
        }
        let units = file.as_array().into_iter().chain([embedded("enheter"), embedded("underenheter")]).flatten();
        for unit in units.chain([file]) {
            // Roles and pages have no number, and the body of a 410 has no name.
            if let Some(number) = unit["organisasjonsnummer"].as_str().filter(|_| unit["navn"].is_string()) {
                // A document's own link says of which kind it is: …/api/enheter/<number>.
                let link = unit["_links"]["self"]["href"].as_str().unwrap();
                let feed = link.rsplit('/').nth(1).unwrap();
                self.documents.insert((feed.to_owned(), number.to_owned()), unit.clone());
                self.sightings += 1;
            }
        }
    }
}

const ODD_NUMBERS: &str = r#"{"organisasjonsnummer": "312345676", "navn": "ODDE TALL AS",
    "kapital": {"belop": 30000.00, "antallAksjer": 100, "valuta": "NOK", "fritekst": ["a"], "helt ukjent": -0.10},
    "antallAnsatte": 12.0, "ukjent tall": 12345678901234567890.5,
    "_links": {"self": {"href": "http://localhost/enhetsregisteret/api/enheter/312345676"}}}"#;

/// The folder, if it is there.
fn folder() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/enhetsregisteret");
    if !folder.is_dir() {
        println!("not tested: {} is not there; it holds the recorded answers", folder.display());
        return None;
    }
    Some(folder.canonicalize().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_documents_arrive_field_for_field() {
    let Some(folder) = folder() else { return };
    let recorded = scan(&folder);
    assert!(recorded.documents.len() >= 10 && !recorded.items.is_empty(), "the folder holds next to nothing");
    assert_eq!(follow(&folder, &recorded).await, 0, "every recorded item has a recorded document");
}

#[tokio::test(flavor = "multi_thread")]
async fn items_without_documents_are_quarantined_and_odd_numbers_keep_their_digits() {
    let Some(folder) = folder() else { return };
    // The items stay, the documents that they tell of do not.
    let copy = TempDir::new().unwrap();
    let mut files = Vec::new();
    list(&folder, &mut files);
    for file in files.iter().filter(|file| !file.ends_with("navikt-pia_underenhet-response.json")) {
        let target = copy.path().join(file.strip_prefix(&folder).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(file, target).unwrap();
    }
    // No recorded document has a fraction, so one is made.
    std::fs::write(copy.path().join("made.json"), ODD_NUMBERS).unwrap();
    let recorded = scan(&copy.path().canonicalize().unwrap());
    assert_eq!(recorded.documents.values().flat_map(decimals).count(), 4, "what is read back of the odd numbers");
    assert!(follow(copy.path(), &recorded).await > 0, "something is quarantined");
}

/// Follows a folder from its first item to a webhook, and compares; how much was quarantined.
async fn follow(folder: &Path, recorded: &Recorded) -> usize {
    let scenario = Scenario::start().await;
    let upstream = scenario.upstream(&["--recorded", &folder.display().to_string()]).await;
    let mut producer = scenario.producer(&upstream, &[]);
    let mut bridge = scenario.bridge(&[]);
    let subscriber = scenario.subscriber(ORGANISATION).await;
    let receiver = Receiver::start().await;
    let (_, secret) = subscriber.subscribe(&receiver.sink(), "beginning").await;
    receiver.trust(&secret);

    let mut report = published_equals_upstream(&scenario.connection(), &upstream).await;
    // Recorded items tell of the ends of units whose documents were recorded alive; what they
    // must look like is checked below.
    for rule in ["the newest event of a key fits its status upstream", "the newest state of a key is upstream's document"] {
        report.violations.remove(rule);
    }
    report.assert_good();
    let records = read_all(&scenario.connection(), VIRKSOMHET).await;
    let all = || async { Owed::compare(&records, &receiver.taken()).is_settled().then_some(()) };
    wait::until(&format!("all {} events to be delivered", report.events.len()), 30, all).await;
    let received = receiver.received();
    assert_eq!(received.len(), receiver.taken().len(), "each event once");
    assert!(received.iter().all(|delivery| delivery.verified), "every delivery is signed");

    let mut newest: BTreeMap<Unit, &Value> = BTreeMap::new();
    for delivery in &received {
        let feed = delivery.change().0.trim_start_matches("enhetsregisteret/").to_owned();
        newest.insert((feed, delivery.key().to_owned()), &delivery.event["data"]);
    }
    let removed = recorded.removed();
    let mut wrong = Vec::new();
    for (unit, document) in &recorded.documents {
        let expected = if removed.contains(unit) { &Value::Null } else { document };
        let found = newest.get(unit).map_or(&Value::Null, |data| &data["virksomhet"]);
        if found != expected {
            wrong.push(format!("{unit:?}: {}", difference(expected, found, "")));
        }
    }
    assert!(wrong.is_empty(), "{} of {} documents arrive altered\n{}", wrong.len(), recorded.documents.len(), wrong.join("\n"));
    let is_strange = |unit: &Unit, data: &Value| !data["virksomhet"].is_null() && !recorded.documents.contains_key(unit);
    let strangers: Vec<_> = newest.iter().filter(|(unit, data)| is_strange(unit, data)).collect();
    assert!(strangers.is_empty(), "states that nobody recorded: {strangers:?}");
    for unit in &removed {
        let data = newest.get(unit).expect("a removal is told");
        assert_eq!(data["endringstype"], "FJERNET", "{unit:?}");
    }
    let quarantined: BTreeSet<Place> = report.quarantined.keys().cloned().collect();
    assert_eq!(quarantined, recorded.without_document());

    // Numbers keep the digits that were recorded, `30000.00` too.
    let decimals: BTreeSet<String> = recorded.documents.values().flat_map(decimals).collect();
    let bodies: Vec<String> = received.iter().map(|delivery| String::from_utf8(delivery.body.clone()).unwrap()).collect();
    for number in &decimals {
        assert!(bodies.iter().any(|body| body.contains(&format!(":{number}"))), "{number} stands in no body as it is");
    }

    println!(
        "{} units removed, {} documents of {} units, {} recorded items: {} events, {} quarantined, decimals {decimals:?}",
        removed.len(),
        recorded.sightings,
        recorded.documents.len(),
        recorded.items.len(),
        received.len(),
        report.quarantined.len()
    );
    assert_eq!((bridge.stop().await, producer.stop().await), (Some(0), Some(0)));
    quarantined.len()
}

/// Every number with a fraction.
fn decimals(value: &Value) -> Vec<String> {
    match value {
        Value::Number(number) if number.to_string().contains('.') => vec![number.to_string()],
        Value::Array(items) => items.iter().flat_map(decimals).collect(),
        Value::Object(members) => members.values().flat_map(decimals).collect(),
        _ => Vec::new(),
    }
}
