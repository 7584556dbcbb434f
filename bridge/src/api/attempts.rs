//! `…/attempts`: how the latest deliveries went.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};

use super::caller::Caller;
use super::query::Query;
use super::subscriptions::own_posted;
use super::{Id, Shared};
use crate::problem::Problem;

/// The latest attempts, newest first.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own_posted(ready, caller, id).await?;
    let mut query = Query::read(raw.as_deref(), &["limit"]);
    let limit = query.number("limit", 1..=1_000, 50);
    query.end()?;
    // At most a thousand, which fits.
    Ok(Json(json!({"attempts": ready.subscriptions.attempts(subscription.id, limit as usize).await})))
}
