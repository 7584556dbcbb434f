//! Members, delegations, grants, relations and blocks: who may say and see what, that it outlives
//! SIGKILL, that the history misses nothing, and that no person is shown.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use rand::Rng;
use reqwest::Method;
use ryggrad_log::Appender;
use ryggrad_schemas::catalogue::topics::{ACCESS_HISTORY, BLOCKS, RELATIONS};
use ryggrad_schemas::{EncodedRecord, Headers};
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::process::command;
use ryggrad_tests::scenario::{OPERATOR_TOKEN, ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::topic::read_all;
use ryggrad_tests::{random, wait};
use serde_json::{Value, json};

const TYPE: &str = "no.ryggrad.grunndata.virksomhet.endret.v1";
/// Whoever is neither the first nor the second organisation.
const STRANGER: &str = "923609016";
const PSEUDONYM: &str = "pseudonym-of-a-patient";
const KILLS: usize = 12;

fn member(organisation: &str) -> String {
    format!("/v1/members/{organisation}")
}

async fn put(operator: &Caller, organisation: &str, body: Value) -> (u16, Value) {
    operator.call(Method::PUT, &member(organisation), Some(body)).await
}

/// Makes one, and tells its id.
async fn make(caller: &Caller, kind: &str, body: Value) -> String {
    let (status, made) = caller.post(&format!("/v1/{kind}"), body).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

async fn ids(caller: &Caller, kind: &str) -> Vec<String> {
    let (status, listed) = caller.get(&format!("/v1/{kind}")).await;
    assert_eq!(status, 200, "{listed}");
    listed[kind].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

/// Names of what the organisation lacks.
async fn lacks(caller: &Caller, query: &str) -> Vec<String> {
    let (status, answer) = caller.get(&format!("{}/lacks?type={TYPE}{query}", member(ORGANISATION))).await;
    assert_eq!(status, 200, "{answer}");
    let lacks = answer["lacks"].as_array().unwrap();
    assert!(lacks.iter().all(|lack| lack["detail"].as_str().is_some_and(|words| words.contains(' '))), "{answer}");
    lacks.iter().map(|lack| lack["reason"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_says_and_sees_what_is_theirs() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let (own, other, stranger) =
        (scenario.subscriber(ORGANISATION).await, scenario.subscriber(OTHER_ORGANISATION).await, scenario.subscriber(STRANGER).await);

    // Members: the operator's to say, each organisation's own to see; changes are guarded by their tags.
    assert_eq!(own.get(&member(ORGANISATION)).await.0, 404);
    assert_eq!(put(&own, ORGANISATION, json!({"standing": "active"})).await.0, 403);
    let (status, refused) = put(&operator, ORGANISATION, json!({"standing": "friend", "bases": [{}], "agreement": {}})).await;
    let pointers: Vec<&str> = refused["errors"].as_array().unwrap().iter().map(|fault| fault["pointer"].as_str().unwrap()).collect();
    assert_eq!((status, pointers), (422, vec!["/standing", "/agreement/reference", "/bases/0/types", "/bases/0/law"]));
    assert_eq!(put(&operator, ORGANISATION, json!({"standing": "candidate"})).await.0, 201);
    let first = operator.try_raw(Method::GET, &member(ORGANISATION), None).await.unwrap();
    let controller = json!({"standing": "active", "is_controller": true, "contact_points": ["post@example.no"]});
    assert_eq!(put(&operator, ORGANISATION, controller.clone()).await.0, 200);
    let late = [("if-match", first.header("etag"))];
    let refused = operator.try_with(Method::PUT, &member(ORGANISATION), &late, json!({"standing": "expelled"}).to_string()).await.unwrap();
    assert_eq!(refused.status, 412, "{refused:?}");
    assert_eq!(operator.try_with(Method::DELETE, &member(ORGANISATION), &late, String::new()).await.unwrap().status, 412);
    let (status, shown) = own.get(&member(ORGANISATION)).await;
    assert_eq!((status, &shown["standing"], &shown["is_controller"]), (200, &json!("active"), &json!(true)), "{shown}");
    assert_eq!(stranger.get(&member(ORGANISATION)).await.0, 404);
    assert_eq!(put(&operator, OTHER_ORGANISATION, json!({"standing": "active"})).await.0, 201);
    for (caller, seen) in [(&operator, 2), (&own, 1), (&stranger, 0)] {
        assert_eq!(caller.get("/v1/members").await.1["members"].as_array().unwrap().len(), seen);
    }
    let (_, page) = operator.get("/v1/members?limit=1").await;
    let (_, rest) = operator.get(&format!("/v1/members?after={}", page["next"].as_str().unwrap())).await;
    assert_eq!((rest["members"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));

    // Delegations: by the organisation, seen by the supplier too, ended by who made it or by the operator.
    let delegation = json!({"supplier": OTHER_ORGANISATION, "types": ["no.ryggrad.*"]});
    assert_eq!(lacks(&own, &format!("&supplier={OTHER_ORGANISATION}")).await, ["not-delegated"]);
    let delegated = make(&own, "delegations", delegation.clone()).await;
    assert_eq!(lacks(&own, &format!("&supplier={OTHER_ORGANISATION}")).await, [""; 0]);
    let mut for_others = delegation.clone();
    for_others["organisation"] = json!(STRANGER);
    assert_eq!(own.post("/v1/delegations", for_others.clone()).await.0, 403);
    let by_operator = make(&operator, "delegations", for_others).await;
    let path = format!("/v1/delegations/{delegated}");
    assert_eq!([other.get(&path).await.0, stranger.get(&path).await.0], [200, 404]);
    assert_eq!([other.delete(&path).await.0, stranger.delete(&path).await.0], [403, 404]);
    assert_eq!(stranger.delete(&format!("/v1/delegations/{by_operator}")).await.0, 204);
    assert_eq!([own.delete(&path).await.0, own.delete(&path).await.0], [204, 404]);
    assert_eq!(lacks(&own, &format!("&supplier={OTHER_ORGANISATION}")).await, ["not-delegated"]);

    // Grants: a controller opens its own data, the operator what registries publish.
    let grant = json!({"receiver": OTHER_ORGANISATION, "types": ["no.ryggrad.*"], "view": "full"});
    assert_eq!(other.post("/v1/grants", grant.clone()).await.0, 403, "no controller");
    let (of_own, of_registries) = (make(&own, "grants", grant.clone()).await, make(&operator, "grants", grant.clone()).await);
    assert_eq!(ids(&other, "grants").await.len(), 2);
    assert_eq!(ids(&stranger, "grants").await, [""; 0]);
    let path = |id: &str| format!("/v1/grants/{id}");
    assert_eq!(own.get(&path(&of_own)).await.1["controller"], ORGANISATION);
    assert_eq!([operator.delete(&path(&of_own)).await.0, own.delete(&path(&of_registries)).await.0], [403, 404]);
    assert_eq!([own.delete(&path(&of_own)).await.0, operator.delete(&path(&of_registries)).await.0], [204, 204]);

    // Relations and blocks: the controller's alone. For everyone else there is none, operators included.
    let about = json!({"subject": PSEUDONYM, "receiver": OTHER_ORGANISATION});
    for kind in ["relations", "blocks"] {
        assert_eq!(other.post(&format!("/v1/{kind}"), about.clone()).await.0, 403, "no controller");
        let id = make(&own, kind, about.clone()).await;
        let path = format!("/v1/{kind}/{id}");
        assert_eq!(own.get(&path).await.1["subject"], PSEUDONYM);
        for caller in [&operator, &other, &stranger] {
            assert_eq!((caller.get(&path).await.0, caller.delete(&path).await.0), (404, 404), "{kind}");
            assert_eq!(ids(caller, kind).await, [""; 0], "{kind}");
        }
        assert_eq!(ids(&own, kind).await, [id]);
        let (status, refused) = own.post(&format!("/v1/{kind}"), json!({"subject": "1".repeat(11), "receiver": OTHER_ORGANISATION})).await;
        assert!(status == 422 && !refused.to_string().contains(&"1".repeat(11)), "{refused}");
    }

    // A repeated request makes one thing, and gets the first answer again.
    let key = [("idempotency-key", "k-1")];
    let once = [(); 2].map(|()| own.try_with(Method::POST, "/v1/delegations", &key, delegation.to_string()));
    let [first, again] = once;
    let (first, again) = (first.await.unwrap(), again.await.unwrap());
    assert_eq!((first.status, &first.text), (201, &again.text));
    assert_eq!(ids(&own, "delegations").await.len(), 1);

    // The history: newest first, one's own, who and what; no person in it, nor in the log or the topics.
    let (_, history) = operator.get("/v1/access-history").await;
    let changes = history["changes"].as_array().unwrap();
    let newest = &changes[0];
    assert_eq!((&newest["kind"], &newest["by"]["organisation"]), (&json!("delegation"), &json!(ORGANISATION)), "{newest}");
    assert!(newest["by"]["token"].is_string() && newest["before"].is_null() && newest["after"].is_object(), "{newest}");
    assert_eq!(changes.len(), 14, "{changes:#?}");
    let (_, theirs) = other.get("/v1/access-history").await;
    assert!(theirs["changes"].as_array().unwrap().iter().all(|change| change["concerns"].to_string().contains(OTHER_ORGANISATION)));
    assert!(theirs["changes"].as_array().unwrap().iter().all(|change| change["kind"] != "relation" && change["kind"] != "block"));
    let (_, page) = operator.get("/v1/access-history?limit=3").await;
    let (_, next) = operator.get(&format!("/v1/access-history?limit=3&after={}", page["next"].as_str().unwrap())).await;
    assert_eq!([page["changes"].as_array().unwrap(), next["changes"].as_array().unwrap()].map(|page| &page[..]).concat(), changes[..6]);
    for topic in [ACCESS_HISTORY, RELATIONS, BLOCKS] {
        let records = read_all(&scenario.connection(), topic).await;
        assert!(!records.is_empty(), "{topic}");
        for record in records {
            let text = format!("{:?} {}", record.key, String::from_utf8_lossy(&record.value.unwrap_or_default()));
            assert!(!text.contains(PSEUDONYM), "{topic}: {text}");
        }
    }
    assert!(!history.to_string().contains(PSEUDONYM) && !bridge.said().contains(PSEUDONYM));

    // All of it is there again after a restart.
    let before = (ids(&own, "relations").await, ids(&own, "blocks").await, operator.get("/v1/members").await, history);
    assert_eq!(bridge.stop().await, Some(0));
    bridge = scenario.bridge(&[]);
    operator.ready().await;
    let history = operator.get("/v1/access-history").await.1;
    assert_eq!((ids(&own, "relations").await, ids(&own, "blocks").await, operator.get("/v1/members").await, history), before);

    // A fact that nobody can read stops the start: it may be a block.
    assert_eq!(bridge.stop().await, Some(0));
    let appender = Appender::new(&scenario.connection(), 10_000).unwrap();
    let damaged = EncodedRecord {
        topic: BLOCKS.to_owned(),
        partition: Some(0),
        key: before.1[0].clone(),
        value: Some(b"?".to_vec()),
        headers: Headers::default(),
    };
    appender.append(&damaged).await.unwrap();
    let mut refused = scenario.bridge(&[]);
    assert_ne!(refused.exit_code(30).await, Some(0));
    assert!(refused.said().contains("cannot be read"), "{}", refused.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_outlives_a_kill_and_the_history_misses_nothing() {
    let mut random = random::seeded("what_was_answered_outlives_a_kill_and_the_history_misses_nothing");
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let wish = |turn: usize| json!({"standing": "active", "contact_points": [format!("turn {turn}")]});
    assert_eq!(put(&operator, ORGANISATION, wish(0)).await.0, 201);
    let (mut known, mut answered_all) = (0, 0);
    for kill in 1..=KILLS {
        let asker = operator.clone();
        let asking = tokio::spawn(async move { asker.try_call(Method::PUT, &member(ORGANISATION), Some(wish(kill))).await });
        wait::random_moment(random.random_range(0..8)).await;
        bridge.kill();
        let answered = asking.await.unwrap().is_some_and(|(status, _)| status == 200);
        bridge = scenario.bridge(&[]);
        operator.ready().await;
        let shown = operator.get(&member(ORGANISATION)).await.1["contact_points"][0].clone();
        let (before, after) = (shown == format!("turn {known}"), shown == format!("turn {kill}"));
        println!("kill {kill}: answered {answered}, before {before}, after {after}");
        assert!(before || after, "kill {kill}: {shown}");
        assert!(after || !answered, "kill {kill}: what was answered is gone");
        if after {
            known = kill;
        }
        answered_all += usize::from(answered);
        let (_, history) = operator.get("/v1/access-history").await;
        let told = history["changes"].as_array().unwrap().iter().any(|change| change["after"]["contact_points"][0] == shown);
        assert!(told, "kill {kill}: what is so was never told: {history}");
    }
    println!("{answered_all} of {KILLS} answered");
    assert_eq!(bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_the_same() {
    let scenario = Scenario::start().await;
    let _bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let token = operator.issue_token(ORGANISATION).await;
    let folder = scenario.folder.path();
    let url = scenario.bridge_url();
    let run = |arguments: &[&str], with: [&str; 2]| command(folder, &[arguments, &["--bridge", &url], &with].concat());
    let (as_operator, as_own) = (["--operator-token", OPERATOR_TOKEN], ["--token", token.as_str()]);
    let done = |arguments: &[&str], with: [&str; 2]| {
        let (code, out, said) = run(arguments, with);
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        out
    };
    let id = |out: &str| serde_json::from_str::<Value>(out).unwrap()["id"].as_str().unwrap().to_owned();

    std::fs::write(folder.join("member.json"), json!({"standing": "candidate", "contact_points": ["a"]}).to_string()).unwrap();
    done(&["members", "set", ORGANISATION, "member.json", "--controller", "true"], as_operator);
    let out = done(&["members", "set", ORGANISATION, "--standing", "suspended"], as_operator);
    assert!(out.contains("suspended") && out.contains('a'), "{out}");
    assert!(done(&["members", "list"], as_operator).contains(ORGANISATION));
    let out = done(&["members", "lacks", ORGANISATION, "--type", TYPE], as_operator);
    assert!(out.contains("the organisation's membership is suspended"), "{out}");
    done(&["members", "set", ORGANISATION, "--standing", "active"], as_operator);
    let (code, _, said) = run(&["members", "show", STRANGER], as_operator);
    assert_eq!(code, Some(3), "{said}");

    let (period, json_out) = (["--until", "2100-01-01T00:00:00Z"], ["-o", "ndjson"]);
    let open = ["--type", "no.ryggrad.*"];
    std::fs::write(folder.join("persons.txt"), format!("{PSEUDONYM}-1\n\n{PSEUDONYM}-2\n")).unwrap();
    let supplied = done(&[&["delegations", "create", "--supplier", STRANGER][..], &open, &period, &json_out].concat(), as_own);
    let granted = done(&[&["grants", "create", "--receiver", STRANGER, "--view", "full"][..], &open, &json_out].concat(), as_own);
    let related = done(&[&["relations", "create", "--receiver", STRANGER, "persons.txt"][..], &json_out].concat(), as_own);
    let blocked = done(&[&["blocks", "create", "persons.txt"][..], &json_out].concat(), as_own);
    assert_eq!((related.lines().count(), blocked.lines().count()), (2, 2));
    for (kind, made) in [("delegations", supplied), ("grants", granted), ("relations", related), ("blocks", blocked)] {
        let id = id(made.lines().next().unwrap());
        assert!(done(&[kind, "list"], as_own).contains(&id));
        assert!(done(&[kind, "show", &id], as_own).contains(&id));
        done(&[kind, "remove", &id], as_own);
        let (code, _, said) = run(&[kind, "show", &id], as_own);
        assert_eq!(code, Some(3), "{said}");
    }
    let out = done(&["access-history"], as_own);
    assert!(out.lines().nth(1).is_some_and(|newest| newest.contains("ended") && newest.contains("block")), "{out}");
    assert!(!out.contains(PSEUDONYM));
    done(&["members", "remove", ORGANISATION], as_operator);
}
