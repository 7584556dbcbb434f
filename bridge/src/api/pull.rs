//! `…/events` and `…/ack`: the feed of a receiver that fetches, as a long poll or as server-sent
//! events.
//!
//! Asking for what follows a cursor acknowledges everything up to it; a stream acknowledges only
//! what its first request names. Must never move a cursor on a word that this bridge has not
//! written for this subscription, or that belongs to a run of numbers that is over.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use ryggrad_bridge_core::pull_cursor::PullCursor;
use ryggrad_bridge_core::subscription::{Fault, Subscription};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::caller::{Caller, Standing};
use super::page::LIMIT_MAX;
use super::query::Query;
use super::sent::Sent;
use super::subscriptions::{not_held, run_fetched};
use super::{Id, Ready, Shared};
use crate::access::Hold;
use crate::contract::schemas::{id, organisation};
use crate::contract::{Contract, Operation};
use crate::problem::{Code, Problem};
use crate::subscriptions::{Fetched, Subscriptions};

const BATCH_JSON: &str = "application/cloudevents-batch+json";
const CURSOR: HeaderName = HeaderName::from_static("ryggrad-cursor");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const LIMIT_DEFAULT: u64 = 100;
/// Longest wait for the first event.
const WAIT_S_MAX: u64 = 60;
const HEARTBEAT: Duration = Duration::from_secs(15);
/// How often a stream looks whether its receiver may have it still, and how long what was fetched for it counts as decided.
const LOOKED_AFTER: Duration = Duration::from_secs(1);

/// What a request asks for.
struct Asked {
    after: Option<PullCursor>,
    limit: u64,
    wait_s: u64,
}

/// Events after a cursor, as a batch or as a stream.
pub async fn events(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    headers: HeaderMap,
    RawQuery(raw): RawQuery,
) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    let standing = Standing::of(caller.clone(), &headers);
    let subscription = run_fetched(ready, caller, id).await?;
    not_held(ready, &subscription)?;
    let streamed = accepts_stream(&headers);
    let asked = asked(ready, &subscription, raw.as_deref(), headers.get(LAST_EVENT_ID).filter(|_| streamed))?;
    take(ready, subscription.id, asked.after).await?;
    let named = named(&subscription);
    if streamed {
        let state = Feed::new(&shared, standing, &ready.subscriptions, &subscription, asked.after.map(|cursor| cursor.number)).await;
        let stream = Sse::new(state.events()).keep_alive(KeepAlive::new().interval(HEARTBEAT).text("heartbeat"));
        return Ok((named, stream).into_response());
    }
    let (epoch, number, events) = wait_for(ready, &subscription, &asked).await?;
    let cursor = ready.subscriptions.cursor_key().encode(subscription.id, PullCursor { epoch, number });
    let Asked { limit, wait_s, .. } = asked;
    let next = format!("</v1/subscriptions/{}/events?after={cursor}&limit={limit}&wait_s={wait_s}>; rel=\"next\"", subscription.id);
    let head = [(header::CONTENT_TYPE, BATCH_JSON.to_owned()), (CURSOR, cursor), (header::LINK, next)];
    Ok((StatusCode::OK, named, head, batch(&events)).into_response())
}

