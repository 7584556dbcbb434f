//! The committed schemas as a Confluent-compatible schema registry, read-only.
//!
//! Source of the rules: Confluent Schema Registry's REST API as stock clients use it. An unknown
//! path must answer 404, never 405: clients take only 404 for "this server has no associations".

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::manifest::{self, SchemaVersion};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::contract::schemas::{count, id, object, reference, text as any_text, whole};
use crate::contract::{Contract, Operation};

/// A version's number, or the latest.
const VERSION: &str = "^(latest|-1|[0-9]{1,9})$";
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// The registry's routes.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || answer(json!({}))))
        .route("/subjects", get(list))
        .route("/subjects/{subject}", post(find))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/subjects/{subject}/versions/{version}/schema", get(version_schema))
        .route("/schemas", get(async || answer(json!(all().map(|(subject, version)| full(&subject, version)).collect::<Vec<_>>()))))
        .route("/subjects/{subject}/versions/{version}/referencedby", get(referenced_by))
        .route("/compatibility/subjects/{subject}/versions", post(compatible_with_all))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatible))
        .route("/schemas/types", get(async || answer(json!(["AVRO"]))))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/ids/{id}/schema", get(by_id_schema))
        .route("/schemas/ids/{id}/subjects", get(by_id_subjects))
        .route("/schemas/ids/{id}/versions", get(by_id_versions))
        .route("/schemas/guids/{guid}", get(by_guid))
        .route("/config", get(async || answer(config())))
        .route("/config/{subject}", get(subject_config))
        .route("/mode", get(async || answer(mode())))
        .route("/mode/{subject}", get(subject_mode))
        .route("/contexts", get(async || answer(json!(["."]))))
        .fallback(async || NO_RESOURCE)
        .method_not_allowed_fallback(async || NO_RESOURCE)
}

#[derive(Deserialize)]
struct Asked {
    #[serde(rename = "fetchMaxId", default)]
    fetch_max_id: Option<String>,
    #[serde(rename = "subjectPrefix", default)]
    subject_prefix: Option<String>,
    #[serde(rename = "defaultToGlobal", default)]
    default_to_global: Option<String>,
}

/// Java writes true, Python True.
fn is_true(asked: Option<&String>) -> bool {
    asked.is_some_and(|asked| asked.eq_ignore_ascii_case("true"))
}

type Asking = Result<Query<Asked>, QueryRejection>;

#[derive(Deserialize)]
struct Given {
    schema: String,
}

/// Subject and schema folder of every event type, also of those that are shut here: a schema tells of nobody.
fn subjects() -> impl Iterator<Item = (String, &'static str)> {
    Catalogue::built_in().events.iter().map(|event| (event.subject(), event.schema.as_str()))
}

fn versions_of(subject: &str) -> Vec<&'static SchemaVersion> {
    let Some((_, schema)) = subjects().find(|(known, _)| known == subject) else { return Vec::new() };
    manifest::all().iter().filter(|version| version.schema == schema).collect()
}

/// Every version of every subject.
fn all() -> impl Iterator<Item = (String, &'static SchemaVersion)> {
    subjects().flat_map(|(subject, _)| versions_of(&subject).into_iter().map(move |version| (subject.clone(), version)))
}

fn guid(version: &SchemaVersion) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, version.text.as_bytes())
}

fn full(subject: &str, version: &SchemaVersion) -> Value {
    json!({"subject": subject, "version": version.version, "id": version.id, "guid": guid(version).to_string(), "schemaType": "AVRO", "schema": version.text})
}

/// Why an answer is no schema, in the registry's own numbers.
struct Refusal {
    status: StatusCode,
    code: u32,
    message: &'static str,
}

impl Refusal {
    const fn not_found(code: u32, message: &'static str) -> Self {
        Self { status: StatusCode::NOT_FOUND, code, message }
    }
    const fn unprocessable(code: u32, message: &'static str) -> Self {
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, code, message }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, answer(json!({"error_code": self.code, "message": self.message}))).into_response()
    }
}

