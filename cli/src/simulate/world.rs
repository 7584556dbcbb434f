//! The registry behind the API, generated or recorded, and how it moves on.
//!
//! New changes are on disk before anybody can see them. Callers hold its locks briefly and never
//! across an await.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{self, Duration},
};

use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::info;

use super::{
    act::{Act, Refused},
    dump::Snapshot,
    feed::{Feed, stamp},
    lag::{Ids, Lag},
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

    /// Every unit as of now; looked at without a lock.
    pub(super) fn units(&self) -> Box<dyn Iterator<Item = UnitView> + Send> {
        match self {
            Source::Generated(registry) => Box::new(registry.units()),
            Source::Recorded(recording) => Box::new(recording.units().collect::<Vec<_>>().into_iter()),
        }
    }

    /// What a dump shows if it is made now; not sorted.
    fn snapshot(&self, kind: Kind, started_at_ms: i64) -> Snapshot {
        match self {
            Source::Generated(registry) => registry.snapshot(kind),
            Source::Recorded(recording) => {
                let living = recording.units().filter(|unit| unit.kind == kind && unit.status == "active");
                Snapshot::of_documents(started_at_ms, living.map(|unit| (unit.number, unit.document)).collect())
            }
        }
    }

    fn latest_ids(&self) -> Ids {
        Kind::BOTH.map(|kind| self.feed(kind).latest_id().unwrap_or_default())
    }

    /// The counts of the status answer.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "recorded": matches!(self, Source::Recorded(_)),
            "changes_made": match self {
                Source::Generated(registry) => registry.changes_made(),
                Source::Recorded(_) => 0,
            },
            "new_fields": match self {
                Source::Generated(registry) => registry.new_fields(),
                Source::Recorded(_) => &[],
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
    /// The unit can't be struck so.
    Refused(Refused),
    /// The state file has no room for the order.
    TooManyOrders,
    Disk(anyhow::Error),
}

/// Both dumps as they were at one moment.
type Frozen = [Arc<Snapshot>; 2];

pub(super) struct World {
    source: RwLock<Source>,
    /// Held while changes are made, so that two makers cannot count the same changes.
    state: Mutex<State>,
    state_file: Option<PathBuf>,
    started_at_ms: i64,
    lag: Mutex<Lag>,
    frozen: Mutex<Option<Frozen>>,
}

impl World {
    pub(super) fn new(source: Source, state: State, state_file: Option<PathBuf>) -> Self {
        Self {
            source: RwLock::new(source),
            started_at_ms: state.started_at_unix_ms,
            state: Mutex::new(state),
            state_file,
            lag: Mutex::default(),
            frozen: Mutex::default(),
        }
    }

    /// The registry that the state describes, with all its changes made again.
    pub(super) fn replayed(state: State, state_file: Option<PathBuf>) -> anyhow::Result<Self> {
        let mut registry = Registry::new(state.options.clone(), state.started_at_unix_ms);
        if state.changes_made > 0 {
            info!(changes = state.changes_made, "replaying the registry's changes");
        }
        let freeze = |registry: &Registry| {
            let is_now = state.frozen_after == Some(registry.changes_made());
            is_now.then(|| Kind::BOTH.map(|kind| Arc::new(registry.snapshot(kind).sorted())))
        };
        let mut frozen = freeze(&registry);
        for (act, silent) in state.changes() {
            registry.carry_out(act, silent);
            frozen = frozen.or_else(|| freeze(&registry));
        }
        // The start itself must be remembered, or a restart before any change would have another.
        if let Some(file) = &state_file {
            state::save(file, &state)?;
        }
        let world = Self::new(Source::Generated(Box::new(registry)), state, state_file);
        *world.frozen() = frozen;
        Ok(world)
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

    fn lag(&self) -> MutexGuard<'_, Lag> {
        self.lag.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn frozen(&self) -> MutexGuard<'_, Option<Frozen>> {
        self.frozen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn started_at(&self) -> String {
        stamp(self.started_at_ms)
    }

    /// Makes `count` usual changes. Blocks: on the disk, and while it works.
    pub(super) fn make_changes(&self, count: u64) -> Result<(), NoChange> {
        self.carry_out(&Act::Any, false, count, 0).map(drop)
    }

    /// Carries out an act `count` times and tells the first `told_at_most` units that it struck.
    /// Blocks: on the disk, and while it works.
    pub(super) fn carry_out(&self, act: &Act, silent: bool, count: u64, told_at_most: usize) -> Result<Vec<Organisasjonsnummer>, NoChange> {
        // Readers get in between two such bites.
        const BITE: u64 = 1000;
        let mut state = self.state();
        match &*self.read() {
            Source::Recorded(_) => return Err(NoChange::Recorded),
            Source::Generated(registry) => registry.check(act).map_err(NoChange::Refused)?,
        }
        let mut next = state.clone();
        let remembered = next.note(act, silent, count);
        if let Some(file) = &self.state_file {
            if !remembered {
                return Err(NoChange::TooManyOrders);
            }
            state::save(file, &next).map_err(NoChange::Disk)?;
        }
        let mut struck = Vec::new();
        let mut left = count;
        while left > 0 {
            let mut source = self.write();
            if let Source::Generated(registry) = &mut *source {
                for _ in 0..left.min(BITE) {
                    let number = registry.carry_out(act, silent);
                    struck.extend(number.filter(|_| struck.len() < told_at_most));
                }
            }
            self.lag().grown(time::Instant::now(), source.latest_ids());
            left -= left.min(BITE);
        }
        *state = next;
        Ok(struck)
    }

    /// How far the feed may be shown now; `None` shows all.
    pub(super) fn shown_to(&self, kind: Kind) -> Option<u64> {
        self.lag().limit(time::Instant::now()).map(|ids| ids[kind.index()])
    }

    /// From now on the feeds show changes only so long after look-ups and dumps do.
    pub(super) fn set_lag(&self, lag: Duration) {
        let source = self.read();
        self.lag().set(lag, time::Instant::now(), source.latest_ids());
    }

    /// From now on dumps show the registry as it is now, as a dump made last night would. Blocks.
    pub(super) fn freeze(&self) -> Result<(), NoChange> {
        let mut state = self.state();
        let next = state.with_frozen(Some(state.changes_made));
        self.remember(&next)?;
        // Without the state's lock a change could come between the two.
        let frozen = Kind::BOTH.map(|kind| Arc::new(self.live(kind)));
        *self.frozen() = Some(frozen);
        *state = next;
        Ok(())
    }

    /// From now on dumps show the registry as it is.
    pub(super) fn thaw(&self) -> Result<(), NoChange> {
        let mut state = self.state();
        let next = state.with_frozen(None);
        self.remember(&next)?;
        *self.frozen() = None;
        *state = next;
        Ok(())
    }

    pub(super) fn is_frozen(&self) -> bool {
        self.frozen().is_some()
    }

    fn remember(&self, next: &State) -> Result<(), NoChange> {
        match &self.state_file {
            Some(file) => state::save(file, next).map_err(NoChange::Disk),
            None => Ok(()),
        }
    }

    fn live(&self, kind: Kind) -> Snapshot {
        let snapshot = self.read().snapshot(kind, self.started_at_ms);
        snapshot.sorted()
    }

    /// What a dump shows now. Takes its time with a large registry.
    pub(super) fn dump(&self, kind: Kind) -> Arc<Snapshot> {
        let frozen = self.frozen().as_ref().map(|frozen| Arc::clone(&frozen[kind.index()]));
        frozen.unwrap_or_else(|| Arc::new(self.live(kind)))
    }

    pub(super) fn status(&self) -> Value {
        let mut status = self.read().status();
        let frozen = self.frozen().as_ref().map(|[enheter, _]| stamp(enheter.moment_ms()));
        status["dumps_frozen_at"] = frozen.into();
        status["feed_lag_ms"] = self.lag().milliseconds().into();
        status
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
    use crate::simulate::{dump::Flaw, registry::RegistryOptions};

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
            World::replayed(state, Some(file.clone())).expect("a world")
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
    fn a_restart_remembers_orders_and_frozen_dumps() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("state.json");
        let open = || {
            let state = state::load_or_fresh(&file, options()).expect("a state");
            World::replayed(state, Some(file.clone())).expect("a world")
        };
        let first = open();
        let carry_out = |act: Act, silent, count| first.carry_out(&act, silent, count, 100).expect("carried out");
        carry_out(Act::Edit, true, 20);
        assert!(first.make_changes(30).is_ok() && first.freeze().is_ok());
        let struck = carry_out(Act::Removal, true, 2);
        assert_eq!(struck.len(), 2);
        carry_out(Act::NewField { name: "nyttFelt".to_owned() }, true, 1);
        assert!(first.make_changes(30).is_ok());
        let restarted = open();
        let dump = |world: &World| crate::simulate::dump::write(&world.dump(Kind::Enhet), &Flaw::None, Vec::new()).expect("written");
        let units = |world: &World| world.read().units().map(|unit| unit.document).collect::<Vec<_>>();
        assert_eq!(items(&first), items(&restarted));
        assert_eq!(units(&first), units(&restarted));
        assert_eq!(dump(&first), dump(&restarted));
        let night = dump(&first);
        assert!(first.thaw().is_ok());
        assert_ne!(dump(&first), night);
        assert_eq!(dump(&open()), dump(&first));
    }

    #[test]
    fn a_lagging_feed_is_behind_look_ups() {
        let world = World::replayed(State::fresh(options()), None).expect("a world");
        let shown = |world: &World| Kind::BOTH.map(|kind| world.shown_to(kind));
        assert_eq!(shown(&world), [None, None]);
        let before = world.read().latest_ids().map(Some);
        world.set_lag(Duration::from_secs(3600));
        assert!(world.make_changes(50).is_ok());
        assert_eq!(shown(&world), before);
        assert_ne!(world.read().latest_ids().map(Some), before);
        world.set_lag(Duration::ZERO);
        assert_eq!(shown(&world), [None, None]);
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
