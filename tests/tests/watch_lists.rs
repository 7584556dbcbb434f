//! Watch lists: only events of listed keys come, a replacement is one step, what was answered
//! outlives SIGKILL, and keys are shown nowhere.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeSet;

use rand::Rng;
use reqwest::Method;
use ryggrad_log::Appender;
use ryggrad_schemas::catalogue::topics::WATCH_LISTS;
use ryggrad_schemas::identifiers::KeyDomain;
use ryggrad_schemas::{EncodedRecord, Headers, LogRecord};
use ryggrad_tests::bridge::{Caller, Reply};
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::process::command;
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::{random, wait};
use serde_json::{Value, json};

const LISTS: &str = "/v1/watch-lists";
const SETTINGS: &str = "[bridge]\nwatch_list_keys_max = 3000\nwatch_lists_per_organisation_max = 3\nwatch_list_upload_bytes_max = 60000\n";

/// So many valid keys; the test knows them by their place.
fn keys(count: usize) -> Vec<String> {
    (1_000..).map(key).filter(|key| KeyDomain::Organisasjonsnummer.number(key).is_ok()).take(count).collect()
}

async fn create(caller: &Caller) -> String {
    let (status, made) = caller.post(LISTS, json!({"domain": "organisasjonsnummer", "description": "våre"})).await;
    assert_eq!((status, &made["keys_count"], &made["generation"]), (201, &json!(0), &json!(0)), "{made}");
    made["id"].as_str().unwrap().to_owned()
}

async fn subscribe(caller: &Caller, sink: &str, list: Option<&str>) -> String {
    let wish = json!({"types": ["no.ryggrad.*"], "sink": sink, "start": "beginning", "watch_list": list});
    let (status, made) = caller.post("/v1/subscriptions", wish).await;
    assert_eq!((status, made.get("watch_list").and_then(Value::as_str)), (201, list), "{made}");
    made["id"].as_str().unwrap().to_owned()
}

async fn change(caller: &Caller, list: &str, add: &[String], remove: &[String]) -> Reply {
    caller.post(&format!("{LISTS}/{list}/keys"), json!({"add": add, "remove": remove})).await
}

async fn replace(caller: &Caller, list: &str, keys: &[String]) -> Reply {
    caller.call(Method::PUT, &format!("{LISTS}/{list}/keys"), Some(json!(keys))).await
}

fn ids(published: &[Published], keys: &[String]) -> BTreeSet<String> {
    let such = published.iter().filter(|published| keys.contains(&published.key));
    such.map(|published| published.event["id"].as_str().unwrap().to_owned()).collect()
}

async fn takes(receiver: &Receiver, what: &str, expected: &BTreeSet<String>) {
    wait::until(what, 30, || async { receiver.taken().is_superset(expected).then_some(()) }).await;
    assert_eq!(receiver.taken(), *expected, "{what}");
}

/// Bytes that would give a key away: its text, and its number as it could be packed.
fn shows(bytes: &[u8], key: &str) -> bool {
    let number = key.parse::<u32>().unwrap().to_be_bytes();
    bytes.windows(key.len()).any(|found| found == key.as_bytes()) || bytes.windows(4).any(|found| found == number)
}

fn metric(metrics: &str, name: &str) -> u64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} is missing"))
}

