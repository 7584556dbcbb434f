//! The decision: this event, to this organisation, now?
//!
//! A table of rules, each with the reason that it withholds for; what no rule withholds is delivered.
//! Must never tell a receiver the reason, nor that there was anything to withhold.

use jiff::Timestamp;
use ryggrad_schemas::catalogue::DataClass;
use ryggrad_schemas::identifiers::Organisasjonsnummer;

use super::facts::{Basis, Block, Delegation, Grant, Member, Relation, Standing, Subject, covers};

/// Who is to get it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The organisation that it is for.
    pub organisation: Organisasjonsnummer,
    /// Who acts for it, if it does not itself.
    pub supplier: Option<Organisasjonsnummer>,
}

impl Caller {
    /// An organisation, and who acts for it: whoever acts for itself is no supplier.
    pub fn new(organisation: Organisasjonsnummer, supplier: Option<Organisasjonsnummer>) -> Self {
        Self { organisation, supplier: supplier.filter(|supplier| *supplier != organisation) }
    }
}

/// What is to be delivered, as far as the decision is concerned.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// Its type.
    pub ce_type: &'a str,
    /// The class of its data.
    pub class: DataClass,
    /// The views of its type, the narrowest first.
    pub views: &'a [String],
    /// Whose data it is; none for registries.
    pub controller: Option<Organisasjonsnummer>,
    /// Whom it is about.
    pub subject: Option<&'a Subject>,
    /// When what it tells of has happened.
    pub occurred_at: Timestamp,
}

/// Whether a person's address is protected, as of now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// It is not.
    None,
    /// It is: no address leaves.
    Protected,
    /// Nobody has said: no address leaves.
    Unknown,
}

/// Everything that is known of a caller, whatever the event.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// Who is to get it.
    pub caller: Caller,
    /// The organisation as a member.
    pub member: Option<&'a Member>,
    /// Whoever acts for it, as a member.
    pub supplier: Option<&'a Member>,
    /// The organisation, or whoever acts for it, is gone from Enhetsregisteret.
    pub is_deleted: bool,
    /// From the organisation to the supplier.
    pub delegations: &'a [Delegation],
    /// Now.
    pub now: Timestamp,
}

/// Everything that is known of the case: what the index has found for these parties and this person.
/// Facts for other times and types may be among them; the rules look.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// Who is to get it.
    pub party: Party<'a>,
    /// From the controller to the organisation.
    pub grants: &'a [Grant],
    /// About the person, of the controller; to whomever.
    pub relations: &'a [Relation],
    /// About the person; against whomever.
    pub blocks: &'a [Block],
    /// The person's.
    pub protection: Protection,
    /// What is to be delivered.
    pub event: Event<'a>,
}

/// How an event leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// Its name in the catalogue.
    pub name: &'a str,
    /// Whether addresses, and what tells of them, go along.
    pub with_addresses: bool,
}

/// The decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It leaves, like this.
    Deliver(View<'a>),
    /// It stays.
    Withhold(Reason),
}

/// Why something stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// A unit is gone from Enhetsregisteret.
    UnitDeleted,
    /// The organisation is suspended.
    Suspended,
    /// The organisation is expelled.
    Expelled,
    /// Whoever acts is suspended or expelled.
    SupplierStopped,
    /// Nothing says that the supplier may act.
    NotDelegated,
    /// The organisation is no member.
    NoMember,
    /// The organisation is not admitted yet.
    NotAdmitted,
    /// There is no agreement in force.
    NoAgreement,
    /// There is no declaration on Normen that counts.
    NoNormen,
    /// There are no grounds for this type.
    NoBasis,
    /// The event does not say whose data it is, or whom it is about.
    Unattributed,
    /// Nothing opens this type to the organisation.
    NotGranted,
    /// What opens it names a view that the type has not.
    UnknownView,
    /// The organisation does not follow the patient.
    NoRelation,
    /// It happened before the organisation followed the patient.
    BeforeRelation,
    /// The person, or the controller for it, has said no.
    Blocked,
}

impl Reason {
    /// Those that concern the caller alone, and stop everything.
    pub const STOPPING: [Self; 5] = [Self::UnitDeleted, Self::Suspended, Self::Expelled, Self::SupplierStopped, Self::NotDelegated];

