//! One call of the API, described.
//!
//! What every call of its kind has is added here: whoever describes a call says only what is its own.

use std::collections::{BTreeMap, BTreeSet};

use ryggrad_bridge_core::idempotency::KEY_BYTES_MAX;
use ryggrad_bridge_core::role::Role;
use serde_json::{Map, Value, json};

use super::schemas::{reference, text};
use crate::api::page::{LIMIT_DEFAULT, LIMIT_MAX};
use crate::problem::Code;

/// What calls are grouped by.
pub const TAGS: [(&str, &str); 7] = [
    ("subscriptions", "Who gets which events, and how."),
    ("events", "Events, for receivers that come for them."),
    ("deliveries", "What became of events that were posted."),
    ("watch lists", "Keys that subscriptions are narrowed to."),
    ("access", "Who takes part, who acts for whom, and what is opened to whom."),
    ("operation", "For operators and for those who watch the bridge."),
    ("schemas", "The committed Avro schemas, read-only, as a Confluent Schema Registry has them."),
];

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Anyone.
    Public,
    /// Whoever has the role, and what that opens follows from the token.
    Needs(Role),
    /// Whoever has the role subscribe, for one's own; with operate, for everyone's.
    Own,
    /// Whoever has the role subscribe, for what concerns one's own organisation; with operate, for everyone's.
    OwnFacts,
}

/// One answer that is no problem.
struct Answer {
    status: u16,
    description: &'static str,
    media: Vec<(&'static str, Value)>,
    headers: Map<String, Value>,
}

/// One call.
pub struct Operation {
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) id: &'static str,
    summary: &'static str,
    tag: &'static str,
    rule: Rule,
    description: Option<String>,
    parameters: Vec<Value>,
    body: Option<Value>,
    answers: Vec<Answer>,
    problems: BTreeSet<Code>,
    other_refusals: Vec<(u16, &'static str, Value)>,
}

impl Operation {
    /// A call: its method in lower case, path, name and what it does.
    pub fn new(method: &'static str, path: &'static str, id: &'static str, tag: &'static str, summary: &'static str) -> Self {
        let rule = if path.starts_with("/v1/") { Rule::Own } else { Rule::Public };
        Self {
            method,
            path,
            id,
            summary,
            tag,
            rule,
            description: None,
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            problems: BTreeSet::new(),
            other_refusals: Vec::new(),
        }
    }

