//! What the API promises, held against the running bridge: by stock validators, by schemathesis, and page by page.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rand::Rng;
use reqwest::Method;
use ryggrad_tests::bridge::{Caller, Raw};
use ryggrad_tests::foreign::python;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::{full, process, random};
use serde_json::{Value, json};

const SUBSCRIPTIONS: &str = "/v1/subscriptions";

/// Room for all that is tried, and nobody waits long for endpoints that are not there.
const SETTINGS: &str = "[bridge]\nsubscriptions_per_organisation_max = 100000\nsubscriptions_max = 100000\nattempt_timeout_ms = 500\n";

fn here(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_are_served_as_committed_and_stock_validators_find_no_fault() {
    let scenario = Scenario::start().await;
    // Where everything is open: elsewhere AsyncAPI tells of less.
    let _bridge = scenario.bridge(&["--trial"]);
    let anyone = scenario.operator().await.with_token(None);
    for name in ["openapi.json", "asyncapi.json"] {
        let served = anyone.raw(Method::GET, &format!("/{name}"), &[], "").await;
        assert_eq!((served.status, served.header("content-type")), (200, "application/json"));
        assert_eq!(served.text, std::fs::read_to_string(here("../docs").join(name)).unwrap(), "{name}");
    }
    let modules = PathBuf::from(std::env::var_os("RYGGRAD_TEST_NODE").expect("run the tests with ./ryggrad test"));
    let rules = modules.join("node_modules/@asyncapi/specs/schemas/3.0.0.json").display().to_string();
    let [openapi, asyncapi] = ["openapi.json", "asyncapi.json"].map(|name| format!("{}/{name}", scenario.bridge_url()));
    let said = python("check_documents.py", &[&openapi, &asyncapi, &rules], String::new()).await;
    for (said, document, good) in [(&said[0], "openapi", true), (&said[1], "asyncapi", true), (&said[2], "asyncapi, broken", false)] {
        assert_eq!((&said["document"], said["errors"] == json!([])), (&json!(document), good), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_nothing_outside_the_contract() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
    let mut bridge = scenario.bridge(&["--config", "bridge.toml", "--trial"]);
    let operator = scenario.operator().await;
    let (_, issued) = operator.post("/v1/tokens", json!({"organisation": ORGANISATION, "roles": ["subscribe", "operate"]})).await;
    let token = issued["token"].as_str().unwrap();
    let python = PathBuf::from(std::env::var_os("RYGGRAD_TEST_PYTHON").expect("run the tests with ./ryggrad test"));
    let seed = random::seeded("schemathesis_finds_nothing_outside_the_contract").random::<u32>().to_string();
    let seconds = if full() { "600" } else { "60" };
    println!("schemathesis with --seed {seed} for {seconds} s");
    let mut command = Command::new(python.with_file_name("schemathesis"));
    command.arg("--config-file").arg(here("clients/schemathesis.toml")).arg("run");
    command.arg(format!("{}/openapi.json", scenario.bridge_url()));
    command.args(["--mode", "all", "--max-time", seconds, "--seed", &seed, "--continue-on-failure"]);
    command.args(["--request-timeout", "20", "--suppress-health-check", "all", "--generation-database", "none"]);
    command
        .current_dir(scenario.folder.path())
        .env("PYTHONPATH", here("clients"))
        .env("RYGGRAD_TOKEN", token)
        .env("RYGGRAD_TOKEN_ID", issued["id"].as_str().unwrap())
        .env("COLUMNS", "160")
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().expect("schemathesis starts")).await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(bridge.runs(), "the bridge is alive");
    assert!(!bridge.said().contains("panicked"), "nothing panicked");
    assert_eq!(bridge.stop().await, Some(0));
}

/// All pages of a list, with what is done between them.
async fn pages(caller: &Caller, path: &str, member: &str, limit: usize, mut between: impl AsyncFnMut(usize)) -> Vec<Vec<Value>> {
    let (mut pages, mut after) = (Vec::new(), String::new());
    loop {
        let (status, body) = caller.get(&format!("{path}?limit={limit}{after}")).await;
        assert_eq!(status, 200, "{body}");
        pages.push(body[member].as_array().unwrap().clone());
        let Some(next) = body["next"].as_str() else { return pages };
        after = format!("&after={next}");
        between(pages.len()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_come_in_pages_whatever_comes_and_goes() {
    let scenario = Scenario::start().await;
    let _bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let own = scenario.subscriber(ORGANISATION).await;
    let mut ids = Vec::new();
    for _ in 0..7 {
        ids.push(own.subscribe("http://127.0.0.1:9/", "now").await.0);
    }
    let found = pages(&own, SUBSCRIPTIONS, "subscriptions", 3, async |page| {
        if page == 1 {
            // One that was shown goes, and another comes behind.
            assert_eq!(own.delete(&format!("{SUBSCRIPTIONS}/{}", ids[0])).await.0, 204);
            own.subscribe("http://127.0.0.1:9/", "now").await;
        }
    })
    .await;
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 2]);
    let shown: Vec<&str> = found.iter().flatten().map(|shown| shown["id"].as_str().unwrap()).collect();
    assert_eq!(shown[..7], ids, "each once, in order, and those that come later after them");
    let tokens = pages(&operator, "/v1/tokens", "tokens", 1, async |_| {}).await;
    assert!(tokens.iter().all(|page| page.len() == 1), "{tokens:?}");
    for wrong in ["limit=0", "limit=1001", "after=x", "after=", "page=2"] {
        assert_eq!(own.get(&format!("{SUBSCRIPTIONS}?{wrong}")).await.0, 422, "{wrong}");
    }
    // The command line follows.
    for _ in 0..120 {
        own.subscribe("http://127.0.0.1:9/", "now").await;
    }
    assert_eq!(own.get(SUBSCRIPTIONS).await.1["subscriptions"].as_array().unwrap().len(), 100, "a page unless more is asked for");
    let flags = ["--token", ryggrad_tests::scenario::OPERATOR_TOKEN, "--bridge", &scenario.bridge_url()];
    let (code, out, said) = process::command(scenario.folder.path(), &[&["subscriptions", "list", "-o", "ndjson"][..], &flags].concat());
    let listed: BTreeSet<&str> = out.lines().collect();
    assert_eq!((code, listed.len()), (Some(0), 127), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_guards_what_it_names() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let own = scenario.subscriber(ORGANISATION).await;
    let call = async |method, path: &str, body| own.try_raw(method, path, body).await.unwrap();
    let made: Raw = call(Method::POST, SUBSCRIPTIONS, Some(json!({"types": ["no.ryggrad.*"], "channel": "pull"}))).await;
    let path = made.header("location").to_owned();
    let first = made.header("etag").to_owned();
    assert_eq!(call(Method::GET, &path, None).await.header("etag"), first, "the same for the same");
    let paused = call(Method::POST, &format!("{path}/pause"), None).await;
    let second = paused.header("etag").to_owned();
    assert_ne!(second, first);

    let guarded =
        async |method: Method, tag: &str, body: Value| own.try_with(method, &path, &[("if-match", tag)], body.to_string()).await.unwrap();
    let change = json!({"description": "ny"});
    for stale in [&first, "\"\"", "", &format!("W/{second}")] {
        let refused = guarded(Method::PATCH, stale, change.clone()).await;
        assert_eq!((refused.status, &refused.json()["type"]), (412, &json!("urn:ryggrad:error:precondition")), "{stale}");
        assert_eq!(guarded(Method::DELETE, stale, json!(null)).await.status, 412, "{stale}");
    }
    // That is the caller's matter: the operator is not woken for it.
    let log = std::fs::read_to_string(scenario.folder.path().join("bridge.log")).unwrap();
    assert!(!log.contains("WARN"), "{log}");
    assert_eq!(call(Method::GET, &path, None).await.header("etag"), second, "what is refused changes nothing");
    let changed = guarded(Method::PATCH, &format!("\"other\", {second}"), change).await;
    assert_eq!((changed.status, &changed.json()["description"]), (200, &json!("ny")));
    assert_ne!(changed.header("etag"), second);
    assert_eq!(guarded(Method::PATCH, "*", json!({"description": null})).await.header("etag"), second, "the same definition, the same tag");
    assert_eq!(call(Method::PATCH, &path, Some(json!({"state": "active"}))).await.header("etag"), first, "without, it goes ahead");
    assert_eq!(bridge.stop().await, Some(0));
    let _bridge = scenario.bridge(&[]);
    own.ready().await;
    assert_eq!(guarded(Method::DELETE, &first, json!(null)).await.status, 204, "a tag outlives the bridge");
}
