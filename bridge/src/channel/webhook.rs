//! Webhooks: one signed POST of one event, or of a batch of them.
//!
//! Standard Webhooks headers, redirects never followed, no proxies, one deadline over the attempt,
//! the answer's body capped. Every address is checked right before it is connected to. Must never
//! put anything into a header that could end it, nor show a secret.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ryggrad_bridge_core::asymmetric::SigningKeys;
use ryggrad_bridge_core::egress::{EgressPolicy, Refusal, check_url};
use ryggrad_bridge_core::headers::check_header;
use ryggrad_bridge_core::outcome::{Answer, retry_after_ms};
use ryggrad_bridge_core::settings::Format;
use ryggrad_bridge_core::signature::{Secret, sign_all};
use url::Url;

use super::client::{Client, Endpoint, Reply, Request};
use super::guard::{Resolve, SystemResolver};
use super::timer::Timer;
use super::tls::{InvalidTls, Tls};

/// How the bridge names itself.
const USER_AGENT: &str = concat!("ryggrad/", env!("CARGO_PKG_VERSION"));

/// What the channel is made of.
pub struct WebhookOptions {
    /// What may be called.
    pub policy: EgressPolicy,
    /// One attempt, from name look-up to the head of the answer.
    pub attempt_timeout_ms: u64,
    /// Bytes of an answer's body that are read.
    pub answer_bytes_max: usize,
    /// The bridge's own certificate with its chain (PEM), for endpoints that ask for one.
    pub client_certificate_file: Option<PathBuf>,
    /// Its private key (PEM).
    pub client_key_file: Option<PathBuf>,
    /// The key of asymmetric signatures, for targets that want them.
    pub signing_keys: Option<Arc<SigningKeys>>,
    /// Whether every target gets them.
    pub asymmetric_signatures: bool,
    /// How names are looked up; the system's way if none.
    pub resolver: Option<Arc<dyn Resolve>>,
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            policy: EgressPolicy::default(),
            attempt_timeout_ms: 15_000,
            answer_bytes_max: 64 * 1024,
            client_certificate_file: None,
            client_key_file: None,
            signing_keys: None,
            asymmetric_signatures: false,
            resolver: None,
        }
    }
}

/// The webhook channel. Cheap to clone; connections are pooled and reused.
#[derive(Clone)]
pub struct Webhook {
    pub(super) client: Arc<Client>,
    signing_keys: Option<Arc<SigningKeys>>,
    asymmetric_signatures: bool,
    answer_bytes_max: usize,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What came back.
    pub answer: Answer,
    /// From before the connection to after the answer.
    pub latency_ms: u64,
    /// What went wrong, in one of the words of [`fault`](super::fault); never an address.
    pub error: Option<&'static str>,
}

