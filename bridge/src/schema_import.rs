//! Brings the committed schemas into a schema registry beside the bridge, with their fixed ids.
//!
//! What is there already is compared first: ids stand in every record, so a registry that says
//! otherwise stops the start before anything is written to it. Must never change or delete what
//! it finds, nor show the password of the registry's address.

use std::time::Duration;

use reqwest::{Method, StatusCode, redirect};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::equivalence::is_equivalent;
use ryggrad_schemas::manifest::{self, SchemaVersion};
use serde_json::{Value, json};
use tokio::sync::watch;
use url::Url;

const CALL_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long to wait after the first failure; doubled after each, up to the longest.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// Why the bridge must not start with this registry.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The setting is no address.
    #[error("schema_registry is no http or https address: give one like http://registry:8081")]
    Address,
    /// No HTTP client.
    #[error("cannot make calls to the schema registry")]
    Client(#[source] reqwest::Error),
    /// A version that is there is another one.
    #[error(
        "the schema registry has another schema as version {version} of {subject} than Ryggrad publishes: \
         remove that version there, or use another registry"
    )]
    Schema {
        /// The subject.
        subject: String,
        /// The version.
        version: u32,
    },
    /// A version that is there has another id.
    #[error(
        "the schema registry has version {version} of {subject} under the id {found}, and the events carry {id}: \
         remove that version there, or use another registry"
    )]
    Id {
        /// The subject.
        subject: String,
        /// The version.
        version: u32,
        /// The committed id.
        id: u32,
        /// The registry's id.
        found: Value,
    },
    /// An id stands for another schema.
    #[error(
        "in the schema registry the id {id} stands for another schema than version {version} of {subject}: \
         free that id there, or use another registry"
    )]
    Taken {
        /// The subject.
        subject: String,
        /// The version.
        version: u32,
        /// The committed id.
        id: u32,
    },
    /// It gave an id of its own.
    #[error(
        "the schema registry took version {version} of {subject} under the id {found} instead of {id}: \
         it must allow the mode IMPORT; delete {subject} there and use a registry that does"
    )]
    OwnId {
        /// The subject.
        subject: String,
        /// The version.
        version: u32,
        /// The committed id.
        id: u32,
        /// The registry's id.
        found: Value,
    },
    /// It says no.
    #[error("the schema registry refuses to {doing} (HTTP {status}): {said}")]
    Refused {
        /// What was tried.
        doing: String,
        /// The status.
        status: u16,
        /// What it said.
        said: String,
    },
}

/// Why one round ended.
enum Trouble {
    /// Waiting may cure it.
    Later(String),
    /// Waiting cures nothing.
    Never(ImportError),
}

impl From<ImportError> for Trouble {
    fn from(error: ImportError) -> Self {
        Self::Never(error)
    }
}

/// A registry beside the bridge.
pub struct Registry {
    client: reqwest::Client,
    base: Url,
    shown: String,
}

