//! Every route of the API against every role: what opens, and that a refusal names what is missing.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::path::Path;

use reqwest::Method;
use ryggrad_bridge_core::asymmetric::SigningKey;
use ryggrad_log::Appender;
use ryggrad_schemas::catalogue::topics::TOKENS;
use ryggrad_schemas::{EncodedRecord, Headers};
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::topic::read_all;
use ryggrad_tests::{process, wait};
use serde_json::{Value, json};
use uuid::Uuid;

/// Who calls, in the order of the columns below.
const CALLERS: [&str; 8] = ["nobody", "subscribe", "publish", "audit", "operate", "subscribe+publish", "subscribe+operate", "the operator"];

/// Method, path with ID for an id that nobody has, and what each caller gets.
const ROUTES: [(&str, &str, [&str; 8]); 65] = [
    ("POST", "/v1/subscriptions", ["401", "422", "-subscribe", "-subscribe", "-subscribe", "422", "422", "no organisation"]),
    ("GET", "/v1/subscriptions", ["401", "200", "-subscribe", "-subscribe", "200", "200", "200", "200"]),
    ("GET", "/v1/subscriptions/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("PATCH", "/v1/subscriptions/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("DELETE", "/v1/subscriptions/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/pause", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/resume", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/rotate-secret", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/verify", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/test", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("GET", "/v1/subscriptions/ID/events", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("GET", "/v1/subscriptions/ID/socket", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/ack", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("GET", "/v1/subscriptions/ID/attempts", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("GET", "/v1/subscriptions/ID/dead-letters", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/dead-letters/redrive", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/dead-letters/discard", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("DELETE", "/v1/subscriptions/ID/dead-letters/{letter}", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/rewind", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/replays", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("GET", "/v1/subscriptions/ID/replays", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("GET", "/v1/subscriptions/ID/replays/{replay}", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/subscriptions/ID/replays/{replay}/cancel", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/watch-lists", ["401", "422", "-subscribe", "-subscribe", "-subscribe", "422", "422", "no organisation"]),
    ("GET", "/v1/watch-lists", ["401", "200", "-subscribe", "-subscribe", "200", "200", "200", "200"]),
    ("GET", "/v1/watch-lists/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("PATCH", "/v1/watch-lists/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("DELETE", "/v1/watch-lists/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/watch-lists/ID/keys", ["401", "404", "-subscribe", "-subscribe", "-subscribe", "404", "404", "no organisation"]),
    ("PUT", "/v1/watch-lists/ID/keys", ["401", "404", "-subscribe", "-subscribe", "-subscribe", "404", "404", "no organisation"]),
    ("GET", "/v1/members", ["401", "200", "-subscribe", "-subscribe", "200", "200", "200", "200"]),
    ("GET", "/v1/members/{organisation}", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("PUT", "/v1/members/{organisation}", ["401", "-operate", "-operate", "-operate", "404", "-operate", "404", "404"]),
    ("DELETE", "/v1/members/{organisation}", ["401", "-operate", "-operate", "-operate", "404", "-operate", "404", "404"]),
    ("GET", "/v1/members/{organisation}/lacks", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("GET", "/v1/access-history", ["401", "200", "-subscribe", "-subscribe", "200", "200", "200", "200"]),
    ("POST", "/v1/delegations", ["401", "422", "-subscribe", "-subscribe", "422", "422", "422", "422"]),
    ("GET", "/v1/delegations", ["401", "200", "-subscribe", "-subscribe", "200", "200", "200", "200"]),
    ("GET", "/v1/delegations/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("DELETE", "/v1/delegations/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/grants", ["401", "422", "-subscribe", "-subscribe", "422", "422", "422", "422"]),
    ("GET", "/v1/grants", ["401", "200", "-subscribe", "-subscribe", "200", "200", "200", "200"]),
    ("GET", "/v1/grants/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("DELETE", "/v1/grants/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/relations", ["401", "403", "-subscribe", "-subscribe", "-subscribe", "403", "403", "no organisation"]),
    ("GET", "/v1/relations", ["401", "200", "-subscribe", "-subscribe", "200", "200", "200", "200"]),
    ("GET", "/v1/relations/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("DELETE", "/v1/relations/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/blocks", ["401", "403", "-subscribe", "-subscribe", "-subscribe", "403", "403", "no organisation"]),
    ("GET", "/v1/blocks", ["401", "200", "-subscribe", "-subscribe", "200", "200", "200", "200"]),
    ("GET", "/v1/blocks/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("DELETE", "/v1/blocks/ID", ["401", "404", "-subscribe", "-subscribe", "404", "404", "404", "404"]),
    ("POST", "/v1/disclosures/search", ["401", "-audit", "-audit", "404", "-audit", "-audit", "-audit", "422"]),
    ("POST", "/v1/disclosures/reveal", ["401", "-audit", "-audit", "404", "-audit", "-audit", "-audit", "422"]),
    ("POST", "/v1/disclosures/verify", ["401", "-audit", "-audit", "404", "-audit", "-audit", "-audit", "422"]),
    ("POST", "/v1/tokens", ["401", "-operate", "-operate", "-operate", "422", "-operate", "422", "422"]),
    ("GET", "/v1/tokens", ["401", "-operate", "-operate", "-operate", "200", "-operate", "200", "200"]),
    ("DELETE", "/v1/tokens/ID", ["401", "-operate", "-operate", "-operate", "404", "-operate", "404", "404"]),
    ("GET", "/healthz", ["200"; 8]),
    ("GET", "/readyz", ["200"; 8]),
    ("GET", "/metrics", ["200"; 8]),
    ("GET", "/openapi.json", ["200"; 8]),
    ("GET", "/asyncapi.json", ["200"; 8]),
    ("GET", "/.well-known/webhook-keys", ["200"; 8]),
    ("GET", "/.well-known/oauth-protected-resource", ["404"; 8]),
];

/// What an answer was, in the words of the table.
fn word(status: u16, body: &Value) -> String {
    match (status, body["missing_role"].as_str()) {
        (403, Some(role)) => {
            assert_eq!(body["type"], "urn:ryggrad:error:forbidden");
            assert!(body["detail"].as_str().is_some_and(|detail| detail.contains(&format!("--role {role}"))), "a remedy: {body}");
            format!("-{role}")
        }
        (403, None) if body["detail"].as_str().is_some_and(|detail| detail.contains("no organisation")) => "no organisation".to_owned(),
        (status, _) => status.to_string(),
    }
}

/// The routes as a source file has them.
fn written(file: &str) -> BTreeSet<(String, String)> {
    let source = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../bridge/src").join(file)).unwrap();
    let mut found = BTreeSet::new();
    for route in source.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap().to_owned();
        let handlers = route.split(".fallback(").next().unwrap();
        for method in ["get", "post", "put", "patch", "delete"] {
            if handlers.contains(&format!(" {method}(")) || handlers.contains(&format!(".{method}(")) {
                found.insert((method.to_uppercase(), path.clone()));
            }
        }
    }
    found
}

/// The routes as the API describes itself.
fn described() -> BTreeSet<(String, String)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let calls =
        paths.iter().flat_map(|(path, calls)| calls.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone())));
    calls.collect()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let registry = written("schema_registry.rs")
        .into_iter()
        .map(|(method, path)| (method, format!("/schema-registry{path}").trim_end_matches('/').to_owned()));
    let there: BTreeSet<(String, String)> = written("api/mod.rs").into_iter().chain(registry).collect();
    assert!(there.len() > 40, "{there:?}");
    assert_eq!(described(), there, "describe a route beside its handler, in the function describe of the same file");
}

async fn issue(operator: &Caller, organisation: &str, roles: Value) -> String {
    let (status, body) = operator.post("/v1/tokens", json!({"organisation": organisation, "roles": roles})).await;
    assert_eq!((status, &body["roles"]), (201, &roles), "{body}");
    body["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_opens_for_its_roles_only() {
    let table: BTreeSet<(String, String)> = ROUTES.iter().map(|(method, path, _)| (method.to_string(), path.to_string())).collect();
    let there: BTreeSet<(String, String)> =
        written("api/mod.rs").into_iter().map(|(method, path)| (method, path.replace("{id}", "ID"))).collect();
    assert_eq!(table, there, "a route is missing in this table, or gone");

    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    for roles in [json!([]), json!(["root"]), json!("subscribe"), json!([1])] {
        let (status, body) = operator.post("/v1/tokens", json!({"organisation": ORGANISATION, "roles": roles})).await;
        assert_eq!((status, &body["errors"][0]["pointer"]), (422, &json!("/roles")), "{body}");
    }
    let mut callers = Vec::new();
    for name in CALLERS {
        callers.push(match name {
            "nobody" => operator.with_token(None),
            "the operator" => operator.clone(),
            roles => {
                let roles: Vec<&str> = roles.split('+').collect();
                operator.with_token(Some(&issue(&operator, ORGANISATION, json!(roles)).await))
            }
        });
    }
    for (method, path, expected) in ROUTES {
        let path = path.replace("ID", &Uuid::nil().to_string());
        for ((caller, name), expected) in callers.iter().zip(CALLERS).zip(expected) {
            let (status, body) = caller.call(method.parse::<Method>().unwrap(), &path, Some(json!({}))).await;
            assert_eq!(word(status, &body), expected, "{method} {path} by {name}: {body}");
        }
    }

    // What receivers verify with is the public half of what the bridge keeps to itself.
    let kept: SigningKey = std::fs::read_to_string(scenario.data().join("signing.key")).unwrap().parse().unwrap();
    let (_, shown) = callers[0].get("/.well-known/webhook-keys").await;
    assert_eq!(shown, json!({"keys": [{"kid": kept.public().id(), "public": kept.public().to_string()}]}));

    // Whose subscriptions: one's own without the role operate, everyone's with it.
    let [subscribe, operate, both] = [1, 4, 6].map(|index: usize| callers[index].clone());
    let other = operator.with_token(Some(&issue(&operator, OTHER_ORGANISATION, json!(["subscribe"])).await));
    let (theirs, _) = other.subscribe("https://mottak.example.org/", "now").await;
    both.subscribe("https://mottak.example.org/", "now").await;
    for (caller, count, status) in [(&subscribe, 1, 404), (&operate, 2, 200), (&both, 2, 200), (&other, 1, 200)] {
        assert_eq!(caller.get("/v1/subscriptions").await.1["subscriptions"].as_array().unwrap().len(), count);
        assert_eq!(caller.get(&format!("/v1/subscriptions/{theirs}")).await.0, status);
    }

    // The command line: roles are asked for and shown.
    let flags = ["--operator-token", ryggrad_tests::scenario::OPERATOR_TOKEN, "--bridge", &scenario.bridge_url()];
    let create = ["tokens", "create", "--organisation", ORGANISATION, "--role", "publish", "--role", "operate", "-o", "ndjson"];
    let (code, out, said) = process::command(scenario.folder.path(), &[&create[..], &flags].concat());
    assert_eq!((code, &serde_json::from_str::<Value>(&out).unwrap()["roles"]), (Some(0), &json!(["publish", "operate"])), "{said}");
    let (_, out, _) = process::command(scenario.folder.path(), &[&["tokens", "list"][..], &flags].concat());
    assert!(out.contains("ROLES") && out.lines().any(|line| line.contains("publish") && line.contains("operate")), "{out}");

    // A token from before there were roles can do what it could.
    let old = issue(&operator, OTHER_ORGANISATION, json!(["operate"])).await;
    let id: Uuid = old.split('_').nth(1).unwrap().parse().unwrap();
    let records = read_all(&scenario.connection(), TOKENS).await;
    let record = records.into_iter().find(|record| record.key == Some(id.to_string())).unwrap();
    let mut value: Value = serde_json::from_slice(&record.value.unwrap()).unwrap();
    value.as_object_mut().unwrap().remove("roles").unwrap();
    assert_eq!(bridge.stop().await, Some(0));
    let appender = Appender::new(&scenario.connection(), 10_000).unwrap();
    let value = Some(value.to_string().into_bytes());
    let rewritten = EncodedRecord { topic: TOKENS.to_owned(), partition: Some(0), key: id.to_string(), value, headers: Headers::default() };
    appender.append(&rewritten).await.unwrap();
    let _bridge = scenario.bridge(&[]);
    operator.ready().await;
    let old = operator.with_token(Some(&old));
    wait::until("it sees its own", 5, || async { (old.get("/v1/subscriptions").await.0 == 200).then_some(()) }).await;
    assert_eq!(old.get("/v1/subscriptions").await.1["subscriptions"].as_array().unwrap().len(), 1);
    let (status, body) = old.get("/v1/tokens").await;
    assert_eq!(word(status, &body), "-operate");
}
