//! Every published version of a schema can read every other, fully. Old events stay readable for
//! new readers, and new ones for readers that were never updated.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use apache_avro::Schema;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use ryggrad_schemas::manifest;
use serde_json::{Value, json};

/// Every (reader, writer) pair that does not fit, with what the library says.
fn misfits(versions: &[(u32, &str)]) -> Vec<String> {
    let parsed: Vec<(u32, Schema)> = versions.iter().map(|(version, text)| (*version, Schema::parse_str(text).unwrap())).collect();
    let pairs = parsed.iter().flat_map(|reader| parsed.iter().map(move |writer| (reader, writer)));
    pairs
        .filter_map(|((reads, reader), (wrote, writer))| match SchemaCompatibility::can_read(writer, reader) {
            Ok(Compatibility::Full) => None,
            other => Some(format!("v{reads} cannot fully read what v{wrote} writes: {other:?}")),
        })
        .collect()
}

#[test]
fn every_published_version_reads_every_other() {
    let mut schemas: Vec<&str> = manifest::all().iter().map(|entry| entry.schema.as_str()).collect();
    schemas.dedup();
    for schema in schemas {
        let versions: Vec<(u32, &str)> =
            manifest::all().iter().filter(|entry| entry.schema == schema).map(|entry| (entry.version, entry.text)).collect();
        assert_eq!(misfits(&versions), Vec::<String>::new(), "{schema}");
    }
}

#[test]
fn the_rule_takes_a_field_with_a_default_and_refuses_what_breaks_readers() {
    let published = manifest::latest("virksomhet").unwrap().text;
    let evolved = |change: fn(&mut Value)| {
        let mut schema: Value = serde_json::from_str(published).unwrap();
        change(&mut schema);
        misfits(&[(1, published), (2, &schema.to_string())])
    };
    let add = |schema: &mut Value, field: Value| schema["fields"].as_array_mut().unwrap().push(field);
    assert_eq!(
        evolved(|schema| schema["fields"].as_array_mut().unwrap().push(json!({"name": "nytt", "type": "string", "default": ""}))),
        [""; 0]
    );
    let mut without_default: Value = serde_json::from_str(published).unwrap();
    add(&mut without_default, json!({"name": "nytt", "type": "string"}));
    assert_eq!(misfits(&[(1, published), (2, &without_default.to_string())]).len(), 1, "a new field without a default");
    assert_eq!(evolved(|schema| schema["fields"][0]["type"] = json!("long")).len(), 2, "another type");
    assert_eq!(evolved(|schema| schema["name"] = json!("Annet")).len(), 2, "another name");
}
