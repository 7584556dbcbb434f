//! What came to one receiver, in few bytes an event, and whether that is what it was owed.
//!
//! For tests with too many deliveries to keep them word for word: contents are compared by hash.
//! Whether something was taken is the receiver's word, never the bridge's.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use ryggrad_bridge_core::settings::Order;
use ryggrad_schemas::LogRecord;
use serde_json::Value;

use crate::events::Published;

/// Of each rule that many are told.
const SHOWN_OF_A_KIND_MAX: usize = 3;

/// One event of the topic.
#[derive(Debug, Clone)]
struct Fact {
    key: String,
    partition: i32,
    hash: u64,
}

/// Everything that was published and stands in the topic, by its position.
#[derive(Debug, Default)]
pub struct Truth(BTreeMap<u64, Fact>);

impl Truth {
    /// Panics where the topic does not hold exactly what was published, each key in its order.
    pub fn of(published: &[Published], records: &[LogRecord]) -> Self {
        let by_id: HashMap<&str, &Published> =
            published.iter().map(|published| (published.event["id"].as_str().expect("an id"), published)).collect();
        let mut truth = Self::default();
        let mut latest: HashMap<i32, u64> = HashMap::new();
        for record in records.iter().filter(|record| record.value.is_some()) {
            let published = by_id[record.header("ce_id").expect("an event")];
            let before = latest.insert(record.partition, published.position);
            assert!(before.is_none_or(|before| before < published.position), "the topic is in the order of publication");
            let fact = Fact { key: published.key.clone(), partition: record.partition, hash: hash_of(&published.event) };
            assert!(truth.0.insert(published.position, fact).is_none(), "{published:?} stands there twice");
        }
        assert_eq!(truth.0.len(), published.len(), "everything published is in the topic");
        truth
    }

    /// The same for whoever is only told of some keys.
    pub fn only(&self, keys: impl Fn(&str) -> bool) -> Self {
        Self(self.0.iter().filter(|(_, fact)| keys(&fact.key)).map(|(position, fact)| (*position, fact.clone())).collect())
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Serialised objects are sorted, so that equal events have equal texts.
fn hash_of(event: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    event.to_string().hash(&mut hasher);
    hasher.finish()
}

/// An event as it was delivered.
#[derive(Debug, Clone, Copy)]
pub struct Told {
    /// Its place in the feed that it tells of; 0 for a void notice.
    pub position: u64,
    /// Epoch and number.
    pub number: Option<(u64, u64)>,
    is_void: bool,
    hash: u64,
}

impl Told {
    /// Reads a CloudEvent in structured form.
    pub fn of(mut event: Value) -> Self {
        let mut number = |name| event.as_object_mut()?.remove(name)?.as_str()?.parse().ok();
        let number = Option::zip(number("deliveryepoch"), number("deliverynumber"));
        let position = event["data"]["posisjon"].as_str().and_then(|text| text.parse().ok()).unwrap_or_default();
        Self { position, number, is_void: event["type"] == "no.ryggrad.void.v1", hash: hash_of(&event) }
    }
}

/// How a request came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// `webhook-id`, but for what all of them begin with. None for what was fetched.
    pub id: Option<u128>,
    /// Whether its signature was good.
    pub verified: bool,
}

#[derive(Debug)]
struct Arrival {
    told: Told,
    request: usize,
    /// Moments count what happened at this receiver: arrivals and takings.
    came: u64,
    taken: Option<u64>,
}

/// All that came to one receiver.
#[derive(Debug, Default)]
pub struct Ledger {
    requests: Vec<Request>,
    arrivals: Vec<Arrival>,
    taken: HashSet<u64>,
    moment: u64,
    wrong: Vec<String>,
}

/// Figures of one receiver, or of many.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Receivers.
    pub receivers: usize,
    /// Requests.
    pub requests: usize,
    /// Events in them.
    pub events: usize,
    /// Events that were not taken that time.
    pub refused: usize,
    /// Takings of what had been taken before.
    pub repeated: usize,
    /// The most of these at one receiver.
    pub repeated_max: usize,
}