/// Whom events are for, in the headers of their answer.
fn named(subscription: &Subscription) -> HeaderMap {
    // Ids and numbers, which any header can say.
    let said = |(name, value): (&'static str, String)| Some((HeaderName::from_static(name), value.parse().ok()?));
    subscription.named().into_iter().filter_map(said).collect()
}

/// Settles everything up to a cursor.
pub async fn acknowledge(State(shared): State<Arc<Shared>>, caller: Caller, id: Id, body: Sent) -> Result<StatusCode, Problem> {
    let ready = shared.ready()?;
    let subscription = run_fetched(ready, caller, id).await?;
    let body = body.json()?;
    let only = body.as_object().is_some_and(|members| members.len() == 1);
    let Some(text) = body.get("cursor").and_then(Value::as_str).filter(|_| only) else {
        return Err(Problem::invalid(vec![Fault::new("/cursor", "is the cursor of an answer, and the one member of the body")]));
    };
    let cursor = decoded(ready, &subscription, text)?;
    take(ready, subscription.id, Some(cursor)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn asked(ready: &Ready, subscription: &Subscription, raw: Option<&str>, last: Option<&header::HeaderValue>) -> Result<Asked, Problem> {
    let mut query = Query::read(raw, &["after", "limit", "wait_s"]);
    let (limit, wait_s) = (query.number("limit", 1..=LIMIT_MAX, LIMIT_DEFAULT), query.number("wait_s", 0..=WAIT_S_MAX, 0));
    // What a stream's receiver got last counts before what it once began with.
    let last = last.and_then(|value| value.to_str().ok()).filter(|value| !value.is_empty());
    let after = last.or(query.text("after")).map(|text| decoded(ready, subscription, text));
    query.end()?;
    Ok(Asked { after: after.transpose()?, limit, wait_s })
}

pub(super) fn decoded(ready: &Ready, subscription: &Subscription, text: &str) -> Result<PullCursor, Problem> {
    ready.subscriptions.cursor_key().decode(subscription.id, text).map_err(|why| Problem::cursor(&why.to_string()))
}

/// Acknowledges what a cursor says, if it is of the run of numbers that goes on.
pub(super) async fn take(ready: &Ready, id: Uuid, cursor: Option<PullCursor>) -> Result<(), Problem> {
    let epoch = ready.subscriptions.epoch(id).await.ok_or_else(not_running)?;
    let Some(cursor) = cursor else { return Ok(()) };
    if cursor.epoch != epoch {
        return Err(Problem::resync());
    }
    if ready.subscriptions.acknowledge(id, cursor.number).await { Ok(()) } else { Err(not_running()) }
}

/// What follows, once there is anything, the time is up or the bridge stops; unless its receiver is stopped before.
async fn wait_for(ready: &Ready, subscription: &Subscription, asked: &Asked) -> Result<(u32, u64, Vec<Bytes>), Problem> {
    let (id, hold) = (subscription.id, ready.subscriptions.hold(subscription));
    let (after, limit) = (asked.after.map(|cursor| cursor.number), asked.limit as usize);
    let deadline = Instant::now() + Duration::from_secs(asked.wait_s);
    let (mut news, stopping) = (ready.subscriptions.available(id).await, ready.subscriptions.stopping());
    loop {
        if let Some(news) = &mut news {
            // Before the look: what comes during it is news.
            news.borrow_and_update();
        }
        let fetched = ready.subscriptions.fetch(id, "pull", after, limit).await.ok_or_else(not_running)?;
        if asked.after.is_some_and(|cursor| cursor.epoch != fetched.epoch) {
            return Err(Problem::resync());
        }
        if let Some(reason) = hold.reason() {
            return Err(Problem::stopped(reason));
        }
        let patient = asked.wait_s > 0 && Instant::now() < deadline && !stopping.is_cancelled();
        if !fetched.events.is_empty() || !patient {
            return Ok(reached(after, fetched));
        }
        // What is put off is no news when it can be had.
        let again = if fetched.put_off { deadline.min(Instant::now() + LOOKED_AFTER) } else { deadline };
        tokio::select! {
            () = changed(&mut news) => {}
            () = tokio::time::sleep_until(again) => {}
            () = hold.set() => {}
            () = stopping.cancelled() => {}
        }
    }
}

/// The epoch, the number up to which this answer goes, and its events.
fn reached(after: Option<u64>, fetched: Fetched) -> (u32, u64, Vec<Bytes>) {
    let number = fetched.events.last().map_or(after.unwrap_or(fetched.acknowledged), |(number, _)| *number);
    (fetched.epoch, number, fetched.events.into_iter().map(|(_, event)| event).collect())
}

/// Returns when there may be news, the end of all news included; never again after that.
pub(super) async fn changed(news: &mut Option<watch::Receiver<u64>>) {
    let Some(receiver) = news else { return std::future::pending().await };
    if receiver.changed().await.is_err() {
        *news = None;
    }
}

/// A stream of events that goes on until either side ends it.
struct Feed {
    shared: Arc<Shared>,
    standing: Standing,
    looked_at: Instant,
    /// When it was decided that what waits may go.
    decided_at: Instant,
    subscriptions: Arc<Subscriptions>,
    id: Uuid,
    hold: Arc<Hold>,
    sent: Option<u64>,
    epoch: Option<u32>,
    waiting: std::vec::IntoIter<(u64, Bytes)>,
    news: Option<watch::Receiver<u64>>,
}

impl Feed {
    async fn new(
        shared: &Arc<Shared>,
        standing: Standing,
        subscriptions: &Arc<Subscriptions>,
        subscription: &Subscription,
        sent: Option<u64>,
    ) -> Self {
        let (id, hold) = (subscription.id, subscriptions.hold(subscription));
        let news = subscriptions.available(id).await;
        let (shared, subscriptions, waiting) = (Arc::clone(shared), Arc::clone(subscriptions), Vec::new().into_iter());
        let now = Instant::now();
        Self { shared, standing, looked_at: now, decided_at: now, subscriptions, id, hold, sent, epoch: None, waiting, news }
    }

    fn events(self) -> impl Stream<Item = Result<Event, axum::Error>> {
        stream::unfold(self, |mut feed| async move {
            let (number, event) = feed.next().await?;
            let cursor = PullCursor { epoch: feed.epoch?, number };
            let id = feed.subscriptions.cursor_key().encode(feed.id, cursor);
            // JSON has no line breaks outside of texts, and none within.
            let text = String::from_utf8_lossy(&event).into_owned();
            Some((Ok(Event::default().id(id).data(text)), feed))
        })
    }

    /// The next event; `None` where the stream ends: the subscription is gone, its numbers begin
    /// anew, its receiver is stopped or may not see it any more, or the bridge stops. Whoever comes back is told which.
    async fn next(&mut self) -> Option<(u64, Bytes)> {
        let stopping = self.subscriptions.stopping();
        loop {
            if self.hold.is_set() {
                return None;
            }
            if self.looked_at.elapsed() >= LOOKED_AFTER {
                if !self.standing.sees(&self.shared, &self.subscriptions, self.id).await {
                    return None;
                }
                self.looked_at = Instant::now();
            }
            if self.decided_at.elapsed() >= LOOKED_AFTER {
                // What was fetched before may have to stay by now: the receiver is slow.
                self.waiting = Vec::new().into_iter();
            }
            if let Some((number, event)) = self.waiting.next() {
                self.sent = Some(number);
                return Some((number, event));
            }
            if let Some(news) = &mut self.news {
                news.borrow_and_update();
            }
            let fetched = self.subscriptions.fetch(self.id, "event-stream", self.sent, LIMIT_DEFAULT as usize).await?;
            if *self.epoch.get_or_insert(fetched.epoch) != fetched.epoch {
                return None;
            }
            if !fetched.events.is_empty() {
                // Now, however long recording it has taken.
                self.decided_at = Instant::now();
                self.waiting = fetched.events.into_iter();
                continue;
            }
            self.news.as_ref()?;
            tokio::select! {
                () = changed(&mut self.news) => {}
                () = tokio::time::sleep(LOOKED_AFTER) => {}
                () = self.hold.set() => return None,
                () = stopping.cancelled() => return None,
            }
        }
    }
}

fn accepts_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
    accepted.map(|range| range.split(';').next().unwrap_or_default().trim()).any(|range| range.eq_ignore_ascii_case("text/event-stream"))
}

/// A JSON array of events that are JSON already.
fn batch(events: &[Bytes]) -> Bytes {
    let mut body = BytesMut::with_capacity(2 + events.iter().map(|event| event.len() + 1).sum::<usize>());
    body.extend_from_slice(b"[");
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(b",");
        }
        body.extend_from_slice(event);
    }
    body.extend_from_slice(b"]");
    body.freeze()
}

