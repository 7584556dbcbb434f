//! `/v1/delegations`, `/v1/grants`, `/v1/relations` and `/v1/blocks`: made, listed, shown, withdrawn.
//!
//! One call for all kinds; each kind says who may do what. A relation or a block is its controller's alone: for
//! everyone else there is none.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use ryggrad_bridge_core::access::request::{parse_block, parse_delegation, parse_grant, parse_relation};
use ryggrad_bridge_core::access::{Asked, Fact, Kept, Kind, Sight};
use ryggrad_bridge_core::idempotency::is_repeated;
use ryggrad_bridge_core::role::Role;
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::{Value, json};
use uuid::Uuid;

use super::caller::Caller;
use super::idempotency::DerivedId;
use super::members::shown;
use super::page::Page;
use super::sent::Sent;
use super::{Id, Ready, Shared};
use crate::contract::{Contract, Operation, Rule};
use crate::problem::{Code, Problem};

/// A kind of facts with an address of its own.
pub trait Sort: Send + Sync + 'static {
    /// Which.
    const KIND: Kind;
    /// Its part of addresses and its member of lists.
    const PLURAL: &'static str;

    /// Reads a request, and refuses who may not make such a fact.
    fn read(body: &Value, caller: &Caller, ready: &Ready, asked: Asked<'_>) -> Result<Fact, Problem>;

    /// Refuses who may not ask at all, before the body is looked at.
    fn admit(caller: &Caller, _ready: &Ready) -> Result<(), Problem> {
        caller.sight().map(drop)
    }
}

/// Delegations.
pub struct Delegations;
/// Grants.
pub struct Grants;
/// Relations.
pub struct Relations;
/// Blocks.
pub struct Blocks;

impl Sort for Delegations {
    const KIND: Kind = Kind::Delegation;
    const PLURAL: &'static str = "delegations";

    fn read(body: &Value, caller: &Caller, _: &Ready, asked: Asked<'_>) -> Result<Fact, Problem> {
        let delegation = parse_delegation(body, caller.organisation(), asked).map_err(Problem::invalid)?;
        if caller.sight()?.concerned(&[delegation.organisation]) {
            return Ok(Fact::Delegation(delegation));
        }
        Err(Problem::forbidden("an organisation delegates for itself alone"))
    }
}

impl Sort for Grants {
    const KIND: Kind = Kind::Grant;
    const PLURAL: &'static str = "grants";

    fn read(body: &Value, caller: &Caller, ready: &Ready, asked: Asked<'_>) -> Result<Fact, Problem> {
        let own = caller.organisation().filter(|_| caller.needs(Role::Operate).is_err());
        let grant = parse_grant(body, own, asked).map_err(Problem::invalid)?;
        match grant.controller {
            Some(named) if named != controller(caller, ready)? => Err(Problem::forbidden("a controller opens its own data alone")),
            _ => Ok(Fact::Grant(grant)),
        }
    }
}

impl Sort for Relations {
    const KIND: Kind = Kind::Relation;
    const PLURAL: &'static str = "relations";

    fn read(body: &Value, caller: &Caller, ready: &Ready, asked: Asked<'_>) -> Result<Fact, Problem> {
        parse_relation(body, controller(caller, ready)?, asked).map(Fact::Relation).map_err(Problem::invalid)
    }

    fn admit(caller: &Caller, ready: &Ready) -> Result<(), Problem> {
        controller(caller, ready).map(drop)
    }
}

impl Sort for Blocks {
    const KIND: Kind = Kind::Block;
    const PLURAL: &'static str = "blocks";

    fn read(body: &Value, caller: &Caller, ready: &Ready, asked: Asked<'_>) -> Result<Fact, Problem> {
        parse_block(body, controller(caller, ready)?, asked).map(Fact::Block).map_err(Problem::invalid)
    }

    fn admit(caller: &Caller, ready: &Ready) -> Result<(), Problem> {
        controller(caller, ready).map(drop)
    }
}

/// The caller's organisation, if it is responsible for data of its own.
fn controller(caller: &Caller, ready: &Ready) -> Result<Organisasjonsnummer, Problem> {
    let organisation = caller.subscriber()?.organisation;
    let refused =
        || Problem::forbidden("that is for organisations responsible for data of their own; ask the operator to enter yours as one");
    ready.access.is_controller(organisation).then_some(organisation).ok_or_else(refused)
}

/// Whether a caller may see a fact.
fn sees(caller: &Caller, sight: Sight, fact: &Fact) -> bool {
    if fact.kind().is_about_persons() {
        return caller.subscriber().is_ok_and(|own| own.supplier.is_none() && fact.owner() == Some(own.organisation));
    }
    sight.concerned(&fact.concerns())
}

fn missing<S: Sort>() -> Problem {
    Problem::not_found(S::KIND.name())
}

/// Makes one.
pub async fn create<S: Sort>(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    DerivedId(id): DerivedId,
    body: Sent,
) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    S::admit(&caller, ready)?;
    caller.speaks_itself()?;
    let asked = Asked { now: Timestamp::now(), catalogue: Catalogue::built_in() };
    let fact = S::read(&body.json()?, &caller, ready, asked)?;
    // What has the id that follows from the key was made by this request, whose answer was lost; or, long ago, by one like it.
    let there = id.and_then(|id| ready.access.get(S::KIND, &id.to_string()));
    let own = |there: &Kept| is_repeated(Some(there.changed_at), asked.now);
    let id = id.filter(|_| there.as_ref().is_none_or(own)).unwrap_or_else(Uuid::now_v7);
    let judge = move |before: Option<&Fact>| Ok(Some(before.cloned().unwrap_or(fact)));
    let changed = ready.access.change(caller.who(), S::KIND, id.to_string(), judge).await?;
    let kept = changed.kept.ok_or_else(missing::<S>)?;
    let location = format!("/v1/{}/{id}", S::PLURAL);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(with_id(&id.to_string(), &kept))).into_response())
}

