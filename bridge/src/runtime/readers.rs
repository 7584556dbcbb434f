//! Readers behind the ring: each goes through one partition, and hands over when asked.
//!
//! The hub says when to open, go on and close them. What they have fetched ahead is bounded.

use std::collections::HashMap;
use std::sync::Arc;

use ryggrad_bridge_core::cursor::Place;
use ryggrad_bridge_core::hub::slots::{ReaderAction, ReaderId};
use ryggrad_bridge_core::matching::Echoes;
use ryggrad_bridge_core::record::Record;
use ryggrad_log::{Connection, Read, ReaderLimits, Start, follow};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::Topic;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

use super::tail::{REOPEN_AFTER, shared};

/// Small hand-overs: a reader serves windows, not a backlog.
const LIMITS: ReaderLimits = ReaderLimits { batch_records_max: 500, batches_waiting_max: 2, prefetch_bytes_max: 2 * 1024 * 1024 };

/// What a reader has to say.
pub(super) enum Said {
    /// What it was asked for; the log has no more for now if it is at the end.
    Chunk(ReaderId, Vec<Arc<Record>>, bool),
    /// It cannot go on.
    Lost(ReaderId),
}

/// All readers.
pub(super) struct Readers {
    connection: Connection,
    catalogue: &'static Catalogue,
    said: mpsc::Sender<Said>,
    running: HashMap<ReaderId, (Arc<Notify>, AbortHandle)>,
}

impl Readers {
    pub(super) fn new(connection: Connection, catalogue: &'static Catalogue, said: mpsc::Sender<Said>) -> Self {
        Self { connection, catalogue, said, running: HashMap::new() }
    }

    pub(super) fn obey(&mut self, action: ReaderAction) {
        match action {
            ReaderAction::Open(id, place, from) => {
                let Some(topic) = self.catalogue.topics.iter().find(|topic| topic.id == place.topic) else { return };
                let (asked, said, connection) = (Arc::new(Notify::new()), self.said.clone(), self.connection.clone());
                asked.notify_one();
                let hears = Arc::clone(&asked);
                let task = tokio::spawn(async move {
                    if let Err(error) = read(&connection, topic, place, from, id, &hears, &said).await {
                        tracing::warn!(
                            topic = topic.name,
                            partition = place.partition,
                            error = error.chain(),
                            "reading has stopped and will be taken up again"
                        );
                        // Whoever needs it asks again at once.
                        tokio::time::sleep(REOPEN_AFTER).await;
                    }
                    // Nobody listens any more when the bridge stops.
                    let _ = said.send(Said::Lost(id)).await;
                });
                self.running.insert(id, (asked, task.abort_handle()));
            }
            ReaderAction::More(id) => {
                if let Some((asked, _)) = self.running.get(&id) {
                    asked.notify_one();
                }
            }
            ReaderAction::Close(id) => {
                if let Some((_, task)) = self.running.remove(&id) {
                    task.abort();
                }
            }
        }
    }

    pub(super) fn ended(&mut self, id: ReaderId) {
        self.running.remove(&id);
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.running.values().for_each(|(_, task)| task.abort());
    }
}

async fn read(
    connection: &Connection,
    topic: &'static Topic,
    place: Place,
    from: i64,
    id: ReaderId,
    asked: &Notify,
    said: &mpsc::Sender<Said>,
) -> Result<(), ryggrad_log::Error> {
    let mut echoes = Echoes::starting_at([(place.partition, from)]);
    let mut follower = follow(connection, &topic.name, &[(place.partition, Start::Offset(from))], LIMITS)?;
    loop {
        asked.notified().await;
        let chunk = loop {
            match follower.next().await {
                Some(Read::Records(read)) => break Said::Chunk(id, shared(topic.id, read, &mut echoes), false),
                Some(Read::AtEnd { .. }) => break Said::Chunk(id, Vec::new(), true),
                Some(Read::Away { reason }) => tracing::debug!(topic = topic.name, reason, "a reader waits for Kafka"),
                Some(Read::Failed(error)) => return Err(error),
                None => return Ok(()),
            }
        };
        if said.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}
