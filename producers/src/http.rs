//! Asks upstream over HTTP: bounded in time, size, pace and patience.
//!
//! 429, 5xx and broken connections are asked again with backoff; every other status is the
//! caller's to judge. Must never follow a redirect to another host, nor name an address's
//! query or an answer's content in an error.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use reqwest::header::{ETAG, IF_NONE_MATCH, LAST_MODIFIED, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, Method, RequestBuilder, Response, StatusCode, redirect};
use ryggrad_detect::decide::Backoff;
use tokio::sync::mpsc;
use url::{Host, Url};

use crate::credentials::{Again, Credentials, TokenError, credentials};
use crate::pace::{Pace, date, retry_after};
use crate::{ProducerConfig, ProducerError, Telemetry};

const REDIRECTS_MAX: usize = 5;
/// Pieces of a download that may wait to be read.
const PIECES_WAITING_MAX: usize = 16;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection, or it broke.
    #[error("upstream cannot be reached, or broke off")]
    Transport(#[source] reqwest::Error),
    /// Upstream says that it can't answer now.
    #[error("upstream cannot answer now (status {status})")]
    Unavailable {
        /// HTTP status.
        status: u16,
    },
    /// Upstream sends nothing.
    #[error("upstream sends nothing any more")]
    Stalled,
    /// More than is read.
    #[error("the answer is longer than {bytes_max} bytes")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// Upstream wants to know who asks, and the issuer does not say it.
    #[error("there is no access token for upstream; {}", .0.remedy())]
    NoToken(#[source] TokenError),
}

impl HttpError {
    /// Whether it helps to ask again at once. Credentials keep pauses of their own.
    fn is_transient(&self) -> bool {
        !matches!(self, Self::TooLarge { .. } | Self::NoToken(_))
    }

    /// Short name, for metrics.
    pub fn code(&self) -> String {
        match self {
            Self::Transport(error) if error.is_timeout() => "timeout".to_owned(),
            Self::Transport(error) if error.is_connect() => "connect".to_owned(),
            Self::Transport(_) => "transport".to_owned(),
            Self::Stalled => "timeout".to_owned(),
            Self::Unavailable { status } => format!("status-{status}"),
            Self::TooLarge { .. } => "too-large".to_owned(),
            Self::NoToken(error) => error.code(),
        }
    }
}

/// An answer that the caller judges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body of status 200; else empty.
    pub body: Vec<u8>,
    /// The answer's ETag.
    pub etag: Option<String>,
}

/// A client for one upstream. Clones share connections and pace.
#[derive(Debug, Clone)]
pub struct Http {
    client: Client,
    base: Url,
    credentials: Option<Arc<dyn Credentials>>,
    pace: Arc<Pace>,
    attempts_max: u32,
    backoff: Backoff,
    telemetry: Telemetry,
    source: String,
}

impl Http {
    /// A client for the upstream at `base`, which `source` names in metrics.
    pub fn new(config: &ProducerConfig, base: &Url, source: &str, telemetry: Telemetry) -> Result<Self, ProducerError> {
        let credentials = credentials(config)?;
        // A proof is for one address, so it would be worth nothing behind a redirect.
        let redirects = if credentials.is_some() { redirect::Policy::none() } else { redirect::Policy::custom(same_host) };
        Ok(Self {
            client: builder(config, base).redirect(redirects).build().map_err(ProducerError::Client)?,
            base: base.clone(),
            credentials,
            pace: Arc::new(Pace::new(config.requests_per_second_max)),
            attempts_max: config.request_attempts_max,
            backoff: config.backoff(),
            telemetry,
            source: source.to_owned(),
        })
    }

    /// Asks, again where that may help. With an ETag the answer may be 304.
    pub async fn get(&self, url: &Url, etag: Option<&str>, bytes_max: usize) -> Result<Answer, HttpError> {
        let mut failures = 0;
        loop {
            self.pace.turn().await;
            let error = match self.attempt(url, etag, bytes_max).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failures += 1;
            if !error.is_transient() || failures >= self.attempts_max {
                return Err(error);
            }
            self.telemetry.retried(&self.source, &error.code());
            let delay_ms = self.backoff.delay_ms(failures, rand::random());
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
        }
    }

    /// Begins a download of status 200, again where that may help. Its pieces come over a bounded
    /// channel; a connection that breaks or stalls is an error among them.
    pub async fn download(&self, url: &Url, timeouts: DownloadTimeouts) -> Result<Download, HttpError> {
        let mut failures = 0;
        loop {
            self.pace.turn().await;
            let error = match self.begin_download(url, timeouts).await {
                Ok(download) => return Ok(download),
                Err(error) => error,
            };
            failures += 1;
            if !error.is_transient() || failures >= self.attempts_max {
                return Err(error);
            }
            self.telemetry.retried(&self.source, &error.code());
            tokio::time::sleep(Duration::from_millis(self.backoff.delay_ms(failures, rand::random()))).await;
        }
    }