const NO_RESOURCE: Refusal = Refusal::not_found(404, "no such resource");
const NO_SUBJECT: Refusal = Refusal::not_found(40401, "no such subject");
const NO_VERSION: Refusal = Refusal::not_found(40402, "no such version");
const NO_SCHEMA: Refusal = Refusal::not_found(40403, "no such schema");
const TOO_LARGE: Refusal = Refusal { status: StatusCode::PAYLOAD_TOO_LARGE, code: 413, message: "the request is too large" };
const NO_CONFIG: Refusal = Refusal::not_found(40408, "this subject has no compatibility level of its own");
const NO_MODE: Refusal = Refusal::not_found(40409, "this subject has no mode of its own");
const BAD_SCHEMA: Refusal = Refusal::unprocessable(42201, "the body has no schema");
const BAD_VERSION: Refusal = Refusal::unprocessable(42202, "a version is a number or latest");
const READ_ONLY: Refusal = Refusal::unprocessable(42205, "this registry is read-only; schemas are published with Ryggrad itself");

type Body = Result<Bytes, BytesRejection>;

/// What stands in the path. A path that is no text is no resource.
struct At<T>(T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for At<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        Path::from_request_parts(parts, state).await.map(|Path(found)| Self(found)).map_err(|_| NO_RESOURCE)
    }
}

fn config() -> Value {
    json!({"compatibilityLevel": "FULL_TRANSITIVE"})
}

fn mode() -> Value {
    json!({"mode": "READONLY"})
}

/// The level of every subject here; Confluent's would know of none that was not set.
async fn subject_config(At(subject): At<String>, asked: Asking) -> Result<Response, Refusal> {
    known_or(&subject, asked, NO_CONFIG).map(|()| answer(config()))
}

async fn subject_mode(At(subject): At<String>, asked: Asking) -> Result<Response, Refusal> {
    known_or(&subject, asked, NO_MODE).map(|()| answer(mode()))
}

fn known_or(subject: &str, asked: Asking, refusal: Refusal) -> Result<(), Refusal> {
    let global = asked.is_ok_and(|Query(asked)| is_true(asked.default_to_global.as_ref()));
    if global || !versions_of(subject).is_empty() { Ok(()) } else { Err(refusal) }
}

async fn list(asked: Asking) -> Response {
    let prefix = asked.ok().and_then(|Query(asked)| asked.subject_prefix).unwrap_or_default();
    // `:*:` means subjects of every context; there is one.
    let prefix = prefix.trim_start_matches(":*:");
    answer(json!(subjects().map(|(subject, _)| subject).filter(|subject| subject.starts_with(prefix)).collect::<Vec<_>>()))
}

async fn referenced_by(At((subject, version)): At<(String, String)>) -> Result<Response, Refusal> {
    pick(&subject, &version).map(|_| answer(json!([])))
}

async fn compatible_with_all(At(subject): At<String>, body: Body) -> Result<Response, Refusal> {
    let versions = versions_of(&subject);
    // Nothing to be incompatible with, as Confluent's says too.
    judge(&versions, body)
}

async fn compatible(At((subject, version)): At<(String, String)>, body: Body) -> Result<Response, Refusal> {
    judge(&[pick(&subject, &version)?], body)
}

fn judge(versions: &[&SchemaVersion], body: Body) -> Result<Response, Refusal> {
    let given = given(body)?;
    let mut is_compatible = true;
    for version in versions {
        is_compatible &= manifest::is_compatible(version, &given.schema).ok_or(BAD_SCHEMA)?;
    }
    Ok(answer(json!({"is_compatible": is_compatible})))
}

fn given(body: Body) -> Result<Given, Refusal> {
    serde_json::from_slice(&body.map_err(|_| TOO_LARGE)?).map_err(|_| BAD_SCHEMA)
}

async fn versions(At(subject): At<String>) -> Result<Response, Refusal> {
    let versions = versions_of(&subject);
    if versions.is_empty() {
        return Err(NO_SUBJECT);
    }
    Ok(answer(json!(versions.iter().map(|version| version.version).collect::<Vec<_>>())))
}

fn pick(subject: &str, version: &str) -> Result<&'static SchemaVersion, Refusal> {
    let versions = versions_of(subject);
    let found = match version {
        "latest" | "-1" => versions.iter().max_by_key(|known| known.version),
        number => {
            let number: u32 = number.parse().map_err(|_| BAD_VERSION)?;
            versions.iter().find(|known| known.version == number)
        }
    };
    found.copied().ok_or(if versions.is_empty() { NO_SUBJECT } else { NO_VERSION })
}

async fn version(At((subject, version)): At<(String, String)>) -> Result<Response, Refusal> {
    Ok(answer(full(&subject, pick(&subject, &version)?)))
}

async fn version_schema(At((subject, version)): At<(String, String)>) -> Result<Response, Refusal> {
    Ok(text(pick(&subject, &version)?.text))
}

fn pick_id(id: &str) -> Result<&'static SchemaVersion, Refusal> {
    id.parse().ok().and_then(manifest::by_id).ok_or(NO_SCHEMA)
}

