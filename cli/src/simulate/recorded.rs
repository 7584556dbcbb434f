//! A registry served from a folder of recorded answers instead of a generated population.
//!
//! Documents are served as they were recorded; what is not recorded (feed items for units that no
//! recorded feed names) is made up from the order of the files. It never writes to the folder.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::Value;
use tracing::{info, warn};

use super::{
    feed::{Endringstype, Feed, FeedItem},
    number::{Kind, Organisasjonsnummer},
    registry::UnitView,
};

type Key = (Kind, Organisasjonsnummer);

/// One document of a unit, as a file held it.
struct Sighting {
    key: Key,
    text: String,
    status: &'static str,
}

struct Recorded {
    text: String,
    status: &'static str,
}

pub(super) struct Recording {
    feeds: [Feed; 2],
    units: BTreeMap<Key, Recorded>,
    /// When a unit without a document was removed, as the feed tells it.
    removed: HashMap<Key, String>,
}

#[derive(Default)]
struct Reader {
    sightings: Vec<Sighting>,
    items: [BTreeMap<u64, Value>; 2],
}

impl Recording {
    /// Reads every `*.json` below the folder, in the order of their names.
    pub(super) fn load(folder: &Path, seed: u64, started_at_ms: i64) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        list_json(folder, &mut files).with_context(|| format!("read the recorded folder {}", folder.display()))?;
        let mut reader = Reader::default();
        for file in &files {
            let name = file.strip_prefix(folder).unwrap_or(file);
            match fs::read_to_string(file) {
                Ok(text) if reader.read(&name.to_string_lossy(), &text) => {}
                Ok(_) => info!(file = %file.display(), "skipped: no unit, list of units or feed"),
                Err(error) => warn!(file = %file.display(), %error, "skipped: unreadable"),
            }
        }
        let items: usize = reader.items.iter().map(BTreeMap::len).sum();
        ensure!(items + reader.sightings.len() > 0, "{} holds no recorded unit or feed", folder.display());
        Ok(reader.finish(seed, started_at_ms))
    }

    pub(super) fn feed(&self, kind: Kind) -> &Feed {
        &self.feeds[kind.index()]
    }

    /// The recorded text of a unit and its status.
    pub(super) fn unit(&self, key: Key) -> Option<(&str, &'static str)> {
        let unit = self.units.get(&key)?;
        Some((&unit.text, unit.status))
    }

    pub(super) fn removed(&self, key: Key) -> Option<&str> {
        self.removed.get(&key).map(String::as_str)
    }

    pub(super) fn units(&self) -> impl Iterator<Item = UnitView> + '_ {
        let recorded = self.units.iter().map(|((kind, number), unit)| UnitView {
            number: *number,
            kind: *kind,
            status: unit.status,
            document: serde_json::from_str(&unit.text).unwrap_or_default(),
        });
        let removed = self.removed.iter().map(|((kind, number), slettedato)| UnitView {
            number: *number,
            kind: *kind,
            status: "removed",
            document: super::unit::removed_document(*number, slettedato),
        });
        recorded.chain(removed)
    }
}

fn list_json(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        // Links to folders are not followed: they may lead in a circle.
        if entry.file_type()?.is_dir() {
            list_json(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "json") {
            files.push(path);
        }
    }
    Ok(())
}

impl Reader {
    /// Takes in one file; false if it is nothing this reader knows.
    fn read(&mut self, name: &str, text: &str) -> bool {
        let text = text.trim_start_matches('\u{feff}').trim();
        let Ok(value) = serde_json::from_str::<Value>(text) else {
            return false;
        };
        let from_name = if name.to_lowercase().contains("underenhet") { Kind::Underenhet } else { Kind::Enhet };
        if let Value::Array(list) = &value {
            return self.take_units(list, from_name);
        }
        let embedded = &value["_embedded"];
        if embedded.is_null() {
            return self.take_unit(&value, text.to_owned(), from_name);
        }
        let mut known = false;
        for kind in Kind::BOTH {
            if let Some(list) = embedded[kind.path()].as_array() {
                known |= self.take_units(list, kind);
            }
            if let Some(list) = embedded[kind.feed_key()].as_array() {
                known = true;
                for item in list {
                    match item["oppdateringsid"].as_u64() {
                        Some(id) => drop(self.items[kind.index()].insert(id, item.clone())),
                        None => warn!(file = name, "skipped a feed item without an id"),
                    }
                }
            }
        }
        known
    }

