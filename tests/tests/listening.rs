//! How callers are taken in: over TLS with a certificate that can be replaced, in bounded numbers, and
//! none that keeps the bridge waiting.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use ryggrad_tests::bridge::Caller;
use ryggrad_tests::process::{Process, command, free_port};
use ryggrad_tests::scenario::Scenario;
use ryggrad_tests::wait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The name in the tests' certificate.
const NAME: &str = "mottak.helse.example";

fn certificate(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("certificates").join(file)
}

fn with_settings(scenario: &Scenario, settings: &str) -> Process {
    let path = scenario.folder.path().join("listening.toml");
    std::fs::write(&path, settings).unwrap();
    scenario.bridge(&["--config", path.to_str().unwrap()])
}

async fn connect(scenario: &Scenario) -> TcpStream {
    let address = scenario.bridge_url().replace("http://", "");
    wait::until("the bridge listens", 30, || async { TcpStream::connect(&address).await.ok() }).await
}

/// Asks over TLS; none if the two do not come to an understanding.
async fn ask(scenario: &Scenario, path: &str) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate("authority.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots).with_no_client_auth();
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from(NAME).unwrap(), connect(scenario).await).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {NAME}\r\nconnection: close\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// The value of a metric, asked over TLS.
async fn metric(scenario: &Scenario, name: &str) -> Option<u64> {
    let metrics = ask(scenario, "/metrics").await?;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_served_over_tls_and_a_replaced_certificate_is_taken_up() {
    let scenario = Scenario::start().await;
    let (chain, key) = (scenario.folder.path().join("chain.pem"), scenario.folder.path().join("chain.key"));
    let put = |chain_from: &Path, key_from: &Path| {
        std::fs::copy(chain_from, &chain).unwrap();
        std::fs::copy(key_from, &key).unwrap();
    };
    put(&certificate("server.pem"), &certificate("server.key"));
    let settings = format!("[bridge]\ntls_certificate_file = {chain:?}\ntls_key_file = {key:?}\n");
    let mut bridge = with_settings(&scenario, &settings);
    let answer = wait::until("it answers over TLS", 30, || ask(&scenario, "/healthz")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

    // In plain text nothing is said.
    let mut plain = connect(&scenario).await;
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = plain.read_to_end(&mut said).await;
    assert!(!said.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&said));

    // Nonsense is not taken up, and the former certificate goes on.
    std::fs::write(&chain, "nonsense").unwrap();
    wait::until("nonsense is refused", 30, || async {
        metric(&scenario, "ryggrad_bridge_certificates_refused_total").await.filter(|n| *n > 0)
    })
    .await;
    // Another one is: made for another use, so that this client does not accept it.
    put(&certificate("client.pem"), &certificate("client.key"));
    wait::until("the other certificate is shown", 30, || async { ask(&scenario, "/healthz").await.is_none().then_some(()) }).await;
    put(&certificate("server.pem"), &certificate("server.key"));
    wait::until("the first certificate is shown again", 30, || ask(&scenario, "/healthz")).await;
    assert!(metric(&scenario, "ryggrad_bridge_certificates_taken_up_total").await.is_some_and(|times| times >= 2));
    assert!(metric(&scenario, "ryggrad_bridge_handshakes_failed_total").await.is_some_and(|times| times >= 2));
    assert_eq!(bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_setting_is_refused_with_what_to_do() {
    let scenario = Scenario::start().await;
    let settings = scenario.folder.path().join("half.toml");
    std::fs::write(&settings, format!("[bridge]\ntls_key_file = {:?}\n", certificate("server.key"))).unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let arguments =
        ["bridge", "--kafka", &scenario.broker.address(), "--data", "half", "--listen", &listen, "--config", settings.to_str().unwrap()];
    let (code, _, said) = command(scenario.folder.path(), &arguments);
    assert!(code == Some(1) && said.contains("bridge.tls_certificate_file and bridge.tls_key_file belong together"), "{code:?} {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_keeps_the_bridge_waiting_or_takes_every_place() {
    let scenario = Scenario::start().await;
    let settings = "[bridge]\nconnections_max = 3\nrequest_head_timeout_ms = 1500\nrequest_body_timeout_ms = 500\n";
    let mut bridge = with_settings(&scenario, settings);
    let subscriber = scenario.subscriber("312345676").await;
    // The tests' own client keeps connections open: until these are given up.
    let alone = || async {
        let metrics = subscriber.try_raw(reqwest::Method::GET, "/metrics", None).await?.text;
        metrics.lines().any(|line| line == "ryggrad_bridge_connections 1").then_some(())
    };
    wait::until("other connections are gone", 30, alone).await;

    // A head that never ends, a byte at a time; and a connection that says nothing.
    let (mut slow, mut silent) = (connect(&scenario).await, connect(&scenario).await);
    let begun = Instant::now();
    slow.write_all(b"GET /healthz HTTP/1.1\r\nx: ").await.unwrap();
    // No place is left; whoever comes is sent away at once.
    let mut late = connect(&scenario).await;
    let mut said = Vec::new();
    let _ = late.read_to_end(&mut said).await;
    assert!(said.is_empty());
    let mut dripping = tokio::time::interval(Duration::from_millis(100));
    while slow.write_all(b"x").await.is_ok() && begun.elapsed() < Duration::from_secs(20) {
        dripping.tick().await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "given up after {:?}", begun.elapsed());
    let _ = silent.read_to_end(&mut said).await;

    // A body that never ends is answered.
    let mut body = connect(&scenario).await;
    let token = subscriber.token();
    let head = format!("POST /v1/subscriptions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: 100\r\n\r\n{{");
    body.write_all(head.as_bytes()).await.unwrap();
    let mut answer = vec![0; 1_024];
    let read = body.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]);
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("within 500 ms"), "{answer}");
    let metrics = subscriber.raw(reqwest::Method::GET, "/metrics", &[], "").await.text;
    assert!(metrics.lines().any(|line| line == "ryggrad_bridge_connections_refused_total 1"), "{metrics}");
    assert_eq!(bridge.stop().await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organisation_that_asks_too_much_waits_and_nobody_else_does() {
    let scenario = Scenario::start().await;
    let mut bridge = with_settings(&scenario, "[bridge]\norganisation_requests_per_s_max = 1\norganisation_requests_at_once_max = 20\n");
    let (busy, other, operator) =
        (scenario.subscriber("312345676").await, scenario.subscriber("310000019").await, scenario.operator().await);
    let ask = async |caller: &Caller| {
        let authorization = format!("Bearer {}", caller.token());
        caller.raw(reqwest::Method::GET, "/v1/subscriptions", &[("authorization", &authorization)], "").await
    };
    let mut refused = None;
    for _ in 0..200 {
        let answer = ask(&busy).await;
        if answer.status != 200 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a request is refused at last");
    assert_eq!((refused.status, refused.header("retry-after")), (429, "1"), "{refused:?}");
    assert!(refused.text.contains("urn:ryggrad:error:too-many"), "{refused:?}");
    assert_eq!(ask(&other).await.status, 200);
    for _ in 0..30 {
        assert_eq!(operator.get("/v1/subscriptions").await.0, 200);
    }
    let metrics = operator.raw(reqwest::Method::GET, "/metrics", &[], "").await.text;
    assert!(metrics.lines().any(|line| line == "ryggrad_bridge_requests_refused_total 1"), "{metrics}");
    assert_eq!(bridge.stop().await, Some(0));
}
