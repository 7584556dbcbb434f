//! Who calls: a bearer token's organisation, or the operator.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use secrecy::ExposeSecret;
use subtle::ConstantTimeEq;

use super::Shared;
use crate::problem::Problem;

/// The caller of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Whoever runs this installation.
    Operator,
    /// An organisation.
    Organisation(Organisasjonsnummer),
}

impl Caller {
    /// Whose things the caller may see: one organisation's, or everyone's.
    pub fn sight(self) -> Option<Organisasjonsnummer> {
        match self {
            Self::Operator => None,
            Self::Organisation(organisation) => Some(organisation),
        }
    }

    /// The organisation, for what only an organisation may do.
    pub fn organisation(self) -> Result<Organisasjonsnummer, Problem> {
        self.sight().ok_or_else(|| Problem::forbidden("an operator's token speaks for no organisation; use an organisation's token"))
    }

    /// Refuses everyone but the operator.
    pub fn operator(self) -> Result<(), Problem> {
        if self == Self::Operator { Ok(()) } else { Err(Problem::forbidden("only the operator may do that")) }
    }
}

impl FromRequestParts<Arc<Shared>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, shared: &Arc<Shared>) -> Result<Self, Problem> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = header
            .and_then(|value| value.split_once(' '))
            .ok_or_else(|| Problem::unauthorised("send the header Authorization: Bearer <token>"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Problem::unauthorised("the scheme is Bearer"));
        }
        let operator: bool = token.as_bytes().ct_eq(shared.operator_token.expose_secret().as_bytes()).into();
        if operator {
            return Ok(Self::Operator);
        }
        let organisation = shared.ready()?.tokens.organisation(token, jiff::Timestamp::now()).await;
        organisation
            .map(Self::Organisation)
            .ok_or_else(|| Problem::unauthorised("the token is unknown, revoked or expired; ask the operator for a new one"))
    }
}
