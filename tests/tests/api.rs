//! The bridge's API at its edge: who may do what, what is refused and how, what stays after a
//! crash, and where the bridge refuses to start.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may be loud")]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use reqwest::Method;
use ryggrad_log::topics;
use ryggrad_schemas::catalogue::topics::{CURSORS, SUBSCRIPTIONS, TOKENS};
use ryggrad_schemas::{Catalogue, LogRecord};
use ryggrad_tests::bridge::{Caller, Raw};
use ryggrad_tests::events::{Events, key};
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{OPERATOR_TOKEN, ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::{broker, process, wait};
use serde_json::{Value, json};
use uuid::Uuid;

const SUBSCRIPTION: &str = "/v1/subscriptions";
const SETTINGS: &str =
    "[bridge]\nsubscriptions_per_organisation_max = 2\nrequest_bytes_max = 16384\nretry_first_ms = 20\nretry_max_ms = 100\n";
const REQUEST_BYTES_MAX: usize = 16_384;

#[tokio::test(flavor = "multi_thread")]
async fn every_caller_gets_what_is_theirs_and_every_refusal_is_a_problem() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let operator = scenario.operator().await;
    let mut secrets = Vec::new();
    authentication(&operator, &mut secrets).await;
    let own = operator.with_token(Some(&issue(&operator, ORGANISATION, &mut secrets).await));
    let other = operator.with_token(Some(&issue(&operator, OTHER_ORGANISATION, &mut secrets).await));
    refusals(&operator, &own).await;
    sight_and_limits(&operator, &own, &other, &mut secrets).await;
    public_pages(&operator).await;
    schema_registry(&operator).await;

    assert_eq!(bridge.stop().await, Some(0));
    let log = bridge.said();
    assert!(log.contains("the bridge is ready"), "{log}");
    let mut places = vec![("the log".to_owned(), log.into_bytes())];
    for topic in [SUBSCRIPTIONS, TOKENS] {
        let records = read_all(&scenario.connection(), topic).await;
        assert!(records.iter().any(|record| record.value.is_some()), "{topic} is not empty");
        places.extend(records.into_iter().map(|record| (format!("{topic} at {}", record.offset), bytes_of(&record))));
    }
    let mut files = BTreeMap::new();
    files_below(&scenario.data(), &mut files);
    assert!(files.keys().any(|path| path.ends_with("cursors/db")), "{:?}", files.keys());
    assert!(secrets.len() > 6, "{} secrets", secrets.len());
    // The one file that exists to hold the operator's token.
    let kept = files.remove(&scenario.data().join("operator.token").display().to_string());
    assert!(contains(&kept.unwrap(), OPERATOR_TOKEN), "a secret that is there is found");
    places.extend(files);
    for (place, bytes) in &places {
        assert!(!contains(bytes, OPERATOR_TOKEN), "the operator's token is in {place}");
        for secret in &secrets {
            // Also the part behind the prefix alone.
            assert!(!contains(bytes, secret.rsplit('_').next().unwrap()), "a secret is in {place}");
        }
    }
}

/// A token, remembered among the secrets.
async fn issue(operator: &Caller, organisation: &str, secrets: &mut Vec<String>) -> String {
    let token = operator.issue_token(organisation).await;
    secrets.push(token.clone());
    token
}

