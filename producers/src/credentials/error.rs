//! Why there are no credentials, or no token.
//!
//! Texts must never quote what an issuer sent, but for the code of its refusal and the names of scopes.

use std::sync::Arc;

use super::issuer::{InvalidAnswer, InvalidMetadata};
use super::key::InvalidKey;

/// Why there are no credentials; waiting would not help.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// No HTTP client can be built.
    #[error("cannot set up an HTTP client for the issuer")]
    Client(#[source] reqwest::Error),
    /// The settings make no sense; every fault.
    #[error("the settings of the credentials are wrong: {}", faults.join("; "))]
    Settings {
        /// The faults.
        faults: Vec<String>,
    },
    /// A file can't be read.
    #[error("auth.{setting}: {file} cannot be read")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that holds no key.
    #[error("auth.key_file: {file} holds no key to sign with")]
    Key {
        /// The file.
        file: String,
        /// Why.
        #[source]
        source: InvalidKey,
    },
    /// A file that holds no certificate.
    #[error("auth.certificate_file: {file} holds no certificates in PEM")]
    Certificate {
        /// The file.
        file: String,
    },
    /// The issuer could not tell which key it is.
    #[error("the key in {file} has no name: set auth.key_id to the one (kid) under which its public half is registered with the issuer")]
    NoKeyId {
        /// The file.
        file: String,
    },
    /// The issuer would refuse it.
    #[error("Maskinporten takes signatures by RS256, RS384 and RS512, and not {algorithm}: use an RSA key")]
    Algorithm {
        /// What the key would be used with.
        algorithm: &'static str,
    },
}

/// Why there is no token now.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TokenError {
    /// No connection, or it broke.
    #[error("the issuer cannot be reached, or broke off")]
    Unreachable(#[source] Arc<reqwest::Error>),
    /// The issuer can't answer now.
    #[error("the issuer cannot answer now (status {status})")]
    Unavailable {
        /// HTTP status.
        status: u16,
    },
    /// There is no document about the issuer.
    #[error("the issuer has no document about itself there (status {status})")]
    NoMetadata {
        /// HTTP status.
        status: u16,
    },
    /// The document is not taken.
    #[error(transparent)]
    Metadata(#[from] InvalidMetadata),
    /// The issuer refuses.
    #[error("the issuer refuses a token (status {status}, {code})")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The error's code (RFC 6749, RFC 9449).
        code: String,
    },
    /// Some of the scopes are not given.
    #[error("the issuer rejects the scope {scope} for this organisation")]
    ScopeRejected {
        /// Those scopes.
        scope: String,
    },
    /// The answer is no token.
    #[error(transparent)]
    Answer(#[from] InvalidAnswer),
    /// Nothing can be signed.
    #[error("the key cannot sign")]
    Sign,
}

impl TokenError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "check issuer, the network and the proxy",
            Self::Unavailable { .. } => "try again later",
            Self::NoMetadata { .. } => "check issuer, or name the document with metadata_url",
            Self::Metadata(_) => "set issuer to the name that the issuer gives itself, with or without a slash at the end",
            Self::Refused { code, .. } => match code.as_str() {
                "invalid_client" => {
                    "check client_id, that the public half of key_file is registered there under key_id, issuer, and this machine's clock"
                }
                "invalid_grant" => "check client_id, key_id or certificate, issuer, organisation, and this machine's clock",
                "invalid_scope" => "check scope, and that the client has been given it",
                "unauthorized_client" => "check that the client may ask for tokens by itself, and for this organisation",
                "invalid_dpop_proof" | "use_dpop_nonce" => {
                    "check this machine's clock, and that nothing between here and the issuer rewrites addresses"
                }
                "invalid_target" => "check resource",
                _ => "check client_id, key, scope and organisation against what is registered with the issuer",
            },
            Self::ScopeRejected { .. } => "let the organisation accept the API's terms with the issuer, or ask for less",
            Self::Answer(InvalidAnswer::Type { .. }) => "check kind, and whether the client is set up for DPoP with the issuer",
            Self::Answer(_) => "check that issuer is an issuer of access tokens",
            Self::Sign => "check key_file",
        }
    }

    /// Whether nothing but waiting helps.
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unavailable { .. })
    }

    /// Short name, for metrics.
    pub(crate) fn code(&self) -> String {
        match self {
            Self::Unreachable(_) => "token-unreachable".to_owned(),
            Self::Unavailable { status } | Self::NoMetadata { status } => format!("token-status-{status}"),
            Self::Metadata(_) => "token-metadata".to_owned(),
            Self::Refused { .. } | Self::ScopeRejected { .. } => "token-refused".to_owned(),
            Self::Answer(_) => "token-answer".to_owned(),
            Self::Sign => "token-sign".to_owned(),
        }
    }
}
