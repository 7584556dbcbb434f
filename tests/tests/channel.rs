//! The webhook channel on the wire: what it sends, which connections it keeps, what it makes of
//! every kind of answer, whom it trusts, and how it asks an endpoint for its consent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "a test may fail loudly")]

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use ryggrad_bridge::channel::fault;
use ryggrad_bridge::channel::guard::Resolve;
use ryggrad_bridge::channel::handshake::{Grant, NotAgreed};
use ryggrad_bridge::channel::webhook::{Attempt, Desk, Message, Target, TargetOptions, Webhook, WebhookOptions};
use ryggrad_bridge_core::asymmetric::{SigningKey, SigningKeys};
use ryggrad_bridge_core::egress::{Allowance, EgressPolicy, HostPattern, Refusal};
use ryggrad_bridge_core::outcome::Answer;
use ryggrad_bridge_core::settings::Format;
use ryggrad_bridge_core::signature::{Secret, verify};
use ryggrad_tests::wire::{Reply, Wire, read_request};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const NEWER: &str = "whsec_ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
const ATTEMPT_MS: u64 = 1_000;
const ANSWER_BYTES_MAX: usize = 10_000;

fn options() -> WebhookOptions {
    let policy = EgressPolicy { development: true, ..EgressPolicy::default() };
    WebhookOptions { policy, attempt_timeout_ms: ATTEMPT_MS, answer_bytes_max: ANSWER_BYTES_MAX, ..WebhookOptions::default() }
}

fn target(channel: &Webhook, sink: &str) -> Target {
    channel.target(TargetOptions { sink: sink.to_owned(), secrets: vec![SECRET.parse().unwrap()], ..TargetOptions::default() }).unwrap()
}

fn message(body: &str) -> Message<'_> {
    Message { id: "msg_1", content_type: "application/json", headers: &[], body: body.as_bytes() }
}

async fn attempt(channel: &Webhook, target: &Target) -> Attempt {
    channel.attempt(&mut Desk::default(), target, message("{}")).await
}

fn say(text: &str) -> Reply {
    Reply::Say(text.to_owned())
}

const GOOD: &str = "HTTP/1.1 204 No Content\r\n\r\n";

fn status(code: u16) -> Answer {
    Answer::Status { code, retry_after_ms: None }
}

