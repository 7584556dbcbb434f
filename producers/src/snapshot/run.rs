//! One run over a dump: index, rows, differences, what is missing, and the mark that it is done.
//!
//! Promises: the run's number is committed before its first event; events and the count of the
//! run's transactions are committed together; only a run that was read to its end is marked as
//! complete; nothing is deleted on the word of a dump that [`judge`] does not believe.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use ryggrad_detect::batch::Batch;
use ryggrad_detect::decide::EMPTY_ANSWERS_MIN;
use ryggrad_detect::event::{Event, Unmapped};
use ryggrad_detect::quarantine::Quarantined;
use ryggrad_detect::snapshot::index::{Index, Mark, Place};
use ryggrad_detect::snapshot::judge::{self, Trust};
use ryggrad_detect::snapshot::run::{Completed, track};
use ryggrad_detect::snapshot::{Confirm, Format};
use ryggrad_log::{Fetcher, Lent, scan};
use ryggrad_schemas::cloudevents::STATE_HASH_HEADER;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::compare::{Compared, Limits, Window, compare};
use super::dump::Dump;
use super::{Kind, SnapshotLoop, SnapshotSource};
use crate::crossing::Watch;
use crate::error::{End, UpstreamError};
use crate::follow::Cut;
use crate::lane::Published;
use crate::status::FeedState;

/// Keys confirmed in one go. The feed waits as long as that takes.
const CONFIRM_KEYS_MAX: usize = 50;
const WINDOWS_WAITING_MAX: usize = 1;
/// Events of a dump in one transaction, whatever the settings allow: they are held in memory
/// beside the rows that they are made of.
const PORTION_EVENTS_MAX: usize = 1_000;

/// Old values by place.
type Values = BTreeMap<Place, Vec<u8>>;

/// What a row or an answer became.
type Outcome = Result<Option<Event>, Unmapped>;

/// A key to ask upstream for, and where the topic has its state.
type Asked = (String, Option<Place>);

/// A run under way.
struct Run {
    number: u64,
    watch: Watch,
    fetcher: Fetcher,
    events: u64,
}

impl<S: SnapshotSource> SnapshotLoop<S> {
    /// Reads the dump once and publishes what differs.
    pub(super) async fn run_once(&mut self, kind: Kind) -> Result<(), Cut> {
        let bootstraps = kind == Kind::Direct && self.config.follows_feeds();
        // The feed's end must be known before the dump is opened: what happens in between is
        // then told by the feed.
        let newest = if bootstraps { self.until_stopped(self.source.newest(&self.feed)).await?? } else { None };
        self.doubt_emptiness(bootstraps && newest.is_none())?;
        let watch = self.lane.crossing(&self.feed).watch();
        let dump = self.until_stopped(self.source.dump(&self.feed)).await??;
        let opened = Instant::now();
        let since_ms = self.since_ms(&dump);
        let index = self.index(&watch, bootstraps.then_some(since_ms)).await?;
        let start = if bootstraps { Some(self.position_at_dump(newest, since_ms).await?) } else { None };
        let fetcher = Fetcher::new(self.lane.connection(), self.source.topic()).map_err(UpstreamError::Log)?;
        let mut run = Run { number: self.begin(start).await?, watch, fetcher, events: 0 };
        let compared = self.read_rows(&mut run, kind, dump, index).await?;
        if let Some(error) = compared.error {
            return Err(UpstreamError::Dump(error).into());
        }
        self.doubt_emptiness(bootstraps && compared.showing.rows == 0)?;
        if kind == Kind::Confirm {
            self.wait_for_the_feed(opened).await?;
            for mark in [Mark::New, Mark::Different] {
                self.confirm(&mut run, &compared.index, mark).await?;
            }
        }
        self.judge_missing(&mut run, &compared).await?;
        self.complete(&run, &compared).await
    }

    /// A registry that seems empty when it is met first is believed only after some answers.
    fn doubt_emptiness(&self, is_empty: bool) -> Result<(), UpstreamError> {
        if is_empty && self.failures + 1 < EMPTY_ANSWERS_MIN { Err(UpstreamError::Empty) } else { Ok(()) }
    }

    /// From when on the feed's word counts more than the dump's.
    fn since_ms(&self, dump: &Dump) -> i64 {
        let snapshot = &self.config.snapshot;
        judge::follow_from_ms(dump.taken_at_ms, Timestamp::now().as_millisecond(), snapshot.margin_ms, snapshot.age_ms_max)
    }

