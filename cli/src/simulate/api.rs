//! The API as upstream speaks it: two feeds and two look-ups, with what was ordered to go wrong.
//! Bulk downloads have a file of their own, `download`.
//!
//! It must never answer better than upstream does: no `_embedded` on an empty page, no body on a
//! 404, a deleted unit with status 200.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};

use super::{
    faults::{Fault, FaultKind, Target},
    feed::{Feed, FeedQuery, Window},
    number::{Kind, Organisasjonsnummer},
    query::{self, BadParameter},
    service::Service,
    world::Found,
};

/// Where the real API lies on its host, and the simulated one on its own.
pub(super) const BASE_PATH: &str = "/enhetsregisteret/api";
const HANG: Duration = Duration::from_secs(30);
const BACKWARDS_ITEMS: usize = 5;
const FIREWALL_PAGE: &str = "<!DOCTYPE html>\n<html><head><title>Request Rejected</title></head>\
    <body>The requested URL was rejected. Your support ID is 4711.</body></html>\n";

pub(super) fn routes() -> Router<Arc<Service>> {
    let mut router = Router::new();
    for kind in Kind::BOTH {
        router = router
            .route(
                &format!("{BASE_PATH}/oppdateringer/{}", kind.path()),
                get(move |State(service): State<Arc<Service>>, headers: HeaderMap, RawQuery(query): RawQuery| async move {
                    feed(kind, &service, &headers, &query.unwrap_or_default()).await
                }),
            )
            .route(
                &format!("{BASE_PATH}/{}/{{number}}", kind.path()),
                get(move |State(service): State<Arc<Service>>, headers: HeaderMap, Path(number): Path<String>| async move {
                    look_up(kind, &service, &headers, &number).await
                }),
            );
    }
    router
}

/// Refusals that have nothing to do with the question.
pub(super) fn refusal(service: &Service, headers: &HeaderMap) -> Option<Response> {
    let accept = headers.get_all(header::ACCEPT).into_iter();
    let mut accept = accept.filter_map(|value| value.to_str().ok());
    if accept.any(|value| value.contains(".v1+json")) {
        return Some(StatusCode::NOT_ACCEPTABLE.into_response());
    }
    service.too_many_requests().then(|| {
        let retry = [(header::RETRY_AFTER, "1")];
        (StatusCode::TOO_MANY_REQUESTS, retry).into_response()
    })
}

async fn feed(kind: Kind, service: &Service, headers: &HeaderMap, query: &str) -> Response {
    if let Some(refusal) = refusal(service, headers) {
        return refusal;
    }
    let path = format!("{BASE_PATH}/oppdateringer/{}", kind.path());
    let asked = match query::parse(query) {
        Ok(asked) => asked,
        Err(bad) => return bad_request(&bad, &path),
    };
    let (fault, items, total, etag) = {
        let source = service.world().read();
        let feed = source.feed(kind);
        let asked = FeedQuery { last_id: service.world().shown_to(kind), ..asked.clone() };
        let mut window = feed.window(&asked);
        let fault = service.faults().take(|fault| fault.is_for(Target::Feed, kind) && fits(fault, feed, &asked, &window));
        let etag = etag(service, kind, asked.last_id.or(feed.latest_id()), query);
        if fault.is_none() && is_known(headers, &etag) {
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
        }
        match &fault {
            Some(fault) if fault.kind == FaultKind::Backwards => {
                let count = window.start.min(asked.size).min(BACKWARDS_ITEMS);
                window.positions = (window.start - count..window.start).collect();
            }
            Some(fault) if fault.kind == FaultKind::Overlap => {
                let first = window.positions.first().copied().unwrap_or_default();
                // Something new must be left on the page, or it would lead nowhere.
                let count = first.min(asked.size / 2).clamp(1, BACKWARDS_ITEMS);
                window.positions.splice(0..0, first - count..first);
                window.positions.truncate(asked.size.max(2));
            }
            Some(_) => {}
            None => overlap(service, &asked, &mut window),
        }
        let base = service.base();
        let render = |place: &usize| feed.render(*place, asked.include_changes, base);
        let items: Vec<Value> = window.positions.iter().map(render).collect();
        (fault, items, window.total, etag)
    };
    let url = format!("{}{path}", service.origin());
    let page = Page { kind, asked: &asked, url: &url, query };
    match fault {
        None => ([(header::ETAG, etag)], Json(page.body(items, total))).into_response(),
        Some(fault) => faulty_page(service, &fault, &page, items, total).await,
    }
}

