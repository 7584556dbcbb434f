//! One key takes over from another: nothing that was signed or is in use is lost on the way, and what is retired is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use ryggrad_bridge_core::asymmetric::PublicKey;
use ryggrad_log::Appender;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::process::{Process, command};
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{OPERATOR_TOKEN, Scenario};
use ryggrad_tests::trial::{CONTROLLER, Measurement, Parties, TYPE, make, patient};
use ryggrad_tests::wait;
use serde_json::{Value, json};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SETTINGS: &str = "[bridge]\ntrial = true\nasymmetric_signatures = true\n";

/// A trial's bridge, which is started again after each step.
struct Stage {
    scenario: Scenario,
    bridge: Process,
    receiver: Receiver,
    appender: Appender,
    published: usize,
}

impl Stage {
    fn keys(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let (code, out, errors) = command(self.scenario.folder.path(), &[&["keys", "--data", "data"], arguments].concat());
        let file = |name| std::fs::read_to_string(self.scenario.data().join(name)).unwrap();
        for secret in [file("signing.key"), file("operator.token"), file("seal.key")].iter().flat_map(|text| text.lines()) {
            assert!(secret.starts_with("whpk_") || !format!("{out}{errors}").contains(secret), "a secret was printed");
        }
        (code, out)
    }

    async fn step(&mut self, arguments: &[&str]) {
        assert_eq!(self.keys(arguments).0, Some(0), "{arguments:?}");
        self.bridge.stop().await;
        self.bridge = self.scenario.bridge(&["--config", "ryggrad.toml"]);
        Caller::new(&self.scenario.bridge_url(), None).ready().await;
    }

    /// The keys that are published.
    async fn published_keys(&self) -> Vec<PublicKey> {
        let (_, shown) = Caller::new(&self.scenario.bridge_url(), None).get("/.well-known/webhook-keys").await;
        shown["keys"].as_array().unwrap().iter().map(|key| key["public"].as_str().unwrap().parse().unwrap()).collect()
    }

    /// One more measurement, which is delivered: by which of these keys it is signed.
    async fn signed_by(&mut self, keys: &[PublicKey]) -> Vec<bool> {
        self.published += 1;
        let id = format!("rotated-{}", self.published);
        Measurement { patient: &patient(1), id: &id, controller: CONTROLLER }.publish(&self.appender).await;
        let came = wait::until("it is delivered", 20, || async {
            let received = self.receiver.received();
            (received.len() >= self.published).then_some(received)
        });
        let last = came.await.pop().unwrap();
        let header = |name: &str| last.headers[name].clone();
        let (at, signatures) = (header("webhook-timestamp"), header("webhook-signature"));
        keys.iter().map(|key| key.verifies(&last.id, &at, &signatures, &last.body)).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_take_over_from_others_without_a_moment_between() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("ryggrad.toml"), SETTINGS).unwrap();
    let bridge = scenario.bridge(&["--config", "ryggrad.toml"]);
    let parties = Parties::meet(&scenario).await;
    let receiver = Receiver::start().await;
    receiver.trust(SECRET);
    let wish = json!({"types": [TYPE], "sink": receiver.sink(), "secret": SECRET, "verify": "none"});
    make(&parties.receiver, "subscriptions", wish).await;
    let appender = Appender::new(&scenario.connection(), 10_000).unwrap();
    let mut stage = Stage { scenario, bridge, receiver, appender, published: 0 };
    let is_whole = async || {
        let (status, said) = parties.controller.post("/v1/disclosures/verify", json!({})).await;
        assert!(status == 200 && said["faults"].as_array().is_some_and(Vec::is_empty), "{said}");
        assert!(said["checkpoints"].as_u64().unwrap() > 0, "{said}");
    };

    // The key that signs deliveries and records.
    let old = stage.published_keys().await[0];
    assert_eq!(stage.signed_by(&[old]).await, [true]);
    let elsewhere = command(stage.scenario.folder.path(), &["keys", "--data", "nowhere", "list"]);
    assert!(
        elsewhere.0 == Some(1) && elsewhere.2.contains("--data") && !stage.scenario.folder.path().join("nowhere").exists(),
        "{elsewhere:?}"
    );
    for early in ["promote", "retire"] {
        assert_eq!(stage.keys(&["signing", early]).0, Some(3), "there is no other key");
    }
    stage.step(&["signing", "add"]).await;
    let keys = stage.published_keys().await;
    assert_eq!((keys.len(), keys[0]), (2, old));
    assert_eq!(stage.signed_by(&keys).await, [true, true], "both sign while receivers learn the new one");
    is_whole().await;
    stage.step(&["signing", "promote"]).await;
    assert_eq!(stage.published_keys().await, [keys[1], old]);
    assert_eq!(stage.signed_by(&keys).await, [true, true]);
    stage.step(&["signing", "retire"]).await;
    assert_eq!(stage.published_keys().await, [keys[1]]);
    assert_eq!(stage.signed_by(&keys).await, [false, true], "the old one signs no more");
    // What either has signed still verifies.
    is_whole().await;
    let (_, out) = stage.keys(&["list", "-o", "ndjson"]);
    let roles: Vec<Value> = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["role"].clone()).collect();
    assert_eq!(roles[..2], [json!("signs deliveries and records"), json!("has signed records")]);

    // The operator's token.
    stage.step(&["operator", "replace"]).await;
    let newest = std::fs::read_to_string(stage.scenario.data().join("operator.token")).unwrap().lines().next().unwrap().to_owned();
    assert_ne!(newest, OPERATOR_TOKEN);
    for (token, before, after) in [(OPERATOR_TOKEN, 200, 401), (newest.as_str(), 200, 200)] {
        let operator = parties.operator.with_token(Some(token));
        assert_eq!(operator.get("/v1/tokens").await.0, before);
        if before != after {
            stage.step(&["operator", "retire"]).await;
        }
        assert_eq!(operator.get("/v1/tokens").await.0, after);
    }
    assert_eq!(stage.keys(&["operator", "retire"]).0, Some(3));
    stage.bridge.stop().await;
}