/// Why there is no channel.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an HTTP client")]
pub struct NoClient(#[from] InvalidTls);

/// What a subscription says about where its deliveries go. Does not print: own headers may be secret.
#[derive(Clone, Default)]
pub struct TargetOptions {
    /// The endpoint.
    pub sink: String,
    /// The bridge's own words about the subscription, as headers.
    pub named: Vec<(&'static str, String)>,
    /// Secrets in force, the newest first: several while one takes over from another.
    pub secrets: Vec<Secret>,
    /// Own headers.
    pub headers: Vec<(String, String)>,
    /// How events are carried.
    pub format: Format,
    /// `WebHook-Request-Origin`, once the endpoint has granted it.
    pub origin: Option<String>,
}

/// Where deliveries go: made once for each version of a subscription.
pub struct Target {
    pub(super) endpoint: Arc<Endpoint>,
    /// Request line and all headers that are the same for every delivery.
    head: Vec<u8>,
    secrets: Vec<Secret>,
    asymmetric: bool,
    format: Format,
}

impl Target {
    /// How events are carried.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Whom it goes to.
    pub fn host(&self) -> &str {
        self.endpoint.host()
    }

    /// How many secrets sign.
    pub fn secrets(&self) -> usize {
        self.secrets.len()
    }

    /// The same, signed with the bridge's own key as well.
    pub fn and_asymmetric(self) -> Self {
        Self { asymmetric: true, ..self }
    }
}

/// What is delivered. Does not print: it may be about somebody.
#[derive(Clone, Copy)]
pub struct Message<'m> {
    /// `webhook-id`.
    pub id: &'m str,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// Attributes as headers, in binary mode.
    pub headers: &'m [(String, String)],
    /// The body.
    pub body: &'m [u8],
}

/// What whoever posts uses again for the next message.
#[derive(Default)]
pub struct Desk {
    head: Vec<u8>,
    timer: Timer,
}

impl Webhook {
    /// A channel.
    pub fn new(options: WebhookOptions) -> Result<Self, NoClient> {
        let ca_files = options.policy.allow.iter().filter_map(|allowance| allowance.ca_file.as_ref());
        let tls = Tls::new(options.client_certificate_file.as_deref(), options.client_key_file.as_deref(), ca_files)?;
        let resolver = options.resolver.unwrap_or_else(|| Arc::new(SystemResolver));
        Ok(Self {
            client: Client::start(options.policy, resolver, tls, Duration::from_millis(options.attempt_timeout_ms)),
            signing_keys: options.signing_keys,
            asymmetric_signatures: options.asymmetric_signatures,
            answer_bytes_max: options.answer_bytes_max,
        })
    }

    /// Where the deliveries of a subscription go. The endpoint is checked again: the policy may be
    /// stricter than when the subscription was made, and so may the rules for headers.
    pub fn target(&self, options: TargetOptions) -> Result<Target, Refusal> {
        let TargetOptions { sink, named, secrets, headers, format, origin } = options;
        let url = check_url(&sink, self.client.policy())?;
        let mut head = request_head("POST", &url);
        named.iter().for_each(|(name, value)| put(&mut head, name, value));
        for (name, value) in headers.iter().filter(|(name, value)| check_header(name, value).is_ok()) {
            put(&mut head, name, value);
        }
        if let Some(origin) = origin {
            put(&mut head, "webhook-request-origin", &origin);
        }
        let asymmetric = self.asymmetric_signatures;
        Ok(Target { endpoint: self.client.endpoint(&url), head, secrets, asymmetric, format })
    }

    /// Makes one attempt.
    pub async fn attempt(&self, desk: &mut Desk, target: &Target, message: Message<'_>) -> Attempt {
        self.attempt_while(desk, target, message, &|| true).await
    }

    /// The same, of what may have to stay while a connection is made.
    pub async fn attempt_while(
        &self,
        desk: &mut Desk,
        target: &Target,
        message: Message<'_>,
        may_leave: &(dyn Fn() -> bool + Sync),
    ) -> Attempt {
        let started = Instant::now();
        let (answer, error) = match self.post(desk, target, message, self.answer_bytes_max, false, may_leave).await {
            Ok(Reply { head, .. }) => {
                let now_ms = || jiff::Timestamp::now().as_millisecond();
                let retry_after_ms = head.retry_after.and_then(|value| retry_after_ms(&value, now_ms()));
                (Answer::Status { code: head.code, retry_after_ms }, None)
            }
            Err(error) => (Answer::NoAnswer, Some(error)),
        };
        Attempt { answer, latency_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), error }
    }

    /// Signs a message and posts it.
    pub(super) async fn post(
        &self,
        desk: &mut Desk,
        target: &Target,
        message: Message<'_>,
        answer_bytes_max: usize,
        keep_body: bool,
        may_leave: &(dyn Fn() -> bool + Sync),
    ) -> Result<Reply, &'static str> {
        let Message { id, content_type, headers, body } = message;
        let timestamp_s = jiff::Timestamp::now().as_second();
        let keys = self.signing_keys.as_deref().filter(|_| target.asymmetric);
        let Desk { head, timer } = desk;
        head.clear();
        head.extend_from_slice(&target.head);
        put(head, "content-type", content_type);
        put(head, "content-length", &body.len().to_string());
        put(head, "webhook-id", id);
        put(head, "webhook-timestamp", &timestamp_s.to_string());
        put(head, "webhook-signature", &sign_all(&target.secrets, keys, id, timestamp_s, body));
        for (name, value) in headers {
            put(head, name, value);
        }
        head.extend_from_slice(b"\r\n");
        self.client.exchange(timer, &target.endpoint, Request { head, body, answer_bytes_max, keep_body, may_leave }).await
    }
}

/// Request line, and what every request says about itself.
pub(super) fn request_head(method: &str, url: &Url) -> Vec<u8> {
    let mut head = Vec::with_capacity(256);
    for part in [method, " ", url.path()] {
        head.extend_from_slice(part.as_bytes());
    }
    if let Some(query) = url.query() {
        head.push(b'?');
        head.extend_from_slice(query.as_bytes());
    }
    head.extend_from_slice(b" HTTP/1.1\r\n");
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => put(&mut head, "host", &format!("{host}:{port}")),
        None => put(&mut head, "host", host),
    }
    put(&mut head, "user-agent", USER_AGENT);
    head
}

/// Appends a header. What could end it is left out: the last guard, after those who check values.
pub(super) fn put(head: &mut Vec<u8>, name: &str, value: &str) {
    put_safe(head, name, |byte| !byte.is_ascii_control() && byte != b':');
    head.extend_from_slice(b": ");
    put_safe(head, value, |byte| !byte.is_ascii_control());
    head.extend_from_slice(b"\r\n");
}

fn put_safe(head: &mut Vec<u8>, text: &str, is_safe: impl Fn(u8) -> bool) {
    if text.bytes().all(&is_safe) {
        head.extend_from_slice(text.as_bytes());
    } else {
        head.extend(text.bytes().filter(|byte| is_safe(*byte)));
    }
}
