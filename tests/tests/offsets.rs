//! `ryggrad offsets` against Kafka's own tools: what one sets the other shows, and a consumer reads
//! from where it was set.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};

use ryggrad_tests::broker::jars;
use ryggrad_tests::events::{Events, key};
use ryggrad_tests::process::command;
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::wait;
use serde_json::Value;

const GROUP: &str = "journal";

/// A tool of Kafka's, ready to be run.
fn kafka_tool(class: &str, arguments: &[&str]) -> Command {
    let mut java = Command::new("java");
    java.args(["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(jars().join("*")).arg(class).args(arguments);
    java.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    java
}

struct Stage {
    scenario: Scenario,
}

impl Stage {
    fn offsets(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let kafka = self.scenario.broker.address();
        command(self.scenario.folder.path(), &[&["offsets"], arguments, &["--kafka", &kafka, "--group", GROUP]].concat())
    }

    fn done(&self, arguments: &[&str]) -> String {
        let (code, said, errors) = self.offsets(arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {errors}");
        said
    }

    /// What is committed, by partition, as we show it.
    fn shown(&self) -> BTreeMap<i64, i64> {
        let rows = self.done(&["show", "-o", "json"]);
        let rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        rows.map(|row| (row["partition"].as_i64().unwrap(), row["current_offset"].as_i64().unwrap())).collect()
    }

    /// The same as Kafka's own tool shows it.
    fn shown_by_kafka(&self) -> BTreeMap<i64, i64> {
        let kafka = self.scenario.broker.address();
        let arguments = ["--bootstrap-server", &kafka, "--describe", "--group", GROUP];
        let output = kafka_tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &arguments).output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        let rows = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        rows.filter(|row| row.first() == Some(&GROUP)).map(|row| (row[2].parse().unwrap(), row[3].parse().unwrap())).collect()
    }

    fn consumer(&self, more: &[&str]) -> Child {
        let kafka = self.scenario.broker.address();
        let own = ["--bootstrap-server", &kafka, "--topic", VIRKSOMHET, "--group", GROUP, "--isolation-level", "read_committed"];
        let form = ["--property", "print.partition=true", "--property", "print.offset=true"];
        let arguments = [&own[..], &form, &["--property", "print.value=false"], more].concat();
        kafka_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &arguments).spawn().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_is_shown_and_reset_as_kafkas_own_tools_see_it() {
    let stage = Stage { scenario: Scenario::start().await };
    let mut events = Events::start(&stage.scenario.connection()).await;
    events.publish((0..200).map(key)).await;
    let records = read_all(&stage.scenario.connection(), VIRKSOMHET).await;
    let ends: BTreeMap<i64, i64> = records.iter().map(|record| (i64::from(record.partition), record.offset)).collect();

    let (code, _, errors) = stage.offsets(&["show"]);
    assert!(code == Some(3) && errors.contains("there is no group"), "{errors}");

    // A dry run sets nothing.
    let said = stage.done(&["reset", "--topic", VIRKSOMHET, "--to-offset", "3"]);
    assert!(said.starts_with("GROUP") && said.lines().count() == 7, "{said}");
    assert_eq!(stage.offsets(&["show"]).0, Some(3));

    type Case = (&'static [&'static str], fn(i64) -> i64);
    let cases: [Case; 8] = [
        (&["--topic", VIRKSOMHET, "--to-offset", "3"], |_| 3),
        (&["--topic", VIRKSOMHET, "--shift-by", "4"], |_| 7),
        (&["--topic", VIRKSOMHET, "--shift-by", "-100"], |_| 0),
        (&["--topic", "grunndata.virksomhet.v1:0,1", "--to-offset", "9"], |partition| if partition < 2 { 9 } else { 0 }),
        (&["--all-topics", "--to-current"], |partition| if partition < 2 { 9 } else { 0 }),
        (&["--topic", VIRKSOMHET, "--by-duration", "PT1H"], |_| 0),
        (&["--topic", VIRKSOMHET, "--to-datetime", "2026-01-01T00:00:00.000"], |_| 0),
        (&["--topic", VIRKSOMHET, "--to-offset", "5"], |_| 5),
    ];
    for (arguments, expected) in cases {
        stage.done(&[&["reset", "--execute"], arguments].concat());
        let expected: BTreeMap<i64, i64> = (0..6).map(|partition| (partition, expected(partition))).collect();
        assert_eq!(stage.shown(), expected, "{arguments:?}");
    }
    assert_eq!(stage.shown_by_kafka(), stage.shown());

    // Out and in again.
    let exported = stage.done(&["reset", "--all-topics", "--to-current", "--export"]);
    std::fs::write(stage.scenario.folder.path().join("kept.csv"), &exported).unwrap();
    stage.done(&["reset", "--topic", VIRKSOMHET, "--to-latest", "--execute"]);
    assert!(stage.shown().iter().all(|(partition, offset)| *offset > ends[partition]));
    stage.done(&["reset", "--from-file", "kept.csv", "--execute"]);
    assert_eq!(stage.shown().into_values().collect::<Vec<_>>(), [5; 6]);

    // A consumer reads from there.
    let expected = records.iter().filter(|record| record.offset >= 5).count();
    let reading = stage.consumer(&["--max-messages", &expected.to_string(), "--timeout-ms", "60000"]);
    let output = tokio::task::spawn_blocking(move || reading.wait_with_output().unwrap()).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.lines().filter(|line| line.contains("Offset:")).count(), expected, "{said}");
    for line in said.lines().filter(|line| line.contains("Offset:")) {
        let offset: i64 = line.split("Offset:").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert!(offset >= 5, "{line}");
    }

    // While somebody reads, nothing is set.
    let mut reading = stage.consumer(&[]);
    wait::until("the group to be stable", 60, || async {
        let (_, _, errors) = stage.offsets(&["show"]);
        errors.contains("Stable, members 1").then_some(())
    })
    .await;
    let row: Value = serde_json::from_str(stage.done(&["show", "-o", "json"]).lines().next().unwrap()).unwrap();
    assert!(row["consumer_id"].is_string() && row["lag"].is_i64(), "{row}");
    let (code, _, errors) = stage.offsets(&["reset", "--topic", VIRKSOMHET, "--to-earliest", "--execute"]);
    assert!(code == Some(3) && errors.contains("is active"), "{code:?} {errors}");
    Command::new("kill").args(["-s", "TERM", &reading.id().to_string()]).status().unwrap();
    reading.wait().unwrap();
    wait::until("the group to be empty", 60, || async {
        let (_, _, errors) = stage.offsets(&["show"]);
        errors.contains("Empty, members 0").then_some(())
    })
    .await;
    stage.done(&["reset", "--topic", VIRKSOMHET, "--to-earliest", "--execute"]);

    for (arguments, code, word) in [
        (&["reset", "--topic", "no.such", "--to-earliest"][..], 3, "does not exist"),
        (&["reset", "--topic", "grunndata.virksomhet.v1:7", "--to-earliest"], 3, "has no partition 7"),
        (&["reset", "--topic", VIRKSOMHET], 2, "--to-earliest"),
        (&["reset", "--to-earliest"], 2, "--topic"),
        (&["reset", "--topic", VIRKSOMHET, "--to-earliest", "--to-latest"], 2, "cannot be used with"),
        (&["show", "--subscription", "x"], 2, "cannot be used with"),
    ] {
        let (found, _, errors) = stage.offsets(arguments);
        assert!(found == Some(code) && errors.contains(word), "{arguments:?}: {found:?} {errors}");
    }
}
