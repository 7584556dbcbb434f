//! Reading Ryggrad's topics as events: for the command line, and for systems that read Kafka
//! themselves.
//!
//! Cast: [`Point`] says where to begin and end, [`Filter`] which records count, [`Reader`] reads
//! all partitions of a topic, [`Event`] is what comes out.
//!
//! [`State`] keeps a copy of a topic in a [`Store`]: from the beginning, then up to date, through
//! crashes.
//!
//! Promises: no group is joined, so reading disturbs nobody, and only a [`State`] commits offsets,
//! those of its own group, after its store has what stands below them; a record that cannot be
//! decoded is reported with its place and never ends the reading; one key's events come in their
//! order; nothing older than a key's removal gets into a copy.

mod change;
mod event;
mod filter;
mod marks;
mod point;
mod position;
pub mod read;
mod removed;
mod request;
pub mod state;
mod store;

pub use change::{Change, Gone, change_of};
pub use event::{Cause, Event, Payload, Place, Undecodable};
pub use filter::Filter;
pub use marks::watermarks_of;
pub use point::{InvalidDuration, InvalidPoint, Point, duration_ms};
pub use position::{Gap, Position, Positions, gap};
pub use read::{Item, Reader};
pub use removed::{REMOVED_KEYS_MAX, REMOVED_TIMEOUT_MS};
pub use request::{Request, Until};
pub use state::{COMMIT_EVERY_MS, Plan, State, Step};
pub use store::{Memory, Store};