    /// Reads the topic. Keys that the feed has published since `told_since_ms` count as touched.
    async fn index(&self, watch: &Watch, told_since_ms: Option<i64>) -> Result<Index, Cut> {
        let (format, topic) = (self.source.format(&self.feed), self.source.topic());
        // As many as the last time: growing would need the room of both sizes.
        let keys = self.lane.completed(&self.feed).map_or(0, |completed| completed.rows);
        let building = Building { index: Index::with_capacity(usize::try_from(keys).unwrap_or_default()), told: Vec::new() };
        let visit = move |building: &mut Building, record: &Lent<'_>| building.take(&format, told_since_ms, record);
        let scanned = scan(self.lane.connection(), topic, building, visit);
        let Building { index, told } = self.until_stopped(scanned).await?.map_err(UpstreamError::Log)?;
        watch.touch(told);
        let (source, rows) = (&self.source.source().name, index.len());
        self.telemetry.indexed(source, &self.feed, rows, index.size_bytes());
        Ok(index)
    }

    /// Where to follow from: the newest position before the dump was opened, or an older one if
    /// the dump is older.
    async fn position_at_dump(&self, newest: Option<u64>, since_ms: i64) -> Result<u64, Cut> {
        let newest = newest.unwrap_or_default();
        let Ok(since) = Timestamp::from_millisecond(since_ms) else { return Ok(0) };
        let before = self.until_stopped(self.source.position_before(&self.feed, since)).await??;
        Ok(before.map_or(newest, |before| before.min(newest)))
    }

    /// Commits the run's number, and the feed's position if it has none.
    async fn begin(&self, start: Option<u64>) -> Result<u64, Cut> {
        if let Some(position) = start
            && self.lane.position(&self.feed).is_none()
        {
            self.publish(&self.feed, Batch::moving(None, position)).await?;
            info!(source = %self.source.source().name, feed = %self.feed, position, "feed_starts_at_snapshot");
        }
        let track = track(&self.feed);
        let base = self.lane.position(&track);
        let number = base.unwrap_or_default().position + 1;
        let mut batch = Batch::moving(base, number);
        batch.next.count = 0;
        self.publish(&track, batch).await?;
        Ok(number)
    }

    async fn publish(&self, track: &str, batch: Batch) -> Result<(), Cut> {
        match self.lane.publish(track, batch).await? {
            Published::Committed => Ok(()),
            // Someone else has published meanwhile: nothing that is known here holds any more.
            Published::Void => Err(UpstreamError::Superseded.into()),
        }
    }

    async fn read_rows(&mut self, run: &mut Run, kind: Kind, dump: Dump, index: Index) -> Result<Compared, Cut> {
        let (sender, mut windows) = mpsc::channel(WINDOWS_WAITING_MAX);
        let format = self.source.format(&self.feed);
        let limits = Limits {
            row_bytes_max: self.config.document_bytes_max,
            window_bytes_max: self.config.snapshot.window_bytes_max,
            hand_over_rows: kind == Kind::Direct,
        };
        let comparing = tokio::task::spawn_blocking(move || compare(dump, &format, index, &limits, sender));
        while let Some(window) = self.until_stopped(windows.recv()).await? {
            self.telemetry.snapshot_rows(&self.source.source().name, &self.feed, window.rows);
            if kind == Kind::Direct {
                self.state(FeedState::ReadingSnapshot { rows: window.rows, events: run.events });
            }
            self.publish_window(run, window).await?;
        }
        // It only ends early by a panic, which the runtime has told of.
        self.until_stopped(comparing).await?.map_err(|_| Cut::End(End::Stopped))
    }

    async fn publish_window(&self, run: &mut Run, mut window: Window) -> Result<(), Cut> {
        let unreadable = std::mem::take(&mut window.unreadable);
        let places: Vec<Place> = window.candidates.iter().filter_map(|candidate| candidate.old).collect();
        let values = self.values(run, places).await?;
        let (window, values) = (Arc::new(window), Arc::new(values));
        // A transaction's worth at a time: events take much more room than rows.
        let portion = self.config.transaction_events_max.min(PORTION_EVENTS_MAX);
        for from in (0..window.candidates.len()).step_by(portion) {
            let nths = from..window.candidates.len().min(from + portion);
            let (format, number) = (self.source.format(&self.feed), run.number);
            let (window, values) = (Arc::clone(&window), Arc::clone(&values));
            let mapping = tokio::task::spawn_blocking(move || map_rows(&format, number, &window, nths, &values));
            let mut outcomes = self.until_stopped(mapping).await?.map_err(|_| Cut::End(End::Stopped))?;
            // Held until they are published: the feed can't come between.
            let _turn = self.lane.turn(&self.feed).await?;
            outcomes.retain(|outcome| !matches!(outcome, Ok(Some(event)) if run.watch.is_touched(&event.key)));
            self.publish_all(run, outcomes.into_iter()).await?;
        }
        let set_aside = unreadable.into_iter().map(|(raw, reason)| Err(Unmapped { reason, raw: Some(raw) }));
        self.publish_all(run, set_aside).await
    }

