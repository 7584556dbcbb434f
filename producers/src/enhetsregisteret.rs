//! Enhetsregisteret as a source: its addresses and statuses.
//!
//! What an answer means is read in `ryggrad-detect`. Must never page by number: upstream cuts
//! its window at 10 000 items, while ids go on for ever.

use std::time::Duration;

use jiff::Timestamp;
use ryggrad_detect::enhetsregisteret::{Answer, Change, Feed, document_list, gone, read_document, read_page, repaired, unknown};
use ryggrad_detect::event::{Event, Unmapped};
use ryggrad_detect::feed::{Item, greatest_position};
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::{EventType, Source};
use url::Url;

use crate::config::{PAGE_ITEMS_MAX, SnapshotConfig};
use crate::error::UpstreamError;
use crate::http::{DownloadTimeouts, Http};
use crate::snapshot::{Dump, Pieces, SnapshotSource};
use crate::source::{FeedSource, Fetched};
use crate::{ProducerConfig, ProducerError, Telemetry};

/// Its name in the catalogue, and its transactional id.
pub const NAME: &str = "enhetsregisteret";

/// The registry at one address.
pub struct Enhetsregisteret {
    http: Http,
    base: Url,
    enheter: Feed<'static>,
    underenheter: Feed<'static>,
    source: &'static Source,
    topic: &'static str,
    snapshot: SnapshotConfig,
    page_bytes_max: usize,
    document_bytes_max: usize,
}

impl Enhetsregisteret {
    /// The registry that the settings point to.
    pub fn new(config: &ProducerConfig, telemetry: Telemetry) -> Result<Self, ProducerError> {
        let base = config.check()?;
        let (source, event_type) = catalogued()?;
        for feed in &source.feeds {
            Feed::new(source, event_type, feed)?;
        }
        Ok(Self {
            http: Http::new(config, &base, NAME, telemetry)?,
            base,
            enheter: Feed::new(source, event_type, "enheter")?,
            underenheter: Feed::new(source, event_type, "underenheter")?,
            source,
            topic: &event_type.topic,
            snapshot: config.snapshot.clone(),
            page_bytes_max: config.response_bytes_max,
            document_bytes_max: config.document_bytes_max,
        })
    }

    fn feed(&self, name: &str) -> &Feed<'static> {
        // Names come from the catalogue, which was compared at the start.
        if name == "underenheter" { &self.underenheter } else { &self.enheter }
    }

    fn updates(&self, feed: &str, parameters: &[(&str, &str)]) -> Url {
        let mut url = below(&self.base, &["oppdateringer", feed]);
        url.query_pairs_mut().extend_pairs(parameters);
        url
    }

    async fn page(&self, feed: &str, url: &Url, etag: Option<&str>) -> Result<Fetched<Change>, UpstreamError> {
        let answer = self.http.get(url, etag, self.page_bytes_max).await?;
        let page = match answer.status {
            200 => Some(read_page(self.feed(feed).virksomhetstype(), &answer.body)?),
            304 => None,
            status => return Err(UpstreamError::Status { status, question: "page of updates" }),
        };
        Ok(Fetched { page, etag: answer.etag })
    }
}

impl SnapshotSource for Enhetsregisteret {
    type Format = Feed<'static>;

    fn topic(&self) -> &str {
        self.topic
    }

    fn format(&self, feed: &str) -> Feed<'static> {
        *self.feed(feed)
    }

    async fn dump(&self, feed: &str) -> Result<Dump, UpstreamError> {
        let list = document_list(self.feed(feed).virksomhetstype());
        let url = match self.snapshot.addresses.get(feed) {
            // It was read once when the settings were checked.
            Some(address) => Url::parse(address).map_err(|_| UpstreamError::Status { status: 0, question: "dump" })?,
            None => below(&self.base, &[list, "lastned"]),
        };
        if let Ok(path) = url.to_file_path() {
            return Dump::open_file(&path).map_err(UpstreamError::File);
        }
        let timeouts = DownloadTimeouts {
            stall: Duration::from_millis(self.snapshot.stall_timeout_ms),
            whole: Duration::from_millis(self.snapshot.dump_timeout_ms),
        };
        let download = self.http.download(&url, timeouts).await?;
        match download.status {
            200 => Ok(Dump {
                taken_at_ms: download.last_modified.map(Timestamp::as_millisecond),
                bytes: Box::new(Pieces::new(download.pieces)),
            }),
            status => Err(UpstreamError::Status { status, question: "dump" }),
        }
    }

    async fn position_before(&self, feed: &str, moment: Timestamp) -> Result<Option<u64>, UpstreamError> {
        let dato = moment.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string();
        let url = self.updates(feed, &[("dato", &dato), ("page", "0"), ("size", "1"), ("sort", "id,ASC")]);
        let fetched = self.page(feed, &url, None).await?;
        Ok(fetched.page.as_ref().and_then(greatest_position).map(|first| first.saturating_sub(1)))
    }
}

fn catalogued() -> Result<(&'static Source, &'static EventType), ProducerError> {
    let catalogue = Catalogue::built_in();
    let source = catalogue.source(NAME);
    let event_type = source.and_then(|source| catalogue.event(&source.event));
    source.zip(event_type).ok_or_else(|| ProducerError::NoSource { source_name: NAME.to_owned() })
}

fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    // Only addresses without a host have no path, and those are refused at the start.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
    url
}

impl FeedSource for Enhetsregisteret {
    type Change = Change;
    type Answer = Answer;

    fn source(&self) -> &Source {
        self.source
    }

    fn page_items_max(&self) -> usize {
        PAGE_ITEMS_MAX
    }

    async fn page_after(&self, feed: &str, after: u64, items_max: usize, etag: Option<&str>) -> Result<Fetched<Change>, UpstreamError> {
        // Upstream's id is inclusive.
        let (first, size) = (after.saturating_add(1).to_string(), items_max.to_string());
        let parameters =
            [("oppdateringsid", first.as_str()), ("includeChanges", "true"), ("page", "0"), ("size", &size), ("sort", "id,ASC")];
        self.page(feed, &self.updates(feed, &parameters), etag).await
    }

    async fn newest(&self, feed: &str) -> Result<Option<u64>, UpstreamError> {
        let url = self.updates(feed, &[("page", "0"), ("size", "1"), ("sort", "id,DESC")]);
        let fetched = self.page(feed, &url, None).await?;
        Ok(fetched.page.as_ref().and_then(greatest_position))
    }

    fn needs_look_up(&self, item: &Item<Change>) -> bool {
        Feed::needs_look_up(item)
    }

    async fn look_up(&self, feed: &str, key: &str) -> Result<Answer, UpstreamError> {
        let list = document_list(self.feed(feed).virksomhetstype());
        let answer = self.http.get(&below(&self.base, &[list, key]), None, self.document_bytes_max).await?;
        match answer.status {
            200 => Ok(read_document(key, &answer.body)?),
            410 => Ok(gone()),
            404 => Ok(unknown()),
            status => Err(UpstreamError::Status { status, question: "look-up" }),
        }
    }

    fn repaired(&self, position: u64, raw: &[u8], key: Option<&str>) -> Option<Item<Change>> {
        repaired(position, raw, key)
    }

    fn event(&self, feed: &str, item: &Item<Change>, answer: Option<&Answer>) -> Result<Event, Unmapped> {
        self.feed(feed).event(item, answer)
    }
}