pub(super) fn not_running() -> Problem {
    Problem::unavailable("the subscription is not running; try again, and see the bridge's log if that does not help")
}

/// What these calls promise.
pub fn describe(contract: &mut Contract) {
    let cursor = || json!({"type": "string", "format": "event-cursor"});
    let number = |from: u64, to: u64, default: u64| json!({"type": "integer", "minimum": from, "maximum": to, "default": default});
    let refusals = [Code::Invalid, Code::Cursor, Code::Channel, Code::Resync];
    let events =
        Operation::new("get", "/v1/subscriptions/{id}/events", "fetchEvents", "events", "Fetches events, as a batch or as a stream")
            .about("With Accept: text/event-stream the events come as server-sent events, without end: id is the cursor, data the event.")
            .query("after", cursor(), "Everything up to here is taken: it is acknowledged, and what follows is answered.")
            .query("limit", number(1, LIMIT_MAX, LIMIT_DEFAULT), "How many, at most.")
            .query("wait_s", number(0, WAIT_S_MAX, 0), "How long to wait for the first.")
            .header("Last-Event-ID", cursor(), "For a stream: the cursor of the last event that came.")
            .answers_as(200, "Events; none if none came in time.", BATCH_JSON, json!({"$ref": "#/components/schemas/Events"}))
            .answers_as(200, "", "text/event-stream", json!({"type": "string"}))
            .with("Ryggrad-Cursor", cursor(), "What to ask with next (not with a stream).")
            .with("Link", json!({"type": "string"}), "The address of the next batch, with rel next (not with a stream).")
            .with("Ryggrad-Subscription", id(), "The subscription.")
            .with(
                "Ryggrad-Organisation",
                organisation(),
                "Whom it is for; Ryggrad-Supplier beside it is who acts for that one, if another does.",
            )
            .refuses(&refusals)
            .refuses(&[Code::Stopped]);
    contract.add(events);
    let ack = Operation::new("post", "/v1/subscriptions/{id}/ack", "acknowledgeEvents", "events", "Acknowledges everything up to a cursor");
    contract.add(ack.takes("Acknowledgement").answers_nothing(204, "It is acknowledged.").refuses(&refusals));
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn a_batch_is_an_array_of_what_is_there() {
        let event = |text: &'static str| Bytes::from_static(text.as_bytes());
        assert_eq!(batch(&[]), "[]");
        assert_eq!(batch(&[event("{\"a\":1}")]), "[{\"a\":1}]");
        assert_eq!(batch(&[event("{}"), event("{}"), event("{}")]), "[{},{},{}]");
    }

    #[test]
    fn an_answer_reaches_to_its_last_event_or_stays_where_it_was() {
        let fetched = |numbers: &[u64]| Fetched {
            epoch: 2,
            acknowledged: 5,
            events: numbers.iter().map(|number| (*number, Bytes::new())).collect(),
            owed: Vec::new(),
            put_off: false,
        };
        for (after, numbers, expected) in [(None, vec![], 5), (Some(7), vec![], 7), (None, vec![6, 7], 7), (Some(7), vec![8, 10], 10)] {
            let (epoch, number, events) = reached(after, fetched(&numbers));
            assert_eq!((epoch, number, events.len()), (2, expected, numbers.len()));
        }
    }

    #[test]
    fn a_stream_is_asked_for_by_its_media_type() {
        for (accept, expected) in [
            ("text/event-stream", true),
            ("application/json, Text/Event-Stream;q=0.9", true),
            ("*/*", false),
            ("application/cloudevents-batch+json", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(accepts_stream(&headers), expected, "{accept}");
        }
        assert!(!accepts_stream(&HeaderMap::new()));
    }
}
