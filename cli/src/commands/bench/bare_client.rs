//! The bare HTTP clients that the bridge is held against.
//!
//! [`post_all`] writes requests to kept-alive sockets and reads the answers' heads: no library
//! and no allocation, so that nothing but wrk is faster. [`post_all_with_reqwest`] is the library
//! that the bridge uses, with nothing around it. Both post the bodies and headers that the bridge
//! posts; requests are rendered and signed beforehand.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, bail, ensure};
use axum::body::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use ryggrad_bridge_core::delivery::{delivery_id, render};
use ryggrad_bridge_core::signature::{Secret, sign};
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::cloudevents::STRUCTURED_JSON;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::population::loopback_client;
use super::receiver::PATH;

/// Most of an answer's head that is read.
const HEAD_BYTES_MAX: usize = 4 * 1024;

/// A message, ready to be posted.
pub struct Message {
    /// Headers that differ from message to message, and the content type.
    pub headers: HeaderMap,
    /// The event.
    pub body: Bytes,
    /// The whole request as it goes over the wire.
    request: Vec<u8>,
}

impl Message {
    /// The message that the bridge would send for a record.
    pub fn of(record: &LogRecord, subscription: Uuid, secret: &Secret, timestamp_s: i64) -> anyhow::Result<Self> {
        let body = render(record)?;
        let id = delivery_id(subscription, &record.topic, record.partition, record.offset);
        let signature = sign(secret, &id, timestamp_s, &body);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(STRUCTURED_JSON));
        headers.insert("webhook-id", id.parse()?);
        headers.insert("webhook-timestamp", timestamp_s.into());
        headers.insert("webhook-signature", signature.parse()?);
        let mut head = format!("POST {PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in &headers {
            head.push_str(&format!("{name}: {}\r\n", value.to_str()?));
        }
        let request = [head.as_bytes(), b"user-agent: ryggrad/bench\r\naccept: */*\r\n\r\n", &body].concat();
        Ok(Self { headers, body: Bytes::from(body), request })
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

/// Posts all messages with reqwest, so many at the same time.
pub async fn post_all_with_reqwest(sink: &str, messages: &Arc<Vec<Message>>, in_flight: usize) -> anyhow::Result<()> {
    let (client, next) = (loopback_client()?, Arc::new(AtomicUsize::new(0)));
    let url: reqwest::Url = sink.parse()?;
    let mut senders = JoinSet::new();
    for _ in 0..in_flight {
        let (client, next, messages, url) = (client.clone(), Arc::clone(&next), Arc::clone(messages), url.clone());
        senders.spawn(async move {
            while let Some(message) = messages.get(next.fetch_add(1, Ordering::Relaxed)) {
                let request = client.post(url.clone()).headers(message.headers.clone()).body(message.body.clone());
                let response = request.send().await?;
                ensure!(response.status().is_success(), "the receiver answered {}", response.status());
                // Read to its end, or the connection can't be used again.
                response.bytes().await?;
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
