//! Group commit: one thread writes, and everyone who waits shares its flush and fsync.
//!
//! One writer, because sled's batches take a lock that all of a process shares.

use std::collections::BTreeMap;
use std::sync::Arc;

use ryggrad_bridge_core::cursor::Place;
use tokio::sync::{mpsc, oneshot};

use crate::answers::KeptAnswer;
use crate::entry::{self, Entry, SubscriptionId};
use crate::heads::KeptHead;
use crate::open::{OpenError, Store};

/// Commits that may wait for the writer.
const QUEUE_MAX: usize = 1_024;
/// Commits that share one flush.
const GROUP_MAX: usize = 256;

/// One change to what is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Store this.
    Put(Entry),
    /// An event is no longer set aside.
    ForgetDeadLetter {
        /// Whose it was.
        subscription: SubscriptionId,
        /// Topic and partition.
        place: Place,
        /// Its offset.
        offset: i64,
    },
    /// Keep an answer for repetitions of its request.
    KeepAnswer(KeptAnswer),
    /// Keep it no longer.
    ForgetAnswer {
        /// The request's key.
        key: [u8; 32],
    },
    /// Keep where a chain stands.
    KeepHead(KeptHead),
    /// Forget this subscription altogether.
    Forget {
        /// The subscription's id.
        subscription: SubscriptionId,
    },
}

/// Why a commit did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CommitError {
    /// The store refused.
    #[error("cannot write the store")]
    Store(#[source] Arc<OpenError>),
    /// The writer has ended.
    #[error("the store's writer has ended")]
    Ended,
}

struct Job {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), CommitError>>,
}

/// A handle to the writing thread. The thread ends with the last handle.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
}

impl Writer {
    /// Starts the thread.
    pub fn start(store: Store) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel(QUEUE_MAX);
        std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || run(&store, queue))?;
        Ok(Self { jobs })
    }

    /// Applies changes, all or none, and answers when they are on disk.
    pub async fn commit(&self, changes: Vec<Change>) -> Result<(), CommitError> {
        let (done, outcome) = oneshot::channel();
        self.jobs.send(Job { changes, done }).await.map_err(|_| CommitError::Ended)?;
        outcome.await.map_err(|_| CommitError::Ended)?
    }
}

fn run(store: &Store, mut queue: mpsc::Receiver<Job>) {
    while let Some(first) = queue.blocking_recv() {
        let mut group = vec![first];
        // Whoever came while the last group was written goes with this one.
        while group.len() < GROUP_MAX
            && let Ok(next) = queue.try_recv()
        {
            group.push(next);
        }
        let outcome = write(store, &group).map_err(|error| CommitError::Store(Arc::new(error)));
        for job in group {
            // A caller that gave up has no interest in the outcome.
            let _ = job.done.send(outcome.clone());
        }
    }
}

fn write(store: &Store, group: &[Job]) -> Result<(), OpenError> {
    // In order, so that what is forgotten after it was put is forgotten.
    let mut writes: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    let (mut answers, mut heads) = (sled::Batch::default(), sled::Batch::default());
    for change in group.iter().flat_map(|job| &job.changes) {
        match change {
            Change::Put(entry) => drop(writes.insert(entry::key(entry), Some(entry::value(entry)))),
            Change::KeepAnswer(answer) => answers.insert(&answer.key, answer.value()),
            Change::ForgetAnswer { key } => answers.remove(key),
            Change::KeepHead(kept) => heads.insert(kept.key().as_str(), kept.value()),
            Change::ForgetDeadLetter { subscription, place, offset } => {
                writes.insert(entry::dead_letter_key(*subscription, *place, *offset), None);
            }
            Change::Forget { subscription } => {
                for prefix in entry::OF_SUBSCRIPTIONS.map(|kind| [&[kind][..], subscription].concat()) {
                    for found in store.state.scan_prefix(&prefix).keys() {
                        writes.insert(found?.to_vec(), None);
                    }
                    writes.iter_mut().filter(|(key, _)| key.starts_with(&prefix)).for_each(|(_, value)| *value = None);
                }
            }
        }
    }
    let mut batch = sled::Batch::default();
    for (key, value) in writes {
        match value {
            Some(value) => batch.insert(key, value),
            None => batch.remove(key),
        }
    }
    store.state.apply_batch(batch)?;
    store.answers.apply_batch(answers)?;
    store.heads.apply_batch(heads)?;
    store.sync()
}
