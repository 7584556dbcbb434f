//! One controller's records as they are written: one intent for each delivery, again only if its terms have
//! changed, and what became of it.
//!
//! Intents and outcomes wait until they are written, as many together as have come. An intent stays open until the
//! receiver has taken the event; what a restart reads back of the records is open again. Must never
//! take two deliveries for one, nor close what may still be tried.

use std::collections::HashMap;

use jiff::Timestamp;
use uuid::Uuid;

use super::chain::Chain;
use super::entry::{Entry, How, Intent, Link, Outcome, Reading, TOGETHER_MAX, intent_number};
use crate::asymmetric::SigningKey;

/// Intents that are open at a time. Beyond it the older half is forgotten: at worst one is written once more.
const OPEN_MAX: usize = 400_000;

/// A record, to be written: its number and its bytes.
pub type Written = (u64, Vec<u8>);

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
        let Intent { view, with_addresses, basis, channel, host, .. } = intent;
        let (view, basis, channel, host) = (view.clone(), basis.clone(), channel.clone(), host.clone());
        Self { intent: 0, number, attempts: 0, view, with_addresses: *with_addresses, basis, channel, host }
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
        link.intents().for_each(|(number, intent)| self.take_intent(number, intent));
        link.outcomes().iter().for_each(|outcome| self.take_outcome(outcome));
    }

    fn take_intent(&mut self, number: u64, intent: &Intent) {
        let Intent { subscription, delivery, .. } = intent;
        let open = Open { intent: number, ..Open::of(0, intent) };
        // One with other terms is closed by it.
        if let Some(before) = self.open.entry(*subscription).or_default().insert(delivery.clone(), open) {
            self.intents.remove(&before.intent);
        }
        self.intents.insert(number, (*subscription, delivery.clone()));
    }

    fn take_outcome(&mut self, outcome: &Outcome) {
        let Some((subscription, delivery)) = self.intents.get(&outcome.intent) else { return };
        let Some(of_subscription) = self.open.get_mut(subscription) else { return };
        if outcome.how != How::Delivered {
            if let Some(open) = of_subscription.get_mut(delivery) {
                open.attempts = outcome.attempt;
            }
            return;
        }
        of_subscription.remove(delivery);
        self.intents.remove(&outcome.intent);
    }
}

/// The book of one controller.
#[derive(Debug)]
pub struct Book {
    chain: Chain,
    open: HashMap<Uuid, HashMap<String, Open>>,
    /// Of all subscriptions together.
    open_count: usize,
    open_max: usize,
    /// Not written yet: the next records are theirs.
    intents: Vec<Intent>,
    /// Not written yet.
    outcomes: Vec<Outcome>,
}

impl Book {
    /// Goes on where the records end.
    pub fn behind(chain: Chain, memory: Memory) -> Self {
        let open_count = memory.open.values().map(HashMap::len).sum();
        Self { chain, open: memory.open, open_count, open_max: OPEN_MAX, intents: Vec::new(), outcomes: Vec::new() }
    }

    /// Where it stands.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Something is about to leave, as that number of its subscription: the intent's number. It stands already, or waits
    /// to be written.
    pub fn intend(&mut self, number: u64, intent: Intent) -> u64 {
        let record = self.chain.head().number + 1 + (self.intents.len() / TOGETHER_MAX) as u64;
        let place = self.intents.len() % TOGETHER_MAX;
        let of_subscription = self.open.entry(intent.subscription).or_default();
        if let Some(open) = of_subscription.get_mut(&intent.delivery).filter(|open| open.has_terms_of(&intent)) {
            open.number = number;
            return open.intent;
        }
        let open = Open { intent: intent_number(record, place), ..Open::of(number, &intent) };
        let standing = open.intent;
        // One with other terms is closed by it.
        let before = of_subscription.insert(intent.delivery.clone(), open);
        self.open_count += usize::from(before.is_none());
        self.intents.push(intent);
        self.forget_old();
        standing
    }

    /// What was given up after its intent, and is never told of, must not stay for ever.
    fn forget_old(&mut self) {
        if self.open_count <= self.open_max {
            return;
        }
        // Halved, so that it is seldom.
        let mut intents: Vec<u64> =
            self.open.values().flat_map(|of_subscription| of_subscription.values().map(|open| open.intent)).collect();
        let middle = intents.len() / 2;
        let (_, oldest_kept, _) = intents.select_nth_unstable(middle);
        let oldest_kept = *oldest_kept;
        self.open.retain(|_, of_subscription| {
            of_subscription.retain(|_, open| open.intent >= oldest_kept);
            !of_subscription.is_empty()
        });
        self.open_count = self.open.values().map(HashMap::len).sum();
    }

