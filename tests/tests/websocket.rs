//! Events over WebSockets: stock clients in Python and JavaScript by either protocol, every way in
//! which a connection ends, and what is left after the bridge was killed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeMap;

use futures_util::SinkExt;
use reqwest::Method;
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::channels::Socket;
use ryggrad_tests::events::{Events, Published, key};
use ryggrad_tests::foreign::{node, python};
use ryggrad_tests::scenario::{ORGANISATION, OTHER_ORGANISATION, Scenario};
use ryggrad_tests::wait;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

const EVENTS: usize = 300;
const KEYS: u32 = 20;
/// Messages that a bridge does not read at once.
const CHATTER: usize = 1_000;

/// A connection, its protocol's first word heard, for what stock clients do not do.
async fn ryggrad(caller: &Caller, id: &str) -> (Socket, Value) {
    let mut socket = Socket::open(caller, id, "ryggrad.v1", "").await.unwrap();
    let hello = socket.next().await.unwrap();
    assert_eq!(hello["type"], "hello");
    (socket, hello)
}

/// The next frame of that type, before two heartbeats.
async fn next_of(socket: &mut Socket, kind: &str) -> Value {
    let mut heartbeats = 0;
    while heartbeats < 2 {
        let said = socket.next().await.unwrap();
        if said["type"] == kind {
            return said;
        }
        heartbeats += i32::from(said["type"] == "heartbeat");
    }
    panic!("no {kind} came")
}

async fn code(socket: &mut Socket) -> u16 {
    loop {
        if let Err(code) = socket.next().await {
            return code;
        }
    }
}

async fn subscribe(caller: &Caller, channel: &str, start: &str) -> String {
    let (status, body) = caller.post("/v1/subscriptions", json!({"types": ["no.ryggrad.*"], "channel": channel, "start": start})).await;
    assert_eq!((status, &body["channel"]), (201, &json!(channel)), "{body}");
    body["id"].as_str().unwrap().to_owned()
}

async fn publish(events: &mut Events, count: usize) -> Vec<Published> {
    let mut published = Vec::new();
    for chunk in (0..u32::try_from(count).unwrap()).collect::<Vec<_>>().chunks(50) {
        published.extend(events.publish(chunk.iter().map(|index| key(index % KEYS))).await);
    }
    published
}

