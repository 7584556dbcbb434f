//! `ryggrad simulate dump`: a bulk file without a server, of any size, in little memory.
//!
//! Each unit follows from the seed and its place alone, so none is kept. Everything is decided by
//! the options: the same command writes the same bytes. The units are others than those of a
//! running simulator with the same seed, whose units follow from one another.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use anyhow::{Context, ensure};
use clap::Args;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::Serialize;
use serde_json::json;

use super::{
    change::change_some_field,
    dump::{ArrayWriter, bulk_row},
    number::{Day, Kind, Organisasjonsnummer},
    population, share,
    unit::Unit,
};
use crate::output::Output;

/// With more, neighbouring units could get the same number.
const UNITS_AT_MOST: u32 = 1_500_000;
/// Leading digits that each list has for its numbers, by kind.
const FIRST_HEADS: [u32; 2] = [20_000_000, 30_000_000];
const HEADS: u32 = 10_000_000;
/// One in so many changed units is deleted, and one new.
const DELETED_AND_CREATED: u64 = 10;
/// Change number, and so the day, of all changes.
const CHANGED_AT: u64 = 20_000;

/// Write a bulk file as Enhetsregisteret offers it for download, without a server.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  A million units:
    ryggrad simulate dump --units 1000000 --out before.json.gz

  The same ones a while later: one in a hundred edited, deleted or new:
    ryggrad simulate dump --units 1000000 --changed 0.01 --out after.json.gz

  The same ones, with a field that nobody has seen before:
    ryggrad simulate dump --units 1000000 --new-field nyttFelt --out wider.json.gz

Underenheter belong to enheter of a file with the same --units and --seed.")]
pub struct DumpArgs {
    /// Units in the file, before any change.
    #[arg(long, default_value_t = 10_000, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=UNITS_AT_MOST as i64))]
    units: u32,

    /// Number everything random follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Which list.
    #[arg(long, value_enum, default_value_t = Kind::Enhet)]
    kind: Kind,

    /// File to write; replaced when all is written.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Share of the units that differ from the same file without this option, exactly: a tenth of
    /// them deleted, a tenth new, the others edited.
    #[arg(long, default_value_t = 0.0, value_name = "SHARE", value_parser = share)]
    changed: f64,

    /// Number that decides which units change, and how.
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    changed_seed: u64,

    /// Units are edited only, none deleted or new.
    #[arg(long)]
    only_edits: bool,

    /// A member that every unit has besides its own.
    #[arg(long, value_name = "NAME")]
    new_field: Option<String>,

    /// Tell what was written as one JSON object.
    #[arg(long)]
    json: bool,
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Rows in the file.
    pub rows: u64,
    edited: u64,
    deleted: u64,
    created: u64,
}

impl DumpArgs {
    /// Enheter only, nothing changed.
    pub fn plain(units: u32, out: PathBuf) -> Self {
        Self { units, seed: 1, kind: Kind::Enhet, out, changed: 0.0, changed_seed: 1, only_edits: false, new_field: None, json: false }
    }
}

/// Writes the file and tells about it on stdout. Blocks while it does.
pub fn write_dump_file(args: &DumpArgs) -> anyhow::Result<()> {
    let told = json!(write_file(args)?);
    let mut output = Output::stdout();
    if args.json {
        output.object(&told)?;
    } else {
        output.pairs(["rows", "edited", "deleted", "created"].map(|name| (name.to_owned(), told[name].to_string())))?;
    }
    Ok(output.flush()?)
}

/// Writes the file. Blocks while it does.
pub fn write_file(args: &DumpArgs) -> anyhow::Result<Summary> {
    if let Some(name) = &args.new_field {
        ensure!(!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "a new field's name is letters and digits");
    }
    let context = || format!("write {}", args.out.display());
    let mut unfinished = args.out.clone();
    unfinished.as_mut_os_string().push(".new");
    let file = BufWriter::new(File::create(&unfinished).with_context(context)?);
    let (mut file, summary) = write(args, file).with_context(context)?;
    file.flush().with_context(context)?;
    fs::rename(&unfinished, &args.out).with_context(context)?;
    Ok(summary)
}