    /// Its name in metrics and records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnitDeleted => "unit-deleted",
            Self::Suspended => "suspended",
            Self::Expelled => "expelled",
            Self::SupplierStopped => "supplier-stopped",
            Self::NotDelegated => "not-delegated",
            Self::NoMember => "no-member",
            Self::NotAdmitted => "not-admitted",
            Self::NoAgreement => "no-agreement",
            Self::NoNormen => "no-normen",
            Self::NoBasis => "no-basis",
            Self::Unattributed => "unattributed",
            Self::NotGranted => "not-granted",
            Self::UnknownView => "unknown-view",
            Self::NoRelation => "no-relation",
            Self::BeforeRelation => "before-relation",
            Self::Blocked => "blocked",
        }
    }

    /// What is missing, for an operator or the organisation's own people; never said of a person.
    pub const fn in_plain_words(self) -> &'static str {
        match self {
            Self::UnitDeleted => "the organisation, or the supplier that acts for it, is deleted in Enhetsregisteret",
            Self::Suspended => "the organisation's membership is suspended",
            Self::Expelled => "the organisation was expelled",
            Self::SupplierStopped => "the supplier's membership is suspended or ended",
            Self::NotDelegated => "the organisation has not delegated this type to the supplier, or not for now",
            Self::NoMember => "the organisation is no member",
            Self::NotAdmitted => "the organisation is a candidate and not admitted yet",
            Self::NoAgreement => "no agreement with the organisation is in force",
            Self::NoNormen => "the organisation's declaration on Normen is missing or has expired",
            Self::NoBasis => "the organisation has stated no legal basis for this type that counts now",
            Self::Unattributed => "the event does not say whose data it is or whom it is about",
            Self::NotGranted => "nobody has granted this type to the organisation, or not for now",
            Self::UnknownView => "the grant names a view that this type does not have",
            Self::NoRelation => "the organisation has no relation to the patient now",
            Self::BeforeRelation => "it happened before the organisation's relation to the patient began",
            Self::Blocked => "a block stands against it",
        }
    }
}

/// A rule: whether it withholds, and why.
type Rule = fn(&Case<'_>) -> Option<Reason>;

/// What a caller must be, in the order in which what is missing would be put right.
const OF_CALLER: [Rule; 3] = [unit, standing, supplier];

/// What must hold for the event, likewise.
const OF_EVENT: [Rule; 5] = [admission, grounds, attribution, grant, person];

fn reasons(case: &Case<'_>) -> impl Iterator<Item = Reason> {
    OF_CALLER.iter().chain(&OF_EVENT).filter_map(|rule| rule(case))
}

/// Decides. For what no rule withholds, the widest view that was granted.
pub fn authorise<'a>(case: &Case<'a>) -> Verdict<'a> {
    if let Some(reason) = reasons(case).next() {
        return Verdict::Withhold(reason);
    }
    let with_addresses = !is_protected(case) || case.protection == Protection::None;
    view(case).map_or(Verdict::Withhold(Reason::UnknownView), |name| Verdict::Deliver(View { name, with_addresses }))
}

/// How much of an event a view shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// Its attributes: that something has happened, and to whom.
    Notice,
    /// All of it.
    Whole,
}

/// Under which terms something leaves that not everyone may have: what the record of its disclosure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms<'a> {
    /// How it leaves.
    pub view: View<'a>,
    /// How much of it that is: all of it in the widest view of its type, in any other no data.
    pub extent: Extent,
    /// The law that its receiver cites.
    pub law: Option<&'a str>,
}

/// Decides on protected data, with the terms; nothing if it stays. What stops the caller aside, as in [`denied`].
pub fn terms<'a>(case: &Case<'a>) -> Option<Terms<'a>> {
    if denied(case).is_some() {
        return None;
    }
    let name = view(case)?;
    let extent = if case.event.views.last().is_some_and(|widest| widest == name) { Extent::Whole } else { Extent::Notice };
    let view = View { name, with_addresses: case.protection == Protection::None };
    Some(Terms { view, extent, law: counting(case).next().map(|basis| basis.law.as_str()) })
}

/// The widest view of the type that is granted; of open data, the widest.
fn view<'a>(case: &Case<'a>) -> Option<&'a str> {
    let open = |view: &&String| !is_protected(case) || granted(case).any(|grant| grant.view == **view);
    case.event.views.iter().rev().find(open).map(String::as_str)
}

/// Everything that stands in the way, one reason a rule: what an organisation lacks.
pub fn shortcomings(case: &Case<'_>) -> Vec<Reason> {
    reasons(case).collect()
}

/// What stops a caller now, whatever the event. The first of what every decision would say.
pub fn stopped(party: &Party<'_>) -> Option<Reason> {
    gone(party).or_else(|| barred(party)).or_else(|| supplier_stopped(party)).or_else(|| undelegated(party, |_| true))
}

/// What keeps this one event from a caller, what stops the caller aside: whoever is stopped waits, and with it what
/// nothing else keeps back.
pub fn denied(case: &Case<'_>) -> Option<Reason> {
    let of_type = if delegated(&case.party) { undelegated_type(case) } else { None };
    of_type.or_else(|| OF_EVENT.iter().find_map(|rule| rule(case)))
}

/// Whether anything lets a caller act now, of whatever type.
pub fn delegated(party: &Party<'_>) -> bool {
    undelegated(party, |_| true).is_none()
}

/// Of these types, each exact or ending in `.*`, those that no delegation covers now. One that ends in `.*` is covered by
/// one as wide alone: not by a delegation of each type that it means today.
pub fn uncovered<'t>(party: &Party<'_>, types: &'t [String]) -> Vec<&'t str> {
    let lacks = |ce_type: &&str| undelegated(party, |delegation| covers(&delegation.types, ce_type)).is_some();
    types.iter().map(String::as_str).filter(lacks).collect()
}