    /// How an attempt went. Whether there is something to write: not if its intent is closed.
    pub fn ended(&mut self, subscription: Uuid, delivery: &str, how: How, status: Option<u16>) -> bool {
        let Some(of_subscription) = self.open.get_mut(&subscription) else { return false };
        let Some(open) = of_subscription.get_mut(delivery) else { return false };
        open.attempts += 1;
        self.outcomes.push(Outcome { intent: open.intent, attempt: open.attempts, how, status });
        match how {
            How::Delivered => {
                of_subscription.remove(delivery);
                self.open_count -= 1;
            }
            // Nobody was shown it under that number.
            How::Unsent => open.number = 0,
            How::Failed => {}
        }
        true
    }

    /// A receiver that fetches has taken everything up to a number. Whether there is something to write.
    pub fn taken(&mut self, subscription: Uuid, number: u64) -> bool {
        let Some(of_subscription) = self.open.get_mut(&subscription) else { return false };
        let taken = of_subscription.extract_if(|_, open| (1..=number).contains(&open.number));
        let mut taken: Vec<(u64, u32)> = taken.map(|(_, open)| (open.intent, open.attempts + 1)).collect();
        taken.sort_unstable();
        self.open_count -= taken.len();
        let outcome = |(intent, attempt)| Outcome { intent, attempt, how: How::Delivered, status: None };
        let is_any = !taken.is_empty();
        self.outcomes.extend(taken.into_iter().map(outcome));
        is_any
    }

    /// Nothing of a subscription is tried any more.
    pub fn forget(&mut self, subscription: Uuid) {
        self.open_count -= self.open.remove(&subscription).map_or(0, |of_subscription| of_subscription.len());
    }

    /// Writes what waits: intents first, whose numbers were given out.
    pub fn write(&mut self, at: Timestamp) -> Result<Vec<Written>, serde_json::Error> {
        let mut written = Vec::new();
        for of in together(&mut self.intents) {
            written.push(self.chain.append(at, Entry::Intents { of })?);
        }
        for of in together(&mut self.outcomes) {
            written.push(self.chain.append(at, Entry::Outcomes { of })?);
        }
        Ok(written)
    }

    /// Somebody looks at the records: written behind what waits.
    pub fn read(&mut self, at: Timestamp, reading: Reading) -> Result<Vec<Written>, serde_json::Error> {
        let mut written = self.write(at)?;
        written.push(self.chain.append(at, Entry::Reading(reading))?);
        Ok(written)
    }

    /// Vouches for everything so far: written behind what waits.
    pub fn checkpoint(&mut self, at: Timestamp, key: &SigningKey) -> Result<Vec<Written>, serde_json::Error> {
        let mut written = self.write(at)?;
        written.push(self.chain.checkpoint(at, key)?);
        Ok(written)
    }
}

