//! A registry that has nothing but a dump, in a file: what the benchmark of comparisons reads.

use std::path::PathBuf;

use jiff::Timestamp;
use ryggrad_detect::enhetsregisteret::{Answer, Change, Feed, unknown};
use ryggrad_detect::event::{Event, Unmapped};
use ryggrad_detect::feed::Item;
use ryggrad_producers::{Dump, FeedSource, Fetched, SnapshotSource, UpstreamError};
use ryggrad_schemas::catalogue::{EventType, Source};

/// The registry.
pub struct DumpSource {
    source: &'static Source,
    event_type: &'static EventType,
    feed: Feed<'static>,
    file: PathBuf,
}

impl DumpSource {
    /// With this file as its dump; events go to the event type's topic.
    pub fn new(source: &Source, event_type: &EventType, file: PathBuf) -> anyhow::Result<Self> {
        // The producer's sources live as long as the program; a benchmark has a handful.
        let (source, event_type): (&'static _, &'static _) = (Box::leak(Box::new(source.clone())), Box::leak(Box::new(event_type.clone())));
        Ok(Self { source, event_type, feed: Feed::new(source, event_type, &source.feeds[0])?, file })
    }
}

impl FeedSource for DumpSource {
    type Change = Change;
    type Answer = Answer;

    fn source(&self) -> &Source {
        self.source
    }

    fn page_items_max(&self) -> usize {
        1
    }

    async fn page_after(&self, _: &str, _: u64, _: usize, _: Option<&str>) -> Result<Fetched<Change>, UpstreamError> {
        Ok(Fetched { page: None, etag: None })
    }

    async fn newest(&self, _: &str) -> Result<Option<u64>, UpstreamError> {
        Ok(None)
    }

    fn needs_look_up(&self, item: &Item<Change>) -> bool {
        Feed::needs_look_up(item)
    }

    async fn look_up(&self, _: &str, _: &str) -> Result<Answer, UpstreamError> {
        Ok(unknown())
    }

    fn repaired(&self, _: u64, _: &[u8], _: Option<&str>) -> Option<Item<Change>> {
        None
    }

    fn event(&self, _: &str, item: &Item<Change>, answer: Option<&Answer>) -> Result<Event, Unmapped> {
        self.feed.event(item, answer)
    }
}

impl SnapshotSource for DumpSource {
    type Format = Feed<'static>;

    fn topic(&self) -> &str {
        &self.event_type.topic
    }

    fn format(&self, _: &str) -> Feed<'static> {
        self.feed
    }

    async fn dump(&self, _: &str) -> Result<Dump, UpstreamError> {
        Dump::open_file(&self.file).map_err(UpstreamError::File)
    }

    async fn position_before(&self, _: &str, _: Timestamp) -> Result<Option<u64>, UpstreamError> {
        Ok(None)
    }
}