fn write<W: Write>(args: &DumpArgs, out: W) -> io::Result<(W, Summary)> {
    let units = Units { seed: args.seed, units: args.units };
    let new_fields = args.new_field.as_slice();
    let row = |unit: &Unit| bulk_row(unit.document_with(new_fields));
    let mut fates = Fates::new(args);
    let mut summary = Summary::default();
    let mut array = ArrayWriter::new(out)?;
    for place in 0..args.units {
        let fate = fates.next();
        let mut unit = units.unit(args.kind, place);
        match fate {
            Fate::Deleted => {
                summary.deleted += 1;
                continue;
            }
            Fate::Kept | Fate::Followed => array.row(&row(&unit).to_string())?,
            Fate::Edited => {
                let before = row(&unit);
                let mut rng = seeded(args.changed_seed, 2 * args.kind.index() as u64, place);
                let mut after = before.clone();
                // Some changes don't show in a bulk file, and two can undo each other.
                while after == before {
                    change_some_field(&mut unit, Day::of_change(CHANGED_AT), &mut rng);
                    after = row(&unit);
                }
                array.row(&after.to_string())?;
                summary.edited += 1;
            }
        }
        summary.rows += 1;
        if fate == Fate::Followed {
            array.row(&row(&units.created(args.kind, place, args.changed_seed)).to_string())?;
            summary.created += 1;
            summary.rows += 1;
        }
    }
    Ok((array.finish()?, summary))
}

fn seeded(seed: u64, stream: u64, place: u32) -> StdRng {
    let mut bytes = [0; 32];
    for (part, number) in bytes.chunks_exact_mut(8).zip([seed, stream, u64::from(place), 0]) {
        part.copy_from_slice(&number.to_le_bytes());
    }
    StdRng::from_seed(bytes)
}

/// Units that follow from their place.
struct Units {
    seed: u64,
    units: u32,
}

impl Units {
    fn unit(&self, kind: Kind, place: u32) -> Unit {
        self.draw(kind, 2 * place, &mut seeded(self.seed, kind.index() as u64, place))
    }

    /// A new unit, whose number lies between those of `place` and the next one.
    fn created(&self, kind: Kind, place: u32, changed_seed: u64) -> Unit {
        self.draw(kind, 2 * place + 1, &mut seeded(changed_seed, 2 * kind.index() as u64 + 1, place))
    }

    fn draw(&self, kind: Kind, half_place: u32, rng: &mut StdRng) -> Unit {
        let number = self.number(kind, half_place);
        let today = Day::of_change(0);
        match kind {
            Kind::Enhet => population::enhet(rng, number, today),
            Kind::Underenhet => {
                let parent = self.unit(Kind::Enhet, rng.random_range(0..self.units));
                population::underenhet(rng, number, &parent, today)
            }
        }
    }

    fn number(&self, kind: Kind, half_place: u32) -> Organisasjonsnummer {
        let stride = HEADS / (2 * self.units);
        Organisasjonsnummer::from_head(FIRST_HEADS[kind.index()] + half_place * stride)
    }
}

/// What becomes of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Kept,
    Edited,
    Deleted,
    /// Kept, and a new unit stands behind it.
    Followed,
}

/// Deals out the fates one by one, exactly as many of each as there must be.
struct Fates {
    rng: StdRng,
    places: u64,
    edited: u64,
    deleted: u64,
    created: u64,
}

impl Fates {
    fn new(args: &DumpArgs) -> Self {
        let places = u64::from(args.units);
        let changed = ((f64::from(args.units) * args.changed).round() as u64).min(places);
        let each = if args.only_edits { 0 } else { changed / DELETED_AND_CREATED };
        let rng = seeded(args.changed_seed, u64::MAX, 0);
        Self { rng, places, edited: changed - 2 * each, deleted: each, created: each }
    }