async fn by_id(At(id): At<String>, asked: Asking) -> Result<Response, Refusal> {
    let version = pick_id(&id)?;
    let mut body = json!({"schema": version.text, "schemaType": "AVRO", "guid": guid(version).to_string()});
    if let Some((subject, _)) = holders(version).next() {
        body["subject"] = json!(subject);
        body["version"] = json!(version.version);
    }
    if asked.is_ok_and(|Query(asked)| is_true(asked.fetch_max_id.as_ref())) {
        body["maxId"] = json!(manifest::all().iter().map(|known| known.id).max());
    }
    Ok(answer(body))
}

async fn by_id_schema(At(id): At<String>) -> Result<Response, Refusal> {
    Ok(text(pick_id(&id)?.text))
}

async fn by_id_subjects(At(id): At<String>) -> Result<Response, Refusal> {
    Ok(answer(json!(holders(pick_id(&id)?).map(|(subject, _)| subject).collect::<Vec<_>>())))
}

async fn by_id_versions(At(id): At<String>) -> Result<Response, Refusal> {
    let holders = holders(pick_id(&id)?).map(|(subject, version)| json!({"subject": subject, "version": version.version}));
    Ok(answer(json!(holders.collect::<Vec<_>>())))
}

fn holders(version: &SchemaVersion) -> impl Iterator<Item = (String, &'static SchemaVersion)> {
    let id = version.id;
    all().filter(move |(_, known)| known.id == id)
}

async fn by_guid(At(wanted): At<String>) -> Result<Response, Refusal> {
    let found = manifest::all().iter().find(|version| guid(version).to_string() == wanted.to_lowercase()).ok_or(NO_SCHEMA)?;
    Ok(answer(json!({"schema": found.text, "schemaType": "AVRO", "guid": wanted})))
}

/// Finds the version that a schema is.
async fn find(At(subject): At<String>, body: Body) -> Result<Response, Refusal> {
    Ok(answer(full(&subject, same(&subject, body)?.ok_or(NO_SCHEMA)?)))
}

/// Registering what is there already succeeds, as serializers expect; anything else is refused.
async fn register(At(subject): At<String>, body: Body) -> Result<Response, Refusal> {
    Ok(answer(full(&subject, same(&subject, body)?.ok_or(READ_ONLY)?)))
}

fn same(subject: &str, body: Body) -> Result<Option<&'static SchemaVersion>, Refusal> {
    let versions = versions_of(subject);
    if versions.is_empty() {
        return Err(NO_SUBJECT);
    }
    let given = given(body)?;
    Ok(versions.into_iter().rev().find(|version| manifest::is_same(version, &given.schema)))
}

fn answer(body: Value) -> Response {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], body.to_string()).into_response()
}

fn text(schema: &'static str) -> Response {
    ([(header::CONTENT_TYPE, MEDIA_TYPE)], schema).into_response()
}

