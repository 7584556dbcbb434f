//! The loop over one feed: page, look-ups, batch, transaction, again.
//!
//! Decisions are made in `ryggrad-detect`; this waits, asks and counts. While one batch is in its
//! transaction, the next is prepared on top of it, and the next page is read. Promises: look-ups
//! come after the page that caused them, so no state is older than its position; a position moves
//! only with a committed batch, and a batch that fails takes those with it that were prepared on
//! top of it; trouble upstream is retried for ever and never taken for an end.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Either, select};
use ryggrad_detect::batch::Batch;
use ryggrad_detect::decide::{Opening, newest_as_start, opening, upstream_is_behind};
use ryggrad_detect::feed::{self, PageFault};
use ryggrad_detect::position::FeedPosition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::error::{End, UpstreamError, chain};
use crate::lane::{Lane, Published};
use crate::look_ups::Looked;
use crate::pages::{Ahead, InOrder, Pages, Remaining};
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

pub(crate) enum Turn {
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

/// What is prepared in one go. Small, so that slow look-ups don't hold back what is there.
const PORTION_EVENTS_MAX: usize = 250;

/// How long what is prepared waits for more: a transaction costs the broker as much as a thousand
/// events do. Where look-ups are slow, or the page is at its end, nothing waits.
const GATHER: Duration = Duration::from_millis(200);

/// A batch that waits for its transaction. There is never more than one beside that under way.
struct Prepared {
    batch: Batch,
    items: usize,
    since: Instant,
}

impl Prepared {
    fn put(ready: &mut Option<Self>, batch: Batch, items: usize, since: Instant) {
        match ready {
            Some(ready) => {
                ready.batch.append(batch);
                ready.items += items;
            }
            None => *ready = Some(Self { batch, items, since }),
        }
    }

    fn has_room(&self, events_max: usize) -> bool {
        self.items + PORTION_EVENTS_MAX <= events_max
    }

    fn is_due(&self, events_max: usize) -> bool {
        !self.has_room(events_max) || self.since.elapsed() >= GATHER
    }
}

/// What became of a batch with so many items.
struct Outcome {
    published: Published,
    items: usize,
}

async fn publish_one(lane: Arc<Lane>, feed: String, prepared: Prepared) -> Result<Outcome, End> {
    let Prepared { batch, items, .. } = prepared;
    Ok(Outcome { published: lane.publish(&feed, batch).await?, items })
}

/// Of publishing in a task of its own: it must go on also while the next batch keeps this one busy.
async fn outcome(under_way: AbortOnDropHandle<Result<Outcome, End>>) -> Result<Outcome, End> {
    match under_way.await {
        Ok(outcome) => outcome,
        Err(join) => match join.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(End::Stopped),
        },
    }
}

pub(crate) struct FeedLoop<S> {
    pub(crate) source: Arc<S>,
    lane: Arc<Lane>,
    pub(crate) feed: String,
    pub(crate) config: ProducerConfig,
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

impl<S: FeedSource> FeedLoop<S> {
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

    pub(crate) fn name(&self) -> &str {
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
            info!(source = self.name(), feed = %self.feed, "upstream_recovered");
        }
        self.failures = 0;
        self.telemetry.succeeded(self.name(), &self.feed);
        let (state, pause_ms) = match turn {
            Turn::More => (FeedState::CatchingUp, 0),
            Turn::CaughtUp => {
                self.lane.crossing(&self.feed).read_to_end();
                (FeedState::Following, self.config.poll_interval_ms)
            }
        };
        self.state(self.behind.clone().unwrap_or(state));
        pause_ms
    }

    fn went_wrong(&mut self, error: &UpstreamError) -> u64 {
        self.failures = self.failures.saturating_add(1);
        let (code, reason) = (error.code(), chain(error));
        self.telemetry.retried(self.name(), &code);
        warn!(source = self.name(), feed = %self.feed, failures = self.failures, %code, %reason, "upstream_trouble");
        let went_backwards = matches!(error, UpstreamError::Page(PageFault::WentBackwards { .. }));
        // Known already, and for a better reason.
        let behind = self.behind.clone().filter(|_| went_backwards);
        self.state(behind.unwrap_or(FeedState::UpstreamTrouble(reason)));
        self.config.backoff().delay_ms(self.failures, rand::random())
    }

