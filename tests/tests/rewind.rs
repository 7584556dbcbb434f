//! Going back: everything from a point on comes once more, in order, under other names; and replays
//! beside the live deliveries. Against a real Kafka, with real receivers.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, HashSet};

use ryggrad_tests::bridge::Caller;
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::process::{Process, command};
use ryggrad_tests::receiver::{Received, Receiver};
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::topic::VIRKSOMHET;
use ryggrad_tests::wait;
use serde_json::{Value, json};

const SETTINGS: &str = "[bridge]\nretry_first_ms = 50\nretry_max_ms = 200\nprobe_ms = 300\n";
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

struct Ground {
    scenario: Scenario,
    bridge: Process,
    events: Events,
    caller: Caller,
    receiver: Receiver,
    id: String,
    path: String,
}

impl Ground {
    /// One subscription from the beginning on.
    async fn start(more: Value) -> Self {
        let scenario = Scenario::start().await;
        std::fs::write(scenario.folder.path().join("bridge.toml"), SETTINGS).unwrap();
        let bridge = scenario.bridge(&["--config", "bridge.toml"]);
        let caller = scenario.subscriber(ORGANISATION).await;
        let events = Events::start(&scenario.connection()).await;
        let receiver = Receiver::start().await;
        receiver.trust(SECRET);
        let mut body = json!({"types": ["no.ryggrad.*"], "start": "beginning"});
        if more["channel"].is_null() {
            body = json!({"types": ["no.ryggrad.*"], "sink": receiver.sink(), "start": "beginning", "secret": SECRET, "verify": "none"});
        }
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (status, body) = caller.post("/v1/subscriptions", body).await;
        assert_eq!(status, 201, "{body}");
        let id = body["id"].as_str().unwrap().to_owned();
        let path = format!("/v1/subscriptions/{id}");
        Self { scenario, bridge, events, caller, receiver, id, path }
    }

    async fn restart(&mut self) {
        self.bridge.kill();
        self.bridge = self.scenario.bridge(&["--config", "bridge.toml"]);
        self.caller.ready().await;
    }

    /// Waits until each of these was taken so often, under as many names.
    async fn takes(&self, what: &str, published: &[Published], times: usize) {
        wait::until(what, 30, || async {
            let names = self.names();
            published.iter().all(|one| names.get(id_of(one)).is_some_and(|names| names.len() == times)).then_some(())
        })
        .await;
    }

    fn taken(&self) -> Vec<Received> {
        self.receiver.received().into_iter().filter(|delivery| delivery.status == 204 && !delivery.is_void()).collect()
    }

    /// `ce-id` -> every `webhook-id` that it was taken under.
    fn names(&self) -> BTreeMap<String, HashSet<String>> {
        let mut names: BTreeMap<String, HashSet<String>> = BTreeMap::new();
        for delivery in self.taken() {
            names.entry(delivery.event["id"].as_str().unwrap().to_owned()).or_default().insert(delivery.id);
        }
        names
    }

    async fn call(&self, what: &str, body: Value) -> Value {
        let (status, answer) = self.caller.post(&format!("{}/{what}", self.path), body).await;
        assert!((200..300).contains(&status), "{status} {answer}");
        answer
    }

