//! The catalogue as AsyncAPI 3: which topics there are, and what a record in them is.
//!
//! Only what others may read: topics that carry an event type. The payload is the committed Avro schema itself.

use serde_json::{Map, Value, json};

use crate::catalogue::{Catalogue, EventType, Topic};
use crate::cloudevents::AVRO;
use crate::manifest;

/// Avro schemas in their own words. 1.9.0 is the specification that AsyncAPI refers to.
const AVRO_SCHEMA_FORMAT: &str = "application/vnd.apache.avro+json;version=1.9.0";

/// The whole document; `version` is the product's.
pub fn document(catalogue: &Catalogue, version: &str) -> Value {
    let (mut channels, mut operations, mut messages) = (Map::new(), Map::new(), Map::new());
    for topic in &catalogue.topics {
        let events: Vec<&EventType> = catalogue.events.iter().filter(|event| event.topic == topic.name).collect();
        if events.is_empty() {
            continue;
        }
        let mut carried = Map::new();
        for event in &events {
            messages.insert(event.ce_type.clone(), message(event));
            carried.insert(event.ce_type.clone(), json!({"$ref": format!("#/components/messages/{}", event.ce_type)}));
        }
        carried.insert("tombstone".to_owned(), json!({"$ref": "#/components/messages/tombstone"}));
        channels.insert(topic.name.clone(), channel(topic, carried));
        let channel = json!({"$ref": format!("#/channels/{}", topic.name)});
        operations.insert(format!("read-{}", topic.name), json!({"action": "receive", "summary": "Read the topic.", "channel": channel}));
    }
    messages.insert(
        "tombstone".to_owned(),
        json!({
            "name": "tombstone", "title": "A key that is no more", "summary": "Follows the event that says so, with the same ce_id; Kafka then forgets the key.",
            "headers": {"type": "object", "properties": {"ce_id": {"type": "string"}}}, "payload": {"type": "null"},
        }),
    );
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Ryggrad topics", "version": version,
            "description": "Changes in Norwegian health registries as CloudEvents in Kafka's binary mode: attributes are headers, the value is \
                Avro in Confluent's frame (a zero byte, four bytes of schema id, the datum).",
            "license": {"name": "EUPL-1.2"},
        },
        "defaultContentType": AVRO,
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages},
    })
}

fn channel(topic: &Topic, messages: Map<String, Value>) -> Value {
    let mut settings = Map::new();
    for (name, value) in topic.kafka_config() {
        let value = match value.parse::<u64>() {
            Ok(number) => json!(number),
            Err(_) if name == "cleanup.policy" => json!([value]),
            Err(_) => continue,
        };
        // The binding knows these; other settings it lets nobody name.
        if ["cleanup.policy", "retention.ms", "delete.retention.ms"].contains(&name) {
            settings.insert(name.to_owned(), value);
        }
    }
    json!({
        "address": topic.name, "description": topic.purpose, "messages": messages,
        "bindings": {"kafka": {"topic": topic.name, "partitions": topic.partitions, "topicConfiguration": settings, "bindingVersion": "0.5.0"}},
    })
}

fn message(event: &EventType) -> Value {
    let text = |about: &str| json!({"type": "string", "description": about});
    let mut headers = json!({
        "ce_specversion": {"const": "1.0"},
        "ce_id": text("The same for the same change, however often it is published."),
        "ce_source": text("The feed that the change was read from."),
        "ce_type": {"const": event.ce_type},
        "ce_subject": text(&format!("The key: {}.", event.key)),
        "ce_time": {"type": "string", "format": "date-time", "description": "When whoever the data comes from says that it happened."},
        "content-type": {"const": AVRO},
    });
    for attribute in &event.attributes {
        headers[format!("ce_{attribute}")] = text("Only where it applies; filters may use it.");
    }
    let mut required = vec!["ce_specversion", "ce_id", "ce_source", "ce_type", "content-type"];
    let mut about = format!("Owner of the data: {}. Class: {}.", event.owner, event.class.name());
    if event.is_protected() {
        headers["ce_controller"] = text("Organisation number of whose data it is.");
        required.extend(["ce_subject", "ce_time", "ce_controller"]);
        about.push_str(&format!(" Protected: it takes a grant. Views, the narrowest first: {}.", event.views.join(", ")));
    }
    if event.is_for_trials() {
        about.push_str(" Synthetic, in trial installations only.");
    }
    let newest = manifest::latest(&event.schema);
    let schema: Value = newest.and_then(|newest| serde_json::from_str(newest.text).ok()).unwrap_or_default();
    json!({
        "name": event.ce_type, "title": event.ce_type, "contentType": AVRO,
        "description": about,
        "headers": {
            "type": "object", "properties": headers,
            "required": required,
        },
        "payload": {"schemaFormat": AVRO_SCHEMA_FORMAT, "schema": schema},
        "bindings": {"kafka": {
            "key": {"type": "string", "description": event.key}, "schemaIdLocation": "payload", "schemaIdPayloadEncoding": "confluent",
            "schemaLookupStrategy": "TopicNameStrategy", "bindingVersion": "0.5.0",
        }},
    })
}
