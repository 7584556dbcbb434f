//! The HTTP clients that the bridge is held against.
//!
//! [`post_all`] writes requests to kept-alive sockets and reads the answers' heads: no library
//! and no allocation, so that nothing but wrk is faster. Its requests are rendered and signed
//! beforehand. [`post_all_by_channel`] is the bridge's own webhook channel with nothing around it:
//! it makes, signs and posts the same messages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use axum::body::Bytes;
use ryggrad_bridge::channel::webhook::{self, TargetOptions, Webhook, WebhookOptions};
use ryggrad_bridge_core::delivery::{Numbered, delivery_id, render, structured};
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
    id: String,
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
        let body = structured(&render(record)?, &Numbered { epoch, number });
        let id = delivery_id(subscription, &record.topic, record.partition, record.offset);
        let mut head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\nuser-agent: ryggrad/bench\r\n");
        let headers_at = head.len();
        for (name, value) in [
            ("content-type", STRUCTURED_JSON),
            ("content-length", &body.len().to_string()),
            ("webhook-id", &id),
            ("webhook-timestamp", &timestamp_s.to_string()),
            ("webhook-signature", &sign(secret, &id, timestamp_s, &body)),
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

/// Posts all messages over that many sockets.
pub async fn post_all(address: SocketAddr, messages: &Arc<Vec<Message>>, connections: usize) -> anyhow::Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut senders = JoinSet::new();
    for _ in 0..connections {
        let (next, messages) = (Arc::clone(&next), Arc::clone(messages));
        senders.spawn(async move {
            let mut stream = TcpStream::connect(address).await.context("cannot connect to the receiver")?;
            stream.set_nodelay(true)?;
            while let Some(message) = messages.get(next.fetch_add(1, Ordering::Relaxed)) {
                stream.write_all(&message.request).await?;
                read_answer(&mut stream).await?;
            }
            Ok(())
        });
    }
    finish(senders).await
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

/// Posts all messages by the bridge's webhook channel, so many at the same time.
pub async fn post_all_by_channel(sink: &str, secret: &Secret, messages: &Arc<Vec<Message>>, in_flight: usize) -> anyhow::Result<()> {
    let policy = EgressPolicy { development: true, ..EgressPolicy::default() };
    let channel = Webhook::new(WebhookOptions { policy, ..WebhookOptions::default() })?;
    let options = TargetOptions { sink: sink.to_owned(), secrets: vec![secret.clone()], ..TargetOptions::default() };
    let (target, next) = (Arc::new(channel.target(options)?), Arc::new(AtomicUsize::new(0)));
    let mut senders = JoinSet::new();
    for _ in 0..in_flight {
        let (channel, target, next, messages) = (channel.clone(), Arc::clone(&target), Arc::clone(&next), Arc::clone(messages));
        senders.spawn(async move {
            while let Some(Message { id, body, .. }) = messages.get(next.fetch_add(1, Ordering::Relaxed)) {
                let message = webhook::Message { id: id.clone(), content_type: STRUCTURED_JSON, headers: Vec::new(), body: body.clone() };
                let attempt = channel.attempt(&target, message).await;
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
