//! Asks upstream for the state of a chunk's keys, and makes the batch of the answers.
//!
//! Each key is asked for once, some at a time. One that fails holds the feed before its item;
//! only one that fails again and again while others succeed is set aside.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use ryggrad_detect::batch::{Batch, before_blocked};
use ryggrad_detect::decide::{LookUp, failed_look_up};
use ryggrad_detect::feed::Step;
use ryggrad_detect::position::FeedPosition;
use tracing::debug;

use crate::error::{End, UpstreamError};
use crate::follow::{Cut, FeedLoop};
use crate::source::FeedSource;

type Answers<A> = BTreeMap<String, A>;
type Outcomes<A> = Vec<(String, Result<A, UpstreamError>)>;

/// A chunk after its look-ups.
pub(crate) struct Looked<S: FeedSource> {
    /// What can be published.
    pub(crate) steps: Vec<Step<S::Change>>,
    /// Answers by key. A key whose look-up is set aside has none.
    pub(crate) answers: Answers<S::Answer>,
    /// Why the rest of the chunk can't.
    pub(crate) blocked: Option<UpstreamError>,
}

impl<S: FeedSource> FeedLoop<S> {
    pub(crate) async fn look_up(&mut self, steps: Vec<Step<S::Change>>) -> Result<Looked<S>, End> {
        let items = steps.iter().flat_map(|step| &step.items);
        let keys: BTreeSet<String> = items.filter(|item| self.source.needs_look_up(item)).map(|item| item.key.clone()).collect();
        let (mut answers, mut errors) = (Answers::new(), BTreeMap::new());
        for (key, outcome) in self.ask(keys).await? {
            match outcome {
                Ok(answer) => drop(answers.insert(key, answer)),
                Err(error) => drop(errors.insert(key, error)),
            }
        }
        self.failing.retain(|key, _| errors.contains_key(key));
        let mut waiting = BTreeMap::new();
        for (key, error) in errors {
            let failures = self.failing.entry(key.clone()).or_default();
            *failures = failures.saturating_add(1);
            if failed_look_up(*failures, self.config.look_up_failures_max, !answers.is_empty()) == LookUp::Wait {
                waiting.insert(key, error);
            }
        }
        let steps = before_blocked(steps, |item| self.source.needs_look_up(item) && waiting.contains_key(&item.key));
        Ok(Looked { steps, answers, blocked: waiting.into_values().next() })
    }

    /// Makes the batch. Keys whose answers can't be used are asked for again first: upstream may
    /// only be a moment behind its own feed.
    pub(crate) async fn batch(
        &mut self,
        base: Option<FeedPosition>,
        steps: &[Step<S::Change>],
        mut answers: Answers<S::Answer>,
    ) -> Result<Batch, Cut> {
        let mut attempts = 1;
        loop {
            let batch = Batch::assemble(base, steps, |item| self.source.event(&self.feed, item, answers.get(&item.key)));
            let doubtful: BTreeSet<String> = batch.doubtful.iter().filter(|key| answers.contains_key(*key)).cloned().collect();
            if doubtful.is_empty() || attempts >= self.config.look_up_attempts_max {
                return Ok(batch);
            }
            debug!(source = self.name(), feed = self.feed, keys = doubtful.len(), attempts, "look_ups_again");
            self.telemetry.retried(self.name(), "look-up-unusable");
            self.pause(self.config.backoff().delay_ms(attempts, 1.0)).await?;
            for (key, outcome) in self.ask(doubtful).await? {
                answers.insert(key, outcome?);
            }
            attempts += 1;
        }
    }

    async fn ask(&self, keys: BTreeSet<String>) -> Result<Outcomes<S::Answer>, End> {
        let asked = stream::iter(keys).map(|key| async move {
            let outcome = self.ask_one(&key).await;
            (key, outcome)
        });
        let outcomes: Outcomes<_> = self.until_stopped(asked.buffer_unordered(self.config.look_ups_in_flight_max).collect()).await?;
        let answered = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).count();
        self.telemetry.looked_up(self.name(), &self.feed, answered as u64, (outcomes.len() - answered) as u64);
        Ok(outcomes)
    }

    /// Asks again at once where only the answer's body was broken; the client has done so for
    /// everything else.
    async fn ask_one(&self, key: &str) -> Result<S::Answer, UpstreamError> {
        let mut attempts = 1;
        loop {
            let outcome = self.source.look_up(&self.feed, key).await;
            if attempts >= self.config.look_up_attempts_max || !matches!(outcome, Err(UpstreamError::NoDocument(_))) {
                return outcome;
            }
            self.telemetry.retried(self.name(), "no-document");
            let delay_ms = self.config.backoff().delay_ms(attempts, rand::random());
            tokio::time::sleep(Duration::from_millis(delay_ms)).await;
            attempts += 1;
        }
    }
}
