//! Who calls: the bearer of a local token, or the client of an issuer, in the roles that it has.
//!
//! Where an issuer is configured, its tokens alone count: neither local tokens nor the operator's own. Must
//! never tell a caller more than which role is missing, and looks at a proof once for each request.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, Method};
use ryggrad_bridge_core::access::{self, Sight, Who};
use ryggrad_bridge_core::role::{Role, Roles};
use ryggrad_bridge_core::trust::Token;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::Shared;
use crate::access::Access;
use crate::problem::Problem;
use crate::subscriptions::Subscriptions;
use crate::trust::Trust;

/// The caller of a request.
#[derive(Clone)]
pub struct Caller {
    /// Whom it speaks for, and who acts; none for the operator's own token.
    party: Option<access::Caller>,
    roles: Roles,
    /// The issuer's token, and who holds it to the rules.
    issued: Option<(Arc<Trust>, Arc<Token>)>,
    /// The id of a local token.
    token: Option<Uuid>,
}

impl Caller {
    /// What the caller may see.
    pub fn sight(&self) -> Result<Sight, Problem> {
        if self.roles.has(Role::Operate) { Ok(Sight::All) } else { self.subscriber().map(Sight::Of) }
    }

    /// Whom the caller subscribes for.
    pub fn subscriber(&self) -> Result<access::Caller, Problem> {
        self.needs(Role::Subscribe)?;
        self.party.ok_or_else(|| Problem::forbidden("an operator's token speaks for no organisation; use an organisation's token"))
    }

    /// Refuses whoever merely sees what a supplier has made for it.
    pub fn runs(&self, maker: access::Caller) -> Result<(), Problem> {
        if self.sight()?.runs(maker) { Ok(()) } else { Err(Problem::run_by_supplier()) }
    }

    /// Refuses who acts for another: some things an organisation says itself.
    pub fn speaks_itself(&self) -> Result<(), Problem> {
        let refused = || Problem::forbidden("an organisation says that itself: no supplier says it in its name");
        if self.supplier().is_none() { Ok(()) } else { Err(refused()) }
    }

    /// The organisation that the caller speaks for, if any.
    pub fn organisation(&self) -> Option<Organisasjonsnummer> {
        self.party.map(|party| party.organisation)
    }

    /// Who acts for that organisation, if it does not itself.
    pub fn supplier(&self) -> Option<Organisasjonsnummer> {
        self.party?.supplier
    }

    /// Who changes something, for the history.
    pub fn who(&self) -> Who {
        let token = self.token.map(|token| token.to_string());
        let client = self.issued.as_ref().map(|(_, token)| token.client.clone());
        let (organisation, supplier) = (self.organisation(), self.supplier());
        Who { organisation, supplier, roles: Some(self.roles.clone()), token, client, event: None }
    }

    /// Who the caller's idempotency keys are counted for.
    pub(super) fn owner(&self) -> String {
        match self.party {
            None => "operator".to_owned(),
            Some(access::Caller { organisation, supplier: None }) => organisation.to_string(),
            Some(access::Caller { organisation, supplier: Some(supplier) }) => format!("{supplier} for {organisation}"),
        }
    }

    /// All that decides about what the caller may do: who has the same may see the same answers.
    pub(super) fn rights(&self) -> String {
        // Names of roles, which have a JSON form.
        serde_json::to_string(&self.roles).unwrap_or_default()
    }

    /// Refuses everyone who lacks a role.
    pub fn needs(&self, role: Role) -> Result<(), Problem> {
        match &self.issued {
            _ if self.roles.has(role) => Ok(()),
            None => Err(Problem::lacks(role)),
            Some((trust, _)) => Err(trust.lacks(role)),
        }
    }
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        caller_of(shared, &parts.method, parts.uri.path(), &parts.headers, &mut parts.extensions).await
    }
}

/// Who sends a request, as of now: found once, and then known by the request, since a proof counts once.
pub(super) async fn caller_of(
    shared: &Shared,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    known: &mut Extensions,
) -> Result<Caller, Problem> {
    if let Some(caller) = known.get::<Caller>() {
        return Ok(caller.clone());
    }
    let caller = match &shared.trust {
        None => local(shared, headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok())).await?,
        Some(trust) => {
            let token = trust.admit(method, path, headers, access_of(shared)).await?;
            Caller {
                party: Some(token.caller),
                roles: token.roles.clone(),
                token: None,
                issued: Some((Arc::clone(trust), Arc::new(token))),
            }
        }
    };
    if let Some(party) = caller.party.filter(|_| !caller.roles.has(Role::Operate)) {
        shared.quota.take(party).map_err(|wait_s| {
            shared.telemetry.requests_refused.inc();
            Problem::too_many(wait_s)
        })?;
    }
    known.insert(caller.clone());
    Ok(caller)
}

/// Who acts for whom, once that is known.
fn access_of(shared: &Shared) -> Option<&Access> {
    shared.ready.get().map(|ready| &*ready.access)
}

/// Whose local token a header `Authorization` holds.
async fn local(shared: &Shared, header: Option<&str>) -> Result<Caller, Problem> {
    let (scheme, token) = header
        .and_then(|value| value.split_once(' '))
        .ok_or_else(|| Problem::unauthorised("send the header Authorization: Bearer <token>"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::unauthorised("the scheme is Bearer"));
    }
    let is_same = |known: &SecretString| bool::from(token.as_bytes().ct_eq(known.expose_secret().as_bytes()));
    if shared.operator_tokens.iter().any(is_same) {
        return Ok(Caller { party: None, roles: Roles::all(), token: None, issued: None });
    }
    let bearer = shared.ready()?.tokens.bearer(token, jiff::Timestamp::now()).await;
    bearer
        .map(|token| Caller { party: Some(token.caller()), roles: token.roles, token: Some(token.id), issued: None })
        .ok_or_else(|| Problem::unauthorised("the token is unknown, revoked or expired; ask the operator for a new one"))
}

/// What a connection was opened with, to be looked at again while it is open.
pub(super) enum Standing {
    /// The header with a local token.
    Local(SecretString),
    /// The caller with an issuer's token, whose proof was for the opening alone.
    Issued(Caller),
}

impl Standing {
    /// Of a caller who opens a connection.
    pub(super) fn of(caller: Caller, headers: &HeaderMap) -> Self {
        match caller.issued {
            Some(_) => Self::Issued(caller),
            None => Self::Local(headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default().into()),
        }
    }

    /// Whether it still sees a subscription.
    pub(super) async fn sees(&self, shared: &Shared, subscriptions: &Subscriptions, id: Uuid) -> bool {
        match self.caller(shared).await.map(|caller| caller.sight()) {
            Some(Ok(sight)) => subscriptions.get(sight, id).await.is_some(),
            Some(Err(_)) | None => false,
        }
    }

    /// Who this is now, if it is anyone still.
    async fn caller(&self, shared: &Shared) -> Option<Caller> {
        match self {
            Self::Local(header) => local(shared, Some(header.expose_secret())).await.ok(),
            Self::Issued(caller) => {
                let (trust, token) = caller.issued.as_ref()?;
                trust.holds(token, access_of(shared)).then(|| caller.clone())
            }
        }
    }
}
