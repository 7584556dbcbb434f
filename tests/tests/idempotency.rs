//! Idempotency keys at the edge: what a repetition gets, what is refused, what survives a restart and a kill.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeSet;

use futures_util::future::join_all;
use rand::Rng;
use reqwest::Method;
use ryggrad_tests::bridge::{Caller, Raw};
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::{full, random, wait};
use serde_json::{Value, json};

const SUBSCRIPTIONS: &str = "/v1/subscriptions";
const TOKENS: &str = "/v1/tokens";
const WATCH_LISTS: &str = "/v1/watch-lists";

/// Requests with keys that are under way when the bridge is killed.
const AT_ONCE: usize = 40;

async fn try_post(caller: &Caller, path: &str, key: &str, body: &Value) -> Option<Raw> {
    caller.try_with(Method::POST, path, &[("idempotency-key", key)], body.to_string()).await
}

async fn post(caller: &Caller, path: &str, key: &str, body: &Value) -> Raw {
    try_post(caller, path, key, body).await.expect("the bridge answers")
}

fn asked() -> Value {
    json!({"types": ["no.ryggrad.*"], "sink": "http://127.0.0.1:9/"})
}

/// The same answer, said to be one that was given before.
fn is_replay_of(again: &Raw, first: &Raw) {
    assert_eq!((again.status, &again.text), (first.status, &first.text));
    for name in ["content-type", "location", "etag"] {
        assert_eq!(again.header(name), first.header(name), "{name}");
    }
    assert_eq!(again.header("idempotency-replayed"), "true");
}

