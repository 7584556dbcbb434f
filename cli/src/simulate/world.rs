//! The registry behind the API, generated or recorded, and how it moves on.
//!
//! New changes are on disk before anybody can see them. Callers hold its locks briefly and never
//! across an await.

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    feed::{Feed, stamp},
    number::{Kind, Organisasjonsnummer},
    recorded::Recording,
    registry::{Registry, UnitView},
    state::{self, State},
    unit::removed_document,
};

pub(super) enum Source {
    Generated(Box<Registry>),
    Recorded(Box<Recording>),
}

/// What a look-up finds.
pub(super) enum Found {
    Document(String),
    Removed(Value),
    Unknown,
}

impl Source {
    pub(super) fn feed(&self, kind: Kind) -> &Feed {
        match self {
            Source::Generated(registry) => registry.feed(kind),
            Source::Recorded(recording) => recording.feed(kind),
        }
    }

    pub(super) fn look_up(&self, kind: Kind, number: Organisasjonsnummer) -> Found {
        match self {
            Source::Generated(registry) => match registry.unit(number) {
                Some(unit) if unit.kind != kind => Found::Unknown,
                Some(unit) if unit.status == "removed" => Found::Removed(unit.document),
                Some(unit) => Found::Document(unit.document.to_string()),
                None => Found::Unknown,
            },
            Source::Recorded(recording) => match recording.unit((kind, number)) {
                Some((text, "removed")) => Found::Removed(serde_json::from_str(text).unwrap_or_default()),
                Some((text, _)) => Found::Document(text.to_owned()),
                None => match recording.removed((kind, number)) {
                    Some(slettedato) => Found::Removed(removed_document(number, slettedato)),
                    None => Found::Unknown,
                },
            },
        }
    }

    pub(super) fn units(&self) -> Box<dyn Iterator<Item = UnitView> + '_> {
        match self {
            Source::Generated(registry) => Box::new(registry.units()),
            Source::Recorded(recording) => Box::new(recording.units()),
        }
    }

    /// The counts of the status answer.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "recorded": matches!(self, Source::Recorded(_)),
            "changes_made": match self {
                Source::Generated(registry) => registry.changes_made(),
                Source::Recorded(_) => 0,
            },
        });
        for kind in Kind::BOTH {
            let feed = self.feed(kind);
            let mut counts = json!({"active": 0, "deleted": 0, "removed": 0});
            match self {
                Source::Generated(registry) => {
                    let [active, deleted, removed] = registry.counts(kind);
                    counts = json!({"active": active, "deleted": deleted, "removed": removed});
                }
                Source::Recorded(recording) => {
                    for unit in recording.units().filter(|unit| unit.kind == kind) {
                        counts[unit.status] = (counts[unit.status].as_u64().unwrap_or(0) + 1).into();
                    }
                }
            }
            status[kind.path()] = json!({
                "units": counts,
                "feed_items": feed.len(),
                "first_oppdateringsid": feed.first_id(),
                "latest_oppdateringsid": feed.latest_id(),
            });
        }
        status
    }
}

/// Why changes could not be made.
#[derive(Debug)]
pub(super) enum NoChange {
    /// Recorded answers stand still.
    Recorded,
    Disk(anyhow::Error),
}

pub(super) struct World {
    source: RwLock<Source>,
    /// Held while changes are made, so that two makers cannot count the same changes.
    state: Mutex<State>,
    state_file: Option<PathBuf>,
    started_at_ms: i64,
}

impl World {
    pub(super) fn new(source: Source, state: State, state_file: Option<PathBuf>) -> Self {
        Self { source: RwLock::new(source), started_at_ms: state.started_at_unix_ms, state: Mutex::new(state), state_file }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, Source> {
        self.source.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Source> {
        self.source.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn started_at(&self) -> String {
        stamp(self.started_at_ms)
    }

    /// Makes `count` changes. Blocks: on the disk, and while it works.
    pub(super) fn make_changes(&self, count: u64) -> Result<(), NoChange> {
        // Readers get in between two such bites.
        const BITE: u64 = 1000;
        let mut state = self.state();
        if matches!(*self.read(), Source::Recorded(_)) {
            return Err(NoChange::Recorded);
        }
        let mut next = state.clone();
        next.changes_made += count;
        if let Some(file) = &self.state_file {
            state::save(file, &next).map_err(NoChange::Disk)?;
        }
        let mut left = count;
        while left > 0 {
            if let Source::Generated(registry) = &mut *self.write() {
                (0..left.min(BITE)).for_each(|_| registry.step());
            }
            left -= left.min(BITE);
        }
        *state = next;
        Ok(())
    }
}

/// Tells how many changes are due, while the simulator runs.
pub(super) struct Pace {
    per_second: f64,
    last: Instant,
    due: f64,
}

impl Pace {
    /// How often to ask.
    pub(super) const TICK: Duration = Duration::from_millis(100);
    /// A machine that stood still does not make up for more than this.
    const CATCH_UP_SECONDS: f64 = 5.0;

    pub(super) fn new(per_second: f64) -> Self {
        Self { per_second, last: Instant::now(), due: 0.0 }
    }

    /// Whole changes due now. They stay due until [`Pace::made`] says they were made.
    pub(super) fn due(&mut self, now: Instant, running: bool) -> u64 {
        let passed = now.saturating_duration_since(self.last).as_secs_f64();
        self.last = now;
        if running {
            let most = (self.per_second * Self::CATCH_UP_SECONDS).max(1.0);
            self.due = (self.due + passed * self.per_second).min(most);
        }
        if running { self.due as u64 } else { 0 }
    }

    pub(super) fn made(&mut self, count: u64) {
        self.due = (self.due - count as f64).max(0.0);
    }
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;
    use crate::simulate::registry::RegistryOptions;

    fn options() -> RegistryOptions {
        RegistryOptions { seed: 9, units: 30, changes_per_second: 4.0, deletions: 0.05, removals: 0.02 }
    }

    fn items(world: &World) -> Vec<Value> {
        let source = world.read();
        let feed = source.feed(Kind::Enhet);
        (0..feed.len()).map(|place| feed.render(place, true, "")).collect()
    }

    #[test]
    fn a_restart_continues_the_very_same_registry() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("state.json");
        let open = || {
            let state = state::load_or_fresh(&file, options()).expect("a state");
            crate::simulate::generated_world(state, Some(file.clone())).expect("a world")
        };
        let first = open();
        assert!(first.make_changes(300).is_ok());
        let before = items(&first);
        let restarted = open();
        assert_eq!(before, items(&restarted));
        for world in [&first, &restarted] {
            // The second maker overwrites the first one's file; the changes are the same.
            assert!(world.make_changes(50).is_ok());
        }
        assert_eq!(items(&first), items(&restarted));
        assert!(items(&first).len() > before.len());
    }

    #[test]
    fn changes_the_disk_did_not_take_are_not_seen() {
        let state = State::fresh(options());
        let nowhere = PathBuf::from("/nowhere/at/all.json");
        let source = Source::Generated(Box::new(Registry::new(options(), 0)));
        let world = World::new(source, state, Some(nowhere));
        let before = items(&world);
        assert!(world.make_changes(20).is_err());
        assert_eq!(before, items(&world));
    }

    #[test]
    fn the_pace_counts_fractions_and_stops_while_paused() {
        let mut pace = Pace::new(0.5);
        let start = pace.last;
        let mut made = 0;
        for second in 1..=10 {
            let due = pace.due(start + Duration::from_secs(second), second <= 8);
            pace.made(due);
            made += due;
        }
        assert_eq!(made, 4);
    }
}
