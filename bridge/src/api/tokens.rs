//! `/v1/tokens`, for operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use jiff::{SignedDuration, Timestamp};
use ryggrad_bridge_core::access;
use ryggrad_bridge_core::role::{Role, Roles};
use ryggrad_bridge_core::subscription::{DESCRIPTION_CHARS_MAX, Fault};
use ryggrad_bridge_core::whole_number::whole_number;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::{Value, json};

use super::caller::Caller;
use super::idempotency::DerivedId;
use super::page::{Page, cursor_of, read_cursor};
use super::sent::Sent;
use super::{Id, Shared};
use crate::config::BridgeConfig;
use crate::contract::schemas::{object, or_null, organisation};
use crate::contract::{Contract, Operation, Rule};
use crate::problem::Problem;

const MEMBERS: [&str; 5] = ["organisation", "supplier", "roles", "description", "expires_in_s"];

/// A checked request.
struct Wish {
    bearer: access::Caller,
    roles: Roles,
    description: Option<String>,
    life_s: i64,
}

fn unavailable(error: &ryggrad_log::Error) -> Problem {
    tracing::warn!(error = error.chain(), "a token was not changed");
    Problem::unavailable("Kafka does not answer; nothing was changed")
}

/// Issues a token. Its text is shown this once.
pub async fn issue(State(shared): State<Arc<Shared>>, caller: Caller, DerivedId(id): DerivedId, body: Sent) -> Result<Response, Problem> {
    caller.needs(Role::Operate)?;
    if shared.trust.is_some() {
        return Err(Problem::forbidden("an issuer vouches for callers here, and tokens of the bridge's own open nothing; ask the issuer"));
    }
    let ready = shared.ready()?;
    let body = body.json()?;
    let Wish { bearer, roles, description, life_s } = parse(&body, &shared.config).map_err(Problem::invalid)?;
    let now = Timestamp::now();
    let expires_at = now.checked_add(SignedDuration::from_secs(life_s)).unwrap_or(now);
    let (token, text) = ready.tokens.issue(id, bearer, roles, description, now, expires_at).await.map_err(|error| unavailable(&error))?;
    let mut shown = json!({
        "id": token.id, "organisation": token.organisation, "roles": token.roles, "token": text, "expires_at": token.expires_at,
    });
    if let Some(supplier) = token.supplier {
        shown["supplier"] = json!(supplier);
    }
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

/// Tokens without their texts, by their ids.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    caller.needs(Role::Operate)?;
    let ready = shared.ready()?;
    let page = Page::read(raw.as_deref(), read_cursor)?;
    let (tokens, next) = page.cut(ready.tokens.list().await, |token| token.id);
    Ok(Json(json!({"tokens": tokens, "next": next.map(cursor_of)})))
}

/// Revokes a token; the next request with it is refused.
pub async fn revoke(State(shared): State<Arc<Shared>>, caller: Caller, Id(id): Id) -> Result<StatusCode, Problem> {
    caller.needs(Role::Operate)?;
    let id = id.ok_or_else(|| Problem::not_found("token"))?;
    match shared.ready()?.tokens.revoke(id).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Err(Problem::not_found("token")),
        Err(error) => Err(unavailable(&error)),
    }
}

fn parse(body: &Value, config: &BridgeConfig) -> Result<Wish, Vec<Fault>> {
    let Value::Object(members) = body else { return Err(vec![Fault::new("", "the body is a JSON object with at least organisation")]) };
    let mut faults = Fault::unknown_in(members, &MEMBERS);
    let mut number = |name: &str| {
        let number = members.get(name).and_then(Value::as_str).unwrap_or_default().parse::<Organisasjonsnummer>();
        number.map_err(|why| faults.push(Fault::new(format!("/{name}"), why.to_string()))).ok()
    };
    let organisation = number("organisation");
    let supplier = members.get("supplier").filter(|value| !value.is_null()).and_then(|_| number("supplier"));
    if supplier.is_some() && supplier == organisation {
        faults.push(Fault::new("/supplier", "is another organisation: leave it out for one that acts for itself"));
    }
    let roles = match members.get("roles") {
        None | Some(Value::Null) => Roles::default(),
        Some(value) => Roles::parse(value).unwrap_or_else(|why| {
            faults.push(Fault::new("/roles", why));
            Roles::default()
        }),
    };
    if supplier.is_some() && roles.clone().lent().as_ref() != Some(&roles) {
        faults.push(Fault::new("/roles", "are subscribe and publish alone where a supplier acts for another"));
    }
    let description = match members.get("description") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.chars().count() <= DESCRIPTION_CHARS_MAX => Some(text.clone()),
        Some(_) => {
            faults.push(Fault::new("/description", format!("is a text of at most {DESCRIPTION_CHARS_MAX} characters")));
            None
        }
    };
    let life_s = match members.get("expires_in_s") {
        None | Some(Value::Null) => config.token_life_default_s.min(config.token_life_max_s).into(),
        Some(value) => whole_number(value).filter(|life_s| (1..=config.token_life_max_s.into()).contains(life_s)).unwrap_or_else(|| {
            faults.push(Fault::new("/expires_in_s", format!("is a number of seconds from 1 to {}", config.token_life_max_s)));
            0
        }),
    };
    match organisation {
        Some(organisation) if faults.is_empty() => {
            Ok(Wish { bearer: access::Caller { organisation, supplier }, roles, description, life_s })
        }
        _ => Err(faults),
    }
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let operation = |method, path, id, summary| Operation::new(method, path, id, "operation", summary).rule(Rule::Needs(Role::Operate));
    let issue = operation("post", "/v1/tokens", "issueToken", "Issues a token");
    contract.add(issue.takes("NewToken").answers(201, "Issued; its text is shown this once.", "IssuedToken"));
    let list = operation("get", "/v1/tokens", "listTokens", "Lists tokens, without their texts").pages();
    contract.add(list.answers(200, "A page of them, by their ids.", "Tokens"));
    let revoke = operation("delete", "/v1/tokens/{id}", "revokeToken", "Revokes a token; the next request with it is refused");
    contract.add(revoke.answers_nothing(204, "It is revoked."));
}

/// What is asked for.
pub fn new_token_schema() -> Value {
    let roles = json!({"type": ["array", "null"], "minItems": 1, "items": {"type": "string", "enum": Role::ALL.map(Role::name)}});
    let life = json!({"type": ["integer", "null"], "minimum": 1});
    object(
        &["organisation"],
        json!({
            "organisation": organisation(), "supplier": or_null(organisation()), "roles": roles, "expires_in_s": life,
            "description": {"type": ["string", "null"], "maxLength": DESCRIPTION_CHARS_MAX},
        }),
    )
}