impl Tally {
    /// Adds another's figures.
    pub fn add(&mut self, other: Self) {
        self.receivers += other.receivers;
        self.requests += other.requests;
        self.events += other.events;
        self.refused += other.refused;
        self.repeated += other.repeated;
        self.repeated_max = self.repeated_max.max(other.repeated_max);
    }
}

/// What a receiver was promised.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// What must not overtake what; none for who fetches many at once.
    pub order: Option<Order>,
    /// How often it may have to take something again.
    pub repeated_max: usize,
    /// Its owner takes it back in the log now and then: what comes once more does so in a later
    /// round, under other numbers and names.
    pub is_rewound: bool,
}

impl Ledger {
    /// A request came with these events; which arrivals they are.
    pub fn came(&mut self, request: Request, events: impl IntoIterator<Item = Told>) -> std::ops::Range<usize> {
        let first = self.arrivals.len();
        for told in events {
            self.moment += 1;
            self.arrivals.push(Arrival { told, request: self.requests.len(), came: self.moment, taken: None });
        }
        self.requests.push(request);
        first..self.arrivals.len()
    }

    /// These arrivals are taken: whoever sent them is about to be told, or is never told.
    pub fn took(&mut self, arrivals: std::ops::Range<usize>) {
        self.moment += 1;
        for arrival in &mut self.arrivals[arrivals] {
            arrival.taken = Some(self.moment);
            if !arrival.told.is_void {
                self.taken.insert(arrival.told.position);
            }
        }
    }

    /// Something is wrong that only the receiver could see.
    pub fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    /// How many different events were taken.
    pub fn taken(&self) -> usize {
        self.taken.len()
    }

    /// Figures, and everything that is wrong.
    pub fn check(&self, truth: &Truth, promise: Promise) -> (Tally, Vec<String>) {
        let mut wrong = self.wrong.clone();
        self.check_contents(truth, promise.is_rewound, &mut wrong);
        self.check_numbers(truth, promise.is_rewound, &mut wrong);
        if !promise.is_rewound {
            self.check_ids(&mut wrong);
        }
        match promise.order {
            Some(Order::Key) => self.check_order(truth, |fact| fact.key.clone(), &mut wrong),
            Some(Order::Partition) => self.check_order(truth, |fact| fact.partition.to_string(), &mut wrong),
            Some(Order::None) | None => {}
        }
        let takings = self.arrivals.iter().filter(|arrival| arrival.taken.is_some()).count();
        let repeated = takings - self.taken.len();
        if repeated > promise.repeated_max && !promise.is_rewound {
            wrong.push(format!("duplicates: {repeated}, which is more than {}", promise.repeated_max));
        }
        let events = self.arrivals.len();
        let tally =
            Tally { receivers: 1, requests: self.requests.len(), events, refused: events - takings, repeated, repeated_max: repeated };
        (tally, wrong)
    }

    /// Every event was taken, word for word; nothing else came; every request was signed.
    fn check_contents(&self, truth: &Truth, is_rewound: bool, wrong: &mut Vec<String>) {
        let missing: Vec<u64> = truth.0.keys().filter(|position| !self.taken.contains(position)).copied().collect();
        if !missing.is_empty() {
            wrong.push(format!("conservation: {} never taken: {:?}", missing.len(), &missing[..missing.len().min(10)]));
        }
        let unknown = |told: &Told| truth.0.get(&told.position).is_none_or(|fact| fact.hash != told.hash);
        let strange = self.arrivals.iter().filter(|arrival| !(is_rewound && arrival.told.is_void) && unknown(&arrival.told));
        wrong.extend(strange.take(SHOWN_OF_A_KIND_MAX).map(|arrival| format!("conservation: nobody published {arrival:?}")));
        let unsigned = self.requests.iter().filter(|request| request.id.is_some() && !request.verified).count();
        if unsigned > 0 {
            wrong.push(format!("signatures: {unsigned} requests of {} with a bad one", self.requests.len()));
        }
    }

