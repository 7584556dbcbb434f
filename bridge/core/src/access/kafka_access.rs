//! What Kafka itself lets whom do: wanted as the facts have it, and how that differs from what is set.
//!
//! Kafka knows topics and not events: what is not open for all of a topic is never readable there, but to the bridge.
//! A read right implies describing.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use ryggrad_schemas::Catalogue;
use ryggrad_schemas::catalogue::{DataClass, topics};
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::Serialize;
use uuid::Uuid;

use super::facts::{Delegation, Member, Standing, covers};

/// The bridge's principal.
pub const BRIDGE: &str = "bridge";
/// What a producer's principal begins with; its source's name follows.
pub const PRODUCER: &str = "producer-";
/// What the bridge's own topics begin with.
const OWN: &str = "ryggrad.";
/// What the topics of single receivers begin with.
const OUTLETS: &str = "ut.";
/// What the services' groups begin with.
const GROUPS: &str = "ryggrad-";
/// As whom the bridge writes transactions to the topics of single receivers.
pub const OUTLETS_PUBLISHER: &str = "ryggrad-outlets";
/// Kafka's name of the cluster as a resource.
const CLUSTER: &str = "kafka-cluster";

/// What a right is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
    /// The cluster.
    Cluster,
    /// A producer's transactions.
    TransactionalId,
    /// Another of Kafka's kinds, by its number.
    Other(i8),
}

/// What may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// Everything.
    All,
    /// Reading, and describing with it.
    Read,
    /// Writing, and describing with it.
    Write,
    /// Making it.
    Create,
    /// Removing it, and records of it.
    Delete,
    /// Changing it; of the cluster, who may do what.
    Alter,
    /// Seeing that it is there.
    Describe,
    /// Seeing its settings.
    DescribeConfigs,
    /// Another of Kafka's operations, by its number.
    Other(i8),
}

/// One ACL. Ordered, so that a plan reads by what it is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Binding {
    /// What it is about.
    pub resource: Resource,
    /// Its name, or how names begin.
    pub name: String,
    /// Whether all names count that begin so.
    pub is_prefix: bool,
    /// Who, as Kafka has it: `User:` and a name.
    pub principal: String,
    /// From where; `*` from anywhere.
    pub host: String,
    /// What.
    pub operation: Operation,
    /// Whether it is allowed, not forbidden.
    pub is_allowed: bool,
}

impl Binding {
    fn allow(principal: &str, resource: Resource, name: &str, is_prefix: bool, operation: Operation) -> Self {
        let (name, principal) = (name.to_owned(), format!("User:{principal}"));
        Self { resource, name, is_prefix, principal, host: "*".to_owned(), operation, is_allowed: true }
    }

    /// Whether it could be of an earlier plan, and may be taken away again without asking.
    fn is_of_our_making(&self) -> bool {
        let user = self.principal.strip_prefix("User:").unwrap_or_default();
        let is_service = user == BRIDGE || user.starts_with(PRODUCER);
        let of_us = is_service || user.parse::<Organisasjonsnummer>().is_ok();
        let about_ours = match self.resource {
            Resource::Topic if is_service => self.name != "*",
            // Organisations are given topics by their names, to read.
            Resource::Topic => !self.is_prefix && self.operation == Operation::Read,
            Resource::Group => self.name == GROUPS || self.name.strip_prefix(user) == Some("."),
            Resource::TransactionalId => user.strip_prefix(PRODUCER) == Some(&self.name),
            Resource::Cluster | Resource::Other(_) => false,
        };
        of_us && about_ours && self.is_allowed && self.host == "*" && !matches!(self.operation, Operation::All | Operation::Other(_))
    }

    /// Whether it reaches a topic, or topics whose names begin so.
    fn reaches(&self, topic: &str, is_prefix: bool) -> bool {
        self.name == "*"
            || self.name == topic
            || self.is_prefix && topic.starts_with(&self.name)
            || is_prefix && self.name.starts_with(topic)
    }
}

/// How much a principal may ask of the brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Bytes a second that it may fetch from each broker.
    pub consumer_byte_rate: u64,
    /// Share of a broker's threads that its requests may take, in hundredths of one thread.
    pub request_percentage: u64,
}

impl Default for Quota {
    /// A catch-up of all registries in minutes, and never more than half of a thread.
    fn default() -> Self {
        Self { consumer_byte_rate: 10 * 1024 * 1024, request_percentage: 50 }
    }
}