    fn take_units(&mut self, list: &[Value], fallback: Kind) -> bool {
        let mut known = false;
        for unit in list {
            known |= self.take_unit(unit, unit.to_string(), fallback);
        }
        known
    }

    fn take_unit(&mut self, unit: &Value, text: String, fallback: Kind) -> bool {
        let number = unit["organisasjonsnummer"].as_str();
        let Some(number) = number.and_then(Organisasjonsnummer::parse) else {
            return false;
        };
        let named = !unit["navn"].is_null() || !unit["organisasjonsform"].is_null();
        let ended = !unit["slettedato"].is_null();
        let status = match (named, ended) {
            (true, false) => "active",
            (true, true) => "deleted",
            // The body of a 410 says the number and the day, no more.
            (false, true) => "removed",
            (false, false) => return false,
        };
        self.sightings.push(Sighting { key: (kind_of(unit, fallback), number), text, status });
        true
    }

    fn finish(self, seed: u64, started_at_ms: i64) -> Recording {
        let mut recording = Recording { feeds: Kind::BOTH.map(Feed::new), units: BTreeMap::new(), removed: HashMap::new() };
        let mut named = HashSet::new();
        for (kind, items) in Kind::BOTH.into_iter().zip(self.items) {
            for (id, document) in items {
                let item = feed_item(id, &document);
                if let Some(number) = item.number {
                    named.insert((kind, number));
                    if document["endringstype"] == "Fjernet" {
                        let day = document["dato"].as_str().and_then(|dato| dato.get(..10));
                        recording.removed.insert((kind, number), day.unwrap_or_default().to_owned());
                    }
                }
                recording.feeds[kind.index()].push_recorded(item, document);
            }
        }
        let mut rng = StdRng::seed_from_u64(seed);
        for sighting in self.sightings {
            let (kind, number) = sighting.key;
            let again = recording.units.contains_key(&sighting.key);
            if !named.contains(&sighting.key) {
                let feed = &mut recording.feeds[kind.index()];
                let item = FeedItem {
                    id: feed.latest_id().unwrap_or(0) + rng.random_range(1..=9),
                    dato_ms: started_at_ms,
                    number: Some(number),
                    endringstype: match sighting.status {
                        "deleted" => Endringstype::Sletting,
                        "removed" => Endringstype::Fjernet,
                        _ if again => Endringstype::Endring,
                        _ => Endringstype::Ny,
                    },
                };
                feed.push(item, Vec::new());
            }
            let recorded = Recorded { text: sighting.text, status: sighting.status };
            recording.units.insert(sighting.key, recorded);
        }
        let units = &recording.units;
        recording.removed.retain(|key, _| !units.contains_key(key));
        recording
    }
}

fn kind_of(unit: &Value, fallback: Kind) -> Kind {
    const ONLY_UNDERENHET: [&str; 4] = ["overordnetEnhet", "beliggenhetsadresse", "nedleggelsesdato", "oppstartsdato"];
    match unit["respons_klasse"].as_str() {
        Some("Underenhet" | "SlettetUnderenhet") => Kind::Underenhet,
        Some("Enhet" | "SlettetEnhet") => Kind::Enhet,
        _ if ONLY_UNDERENHET.iter().any(|field| !unit[field].is_null()) => Kind::Underenhet,
        _ => fallback,
    }
}

