//! A fact as it is kept and shown, and what is kept of each change.
//!
//! A person stands in relations and blocks alone. Must never put a subject into a record of history.

use jiff::Timestamp;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::facts::{Block, Delegation, Grant, Member, Relation};
use super::index::Facts;
use crate::role::Roles;
use crate::subscription::entity_tag;

/// What kinds of facts there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Members.
    Member,
    /// Delegations.
    Delegation,
    /// Grants.
    Grant,
    /// Relations.
    Relation,
    /// Blocks.
    Block,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Member, Self::Delegation, Self::Grant, Self::Relation, Self::Block];

    /// Its name in records, metrics and answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Delegation => "delegation",
            Self::Grant => "grant",
            Self::Relation => "relation",
            Self::Block => "block",
        }
    }

    /// Whether such facts tell of persons: then they lie sealed, and are their controller's alone.
    pub const fn is_about_persons(self) -> bool {
        matches!(self, Self::Relation | Self::Block)
    }
}

/// One fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fact {
    /// An organisation takes part.
    Member(Member),
    /// An organisation lets a supplier act.
    Delegation(Delegation),
    /// A receiver may have types.
    Grant(Grant),
    /// A receiver follows a patient.
    Relation(Relation),
    /// A person's events stay.
    Block(Block),
}

impl Fact {
    /// What kind it is of.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Member(_) => Kind::Member,
            Self::Delegation(_) => Kind::Delegation,
            Self::Grant(_) => Kind::Grant,
            Self::Relation(_) => Kind::Relation,
            Self::Block(_) => Kind::Block,
        }
    }

    /// Whose it is: who may withdraw it. None where that is the operator.
    pub const fn owner(&self) -> Option<Organisasjonsnummer> {
        match self {
            Self::Member(_) => None,
            Self::Delegation(delegation) => Some(delegation.organisation),
            Self::Grant(grant) => grant.controller,
            Self::Relation(relation) => Some(relation.controller),
            Self::Block(block) => block.controller,
        }
    }

    /// Whom it concerns: who may see it, beside operators where it tells of no person.
    pub fn concerns(&self) -> Vec<Organisasjonsnummer> {
        match self {
            Self::Member(member) => vec![member.organisation],
            Self::Delegation(delegation) => vec![delegation.organisation, delegation.supplier],
            Self::Grant(grant) => grant.controller.into_iter().chain([grant.receiver]).collect(),
            // Not the receiver: who is followed, and who has said no, is nothing that it is told.
            Self::Relation(_) | Self::Block(_) => self.owner().into_iter().collect(),
        }
    }

    /// What those may see whom it concerns.
    pub fn public(&self) -> Value {
        // Our own types, all of which have a JSON form.
        let whole = serde_json::to_value(self).unwrap_or_default();
        let inner = whole.as_object().and_then(|tagged| tagged.values().next()).cloned();
        plain(inner.unwrap_or_default())
    }

    /// The same for the history, which names no person.
    fn told(&self) -> Value {
        let mut shown = self.public();
        if let Value::Object(members) = &mut shown {
            members.remove("subject");
        }
        shown
    }

    /// Its entity tag, with its quotes.
    pub fn tag(&self) -> String {
        entity_tag(self)
    }

    /// Makes it count.
    pub fn set(self, id: &str, facts: &mut Facts) {
        // Only a member has an id that is none.
        let uuid = Uuid::parse_str(id).unwrap_or_default();
        match self {
            Self::Member(member) => facts.set_member(member),
            Self::Delegation(delegation) => facts.set_delegation(uuid, delegation),
            Self::Grant(grant) => facts.set_grant(uuid, grant),
            Self::Relation(relation) => facts.set_relation(uuid, relation),
            Self::Block(block) => facts.set_block(uuid, block),
        }
    }

    /// Makes it count no more.
    pub fn unset(&self, id: &str, facts: &mut Facts) {
        match self {
            Self::Member(member) => facts.remove_member(member.organisation),
            _ => facts.withdraw(Uuid::parse_str(id).unwrap_or_default()),
        }
    }
}

