//! What others use, unaltered, against a running Ryggrad: Confluent's Python client with the
//! embedded schema registry, and the reference library of Standard Webhooks.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use ryggrad_schemas::virksomhet::VirksomhetEndret;
use ryggrad_schemas::{avro, manifest};
use ryggrad_tests::foreign::python;
use ryggrad_tests::oracle::{difference, published_equals_upstream};
use ryggrad_tests::receiver::Receiver;
use ryggrad_tests::scenario::{ORGANISATION, Scenario};
use ryggrad_tests::topic::{VIRKSOMHET, read_all};
use ryggrad_tests::wait;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_consumer_reads_every_field_of_every_event() {
    let scenario = Scenario::start().await;
    let upstream = scenario
        .upstream(&["--units", "60", "--changes-per-second", "0", "--deletions", "0.1", "--removals", "0.05", "--duplicates", "0.2"])
        .await;
    upstream.change(300).await;
    let mut producer = scenario.producer(&upstream, &[]);
    let mut bridge = scenario.bridge(&[]);
    scenario.operator().await;
    published_equals_upstream(&scenario.connection(), &upstream).await.assert_good();

    let (broker, registry) = (scenario.broker.address(), format!("{}/schema-registry", scenario.bridge_url()));
    let ours = read_all(&scenario.connection(), VIRKSOMHET).await;
    for latest in [&[][..], &["latest"]] {
        let arguments = [&["read", &broker, &registry, VIRKSOMHET], latest].concat();
        let mut theirs = python("read_topic.py", &arguments, String::new()).await;
        theirs.sort_by_key(|record| (record["partition"].as_i64(), record["offset"].as_i64()));
        assert_eq!(theirs.len(), ours.len(), "{latest:?}: records");
        for (theirs, ours) in theirs.iter().zip(&ours) {
            let value = ours.value.as_ref().map(|value| avro::decode::<VirksomhetEndret>(value).expect("an event"));
            let expected = json!({
                "key": ours.key, "partition": ours.partition, "offset": ours.offset, "headers": ours.headers.iter().collect::<Vec<_>>(),
                "value": serde_json::to_value(value).unwrap(),
            });
            assert_eq!(theirs, &expected, "{latest:?}: {}", difference(&expected, theirs, ""));
        }
        let tombstones = theirs.iter().filter(|record| record["value"].is_null()).count();
        let expected = ours.iter().filter(|record| record.value.is_none()).count();
        assert_eq!(tombstones, expected, "{latest:?}: tombstones");
        assert!(tombstones > 5 && theirs.len() > 300, "{latest:?}: {} records with {tombstones} tombstones show little", theirs.len());
        println!("{latest:?}: {} records, {tombstones} tombstones", theirs.len());
    }
    assert_eq!((bridge.stop().await, producer.stop().await), (Some(0), Some(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_serializer_finds_what_is_published_and_registers_nothing() {
    let scenario = Scenario::start().await;
    let mut bridge = scenario.bridge(&[]);
    scenario.operator().await;
    let registry = format!("{}/schema-registry", scenario.bridge_url());
    let published = manifest::latest("virksomhet").expect("a schema");

    // Written otherwise, it is the same schema.
    let rewritten: Value = serde_json::from_str(published.text).unwrap();
    let mut widened = rewritten.clone();
    let field = json!({"name": "heltNytt", "type": ["null", "string"], "default": null});
    widened["fields"].as_array_mut().unwrap().push(field);
    let id = json!({"id": published.id, "magic": 0});
    for (what, topic, schema, expected) in [
        ("the schema as it is published", VIRKSOMHET, published.text.to_owned(), id.clone()),
        ("the schema in one line", VIRKSOMHET, rewritten.to_string(), id),
        ("a schema with a field more", VIRKSOMHET, widened.to_string(), json!({"refused": 422, "code": 42205})),
        ("a subject that nobody publishes", "somebody.elses.v1", published.text.to_owned(), json!({"refused": 404, "code": 40401})),
    ] {
        let said = python("read_topic.py", &["register", &registry, topic], schema).await;
        println!("{what}: {said:?}");
        assert_eq!(said, [expected], "{what}");
    }
    assert_eq!(bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_library_verifies_our_webhooks_and_refuses_altered_ones() {
    let scenario = Scenario::start().await;
    let upstream = scenario.upstream(&["--units", "20", "--changes-per-second", "0"]).await;
    let mut producer = scenario.producer(&upstream, &[]);
    let mut bridge = scenario.bridge(&[]);
    let subscriber = scenario.subscriber(ORGANISATION).await;
    let receiver = Receiver::start().await;
    let (_, secret) = subscriber.subscribe(&receiver.sink(), "beginning").await;
    wait::until("deliveries", 30, || async { (receiver.count() >= 20).then_some(()) }).await;
    let received = receiver.received();

    let text = |body: &[u8]| String::from_utf8(body.to_vec()).unwrap();
    let line = |secret: &str, headers: &Value, body: &str| json!({"secret": secret, "headers": headers, "body": body});
    let mut lines = Vec::new();
    let mut expected = Vec::new();
    for delivery in &received {
        lines.push(line(&secret, &json!(delivery.headers), &text(&delivery.body)));
        expected.push(json!({"ok": true, "id": delivery.event["id"]}));
    }
    // One delivery, altered in one way at a time.
    let delivery = &received[0];
    let (headers, body) = (json!(delivery.headers), text(&delivery.body));
    let with = |name: &str, value: &str| {
        let mut headers = headers.clone();
        headers[name] = json!(value);
        headers
    };
    let later = delivery.headers["webhook-timestamp"].parse::<u64>().unwrap() + 1;
    let altered = [
        line(&secret, &headers, &body.replacen("\"organisasjonsnummer\"", "\"Organisasjonsnummer\"", 1)),
        line(&secret, &headers, &format!("{body} ")),
        line(&secret, &with("webhook-id", "another"), &body),
        line(&secret, &with("webhook-timestamp", &later.to_string()), &body),
        line(&secret, &json!(received[1].headers), &body),
        line("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", &headers, &body),
    ];
    let altered_count = altered.len();
    lines.extend(altered);
    let input = lines.iter().map(|line| format!("{line}\n")).collect();
    let said = python("verify_webhook.py", &[], input).await;
    assert_eq!(said.len(), lines.len());
    assert_eq!(said[..received.len()], expected);
    for (said, line) in said.iter().zip(&lines).skip(received.len()) {
        assert_eq!(said, &json!({"ok": false, "said": "No matching signature found"}), "{line}");
    }
    println!("{} verified, {altered_count} altered ones refused", received.len());
    assert_eq!((bridge.stop().await, producer.stop().await), (Some(0), Some(0)));
}
