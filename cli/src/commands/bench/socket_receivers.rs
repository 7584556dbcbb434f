//! Receivers that fetch over WebSockets: thousands of connections on a thread of their own.
//!
//! They take what comes, acknowledge it and note when it came. Must never go on without a
//! connection that has ended: the benchmark counts those that are open.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::runtime::{Handle, Runtime};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::receiver::{Arrival, number_in};
use crate::client::Token;

/// Connections that are opened at the same time.
const OPENING_MAX: usize = 32;
/// Events that a receiver lets come at a time.
const CREDIT_EVENTS: u64 = 100;

/// How a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Credit and acknowledgements.
    Ryggrad,
    /// An event a message.
    CloudEvents,
}

/// The part of a frame that decides what is answered.
#[derive(Deserialize)]
struct Frame<'a> {
    r#type: &'a str,
    number: Option<u64>,
}

/// All of them. The thread ends with this value, and the connections with it.
pub struct SocketReceivers {
    runtime: Option<Runtime>,
    open: Arc<AtomicUsize>,
    arrivals: Arc<Mutex<Vec<Arrival>>>,
}

impl SocketReceivers {
    /// None connected yet.
    pub fn start() -> anyhow::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name("bench-sockets").enable_io().enable_time().build()?;
        Ok(Self { runtime: Some(runtime), open: Arc::default(), arrivals: Arc::default() })
    }

    /// Opens a connection for each subscription; `protocol` is asked with its place in the list.
    pub async fn connect(&self, base: &str, token: &Token, ids: &[String], protocol: impl Fn(usize) -> Protocol) -> anyhow::Result<()> {
        let runtime = self.handle()?;
        let opening = ids.iter().enumerate().map(|(place, id)| {
            let (address, token) = (base.replace("http://", ""), token.clone());
            let (id, protocol) = (id.clone(), protocol(place));
            let opened = runtime.spawn(async move { open(&address, &token, &id, protocol).await });
            let (runtime, open, arrivals) = (runtime.clone(), Arc::clone(&self.open), Arc::clone(&self.arrivals));
            async move {
                let socket = opened.await.context("the receivers have ended")??;
                let endpoint = u32::try_from(place)?;
                open.fetch_add(1, Ordering::SeqCst);
                runtime.spawn(async move {
                    take(socket, protocol, endpoint, &arrivals).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
                anyhow::Ok(())
            }
        });
        stream::iter(opening).buffer_unordered(OPENING_MAX).try_collect().await
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// How many events have come since they were taken.
    pub fn arrived(&self) -> usize {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// What came since this was asked last.
    pub fn take_arrivals(&self) -> Vec<Arrival> {
        std::mem::take(&mut *self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn handle(&self) -> anyhow::Result<Handle> {
        Ok(self.runtime.as_ref().context("the receivers have ended")?.handle().clone())
    }
}

impl Drop for SocketReceivers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn open(address: &str, token: &Token, id: &str, protocol: Protocol) -> anyhow::Result<WebSocketStream<TcpStream>> {
    let mut request = format!("ws://{address}/v1/subscriptions/{id}/socket").into_client_request()?;
    let name = match protocol {
        Protocol::Ryggrad => "ryggrad.v1",
        Protocol::CloudEvents => "cloudevents.json",
    };
    request.headers_mut().insert("authorization", format!("Bearer {}", token.reveal()).parse()?);
    request.headers_mut().insert("sec-websocket-protocol", name.parse()?);
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut socket, _) = client_async(request, stream).await.context("the bridge has opened no WebSocket")?;
    if protocol == Protocol::Ryggrad {
        socket.send(Message::text(json!({"type": "credit", "events": CREDIT_EVENTS}).to_string())).await?;
    }
    Ok(socket)
}

/// Until the connection ends.
async fn take(mut socket: WebSocketStream<TcpStream>, protocol: Protocol, endpoint: u32, arrivals: &Mutex<Vec<Arrival>>) {
    while let Some(Ok(message)) = socket.next().await {
        // Pings are answered by the library.
        let Message::Text(text) = message else { continue };
        if let Some(number) = number_in(text.as_bytes()) {
            let arrival = Arrival { endpoint, number, at_us: jiff::Timestamp::now().as_microsecond() };
            arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
        }
        if protocol == Protocol::Ryggrad
            && let Ok(Frame { r#type: "event", number: Some(number) }) = serde_json::from_str(&text)
        {
            let acknowledged = socket.feed(Message::text(json!({"type": "ack", "through": number}).to_string())).await;
            let credited = socket.send(Message::text(json!({"type": "credit", "events": 1}).to_string())).await;
            if acknowledged.and(credited).is_err() {
                return;
            }
        }
    }
}