fn is_protected(case: &Case<'_>) -> bool {
    case.event.class != DataClass::Open
}

fn unit(case: &Case<'_>) -> Option<Reason> {
    gone(&case.party)
}

/// Open data too: whoever was stopped gets nothing.
fn standing(case: &Case<'_>) -> Option<Reason> {
    barred(&case.party)
}

fn supplier(case: &Case<'_>) -> Option<Reason> {
    supplier_stopped(&case.party).or_else(|| undelegated_type(case))
}

fn undelegated_type(case: &Case<'_>) -> Option<Reason> {
    undelegated(&case.party, |delegation| covers(&delegation.types, case.event.ce_type))
}

fn gone(party: &Party<'_>) -> Option<Reason> {
    party.is_deleted.then_some(Reason::UnitDeleted)
}

fn barred(party: &Party<'_>) -> Option<Reason> {
    match party.member?.standing {
        Standing::Suspended => Some(Reason::Suspended),
        Standing::Expelled => Some(Reason::Expelled),
        Standing::Candidate | Standing::Active => None,
    }
}

fn supplier_stopped(party: &Party<'_>) -> Option<Reason> {
    let stopped = |supplier: &Member| matches!(supplier.standing, Standing::Suspended | Standing::Expelled);
    party.supplier.is_some_and(stopped).then_some(Reason::SupplierStopped)
}

fn undelegated(party: &Party<'_>, counts: impl Fn(&Delegation) -> bool) -> Option<Reason> {
    let supplier = party.caller.supplier?;
    let delegated = |delegation: &Delegation| {
        delegation.organisation == party.caller.organisation
            && delegation.supplier == supplier
            && delegation.period.holds(party.now)
            && counts(delegation)
    };
    (!party.delegations.iter().any(delegated)).then_some(Reason::NotDelegated)
}

fn admission(case: &Case<'_>) -> Option<Reason> {
    if !is_protected(case) {
        return None;
    }
    let Some(member) = case.party.member else { return Some(Reason::NoMember) };
    if member.standing == Standing::Candidate {
        return Some(Reason::NotAdmitted);
    }
    if member.agreement.as_ref().is_none_or(|agreement| agreement.from > case.party.now) {
        return Some(Reason::NoAgreement);
    }
    member.normen.as_ref().is_none_or(|normen| !normen.period.holds(case.party.now)).then_some(Reason::NoNormen)
}

fn grounds(case: &Case<'_>) -> Option<Reason> {
    let _ = case.party.member.filter(|_| is_protected(case))?;
    counting(case).next().is_none().then_some(Reason::NoBasis)
}

/// The member's grounds for the type that count now.
fn counting<'a>(case: &Case<'a>) -> impl Iterator<Item = &'a Basis> {
    let (now, ce_type) = (case.party.now, case.event.ce_type);
    let bases = case.party.member.map_or(&[][..], |member| &member.bases);
    bases.iter().filter(move |basis| basis.period.holds(now) && covers(&basis.types, ce_type))
}

fn attribution(case: &Case<'_>) -> Option<Reason> {
    let lacks = case.event.controller.is_none() || case.event.subject.is_none();
    (case.event.class == DataClass::Health && lacks).then_some(Reason::Unattributed)
}

fn granted<'c>(case: &'c Case<'_>) -> impl Iterator<Item = &'c Grant> {
    case.grants.iter().filter(|grant| {
        grant.receiver == case.party.caller.organisation
            && grant.controller == case.event.controller
            && grant.period.holds(case.party.now)
            && covers(&grant.types, case.event.ce_type)
    })
}

fn grant(case: &Case<'_>) -> Option<Reason> {
    if is_protected(case) && granted(case).next().is_none() {
        return Some(Reason::NotGranted);
    }
    view(case).is_none().then_some(Reason::UnknownView)
}

/// What stands between a receiver and one person: last, since it is nobody's business but theirs.
fn person(case: &Case<'_>) -> Option<Reason> {
    let (event, receiver) = (&case.event, case.party.caller.organisation);
    if event.class == DataClass::Health {
        let related = || {
            case.relations.iter().filter(|relation| {
                relation.receiver == receiver
                    && Some(relation.controller) == event.controller
                    && Some(&relation.subject) == event.subject
                    && relation.period.holds(case.party.now)
            })
        };
        if related().next().is_none() {
            return Some(Reason::NoRelation);
        }
        if !related().any(|relation| relation.period.from <= event.occurred_at) {
            return Some(Reason::BeforeRelation);
        }
    }
    let blocked = |block: &Block| {
        Some(&block.subject) == event.subject
            && block.controller == event.controller
            && block.receiver.is_none_or(|blocked| blocked == receiver)
            && block.period.holds(case.party.now)
            && (block.types.is_empty() || covers(&block.types, event.ce_type))
    };
    (is_protected(case) && case.blocks.iter().any(blocked)).then_some(Reason::Blocked)
}
