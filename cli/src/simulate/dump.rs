//! Bulk downloads: every living unit of one list as a gzipped JSON array, as of one moment.
//!
//! The format is that of the real bulk files, which differs from look-ups: no `kapital`, no
//! `_links`, but `links` without content. A dump is written row by row; it must never stand in
//! memory as a whole.

use std::{
    io::{self, Write},
    sync::Arc,
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

use super::{faults::Shape, number::Organisasjonsnummer, unit::Unit};

/// The living units of one list at one moment. Units are shared with the registry.
pub(super) struct Snapshot {
    moment_ms: i64,
    rows: Rows,
}

enum Rows {
    Units { units: Vec<Arc<Unit>>, new_fields: Vec<String> },
    Documents(Vec<(Organisasjonsnummer, Value)>),
}

impl Snapshot {
    pub(super) fn of_units(moment_ms: i64, units: Vec<Arc<Unit>>, new_fields: Vec<String>) -> Self {
        Self { moment_ms, rows: Rows::Units { units, new_fields } }
    }

    pub(super) fn of_documents(moment_ms: i64, documents: Vec<(Organisasjonsnummer, Value)>) -> Self {
        Self { moment_ms, rows: Rows::Documents(documents) }
    }

    /// Brings the rows into their order. Apart, since it takes a while and needs no lock.
    pub(super) fn sorted(mut self) -> Self {
        match &mut self.rows {
            Rows::Units { units, .. } => units.sort_unstable_by_key(|unit| unit.organisasjonsnummer),
            Rows::Documents(documents) => documents.sort_by_key(|(number, _)| *number),
        }
        self
    }

    /// The moment it shows, in the registry's own time.
    pub(super) fn moment_ms(&self) -> i64 {
        self.moment_ms
    }

    pub(super) fn len(&self) -> usize {
        match &self.rows {
            Rows::Units { units, .. } => units.len(),
            Rows::Documents(documents) => documents.len(),
        }
    }

    /// Where the unit stands, if it is in it.
    pub(super) fn place(&self, number: Organisasjonsnummer) -> Option<usize> {
        let found = match &self.rows {
            Rows::Units { units, .. } => units.binary_search_by_key(&number, |unit| unit.organisasjonsnummer),
            Rows::Documents(documents) => documents.binary_search_by_key(&number, |(number, _)| *number),
        };
        found.ok()
    }

    fn row(&self, place: usize) -> Option<Value> {
        let document = match &self.rows {
            Rows::Units { units, new_fields } => units.get(place)?.document_with(new_fields),
            Rows::Documents(documents) => documents.get(place)?.1.clone(),
        };
        Some(bulk_row(document))
    }
}

/// A look-up's document as a bulk file has it.
pub(super) fn bulk_row(mut document: Value) -> Value {
    without_links(&mut document);
    if let Some(members) = document.as_object_mut() {
        members.remove("kapital");
        members.insert("links".to_owned(), json!([]));
    }
    document
}

fn without_links(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.remove("_links");
            members.values_mut().for_each(without_links);
        }
        Value::Array(items) => items.iter_mut().for_each(without_links),
        _ => {}
    }
}

/// What is wrong with a dump whose gzip frame is whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Flaw {
    /// Nothing.
    None,
    /// An empty array.
    Empty,
    /// This share of the units is missing.
    Shrunken { share: f64, salt: u64 },
    /// This row is missing.
    Without { place: usize },
    /// This row is nothing that a reader can take.
    Malformed { place: usize, shape: Shape },
    /// The JSON ends in the middle of this row.
    TornJson { place: usize },
}

impl Flaw {
    fn leaves_out(&self, place: usize) -> bool {
        match self {
            Flaw::Empty => true,
            Flaw::Without { place: missing } => *missing == place,
            Flaw::Shrunken { share, salt } => unit_interval(*salt, place) < *share,
            _ => false,
        }
    }
}

