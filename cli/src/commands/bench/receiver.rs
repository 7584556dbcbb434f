//! The endpoint that everything is posted to: reads bodies, counts them, answers 204.
//!
//! It has a thread and a runtime of its own, so that it costs every contestant the same. Told to,
//! it also notes which numbered event came where and when, and one of its paths never answers.
//! Must never verify a body or keep one: it is the measure, not a part of what is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::serve::ListenerExt;
use tokio::sync::oneshot;

/// How long nothing comes in before nothing more is expected.
const QUIET: Duration = Duration::from_millis(100);
/// Where to post to, on whichever port.
pub const PATH: &str = "/hendelser";
/// Whoever posts here waits for ever.
const HANGING_PATH: &str = "/henger";
/// The attribute by which an event's number is known, with what stands before its value in JSON.
const NUMBER_IN_BODY: &[u8] = b"\"benchnumber\":\"";
/// The same as a record's header.
pub const NUMBER_HEADER: &str = "ce_benchnumber";

struct Counts {
    epoch: Instant,
    bodies: AtomicU64,
    bytes: AtomicU64,
    /// Nanoseconds since the epoch; 0 is none yet.
    first_ns: AtomicU64,
    last_ns: AtomicU64,
    /// Whether arrivals are noted.
    noting: AtomicBool,
    arrivals: Mutex<Vec<Arrival>>,
}

/// A numbered event that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Which endpoint it was posted to, as [`Receiver::numbered_sink`] was told, or which socket it came over.
    pub endpoint: u32,
    /// The event's number.
    pub number: u64,
    /// When, microseconds since 1970.
    pub at_us: i64,
}

/// What came in since the last reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bodies.
    pub bodies: u64,
    /// Bytes in all bodies.
    pub bytes: u64,
    /// From the first body to the last.
    pub took: Duration,
}

impl Received {
    /// Bodies a second.
    pub fn rate(&self) -> f64 {
        self.bodies as f64 / self.took.as_secs_f64()
    }
}

/// The endpoint.
pub struct Receiver {
    address: SocketAddr,
    counts: Arc<Counts>,
    /// Dropping it ends the thread.
    _stop: oneshot::Sender<()>,
}

impl Receiver {
    /// Listens on a free port of this machine.
    pub fn start() -> anyhow::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot listen")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let zero = || AtomicU64::new(0);
        let counts = Arc::new(Counts {
            epoch: Instant::now(),
            bodies: zero(),
            bytes: zero(),
            first_ns: zero(),
            last_ns: zero(),
            noting: AtomicBool::new(false),
            arrivals: Mutex::default(),
        });
        let (stop, stopped) = oneshot::channel();
        let router = Router::new().fallback(count).with_state(Arc::clone(&counts));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        std::thread::Builder::new().name("bench-receiver".to_owned()).spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?.tap_io(|stream| drop(stream.set_nodelay(true)));
                tokio::select! {
                    served = axum::serve(listener, router) => served,
                    _ = stopped => Ok(()),
                }
            })
        })?;
        Ok(Self { address, counts, _stop: stop })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The whole address to post to.
    pub fn sink(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// One of many addresses to post to.
    pub fn numbered_sink(&self, endpoint: u32) -> String {
        format!("http://{}{PATH}/{endpoint}", self.address)
    }

    /// One of many addresses that take requests and never answer. Nothing is counted there.
    pub fn hanging_sink(&self, endpoint: u32) -> String {
        format!("http://{}{HANGING_PATH}/{endpoint}", self.address)
    }

    /// Notes from now on which numbered event comes where and when.
    pub fn note_arrivals(&self) {
        self.counts.noting.store(true, Ordering::SeqCst);
    }

    /// What was noted since this was asked last.
    pub fn take_arrivals(&self) -> Vec<Arrival> {
        std::mem::take(&mut *self.counts.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Forgets what came in.
    pub fn reset(&self) {
        for count in [&self.counts.bodies, &self.counts.bytes, &self.counts.first_ns, &self.counts.last_ns] {
            count.store(0, Ordering::SeqCst);
        }
    }

    /// What came in so far.
    pub fn received(&self) -> Received {
        let counts = &self.counts;
        let took_ns = counts.last_ns.load(Ordering::SeqCst).saturating_sub(counts.first_ns.load(Ordering::SeqCst));
        Received {
            bodies: counts.bodies.load(Ordering::SeqCst),
            bytes: counts.bytes.load(Ordering::SeqCst),
            took: Duration::from_nanos(took_ns),
        }
    }

    /// Waits until nothing comes in any more: what a tool that stops by the clock has left under way.
    pub async fn is_quiet(&self) {
        loop {
            let before = self.received().bodies;
            tokio::time::sleep(QUIET).await;
            if self.received().bodies == before {
                return;
            }
        }
    }

    /// Waits until that many bodies have come in.
    pub async fn wait_for(&self, bodies: u64, timeout: Duration) -> anyhow::Result<Received> {
        let deadline = Instant::now() + timeout;
        loop {
            let received = self.received();
            if received.bodies >= bodies {
                return Ok(received);
            }
            anyhow::ensure!(Instant::now() < deadline, "only {} of {bodies} bodies came in within {timeout:?}", received.bodies);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn count(State(counts): State<Arc<Counts>>, uri: Uri, body: Bytes) -> StatusCode {
    if uri.path().starts_with(HANGING_PATH) {
        return std::future::pending().await;
    }
    let now_ns = u64::try_from(counts.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
    if counts.noting.load(Ordering::Relaxed)
        && let Some(number) = number_in(&body)
    {
        let endpoint = uri.path().rsplit('/').next().and_then(|endpoint| endpoint.parse().ok()).unwrap_or_default();
        let arrival = Arrival { endpoint, number, at_us: jiff::Timestamp::now().as_microsecond() };
        counts.arrivals.lock().unwrap_or_else(PoisonError::into_inner).push(arrival);
    }
    // One thread counts: there is nothing to race with but a reset between runs.
    let _ = counts.first_ns.compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed);
    counts.last_ns.store(now_ns, Ordering::Relaxed);
    counts.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    counts.bodies.fetch_add(1, Ordering::Release);
    StatusCode::NO_CONTENT
}

/// The number of an event in structured JSON.
pub fn number_in(body: &[u8]) -> Option<u64> {
    let at = body.windows(NUMBER_IN_BODY.len()).position(|window| window == NUMBER_IN_BODY)? + NUMBER_IN_BODY.len();
    let digits = body[at..].split(|byte| *byte == b'"').next()?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_events_number_is_found_where_there_is_one() {
        for (body, expected) in [
            (&br#"{"id":"a","benchnumber":"17","data":{}}"#[..], Some(17)),
            (br#"{"id":"a"}"#, None),
            (br#"{"benchnumber":"x"}"#, None),
            (br#"{"benchnumber":"1"#, Some(1)),
        ] {
            assert_eq!(number_in(body), expected);
        }
    }
}
