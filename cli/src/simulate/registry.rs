//! The generated registry: a seeded population and the changes that happen to it, one by one.
//!
//! It has no clock and no input but its options, so change number k is always the same change.
//! That is what lets a restart replay its way back; nothing here may read time, files or requests.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use anyhow::ensure;
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    act::{Act, Refused},
    change::{FieldChange, change_parent, change_some_field},
    dump::Snapshot,
    feed::{Endringstype, Feed, FeedItem},
    number::{Day, Kind, Organisasjonsnummer},
    population,
    unit::{DeletedUnit, Unit, removed_document},
};

/// Share of changes that register a new unit, while the population has room for more.
const NEW_UNITS: f64 = 0.06;
/// Share of changes that hit a unit which changed a moment ago.
const HOT: f64 = 0.35;
const HOT_UNITS: usize = 16;
/// Share of field changes to an underenhet that move it to another enhet.
const NEW_PARENTS: f64 = 0.03;

/// Everything the registry follows from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RegistryOptions {
    pub(super) seed: u64,
    pub(super) units: u32,
    pub(super) changes_per_second: f64,
    pub(super) deletions: f64,
    pub(super) removals: f64,
}

impl RegistryOptions {
    pub(super) const UNITS_AT_MOST: u32 = 3_000_000;
    pub(super) const CHANGES_PER_SECOND_AT_MOST: f64 = 10_000.0;

    /// Refuses what cannot be simulated, whether it was asked for or read from a state file.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let (rate, most) = (self.changes_per_second, Self::CHANGES_PER_SECOND_AT_MOST);
        ensure!((1..=Self::UNITS_AT_MOST).contains(&self.units), "units must be 1 to {}, not {}", Self::UNITS_AT_MOST, self.units);
        ensure!((0.0..=most).contains(&rate), "changes per second must be 0 to {most}, not {rate}");
        ensure!(
            self.deletions >= 0.0 && self.removals >= 0.0 && self.deletions + self.removals <= 1.0,
            "deletions and removals are shares that together make 1 at most"
        );
        Ok(())
    }
}

/// Units are shared with the dumps that show them, and copied when they change.
#[derive(Clone)]
enum Slot {
    Active(Arc<Unit>),
    Deleted(Arc<DeletedUnit>),
    Removed { kind: Kind, number: Organisasjonsnummer, slettedato: Day },
}

/// One unit as the control interface shows it.
pub(super) struct UnitView {
    pub(super) number: Organisasjonsnummer,
    pub(super) kind: Kind,
    pub(super) status: &'static str,
    pub(super) document: Value,
}

pub(super) struct Registry {
    options: RegistryOptions,
    started_at_ms: i64,
    rng: StdRng,
    slots: Vec<Slot>,
    by_number: HashMap<Organisasjonsnummer, usize>,
    /// Places in `slots` of the active units, by kind.
    active: [Vec<usize>; 2],
    recent: VecDeque<usize>,
    feeds: [Feed; 2],
    latest_ids: [u64; 2],
    changes_made: u64,
    deleted: [usize; 2],
    removed: [usize; 2],
    /// Members that every active unit's document has besides its own.
    new_fields: Vec<String>,
    /// Whether the change being made gets no item in the feed.
    silent: bool,
}

impl Registry {
    /// The registry as it opens, before any change.
    pub(super) fn new(options: RegistryOptions, started_at_ms: i64) -> Self {
        let mut rng = StdRng::seed_from_u64(options.seed);
        // The two lists count apart, from somewhere like where the real ones were in 2025.
        let latest_ids = [rng.random_range(22_000_000..23_000_000), rng.random_range(20_000_000..21_000_000)];
        let mut registry = Self {
            started_at_ms,
            rng,
            slots: Vec::new(),
            by_number: HashMap::new(),
            active: [Vec::new(), Vec::new()],
            recent: VecDeque::new(),
            feeds: Kind::BOTH.map(Feed::new),
            latest_ids,
            changes_made: 0,
            deleted: [0, 0],
            removed: [0, 0],
            new_fields: Vec::new(),
            silent: false,
            options,
        };
        let units = registry.options.units;
        for place in 0..units {
            let kind = if place % 3 == 2 { Kind::Underenhet } else { Kind::Enhet };
            // One per second, all before the start.
            let dato_ms = started_at_ms - 1000 * i64::from(units - place);
            registry.register(kind, dato_ms);
        }
        registry
    }

    pub(super) fn changes_made(&self) -> u64 {
        self.changes_made
    }

    pub(super) fn feed(&self, kind: Kind) -> &Feed {
        &self.feeds[kind.index()]
    }

