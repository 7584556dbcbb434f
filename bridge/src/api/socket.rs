//! `…/socket`: the feed of a receiver over a WebSocket.
//!
//! What is sent and taken is decided by the session in `ryggrad-bridge-core`; this reads, writes
//! and waits. Must never hold more than one portion of events for a receiver that does not read.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::Response;
use futures_util::FutureExt;
use ryggrad_bridge_core::access;
use ryggrad_bridge_core::pull_cursor::PullCursor;
use ryggrad_bridge_core::socket::{Action, Close, HEARTBEAT_MS, Input, Protocol, Session, event_frame, hello_frame, with_cursor};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use uuid::Uuid;

use super::caller::{Caller, Standing};
use super::pull::{changed, decoded, not_running, take};
use super::query::Query;
use super::subscriptions::{not_held, run_fetched};
use super::{Id, Ready, Shared};
use crate::access::Hold;
use crate::contract::{Contract, Operation};
use crate::problem::{Code, Problem};
use crate::sockets::Place;
use crate::subscriptions::{Fetched, Subscriptions};

/// How records of disclosures name it.
const CHANNEL: &str = "websocket";
/// Events that are asked for together.
const PORTION_EVENTS: usize = 64;
/// Bytes of a receiver's message.
const MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes that are read together: thousands of connections are idle.
const READ_BYTES: usize = 4 * 1024;
/// Messages of the receiver that are taken in together.
const HEARD_TOGETHER: usize = 64;
/// How long a receiver may take to read before it is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a connection looks after itself: its token, its heartbeat.
const TICK: Duration = Duration::from_secs(1);
/// How long the other side may take to answer a close; what it said before that is still heard.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long what was fetched counts as decided.
const DECIDED_FOR: Duration = Duration::from_secs(1);
/// How long a connection waits for the end of the one that it takes over from.
const TAKEOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// Opens a connection.
pub async fn open(
    State(shared): State<Arc<Shared>>,
    caller: Caller,
    id: Id,
    headers: HeaderMap,
    RawQuery(raw): RawQuery,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let ready = shared.ready()?;
    let standing = Standing::of(caller.clone(), &headers);
    let subscription = run_fetched(ready, caller, id).await?;
    not_held(ready, &subscription)?;
    let query = Query::read(raw.as_deref(), &["after"]);
    let after = query.text("after").map(|text| decoded(ready, &subscription, text));
    query.end()?;
    let after = after.transpose()?;
    let offered = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    let protocol = Protocol::choose(offered.flat_map(|list| list.split(',')).map(str::trim));
    let (Ok(upgrade), Some(protocol)) = (upgrade, protocol) else { return Err(Problem::upgrade()) };
    // Whoever resumes says what it has; numbers that are over are told before anything is opened.
    take(ready, subscription.id, after).await?;
    // Whoever is refused takes nothing over.
    begins_behind(ready, subscription.id, after).await?;
    let mut place = shared.sockets.enter(subscription.id).ok_or_else(|| Problem::limit("this bridge holds no more sockets".to_owned()))?;
    // What the receiver says last over the connection before counts before this one's first word.
    if !place.take_turn(TAKEOVER_TIMEOUT).await {
        shared.telemetry.socket_takeovers_late.inc();
    }
    let fetched = begins_behind(ready, subscription.id, after).await?;
    let connection = Connection {
        subscriptions: Arc::clone(&ready.subscriptions),
        id: subscription.id,
        recipient: subscription.caller(),
        epoch: fetched.epoch,
        protocol,
        started: Instant::now(),
        session: Session::new(0, protocol, fetched.acknowledged, shared.config.pending_max),
        window: shared.config.pending_max,
        standing,
        hold: ready.subscriptions.hold(&subscription),
        shared: Arc::clone(&shared),
        place,
    };
    let upgrade =
        upgrade.read_buffer_size(READ_BYTES).write_buffer_size(0).max_message_size(MESSAGE_BYTES_MAX).max_frame_size(MESSAGE_BYTES_MAX);
    Ok(upgrade.protocols([protocol.name()]).on_upgrade(|socket| connection.serve(socket)))
}

/// Where a connection begins, unless what it would begin with was taken already.
async fn begins_behind(ready: &Ready, id: Uuid, after: Option<PullCursor>) -> Result<Fetched, Problem> {
    let fetched = ready.subscriptions.fetch(id, CHANNEL, None, 0).await.ok_or_else(not_running)?;
    if after.is_some_and(|after| after.number < fetched.acknowledged) { Err(Problem::passed()) } else { Ok(fetched) }
}

