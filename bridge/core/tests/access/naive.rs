//! The naive decision: written from the rules of DESIGN's chapter on trust alone, with nothing of the
//! product's but its types. It keeps all that was said, and reads it from the beginning each time.

use std::collections::HashMap;

use jiff::Timestamp;
use ryggrad_bridge_core::access::{
    Block, Caller, Delegation, Event, Grant, Member, Period, Reason, Relation, Standing, Subject, Verdict, View,
};
use ryggrad_schemas::catalogue::DataClass;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use uuid::Uuid;

/// Something that was said.
#[derive(Debug, Clone)]
pub enum Said {
    Member(Member),
    NoMember(Organisasjonsnummer),
    Unit(Organisasjonsnummer, bool),
    Delegation(Uuid, Delegation),
    Grant(Uuid, Grant),
    Relation(Uuid, Relation),
    Block(Uuid, Block),
    Withdrawn(Uuid),
    Protected(Subject, bool),
    Follows(Subject, Subject),
}

#[derive(Default)]
pub struct Naive {
    history: Vec<Said>,
}

impl Naive {
    pub fn hear(&mut self, said: Said) {
        self.history.push(said);
    }

    /// The latest word on each id.
    fn standing(&self) -> impl Iterator<Item = &Said> {
        let mut latest: HashMap<Uuid, &Said> = HashMap::new();
        for said in &self.history {
            match said {
                Said::Delegation(id, _) | Said::Grant(id, _) | Said::Relation(id, _) | Said::Block(id, _) => drop(latest.insert(*id, said)),
                Said::Withdrawn(id) => drop(latest.remove(id)),
                _ => {}
            }
        }
        latest.into_values()
    }

    fn member(&self, organisation: Organisasjonsnummer) -> Option<&Member> {
        self.history.iter().rev().find_map(|said| match said {
            Said::Member(member) if member.organisation == organisation => Some(Some(member)),
            Said::NoMember(gone) if *gone == organisation => Some(None),
            _ => None,
        })?
    }

    fn is_deleted(&self, organisation: Organisasjonsnummer) -> bool {
        let last = self.history.iter().rev().find_map(|said| match said {
            Said::Unit(unit, is_deleted) if *unit == organisation => Some(*is_deleted),
            _ => None,
        });
        last == Some(true)
    }

    /// All pseudonyms of a person, and whether their address is protected.
    fn person(&self, subject: &Subject) -> (Vec<Subject>, Option<bool>) {
        let mut groups: Vec<(Vec<Subject>, Option<bool>)> = Vec::new();
        let of = |groups: &mut Vec<(Vec<Subject>, Option<bool>)>, subject: &Subject| {
            let at = groups.iter().position(|(all, _)| all.contains(subject));
            at.map_or_else(|| (vec![subject.clone()], None), |at| groups.remove(at))
        };
        for said in &self.history {
            match said {
                Said::Protected(who, is_protected) => {
                    let (all, _) = of(&mut groups, who);
                    groups.push((all, Some(*is_protected)));
                }
                Said::Follows(one, other) => {
                    let (mut all, first) = of(&mut groups, one);
                    if all.contains(other) {
                        groups.push((all, first));
                        continue;
                    }
                    let (more, second) = of(&mut groups, other);
                    all.extend(more);
                    let protection = match (first, second) {
                        (Some(true), _) | (_, Some(true)) => Some(true),
                        (Some(false), _) | (_, Some(false)) => Some(false),
                        (None, None) => None,
                    };
                    groups.push((all, protection));
                }
                _ => {}
            }
        }
        of(&mut groups, subject)
    }

