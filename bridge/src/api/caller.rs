//! Who calls: the operator, or a bearer token's organisation in the token's roles.
//!
//! Must never tell a caller more than which role is missing.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use ryggrad_bridge_core::access::Who;
use ryggrad_bridge_core::role::{Role, Roles};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::Shared;
use crate::problem::Problem;

/// The caller of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// None for the operator's own token.
    organisation: Option<Organisasjonsnummer>,
    roles: Roles,
    /// The id of a local token.
    token: Option<Uuid>,
}

impl Caller {
    /// Whose subscriptions the caller may see and change: one organisation's, or everyone's.
    pub fn sight(&self) -> Result<Option<Organisasjonsnummer>, Problem> {
        if self.roles.has(Role::Operate) {
            return Ok(None);
        }
        self.needs(Role::Subscribe)?;
        Ok(self.organisation)
    }

    /// The organisation that the caller subscribes for.
    pub fn subscriber(&self) -> Result<Organisasjonsnummer, Problem> {
        self.needs(Role::Subscribe)?;
        self.organisation.ok_or_else(|| Problem::forbidden("an operator's token speaks for no organisation; use an organisation's token"))
    }

    /// The organisation that the caller speaks for, if any.
    pub fn organisation(&self) -> Option<Organisasjonsnummer> {
        self.organisation
    }

    /// Who changes something, for the history.
    pub fn who(&self) -> Who {
        let token = self.token.map(|token| token.to_string());
        Who { organisation: self.organisation, roles: Some(self.roles.clone()), token, event: None }
    }

    /// Who the caller's idempotency keys are counted for.
    pub(super) fn owner(&self) -> String {
        self.organisation.map_or_else(|| "operator".to_owned(), |organisation| organisation.to_string())
    }

    /// All that decides about what the caller may do: who has the same may see the same answers.
    pub(super) fn rights(&self) -> String {
        // Names of roles, which have a JSON form.
        serde_json::to_string(&self.roles).unwrap_or_default()
    }

    /// Refuses everyone who lacks a role.
    pub fn needs(&self, role: Role) -> Result<(), Problem> {
        if self.roles.has(role) { Ok(()) } else { Err(Problem::lacks(role)) }
    }
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        caller_of(shared, parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok())).await
    }
}

/// Whose token a header `Authorization` holds, as of now.
pub(super) async fn caller_of(shared: &Shared, header: Option<&str>) -> Result<Caller, Problem> {
    let (scheme, token) = header
        .and_then(|value| value.split_once(' '))
        .ok_or_else(|| Problem::unauthorised("send the header Authorization: Bearer <token>"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::unauthorised("the scheme is Bearer"));
    }
    let operator: bool = token.as_bytes().ct_eq(shared.operator_token.expose_secret().as_bytes()).into();
    if operator {
        return Ok(Caller { organisation: None, roles: Roles::all(), token: None });
    }
    let bearer = shared.ready()?.tokens.bearer(token, jiff::Timestamp::now()).await;
    bearer
        .map(|(token, organisation, roles)| Caller { organisation: Some(organisation), roles, token: Some(token) })
        .ok_or_else(|| Problem::unauthorised("the token is unknown, revoked or expired; ask the operator for a new one"))
}
