//! What can be ordered to happen to the registry, beside what happens by itself.
//!
//! An act names what is to happen and never how chance decides it: the registry's own random
//! numbers do that, so that the same acts in the same order always give the same registry.

use serde::{Deserialize, Serialize};

use super::number::Organisasjonsnummer;

/// One kind of change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "act")]
pub(super) enum Act {
    /// Whatever falls to it.
    Any,
    /// A field change to some active unit.
    Edit,
    /// A new unit.
    Creation,
    /// Some unit is deleted.
    Deletion,
    /// Some unit is removed for legal reasons.
    Removal,
    /// This unit is deleted.
    Delete { organisasjonsnummer: Organisasjonsnummer },
    /// This unit is removed for legal reasons.
    Remove { organisasjonsnummer: Organisasjonsnummer },
    /// Every active unit's document gets one more member.
    NewField { name: String },
}

impl Act {
    /// The act that a control call names.
    pub(super) fn of_kind(word: &str) -> Option<Self> {
        match word {
            "any" => Some(Act::Any),
            "edit" => Some(Act::Edit),
            "creation" => Some(Act::Creation),
            "deletion" => Some(Act::Deletion),
            "removal" => Some(Act::Removal),
            _ => None,
        }
    }
}

/// Why a certain unit can't be deleted or removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Unknown,
    /// Deleted or removed before.
    Gone,
    /// As upstream: an underenhet has an enhet above it.
    HasUnderenheter,
    /// Underenheter to come need one.
    LastEnhet,
}

impl Refused {
    pub(super) fn reason(self) -> &'static str {
        match self {
            Refused::Unknown => "there is no such unit",
            Refused::Gone => "the unit is gone already",
            Refused::HasUnderenheter => "the unit has active underenheter, which must go first",
            Refused::LastEnhet => "the last enhet must stay",
        }
    }
}

/// An act that was carried out, and when: what a restart needs to do it again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    /// The number of changes made before it.
    pub(super) after: u64,
    /// How often it was carried out in a row.
    pub(super) count: u64,
    #[serde(flatten)]
    pub(super) act: Act,
    /// Whether the feed says nothing of it.
    pub(super) silent: bool,
}

impl Order {
    /// The number of changes made after it.
    pub(super) fn end(&self) -> u64 {
        self.after.saturating_add(self.count)
    }
}
