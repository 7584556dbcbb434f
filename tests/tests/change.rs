//! Changing a subscription that is at work: what may change, from when it counts, and that it stays.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeSet;

use reqwest::Method;
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::{process, wait};
use serde_json::{Value, json};
use uuid::Uuid;

/// Whoever waits for a retry here waits longer than the test lasts.
const SETTINGS: &str = "[bridge]\nretry_first_ms = 3600000\nretry_max_ms = 3600000\nprobe_ms = 3600000\nrequest_bytes_max = 16384\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

async fn takes(what: &str, receiver: &Receiver, published: &[Published]) {
    let expected: BTreeSet<u64> = published.iter().map(|published| published.position).collect();
    wait::until(what, 20, || async {
        let taken: BTreeSet<u64> =
            receiver.received().iter().filter(|delivery| delivery.status == 204).map(|delivery| delivery.change().1).collect();
        taken.is_superset(&expected).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_counts_from_its_answer_on_also_for_what_is_being_retried() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let own = scenario.subscriber(ORGANISATION).await;
    let other = scenario.subscriber(OTHER_ORGANISATION).await;
    let mut events = Events::start(&scenario.connection()).await;
    let (old, new) = (Receiver::scripted(|_| (500, Vec::new())).await, Receiver::start().await);
    let (id, _) = own.subscribe(&old.sink(), "now").await;
    let path = format!("/v1/subscriptions/{id}");

    // What can't be changed is refused, every field at once, and nothing happens.
    own.agreement(&id).await;
    let unchanged = own.get("/v1/subscriptions").await.1;
    for (body, pointers) in [
        ("{", vec![""]),
        ("[]", vec![""]),
        (r#"{"sink": null, "types": [], "state": "disabled", "secret": null}"#, vec!["/secret", "/sink", "/state", "/types"]),
        (r#"{"sink": "http://169.254.169.254/", "description": 7}"#, vec!["/description", "/sink"]),
        (r#"{"id": "x", "organisation": "212345679", "start": "beginning", "a/b": 1}"#, vec!["/a~1b", "/id", "/organisation", "/start"]),
    ] {
        let (status, answer) = match serde_json::from_str::<Value>(body) {
            Ok(body) => own.patch(&path, body).await,
            Err(_) => {
                let token = scenario.operator().await.issue_token(ORGANISATION).await;
                let answer = own.raw(Method::PATCH, &path, &[("authorization", &format!("Bearer {token}"))], body).await;
                (answer.status, answer.json())
            }
        };
        let mut named: Vec<&str> = answer["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        named.sort_unstable();
        assert_eq!((status, named, &answer["type"]), (422, pointers, &json!("urn:ryggrad:error:invalid")), "{answer}");
    }
    for (caller, path, status) in [
        (&other, path.clone(), 404),
        (&own, format!("/v1/subscriptions/{}", Uuid::nil()), 404),
        (&own, "/v1/subscriptions/%ff".to_owned(), 404),
        (&own.with_token(None), path.clone(), 401),
    ] {
        assert_eq!(caller.patch(&path, json!({"sink": new.sink()})).await.0, status, "{path}");
    }
    assert_eq!(own.patch(&path, json!({"description": "x".repeat(20_000)})).await.0, 413);
    assert_eq!(own.patch(&path, json!({})).await.0, 200, "an empty patch is one");
    assert_eq!(own.get("/v1/subscriptions").await.1, unchanged);

    // Everything fails and would wait for an hour; the new address has it at once.
    let mut published = events.publish((0..30).map(key)).await;
    wait::until("every key was refused", 20, || async {
        own.status(&id).await.filter(|status| status["failed_attempts"].as_u64() >= Some(30) && status["in_flight"] == 0)
    })
    .await;
    let refused = old.count();
    new.trust(SECRET);
    let (status, changed) = own.patch(&path, json!({"sink": new.sink(), "secret": SECRET, "description": "flyttet"})).await;
    assert_eq!((status, &changed["sink"], &changed["description"]), (200, &json!(new.sink()), &json!("flyttet")), "{changed}");
    assert!(changed.get("secret").is_none() && changed.get("sealed_secret").is_none(), "{changed}");
    takes("what waited", &new, &published).await;
    published.extend(events.publish((0..30).map(key)).await);

    // It outlives the bridge.
    bridge.kill();
    let _bridge = scenario.bridge(&["--config", "bridge.toml"]);
    own.ready().await;
    published.extend(events.publish((0..30).map(key)).await);
    takes("all of it", &new, &published).await;
    assert_eq!(old.count(), refused, "nothing goes to the old address any more");
    assert!(new.received().iter().all(|delivery| delivery.verified), "the new secret signs");

    // Gone, and mended by one change.
    let gone = Receiver::scripted(|_| (410, Vec::new())).await;
    assert_eq!(own.patch(&path, json!({"sink": gone.sink()})).await.0, 200);
    published.extend(events.publish([key(1)]).await);
    wait::until("it is disabled", 20, || async { (own.get(&path).await.1["state"] == "disabled").then_some(()) }).await;
    let (_, changed) = own.patch(&path, json!({"sink": new.sink(), "state": "active", "description": null})).await;
    assert_eq!((&changed["state"], changed.get("reason"), changed.get("description")), (&json!("active"), None, None), "{changed}");
    takes("what was refused for good", &new, &published).await;

    // A patch can pause, and the command line can change.
    assert_eq!(own.patch(&path, json!({"state": "paused"})).await.1["state"], "paused");
    let token = scenario.operator().await.issue_token(ORGANISATION).await;
    let update =
        ["subscriptions", "update", &id, "--url", &gone.sink(), "-o", "ndjson", "--bridge", &scenario.bridge_url(), "--token", &token];
    let (code, out, said) = process::command(scenario.folder.path(), &update);
    let printed: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &printed["sink"], &printed["state"]), (Some(0), &json!(gone.sink()), &json!("paused")), "{said}");
}
