//! The HTTP side of a webhook receiver: takes requests in, one at a time, and answers what the
//! command decides.
//!
//! An answer is given only after the command has seen the request. Must never read a body beyond
//! its limit.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::receipts::Request;

const BODY_BYTES_MAX: usize = 1024 * 1024;
const ARRIVALS_WAITING_MAX: usize = 64;
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A request that waits for its answer.
pub struct Arrival {
    /// What came.
    pub request: Request,
    /// Where the answer goes.
    pub answer: oneshot::Sender<StatusCode>,
}

/// A running receiver.
pub struct Arrivals {
    receiver: mpsc::Receiver<Arrival>,
    door: Door,
}

/// What keeps the receiver's port open.
pub struct Door {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<std::io::Result<()>>,
}

#[derive(Clone)]
struct Reception {
    sender: mpsc::Sender<Arrival>,
    delay: Duration,
}

impl Arrivals {
    /// Opens a port on this machine; 0 picks a free one. Each answer is held back for `delay_ms`.
    pub async fn open(port: u16, delay_ms: u64) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| format!("cannot listen on port {port}"))?;
        let address = listener.local_addr().context("cannot learn the port")?;
        let (sender, receiver) = mpsc::channel(ARRIVALS_WAITING_MAX);
        let reception = Reception { sender, delay: Duration::from_millis(delay_ms) };
        let app = Router::new().fallback(receive).layer(DefaultBodyLimit::max(BODY_BYTES_MAX)).with_state(reception);
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(stopped).await });
        Ok(Self { receiver, door: Door { address, stop, task } })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.door.address
    }

    /// The next request.
    pub async fn next(&mut self) -> Option<Arrival> {
        self.receiver.recv().await
    }

    /// Takes no more requests: whatever still comes is answered 503.
    pub fn refuse_more(self) -> Door {
        self.door
    }
}

impl Door {
    /// Closes the port, after a short while for answers on their way.
    pub async fn close(self) {
        self.stop.cancel();
        let task = self.task;
        let abort = task.abort_handle();
        if tokio::time::timeout(CLOSE_TIMEOUT, task).await.is_err() {
            abort.abort();
        }
    }
}

async fn receive(State(reception): State<Reception>, method: Method, headers: HeaderMap, body: Bytes) -> Response {
    match method {
        Method::POST => post(reception, &headers, &body).await.into_response(),
        Method::OPTIONS => consent(&headers),
        _ => (StatusCode::METHOD_NOT_ALLOWED, [("allow", "POST, OPTIONS")]).into_response(),
    }
}

async fn post(reception: Reception, headers: &HeaderMap, body: &[u8]) -> StatusCode {
    let headers =
        headers.iter().map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
    let (answer, answered) = oneshot::channel();
    let arrival = Arrival { request: Request { headers, body: body.to_vec() }, answer };
    // Before the command sees it: one slow lane must not hold up the others.
    tokio::time::sleep(reception.delay).await;
    if reception.sender.send(arrival).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    answered.await.unwrap_or(StatusCode::SERVICE_UNAVAILABLE)
}

/// The CloudEvents handshake: whoever asks may send, as fast as it likes.
fn consent(headers: &HeaderMap) -> Response {
    let mut response = (StatusCode::OK, [("allow", "POST, OPTIONS")]).into_response();
    if let Some(origin) = headers.get("webhook-request-origin") {
        let granted = response.headers_mut();
        granted.insert(HeaderName::from_static("webhook-allowed-origin"), origin.clone());
        granted.insert(HeaderName::from_static("webhook-allowed-rate"), HeaderValue::from_static("*"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client() -> reqwest::Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap()
    }

    #[tokio::test]
    async fn a_post_is_answered_as_the_command_decides() {
        let mut arrivals = Arrivals::open(0, 0).await.unwrap();
        let url = format!("http://{}/any/path", arrivals.address());
        let call = tokio::spawn(client().post(&url).header("Webhook-Id", "a").body("b").send());
        let arrival = arrivals.next().await.unwrap();
        assert_eq!(arrival.request.body, b"b");
        assert!(arrival.request.headers.contains(&("webhook-id".to_owned(), "a".to_owned())));
        arrival.answer.send(StatusCode::IM_A_TEAPOT).unwrap();
        assert_eq!(call.await.unwrap().unwrap().status().as_u16(), 418);
        let door = arrivals.refuse_more();
        assert_eq!(client().post(&url).send().await.unwrap().status().as_u16(), 503);
        door.close().await;
        assert!(client().post(&url).send().await.is_err());
    }

    #[tokio::test]
    async fn the_handshake_is_granted_and_other_methods_and_large_bodies_refused() {
        let arrivals = Arrivals::open(0, 0).await.unwrap();
        let url = format!("http://{}/", arrivals.address());
        let options = client().request(Method::OPTIONS, &url).header("WebHook-Request-Origin", "ryggrad.no").send().await.unwrap();
        assert_eq!(options.headers().get("webhook-allowed-origin").unwrap(), "ryggrad.no");
        assert_eq!(options.headers().get("webhook-allowed-rate").unwrap(), "*");
        let plain = client().request(Method::OPTIONS, &url).send().await.unwrap();
        assert!(plain.headers().get("webhook-allowed-origin").is_none());
        assert_eq!(client().get(&url).send().await.unwrap().status().as_u16(), 405);
        let large = client().post(&url).body(vec![0; BODY_BYTES_MAX + 1]).send().await.unwrap();
        assert_eq!(large.status().as_u16(), 413);
        arrivals.refuse_more().close().await;
    }
}
