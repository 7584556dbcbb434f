//! Settings of `auth`: who this producer is at an issuer whose tokens its upstream wants.
//!
//! Must never hold a secret: the key stands in a file.

use std::path::PathBuf;

use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::{Deserialize, Deserializer, Serialize};
use url::Url;

use super::error::CredentialsError;
use super::issuer::is_secure;
use super::key::Algorithm;

/// Whose tokens they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IssuerKind {
    /// HelseID: `private_key_jwt`, tokens bound to a key (DPoP).
    #[default]
    Helseid,
    /// Maskinporten: a grant signed by the client, bearer tokens.
    Maskinporten,
}

/// A client at an issuer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// `helseid` or `maskinporten`.
    pub kind: IssuerKind,
    /// The issuer's name, as its own document has it, to the letter.
    pub issuer: String,
    /// The document's address, where it is not the usual one below the issuer's.
    pub metadata_url: Option<String>,
    /// The client's name at the issuer.
    pub client_id: String,
    /// The client's private key: a JWK, or PKCS #8 in PEM.
    pub key_file: PathBuf,
    /// The key's name at the issuer (`kid`), where the file does not tell.
    pub key_id: Option<String>,
    /// Maskinporten: a chain of certificates in PEM, sent instead of the key's name.
    pub certificate_file: Option<PathBuf>,
    /// What assertions are signed with, where neither the key nor its kind decides.
    pub algorithm: Option<Algorithm>,
    /// What tokens are to open; several with spaces between.
    pub scope: String,
    /// Whom the client speaks for. HelseID: of a client for several organisations; Maskinporten: where that one
    /// has delegated.
    #[serde(deserialize_with = "organisation")]
    pub organisation: Option<Organisasjonsnummer>,
    /// HelseID: the unit of the organisation.
    #[serde(deserialize_with = "organisation")]
    pub child: Option<Organisasjonsnummer>,
    /// Maskinporten: the one API that tokens are for.
    pub resource: Option<String>,
    /// How long an assertion or a grant can be used.
    pub assertion_lifetime_ms: u64,
    /// How long before its end a token is renewed; half its life at most.
    pub renew_before_ms: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            kind: IssuerKind::default(),
            issuer: String::new(),
            metadata_url: None,
            client_id: String::new(),
            key_file: PathBuf::new(),
            key_id: None,
            certificate_file: None,
            algorithm: None,
            scope: String::new(),
            organisation: None,
            child: None,
            resource: None,
            assertion_lifetime_ms: 30_000,
            renew_before_ms: 10_000,
        }
    }
}

/// Files and the environment have numbers as texts and as numbers.
fn organisation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Organisasjonsnummer>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(u32),
        Text(String),
    }
    let written = Option::<Written>::deserialize(deserializer)?;
    let text = written.map(|written| match written {
        Written::Number(number) => number.to_string(),
        Written::Text(text) => text,
    });
    text.map(|text| text.parse().map_err(serde::de::Error::custom)).transpose()
}

impl AuthConfig {
    /// What makes no sense, by the names of the settings.
    pub(crate) fn faults(&self) -> Vec<String> {
        // What RFC 6749 lets a scope consist of.
        let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
        let is_name = |text: &str| !text.is_empty() && text.bytes().all(visible);
        let secure = |text: &str| Url::parse(text).is_ok_and(|url| is_secure(&url) && url.query().is_none() && url.fragment().is_none());
        let lifetime_ms_max = match self.kind {
            IssuerKind::Helseid => 60_000,
            IssuerKind::Maskinporten => 120_000,
        };
        let helseid = self.kind == IssuerKind::Helseid;
        let rules = [
            (secure(&self.issuer), "auth.issuer is an https address without query (http within this machine only)".to_owned()),
            (self.metadata_url.as_deref().is_none_or(secure), "auth.metadata_url is an https address without query".to_owned()),
            (is_name(&self.client_id), "auth.client_id is the client's name at the issuer".to_owned()),
            (!self.key_file.as_os_str().is_empty(), "auth.key_file names the file with the client's private key".to_owned()),
            (
                !self.scope.trim().is_empty() && self.scope.split_whitespace().all(is_name),
                "auth.scope is what tokens are to open, like nhn:hendelser/subscribe; several with spaces between".to_owned(),
            ),
            (
                (1_000..=lifetime_ms_max).contains(&self.assertion_lifetime_ms),
                format!("auth.assertion_lifetime_ms is from 1000 to {lifetime_ms_max}"),
            ),
            (!helseid || self.certificate_file.is_none(), "auth.certificate_file is Maskinporten's".to_owned()),
            (!helseid || self.resource.is_none(), "auth.resource is Maskinporten's; with HelseID the scope says it".to_owned()),
            (helseid || self.child.is_none(), "auth.child is HelseID's".to_owned()),
        ];
        rules.into_iter().filter(|(good, _)| !good).map(|(_, fault)| fault).collect()
    }

    /// The scopes with one space between them.
    pub(super) fn scope(&self) -> String {
        self.scope.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// How long an assertion can be used, in whole seconds.
    pub(super) fn assertion_lifetime_s(&self) -> i64 {
        i64::try_from(self.assertion_lifetime_ms / 1_000).unwrap_or(1)
    }

    /// Where the issuer's document is: `path` below the issuer, unless the settings say otherwise.
    pub(super) fn metadata_url(&self, path: &str) -> Result<Url, CredentialsError> {
        let address = self.metadata_url.clone().unwrap_or_else(|| format!("{}{path}", self.issuer.trim_end_matches('/')));
        Url::parse(&address).map_err(|_| CredentialsError::Settings { faults: vec![format!("{address} is no address")] })
    }
}
