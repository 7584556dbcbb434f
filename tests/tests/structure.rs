//! Holds the repository to its shape: which crate may know which, what pure means, what a tidy file is.
//!
//! Every rule collects all its offenders before it fails, so that one run tells the whole story.
//! Words that the rules forbid are put together from parts, lest this file offend against itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The crates from the bottom up. A crate knows only crates of lower levels.
const LEVELS: &[&[&str]] = &[
    &["ryggrad-schemas"],
    &["ryggrad-bridge-core", "ryggrad-detect"],
    &["ryggrad-log", "ryggrad-store"],
    &["ryggrad-bridge", "ryggrad-consumers", "ryggrad-producers"],
    &[BINARY],
];

/// Who knows whom. A new arrow is a decision: add it here and say why in the change.
const ARROWS: &[(&str, &[&str])] = &[
    ("ryggrad-schemas", &[]),
    ("ryggrad-bridge-core", &["ryggrad-schemas"]),
    ("ryggrad-detect", &["ryggrad-schemas"]),
    ("ryggrad-log", &["ryggrad-bridge-core", "ryggrad-schemas"]),
    ("ryggrad-store", &["ryggrad-bridge-core", "ryggrad-schemas"]),
    ("ryggrad-bridge", &["ryggrad-bridge-core", "ryggrad-log", "ryggrad-schemas", "ryggrad-store"]),
    ("ryggrad-consumers", &["ryggrad-bridge-core", "ryggrad-log", "ryggrad-schemas"]),
    ("ryggrad-producers", &["ryggrad-detect", "ryggrad-log", "ryggrad-schemas"]),
    (
        BINARY,
        &[
            "ryggrad-bridge",
            "ryggrad-bridge-core",
            "ryggrad-consumers",
            "ryggrad-detect",
            "ryggrad-log",
            "ryggrad-producers",
            "ryggrad-schemas",
        ],
    ),
];

const BINARY: &str = "ryggrad";

/// May depend on every crate but the binary, which the first starts as a user would, and on each other not at all.
const TESTS: [&str; 2] = ["ryggrad-tests", "ryggrad-fuzz"];

/// No runtime, clock, randomness or files: the crate and its folder.
const PURE: &[(&str, &str)] =
    &[("ryggrad-schemas", "schemas"), ("ryggrad-bridge-core", "bridge/core"), ("ryggrad-detect", "producers/detect")];

const NOT_PURE: &[&str] =
    &["tokio", "tokio-util", "tokio-tungstenite", "reqwest", "rdkafka", "rdkafka-sys", "sled", "rand", "axum", "tempfile"];

/// Words that clippy cannot ban in a pure crate, because its tests may use them.
const NOT_PURE_WORDS: &[&str] = &["fs::", "env::var", "env::args", "io::stdin", "{fs", "use std::env", "use std::fs"];

/// A library that exactly one crate knows.
const ONE_PARENT: &[(&str, &str)] = &[("rdkafka", "ryggrad-log"), ("rdkafka-sys", "ryggrad-log"), ("sled", "ryggrad-store")];

const LINES_MAX: usize = 600;

/// Longer files, each with its reason.
const LONG_FILES: &[(&str, &str)] =
    &[("schemas/src/generated/virksomhet.rs", "made from a schema of that many fields; nobody writes in it")];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "util", "utils"];

const UNFINISHED: &[&str] = &[concat!("todo", "!("), concat!("unimplemented", "!("), concat!("dbg", "!("), concat!("#[", "ignore")];

const MACHINE_PATHS: &[&str] = &[concat!("/", "work/"), concat!("/", "root/"), concat!("/", "home/"), concat!("/", "Users/")];

const IDENTITY_DIGITS: usize = 11;

/// Made-up national identity numbers that may stand in a file. Real persons have no part here.
const SYNTHETIC_IDENTITY_NUMBERS: &[&str] = &[];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: PathBuf,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// Absent for a normal dependency, else `dev` or `build`.
    kind: Option<String>,
}

impl Package {
    fn normal(&self) -> impl Iterator<Item = &str> {
        self.dependencies.iter().filter(|dependency| dependency.kind.is_none()).map(|dependency| dependency.name.as_str())
    }
}

struct TextFile {
    /// From the root, with slashes.
    path: String,
    text: String,
}