#[tokio::test(flavor = "multi_thread")]
async fn only_events_of_listed_keys_come_and_no_key_is_shown() {
    let scenario = Scenario::start().await;
    std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
    let mut events = Events::start(&scenario.connection()).await;
    let all = keys(20);
    let mut published = events.publish(all.clone()).await;
    let mut bridge = scenario.bridge(&["--config", "bridge.toml"]);
    let (caller, stranger) = (scenario.subscriber(ORGANISATION).await, scenario.subscriber(OTHER_ORGANISATION).await);
    let list = create(&caller).await;
    let (narrow, witness) = (Receiver::start().await, Receiver::start().await);

    // From the log.
    assert_eq!(change(&caller, &list, &all[..5], &[]).await.1["keys_count"], 5);
    let id = subscribe(&caller, &narrow.sink(), Some(&list)).await;
    subscribe(&caller, &witness.sink(), None).await;
    takes(&witness, "the witness has everything", &ids(&published, &all)).await;
    let mut expected = ids(&published, &all[..5]);
    takes(&narrow, "listed keys from the log", &expected).await;
    for (call, point) in [("rewind", "to"), ("replays", "from")] {
        let (_, preview) = caller.post(&format!("/v1/subscriptions/{id}/{call}"), json!({point: "beginning", "preview": true})).await;
        let matching = preview["partitions"].as_array().unwrap().iter().map(|one| one["matching"].as_u64().unwrap());
        assert_eq!(matching.sum::<u64>(), 5, "a preview counts listed keys alone: {preview}");
    }

    // From the tail, by what is listed at the time; nothing is made up for.
    let steps: [(&[String], &[String], &[usize]); 3] = [
        (&[], &[], &[0, 1, 2, 3, 4]),
        (&all[7..9], &all[1..3], &[0, 3, 4, 7, 8]),
        // Done again, and for keys that are not there, it changes nothing.
        (&all[7..9], &all[1..3], &[0, 3, 4, 7, 8]),
    ];
    for (add, remove, listed) in steps {
        let (status, changed) = change(&caller, &list, add, remove).await;
        assert_eq!((status, &changed["keys_count"]), (200, &json!(listed.len())), "{changed}");
        let latest = events.publish(all.clone()).await;
        let listed: Vec<String> = listed.iter().map(|index| all[*index].clone()).collect();
        expected.extend(ids(&latest, &listed));
        published.extend(latest);
        takes(&witness, "the witness has everything", &ids(&published, &all)).await;
        takes(&narrow, "listed keys from the tail", &expected).await;
    }

    // Another set, as lines; then no list at all, and the list again, which is another set again.
    let lines = all[10..15].join("\r\n") + "\n\n";
    let token = scenario.operator().await.issue_token(ORGANISATION).await;
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", authorization.as_str()), ("content-type", "text/plain; charset=utf-8")];
    let answer = caller.raw(Method::PUT, &format!("{LISTS}/{list}/keys"), &headers, lines).await;
    assert_eq!((answer.status, &answer.json()["keys_count"], &answer.json()["generation"]), (200, &json!(5), &json!(2)), "{answer:?}");
    let path = format!("/v1/subscriptions/{id}");
    for (patch, listed) in [(None, &all[10..15]), (Some(json!(null)), &all[..]), (Some(json!(list)), &all[15..17])] {
        if let Some(patch) = patch {
            assert_eq!(replace(&caller, &list, &all[15..17]).await.0, 200);
            let (status, changed) = caller.patch(&path, json!({"watch_list": patch})).await;
            assert_eq!((status, changed.get("watch_list").unwrap_or(&Value::Null)), (200, &patch));
        }
        let latest = events.publish(all.clone()).await;
        expected.extend(ids(&latest, listed));
        published.extend(latest);
        takes(&witness, "the witness has everything", &ids(&published, &all)).await;
        takes(&narrow, "what the list holds by then", &expected).await;
    }

    // Faults say where, and never what; limits are kept.
    let wrong = "312345677";
    for (status, answer, pointer) in [
        refused(caller.post(LISTS, json!({"domain": wrong})).await, "/domain"),
        refused(replace(&caller, &list, &[all[0].clone(), wrong.to_owned()]).await, "/1"),
        refused(change(&caller, &list, &[wrong.to_owned()], &[]).await, "/add/0"),
        refused(caller.post(&format!("{LISTS}/{list}/keys"), json!({wrong: []})).await, ""),
        refused(caller.patch(&path, json!({"watch_list": list.replace('-', "")[1..]})).await, "/watch_list"),
    ] {
        assert_eq!((status, answer["errors"][0]["pointer"].as_str()), (422, Some(pointer)), "{answer}");
        assert!(!answer.to_string().contains(wrong), "{answer}");
    }
    let many = keys(3_001);
    assert_eq!(replace(&caller, &list, &many[..3_000]).await.1["keys_count"], 3_000);
    for (status, answer) in [replace(&caller, &list, &many).await, change(&caller, &list, &many[3_000..], &[]).await] {
        assert_eq!((status, &answer["type"]), (409, &json!("urn:ryggrad:error:limit")), "{answer}");
    }
    assert_eq!(replace(&caller, &list, &keys(6_000)).await.0, 413);
    for _ in 0..2 {
        create(&caller).await;
    }
    assert_eq!(caller.post(LISTS, json!({"domain": "organisasjonsnummer"})).await.0, 409);

    // Strangers see nothing, operators all but keys; nobody deletes what is used.
    let own = format!("{LISTS}/{list}");
    for (method, path) in [
        (Method::GET, own.clone()),
        (Method::DELETE, own.clone()),
        (Method::PUT, format!("{own}/keys")),
        (Method::POST, format!("{own}/keys")),
    ] {
        assert_eq!(stranger.call(method.clone(), &path, Some(json!({}))).await.0, 404, "{method} {path}");
    }
    assert_eq!(stranger.get(LISTS).await.1, json!({"watch_lists": [], "next": null}));
    let theirs = json!({"types": ["no.ryggrad.*"], "sink": witness.sink(), "watch_list": list});
    assert_eq!(stranger.post("/v1/subscriptions", theirs).await.1["errors"][0]["pointer"], "/watch_list");
    let operator = scenario.operator().await;
    let (_, seen) = operator.get(&own).await;
    assert_eq!(
        (&seen["organisation"], &seen["keys_count"], &seen["domain"]),
        (&json!(ORGANISATION), &json!(3_000), &json!("organisasjonsnummer"))
    );
    assert_eq!(operator.get(LISTS).await.1["watch_lists"].as_array().unwrap().len(), 3);
    assert_eq!(operator.call(Method::PUT, &format!("{own}/keys"), Some(json!([]))).await.0, 403);
    assert_eq!(caller.patch(&own, json!({"description": null})).await.1.get("description"), None);
    let (status, answer) = caller.delete(&own).await;
    assert_eq!((status, &answer["type"]), (409, &json!("urn:ryggrad:error:in-use")), "{answer}");

    // No key in the topic, the log or the metrics, which say how much there is.
    let records = read_all(&scenario.connection(), WATCH_LISTS).await;
    assert!(records.iter().filter(|record| record.key.as_deref().is_some_and(|key| key.contains('/'))).count() > 6);
    let raw: Vec<u8> = records.iter().flat_map(|record| record.value.clone().unwrap_or_default()).collect();
    let metrics = caller.raw(Method::GET, "/metrics", &[], "").await.text;
    for key in all.iter().chain(&many[2_990..]) {
        assert!(!shows(&raw, key), "a key lies open in the topic");
        assert!(!metrics.contains(key.as_str()) && !bridge.said().contains(key.as_str()), "a key is told");
    }
    assert!(!bridge.said().contains(wrong));
    let bytes = metric(&metrics, "ryggrad_bridge_watch_list_bytes");
    assert_eq!((metric(&metrics, "ryggrad_bridge_watch_list_keys"), metric(&metrics, "ryggrad_bridge_watch_lists")), (3_000, 3));
    assert!((3_000 * 20..1_000_000).contains(&bytes), "{bytes}");

    // Without the subscription it may go, and its memory with it.
    assert_eq!(caller.patch(&path, json!({"watch_list": null})).await.0, 200);
    assert_eq!((caller.delete(&own).await.0, caller.get(&own).await.0), (204, 404));
    let metrics = caller.raw(Method::GET, "/metrics", &[], "").await.text;
    assert_eq!(metric(&metrics, "ryggrad_bridge_watch_list_keys"), 0);

    // The command line: keys from a file, in as many calls as it takes.
    let (folder, url) = (scenario.folder.path(), scenario.bridge_url());
    std::fs::write(folder.join("keys.txt"), many[..3_000].join("\n")).unwrap();
    std::fs::write(folder.join("some.txt"), many[..10].join("\n")).unwrap();
    let said = |words: &[&str]| {
        let line = [&["watch-lists"], words, &["-o", "ndjson", "--bridge", &url, "--token", &token]].concat();
        let (code, out, told) = command(folder, &line);
        assert!(!out.contains(many[0].as_str()) && !told.contains(many[0].as_str()), "{out}{told}");
        (code, serde_json::from_str::<Value>(&out).unwrap_or_default(), told)
    };
    let (code, made, told) = said(&["create", "--description", "våre"]);
    assert_eq!((code, &made["description"]), (Some(0), &json!("våre")), "{told}");
    let id = made["id"].as_str().unwrap();
    for (words, count) in [
        (&["add", id, "keys.txt"][..], 3_000),
        (&["remove", id, "some.txt"], 2_990),
        (&["replace", id, "some.txt"], 10),
        (&["show", id], 10),
    ] {
        let (code, shown, told) = said(words);
        assert_eq!((code, &shown["keys_count"]), (Some(0), &json!(count)), "{words:?} {told}");
    }
    assert_eq!(said(&["delete", id]).0, Some(0));
    assert_eq!(said(&["show", id]).0, Some(3));
    assert_eq!(bridge.stop().await, Some(0));
}

