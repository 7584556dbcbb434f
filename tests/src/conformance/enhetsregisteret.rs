//! Enhetsregisteret under the conformance suite: the simulator and its control calls.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Registry, Trouble};
use crate::process::{Process, free_port};
use crate::scenario::Scenario;
use crate::topic::VIRKSOMHET;
use crate::upstream::Upstream;

/// The simulated registry.
pub struct Enhetsregisteret(pub Upstream);

impl Registry for Enhetsregisteret {
    const TOPIC: &str = VIRKSOMHET;

    async fn open(scenario: &Scenario, units: u32, changes_per_second: u32) -> Self {
        let (units, rate) = (units.to_string(), changes_per_second.to_string());
        Self(scenario.upstream(&["--units", &units, "--changes-per-second", &rate, "--deletions", "0.05", "--removals", "0.02"]).await)
    }

    fn producer(&self, scenario: &Scenario, settings: &str, arguments: &[&str]) -> Process {
        let text = format!(
            "[producer]\nbase_url = \"{}\"\nrequests_per_second_max = 5000\npoll_interval_ms = 50\nretry_delay_ms_first = 50\nretry_delay_ms_max = 500\n{settings}\n",
            self.0.base_url()
        );
        std::fs::write(scenario.folder.path().join("producer.toml"), text).expect("settings are written");
        let (kafka, listen) = (scenario.broker.address(), format!("127.0.0.1:{}", free_port()));
        let own = ["produce", "--config", "producer.toml", "--kafka", &kafka, "--data", "data", "--listen", &listen];
        Process::start(scenario.folder.path(), "producer", &[&own[..], arguments].concat())
    }

    async fn pause(&self) {
        self.0.pause().await;
    }

    async fn change(&self, count: u32, silent: bool) {
        self.0.order(&format!("changes?count={count}&silent={silent}")).await;
    }

    async fn change_of(&self, kind: &str, count: u32, silent: bool) -> Vec<String> {
        let status = self.0.order(&format!("changes?count={count}&silent={silent}&kind={kind}")).await;
        let number = |unit: &Value| unit["organisasjonsnummer"].as_str().or(unit.as_str()).map(str::to_owned);
        status["changed"].as_array().expect("what was changed").iter().filter_map(number).collect()
    }

    async fn feed_lag_ms(&self, lag_ms: u64) {
        self.0.order(&format!("feed-lag?ms={lag_ms}")).await;
    }

    async fn freeze_dumps(&self, frozen: bool) {
        self.0.order(if frozen { "dumps/freeze" } else { "dumps/thaw" }).await;
    }

    async fn trouble(&self, trouble: Trouble, count: u32) {
        let everywhere = ["feed", "lookup"];
        let faults: Vec<Value> = match trouble {
            Trouble::Unavailable => everywhere.map(|on| json!({"on": on, "kind": "status", "status": 503, "count": count})).to_vec(),
            Trouble::TooManyRequests => {
                everywhere.map(|on| json!({"on": on, "kind": "status", "status": 429, "retry_after_s": 1, "count": count})).to_vec()
            }
            Trouble::Html => everywhere.map(|on| json!({"on": on, "kind": "html", "count": count})).to_vec(),
            Trouble::EmptyPage => {
                vec![json!({"on": "feed", "kind": "empty", "count": count}), json!({"on": "feed", "kind": "empty-middle", "count": count})]
            }
            Trouble::OverlappingPage => vec![json!({"on": "feed", "kind": "overlap", "count": count})],
            Trouble::TornDump => vec![json!({"on": "dump", "kind": "truncate", "count": count})],
            Trouble::TornJson => vec![json!({"on": "dump", "kind": "torn-json", "count": count})],
            Trouble::ShrunkenDump => vec![json!({"on": "dump", "kind": "shrunken", "share": 0.02, "count": count})],
            Trouble::EmptyDump => vec![json!({"on": "dump", "kind": "empty", "count": count})],
            Trouble::NoDump => vec![
                json!({"on": "dump", "kind": "status", "status": 503, "count": count}),
                json!({"on": "dump", "kind": "html", "count": count}),
            ],
            Trouble::MalformedRow => vec![json!({"on": "dump", "kind": "malformed", "count": count})],
        };
        for fault in faults {
            self.0.fault(fault).await;
        }
    }

    async fn trouble_left(&self) -> u64 {
        self.0.faults_left().await
    }

    async fn truth(&self) -> BTreeMap<String, Value> {
        let living = |unit: Value| {
            (unit["status"] == "active")
                .then(|| (unit["organisasjonsnummer"].as_str().unwrap_or_default().to_owned(), unit["document"].clone()))
        };
        self.0.units().await.into_iter().filter_map(living).collect()
    }

    async fn told(&self) -> Vec<(String, String, String)> {
        let mut told = Vec::new();
        for feed in ["enheter", "underenheter"] {
            let items = self.0.feed(feed).await.into_iter();
            told.extend(items.map(|(position, key, _)| (format!("enhetsregisteret/{feed}"), position.to_string(), key)));
        }
        told
    }

    fn document(event: &Value) -> Option<Value> {
        event.get("virksomhet").filter(|state| state.is_object()).map(Self::reduced)
    }

    fn reduced(document: &Value) -> Value {
        let mut document = document.clone();
        if let Some(members) = document.as_object_mut() {
            members.remove("kapital");
        }
        without_links(&mut document);
        document
    }
}

fn without_links(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| name != "links" && name != "_links");
            members.values_mut().for_each(without_links);
        }
        Value::Array(items) => items.iter_mut().for_each(without_links),
        _ => {}
    }
}
