//! The loop over one feed: page, look-ups, batch, transaction, again.
//!
//! Decisions are made in `ryggrad-detect`; this waits, asks and counts. Promises: look-ups come
//! after the page that caused them, so no state is older than its position; a position moves
//! only with a committed batch; trouble upstream is retried for ever and never taken for an end.

use std::collections::BTreeMap;
use std::time::Duration;

use ryggrad_detect::batch::Batch;
use ryggrad_detect::decide::{Opening, newest_as_start, opening, upstream_is_behind};
use ryggrad_detect::feed::{self, PageFault};
use ryggrad_detect::position::FeedPosition;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::error::{End, UpstreamError, chain};
use crate::lane::{Lane, Published};
use crate::look_ups::Looked;
use crate::source::FeedSource;
use crate::status::FeedState;
use crate::{ProducerConfig, Telemetry};

/// After how many questions that brought nothing upstream's newest id is compared again. It
/// shows a reset that would otherwise look like silence.
const COMPARE_AFTER_QUIET_TURNS: u32 = 60;

/// Why a turn was cut short.
pub(crate) enum Cut {
    Upstream(UpstreamError),
    End(End),
}

impl From<End> for Cut {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

impl<E: Into<UpstreamError>> From<E> for Cut {
    fn from(error: E) -> Self {
        Self::Upstream(error.into())
    }
}

enum Turn {
    /// There is more at once.
    More,
    /// Read to the end for now.
    CaughtUp,
}

/// Where a turn begins.
struct Opened {
    /// The stored position, on top of which a batch may be published.
    base: Option<FeedPosition>,
    /// The id to read after.
    after: u64,
}

pub(crate) struct FeedLoop<'a, S> {
    pub(crate) source: &'a S,
    pub(crate) lane: &'a Lane,
    pub(crate) feed: &'a str,
    pub(crate) config: &'a ProducerConfig,
    pub(crate) telemetry: Telemetry,
    stop: CancellationToken,
    /// The ETag of a page that brought nothing, with the position it was asked after. Other
    /// pages have none: should their batch fail, they must be sent again.
    quiet_page: Option<(u64, String)>,
    /// Ask for the largest page, since a normal one was full of items without ids.
    wide: bool,
    compared: bool,
    behind: Option<FeedState>,
    quiet_turns: u32,
    empty_answers: u32,
    failures: u32,
    /// Keys whose look-ups fail, with the failures in a row.
    pub(crate) failing: BTreeMap<String, u32>,
}

impl<'a, S: FeedSource> FeedLoop<'a, S> {
    pub(crate) fn new(
        source: &'a S,
        lane: &'a Lane,
        feed: &'a str,
        config: &'a ProducerConfig,
        telemetry: Telemetry,
        stop: CancellationToken,
    ) -> Self {
        Self {
            source,
            lane,
            feed,
            config,
            telemetry,
            stop,
            quiet_page: None,
            wide: false,
            compared: false,
            behind: None,
            quiet_turns: 0,
            empty_answers: 0,
            failures: 0,
            failing: BTreeMap::new(),
        }
    }

