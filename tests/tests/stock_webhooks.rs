//! Our webhooks in every format against stock libraries, in Python and in JavaScript: Standard
//! Webhooks verifies what came over the wire, CloudEvents parses it, and it says what was published.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::collections::BTreeMap;

use axum::body::Bytes;
use ryggrad_bridge::channel::webhook::{Desk, Message, Target, TargetOptions, Webhook, WebhookOptions};
use ryggrad_bridge_core::asymmetric::SigningKey;
use ryggrad_bridge_core::delivery::{
    self, BATCH_JSON, MessageId, Numbered, Payload, batch_id, delivery_id, render, render_binary, void_notice,
};
use ryggrad_bridge_core::egress::EgressPolicy;
use ryggrad_bridge_core::outcome::Answer;
use ryggrad_schemas::cloudevents::{AVRO, Attributes, STRUCTURED_JSON};
use ryggrad_schemas::virksomhet::{Endringstype, Virksomhet, VirksomhetEndret};
use ryggrad_schemas::{LogRecord, avro};
use ryggrad_tests::foreign::{node, python};
use ryggrad_tests::wire::{Asked, Reply, Wire};
use serde_json::{Value, json};
use uuid::Uuid;

const NEW: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const OLD: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const STRANGE: &str = "whsec_c3RyYW5nZSBzdHJhbmdlIHN0cmFuZ2Ugc3RyYW5nZSE=";

/// Documents as a registry writes them, with what is hard to carry.
const DOCUMENTS: [&str; 4] = [
    r#"{"navn":"SYKEHUSET \"ÆØÅ\" 🏥 AS","antallAnsatte":12249,"konkurs":false,"_links":{"self":{"href":"https://example.org/1"}}}"#,
    r#"{"navn":"A\\B\u0001\n\u2028","kapital":{"belop":30000.5,"antallAksjer":100,"type":"Aksjekapital"},"nytt":[1,null,{"x":true}]}"#,
    r#"{"organisasjonsform":{"kode":"AS","_links":{}},"aktivitet":["<script>","%41"],"hjemmeside":null}"#,
    r#"{}"#,
];

