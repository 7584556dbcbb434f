//! Taking connections in: with TLS or without, so many at most, and none that only pretends to ask.
//!
//! A certificate that is replaced on disk is taken up within seconds, for new connections; one that cannot
//! be used is not, and the one before goes on. Must never take a connection in plain text where TLS is set.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::channel::tls::{InvalidTls, certificates, private_key};
use crate::config::BridgeConfig;
use crate::telemetry::Telemetry;

/// How often the certificate's files are looked at.
const RELOAD_EVERY: Duration = Duration::from_secs(2);
/// After a failure to take a connection in: the system has run out of something.
const PAUSE: Duration = Duration::from_millis(100);

/// What connections are taken in with.
pub struct Listening {
    listener: TcpListener,
    certificate: Option<Arc<Certificate>>,
    places: Arc<Semaphore>,
    head_timeout: Duration,
    telemetry: Telemetry,
}

impl Listening {
    /// Reads the certificate, if one is set.
    pub fn new(listener: TcpListener, config: &BridgeConfig, telemetry: Telemetry) -> Result<Self, InvalidTls> {
        let certificate = match (&config.tls_certificate_file, &config.tls_key_file) {
            (Some(chain), Some(key)) => Some(Arc::new(Certificate::read(chain, key)?)),
            (None, None) => None,
            _ => return Err(InvalidTls::HalfServer),
        };
        let places = Arc::new(Semaphore::new(config.connections_max));
        let head_timeout = Duration::from_millis(config.request_head_timeout_ms);
        Ok(Self { listener, certificate, places, head_timeout, telemetry })
    }

    /// Serves until told to stop, and then until the last answer is out.
    pub async fn serve(self, router: Router, stop: CancellationToken) -> Result<(), InvalidTls> {
        let acceptor = self.certificate.as_ref().map(|certificate| acceptor(Arc::clone(certificate))).transpose()?;
        let connections = TaskTracker::new();
        let mut reload = tokio::time::interval(RELOAD_EVERY);
        loop {
            let stream = tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => stream,
                    Err(error) => {
                        tracing::warn!(%error, "no connection can be taken in");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                },
                _ = reload.tick(), if self.certificate.is_some() => {
                    if let Some(certificate) = &self.certificate {
                        certificate.look_again(&self.telemetry);
                    }
                    continue;
                }
                () = stop.cancelled() => break,
            };
            let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
                // Hanging up is all there is time for.
                self.telemetry.connections_refused.inc();
                continue;
            };
            let (router, acceptor, stop, telemetry) = (router.clone(), acceptor.clone(), stop.clone(), self.telemetry.clone());
            let head_timeout = self.head_timeout;
            connections.spawn(async move {
                telemetry.connections.inc();
                match acceptor {
                    None => converse(stream, router, head_timeout, stop).await,
                    Some(acceptor) => match shake_hands(acceptor, stream, head_timeout).await {
                        Some(stream) => converse(stream, router, head_timeout, stop).await,
                        None => {
                            telemetry.handshakes_failed.inc();
                        }
                    },
                }
                telemetry.connections.dec();
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
        Ok(())
    }
}

async fn shake_hands(acceptor: TlsAcceptor, stream: TcpStream, within: Duration) -> Option<TlsStream<TcpStream>> {
    tokio::time::timeout(within, acceptor.accept(stream)).await.ok()?.ok()
}

/// One connection to its end.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
    head_timeout: Duration,
    stop: CancellationToken,
) {
    let mut server = http1::Builder::new();
    // It counts from the connection's beginning, and again from the end of each answer.
    server.timer(TokioTimer::new()).header_read_timeout(head_timeout);
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // Whoever breaks off knows why.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn acceptor(certificate: Arc<Certificate>) -> Result<TlsAcceptor, InvalidTls> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider())).with_safe_default_protocol_versions()?;
    let mut config = builder.with_no_client_auth().with_cert_resolver(certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The certificate that is shown to whoever comes.
struct Certificate {
    chain: PathBuf,
    key: PathBuf,
    /// What is shown, and when its files were changed last.
    shown: RwLock<(Arc<CertifiedKey>, Option<Changed>)>,
}

/// When the two files were changed.
type Changed = (SystemTime, SystemTime);

impl Certificate {
    fn read(chain: &Path, key: &Path) -> Result<Self, InvalidTls> {
        let changed = changed(chain, key);
        let shown = RwLock::new((Arc::new(certified(chain, key)?), changed));
        Ok(Self { chain: chain.to_owned(), key: key.to_owned(), shown })
    }

    /// Takes up what has changed. Two files are not replaced in one step: until they fit, the former ones go on.
    fn look_again(&self, telemetry: &Telemetry) {
        let changed = changed(&self.chain, &self.key);
        if changed.is_none() || self.shown.read().unwrap_or_else(PoisonError::into_inner).1 == changed {
            return;
        }
        match certified(&self.chain, &self.key) {
            Ok(certified) => {
                *self.shown.write().unwrap_or_else(PoisonError::into_inner) = (Arc::new(certified), changed);
                telemetry.certificates_taken_up.inc();
                tracing::info!("the replaced certificate is shown from now on");
            }
            Err(error) => {
                telemetry.certificates_refused.inc();
                tracing::error!(%error, "the replaced certificate cannot be used; the former one goes on");
            }
        }
    }
}

impl std::fmt::Debug for Certificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificate").field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.shown.read().unwrap_or_else(PoisonError::into_inner).0))
    }
}

fn changed(chain: &Path, key: &Path) -> Option<Changed> {
    let of = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    of(chain).zip(of(key))
}

fn certified(chain: &Path, key: &Path) -> Result<CertifiedKey, InvalidTls> {
    let key = private_key(key)?;
    Ok(CertifiedKey::from_der(certificates(chain)?, key, &ring::default_provider())?)
}
