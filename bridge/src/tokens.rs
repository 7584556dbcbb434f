//! Locally issued access tokens, each bound to one organisation and a set of roles.
//!
//! The topic holds a hash, never the token. A token reads `ryg_<id>_<secret>`; the id finds the
//! hash and the comparison takes constant time.

use std::collections::BTreeMap;

use ryggrad_bridge_core::access::Caller;
use ryggrad_bridge_core::idempotency::is_repeated;
use ryggrad_bridge_core::role::Roles;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::RwLock;
use uuid::Uuid;

use crate::facts::Facts;
use crate::hexadecimal;

const PREFIX: &str = "ryg";

/// A token as it is kept and listed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// Its id, which is no secret.
    pub id: Uuid,
    /// The organisation that its bearer speaks for.
    pub organisation: Organisasjonsnummer,
    /// The supplier whose bearer acts for that organisation, if it is not the organisation's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplier: Option<Organisasjonsnummer>,
    /// What its bearer may do.
    #[serde(default)]
    pub roles: Roles,
    /// The operator's own words.
    pub description: Option<String>,
    /// When it was issued.
    pub created_at: jiff::Timestamp,
    /// When it ends.
    pub expires_at: jiff::Timestamp,
    /// Whether it was revoked.
    pub revoked: bool,
    /// SHA-256 of the secret part, in hexadecimal.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hash: String,
}

impl Token {
    /// Whom its bearer is.
    pub fn caller(&self) -> Caller {
        Caller::new(self.organisation, self.supplier)
    }
}

/// All tokens.
pub struct Tokens {
    facts: Facts,
    known: RwLock<BTreeMap<String, Token>>,
}

impl Tokens {
    /// Tokens as loaded from their topic.
    pub fn new(facts: Facts, known: BTreeMap<String, Token>) -> Self {
        Self { facts, known: RwLock::new(known) }
    }

    /// Issues a token; of this id, if its request has one: then it takes the place of a token whose text got lost on its
    /// way. The text is returned once and kept nowhere.
    pub async fn issue(
        &self,
        id: Option<Uuid>,
        Caller { organisation, supplier }: Caller,
        roles: Roles,
        description: Option<String>,
        created_at: jiff::Timestamp,
        expires_at: jiff::Timestamp,
    ) -> Result<(Token, String), ryggrad_log::Error> {
        let mut known = self.known.write().await;
        let lost = |there: &Token| !there.revoked && is_repeated(Some(there.created_at), created_at);
        let id = id.filter(|id| known.get(&id.to_string()).is_none_or(lost)).unwrap_or_else(Uuid::now_v7);
        let secret = hexadecimal::encode(&rand::random::<[u8; 32]>());
        let token = Token { id, organisation, supplier, roles, description, created_at, expires_at, revoked: false, hash: hash(&secret) };
        self.facts.put(id.to_string(), &token).await?;
        known.insert(id.to_string(), token.clone());
        Ok((token, format!("{PREFIX}_{}_{secret}", id.simple())))
    }

    /// Every token, without its hash.
    pub async fn list(&self) -> Vec<Token> {
        self.known.read().await.values().map(|token| Token { hash: String::new(), ..token.clone() }).collect()
    }

    /// Revokes a token; false if there is none of that id.
    pub async fn revoke(&self, id: Uuid) -> Result<bool, ryggrad_log::Error> {
        let mut known = self.known.write().await;
        let Some(token) = known.get(&id.to_string()) else { return Ok(false) };
        let revoked = Token { revoked: true, ..token.clone() };
        self.facts.put(id.to_string(), &revoked).await?;
        known.insert(id.to_string(), revoked);
        Ok(true)
    }

    /// What is kept of a token, if it is good.
    pub async fn bearer(&self, token: &str, now: jiff::Timestamp) -> Option<Token> {
        let (id, secret) = token.strip_prefix(PREFIX)?.strip_prefix('_')?.split_once('_')?;
        let id: Uuid = id.parse().ok()?;
        let known = self.known.read().await;
        let token = known.get(&id.to_string())?;
        let fits: bool = token.hash.as_bytes().ct_eq(hash(secret).as_bytes()).into();
        (fits && !token.revoked && now < token.expires_at).then(|| token.clone())
    }
}

fn hash(secret: &str) -> String {
    hexadecimal::encode(&Sha256::digest(secret))
}
