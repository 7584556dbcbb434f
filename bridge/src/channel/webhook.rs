//! Webhooks: one signed POST of a CloudEvent in structured JSON.
//!
//! Standard Webhooks headers, redirects never followed, no proxies, one deadline over the whole
//! attempt, the answer's body capped. Every address is checked right before it is connected to.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::redirect;
use ryggrad_bridge_core::egress::{EgressPolicy, check_address, check_url};
use ryggrad_bridge_core::outcome::{Answer, retry_after_ms};
use ryggrad_bridge_core::signature::{Secret, sign};
use ryggrad_schemas::cloudevents::STRUCTURED_JSON;

/// How long an answer's body may take, after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// The webhook channel. Cheap to clone; connections are pooled and reused.
#[derive(Clone)]
pub struct Webhook {
    client: reqwest::Client,
    policy: EgressPolicy,
    answer_bytes_max: usize,
}

/// How one attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// What came back.
    pub answer: Answer,
    /// From before the connection to after the answer.
    pub latency_ms: u64,
    /// What went wrong, in a word; never an address.
    pub error: Option<&'static str>,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
#[error("cannot make an HTTP client")]
pub struct NoClient(#[source] reqwest::Error);

impl Webhook {
    /// A channel under an egress policy.
    pub fn new(policy: EgressPolicy, attempt_timeout_ms: u64, answer_bytes_max: usize) -> Result<Self, NoClient> {
        // Fails only if a provider is there already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .user_agent(concat!("ryggrad/", env!("CARGO_PKG_VERSION")))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .timeout(Duration::from_millis(attempt_timeout_ms))
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true)
            .dns_resolver(GuardedResolver { policy })
            .build()
            .map_err(NoClient)?;
        Ok(Self { client, policy, answer_bytes_max })
    }

    /// Makes one attempt.
    pub async fn attempt(&self, sink: &str, secret: &Secret, id: &str, body: Bytes) -> Attempt {
        let started = Instant::now();
        let (answer, error) = match self.post(sink, secret, id, body).await {
            Ok(answer) => (answer, None),
            Err(error) => (Answer::NoAnswer, Some(error)),
        };
        Attempt { answer, latency_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), error }
    }

    async fn post(&self, sink: &str, secret: &Secret, id: &str, body: Bytes) -> Result<Answer, &'static str> {
        // Again, since the policy may be stricter than when the subscription was made.
        let url = check_url(sink, self.policy).map_err(|_| "egress refused")?;
        let now = jiff::Timestamp::now();
        let timestamp_s = now.as_second();
        let response = self
            .client
            .post(url)
            .header(CONTENT_TYPE, STRUCTURED_JSON)
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp_s)
            .header("webhook-signature", sign(secret, id, timestamp_s, &body))
            .body(body)
            .send()
            .await
            .map_err(|error| classify(&error))?;
        let code = response.status().as_u16();
        let retry_after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let answer = Answer::Status { code, retry_after_ms: retry_after.and_then(|value| retry_after_ms(value, now.as_millisecond())) };
        self.drain(response).await;
        Ok(answer)
    }

    /// Reads the body so that the connection can be used again, up to the caps. The head has
    /// decided already: a body that never ends changes nothing.
    async fn drain(&self, response: reqwest::Response) {
        let mut left = self.answer_bytes_max;
        let reading = async {
            let mut body = response.bytes_stream();
            while let Some(Ok(chunk)) = body.next().await {
                match left.checked_sub(chunk.len()) {
                    Some(rest) => left = rest,
                    None => return,
                }
            }
        };
        let _ = tokio::time::timeout(BODY_TIMEOUT, reading).await;
    }
}

fn classify(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "timeout"
    } else if error.is_connect() {
        "connect"
    } else {
        "transport"
    }
}

/// Resolves a name and keeps the addresses that the policy opens.
struct GuardedResolver {
    policy: EgressPolicy,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let policy = self.policy;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let open: Vec<SocketAddr> = found.filter(|address| check_address(address.ip(), policy).is_ok()).collect();
            if open.is_empty() {
                return Err("the name has no address that the egress policy opens".into());
            }
            Ok(Box::new(open.into_iter()) as Addrs)
        })
    }
}
