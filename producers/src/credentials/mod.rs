//! Access to registries that want to know who asks: tokens of HelseID and of Maskinporten, behind one trait.
//!
//! Cast: [`Credentials`] says what a request has to carry, [`AuthConfig`] whose tokens those are. Pure, with
//! moments and ids passed in: `claims` (what is signed), `issuer` (what an issuer answers), `cache` (when a new
//! token is asked for), `said` (what a token says of itself). The shell: `tokens` (asks the issuer, one request
//! at a time), `helseid`, `maskinporten`, `files`. Signing is done here, with ring; verifying is the bridge's.
//!
//! Must never print, log or put into an error a token, an assertion, a proof or a key, nor send one over plain
//! http to another machine.

mod cache;
mod claims;
mod config;
mod error;
mod files;
mod helseid;
pub mod issuer;
pub mod key;
mod maskinporten;
pub mod said;
#[cfg(test)]
mod tests;
mod tokens;

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

pub use config::{AuthConfig, IssuerKind};
pub use error::{CredentialsError, TokenError};
pub(crate) use issuer::is_secure;
pub use issuer::{InvalidAnswer, InvalidMetadata};
pub use key::{Algorithm, InvalidKey};
pub use said::TokenSays;

use crate::ProducerConfig;
use helseid::HelseId;
use maskinporten::Maskinporten;

/// Longest nonce that is repeated to whoever gave it.
const NONCE_BYTES_MAX: usize = 512;

/// Who this producer is at one upstream.
pub trait Credentials: fmt::Debug + Send + Sync {
    /// What a request with this method to this address has to carry.
    fn authorise<'c>(&'c self, method: &'c Method, url: &'c Url) -> BoxFuture<'c, Result<Authorisation, TokenError>>;

    /// Takes note of an answer: whether the request may succeed with another authorisation.
    fn answered(&self, shown: &Authorisation, status: u16, headers: &HeaderMap) -> Again;

    /// What the present token says of itself; asks for one if there is none.
    fn token_says(&self) -> BoxFuture<'_, Result<TokenSays, TokenError>>;
}

/// What one request carries. A proof is good for one request alone.
#[derive(Debug)]
pub struct Authorisation {
    /// Its headers, none of which prints.
    pub headers: HeaderMap,
    /// Which of this client's tokens is among them.
    token_number: u64,
    nonce: Option<String>,
}

/// Whether a request is worth repeating, each way once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// It is not.
    No,
    /// With the nonce that was asked for.
    WithNonce,
    /// With another token: this one is not taken any more.
    WithToken,
}

impl Authorisation {
    fn new(token_number: u64, nonce: Option<String>, headers: [Option<(HeaderName, String)>; 2]) -> Result<Self, TokenError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers.into_iter().flatten() {
            let mut value = HeaderValue::try_from(value).map_err(|_| InvalidAnswer::Token)?;
            value.set_sensitive(true);
            map.insert(name, value);
        }
        Ok(Self { headers: map, token_number, nonce })
    }
}

/// The credentials that the settings name, with their key read; none if they name none.
pub fn credentials(config: &ProducerConfig) -> Result<Option<Arc<dyn Credentials>>, CredentialsError> {
    let Some(auth) = &config.auth else { return Ok(None) };
    let faults = auth.faults();
    if !faults.is_empty() {
        return Err(CredentialsError::Settings { faults });
    }
    Ok(Some(match auth.kind {
        IssuerKind::Helseid => Arc::new(HelseId::new(config, auth)?),
        IssuerKind::Maskinporten => Arc::new(Maskinporten::new(config, auth)?),
    }))
}

/// The nonce that an answer gives.
fn nonce(headers: &HeaderMap) -> Option<String> {
    let nonce = headers.get("dpop-nonce")?.to_str().ok()?;
    (1..=NONCE_BYTES_MAX).contains(&nonce.len()).then(|| nonce.to_owned())
}
