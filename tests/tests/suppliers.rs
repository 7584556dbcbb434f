//! Suppliers act for organisations: who may do what with what was made, for which types, and that one endpoint
//! serves many without mixing them up.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::Method;
use ryggrad_log::Appender;
use ryggrad_schemas::EncodedRecord;
use ryggrad_schemas::catalogue::topics::DELEGATIONS;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::channels::Socket;
use ryggrad_tests::events::{CE_TYPE, Events, key};
use ryggrad_tests::process::command;
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{OPERATOR_TOKEN, ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::topic::read_all;
use ryggrad_tests::wait;
use serde_json::{Value, json};

const SUPPLIER: &str = "923609016";
const OTHER_SUPPLIER: &str = "310000019";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const SUBSCRIPTIONS: &str = "/v1/subscriptions";

/// Who calls, in the order of the columns below. The last is the supplier once its delegation has ended.
const CALLERS: [&str; 6] = ["organisation", "supplier", "other supplier", "other organisation", "operator", "supplier that was"];

/// With what the supplier has made for the organisation: who gets through, and how the others are kept out.
const MADE: [(&str, &str, [&str; 6]); 25] = [
    ("GET", "/v1/subscriptions/{id}", ["yes", "yes", "404", "404", "yes", "yes"]),
    ("PATCH", "/v1/subscriptions/{id}", ["403", "yes", "404", "404", "yes", "stopped"]),
    ("POST", "/v1/subscriptions/{id}/pause", ["yes", "yes", "404", "404", "yes", "yes"]),
    ("POST", "/v1/subscriptions/{id}/resume", ["yes", "yes", "404", "404", "yes", "yes"]),
    ("POST", "/v1/subscriptions/{id}/rotate-secret", ["403", "yes", "404", "404", "yes", "yes"]),
    ("POST", "/v1/subscriptions/{id}/verify", ["403", "yes", "404", "404", "yes", "yes"]),
    ("POST", "/v1/subscriptions/{id}/test", ["403", "yes", "404", "404", "yes", "stopped"]),
    ("GET", "/v1/subscriptions/{id}/events", ["403", "yes", "404", "404", "yes", "stopped"]),
    ("GET", "/v1/subscriptions/{id}/socket", ["403", "yes", "404", "404", "yes", "stopped"]),
    ("POST", "/v1/subscriptions/{id}/ack", ["403", "yes", "404", "404", "yes", "yes"]),
    ("GET", "/v1/subscriptions/{id}/attempts", ["yes", "yes", "404", "404", "yes", "yes"]),
    ("GET", "/v1/subscriptions/{id}/dead-letters", ["yes", "yes", "404", "404", "yes", "yes"]),
    ("POST", "/v1/subscriptions/{id}/dead-letters/redrive", ["403", "yes", "404", "404", "yes", "stopped"]),
    ("POST", "/v1/subscriptions/{id}/dead-letters/discard", ["403", "yes", "404", "404", "yes", "yes"]),
    ("DELETE", "/v1/subscriptions/{id}/dead-letters/{letter}", ["403", "yes", "404", "404", "yes", "yes"]),
    ("POST", "/v1/subscriptions/{id}/rewind", ["403", "yes", "404", "404", "yes", "stopped"]),
    ("POST", "/v1/subscriptions/{id}/replays", ["403", "yes", "404", "404", "yes", "stopped"]),
    ("GET", "/v1/subscriptions/{id}/replays", ["yes", "yes", "404", "404", "yes", "yes"]),
    ("GET", "/v1/subscriptions/{id}/replays/{replay}", ["yes", "yes", "404", "404", "yes", "yes"]),
    ("POST", "/v1/subscriptions/{id}/replays/{replay}/cancel", ["403", "yes", "404", "404", "yes", "yes"]),
    ("GET", "/v1/watch-lists/{id}", ["yes", "yes", "404", "404", "yes", "yes"]),
    ("PATCH", "/v1/watch-lists/{id}", ["403", "yes", "404", "404", "yes", "stopped"]),
    ("POST", "/v1/watch-lists/{id}/keys", ["403", "yes", "404", "404", "403", "stopped"]),
    ("PUT", "/v1/watch-lists/{id}/keys", ["403", "yes", "404", "404", "403", "stopped"]),
    // Of what the organisation has made itself, no supplier sees anything.
    ("GET", "/v1/subscriptions/OWN", ["yes", "404", "404", "404", "yes", "404"]),
];

/// What an answer was, in the words of the table: whoever gets through may still be told of wrong fields.
fn word(status: u16, body: &Value) -> String {
    let of_address = |detail: &str| detail.contains("subscription") || detail.contains("watch list");
    match (status, body["type"].as_str(), body["detail"].as_str()) {
        (403, Some("urn:ryggrad:error:stopped"), Some(detail)) if detail.contains("delegated") => "stopped".to_owned(),
        (404, _, Some(detail)) if !of_address(detail) => "yes".to_owned(),
        (401 | 403 | 404, ..) => status.to_string(),
        (100..500, ..) => "yes".to_owned(),
        _ => format!("{status} {body}"),
    }
}

async fn issue(operator: &Caller, organisation: &str, supplier: &str) -> Caller {
    let (status, issued) = operator.post("/v1/tokens", json!({"organisation": organisation, "supplier": supplier})).await;
    assert_eq!((status, &issued["supplier"]), (201, &json!(supplier)), "{issued}");
    operator.with_token(issued["token"].as_str())
}

async fn delegate(organisation: &Caller, supplier: &str, types: Value) -> String {
    let (status, made) = organisation.post("/v1/delegations", json!({"supplier": supplier, "types": types})).await;
    assert_eq!(status, 201, "{made}");
    format!("/v1/delegations/{}", made["id"].as_str().unwrap())
}

async fn make(caller: &Caller, path: &str, body: Value) -> String {
    let (status, made) = caller.post(path, body).await;
    assert_eq!(status, 201, "{made}");
    made["id"].as_str().unwrap().to_owned()
}

async fn ids(caller: &Caller, path: &str, member: &str) -> BTreeSet<String> {
    let (status, listed) = caller.get(path).await;
    assert_eq!(status, 200, "{listed}");
    listed[member].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect()
}

fn set(ids: &[&String]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everyone_does_what_is_theirs_with_what_a_supplier_has_made() {
    // Every route with a subscription or a watch list is in the table; deletions come at the end.
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json")).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let paths = document["paths"].as_object().unwrap().iter();
    let there: BTreeSet<(String, String)> = paths
        .filter(|(path, _)| path.starts_with("/v1/subscriptions/{id}") || path.starts_with("/v1/watch-lists/{id}"))
        .flat_map(|(path, calls)| calls.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone())))
        .filter(|(method, path)| method != "DELETE" || path.contains("{letter}"))
        .collect();
    let rows = MADE.iter().filter(|(_, path, _)| !path.contains("OWN"));
    assert_eq!(rows.map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned())).collect::<BTreeSet<_>>(), there);

    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let (own, stranger) = (scenario.subscriber(ORGANISATION).await, scenario.subscriber(OTHER_ORGANISATION).await);
    let (supplier, other) = (issue(&operator, ORGANISATION, SUPPLIER).await, issue(&operator, ORGANISATION, OTHER_SUPPLIER).await);

    // Who can be given such a token.
    for (body, pointers) in [
        (json!({"organisation": ORGANISATION, "supplier": ORGANISATION}), ["/supplier"]),
        (json!({"organisation": ORGANISATION, "supplier": "923609017"}), ["/supplier"]),
        (json!({"organisation": ORGANISATION, "supplier": SUPPLIER, "roles": ["subscribe", "operate"]}), ["/roles"]),
        (json!({"organisation": ORGANISATION, "supplier": SUPPLIER, "roles": ["audit"]}), ["/roles"]),
    ] {
        let (status, refused) = operator.post("/v1/tokens", body).await;
        assert_eq!((status, &refused["errors"][0]["pointer"]), (422, &json!(pointers[0])), "{refused}");
    }

    // A token alone opens nothing that brings events, nor can a supplier help itself.
    let wish = json!({"types": ["no.ryggrad.*"], "channel": "pull"});
    let (status, refused) = supplier.post(SUBSCRIPTIONS, wish.clone()).await;
    assert_eq!(word(status, &refused), "stopped", "{refused}");
    let (status, refused) = supplier.post("/v1/delegations", json!({"supplier": SUPPLIER, "types": ["no.ryggrad.*"]})).await;
    assert_eq!(word(status, &refused), "403", "{refused}");
    let delegation = delegate(&own, SUPPLIER, json!(["no.ryggrad.*"])).await;
    delegate(&own, OTHER_SUPPLIER, json!(["no.ryggrad.*"])).await;

    let posted = make(&supplier, SUBSCRIPTIONS, json!({"types": ["no.ryggrad.*"], "sink": "http://127.0.0.1:9/", "verify": "none"})).await;
    let fetched = make(&supplier, SUBSCRIPTIONS, wish.clone()).await;
    let list = make(&supplier, "/v1/watch-lists", json!({"domain": "organisasjonsnummer"})).await;
    let replay = make(&supplier, &format!("{SUBSCRIPTIONS}/{posted}/replays"), json!({"from": "beginning"})).await;
    let of_other = make(&other, SUBSCRIPTIONS, wish.clone()).await;
    let of_own = make(&own, SUBSCRIPTIONS, wish.clone()).await;
    let own_list = make(&own, "/v1/watch-lists", json!({"domain": "organisasjonsnummer"})).await;

    // Who sees what in lists.
    for (caller, narrowed, seen) in [
        (&own, "", set(&[&posted, &fetched, &of_other, &of_own])),
        (&own, "?supplier=923609016", set(&[&posted, &fetched])),
        (&own, "?supplier=310000027", set(&[])),
        (&supplier, "", set(&[&posted, &fetched])),
        (&other, "", set(&[&of_other])),
        (&other, "?supplier=923609016", set(&[])),
        (&stranger, "", set(&[])),
        (&operator, "?supplier=310000019", set(&[&of_other])),
    ] {
        assert_eq!(ids(caller, &format!("{SUBSCRIPTIONS}{narrowed}"), "subscriptions").await, seen, "{narrowed}");
    }
    for (caller, seen) in
        [(&own, set(&[&list, &own_list])), (&supplier, set(&[&list])), (&other, set(&[])), (&operator, set(&[&list, &own_list]))]
    {
        assert_eq!(ids(caller, "/v1/watch-lists", "watch_lists").await, seen);
    }
    assert_eq!(supplier.get(&format!("{SUBSCRIPTIONS}/{posted}")).await.1["supplier"], SUPPLIER);
    assert_eq!(own.get(&format!("{SUBSCRIPTIONS}?supplier=1")).await.0, 422);

    // A watch list is for those who made it.
    for (caller, list, status) in [(&supplier, &list, 201), (&supplier, &own_list, 422), (&own, &list, 422), (&own, &own_list, 201)] {
        let mut narrowed = wish.clone();
        narrowed["watch_list"] = json!(list);
        let (found, made) = caller.post(SUBSCRIPTIONS, narrowed).await;
        assert_eq!(found, status, "{made}");
        if found == 201 {
            assert_eq!(caller.delete(&format!("{SUBSCRIPTIONS}/{}", made["id"].as_str().unwrap())).await.0, 204);
        }
    }

    let callers = [&own, &supplier, &other, &stranger, &operator, &supplier];
    for (column, caller) in callers.into_iter().enumerate() {
        if CALLERS[column] == "supplier that was" {
            assert_eq!(own.delete(&delegation).await.0, 204);
        }
        for (method, path, expected) in MADE {
            let is_fetched = ["/events", "/socket", "/ack"].iter().any(|end| path.ends_with(end));
            let id = if path.starts_with("/v1/watch-lists") {
                &list
            } else if is_fetched {
                &fetched
            } else {
                &posted
            };
            let path = path.replace("{id}", id).replace("{replay}", &replay).replace("OWN", &of_own);
            let path = path.replace("{letter}", "grunndata.virksomhet.v1:0:7");
            let (status, body) = caller.call(method.parse::<Method>().unwrap(), &path, Some(json!({}))).await;
            assert_eq!(word(status, &body), expected[column], "{method} {path} by the {}: {status} {body}", CALLERS[column]);
        }
    }
    for (path, body) in [(SUBSCRIPTIONS, wish.clone()), ("/v1/watch-lists", json!({"domain": "organisasjonsnummer"}))] {
        let (status, refused) = supplier.post(path, body).await;
        assert_eq!(word(status, &refused), "stopped", "{path}: {refused}");
    }

    // What an organisation says itself, no supplier says in its name, whatever it sees of it.
    let delegation = delegate(&own, SUPPLIER, json!(["no.ryggrad.*"])).await;
    let controller = json!({"standing": "active", "is_controller": true});
    assert_eq!(operator.call(Method::PUT, &format!("/v1/members/{ORGANISATION}"), Some(controller.clone())).await.0, 201);
    let about = json!({"subject": "pseudonym", "receiver": OTHER_ORGANISATION});
    let grant = json!({"receiver": OTHER_ORGANISATION, "types": ["no.ryggrad.*"], "view": "full"});
    let to_other = json!({"supplier": OTHER_SUPPLIER, "types": ["no.ryggrad.*"]});
    for (kind, body, sees) in [("delegations", to_other, 2), ("grants", grant, 0), ("relations", about.clone(), 0), ("blocks", about, 0)] {
        let made = make(&own, &format!("/v1/{kind}"), body.clone()).await;
        let (status, refused) = supplier.post(&format!("/v1/{kind}"), body).await;
        assert_eq!(word(status, &refused), "403", "{kind}: {refused}");
        let (status, _) = supplier.delete(&format!("/v1/{kind}/{made}")).await;
        assert_eq!(status, 404, "{kind}");
        let seen = ids(&supplier, &format!("/v1/{kind}"), kind).await;
        assert_eq!(seen.len(), sees / 2, "{kind}: {seen:?}");
    }
    assert_eq!([supplier.get(&delegation).await.0, supplier.delete(&delegation).await.0], [200, 403]);
    let member = format!("/v1/members/{ORGANISATION}");
    assert_eq!(supplier.call(Method::PUT, &member, Some(controller)).await.0, 403);
    assert_eq!([supplier.get(&member).await.0, own.get(&member).await.0], [404, 200]);
    let (status, lacks) = supplier.get(&format!("{member}/lacks?type={CE_TYPE}")).await;
    assert_eq!((status, &lacks["supplier"], &lacks["lacks"]), (200, &json!(SUPPLIER), &json!([])));
    assert_eq!(supplier.get(&format!("{member}/lacks?type={CE_TYPE}&supplier={OTHER_SUPPLIER}")).await.0, 422);
    let (_, history) = supplier.get("/v1/access-history").await;
    let concerned = history["changes"].as_array().unwrap();
    assert!(concerned.len() == 3 && concerned.iter().all(|change| change["kind"] == "delegation"), "{history}");

    // Keys of requests are apart: the same one makes a thing for each.
    let key = [("idempotency-key", "k-1")];
    let mut made = BTreeSet::new();
    for caller in [&own, &supplier, &other, &supplier] {
        let answer =
            caller.try_with(Method::POST, "/v1/watch-lists", &key, json!({"domain": "organisasjonsnummer"}).to_string()).await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        made.insert(answer.json()["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(made.len(), 3);

    // All of it is there again after a restart; then the organisation ends what was made for it, and the supplier the rest.
    assert_eq!(bridge.stop().await, Some(0));
    let _bridge = scenario.bridge(&[]);
    operator.ready().await;
    assert_eq!(ids(&supplier, SUBSCRIPTIONS, "subscriptions").await, set(&[&posted, &fetched]));
    for (path, callers) in [
        (format!("{SUBSCRIPTIONS}/{posted}"), [(&other, 404), (&stranger, 404), (&own, 204)]),
        (format!("{SUBSCRIPTIONS}/{fetched}"), [(&other, 404), (&supplier, 204), (&own, 404)]),
        (format!("/v1/watch-lists/{list}"), [(&other, 404), (&own, 204), (&supplier, 404)]),
    ] {
        for (caller, status) in callers {
            assert_eq!(caller.delete(&path).await.0, status, "{path}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supplier_subscribes_to_what_was_delegated_alone() {
    let scenario = Scenario::start().await;
    let _bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let own = scenario.subscriber(ORGANISATION).await;
    let supplier = issue(&operator, ORGANISATION, SUPPLIER).await;
    let one = delegate(&own, SUPPLIER, json!([CE_TYPE])).await;
    let wish = |types: &[&str]| json!({"types": types, "channel": "pull"});
    // A pattern is more than what it means today.
    let wide = "no.ryggrad.grunndata.*";
    for (types, lacks) in [(vec![wide], vec![wide]), (vec![CE_TYPE, wide, "*"], vec![wide, "*"])] {
        let (status, refused) = supplier.post(SUBSCRIPTIONS, wish(&types)).await;
        assert_eq!(word(status, &refused), "403", "{refused}");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains(&format!(": {};", lacks.join(", "))), "{detail}");
    }
    let id = make(&supplier, SUBSCRIPTIONS, wish(&[CE_TYPE])).await;
    let path = format!("{SUBSCRIPTIONS}/{id}");
    for (caller, change, status) in [
        (&supplier, json!({"types": [wide]}), 403),
        (&operator, json!({"types": [wide]}), 403),
        (&supplier, json!({"types": [CE_TYPE], "description": "for them"}), 200),
        (&supplier, json!({"supplier": OTHER_SUPPLIER}), 422),
    ] {
        let (found, body) = caller.patch(&path, change).await;
        assert_eq!(found, status, "{body}");
    }
    delegate(&own, SUPPLIER, json!(["no.ryggrad.*"])).await;
    assert_eq!(supplier.patch(&path, json!({"types": [wide, "no.ryggrad.*"]})).await.0, 200);
    // One of two that still stands is enough to act, and not for more than it says.
    assert_eq!(own.delete(&one).await.0, 204);
    assert_eq!(supplier.patch(&path, json!({"types": ["*"]})).await.0, 403);
    assert_eq!(supplier.get(&format!("{path}/events")).await.0, 200);
}

/// Of this catalogue no delegation can leave a type out: one that an operator wrote for a type to come stands in its topic.
async fn narrow(scenario: &Scenario, delegation: &str) {
    let id = delegation.rsplit('/').next().unwrap();
    let kept = read_all(&scenario.connection(), DELEGATIONS).await.into_iter().rfind(|record| record.key.as_deref() == Some(id)).unwrap();
    let text = String::from_utf8(kept.value.unwrap()).unwrap();
    assert!(text.contains("no.ryggrad.*"), "{text}");
    let record = EncodedRecord {
        topic: DELEGATIONS.to_owned(),
        partition: Some(kept.partition),
        key: id.to_owned(),
        value: Some(text.replace("no.ryggrad.*", "no.ryggrad.senere.*").into_bytes()),
        headers: kept.headers,
    };
    Appender::new(&scenario.connection(), 10_000).unwrap().append(&record).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_a_type_that_is_delegated_no_more_is_as_if_there_were_none() {
    let scenario = Scenario::start().await;
    let mut events = Events::start(&scenario.connection()).await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let (own, receiver) = (scenario.subscriber(ORGANISATION).await, Receiver::start().await);
    let supplier = issue(&operator, ORGANISATION, SUPPLIER).await;
    let of_type = delegate(&own, SUPPLIER, json!([CE_TYPE])).await;
    let of_others = delegate(&own, SUPPLIER, json!(["no.ryggrad.*"])).await;
    let posted = json!({"types": [CE_TYPE], "sink": receiver.sink(), "verify": "none"});
    let posted = make(&supplier, SUBSCRIPTIONS, posted).await;
    let fetched = make(&supplier, SUBSCRIPTIONS, json!({"types": [CE_TYPE], "channel": "pull"})).await;
    let control = make(&own, SUBSCRIPTIONS, json!({"types": [CE_TYPE], "channel": "pull"})).await;
    bridge.kill();
    narrow(&scenario, &of_others).await;
    let _bridge = scenario.bridge(&[]);
    operator.ready().await;

    let numbers = async |caller: &Caller, id: &str| -> Vec<u64> {
        let (status, body) = caller.get(&format!("{SUBSCRIPTIONS}/{id}/events?limit=100")).await;
        assert_eq!(status, 200, "{body}");
        let number = |event: &Value| event["deliverynumber"].as_str().unwrap().parse().unwrap();
        body.as_array().unwrap().iter().map(number).collect()
    };
    let everyone_has = async |theirs: u64, owns: u64| {
        wait::until("everyone has what is theirs", 30, || async {
            let got: BTreeSet<u64> = receiver.received().iter().filter_map(|one| Some(one.number?.1)).collect();
            let is_there = numbers(&own, &control).await == (1..=owns).collect::<Vec<_>>()
                && numbers(&supplier, &fetched).await == (1..=theirs).collect::<Vec<_>>()
                && got == (1..=theirs).collect();
            is_there.then_some(())
        })
        .await;
    };
    events.publish((0..5).map(key)).await;
    everyone_has(5, 5).await;
    assert_eq!(own.delete(&of_type).await.0, 204);
    let kept_out = events.publish((5..10).map(key)).await;
    let kept_out: BTreeSet<String> = kept_out.into_iter().map(|published| published.event["id"].as_str().unwrap().to_owned()).collect();
    everyone_has(5, 10).await;
    for id in [&posted, &fetched] {
        let status = operator.status(id).await.unwrap();
        let pending = if *id == posted { 0 } else { 5 };
        assert_eq!((&status["withheld_by"], &status["pending"]), (&Value::Null, &json!(pending)), "{status}");
    }
    delegate(&own, SUPPLIER, json!([CE_TYPE])).await;
    events.publish((10..12).map(key)).await;
    // No number was used up, and what was kept out does not come later.
    everyone_has(7, 12).await;
    assert!(receiver.received().iter().all(|one| !one.is_void() && !kept_out.contains(one.event["id"].as_str().unwrap())));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_endpoint_serves_many_and_every_delivery_says_for_whom_it_is() {
    let scenario = Scenario::start().await;
    let mut events = Events::start(&scenario.connection()).await;
    let _bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let receiver = Receiver::start().await;
    receiver.trust(SECRET);
    let mut expected: BTreeMap<String, (&str, Option<&str>)> = BTreeMap::new();
    let mut callers = Vec::new();
    for organisation in [ORGANISATION, OTHER_ORGANISATION] {
        let own = scenario.subscriber(organisation).await;
        delegate(&own, SUPPLIER, json!(["no.ryggrad.*"])).await;
        callers.push((issue(&operator, organisation, SUPPLIER).await, organisation, Some(SUPPLIER)));
        callers.push((own, organisation, None));
    }
    for (caller, organisation, supplier) in &callers {
        for format in ["structured", "binary", "batch"] {
            let body = json!({"types": ["no.ryggrad.*"], "sink": receiver.sink(), "secret": SECRET, "format": format, "verify": "none"});
            expected.insert(make(caller, SUBSCRIPTIONS, body).await, (organisation, *supplier));
        }
        // Nobody says in the bridge's name for whom something is.
        let forged = json!({"types": ["no.ryggrad.*"], "sink": receiver.sink(), "headers": {"Ryggrad-Supplier": SUPPLIER}});
        assert_eq!(caller.post(SUBSCRIPTIONS, forged).await.0, 422);
    }
    let paused = expected.keys().next().unwrap().clone();
    operator.post(&format!("{SUBSCRIPTIONS}/{paused}/pause"), json!({})).await;
    events.publish((0..20).map(key)).await;
    let of = |id: &str| {
        receiver
            .received()
            .into_iter()
            .filter(|one| one.headers.get("ryggrad-subscription").map(String::as_str) == Some(id))
            .collect::<Vec<_>>()
    };
    let numbers = |id: &str| -> BTreeSet<u64> {
        let events = of(id).into_iter().flat_map(|one| match serde_json::from_slice(&one.body).unwrap() {
            Value::Array(batch) => batch,
            _ if one.content_type == "application/json" => vec![json!({"deliverynumber": one.headers["ce-deliverynumber"]})],
            event => vec![event],
        });
        events.map(|event| event["deliverynumber"].as_str().unwrap().parse().unwrap()).collect()
    };
    let whole: BTreeSet<u64> = (1..=20).collect();
    for id in expected.keys().filter(|id| **id != paused) {
        wait::until("everyone gets everything", 60, || async { (numbers(id) == whole).then_some(()) }).await;
    }
    assert!(of(&paused).is_empty(), "cursors are apart");
    operator.post(&format!("{SUBSCRIPTIONS}/{paused}/resume"), json!({})).await;
    wait::until("the last too", 60, || async { (numbers(&paused) == whole).then_some(()) }).await;
    for one in receiver.received() {
        let header = |name: &str| one.headers.get(name).map(String::as_str);
        let (organisation, supplier) = expected[header("ryggrad-subscription").unwrap()];
        assert_eq!((header("ryggrad-organisation"), header("ryggrad-supplier")), (Some(organisation), supplier));
        assert!(one.verified);
    }

    // Whoever fetches is told as well.
    for (caller, organisation, supplier) in &callers {
        let id = make(caller, SUBSCRIPTIONS, json!({"types": ["no.ryggrad.*"], "channel": "pull"})).await;
        let path = format!("{SUBSCRIPTIONS}/{id}/events");
        let batch = caller.try_raw(Method::GET, &path, None).await.unwrap().headers;
        let stream = caller.stream(&path).await.unwrap().headers().clone();
        for headers in [batch, stream] {
            let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!(
                (header("ryggrad-subscription"), header("ryggrad-organisation"), header("ryggrad-supplier")),
                (Some(id.as_str()), Some(*organisation), *supplier)
            );
        }
        let hello = Socket::open(caller, &id, "ryggrad.v1", "").await.unwrap().next().await.unwrap();
        assert_eq!((&hello["organisation"], &hello["supplier"]), (&json!(organisation), &json!(supplier)), "{hello}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_token_that_opened_it() {
    let scenario = Scenario::start().await;
    let mut events = Events::start(&scenario.connection()).await;
    let _bridge = scenario.bridge(&[]);
    let (operator, own) = (scenario.operator().await, scenario.subscriber(ORGANISATION).await);
    delegate(&own, SUPPLIER, json!([CE_TYPE])).await;
    let supplier = issue(&operator, ORGANISATION, SUPPLIER).await;
    let id = make(&supplier, SUBSCRIPTIONS, json!({"types": [CE_TYPE], "channel": "pull"})).await;
    let mut stream = supplier.stream(&format!("{SUBSCRIPTIONS}/{id}/events")).await.unwrap();
    events.publish([key(1)]).await;
    let first = tokio::time::timeout(Duration::from_secs(10), stream.chunk()).await.unwrap().unwrap().unwrap();
    assert!(String::from_utf8_lossy(&first).contains(CE_TYPE));
    let token = supplier.token().split('_').nth(1).unwrap().to_owned();
    assert_eq!(operator.delete(&format!("/v1/tokens/{token}")).await.0, 204);
    let revoked = Instant::now();
    events.publish([key(2)]).await;
    // What comes within the second may still be there, and then it ends; it does not break off.
    let ends = async { while stream.chunk().await.unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(10), ends).await.unwrap();
    println!("the stream ended {} ms after its token", revoked.elapsed().as_millis());
    assert_eq!(own.get(&format!("{SUBSCRIPTIONS}/{id}")).await.0, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_does_the_same() {
    let scenario = Scenario::start().await;
    let _bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let own = operator.issue_token(ORGANISATION).await;
    let url = scenario.bridge_url();
    let done = |arguments: &[&str], with: [&str; 2]| {
        let (code, out, said) = command(scenario.folder.path(), &[arguments, &["--bridge", &url], &with].concat());
        assert_eq!(code, Some(0), "{arguments:?}: {said}");
        out
    };
    let (as_operator, as_own) = (["--operator-token", OPERATOR_TOKEN], ["--token", own.as_str()]);
    done(&["delegations", "create", "--supplier", SUPPLIER, "--type", "no.ryggrad.*"], as_own);
    let issued = done(&["tokens", "issue", "--organisation", ORGANISATION, "--supplier", SUPPLIER, "-o", "ndjson"], as_operator);
    let issued: Value = serde_json::from_str(&issued).unwrap();
    let listed = done(&["tokens", "list"], as_operator);
    assert!(listed.contains("SUPPLIER") && listed.lines().any(|line| line.contains(ORGANISATION) && line.contains(SUPPLIER)), "{listed}");
    let as_supplier = ["--token", issued["token"].as_str().unwrap()];
    let made = done(&["subscriptions", "create", "--channel", "pull", "-o", "ndjson"], as_supplier);
    let id = serde_json::from_str::<Value>(&made).unwrap()["id"].as_str().unwrap().to_owned();
    for (supplier, is_there) in [(SUPPLIER, true), (OTHER_SUPPLIER, false)] {
        let out = done(&["subscriptions", "list", "--supplier", supplier], as_own);
        assert_eq!(out.lines().any(|line| line.contains(&id) && line.contains(SUPPLIER)), is_there, "{out}");
    }
    assert!(done(&["subscriptions", "show", &id], as_own).contains(SUPPLIER));
    let (code, _, said) = command(
        scenario.folder.path(),
        &[&["tokens", "issue", "--organisation", SUPPLIER, "--supplier", SUPPLIER, "--bridge", &url][..], &as_operator].concat(),
    );
    assert!(code == Some(3) && said.contains("another organisation"), "{said}");
}
