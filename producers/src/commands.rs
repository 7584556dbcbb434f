//! Carries out what operators tell a source: compare, reset, repair, dismiss.
//!
//! Commands are read from `ryggrad.source-commands` on from the stored position; what a command
//! publishes, its outcome and the position past it are one transaction. So each is carried out
//! once, by whichever producer runs, also after a crash. Must never publish a state that is
//! older than the topic's: a repair asks upstream while it holds the feed's turn.

use ryggrad_detect::batch::Batch;
use ryggrad_detect::command::{Command, Outcome, Task};
use ryggrad_detect::position::{COMMANDS_TRACK, FeedPosition};
use ryggrad_detect::quarantine::{Entry, open_entries};
use ryggrad_log::{Read, ReaderLimits, Seal, Start, follow, read_to_end};
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::catalogue::{Source, topics};
use tokio::sync::OwnedMutexGuard;
use tracing::{info, warn};

use crate::error::{End, chain};
use crate::lane::{Lane, Published};
use crate::source::FeedSource;

/// Records that the quarantine may hold.
const QUARANTINE_RECORDS_MAX: usize = 1_000_000;
const QUARANTINE_TIMEOUT_MS: u64 = 60_000;
/// How often the same command is tried when the log or upstream does not answer.
const ATTEMPTS_MAX: u32 = 5;

/// What carrying out a command comes to.
#[derive(Default)]
struct Effect {
    /// Held until it is published.
    turn: Option<OwnedMutexGuard<()>>,
    /// The feed whose position moves with it, and to where.
    moves: Option<(String, Batch)>,
    /// Said to the operator.
    text: String,
}

pub(crate) struct Commands<'a, S> {
    pub(crate) source: &'a S,
    pub(crate) lane: &'a Lane,
    pub(crate) seal: &'a Seal,
}