impl Registry {
    /// A registry at an address, which may hold user and password.
    pub fn at(address: &str) -> Result<Self, ImportError> {
        let base = Url::parse(address).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let base = base.ok_or(ImportError::Address)?;
        let mut shown = base.clone();
        // Fails only for addresses without a host.
        let _ = shown.set_password(None).and_then(|()| shown.set_username(""));
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("ryggrad/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .timeout(CALL_TIMEOUT)
            .build()
            .map_err(ImportError::Client)?;
        Ok(Self { client, base, shown: shown.to_string() })
    }

    /// Imports what is missing, and waits for the registry as long as it takes.
    pub async fn import(&self, obstacle: &watch::Sender<Option<String>>) -> Result<(), ImportError> {
        let mut wait = RETRY_FIRST;
        loop {
            match self.import_once().await {
                Ok(()) => return Ok(()),
                Err(Trouble::Never(error)) => return Err(error),
                Err(Trouble::Later(why)) => {
                    tracing::warn!(registry = self.shown, why, "waiting for the schema registry");
                    obstacle.send_replace(Some(format!("waiting for the schema registry at {}: {why}", self.shown)));
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn import_once(&self) -> Result<(), Trouble> {
        let mut wanted: Vec<(String, &SchemaVersion)> = Catalogue::built_in()
            .events
            .iter()
            .flat_map(|event| {
                manifest::all().iter().filter(|version| version.schema == event.schema).map(|version| (event.subject(), version))
            })
            .collect();
        // In the order of the ids, for registries that count for themselves.
        wanted.sort_by_key(|(_, version)| version.id);
        // All of it is compared before any of it is written.
        let mut missing = Vec::new();
        for (subject, version) in wanted {
            if !self.compare(&subject, version).await? {
                missing.push((subject, version));
            }
        }
        for (subject, version) in &missing {
            self.register(subject, version).await?;
            tracing::info!(registry = self.shown, subject, version = version.version, id = version.id, "a schema was imported");
        }
        self.end_import().await
    }

    /// Whether the version is there as it should be; an error if it is there otherwise.
    async fn compare(&self, subject: &str, version: &SchemaVersion) -> Result<bool, Trouble> {
        let SchemaVersion { id, version: number, text, .. } = *version;
        let (status, found) = self.call(Method::GET, &["subjects", subject, "versions", &number.to_string()], None).await?;
        if status.is_success() {
            if !found["schema"].as_str().is_some_and(|schema| is_equivalent(schema, text)) {
                return Err(ImportError::Schema { subject: subject.to_owned(), version: number }.into());
            }
            if found["id"].as_u64() != Some(id.into()) {
                return Err(ImportError::Id { subject: subject.to_owned(), version: number, id, found: found["id"].clone() }.into());
            }
            return Ok(true);
        }
        if status != StatusCode::NOT_FOUND {
            return Err(refused(format!("show version {number} of {subject}"), status, &found));
        }
        let (status, found) = self.call(Method::GET, &["schemas", "ids", &id.to_string()], None).await?;
        match status {
            StatusCode::NOT_FOUND => Ok(false),
            // The same schema under another subject shares its id.
            status if status.is_success() && found["schema"].as_str().is_some_and(|schema| is_equivalent(schema, text)) => Ok(false),
            status if status.is_success() => Err(ImportError::Taken { subject: subject.to_owned(), version: number, id }.into()),
            status => Err(refused(format!("show the schema {id}"), status, &found)),
        }
    }

    async fn register(&self, subject: &str, version: &SchemaVersion) -> Result<(), Trouble> {
        let SchemaVersion { id, version: number, text, .. } = *version;
        // A registry without modes (Apicurio's) refuses; whether it keeps the id is seen below.
        let (status, _) = self.call(Method::PUT, &["mode", subject], Some(json!({"mode": "IMPORT"}))).await?;
        let has_modes = status.is_success();
        let body = json!({"schemaType": "AVRO", "schema": text, "id": id, "version": number});
        let registered = self.call(Method::POST, &["subjects", subject, "versions"], Some(body)).await;
        if has_modes {
            // Whatever came of it: a subject that stays in this mode takes ids from anyone.
            self.end_import_of(subject).await?;
        }
        let (status, answer) = registered?;
        if !status.is_success() {
            return Err(refused(format!("take version {number} of {subject} with the id {id}"), status, &answer));
        }
        if answer["id"].as_u64() != Some(id.into()) {
            return Err(ImportError::OwnId { subject: subject.to_owned(), version: number, id, found: answer["id"].clone() }.into());
        }
        if self.compare(subject, version).await? {
            Ok(())
        } else {
            Err(Trouble::Later(format!("it does not show version {number} of {subject} yet")))
        }
    }

    /// Ends the import of every subject that a start which was broken off has left in that mode.
    async fn end_import(&self) -> Result<(), Trouble> {
        for event in &Catalogue::built_in().events {
            let (status, found) = self.call(Method::GET, &["mode", &event.subject()], None).await?;
            if status.is_success() && found["mode"] == "IMPORT" {
                self.end_import_of(&event.subject()).await?;
            }
        }
        Ok(())
    }

    async fn end_import_of(&self, subject: &str) -> Result<(), Trouble> {
        let (status, answer) = self.call(Method::PUT, &["mode", subject], Some(json!({"mode": "READWRITE"}))).await?;
        if status.is_success() { Ok(()) } else { Err(refused(format!("end the import of {subject}"), status, &answer)) }
    }

    /// One call. Whatever may be better later (no answer, 408, 429, 5xx) is an error.
    async fn call(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<(StatusCode, Value), Trouble> {
        let mut url = self.base.clone();
        // Fails only for addresses without a host, which are refused.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        if method == Method::PUT {
            url.set_query(Some("force=true"));
        }
        let mut request = self.client.request(method, url).header("accept", format!("{MEDIA_TYPE}, application/json"));
        if let Some(body) = body {
            request = request.header("content-type", MEDIA_TYPE).body(body.to_string());
        }
        let mut response = request.send().await.map_err(|error| later(&error))?;
        let status = response.status();
        let retriable = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED;
        if retriable || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS) {
            return Err(Trouble::Later(format!("it answers {status}")));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| later(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Trouble::Later(format!("its answer exceeds {ANSWER_BYTES_MAX} bytes")));
            }
        }
        Ok((status, serde_json::from_slice(&bytes).unwrap_or_default()))
    }
}

/// In a word, since an error's own text may hold the address with its password.
fn later(error: &reqwest::Error) -> Trouble {
    Trouble::Later(if error.is_timeout() { "it takes too long" } else { "it cannot be reached" }.to_owned())
}

fn refused(doing: String, status: StatusCode, answer: &Value) -> Trouble {
    const SAID_CHARS_MAX: usize = 300;
    let said = answer["message"].as_str().unwrap_or("it does not say why").chars().take(SAID_CHARS_MAX).collect();
    Trouble::Never(ImportError::Refused { doing, status: status.as_u16(), said })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_checked_and_shown_without_its_password() {
        for bad in ["", "registry:8081", "ftp://registry", "http://"] {
            assert!(matches!(Registry::at(bad), Err(ImportError::Address)), "{bad}");
        }
        let registry = Registry::at("http://me:hidden@registry:8081/apis").unwrap();
        assert_eq!(registry.shown, "http://registry:8081/apis");
    }
}