#[tokio::test]
async fn a_request_says_what_it_should_and_nothing_else() {
    let wire = Wire::start(|_, _| say(GOOD)).await;
    let key = Arc::new(SigningKeys::from(SigningKey::from_seed(&[7; 32]).unwrap()));
    let channel = Webhook::new(WebhookOptions { signing_keys: Some(Arc::clone(&key)), ..options() }).unwrap();
    let own = [
        ("Authorization", "Bearer x"),
        ("Host", "evil.example"),
        ("Ryggrad-Supplier", "evil"),
        ("ce-id", "x"),
        ("X-Bad", "a\r\nx-injected: 1"),
    ];
    let wanted = TargetOptions {
        sink: format!("{}?a=b%20c", wire.sink()),
        named: vec![("ryggrad-organisation", "312345676".to_owned())],
        secrets: vec![NEWER.parse().unwrap(), SECRET.parse().unwrap()],
        headers: own.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec(),
        format: Format::Binary,
        origin: Some("hendelser.example.net".to_owned()),
    };
    let target = channel.target(wanted).unwrap().and_asymmetric();
    assert_eq!(target.format(), Format::Binary);
    let headers = [("ce-id", "5b0e"), ("ce-navn", "x\r\nx-injected: 2")].map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let ended = channel.attempt(&mut Desk::default(), &target, Message { headers: &headers, ..message("{\"a\":1}") }).await;
    assert_eq!((ended.answer, ended.error), (status(204), None));
    let asked = wire.asked().remove(0);
    assert!(asked.head.starts_with("POST /hendelser?a=b%20c HTTP/1.1\r\n"), "{}", asked.head);
    for (name, expected) in [
        ("host", wire.address.to_string().as_str()),
        ("content-type", "application/json"),
        ("content-length", "7"),
        ("webhook-id", "msg_1"),
        ("webhook-request-origin", "hendelser.example.net"),
        ("authorization", "Bearer x"),
        ("ryggrad-organisation", "312345676"),
        ("ce-id", "5b0e"),
        ("user-agent", concat!("ryggrad/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(asked.header(name), Some(expected), "{}", asked.head);
    }
    assert!(!asked.head.contains("\r\nx-injected") && asked.header("x-bad").is_none() && !asked.head.contains("evil"), "{}", asked.head);
    assert_eq!(asked.body, b"{\"a\":1}");
    let (at, list) = (asked.header("webhook-timestamp").unwrap(), asked.header("webhook-signature").unwrap());
    let now_s = jiff::Timestamp::now().as_second();
    for secret in [NEWER, SECRET] {
        assert_eq!(verify(&secret.parse::<Secret>().unwrap(), now_s, 300, "msg_1", at, list, &asked.body), Ok(()));
    }
    assert!(key.current().public().verifies("msg_1", at, list, &asked.body) && list.split(' ').count() == 3, "{list}");
}

#[tokio::test]
async fn what_is_withdrawn_while_a_connection_is_made_does_not_leave() {
    let wire = Wire::start(|_, _| say(GOOD)).await;
    let is_withdrawn = Arc::new(AtomicBool::new(false));
    let withdraws = Arc::clone(&is_withdrawn);
    let resolver: Arc<dyn Resolve> = Arc::new(move |_: &str| {
        withdraws.store(true, Ordering::SeqCst);
        Ok(vec![IpAddr::from([127, 0, 0, 1])])
    });
    let channel = Webhook::new(WebhookOptions { resolver: Some(resolver), ..options() }).unwrap();
    let target = target(&channel, &wire.sink().replace("127.0.0.1", "mottak.example"));
    let (mut desk, may_leave) = (Desk::default(), || !is_withdrawn.load(Ordering::SeqCst));
    let ended = channel.attempt_while(&mut desk, &target, message("{}"), &may_leave).await;
    assert_eq!((ended.answer, ended.error), (Answer::NoAnswer, Some(fault::WITHDRAWN)));
    let ended = channel.attempt(&mut desk, &target, message("{\"a\":1}")).await;
    assert_eq!((ended.answer, wire.asked().len()), (status(204), 1), "nothing but the second one has left");
}

#[tokio::test]
async fn every_kind_of_answer_is_read_to_its_end_and_no_further() {
    let long = "x".repeat(ANSWER_BYTES_MAX);
    let long_chunked = format!("HTTP/1.1 200 x\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{long}\r\n1\r\ny\r\n0\r\n\r\n", long.len());
    let cookie = "y".repeat(15_000);
    // The answer; what the attempt makes of it; whether the connection carries the next request.
    for (reply, answer, error, reused) in [
        (say(GOOD), status(204), None, true),
        (say("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"), status(200), None, true),
        (say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{long}", long.len())), status(200), None, true),
        (say(&format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{long}x", long.len() + 1)), status(200), None, false),
        (
            say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nbo\r\n3\r\ndyx\r\n0\r\nx-trailer: 1\r\n\r\n"),
            status(200),
            None,
            true,
        ),
        (say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"), status(200), None, true),
        (say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nbodyx"), status(200), None, false),
        (say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n"), status(200), None, false),
        (say(&long_chunked), status(200), None, false),
        (say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"), status(200), None, false),
        (
            say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 202 x\r\ncontent-length: 0\r\n\r\n"),
            status(202),
            None,
            true,
        ),
        (say("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"), status(101), None, false),
        (say("HTTP/1.1 204 x\r\nconnection: close\r\n\r\n"), status(204), None, false),
        (say("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"), status(200), None, false),
        // A second answer that nobody asked for is nobody's.
        (say("HTTP/1.1 500 x\r\ncontent-length: 0\r\n\r\nHTTP/1.1 200 x\r\ncontent-length: 0\r\n\r\n"), status(500), None, false),
        (say("HTTP/1.1 204 x\r\ncontent-length: 5\r\n\r\nhello"), status(204), None, false),
        (Reply::SayAndClose("HTTP/1.1 200 OK\r\n\r\nup to the end".to_owned()), status(200), None, false),
        (Reply::SayAndClose("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\ncut".to_owned()), status(200), None, false),
        (
            say("HTTP/1.1 429 x\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n"),
            Answer::Status { code: 429, retry_after_ms: Some(7_000) },
            None,
            true,
        ),
        (say(&format!("HTTP/1.1 204 x\r\nset-cookie: {cookie}\r\n\r\n")), status(204), None, true),
        (say(&format!("HTTP/1.1 204 x\r\nset-cookie: {cookie}{cookie}\r\n\r\n")), Answer::NoAnswer, Some(fault::TRANSPORT), false),
        (say("SSH-2.0-OpenSSH\r\n"), Answer::NoAnswer, Some(fault::TRANSPORT), false),
        (say("HTTP/1.1 200 x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"), Answer::NoAnswer, Some(fault::TRANSPORT), false),
        (Reply::SayAndClose("HTTP/1.1 200".to_owned()), Answer::NoAnswer, Some(fault::TRANSPORT), false),
        (Reply::SayAndClose(String::new()), Answer::NoAnswer, Some(fault::TRANSPORT), false),
        (Reply::Hang, Answer::NoAnswer, Some(fault::TIMEOUT), false),
    ] {
        let what = format!("{reply:.80?}");
        let first = reply.clone();
        let wire = Wire::start(move |connection, number| if (connection, number) == (0, 0) { first.clone() } else { say(GOOD) }).await;
        let channel = Webhook::new(options()).unwrap();
        let target = target(&channel, &wire.sink());
        let started = Instant::now();
        let ended = attempt(&channel, &target).await;
        assert_eq!((ended.answer, ended.error), (answer, error), "{what}");
        if error == Some(fault::TIMEOUT) {
            assert!((ATTEMPT_MS..ATTEMPT_MS * 2).contains(&ended.latency_ms) && started.elapsed() < Duration::from_secs(2), "{ended:?}");
        }
        assert_eq!(attempt(&channel, &target).await.answer, status(204), "the attempt after {what}");
        assert_eq!(wire.connections(), [0, usize::from(!reused)], "{what}");
    }
}

#[tokio::test]
async fn connections_are_used_again_and_replaced_once_when_they_have_gone_stale() {
    let wire = Wire::start(|_, _| say(GOOD)).await;
    let channel = Webhook::new(options()).unwrap();
    // Two targets with the same endpoint share its connections.
    let targets = [target(&channel, &wire.sink()), target(&channel, &format!("http://{}/annet", wire.address))];
    for _ in 0..10 {
        for target in &targets {
            assert_eq!(attempt(&channel, target).await.answer, status(204));
        }
    }
    assert_eq!(wire.connections(), [0; 20]);

    // Closed after an answer, without a word: the next attempt takes another connection.
    let wire = Wire::start(|_, number| if number == 0 { say(GOOD) } else { Reply::SayAndClose(String::new()) }).await;
    let target_of_it = target(&channel, &wire.sink());
    for _ in 0..3 {
        assert_eq!(attempt(&channel, &target_of_it).await.answer, status(204));
    }
    assert_eq!(wire.connections(), [0, 0, 1, 1, 2]);

    // Closed again on the fresh one: that is the endpoint's answer.
    let wire =
        Wire::start(|connection, number| if (connection, number) == (0, 0) { say(GOOD) } else { Reply::SayAndClose(String::new()) }).await;
    let target_of_it = target(&channel, &wire.sink());
    let ended = [attempt(&channel, &target_of_it).await, attempt(&channel, &target_of_it).await];
    assert_eq!(ended.map(|attempt| attempt.error), [None, Some(fault::TRANSPORT)]);
    assert_eq!(wire.connections(), [0, 0, 1]);

    // Half an answer is an answer: nothing is repeated.
    let wire = Wire::start(
        |connection, number| if (connection, number) == (0, 0) { say(GOOD) } else { Reply::SayAndClose("HTTP/1.1 2".to_owned()) },
    )
    .await;
    let target_of_it = target(&channel, &wire.sink());
    let ended = [attempt(&channel, &target_of_it).await, attempt(&channel, &target_of_it).await];
    assert_eq!(ended.map(|attempt| attempt.error), [None, Some(fault::TRANSPORT)]);
    assert_eq!(wire.connections(), [0, 0]);
}

#[tokio::test]
async fn an_endpoint_may_answer_before_it_has_read_everything() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let sink = format!("http://{}/", listener.local_addr().unwrap());
    let (release, mut held) = tokio::sync::oneshot::channel::<()>();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 413 x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        // Open until the attempt has ended: it must not need the end of the connection.
        held.close();
        let _ = held.await;
        drop(stream);
    });
    let channel = Webhook::new(options()).unwrap();
    let large = "x".repeat(32 * 1024 * 1024);
    let ended = channel.attempt(&mut Desk::default(), &target(&channel, &sink), message(&large)).await;
    assert_eq!((ended.answer, ended.error), (status(413), None));
    drop(release);
}

#[tokio::test]
async fn names_and_ports_without_an_endpoint_have_their_words() {
    let closed = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap();
    let nobody: Arc<dyn Resolve> = Arc::new(|_: &str| Err(std::io::Error::other("no such name")));
    let none: Arc<dyn Resolve> = Arc::new(|_: &str| Ok(Vec::new()));
    for (resolver, sink, expected) in [
        (None, format!("http://{closed}/"), fault::CONNECT),
        (Some(nobody), "http://mottak.example.org/".to_owned(), fault::RESOLVE),
        (Some(none), "http://mottak.example.org/".to_owned(), fault::RESOLVE),
    ] {
        let channel = Webhook::new(WebhookOptions { resolver, ..options() }).unwrap();
        let ended = attempt(&channel, &target(&channel, &sink)).await;
        assert_eq!((ended.answer, ended.error), (Answer::NoAnswer, Some(expected)), "{sink}");
    }
}

fn certificate(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("certificates").join(file)
}

/// An endpoint over TLS that demands a certificate of the same authority.
async fn secure_endpoint() -> u16 {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate("authority.pem")).unwrap()).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build().unwrap();
    let chain = vec![CertificateDer::from_pem_file(certificate("server.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificate("server.key")).unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = config.with_client_cert_verifier(clients).with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind(("127.0.0.1", 0)).await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await.ok()?;
                assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
                for number in 1_usize.. {
                    read_request(&mut stream).await?;
                    let body = number.to_string();
                    let answer = format!("HTTP/1.1 {} OK\r\ncontent-length: {}\r\n\r\n{body}", 200 + number, body.len());
                    stream.write_all(answer.as_bytes()).await.ok()?;
                }
                Some(())
            });
        }
    });
    port
}

#[tokio::test]
async fn over_tls_both_sides_show_who_they_are() {
    let port = secure_endpoint().await;
    let name = "mottak.helse.example";
    let here: IpAddr = "127.0.0.1".parse().unwrap();
    // Host, authority, own certificate; what the first two attempts get.
    for (host, authority, own, expected) in [
        (name, Some("authority.pem"), true, Ok([201, 202])),
        (name, Some("authority.pem"), false, Err([fault::TLS, fault::TRANSPORT])),
        (name, Some("another-authority.pem"), true, Err([fault::TLS, fault::TLS])),
        (name, None, true, Err([fault::TLS, fault::TLS])),
        ("annet.helse.example", Some("authority.pem"), true, Err([fault::TLS, fault::TLS])),
    ] {
        let pattern = HostPattern::try_from("*.helse.example".to_owned()).unwrap();
        let allow = vec![Allowance { host: pattern, port, cidr: None, ca_file: authority.map(certificate) }];
        let resolver: Arc<dyn Resolve> = Arc::new(move |_: &str| Ok(vec![here]));
        let channel = Webhook::new(WebhookOptions {
            policy: EgressPolicy { development: true, allow, ..EgressPolicy::default() },
            client_certificate_file: own.then(|| certificate("client.pem")),
            client_key_file: own.then(|| certificate("client.key")),
            resolver: Some(resolver),
            ..options()
        })
        .unwrap();
        let target = target(&channel, &format!("https://{host}:{port}/"));
        let ended = [attempt(&channel, &target).await, attempt(&channel, &target).await];
        match expected {
            // The count shows that both came on one connection.
            Ok(codes) => assert_eq!(ended.map(|attempt| attempt.answer), codes.map(status), "{host}"),
            // Where the endpoint refuses us, that may come to light only at the first byte.
            Err(words) => {
                assert!(ended.iter().all(|attempt| attempt.error.is_some_and(|error| words.contains(&error))), "{host}: {ended:?}")
            }
        }
    }
    let half = WebhookOptions { client_certificate_file: Some(certificate("client.pem")), ..options() };
    let none = WebhookOptions {
        client_certificate_file: Some(certificate("none.pem")),
        client_key_file: Some(certificate("client.key")),
        ..options()
    };
    let swapped = WebhookOptions {
        client_certificate_file: Some(certificate("client.key")),
        client_key_file: Some(certificate("client.pem")),
        ..options()
    };
    for wrong in [half, none, swapped] {
        assert!(Webhook::new(wrong).is_err());
    }
}

#[tokio::test]
async fn a_grant_is_in_the_headers() {
    const ORIGIN: &str = "hendelser.example.net";
    let allowed = "WebHook-Allowed-Origin: hendelser.example.net";
    for (answer, expected) in [
        (format!("200 OK\r\nAllow: POST\r\n{allowed}\r\nWebHook-Allowed-Rate: 100"), Ok(Grant { rate_per_minute: Some(100) })),
        (format!("204 x\r\n{allowed}\r\nwebhook-allowed-rate: *"), Ok(Grant { rate_per_minute: None })),
        (format!("200 OK\r\n{allowed}"), Ok(Grant { rate_per_minute: Some(120) })),
        ("200 OK\r\nWebHook-Allowed-Origin: *".to_owned(), Ok(Grant { rate_per_minute: Some(120) })),
        ("200 OK".to_owned(), Err(NotAgreed::NoGrant)),
        ("200 OK\r\nWebHook-Allowed-Origin: ".to_owned(), Err(NotAgreed::NoGrant)),
        ("200 OK\r\nWebHook-Allowed-Origin: evil.example".to_owned(), Err(NotAgreed::OtherOrigin)),
        (format!("405 x\r\n{allowed}"), Err(NotAgreed::Status(405))),
        (format!("302 x\r\nlocation: /x\r\n{allowed}"), Err(NotAgreed::Status(302))),
        (format!("200 OK\r\n{allowed}\r\nWebHook-Allowed-Rate: 0"), Err(NotAgreed::Rate)),
        (format!("200 OK\r\n{allowed}\r\nWebHook-Allowed-Rate: many"), Err(NotAgreed::Rate)),
    ] {
        let (what, text) = (answer.clone(), format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n"));
        let wire = Wire::start(move |_, _| say(&text)).await;
        let channel = Webhook::new(options()).unwrap();
        assert_eq!(channel.options(&wire.sink(), ORIGIN, 120).await, expected, "{what}");
        let asked = wire.asked().remove(0);
        assert!(asked.head.starts_with("OPTIONS /hendelser HTTP/1.1\r\n") && asked.body.is_empty(), "{}", asked.head);
        assert_eq!((asked.header("webhook-request-origin"), asked.header("webhook-request-rate")), (Some(ORIGIN), Some("120")));
    }
    let strict = Webhook::new(WebhookOptions::default()).unwrap();
    assert_eq!(strict.options("https://127.0.0.1/", ORIGIN, None).await, Err(NotAgreed::Refused(Refusal::Range)));
}

#[tokio::test]
async fn a_challenge_has_to_come_back() {
    for (code, body, expected) in [
        (200, "9f2c", Ok(())),
        (200, "9f2c\n", Ok(())),
        (202, "{\"challenge\": \"9f2c\"}", Ok(())),
        (200, "\"9f2c\"", Ok(())),
        (200, "{\"challenge\": \"other\"}", Err(NotAgreed::NoEcho)),
        (200, "{\"type\": \"no.ryggrad.challenge.v1\", \"data\": {\"challenge\": \"9f2c\"}}", Err(NotAgreed::NoEcho)),
        (200, "", Err(NotAgreed::NoEcho)),
        (200, "9f2c9f2c", Err(NotAgreed::NoEcho)),
        (404, "9f2c", Err(NotAgreed::Status(404))),
    ] {
        let text = format!("HTTP/1.1 {code} x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let wire = Wire::start(move |_, _| say(&text)).await;
        let channel = Webhook::new(options()).unwrap();
        assert_eq!(channel.challenge(&target(&channel, &wire.sink()), "9f2c").await, expected, "{code} {body}");
        let asked = wire.asked().remove(0);
        let event: Value = serde_json::from_slice(&asked.body).unwrap();
        assert_eq!((&event["type"], &event["data"]), (&json!("no.ryggrad.challenge.v1"), &json!({"challenge": "9f2c"})));
        assert_eq!(asked.header("content-type"), Some("application/cloudevents+json"));
        let (id, at, list) = ["webhook-id", "webhook-timestamp", "webhook-signature"].map(|name| asked.header(name).unwrap()).into();
        let now_s = jiff::Timestamp::now().as_second();
        assert_eq!(verify(&SECRET.parse::<Secret>().unwrap(), now_s, 300, id, at, list, &asked.body), Ok(()));
    }
}
