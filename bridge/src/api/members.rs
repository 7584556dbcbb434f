//! `/v1/members`: who takes part, what an organisation lacks, and who has changed what.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{FromRequestParts, Path, RawQuery, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use ryggrad_bridge_core::access::request::parse_member;
use ryggrad_bridge_core::access::{self as core, Asked, Fact, Kept, Kind, Sight};
use ryggrad_bridge_core::role::Role;
use ryggrad_bridge_core::subscription::Precondition;
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::EventType;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::{Value, json};

use super::Shared;
use super::caller::Caller;
use super::page::Page;
use super::query::Query;
use super::sent::Sent;
use super::subscriptions::precondition;
use crate::access::AccessError;
use crate::contract::schemas::{organisation, text};
use crate::contract::{Contract, Operation, Rule};
use crate::problem::{Code, Problem};

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        match error {
            AccessError::Precondition => Self::precondition(),
            AccessError::Limit(detail) => Self::limit(detail),
            AccessError::Log(_) | AccessError::Seal(_) | AccessError::Stopped => {
                tracing::warn!(error = %error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "who may get what was not changed");
                Self::unavailable(error.to_string())
            }
        }
    }
}

/// The organisation in an address; `None` where it is none.
pub struct Named(Option<Organisasjonsnummer>);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Infallible> {
        let found = Path::<HashMap<String, String>>::from_request_parts(parts, state).await;
        Ok(Self(found.ok().and_then(|Path(named)| named.get("organisation")?.parse().ok())))
    }
}

impl Named {
    /// The organisation, if the caller may see what concerns it.
    fn seen_by(self, caller: &Caller) -> Result<Organisasjonsnummer, Problem> {
        let sight = caller.sight()?;
        let seen = |named: &Organisasjonsnummer| sight == Sight::All || caller.organisation() == Some(*named);
        self.0.filter(seen).ok_or_else(missing)
    }
}

fn missing() -> Problem {
    Problem::not_found("member")
}

/// Members by their numbers: everyone's for operators, else one's own.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let (ready, sight) = (shared.ready()?, caller.sight()?);
    let page = Page::read(raw.as_deref(), |text| Some(text.to_owned()))?;
    let all = ready.access.list(Kind::Member, |fact| sight.concerned(&fact.concerns()));
    let (found, next) = page.cut(all, |(id, _)| id.clone());
    Ok(Json(json!({"members": found.iter().map(|(_, kept)| shown(kept)).collect::<Vec<_>>(), "next": next})))
}

/// One member.
pub async fn show(State(shared): State<Arc<Shared>>, caller: Caller, named: Named) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    let organisation = named.seen_by(&caller)?;
    let kept = ready.access.get(Kind::Member, &organisation.to_string()).filter(|_| caller.supplier().is_none()).ok_or_else(missing)?;
    Ok(answer(StatusCode::OK, &kept))
}

/// Makes an organisation a member, or changes what is known of it as one.
pub async fn put(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Named(organisation): Named,
    headers: HeaderMap,
    body: Sent,
) -> Result<Response, Problem> {
    caller.needs(Role::Operate)?;
    let ready = shared.ready()?;
    let organisation = organisation.ok_or_else(missing)?;
    let asked = Asked { now: Timestamp::now(), catalogue: Catalogue::built_in() };
    let member = parse_member(&body.json()?, organisation, asked).map_err(Problem::invalid)?;
    let wanted = precondition(&headers);
    let judge = move |before: Option<&Fact>| demand(&wanted, before).map(|()| Some(Fact::Member(member)));
    let changed = ready.access.change(caller.who(), Kind::Member, organisation.to_string(), judge).await?;
    let kept = changed.kept.ok_or_else(missing)?;
    Ok(answer(if changed.is_new { StatusCode::CREATED } else { StatusCode::OK }, &kept))
}

