//! What the broker acknowledged stays, though it is killed. Everything else stands on this.

use ryggrad_log::{Publisher, PublisherOptions, read_to_end, topics};
use ryggrad_schemas::catalogue::topics::SOURCE_POSITIONS;
use ryggrad_schemas::{Catalogue, EncodedRecord};
use ryggrad_tests::broker;

fn record(value: &str) -> EncodedRecord {
    EncodedRecord {
        topic: SOURCE_POSITIONS.to_owned(),
        partition: Some(0),
        key: "test/feed".to_owned(),
        value: Some(value.as_bytes().to_vec()),
        headers: [("what", "position")].into_iter().collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transactional_record_survives_a_sigkill_of_the_broker() {
    let (mut broker, _folder) = broker::own().await;
    let connection = broker.connection();
    let topic = Catalogue::built_in().topic(SOURCE_POSITIONS).unwrap().clone();
    topics::ensure(&connection, std::slice::from_ref(&topic), 1).await.unwrap();

    let options = PublisherOptions::default();
    let publisher = Publisher::start(&connection, "survivor", &options).await.unwrap();
    publisher.publish([record("1"), record("2")].into(), ()).await.unwrap();

    broker.kill();
    broker.restart().await.unwrap();

    let values = |records: Vec<ryggrad_schemas::LogRecord>| -> Vec<String> {
        records.into_iter().map(|record| String::from_utf8(record.value.unwrap()).unwrap()).collect()
    };
    let read = read_to_end(&connection, SOURCE_POSITIONS, 0, 10, 30_000).await.unwrap();
    assert_eq!(read[0].header("what"), Some("position"));
    assert_eq!(values(read), ["1", "2"]);

    // The same publisher goes on, and a newer one of the same id fences it.
    publisher.publish([record("3")].into(), ()).await.unwrap();
    let newer = Publisher::start(&connection, "survivor", &options).await.unwrap();
    let fenced = publisher.publish([record("never")].into(), ()).await.unwrap_err();
    assert_eq!(fenced.remedy, ryggrad_log::Remedy::Die, "{}", fenced.chain());
    newer.publish([record("4")].into(), ()).await.unwrap();
    let read = read_to_end(&connection, SOURCE_POSITIONS, 0, 10, 30_000).await.unwrap();
    assert_eq!(values(read), ["1", "2", "3", "4"]);
}
