//! Who was given what about whom: the records, their chain, and what others can read of them.
//!
//! Cast: [`entry`] is what is recorded, [`chain`] links the records so that none can be changed, taken out
//! or moved unseen, [`book`] is one controller's as it is written, [`person`] whom they are about,
//! [`audit_event`] says them in FHIR. One chain for each controller. Pure: time is an
//! argument, and keeping the records is the shell's. Must never hold a payload or an identity number.

pub mod audit_event;
pub mod book;
pub mod chain;
pub mod entry;
pub mod person;

pub use book::{Book, Memory, Written};
pub use chain::{Chain, Fault, Head, Report, Verifier};
pub use entry::{Entry, How, Intent, Link, Outcome, Reading, record_of};
pub use person::Persons;