/// Takes a member out. To stop one, suspend or expel it: whoever is no member still gets what is open.
pub async fn delete(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    Named(organisation): Named,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    caller.needs(Role::Operate)?;
    let ready = shared.ready()?;
    let id = organisation.ok_or_else(missing)?.to_string();
    ready.access.get(Kind::Member, &id).ok_or_else(missing)?;
    let wanted = precondition(&headers);
    let judge = move |before: Option<&Fact>| demand(&wanted, before).map(|()| None);
    ready.access.change(caller.who(), Kind::Member, id, judge).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn demand(wanted: &Precondition, before: Option<&Fact>) -> Result<(), AccessError> {
    if wanted.holds(before.map(Fact::tag).as_deref()) { Ok(()) } else { Err(AccessError::Precondition) }
}

/// What stands between an organisation and a type, in plain words.
pub async fn lacks(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    named: Named,
    RawQuery(raw): RawQuery,
) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let organisation = named.seen_by(&caller)?;
    let mut query = Query::read(raw.as_deref(), &["type", "supplier"]);
    let (events, named) = (&shared.catalogue.events, query.text("type").unwrap_or_default());
    let event = events.iter().find(|event| event.ce_type == named);
    if event.is_none() {
        let all: Vec<&str> = events.iter().map(|event| event.ce_type.as_str()).collect();
        let why = || format!("is one event type; there are: {}", all.join(", "));
        query.wrong("type", &shared.catalogue.why_shut(named).map_or_else(why, str::to_owned));
    }
    let (supplier, own) = (query.organisation("supplier"), caller.supplier());
    if own.is_some() && supplier.is_some_and(|named| Some(named) != own) {
        query.wrong("supplier", "is whoever asks, who acts for the organisation; another is not its to ask for");
    }
    query.end()?;
    let event: &EventType = event.ok_or_else(missing)?;
    let now = Timestamp::now();
    let asked =
        core::Event { ce_type: &event.ce_type, class: event.class, views: &event.views, controller: None, subject: None, occurred_at: now };
    let reasons = ready.access.lacks(core::Caller::new(organisation, supplier.or(own)), asked, now);
    let lacks: Vec<Value> = reasons.iter().map(|reason| json!({"reason": reason.name(), "detail": reason.in_plain_words()})).collect();
    Ok(Json(json!({"organisation": organisation, "supplier": supplier.or(own), "type": event.ce_type, "lacks": lacks})))
}

/// Who has changed what, the newest first.
pub async fn history(State(shared): State<Arc<Shared>>, caller: Caller, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let (ready, sight) = (shared.ready()?, caller.sight()?);
    let page = Page::read(raw.as_deref(), |text| text.parse::<u128>().ok().map(Reverse))?;
    // An offset is never negative.
    let place = |(offset, _): &(i64, _)| Reverse(u128::from(offset.unsigned_abs()));
    let (found, next) = page.cut(ready.access.history(sight), place);
    let changes: Vec<_> = found.iter().map(|(_, change)| change).collect();
    Ok(Json(json!({"changes": changes, "next": next.map(|Reverse(place)| place.to_string())})))
}

/// A fact as it is shown.
pub(super) fn shown(kept: &Kept) -> Value {
    let mut shown = kept.fact.public();
    shown["changed_at"] = json!(kept.changed_at);
    shown
}

fn answer(status: StatusCode, kept: &Kept) -> Response {
    (status, [(header::ETAG, kept.fact.tag())], Json(shown(kept))).into_response()
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let operation = |method, path, id, summary| Operation::new(method, path, id, "access", summary).rule(Rule::OwnFacts);
    let (all, one) = ("/v1/members", "/v1/members/{organisation}");
    let of = |operation: Operation| operation.path_part("organisation", organisation(), "Whose.").refuses(&[Code::NotFound]);
    let listed = operation("get", all, "listMembers", "Lists members").pages();
    contract.add(listed.answers(200, "A page of them, by their numbers.", "Members"));
    let show = of(operation("get", one, "showMember", "Shows a member"));
    contract.add(show.answers(200, "The member.", "Member").with_tag());
    let put = of(operation("put", one, "putMember", "Makes an organisation a member, or changes it as one"));
    let put = put.rule(Rule::Needs(Role::Operate)).guarded().takes("NewMember").refuses(&[Code::Limit]);
    contract.add(put.answers(200, "As it is now.", "Member").with_tag().answers(201, "A member now.", "Member").with_tag());
    let delete = of(operation("delete", one, "deleteMember", "Takes a member out"));
    let delete = delete.about("Whoever is no member still gets what is open: to stop an organisation, suspend or expel it.");
    contract.add(delete.rule(Rule::Needs(Role::Operate)).guarded().answers_nothing(204, "It is no member."));
    let lacks =
        of(operation("get", "/v1/members/{organisation}/lacks", "listLacks", "Tells what stands between an organisation and a type"));
    let lacks = lacks.query("type", text(), "One event type.").query("supplier", organisation(), "Who is to act for it.");
    contract.add(lacks.refuses(&[Code::Invalid]).answers(200, "In plain words; nothing about any person.", "Lacks"));
    let history = operation("get", "/v1/access-history", "listAccessHistory", "Lists who has changed what, the newest first").pages();
    let history = history.about("The newest changes; one that is not there in fact was not answered. It names no person.");
    contract.add(history.answers(200, "A page of them.", "AccessHistory"));
}
