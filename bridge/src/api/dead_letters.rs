//! `…/dead-letters`: references to deliveries that were set aside, and what becomes of them.
//!
//! Must never show an event's content: a reference says where it is, and no more.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use ryggrad_bridge_core::subscription::Fault;
use ryggrad_bridge_core::whole_number::whole_number;
use serde_json::{Value, json};

use super::caller::Caller;
use super::page::Page;
use super::subscriptions::{json_body, own_posted};
use super::{Id, Shared};
use crate::contract::{Contract, Operation};
use crate::problem::{Code, Problem};
use crate::subscriptions::{EventPlace, Selection, SetAside};

const MEMBERS: [&str; 3] = ["topic", "partition", "offset"];

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
pub async fn redrive(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, Problem> {
    let ready = shared.ready()?;
    let subscription = own_posted(ready, caller, id).await?;
    let selection = selection(&json_body(body, shared.config.request_bytes_max)?).map_err(Problem::invalid)?;
    let one = matches!(selection, Selection::One(_));
    match ready.subscriptions.redrive(subscription.id, selection).await {
        0 if one => Err(Problem::not_found("dead letter")),
        redriven => Ok(Json(json!({"redriven": redriven}))),
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
    let subscription = own_posted(ready, caller, id).await?;
    let letter = path.ok().and_then(|Path(named)| read_name(named.get("letter")?));
    let absent = || Problem::not_found("dead letter");
    if ready.subscriptions.drop_dead_letter(subscription.id, &letter.ok_or_else(absent)?).await {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(absent())
    }
}

fn selection(body: &Value) -> Result<Selection, Vec<Fault>> {
    let Value::Object(members) = body else {
        return Err(vec![Fault::new("", "the body is {} for all, or an object with topic, partition and offset of one")]);
    };
    if members.is_empty() {
        return Ok(Selection::All);
    }
    let mut faults: Vec<Fault> =
        members.keys().filter(|name| !MEMBERS.contains(&name.as_str())).map(|name| Fault::unknown(name, &MEMBERS)).collect();
    let topic = members.get("topic").and_then(Value::as_str);
    let partition = members.get("partition").and_then(whole_number).and_then(|partition| i32::try_from(partition).ok());
    let offset = members.get("offset").and_then(whole_number);
    for (name, detail, there) in [
        ("topic", "is the name of a topic", topic.is_some()),
        ("partition", "is the number of a partition", partition.is_some()),
        ("offset", "is an offset in that partition", offset.is_some()),
    ] {
        if !there {
            faults.push(Fault::new(format!("/{name}"), detail));
        }
    }
    match (topic, partition, offset) {
        (Some(topic), Some(partition), Some(offset)) if faults.is_empty() => {
            Ok(Selection::One(EventPlace { topic: topic.to_owned(), partition, offset }))
        }
        _ => Err(faults),
    }
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
    contract.add(redrive.takes("Redrive").answers(200, "How many there were.", "Redriven"));
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
        let one = Selection::One(EventPlace { topic: "t".to_owned(), partition: 0, offset: 9 });
        for (body, expected) in [
            (json!({}), Ok(Selection::All)),
            (json!({"topic": "t", "partition": 0, "offset": 9}), Ok(one)),
            (json!([]), Err(vec![""])),
            (json!({"topic": "t", "offset": "9", "key": 1}), Err(vec!["/key", "/partition", "/offset"])),
        ] {
            let found = selection(&body).map_err(|faults| faults.into_iter().map(|fault| fault.pointer).collect::<Vec<_>>());
            assert_eq!(found, expected.map_err(|names: Vec<&str>| names.into_iter().map(str::to_owned).collect()), "{body}");
        }
    }
}