/// All that is set, or is to be. Quotas by the name of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rights {
    /// ACLs.
    pub bindings: BTreeSet<Binding>,
    /// Quotas of those who have either.
    pub quotas: BTreeMap<String, Quota>,
}

/// A topic for one receiver alone: `ut.<receiver>.<subscription>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// Who gets it.
    pub receiver: Organisasjonsnummer,
    /// Who has made it for the receiver, if somebody else.
    pub supplier: Option<Organisasjonsnummer>,
    /// The subscription.
    pub subscription: Uuid,
}

impl Outlet {
    /// From the name of its topic.
    pub fn named(topic: &str) -> Option<Self> {
        let (receiver, subscription) = topic.strip_prefix(OUTLETS)?.split_once('.')?;
        let named = Self { receiver: receiver.parse().ok()?, supplier: None, subscription: Uuid::try_parse(subscription).ok()? };
        // An id can be written in several ways, and each would be another topic.
        (named.topic() == topic).then_some(named)
    }

    /// Its topic.
    pub fn topic(&self) -> String {
        format!("{OUTLETS}{}.{}", self.receiver, self.subscription)
    }

    /// Whoever may ever read it.
    pub fn parties(&self) -> impl Iterator<Item = Organisasjonsnummer> {
        [self.receiver].into_iter().chain(self.supplier)
    }

    /// What the groups of these begin with.
    pub fn groups(&self) -> Vec<String> {
        self.parties().map(|who| format!("{who}.")).collect()
    }
}

/// What is known of who takes part.
#[derive(Debug, Clone, Copy)]
pub struct Parties<'a> {
    /// Members.
    pub members: &'a [Member],
    /// Who acts for them.
    pub delegations: &'a [Delegation],
    /// Topics of their own.
    pub outlets: &'a [Outlet],
}

/// What services need, whoever takes part.
pub fn of_services(catalogue: &Catalogue) -> BTreeSet<Binding> {
    use Operation::{Alter, Create, Delete, Describe, DescribeConfigs, Read, Write};
    let mut found = BTreeSet::new();
    let mut allow = |principal: &str, resource, name: &str, is_prefix, operations: &[Operation]| {
        found.extend(operations.iter().map(|operation| Binding::allow(principal, resource, name, is_prefix, *operation)));
    };
    allow(BRIDGE, Resource::Topic, OWN, true, &[Read, Write, Create, DescribeConfigs]);
    allow(BRIDGE, Resource::Topic, OUTLETS, true, &[Read, Write, Create, Delete, DescribeConfigs]);
    allow(BRIDGE, Resource::TransactionalId, OUTLETS_PUBLISHER, false, &[Write]);
    // How far receivers have read what is theirs alone.
    allow(BRIDGE, Resource::Group, "*", false, &[Describe]);
    allow(BRIDGE, Resource::Group, GROUPS, true, &[Read]);
    // Who reads a receiver's topic is in force within a second, which nobody but the bridge can see to.
    allow(BRIDGE, Resource::Cluster, CLUSTER, false, &[Alter]);
    for event in &catalogue.events {
        allow(BRIDGE, Resource::Topic, &event.topic, false, &[Read, Create, DescribeConfigs]);
    }
    for source in &catalogue.sources {
        let principal = format!("{PRODUCER}{}", source.name);
        // Before it starts, it compares every topic with the catalogue, and reads none of them by that.
        allow(&principal, Resource::Topic, OWN, true, &[Describe, DescribeConfigs]);
        for event in &catalogue.events {
            let operations: &[Operation] =
                if event.ce_type == source.event { &[Read, Write, DescribeConfigs] } else { &[Describe, DescribeConfigs] };
            allow(&principal, Resource::Topic, &event.topic, false, operations);
        }
        for topic in [topics::SOURCE_POSITIONS, topics::QUARANTINE] {
            allow(&principal, Resource::Topic, topic, false, &[Read, Write]);
        }
        allow(&principal, Resource::Topic, topics::SOURCE_COMMANDS, false, &[Read]);
        allow(&principal, Resource::Topic, topics::REMOVED, false, &[Write]);
        allow(&principal, Resource::Group, GROUPS, true, &[Read]);
        allow(&principal, Resource::TransactionalId, &source.name, false, &[Write]);
    }
    found
}