    pub(crate) fn name(&self) -> &'a str {
        &self.source.source().name
    }

    pub(crate) async fn run(mut self) -> End {
        loop {
            let pause_ms = match self.turn().await {
                Ok(turn) => self.went_well(&turn),
                Err(Cut::Upstream(error)) => self.went_wrong(&error),
                Err(Cut::End(end)) => return end,
            };
            if let Err(end) = self.pause(pause_ms).await {
                return end;
            }
        }
    }

    fn went_well(&mut self, turn: &Turn) -> u64 {
        if self.failures > 0 {
            info!(source = self.name(), feed = self.feed, "upstream_recovered");
        }
        self.failures = 0;
        self.telemetry.succeeded(self.name(), self.feed);
        let (state, pause_ms) = match turn {
            Turn::More => (FeedState::CatchingUp, 0),
            Turn::CaughtUp => (FeedState::Following, self.config.poll_interval_ms),
        };
        self.state(self.behind.clone().unwrap_or(state));
        pause_ms
    }

    fn went_wrong(&mut self, error: &UpstreamError) -> u64 {
        self.failures = self.failures.saturating_add(1);
        let (code, reason) = (error.code(), chain(error));
        self.telemetry.retried(self.name(), &code);
        warn!(source = self.name(), feed = self.feed, failures = self.failures, %code, %reason, "upstream_trouble");
        let went_backwards = matches!(error, UpstreamError::Page(PageFault::WentBackwards { .. }));
        // Known already, and for a better reason.
        let behind = self.behind.clone().filter(|_| went_backwards);
        self.state(behind.unwrap_or(FeedState::UpstreamTrouble(reason)));
        self.config.backoff().delay_ms(self.failures, rand::random())
    }

    fn state(&self, state: FeedState) {
        self.telemetry.status().feed(self.name(), self.feed, state);
    }

    async fn turn(&mut self) -> Result<Turn, Cut> {
        let Some(Opened { mut base, after }) = self.open().await? else { return Ok(Turn::CaughtUp) };
        let items_max = if self.wide { self.source.page_items_max() } else { self.config.page_items_max };
        let etag = self.quiet_page.as_ref().filter(|(position, _)| *position == after).map(|(_, etag)| etag.as_str());
        let fetched = self.until_stopped(self.source.page_after(self.feed, after, items_max, etag)).await??;
        let Some(page) = fetched.page else { return Ok(self.quiet()) };
        let (entries, total_items) = (page.entries.len(), page.total_items);
        let arranged = match feed::arrange(page, after, items_max) {
            Ok(arranged) => arranged,
            Err(fault) => {
                self.wide |= matches!(fault, PageFault::NoPositions { .. });
                return Err(fault.into());
            }
        };
        self.wide = false;
        self.telemetry.dropped(self.name(), self.feed, arranged.overlap_items, arranged.duplicate_items);
        if arranged.waiting_items > 0 {
            warn!(source = self.name(), feed = self.feed, items = arranged.waiting_items, "items_without_id_wait_for_a_later_one");
        }
        let mut remaining_items = total_items.unwrap_or_default().saturating_sub(arranged.overlap_items);
        self.telemetry.remaining(self.name(), self.feed, remaining_items, arranged.waiting_items);
        if arranged.steps.is_empty() {
            self.quiet_page = fetched.etag.map(|etag| (after, etag));
            return Ok(self.quiet());
        }
        (self.behind, self.quiet_turns) = (None, 0);
        let waiting_items = arranged.waiting_items;
        for chunk in feed::chunks(arranged.steps, self.config.transaction_events_max) {
            let items: usize = chunk.iter().map(|step| step.items.len() + step.quarantined.len()).sum();
            match self.publish(base, chunk).await? {
                Some(committed) => base = Some(committed),
                None => return Ok(Turn::More),
            }
            remaining_items = remaining_items.saturating_sub(items as u64);
            self.telemetry.remaining(self.name(), self.feed, remaining_items, waiting_items);
        }
        Ok(if entries >= items_max { Turn::More } else { Turn::CaughtUp })
    }

    /// Looks up and publishes one chunk on top of `base`; what can't be looked up now stays, with
    /// all that follows. `None` if the stored position is another one.
    async fn publish(&mut self, base: Option<FeedPosition>, chunk: Vec<feed::Step<S::Change>>) -> Result<Option<FeedPosition>, Cut> {
        let Looked { steps, answers, blocked } = self.look_up(chunk).await?;
        let mut committed = base;
        if !steps.is_empty() {
            let batch = self.batch(base, &steps, answers).await?;
            match self.lane.publish(self.feed, &batch).await? {
                Published::Committed => (committed, self.failures) = (Some(batch.next), 0),
                Published::Void => return Ok(None),
            }
        }
        blocked.map_or(Ok(committed), |error| Err(Cut::Upstream(error)))
    }

    /// Where to read on. `None` while it is not known where "now" is.
    async fn open(&mut self) -> Result<Option<Opened>, Cut> {
        let base = self.lane.position(self.feed);
        match opening(base.map(|base| base.position), self.config.start.0) {
            Opening::From(after) => Ok(Some(Opened { base, after })),
            Opening::Resume(after) => {
                if !self.compared {
                    self.compare(after).await?;
                }
                Ok(Some(Opened { base, after }))
            }
            Opening::FromNewest => self.start_now().await,
        }
    }

    async fn start_now(&mut self) -> Result<Option<Opened>, Cut> {
        let newest = self.until_stopped(self.source.newest(self.feed)).await??;
        self.empty_answers = if newest.is_none() { self.empty_answers.saturating_add(1) } else { 0 };
        let Some(position) = newest_as_start(newest, self.empty_answers) else { return Ok(None) };
        self.compared = true;
        let batch = Batch::moving(None, position);
        match self.lane.publish(self.feed, &batch).await? {
            Published::Committed => info!(source = self.name(), feed = self.feed, position, "feed_starts_now"),
            Published::Void => return Ok(None),
        }
        Ok(Some(Opened { base: Some(batch.next), after: position }))
    }

    async fn compare(&mut self, position: u64) -> Result<(), Cut> {
        let newest = self.until_stopped(self.source.newest(self.feed)).await??;
        self.compared = true;
        let behind = upstream_is_behind(position, newest).then_some(FeedState::UpstreamBehind { position, newest });
        if behind.is_some() && self.behind != behind {
            let newest = newest.unwrap_or_default();
            warn!(
                source = self.name(),
                feed = self.feed,
                position,
                newest,
                "upstream_behind: upstream was reset, or the wrong one is configured; the stored position stays"
            );
        }
        self.behind = behind;
        Ok(())
    }

    fn quiet(&mut self) -> Turn {
        self.quiet_turns += 1;
        if self.behind.is_some() || self.quiet_turns >= COMPARE_AFTER_QUIET_TURNS {
            (self.compared, self.quiet_turns) = (false, 0);
        }
        Turn::CaughtUp
    }

    pub(crate) async fn pause(&self, pause_ms: u64) -> Result<(), End> {
        self.until_stopped(tokio::time::sleep(Duration::from_millis(pause_ms))).await
    }

    pub(crate) async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, End> {
        self.stop.run_until_cancelled(work).await.ok_or(End::Stopped)
    }
}
