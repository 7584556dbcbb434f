//! Measurements put straight into the trial's topic, without end where that is wished: the test knows each of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ryggrad_log::{Connection, Publisher, PublisherOptions};
use ryggrad_schemas::cloudevents::AVRO;
use ryggrad_schemas::proeve::{ProeveMaaling, event_type};
use ryggrad_schemas::{EncodedRecord, avro};
use tokio::task::JoinHandle;

use crate::channels::now_ms;
use crate::wait;

/// The topic.
pub const TOPIC: &str = "proeve.maaling.v1";

/// A measurement that was published.
#[derive(Debug, Clone)]
pub struct Measured {
    /// The event's id.
    pub id: String,
    /// Of whom.
    pub patient: String,
    /// Before it was sent to Kafka, and once that was answered: milliseconds since 1970.
    pub at_ms: (i64, i64),
}

/// Publishes for one controller.
pub struct Measurements {
    publisher: Publisher,
    controller: String,
    count: u64,
}

impl Measurements {
    /// A publisher; the topic is the bridge's to make.
    pub async fn start(connection: &Connection, controller: &str) -> Self {
        let publisher = Publisher::start(connection, "test-measurements", &PublisherOptions::default()).await.expect("a publisher");
        Self { publisher, controller: controller.to_owned(), count: 0 }
    }

    /// One measurement of each patient, in one transaction.
    pub async fn publish(&mut self, patients: &[&str]) -> Vec<Measured> {
        let (mut records, mut published, began_ms) = (Vec::new(), Vec::new(), now_ms());
        for patient in patients {
            self.count += 1;
            let maaling = ProeveMaaling {
                pasient: (*patient).to_owned(),
                maaling_id: format!("m{}", self.count),
                tidspunkt: jiff::Timestamp::now().to_string(),
                maalingstype: "puls".to_owned(),
                verdi: 60.5,
                enhet: "/min".to_owned(),
                kommentar: Some("hvile".to_owned()),
            };
            let attributes = maaling.attributes(self.controller.parse().expect("an organisation number"));
            records.push(EncodedRecord {
                topic: event_type().expect("in the catalogue").topic.clone(),
                partition: None,
                key: maaling.pasient.clone(),
                value: Some(avro::encode(&maaling).expect("it fits the schema")),
                headers: attributes.to_headers(AVRO),
            });
            published.push(Measured { id: attributes.id, patient: maaling.pasient, at_ms: (began_ms, 0) });
        }
        self.publisher.publish(records.into(), ()).await.expect("published");
        let ended_ms = now_ms();
        published.iter_mut().for_each(|one| one.at_ms.1 = ended_ms);
        published
    }

    /// Publishes until it is told to end.
    pub fn without_end(mut self, patients: &'static [&'static str], pace_ms: u64) -> Load {
        let goes_on = Arc::new(AtomicBool::new(true));
        let more = Arc::clone(&goes_on);
        let task = tokio::spawn(async move {
            let mut published = Vec::new();
            while more.load(Ordering::Relaxed) {
                published.extend(self.publish(patients).await);
                // The pace is the point: receivers are to keep up.
                wait::random_moment(pace_ms).await;
            }
            published
        });
        Load { goes_on, task }
    }
}

/// Somebody who publishes.
pub struct Load {
    goes_on: Arc<AtomicBool>,
    task: JoinHandle<Vec<Measured>>,
}

impl Load {
    /// Ends it; what was published.
    pub async fn end(self) -> Vec<Measured> {
        self.goes_on.store(false, Ordering::Relaxed);
        self.task.await.expect("it has ended by itself")
    }
}
