//! `ryggrad bench watchlist`: what watch lists cost each event.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Args;
use ryggrad_bridge_core::access::Caller;
use ryggrad_bridge_core::cursor::{Cursor, Place};
use ryggrad_bridge_core::endpoint;
use ryggrad_bridge_core::hub::gate::GateLimits;
use ryggrad_bridge_core::hub::{Action, Guard, Hub, HubLimits, Input, Newcomer, Watch, Wish};
use ryggrad_bridge_core::machine::{Limits, Mode, Numbering, Policy};
use ryggrad_bridge_core::outcome::Outcome;
use ryggrad_bridge_core::record::Record;
use ryggrad_bridge_core::removal::Leaving;
use ryggrad_bridge_core::retry::RetryPolicy;
use ryggrad_bridge_core::settings::{OnExhausted, Order};
use ryggrad_bridge_core::watch_list::{Fingerprints, Index, Slot};
use ryggrad_schemas::LogRecord;
use ryggrad_schemas::cloudevents::{AVRO, BorrowedAttributes};
use ryggrad_schemas::identifiers::KeyDomain;
use uuid::Uuid;

use super::{median, print_bounded};
use crate::output::{Output, note};

/// How much dearer an event may become.
const RATIO_MAX: f64 = 1.3;
/// Subscriptions that want each event.
const MATCHING: usize = 10;
/// Spreads the lists of a key; has no divisor in common with numbers of lists that are round.
const STRIDE: usize = 101;
/// The type of the catalogue whose events lists are about.
const CE_TYPE: &str = "no.ryggrad.grunndata.virksomhet.endret.v1";
const DOMAIN: KeyDomain = KeyDomain::Organisasjonsnummer;
const PARTITIONS: i32 = 6;
/// Records of one hand-over of the tail.
const TOGETHER: usize = 100;
/// Where keys of synthetic organisations begin.
const FIRST_NUMBER: u64 = 300_000_000;

/// What watch lists cost each event; at most 1.3 of none
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
EXAMPLES
  ./ryggrad bench watchlist                                  1000 lists of 10000 keys
  ./ryggrad bench watchlist --lists 10000 --keys 1000

WHAT IS COMPARED
  lists     as many subscriptions as lists, one each, all of them to the same type. Every key is in
            10 lists, so that 10 of the subscriptions want each event.
  none      as many subscriptions without a list, to types of which each is wanted by 10 of them.

  The hub alone, on one thread, without Kafka or HTTP: an event comes with the tail, is matched, numbered,
  committed, attempted, answered. The figure is the time for each event. Rounds take turns; figures are
  medians. The memory is the index's own count, and what the process has grown by.")]
pub struct WatchlistArgs {
    /// Lists, and subscriptions
    #[arg(long, value_name = "COUNT", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=10_000))]
    lists: u32,
    /// Keys of each list, about
    #[arg(long, value_name = "COUNT", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    keys: u32,
    /// Events in each round
    #[arg(long, value_name = "COUNT", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    events: u32,
    /// Measured rounds, after one to warm up
    #[arg(long, value_name = "COUNT", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
}

/// Measures and prints.
pub fn run(args: &WatchlistArgs) -> anyhow::Result<()> {
    let lists = args.lists as usize;
    ensure!(!lists.is_multiple_of(STRIDE), "{STRIDE} must not divide the number of lists");
    let population = valid_keys(lists * args.keys as usize / MATCHING);
    let (before, started) = (resident_bytes()?, Instant::now());
    let index = Arc::new(RwLock::new(filled(lists, &population)));
    let (memberships, bytes) = {
        let index = index.read().unwrap_or_else(PoisonError::into_inner);
        (index.memberships() as f64, index.bytes() as f64)
    };
    let grown = resident_bytes()?.saturating_sub(before) as f64;
    note(format!("· {lists} lists with {memberships:.0} keys together ({:.1} s)", started.elapsed().as_secs_f64()));
    let caller = Caller::new("310000000".parse()?, None);
    let mut ours = Contestant::new(caller, lists, |list| (CE_TYPE.to_owned(), Some(Uuid::from_u128(list as u128))));
    ours.hub = ours.hub.watching(Box::new(Locked(Arc::clone(&index))));
    let mut none = Contestant::new(caller, lists, |list| (own_type(list, lists), None));
    let (mut costs, mut baseline) = (Vec::new(), Vec::new());
    for run in 0..=args.runs {
        // Another key for each event, far from the one before.
        let drawn = |event: u32| population[(event as usize + run as usize * args.events as usize) * 7_919 % population.len()];
        let cost = ours.round((0..args.events).map(|event| (CE_TYPE.to_owned(), drawn(event))))?;
        let bare = none.round((0..args.events).map(|event| (own_type(first_list(drawn(event), lists), lists), drawn(event))))?;
        let warm_up = if run == 0 { " (warm-up)" } else { "" };
        note(format!("· round {run} of {}{warm_up}: {cost:.2} µs an event with lists, {bare:.2} without", args.runs));
        if run > 0 {
            costs.push(cost);
            baseline.push(bare);
        }
    }
    let middle = |values: &[f64]| median(values).context("nothing was measured");
    let mut stdout = Output::stdout();
    stdout.line(&format!("figure watchlist-index {:.1} bytes/key, {:.0} MiB", bytes / memberships, bytes / 1_048_576.0))?;
    stdout.line(&format!("figure watchlist-grown {:.1} bytes/key", grown / memberships))?;
    stdout.line(&format!("figure watchlist {:.2} µs/event", middle(&costs)?))?;
    stdout.line(&format!("figure watchlist-baseline {:.2} µs/event", middle(&baseline)?))?;
    print_bounded(&mut stdout, "watchlist", middle(&costs)? / middle(&baseline)?, RATIO_MAX)
}

