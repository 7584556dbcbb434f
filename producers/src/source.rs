//! What a registry with feeds must offer so that it can be followed, and the loop over its feeds.
//!
//! Each feed has a task of its own, so that one that hangs does not hold up the others and all
//! processors have work; all of them publish through one lane.

use std::sync::Arc;

use ryggrad_detect::event::{Event, Unmapped};
use ryggrad_detect::feed::{Item, Page};
use ryggrad_log::{Connection, Seal};
use ryggrad_schemas::catalogue::Source;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::commands::Commands;
use crate::error::{End, UpstreamError};
use crate::follow::FeedLoop;
use crate::lane::Lane;
use crate::roll;
use crate::snapshot::{SnapshotLoop, SnapshotSource};
use crate::status::FeedState;
use crate::{ProducerConfig, ProducerError, Telemetry};

/// The answer to the question for a page.
#[derive(Debug)]
pub struct Fetched<C> {
    /// The page; `None` if nothing changed since the ETag.
    pub page: Option<Page<C>>,
    /// The page's ETag.
    pub etag: Option<String>,
}

/// A registry that numbers its changes and gives the present state by key.
pub trait FeedSource: Send + Sync + 'static {
    /// What an item of the feed says.
    type Change: Send + Sync + 'static;
    /// What a look-up says.
    type Answer: Send + Sync + 'static;

    /// Its entry in the catalogue.
    fn source(&self) -> &Source;

    /// The most items that upstream puts in one page.
    fn page_items_max(&self) -> usize;

    /// The page of items after a position.
    fn page_after(
        &self,
        feed: &str,
        after: u64,
        items_max: usize,
        etag: Option<&str>,
    ) -> impl Future<Output = Result<Fetched<Self::Change>, UpstreamError>> + Send;

    /// The newest id in a feed; `None` if it is empty.
    fn newest(&self, feed: &str) -> impl Future<Output = Result<Option<u64>, UpstreamError>> + Send;

    /// Whether an item's key must be looked up.
    fn needs_look_up(&self, item: &Item<Self::Change>) -> bool;

    /// The present state of a key.
    fn look_up(&self, feed: &str, key: &str) -> impl Future<Output = Result<Self::Answer, UpstreamError>> + Send;

    /// What was set aside at a position, as an item again: its own bytes if they are those of an
    /// item, and the key that someone knows. `None` if there is no key.
    fn repaired(&self, position: u64, raw: &[u8], key: Option<&str>) -> Option<Item<Self::Change>>;

    /// Maps an item; `answer` is `None` if there was no look-up, or none that succeeded.
    fn event(&self, feed: &str, item: &Item<Self::Change>, answer: Option<&Self::Answer>) -> Result<Event, Unmapped>;
}

/// Follows all feeds of a source until `stop`, or until it can't go on.
pub async fn follow_source<S: FeedSource>(
    source: Arc<S>,
    config: &ProducerConfig,
    connection: Connection,
    seal: Seal,
    telemetry: Telemetry,
    stop: CancellationToken,
) -> Result<(), ProducerError> {
    let stop = stop.child_token();
    let house = Housekeeping::new(source, config, connection, seal, &telemetry, &stop);
    let following = |feed| FeedLoop::new(&house.source, &house.lane, feed, config, telemetry.clone(), stop.clone()).run();
    through(&house, &telemetry, &stop, following).await
}

/// The same for a source with dumps: what the settings say of them is done too.
pub async fn follow_with_snapshots<S: SnapshotSource>(
    source: Arc<S>,
    config: &ProducerConfig,
    connection: Connection,
    seal: Seal,
    telemetry: Telemetry,
    stop: CancellationToken,
) -> Result<(), ProducerError> {
    let stop = stop.child_token();
    let house = Housekeeping::new(source, config, connection, seal, &telemetry, &stop);
    let following = |feed| SnapshotLoop::new(&house.source, &house.lane, feed, config, telemetry.clone(), stop.clone()).run();
    through(&house, &telemetry, &stop, following).await
}

/// What is done beside the feeds.
struct Housekeeping<S> {
    lane: Arc<Lane>,
    source: Arc<S>,
    seal: Seal,
    roll_interval_ms: u64,
}

impl<S: FeedSource> Housekeeping<S> {
    fn new(
        source: Arc<S>,
        config: &ProducerConfig,
        connection: Connection,
        seal: Seal,
        telemetry: &Telemetry,
        stop: &CancellationToken,
    ) -> Self {
        let lane = Arc::new(Lane::new(connection, seal.clone(), source.source(), config, telemetry.clone(), stop.clone()));
        Self { lane, source, seal, roll_interval_ms: config.roll_interval_ms }
    }

    /// Ends only when the lane can't go on.
    async fn run(&self) -> End {
        let commands = Commands { source: &*self.source, lane: &self.lane, seal: &self.seal };
        tokio::select! {
            end = roll::run(&self.lane, self.source.source(), self.roll_interval_ms) => end,
            end = commands.run() => end,
        }
    }
}

/// Opens the lane and runs the feeds' loops, each as a task, until one fails, all have ended, or
/// they are told to.
async fn through<S: FeedSource, L: Future<Output = End> + Send + 'static>(
    house: &Housekeeping<S>,
    telemetry: &Telemetry,
    stop: &CancellationToken,
    following: impl Fn(String) -> L,
) -> Result<(), ProducerError> {
    let source = house.source.source();
    for feed in &source.feeds {
        telemetry.status().feed(&source.name, feed, FeedState::Starting);
    }
    match house.lane.open().await {
        Ok(()) => info!(source = %source.name, "source_started"),
        Err(End::Stopped) => return Ok(()),
        Err(End::Failed(error)) => return Err(error),
    }
    // Whoever drops this future ends the loops as well.
    let mut running = JoinSet::new();
    for feed in &source.feeds {
        running.spawn(following(feed.clone()));
    }
    let mut failed = None;
    let mut keeping = std::pin::pin!(house.run());
    let mut keeps = true;
    loop {
        let end = tokio::select! {
            ended = running.join_next() => match ended {
                None => break,
                Some(Ok(end)) => end,
                Some(Err(join)) => match join.try_into_panic() {
                    Ok(panic) => std::panic::resume_unwind(panic),
                    Err(_) => End::Stopped,
                },
            },
            end = &mut keeping, if keeps => {
                keeps = false;
                end
            }
        };
        // One that fails stops the others, and does not reach past this source.
        if let End::Failed(error) = end {
            stop.cancel();
            failed = failed.or(Some(error));
        }
    }
    info!(source = %source.name, "source_stopped");
    failed.map_or(Ok(()), Err)
}