/// What is to be set, as of now.
pub fn wanted(catalogue: &Catalogue, parties: Parties<'_>, quota: Quota, now: Timestamp) -> Rights {
    let mut rights = Rights { bindings: of_services(catalogue), quotas: BTreeMap::new() };
    let known = Known::of(parties, now);
    let mut read = |who: Organisasjonsnummer, topic: &str| {
        rights.bindings.extend(reading(who, topic));
        rights.quotas.insert(who.to_string(), quota);
    };
    let is_open = |topic: &str| catalogue.events.iter().filter(|event| event.topic == topic).all(|event| event.class == DataClass::Open);
    for event in catalogue.events.iter().filter(|event| is_open(&event.topic)) {
        let members = parties.members.iter().map(|member| member.organisation).filter(|organisation| known.is_active(*organisation));
        let suppliers =
            known.in_force.iter().filter(|delegation| covers(&delegation.types, &event.ce_type)).map(|delegation| delegation.supplier);
        for who in members.chain(suppliers) {
            read(who, &event.topic);
        }
    }
    for outlet in parties.outlets {
        known.readers(outlet).for_each(|who| read(who, &outlet.topic()));
    }
    rights
}

/// What makes who reads a receiver's topic what it is to be as of now, whatever is set: first what is taken.
pub fn of_outlet(outlet: &Outlet, members: &[Member], delegations: &[Delegation], now: Timestamp) -> Vec<Change> {
    let known = Known::of(Parties { members, delegations, outlets: &[] }, now);
    let readers: BTreeSet<_> = known.readers(outlet).collect();
    let (topic, others) = (outlet.topic(), outlet.parties().filter(|who| !readers.contains(who)));
    let taken = others.map(|who| Change::Remove(Binding::allow(&who.to_string(), Resource::Topic, &topic, false, Operation::Read)));
    taken.chain(readers.iter().flat_map(|who| reading(*who, &topic)).map(Change::Add)).collect()
}

/// What somebody needs to read a topic.
fn reading(who: Organisasjonsnummer, topic: &str) -> [Binding; 2] {
    let principal = who.to_string();
    let group = Binding::allow(&principal, Resource::Group, &format!("{principal}."), true, Operation::Read);
    [Binding::allow(&principal, Resource::Topic, topic, false, Operation::Read), group]
}

/// Who takes part, as of now.
struct Known<'a> {
    standing: BTreeMap<Organisasjonsnummer, Standing>,
    in_force: Vec<&'a Delegation>,
}

impl<'a> Known<'a> {
    fn of(parties: Parties<'a>, now: Timestamp) -> Self {
        let standing = parties.members.iter().map(|member| (member.organisation, member.standing)).collect();
        let mut known = Self { standing, in_force: Vec::new() };
        // A supplier need be no member; one that is must not be stopped.
        let may_act = |supplier| !matches!(known.standing.get(&supplier), Some(Standing::Suspended | Standing::Expelled));
        let acts = |delegation: &&Delegation| known.is_active(delegation.organisation) && may_act(delegation.supplier);
        known.in_force = parties.delegations.iter().filter(|delegation| delegation.period.holds(now)).filter(acts).collect();
        known
    }

    fn is_active(&self, organisation: Organisasjonsnummer) -> bool {
        self.standing.get(&organisation) == Some(&Standing::Active)
    }

    fn readers(&self, outlet: &Outlet) -> impl Iterator<Item = Organisasjonsnummer> {
        let delegates = |delegation: &&Delegation, to| delegation.organisation == outlet.receiver && delegation.supplier == to;
        let acts = |supplier: &Organisasjonsnummer| self.in_force.iter().any(|delegation| delegates(delegation, *supplier));
        let receiver = Some(outlet.receiver).filter(|receiver| self.is_active(*receiver));
        // Whoever acts for one that is stopped is stopped with it: no delegation of that one is in force.
        receiver.into_iter().chain(outlet.supplier.filter(acts))
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "change")]
pub enum Change {
    /// Taking a right away that nothing gives any more.
    Remove(Binding),
    /// Taking one away that somebody else has set; with `--prune` alone.
    Prune(Binding),
    /// Giving a right.
    Add(Binding),
    /// Setting a user's quota; none takes it away.
    Quota {
        /// The user.
        user: String,
        /// How much.
        quota: Option<Quota>,
    },
}