/// Without what is null, and with the ends of periods where the periods were.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let mut flat = Map::new();
            for (name, member) in members {
                match (name.as_str(), plain(member)) {
                    (_, Value::Null) => {}
                    ("period", Value::Object(ends)) => flat.extend(ends),
                    (_, member) => drop(flat.insert(name, member)),
                }
            }
            Value::Object(flat)
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        other => other,
    }
}

/// A fact with when it became what it is. Serialised into its kind's topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The fact.
    pub fact: Fact,
    /// When it was last changed.
    pub changed_at: Timestamp,
}

/// Who has changed something: a caller of the API, or a registry's event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// The caller's organisation; the operator's own token has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub organisation: Option<Organisasjonsnummer>,
    /// Who has acted for it, if it did not itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub supplier: Option<Organisasjonsnummer>,
    /// What the caller might do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Roles>,
    /// The id of the caller's local token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The caller's client, as the issuer names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The id of the event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<String>,
}

/// A change, as the history has it. Serialised into `ryggrad.access-history` before the change is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// When it was asked for.
    pub at: Timestamp,
    /// By whom.
    pub by: Who,
    /// What was changed.
    pub kind: Kind,
    /// Which of them.
    pub id: String,
    /// Whom it concerns.
    pub concerns: Vec<Organisasjonsnummer>,
    /// What it was; nothing if it was not there.
    pub before: Option<Value>,
    /// What it is; nothing if it is gone.
    pub after: Option<Value>,
}

impl Change {
    /// From one fact to another.
    pub fn new(at: Timestamp, by: Who, kind: Kind, id: &str, before: Option<&Fact>, after: Option<&Fact>) -> Self {
        let mut concerns: Vec<Organisasjonsnummer> = before.into_iter().chain(after).flat_map(Fact::concerns).collect();
        concerns.sort_unstable();
        concerns.dedup();
        Self { at, by, kind, id: id.to_owned(), concerns, before: before.map(Fact::told), after: after.map(Fact::told) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Period, Standing, Subject};
    use serde_json::json;

    fn organisation(text: &str) -> Organisasjonsnummer {
        text.parse().unwrap()
    }

    fn period() -> Period {
        Period { from: Timestamp::UNIX_EPOCH, until: None }
    }

    #[test]
    fn a_fact_is_shown_flat_and_its_history_names_nobody() {
        let (controller, receiver) = (organisation("312345676"), organisation("923609016"));
        let relation = Fact::Relation(Relation { controller, subject: Subject::new("p1"), receiver, period: period() });
        let shown = json!({"controller": "312345676", "subject": "p1", "receiver": "923609016", "from": "1970-01-01T00:00:00Z"});
        assert_eq!(relation.public(), shown);
        let change = Change::new(Timestamp::UNIX_EPOCH, Who::default(), Kind::Relation, "x", None, Some(&relation));
        assert!(!serde_json::to_string(&change).unwrap().contains("p1"));
        assert_eq!(change.concerns, [controller], "the receiver is not told");
    }

    #[test]
    fn what_is_set_and_unset_counts_and_counts_no_more() {
        let (member, mut facts) = (organisation("312345676"), Facts::default());
        let fact = Fact::Member(Member {
            organisation: member,
            standing: Standing::Active,
            agreement: None,
            is_controller: false,
            bases: Vec::new(),
            normen: None,
            contact_points: Vec::new(),
        });
        let stored = serde_json::to_vec(&Kept { fact: fact.clone(), changed_at: Timestamp::UNIX_EPOCH }).unwrap();
        assert_eq!(serde_json::from_slice::<Kept>(&stored).unwrap().fact, fact);
        fact.clone().set("312345676", &mut facts);
        assert!(facts.member(member).is_some());
        fact.unset("312345676", &mut facts);
        assert!(facts.member(member).is_none());
    }
}
