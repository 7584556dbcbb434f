//! The simulated registry's bulk downloads and bad habits, as a client meets them over HTTP.
//!
//! Other tests rely on these: here they are tested alone, without Kafka.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may fail loudly")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE, LAST_MODIFIED};
use ryggrad_tests::process::command;
use ryggrad_tests::upstream::{Upstream, client, gunzip};
use ryggrad_tests::wait;
use serde_json::{Value, json};

const LISTS: [(&str, &str); 2] = [("enheter", "enhet"), ("underenheter", "underenhet")];

async fn upstream(folder: &Path, arguments: &[&str]) -> Upstream {
    Upstream::start(folder, &[&["--units", "300", "--changes-per-second", "0"], arguments].concat()).await
}

/// The units of one list that live now, by number.
async fn living(upstream: &Upstream, kind: &str) -> BTreeMap<String, Value> {
    let units = upstream.units().await;
    let living = units.into_iter().filter(|unit| unit["kind"] == kind && unit["status"] == "active");
    living.map(|unit| (number(&unit), unit["document"].clone())).collect()
}

fn number(unit: &Value) -> String {
    unit["organisasjonsnummer"].as_str().expect("a number").to_owned()
}

fn numbers(rows: &[Value]) -> Vec<String> {
    rows.iter().map(number).collect()
}