impl<S: FeedSource> Commands<'_, S> {
    /// Follows the commands until the lane ends.
    pub(crate) async fn run(&self) -> End {
        loop {
            if let Err(end) = self.follow().await {
                return end;
            }
        }
    }

    fn source(&self) -> &Source {
        self.source.source()
    }

    async fn follow(&self) -> Result<(), End> {
        let start = match self.lane.position(COMMANDS_TRACK) {
            Some(stored) => Start::Offset(i64::try_from(stored.position).unwrap_or(i64::MAX)),
            None => Start::Beginning,
        };
        let follower = follow(self.lane.connection(), topics::SOURCE_COMMANDS, &[(0, start)], ReaderLimits::default());
        let mut follower = match follower {
            Ok(follower) => follower,
            Err(error) => return self.lane.wait_out(&error).await,
        };
        while let Some(read) = follower.next().await {
            match read {
                Read::Records(records) => {
                    for record in records {
                        self.take(&record).await?;
                    }
                }
                Read::AtEnd { .. } | Read::Away { .. } => {}
                // Say, the position lies before the oldest command that is still kept.
                Read::Failed(error) => {
                    warn!(source = %self.source().name, reason = %chain(&error), "commands_begin_anew");
                    return self.begin_anew().await;
                }
            }
        }
        Ok(())
    }

    /// Passes over commands that are no longer kept.
    async fn begin_anew(&self) -> Result<(), End> {
        let marks = ryggrad_log::watermarks(self.lane.connection(), topics::SOURCE_COMMANDS, 0, QUARANTINE_TIMEOUT_MS).await;
        match marks {
            Ok(marks) => {
                let batch = Batch::moving(self.lane.position(COMMANDS_TRACK), u64::try_from(marks.low).unwrap_or_default());
                self.lane.publish(COMMANDS_TRACK, batch).await.map(drop)
            }
            Err(error) => self.lane.wait_out(&error).await,
        }
    }

    async fn take(&self, record: &LogRecord) -> Result<(), End> {
        let past = FeedPosition { position: u64::try_from(record.offset + 1).unwrap_or_default(), count: 0 };
        let is_ours = record.key.as_deref() == Some(&self.source().name);
        let Some(command) = record.value.as_deref().filter(|_| is_ours).and_then(Command::parse) else {
            if is_ours {
                warn!(source = %self.source().name, offset = record.offset, "command_unreadable");
            }
            return Ok(());
        };
        for _ in 0..ATTEMPTS_MAX {
            let (done, Effect { turn, moves, text }) = match self.carry_out(&command.task).await {
                Ok(effect) => (true, effect),
                Err(text) => (false, Effect { text, ..Effect::default() }),
            };
            let outcome = Outcome { id: command.id.clone(), done, text };
            info!(source = %self.source().name, task = ?command.task, done, text = %outcome.text, "command");
            let (track, mut batch) = moves.unwrap_or_else(|| {
                (COMMANDS_TRACK.to_owned(), Batch { next: past, ..Batch::moving(self.lane.position(COMMANDS_TRACK), past.position) })
            });
            if track != COMMANDS_TRACK {
                batch.also.push((COMMANDS_TRACK.to_owned(), past));
            }
            batch.records.extend(outcome.to_record(self.source()).ok());
            let published = self.lane.publish(&track, batch).await?;
            drop(turn);
            if published == Published::Committed {
                return Ok(());
            }
        }
        warn!(source = %self.source().name, offset = record.offset, "command_given_up");
        Ok(())
    }

    async fn carry_out(&self, task: &Task) -> Result<Effect, String> {
        match task {
            Task::Reconcile { feed } => {
                let feeds = self.feeds(feed.as_deref())?;
                feeds.iter().for_each(|feed| self.lane.crossing(feed).want_comparison());
                Ok(Effect { text: format!("{} will be compared with the dump now", feeds.join(" and ")), ..Effect::default() })
            }
            Task::Reset { feed, position } => {
                self.feeds(Some(feed))?;
                let turn = Some(self.lane.crossing(feed).turn().await);
                let base = self.lane.position(feed);
                let before = base.map_or_else(|| "nowhere".to_owned(), |base| base.position.to_string());
                let text = format!("{feed} is read on after {position}; it was at {before}");
                Ok(Effect { turn, moves: Some((feed.clone(), Batch::moving(base, *position))), text })
            }
            Task::Dismiss { offset } => {
                let (_, entry) = self.entry(*offset).await?;
                let base = self.lane.position(&entry.feed);
                let mut batch = Batch::moving(base, base.unwrap_or_default().position);
                batch.records.push(entry.settled(self.source()));
                Ok(Effect { moves: Some((entry.feed, batch)), text: format!("offset {offset} is dismissed"), ..Effect::default() })
            }
            Task::Repair { offset, key } => self.repair(*offset, key.as_deref()).await,
        }
    }

    fn feeds(&self, asked: Option<&str>) -> Result<Vec<String>, String> {
        let feeds = &self.source().feeds;
        match asked {
            None => Ok(feeds.clone()),
            Some(feed) if feeds.iter().any(|found| found == feed) => Ok(vec![feed.to_owned()]),
            Some(feed) => Err(format!("there is no feed {feed}; there are {}", feeds.join(", "))),
        }
    }

    /// An entry of the quarantine that is still open, and its record.
    async fn entry(&self, offset: i64) -> Result<(LogRecord, Entry), String> {
        let reading = read_to_end(self.lane.connection(), topics::QUARANTINE, 0, QUARANTINE_RECORDS_MAX, QUARANTINE_TIMEOUT_MS);
        let records = reading.await.map_err(|error| format!("the quarantine cannot be read: {}", chain(&error)))?;
        let entry = open_entries(self.source(), &records).into_iter().find(|entry| entry.offset == offset);
        let record = records.into_iter().find(|record| record.offset == offset);
        record.zip(entry).ok_or_else(|| format!("offset {offset} is not in the quarantine, or was dealt with before"))
    }

    async fn repair(&self, offset: i64, key: Option<&str>) -> Result<Effect, String> {
        let (record, entry) = self.entry(offset).await?;
        let feed = self.feeds(Some(&entry.feed)).map_err(|_| {
            format!("offset {offset} is a row of a dump: compare with the dump again (ryggrad sources reconcile), then dismiss it")
        })?;
        let feed = feed.into_iter().next().unwrap_or_default();
        let sealed = record.value.as_deref().unwrap_or_default();
        let raw = self.seal.open(&entry.key, sealed).map_err(|error| format!("its content cannot be opened: {error}"))?;
        let item = self
            .source
            .repaired(entry.position, &raw, key.or(entry.subject.as_deref()))
            .ok_or("it does not say which key it is about; name it with --key")?;
        let turn = Some(self.lane.crossing(&feed).turn().await);
        let answer = match self.source.needs_look_up(&item) {
            true => Some(self.source.look_up(&feed, &item.key).await.map_err(|error| format!("the look-up failed: {}", chain(&error)))?),
            false => None,
        };
        let event = self.source.event(&feed, &item, answer.as_ref());
        let event = event.map_err(|unmapped| format!("it still cannot be published: {}", unmapped.reason.text))?;
        let base = self.lane.position(&feed);
        let mut batch = Batch::moving(base, base.unwrap_or_default().position);
        batch.next.count += 1;
        let text = format!("{} of {} is published, at position {} of {feed}", event.endringstype(), item.key, entry.position);
        batch.add(event);
        batch.records.push(entry.settled(self.source()));
        Ok(Effect { turn, moves: Some((feed, batch)), text })
    }
}
