//! What the engine knows of a subscription's deliveries: those to be fetched, those set aside,
//! the latest attempts.
//!
//! Must never decide anything: the engine does, and says so here.

use ryggrad_bridge_core::cursor::LaneKey;
use ryggrad_bridge_core::disclosure::How;
use ryggrad_bridge_core::letter_name::LetterName;
use ryggrad_bridge_core::machine::DeadLetter;
use serde::Serialize;
use tokio::sync::watch;
use uuid::Uuid;

use super::Subscriptions;
use crate::access::Leave;
use crate::disclosures::Draft;
pub use crate::runtime::{Fetched, Given, LoggedAttempt, of_attempt};
use crate::runtime::{Letters, Owed, topic_name, word};

/// A delivery that was set aside: a reference, never a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SetAside {
    /// Its name.
    pub id: LetterName,
    /// The topic that holds the event.
    pub topic: String,
    /// Its partition; none where the topic is not for everyone.
    pub partition: Option<i32>,
    /// Its offset there; likewise.
    pub offset: Option<i64>,
    /// The number that it had.
    pub number: u64,
    /// How its last attempt ended, in a word.
    pub reason: &'static str,
    /// Whether later events of its key wait behind it.
    pub parked: bool,
    /// When it was set aside.
    pub at: jiff::Timestamp,
}

/// Which of the deliveries that were set aside: those that every part takes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Only this one, with what waits behind it.
    pub one: Option<LetterName>,
    /// Only of this key.
    pub key: Option<String>,
    /// Only what was set aside at this time or later.
    pub from: Option<jiff::Timestamp>,
    /// Only what was set aside before this time.
    pub to: Option<jiff::Timestamp>,
    /// Only count them.
    pub preview: bool,
}

impl Subscriptions {
    /// Which run of numbers a subscription is in.
    pub async fn epoch(&self, id: Uuid) -> Option<u32> {
        self.engine.epoch(id).await
    }

    /// Deliveries after a number, or after the last acknowledged one; at most `limit`. What is a disclosure is
    /// recorded when it returns.
    pub async fn fetch(&self, id: Uuid, channel: &'static str, after: Option<u64>, limit: usize) -> Option<Fetched> {
        let fetched = self.engine.fetch(id, after, limit).await?;
        Some(self.recorded(id, channel, fetched).await)
    }

    /// The same after the last acknowledged one, as records.
    pub async fn fetch_records(&self, id: Uuid, channel: &'static str, limit: usize) -> Option<Fetched<Option<Given>>> {
        let fetched = self.engine.fetch_records(id, limit).await?;
        Some(self.recorded(id, channel, fetched).await)
    }

    async fn recorded<T>(&self, id: Uuid, channel: &'static str, mut fetched: Fetched<T>) -> Fetched<T> {
        let owed = std::mem::take(&mut fetched.owed);
        if let Some(kept) = self.disclose(id, channel, &owed).await {
            fetched.events.retain(|(number, _)| *number < kept);
            fetched.put_off = true;
        }
        fetched
    }

    /// Records disclosures. The first number that must not be given after all, if there is one.
    async fn disclose(&self, subscription: Uuid, channel: &'static str, owed: &[Owed]) -> Option<u64> {
        let first = owed.first()?.number;
        let drafts = owed.iter().map(|owed| Draft {
            record: &owed.record,
            disclosed: owed.disclosed.clone(),
            delivery: owed.delivery,
            number: owed.number,
            subscription,
            channel,
            host: None,
        });
        let (disclosures, decisions) = (&self.context.disclosures, &self.context.decisions);
        let Ok(tickets) = disclosures.intend(drafts.collect()).await else { return Some(first) };
        // Recording takes its time, and the answer may be another one meanwhile.
        let stays = |owed: &&Owed| {
            let unchanged = matches!(decisions.leave(owed.disclosed.caller, &owed.record), Leave::Disclosed(now) if now == owed.disclosed);
            !unchanged || self.context.removals.withholds(owed.record.leaving())
        };
        let kept = owed.iter().find(stays)?.number;
        for (_, ticket) in owed.iter().zip(tickets).filter(|(owed, _)| owed.number >= kept) {
            disclosures.ended(&ticket, How::Unsent, None);
        }
        Some(kept)
    }

    /// Settles every delivery up to a number; on disk when it returns.
    pub async fn acknowledge(&self, id: Uuid, number: u64) -> bool {
        let acknowledged = self.engine.acknowledge(id, number).await;
        if acknowledged {
            self.context.disclosures.taken(id, number);
        }
        acknowledged
    }

    /// Changes whenever there may be more to fetch.
    pub async fn available(&self, id: Uuid) -> Option<watch::Receiver<u64>> {
        self.engine.available(id).await
    }

    /// What was set aside, in the order of names.
    pub async fn dead_letters(&self, id: Uuid) -> Vec<SetAside> {
        let letters = self.engine.dead_letters(id).await;
        let mut letters: Vec<SetAside> = letters.iter().map(|(letter, at_ms)| self.set_aside(id, letter, *at_ms)).collect();
        letters.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        letters
    }

    /// Takes up again what was set aside; how many there were.
    pub async fn redrive(&self, id: Uuid, selection: &Selection) -> usize {
        match self.letters(id, selection).await {
            Some(letters) => self.engine.redrive(id, letters).await,
            None => 0,
        }
    }

    /// Forgets what was set aside, for good; how many there were.
    pub async fn discard(&self, id: Uuid, selection: &Selection) -> usize {
        match self.letters(id, selection).await {
            Some(letters) => self.engine.discard(id, letters).await,
            None => 0,
        }
    }

    /// In the engine's words; `None` if it can mean nothing.
    async fn letters(&self, id: Uuid, selection: &Selection) -> Option<Letters> {
        let ms = |time: jiff::Timestamp| u64::try_from(time.as_millisecond()).unwrap_or_default();
        let one = match &selection.one {
            Some(name) => {
                let letters = self.engine.dead_letters(id).await;
                let named = letters.iter().find(|(letter, _)| self.name(id, letter) == *name);
                Some(named.map(|(letter, _)| (letter.place, letter.offset))?)
            }
            None => None,
        };
        let at_ms = selection.from.map_or(0, ms)..selection.to.map_or(u64::MAX, ms);
        Some(Letters { one, lane: selection.key.as_deref().map(LaneKey::of), at_ms, preview: selection.preview })
    }

    /// The latest attempts, newest first.
    pub async fn attempts(&self, id: Uuid) -> Vec<LoggedAttempt> {
        self.engine.attempts(id).await
    }

    /// An offset of a topic that is not for everyone would tell of what else there is in it.
    fn name(&self, id: Uuid, letter: &DeadLetter) -> LetterName {
        let (topic, partition, offset) = (topic_name(self.context.catalogue, letter.place.topic), letter.place.partition, letter.offset);
        if self.context.catalogue.is_protected(topic) {
            self.word_key.name(id, topic, partition, offset)
        } else {
            LetterName::Place { topic: topic.to_owned(), partition, offset }
        }
    }

    fn set_aside(&self, id: Uuid, letter: &DeadLetter, at_ms: u64) -> SetAside {
        let at = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
        let (id, topic) = (self.name(id, letter), topic_name(self.context.catalogue, letter.place.topic).to_owned());
        let is_shown = matches!(id, LetterName::Place { .. });
        SetAside {
            id,
            topic,
            partition: is_shown.then_some(letter.place.partition),
            offset: is_shown.then_some(letter.offset),
            number: letter.number,
            reason: word(letter.outcome),
            parked: letter.parked,
            at,
        }
    }
}