    /// The receiver lives on the same threads, which must not wait.
    async fn command(&self, arguments: &[&str]) -> (Option<i32>, String, String) {
        let (bridge, token, folder) = (self.scenario.bridge_url(), self.caller.token().to_owned(), self.scenario.folder.path().to_owned());
        let given: Vec<String> = arguments.iter().chain(&["--bridge", &bridge, "--token", &token]).map(ToString::to_string).collect();
        let run = move || command(&folder, &given.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.unwrap()
    }
}

fn id_of(published: &Published) -> &str {
    published.event["id"].as_str().unwrap()
}

/// In each key the positions only grow.
fn assert_in_order<'d>(deliveries: impl IntoIterator<Item = &'d Received>) {
    let mut latest: BTreeMap<String, u64> = BTreeMap::new();
    for delivery in deliveries {
        let position = delivery.change().1;
        let before = latest.insert(delivery.key().to_owned(), position);
        assert!(before.is_none_or(|before| before < position), "{} after {before:?}", position);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewind_brings_everything_once_more_under_other_names() {
    let mut ground = Ground::start(json!({})).await;
    let old = ground.events.publish((0..40).map(|number| key(number % 10)).collect::<Vec<_>>()).await;
    ground.takes("the first time", &old, 1).await;

    // A preview, also of the command line, changes nothing and counts what would come.
    let preview = ground.call("rewind", json!({"to": "beginning", "preview": true})).await;
    let counted: u64 = preview["partitions"].as_array().unwrap().iter().map(|one| one["matching"].as_u64().unwrap()).sum();
    assert_eq!((counted, &preview["counted_to_the_end"]), (40, &json!(true)), "{preview}");
    // To Kafka, times before 1970 are commands; to an owner they are the beginning.
    let ancient = ground.call("rewind", json!({"to": "1969-12-31T23:59:59.998Z", "preview": true, "count": false})).await;
    let from = |preview: &Value| preview["partitions"].as_array().unwrap().iter().map(|one| one["from"].clone()).collect::<Vec<_>>();
    assert_eq!(from(&ancient), from(&preview));
    let (code, out, said) = ground.command(&["subscriptions", "rewind", &ground.id, "--to", "beginning"]).await;
    assert!(code == Some(0) && out.contains("MATCHING") && said.contains("delivered: 40") && said.contains("--execute"), "{out}{said}");
    assert_eq!(ground.names().values().map(HashSet::len).sum::<usize>(), 40);
    let metrics = ground.caller.raw(reqwest::Method::GET, "/metrics", &[], "").await.text;
    // One over HTTP, one of the command line.
    for line in ["preview_seconds_count 2", "preview_records_total 80", "previews_cut_short_total 0"] {
        assert!(metrics.lines().any(|found| found == format!("ryggrad_bridge_{line}")), "{line}: {metrics}");
    }

    // What is wrong is named, and nobody else gets near it.
    for (to, pointer) in [
        (json!("now"), "/to"),
        (json!([{"topic": VIRKSOMHET, "partition": 0, "offset": 1_000_000}]), "/to/0/offset"),
        (json!([{"topic": "ryggrad.tokens", "partition": 0, "offset": 0}]), "/to/0"),
    ] {
        let (status, body) = ground.caller.post(&format!("{}/rewind", ground.path), json!({"to": to})).await;
        assert_eq!((status, &body["errors"][0]["pointer"]), (422, &json!(pointer)), "{body}");
    }
    let stranger = ground.scenario.subscriber(OTHER_ORGANISATION).await;
    assert_eq!(stranger.post(&format!("{}/rewind", ground.path), json!({"to": "beginning"})).await.0, 404);

    ground.call("rewind", json!({"to": "beginning"})).await;
    ground.takes("the second time", &old, 2).await;
    assert_in_order(&ground.taken()[40..80]);

    // While the receiver refuses, part of it is pending: it comes once more all the same, once.
    ground.receiver.answer_with(|_| (503, Vec::new()));
    let more = ground.events.publish((0..20).map(|number| key(number % 10)).collect::<Vec<_>>()).await;
    wait::until("they wait", 30, || async {
        let status = ground.caller.get(&ground.path).await.1["status"].clone();
        (status["pending"] == 20).then_some(())
    })
    .await;
    let (code, out, said) = ground.command(&["subscriptions", "rewind", &ground.id, "--to", "beginning", "--execute"]).await;
    assert_eq!(code, Some(0), "{out}{said}");
    ground.restart().await;
    ground.receiver.answer_with(|_| (204, Vec::new()));
    ground.takes("the third time", &old, 3).await;
    ground.takes("what had waited", &more, 1).await;

    // Numbers have no gap: what was pending is closed, and has another one.
    wait::until("numbers without a gap", 30, || async {
        let taken = ground.receiver.received().into_iter().filter(|delivery| delivery.status == 204);
        let numbers: std::collections::BTreeSet<u64> = taken.map(|delivery| delivery.number.unwrap().1).collect();
        let status = ground.caller.get(&ground.path).await.1["status"].clone();
        ((1..).zip(&numbers).all(|(due, number)| due == *number) && status["pending"] == 0).then_some(())
    })
    .await;

    // As Kafka's own tools have it: one partition, five back.
    let filled = |one: &&Value| one["records_max"].as_i64().unwrap() > 0;
    let place = preview["partitions"].as_array().unwrap().iter().find(filled).unwrap()["partition"].clone();
    let (code, out, said) = ground.command(&["offsets", "show", "--subscription", &ground.id, "-o", "json"]).await;
    assert_eq!((code, out.lines().count()), (Some(0), 6), "{out}{said}");
    let scope = format!("{VIRKSOMHET}:{place}");
    let reset = ["offsets", "reset", "--subscription", &ground.id, "--topic", &scope, "--shift-by", "-1"];
    let (code, out, said) = ground.command(&reset).await;
    assert!(code == Some(0) && said.contains("Nothing was set"), "{out}{said}");
    let before = ground.taken().len();
    let (code, out, said) = ground.command(&[&reset[..], &["--execute"]].concat()).await;
    assert!(code == Some(0), "{out}{said}");
    wait::until("one more", 30, || async { (ground.taken().len() > before).then_some(()) }).await;
    let (code, _, said) = ground.command(&["offsets", "reset", "--subscription", &ground.id, "--topic", &scope, "--shift-by", "1"]).await;
    assert!(code == Some(3) || said.contains("outside the log"), "{said}");
    assert!(ground.receiver.received().iter().all(|delivery| delivery.verified), "all are signed");
    assert_eq!(ground.bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fetches_gets_it_once_more_under_higher_numbers() {
    let mut ground = Ground::start(json!({"channel": "pull"})).await;
    let old = ground.events.publish((0..30).map(key).collect::<Vec<_>>()).await;
    let fetched = async |ground: &Ground, count: usize| {
        wait::until("events", 30, || async {
            let (_, events) = ground.caller.get(&format!("{}/events?limit=1000", ground.path)).await;
            let events = events.as_array().unwrap().clone();
            (events.iter().filter(|event| event["type"] != "no.ryggrad.void.v1").count() == count).then_some(events)
        })
        .await
    };
    let number = |event: &Value| event["deliverynumber"].as_str().unwrap().parse::<u64>().unwrap();
    let first = fetched(&ground, 30).await;
    ground.call("rewind", json!({"to": "beginning"})).await;
    ground.restart().await;
    // Nothing was acknowledged: these numbers are closed, and the events have others.
    let second = fetched(&ground, 30).await;
    let voids: Vec<u64> = second.iter().filter(|event| event["type"] == "no.ryggrad.void.v1").map(number).collect();
    assert_eq!(voids, first.iter().map(number).collect::<Vec<_>>());
    let again: HashSet<&str> = second.iter().filter_map(|event| event["id"].as_str()).collect();
    assert!(old.iter().all(|one| again.contains(id_of(one))));
    let numbers: Vec<u64> = second.iter().map(number).collect();
    assert_eq!(numbers, (1..=60).collect::<Vec<_>>());
    assert_eq!(ground.bridge.stop().await, Some(0));
}

/// Waits until a replay is in this state.
async fn stands(ground: &Ground, replay: &str, state: &str) -> Value {
    wait::until(state, 60, || async {
        let (status, shown) = ground.caller.try_call(reqwest::Method::GET, &format!("{}/replays/{replay}", ground.path), None).await?;
        (status == 200 && shown["state"] == state).then_some(shown)
    })
    .await
}

/// What came of a replay, void notices aside.
fn of_replay(ground: &Ground, replay: &str) -> Vec<Received> {
    ground.taken().into_iter().filter(|delivery| delivery.event["replay"] == replay).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_brings_its_part_marked_and_survives_a_kill() {
    let mut ground = Ground::start(json!({})).await;
    let old = ground.events.publish((0..200).map(|number| key(number % 10)).collect::<Vec<_>>()).await;
    ground.takes("the live ones", &old, 1).await;
    let wanted = key(3);
    let asked = json!({"from": "beginning", "filters": [{"exact": {"subject": wanted}}], "events_per_minute_max": 600});
    let with = |more: Value| {
        let mut body = asked.clone();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let preview = ground.call("replays", with(json!({"preview": true}))).await;
    let counted: u64 = preview["partitions"].as_array().unwrap().iter().map(|one| one["matching"].as_u64().unwrap()).sum();
    assert_eq!(counted, 20, "{preview}");
    assert_eq!(
        ground.caller.get(&format!("{}/replays", ground.path)).await.1,
        json!({"replays": [], "next": null}),
        "a preview begins nothing"
    );

    // Ten a second: it is killed in the middle, and goes on by itself; what is live is not held up.
    let replay = ground.call("replays", asked.clone()).await["id"].as_str().unwrap().to_owned();
    wait::until("it has begun", 30, || async { (of_replay(&ground, &replay).len() >= 3).then_some(()) }).await;
    ground.restart().await;
    let live = ground.events.publish((0..10).map(key).collect::<Vec<_>>()).await;
    ground.takes("what is live", &live, 1).await;
    let shown = stands(&ground, &replay, "finished").await;
    assert_eq!((&shown["matched"], &shown["delivered"], &shown["share_done"]), (&json!(20), &json!(20), &json!(1.0)), "{shown}");
    let mut seen = HashSet::new();
    let came: Vec<Received> = of_replay(&ground, &replay).into_iter().filter(|delivery| seen.insert(delivery.id.clone())).collect();
    assert_eq!(came.len(), 20, "each once, repetitions after the kill under the same names aside");
    assert!(came.iter().all(|delivery| delivery.key() == wanted));
    assert_in_order(&came);
    let names = ground.names();
    assert!(old.iter().all(|one| names[id_of(one)].len() == if one.key == wanted { 2 } else { 1 }), "nothing else came");

    // A restart finds it ended, and nothing more comes of it.
    ground.restart().await;
    assert_eq!(ground.caller.get(&format!("{}/replays/{replay}", ground.path)).await.1["state"], "finished");
    let stranger = ground.scenario.subscriber(OTHER_ORGANISATION).await;
    for (method, path) in [("GET", ""), ("POST", ""), ("GET", "/ID"), ("POST", "/ID/cancel")] {
        let path = format!("{}/replays{}", ground.path, path.replace("ID", &replay));
        let (status, body) = stranger.call(method.parse().unwrap(), &path, Some(asked.clone())).await;
        assert_eq!(status, 404, "{method} {path}: {body}");
    }
    assert_eq!(ground.bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_replay_stops_within_a_second_and_the_command_line_follows_one() {
    let mut ground = Ground::start(json!({})).await;
    let old = ground.events.publish((0..300).map(key).collect::<Vec<_>>()).await;
    ground.takes("the live ones", &old, 1).await;
    let slow = ground.call("replays", json!({"from": "beginning", "events_per_minute_max": 300})).await;
    assert_eq!(slow["filters"], json!([]));
    let slow = slow["id"].as_str().unwrap().to_owned();
    wait::until("it has begun", 30, || async { (of_replay(&ground, &slow).len() >= 2).then_some(()) }).await;
    // No more than so many at once.
    let second = ground.call("replays", json!({"from": "beginning", "events_per_minute_max": 1})).await["id"].as_str().unwrap().to_owned();
    let (status, body) = ground.caller.post(&format!("{}/replays", ground.path), json!({"from": "beginning"})).await;
    assert_eq!((status, &body["type"]), (409, &json!("urn:ryggrad:error:limit")), "{body}");
    let asked_at = std::time::Instant::now();
    let (code, out, said) = ground.command(&["subscriptions", "cancel-replay", &ground.id, &slow]).await;
    assert!(code == Some(0) && out.contains("cancelled"), "{out}{said}");
    assert_eq!(ground.call(&format!("replays/{second}/cancel"), json!({})).await["state"], "cancelled");
    println!("cancelled in {:?}", asked_at.elapsed());
    let came = of_replay(&ground, &slow).len();
    assert!(came < 300);

    // Live ones go on; a third one is followed to its end on the command line, faster.
    let topic = ["replay", VIRKSOMHET, "--from", "beginning", "--sql", "EXISTS subject", "--to"];
    let to = format!("subscription:{}", ground.id);
    let (code, out, said) = ground.command(&[&topic[..], &[&to]].concat()).await;
    assert!(code == Some(0) && said.contains("delivered: 300") && said.contains("--execute"), "{out}{said}");
    let kafka = ground.scenario.broker.address();
    let (code, out, said) = ground.command(&[&topic[..], &[&to, "--rate", "5000", "--execute", "--kafka", &kafka]].concat()).await;
    assert!(code == Some(0) && said.contains("finished: matched 300, delivered 300, set aside 0"), "{out}{said}");
    assert_eq!(of_replay(&ground, &slow).len(), came, "nothing came after the cancellation");
    let (code, out, said) = ground.command(&["subscriptions", "replays", &ground.id]).await;
    assert!(code == Some(0) && out.matches("cancelled").count() == 2 && out.contains("finished"), "{out}{said}");
    let (mut shown, mut after) = (Vec::new(), String::new());
    loop {
        let (_, page) = ground.caller.get(&format!("{}/replays?limit=1{after}", ground.path)).await;
        let [one] = page["replays"].as_array().unwrap().as_slice() else { panic!("a page has one: {page}") };
        shown.push(one["id"].as_str().unwrap().to_owned());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!((shown.len(), &shown[1..]), (3, &[second.clone(), slow.clone()][..]), "newest first");
    assert_eq!(ground.caller.get(&format!("{}/replays?after=x", ground.path)).await.0, 422);

    // The same expression selects for other targets.
    let selected = ["replay", VIRKSOMHET, "--sql", &format!("subject = '{}'", key(7)), "--kafka", &kafka];
    let (code, out, said) = command(ground.scenario.folder.path(), &selected);
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{said}");

    // With its subscription a replay ends.
    ground.call("replays", json!({"from": "beginning", "events_per_minute_max": 60})).await;
    assert_eq!(ground.caller.delete(&ground.path).await.0, 204);
    let metrics = ground.caller.raw(reqwest::Method::GET, "/metrics", &[], "").await.text;
    assert!(metrics.lines().any(|line| line == "ryggrad_bridge_replays_running 0"), "{metrics}");
    assert_eq!(ground.bridge.stop().await, Some(0));
}
