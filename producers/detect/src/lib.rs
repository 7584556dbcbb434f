//! From what a registry tells to records: feeds, positions, look-ups, changes, events.
//!
//! Cast: [`feed`] brings a page in order, [`enhetsregisteret`] reads one registry's answers and
//! maps them, [`event`] makes records of an event, [`batch`] what one transaction holds,
//! [`position`] remembers how far, [`decide`] says what to do when something goes wrong.
//!
//! Pure: no clock, randomness, tokio, files or network. Promises: an empty page, a 304 or an
//! error never moves a position; whatever stands in the feed becomes an event or is quarantined;
//! no error text quotes what a registry sent.

pub mod batch;
pub mod command;
pub mod decide;
pub mod enhetsregisteret;
pub mod event;
pub mod feed;
pub mod position;
pub mod quarantine;
mod rfc3339;
pub mod roll;
pub mod snapshot;