    /// Who may call, where it is not the subscriptions' owner.
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// What else is to be known.
    pub fn about(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// A parameter of the query.
    pub fn query(self, name: &str, schema: Value, description: &str) -> Self {
        self.parameter(name, "query", schema, description)
    }

    /// A header of the request, which may be absent.
    pub fn header(self, name: &str, schema: Value, description: &str) -> Self {
        self.parameter(name, "header", schema, description)
    }

    /// A part of the path, besides `{id}`.
    pub fn path_part(mut self, name: &str, schema: Value, description: &str) -> Self {
        self.parameters.push(json!({"name": name, "in": "path", "required": true, "schema": schema, "description": description}));
        self
    }

    /// `limit` and `after`, as every list has them.
    pub fn pages(self) -> Self {
        let limit = json!({"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT});
        let after = json!({"type": "string", "format": "page-cursor"});
        self.query("limit", limit, "How many, at most.").query("after", after, "`next` of the page before.").refuses(&[Code::Invalid])
    }

    /// The JSON body that it takes, by the name of its shape.
    pub fn takes(self, shape: &str) -> Self {
        self.takes_as("application/json", shape)
    }

    /// The same by another media type.
    pub fn takes_as(mut self, media_type: &str, shape: &str) -> Self {
        self.body = Some(json!({"required": true, "content": {media_type: {"schema": reference(shape)}}}));
        self.refuses(&[Code::Invalid, Code::TooLarge])
    }

    /// A body whose refusals are described by themselves.
    pub fn takes_loosely(mut self, media_type: &str, schema: Value) -> Self {
        self.body = Some(json!({"required": true, "content": {media_type: {"schema": schema}}}));
        self
    }

    /// An answer in JSON, by the name of its shape.
    pub fn answers(self, status: u16, description: &'static str, shape: &str) -> Self {
        self.answers_as(status, description, "application/json", reference(shape))
    }

    /// An answer by another media type.
    pub fn answers_as(mut self, status: u16, description: &'static str, media_type: &'static str, schema: Value) -> Self {
        match self.answers.iter_mut().find(|answer| answer.status == status) {
            Some(answer) => answer.media.push((media_type, schema)),
            None => self.answers.push(Answer { status, description, media: vec![(media_type, schema)], headers: Map::new() }),
        }
        self
    }

    /// An answer without a body.
    pub fn answers_nothing(mut self, status: u16, description: &'static str) -> Self {
        self.answers.push(Answer { status, description, media: Vec::new(), headers: Map::new() });
        self
    }

    /// A header of the latest answer.
    pub fn with(mut self, name: &str, schema: Value, description: &str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.insert(name.to_owned(), json!({"required": true, "schema": schema, "description": description}));
        }
        self
    }

    /// `ETag` of the latest answer.
    pub fn with_tag(self) -> Self {
        self.with(
            "ETag",
            json!({"type": "string", "pattern": "^\"[0-9a-f]{32}\"$"}),
            "Follows what the owner has asked for, not how it stands.",
        )
    }

    /// `If-Match`, and what comes of it.
    pub fn guarded(self) -> Self {
        let description = "Tags of which its own must be one: 412 if it was changed since.";
        self.header("If-Match", text(), description).refuses(&[Code::Precondition])
    }

    /// Problems of its own.
    pub fn refuses(mut self, problems: &[Code]) -> Self {
        self.problems.extend(problems);
        self
    }

    /// A refusal that is no problem, of the schema registry.
    pub fn refuses_as(mut self, status: u16, media_type: &'static str, schema: Value) -> Self {
        self.other_refusals.push((status, media_type, schema));
        self
    }

    fn parameter(mut self, name: &str, place: &str, schema: Value, description: &str) -> Self {
        self.parameters.push(json!({"name": name, "in": place, "required": false, "schema": schema, "description": description}));
        self
    }

    fn takes_keys(&self) -> bool {
        self.method == "post" && self.path.starts_with("/v1/")
    }

    fn has_id(&self) -> bool {
        self.path.starts_with("/v1/") && self.path.contains("{id}")
    }

    fn all_parameters(&self) -> Vec<Value> {
        let mut parameters = Vec::new();
        if self.has_id() {
            parameters.push(json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string", "format": "uuid"}}));
        }
        parameters.extend(self.parameters.iter().cloned());
        if self.takes_keys() {
            parameters.push(json!({
                "name": "Idempotency-Key", "in": "header", "required": false,
                "schema": {"type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX, "pattern": "^[!-~]+$"},
                "description": "Drawn for each request and kept for its repetitions: these get the first answer again.",
            }));
        }
        parameters
    }

    fn all_problems(&self) -> BTreeSet<Code> {
        let mut problems = self.problems.clone();
        if self.rule != Rule::Public {
            problems.extend([Code::Unauthorised, Code::Forbidden, Code::TooMany, Code::Unavailable]);
        }
        if self.has_id() {
            problems.insert(Code::NotFound);
        }
        if self.takes_keys() {
            problems.extend([Code::Invalid, Code::TooLarge, Code::KeyReused, Code::UnderWay, Code::Limit]);
        }
        problems
    }

    /// Its refusals, by their names.
    pub(super) fn refusals(&self) -> impl Iterator<Item = (String, Value)> {
        self.by_status().into_iter().map(|(status, codes)| (refusal_name(&codes), problem(status, &codes)))
    }

    fn by_status(&self) -> BTreeMap<u16, Vec<Code>> {
        let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
        for code in self.all_problems() {
            by_status.entry(code.status()).or_default().push(code);
        }
        by_status
    }

    /// The call as OpenAPI has it; `others` are what an answer with an id leads to.
    pub(super) fn to_value(&self, others: &[Self]) -> Value {
        let mut responses: BTreeMap<String, Value> = BTreeMap::new();
        for answer in &self.answers {
            responses.insert(answer.status.to_string(), self.answer(answer, others));
        }
        for (status, codes) in self.by_status() {
            responses.insert(status.to_string(), json!({"$ref": format!("#/components/responses/{}", refusal_name(&codes))}));
        }
        for (status, media_type, schema) in &self.other_refusals {
            responses.insert(status.to_string(), json!({"description": "Refused.", "content": {*media_type: {"schema": schema}}}));
        }
        let mut value = json!({
            "operationId": self.id, "tags": [self.tag], "summary": self.summary, "parameters": self.all_parameters(), "responses": responses,
        });
        let role = match self.rule {
            Rule::Public => {
                value["security"] = json!([]);
                None
            }
            Rule::Needs(role) => Some(format!("Needs the role `{}`.", role.name())),
            Rule::Own => Some("Needs the role `subscribe`, for one's own subscriptions, or `operate`, for everyone's.".to_owned()),
            Rule::OwnFacts => {
                Some("Needs the role `subscribe`, for what concerns one's own organisation, or `operate`, for everyone's.".to_owned())
            }
        };
        let description: Vec<String> = self.description.iter().cloned().chain(role).collect();
        if !description.is_empty() {
            value["description"] = json!(description.join(" "));
        }
        if let Some(body) = &self.body {
            value["requestBody"] = body.clone();
        }
        value
    }

    fn answer(&self, answer: &Answer, others: &[Self]) -> Value {
        let mut value = json!({"description": answer.description});
        let mut headers = answer.headers.clone();
        if self.takes_keys() && (200..300).contains(&answer.status) {
            let description = "There if this is the first answer again.";
            headers.insert("Idempotency-Replayed".to_owned(), json!({"schema": {"const": "true"}, "description": description}));
        }
        if !headers.is_empty() {
            value["headers"] = Value::Object(headers);
        }
        if !answer.media.is_empty() {
            let content: Map<String, Value> =
                answer.media.iter().map(|(media_type, schema)| ((*media_type).to_owned(), json!({"schema": schema}))).collect();
            value["content"] = Value::Object(content);
        }
        if answer.status == 201 {
            let own = format!("{}/{{id}}", self.path);
            let links: Map<String, Value> = others
                .iter()
                .filter(|other| other.path == own || other.path.starts_with(&format!("{own}/")))
                .map(|other| (other.id.to_owned(), json!({"operationId": other.id, "parameters": {"id": "$response.body#/id"}})))
                .collect();
            value["links"] = Value::Object(links);
        }
        value
    }
}

/// What the answer of one status is called.
fn refusal_name(codes: &[Code]) -> String {
    codes.iter().map(|code| format!("{code:?}")).collect::<Vec<_>>().join("Or")
}

/// The answer of one status, whichever of these problems it is.
fn problem(status: u16, codes: &[Code]) -> Value {
    let types: Vec<String> = codes.iter().map(|code| code.urn()).collect();
    let mut value = json!({
        "description": format!("Refused: {}.", codes.iter().map(|code| code.title()).collect::<Vec<_>>().join("; ")),
        "content": {"application/problem+json": {"schema": {
            "allOf": [reference("Problem"), {"properties": {"type": {"enum": types}, "status": {"const": status}}}],
        }}},
    });
    let seconds = json!({"type": "integer", "minimum": 1});
    match status {
        401 => value["headers"] = json!({"WWW-Authenticate": {"required": true, "schema": {"const": "Bearer"}}}),
        429 | 503 => value["headers"] = json!({"Retry-After": {"required": true, "schema": seconds, "description": "Seconds."}}),
        _ if codes.contains(&Code::UnderWay) => {
            value["headers"] = json!({"Retry-After": {"schema": seconds, "description": "Seconds, where waiting helps."}});
        }
        _ => {}
    }
    value
}