struct Page<'a> {
    kind: Kind,
    asked: &'a FeedQuery,
    url: &'a str,
    query: &'a str,
}

impl Page<'_> {
    fn body(&self, items: Vec<Value>, total: usize) -> Value {
        let mut body = json!({
            "_links": query::links(self.url, self.query, self.asked, total),
            "page": query::page_object(self.asked, total),
        });
        if !items.is_empty() {
            body["_embedded"] = json!({self.kind.feed_key(): items});
        }
        body
    }
}

/// Whether the fault would be seen in this page.
fn fits(fault: &Fault, feed: &Feed, asked: &FeedQuery, window: &Window) -> bool {
    let holds = |number: Organisasjonsnummer| {
        let mut items = window.positions.iter().filter_map(|place| feed.item(*place));
        items.any(|item| item.number == Some(number))
    };
    fault.unit().is_none_or(holds)
        && match fault.kind {
            FaultKind::Html | FaultKind::Status | FaultKind::Hang | FaultKind::Truncate => true,
            FaultKind::Empty | FaultKind::EmptyMiddle | FaultKind::Malformed | FaultKind::UnknownType => !window.positions.is_empty(),
            FaultKind::Backwards => window.start > 0 && !asked.newest_first,
            FaultKind::Overlap => !asked.newest_first && window.positions.first().is_some_and(|first| *first > 0),
            FaultKind::TornJson | FaultKind::Shrunken => false,
        }
}

/// Lets some pages repeat an item, or begin with one from before the asked id.
fn overlap(service: &Service, asked: &FeedQuery, window: &mut Window) {
    let positions = &mut window.positions;
    if positions.is_empty() || !service.duplicates() {
        return;
    }
    let from_before = asked.page == 0 && !asked.newest_first && window.start > 0;
    if from_before && asked.numbers.is_none() && service.coin() {
        positions.insert(0, window.start - 1);
    } else {
        // Not the last one: cutting the page to size would undo it.
        let place = positions.len().saturating_sub(2) / 2;
        positions.insert(place, positions[place]);
    }
    // A page of one would otherwise never lead onwards.
    if positions.len() > asked.size && positions.len() > 2 {
        positions.pop();
    }
}

async fn faulty_page(service: &Service, fault: &Fault, page: &Page<'_>, mut items: Vec<Value>, total: usize) -> Response {
    let middle = items.len() / 2;
    let struck = match fault.unit() {
        Some(number) => items.iter().position(|item| item["organisasjonsnummer"] == number.to_string()).unwrap_or(middle),
        None => middle,
    };
    let total = match fault.kind {
        FaultKind::Empty => {
            items.clear();
            0
        }
        FaultKind::EmptyMiddle => {
            items.clear();
            total
        }
        _ => total,
    };
    if let Some(item) = items.get_mut(struck).and_then(Value::as_object_mut) {
        match fault.kind {
            FaultKind::Malformed if fault.count.is_multiple_of(2) => {
                item.remove("organisasjonsnummer");
            }
            FaultKind::Malformed => {
                item.insert("organisasjonsnummer".into(), "12345".into());
            }
            FaultKind::UnknownType => {
                item.insert("endringstype".into(), "Oppstaatt".into());
            }
            _ => {}
        }
    }
    spoil(service, fault, page.body(items, total).to_string()).await
}

