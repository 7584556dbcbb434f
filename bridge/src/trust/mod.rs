//! The bridge as a resource server: an issuer's tokens, and proofs beside them, open its API.
//!
//! Decisions are made in `ryggrad-bridge-core`; here are the clock, the issuer's keys ([`keys`]), the units of
//! the register ([`units`]) and the proofs that were used. Must never tell a caller which rule was broken, nor
//! log any part of a token.

mod keys;
mod metrics;
mod settings;
mod units;

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, Method};
use jiff::Timestamp;
use ryggrad_bridge_core::role::Role;
use ryggrad_bridge_core::trust::{
    AccessTokens, Algorithm, Call, Fault, Nonces, ProofRules, Replays, Token, TokenRules, credentials, scope_of,
};
use ryggrad_log::Connection;
use serde_json::{Value, json};

use self::keys::Keys;
use self::units::KnownUnits;
use crate::access::Access;
use crate::channel::webhook::Webhook;
use crate::problem::{Challenge, Problem};

pub use metrics::Metrics;
pub use settings::{InvalidTrust, TrustConfig};

/// Where the API describes itself to clients of the issuer (RFC 9728).
pub const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

const DPOP: HeaderName = HeaderName::from_static("dpop");

/// What callers are held to.
pub struct Trust {
    tokens: TokenRules,
    proofs: ProofRules,
    replays: Mutex<Replays>,
    keys: Keys,
    units: KnownUnits,
    metrics: Metrics,
}

impl Trust {
    /// From settings, with a key for nonces.
    pub fn new(config: &TrustConfig, development: bool, nonce_key: &[u8; 32], metrics: Metrics) -> Result<Self, InvalidTrust> {
        let (tokens, mut proofs) = config.rules(development)?;
        proofs.nonces = config.require_dpop_nonce.then(|| Nonces::new(nonce_key));
        Ok(Self {
            tokens,
            proofs,
            replays: Mutex::new(Replays::new(config.proofs_max)),
            keys: Keys::new(config, metrics.clone()),
            units: KnownUnits::new(config.units_max, metrics.clone()),
            metrics,
        })
    }

    /// Keeps the issuer's keys and the register's units fresh for as long as it is asked to.
    pub async fn follow(self: Arc<Self>, webhook: Webhook, connection: Connection, timeout_ms: u64) {
        futures_util::future::join(self.keys.follow(&webhook), self.units.follow(&connection, timeout_ms)).await;
    }

    /// Who sends a request, or why nobody is let in. Uses the proof up. `access` has who acts for whom, once that is known.
    pub async fn admit(&self, method: &Method, path: &str, headers: &HeaderMap, access: Option<&Access>) -> Result<Token, Problem> {
        self.check(method, path, headers, access).await.map_err(|fault| self.refuse(fault))
    }

    async fn check(&self, method: &Method, path: &str, headers: &HeaderMap, access: Option<&Access>) -> Result<Token, Fault> {
        let values = |name: HeaderName| headers.get_all(name).iter().map(|value| value.as_bytes());
        let shown = credentials(values(AUTHORIZATION), values(DPOP), self.tokens.tokens)?;
        let jws = self.tokens.read(shown.token)?;
        let keys = self.keys.with(jws.key_id()?).await.ok_or(Fault::NoKeys)?;
        let now_ms = Timestamp::now().as_millisecond();
        let token = self.tokens.check(&jws, &keys, now_ms)?;
        if self.tokens.tokens == AccessTokens::Dpop {
            let bound_to = token.bound_to.as_deref().ok_or(Fault::Unbound)?;
            let call = Call { method: method.as_str(), path, token: shown.token, bound_to };
            let proof = self.proofs.check(shown.proof.ok_or(Fault::NoProof)?, call, now_ms)?;
            let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
            let taken = replays.take(&proof, now_ms);
            self.metrics.proofs.set(i64::try_from(replays.len()).unwrap_or(i64::MAX));
            taken?;
        }
        self.speaks_for(&token, access)?;
        Ok(token)
    }

