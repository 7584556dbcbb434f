//! Makes the Rust types from the Avro schemas and compares them with what is committed.
//!
//! The `.avsc` files are the one truth. `RYGGRAD_BLESS=1 cargo test -p ryggrad-schemas` writes
//! the files anew; without it a difference fails. It understands the Avro that our schemas use
//! and panics on anything else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

use std::fmt::Write;
use std::path::Path;

use ryggrad_schemas::manifest;
use serde_json::Value;

#[test]
fn the_committed_types_are_those_of_the_newest_schemas() {
    let mut schemas: Vec<&str> = manifest::all().iter().map(|entry| entry.schema.as_str()).collect();
    schemas.sort_unstable();
    schemas.dedup();
    let mut index = String::from("//! Types made from the newest version of each schema by `tests/generated.rs`. Do not edit.\n\n");
    for schema in &schemas {
        writeln!(index, "pub mod {schema};").unwrap();
    }
    compare("mod.rs", &index);
    for schema in schemas {
        let newest = manifest::latest(schema).unwrap();
        compare(&format!("{schema}.rs"), &generate(schema, &serde_json::from_str(newest.text).unwrap()));
    }
}

fn compare(file: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/generated").join(file);
    if std::env::var_os("RYGGRAD_BLESS").is_some() {
        std::fs::write(&path, expected).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{} is not what the schema says; run with RYGGRAD_BLESS=1", path.display());
}

fn generate(schema: &str, top: &Value) -> String {
    let mut types = String::new();
    record(top, false, &mut types);
    // What holds no registry's document needs less.
    let imports = if types.contains("FromDocument") {
        "use std::collections::BTreeMap;\n\n\
         use serde::{Deserialize, Serialize};\n\
         use serde_json::{Error, Map, Value};\n\n\
         use crate::avro::{WriteAvro, write_long};\n\
         use crate::document::{self, At, Decimal, FromDocument, Left, ToDocument};\n"
    } else {
        "use serde::{Deserialize, Serialize};\n\
         use serde_json::{Map, Value};\n\n\
         use crate::avro::WriteAvro;\n\
         use crate::document::{self, ToDocument};\n"
    };
    let name = text(top, "name");
    format!(
        "//! Made from `avro/{schema}` by `tests/generated.rs`. Do not edit.\n\
         #![cfg_attr(rustfmt, rustfmt_skip)]\n\
         #![allow(missing_docs, reason = \"documented in the schema\")]\n\n\
         {imports}{types}\n\
         impl crate::avro::AvroEvent for {name} {{\n    const SCHEMA: &'static str = {schema:?};\n}}\n"
    )
}

/// Writes a named type and, before it, the named types that it defines.
fn record(schema: &Value, within_document: bool, out: &mut String) {
    let name = text(schema, "name");
    let fields = schema["fields"].as_array().unwrap();
    let rest = fields.iter().find(|field| field["ryggrad.json"] == "rest").map(|field| text(field, "name"));
    let document = within_document || rest.is_some();
    for field in fields {
        define(&field["type"], document, out);
    }
    let doc = schema["doc"].as_str().unwrap();
    write!(out, "\n/// {doc}\n#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]\npub struct {name} {{\n").unwrap();
    for field in fields {
        let wire = text(field, "name");
        if let Some(doc) = field["doc"].as_str() {
            writeln!(out, "    /// {doc}").unwrap();
        }
        writeln!(out, "    #[serde(rename = {wire:?})]\n    pub {}: {},", snake(wire), rust_type(field)).unwrap();
    }
    out.push_str("}\n");

    write!(out, "\nimpl WriteAvro for {name} {{\n    fn write(&self, datum: &mut Vec<u8>) {{\n").unwrap();
    for field in fields {
        writeln!(out, "        self.{}.write(datum);", snake(text(field, "name"))).unwrap();
    }
    out.push_str("    }\n}\n");
    write!(out, "\nimpl ToDocument for {name} {{\n    fn give(&self) -> Value {{\n        let mut members = Map::new();\n").unwrap();
    for field in fields.iter().filter(|field| field["ryggrad.json"] != "rest") {
        let (wire, member) = (text(field, "name"), snake(text(field, "name")));
        if field["type"].is_array() {
            writeln!(out, "        document::give_member(&mut members, {wire:?}, &self.{member});").unwrap();
        } else {
            writeln!(out, "        members.insert({wire:?}.to_owned(), self.{member}.give());").unwrap();
        }
    }
    match rest {
        Some(rest) => write!(
            out,
            "        let mut document = Value::Object(members);\n        document::restore(&mut document, &self.{});\n        document\n    }}\n}}\n",
            snake(rest)
        ),
        None => write!(out, "        Value::Object(members)\n    }}\n}}\n"),
    }
    .unwrap();

    if !document {
        return;
    }
    write!(
        out,
        "\nimpl FromDocument for {name} {{\n    fn fits(json: &str) -> bool {{\n        document::is_object(json)\n    }}\n\
         \x20   fn take(json: &str, at: &At<'_>, left: &mut Left) -> Result<Self, Error> {{\n        let mut taken = Self::default();\n\
         \x20       document::take_members(json, at, left, |name, member| match name.as_bytes() {{\n"
    )
    .unwrap();
    // Bytes are told apart step by step, where texts would be compared one after the other.
    for field in fields.iter().filter(|field| field["ryggrad.json"] != "rest") {
        let (wire, member) = (text(field, "name"), snake(text(field, "name")));
        writeln!(out, "            b{wire:?} => member.take(&mut taken.{member}),").unwrap();
    }
    out.push_str("            _ => member.keep(),\n        })?;\n        Ok(taken)\n    }\n}\n");
    if let Some(rest) = rest {
        write!(
            out,
            "\nimpl {name} {{\n    /// Takes a registry's document whole. `None` if it is JSON, but no object.\n\
             \x20   pub fn from_json(text: &str) -> Result<Option<Self>, Error> {{\n\
             \x20       Ok(document::take_whole::<Self>(text)?.map(|(taken, rest)| Self {{ {}: rest, ..taken }}))\n    }}\n}}\n",
            snake(rest)
        )
        .unwrap();
    }
}

/// Writes the named types that a field's type defines.
fn define(schema: &Value, within_document: bool, out: &mut String) {
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| define(branch, within_document, out)),
        Value::Object(_) => match text(schema, "type") {
            "record" => record(schema, within_document, out),
            "enum" => enumeration(schema, out),
            "array" => define(&schema["items"], within_document, out),
            "map" => {}
            other => panic!("no Rust for the Avro type {other}"),
        },
        _ => {}
    }
}

