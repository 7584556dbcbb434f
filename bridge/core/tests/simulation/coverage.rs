//! What the schedules have met: pairs of a state and a fault, and single happenings.

use std::collections::BTreeMap;

use super::plan::{Fault, OF_ATTEMPTS, OF_LANES};

/// Where a key's lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    Empty,
    Queued,
    InFlight,
    Waiting,
    Collapsed,
    Parked,
}

/// What an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    First,
    Retry,
    Batch,
    Notice,
}

#[derive(Debug, Default)]
pub struct Coverage {
    lanes: BTreeMap<(State, Fault), u64>,
    attempts: BTreeMap<(Kind, Fault), u64>,
    happenings: BTreeMap<&'static str, u64>,
}

const STATES: [State; 6] = [State::Empty, State::Queued, State::InFlight, State::Waiting, State::Collapsed, State::Parked];
const KINDS: [Kind; 4] = [Kind::First, Kind::Retry, Kind::Batch, Kind::Notice];
const HAPPENINGS: [&str; 10] = [
    "attached",
    "fetched",
    "no room",
    "parked",
    "redriven",
    "skipped",
    "withheld at an attempt",
    "withheld in retry",
    "withheld when read",
    "withheld while pending",
];

impl Coverage {
    pub fn lane(&mut self, state: State, fault: Fault) {
        *self.lanes.entry((state, fault)).or_default() += 1;
    }

    pub fn attempt(&mut self, kind: Kind, fault: Fault) {
        *self.attempts.entry((kind, fault)).or_default() += 1;
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.happenings.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: Self) {
        other.lanes.into_iter().for_each(|(pair, times)| *self.lanes.entry(pair).or_default() += times);
        other.attempts.into_iter().for_each(|(pair, times)| *self.attempts.entry(pair).or_default() += times);
        other.happenings.into_iter().for_each(|(what, times)| *self.happenings.entry(what).or_default() += times);
    }

    /// What never happened.
    pub fn missing(&self) -> Vec<String> {
        let lanes = STATES.iter().flat_map(|state| OF_LANES.iter().map(move |fault| (*state, *fault)));
        let attempts = KINDS.iter().flat_map(|kind| OF_ATTEMPTS.iter().map(move |fault| (*kind, *fault)));
        let lanes = lanes.filter(|pair| !self.lanes.contains_key(pair)).map(|pair| format!("{pair:?}"));
        let attempts = attempts.filter(|pair| !self.attempts.contains_key(pair)).map(|pair| format!("{pair:?}"));
        let happenings = HAPPENINGS.iter().filter(|what| !self.happenings.contains_key(*what)).map(ToString::to_string);
        lanes.chain(attempts).chain(happenings).collect()
    }

    pub fn table(&self) -> String {
        use std::fmt::Write as _;
        let mut table = String::new();
        let mut row = |name: String, faults: &[Fault], times: &dyn Fn(Fault) -> u64| {
            let _ = write!(table, "{name:>10}");
            for fault in faults {
                let _ = write!(table, " {:>9} {fault:<8?}", times(*fault));
            }
            table.push('\n');
        };
        for state in STATES {
            row(format!("{state:?}"), &OF_LANES, &|fault| self.lanes.get(&(state, fault)).copied().unwrap_or(0));
        }
        for kind in KINDS {
            row(format!("{kind:?}"), &OF_ATTEMPTS, &|fault| self.attempts.get(&(kind, fault)).copied().unwrap_or(0));
        }
        for (what, times) in &self.happenings {
            let _ = write!(table, "{what}: {times}; ");
        }
        table
    }
}
