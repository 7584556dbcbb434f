//! Without a broker a producer waits, says so, and still stops when asked to.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::time::Duration;

use prometheus_client::registry::Registry;
use ryggrad_log::{Connection, Seal};
use ryggrad_producers::{ProducerConfig, ProducerError, Telemetry, run};
use tokio_util::sync::CancellationToken;

fn config() -> ProducerConfig {
    ProducerConfig { base_url: "http://127.0.0.1:1/api".to_owned(), operation_timeout_ms: 1_000, ..ProducerConfig::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_waits_for_its_broker_and_stops_meanwhile() {
    let telemetry = Telemetry::register(&mut Registry::default());
    let (stop, mut health) = (CancellationToken::new(), telemetry.status().subscribe());
    let producer = tokio::spawn(run(config(), Connection::new("127.0.0.1:1"), Seal::new(&[7; 32]), telemetry, stop.clone()));
    let told = health.wait_for(|health| health.log_trouble.contains_key("enhetsregisteret"));
    tokio::time::timeout(Duration::from_secs(20), told).await.unwrap().unwrap();
    assert!(!producer.is_finished());
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(5), producer).await.unwrap().unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waiting_would_not_help_is_an_error_at_once() {
    let telemetry = Telemetry::register(&mut Registry::default());
    let mut connection = Connection::new("127.0.0.1:1");
    connection.settings.insert("no.such.setting".to_owned(), "1".to_owned());
    let (seal, stop) = (Seal::new(&[7; 32]), CancellationToken::new());
    let error = run(config(), connection.clone(), seal.clone(), telemetry.clone(), stop.clone()).await.unwrap_err();
    assert!(matches!(error, ProducerError::Log(_)), "{error:?}");
    let config = ProducerConfig { page_items_max: 0, ..config() };
    let error = run(config, connection, seal, telemetry, stop).await.unwrap_err();
    assert!(matches!(error, ProducerError::Config { .. }), "{error:?}");
}
