//! What the API promises, as OpenAPI 3.1 and AsyncAPI 3.
//!
//! Each handler's promise stands beside the handler, in a function `describe` of the same file; here they are put
//! together. [`operation`] is how one call is described, [`schemas`] are the shapes that calls share, [`subscription`]
//! is the shape of a subscription. What follows from a call's place alone (a token, an id, a key) is never written twice.
//! `docs/openapi.json` and `docs/asyncapi.json` are these documents as committed.

mod access;
mod operation;
mod replays;
pub mod schemas;
mod subscription;
mod watch_lists;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use ryggrad_schemas::{Catalogue, asyncapi};
use serde_json::{Map, Value, json};

use crate::problem::Code;
pub use operation::{Operation, Rule};

static OPENAPI: LazyLock<String> = LazyLock::new(|| format!("{:#}\n", crate::api::contract().document()));

const VERSION: &str = env!("CARGO_PKG_VERSION");

const ABOUT: &str = "Who wants events says so here, and gets them by webhook, by fetching or over a WebSocket. \
    Refusals are problems (RFC 9457): `type` is `urn:ryggrad:error:<code>`, `errors` names every wrong field at once. \
    An address that is not here answers 404, and a method that is not here 405 with `Allow` (below `/schema-registry` \
    404, as its clients need). A repeated POST with the same `Idempotency-Key` gets the first answer again, for 24 hours.";

/// The API as OpenAPI, in JSON.
pub fn openapi() -> &'static str {
    &OPENAPI
}

/// The topics of a catalogue as AsyncAPI, in JSON.
pub fn asyncapi(catalogue: &Catalogue) -> String {
    format!("{:#}\n", asyncapi::document(catalogue, VERSION))
}

/// All calls that are described.
#[derive(Default)]
pub struct Contract {
    operations: Vec<Operation>,
}

impl Contract {
    /// Takes in one call.
    pub fn add(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    /// The whole document.
    fn document(&self) -> Value {
        let mut paths: Map<String, Value> = Map::new();
        for operation in &self.operations {
            let path = paths.entry(operation.path).or_insert_with(|| json!({}));
            path[operation.method] = operation.to_value(&self.operations);
        }
        let refusals: BTreeMap<String, Value> = self.operations.iter().flat_map(Operation::refusals).collect();
        let types: Vec<String> = Code::ALL.map(Code::urn).to_vec();
        json!({
            "openapi": "3.1.1",
            "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
            "info": {
                "title": "Ryggrad bridge", "version": VERSION, "summary": "Event streams of Norwegian health registries, delivered.",
                "description": ABOUT, "license": {"name": "EUPL-1.2", "identifier": "EUPL-1.2"},
            },
            "servers": [{"url": "/", "description": "The bridge that serves this document"}],
            "tags": operation::TAGS.map(|(name, description)| json!({"name": name, "description": description})),
            "security": [{"bearer": []}],
            "paths": paths,
            "components": {
                "securitySchemes": {"bearer": {
                    "type": "http", "scheme": "bearer", "bearerFormat": "ryg_<id>_<secret>",
                    "description": "A token of an organisation, issued by an operator for some roles; or the operator's own.",
                }},
                "responses": refusals,
                "schemas": schemas::all(types),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Compares with what is committed; with `RYGGRAD_BLESS` in the environment, writes it anew.
    fn compare(file: &str, expected: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
        if std::env::var_os("RYGGRAD_BLESS").is_some() {
            std::fs::write(&path, expected).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            found == expected,
            "docs/{file} is not what the code says; run RYGGRAD_BLESS=1 cargo test --release -p ryggrad-bridge --lib"
        );
    }

    #[test]
    fn the_committed_documents_are_what_the_code_says() {
        compare("openapi.json", openapi());
        compare("asyncapi.json", &asyncapi(Catalogue::built_in()));
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_shape_is_used() {
        let text = openapi();
        let document: Value = serde_json::from_str(text).unwrap();
        let used: BTreeSet<&str> = text.split("\"#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        let there: BTreeSet<&str> = document["components"]["schemas"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(used, there);
    }

    #[test]
    fn every_problem_is_in_the_table_and_in_the_document() {
        let table = include_str!("../../../docs/errors/README.md");
        for code in Code::ALL {
            let (name, urn) = (code.urn().replace("urn:ryggrad:error:", ""), code.urn());
            assert!(table.contains(&format!("\n| `{name}` | {} |", code.status())), "docs/errors/README.md lacks {name}");
            assert!(openapi().contains(&format!("\"{urn}\"")), "the document lacks {name}");
        }
        let told = table.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(told, Code::ALL.len(), "the table knows codes that are gone");
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let contract = crate::api::contract();
        let names: BTreeSet<&str> = contract.operations.iter().map(|operation| operation.id).collect();
        assert_eq!(names.len(), contract.operations.len());
    }
}