fn refused(reply: Reply, pointer: &'static str) -> (u16, Value, &'static str) {
    (reply.0, reply.1, pointer)
}

/// What a reader sees of a replacement, partition by partition: the one set up to some record, and
/// the other from there on.
#[tokio::test(flavor = "multi_thread")]
async fn a_replacement_is_one_step_for_a_reader() {
    const ROUNDS: usize = 30;
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let caller = scenario.subscriber(ORGANISATION).await;
    // Each set has a tail of keys that nobody publishes, so that filling it takes a while.
    let (all, list) = (keys(40_000), create(&caller).await);
    let (first, second) = (all[..20_000].to_vec(), all[20_000..].to_vec());
    let probes: Vec<String> = first[..12].iter().chain(&second[..12]).cloned().collect();
    assert_eq!(replace(&caller, &list, &first).await.1["keys_count"], 20_000);
    let receiver = Receiver::start().await;
    subscribe(&caller, &receiver.sink(), Some(&list)).await;
    let mut events = Events::start(&scenario.connection()).await;
    let mut published = events.publish(probes.clone()).await;
    takes(&receiver, "the first set", &ids(&published, &first)).await;

    let mut changed = None;
    for round in 0..ROUNDS {
        if round == ROUNDS / 3 {
            let (asker, upload, second) = (caller.clone(), list.clone(), second.clone());
            changed = Some(tokio::spawn(async move { replace(&asker, &upload, &second).await }));
        }
        published.extend(events.publish(probes.clone()).await);
    }
    assert_eq!(changed.unwrap().await.unwrap().0, 200);
    let last = events.publish(probes.clone()).await;
    wait::until("the second set, after the answer", 30, || async {
        receiver.taken().is_superset(&ids(&last, &all[20_000..])).then_some(())
    })
    .await;
    published.extend(last);

    let taken = receiver.taken();
    let mut seen = [0, 0];
    for partition in 0..6 {
        let mut switched = false;
        for record in read_all(&scenario.connection(), VIRKSOMHET).await.iter().filter(|record| record.partition == partition) {
            let of_first = first.contains(record.key.as_ref().unwrap());
            let got = taken.contains(record.header("ce_id").unwrap());
            switched |= got != of_first;
            assert_eq!(got, of_first != switched, "partition {partition}, offset {}: neither set as a whole", record.offset);
            seen[usize::from(!of_first)] += usize::from(got);
        }
    }
    println!("{} events of the first set, {} of the second", seen[0], seen[1]);
    assert_eq!(taken.len(), seen[0] + seen[1]);
    assert_eq!(bridge.stop().await, Some(0));
}

