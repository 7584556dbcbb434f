//! `compose.yaml` and `Dockerfile` against what `ryggrad up` does: same Kafka, same settings, same
//! binary, same ports.
//!
//! No containers run here. What the files say is compared with the code, and the Kafka image's own
//! start-up program is given the settings, since it is among Kafka's jars.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use ryggrad_log::{BROKER_HEAP, BROKER_SETTINGS};
use ryggrad_tests::{broker, process};
use serde_json::Value;

/// Broker settings that only the containers have, and settings of `up` that they replace.
const OWN_SETTINGS: &[&str] =
    &["listeners", "advertised.listeners", "listener.security.protocol.map", "controller.quorum.voters", "log.dirs"];

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn compose() -> Value {
    serde_saphyr::from_str(&read("compose.yaml")).expect("compose.yaml is YAML")
}

fn services() -> BTreeMap<String, Value> {
    serde_json::from_value(compose()["services"].clone()).expect("services by name")
}

/// What stands between two marks in a text.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} is missing"));
    rest.split_once(after).unwrap_or_else(|| panic!("{after} is missing")).0
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|item| item.as_str().expect("a text").to_owned()).collect()
}

/// The broker's environment variables; numbers and words that YAML takes for something else are
/// quoted in the file, so all are texts.
fn kafka_environment() -> BTreeMap<String, String> {
    serde_json::from_value(services()["kafka"]["environment"].clone()).expect("texts")
}

/// As the image names settings: KAFKA_NODE_ID is node.id.
fn broker_settings() -> BTreeMap<String, String> {
    let settings = kafka_environment().into_iter().filter(|(name, _)| name != "KAFKA_HEAP_OPTS");
    settings.map(|(name, value)| (name.trim_start_matches("KAFKA_").to_lowercase().replace('_', "."), value)).collect()
}

fn help(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (code, text, said) = process::command(folder.path(), &[arguments, &["--help"]].concat());
    assert_eq!(code, Some(0), "{arguments:?}: {said}");
    text
}

/// The default that a flag's help names.
fn default_of(help: &str, flag: &str) -> String {
    let (_, rest) = help.split_once(&format!("{flag} <")).unwrap_or_else(|| panic!("{flag} is missing"));
    between(rest, "[default: ", "]").to_owned()
}

#[test]
fn the_broker_is_the_one_that_up_starts() {
    let services = services();
    let version = read("kafka/pom.xml");
    let version = between(&version, "<kafka.version>", "</kafka.version>");
    assert_eq!(services["kafka"]["image"], format!("apache/kafka:{version}"));
    let found = broker_settings();
    for (name, value) in BROKER_SETTINGS {
        assert_eq!(found.get(name).map(String::as_str), Some(value), "{name}");
    }
    let own: BTreeSet<&str> = found.keys().map(String::as_str).filter(|name| !BROKER_SETTINGS.iter().any(|(it, _)| it == name)).collect();
    assert_eq!(own, OWN_SETTINGS.iter().copied().collect(), "a setting that up lacks");
    assert_eq!(kafka_environment()["KAFKA_HEAP_OPTS"], BROKER_HEAP.join(" "));
    // Topics come from the catalogue, which the bridge and the producer create.
    assert_eq!(found["auto.create.topics.enable"], "false");
}

#[test]
fn the_kafka_image_takes_these_settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    for name in ["default", "mounted", "final"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    for name in ["server.properties", "log4j2.yaml", "tools-log4j2.yaml"] {
        std::fs::write(PathBuf::from(path("default")).join(name), "").unwrap();
    }
    let output = Command::new("java")
        .arg("-cp")
        .arg(broker::jars().join("*"))
        .args(["kafka.docker.KafkaDockerWrapper", "setup"])
        .args(["--default-configs-dir", &path("default"), "--mounted-configs-dir", &path("mounted")])
        .args(["--final-configs-dir", &path("final")])
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .envs(kafka_environment())
        .env("KAFKA_LOG_DIRS", path("data"))
        // The image has one of its own, too.
        .env("CLUSTER_ID", "5L6g3nShT-eMCtK--X86sw")
        .output()
        .expect("java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = std::fs::read_to_string(PathBuf::from(path("final")).join("server.properties")).unwrap();
    let mut written: BTreeMap<String, String> =
        written.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    written.insert("log.dirs".to_owned(), broker_settings()["log.dirs"].clone());
    assert_eq!(written, broker_settings());
}

#[test]
fn commands_are_ones_that_the_binary_has() {
    let everywhere = help(&[]);
    let ours: Vec<_> = services().into_iter().filter(|(_, service)| service["image"].as_str().unwrap().starts_with("ryggrad:")).collect();
    assert_eq!(ours.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["bridge", "producer"]);
    for (name, service) in ours {
        let command = texts(&service["command"]);
        let subcommand = command.iter().find(|word| matches!(word.as_str(), "bridge" | "produce")).unwrap();
        let help = everywhere.clone() + &help(&[subcommand]);
        for flag in command.iter().filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{flag} <")), "{name}: ryggrad {subcommand} has no {flag}");
        }
        assert_eq!(value_of(&command, "--data"), mount(&service), "{name} keeps its data in the volume");
    }
}