    fn state(&self, state: FeedState) {
        self.telemetry.status().feed(self.name(), &self.feed, state);
    }

    async fn turn(&mut self) -> Result<Turn, Cut> {
        let Some(Opened { base, after }) = self.open().await? else { return Ok(Turn::CaughtUp) };
        let items_max = if self.wide { self.source.page_items_max() } else { self.config.page_items_max };
        let etag = self.quiet_page.as_ref().filter(|(position, _)| *position == after).map(|(_, etag)| etag.as_str());
        let fetched = self.until_stopped(self.source.page_after(&self.feed, after, items_max, etag)).await??;
        let Some(page) = fetched.page else { return Ok(self.quiet()) };
        let read = match InOrder::of(page, after, items_max) {
            Ok(read) => read,
            Err(fault) => {
                self.wide |= matches!(fault, PageFault::NoPositions { .. });
                return Err(fault.into());
            }
        };
        self.wide = false;
        self.tell_of(&read);
        self.tell_remaining(read.remaining);
        if read.steps.is_empty() {
            self.quiet_page = fetched.etag.map(|etag| (after, etag));
            return Ok(self.quiet());
        }
        (self.behind, self.quiet_turns) = (None, 0);
        self.publish(base, read).await
    }

    fn tell_of(&self, read: &InOrder<S::Change>) {
        self.telemetry.dropped(self.name(), &self.feed, read.overlap_items, read.duplicate_items);
        if read.remaining.waiting_items > 0 {
            let items = read.remaining.waiting_items;
            warn!(source = self.name(), feed = %self.feed, items, "items_without_id_wait_for_a_later_one");
        }
    }

    fn tell_remaining(&self, remaining: Remaining) {
        self.telemetry.remaining(self.name(), &self.feed, remaining.items, remaining.waiting_items);
    }

    /// Looks up and publishes a page's steps, and those of the pages behind it, until the feed's
    /// end or until somebody else wants the turn. What can't be looked up now stays, with all
    /// that follows.
    async fn publish(&mut self, mut base: Option<FeedPosition>, read: InOrder<S::Change>) -> Result<Turn, Cut> {
        let lane = Arc::clone(&self.lane);
        let crossing = lane.crossing(&self.feed);
        let _turn = lane.turn(&self.feed).await?;
        // Moved on purpose meanwhile: what was read belongs to another place.
        if lane.position(&self.feed) != base {
            return Ok(Turn::More);
        }
        let events_max = self.config.transaction_events_max;
        let portion_events_max = events_max.min(PORTION_EVENTS_MAX);
        let mut pages = Pages::new(read, portion_events_max);
        let (mut ready, mut blocked): (Option<Prepared>, Option<Cut>) = (None, None);
        let mut publishing: Option<BoxFuture<'static, Result<Outcome, End>>> = None;
        loop {
            if blocked.is_none() && pages.wants_next() && !crossing.is_wanted() {
                pages.next = Some(self.ask_ahead(pages.end));
            }
            let is_more = blocked.is_none() && !pages.portions.is_empty();
            if publishing.is_none()
                && let Some(prepared) = ready.take_if(|ready| !is_more || ready.is_due(events_max))
            {
                let under_way = tokio::spawn(publish_one(Arc::clone(&lane), self.feed.clone(), prepared));
                publishing = Some(outcome(AbortOnDropHandle::new(under_way)).boxed());
            }
            let has_room = is_more && ready.as_ref().is_none_or(|ready| ready.has_room(events_max));
            let portion = if has_room { pages.portions.pop_front() } else { None };
            let next = if is_more || blocked.is_some() { None } else { pages.next.take() };
            let (answer, ended) = match (portion, next, publishing.take()) {
                (None, None, None) => return blocked.map_or(Ok(pages.turn()), Err),
                (None, None, Some(under_way)) => (None, Some(under_way.await?)),
                (None, Some(next), None) => (Some(next.await), None),
                (None, Some(next), Some(under_way)) => match select(next, under_way).await {
                    Either::Left((answer, under_way)) => {
                        publishing = Some(under_way);
                        (Some(answer), None)
                    }
                    Either::Right((ended, next)) => {
                        pages.next = Some(next);
                        (None, Some(ended?))
                    }
                },
                (Some(portion), _, under_way) => {
                    let since = Instant::now();
                    let preparing = pin!(self.prepare(base, portion));
                    let (prepared, ended) = match under_way {
                        None => (preparing.await, None),
                        Some(under_way) => match select(preparing, under_way).await {
                            Either::Left((prepared, under_way)) => {
                                publishing = Some(under_way);
                                (prepared, None)
                            }
                            Either::Right((ended, preparing)) => match ended? {
                                Outcome { published: Published::Void, .. } => return Ok(Turn::More),
                                committed => (preparing.await, Some(committed)),
                            },
                        },
                    };
                    match prepared {
                        Ok((made, error)) => {
                            blocked = error.map(Cut::Upstream);
                            if let Some((batch, items)) = made {
                                base = Some(batch.next);
                                pages.uncommitted_items += items as u64;
                                Prepared::put(&mut ready, batch, items, since);
                            }
                        }
                        // What was prepared before it can be published all the same.
                        Err(cut) => blocked = Some(cut),
                    }
                    (None, ended)
                }
            };
            match ended {
                None => {}
                Some(Outcome { published: Published::Void, .. }) => return Ok(Turn::More),
                Some(Outcome { published: Published::Committed, items }) => {
                    self.failures = 0;
                    pages.committed(items as u64);
                    self.tell_remaining(pages.remaining);
                }
            }
            match answer.map(|answer| answer.ok().flatten()) {
                None => {}
                Some(Some(read)) if !crossing.is_wanted() => {
                    self.went_well(&Turn::More);
                    self.tell_of(&read);
                    pages.go_on_with(read, portion_events_max);
                    self.tell_remaining(pages.remaining);
                }
                Some(_) => pages.is_cut_short = true,
            }
        }
    }

