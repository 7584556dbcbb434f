//! Calls to the bridge's HTTP API.
//!
//! Answers stay JSON values: what is only printed needs no type, and a newer bridge may say more.
//! The token goes to the bridge alone: no redirect is followed.

use std::time::Duration;

use anyhow::Context as _;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use url::{Host, Url};
use uuid::Uuid;

use crate::client::{Problem, Token};
use crate::exit::{Code, Stop};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Items of a page when all pages are wanted.
const LIST_LIMIT: &str = "1000";
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a call has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection, or no answer in time.
    #[error("the bridge at {base} cannot be reached")]
    Unreachable {
        /// Its address.
        base: Url,
        /// What the HTTP client says.
        #[source]
        source: reqwest::Error,
    },
    /// The bridge says no: 4xx.
    #[error("the bridge refuses: {0}")]
    Refused(Problem),
    /// The bridge could not: any other status.
    #[error("the bridge failed: {0}")]
    Failed(Problem),
    /// Something answered, but not as the bridge does.
    #[error("what answers at {base} does not look like the bridge: {what}")]
    Strange {
        /// Its address.
        base: Url,
        /// What was odd.
        what: String,
    },
}

impl CallError {
    /// The code to end with.
    pub fn code(&self) -> Code {
        match self {
            Self::Unreachable { .. } => Code::Unreachable,
            Self::Refused(_) => Code::Refused,
            Self::Failed(_) | Self::Strange { .. } => Code::Failure,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> Option<String> {
        let remedy = match self {
            Self::Unreachable { .. } => "is the bridge running? start it with ./ryggrad up",
            Self::Refused(problem) if problem.status == 401 => {
                "is the token right, and not expired or revoked? An operator issues one with ryggrad tokens issue"
            }
            Self::Refused(problem) if problem.status == 403 => "this token does not allow it",
            Self::Failed(_) => "see the bridge's own log",
            Self::Strange { .. } => "is the address right? Give it with --bridge",
            Self::Refused(_) => return None,
        };
        Some(remedy.to_owned())
    }
}

/// An answer, and where it goes on.
pub struct Page {
    /// The body.
    pub body: Value,
    /// The cursor of a feed.
    pub cursor: Option<String>,
    /// The entity tag of what it shows.
    pub tag: Option<String>,
}

/// A client for one bridge with one token.
pub struct Bridge {
    http: reqwest::Client,
    base: Url,
    token: Token,
}

impl Bridge {
    /// A client. Makes no call yet.
    pub fn new(base: &str, token: Token) -> anyhow::Result<Self> {
        let base = base_url(base)?;
        // Fails only if a provider is there already, and any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("ryggrad/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT);
        if is_loopback(&base) {
            // A proxy from the environment cannot reach this machine's own bridge.
            builder = builder.no_proxy();
        }
        if base.scheme() == "http" {
            // No certificate will be checked, so a machine without root certificates will do.
            builder = builder.tls_certs_only([]);
        }
        Ok(Self { http: builder.build().context("cannot prepare an HTTP client")?, base, token })
    }

    /// Gets what stands at a path, given as its segments.
    pub async fn get(&self, path: &[&str]) -> Result<Value, CallError> {
        self.call(Method::GET, path, None).await
    }

    /// Posts JSON, or nothing.
    pub async fn post(&self, path: &[&str], body: Option<&Value>) -> Result<Value, CallError> {
        self.call(Method::POST, path, body).await
    }

    /// Posts JSON that makes something: once, also if the connection breaks before the answer has come.
    pub async fn make(&self, path: &[&str], body: &Value) -> Result<Value, CallError> {
        let key = Uuid::new_v4().to_string();
        let request = || self.request(Method::POST, endpoint(&self.base, path), Some(body)).header("idempotency-key", &key);
        match self.send(request()).await {
            // It may have been done: the bridge knows by the key.
            Err(CallError::Unreachable { source, .. }) if !source.is_connect() && !source.is_timeout() => self.send(request()).await,
            answer => answer,
        }
        .map(|page| page.body)
    }

    /// Changes what stands at a path by a JSON merge patch.
    pub async fn patch(&self, path: &[&str], body: &Value) -> Result<Value, CallError> {
        self.call(Method::PATCH, path, Some(body)).await
    }

    /// Puts lines of text where a path says; they may be many.
    pub async fn put_lines(&self, path: &[&str], lines: String) -> Result<Value, CallError> {
        let request = self.request(Method::PUT, endpoint(&self.base, path), None).timeout(UPLOAD_TIMEOUT);
        Ok(self.send(request.header("content-type", "text/plain").body(lines)).await?.body)
    }

    /// Puts JSON where a path says, if what stands there still has this tag.
    pub async fn put(&self, path: &[&str], body: &Value, tag: Option<&str>) -> Result<Value, CallError> {
        let request = self.request(Method::PUT, endpoint(&self.base, path), Some(body));
        let request = tag.into_iter().fold(request, |request, tag| request.header("if-match", tag));
        Ok(self.send(request).await?.body)
    }

    /// Deletes what stands at a path.
    pub async fn delete(&self, path: &[&str]) -> Result<Value, CallError> {
        self.call(Method::DELETE, path, None).await
    }

    /// Gets what stands at a path, with parameters and all that the answer tells.
    pub async fn get_with(&self, path: &[&str], query: &[(&str, &str)]) -> Result<Page, CallError> {
        let mut url = endpoint(&self.base, path);
        url.query_pairs_mut().extend_pairs(query);
        self.send(self.request(Method::GET, url, None)).await
    }

    /// Everything of a list that comes in pages; `member` holds the items.
    pub async fn list(&self, path: &[&str], member: &str) -> Result<Vec<Value>, CallError> {
        self.list_with(path, member, &[]).await
    }

    /// The same, narrowed by a query.
    pub async fn list_with(&self, path: &[&str], member: &str, narrowing: &[(&str, &str)]) -> Result<Vec<Value>, CallError> {
        let (mut items, mut after) = (Vec::new(), None::<String>);
        loop {
            let query: Vec<(&str, &str)> = after
                .iter()
                .map(|after| ("after", after.as_str()))
                .chain([("limit", LIST_LIMIT)])
                .chain(narrowing.iter().copied())
                .collect();
            let mut page = self.get_with(path, &query).await?.body;
            if let Some(Value::Array(found)) = page.get_mut(member).map(Value::take) {
                items.extend(found);
            }
            match page["next"].as_str() {
                // A page that leads to itself would never end.
                Some(next) if after.as_deref() != Some(next) => after = Some(next.to_owned()),
                _ => return Ok(items),
            }
        }
    }

    async fn call(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Value, CallError> {
        Ok(self.send(self.request(method, endpoint(&self.base, path), body)).await?.body)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Page, CallError> {
        let response = request.send().await.map_err(|error| self.unreachable(error))?;
        let status = response.status();
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (cursor, tag) = (header("ryggrad-cursor"), header("etag"));
        let bytes = self.body(response).await?;
        if status.is_success() {
            return Ok(Page { body: self.json(&bytes)?, cursor, tag });
        }
        let problem = Problem::read(status.as_u16(), status.canonical_reason(), &bytes);
        Err(if status.is_client_error() { CallError::Refused(problem) } else { CallError::Failed(problem) })
    }

    fn request(&self, method: Method, url: Url, body: Option<&Value>) -> RequestBuilder {
        let media_type = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let mut request = self.http.request(method, url);
        // Some answers, such as whether the bridge is ready, need no token.
        if !self.token.is_empty() {
            request = request.bearer_auth(self.token.reveal());
        }
        match body {
            Some(body) => request.header("content-type", media_type).body(body.to_string()),
            None => request,
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(self.strange(format!("its answer exceeds {ANSWER_BYTES_MAX} bytes")));
            }
        }
        Ok(bytes)
    }

    fn json(&self, bytes: &[u8]) -> Result<Value, CallError> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(bytes).map_err(|_| self.strange("its answer is no JSON".to_owned()))
    }

    fn unreachable(&self, source: reqwest::Error) -> CallError {
        // The address is told already.
        CallError::Unreachable { base: self.base.clone(), source: source.without_url() }
    }

    fn strange(&self, what: String) -> CallError {
        CallError::Strange { base: self.base.clone(), what }
    }
}

/// Whether a call was refused because there is no such thing.
pub fn is_not_found(error: &CallError) -> bool {
    matches!(error, CallError::Refused(problem) if problem.status == StatusCode::NOT_FOUND.as_u16())
}

fn base_url(text: &str) -> Result<Url, Stop> {
    let refuse = |what: &str| Stop::usage(format!("the bridge's address is no good: {what}"), "use one like http://127.0.0.1:8484");
    let url = Url::parse(text).map_err(|error| refuse(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(refuse("it must start with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refuse("it must not hold a user or password"));
    }
    Ok(url)
}

fn endpoint(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    // Fails only for addresses without a host, which base_url refuses.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path);
    }
    url
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn paths_are_appended_and_escaped() {
        for (base, path, expected) in [
            ("http://127.0.0.1:8484", &["v1", "tokens"][..], "http://127.0.0.1:8484/v1/tokens"),
            ("http://h/ryggrad/", &["v1"][..], "http://h/ryggrad/v1"),
            ("http://h/ryggrad", &["v1", "a/../b?c"][..], "http://h/ryggrad/v1/a%2F..%2Fb%3Fc"),
        ] {
            assert_eq!(endpoint(&base_url(base).unwrap(), path).as_str(), expected);
        }
    }

    #[test]
    fn addresses_that_cannot_be_a_bridge_are_refused() {
        for bad in ["", "127.0.0.1:8484", "localhost:8484", "ftp://h", "http://", "http://me:secret@h"] {
            let stop = base_url(bad).unwrap_err();
            assert_eq!(stop.code, Code::Usage);
            assert!(!stop.what.contains("secret"));
        }
    }

    #[test]
    fn loopback_is_known_in_all_its_forms() {
        for (address, expected) in [
            ("http://localhost:1", true),
            ("http://127.8.0.1", true),
            ("http://[::1]:1", true),
            ("http://10.0.0.1", false),
            ("http://localhost.example", false),
        ] {
            assert_eq!(is_loopback(&base_url(address).unwrap()), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn nobody_there_means_unreachable_with_a_remedy() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let bridge = Bridge::new(&address, "t".parse().unwrap()).unwrap();
        let error = bridge.get(&["v1"]).await.unwrap_err();
        assert_eq!(error.code(), Code::Unreachable);
        assert!(error.remedy().is_some_and(|remedy| remedy.contains("./ryggrad up")));
    }

    /// Reads a request, headers and body, and gives its key.
    async fn key_of(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        while !text.ends_with("{}") {
            let mut bytes = [0; 1024];
            let count = stream.read(&mut bytes).await.unwrap();
            text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
        let key = text.lines().find_map(|line| line.strip_prefix("idempotency-key: "));
        key.expect("a key").to_owned()
    }

    #[tokio::test]
    async fn what_makes_something_is_repeated_with_its_key_where_the_connection_broke() {
        const MADE: &[u8] = b"HTTP/1.1 201 Created\r\ncontent-length: 10\r\nconnection: close\r\n\r\n{\"id\":\"a\"}";
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let bridge = Bridge::new(&format!("http://{}", listener.local_addr().unwrap()), "t".parse().unwrap()).unwrap();
        // Gone after it was read, answered; another call; gone twice.
        let serving = tokio::spawn(async move {
            let mut keys = Vec::new();
            for answers in [false, true, true, false, false] {
                let (mut stream, _) = listener.accept().await.unwrap();
                keys.push(key_of(&mut stream).await);
                if answers {
                    stream.write_all(MADE).await.unwrap();
                }
            }
            keys
        });
        for _ in 0..2 {
            assert_eq!(bridge.make(&["v1"], &json!({})).await.unwrap()["id"], "a");
        }
        assert_eq!(bridge.make(&["v1"], &json!({})).await.unwrap_err().code(), Code::Unreachable);
        let keys = serving.await.unwrap();
        assert!(keys[0] == keys[1] && keys[1] != keys[2] && keys[2] != keys[3] && keys[3] == keys[4], "{keys:?}");
    }
}