#[test]
fn the_bridge_imports_its_schemas_into_apicurio() {
    let services = services();
    let address = value_of(&texts(&services["bridge"]["command"]), "--schema-registry");
    assert_eq!(address, "http://apicurio:8080/apis/ccompat/v7");
    let watched = texts(&services["apicurio"]["healthcheck"]["test"]).pop().unwrap();
    assert_eq!(watched, format!("{}/subjects", address.replace("apicurio", "localhost")));
}

fn value_of(command: &[String], flag: &str) -> String {
    let place = command.iter().position(|word| word == flag).unwrap_or_else(|| panic!("{flag} is missing"));
    command[place + 1].clone()
}

fn mount(service: &Value) -> String {
    texts(&service["volumes"]).first().unwrap().split_once(':').unwrap().1.to_owned()
}

#[test]
fn addresses_fit_each_other_and_up() {
    let services = services();
    let (up, produce) = (help(&["up"]), help(&["produce"]));
    let port = |address: &str| address.rsplit_once(':').unwrap().1.to_owned();
    let expected = [
        ("kafka", default_of(&up, "--kafka-port")),
        ("bridge", default_of(&up, "--bridge-port")),
        ("producer", port(&default_of(&produce, "--listen"))),
    ];
    for (name, port) in expected {
        assert_eq!(texts(&services[name]["ports"]), [format!("127.0.0.1:{port}:{port}")], "{name}");
    }
    let advertised = &broker_settings()["advertised.listeners"];
    let inside = between(advertised, "PLAIN://", ",");
    assert!(advertised.ends_with(&format!("HOST://127.0.0.1:{}", default_of(&up, "--kafka-port"))));
    assert_eq!(services["apicurio"]["environment"]["APICURIO_KAFKASQL_BOOTSTRAP_SERVERS"], inside);
    for name in ["bridge", "producer"] {
        let command = texts(&services[name]["command"]);
        assert_eq!(value_of(&command, "--kafka"), inside);
        let listen = value_of(&command, "--listen");
        assert!(texts(&services[name]["ports"])[0].ends_with(&format!(":{}", port(&listen))), "{name} listens on {listen}");
    }
}

#[test]
fn everything_is_pinned_watched_and_closed_to_the_outside() {
    let compose = compose();
    for (name, service) in services() {
        let (_, tag) = service["image"].as_str().unwrap().split_once(':').unwrap_or_else(|| panic!("{name} has no tag"));
        assert!(tag.starts_with(|first: char| first.is_ascii_digit()), "{name}: {tag}");
        assert!(service["healthcheck"]["test"].is_array(), "{name} has no health check");
        assert!(texts(&service["ports"]).iter().all(|port| port.starts_with("127.0.0.1:")), "{name} is open to the outside");
        for volume in texts(&service["volumes"]) {
            let volume = volume.split_once(':').unwrap().0;
            assert!(compose["volumes"].as_object().unwrap().contains_key(volume), "{name}: {volume} is no volume");
        }
        let environment = service["environment"].as_object().cloned().unwrap_or_default();
        let secret = environment.keys().find(|key| ["TOKEN", "SECRET", "PASSWORD", "KEY"].iter().any(|word| key.contains(word)));
        assert_eq!(secret, None, "{name} has a secret in the file");
    }
    let image = format!("ryggrad:{}", env!("CARGO_PKG_VERSION"));
    assert_eq!((&services()["bridge"]["image"], &services()["producer"]["image"]), (&image.clone().into(), &image.into()));
}

#[test]
fn the_image_is_built_as_the_script_builds() {
    let dockerfile = read("Dockerfile");
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let rust = manifest["workspace"]["package"]["rust-version"].as_str().unwrap();
    let bases: Vec<&str> = dockerfile.lines().filter_map(|line| line.strip_prefix("FROM ")).collect();
    assert_eq!(bases, [format!("rust:{rust}-bookworm AS builder").as_str(), "debian:bookworm-slim"]);
    let script = read("ryggrad");
    let tools = between(&script, "need_build_tools() {", "\n}");
    let needed: BTreeSet<&str> =
        tools.lines().filter_map(|line| line.trim().strip_prefix("need ")).filter_map(|line| line.split(' ').nth(1)).collect();
    let installed = between(&dockerfile, "--no-install-recommends ", " \\");
    assert_eq!(installed.split(' ').collect::<BTreeSet<_>>(), needed);
    let (_, runtime) = dockerfile.split_once("FROM debian").unwrap();
    assert!(runtime.contains("\nUSER ryggrad\n"), "it runs as root");
    let data = between(runtime, "RYGGRAD_DATA=", "\n");
    assert!(services().values().filter(|it| it["image"].as_str().unwrap().starts_with("ryggrad:")).all(|it| mount(it) == data));
}