/// Those that the caller may see, by their ids.
pub async fn list<S: Sort>(State(shared): State<Arc<Shared>>, caller: Caller, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let (ready, sight) = (shared.ready()?, caller.sight()?);
    let page = Page::read(raw.as_deref(), |text| Some(text.to_owned()))?;
    let (found, next) = page.cut(ready.access.list(S::KIND, |fact| sees(&caller, sight, fact)), |(id, _)| id.clone());
    Ok(Json(json!({S::PLURAL: found.iter().map(|(id, kept)| with_id(id, kept)).collect::<Vec<_>>(), "next": next})))
}

/// One of them.
pub async fn show<S: Sort>(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Json<Value>, Problem> {
    let (id, kept) = seen::<S>(shared.ready()?, &caller, id)?;
    Ok(Json(with_id(&id, &kept)))
}

/// Withdraws one.
pub async fn delete<S: Sort>(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<StatusCode, Problem> {
    let ready = shared.ready()?;
    let (id, kept) = seen::<S>(ready, &caller, id)?;
    caller.speaks_itself()?;
    let operates = caller.needs(Role::Operate).is_ok() && (S::KIND == Kind::Delegation || kept.fact.owner().is_none());
    if !operates && caller.organisation() != kept.fact.owner() {
        return Err(Problem::forbidden("only who made it can withdraw it"));
    }
    ready.access.change(caller.who(), S::KIND, id, |_| Ok(None)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The fact of an address, if the caller may see it.
fn seen<S: Sort>(ready: &Ready, caller: &Caller, Id(id): Id) -> Result<(String, Kept), Problem> {
    let sight = caller.sight()?;
    let id = id.ok_or_else(missing::<S>)?.to_string();
    let kept = ready.access.get(S::KIND, &id).filter(|kept| sees(caller, sight, &kept.fact));
    Ok((id, kept.ok_or_else(missing::<S>)?))
}

fn with_id(id: &str, kept: &Kept) -> Value {
    let mut shown = shown(kept);
    shown["id"] = json!(id);
    shown
}

/// How a kind is described.
struct Words {
    paths: [&'static str; 2],
    ids: [&'static str; 4],
    summaries: [&'static str; 4],
    about: &'static str,
    shapes: [&'static str; 3],
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    describe_one(
        contract,
        &Words {
            paths: ["/v1/delegations", "/v1/delegations/{id}"],
            ids: ["createDelegation", "listDelegations", "showDelegation", "deleteDelegation"],
            summaries: ["Lets a supplier act for an organisation", "Lists delegations", "Shows a delegation", "Withdraws a delegation"],
            about: "An organisation delegates for itself, the operator for everyone; nobody in its name. The supplier sees what was delegated to it.",
            shapes: ["NewDelegation", "Delegation", "Delegations"],
        },
        Rule::OwnFacts,
    );
    describe_one(
        contract,
        &Words {
            paths: ["/v1/grants", "/v1/grants/{id}"],
            ids: ["createGrant", "listGrants", "showGrant", "deleteGrant"],
            summaries: ["Opens types to a receiver in a view", "Lists grants", "Shows a grant", "Withdraws a grant"],
            about: "A controller opens its own data; the operator what registries publish. The receiver sees what was opened to it.",
            shapes: ["NewGrant", "Grant", "Grants"],
        },
        Rule::OwnFacts,
    );
    describe_one(
        contract,
        &Words {
            paths: ["/v1/relations", "/v1/relations/{id}"],
            ids: ["createRelation", "listRelations", "showRelation", "deleteRelation"],
            summaries: ["Says that a receiver follows a patient", "Lists relations", "Shows a relation", "Ends a relation"],
            about: "For a controller and its own patients; nobody else sees that there is any.",
            shapes: ["NewRelation", "Relation", "Relations"],
        },
        Rule::Needs(Role::Subscribe),
    );
    describe_one(
        contract,
        &Words {
            paths: ["/v1/blocks", "/v1/blocks/{id}"],
            ids: ["createBlock", "listBlocks", "showBlock", "deleteBlock"],
            summaries: ["Keeps what is about a person from a receiver, or from all", "Lists blocks", "Shows a block", "Lifts a block"],
            about: "For a controller and its own patients; nobody else sees that there is any.",
            shapes: ["NewBlock", "Block", "Blocks"],
        },
        Rule::Needs(Role::Subscribe),
    );
}

fn describe_one(contract: &mut Contract, words: &Words, makes: Rule) {
    let ([all, one], [create, list, show, delete], [makes_what, lists, shows, ends]) = (words.paths, words.ids, words.summaries);
    let [new, shape, shapes] = words.shapes;
    let operation = |method, path, id, summary| Operation::new(method, path, id, "access", summary).rule(Rule::OwnFacts);
    let create = operation("post", all, create, makes_what).rule(makes).about(words.about).takes(new);
    let address = json!({"type": "string", "format": "uri-reference"});
    contract.add(create.answers(201, "Counts from now on.", shape).with("Location", address, "Its address."));
    contract.add(operation("get", all, list, lists).pages().answers(200, "A page of them, by their ids.", shapes));
    contract.add(operation("get", one, show, shows).answers(200, "As it is.", shape));
    contract.add(operation("delete", one, delete, ends).refuses(&[Code::Forbidden]).answers_nothing(204, "It counts no more."));
}