    fn next(&mut self) -> Fate {
        let mut lot = self.rng.random_range(0..self.places.max(1));
        self.places = self.places.saturating_sub(1);
        for (left, fate) in [(&mut self.edited, Fate::Edited), (&mut self.deleted, Fate::Deleted), (&mut self.created, Fate::Followed)] {
            if lot < *left {
                *left -= 1;
                return fate;
            }
            lot -= *left;
        }
        Fate::Kept
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use flate2::read::GzDecoder;
    use serde_json::Value;

    use super::*;

    fn args(kind: Kind) -> DumpArgs {
        DumpArgs {
            units: 2000,
            seed: 3,
            kind,
            out: PathBuf::new(),
            changed: 0.0,
            changed_seed: 7,
            only_edits: false,
            new_field: None,
            json: false,
        }
    }

    fn dump(args: &DumpArgs) -> (BTreeMap<String, Value>, Summary) {
        let (bytes, summary) = write(args, Vec::new()).expect("memory takes all");
        let mut text = String::new();
        GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).expect("gzip");
        let rows: Vec<Value> = serde_json::from_str(&text).expect("an array");
        assert_eq!(rows.len() as u64, summary.rows);
        let numbers: Vec<String> = rows.iter().map(|row| row["organisasjonsnummer"].as_str().expect("a number").to_owned()).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next), "the numbers ascend");
        (numbers.into_iter().zip(rows).collect(), summary)
    }

    #[test]
    fn exactly_the_asked_share_differs() {
        for kind in Kind::BOTH {
            let (before, summary) = dump(&args(kind));
            assert_eq!(summary, Summary { rows: 2000, ..Summary::default() });
            for only_edits in [false, true] {
                let (after, told) = dump(&DumpArgs { changed: 0.05, only_edits, ..args(kind) });
                let count = |it: usize| it as u64;
                let found = Summary {
                    rows: count(after.len()),
                    edited: count(before.iter().filter(|(number, row)| after.get(*number).is_some_and(|after| after != *row)).count()),
                    deleted: count(before.keys().filter(|number| !after.contains_key(*number)).count()),
                    created: count(after.keys().filter(|number| !before.contains_key(*number)).count()),
                };
                assert_eq!(found, told);
                let each = if only_edits { 0 } else { 10 };
                assert_eq!(told, Summary { rows: 2000, edited: 100 - 2 * each, deleted: each, created: each });
            }
        }
    }

    #[test]
    fn the_options_decide_everything() {
        let with = |changed_seed| DumpArgs { changed: 0.1, changed_seed, ..args(Kind::Enhet) };
        assert_eq!(dump(&with(1)), dump(&with(1)));
        assert_ne!(dump(&with(1)).0, dump(&with(2)).0);
    }

    #[test]
    fn underenheter_belong_to_enheter_of_the_other_file() {
        let (enheter, _) = dump(&args(Kind::Enhet));
        let (underenheter, _) = dump(&args(Kind::Underenhet));
        for row in underenheter.values() {
            assert!(enheter.contains_key(row["overordnetEnhet"].as_str().expect("an enhet above")));
        }
    }

    #[test]
    fn a_new_field_stands_in_every_row() {
        let (rows, _) = dump(&DumpArgs { new_field: Some("nyttFelt".to_owned()), ..args(Kind::Enhet) });
        assert!(rows.values().all(|row| row["nyttFelt"].is_string()));
    }

    #[test]
    fn numbers_ascend_even_where_they_lie_closest() {
        let units = Units { seed: 1, units: UNITS_AT_MOST };
        let numbers: Vec<_> = (0..2 * UNITS_AT_MOST).map(|half| units.number(Kind::Enhet, half)).collect();
        assert!(numbers.is_sorted_by(|one, next| one < next));
        assert!(numbers.last() < Some(&units.number(Kind::Underenhet, 0)));
    }
}
