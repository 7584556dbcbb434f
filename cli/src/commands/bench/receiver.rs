//! The endpoint that everything is posted to: reads bodies, counts them, answers 204.
//!
//! It has a thread and a runtime of its own, so that it costs every contestant the same. Must
//! never verify or keep anything: it is the measure, not a part of what is measured.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::serve::ListenerExt;
use tokio::sync::oneshot;

/// Where to post to, on whichever port.
pub const PATH: &str = "/hendelser";

struct Counts {
    epoch: Instant,
    bodies: AtomicU64,
    bytes: AtomicU64,
    /// Nanoseconds since the epoch; 0 is none yet.
    first_ns: AtomicU64,
    last_ns: AtomicU64,
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
        let counts = Arc::new(Counts { epoch: Instant::now(), bodies: zero(), bytes: zero(), first_ns: zero(), last_ns: zero() });
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

async fn count(State(counts): State<Arc<Counts>>, body: Bytes) -> StatusCode {
    let now_ns = u64::try_from(counts.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
    // One thread counts: there is nothing to race with but a reset between runs.
    let _ = counts.first_ns.compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed);
    counts.last_ns.store(now_ns, Ordering::Relaxed);
    counts.bytes.fetch_add(body.len() as u64, Ordering::Relaxed);
    counts.bodies.fetch_add(1, Ordering::Release);
    StatusCode::NO_CONTENT
}
