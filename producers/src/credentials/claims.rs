//! What is signed towards an issuer and an API: client assertions, grants, proofs. Pure.
//!
//! HelseID as its own library does it; Maskinporten has no claims beside those it names, since it refuses
//! unknown ones. Not verified against the live issuers: that they take a key of the client's own making for
//! proofs, which RFC 9449 leaves free; Maskinporten's claims `consumer_org` and `resource`. Must never put an
//! address's query into a proof.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::{Value, json};
use url::Url;

/// When and under which id something is signed; both are used once.
#[derive(Debug, Clone)]
pub(super) struct Once {
    pub(super) now_s: i64,
    pub(super) id: String,
}

/// A client at HelseID.
#[derive(Debug, Clone)]
pub(super) struct HelseIdClient {
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) organisation: Option<Organisasjonsnummer>,
    pub(super) child: Option<Organisasjonsnummer>,
    pub(super) lifetime_s: i64,
}

impl HelseIdClient {
    /// The claims of an assertion of who the client is.
    pub(super) fn assertion(&self, once: &Once) -> Value {
        let mut claims = json!({
            "iss": self.client_id, "sub": self.client_id, "aud": self.issuer, "jti": once.id,
            "iat": once.now_s, "nbf": once.now_s, "exp": once.now_s + self.lifetime_s,
        });
        if let Some(details) = self.details() {
            claims["assertion_details"] = details;
        }
        claims
    }

    /// Whom it speaks for. The organisation of a client with one alone is known to HelseID: only a child is told.
    fn details(&self) -> Option<Value> {
        let child = self.child.map(|child| child.to_string());
        let identifier = match (self.organisation, child) {
            (Some(parent), child) => {
                // The last colon stays where there is no child.
                let value = format!("NO:ORGNR:{parent}:{}", child.unwrap_or_default());
                json!({"system": "urn:oid:1.0.6523", "type": "ENH", "value": value})
            }
            (None, Some(child)) => json!({"system": "urn:oid:2.16.578.1.12.4.1.4.101", "type": "ENH", "value": child}),
            (None, None) => return None,
        };
        Some(json!({"type": "helseid_authorization", "practitioner_role": {"organization": {"identifier": identifier}}}))
    }
}

/// A client at Maskinporten.
#[derive(Debug, Clone)]
pub(super) struct MaskinportenClient {
    pub(super) issuer: String,
    pub(super) client_id: String,
    pub(super) scope: String,
    /// On whose behalf, where that organisation has delegated.
    pub(super) organisation: Option<Organisasjonsnummer>,
    /// The API that the token is for alone.
    pub(super) resource: Option<String>,
    pub(super) lifetime_s: i64,
}

impl MaskinportenClient {
    /// The claims of a grant.
    pub(super) fn grant(&self, once: &Once) -> Value {
        let mut claims = json!({
            "aud": self.issuer, "iss": self.client_id, "scope": self.scope, "jti": once.id,
            "iat": once.now_s, "exp": once.now_s + self.lifetime_s,
        });
        if let Some(organisation) = self.organisation {
            claims["consumer_org"] = json!(organisation.to_string());
        }
        if let Some(resource) = &self.resource {
            claims["resource"] = json!(resource);
        }
        claims
    }
}

/// What a proof is about (DPoP, RFC 9449).
#[derive(Debug, Clone, Copy)]
pub(super) struct Proven<'p> {
    pub(super) method: &'p str,
    pub(super) url: &'p Url,
    pub(super) nonce: Option<&'p str>,
    /// The access token beside it, towards an API.
    pub(super) token: Option<&'p str>,
}

impl Proven<'_> {
    /// The claims of a proof.
    pub(super) fn claims(&self, once: &Once) -> Value {
        let mut address = self.url.clone();
        address.set_query(None);
        address.set_fragment(None);
        let mut claims = json!({"jti": once.id, "htm": self.method, "htu": address.as_str(), "iat": once.now_s});
        if let Some(nonce) = self.nonce {
            claims["nonce"] = json!(nonce);
        }
        if let Some(token) = self.token {
            claims["ath"] = json!(URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())));
        }
        claims
    }
}
