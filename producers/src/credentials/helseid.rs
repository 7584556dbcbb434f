//! A client of HelseID: it says who it is with a signed assertion, and its tokens are bound to a key (DPoP).
//!
//! The key of proofs is made at the start and lies nowhere: a token is worth nothing to whoever copies it, and
//! the registered key signs assertions alone. Must never show a token without a proof made for that request.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, WWW_AUTHENTICATE};
use secrecy::ExposeSecret;
use serde_json::json;
use url::Url;

use super::claims::{HelseIdClient, Proven};
use super::config::AuthConfig;
use super::error::{CredentialsError, TokenError};
use super::key::{Algorithm, SigningKey};
use super::said::TokenSays;
use super::tokens::{Grant, Request, Tokens, once};
use super::{Again, Authorisation, Credentials, files, nonce};
use crate::ProducerConfig;

const DPOP: HeaderName = HeaderName::from_static("dpop");

struct HelseIdGrant {
    client: HelseIdClient,
    scope: String,
    key: SigningKey,
    key_id: String,
    proofs: Proofs,
}

impl Grant for HelseIdGrant {
    const TOKEN_TYPE: &'static str = "DPoP";
    const METADATA_PATH: &'static str = "/.well-known/openid-configuration";

    fn request(&self, endpoint: &Url, nonce: Option<&str>) -> Result<Request, TokenError> {
        let header = json!({"alg": self.key.algorithm().name(), "kid": self.key_id, "typ": "client-authentication+jwt"});
        let assertion = self.key.sign(&header, &self.client.assertion(&once())).map_err(|_| TokenError::Sign)?;
        let form = vec![
            ("grant_type", "client_credentials".to_owned()),
            ("client_id", self.client.client_id.clone()),
            ("scope", self.scope.clone()),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer".to_owned()),
            ("client_assertion", assertion),
        ];
        let proof = self.proofs.of(Proven { method: "POST", url: endpoint, nonce, token: None })?;
        Ok(Request { form, proof: Some(proof) })
    }
}

/// The key that tokens are bound to.
struct Proofs(SigningKey);

impl Proofs {
    fn of(&self, proven: Proven<'_>) -> Result<String, TokenError> {
        let header = json!({"typ": "dpop+jwt", "alg": self.0.algorithm().name(), "jwk": self.0.public_jwk()});
        self.0.sign(&header, &proven.claims(&once())).map_err(|_| TokenError::Sign)
    }
}

/// A client of HelseID.
pub(super) struct HelseId {
    tokens: Tokens<HelseIdGrant>,
    /// What the API wants in the next proof.
    nonce: Mutex<Option<String>>,
}

impl fmt::Debug for HelseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HelseId(…)")
    }
}

impl HelseId {
    pub(super) fn new(config: &ProducerConfig, auth: &AuthConfig) -> Result<Self, CredentialsError> {
        // FAPI 2.0 has PS256 for RSA keys.
        let key = files::key(auth, Algorithm::Ps256)?;
        let proofs = SigningKey::fresh().map_err(|source| CredentialsError::Key { file: "memory".to_owned(), source })?;
        let client = HelseIdClient {
            issuer: auth.issuer.clone(),
            client_id: auth.client_id.clone(),
            organisation: auth.organisation,
            child: auth.child,
            lifetime_s: auth.assertion_lifetime_s(),
        };
        let grant = HelseIdGrant { client, scope: auth.scope(), key_id: files::key_id(auth, &key)?, key, proofs: Proofs(proofs) };
        Ok(Self { tokens: Tokens::new(config, auth, grant)?, nonce: Mutex::default() })
    }

    fn nonce(&self) -> MutexGuard<'_, Option<String>> {
        self.nonce.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Credentials for HelseId {
    fn authorise<'c>(&'c self, method: &'c Method, url: &'c Url) -> BoxFuture<'c, Result<Authorisation, TokenError>> {
        async move {
            let token = self.tokens.token().await?;
            let (text, nonce) = (token.text.expose_secret(), self.nonce().clone());
            let proven = Proven { method: method.as_str(), url, nonce: nonce.as_deref(), token: Some(text) };
            let proof = self.tokens.grant().proofs.of(proven)?;
            Authorisation::new(token.number, nonce, [Some((AUTHORIZATION, format!("DPoP {text}"))), Some((DPOP, proof))])
        }
        .boxed()
    }

    fn answered(&self, shown: &Authorisation, status: u16, headers: &HeaderMap) -> Again {
        let fresh = nonce(headers).filter(|fresh| shown.nonce.as_ref() != Some(fresh));
        let is_fresh = fresh.is_some();
        if is_fresh {
            *self.nonce() = fresh;
        }
        let challenges = || headers.get_all(WWW_AUTHENTICATE).into_iter().filter_map(|challenge| challenge.to_str().ok());
        match status {
            401 if is_fresh && challenges().any(|challenge| challenge.contains("use_dpop_nonce")) => Again::WithNonce,
            401 if self.tokens.not_taken(shown.token_number) => Again::WithToken,
            _ => Again::No,
        }
    }

    fn token_says(&self) -> BoxFuture<'_, Result<TokenSays, TokenError>> {
        self.tokens.says().boxed()
    }
}
