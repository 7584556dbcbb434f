//! What is disclosed is recorded before: on every channel, through SIGKILL, once for each delivery and again only when
//! its terms change; the records are a chain that shows tampering, and who looks at them is among them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::{BTreeMap, BTreeSet};

use rand::Rng;
use ryggrad_bridge_core::disclosure::{Entry, How, Link};
use ryggrad_log::Appender;
use ryggrad_log::bench::delete_topics;
use ryggrad_schemas::EncodedRecord;
use ryggrad_tests::channels::{Client, Mood, Way};
use ryggrad_tests::disclosed::Disclosed;
use ryggrad_tests::process::command;
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{OPERATOR_TOKEN, Scenario};
use ryggrad_tests::trial::{CONTROLLER, LAW, Measurement, PATIENTS, Parties, RECEIVER, STRANGER, TYPE, make, patient};
use ryggrad_tests::{random, wait};
use serde_json::{Value, json};

const MEASUREMENTS: usize = 240;
const KILLS: usize = 4;
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// One measurement; tells its event's id.
async fn measure(appender: &Appender, number: usize) -> String {
    Measurement { patient: &patient(number % PATIENTS), id: &format!("m-{number}"), controller: CONTROLLER }.publish(appender).await
}

fn ryggrad(scenario: &Scenario, token: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let url = scenario.bridge_url();
    command(&scenario.data(), &[arguments, &["--bridge", &url, "--token", token]].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_out_without_its_intent_though_the_bridge_is_killed() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&["--trial"]);
    let Parties { operator, controller, receiver, .. } = Parties::meet(&scenario).await;
    let mut clients = Vec::new();
    for way in Way::ALL {
        clients.push(Client::subscribe(&receiver, way, &json!({"types": [TYPE]}), Mood::Takes).await);
    }
    // Whoever has not been granted anything subscribes as well, and gets nothing.
    let stranger = scenario.subscriber(STRANGER).await;
    let idle = Client::subscribe(&stranger, Way::Pull, &json!({"types": [TYPE]}), Mood::Takes).await;

    let appender = Appender::new(&scenario.connection(), 10_000).unwrap();
    let publishing = tokio::spawn(async move {
        let mut ids = BTreeSet::new();
        for number in 0..MEASUREMENTS {
            ids.insert(measure(&appender, number).await);
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        ids
    });
    let mut random = random::seeded("disclosures");
    for _ in 0..KILLS {
        wait::random_moment(random.random_range(200..1_200)).await;
        bridge.kill();
        bridge = scenario.bridge(&["--trial"]);
        operator.ready().await;
    }
    let published = publishing.await.unwrap();
    for client in &clients {
        client.has_taken(MEASUREMENTS).await;
        client.settles().await;
    }
    assert_eq!(idle.arrivals().len(), 0);

    let disclosed = Disclosed::read(&scenario.connection(), CONTROLLER).await;
    let mut written: BTreeMap<(String, &str), Vec<i64>> = BTreeMap::new();
    for (at_ms, _, intent) in &disclosed.intents {
        assert_eq!((intent.receiver.to_string().as_str(), intent.view.as_str()), (RECEIVER, "full"));
        assert_eq!(intent.basis.as_deref(), Some(LAW));
        written.entry((intent.subscription.to_string(), &intent.event)).or_default().push(*at_ms);
    }
    let mut seen = 0;
    for client in &clients {
        let arrivals = client.arrivals();
        assert_eq!(arrivals.iter().map(|arrival| arrival.id().to_owned()).collect::<BTreeSet<_>>(), published, "{:?}", client.way);
        for arrival in arrivals {
            let of_delivery = written.get(&(client.id.clone(), arrival.id())).unwrap_or_else(|| panic!("{:?}: no intent", client.way));
            assert!(of_delivery[0] <= arrival.at_ms, "{:?}: received at {}, intended at {}", client.way, arrival.at_ms, of_delivery[0]);
            seen += 1;
        }
    }
    println!("{seen} arrivals, {} intents in {} records, {KILLS} kills", disclosed.intents.len(), disclosed.links.len());
    // Once for each delivery, however often it was repeated. One that was taken and is shown again is another.
    let (delivered, mut open) = (disclosed.delivered(), BTreeSet::new());
    for (_, number, intent) in &disclosed.intents {
        assert!(delivered.contains(number) || open.insert(&intent.delivery), "two intents are open for {}", intent.delivery);
    }
    // Nobody is named but by what means nothing elsewhere.
    let text: String = disclosed.links.iter().map(|link| serde_json::to_string(link).unwrap()).collect();
    assert!(!text.contains("pseudonym-") && !text.contains("puls"), "a record names a patient, or holds what was measured");

    // The records are whole, and say so; who looks is among them.
    let (code, out, errors) = ryggrad(&scenario, controller.token(), &["disclosures", "verify"]);
    assert_eq!(code, Some(0), "{out}{errors}");
    let file = scenario.data().join("patient.txt");
    std::fs::write(&file, patient(3)).unwrap();
    let (code, out, errors) = ryggrad(&scenario, controller.token(), &["disclosures", "by-patient", "patient.txt", "-o", "ndjson"]);
    let found: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_patient = MEASUREMENTS / PATIENTS * clients.len();
    assert!(code == Some(0) && found.len() >= of_patient && found.len() < 2 * of_patient, "{code:?}, {} found: {errors}", found.len());
    assert_eq!(found.iter().map(|one| one["intent"]["person"].as_str().unwrap()).collect::<BTreeSet<_>>().len(), 1);
    let (code, out, _) = ryggrad(&scenario, controller.token(), &["disclosures", "export", "--format", "fhir-auditevent"]);
    assert_eq!((code, out.lines().count()), (Some(0), disclosed.intents.len()));
    assert!(out.lines().all(|line| serde_json::from_str::<Value>(line).unwrap()["resourceType"] == "AuditEvent"));

    // Each controller its own; an operator with a purpose.
    for (caller, body, status) in [
        (&receiver, json!({}), 403),
        (&controller, json!({"controller": RECEIVER}), 403),
        (&operator, json!({}), 422),
        (&operator, json!({"controller": CONTROLLER}), 422),
        (&operator, json!({"controller": STRANGER, "purpose": "tilsyn"}), 404),
        (&operator, json!({"controller": CONTROLLER, "purpose": "tilsyn"}), 200),
    ] {
        let (said, answer) = caller.post("/v1/disclosures/verify", body.clone()).await;
        assert_eq!(said, status, "{body}: {answer}");
    }
    let links = Disclosed::read(&scenario.connection(), CONTROLLER).await.links;
    let looks: Vec<String> = links
        .iter()
        .filter_map(|link| if let Entry::Reading(reading) = &link.entry { Some(reading) } else { None })
        .map(|reading| format!("{} by {}", reading.asked, reading.by.map_or("operator".to_owned(), |by| by.to_string())))
        .collect();
    let own = |asked| format!("{asked} by {CONTROLLER}");
    assert_eq!(looks[..3], [own("verify"), own("by-patient"), own("export")]);
    assert_eq!(looks.last().unwrap(), "verify by operator");

    // Page by page, wherever a page ends within a record.
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let mut look = json!({"limit": 97});
        if let Some(after) = after.take() {
            look["after"] = after;
        }
        let (status, page) = controller.post("/v1/disclosures/search", look).await;
        assert_eq!(status, 200, "{page}");
        paged.extend(page["disclosures"].as_array().unwrap().iter().map(|one| one["number"].as_u64().unwrap()));
        match &page["next"] {
            Value::Null => break,
            next => after = Some(next.clone()),
        }
    }
    assert_eq!(paged, disclosed.intents.iter().map(|(_, number, _)| *number).collect::<Vec<_>>());

    // Somebody who can write to the topic adds a record.
    let last = Disclosed::read(&scenario.connection(), CONTROLLER).await.links.pop().unwrap();
    let forged = Link { number: last.number + 1, ..last };
    let forged = EncodedRecord {
        topic: format!("ryggrad.disclosures.{CONTROLLER}"),
        partition: Some(0),
        key: forged.number.to_string(),
        value: Some(serde_json::to_vec(&forged).unwrap()),
        headers: [("content-type", "application/json")].into_iter().collect(),
    };
    Appender::new(&scenario.connection(), 10_000).unwrap().append(&forged).await.unwrap();
    let (code, out, errors) = ryggrad(&scenario, controller.token(), &["disclosures", "verify"]);
    assert_eq!(code, Some(5), "{out}{errors}");
    assert!(errors.contains("fault: record"), "{errors}");
    bridge.stop().await;

    // Somebody who can delete the topic does: the bridge knows that there were records.
    delete_topics(&scenario.connection(), &[format!("ryggrad.disclosures.{CONTROLLER}")]).await.unwrap();
    let mut bridge = scenario.bridge(&["--trial"]);
    operator.ready().await;
    let (code, out, errors) = ryggrad(&scenario, controller.token(), &["disclosures", "verify"]);
    assert_eq!(code, Some(5), "{out}{errors}");
    assert!(errors.contains("its beginning was cut off"), "{errors}");
    bridge.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrower_view_is_another_disclosure_and_shows_no_data() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&["--trial"]);
    let Parties { controller, receiver, grant, .. } = Parties::meet(&scenario).await;
    let endpoint = Receiver::scripted(|_| (500, Vec::new())).await;
    endpoint.trust(SECRET);
    let wish = json!({"types": [TYPE], "sink": endpoint.sink(), "secret": SECRET, "verify": "none"});
    let subscription = make(&receiver, "subscriptions", wish).await;
    let appender = Appender::new(&scenario.connection(), 10_000).unwrap();
    let event = measure(&appender, 0).await;
    wait::until("it has failed twice", 20, || async { (endpoint.count() >= 2).then_some(()) }).await;
    make(&controller, "grants", json!({"receiver": RECEIVER, "types": [TYPE], "view": "varsel"})).await;
    assert_eq!(controller.delete(&format!("/v1/grants/{grant}")).await.0, 204);
    endpoint.answer_with(|_| (204, Vec::new()));
    wait::until("it is taken", 30, || async { endpoint.taken().contains(&event).then_some(()) }).await;

    let received = endpoint.received();
    let (last, before) = received.split_last().unwrap();
    assert!(before.iter().all(|attempt| attempt.event["data"]["enhet"] == "/min"), "{before:?}");
    assert!(last.event.get("data").is_none() && last.event["subject"] == patient(0), "{last:?}");
    let disclosed = wait::until("the outcome is recorded", 10, || async {
        let disclosed = Disclosed::read(&scenario.connection(), CONTROLLER).await;
        (!disclosed.delivered().is_empty()).then_some(disclosed)
    })
    .await;
    let [(_, full, first), (_, varsel, second)] = &disclosed.intents[..] else { panic!("{:?}", disclosed.intents) };
    assert_eq!([first.view.as_str(), second.view.as_str()], ["full", "varsel"]);
    assert!([first, second].iter().all(|intent| intent.subscription.to_string() == subscription && intent.delivery == last.id));
    let outcomes: Vec<(u64, How, Option<u16>)> = disclosed.outcomes.iter().map(|told| (told.intent, told.how, told.status)).collect();
    assert_eq!(outcomes.first(), Some(&(*full, How::Failed, Some(500))));
    assert_eq!(outcomes.last(), Some(&(*varsel, How::Delivered, Some(204))));
    let (code, out, errors) =
        ryggrad(&scenario, OPERATOR_TOKEN, &["disclosures", "verify", "--controller", CONTROLLER, "--purpose", "test"]);
    assert_eq!(code, Some(0), "{out}{errors}");
    bridge.stop().await;
}