    pub fn decide<'a>(&self, caller: Caller, event: Event<'a>, now: Timestamp) -> Verdict<'a> {
        match self.judge(caller, event, now) {
            Ok(view) => Verdict::Deliver(view),
            Err(reason) => Verdict::Withhold(reason),
        }
    }

    /// The first moment after another at which a delegation begins or ends.
    pub fn next_turn(&self, after: Timestamp) -> Option<Timestamp> {
        let periods = self.standing().filter_map(|said| if let Said::Delegation(_, one) = said { Some(one.period) } else { None });
        periods.flat_map(|period| [Some(period.from), period.until]).flatten().filter(|turn| *turn > after).min()
    }

    /// Whether a delegation takes everything that a pattern means, types included that nobody has thought of yet.
    pub fn covers(&self, caller: Caller, pattern: &str, now: Timestamp) -> bool {
        let Some(supplier) = caller.supplier else { return true };
        let meant = pattern.replace('*', "noe.nytt.v1");
        self.standing().any(|said| match said {
            Said::Delegation(_, one) => {
                let takes = |own: &String| own.strip_suffix('*').map_or(own == pattern, |front| meant.starts_with(front));
                (one.organisation, one.supplier) == (caller.organisation, supplier)
                    && within(one.period, now)
                    && one.types.iter().any(takes)
            }
            _ => false,
        })
    }

    /// What stops a caller: nothing could be delivered then, whatever it was.
    pub fn stops(&self, caller: Caller, now: Timestamp) -> Option<Reason> {
        let Caller { organisation, supplier } = caller;
        let standing = |who| self.member(who).map(|member| member.standing);
        let delegations = || {
            self.standing().filter_map(|said| match said {
                Said::Delegation(_, one) if one.organisation == organisation && Some(one.supplier) == supplier => Some(one.period),
                _ => None,
            })
        };
        if self.is_deleted(organisation) || supplier.is_some_and(|supplier| self.is_deleted(supplier)) {
            return Some(Reason::UnitDeleted);
        }
        match (standing(organisation), supplier.map(standing)) {
            (Some(Standing::Suspended), _) => Some(Reason::Suspended),
            (Some(Standing::Expelled), _) => Some(Reason::Expelled),
            (_, Some(Some(Standing::Suspended | Standing::Expelled))) => Some(Reason::SupplierStopped),
            (_, Some(_)) if !delegations().any(|period| within(period, now)) => Some(Reason::NotDelegated),
            _ => None,
        }
    }

    fn judge<'a>(&self, caller: Caller, event: Event<'a>, now: Timestamp) -> Result<View<'a>, Reason> {
        let member = self.member(caller.organisation);
        if self.is_deleted(caller.organisation) || caller.supplier.is_some_and(|supplier| self.is_deleted(supplier)) {
            return Err(Reason::UnitDeleted);
        }
        match member.map(|member| member.standing) {
            Some(Standing::Suspended) => return Err(Reason::Suspended),
            Some(Standing::Expelled) => return Err(Reason::Expelled),
            _ => {}
        }
        if let Some(supplier) = caller.supplier {
            if matches!(self.member(supplier).map(|member| member.standing), Some(Standing::Suspended | Standing::Expelled)) {
                return Err(Reason::SupplierStopped);
            }
            let may = self.standing().any(|said| match said {
                Said::Delegation(_, one) => {
                    (one.organisation, one.supplier) == (caller.organisation, supplier)
                        && takes(&one.types, event.ce_type)
                        && within(one.period, now)
                }
                _ => false,
            });
            if !may {
                return Err(Reason::NotDelegated);
            }
        }
        if event.class == DataClass::Open {
            return Ok(View { name: "full", with_addresses: true });
        }
        let member = member.ok_or(Reason::NoMember)?;
        if member.standing == Standing::Candidate {
            return Err(Reason::NotAdmitted);
        }
        if member.agreement.as_ref().is_none_or(|agreement| now < agreement.from) {
            return Err(Reason::NoAgreement);
        }
        if !member.normen.as_ref().is_some_and(|normen| within(normen.period, now)) {
            return Err(Reason::NoNormen);
        }
        if !member.bases.iter().any(|basis| takes(&basis.types, event.ce_type) && within(basis.period, now)) {
            return Err(Reason::NoBasis);
        }
        if event.class == DataClass::Health && (event.controller.is_none() || event.subject.is_none()) {
            return Err(Reason::Unattributed);
        }
        let views: Vec<&str> = self
            .standing()
            .filter_map(|said| match said {
                Said::Grant(_, one) => Some(one),
                _ => None,
            })
            .filter(|one| one.controller == event.controller && one.receiver == caller.organisation)
            .filter(|one| takes(&one.types, event.ce_type) && within(one.period, now))
            .map(|one| one.view.as_str())
            .collect();
        if views.is_empty() {
            return Err(Reason::NotGranted);
        }
        // The widest is the last that the catalogue names.
        let widest = event.views.iter().rfind(|view| views.contains(&view.as_str())).ok_or(Reason::UnknownView)?;
        let (names, protected) = event.subject.map(|subject| self.person(subject)).unwrap_or_default();
        if event.class == DataClass::Health {
            let related: Vec<Timestamp> = self
                .standing()
                .filter_map(|said| match said {
                    Said::Relation(_, one) => Some(one),
                    _ => None,
                })
                .filter(|one| {
                    Some(one.controller) == event.controller && names.contains(&one.subject) && one.receiver == caller.organisation
                })
                .filter(|one| within(one.period, now))
                .map(|one| one.period.from)
                .collect();
            let first = related.into_iter().min().ok_or(Reason::NoRelation)?;
            if event.occurred_at < first {
                return Err(Reason::BeforeRelation);
            }
        }
        let blocked = self.standing().any(|said| match said {
            Said::Block(_, one) => {
                one.controller == event.controller
                    && names.contains(&one.subject)
                    && one.receiver.is_none_or(|receiver| receiver == caller.organisation)
                    && (one.types.is_empty() || takes(&one.types, event.ce_type))
                    && within(one.period, now)
            }
            _ => false,
        });
        if blocked {
            return Err(Reason::Blocked);
        }
        Ok(View { name: widest, with_addresses: protected == Some(false) })
    }
}

fn within(period: Period, at: Timestamp) -> bool {
    at >= period.from && period.until.is_none_or(|until| until > at)
}

fn takes(patterns: &[String], ce_type: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => ce_type.starts_with(beginning),
        None => pattern == ce_type,
    })
}
