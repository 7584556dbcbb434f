//! Snapshots of a registry: when its dumps are read, and what a further registry implements.
//!
//! A feed begins with its dump, if the settings say so, and is compared with a new one on a
//! schedule. A registry whose feed is not followed has nothing but its dumps. Must never start
//! following before the dump was read to its end: what it does not show would be missing.

mod compare;
mod dump;
mod run;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ryggrad_detect::decide::Start;
use ryggrad_detect::snapshot::run::{Due, due};
use ryggrad_detect::snapshot::{Confirm, Format};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use compare::DumpError;
pub use dump::Dump;
pub(crate) use dump::Pieces;

use crate::error::{End, chain};
use crate::follow::{Cut, FeedLoop};
use crate::lane::Lane;
use crate::source::FeedSource;
use crate::status::FeedState;
use crate::{Follow, ProducerConfig, ProducerError, Telemetry, UpstreamError};

/// A registry that offers dumps of all that it holds.
pub trait SnapshotSource: FeedSource {
    /// What its dumps are like, and how a look-up confirms what they seem to show.
    type Format: Format + Confirm<Answer = Self::Answer> + Clone + Send + Sync + 'static;

    /// The topic of its events.
    fn topic(&self) -> &str;

    /// The format of a feed's dump.
    fn format(&self, feed: &str) -> Self::Format;

    /// Opens a feed's dump.
    fn dump(&self, feed: &str) -> impl Future<Output = Result<Dump, UpstreamError>> + Send;

    /// The last position of a feed before a moment; `None` if the feed has nothing after it.
    fn position_before(&self, feed: &str, moment: Timestamp) -> impl Future<Output = Result<Option<u64>, UpstreamError>> + Send;
}

/// How far to trust what a dump does not show, and how its rows become events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Rows are published as they are; what the feed has told since the dump is left alone.
    Direct,
    /// Every difference is confirmed by a look-up, after the feed has had time to tell.
    Confirm,
}

pub(crate) struct SnapshotLoop<S> {
    source: Arc<S>,
    lane: Arc<Lane>,
    feed: String,
    config: ProducerConfig,
    telemetry: Telemetry,
    stop: CancellationToken,
    failures: u32,
    /// Whether the feed is followed at the same time; then its loop tells how it stands.
    beside_feed: bool,
}

impl<S: SnapshotSource> SnapshotLoop<S> {
    pub(crate) fn new(
        source: &Arc<S>,
        lane: &Arc<Lane>,
        feed: String,
        config: &ProducerConfig,
        telemetry: Telemetry,
        stop: CancellationToken,
    ) -> Self {
        Self {
            source: Arc::clone(source),
            lane: Arc::clone(lane),
            feed,
            config: config.clone(),
            telemetry,
            stop,
            failures: 0,
            beside_feed: false,
        }
    }

    /// All that a feed and its dumps need, until the end.
    pub(crate) async fn run(mut self) -> End {
        if self.config.follow == Follow::Snapshots {
            return self.on_schedule(Kind::Direct).await;
        }
        if self.config.start.0 == Start::Snapshot
            && let Err(end) = self.bootstrap().await
        {
            return end;
        }
        let (source, lane, config) = (&self.source, &self.lane, &self.config);
        let following = FeedLoop::new(source, lane, self.feed.clone(), config, self.telemetry.clone(), self.stop.clone());
        let mut comparing = Self::new(source, lane, self.feed.clone(), config, self.telemetry.clone(), self.stop.clone());
        comparing.beside_feed = true;
        tokio::select! {
            end = following.run() => end,
            end = comparing.on_schedule(Kind::Confirm) => end,
        }
    }

    /// Reads the dump to its end once, however often it takes.
    async fn bootstrap(&mut self) -> Result<(), End> {
        while self.lane.completed(&self.feed).is_none() {
            self.attempt(Kind::Direct).await?;
        }
        Ok(())
    }

    async fn on_schedule(mut self, kind: Kind) -> End {
        loop {
            let interval_ms = self.config.snapshot.interval_ms;
            let completed = self.lane.completed(&self.feed);
            // Asking for each unit of a whole registry would take days.
            let kind = if completed.is_none() { Kind::Direct } else { kind };
            let waited = match due(completed, Timestamp::now().as_millisecond(), interval_ms) {
                // A feed that began without its dump is compared with one only where that is asked for.
                Some(Due::Bootstrap) if self.config.follows_feeds() => self.wait(None).await,
                Some(Due::Bootstrap | Due::Now) => Ok(()),
                Some(Due::In(_)) | None if self.config.once => Ok(()),
                Some(Due::In(left_ms)) => self.wait(Some(left_ms)).await,
                None => self.wait(None).await,
            };
            let result = match waited {
                Ok(()) => self.attempt(kind).await,
                Err(end) => Err(end),
            };
            if let Err(end) = result {
                return end;
            }
        }
    }

    /// Until it is time, or a comparison is asked for.
    async fn wait(&self, left_ms: Option<u64>) -> Result<(), End> {
        let time = async {
            match left_ms {
                Some(left_ms) => tokio::time::sleep(Duration::from_millis(left_ms)).await,
                None => std::future::pending().await,
            }
        };
        let crossing = self.lane.crossing(&self.feed);
        self.until_stopped(async {
            tokio::select! {
                () = time => {}
                () = crossing.comparison_wanted() => {}
            }
        })
        .await
    }

    /// One run, and a pause if it fails.
    async fn attempt(&mut self, kind: Kind) -> Result<(), End> {
        let error = match self.run_once(kind).await {
            Ok(()) => {
                self.failures = 0;
                return if self.config.once { Err(End::Stopped) } else { Ok(()) };
            }
            Err(Cut::End(end)) => return Err(end),
            Err(Cut::Upstream(error)) => error,
        };
        self.failures = self.failures.saturating_add(1);
        let (name, code, reason) = (&self.source.source().name, error.code(), chain(&error));
        self.telemetry.retried(name, &code);
        warn!(source = %name, feed = %self.feed, failures = self.failures, %code, %reason, "snapshot_trouble");
        if self.config.once {
            return Err(ProducerError::Snapshot { feed: self.feed.clone(), source: Box::new(error) }.into());
        }
        self.state(FeedState::UpstreamTrouble(reason));
        let delay_ms = self.config.backoff().delay_ms(self.failures, rand::random());
        self.until_stopped(tokio::time::sleep(Duration::from_millis(delay_ms))).await
    }

    fn state(&self, state: FeedState) {
        if !self.beside_feed {
            self.telemetry.status().feed(&self.source.source().name, &self.feed, state);
        }
    }

    async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        self.stop.run_until_cancelled(work).await.ok_or(End::Stopped)
    }

    fn tell_end(&self, rows: u64, events: u64) {
        info!(source = %self.source.source().name, feed = %self.feed, rows, events, "snapshot_complete");
    }
}
