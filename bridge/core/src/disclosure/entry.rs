//! What is recorded: that something is about to leave, how that went, and who has looked at the records.
//!
//! An intent is acknowledged before the first byte leaves; its outcome follows. An intent without an outcome may have
//! been received. Intents that come at the same time share a record, and so do outcomes: a record costs Kafka and the
//! chain as much as what is in it. The person is a pseudonym of the controller's disclosures alone.

use jiff::Timestamp;
use ryggrad_schemas::identifiers::Organisasjonsnummer;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One record as it is kept: JSON, whose bytes the next record's `before` is a hash of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Its number in the chain, from 1 on.
    pub number: u64,
    /// SHA-256 of the bytes of the record before, base64; empty for the first.
    pub before: String,
    /// Whose data it is about.
    pub controller: Organisasjonsnummer,
    /// When it was recorded.
    pub at: Timestamp,
    /// What.
    #[serde(flatten)]
    pub entry: Entry,
}

impl Link {
    /// The intents in it, each with its number.
    pub fn intents(&self) -> impl Iterator<Item = (u64, &Intent)> {
        let of: &[Intent] = if let Entry::Intents { of } = &self.entry { of } else { &[] };
        of.iter().enumerate().map(|(place, intent)| (intent_number(self.number, place), intent))
    }

    /// The outcomes in it.
    pub fn outcomes(&self) -> &[Outcome] {
        if let Entry::Outcomes { of } = &self.entry { of } else { &[] }
    }
}

/// What is recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Entry {
    /// Something is about to leave.
    Intents {
        /// By their places.
        of: Vec<Intent>,
    },
    /// How some of that went.
    Outcomes {
        /// In the order in which attempts ended.
        of: Vec<Outcome>,
    },
    /// Somebody has looked.
    Reading(Reading),
    /// The bridge vouches for everything up to here.
    Checkpoint {
        /// When the checkpoint before it was made, or the first record: what came since is younger.
        since: Timestamp,
        /// Ed25519 by the bridge's signing key.
        signature: String,
    },
}

/// Intents in one record at most, and outcomes: what Kafka takes as one record, with room to spare.
pub const TOGETHER_MAX: usize = 200;
/// Numbers of intents for each number of a record.
const PLACES: u64 = 1_000;

/// The number of an intent: that of its record, and its place in it, from 0 on.
pub fn intent_number(record: u64, place: usize) -> u64 {
    record.saturating_mul(PLACES).saturating_add(place as u64)
}

/// The number of the record that an intent is in.
pub fn record_of(intent: u64) -> u64 {
    intent / PLACES
}

/// A delivery that is about to leave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The delivery: the same over retries.
    pub delivery: String,
    /// `ce_id`.
    pub event: String,
    /// `ce_type`.
    pub ce_type: String,
    /// Where the event stands.
    pub topic: String,
    /// Where the event stands.
    pub partition: i32,
    /// Where the event stands.
    pub offset: i64,
    /// Whom it is about; none if nobody.
    pub person: Option<String>,
    /// Who gets it.
    pub receiver: Organisasjonsnummer,
    /// Who acts for the receiver.
    pub supplier: Option<Organisasjonsnummer>,
    /// The client that asked for it, or that the subscription was made by.
    pub client: Option<String>,
    /// By which subscription.
    pub subscription: Uuid,
    /// How it goes: webhook, socket, pull, kafka.
    pub channel: String,
    /// The host that it goes to, if it is posted.
    pub host: Option<String>,
    /// In which view.
    pub view: String,
    /// Whether addresses go along.
    pub with_addresses: bool,
    /// The law that the receiver has cited.
    pub basis: Option<String>,
    /// What the receiver wants it for.
    pub purpose: Option<String>,
}

/// How an attempt went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The number of the intent.
    pub intent: u64,
    /// The attempt, from 1 on.
    pub attempt: u32,
    /// How.
    pub how: How,
    /// The receiver's HTTP status, if there was one.
    pub status: Option<u16>,
}

/// How.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The receiver has taken it.
    Delivered,
    /// It has not said so: it may have it.
    Failed,
    /// Nothing left after all.
    Unsent,
}

/// A look at the records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The organisation that looked; none for the operator.
    pub by: Option<Organisasjonsnummer>,
    /// Its client.
    pub client: Option<String>,
    /// What was asked: verify, by-patient, by-organisation, export; or that events were looked at: reveal.
    pub asked: String,
    /// Why.
    pub purpose: Option<String>,
}
