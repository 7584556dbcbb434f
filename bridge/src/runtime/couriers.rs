//! The tasks that make attempts: as many as there were ever attempts at the same time, each used again.
//!
//! An attempt in a task of its own would pay for the task, its memory and its timers. The gate bounds
//! how many there are. Must never give a courier a second attempt before its first has ended.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::Context;
use super::attempt::{Ended, Job, Tools};

/// Names a courier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CourierId(usize);

/// All couriers.
pub(super) struct Couriers {
    context: Arc<Context>,
    ended: mpsc::Sender<(CourierId, Ended)>,
    jobs: Vec<mpsc::Sender<Job>>,
    /// Those at rest; who came back last goes first, since its memory is warm.
    resting: Vec<CourierId>,
}

impl Couriers {
    pub(super) fn new(context: Arc<Context>, ended: mpsc::Sender<(CourierId, Ended)>) -> Self {
        Self { context, ended, jobs: Vec::new(), resting: Vec::new() }
    }

    /// Has an attempt made.
    pub(super) fn send(&mut self, job: Job) {
        let id = self.resting.pop().unwrap_or_else(|| self.hire());
        // Whoever rests has room for one, and ends only with the bridge.
        let _ = self.jobs.get(id.0).map(|jobs| jobs.try_send(job));
    }

    /// It has told how its attempt ended.
    pub(super) fn is_back(&mut self, id: CourierId) {
        self.resting.push(id);
    }

    fn hire(&mut self) -> CourierId {
        let (id, (jobs, mut waiting)) = (CourierId(self.jobs.len()), mpsc::channel::<Job>(1));
        let (context, ended) = (Arc::clone(&self.context), self.ended.clone());
        tokio::spawn(async move {
            let mut tools = Tools::default();
            while let Some(job) = waiting.recv().await {
                // Nobody waits for it when the bridge has stopped.
                let _ = ended.send((id, job.run(&context, &mut tools).await)).await;
            }
        });
        self.jobs.push(jobs);
        id
    }
}
