//! `…/dead-letters`: references to deliveries that were set aside, and what becomes of them.
//!
//! Must never show an event's content: a reference says where it is, and no more.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
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
use crate::subscriptions::{EventPlace, Selection, SetAside};

const MEMBERS: [&str; 7] = ["topic", "partition", "offset", "key", "from", "to", "preview"];

/// What was set aside, by topic, partition and offset; `next` leads on.
pub async fn list(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, RawQuery(raw): RawQuery) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own_posted(ready, caller, id).await?;
    let page = Page::read(raw.as_deref(), read_name)?;
    let mut all = ready.subscriptions.dead_letters(subscription.id).await;
    all.sort_by_key(place);
    let (shown, next) = page.cut(all, place);
    Ok(Json(json!({"dead_letters": shown.iter().map(reference).collect::<Vec<_>>(), "next": next.as_ref().map(name)})))
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
    let letter = path.ok().and_then(|Path(named)| read_name(named.get("letter")?));
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
            "the body is {} for all, or an object that selects: topic, partition and offset of one, or key, from, to",
        )]);
    };
    let mut faults = Fault::unknown_in(members, &MEMBERS);
    let mut selection = Selection::default();
    if PLACE.iter().any(|name| members.contains_key(*name)) {
        let place = parse_place(members, "", &mut faults);
        selection.one = place.map(|(Partition { topic, partition }, offset)| EventPlace { topic, partition, offset });
    }
    let mut wrong = |name: &str, detail: &str| faults.push(Fault::new(format!("/{name}"), detail));
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

fn place(letter: &SetAside) -> EventPlace {
    EventPlace { topic: letter.topic.clone(), partition: letter.partition, offset: letter.offset }
}

fn reference(letter: &SetAside) -> Value {
    let mut shown = json!(letter);
    shown["id"] = json!(name(&place(letter)));
    shown
}

/// A place as one word. No topic's name holds a colon.
fn name(EventPlace { topic, partition, offset }: &EventPlace) -> String {
    format!("{topic}:{partition}:{offset}")
}

fn read_name(text: &str) -> Option<EventPlace> {
    let (rest, offset) = text.rsplit_once(':')?;
    let (topic, partition) = rest.rsplit_once(':')?;
    Some(EventPlace { topic: topic.to_owned(), partition: partition.parse().ok()?, offset: offset.parse().ok()? })
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let path = "/v1/subscriptions/{id}/dead-letters";
    let operation = |method, path, id, summary| Operation::new(method, path, id, "deliveries", summary).refuses(&[Code::Channel]);
    let list = operation("get", path, "listDeadLetters", "Lists what was set aside: references, never copies");
    contract.add(list.pages().answers(200, "A page of them, by topic, partition and offset.", "DeadLetters"));
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
    fn a_place_is_one_word_and_back() {
        let place = EventPlace { topic: "grunndata.virksomhet.v1".to_owned(), partition: 3, offset: 17 };
        assert_eq!(name(&place), "grunndata.virksomhet.v1:3:17");
        assert_eq!(read_name(&name(&place)), Some(place));
        for text in ["", "a", "a:1", "a:x:1", "a:1:", "a:1:99999999999999999999"] {
            assert_eq!(read_name(text), None, "{text}");
        }
    }

    #[test]
    fn all_or_one_are_selected_and_every_wrong_field_is_named() {
        let one = Selection { one: Some(EventPlace { topic: "t".to_owned(), partition: 0, offset: 9 }), ..Selection::default() };
        let time = "2026-01-31T08:00:00Z";
        let some = Selection { key: Some("k".to_owned()), from: time.parse().ok(), preview: true, ..Selection::default() };
        for (body, expected) in [
            (json!({}), Ok(Selection::default())),
            (json!({"key": "k", "from": time, "preview": true}), Ok(some)),
            (json!({"topic": "t", "partition": 0, "offset": 9.0}), Ok(one)),
            (json!([]), Err(vec![""])),
            (json!({"topic": "t", "offset": "9", "x": 1}), Err(vec!["/x", "/partition", "/offset"])),
            (json!({"key": 1, "from": "x", "to": 1, "preview": 1}), Err(vec!["/key", "/from", "/to", "/preview"])),
        ] {
            let found = selection(&body).map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>());
            assert_eq!(found, expected.map_err(|names: Vec<&str>| names.into_iter().map(str::to_owned).collect()), "{body}");
        }
    }
}