/// What these calls promise: what Confluent's do, as far as they are here.
pub fn describe(contract: &mut Contract) {
    let list = |items: Value| json!({"type": "array", "items": items});
    let version = || reference("RegistryVersion");
    let parameter = |call: Operation, name, about| call.query(name, any_text(), about);
    let get = |path, name, summary, answer, refused: &[u16]| call("get", path, name, summary, answer, refused);
    let post = |path, name, summary, answer| {
        call("post", path, name, summary, answer, &[404, 413, 422]).takes_loosely(MEDIA_TYPE, reference("RegistrySchema"))
    };
    contract.add(get("/schema-registry", "registry", "Is there", json!({"type": "object"}), &[]));
    let subjects = get("/schema-registry/subjects", "listSubjects", "Lists subjects", list(any_text()), &[]);
    contract.add(parameter(subjects, "subjectPrefix", "Those alone that begin so."));
    contract.add(post("/schema-registry/subjects/{subject}", "findSchema", "Finds the version that a schema is", version()));
    let versions = "/schema-registry/subjects/{subject}/versions";
    contract.add(get(versions, "listVersions", "Lists a subject's versions", list(count()), &[404]));
    contract.add(post(versions, "registerSchema", "Finds a schema that is there, and refuses any other", version()));
    let one = "/schema-registry/subjects/{subject}/versions/{version}";
    contract.add(get(one, "showVersion", "Shows a version", version(), &[404, 422]));
    let text = "/schema-registry/subjects/{subject}/versions/{version}/schema";
    contract.add(get(text, "showVersionSchema", "Shows a version's schema alone", json!({}), &[404, 422]));
    let by = "/schema-registry/subjects/{subject}/versions/{version}/referencedby";
    contract.add(get(by, "listReferences", "Lists schemas that refer to it: none", list(count()), &[404, 422]));
    let all = "/schema-registry/compatibility/subjects/{subject}/versions";
    let verdict = || whole(json!({"is_compatible": {"type": "boolean"}}));
    contract.add(post(all, "compareWithAll", "Says whether a schema goes with all versions", verdict()));
    let one = "/schema-registry/compatibility/subjects/{subject}/versions/{version}";
    contract.add(post(one, "compareWithOne", "Says whether a schema goes with a version", verdict()));
    contract.add(get("/schema-registry/schemas", "listSchemas", "Lists every version of every subject", list(version()), &[]));
    contract.add(get("/schema-registry/schemas/types", "listSchemaTypes", "Lists kinds of schemas", list(any_text()), &[]));
    let by_id = get("/schema-registry/schemas/ids/{id}", "showSchema", "Shows a schema by its id", reference("RegistrySchemaById"), &[404]);
    contract.add(parameter(by_id, "fetchMaxId", "true: with the largest id."));
    let of_id = |path, name, summary, answer| get(path, name, summary, answer, &[404]);
    contract.add(of_id("/schema-registry/schemas/ids/{id}/schema", "showSchemaText", "Shows it alone", json!({})));
    contract.add(of_id("/schema-registry/schemas/ids/{id}/subjects", "listSubjectsOfSchema", "Lists who has it", list(any_text())));
    let pair = whole(json!({"subject": any_text(), "version": count()}));
    contract.add(of_id("/schema-registry/schemas/ids/{id}/versions", "listVersionsOfSchema", "Lists where it is", list(pair)));
    let by_guid = "/schema-registry/schemas/guids/{guid}";
    contract.add(of_id(by_guid, "showSchemaByGuid", "Shows a schema by its guid", reference("RegistrySchemaById")));
    let level = || whole(json!({"compatibilityLevel": {"const": "FULL_TRANSITIVE"}}));
    contract.add(get("/schema-registry/config", "showConfig", "Shows how versions must go together", level(), &[]));
    let global = "true: the registry's own where the subject has none.";
    let config = of_id("/schema-registry/config/{subject}", "showSubjectConfig", "The same for a subject", level());
    contract.add(parameter(config, "defaultToGlobal", global));
    let mode = || whole(json!({"mode": {"const": "READONLY"}}));
    contract.add(get("/schema-registry/mode", "showMode", "Says that nothing can be written", mode(), &[]));
    let subject_mode = of_id("/schema-registry/mode/{subject}", "showSubjectMode", "The same for a subject", mode());
    contract.add(parameter(subject_mode, "defaultToGlobal", global));
    contract.add(get("/schema-registry/contexts", "listContexts", "Lists contexts: one", list(any_text()), &[]));
}

fn call(method: &'static str, path: &'static str, name: &'static str, summary: &'static str, answer: Value, refused: &[u16]) -> Operation {
    let call = Operation::new(method, path, name, "schemas", summary).answers_as(200, "Found.", MEDIA_TYPE, answer);
    let parts = ["subject", "version", "id", "guid"].into_iter().filter(|part| path.contains(&format!("{{{part}}}")));
    let schema = |part: &str| if part == "version" { json!({"type": "string", "pattern": VERSION}) } else { any_text() };
    let call = parts.fold(call, |call, part| call.path_part(part, schema(part), "As the registry names it."));
    refused.iter().fold(call, |call, status| call.refuses_as(*status, MEDIA_TYPE, reference("RegistryRefusal")))
}

/// The shapes that they share.
pub fn shapes() -> [(&'static str, Value); 4] {
    let version = json!({
        "subject": any_text(), "version": count(), "id": count(), "guid": id(), "schemaType": {"const": "AVRO"}, "schema": any_text(),
    });
    let by_id = json!({
        "schema": any_text(), "schemaType": {"const": "AVRO"}, "guid": any_text(), "subject": any_text(), "version": count(), "maxId": count(),
    });
    let given = json!({"type": "object", "required": ["schema"], "properties": {"schema": any_text()}});
    [
        ("RegistryVersion", whole(version)),
        ("RegistrySchemaById", object(&["schema", "schemaType", "guid"], by_id)),
        ("RegistrySchema", given),
        ("RegistryRefusal", whole(json!({"error_code": count(), "message": any_text()}))),
    ]
}
