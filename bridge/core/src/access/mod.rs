//! Who may get what, as of now: the facts, and the decision that is asked at every attempt.
//!
//! Cast: [`facts`] are what organisations, controllers and registries have said; [`index`] holds them
//! so that a decision costs a few look-ups; [`decision`] is the rule itself; [`departure`] is
//! what an event of the register means for a member; [`request`] reads what is
//! asked for, [`record`] is what is kept and shown, [`sight`] who may see what was made,
//! [`kafka_access`] what Kafka itself is to let whom do. Pure: time is an argument.
//! Must never deliver because something is not known: for protected data, what is missing withholds.

pub mod decision;
pub mod departure;
pub mod facts;
pub mod index;
pub mod kafka_access;
pub mod record;
pub mod request;
pub mod sight;

pub use decision::{
    Caller, Case, Event, Extent, Party, Protection, Reason, Terms, Verdict, View, authorise, delegated, denied, shortcomings, stopped,
    terms, uncovered,
};
pub use departure::{departed, without_unit};
pub use facts::{Agreement, Basis, Block, Delegation, Grant, Member, Normen, Period, Relation, Standing, Subject};
pub use index::Facts;
pub use record::{Change, Fact, Kept, Kind, Who};
pub use request::{Asked, Look, is_pseudonym};
pub use sight::Sight;
