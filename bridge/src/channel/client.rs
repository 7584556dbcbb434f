//! The bridge's HTTP client: connections to endpoints, kept while they are of use.
//!
//! Lean, since an exchange is most of what a delivery costs: a request runs in the task of whoever
//! asks, and one endpoint's connections concern no other. No proxies, no redirects, no cookies, no
//! HTTP/2. Must never connect to an address that the guard has not passed just before.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use rustls::pki_types::ServerName;
use ryggrad_bridge_core::egress::{EgressPolicy, bare_host, ca_file};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use url::Url;

use super::answer::Head;
use super::connection::{Connection, Stream};
use super::fault;
use super::guard::{Resolve, open_addresses};
use super::timer::Timer;
use super::tls::Tls;

/// How long an answer's body may take, after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection is kept without use. Below what common servers and balancers allow.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// How often connections are looked through for such.
const SWEEP_EVERY: Duration = Duration::from_secs(10);
/// Most connections that are kept without use, over all endpoints. Of one there are as many as it has had attempts at a time.
const IDLE_TOTAL_MAX: usize = 2_048;
/// How long one of several addresses may take to be connected to before the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Most endpoints that may be known before those that nobody uses any more are forgotten.
const ENDPOINTS_BEFORE_CLEANING: usize = 64;

/// A request, but for where it goes.
pub struct Request<'r> {
    /// Request line and headers with the empty line behind them.
    pub head: &'r [u8],
    /// The body.
    pub body: &'r [u8],
    /// Most bytes of the answer's body that are read.
    pub answer_bytes_max: usize,
    /// Whether the answer's body is wanted.
    pub keep_body: bool,
    /// Whether it may leave still: asked where making a connection has taken time.
    pub may_leave: &'r (dyn Fn() -> bool + Sync),
}

/// What came back.
pub struct Reply {
    /// Status and headers.
    pub head: Head,
    /// The body as far as it was read, if it was wanted.
    pub body: Vec<u8>,
}

/// Scheme, host and port, with the connections to it.
pub struct Endpoint {
    host: String,
    port: u16,
    secure: bool,
    idle: Mutex<Vec<(Connection, Instant)>>,
    idle_total: Arc<AtomicUsize>,
}