    /// One run of numbers without gaps, each of one event or void, each event of one number; the
    /// numbers of a key go with its events.
    fn check_numbers(&self, truth: &Truth, is_rewound: bool, wrong: &mut Vec<String>) {
        let (mut of_number, mut of_event) = (BTreeMap::<(u64, u64), Option<u64>>::new(), HashMap::<u64, (u64, u64)>::new());
        let mut faults = Vec::new();
        for arrival in &self.arrivals {
            let Told { position, number, is_void, .. } = arrival.told;
            let Some(number) = number else {
                faults.push(format!("numbers: none for {position}"));
                continue;
            };
            let event = (!is_void).then_some(position);
            let before = *of_number.entry(number).or_insert(event);
            // What was pending at a rewind is void since.
            if before != event && !(is_rewound && event.is_none()) {
                faults.push(format!("numbers: {number:?} is of {before:?} and of {event:?}"));
            }
            let before = if is_void { number } else { *of_event.entry(position).or_insert(number) };
            if before != number && !is_rewound {
                faults.push(format!("numbers: {position} is {before:?} and {number:?}"));
            }
        }
        let epochs: BTreeSet<u64> = of_number.keys().map(|(epoch, _)| *epoch).collect();
        if epochs.len() != 1 {
            faults.push(format!("numbers: epochs {epochs:?}, though no store was lost"));
        }
        let gaps: Vec<u64> = (1..).zip(of_number.keys()).filter(|(due, (_, number))| due != number).map(|(due, _)| due).take(3).collect();
        if !gaps.is_empty() {
            faults.push(format!("numbers: gaps at {gaps:?} of {}", of_number.len()));
        }
        let mut latest: HashMap<&str, u64> = HashMap::new();
        for (number, position) in of_number.iter().filter_map(|(number, event)| Some((number, (*event)?))) {
            let Some(fact) = truth.0.get(&position) else { continue };
            let before = latest.insert(&fact.key, position);
            if before.is_some_and(|before| before > position) && !is_rewound {
                faults.push(format!("numbers: {number:?} goes back in {} from {before:?} to {position}", fact.key));
            }
        }
        wrong.extend(faults.into_iter().take(SHOWN_OF_A_KIND_MAX));
    }

    /// One id for the same events in the same order, however often they come.
    fn check_ids(&self, wrong: &mut Vec<String>) {
        let mut members: Vec<Vec<u64>> = vec![Vec::new(); self.requests.len()];
        self.arrivals.iter().for_each(|arrival| members[arrival.request].push(arrival.told.position));
        let (mut of_id, mut of_members) = (HashMap::<u128, &[u64]>::new(), HashMap::<&[u64], u128>::new());
        let mut faults = Vec::new();
        for (request, members) in self.requests.iter().zip(&members) {
            let Some(id) = request.id else { continue };
            let (of_same_id, id_of_same) = (*of_id.entry(id).or_insert(members), *of_members.entry(members).or_insert(id));
            if of_same_id != members.as_slice() || id_of_same != id {
                faults.push(format!("ids: {id:x} of {members:?}, but also {of_same_id:?} and {id_of_same:x}"));
            }
        }
        wrong.extend(faults.into_iter().take(SHOWN_OF_A_KIND_MAX));
    }