fn enumeration(schema: &Value, out: &mut String) {
    let name = text(schema, "name");
    let default = text(schema, "default");
    write!(out, "\n#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]\npub enum {name} {{\n").unwrap();
    let symbols: Vec<&str> = schema["symbols"].as_array().unwrap().iter().map(|symbol| symbol.as_str().unwrap()).collect();
    for symbol in &symbols {
        if *symbol == default {
            out.push_str("    #[default]\n");
        }
        writeln!(out, "    #[serde(rename = {symbol:?})]\n    {},", pascal(symbol)).unwrap();
    }
    write!(out, "}}\n\nimpl {name} {{\n    /// The symbol as it is written.\n    pub const fn symbol(self) -> &'static str {{\n        match self {{\n").unwrap();
    for symbol in &symbols {
        writeln!(out, "            Self::{} => {symbol:?},", pascal(symbol)).unwrap();
    }
    write!(
        out,
        "        }}\n    }}\n}}\n\nimpl ToDocument for {name} {{\n    fn give(&self) -> Value {{\n        Value::from(self.symbol())\n    }}\n}}\n\n\
         impl WriteAvro for {name} {{\n    fn write(&self, datum: &mut Vec<u8>) {{\n        // Declared in the schema's order.\n\
         \x20       write_long(*self as i64, datum);\n    }}\n}}\n"
    )
    .unwrap();
}

fn rust_type(field: &Value) -> String {
    if field["ryggrad.json"] == "rest" {
        return "BTreeMap<String, String>".to_owned();
    }
    let number = field["ryggrad.json"] == "number";
    type_of(&field["type"], number)
}

fn type_of(schema: &Value, number: bool) -> String {
    match schema {
        Value::Array(branches) => {
            assert!(branches.len() == 2 && branches[0] == "null", "a union is null and one type");
            format!("Option<{}>", type_of(&branches[1], number))
        }
        Value::String(name) => match name.as_str() {
            "string" if number => "Decimal".to_owned(),
            "string" => "String".to_owned(),
            "boolean" => "bool".to_owned(),
            "long" => "i64".to_owned(),
            "double" => "f64".to_owned(),
            named => named.to_owned(),
        },
        _ => match text(schema, "type") {
            "array" => format!("Vec<{}>", type_of(&schema["items"], false)),
            _ => text(schema, "name").to_owned(),
        },
    }
}

fn text<'a>(schema: &'a Value, member: &str) -> &'a str {
    schema[member].as_str().unwrap_or_else(|| panic!("{member} is missing in {schema}"))
}

/// `registrertIMvaregisteret` -> `registrert_i_mvaregisteret`; runs of capitals stay together.
fn snake(name: &str) -> String {
    let letters: Vec<char> = name.chars().collect();
    let mut out = String::new();
    for (index, letter) in letters.iter().enumerate() {
        let starts_word = letter.is_uppercase()
            && index > 0
            && letters[index - 1] != '_'
            && (letters[index - 1].is_lowercase() || letters.get(index + 1).is_some_and(|next| next.is_lowercase()));
        if starts_word {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    if out == "type" { "r#type".to_owned() } else { out }
}

fn pascal(symbol: &str) -> String {
    symbol.split('_').map(|word| word[..1].to_owned() + &word[1..].to_lowercase()).collect()
}
