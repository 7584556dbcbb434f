//! What an owner may choose: settings and headers, the endpoint's agreement, secrets that rotate,
//! test events, and the calls of receivers that fetch.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use reqwest::Method;
use ryggrad_schemas::catalogue::topics::SUBSCRIPTIONS;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::process::Process;
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::topic::read_all;
use ryggrad_tests::{process, wait};
use serde_json::{Value, json};

const SUBSCRIPTION: &str = "/v1/subscriptions";

struct Ground {
    scenario: Scenario,
    own: Caller,
    token: String,
    bridge: Process,
}

impl Ground {
    async fn start() -> Self {
        let scenario = Scenario::start().await;
        std::fs::write(scenario.folder.path().join("bridge.toml"), "[bridge]\nwebhook_origin = \"hendelser.example.no\"\n").unwrap();
        let bridge = scenario.bridge(&["--config", "bridge.toml"]);
        let operator = scenario.operator().await;
        let token = operator.issue_token(ORGANISATION).await;
        Self { own: operator.with_token(Some(&token)), scenario, token, bridge }
    }

    async fn create(&self, sink: &str, choices: Value) -> Value {
        let mut body = json!({"types": ["no.ryggrad.*"], "sink": sink});
        body.as_object_mut().unwrap().extend(choices.as_object().unwrap().clone());
        let (status, created) = self.own.post(SUBSCRIPTION, body).await;
        assert_eq!(status, 201, "{created}");
        created
    }

    fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let url = self.scenario.bridge_url();
        let flags = ["--bridge", &url, "--token", &self.token];
        process::command(self.scenario.folder.path(), &[&["subscriptions"], arguments, &flags].concat())
    }
}

fn id_of(created: &Value) -> &str {
    created["id"].as_str().unwrap()
}

fn path(created: &Value) -> String {
    format!("{SUBSCRIPTION}/{}", id_of(created))
}