/// Which of these keys are listed, as far as events tell.
async fn probe(events: &mut Events, probes: &[String], caller: &Caller, id: &str, receiver: &Receiver) -> BTreeSet<String> {
    let published = events.publish(probes.to_vec()).await;
    let anchors = ids(&published, &probes[probes.len() - ANCHORS..]);
    // These stand last in every partition: once they have come, all before them was judged.
    wait::until("every partition was judged", 30, || async { receiver.taken().is_superset(&anchors).then_some(()) }).await;
    wait::until("nothing is pending", 30, || async { caller.status(id).await.filter(|status| status["pending"] == 0) }).await;
    let taken = receiver.taken();
    published.iter().filter(|one| taken.contains(one.event["id"].as_str().unwrap())).map(|one| one.key.clone()).collect()
}

/// Keys that are always listed, and published last: enough that every partition has one.
const ANCHORS: usize = 40;
const KILLS: usize = 15;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_outlives_a_kill_and_no_set_is_mixed_with_another() {
    let mut random = random::seeded("what_was_answered_outlives_a_kill_and_no_set_is_mixed_with_another");
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let caller = scenario.subscriber(ORGANISATION).await;
    let list = create(&caller).await;
    let all = keys(6_000);
    let (anchors, own) = all.split_at(ANCHORS);
    // Two sets with nothing in common but the anchors, and a key that comes and goes.
    let half = own.len() / 2;
    let sets: Vec<Vec<String>> = [&own[1..half], &own[half..]].iter().map(|set| [anchors, *set].concat()).collect();
    let guest = own[..1].to_vec();
    let probes: Vec<String> = [&guest, &sets[0][ANCHORS..ANCHORS + 8], &sets[1][ANCHORS..ANCHORS + 8], anchors].concat();
    assert_eq!(replace(&caller, &list, &sets[0]).await.0, 200);
    let (receiver, sentinel) = (Receiver::start().await, Receiver::start().await);
    let id = subscribe(&caller, &receiver.sink(), Some(&list)).await;
    subscribe(&caller, &sentinel.sink(), None).await;
    let mut events = Events::start(&scenario.connection()).await;

    // Which set, and whether the guest is in it, as far as it was answered.
    let mut known = (0, false);
    let (mut whole, mut part) = (0, 0);
    for kill in 1..=KILLS {
        let replaces = random.random_bool(0.6);
        let asked = if replaces { (1 - known.0, false) } else { (known.0, !known.1) };
        let (asker, asked_of, next, guest_key) = (caller.clone(), list.clone(), sets[asked.0].clone(), guest.clone());
        let asking = tokio::spawn(async move {
            let path = format!("{LISTS}/{asked_of}/keys");
            match (replaces, asked.1) {
                (true, _) => asker.try_call(Method::PUT, &path, Some(json!(next))).await,
                (false, true) => asker.try_call(Method::POST, &path, Some(json!({"add": guest_key}))).await,
                (false, false) => asker.try_call(Method::POST, &path, Some(json!({"remove": guest_key}))).await,
            }
        });
        wait::random_moment(random.random_range(0..50)).await;
        bridge.kill();
        let answered = asking.await.unwrap().is_some_and(|(status, _)| status == 200);
        bridge = scenario.bridge(&[]);
        caller.ready().await;
        let listed = probe(&mut events, &probes, &caller, &id, &receiver).await;
        let is = |state: (usize, bool)| {
            let expected = sets[state.0].iter().filter(|key| probes.contains(key)).cloned();
            expected.chain(guest.iter().filter(|_| state.1).cloned()).collect::<BTreeSet<_>>() == listed
        };
        let (before, after) = (is(known), is(asked));
        println!("kill {kill}: replaces {replaces}, answered {answered}, before {before}, after {after}");
        assert!(before || after, "kill {kill}: a set that nobody asked for: {} of {} probes", listed.len(), probes.len());
        assert!(after || !answered, "kill {kill}: what was answered is gone");
        if after {
            known = asked;
        }
        (whole, part) = (whole + usize::from(answered), part + usize::from(!answered));
        let (_, shown) = caller.get(&format!("{LISTS}/{list}")).await;
        assert_eq!(shown["keys_count"], json!(sets[known.0].len() + usize::from(known.1)), "{shown}");
    }
    println!("{whole} answered, {part} not");

    // What an upload has left over goes at the start, and is part of nothing.
    let (_, shown) = caller.get(&format!("{LISTS}/{list}")).await;
    let generation = shown["generation"].as_u64().unwrap();
    let appender = Appender::new(&scenario.connection(), 10_000).unwrap();
    let put = async |key: String, value: Option<Vec<u8>>| {
        let record = EncodedRecord { topic: WATCH_LISTS.to_owned(), partition: Some(0), key, value, headers: Headers::default() };
        appender.append(&record).await.unwrap();
    };
    let leftover = format!("{list}/{}/0", generation + 1);
    put(leftover.clone(), Some(b"?".to_vec())).await;
    bridge.kill();
    bridge = scenario.bridge(&[]);
    caller.ready().await;
    let latest = |records: &[LogRecord], key: &str| records.iter().rfind(|record| record.key.as_deref() == Some(key)).cloned();
    let records = read_all(&scenario.connection(), WATCH_LISTS).await;
    assert!(latest(&records, &leftover).unwrap().value.is_none(), "it is still there");
    let live: BTreeSet<&str> = records.iter().filter_map(|record| record.key.as_deref()).collect();
    let live: Vec<&&str> = live.iter().filter(|key| latest(&records, key).unwrap().value.is_some()).collect();
    assert!(live.iter().all(|key| **key == list || key.starts_with(&format!("{list}/{generation}/"))), "{live:?}");

    // A list with a bucket missing stops its subscription; nothing is lost, and a new upload cures it.
    put(format!("{list}/{generation}/1"), None).await;
    bridge.kill();
    bridge = scenario.bridge(&[]);
    caller.ready().await;
    assert!(bridge.said().contains("a watch list is damaged"));
    let missed = events.publish(anchors.to_vec()).await;
    takes_at_least(&sentinel, &ids(&missed, anchors)).await;
    assert!(receiver.taken().is_disjoint(&ids(&missed, anchors)));
    assert_eq!(change(&caller, &list, &guest, &[]).await.0, 503);
    assert_eq!(replace(&caller, &list, &sets[1]).await.0, 200);
    assert_eq!(bridge.stop().await, Some(0));
    bridge = scenario.bridge(&[]);
    caller.ready().await;
    takes_at_least(&receiver, &ids(&missed, anchors)).await;
    assert_eq!(bridge.stop().await, Some(0));
}

async fn takes_at_least(receiver: &Receiver, expected: &BTreeSet<String>) {
    wait::until("what was published", 30, || async { receiver.taken().is_superset(expected).then_some(()) }).await;
}
