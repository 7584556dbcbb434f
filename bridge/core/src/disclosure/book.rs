//! One controller's records as they are written: one intent for each delivery, again only if its terms have
//! changed, and what became of it.
//!
//! An intent stays open until the receiver has taken the event; what a restart reads back of the records is
//! open again. Must never take two deliveries for one, nor close what may still be tried.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::chain::Chain;
use super::entry::{Entry, How, Intent, Link, Outcome, Reading};
use crate::asymmetric::SigningKey;

/// Intents that are open at a time. Beyond it the older half is forgotten: at worst one is written once more.
const OPEN_MAX: usize = 400_000;

/// A record, to be written: its number and its bytes.
pub type Written = (u64, Vec<u8>);

/// What an intent has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Intended {
    /// It stands there already, under this number.
    Standing(u64),
    /// It is to be written.
    New(Written),
}

/// An intent whose delivery may still be tried.
#[derive(Debug, Clone)]
struct Open {
    intent: u64,
    /// The delivery's number in its subscription, as of now; 0 if that is not known.
    number: u64,
    attempts: u32,
    view: String,
    with_addresses: bool,
    basis: Option<String>,
    channel: String,
    host: Option<String>,
}

impl Open {
    fn of(number: u64, intent: &Intent) -> Self {
        let Intent { view, with_addresses, basis, channel, host, .. } = intent.clone();
        Self { intent: 0, number, attempts: 0, view, with_addresses, basis, channel, host }
    }

    fn has_terms_of(&self, intent: &Intent) -> bool {
        let goes_there = self.channel == intent.channel && self.host == intent.host;
        goes_there && self.view == intent.view && self.with_addresses == intent.with_addresses && self.basis == intent.basis
    }
}

/// What was read back, record by record.
#[derive(Debug, Default)]
pub struct Memory {
    open: HashMap<Uuid, HashMap<String, Open>>,
    /// By its number, whose intent it is.
    intents: HashMap<u64, (Uuid, String)>,
}

impl Memory {
    /// The next record.
    pub fn take(&mut self, link: &Link) {
        match &link.entry {
            Entry::Intent(intent) => {
                let Intent { subscription, delivery, .. } = &**intent;
                let open = Open { intent: link.number, ..Open::of(0, intent) };
                // One with other terms is closed by it.
                if let Some(before) = self.open.entry(*subscription).or_default().insert(delivery.clone(), open) {
                    self.intents.remove(&before.intent);
                }
                self.intents.insert(link.number, (*subscription, delivery.clone()));
            }
            Entry::Outcome(Outcome { intent, how: How::Delivered, .. }) => {
                if let Some((subscription, delivery)) = self.intents.remove(intent)
                    && let Some(of_subscription) = self.open.get_mut(&subscription)
                {
                    of_subscription.remove(&delivery);
                }
            }
            Entry::Outcome(Outcome { intent, attempt, .. }) => {
                if let Some((subscription, delivery)) = self.intents.get(intent)
                    && let Some(open) = self.open.get_mut(subscription).and_then(|of_subscription| of_subscription.get_mut(delivery))
                {
                    open.attempts = *attempt;
                }
            }
            Entry::Reading(_) | Entry::Checkpoint { .. } => {}
        }
    }
}

/// The book of one controller.
#[derive(Debug)]
pub struct Book {
    chain: Chain,
    open: HashMap<Uuid, HashMap<String, Open>>,
    open_max: usize,
}

impl Book {
    /// Goes on where the records end.
    pub fn behind(chain: Chain, memory: Memory) -> Self {
        Self { chain, open: memory.open, open_max: OPEN_MAX }
    }

    /// Where it stands.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Something is about to leave, as that number of its subscription.
    pub fn intend(&mut self, at: Timestamp, number: u64, intent: Intent) -> Result<Intended, serde_json::Error> {
        let of_subscription = self.open.entry(intent.subscription).or_default();
        if let Some(open) = of_subscription.get_mut(&intent.delivery).filter(|open| open.has_terms_of(&intent)) {
            open.number = number;
            return Ok(Intended::Standing(open.intent));
        }
        let (delivery, open) = (intent.delivery.clone(), Open::of(number, &intent));
        let written = self.chain.append(at, Entry::Intent(Box::new(intent)))?;
        of_subscription.insert(delivery, Open { intent: written.0, ..open });
        self.forget_old();
        Ok(Intended::New(written))
    }