fn feed_item(id: u64, document: &Value) -> FeedItem {
    let number = document["organisasjonsnummer"].as_str();
    let dato = document["dato"].as_str();
    FeedItem {
        id,
        dato_ms: dato.and_then(|dato| dato.parse::<Timestamp>().ok()).map_or(0, Timestamp::as_millisecond),
        number: number.and_then(Organisasjonsnummer::parse),
        endringstype: Endringstype::Recorded,
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    fn load(files: &[(&str, &str)]) -> anyhow::Result<Recording> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(folder.path()))?;
            fs::write(path, text)?;
        }
        Recording::load(folder.path(), 1, 0)
    }

    fn key(kind: Kind, number: &str) -> Key {
        (kind, Organisasjonsnummer::parse(number).expect("nine digits"))
    }

    fn words(recording: &Recording, kind: Kind) -> Vec<(String, String)> {
        let feed = recording.feed(kind);
        let word = |item: &Value, field: &str| item[field].as_str().unwrap_or("").to_owned();
        (0..feed.len())
            .map(|place| feed.render(place, false, ""))
            .map(|item| (word(&item, "organisasjonsnummer"), word(&item, "endringstype")))
            .collect()
    }

    #[test]
    fn kinds_are_told_apart_and_feed_items_made_up() {
        let first = r#"{"organisasjonsnummer":"212345679","navn":"A","kapital":{"belop":30000.00}}"#;
        let recording = load(&[
            ("1/first.json", first),
            (
                "2/list.json",
                r#"[{"organisasjonsnummer":"312345676","navn":"B","oppstartsdato":"x"},
                {"organisasjonsnummer":"212345679","navn":"C","respons_klasse":"Enhet"}]"#,
            ),
            ("3/hal.json", r#"{"_embedded":{"underenheter":[{"organisasjonsnummer":"200000001","navn":"D"}]}}"#),
            ("4/underenhet-deleted.json", r#"{"organisasjonsnummer":"200000002","navn":"E","slettedato":"2025-01-01"}"#),
            ("5/other.json", r#"{"rollegrupper":[]}"#),
            ("6/broken.json", "{"),
            ("7/gone.json", r#"{"organisasjonsnummer":"200000003","slettedato":"2025-01-01"}"#),
            ("8/notes.txt", "not read"),
        ])
        .expect("a recording");
        let pairs = |list: &[(&str, &str)]| {
            let own = |(number, word): &(&str, &str)| (number.to_string(), word.to_string());
            list.iter().map(own).collect::<Vec<_>>()
        };
        assert_eq!(words(&recording, Kind::Enhet), pairs(&[("212345679", "Ny"), ("212345679", "Endring"), ("200000003", "Fjernet")]));
        assert_eq!(words(&recording, Kind::Underenhet), pairs(&[("312345676", "Ny"), ("200000001", "Ny"), ("200000002", "Sletting")]));
        let (text, _) = recording.unit(key(Kind::Enhet, "212345679")).expect("served");
        assert!(text.contains(r#""navn":"C""#), "the last document is served: {text}");
        let gone = recording.unit(key(Kind::Enhet, "200000003"));
        assert_eq!(gone.map(|(_, status)| status), Some("removed"));
    }

    #[test]
    fn a_single_document_is_served_letter_by_letter() {
        let text = r#"{ "organisasjonsnummer": "212345679", "navn": "\u00c5", "tall": 1.50e2 }"#;
        let recording = load(&[("one.json", text)]).expect("a recording");
        assert_eq!(recording.unit(key(Kind::Enhet, "212345679")), Some((text, "active")));
    }

    #[test]
    fn a_recorded_feed_is_served_as_it_is_and_names_its_units() {
        let feed = r#"{"_embedded":{"oppdaterteEnheter":[
            {"oppdateringsid":9,"dato":"2022-07-05T04:01:39.613Z","organisasjonsnummer":"200000003","endringstype":"Fjernet"},
            {"oppdateringsid":7,"dato":"2022-07-05T04:01:39.600Z","organisasjonsnummer":"212345679","endringstype":"Endring","x":[1.0]}]}}"#;
        let recording = load(&[
            ("feed.json", feed),
            ("unit.json", r#"{"organisasjonsnummer":"212345679","navn":"A"}"#),
            ("unit2.json", r#"{"organisasjonsnummer":"312345676","navn":"B"}"#),
        ])
        .expect("a recording");
        let feed = recording.feed(Kind::Enhet);
        assert_eq!(feed.len(), 3, "the named unit gets no item of its own");
        assert_eq!(feed.render(0, false, "")["x"].to_string(), "[1.0]");
        assert_eq!(feed.first_id(), Some(7));
        assert_eq!(recording.removed(key(Kind::Enhet, "200000003")), Some("2022-07-05"));
        assert!(recording.unit(key(Kind::Enhet, "200000003")).is_none());
    }

    #[test]
    fn a_folder_with_nothing_in_it_is_refused() {
        assert!(load(&[("x.json", "[]")]).is_err());
    }
}
