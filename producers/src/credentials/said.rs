//! What an access token says of itself, for people who try credentials out. Pure.
//!
//! Nothing is verified: that is for the API that the token is shown to. Must never show the token, nor a claim
//! that is not listed here: some are about persons.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

const HELSEID: &str = "helseid://claims/client/claims/";

/// What a token says; empty where it says nothing, or cannot be read by its client.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenSays {
    /// `iss`.
    pub issuer: Option<String>,
    /// `aud`.
    pub audience: Vec<String>,
    /// `client_id`.
    pub client_id: Option<String>,
    /// What it opens, by the token, else by the answer that it came in.
    pub scopes: Vec<String>,
    /// Whom it speaks for.
    pub organisation: Option<String>,
    /// The unit that the client says it is.
    pub child: Option<String>,
    /// Who runs the client, if that is another.
    pub supplier: Option<String>,
    /// Whether it is bound to a key (DPoP).
    pub bound: bool,
    /// When it ends, seconds since 1970.
    pub expires_at_s: Option<i64>,
}

impl TokenSays {
    /// Reads a token, with the scope that it was issued with.
    pub fn of(token: &str, scope: Option<&str>) -> Self {
        let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
        let claims: Map<String, Value> = payload.and_then(|payload| serde_json::from_slice(&payload).ok()).unwrap_or_default();
        let text = |name: &str| claims.get(name).and_then(Value::as_str).map(str::to_owned);
        let words = |name: &str| match claims.get(name) {
            Some(Value::String(text)) => text.split(' ').map(str::to_owned).collect(),
            Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        // Maskinporten's form: the number of an organisation behind the code of the register.
        let party = |name: &str| {
            let id = claims.get(name).and_then(|party| party.get("ID")).and_then(Value::as_str)?;
            Some(id.strip_prefix("0192:").unwrap_or(id).to_owned())
        };
        let helseid = |name: &str| text(&format!("{HELSEID}{name}")).filter(|number| !number.is_empty());
        let mut scopes = words("scope");
        if scopes.is_empty() {
            scopes = scope.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        }
        Self {
            issuer: text("iss"),
            audience: words("aud"),
            client_id: text("client_id"),
            scopes,
            organisation: helseid("orgnr_parent").or_else(|| party("consumer")),
            child: helseid("orgnr_child"),
            supplier: helseid("orgnr_supplier").or_else(|| party("supplier")),
            bound: claims.get("cnf").and_then(|cnf| cnf.get("jkt")).is_some(),
            expires_at_s: claims.get("exp").and_then(Value::as_i64),
        }
    }
}
