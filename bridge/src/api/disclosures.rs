//! `/v1/disclosures`: what was disclosed of a controller's data, and whether the records are what was written.
//!
//! Always within one controller, and the look is recorded before anything is shown. Whom somebody asks about stands in
//! the body, never in an address. Must never say of one controller what another may not see.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use ryggrad_bridge_core::access::Look;
use ryggrad_bridge_core::access::request::parse_look;
use ryggrad_bridge_core::disclosure::Reading;
use ryggrad_bridge_core::role::Role;
use ryggrad_bridge_core::subscription::Fault;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde_json::{Value, json};

use super::caller::Caller;
use super::sent::Sent;
use super::{Ready, Shared};
use crate::contract::{Contract, Operation, Rule};
use crate::disclosures::NotRecorded;
use crate::problem::{Code, Problem};

impl From<NotRecorded> for Problem {
    fn from(error: NotRecorded) -> Self {
        tracing::warn!(%error, cause = ?std::error::Error::source(&error).map(ToString::to_string), "records of disclosures could not be read");
        Self::unavailable("the records cannot be read now; ask again")
    }
}

/// Finds disclosures.
pub async fn search(State(shared): State<Arc<Shared>>, caller: Caller, body: Sent) -> Result<Json<Value>, Problem> {
    let look = read(&caller, body)?;
    let (ready, asked) = (shared.ready()?, if look.subject.is_some() { "by-patient" } else { "by-organisation" });
    let asked = if look.as_audit_events { "export" } else { asked };
    let (controller, reading) = allow(&caller, ready, &look, asked).await?;
    let (limit, as_audit_events) = (look.limit, look.as_audit_events);
    let found = ready.disclosures.search(controller, reading, look).await?;
    let next = found.last().filter(|_| found.len() == limit).map(|last| last.number().to_string());
    let shown: Vec<Value> = found.iter().map(|found| if as_audit_events { found.audit_event() } else { found.plain() }).collect();
    Ok(Json(json!({"disclosures": shown, "next": next})))
}

/// Verifies the chain.
pub async fn verify(State(shared): State<Arc<Shared>>, caller: Caller, body: Sent) -> Result<Json<Value>, Problem> {
    let (look, ready) = (read(&caller, body)?, shared.ready()?);
    let (controller, reading) = allow(&caller, ready, &look, "verify").await?;
    let report = ready.disclosures.verify(controller, reading).await?;
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    Ok(Json(json!({
        "controller": controller, "intact": faults.is_empty(), "first": report.first, "last": report.head.number, "hash": report.head.hash,
        "checkpoints": report.checkpoints, "unsigned": report.unsigned, "faults": faults,
    })))
}

/// Records that somebody looks at events of a controller's in Kafka itself.
pub async fn reveal(State(shared): State<Arc<Shared>>, caller: Caller, body: Sent) -> Result<Json<Value>, Problem> {
    let (look, ready) = (read(&caller, body)?, shared.ready()?);
    let (controller, reading) = allow(&caller, ready, &look, "reveal").await?;
    let looked = ready.disclosures.look(controller, reading).await?;
    Ok(Json(json!({"controller": controller, "recorded": looked.head.number})))
}

fn read(caller: &Caller, body: Sent) -> Result<Look, Problem> {
    caller.needs(Role::Audit)?;
    parse_look(&body.json()?).map_err(Problem::invalid)
}

/// Whose records the caller may look at, and what is recorded of the look.
async fn allow(caller: &Caller, ready: &Ready, look: &Look, asked: &str) -> Result<(Organisasjonsnummer, Reading), Problem> {
    let own = caller.organisation().filter(|_| caller.supplier().is_none());
    let controller = match (look.controller.or(own), own) {
        (None, _) => return Err(Problem::invalid(vec![Fault::new("/controller", "is the organisation whose data was disclosed")])),
        (Some(controller), Some(own)) if controller == own => controller,
        (Some(controller), _) => {
            let refused = |_| Problem::forbidden("a controller looks at the records of its own data alone");
            caller.needs(Role::Operate).map_err(refused)?;
            if look.purpose.is_none() {
                return Err(Problem::invalid(vec![Fault::new("/purpose", "says why an operator looks; it is recorded")]));
            }
            controller
        }
    };
    let is_first = || asked == "reveal" && ready.access.is_controller(controller);
    if !is_first() && !ready.disclosures.has(controller).await? {
        return Err(Problem::not_found("record of that controller's disclosures"));
    }
    let reading = Reading { by: own, client: caller.who().client, asked: asked.to_owned(), purpose: look.purpose.clone() };
    Ok((controller, reading))
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let operation = |path, id, summary| {
        let operation = Operation::new("post", path, id, "access", summary).rule(Rule::Needs(Role::Audit)).takes("Look");
        operation.refuses(&[Code::NotFound, Code::Forbidden])
    };
    let search = operation("/v1/disclosures/search", "searchDisclosures", "Finds what was disclosed of a controller's data, and to whom");
    let search = search
        .about("Within one controller. The look is recorded before anything is shown; an operator names the controller and a purpose.");
    contract.add(search.answers(200, "Disclosures in the order in which they were recorded.", "Disclosures"));
    let verify = operation(
        "/v1/disclosures/verify",
        "verifyDisclosures",
        "Tells whether the records of a controller's disclosures are what was written",
    );
    contract.add(verify.answers(200, "What was found.", "DisclosuresReport"));
    let reveal =
        operation("/v1/disclosures/reveal", "revealEvents", "Records that somebody looks at a controller's events in Kafka itself")
            .about("Shows nothing. ryggrad consume --reveal says it before it shows what an event holds.");
    contract.add(reveal.answers(200, "It is recorded, under that number.", "Revealed"));
}