async fn authentication(operator: &Caller, secrets: &mut Vec<String>) {
    let good = issue(operator, ORGANISATION, secrets).await;
    let revoked = issue(operator, ORGANISATION, secrets).await;
    let listed = operator.get("/v1/tokens").await.1;
    let id = listed["tokens"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(operator.with_token(Some(&revoked)).get(SUBSCRIPTION).await.0, 200);
    assert_eq!(operator.delete(&format!("/v1/tokens/{id}")).await.0, 204);
    let (status, body) = operator.post("/v1/tokens", json!({"organisation": ORGANISATION, "expires_in_s": 1})).await;
    let (refused, why) = operator.post("/v1/tokens", json!({"organisation": ORGANISATION, "expires_in_s": 91 * 24 * 3_600})).await;
    assert_eq!((refused, &why["errors"][0]["pointer"]), (422, &json!("/expires_in_s")), "local tokens are short-lived");
    let expiring = body["token"].as_str().unwrap().to_owned();
    assert_eq!(status, 201);
    secrets.push(expiring.clone());
    let caller = operator.with_token(Some(&expiring));
    wait::until("the token expires", 5, || async { (caller.get(SUBSCRIPTION).await.0 == 401).then_some(()) }).await;

    let bearer = |token: &str| format!("Bearer {token}");
    let (id, secret) = good.strip_prefix("ryg_").unwrap().split_once('_').unwrap();
    for (what, authorization) in [
        ("nothing", None),
        ("another scheme", Some(format!("Basic {good}"))),
        ("a token without a scheme", Some(good.clone())),
        ("an empty token", Some(bearer(""))),
        ("an unknown token", Some(bearer(&format!("ryg_{}_{secret}", Uuid::nil().simple())))),
        ("another's secret", Some(bearer(&format!("ryg_{id}_{}", revoked.rsplit('_').next().unwrap())))),
        ("half a token", Some(bearer(&good[..good.len() - 1]))),
        ("half the operator's token", Some(bearer(&OPERATOR_TOKEN[..20]))),
        ("a revoked token", Some(bearer(&revoked))),
        ("an expired token", Some(bearer(&expiring))),
    ] {
        let headers: Vec<(&str, &str)> = authorization.as_deref().map(|value| ("authorization", value)).into_iter().collect();
        for (method, path) in [(Method::GET, SUBSCRIPTION), (Method::POST, SUBSCRIPTION), (Method::GET, "/v1/tokens")] {
            let answer = operator.raw(method, path, &headers, "{}").await;
            problem(&answer, 401, "unauthorised", what);
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}: {answer:?}");
        }
    }
    let lower_case = operator.raw(Method::GET, SUBSCRIPTION, &[("authorization", &format!("bearer {good}"))], "").await;
    assert_eq!(lower_case.status, 200, "a scheme has no case");

    let own = operator.with_token(Some(&good));
    for (what, caller, method, path) in [
        ("an operator subscribes", operator, Method::POST, SUBSCRIPTION),
        ("an organisation issues", &own, Method::POST, "/v1/tokens"),
        ("an organisation lists tokens", &own, Method::GET, "/v1/tokens"),
        ("an organisation revokes", &own, Method::DELETE, "/v1/tokens/x"),
    ] {
        let (status, body) = caller.call(method, path, Some(subscription("https://mottak.example.org/"))).await;
        assert_eq!((status, &body["type"]), (403, &json!("urn:ryggrad:error:forbidden")), "{what}: {body}");
    }
}

fn subscription(sink: &str) -> Value {
    json!({"types": ["no.ryggrad.*"], "sink": sink})
}

/// A refusal is a whole problem, and never plain text.
fn problem(answer: &Raw, status: u16, code: &str, what: &str) {
    let body = answer.json();
    assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{what}: {answer:?}");
    assert_eq!((&body["status"], &body["type"]), (&json!(status), &json!(format!("urn:ryggrad:error:{code}"))), "{what}");
    for member in ["title", "detail"] {
        assert!(body[member].as_str().is_some_and(|text| !text.is_empty()), "{what}: {body}");
    }
}