fn pointers(answer: &Value) -> Vec<String> {
    let mut found: Vec<String> =
        answer["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap().to_owned()).collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn choices_are_checked_shown_changed_and_kept() {
    let mut ground = Ground::start().await;
    let receiver = Receiver::start().await;
    let own = ground.own.clone();

    let bare = ground.create(&receiver.sink(), json!({})).await;
    for (member, expected) in [
        ("channel", json!("webhook")),
        ("order", json!("key")),
        ("format", json!("structured")),
        ("batch_events_max", json!(100)),
        ("on_exhausted", json!("block")),
        ("retry_horizon_ms", json!(259_200_000)),
        ("disable_after_ms", json!(432_000_000)),
        ("verify", json!("auto")),
        ("headers", json!([])),
    ] {
        assert_eq!(bare[member], expected, "{member}: {bare}");
    }
    assert!(bare.get("attempts_per_minute_max").is_none() && bare.get("in_flight_max").is_none(), "{bare}");

    let many: serde_json::Map<String, Value> = (0..17).map(|index| (format!("x-{index}"), json!("v"))).collect();
    let wrong = json!({
        "order": "random", "format": 7, "batch_events_max": 0, "on_exhausted": null, "retry_horizon_ms": 1, "disable_after_ms": "5d",
        "attempts_per_minute_max": 0, "in_flight_max": 65, "verify": "never", "headers": {"Host": "x", "ce-id": "x", "a": "b\r\nc: d"},
    });
    let named = [
        "/attempts_per_minute_max",
        "/batch_events_max",
        "/disable_after_ms",
        "/format",
        "/headers/Host",
        "/headers/a",
        "/headers/ce-id",
        "/in_flight_max",
        "/order",
        "/retry_horizon_ms",
        "/verify",
    ];
    let mut asked = json!({"types": ["no.ryggrad.*"], "sink": receiver.sink()});
    asked.as_object_mut().unwrap().extend(wrong.as_object().unwrap().clone());
    let (status, answer) = own.post(SUBSCRIPTION, asked).await;
    assert_eq!((status, pointers(&answer)), (422, named.map(str::to_owned).to_vec()), "{answer}");
    let (status, answer) = own.patch(&path(&bare), wrong).await;
    assert_eq!((status, pointers(&answer)), (422, named.map(str::to_owned).to_vec()), "{answer}");
    for (body, pointer) in [
        (json!({"batch_events_max": 3}), "/batch_events_max"),
        (json!({"headers": many}), "/headers"),
        (json!({"headers": {"a": "x".repeat(1_024), "b": "x".repeat(1_024), "c": "x".repeat(1_024), "d": "x".repeat(1_024)}}), "/headers"),
        (json!({"channel": "pull"}), "/channel"),
        (json!({"verification": {"state": "verified"}}), "/verification"),
    ] {
        let (status, answer) = own.patch(&path(&bare), body.clone()).await;
        assert_eq!((status, pointers(&answer)), (422, vec![pointer.to_owned()]), "{body}: {answer}");
    }

    // All of them by the command line, changed, and the same after a restart.
    let sink = receiver.sink();
    let line = [
        "create",
        "--sink",
        &sink,
        "--order",
        "partition",
        "--format",
        "batch",
        "--batch-events-max",
        "7",
        "--on-exhausted",
        "park",
        "--retry-horizon",
        "1d",
        "--attempts-per-minute-max",
        "600",
        "--in-flight-max",
        "2",
        "--disable-after",
        "10d",
        "--header",
        "X-Api-Key: hemmelig-verdi",
        "--header",
        "X-Leietaker: 7",
        "-o",
        "ndjson",
    ];
    let (code, out, said) = ground.command(&line);
    assert_eq!(code, Some(0), "{said}");
    let chosen: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(chosen["headers"], json!(["x-api-key", "x-leietaker"]));
    let id = chosen["id"].as_str().unwrap().to_owned();
    let (code, out, said) = ground.command(&[
        "update",
        &id,
        "--on-exhausted",
        "skip",
        "--in-flight-max",
        "default",
        "--header",
        "X-Leietaker:",
        "-o",
        "ndjson",
    ]);
    assert_eq!(code, Some(0), "{said}");
    let changed: Value = serde_json::from_str(&out).unwrap();
    let expected = json!({
        "order": "partition", "format": "batch", "batch_events_max": 7, "on_exhausted": "skip", "retry_horizon_ms": 86_400_000,
        "attempts_per_minute_max": 600, "disable_after_ms": 864_000_000, "headers": ["x-api-key"],
    });
    let holds = |shown: &Value| {
        expected.as_object().unwrap().iter().all(|(name, value)| shown[name] == *value) && shown.get("in_flight_max").is_none()
    };
    assert!(holds(&changed), "{changed}");
    assert_eq!(ground.bridge.stop().await, Some(0));
    ground.bridge = ground.scenario.bridge(&["--config", "bridge.toml"]);
    own.ready().await;
    let shown = own.get(&path(&chosen)).await.1;
    assert!(holds(&shown), "{shown}");

    // A header's value goes to the endpoint, and nowhere else.
    let (code, out, said) = ground.command(&["test", &id, "-o", "ndjson"]);
    assert_eq!((code, &serde_json::from_str::<Value>(&out).unwrap()["http_status"]), (Some(0), &json!(204)), "{said}");
    assert_eq!(receiver.received().last().unwrap().headers["x-api-key"], "hemmelig-verdi");
    for record in read_all(&ground.scenario.connection(), SUBSCRIPTIONS).await {
        assert!(!String::from_utf8_lossy(&record.value.unwrap_or_default()).contains("hemmelig-verdi"), "offset {}", record.offset);
    }
    assert!(!ground.bridge.said().contains("hemmelig-verdi") && !shown.to_string().contains("hemmelig-verdi"));
}

/// How an endpoint answers when it is asked.
#[derive(Clone, Copy)]
struct Manners {
    /// `WebHook-Allowed-Origin` and `-Rate`.
    grant: Option<(&'static str, &'static str)>,
    echoes: bool,
}

#[derive(Clone)]
struct Asked {
    manners: Manners,
    challenges: Arc<AtomicUsize>,
}

async fn endpoint(manners: Manners) -> (String, Arc<AtomicUsize>) {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let sink = format!("http://{}/inn", listener.local_addr().unwrap());
    let asked = Asked { manners, challenges: Arc::default() };
    let challenges = Arc::clone(&asked.challenges);
    let router = Router::new().route("/inn", any(answer)).with_state(asked);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (sink, challenges)
}

async fn answer(State(asked): State<Asked>, method: axum::http::Method, headers: HeaderMap, body: Bytes) -> Response {
    if method == axum::http::Method::OPTIONS {
        assert_eq!(headers["webhook-request-origin"], "hendelser.example.no");
        return match asked.manners.grant {
            Some((origin, rate)) => [("webhook-allowed-origin", origin), ("webhook-allowed-rate", rate)].into_response(),
            None => StatusCode::OK.into_response(),
        };
    }
    let event: Value = serde_json::from_slice(&body).unwrap();
    assert!(headers.contains_key("webhook-signature"), "a challenge is signed");
    asked.challenges.fetch_add(1, Ordering::SeqCst);
    let challenge = event["data"]["challenge"].as_str().unwrap().to_owned();
    if asked.manners.echoes { challenge.into_response() } else { StatusCode::OK.into_response() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_agrees_by_the_handshake_or_by_the_challenge() {
    let mut ground = Ground::start().await;
    let own = ground.own.clone();
    let mut last = Value::Null;
    for (grant, echoes, state, method, rate, challenges) in [
        (Some(("hendelser.example.no", "120")), false, "verified", Some("options"), Some(120), 0),
        (Some(("*", "*")), false, "verified", Some("options"), None, 0),
        (Some(("andre.example.no", "120")), true, "verified", Some("challenge"), None, 1),
        (None, true, "verified", Some("challenge"), None, 1),
        (None, false, "unverified", None, None, 1),
    ] {
        let (sink, challenged) = endpoint(Manners { grant, echoes }).await;
        let created = ground.create(&sink, json!({})).await;
        assert_eq!(created["verification"], json!({"state": "pending"}));
        let found = own.agreement(id_of(&created)).await;
        let member = |name: &str| found.get(name).cloned();
        assert_eq!((&found["state"], member("method")), (&json!(state), method.map(|method| json!(method))), "{found}");
        assert_eq!((member("rate_per_minute"), challenged.load(Ordering::SeqCst)), (rate.map(|rate| json!(rate)), challenges), "{found}");
        assert!(found["at"].is_string() && found.get("error").is_some() == (state == "unverified"), "{found}");
        last = created;
    }

    // Another endpoint has to agree anew; one that refused can be asked again.
    let (good, _) = endpoint(Manners { grant: Some(("*", "60")), echoes: false }).await;
    let (_, changed) = own.patch(&path(&last), json!({"sink": good})).await;
    assert_eq!(changed["verification"]["state"], "pending", "{changed}");
    assert_eq!(own.agreement(id_of(&last)).await["rate_per_minute"], 60);
    assert_eq!(own.patch(&path(&last), json!({"sink": good, "description": "x"})).await.1["verification"]["state"], "verified");
    let (silent, challenged) = endpoint(Manners { grant: None, echoes: false }).await;
    let refused = ground.create(&silent, json!({})).await;
    assert_eq!(own.agreement(id_of(&refused)).await["state"], "unverified");
    assert_eq!(own.post(&format!("{}/verify", path(&refused)), json!({})).await.0, 200);
    wait::until("it is asked again", 10, || async { (challenged.load(Ordering::SeqCst) == 2).then_some(()) }).await;
    let unasked = ground.create(&silent, json!({"verify": "none"})).await;
    assert_eq!(unasked["verification"], json!({"state": "not-required"}));

    // Without the development flag nothing leaves for who has not agreed, whatever was allowed before.
    assert_eq!(ground.bridge.stop().await, Some(0));
    ground.bridge = ground.scenario.strict_bridge(&["--config", "bridge.toml"]);
    own.ready().await;
    let so_far = challenged.load(Ordering::SeqCst);
    for (subscription, state, test) in [(&last, "verified", 200), (&refused, "unverified", 409), (&unasked, "unverified", 409)] {
        let shown = wait::until("it is asked", 10, || async {
            let (_, shown) = own.get(&path(subscription)).await;
            (shown["verification"]["state"] == state).then_some(shown)
        })
        .await;
        let (status, answer) = own.post(&format!("{}/test", path(subscription)), json!({})).await;
        assert_eq!(status, test, "{shown}: {answer}");
        assert!(status == 200 || answer["type"] == "urn:ryggrad:error:unverified", "{answer}");
    }
    assert_eq!(challenged.load(Ordering::SeqCst), so_far, "and the egress rules stand before all of it");
    let (status, answer) = own.post(SUBSCRIPTION, json!({"types": ["*"], "sink": "https://m.example.org/", "verify": "none"})).await;
    assert_eq!((status, pointers(&answer)), (422, vec!["/verify".to_owned()]), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_rotate_with_overlap_and_test_events_show_it() {
    let ground = Ground::start().await;
    let own = ground.own.clone();
    let receiver = Receiver::start().await;
    let created = ground.create(&receiver.sink(), json!({})).await;
    own.agreement(id_of(&created)).await;
    let first = created["secret"].as_str().unwrap().to_owned();
    // Sends a test event as soon as it may, and says whether the receiver trusts it.
    let tested = async |secret: &str| {
        receiver.trust(secret);
        let sent = wait::until("a test event may be sent", 10, || async {
            let (status, answer) = own.post(&format!("{}/test", path(&created)), json!({})).await;
            assert!(status == 200 || answer["type"] == "urn:ryggrad:error:too-soon", "{answer}");
            (status == 200).then_some(answer)
        })
        .await;
        let last = receiver.received().pop().unwrap();
        assert_eq!((sent["delivered"] == true, &sent["http_status"]), (last.status == 204, &json!(last.status)), "{sent}");
        assert_eq!((sent["webhook_id"].as_str(), &last.event["type"]), (Some(last.id.as_str()), &json!("no.ryggrad.test.v1")));
        assert!(last.event.get("deliverynumber").is_none() && sent["latency_ms"].is_u64(), "{sent}");
        last.verified
    };
    assert!(tested(&first).await);

    let rotate = async |body: Value| {
        let (status, rotated) = own.post(&format!("{}/rotate-secret", path(&created)), body).await;
        assert_eq!(status, 200, "{rotated}");
        rotated
    };
    let second = rotate(json!({})).await;
    assert!(second["previous_secret_until"].is_string(), "{second}");
    let second = second["secret"].as_str().unwrap().to_owned();
    assert!(tested(&first).await && tested(&second).await, "both sign");
    let (code, out, said) = ground.command(&["rotate-secret", created["id"].as_str().unwrap(), "--overlap", "1s", "-o", "ndjson"]);
    assert_eq!(code, Some(0), "{said}");
    let third: Value = serde_json::from_str(&out).unwrap();
    assert!(tested(third["secret"].as_str().unwrap()).await);
    wait::until("the second ends", 10, || async { (!tested(&second).await).then_some(()) }).await;
    assert!(tested(&first).await, "its day is not over");
    let brought = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    assert_eq!(rotate(json!({"overlap_s": 0, "secret": brought})).await["secret"], brought);
    assert!(tested(brought).await && tested(&first).await);
    // By PATCH it replaces all others at once.
    assert_eq!(own.patch(&path(&created), json!({"secret": second})).await.0, 200);
    assert!(!tested(&first).await && !tested(brought).await && tested(&second).await);
    assert!(own.get(&path(&created)).await.1.get("previous_secret_until").is_none());

    for body in [json!([]), json!({"overlap_s": 604_801}), json!({"overlap_s": -1}), json!({"secret": "x"}), json!({"farge": 1})] {
        assert_eq!(own.post(&format!("{}/rotate-secret", path(&created)), body.clone()).await.0, 422, "{body}");
    }
    // Failures are told as they are, and once a second is enough.
    receiver.answer_with(|_| (500, Vec::new()));
    tested(&second).await;
    let authorization = format!("Bearer {}", ground.token);
    let again = own.raw(Method::POST, &format!("{}/test", path(&created)), &[("authorization", &authorization)], "").await;
    assert_eq!((again.status, again.header("retry-after")), (429, "1"), "{again:?}");
    let nobody = ground.create("http://127.0.0.1:9/", json!({"verify": "none"})).await;
    let (status, answer) = own.post(&format!("{}/test", path(&nobody)), json!({})).await;
    assert_eq!((status, &answer["delivered"], &answer["http_status"]), (200, &json!(false), &Value::Null), "{answer}");
    assert!(answer["error"].is_string(), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_for_the_other_channel_says_what_to_do() {
    let ground = Ground::start().await;
    let own = ground.own.clone();
    let posted = path(&ground.create("http://127.0.0.1:9/", json!({"verify": "none"})).await);
    let (status, fetched) = own.post(SUBSCRIPTION, json!({"types": ["*"], "channel": "pull"})).await;
    assert_eq!((status, &fetched["verification"]["state"]), (201, &json!("not-required")), "{fetched}");
    assert!(["secret", "sink", "order", "headers"].iter().all(|member| fetched.get(*member).is_none()), "{fetched}");
    let fetched = path(&fetched);
    for body in [json!({"types": ["*"], "channel": "pull", "sink": "http://127.0.0.1:9/"}), json!({"types": ["*"], "channel": "fax"})] {
        assert_eq!(own.post(SUBSCRIPTION, body.clone()).await.0, 422, "{body}");
    }
    assert_eq!(own.patch(&fetched, json!({"sink": "http://127.0.0.1:9/"})).await.0, 422);
    assert_eq!(own.patch(&fetched, json!({"description": "x", "state": "paused"})).await.1["state"], "paused");
    for (method, path, status, code) in [
        (Method::GET, format!("{posted}/events"), 409, "channel"),
        (Method::POST, format!("{posted}/ack"), 409, "channel"),
        (Method::POST, format!("{fetched}/test"), 409, "channel"),
        (Method::POST, format!("{fetched}/verify"), 409, "channel"),
        (Method::POST, format!("{fetched}/rotate-secret"), 409, "channel"),
        (Method::GET, format!("{fetched}/dead-letters"), 409, "channel"),
        (Method::GET, format!("{fetched}/attempts"), 409, "channel"),
        (Method::GET, format!("{fetched}/events?after=abc"), 400, "cursor"),
        (Method::GET, format!("{fetched}/events?limit=0&wait_s=61&farge=1"), 422, "invalid"),
        (Method::GET, format!("{posted}/attempts?limit=x"), 422, "invalid"),
        (Method::GET, format!("{posted}/dead-letters?after=x"), 422, "invalid"),
        (Method::DELETE, format!("{posted}/dead-letters/t:0:1"), 404, "not-found"),
        (Method::POST, format!("{posted}/dead-letters/redrive"), 422, "invalid"),
    ] {
        let (found, answer) = own.call(method.clone(), &path, Some(json!({"cursor": "abc"}))).await;
        assert_eq!((found, &answer["type"]), (status, &json!(format!("urn:ryggrad:error:{code}"))), "{method} {path}: {answer}");
    }
    assert_eq!(own.call(Method::POST, &format!("{fetched}/ack"), Some(json!({"cursor": "abc"}))).await.0, 400);
    assert_eq!(own.call(Method::POST, &format!("{fetched}/ack"), Some(json!({"after": "abc"}))).await.0, 422);
    assert_eq!(own.get(&format!("{posted}/attempts")).await, (200, json!({"attempts": [], "next": null})));
    assert_eq!(own.get(&format!("{posted}/dead-letters")).await, (200, json!({"dead_letters": [], "next": null})));
    assert_eq!(own.post(&format!("{posted}/dead-letters/redrive"), json!({})).await, (200, json!({"redriven": 0})));
}
