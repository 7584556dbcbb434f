//! `…/dead-letters`: references to deliveries that were set aside, and what becomes of them.
//!
//! Must never show an event's content: a reference says where it is, and no more.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use ryggrad_bridge_core::letter_name::LetterName;
use ryggrad_bridge_core::rewind::{PLACE, Partition, parse_place};
use ryggrad_bridge_core::settings::Order;
use ryggrad_bridge_core::subscription::{Fault, Subscription};
use serde_json::{Value, json};

use super::caller::Caller;
use super::page::Page;
use super::sent::Sent;
use super::subscriptions::{not_held, own_posted, run_posted};
use super::{Id, Shared};
use crate::contract::{Contract, Operation};
use crate::problem::{Code, Problem};
use crate::subscriptions::Selection;

const MEMBERS: [&str; 8] = ["id", "topic", "partition", "offset", "key", "from", "to", "preview"];

/// What was set aside, in the order of ids; `next` leads on.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own_posted(ready, caller, id).await?;
    let page = Page::read(raw.as_deref(), |text| text.parse::<LetterName>().ok())?;
    let (shown, next) = page.cut(ready.subscriptions.dead_letters(subscription.id).await, |letter| letter.id.clone());
    Ok(Json(json!({"dead_letters": shown, "next": next})))
}

/// Takes up again what was set aside: all of it, or one with what waits behind it.
pub async fn redrive(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, body: Sent) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = run_posted(ready, caller, id).await?;
    not_held(ready, &subscription)?;
    let selection = selected(&subscription, &body.json()?)?;
    match ready.subscriptions.redrive(subscription.id, &selection).await {
        0 if selection.one.is_some() => Err(Problem::not_found("dead letter")),
        redriven => Ok(counted("redriven", redriven, &selection)),
    }
}

/// Forgets what no key waits behind, for good: all of it, or what is selected.
pub async fn discard(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, body: Sent) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = run_posted(ready, caller, id).await?;
    let selection = selected(&subscription, &body.json()?)?;
    match ready.subscriptions.discard(subscription.id, &selection).await {
        0 if selection.one.is_some() => Err(Problem::not_found("dead letter")),
        discarded => Ok(counted("discarded", discarded, &selection)),
    }
}

/// Forgets one, for good.
pub async fn remove(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    path: Result<Path<HashMap<String, String>>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let ready = shared.ready()?;
    let subscription = run_posted(ready, caller, id).await?;
    let letter = path.ok().and_then(|Path(named)| named.get("letter")?.parse().ok());
    let absent = || Problem::not_found("dead letter");
    let selection = Selection { one: Some(letter.ok_or_else(absent)?), ..Selection::default() };
    if ready.subscriptions.discard(subscription.id, &selection).await > 0 { Ok(StatusCode::NO_CONTENT) } else { Err(absent()) }
}

fn counted(what: &str, count: usize, selection: &Selection) -> Json<Value> {
    let mut answer = json!({what: count});
    if selection.preview {
        answer["preview"] = json!(true);
    }
    Json(answer)
}

fn selected(subscription: &Subscription, body: &Value) -> Result<Selection, Problem> {
    let selection = selection(body).map_err(Problem::invalid)?;
    if selection.key.is_some() && subscription.delivery.order != Order::Key {
        return Err(Problem::invalid(vec![Fault::new("/key", "is for subscriptions whose order is key")]));
    }
    Ok(selection)
}

