//! Numbered events: records of the catalogue's schema, as many as are wanted, each of them known
//! by its number to whoever receives it.
//!
//! Values are the simulator's; type, key and id are made up. Must never be written to a Kafka
//! that a benchmark did not start.

use std::time::{Duration, Instant};

use anyhow::Context;
use ryggrad_log::bench::BareProducer;
use ryggrad_producers::{ENHETSREGISTERET, ProducerConfig};
use ryggrad_schemas::catalogue::Topic;
use ryggrad_schemas::{Catalogue, EncodedRecord, Headers};

use super::ground::Ground;
use super::population::Population;
use super::receiver::NUMBER_HEADER;

/// Enough of them to find values of most sizes.
const TEMPLATES: usize = 200;
const SEND_TIMEOUT_MS: u64 = 600_000;
/// How often a steady publisher sends what is due.
const BEAT: Duration = Duration::from_millis(5);

/// The source of numbered events.
pub struct NumberedEvents {
    /// What is published is told by its type.
    pub ce_type: String,
    /// Where it goes.
    pub topic: &'static Topic,
    template: EncodedRecord,
    producer: BareProducer,
}

impl NumberedEvents {
    /// Events whose values have nearly that many bytes.
    pub async fn prepare(ground: &Ground, value_bytes: usize) -> anyhow::Result<Self> {
        let catalogue = Catalogue::built_in();
        let source = catalogue.source(ENHETSREGISTERET).context("the catalogue lacks Enhetsregisteret")?;
        let event_type = catalogue.event(&source.event).context("the catalogue lacks its event type")?;
        let topic = catalogue.topic(&event_type.topic).context("the catalogue lacks its topic")?;
        let config = ProducerConfig::default();
        let population = Population::fetch(source, TEMPLATES, config.page_items_max).await?;
        let (records, _) = population.records(source, event_type, config.transaction_events_max)?;
        let size = |record: &EncodedRecord| record.value.as_ref().map_or(0, Vec::len);
        let events = records.into_iter().filter(|record| record.topic == topic.name && record.value.is_some());
        let template = events.min_by_key(|record| size(record).abs_diff(value_bytes)).context("there are no events")?;
        Ok(Self { ce_type: event_type.ce_type.clone(), topic, template, producer: BareProducer::new(ground.connection())? })
    }

    /// Bytes of a record's key, value and headers, and of its value alone.
    pub fn size_bytes(&self) -> (usize, usize) {
        (self.record(&self.ce_type, 0).size_bytes(), self.template.value.as_ref().map_or(0, Vec::len))
    }

    /// The event of that number. Each has a key of its own.
    pub fn record(&self, ce_type: &str, number: u64) -> EncodedRecord {
        let number = number.to_string();
        let own = |name: &str| matches!(name, "ce_type" | "ce_id");
        let mut headers: Headers = self.template.headers.iter().filter(|(name, _)| !own(name)).collect();
        headers.push("ce_type", ce_type);
        headers.push("ce_id", &format!("bench-{number}"));
        headers.push(NUMBER_HEADER, &number);
        EncodedRecord { key: number, headers, ..self.template.clone() }
    }

    /// Publishes records as fast as it goes, as many times over as asked.
    pub async fn publish(&self, records: Vec<EncodedRecord>, times: usize) -> anyhow::Result<()> {
        self.producer.send_all(records, times, SEND_TIMEOUT_MS).await?;
        Ok(())
    }

    /// Publishes events with numbers from `first` on at a steady rate.
    pub async fn publish_steadily(&self, first: u64, count: u64, per_second: u32) -> anyhow::Result<()> {
        let (started, mut sent) = (Instant::now(), 0);
        let mut beat = tokio::time::interval(BEAT);
        while sent < count {
            beat.tick().await;
            let due = ((started.elapsed().as_secs_f64() * f64::from(per_second)) as u64).min(count);
            if due > sent {
                let records = (sent..due).map(|number| self.record(&self.ce_type, first + number)).collect();
                self.publish(records, 1).await?;
                sent = due;
            }
        }
        Ok(())
    }
}