    /// Whether a token may speak for its organisation, as far as the bridge can tell.
    fn speaks_for(&self, token: &Token, access: Option<&Access>) -> Result<(), Fault> {
        if token.caller.supplier.is_some() && !access.ok_or(Fault::NoDelegations)?.delegated(token.caller) {
            return Err(Fault::Supplier);
        }
        token.child.map_or(Ok(()), |child| self.units.belongs(child, token.caller.organisation))
    }

    /// Whether a token that was good when it came is good still.
    pub fn holds(&self, token: &Token, access: Option<&Access>) -> bool {
        Timestamp::now().as_millisecond() < token.ends_at_ms && self.speaks_for(token, access).is_ok()
    }

    fn refuse(&self, fault: Fault) -> Problem {
        self.metrics.refused(fault);
        tracing::debug!(reason = fault.reason(), "a caller was refused");
        use ryggrad_bridge_core::trust::Refusal::{InsufficientScope, InvalidProof, InvalidToken, NoCredentials, Unavailable, UseNonce};
        let problem = match fault.refusal() {
            Unavailable => return Problem::unavailable("callers cannot be told apart right now; nothing was done"),
            InsufficientScope => Problem::forbidden("the token does not allow it; the operator sees why"),
            NoCredentials | InvalidToken | InvalidProof | UseNonce => {
                Problem::unauthorised("send an access token of the issuer as WWW-Authenticate says; the operator sees what is wrong")
            }
        };
        let error = match fault.refusal() {
            NoCredentials | Unavailable => None,
            InvalidToken => Some("invalid_token"),
            // Where no proofs are asked for, none can be wrong.
            InvalidProof => Some("invalid_dpop_proof"),
            UseNonce => Some("use_dpop_nonce"),
            InsufficientScope => Some("insufficient_scope"),
        };
        problem.challenged(self.challenge(error, None))
    }

    /// 403 for a token without the scope of a role.
    pub fn lacks(&self, role: Role) -> Problem {
        self.metrics.refused(Fault::NoRole);
        let scope = scope_of(&self.tokens.audience, role);
        Problem::lacks_scope(role, &scope).challenged(self.challenge(Some("insufficient_scope"), Some(&scope)))
    }

    fn challenge(&self, error: Option<&str>, scope: Option<&str>) -> Challenge {
        let mut parameters: Vec<String> = Vec::new();
        parameters.extend(error.map(|error| format!("error=\"{error}\"")));
        parameters.extend(scope.map(|scope| format!("scope=\"{scope}\"")));
        if self.tokens.tokens == AccessTokens::Dpop {
            parameters.push(format!("algs=\"{}\"", Algorithm::ALL.map(Algorithm::name).join(" ")));
        }
        parameters.push(format!("resource_metadata=\"{}\"", self.proofs.public_url.of(METADATA_PATH)));
        let now_ms = Timestamp::now().as_millisecond();
        Challenge {
            authenticate: format!("{} {}", self.tokens.tokens.scheme(), parameters.join(", ")),
            nonce: self.proofs.nonces.as_ref().map(|nonces| nonces.newest(now_ms)),
        }
    }

    /// The API as RFC 9728 describes one.
    pub fn metadata(&self) -> Value {
        let mut metadata = json!({
            "resource": self.proofs.public_url.of(""),
            "authorization_servers": [self.tokens.issuer],
            "scopes_supported": Role::ALL.map(|role| scope_of(&self.tokens.audience, role)),
            "bearer_methods_supported": ["header"],
        });
        if self.tokens.tokens == AccessTokens::Dpop {
            metadata["dpop_signing_alg_values_supported"] = json!(Algorithm::ALL.map(Algorithm::name));
            metadata["dpop_bound_access_tokens_required"] = json!(true);
        }
        metadata
    }
}