/// The faults that any answer can have; the others have already changed the body.
async fn spoil(service: &Service, fault: &Fault, mut body: String) -> Response {
    if let Some(refused) = refused(fault) {
        return refused;
    }
    if fault.kind == FaultKind::Hang {
        hang(service).await;
    }
    if fault.kind == FaultKind::Truncate {
        let half = body.floor_char_boundary(body.len() / 2);
        body.truncate(half);
    }
    json_text(body)
}

/// The answer of a fault that leaves nothing of the right one.
pub(super) fn refused(fault: &Fault) -> Option<Response> {
    match fault.kind {
        FaultKind::Html => {
            let html = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            Some((html, FIREWALL_PAGE).into_response())
        }
        FaultKind::Status => {
            let mut answer = fault.status().into_response();
            if let Some(seconds) = fault.retry_after_s {
                answer.headers_mut().insert(header::RETRY_AFTER, seconds.into());
            }
            Some(answer)
        }
        _ => None,
    }
}

/// Waits as long as a simulated hang lasts.
pub(super) async fn hang(service: &Service) {
    // Nobody is to wait for the end of a simulated hang when the simulator stops.
    let _ = tokio::time::timeout(HANG, service.stopping()).await;
}

async fn look_up(kind: Kind, service: &Service, headers: &HeaderMap, number: &str) -> Response {
    if let Some(refusal) = refusal(service, headers) {
        return refusal;
    }
    let Some(number) = Organisasjonsnummer::parse(number) else {
        let reason = "organisasjonsnummer må være ni siffer";
        let bad = BadParameter::new("organisasjonsnummer", number, reason);
        return bad_request(&bad, &format!("{BASE_PATH}/{}/{number}", kind.path()));
    };
    let found = service.world().read().look_up(kind, number);
    let has_document = matches!(found, Found::Document(_));
    let fault = service.faults().take(|fault| {
        let shows = match fault.kind {
            FaultKind::Malformed | FaultKind::Truncate | FaultKind::Empty => has_document,
            _ => true,
        };
        fault.is_for(Target::Lookup, kind) && fault.unit().is_none_or(|unit| unit == number) && shows
    });
    match (fault, found) {
        (Some(fault), Found::Document(text)) => {
            let body = match fault.kind {
                FaultKind::Empty => String::new(),
                FaultKind::Malformed if fault.count.is_multiple_of(2) => "[]".to_owned(),
                FaultKind::Malformed => renumbered(&text, number.neighbour()),
                _ => text,
            };
            spoil(service, &fault, body).await
        }
        (Some(fault), found) if fault.kind == FaultKind::Hang => {
            spoil(service, &fault, String::new()).await;
            answer(found)
        }
        (Some(fault), _) => spoil(service, &fault, String::new()).await,
        (None, found) => answer(found),
    }
}

fn answer(found: Found) -> Response {
    match found {
        Found::Document(text) => json_text(text),
        Found::Removed(body) => (StatusCode::GONE, Json(body)).into_response(),
        Found::Unknown => StatusCode::NOT_FOUND.into_response(),
    }
}

fn renumbered(text: &str, number: Organisasjonsnummer) -> String {
    let mut document: Value = serde_json::from_str(text).unwrap_or_default();
    if let Some(fields) = document.as_object_mut() {
        fields.insert("organisasjonsnummer".into(), number.to_string().into());
    }
    document.to_string()
}

fn json_text(body: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub(super) fn bad_request(bad: &BadParameter, path: &str) -> Response {
    (StatusCode::BAD_REQUEST, Json(bad.body(path))).into_response()
}

/// Follows from the question and the latest id alone: no page is rendered to know it.
fn etag(service: &Service, kind: Kind, latest_id: Option<u64>, query: &str) -> String {
    let mut hasher = DefaultHasher::new();
    (service.identity(), kind, latest_id, query).hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(header::IF_NONE_MATCH)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|known| known == etag || known == "*")
}
