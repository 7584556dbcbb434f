//! The one transactional publisher that writes to receivers' topics.
//!
//! Group commit: what waits when a transaction begins goes into it. Whoever has failed goes alone from then on, so that a
//! topic that cannot be written stops nobody else for long. Must never say that something is not there while it may be.

use std::time::Instant;

use ryggrad_bridge_core::access::kafka_access::OUTLETS_PUBLISHER;
use ryggrad_log::{Connection, Publisher, PublisherOptions, Remedy};
use ryggrad_schemas::EncodedRecord;
use tokio::sync::{mpsc, oneshot};

use super::Trouble;
use crate::telemetry::Telemetry;

/// Portions that may wait for the next transaction; one of each topic.
const WAITING_MAX: usize = 256;
/// Portions of one transaction: with what each may hold, a bound on its memory and its time.
const TOGETHER_MAX: usize = 16;

struct Portion {
    records: Vec<EncodedRecord>,
    is_alone: bool,
    done: oneshot::Sender<Result<(), Trouble>>,
}

/// A handle to it.
#[derive(Clone)]
pub(super) struct Writer(mpsc::Sender<Portion>);

impl Writer {
    /// Connects when it is first needed.
    pub(super) fn start(connection: Connection, telemetry: Telemetry) -> Self {
        let (portions, waiting) = mpsc::channel(WAITING_MAX);
        tokio::spawn(run(connection, telemetry, waiting));
        Self(portions)
    }

    /// When it returns, nothing that an earlier publisher has left behind comes to light any more.
    pub(super) async fn ready(&self) -> Result<(), Trouble> {
        self.write(Vec::new(), false).await
    }

    /// Writes a portion: all of it is there when it returns.
    pub(super) async fn write(&self, records: Vec<EncodedRecord>, is_alone: bool) -> Result<(), Trouble> {
        let (done, answer) = oneshot::channel();
        self.0.send(Portion { records, is_alone, done }).await.map_err(|_| Trouble::NotRunning)?;
        answer.await.map_err(|_| Trouble::NotRunning)?
    }
}

async fn run(connection: Connection, telemetry: Telemetry, mut waiting: mpsc::Receiver<Portion>) {
    let (mut publisher, mut next) = (None, None);
    loop {
        let Some(first) = (match next.take() {
            Some(first) => Some(first),
            None => waiting.recv().await,
        }) else {
            return;
        };
        let mut together = vec![first];
        while together.len() < TOGETHER_MAX && together.iter().all(|portion: &Portion| !portion.is_alone) {
            match waiting.try_recv() {
                Ok(portion) if portion.is_alone => {
                    next = Some(portion);
                    break;
                }
                Ok(portion) => together.push(portion),
                Err(_) => break,
            }
        }
        let outcome = publish(&connection, &telemetry, &mut publisher, &mut together).await;
        for portion in together {
            let told = outcome.clone();
            // Whoever is gone reads back what stands.
            let _ = portion.done.send(told);
        }
    }
}

async fn publish(
    connection: &Connection,
    telemetry: &Telemetry,
    publisher: &mut Option<Publisher>,
    together: &mut [Portion],
) -> Result<(), Trouble> {
    let records: Vec<EncodedRecord> = together.iter_mut().flat_map(|portion| std::mem::take(&mut portion.records)).collect();
    if publisher.is_none() {
        let started = Publisher::start(connection, OUTLETS_PUBLISHER, &PublisherOptions::default()).await;
        *publisher = Some(started.map_err(|error| Trouble::of(&error))?);
    }
    let Some(current) = publisher.as_ref().filter(|_| !records.is_empty()) else { return Ok(()) };
    let (began, count) = (Instant::now(), records.len());
    match current.publish(records.into(), ()).await {
        Ok(()) => {
            telemetry.outlet_transaction_seconds.observe(began.elapsed().as_secs_f64());
            telemetry.outlet_records.inc_by(count as u64);
            Ok(())
        }
        Err(error) => {
            telemetry.outlet_failures.inc();
            if error.remedy != Remedy::Abort {
                // Another one ends what is open; what has become of it is read back.
                *publisher = None;
            }
            Err(Trouble::of(&error))
        }
    }
}
