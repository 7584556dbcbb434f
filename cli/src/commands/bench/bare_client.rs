//! The HTTP clients that the bridge is held against.
//!
//! [`post_all`] is the baseline: hyper's client, a connection for each sender, posting what was
//! rendered and signed beforehand. [`post_all_by_socket`] writes whole requests to sockets and looks for
//! the end of the answer's head: no client at all, which shows what the system and the receiver cost.
//! [`post_all_by_channel`] is the bridge's own webhook channel with nothing around it: it makes, signs
//! and posts the same messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use axum::body::Bytes;
use axum::http::header::{HOST, USER_AGENT};
use axum::http::{Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use ryggrad_bridge::channel::webhook::{self, Desk, TargetOptions, Webhook, WebhookOptions};
use ryggrad_bridge_core::delivery::{MessageId, Numbered, delivery_id, render, structured};
use ryggrad_bridge_core::egress::EgressPolicy;
use ryggrad_bridge_core::outcome::Answer;
use ryggrad_bridge_core::signature::{Secret, sign};
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::cloudevents::STRUCTURED_JSON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::receiver::PATH;

/// Most of an answer's head that is read.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// A message, ready to be posted.
pub struct Message {
    /// `webhook-id`.
    id: MessageId,
    /// The event.
    pub body: Bytes,
    /// The whole request as it goes over the wire.
    request: Vec<u8>,
    /// Where its headers begin, behind those that every request has.
    headers_at: usize,
}

impl Message {
    /// The message that the bridge would send for a record as a subscription's delivery of that
    /// number. The bridge gives numbers in another order, but the same ones, and its epochs are
    /// seconds too: all bodies together have the same length.
    pub fn of(record: &LogRecord, subscription: Uuid, secret: &Secret, timestamp_s: i64, number: u64) -> anyhow::Result<Self> {
        let epoch = u64::try_from(timestamp_s)?;
        let body = structured(&render(record)?, &Numbered { epoch, number, replay: None });
        let id = delivery_id(subscription, &record.topic, record.partition, record.offset, 0);
        let mut head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\nuser-agent: ryggrad/bench\r\n");
        let headers_at = head.len();
        for (name, value) in [
            ("content-type", STRUCTURED_JSON),
            ("content-length", &body.len().to_string()),
            ("webhook-id", id.as_str()),
            ("webhook-timestamp", &timestamp_s.to_string()),
            ("webhook-signature", &sign(secret, id.as_str(), timestamp_s, &body)),
        ] {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let request = [head.as_bytes(), b"\r\n", &body].concat();
        Ok(Self { id, body: Bytes::from(body), request, headers_at })
    }

    /// Name and value of the headers that tell messages apart, but for the body's length.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let head = self.request.len() - self.body.len();
        let lines = std::str::from_utf8(&self.request[self.headers_at..head]).unwrap_or_default().split("\r\n");
        lines.filter_map(|line| line.split_once(": ")).filter(|(name, _)| *name != "content-length")
    }
}

/// What is to be posted, and how.
#[derive(Clone)]
pub struct Load {
    /// Messages, each to be posted `times` times.
    pub messages: Arc<Vec<Message>>,
    /// How often.
    pub times: usize,
    /// Connections, each with one request at a time.
    pub connections: usize,
}

impl Load {
    /// How many requests that makes.
    pub fn requests(&self) -> usize {
        self.messages.len() * self.times
    }

    /// Gives out the messages to whoever asks next.
    fn turns(&self) -> Turns {
        Turns { load: self.clone(), next: Arc::default() }
    }
}

#[derive(Clone)]
struct Turns {
    load: Load,
    next: Arc<AtomicUsize>,
}

impl Turns {
    fn next(&self) -> Option<&Message> {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        if turn >= self.load.requests() { None } else { self.load.messages.get(turn % self.load.messages.len()) }
    }
}

/// Posts with hyper's client.
pub async fn post_all(address: SocketAddr, load: &Load) -> anyhow::Result<()> {
    let (turns, mut senders) = (load.turns(), JoinSet::new());
    for _ in 0..load.connections {
        let turns = turns.clone();
        senders.spawn(async move {
            let stream = connect(address).await?;
            let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            let connection = tokio::spawn(connection);
            while let Some(message) = turns.next() {
                let mut request = Request::post(PATH).header(HOST, "localhost").header(USER_AGENT, "ryggrad/bench");
                for (name, value) in message.headers() {
                    request = request.header(name, value);
                }
                sender.ready().await?;
                let answer = sender.send_request(request.body(Full::new(message.body.clone()))?).await?;
                ensure!(answer.status() == StatusCode::NO_CONTENT, "the receiver answered {}", answer.status());
            }
            drop(sender);
            Ok(connection.await??)
        });
    }
    finish(senders).await
}

/// Posts by writing to sockets.
pub async fn post_all_by_socket(address: SocketAddr, load: &Load) -> anyhow::Result<()> {
    let (turns, mut senders) = (load.turns(), JoinSet::new());
    for _ in 0..load.connections {
        let turns = turns.clone();
        senders.spawn(async move {
            let mut stream = connect(address).await?;
            while let Some(message) = turns.next() {
                stream.write_all(&message.request).await?;
                read_answer(&mut stream).await?;
            }
            Ok(())
        });
    }
    finish(senders).await
}

async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await.context("cannot connect to the receiver")?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Reads an answer without a body.
async fn read_answer(stream: &mut TcpStream) -> anyhow::Result<()> {
    let (mut head, mut length) = ([0; HEAD_BYTES_MAX], 0);
    while !head[..length].ends_with(b"\r\n\r\n") {
        match stream.read(&mut head[length..]).await? {
            0 => bail!("the receiver closed the connection, or its answer is too long"),
            read => length += read,
        }
    }
    ensure!(head.starts_with(b"HTTP/1.1 204 "), "the receiver did not answer 204");
    Ok(())
}

/// Posts by the bridge's webhook channel.
pub async fn post_all_by_channel(sink: &str, secret: &Secret, load: &Load) -> anyhow::Result<()> {
    let policy = EgressPolicy { development: true, ..EgressPolicy::default() };
    let channel = Webhook::new(WebhookOptions { policy, ..WebhookOptions::default() })?;
    let options = TargetOptions { sink: sink.to_owned(), secrets: vec![secret.clone()], ..TargetOptions::default() };
    let (target, turns, mut senders) = (Arc::new(channel.target(options)?), load.turns(), JoinSet::new());
    for _ in 0..load.connections {
        let (channel, target, turns) = (channel.clone(), Arc::clone(&target), turns.clone());
        senders.spawn(async move {
            let mut desk = Desk::default();
            while let Some(Message { id, body, .. }) = turns.next() {
                let message = webhook::Message { id: id.as_str(), content_type: STRUCTURED_JSON, headers: &[], body };
                let attempt = channel.attempt(&mut desk, &target, message).await;
                ensure!(matches!(attempt.answer, Answer::Status { code: 204, .. }), "an attempt ended as {attempt:?}");
            }
            Ok(())
        });
    }
    finish(senders).await
}

async fn finish(mut senders: JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(ended) = senders.join_next().await {
        ended.context("a sender failed")??;
    }
    Ok(())
}
