//! The facts, found by whom they are about: a decision costs a few look-ups, however many there are.
//!
//! A person who gets a new pseudonym stays one person: facts under the former one count under the
//! present one. Must never lose a fact by that, nor find one of another person.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::ops::Bound;

use jiff::Timestamp;
use ryggrad_schemas::catalogue::DataClass;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use uuid::Uuid;

use super::decision::{
    Caller, Case, Event, Party, Protection, Reason, Terms, Verdict, authorise, delegated, denied, shortcomings, stopped, terms, uncovered,
};
use super::facts::{Block, Delegation, Grant, Member, Relation, Subject};

/// Facts of one kind: by what they are looked up by, and by their ids.
#[derive(Debug)]
struct Shelf<K, T> {
    /// No entry is empty.
    found: HashMap<K, (Vec<Uuid>, Vec<T>)>,
    keys: HashMap<Uuid, K>,
}

impl<K, T> Default for Shelf<K, T> {
    fn default() -> Self {
        Self { found: HashMap::new(), keys: HashMap::new() }
    }
}

impl<K: Hash + Eq + Clone, T> Shelf<K, T> {
    fn put(&mut self, id: Uuid, key: K, fact: T) {
        self.remove(id);
        let (ids, facts) = self.found.entry(key.clone()).or_default();
        ids.push(id);
        facts.push(fact);
        self.keys.insert(id, key);
    }

    fn remove(&mut self, id: Uuid) -> Option<T> {
        let key = self.keys.remove(&id)?;
        let (ids, facts) = self.found.get_mut(&key)?;
        let at = ids.iter().position(|one| *one == id)?;
        ids.swap_remove(at);
        let fact = facts.swap_remove(at);
        if ids.is_empty() {
            self.found.remove(&key);
        }
        Some(fact)
    }

    fn get(&self, key: &K) -> &[T] {
        self.found.get(key).map_or(&[], |(_, facts)| facts)
    }

    /// Puts everything under one key to another.
    fn merge(&mut self, from: &K, to: &K, mut change: impl FnMut(&mut T)) {
        let Some((ids, mut facts)) = self.found.remove(from) else { return };
        facts.iter_mut().for_each(&mut change);
        for id in &ids {
            self.keys.insert(*id, to.clone());
        }
        let (known_ids, known) = self.found.entry(to.clone()).or_default();
        known_ids.extend(ids);
        known.extend(facts);
    }
}

/// All facts.
#[derive(Debug, Default)]
pub struct Facts {
    members: HashMap<Organisasjonsnummer, Member>,
    deleted_units: HashSet<Organisasjonsnummer>,
    /// By organisation and supplier.
    delegations: Shelf<(Organisasjonsnummer, Organisasjonsnummer), Delegation>,
    /// When each of them begins and ends.
    turns: BTreeSet<(Timestamp, Uuid)>,
    /// By receiver and controller.
    grants: Shelf<(Organisasjonsnummer, Option<Organisasjonsnummer>), Grant>,
    relations: Shelf<Subject, Relation>,
    blocks: Shelf<Subject, Block>,
    protected: HashMap<Subject, bool>,
    /// Former pseudonym -> the one that took over.
    aliases: HashMap<Subject, Subject>,
}

impl Facts {
    /// What is known of a member now.
    pub fn set_member(&mut self, member: Member) {
        self.members.insert(member.organisation, member);
    }

    /// The organisation is no member any more.
    pub fn remove_member(&mut self, organisation: Organisasjonsnummer) {
        self.members.remove(&organisation);
    }

    /// A member.
    pub fn member(&self, organisation: Organisasjonsnummer) -> Option<&Member> {
        self.members.get(&organisation)
    }

    /// Whether a unit is gone from Enhetsregisteret.
    pub fn set_deleted(&mut self, unit: Organisasjonsnummer, is_deleted: bool) {
        if is_deleted {
            self.deleted_units.insert(unit);
        } else {
            self.deleted_units.remove(&unit);
        }
    }

    /// A delegation as it is now.
    pub fn set_delegation(&mut self, id: Uuid, delegation: Delegation) {
        self.end_delegation(id);
        self.turns.extend(turns_of(&delegation).map(|turn| (turn, id)));
        self.delegations.put(id, (delegation.organisation, delegation.supplier), delegation);
    }

    /// A grant as it is now.
    pub fn set_grant(&mut self, id: Uuid, grant: Grant) {
        self.grants.put(id, (grant.receiver, grant.controller), grant);
    }

    /// A relation as it is now.
    pub fn set_relation(&mut self, id: Uuid, relation: Relation) {
        let subject = self.present(&relation.subject).clone();
        self.relations.put(id, subject.clone(), Relation { subject, ..relation });
    }

    /// A block as it is now.
    pub fn set_block(&mut self, id: Uuid, block: Block) {
        let subject = self.present(&block.subject).clone();
        self.blocks.put(id, subject.clone(), Block { subject, ..block });
    }