/// So many valid keys.
fn valid_keys(count: usize) -> Vec<u64> {
    (FIRST_NUMBER..).filter(|number| DOMAIN.number(&number.to_string()).is_ok()).take(count).collect()
}

/// The first of the lists that hold a key; the others follow in strides.
fn first_list(key: u64, lists: usize) -> usize {
    (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize % lists
}

/// A type that this subscription wants, and nine others.
fn own_type(subscription: usize, subscriptions: usize) -> String {
    format!("no.ryggrad.maalt.t{}.v1", subscription % (subscriptions / MATCHING))
}

fn filled(lists: usize, population: &[u64]) -> Index {
    let fingerprints = Fingerprints::new([7; 32]);
    let mut index = Index::new(fingerprints.clone());
    let slots: Vec<Slot> = (0..lists).map(|_| index.open()).collect();
    for key in population {
        let (first, fingerprint) = (first_list(*key, lists), fingerprints.of(DOMAIN, *key));
        (0..MATCHING).for_each(|next| index.insert(slots[(first + next * STRIDE) % lists], &[fingerprint]));
    }
    for (list, slot) in slots.into_iter().enumerate() {
        index.join(Uuid::from_u128(list as u128), slot);
    }
    index
}

/// A hub with its subscriptions, and where its log ends.
struct Contestant {
    hub: Hub,
    offsets: [i64; PARTITIONS as usize],
    now_ms: u64,
}

impl Contestant {
    fn new(caller: Caller, subscriptions: usize, wanted: impl Fn(usize) -> (String, Option<Uuid>)) -> Self {
        let endpoint = endpoint::Limits { in_flight_max: 64, failures_to_open: 5, open_first_ms: 1_000, open_max_ms: 30_000 };
        let limits = HubLimits {
            ring_bytes_max: 64 * 1024 * 1024,
            readers_max: 8,
            reader_records_max: 2_000,
            // Nobody waits at the gate: what is measured is what leads there.
            gate: GateLimits { in_flight_total_max: 100_000, in_flight_suspect_max: 100_000, endpoint },
            live_unstored_ms_max: 1_000,
            unstored_ms_max: 20,
        };
        let places = || (0..PARTITIONS).map(|partition| Place { topic: 1, partition });
        let mut hub = Hub::new(limits, Box::new(NothingRemoved), places().map(|place| (place, 0)));
        for subscription in 0..subscriptions {
            let (ce_type, watch_list) = wanted(subscription);
            let newcomer = Newcomer {
                held: false,
                wish: wish(caller, subscription, ce_type, watch_list),
                numbering: Numbering { epoch: 1, next: 1 },
                cursors: places().map(|place| (place, Cursor::starting_at(0))).collect(),
                dead_letters: 0,
                until: None,
                owner: None,
            };
            hub.add(0, newcomer, &mut Vec::new());
        }
        Self { hub, offsets: [0; PARTITIONS as usize], now_ms: 1 }
    }

    /// Microseconds that each of these events took, until its deliveries were settled.
    fn round(&mut self, events: impl Iterator<Item = (String, u64)>) -> anyhow::Result<f64> {
        let records: Vec<Arc<Record>> = events.map(|(ce_type, key)| self.record(&ce_type, key)).collect();
        let (count, mut delivered, mut actions) = (records.len(), 0, Vec::new());
        let mut records = records.into_iter();
        let started = Instant::now();
        loop {
            let some: Vec<Arc<Record>> = records.by_ref().take(TOGETHER).collect();
            if some.is_empty() {
                break;
            }
            self.now_ms += 1;
            self.hub.step(self.now_ms, Input::Tail(some), &mut actions);
            loop {
                let ended: Vec<Action> = std::mem::take(&mut actions);
                let quiet = ended.is_empty();
                for action in ended {
                    let Action::Attempt { member, address, attempt, parcels } = action else { continue };
                    delivered += parcels.len();
                    let ended = Input::Attempted { member, address, attempt, outcome: Outcome::Delivered, answered: true, entropy: 0 };
                    self.hub.step(self.now_ms, ended, &mut actions);
                }
                let committed = self.hub.take_commit(self.now_ms, true).is_some();
                if committed {
                    self.hub.step(self.now_ms, Input::Persisted, &mut actions);
                }
                if quiet && !committed && actions.is_empty() {
                    break;
                }
            }
        }
        let took = started.elapsed();
        ensure!(delivered == count * MATCHING, "{delivered} deliveries of {count} events, each of which {MATCHING} want");
        Ok(took.as_secs_f64() * 1e6 / count as f64)
    }

    fn record(&mut self, ce_type: &str, key: u64) -> Arc<Record> {
        let (partition, key) = ((key % PARTITIONS as u64) as usize, key.to_string());
        let attributes = BorrowedAttributes {
            id: "0d5b4f0e-6f0a-5d3e-9f4c-8b6f3a1d2c7b",
            source: "urn:ryggrad:enhetsregisteret:enheter",
            ce_type,
            subject: Some(&key),
            time: Some("2026-01-31T08:00:00.000Z"),
            extensions: &[("endringstype", "NY"), ("kommunenummer", "0301")],
        };
        let (offset, headers) = (self.offsets[partition], attributes.to_headers(AVRO));
        self.offsets[partition] += 1;
        let partition = partition as i32;
        let topic = "grunndata.virksomhet.v1".to_owned();
        let log = LogRecord { topic, partition, offset, timestamp_ms: 0, key: Some(key), value: Some(vec![0; 300]), headers };
        Arc::new(Record::new(Place { topic: 1, partition }, log, false))
    }
}

fn wish(caller: Caller, subscription: usize, ce_type: String, watch_list: Option<Uuid>) -> Wish {
    Wish {
        caller,
        types: vec![ce_type],
        filters: None,
        watch_list,
        order: Order::Key,
        address: Some(format!("https://receiver-{subscription}.example/").as_str().into()),
        limits: Limits {
            pending_max: 1_024,
            pending_per_key_max: 64,
            in_flight_max: 16,
            batch_events_max: 1,
            attempts_per_minute_max: None,
        },
        policy: Policy {
            retry: RetryPolicy { first_ms: 1_000, max_ms: 900_000, probe_ms: 300_000, horizon_ms: 259_200_000 },
            on_exhausted: OnExhausted::Block,
            disable_after_ms: 432_000_000,
            dead_letters_max: 1_000,
        },
        mode: Mode::Running,
    }
}

struct NothingRemoved;

impl Guard for NothingRemoved {
    fn withholds(&self, _: Leaving<'_>) -> bool {
        false
    }

    fn denies(&self, _: Caller, _: &Record) -> bool {
        false
    }
}

/// The index behind a lock, as the bridge has it.
struct Locked(Arc<RwLock<Index>>);

impl Watch for Locked {
    fn holding(&self, record: &Record, found: &mut Vec<Uuid>) {
        self.0.read().unwrap_or_else(PoisonError::into_inner).holding(record, found);
    }

    fn holds(&self, list: Uuid, record: &Record) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).holds(list, record)
    }
}

/// Memory that this process has, pages of 4 KiB as on every Linux that this runs on.
fn resident_bytes() -> anyhow::Result<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").context("cannot read how much memory there is")?;
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok());
    Ok(pages.context("the memory's size is not there")? * 4_096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_deliver_each_event_to_as_many() {
        let args = WatchlistArgs { lists: 100, keys: 50, events: 300, runs: 1 };
        run(&args).unwrap();
    }
}
