//! `…/verify` and `…/test`: calls to an endpoint on its owner's word, once a second at most.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use ryggrad_bridge_core::access::Sight;
use ryggrad_bridge_core::subscription::Subscription;
use serde_json::Value;

use super::caller::Caller;
use super::subscriptions::{not_held, run_posted, shown};
use super::{Id, Ready, Shared};
use crate::contract::{Contract, Operation};
use crate::problem::{Code, Problem};

/// Asks the endpoint for its agreement again; the answer is in `verification` soon after.
pub async fn verify(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    let subscription = run_posted(ready, caller, id).await?;
    not_too_soon(ready, &subscription)?;
    ready.subscriptions.verify_again(subscription.id).await?;
    shown(ready.subscriptions.get(Sight::All, subscription.id).await)
}

/// Sends one signed test event now, and answers how that went.
pub async fn test(State(shared): State<Arc<Shared>>, caller: Caller, id: Id) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = run_posted(ready, caller, id).await?;
    not_held(ready, &subscription)?;
    not_too_soon(ready, &subscription)?;
    if !subscription.may_deliver(shared.config.development_egress) {
        return Err(Problem::unverified());
    }
    let went = ready.subscriptions.send_test(&subscription).await;
    went.map(Json).ok_or_else(|| Problem::unavailable("the subscription's secrets do not open with this bridge's key"))
}

/// Refuses to call an endpoint by hand that was called just now.
fn not_too_soon(ready: &Ready, subscription: &Subscription) -> Result<(), Problem> {
    if ready.subscriptions.may_call(subscription.id) { Ok(()) } else { Err(Problem::too_soon()) }
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let operation = |path, id, summary| Operation::new("post", path, id, "subscriptions", summary).refuses(&[Code::Channel, Code::TooSoon]);
    let verify = operation("/v1/subscriptions/{id}/verify", "verifySubscription", "Asks the endpoint again whether it agrees");
    contract.add(verify.answers(200, "It is being asked; see verification.", "Subscription").with_tag());
    let test = operation("/v1/subscriptions/{id}/test", "testSubscription", "Sends one test event now, and says how that went");
    contract.add(test.answers(200, "How it went.", "TestResult").refuses(&[Code::Unverified, Code::Stopped]));
}