impl TextFile {
    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Its lines that are not comments, numbered from one.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

#[test]
fn the_arrows_between_crates_are_the_agreed_ones() -> Result<()> {
    let found: BTreeMap<_, _> = packages()?.iter().filter(|package| !TESTS.contains(&package.name.as_str())).map(arrows).collect();
    let agreed: BTreeMap<_, BTreeSet<_>> =
        ARROWS.iter().map(|(from, to)| (from.to_string(), to.iter().map(ToString::to_string).collect())).collect();
    let mut offenders = Vec::new();
    for name in found.keys().chain(agreed.keys()).collect::<BTreeSet<_>>() {
        match (found.get(name), agreed.get(name)) {
            (Some(found), Some(agreed)) => {
                offenders.extend(found.difference(agreed).map(|to| format!("{name} → {to} is new: ARROWS lacks it")));
                offenders.extend(agreed.difference(found).map(|to| format!("{name} → {to} is gone: take it out of ARROWS")));
            }
            (Some(_), None) => offenders.push(format!("{name} is a new crate: give it a level and its arrows")),
            (None, _) => offenders.push(format!("{name} is no crate of the workspace")),
        }
    }
    none("The crates' arrows are the ones of this test", &offenders)
}

#[test]
fn arrows_point_strictly_downwards() -> Result<()> {
    let mut offenders = Vec::new();
    for package in packages()?.iter() {
        let (from, to) = arrows(package);
        offenders.extend(to.iter().filter(|to| !may_know(&from, to)).map(|to| format!("{from} → {to}")));
    }
    none("A crate knows only crates of lower levels, and nobody knows the tests", &offenders)
}

#[test]
fn pure_crates_know_no_runtime_and_no_outside_world() -> Result<()> {
    let mut offenders = Vec::new();
    for package in packages()?.iter().filter(|package| PURE.iter().any(|(pure, _)| *pure == package.name)) {
        offenders.extend(package.normal().filter(|name| NOT_PURE.contains(name)).map(|name| format!("{} → {name}", package.name)));
    }
    none("A pure crate has no runtime, network, randomness or storage among its dependencies", &offenders)
}

#[test]
fn pure_code_touches_no_files_and_no_environment() -> Result<()> {
    let mut offenders = Vec::new();
    for file in text_files()?.iter().filter(|file| is_pure_source(&file.path)) {
        let before_tests = file.code().take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"));
        offenders.extend(
            before_tests.filter(|(_, line)| says_not_pure(line)).map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim())),
        );
    }
    none("Pure code gets what it needs as arguments", &offenders)
}

#[test]
fn pure_crates_share_one_list_of_bans() -> Result<()> {
    let bans = PURE.iter().map(|(_, folder)| {
        std::fs::read_to_string(root().join(folder).join("clippy.toml")).with_context(|| format!("{folder}/clippy.toml"))
    });
    let bans = bans.collect::<Result<Vec<_>>>()?;
    let offenders: Vec<_> =
        PURE.iter().zip(&bans).filter(|(_, text)| **text != bans[0]).map(|((_, folder), _)| format!("{folder}/clippy.toml")).collect();
    none("The clippy.toml of a pure crate equals the one in schemas", &offenders)
}

#[test]
fn kafka_and_sled_have_one_parent_each() -> Result<()> {
    let mut offenders = Vec::new();
    for package in packages()?.iter() {
        for (library, parent) in ONE_PARENT.iter().filter(|(_, parent)| *parent != package.name) {
            if package.dependencies.iter().any(|dependency| dependency.name == *library) {
                offenders.push(format!("{} → {library}: only {parent} may", package.name));
            }
        }
    }
    none("One crate talks to Kafka, one to sled", &offenders)
}

#[test]
fn versions_and_lints_live_in_the_workspace() -> Result<()> {
    let mut offenders = Vec::new();
    for package in packages()?.iter() {
        let manifest: toml::Table = std::fs::read_to_string(&package.manifest_path)?.parse().with_context(|| package.name.clone())?;
        if !is_inherited(manifest.get("lints")) {
            offenders.push(format!("{}: [lints] workspace = true is missing", package.name));
        }
        for table in dependency_tables(&manifest) {
            offenders
                .extend(table.iter().filter(|(_, value)| !is_inherited(Some(value))).map(|(name, _)| format!("{}: {name}", package.name)));
        }
    }
    none("Every dependency says workspace = true: versions stand in the root Cargo.toml", &offenders)
}

#[test]
fn every_rust_file_opens_by_saying_what_it_is_for() -> Result<()> {
    let files = text_files()?;
    let offenders: Vec<_> =
        files.iter().filter(|file| file.is_rust() && !file.text.starts_with("//!")).map(|file| file.path.clone()).collect();
    none("A Rust file opens with //!", &offenders)
}