impl Endpoint {
    /// Its host.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The connection that was used last, if it is still of use.
    fn take_idle(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            self.idle_total.fetch_sub(1, Ordering::Relaxed);
            if since.elapsed() < IDLE_TIMEOUT && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    fn keep(&self, mut connection: Connection) {
        connection.shrink();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if self.idle_total.load(Ordering::Relaxed) < IDLE_TOTAL_MAX {
            self.idle_total.fetch_add(1, Ordering::Relaxed);
            idle.push((connection, Instant::now()));
        }
    }

    fn sweep(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let before = idle.len();
        // A connection that the other side has closed would hold a socket until it is next asked for.
        idle.retain_mut(|(connection, since)| since.elapsed() < IDLE_TIMEOUT && connection.is_quiet());
        self.idle_total.fetch_sub(before - idle.len(), Ordering::Relaxed);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let idle = self.idle.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.idle_total.fetch_sub(idle.len(), Ordering::Relaxed);
    }
}

/// The client.
pub struct Client {
    policy: EgressPolicy,
    resolver: Arc<dyn Resolve>,
    tls: Tls,
    attempt_timeout: Duration,
    idle_total: Arc<AtomicUsize>,
    endpoints: Mutex<HashMap<(bool, String, u16), Weak<Endpoint>>>,
}

impl Client {
    /// A client. Within a runtime, connections without use are closed after a while.
    pub fn start(policy: EgressPolicy, resolver: Arc<dyn Resolve>, tls: Tls, attempt_timeout: Duration) -> Arc<Self> {
        let (idle_total, endpoints) = (Arc::default(), Mutex::default());
        let client = Arc::new(Self { policy, resolver, tls, attempt_timeout, idle_total, endpoints });
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let swept = Arc::downgrade(&client);
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(SWEEP_EVERY).await;
                    let Some(client) = swept.upgrade() else { return };
                    client.sweep();
                }
            });
        }
        client
    }

    /// What may be called.
    pub fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// The endpoint of a URL that was checked. All targets with one endpoint share its connections.
    pub fn endpoint(&self, url: &Url) -> Arc<Endpoint> {
        let (secure, host) = (url.scheme() == "https", bare_host(url).to_owned());
        let port = url.port_or_known_default().unwrap_or_default();
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if endpoints.len() >= ENDPOINTS_BEFORE_CLEANING && endpoints.len() == endpoints.capacity() {
            endpoints.retain(|_, endpoint| endpoint.strong_count() > 0);
        }
        let slot = endpoints.entry((secure, host.clone(), port)).or_default();
        if let Some(endpoint) = slot.upgrade() {
            return endpoint;
        }
        let endpoint = Arc::new(Endpoint { host, port, secure, idle: Mutex::default(), idle_total: Arc::clone(&self.idle_total) });
        *slot = Arc::downgrade(&endpoint);
        endpoint
    }

    /// Sends a request and reads the answer. One deadline holds from the look-up to the answer's
    /// head; a body that is too long or too slow costs the connection, the head counts.
    pub async fn exchange(&self, timer: &mut Timer, endpoint: &Endpoint, request: Request<'_>) -> Result<Reply, &'static str> {
        let begun = timer.within(self.attempt_timeout, self.begin(endpoint, &request)).await;
        let (mut connection, head) = begun.ok_or(fault::TIMEOUT)??;
        let mut body = Vec::new();
        let kept = request.keep_body.then_some(&mut body);
        let reading = timer.within(BODY_TIMEOUT, connection.read_body(head.framing, request.answer_bytes_max, kept)).await;
        if head.keeps && reading == Some(true) && connection.is_used_up() {
            endpoint.keep(connection);
        }
        Ok(Reply { head, body })
    }

    async fn begin(&self, endpoint: &Endpoint, request: &Request<'_>) -> Result<(Connection, Head), &'static str> {
        let mut has_left = false;
        if let Some(mut connection) = endpoint.take_idle() {
            match connection.exchange(request.head, request.body).await {
                Ok(head) => return Ok((connection, head)),
                // Not even the beginning of an answer: the other side has given the connection up,
                // as it may at any time. Deliveries can be told apart, so that this may be repeated.
                Err(broken) if !broken.answered => has_left = true,
                Err(_) => return Err(fault::TRANSPORT),
            }
        }
        let mut connection = self.connect(endpoint).await?;
        if !(request.may_leave)() {
            // What was written before may have arrived, whoever has given up the connection.
            return Err(if has_left { fault::TRANSPORT } else { fault::WITHDRAWN });
        }
        let head = connection.exchange(request.head, request.body).await.map_err(|_| fault::TRANSPORT)?;
        Ok((connection, head))
    }

    async fn connect(&self, endpoint: &Endpoint) -> Result<Connection, &'static str> {
        let Endpoint { host, port, .. } = endpoint;
        let addresses = open_addresses(&*self.resolver, &self.policy, host, *port).await?;
        let mut connected = None;
        for address in &addresses {
            // The last one may take all the time that is left.
            let one = TcpStream::connect(address);
            let tried = if addresses.len() == 1 { one.await.ok() } else { timeout(CONNECT_TIMEOUT, one).await.ok().and_then(Result::ok) };
            connected = tried;
            if connected.is_some() {
                break;
            }
        }
        let stream = connected.ok_or(fault::CONNECT)?;
        stream.set_nodelay(true).map_err(|_| fault::CONNECT)?;
        if !endpoint.secure {
            return Ok(Connection::new(Stream::Plain(stream)));
        }
        let connector = self.tls.connector_for(ca_file(&self.policy, host, *port)).ok_or(fault::TLS)?;
        let name = ServerName::try_from(host.clone()).map_err(|_| fault::TLS)?;
        let stream = connector.connect(name, stream).await.map_err(|_| fault::TLS)?;
        Ok(Connection::new(Stream::Tls(Box::new(stream))))
    }

    fn sweep(&self) {
        let endpoints: Vec<Arc<Endpoint>> = {
            let mut known = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, endpoint| endpoint.strong_count() > 0);
            known.values().filter_map(Weak::upgrade).collect()
        };
        endpoints.iter().for_each(|endpoint| endpoint.sweep());
    }
}
