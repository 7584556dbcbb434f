//! What the schedules have met: every fault in every state in which it may meet a subscription, and
//! single happenings.
//!
//! Must never forgive a pair that was not met, unless it is listed here with the reason.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::plan::{ALL, Fault};

/// How a subscription reads a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reads {
    /// It goes with the tail.
    Tail,
    /// By itself, from the ring.
    Ring,
    /// By itself, behind the ring: from a reader, or waiting for one.
    Reader,
    /// A second time.
    Again,
}

/// How a subscription stands in a partition, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct State {
    pub reads: Reads,
    /// Attempts are under way.
    pub attempts: bool,
    /// A commit is on its way to the disk.
    pub commit: bool,
}

/// Pairs and happenings that are hardly met count as missing, in this many schedules.
const TIMES_MIN: u64 = 10;

const READS: [Reads; 4] = [Reads::Tail, Reads::Ring, Reads::Reader, Reads::Again];
const HAPPENINGS: [&str; 19] = [
    "acknowledged",
    "attached",
    "chunk",
    "disabled as failing",
    "disabled as gone",
    "fetched",
    "guard changed",
    "notice",
    "parked",
    "reader at the end",
    "reader closed",
    "reader opened",
    "redriven",
    "released",
    "replayed to the end",
    "resumed",
    "rewound",
    "rewound and lost",
    "skipped",
];

#[derive(Debug, Default)]
pub struct Coverage {
    pairs: BTreeMap<(State, Fault), u64>,
    happenings: BTreeMap<&'static str, u64>,
}

fn states() -> impl Iterator<Item = State> {
    let with =
        |reads| [(false, false), (false, true), (true, false), (true, true)].map(|(attempts, commit)| State { reads, attempts, commit });
    READS.into_iter().flat_map(with)
}

impl Coverage {
    pub fn met(&mut self, state: State, fault: Fault) {
        *self.pairs.entry((state, fault)).or_default() += 1;
    }

    pub fn saw(&mut self, what: &'static str) {
        *self.happenings.entry(what).or_default() += 1;
    }

    pub fn add(&mut self, other: Self) {
        other.pairs.into_iter().for_each(|(pair, times)| *self.pairs.entry(pair).or_default() += times);
        other.happenings.into_iter().for_each(|(what, times)| *self.happenings.entry(what).or_default() += times);
    }

    /// What hardly ever happened.
    pub fn missing(&self) -> Vec<String> {
        let pairs = states().flat_map(|state| ALL.map(|fault| (state, fault)));
        let pairs = pairs.filter(|pair| self.pairs.get(pair).is_none_or(|times| *times < TIMES_MIN)).map(|pair| format!("{pair:?}"));
        let happenings = HAPPENINGS.iter().filter(|what| self.happenings.get(*what).is_none_or(|times| *times < TIMES_MIN));
        pairs.chain(happenings.map(ToString::to_string)).collect()
    }

    pub fn table(&self) -> String {
        let mut table = format!("{:>24}", "");
        for fault in ALL {
            let _ = write!(table, " {:>10}", format!("{fault:?}"));
        }
        table.push('\n');
        for state in states() {
            let attempts = if state.attempts { "attempts" } else { "" };
            let commit = if state.commit { "commit" } else { "" };
            let _ = write!(table, "{:>7} {attempts:>9} {commit:>6}", format!("{:?}", state.reads));
            for fault in ALL {
                let _ = write!(table, " {:>10}", self.pairs.get(&(state, fault)).copied().unwrap_or(0));
            }
            table.push('\n');
        }
        for (what, times) in &self.happenings {
            let _ = write!(table, "{what}: {times}; ");
        }
        table
    }
}