#[test]
fn no_rust_file_is_too_long() -> Result<()> {
    let mut offenders = Vec::new();
    for file in text_files()?.iter().filter(|file| file.is_rust()) {
        let lines = file.text.lines().count();
        let excused = LONG_FILES.iter().any(|(path, _)| *path == file.path);
        match (lines > LINES_MAX, excused) {
            (true, false) => offenders.push(format!("{}: {lines} lines", file.path)),
            (false, true) => offenders.push(format!("{}: {lines} lines need no exception any more", file.path)),
            _ => {}
        }
    }
    none(&format!("A file has at most {LINES_MAX} lines, or a reason in LONG_FILES"), &offenders)
}

#[test]
fn nothing_is_left_unfinished() -> Result<()> {
    let mut offenders = Vec::new();
    for file in text_files()?.iter().filter(|file| file.is_rust()) {
        let unfinished = file.code().filter(|(_, line)| UNFINISHED.iter().any(|word| line.contains(word)));
        offenders.extend(unfinished.map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim())));
    }
    none("No gaps, debug prints or switched-off tests", &offenders)
}

#[test]
fn no_file_is_empty() -> Result<()> {
    let empty = text_files()?.into_iter().filter(|file| file.text.trim().is_empty()).map(|file| file.path);
    none("a file has something to say", &empty.collect::<Vec<_>>())
}

#[test]
fn names_say_what_is_inside() -> Result<()> {
    let mut offenders = Vec::new();
    for file in &text_files()? {
        if file.path.split('/').any(|part| EMPTY_NAMES.contains(&part.split('.').next().unwrap_or(part))) {
            offenders.push(file.path.clone());
        }
        let modules =
            file.code().filter(|(_, line)| file.is_rust() && declared_module(line).is_some_and(|name| EMPTY_NAMES.contains(&name)));
        offenders.extend(modules.map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim())));
    }
    none(&format!("Nothing is called {}", EMPTY_NAMES.join(", ")), &offenders)
}

#[test]
fn no_file_holds_an_identity_number() -> Result<()> {
    let mut offenders = Vec::new();
    for file in text_files()?.iter().filter(|file| !file.path.ends_with("Cargo.lock")) {
        for (number, line) in (1..).zip(file.text.lines()) {
            let unknown = identity_numbers(line).into_iter().filter(|found| !SYNTHETIC_IDENTITY_NUMBERS.contains(found));
            offenders.extend(unknown.map(|found| format!("{}:{number}: {found}", file.path)));
        }
    }
    none("No national identity number, unless it is a listed synthetic one", &offenders)
}

#[test]
fn no_file_knows_the_machine_it_was_written_on() -> Result<()> {
    let mut offenders = Vec::new();
    for file in &text_files()? {
        let lines = (1..).zip(file.text.lines()).filter(|(_, line)| names_machine_path(line));
        offenders.extend(lines.map(|(number, line)| format!("{}:{number}: {}", file.path, line.trim())));
    }
    none("No absolute path of somebody's machine", &offenders)
}

#[test]
fn the_threat_model_names_tests_that_there_are() -> Result<()> {
    let files = text_files()?;
    let model = files.iter().find(|file| file.path == "docs/THREATS.md").context("there is no threat model")?;
    let named: Vec<(&str, &str)> = model.text.split('`').filter_map(|word| word.split_once("::")).collect();
    ensure!(!named.is_empty(), "the threat model names no test");
    let is_there = |(file, function): &(&str, &str)| {
        let (file, function) = (format!("/{file}.rs"), format!("fn {function}"));
        files.iter().any(|one| one.path.ends_with(&file) && one.text.contains(&function))
    };
    let gone: Vec<String> = named.iter().filter(|named| !is_there(named)).map(|(file, function)| format!("{file}::{function}")).collect();
    none("the threat model names tests that there are", &gone)
}

#[test]
fn the_rules_have_teeth() {
    assert!(may_know("ryggrad-bridge", "ryggrad-schemas") && may_know(TESTS[0], "ryggrad-bridge"));
    assert!(!may_know("ryggrad-log", "ryggrad-store") && !may_know("ryggrad-schemas", "ryggrad-log"));
    assert!(!may_know(TESTS[0], BINARY) && !may_know(BINARY, TESTS[0]) && !may_know(TESTS[0], TESTS[1]));

    let digits = "1".repeat(IDENTITY_DIGITS);
    assert_eq!(identity_numbers(&format!("\"{digits}\" and {digits}")), [digits.as_str(), digits.as_str()]);
    assert!(identity_numbers(&format!("1{digits} a{digits} 123456789")).is_empty());

    let path = MACHINE_PATHS[0];
    assert!(names_machine_path(&format!("cd {path}main")) && names_machine_path(&format!("\"{path}\"")));
    assert!(!names_machine_path(&format!("target{path}x and $HOME{path}x and https://example.org{path}x")));

    assert_eq!(declared_module("    pub(crate) mod utils;"), Some("utils"));
    assert_eq!(declared_module("let mode = 1;"), None);
    assert!(says_not_pure("let text = std::fs::read(path);") && says_not_pure("use std::{fs, time};"));
    assert!(!says_not_pure("let found = diffs::between(a, b);"));
}