/// One open connection.
struct Connection {
    shared: Arc<Shared>,
    subscriptions: Arc<Subscriptions>,
    id: Uuid,
    /// Whom it is for.
    recipient: access::Caller,
    epoch: u32,
    protocol: Protocol,
    started: Instant,
    session: Session,
    window: usize,
    /// What it was opened with: looked at again and again.
    standing: Standing,
    /// Whether its receiver is stopped.
    hold: Arc<Hold>,
    place: Place,
}

/// Nobody is there to hear more.
struct Gone;

impl Connection {
    async fn serve(mut self, mut socket: WebSocket) {
        if let Ok(close) = self.converse(&mut socket).await {
            let frame = CloseFrame { code: close.code(), reason: close.reason().into() };
            // The other side answers with a close of its own, or is gone.
            if send(&mut socket, Message::Close(Some(frame))).await.is_ok() {
                let _ = tokio::time::timeout(CLOSE_TIMEOUT, self.part(&mut socket, close)).await;
            }
        }
    }

    /// Hears the other side out. Whoever was replaced or stopped has broken no rule of this protocol: what it acknowledges
    /// still counts.
    async fn part(&mut self, socket: &mut WebSocket, close: Close) {
        let counts = matches!(close, Close::Replaced | Close::Stopped) && self.protocol == Protocol::Ryggrad;
        loop {
            let (heard, mut actions) = (socket.recv().await, Vec::new());
            let gone = self.hear_together(socket, heard, &mut actions).is_err();
            let faulty = counts && matches!(self.perform(socket, actions).await, Ok(Some(_)));
            if gone || faulty {
                return;
            }
        }
    }

    /// Goes on until one side ends it: with the reason if that is the bridge.
    async fn converse(&mut self, socket: &mut WebSocket) -> Result<Close, Gone> {
        let (stopping, hold) = (self.subscriptions.stopping(), Arc::clone(&self.hold));
        let mut news = self.subscriptions.available(self.id).await;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if self.protocol == Protocol::Ryggrad {
            let (taken, cursor) = (self.session.sent(), self.cursor(self.session.sent()));
            let hello = hello_frame(&self.id.to_string(), self.recipient, self.epoch, taken, &cursor, self.window, HEARTBEAT_MS);
            send(socket, Message::Text(hello.into())).await?;
        }
        loop {
            if let Some(close) = self.deliver(socket, &mut news).await? {
                return Ok(close);
            }
            let (mut actions, mut there) = (Vec::new(), Ok(()));
            tokio::select! {
                heard = socket.recv() => there = self.hear_together(socket, heard, &mut actions),
                () = changed(&mut news) => {}
                _ = ticks.tick() => {
                    self.step(Input::Tick, &mut actions);
                    if !self.standing.sees(&self.shared, &self.subscriptions, self.id).await {
                        return Ok(Close::Unauthorised);
                    }
                }
                () = hold.set() => return Ok(Close::Stopped),
                () = self.place.replaced() => return Ok(Close::Replaced),
                () = stopping.cancelled() => return Ok(Close::GoingAway),
            }
            // Also what it said right before it went.
            if let Some(close) = self.perform(socket, actions).await? {
                return Ok(close);
            }
            there?;
        }
    }

    /// Sends what may be sent.
    async fn deliver(&mut self, socket: &mut WebSocket, news: &mut Option<watch::Receiver<u64>>) -> Result<Option<Close>, Gone> {
        let room = self.session.room().min(PORTION_EVENTS);
        if room == 0 {
            return Ok(None);
        }
        if let Some(news) = news {
            // Before the look: what comes during it is news.
            news.borrow_and_update();
        }
        let Some(fetched) = self.subscriptions.fetch(self.id, CHANNEL, Some(self.session.sent()), room).await else {
            return Ok(Some(if self.subscriptions.stopping().is_cancelled() { Close::GoingAway } else { Close::Ended }));
        };
        if fetched.epoch != self.epoch {
            return Ok(Some(Close::Resync));
        }
        let (mut whole, decided_at) = (fetched.events.len() == room, Instant::now());
        for (number, event) in fetched.events {
            if self.hold.is_set() {
                return Ok(Some(Close::Stopped));
            }
            // The receiver is slow, and what was decided then may be decided otherwise by now.
            if decided_at.elapsed() >= DECIDED_FOR {
                whole = true;
                break;
            }
            let text = self.text(number, &event);
            send(socket, Message::Text(text.into())).await?;
            let mut actions = Vec::new();
            self.step(Input::Sent(number), &mut actions);
            if let Some(close) = self.perform(socket, actions).await? {
                return Ok(Some(close));
            }
        }
        if whole && let Some(news) = news {
            // There may be more; what the receiver says comes first.
            news.mark_changed();
        }
        Ok(None)
    }