fn record(offset: usize) -> LogRecord {
    let state = DOCUMENTS.get(offset).map(|document| Virksomhet::from_json(document).unwrap().unwrap());
    let tombstone = state.is_none();
    let event = VirksomhetEndret {
        organisasjonsnummer: "312345676".to_owned(),
        endringstype: Endringstype::Endret,
        endringer: vec!["/navn".to_owned()],
        virksomhet: state,
        ..VirksomhetEndret::default()
    };
    let extensions = [("endringstype", "ENDRET"), ("kommunenummer", "0301")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let attributes = Attributes {
        id: Uuid::from_u128(offset as u128).to_string(),
        source: "urn:ryggrad:enhetsregisteret:enheter".to_owned(),
        ce_type: "no.ryggrad.grunndata.virksomhet.endret.v1".to_owned(),
        subject: Some("312345676".to_owned()),
        time: Some("2026-01-02T03:04:05Z".to_owned()),
        extensions: extensions.into(),
    };
    let value = (!tombstone).then(|| avro::encode(&event).unwrap());
    let (topic, offset) = ("grunndata.virksomhet.v1".to_owned(), offset as i64);
    LogRecord { topic, partition: 0, offset, timestamp_ms: 0, key: None, value, headers: attributes.to_headers(AVRO) }
}

fn numbered(index: usize) -> Numbered {
    Numbered { epoch: 2, number: index as u64 + 1, replay: None }
}

/// What a parser should say of a record. Attributes as texts; `time` is left to each library's taste.
fn expected(record: &LogRecord, numbered: Numbered) -> Value {
    let attributes = Attributes::from_record(record).unwrap();
    let mut shown = json!({
        "specversion": "1.0", "id": attributes.id, "source": attributes.source, "type": attributes.ce_type, "subject": attributes.subject,
        "endringstype": "ENDRET", "kommunenummer": "0301",
        "deliveryepoch": numbered.epoch.to_string(), "deliverynumber": numbered.number.to_string(),
    });
    let data = record.value.as_deref().map(|value| avro::decode_to_json(value).unwrap());
    if data.is_some() {
        shown["datacontenttype"] = json!("application/json");
    }
    json!({"attributes": shown, "data": data})
}

async fn send(channel: &Webhook, target: &Target, id: MessageId, payload: Payload) {
    let Payload { content_type, headers, body } = payload;
    let message = Message { id: id.as_str(), content_type, headers: &headers, body: &body };
    let attempt = channel.attempt(&mut Desk::default(), target, message).await;
    assert_eq!(attempt.answer, Answer::Status { code: 204, retry_after_ms: None });
}

fn plain(content_type: &'static str, body: Vec<u8>) -> Payload {
    Payload { content_type, headers: Vec::new(), body: Bytes::from(body) }
}

fn headers(asked: &Asked) -> BTreeMap<&str, &str> {
    asked.head.lines().filter_map(|line| line.split_once(": ")).collect()
}

fn line(secret: &str, headers: &BTreeMap<&str, &str>, body: &[u8]) -> String {
    format!("{}\n", json!({"secret": secret, "headers": headers, "body": std::str::from_utf8(body).unwrap()}))
}

/// What the library made of it, as far as the libraries agree on how to show it.
fn plainly(mut said: Value) -> Value {
    for event in said["events"].as_array_mut().into_iter().flatten() {
        let time = event["attributes"].as_object_mut().and_then(|attributes| attributes.remove("time"));
        // Where there is none, one library makes one up.
        if event["attributes"]["type"] != delivery::VOID_TYPE {
            assert!(time.as_ref().and_then(Value::as_str).is_some_and(|time| time.starts_with("2026-01-02T03:04:05")), "{event}: {time:?}");
        }
        // One library leaves absent data out, another shows it as null.
        event["data"] = event["data"].take();
        if event["data"].is_null() {
            event["attributes"].as_object_mut().unwrap().remove("datacontenttype");
        }
    }
    said
}

#[tokio::test]
async fn stock_libraries_verify_and_parse_every_format() {
    let wire = Wire::start(|_, _| Reply::Say("HTTP/1.1 204 x\r\n\r\n".to_owned())).await;
    let policy = EgressPolicy { development: true, ..EgressPolicy::default() };
    let key = SigningKey::from_seed(&[9; 32]).unwrap();
    let channel =
        Webhook::new(WebhookOptions { policy, signing_keys: Some(std::sync::Arc::new(key.into())), ..WebhookOptions::default() }).unwrap();
    let (subscription, sink) = (Uuid::from_u128(7), wire.sink());
    let one =
        channel.target(TargetOptions { sink: sink.clone(), secrets: vec![OLD.parse().unwrap()], ..TargetOptions::default() }).unwrap();
    // While one secret takes over from another, and with the bridge's own key: three signatures.
    let secrets = vec![NEW.parse().unwrap(), OLD.parse().unwrap()];
    let many = channel.target(TargetOptions { sink, secrets, ..TargetOptions::default() }).unwrap().and_asymmetric();

    let records: Vec<LogRecord> = (0..=DOCUMENTS.len()).map(record).collect();
    let ids: Vec<MessageId> = records.iter().map(|record| delivery_id(subscription, &record.topic, 0, record.offset, 0)).collect();
    let mut wanted = Vec::new();
    for (index, record) in records.iter().enumerate() {
        let (number, rendered) = (numbered(index), render(record).unwrap());
        send(&channel, &one, ids[index], plain(STRUCTURED_JSON, delivery::structured(&rendered, &number))).await;
        send(&channel, &many, ids[index], delivery::binary(&render_binary(record).unwrap(), &number)).await;
        wanted.extend([vec![expected(record, number)], vec![expected(record, number)]]);
    }
    let rendered: Vec<_> = records.iter().map(|record| render(record).unwrap()).collect();
    let last = numbered(records.len());
    let notice = void_notice(subscription, &last);
    let all = rendered.iter().enumerate().map(|(index, rendered)| (rendered, numbered(index))).chain([(&notice, last)]);
    send(&channel, &many, batch_id(ids.iter().copied()), plain(BATCH_JSON, delivery::batch(all))).await;
    let mut batch: Vec<Value> = records.iter().enumerate().map(|(index, record)| expected(record, numbered(index))).collect();
    let void: Value = serde_json::from_slice(&delivery::structured(&notice, &last)).unwrap();
    batch.push(json!({"attributes": void, "data": null}));
    wanted.push(batch);

    let asked = wire.asked();
    assert_eq!(asked.len(), wanted.len());
    let mut input = String::new();
    for asked in &asked {
        let headers = headers(asked);
        input.push_str(&line(OLD, &headers, &asked.body));
        if headers["webhook-signature"].contains(' ') {
            assert_eq!(
                headers["webhook-signature"].split(' ').map(|entry| entry.split(',').next().unwrap()).collect::<Vec<_>>(),
                ["v1", "v1", "v1a"]
            );
            input.push_str(&line(NEW, &headers, &asked.body));
        }
    }
    let verified = input.lines().count();
    // Altered in one way at a time, nothing verifies.
    for asked in [&asked[0], &asked[1], asked.last().unwrap()] {
        let (headers, mut longer) = (headers(asked), asked.body.clone());
        longer.push(b' ');
        input.push_str(&line(STRANGE, &headers, &asked.body));
        input.push_str(&line(OLD, &headers, &longer));
        let mut other = headers.clone();
        other.insert("webhook-id", "msg_other");
        input.push_str(&line(OLD, &other, &asked.body));
    }
    let total = input.lines().count();
    for (library, said) in [
        ("Python", python("receive_webhook.py", &[], input.clone()).await),
        ("JavaScript", node("receive_webhook.cjs", &[], input.clone()).await),
    ] {
        assert_eq!(said.len(), total, "{library}");
        let mut answers = said.into_iter();
        for (asked, wanted) in asked.iter().zip(&wanted) {
            let times = if headers(asked)["webhook-signature"].contains(' ') { 2 } else { 1 };
            for said in answers.by_ref().take(times) {
                assert_eq!(plainly(said), json!({"ok": true, "events": wanted}), "{library}: {}", asked.head);
            }
        }
        for said in answers {
            assert_eq!((&said["ok"], &said["said"]), (&json!(false), &json!("No matching signature found")), "{library}");
        }
        println!("{library}: {verified} verified and parsed, {} altered ones refused", total - verified);
    }
}