    /// A delegation, grant, relation or block is withdrawn. Ids are never given twice, whatever the kind.
    pub fn withdraw(&mut self, id: Uuid) {
        self.end_delegation(id);
        self.grants.remove(id);
        self.relations.remove(id);
        self.blocks.remove(id);
    }

    fn end_delegation(&mut self, id: Uuid) {
        if let Some(ended) = self.delegations.remove(id) {
            for turn in turns_of(&ended) {
                self.turns.remove(&(turn, id));
            }
        }
    }

    /// When time alone next changes what stops a caller: a delegation begins or ends. Of what stops, nothing else has a period.
    pub fn next_turn(&self, after: Timestamp) -> Option<Timestamp> {
        self.turns.range((Bound::Excluded((after, Uuid::max())), Bound::Unbounded)).next().map(|(turn, _)| *turn)
    }

    /// Whether a person's address is protected now.
    pub fn set_protected(&mut self, subject: &Subject, is_protected: bool) {
        let subject = self.present(subject).clone();
        self.protected.insert(subject, is_protected);
    }

    /// A person has another pseudonym from now on. A ring of them changes nothing.
    pub fn follow(&mut self, former: &Subject, present: &Subject) {
        let (former, present) = (self.present(former).clone(), self.present(present).clone());
        if former == present {
            return;
        }
        self.relations.merge(&former, &present, |relation| relation.subject = present.clone());
        self.blocks.merge(&former, &present, |block| block.subject = present.clone());
        // Where the two differ, the stricter counts until the registry says more.
        if let Some(was) = self.protected.remove(&former) {
            *self.protected.entry(present.clone()).or_default() |= was;
        }
        self.aliases.insert(former, present);
    }

    /// The pseudonym that a person has now.
    fn present<'s>(&'s self, subject: &'s Subject) -> &'s Subject {
        let mut present = subject;
        while let Some(next) = self.aliases.get(present) {
            present = next;
        }
        present
    }

    /// The decision as of now.
    pub fn authorise<'a>(&'a self, caller: Caller, event: Event<'a>, now: Timestamp) -> Verdict<'a> {
        authorise(&self.case(caller, event, now))
    }

    /// Under which terms protected data leaves as of now; nothing if it stays.
    pub fn terms<'a>(&'a self, caller: Caller, event: Event<'a>, now: Timestamp) -> Option<Terms<'a>> {
        terms(&self.case(caller, event, now))
    }

    /// What stands in the way, as of now.
    pub fn shortcomings(&self, caller: Caller, event: Event<'_>, now: Timestamp) -> Vec<Reason> {
        shortcomings(&self.case(caller, event, now))
    }

    /// What stops a caller as of now, whatever the event.
    pub fn stopped(&self, caller: Caller, now: Timestamp) -> Option<Reason> {
        stopped(&self.party(caller, now))
    }

    /// What keeps this one event from a caller as of now, what stops the caller aside.
    pub fn denied(&self, caller: Caller, event: Event<'_>, now: Timestamp) -> Option<Reason> {
        denied(&self.case(caller, event, now))
    }

    /// Whether a caller acts for itself, or something lets it act for another now.
    pub fn delegated(&self, caller: Caller, now: Timestamp) -> bool {
        delegated(&self.party(caller, now))
    }

    /// Of these types, those that a caller may not act for now.
    pub fn uncovered<'t>(&self, caller: Caller, types: &'t [String], now: Timestamp) -> Vec<&'t str> {
        uncovered(&self.party(caller, now), types)
    }

    fn party(&self, caller: Caller, now: Timestamp) -> Party<'_> {
        let gone = |unit: &Organisasjonsnummer| self.deleted_units.contains(unit);
        Party {
            caller,
            member: self.members.get(&caller.organisation),
            supplier: caller.supplier.and_then(|supplier| self.members.get(&supplier)),
            is_deleted: gone(&caller.organisation) || caller.supplier.as_ref().is_some_and(gone),
            delegations: caller.supplier.map_or(&[], |supplier| self.delegations.get(&(caller.organisation, supplier))),
            now,
        }
    }

    fn case<'a>(&'a self, caller: Caller, event: Event<'a>, now: Timestamp) -> Case<'a> {
        let subject = event.subject.filter(|_| event.class != DataClass::Open).map(|subject| self.present(subject));
        let protection = match subject.and_then(|subject| self.protected.get(subject)) {
            Some(true) => Protection::Protected,
            Some(false) => Protection::None,
            None => Protection::Unknown,
        };
        Case {
            party: self.party(caller, now),
            grants: if event.class == DataClass::Open { &[] } else { self.grants.get(&(caller.organisation, event.controller)) },
            relations: subject.map_or(&[], |subject| self.relations.get(subject)),
            blocks: subject.map_or(&[], |subject| self.blocks.get(subject)),
            protection,
            event: Event { subject, ..event },
        }
    }
}

fn turns_of(delegation: &Delegation) -> impl Iterator<Item = Timestamp> {
    [delegation.period.from].into_iter().chain(delegation.period.until)
}