    /// Publishes outcomes, so many in one transaction.
    async fn publish_all(&self, run: &mut Run, outcomes: impl Iterator<Item = Outcome>) -> Result<(), Cut> {
        let track = track(&self.feed);
        let mut outcomes = outcomes.filter(|outcome| !matches!(outcome, Ok(None))).peekable();
        while outcomes.peek().is_some() {
            let base = self.lane.position(&track);
            let mut batch = Batch::moving(base, run.number);
            batch.next.count = base.unwrap_or_default().count + 1;
            for outcome in outcomes.by_ref().take(self.config.transaction_events_max) {
                match outcome {
                    Ok(event) => event.into_iter().for_each(|event| batch.add(event)),
                    Err(Unmapped { reason, raw }) => batch.set_aside(Quarantined::new(run.number, reason, raw.unwrap_or_default())),
                }
            }
            run.events += batch.tally.events.values().sum::<u64>();
            self.publish(&track, batch).await?;
        }
        Ok(())
    }

    /// Old values from the topic. What is no longer there has been overwritten since.
    async fn values(&self, run: &Run, places: Vec<Place>) -> Result<Values, Cut> {
        if places.is_empty() {
            return Ok(Values::new());
        }
        let places = places.into_iter().map(|place| (place.partition, place.offset)).collect();
        let fetched = run.fetcher.fetch(places, Values::new(), |values, record| {
            let place = Place { partition: record.partition(), offset: record.offset() };
            values.extend(record.value().map(|value| (place, value.to_vec())));
        });
        Ok(self.until_stopped(fetched).await?.map_err(UpstreamError::Log)?)
    }

    /// What the dump shows may be news to the feed too: it gets time to tell.
    async fn wait_for_the_feed(&self, opened: Instant) -> Result<(), Cut> {
        let patience = Duration::from_millis(self.config.snapshot.silent_after_ms);
        self.until_stopped(tokio::time::sleep_until(opened + patience)).await?;
        Ok(self.until_stopped(self.lane.crossing(&self.feed).next_end()).await?)
    }

    /// Asks upstream for each key with a mark, and publishes where the answer differs.
    async fn confirm(&self, run: &mut Run, index: &Index, mark: Mark) -> Result<(), Cut> {
        let places = index.places(mark);
        let mut failed = Vec::new();
        for from in (0..places.len()).step_by(CONFIRM_KEYS_MAX) {
            let nths = from..places.len().min(from + CONFIRM_KEYS_MAX);
            let keys = nths.filter_map(|nth| {
                let old = places.place(nth).filter(|_| mark != Mark::New);
                Some((index.key(&places, nth)?.to_owned(), old))
            });
            failed.extend(self.confirm_keys(run, keys.collect()).await?);
        }
        // Once more; what fails again is found by the next run.
        for keys in failed.chunks(CONFIRM_KEYS_MAX) {
            let left = self.confirm_keys(run, keys.to_vec()).await?.len();
            if left > 0 {
                warn!(source = %self.source.source().name, feed = %self.feed, keys = left, "look_ups_left_to_the_next_comparison");
            }
        }
        Ok(())
    }

