//! A registry whose answers lie in memory: the product's own producer follows it without HTTP.
//!
//! Every answer is read from its bytes anew, as if it had just come in.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ryggrad_detect::enhetsregisteret::{Answer, Change, Feed, read_document, read_page, unknown};
use ryggrad_detect::event::{Event, Unmapped};
use ryggrad_detect::feed::Item;
use ryggrad_producers::{FeedSource, Fetched, UpstreamError};
use ryggrad_schemas::catalogue::{EventType, Source};
use ryggrad_schemas::virksomhet::Virksomhetstype;
use tokio::sync::Notify;

use super::population::{FeedPages, Population};

/// What a feed tells of.
pub fn kind(feed: &str) -> Virksomhetstype {
    if feed == "underenheter" { Virksomhetstype::Underenhet } else { Virksomhetstype::Enhet }
}

#[derive(Default)]
struct Course {
    began: Option<Instant>,
    /// Feeds that were asked for what follows their last item.
    asked_at_end: Vec<String>,
    ended: Vec<(String, Instant)>,
}

/// The registry, for one run.
pub struct MemorySource {
    source: &'static Source,
    enheter: Feed<'static>,
    underenheter: Feed<'static>,
    population: Arc<Population>,
    page_items_max: usize,
    course: Mutex<Course>,
    done: Notify,
}

impl MemorySource {
    /// A registry that nobody has followed yet. Its events go to the event type's topic.
    pub fn new(source: &Source, event_type: EventType, population: &Arc<Population>, page_items_max: usize) -> anyhow::Result<Self> {
        // The producer's sources live as long as the program; a benchmark has a handful.
        let (source, event_type): (&'static _, &'static _) = (Box::leak(Box::new(source.clone())), Box::leak(Box::new(event_type)));
        let (enheter, underenheter) = (Feed::new(source, event_type, "enheter")?, Feed::new(source, event_type, "underenheter")?);
        let population = Arc::clone(population);
        Ok(Self { source, enheter, underenheter, population, page_items_max, course: Mutex::default(), done: Notify::new() })
    }

    /// Waits until all is published: every feed has been asked twice for what follows its last
    /// item. The producer may ask once while its last commit is under way, and again only after
    /// it. The time since the first question.
    pub async fn published(&self) -> Duration {
        self.done.notified().await;
        let course = self.course.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let last = course.ended.iter().map(|(_, at)| *at).max();
        course.began.zip(last).map_or(Duration::ZERO, |(began, last)| last - began)
    }

    fn asked(&self, feed: &str, pages: &FeedPages, after: u64) {
        let now = Instant::now();
        let mut course = self.course.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        course.began.get_or_insert(now);
        let is_last = pages.pages.last_key_value().is_some_and(|(last, _)| *last == after);
        if is_last && !course.asked_at_end.iter().any(|asked| asked == feed) {
            course.asked_at_end.push(feed.to_owned());
        } else if is_last && course.ended.iter().all(|(ended, _)| ended != feed) {
            course.ended.push((feed.to_owned(), now));
            if course.ended.len() == self.population.feeds.len() {
                self.done.notify_one();
            }
        }
    }
}

impl FeedSource for MemorySource {
    type Change = Change;
    type Answer = Answer;

    fn source(&self) -> &Source {
        self.source
    }

    fn page_items_max(&self) -> usize {
        self.page_items_max
    }

    async fn page_after(&self, feed: &str, after: u64, _: usize, _: Option<&str>) -> Result<Fetched<Change>, UpstreamError> {
        let found = self.population.feeds.get(feed).and_then(|pages| Some((pages, pages.pages.get(&after)?)));
        let Some((pages, body)) = found else { return Err(UpstreamError::Status { status: 404, question: "page of updates" }) };
        self.asked(feed, pages, after);
        Ok(Fetched { page: Some(read_page(kind(feed), body)?), etag: None })
    }

    async fn newest(&self, feed: &str) -> Result<Option<u64>, UpstreamError> {
        Ok(self.population.feeds.get(feed).and_then(|pages| pages.pages.last_key_value()).map(|(last, _)| *last))
    }

    fn needs_look_up(&self, item: &Item<Change>) -> bool {
        Feed::needs_look_up(item)
    }

    async fn look_up(&self, _: &str, key: &str) -> Result<Answer, UpstreamError> {
        match self.population.documents.get(key) {
            Some(document) => Ok(read_document(key, document)?),
            None => Ok(unknown()),
        }
    }

    fn repaired(&self, _: u64, _: &[u8], _: Option<&str>) -> Option<Item<Change>> {
        None
    }

    fn event(&self, feed: &str, item: &Item<Change>, answer: Option<&Answer>) -> Result<Event, Unmapped> {
        let feed = if feed == "underenheter" { &self.underenheter } else { &self.enheter };
        feed.event(item, answer)
    }
}
