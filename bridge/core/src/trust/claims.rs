//! What an access token must say, and what it then stands for.
//!
//! HelseID's profile: the claims' names are its own. A token speaks for the organisation in `orgnr_parent`;
//! the child is asserted by the client alone, and must be held against the units that are known.

use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::algorithm::Algorithm;
use super::fault::Fault;
use super::jwk::KeySet;
use super::jws::{Jws, TOKEN_BYTES_MAX};
use crate::access::Caller;
use crate::role::{Role, Roles};

const PARENT: &str = "helseid://claims/client/claims/orgnr_parent";
const CHILD: &str = "helseid://claims/client/claims/orgnr_child";
const SUPPLIER: &str = "helseid://claims/client/claims/orgnr_supplier";
/// Longest client id, in bytes.
const CLIENT_BYTES_MAX: usize = 255;
/// A SHA-256 in base64url.
const THUMBPRINT_CHARS: usize = 43;

/// Which access tokens a deployment takes; never both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessTokens {
    /// Bound to a key, with a proof in each request.
    #[default]
    Dpop,
    /// Whoever has one may use it.
    Bearer,
}

impl AccessTokens {
    /// The scheme of `Authorization` and of challenges.
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::Dpop => "DPoP",
            Self::Bearer => "Bearer",
        }
    }
}

/// What a token must be.
#[derive(Debug, Clone)]
pub struct TokenRules {
    /// `iss`, to the letter.
    pub issuer: String,
    /// `aud`: this API's name at the issuer.
    pub audience: String,
    /// Bound to a key, or not.
    pub tokens: AccessTokens,
    /// How far the issuer's clock may be from this one.
    pub leeway_ms: i64,
}

/// A good token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The client.
    pub client: String,
    /// Whom it speaks for, and who runs the client if that is another.
    pub caller: Caller,
    /// The unit that the client says it is.
    pub child: Option<Organisasjonsnummer>,
    /// What it may do; at least one thing.
    pub roles: Roles,
    /// When it ends, leeway included.
    pub ends_at_ms: i64,
    /// The thumbprint of the key that it is bound to.
    pub bound_to: Option<String>,
}

/// The scope that gives a role at an API.
pub fn scope_of(audience: &str, role: Role) -> String {
    format!("{audience}/{}", role.name())
}

impl TokenRules {
    /// Takes a token apart, and tells the name of the key that must have signed it.
    pub fn read<'t>(&self, token: &'t str) -> Result<Jws<'t>, Fault> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Fault::TokenSize);
        }
        let jws = Jws::read(token).ok_or(Fault::TokenShape)?;
        if jws.header("crit").is_some() {
            return Err(Fault::TokenCritical);
        }
        jws.header_text("alg").and_then(Algorithm::named).ok_or(Fault::TokenAlgorithm)?;
        // A media type: its letters' case says nothing.
        let typ = jws.header_text("typ").ok_or(Fault::TokenType)?;
        let typ = typ.get(..12).filter(|front| front.eq_ignore_ascii_case("application/")).map_or(typ, |_| &typ[12..]);
        if !typ.eq_ignore_ascii_case("at+jwt") && !typ.eq_ignore_ascii_case("JWT") {
            return Err(Fault::TokenType);
        }
        Ok(jws)
    }

    /// Holds a token against the issuer's keys and every rule.
    pub fn check(&self, jws: &Jws<'_>, keys: &KeySet, now_ms: i64) -> Result<Token, Fault> {
        let key = keys.find(jws.key_id()?)?;
        let algorithm = jws.header_text("alg").and_then(Algorithm::named).ok_or(Fault::TokenAlgorithm)?;
        if !key.is_for(algorithm) {
            return Err(Fault::KeyAlgorithm);
        }
        if !key.signed(algorithm, jws) {
            return Err(Fault::TokenSignature);
        }
        if jws.claim_text("iss") != Some(self.issuer.as_str()) {
            return Err(Fault::Issuer);
        }
        let audience = match jws.claim("aud") {
            Some(Value::Array(all)) if all.len() == 1 => all[0].as_str(),
            Some(Value::String(one)) => Some(one.as_str()),
            _ => None,
        };
        if audience != Some(self.audience.as_str()) {
            return Err(Fault::Audience);
        }
        let ends_at_ms = jws.claim_ms("exp").ok_or(Fault::Expired)?.saturating_add(self.leeway_ms);
        if now_ms >= ends_at_ms {
            return Err(Fault::Expired);
        }
        for (name, fault) in [("nbf", Fault::NotYetValid), ("iat", Fault::IssuedAt)] {
            if jws.claim(name).is_some() && jws.claim_ms(name).is_none_or(|at_ms| at_ms > now_ms.saturating_add(self.leeway_ms)) {
                return Err(fault);
            }
        }
        let client = jws.claim_text("client_id").filter(|client| (1..=CLIENT_BYTES_MAX).contains(&client.len())).ok_or(Fault::Client)?;
        let bound_to = self.bound_to(jws)?;
        let roles = self.roles(jws)?;
        let organisation = number(jws, PARENT)?.ok_or(Fault::Organisation)?;
        let (child, caller) = (number(jws, CHILD)?, Caller::new(organisation, number(jws, SUPPLIER)?));
        let roles = if caller.supplier.is_some() { roles.lent().ok_or(Fault::NoRole)? } else { roles };
        Ok(Token { client: client.to_owned(), caller, child, roles, ends_at_ms, bound_to })
    }

    fn bound_to(&self, jws: &Jws<'_>) -> Result<Option<String>, Fault> {
        let confirmation = match jws.claim("cnf") {
            None => None,
            Some(Value::Object(members)) => Some(members),
            Some(_) => return Err(Fault::Confirmation),
        };
        match (self.tokens, confirmation) {
            (AccessTokens::Bearer, None) => Ok(None),
            // Bound to whatever it is: whoever merely bears it may be a thief.
            (AccessTokens::Bearer, Some(_)) => Err(Fault::Bound),
            (AccessTokens::Dpop, None) => Err(Fault::Unbound),
            (AccessTokens::Dpop, Some(members)) => match members.get("jkt") {
                None => Err(Fault::Unbound),
                Some(Value::String(thumbprint)) if thumbprint.len() == THUMBPRINT_CHARS => Ok(Some(thumbprint.clone())),
                Some(_) => Err(Fault::Confirmation),
            },
        }
    }

    /// The roles that the scopes of this API give; those of other APIs are none of its business.
    fn roles(&self, jws: &Jws<'_>) -> Result<Roles, Fault> {
        let scopes: Vec<&str> = match jws.claim("scope") {
            None => Vec::new(),
            Some(Value::String(text)) => text.split(' ').collect(),
            Some(Value::Array(all)) => all.iter().map(Value::as_str).collect::<Option<_>>().ok_or(Fault::ScopeShape)?,
            Some(_) => return Err(Fault::ScopeShape),
        };
        let own = |scope: &str| scope.strip_prefix(self.audience.as_str()).and_then(|rest| rest.strip_prefix('/')).map(str::to_owned);
        let names: Vec<String> = scopes.into_iter().filter_map(own).collect();
        let given = Role::ALL.into_iter().filter(|role| names.iter().any(|name| name == role.name()));
        Roles::of(given).ok_or(Fault::NoRole)
    }
}

/// An organisation number in a claim; an empty text is none.
fn number(jws: &Jws<'_>, name: &str) -> Result<Option<Organisasjonsnummer>, Fault> {
    match jws.claim(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => text.parse().map(Some).map_err(|_| Fault::Organisation),
        Some(_) => Err(Fault::Organisation),
    }
}