    /// Units that are active, deleted, removed.
    pub(super) fn counts(&self, kind: Kind) -> [usize; 3] {
        let kind = kind.index();
        [self.active[kind].len(), self.deleted[kind], self.removed[kind]]
    }

    /// Makes the next change, of whatever kind falls to it.
    #[cfg(test)]
    pub(super) fn step(&mut self) {
        self.carry_out(&Act::Any, false);
    }

    /// Makes the next change, as ordered; silently means without an item in the feed. The answer is
    /// the unit that it struck. Counts as a change even if no unit was left that it could strike.
    pub(super) fn carry_out(&mut self, act: &Act, silent: bool) -> Option<Organisasjonsnummer> {
        self.changes_made += 1;
        self.silent = silent;
        let dato_ms = self.moment_ms();
        match act {
            Act::Any => self.anything(dato_ms),
            Act::Edit => self.change(dato_ms),
            Act::Creation => self.register_some_kind(dato_ms),
            Act::Deletion | Act::Removal => {
                let (kind, place) = self.someone_to_end().or_else(|| self.anyone_to_end())?;
                self.end(kind, place, *act == Act::Removal, dato_ms)
            }
            Act::Delete { organisasjonsnummer } => self.end_named(*organisasjonsnummer, false, dato_ms),
            Act::Remove { organisasjonsnummer } => self.end_named(*organisasjonsnummer, true, dato_ms),
            Act::NewField { name } => {
                self.new_fields.push(name.clone());
                None
            }
        }
    }

    /// Whether an order about a certain unit can be carried out.
    pub(super) fn check(&self, act: &Act) -> Result<(), Refused> {
        let (number, removal) = match act {
            Act::Delete { organisasjonsnummer } => (organisasjonsnummer, false),
            Act::Remove { organisasjonsnummer } => (organisasjonsnummer, true),
            _ => return Ok(()),
        };
        match self.by_number.get(number).and_then(|slot| self.slots.get(*slot)) {
            None => Err(Refused::Unknown),
            Some(Slot::Removed { .. }) => Err(Refused::Gone),
            Some(Slot::Deleted(_)) if !removal => Err(Refused::Gone),
            Some(Slot::Active(unit)) if unit.children > 0 => Err(Refused::HasUnderenheter),
            Some(Slot::Active(unit)) if unit.kind == Kind::Enhet && self.active[0].len() == 1 => Err(Refused::LastEnhet),
            Some(Slot::Active(_) | Slot::Deleted(_)) => Ok(()),
        }
    }

    fn anything(&mut self, dato_ms: i64) -> Option<Organisasjonsnummer> {
        let draw: f64 = self.rng.random();
        let removal = draw < self.options.removals;
        let deletion = draw < self.options.removals + self.options.deletions;
        let creation = draw < self.options.removals + self.options.deletions + NEW_UNITS;
        let active = self.active.iter().map(Vec::len).sum::<usize>();
        let usual = self.options.units as usize;
        // However the shares are set, the registry neither empties nor grows without end.
        if deletion
            && active > usual / 2
            && let Some((kind, place)) = self.someone_to_end()
        {
            return self.end(kind, place, removal, dato_ms);
        }
        if deletion || (creation && active < usual.saturating_mul(2)) {
            return self.register_some_kind(dato_ms);
        }
        self.change(dato_ms)
    }

    /// When the newest change happened, by the options alone.
    pub(super) fn moment_ms(&self) -> i64 {
        let per_second = self.options.changes_per_second;
        let per_second = if per_second > 0.0 { per_second } else { 1.0 };
        let milliseconds = self.changes_made as f64 * 1000.0 / per_second;
        self.started_at_ms.saturating_add(milliseconds as i64)
    }

    fn today(&self) -> Day {
        Day::of_change(self.changes_made)
    }

    fn publish(&mut self, kind: Kind, number: Organisasjonsnummer, endringstype: Endringstype, dato_ms: i64, endringer: Vec<FieldChange>) {
        if self.silent {
            return;
        }
        let latest = &mut self.latest_ids[kind.index()];
        *latest += self.rng.random_range(1..=9);
        let item = FeedItem { id: *latest, dato_ms, number: Some(number), endringstype };
        self.feeds[kind.index()].push(item, endringer);
    }

    fn register_some_kind(&mut self, dato_ms: i64) -> Option<Organisasjonsnummer> {
        let kind = if self.rng.random_bool(0.35) { Kind::Underenhet } else { Kind::Enhet };
        self.register(kind, dato_ms)
    }