    /// Nothing of a lane comes before what precedes it was taken, or in one batch behind it.
    fn check_order(&self, truth: &Truth, lane: impl Fn(&Fact) -> String, wrong: &mut Vec<String>) {
        let (mut last, mut predecessor): (HashMap<String, u64>, HashMap<u64, u64>) = Default::default();
        for (position, fact) in &truth.0 {
            if let Some(before) = last.insert(lane(fact), *position) {
                predecessor.insert(*position, before);
            }
        }
        let (mut first_taken, mut latest_request): (HashMap<u64, u64>, HashMap<u64, usize>) = Default::default();
        for arrival in self.arrivals.iter() {
            if let Some(moment) = arrival.taken {
                let first = first_taken.entry(arrival.told.position).or_insert(moment);
                *first = moment.min(*first);
            }
        }
        let mut faults = Vec::new();
        for arrival in &self.arrivals {
            let position = arrival.told.position;
            latest_request.insert(position, arrival.request);
            let Some(before) = predecessor.get(&position) else { continue };
            let was_taken = first_taken.get(before).is_some_and(|taken| *taken < arrival.came);
            if !was_taken && latest_request.get(before) != Some(&arrival.request) {
                faults.push(format!(
                    "order: {position} came at {} before {before} was taken at {:?}",
                    arrival.came,
                    first_taken.get(before)
                ));
            }
        }
        wrong.extend(faults.into_iter().take(SHOWN_OF_A_KIND_MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const PROMISE: Promise = Promise { order: Some(Order::Key), repeated_max: 1, is_rewound: false };

    fn event(position: u64) -> Value {
        json!({"id": position.to_string(), "data": {"posisjon": position.to_string()}})
    }

    fn told(position: u64, number: u64) -> Told {
        let mut event = event(position);
        (event["deliveryepoch"], event["deliverynumber"]) = (json!("1"), json!(number.to_string()));
        Told::of(event)
    }

    /// Three events of one key and one of another.
    fn truth() -> Truth {
        let fact = |position: u64, key: &str| (position, Fact { key: key.to_owned(), partition: 0, hash: hash_of(&event(position)) });
        Truth([fact(1, "a"), fact(2, "b"), fact(3, "a"), fact(4, "a")].into())
    }

    /// Each delivery: its position, its number, its id, and whether it is taken.
    fn wrong(deliveries: &[(u64, u64, u128, bool)]) -> String {
        let mut ledger = Ledger::default();
        for (position, number, id, taken) in deliveries {
            let arrivals = ledger.came(Request { id: Some(*id), verified: true }, [told(*position, *number)]);
            if *taken {
                ledger.took(arrivals);
            }
        }
        ledger.check(&truth(), PROMISE).1.join("; ")
    }

    #[test]
    fn every_rule_finds_what_breaks_it() {
        let (one, two, three, four) = ((1, 1, 1, true), (2, 2, 2, true), (3, 3, 3, true), (4, 4, 4, true));
        assert_eq!(wrong(&[one, two, three, four]), "");
        assert_eq!(wrong(&[(1, 1, 1, false), two, one, three, three, four]), "", "a retry and one repetition");
        for (deliveries, rule) in [
            (vec![one, two, three], "conservation"),
            (vec![one, two, three, four, (9, 5, 9, true)], "conservation"),
            (vec![one, three, two, four, two, two], "duplicates"),
            (vec![three, one, two, four], "order"),
            (vec![(1, 1, 1, false), three, one, two, four], "order"),
            (vec![one, two, three, (4, 5, 4, true)], "numbers: gaps"),
            (vec![one, two, three, (4, 3, 4, true)], "numbers: (1, 3) is of"),
            (vec![one, two, three, four, (4, 5, 4, true)], "numbers: 4 is"),
            (vec![(1, 3, 1, true), two, (3, 1, 3, true), four], "numbers: (1, 3) goes back"),
            (vec![one, two, three, (4, 4, 3, true)], "ids"),
            (vec![one, two, three, (4, 4, 5, false), four], "ids"),
        ] {
            assert!(wrong(&deliveries).contains(rule), "{rule}: {}", wrong(&deliveries));
        }
    }

    #[test]
    fn a_batch_may_hold_a_key_twice_in_its_order() {
        for (members, good) in [([1, 2, 3, 4], true), ([1, 2, 4, 3], false)] {
            let mut ledger = Ledger::default();
            let request = Request { id: Some(7), verified: true };
            ledger.came(request, members.map(|position| told(position, position)));
            let again = ledger.came(request, members.map(|position| told(position, position)));
            ledger.took(again);
            assert_eq!(ledger.check(&truth(), PROMISE).1.is_empty(), good);
        }
    }
}