    async fn perform(&mut self, socket: &mut WebSocket, actions: Vec<Action>) -> Result<Option<Close>, Gone> {
        // The last acknowledgement stands for those before it.
        let taken = actions.iter().filter_map(|action| if let Action::Acknowledge(number) = action { Some(*number) } else { None }).max();
        let mut closing = None;
        for action in actions {
            match action {
                Action::Text(text) => send(socket, Message::Text(text.into())).await?,
                Action::Ping(payload) => send(socket, Message::Ping(payload.into())).await?,
                Action::Acknowledge(_) => {}
                Action::Close(close) => {
                    closing = Some(close);
                    break;
                }
            }
        }
        if let Some(number) = taken {
            // What was acknowledged before a fault counts.
            if !self.subscriptions.acknowledge(self.id, number).await {
                let stops = self.subscriptions.stopping().is_cancelled();
                return Ok(closing.or(Some(if stops { Close::GoingAway } else { Close::Ended })));
            }
            let mut actions = Vec::new();
            self.step(Input::Settled(number), &mut actions);
            for action in actions {
                if let Action::Text(text) = action {
                    send(socket, Message::Text(text.into())).await?;
                }
            }
        }
        Ok(closing)
    }

    /// What came, with what has come by now.
    fn hear_together(
        &mut self,
        socket: &mut WebSocket,
        first: Option<Result<Message, axum::Error>>,
        actions: &mut Vec<Action>,
    ) -> Result<(), Gone> {
        self.hear(first, actions)?;
        for _ in 1..HEARD_TOGETHER {
            let Some(heard) = socket.recv().now_or_never() else { break };
            self.hear(heard, actions)?;
        }
        Ok(())
    }

    fn hear(&mut self, heard: Option<Result<Message, axum::Error>>, actions: &mut Vec<Action>) -> Result<(), Gone> {
        match heard {
            Some(Ok(Message::Text(text))) => self.step(Input::Text(&text), actions),
            Some(Ok(Message::Binary(_))) => self.step(Input::Binary, actions),
            Some(Ok(Message::Pong(payload))) => self.step(Input::Pong(&payload), actions),
            // Answered by the library.
            Some(Ok(Message::Ping(_))) => {}
            // It broke, or the receiver has closed it, which is answered already.
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(Gone),
        }
        Ok(())
    }

    fn step(&mut self, input: Input<'_>, actions: &mut Vec<Action>) {
        let now_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.session.step(now_ms, input, actions);
    }

    fn text(&self, number: u64, event: &Bytes) -> String {
        let (event, cursor) = (String::from_utf8_lossy(event), self.cursor(number));
        match self.protocol {
            Protocol::Ryggrad => event_frame(number, &cursor, &event),
            Protocol::CloudEvents => with_cursor(&event, &cursor),
        }
    }

    fn cursor(&self, number: u64) -> String {
        self.subscriptions.cursor_key().encode(self.id, PullCursor { epoch: self.epoch, number })
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), Gone> {
    match tokio::time::timeout(WRITE_TIMEOUT, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

/// What this call promises, as far as OpenAPI can say it.
pub fn describe(contract: &mut Contract) {
    let open = Operation::new("get", "/v1/subscriptions/{id}/socket", "openSocket", "events", "Opens a WebSocket that brings events")
        .about("A WebSocket handshake with the subprotocol ryggrad.v1 or cloudevents.json; what is said over it is in docs/WEBSOCKET.md.")
        .query("after", json!({"type": "string", "format": "event-cursor"}), "Everything up to here is taken, and acknowledged.")
        .answers_nothing(101, "The WebSocket is open.")
        .refuses(&[Code::Invalid, Code::Cursor, Code::Channel, Code::Resync, Code::Limit, Code::Upgrade, Code::Stopped]);
    contract.add(open);
}