    async fn begin_download(&self, url: &Url, timeouts: DownloadTimeouts) -> Result<Download, HttpError> {
        let asking = self.send(url, |request| request.timeout(timeouts.whole));
        let response = tokio::time::timeout(timeouts.stall, asking).await.map_err(|_| HttpError::Stalled)??;
        let status = response.status().as_u16();
        let unavailable = status == 429 || status >= 500;
        if unavailable {
            self.heed_retry_after(&response);
            return Err(HttpError::Unavailable { status });
        }
        let last_modified = header(&response, LAST_MODIFIED.as_str()).and_then(|text| date(&text));
        let (sender, pieces) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::spawn(pump(response, timeouts.stall, sender));
        Ok(Download { status, last_modified, pieces })
    }

    fn heed_retry_after(&self, response: &Response) {
        let pause = header(response, RETRY_AFTER.as_str()).and_then(|text| retry_after(&text, Timestamp::now()));
        pause.into_iter().for_each(|pause| self.pace.pause(pause));
    }

    /// Asks with the credentials, if upstream is who they are for; once more for each thing that may then be better.
    async fn send(&self, url: &Url, with: impl Fn(RequestBuilder) -> RequestBuilder) -> Result<Response, HttpError> {
        let asked = || with(self.client.get(url.clone()));
        let Some(credentials) = self.credentials.as_ref().filter(|_| url.origin() == self.base.origin()) else {
            return asked().send().await.map_err(transport);
        };
        let (mut other_nonces, mut other_tokens) = (1, 1);
        loop {
            let shown = credentials.authorise(&Method::GET, url).await.map_err(HttpError::NoToken)?;
            let response = asked().headers(shown.headers.clone()).send().await.map_err(transport)?;
            let (reason, left) = match credentials.answered(&shown, response.status().as_u16(), response.headers()) {
                Again::No => return Ok(response),
                Again::WithNonce => ("nonce", &mut other_nonces),
                Again::WithToken => ("token-not-taken", &mut other_tokens),
            };
            if *left == 0 {
                return Ok(response);
            }
            *left -= 1;
            self.telemetry.retried(&self.source, reason);
            self.pace.turn().await;
        }
    }

    async fn attempt(&self, url: &Url, etag: Option<&str>, bytes_max: usize) -> Result<Answer, HttpError> {
        let response =
            self.send(url, |request| etag.into_iter().fold(request, |request, etag| request.header(IF_NONE_MATCH, etag))).await?;
        let status = response.status();
        if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
            self.heed_retry_after(&response);
            return Err(HttpError::Unavailable { status: status.as_u16() });
        }
        let etag = header(&response, ETAG.as_str());
        let body = if status == StatusCode::OK { read(response, bytes_max).await? } else { Vec::new() };
        Ok(Answer { status: status.as_u16(), body, etag })
    }
}

/// How long a download may take.
#[derive(Debug, Clone, Copy)]
pub struct DownloadTimeouts {
    /// Without a byte.
    pub stall: Duration,
    /// In all.
    pub whole: Duration,
}

/// A download under way.
pub struct Download {
    /// HTTP status.
    pub status: u16,
    /// The moment that it shows.
    pub last_modified: Option<Timestamp>,
    /// The body in pieces.
    pub pieces: mpsc::Receiver<io::Result<Bytes>>,
}

async fn pump(mut response: Response, stall: Duration, pieces: mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let piece = match tokio::time::timeout(stall, response.chunk()).await {
            Ok(Ok(Some(piece))) => Ok(piece),
            Ok(Ok(None)) => return,
            Ok(Err(error)) => Err(io::Error::other(error.without_url())),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, HttpError::Stalled)),
        };
        let is_last = piece.is_err();
        // Nobody takes it when the run was given up.
        if pieces.send(piece).await.is_err() || is_last {
            return;
        }
    }
}

pub(crate) async fn read(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, HttpError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(transport)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(HttpError::TooLarge { bytes_max });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn transport(error: reqwest::Error) -> HttpError {
    HttpError::Transport(error.without_url())
}

fn header(response: &Response, name: &str) -> Option<String> {
    response.headers().get(name)?.to_str().ok().map(str::to_owned)
}

/// A client for what is at an address, with this producer's name and limits.
pub(crate) fn builder(config: &ProducerConfig, base: &Url) -> ClientBuilder {
    // The first one wins; whoever was first chose the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(&config.user_agent)
        .connect_timeout(Duration::from_millis(config.connect_timeout_ms))
        .timeout(Duration::from_millis(config.request_timeout_ms));
    // A proxy can't reach what only this machine has.
    if is_loopback(base) { builder.no_proxy() } else { builder }
}

fn same_host(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let origin =
        attempt.previous().first().map(|url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default()));
    let target = attempt.url();
    let target = Some((target.scheme().to_owned(), target.host_str().map(str::to_owned), target.port_or_known_default()));
    if origin == target && attempt.previous().len() <= REDIRECTS_MAX { attempt.follow() } else { attempt.stop() }
}

pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