/// What a client printed: every event once and right, gapless numbers, each key's events in order.
fn check(told: &[Value], published: &[Published], first_number: u64) {
    let mut left: BTreeMap<&str, &Published> = published.iter().map(|event| (event.event["id"].as_str().unwrap(), event)).collect();
    let mut latest: BTreeMap<&str, u64> = BTreeMap::new();
    for (index, line) in told.iter().enumerate() {
        assert_eq!(line["number"], json!(first_number + index as u64));
        let event = left.remove(line["event"]["id"].as_str().unwrap()).expect("each event once");
        assert_eq!((&line["event"]["subject"], &line["event"]["data"]), (&event.event["subject"], &event.event["data"]));
        let before = latest.insert(&event.key, event.position);
        assert!(before < Some(event.position), "{} overtook its key", event.position);
    }
    assert_eq!(left.len(), 0, "{} events never came", left.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn stock_clients_follow_by_either_protocol() {
    let scenario = Scenario::start().await;
    let _bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let token = operator.issue_token(ORGANISATION).await;
    let caller = operator.with_token(Some(&token));
    let published = publish(&mut Events::start(&scenario.connection()).await, EVENTS).await;
    let base = scenario.bridge_url().replace("http://", "ws://");
    for (client, protocol) in
        [("python", "cloudevents.json"), ("node", "cloudevents.json"), ("python", "ryggrad.v1"), ("node", "ryggrad.v1")]
    {
        let id = subscribe(&caller, "websocket", "beginning").await;
        let address = format!("{base}/v1/subscriptions/{id}/socket");
        let mut told: Vec<Value> = Vec::new();
        // In three visits, the last of which empties it.
        for visit in [100, 70, EVENTS - 170] {
            let cursor = told.last().filter(|_| protocol == "cloudevents.json").map(|last| last["cursor"].as_str().unwrap().to_owned());
            let address = cursor.map_or(address.clone(), |cursor| format!("{address}?after={cursor}"));
            let (count, nothing) = (visit.to_string(), String::new());
            let said = match client {
                "python" => python("follow_socket.py", &[&address, &token, protocol, &count], nothing).await,
                _ => node("follow_socket.cjs", &[&address, &token, protocol, &count], nothing).await,
            };
            assert_eq!(said.len(), visit, "{client} by {protocol}");
            told.extend(said);
        }
        check(&told, &published, 1);
        if protocol == "ryggrad.v1" {
            let status = caller.status(&id).await.unwrap();
            assert_eq!(status["pending"], 0, "all is acknowledged: {status}");
        }
        println!("{client} by {protocol}: {EVENTS} events in three visits");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_ends_with_a_reason() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let (token, other) = (operator.issue_token(ORGANISATION).await, operator.issue_token(OTHER_ORGANISATION).await);
    let caller = operator.with_token(Some(&token));
    let mut events = Events::start(&scenario.connection()).await;
    let id = subscribe(&caller, "websocket", "beginning").await;
    let webhook = caller.subscribe("https://mottak.example.org/", "now").await.0;

    // At the door.
    let nobody = Uuid::nil().to_string();
    let stranger = "ryg_0_0";
    for (subscription, bearer, protocol, query, expected) in [
        (&id, &stranger, "ryggrad.v1", "", 401),
        (&id, &other.as_str(), "ryggrad.v1", "", 404),
        (&nobody, &token.as_str(), "ryggrad.v1", "", 404),
        (&webhook, &token.as_str(), "ryggrad.v1", "", 409),
        (&id, &token.as_str(), "", "", 426),
        (&id, &token.as_str(), "cloudevents.avro", "", 426),
        (&id, &token.as_str(), "ryggrad.v1", "?after=x", 400),
        (&id, &token.as_str(), "ryggrad.v1", "?efter=x", 422),
    ] {
        let refused = Socket::open(&operator.with_token(Some(bearer)), subscription, protocol, query).await.map(|_| ());
        assert_eq!(refused, Err(expected), "{protocol} {query}");
    }
    let (status, body) = caller.call(Method::GET, &format!("/v1/subscriptions/{id}/socket"), None).await;
    assert_eq!((status, &body["type"]), (426, &json!("urn:ryggrad:error:upgrade")), "{body}");

    // Without credit nothing comes; what it is for comes, and no more.
    publish(&mut events, 5).await;
    let (mut first, hello) = ryggrad(&caller, &id).await;
    assert_eq!((&hello["acknowledged"], &hello["subscription"]), (&json!(0), &json!(id)));
    first.say(json!({"type": "credit", "events": 2})).await;
    assert_eq!(first.next().await.unwrap()["number"], 1);
    assert_eq!(first.next().await.unwrap()["number"], 2);
    first.say(json!({"type": "ack", "number": 2})).await;
    first.say(json!({"type": "ack", "number": 1})).await;
    assert_eq!(first.next().await.unwrap(), json!({"type": "acknowledged", "through": 2}), "and the third event did not come");

    // The newer takes over, and goes on behind what was acknowledged.
    let (mut second, hello) = ryggrad(&caller, &id).await;
    assert_eq!((code(&mut first).await, &hello["acknowledged"]), (4409, &json!(2)));
    second.say(json!({"type": "credit", "events": 1})).await;
    assert_eq!(next_of(&mut second, "event").await["number"], 3);
    second.say(json!({"type": "ack", "through": 4})).await;
    assert_eq!(code(&mut second).await, 4400, "what was not sent is not acknowledged");

    // What was taken cannot be resumed before.
    let cursor = hello["cursor"].as_str().unwrap().to_owned();
    let (mut third, _) = ryggrad(&caller, &id).await;
    third.say(json!({"type": "credit", "events": 9})).await;
    next_of(&mut third, "event").await;
    third.say(json!({"type": "ack", "number": 3})).await;
    assert_eq!(next_of(&mut third, "acknowledged").await["through"], 3);
    let passed = Socket::open(&caller, &id, "cloudevents.json", &format!("?after={cursor}")).await.map(|_| ());
    assert_eq!(passed, Err(410));
    third.0.send(Message::Binary(vec![1].into())).await.unwrap();
    assert_eq!(code(&mut third).await, 4400);

    // The plain protocol takes no words.
    let (mut plain, response) = Socket::open_with_answer(&caller, &id, "x, cloudevents.json", "").await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "cloudevents.json");
    let event = plain.next().await.unwrap();
    assert_eq!((&event["deliverynumber"], event["cursor"].is_string(), &event["specversion"]), (&json!("4"), true, &json!("1.0")));
    plain.say(json!({"type": "heartbeat"})).await;
    assert_eq!(code(&mut plain).await, 4400);

    // A revoked token closes what it has opened.
    let brief = operator.issue_token(ORGANISATION).await;
    let (mut fourth, _) = ryggrad(&operator.with_token(Some(&brief)), &id).await;
    let revoked: Uuid = brief.split('_').nth(1).unwrap().parse().unwrap();
    assert_eq!(operator.delete(&format!("/v1/tokens/{revoked}")).await.0, 204);
    assert_eq!(code(&mut fourth).await, 4401);

    // The end of the subscription, and of the bridge.
    let gone = subscribe(&caller, "pull", "now").await;
    let (mut fifth, _) = ryggrad(&caller, &gone).await;
    fifth.say(json!({"type": "credit", "events": 1})).await;
    assert_eq!(caller.delete(&format!("/v1/subscriptions/{gone}")).await.0, 204);
    assert_eq!(code(&mut fifth).await, 4404);
    let (mut sixth, _) = ryggrad(&caller, &id).await;
    let (stopped, code) = tokio::join!(bridge.stop(), code(&mut sixth));
    assert_eq!((stopped, code), (Some(0), 1001));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_connection_begins_behind_all_that_the_older_one_has_said() {
    let scenario = Scenario::start().await;
    let _bridge = scenario.bridge(&[]);
    let caller = scenario.subscriber(ORGANISATION).await;
    publish(&mut Events::start(&scenario.connection()).await, 10).await;
    let id = subscribe(&caller, "websocket", "beginning").await;
    let (mut older, hello) = ryggrad(&caller, &id).await;
    assert_eq!(hello["acknowledged"], 0);
    for number in 1..=10 {
        older.say(json!({"type": "credit", "events": 1})).await;
        assert_eq!(next_of(&mut older, "event").await["number"], number);
        // The acknowledgement stands behind much that has to be read first.
        for _ in 0..CHATTER {
            older.0.feed(Message::Text(json!({"type": "heartbeat"}).to_string().into())).await.unwrap();
        }
        older.say(json!({"type": "ack", "through": number})).await;
        let (newer, hello) = ryggrad(&caller, &id).await;
        assert_eq!(hello["acknowledged"], number);
        assert_eq!(code(&mut older).await, 4409);
        older = newer;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_acknowledged_comes_again_after_a_kill() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    let operator = scenario.operator().await;
    let token = operator.issue_token(ORGANISATION).await;
    let caller = operator.with_token(Some(&token));
    let published = publish(&mut Events::start(&scenario.connection()).await, EVENTS).await;
    let id = subscribe(&caller, "websocket", "beginning").await;
    // By number: the same number is the same event, whichever life of the bridge sent it.
    let mut told: BTreeMap<u64, Value> = BTreeMap::new();
    let (mut acknowledged, mut kills) = (0, 0);
    while told.len() < EVENTS || acknowledged < EVENTS as u64 {
        operator.ready().await;
        let (mut socket, hello) = ryggrad(&caller, &id).await;
        let taken = hello["acknowledged"].as_u64().unwrap();
        assert!(taken >= acknowledged, "acknowledged up to {acknowledged}, and now up to {taken}");
        socket.say(json!({"type": "credit", "events": 60})).await;
        let mut next = taken + 1;
        let until = (taken + 60).min(EVENTS as u64);
        while next <= until {
            let event = next_of(&mut socket, "event").await;
            assert_eq!(event["number"], json!(next));
            let before = told.insert(next, json!({"event": event["event"], "number": next}));
            assert!(before.is_none_or(|before| before["event"]["id"] == event["event"]["id"]), "{next} is another event now");
            next += 1;
        }
        // Half of them, and then the end without a word.
        let half = if until == EVENTS as u64 { until } else { taken + 30 };
        socket.say(json!({"type": "ack", "through": half})).await;
        acknowledged = next_of(&mut socket, "acknowledged").await["through"].as_u64().unwrap();
        assert_eq!(acknowledged, half);
        bridge.kill();
        kills += 1;
        bridge = scenario.bridge(&[]);
    }
    check(&told.into_values().collect::<Vec<_>>(), &published, 1);
    println!("{EVENTS} events through {kills} kills");
    operator.ready().await;
    wait::until("nothing is pending", 10, || async {
        let status = caller.status(&id).await?;
        (status["pending"] == 0).then_some(())
    })
    .await;
}
