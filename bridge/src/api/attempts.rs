//! `…/attempts`: how the latest deliveries went.

use std::cmp::Reverse;
use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};

use super::caller::Caller;
use super::page::Page;
use super::subscriptions::own_posted;
use super::{Id, Shared};
use crate::contract::{Contract, Operation};
use crate::problem::{Code, Problem};
use crate::subscriptions::of_attempt;

/// The latest attempts, newest first: those that come meanwhile stand on no later page.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own_posted(ready, caller, id).await?;
    let page = Page::read(raw.as_deref(), |text| text.parse::<i128>().ok().map(Reverse))?;
    let (attempts, next) = page.cut(ready.subscriptions.attempts(subscription.id).await, |attempt| Reverse(attempt.at.as_nanosecond()));
    let shown: Vec<Value> = attempts.iter().map(of_attempt).collect();
    Ok(Json(json!({"attempts": shown, "next": next.map(|Reverse(at_ns)| at_ns.to_string())})))
}

/// What this call promises.
pub fn describe(contract: &mut Contract) {
    let list = Operation::new("get", "/v1/subscriptions/{id}/attempts", "listAttempts", "deliveries", "Lists the latest attempts");
    contract.add(list.pages().answers(200, "A page of them, newest first.", "Attempts").refuses(&[Code::Channel]));
}
