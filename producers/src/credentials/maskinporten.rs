//! A client of Maskinporten: it signs a grant, and gets a token that whoever bears it may use.
//!
//! Not verified against the live issuer: where its document is (RFC 8414's place), and that a grant's header
//! needs no `typ`. Must never sign with anything but RSA: other algorithms are not taken there.

use std::fmt;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use url::Url;

use super::claims::MaskinportenClient;
use super::config::AuthConfig;
use super::error::{CredentialsError, TokenError};
use super::key::{Algorithm, SigningKey};
use super::said::TokenSays;
use super::tokens::{Grant, Request, Tokens, once};
use super::{Again, Authorisation, Credentials, files};
use crate::ProducerConfig;

struct MaskinportenGrant {
    client: MaskinportenClient,
    key: SigningKey,
    /// The whole header: it names the key, or shows its certificates.
    header: Value,
}

impl Grant for MaskinportenGrant {
    const TOKEN_TYPE: &'static str = "Bearer";
    const METADATA_PATH: &'static str = "/.well-known/oauth-authorization-server";

    fn request(&self, _endpoint: &Url, _nonce: Option<&str>) -> Result<Request, TokenError> {
        let assertion = self.key.sign(&self.header, &self.client.grant(&once())).map_err(|_| TokenError::Sign)?;
        let grant_type = "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned();
        Ok(Request { form: vec![("grant_type", grant_type), ("assertion", assertion)], proof: None })
    }
}

/// A client of Maskinporten.
pub(super) struct Maskinporten(Tokens<MaskinportenGrant>);

impl fmt::Debug for Maskinporten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Maskinporten(…)")
    }
}

impl Maskinporten {
    pub(super) fn new(config: &ProducerConfig, auth: &AuthConfig) -> Result<Self, CredentialsError> {
        let key = files::key(auth, Algorithm::Rs256)?;
        let algorithm = key.algorithm();
        if !matches!(algorithm, Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512) {
            return Err(CredentialsError::Algorithm { algorithm: algorithm.name() });
        }
        let mut header = json!({"alg": algorithm.name()});
        match &auth.certificate_file {
            Some(file) => header["x5c"] = json!(files::certificates(file)?),
            None => header["kid"] = json!(files::key_id(auth, &key)?),
        }
        let client = MaskinportenClient {
            issuer: auth.issuer.clone(),
            client_id: auth.client_id.clone(),
            scope: auth.scope(),
            organisation: auth.organisation,
            resource: auth.resource.clone(),
            lifetime_s: auth.assertion_lifetime_s(),
        };
        Ok(Self(Tokens::new(config, auth, MaskinportenGrant { client, key, header })?))
    }
}

impl Credentials for Maskinporten {
    fn authorise<'c>(&'c self, _method: &'c Method, _url: &'c Url) -> BoxFuture<'c, Result<Authorisation, TokenError>> {
        async move {
            let token = self.0.token().await?;
            let bearer = format!("Bearer {}", token.text.expose_secret());
            Authorisation::new(token.number, None, [Some((AUTHORIZATION, bearer)), None])
        }
        .boxed()
    }

    fn answered(&self, shown: &Authorisation, status: u16, _headers: &HeaderMap) -> Again {
        if status == 401 && self.0.not_taken(shown.token_number) { Again::WithToken } else { Again::No }
    }

    fn token_says(&self) -> BoxFuture<'_, Result<TokenSays, TokenError>> {
        self.0.says().boxed()
    }
}
