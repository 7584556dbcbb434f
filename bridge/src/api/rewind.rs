//! `…/rewind`: the subscription's own cursor goes back, or a preview says what that would mean.
//!
//! Must never change anything in a preview.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use ryggrad_bridge_core::rewind::{Partition, RewindRequest, Stretch};
use ryggrad_schemas::Catalogue;
use serde_json::{Value, json};

use super::caller::Caller;
use super::sent::Sent;
use super::subscriptions::{not_held, run};
use super::{Id, Shared};
use crate::contract::{Contract, Operation};
use crate::counting::{Counted, Selection};
use crate::problem::{Code, Problem};

/// Goes back; on disk when it is answered, and when what was under way has ended.
pub async fn rewind(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, body: Sent) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = run(ready, caller, id).await?;
    not_held(ready, &subscription)?;
    let request = RewindRequest::parse(&body.json()?).map_err(Problem::invalid)?;
    let stretches = ready.subscriptions.plan_rewind(&subscription, &request.to).await?;
    if !request.preview {
        ready.subscriptions.rewind(&subscription, &stretches).await?;
        return Ok(Json(json!({"preview": false, "partitions": shown(&stretches, None)})));
    }
    if !request.count {
        return Ok(Json(json!({"preview": true, "partitions": shown(&stretches, None)})));
    }
    let counted = ready.subscriptions.count(&stretches, Selection::of(&subscription, None)).await?;
    Ok(Json(json!({"preview": true, "partitions": shown(&stretches, Some(&counted)), "counted_to_the_end": counted.is_whole})))
}

/// Stretches, with counts where there are any. `records_max` also counts offsets at which nothing stands. Where a topic is
/// not for everyone, no offsets: they would tell of events that there are and that are not shown.
pub(super) fn shown(stretches: &[Stretch], counted: Option<&Counted>) -> Vec<Value> {
    let one = |stretch: &Stretch| {
        let Partition { topic, partition } = &stretch.partition;
        let mut shown = json!({"topic": topic, "partition": partition});
        if !Catalogue::built_in().is_protected(topic) {
            shown = json!({
                "topic": topic, "partition": partition, "from": stretch.from, "to": stretch.to, "position": stretch.extent.position,
                "log_start": stretch.extent.low, "log_end": stretch.extent.high, "records_max": stretch.to - stretch.from,
            });
        }
        if let Some(counted) = counted {
            shown["matching"] = json!(counted.matching.get(&stretch.partition));
        }
        shown
    };
    stretches.iter().map(one).collect()
}

/// What this call promises.
pub fn describe(contract: &mut Contract) {
    let summary = "Takes the cursor back: everything from there on comes once more";
    let rewind = Operation::new("post", "/v1/subscriptions/{id}/rewind", "rewindSubscription", "subscriptions", summary);
    contract.add(rewind.takes("Rewind").answers(200, "Done, or what it would mean.", "Rewound").refuses(&[Code::Stopped]));
}