    fn register(&mut self, kind: Kind, dato_ms: i64) -> Option<Organisasjonsnummer> {
        let number = loop {
            let number = Organisasjonsnummer::synthetic(&mut self.rng);
            if !self.by_number.contains_key(&number) {
                break number;
            }
        };
        let today = self.today();
        let unit = match kind {
            Kind::Enhet => population::enhet(&mut self.rng, number, today),
            Kind::Underenhet => {
                let place = *population::pick(&mut self.rng, &self.active[0]);
                let Slot::Active(parent) = &mut self.slots[place] else {
                    return None;
                };
                let parent = Arc::make_mut(parent);
                parent.children += 1;
                population::underenhet(&mut self.rng, number, parent, today)
            }
        };
        self.by_number.insert(number, self.slots.len());
        self.active[kind.index()].push(self.slots.len());
        self.slots.push(Slot::Active(Arc::new(unit)));
        self.publish(kind, number, Endringstype::Ny, dato_ms, Vec::new());
        Some(number)
    }

    /// A unit that may be deleted, as its place in the list of active ones. An enhet that has
    /// underenheter is spared, and so is the last enhet.
    fn someone_to_end(&mut self) -> Option<(Kind, usize)> {
        const TRIES: usize = 32;
        for _ in 0..TRIES {
            let (kind, place) = self.someone();
            if self.may_end(kind, place) {
                return Some((kind, place));
            }
        }
        None
    }

    /// As [`Self::someone_to_end`], but the first one that there is.
    fn anyone_to_end(&self) -> Option<(Kind, usize)> {
        let places = |kind: Kind| (0..self.active[kind.index()].len()).map(move |place| (kind, place));
        Kind::BOTH.into_iter().flat_map(places).find(|(kind, place)| self.may_end(*kind, *place))
    }

    fn may_end(&self, kind: Kind, place: usize) -> bool {
        match &self.slots[self.active[kind.index()][place]] {
            Slot::Active(unit) => kind == Kind::Underenhet || (unit.children == 0 && self.active[0].len() > 1),
            _ => false,
        }
    }

    fn someone(&mut self) -> (Kind, usize) {
        let [enheter, underenheter] = [self.active[0].len(), self.active[1].len()];
        let place = self.rng.random_range(0..enheter + underenheter);
        if place < enheter { (Kind::Enhet, place) } else { (Kind::Underenhet, place - enheter) }
    }

    fn end_named(&mut self, number: Organisasjonsnummer, removal: bool, dato_ms: i64) -> Option<Organisasjonsnummer> {
        let slot = *self.by_number.get(&number)?;
        match self.slots.get(slot)? {
            Slot::Active(unit) => {
                let kind = unit.kind;
                let place = self.active[kind.index()].iter().position(|active| *active == slot)?;
                self.end(kind, place, removal, dato_ms)
            }
            Slot::Deleted(unit) if removal => {
                let kind = unit.kind;
                self.deleted[kind.index()] -= 1;
                self.removed[kind.index()] += 1;
                self.slots[slot] = Slot::Removed { kind, number, slettedato: self.today() };
                self.publish(kind, number, Endringstype::Fjernet, dato_ms, Vec::new());
                Some(number)
            }
            _ => None,
        }
    }

    fn end(&mut self, kind: Kind, place: usize, removal: bool, dato_ms: i64) -> Option<Organisasjonsnummer> {
        let slettedato = self.today();
        let slot = self.active[kind.index()].swap_remove(place);
        let Slot::Active(unit) = &self.slots[slot] else {
            return None;
        };
        let number = unit.organisasjonsnummer;
        let parent = unit.optional.overordnet_enhet;
        let (ended, endringstype) = if removal {
            let removed = Slot::Removed { kind, number, slettedato };
            (removed, Endringstype::Fjernet)
        } else {
            let deleted = Slot::Deleted(Arc::new(DeletedUnit {
                kind,
                organisasjonsnummer: number,
                navn: unit.navn.clone(),
                organisasjonsform: unit.organisasjonsform,
                slettedato,
            }));
            (deleted, Endringstype::Sletting)
        };
        self.slots[slot] = ended;
        let ended_so = if removal { &mut self.removed } else { &mut self.deleted };
        ended_so[kind.index()] += 1;
        if let Some(parent) = parent {
            self.count_child(parent, false);
        }
        self.publish(kind, number, endringstype, dato_ms, Vec::new());
        Some(number)
    }

    fn count_child(&mut self, parent: Organisasjonsnummer, joins: bool) {
        let slot = self.by_number.get(&parent).copied();
        if let Some(Slot::Active(parent)) = slot.and_then(|slot| self.slots.get_mut(slot)) {
            let parent = Arc::make_mut(parent);
            parent.children = if joins { parent.children + 1 } else { parent.children.saturating_sub(1) };
        }
    }

