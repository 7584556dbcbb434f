//! What is said about organisations, and between them: members, delegations, grants, relations, blocks.
//!
//! Each is valid for a period; none of them is ever judged here. Must never show a subject.

use std::fmt;

use jiff::Timestamp;
use ryggrad_schemas::catalogue::type_matches;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::{Deserialize, Serialize};

/// From a moment on, up to and without another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Period {
    /// The first moment.
    pub from: Timestamp,
    /// The first moment after it; none if it is open.
    pub until: Option<Timestamp>,
}

impl Period {
    /// Whether a moment lies in it.
    pub fn holds(&self, at: Timestamp) -> bool {
        self.from <= at && self.until.is_none_or(|until| at < until)
    }
}

/// A person's pseudonym in one domain. Does not print.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subject(Box<str>);

impl Subject {
    /// From the key of a record.
    pub fn new(pseudonym: &str) -> Self {
        Self(Box::from(pseudonym))
    }

    /// As it stands in records.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Subject(…)")
    }
}

/// How a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Standing {
    /// Not admitted yet.
    Candidate,
    /// Admitted.
    Active,
    /// Gets nothing for now.
    Suspended,
    /// Gets nothing any more.
    Expelled,
}

/// The agreement that a member has signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Its reference.
    pub reference: String,
    /// Since when it is in force.
    pub from: Timestamp,
}

/// A member's own declaration that it follows Normen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Normen {
    /// The version of Normen.
    pub version: String,
    /// Who has signed it.
    pub signer: String,
    /// When it was signed, and until when it counts.
    pub period: Period,
}

/// On what grounds a member gets events of some types.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// Types, each exact or ending in `.*`.
    pub types: Vec<String>,
    /// The law, as it is cited.
    pub law: String,
    /// When it counts.
    pub period: Period,
}

/// An organisation that takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The organisation.
    pub organisation: Organisasjonsnummer,
    /// How it stands.
    pub standing: Standing,
    /// Its agreement.
    pub agreement: Option<Agreement>,
    /// Whether it is responsible for data itself (dataansvarlig).
    pub is_controller: bool,
    /// Its grounds.
    pub bases: Vec<Basis>,
    /// Its declaration.
    pub normen: Option<Normen>,
    /// Where people reach it.
    pub contact_points: Vec<String>,
}

/// An organisation lets a supplier act for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// For whom.
    pub organisation: Organisasjonsnummer,
    /// Who acts.
    pub supplier: Organisasjonsnummer,
    /// For which types.
    pub types: Vec<String>,
    /// When.
    pub period: Period,
}

/// A receiver may have events of some types in a view.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Whose data it is; none for registries, whose operator grants.
    pub controller: Option<Organisasjonsnummer>,
    /// Who gets it.
    pub receiver: Organisasjonsnummer,
    /// Which types.
    pub types: Vec<String>,
    /// In which view.
    pub view: String,
    /// When.
    pub period: Period,
}

/// A receiver follows a patient of a controller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Relation {
    /// Whose patient.
    pub controller: Organisasjonsnummer,
    /// The patient, as this controller's pseudonym.
    pub subject: Subject,
    /// Who follows.
    pub receiver: Organisasjonsnummer,
    /// When. What happened before it began is not opened by it.
    pub period: Period,
}

/// Nothing about a person goes to somebody, or to anybody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    /// Whose data; none for registries.
    pub controller: Option<Organisasjonsnummer>,
    /// The person.
    pub subject: Subject,
    /// Who gets nothing; nobody does if none.
    pub receiver: Option<Organisasjonsnummer>,
    /// Which types; all if empty.
    pub types: Vec<String>,
    /// When.
    pub period: Period,
}

/// Whether one of the patterns takes a type.
pub(super) fn covers(patterns: &[String], ce_type: &str) -> bool {
    patterns.iter().any(|pattern| type_matches(pattern, ce_type))
}
