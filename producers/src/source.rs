//! What a registry with feeds must offer so that it can be followed, and the loop over its feeds.
//!
//! Each feed has a loop of its own, so that one that hangs does not hold up the others; all of
//! them publish through one lane.

use futures_util::future::join_all;
use ryggrad_detect::event::{Event, Unmapped};
use ryggrad_detect::feed::{Item, Page};
use ryggrad_log::{Connection, Seal};
use ryggrad_schemas::catalogue::Source;
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::error::{End, UpstreamError};
use crate::follow::FeedLoop;
use crate::lane::Lane;
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
pub trait FeedSource: Send + Sync {
    /// What an item of the feed says.
    type Change: Send + Sync;
    /// What a look-up says.
    type Answer: Send + Sync;

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

    /// Maps an item; `answer` is `None` if there was no look-up, or none that succeeded.
    fn event(&self, feed: &str, item: &Item<Self::Change>, answer: Option<&Self::Answer>) -> Result<Event, Unmapped>;
}

/// Follows all feeds of a source until `stop`, or until it can't go on.
pub async fn follow_source<S: FeedSource>(
    source: &S,
    config: &ProducerConfig,
    connection: Connection,
    seal: Seal,
    telemetry: Telemetry,
    stop: CancellationToken,
) -> Result<(), ProducerError> {
    // A loop that fails stops the others, and does not reach past this source.
    let stop = stop.child_token();
    let name = &source.source().name;
    for feed in &source.source().feeds {
        telemetry.status().feed(name, feed, FeedState::Starting);
    }
    let lane = Lane::new(connection, seal, source.source(), config, telemetry.clone(), stop.clone());
    match lane.open().await {
        Ok(()) => info!(source = %name, "source_started"),
        Err(End::Stopped) => return Ok(()),
        Err(End::Failed(error)) => return Err(error),
    }
    let loops = source.source().feeds.iter().map(|feed| async {
        let end = FeedLoop::new(source, &lane, feed, config, telemetry.clone(), stop.clone()).run().await;
        stop.cancel();
        end
    });
    let ends = join_all(loops).await;
    info!(source = %name, "source_stopped");
    ends.into_iter().find_map(|end| if let End::Failed(error) = end { Some(Err(error)) } else { None }).unwrap_or(Ok(()))
}