    /// What was given up after its intent, and is never told of, must not stay for ever.
    fn forget_old(&mut self) {
        // Counted by subscriptions, of which there are few beside intents; and halved, so that it is seldom.
        if self.open.values().map(HashMap::len).sum::<usize>() <= self.open_max {
            return;
        }
        let mut intents: Vec<u64> =
            self.open.values().flat_map(|of_subscription| of_subscription.values().map(|open| open.intent)).collect();
        let middle = intents.len() / 2;
        let (_, oldest_kept, _) = intents.select_nth_unstable(middle);
        let oldest_kept = *oldest_kept;
        self.open.retain(|_, of_subscription| {
            of_subscription.retain(|_, open| open.intent >= oldest_kept);
            !of_subscription.is_empty()
        });
    }

    /// How an attempt went; nothing to be written if its intent is closed.
    pub fn ended(
        &mut self,
        at: Timestamp,
        subscription: Uuid,
        delivery: &str,
        how: How,
        status: Option<u16>,
    ) -> Result<Option<Written>, serde_json::Error> {
        let Some(of_subscription) = self.open.get_mut(&subscription) else { return Ok(None) };
        let Some(open) = of_subscription.get_mut(delivery) else { return Ok(None) };
        open.attempts += 1;
        let outcome = Outcome { intent: open.intent, attempt: open.attempts, how, status };
        match how {
            How::Delivered => drop(of_subscription.remove(delivery)),
            // Nobody was shown it under that number.
            How::Unsent => open.number = 0,
            How::Failed => {}
        }
        self.chain.append(at, Entry::Outcome(outcome)).map(Some)
    }

    /// How many outcomes there will be if a receiver that fetches has taken everything up to a number.
    pub fn to_be_taken(&self, subscription: Uuid, number: u64) -> usize {
        let of_subscription = self.open.get(&subscription).into_iter().flat_map(HashMap::values);
        of_subscription.filter(|open| (1..=number).contains(&open.number)).count()
    }

    /// A receiver that fetches has taken everything up to a number: the outcomes of the first so many.
    pub fn taken(&mut self, at: Timestamp, subscription: Uuid, number: u64, limit: usize) -> Result<Vec<Written>, serde_json::Error> {
        let Some(of_subscription) = self.open.get_mut(&subscription) else { return Ok(Vec::new()) };
        let is_taken = |open: &Open| (1..=number).contains(&open.number);
        let mut taken: Vec<(u64, u32)> =
            of_subscription.values().filter(|open| is_taken(open)).map(|open| (open.intent, open.attempts + 1)).collect();
        taken.sort_unstable();
        taken.truncate(limit);
        let last = taken.last().map_or(0, |(intent, _)| *intent);
        of_subscription.retain(|_, open| !is_taken(open) || open.intent > last);
        let outcome = |(intent, attempt)| Entry::Outcome(Outcome { intent, attempt, how: How::Delivered, status: None });
        taken.into_iter().map(|taken| self.chain.append(at, outcome(taken))).collect()
    }

    /// Nothing of a subscription is tried any more.
    pub fn forget(&mut self, subscription: Uuid) {
        self.open.remove(&subscription);
    }

    /// Somebody looks at the records.
    pub fn read(&mut self, at: Timestamp, reading: Reading) -> Result<Written, serde_json::Error> {
        self.chain.append(at, Entry::Reading(reading))
    }