fn none(rule: &str, offenders: &[String]) -> Result<()> {
    ensure!(offenders.is_empty(), "{rule}. Offenders ({}):\n  {}", offenders.len(), offenders.join("\n  "));
    Ok(())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn packages() -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let printed = printed_by(Command::new(cargo).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]))?;
    Ok(serde_json::from_slice::<Metadata>(&printed)?.packages)
}

/// All text files that are in git or on their way there. One that is removed but not yet so in git is left out.
fn text_files() -> Result<Vec<TextFile>> {
    let printed = printed_by(Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let paths: BTreeSet<&str> = std::str::from_utf8(&printed)?.split_terminator('\0').collect();
    ensure!(paths.len() > LEVELS.len(), "git lists no files: is this a clone?");
    let readable = paths
        .into_iter()
        .filter_map(|path| Some(TextFile { path: path.to_owned(), text: std::fs::read_to_string(root().join(path)).ok()? }));
    Ok(readable.collect())
}

fn printed_by(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.current_dir(root()).output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// A crate and the crates of this workspace that it knows.
fn arrows(package: &Package) -> (String, BTreeSet<String>) {
    let ours = package.normal().filter(|name| *name == BINARY || name.starts_with("ryggrad-"));
    (package.name.clone(), ours.map(str::to_owned).collect())
}

fn may_know(from: &str, to: &str) -> bool {
    match (TESTS.contains(&from), level(from), level(to)) {
        (true, _, Some(_)) => to != BINARY,
        (false, Some(from), Some(to)) => to < from,
        _ => false,
    }
}

fn level(name: &str) -> Option<usize> {
    LEVELS.iter().position(|crates| crates.contains(&name))
}

fn is_pure_source(path: &str) -> bool {
    path.ends_with(".rs") && !path.ends_with("/tests.rs") && PURE.iter().any(|(_, folder)| path.starts_with(&format!("{folder}/src/")))
}

fn says_not_pure(line: &str) -> bool {
    NOT_PURE_WORDS.iter().any(|word| stands_alone(line, word))
}

/// Whether the word begins somewhere in the line without being the end of a longer name.
fn stands_alone(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_'))
}

/// Whether the line names an absolute path, rather than a folder below another or a part of a URL.
fn names_machine_path(line: &str) -> bool {
    let continues = |before: char| before.is_alphanumeric() || "_-.~})*/".contains(before);
    MACHINE_PATHS.iter().any(|path| line.match_indices(path).any(|(at, _)| !line[..at].ends_with(continues)))
}

/// Numbers of eleven digits that stand alone: neither part of a longer number nor of a checksum.
fn identity_numbers(line: &str) -> Vec<&str> {
    let words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.filter(|word| word.len() == IDENTITY_DIGITS && word.bytes().all(|byte| byte.is_ascii_digit())).collect()
}

fn declared_module(line: &str) -> Option<&str> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "mod")?;
    words.get(at + 1).map(|name| name.trim_end_matches([';', '{']))
}

/// `workspace = true`, beside which there may be features but never a version, path or source.
fn is_inherited(value: Option<&toml::Value>) -> bool {
    let inherits = value.and_then(|value| value.get("workspace")).and_then(toml::Value::as_bool) == Some(true);
    inherits && ["version", "path", "git", "registry"].iter().all(|key| value.is_some_and(|value| value.get(key).is_none()))
}

/// The tables of normal, dev and build dependencies, also those for one platform.
fn dependency_tables(manifest: &toml::Table) -> Vec<&toml::Table> {
    let platforms = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(|targets| targets.values());
    let owners = std::iter::once(manifest).chain(platforms.filter_map(toml::Value::as_table));
    let kinds = owners.flat_map(|owner| ["dependencies", "dev-dependencies", "build-dependencies"].map(|kind| owner.get(kind)));
    kinds.flatten().filter_map(toml::Value::as_table).collect()
}