fn is_problem(answer: &Raw, status: u16, code: &str) {
    assert_eq!((answer.status, &answer.json()["type"]), (status, &json!(format!("urn:ryggrad:error:{code}"))), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repetition_gets_the_first_answer_again() {
    let scenario = Scenario::start().await;
    let settings = "[bridge]\nidempotency_keys_per_organisation_max = 6\nrequest_bytes_max = 16384\n";
    std::fs::write(scenario.folder.path().join("bridge.toml"), settings).unwrap();
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let operator = scenario.operator().await;
    let (own, other) = (scenario.subscriber(ORGANISATION).await, scenario.subscriber(OTHER_ORGANISATION).await);

    // Done once, answered twice: with its secret, by another token of the same organisation too.
    let first = post(&own, SUBSCRIPTIONS, "k1", &asked()).await;
    assert_eq!((first.status, first.header("idempotency-replayed")), (201, ""), "{first:?}");
    is_replay_of(&post(&own, SUBSCRIPTIONS, "k1", &asked()).await, &first);
    is_replay_of(&post(&scenario.subscriber(ORGANISATION).await, SUBSCRIPTIONS, "k1", &asked()).await, &first);
    assert_eq!(own.get(SUBSCRIPTIONS).await.1["subscriptions"].as_array().unwrap().len(), 1);

    // Nobody else gets it, nor whoever may do less.
    let theirs = post(&other, SUBSCRIPTIONS, "k1", &asked()).await;
    assert_eq!((theirs.status, theirs.header("idempotency-replayed")), (201, ""));
    assert_ne!(theirs.json()["id"], first.json()["id"]);
    let (_, issued) = operator.post(TOKENS, json!({"organisation": ORGANISATION, "roles": ["publish"]})).await;
    let lesser = operator.with_token(issued["token"].as_str());
    is_problem(&post(&lesser, SUBSCRIPTIONS, "k1", &asked()).await, 403, "forbidden");
    is_problem(&post(&own.with_token(Some("ryg_x")), SUBSCRIPTIONS, "k1", &asked()).await, 401, "unauthorised");

    // Another request, in its body or its address.
    is_problem(&post(&own, SUBSCRIPTIONS, "k1", &json!({})).await, 422, "key-reused");
    is_problem(&post(&own, &format!("{}/pause", first.header("location")), "k1", &asked()).await, 422, "key-reused");

    // What is refused did nothing, and leaves its key free.
    is_problem(&post(&own, SUBSCRIPTIONS, "k2", &json!({})).await, 422, "invalid");
    assert_eq!(post(&own, SUBSCRIPTIONS, "k2", &asked()).await.status, 201);

    // No key, and no key at all.
    for bad in ["", "a b", &"k".repeat(256)] {
        let refused = post(&own, SUBSCRIPTIONS, bad, &asked()).await;
        is_problem(&refused, 422, "invalid");
        assert_eq!(refused.json()["errors"][0]["pointer"], "Idempotency-Key");
    }
    is_problem(&post(&own, SUBSCRIPTIONS, "k3", &json!("x".repeat(20_000))).await, 413, "too-large");

    // While the first is under way, its repetition waits outside.
    let receiver = Receiver::start().await;
    let (id, _) = own.subscribe(&receiver.sink(), "now").await;
    own.agreement(&id).await;
    let test = format!("{SUBSCRIPTIONS}/{id}/test");
    wait::until("the endpoint may be called by hand", 5, || async {
        (post(&own, &format!("{SUBSCRIPTIONS}/{id}/verify"), "k4", &json!({})).await.status == 200).then_some(())
    })
    .await;
    let (arrive, mut arrived) = tokio::sync::watch::channel(());
    receiver.delay_with(move |_| {
        arrive.send_replace(());
        3_000
    });
    let one = own.clone();
    let slow = tokio::spawn({
        let test = test.clone();
        async move {
            wait::until("the first goes ahead", 10, || async {
                let answer = post(&one, &test, "k5", &json!({})).await;
                (answer.status == 200).then_some(answer)
            })
            .await
        }
    });
    arrived.changed().await.unwrap();
    let refused = post(&own, &test, "k5", &json!({})).await;
    is_problem(&refused, 409, "under-way");
    assert_eq!(refused.header("retry-after"), "1");
    let slow = slow.await.unwrap();
    is_replay_of(&post(&own, &test, "k5", &json!({})).await, &slow);

    // So many keys and no more; other organisations have their own.
    assert_eq!(post(&own, SUBSCRIPTIONS, "k6", &asked()).await.status, 201);
    assert_eq!(post(&own, SUBSCRIPTIONS, "k7", &asked()).await.status, 201);
    is_problem(&post(&own, SUBSCRIPTIONS, "k8", &asked()).await, 409, "limit");
    assert_eq!(post(&other, SUBSCRIPTIONS, "k8", &asked()).await.status, 201);
    let metrics = own.raw(Method::GET, "/metrics", &[], "").await.text;
    assert!(metrics.lines().any(|line| line == "ryggrad_bridge_idempotency_keys 8"), "{metrics}");

    // Kept over a restart, sealed.
    assert_eq!(bridge.stop().await, Some(0));
    let secret = first.json()["secret"].as_str().unwrap().trim_start_matches("whsec_").to_owned();
    for entry in std::fs::read_dir(scenario.data().join("cursors")).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "a secret is in {}", path.display());
    }
    let _bridge = scenario.bridge(&["--config", "bridge.toml"]);
    own.ready().await;
    is_replay_of(&post(&own, SUBSCRIPTIONS, "k1", &asked()).await, &first);
    is_problem(&post(&own, SUBSCRIPTIONS, "k1", &json!({})).await, 422, "key-reused");
    is_problem(&post(&own, SUBSCRIPTIONS, "k8", &asked()).await, 409, "limit");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_makes_nothing_twice_and_loses_no_answer_that_was_given() {
    let mut random = random::seeded("a_kill_makes_nothing_twice_and_loses_no_answer_that_was_given");
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let own = scenario.subscriber(ORGANISATION).await;
    let tokens_before = operator.get(&format!("{TOKENS}?limit=1000")).await.1["tokens"].as_array().unwrap().len();
    let (mut keys, mut broken_off, mut remade) = (0, 0, 0);
    for round in 0..if full() { 20 } else { 5 } {
        let kill_after_ms = random.random_range(0..250);
        let names: Vec<String> = (0..AT_ONCE).map(|number| format!("{round}-{number}")).collect();
        let bodies = |number: usize| match number % 4 {
            0 => (TOKENS, &operator, json!({"organisation": ORGANISATION})),
            1 => (WATCH_LISTS, &own, json!({"domain": "organisasjonsnummer"})),
            _ => (SUBSCRIPTIONS, &own, asked()),
        };
        let firsts = join_all(names.iter().enumerate().map(|(number, name)| async move {
            let (path, caller, body) = bodies(number);
            try_post(caller, path, name, &body).await
        }));
        let killing = async {
            wait::random_moment(kill_after_ms).await;
            bridge.kill();
        };
        let (firsts, ()) = tokio::join!(firsts, killing);
        bridge = scenario.bridge(&[]);
        own.ready().await;
        let mut there = ids(&own, SUBSCRIPTIONS, "subscriptions").await;
        there.extend(ids(&own, WATCH_LISTS, "watch_lists").await);
        for (number, (name, first)) in names.iter().zip(firsts).enumerate() {
            let (path, caller, body) = bodies(number);
            let again = post(caller, path, name, &body).await;
            assert_eq!(again.status, 201, "{again:?}");
            keys += 1;
            match first {
                Some(first) => is_replay_of(&again, &first),
                None => {
                    broken_off += 1;
                    remade += usize::from(there.contains(again.json()["id"].as_str().unwrap()));
                }
            }
            is_replay_of(&post(caller, path, name, &body).await, &again);
        }
        println!("killed after {kill_after_ms} ms: {broken_off} of {keys} broken off so far, {remade} of them after they were done");
    }
    assert!(broken_off > 0 && broken_off < keys, "{broken_off} of {keys} broken off: the kills show little");
    let tokens = ids(&operator, TOKENS, "tokens").await.len() - tokens_before;
    let made = tokens + ids(&own, SUBSCRIPTIONS, "subscriptions").await.len() + ids(&own, WATCH_LISTS, "watch_lists").await.len();
    assert_eq!(made, keys, "one thing for each key");
}

/// The moment between the effect and the kept answer: the cursor store is lost, and with it every answer.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_is_found_again_though_its_answer_is_lost() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let own = scenario.subscriber(ORGANISATION).await;
    let issue = json!({"organisation": OTHER_ORGANISATION});
    let made = post(&own, SUBSCRIPTIONS, "k", &asked()).await.json();
    let issued = post(&operator, TOKENS, "k", &issue).await.json();
    let listing = json!({"domain": "organisasjonsnummer"});
    let listed = post(&own, WATCH_LISTS, "kl", &listing).await.json();
    // Two replays, of which the one that was made last is shown first.
    let replays = format!("{SUBSCRIPTIONS}/{}/replays", made["id"].as_str().unwrap());
    let replay = json!({"from": "beginning"});
    let mut begun = Vec::new();
    for key in ["k1", "k2"] {
        begun.insert(0, post(&own, &replays, key, &replay).await.json()["id"].clone());
    }
    assert_eq!(bridge.stop().await, Some(0));
    std::fs::remove_dir_all(scenario.data().join("cursors")).unwrap();
    let _bridge = scenario.bridge(&[]);
    own.ready().await;

    let again = post(&own, SUBSCRIPTIONS, "k", &asked()).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, ""));
    for member in ["id", "secret", "created_at"] {
        assert_eq!(again.json()[member], made[member], "{member}");
    }
    assert_eq!(ids(&own, SUBSCRIPTIONS, "subscriptions").await.len(), 1);
    let reissued = post(&operator, TOKENS, "k", &issue).await.json();
    assert_eq!(reissued["id"], issued["id"], "the token whose text got lost is replaced");
    assert_eq!(operator.with_token(issued["token"].as_str()).get(SUBSCRIPTIONS).await.0, 401);
    assert_eq!(operator.with_token(reissued["token"].as_str()).get(SUBSCRIPTIONS).await.0, 200);
    assert_eq!(ids(&operator, TOKENS, "tokens").await.len(), 2);
    assert_eq!(post(&own, WATCH_LISTS, "kl", &listing).await.json(), listed);
    assert_eq!(ids(&own, WATCH_LISTS, "watch_lists").await.len(), 1);
    for (key, id) in [("k2", &begun[0]), ("k1", &begun[1])] {
        assert_eq!(post(&own, &replays, key, &replay).await.json()["id"], *id);
    }
    let (_, shown) = own.get(&replays).await;
    assert_eq!(shown["replays"].as_array().unwrap().iter().map(|replay| replay["id"].clone()).collect::<Vec<_>>(), begun, "{shown}");
    // Another request with that key is another thing.
    let mut other = asked();
    other["description"] = json!("en annen");
    assert_eq!(post(&own, SUBSCRIPTIONS, "k", &other).await.json()["type"], "urn:ryggrad:error:key-reused");
}

async fn ids(caller: &Caller, path: &str, member: &str) -> BTreeSet<String> {
    let (_, body) = caller.get(&format!("{path}?limit=1000")).await;
    assert_eq!(body["next"], json!(null));
    body[member].as_array().unwrap().iter().map(|shown| shown["id"].as_str().unwrap().to_owned()).collect()
}