    /// Vouches for everything so far.
    pub fn checkpoint(&mut self, at: Timestamp, key: &SigningKey) -> Result<Written, serde_json::Error> {
        self.chain.checkpoint(at, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disclosure::Verifier;

    const CONTROLLER: &str = "312345676";

    fn intent(delivery: &str, view: &str) -> Intent {
        Intent {
            delivery: delivery.to_owned(),
            event: "0198".to_owned(),
            ce_type: "no.ryggrad.x.v1".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            offset: 7,
            person: None,
            receiver: "310000019".parse().unwrap(),
            supplier: None,
            client: None,
            subscription: Uuid::nil(),
            channel: "webhook".to_owned(),
            host: None,
            view: view.to_owned(),
            with_addresses: false,
            basis: None,
            purpose: None,
        }
    }

    fn at() -> Timestamp {
        "2026-01-31T08:00:00Z".parse().unwrap()
    }

    fn empty() -> Book {
        Book::behind(Chain::new(CONTROLLER.parse().unwrap()), Memory::default())
    }

    /// The number of the intent, and whether it is to be written.
    fn intend(book: &mut Book, delivery: &str, number: u64, view: &str, log: &mut Vec<Vec<u8>>) -> (u64, bool) {
        match book.intend(at(), number, intent(delivery, view)).unwrap() {
            Intended::Standing(number) => (number, false),
            Intended::New((number, bytes)) => {
                log.push(bytes);
                (number, true)
            }
        }
    }

    /// What a restart makes of the records.
    fn again(log: &[Vec<u8>]) -> Book {
        let controller = CONTROLLER.parse().unwrap();
        let (mut verifier, mut memory) = (Verifier::new(controller, Vec::new(), Timestamp::MAX, 9), Memory::default());
        log.iter().enumerate().for_each(|(offset, bytes)| memory.take(&verifier.take(offset as i64, bytes).unwrap()));
        let report = verifier.finish(None);
        assert_eq!(report.faults, []);
        Book::behind(Chain::behind(controller, &report, None), memory)
    }

    #[test]
    fn a_delivery_has_one_intent_until_its_terms_change_or_it_is_delivered() {
        let (mut book, mut log) = (empty(), Vec::new());
        assert_eq!(intend(&mut book, "a", 1, "full", &mut log), (1, true));
        assert_eq!(intend(&mut book, "a", 1, "full", &mut log), (1, false));
        let failed = book.ended(at(), Uuid::nil(), "a", How::Failed, Some(500)).unwrap().unwrap();
        log.push(failed.1);
        assert_eq!(intend(&mut book, "a", 1, "full", &mut log), (1, false));
        assert_eq!(intend(&mut book, "a", 1, "slim", &mut log), (3, true));
        assert_eq!(intend(&mut book, "b", 2, "full", &mut log), (4, true));
        // To another host, or by another channel: that is something else to record.
        let elsewhere = Intent { host: Some("b.example.org".to_owned()), ..intent("c", "full") };
        assert!(matches!(empty().intend(at(), 1, elsewhere.clone()).unwrap(), Intended::New((1, _))));
        let mut other = empty();
        other.intend(at(), 1, elsewhere).unwrap();
        assert!(matches!(other.intend(at(), 1, intent("c", "full")).unwrap(), Intended::New((2, _))));

        // A restart knows as much.
        let mut book = again(&log);
        assert_eq!(intend(&mut book, "a", 1, "slim", &mut log), (3, false));
        let delivered = book.ended(at(), Uuid::nil(), "a", How::Delivered, Some(204)).unwrap().unwrap();
        log.push(delivered.1);
        assert_eq!(book.ended(at(), Uuid::nil(), "a", How::Delivered, Some(204)).unwrap(), None);
        // Delivered once more, for whatever reason: that is another disclosure.
        assert_eq!(intend(&mut again(&log), "a", 1, "slim", &mut Vec::new()), (6, true));
        assert_eq!(intend(&mut again(&log), "b", 2, "full", &mut Vec::new()), (4, false));
    }

    #[test]
    fn who_fetches_takes_what_it_was_shown_up_to_a_number() {
        let (mut book, mut log) = (empty(), Vec::new());
        for (delivery, number) in [("a", 1), ("b", 2), ("c", 3)] {
            intend(&mut book, delivery, number, "full", &mut log);
        }
        let outcomes = |written: Vec<Written>| -> Vec<u64> {
            written
                .iter()
                .map(|(_, bytes)| match serde_json::from_slice::<Link>(bytes).unwrap().entry {
                    Entry::Outcome(Outcome { intent, attempt: 1, how: How::Delivered, .. }) => intent,
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        let no: Vec<u64> = Vec::new();
        assert_eq!((book.to_be_taken(Uuid::nil(), 2), book.to_be_taken(Uuid::from_u128(1), 9)), (2, 0));
        assert_eq!(outcomes(book.taken(at(), Uuid::nil(), 2, 1).unwrap()), [1]);
        assert_eq!(outcomes(book.taken(at(), Uuid::nil(), 2, 9).unwrap()), [2]);
        assert_eq!(outcomes(book.taken(at(), Uuid::nil(), 2, 9).unwrap()), no);
        assert_eq!(outcomes(book.taken(at(), Uuid::from_u128(1), 9, 9).unwrap()), no);
        assert_eq!(outcomes(book.taken(at(), Uuid::nil(), 9, 9).unwrap()), [3]);
        // What is only remembered was shown to nobody in this life.
        let mut book = again(&log);
        assert!(outcomes(book.taken(at(), Uuid::nil(), 9, 9).unwrap()).is_empty());
    }

    #[test]
    fn what_is_never_told_of_is_forgotten_oldest_first() {
        let (mut book, mut log) = (Book { open_max: 10, ..empty() }, Vec::new());
        for number in 1..=11 {
            intend(&mut book, &number.to_string(), number, "full", &mut log);
        }
        // The older half was written once more, the younger is known.
        assert_eq!(intend(&mut book, "1", 1, "full", &mut log), (12, true));
        assert_eq!(intend(&mut book, "11", 11, "full", &mut log), (11, false));
    }
}