    fn change(&mut self, dato_ms: i64) -> Option<Organisasjonsnummer> {
        let slot = self.someone_to_change();
        let today = self.today();
        let new_parent = self.rng.random_bool(NEW_PARENTS).then(|| {
            let place = *population::pick(&mut self.rng, &self.active[0]);
            match &self.slots[place] {
                Slot::Active(parent) => Some(parent.organisasjonsnummer),
                _ => None,
            }
        });
        let Slot::Active(unit) = &mut self.slots[slot] else {
            return None;
        };
        let unit = Arc::make_mut(unit);
        let (kind, number) = (unit.kind, unit.organisasjonsnummer);
        let old_parent = unit.optional.overordnet_enhet;
        let new_parent = new_parent.flatten().filter(|_| old_parent.is_some());
        let endringer = match new_parent.filter(|_| new_parent != old_parent) {
            Some(parent) => change_parent(unit, parent),
            None => loop {
                let endringer = change_some_field(unit, today, &mut self.rng);
                // What neither feed nor dump shows could never be found out.
                if !self.silent || endringer.iter().any(|change| change.path != "/kapital") {
                    break endringer;
                }
            },
        };
        if let (Some(old), Some(new)) = (old_parent, new_parent) {
            self.count_child(old, false);
            self.count_child(new, true);
        }
        self.recent.push_back(slot);
        if self.recent.len() > HOT_UNITS {
            self.recent.pop_front();
        }
        self.publish(kind, number, Endringstype::Endring, dato_ms, endringer);
        Some(number)
    }

    fn someone_to_change(&mut self) -> usize {
        if !self.recent.is_empty() && self.rng.random_bool(HOT) {
            let place = self.rng.random_range(0..self.recent.len());
            let slot = self.recent[place];
            if matches!(self.slots[slot], Slot::Active(_)) {
                return slot;
            }
        }
        let (kind, place) = self.someone();
        self.active[kind.index()][place]
    }

    pub(super) fn unit(&self, number: Organisasjonsnummer) -> Option<UnitView> {
        let slot = self.by_number.get(&number)?;
        self.slots.get(*slot).map(|slot| slot.view(&self.new_fields))
    }

    /// Every unit there is or was, in the order they were registered; as of now, whatever happens
    /// while they are looked at.
    pub(super) fn units(&self) -> impl Iterator<Item = UnitView> + Send + use<> {
        let (slots, new_fields) = (self.slots.clone(), self.new_fields.clone());
        slots.into_iter().map(move |slot| slot.view(&new_fields))
    }

    /// What a dump of one list shows if it is made now.
    pub(super) fn snapshot(&self, kind: Kind) -> Snapshot {
        let units = self.active[kind.index()].iter().filter_map(|slot| match &self.slots[*slot] {
            Slot::Active(unit) => Some(Arc::clone(unit)),
            _ => None,
        });
        Snapshot::of_units(self.moment_ms(), units.collect(), self.new_fields.clone())
    }

    pub(super) fn new_fields(&self) -> &[String] {
        &self.new_fields
    }
}