async fn refusals(operator: &Caller, own: &Caller) {
    let long = "x".repeat(3_000);
    for (caller, path, body, pointers) in [
        (own, SUBSCRIPTION, "{".to_owned(), vec![""]),
        (own, SUBSCRIPTION, String::new(), vec![""]),
        (own, SUBSCRIPTION, "\u{fffd}".to_owned(), vec![""]),
        (own, SUBSCRIPTION, "[]".to_owned(), vec![""]),
        (own, SUBSCRIPTION, "[".repeat(10_000), vec![""]),
        (own, SUBSCRIPTION, "{}".to_owned(), vec!["/types", "/sink"]),
        (own, SUBSCRIPTION, json!({"types": ["no.ryggrad.*"], "sink": "https://m.example.org/", "a/b~c": 1}).to_string(), vec!["/a~1b~0c"]),
        (
            own,
            SUBSCRIPTION,
            json!({"types": ["no.such.v1", 3], "sink": "ftp://x", "start": "soon", "description": 1, "secret": "s", "farge": 1})
                .to_string(),
            vec!["/farge", "/types/0", "/types/1", "/sink", "/description", "/start", "/secret"],
        ),
        (own, SUBSCRIPTION, subscription(&format!("https://m.example.org/{long}")).to_string(), vec!["/sink"]),
        (own, SUBSCRIPTION, subscription("http://169.254.169.254/latest/meta-data").to_string(), vec!["/sink"]),
        (own, SUBSCRIPTION, subscription("https://[::ffff:169.254.169.254]/").to_string(), vec!["/sink"]),
        (own, SUBSCRIPTION, subscription("http://[fe80::1]/").to_string(), vec!["/sink"]),
        (operator, "/v1/tokens", "nei".to_owned(), vec![""]),
        (operator, "/v1/tokens", "7".to_owned(), vec![""]),
        (
            operator,
            "/v1/tokens",
            json!({"organisation": "312345677", "description": long, "expires_in_s": 0, "a/b~c": 1}).to_string(),
            vec!["/a~1b~0c", "/organisation", "/description", "/expires_in_s"],
        ),
    ] {
        let (status, answer) = caller.call_text(path, &body).await;
        let named: BTreeSet<&str> = answer["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!((status, named), (422, BTreeSet::from_iter(pointers)), "{answer}");
        assert!(
            answer["errors"].as_array().unwrap().iter().all(|error| error["detail"].as_str().is_some_and(|text| text.len() > 5)),
            "{answer}"
        );
        assert_eq!(answer["type"], "urn:ryggrad:error:invalid");
    }
    let id = Uuid::nil();
    for (method, path, status, code) in [
        (Method::GET, "/".to_owned(), 404, "not-found"),
        (Method::GET, "/v2/subscriptions".to_owned(), 404, "not-found"),
        (Method::GET, format!("{SUBSCRIPTION}/"), 404, "not-found"),
        (Method::GET, format!("{SUBSCRIPTION}/{id}/secret"), 404, "not-found"),
        (Method::GET, format!("{SUBSCRIPTION}/%ff"), 404, "not-found"),
        (Method::POST, format!("{SUBSCRIPTION}/%ff/pause"), 404, "not-found"),
        (Method::DELETE, "/v1/tokens/%ff".to_owned(), 404, "not-found"),
        (Method::DELETE, format!("/v1/tokens/{id}"), 404, "not-found"),
        (Method::PUT, SUBSCRIPTION.to_owned(), 405, "method"),
        (Method::DELETE, SUBSCRIPTION.to_owned(), 405, "method"),
        (Method::PUT, format!("{SUBSCRIPTION}/{id}"), 405, "method"),
        (Method::GET, format!("{SUBSCRIPTION}/{id}/pause"), 405, "method"),
        (Method::POST, "/healthz".to_owned(), 405, "method"),
        (Method::POST, "/metrics".to_owned(), 405, "method"),
    ] {
        let answer = operator.raw(method.clone(), &path, &[("authorization", &format!("Bearer {OPERATOR_TOKEN}"))], "").await;
        problem(&answer, status, code, &format!("{method} {path}"));
        // RFC 9110: a 405 names what would be right.
        assert_eq!(answer.header("allow").is_empty(), status != 405, "{method} {path}: {answer:?}");
    }
    for (path, caller) in [(SUBSCRIPTION, own), ("/v1/tokens", operator)] {
        let (status, body) = caller.call_text(path, &" ".repeat(REQUEST_BYTES_MAX + 1)).await;
        assert_eq!((status, &body["type"]), (413, &json!("urn:ryggrad:error:too-large")), "{body}");
        let (status, _) = caller.call_text(path, &" ".repeat(REQUEST_BYTES_MAX)).await;
        assert_eq!(status, 422, "the limit itself is not too large");
    }
}

async fn sight_and_limits(operator: &Caller, own: &Caller, other: &Caller, secrets: &mut Vec<String>) {
    let mut ids = Vec::new();
    for (caller, given) in [(own, None), (own, Some("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")), (other, None)] {
        let mut asked = subscription("http://127.0.0.1:9/");
        if let Some(given) = given {
            asked["secret"] = json!(given);
        }
        let (status, body) = caller.post(SUBSCRIPTION, asked).await;
        assert_eq!(status, 201, "{body}");
        let secret = body["secret"].as_str().unwrap();
        assert!(secret.starts_with("whsec_") && given.is_none_or(|given| given == secret), "{body}");
        secrets.push(secret.to_owned());
        ids.push(body["id"].as_str().unwrap().to_owned());
    }
    // Another's subscription is as absent as one that never was.
    let absent = [ids[2].clone(), Uuid::nil().to_string(), "nonsense".to_owned()];
    for (method, action) in [(Method::GET, ""), (Method::DELETE, ""), (Method::POST, "/pause"), (Method::POST, "/resume")] {
        let mut answers = Vec::new();
        for id in &absent {
            answers.push(own.call(method.clone(), &format!("{SUBSCRIPTION}/{id}{action}"), None).await);
        }
        assert_eq!((answers[0].0, &answers[0].1["type"]), (404, &json!("urn:ryggrad:error:not-found")));
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{method} {action}: {answers:?}");
    }
    let listed = |caller: &Caller| {
        let caller = caller.clone();
        async move {
            let (_, body) = caller.get(SUBSCRIPTION).await;
            body["subscriptions"].as_array().unwrap().iter().map(|found| found["id"].as_str().unwrap().to_owned()).collect::<BTreeSet<_>>()
        }
    };
    let set = |ids: &[String]| ids.iter().cloned().collect::<BTreeSet<_>>();
    assert_eq!((listed(own).await, listed(other).await, listed(operator).await), (set(&ids[..2]), set(&ids[2..]), set(&ids)));

    let (status, body) = own.post(SUBSCRIPTION, subscription("http://127.0.0.1:9/")).await;
    assert_eq!((status, &body["type"]), (409, &json!("urn:ryggrad:error:limit")), "{body}");
    assert!(body["detail"].as_str().unwrap().contains("at most 2"), "{body}");
    assert_eq!(own.delete(&format!("{SUBSCRIPTION}/{}", ids[0])).await.0, 204);
    assert_eq!(own.delete(&format!("{SUBSCRIPTION}/{}", ids[0])).await.0, 404, "gone is gone");
    let (status, body) = own.post(SUBSCRIPTION, subscription("http://127.0.0.1:9/")).await;
    assert_eq!(status, 201, "what is deleted makes room: {body}");
    secrets.push(body["secret"].as_str().unwrap().to_owned());

    // Secrets are shown at creation only.
    let mut shown = vec![operator.get("/v1/tokens").await.1, operator.get(SUBSCRIPTION).await.1];
    for action in ["pause", "resume"] {
        shown.push(own.post(&format!("{SUBSCRIPTION}/{}/{action}", ids[1]), json!(null)).await.1);
        let state = if action == "pause" { "paused" } else { "active" };
        let (_, body) = own.get(&format!("{SUBSCRIPTION}/{}", ids[1])).await;
        assert_eq!(body["state"], state, "{body}");
        shown.push(body);
    }
    assert_eq!(shown[0]["tokens"].as_array().unwrap().len(), 5, "{}", shown[0]);
    for shown in shown {
        let text = shown.to_string();
        assert!(secrets.iter().all(|secret| !text.contains(secret.rsplit('_').next().unwrap())), "{text}");
        assert!(["secret", "hash"].iter().all(|member| !text.contains(&format!("{member}\":"))), "{text}");
    }
}

async fn public_pages(caller: &Caller) {
    let anyone = caller.with_token(None);
    assert_eq!(anyone.raw(Method::GET, "/healthz", &[], "").await.status, 200);
    assert_eq!(anyone.get("/readyz").await, (200, json!({"ready": true, "obstacle": null, "trial": false})));
    let metrics = anyone.raw(Method::GET, "/metrics", &[], "").await;
    assert!(
        metrics.header("content-type").starts_with("application/openmetrics-text; version=1.0.0"),
        "{}",
        metrics.header("content-type")
    );
    let samples = parse_open_metrics(&metrics.text);
    let documentation = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/how-to/operate.md")).unwrap();
    let documented: HashSet<&str> = documentation.split('`').filter(|word| word.starts_with("ryggrad_bridge_")).collect();
    assert!(documented.len() > 4, "{documented:?}");
    for name in documented {
        let name = name.split('{').next().unwrap();
        let declared = name.strip_suffix("_total").unwrap_or(name);
        assert!(metrics.text.contains(&format!("# TYPE {declared} ")), "{name} is documented and not there");
    }
    assert_eq!((samples["ryggrad_bridge_kafka_up"], samples["ryggrad_bridge_subscriptions_running"]), (1.0, 3.0));
    assert!(samples.contains_key("ryggrad_bridge_attempts_total{outcome=\"gone\"}"), "a counter is there before its first event");
}

/// The samples of a text in OpenMetrics; panics where it is none.
fn parse_open_metrics(text: &str) -> BTreeMap<String, f64> {
    let (mut types, mut samples, mut ended) = (BTreeMap::new(), BTreeMap::new(), false);
    for line in text.lines() {
        assert!(!ended, "nothing may follow # EOF: {line}");
        if let Some(comment) = line.strip_prefix("# ") {
            match comment.split(' ').collect::<Vec<_>>()[..] {
                ["EOF"] => ended = true,
                ["TYPE", name, kind] => assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}"),
                ["UNIT", name, unit] => assert!(name.ends_with(&format!("_{unit}")), "{line}"),
                ["HELP", _, ..] => {}
                _ => panic!("no comment of OpenMetrics: {line}"),
            }
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
        let name = series.split('{').next().unwrap();
        let suffixes = |kind: &str| match kind {
            "counter" => vec!["_total", "_created"],
            "histogram" => vec!["_bucket", "_sum", "_count", "_created"],
            _ => vec![""],
        };
        let known = types.iter().any(|(family, kind)| suffixes(kind).iter().any(|suffix| name == format!("{family}{suffix}")));
        assert!(known, "no family declares {line}");
        let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
    }
    assert!(ended, "# EOF is missing");
    samples
}

async fn schema_registry(caller: &Caller) {
    let anyone = caller.with_token(None);
    let (_, subjects) = anyone.get("/schema-registry/subjects").await;
    let subject = format!("/schema-registry/subjects/{}", subjects[0].as_str().unwrap());
    let (status, latest) = anyone.get(&format!("{subject}/versions/latest")).await;
    assert_eq!(status, 200, "{latest}");
    let (_, by_id) = anyone.get(&format!("/schema-registry/schemas/ids/{}", latest["id"])).await;
    assert_eq!(by_id["schema"], latest["schema"]);
    for (method, path, code) in [
        (Method::GET, "/schema-registry/nothing".to_owned(), 404),
        (Method::GET, "/schema-registry/associations/x/y".to_owned(), 404),
        (Method::POST, "/schema-registry/subjects".to_owned(), 404),
        (Method::PUT, "/schema-registry/config".to_owned(), 404),
        (Method::DELETE, subject.clone(), 404),
        (Method::PUT, format!("{subject}/versions"), 404),
        (Method::POST, "/schema-registry/schemas/ids/1".to_owned(), 404),
        (Method::GET, "/schema-registry/subjects/none/versions".to_owned(), 40401),
        (Method::GET, "/schema-registry/subjects/%ff/versions".to_owned(), 404),
        (Method::GET, format!("{subject}/versions/99"), 40402),
        (Method::GET, "/schema-registry/schemas/ids/99999".to_owned(), 40403),
        (Method::GET, "/schema-registry/schemas/ids/none".to_owned(), 40403),
    ] {
        let answer = anyone.raw(method.clone(), &path, &[], "{}").await;
        let body = answer.json();
        assert_eq!((answer.status, &body["error_code"]), (404, &json!(code)), "{method} {path}: {answer:?}");
        assert!(body["message"].is_string() && answer.header("content-type").contains("json"), "{method} {path}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bridge_remembers_and_refuses_what_is_not_its_own() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let own = scenario.subscriber(ORGANISATION).await;
    let other = scenario.subscriber(OTHER_ORGANISATION).await;
    let mut events = Events::start(&scenario.connection()).await;
    let before = events.publish((0..20).map(key)).await;
    let receiver = Receiver::start().await;
    let (id, secret) = own.subscribe(&receiver.sink(), "now").await;
    receiver.trust(&secret);
    let (paused, _) = other.subscribe("http://127.0.0.1:9/", "beginning").await;
    assert_eq!(other.post(&format!("{SUBSCRIPTION}/{paused}/pause"), json!(null)).await.0, 200);
    let received = events.publish((0..20).map(key)).await;
    let arrived = |count: usize| {
        let receiver = receiver.clone();
        wait::until("the deliveries", 20, move || {
            let found = receiver.count();
            async move { (found >= count).then_some(()) }
        })
    };
    arrived(20).await;
    wait::until("the cursor settles", 10, || async { own.status(&id).await.filter(|status| status["pending"] == 0) }).await;

    // A second bridge on the same folder, and one that came to another cluster.
    let mut second = scenario.bridge_beside("second", &scenario.broker.address(), "data");
    assert_eq!(second.exit_code(20).await, Some(1));
    assert!(second.said().contains("in use by another process; only one bridge may run on it"), "{}", second.said());

    // SIGKILL: subscriptions, tokens, states, secrets and cursors are all there.
    bridge.kill();
    bridge = scenario.bridge(&["--config", "bridge.toml"]);
    own.ready().await;
    let more = events.publish((0..20).map(key)).await;
    wait::until("the new events", 20, || async { positions(&receiver).contains(&more[19].position).then_some(()) }).await;
    wait::until("all of them", 10, || async { own.status(&id).await.filter(|status| status["pending"] == 0) }).await;
    assert_eq!(other.get(&format!("{SUBSCRIPTION}/{paused}")).await.1["state"], "paused");
    let expected: BTreeSet<u64> = received.iter().chain(&more).map(|published| published.position).collect();
    assert_eq!(positions(&receiver), expected);
    let ids: BTreeSet<String> = receiver.received().into_iter().map(|delivery| delivery.id).collect();
    assert_eq!(ids.len(), 40, "what is delivered again has its old id");

    // The cursors are lost, or damaged: they are rebuilt from their copy in Kafka, and nothing is
    // delivered again that the copy knows to be delivered. Numbers begin anew.
    for spoil in [remove_cursors, damage_cursors] {
        let taken = receiver.received().iter().filter_map(|delivery| delivery.number).max().expect("a number");
        wait::until("the copy of the cursors", 10, || async {
            let copies = read_all(&scenario.connection(), CURSORS).await;
            let copied = |record: &LogRecord| record.key.as_deref() == Some(&id) && given(record) == Some((taken.0, taken.1 + 1));
            copies.iter().any(copied).then_some(())
        })
        .await;
        bridge.kill();
        spoil(&scenario.data().join("cursors"));
        let so_far = receiver.count();
        bridge = scenario.bridge(&["--config", "bridge.toml"]);
        own.ready().await;
        let new = events.publish((0..20).map(key)).await;
        arrived(so_far + 20).await;
        wait::until("the cursor settles", 10, || async { own.status(&id).await.filter(|status| status["pending"] == 0) }).await;
        let again = receiver.received().split_off(so_far);
        assert_eq!(
            again.iter().map(|delivery| delivery.change().1).collect::<BTreeSet<_>>(),
            new.iter().map(|published| published.position).collect()
        );
        assert!(again.iter().all(|delivery| delivery.number.is_some_and(|(epoch, _)| epoch > taken.0)), "another epoch");
        assert!(bridge.said().contains("rebuilt from Kafka"), "{}", bridge.said());
    }
    assert!(receiver.received().iter().all(|delivery| delivery.verified), "before {}", before[19].position);
    assert_eq!(bridge.stop().await, Some(0));

    strict_egress(&scenario, &own, &id, &receiver, &mut events).await;

    let (other_broker, _folder) = broker::own().await;
    // A topic that someone made otherwise.
    let mut wrong = Catalogue::built_in().topic(VIRKSOMHET).unwrap().clone();
    wrong.partitions = 3;
    topics::ensure(&other_broker.connection(), &[wrong], 1).await.unwrap();
    std::fs::create_dir(scenario.folder.path().join("fresh")).unwrap();
    let mut refusing = scenario.bridge_beside("refusing", &other_broker.address(), "fresh");
    assert_eq!(refusing.exit_code(20).await, Some(1));
    assert!(refusing.said().contains("grunndata.virksomhet.v1: partitions is 3, the catalogue says 6"), "{}", refusing.said());
    let (code, out, said) = process::command(scenario.folder.path(), &["topics", "check", "--kafka", &other_broker.address()]);
    assert_eq!(code, Some(5), "{out}{said}");

    // Cursors of another cluster mean nothing here, and are kept all the same.
    let (third_broker, _folder) = broker::own().await;
    let mut stranger = scenario.bridge_beside("stranger", &third_broker.address(), "data");
    wait::until("the stranger", 20, || async { stranger.said().contains("belongs to another Kafka cluster").then_some(()) }).await;
    assert!(scenario.data().join("cursors.foreign-1").join("db").is_file());
    assert_eq!(stranger.stop().await, Some(0));
}

fn remove_cursors(path: &Path) {
    std::fs::remove_dir_all(path).unwrap();
}

fn damage_cursors(path: &Path) {
    for file in ["conf", "db"] {
        let bytes = std::fs::read(path.join(file)).unwrap();
        std::fs::write(path.join(file), bytes.iter().map(|byte| byte.wrapping_add(0x5a)).collect::<Vec<u8>>()).unwrap();
    }
}

/// Epoch and next number in a copy of cursors.
fn given(record: &LogRecord) -> Option<(u64, u64)> {
    let copy: Value = serde_json::from_slice(record.value.as_deref()?).ok()?;
    copy["epoch"].as_u64().zip(copy["next"].as_u64())
}

/// Without the development flag nothing of this machine is called, however it is named.
async fn strict_egress(scenario: &Scenario, own: &Caller, id: &str, receiver: &Receiver, events: &mut Events) {
    let mut bridge = scenario.strict_bridge(&["--config", "bridge.toml"]);
    own.ready().await;
    for sink in [
        "http://mottak.example.org/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://10.0.0.1/",
        "https://192.168.1.1/",
        "https://[fd00::1]/",
        "https://2130706433/",
        "https://[::ffff:10.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://localhost/",
        "https://mottak.example.org:8443/",
    ] {
        let (status, body) = own.post(SUBSCRIPTION, subscription(sink)).await;
        assert_eq!((status, &body["errors"][0]["pointer"]), (422, &json!("/sink")), "{sink}: {body}");
    }
    // What was allowed when it was made is refused now.
    let so_far = receiver.count();
    events.publish((0..20).map(key)).await;
    let status = wait::until("it fails again and again", 20, || async {
        own.status(id).await.filter(|status| status["failed_attempts"].as_u64() > Some(4))
    })
    .await;
    assert_eq!((&status["last_attempt"]["error"], &status["delivered"]), (&json!("egress-refused"), &json!(0)), "{status}");
    assert_eq!(receiver.count(), so_far, "a call to this machine");
    assert_eq!(bridge.stop().await, Some(0));
}

fn positions(receiver: &Receiver) -> BTreeSet<u64> {
    receiver.received().iter().map(|delivery| delivery.change().1).collect()
}

fn bytes_of(record: &LogRecord) -> Vec<u8> {
    let headers = record.headers.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()].concat());
    let key = record.key.clone().unwrap_or_default();
    [key.into_bytes(), record.value.clone().unwrap_or_default(), headers.collect()].concat()
}

fn files_below(folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, files);
        } else {
            files.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