/// A number from 0 to 1 that looks random and follows from its arguments.
fn unit_interval(salt: u64, place: usize) -> f64 {
    // The finisher of splitmix64.
    let mut bits = salt.wrapping_add((place as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (bits ^ (bits >> 31)) as f64 / u64::MAX as f64
}

/// Writes a gzipped JSON array, one element a line.
pub(super) struct ArrayWriter<W: Write> {
    gzip: GzEncoder<W>,
    rows: u64,
}

impl<W: Write> ArrayWriter<W> {
    pub(super) fn new(inner: W) -> io::Result<Self> {
        // No name and no time in the frame: the same rows are the same bytes.
        let mut gzip = GzEncoder::new(inner, Compression::fast());
        gzip.write_all(b"[")?;
        Ok(Self { gzip, rows: 0 })
    }

    pub(super) fn row(&mut self, text: &str) -> io::Result<()> {
        self.gzip.write_all(if self.rows == 0 { b"\n" } else { b",\n" })?;
        self.rows += 1;
        self.gzip.write_all(text.as_bytes())
    }

    pub(super) fn finish(mut self) -> io::Result<W> {
        self.gzip.write_all(b"\n]\n")?;
        self.gzip.finish()
    }

    fn finish_torn(self) -> io::Result<W> {
        self.gzip.finish()
    }
}

/// Writes the dump, with its flaw.
pub(super) fn write<W: Write>(snapshot: &Snapshot, flaw: &Flaw, out: W) -> io::Result<W> {
    let mut array = ArrayWriter::new(out)?;
    for place in (0..snapshot.len()).filter(|place| !flaw.leaves_out(*place)) {
        let Some(row) = snapshot.row(place) else { break };
        match flaw {
            Flaw::Malformed { place: struck, shape } if *struck == place => array.row(&shape.spoiled(row).to_string())?,
            Flaw::TornJson { place: struck } if *struck == place => {
                let text = row.to_string();
                let half = text.floor_char_boundary(text.len() / 2);
                array.row(&text[..half])?;
                return array.finish_torn();
            }
            _ => array.row(&row.to_string())?,
        }
    }
    array.finish()
}

/// Counts what is written and keeps nothing.
#[derive(Debug, Default)]
pub(super) struct Counter(pub(super) u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;
    use crate::simulate::{
        number::Kind,
        registry::{Registry, RegistryOptions},
    };

    fn registry() -> Registry {
        let options = RegistryOptions { seed: 4, units: 300, changes_per_second: 2.0, deletions: 0.1, removals: 0.05 };
        let mut registry = Registry::new(options, 0);
        (0..200).for_each(|_| registry.step());
        registry
    }

    fn text(snapshot: &Snapshot, flaw: &Flaw) -> String {
        let bytes = write(snapshot, flaw, Vec::new()).expect("memory takes all");
        let mut text = String::new();
        GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
        text
    }

    fn rows(snapshot: &Snapshot, flaw: &Flaw) -> Vec<Value> {
        serde_json::from_str(&text(snapshot, flaw)).expect("an array")
    }

    #[test]
    fn a_dump_holds_every_living_unit_in_order_and_in_the_bulk_format() {
        let registry = registry();
        for kind in Kind::BOTH {
            let rows = rows(&registry.snapshot(kind).sorted(), &Flaw::None);
            let mut living: Vec<_> = registry.units().filter(|unit| unit.kind == kind && unit.status == "active").collect();
            living.sort_by_key(|unit| unit.number);
            assert_eq!(rows.len(), living.len());
            for (row, unit) in rows.iter().zip(living) {
                assert_eq!(row["links"], json!([]));
                assert!(row.get("kapital").is_none() && !row.to_string().contains("_links"), "{row}");
                for (member, value) in unit.document.as_object().expect("an object") {
                    if !matches!(member.as_str(), "kapital" | "_links" | "organisasjonsform") {
                        assert_eq!(&row[member], value, "{member}");
                    }
                }
                assert_eq!(row["organisasjonsform"]["kode"], unit.document["organisasjonsform"]["kode"]);
            }
        }
    }

    #[test]
    fn a_snapshot_stays_as_it_was_while_the_registry_moves_on() {
        let mut registry = registry();
        let snapshot = registry.snapshot(Kind::Enhet).sorted();
        let before = text(&snapshot, &Flaw::None);
        (0..500).for_each(|_| registry.step());
        assert_eq!(text(&snapshot, &Flaw::None), before);
        let now = registry.snapshot(Kind::Enhet).sorted();
        assert_ne!(text(&now, &Flaw::None), before);
        assert!(now.moment_ms() > snapshot.moment_ms());
    }

    #[test]
    fn flaws_are_as_ordered() {
        let snapshot = registry().snapshot(Kind::Enhet).sorted();
        let whole = rows(&snapshot, &Flaw::None);
        assert_eq!(rows(&snapshot, &Flaw::Empty), Vec::<Value>::new());
        let shrunken = rows(&snapshot, &Flaw::Shrunken { share: 0.3, salt: 1 }).len();
        assert!((whole.len() / 2..whole.len()).contains(&shrunken), "{shrunken} of {}", whole.len());
        let without = rows(&snapshot, &Flaw::Without { place: 3 });
        assert_eq!((without.len(), without.contains(&whole[3])), (whole.len() - 1, false));
        for shape in Shape::ALL {
            let spoiled = rows(&snapshot, &Flaw::Malformed { place: 3, shape });
            assert_eq!(spoiled.len(), whole.len());
            assert_ne!(spoiled[3], whole[3], "{shape:?}");
            assert_eq!(spoiled[4], whole[4]);
        }
        let torn = text(&snapshot, &Flaw::TornJson { place: 3 });
        assert!(serde_json::from_str::<Value>(&torn).is_err());
        assert_eq!(torn.lines().count(), 5);
    }
}