/// What leads from what is set to what is wanted: first what is taken, then what is given.
pub fn difference(catalogue: &Catalogue, wanted: &Rights, actual: &Rights) -> Vec<Change> {
    let is_about_ours = |binding: &Binding| {
        let sources = catalogue.events.iter().map(|event| (event.topic.as_str(), false));
        let mut topics = sources.chain([(OWN, true), (OUTLETS, true)]);
        binding.resource != Resource::Topic || topics.any(|(topic, is_prefix)| binding.reaches(topic, is_prefix))
    };
    let mut changes = Vec::new();
    for binding in actual.bindings.difference(&wanted.bindings).filter(|binding| is_about_ours(binding)) {
        if binding.is_of_our_making() {
            changes.push(Change::Remove(binding.clone()));
        } else if binding.resource == Resource::Topic {
            changes.push(Change::Prune(binding.clone()));
        }
    }
    changes.extend(wanted.bindings.difference(&actual.bindings).cloned().map(Change::Add));
    for user in actual.quotas.keys().filter(|user| !wanted.quotas.contains_key(*user) && user.parse::<Organisasjonsnummer>().is_ok()) {
        changes.push(Change::Quota { user: user.clone(), quota: None });
    }
    for (user, quota) in wanted.quotas.iter().filter(|(user, quota)| actual.quotas.get(*user) != Some(*quota)) {
        changes.push(Change::Quota { user: user.clone(), quota: Some(*quota) });
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Period;

    const A: &str = "312345676";
    const B: &str = "310000019";
    const SUPPLIER: &str = "923609016";
    const OPEN: &str = "grunndata.virksomhet.v1";
    const NOW: i64 = 1_000;

    fn organisation(text: &str) -> Organisasjonsnummer {
        text.parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn member(text: &str, standing: Standing) -> Member {
        Member {
            organisation: organisation(text),
            standing,
            agreement: None,
            is_controller: false,
            bases: Vec::new(),
            normen: None,
            contact_points: Vec::new(),
        }
    }

    fn delegation(types: &str, until: i64) -> Delegation {
        let period = Period { from: at(0), until: Some(at(until)) };
        Delegation { organisation: organisation(A), supplier: organisation(SUPPLIER), types: vec![types.to_owned()], period }
    }

    fn outlet() -> Outlet {
        Outlet { receiver: organisation(A), supplier: Some(organisation(SUPPLIER)), subscription: Uuid::from_u128(1) }
    }

    fn rights(members: &[Member], delegations: &[Delegation]) -> Rights {
        let outlets = [outlet()];
        wanted(Catalogue::built_in(), Parties { members, delegations, outlets: &outlets }, Quota::default(), at(NOW))
    }

    /// The topics that somebody may read.
    fn readable(rights: &Rights, who: &str) -> Vec<String> {
        let principal = format!("User:{who}");
        let reads = |binding: &&Binding| {
            binding.principal == principal && binding.resource == Resource::Topic && binding.operation == Operation::Read
        };
        rights.bindings.iter().filter(reads).map(|binding| binding.name.clone()).collect()
    }

    #[test]
    fn who_reads_what_follows_from_standing_and_delegation() {
        use Standing::{Active, Candidate, Expelled, Suspended};
        let own = outlet().topic();
        let (open, both) = (vec![OPEN.to_owned()], vec![OPEN.to_owned(), own.clone()]);
        let (all, other) = ("no.ryggrad.*", "no.other.*");
        // Standing of A and of its supplier; the delegation's types and end; what A and the supplier read.
        for (standing, of_supplier, types, until, of_a, of_s) in [
            (Active, None, all, NOW + 1, both.clone(), both.clone()),
            (Active, None, all, NOW, both.clone(), vec![]),
            (Active, None, other, NOW + 1, both.clone(), vec![own.clone()]),
            (Active, Some(Suspended), all, NOW + 1, both.clone(), vec![]),
            (Active, Some(Expelled), all, NOW + 1, both.clone(), vec![]),
            (Active, Some(Candidate), all, NOW + 1, both.clone(), both.clone()),
            (Active, Some(Active), all, NOW, both.clone(), open.clone()),
            (Suspended, None, all, NOW + 1, vec![], vec![]),
            (Expelled, None, all, NOW + 1, vec![], vec![]),
            (Candidate, None, all, NOW + 1, vec![], vec![]),
        ] {
            let members: Vec<Member> =
                [Some(member(A, standing)), of_supplier.map(|standing| member(SUPPLIER, standing)), Some(member(B, Active))]
                    .into_iter()
                    .flatten()
                    .collect();
            let delegations = [delegation(types, until)];
            let rights = rights(&members, &delegations);
            let case = format!("{standing:?} {of_supplier:?} {types} {until}");
            // The bridge sets of the receiver's own topic what the plan for all says.
            let changes = of_outlet(&outlet(), &members, &delegations, at(NOW));
            for (who, reads) in [(A, &of_a), (SUPPLIER, &of_s)] {
                let binding = Binding::allow(who, Resource::Topic, &own, false, Operation::Read);
                let change = if reads.contains(&own) { Change::Add(binding) } else { Change::Remove(binding) };
                assert!(changes.contains(&change), "{case}: {changes:?}");
            }
            assert_eq!((readable(&rights, A), readable(&rights, SUPPLIER)), (of_a, of_s), "{case}");
            assert_eq!(readable(&rights, B), open, "{case}: another's own topic is no business of B");
            assert_eq!(rights.quotas.contains_key(A), !readable(&rights, A).is_empty(), "{case}");
        }
    }

    #[test]
    fn nobody_but_the_bridge_reads_what_is_protected_or_its_own() {
        let mut protected = Catalogue::built_in().clone();
        protected.events.iter_mut().for_each(|event| event.class = DataClass::Health);
        let members = [member(A, Standing::Active)];
        let rights = wanted(&protected, Parties { members: &members, delegations: &[], outlets: &[] }, Quota::default(), at(NOW));
        let readers: BTreeSet<&str> = rights
            .bindings
            .iter()
            .filter(|binding| binding.name == OPEN && binding.operation == Operation::Read)
            .map(|binding| binding.principal.as_str())
            .collect();
        assert_eq!(readers, BTreeSet::from(["User:bridge", "User:producer-enhetsregisteret"]));
        let open = self::rights(&members, &[]);
        assert!(readable(&open, A).iter().all(|topic| !topic.starts_with(OWN)));
    }

    #[test]
    fn a_plan_that_is_carried_out_leaves_nothing_to_do_and_strangers_alone() {
        let before = rights(&[member(A, Standing::Active)], &[delegation("no.ryggrad.*", NOW + 1)]);
        let after = rights(&[member(A, Standing::Suspended)], &[]);
        let catalogue = Catalogue::built_in();
        let stranger = Binding { principal: "User:guest".to_owned(), ..Binding::allow("", Resource::Topic, "*", false, Operation::Read) };
        let elsewhere = Binding { name: "payroll".to_owned(), principal: format!("User:{A}"), ..stranger.clone() };
        // Somebody's own rule about many topics, and one that only this file never writes.
        let broad = Binding { name: "grunndata.".to_owned(), is_prefix: true, ..elsewhere.clone() };
        let writes = Binding { name: OPEN.to_owned(), operation: Operation::Write, ..elsewhere.clone() };
        let others = BTreeSet::from([stranger.clone(), broad, writes]);
        for (from, to) in [(&Rights::default(), &before), (&before, &after), (&after, &before), (&before, &before)] {
            let mut actual = from.clone();
            actual.bindings.extend(others.iter().cloned().chain([elsewhere.clone()]));
            actual.quotas.insert("guest".to_owned(), Quota::default());
            let changes = difference(catalogue, to, &actual);
            for change in &changes {
                match change {
                    Change::Remove(binding) => assert!(actual.bindings.remove(binding) && !others.contains(binding)),
                    Change::Add(binding) => assert!(actual.bindings.insert(binding.clone())),
                    Change::Prune(binding) => assert!(others.contains(binding)),
                    Change::Quota { user, quota: Some(quota) } => drop(actual.quotas.insert(user.clone(), *quota)),
                    Change::Quota { user, quota: None } => assert!(actual.quotas.remove(user).is_some()),
                }
            }
            let left: Vec<Change> = others.iter().cloned().map(Change::Prune).collect();
            assert_eq!(difference(catalogue, to, &actual), left);
            assert!(actual.bindings.contains(&elsewhere) && actual.quotas.contains_key("guest"));
        }
    }

    #[test]
    fn a_receivers_topic_has_one_name() {
        assert_eq!(Outlet::named(&outlet().topic()), Some(Outlet { supplier: None, ..outlet() }));
        for other in [
            "ut.312345676",
            "ut.1.00000000-0000-0000-0000-000000000001",
            "ut.312345676.x",
            "ut.312345676.00000000000000000000000000000001",
            OPEN,
        ] {
            assert_eq!(Outlet::named(other), None, "{other}");
        }
    }
}