    /// The keys whose look-ups failed while others succeeded.
    async fn confirm_keys(&self, run: &mut Run, keys: Vec<Asked>) -> Result<Vec<Asked>, Cut> {
        // Held until all is published: the feed's answers can't come between.
        let turn = self.lane.turn(&self.feed).await?;
        if run.watch.is_overrun() {
            return Err(UpstreamError::Superseded.into());
        }
        let keys: Vec<_> = keys.into_iter().filter(|(key, _)| !run.watch.is_touched(key)).collect();
        let values = self.values(run, keys.iter().filter_map(|(_, old)| *old).collect()).await?;
        let asked = stream::iter(keys).map(|(key, old)| async move { (self.source.look_up(&self.feed, &key).await, key, old) });
        let answers: Vec<_> = self.until_stopped(asked.buffered(self.config.look_ups_in_flight_max).collect()).await?;
        let (format, mut outcomes, mut failed) = (self.source.format(&self.feed), Vec::new(), Vec::new());
        let is_upstream_ill = answers.iter().all(|(answer, _, _)| answer.is_err());
        for (answer, key, old) in answers {
            self.telemetry.looked_up(&self.source.source().name, &self.feed, u64::from(answer.is_ok()), u64::from(answer.is_err()));
            let answer = match answer {
                Ok(answer) => answer,
                Err(error) if is_upstream_ill => return Err(error.into()),
                Err(_) => {
                    failed.push((key, old));
                    continue;
                }
            };
            let old = match old {
                Some(place) => match values.get(&place) {
                    Some(value) => Some(value.as_slice()),
                    // Overwritten by a compaction: the key has a newer state.
                    None => continue,
                },
                None => None,
            };
            outcomes.push(format.confirmed(run.number, &key, &answer, old));
        }
        let before = run.events;
        self.publish_all(run, outcomes.into_iter()).await?;
        drop(turn);
        self.telemetry.silent(&self.source.source().name, &self.feed, run.events - before);
        Ok(failed)
    }

    /// Deletes what the dump does not show, if that can be believed.
    async fn judge_missing(&self, run: &mut Run, compared: &Compared) -> Result<(), Cut> {
        let (source, snapshot) = (&self.source.source().name, &self.config.snapshot);
        let trust = Trust { deletions_share_max: snapshot.deletions_share_max, deletions_min: snapshot.deletions_min };
        if let Err(refusal) = judge::deletions(compared.showing, trust, snapshot.confirm_deletions) {
            warn!(%source, feed = %self.feed, reason = %refusal, "snapshot_deletions_refused");
            self.telemetry.deletions_refused(source, &self.feed, compared.showing.missing);
            return Ok(());
        }
        self.telemetry.deletions_refused(source, &self.feed, 0);
        if snapshot.confirm_deletions {
            return self.confirm(run, &compared.index, Mark::Missing).await;
        }
        let (places, format) = (compared.index.places(Mark::Missing), self.source.format(&self.feed));
        let keys = (0..places.len()).filter_map(|nth| compared.index.key(&places, nth)).filter(|key| !run.watch.is_touched(key));
        let number = run.number;
        let outcomes: Vec<Outcome> = keys.map(|key| format.ended(number, key).map(Some)).collect();
        self.publish_all(run, outcomes.into_iter()).await
    }

    async fn complete(&self, run: &Run, compared: &Compared) -> Result<(), Cut> {
        let (source, rows) = (self.source.source(), compared.showing.rows);
        let completed = Completed { run: run.number, at_ms: Timestamp::now().as_millisecond(), rows, events: run.events };
        let track = track(&self.feed);
        let base = self.lane.position(&track);
        let mut batch = Batch::moving(base, run.number);
        batch.next.count = base.unwrap_or_default().count + 1;
        batch.records.push(completed.to_record(source, &self.feed));
        self.publish(&track, batch).await?;
        self.lane.set_completed(&self.feed, completed);
        self.telemetry.snapshot_completed(&source.name, &self.feed, completed.at_ms, compared.duplicates);
        self.tell_end(rows, run.events);
        Ok(())
    }
}

fn map_rows<F: Format>(format: &F, run: u64, window: &Window, nths: Range<usize>, values: &Values) -> Vec<Outcome> {
    let outcome = |nth: usize| match window.candidates.get(nth)?.old {
        None => Some(format.created(run, window.row(nth)).map(Some)),
        // Overwritten since: whoever did that knows better.
        Some(place) => values.get(&place).map(|old| format.changed(run, window.row(nth), old)),
    };
    nths.filter_map(outcome).collect()
}

/// What a scan builds.
struct Building {
    index: Index,
    /// Keys that the feed has published of late.
    told: Vec<String>,
}

impl Building {
    fn take(&mut self, format: &impl Format, told_since_ms: Option<i64>, record: &Lent<'_>) -> Result<(), String> {
        let Some(key) = record.key() else { return Ok(()) };
        if told_since_ms.is_some_and(|since_ms| record.timestamp_ms() >= since_ms) && record.header("ce_funnet") == Some("feed") {
            self.told.push(key.to_owned());
        }
        if record.value().is_none() || !format.shows(|name| record.header(name)) {
            self.index.remove(key);
            return Ok(());
        }
        let place = Place { partition: record.partition(), offset: record.offset() };
        let fingerprint = record.header(STATE_HASH_HEADER).and_then(|text| text.parse().ok());
        self.index.put(key, place, fingerprint).map_err(|unfit| unfit.to_string())
    }
}
