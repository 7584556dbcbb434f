//! Reading Ryggrad's topics as events: for the command line, and for systems that read Kafka
//! themselves.
//!
//! Cast: [`Point`] says where to begin and end, [`Filter`] which records count, [`Reader`] reads
//! all partitions of a topic, [`Event`] is what comes out.
//!
//! Promises: nothing is committed and no group is joined, so reading disturbs nobody; a record
//! that cannot be decoded is reported with its place and never ends the reading; one key's
//! events come in their order.

mod event;
mod filter;
mod marks;
mod point;
pub mod read;
mod request;

pub use event::{Cause, Event, Payload, Place, Undecodable};
pub use filter::Filter;
pub use marks::watermarks_of;
pub use point::{InvalidDuration, InvalidPoint, Point, duration_ms};
pub use read::{Item, Reader};
pub use request::{Request, Until};
