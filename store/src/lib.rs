//! Durable cursors. The only crate that knows sled.
//!
//! sled is the truth for cursors, and for answers that are kept for repetitions of their requests; a damaged
//! directory's cursors can be made again from the changelog topic at the price of repeated deliveries, and its
//! answers are not missed: what was made is found again by its id. Promise: when `Writer::commit`
//! answers, the cursors are on disk, all of a commit or none. Never hands out a cursor whose
//! checksum is wrong.

mod answers;
mod checksum;
pub mod entry;
mod heads;
mod open;
mod writer;

pub use answers::KeptAnswer;
pub use entry::{Entry, SubscriptionId};
pub use heads::KeptHead;
pub use open::{Bound, Loaded, OpenError, Opened, Store, Stored};
pub use writer::{Change, CommitError, Writer};