async fn look_up(upstream: &Upstream, list: &str, number: &str) -> (u16, Value) {
    let answer = client().get(format!("{}/{list}/{number}", upstream.base_url())).send().await.expect("it answers");
    (answer.status().as_u16(), serde_json::from_str(&answer.text().await.expect("a body")).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_is_what_lives_at_its_moment_and_a_look_up_what_lives_now() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = upstream(folder.path(), &["--nightly-dumps"]).await;
    let before = [living(&upstream, "enhet").await, living(&upstream, "underenhet").await];
    upstream.change(200).await;
    for ((list, kind), before) in LISTS.into_iter().zip(before) {
        let now = living(&upstream, kind).await;
        let night = upstream.dump(list).await;
        assert_eq!(numbers(&night), before.keys().cloned().collect::<Vec<_>>(), "frozen, and in the order of the numbers");
        for row in &night {
            assert!(row.get("kapital").is_none() && !row.to_string().contains("_links"), "{row}");
            assert_eq!((&row["links"], &row["navn"]), (&json!([]), &before[&number(row)]["navn"]));
        }
        let changed = now.iter().find(|(number, unit)| before.get(*number).is_some_and(|before| before != *unit));
        let (number, unit) = changed.expect("some unit has changed");
        assert_eq!(look_up(&upstream, list, number).await, (200, unit.clone()));
    }
    upstream.thaw().await;
    assert_eq!(numbers(&upstream.dump("enheter").await), living(&upstream, "enhet").await.into_keys().collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_says_what_it_is_and_how_old() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = upstream(folder.path(), &[]).await;
    upstream.change(50).await;
    upstream.freeze().await;
    let frozen = upstream.download("enheter").await;
    upstream.change(50).await;
    let later = upstream.download("underenheter").await;
    let header = |answer: &reqwest::Response, name| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header(&frozen, CONTENT_TYPE), "application/vnd.brreg.enhetsregisteret.enhet.v2+gzip;charset=UTF-8");
    assert_eq!(header(&frozen, CONTENT_DISPOSITION), "attachment; filename=\"enheter_alle.json.gz\"");
    assert_eq!(header(&frozen, LAST_MODIFIED), header(&later, LAST_MODIFIED), "both show the same moment");
    // The feed, asked from that moment on, tells all that the dumps don't show.
    let mut told = 0;
    for (list, member) in [("enheter", "oppdaterteEnheter"), ("underenheter", "oppdaterteUnderenheter")] {
        let moment = jiff::fmt::rfc2822::parse(&header(&later, LAST_MODIFIED)).unwrap().timestamp();
        let address = format!("{}/oppdateringer/{list}?dato={moment:.3}&size=1000", upstream.base_url());
        let page: Value = serde_json::from_str(&client().get(address).send().await.unwrap().text().await.unwrap()).unwrap();
        told += page["_embedded"][member].as_array().map_or(0, Vec::len);
    }
    assert!((50..=52).contains(&told), "{told} changes since the dump");
    upstream.thaw().await;
    assert_ne!(header(&upstream.download("enheter").await, LAST_MODIFIED), header(&frozen, LAST_MODIFIED));
}

#[tokio::test(flavor = "multi_thread")]
async fn dumps_go_wrong_as_ordered() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = upstream(folder.path(), &[]).await;
    let whole = upstream.dump("enheter").await;
    let bytes = upstream.download("enheter").await.bytes().await.unwrap();
    let order = |extra: Value| {
        let mut fault = json!({"on": "dump", "list": "enheter"});
        fault.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        upstream.fault(fault)
    };

    order(json!({"kind": "status", "status": 502})).await;
    assert_eq!(upstream.dump("underenheter").await.len(), 100, "the other list is as it should be");
    assert_eq!(upstream.download("enheter").await.status(), 502);
    order(json!({"kind": "html"})).await;
    let html = upstream.download("enheter").await;
    assert_eq!(html.status(), 200);
    assert!(html.text().await.unwrap().starts_with("<!DOCTYPE html>"));

    order(json!({"kind": "truncate", "at_byte": 5000})).await;
    let torn = upstream.download("enheter").await;
    assert!(torn.headers().get(CONTENT_LENGTH).is_none());
    assert_eq!(torn.bytes().await.unwrap(), bytes[..5000]);
    order(json!({"kind": "truncate", "at_byte": 5000, "ending": "length"})).await;
    let torn = upstream.download("enheter").await;
    assert_eq!(torn.headers()[CONTENT_LENGTH], "5000");
    assert_eq!(torn.bytes().await.unwrap(), bytes[..5000]);
    order(json!({"kind": "truncate", "at_byte": 5000, "ending": "abrupt"})).await;
    // The break may be seen before the answer's head is.
    if let Ok(torn) = upstream.try_download("enheter").await {
        assert!(torn.bytes().await.is_err());
    }
    order(json!({"kind": "truncate", "at_byte": u64::MAX})).await;
    assert_eq!(upstream.download("enheter").await.bytes().await.unwrap(), bytes[..bytes.len() - 1], "a byte is missing");
    order(json!({"kind": "truncate"})).await;
    assert!(gunzip(&upstream.download("enheter").await.bytes().await.unwrap()).is_err());

    order(json!({"kind": "torn-json"})).await;
    let torn = gunzip(&upstream.download("enheter").await.bytes().await.unwrap()).expect("a whole gzip file");
    assert!(serde_json::from_str::<Value>(&torn).is_err());
    order(json!({"kind": "empty"})).await;
    assert!(upstream.dump("enheter").await.is_empty());
    order(json!({"kind": "shrunken", "share": 0.3})).await;
    let shrunken = upstream.dump("enheter").await;
    assert!((90..190).contains(&shrunken.len()) && shrunken.iter().all(|row| whole.contains(row)), "{}", shrunken.len());
    let missing = number(&whole[7]);
    order(json!({"kind": "shrunken", "organisasjonsnummer": missing})).await;
    assert_eq!(numbers(&upstream.dump("enheter").await), [&numbers(&whole)[..7], &numbers(&whole)[8..]].concat());
    for (shape, row) in [
        ("no-object", json!(42)),
        ("no-number", Value::Null),
        ("number-type", json!(missing.parse::<u64>().unwrap())),
        ("wrong-types", json!(missing)),
    ] {
        order(json!({"kind": "malformed", "shape": shape, "organisasjonsnummer": missing})).await;
        let spoiled = upstream.dump("enheter").await;
        let found = if spoiled[7].is_object() { &spoiled[7]["organisasjonsnummer"] } else { &spoiled[7] };
        assert_eq!(found, &row, "{shape}");
        assert_ne!(spoiled[7], whole[7]);
        assert_eq!(spoiled[8..], whole[8..]);
    }
    assert_eq!(upstream.faults_left().await, 0);
    assert_eq!(upstream.dump("enheter").await, whole, "all is well again");
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_changes_show_in_dumps_and_look_ups_alone() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = upstream(folder.path(), &["--state", "state.json"]).await;
    let feeds = async |upstream: &Upstream| (upstream.feed("enheter").await, upstream.feed("underenheter").await);
    let (before, dump) = (feeds(&upstream).await, upstream.dump("enheter").await);
    for (kind, count) in [("edit", 20), ("creation", 5), ("deletion", 5), ("removal", 5)] {
        assert_eq!(upstream.change_as(kind, count, true).await.len(), count as usize, "{kind}");
    }
    let removed = living(&upstream, "underenhet").await.into_keys().next().unwrap();
    assert!(upstream.remove(&removed, true).await && !upstream.remove(&removed, true).await);
    upstream.new_field("nyttFelt").await;
    assert_eq!(feeds(&upstream).await, before);
    let after = upstream.dump("enheter").await;
    assert_ne!(numbers(&after), numbers(&dump));
    assert!(after.iter().all(|row| row["nyttFelt"].is_string()));
    let (status, body) = look_up(&upstream, "underenheter", &removed).await;
    assert_eq!((status, &body["organisasjonsnummer"]), (410, &json!(removed)));

    // Said aloud, the feed tells.
    let deleted = living(&upstream, "underenhet").await.into_keys().next().unwrap();
    assert!(upstream.delete(&deleted, false).await);
    let item = upstream.feed("underenheter").await.pop().unwrap();
    assert_eq!((item.1, item.2), (deleted.clone(), "Sletting".to_owned()));
    assert_eq!(look_up(&upstream, "underenheter", &deleted).await.0, 200);
    assert!(upstream.remove(&deleted, false).await, "what is deleted can still be removed");
    let item = upstream.feed("underenheter").await.pop().unwrap();
    assert_eq!((item.1, item.2), (deleted, "Fjernet".to_owned()));

    // A restart makes all of it again.
    let (units, feed) = (upstream.units().await, feeds(&upstream).await);
    drop(upstream);
    let upstream = self::upstream(folder.path(), &["--state", "state.json"]).await;
    assert_eq!((upstream.units().await, feeds(&upstream).await), (units, feed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_feed_tells_later_than_dumps_show() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = upstream(folder.path(), &["--feed-lag-ms", "3600000"]).await;
    let before = upstream.feed("enheter").await;
    assert_eq!(before.len(), 200, "what was there from the start is shown");
    let deleted = living(&upstream, "enhet").await.into_keys().collect::<Vec<_>>();
    let mut gone = None;
    for number in deleted {
        if upstream.delete(&number, false).await {
            gone = Some(number);
            break;
        }
    }
    let gone = gone.expect("an enhet without underenheter");
    assert_eq!(upstream.feed("enheter").await, before);
    assert!(!numbers(&upstream.dump("enheter").await).contains(&gone));
    upstream.feed_lag(Duration::from_millis(50)).await;
    wait::until("the feed tells", 10, || async { (upstream.feed("enheter").await.len() == before.len() + 1).then_some(()) }).await;
    assert_eq!(upstream.feed("enheter").await.pop().map(|item| item.1), Some(gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_overlap_and_have_holes_as_ordered() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = upstream(folder.path(), &[]).await;
    let ids: Vec<u64> = upstream.feed("enheter").await.into_iter().map(|item| item.0).collect();
    let page = async || {
        let address = format!("{}/oppdateringer/enheter?oppdateringsid={}&size=20", upstream.base_url(), ids[50]);
        let text = client().get(address).send().await.unwrap().text().await.unwrap();
        let page: Value = serde_json::from_str(&text).unwrap();
        let items = page["_embedded"]["oppdaterteEnheter"].as_array().cloned().unwrap_or_default();
        (items.iter().map(|item| item["oppdateringsid"].as_u64().unwrap()).collect::<Vec<_>>(), page)
    };
    upstream.fault(json!({"on": "feed", "kind": "overlap"})).await;
    assert_eq!(page().await.0, ids[45..65]);
    upstream.fault(json!({"on": "feed", "kind": "empty-middle"})).await;
    let (items, body) = page().await;
    assert!(items.is_empty() && body["_links"]["next"].is_object(), "{body}");
    assert_eq!(body["page"]["totalElements"], 150);
    assert_eq!(page().await.0, ids[50..70]);
}

#[test]
fn a_dump_file_is_written_without_a_server() {
    let folder = tempfile::tempdir().unwrap();
    let write = |arguments: &[&str]| {
        let (code, told, said) = command(folder.path(), &[&["simulate", "dump", "--units", "5000", "--json"], arguments].concat());
        assert_eq!(code, Some(0), "{said}");
        serde_json::from_str::<Value>(&told).unwrap()
    };
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_eq!(write(&["--out", "one.gz"]), json!({"rows": 5000, "edited": 0, "deleted": 0, "created": 0}));
    write(&["--out", "same.gz"]);
    assert_eq!(read("one.gz"), read("same.gz"));
    let changed = write(&["--out", "changed.gz", "--changed", "0.01"]);
    assert_eq!(changed, json!({"rows": 5000, "edited": 40, "deleted": 5, "created": 5}));
    let rows: Vec<Value> = serde_json::from_str(&gunzip(&read("changed.gz")).unwrap()).unwrap();
    assert_eq!(rows.len(), 5000);
}