impl Slot {
    fn view(&self, new_fields: &[String]) -> UnitView {
        match self {
            Slot::Active(unit) => {
                UnitView { number: unit.organisasjonsnummer, kind: unit.kind, status: "active", document: unit.document_with(new_fields) }
            }
            Slot::Deleted(unit) => {
                UnitView { number: unit.organisasjonsnummer, kind: unit.kind, status: "deleted", document: unit.document() }
            }
            Slot::Removed { kind, number, slettedato } => {
                UnitView { number: *number, kind: *kind, status: "removed", document: removed_document(*number, slettedato) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> RegistryOptions {
        RegistryOptions { seed: 5, units: 60, changes_per_second: 2.0, deletions: 0.1, removals: 0.05 }
    }

    fn registry(options: RegistryOptions, changes: usize) -> Registry {
        let mut registry = Registry::new(options, 1_735_689_600_000);
        (0..changes).for_each(|_| registry.step());
        registry
    }

    fn everything(registry: &Registry) -> Vec<Value> {
        let items = Kind::BOTH.into_iter().flat_map(|kind| {
            let feed = registry.feed(kind);
            (0..feed.len()).map(|place| feed.render(place, true, "http://x"))
        });
        items.chain(registry.units().map(|unit| unit.document)).collect()
    }

    #[test]
    fn the_seed_decides_everything() {
        let one = everything(&registry(options(), 500));
        assert_eq!(one, everything(&registry(options(), 500)));
        let other = RegistryOptions { seed: 6, ..options() };
        assert_ne!(one, everything(&registry(other, 500)));
    }

    #[test]
    fn ids_ascend_with_gaps_and_each_change_has_one_item() {
        let registry = registry(options(), 2000);
        let mut items = 0;
        for kind in Kind::BOTH {
            let feed = registry.feed(kind);
            let list: Vec<_> = (0..feed.len()).filter_map(|place| feed.item(place)).collect();
            for pair in list.windows(2) {
                assert!((1..=9).contains(&(pair[1].id - pair[0].id)));
                assert!(pair[0].dato_ms <= pair[1].dato_ms);
            }
            items += list.len();
        }
        assert_eq!(items, 60 + 2000);
    }

    #[test]
    fn every_active_underenhet_has_an_active_enhet_above_it() {
        let registry = registry(options(), 5000);
        let mut statuses = std::collections::BTreeMap::new();
        for unit in registry.units() {
            *statuses.entry(unit.status).or_insert(0) += 1;
            if let Some(parent) = unit.document["overordnetEnhet"].as_str() {
                let parent = Organisasjonsnummer::parse(parent).and_then(|it| registry.unit(it));
                assert_eq!(parent.map(|parent| parent.status), Some("active"));
            }
        }
        assert_eq!(statuses.len(), 3, "{statuses:?}");
        assert!(statuses["active"] <= 120);
    }

    #[test]
    fn silent_changes_leave_no_trace_in_the_feed() {
        let mut registry = registry(options(), 100);
        let items = |registry: &Registry| Kind::BOTH.map(|kind| registry.feed(kind).latest_id());
        let before = (items(&registry), Kind::BOTH.map(|kind| registry.counts(kind)));
        for act in [Act::Creation, Act::Deletion, Act::Removal, Act::Edit, Act::Any] {
            assert!((0..5).all(|_| registry.carry_out(&act, true).is_some()), "{act:?}");
        }
        assert_eq!(items(&registry), before.0);
        assert_ne!(Kind::BOTH.map(|kind| registry.counts(kind)), before.1);
        registry.carry_out(&Act::Edit, false);
        assert_ne!(items(&registry), before.0);
    }

    #[test]
    fn named_units_end_as_ordered_and_only_once() {
        let mut registry = registry(options(), 100);
        let spared = registry.units().find(|unit| matches!(registry.check(&remove(unit.number)), Err(Refused::HasUnderenheter)));
        assert_eq!(spared.map(|unit| unit.kind), Some(Kind::Enhet));
        let number = registry.units().find(|unit| unit.kind == Kind::Underenhet && unit.status == "active").map(|unit| unit.number);
        let number = number.unwrap_or_else(|| panic!("no active underenhet"));
        for (act, status) in [(delete(number), "deleted"), (remove(number), "removed")] {
            assert_eq!(registry.check(&act), Ok(()));
            assert_eq!(registry.carry_out(&act, false), Some(number));
            assert_eq!(registry.unit(number).map(|unit| unit.status), Some(status));
            let feed = registry.feed(Kind::Underenhet);
            assert_eq!(feed.item(feed.len() - 1).and_then(|item| item.number), Some(number));
        }
        assert_eq!(registry.check(&remove(number)), Err(Refused::Gone));
        assert_eq!(registry.check(&delete(number.neighbour())), Err(Refused::Unknown));
    }

    fn delete(organisasjonsnummer: Organisasjonsnummer) -> Act {
        Act::Delete { organisasjonsnummer }
    }

    fn remove(organisasjonsnummer: Organisasjonsnummer) -> Act {
        Act::Remove { organisasjonsnummer }
    }

    #[test]
    fn a_new_field_stands_in_every_active_document() {
        let mut registry = registry(options(), 50);
        registry.carry_out(&Act::NewField { name: "nyttFelt".to_owned() }, true);
        registry.carry_out(&Act::NewField { name: "navn".to_owned() }, true);
        for unit in registry.units() {
            assert_eq!(unit.document.get("nyttFelt").is_some(), unit.status == "active", "{}", unit.document);
            assert!(unit.status != "active" || !unit.document["navn"].as_str().unwrap_or_default().starts_with("navn "));
        }
    }

    #[test]
    fn even_with_nothing_but_deletions_units_remain() {
        let ending = RegistryOptions { units: 1, deletions: 1.0, removals: 0.0, ..options() };
        assert!(registry(ending, 500).units().any(|unit| unit.status == "active"));
    }
}