fn selection(body: &Value) -> Result<Selection, Vec<Fault>> {
    let Value::Object(members) = body else {
        return Err(vec![Fault::new(
            "",
            "the body is {} for all, or an object that selects: id (or topic, partition and offset) of one, or key, from, to",
        )]);
    };
    let mut faults = Fault::unknown_in(members, &MEMBERS);
    let mut selection = Selection::default();
    if PLACE.iter().any(|name| members.contains_key(*name)) {
        let place = parse_place(members, "", &mut faults);
        selection.one = place.map(|(Partition { topic, partition }, offset)| LetterName::Place { topic, partition, offset });
    }
    let mut wrong = |name: &str, detail: &str| faults.push(Fault::new(format!("/{name}"), detail));
    if let Some(id) = members.get("id") {
        let named = id.as_str().and_then(|text| text.parse().ok());
        match named.filter(|_| selection.one.is_none()) {
            Some(name) => selection.one = Some(name),
            None => wrong("id", "is the id of a dead letter, as the list shows it, without topic, partition and offset"),
        }
    }
    if let Some(key) = members.get("key") {
        selection.key = key.as_str().map(str::to_owned);
        if selection.key.is_none() {
            wrong("key", "is a text");
        }
    }
    for (name, time) in [("from", &mut selection.from), ("to", &mut selection.to)] {
        if let Some(text) = members.get(name) {
            *time = text.as_str().and_then(|text| text.parse().ok());
            if time.is_none() {
                wrong(name, "is a time like 2026-01-31T08:00:00Z");
            }
        }
    }
    if let Some(preview) = members.get("preview") {
        selection.preview = preview.as_bool().unwrap_or_else(|| {
            wrong("preview", "is true or false");
            false
        });
    }
    if faults.is_empty() { Ok(selection) } else { Err(faults) }
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let path = "/v1/subscriptions/{id}/dead-letters";
    let operation = |method, path, id, summary| Operation::new(method, path, id, "deliveries", summary).refuses(&[Code::Channel]);
    let list = operation("get", path, "listDeadLetters", "Lists what was set aside: references, never copies");
    contract.add(list.pages().answers(
        200,
        "A page of them, in the order of their ids. What is not for everyone has no partition and offset.",
        "DeadLetters",
    ));
    let redrive =
        operation("post", "/v1/subscriptions/{id}/dead-letters/redrive", "redriveDeadLetters", "Takes up again what was set aside");
    contract.add(redrive.takes("DeadLetterSelection").answers(200, "How many there were, or are.", "Redriven").refuses(&[Code::Stopped]));
    let discard = operation(
        "post",
        "/v1/subscriptions/{id}/dead-letters/discard",
        "discardDeadLetters",
        "Forgets what no key waits behind, for good",
    );
    contract.add(discard.takes("DeadLetterSelection").answers(200, "How many there were, or are.", "Discarded"));
    let remove = operation("delete", "/v1/subscriptions/{id}/dead-letters/{letter}", "deleteDeadLetter", "Forgets one, for good");
    contract.add(remove.path_part("letter", json!({"type": "string"}), "Its id.").answers_nothing(204, "It is forgotten."));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_one_are_selected_and_every_wrong_field_is_named() {
        let one = Selection { one: Some(LetterName::Place { topic: "t".to_owned(), partition: 0, offset: 9 }), ..Selection::default() };
        let time = "2026-01-31T08:00:00Z";
        let some = Selection { key: Some("k".to_owned()), from: time.parse().ok(), preview: true, ..Selection::default() };
        for (body, expected) in [
            (json!({}), Ok(Selection::default())),
            (json!({"key": "k", "from": time, "preview": true}), Ok(some)),
            (json!({"topic": "t", "partition": 0, "offset": 9.0}), Ok(one.clone())),
            (json!({"id": "t:0:9"}), Ok(one)),
            (json!({"id": "t:0:9", "topic": "t", "partition": 0, "offset": 9}), Err(vec!["/id"])),
            (json!({"id": "t"}), Err(vec!["/id"])),
            (json!([]), Err(vec![""])),
            (json!({"topic": "t", "offset": "9", "x": 1}), Err(vec!["/x", "/partition", "/offset"])),
            (json!({"key": 1, "from": "x", "to": 1, "preview": 1}), Err(vec!["/key", "/from", "/to", "/preview"])),
        ] {
            let found = selection(&body).map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>());
            assert_eq!(found, expected.map_err(|names: Vec<&str>| names.into_iter().map(str::to_owned).collect()), "{body}");
        }
    }
}
