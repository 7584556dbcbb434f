//! A webhook receiver in the test: verifies every signature, remembers what came in order, and
//! answers as the test says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use ryggrad_bridge_core::delivery::VOID_TYPE;
use ryggrad_bridge_core::signature::{Secret, verify};
use serde_json::Value;

/// One delivery as it came in, whatever it was answered.
#[derive(Debug, Clone)]
pub struct Received {
    /// `webhook-id`.
    pub id: String,
    /// `content-type`.
    pub content_type: String,
    /// The body, byte for byte.
    pub body: Vec<u8>,
    /// All headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The CloudEvent, without the number that the delivery gave it.
    pub event: Value,
    /// That number, and which run of numbers it is of.
    pub number: Option<(u64, u64)>,
    /// What it was answered.
    pub status: u16,
    /// Whether its signature was good.
    pub verified: bool,
    /// When, milliseconds since 1970.
    pub at_ms: i64,
}

impl Received {
    /// The record's key.
    pub fn key(&self) -> &str {
        self.event["subject"].as_str().unwrap_or_default()
    }

    /// It closes a number and tells of no event.
    pub fn is_void(&self) -> bool {
        self.event["type"] == VOID_TYPE
    }

    /// Which change of which feed: what the exactly-once rules are about.
    pub fn change(&self) -> (String, u64) {
        let data = &self.event["data"];
        (
            data["kilde"].as_str().unwrap_or_default().to_owned(),
            data["posisjon"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default(),
        )
    }
}

/// An answer: status and headers.
pub type Answer = (u16, Vec<(&'static str, String)>);

type Script = dyn FnMut(&Received) -> Answer + Send;
type Delay = dyn FnMut(&Received) -> u64 + Send;

struct Inner {
    secret: Mutex<Option<Secret>>,
    received: Mutex<Vec<Received>>,
    script: Mutex<Box<Script>>,
    delay: Mutex<Box<Delay>>,
}

/// The receiver.
#[derive(Clone)]
pub struct Receiver {
    inner: Arc<Inner>,
    address: SocketAddr,
}

impl Receiver {
    /// A receiver that answers 204 to everything.
    pub async fn start() -> Self {
        Self::scripted(|_| (204, Vec::new())).await
    }

    /// A receiver that answers as the script says.
    pub async fn scripted(script: impl FnMut(&Received) -> Answer + Send + 'static) -> Self {
        let (script, delay): (Mutex<Box<Script>>, Mutex<Box<Delay>>) = (Mutex::new(Box::new(script)), Mutex::new(Box::new(|_| 0)));
        let inner = Arc::new(Inner { secret: Mutex::default(), received: Mutex::default(), script, delay });
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let router = Router::new().route("/hendelser", post(receive).options(consent)).with_state(Arc::clone(&inner));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, address }
    }

    /// Its endpoint.
    pub fn sink(&self) -> String {
        format!("http://{}/hendelser", self.address)
    }

    /// The secret to verify with.
    pub fn trust(&self, secret: &str) {
        *self.inner.secret.lock().unwrap() = Some(secret.parse().expect("a secret"));
    }

    /// Answers as this script says from now on.
    pub fn answer_with(&self, script: impl FnMut(&Received) -> Answer + Send + 'static) {
        *self.inner.script.lock().unwrap() = Box::new(script);
    }

    /// Takes this many milliseconds for each answer from now on.
    pub fn delay_with(&self, delay: impl FnMut(&Received) -> u64 + Send + 'static) {
        *self.inner.delay.lock().unwrap() = Box::new(delay);
    }

    /// Everything that came in so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.inner.received.lock().unwrap().clone()
    }

    /// Ids of the events that were taken so far; a void notice is none.
    pub fn taken(&self) -> BTreeSet<String> {
        let received = self.inner.received.lock().unwrap();
        let taken = received.iter().filter(|delivery| (200..300).contains(&delivery.status) && !delivery.is_void());
        taken.map(|delivery| delivery.event["id"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// How much came in so far.
    pub fn count(&self) -> usize {
        self.inner.received.lock().unwrap().len()
    }
}

/// Agrees to be called, as often as anyone likes.
async fn consent() -> [(&'static str, &'static str); 3] {
    [("allow", "POST"), ("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "*")]
}

async fn receive(State(inner): State<Arc<Inner>>, headers: HeaderMap, body: Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now_s = i64::try_from(now.as_secs()).expect("not that late");
    let id = header("webhook-id");
    let verified =
        inner.secret.lock().unwrap().as_ref().is_some_and(|secret| {
            verify(secret, now_s, 300, &id, &header("webhook-timestamp"), &header("webhook-signature"), &body).is_ok()
        });
    let mut event: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut number = |name| event.as_object_mut()?.remove(name)?.as_str()?.parse().ok();
    let number = Option::zip(number("deliveryepoch"), number("deliverynumber"));
    let at_ms = i64::try_from(now.as_millis()).expect("not that late");
    let all = headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect();
    let (content_type, body) = (header("content-type"), body.to_vec());
    let mut received = Received { id, content_type, body, headers: all, event, number, status: 0, verified, at_ms };
    let (status, extra) = (inner.script.lock().unwrap())(&received);
    received.status = status;
    let delay_ms = (inner.delay.lock().unwrap())(&received);
    inner.received.lock().unwrap().push(received);
    // Being slow is the point here; nothing is waited for.
    tokio::time::sleep(std::time::Duration::from_millis(delay_ms)).await;
    let mut response = StatusCode::from_u16(status).expect("a status").into_response();
    for (name, value) in extra {
        response.headers_mut().insert(name, value.parse().expect("a header value"));
    }
    response
}