    /// Asks for the page that follows. Whatever is wrong with the answer is met again, and told,
    /// when the page is asked for in a turn of its own.
    fn ask_ahead(&self, after: u64) -> Ahead<S::Change> {
        let (source, feed, stop, items_max) = (Arc::clone(&self.source), self.feed.clone(), self.stop.clone(), self.config.page_items_max);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let fetched = stop.run_until_cancelled(source.page_after(&feed, after, items_max, None)).await?;
            let read = InOrder::of(fetched.ok()?.page?, after, items_max).ok()?;
            (!read.steps.is_empty()).then_some(read)
        }))
    }

    /// Makes the batch of a portion, as far as it can be looked up, and says why no further.
    async fn prepare(
        &mut self,
        base: Option<FeedPosition>,
        portion: Vec<feed::Step<S::Change>>,
    ) -> Result<(Option<(Batch, usize)>, Option<UpstreamError>), Cut> {
        // Where nothing is waited for, the others must still come to their turn.
        tokio::task::yield_now().await;
        let Looked { steps, answers, blocked } = self.look_up(portion).await?;
        if steps.is_empty() {
            return Ok((None, blocked));
        }
        let items = steps.iter().map(|step| step.items.len() + step.quarantined.len()).sum();
        let batch = self.batch(base, &steps, answers).await?;
        Ok((Some((batch, items)), blocked))
    }

    /// Where to read on. `None` while it is not known where "now" is.
    async fn open(&mut self) -> Result<Option<Opened>, Cut> {
        let base = self.lane.position(&self.feed);
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
        let newest = self.until_stopped(self.source.newest(&self.feed)).await??;
        self.empty_answers = if newest.is_none() { self.empty_answers.saturating_add(1) } else { 0 };
        let Some(position) = newest_as_start(newest, self.empty_answers) else { return Ok(None) };
        self.compared = true;
        let batch = Batch::moving(None, position);
        let base = Some(batch.next);
        match self.lane.publish(&self.feed, batch).await? {
            Published::Committed => info!(source = self.name(), feed = %self.feed, position, "feed_starts_now"),
            Published::Void => return Ok(None),
        }
        Ok(Some(Opened { base, after: position }))
    }

    async fn compare(&mut self, position: u64) -> Result<(), Cut> {
        let newest = self.until_stopped(self.source.newest(&self.feed)).await??;
        self.compared = true;
        let behind = upstream_is_behind(position, newest).then_some(FeedState::UpstreamBehind { position, newest });
        if behind.is_some() && self.behind != behind {
            let newest = newest.unwrap_or_default();
            warn!(
                source = self.name(),
                feed = %self.feed,
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
