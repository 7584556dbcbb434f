//! Filters of a subscription: exactly the matching events come, what is wrong is refused at its
//! place, and an expression that fails matches nothing and is counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeSet;

use ryggrad_tests::events::{CE_TYPE, Events, Published, key};
use ryggrad_tests::process::command;
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::wait;
use serde_json::{Value, json};

/// A type that the pattern of all means, and that no catalogue knows.
const OTHER_TYPE: &str = "no.ryggrad.grunndata.virksomhet.annet.v1";
const SUBSCRIPTIONS: &str = "/v1/subscriptions";

fn wish(sink: &str, filters: &Value) -> Value {
    json!({"types": ["no.ryggrad.*"], "sink": sink, "start": "beginning", "filters": filters})
}

/// The ids of those events that are such, as the test itself sees it.
fn ids(published: &[Published], such: impl Fn(&Published) -> bool) -> BTreeSet<String> {
    published.iter().filter(|published| such(published)).map(|published| published.event["id"].as_str().unwrap().to_owned()).collect()
}

async fn takes(receiver: &Receiver, what: &str, expected: &BTreeSet<String>) {
    wait::until(what, 30, || async { receiver.taken().is_superset(expected).then_some(()) }).await;
    assert_eq!(receiver.taken(), *expected, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_gets_exactly_the_events_that_its_filters_let_through() {
    let scenario = Scenario::start().await;
    let mut events = Events::start(&scenario.connection()).await;
    let mut published = Vec::new();
    for ce_type in [CE_TYPE, OTHER_TYPE, CE_TYPE] {
        events.choose_type(ce_type);
        published.extend(events.publish((0..20).map(key)).await);
    }
    let mut bridge = scenario.bridge(&[]);
    let caller = scenario.subscriber(ORGANISATION).await;

    for (filters, pointers) in [
        (json!("type = 'a'"), vec!["/filters"]),
        (json!([{"sql": "type = 'a' AND"}, {"exact": {"Type": "a"}}]), vec!["/filters/0/sql", "/filters/1/exact/Type"]),
        (json!([{"any": [{"not": {"regex": {"a": "b"}}}]}, {"all": []}]), vec!["/filters/0/any/0/not/regex", "/filters/1/all"]),
    ] {
        let (status, answer) = caller.post(SUBSCRIPTIONS, wish("http://127.0.0.1:9/", &filters)).await;
        let named: Vec<&str> = answer["errors"].as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
        assert_eq!((status, named), (422, pointers), "{answer}");
        assert!(!answer.to_string().contains("/sql") || answer.to_string().contains("line 1, column 15: expected"), "{answer}");
    }

    // From the log, by filters of two dialects.
    let (narrow, witness, failing) = (Receiver::start().await, Receiver::start().await, Receiver::start().await);
    let filters = json!([{"sql": format!("type LIKE '%.annet.%' AND subject IN ('{}', '{}')", key(3), key(5))}, {"not": {"suffix": {"subject": &key(5)[6..]}}}]);
    let (status, made) = caller.post(SUBSCRIPTIONS, wish(&narrow.sink(), &filters)).await;
    assert_eq!((status, &made["filters"]), (201, &filters), "{made}");
    let path = format!("{SUBSCRIPTIONS}/{}", made["id"].as_str().unwrap());
    let (status, broken) = caller.post(SUBSCRIPTIONS, wish(&failing.sink(), &json!([{"sql": "borte = 'x' OR true"}]))).await;
    assert_eq!(status, 201, "{broken}");
    caller.subscribe(&witness.sink(), "beginning").await;
    takes(&witness, "the witness has everything", &ids(&published, |_| true)).await;
    let first = ids(&published, |event| event.event["type"] == OTHER_TYPE && event.key == key(3));
    takes(&narrow, "events that are in the log already", &first).await;

    // From the tail, and by another filter from then on.
    events.choose_type(OTHER_TYPE);
    published.extend(events.publish((0..8).map(key)).await);
    takes(&witness, "the witness has what is new", &ids(&published, |_| true)).await;
    let second = ids(&published, |event| event.event["type"] == OTHER_TYPE && event.key == key(3));
    takes(&narrow, "new events", &second).await;
    let (status, changed) = caller.patch(&path, json!({"filters": [{"exact": {"subject": key(6)}}]})).await;
    assert_eq!((status, &changed["filters"]), (200, &json!([{"exact": {"subject": key(6)}}])), "{changed}");
    let later = events.publish((0..8).map(key)).await;
    published.extend(later.clone());
    takes(&witness, "the witness has what came after the change", &ids(&published, |_| true)).await;
    let third = second.union(&ids(&later, |event| event.key == key(6))).cloned().collect();
    takes(&narrow, "events by the new filter alone", &third).await;
    let (status, opened) = caller.patch(&path, json!({"filters": null})).await;
    assert_eq!((status, opened.get("filters")), (200, None), "{opened}");
    let last = events.publish((0..8).map(key)).await;
    takes(&narrow, "everything again", &third.union(&ids(&last, |_| true)).cloned().collect()).await;

    assert_eq!(failing.count(), 0, "an expression with an error matches nothing");
    let errors = wait::until("its errors are counted", 10, || async {
        let status = caller.status(broken["id"].as_str().unwrap()).await?;
        let errors = status["filter_errors"].as_u64()?;
        (errors >= (published.len() + last.len()) as u64).then_some(errors)
    })
    .await;
    println!("{errors} errors for {} events", published.len() + last.len());
    wait::until("the metric knows of them", 10, || async {
        let metrics = caller.raw(reqwest::Method::GET, "/metrics", &[], "").await.text;
        let line = metrics.lines().find_map(|line| line.strip_prefix("ryggrad_bridge_filter_errors_total "))?;
        (line.parse::<u64>().ok()? >= errors).then_some(())
    })
    .await;
    assert_eq!(bridge.stop().await, Some(0));
}

#[test]
fn a_filter_is_tried_out_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let events = concat!(r#"{"id": "a", "type": "no.a", "hop": 3}"#, "\n", r#"{"id": "b", "type": "no.b"}"#, "\n");
    std::fs::write(folder.path().join("events.ndjson"), events).unwrap();
    std::fs::write(folder.path().join("filters.json"), r#"[{"suffix": {"type": "b"}}]"#).unwrap();
    let run = |arguments: &[&str]| command(folder.path(), &[&["filter", "eval", "--event", "events.ndjson"][..], arguments].concat());
    let lines = |text: &str| text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();

    let (code, told, said) = run(&["--expression", "hop + 1"]);
    assert_eq!((code, said.as_str()), (Some(0), ""));
    let missing = json!({"error": "MissingAttributeError", "name": "hop", "line": 1, "column": 1});
    assert_eq!(
        lines(&told),
        [json!({"value": 4, "type": "Integer", "errors": []}), json!({"value": 0, "type": "Integer", "errors": [missing]})]
    );
    let (code, told, _) = run(&["--filters", "filters.json"]);
    let values: Vec<Value> = lines(&told).iter().map(|line| line["value"].clone()).collect();
    assert_eq!((code, values), (Some(0), vec![json!(false), json!(true)]));
    let (code, told, said) = run(&["--expression", "type LIKE id"]);
    assert_eq!((code, told.as_str()), (Some(2), ""));
    let pointed = format!("  type LIKE id\n{}^\n", " ".repeat(12));
    assert!(said.starts_with(&pointed) && said.contains("line 1, column 11: expected a pattern"), "{said}");
    assert_eq!(run(&[]).0, Some(2));
}