/// In the order in which they came, as many at a time as fit.
fn together<T>(waiting: &mut Vec<T>) -> impl Iterator<Item = Vec<T>> + use<T> {
    let mut waiting = std::mem::take(waiting).into_iter();
    std::iter::from_fn(move || Some(waiting.by_ref().take(TOGETHER_MAX).collect::<Vec<T>>()).filter(|of| !of.is_empty()))
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

    /// The number of the intent, written at once if it is new.
    fn intend(book: &mut Book, delivery: &str, number: u64, view: &str, log: &mut Vec<Vec<u8>>) -> u64 {
        let standing = book.intend(number, intent(delivery, view));
        write(book, log);
        standing
    }

    fn write(book: &mut Book, log: &mut Vec<Vec<u8>>) {
        log.extend(book.write(at()).unwrap().into_iter().map(|(_, bytes)| bytes));
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

    fn entry(bytes: &[u8]) -> Entry {
        serde_json::from_slice::<Link>(bytes).unwrap().entry
    }

    fn outcomes(bytes: &[u8]) -> Vec<(u64, u32, How)> {
        match entry(bytes) {
            Entry::Outcomes { of } => of.iter().map(|outcome| (outcome.intent, outcome.attempt, outcome.how)).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_delivery_has_one_intent_until_its_terms_change_or_it_is_delivered() {
        let (mut book, mut log) = (empty(), Vec::new());
        assert_eq!(intend(&mut book, "a", 1, "full", &mut log), 1_000);
        assert_eq!(intend(&mut book, "a", 1, "full", &mut log), 1_000);
        book.ended(Uuid::nil(), "a", How::Failed, Some(500));
        write(&mut book, &mut log);
        assert_eq!(intend(&mut book, "a", 1, "full", &mut log), 1_000);
        assert_eq!(intend(&mut book, "a", 1, "slim", &mut log), 3_000);
        assert_eq!(intend(&mut book, "b", 2, "full", &mut log), 4_000);
        assert_eq!(log.len(), 4);
        // To another host, or by another channel: that is something else to record.
        let elsewhere = Intent { host: Some("b.example.org".to_owned()), ..intent("c", "full") };
        let mut other = empty();
        assert_eq!([other.intend(1, elsewhere), other.intend(1, intent("c", "full"))], [1_000, 1_001]);

        // A restart knows as much.
        let mut book = again(&log);
        assert_eq!(intend(&mut book, "a", 1, "slim", &mut log), 3_000);
        book.ended(Uuid::nil(), "a", How::Delivered, Some(204));
        write(&mut book, &mut log);
        book.ended(Uuid::nil(), "a", How::Delivered, Some(204));
        assert_eq!(book.write(at()).unwrap(), []);
        // Delivered once more, for whatever reason: that is another disclosure.
        assert_eq!(intend(&mut again(&log), "a", 1, "slim", &mut Vec::new()), 6_000);
        assert_eq!(intend(&mut again(&log), "b", 2, "full", &mut Vec::new()), 4_000);
    }

    #[test]
    fn what_comes_together_is_written_together_and_each_has_the_number_it_was_told() {
        let (mut book, mut log) = (empty(), Vec::new());
        let deliveries = 2 * TOGETHER_MAX + 1;
        let told: Vec<u64> = (0..deliveries).map(|delivery| book.intend(1, intent(&delivery.to_string(), "full"))).collect();
        // Ended before it is written, as one whose time to be recorded was up may be.
        book.ended(Uuid::nil(), "0", How::Unsent, None);
        let reading = Reading { by: None, client: None, asked: "verify".to_owned(), purpose: None };
        log.extend(book.read(at(), reading).unwrap().into_iter().map(|(_, bytes)| bytes));
        let mut written = Vec::new();
        for bytes in &log {
            let link: Link = serde_json::from_slice(bytes).unwrap();
            written.extend(link.intents().map(|(number, intent)| (number, intent.delivery.clone())));
        }
        assert_eq!(written, told.iter().zip(0..).map(|(number, delivery)| (*number, delivery.to_string())).collect::<Vec<_>>());
        assert_eq!(outcomes(&log[3]), [(1_000, 1, How::Unsent)]);
        assert!(matches!(entry(&log[4]), Entry::Reading(_)));
        let mut book = again(&log);
        let again: Vec<u64> = (0..deliveries).map(|delivery| book.intend(1, intent(&delivery.to_string(), "full"))).collect();
        assert_eq!((again, book.write(at()).unwrap()), (told, Vec::new()));
    }

    #[test]
    fn who_fetches_takes_what_it_was_shown_up_to_a_number() {
        let (mut book, mut log) = (empty(), Vec::new());
        let numbers = [("a", 1), ("b", 2), ("c", 3)].map(|(delivery, number)| intend(&mut book, delivery, number, "full", &mut log));
        let [a, b, c] = numbers;
        book.ended(Uuid::nil(), "b", How::Failed, None);
        book.taken(Uuid::nil(), 2);
        book.taken(Uuid::from_u128(1), 9);
        book.taken(Uuid::nil(), 2);
        let written = book.write(at()).unwrap();
        assert_eq!(outcomes(&written[0].1), [(b, 1, How::Failed), (a, 1, How::Delivered), (b, 2, How::Delivered)]);
        book.taken(Uuid::nil(), 9);
        assert_eq!(outcomes(&book.write(at()).unwrap()[0].1), [(c, 1, How::Delivered)]);
        // What is only remembered was shown to nobody in this life.
        let mut book = again(&log);
        book.taken(Uuid::nil(), 9);
        assert_eq!(book.write(at()).unwrap(), []);
    }

    #[test]
    fn what_is_never_told_of_is_forgotten_oldest_first() {
        let (mut book, mut log) = (Book { open_max: 10, ..empty() }, Vec::new());
        for number in 1..=11 {
            intend(&mut book, &number.to_string(), number, "full", &mut log);
        }
        // The older half was written once more, the younger is known.
        assert_eq!(intend(&mut book, "1", 1, "full", &mut log), 12_000);
        assert_eq!(intend(&mut book, "11", 11, "full", &mut log), 11_000);
    }
}
