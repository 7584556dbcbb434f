//! Snapshots: a registry's whole dump, compared with what the topic already says.
//!
//! The topic is the memory: [`index`] packs where each key's latest state stands and its
//! fingerprint; [`rows`] cuts the dump into rows; a row whose fingerprint is another is compared
//! with the old state in full, and only a difference that the format can carry becomes an event.
//! What a dump does not show is judged by [`judge`] and never believed on the dump's word alone.

pub mod differences;
pub mod index;
pub mod judge;
pub mod rows;
pub mod run;

use std::borrow::Cow;

use ryggrad_schemas::fingerprint::Fingerprint;

use crate::event::{Event, Unmapped};
use crate::quarantine::Reason;

/// A row as far as it is read before anything is known to have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<'r> {
    /// The key of what it shows.
    pub key: Cow<'r, str>,
    /// Fingerprint of its content, without what a dump can't carry.
    pub fingerprint: Fingerprint,
}

/// What the dumps of one registry and kind are like.
pub trait Format {
    /// Reads as much of a row as a comparison needs.
    fn row<'r>(&self, row: &'r str) -> Result<Row<'r>, Reason>;

    /// Whether a record of the topic is of the kind that the dump shows, by its headers.
    fn shows<'h>(&self, header: impl Fn(&str) -> Option<&'h str>) -> bool;

    /// The event of a row whose key the topic does not have. `run` is the run's number.
    fn created(&self, run: u64, row: &str) -> Result<Event, Unmapped>;

    /// The event of a row that may differ from the old value; `None` if it does not.
    fn changed(&self, run: u64, row: &str, old: &[u8]) -> Result<Option<Event>, Unmapped>;

    /// The event of a key that upstream no longer has.
    fn ended(&self, run: u64, key: &str) -> Result<Event, Unmapped>;
}

/// How the answer to a look-up confirms or refutes what a dump seems to show.
pub trait Confirm {
    /// What a look-up says.
    type Answer;

    /// The event that the answer calls for; `None` if the topic already says the same. `old` is
    /// the topic's value, if it has the key.
    fn confirmed(&self, run: u64, key: &str, answer: &Self::Answer, old: Option<&[u8]>) -> Result<Option<Event>, Unmapped>;
}
