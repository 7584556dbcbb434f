//! The HTTP client against answers to order, on a socket of this machine.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use ryggrad_producers::{Http, HttpError, ProducerConfig, Telemetry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

/// Gives the answers one after the other, each on a connection of its own, and keeps the questions.
async fn upstream(answers: &[&str]) -> (Url, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = Url::parse(&format!("http://{}/api", listener.local_addr().unwrap())).unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let (answers, questions): (Vec<String>, _) = (answers.iter().map(|answer| (*answer).to_owned()).collect(), Arc::clone(&asked));
    tokio::spawn(async move {
        for answer in answers {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                question.push(socket.read_u8().await.unwrap());
            }
            questions.lock().unwrap().push(String::from_utf8(question).unwrap());
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    (base, asked)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

fn client(base: &Url, change: impl FnOnce(&mut ProducerConfig)) -> Http {
    let mut config =
        ProducerConfig { retry_delay_ms_first: 1, retry_delay_ms_max: 1, request_timeout_ms: 5_000, ..ProducerConfig::default() };
    change(&mut config);
    Http::new(&config, base, "test", Telemetry::register(&mut Registry::default())).unwrap()
}

#[tokio::test]
async fn an_answer_brings_status_body_and_etag_and_the_question_its_own() {
    let (base, asked) = upstream(&[&answer("200 OK", "etag: \"b\"\r\n", "{}"), &answer("304 Not Modified", "", "")]).await;
    let http = client(&base, |_| {});
    let first = http.get(&base, None, 10).await.unwrap();
    assert_eq!((first.status, first.body.as_slice(), first.etag.as_deref()), (200, b"{}".as_slice(), Some("\"b\"")));
    assert_eq!(http.get(&base, first.etag.as_deref(), 10).await.unwrap().status, 304);
    let asked = asked.lock().unwrap();
    assert!(asked[0].starts_with("GET /api HTTP/1.1") && asked[0].contains("user-agent: ryggrad/") && !asked[0].contains("if-none-match"));
    assert!(asked[1].contains("if-none-match: \"b\""));
}

#[tokio::test]
async fn what_may_pass_is_asked_again_and_other_statuses_are_the_callers() {
    let (good, ill, busy) = (answer("200 OK", "", "1"), answer("503 Service Unavailable", "", ""), answer("429 Too Many Requests", "", ""));
    for answers in [[ill.as_str(), &busy, &good], ["", &ill, &good], ["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\ncut", "", &good]] {
        let (base, asked) = upstream(&answers).await;
        assert_eq!(client(&base, |_| {}).get(&base, None, 10).await.unwrap().body, b"1");
        assert_eq!(asked.lock().unwrap().len(), 3);
    }
    for status in ["404 Not Found", "410 Gone", "400 Bad Request", "406 Not Acceptable"] {
        let (base, _) = upstream(&[&answer(status, "", "not read")]).await;
        let answer = client(&base, |_| {}).get(&base, None, 1).await.unwrap();
        assert_eq!((answer.status.to_string(), answer.body.len()), (status[..3].to_owned(), 0));
    }
}

#[tokio::test]
async fn patience_ends_with_the_attempts() {
    let ill = answer("500 Internal Server Error", "", "");
    let (base, asked) = upstream(&[&ill, &ill, &ill]).await;
    let error = client(&base, |config| config.request_attempts_max = 2).get(&base, None, 10).await.unwrap_err();
    assert!(matches!(error, HttpError::Unavailable { status: 500 }), "{error:?}");
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn retry_after_is_obeyed_in_full() {
    let (base, _) = upstream(&[&answer("429 Too Many Requests", "retry-after: 1\r\n", ""), &answer("200 OK", "", "1")]).await;
    let started = Instant::now();
    client(&base, |_| {}).get(&base, None, 10).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
}

#[tokio::test]
async fn requests_keep_the_pace() {
    let good = answer("200 OK", "", "1");
    let (base, _) = upstream(&[&good, &good, &good]).await;
    let (http, started) = (client(&base, |config| config.requests_per_second_max = 10), Instant::now());
    for _ in 0..3 {
        http.get(&base, None, 10).await.unwrap();
    }
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
}

#[tokio::test]
async fn no_more_is_read_than_allowed() {
    let (base, asked) = upstream(&[&answer("200 OK", "", "12345"), &answer("200 OK", "", "123456")]).await;
    let http = client(&base, |_| {});
    assert_eq!(http.get(&base, None, 5).await.unwrap().body.len(), 5);
    let error = http.get(&base, None, 5).await.unwrap_err();
    assert!(matches!(error, HttpError::TooLarge { bytes_max: 5 }), "{error:?}");
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn a_redirect_is_followed_on_the_same_host_only() {
    let (base, asked) = upstream(&[&answer("302 Found", "location: /elsewhere\r\n", ""), &answer("200 OK", "", "1")]).await;
    assert_eq!(client(&base, |_| {}).get(&base, None, 5).await.unwrap().status, 200);
    assert!(asked.lock().unwrap()[1].starts_with("GET /elsewhere "));
    let (other, never_asked) = upstream(&[&answer("200 OK", "", "1")]).await;
    let (base, _) = upstream(&[&answer("302 Found", &format!("location: {other}\r\n"), "")]).await;
    assert_eq!(client(&base, |_| {}).get(&base, None, 5).await.unwrap().status, 302);
    assert!(never_asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_error_names_no_query() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut url = Url::parse(&format!("http://{}/api", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    url.set_query(Some("organisasjonsnummer=312345676"));
    let error = client(&url, |config| config.request_attempts_max = 1).get(&url, None, 5).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("312345676"), "{error:?}");
    assert_eq!(error.code(), "connect");
}
